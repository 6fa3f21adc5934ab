"""The buffered sender: record() returns at once, and a thread sends what was recorded in batches, in its order.

A batch has one Idempotency-Key however often it is sent, and is sent until the service has acknowledged it. So every
event that was taken counts once, as long as this process lives, or with a spool also when it does not. What cannot be
kept to is told: to `on_problem`, or as a StatsapiWarning.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

from statsapi.client.delivery import Attempt
from statsapi.client.errors import (
    BufferFull,
    Closed,
    Conflict,
    Refused,
    SpoolError,
    StatsapiWarning,
    Unavailable,
    Undelivered,
)
from statsapi.client.events import Number, Tags, Timestamp, encode_event, line_of
from statsapi.client.http import Transport, pause_s
from statsapi.client.outbox import Batch, Memory, Outbox
from statsapi.client.recorder import Recorder

WhenFull = Literal["block", "drop", "raise"]
Kind = Literal["unavailable", "dropped", "refused", "unsure", "damaged", "undelivered"]

# nginx takes a body of 1 MiB unless told otherwise.
_BATCH_BYTES: Final = 900_000
_ADOPT_EVERY_S: Final = 60.0
_TOLD_AFTER_S: Final = 30.0  # an outage as long as a restart takes is nobody's business
_LONGEST_PAUSE_S: Final = 30.0


class Problem(NamedTuple):
    """What a sender has to tell.

    `kind` is one of: unavailable (the service has taken nothing for half a minute, or will take nothing from us as
    things are), dropped (the buffer is full), refused (the service will not have these events), unsure (whether they
    count cannot be found out any more), damaged (a file of the spool is not what was written), undelivered (the process
    ends with them). `details` holds the refused events that the service named: {"event", "field", "reason"}.
    """

    kind: Kind
    events: int
    message: str
    details: tuple[dict[str, Any], ...] = ()


class Stats(NamedTuple):
    """Events since the sender began, in this process. `sent` were acknowledged, `pending` wait for it. `expired` of the
    sent ones count nowhere, as they are older than what the service keeps.
    """

    taken: int
    sent: int
    pending: int
    dropped: int
    refused: int
    unsure: int
    failures: int  # attempts in a row that came to nothing
    last_error: str | None
    expired: int = 0


@dataclass
class _Totals:
    taken: int = 0
    expired: int = 0
    settled: int = 0  # no longer pending, whatever became of them
    sent: int = 0
    dropped: int = 0
    refused: int = 0
    unsure: int = 0


class Buffered(Recorder):
    """Takes events at once and sends them in the background. Any number of threads may record.

    A batch is sent when it holds `batch_events`, or when its first event has waited for `flush_s`. At most `max_events`
    wait to be acknowledged; then record() waits (`when_full="block"`), drops and counts the event ("drop"), or raises
    BufferFull ("raise"). An attempt without an answer is repeated under the same key for as long as it takes, after
    growing pauses of up to 30 s and not before Retry-After.

    With a directory as `spool` record() returns when the event is on disk (fsync), and a start sends what earlier
    processes left there. `key_lifetime_s` is the service's STATSAPI_IDEMPOTENCY_TTL: a batch whose outcome was unknown
    for longer is not sent again, as it might count twice, but told, and kept in the spool's folder `aside`.

    In the child of a fork it begins empty: what was taken before is sent by the parent. At the end of a process it is
    closed by itself; SIGTERM without a handler ends Python without that.
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
        self._transport = transport
        self._max_events = max_events
        self._flush_s = flush_s
        self._when_full: WhenFull = when_full
        self._batch_events = min(batch_events, max_events)
        self._spool = None if spool is None else Path(spool).absolute()
        self._on_problem = on_problem
        self._key_lifetime_us = round(key_lifetime_s * 1e6)
        self._clock_s = clock_s
        self._now_us = now_us
        self._chance = chance
        self._background = background
        self._closed = False
        self._start_empty()
        with self._changed:
            self._outbox()
            if self._totals.taken:
                self._start_thread()
        _LIVE.add(self)

    def _start_empty(self) -> None:
        """As it is at first, and in the child of a fork."""
        self._changed = threading.Condition()
        self._totals = _Totals()
        self._box: Outbox[Any] | None = None
        self._open_bytes = 0
        self._opened_s = 0.0  # when the first event of the open batch came
        self._not_before_s = 0.0
        self._adopt_at_s = 0.0
        self._end_s: float | None = None  # after close(): no attempt begins later than this
        self._failures = 0
        self._failing_since_s = 0.0
        self._is_told = False
        self._is_dropping = False
        self._last_error: str | None = None
        self._thread: threading.Thread | None = None

    # -- what a program calls ----------------------------------------------------------------------------------------

    def record(
        self, value: Number, timestamp: Timestamp | None = None, series: str | None = None, tags: Tags | None = None
    ) -> bool:
        """Take one event; the time is now unless given. False where it was dropped. With a spool it waits for
        an fsync.

        TypeError, ValueError: it is no event. BufferFull, Closed, SpoolError: it was not taken.
        """
        return self._take([encode_event(value, timestamp, series, tags, self._now_us())])

    def record_many(
        self,
        events: Iterable[Mapping[str, Any] | tuple[Any, ...]],
        *,
        series: str | None = None,
        tags: Tags | None = None,
    ) -> int:
        """Take many, written as for Client.record_many(); how many were taken. With a spool one fsync for a batch."""
        lines = (line_of(event, series, tags, self._now_us()) for event in events)
        taken = 0
        while batch := list(islice(lines, self._batch_events)):
            taken += len(batch) if self._take(batch) else 0
        return taken

    def stats(self) -> Stats:
        with self._changed:
            totals = self._totals
            return Stats(
                totals.taken,
                totals.sent,
                totals.taken - totals.settled,
                totals.dropped,
                totals.refused,
                totals.unsure,
                self._failures,
                self._last_error,
                totals.expired,
            )

    def flush(self, timeout_s: float | None = None) -> None:
        """Until what was taken before is acknowledged; Undelivered after `timeout_s`."""
        end_s = None if timeout_s is None else self._clock_s() + timeout_s
        with self._changed:
            if self._box is None:  # a child of a fork that has taken nothing
                return
            totals, target = self._totals, self._totals.taken
            self._box.seal()
            self._changed.notify_all()
            while totals.settled < target:
                left_s = None if end_s is None else end_s - self._clock_s()
                if self._closed or (left_s is not None and left_s <= 0):
                    raise self._undelivered(target - totals.settled)
                self._changed.wait(left_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what is left and stop. No attempt begins after `timeout_s`; one that is under way is waited for.

        Undelivered names what was not acknowledged by then; with a spool that is kept there, and no error.
        """
        with self._changed:
            thread = self._thread
            if not self._closed:
                self._closed = True
                self._end_s = self._clock_s() + timeout_s
                if self._box is not None:
                    self._box.seal()
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        with self._changed:
            box, self._box = self._box, None
            if box is None:
                return
            box.close()
            left = self._totals.taken - self._totals.settled
        if left and self._spool is None:
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
        kept = self._spool is not None
        where = f"they are kept in {self._spool}" if kept else "they are lost when the process ends"
        return Undelivered(
            f"{events} events were not acknowledged in time, {where}; last: {self._last_error or 'no answer yet'}",
            events=events,
            kept=kept,
        )

    # -- taking ------------------------------------------------------------------------------------------------------

    def _take(self, lines: list[str]) -> bool:
        count = len(lines)
        with self._changed:
            if not self._make_room(count):
                return False
            box = self._outbox()
            was_open = box.open_events()
            token = box.add(lines, self._now_us())
            self._totals.taken += count
            self._open_bytes += sum(map(len, lines))
            if not was_open or box.open_events() < was_open:
                self._opened_s = self._clock_s()
                self._start_thread()
                self._changed.notify_all()
            if was_open + count >= self._batch_events or self._open_bytes >= _BATCH_BYTES:
                box.seal()
                self._open_bytes = 0
                self._changed.notify_all()
            totals = self._totals
        if token is not None:
            try:
                box.sync(token)
            except SpoolError:
                with self._changed:
                    totals.settled += count
                    self._changed.notify_all()
                raise
        return True

    def _make_room(self, count: int) -> bool:
        """Whether they may be taken. More than ever fit are taken when nothing else waits."""
        most = max(self._max_events, count)
        while not self._closed and self._totals.taken - self._totals.settled + count > most:
            if self._when_full == "raise":
                raise BufferFull(
                    f"{self._max_events} events wait to be acknowledged (max_events), and {count} more were not taken; "
                    f"last: {self._last_error or 'no answer yet'}"
                )
            if self._when_full == "drop":
                self._totals.dropped += count
                if not self._is_dropping:
                    self._is_dropping = True
                    self._tell(
                        "dropped", count, "the buffer is full: events are dropped and counted in stats().dropped"
                    )
                return False
            self._start_thread()
            self._changed.wait()
        if self._closed:
            raise Closed("the sender was closed; the event was not taken")
        self._is_dropping = False
        return True

    def _outbox(self) -> Outbox[Any]:
        """Under the lock. In the child of a fork it is made when something is taken."""
        if self._box is None:
            self._box = self._open_outbox()
            self._totals.taken += self._box.adopted
            self._adopt_at_s = self._clock_s() + _ADOPT_EVERY_S
            self._tell_damage(self._box)
        return self._box

    def _open_outbox(self) -> Outbox[Any]:
        if self._spool is None:
            return Memory()
        from statsapi.client.spool import Spool  # needs POSIX

        return Spool(self._spool, self._now_us())

    def _start_thread(self) -> None:
        if self._background and (self._thread is None or not self._thread.is_alive()) and not self._closed:
            self._thread = threading.Thread(target=self._run, name="statsapi-sender", daemon=True)
            self._thread.start()
            _close_at_the_end_of_this_process()

    # -- sending -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while True:
                    batch, wait_s = self._next()
                    if batch is not None:
                        break
                    if self._closed and (wait_s is None or self._is_late()):
                        return
                    self._changed.wait(wait_s)
                if self._is_late():
                    return
            self._attempt(batch)

    def step(self) -> float | None:
        """What the thread does: one attempt, or else the seconds until there is something to do (None: when something
        is recorded). For programs that run their own loop, and for tests (`background=False`).
        """
        with self._changed:
            batch, wait_s = self._next()
        if batch is None:
            return wait_s
        self._attempt(batch)
        return 0.0

    def _is_late(self) -> bool:
        return self._end_s is not None and self._clock_s() >= self._end_s

    def _next(self) -> tuple[Batch | None, float | None]:
        """Under the lock: the batch to send now, or how long there is nothing to do."""
        box, now_s = self._outbox(), self._clock_s()
        if self._spool is not None and now_s >= self._adopt_at_s and not self._closed:
            self._adopt(box, now_s)
        due_s = None
        if box.head() is None and box.open_events():
            due_s = self._opened_s + self._flush_s
            if now_s >= due_s or self._closed:
                box.seal()
                self._open_bytes = 0
        if (head := box.head()) is not None:
            if now_s >= self._not_before_s:
                return head, 0.0
            due_s = self._not_before_s
        if self._closed:
            if due_s is not None and self._end_s is not None:
                due_s = min(due_s, self._end_s)
        elif self._spool is not None:
            due_s = self._adopt_at_s if due_s is None else min(due_s, self._adopt_at_s)
        return None, None if due_s is None else max(0.0, due_s - now_s)

    def _adopt(self, box: Outbox[Any], now_s: float) -> None:
        self._adopt_at_s = now_s + _ADOPT_EVERY_S
        box.seal()  # what was taken first is sent first, and flush() counts on it
        self._open_bytes = 0
        try:
            self._totals.taken += box.adopt()
        except SpoolError as error:
            self._last_error = str(error)
        self._tell_damage(box)

    def _tell_damage(self, box: Outbox[Any]) -> None:
        for message, lost in box.damaged:
            self._tell("damaged", lost, message)
        box.damaged.clear()

    def _attempt(self, batch: Batch) -> None:
        """Send it once. Whatever is raised, the batch is still there for the next attempt, or is settled."""
        with self._changed:
            box = self._outbox()
        was_tried_us, now_us = batch.tried_us, self._now_us()
        if was_tried_us is not None and now_us - was_tried_us > self._key_lifetime_us:
            self._give_up(
                batch,
                "unsure",
                f"{batch.events} events were sent to {self._transport.url} without an answer, longer ago than the "
                "service remembers keys (key_lifetime_s): to send them again might count them twice",
            )
            return
        attempt = Attempt(self._transport, box, batch)
        try:
            box.begin(batch, now_us)
            attempt.send()
        except Conflict as error:
            if batch.damage:  # it had been recorded, whole, before it was damaged
                self._finish(batch, batch.events, 0)
                return
            self._give_up(batch, "unsure", f"{batch.events} events: {error}", error)
        except Refused as error:
            self._forget_attempt(batch, attempt)
            if error.status == 413 and attempt.was_tried:
                self._give_up(
                    batch,
                    "unsure",
                    f"{batch.events} events were sent without an answer, all or in part, and are too large for the "
                    f"service now: in smaller pieces they might count twice ({error})",
                    error,
                )
            elif error.status == 422 and error.problem:
                self._give_up(batch, "refused", f"{batch.events} events were refused: {error}", error)
            else:  # a wrong key, path or proxy says nothing about the events
                self._wait(str(error), None, tell_after_s=0.0)
        except Unavailable as error:
            if error.outcome == "not recorded":
                self._forget_attempt(batch, attempt)
            self._wait(str(error), error.retry_after_s, tell_after_s=_TOLD_AFTER_S)
        except Exception as error:  # noqa: BLE001 - the thread must go on: an unreadable disk, a fault of ours
            self._wait(f"{type(error).__name__}: {error}", None, tell_after_s=0.0)
        else:
            refused = attempt.refused
            if attempt.rejected:
                with self._changed:
                    box.keep_refused(batch, refused)
                first = f", the first: {refused[0]['field']}: {refused[0]['reason']}" if refused else ""
                told = f"{attempt.rejected} of {batch.events} events were refused{first}"
                self._tell("refused", attempt.rejected, told, refused)
            self._finish(batch, attempt.sent, attempt.rejected, attempt.expired)

    def _forget_attempt(self, batch: Batch, attempt: Attempt) -> None:
        """Nothing of the batch was recorded by this attempt: unless that is not so, or an earlier one is in doubt."""
        if not attempt.was_tried and not attempt.sent:
            with self._changed:
                self._outbox().clear(batch)

    def _finish(self, batch: Batch, sent: int, refused: int, expired: int = 0) -> None:
        with self._changed:
            self._outbox().finish(batch)
            self._totals.sent += sent
            self._totals.expired += expired
            self._totals.refused += refused
            self._settle(batch)

    def _give_up(self, batch: Batch, kind: Kind, message: str, error: Refused | None = None) -> None:
        with self._changed:
            self._outbox().set_aside(batch, {"why": message, "problem": error.problem if error else None})
            setattr(self._totals, kind, getattr(self._totals, kind) + batch.events)
            self._settle(batch)
        self._tell(kind, batch.events, message)

    def _settle(self, batch: Batch) -> None:
        self._totals.settled += batch.events
        self._failures, self._not_before_s, self._is_told = 0, 0.0, False
        self._changed.notify_all()

    def _wait(self, message: str, asked_s: float | None, *, tell_after_s: float) -> None:
        """This attempt came to nothing: the next one is after a pause."""
        with self._changed:
            now_s = self._clock_s()
            if not self._failures:
                self._failing_since_s = now_s
            self._failures += 1
            self._last_error = message
            self._not_before_s = now_s + pause_s(self._failures, asked_s, self._chance(), longest_s=_LONGEST_PAUSE_S)
            tell = not self._is_told and now_s - self._failing_since_s >= tell_after_s
            self._is_told = self._is_told or tell
            pending = self._totals.taken - self._totals.settled
        if tell:
            self._tell("unavailable", pending, f"{pending} events wait for the service: {message}")

    def _tell(self, kind: Kind, events: int, message: str, details: Iterable[dict[str, Any]] = ()) -> None:
        try:
            if self._on_problem is not None:
                self._on_problem(Problem(kind, events, message, tuple(details)))
            else:
                warnings.warn(message, StatsapiWarning, stacklevel=2)
        except Exception as error:  # noqa: BLE001 - a warning made an error, a callback's fault: events go on
            print(f"statsapi: {message} ({type(error).__name__}: {error})", file=sys.stderr)

    # -- ends and forks ----------------------------------------------------------------------------------------------

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except Undelivered as error:
            self._tell("undelivered", error.events, str(error))

    def _forked(self) -> None:
        """In the child. What the parent has taken it sends; locks that its threads held would never be released."""
        box = self._box
        self._start_empty()
        if box is not None:
            box.forget()


_LIVE: Final[weakref.WeakSet[Buffered]] = weakref.WeakSet()
_finalized_pid = os.getpid()


def _close_all() -> None:
    for sender in list(_LIVE):
        sender._close_at_exit()


def _in_child() -> None:
    for sender in list(_LIVE):
        sender._forked()


def _close_at_the_end_of_this_process() -> None:
    """Children of multiprocessing end without atexit, by finalizers of their own, which they forget at their start."""
    global _finalized_pid
    if _finalized_pid != os.getpid():
        _finalized_pid = os.getpid()
        if util := sys.modules.get("multiprocessing.util"):
            util.Finalize(None, _close_all, exitpriority=0)


atexit.register(_close_all)
os.register_at_fork(after_in_child=_in_child)
