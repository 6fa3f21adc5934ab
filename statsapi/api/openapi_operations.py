"""The requests and answers of each endpoint in the API's description, which the table of routes does not hold."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from statsapi.api import check, decoding, influx, problems, questions, schemas
from statsapi.api.decoding.exposition import PUSH_MAX_BYTES
from statsapi.api.decoding.exposition_protobuf import MEDIA_TYPE as PROTOBUF
from statsapi.api.field_kinds import SeriesName
from statsapi.api.incoming import STALE_WARNING
from statsapi.api.openapi_shapes import EXAMPLE, EXAMPLE_MOMENT, NEXT, Json, list_of, object_of
from statsapi.api.schemas import StrictSchema
from statsapi.api.statistics import STEP_HEADER

JSON: Final = "application/json"

# The problems that every operation may answer, those of operations with a body, and those of recordings besides.
_ALWAYS: Final = (401, 403, 422, 429, 500, 503)
_WITH_BODY: Final = (400, 413, 415)
_RECORDED: Final = (*_WITH_BODY, 507)
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
_RECORDING: Final = (_IDEMPOTENCY_KEY, _CONTENT_ENCODING)
_BY_ACCEPT: Final[Json] = {"Vary": {"schema": {"const": "Accept"}}}
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


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def content_of(media_type: str, schema: Json, **more: Any) -> Json:
    return {media_type: {"schema": schema, **more}}


def _text(media_type: str, example: str) -> Json:
    return content_of(media_type, {"type": "string"}, example=example)


def _answers(
    schema: str | None, description: str, *others: int, headers: Json | None = None, more: Json | None = None
) -> Json:
    content = {} if schema is None else content_of(JSON, ref(schema))
    ok: Json = {"description": description, "content": content | (more or {})}
    ok["headers"] = _REQUEST_ID | (headers or {})
    return {"200": ok} | _problems(*_ALWAYS, *others)


def _problems(*statuses: int) -> Json:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _event_body() -> Json:
    return {
        "description": "At most 64 KiB, packed and unpacked.",
        "required": True,
        "content": content_of(JSON, ref("Event"), example=EXAMPLE),
    }


def _batch_body() -> Json:
    columns = object_of(
        optional=("series", "tags"),
        series={"type": "string"},
        tags={"$ref": "#/components/schemas/Event/properties/tags"},
        timestamp=list_of({"$ref": "#/components/schemas/Event/properties/timestamp"}),
        value=list_of({"$ref": "#/components/schemas/Event/properties/value"}),
    )
    events = list_of(ref("Event"))
    wrapped = object_of(optional=("next",), events=events, next=NEXT)
    return {
        "description": "At most STATSAPI_MAX_BODY_BYTES, packed and unpacked, and STATSAPI_MAX_BATCH_EVENTS events. An "
        "event (an item of JSON, a line of NDJSON, a row of CSV) has at most 64 KiB; a longer one is named.",
        "required": True,
        "content": {
            **content_of(JSON, {"anyOf": [events, wrapped, columns]}, example=[EXAMPLE]),
            **_text(decoding.NDJSON_TYPES[0], f'{{"timestamp":"{EXAMPLE_MOMENT}","value":42.5}}\n'),
            **_text(decoding.CSV_TYPE, f"timestamp,value,series\n{EXAMPLE_MOMENT},42.5,cpu\n"),
        },
    }


def _line_body(moment: str) -> Json:
    return {
        "description": "At most STATSAPI_MAX_BODY_BYTES, packed and unpacked, STATSAPI_MAX_BATCH_EVENTS numeric "
        "fields, and 64 KiB a line.",
        "required": True,
        "content": _text("text/plain", f"cpu,host=a usage=12.5 {moment}\n"),
    }


# Kept short, and shared by the three endpoints, as clients fetch the whole description.
INFLUX_WRITTEN: Final[Json] = {
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
    for status in sorted({*_ALWAYS, *_RECORDED}):
        description = problems.usual(status)[1]
        if status == 400:
            description = f"What is at fault; {influx.STORED_HEADER}: how many events of the good lines were stored."
        answers[str(status)] = {"description": description, "content": content_of(JSON, ref(schema))}
    return answers


class Operation(NamedTuple):
    """An endpoint's request and answers, beyond the table of routes. The schema `query` describes its parameters."""

    responses: Json
    query: type[StrictSchema] | None = None
    parameters: tuple[Json, ...] = ()
    body: Json | None = None


def operations_of(converter: Any) -> dict[str, Operation]:
    """The operations by endpoint, one for each described route. Where one is missing, no description is built."""
    return {
        **_operations_of_events(),
        **_operations_of_statistics(),
        **_operations_of_series(converter),
        **_operations_of_service(),
        **_operations_of_pushgateway(),
        **_operations_of_influx(),
    }


