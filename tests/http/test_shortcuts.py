"""Where the app goes a shorter way than Flask and Werkzeug do: it comes to the same."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.test import EnvironBuilder, run_wsgi_app

from statsapi.api.application import JsonAnswer

ENVIRONS: list[dict[str, Any]] = [
    {},
    {"HTTP_HOST": "Stats.Example.com:8080"},
    {"HTTP_HOST": "[::1]:80"},
    {"HTTP_HOST": "bücher.example"},
    {"HTTP_HOST": "not a host"},
    {"HTTP_HOST": ""},
    {"SERVER_NAME": "other", "SERVER_PORT": "1", "HTTP_HOST": None},
    {"wsgi.url_scheme": "https"},
    {"SCRIPT_NAME": "/below"},
    {"QUERY_STRING": "window=5m&a=%20b"},
    {"REQUEST_METHOD": "POST", "PATH_INFO": "/event"},
    {"PATH_INFO": "//series//a"},
    {"PATH_INFO": "/caf\u00c3\u00a9"},
    {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"},
]


def test_urls_are_relative_to_what_flask_says(app: Flask) -> None:
    """For the first request to a host and for later ones: the adapter is the one that Flask makes for each."""
    for _ in range(2):
        for changed in ENVIRONS:
            environ = EnvironBuilder(path="/").get_environ() | changed
            request = app.request_class({name: value for name, value in environ.items() if value is not None})
            found, made = app.create_url_adapter(request), Flask.create_url_adapter(app, request)
            assert found is not None
            assert made is not None
            found.path_info, made.path_info = (
                f"/{adapter.path_info.lstrip('/')}" for adapter in (found, made)
            )  # match() does so
            assert {name: value for name, value in vars(found).items() if name != "known"} == vars(made), changed


PATHS = ("/", "/event", "/events", "/statistics", "/docs", "/docs/", "/docs/a.css", "/series", "/series/a", "/no")


@pytest.mark.parametrize("path", [*PATHS, "//event", "/event/", "/EVENT", "/series//a", "/%65vent", "event"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "get", "post", "BREW"])
def test_a_path_leads_to_the_route_that_werkzeug_finds(app: Flask, path: str, method: str) -> None:
    """The first time and later, after other paths and methods too: the same rule and values, or the same refusal."""
    found: list[Any] = []
    for asked in (path, "/event", path, path):
        environ = EnvironBuilder(path="/").get_environ() | {"PATH_INFO": asked, "REQUEST_METHOD": method}
        request = app.request_class(environ)
        for adapter in (app.create_url_adapter(request), Flask.create_url_adapter(app, request)):
            assert adapter is not None
            try:
                found.append(adapter.match(return_rule=True))
            except (HTTPException, RequestRedirect) as refused:
                found.append(
                    (type(refused), getattr(refused, "new_url", None), getattr(refused, "valid_methods", None))
                )
    assert found[0::2] == found[1::2]


def test_made_up_paths_and_methods_fill_no_memory(app: Flask) -> None:
    """What is kept about paths has a bound: the routes."""
    client = app.test_client()
    for number in range(100):
        for method in ("GET", f"M{number}"):
            for path in ("/" * number + "statistics", f"/series/{number}"):
                client.open("/", method=method, environ_overrides={"PATH_INFO": path})
    kept = [len(adapter.known) for adapter in app._adapters.values()]  # type: ignore[attr-defined]
    assert kept == [1]


def test_values_of_one_request_are_not_those_of_the_next(app: Flask) -> None:
    """The empty values of a path without parameters are each request's own."""
    request = app.request_class(EnvironBuilder(path="/statistics").get_environ())
    for _ in range(3):
        adapter = app.create_url_adapter(request)
        assert adapter is not None
        _, values = adapter.match(return_rule=True)
        assert values == {}
        values["a"] = 1  # type: ignore[index]


def test_no_host_is_redirected_to_another(client: FlaskClient) -> None:
    """A redirect stays at the host that was asked, whoever asked before."""
    for host in ("one.example", "two.example", "one.example"):
        response = client.get("/docs", base_url=f"http://{host}")
        assert response.status_code == 308
        assert response.location == "docs/"


def test_made_up_hosts_fill_no_memory(app: Flask) -> None:
    """What is kept about hosts has a bound; beyond it the answers are the same."""
    client = app.test_client()
    for number in range(200):
        assert client.get("/", base_url=f"http://host-{number}.example").status_code == 200
    assert len(app._adapters) <= 64  # type: ignore[attr-defined]
    assert client.get("/docs", base_url="http://host-199.example").location == "docs/"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304, 503])
def test_a_json_answer_goes_out_as_any_other(method: str, status: int) -> None:
    """Status, headers and body are those of a Response, whatever was set on it; who waits for its end is told."""
    environ = EnvironBuilder(path="/", method=method).get_environ()
    ended = []
    sent = []
    for answer in (JsonAnswer(b'{"a":1}\n'), Response(b'{"a":1}\n', content_type="application/json")):
        answer.status_code = status
        answer.headers["Idempotent-Replayed"] = "true"
        answer.headers.add("Vary", "Accept")
        if status == 503:
            answer.call_on_close(lambda: ended.append(True))
        pieces, line, headers = run_wsgi_app(answer, dict(environ), buffered=True)
        sent.append((b"".join(pieces), line, list(headers)))
    assert sent[0] == sent[1]
    assert len(ended) == 2 * (status == 503)
