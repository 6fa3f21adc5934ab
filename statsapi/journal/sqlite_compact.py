"""Giving the space of a SQLite journal back to the disk, while nobody uses it."""

from __future__ import annotations

import contextlib
import sqlite3

from statsapi.errors import JournalDamaged, JournalRefused
from statsapi.journal.sqlite_errors import cause, failure, fault_in, judging, primary_code
from statsapi.journal.sqlite_file import File


def compact(file: File) -> tuple[int, int]:
    """Write the file anew without its free pages: its bytes before and after, its -wal with it.

    It takes as much space again for a while, and about 10 ms a megabyte. An interruption leaves the file as it was.
    JournalRefused while another process uses the journal, JournalUnavailable on a full disk.
    """
    with file.alone() as folder:
        try:
            file.before_opening(file.real, folder)
            before = file.size_bytes()
            with contextlib.closing(file.open("rw")) as connection:
                _compact(connection, file)
        except sqlite3.Error as error:
            raise failure(error, file.path) from error
        return before, file.size_bytes()


def _compact(connection: sqlite3.Connection, file: File) -> None:
    try:
        with judging(connection):
            _write_anew(connection)
    except sqlite3.Error as error:
        if primary_code(error) == sqlite3.SQLITE_BUSY:
            raise JournalRefused(f"{file.path} is in use: stop the service first") from error
        if cause(error) == sqlite3.SQLITE_FULL:
            if said := fault_in(connection):  # a row that claims 4 GiB fills any disk
                raise JournalDamaged(file.path, said) from error
            raise JournalRefused(
                f"the disk that holds {file.path} has too little space: it takes as much again for a while"
            ) from error
        raise


def _write_anew(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout=1000").fetchall()
    # Before anything is read, so that nobody else can have it open.
    connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
