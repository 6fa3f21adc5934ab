"""Questions about the service itself: its endpoints, its health, its metrics."""

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
    """The process answers. Nothing else is checked: a supervisor must not restart it because the journal is away."""
    return {"status": "ok"}


def readyz() -> dict[str, Any]:
    """The journal can be written and the replay is done; else 503 with the reason, also while shutting down.

    The answer also reports a clock that jumped, records that were lost, and proxies that do not fit the settings.
    """
    service().check_ready()
    return {"status": "ready"} | service().notices() | _proxy_notice()


def _proxy_notice() -> dict[str, str]:
    """A notice where this request shows that STATSAPI_TRUSTED_PROXIES does not fit the proxies in front. A client may
    have forged the header, but the notice reveals only that header's length and the setting.
    """
    header = request.headers.get("X-Forwarded-For", "")
    named = len([address for address in header.split(",") if address.strip()])
    trusted = service().settings.trusted_proxies
    if not named or 0 < trusted <= named:
        return {}
    if not trusted:
        return {
            "proxy": "X-Forwarded-For came, and STATSAPI_TRUSTED_PROXIES=0 trusts no proxy: rate limits and logs "
            "take all clients of a proxy for one. Set it to how many proxies are in front"
        }
    return {
        "proxy": f"STATSAPI_TRUSTED_PROXIES={trusted}, and X-Forwarded-For names {named}: a client's address is not "
        "known. Set it to how many proxies in front add to that header"
    }


def metrics() -> Response:
    """All workers' counters, and the exact statistics of the configured windows as of now."""
    body, media_type = service().expose_metrics(request.headers.get("Accept", ""))
    return Response(body, content_type=media_type)
