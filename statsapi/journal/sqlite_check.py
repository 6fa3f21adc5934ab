"""Everything in a SQLite journal that is not what was written, found by reading all of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from statsapi.errors import JournalDamaged
from statsapi.journal import sqlite_tables as tables
from statsapi.journal.checksums import MISMATCH, missing, seal_of
from statsapi.journal.format import record_name
from statsapi.journal.highwater import Noted
from statsapi.journal.sqlite_errors import judging
from statsapi.journal.sqlite_rows import Rows, record_rows

_UNREADABLE: Final = "SQLite cannot read it"
_UNREADABLE_MANY: Final = "SQLite cannot read them"
_MISSING: Final = "missing"


def find_all(connection: sqlite3.Connection, path: str, noted: Noted | None = None) -> Iterator[JournalDamaged]:
    """All damage in the file, found by reading all of it; given, never raised. Caller has a `snapshot`, or a file that
    nobody writes. `noted`: the record that was acknowledged last, unless its loss was told already.
    """
    try:
        with judging(connection):
            form = tables.form_of(connection)
            tables.check_tables(connection, path, form)
            tables.check_counts(connection, form)
    except JournalDamaged as error:
        yield error
    except sqlite3.Error as error:
        yield JournalDamaged(path, str(error))
        read_all_the_same(connection)
    try:
        with judging(connection):
            ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if said not in ("ok", b"ok"):
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            yield JournalDamaged(path, text)
    except sqlite3.Error as error:
        yield JournalDamaged(path, str(error))
    yield from find_in_tables(connection, noted)


def find_in_tables(connection: sqlite3.Connection, noted: Noted | None) -> Iterator[JournalDamaged]:
    """As `find_all`, of what stands in the tables alone."""
    for what, damages in (
        (tables.CHECKPOINT, _damaged_checkpoint(connection)),
        ("the journal's records", _damaged_records(connection, noted)),
        ("the answers that are kept under Idempotency-Keys", _damaged_answers(connection)),
    ):
        try:
            with judging(connection):
                yield from damages
        except sqlite3.Error as error:
            yield JournalDamaged(what, f"SQLite cannot read all of it: {error}")
        except JournalDamaged as error:
            yield error


def read_all_the_same(connection: sqlite3.Connection) -> None:
    """Let SQLite open a file that is shorter than its head says, or with a damaged definition of a table."""
    connection.execute("PRAGMA writable_schema=ON")


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


def _damaged_records(connection: sqlite3.Connection, noted: Noted | None) -> Iterator[JournalDamaged]:
    base: int | None = None  # not known: _damaged_checkpoint has said why
    with contextlib.suppress(JournalDamaged, sqlite3.Error):
        head = tables.read_head(connection)
        base = 0 if head is None else head.position
    rows = record_rows(connection, None if base is None else base + 1, None if noted is None else noted.position)
    wrong = []
    for position, row in rows:
        # The integrity check has found out whether a search finds the row too.
        if position is not None and position > (base or 0):
            seal = seal_of(row[3])
            if (position, seal.record_id, seal.appended_us) != row[:3]:
                wrong.append((position, JournalDamaged(record_name(position), tables.NOT_BESIDE_SEAL)))
    found = rows.proven
    if base is None:
        first_found = found.first
        if first_found is None:
            yield JournalDamaged("the journal's records", "none can be read, and where they begin is not known")
            return
        if rows.starts_late:
            what = f"the journal's records before {first_found}"
            yield JournalDamaged(what, f"{_UNREADABLE_MANY}; where they begin is not known")
        base = first_found - 1
    # Records stand without a gap, so the number of rows that prove nothing is the number of lost records.
    end = max(found.last or 0, base) + rows.unproven_at_end
    if rows.ends_early and noted is not None:
        end = max(end, noted.position)
    for first, last in found.gaps(base + 1, end):
        wrong.extend(_reasons(connection, first, last))
    for _, damage in sorted(wrong, key=lambda each: each[0]):
        yield damage
    if rows.ends_early and (noted is None or noted.position <= (found.last or 0)):
        yield JournalDamaged(f"the journal's records from {end + 1} on", f"{_UNREADABLE_MANY}; how many is not known")
    elif noted is not None:
        yield from _lost_end(connection, noted, base, end, rows)


def _reasons(connection: sqlite3.Connection, first: int, last: int) -> Iterator[tuple[int, JournalDamaged]]:
    """Why none of these records is whole, neighbours with the same reason as one."""
    begin, before = first, ""
    for position in range(first, last + 1):
        why = _reason(connection, position)
        if why != before:
            if position > first:
                yield begin, _damaged(begin, position - 1, before)
            begin, before = position, why
    yield begin, _damaged(begin, last, before)


def _reason(connection: sqlite3.Connection, position: int) -> str:
    try:
        tables.read_record(connection, position)
    except JournalDamaged as error:
        return error.why
    except (sqlite3.Error, MemoryError):  # `Rows` raised the MemoryErrors that are what they say
        return _UNREADABLE
    return _MISSING


def _damaged(first: int, last: int, why: str) -> JournalDamaged:
    if why == _MISSING:
        return missing(first, last)
    if first == last:
        return JournalDamaged(record_name(first), why)
    return JournalDamaged(
        f"the journal's records {first} to {last}", _UNREADABLE_MANY if why == _UNREADABLE else f"of each: {why}"
    )


def _lost_end(
    connection: sqlite3.Connection, noted: Noted, base: int, end: int, rows: Rows
) -> Iterator[JournalDamaged]:
    """What was acknowledged and is gone without a trace in the file."""
    first = end + 1
    if noted.position <= end:
        if noted.position <= base or rows.proven.gaps(noted.position, noted.position):
            return  # taken up by the checkpoint, or named already
        try:  # not `tables.holds`: the checkpoint may be damaged
            sealed = tables.read_record(connection, noted.position)
        except (JournalDamaged, sqlite3.Error):
            return  # it was proven above, whatever a search finds
        if sealed is not None and sealed.record_id == noted.record_id:
            return
        first = noted.position
    what = missing(first, noted.position).what
    yield JournalDamaged(what, "acknowledged, and no longer at the end of the file and its -wal")


def _damaged_answers(connection: sqlite3.Connection) -> Iterator[JournalDamaged]:
    for row in connection.execute("SELECT name, digest, answer, expires_us, checksum FROM keys"):
        if not tables.is_answer(row):
            yield JournalDamaged(tables.ANSWERS, MISMATCH)
