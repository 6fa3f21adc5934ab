"""Log lines: one a request where that is on, plain or JSON, Gunicorn's own in the same form."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, g
from flask.testing import FlaskClient

from statsapi.api.logs import JsonFormatter, PlainFormatter
from statsapi.app import create_app
from statsapi.config import Settings
from tests.fakes import NOW, FakeClock
from tests.servers import ROOT

EVENT = {"timestamp": NOW, "value": 1.0}


class Lines(logging.Handler):
    """Keeps what was logged: as plain text, as the object that JSON makes of it, as a plain line of the server's."""

    def __init__(self) -> None:
        super().__init__()
        self.plain: list[str] = []
        self.json: list[dict[str, Any]] = []
        self.formatted: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.plain.append(record.getMessage())
        self.json.append(json.loads(JsonFormatter().format(record)))
        self.formatted.append(PlainFormatter(logging.Formatter("[time] %(message)s")).format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("statsapi")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def noting_app(clock: FakeClock) -> Iterator[Flask]:
    app = create_app(Settings(journal="memory://", access_log=True), clock_us=clock, background=False)
    yield app
    app.extensions["statsapi"].close()


def words_of(line: str) -> dict[str, str]:
    """A plain line's fields, as a program would split them."""
    head, *words = shlex.split(line)
    assert head == "request"
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("given", ["a", "x" * 128, "!~", "01JD-trace/span:7"])
def test_a_usable_request_id_is_taken_over(client: FlaskClient, given: str) -> None:
    """1 to 128 printable ASCII characters without spaces come back as they are, on errors too."""
    for path, status in (("/healthz", 200), ("/statistics?windw=1", 422), ("/nothing", 404)):
        answer = client.get(path, headers={"X-Request-ID": given})
        assert answer.status_code == status
        assert answer.headers.getlist("X-Request-ID") == [given]


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "\x7f", "é", "a\tb", None])
def test_another_request_id_is_made(client: FlaskClient, given: str | None) -> None:
    """A missing or unusable request id is replaced by a new one for each request."""
    headers = {} if given is None else {"X-Request-ID": given}
    made = {client.get("/healthz", headers=headers).headers["X-Request-ID"] for _ in range(20)}
    assert len(made) == 20
    assert given not in made
    assert all(re.fullmatch(r"[\x21-\x7e]{1,128}", request_id) for request_id in made)


def test_requests_are_not_logged_unless_told(client: FlaskClient, lines: Lines) -> None:
    """The default: the proxy in front logs them."""
    client.post("/event", json=EVENT)
    assert lines.plain == []


def test_a_request_is_one_line(noting_app: Flask, lines: Lines) -> None:
    """Id, method, path, status, duration, bytes and key id; the same fields in both forms, and no query."""
    client = noting_app.test_client()

    @noting_app.before_request
    def authenticate() -> None:
        g.key_id = "writer-1"

    answer = client.post("/event?dedup=true&", json=EVENT, headers={"X-Request-ID": "r1"}, buffered=True)
    refused = client.get("/statistics?token=geheim", buffered=True)
    assert (answer.status_code, refused.status_code) == (200, 422)
    first, second = map(words_of, lines.plain)
    assert first | {"duration_ms": ""} == {
        "request_id": "r1",
        "method": "POST",
        "path": "/event",
        "status": "200",
        "duration_ms": "",
        "bytes": str(len(answer.data)),
        "key_id": "writer-1",
    }
    assert float(first["duration_ms"]) > 0
    assert second["status"] == "422"
    assert "geheim" not in "".join(lines.plain) + json.dumps(lines.json)
    assert {name: str(lines.json[0][name]) for name in first} == first
    assert lines.json[0]["message"] == "request"
    assert lines.json[0]["status"] == 200
    assert datetime.fromisoformat(lines.json[0]["time"]).utcoffset() is not None


def test_a_stream_is_logged_at_its_end(noting_app: Flask, lines: Lines) -> None:
    """With the bytes that went out, also where the client leaves before the end, or never begins to read."""
    client = noting_app.test_client()
    client.post("/events", json=[EVENT] * 40_000, buffered=True)
    exported = client.get("/events?format=csv", buffered=True)
    assert words_of(lines.plain[-1])["bytes"] == str(len(exported.data))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/events", "QUERY_STRING": "format=csv"}
    environ |= {"SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    for pieces in (1, 0):
        answer: Any = noting_app(dict(environ), lambda status, headers, exc_info=None: None)
        sent = sum(len(next(answer)) for _ in range(pieces))
        answer.close()
        assert words_of(lines.plain[-1])["bytes"] == str(sent)
    assert len(lines.plain) == 4
    client.head("/statistics", buffered=True)
    assert words_of(lines.plain[-1])["bytes"] == "0"


@pytest.mark.parametrize("path", ["/a b", '/"', "/x=y", "/a\nrequest status=200", "/é", "/\x1b[31m", "/%ff"])
def test_a_path_cannot_forge_a_line(noting_app: Flask, lines: Lines, path: str) -> None:
    """Whatever a path holds, a line stays one line, one word a field."""
    noting_app.test_client().get(quote(path, safe="/%"), buffered=True)
    (line,) = lines.plain
    assert line.isprintable()
    assert line.isascii()
    assert words_of(line)["status"] == "404"


def test_a_fault_carries_its_request_id(clock: FakeClock, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both forms; in JSON the traceback is one line."""
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)

    @app.get("/fault")
    def fault() -> str:
        raise ZeroDivisionError("by\ntest")

    answer = app.test_client().get("/fault", headers={"X-Request-ID": "r2"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "r2"
    (line,) = lines.json
    assert line["request_id"] == "r2"
    assert line["level"] == "ERROR"
    assert line["exception"].startswith("Traceback")
    (text,) = lines.formatted
    assert re.match(r"\[time\] Exception on /fault \[GET\] request_id=r2\nTraceback ", text), text


def test_what_is_logged_on_the_way_carries_the_request_id(clock: FakeClock, lines: Lines) -> None:
    """Warnings too, in both forms, an unusual id quoted; what is logged outside of a request has none. A message of
    several lines or with control characters becomes one line without.
    """
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)

    @app.get("/warns")
    def warns() -> str:
        logging.getLogger("statsapi").warning("something\n  odd: %s", "\x1b[1m")
        return ""

    for given in ("r3", 'a="b"'):
        app.test_client().get("/warns", headers={"X-Request-ID": given})
    logging.getLogger("statsapi").warning("on its own")
    assert lines.formatted == [
        "[time] something odd: ?[1m request_id=r3",
        '[time] something odd: ?[1m request_id="a=\\"b\\""',
        "[time] on its own",
    ]
    assert [line.get("request_id") for line in lines.json] == ["r3", 'a="b"', None]


def test_each_line_of_ours_begins_as_the_servers_do() -> None:
    """With a capital, as all of Gunicorn's, or with the name of a thing: our lines stand among its own."""
    begins = re.compile(r"\blog(?:ger)?\.(?:info|warning|error|exception)\(\s*f?\"([^\"]*)|promise = f?\"([^\"]*)")
    found = [
        text
        for path in sorted((ROOT / "statsapi").rglob("*.py"))
        if path.parent.name != "client"  # which logs in other programs
        for texts in begins.findall(path.read_text())
        for text in texts
        if text
    ]
    assert len(found) > 30
    assert [text for text in found if not (text[0].isupper() or text[0] in "%{")] == []
