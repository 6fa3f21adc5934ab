"""One chunk of a series: its sealed events, and the late ones that lie among them.

A late event is appended to the chunk's buffer, in order of arrival. The next question sums that one value and adds it
to the chunk's total; where an edge cuts this chunk, all stamps of the buffer are compared. A buffer that holds about a
quarter of a chunk is merged into new sorted columns. The exact size lies between an eighth and three eighths and
differs from chunk to chunk, so that chunks which fill together are not all merged at once. A chunk of more than twice
the usual size is then split as well. Late events that come together and fill a gap become chunks of their own.

No locks, no clock, no I/O. The caller holds Store._lock; a FrozenChunk may be read without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.buffer import Buffer
from statsapi.engine.frozen import FrozenChunk
from statsapi.engine.invariants import require
from statsapi.engine.sealed import Place, SealedColumns, SealedEvents
from statsapi.engine.summary import Fields, add_fields, fields_of
from statsapi.model import TimestampsUs, Values

# Ranks are uint16, and a chunk splits only past twice its size.
MAX_CHUNK_EVENTS = 2**15 - 1


class Chunk:
    """At least one sealed event, and perhaps late ones.

    sealed: never replaced. late: None where no event came late. merge_at: whoever adds the late event that brings them
    to this many merges them.
    """

    __slots__ = ("late", "merge_at", "sealed")

    def __init__(self, sealed: SealedEvents, merge_at: int, late: Buffer | None = None) -> None:
        self.sealed = sealed
        self.merge_at = merge_at
        self.late = late

    @classmethod
    def seal(cls, ts_us: TimestampsUs, values: Values, stagger: int, room: int) -> Chunk:
        """A chunk of events in order of time, which are copied. See `SealedColumns.seal`."""
        return cls.of(SealedColumns.seal(ts_us, values, stagger, room))

    @classmethod
    def of(cls, columns: SealedColumns, place: Place | None = None) -> Chunk:
        """A chunk of those columns, without late events. 10 µs: no array is looked at or copied."""
        return cls(SealedEvents(columns, place), columns.merge_at)

    def sealed_columns(self) -> SealedColumns:
        """All of it but the late events. Needs no lock."""
        return self.sealed.columns(self.merge_at)

    def __len__(self) -> int:
        return len(self.sealed.ts_us) + (self.late.n if self.late else 0)

    def whole(self) -> Fields:
        """The summary of all events, late ones included, as fields."""
        sealed = self.sealed
        values = sealed.values
        fields = len(values), float(values[0]), float(values[-1]), *sealed.sums
        return fields if self.late is None else add_fields(fields, self.late.whole())

    def count(self, start_us: int, end_us: int) -> int:
        """How many events lie in [start_us, end_us). O(log n + late ones)."""
        first, last = self.sealed.positions(start_us, end_us)
        return last - first + (int(np.count_nonzero(self.late.inside(start_us, end_us))) if self.late else 0)

    def fields(self, start_us: int, end_us: int) -> list[Fields]:
        """The summaries of the sealed events in [start_us, end_us) and of the late ones, as fields: those that are of
        some event.
        """
        first, last = self.sealed.positions(start_us, end_us)
        some = [self.sealed.fields(first, last)] if first < last else []
        if self.late is not None:
            late = self.late.columns()[1][self.late.inside(start_us, end_us)]
            if len(late):
                some.append(fields_of(late))
        return some

    def frozen(self) -> FrozenChunk:
        """Its events as they stand now. 1 µs."""
        sealed = self.sealed
        if self.late is None:
            return FrozenChunk(sealed.ts_us, sealed.values, sealed.rank, sample=sealed.column.sample)
        return FrozenChunk(sealed.ts_us, sealed.values, sealed.rank, self.late.columns(), sealed.column.sample)

    def merged(self, stagger: int, room: int) -> list[Chunk]:
        """Chunks of `room` to 2·room events which hold the same, the late ones sorted in. O(n)."""
        late = self.late
        if late is None:
            return [self]
        if len(self) > 2 * room:
            return _seal_all(*self.frozen().columns(), stagger, room)
        return [Chunk.of(self.sealed_columns().merged(late.columns(), late.whole_sums(), stagger, room))]

    def parted(self, ts_us: TimestampsUs, values: Values, stagger: int, room: int) -> list[Chunk] | None:
        """Chunks that hold the same and these events too, which are in order of time.

        None unless these are enough to be a chunk, and few of the events here lie between their first and last. Where
        several clients post parts of one ordered stream in turn, half of all batches come so; batches whose stamps are
        whole milliseconds also share the first or last of them. Only the new events and those few are sealed: with a
        batch of 10,000 that takes 0.8 ms, and 1.5 where its neighbours are sealed anew.
        """
        sealed = self.sealed
        n = len(sealed.ts_us)
        if self.late is not None or len(ts_us) < max(self.merge_at, room // 2):
            return None
        first, last = sealed.ts_us.searchsorted(ts_us[[0, -1]], side="right").tolist()
        few = room // 8
        if last - first > few:
            return None
        # So few events are no chunk of their own either.
        taken_from, taken_to = first if first > few else 0, last if n - last > few else n
        if taken_from < taken_to:
            own_ts_us, own_values = self.frozen().columns()
            ts_us = np.concatenate((own_ts_us[taken_from:taken_to], ts_us))
            values = np.concatenate((own_values[taken_from:taken_to], values))
            order = ts_us.argsort(kind="stable")  # events of one instant stay in order of arrival
            ts_us, values = ts_us[order], values[order]
        chunks = _seal_all(ts_us, values, stagger, room)
        if taken_from:
            chunks.insert(0, self._without(taken_from, n, stagger + len(chunks)))
        if taken_to < n:
            chunks.append(self._without(0, taken_to, stagger + len(chunks)))
        return chunks

    def _without(self, first: int, last: int, stagger: int) -> Chunk:
        """A chunk that lacks the sealed events at positions [first, last) in time, and late ones; some are left."""
        if first == last:
            return self
        gone = self.sealed.sums_between(first, last)
        return Chunk.of(self.sealed_columns().without(first, last, gone, stagger))

    def without(self, start_us: int, end_us: int, stagger: int, room: int) -> Chunk | None:
        """A chunk that lacks the events in [start_us, end_us); None when no event is left. O(n)."""
        sealed = self.sealed
        first, last = sealed.positions(start_us, end_us)
        late = self.late.without(start_us, end_us) if self.late else None
        if late is not None and not late.n:
            late = None
        if last - first == len(sealed.ts_us):
            # A chunk is never without sealed events; the late ones take their place.
            if late is None:
                return None
            order = late.columns()[0].argsort(kind="stable")
            return Chunk.seal(late.ts_us[order], late.values[order], stagger, room)
        return Chunk(self._without(first, last, stagger).sealed, self.merge_at, late)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Every array held."""
        yield from self.sealed.arrays()
        if self.late:
            yield from self.late.arrays()

    def check_invariants(self, whose: str, room: int, start_us: int, end_us: int) -> None:
        """Raise AssertionError unless its events lie between the two instants, and all in it agrees. For tests.

        `whose` begins the message.
        """
        n = len(self.sealed.ts_us)
        require(0 < n <= 2 * room, f"{whose} sealed events are {n}, room is {room}")
        ts_us, _ = self.frozen().columns()
        require(bool((ts_us[1:] >= ts_us[:-1]).all()), f"{whose} events are not in order of time")
        require(start_us <= ts_us[0] and ts_us[-1] <= end_us, f"{whose} events lie outside its bounds")
        require(not self.late or 0 < self.late.n < self.merge_at, f"{whose} late events should have been merged")
        self.sealed.check_invariants(whose)


def _seal_all(ts_us: TimestampsUs, values: Values, stagger: int, room: int) -> list[Chunk]:
    """Chunks of `room` to 2·room of these events, which are in order of time; one chunk of fewer."""
    pieces = max(len(ts_us) // room, 1)
    edges = [len(ts_us) * i // pieces for i in range(pieces + 1)]
    return [Chunk.seal(ts_us[a:b], values[a:b], stagger + i, room) for i, (a, b) in enumerate(pairwise(edges))]
