"""The tables of the SQLite journal: what they are, how older ones become these, and how it is seen that they are whole.

    records     seq INTEGER PRIMARY KEY | id | appended_us | record        record: sealed, see format.py
    checkpoint  one | id | position | record_id | appended_us | state_checksum | pieces_checksum | checksum | state
    pieces      key INTEGER PRIMARY KEY | checksum | piece
    keys        name PRIMARY KEY | digest | answer | expires_us | checksum
    meta        one | schema_checksum | checkpoint_id                      exactly one row

id and appended_us stand beside the record once more, since they are looked for alone. SQLite itself notices a page that
is no page, but not a changed value, nor a row that is gone because its page counts one fewer. So every row that is read
is checked, records stand without a gap, and the list of pieces is part of the checkpoint's checksum. A key that is not
found is believed when its neighbours are whole. What the tables are, and where, is checked when the file is opened: a
flipped bit in their definitions would show an empty table.

Schema 2 kept the records in `log`, with `payload` instead of `record`; 1 had no pieces. Its tables are emptied into the
new ones in steps, each a transaction; so it may be interrupted at any time, and takes little more space.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple
from zlib import crc32

from statsapi.errors import JournalDamaged, JournalRefused
from statsapi.journal.checksums import (
    MISMATCH,
    Sealed,
    answer_checksum,
    check_sealed,
    checkpoint_checksum,
    missing,
    piece_checksum,
    pieces_checksum,
    seal,
)

APPLICATION_ID: Final = 0x73746174  # "stat"
SCHEMA_VERSION: Final = 3

# CPU µs an append of one event / of 10,000: 4 KiB 29 / 361, 8 KiB 34 / 316, 16 KiB 41 / 280. Single ones are
# many.
PAGE_BYTES: Final = 4096

# One step of an upgrade.
UPGRADE_ROWS: Final = 16_384
UPGRADE_BYTES: Final = 16 << 20

_TABLES: Final = {
    "records": """CREATE TABLE records (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, appended_us INTEGER NOT NULL, record BLOB NOT NULL
)""",
    "checkpoint": """CREATE TABLE checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, position INTEGER NOT NULL, record_id BLOB NOT NULL,
    appended_us INTEGER NOT NULL, state_checksum INTEGER NOT NULL, pieces_checksum INTEGER NOT NULL,
    checksum INTEGER NOT NULL, state BLOB NOT NULL
)""",
    "pieces": """CREATE TABLE pieces (
    key INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, piece BLOB NOT NULL
)""",
    "keys": """CREATE TABLE keys (
    name BLOB PRIMARY KEY, digest BLOB NOT NULL, answer BLOB NOT NULL, expires_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID""",
    "keys_by_expiry": "CREATE INDEX keys_by_expiry ON keys (expires_us)",
    "meta": """CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), schema_checksum INTEGER NOT NULL, checkpoint_id BLOB NOT NULL
)""",
}

INSERT_RECORD: Final = "INSERT INTO records (seq, id, appended_us, record) VALUES (?, ?, ?, ?)"
_INSERT_PIECE: Final = "INSERT OR REPLACE INTO pieces (key, checksum, piece) VALUES (?, ?, ?)"
_INSERT_KEY: Final = "INSERT OR REPLACE INTO keys (name, digest, answer, expires_us, checksum) VALUES (?, ?, ?, ?, ?)"
_INSERT_CHECKPOINT: Final = """
INSERT OR REPLACE INTO checkpoint
    (one, id, position, record_id, appended_us, state_checksum, pieces_checksum, checksum, state)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# One statement, so one snapshot, although no transaction is open: a compaction between two made them disagree.
_HEAD: Final = """
SELECT meta.checkpoint_id, id, position, record_id, appended_us, state_checksum, pieces_checksum, checksum
FROM meta LEFT JOIN checkpoint
"""
# The name or what comes after it, and what comes before it.
_KEY: Final = """
SELECT * FROM (SELECT name, digest, answer, expires_us, checksum FROM keys WHERE name >= ?1 ORDER BY name LIMIT 1)
UNION ALL
SELECT * FROM (SELECT name, digest, answer, expires_us, checksum FROM keys WHERE name < ?1 ORDER BY name DESC LIMIT 1)
"""

_ANSWERS: Final = "an answer that is kept under an Idempotency-Key"
_CHECKPOINT: Final = "the journal's checkpoint"


class Head(NamedTuple):
    """The checkpoint without its state."""

    id: bytes
    position: int
    record_id: bytes
    appended_us: int
    state_checksum: int
    pieces_checksum: int


