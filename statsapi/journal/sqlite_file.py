"""The file of a SQLite journal: making and checking it, opening it, and noticing when another file takes its place.

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
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import quote

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import sqlite_tables as tables
from statsapi.journal import sqlite_upgrade
from statsapi.journal.highwater import HighWater, Noted, is_left_over
from statsapi.journal.protocol import Lost
from statsapi.journal.sqlite_errors import cause, failure, primary_code, refusal
from statsapi.journal.sqlite_tables import PAGE_BYTES

logger = logging.getLogger("statsapi")

# The WAL is written anew from its start when it is longer than this. Passive checkpoints alone never get there under
# steady load from two workers; the restart holds the write lock for the little that came since the last one.
WAL_RESTART_BYTES: Final = 16 << 20
# Where nobody calls maintain, COMMIT itself checkpoints from here on: slower, but bounded.
WAL_NET_BYTES: Final = 256 << 20
# After a burst the -wal shrinks to this at the next restart.
WAL_KEPT_BYTES: Final = 64 << 20

# The length of the -shm for a WAL of that length, and its first page.
SHM_BYTES: Final = (WAL_NET_BYTES // (PAGE_BYTES * 4096) + 2) * 32_768

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

    def flush_wal(self) -> None:
        """Fsync the -wal. Closing its descriptor drops no lock: SQLite's are on the file and on the -shm."""
        try:
            wal = os.open(self.real + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalUnavailable(f"{self.path}-wal cannot be opened ({error.strerror})") from error
        try:
            os.fdatasync(wal)
        except OSError as error:
            raise JournalUnavailable(f"the disk that holds {self.path} fails ({error.strerror})") from error
        finally:
            os.close(wal)

    def close(self) -> None:
        self.water.close()

    def prepare(self, *, create: bool) -> None:
        """Make the file, or check that it can be used. JournalRefused, with what to do, where it cannot."""
        if not create and not os.path.exists(self.path):
            raise JournalRefused(f"there is no journal at {self.path}")
        folder = os.path.dirname(self.real)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise JournalRefused(
                f"the folder {folder} cannot be made ({error.strerror}): make it, or name another"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise JournalRefused(
                f"the journal's folder {folder} cannot be written (SQLite keeps -wal and -shm there): "
                "let this user write it, or name another"
            )
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise JournalRefused(f"{self.path} is not a file: name another")
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise JournalRefused(f"{self.path} is read-only: let this user write it, or name another")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise JournalRefused(f"{self.path} cannot be used ({error.strerror}): name another") from error
        with self._alone() as opened_folder:
            self._unlink_left_over_wal(self.real)
            self._check_space()
            try:
                connection = self._connect("rwc" if create else "rw")
                try:
                    if tables.is_new(connection, self.path):
                        if not create:
                            raise JournalRefused(f"{self.path} is empty")
                        tables.make(connection)
                        os.fsync(opened_folder)  # SQLite syncs the folder for the -wal, not for the file
                    elif sqlite_upgrade.is_old(connection):
                        connection.close()
                        self._upgrade()
                        connection = self._connect("rw")
                    tables.check_tables(connection, self.path)
                    with tables.snapshot(connection):
                        tables.check_counts(connection)
                    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                finally:
                    connection.close()
            except sqlite3.Error as error:
                if primary_code(error) == sqlite3.SQLITE_BUSY:
                    raise JournalRefused(f"{self.path} is locked by another process: stop it") from error
                if cause(error) == sqlite3.SQLITE_FULL:  # unavailable, not refused: space may come back
                    raise failure(error, self.path) from error
                raise refusal(error, self.path) from error
            if mode != b"wal":
                raise JournalRefused(
                    f"{self.path} is on a file system that cannot share memory, as WAL must: use a local disk"
                )

    def _upgrade(self) -> None:
        """Bring an older file up to date. Caller is `_alone`."""
        with contextlib.closing(self._connect("rw")) as connection:
            try:
                # Before anything is read, so that nobody else can have it open, such as an older version's workers.
                connection.execute("PRAGMA busy_timeout=1000").fetchall()
                connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
                connection.execute("PRAGMA synchronous=FULL")
                began_s = time.monotonic()
                sqlite_upgrade.upgrade(connection)
                took_s = time.monotonic() - began_s
                logger.info(
                    "%s is of an older version and was brought to schema %d in %.1f s",
                    self.path,
                    tables.SCHEMA_VERSION,
                    took_s,
                )
            except sqlite3.Error as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                raise JournalRefused(
                    f"{self.path} is of an older version, and in use: stop all its workers, then start this one"
                ) from error

    def connect(self, settings: tuple[str, ...]) -> tuple[sqlite3.Connection, Identity]:
        """A connection to the file that is at the path now. It never makes one."""
        with self._alone():
            identity, real = self.identity(), self.real
            before = self._opened
            replaced = before is not None and before.file != identity
            if before is not None and replaced and before.path == real and before.wal == _identity_of(real + "-wal"):
                _unlink_wal(real)
            self._unlink_left_over_wal(real)
            self._check_space()
            try:
                connection = self._connect("rw")
                try:
                    self._check_made(connection)
                    for setting in settings:
                        connection.execute(setting).fetchall()
                    connection.execute(tables.LAST).fetchall()  # opens the -wal
                    self._back_shm(real + "-shm")
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

    def _unlink_left_over_wal(self, real: str) -> None:
        """Call before anything opens the file: SQLite would play an older file's -wal into the one in its place."""
        if is_left_over(real + "-wal", real):
            _unlink_wal(real)

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

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.real)}?mode={mode}",
            uri=True,
            timeout=self._wait_limit_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = bytes  # a flipped bit may turn a blob into text
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_NET_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}")
        connection.execute("PRAGMA secure_delete=OFF")  # Debian's build would overwrite deleted data
        return connection

    def _check_made(self, connection: sqlite3.Connection) -> None:
        if tables.is_new(connection, self.path):
            raise JournalUnavailable(f"{self.path} was replaced by an empty file; restore it")
        if sqlite_upgrade.is_old(connection):
            raise JournalUnavailable(f"{self.path} was replaced by one of an older version; restart")
        tables.check_tables(connection, self.path)

    def _check_space(self) -> None:
        """Refuse to open it on a full disk whose blocks are smaller than a page.

        SQLite extends the -shm by writing one byte a page. With smaller blocks the rest of the page has no place on the
        disk until it is touched, and on a full disk touching it ends the process (SIGBUS).
        """
        if (found := self._small_blocks()) is not None:
            free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
            if free * found.f_frsize < SHM_BYTES + WAL_RESTART_BYTES // 64:
                raise JournalUnavailable(f"the disk that holds {self.path} is full: free some space")

    def _back_shm(self, shm: str) -> None:
        """Reserve the whole -shm on such a disk, by another process: closing the -shm here would drop our locks."""
        if self._small_blocks() is None:
            return
        code = "import os, sys; f = os.open(sys.argv[1], os.O_RDWR); os.posix_fallocate(f, 0, int(sys.argv[2]))"
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", code, shm, str(SHM_BYTES)], capture_output=True, check=False
        )
        if done.returncode:
            raise JournalUnavailable(f"the disk that holds {self.path} is full: free some space")

    def _small_blocks(self) -> os.statvfs_result | None:
        found = os.statvfs(os.path.dirname(self.real))
        return found if found.f_frsize < PAGE_BYTES else None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
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


def _unlink_wal(real: str) -> None:
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real + suffix)


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return Identity(found.st_dev, found.st_ino)
