"""Bodies and answers in the API's description: JSON Schemas, and the examples in them.

They are written by hand, as no marshmallow schema has them; a test compares real answers with them.
"""

from __future__ import annotations

from typing import Any, Final

from statsapi.api import notes
from statsapi.api.events import SERIES_SHOWN_MAX
from statsapi.api.figures import NAMES

Json = dict[str, Any]

EXAMPLE_MOMENT: Final = (
    "2025-11-21T07:45:00Z"  # replaced by the present in answers: an example that is tried out must count
)

EXAMPLE: Final[Json] = {"timestamp": EXAMPLE_MOMENT, "value": 42.5}

_MOMENT: Final[Json] = {"type": "string", "format": "date-time", "description": "ISO 8601, UTC"}
COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": ["number", "null"]}
_NAME: Final[Json] = {"type": "string", "description": "a series"}
NEXT: Final[Json] = {"type": ["string", "null"], "description": "for the next page; null on the last"}


def object_of(*, optional: tuple[str, ...] = (), example: Json | None = None, **properties: Json) -> Json:
    required = [name for name in properties if name not in optional]
    found: Json = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return found if example is None else found | {"examples": [example]}


def _statistics(**more: Json) -> Json:
    """Any of the statistics, percentiles by their names in stats=, and the members that explain them."""
    found = object_of(optional=(*more, *_STATISTICS), **more, **_STATISTICS)
    return found | {"patternProperties": {r"^p[0-9.]+$": _NUMBER}}


def list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


_STATISTICS: Final[Json] = {
    "count": COUNT,
    **{word: _NUMBER for word in NAMES if word != "count"},
    "percentiles": {
        "type": "object",
        "additionalProperties": _NUMBER,
        "description": "by the number as asked: linear interpolation between closest ranks (type 7), rounded once",
    },
    "method": {
        "const": "ddsketch",
        "description": "how the percentiles were found; only where an event is older than raw events are kept",
    },
    "relative_error": {
        "type": ["number", "null"],
        "description": "the proven bound of each percentile's relative error: 0.01, or more where the values span many "
        "decades; null where a percentile lies between a negative and a positive value",
    },
    "reasons": {"type": "object", "additionalProperties": {"type": "string"}, "description": "why one is null"},
}
_RESOLUTION: Final[Json] = {
    "type": "string",
    "enum": ["1m", "1h"],
    "description": "where the span begins before the raw events: `from` was moved to a multiple of this",
}
_SPAN: Final[Json] = {
    "from": _MOMENT,
    "to": {"type": ["string", "null"], "format": "date-time", "description": "null: no upper end, as of a window"},
}
_STEP_STATISTICS: Final = _statistics(**_SPAN) | {"required": list(_SPAN)}
_CHANGE: Final[Json] = {
    "type": ["object", "null"],
    "additionalProperties": {"anyOf": [_NUMBER, {"type": "object", "additionalProperties": _NUMBER}]},
    "description": "the relative change since the previous one; null where it is not defined",
}
_PREVIOUS: Final = _statistics(**_SPAN, resolution=_RESOLUTION) | {
    "type": ["object", "null"],
    "description": "what `compare` asks for; null where it reaches past what is kept (`reasons`)",
}
_SPAN_STATISTICS: Final[Json] = {**_SPAN, "resolution": _RESOLUTION, "previous": _PREVIOUS, "change": _CHANGE}
_MATCHED: Final[Json] = COUNT | {"description": "how many series the answer is about"}
_KEY: Final[Json] = {
    "series": _NAME,
    "tag": {
        "type": "object",
        "additionalProperties": {"type": ["string", "null"]},
        "description": "the tag and its value; null: those without that tag",
    },
}


def _grouped(**shown: Json) -> Json:
    """What `by` adds to an answer: `shown` for each group."""
    group = object_of(optional=("series", "tag", *shown), **_KEY, **shown)
    group["patternProperties"] = {r"^p[0-9.]+$": _NUMBER}
    return {"groups": list_of(group), "groups_total": COUNT | {"description": "also of those not shown"}}


