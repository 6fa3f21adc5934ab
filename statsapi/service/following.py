"""How a worker follows the journal: one view, opened at its first use, and when it is caught up by which thread.

A question catches the view up first, so its answer holds everything that any worker acknowledged before. While the
journal is away a question may be answered from the view as it was when last level, if the settings allow it. A worker
that records faster than its view follows is slowed down here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from statsapi.clocks import SettledClock, monotonic_us
from statsapi.config import Settings
from statsapi.engine.store import Store
from statsapi.errors import JournalUnavailable, StatsError
from statsapi.journal import Journal, Lost, engine_of
from statsapi.metrics import Metrics
from statsapi.service.images import Images
from statsapi.service.sharing import Sharing
from statsapi.service.view import View
from statsapi.times import format_nearest

logger = logging.getLogger("statsapi")

# How long a read waits for a replay before it gets a 503.
READ_WAIT_S: Final = 10.0

# How long a decision that holds the journal's write lock waits for the view to catch up: others wait behind it.
DECIDE_WAIT_S: Final = 1.0

# A question applies the records since the last catch-up. At full speed a second's worth of batches kept a reader
# waiting for 0.5 to 1.5 s. So a worker that has recorded FOLLOW_EVENTS since its view was level wakes a thread that
# catches up. From PACE_EVENTS on, the recording request itself catches up before it is answered. This is back-pressure:
# no worker acknowledges faster than its view follows, and single events do not pay for it. A worker that records
# nothing checks the journal by itself, again soon after a catch-up that took longer than FOLLOW_BUSY_S.
# Measured with two workers and two connections of batches: the p99 of a GET for batches in order without percentiles,
# in order with percentiles, late without, late with; and the rate of batches.
#     never paced                                1,400 ms
#     woken at 20,000 and paced at 30,000        22, 25, 35 and 65 ms; 3.8 to 4.7 M/s (on a busier machine 25, 30, 52,
#                                                145 ms)
#     woken at 30,000 and paced at 50,000        24, 49, 97 and 316 ms; 3.8 to 5.0 M/s
#     woken by the clock only, each 0.25 or 0.1 s   370 to 970 ms
FOLLOW_EVENTS: Final = 20_000
PACE_EVENTS: Final = 30_000
PACE_WAIT_S: Final = 1.0
FOLLOW_BUSY_S: Final = 0.002
FOLLOW_SOON_S: Final = 0.05
FOLLOW_IDLE_S: Final = 0.25
FOLLOW_AGAIN_S: Final = 1.0

# A worker that records nothing must keep its view level too. If it gets too little of its core for that, its readers
# wait until it has applied everything it lacks. So once any worker lags by PACE_LAG_S, recordings of batches pause
# before they are answered, which leaves the core to that worker. A worker that lags for longer than PACE_GIVES_UP_S is
# stopped or stuck, and nobody waits for it. Measured: the relative rate of batches in order, and the longest wait of
# four readers beside late batches.
#     no pause                        1.0     8,900 ms on a busy machine
#     a pause of 0.2 s from 0.3 s on  0.83      106 ms
#     0.05 s from 0.5 s on            1.0       491 ms
#     0.05 s from 0.3 s on            0.93      132 ms
PACE_LAG_S: Final = 0.3
PACE_PAUSE_S: Final = 0.05
PACE_GIVES_UP_S: Final = 10.0

# A circuit breaker: when a catch-up took longer than AWAY_SLOW_S to fail, questions are answered from the last level
# state for AWAY_HOLDS_S. In that time only one of them, and housekeeping, waits for the journal. A journal that fails
# at once is asked each time.
AWAY_SLOW_S: Final = 0.25
AWAY_HOLDS_S: Final = 1.0


class Follower:
    """This worker's view of its journal. Any thread may call any method.

    open_journal: called once, in the process that uses it. on_open: called when the view has been made.
    """

    def __init__(
        self,
        settings: Settings,
        open_journal: Callable[[], Journal],
        clock_us: Callable[[], int],
        metrics: Metrics,
        on_open: Callable[[], None],
    ) -> None:
        self.promise_said = ""  # in the log already
        self.has_followed = False
        """Whether the first replay has ended or failed."""
        # Only for a remote engine: a local file that cannot be read needs a person to repair it.
        self._serves_stale = settings.stale_reads == "serve" and engine_of(settings.journal).is_remote
        self._retention = settings.retention()
        self._shares_events = settings.share_events
        self._images: Images | None = None
        self._sharing: Sharing | None = None
        self._open_journal = open_journal
        self._clock_us = clock_us
        self.monotonic_us: Callable[[], int] = getattr(clock_us, "monotonic_us", monotonic_us)
        self._metrics = metrics
        self._on_open = on_open
        self._opening = threading.Lock()
        self._closed = False
        self._view: View | None = None
        self._replay_began_s: float | None = None
        # Until this time questions are answered without the journal. Threads write it without a lock: at worst a race
        # makes one more question wait, or gives one more stale answer while the journal is away.
        self._asks_again_s = -math.inf
        self._recorded_since_level = 0
        self._work = threading.Event()

    def view(self) -> View:
        """The view; the first caller opens the journal. Raises JournalRefused and JournalUnavailable."""
        if self._view is None:
            with self._opening:
                if self._closed:
                    raise JournalUnavailable("the service is shutting down")
                if self._view is None:
                    self._view = self._open()
                    self._on_open()
        return self._view

    def opened(self) -> View | None:
        """The view, if there is one yet."""
        return self._view

    def _open(self) -> View:
        """Caller holds `_opening`."""
        journal = self._open_journal()
        if journal.promise != self.promise_said:
            logger.info("%s", journal.promise)
        logger.info("Opened the journal")
        journal.observe_fsync = self._metrics.fsynced
        self._replay_began_s = time.monotonic()
        self._metrics.caught_up(self.monotonic_us())
        clock = SettledClock(self._clock_us, self._metrics.clock_samples(), self._metrics.share_clock_sample)
        clock.observe_step = self._metrics.clock_stepped
        shared = journal.shared_folder() if self._shares_events else None
        if shared is None:
            view = View(journal, self._retention, clock)
        else:
            self._images = Images(shared.path, self._retention)
            view = View(journal, self._retention, clock, self._images.begin)
            self._sharing = Sharing(view, self._images)
        view.observe_lost = self._tell_lost
        view.observe_broken = self._metrics.view_broke
        view.is_stopping = lambda: self._closed
        journal.settled_us = view.settled_us
        if journal.lost is not None:
            self._tell_lost(journal.lost)
        return view

    def stop(self) -> None:
        """Open no journal from now on, and let `follow` return at once, a replay included. An open view still serves
        until `close`.
        """
        self._closed = True
        self._work.set()

    def close(self) -> None:
        """Flush and close the journal. Safe to call twice."""
        self.stop()
        with self._opening:
            if self._view is not None:
                self._view.journal.close()
            if self._images is not None:
                self._images.close()

    def _tell_lost(self, lost: Lost) -> None:
        """Report in the log, in the metrics and on /readyz that acknowledged records are missing."""
        records = f"at least {lost.records:,}" if lost.records else "an unknown number of"
        since = ", all that there were" if lost.all else ""
        if lost.since_us is not None:
            since = f", recorded after {format_nearest(lost.since_us)}"
        logger.error(
            "LOST: %s acknowledged records are no longer in the journal%s: %s. Answers cover the rest only; restore "
            "the newest copy if there is one",
            records,
            since,
            lost.how,
        )
        view = self._view
        engine_us = None if view is None else view.clock.engine_us()
        self._metrics.lost(lost, self._clock_us() if engine_us is None else engine_us)

    def now_us(self) -> int:
        """The engine's time; the last record's time where that is a little ahead, as a recorded event has happened."""
        view = self.view()
        return view.now_us(view.last_caught_up())

    def settled_us(self, now_us: int) -> int:
        """The time that has stood, at most `now_us`."""
        return min(now_us, self.view().settled_us())

    # -- catching up

    def catch_up(self, wait_s: float | None) -> Store:
        """The store with everything committed before this call; the metrics note that the view is level.

        Raises as `View.catch_up` does.
        """
        began_us = self.monotonic_us()
        store = self.view().catch_up(wait_s=wait_s)
        self._asks_again_s = -math.inf
        self._recorded_since_level = 0  # no lock: a missed event is counted with the next ones
        self._metrics.caught_up(began_us)
        if self._replay_began_s is not None:
            with self._opening:
                if self._replay_began_s is not None:
                    self._metrics.replayed(time.monotonic() - self._replay_began_s)
                    self._replay_began_s = None
        return store

    def catch_up_or_stale(self) -> tuple[Store, float | None]:
        """The store with everything acknowledged before this call, and None.

        While the journal is away, and where stale answers are allowed: the store as it was when last level, and how
        many seconds ago that was. Raises JournalUnavailable otherwise, and ViewNotReady while a replay takes longer
        than READ_WAIT_S.
        """
        began_s = time.monotonic()
        if began_s < self._asks_again_s and (stale := self._stale()) is not None:
            return stale
        if self._asks_again_s > -math.inf:
            self._asks_again_s = began_s + READ_WAIT_S  # this one asks; the others need not wait for it
        try:
            return self.catch_up(READ_WAIT_S), None
        except JournalUnavailable:
            ended_s = time.monotonic()
            self._asks_again_s = ended_s + (AWAY_HOLDS_S if ended_s - began_s > AWAY_SLOW_S else 0)
            if (stale := self._stale()) is None:
                raise
            return stale
        except StatsError:
            self._asks_again_s = -math.inf
            raise

    def _stale(self) -> tuple[Store, float] | None:
        """The store as last level, and its age in s; None where it was never level, or must not be used."""
        view = self._view
        if not self._serves_stale or view is None or (age_s := view.age_s()) == math.inf:
            return None
        return view.last_caught_up(), age_s

    def share(self) -> None:
        """Write or map an image, if that is due (sharing.py)."""
        if self._sharing is not None:
            self._sharing.share()

    # -- keeping pace

    def recorded(self, events: int) -> None:
        """Note that this worker has just appended this many events."""
        self._asks_again_s = -math.inf  # the journal is there, and what was acknowledged must be in the next answer
        self._recorded_since_level += events

    def keep_pace(self, events: int) -> None:
        """Let the new records be applied if they are many, so that the next question need not. From PACE_EVENTS on the
        calling request applies them, and is delayed, unless it appended a single event or none: they came from others
        then. An error is left to that question, as the events are safe in the journal. Recording never waits for a
        replay.
        """
        # Not in `recorded`: its caller still holds the batch, 8 MB for 100,000 series, while the thread applies it.
        if self._recorded_since_level >= FOLLOW_EVENTS:
            self._work.set()
        if events > 1 and self._recorded_since_level >= PACE_EVENTS and self.view().age_s() < math.inf:
            with contextlib.suppress(StatsError, MemoryError):
                self.catch_up(PACE_WAIT_S)
            lag_s = self._metrics.lag_s(self.monotonic_us(), PACE_GIVES_UP_S) or 0.0
            if lag_s > PACE_LAG_S:
                time.sleep(PACE_PAUSE_S)

    def follow(self) -> None:
        """Catch up, then wait until there may be new records. Runs in its own thread."""
        began_s = time.monotonic()
        wait_s = FOLLOW_AGAIN_S
        try:
            with contextlib.suppress(StatsError):  # housekeeping gets the same error, and logs it
                self.catch_up(None)
                wait_s = FOLLOW_SOON_S if time.monotonic() - began_s > FOLLOW_BUSY_S else FOLLOW_IDLE_S
        finally:
            self.has_followed = True  # after any other error too, or each reload would wait for this worker
        self._work.wait(wait_s)
        self._work.clear()
