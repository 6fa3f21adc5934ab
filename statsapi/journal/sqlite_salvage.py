"""The undamaged part of a SQLite journal: reported, or saved to a new file. The damaged file is never written."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import quote

from statsapi.errors import CopyRefused, JournalDamaged, JournalRefused
from statsapi.journal import sqlite_tables as tables
from statsapi.journal import sqlite_upgrade
from statsapi.journal.checksums import SEAL_BYTES, seal, seal_of
from statsapi.journal.highwater import Noted, find_noted
from statsapi.journal.sqlite_check import find_all, find_in_tables, read_all_the_same
from statsapi.journal.sqlite_errors import judging
from statsapi.journal.sqlite_mended import mended
from statsapi.journal.sqlite_rows import piece_rows, record_rows
from statsapi.journal.sqlite_url import why_companion

_STEP_ROWS: Final = 2048
_NEXT_RECORD: Final = "SELECT seq, id, appended_us, record FROM records WHERE seq > ? ORDER BY seq LIMIT 1"


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
    noted = find_noted(os.path.realpath(path))  # before the snapshot: a record is committed before it is noted
    said = set()
    for damage in _damages(path, noted):
        if str(damage) not in said:
            said.add(str(damage))
            yield damage


def _damages(path: str, noted: Noted | None) -> Iterator[JournalDamaged]:
    why = "the definitions of its tables are not those of a journal"
    with _open(path) as connection:
        try:
            with judging(connection):
                if tables.is_new(connection, path):
                    raise JournalRefused(f"{path} is empty")
                _refuse_unsealed(connection, path)
        except JournalDamaged as error:  # of its header
            yield error
        except sqlite3.Error as error:
            why = str(error)
            read_all_the_same(connection)
        if _are_defined(connection):
            with tables.snapshot(connection):
                yield from find_all(connection, path, noted)
            return
    yield JournalDamaged(path, why)
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(mended(os.path.realpath(path), path))
        except (OSError, sqlite3.Error):  # no space for a copy
            connection = stack.enter_context(_open(path))
            read_all_the_same(connection)
        with tables.snapshot(connection):
            yield from find_in_tables(connection, noted)


def salvage(path: str, target: str) -> Saved:
    """Make `target` a journal of all undamaged data in `path`. Records are numbered anew, without gaps.

    Where the tables' definitions are damaged it takes the space of the journal once more while it runs.
    """
    if (reason := why_companion(target)) is not None:
        raise CopyRefused(f"{target}: {reason}")
    if os.path.lexists(target):
        raise CopyRefused(f"{target} is there already: name another file")
    folder = os.path.dirname(os.path.abspath(target))
    if not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written" if os.path.isdir(folder) else "is not there"
        raise CopyRefused(f"{target} cannot be written, as its folder {what}: name another file")
    noted = find_noted(os.path.realpath(path))
    try:
        with (
            _readable(path, target) as (source, is_defined),
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            tables.make(copy)
            copy.execute("PRAGMA synchronous=NORMAL")
            with tables.snapshot(source):
                saved = _Salvage(source, copy, None if noted is None else noted.position).run()
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        _remove(target)
        raise CopyRefused(f"{target} cannot be written, or {path} not read at all: {error}") from error
    except OSError as error:
        _remove(target)
        raise CopyRefused(f"{target} cannot be written: {error.strerror}") from error
    except BaseException:
        _remove(target)
        raise
    if not any(saved) and not is_defined:
        _remove(target)
        raise JournalRefused(f"{path} holds none of a journal's tables: there is nothing to save")
    return saved


def _remove(target: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(target + suffix)


@contextlib.contextmanager
def _readable(path: str, beside: str) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """A connection to the file, or where its tables' definitions are damaged, to a copy in which they are whole; and
    which of the two it is: True for the file.
    """
    with _open(path) as source:
        with contextlib.suppress(sqlite3.Error), judging(source):
            _refuse_unsealed(source, path)
        read_all_the_same(source)
        if _are_defined(source):
            yield source, True
            return
    with mended(os.path.realpath(path), beside) as source:
        yield source, False


def _are_defined(connection: sqlite3.Connection) -> bool:
    try:
        with judging(connection):
            return tables.are_defined(connection)
    except sqlite3.Error:
        return False


def _refuse_unsealed(connection: sqlite3.Connection, path: str) -> None:
    if sqlite_upgrade.lacks_checksums(connection):
        raise JournalRefused(f"{path} is of an older version, without checksums: start this one on it first")


@contextlib.contextmanager
def _open(path: str) -> Iterator[sqlite3.Connection]:
    if not os.path.isfile(path):
        raise JournalRefused(f"there is no journal at {path}")
    real = os.path.realpath(path)
    with contextlib.closing(sqlite3.connect(f"file:{quote(real)}?mode=ro", uri=True, isolation_level=None)) as opened:
        opened.text_factory = bytes
        yield opened


class _Salvage:
    def __init__(self, source: sqlite3.Connection, copy: sqlite3.Connection, noted: int | None) -> None:
        self._source = source
        self._copy = copy
        self._noted = noted

    def run(self) -> Saved:
        head, state = None, b""
        first: int | None = 1
        try:
            with judging(self._source):
                head = tables.read_head(self._source)
                if head is not None:
                    state = tables.read_state(self._source, head)
                    first = head.position + 1
        except (JournalDamaged, sqlite3.Error):
            head, first = None, None
        pieces = self._save(self._pieces()) if head is not None else 0
        answers = self._save(self._answers())
        records = self._save(self._records(first))
        self._close_gaps(1 if first is None else first)
        if head is not None:
            with tables.transaction(self._copy):
                tables.write_checkpoint(self._copy, *head[:4], state)
        return Saved(records, pieces, answers, head is not None)

    def _save(self, writes: Iterator[Callable[[], None]]) -> int:
        """Carry them out one by one, as each may be large, in transactions of _STEP_ROWS."""
        count = 0
        self._copy.execute("BEGIN IMMEDIATE")
        for write in writes:
            write()
            count += 1
            if count % _STEP_ROWS == 0:
                self._copy.execute("COMMIT")
                self._copy.execute("BEGIN IMMEDIATE")
        self._copy.execute("COMMIT")
        return count

    def _pieces(self) -> Iterator[Callable[[], None]]:
        for key, row in piece_rows(self._source):
            if key is not None:
                yield partial(tables.write_pieces, self._copy, [(key, row[2])])

    def _answers(self) -> Iterator[Callable[[], None]]:
        """From both ends, as far as SQLite can read."""
        saved = set()
        for order in ("", "DESC"):
            with contextlib.suppress(sqlite3.Error), judging(self._source):
                for row in self._source.execute(
                    f"SELECT name, digest, answer, expires_us, checksum FROM keys ORDER BY name {order}"  # noqa: S608
                ):
                    if row[0] in saved:
                        break
                    if tables.is_answer(row):
                        yield partial(tables.write_answer, self._copy, *row[:4])
                    saved.add(row[0])

    def _records(self, first: int | None) -> Iterator[Callable[[], None]]:
        for position, row in record_rows(self._source, first, self._noted):
            if position is not None and position >= (first or 1):
                yield partial(self._insert, position, row[3])

    def _insert(self, position: int, record: bytes) -> None:
        sealed = seal_of(record)
        self._copy.execute(tables.INSERT_RECORD, (position, sealed.record_id, sealed.appended_us, record))

    def _close_gaps(self, number: int) -> None:
        """Number the records anew from `number` on: they stand without a gap."""
        lowest, highest, count = self._copy.execute("SELECT min(seq), max(seq), count(*) FROM records").fetchone()
        if not count or (lowest, highest) == (number, number + count - 1):
            return
        self._save(self._renumbered(number))

    def _renumbered(self, number: int) -> Iterator[Callable[[], None]]:
        done = 0
        while (row := self._copy.execute(_NEXT_RECORD, (done,)).fetchone()) is not None:
            done, record_id, appended_us, record = row
            if number != done:
                sealed = seal(number, record_id, appended_us, record[:-SEAL_BYTES])
                yield partial(self._renumber, done, number, sealed)
            number += 1

    def _renumber(self, old: int, new: int, sealed: bytes) -> None:
        self._copy.execute("UPDATE records SET seq = ?, record = ? WHERE seq = ?", (new, sealed, old))
