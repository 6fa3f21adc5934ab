"""Shortcuts through Gunicorn: parsing a request, the environ, the settings, and the threads. The package's docstring
has the gain of each.

It overrides private names of Gunicorn. tests/processes/test_serving.py lists them.
"""

from __future__ import annotations

import io
import os
import queue
import selectors
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import gunicorn.http
from gunicorn.config import Config, PreRequest
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers import gthread

from statsapi.shortcuts.response import OneWriteResponse

# Request heads that were parsed before are kept: a keep-alive client or proxy sends the same head each time. A longer
# head is parsed by Gunicorn each time. With these bounds the kept heads take 1 MB at most.
HEADS_KEPT_MAX: Final = 256
_HEAD_MAX_BYTES: Final = 2048

# A head is kept only when it comes a second time: heads with a new id in each request would displace the others.
_ONCE_KEPT_MAX: Final = 1024

# Headers that decide how the body is sent, or whether this is HTTP/1 at all.
_NEVER_KNOWN: Final = ("TRANSFER-ENCODING", "EXPECT", "UPGRADE")

_END: Final = b"\r\n\r\n"


class _KnownHead:
    """Gunicorn's parse of a head, which is the same for each request with it. `environs`: Gunicorn's environ for that
    head by the listener's address, without the keys that belong to the connection.
    """

    __slots__ = ("environs", "fields", "length_bytes")

    def __init__(self, request: Request) -> None:
        self.fields = {name: value for name, value in vars(request).items() if name not in _OF_THE_CONNECTION}
        self.fields["headers"] = request.headers.copy()  # the request still goes through hooks
        self.length_bytes = next((int(value) for name, value in request.headers if name == "CONTENT-LENGTH"), 0)
        self.environs: dict[Any, dict[str, Any]] = {}


_OF_THE_CONNECTION: Final = ("unreader", "peer_addr", "remote_addr", "req_number", "body")

_known: dict[bytes, _KnownHead] = {}
_once: set[int] = set()


class KnownRequest(Request):  # type: ignore[misc]  # Gunicorn has no types
    """A request whose head was parsed before, and is not parsed again.

    Only a head that Gunicorn parsed without an error is kept, and only if its meaning depends on the head and the
    settings alone: no chunked body, no Expect, no headers of a trusted proxy (see `can_know`).
    """

    known: _KnownHead | None = None

    def __init__(self, cfg: Any, unreader: Any, peer_addr: Any, req_number: int = 1) -> None:
        data = unreader.read()
        end = data.find(_END) + 4
        head = data[:end]
        known = _known.get(head) if end > 4 else None
        if known is None:
            unreader.unread(data)
            super().__init__(cfg, unreader, peer_addr, req_number)
            self.closes = super().should_close()
            if 4 < end <= _HEAD_MAX_BYTES and not head.startswith(b"\r\n"):
                self._note(head)
            return
        self.__dict__.update(known.fields)
        self.headers: list[tuple[str, str]] = known.fields[
            "headers"
        ].copy()  # a hook or a worker class may add to its own
        self.known = known
        self.unreader = unreader
        self.peer_addr = self.remote_addr = peer_addr
        self.req_number = req_number
        length_bytes = known.length_bytes
        self.trailers: list[tuple[str, str]] = []
        if length_bytes > len(data) - end:
            unreader.unread(data[end:])
            self.set_body_reader()
            return
        stop = end + length_bytes
        self.body = io.BytesIO(data[end:stop])  # all of it came with the head
        if stop < len(data):
            unreader.unread(data[stop:])

    def should_close(self) -> bool:
        """Whether the client wants the connection closed; computed once."""
        return bool(self.must_close or self.closes)

    def _note(self, head: bytes) -> None:
        if any(name in _NEVER_KNOWN for name, _ in self.headers):
            return
        mark = hash(head)
        if mark not in _once:
            if len(_once) >= _ONCE_KEPT_MAX:
                _once.clear()
            _once.add(mark)
            return
        if len(_known) >= HEADS_KEPT_MAX:
            _known.clear()
        _known[head] = _KnownHead(self)


class Parser(RequestParser):  # type: ignore[misc]  # Gunicorn has no types
    """Parses requests; one with a known head takes the shortcut."""

    mesg_class = KnownRequest

    def finish_body(self, deadline: float | None = None, max_bytes: int | None = None) -> bool:
        """Skip this for a body that came with its head: nothing of it is left on the socket."""
        if self.mesg is not None and type(self.mesg.body) is io.BytesIO:
            return True
        return bool(super().finish_body(deadline, max_bytes))


