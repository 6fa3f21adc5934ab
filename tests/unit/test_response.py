"""Gunicorn's answers in one write: byte for byte what Gunicorn itself sends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn import util
from gunicorn.http import wsgi
from hypothesis import given
from hypothesis import strategies as st

from statsapi.shortcuts.response import OneWriteResponse

STOCK = next(kind for kind in OneWriteResponse.__mro__ if kind.__module__ == "gunicorn.http.wsgi")
NAMES = st.sampled_from(
    ["Content-Type", "content-length", "Content-Length", "X-Request-ID", "Connection", "Upgrade", "Keep-Alive", "Vary"]
) | st.text(max_size=5)
VALUES = st.sampled_from(["application/json", "5", "0", "keep-alive", "upgrade", "websocket", " a ", "é", "a\r\nb", ""])
HEADERS = st.lists(st.tuples(NAMES, VALUES | st.text(max_size=5)), max_size=5)


class Sink:
    """A socket that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(bytes(data))


def answered(
    kind: Any, method: str, version: tuple[int, int], status: str, headers: list[tuple[str, str]], pieces: list[bytes],
    closing: bool,
) -> tuple[bytes, int, str]:  # fmt: skip
    """What goes out, in how many writes, and what was raised."""
    sink = Sink()
    request = SimpleNamespace(method=method, version=version, should_close=lambda: closing)
    response = kind(request, sink, SimpleNamespace(protocol="http"))
    try:
        response.start_response(status, headers)
        for piece in pieces:
            response.write(piece)
        response.close()
        raised = f"{response.sent} {response.should_close()}"
    except Exception as error:  # noqa: BLE001 - both must raise the same
        raised = f"{type(error).__name__}: {error}"
    return b"".join(sink.sent), len(sink.sent), raised


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statsapi.shortcuts.response.time.time", lambda: 1_795_767_600.4)
    date = util.http_date(1_795_767_600)
    monkeypatch.setattr(wsgi.util, "http_date", lambda timestamp=None: date)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    version=st.sampled_from([(1, 0), (1, 1)]),
    status=st.sampled_from(["200 OK", "204 NO CONTENT", "304 NOT MODIFIED", "422 ", "100 Continue", "2", "200 a\nb"]),
    headers=HEADERS,
    body=st.lists(st.binary(max_size=6), max_size=3),
    measured=st.booleans(),
    closing=st.booleans(),
)
def test_what_goes_out_is_what_gunicorn_sends(
    method: str, version: tuple[int, int], status: str, headers: list[tuple[str, str]], body: list[bytes],
    measured: bool, closing: bool,
) -> None:  # fmt: skip
    """Whatever head, body and faults: the same bytes, the same errors, and the connection closes where it would."""
    if measured:
        headers = [*headers, ("Content-Length", str(sum(map(len, body))))]
    asked = method, version, status, headers, body, closing
    ours, stock = answered(OneWriteResponse, *asked), answered(STOCK, *asked)
    assert (ours[0], ours[2]) == (stock[0], stock[2])
    assert ours[1] <= stock[1]


def test_an_answer_of_known_length_is_one_write() -> None:
    """Twice, as names are known from the second time on; a value that must not go out is still refused."""
    headers = [("Content-Type", "application/json"), ("Content-Length", "2"), ("X-Request-ID", "a-1")]
    for _ in range(2):
        asked = "GET", (1, 1), "200 OK", headers, [b"{}"], False
        sent, writes, _ = answered(OneWriteResponse, *asked)
        assert (writes, sent) == (1, answered(STOCK, *asked)[0])
    split = [*headers[:2], ("X-Request-ID", "a\r\nSet-Cookie: b")]
    assert answered(OneWriteResponse, "GET", (1, 1), "200 OK", split, [b"{}"], False)[2].startswith("InvalidResponse")
