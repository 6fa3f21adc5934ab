"""The outbox of a sender: batches that were taken and not yet delivered, in their order. In memory here, on disk in
spool.py.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


class Batch(Protocol):
    """Events that are sent together, under one key.

    tried_us: when it was first sent with an unknown outcome; None if it is surely not recorded. split: the pieces that
    were too large, each named by the halvings that lead to it, 0 or 1. damage: why fewer events were read than were
    written.
    """

    key: str
    tried_us: int | None
    split: frozenset[str]
    damage: str

    @property
    def events(self) -> int: ...

    def lines(self) -> list[bytes]:
        """The events, as lines of NDJSON. OSError if they cannot be read."""


BatchT = TypeVar("BatchT", bound=Batch)


class Outbox(Protocol[BatchT]):
    """A store of batches. One thread at a time calls any method but `sync`."""

    adopted: int  # how many events of earlier processes it began with
    damaged: list[tuple[str, int]]  # damage that was found and is not reported yet: a sentence, and the events lost

    def add(self, lines: Sequence[str], now_us: int) -> Any:
        """Add events to the open batch. Returns the token for `sync`; None if there is nothing to wait for."""

    def sync(self, token: Any) -> None:
        """Wait until the events of the token are on disk. SpoolError: they were not taken."""

    def open_events(self) -> int:
        """How many events the open batch holds."""

    def seal(self) -> None:
        """Close the open batch, so that it can be sent."""

    def head(self) -> BatchT | None:
        """The batch to send next."""

    def begin(self, batch: BatchT, now_us: int) -> None:
        """Note that the batch may be recorded from now on."""

    def clear(self, batch: BatchT) -> None:
        """Note that the batch was surely not recorded."""

    def split(self, batch: BatchT, piece: str) -> None:
        """Note that this piece of the batch is sent in halves."""

    def finish(self, batch: BatchT) -> None:
        """Forget the batch, which was acknowledged."""

    def set_aside(self, batch: BatchT, why: dict[str, Any]) -> None:
        """Move the batch out of the way, as it will not be sent; in memory it is dropped."""

    def keep_refused(self, batch: BatchT, refused: Iterable[dict[str, Any]]) -> None:
        """Keep these refused events of the batch; in memory they are dropped."""

    def adopt(self) -> int:
        """Take over the events that ended processes left. Returns how many."""

    def close(self) -> None: ...

    def forget(self) -> None:
        """Let go of everything in the child of a fork: it belongs to the parent."""


@dataclass
class MemoryBatch:
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    content: list[str] = field(default_factory=list)
    tried_us: int | None = None
    split: frozenset[str] = frozenset()
    damage: str = ""

    @property
    def events(self) -> int:
        return len(self.content)

    def lines(self) -> list[bytes]:
        return [line.encode() for line in self.content]


class Memory:
    """An Outbox without a disk."""

    def __init__(self) -> None:
        self.adopted = 0
        self.damaged: list[tuple[str, int]] = []
        self._queue: deque[MemoryBatch] = deque()
        self._current = MemoryBatch()

    def add(self, lines: Sequence[str], now_us: int) -> None:
        self._current.content += lines

    def sync(self, token: None) -> None:
        pass

    def open_events(self) -> int:
        return len(self._current.content)

    def seal(self) -> None:
        if self._current.content:
            self._queue.append(self._current)
            self._current = MemoryBatch()

    def head(self) -> MemoryBatch | None:
        return self._queue[0] if self._queue else None

    def begin(self, batch: MemoryBatch, now_us: int) -> None:
        if batch.tried_us is None:
            batch.tried_us = now_us

    def clear(self, batch: MemoryBatch) -> None:
        batch.tried_us = None

    def split(self, batch: MemoryBatch, piece: str) -> None:
        batch.split |= {piece}

    def finish(self, batch: MemoryBatch) -> None:
        self._queue.remove(batch)

    def set_aside(self, batch: MemoryBatch, why: Mapping[str, Any]) -> None:
        self._queue.remove(batch)

    def keep_refused(self, batch: MemoryBatch, refused: Iterable[dict[str, Any]]) -> None:
        pass

    def adopt(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def forget(self) -> None:
        pass
