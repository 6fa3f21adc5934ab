"""The tables of the SQLite journal, and how every row that is read proves itself.

    records     seq INTEGER PRIMARY KEY | id | appended_us | record        record: sealed, see format.py
    checkpoint  one | id | position | record_id | appended_us | state_checksum | pieces_checksum | checksum | state
    pieces      key INTEGER PRIMARY KEY | checksum | piece
    keys        name PRIMARY KEY | digest | answer | expires_us | checksum
    meta        one | schema_checksum | checkpoint_id                      exactly one row

id and appended_us stand beside the record once more, because they are looked up alone. SQLite itself notices a page
that is not a page, but not a changed value, nor a row that is gone because its page counts one fewer. So every row that
is read is checked, records stand without a gap, and the checkpoint's checksum covers the list of pieces. A key counts
as absent only when its neighbours are whole, or damaged and of another name, and when the index of names, which has
pages of its own, does not have it either. The tables' definitions and places are checked when the file is opened: a
flipped bit there would show an empty table.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from zlib_ng.zlib_ng import crc32

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
)

APPLICATION_ID: Final = 0x73746174  # "stat"
_NEWEST_VERSION: Final = 127  # a schema beyond it is damage: no release will ever get there
OTHER_HEADER: Final = "its header is not that of a journal, and its tables are"
SCHEMA_VERSION: Final = 4

# CPU µs of an append of one event / of 10,000: 4 KiB 29 / 361, 8 KiB 34 / 316, 16 KiB 41 / 280.
# Most appends are of one event.
PAGE_BYTES: Final = 4096

TABLES: Final = {
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
    # What a damaged page of `keys` hides from a search is still found here. There is none by expiry beside it, a walk
    # over all keys does instead (sqlite_keeper.py): this index costs a keyed append 12 to 17 µs of 60, and in place of
    # that by expiry 5 to 9.
    "keys_by_name": "CREATE INDEX keys_by_name ON keys (name)",
    "meta": """CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), schema_checksum INTEGER NOT NULL, checkpoint_id BLOB NOT NULL
)""",
}


class Form(NamedTuple):
    """How a schema defines its tables."""

    schema: int
    tables: Mapping[str, str]
    index_of_keys: str


FORM: Final = Form(SCHEMA_VERSION, TABLES, "keys_by_name")
# Schema 3 had an index by expiry in the place of that by name, and the same rows.
FORM_3: Final = Form(
    3,
    {
        "keys_by_expiry" if name == FORM.index_of_keys else name: (
            "CREATE INDEX keys_by_expiry ON keys (expires_us)" if name == FORM.index_of_keys else definition
        )
        for name, definition in TABLES.items()
    },
    "keys_by_expiry",
)

# The page at which each table begins in a journal that `make` made, and after VACUUM, which writes indexes last. An
# upgraded one has others.
PLACES: Final = {name: page for page, name in enumerate(TABLES, 2)}
VACUUMED_PLACES: Final = {
    name: page for page, name in enumerate(sorted(TABLES, key=lambda name: "INDEX" in TABLES[name]), 2)
}

INSERT_RECORD: Final = "INSERT INTO records (seq, id, appended_us, record) VALUES (?, ?, ?, ?)"
_INSERT_PIECE: Final = "INSERT OR REPLACE INTO pieces (key, checksum, piece) VALUES (?, ?, ?)"
INSERT_KEY: Final = "INSERT OR REPLACE INTO keys (name, digest, answer, expires_us, checksum) VALUES (?, ?, ?, ?, ?)"
_INSERT_CHECKPOINT: Final = """
INSERT OR REPLACE INTO checkpoint
    (one, id, position, record_id, appended_us, state_checksum, pieces_checksum, checksum, state)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)
