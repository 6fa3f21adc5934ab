"""A view: one worker's store, and how it follows the journal.

The store is the sum of the records up to a mark. Following means reading what was committed after it; where the record
at the mark no longer stands (HistoryChanged), a new store starts from the checkpoint.
"""

from __future__ import annotations

import math
import threading
import time

from statsapi import checkpoint
from statsapi.errors import JournalUnavailable, ViewNotReady
from statsapi.journal import START, HistoryChanged, Journal, Mark
from statsapi.model import Retention
from statsapi.store import Store


class View:
    """Follows `journal`, and holds what is kept for the `retention`.

    Any thread may call any method. Catching up is serialised by a lock that is taken before the store's and after the
    journal's write lock.
    """

    def __init__(self, journal: Journal, retention: Retention) -> None:
        self.journal = journal
        self.retention = retention
        self._catching_up = threading.Lock()
        self._caught_up_s = -math.inf
        self._failure = ""
        self._failed_s = -math.inf
        self._stands = False  # whether _mark is known to be one of this journal's
        self._mark: Mark = START
        self._store = Store(retention)

    def catch_up(self, *, wait_s: float | None = None) -> Store:
        """The store, holding everything that was committed before this call.

        With nothing new it costs what the journal takes to say so (SQLite: a few µs). Raises ViewNotReady when a replay
        takes longer than `wait_s` (None waits for its end); what was replayed is kept and the next call goes on. Do not
        keep the store: another takes its place when history changed. JournalUnavailable where the journal fails, also
        when it failed another caller while this one waited: no use that each finds out by a timeout of its own.
        """
        asked_s = time.monotonic()
        deadline_s = None if wait_s is None else asked_s + wait_s
        if not self._catching_up.acquire(timeout=-1 if wait_s is None else wait_s):
            raise ViewNotReady(wait_s or 0)
        try:
            if self._failed_s > asked_s:
                raise JournalUnavailable(self._failure)
            if self._caught_up_s >= asked_s:
                return self._store  # somebody else's catching up began after this call did, and so does for both
            began_s = time.monotonic()
            try:
                while self._step():
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
        """The store as the last catching up left it, without asking the journal: for limits and housekeeping."""
        return self._store

    def age_s(self) -> float:
        """How long ago the last catching up that came to its end began; infinite before the first."""
        return time.monotonic() - self._caught_up_s

    def _step(self) -> bool:
        """Apply one segment; whether there may be more. Caller holds _catching_up."""
        try:
            if not self._stands:
                self._store, self._mark = checkpoint.begin(self.journal, self.retention)
                self._caught_up_s = -math.inf  # until its replay is over it is no state that the journal ever had
                self._stands = True
            segment = self.journal.read(self._mark)
        except HistoryChanged:
            self._stands = False
            return True
        if segment.appended_us is not None:
            self._store.apply(segment.changes, segment.appended_us)
            self._mark = segment.mark
        return segment.more

    def compact(self) -> bool:
        """Let a checkpoint take the place of the records older than raw events are kept; whether that was done.

        The store is not touched. See `checkpoint.compact`.
        """
        return checkpoint.compact(self.journal, self.retention, self._store.appended_us)
