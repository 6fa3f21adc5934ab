"""The file of a SQLite journal: opening it, and noticing when another file takes its place. sqlite_start.py makes it.

The file must stay the one that was opened. When it was replaced (a backup was moved into its place) each connection is
opened afresh, and marks no longer match. A link is followed at each opening: the file behind it counts. The old file's
-wal, which SQLite would play into the new file, is removed first. A backup must be moved into place, not copied over
the open file: nothing can see that, and SQLite does not survive it. Never open the file itself with os.open: closing
any descriptor of it drops the process's POSIX locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import quote

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import sqlite_tables as tables
from statsapi.journal import sqlite_upgrade, sqlite_wal
from statsapi.journal.highwater import HighWater, Noted, is_left_over
from statsapi.journal.protocol import Lost
from statsapi.journal.sqlite_errors import failure, judging
from statsapi.journal.sqlite_tables import PAGE_BYTES

logger = logging.getLogger("statsapi")

# Between two tries for the folder's lock.
RETRY_S: Final = 1e-3


class Identity(NamedTuple):
    device: int
    inode: int


class _Opened(NamedTuple):
    """The file opened last, its path then, and its -wal."""

    path: str
    file: Identity
    wal: Identity | None


class File:
    """See the module's text. Any thread may call."""

    def __init__(self, path: str, wait_limit_s: float) -> None:
        self.path = path
        self.water = HighWater()
        self._wait_limit_s = wait_limit_s
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._loss: Lost | None = None
        self._claimed = False

    @property
    def real(self) -> str:
        """The file's path with links resolved: SQLite keeps the -wal and -shm there."""
        return os.path.realpath(self.path)

    def identity(self) -> Identity:
        found = self._stat()
        return Identity(found.st_dev, found.st_ino)

    def is_still(self, identity: Identity | None) -> bool:
        """Whether that is the file at the path."""
        found = self._stat()
        return identity is not None and found.st_ino == identity.inode and found.st_dev == identity.device

    def _stat(self) -> os.stat_result:
        try:
            return os.stat(self.path)
        except OSError as error:
            # A restore may be under way: a new file made now would be replaced, with what was recorded in it.
            raise JournalUnavailable(f"{self.path} is not there ({error.strerror}); restore it, or restart") from error

    def size_bytes(self) -> int:
        size = 0
        real = self.real
        for path in (real, real + "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(path).st_size
        return size

    def claim_loss(self) -> Lost | None:
        """The loss that the opening found. Only one of the processes that found it gets it."""
        with self._lock:
            if self._loss is not None and not self._claimed:
                self._claimed = self.water.claim(self.real)
                if not self._claimed:
                    self._loss = None
            return self._loss

    def close(self) -> None:
        self.water.close()

    def connect(self, settings: tuple[str, ...]) -> tuple[sqlite3.Connection, Identity]:
        """A connection to the file that is at the path now. It never makes one."""
        with self.alone():
            identity, real = self.identity(), self.real
            before = self._opened
            replaced = before is not None and before.file != identity
            if before is not None and replaced and before.path == real and before.wal == _identity_of(real + "-wal"):
                sqlite_wal.unlink(real)
            self.clear_space(real)
            try:
                connection = self.open("rw")
                try:
                    with judging(connection):
                        self._check_made(connection)
                        for setting in settings:
                            connection.execute(setting).fetchall()
                        connection.execute(tables.LAST).fetchall()  # opens the -wal
                        sqlite_wal.reserve_shm(real)
                        if before is None or replaced:
                            self._compare(connection, real, told_by_views=replaced)
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error as error:
                raise failure(error, self.path) from error
            except JournalDamaged:
                raise
            except JournalRefused as error:
                raise JournalUnavailable(str(error)) from error
            self._opened = _Opened(real, identity, _identity_of(real + "-wal"))
            self.water.note_wal(real)
            return connection, identity

    def clear_space(self, real: str) -> None:
        """Call before anything opens the file: SQLite would play an older file's -wal into the one in its place."""
        if is_left_over(real + "-wal", real):
            sqlite_wal.unlink(real)
        sqlite_wal.check_space(real)

    def _compare(self, connection: sqlite3.Connection, real: str, *, told_by_views: bool) -> None:
        """Find out whether the file holds the record that was noted as acknowledged last."""
        with tables.snapshot(connection):
            last = tables.read_last(connection, None)

        def stands(noted: Noted) -> bool:
            # A snapshot that begins after the note was read, because a record is committed before it is noted.
            with tables.snapshot(connection):
                return tables.holds(connection, noted.position, noted.record_id)

        noted = self.water.compare(real, stands)
        if noted is None:
            return
        if told_by_views:
            self.water.claim(real)
            return
        position = 0 if last is None else last[0]
        self._loss = Lost(
            noted.position - position if noted.position > position else None,
            None if last is None else last[2],
            self._how(noted, position),
            all=last is None,
        )

    def _how(self, noted: Noted, position: int) -> str:
        end = f"record {noted.position} was acknowledged, and {self.path} ends with {position or 'none'}"
        if noted.position <= position:
            end = f"record {noted.position} was acknowledged, and {self.path} has another one in its place"
        if not noted.same_file:
            return f"{end}: an older or another file was put in its place"
        if not noted.same_boot:
            return f"{end}: the machine went down before the last of it was on the disk"
        return f"{end}: the end of it, or of its -wal, is damaged or was taken away"

    def open(self, mode: str) -> sqlite3.Connection:
        """A bare connection, for the caller who is `alone`."""
        connection = sqlite3.connect(
            f"file:{quote(self.real)}?mode={mode}",
            uri=True,
            timeout=self._wait_limit_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = bytes  # a flipped bit may turn a blob into text
        connection.execute(f"PRAGMA wal_autocheckpoint={sqlite_wal.NET_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit={sqlite_wal.KEPT_BYTES}")
        connection.execute("PRAGMA secure_delete=OFF")  # Debian's build would overwrite deleted data
        return connection

    def _check_made(self, connection: sqlite3.Connection) -> None:
        if tables.is_new(connection, self.path):
            raise JournalUnavailable(f"{self.path} was replaced by an empty file; restore it")
        if sqlite_upgrade.is_old(connection):
            raise JournalUnavailable(f"{self.path} was replaced by one of an older version; restart")
        tables.check_tables(connection, self.path)

    @contextlib.contextmanager
    def alone(self) -> Iterator[int]:
        """Keep other workers from opening the file. The flock on the folder is polled: a blocking one has no limit."""
        deadline = time.monotonic() + self._wait_limit_s
        with self._lock:
            try:
                folder = os.open(os.path.dirname(self.real), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise JournalUnavailable(f"the folder of {self.path} is not there ({error.strerror})") from error
            try:
                while True:
                    try:
                        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() >= deadline:
                            raise JournalUnavailable(f"another process is opening {self.path}") from None
                        time.sleep(RETRY_S)
                yield folder
            finally:
                os.close(folder)


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return Identity(found.st_dev, found.st_ino)
