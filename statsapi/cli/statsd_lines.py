"""StatsD's datagrams, and DogStatsD's, as events.

    NAME:VALUE[:VALUE…]|TYPE[|@RATE][|#TAG,…][|T SECONDS][|c:… |e:… |card:…]      several lines a datagram

An event is one measured value, so ms, h, d and g are events. A sum, a change or a sample of events is refused by name,
never guessed at. Sources: github.com/statsd/statsd, its page "metric types"; Datadog's page "DogStatsD datagram
format", protocols 1.0 to 1.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple

from statsapi.naming.names import fold_tags

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)
_EVENTS: Final = frozenset({"ms", "h", "d", "g"})
_SHOWN: Final = 80
# Sections that only DogStatsD's clients write. These send no changes of a gauge: a sign belongs to the value.
_DOGSTATSD: Final = re.compile(rb"\|(?:#|c:|e:|card:|T[0-9])")
# Other clients send a gauge below zero as two lines, since a sign means a change: set it to 0, then change it.
_ZEROED: Final = re.compile(rb"([^:|]+):0(\|g(?:\|.*?)?)\r?")


class Measured(NamedTuple):
    """One line: its values are one event each. `series` is a canonical name; the time is that of receiving if None."""

    series: str
    values: list[float]
    timestamp: datetime | None


class Refused(NamedTuple):
    """A line that holds no event. `reason` is one of few, to count by; `detail` says what is wrong with this one."""

    reason: str
    detail: str


class _RefusedError(Exception):
    pass


def read(datagram: bytes, *, counters: bool = False, gauges: bool = False) -> Iterator[Measured | Refused]:
    """The lines of a datagram, in order. Never raises.

    `counters`: each count is taken as an event with that value. `gauges`: a gauge's sign belongs to its value, and is
    no change. Without `gauges` only a minus does: in a datagram of DogStatsD's clients, and right behind a line that
    sets the gauge to 0.
    """
    signs = "" if gauges else "+" if _DOGSTATSD.search(datagram) else "+-"
    lines = [line for line in datagram.split(b"\n") if line.strip()]
    passed = False
    for line, after in pairwise([*lines, b""]):
        zeroed, passed = passed, False
        if "-" in signs and (below := _ZEROED.fullmatch(line)) is not None and after.startswith(below[1] + b":-"):
            passed = after.strip(b"\r").endswith(below[2])
            if passed:
                continue
        try:
            yield _read_line(line.decode().strip("\r"), counters, "" if zeroed else signs)
        except UnicodeDecodeError:
            yield Refused("malformed", f"{line[:_SHOWN]!r} is not UTF-8")
        except _RefusedError as error:
            reason, detail = error.args
            yield Refused(reason, f"{line[:_SHOWN].decode(errors='replace')!r} {detail}")


def _read_line(line: str, counters: bool, signs: str) -> Measured:
    if line.startswith("_e{"):
        raise _RefusedError("event", "is an event of DogStatsD, which has a text and no value")
    if line.startswith("_sc|"):
        raise _RefusedError("service check", "is a service check of DogStatsD, which has a status and no value")
    name, colon, rest = line.partition(":")
    written, *sections = rest.split("|")
    if not colon or not name or not sections:
        raise _RefusedError("malformed", "is not NAME:VALUE|TYPE")
    kind, *more = sections
    _require_events(kind, counters)
    tags, timestamp = _read_sections(more)
    values = [_value(text, signs if kind == "g" else "") for text in written.split(":")]
    try:
        return Measured(fold_tags(name, tags), values, timestamp)
    except ValueError as error:
        raise _RefusedError("name", f"has a name that {error}") from None


def _require_events(kind: str, counters: bool) -> None:
    if kind in _EVENTS or (kind == "c" and counters):
        return
    if kind == "c":
        raise _RefusedError(
            "counter", "is a counter, which adds up events before they are sent: --counters=events records each count"
        )
    if kind == "s":
        raise _RefusedError("set", "is of a set, which counts different values")
    raise _RefusedError("malformed", f"has the type {kind!r}, and ms, h, d and g are taken")


def _read_sections(sections: list[str]) -> tuple[dict[str, str], datetime | None]:
    tags: dict[str, str] = {}
    timestamp = None
    for section in sections:
        if section.startswith("@"):
            if not _NUMBER.fullmatch(section[1:]) or float(section[1:]) != 1:
                raise _RefusedError(
                    "sample rate", "is a sample, and stands for events that were not sent: set the rate to 1"
                )
        elif section.startswith("#"):
            for tag in filter(None, section[1:].split(",")):
                key, colon, value = tag.partition(":")
                value = value if colon else "true"
                if tags.setdefault(key, value) != value:
                    raise _RefusedError("tag", f"has the tag {key!r} with two values")
        elif section.startswith("T"):
            if not _SECONDS.fullmatch(section[1:]):
                raise _RefusedError("malformed", "has a time that is no Unix time in seconds")
            timestamp = datetime.fromtimestamp(int(section[1:]), UTC)
        elif not section.startswith(("c:", "e:", "card:")):
            raise _RefusedError("malformed", f"has a part {section[:20]!r} that is not known")
    return tags, timestamp


def _value(text: str, signs: str) -> float:
    if _NUMBER.fullmatch(text) is None or not math.isfinite(value := float(text)):
        raise _RefusedError("value", f"has the value {text[:40]!r}, which is no number")
    if text[0] in signs:  # what stands before a change
        raise _RefusedError(
            "change of a gauge",
            "is a change of a gauge, and no value of it: send what it is. Where all clients are DogStatsD's, which "
            "send no changes, --gauges=values takes it",
        )
    return value
