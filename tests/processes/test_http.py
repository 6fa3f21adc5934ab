"""What only a real server and a raw socket show: bodies that break off, chunks, what Gunicorn itself refuses."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, gunicorn_server

LIMIT_BYTES = 100_000
ROW = b"1%09d,1\n"
HEADER = b"timestamp,value\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker on a SQLite journal, whose bodies may have LIMIT_BYTES."""
    env = {"STATSAPI_MAX_BODY_BYTES": str(LIMIT_BYTES)}
    with gunicorn_server(tmp_path_factory.mktemp("http"), workers=1, env=env) as server:
        yield server


def exchange(server: Server, request: bytes, *, then_close: bool = False) -> tuple[int, str, Any]:
    """Send these bytes as they are; the answer's status, media type and decoded JSON."""
    with server.connect() as sock:
        sock.sendall(request)
        if then_close:
            sock.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, response.headers["Content-Type"], json.loads(response.read())


def posting(headers: str, body: bytes) -> bytes:
    return f"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n{headers}\r\n\r\n".encode() + body


def chunked(*chunks: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return posting("Transfer-Encoding: chunked", framed)


def held(server: Server) -> int:
    total: int = server.request("GET", "/debug/events?limit=1")[1]["total_events"]
    return total


def assert_refused(answer: tuple[int, str, Any], status: int, code: str) -> None:
    assert answer[:2] == (status, "application/problem+json")
    assert answer[2]["type"] == f"urn:statsapi:problem:{code}"
    assert answer[2]["status"] == status
    assert answer[2]["detail"]


def test_a_body_that_breaks_off_is_not_recorded(server: Server) -> None:
    """A client that goes away in the middle gets 400, not half of its events; its key stays free for the retry."""
    before = held(server)
    body = HEADER + b"".join(ROW % i for i in range(10))
    headers = f"Idempotency-Key: broken\r\nContent-Length: {len(body)}"
    assert_refused(exchange(server, posting(headers, body[:-60]), then_close=True), 400, "bad-request")
    assert_refused(exchange(server, chunked(body)[:-20], then_close=True), 400, "bad-request")
    assert held(server) == before
    assert exchange(server, posting(headers, body))[2]["expired"] == 10


def test_a_chunked_body_beyond_the_limit_is_refused_whole(server: Server) -> None:
    """Without a Content-Length the limit holds to the byte, and nothing is cut off at it."""
    before = held(server)
    body = HEADER + b"".join(ROW % i for i in range((LIMIT_BYTES - len(HEADER)) // len(ROW % 0)))
    body += b"\n" * (LIMIT_BYTES - len(body))
    pieces = [body[i : i + 5000] for i in range(0, len(body), 5000)]
    assert_refused(exchange(server, chunked(*pieces, b"\n")), 413, "request-entity-too-large")
    assert held(server) == before
    assert exchange(server, chunked(*pieces))[0] == 200


@pytest.mark.parametrize("framed", [b"zz\r\n1\r\n0\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n"], ids=["size", "length"])
def test_malformed_chunks_are_the_clients_fault(server: Server, framed: bytes) -> None:
    """A chunk that cannot be read is a 400, and nothing that follows is taken for a request."""
    assert_refused(exchange(server, posting("Transfer-Encoding: chunked", framed)), 400, "bad-request")
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad-request"),
        (b"POST /event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n", 501, "not-implemented"),
        (b"POST /event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: zstd, chunked\r\n\r\n", 501, "not-implemented"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: rot13\r\n\r\n", 501, "not-implemented"),
        (b"POST /event HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417, "expectation-failed"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri-too-long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "request-header-fields-too-large"),
    ],
    ids=["line", "version", "length", "coding", "codings", "no coding", "expectation", "url", "header"],
)
def test_what_gunicorn_refuses_is_a_problem_too(server: Server, request_bytes: bytes, status: int, code: str) -> None:
    """A request that never reaches the application is answered in the one shape all errors have."""
    assert_refused(exchange(server, request_bytes), status, code)


def test_a_worker_rests_when_nothing_comes(tmp_path: Path) -> None:
    """After a burst of connections, which workers leave to each other, none of them goes on polling."""
    with gunicorn_server(tmp_path, workers=2) as server, ExitStack() as connections:
        socks = [connections.enter_context(server.connect()) for _ in range(8)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for sock in socks:
            assert sock.recv(65_536)
        before, started = server.cpu_seconds(), time.monotonic()
        time.sleep(1.0)  # there is no clock to pass: what is measured is what happens in a second of real time
        assert server.cpu_seconds() - before < 0.5 * (time.monotonic() - started)


# A body that nobody reads


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "closed"])
@pytest.mark.parametrize("path", ["/events", "/event", "/metrics/job/j", "/nowhere"])
def test_a_client_that_sends_all_of_a_refused_body_sees_why(server: Server, path: str, keep: bool) -> None:
    """16 MB to a door that takes less: they are thrown away, and the answer arrives."""
    body = b" " * 16_000_000
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    head += "\r\n" if keep else "Connection: close\r\n\r\n"
    for _ in range(5):
        with server.connect() as sock:
            sock.sendall(head.encode() + body)
            response = http.client.HTTPResponse(sock)
            response.begin()
            assert response.status == (404 if path == "/nowhere" else 413)
            assert json.loads(response.read())["detail"]
            assert not sock.recv(1)  # closed, and nothing of the body was taken for a request


def test_a_client_that_never_ends_is_left(server: Server) -> None:
    """After two seconds, or 32 MiB, and nobody else waits for that."""
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    with server.connect() as sock:
        sock.sendall(head + b" " * 70_000)
        began = time.monotonic()
        longest_s = 0.0
        with pytest.raises(OSError):  # noqa: PT011, PT012 (reset or broken pipe, as it comes)
            while time.monotonic() - began < 10:
                sock.sendall(b" ")
                time.sleep(0.05)
                asked = time.monotonic()
                assert server.request("GET", "/healthz")[0] == 200
                longest_s = max(longest_s, time.monotonic() - asked)
        assert 1.5 < time.monotonic() - began < 6
        assert longest_s < 1
    with server.connect() as sock, pytest.raises(OSError):  # noqa: PT011, PT012
        sock.sendall(head)
        for _ in range(1000):
            sock.sendall(b" " * 1_000_000)
    assert server.request("GET", "/healthz")[0] == 200


def test_a_client_that_does_not_close_keeps_nobody_waiting(server: Server) -> None:
    """It asked for `Connection: close`, got its answer and leaves its end open: others are answered meanwhile."""
    with ExitStack() as connections:
        for _ in range(3):
            sock = connections.enter_context(server.connect())
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert sock.recv(65_536)
            began = time.monotonic()
            assert server.request("GET", "/healthz")[0] == 200
            assert time.monotonic() - began < 1