"""
LAST: Final = "SELECT seq, id, appended_us FROM records ORDER BY seq DESC LIMIT 1"
# One statement, so one snapshot, although no transaction is open: a compaction between two made them disagree.
_HEAD: Final = """
SELECT meta.checkpoint_id, id, position, record_id, appended_us, state_checksum, pieces_checksum, checksum
FROM meta LEFT JOIN checkpoint
"""
# The key of that name, or without it the next one; the key before it; and last, where the index has the name, a 1.
_KEY: Final = """
SELECT 0, * FROM (SELECT name, digest, answer, expires_us, checksum FROM keys WHERE name >= ?1 ORDER BY name LIMIT 1)
UNION ALL
SELECT 0, * FROM (
    SELECT name, digest, answer, expires_us, checksum FROM keys WHERE name < ?1 ORDER BY name DESC LIMIT 1
)
UNION ALL
SELECT 1, name, NULL, NULL, NULL, NULL FROM keys INDEXED BY keys_by_name WHERE name = ?1
"""

_INDEX_AMONG_KEYS: Final = "it is a row of their index"
ANSWERS: Final = "an answer that is kept under an Idempotency-Key"
CHECKPOINT: Final = "the journal's checkpoint"
NOT_BESIDE_SEAL: Final = "its number, id or time is not the one in its seal"


# Position, id and appended_us of the last record ever appended.
Last = tuple[int, bytes, int]


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
            raise JournalDamaged(f"{CHECKPOINT}'s pieces {first} to {last - 1}", "some are missing")
        for (key, piece), expected in zip(pieces, self.checksums[low:high], strict=True):
            with of_its_form(f"{CHECKPOINT}'s piece {key}"):
                if piece_checksum(key, piece) != expected:
                    raise JournalDamaged(f"{CHECKPOINT}'s piece {key}", MISMATCH)


@contextlib.contextmanager
def of_its_form(what: str) -> Iterator[None]:
    """JournalDamaged for a value of another type: a flipped bit may make a blob a number, or either a null."""
    try:
        yield
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise JournalDamaged(what, "it is not of its form") from error


# Rows


def read_record(connection: sqlite3.Connection, position: int) -> Sealed | None:
    """That record's seal; JournalDamaged unless the whole row is what was written."""
    row = connection.execute("SELECT id, appended_us, record FROM records WHERE seq = ?", (position,)).fetchone()
    if row is None:
        return None
    with of_its_form(f"the journal's record {position}"):
        sealed = check_sealed(position, row[2])
        if (sealed.record_id, sealed.appended_us) != row[:2]:
            raise JournalDamaged(f"the journal's record {position}", NOT_BESIDE_SEAL)
    return sealed


def holds(connection: sqlite3.Connection, position: int, record_id: bytes) -> bool:
    """Whether that record is there, or was taken up by the checkpoint. JournalDamaged where what stands in its place is
    not whole, and where a search by its number finds nothing although later records are there: a page that counts its
    rows wrong hides some from a search only. Caller has begun a transaction.
    """
    head = read_head(connection)
    if head is not None and position <= head.position:
        return True
    sealed = read_record(connection, position)
    if sealed is None:
        last = read_last(connection, None)
        if last is not None and position <= last[0]:
            raise missing(position, position)
    return sealed is not None and sealed.record_id == record_id


def read_last(connection: sqlite3.Connection, seen: Last | None) -> Last | None:
    """The last record ever appended, checked unless it is the one that was `seen` whole. JournalDamaged also where that
    one is gone.
    """
    row: Last | None = connection.execute(LAST).fetchone()
    if row == seen and seen is not None:
        return seen
    if row is None:
        head = read_head(connection)
        last = None if head is None else (head.position, head.record_id, head.appended_us)
    else:
        if read_record(connection, row[0]) is None:  # a search by its number does not find the row
            raise missing(row[0], row[0])
        last = row
    if seen is not None and (last is None or last[0] < seen[0]):
        raise missing(1 if last is None else last[0] + 1, seen[0])
    return last


