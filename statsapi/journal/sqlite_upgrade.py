"""How a journal's file of an older schema becomes one of this.

Schema 3 had an index of keys by expiry in place of that by name. Schema 2 kept the records in `log`, with `payload`
instead of `record` and without checksums; schema 1 had no pieces. These old tables are emptied into the new ones in
steps, each a transaction. So an upgrade may be interrupted at any time, and takes little more space.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from statsapi.errors import JournalDamaged
from statsapi.journal import sqlite_tables as tables
from statsapi.journal.checksums import answer_checksum, seal

# One step of an upgrade.
UPGRADE_ROWS: Final = 16_384
UPGRADE_BYTES: Final = 16 << 20


def is_old(connection: sqlite3.Connection) -> bool:
    """Whether it has tables or an index of an older schema, also after an interrupted upgrade."""
    return lacks_checksums(connection) or _has(connection, tables.FORM_3.index_of_keys)


def lacks_checksums(connection: sqlite3.Connection) -> bool:
    """Whether it has tables of schema 1 or 2, also after an interrupted upgrade."""
    return _has(connection, "log")


def _has(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def upgrade(connection: sqlite3.Connection, path: str) -> None:
    """Bring a file of an older schema up to date, or continue an interrupted upgrade.

    The caller has the file to itself (locking_mode=EXCLUSIVE). Schema 3: 1 µs a key. Schemas 1 and 2: about 3 µs a
    record and 5 ns a byte. JournalDamaged where what is there is not what was written.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    has_log, has_records = lacks_checksums(connection), _has(connection, "records")
    # `records` is made in the transaction that sets the number to 3 or later.
    if (version < tables.FORM_3.schema and has_records) or (
        version >= tables.FORM_3.schema and has_log and not has_records
    ):
        raise JournalDamaged(path, tables.OTHER_HEADER)
    if version == tables.FORM_3.schema:
        _index_by_name(connection, path)
    if has_log:
        _add_checksums(connection, version)


def _index_by_name(connection: sqlite3.Connection, path: str) -> None:
    if not lacks_checksums(connection):  # else an upgrade to schema 3 was interrupted, and `meta` is not written yet
        tables.check_tables(connection, path, tables.FORM_3)
    tables.check_counts(connection, tables.FORM_3)
    with tables.transaction(connection):
        connection.execute("DROP INDEX keys_by_expiry")
        connection.execute(tables.TABLES["keys_by_name"])
        connection.execute(f"PRAGMA user_version={tables.SCHEMA_VERSION}")
        tables.note_definitions(connection)


def _add_checksums(connection: sqlite3.Connection, version: int) -> None:
    if version < tables.FORM_3.schema:
        with tables.transaction(connection):
            names = {name for (name,) in connection.execute("SELECT CAST(name AS BLOB) FROM sqlite_master")}
            connection.execute("DROP INDEX IF EXISTS keys_by_expiry")
            for name in ("checkpoint", "pieces", "keys"):
                if name.encode() in names:
                    connection.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
            connection.execute("CREATE TABLE IF NOT EXISTS old_pieces (key INTEGER PRIMARY KEY, piece BLOB NOT NULL)")
            for statement in tables.TABLES.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={tables.SCHEMA_VERSION}")
    for table, key, move in (
        ("log", "seq", _move_records),
        ("old_pieces", "key", _move_pieces),
        ("old_keys", "name", _move_keys),
    ):
        while _move(connection, table, key, move):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with tables.transaction(connection):
        old = connection.execute("SELECT id, position, record_id, appended_us, state FROM old_checkpoint").fetchone()
        for table in ("log", "old_checkpoint", "old_pieces", "old_keys"):
            connection.execute(f"DROP TABLE {table}")
        tables.write_meta(connection, b"")
        if old is not None:
            with tables.of_its_form(tables.CHECKPOINT):
                tables.write_checkpoint(connection, *old)


def _move(
    connection: sqlite3.Connection, table: str, key: str, move: Callable[[sqlite3.Connection, Any], None]
) -> bool:
    """One step. Returns whether there was anything to move."""
    with tables.transaction(connection):
        rows, size = [], 0
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY {key} LIMIT {UPGRADE_ROWS}"):  # noqa: S608
            rows.append(row)
            size += len(row[-1]) if isinstance(row[-1], bytes) else 100
            if size >= UPGRADE_BYTES:
                break
        if rows:
            with tables.of_its_form(f"the table {table}, of an older version,"):
                move(connection, rows)
            connection.execute(f"DELETE FROM {table} WHERE {key} <= ?", (rows[-1][0],))  # noqa: S608
    return bool(rows)


def _move_records(connection: sqlite3.Connection, rows: list[tuple[int, bytes, int, bytes]]) -> None:
    connection.executemany(
        tables.INSERT_RECORD, ((seq, id_, stamp, seal(seq, id_, stamp, payload)) for seq, id_, stamp, payload in rows)
    )


def _move_pieces(connection: sqlite3.Connection, rows: list[tuple[int, bytes]]) -> None:
    tables.write_pieces(connection, rows)


def _move_keys(connection: sqlite3.Connection, rows: list[tuple[bytes, bytes, bytes, int]]) -> None:
    connection.executemany(tables.INSERT_KEY, ((*row, answer_checksum(*row)) for row in rows))
