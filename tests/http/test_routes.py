"""The one table of endpoints: URLs, scopes, counters, index and description of the real application are its rows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from inspect import signature
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi import api, keys
from statsapi.api import openapi
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.routes import OPEN, ROUTES, Route, served
from tests.calls import parameters_of, path_of, samples_of
from tests.fakes import FakeClock

HELD = {scope: keys.new_key([scope], f"{scope}-er") for scope in keys.SCOPES}
NAMES = {"group": "job/backup", "path": "swagger-ui.css"}


def status_of(client: FlaskClient, route: Route, **options: Any) -> int:
    """The answer to a path of the row."""
    names = defaultdict(lambda: "default", NAMES)
    if route.path.startswith("/dashboard"):
        names["name"] = "main.js"
    with client.open(route.path.format_map(names), method=route.method, **options) as response:
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


def test_a_row_of_an_unknown_module_says_where_to_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new endpoint's module has its place among _VIEWS."""
    row = Route("GET", "/new", "new.get_new", OPEN, "")
    monkeypatch.setattr(api, "served", lambda settings: (*ROUTES, row))
    with pytest.raises(
        LookupError, match=re.escape("new.get_new: new is not among _VIEWS in statsapi/api/__init__.py")
    ):
        create_app(Settings(journal="memory://"), background=False)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/a", "/a"),
        ("/series/<name:name>/", "/series/{name}/"),
        ("/a/<first_name>/b/<int(min=1):_x2>", "/a/{first_name}/b/{_x2}"),
        ("/<path:Any_Path>", "/{Any_Path}"),
    ],
)
def test_a_path_names_its_parameters(rule: str, path: str) -> None:
    """Any name that Flask takes, with any converter or none."""
    assert Route("GET", rule, "a.b", OPEN, "").path == path


def test_parameters_of_paths_are_the_same_everywhere(shared_app: Flask) -> None:
    """In the rule as Werkzeug reads it, in the row's path, in the function's arguments and in the description."""
    described: Any = shared_app.test_client().get("/openapi.json").json
    for rule in shared_app.url_map.iter_rules():
        for row in ROUTES:
            if (row.rule, row.endpoint) != (rule.rule, rule.endpoint):
                continue
            assert row.path == path_of(rule)
            taken = signature(shared_app.view_functions[rule.endpoint]).parameters
            assert rule.arguments <= set(taken), row
            if row.is_described:
                operation = described["paths"][row.path][row.method.lower()]
                said = {one["name"] for one in parameters_of(described, operation) if one["in"] == "path"}
                assert said == rule.arguments, f"{row.endpoint}: its parameters in openapi_operations.py"


def test_each_described_endpoint_has_a_group_and_an_operation() -> None:
    """Without one the whole description is a 500; here it is named."""
    rows = [route for route in ROUTES if route.is_described]
    modules = {route.endpoint.partition(".")[0] for route in rows}
    lack, idle = sorted(modules - set(openapi._TAGS)), sorted(set(openapi._TAGS) - modules)
    assert lack == [], "modules without a group among _TAGS of statsapi/api/openapi.py"
    assert idle == [], "modules among _TAGS of statsapi/api/openapi.py that have no described endpoint"
    described = openapi.describe(ROUTES)
    assert len(re.findall(rb'"operationId":', described)) == len(rows)
    assert len(set(re.findall(rb'"operationId":"[^"]+"', described))) == len(rows), "two have the same operationId"


def test_the_description_refers_to_what_it_has() -> None:
    """Each reference leads to a shape, an answer or a parameter in it, and each of those is referred to."""
    described: Any = json.loads(openapi.describe(ROUTES))
    there = {
        f"#/components/{kind}/{name}"
        for kind, members in described["components"].items()
        if kind != "securitySchemes"
        for name in members
    }
    referred = {"/".join(ref.split("/")[:4]) for ref in references(described)}
    dangling, idle = sorted(referred - there), sorted(there - referred)
    assert dangling == [], "openapi_operations.py refers to what neither openapi_shapes.py nor openapi.py has"
    assert idle == [], "nothing refers to these: an answer in openapi_operations.py is missing, or they can go"
    for ref in references(described):
        found = described
        for name in ref.split("/")[1:]:
            found = found[name]


def references(described: Any) -> Iterator[str]:
    """Every $ref in a description."""
    if isinstance(described, dict):
        if isinstance(described.get("$ref"), str):
            yield described["$ref"]
        described = list(described.values())
    if isinstance(described, list):
        for each in described:
            yield from references(each)


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
