"""The one table of endpoints: URLs, scopes, counters, index and description of the real application are its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi import keys
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.routes import OPEN, ROUTES, Route, served
from tests.calls import samples_of
from tests.fakes import FakeClock

HELD = {scope: keys.new_key([scope], f"{scope}-er") for scope in keys.SCOPES}
NAMES = {"group": "job/backup", "name": "default", "key": "host", "path": "swagger-ui.css"}


def status_of(client: FlaskClient, route: Route, **options: Any) -> int:
    """The answer to a path of the row."""
    names = NAMES | ({"name": "main.js"} if route.path.startswith("/dashboard") else {})
    with client.open(route.path.format(**names), method=route.method, **options) as response:
        return response.status_code


def told_of(app: Flask) -> tuple[dict[str, str], dict[str, str]]:
    """The summaries at `/` and in /openapi.json, by method and path."""
    client = app.test_client()
    index: Any = client.get("/").json
    body: Any = client.get("/openapi.json").json
    described = {
        f"{method.upper()} {path}": operation["summary"]
        for path, operations in body["paths"].items()
        for method, operation in operations.items()
    }
    return index["endpoints"], described


@pytest.fixture(scope="module")
def keyed() -> Iterator[Flask]:
    """The real application with a key for each scope."""
    lines = ";".join(held.line() for _, held in HELD.values())
    app = create_app(Settings(journal="memory://", api_keys=lines), clock_us=FakeClock(), background=False)
    with closing(app.extensions["statsapi"]):
        yield app


def test_every_endpoint_is_in_the_table(shared_app: Flask) -> None:
    """A route without a row, and a row without a route, fail here."""
    there = {
        (method, rule.rule, rule.endpoint)
        for rule in shared_app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    assert there == {(route.method, route.rule, route.endpoint) for route in ROUTES}
    assert len(there) == len(ROUTES)


def test_the_index_and_the_description_are_the_rows(shared_app: Flask) -> None:
    """GET / has each row with a summary, OpenAPI those of them that are neither pages for people nor itself."""
    index, described = told_of(shared_app)
    rows = {f"{route.method} {route.path}": route.summary for route in ROUTES if route.summary}
    assert list(index.items()) == list(rows.items())
    assert set(index) - set(described) == {"GET /openapi.json", "GET /dashboard", "GET /docs/"}
    assert described == {name: summary for name, summary in rows.items() if name in described}


def test_what_is_switched_off_is_nowhere(clock: FakeClock) -> None:
    """Rows whose setting is off have no URL, no line in the index, and none in the description."""
    settings = Settings(journal="memory://", debug_endpoint=False, dashboard=False)
    app = create_app(settings, clock_us=clock, background=False)
    off = {route.rule for route in ROUTES} - {route.rule for route in served(settings)}
    assert off == {route.rule for route in ROUTES if route.switch}
    assert not off & {rule.rule for rule in app.url_map.iter_rules()}
    index, described = told_of(app)
    assert not [name for name in (*index, *described) if name.split()[1] in off]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_row_says_who_may_call(keyed: Flask, route: Route) -> None:
    """Nobody needs a key for an open row; for another it is that of its scope, or of admin."""
    client = keyed.test_client()
    allowed = {scope for scope, (key, _) in HELD.items() if status_of(client, route, headers={"X-API-Key": key}) != 403}
    assert allowed == (set(keys.SCOPES) if route.scope is OPEN else {route.scope, keys.ADMIN})
    assert (status_of(client, route) == 401) == (route.scope is not OPEN)


def test_each_row_has_a_counter(app: Flask) -> None:
    """A request counts under its row's method and path, whatever it was answered; what has no row as `other`."""
    client = app.test_client()
    for route in ROUTES:
        status_of(client, route)
    client.get("/nothing")
    counted = {
        (labels["method"], labels["route"]): count
        for (name, pairs), count in samples_of(client.get("/metrics").text).items()
        if name == "statsapi_http_requests_total" and count and (labels := dict(pairs))
    }
    assert counted == {(route.method, route.path): 1 for route in ROUTES} | {("other", "other"): 1}
