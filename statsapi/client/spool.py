"""A directory of events that the service has not acknowledged. They outlive the process, and a power cut.

A file is one batch, and the name holds its Idempotency-Key: whoever sends it again sends the same body under the same
key, which counts once. spool_format.py says what is in a file, spool_owners.py whose it is. Whoever starts, and from
time to time whoever runs, takes over the files of senders that have ended.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from statsapi.client.errors import SpoolError
from statsapi.client.spool_file import OpenFile, SpoolBatch, end_with_a_line
from statsapi.client.spool_format import NewerVersionError, read
from statsapi.client.spool_owners import Owners, owner_of


class Token(NamedTuple):
    """What was added, and is not yet known to be on disk."""

    file: OpenFile
    end: int


class Spool:
    """An Outbox on disk: the files of one sender in a directory that several may share.

    The sender's lock guards all but `sync`, which any thread calls, and but `begin` and `split`: they touch one batch
    that takes no more events, and are called by the one thread that sends it.
    """

    def __init__(self, directory: str | os.PathLike[str], now_us: int) -> None:
        self._directory = Path(directory)
        self._queue: deque[SpoolBatch] = deque()
        self._current: OpenFile | None = None
        self.damaged: list[tuple[str, int]] = []  # what is wrong with files that were taken over, and events lost
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._owners = Owners(self._directory, now_us)
        except OSError as error:
            raise SpoolError(f"the spool {self._directory} cannot be used: {error}") from error
        self.adopted = self.adopt()  # events of earlier senders

    # -- taking over -------------------------------------------------------------------------------------------------

    def adopt(self) -> int:
        """Take over the files of senders that have ended; how many events that are."""
        adopted = 0
        try:
            for owner, files in self._owners.take_over():
                for path, key in files:
                    adopted += self._take(path, key)
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
            self._owners.leave_alone(owner_of(path))
            return 0
        if found.damage:
            self.damaged.append((f"{path} is damaged: {found.damage}; all else of it is sent", found.lost))
        elif not found.events:
            path.unlink()
            return 0
        # What is written next must begin a line: the unfinished one goes, a damaged one stays to be looked at.
        end_with_a_line(path, content, len(content) if found.damage else found.sound_bytes)
        batch = SpoolBatch(path, key, found)
        self._queue.append(batch)
        return batch.events

    def _release_if_empty(self, owner: str) -> None:
        if all(owner_of(batch.path) != owner for batch in self._queue):
            self._owners.release(owner)

    # -- events in ---------------------------------------------------------------------------------------------------

    def add(self, lines: Sequence[str], now_us: int) -> Token:
        """Write these as one line, all of them or none. They count as taken after `sync`. May raise SpoolError."""
        if self._current is not None and self._current.failure is not None:
            self.seal()
        try:
            current = self._current or self._create()
        except OSError as error:
            raise self._not_taken(error) from error
        try:
            return Token(current, current.append(lines))
        except OSError as error:
            self.seal()
            raise self._not_taken(error) from error

    def sync(self, token: Token) -> None:
        """Until it is on disk. Threads that wait at once share one fsync. SpoolError: the event was not taken."""
        if (failure := token.file.sync(token.end)) is not None:
            raise self._not_taken(failure) from failure

    def _not_taken(self, error: OSError) -> SpoolError:
        return SpoolError(f"the spool {self._directory} cannot be written, the event was not taken: {error}")

    def _create(self) -> OpenFile:
        key = uuid.uuid4().hex
        self._current = OpenFile(self._owners.new_file(key), key)
        return self._current

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
            file.finish()
        if batch.tried_us is None and batch.events:
            batch.tried_us = now_us
            # A full disk must not keep the spool from getting empty. The mark is missed only where this process is
            # killed now, and the next one starts after the service has forgotten the key.
            with suppress(OSError):
                batch.mark("t", str(now_us))

    def clear(self, batch: SpoolBatch) -> None:
        """That attempt recorded nothing. Losing the mark is safe, so no fsync."""
        batch.tried_us = None
        with suppress(OSError):
            batch.mark("n", "", durable=False)

    def split(self, batch: SpoolBatch, piece: str) -> None:
        """From now on this piece goes in halves; on disk before one of them is sent. OSError where that fails."""
        batch.mark("s", piece)
        batch.split |= {piece}

    def finish(self, batch: SpoolBatch) -> None:
        """It was acknowledged. A damaged file is put aside, so that somebody can look at it."""
        if batch.damage:
            batch.put_aside({"why": batch.damage, "events lost": batch.lost, "all others": "were recorded"})
        else:
            batch.remove()
        self._drop(batch)

    def set_aside(self, batch: SpoolBatch, why: dict[str, Any]) -> None:
        """It cannot be sent: the file is kept for somebody to look at, with the reason beside it."""
        batch.put_aside(why)
        self._drop(batch)

    def keep_refused(self, batch: SpoolBatch, refused: Iterable[dict[str, Any]]) -> None:
        """Events of a batch that the service refused, each with the reason, as NDJSON."""
        batch.keep_refused(refused)

    def _drop(self, batch: SpoolBatch) -> None:
        self._queue.remove(batch)
        self._release_if_empty(owner_of(batch.path))

    # -- ends --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up the locks: what is left is for the next start."""
        self.seal()
        for batch in self._queue:
            if batch.open is not None:
                batch.open.abandon()
        self._owners.close({owner_of(batch.path) for batch in self._queue})
        self._queue.clear()

    def forget(self) -> None:
        """In the child of a fork: the files stay the parent's, so the child closes its copies of their descriptors."""
        for file in (self._current, *(batch.open for batch in self._queue)):
            if file is not None:
                file.abandon()
        self._owners.forget()
