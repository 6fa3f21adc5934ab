"""The owners of a spool's files. Each sender writes its own files, under a lock that the end of its process releases.

    OWNER.lock                      held while the sender lives; OWNER is its start time and eight random digits
    OWNER-NUMBER-KEY.events         a file of that owner; KEY is the Idempotency-Key of the batch in it

So any number of processes may share a directory. A sender that finds a lock which nobody holds takes over its files.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FILE: Final = re.compile(r"(\d{20}-[0-9a-f]{8})-(\d{8})-([0-9a-f]{32})\.events")
_LOCK: Final = re.compile(r"(\d{20}-[0-9a-f]{8})\.lock")
_OWNER: Final = 29  # characters of a file's name


def owner_of(path: Path) -> str:
    """The owner of a file."""
    return path.name[:_OWNER]


class Owners:
    """The owners whose files in a directory are ours: ourselves, and senders that have ended. Caller holds the sender's
    lock. All methods raise OSError if the directory cannot be used.
    """

    def __init__(self, directory: Path, now_us: int) -> None:
        self._directory = directory
        self._locks: dict[str, int] = {}
        self._left_alone: set[str] = set()  # owners of files that are not sent and stay where they are
        self._files = 0
        self._own = self._new_owner(now_us)

    def _new_owner(self, now_us: int) -> str:
        """A new name, with its lock. Tries again if another process took the new lock for one of an ended sender."""
        while True:
            owner = f"{max(now_us, 0):020d}-{uuid.uuid4().hex[:8]}"
            fd = self._lock(owner)
            if fd is not None:
                self._locks[owner] = fd
                return owner

    def new_file(self, key: str) -> Path:
        """The path of our next file."""
        self._files += 1
        return self._directory / f"{self._own}-{self._files:08d}-{key}.events"

    def take_over(self) -> Iterator[tuple[str, list[tuple[Path, str]]]]:
        """Take the locks of ended senders, one by one. Yields each owner, and its files with their keys."""
        names = sorted(os.listdir(self._directory))
        owners = {match[1] for name in names if (match := _FILE.fullmatch(name) or _LOCK.fullmatch(name))}
        for owner in sorted(owners - self._locks.keys()):
            fd = self._lock(owner)
            if fd is None:
                continue
            # Listed again: until the lock was ours, its owner could still write, send and remove.
            files = [match for name in sorted(os.listdir(self._directory)) if (match := _FILE.fullmatch(name))]
            self._locks[owner] = fd
            yield owner, [(self._directory / match[0], match[3]) for match in files if match[1] == owner]

    def leave_alone(self, owner: str) -> None:
        """Leave a file of this owner where it is: keep the lock until we end, and the lock's file for good."""
        self._left_alone.add(owner)

    def release(self, owner: str) -> None:
        """Release the lock of another owner whose files are all gone. Our own stays, and those of files left alone."""
        if owner not in (self._own, *self._left_alone):
            fd = self._locks.pop(owner)
            self._lock_path(owner).unlink(missing_ok=True)
            os.close(fd)

    def close(self, with_files: set[str]) -> None:
        """Release all locks. The lock files of owners `with_files` stay for the next start."""
        left = with_files | self._left_alone
        for owner, fd in self._locks.items():
            if owner not in left:
                self._lock_path(owner).unlink(missing_ok=True)
            os.close(fd)
        self._locks.clear()

    def forget(self) -> None:
        """In the child of a fork. The locks stay the parent's, and last until all copies of their descriptors are
        closed. So the child closes its copies, and unlocks nothing.
        """
        for fd in self._locks.values():
            os.close(fd)

    def _lock(self, owner: str) -> int | None:
        """The descriptor of this owner's lock; None if the lock is held, or its file was removed meanwhile."""
        path = self._lock_path(owner)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)
        return None

    def _lock_path(self, owner: str) -> Path:
        return self._directory / f"{owner}.lock"
