"""Where the app goes a shorter way than Flask and Werkzeug do: it comes to the same."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import flask
import pytest
from flask import Flask, Response
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.test import EnvironBuilder, run_wsgi_app

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.keys import new_key
from statsapi.shortcuts.flask_side import JsonAnswer
from tests.fakes import NOW, FakeClock


def make(clock: FakeClock, **settings: Any) -> Flask:
    return create_app(Settings(journal="memory://", **settings), clock_us=clock, background=False)


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Flask]:
    """By the shortcuts, whatever the run is by."""
    app = make(clock, shortcuts=True)
    yield app
    app.extensions["statsapi"].close()


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
    """The memory about paths is bounded by the routes."""
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
    """The memory about hosts is bounded, and answers beyond the bound are the same."""
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


def _drop_length(answer: Response) -> None:
    del answer.headers["Content-Length"]


def _set_pieces(answer: Response) -> None:
    answer.response = ['{"a":', " 1}"]
    del answer.headers["Content-Length"]


def _set_one_piece_of_text(answer: Response) -> None:
    answer.response = ['{"a": 1}']
    del answer.headers["Content-Length"]


def _add_a_piece(answer: Response) -> None:
    answer.response.append(b" ")  # type: ignore[union-attr]  # a list
    del answer.headers["Content-Length"]


def _set_generator(answer: Response) -> None:
    answer.response = (piece for piece in ("a", "b"))
    del answer.headers["Content-Length"]


def _set_text(answer: Response) -> None:
    answer.response = "ab"
    del answer.headers["Content-Length"]


def _set_data(answer: Response) -> None:
    answer.data = b"[]"


def _set_location(answer: Response) -> None:
    answer.headers["location"] = "/caf\u00e9 \u4e2d"
    answer.headers["Content-Location"] = "/caf\u00e9 \u4e2d"


def _set_length(answer: Response) -> None:
    answer.headers["content-length"] = "4"


def _put_headers_in_front(answer: Response) -> None:
    answer.headers = type(answer.headers)([("A", "1"), ("B", "2"), *answer.headers])


CHANGES = [
    *(_drop_length, _set_pieces, _set_one_piece_of_text, _add_a_piece, _set_generator, _set_text, _set_data),
    *(_set_location, _set_length, _put_headers_in_front, Response.freeze),
    lambda answer: answer.headers.clear(),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_json_answer_that_a_hook_has_changed_goes_out_as_any_other(method: str, change: Any) -> None:
    """Whatever an after_request hook may do to body and headers, the bytes are those of a Response."""
    environ = EnvironBuilder(path="/", method=method).get_environ()
    sent = []
    for answer in (JsonAnswer(b'{"a":1}\n'), Response(b'{"a":1}\n', content_type="application/json")):
        change(answer)
        pieces, line, headers = run_wsgi_app(answer, dict(environ))
        sent.append((list(pieces), line, list(headers)))
    assert sent[0] == sent[1]


# Whole requests: one application by the shortcuts, one without them, the same requests to both.


class Pair(NamedTuple):
    short: Flask
    plain: Flask
    key: str


KEY, HELD = new_key(["admin"], "k")
_READER, READER = new_key(["read"], "r")
VARIANTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "keys": {"api_keys": f"{HELD.line()};{READER.line()}"},
    "limits": {"rate_limit": "40/day", "rate_limit_storage": "memory://", "api_keys": HELD.line()},
    "browsers": {
        "cors_origins": ("https://a.example",),
        "beacon_origins": ("https://b.example",),
        "access_log": True,
        "dashboard": False,
        "trusted_proxies": 1,
        "path_prefix": "/below",
    },
}


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    settings = VARIANTS[request.param]
    short, plain = apps = [make(FakeClock(), shortcuts=each, **settings) for each in (True, False)]
    yield Pair(short, plain, KEY if "api_keys" in settings else "")
    for app in apps:
        app.extensions["statsapi"].close()


BODIES = [
    b"",
    json.dumps({"timestamp": NOW, "value": 42.5}).encode(),
    json.dumps({"timestamp": NOW, "value": "4", "series": "a b", "tags": {"x": 1}}).encode(),
    b'{"timestamp": 1, "value": 1}',
    b'{"timestamp": "2025-11-21T07:45:00", "value": 1, "value": 2}',
    b'{"timestamp": "11/12/2026", "value": NaN}',
    b"[1, 2",
    b"timestamp,value\n2025-11-21T07:45:00Z,1\n",
    b"x" * 70_000,
]
HEADERS = {
    "HTTP_HOST": ["localhost", "a.example:80", "not a host", "", "h\u00e9"],
    "CONTENT_TYPE": ["application/json", "text/csv", "text/plain", "application/json; charset=utf-8", ""],
    "HTTP_X_REQUEST_ID": ["mine-1", "has blank", "\u00e9"],
    "HTTP_IDEMPOTENCY_KEY": ["one", '"two"', "bad key", ""],
    "HTTP_AUTHORIZATION": [f"Bearer {KEY}", "Bearer wrong", f"Bearer {_READER}", "Basic Zm9vOmJhcg==", "Token x"],
    "HTTP_X_API_KEY": [KEY],
    "HTTP_ORIGIN": ["https://a.example", "https://b.example", "null", "http://localhost"],
    "HTTP_ACCEPT": ["*/*", "text/csv", "application/openmetrics-text", "no/such"],
    "HTTP_ACCESS_CONTROL_REQUEST_METHOD": ["POST"],
    "HTTP_CONTENT_ENCODING": ["gzip", "br"],
    "HTTP_X_FORWARDED_FOR": ["1.2.3.4"],
    "HTTP_X_FORWARDED_PREFIX": ["/shown"],
    "HTTP_UPGRADE": ["websocket"],
    "HTTP_CONNECTION": ["Upgrade", "close"],
    "SCRIPT_NAME": ["/below"],
    "wsgi.url_scheme": ["https"],
}
PATHS_ASKED = [
    *("/event", "/event", "/event", "/statistics", "/statistics", "/statistics", "/", "", "/events", "/debug/events"),
    *(
        "/healthz",
        "/readyz",
        "/series",
        "/series/a",
        "/series/caf\u00c3\u00a9",
        "/series//a",
        "/docs",
        "/docs/",
        "/tags",
    ),
    *("/dashboard", "/dashboard/", "/dashboard/main.js", "/no", "//event", "/event/", "event", "/ev\u00e9nt", "/write"),
    *("/below/event", "/below", "/ping", "/check", "/statistics/timeline", "/metrics/job/a"),
]
QUERIES = [
    "",
    "",
    "window=5m",
    "series=a&series=b",
    "window=no",
    "stats=all&percentiles=50",
    "dedup=true",
    "x=%ff",
    "p=x",
]
REQUESTS = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(
            ["GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "get", "BREW"]
        ),
        "PATH_INFO": st.sampled_from(PATHS_ASKED),
        "QUERY_STRING": st.sampled_from(QUERIES),
        "body": st.sampled_from(BODIES),
        "framing": st.sampled_from(["length", "length", "chunked", "short"]),
    },
    optional={name: st.sampled_from(values) for name, values in HEADERS.items()},
)


def answered(app: Flask, asked: dict[str, Any]) -> tuple[Any, ...]:
    """Status, headers and body as they leave the application, but for what is made up for each answer."""
    environ = EnvironBuilder(path="/").get_environ() | {"REMOTE_ADDR": "127.0.0.1"} | asked
    body, framing = environ.pop("body"), environ.pop("framing")
    environ["wsgi.input"] = io.BytesIO(body[:-1] if framing == "short" else body)
    if framing == "chunked":
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    else:
        environ["CONTENT_LENGTH"] = str(len(body))
    pieces, status, headers = run_wsgi_app(app.wsgi_app, environ, buffered=True)
    told = [
        (name, "made up" if name == "X-Request-ID" and value != asked.get("HTTP_X_REQUEST_ID") else value)
        for name, value in headers
    ]
    text = b"".join(pieces)
    return status, [(name, re.sub(r"t=\d+", "t=", value)) for name, value in told if name != "Retry-After"], (
        re.sub(rb"again in \d+ s", b"again in s", text)
    )  # fmt: skip


@given(asked=st.lists(REQUESTS, min_size=1, max_size=6), keyed=st.booleans())
def test_every_request_is_answered_as_without_the_shortcuts(pair: Pair, asked: list[Any], keyed: bool) -> None:
    """Whatever is asked, in whatever order, with keys, limits and browsers' origins or without: the same status, the
    same headers in the same order, the same body.
    """
    for request in asked:
        if keyed and pair.key:
            request = {"HTTP_AUTHORIZATION": f"Bearer {pair.key}"} | request
        assert answered(pair.short, request) == answered(pair.plain, request), request


def test_what_was_counted_is_the_same(clock: FakeClock) -> None:
    """The metrics of both count the same requests, events and refusals."""
    counts = []
    for short in (True, False):
        app = make(clock, shortcuts=short)
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
            for path in ("/event", "/statistics", "/no", "/"):
                for body in BODIES[:4]:
                    asked = {"REQUEST_METHOD": method, "PATH_INFO": path, "body": body, "framing": "length"}
                    answered(app, asked | {"CONTENT_TYPE": "application/json"})
        text = app.test_client().get("/metrics").text
        counts.append([line for line in text.splitlines() if "seconds" not in line and "clock" not in line])
        app.extensions["statsapi"].close()
    assert counts[0] == counts[1]


ATTRIBUTES = [
    *(
        "method",
        "scheme",
        "server",
        "root_path",
        "path",
        "query_string",
        "remote_addr",
        "url",
        "host",
        "args",
        "mimetype",
    ),
    *("endpoint", "view_args", "blueprint", "blueprints", "content_length", "is_secure", "full_path", "user_agent"),
    *("accept_mimetypes", "authorization", "data", "form", "cookies", "access_route", "max_content_length", "shallow"),
]


@given(asked=st.lists(REQUESTS, min_size=1, max_size=3))
def test_a_view_sees_what_flask_shows_it(asked: list[dict[str, Any]]) -> None:
    """Each attribute of the request, the URLs that are made from it, and the contexts, the first time and later."""
    seen: list[list[Any]] = []
    for short in (True, False):
        app = make(FakeClock(), shortcuts=short)
        told: list[Any] = []

        def look(told: list[Any] = told, app: Flask = app) -> str:
            request = flask.request
            for name in ATTRIBUTES:
                try:
                    told.append(repr(getattr(request, name)))
                except Exception as error:  # noqa: BLE001 - of both the same
                    told.append(repr(error))
            told.append(list(request.headers))
            told.append((request.url_rule and request.url_rule.rule, str(request.routing_exception)))
            told.append(flask.url_for("look", a=1, _external=True))
            told.append(flask.current_app._get_current_object() is app)  # type: ignore[attr-defined]
            told.append((dict(flask.session), "made" in flask.g, request.json_module is app.json))
            flask.g.made = True
            return "looked"

        app.add_url_rule("/look", "look", look, methods=["GET", "POST"])
        for request in (*asked, *asked):
            told.append(answered(app, request | {"PATH_INFO": "/look"}))
        seen.append(told)
        app.extensions["statsapi"].close()
    assert seen[0] == seen[1]


SIGNALS = ("appcontext_pushed", "request_started", "request_finished", "got_request_exception")
LATE_SIGNALS = ("request_tearing_down", "appcontext_tearing_down", "appcontext_popped")


@pytest.mark.parametrize("listening", [(), *((name,) for name in (*SIGNALS, *LATE_SIGNALS)), (*SIGNALS, *LATE_SIGNALS)])
@pytest.mark.parametrize(
    "hook", ["none", "before", "refusing", "raising", "after", "this", "teardown", "view", "nested"]
)
def test_hooks_and_signals_run_as_in_flask(clock: FakeClock, listening: tuple[str, ...], hook: str) -> None:
    """In the same order and as often: before and after, at the end, when a hook or the view raises, and for a context
    within a context.
    """
    seen = []
    for short in (True, False):
        app = make(clock, shortcuts=short)
        told: list[Any] = []

        def note(what: str, told: list[Any] = told) -> Any:
            def called(*values: Any, **more: Any) -> Any:
                told.append((what, sorted(more), flask.has_request_context(), flask.has_app_context()))
                return values[0] if values and isinstance(values[0], Response) else None

            return called

        def refuse(told: list[Any] = told) -> Any:
            told.append("refused")
            return {"no": 1}, 403

        def fail(told: list[Any] = told) -> Any:
            told.append("failed")
            raise RuntimeError("on purpose")

        if hook in ("before", "refusing", "raising"):
            before: dict[str, Any] = {"before": note("before"), "refusing": refuse, "raising": fail}
            app.before_request_funcs.setdefault(None, []).append(before[hook])
        elif hook == "after":
            app.after_request(note("after"))
        elif hook == "this":
            app.before_request(lambda note=note: [flask.after_this_request(note("this")), None][1])  # type: ignore[type-var]
        elif hook == "teardown":
            app.teardown_request(note("teardown"))
            app.teardown_appcontext(note("teardown of the application"))
        elif hook == "view":
            app.view_functions["statistics.get_statistics"] = fail
        listeners = {name: note(name) for name in listening}
        for name, listener in listeners.items():
            getattr(flask, name).connect(listener, app)
        asked = {"REQUEST_METHOD": "GET", "body": b"", "framing": "length"}
        for path in ("/statistics", "/statistics", "/no", "/statistics"):
            if hook == "nested":
                with app.app_context():
                    told.append(answered(app, asked | {"PATH_INFO": path}))
            told.append(answered(app, asked | {"PATH_INFO": path}))
            assert not flask.has_app_context()
            assert not flask.has_request_context()
        for name, listener in listeners.items():
            getattr(flask, name).disconnect(listener, app)
        seen.append(told)
        app.extensions["statsapi"].close()
    assert seen[0] == seen[1]


PATCHED = [
    *("full_dispatch_request", "preprocess_request", "dispatch_request", "finalize_request", "make_response"),
    *("process_response", "do_teardown_request", "do_teardown_appcontext", "handle_user_exception", "ensure_sync"),
]


@pytest.mark.parametrize("place", ["application", "class", "Flask"])
@pytest.mark.parametrize("name", PATCHED)
def test_methods_that_somebody_replaced_are_called_as_by_flask(
    clock: FakeClock, place: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tools that trace requests do it, with the name and module of the method before: for each request."""
    seen = []
    for short in (True, False):
        app = make(clock, shortcuts=short)
        app.after_request(lambda answer: answer)
        told: list[Any] = []
        owner: Any = {"application": app, "class": type(app), "Flask": Flask}[place]
        before = getattr(owner, name)

        @functools.wraps(before)
        def called(*values: Any, told: list[Any] = told, before: Any = before, **more: Any) -> Any:
            told.append(name)
            return before(*values, **more)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, called)
            for path in ("/statistics", "/statistics", "/no", "/statistics", "/statistics"):
                told.append(
                    answered(app, {"REQUEST_METHOD": "GET", "body": b"", "framing": "length", "PATH_INFO": path})
                )
        seen.append(told)
        app.extensions["statsapi"].close()
    assert seen[0] == seen[1]
    assert name in seen[0]


