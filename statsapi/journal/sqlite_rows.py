"""All rows of a SQLite table that can be read, also those around pages that SQLite itself cannot read."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Any, Final

from statsapi.errors import JournalDamaged
from statsapi.journal.checksums import check_sealed, piece_checksum, seal_of

# How far a search goes where the last number is not known: no page of 4 KiB holds more records. Pieces are an hour
# apart, so these are 91 days. Beyond a number that was noted it goes only a little further.
_RECORDS_A_PAGE: Final = 70
_RECORDS_REACH: Final = 1 << 24
_PIECES_REACH: Final = 1 << 17
_BEYOND: Final = 4096


class Runs:
    """A set of integers that mostly rise by one: as runs from first to last."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []

    @property
    def first(self) -> int | None:
        return self._runs[0][0] if self._runs else None

    @property
    def last(self) -> int | None:
        return self._runs[-1][1] if self._runs else None

    def add(self, number: int) -> bool:
        """Add the number. False if it was there already."""
        runs = self._runs
        if runs and runs[-1][1] + 1 == number:
            runs[-1] = (runs[-1][0], number)
            return True
        at = bisect_right(runs, (number, 1 << 63))
        if at and number <= runs[at - 1][1]:
            return False
        if at and runs[at - 1][1] + 1 == number:
            runs[at - 1] = (runs[at - 1][0], number)
        else:
            insort(runs, (number, number))
        return True

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """The runs of numbers from `first` to `last` that are not in it."""
        found = []
        for low, high in self._runs:
            if high < first:
                continue
            if first < low:
                found.append((first, min(low - 1, last)))
            first = high + 1
            if first > last:
                break
        if first <= last:
            found.append((first, last))
        return [(low, high) for low, high in found if low <= high]


