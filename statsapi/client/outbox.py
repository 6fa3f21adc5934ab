"""What a sender has taken and not yet delivered: batches in their order. In memory here, on disk in spool.py."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


class Batch(Protocol):
    """Events that are sent together, under one key.

    tried_us: when it was first sent with an outcome that is unknown; None: it is surely not recorded. split: the pieces
    that were too large, each named by the halvings that lead to it, 0 or 1. damage: why fewer events were read than had
    been written.
    """

    key: str
    tried_us: int | None
    split: frozenset[str]
    damage: str

    @property
    def events(self) -> int: ...

    def lines(self) -> list[bytes]:
        """The events, as lines of NDJSON. OSError where they cannot be read."""


BatchT = TypeVar("BatchT", bound=Batch)


class Outbox(Protocol[BatchT]):
    """All calls but `sync` are made by one thread at a time."""

    adopted: int  # events of earlier processes that it began with
    damaged: list[tuple[str, int]]  # what was found damaged and was not told yet: a sentence, and the events lost

    def add(self, lines: Sequence[str], now_us: int) -> Any:
        """Take events into the open batch. Gives what `sync` needs; None: they are as safe as they will ever be."""

    def sync(self, token: Any) -> None:
        """Return when they are on disk. SpoolError: they were not taken."""

    def open_events(self) -> int:
        """How many the open batch holds."""

    def seal(self) -> None:
        """Close the open batch, so that it can be sent."""

    def head(self) -> BatchT | None:
        """The batch to send next."""

    def begin(self, batch: BatchT, now_us: int) -> None:
        """Note that from now on it may have been recorded."""

    def clear(self, batch: BatchT) -> None:
        """Note that it was surely not recorded."""

    def split(self, batch: BatchT, piece: str) -> None:
        """Note that this piece of it goes in halves."""

    def finish(self, batch: BatchT) -> None:
        """It was acknowledged: forget it."""

    def set_aside(self, batch: BatchT, why: dict[str, Any]) -> None:
        """It will not be sent: keep it apart, where there is a place for that."""

    def keep_refused(self, batch: BatchT, refused: Iterable[dict[str, Any]]) -> None:
        """Keep apart these events of it, where there is a place for that."""

    def adopt(self) -> int:
        """Take over what processes left that are gone; how many events."""

    def close(self) -> None: ...

    def forget(self) -> None:
        """In the child of a fork: all of it is the parent's."""


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
