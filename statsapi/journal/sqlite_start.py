"""The start of a SQLite journal: its file is made, checked, and brought up to date where it is of an older version."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time

from statsapi.errors import JournalRefused
from statsapi.journal import sqlite_tables as tables
from statsapi.journal import sqlite_upgrade
from statsapi.journal.sqlite_errors import cause, failure, judging, primary_code, refusal
from statsapi.journal.sqlite_file import File

logger = logging.getLogger("statsapi")


def prepare(file: File, *, create: bool) -> None:
    """Make the file, or check that it can be used. JournalRefused, with what to do, where it cannot."""
    if not create and not os.path.exists(file.path):
        raise JournalRefused(f"there is no journal at {file.path}")
    _check_folder(file)
    with file.alone() as opened_folder:
        try:
            file.before_opening(file.real, opened_folder)
            with contextlib.closing(file.open("rwc" if create else "rw")) as connection, judging(connection):
                is_old = False
                if tables.is_new(connection, file.path):
                    if not create:
                        raise JournalRefused(f"{file.path} is empty")
                    tables.make(connection)
                    os.fsync(opened_folder)  # SQLite syncs the folder for the -wal, not for the file
                else:
                    is_old = sqlite_upgrade.is_old(connection)
            if is_old:
                _upgrade(file)
            with contextlib.closing(file.open("rw")) as connection, judging(connection):
                tables.check_tables(connection, file.path)
                with tables.snapshot(connection):
                    tables.check_counts(connection)
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                raise JournalRefused(f"{file.path} is locked by another process: stop it") from error
            if cause(error) == sqlite3.SQLITE_FULL:  # unavailable, not refused: space may come back
                raise failure(error, file.path) from error
            raise refusal(error, file.path) from error
        if mode != b"wal":
            raise JournalRefused(
                f"{file.path} is on a file system that cannot share memory, as WAL must: use a local disk"
            )


def _check_folder(file: File) -> None:
    folder = os.path.dirname(file.real)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise JournalRefused(
            f"the folder {folder} cannot be made, as a file stands in its way: name another by --journal or "
            "STATSAPI_JOURNAL"
        ) from error
    except OSError as error:
        raise JournalRefused(
            f"the folder {folder} cannot be made ({error.strerror}): make it, or name another by --journal or "
            "STATSAPI_JOURNAL"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise JournalRefused(
            f"the journal's folder {folder} cannot be written (SQLite keeps -wal and -shm there): "
            "let this user write it, or name another"
        )
    try:
        found = os.stat(file.path)
        if not stat.S_ISREG(found.st_mode):
            raise JournalRefused(f"{file.path} is not a file: name another")
        if found.st_nlink > 1:  # SQLite keeps -wal and -shm by the name: two users would undo each other's records
            raise JournalRefused(
                f"{file.path} has another name as well (a hard link), and whoever opened it by that would undo what is "
                "recorded here: remove the other name, or put a copy in this one's place"
            )
        if not os.access(file.path, os.R_OK | os.W_OK):
            raise JournalRefused(f"{file.path} is read-only: let this user write it, or name another")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise JournalRefused(f"{file.path} cannot be used ({error.strerror}): name another") from error


def _upgrade(file: File) -> None:
    """Bring an older file up to date. The caller has it `alone`."""
    with contextlib.closing(file.open("rw")) as connection, judging(connection):
        try:
            # Before anything is read, so that nobody else can have it open, such as an older version's workers.
            connection.execute("PRAGMA busy_timeout=1000").fetchall()
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            connection.execute("PRAGMA synchronous=FULL")
            began_s = time.monotonic()
            sqlite_upgrade.upgrade(connection, file.path)
            took_s = time.monotonic() - began_s
            logger.info(
                "%s is of an older version and was brought to schema %d in %.1f s",
                file.path,
                tables.SCHEMA_VERSION,
                took_s,
            )
        except sqlite3.Error as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            raise JournalRefused(
                f"{file.path} is of an older version, and in use: stop all its workers, then start this one"
            ) from error