class Rows:
    """The rows of `table` that SQLite can read, as (number, row); (None, row) where `number_of` does not prove the row.

    SQLite follows the pages from left to right. Where it meets one that it cannot read it is asked for the next number
    and the next, until one is on a page that it can: a failing question takes 5 µs. So a row is read if the pages that
    lead to it are whole. A row's number is the one that it proves, whatever key it stands under: a flipped bit in a key
    hides one row from a search, and makes the search miss its neighbours.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        table: str,
        columns: str,
        number_of: Callable[[Any], int | None],
        *,
        first: int | None = None,
        noted: int | None = None,
    ) -> None:
        key, last = columns.partition(",")[0], columns.rpartition(",")[2]
        self._connection = connection
        self._number_of = number_of
        self._first = first
        self._noted = noted
        self._table = table
        self._all = f"SELECT {columns} FROM {table} ORDER BY {key}"  # noqa: S608
        self._next = f"SELECT {columns} FROM {table} WHERE {key} >= ? ORDER BY {key} LIMIT 1"  # noqa: S608
        self._next_bytes = f"SELECT length({last}) FROM {table} WHERE {key} >= ? ORDER BY {key} LIMIT 1"  # noqa: S608
        self._after = f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY {key}"  # noqa: S608
        self._one = f"SELECT {columns} FROM {table} WHERE {key} = ?"  # noqa: S608
        self._last = f"SELECT {columns} FROM {table} ORDER BY {key} DESC LIMIT 1"  # noqa: S608
        self.proven = Runs()
        self.error: sqlite3.Error | MemoryError | None = None
        self.starts_late = False  # pages before the first row cannot be read
        self.ends_early = False  # pages after the last row cannot be read
        self.unproven_at_end = 0

    def __iter__(self) -> Iterator[tuple[int | None, Any]]:
        scan: tuple[Any, ...] | None = (self._all,)
        at: int | None = None
        while True:
            try:
                if scan is None:
                    # One by one: Python's cursor reads a row ahead, and loses this one where that fails.
                    row = self._connection.execute(self._next, (at,)).fetchone()
                    if row is None:
                        break
                    yield from self._give(row)
                    scan = (self._after, (row[0],))
                for row in self._connection.execute(*scan):
                    yield from self._give(row)
                break
            except (sqlite3.Error, MemoryError) as error:
                if isinstance(error, MemoryError) and at is not None and scan is None and self._is_short(at):
                    raise
                self._meet(error)
            scan = None
            reached = self.proven.last
            at = max(self._begin if at is None else at + 1, self._begin if reached is None else reached + 1)
            if at > self._end():
                break
        if self.error is not None or self.unproven_at_end:
            yield from self._fill()

    def _give(self, row: Any) -> Iterator[tuple[int | None, Any]]:
        number = self._number_of(row)
        if number is None:
            self.unproven_at_end += 1
        else:
            last = self.proven.last
            if not self.proven.add(number):
                return
            if last is None or number > last:
                self.unproven_at_end = 0
        yield number, row

    def _is_short(self, at: int) -> bool:
        """Whether a MemoryError at the next row from `at` on is what it says: as many bytes cannot be had at all. Where
        they can, or SQLite cannot say how many, a damaged row claims 4 GiB.
        """
        try:
            row = self._connection.execute(self._next_bytes, (at,)).fetchone()
        except (sqlite3.Error, MemoryError):
            return False
        try:
            bytearray(2 * (row[0] or 0) if row else 0)
        except MemoryError:
            return True
        return False

    def _meet(self, error: sqlite3.Error | MemoryError) -> None:
        """The first error: from where and how far is the search to go?"""
        self.unproven_at_end = 0  # they come again
        if self.error is not None:
            return
        self.error = error
        self._reach = self._reach_of_all()
        try:
            row = self._connection.execute(self._last).fetchone()
        except (sqlite3.Error, MemoryError):
            row = None
        self._known_end = None if row is None else self._number_of(row)
        self.starts_late = self.proven.first is None
        self.ends_early = self._known_end is None
        if self._first is not None:
            self._begin = self._first
        else:
            end = self._noted if self._known_end is None else self._known_end
            self._begin = 1 if end is None else max(1, end - self._reach)

    def _reach_of_all(self) -> int:
        if self._table != "records":
            return _PIECES_REACH
        try:
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        except sqlite3.Error:
            return _BEYOND
        return min(int(pages) * _RECORDS_A_PAGE, _RECORDS_REACH)

    def _end(self) -> int:
        """The number up to which the search goes."""
        if self._known_end is not None:
            return self._known_end
        reached = self._begin if self.proven.last is None else self.proven.last
        if self._noted is not None:
            return min(reached + self._reach, max(reached, self._noted) + _BEYOND)
        return reached + self._reach

    def _fill(self) -> Iterator[tuple[int | None, Any]]:
        """What stands between others and was passed over, as a search finds it."""
        first, last = self.proven.first, self.proven.last
        if first is None or last is None:
            return
        for low, high in self.proven.gaps(first if self._first is None else self._first, last):
            for number in range(low, high + 1):
                try:
                    row = self._connection.execute(self._one, (number,)).fetchone()
                except sqlite3.Error:
                    continue
                except MemoryError:
                    if self._is_short(number):
                        raise
                    continue
                if row is not None and self._number_of(row) == number and self.proven.add(number):
                    yield number, row


def record_rows(connection: sqlite3.Connection, first: int | None, noted: int | None) -> Rows:
    """Rows of seq, id, appended_us, record. What is known of the `first` and of the last helps where pages are gone."""
    return Rows(connection, "records", "seq, id, appended_us, record", _position_of, first=first, noted=noted)


def piece_rows(connection: sqlite3.Connection) -> Rows:
    """Rows of key, checksum, piece."""
    return Rows(connection, "pieces", "key, checksum, piece", _key_of)


def _position_of(row: tuple[Any, ...]) -> int | None:
    try:
        position = seal_of(row[3]).position
        check_sealed(position, row[3])
    except (JournalDamaged, TypeError):
        return None
    return position


def _key_of(row: tuple[Any, ...]) -> int | None:
    key, expected, piece = row
    try:
        return key if piece_checksum(key, piece) == expected else None
    except TypeError:
        return None