def read_head(connection: sqlite3.Connection) -> Head | None:
    """The checkpoint's head, or None without a checkpoint. JournalDamaged where it is missing or does not match."""
    row = connection.execute(_HEAD).fetchone()
    if row is None:
        raise JournalDamaged("the journal's table meta", "its row is missing")
    known_id, *head, checksum = row
    if checksum is None:
        if known_id != b"":
            raise JournalDamaged(CHECKPOINT, "it is missing")
        return None
    with of_its_form(CHECKPOINT):
        if checkpoint_checksum(*head) != checksum or known_id != head[0]:
            raise JournalDamaged(CHECKPOINT, MISMATCH)
    return Head(*head)


def read_state(connection: sqlite3.Connection, head: Head) -> bytes:
    (state,) = connection.execute("SELECT state FROM checkpoint").fetchone()
    with of_its_form(CHECKPOINT):
        if crc32(state) != head.state_checksum:
            raise JournalDamaged(CHECKPOINT, MISMATCH)
    found: bytes = state
    return found


def read_pieces_index(connection: sqlite3.Connection, head: Head) -> Pieces:
    """Which pieces the checkpoint has. JournalDamaged where one is missing. 1 µs a piece, whatever its size."""
    rows = connection.execute("SELECT key, checksum FROM pieces ORDER BY key").fetchall()
    pieces = Pieces(head.id, [key for key, _ in rows], [each for _, each in rows])
    with of_its_form(f"the list of {CHECKPOINT}'s pieces"):
        if pieces_checksum(pieces.keys, pieces.checksums) != head.pieces_checksum:
            raise JournalDamaged(f"the list of {CHECKPOINT}'s pieces", MISMATCH)
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
    """Call it after the checkpoint's pieces were written."""
    rows = connection.execute("SELECT key, checksum FROM pieces ORDER BY key").fetchall()
    pieces = pieces_checksum([key for key, _ in rows], [each for _, each in rows])
    head = Head(checkpoint_id, position, record_id, appended_us, crc32(state), pieces)
    connection.execute(_INSERT_CHECKPOINT, (*head, checkpoint_checksum(*head), state))
    connection.execute("UPDATE meta SET checkpoint_id = ?", (checkpoint_id,))


def write_answer(connection: sqlite3.Connection, name: bytes, digest: bytes, answer: bytes, expires_us: int) -> None:
    connection.execute(
        INSERT_KEY, (name, digest, answer, expires_us, answer_checksum(name, digest, answer, expires_us))
    )


def read_answer(connection: sqlite3.Connection, name: bytes, settled_us: int) -> tuple[bytes, bytes] | None:
    """Digest and answer kept under the key, unless they have expired.

    A damaged name is not found, but still stands next to the place of the search: JournalDamaged where a neighbour is
    what was written under this key, or is damaged in more than its name and has a name like it. Any other damage there
    is no concern of this key. JournalDamaged too where the index has the name and the table does not.
    """
    for is_listed, *columns in connection.execute(_KEY, (name,)):
        if is_listed:
            raise JournalDamaged(ANSWERS, "one is not found where it must be")
        row = tuple(columns)
        if row[1:] == (None,) * 4:
            # A page of the index in the place of one of `keys`. New keys that are written here go into the index's own
            # pages below it, and hide others in both.
            raise JournalDamaged(ANSWERS, _INDEX_AMONG_KEYS)
        whole = is_answer(row)
        if not whole and (_is_like(row[0], name) or is_answer((name, *row[1:]))):
            raise JournalDamaged(ANSWERS, MISMATCH)
        if whole and row[0] == name:
            return row[1:3] if row[3] > settled_us else None
    return None


def _is_like(found: object, name: bytes) -> bool:
    """Whether a damaged name may have been `name`: it begins alike, or has a quarter of its bytes. Names are hashes:
    those of two keys are alike by chance only.
    """
    if not isinstance(found, bytes):
        return True
    same = sum(one == other for one, other in zip(found, name, strict=False))
    return found[:2] == name[:2] or 4 * same >= len(name)


