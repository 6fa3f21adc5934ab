"""The hooks that Gunicorn's configuration names, in the order in which Gunicorn calls them.

The arbiter (the parent process) sets its decisions for a worker on the worker object before the fork, so that both
sides see them:

    pre_fork          arbiter   gives the worker a slot on the board and a core
    post_fork         worker    pins itself to that core, and ends with the arbiter
    post_worker_init  worker    starts the application's service: files and threads belong after the fork
    worker_exit       worker    closes the service and flushes acknowledged records
    child_exit        arbiter   clears the slot, even if the worker was killed
    on_exit           arbiter   leaves the journal as one file

Gunicorn does not kill a worker that hangs before its first heartbeat. So the service's `start()` must not wait for
anything that may never come.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from flask import Flask
from gunicorn.http.errors import ParseException

import statsapi.app  # noqa: F401 - so that the arbiter holds all code: a later worker must not mix old and new files
from statsapi import tokens
from statsapi.api import problems
from statsapi.config import Settings, read_one
from statsapi.errors import ConfigError, JournalUnavailable
from statsapi.journal import engine_of, open_journal
from statsapi.keys import Keys
from statsapi.machine import allowed_cores, cpu_limit
from statsapi.routes import require_prefix
from statsapi.server.addresses import faults_of_addresses
from statsapi.server.board import Board
from statsapi.server.interpreter import hand_over_soon, keep_freed_memory, make_full_collections_rare
from statsapi.server.logger import log_as_gunicorn_does
from statsapi.server.pinning import choose_core
from statsapi.server.worker import (
    FairThreadWorker,
    board,
    counters,
    hold_signals_back,
    open_lifeline,
    service_of,
    watch_arbiter,
)
from statsapi.service.service import Service


def default_workers() -> int:
    """One worker for each usable core, at most four, as each may hold all live events in its own memory."""
    if _is_memory_only():
        return 1
    return int(max(1, min(len(allowed_cores()) or os.cpu_count() or 1, cpu_limit(), 4)))


def _is_memory_only() -> bool:
    """Whether the journal lives in one process's memory, so that a second worker would give wrong answers."""
    try:
        return engine_of(read_one("journal")).single_process
    except ConfigError:
        return False  # on_starting reports the fault


def worker_class() -> str:
    """The path of the worker class, with or without shortcuts."""
    try:
        short = read_one("shortcuts")
    except ConfigError:
        short = True  # on_starting reports the fault
    return f"statsapi.server.worker.{'ShortWorker' if short else 'FairThreadWorker'}"


def on_starting(server: Any) -> None:
    """Refuse to start with settings that cannot work: one line for each fault, exit status 78 (EX_CONFIG)."""
    log_as_gunicorn_does(server.log.error_log)
    faults: list[str] = []
    promise = ""
    try:
        Settings.from_env()
    except ConfigError as error:
        faults += error.faults
    try:
        # Opened and closed here, before the fork: a journal that is refused in several workers at once ends in a
        # traceback.
        opened = open_journal(
            read_one("journal"), fsync=read_one("fsync"), wait_replicas=read_one("redis_wait_replicas")
        )
        promise = opened.promise
        opened.close()
    except ConfigError as error:
        faults += error.faults
    except JournalUnavailable as error:
        server.log.warning("starting without the journal: %s", error)
    for load in (_load_keys, _load_token_keys, _check_prefix):
        try:
            load()
        except ConfigError as error:
            faults += error.faults
    faults += faults_of_addresses(server)
    if server.num_workers < 1:
        faults.append(
            f"{server.num_workers} workers cannot answer anything: set --workers or WEB_CONCURRENCY to 1 or more"
        )
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
        server.pidfile.unlink()  # Gunicorn has written it already, and does not remove it on this path
    sys.exit(os.EX_CONFIG)


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Keep one worker with memory://, even if TTIN asks for more. At start (`old` is None) on_starting refuses."""
    if old is not None and new > 1 and _is_memory_only():
        server.log.warning("Staying at one worker: STATSAPI_JOURNAL=memory:// keeps events in one process")
        server.num_workers = 1


def on_reload(server: Any) -> None:
    """HUP with memory://: stop the old worker before Gunicorn starts the new one.

    The old worker's events are lost, as by a restart, and the log says so. Gunicorn would run both workers side by side
    for a while, each with its own events. So the old one finishes first, and new connections wait in the listen queue.
    """
    if not _is_memory_only():
        return
    server.log.warning("Reloading with STATSAPI_JOURNAL=memory://: all events held are lost")
    server.cfg.set("workers", 1)  # a reload starts as many as the file says before it calls nworkers_changed
    server.kill_workers(signal.SIGTERM)
    deadline = time.monotonic() + server.cfg.graceful_timeout
    while server.WORKERS and time.monotonic() < deadline:
        server.reap_workers()
        time.sleep(0.02)
    server.kill_workers(signal.SIGKILL)


def _load_keys() -> None:
    """Let the workers inherit the keys that the arbiter read last: see statsapi.keys."""
    file, entries = read_one("api_keys_file"), read_one("api_keys")
    if file or entries:
        Keys(file, entries)


def _load_token_keys() -> None:
    if key := read_one("jwt_key"):
        tokens.read_key(key)
    if key_set := read_one("jwt_jwks_file"):
        tokens.load(key_set)


def _check_prefix() -> None:
    require_prefix(read_one("path_prefix") or "")


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker a slot that no living worker has, and a core.

    Both follow from the living workers, so replacement, HUP, TTIN and TTOU need no state of their own.
    """
    living = list(server.WORKERS.values())
    taken = {getattr(other, "slot", None) for other in living}
    worker.slot = next((slot for slot in range(Board.SLOTS) if slot not in taken), None)
    pinned = [(other.age, other.core) for other in living if getattr(other, "core", None) is not None]
    worker.shares = server.num_workers
    _load_keys()
    worker.core = choose_core(Settings.from_env().pin_workers, pinned)
    if worker.slot is not None:
        board.take(worker.slot, worker.core)
        counters.assign(worker.slot)
    open_lifeline()
    if isinstance(worker, FairThreadWorker):  # another class would never unblock the signals
        hold_signals_back()


def post_fork(server: Any, worker: Any) -> None:
    """Pin the worker, then start its first thread, which watches the arbiter: all threads inherit the core."""
    if worker.core is not None:
        os.sched_setaffinity(0, {worker.core})
    watch_arbiter(worker)


def post_worker_init(worker: Any) -> None:
    """Start the application's service, if it has one (benchmarks.hello has none)."""
    make_full_collections_rare()
    hand_over_soon()
    keep_freed_memory()
    service = service_of(worker)
    if service is None:
        return
    if isinstance(worker.wsgi, Flask):  # a malformed chunk is the client's fault, not ours
        worker.wsgi.register_error_handler(ParseException, problems.unreadable)
        if worker.slot is not None:
            service.metrics.share(counters, worker.slot)
    if isinstance(service, Service):
        service.share_memory(worker.shares)
    service.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Flush and close the service. Gunicorn may call this in the arbiter too, where no application was loaded."""
    service = service_of(worker)
    if service is not None:
        service.close()


def child_exit(server: Any, worker: Any) -> None:
    """Clear the slot, as a killed worker could not."""
    if worker.slot is not None:
        board.clear(worker.slot)
        counters.release(worker.slot)


def on_exit(server: Any) -> None:
    """Leave the journal ready to be copied or replaced."""
    try:
        engine_of(read_one("journal")).put_away()
    except (ConfigError, JournalUnavailable) as error:
        server.log.info("the journal was left as it is: %s", error)
