"""The API's description, OpenAPI 3.1, at /openapi.json, and pages to try it out at /docs.

Methods, paths, scopes and summaries come from the table of routes. apispec derives parameters and bodies from the very
marshmallow schemas that validate them. Answers, headers and media types are written here by hand, as no schema knows
them. The description is built with the first request for it, in some 20 ms.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response, request
from flask_swagger_ui import get_swaggerui_blueprint

from statsapi import __version__
from statsapi.api import check, decoding, influx, notes, problems, questions, schemas
from statsapi.api.decoding.exposition import PUSH_MAX_BYTES
from statsapi.api.events import SERIES_SHOWN_MAX
from statsapi.api.figures import NAMES
from statsapi.api.incoming import STALE_WARNING, service
from statsapi.api.schemas import StrictSchema
from statsapi.routes import OPEN, Route, served
from statsapi.times import format_timestamp

# BaseLayout: StandaloneLayout has a bar that loads descriptions from elsewhere, which the page's policy forbids.
# No oauth2RedirectUrl: the package would write an absolute URL, made of the Host that the client sent.
_PAGES: Final = {"app_name": "statsapi", "validatorUrl": None, "layout": "BaseLayout", "oauth2RedirectUrl": None}
# All links are relative, for who is below a proxy's path. Where the pages are is said where they are registered.
docs: Blueprint = get_swaggerui_blueprint(".", "../openapi.json", _PAGES)

Json = dict[str, Any]

_JSON: Final = "application/json"
_EXAMPLE_MOMENT: Final = (
    "2025-11-21T07:45:00Z"  # replaced by the present in answers: an example that is tried out must count
)
_NO_PREFIX: Final = "/"
_EXAMPLE: Final[Json] = {"timestamp": _EXAMPLE_MOMENT, "value": 42.5}

# The groups of the pages, by the module that answers.
_TAGS: Final = {
    "events": "Events",
    "statistics": "Statistics",
    "check": "Statistics",
    "series": "Series",
    "influx": "For clients of InfluxDB",
    "pushgateway": "For jobs that push to a Prometheus Pushgateway",
    "ops": "The service itself",
}
_MOMENT: Final[Json] = {"type": "string", "format": "date-time", "description": "ISO 8601, UTC"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": ["number", "null"]}
_NAME: Final[Json] = {"type": "string", "description": "a series"}
_NEXT: Final[Json] = {"type": ["string", "null"], "description": "for the next page; null on the last"}

# The problems that every operation may answer, and those of operations with a body.
_ALWAYS: Final = (401, 403, 422, 429, 500, 503)
_WITH_BODY: Final = (400, 413, 415)

_PROBLEMS: Final = {
    400: "The body cannot be read: malformed, cut off, or no longer than its head.",
    401: "An API key is needed, or this one is not known (only where keys are configured).",
    403: "The API key does not have the scope that this needs.",
    404: "There is no such endpoint.",
    406: "No media type is offered that Accept names.",
    413: "The body, an event in it (64 KiB) or the number of events is over the limit; or more than 40,000 different "
    "timestamps are in rare forms, or more than 60,000 items are not written as events are.",
    415: "The body is of no known media type or Content-Encoding.",
    422: "Well-formed, but not valid: `errors` names what to fix. Nothing was recorded.",
    429: "More requests than STATSAPI_RATE_LIMIT allows.",
    500: "A fault of the service, which has been logged. Of a recording `outcome` is `unknown`.",
    503: "Not ready, or the journal is not available: `outcome` says whether the request may have been recorded. Of "
    "/check also: a condition does not hold (`check-failed`).",
    507: "A limit on the stored events or series was reached; nothing was recorded, stored events can be read.",
}
_ABOUT: Final = (
    "Exact rolling-window statistics over timestamped events. Record one with `POST /event`, then ask "
    "`GET /statistics`. All times are ISO 8601, UTC; errors are `application/problem+json`."
)


def _object(*, optional: tuple[str, ...] = (), example: Json | None = None, **properties: Json) -> Json:
    required = [name for name in properties if name not in optional]
    found: Json = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return found if example is None else found | {"examples": [example]}


def _statistics(**more: Json) -> Json:
    """Any of the statistics, and percentiles by the words that stats= has for them, with what is told beside these."""
    found = _object(optional=(*more, *_STATISTICS), **more, **_STATISTICS)
    return found | {"patternProperties": {r"^p[0-9.]+$": _NUMBER}}


def _list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


_STATISTICS: Final[Json] = {
    "count": _COUNT,
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
        "description": "how far each of the percentiles is at most from the exact one, as a part of that: 0.01, "
        "or more where the values lie over many decades; null where one lies between a negative and a positive value",
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
    "description": "how much larger than the previous, as a part of its size; null where that is not defined",
}
_PREVIOUS: Final = _statistics(**_SPAN, resolution=_RESOLUTION) | {
    "type": ["object", "null"],
    "description": "what `compare` asks for; null where it reaches past what is kept (`reasons`)",
}
_SPAN_STATISTICS: Final[Json] = {**_SPAN, "resolution": _RESOLUTION, "previous": _PREVIOUS, "change": _CHANGE}
_MATCHED: Final[Json] = _COUNT | {"description": "how many series the answer is about"}
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
    group = _object(optional=("series", "tag", *shown), **_KEY, **shown)
    group["patternProperties"] = {r"^p[0-9.]+$": _NUMBER}
    return {"groups": _list_of(group), "groups_total": _COUNT | {"description": "also of those not shown"}}


_CONDITIONS: Final = _list_of(
    _object(
        optional=("method", "relative_error", "reason"),
        require={"type": "string"},
        value=_NUMBER,
        held={"type": "boolean"},
        method={"const": "ddsketch"},
        relative_error=_NUMBER,
        reason={"type": "string"},
    )
)
_WINDOWS: Final = _list_of(_statistics(**_SPAN_STATISTICS))
_BINS: Final[Json] = {
    "count": _COUNT,
    "min": _NUMBER,
    "max": _NUMBER,
    "edges": _list_of({"type": "number"}) | {"description": "one more than counts; a bin holds its lower edge"},
    "counts": _list_of(_COUNT),
    "below": _COUNT,
    "above": _COUNT,
    "method": {"const": "ddsketch", "description": "the edges are those of a sketch: part of the span is rolled up"},
    "reasons": {"type": "object", "additionalProperties": {"type": "string"}},
}
_FAULTS: Final = _list_of(
    _object(optional=("index", "line"), index=_COUNT, line=_COUNT, field={"type": "string"}, reason={"type": "string"})
)
_NOTES_BY_KIND: Final = _object(
    expired=_COUNT | {"description": "older than everything kept: they count in no window"},
    outside_window=_COUNT | {"description": "kept, but before the default window"},
    ahead=_COUNT | {"description": "more than a minute ahead of the clock: they count in every window until then"},
    read_as_utc=_COUNT | {"description": "those of the three that lie there for want of an offset"},
) | {"description": "all events that a note is about, however many notes there are"}
_EXPORTED: Final = _object(timestamp=_MOMENT, value={"type": "number"}, series=_NAME)

_FORESEEN: Final[dict[str, Json]] = {
    "rows": _COUNT | {"description": "of a dry run, as all up to `series_total`"},
    "first": {"type": ["string", "null"], "format": "date-time"},
    "last": {"type": ["string", "null"], "format": "date-time"},
    "series": _list_of(_object(name=_NAME, events=_COUNT, first=_MOMENT, last=_MOMENT))
    | {"maxItems": SERIES_SHOWN_MAX},
    "series_total": _COUNT | {"description": "where there are more than are listed"},
}

_SCHEMAS: Final[dict[str, Json]] = {
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
            "errors_total": _COUNT,
            "rejected": _COUNT,
            "outcome": {"enum": ["unknown", "not recorded"]},
        },
    },
    "Recorded": _object(
        example={
            "status": "success",
            "message": "Event stored successfully",
            "received_timestamp": _EXAMPLE_MOMENT,
            "server_time": _EXAMPLE_MOMENT,
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
    "BatchRecorded": _object(
        example={"status": "success", "stored": 2, "duplicates": 0, "expired": 0, "rejected": 0},
        optional=("empty", "read_as", *_FORESEEN, "errors", "message", "notes_by_kind", "notes"),
        status={"enum": ["success", "dry_run"]},
        stored=_COUNT,
        duplicates=_COUNT,
        expired=_COUNT,
        rejected=_COUNT,
        empty=_COUNT | {"description": "fields without a value, where a row has several: these are no events"},
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
    "Timeline": _object(
        optional=("series", "matched", "resolution", "step", "groups", "groups_total"),
        series=_NAME,
        matched=_MATCHED,
        **_SPAN,
        resolution=_RESOLUTION,
        step={"type": "string", "description": "with align=true: how long each is"},
        steps=_list_of(_STEP_STATISTICS),
        **_grouped(steps=_list_of(_STEP_STATISTICS)),
    ),
    "Histogram": _object(
        optional=("series", "matched", "resolution", "method", "reasons", "groups", "groups_total"),
        series=_NAME,
        matched=_MATCHED,
        **_SPAN,
        resolution=_RESOLUTION,
        **_BINS,
        **_grouped(**_BINS),
    ),
    "Check": _object(
        optional=("series", "matched", "resolution", "conditions", "groups", "groups_total", "groups_failed"),
        status={"const": "passed"},
        series=_NAME,
        matched=_MATCHED,
        **_SPAN,
        resolution=_RESOLUTION,
        conditions=_CONDITIONS,
        groups_failed=_COUNT,
        **_grouped(conditions=_CONDITIONS),
    ),
    "Series": _object(
        series=_list_of(
            _object(
                optional=("resolution",),
                name=_NAME,
                tags={"type": "object", "additionalProperties": {"type": "string"}},
                count=_COUNT,
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
        next=_NEXT,
    ),
    "Tags": _object(
        tags=_list_of(_object(key={"type": "string"}, series=_COUNT | {"description": "that carry it"})), next=_NEXT
    ),
    "TagValues": _object(
        key={"type": "string"},
        values=_list_of(_object(value={"type": "string"}, series=_COUNT | {"description": "that carry it"})),
        next=_NEXT,
    ),
    "Deleted": _object(status={"const": "success"}, series=_NAME, deleted=_COUNT),
    "Events": _object(events=_list_of(_EXPORTED), next=_NEXT),
    "DebugEvents": _object(
        current_time=_MOMENT,
        cutoff_time=_MOMENT,
        total_events=_COUNT,
        events=_list_of(
            _object(
                timestamp=_MOMENT,
                value={"type": "number"},
                is_recent={"type": "boolean"},
                age_minutes={"type": "number"},
            )
        ),
    ),
    "Health": _object(status={"const": "ok"}),
    "Ready": _object(
        optional=("clock", "lost", "proxy"),
        status={"const": "ready"},
        clock={"type": "object", "description": "The clock jumped lately: by how much, and whether it has settled."},
        lost={"type": "object", "description": "Acknowledged records that are gone: how many, since when."},
        proxy={"type": "string", "description": "Why X-Forwarded-For and STATSAPI_TRUSTED_PROXIES do not fit."},
    ),
    "InfluxHealth": _object(
        name={"const": "statsapi"},
        message={"type": "string"},
        status={"enum": ["pass", "fail"]},
        checks=_list_of({"type": "object"}),
        version={"type": "string"},
    ),
    "Index": _object(
        message={"type": "string"},
        server_time=_MOMENT,
        endpoints={"type": "object", "additionalProperties": {"type": "string"}},
    ),
}

_IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The request counts once under this key; a retry gets the first answer again.",
    "schema": {"type": "string", "description": "1 to 255 printable ASCII characters, quoted or not"},
}
_CONTENT_ENCODING: Final[Json] = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "The body may be gzipped; the limits hold for what it unpacks to.",
    "schema": {"type": "string", "examples": ["gzip"]},
}
_REQUEST_ID: Final[Json] = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "the request's, or a new one"}
}
_REPLAYED: Final[Json] = {"Idempotent-Replayed": {"schema": {"const": "true"}, "description": "a retry's answer"}}
_STALE: Final[Json] = {
    "Age": {
        "schema": {"type": "integer", "minimum": 0},
        "description": "only while the journal is away (STATSAPI_STALE_READS): seconds since the answer was up to date",
    },
    "Warning": {"schema": {"const": STALE_WARNING}, "description": "beside Age: what was recorded since is missing"},
}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(media_type: str, schema: Json, **more: Any) -> Json:
    return {media_type: {"schema": schema, **more}}


def _text(media_type: str, example: str) -> Json:
    return _content(media_type, {"type": "string"}, example=example)


def _answers(
    schema: str | None, description: str, *others: int, headers: Json | None = None, more: Json | None = None
) -> Json:
    content = {} if schema is None else _content(_JSON, _ref(schema))
    ok: Json = {"description": description, "content": content | (more or {})}
    ok["headers"] = _REQUEST_ID | (headers or {})
    return {"200": ok} | {str(status): {"$ref": f"#/components/responses/{status}"} for status in (*_ALWAYS, *others)}


def _event_body() -> Json:
    return {
        "description": "At most 64 KiB, packed and unpacked.",
        "required": True,
        "content": _content(_JSON, _ref("Event"), example=_EXAMPLE),
    }


def _batch_body() -> Json:
    columns = _object(
        optional=("series", "tags"),
        series={"type": "string"},
        tags={"$ref": "#/components/schemas/Event/properties/tags"},
        timestamp=_list_of({"$ref": "#/components/schemas/Event/properties/timestamp"}),
        value=_list_of({"$ref": "#/components/schemas/Event/properties/value"}),
    )
    events = _list_of(_ref("Event"))
    wrapped = _object(optional=("next",), events=events, next=_NEXT)
    return {
        "description": "At most STATSAPI_MAX_BODY_BYTES, packed and unpacked, and STATSAPI_MAX_BATCH_EVENTS events. An "
        "event (an item of JSON, a line of NDJSON, a row of CSV) has at most 64 KiB; a longer one is named.",
        "required": True,
        "content": {
            **_content(_JSON, {"anyOf": [events, wrapped, columns]}, example=[_EXAMPLE]),
            **_text(decoding.NDJSON_TYPES[0], f'{{"timestamp":"{_EXAMPLE_MOMENT}","value":42.5}}\n'),
            **_text(decoding.CSV_TYPE, f"timestamp,value,series\n{_EXAMPLE_MOMENT},42.5,cpu\n"),
        },
    }


def _line_body(moment: str) -> Json:
    return {
        "description": "At most STATSAPI_MAX_BODY_BYTES, packed and unpacked, STATSAPI_MAX_BATCH_EVENTS numeric "
        "fields, and 64 KiB a line.",
        "required": True,
        "content": _text("text/plain", f"cpu,host=a usage=12.5 {moment}\n"),
    }


# How the versions of InfluxDB tell an error.
_TEXT: Final[Json] = {"type": "string", "description": "what to do; of lines, each one's number and what is wrong"}
_OUTCOME: Final[Json] = {"enum": ["unknown", "not recorded"]}
_INFLUX_ERRORS: Final[dict[str, Json]] = {
    "InfluxErrorV1": _object(optional=("outcome",), error=_TEXT, outcome=_OUTCOME),
    "InfluxErrorV2": _object(
        optional=("line", "outcome"), code={"type": "string"}, message=_TEXT, line=_COUNT, outcome=_OUTCOME
    ),
    "InfluxErrorV3": _object(
        optional=("data", "outcome"),
        error=_TEXT,
        data=_list_of(_object(original_line={"type": "string"}, line_number=_COUNT, error_message={"type": "string"})),
        outcome=_OUTCOME,
    ),
}


# Kept short, and once for the three: clients fetch the description as a whole.
_INFLUX_WRITTEN: Final[Json] = {
    "description": "They are in the journal.",
    "headers": _REQUEST_ID
    | _REPLAYED
    | {
        influx.STORED_HEADER: {"schema": {"type": "string"}, "description": "how many events were stored"},
        influx.DUPLICATES_HEADER: {"schema": {"type": "string"}, "description": "how many duplicates were left out"},
        influx.STRINGS_HEADER: {"schema": {"type": "string"}, "description": "how many fields were left out as text"},
        influx.MESSAGE_HEADER: {"schema": {"type": "string"}, "description": "of events that do not show"},
    },
}


def _influx_answers(schema: str) -> Json:
    """204, and every problem in the form of that version of InfluxDB."""
    answers: Json = {"204": {"$ref": "#/components/responses/204"}}
    for status in sorted({*_ALWAYS, *_WITH_BODY, 507}):
        description = problems.usual(status)[1]
        if status == 400:
            description = f"What is at fault; {influx.STORED_HEADER}: how many events of the good lines were stored."
        answers[str(status)] = {"description": description, "content": _content(_JSON, _ref(schema))}
    return answers


class _Operation(NamedTuple):
    """What the table of routes does not say of an endpoint. The parameters of `query` are described by its schema."""

    responses: Json
    query: type[StrictSchema] | None = None
    parameters: tuple[Json, ...] = ()
    body: Json | None = None


def _operations(converter: Any) -> dict[str, _Operation]:
    """By endpoint. A listed one that is missing here is in no description, which a test finds."""
    recording = (_IDEMPOTENCY_KEY, _CONTENT_ENCODING)
    recorded = (*_WITH_BODY, 507)
    streams = _text(decoding.NDJSON_TYPES[0], "") | _text(decoding.CSV_TYPE, "") | _text("text/plain", "")
    table = _text(decoding.CSV_TYPE, "")
    by_accept: Json = {"Vary": {"schema": {"const": "Accept"}}}
    exposition = _text("text/plain", "") | _text("application/openmetrics-text", "")
    name = {"name": "name", "in": "path", "required": True, "schema": converter.field2property(schemas.SeriesName())}
    name["schema"].pop("default")
    group = {
        "name": "group",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^job/[^/]+(/[^/]+/[^/]+)*$", "examples": ["job/backup"]},
    }
    key = {"name": "key", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "events.post_event": _Operation(
            _answers("Recorded", "It is in the journal.", *recorded, headers=_REPLAYED),
            schemas.RecordQuery,
            recording,
            _event_body(),
        ),
        "events.post_events": _Operation(
            _answers("BatchRecorded", "They are in the journal.", *recorded, headers=_REPLAYED),
            schemas.BatchQuery,
            recording,
            _batch_body(),
        ),
        "events.get_events": _Operation(
            _answers("Events", "A page of them, or all.", 406, more=streams, headers=by_accept | _STALE),
            questions.ExportQuery,
        ),
        "statistics.get_statistics": _Operation(
            _answers(
                "Statistics",
                "Everything acknowledged before the request is in it.",
                more=table,
                headers=by_accept | _STALE,
            ),
            questions.StatisticsQuery,
        ),
        "statistics.get_timeline": _Operation(
            _answers("Timeline", "Empty steps included.", more=table, headers=by_accept | _STALE),
            questions.TimelineQuery,
        ),
        "statistics.get_histogram": _Operation(
            _answers("Histogram", "Counts and edges.", more=table, headers=by_accept | _STALE), questions.HistogramQuery
        ),
        "check.get_check": _Operation(
            _answers(
                "Check", "Every condition holds. One that does not is a 503, with the same members.", headers=_STALE
            ),
            check.CheckQuery,
        ),
        "series.get_series": _Operation(_answers("Series", "By name.", headers=_STALE), questions.SeriesQuery),
        "series.get_tags": _Operation(_answers("Tags", "By key.", headers=_STALE), questions.ListQuery),
        "series.get_tag_values": _Operation(
            _answers("TagValues", "By value.", 404, headers=_STALE), questions.ListQuery, (key,)
        ),
        "series.delete_series": _Operation(
            _answers("Deleted", "Forgotten on every worker and in every replay.", 404), schemas.DeleteQuery, (name,)
        ),
        "series.delete_named_series": _Operation(
            _answers("Deleted", "Forgotten on every worker and in every replay."), schemas.DeleteNamedQuery
        ),
        "events.debug_events": _Operation(
            _answers("DebugEvents", "Why an event does not show.", headers=_STALE), schemas.DebugQuery
        ),
        "ops.healthz": _Operation(_answers("Health", "It answers.")),
        "ops.readyz": _Operation(_answers("Ready", "It can record and answer.")),
        "ops.metrics": _Operation(_answers(None, "Of all workers.", more=exposition)),
        "pushgateway.push": _Operation(
            _answers(None, "They are in the journal.", 404, *recorded, more=_text("text/plain", "")),
            parameters=(group, *recording),
            body={
                "description": f"At most {PUSH_MAX_BYTES} bytes of Prometheus' text format: gauges, untyped samples.",
                "content": _text("text/plain", "# TYPE rows gauge\nrows 4200\n"),
            },
        ),
        "pushgateway.forget": _Operation(
            {
                "202": {
                    "description": "Nothing was deleted.",
                    "headers": _REQUEST_ID,
                    "content": _text("text/plain", ""),
                },
                **{str(status): {"$ref": f"#/components/responses/{status}"} for status in (*_ALWAYS, 404)},
            },
            parameters=(group,),
        ),
        "influx.write_v1": _Operation(
            _influx_answers("InfluxErrorV1"), influx.WriteQuery, recording, _line_body("1763711100000000000")
        ),
        "influx.write_v2": _Operation(
            _influx_answers("InfluxErrorV2"), influx.WriteQuery, recording, _line_body("1763711100000000000")
        ),
        "influx.write_v3": _Operation(
            _influx_answers("InfluxErrorV3"), influx.WriteQueryV3, recording, _line_body("1763711100")
        ),
        "influx.ping": _Operation(
            {
                "204": {
                    "description": "It answers.",
                    "headers": _REQUEST_ID
                    | {name: {"schema": {"type": "string"}} for name in ("X-Influxdb-Version", "X-Influxdb-Build")},
                },
                **{str(status): {"$ref": f"#/components/responses/{status}"} for status in (429, 500)},
            }
        ),
        "influx.health": _Operation(
            _answers("InfluxHealth", "It can record and answer.")
            | {"503": {"description": "It cannot.", "content": _content(_JSON, _ref("InfluxHealth"))}}
        ),
        "ops.index": _Operation(_answers("Index", "The endpoints.")),
    }


def _describe_route(route: Route, operation: _Operation, converter: Any) -> Json:
    parameters = [] if operation.query is None else converter.schema2parameters(operation.query, location="query")
    described: Json = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub('[^a-z]+', '-', route.path)}".rstrip("-"),
        "tags": [_TAGS[route.endpoint.partition(".")[0]]],
        "parameters": [*parameters, *operation.parameters],
        "responses": operation.responses,
    }
    if operation.body is not None:
        described["requestBody"] = operation.body
    if route.scope is OPEN:
        described["security"] = []
    else:
        described["description"] = f"Needs the scope `{route.scope}` where keys are configured."
    return described


def _own_json_schema(self: Any, field: Any, **kwargs: Any) -> Json:
    """What our own fields say about themselves: apispec knows marshmallow's fields only."""
    said: Json = getattr(field, "json_schema", {})
    return said


