"""Housekeeping of a SQLite journal: moves the WAL into the file, and removes compacted records and expired keys."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from statsapi.errors import JournalUnavailable
from statsapi.journal import sqlite_tables as tables
from statsapi.journal import sqlite_wal
from statsapi.journal.protocol import Clock
from statsapi.journal.sqlite_errors import is_of_disk
from statsapi.journal.sqlite_file import File
from statsapi.journal.sqlite_link import Link
from statsapi.journal.sqlite_tables import PAGE_BYTES

logger = logging.getLogger("statsapi")

WAL_RESTART_TRIES: Final = 50

# One step holds the write lock for some milliseconds; a call of maintain takes at most this many steps.
STEP_ROWS: Final = 2048
STEP_BYTES: Final = 4 << 20
STEPS: Final = 64
STEP_PAUSE_S: Final = 1e-3
# The walk for expired keys goes on at once where at least one in this many has expired, and else a second later: so
# about this share of the file is expired keys at worst. It went on wherever one was found, so 1,000 keys a second that
# live 100 s kept it walking without end: 0.14 s of CPU a second in each worker. It takes 0.03 now.
EXPIRED_ONE_IN: Final = 16

_DEAD = "SELECT seq, length(record) FROM records WHERE seq <= ?1 ORDER BY seq LIMIT ?2"
_DROP_DEAD = "DELETE FROM records WHERE seq <= ?"
_NEXT_KEYS = "SELECT name, digest, answer, expires_us, checksum FROM keys WHERE name > ? ORDER BY name LIMIT ?"
_DROP_KEY = "DELETE FROM keys WHERE name = ? AND expires_us <= ?"


class Keeper:
    """`maintain` on a connection of its own. `flushes`: COMMIT does not, so each call makes the WAL safe.

    A flush that fails is not tried again as if nothing was. The system has forgotten by then what it could not write:
    the next flush would succeed, over a -wal with a hole, which a recovery would end at. So nothing is appended until
    the whole -wal is in the file and begun anew.
    """

    def __init__(self, link: Link, file: File, wait_limit_s: float, *, flushes: bool) -> None:
        self._link = link
        self._file = file
        self._wait_limit_s = wait_limit_s
        self._flushes = flushes
        self._walked_to = b""  # the name of the last key that the walk for expired ones has seen

    def maintain(self, settled_us: Clock, observe_fsync: Callable[[float], None]) -> None:
        """See Journal.maintain. Returns at once where another thread is at it."""
        if not self._link.lock.acquire(blocking=False):
            return
        try:
            if self._file.unsafe is not None and not self._begin_wal_anew():
                return
            busy, wal_bytes = self._flush(observe_fsync)
            if busy:
                return  # another worker is at it
            for _ in range(WAL_RESTART_TRIES if wal_bytes > sqlite_wal.RESTART_BYTES else 0):
                busy, _, _ = self._move_wal("RESTART")
                if not busy:
                    break
                time.sleep(STEP_PAUSE_S)
            for step in (self._drop_dead_records, lambda: self._drop_expired_keys(settled_us())):
                for _ in range(STEPS):
                    if not step():
                        break
                    time.sleep(STEP_PAUSE_S)  # let appends in between
        finally:
            self._link.lock.release()

    def _flush(self, observe_fsync: Callable[[float], None]) -> tuple[bool, int]:
        """Make everything appended so far safe from a power cut. Returns whether another process is moving the WAL into
        the file now, and the WAL's length.

        Moving it flushes it first. Where the move cannot finish (a reader of an older state, a stopped process that is
        moving it, a file that cannot grow) the WAL alone is flushed.
        """
        began_s = time.perf_counter()
        flushed = False
        try:
            try:
                busy, frames, moved = self._move_wal("PASSIVE")
                flushed = not busy and moved >= frames
            finally:
                if not flushed and self._flushes:
                    sqlite_wal.flush(self._file.real)
        except JournalUnavailable as error:
            if self._flushes and is_of_disk(error):
                self._file.unsafe = f"{error}: what was acknowledged in the last seconds may not survive a power cut"
                logger.error(  # noqa: TRY400 - one line says all
                    "Nothing is recorded until the disk can be written: %s", self._file.unsafe
                )
            raise
        if self._flushes:
            observe_fsync(time.perf_counter() - began_s)
        return busy, frames * PAGE_BYTES

    def _begin_wal_anew(self) -> bool:
        """After a flush that failed. Returns whether all that was acknowledged is on the disk."""
        busy, _, _ = self._move_wal("TRUNCATE")
        if busy:
            return False
        sqlite_wal.flush(self._file.real)  # or a power cut could bring the old one back, with its hole
        self._file.unsafe = None
        logger.warning("The disk that holds %s can be written again, and nothing is lost", self._file.path)
        return True

    def _move_wal(self, mode: str) -> tuple[bool, int, int]:
        """Copy the WAL into the file. Returns whether it was held up, its frames, and how many were moved."""
        busy, frames, moved = self._link.query(
            lambda connection: connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        )
        return bool(busy), frames, moved

    def _drop_dead_records(self) -> bool:
        """One step. Returns whether there may be more."""

        def look(connection: sqlite3.Connection) -> list[tuple[int, int]]:
            head = tables.read_head(connection)
            return connection.execute(_DEAD, (0 if head is None else head.position, STEP_ROWS)).fetchall()

        dead = self._link.query(look)
        size, upto = 0, 0
        for upto, length in dead:  # noqa: B007 - its last value is needed
            size += length or 0  # a changed bit made it a null
            if size >= STEP_BYTES:
                break
        if dead:
            self._keep(_DROP_DEAD, [(upto,)])
        return bool(dead)

    def _drop_expired_keys(self, settled_us: int) -> bool:
        """One step of a walk over all keys, which begins again at its end. Returns whether to take another one now:
        where this one found many. What is damaged is not forgotten: its expiry may be wrong.
        """
        rows = self._link.query(
            lambda connection: connection.execute(_NEXT_KEYS, (self._walked_to, STEP_ROWS)).fetchall()
        )
        self._walked_to = rows[-1][0] if len(rows) == STEP_ROWS else b""
        expired = [(row[0], settled_us) for row in rows if tables.is_answer(row) and row[3] <= settled_us]
        if expired:
            self._keep(_DROP_KEY, expired)
        return len(expired) * EXPIRED_ONE_IN >= STEP_ROWS and self._walked_to != b""

    def _keep(self, statement: str, parameters: list[tuple[Any, ...]]) -> None:
        self._link.transact(
            lambda connection: connection.executemany(statement, parameters),
            time.monotonic() + self._wait_limit_s,
        )
