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
from gunicorn.config import Config
from gunicorn.http.errors import ParseException

import statsapi.app  # noqa: F401 - so that the arbiter holds all code: a later worker must not mix old and new files
from statsapi.api import problems
from statsapi.config import Settings, read_one
from statsapi.errors import ConfigError, JournalUnavailable
from statsapi.journal import engine_of, open_journal
from statsapi.machine import allowed_cores, cpu_limit
from statsapi.server import descriptors
from statsapi.server.addresses import faults_of_addresses
from statsapi.server.board import Board
from statsapi.server.checks import (
    concurrency_faults,
    journal_faults,
    load_keys,
    lone_engine,
    most_workers,
    settings_faults,
)
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
from statsapi.service.admission import max_events_told, shared_max_events
from statsapi.service.service import Service

# What the arbiter has logged of what the journal keeps, and of the limit on events, so that no worker says it again.
_promise = ""
_max_events = 0


def default_workers() -> int:
    """One worker for each usable core, at most four, as each may hold all live events in its own memory."""
    if lone_engine():
        return 1
    return int(max(1, min(len(allowed_cores()) or os.cpu_count() or 1, cpu_limit(), 4)))


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
    global _promise, _max_events
    faults = settings_faults()
    faults += (counts := concurrency_faults(server.cfg))
    if not counts:
        descriptors.count_taken(server.cfg)
        descriptors.raise_limit(server.cfg)
    if not counts and (fault := descriptors.fault(server.cfg)):
        faults.append(fault)  # what else could not be opened would be blamed in vain
    else:
        try:
            # Opened and closed here, before the fork: a journal that is refused in several workers at once ends in a
            # traceback.
            opened = open_journal(
                read_one("journal"), fsync=read_one("fsync"), wait_replicas=read_one("redis_wait_replicas")
            )
            _promise = opened.promise
            opened.close()
        except ConfigError as error:
            faults += error.faults
        except JournalUnavailable as error:
            server.log.warning("Starting without the journal: %s", error)
        faults += faults_of_addresses(server)
    if server.master_pid and (engine := lone_engine()):  # USR2: a second arbiter beside the first
        faults.append(
            f"STATSAPI_JOURNAL={engine.kind}:// cannot be upgraded in place (USR2): a second server beside the first "
            "would answer from its own events; stop and start instead"
        )
    if not faults:
        if _promise:
            server.log.info("%s", _promise)
        _max_events = shared_max_events(read_one("max_events"), server.cfg.workers)
        server.log.info("%s", max_events_told(_max_events))
        if shortage := descriptors.shortage(server.cfg):
            server.log.warning("%s", shortage)
        _hear_stops_at_once(server)
        return
    for fault in faults:
        server.log.error("Refusing to start: %s", fault)
    if server.pidfile is not None:
        server.pidfile.unlink()  # Gunicorn has written it already, and does not remove it on this path
    sys.exit(os.EX_CONFIG)


def _hear_stops_at_once(server: Any) -> None:
    """Let a stop end the wait of a reload, and leave out the reloads that were asked for before it. The arbiter only
    queues each signal, and a reload looks at none of them until the old workers have ended. These wait for their
    successors for up to 10 s, after which Docker kills. With four workers, a stop after eight HUPs within 4 s took 8 s.
    """
    queue, reload = server.signal, server.reload
    stops = False

    def handle(number: int, frame: Any) -> None:
        nonlocal stops
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            stops = True
            board.stop()
        queue(number, frame)

    def reload_unless_it_stops() -> None:
        if not stops:
            reload()

    server.signal = handle  # what init_signals, which comes next, makes the handler
    server.reload = reload_unless_it_stops


def _validate_and_judge(cfg: Config) -> None:
    """Gunicorn calls this when its configuration is complete. With --check-config and --print-config it calls no hook
    after that, and a setting that cannot work would end in a traceback of the application: so one line for each fault,
    exit status 78. Otherwise `on_starting` judges.
    """
    _validate(cfg)
    if cfg.check_config or cfg.print_config:
        faults = settings_faults() + journal_faults() + concurrency_faults(cfg)
        for fault in faults:
            print(f"statsapi: {fault}", file=sys.stderr)
        if faults:
            sys.exit(os.EX_CONFIG)


_validate = Config.validate
Config.validate = _validate_and_judge


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Keep to the workers that there can be, even if TTIN or a reload asks for more. At start (`old` is None)
    on_starting refuses.
    """
    if old is None or new <= (most := most_workers()):
        return
    if engine := lone_engine():
        server.log.warning("Staying at one worker: STATSAPI_JOURNAL=%s:// keeps events in one process", engine.kind)
    else:
        server.log.warning("Staying at %d workers: one server can have no more", most)
    server.num_workers = most


def on_reload(server: Any) -> None:
    """HUP: start no more workers than there can be. Where the journal lives in one worker, stop the old one before
    Gunicorn starts the new one.

    With memory:// its events are lost, as by a restart, and the log says so. Gunicorn would run both workers side by
    side for a while, each with its own events. So the old one finishes first, and new connections wait in the listen
    queue.
    """
    # A reload starts as many workers as the configuration says before it calls nworkers_changed.
    server.cfg.set("workers", min(server.cfg.workers, most_workers()))
    descriptors.raise_limit(server.cfg)
    engine = lone_engine()
    if engine is None:
        return
    if not engine.is_kept:
        server.log.warning("Reloading with STATSAPI_JOURNAL=%s://: all events held are lost", engine.kind)
    server.kill_workers(signal.SIGTERM)
    deadline = time.monotonic() + server.cfg.graceful_timeout
    while server.WORKERS and time.monotonic() < deadline:
        server.reap_workers()
        time.sleep(0.02)
    server.kill_workers(signal.SIGKILL)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker a slot that no living worker has, and a core.

    Both follow from the living workers, so replacement, HUP, TTIN and TTOU need no state of their own.
    """
    living = list(server.WORKERS.values())
    taken = {getattr(other, "slot", None) for other in living}
    worker.slot = next((slot for slot in range(Board.SLOTS) if slot not in taken), None)
    pinned = [(other.age, other.core) for other in living if getattr(other, "core", None) is not None]
    worker.shares = server.num_workers
    load_keys()
    worker.core = choose_core(Settings.from_env().pin_workers, pinned)
    if worker.slot is not None:
        board.take(worker.slot, worker.core)
        counters.assign(worker.slot)
    open_lifeline()
    if isinstance(worker, FairThreadWorker):  # another class would never unblock the signals
        hold_signals_back()
    elif worker.slot is not None:
        board.started(worker.slot)  # it would never say so, and workers that a reload replaces would wait for it


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
        service.start(_promise, _max_events)
    else:
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
        server.log.info("The journal was left as it is: %s", error)
