"""The undamaged part of a SQLite journal: reported, or saved to a new file. The damaged file is never written."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from statsapi.errors import JournalDamaged, JournalRefused
from statsapi.journal import sqlite_tables as tables
from statsapi.journal import sqlite_upgrade
from statsapi.journal.checksums import SEAL_BYTES, check_sealed, missing, piece_checksum, seal
from statsapi.journal.highwater import Noted, find_noted
from statsapi.journal.sqlite_check import find_all

# Rows are read by ranges of this many, and where SQLite itself fails by halves of them.
_RANGE_ROWS: Final = 4096
_STEP_ROWS: Final = 2048
_REACH: Final = 1 << 20


class Saved(NamedTuple):
    """The counts of what the new file holds."""

    records: int
    pieces: int
    answers: int
    checkpoint: bool


def damages(path: str) -> Iterator[JournalDamaged]:
    """Everything in the file at `path` that is not what was written. Reads all of it, beside a running service.

    JournalRefused where there is no journal, or none that this version can read.
    """
    with _open(path) as connection:
        try:
            if tables.is_new(connection, path):
                raise JournalRefused(f"{path} is empty")
            if sqlite_upgrade.is_old(connection):
                raise JournalRefused(f"{path} is of an older version, without checksums: start this one on it first")
        except sqlite3.Error as error:
            yield JournalDamaged(path, str(error))
            return
        noted = find_noted(os.path.realpath(path))  # before the snapshot: a record is committed before it is noted
        with tables.snapshot(connection):
            yield from find_all(connection, path)
            if noted is not None:
                yield from _lost_end(connection, noted)


def _lost_end(connection: sqlite3.Connection, noted: Noted) -> Iterator[JournalDamaged]:
    """What was acknowledged and is gone without a trace in the file, unless a start has told it already."""
    with contextlib.suppress(JournalDamaged, sqlite3.Error):  # given by find_all
        if not tables.holds(connection, noted.position, noted.record_id):
            last = tables.read_last(connection, None)
            first = 1 if last is None else last[0] + 1
            what = missing(min(first, noted.position), noted.position).what
            yield JournalDamaged(what, "acknowledged, and no longer at the end of the file and its -wal")


def salvage(path: str, target: str) -> Saved:
    """Make `target` a journal of all undamaged data in `path`. Records are numbered anew, without gaps."""
    if os.path.lexists(target):
        raise JournalRefused(f"{target} is there already: name another file")
    try:
        with _open(path) as source:
            # Not tables.is_new: it refuses a journal with one damaged bit in its header.
            if not tables.has_any(source):
                raise JournalRefused(f"{path} holds none of a journal's tables: there is nothing to save")
            with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
                tables.make(copy)
                copy.execute("PRAGMA synchronous=NORMAL")
                with tables.snapshot(source):
                    saved = _Salvage(source, copy).run()
                copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(target + suffix)
        raise JournalRefused(f"{target} cannot be written, or {path} not read at all: {error}") from error
    return saved


@contextlib.contextmanager
def _open(path: str) -> Iterator[sqlite3.Connection]:
    if not os.path.isfile(path):
        raise JournalRefused(f"there is no journal at {path}")
    real = os.path.realpath(path)
    with contextlib.closing(sqlite3.connect(f"file:{quote(real)}?mode=ro", uri=True, isolation_level=None)) as opened:
        opened.text_factory = bytes
        yield opened


class _Salvage:
    def __init__(self, source: sqlite3.Connection, copy: sqlite3.Connection) -> None:
        self._source = source
        self._copy = copy

    def run(self) -> Saved:
        head, state = self._checkpoint()
        base = 0 if head is None else head.position
        pieces = self._save(self._pieces()) if head is not None else 0
        answers = self._save(self._answers())
        position = base
        records = 0
        for _, record_id, appended_us, payload in self._records(base):
            if records % _STEP_ROWS == 0:
                self._begin_anew()
            position += 1
            records += 1
            sealed = seal(position, record_id, appended_us, payload)
            self._copy.execute(tables.INSERT_RECORD, (position, record_id, appended_us, sealed))
        self._begin_anew()
        if head is not None:
            tables.write_checkpoint(self._copy, *head[:4], state)
        self._copy.execute("COMMIT")
        return Saved(records, pieces, answers, head is not None)

    def _begin_anew(self) -> None:
        if self._copy.in_transaction:
            self._copy.execute("COMMIT")
        self._copy.execute("BEGIN IMMEDIATE")

    def _save(self, writes: Iterator[Callable[[], None]]) -> int:
        count = 0
        self._begin_anew()
        for write in writes:
            write()
            count += 1
        self._copy.execute("COMMIT")
        return count

    def _checkpoint(self) -> tuple[tables.Head | None, bytes]:
        try:
            head = tables.read_head(self._source)
            return head, b"" if head is None else tables.read_state(self._source, head)
        except (JournalDamaged, sqlite3.Error):
            return None, b""

    def _pieces(self) -> Iterator[Callable[[], None]]:
        for key, expected, piece in self._rows("pieces", "key", "key, checksum, piece", None):
            if isinstance(piece, bytes) and piece_checksum(key, piece) == expected:
                yield lambda key=key, piece=piece: tables.write_pieces(self._copy, [(key, piece)])  # type: ignore[misc]

    def _answers(self) -> Iterator[Callable[[], None]]:
        with contextlib.suppress(sqlite3.Error):
            for row in self._source.execute("SELECT name, digest, answer, expires_us, checksum FROM keys"):
                if tables.is_answer(row):
                    yield lambda row=row: tables.write_answer(self._copy, *row[:4])  # type: ignore[misc]

    def _records(self, after: int) -> Iterator[tuple[int, bytes, int, bytes]]:
        for position, record in self._rows("records", "seq", "seq, record", after):
            try:
                sealed = check_sealed(position, record)
            except (JournalDamaged, TypeError):
                continue
            yield position, sealed.record_id, sealed.appended_us, record[:-SEAL_BYTES]

    def _rows(self, table: str, key: str, columns: str, after: int | None) -> Iterator[Any]:
        """The rows that SQLite can read, by rising key."""
        bounds = []
        for order in ("", "DESC"):
            try:
                row = self._source.execute(f"SELECT {key} FROM {table} ORDER BY {key} {order} LIMIT 1").fetchone()  # noqa: S608
            except sqlite3.Error:
                row = None
            bounds.append(None if row is None else row[0])
        known = [bound for bound in bounds if bound is not None]
        if not known:
            return
        # An end that cannot be found is searched for no further than this.
        first = known[0] if bounds[0] is not None else known[0] - _REACH
        last = known[-1] if bounds[1] is not None else known[0] + _REACH
        if after is not None:
            first = max(first, after + 1)
        statement = f"SELECT {columns} FROM {table} WHERE {key} >= ? AND {key} < ? ORDER BY {key}"  # noqa: S608
        for low in range(first, last + 1, _RANGE_ROWS):
            yield from self._range(statement, low, min(low + _RANGE_ROWS, last + 1))

    def _range(self, statement: str, low: int, high: int) -> Iterator[Any]:
        rows = []
        try:
            for row in self._source.execute(statement, (low, high)):
                rows.append(row)
        except sqlite3.Error:
            if high - low > 1:
                middle = (low + high) // 2
                yield from self._range(statement, low, middle)
                yield from self._range(statement, middle, high)
            return
        yield from rows