def test_an_application_as_it_comes_goes_the_short_way(app: Flask) -> None:
    """Nothing of our own is taken for a method that somebody replaced."""
    client = app.test_client()
    for _ in range(3):
        assert client.get("/statistics").status_code == 200
    environ = EnvironBuilder(path="/statistics").get_environ()
    assert app.known_rule(environ) is not None  # type: ignore[attr-defined]


class OwnRequest(flask.Request):
    pass


class OwnResponse(Response):
    default_mimetype = "text/own"


class OwnSessions(SecureCookieSessionInterface):
    def get_cookie_name(self, app: Flask) -> str:
        return "own"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "setting", ["nothing", "secret_key", "SECRET_KEY", "session_interface", "request_class", "response_class"]
)
def test_an_application_may_be_set_up_as_flask_has_it(clock: FakeClock, setting: str, late: bool) -> None:
    """Sessions, and classes of request and answer, of whoever embeds it: the same answers and cookies, also where the
    key is set when the service has answered already.
    """
    seen = []
    for short in (True, False):
        app = make(clock, shortcuts=short)

        def count() -> dict[str, int]:
            flask.session["n"] = flask.session.get("n", 0) + 1
            return {"n": flask.session["n"]}

        app.add_url_rule("/count", "count", count)
        app.add_url_rule("/kind", "kind", lambda: type(flask.request).__mro__[0].__name__.strip("_"))
        client = app.test_client()
        if late and "class" not in setting:
            for _ in range(3):
                client.get("/statistics")
        if setting == "SECRET_KEY":
            app.config["SECRET_KEY"] = "x"
        elif setting != "nothing":
            app.secret_key = "x"
        if setting == "session_interface":
            app.session_interface = OwnSessions()
        elif setting == "request_class":
            app.request_class = OwnRequest
        elif setting == "response_class":
            app.response_class = OwnResponse
        told: list[Any] = []
        for path in ("/count", "/count", "/statistics", "/statistics", "/kind", "/kind", "/count"):
            answer = client.get(path)
            told.append((answer.status_code, path == "/statistics" or answer.text, answer.mimetype))
            told.append([value.partition("=")[0] for value in answer.headers.getlist("Set-Cookie")])
        seen.append(told)
        app.extensions["statsapi"].close()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("where", ["view", "before", "after"])
