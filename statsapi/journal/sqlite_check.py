"""Everything in a SQLite journal that is not what was written, found by reading all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from statsapi.errors import JournalDamaged
from statsapi.journal import sqlite_tables as tables
from statsapi.journal.checksums import MISMATCH, missing


def find_all(connection: sqlite3.Connection, path: str) -> Iterator[JournalDamaged]:
    """All damage in the file, found by reading all of it; given, never raised. Caller has a `snapshot`, or a file that
    nobody writes.
    """
    try:
        tables.check_tables(connection, path)
        tables.check_counts(connection)
    except JournalDamaged as error:
        yield error
    except sqlite3.Error as error:
        yield JournalDamaged(path, str(error))
        return
    try:
        ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if said not in ("ok", b"ok"):
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            yield JournalDamaged(path, " ".join(text.split()))
    except sqlite3.Error as error:
        yield JournalDamaged(path, str(error))
    for look in (_damaged_checkpoint, _damaged_records, _damaged_answers):
        try:
            yield from look(connection)
        except sqlite3.Error as error:
            yield JournalDamaged(path, str(error))
        except JournalDamaged as error:
            yield error


def _damaged_checkpoint(connection: sqlite3.Connection) -> Iterator[JournalDamaged]:
    head = tables.read_head(connection)
    if head is None:
        return
    try:
        tables.read_state(connection, head)
    except JournalDamaged as error:
        yield error
    index = tables.read_pieces_index(connection, head)
    for key in index.keys:
        try:
            index.check(
                key, key + 1, connection.execute("SELECT key, piece FROM pieces WHERE key = ?", (key,)).fetchall()
            )
        except JournalDamaged as error:
            yield error


def _damaged_records(connection: sqlite3.Connection) -> Iterator[JournalDamaged]:
    try:
        head = tables.read_head(connection)
        expected = 1 if head is None else head.position + 1
    except JournalDamaged:  # _damaged_checkpoint has given it
        expected = 1
        row = connection.execute("SELECT min(seq) FROM records").fetchone()
        expected = row[0] or 1
    rows = connection.execute("SELECT seq FROM records WHERE seq >= ? ORDER BY seq", (expected,))
    for (position,) in rows:
        if position > expected:
            yield missing(expected, position - 1)
        try:
            tables.read_record(connection, position)
        except JournalDamaged as error:
            yield error
        expected = position + 1


def _damaged_answers(connection: sqlite3.Connection) -> Iterator[JournalDamaged]:
    for row in connection.execute("SELECT name, digest, answer, expires_us, checksum FROM keys"):
        if not tables.is_answer(row):
            yield JournalDamaged(tables.ANSWERS, MISMATCH)
