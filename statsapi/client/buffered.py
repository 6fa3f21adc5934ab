"""The buffered sender: record() returns at once, and a thread sends the recorded events in batches, in their order.

A batch is sent under one Idempotency-Key until the service has acknowledged it. So every event that was taken counts
once, as long as this process lives; with a spool, also if it does not. Where this promise cannot be kept, the sender
reports it: to `on_problem`, or as a StatsapiWarning.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from statsapi.client import lifecycle
from statsapi.client.backlog import Backlog
from statsapi.client.delivery import Delivery
from statsapi.client.errors import BufferFull, Closed, SpoolError, Undelivered
from statsapi.client.events import Number, Tags, Timestamp, encode_event, line_of
from statsapi.client.http import Transport
from statsapi.client.problems import Problem, Reporter
from statsapi.client.recorder import Recorder

WhenFull = Literal["block", "drop", "raise"]


class Stats(NamedTuple):
    """Events since the sender began, in this process. `sent` events were acknowledged, `pending` ones were not yet.
    `expired` of the sent events count nowhere, as they are older than everything the service keeps.
    """

    taken: int
    sent: int
    pending: int
    dropped: int
    refused: int
    unsure: int
    failures: int  # failed attempts in a row
    last_error: str | None
    expired: int = 0


class Buffered(Recorder):
    """Takes events immediately and sends them in the background. Any number of threads may record.

    A batch is sent when it holds `batch_events`, or when its first event has waited for `flush_s`. At most `max_events`
    wait to be acknowledged; then record() waits (`when_full="block"`), drops and counts the event ("drop"), or raises
    BufferFull ("raise"). An attempt without an answer is repeated under the same key for as long as it takes, after
    growing pauses of up to 30 s and not before Retry-After.

    With a directory as `spool` record() returns when the event is on disk (fsync), and a start sends what earlier
    processes left there. `key_lifetime_s` is the service's STATSAPI_IDEMPOTENCY_TTL: a batch whose outcome was unknown
    for longer is not sent again, as it might count twice. It is reported, and kept in the spool's folder `aside`.

    In the child of a fork it begins empty: the parent sends the events taken before. At the end of a process it closes
    itself, but not if SIGTERM without a handler ends Python.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        max_events: int = 100_000,
        flush_s: float = 1.0,
        when_full: WhenFull = "block",
        batch_events: int = 5_000,
        spool: str | Path | None = None,
        on_problem: Callable[[Problem], None] | None = None,
        key_lifetime_s: float = 86_400.0,
        clock_s: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        chance: Callable[[], float] = random.random,
        background: bool = True,
    ) -> None:
        if when_full not in ("block", "drop", "raise"):
            raise ValueError(f"when_full is {when_full!r}, and may be block, drop or raise")
        if max_events < 1 or batch_events < 1 or flush_s < 0:
            raise ValueError("max_events and batch_events must be at least 1, and flush_s no less than 0")
        self._max_events = max_events
        self._when_full: WhenFull = when_full
        self._batch_events = min(batch_events, max_events)
        self._is_dropping = False
        self._reporter = Reporter(on_problem)
        directory = None if spool is None else Path(spool).absolute()
        self._backlog = backlog = Backlog(directory, self._reporter, clock_s=clock_s, now_us=now_us)
        self._delivery = Delivery(
            transport,
            backlog,
            self._reporter,
            flush_s=flush_s,
            key_lifetime_s=key_lifetime_s,
            chance=chance,
            background=background,
        )
        with backlog.changed:
            backlog.outbox()
            if backlog.totals.taken:
                self._delivery.start()
        lifecycle.watch(self)

    # -- methods for programs ----------------------------------------------------------------------------------------

    def record(
        self, value: Number, timestamp: Timestamp | None = None, series: str | None = None, tags: Tags | None = None
    ) -> bool:
        """Take one event; its time is now unless given. False if it was dropped. With a spool it waits for an fsync.

        TypeError, ValueError: the arguments make no event. BufferFull, Closed, SpoolError: the event was not taken.
        """
        return self._take([encode_event(value, timestamp, series, tags, self._backlog.now_us())]) == 1

    def record_many(
        self,
        events: Iterable[Mapping[str, Any] | tuple[Any, ...]],
        *,
        series: str | None = None,
        tags: Tags | None = None,
    ) -> int:
        """Take many events, written as for Client.record_many(). Returns how many were taken. With a spool each batch
        waits for one fsync.
        """
        lines = (line_of(event, series, tags, self._backlog.now_us()) for event in events)
        taken = 0
        while batch := list(islice(lines, self._batch_events)):
            taken += self._take(batch)
        return taken

    def stats(self) -> Stats:
        backlog = self._backlog
        with backlog.changed:
            totals = backlog.totals
            return Stats(
                totals.taken,
                totals.sent,
                backlog.pending,
                totals.dropped,
                totals.refused,
                totals.unsure,
                self._delivery.failures,
                backlog.last_error,
                totals.expired,
            )

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all events taken before this call are settled. Raises Undelivered after `timeout_s`."""
        backlog = self._backlog
        end_s = None if timeout_s is None else backlog.clock_s() + timeout_s
        with backlog.changed:
            if backlog.box is None:  # a child of a fork that has taken nothing
                return
            totals, target = backlog.totals, backlog.totals.taken
            backlog.box.seal()
            backlog.changed.notify_all()
            while totals.settled < target:
                left_s = None if end_s is None else end_s - backlog.clock_s()
                if backlog.is_closed or (left_s is not None and left_s <= 0):
                    raise self._undelivered(target - totals.settled)
                backlog.changed.wait(left_s)

    def step(self) -> float | None:
        """One step of the sender's thread: make an attempt, or return the seconds until there is something to do (None:
        until something is recorded). For programs with a loop of their own, and for tests (`background=False`).
        """
        return self._delivery.step()

    def close(self, timeout_s: float = 10.0) -> None:
        """Send the pending events and stop. No attempt begins after `timeout_s`; one under way is waited for.

        Raises Undelivered if events were not acknowledged by then. With a spool they are kept there, without an error.
        """
        backlog = self._backlog
        with backlog.changed:
            thread = self._delivery.thread
            if not backlog.is_closed:
                backlog.is_closed = True
                backlog.end_s = backlog.clock_s() + timeout_s
                if backlog.box is not None:
                    backlog.box.seal()
            backlog.changed.notify_all()
        if thread is not None:
            thread.join()
        with backlog.changed:
            box, backlog.box = backlog.box, None
            if box is None:
                return
            box.close()
            left = backlog.pending
        if left and backlog.spool is None:
            raise self._undelivered(left)

    def __enter__(self) -> Buffered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Undelivered as failure:
            if error is None:
                raise
            error.add_note(f"statsapi: {failure}")

    def _undelivered(self, events: int) -> Undelivered:
        spool, last = self._backlog.spool, self._backlog.last_error or "no answer yet"
        where = "they are lost when the process ends" if spool is None else f"they are kept in {spool}"
        message = f"{events} events were not acknowledged in time, {where}; last: {last}"
        return Undelivered(message, events=events, kept=spool is not None)

    # -- taking ------------------------------------------------------------------------------------------------------

    def _take(self, lines: list[str]) -> int:
        """Take the first of the lines, as many as there is room for. Returns how many. Holds the lock until they are in
        the outbox, and not while they go to disk.
        """
        backlog = self._backlog
        with backlog.changed:
            lines = lines[: self._make_room(len(lines))]
            if not lines:
                return 0
            box, totals = backlog.outbox(), backlog.totals
            token, begins_batch = backlog.add(lines, self._batch_events)
            if begins_batch:
                self._delivery.start()
        if token is not None:
            try:
                box.sync(token)
            except SpoolError:
                with backlog.changed:
                    totals.settled += len(lines)
                    backlog.changed.notify_all()
                raise
        return len(lines)

    def _make_room(self, count: int) -> int:
        """How many of `count` events may be taken. Caller holds the lock."""
        backlog = self._backlog
        while not backlog.is_closed and backlog.pending + count > self._max_events:
            if self._when_full == "raise":
                raise BufferFull(
                    f"{self._max_events} events wait to be acknowledged (max_events), and {count} more were not taken; "
                    f"last: {backlog.last_error or 'no answer yet'}"
                )
            if self._when_full == "drop":
                room = max(0, self._max_events - backlog.pending)
                backlog.totals.dropped += count - room
                if not self._is_dropping:
                    self._is_dropping = True
                    self._reporter.tell(
                        "dropped", count - room, "the buffer is full: events are dropped and counted in stats().dropped"
                    )
                return room
            self._delivery.start()
            backlog.changed.wait()
        if backlog.is_closed:
            raise Closed("the sender was closed; the event was not taken")
        self._is_dropping = False
        return count

    # -- ends and forks ----------------------------------------------------------------------------------------------

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except Undelivered as error:
            self._reporter.tell("undelivered", error.events, str(error))

    def _forked(self) -> None:
        """In the child of a fork. The parent sends what it has taken. Locks are new: its threads may have held them."""
        box = self._backlog.box
        self._backlog.start_empty()
        self._delivery.start_empty()
        self._is_dropping = False
        if box is not None:
            box.forget()