def _operations_of_events() -> dict[str, Operation]:
    streams = _text(decoding.NDJSON_TYPES[0], "") | _text(decoding.CSV_TYPE, "") | _text("text/plain", "")
    return {
        "events.post_event": Operation(
            _answers("Recorded", "It is in the journal.", *_RECORDED, headers=_REPLAYED),
            schemas.RecordQuery,
            _RECORDING,
            _event_body(),
        ),
        "events.post_events": Operation(
            _answers("BatchRecorded", "They are in the journal.", *_RECORDED, headers=_REPLAYED),
            schemas.BatchQuery,
            _RECORDING,
            _batch_body(),
        ),
        "events.get_events": Operation(
            _answers("Events", "A page of them, or all.", 406, more=streams, headers=_BY_ACCEPT | _STALE),
            questions.ExportQuery,
        ),
        "events.debug_events": Operation(
            _answers("DebugEvents", "Why an event does not show.", headers=_STALE), schemas.DebugQuery
        ),
    }


def _operations_of_statistics() -> dict[str, Operation]:
    everything = "Everything acknowledged before the request is in it."
    conditions = "Every condition holds. One that does not is a 503, with the same members."
    step: Json = {STEP_HEADER: {"schema": {"type": "string"}, "description": "with align=true as CSV: the step used"}}
    return {
        "statistics.get_statistics": Operation(_tables("Statistics", everything), questions.StatisticsQuery),
        "statistics.get_timeline": Operation(
            _tables("Timeline", "Empty steps included.", headers=step), questions.TimelineQuery
        ),
        "statistics.get_histogram": Operation(_tables("Histogram", "Counts and edges."), questions.HistogramQuery),
        "check.get_check": Operation(_answers("Check", conditions, headers=_STALE), check.CheckQuery),
    }


def _tables(schema: str, description: str, *, headers: Json | None = None) -> Json:
    """Answers in JSON or in columns of CSV."""
    said = _BY_ACCEPT | _STALE | (headers or {})
    return _answers(schema, description, more=_text(decoding.CSV_TYPE, ""), headers=said)


def _operations_of_series(converter: Any) -> dict[str, Operation]:
    series_name: Json = converter.field2property(SeriesName())
    series_name.pop("default")
    name = _in_path("name", series_name)
    key = _in_path("key", {"type": "string", "minLength": 1})
    forgotten = "Forgotten on every worker and in every replay."
    return {
        "series.get_series": Operation(_answers("Series", "By name.", headers=_STALE), questions.SeriesQuery),
        "series.get_tags": Operation(_answers("Tags", "By key.", headers=_STALE), questions.ListQuery),
        "series.get_tag_values": Operation(
            _answers("TagValues", "By value.", 404, headers=_STALE), questions.ListQuery, (key,)
        ),
        "series.delete_series": Operation(_answers("Deleted", forgotten, 404), schemas.DeleteQuery, (name,)),
        "series.delete_named_series": Operation(_answers("Deleted", forgotten), schemas.DeleteNamedQuery),
    }


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operations_of_service() -> dict[str, Operation]:
    exposition = _text("text/plain", "") | _text("application/openmetrics-text", "")
    return {
        "ops.index": Operation(_answers("Index", "The endpoints.")),
        "ops.healthz": Operation(_answers("Health", "It answers.")),
        "ops.readyz": Operation(_answers("Ready", "It can record and answer.")),
        "ops.metrics": Operation(_answers(None, "Of all workers.", more=exposition)),
    }


def _operations_of_pushgateway() -> dict[str, Operation]:
    pattern = "^job/[^/]+(/[^/]+/[^/]+)*$"
    group = _in_path("group", {"type": "string", "pattern": pattern, "examples": ["job/backup"]})
    body = {
        "description": f"At most {PUSH_MAX_BYTES} bytes of Prometheus' formats: gauges, untyped samples.",
        "content": {
            **_text("text/plain", "# TYPE rows gauge\nrows 4200\n"),
            **content_of(PROTOBUF, {"type": "string", "format": "binary"}),
        },
    }
    kept = {"description": "Nothing was deleted.", "headers": _REQUEST_ID, "content": _text("text/plain", "")}
    return {
        "pushgateway.push": Operation(
            _answers(None, "They are in the journal.", 404, *_RECORDED, more=_text("text/plain", "")),
            parameters=(group, *_RECORDING),
            body=body,
        ),
        "pushgateway.forget": Operation({"202": kept} | _problems(*_ALWAYS, 404), parameters=(group,)),
    }


def _operations_of_influx() -> dict[str, Operation]:
    nanoseconds, seconds = _line_body("1763711100000000000"), _line_body("1763711100")
    versions = {name: {"schema": {"type": "string"}} for name in ("X-Influxdb-Version", "X-Influxdb-Build")}
    pong = {"description": "It answers.", "headers": _REQUEST_ID | versions}
    ill = {"description": "It cannot.", "content": content_of(JSON, ref("InfluxHealth"))}
    return {
        "influx.write_v1": Operation(_influx_answers("InfluxErrorV1"), influx.WriteQuery, _RECORDING, nanoseconds),
        "influx.write_v2": Operation(_influx_answers("InfluxErrorV2"), influx.WriteQuery, _RECORDING, nanoseconds),
        "influx.write_v3": Operation(_influx_answers("InfluxErrorV3"), influx.WriteQueryV3, _RECORDING, seconds),
        "influx.ping": Operation({"204": pong} | _problems(429, 500)),
        "influx.health": Operation(_answers("InfluxHealth", "It can record and answer.") | {"503": ill}),
    }