def is_answer(row: tuple[bytes, bytes, bytes, int, int]) -> bool:
    """Whether this row of `keys` is what was written."""
    try:
        return answer_checksum(*row[:4]) == row[4]
    except (TypeError, struct.error):
        return False


# The tables


def make(connection: sqlite3.Connection) -> None:
    """Create all tables in an empty file."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    with transaction(connection):
        for statement in TABLES.values():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        write_meta(connection, b"")


def touch(connection: sqlite3.Connection) -> None:
    """Write a page and change nothing, to find out whether there is space. In a write transaction."""
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def is_new(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the file is empty. JournalRefused for another program's database and for a newer schema, JournalDamaged
    where its tables are a journal's and only its header says something else.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, things) == (0, 0, 0):
        return True
    if (application != APPLICATION_ID or not 1 <= version <= _NEWEST_VERSION) and _are_ours(connection):
        raise JournalDamaged(path, OTHER_HEADER)
    if application != APPLICATION_ID:
        raise JournalRefused(f"{path} is another program's database, or damaged: name another file")
    if not 1 <= version <= SCHEMA_VERSION:
        raise JournalRefused(f"{path} has schema {version} and this statsapi knows {SCHEMA_VERSION}: use a newer one")
    return False


def _are_ours(connection: sqlite3.Connection) -> bool:
    with contextlib.suppress(sqlite3.Error):
        return are_defined(connection)
    return False


def form_of(connection: sqlite3.Connection) -> Form:
    """The form of the journal in this file, by its index of keys. sqlite3.Error where SQLite cannot read it."""
    names = {name for name, _, _ in _definitions(connection, {**FORM_3.tables, **TABLES})}
    return FORM_3 if FORM_3.index_of_keys in names and FORM.index_of_keys not in names else FORM


def are_defined(connection: sqlite3.Connection) -> bool:
    """Whether SQLite finds all tables by their definitions, of schema 3 or of this, at places that they can have.
    `check_tables` refuses a journal also where they are, and damage lies behind. sqlite3.Error where SQLite cannot read
    the definitions.
    """
    form = form_of(connection)
    definitions = _definitions(connection, form.tables)
    (auto_vacuum,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if auto_vacuum or [(name, sql) for name, _, sql in definitions] != [
        (name, form.tables[name].encode()) for name in sorted(form.tables)
    ]:
        return False
    if {_of_today(name): page for name, page, _ in definitions} in (PLACES, VACUUMED_PLACES):
        return True
    return _noted(connection) == _schema_checksum(definitions) or _is_whole(connection)


def is_of_make(connection: sqlite3.Connection) -> bool:
    """Whether `meta` says that `make`, of schema 3 or of this, made this journal: the places are PLACES or
    VACUUMED_PLACES.
    """
    return _noted(connection) in [
        _schema_checksum([(name, PLACES[_of_today(name)], form.tables[name].encode()) for name in sorted(form.tables)])
        for form in (FORM, FORM_3)
    ]


def _of_today(name: str) -> str:
    return FORM.index_of_keys if name == FORM_3.index_of_keys else name


def _noted(connection: sqlite3.Connection) -> object:
    """The checksum of definitions and places in `meta`; None where there is none."""
    with contextlib.suppress(sqlite3.Error):
        rows = connection.execute("SELECT schema_checksum FROM meta").fetchall()
        return rows[0][0] if len(rows) == 1 else None
    return None


def _is_whole(connection: sqlite3.Connection) -> bool:
    ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    return said in ("ok", b"ok")


def read_places(connection: sqlite3.Connection) -> dict[str, int] | None:
    """The page at which each table begins: as it is defined, or where that cannot be read as in a new journal. None
    where two tables would begin at one page.
    """
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    definitions = _definitions(connection, {**FORM_3.tables, **TABLES})
    found = {_of_today(name): page for name, page, _ in definitions if isinstance(page, int) and 1 < page <= pages}
    places = {**PLACES, **found}
    return places if len(set(places.values())) == len(places) else None


def check_tables(connection: sqlite3.Connection, path: str, form: Form = FORM) -> None:
    """JournalDamaged unless the tables' definitions and places are unchanged. 0.1 ms."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (auto_vacuum,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    definitions = _definitions(connection, form.tables)
    if auto_vacuum or {name for name, _, _ in definitions} != set(form.tables):
        raise JournalDamaged(path, "its tables are not those of a journal")
    if version != form.schema:
        raise JournalDamaged(path, OTHER_HEADER)
    rows = connection.execute("SELECT schema_checksum FROM meta").fetchall()
    if len(rows) != 1:
        raise JournalDamaged("the journal's table meta", "its row is missing")
    if rows[0][0] == _schema_checksum(definitions):
        return
    # VACUUM moves tables, which is fine. A flipped bit in a place leaves pages without a table, which shows here.
    if not _is_whole(connection) or [sql for *_, sql in definitions] != [
        form.tables[name].encode() for name in sorted(form.tables)
    ]:
        raise JournalDamaged(path, "the definitions of its tables do not match their checksum")


