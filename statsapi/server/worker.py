"""The worker class: Gunicorn's threaded worker, which also shares connections fairly, misses no stop signal and ends
with its arbiter. A request that Gunicorn itself refuses is answered as a problem, like every other error.

It overrides private names of Gunicorn. tests/processes/test_serving.py lists them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import selectors
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import gunicorn.util
from gunicorn.workers import gthread

from statsapi.api import problems
from statsapi.metrics import CounterTable
from statsapi.server import descriptors
from statsapi.server.board import Board, freer_than
from statsapi.service.service import Service
from statsapi.shortcuts import gunicorn_side

# A new connection is left to a worker that has fewer connections for up to PATIENCE_S, in pauses of PAUSE_S (the unit
# of epoll's timeout). A worker that runs Python in all its threads answers its poller within the interpreter's switch
# interval of 5 ms.
PAUSE_S: Final = 0.001
PATIENCE_S: Final = 0.030

# For this long after its start a worker that has a connection leaves the next ones to its siblings, until all of them
# accept connections. Otherwise the first of two takes all that come during the start: 16 of 16 in seven starts of
# eight, and keeps them while they are kept alive. Gunicorn forks workers up to 0.1 s apart.
# A worker that still replays leaves connections for as long to those that are ready: on a busy machine they may get no
# core for PATIENCE_S, and then a connection of a reload waited for the whole replay.
START_PATIENCE_S: Final = 0.3

# Gunicorn touches its heartbeat file in each turn of the poll loop, two or three times a request. Four times a second
# is often enough for any sensible `timeout`, and saves system calls.
HEARTBEAT_S: Final = 0.25

# Where no connection can be accepted for want of descriptors or memory, the worker tries again this much later, and
# says so once in a while. `accept` fails at once, so without a pause it would be tried thousands of times a second.
_SHORT_OF: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPT_AGAIN_S: Final = 0.1
ACCEPT_SAYS_S: Final = 60.0

# A worker that is told to stop goes on while its successors start (a reload), as requests would wait for their replay.
# At 2,400 events/s each request waited for 0.11 to 0.41 s at a reload, and now for 0.06 s at most. It leaves after
# SUCCESSORS_WAIT_S, or half of graceful_timeout, all the same: until then Gunicorn's arbiter heeds no other signal but
# those that stop the server (hooks.py).
# START_LOOK_S is how often it looks, and how often a worker that starts looks for the end of its replay.
START_LOOK_S: Final = 0.005
SUCCESSORS_WAIT_S: Final = 10.0

# If a connection is closed while its client still sends, the system discards the answer, and the client sees a broken
# pipe instead of a 413. So input is read and dropped first, up to these bounds. The answer cannot say
# `Connection: close`, as Gunicorn drops that header from an application's answer.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 32 << 20
_LINGER_STEP_BYTES: Final = 64 * 1024

# Made at import: the arbiter loads this module before it forks, so all workers share them.
board = Board()
counters = CounterTable(Board.SLOTS)


class _MethodQueue(gthread.PollableMethodQueue):  # type: ignore[misc]  # Gunicorn has no types
    """Wakes the poll loop through a pipe, which stays open until the process ends. Gunicorn closes it at the loop's
    end. A request that ended later, or a late signal, wrote its byte into whatever file had got the number by then.
    """

    def close(self) -> None:
        pass


class FairThreadWorker(gthread.ThreadWorker):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's threaded worker, which leaves a new connection to a worker that has fewer.

    All workers wait on one listening socket, and the first to wake takes everything: 16 keep-alive connections opened
    at once may all stay with one of two workers for their whole life. Here a worker ignores the listener for a moment
    where another one is freer (see `freer_than`). After PATIENCE_S it takes the connection all the same, and stops
    waiting for those workers until their poll loops turn again: a worker that is stuck or stopped delays one
    connection, not each.

    Without a slot (more workers than the board has, or no hooks) it is Gunicorn's own worker.
    """

    slot: int | None = None
    shares: int = 1  # how many workers there are to be

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method_queue = _MethodQueue()
        self.worker_connections = descriptors.most_connections(self.cfg)
        self.max_keepalived = self.worker_connections - self.cfg.threads
        self._short_said_at = float("-inf")
        self._turns = 0
        self._heartbeat_at = 0.0
        self._paused_until = 0.0
        self._waiting_since: float | None = None  # since when a connection has been left to others
        self._started = False  # whether its replay is over
        self._began_at = 0.0  # when its poll loop took its first turn
        self._leaves_at: float | None = None  # told to stop: the latest time at which it does
        self._stuck: dict[int, int] = {}  # slot -> turns of each worker that did not take a connection in time

    def notify(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            self._heartbeat_at = now
            super().notify()

    def set_accept_enabled(self, enabled: bool) -> None:
        if self.slot is not None and not self.alive:
            board.clear(self.slot)  # stopping: the others must not wait for this one
        super().set_accept_enabled(enabled and time.monotonic() >= self._paused_until)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self.slot is None:
            super().wait_for_and_dispatch_events(timeout)
            return
        if not self._turns:
            self._began_at = time.monotonic()
        self._turns += 1
        if self.alive and (not self._started or self._leaves_at is not None):
            timeout = min(timeout, START_LOOK_S)
            self._look_at_starts(self.slot)
        if self.alive:
            board.show(self.slot, self.nr_conns, self._turns)
        if self._paused_until:
            left = self._paused_until - time.monotonic()
            timeout = min(timeout, max(left, 0.0))
            if left <= 0.0:
                self._paused_until = 0.0  # the next turn listens again
        listening, waiting_since = self._accepting, self._waiting_since
        super().wait_for_and_dispatch_events(timeout)
        if listening and self._accepting and waiting_since == self._waiting_since:
            self._waiting_since = None  # nothing came from the listener: another worker took it

    def _look_at_starts(self, slot: int) -> None:
        """Say that this worker's replay is over, and leave where no successor is waited for any more."""
        if not self._started:
            service = service_of(self)
            if not isinstance(service, Service) or service.has_begun():
                self._started = True
                board.started(slot)
        if self._leaves_at is not None and (time.monotonic() >= self._leaves_at or not board.starting()):
            self._leave()

    def accept(self, listener: Any) -> None:
        if not self._accepting:  # closed by an event of the same turn
            return
        if self.slot is not None and self._leave_to_others(self.slot):
            return
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in _SHORT_OF:
                raise
            self._accept_later(error)
        if self.slot is not None:
            board.show(self.slot, self.nr_conns, self._turns)

    def _accept_later(self, error: OSError) -> None:
        """Pause the listener: Gunicorn's worker would end, and all its connections with it."""
        now = time.monotonic()
        self._paused_until = now + ACCEPT_AGAIN_S
        self.set_accept_enabled(False)
        if now - self._short_said_at >= ACCEPT_SAYS_S:
            self._short_said_at = now
            cure = (
                f" (RLIMIT_NOFILE is {descriptors.limit()}: {descriptors.CURE})" if error.errno == errno.EMFILE else ""
            )
            self.log.error("No connection can be accepted: %s%s. New ones wait", error.strerror, cure)

    def enqueue_req(self, conn: Any) -> None:
        """A new connection waits for its first bytes in the poll loop, not in a thread.

        Gunicorn gives it a thread that waits up to 5 s. Browsers open silent connections in advance: one for each
        thread blocked all other clients for that long. A connection waits here as long as it would in a thread, even
        where `--keep-alive 0` leaves it no time in the poll loop.
        """
        if not self.alive or conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        # Gunicorn's finish_request would do it, but asks again whether the worker is alive: where SIGTERM came between
        # the two questions, it closed the connection, whose client may have sent its request already.
        conn.timeout = time.monotonic() + gthread.DEFAULT_WORKER_DATA_TIMEOUT + self.cfg.keepalive
        try:
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        except Exception:  # noqa: BLE001 - whatever it is, Gunicorn gives the connection up too
            self.nr_conns -= 1
            conn.close()
        else:
            self.pending_conns.append(conn)

    def init_signals(self) -> None:
        super().init_signals()
        _let_signals_through()  # signals since the fork are delivered now

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: leave as soon as no successor is starting. A second one does not wait."""
        if self.slot is None or self._leaves_at is not None or not self._started or not board.starting():
            self._leave()
            return
        self._leaves_at = time.monotonic() + min(SUCCESSORS_WAIT_S, self.cfg.graceful_timeout / 2)
        self.method_queue.defer(lambda: None)  # wakes the poll loop

    def _leave(self) -> None:
        """/readyz answers 503 from here on, before any answer tells its client that the connection closes."""
        if isinstance(service := service_of(self), Service):
            service.leave()
        super().handle_exit(signal.SIGTERM, None)

    def leave_orphaned(self) -> None:
        """The arbiter is gone: close the port at once, so another server can start, and finish the running requests."""
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        self.cfg.set("graceful_timeout", ORPHAN_FINISHES_S)
        self._leave()

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Whether the connection can be used again. If not, this thread waits for the client to close it. Gunicorn
        waits in its poll loop, where one client that does not close blocks all others for 2 s.
        """
        try:
            finished = conn.parser.finish_body(deadline=time.monotonic() + LINGER_S)  # up to 64 KiB of it
        except (ValueError, MemoryError):  # where memory did not suffice for the body, its buffer counts as closed
            finished = False
        if keepalive and finished:
            return True
        if not isinstance(conn.sock, ssl.SSLSocket):
            _linger(conn.sock)
        return False

    def _cap_keepalive(self, deadline: float) -> None:
        """Called once when the worker stops: silent connections end with idle ones, not at graceful_timeout."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _leave_to_others(self, slot: int) -> bool:
        """Whether a freer worker, or one that is to come, should take the waiting connection; if so, the listener is
        paused.
        """
        loads = board.loads()
        if slot in loads:
            loads[slot] = loads[slot]._replace(connections=self.nr_conns)
        freer = {
            other: loads[other].turns
            for other in freer_than(slot, loads)
            if self._stuck.get(other) != loads[other].turns
        }
        now = time.monotonic()
        leaves = False
        if freer:
            if self._waiting_since is None:
                self._waiting_since = now
            waits = any(loads[slot].starting and not loads[other].starting for other in freer)
            leaves = now - self._waiting_since < (START_PATIENCE_S if waits else PATIENCE_S)
            if not leaves:
                self._stuck = freer
        elif self.nr_conns and len(loads) < self.shares:
            leaves = now < self._began_at + START_PATIENCE_S
        if leaves:
            self._paused_until = now + PAUSE_S
            self.set_accept_enabled(False)
        else:
            self._waiting_since = None
        return leaves


class ShortWorker(FairThreadWorker, gunicorn_side.ThreadWorker):
    """FairThreadWorker with shortcuts; used unless STATSAPI_SHORTCUTS=off."""


def _linger(sock: socket.socket) -> None:
    """Close the sending side, and drop the client's input until it closes too."""
    deadline = time.monotonic() + LINGER_S
    left = LINGER_BYTES
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while left > 0 and (patience := deadline - time.monotonic()) > 0:
            sock.settimeout(patience)
            received = len(sock.recv(_LINGER_STEP_BYTES))
            if not received:
                break
            left -= received
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # so that Gunicorn, which closes it, need not wait any more


# The signals that stop a worker. Between the fork and init_signals a worker has the arbiter's handlers, which swallow
# them, and the arbiter does not send them again: a server stopped during its start hung until graceful_timeout. So they
# are blocked from before the fork until init_signals.

_STOPPING: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def hold_signals_back() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def _let_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


os.register_at_fork(after_in_parent=_let_signals_through)


# A worker learns by a pipe that its arbiter was killed. Gunicorn's own workers compare their parent's id once in a turn
# of their loop, and then keep the port open for graceful_timeout while a client keeps them busy. Here only the arbiter
# holds the write end of a pipe, which the system closes however the arbiter dies. PR_SET_PDEATHSIG instead was refused:
# only Linux has it, and it would end requests in the middle. It is used for one purpose: a worker that is stopped
# (SIGSTOP) cannot see its arbiter's end, so the system then continues it. A sibling that is being forked holds the
# write end for a moment, so the parent's id is compared as well.

ORPHAN_LOOKS_S: Final = 0.3
ORPHAN_FINISHES_S: Final = 1  # running requests may take this long; Gunicorn wants whole seconds
ORPHAN_ENDS_S: Final = 1.5  # then the process ends, whatever still runs

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)

