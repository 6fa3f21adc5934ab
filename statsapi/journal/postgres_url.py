"""The URL of a journal in PostgreSQL: postgresql://[user[:password]@][host[:port][,…]][/db]?stream=NAME&…

Everything but stream= is libpq's own and is given to it as it is: several hosts, target_session_attrs, sslmode,
passfile, service. What it does not say comes from where psql has it: PGPASSWORD, ~/.pgpass, a service file.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from statsapi.errors import ConfigError

DEFAULT_STREAM: Final = "statsapi"
# A stream is a schema of the database, and a longer name would be cut there.
_STREAM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,63}", re.ASCII)
_TAKEN: Final = re.compile(r"pg_.*|public|information_schema", re.ASCII)

# Of each host; a server that is there answers in milliseconds.
_CONNECT_TIMEOUT_S: Final = 2


class Address(NamedTuple):
    """The parts of a URL. Its text may be shown: it has no user, password or options."""

    conninfo: str
    shown: str
    stream: str

    def __str__(self) -> str:
        return self.shown

    @property
    def schema(self) -> str:
        """The schema's name, quoted for SQL."""
        return f'"{self.stream}"'

    @classmethod
    def parse(cls, url: str) -> Address:
        """ConfigError names what to fix and never repeats the URL, which may hold a password."""
        place, _, query = url.partition("?")
        options = [each for each in query.split("&") if each]
        streams = [unquote(each.removeprefix("stream=")) for each in options if each.startswith("stream=")]
        stream = streams[-1] if streams else DEFAULT_STREAM
        if not _STREAM.fullmatch(stream) or _TAKEN.fullmatch(stream):
            raise _wrong(
                "stream= names the schema that is made for it: 1 to 63 of the characters A-Z a-z 0-9 _ . : -, "
                "and neither public nor pg_…"
            )
        if place.count("@") > 1 or "@" in place.partition("://")[2].partition("/")[2]:
            # libpq would take a part of the password for host or database, and errors would name it.
            raise _wrong("with / ? # or @ in user or password, write %2F %3F %23 %40 there")
        theirs = "&".join(each for each in options if not each.startswith("stream="))
        try:
            given = conninfo_to_dict(f"{place}?{theirs}" if theirs else place)
        except ProgrammingError as error:
            unknown = re.search(r'invalid URI query parameter: "(\w{1,40})"', str(error))
            raise _wrong(
                f"{unknown[1]!r} is no option of libpq or statsapi"
                if unknown
                else "it is postgresql://user@host:port/db?stream=NAME, with %-codes for / ? # @ in user and password"
            ) from None
        hosts = str(given.get("host") or given.get("hostaddr") or "")
        if "," in hosts:
            given.setdefault("target_session_attrs", "read-write")  # one of them is the primary
        given.setdefault("connect_timeout", _CONNECT_TIMEOUT_S)
        given.setdefault("application_name", "statsapi")
        # Behind a firewall that forgets idle connections, and for a server whose machine is gone.
        given.setdefault("keepalives_idle", 30)
        given.setdefault("keepalives_interval", 5)
        given.setdefault("keepalives_count", 3)
        ports = str(given.get("port") or "").split(",")
        names = [f"[{host}]" if ":" in host else host if not host.startswith("/") else "" for host in hosts.split(",")]
        pairs = (
            f"{name}:{port}" if port else name
            for name, port in zip(names, ports if len(ports) == len(names) else ports[:1] * len(names), strict=True)
        )
        shown = f"postgresql://{','.join(pairs)}/{given.get('dbname') or ''}?stream={stream}"
        return cls(make_conninfo("", **given), shown, stream)


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"the journal's PostgreSQL URL cannot be used: {why}")
