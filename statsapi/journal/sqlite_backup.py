"""A copy of a SQLite journal, made while others record."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import time
from urllib.parse import quote

from statsapi.errors import CopyRefused, JournalDamaged, JournalUnavailable
from statsapi.journal.group_commit import WAIT_LIMIT_S
from statsapi.journal.sqlite_check import find_all
from statsapi.journal.sqlite_errors import primary_code
from statsapi.journal.sqlite_url import why_companion


class Backup:
    """A copy of the database at another path: made beside it, checked, flushed, and only then given its name.

    It uses SQLite's backup interface in one step: one read transaction, so the copy is of one moment and writers go on.
    In several steps it would begin again whenever another process writes. VACUUM INTO makes the same copy, compacted,
    in twice the time (0.8 and 1.6 s for 250 MB), during which the WAL cannot be written anew from its start.
    """

    def __init__(self, source: str, target: str, overwrite: bool) -> None:
        self._source = source
        self._target = os.path.abspath(target)
        self._overwrite = overwrite

    def run(self, connection: sqlite3.Connection) -> None:
        self._check_target()
        partial = f"{self._target}.{secrets.token_hex(4)}.partial"
        try:
            self._make(partial)
            self._copy(connection, partial)
            self._check_copy(partial)
            _fsync(partial)
            self._check_target()
            os.replace(partial, self._target)
            _fsync(os.path.dirname(self._target))
        except OSError as error:
            raise CopyRefused(f"{self._target} cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)

    def _check_target(self) -> None:
        if (reason := why_companion(self._target)) is not None:
            raise CopyRefused(f"{self._target}: {reason}")
        if not os.path.lexists(self._target):
            return
        if not self._overwrite:
            raise CopyRefused(f"{self._target} is there already: name another file")
        if not os.path.isfile(self._target):
            raise CopyRefused(f"{self._target} is not a file: name another")
        if os.path.samefile(self._source, self._target):
            raise CopyRefused(f"{self._target} is the journal itself: name another file")
        if os.path.exists(self._target + "-wal"):  # it would be played into the copy
            raise CopyRefused(f"{self._target} is in use, as its -wal shows: name another file")

    def _make(self, partial: str) -> None:
        """Give the copy the journal's mode, and under root its owner: the same users may read it and put it back."""
        source = os.stat(self._source)
        made = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.geteuid() == 0:
                os.fchown(made, source.st_uid, source.st_gid)
            os.fchmod(made, stat.S_IMODE(source.st_mode))
        finally:
            os.close(made)

    def _copy(self, connection: sqlite3.Connection, partial: str) -> None:
        deadline = time.monotonic() + WAIT_LIMIT_S

        def tell(status: int, remaining: int, total: int) -> None:
            if status != sqlite3.SQLITE_DONE and time.monotonic() > deadline:  # Python would retry for ever
                raise JournalUnavailable(f"another process holds {self._source}")

        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode=OFF").fetchall()  # a failed copy is removed, a whole one flushed below
            copy.execute("PRAGMA synchronous=OFF")
            try:
                connection.backup(copy, progress=tell)
            except sqlite3.Error as error:
                if primary_code(error) == sqlite3.SQLITE_FULL:
                    raise CopyRefused(f"{self._target}: the disk that holds it is full: free some space") from error
                # SQLite does not say which of the two files failed.
                raise JournalUnavailable(f"copying {self._source} to {self._target} failed: {error}") from error

    def _check_copy(self, partial: str) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{quote(partial)}?immutable=1", uri=True)) as copy:
            copy.text_factory = bytes
            damage = next(find_all(copy, self._source), None)
        if damage is not None:
            raise JournalDamaged(damage.what, f"{damage.why}; the copy was not kept")


def _fsync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
