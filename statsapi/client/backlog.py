"""Events that a buffered sender has taken and not settled: shared by threads that record and the thread that sends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from statsapi.client.errors import SpoolError
from statsapi.client.outbox import Memory, Outbox
from statsapi.client.problems import Reporter

# nginx takes a body of 1 MiB unless told otherwise.
_BATCH_BYTES: Final = 900_000
_ADOPT_EVERY_S: Final = 60.0


@dataclass
class Totals:
    """Events since the sender began, in this process."""

    taken: int = 0
    expired: int = 0
    settled: int = 0  # no longer pending: sent, refused or given up
    sent: int = 0
    dropped: int = 0
    refused: int = 0
    unsure: int = 0


class Backlog:
    """The outbox, its open batch, and the totals, behind the one lock of a sender.

    The lock is `changed`. The caller holds it while reading or writing an attribute or calling a method, except for the
    constructor and `start_empty`, which run before other threads exist. It is notified of everything that a thread may
    wait for: events to send, settled events, the end. It is not held during an fsync of events or a request to the
    service. Problems are reported without it, except `dropped` and `damaged` ones; the lock is reentrant, so a callback
    may record.
    """

    def __init__(
        self,
        spool: Path | None,
        reporter: Reporter,
        *,
        clock_s: Callable[[], float],
        now_us: Callable[[], int],
    ) -> None:
        self.spool = spool
        self.clock_s = clock_s
        self.now_us = now_us
        self.is_closed = False
        self._reporter = reporter
        self.start_empty()

    def start_empty(self) -> None:
        """Begin without events: in the constructor, and in the child of a fork."""
        self.changed = threading.Condition()
        self.totals = Totals()
        self.box: Outbox[Any] | None = None
        self.end_s: float | None = None  # after close(): no attempt begins later than this
        self.last_error: str | None = None  # why the last attempt failed
        self.opened_s = 0.0  # when the first event of the open batch came
        self.adopt_at_s = 0.0
        self._open_bytes = 0

    @property
    def pending(self) -> int:
        return self.totals.taken - self.totals.settled

    def is_late(self) -> bool:
        """Whether no attempt may begin any more."""
        return self.end_s is not None and self.clock_s() >= self.end_s

    def outbox(self) -> Outbox[Any]:
        """The outbox, made at the first call; in the child of a fork, when the first event is taken."""
        if self.box is None:
            self.box = self._open_outbox()
            self.totals.taken += self.box.adopted
            self.adopt_at_s = self.clock_s() + _ADOPT_EVERY_S
            self._tell_damage(self.box)
        return self.box

    def _open_outbox(self) -> Outbox[Any]:
        if self.spool is None:
            return Memory()
        from statsapi.client.spool import Spool  # needs POSIX

        return Spool(self.spool, self.now_us())

    def add(self, lines: list[str], batch_events: int) -> tuple[Any, bool]:
        """Add these events to the open batch, which is sealed when it holds `batch_events`. Returns the token for the
        outbox's `sync`, and whether the events begin a batch.
        """
        box = self.outbox()
        was_open = box.open_events()
        token = box.add(lines, self.now_us())
        self.totals.taken += len(lines)
        self._open_bytes += sum(map(len, lines))
        begins = not was_open or box.open_events() < was_open
        if begins:
            self.opened_s = self.clock_s()
            self.changed.notify_all()
        if was_open + len(lines) >= batch_events or self._open_bytes >= _BATCH_BYTES:
            self.seal()
            self.changed.notify_all()
        return token, begins

    def seal(self) -> None:
        """Close the open batch, so that it can be sent."""
        self.outbox().seal()
        self._open_bytes = 0

    def adopt(self) -> None:
        """Take over the events that ended processes left in the spool."""
        box = self.outbox()
        self.adopt_at_s = self.clock_s() + _ADOPT_EVERY_S
        self.seal()  # events are sent in the order of taking; flush() relies on it
        try:
            self.totals.taken += box.adopt()
        except SpoolError as error:
            self.last_error = str(error)
        self._tell_damage(box)

    def settle(self, events: int) -> None:
        """This many events are no longer pending."""
        self.totals.settled += events
        self.changed.notify_all()

    def _tell_damage(self, box: Outbox[Any]) -> None:
        for message, lost in box.damaged:
            self._reporter.tell("damaged", lost, message)
        box.damaged.clear()