_CONDITIONS: Final = list_of(
    object_of(
        optional=("method", "relative_error", "reason"),
        require={"type": "string"},
        value=_NUMBER,
        held={"type": "boolean"},
        method={"const": "ddsketch"},
        relative_error=_NUMBER,
        reason={"type": "string"},
    )
)
_WINDOWS: Final = list_of(_statistics(**_SPAN_STATISTICS))
_BINS: Final[Json] = {
    "count": COUNT,
    "min": _NUMBER,
    "max": _NUMBER,
    "edges": list_of({"type": "number"}) | {"description": "one more than counts; a bin holds its lower edge"},
    "counts": list_of(COUNT),
    "below": COUNT,
    "above": COUNT,
    "method": {"const": "ddsketch", "description": "the edges are those of a sketch: part of the span is rolled up"},
    "reasons": {"type": "object", "additionalProperties": {"type": "string"}},
}
_FAULTS: Final = list_of(
    object_of(optional=("index", "line"), index=COUNT, line=COUNT, field={"type": "string"}, reason={"type": "string"})
)
_NOTES_BY_KIND: Final = object_of(
    expired=COUNT | {"description": "older than everything kept: they count in no window"},
    outside_window=COUNT | {"description": "kept, but before the default window"},
    ahead=COUNT | {"description": "more than a minute ahead of the clock: they count in every window until then"},
    read_as_utc=COUNT | {"description": "how many of these three lie there because they have no offset"},
) | {"description": "all events that a note is about, however many notes there are"}
_EXPORTED: Final = object_of(timestamp=_MOMENT, value={"type": "number"}, series=_NAME)

_FORESEEN: Final[dict[str, Json]] = {
    "rows": COUNT | {"description": "of a dry run, as all up to `series_total`"},
    "first": {"type": ["string", "null"], "format": "date-time"},
    "last": {"type": ["string", "null"], "format": "date-time"},
    "series": list_of(object_of(name=_NAME, events=COUNT, first=_MOMENT, last=_MOMENT))
    | {"maxItems": SERIES_SHOWN_MAX},
    "series_total": COUNT | {"description": "where there are more than are listed"},
}

