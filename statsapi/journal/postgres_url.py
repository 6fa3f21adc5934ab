"""The URL of a journal in PostgreSQL: postgresql://[user[:password]@][host[:port][,…]][/db]?stream=NAME&…

Everything but stream= is libpq's own and is given to it as it is: several hosts, target_session_attrs, sslmode,
passfile, service. What the URL leaves out comes from where psql takes it: PGHOST, PGPASSWORD, ~/.pgpass, a service
file.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from statsapi.errors import ConfigError

DEFAULT_STREAM: Final = "statsapi"
# A stream is a schema of the database, and a longer name would be cut there.
_STREAM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,63}", re.ASCII)
_TAKEN: Final = re.compile(r"pg_.*|public|information_schema", re.ASCII)

# Hosts as a URL names them, each with a port that is a number, or none.
_HOSTS: Final = re.compile(r"((\[[^\]]*\]|[^,:\[\]]*)(:[0-9]*)?(,|\Z))*", re.ASCII)
_PORT: Final = "5432"  # unless given
_PORT_MAX: Final = 65_535
_PORT_WRONG: Final = (
    f"a port is a number from 1 to {_PORT_MAX}; where that is the password, the host behind it is missing: "
    "postgresql://user:password@host/db"
)

# Where neither the URL nor what libpq reads says otherwise.
_DEFAULTS: Final = {
    "connect_timeout": 2,  # of each host; a server that is there answers in milliseconds
    "application_name": "statsapi",
    # Behind a firewall that forgets idle connections, and for a server whose machine is gone.
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_NO_MODE: Final = "statsapi-asks"  # a value of sslmode that libpq refuses before it looks for any host


class Address(NamedTuple):
    """The parts of a URL. Its text may be shown: it has no user, password or options.

    each: for each host that libpq will try, a conninfo for it alone, which takes a standby as well.
    """

    conninfo: str
    shown: str
    stream: str
    each: tuple[str, ...]

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
        if "@" not in url and not _HOSTS.fullmatch(place.partition("://")[2].partition("/")[0]):
            raise _wrong(_PORT_WRONG)
        theirs = "&".join(each for each in options if not each.startswith("stream="))
        try:
            given: dict[str, Any] = conninfo_to_dict(f"{place}?{theirs}" if theirs else place)
        except UnicodeDecodeError:
            raise _wrong("its %-codes are UTF-8; write a % of the password itself as %25") from None
        except ProgrammingError as error:
            unknown = re.search(r'invalid URI query parameter: "(\w{1,40})"', str(error))
            raise _wrong(
                f"{unknown[1]!r} is no option of libpq or statsapi"
                if unknown and ("@" in place or "@" not in query)  # else it may be a part of the password
                else "it is postgresql://user@host:port/db?stream=NAME, with %-codes for / ? # @ in user and password"
            ) from None
        found = given | _resolve(given)
        hosts = _Hosts.of(found)
        if hosts.number > 1 and found.get("target_session_attrs", "any") == "any":
            given.setdefault("target_session_attrs", "read-write")  # one of them is the primary
        given |= {name: value for name, value in _DEFAULTS.items() if found.get(name) is None}
        shown = f"postgresql://{hosts}/{given.get('dbname') or ''}?stream={stream}"
        alone = given | {"target_session_attrs": "any"}
        each = tuple(make_conninfo("", **alone | hosts.alone(at)) for at in range(hosts.number))
        return cls(make_conninfo("", **given), shown, stream, each)


class _Hosts(NamedTuple):
    """The hosts that libpq will try, as its lists name them; each list is empty or names all."""

    names: list[str]
    addresses: list[str]
    ports: list[str]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> _Hosts:
        """ConfigError where libpq would try none of them."""
        names, addresses, ports = (
            str(found[name]).split(",") if found.get(name) else [] for name in ("host", "hostaddr", "port")
        )
        for port in filter(None, ports):
            if not re.fullmatch("[0-9]{1,9}", port.strip(), re.ASCII) or not 0 < int(port) <= _PORT_MAX:
                raise _wrong(_PORT_WRONG)
        for address in filter(None, addresses):
            if not _is_address(address):
                raise _wrong("hostaddr= takes numeric addresses; a name belongs into host=")
        count = max(len(names), len(addresses), 1)
        if any(len(each) not in (0, count) for each in (names, addresses)) or len(ports) not in (0, 1, count):
            raise _wrong("host=, hostaddr= and port= name several hosts, and not as many each")
        return cls(names, addresses, ports * count if len(ports) == 1 else ports)

    @property
    def number(self) -> int:
        return max(len(self.names), len(self.addresses), 1)

    def alone(self, at: int) -> dict[str, str]:
        """The options that name this host only."""
        return {
            name: each[at]
            for name, each in (("host", self.names), ("hostaddr", self.addresses), ("port", self.ports))
            if each
        }

    def __str__(self) -> str:
        shown = []
        for at, host in enumerate(self.names or self.addresses or [""]):
            port = self.ports[at] if self.ports else ""
            name = f"[{host}]" if ":" in host else host if not host.startswith(("/", "@")) else ""
            shown.append(f"{name}:{port}" if port not in ("", _PORT) else name)
        return ",".join(shown)


def _resolve(given: dict[str, Any]) -> dict[str, str]:
    """What libpq makes of these options, but for sslmode, with what it takes from the environment and a service file;
    a password too. Empty where it cannot use them. It asks no server. 50 µs.
    """
    connection = pq.PGconn.connect_start(make_conninfo("", **given | {"sslmode": _NO_MODE}).encode())
    try:
        found = {each.keyword.decode(): each.val.decode() for each in connection.info if each.val}
    finally:
        connection.finish()
    return found


def _is_address(text: str) -> bool:
    try:
        socket.getaddrinfo(text, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"the journal's PostgreSQL URL cannot be used: {why}")
