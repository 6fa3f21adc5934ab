"""A directory of events that the service has not acknowledged. They outlive the process, and a power cut.

A file is one batch, and the name holds its Idempotency-Key: whoever sends it again sends the same body under the same
key, which counts once. Files are lines of text:

    statsapi-spool 1 CRC
    CRC e OFFSET EVENT<tab>EVENT…     events, as JSON; OFFSET counts those before this line
    CRC t OFFSET MICROSECONDS         an attempt to send began then, after this many events: its outcome is unknown
    CRC n OFFSET                      …and is known now: nothing was recorded
    CRC s OFFSET PIECE                this piece (empty: the whole) was too large, and goes in halves from here on

CRC is that of the rest of the line and of the key. So a damaged line is noticed, and OFFSET tells how many events were
in it; a line that a crash left unfinished was never acknowledged to anyone. What is left is sent.

Each sender writes files of its own, under a lock that its process's end releases: any number of processes may share
a directory. Whoever starts, and from time to time whoever runs, takes over the files of those that have ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import uuid
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from statsapi.client.errors import SpoolError

VERSION: Final = 1
_HEAD_OF_ANY: Final = re.compile(rb"(statsapi-spool (\d{1,9})) ([0-9a-f]{8})\n")
_LINE: Final = re.compile(rb"([0-9a-f]{8}) ([etns]) (\d{1,18}) ([^\n]*)")
_FILE: Final = re.compile(r"(\d{20}-[0-9a-f]{8})-(\d{8})-([0-9a-f]{32})\.events")
_LOCK: Final = re.compile(r"(\d{20}-[0-9a-f]{8})\.lock")
_ASIDE: Final = "aside"
_OWNER: Final = 29  # characters of a file's name: when its sender started, and eight at random


# -- the format ------------------------------------------------------------------------------------------------------


class Contents(NamedTuple):
    """What a file holds. `events` are JSON texts in their order."""

    events: list[bytes]
    tried_us: int | None  # since when the outcome of an attempt is unknown
    split: frozenset[str]  # the pieces that go in halves
    damage: str  # what is wrong with it, in words; empty where nothing is
    lost: int  # acknowledged to the program, and not readable; behind the last sound line there may have been more
    sound_bytes: (
        int  # up to here, without the last line's end where that is missing; then comes what was never finished
    )


class NewerVersionError(SpoolError):
    """A file that another version of the client wrote. It is left alone."""


def encode_line(key: str, kind: str, offset: int, payload: str) -> bytes:
    """One line of the file."""
    rest = f"{kind} {offset} {payload}".encode()
    return b"%08x %b\n" % (_crc(key, rest), rest)


def encode_head(version: int = VERSION) -> bytes:
    """The first line."""
    text = b"statsapi-spool %d" % version
    return b"%b %08x\n" % (text, zlib.crc32(text))


def read(content: bytes, key: str) -> Contents:
    """What is sound in a file of this key: never an event that was not written, nor one twice.

    NewerVersionError for another version's file.
    """
    events: list[bytes] = []
    tried_us: int | None = None
    split: set[str] = set()
    bad = lost = expected = at = sound = 0  # `expected`: the offset of the next line
    head = _HEAD_OF_ANY.match(content)
    if head and int(head[3], 16) == zlib.crc32(head[1]):
        if int(head[2]) != VERSION:
            raise NewerVersionError(f"is of version {int(head[2])}, and this client reads {VERSION}")
        at = sound = head.end()
    elif encode_head().startswith(content):  # the process ended while it began the file
        return Contents([], None, frozenset(), "", 0, 0)
    else:
        bad = 1
        at = content.find(b"\n") + 1 or len(content)
    while at < len(content):
        stop = content.find(b"\n", at)
        finished = stop >= 0
        line = content[at : stop if finished else len(content)]
        found = _sound(line, key)
        if found is None and not finished and (found := _sound(line[:-1], key)):
            line = line[:-1]  # all of it is there, and its end alone is not what was written
        line_end = at + len(line) + finished
        at = stop + 1 if finished else len(content)
        if found is None:
            bad += finished
            continue
        sound = line_end
        kind, offset, payload = found
        if offset < expected:  # a piece of the file is there twice
            bad += 1
            continue
        lost += offset - expected
        expected = offset
        if kind == b"e":
            items = payload.split(b"\t")
            events += items
            expected += len(items)
        elif kind == b"t":
            tried_us = int(payload)
        elif kind == b"n":
            tried_us = None
        else:
            split.add(payload.decode())
    damage = ""
    if bad or lost:
        known = f", and {lost} events of {len(events) + lost} cannot be read" if lost else ""
        damage = f"{bad or 'some'} of its lines {'is' if bad == 1 else 'are'} not what was written{known}"
    return Contents(events, tried_us, frozenset(split), damage, lost, sound)


def _crc(key: str, rest: bytes) -> int:
    return zlib.crc32(rest, zlib.crc32(key.encode()))


def _sound(line: bytes, key: str) -> tuple[bytes, int, bytes] | None:
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != _crc(key, line[9:]):
        return None
    return match[2], int(match[3]), match[4]


# -- the directory ---------------------------------------------------------------------------------------------------


class SpoolBatch:
    """A file that takes no more events. `events` counts those in it."""

    def __init__(self, path: Path, key: str, found: Contents) -> None:
        self.path = path
        self.key = key
        self.events = len(found.events)
        self.tried_us = found.tried_us
        self.split = found.split
        self.damage = found.damage
        self.lost = found.lost
        self.open: _Open | None = None  # until its last events are on disk

    @property
    def owner(self) -> str:
        return self.path.name[:_OWNER]

    def lines(self) -> list[bytes]:
        """The events, read again, so that a backlog takes no memory. OSError where the file cannot be read."""
        return read(self.path.read_bytes(), self.key).events[: self.events]


class _Open:
    """A file that takes events. Beyond `synced` nothing is acknowledged; both are (bytes, events)."""

    def __init__(self, batch: SpoolBatch, fd: int, length: int) -> None:
        self.batch = batch
        self.fd = fd
        self.written = self.synced = (length, 0)
        self.failure: OSError | None = None
        self.syncing = threading.Lock()


class Token(NamedTuple):
    """What was added, and is not yet known to be on disk."""

    file: _Open
    end: int


class Spool:
    """The files of one sender in a directory that several may share. The sender's lock guards all but `sync`."""

    def __init__(self, directory: str | os.PathLike[str], now_us: int) -> None:
        self._directory = Path(directory)
        self._queue: deque[SpoolBatch] = deque()
        self._current: _Open | None = None
        self._locks: dict[str, int] = {}  # the owners whose files are ours -> their locks
        self._owner = ""
        self._number = 0
        self._left_alone: set[str] = set()  # owners of files that another version wrote
        self.damaged: list[tuple[str, int]] = []  # what is wrong with files that were taken over, and events lost
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own(now_us)
        except OSError as error:
            raise SpoolError(f"the spool {self._directory} cannot be used: {error}") from error
        self.adopted = self.adopt()  # events of earlier senders

    def _own(self, now_us: int) -> None:
        """A name that is ours, under a lock; another process may have taken the new one for left behind."""
        while True:
            owner = f"{max(now_us, 0):020d}-{uuid.uuid4().hex[:8]}"
            fd = self._lock(owner)
            if fd is not None:
                self._owner, self._locks[owner] = owner, fd
                return

    def _lock(self, owner: str) -> int | None:
        """The lock of this owner, or None: it is held, or was removed while we waited."""
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

    # -- taking over -------------------------------------------------------------------------------------------------

    def adopt(self) -> int:
        """Take over the files of senders that have ended; how many events that are."""
        adopted = 0
        try:
            names = sorted(os.listdir(self._directory))
            owners = {match[1] for name in names if (match := _FILE.fullmatch(name) or _LOCK.fullmatch(name))}
            for owner in sorted(owners - self._locks.keys()):
                fd = self._lock(owner)
                if fd is None:
                    continue
                # Listed again: until the lock was ours, its owner could still write, send and remove.
                files = [match for name in sorted(os.listdir(self._directory)) if (match := _FILE.fullmatch(name))]
                mine = [match for match in files if match[1] == owner]
                self._locks[owner] = fd
                for match in mine:
                    adopted += self._take(self._directory / match[0], match[3])
                self._release_if_empty(owner)
        except OSError as error:
            raise SpoolError(f"the spool {self._directory} cannot be read: {error}") from error
        return adopted

    def _take(self, path: Path, key: str) -> int:
        content = path.read_bytes()
        try:
            found = read(content, key)
        except NewerVersionError as error:
            self.damaged.append((f"{path} is left where it is: it {error}", 0))
            self._left_alone.add(path.name[:_OWNER])
            return 0
        if found.damage:
            self.damaged.append((f"{path} is damaged: {found.damage}; all else of it is sent", found.lost))
        elif not found.events:
            path.unlink()
            return 0
        # What is written next must begin a line: the unfinished one goes, a damaged one stays to be looked at.
        keep = len(content) if found.damage else found.sound_bytes
        if keep < len(content) or content[keep - 1 : keep] != b"\n":
            with path.open("r+b") as file:
                file.truncate(keep)
                file.seek(keep)
                file.write(b"" if content[keep - 1 : keep] == b"\n" else b"\n")
        batch = SpoolBatch(path, key, found)
        self._queue.append(batch)
        return batch.events

    def _release_if_empty(self, owner: str) -> None:
        """Give back the lock of another whose files are all gone."""
        if owner not in (self._owner, *self._left_alone) and all(batch.owner != owner for batch in self._queue):
            fd = self._locks.pop(owner)
            self._lock_path(owner).unlink(missing_ok=True)
            os.close(fd)

    # -- events in ---------------------------------------------------------------------------------------------------

    def add(self, lines: Sequence[str], now_us: int) -> Token:
        """Write these as one line, all of them or none. They count as taken after `sync`. May raise SpoolError."""
        if self._current is not None and self._current.failure is not None:
            self.seal()
        try:
            current = self._current or self._create()
        except OSError as error:
            raise self._not_taken(error) from error
        batch = current.batch
        line = encode_line(batch.key, "e", batch.events, "\t".join(lines))
        try:
            _write(current.fd, line)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(current.fd, current.written[0])
            self.seal()  # should a piece have stayed: a line behind it could not be read
            raise self._not_taken(error) from error
        batch.events += len(lines)
        current.written = (current.written[0] + len(line), batch.events)
        return Token(current, current.written[0])

    def sync(self, token: Token) -> None:
        """Until it is on disk. Threads that wait at once share one fsync. SpoolError: the event was not taken."""
        file = token.file
        with file.syncing:
            if file.synced[0] < token.end:
                self._sync(file)
            if file.synced[0] < token.end:
                raise self._not_taken(file.failure) from file.failure

    def _sync(self, file: _Open) -> None:
        """Under `syncing`. After a failure the kernel may have forgotten what it had: nothing more gets in."""
        written = file.written
        if file.failure is None and written != file.synced:
            try:
                os.fdatasync(file.fd)
            except OSError as error:
                file.failure = error
            else:
                file.synced = written

    def _not_taken(self, error: OSError | None) -> SpoolError:
        return SpoolError(f"the spool {self._directory} cannot be written, the event was not taken: {error}")

    def _create(self) -> _Open:
        self._number += 1
        key = uuid.uuid4().hex
        path = self._directory / f"{self._owner}-{self._number:08d}-{key}.events"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, encode_head())
            self._sync_directory()
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        batch = SpoolBatch(path, key, Contents([], None, frozenset(), "", 0, 0))
        batch.open = self._current = _Open(batch, fd, len(encode_head()))
        return self._current

    def _sync_directory(self) -> None:
        """So that the file's name is on disk as well as what is in it."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- batches out -------------------------------------------------------------------------------------------------

    def open_events(self) -> int:
        """How many the file holds that still takes some."""
        return self._current.batch.events if self._current is not None else 0

    def seal(self) -> None:
        """The current file takes no more, and waits to be sent."""
        if self._current is not None:
            self._queue.append(self._current.batch)
            self._current = None

    def head(self) -> SpoolBatch | None:
        return self._queue[0] if self._queue else None

    def begin(self, batch: SpoolBatch, now_us: int) -> None:
        """An attempt begins: first this is on disk, with all events of the batch."""
        if batch.open is not None:
            file, batch.open = batch.open, None
            with file.syncing:
                self._sync(file)
                if file.failure is not None:  # what is cut off here was refused to those who recorded it
                    with suppress(OSError):
                        os.ftruncate(file.fd, file.synced[0])
                    batch.events = file.synced[1]
            os.close(file.fd)
        if batch.tried_us is None and batch.events:
            batch.tried_us = now_us
            # A full disk must not keep the spool from getting empty. The mark is missed only where this process is
            # killed now, and the next one starts after the service has forgotten the key.
            with suppress(OSError):
                self._mark(batch, "t", str(now_us))

    def clear(self, batch: SpoolBatch) -> None:
        """That attempt recorded nothing. Losing the mark is safe, so no fsync."""
        batch.tried_us = None
        with suppress(OSError):
            self._mark(batch, "n", "", durable=False)

    def split(self, batch: SpoolBatch, piece: str) -> None:
        """From now on this piece goes in halves; on disk before one of them is sent. OSError where that fails."""
        self._mark(batch, "s", piece)
        batch.split |= {piece}

    def _mark(self, batch: SpoolBatch, kind: str, payload: str, *, durable: bool = True) -> None:
        offset = batch.events + batch.lost
        fd = os.open(batch.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            _write(fd, encode_line(batch.key, kind, offset, payload))
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def finish(self, batch: SpoolBatch) -> None:
        """It was acknowledged. A damaged file is put aside, so that somebody can look at it."""
        if batch.damage:
            self._put_aside(batch, {"why": batch.damage, "events lost": batch.lost, "all others": "were recorded"})
        else:
            with suppress(OSError):  # it would be sent again at the next start, under the same key
                batch.path.unlink(missing_ok=True)
        self._drop(batch)

    def set_aside(self, batch: SpoolBatch, why: dict[str, Any]) -> None:
        """It cannot be sent: the file is kept for somebody to look at, with the reason beside it."""
        self._put_aside(batch, why)
        self._drop(batch)

    def keep_refused(self, batch: SpoolBatch, refused: Iterable[dict[str, Any]]) -> None:
        """Events of a batch that the service refused, each with the reason, as NDJSON."""
        with suppress(OSError):
            folder = self._aside()
            (folder / f"{batch.key}.refused.ndjson").write_text("".join(json.dumps(each) + "\n" for each in refused))

    def _put_aside(self, batch: SpoolBatch, why: dict[str, Any]) -> None:
        with suppress(OSError):  # then it stays, and is looked at again at the next start
            folder = self._aside()
            batch.path.rename(folder / batch.path.name)
            (folder / f"{batch.path.name}.why.json").write_text(json.dumps(why) + "\n")

    def _aside(self) -> Path:
        folder = self._directory / _ASIDE
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _drop(self, batch: SpoolBatch) -> None:
        self._queue.remove(batch)
        self._release_if_empty(batch.owner)

    # -- ends --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up the locks: what is left is for the next start."""
        self.seal()
        for batch in self._queue:
            if batch.open is not None:
                os.close(batch.open.fd)
        left = {batch.owner for batch in self._queue} | self._left_alone
        for owner, fd in self._locks.items():
            if owner not in left:
                self._lock_path(owner).unlink(missing_ok=True)
            os.close(fd)
        self._locks.clear()
        self._queue.clear()

    def forget(self) -> None:
        """In the child of a fork: the files stay the parent's, and so do their locks, which last until all copies of
        their descriptors are closed. So the child closes its copies, and unlocks nothing.
        """
        for file in (self._current, *(batch.open for batch in self._queue)):
            if file is not None:
                os.close(file.fd)
        for fd in self._locks.values():
            os.close(fd)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
