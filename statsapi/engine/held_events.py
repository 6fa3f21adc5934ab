"""The events of one series: in time-sorted chunks of numpy columns, each with its exact summary, and an open tail.

    chunks   [ c0: 8,192 events ][ c1: 8,192 ][ c2: 11,300 ] ... [ cN ]      tail (open, < 8,192)
    starts     t0                  t1           t2                 tN        everything from tail_from on
    prefix   0 ... Σx, Σx², n of c0, of c0+c1, of c0+c1+c2, ...

`sealed.py` tells what a chunk holds, `chunk.py` what becomes of late events, and `timeline.py` answers questions.

    operation                 cost, for m events into a series of c chunks of C events
    insert in order           O(m), and a value sort of every C events
    insert late               O(m log m + chunks touched), and a merge of O(C) every C/4 events of a chunk
    count                     O(log c + C) for the edges
    expire_before, delete     O(chunks dropped + C)

No locks, no clock, no I/O. The caller holds Store._lock; what is given out (columns, frozen events) may be read
without it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.buffer import NO_TS, NO_VALUES, Buffer, Columns
from statsapi.engine.chunk import MAX_CHUNK_EVENTS, Chunk
from statsapi.engine.chunks import Chunks
from statsapi.engine.counted import Selections
from statsapi.engine.frozen import Frozen, FrozenChunk
from statsapi.engine.invariants import require
from statsapi.model import MAX_TS_US, MIN_TS_US, TimestampsUs, Values

# Smaller chunks leave less to sum at a window's edge, larger ones fewer to walk: summarise over 10M events took 78,
# 95 and 150 µs with 4,096, 8,192 and 16,384, percentiles 5.1, 3.4 and 2.5 ms.
CHUNK_EVENTS = 8_192

# Up to this many events are looked for among as many held ones each with each, as a body may ask 100,000 such series.
_FEW: Final = 32


class Sealed(NamedTuple):
    """All events of a series that has chunks, as they were when `sealed` was called. Its arrays are never changed."""

    tail_from_us: int
    starts: list[int]
    chunks: list[Chunk]
    late: list[Columns]  # of each chunk
    tail: Columns


class HeldEvents:
    """Events in any order of arrival; any half-open range [start_us, end_us) of them, counted, read or dropped.

    It treats tail and chunks as one: two classes would both need the rules of bounds. A bound of None is no bound.
    Stamps are int64 µs UTC in MIN_TS_US..MAX_TS_US, values finite float64. The caller sees to that, and holds
    Store._lock around every call.

        >>> held = HeldEvents()
        >>> held.insert(np.array([10, 30, 20, 20]), np.array([1.0, 4.0, 2.0, 3.0]))
        >>> held.expire_before(20), len(held), held.count(None, 30)
        (1, 3, 2)
    """

    __slots__ = ("_chunk_events", "_chunks", "_memo", "_n", "_selections", "_tail", "_tail_from_us")

    def __init__(self, chunk_events: int = CHUNK_EVENTS) -> None:
        """chunk_events: how many events make a chunk, 2 to 32,767. Tests take a few, to meet every edge soon."""
        if not 2 <= chunk_events <= MAX_CHUNK_EVENTS:
            raise ValueError(f"chunk_events must be 2 to {MAX_CHUNK_EVENTS}, not {chunk_events}")
        self._chunk_events = chunk_events
        self._chunks = _NO_CHUNKS  # own ones from the first seal on: most series are small
        self._tail = Buffer()
        self._tail_from_us = MIN_TS_US  # every chunk's stamps <= this <= the tail's stamps
        self._n = 0
        self._memo: dict[Any, Any] | None = None  # answers since the last change
        self._selections: Selections | None = None  # what percentiles counted: true whatever changes

    def __len__(self) -> int:
        return self._n

    # -- changes ------------------------------------------------------------------------------------------------------

    def insert(self, ts_us: TimestampsUs, values: Values) -> None:
        """Add events: in any order, late ones, equal stamps and equal pairs included. They are copied.

        `ts_us` int64[n], `values` float64[n]. Equal stamps keep the order of arrival. O(n) in order, otherwise
        O(n log n + chunks touched) and the merges that the module's table names.
        """
        n = len(ts_us)
        tail = self._tail
        if n == 1 and tail.n < self._chunk_events - 1:
            ts = ts_us.item()
            if ts >= self._tail_from_us:
                # Nearly every single event goes this way.
                at = tail.n
                if ts < tail.last_ts_us:
                    tail.in_order = False
                else:
                    tail.last_ts_us = ts
                if at or len(tail.ts_us):
                    if at == len(tail.ts_us):
                        tail.reserve(at + 1)
                    tail.ts_us[at] = ts
                    tail.values[at] = values[0]
                else:  # room for one: many series never get another
                    tail.ts_us, tail.values = ts_us.copy(), values.copy()
                tail.n = at + 1
                self._n += 1
                self._memo = None
                return
        if n == 0:
            return
        self._memo = None
        self._n += n
        in_order = n == 1 or bool((ts_us[1:] >= ts_us[:-1]).all())
        if (ts_us[0] if in_order else ts_us.min()) >= self._tail_from_us:
            self._append(ts_us, values, in_order)
            return
        if not in_order:
            order = ts_us.argsort(kind="stable")
            ts_us, values = ts_us[order], values[order]
        late = int(ts_us.searchsorted(self._tail_from_us))
        self._chunks.insert_late(ts_us[:late], values[:late])
        if late < n:
            self._append(ts_us[late:], values[late:], in_order=True)

    def begin(self, ts_us: TimestampsUs, values: Values) -> None:
        """Add the first events, at least one. The arrays are taken over. For few events a third of `insert`'s time."""
        if len(ts_us) >= self._chunk_events:
            self.insert(ts_us, values)
            return
        tail = self._tail = Buffer(ts_us, values)
        if tail.n > 1:
            stamps_us = ts_us.tolist()
            tail.last_ts_us = max(stamps_us)
            tail.in_order = stamps_us == sorted(stamps_us)
        self._n = tail.n

    def _append(self, ts_us: TimestampsUs, values: Values, in_order: bool) -> None:
        """Add events that belong in the tail, and seal what fills chunks."""
        tail = self._tail
        in_order = in_order and tail.in_order and ts_us[0] >= tail.last_ts_us
        if tail.n + len(ts_us) < self._chunk_events:
            tail.append(ts_us, values)
            tail.in_order = in_order
            tail.last_ts_us = max(tail.last_ts_us, int(ts_us[-1] if in_order else ts_us.max()))
            return
        if tail.n:
            tail_ts_us, tail_values = tail.columns()
            ts_us, values = np.concatenate((tail_ts_us, ts_us)), np.concatenate((tail_values, values))
        if not in_order:
            order = ts_us.argsort(kind="stable")
            ts_us, values = ts_us[order], values[order]
        if self._chunks is _NO_CHUNKS:
            self._chunks = Chunks(self._chunk_events)
        end = len(ts_us) // self._chunk_events * self._chunk_events
        for first in range(0, end, self._chunk_events):
            last = first + self._chunk_events
            self._chunks.append(ts_us[first:last], values[first:last])
        self._tail_from_us = int(ts_us[end - 1])
        self._tail = Buffer(ts_us[end:].copy(), values[end:].copy())

    def expire_before(self, cutoff_us: int) -> int:
        """Drop every event with ts < cutoff_us; how many that were. O(chunks dropped + one cut). Frees their memory."""
        return self.delete(None, cutoff_us)

    def delete(self, start_us: int | None, end_us: int | None) -> int:
        """Drop the events in [start_us, end_us); how many that were. O(chunks dropped + two cut)."""
        start_us, end_us = bounds_of(start_us, end_us)
        if start_us >= end_us:
            return 0
        removed = self._chunks.remove(start_us, end_us)
        if not self._chunks.chunks:
            self._chunks = _NO_CHUNKS
        tail = self._ordered_tail()
        first, last = tail.positions(start_us, end_us)
        count = last - first
        if count:
            self._tail = tail.without(start_us, end_us)
        if self._chunks is _NO_CHUNKS:
            self._tail_from_us = MIN_TS_US
        if removed or count:
            self._memo = None
            self._n -= removed + count
            if removed > self._n:
                self._selections = None  # their size is in proportion to what was dropped
        return removed + count

    def pop_few(self, end_us: int, most: int) -> Values | None:
        """Drop the events with ts < end_us and return their values, in order of time. 5 µs for a series without chunks.

        Where they are more than `most`, drops nothing and returns None.
        """
        if self._chunks is not _NO_CHUNKS:
            if self.count(None, end_us) > most:
                return None
            _, values = self.columns(None, end_us)
            self.expire_before(end_us)
            return values
        tail = self._ordered_tail()
        _, count = tail.positions(MIN_TS_US, end_us)
        if count > most:
            return None
        ts_us, values = tail.columns()
        self._tail = Buffer(ts_us[count:].copy(), values[count:].copy())
        self._n -= count
        self._memo = None
        return values[:count]

    # -- what is held -------------------------------------------------------------------------------------------------

    def count(self, start_us: int | None, end_us: int | None) -> int:
        """How many events the range holds. Costs a few µs."""
        start_us, end_us = bounds_of(start_us, end_us)
        if start_us >= end_us:
            return 0
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        first_in_tail, last_in_tail = self._ordered_tail().positions(start_us, end_us)
        in_cut = sum(self._chunks.chunks[i].count(start_us, end_us) for i in cut)
        return self._chunks.count_run(first, last) + in_cut + last_in_tail - first_in_tail

    @property
    def first_ts_us(self) -> int:
        """The earliest stamp held. Raises ValueError when there is no event."""
        for chunk in self._chunks.chunks[:1]:
            earliest = chunk.sealed.ts_us.item(0)
            return min(earliest, int(chunk.late.columns()[0].min())) if chunk.late else earliest
        if self._tail.n:
            return self._ordered_tail().ts_us.item(0)
        raise ValueError("there is no event")

    @property
    def last_ts_us(self) -> int:
        """The latest stamp held. Raises ValueError when there is no event."""
        if self._tail.n:
            return self._tail.last_ts_us
        for chunk in self._chunks.chunks[-1:]:
            latest = chunk.sealed.ts_us.item(-1)
            return max(latest, int(chunk.late.columns()[0].max())) if chunk.late else latest
        raise ValueError("there is no event")

    def columns(
        self, start_us: int | None, end_us: int | None, limit: int | None = None, newest_first: bool = False
    ) -> Columns:
        """The range's events as (ts_us int64[n], values float64[n]), copied: in order of time, then of arrival.

        newest_first turns the order round; `limit` keeps the first ones in that order. O(events copied + chunk).
        """
        ts_us: list[TimestampsUs] = [NO_TS]
        values: list[Values] = [NO_VALUES]
        bounds = bounds_of(start_us, end_us)
        left = self._n if limit is None else limit
        for piece in self._pieces(*bounds, newest_first):
            if left <= 0:
                break
            some_ts_us, some_values = piece.columns_between(*bounds)
            if newest_first:
                some_ts_us, some_values = some_ts_us[::-1], some_values[::-1]
            ts_us.append(some_ts_us[:left])
            values.append(some_values[:left])
            left -= len(ts_us[-1])
        return np.concatenate(ts_us), np.concatenate(values)

    def freeze(self, start_us: int | None, end_us: int | None) -> Frozen:
        """The range as it stands now, to be walked later without the lock. About 1 µs a chunk; copies nothing."""
        bounds = bounds_of(start_us, end_us)
        return Frozen(*bounds, list(self._pieces(*bounds, newest_first=False)))

    def sealed(self) -> Sealed | None:
        """What is held, to be written without the lock and given to `restore` elsewhere; None for a series without
        chunks. 1 µs a chunk.

        Its chunks go on changing: without the lock only `Chunk.sealed_columns` may be asked of them.
        """
        chunks = self._chunks.chunks
        if not chunks:
            return None
        late = [(NO_TS, NO_VALUES) if chunk.late is None else chunk.late.columns() for chunk in chunks]
        return Sealed(self._tail_from_us, self._chunks.starts.copy(), chunks.copy(), late, self.unsealed())

    def unsealed(self) -> Columns:
        """The events that are in no chunk, in order of arrival or of time. Shared, never to be changed. 0.3 µs."""
        return self._tail.columns()

    def restore(self, sealed: Sealed) -> None:
        """Begin with what `sealed` gave. Nothing must be held yet. Takes the chunks over, to which it adds their late
        events.
        """
        for chunk, (ts_us, values) in zip(sealed.chunks, sealed.late, strict=True):
            self._n += len(chunk) + len(ts_us)
            if len(ts_us):
                chunk.late = Buffer(ts_us.copy(), values.copy())
        self._chunks = Chunks.of(self._chunk_events, sealed.chunks, sealed.starts)
        self._tail_from_us = sealed.tail_from_us
        self.insert(*sealed.tail)

    def unshared_events(self) -> int:
        """How many events lie in chunks whose arrays no other process can map. 50 ns a chunk; needs no lock."""
        return sum([len(chunk.sealed.ts_us) for chunk in self._chunks.chunks if chunk.sealed.place is None])

    def contains(self, ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
        """Which of the pairs (ts_us[i], values[i]) are events held: bool[n]. Both must be equal (0.0 equals -0.0).

        O(n log n), and O(chunk_events) for each chunk in whose span some of the stamps lie.
        """
        if not len(ts_us) or not self._n:
            return np.zeros(len(ts_us), np.bool_)
        if self._tail.n == self._n <= _FEW and len(ts_us) <= _FEW:  # each with each: 4 µs, where the other way takes 20
            held_ts_us, held_values = self._tail.columns()
            equal = (held_ts_us == ts_us[:, None]) & (held_values == values[:, None])
            found: NDArray[np.bool_] = equal.any(axis=1)
            return found
        return self.freeze(int(ts_us.min()), int(ts_us.max()) + 1).contains(ts_us, values)

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory the series takes: arrays exactly, objects and sums by estimate."""
        arrays = [*self._tail.arrays(), *self._chunks.arrays()]
        # An array object takes 112 bytes, a chunk with its sums and its entries in the lists some 1,600, a timeline
        # 400.
        kept = self._selections.nbytes if self._selections else 0
        return sum(array.nbytes + 112 for array in arrays) + 1_600 * len(self._chunks.chunks) + 400 + kept

    def check_invariants(self) -> None:
        """Raise AssertionError, saying what and where, unless everything in here agrees. O(events); for tests."""
        chunks, tail = self._chunks.chunks, self._tail
        self._chunks.check_invariants(self._tail_from_us)
        held = sum(map(len, chunks)) + tail.n
        require(held == self._n, f"{held} events are held, {self._n} are counted")
        require(tail.n < self._chunk_events, f"the tail of {tail.n} should have been sealed")
        require(bool(chunks) or self._tail_from_us == MIN_TS_US, "no chunk, but the tail has a lower bound")
        require(_NO_CHUNKS.chunks == [], "the shared empty list of chunks was written to")
        ts_us, _ = tail.columns()
        require(bool((ts_us >= self._tail_from_us).all()), "the tail holds an event from before its lower bound")
        tail.check_invariants()

    # -- the rest is private; caller holds Store._lock ----------------------------------------------------------------

    def _ordered_tail(self) -> Buffer:
        """The tail, sorted if late events have come into it since the last question."""
        if not self._tail.in_order:
            self._tail = self._tail.in_time_order()
        return self._tail

    def _pieces(self, start_us: int, end_us: int, newest_first: bool) -> Iterator[FrozenChunk]:
        """The chunks that may hold events of the range, and the tail."""
        if start_us >= end_us:
            return
        starts = self._chunks.starts
        chunks = self._chunks.chunks[max(bisect_left(starts, start_us) - 1, 0) : bisect_left(starts, end_us)]
        with_tail = self._tail.n > 0 and end_us > self._tail_from_us
        if newest_first:
            if with_tail:
                yield FrozenChunk(*self._ordered_tail().columns(), None)
            yield from (chunk.frozen() for chunk in reversed(chunks))
        else:
            yield from (chunk.frozen() for chunk in chunks)
            if with_tail:
                yield FrozenChunk(*self._ordered_tail().columns(), None)


_NO_CHUNKS = Chunks(CHUNK_EVENTS)  # of every series that has none; never written to


def bounds_of(start_us: int | None, end_us: int | None) -> tuple[int, int]:
    """The range as two plain integers, within what a stamp can be."""
    start = MIN_TS_US if start_us is None else max(int(start_us), MIN_TS_US)
    end = MAX_TS_US + 1 if end_us is None else min(int(end_us), MAX_TS_US + 1)
    return start, end
