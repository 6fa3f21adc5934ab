"""`statsapi doctor URL`: finds faults between this machine and the service, and says how to repair them.

Each finding is one of: ok, note (good to know), fault (with the cure), unknown (could not be checked). It only reads;
nothing is recorded.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import click

from statsapi import __version__
from statsapi.cli import failures, output
from statsapi.cli.connection import Connection, may_ask_service

if TYPE_CHECKING:
    from statsapi.client import Client

# Clocks kept by NTP differ by milliseconds. A difference below this does not matter for windows of minutes.
_SKEW_S: Final = 2.0


class Finding(NamedTuple):
    check: str
    state: str  # ok, note, fault, unknown
    said: str
    cure: str = ""


@click.command(
    short_help="Find what is wrong with a service, and the cure.",
    epilog="Example: statsapi doctor https://stats.example.com",
)
@click.argument("address", metavar="[URL]", required=False)
@may_ask_service
def doctor(find_service: Callable[..., Connection], address: str | None) -> int:
    """Look at the service at URL (--url unless given): address and TLS, version, clock, journal, key, proxies.

    Exit status: 0 nothing is wrong, 1 something is.
    """
    service = find_service(address)
    findings = []
    for finding in examine(service):
        findings.append(finding)
        if not service.as_json:
            click.echo(f"{finding.state:8}{finding.check}: {finding.said}")
            if finding.cure:
                click.echo(f"{'':8}cure: {finding.cure}")
    faults = [finding for finding in findings if finding.state == "fault"]
    if service.as_json:
        output.show_json({"url": service.url, "faults": len(faults), "findings": [each._asdict() for each in findings]})
    else:
        click.echo(f"{len(faults)} fault{'' if len(faults) == 1 else 's'} found" if faults else "nothing is wrong")
    return failures.NOT_DONE if faults else 0


def examine(service: Connection) -> Iterator[Finding]:
    """The findings, one by one. It stops after the address where that does not lead to statsapi."""
    from statsapi.client import StatsapiError

    with service.client() as client:
        began_s = time.time()
        try:
            index = client.ask("/")
        except StatsapiError as error:
            yield _of_address(error)
            return
        ended_s = time.time()
        if not isinstance(index.get("server_time"), str) or "endpoints" not in index:
            yield Finding("address", "fault", "something answers that is not statsapi", "check --url, and its path")
            return
        yield _of_way(service)
        yield _of_version(client, index)
        yield _of_clock(index["server_time"], began_s, ended_s)
        yield from _of_readiness(client)
        yield from _of_key(client, service)


def _of_address(error: Exception) -> Finding:
    told = failures.told(error)
    line = (told.lines[0] if told else str(error)).removeprefix("statsapi: ")
    said, separator, cure = line.partition(": write ")
    if separator:
        return Finding("address", "fault", said, f"write {cure}")
    if getattr(error, "status", None) in (301, 302, 307, 308):
        return Finding(
            "address", "fault", line.partition(";")[0], "give --url that URL; with http for https, write https://"
        )
    said, _, cure = line.rpartition("; ") if "; " in line else (line, "", "")  # what a page holds comes before
    return Finding("address", "fault", said, cure or "check that it is running, and --url")


def _of_way(service: Connection) -> Finding:
    parts = urlsplit(service.url)
    if parts.scheme == "https":
        return Finding("address", "ok", f"{service.url} answers, and its certificate is trusted")
    local = parts.hostname in ("localhost", "::1") or str(parts.hostname).startswith("127.")
    if service.key and not local:
        return Finding(
            "address",
            "fault",
            f"{service.url} answers, and the API key crosses the network in the clear",
            "put TLS in front (docs/deploying.md), and write https://",
        )
    return Finding("address", "ok", f"{service.url} answers")


def _of_version(client: Client, index: dict[str, Any]) -> Finding:
    from statsapi.client import StatsapiError

    try:
        version = str(client.ask("/openapi.json")["info"]["version"])
    except (StatsapiError, KeyError, TypeError):
        return Finding("version", "unknown", "the service does not tell its version")
    missing = [path for path in ("GET /check", "GET /tags") if path not in index["endpoints"]]
    if _number(version) < _number(__version__) or missing:
        lacks = f", without {', '.join(missing)}" if missing else ""
        return Finding(
            "version",
            "fault",
            f"the service is {version}{lacks}; this command is {__version__}",
            "upgrade the service (docs/operations.md), or use its own command",
        )
    if _number(version) > _number(__version__):
        return Finding(
            "version", "fault", f"this command is {__version__}; the service is {version}", "upgrade this command"
        )
    return Finding("version", "ok", version)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _of_clock(server_time: str, began_s: float, ended_s: float) -> Finding:
    try:
        moment = datetime.fromisoformat(server_time)
        theirs_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return Finding("clock", "unknown", f"the service's time is no time: {server_time[:50]!r}")
    # The service read its clock at some moment between the two.
    ahead_s = theirs_s - ended_s if theirs_s > ended_s else min(0.0, theirs_s - began_s)
    if abs(ahead_s) <= _SKEW_S:
        return Finding("clock", "ok", f"within {max(0.1, abs(ahead_s) + (ended_s - began_s)):.1f} s of this machine's")
    direction = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        "clock",
        "fault",
        f"the service's clock is {_span(abs(ahead_s))} {direction} this machine's",
        "set the wrong one of the two by NTP (timedatectl shows whether it is synchronised); events stamped by this "
        "machine else lie in other windows than they should",
    )


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _of_readiness(client: Client) -> Iterator[Finding]:
    """The journal, lost records, a clock that jumped, proxies."""
    from statsapi.client import StatsapiError

    try:
        ready = client.ask("/readyz")
    except StatsapiError as error:
        said = " ".join(str(error).split())
        yield Finding("journal", "fault", said, "see the service's log, and `statsapi journal check` beside it")
        return
    yield Finding("journal", "ok", "events can be recorded and questions answered")
    if lost := ready.get("lost"):
        since = f", since {lost['since']}" if lost.get("since") else ""
        yield Finding(
            "journal",
            "fault",
            f"{lost.get('records') or 'an unknown number of'} acknowledged records are gone{since}",
            "restore a backup, or find what removed them (docs/durability.md)",
        )
    if ready.get("clock"):
        yield Finding("clock", "note", f"the service's clock jumped within the last day: {ready['clock']}")
    if proxy := ready.get("proxy"):
        said, _, cure = str(proxy).rpartition(". ")
        yield Finding("proxies", "fault", said or str(proxy), cure or "set it to how many proxies are in front")
    else:
        yield Finding("proxies", "ok", "what they add fits STATSAPI_TRUSTED_PROXIES, as far as can be seen from here")


_SCOPES: Final = (("read", "/series", {"limit": 1}), ("admin", "/debug/events", {"limit": 1}))


def _of_key(client: Client, service: Connection) -> Iterator[Finding]:
    """What the key may do. Nothing is recorded to find it out, so `write` shows only where no key is needed."""
    from statsapi.client import Refused, StatsapiError, Unauthorized

    may = []
    for scope, path, question in _SCOPES:
        try:
            client.ask(path, **question)
            may.append(scope)
        except Unauthorized as error:
            if error.status == 401:
                yield _of_unknown_key(service, str(error))
                return
        except Refused:  # the debug endpoint can be switched off
            continue
        except StatsapiError as error:
            yield Finding("key", "unknown", " ".join(str(error).split()))
            return
    if service.key is None or _asks_no_key(service):
        yield Finding(
            "key",
            "note",
            "the service asks for no key: whoever reaches it may record and delete",
            "configure keys where others can reach it (statsapi keys new; docs/access.md)",
        )
    elif may:
        yield Finding("key", "ok", f"it may {' and '.join(may)}")
    else:
        yield Finding("key", "note", "it is known, and may not read: it is one for recording")


def _asks_no_key(service: Connection) -> bool:
    """Whether the service answers without the key too."""
    from statsapi.client import StatsapiError

    with dataclasses.replace(service, key=None).client() as client:
        try:
            client.ask("/series", limit=1)
        except StatsapiError:
            return False
    return True


def _of_unknown_key(service: Connection, said: str) -> Finding:
    source = service.sources["key"]
    if service.key is None:
        cure = "give one by --key, STATSAPI_API_KEY or the configuration file"
        return Finding("key", "fault", f"the service wants an API key, and there is none ({source})", cure)
    return Finding(
        "key",
        "fault",
        f"the service does not know this key ({source})",
        "ask who runs it for a new one (statsapi keys new), and look for blanks or a lost end in this one",
    )
