"""What an event and a query may say, as marshmallow schemas. Rules that need the state or a clock are the service's.

openapi.py describes the API from these schemas.
"""

from __future__ import annotations

from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate, validates_schema

from statsapi.api.field_kinds import (
    CommaSeparated,
    FiniteFloat,
    Instant,
    NameAsHeld,
    Percentile,
    QuerySeriesName,
    Repeated,
    SeriesName,
    Shift,
    Stats,
    Tags,
    Timestamp,
    WholeNumber,
    Word,
)
from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.naming.names import fold_tags
from statsapi.setting_kinds import Duration
from statsapi.times import FromNow

DEBUG_PAGE_MAX: Final = 10_000
EXPORT_PAGE_MAX: Final = 10_000
WINDOWS_MAX: Final = 20
PERCENTILES_MAX: Final = 100
SKIPPED_LINES_MAX: Final = 1000
COLUMNS_TEXT_MAX: Final = 2000  # characters of names of columns in one parameter


class StrictSchema(Schema):
    """Refuses unknown fields and lists the known ones: a misspelt field must not be ignored."""

    class Meta:
        unknown = RAISE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        known = ", ".join(field.data_key or name for name, field in self.fields.items())
        self.error_messages = {
            **self.error_messages,
            "unknown": f"is not known here; known are: {known}",
            "type": f"must be a JSON object with the fields: {known}",
        }
        for field in self.fields.values():
            if isinstance(field, fields.Boolean):
                field.error_messages["invalid"] = "must be true or false"
        self.repeated = frozenset(name for name, field in self.fields.items() if isinstance(field, Repeated))
        # What an empty input loads to; None where a field is required. Copy it, never change it.
        self.defaults = None if any(field.required for field in self.fields.values()) else self.load({})

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:
        """Sort unknown fields by name: marshmallow takes them from a set, whose order differs at each start."""
        if isinstance(error.messages, dict):
            of_fields = {name: why for name, why in error.messages.items() if name in self.fields}
            others = sorted(error.messages.keys() - of_fields.keys(), key=str)
            error.messages = of_fields | {name: error.messages[name] for name in others}


