"""The API's description, OpenAPI 3.1, at /openapi.json, and pages to try it out at /docs.

Parameters and bodies are derived by apispec from the very marshmallow schemas that validate them; what is written by
hand here is what no schema knows: answers, headers, media types. Built with the first request for it, in some 20 ms.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import Any, Final

import msgspec
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response, current_app
from flask_swagger_ui import get_swaggerui_blueprint

from statsapi import __version__
from statsapi.api import batches, problems, schemas
from statsapi.api.requests import STALE_WARNING
from statsapi.api.schemas import STATS, StrictSchema

blueprint = Blueprint("openapi", __name__)

docs: Blueprint = get_swaggerui_blueprint("/docs", "/openapi.json", {"app_name": "statsapi", "validatorUrl": None})

Json = dict[str, Any]

_JSON: Final = "application/json"
_EXAMPLE: Final[Json] = {"timestamp": "2025-11-21T07:45:00Z", "value": 42.5}
_MOMENT: Final[Json] = {"type": "string", "format": "date-time", "description": "ISO 8601, UTC"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": ["number", "null"]}
_NAME: Final[Json] = {"type": "string", "description": "a series"}
_NEXT: Final[Json] = {"type": ["string", "null"], "description": "for the next page; null on the last"}

# What every operation may answer besides, and what only those with a body, or that record, may.
_ALWAYS: Final = (401, 403, 422, 429, 500, 503)
_WITH_BODY: Final = (400, 413, 415)

_PROBLEMS: Final = {
    400: "The body cannot be read: malformed, cut off, or no longer than its head.",
    401: "An API key is needed, or this one is not known (only where keys are configured).",
    403: "The API key does not have the scope that this needs.",
    404: "There is no such endpoint.",
    406: "No media type is offered that Accept names.",
    413: "The body, or the number of events in it, is over the limit.",
    415: "The body is of no known media type or Content-Encoding.",
    422: "Well-formed, but not valid: `errors` names what to fix. Nothing was recorded.",
    429: "More requests than STATSAPI_RATE_LIMIT allows.",
    500: "A fault of the service, which has been logged.",
    503: "Not ready, or the journal is not available: `outcome` says whether the request may have been recorded.",
    507: "A limit on what is kept was reached; nothing was recorded, and what is kept can be read.",
}


def _object(description: str = "", *, optional: tuple[str, ...] = (), **properties: Json) -> Json:
    required = [name for name in properties if name not in optional]
    found: Json = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"description": description, **found} if description else found


def _list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


_STATISTICS: Final[Json] = {
    "count": _COUNT,
    **{name: _NUMBER for name in STATS if name != "count"},
    "percentiles": {"type": "object", "additionalProperties": _NUMBER, "description": "by the number as it was asked"},
    "reasons": {"type": "object", "additionalProperties": {"type": "string"}, "description": "why one is null"},
}
_SPAN: Final[Json] = {
    "from": _MOMENT,
    "to": {"type": ["string", "null"], "format": "date-time", "description": "null: no upper end, as of a window"},
}
_SPAN_STATISTICS: Final = _object(optional=tuple(_STATISTICS), **_SPAN, **_STATISTICS)
_FAULTS: Final = _list_of(
    _object(optional=("index", "line"), index=_COUNT, line=_COUNT, field={"type": "string"}, reason={"type": "string"})
)
_EXPORTED: Final = _object(timestamp=_MOMENT, value={"type": "number"}, series=_NAME)

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
        status={"const": "success"}, message={"type": "string"}, received_timestamp=_MOMENT, server_time=_MOMENT
    ),
    "BatchRecorded": _object(
        optional=("errors",),
        status={"const": "success"},
        stored=_COUNT,
        duplicates=_COUNT,
        expired=_COUNT,
        rejected=_COUNT,
        errors=_FAULTS,
    ),
    "Statistics": {
        "description": "The seed's four keys; those asked for; with series and span where one was given; or several.",
        "anyOf": [
            _object(optional=tuple(_STATISTICS), **_STATISTICS),
            _object(optional=tuple(_STATISTICS), series=_NAME, **_SPAN, **_STATISTICS),
            _object(series=_NAME, windows=_list_of(_SPAN_STATISTICS)),
        ],
    },
    "Timeline": _object(series=_NAME, **_SPAN, steps=_list_of(_SPAN_STATISTICS)),
    "Series": _object(series=_list_of(_object(name=_NAME, count=_COUNT, first=_MOMENT, last=_MOMENT)), next=_NEXT),
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
    "Health": _object(status={"enum": ["ok", "ready"]}),
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
    return {"required": True, "content": _content(_JSON, _ref("Event"), example=_EXAMPLE)}


def _batch_body() -> Json:
    columns = _object(
        optional=("series",),
        series={"type": "string"},
        timestamp=_list_of({"$ref": "#/components/schemas/Event/properties/timestamp"}),
        value=_list_of({"$ref": "#/components/schemas/Event/properties/value"}),
    )
    events = _list_of(_ref("Event"))
    wrapped = _object(optional=("next",), events=events, next=_NEXT)
    rows = "2025-11-21T07:45:00Z,42.5,cpu"
    return {
        "required": True,
        "content": {
            **_content(_JSON, {"anyOf": [events, wrapped, columns]}, example=[_EXAMPLE]),
            **_text(batches.NDJSON_TYPES[0], '{"timestamp":"2025-11-21T07:45:00Z","value":42.5}\n'),
            **_text(batches.CSV_TYPE, f"timestamp,value,series\n{rows}\n"),
        },
    }


def _operations(spec: APISpec, converter: Any, *, with_debug: bool) -> None:
    def add(path: str, method: str, summary: str, query: type[StrictSchema] | None, **operation: Any) -> None:
        """One operation; the parameters of its query come from the schema that validates it."""
        parameters = [] if query is None else converter.schema2parameters(query, location="query")
        operation["parameters"] = parameters + operation.pop("parameters", [])
        operation |= {"summary": summary, "operationId": f"{method}{re.sub('[^a-z]+', '-', path)}".rstrip("-")}
        spec.path(path, operations={method: operation})

    recording = [_IDEMPOTENCY_KEY, _CONTENT_ENCODING]
    add(
        "/event",
        "post",
        "Record one event",
        schemas.RecordQuery,
        parameters=recording,
        requestBody=_event_body(),
        responses=_answers("Recorded", "It is in the journal.", *_WITH_BODY, 507, headers=_REPLAYED),
    )
    add(
        "/events",
        "post",
        "Record many events as one record",
        schemas.BatchQuery,
        parameters=recording,
        requestBody=_batch_body(),
        responses=_answers("BatchRecorded", "They are in the journal.", *_WITH_BODY, 507, headers=_REPLAYED),
    )
    streams = _text(batches.NDJSON_TYPES[0], "") | _text(batches.CSV_TYPE, "")
    add(
        "/events",
        "get",
        "The raw events of a range: JSON in pages, NDJSON and CSV as a stream",
        schemas.ExportQuery,
        responses=_answers(
            "Events",
            "A page of them, or all.",
            406,
            more=streams,
            headers={"Vary": {"schema": {"const": "Accept"}}} | _STALE,
        ),
    )
    add(
        "/statistics",
        "get",
        "Exact statistics of a window, several windows, or a range",
        schemas.StatisticsQuery,
        responses=_answers("Statistics", "Everything acknowledged before the request is in it.", headers=_STALE),
    )
    add(
        "/statistics/timeline",
        "get",
        "The same statistics step by step, for charts",
        schemas.TimelineQuery,
        responses=_answers("Timeline", "Empty steps included.", headers=_STALE),
    )
    add(
        "/series",
        "get",
        "The series there are",
        schemas.SeriesQuery,
        responses=_answers("Series", "By name.", headers=_STALE),
    )
    name = {"name": "name", "in": "path", "required": True, "schema": converter.field2property(schemas.SeriesName())}
    name["schema"].pop("default")
    add(
        "/series/{name}",
        "delete",
        "Forget a series, or whole minutes of it",
        schemas.DeleteQuery,
        parameters=[name],
        responses=_answers("Deleted", "Forgotten on every worker and in every replay.", 404),
    )
    if with_debug:
        add(
            "/debug/events",
            "get",
            "The raw events held and the late arrivals, newest first",
            schemas.DebugQuery,
            responses=_answers("DebugEvents", "Why an event does not show.", headers=_STALE),
        )
    add("/healthz", "get", "Whether the process answers", None, responses=_answers("Health", "It does."))
    add("/readyz", "get", "Whether it can record and answer", None, responses=_answers("Health", "It can."))
    exposition = _text("text/plain", "") | _text("application/openmetrics-text", "")
    add("/metrics", "get", "For Prometheus", None, responses=_answers(None, "Of all workers.", more=exposition))
    add("/", "get", "What this is", None, responses=_answers("Index", "The endpoints."))


def _own_json_schema(self: Any, field: Any, **kwargs: Any) -> Json:
    """What a field of ours says about itself, for apispec knows marshmallow's own only."""
    said: Json = getattr(field, "json_schema", {})
    return said


