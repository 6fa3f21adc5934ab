"""The URL of a journal in Redis, read with advice.

redis://[user:password@]host[:port][/db]?stream=NAME               rediss:// with TLS
redis+sentinel://host[:port],host[:port]/SERVICE[/db]?stream=NAME  rediss+sentinel://
redis+cluster://host[:port],host[:port]?stream=NAME                rediss+cluster://
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from statsapi.errors import ConfigError
from statsapi.redis_hosts import DATABASE_MAX, is_host, why_no_certificates

DEFAULT_STREAM: Final = "statsapi"
_STREAM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@,]+)(?::([0-9]{1,5}))?", re.ASCII)
TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")


class Address(NamedTuple):
    """The parts of a URL. Its text may be shown: it has no user, password or options."""

    kind: str  # "single", "sentinel" or "cluster"
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    stream: str
    username: str | None
    password: str | None
    options: dict[str, str]

    def __str__(self) -> str:
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "single" else f"+{self.kind}")
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        path = {"single": f"/{self.db}", "sentinel": f"/{self.service}/{self.db}", "cluster": ""}[self.kind]
        return f"{scheme}://{hosts}{path}?stream={self.stream}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """ConfigError names what to fix and never repeats the URL, which may hold a password."""
        scheme, _, rest = url.partition("://")
        base, _, kind = scheme.partition("+")
        netloc = re.split("[/?]", rest, maxsplit=1)[0]
        login, at, hosts = netloc.rpartition("@")
        username, colon, password = login.partition(":")
        parts = urlsplit(f"//host{rest[len(netloc) :]}")
        found = []
        for text in hosts.split(","):
            match = _HOST.fullmatch(text)
            if match is None or int(match[2] or 1) > 65_535 or not is_host(match[1]):
                raise _wrong(
                    "its host is not one: write host, host:port or [address]:port, behind a password and @ "
                    "(redis://:password@host), with %-codes for / ? # @ in that"
                )
            found.append((match[1].strip("[]"), int(match[2] or (26379 if kind == "sentinel" else 6379))))
        if not kind and len(found) > 1:
            raise _wrong("it names several hosts: write redis+sentinel:// or redis+cluster:// for those")
        path = [unquote(piece) for piece in parts.path.split("/") if piece]
        service = path.pop(0) if kind == "sentinel" and path else ""
        if kind == "sentinel" and not service:
            raise _wrong("behind the hosts it must name the service that Sentinel watches: /mymaster")
        if len(path) > (kind != "cluster") or not all(piece.isdecimal() for piece in path):
            known = "a Cluster has no databases" if kind == "cluster" else "write /0 or the database's number"
            raise _wrong(f"its path is not a database: {known}")
        if path and int(path[0]) > DATABASE_MAX:
            raise _wrong(f"the last database that there can be is {DATABASE_MAX}")
        options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        stream = options.pop("stream", DEFAULT_STREAM)
        if not _STREAM.fullmatch(stream):
            raise _wrong("stream= takes 1 to 100 of the characters A-Z a-z 0-9 _ . : -")
        tls = base == "rediss"
        allowed = (TLS_OPTIONS if tls else ()) + (SENTINEL_OPTIONS if kind == "sentinel" else ())
        unknown = sorted(options.keys() - set(allowed))
        if unknown and not at and "@" in rest:  # what it would name may be a part of the password
            raise _wrong("with / ? # or @ in user or password, write %2F %3F %23 %40 there")
        if unknown:
            raise _wrong(f"{unknown[0]!r} is no option of it: it takes {', '.join(('stream', *allowed))}")
        return cls(
            kind or "single",
            tls,
            tuple(found),
            service,
            int(path[0]) if path else 0,
            stream,
            unquote(username) if at and username else None,
            unquote(password) if at and colon else None,
            options,
        )


def require_certificates(address: Address) -> None:
    """ConfigError where the files that the URL names for TLS cannot be used: waiting for the server would not help."""
    if why := why_no_certificates(address.options):
        raise _wrong(why)


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"the journal's Redis URL cannot be used: {why}")
