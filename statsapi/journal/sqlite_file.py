"""The file of a SQLite journal: opening it, and noticing when another file takes its place. sqlite_start.py makes it.

The file must stay the one that was opened. When it was replaced (a backup was moved into its place) each connection is
opened afresh, and marks no longer match. A link is followed at each opening: the file behind it counts. The old file's
-wal, which SQLite would play into the new file, is removed first. A backup must be moved into place, not copied over
the open file: nothing can see that, and SQLite does not survive it. Never open the file itself with os.open: closing
any descriptor of it drops the process's POSIX locks.

The -wal and -shm must stay as well. Where somebody removes or replaces them, the connections that are open go on with
those they have, all with the same, while a new one would make others: two histories in one file. So nobody opens the
file as long as one of them is missing, or another than was noted, and somebody has the file open, which SQLite's own
locks tell. Each worker looks once a second, and before each COMMIT, for what was removed, moves what its -wal holds
into the file and lets go of it (Link.leave_removed). When all have done so, a new -wal is made. That costs a second of
waiting, and nothing that was acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
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
from statsapi.journal.highwater import HighWater, Noted, is_left_over, noted_beside
from statsapi.journal.protocol import Lost
from statsapi.journal.sqlite_errors import failure, judging, primary_code
from statsapi.journal.sqlite_tables import PAGE_BYTES

logger = logging.getLogger("statsapi")

# Between two tries for the folder's lock.
RETRY_S: Final = 1e-3
# Several connections of a process meet the same removal within this time.
TOLD_S: Final = 5.0

# The last of others that closes the file removes its -wal and -shm, perhaps while it is opened here.
_TRIES: Final = 3


class Identity(NamedTuple):
    device: int
    inode: int


Beside = tuple[Identity | None, Identity | None]  # the -wal and the -shm


class Opened(NamedTuple):
    """A file that was opened, its path then, its -wal and its -shm."""

    path: str
    file: Identity
    wal: Identity
    shm: Identity
    wal_path: str


class _MovedMeanwhile(JournalUnavailable):
    """The -wal or -shm became another while the file was opened."""


class File:
    """See the module's text. Any thread may call."""

    def __init__(self, path: str, wait_limit_s: float) -> None:
        self.path = path
        self.water = HighWater()
        self.unsafe: str | None = None  # why the last flush failed, for as long as nothing may be appended
        self._wait_limit_s = wait_limit_s
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._loss: Lost | None = None
        self._claimed = False
        self._told_saved = -math.inf

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

    def check_safe(self) -> None:
        if self.unsafe is not None:
            raise JournalUnavailable(self.unsafe)

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

    def removed_beside(self, opened: Opened) -> list[str]:
        """Which of that file's -wal and -shm are no longer at their paths. Empty where another file is in its place,
        as that one has its own.
        """
        beside = ((opened.path + "-wal", opened.wal), (opened.path + "-shm", opened.shm))
        gone = [path for path, identity in beside if _identity_of(path) != identity]
        return gone if gone and self.is_still(opened.file) else []

    def has_wal(self, opened: Opened) -> bool:
        """Whether the -wal is still at its path: 1 µs."""
        try:
            return os.stat(opened.wal_path).st_ino == opened.wal.inode
        except OSError:
            return False

    def clear_strangers(self, opened: Opened) -> None:
        """Remove what somebody put in the place of the -wal or -shm of `opened`, which the caller has open: nobody else
        has opened the file since, and SQLite would play it into the file.
        """
        if not any(map(os.path.lexists, self.removed_beside(opened))):
            return
        with self.alone():  # so that nobody opens another file that takes this one's place
            for path in self.removed_beside(opened):
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass
                except IsADirectoryError:
                    _remove_folder(path)

    def tell_saved(self, removed: str) -> None:
        """Log it once for all connections of this process."""
        now_s = time.monotonic()
        if now_s - self._told_saved > TOLD_S:
            logger.warning(
                "%s was removed or replaced while the journal is in use. Nothing is lost: what it held is in %s now. "
                "Leave such files alone, as they are part of the journal",
                removed,
                self.path,
            )
        self._told_saved = now_s

    def connect(self, settings: tuple[str, ...]) -> tuple[sqlite3.Connection, Opened]:
        """A connection to the file that is at the path now. It never makes one."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(_MovedMeanwhile):
                return self._connect(settings)
        return self._connect(settings)

    def _connect(self, settings: tuple[str, ...]) -> tuple[sqlite3.Connection, Opened]:
        with self.alone() as folder:
            identity, real = self.identity(), self.real
            before = self._opened
            replaced = before is not None and before.file != identity
            if before is not None and replaced and before.path == real and before.wal == _identity_of(real + "-wal"):
                sqlite_wal.unlink(real)
            try:
                there = self.before_opening(real, folder)
                connection = self.open("rw")
                try:
                    with judging(connection):
                        self._check_made(connection)
                        for setting in settings:
                            connection.execute(setting).fetchall()
                        connection.execute(tables.LAST).fetchall()  # opens the -wal
                        sqlite_wal.reserve_shm(real)
                        opened = _just_opened(self.path, real, identity, there)
                        if opened != before:
                            self._compare(connection, real, told_by_views=before is not None)
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error as error:
                raise failure(error, self.path) from error
            except JournalDamaged:
                raise
            except JournalRefused as error:
                raise JournalUnavailable(str(error)) from error
            self._opened = opened
            self.water.note_beside(real)
            return connection, opened

    def before_opening(self, real: str, folder: int) -> Beside:
        """Call before anything opens the file, with what `alone` gave. SQLite would play an older file's -wal into the
        one in its place, or make a second -wal where the first was removed and is in use, or take another for it.
        Returns the -wal and the -shm that may be opened.
        """
        if is_left_over(real + "-wal", real):
            sqlite_wal.unlink(real)
        sqlite_wal.check_space(real)
        deadline_s = time.monotonic() + self._wait_limit_s
        while True:
            there = _beside(real)  # before they are judged, so that whatever takes their place is another
            if not (os.path.exists(real) and _may_be_removed(real) and self._is_held()):
                return there
            if time.monotonic() >= deadline_s:
                raise JournalUnavailable(
                    f"the -wal or -shm of {self.path} was removed or replaced while other processes use it, and they "
                    "still have it open: wait, or stop them by SIGTERM (a kill loses what only their -wal holds)"
                )
            # Others let go of it within about a second. They must be alone to remove what took its place.
            fcntl.flock(folder, fcntl.LOCK_UN)
            self._lock.release()
            time.sleep(RETRY_S)
            self._lock.acquire()
            _lock_folder(folder, self.path, self._wait_limit_s)

    def _is_held(self) -> bool:
        """Whether anybody has the file open, in this process too. Each connection holds a shared lock on it."""
        with contextlib.closing(self.open("rw")) as connection:
            connection.execute("PRAGMA busy_timeout=0").fetchall()
            # So this one makes no -shm, and takes the lock before it looks for a -wal.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                return True
        return False

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
        with self._lock:
            try:
                folder = os.open(os.path.dirname(self.real), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise JournalUnavailable(f"the folder of {self.path} is not there ({error.strerror})") from error
            try:
                _lock_folder(folder, self.path, self._wait_limit_s)
                yield folder
            finally:
                os.close(folder)


def _may_be_removed(real: str) -> bool:
    """Whether whoever has the file open has another -wal or -shm than those that are there."""
    if not (os.path.exists(real + "-wal") and os.path.exists(real + "-shm")):
        return True
    same = noted_beside(real)
    if same.shm:
        return not same.wal
    return not sqlite_wal.is_shm_in_use(real)


def _just_opened(path: str, real: str, identity: Identity, there: Beside) -> Opened:
    """there: what was there before. Where another has taken its place since, either may have been opened."""
    wal, shm = _beside(real)
    if (
        wal is None
        or shm is None
        or not all(map(_is_open_here, (wal, shm)))
        or (None not in there and there != (wal, shm))
    ):
        raise _MovedMeanwhile(f"the -wal or -shm of {path} is being removed or replaced")
    return Opened(real, identity, wal, shm, real + "-wal")


def _lock_folder(folder: int, path: str, wait_limit_s: float) -> None:
    deadline_s = time.monotonic() + wait_limit_s
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                raise JournalUnavailable(f"another process is opening {path}") from None
            time.sleep(RETRY_S)
        else:
            return


def _remove_folder(path: str) -> None:
    """SQLite opens no file as long as a folder stands in the way of its -wal or -shm."""
    try:
        os.rmdir(path)
    except OSError as error:
        raise JournalUnavailable(f"a folder stands in the place of {path}: remove it ({error.strerror})") from error


def _beside(real: str) -> Beside:
    return _identity_of(real + "-wal"), _identity_of(real + "-shm")


def _is_open_here(identity: Identity) -> bool:
    """Whether this process has that file open; True where the system does not say."""
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return True
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # listing them was one
            found = os.fstat(int(descriptor))
            if (found.st_dev, found.st_ino) == identity:
                return True
    return False


def _identity_of(path: str) -> Identity | None:
    """Of a link, not of what it leads to: SQLite follows none to a -wal or -shm."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)