SCHEMAS: Final[dict[str, Json]] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "description": "stable, for programs"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "what to do, for people"},
            "errors": _FAULTS,
            "errors_total": COUNT,
            "rejected": COUNT,
            "outcome": {"enum": ["unknown", "not recorded"]},
        },
    },
    "Recorded": object_of(
        example={
            "status": "success",
            "message": "Event stored successfully",
            "received_timestamp": EXAMPLE_MOMENT,
            "server_time": EXAMPLE_MOMENT,
        },
        status={"const": "success"},
        message={
            "type": "string",
            "description": "Event stored successfully, where it shows in the default window now and lies at most a "
            "minute ahead of the clock; else where it lies, why, and what shows or keeps it",
        },
        received_timestamp=_MOMENT,
        server_time=_MOMENT,
    ),
    "BatchRecorded": object_of(
        example={"status": "success", "stored": 2, "duplicates": 0, "expired": 0, "rejected": 0},
        optional=("empty", "read_as", *_FORESEEN, "errors", "message", "notes_by_kind", "notes"),
        status={"enum": ["success", "dry_run"]},
        stored=COUNT,
        duplicates=COUNT,
        expired=COUNT,
        rejected=COUNT,
        empty=COUNT | {"description": "fields without a value, where a row has several: these are no events"},
        read_as={"type": "string", "description": "the query by which a table was read"},
        **_FORESEEN,
        errors=_FAULTS,
        message={
            "type": "string",
            "description": "with notes only: where the events lie that do not show, and what shows or keeps them",
        },
        notes_by_kind=_NOTES_BY_KIND,
        notes=_FAULTS
        | {
            "maxItems": notes.NOTED_MAX,
            "description": "the first of the events that were taken, but lie before the default window or ahead of "
            "the clock",
        },
    ),
    "Statistics": {
        "description": "Four keys, or those asked for; with series and span where a span was given; spans; groups.",
        "examples": [{"count": 4, "min": 1.0, "max": 42.5, "mean": 12.3}],
        "anyOf": [
            _statistics(),
            _statistics(
                series=_NAME,
                matched=_MATCHED,
                **_SPAN_STATISTICS,
                windows=_WINDOWS,
                **_grouped(**_SPAN_STATISTICS, **_STATISTICS, windows=_WINDOWS),
            ),
        ],
    },
    "Timeline": object_of(
        optional=("series", "matched", "resolution", "step", "groups", "groups_total"),
        series=_NAME,
        matched=_MATCHED,
        **_SPAN,
        resolution=_RESOLUTION,
        step={"type": "string", "description": "with align=true: how long each is"},
        steps=list_of(_STEP_STATISTICS),
        **_grouped(steps=list_of(_STEP_STATISTICS)),
    ),
    "Histogram": object_of(
        optional=("series", "matched", "resolution", "method", "reasons", "groups", "groups_total"),
        series=_NAME,
        matched=_MATCHED,
        **_SPAN,
        resolution=_RESOLUTION,
        **_BINS,
        **_grouped(**_BINS),
    ),
    "Check": object_of(
        optional=("series", "matched", "resolution", "conditions", "groups", "groups_total", "groups_failed"),
        status={"const": "passed"},
        series=_NAME,
        matched=_MATCHED,
        **_SPAN,
        resolution=_RESOLUTION,
        conditions=_CONDITIONS,
        groups_failed=COUNT,
        **_grouped(conditions=_CONDITIONS),
    ),
    "Series": object_of(
        series=list_of(
            object_of(
                optional=("resolution",),
                name=_NAME,
                tags={"type": "object", "additionalProperties": {"type": "string"}},
                count=COUNT,
                first=_MOMENT,
                last=_MOMENT,
                resolution={
                    "type": "string",
                    "enum": ["1m", "1h"],
                    "description": "where the first events have been rolled up: `first`, and `last` where all have "
                    "been, is an edge of their roll-ups, rounded outwards to a multiple of this",
                },
            )
        ),
        next=NEXT,
    ),
    "Tags": object_of(
        tags=list_of(object_of(key={"type": "string"}, series=COUNT | {"description": "that carry it"})), next=NEXT
    ),
    "TagValues": object_of(
        key={"type": "string"},
        values=list_of(object_of(value={"type": "string"}, series=COUNT | {"description": "that carry it"})),
        next=NEXT,
    ),
    "Deleted": object_of(status={"const": "success"}, series=_NAME, deleted=COUNT),
    "Events": object_of(events=list_of(_EXPORTED), next=NEXT),
    "DebugEvents": object_of(
        current_time=_MOMENT,
        cutoff_time=_MOMENT,
        total_events=COUNT,
        events=list_of(
            object_of(
                timestamp=_MOMENT,
                value={"type": "number"},
                is_recent={"type": "boolean"},
                age_minutes={"type": "number"},
            )
        ),
    ),
    "Health": object_of(status={"const": "ok"}),
    "Ready": object_of(
        optional=("clock", "lost", "proxy"),
        status={"const": "ready"},
        clock={"type": "object", "description": "The clock jumped lately: by how much, and whether it has settled."},
        lost={
            "type": "object",
            "description": "Acknowledged records that are gone: at least how many (null: nobody knows), since when, or "
            "that it is all.",
        },
        proxy={"type": "string", "description": "Why X-Forwarded-For and STATSAPI_TRUSTED_PROXIES do not fit."},
    ),
    "InfluxHealth": object_of(
        name={"const": "statsapi"},
        message={"type": "string"},
        status={"enum": ["pass", "fail"]},
        checks=list_of({"type": "object"}),
        version={"type": "string"},
    ),
    "Index": object_of(
        message={"type": "string"},
        server_time=_MOMENT,
        endpoints={"type": "object", "additionalProperties": {"type": "string"}},
    ),
}

# The form of errors in each version of InfluxDB.
_TEXT: Final[Json] = {"type": "string", "description": "what to do; of lines, each one's number and what is wrong"}
_OUTCOME: Final[Json] = {"enum": ["unknown", "not recorded"]}
INFLUX_ERRORS: Final[dict[str, Json]] = {
    "InfluxErrorV1": object_of(optional=("outcome",), error=_TEXT, outcome=_OUTCOME),
    "InfluxErrorV2": object_of(
        optional=("line", "outcome"), code={"type": "string"}, message=_TEXT, line=COUNT, outcome=_OUTCOME
    ),
    "InfluxErrorV3": object_of(
        optional=("data", "outcome"),
        error=_TEXT,
        data=list_of(object_of(original_line={"type": "string"}, line_number=COUNT, error_message={"type": "string"})),
        outcome=_OUTCOME,
    ),
}
