"""Requests whose heads are known: what Gunicorn itself reads, and the environ that it makes, for each of them."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import gunicorn.http
import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from statsapi.server.gunicorn_app import _Config as ServeConfig
from statsapi.shortcuts import gunicorn_side
from statsapi.shortcuts.gunicorn_side import HEADS_KEPT_MAX, Parser, can_know, create, quicken

CREATE = wsgi.create


def settings(kind: type[Config] = Config, **changed: Any) -> Config:
    """Gunicorn's, as gunicorn_conf.py sets them."""
    cfg = kind()
    ours = {"secure_scheme_headers": {}, "forwarder_headers": "", "limit_request_line": 8190, "limit_request_fields": 8}
    for name, value in {**ours, **changed}.items():
        cfg.set(name, value)
    return cfg


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    gunicorn_side._known.clear()
    gunicorn_side._once.clear()
    yield
    gunicorn_side._known.clear()


class Wire:
    """A socket that gives what it is told to, piece by piece, and then ends; it keeps what it is sent."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.left = [piece for piece in pieces if piece]
        self.sent = b""

    def recv(self, size: int) -> bytes:
        if not self.left:
            return b""
        piece, self.left[0] = self.left[0][:size], self.left[0][size:]
        if not self.left[0]:
            self.left.pop(0)
        return piece

    def send(self, data: bytes) -> None:
        self.sent += data

    def gettimeout(self) -> None:
        return None

    def settimeout(self, timeout: float | None) -> None:
        """Nothing here waits."""


def conversation(
    parser_class: Any, make: Any, cfg: Config, pieces: Sequence[bytes], client: Any, server: Any, read: int
) -> list[Any]:
    """What each request of a connection was read as, and how that ended."""
    wire = Wire(pieces)
    parser = parser_class(cfg, wire, client)
    told: list[Any] = []
    try:
        while True:
            request = next(parser)
            response, environ = make(request, wire, client, server, cfg)
            body = [environ["wsgi.input"].read(read), environ["wsgi.input"].readline()] if read >= 0 else []
            shown = {name: value for name, value in environ.items() if isinstance(value, str | bool | tuple)}
            told.append(shown | {"length": len(environ)} | {"own": environ["gunicorn.socket"] is wire})
            told.append((callable(environ["wsgi.early_hints"]), environ["wsgi.file_wrapper"], response.req is request))
            told.append((request.method, request.uri, request.path, request.query, request.fragment, request.version))
            told.append((request.headers, request.trailers, request.scheme, request.req_number, request.peer_addr))
            told.append((request.should_close(), request.must_close, body, wire.sent, parser.finish_body(deadline=9e9)))
            request.must_close = False
            if request.headers:
                environ["HTTP_ADDED"] = "by the application"
    except Exception as error:  # noqa: BLE001 - both must end alike
        told.append((type(error), str(error)))
    return told


HEADS = [
    b"GET /statistics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    b"GET /caf%C3%A9?a=b#c HTTP/1.1\r\nHost: b:81\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nab\ncd",
    b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
    b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"POST /event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: a\r\n\r\n",
    b"POST /event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /event HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"POST /event HTTP/1.1\r\nHost: a\r\nExpect: other\r\nContent-Length: 2\r\n\r\nab",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX_A: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-B: \xe9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-L: " + b"x" * 4000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(20)) + b"\r\n",
    b"NONSENSE\r\n\r\n",
]


@given(
    heads=st.lists(st.sampled_from(HEADS[:10]) | st.sampled_from(HEADS), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    client=st.sampled_from([("127.0.0.1", 5), ("::1", 5, 0, 0), "", b"/s"]),
    server=st.sampled_from([("127.0.0.1", 80), "/run/s", "unix:/s"]),
    read=st.sampled_from([-1, 1, 2, 100]),
)
def test_a_known_head_is_read_as_gunicorn_reads_it(
    heads: list[bytes], cuts: list[int], client: Any, server: Any, read: int
) -> None:
    """However the bytes come, and whichever heads came before, on this connection or another: the same requests, the
    same environ, the same body, and the same end.
    """
    data = b"".join(heads)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    torn = [data[low:high] for low, high in itertools.pairwise(bounds)]
    cfg = settings()
    for pieces in (heads, heads, torn):
        asked = cfg, pieces, client, server, read
        assert conversation(Parser, create, *asked) == conversation(RequestParser, CREATE, *asked)


def test_a_head_is_known_from_the_third_time_on() -> None:
    """So heads that each have an id of their own drive no other head out."""
    head, cfg = HEADS[7], settings()
    parser = Parser(cfg, Wire([head] * 4), ("127.0.0.1", 5))
    assert [next(parser).known is not None for _ in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("head", [HEADS[5], *HEADS[10:17], HEADS[18], *HEADS[21:]])
def test_what_is_unusual_is_never_known(head: bytes) -> None:
    """Heads that are at fault, chunked, too long or of another protocol are read by Gunicorn each time."""
    cfg = settings()
    for _ in range(4):
        parser = Parser(cfg, Wire([head]), ("127.0.0.1", 5))
        with suppress(Exception):
            next(parser)
    assert not gunicorn_side._known


def test_made_up_heads_fill_no_memory() -> None:
    """However many heads there are, this many are kept at most."""
    cfg = settings()
    for number in range(5 * HEADS_KEPT_MAX):
        head = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number
        parser = Parser(cfg, Wire([head] * 3), ("127.0.0.1", 5))
        assert [next(parser).path for _ in range(3)] == [f"/{number}"] * 3
    assert len(gunicorn_side._known) <= HEADS_KEPT_MAX
    assert len(gunicorn_side._once) <= gunicorn_side._ONCE_KEPT_MAX


@pytest.mark.parametrize(
    "changed",
    [
        {"secure_scheme_headers": {"X-FORWARDED-PROTO": "https"}},
        {"forwarder_headers": "SCRIPT_NAME"},
        {"proxy_protocol": "auto"},
        {"certfile": "a", "keyfile": "b"},
        {"pre_request": lambda worker, req: None},
    ],
)
def test_what_depends_on_who_sends_it_is_not_known(changed: dict[str, Any]) -> None:
    """Where Gunicorn believes some clients more than others, the scheme differs, or a hook may change a request before
    it is answered, each head is read.
    """
    for make_quick in (False, True):
        plain, other = settings(), settings(**changed)
        if make_quick:
            quicken(plain)
            quicken(other)
        assert can_know(plain)
        assert not can_know(other)


def test_what_is_done_to_a_request_stays_with_it() -> None:
    """Headers that a post_request hook or a worker class adds, and values of the environ: no later request of the same
    head has them.
    """
    cfg = settings()
    wire = Wire([HEADS[0]] * 6)
    parser = Parser(cfg, wire, ("127.0.0.1", 5))
    told = []
    for _ in range(6):
        request = next(parser)
        _, environ = create(request, wire, ("127.0.0.1", 5), ("127.0.0.1", 80), cfg)
        told.append((list(request.headers), list(request.trailers), "HTTP_ADDED" in environ, environ["HTTP_HOST"]))
        request.headers.append(("ADDED", "by a hook"))
        request.trailers.append(("ADDED", "by a hook"))
        environ["HTTP_ADDED"] = environ["HTTP_HOST"] = "by a hook"
    assert told == told[:1] * 6


def test_nothing_that_is_shared_can_be_changed() -> None:
    """A known request shares objects with the request that was read first. None of them can be changed, nor any value
    of its environ. Only its headers, which are copied, and the settings can.
    """
    cfg = settings()
    wire = Wire([HEADS[7]] * 4)
    parser = Parser(cfg, wire, ("127.0.0.1", 5))
    made = []
    for _ in range(4):
        request = next(parser)
        made.append((vars(request), create(request, wire, ("127.0.0.1", 5), ("127.0.0.1", 80), cfg)[1]))
    for one, other in zip(made[2], made[3], strict=True):
        shared = {
            name: value
            for name, value in one.items()
            if value is other[name] and not isinstance(value, str | bytes | int | float | bool | tuple | None)
        }
        assert set(shared) <= {"cfg", "unreader", "known", "gunicorn.socket", "wsgi.errors", "wsgi.file_wrapper"}


@pytest.mark.parametrize("kind", [Config, ServeConfig])
def test_quick_settings_are_those_of_gunicorn(kind: type[Config]) -> None:
    """Settings are plain attributes, under `gunicorn` and under `statsapi serve`. Each setting and property reads as
    before; one that is set later reads as it was set, or is refused in the same words.
    """
    plain, quick = settings(kind, bind="127.0.0.1:1"), settings(kind, bind="127.0.0.1:1")
    for _ in range(2):  # the second time changes nothing
        quicken(quick)
    assert set(quick.settings) <= set(vars(quick))
    assert isinstance(quick, kind)
    properties = [name for name, value in vars(Config).items() if isinstance(value, property)]
    for name in [*plain.settings, *properties]:
        theirs, ours = getattr(plain, name), getattr(quick, name)
        assert theirs is ours or theirs == ours or (callable(theirs) and theirs.__code__ is ours.__code__), name
    for cfg in (plain, quick):
        cfg.set("graceful_timeout", 7)
        assert cfg.graceful_timeout == 7
        with pytest.raises(AttributeError):
            cfg.graceful_timeout = 8
        with pytest.raises(AttributeError):
            cfg.no_such_setting  # noqa: B018
    refusals = []
    for cfg in (plain, quick):
        with pytest.raises(ValueError, match="invalid") as refused:
            cfg.set("workers", "invalid")
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


def test_settings_that_are_looked_up_in_another_way_stay_so() -> None:
    """A configuration with a look-up of its own is left alone."""

    class Own(Config):  # type: ignore[misc]  # Gunicorn has no types
        def __getattr__(self, name: str) -> Any:
            return 3 if name == "threads" else super().__getattr__(name)

    cfg = settings(Own)
    quicken(cfg)
    assert (cfg.threads, type(cfg)) == (3, Own)


def test_errors_go_to_the_log_as_it_is_now() -> None:
    """wsgi.errors of a known head writes where Gunicorn's log goes when it is written."""
    cfg = settings(errorlog="/dev/null")
    wire = Wire([HEADS[0]] * 4)
    parser = Parser(cfg, wire, ("127.0.0.1", 5))
    environs = [create(next(parser), wire, ("127.0.0.1", 5), ("127.0.0.1", 80), cfg)[1] for _ in range(4)]
    reopened = io.StringIO()
    with closing(logging.StreamHandler(io.StringIO())) as handler:
        log = logging.getLogger("gunicorn.error")
        log.addHandler(handler)
        handler.setStream(reopened)
        for environ in environs[2:]:
            environ["wsgi.errors"].write("a line\n")
            environ["wsgi.errors"].flush()
        log.removeHandler(handler)
    assert reopened.getvalue() == "a line\n" * 2


def test_gunicorn_makes_its_parser_by_the_name_that_is_replaced() -> None:
    """`gunicorn.http.get_parser` looks for RequestParser where the worker puts another."""
    assert gunicorn.http.RequestParser is RequestParser
    assert isinstance(gunicorn.http.get_parser(settings(), Wire([]), ("127.0.0.1", 5)), RequestParser)