class Pieces(NamedTuple):
    """Which pieces a checkpoint has, by rising key, and the checksum of each."""

    checkpoint_id: bytes
    keys: list[int]
    checksums: list[int]

    def check(self, first: int, last: int, pieces: list[tuple[int, bytes]]) -> None:
        """JournalDamaged unless these are the pieces from `first` up to, not including, `last`."""
        low, high = bisect_left(self.keys, first), bisect_left(self.keys, last)
        if [key for key, _ in pieces] != self.keys[low:high]:
            raise JournalDamaged(f"{_CHECKPOINT}'s pieces {first} to {last - 1}", "some are missing")
        for (key, piece), expected in zip(pieces, self.checksums[low:high], strict=True):
            with _of_its_form(f"{_CHECKPOINT}'s piece {key}"):
                if piece_checksum(key, piece) != expected:
                    raise JournalDamaged(f"{_CHECKPOINT}'s piece {key}", MISMATCH)


@contextlib.contextmanager
def _of_its_form(what: str) -> Iterator[None]:
    """A changed bit may make a number of a blob, or a null of either."""
    try:
        yield
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise JournalDamaged(what, "it is not of its form") from error


# Rows


def read_record(connection: sqlite3.Connection, position: int) -> Sealed | None:
    """What stands beside that record's payload; JournalDamaged unless all of it is what was written."""
    row = connection.execute("SELECT id, appended_us, record FROM records WHERE seq = ?", (position,)).fetchone()
    if row is None:
        return None
    with _of_its_form(f"the journal's record {position}"):
        sealed = check_sealed(position, row[2])
        if (sealed.record_id, sealed.appended_us) != row[:2]:
            raise JournalDamaged(f"the journal's record {position}", "its id or time is not the one in its seal")
    return sealed


def read_head(connection: sqlite3.Connection) -> Head | None:
    """The checkpoint's head, if there is one; JournalDamaged where there ought to be one, or it does not match."""
    row = connection.execute(_HEAD).fetchone()
    if row is None:
        raise JournalDamaged("the journal's table meta", "its row is missing")
    known_id, *head, checksum = row
    if checksum is None:
        if known_id != b"":
            raise JournalDamaged(_CHECKPOINT, "it is missing")
        return None
    with _of_its_form(_CHECKPOINT):
        if checkpoint_checksum(*head) != checksum or known_id != head[0]:
            raise JournalDamaged(_CHECKPOINT, MISMATCH)
    return Head(*head)


def read_state(connection: sqlite3.Connection, head: Head) -> bytes:
    (state,) = connection.execute("SELECT state FROM checkpoint").fetchone()
    with _of_its_form(_CHECKPOINT):
        if crc32(state) != head.state_checksum:
            raise JournalDamaged(_CHECKPOINT, MISMATCH)
    found: bytes = state
    return found


def read_pieces_index(connection: sqlite3.Connection, head: Head) -> Pieces:
    """1 µs a piece, whatever its size."""
    rows = connection.execute("SELECT key, checksum FROM pieces ORDER BY key").fetchall()
    pieces = Pieces(head.id, [key for key, _ in rows], [each for _, each in rows])
    with _of_its_form(f"the list of {_CHECKPOINT}'s pieces"):
        if pieces_checksum(pieces.keys, pieces.checksums) != head.pieces_checksum:
            raise JournalDamaged(f"the list of {_CHECKPOINT}'s pieces", MISMATCH)
    return pieces


def write_pieces(connection: sqlite3.Connection, pieces: Iterable[tuple[int, bytes]]) -> None:
    connection.executemany(_INSERT_PIECE, ((key, piece_checksum(key, piece), piece) for key, piece in pieces))


def write_checkpoint(
    connection: sqlite3.Connection,
    checkpoint_id: bytes,
    position: int,
    record_id: bytes,
    appended_us: int,
    state: bytes,
) -> None:
    """Once its pieces are there."""
    rows = connection.execute("SELECT key, checksum FROM pieces ORDER BY key").fetchall()
    pieces = pieces_checksum([key for key, _ in rows], [each for _, each in rows])
    head = Head(checkpoint_id, position, record_id, appended_us, crc32(state), pieces)
    connection.execute(_INSERT_CHECKPOINT, (*head, checkpoint_checksum(*head), state))
    connection.execute("UPDATE meta SET checkpoint_id = ?", (checkpoint_id,))


