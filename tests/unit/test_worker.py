"""The worker class by itself: one connection of a socket pair, no server."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gunicorn.http
import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser
from gunicorn.workers import gthread

from statsapi.server.worker import FairThreadWorker, ShortWorker
from statsapi.shortcuts import gunicorn_side

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

Made = tuple[Any, gthread.TConn, socket.socket]
Make = Callable[..., Made]


def _app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def answer_of(client: socket.socket) -> bytes:
    """One answer of `_app`, in however many writes it came."""
    client.settimeout(30)
    answer = b""
    while not answer.endswith(b"\r\n\r\nok"):
        answer += client.recv(65536) or pytest.fail(f"closed after {answer!r}")
    return answer


@pytest.fixture
def make() -> Iterator[Make]:
    """A worker that could run, a connection that was just accepted, and the client's end of it."""
    sockets: list[socket.socket] = []
    workers: list[Any] = []

    def made(kind: type[Any], **settings: Any) -> Made:
        cfg = Config()
        for name, value in settings.items():
            cfg.set(name, value)
        worker = kind(1, 1, [], None, 30, cfg, Logger(cfg))
        worker.wsgi = _app
        worker.poller = selectors.DefaultSelector()
        worker.method_queue.init()
        worker.tpool = worker.get_thread_pool()
        workers.append(worker)
        ours, client = socket.socketpair()
        sockets.extend((ours, client))
        worker.nr_conns = 1
        return worker, gthread.TConn(cfg, ours, ("127.0.0.1", 5), ("127.0.0.1", 80)), client

    yield made
    for worker in workers:
        worker.tpool.shutdown(wait=False)
        worker.poller.close()
        worker.method_queue.close()
        worker.tmp.close()
    for each in sockets:
        each.close()


@pytest.mark.parametrize("kind", [FairThreadWorker, ShortWorker])
@pytest.mark.parametrize("keepalive", [0, 1, 75])
def test_a_new_connection_has_the_time_that_gunicorn_gives_it(
    make: Make, kind: type[Any], keepalive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 s, and then what an idle connection has: it is not closed before it can send, with --keep-alive 0 too."""
    worker, conn, _ = make(kind, keepalive=keepalive)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    worker.enqueue_req(conn)
    worker.murder_pending()
    assert list(worker.pending_conns) == [conn]
    assert conn.timeout == 105.0 + keepalive
    monkeypatch.setattr(time, "monotonic", lambda: 105.0 + keepalive)
    worker.murder_pending()
    assert not worker.pending_conns


@pytest.mark.parametrize("kind", [FairThreadWorker, ShortWorker])
def test_a_connection_that_comes_as_the_worker_is_stopped_is_answered(make: Make, kind: type[Any]) -> None:
    """A SIGTERM at any instant of accepting: whichever question whether the worker is alive is the first that says no,
    the client's request is answered.
    """
    for questions in range(4):

        class Stopped(kind):  # type: ignore[misc]
            left = questions

            @property
            def alive(self) -> bool:
                self.left -= 1
                return self.left >= 0

            @alive.setter
            def alive(self, value: bool) -> None:
                """Gunicorn sets it when a worker is made."""

        worker, conn, client = make(Stopped, keepalive=75)
        client.sendall(GET)
        if kind is ShortWorker:
            worker.tpool.start()
        worker.enqueue_req(conn)
        for key, _ in worker.poller.select(0):
            key.data(key.fileobj)
        assert answer_of(client).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("kind", [FairThreadWorker, ShortWorker])
def test_no_keep_alive_closes_after_the_answer(make: Make, kind: type[Any]) -> None:
    """With --keep-alive 0 a request is answered, and told that the connection closes."""
    worker, conn, client = make(kind, keepalive=0)
    worker.enqueue_req(conn)
    client.sendall(GET)
    client.shutdown(socket.SHUT_WR)
    worker.murder_pending()
    worker.poller.unregister(conn.sock)
    assert not worker.handle(conn)
    answer = answer_of(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer


def test_a_worker_class_is_asked_after_each_request(make: Make) -> None:
    """A subclass with a finish_request of its own is called for each request of a connection that is kept alive."""
    finished = []

    class Own(ShortWorker):
        def finish_request(self, conn: Any, fs: Any) -> None:
            finished.append(fs.result())

    worker, conn, client = make(Own, keepalive=75)
    conn.data_ready = True
    for _ in range(2):
        client.sendall(GET)
        worker.enqueue_req(conn)
        worker.method_queue._queue.get(timeout=30)()
        assert answer_of(client).endswith(b"ok")
    assert finished == [True, True]


@pytest.mark.parametrize("own", [False, True])
def test_a_worker_class_that_may_change_requests_has_each_head_read(
    make: Make, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a subclass handles requests in its own way, what it does to one is not kept for others."""

    class Own(ShortWorker):
        def handle_request(self, req: Any, conn: Any) -> Any:
            return super().handle_request(req, conn)

    monkeypatch.setattr(gunicorn.http, "RequestParser", RequestParser)
    monkeypatch.setattr(wsgi, "create", wsgi.create)
    monkeypatch.setattr(gthread.ThreadWorker, "init_process", lambda worker: None)
    ours = {"secure_scheme_headers": {}, "forwarder_headers": ""}
    worker, _, _ = make(Own if own else ShortWorker, **ours)
    worker.init_process()
    assert gunicorn.http.RequestParser is (RequestParser if own else gunicorn_side.Parser)


def test_a_worker_class_may_have_its_own_threads(make: Make) -> None:
    """get_thread_pool is Gunicorn's own place for that: the worker serves by it, and ends."""

    class Own(ShortWorker):
        def get_thread_pool(self) -> ThreadPoolExecutor:
            return ThreadPoolExecutor(1)

    worker, conn, client = make(Own, keepalive=75)
    conn.data_ready = True
    client.sendall(GET)
    worker.enqueue_req(conn)
    assert answer_of(client).endswith(b"ok")
    worker.method_queue._queue.get(timeout=30)()
    assert list(worker.keepalived_conns) == [conn]
    worker.alive = False
    worker.murder_keepalived(force=True)
    worker.run()
    assert worker.nr_conns == 0


def test_a_body_whose_buffer_memory_did_not_suffice_for_ends_the_connection() -> None:
    """A BytesIO that could not grow counts as closed, so the rest of the body cannot be read. The answer is out by
    then: it is no error of the request.
    """

    class Parser:
        def finish_body(self, deadline: float) -> bool:
            raise ValueError("I/O operation on closed file.")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.close()
        conn: Any = SimpleNamespace(parser=Parser(), sock=ours)
        assert not ShortWorker._keepalive_after(cast(Any, None), conn, keepalive=True)


def test_a_worker_that_is_woken_after_its_end_writes_into_no_file(make: Make, tmp_path: Path) -> None:
    """A request that ends, or a signal that comes, while the service is closed: the pipe of the poll loop stays open.
    Otherwise its byte went into a file that was opened since.
    """
    worker, _, _ = make(FairThreadWorker)
    worker.method_queue.close()
    with ExitStack() as files:
        for name in "abc":
            files.enter_context((tmp_path / name).open("w"))
        worker.method_queue.defer(print)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0, 0, 0]
