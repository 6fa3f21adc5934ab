"""Questions about the service itself: what it offers, whether it is well, what it counted."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from statsapi.api.incoming import service
from statsapi.routes import served
from statsapi.times import format_timestamp


def index() -> dict[str, Any]:
    rows = served(service().settings)
    return {
        "message": "Event Statistics API is running",
        "server_time": format_timestamp(service().now_us()),
        "endpoints": {f"{route.method} {route.path}": route.summary for route in rows if route.summary},
    }


def healthz() -> dict[str, Any]:
    """The process answers. It looks at nothing else: a supervisor must not restart it because the journal is away."""
    return {"status": "ok"}


def readyz() -> dict[str, Any]:
    """The journal can be written and the replay is done; else 503 with the reason, also while shutting down.

    The answer also reports a clock that jumped, and records that were lost.
    """
    service().check_ready()
    return {"status": "ready"} | service().notices()


def metrics() -> Response:
    """What all workers counted, and the exact statistics of the configured windows as of now."""
    body, media_type = service().expose_metrics(request.headers.get("Accept", ""))
    return Response(body, content_type=media_type)
