"""A connection to the journal's file: kept while it is good, opened afresh after a fault or when the file was replaced.

The file's inode is compared before every COMMIT and every read, and that of its -wal before every COMMIT: 1 µs each.
Where the -wal or the -shm is removed, all connections go on with those they have (sqlite_file.py), so reads need not
look. But what is committed to a -wal that the others have moved into the file and left would be lost with this process.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from statsapi.errors import JournalUnavailable, StatsError
from statsapi.journal.protocol import held_up
from statsapi.journal.sqlite_errors import failure, judged, primary_code
from statsapi.journal.sqlite_file import File, Opened
from statsapi.journal.sqlite_tables import Last

# A writer that finds the write lock taken asks again after this time. Appends/s of 2 and of 4 processes with 4 threads
# each, on two busy cores. Runs differ by a third there, so these figures are much the same:
#
#     without fsync     with fsync
#     16,500  12,500    1,500  1,700   blocking flock around the commit: a stopped peer hangs all
#     14,900  12,100    1,500  1,700   flock polled every 50 µs
#     12,800  12,900    1,900  1,400   flock polled every 200 µs
#     11,100  15,000    1,900    800   SQLite asked every 50 µs
#     13,700  15,100    2,200  1,000   SQLite asked every 200 µs
#     10,500  14,900    2,000  2,000   SQLite asked every 500 µs
#
# So there is no second lock. SQLite's own busy handler sleeps up to 100 ms: it made 850-2,700 with fsync and two
# workers.
#
# Nor is there a queue. One was tried: a semaphore in shared memory woke the longest waiter at each release, each wait
# had a limit, and a process that had just committed let the waiters go first.
#
# Over HTTP, with fsync, the queue did not help. Two pinned workers took 1.00 times the posts, four took 0.97 times. p99
# rose from 14 to 17 ms with two, and from 13 to 15 ms with four (medians of seven alternating runs on a busy machine).
# The reason: a request takes 300 µs of processor time, beside which a wait of 200 µs is short.
#
# It helped only processes whose 4 threads do nothing but append, without HTTP. Two of them made 1.3 times the appends,
# four 1.1 times (six pairs of runs, from 0.4 to 3.4 times). With four, p99 fell from 25-57 ms to 15-33 ms.
RETRY_S: Final = 200e-6

# To move the -wal into the file, all who read an older state of it must be done.
FOLD_WAIT_S: Final = 0.5
LOOK_AGAIN_S: Final = 0.05

_T = TypeVar("_T")

logger = logging.getLogger("statsapi")


class Link:
    """See the module's text. The connection is opened when it is first needed. Who calls anything but `query`,
    `leave_removed` and `check_open` must hold `lock`; the first two take it themselves.
    """

    def __init__(self, file: File, *settings: str) -> None:
        self.lock = threading.RLock()
        self._file = file
        self._settings = settings
        self._connection: sqlite3.Connection | None = None
        self.seen: Last | None = None  # the last record that this connection saw and checked
        self.failed = False  # the last write transaction met an error of the disk or the file
        self._opened: Opened | None = None
        self._stranded: str | None = None  # why nothing may be committed: see leave_removed
        self._closed = False

    def check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")

    def connection(self, *, check: bool = True) -> sqlite3.Connection:
        """The open connection, or a new one. Without `check` its file may have been replaced."""
        self.check_open()
        if self._stranded is not None:
            raise JournalUnavailable(self._stranded)
        if self._connection is None or (check and not self.is_current()):
            self.drop()
            self._connection, self._opened = self._file.connect(self._settings)
        return self._connection

    def is_current(self) -> bool:
        """Whether the open file is still the one at its path."""
        return self._file.is_still(None if self._opened is None else self._opened.file)

    def leave_removed(self) -> bool:
        """Where the -wal or -shm of this connection was removed or replaced: move all that it holds into the file, and
        close. Returns False where that cannot be done now. Then the connection stays, as only it can still save what
        was acknowledged, and refuses everything until a later call succeeds. Call it for the writer first: while that
        one has let go, this process commits nothing.
        """
        opened = self._opened
        if opened is None or (self._stranded is None and not self._file.removed_beside(opened)):
            return True  # without the lock, which others hold for long
        while not self.lock.acquire(timeout=LOOK_AGAIN_S):
            if self._opened is None:  # its holder has left, and waits for the other connections of this process
                return True
        try:
            return self._leave_removed()
        finally:
            self.lock.release()

    def _leave_removed(self) -> bool:
        """Caller holds `lock`."""
        if self._connection is None or self._opened is None:
            return True
        removed = self._file.removed_beside(self._opened)
        if not removed:
            self._stranded = None
            return True
        what = " and ".join(removed)
        try:
            why = self._fold(self._connection)
            if why is None:
                self._file.clear_strangers(self._opened)
        except JournalUnavailable as error:
            why = str(error)
        if why is None:
            self.drop()
            self._file.tell_saved(what)
            return True
        stranded = (
            f"{what} was removed or replaced while the journal is in use, and what it holds cannot be moved into "
            f"{self._file.path} yet ({why}): do not kill the service, as it would be lost"
        )
        if stranded != self._stranded:
            logger.error("%s", stranded)
        self._stranded = stranded
        return False

    def _fold(self, connection: sqlite3.Connection) -> str | None:
        """Move the whole -wal into the file. Why it cannot be done, or None. It takes the write lock: what is committed
        later is moved by the one who committed it, before that one lets go.
        """
        deadline_s = time.monotonic() + FOLD_WAIT_S
        while True:
            try:
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.Error as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY:
                    return str(failure(error, self._file.path))
                busy = 1
            if not busy:
                return None
            if time.monotonic() >= deadline_s:
                return "somebody is reading it"
            time.sleep(RETRY_S)

    def query(self, look: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `look` on the connection, holding the lock. A transaction that it begins ends with it."""
        with self.lock:
            try:
                return look(self.connection())
            except StatsError:
                raise
            except BaseException as error:
                # A statement that was left in the middle keeps its snapshot, and every later question would be answered
                # from that. So even a lock that was busy costs this connection.
                met = self._judged(error)
                self.drop()
                if met is not None:
                    raise failure(met, self._file.path) from error
                raise
            finally:
                self.roll_back()

    def transact(
        self,
        work: Callable[[sqlite3.Connection], _T],
        deadline_s: float,
        observe_commit: Callable[[float], None] | None = None,
    ) -> _T:
        """Run `work` in one write transaction and commit it. If anything raises, nothing of it stays.

        `work` runs again when the file was found replaced before the commit. `observe_commit` gets COMMIT's seconds.
        """
        for _ in range(3):
            connection = self.connection(check=False)  # the check before COMMIT is the one that counts
            committing = False
            try:
                self.begin(connection, deadline_s)
                result = work(connection)
                if not self.is_current():
                    self.drop()
                    continue
                if self._opened is not None and not self._file.has_wal(self._opened):
                    self.roll_back()
                    self.leave_removed()
                    continue  # `connection` raises where it could not be left
                committing = True
                if observe_commit is not None:
                    began_s = time.perf_counter()
                    connection.execute("COMMIT")
                    observe_commit(time.perf_counter() - began_s)
                else:
                    connection.execute("COMMIT")
            except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
                met = self._judged(error)
                if met is None:
                    raise
                self.failed = True
                self.suspect(met)
                raise failure(met, self._file.path, committing=committing) from error
            else:
                self.failed = False
                return result
            finally:
                self.roll_back()
        raise JournalUnavailable(f"{self._file.path} is being replaced")

    def begin(self, connection: sqlite3.Connection, deadline_s: float) -> None:
        """Begin a write transaction; JournalUnavailable where the write lock is not free until the deadline."""
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY:
                    self.suspect(error)
                    raise failure(error, self._file.path) from error
                if time.monotonic() >= deadline_s:
                    raise held_up() from error
            else:
                return
            time.sleep(RETRY_S)

    def _judged(self, error: BaseException) -> sqlite3.Error | None:
        if self._connection is None:
            return error if isinstance(error, sqlite3.Error) else None
        return judged(error, self._connection)

    def suspect(self, error: sqlite3.Error) -> None:
        """After any error but a full disk or a busy lock, give the connection up: the next call opens another."""
        if primary_code(error) not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            self.drop()

    def roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.drop()

    def close(self) -> None:
        # Of workers that close at the same moment none may be the last, which would do it.
        with contextlib.suppress(StatsError):
            self.leave_removed()
        self._closed = True
        self.drop()

    def drop(self) -> None:
        if self._connection is not None:
            # Roll back first: a closed connection keeps its write lock while one of its cursors lives, such as in the
            # traceback of an error that is being reported.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = self._opened = None
            self.seen = None
        self._stranded = None