@cache
def describe(*, with_debug: bool) -> bytes:
    """The description as JSON."""
    plugin = MarshmallowPlugin()
    spec = APISpec(
        title="statsapi",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        # The empty one: keys are asked for only where they are configured.
        security=[{}, {"bearer": []}, {"header": []}],
        info={"description": "Exact rolling-window statistics over timestamped events."},
    )
    converter = plugin.converter
    assert converter is not None  # noqa: S101 - for the type checker: APISpec has set it
    converter.add_attribute_function(_own_json_schema)  # type: ignore[no-untyped-call]
    event: Json = converter.schema2jsonschema(schemas.EventSchema)  # type: ignore[no-untyped-call]
    spec.components.schema("Event", event)
    for name, schema in _SCHEMAS.items():
        spec.components.schema(name, schema)
    for status, description in _PROBLEMS.items():
        response: Json = {"description": description, "content": _content(problems.MEDIA_TYPE, _ref("Problem"))}
        if status in (429, 503, 507):
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        if status in (401, 403):
            response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        spec.components.response(str(status), response)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("header", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    _operations(spec, converter, with_debug=with_debug)
    return msgspec.json.encode(spec.to_dict())


@blueprint.get("/openapi.json")
def get_description() -> Response:
    return Response(describe(with_debug="debug" in current_app.blueprints), mimetype=_JSON)


_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@docs.after_request
def _allow_only_own_scripts(response: Response) -> Response:
    """The page has one inline script, the package's: it and the files beside it may run, nothing else is loaded."""
    if response.mimetype == "text/html":
        hashes = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(response.get_data())]
        allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    return response
