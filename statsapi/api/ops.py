"""What is asked about the service itself."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from statsapi.api.incoming import service
from statsapi.routes import served
from statsapi.times import format_timestamp


def index() -> dict[str, Any]:
    rows = served(debug=service().settings.debug_endpoint)
    return {
        "message": "Event Statistics API is running",
        "server_time": format_timestamp(service().now_us()),
        "endpoints": {f"{route.method} {route.path}": route.summary for route in rows if route.summary},
    }


def healthz() -> dict[str, Any]:
    """The process answers. Looks at nothing else: who restarts on it must not restart for a journal that is away."""
    return {"status": "ok"}


def readyz() -> dict[str, Any]:
    """The journal can be written and the replay is done; else 503 with the reason, also while shutting down.

    Beside that it tells of a clock that jumped and of records that were lost, where there were any.
    """
    service().check_ready()
    return {"status": "ready"} | service().notices()


def metrics() -> Response:
    """What all workers counted, and the exact statistics of the configured windows as of now."""
    body, media_type = service().expose_metrics(request.headers.get("Accept", ""))
    return Response(body, content_type=media_type)
