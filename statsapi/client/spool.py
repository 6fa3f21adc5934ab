"""A directory of events that the service has not acknowledged. They outlive the process, and a power cut.

A file is one batch, and its name holds the Idempotency-Key: a sender that sends it again sends the same body under the
same key, which counts once. spool_format.py says what is in a file, spool_owners.py whose it is. Each sender takes over
the files of ended senders, at its start and from time to time.
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
    """Events that were added and may not be on disk yet: all up to `end`, in bytes of the file."""

    file: OpenFile
    end: int


class Spool:
    """An Outbox on disk: the files of one sender in a directory that several may share.

    The caller holds the sender's lock, except for three methods. Any thread calls `sync`. Only the thread that sends
    calls `begin` and `split`, which touch one batch that takes no more events.
    """

    def __init__(self, directory: str | os.PathLike[str], now_us: int) -> None:
        self._directory = Path(directory)
        self._queue: deque[SpoolBatch] = deque()
        self._current: OpenFile | None = None
        self.damaged: list[tuple[str, int]] = []  # damage in files that were taken over: a sentence, and events lost
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._owners = Owners(self._directory, now_us)
        except OSError as error:
            raise SpoolError(f"the spool {self._directory} cannot be used: {error}") from error
        self.adopted = self.adopt()  # events of earlier senders

    # -- taking over -------------------------------------------------------------------------------------------------

    def adopt(self) -> int:
        """Take over the files of senders that have ended. Returns how many events they hold."""
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
            self.damaged.append((f"{path} is damaged: {found.damage}; the rest of it is sent", found.lost))
        elif not found.events:
            path.unlink()
            return 0
        # The next write must begin a line. So an unfinished line is cut off; a damaged one stays for inspection.
        end_with_a_line(path, content, len(content) if found.damage else found.sound_bytes)
        batch = SpoolBatch(path, key, found)
        self._queue.append(batch)
        return batch.events

    def _release_if_empty(self, owner: str) -> None:
        if all(owner_of(batch.path) != owner for batch in self._queue):
            self._owners.release(owner)

    # -- events in ---------------------------------------------------------------------------------------------------

    def add(self, lines: Sequence[str], now_us: int) -> Token:
        """Write these events as one line, all or none. They count as taken after `sync`. May raise SpoolError."""
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
        """Wait until the events are on disk. Threads that wait together share one fsync. SpoolError: they were not
        taken.
        """
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
        """How many events the current file holds."""
        return self._current.batch.events if self._current is not None else 0

    def seal(self) -> None:
        """Close the current file for events, so that it can be sent."""
        if self._current is not None:
            self._queue.append(self._current.batch)
            self._current = None

    def head(self) -> SpoolBatch | None:
        return self._queue[0] if self._queue else None

    def begin(self, batch: SpoolBatch, now_us: int) -> None:
        """Begin an attempt: first write all events of the batch and the mark of the attempt to disk."""
        if batch.open is not None:
            file, batch.open = batch.open, None
            file.finish()
        if batch.tried_us is None and batch.events:
            batch.tried_us = now_us
            # A full disk must not keep the spool from getting empty. The mark is missed only if this process is killed
            # now and the next one starts after the service has forgotten the key.
            with suppress(OSError):
                batch.mark("t", str(now_us))

    def clear(self, batch: SpoolBatch) -> None:
        """Note that the attempt recorded nothing. Losing this mark is safe, so there is no fsync."""
        batch.tried_us = None
        with suppress(OSError):
            batch.mark("n", "", durable=False)

    def split(self, batch: SpoolBatch, piece: str) -> None:
        """Note that this piece is sent in halves, on disk before the first half is sent. OSError if that fails."""
        batch.mark("s", piece)
        batch.split |= {piece}

    def finish(self, batch: SpoolBatch) -> None:
        """Remove the batch, which was acknowledged. A damaged file is put aside for inspection instead."""
        if batch.damage:
            batch.put_aside({"why": batch.damage, "events lost": batch.lost, "all others": "were recorded"})
        else:
            batch.remove()
        self._drop(batch)

    def set_aside(self, batch: SpoolBatch, why: dict[str, Any]) -> None:
        """Put the file aside for inspection, with the reason beside it, as it cannot be sent."""
        batch.put_aside(why)
        self._drop(batch)

    def keep_refused(self, batch: SpoolBatch, refused: Iterable[dict[str, Any]]) -> None:
        """Keep the events that the service refused, each with the reason, as NDJSON."""
        batch.keep_refused(refused)

    def _drop(self, batch: SpoolBatch) -> None:
        self._queue.remove(batch)
        self._release_if_empty(owner_of(batch.path))

    # -- ends --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up the locks. Remaining files are for the next start."""
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
