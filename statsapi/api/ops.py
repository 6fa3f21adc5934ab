"""What is asked about the service itself."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from statsapi.api.incoming import service
from statsapi.times import format_timestamp

blueprint = Blueprint("ops", __name__)

_ENDPOINTS = {
    "POST /event": "Record one event: {timestamp, value, series?}",
    "GET /statistics": "Count, min, max and mean of the past window, or what window, start, stats … ask for",
    "GET /debug/events": "The raw events held and late arrivals, newest first",
    "GET /": "This page",
    "GET /healthz": "200 as long as the process answers",
    "GET /metrics": "What Prometheus scrapes, the rolling statistics among it",
    "GET /readyz": "200 when events can be recorded and questions answered, else 503 with the reason",
    "POST /events": "Record many events at once: JSON, columnar JSON, NDJSON or CSV",
    "GET /events": "The raw events of a range as JSON pages, NDJSON or CSV",
    "GET /statistics/timeline": "Statistics step by step, for charts",
    "GET /series": "The series there are",
    "DELETE /series/{name}": "Forget a series, or a range of it",
    "GET /openapi.json": "The description of this API (OpenAPI 3.1)",
    "GET /docs/": "The same as pages, to try it out",
}
_WITHOUT_DEBUG = {call: does for call, does in _ENDPOINTS.items() if call != "GET /debug/events"}


@blueprint.get("/")
def index() -> dict[str, Any]:
    return {
        "message": "Event Statistics API is running",
        "server_time": format_timestamp(service().now_us()),
        "endpoints": _ENDPOINTS if service().settings.debug_endpoint else _WITHOUT_DEBUG,
    }


@blueprint.get("/healthz")
def healthz() -> dict[str, Any]:
    """The process answers. Looks at nothing else: who restarts on it must not restart for a journal that is away."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def readyz() -> dict[str, Any]:
    """The journal can be written and the replay is done; else 503 with the reason, also while shutting down.

    Beside that it tells of a clock that jumped and of records that were lost, where there were any.
    """
    service().check_ready()
    return {"status": "ready"} | service().notices()


@blueprint.get("/metrics")
def metrics() -> Response:
    """What all workers counted, and the exact statistics of the configured windows as of now."""
    body, media_type = service().expose_metrics(request.headers.get("Accept", ""))
    return Response(body, content_type=media_type)
