"""What the service does, as orders of steps: record, ask, keep house. Knows no HTTP and no engine.

Recording appends to the journal and nothing else. Reading first catches the view up with the journal, then asks it; so
what any worker acknowledged before the question is in the answer. Clocks decide which part of the state a question
covers; they never change the state, only records do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from statsapi.config import GRACE_US, Settings
from statsapi.errors import InvalidEvents, JournalUnavailable, StatsError
from statsapi.journal import Journal, Proposal
from statsapi.model import EventBatch
from statsapi.store import Held, Store
from statsapi.summary import Summary
from statsapi.times import MINUTE_US, floor_minute_us, format_duration
from statsapi.view import View

logger = logging.getLogger("statsapi")

# How long a read waits for a replay before it is told to come back.
READ_WAIT_S: Final = 10.0

HOUSEKEEPING_INTERVAL_S: Final = 1.0


class Recorded(NamedTuple):
    """now_us: the journal's time of the record. expired: how many of the events are older than everything kept."""

    now_us: int
    stored: int
    expired: int


class Service:
    """Opens its journal with the first use or `start()`, in the process that uses it: never before a fork.

    open_journal: called once. clock_us: microseconds since 1970 UTC. background: keep house in a thread of its own,
    once a second; without it, `keep_house()` is the caller's (tests).
    """

    def __init__(
        self,
        settings: Settings,
        open_journal: Callable[[], Journal],
        clock_us: Callable[[], int],
        *,
        background: bool = True,
    ) -> None:
        self.settings = settings
        self._open_journal = open_journal
        self._clock_us = clock_us
        self._background = background
        self._keep_us = settings.retention_us + GRACE_US
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._housekeeper: threading.Thread | None = None
        self._view: View | None = None
        self._tidied_minute_us: int | None = None

    def start(self) -> None:
        """Open the journal and begin the replay in the background. Safe to call twice; raises JournalRefused.

        A journal that is not available now is not waited for: it is tried again once a second and by each request.
        """
        with self._starting:
            if self._background and self._housekeeper is None and not self._stopping.is_set():
                self._housekeeper = threading.Thread(target=self._housekeeping, name="housekeeping", daemon=True)
                self._housekeeper.start()
        try:
            self.view()
        except JournalUnavailable as error:
            logger.warning("starting without the journal: %s", error)

    def close(self) -> None:
        """Stop the background thread and flush and close the journal. Safe to call twice."""
        self._stopping.set()
        if self._housekeeper is not None:
            self._housekeeper.join()
        with self._starting:  # nobody opens one any more
            if self._view is not None:
                self._view.journal.close()

    def view(self) -> View:
        """The view, with the journal opened by whoever comes first."""
        if self._view is None:
            with self._starting:
                if self._stopping.is_set():
                    raise JournalUnavailable("the service is shutting down")
                if self._view is None:
                    journal = self._open_journal()
                    logger.info("%s", journal.promise)
                    self._view = View(journal, self._keep_us)
        return self._view

    def now_us(self) -> int:
        """The clock, but never before the last record seen: what was recorded has happened."""
        return max(self._clock_us(), self.view().last_caught_up().appended_us)

    def record(self, batch: EventBatch) -> Recorded:
        """Append the batch as one record; when this returns it is as durable as configured.

        Raises InvalidEvents (nothing is recorded then) and JournalUnavailable.
        """
        self._refuse_far_future(batch)
        appended = self.view().journal.append(Proposal(batch))
        kept_from_us = floor_minute_us(appended.appended_us - self._keep_us)
        expired = sum(int(np.count_nonzero(part.ts_us < kept_from_us)) for part in batch.parts)
        return Recorded(appended.appended_us, len(batch) - expired, expired)

    def _refuse_far_future(self, batch: EventBatch) -> None:
        skew_us = self.settings.max_future_skew_us
        if skew_us is None:
            return
        latest_us = self._clock_us() + skew_us
        if any(int(part.ts_us.max()) > latest_us for part in batch.parts if len(part.ts_us)):
            raise InvalidEvents(
                [
                    {
                        "field": "timestamp",
                        "reason": f"lies more than {format_duration(skew_us)} ahead of the server's clock "
                        "(STATSAPI_MAX_FUTURE_SKEW)",
                    }
                ]
            )

    def summarise(self, series: str) -> Summary:
        """The exact summary of the default window, without an upper end, of everything acknowledged so far."""
        store = self._caught_up()
        return store.summarise(series, self._now_after(store) - self.settings.window_us, None)

    def held_events(self, series: str, limit: int, *, late_only: bool) -> tuple[int, Held]:
        """(now_us, a page of the raw events and late arrivals of a series, newest first)."""
        store = self._caught_up()
        now_us = self._now_after(store)
        return now_us, store.held(series, store.kept_from_us(now_us), limit, late_only=late_only)

    def _caught_up(self) -> Store:
        return self.view().catch_up(wait_s=READ_WAIT_S)

    def _now_after(self, store: Store) -> int:
        return max(self._clock_us(), store.appended_us)

    def keep_house(self) -> None:
        """Catch up and let the journal do its upkeep; once a minute also expire and compact. Every worker does so.

        What is due is decided by the clock and the journal alone, so a test with a clock of its own can call it.
        """
        view = self.view()
        store = view.catch_up()
        now_us = self._clock_us()
        if floor_minute_us(now_us) != self._tidied_minute_us:  # the horizon moves by whole minutes
            if now_us - store.appended_us >= MINUTE_US and self._holds_expired(store, now_us):
                self._tick(now_us)
                store = view.catch_up()
            store.expire()
            view.compact()
            self._tidied_minute_us = floor_minute_us(now_us)
        view.journal.maintain()

    def _holds_expired(self, store: Store, now_us: int) -> bool:
        oldest_us = store.oldest_ts_us()
        return oldest_us is not None and oldest_us < store.kept_from_us(now_us)

    def _tick(self, now_us: int) -> None:
        """Append an empty record where nobody records any more: only records move the horizon of every view."""

        def unless_another_did() -> Proposal:
            store = self.view().catch_up()
            return Proposal(EventBatch(()) if now_us - store.appended_us >= MINUTE_US else None)

        self.view().journal.append(unless_another_did)

    def _housekeeping(self) -> None:
        while True:
            started_s = time.monotonic()
            try:
                self.keep_house()
            except StatsError as error:
                logger.warning("housekeeping waits for the journal: %s", error)
            except Exception:
                # Logged in full and tried again: without this thread nothing would expire any more.
                logger.exception("housekeeping failed")
            if self._stopping.wait(max(0.0, started_s + HOUSEKEEPING_INTERVAL_S - time.monotonic())):
                return
