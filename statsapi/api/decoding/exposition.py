"""Prometheus' text format, as batch jobs push it: each gauge or untyped sample is an event of now.

Read by prometheus_client's own parser. Counters, histograms and summaries hold the sum of events that nobody kept
apart, so no event can be made of them: they are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from statsapi.errors import InvalidRequest, echo
from statsapi.model import EventBatch, Parts
from statsapi.naming.names import fold_tags

# A push is read in Python, 8 µs a sample: 10,000 samples of 100 bytes take 80 ms, and give way to others meanwhile.
PUSH_MAX_BYTES: Final = 1024 * 1024

FAULTS_MAX: Final = 100

_KINDS: Final = ("gauge", "unknown", "untyped")
_WHY_NOT: Final = {
    "counter": "is a counter, which holds a sum of events: record each event as it happens, or push a gauge",
    "histogram": "is a histogram, which holds counts of events: record each observation as an event",
    "summary": "is a summary, which holds sums of events: record each observation as an event",
}


def decode_push(body: bytes, group: Mapping[str, str], *, now_us: int, max_events: int) -> EventBatch:
    """One event of now for each sample of a gauge, in the series `name;label=value`, labels and group sorted together.

    group: the labels of the push's path, `job` among them; they take the place of a sample's own, as in a Pushgateway.
    Raises InvalidRequest that names each sample at fault, or the line that cannot be read.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest([{"field": "", "reason": f"is not UTF-8, at byte {error.start}"}]) from None
    events: dict[str, float] = {}
    faults: list[dict[str, Any]] = []
    samples = refused = 0
    try:
        for family in text_string_to_metric_families(text):
            if family.type not in _KINDS and family.samples:
                samples += len(family.samples)
                refused += len(family.samples)
                faults.append({"field": echo(family.name), "reason": _why_not(family.type)})
                continue
            for sample in family.samples:
                samples += 1
                labels = {name: value for name, value in {**sample.labels, **group}.items() if value}
                try:
                    series = fold_tags(sample.name, labels)
                    _require_event(sample.value, sample.timestamp, twice=series in events)
                except ValueError as error:
                    refused += 1
                    faults.append({"field": echo(sample.name), "reason": str(error)})
                else:
                    events[series] = float(sample.value)
    except (ValueError, KeyError, IndexError, TypeError) as error:  # all of which the parser raises
        raise InvalidRequest([_unreadable(text, error)], rejected=1) from None
    if samples > max_events:
        reason = f"holds {samples:,} samples; at most {max_events:,} are taken at once (STATSAPI_MAX_BATCH_EVENTS)"
        raise InvalidRequest([{"field": "", "reason": reason}], rejected=samples)
    if faults:
        raise InvalidRequest(faults[:FAULTS_MAX], rejected=refused)
    count = len(events)
    stamps_us = np.full(count, now_us, np.int64)
    return EventBatch(Parts(list(events), np.ones(count, np.int64), stamps_us, np.array(list(events.values()), float)))


def _why_not(kind: str) -> str:
    return _WHY_NOT.get(kind, f"is of the type {echo(kind)}, which holds no number: push a gauge")


def _require_event(value: float, timestamp: Any, *, twice: bool) -> None:
    """That a sample can be an event; ValueError else."""
    if not math.isfinite(value):
        raise ValueError(f"is {value}: leave it out, or give it a finite number")
    if timestamp is not None:
        raise ValueError("has a timestamp, which a push cannot: leave it out, or send the event to POST /events")
    if twice:
        raise ValueError("appears twice with the same labels: push each sample once")


def _unreadable(text: str, error: Exception) -> dict[str, Any]:
    """The first line that cannot be read by itself."""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            list(text_string_to_metric_families(line))
        except (ValueError, KeyError, IndexError, TypeError) as alone:
            return {"line": number, "field": "", "reason": f"is not Prometheus' text format: {_said(alone)}"}
    return {"field": "", "reason": f"is not Prometheus' text format: {_said(error)}"}


def _said(error: Exception) -> str:
    return echo(str(error)) or type(error).__name__