def check_counts(connection: sqlite3.Connection, form: Form = FORM) -> None:
    """Walk the pages that hold the rows' heads: 50 ns a record and 0.3 µs a key. Most damage to pages shows here.

    A search must find every key that is there, so table and index must have the same count, and keys be in order.
    Caller has a `snapshot`.
    """
    connection.execute("SELECT count(*) FROM records").fetchone()
    count_all = f"SELECT count(*) FROM keys INDEXED BY {form.index_of_keys}"  # noqa: S608
    (in_index,) = connection.execute(count_all).fetchone()
    # With a column that the index lacks, or SQLite reads the names from the index, despite NOT INDEXED.
    names = connection.execute("SELECT name, expires_us FROM keys NOT INDEXED ORDER BY name")
    count, before = 0, b""
    while rows := names.fetchmany(4096):
        some = [before, *(name for name, _ in rows)]
        count += len(rows)
        before = some[-1]
        with of_its_form(ANSWERS):
            if some != sorted(some):
                raise JournalDamaged("the answers that are kept under Idempotency-Keys", "they are out of order")
        if any(expires_us is None for _, expires_us in rows):
            raise JournalDamaged(ANSWERS, _INDEX_AMONG_KEYS)
    if count != in_index:
        raise JournalDamaged("the answers that are kept under Idempotency-Keys", "some are missing")


def _definitions(connection: sqlite3.Connection, expected: Mapping[str, str] = TABLES) -> list[tuple[str, int, bytes]]:
    rows = connection.execute(
        "SELECT CAST(name AS BLOB), rootpage, CAST(sql AS BLOB) FROM sqlite_master ORDER BY name"
    ).fetchall()
    ours = [(name.decode("ascii", "replace"), page, sql) for name, page, sql in rows if name is not None]
    return [row for row in ours if row[0] in expected]


def _schema_checksum(definitions: list[tuple[str, int, bytes]]) -> int:
    return crc32(repr(definitions).encode())


def write_meta(connection: sqlite3.Connection, checkpoint_id: bytes) -> None:
    checksum = _schema_checksum(_definitions(connection))
    connection.execute(
        "INSERT INTO meta (one, schema_checksum, checkpoint_id) VALUES (1, ?, ?)", (checksum, checkpoint_id)
    )


def note_definitions(connection: sqlite3.Connection) -> None:
    """Call it where the definitions were changed, in the same transaction."""
    connection.execute("UPDATE meta SET schema_checksum = ?", (_schema_checksum(_definitions(connection)),))


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside is of one moment. Without it, records that others append or compact between two statements
    made undamaged data look damaged.
    """
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