def write_answer(connection: sqlite3.Connection, name: bytes, digest: bytes, answer: bytes, expires_us: int) -> None:
    connection.execute(
        _INSERT_KEY, (name, digest, answer, expires_us, answer_checksum(name, digest, answer, expires_us))
    )


def read_answer(connection: sqlite3.Connection, name: bytes, settled_us: int) -> tuple[bytes, bytes] | None:
    """Digest and answer that are kept under the key, unless they have expired.

    A name of which a bit was flipped is not found. It stands where it stood, so next to where it was looked for.
    """
    for row in connection.execute(_KEY, (name,)):
        if not is_answer(row):
            raise JournalDamaged(_ANSWERS, MISMATCH)
        if row[0] == name:
            return row[1:3] if row[3] > settled_us else None
    return None


def is_answer(row: tuple[bytes, bytes, bytes, int, int]) -> bool:
    """Whether a row of keys is what was written."""
    try:
        return answer_checksum(*row[:4]) == row[4]
    except (TypeError, struct.error):
        return False


# The tables


def make(connection: sqlite3.Connection) -> None:
    """Make them all in an empty file."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    with _transaction(connection):
        for statement in _TABLES.values():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        _write_meta(connection, b"")


def is_new(connection: sqlite3.Connection, path: str) -> bool:
    """Whether nothing was made in it yet. JournalRefused for what is not ours, or too new."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, things) == (0, 0, 0):
        return True
    if application != APPLICATION_ID:
        raise JournalRefused(f"{path} is another program's database, or damaged: name another file")
    if not 1 <= version <= SCHEMA_VERSION:
        raise JournalRefused(f"{path} has schema {version} and this statsapi knows {SCHEMA_VERSION}: use a newer one")
    return False


def is_old(connection: sqlite3.Connection) -> bool:
    """Whether it has tables of an older schema; also while they are being emptied."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'log'").fetchone() is not None


def check_tables(connection: sqlite3.Connection, path: str) -> None:
    """JournalDamaged unless the tables are where and what they were when they were made. 0.1 ms."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (auto_vacuum,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    definitions = _definitions(connection)
    if version != SCHEMA_VERSION or auto_vacuum or {name for name, _, _ in definitions} != set(_TABLES):
        raise JournalDamaged(path, "its tables are not those of a journal")
    rows = connection.execute("SELECT schema_checksum FROM meta").fetchall()
    if len(rows) != 1:
        raise JournalDamaged("the journal's table meta", "its row is missing")
    if rows[0][0] == _schema_checksum(definitions):
        return
    # VACUUM moves tables. What a flipped bit moved leaves pages behind that belong to none, which is found out here.
    ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if said not in ("ok", b"ok") or [sql for *_, sql in definitions] != [
        _TABLES[name].encode() for name in sorted(_TABLES)
    ]:
        raise JournalDamaged(path, "the definitions of its tables do not match their checksum")


def check_counts(connection: sqlite3.Connection) -> None:
    """Walk the pages that hold the rows' heads: 50 ns a record and 0.3 µs a key. Most damage to pages shows here.

    A key that is not found must not be there: so there are as many in the table as in its index, and they are in order.
    Caller has a `snapshot`.
    """
    connection.execute("SELECT count(*) FROM records").fetchone()
    (in_index,) = connection.execute("SELECT count(*) FROM keys INDEXED BY keys_by_expiry").fetchone()
    names = connection.execute("SELECT name FROM keys NOT INDEXED ORDER BY name")
    count, before = 0, b""
    while rows := names.fetchmany(4096):
        some = [before, *(name for (name,) in rows)]
        count += len(rows)
        before = some[-1]
        with _of_its_form(_ANSWERS):
            if some != sorted(some):
                raise JournalDamaged("the answers that are kept under Idempotency-Keys", "they are out of order")
    if count != in_index:
        raise JournalDamaged("the answers that are kept under Idempotency-Keys", "some are missing")


def damages(connection: sqlite3.Connection, path: str) -> Iterator[JournalDamaged]:
    """Everything in the file that is not what was written, by reading all of it. Never raises it. Caller has a
    `snapshot`, or a file that nobody writes.
    """
    try:
        check_tables(connection, path)
        check_counts(connection)
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
    head = read_head(connection)
    if head is None:
        return
    try:
        read_state(connection, head)
    except JournalDamaged as error:
        yield error
    index = read_pieces_index(connection, head)
    for key in index.keys:
        try:
            index.check(
                key, key + 1, connection.execute("SELECT key, piece FROM pieces WHERE key = ?", (key,)).fetchall()
            )
        except JournalDamaged as error:
            yield error


