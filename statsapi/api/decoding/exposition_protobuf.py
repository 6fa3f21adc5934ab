"""The protobuf form of a push, as Prometheus' Go client sends it: MetricFamily messages, each behind its length.

Read by Google's protobuf library. The fields are those of `io.prometheus.client` (metrics.proto of the project
prometheus/client_model); only what a push can use is declared, and protobuf passes over the rest. Two things are
declared otherwise than there, alike on the wire: a metric is bytes, so that the metrics can be counted before one is
unpacked, and so is text, so that what is no UTF-8 can be told.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.samples import Sample

from statsapi.api.refusals import TooLarge

MEDIA_TYPE: Final = "application/vnd.google.protobuf"
_PACKAGE: Final = "statsapi.push"

# MetricFamily.type, and which of a metric's fields then holds its value.
_KINDS: Final = {0: "counter", 1: "gauge", 2: "summary", 3: "unknown", 4: "histogram", 5: "gaugehistogram"}
_VALUE_IN: Final = {"gauge": "gauge", "unknown": "untyped"}

_PIECE: Final = 100  # metrics of a family


class UnreadableError(ValueError):
    """What was pushed is no such message; the text says which and why."""


class _Messages(NamedTuple):
    """The classes that the protobuf library made."""

    family: Any
    metric: Any


@cache
def _messages() -> _Messages:
    """2 ms, and 15 for the import, with the first push of this form."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="statsapi_push.proto", package=_PACKAGE, syntax="proto2")

    def add(message: str, *fields: tuple[int, str, Any, bool]) -> None:
        described = file.message_type.add(name=message)
        for number, name, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            field = described.field.add(number=number, name=name, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kind

    add("Family", (1, "name", kinds.TYPE_BYTES, False), (3, "type", kinds.TYPE_INT32, False),
        (4, "metric", kinds.TYPE_BYTES, True))  # fmt: skip
    add("Label", (1, "name", kinds.TYPE_BYTES, False), (2, "value", kinds.TYPE_BYTES, False))
    add("Number", (1, "value", kinds.TYPE_DOUBLE, False))
    add("Metric", (1, "label", "Label", True), (2, "gauge", "Number", False), (5, "untyped", "Number", False),
        (6, "timestamp_ms", kinds.TYPE_INT64, False))  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    family, metric = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in ("Family", "Metric")
    )
    return _Messages(family, metric)


def families_of(body: bytes, most_metrics: int, metric_max_bytes: int) -> Iterator[Metric]:
    """The metric families of a push, as prometheus_client's parsers give them. About 4 µs a metric.

    UnreadableError for what is no such message or has a metric longer than `metric_max_bytes`, TooLarge for more than
    `most_metrics` metrics or families: both before a metric is unpacked.
    """
    from google.protobuf.message import DecodeError

    metrics = 0
    for families, (at, family) in enumerate(_packed(body), 1):  # looked through before anything is kept
        metrics += len(family.metric)
        if max(families, metrics) > most_metrics:
            raise TooLarge(f"One push may hold at most {most_metrics:,} samples.")
        if any(len(metric) > metric_max_bytes for metric in family.metric):
            raise UnreadableError(
                f"the MetricFamily at byte {at} has a metric of more than {metric_max_bytes:,} bytes; a name has at "
                "most 200 characters, its labels included"
            )
    for at, family in _packed(body):
        try:
            yield from _unpacked(family)
        except (DecodeError, ValueError) as error:
            raise _unreadable(at, error) from None


def _packed(body: bytes) -> Iterator[tuple[int, Any]]:
    """Each family, its metrics not yet unpacked, and where it begins."""
    from google.protobuf import proto
    from google.protobuf.message import DecodeError

    stream = io.BytesIO(body)
    while True:
        at = stream.tell()
        try:
            family = proto.parse_length_prefixed(_messages().family, stream)
        except (DecodeError, ValueError, EOFError, IndexError) as error:
            raise _unreadable(at, error) from None
        if family is None:
            return
        yield at, family


def _unreadable(at: int, error: Exception) -> UnreadableError:
    return UnreadableError(f"the MetricFamily at byte {at} cannot be read: {error}")


def _unpacked(family: Any) -> Iterator[Metric]:
    """The family in pieces, so that its samples need not be held at once. Raises DecodeError and ValueError."""
    if not family.name:
        raise ValueError("it has no name")
    name, kind = family.name.decode(), _KINDS.get(family.type, "unknown type")
    holder = _VALUE_IN.get(kind)
    if holder is None:  # refused by its name, so nothing of it is unpacked
        refused = Metric(name, "", "unknown")
        refused.type = kind
        refused.samples = [Sample(name, {}, 0.0)] * len(family.metric)
        yield refused
        return
    for first in range(0, len(family.metric), _PIECE):
        piece = Metric(name, "", kind)
        for packed in family.metric[first : first + _PIECE]:
            metric = _messages().metric.FromString(packed)
            labels = {label.name.decode(): label.value.decode() for label in metric.label}
            if len(labels) < len(metric.label):
                raise ValueError(f"a label of {name} appears twice")
            if not metric.HasField(holder):
                raise ValueError(f"{name} is {'a gauge' if kind == 'gauge' else 'untyped'}, and has no such value")
            timestamp = metric.timestamp_ms / 1000 if metric.HasField("timestamp_ms") else None
            piece.add_sample(name, labels, getattr(metric, holder).value, timestamp)
        yield piece
