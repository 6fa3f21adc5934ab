"""The API's description: valid, complete, true (Schemathesis), and its pages."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.model import DAY_US
from statsapi.routes import ROUTES
from tests.calls import CALLS, parameters_of, path_of
from tests.fakes import NOW, FakeClock

# Not positive_data_acceptance: that window, windows and start exclude each other, that a start must still be kept and a
# cursor be one that was given, no schema of single parameters can say.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
]


def described_app() -> Flask:
    return create_app(Settings(journal="memory://", max_series=100), clock_us=FakeClock(), background=False)


@schemathesis.serializer("application/x-ndjson", "text/csv")
def as_text(_: Any, value: Any) -> bytes:
    """These bodies are described as text; what is generated for them is sent as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


api = schemathesis.openapi.from_wsgi("/openapi.json", described_app())


@pytest.mark.slow
@api.parametrize()
@settings(max_examples=settings.default.max_examples * 3 // 5, suppress_health_check=list(HealthCheck))
def test_the_service_is_as_described(case: Any) -> None:
    """Whatever the description allows, and whatever it does not, is answered as the description says."""
    # With ?partial=true a batch with bad events in it is a 200 that names them.
    checks = [check for check in CHECKS if check is not negative_data_rejection or "partial" not in (case.query or {})]
    if case.operation.path == "/check":  # whose 503 is an answer
        checks.remove(not_a_server_error)
    response = case.call_and_validate(checks=checks)
    assert response.status_code != 500


def test_every_route_is_described(app: Flask, client: FlaskClient) -> None:
    """The description and the routes name the same endpoints, but for pages that people look at."""
    body: Any = client.get("/openapi.json").json
    described = {f"{method.upper()} {path}" for path, operations in body["paths"].items() for method in operations}
    routes = {
        f"{method} {path_of(rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith(("swagger_ui.", "openapi.", "dashboard."))
    }
    assert described == routes


def test_what_is_switched_off_is_not_described(clock: FakeClock) -> None:
    """Without the debug endpoint the description has none; with it and keys both ways to send one are told."""
    app = create_app(Settings(journal="memory://", debug_endpoint=False), clock_us=clock, background=False)
    body: Any = app.test_client().get("/openapi.json").json
    assert "/debug/events" not in body["paths"]
    assert set(body["components"]["securitySchemes"]) == {"bearer", "header"}


def test_what_a_key_needs_is_told(client: FlaskClient) -> None:
    """The scope of each operation that has one; those that are open to all are marked so, and all are in a group."""
    body: Any = client.get("/openapi.json").json
    needs = {}
    for path, operations in body["paths"].items():
        for method, operation in operations.items():
            assert operation["tags"][0] in {tag["name"] for tag in body["tags"]}
            found = re.search("scope `([a-z]+)`", operation.get("description", ""))
            assert (found is None) == (operation.get("security") == [])
            needs[f"{method.upper()} {path}"] = found and found[1]
    url_map = client.application.url_map.bind("here")
    paths = {}
    for method, path, scope in CALLS:
        endpoint, _ = url_map.match(path.partition("?")[0], method)
        (rule,) = {route.path for route in ROUTES if (route.endpoint, route.method) == (endpoint, method)}
        paths[f"{method} {rule}"] = scope
    writes = {f"POST {path}": "write" for path in ("/write", "/api/v2/write", "/api/v3/write_lp")}
    writes |= {f"{method} /metrics/{{group}}": "write" for method in ("PUT", "POST", "DELETE")}
    called = {*paths, *writes, "GET /", "GET /healthz", "GET /readyz", "GET /ping", "GET /health"}
    assert sorted(set(needs) - called) == [], "endpoints without a call in tests/calls.py"
    assert needs == paths | writes | {f"GET {path}": None for path in ("/", "/healthz", "/readyz", "/ping", "/health")}


def test_the_examples_are_what_comes(client: FlaskClient, clock: FakeClock) -> None:
    """Tried out as they stand they count, whenever that is, and the answers look as shown."""
    clock.advance(365 * DAY_US)
    body: Any = client.get("/openapi.json").json
    assert list(body)[:2] == ["openapi", "info"]
    schemas = body["components"]["schemas"]

    def shown(name: str) -> list[str]:
        return list(schemas[name]["examples"][0])

    def example(path: str, media_type: str) -> Any:
        return body["paths"][path]["post"]["requestBody"]["content"][media_type]["example"]

    assert list(client.post("/event", json=example("/event", "application/json")).json) == shown("Recorded")
    for media_type in ("application/x-ndjson", "text/csv"):
        answer = client.post("/events", data=example("/events", media_type), content_type=media_type)
        assert answer.status_code == 200
        assert list(answer.json) == shown("BatchRecorded")
    assert client.get("/statistics").json["count"] == 2
    assert list(client.get("/statistics").json) == shown("Statistics")
    for answer in (client.get("/nowhere"), client.post("/event", data="{", content_type="application/json")):
        described = body["components"]["responses"][str(answer.status_code)]["content"]["application/problem+json"]
        assert {name: answer.json[name] for name in ("type", "title", "status")}.items() <= described["example"].items()
    refused = client.post("/event", json={"timestamp": NOW, "value": "many"}).json
    assert list(refused) == list(
        body["components"]["responses"]["422"]["content"]["application/problem+json"]["example"]
    )


def test_parameters_come_from_the_schemas_that_validate(client: FlaskClient) -> None:
    """Their names, bounds and defaults are those of the marshmallow fields."""
    body: Any = client.get("/openapi.json").json
    operation = body["paths"]["/debug/events"]["get"]
    parameters = {one["name"]: one["schema"] for one in parameters_of(body, operation)}
    assert parameters["limit"] == {"type": "integer", "default": 1000, "minimum": 1, "maximum": 10_000}
    assert parameters["series"]["default"] == "default"
    event = body["components"]["schemas"]["Event"]
    assert event["required"] == ["timestamp", "value"]
    assert event["additionalProperties"] is False
    series = re.compile(event["properties"]["series"]["pattern"])
    for name, good in (
        ("a/b", True),
        ("GET /Länge", True),
        ("a;k=v", True),
        ("a;", False),
        ("-a", False),
        ("a ", False),
    ):
        assert bool(series.match(name)) == good


def test_docs_work_without_a_network(client: FlaskClient) -> None:
    """The page and all it loads come from here, and its policy lets nothing else in."""
    page = client.get("/docs/")
    assert page.mimetype == "text/html"
    assert "http" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'sha256-" in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 6
    for path in loaded:
        with client.get(urljoin("/docs/", path)) as response:
            assert response.status_code == 200
    assert client.get("/docs/none.js").mimetype == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "location"),
    [("/docs", "docs/"), ("/docs?x=1&y=%2F", "docs/?x=1&y=%2F"), ("/docs?", "docs/"), ("/docs?x=//evil.example", None)],
)
@pytest.mark.parametrize("host", ["evil.example", "localhost:8080", "a.example, b.example"])
def test_a_redirect_is_relative(client: FlaskClient, path: str, location: str | None, host: str) -> None:
    """Whatever Host says, under a prefix as well, and for HEAD: it stays where the client is."""
    for prefix in ("", "/stats"):
        for method in ("GET", "HEAD"):
            answer = client.open(path, method=method, headers={"Host": host}, environ_overrides={"SCRIPT_NAME": prefix})
            assert answer.status_code == 308
            assert answer.headers["Location"] == (location or "docs/?x=//evil.example")
            assert host not in answer.text
            assert urljoin(f"http://here{prefix}{path}", answer.headers["Location"]).startswith(
                f"http://here{prefix}/docs/"
            )


