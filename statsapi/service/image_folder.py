"""The folder that holds the images of a machine: its files, and which process may write them (images.py says what they
hold).

Files are mapped by processes that compare nothing after their start. So the folder and its files are private to this
user, a file that can be seen is whole and never changes, and nothing but a regular file of this folder is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterable
from io import FileIO
from typing import Final, NamedTuple

from zlib_ng.zlib_ng import crc32

_IO_BYTES: Final = 1 << 20

# Parts, and files left half-written when a process ended. Any other file in the folder is not ours.
_OURS: Final = re.compile(r"[0-9a-f]{16}\.part(\.new)?|image\.new")


class Stamp(NamedTuple):
    """A version of a file: another one has another stamp."""

    inode: int
    mtime_ns: int
    size: int


class ImageFolder:
    """The folder at `path`, which may not be there. No lock of its own: Images holds its lock where that matters.

    Methods raise OSError, also for a folder that is not private.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._leader_fd: int | None = None

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of that file; None where it cannot be seen. Costs 3 µs."""
        try:
            found = os.stat(self._path(name))
        except OSError:
            return None
        return Stamp(found.st_ino, found.st_mtime_ns, found.st_size)

    def has(self, name: str) -> bool:
        return os.path.isfile(self._path(name))

    def require_private(self) -> None:
        """Raise unless the folder is a private directory of this user. A link is refused, as it may lead elsewhere."""
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError("the folder is a link or a file: remove it")
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"the folder is not this user's alone: chmod 700 {self.path}, or remove it")

    def lead(self) -> bool:
        """Whether this process is the leader, which alone may write. It becomes the leader where there is none, and
        makes the folder. Once it is, it stays so until it ends, or until `stop_leading`.
        """
        if self._leader_fd is None:
            self._leader_fd = self._take_lead()
        return self._leader_fd is not None

    def stop_leading(self) -> None:
        if self._leader_fd is not None:
            os.close(self._leader_fd)
            self._leader_fd = None

    def _take_lead(self) -> int | None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        self.require_private()
        fd = os.open(self._path("leader"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return fd

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file; a failure leaves no file. It is not mapped, so a full disk is an error, not a signal."""
        path = self._path(name)
        new = path + ".new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=_IO_BYTES) as file:
                file.writelines(pieces)
            os.rename(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise

    def remove_but(self, kept: Iterable[str]) -> None:
        """Remove the parts that are not `kept`, and files left half-written. An error leaves the rest."""
        with contextlib.suppress(OSError):
            self.require_private()
            for name in os.listdir(self.path):
                if _OURS.fullmatch(name) and name not in kept:
                    with contextlib.suppress(OSError):  # somebody's folder of that name
                        os.unlink(self._path(name))

    def read(self, name: str) -> memoryview:
        """The whole file."""
        with self._open(name) as file:
            return memoryview(file.read())

    def checksum(self, name: str) -> int:
        """The file's CRC-32. Read before `map`, so that a bad disk raises an error instead of a signal."""
        buffer = memoryview(bytearray(_IO_BYTES))
        checksum = 0
        with self._open(name) as file:
            while count := file.readinto(buffer):
                checksum = crc32(buffer[:count], checksum)
        return checksum

    def map(self, name: str, size: int) -> memoryview:
        """The file's first `size` bytes, mapped. They stay so when the file is removed."""
        with self._open(name) as file:
            return memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))

    def _open(self, name: str) -> FileIO:
        """Open a regular file; anything else, which might block or never end, is refused (ValueError)."""
        fd = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ValueError(f"{name} is no file")
        return FileIO(fd)

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)
