"""SQLite journals as older versions made them, and what must be in one when it was brought up to date."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

from statsapi.journal import Checkpoint, IdempotencyKey, Mark
from statsapi.journal.format import encode
from statsapi.journal.sqlite import SqliteJournal
from statsapi.model import EventBatch
from tests.journal_engines import values

# As schema 1 made it; schema 2 has pieces as well.
_SCHEMA_1 = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, id BLOB NOT NULL, appended_us INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, position INTEGER NOT NULL,
    record_id BLOB NOT NULL, appended_us INTEGER NOT NULL, state BLOB NOT NULL
);
CREATE TABLE keys (
    name BLOB PRIMARY KEY, digest BLOB NOT NULL, answer BLOB NOT NULL, expires_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_by_expiry ON keys (expires_us);
PRAGMA application_id=0x73746174;
"""


def make_old(path: str, version: int, records: int) -> list[Mark]:
    """A file of an older version: the first two records are compacted, with a key and, in 2, two pieces."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    marks = [Mark(number, os.urandom(16)) for number in range(1, records + 1)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA_1 + f"PRAGMA user_version={version};")
        connection.execute("BEGIN")
        for mark in marks[2:]:
            payload = encode(EventBatch.single("default", 0, float(mark.position)))
            connection.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (*mark, mark.position, payload))
        connection.execute("INSERT INTO checkpoint VALUES (1, ?, ?, ?, 2, ?)", (b"c" * 16, *marks[1], b"state"))
        connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (b"name", b"digest", b"answer", 1 << 60))
        if version == 2:
            connection.execute("CREATE TABLE pieces (key INTEGER PRIMARY KEY, piece BLOB NOT NULL)")
            connection.executemany("INSERT INTO pieces VALUES (?, ?)", [(1, b"one"), (2, b"two")])
        connection.execute("COMMIT")
    return marks


def make_schema_3(path: str) -> None:
    """Make a closed journal of today one of schema 3, which had an index of keys by expiry in place of that by name."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("DROP INDEX keys_by_name")
        connection.execute("CREATE INDEX keys_by_expiry ON keys (expires_us)")
        connection.execute("PRAGMA user_version=3")
        rows = connection.execute(
            "SELECT name, rootpage, CAST(sql AS BLOB) FROM sqlite_master ORDER BY name"
        ).fetchall()
        connection.execute(
            "UPDATE meta SET schema_checksum = ?",
            (zlib.crc32(repr([row for row in rows if not row[0].startswith("sqlite_")]).encode()),),
        )
        connection.execute("COMMIT")


def check_upgraded(journal: SqliteJournal, version: int, marks: list[Mark]) -> None:
    """`marks`: what `make_old` gave."""
    checkpoint = journal.read_checkpoint()
    assert checkpoint == Checkpoint(b"c" * 16, marks[1], 2, b"state")
    assert values(journal, marks[1]) == {"default": [float(mark.position) for mark in marks[2:]]}
    assert journal.read_pieces(b"c" * 16, 0, 9) == ([(1, b"one"), (2, b"two")] if version == 2 else [])
    assert journal.find_answer(IdempotencyKey(b"name", b"digest", 1)) == b"answer"
    assert journal.info().schema_version == 4