_lifeline: tuple[int, int] | None = None


def open_lifeline() -> None:
    """Called in the arbiter before it forks: open the pipe that closes when the arbiter is gone."""
    global _lifeline
    if _lifeline is None:
        _lifeline = os.pipe()


def watch_arbiter(worker: Any) -> None:
    """Called in a new worker: start a thread that ends the worker when the arbiter is gone."""
    if _lifeline is not None:
        os.close(_lifeline[1])
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
        threading.Thread(target=_await_end_of, args=(worker, _lifeline[0]), name="arbiter", daemon=True).start()


def _await_end_of(worker: Any, lifeline: int) -> None:
    poller = select.poll()
    poller.register(lifeline, 0)  # the end of file is always reported
    while os.getppid() == worker.ppid and not poller.poll(ORPHAN_LOOKS_S * 1000):
        pass
    worker.log.error("The arbiter (pid:%s) was killed, so this worker ends (pid:%s)", worker.ppid, os.getpid())
    if not worker.booted:
        os._exit(1)  # it has not answered any request yet
    if isinstance(worker, FairThreadWorker):
        worker.method_queue.defer(worker.leave_orphaned)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_ENDS_S)
    os._exit(1)


def service_of(worker: Any) -> Any:
    """The service of the worker's application; None before it is loaded, and for an application without one."""
    return getattr(getattr(worker, "wsgi", None), "extensions", {}).get("statsapi")


# Requests that Gunicorn itself refuses: a broken request line, too large a header


def _write_problem(sock: Any, status: int, reason: str, message: str) -> None:
    """Replaces `gunicorn.util.write_error`, which writes HTML; Gunicorn has no hook for it."""
    if status != HTTPStatus.BAD_REQUEST and reason == HTTPStatus.BAD_REQUEST.phrase:
        reason = HTTPStatus(status).phrase  # Gunicorn says "Bad Request" of 500 and 501 too
    members = {"outcome": "unknown"} if status == HTTPStatus.INTERNAL_SERVER_ERROR else {}  # the method is not known
    detail = message or "This is a fault of the service."
    body = problems.encode(status, problems.code_of(reason), reason, detail, **members)
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: {problems.MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    )
    gunicorn.util.write_nonblock(sock, head.encode("latin1") + body)


gunicorn.util.write_error = _write_problem
