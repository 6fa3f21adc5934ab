"""The one table of endpoints. A new endpoint is one row here and one function of that name in `statsapi.api`.

Its readers: `api` (URLs -> functions), access (scopes), metrics (a counter for each row), `GET /` and OpenAPI (the
summaries), and the setting of a path prefix. tests/http/test_routes.py holds the running application against it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from statsapi.config import Settings
from statsapi.errors import ConfigError
from statsapi.keys import ADMIN, READ, WRITE

OPEN: Final = None  # no scope: no key is needed

# Supervisors and load balancers poll it, so it never counts against a rate limit.
HEALTH: Final = "/healthz"
READY: Final = "/readyz"


INFLUX: Final = "influx."
"""The prefix of the endpoints for InfluxDB's clients, which take keys and give errors as InfluxDB does."""


class Route(NamedTuple):
    """One endpoint. `endpoint` is MODULE.FUNCTION in `statsapi.api`, and Flask's name of the route."""

    method: str  # GET answers HEAD as well, and Flask answers every OPTIONS
    rule: str  # as Flask writes it: /series/<name:name>
    endpoint: str
    scope: str | None  # what an API key must allow, where keys are configured
    summary: str  # one line for GET / and, where is_described, for OpenAPI; empty (a page's own files): in neither
    switch: str = ""  # the setting, on or off, that it depends on

    @property
    def path(self) -> str:
        """The path as OpenAPI and the metrics write it: /series/{name}."""
        return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", self.rule)

    @property
    def is_described(self) -> bool:
        """Whether OpenAPI describes it: all but the pages that people look at, and the description itself."""
        return self.endpoint.partition(".")[0] not in ("dashboard", "swagger_ui", "openapi")


# In the order of GET /. Metrics number the rows. Workers from before and after a reload agree on the numbers, as the
# arbiter imports this module before it forks.
ROUTES: Final = (
    Route("POST", "/event", "events.post_event", WRITE, "Record one event: {timestamp, value, series?}"),
    Route(
        "GET",
        "/statistics",
        "statistics.get_statistics",
        READ,
        "Count, min, max and mean of the past window, or what window, start, stats … ask for",
    ),
    Route(
        "GET",
        "/debug/events",
        "events.debug_events",
        ADMIN,
        "The raw events held and late arrivals, newest first",
        switch="debug_endpoint",
    ),
    Route("GET", "/", "ops.index", OPEN, "This page"),
    Route("GET", HEALTH, "ops.healthz", OPEN, "200 as long as the process answers"),
    Route("GET", "/metrics", "ops.metrics", READ, "Metrics for Prometheus, with the rolling statistics"),
    Route(
        "GET",
        READY,
        "ops.readyz",
        OPEN,
        "200 when events can be recorded and questions answered, else 503 with the reason",
    ),
    Route(
        "POST", "/events", "events.post_events", WRITE, "Record many events at once: JSON, columnar JSON, NDJSON or CSV"
    ),
    Route(
        "GET",
        "/events",
        "events.get_events",
        READ,
        "The raw events of a range: JSON pages, or a stream of NDJSON, CSV or line protocol",
    ),
    Route("GET", "/statistics/timeline", "statistics.get_timeline", READ, "Statistics step by step, for charts"),
    Route(
        "GET",
        "/statistics/histogram",
        "statistics.get_histogram",
        READ,
        "The distribution of the values: how many in each bin",
    ),
    Route(
        "GET",
        "/check",
        "check.get_check",
        READ,
        "200 when statistics meet the conditions, else 503 naming those that fail",
    ),
    Route("PUT", "/metrics/<path:group>", "pushgateway.push", WRITE, "Push samples, as to a Prometheus Pushgateway"),
    Route("POST", "/metrics/<path:group>", "pushgateway.push", WRITE, "The same"),
    Route("DELETE", "/metrics/<path:group>", "pushgateway.forget", WRITE, "Answers 202 and deletes nothing"),
    Route("GET", "/series", "series.get_series", READ, "The series held, with their tags"),
    Route("GET", "/tags", "series.get_tags", READ, "The tags that series carry"),
    Route("GET", "/tags/<name:key>", "series.get_tag_values", READ, "The values of a tag"),
    Route("DELETE", "/series/<name:name>", "series.delete_series", ADMIN, "Forget a series, or a range of it"),
    Route(
        "DELETE", "/series", "series.delete_named_series", ADMIN, "The same by ?series=NAME, which works for every name"
    ),
    Route("POST", "/write", "influx.write_v1", WRITE, "Influx line protocol, as clients of InfluxDB 1.x send it"),
    Route("POST", "/api/v2/write", "influx.write_v2", WRITE, "The same for clients of InfluxDB 2, and Telegraf"),
    Route("POST", "/api/v3/write_lp", "influx.write_v3", WRITE, "The same for clients of InfluxDB 3"),
    Route("GET", "/ping", "influx.ping", OPEN, "204: clients of InfluxDB ask it whether the server runs"),
    Route("GET", "/health", "influx.health", OPEN, "/readyz in the words of InfluxDB 2"),
    Route("GET", "/openapi.json", "openapi.get_description", OPEN, "The description of this API (OpenAPI 3.1)"),
    Route("GET", "/dashboard", "dashboard.get_page", OPEN, "A live page of all this, for people", switch="dashboard"),
    Route("GET", "/dashboard/<name>", "dashboard.get_file", OPEN, "", switch="dashboard"),
    # The two of the Swagger UI package, which brings its own functions.
    Route("GET", "/docs/", "swagger_ui.show", OPEN, "The same description as pages, to try the API out"),
    Route("GET", "/docs/<path:path>", "swagger_ui.show", OPEN, ""),
)

SCOPES: Final = {route.endpoint: route.scope for route in ROUTES}


def scope_of(endpoint: str) -> str | None:
    """The scope an endpoint needs once there are keys. Without a row it is admin, so that a forgotten row is safe."""
    return SCOPES.get(endpoint, ADMIN)


def served(settings: Settings) -> tuple[Route, ...]:
    """The rows that a service with these settings answers: all but those that are switched off."""
    return tuple(route for route in ROUTES if not route.switch or getattr(settings, route.switch))


_FIRST_SEGMENTS: Final = frozenset(route.rule.split("/")[1] for route in ROUTES)


def begins_as_endpoint(prefix: str) -> bool:
    """Whether a path that begins with this prefix could be meant for an endpoint."""
    return prefix != "" and prefix.split("/")[1] in _FIRST_SEGMENTS


def require_prefix(configured: str) -> None:
    """ConfigError for a STATSAPI_PATH_PREFIX that is the path of an endpoint."""
    if begins_as_endpoint(configured):
        raise ConfigError(
            f"STATSAPI_PATH_PREFIX {configured} begins like an endpoint's path, so that a request could mean either: "
            "choose another prefix"
        )
