"""A spool's file on disk: first it takes events, then it is a batch that waits to be sent.

A waiting file is read again when it is sent, so that a backlog takes no memory. A file that cannot be sent is put
aside for inspection, into a folder beside the others.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from statsapi.client.spool_format import Contents, encode_head, encode_line, read

_ASIDE: Final = "aside"


class SpoolBatch:
    """A file as a batch of `events` events. `open` is the open file while its last events may not be on disk.

    One thread at a time uses it: a thread that takes events, and from `Spool.begin` on the thread that sends them.
    """

    def __init__(self, path: Path, key: str, found: Contents) -> None:
        self.path = path
        self.key = key
        self.events = len(found.events)
        self.tried_us = found.tried_us
        self.split = found.split
        self.damage = found.damage
        self.lost = found.lost
        self.open: OpenFile | None = None

    def lines(self) -> list[bytes]:
        """The events, read again. OSError if the file cannot be read."""
        return read(self.path.read_bytes(), self.key).events[: self.events]

    def mark(self, kind: str, payload: str, *, durable: bool = True) -> None:
        """Write a line after the events; if `durable`, it is on disk at return. OSError if that fails."""
        offset = self.events + self.lost
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            _write(fd, encode_line(self.key, kind, offset, payload))
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def remove(self) -> None:
        with suppress(OSError):  # a file that stays is sent again at the next start, under the same key
            self.path.unlink(missing_ok=True)

    def put_aside(self, why: dict[str, Any]) -> None:
        """Move the file into a folder for inspection, with the reason beside it."""
        with suppress(OSError):  # a file that stays is read again at the next start
            folder = self._aside()
            self.path.rename(folder / self.path.name)
            (folder / f"{self.path.name}.why.json").write_text(json.dumps(why) + "\n")

    def keep_refused(self, refused: Iterable[dict[str, Any]]) -> None:
        """Keep these events, each with the reason, as NDJSON."""
        with suppress(OSError):
            folder = self._aside()
            (folder / f"{self.key}.refused.ndjson").write_text("".join(json.dumps(each) + "\n" for each in refused))

    def _aside(self) -> Path:
        folder = self.path.parent / _ASIDE
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


class OpenFile:
    """A file that takes events. It is made and written under the sender's lock. `sync` needs no lock, and any number of
    threads may call it at once.

    `_written` is the length written, `_synced` the length that is on disk, each as (bytes, events). No event beyond
    `_synced` is acknowledged. `failure` is the reason why no more events get in.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Make a new file and write its name to disk. OSError if that fails; then there is no file."""
        head = encode_head()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(self._fd, head)
            _sync_directory(path.parent)
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            raise
        self.failure: OSError | None = None
        self.batch = SpoolBatch(path, key, read(head, key))
        self.batch.open = self
        self._written = self._synced = (len(head), 0)
        self._syncing = threading.Lock()

    def append(self, lines: Sequence[str]) -> int:
        """Write these events as one line, all or none. Returns the file's new length. After an OSError the file must
        take no more: a piece of the line may have stayed, and a line after it could not be read.
        """
        batch = self.batch
        line = encode_line(batch.key, "e", batch.events, "\t".join(lines))
        try:
            _write(self._fd, line)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._written[0])
            raise
        batch.events += len(lines)
        self._written = (self._written[0] + len(line), batch.events)
        return self._written[0]

    def sync(self, end: int) -> OSError | None:
        """Write the first `end` bytes to disk. Returns None, or the reason why they are not there. Threads that wait
        together share one fsync.
        """
        with self._syncing:
            if self._synced[0] < end:
                self._sync()
            return None if self._synced[0] >= end else self.failure

    def finish(self) -> None:
        """Close the file for good, with all events of its batch on disk. Called by the thread that sends the batch,
        without the sender's lock.
        """
        with self._syncing:
            self._sync()
            if self.failure is not None:  # for the events cut off here, record() has raised SpoolError
                with suppress(OSError):
                    os.ftruncate(self._fd, self._synced[0])
                self.batch.events = self._synced[1]
        os.close(self._fd)

    def abandon(self) -> None:
        """Close the file as it is."""
        os.close(self._fd)

    def _sync(self) -> None:
        """Caller holds `_syncing`. After a failure no more gets in: the kernel may have dropped unwritten data."""
        written = self._written
        if self.failure is None and written != self._synced:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self.failure = error
            else:
                self._synced = written


def end_with_a_line(path: Path, content: bytes, keep: int) -> None:
    """Cut the file after the first `keep` bytes of its `content`, and end the last line, so that a line can follow."""
    if keep < len(content) or content[keep - 1 : keep] != b"\n":
        with path.open("r+b") as file:
            file.truncate(keep)
            file.seek(keep)
            file.write(b"" if content[keep - 1 : keep] == b"\n" else b"\n")


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _sync_directory(directory: Path) -> None:
    """Write the directory to disk, so that a new file's name is there as well as its content."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
