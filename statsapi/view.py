"""A view: one worker's store, and how it follows the journal.

The store is the sum of the records up to a mark. Following means reading what was committed after it; where the record
at the mark no longer stands (HistoryChanged), a new store starts from the checkpoint. Compaction makes a checkpoint out
of the previous one and the records after it alone, never out of a store that is already past it.
"""

from __future__ import annotations

import math
import secrets
import struct
import threading
import time
from typing import Final

from statsapi.errors import JournalRefused, JournalUnavailable, ViewNotReady
from statsapi.journal import START, Checkpoint, HistoryChanged, Journal, Mark, decode_batch, encode_batch
from statsapi.model import MIN_TS_US
from statsapi.store import Store
from statsapi.times import MINUTE_US

# A checkpoint's state: this version, the horizon in µs, then the live events as one encoded batch.
_STATE_VERSION: Final = 1
# What SQLite takes in one row, less a little: 60 million events that are stamped ahead.
_STATE_MAX_BYTES: Final = 950_000_000
_STATE_HEAD: Final = struct.Struct("<Bxxxxxxxq")


class View:
    """Follows `journal`; raw events are kept for `keep_us` (retention and grace, µs) after they were recorded.

    Any thread may call any method. Catching up is serialised by a lock that is taken before the store's and after the
    journal's write lock. `horizon_us` drops what lies before it already while it is read.
    """

    def __init__(self, journal: Journal, keep_us: int, *, horizon_us: int = MIN_TS_US) -> None:
        self.journal = journal
        self._keep_us = keep_us
        self._least_horizon_us = horizon_us
        self._catching_up = threading.Lock()
        self._caught_up_s = -math.inf
        self._failure = ""
        self._failed_s = -math.inf
        self._stands = False  # whether _mark is known to be one of this journal's
        self._mark: Mark = START
        self._checkpoint_id: bytes | None = None
        self._store = Store(keep_us)

    def catch_up(self, *, wait_s: float | None = None, until_us: int | None = None) -> Store:
        """The store, holding everything that was committed before this call (or appended up to `until_us`).

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
            if self._caught_up_s >= asked_s and until_us is None:
                return self._store  # somebody else's catching up began after this call did, and so does for both
            began_s = time.monotonic()
            try:
                while self._step(until_us):
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

    def _step(self, until_us: int | None) -> bool:
        """Apply one segment; whether there may be more. Caller holds _catching_up."""
        try:
            if not self._stands:
                self._start_afresh()
            segment = self.journal.read(self._mark, until_us=until_us)
        except HistoryChanged:
            self._stands = False
            return True
        if segment.appended_us is not None:
            self._store.apply(segment.changes, segment.appended_us)
            self._mark = segment.mark
        return segment.more

    def _start_afresh(self) -> None:
        """Caller holds _catching_up."""
        store = Store(self._keep_us)
        checkpoint = self.journal.read_checkpoint()
        if checkpoint is None:
            self._mark, self._checkpoint_id = START, None
        else:
            version, horizon_us = _STATE_HEAD.unpack_from(checkpoint.state)
            if version != _STATE_VERSION:
                raise JournalRefused(f"the checkpoint has format {version}; this statsapi reads {_STATE_VERSION}")
            store.load(decode_batch(checkpoint.state[_STATE_HEAD.size :]), horizon_us, checkpoint.appended_us)
            self._mark, self._checkpoint_id = checkpoint.mark, checkpoint.id
        store.advance_horizon(self._least_horizon_us)
        self._store = store
        self._caught_up_s = -math.inf  # until its replay is over it is no state that the journal ever had
        self._stands = True

    def compact(self) -> bool:
        """Replace the records older than what is kept by the state they add up to; whether that was done.

        Costs reading and adding those records once; the store is not touched. Several workers may do it at once: one
        wins, and the others find out and leave it.
        """
        appended_us = self._store.appended_us
        bound_us = appended_us - self._keep_us
        checkpoint = self.journal.read_checkpoint()
        if checkpoint is not None and bound_us - checkpoint.appended_us < MINUTE_US:
            return False
        # Nothing before this horizon can be asked for by a view that has seen the record of `appended_us`, and every
        # view that starts from the new checkpoint will have.
        old = View(self.journal, self._keep_us, horizon_us=self._store.kept_from_us(appended_us))
        store = old.catch_up(until_us=bound_us)
        if old._mark == (START if checkpoint is None else checkpoint.mark):
            return False
        state = _STATE_HEAD.pack(_STATE_VERSION, store.horizon_us) + encode_batch(
            store.live_events(), limit_bytes=_STATE_MAX_BYTES
        )
        compacted = Checkpoint(secrets.token_bytes(16), old._mark, store.appended_us, state)
        try:
            return self.journal.replace_prefix(old._checkpoint_id, compacted)
        except HistoryChanged:
            return False
