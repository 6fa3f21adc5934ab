"""The API's description, OpenAPI 3.1, at /openapi.json, and pages to try it out at /docs.

Methods, paths, scopes and summaries come from the table of routes. apispec derives parameters and bodies from the
marshmallow schemas that validate them. Answers, headers and media types are written by hand (openapi_operations.py,
openapi_shapes.py). The first request for the description builds it, in some 20 ms.
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
from flask import Blueprint, Response, request
from flask_swagger_ui import get_swaggerui_blueprint

from statsapi import __version__
from statsapi.api import problems, schemas
from statsapi.api.incoming import service
from statsapi.api.openapi_operations import INFLUX_WRITTEN, JSON, Operation, content_of, operations_of, ref
from statsapi.api.openapi_shapes import EXAMPLE_MOMENT, INFLUX_ERRORS, SCHEMAS, Json
from statsapi.routes import OPEN, Route, served
from statsapi.times import format_timestamp

# BaseLayout: StandaloneLayout has a bar that loads descriptions from elsewhere, which the page's policy forbids.
# No oauth2RedirectUrl: the package would write an absolute URL, made of the Host that the client sent.
_PAGES: Final = {"app_name": "statsapi", "validatorUrl": None, "layout": "BaseLayout", "oauth2RedirectUrl": None}
# All links are relative, as a proxy may add a path. The blueprint's URL is given where it is registered.
docs: Blueprint = get_swaggerui_blueprint(".", "../openapi.json", _PAGES)

_NO_PREFIX: Final = "/"

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

_PROBLEMS: Final = {
    400: "The body cannot be read: malformed, cut off, or no longer than its head.",
    401: "An API key is needed, or this one is not known (only where keys are configured).",
    403: "The API key does not have the scope that this needs.",
    404: "This endpoint does not exist.",
    406: "Accept names no media type that this endpoint has.",
    413: "The body, an event in it (64 KiB) or the number of events is over the limit; or more than 40,000 different "
    "timestamps are in rare forms, or more than 60,000 items are not written as events are.",
    415: "The body's media type or Content-Encoding is not supported.",
    422: "Well-formed, but not valid: `errors` names what to fix. Nothing was recorded.",
    429: "More requests than STATSAPI_RATE_LIMIT allows.",
    500: "A fault of the service, which has been logged. For a recording `outcome` is `unknown`.",
    503: "Not ready, or the journal is not available. Of a recording or deletion `outcome` says whether it may have "
    "happened. From /check also: a condition fails (`check-failed`).",
    507: "A limit on the stored events or series was reached; nothing was recorded, stored events can be read.",
}
_ABOUT: Final = (
    "Exact rolling-window statistics over timestamped events. Record one with `POST /event`, then ask "
    "`GET /statistics`. All times are ISO 8601, UTC; errors are `application/problem+json`."
)


def _describe_route(route: Route, operation: Operation, converter: Any) -> Json:
    module = route.endpoint.partition(".")[0]
    if module not in _TAGS:
        raise LookupError(f"{module} has no group among _TAGS in openapi.py")
    parameters = [] if operation.query is None else converter.schema2parameters(operation.query, location="query")
    described: Json = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub('[^a-z]+', '-', route.path)}".rstrip("-"),
        "tags": [_TAGS[module]],
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
    """The JSON Schema of our own fields, as apispec knows marshmallow's fields only."""
    said: Json = getattr(field, "json_schema", {})
    return said


@cache
def describe(routes: tuple[Route, ...]) -> bytes:
    """The description of these endpoints as JSON. EXAMPLE_MOMENT stands for now, _NO_PREFIX for the path prefix."""
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
    for name, schema in (SCHEMAS | INFLUX_ERRORS).items():
        spec.components.schema(name, schema)
    spec.components.response("204", INFLUX_WRITTEN)
    for status, description in _PROBLEMS.items():
        content = content_of(problems.MEDIA_TYPE, ref("Problem"), example=_problem_example(status))
        response: Json = {"description": description, "content": content}
        if status in (429, 503, 507):
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        if status in (401, 403):
            response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        spec.components.response(str(status), response)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("header", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    operations = operations_of(converter)
    for route in routes:
        if route.is_described:
            if route.endpoint not in operations:
                raise LookupError(f"{route.endpoint} has no Operation in openapi_operations.py")
            described_route = _describe_route(route, operations[route.endpoint], converter)
            spec.path(route.path, operations={route.method.lower(): described_route})
    described = spec.to_dict()
    _share_parameters(described)
    first = {name: described[name] for name in ("openapi", "info", "servers", "tags", "security")}
    return msgspec.json.encode(first | described)


def _share_parameters(described: Json) -> None:
    """Move parameters that several operations have into the components, which makes the document a fourth smaller."""
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
    """A real problem: the one with this status that clients meet most often."""
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
    body = describe(served(service().settings)).replace(EXAMPLE_MOMENT.encode(), now.encode())
    if request.root_path:  # a relative "." would need no prefix told, but not all programs resolve it
        body = body.replace(_server(_NO_PREFIX), _server(request.root_path), 1)
    return Response(body, mimetype=JSON)


def _server(path: str) -> bytes:
    return msgspec.json.encode({"url": path})


_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@docs.after_request
def _allow_only_own_scripts(response: Response) -> Response:
    """Allow the package's one inline script and the page's own files to run, nothing else."""
    if response.mimetype == "text/html":
        hashes = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(response.get_data())]
        allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    return response
