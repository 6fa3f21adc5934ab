"""Query schemas of questions that may be about many series: the parameters of `choosing.py`, and their own."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, Final

from marshmallow import ValidationError, fields

from statsapi.api.choosing import ChoiceQuery, GroupsQuery
from statsapi.api.field_kinds import CommaSeparated, Cursor, FiniteFloat, Percentile, Stats, WholeNumber, Word
from statsapi.api.schemas import (
    EXPORT_PAGE_MAX,
    PERCENTILES_MAX,
    WINDOWS_MAX,
    SpanQuery,
    WindowQuery,
    align_field,
)
from statsapi.naming.names import normalized
from statsapi.service.spans import PREVIOUS
from statsapi.setting_kinds import Duration

BINS_MAX: Final = 1000
LIST_PAGE_MAX: Final = 10_000


class Compare(Duration):
    """`previous`, or a duration: deserializes to PREVIOUS or to microseconds ago."""

    json_schema: ClassVar = {
        "type": "string",
        "pattern": f"^previous$|{Duration.json_schema['pattern']}",
        "examples": ["previous", "1w"],
        "description": "adds `previous` and `change` to the answer: `previous` compares with the span of equal length "
        "before, and 1d, 1w or any duration with the same span that long ago",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if value == "previous":
            return PREVIOUS
        try:
            return super()._deserialize(value, attr, data, **kwargs)
        except ValidationError as error:
            raise ValidationError([f"{message}; or previous" for message in error.messages]) from None


class _Edge(FiniteFloat):
    default_error_messages = {"invalid": "is no number such as 42.5"}  # noqa: RUF012

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        return fields.Float.make_error(self, key, **kwargs)  # FiniteFloat's own messages are about an event's value


class Edges(CommaSeparated):
    """Rising numbers separated by commas."""

    json_schema: ClassVar = {
        "type": "string",
        "minLength": 3,
        "examples": ["0,10,50,100"],
        "description": "the bins' edges, rising, instead of `bins`; each bin holds its lower edge, the last one both",
    }

    def __init__(self) -> None:
        super().__init__(_Edge(), BINS_MAX + 1)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[float]:
        edges: list[float] = [edge + 0.0 for edge in super()._deserialize(value, attr, data, **kwargs)]
        if len(edges) < 2:
            raise ValidationError("must be at least two numbers, such as 0,10,50,100")
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValidationError("must rise from each to the next, such as 0,10,50,100")
        return edges


def _format() -> fields.String:
    return Word(
        "json",
        "csv",
        metadata={"description": "the form of the answer; by default the one that Accept prefers, else JSON"},
    )


class StatisticsQuery(GroupsQuery, WindowQuery):
    windows = CommaSeparated(Duration(), WINDOWS_MAX)
    stats = Stats()
    percentiles = CommaSeparated(Percentile(), PERCENTILES_MAX)
    compare = Compare()
    format = _format()


class TimelineQuery(GroupsQuery, WindowQuery):
    step = Duration(required=True, error_messages={"required": "is missing; give a duration such as 1m"})
    align = align_field()
    stats = Stats()
    percentiles = CommaSeparated(Percentile(), PERCENTILES_MAX)
    format = _format()


class ExportQuery(ChoiceQuery, SpanQuery):
    """The query of an export; without a choice it covers all series."""

    format = Word("json", "ndjson", "csv", "influx")
    limit = WholeNumber(1, EXPORT_PAGE_MAX)
    cursor = Cursor()


class HistogramQuery(GroupsQuery, WindowQuery):
    bins = WholeNumber(
        1,
        BINS_MAX,
        metadata={"description": "how many bins between the least and the greatest value; 20 unless given"},
    )
    edges = Edges()
    scale = Word(
        "linear",
        "log",
        metadata={"description": "`linear`: bins of equal width; `log`: of equal ratio, for positive values"},
    )
    format = _format()

    def load(self, data: Any, **kwargs: Any) -> Any:
        loaded = super().load(data, **kwargs)
        if "edges" in loaded and (both := [name for name in ("bins", "scale") if name in loaded]):
            raise ValidationError({name: ["cannot be combined with edges"] for name in both})
        return loaded


class Normalized(fields.String):
    """Text in Unicode's normal form NFC, which names have."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return normalized(super()._deserialize(value, attr, data, **kwargs))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class ListQuery(ChoiceQuery):
    """The query of a paged list about the chosen series."""

    after = fields.String(load_default="", metadata={"description": "`next` of the page before"})
    limit = WholeNumber(1, LIST_PAGE_MAX, load_default=1000)


class SeriesQuery(ListQuery):
    prefix = Normalized(load_default="")
    raw = fields.Boolean(
        load_default=False,
        metadata={"description": "only series that hold raw events, with these alone"},
    )
