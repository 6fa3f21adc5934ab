"""How much a store holds, for limits and metrics."""

from __future__ import annotations

from typing import Final

from statsapi.engine.counted import Selections
from statsapi.engine.guard import Guard
from statsapi.engine.holdings import Holdings
from statsapi.engine.union_kept import KeptUnions
from statsapi.model import EVENT_BYTES

# Others get the lock after this many series.
_SERIES_PER_LOCK: Final = 1000


class Sizes:
    """How much one store holds. `lock` is the store's; each method takes it unless it says otherwise."""

    __slots__ = ("_held", "_lock", "_selections", "_unions")

    def __init__(self, lock: Guard, held: Holdings, selections: Selections, unions: KeptUnions) -> None:
        self._lock = lock
        self._unions = unions
        self._selections = selections
        self._held = held

    def rollup_bytes(self) -> int:
        """How many bytes the roll-ups take. No lock: one number is read."""
        return self._held.rollup_bytes

    def event_count(self) -> int:
        """How many raw events are held, over all series. No lock: one number is read."""
        return self._held.event_count

    def used_events(self) -> int:
        """The size in events: the raw ones, plus the bytes of roll-ups / EVENT_BYTES. STATSAPI_MAX_EVENTS limits it. No
        lock: two numbers are read.
        """
        return self._held.event_count + self._held.rollup_bytes // EVENT_BYTES

    def held_series(self) -> int:
        """How many timelines are held, plus how many series with roll-ups. No lock: two numbers are read."""
        return len(self._held.timelines) + len(self._held.rollups)

    def series_count(self, from_us: int | None = None) -> int:
        """How many series are held. With from_us: how many have a raw event at or after it, or roll-ups.

        O(series) with from_us or if there are roll-ups. Others get the lock in between, so it may be off by a few.
        """
        timelines, rollups = self._held.timelines, self._held.rollups
        with self._lock:
            if from_us is None and not rollups:
                return len(timelines)
            names = timelines.names()
            count = len(rollups)
        for first in range(0, len(names), _SERIES_PER_LOCK):
            with self._lock:
                for name in names[first : first + _SERIES_PER_LOCK]:
                    last_us = timelines.last_ts_us(name)
                    if last_us is not None and name not in rollups:
                        count += from_us is None or last_us >= from_us
        return count

    def memory_bytes(self) -> int:
        """About how many bytes the held events take. O(chunks + series). Others get the lock in between."""
        timelines = self._held.timelines
        with self._lock:
            names = timelines.names()
        size_bytes = self._selections.nbytes + self._unions.nbytes + self._held.changes.nbytes
        for first in range(0, len(names), _SERIES_PER_LOCK):
            with self._lock:
                size_bytes += timelines.nbytes(names[first : first + _SERIES_PER_LOCK])
        return size_bytes
