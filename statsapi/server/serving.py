"""Gunicorn's side: a threaded worker that shares connections fairly, one core each, and the hooks of gunicorn.conf.py.

The only module that knows Gunicorn. What the arbiter (the parent process) decides for a worker is set on the worker
object before the fork, and both sides see it:

    pre_fork          arbiter   gives the worker a slot on the board and a core
    post_fork         worker    pins itself to that core, and watches that the arbiter lives
    post_worker_init  worker    starts the application's service: files and threads belong after the fork
    worker_exit       worker    closes the service: what was acknowledged is flushed
    child_exit        arbiter   clears the slot, also of a worker that was killed
    on_exit           arbiter   leaves the journal as one file

Gunicorn does not kill a worker that hangs before its first heartbeat; a service's `start()` must therefore not wait
for anything that may never come.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

import gunicorn.glogging
import gunicorn.systemd
import gunicorn.util
from flask import Flask
from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import ParseException
from gunicorn.workers import gthread

import statsapi.app  # noqa: F401 - so that the arbiter holds all code: a later worker must not mix old and new files
from statsapi.api import problems
from statsapi.api.logs import JsonFormatter, PlainFormatter
from statsapi.config import Settings
from statsapi.errors import ConfigError, JournalUnavailable
from statsapi.journal import engine_of, open_journal, put_away
from statsapi.keys import ENTRIES_VARIABLE, FILE_VARIABLE, Keys
from statsapi.metrics import Table
from statsapi.service.service import Service

# A connection is left to a worker that has fewer for PATIENCE_S in pauses of PAUSE_S, the epoll timeout's unit. A
# worker
# that runs Python in all its threads answers its poller within the interpreter's switch interval of 5 ms.
PAUSE_S: Final = 0.001
PATIENCE_S: Final = 0.030

# Gunicorn touches its heartbeat file in each turn of the poll loop, two or three times a request. A quarter of a
# second is far inside every sensible `timeout` and saves the system calls.
HEARTBEAT_S: Final = 0.25


class Load(NamedTuple):
    """What a worker shows of itself: its open connections, and a count that rises with each turn of its poll loop."""

    connections: int
    turns: int


class Board:
    """Shared memory in which each worker shows its load. A slot is 16 bytes, written by its owner alone.

    It must exist before the first fork. Nobody takes a lock: what is read is at worst one turn old, and then a
    connection is one place off.
    """

    SLOTS: Final = mmap.PAGESIZE // 16

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")  # connections + 1, turns; for each slot

    def show(self, slot: int, connections: int, turns: int) -> None:
        self._cells[2 * slot + 1] = turns
        self._cells[2 * slot] = connections + 1

    def clear(self, slot: int) -> None:
        """The slot's worker takes no (more) connections: it is starting, leaving, or gone."""
        self._cells[2 * slot] = 0

    def loads(self) -> dict[int, Load]:
        """The workers that take connections, by slot."""
        cells = self._cells.tolist()
        return {at // 2: Load(cells[at] - 1, cells[at + 1]) for at in range(0, len(cells), 2) if cells[at]}


# How a thread of Gunicorn's tells the poll loop that a connection has not sent anything yet.
_NO_DATA_YET: Final[Future[object]] = Future()
_NO_DATA_YET.set_result(gthread._DEFER)

# At import, as the arbiter loads this module before it forks.
_board = Board()
_counters = Table(Board.SLOTS)


class FairThreadWorker(gthread.ThreadWorker):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's threaded worker, which leaves a new connection to a worker that has fewer.

    All workers wait on one listening socket, and the first to wake takes everything: of 16 keep-alive connections
    opened at once, all may stay with one of two workers, for as long as they live. Here a worker that has more
    connections than another one looks away from the listener for a moment. After PATIENCE_S it takes the connection
    all the same, and those it waited for do not count until their poll loop turns again: a worker that is stuck or
    stopped delays one connection, not each.

    Without a slot (more workers than the board has, or no hooks) it is Gunicorn's own worker.
    """

    slot: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = 0
        self._heartbeat_at = 0.0
        self._paused_until = 0.0
        self._waiting_since: float | None = None  # when the connection that is being left to others was first seen
        self._stuck: dict[int, int] = {}  # slot -> turns, of workers that let a connection wait

    def notify(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            self._heartbeat_at = now
            super().notify()

    def set_accept_enabled(self, enabled: bool) -> None:
        if self.slot is not None and not self.alive:
            _board.clear(self.slot)  # leaving: the others must not wait for this one
        super().set_accept_enabled(enabled and time.monotonic() >= self._paused_until)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self.slot is None:
            super().wait_for_and_dispatch_events(timeout)
            return
        self._turns += 1
        if self.alive:
            _board.show(self.slot, self.nr_conns, self._turns)
        if self._paused_until:
            left = self._paused_until - time.monotonic()
            timeout = min(timeout, max(left, 0.0))
            if left <= 0.0:
                self._paused_until = 0.0  # the next turn listens again
        listening, waiting_since = self._accepting, self._waiting_since
        super().wait_for_and_dispatch_events(timeout)
        if listening and self._accepting and waiting_since == self._waiting_since:
            self._waiting_since = None  # nothing came from the listener: another worker took it

    def accept(self, listener: Any) -> None:
        if not self._accepting:  # closed by an event of the same turn
            return
        if self.slot is not None and self._leave_to_others(self.slot):
            return
        super().accept(listener)
        if self.slot is not None:
            _board.show(self.slot, self.nr_conns, self._turns)

    def enqueue_req(self, conn: Any) -> None:
        """A new connection waits for its first bytes in the poll loop, not in a thread.

        Gunicorn gives it a thread that waits up to 5 s: as many silent connections as there are threads, such as
        a browser opens ahead, stopped everybody else for that long.
        """
        if self.alive and not conn.initialized and not conn.data_ready:
            self.finish_request(conn, _NO_DATA_YET)
        else:
            super().enqueue_req(conn)

    def init_signals(self) -> None:
        super().init_signals()
        _let_signals_through()  # what came since the fork is heard now

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: not ready from here on, so before any answer tells its client that this worker closes."""
        if isinstance(service := _service(self), Service):
            service.leave()
        super().handle_exit(sig, frame)

    def leave_orphaned(self) -> None:
        """The arbiter is gone: let go of the port at once, so that another server can start, and finish what runs."""
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        self.cfg.set("graceful_timeout", ORPHAN_FINISHES_S)
        self.handle_exit(signal.SIGTERM, None)

    def _cap_keepalive(self, deadline: float) -> None:
        """Called once when the worker stops: silent connections end when idle ones do, not at graceful_timeout."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _leave_to_others(self, slot: int) -> bool:
        """Whether a worker with fewer connections should take what waits; if so the listener is paused."""
        freer = {
            other: load.turns
            for other, load in _board.loads().items()
            if other != slot and load.connections < self.nr_conns and self._stuck.get(other) != load.turns
        }
        if freer:
            now = time.monotonic()
            if self._waiting_since is None:
                self._waiting_since = now
            if now - self._waiting_since < PATIENCE_S:
                self._paused_until = now + PAUSE_S
                self.set_accept_enabled(False)
                return True
            self._stuck = freer
        self._waiting_since = None
        return False


# Signals that stop a worker. Between the fork and init_signals a worker has the arbiter's handlers, which would swallow
# one, and the arbiter sends none again: a server stopped while it starts hung until graceful_timeout. So they are held
# back from before the fork on.

_STOPPING: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def _hold_signals_back() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def _let_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


os.register_at_fork(after_in_parent=_let_signals_through)


# The arbiter's end

# Gunicorn's workers compare their parent's id once in a turn of their loop, and then go on for graceful_timeout, with
# the port open, for as long as a client keeps them busy. Here a pipe says it, whose write end the arbiter alone holds:
# the system closes that whatever the arbiter died of. Not PR_SET_PDEATHSIG: Linux alone has it, and it would take a
# request away in the middle. A sibling that is just being forked holds the write end for a moment, so the parent's id
# is looked at as well.

ORPHAN_LOOKS_S: Final = 0.3
ORPHAN_FINISHES_S: Final = 1  # what runs may take this long; Gunicorn wants whole seconds
ORPHAN_ENDS_S: Final = 1.5  # then the process ends, whatever still runs

_lifeline: tuple[int, int] | None = None


def _watch_arbiter(worker: Any, lifeline: int) -> None:
    """Runs in a thread of the worker from the fork on, as long as the worker does."""
    poller = select.poll()
    poller.register(lifeline, 0)  # the end of file is always reported
    while os.getppid() == worker.ppid and not poller.poll(ORPHAN_LOOKS_S * 1000):
        pass
    worker.log.error("The arbiter (pid:%s) was killed, so this worker ends (pid:%s)", worker.ppid, os.getpid())
    if not worker.booted:
        os._exit(1)  # it has answered nobody
    if isinstance(worker, FairThreadWorker):
        worker.method_queue.defer(worker.leave_orphaned)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_ENDS_S)
    os._exit(1)


# Cores


def allowed_cores() -> list[int]:
    """The cores this process may run on; empty where the platform does not say (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cpu_limit(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """The container's CPU time in cores (cgroup v2); infinite without a limit."""
    try:
        quota, period = cpu_max.read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return float("inf")


def default_workers() -> int:
    """A worker for each core that may be used, at most four: each holds all live events in its own memory."""
    if _is_memory_only():
        return 1
    return int(max(1, min(len(allowed_cores()) or os.cpu_count() or 1, cpu_limit(), 4)))


def choose_core(mode: str, workers: int, taken: list[tuple[int, int]]) -> int | None:
    """The core for a new worker, where `taken` holds (age, core) of those alive; None leaves it free to roam.

    The core with the fewest workers; among equals the one whose newest worker is oldest, as a reload leaves old and
    new workers side by side and the old ones are about to go.

    `auto` pins where each worker can have a core of its own and the machine is not shared by quota: containers that
    are limited by CPU time all see the same cores, and would all choose the first.
    """
    cores = allowed_cores()
    if mode == "off" or not cores:
        return None
    if mode == "auto" and (workers > len(cores) or cpu_limit() < len(cores)):
        return None
    return min(cores, key=lambda core: (*_crowd(core, taken), core))


def _crowd(core: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
    ages = [age for age, other in taken if other == core]
    return len(ages), max(ages, default=0)


# What Gunicorn refuses by itself: a broken request line, too large a header


def _write_problem(sock: Any, status: int, reason: str, message: str) -> None:
    """In place of `gunicorn.util.write_error`, which writes HTML; Gunicorn has no hook for that."""
    if status != HTTPStatus.BAD_REQUEST and reason == HTTPStatus.BAD_REQUEST.phrase:
        reason = HTTPStatus(status).phrase  # Gunicorn says "Bad Request" of 500 and 501 too
    body = problems.encode(status, problems.code_of(reason), reason, message or "This is a fault of the service.")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: {problems.MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    )
    gunicorn.util.write_nonblock(sock, head.encode("latin1") + body)


gunicorn.util.write_error = _write_problem


# Logs


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's logger with STATSAPI_LOG_FORMAT, and no key in a line, whoever writes it. Not `logconfig_dict`, which
    would have to repeat what the command line says of files and levels.
    """

    def setup(self, cfg: Any) -> None:
        """Also called on a reload, with new handlers."""
        super().setup(cfg)
        # Read by itself: what is wrong with the settings is for on_starting to say, and needs a logger.
        json = os.environ.get("STATSAPI_LOG_FORMAT", "").strip() == "json"
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JsonFormatter() if json else PlainFormatter(handler.formatter))


# Hooks, in the order in which Gunicorn calls them


def _is_memory_only() -> bool:
    """Whether the journal lives in one process's memory, so that a second worker would give wrong answers."""
    try:
        return engine_of(Settings.from_env().journal).single_process
    except ConfigError:
        return False  # on_starting says what is wrong


def on_starting(server: Any) -> None:
    """Refuse to start with settings that cannot work: one line for each fault, exit status 78 (EX_CONFIG)."""
    _log_as_gunicorn_does(server.log.error_log)
    faults: list[str] = []
    promise = ""
    journal, fsync, replicas = os.environ.get("STATSAPI_JOURNAL", "").strip() or Settings().journal, "interval", 0
    try:
        settings = Settings.from_env()
        journal, fsync, replicas = settings.journal, settings.fsync, settings.redis_wait_replicas
    except ConfigError as error:
        faults += error.faults
    try:
        # Opened once here, and closed before the fork: workers that are refused side by side end in a traceback.
        opened = open_journal(journal, fsync=fsync, wait_replicas=replicas)
        promise = opened.promise
        opened.close()
    except ConfigError as error:
        faults += error.faults
    except JournalUnavailable as error:
        server.log.warning("Starting without the journal: %s", error)
    try:
        _load_keys()
    except ConfigError as error:
        faults += error.faults
    faults += _addresses_in_use(server)
    if server.num_workers < 1:
        faults.append(f"{server.num_workers} workers answer nothing: set --workers or WEB_CONCURRENCY to 1 or more")
    if _is_memory_only():
        if server.num_workers > 1:
            faults.append(
                f"STATSAPI_JOURNAL=memory:// keeps events in one process, so {server.num_workers} workers would each "
                "answer from their own: start one (--workers 1, or WEB_CONCURRENCY=1), or name a journal that workers "
                "share (sqlite:///…)"
            )
        if server.master_pid:  # USR2: a second arbiter beside the first
            faults.append(
                "STATSAPI_JOURNAL=memory:// cannot be upgraded in place (USR2): a second server beside the first "
                "would answer from its own events; stop and start instead"
            )
    if not faults:
        if promise:
            server.log.info("%s", promise[0].upper() + promise[1:])
        return
    for fault in faults:
        server.log.error("Refusing to start: %s", fault)
    if server.pidfile is not None:
        server.pidfile.unlink()  # Gunicorn has written it already and forgets it on this path
    sys.exit(os.EX_CONFIG)


# How long an address may still be held: workers of a server that was killed let go of it in milliseconds.
ADDRESS_WAIT_S: Final = 0.5

UNIX_PATH_BYTES: Final = 107  # Linux; elsewhere 103


def _addresses_in_use(server: Any) -> list[str]:
    """Why the configured addresses cannot be bound, a sentence for each.

    Gunicorn tries for five seconds before it gives up, names no setting, and takes a Unix socket away from the server
    that listens to it. Sockets that systemd or an older arbiter (USR2) hands over are bound already.
    """
    if server.master_pid or gunicorn.systemd.listen_fds(unset_environment=False) or server.cfg.reuse_port:
        return []
    faults = []
    options = getattr(server.app, "address_options", "--bind")  # those of `statsapi serve`
    until_s = time.monotonic() + ADDRESS_WAIT_S
    for address in server.cfg.address:
        while (reason := _why_not_bound(address)) is not None:
            if reason != _IN_USE or time.monotonic() >= until_s:
                option = options if isinstance(address, tuple) else "--bind"
                faults.append(reason.format(_shown(address), _holder(address), option))
                break
            time.sleep(0.02)
    return faults


_IN_USE: Final = "{0} is in use{1}: stop what listens there, or choose another with {2}"


def _why_not_bound(address: Any) -> str | None:
    try:
        if isinstance(address, tuple):
            family = socket.AF_INET6 if gunicorn.util.is_ipv6(address[0]) else socket.AF_INET
            with socket.socket(family) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
        elif isinstance(address, str) and not address.startswith("\0"):
            return _why_no_unix_socket(address)
    except socket.gaierror:
        return "{0} cannot be listened at, as its host is not known: choose another with {2}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _IN_USE
        if error.errno == errno.EADDRNOTAVAIL:
            return "{0} cannot be listened at, as this machine does not have that address: choose another with {2}"
        return f"{{0}} cannot be listened at ({error.strerror}): choose another with {2}"
    except OverflowError:
        return "{0} cannot be listened at, as ports go up to 65535: choose another with {2}"
    return None


def _why_no_unix_socket(path: str) -> str | None:
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        return (
            f"{{0}} is too long (a Unix socket's path has at most {UNIX_PATH_BYTES} bytes): choose another with --bind"
        )
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return "{0} cannot be made, as its folder is not there: make it, or choose another with --bind"
    if not os.access(folder, os.W_OK | os.X_OK):
        return (
            "{0} cannot be made, as its folder cannot be written: let this user write it, or choose another with --bind"
        )
    if not os.path.exists(path):
        return None
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return "{0} is not a socket: choose another with --bind"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ADDRESS_WAIT_S)
        try:
            sock.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None  # left behind by a server that was killed: Gunicorn takes its place
        except TimeoutError:  # somebody listens, with a full queue
            return _IN_USE
    return _IN_USE


def _shown(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _holder(address: Any) -> str:
    """Which process listens at a port of this machine, as far as this user may know it."""
    if not isinstance(address, tuple):
        return ""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == address[1]:  # listening
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda found: int(found.name)):
        with contextlib.suppress(OSError):
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                return f" by process {folder.name} ({(folder / 'comm').read_text().strip()})"
    return ""


def _load_keys() -> None:
    """Let the workers inherit what the arbiter could read last: see statsapi.keys."""
    file, entries = (os.environ.get(name, "").strip() for name in (FILE_VARIABLE, ENTRIES_VARIABLE))
    if file or entries:
        Keys(file, entries)


def _log_as_gunicorn_does(error_log: logging.Logger) -> None:
    """What the service logs goes where Gunicorn's own lines go, by level and handlers, in every worker."""
    ours = logging.getLogger("statsapi")
    ours.handlers = error_log.handlers  # the very list: a reload exchanges what is in it
    ours.setLevel(error_log.level)
    ours.propagate = False


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Keep memory:// at one worker, whatever TTIN asks for. At start (`old` is None) on_starting refuses instead."""
    if old is not None and new > 1 and _is_memory_only():
        server.log.warning("Staying at one worker: STATSAPI_JOURNAL=memory:// keeps events in one process")
        server.num_workers = 1


def on_reload(server: Any) -> None:
    """HUP with memory://: stop the old worker before Gunicorn starts the new one.

    What it held is lost either way, as by a restart, and the log says so. Gunicorn would run the two side by side
    for a while, each with its own events; so the old one finishes first, and new connections wait in the listen queue.
    """
    if not _is_memory_only():
        return
    server.log.warning("Reloading with STATSAPI_JOURNAL=memory://: all events held are lost")
    server.cfg.set("workers", 1)  # a reload spawns as many as the file says, before nworkers_changed is heard
    server.kill_workers(signal.SIGTERM)
    deadline = time.monotonic() + server.cfg.graceful_timeout
    while server.WORKERS and time.monotonic() < deadline:
        server.reap_workers()
        time.sleep(0.02)
    server.kill_workers(signal.SIGKILL)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker a slot that no living worker has, and a core.

    Both follow from the workers that live, so nothing has to be kept in step over replacement, HUP, TTIN and TTOU.
    """
    living = list(server.WORKERS.values())
    taken = {getattr(other, "slot", None) for other in living}
    worker.slot = next((slot for slot in range(Board.SLOTS) if slot not in taken), None)
    if worker.slot is not None:
        _board.clear(worker.slot)
        _counters.take(worker.slot)
    pinned = [(other.age, other.core) for other in living if getattr(other, "core", None) is not None]
    worker.shares = server.num_workers
    _load_keys()
    worker.core = choose_core(Settings.from_env().pin_workers, server.num_workers, pinned)
    global _lifeline
    if _lifeline is None:
        _lifeline = os.pipe()
    if isinstance(worker, FairThreadWorker):  # another class would not let them through again
        _hold_signals_back()


def post_fork(server: Any, worker: Any) -> None:
    """Keep all threads of the worker on one core, and watch the arbiter: the first of those threads."""
    if worker.core is not None:
        os.sched_setaffinity(0, {worker.core})
    if _lifeline is not None:
        os.close(_lifeline[1])
        threading.Thread(target=_watch_arbiter, args=(worker, _lifeline[0]), name="arbiter", daemon=True).start()


def post_worker_init(worker: Any) -> None:
    """Start the application's service, if it has one (benchmarks.hello has none)."""
    service = _service(worker)
    if service is None:
        return
    if isinstance(worker.wsgi, Flask):  # a chunk that cannot be told apart is the client's fault, not ours
        worker.wsgi.register_error_handler(ParseException, problems.unreadable)
        if worker.slot is not None:
            service.metrics.share(_counters, worker.slot)
    if isinstance(service, Service):
        service.share_memory(worker.shares)
    try:
        service.start()
    except ConfigError as error:  # the journal refused: say so without a traceback, and stop the server
        for fault in error.faults:
            worker.log.error("Refusing to start: %s", fault)  # noqa: TRY400 (the fault says it all)
        sys.exit(Arbiter.WORKER_BOOT_ERROR)


def worker_exit(server: Any, worker: Any) -> None:
    """Flush and close the service. Gunicorn may call this in the arbiter too, where the application was never
    loaded.
    """
    service = _service(worker)
    if service is not None:
        service.close()


def child_exit(server: Any, worker: Any) -> None:
    """Clear the slot: a worker that was killed could not."""
    if worker.slot is not None:
        _board.clear(worker.slot)
        _counters.leave(worker.slot)


def on_exit(server: Any) -> None:
    """Leave the journal ready to be copied or replaced."""
    try:
        put_away(Settings.from_env().journal)
    except (ConfigError, JournalUnavailable) as error:
        server.log.info("The journal was left as it is: %s", error)


def _service(worker: Any) -> Any:
    return getattr(getattr(worker, "wsgi", None), "extensions", {}).get("statsapi")