class _Errors:
    """wsgi.errors, opened only when written to: log files may have been reopened since the head was kept."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        return getattr(wsgi.WSGIErrorsWrapper(self._cfg), name)


def create(
    req: Any, sock: Any, client: Any, server: Any, cfg: Any, response_class: Any = None, response_args: Any = ()
) -> tuple[Any, dict[str, Any]]:
    """Replaces `gunicorn.http.wsgi.create`: the environ of a known head is a copy of the one that Gunicorn made."""
    known = getattr(req, "known", None)
    if known is None or response_class is not None or not isinstance(client, tuple | str | bytes):
        return _create(  # type: ignore[no-any-return]
            req, sock, client, server, cfg, response_class or OneWriteResponse, response_args
        )
    response = OneWriteResponse(req, sock, cfg)
    kept = known.environs.get(server)
    if kept is None:
        _, kept = _create(req, sock, client, server, cfg, OneWriteResponse)
        kept["wsgi.errors"] = _Errors(cfg)
        for name in ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.input", "gunicorn.socket", "wsgi.early_hints"):
            kept.pop(name, None)
        known.environs[server] = kept
    environ = kept.copy()
    environ["wsgi.input"] = req.body
    environ["gunicorn.socket"] = sock
    environ["wsgi.early_hints"] = wsgi._make_early_hints_callback(req, sock, response)
    if isinstance(client, tuple):
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    else:
        environ["REMOTE_ADDR"] = client if isinstance(client, str) else client.decode()
    return response, environ


_create: Final = wsgi.create


class _Quick(Config):  # type: ignore[misc]  # Gunicorn has no types
    """Settings as attributes: Gunicorn looks each up by two calls, some twenty times a request."""

    def set(self, name: str, value: Any) -> None:
        super().set(name, value)
        self.__dict__[name] = self.settings[name].get()


def quicken(cfg: Any) -> None:
    """Turn the settings of this process into attributes. Settings that are not plain values stay as they are, and so
    does a configuration class with its own look-up.
    """
    kind = type(cfg)
    if isinstance(cfg, _Quick) or kind.__getattr__ is not Config.__getattr__:
        return
    cfg.__class__ = _Quick if kind is Config else type(kind.__name__, (_Quick, kind), {})
    cfg.__dict__.update({name: setting.get() for name, setting in cfg.settings.items()})


def can_know(cfg: Any) -> bool:
    """Whether the same head always means the same request: its sender makes no difference, and no hook changes it."""
    return not (
        cfg.pre_request is not PreRequest.default
        or cfg.is_ssl
        or cfg.secure_scheme_headers
        or any(cfg.forwarder_headers)
        or cfg.proxy_protocol != "off"
        or "SCRIPT_NAME" in os.environ
        or cfg.protocol != "http"
    )


class _Threads:
    """A thread pool that takes only connections: without a future, a Python lock or a callback for each.

    Its threads end with the main thread, as those of ThreadPoolExecutor do.
    """

    def __init__(self, threads: int, serve: Callable[[Any], None]) -> None:
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._waiting.put
        self._serve = serve
        self._threads = threads

    def start(self) -> None:
        for number in range(self._threads):
            threading.Thread(target=self._run, name=f"request-{number}").start()

    def _run(self) -> None:
        main = threading.main_thread()
        while True:
            try:
                conn = self._waiting.get(timeout=_LOOKS_EVERY_S)
            except queue.Empty:
                if main.is_alive():
                    continue
                return
            if conn is None:
                return
            self._serve(conn)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop after the connections in the queue have been served. It does not wait for that."""
        for _ in range(self._threads):
            self.put(None)


# How long a thread without work may outlive the main thread.
_LOOKS_EVERY_S: Final = 1.0


class _Outcome:
    """A request's result, with the interface of the future that `finish_request` expects."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


def _is_gunicorns(worker: Any, name: str) -> bool:
    """Whether no subclass overrides this method of Gunicorn's."""
    return getattr(type(worker), name) is getattr(gthread.ThreadWorker, name)


class ThreadWorker(gthread.ThreadWorker):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's threaded worker, whose threads return a connection to the poller by themselves.

    Gunicorn's threads wake the poll loop through a pipe to do it, which costs a second thread switch for each request.
    A subclass with its own `finish_request` or pool keeps Gunicorn's way, which calls both for each request. For one
    with its own `handle_request`, which may change the request, each head is parsed.
    """

    def init_process(self) -> None:
        quicken(self.cfg)
        wsgi.create = create
        if can_know(self.cfg) and _is_gunicorns(self, "handle_request"):
            gunicorn.http.RequestParser = Parser
        super().init_process()

    def get_thread_pool(self) -> Any:
        if not _is_gunicorns(self, "finish_request"):
            return super().get_thread_pool()
        return _Threads(self.cfg.threads, self._serve)

    def run(self) -> None:
        if isinstance(self.tpool, _Threads):
            self.tpool.start()
        super().run()

    def enqueue_req(self, conn: Any) -> None:
        if isinstance(self.tpool, _Threads):
            self.tpool.put(conn)
        else:
            super().enqueue_req(conn)

    def _serve(self, conn: Any) -> None:
        """Run in a thread of the pool; an exception never ends the thread."""
        result: Any
        try:
            result = self.handle(conn)
            if result is True and self.alive and not conn.parser.unreader.buf.getbuffer().nbytes:
                self._await_next(conn)
                return
        except BaseException as error:  # noqa: BLE001 - finish_request closes the connection
            result = error
        self.method_queue.defer(self.finish_request, conn, _Outcome(result))

    def _await_next(self, conn: Any) -> None:
        """Give an idle connection to the poll loop, which waits for its next request."""
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        if not self.alive:  # stopped meanwhile: the idle connections' deadline may have been set without this one
            conn.timeout = min(conn.timeout, time.monotonic() + gthread.STOP_KEEPALIVE_LINGER)
        try:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))
        except BaseException:
            self.keepalived_conns.remove(conn)
            raise

    def _cap_keepalive(self, deadline: float) -> None:
        """Work on a copy, as threads add connections meanwhile."""
        for conn in list(self.keepalived_conns):
            conn.timeout = min(conn.timeout, deadline)