def test_coroutines_are_run_as_flask_runs_them(clock: FakeClock, where: str) -> None:
    """Flask's own way for an asynchronous view or hook, the first time and later."""
    seen = []
    for short in (True, False):
        app = make(clock, shortcuts=short)
        app.async_to_sync = lambda func: lambda *values: asyncio.run(func(*values))  # type: ignore[method-assign]

        async def view() -> str:
            return "looked"

        async def before() -> None:
            flask.g.before = True

        async def after(answer: Response) -> Response:
            answer.headers["X-After"] = "1"
            return answer

        if where == "view":
            app.add_url_rule("/statistics2", "look", view)
        elif where == "before":
            app.before_request(before)
        else:
            app.after_request(after)
        asked = {"REQUEST_METHOD": "GET", "body": b"", "framing": "length"}
        seen.append([answered(app, asked | {"PATH_INFO": path}) for path in ("/statistics", "/statistics2") * 3])
        app.extensions["statsapi"].close()
    assert seen[0] == seen[1]


def test_an_upgrade_is_no_other_request(app: Flask) -> None:
    """A request for a WebSocket is refused as Flask refuses it, on a path that is known too."""
    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/statistics", "body": b"", "framing": "length"}
    upgrade = asked | {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}
    statuses = [answered(app, each)[0] for each in (asked, asked, upgrade, asked)]
    assert statuses == ["200 OK", "200 OK", "400 BAD REQUEST", "200 OK"]


def test_a_preserved_context_is_kept(app: Flask) -> None:
    """Flask's test client can look at the request when it has been answered."""
    with app.test_client() as client:
        for _ in range(2):
            assert client.get("/statistics?window=5m").status_code == 200
            assert flask.request.args["window"] == "5m"
            assert flask.request.path == "/statistics"


def test_the_switch_leaves_flask_as_it_comes(clock: FakeClock) -> None:
    """Without the shortcuts no method of Flask is ours but the one that makes redirects relative."""
    app = make(clock, shortcuts=False)
    ours = {name for kind in type(app).__mro__ if kind.__module__.startswith("statsapi") for name in vars(kind)}
    assert {name for name in ours if not name.startswith("__")} == {"json_provider_class", "raise_routing_exception"}
    assert (app.request_class, app.response_class) == (flask.Request, flask.Response)
    app.extensions["statsapi"].close()
