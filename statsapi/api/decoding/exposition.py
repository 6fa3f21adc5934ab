"""Prometheus' formats, as batch jobs push them: each gauge or untyped sample is an event of now.

The text formats are read by prometheus_client's own parsers, protobuf by exposition_protobuf.py. Counters, histograms
and summaries hold the sum of events that nobody kept apart, so no event can be made of them: they are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import numpy as np
from prometheus_client import Metric
from prometheus_client import parser as text_format
from prometheus_client.openmetrics import parser as openmetrics

from statsapi.api.decoding import exposition_protobuf
from statsapi.api.decoding.exposition_protobuf import UnreadableError
from statsapi.api.refusals import TooLarge
from statsapi.errors import InvalidRequest, echo
from statsapi.model import EventBatch, Parts
from statsapi.naming.names import fold_tags

OPENMETRICS: Final = "application/openmetrics-text"

# A push is read in Python, which gives way to others meanwhile. In text a sample, a label or a type takes 8 to 15 µs:
# 50,000 samples with a label each took 2.6 s and 45 MiB. A metric of protobuf takes as long with all its labels. The
# parser takes the square of a line's length, 20 s for a megabyte. No line needs LINE_MAX_BYTES: a name with its labels
# has at most 200 characters.
PUSH_MAX_BYTES: Final = 1024 * 1024
PARTS_MAX: Final = 30_000
LINE_MAX_BYTES: Final = 4096

FAULTS_MAX: Final = 100

# The library's types ask for a file, of which it takes the lines alone.
_Parse = Callable[[Iterable[str]], Iterable[Metric]]
_parse_text: Final = cast(_Parse, text_format.text_fd_to_metric_families)
_parse_openmetrics: Final = cast(_Parse, openmetrics.text_fd_to_metric_families)

_KINDS: Final = ("gauge", "unknown", "untyped")
_WHY_NOT: Final = {
    "counter": "is a counter, which holds a sum of events: record each event as it happens, or push a gauge",
    "histogram": "is a histogram, which holds counts of events: record each observation as an event",
    "summary": "is a summary, which holds sums of events: record each observation as an event",
    "gaugehistogram": "is a histogram, which holds counts of events: record each observation as an event",
}


def decode_push(body: bytes, group: Mapping[str, str], media_type: str, *, now_us: int, max_events: int) -> EventBatch:
    """One event of now for each sample of a gauge, in the series `name;label=value`, labels and group sorted together.

    group: the labels of the push's path, `job` among them; they take the place of a sample's own, as in a Pushgateway.
    Raises InvalidRequest that names each sample at fault, or the line that cannot be read, and TooLarge.
    """
    events: dict[str, float] = {}
    faults: list[dict[str, Any]] = []
    samples = refused = 0
    counters: set[str] = set()

    def refuse(name: str, reason: str, count: int = 1) -> None:
        nonlocal refused
        refused += count
        if len(faults) < FAULTS_MAX:
            faults.append({"field": echo(name), "reason": reason})

    try:
        for family in _families(body, media_type):
            if family.type == "counter":
                counters.add(family.name)
            if family.type not in _KINDS and family.samples:
                samples += len(family.samples)
                refuse(family.name, _why_not(family.type), len(family.samples))
                continue
            for sample in family.samples:
                samples += 1
                if sample.name.removesuffix("_total") in counters:  # declared by the name without
                    refuse(sample.name, _why_not("counter"))
                    continue
                labels = {name: value for name, value in {**sample.labels, **group}.items() if value}
                try:
                    series = fold_tags(sample.name, labels)
                    value = _number(sample.value)
                    _require_event(value, sample.timestamp, twice=series in events)
                except ValueError as error:
                    refuse(sample.name, str(error))
                else:
                    events[series] = value
    except UnreadableError as error:
        raise InvalidRequest([{"field": "", "reason": str(error)}], rejected=1) from None
    if samples > max_events:
        reason = f"holds {samples:,} samples; at most {max_events:,} are taken at once (STATSAPI_MAX_BATCH_EVENTS)"
        raise InvalidRequest([{"field": "", "reason": reason}], rejected=samples)
    if faults:
        raise InvalidRequest(faults, rejected=refused)
    count = len(events)
    stamps_us = np.full(count, now_us, np.int64)
    return EventBatch(Parts(list(events), np.ones(count, np.int64), stamps_us, np.array(list(events.values()), float)))


def _families(body: bytes, media_type: str) -> Iterator[Metric]:
    if media_type == exposition_protobuf.MEDIA_TYPE:
        yield from exposition_protobuf.families_of(body, PARTS_MAX, LINE_MAX_BYTES)
        return
    lines = _lines(body)
    is_openmetrics = media_type == OPENMETRICS
    number = 0

    def counted() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(lines, 1):  # noqa: B007 (told where the parser stops)
            if line:  # the parser of OpenMetrics takes no blank ones
                yield f"{line}\n"
        number = 0

    try:
        yield from (_parse_openmetrics if is_openmetrics else _parse_text)(counted())
    except _PARSER_ERRORS as error:
        raise InvalidRequest([_unreadable(number, lines, error, is_openmetrics)], rejected=1) from None


_PARSER_ERRORS: Final = (ValueError, KeyError, IndexError, TypeError, OverflowError)


def _lines(body: bytes) -> list[str]:
    """The body's lines, empty where the parser has nothing to learn: comments, but for a metric's type and the end."""
    try:
        lines = body.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest([{"field": "", "reason": f"is not UTF-8, at byte {error.start}"}]) from None
    samples = types = quotes = 0
    for at, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            if line.split(None, 2)[:2] == ["#", "TYPE"]:
                types += 1
            elif line.rstrip() != "# EOF":
                lines[at] = ""
                continue
        elif not line.strip():
            lines[at] = ""
            continue
        else:
            samples += 1
        quotes += line.count('"')
        if len(line) > LINE_MAX_BYTES:
            reason = f"is longer than {LINE_MAX_BYTES:,} characters; a name has at most 200, its labels included"
            raise InvalidRequest([{"line": at + 1, "field": "", "reason": reason}], rejected=1)
    labels = (quotes + 1) // 2
    if samples + labels + types > PARTS_MAX:
        raise TooLarge(
            f"{samples:,} samples with {labels:,} labels and {types:,} types were pushed; one push may hold at most "
            f"{PARTS_MAX:,} of them together."
        )
    return lines


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _why_not(kind: str) -> str:
    return _WHY_NOT.get(kind, f"is of the type {echo(kind)}, which holds no number: push a gauge")


def _require_event(value: float, timestamp: Any, *, twice: bool) -> None:
    """That a sample can be an event; ValueError else."""
    if not math.isfinite(value):
        raise ValueError(f"is {value}, or too large to be told from it: leave it out, or give it a finite number")
    if timestamp is not None:
        raise ValueError("has a timestamp, which a push cannot: leave it out, or send the event to POST /events")
    if twice:
        raise ValueError("appears twice with the same labels: push each sample once")


def _unreadable(number: int, lines: list[str], error: Exception, is_openmetrics: bool) -> dict[str, Any]:
    """What the parser stopped for, at the line of that number, or behind all of them (0). The line is named where it
    cannot be read by itself: else the fault may be one of lines before it.
    """
    form = "OpenMetrics" if is_openmetrics else "Prometheus' text format"
    if number:
        line = lines[number - 1]
        try:
            if is_openmetrics and line.rstrip() != "# EOF":
                list(_parse_openmetrics([f"{line}\n", "# EOF\n"]))
            else:
                list(_parse_text([line]))
        except _PARSER_ERRORS as alone:
            return {"line": number, "field": "", "reason": f"is not {form}: {_said(alone)}"}
    return {"field": "", "reason": f"is not {form}: {_said(error)}"}


def _said(error: Exception) -> str:
    return echo(str(error)) or type(error).__name__