@pytest.mark.parametrize("query", ["", "?series=a&x=%2F"])
def test_the_page_with_a_slash(client: FlaskClient, query: str) -> None:
    """Leads to the page, relative to itself, under a prefix as well."""
    for prefix in ("", "/stats"):
        answer = client.get(f"/dashboard/{query}", environ_overrides={"SCRIPT_NAME": prefix})
        assert answer.status_code == 308
        assert urljoin(f"http://here{prefix}/dashboard/{query}", answer.headers["Location"]) == (
            f"http://here{prefix}/dashboard{query}"
        )
    assert client.post("/dashboard/").status_code == 404


def test_no_answer_repeats_the_host(client: FlaskClient) -> None:
    """No page, description, problem or header holds a URL that the client's Host and X-Forwarded-Host would steer."""
    sent = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "evil"}
    for rule in client.application.url_map.iter_rules():
        path = re.sub("<.*>", "index.html", rule.rule)
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            for asked in (path, path + "/", path.rstrip("/")):
                with client.open(asked or "/", method=method, headers=sent) as answer:
                    assert "evil" not in answer.get_data(as_text=True) + str(answer.headers), asked


@pytest.mark.parametrize("path", ["/openapi.json"])
def test_the_description_is_small_and_quick(client: FlaskClient, path: str) -> None:
    """It is made once."""
    assert client.get(path).data == client.get(path).data
    assert len(client.get(path).data) < 100_000