class EventSchema(StrictSchema):
    """One event. Its tags become part of the name in `series`."""

    timestamp = Timestamp(required=True)
    value = FiniteFloat(required=True)
    series = SeriesName()
    tags = Tags()

    @post_load
    def _fold_tags(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        tags = data.pop("tags", None)
        if tags:
            try:
                data["series"] = fold_tags(data["series"], tags)
            except ValueError as error:
                raise ValidationError({"tags": [f"the series' name with these tags {error}"]}) from None
        return data


class RecordQuery(StrictSchema):
    """The query of a recording, of one event or many."""

    dedup = fields.Boolean(
        load_default=None,
        metadata={"description": "drop an event that equals one held; by default as STATSAPI_DEDUP says"},
    )
    expired = Word(
        "accept",
        "reject",
        load_default="accept",
        metadata={
            "description": "for an event that is older than everything kept: `accept` answers 200 and says that it has "
            "expired, `reject` refuses it as invalid"
        },
    )


_SHORT: Final = validate.Length(max=COLUMNS_TEXT_MAX, error=f"has more than {COLUMNS_TEXT_MAX:,} characters")


def _of_mapping(description: str, *rules: Any) -> fields.String:
    """A parameter of a column mapping. Only its length is checked here; decoding.mapping checks the rest."""
    metadata = {"description": description + " (CSV and NDJSON)"}
    return fields.String(load_default=None, validate=[_SHORT, *rules], metadata=metadata)


class BatchQuery(RecordQuery):
    """The query of POST /events: how its body is read, and what becomes of the events."""

    partial_ = fields.Boolean(  # Schema has an attribute `partial`
        data_key="partial",
        load_default=False,
        metadata={"description": "store the good events and name the rest, instead of storing none"},
    )

    dry_run = fields.Boolean(
        load_default=False,
        metadata={"description": "read everything, record nothing, and answer with what would become of it"},
    )
    shift = Shift(
        load_default=0,
        metadata={"description": "add this to each timestamp: a duration such as `9d`, or `-1h30m`"},
    )
    timestamp = _of_mapping("the column that holds the time; by default `timestamp`, or the one with a usual name")
    date = _of_mapping("the column that holds the date, where `time` holds the time of day")
    time = _of_mapping("the column that holds the time of day, beside `date`")
    value = _of_mapping("the columns that hold values, with commas between; several make a series each")
    series = _of_mapping("the column that holds the series' name")
    tags = _of_mapping("the columns that become tags of the series, with commas between")
    into = _of_mapping("the series, for all events")
    delimiter = _of_mapping("what stands between the fields of CSV: one character, `tab` or `space`")
    decimal = _of_mapping("the decimal point of numbers: `.` or `,`")
    time_format = _of_mapping("how times are written, as Python's strptime has it: `%d.%m.%Y %H:%M`")
    timezone = _of_mapping("the zone of times without an offset: `Europe/Berlin`, `+01:00`")
    fold = _of_mapping(
        "the instant that is meant where a change of clock made a time ambiguous, or left it out",
        validate.OneOf(("earlier", "later"), error="must be earlier or later"),
    )
    skip = WholeNumber(
        0,
        SKIPPED_LINES_MAX,
        load_default=None,
        metadata={"description": "lines of CSV to leave out before the header"},
    )
    header = fields.Boolean(
        load_default=None,
        metadata={"description": "false where CSV has no line that names its columns: they are numbers then, from 1"},
    )


class SpanQuery(StrictSchema):
    """An explicit range, [start, end)."""

    start = Instant()
    end = Instant()

    @validates_schema
    def _in_order(self, data: dict[str, Any], **kwargs: Any) -> None:
        if isinstance(data.get("start"), int) and isinstance(data.get("end"), int):
            span_edges(data, 0)


def span_edges(query: dict[str, Any], now_us: int) -> tuple[int | None, int | None]:
    """The start and end of a SpanQuery that is answered at `now_us`; None for one that is not given.

    Raises ValidationError where the end lies before the start, or one lies outside the years 1 to 9999.
    """
    if "start" not in query and "end" not in query:  # most questions
        return None, None
    edges: list[int | None] = []
    for name in ("start", "end"):
        edge = query.get(name)
        if isinstance(edge, FromNow):
            edge = now_us + edge.offset_us
            if not MIN_TS_US <= edge <= MAX_TS_US:
                raise ValidationError({name: ["lies outside the years 1 to 9999 (UTC)"]})
        edges.append(edge)
    start_us, end_us = edges
    if start_us is not None and end_us is not None and end_us < start_us:
        raise ValidationError({"end": ["lies before start"]})
    return start_us, end_us


class WindowQuery(SpanQuery):
    """A window or an explicit range."""

    window = Duration()

    @validates_schema
    def _one_question(self, data: dict[str, Any], **kwargs: Any) -> None:
        spans = [name for name in ("window", "windows", "start") if name in data]
        faults: dict[str, list[str]] = {}
        if len(spans) > 1:
            faults = {
                name: ["cannot be combined: give window, windows, or start (with an optional end)"] for name in spans
            }
        if "end" in data and "start" not in data:
            faults["end"] = ["needs a start"]
        if faults:
            raise ValidationError(faults)


class PlainStatisticsQuery(WindowQuery):
    """The query of a question about one series, as nearly all are; `questions.py` has the others."""

    series = QuerySeriesName()
    windows = CommaSeparated(Duration(), WINDOWS_MAX)
    stats = Stats()
    percentiles = CommaSeparated(Percentile(), PERCENTILES_MAX)


def align_field() -> fields.Boolean:
    """The field `align`, for the timeline of one series and for those of many (questions.py)."""
    return fields.Boolean(
        load_default=False,
        metadata={
            "description": "whether a step that is no multiple of the resolution is lengthened to the next multiple; "
            "`step` in the answer is its length"
        },
    )


class PlainTimelineQuery(WindowQuery):
    """The query of a timeline of one series; `questions.py` has that of many."""

    series = QuerySeriesName()
    step = Duration(required=True, error_messages={"required": "is missing; give a duration such as 1m"})
    align = align_field()
    stats = Stats()
    percentiles = CommaSeparated(Percentile(), PERCENTILES_MAX)


class DebugQuery(StrictSchema):
    """The query of GET /debug/events."""

    series = QuerySeriesName()
    limit = WholeNumber(1, DEBUG_PAGE_MAX, load_default=1000)
    late = fields.Boolean(load_default=False)


class DeleteQuery(SpanQuery):
    """The query of a deletion of the series that the path names."""


class DeleteNamedQuery(DeleteQuery):
    """The query of a deletion that names the series itself."""

    series = NameAsHeld()
