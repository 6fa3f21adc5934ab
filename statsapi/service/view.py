"""A view: one worker's store, and how it follows the journal.

The store is the sum of the records up to a mark. Following means reading the records committed after it. Where the
record at the mark no longer stands (HistoryChanged), a new store starts from the checkpoint. The same happens after an
exception in the middle of a change: applying is all or nothing.

Each journal read returns the engine's time, which goes to `clock` (clocks.py). That time is now, and steps that cannot
be undone go by the part of it that has stood.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from statsapi.clocks import SettledClock
from statsapi.engine.contents import State
from statsapi.engine.store import Store
from statsapi.errors import JournalDamaged, JournalUnavailable, ShuttingDown, StatsError, ViewNotReady
from statsapi.journal import CLOCKS_DIFFER_US, START, HistoryChanged, Journal, Lost, Mark, time_after, wall_clock_us
from statsapi.model import MIN_TS_US, Retention
from statsapi.service import checkpoint

logger = logging.getLogger("statsapi")

# While a store catches up with this view, the view moves on. Each time it has less to catch up with.
_CHASES: Final = 4


class _Left(NamedTuple):
    """mark: where a view stood when its history changed. denied: the mark at which that happened last, perhaps in the
    middle of the replay of yet another history.
    """

    mark: Mark
    denied: Mark


class View:
    """Follows `journal`, and holds its events and roll-ups for the `retention`.

    Any thread may call any method. Catching up is serialised by a lock that is taken before the store's and after the
    journal's write lock.
    """

    def __init__(
        self,
        journal: Journal,
        retention: Retention,
        clock: SettledClock | None = None,
        begin: Callable[[Journal], tuple[Store, Mark] | None] = lambda journal: None,
    ) -> None:
        """begin: returns a store and its mark to start from instead of the checkpoint, or None."""
        self.journal = journal
        self._begin_elsewhere = begin
        self.retention = retention
        self.clock = SettledClock(wall_clock_us) if clock is None else clock
        self.observe_lost: Callable[[Lost], None] = lambda lost: None
        """Called when acknowledged records turn out to be missing."""
        self.observe_broken: Callable[[], None] = lambda: None
        """Called when the view starts afresh after an exception in the middle of a change."""
        self.is_stopping: Callable[[], bool] = lambda: False
        """Whether a catch-up without a limit should give up."""
        self._catching_up = threading.Lock()
        self._caught_up_s = -math.inf
        self._failure = ""
        self._failed_s = -math.inf
        self._stands = False  # whether _mark is known to be one of this journal's
        self._changing = False  # True while store and mark may disagree
        self._left: _Left | None = None
        self._mark: Mark = START
        self._end = 0  # the journal's last position, as of the last read
        self._store = Store(retention)
        if journal.local_clock_us is not None:
            self.clock.observe(journal.local_clock_us())

    def catch_up(self, *, wait_s: float | None = None) -> Store:
        """The store, holding everything that was committed before this call.

        Records that come in meanwhile are not waited for, as they may come as fast as they are applied. With nothing
        new it costs one look at the journal (SQLite: a few µs). Do not keep the store: a new one replaces it when
        history changed.

        Raises ViewNotReady when a replay takes longer than `wait_s` (None waits for its end); the replayed part is
        kept, and the next call continues. Without a limit it raises ShuttingDown when the service stops. Raises
        JournalUnavailable where the journal fails, even if it failed another caller while this one waited: each would
        only run into its own timeout. Raises JournalDamaged also for a journal that gives a record and then denies it;
        each later call replays and raises it again. After an exception in the middle of applying, the view starts
        afresh at once; a second exception is raised here.
        """
        asked_s = time.monotonic()
        deadline_s = None if wait_s is None else asked_s + wait_s
        if not self._catching_up.acquire(timeout=-1 if wait_s is None else wait_s):
            raise ViewNotReady(wait_s or 0)
        try:
            if self._failed_s > asked_s:
                raise JournalUnavailable(self._failure)
            if self._caught_up_s >= asked_s and not self._unusable():
                return self._store  # another thread's catch-up began after this call did, and serves both
            began_s = time.monotonic()
            try:
                end: int | None = None  # of the journal, when it was first read for this call
                while self._step_or_start_afresh():
                    if not self._stands:
                        end = None  # another history, with positions of its own
                    elif end is None:
                        end = self._end
                    if end is not None and self._mark.position >= end:
                        break
                    if deadline_s is None and self.is_stopping():
                        raise ShuttingDown
                    if deadline_s is not None and time.monotonic() > deadline_s:
                        raise ViewNotReady(wait_s or 0)
            except JournalUnavailable as error:
                self._failure, self._failed_s = str(error), time.monotonic()
                raise
            self._caught_up_s = began_s
            return self._store
        finally:
            self._catching_up.release()

    def last_caught_up(self) -> Store:
        """The store as the last catch-up left it, without asking the journal: for limits and housekeeping."""
        return self._store

    @property
    def position(self) -> int:
        """The position of the last record applied. No lock: one reference is read."""
        return self._mark.position

    def state(self) -> tuple[Store, Mark, State] | None:
        """The store, its mark, and its whole state; None while the view is not level with a journal.

        Costs 1 µs for each chunk and small series, under the store's lock.
        """
        with self._catching_up:
            if not self._stands or self._unusable():
                return None
            return self._store, self._mark, self._store.contents.state()

    def change_to(self, store: Store, mark: Mark) -> None:
        """Replace this view's store by one that stands at a mark of this journal, once that has caught up as far.

        Most of the catching up is done before the lock is taken, for which questions wait. Where history changes on the
        way, nothing is replaced.
        """
        store.settle(self.clock.settled_us())
        try:
            for _ in range(_CHASES):
                if mark.position >= self._mark.position:
                    break
                mark = self._followed(store, mark)
            with self._catching_up:
                mark = self._followed(store, mark)
                if self._stands and not self._unusable() and mark.position >= self._mark.position:
                    self._changing = True
                    self._store, self._mark = store, mark
                    self._changing = False
        except HistoryChanged:
            return

    def _followed(self, store: Store, mark: Mark) -> Mark:
        """Let the store follow as far as this view has by now, and return its mark."""
        end = self._mark.position
        while mark.position < end:
            segment = self.journal.read(mark)
            if segment.appended_us is None:
                break
            store.apply(segment.changes, segment.appended_us)
            mark = segment.mark
        return mark

    def age_s(self) -> float:
        """Seconds since the start of the last catch-up that was completed; infinite before the first."""
        return math.inf if self._store.broken else time.monotonic() - self._caught_up_s

    def now_us(self, store: Store) -> int:
        """Now, for questions to that store: the engine's time. Where the engine's clock is not this machine's, it is
        the time of the last read plus the time since.
        """
        local_clock_us = self.journal.local_clock_us
        clock_us = self.clock.engine_us() if local_clock_us is None else local_clock_us()
        return store.appended_us if clock_us is None else time_after(clock_us, store.appended_us)

    def settled_us(self) -> int:
        """The time that has stood, for steps that cannot be undone; MIN_TS_US where none has."""
        return self.clock.settled_us()

    def _step_or_start_afresh(self) -> bool:
        try:
            return self._step()
        except StatsError:
            raise
        except Exception:
            if not self._unusable():
                raise
            logger.exception("A change to this worker's view failed in the middle")
        return self._step()

    def _step(self) -> bool:
        """Apply one segment. Returns whether there may be more. Caller holds _catching_up."""
        try:
            if not self._stands or self._unusable():
                self._begin()
            asked_us = self.clock.monotonic_us()
            segment = self.journal.read(self._mark)
        except HistoryChanged as changed:
            stood, left, self._stands = self._stands and self._mark != START, self._left, False
            if changed.lost is not None:
                self._left = None
                self.observe_lost(changed.lost)
            elif stood and left is not None and left.denied == self._mark:
                # No other history has this record, so nothing is lost. To begin afresh again would never end.
                what = f"the journal's record {self._mark.position}"
                raise JournalDamaged(what, "it is there in one reading and missing in the next") from changed
            elif stood:
                self._left = _Left(self._mark if left is None else left.mark, self._mark)
            return True
        self._end = segment.end
        self.clock.observe(segment.now_us, asked_us)
        if segment.appended_us is not None:
            self._store.settle(self.clock.settled_us())
            self._changing = True  # any exception from here on leaves it True
            self._store.apply(segment.changes, segment.appended_us)
            self._mark = segment.mark
            self._changing = False
        if self._left is not None and not segment.more:
            self._tell_lost(self._left)
        return segment.more

    def _unusable(self) -> bool:
        return self._changing or self._store.broken

    def _begin(self) -> None:
        """Caller holds _catching_up."""
        if self._unusable():
            logger.error("This worker's view starts afresh after an exception in the middle of a change to it")
            self._store = Store(self.retention)  # frees the old store's memory
            self._changing = True
            self._caught_up_s = -math.inf
            self.observe_broken()
        store, mark = self._begin_elsewhere(self.journal) or checkpoint.begin(self.journal, self.retention)
        self._caught_up_s = -math.inf  # until the replay is over, the store is not a state that the journal ever had
        self._changing = True
        self._store, self._mark = store, mark
        self._changing = False
        self._stands = True
        if self._left is not None and mark.position >= self._left.mark.position:
            self._left = None  # a compaction has passed the view

    def _tell_lost(self, left: _Left) -> None:
        """Called after the replay of the other history: report the records that are missing from it."""
        try:
            self.journal.read(left.mark, limit_records=1)
        except HistoryChanged:
            missing = left.mark.position - self._mark.position
            some_left = self._store.appended_us > MIN_TS_US
            since_us = self._store.appended_us if missing > 0 and some_left else None
            how = "the journal is an older copy or another one"
            self.observe_lost(Lost(max(1, missing), since_us, how, all=not some_left))
        self._left = None  # where the record is there again: damage was mended, or the history is the old one again

    def compact(self) -> bool:
        """Replace the records beyond the raw retention by a checkpoint. Returns whether that was done.

        The store is not touched. See `checkpoint.compact`.
        """
        settled_us = self.clock.settled_us()
        appended_us = self._store.appended_us
        if MIN_TS_US in (settled_us, appended_us):
            return False
        engine_us = self.clock.engine_us() if self.clock.settled else None
        wrong_after_us = None if engine_us is None else engine_us + CLOCKS_DIFFER_US
        return checkpoint.compact(self.journal, self.retention, min(settled_us, appended_us), wrong_after_us)