@cache
def describe(routes: tuple[Route, ...]) -> bytes:
    """The description of these endpoints as JSON, with _EXAMPLE_MOMENT for now and _NO_PREFIX for where they are."""
    plugin = MarshmallowPlugin()
    spec = APISpec(
        title="statsapi",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        # The empty one: keys are asked for only where they are configured.
        security=[{}, {"bearer": []}, {"header": []}],
        info={"description": _ABOUT},
        tags=[{"name": name} for name in dict.fromkeys(_TAGS.values())],
        servers=[{"url": _NO_PREFIX}],
    )
    converter = plugin.converter
    assert converter is not None  # noqa: S101 - for the type checker: APISpec has set it
    converter.add_attribute_function(_own_json_schema)  # type: ignore[no-untyped-call]
    event: Json = converter.schema2jsonschema(schemas.EventSchema)  # type: ignore[no-untyped-call]
    spec.components.schema("Event", event)
    for name, schema in (_SCHEMAS | _INFLUX_ERRORS).items():
        spec.components.schema(name, schema)
    spec.components.response("204", _INFLUX_WRITTEN)
    for status, description in _PROBLEMS.items():
        content = _content(problems.MEDIA_TYPE, _ref("Problem"), example=_problem_example(status))
        response: Json = {"description": description, "content": content}
        if status in (429, 503, 507):
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        if status in (401, 403):
            response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        spec.components.response(str(status), response)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("header", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    operations = _operations(converter)
    for route in routes:
        if operation := operations.get(route.endpoint):
            described_route = _describe_route(route, operation, converter)
            spec.path(route.path, operations={route.method.lower(): described_route})
    described = spec.to_dict()
    _share_parameters(described)
    first = {name: described[name] for name in ("openapi", "info", "servers", "tags", "security")}
    return msgspec.json.encode(first | described)


def _share_parameters(described: Json) -> None:
    """Put parameters that several operations have into the components: a fourth less to send."""
    lists = [operation["parameters"] for path in described["paths"].values() for operation in path.values()]
    alike: dict[bytes, list[tuple[list[Json], int]]] = {}
    for parameters in lists:
        for at, parameter in enumerate(parameters):
            alike.setdefault(msgspec.json.encode(parameter), []).append((parameters, at))
    shared: dict[str, Json] = described["components"].setdefault("parameters", {})
    for places in alike.values():
        if len(places) == 1:
            continue
        parameter = places[0][0][places[0][1]]
        name = f"{parameter['name']}{sum(one['name'] == parameter['name'] for one in shared.values()) or ''}"
        shared[name] = parameter
        for parameters, at in places:
            parameters[at] = {"$ref": f"#/components/parameters/{name}"}


def _problem_example(status: int) -> Json:
    """A real one: of the problems with this status, the one that clients meet most often."""
    code, title = problems.usual(status)
    body = {"type": f"urn:statsapi:problem:{code}", "title": title, "status": status, "detail": _PROBLEMS[status]}
    if status == 422:
        body["errors"] = [{"field": "value", "reason": "must be a number"}]
        body["detail"] = "value: must be a number"
    if status == 503:
        body["outcome"] = "not recorded"
    return body


def get_description() -> Response:
    now = format_timestamp(service().now_us() // 1_000_000 * 1_000_000).replace("+00:00", "Z")
    body = describe(served(service().settings)).replace(_EXAMPLE_MOMENT.encode(), now.encode())
    if request.root_path:  # a relative "." would need no prefix told, but not all programs resolve it
        body = body.replace(_server(_NO_PREFIX), _server(request.root_path), 1)
    return Response(body, mimetype=_JSON)


def _server(path: str) -> bytes:
    return msgspec.json.encode({"url": path})


_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@docs.after_request
def _allow_only_own_scripts(response: Response) -> Response:
    """The page has one inline script, the package's. It and the files beside the page may run, nothing else."""
    if response.mimetype == "text/html":
        hashes = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(response.get_data())]
        allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    return response
