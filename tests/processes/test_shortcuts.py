"""One server by the shortcuts, one without: the same bytes to both, the same bytes back."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import Server, gunicorn_server

BODY = b'{"timestamp": %d, "value": 42.5}' % time.time()  # of now: an older event is told how old it is
GET = b"GET /statistics HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
LAST = b"GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
    len(BODY),
    BODY,
)

# Each is one connection: pieces that are sent one after the other, each when the answer to the one before has come.
CONVERSATIONS: dict[str, list[bytes]] = {
    "one after the other": [GET, GET, GET, POST, POST, POST, GET, LAST],
    "pipelined": [GET + GET + GET + POST + POST + POST + GET + LAST],
    "a body behind its head": [POST[:-5], POST[-5:] + POST[:-60], POST[-60:] + LAST],
    "HEAD, OPTIONS, 405, 404": [
        request.replace(b"GET", method) for method in (b"HEAD", b"OPTIONS", b"PUT") for request in (GET, GET, GET)
    ]
    + [LAST],
    "chunked": [CHUNKED, CHUNKED, CHUNKED + LAST],
    "half a body": [POST, POST, POST, POST[:-10]],
    "HTTP/1.0": [GET.replace(b"1.1", b"1.0")],
    "HTTP/1.0 kept alive": [GET.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n")] * 4 + [LAST],
    "a large header": [GET.replace(b"Host", b"X-A: " + b"x" * 8000 + b"\r\nHost")] * 4 + [LAST],
    "too large a header": [GET, GET, GET, GET.replace(b"Host", b"X-A: " + b"x" * 9000 + b"\r\nHost")],
    "no request": [GET, GET, b"NONSENSE\r\n\r\n"],
    "an id of its own": [GET.replace(b"Host", b"X-Request-ID: %d\r\nHost" % number) for number in range(4)] + [LAST],
    "a body that is not read": [
        b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
        b"GET /statistics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
    ]
    * 4
    + [LAST],
    "Expect": [POST.replace(b"Host", b"Expect: 100-continue\r\nHost")] * 4 + [LAST],
}


SEED = {"PYTHONHASHSEED": "0"}  # Allow lists methods in the order of a set


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(
                gunicorn_server(tmp_path_factory.mktemp(switch), workers=1, env={"STATSAPI_SHORTCUTS": switch, **SEED})
            )
            for switch in ("on", "off")
        )
        yield one, other


def said(server: Server, pieces: list[bytes]) -> bytes:
    """All that comes back until the connection closes, but for what is made up for each answer."""
    back = b""
    with server.connect() as sock:
        for piece in pieces:
            sock.sendall(piece)
            if piece is pieces[-1]:
                break
            # Half a request, or HEAD: a length without a body.
            sock.settimeout(0.3 if piece == POST[:-5] or piece.startswith(b"HEAD") else 30)
            try:
                answer = b""
                while not _is_whole(answer):
                    answer += sock.recv(65536) or pytest.fail(f"closed after {back + answer!r}")
            except TimeoutError:  # what was sent was no whole request
                pass
            back += answer
        sock.settimeout(30)
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(65536):
            back += piece
    back = re.sub(rb"Date: [^\r]*|server_time\":\"[^\"]*|X-Request-ID: [0-9a-f]{16}-[0-9a-f]+", b"made up", back)
    return re.sub(rb"HTTP/1.1 100 Continue\r\n\r\n", b"", back)


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if head.endswith(b"100 Continue"):
        return _is_whole(body)
    length = re.search(rb"Content-Length: (\d+)", head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_both_say_the_same(servers: tuple[Server, Server], name: str) -> None:
    """Byte for byte, and the connection closes after the same answer."""
    one, other = (said(server, CONVERSATIONS[name]) for server in servers)
    assert one == other
    assert one.startswith(b"HTTP/1.")


def test_a_worker_ends_after_so_many_requests(tmp_path: Path) -> None:
    """--max-requests: every request is answered, the last one of a worker with Connection: close, and others follow."""
    with gunicorn_server(tmp_path, workers=1, app="tests.servers:app", args=["--max-requests", "10"]) as server:
        pids: list[int] = []
        while len(pids) < 60:
            with server.client() as client:
                for _ in range(7):
                    pids.append(client.request("GET", "/pid")[1])
        assert len(set(pids)) >= 4
        assert max(pids.count(pid) for pid in set(pids)) <= 12