def _damaged_records(connection: sqlite3.Connection) -> Iterator[JournalDamaged]:
    try:
        head = read_head(connection)
        expected = 1 if head is None else head.position + 1
    except JournalDamaged:  # told already
        expected = 1
        row = connection.execute("SELECT min(seq) FROM records").fetchone()
        expected = row[0] or 1
    rows = connection.execute("SELECT seq FROM records WHERE seq >= ? ORDER BY seq", (expected,))
    for (position,) in rows:
        if position > expected:
            yield missing(expected, position - 1)
        try:
            read_record(connection, position)
        except JournalDamaged as error:
            yield error
        expected = position + 1


def _damaged_answers(connection: sqlite3.Connection) -> Iterator[JournalDamaged]:
    for row in connection.execute("SELECT name, digest, answer, expires_us, checksum FROM keys"):
        if not is_answer(row):
            yield JournalDamaged(_ANSWERS, MISMATCH)


def _definitions(connection: sqlite3.Connection) -> list[tuple[str, int, bytes]]:
    rows = connection.execute(
        "SELECT CAST(name AS BLOB), rootpage, CAST(sql AS BLOB) FROM sqlite_master ORDER BY name"
    ).fetchall()
    ours = [(name.decode("ascii", "replace"), page, sql) for name, page, sql in rows]
    return [row for row in ours if row[0] in _TABLES]


def _schema_checksum(definitions: list[tuple[str, int, bytes]]) -> int:
    return crc32(repr(definitions).encode())


def _write_meta(connection: sqlite3.Connection, checkpoint_id: bytes) -> None:
    checksum = _schema_checksum(_definitions(connection))
    connection.execute(
        "INSERT INTO meta (one, schema_checksum, checkpoint_id) VALUES (1, ?, ?)", (checksum, checkpoint_id)
    )


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read in it is of one moment. Between two statements alone others record, and records go to a checkpoint:
    what is whole looked damaged then.
    """
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


# Older schemas


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a file of schema 1 or 2 up to date, or go on with it where it was interrupted.

    The caller has the file for itself (locking_mode=EXCLUSIVE). About 3 µs a record and 5 ns a byte.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < SCHEMA_VERSION:
        with _transaction(connection):
            names = {name for (name,) in connection.execute("SELECT CAST(name AS BLOB) FROM sqlite_master")}
            connection.execute("DROP INDEX IF EXISTS keys_by_expiry")
            for name in ("checkpoint", "pieces", "keys"):
                if name.encode() in names:
                    connection.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
            connection.execute("CREATE TABLE IF NOT EXISTS old_pieces (key INTEGER PRIMARY KEY, piece BLOB NOT NULL)")
            for statement in _TABLES.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    for table, key, move in (
        ("log", "seq", _move_records),
        ("old_pieces", "key", _move_pieces),
        ("old_keys", "name", _move_keys),
    ):
        while _move(connection, table, key, move):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with _transaction(connection):
        old = connection.execute("SELECT id, position, record_id, appended_us, state FROM old_checkpoint").fetchone()
        for table in ("log", "old_checkpoint", "old_pieces", "old_keys"):
            connection.execute(f"DROP TABLE {table}")
        _write_meta(connection, b"")
        if old is not None:
            write_checkpoint(connection, *old)


def _move(
    connection: sqlite3.Connection, table: str, key: str, move: Callable[[sqlite3.Connection, Any], None]
) -> bool:
    """One step; whether there was something to do."""
    with _transaction(connection):
        rows, size = [], 0
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY {key} LIMIT {UPGRADE_ROWS}"):  # noqa: S608
            rows.append(row)
            size += len(row[-1]) if isinstance(row[-1], bytes) else 100
            if size >= UPGRADE_BYTES:
                break
        if rows:
            move(connection, rows)
            connection.execute(f"DELETE FROM {table} WHERE {key} <= ?", (rows[-1][0],))  # noqa: S608
    return bool(rows)


def _move_records(connection: sqlite3.Connection, rows: list[tuple[int, bytes, int, bytes]]) -> None:
    connection.executemany(
        INSERT_RECORD, ((seq, id_, stamp, seal(seq, id_, stamp, payload)) for seq, id_, stamp, payload in rows)
    )


def _move_pieces(connection: sqlite3.Connection, rows: list[tuple[int, bytes]]) -> None:
    write_pieces(connection, rows)


def _move_keys(connection: sqlite3.Connection, rows: list[tuple[bytes, bytes, bytes, int]]) -> None:
    connection.executemany(_INSERT_KEY, ((*row, answer_checksum(*row)) for row in rows))
