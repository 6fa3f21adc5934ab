"""The events of one series: in time-sorted chunks of numpy columns, each with its exact summary, and an open tail.

    chunks   [ c0: 8,192 events ][ c1: 8,192 ][ c2: 11,300 ] ... [ cN ]      tail (open, < 8,192)
    starts     t0                  t1           t2                 tN        everything from tail_from on
    prefix   0 ... Σx, Σx², n of c0, of c0+c1, of c0+c1+c2, ...

`chunks.py` tells what a chunk holds and what becomes of late events; `timeline.py` answers questions about them.

    operation                 cost, for m events into a series of c chunks of C events
    insert in order           O(m), and a value sort of every C events
    insert late               O(m log m + chunks touched), and a merge of O(C) every C/4 events of a chunk
    count                     O(log c + C) for the edges
    expire_before, delete     O(chunks dropped + C)

No locks, no clock, no I/O. The caller holds Store._lock; what is handed out (columns, snapshots) may be read without
it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.chunks import (
    MAX_CHUNK_EVENTS,
    NO_TS,
    NO_VALUES,
    Buffer,
    Chunk,
    Chunks,
    Columns,
    FrozenChunk,
    require,
)
from statsapi.engine.counted import Selections
from statsapi.model import MAX_TS_US, MIN_TS_US, TimestampsUs, Values

# Smaller chunks leave less to sum at a window's edge, larger ones fewer to walk: summarise over 10M events took 78,
# 95 and 150 µs with 4,096, 8,192 and 16,384, percentiles 5.1, 3.4 and 2.5 ms.
CHUNK_EVENTS = 8_192


class Frozen(NamedTuple):
    """The events of a range, as they were when `Timeline.freeze` was called."""

    start_us: int
    end_us: int
    pieces: list[FrozenChunk]

    def walk(self) -> Iterator[Columns]:
        """In order of time, then of arrival: pieces of one event or more, not to be changed. Needs no lock."""
        for piece in self.pieces:
            ts_us, values = _cut_columns(piece, self.start_us, self.end_us, newest_first=False)
            if len(ts_us):
                yield ts_us, values


class Sealed(NamedTuple):
    """All events of a series that has chunks, as they were when `sealed` was called. Its arrays are never changed."""

    tail_from_us: int
    starts: list[int]
    chunks: list[Chunk]
    late: list[Columns]  # of each chunk
    tail: Columns


class HeldEvents:
    """Events in any order of arrival; any half-open range [start_us, end_us) of them, counted, read or dropped.

    Tail and chunks are one to all of its methods: two classes would both need the bounds' rules. A bound of None is no
    bound. Stamps are int64 µs UTC in MIN_TS_US..MAX_TS_US, values finite float64; both are vouched for by the caller,
    as is Store._lock, which is held around every call.

        >>> held = HeldEvents()
        >>> held.insert(np.array([10, 30, 20, 20]), np.array([1.0, 4.0, 2.0, 3.0]))
        >>> held.expire_before(20), len(held), held.last(None, 30)
        (1, 3, (20, 3.0))
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
        O(n log n + chunks touched) and the merges in the module's docstring. Never fails.
        """
        n = len(ts_us)
        tail = self._tail
        if n == 1 and tail.n < self._chunk_events - 1:
            ts = ts_us.item()
            if ts >= self._tail_from_us:
                # The way of nearly every single event.
                at = tail.n
                if at == len(tail.ts_us):
                    tail.reserve(at + 1)
                if ts < tail.last_ts_us:
                    tail.in_order = False
                else:
                    tail.last_ts_us = ts
                tail.ts_us[at] = ts
                tail.values[at] = values[0]
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
        """Drop every event with ts < cutoff_us; how many that were. O(chunks dropped + one cut); memory is given
        back.
        """
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
                self._selections = None  # they are as large as what they were about
        return removed + count

    def pop_few(self, end_us: int, most: int) -> Values | None:
        """Drop the events with ts < end_us and give their values, by time; None, and nothing dropped, for more than
        `most`. 5 µs for a series that gets little.
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

    def first(self, start_us: int | None = None, end_us: int | None = None) -> tuple[int, float] | None:
        """The earliest event of the range as (ts_us, value), of equal stamps the first to arrive; None without any."""
        return self._end_event(start_us, end_us, newest_first=False)

    def last(self, start_us: int | None = None, end_us: int | None = None) -> tuple[int, float] | None:
        """The latest event of the range as (ts_us, value), of equal stamps the last to arrive; None without any."""
        return self._end_event(start_us, end_us, newest_first=True)

    def _end_event(self, start_us: int | None, end_us: int | None, newest_first: bool) -> tuple[int, float] | None:
        ts_us, values = self.columns(start_us, end_us, 1, newest_first)
        return (int(ts_us[0]), float(values[0])) if len(ts_us) else None

    def extent(self, from_us: int) -> tuple[int, int, int] | None:
        """How many events do not lie before `from_us`, and the first and last stamp of those; None without any.

        0.5 µs where none lies before.
        """
        if not self._n:
            return None
        tail = self._tail
        if (
            tail.n and tail.in_order and not self._chunks.chunks
        ):  # nearly every series; properties take half as long again
            first_us, last_us = tail.ts_us.item(0), tail.last_ts_us
        else:
            first_us, last_us = self.first_ts_us, self.last_ts_us
        if first_us >= from_us:
            return self._n, first_us, last_us
        first = self.first(from_us)
        return None if first is None else (self.count(from_us, None), first[0], last_us)

    @property
    def first_ts_us(self) -> int:
        """The earliest stamp held. Raises ValueError when there is no event."""
        for chunk in self._chunks.chunks[:1]:
            earliest = chunk.ts_us.item(0)
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
            latest = chunk.ts_us.item(-1)
            return max(latest, int(chunk.late.columns()[0].max())) if chunk.late else latest
        raise ValueError("there is no event")

    def columns(
        self, start_us: int | None, end_us: int | None, limit: int | None = None, newest_first: bool = False
    ) -> Columns:
        """The range's events as (ts_us int64[n], values float64[n]), copied: in order of time, then of arrival.

        newest_first turns the order round; `limit` keeps the first so many in that order. O(events copied + chunk).
        """
        ts_us: list[TimestampsUs] = [NO_TS]
        values: list[Values] = [NO_VALUES]
        bounds = bounds_of(start_us, end_us)
        left = self._n if limit is None else limit
        for piece in self._pieces(*bounds, newest_first):
            if left <= 0:
                break
            some_ts_us, some_values = _cut_columns(piece, *bounds, newest_first)
            ts_us.append(some_ts_us[:left])
            values.append(some_values[:left])
            left -= len(ts_us[-1])
        return np.concatenate(ts_us), np.concatenate(values)

    def snapshot(self, start_us: int | None, end_us: int | None, newest_first: bool = False) -> Iterator[Columns]:
        """The range as it stands now, to be walked later in (ts_us, values) pieces, without the lock.

        Each piece has one event or more and two chunks' worth at most; it and they are in the order of `columns`.
        The call takes about 1 µs a chunk and copies nothing: the arrays it points at are never changed, only replaced.
        Memory stays constant, but a chunk that changes or expires in the meantime lives on until it was walked.
        The arrays are read-only. To be walked once.
        """
        bounds = bounds_of(start_us, end_us)
        pieces = list(self._pieces(*bounds, newest_first))
        pieces.reverse()

        def walk() -> Iterator[Columns]:
            while pieces:
                ts_us, values = _cut_columns(pieces.pop(), *bounds, newest_first)
                if len(ts_us):
                    ts_us.flags.writeable = values.flags.writeable = False
                    yield ts_us, values

        return walk()

    def freeze(self, start_us: int | None, end_us: int | None) -> Frozen:
        """The range as it stands now, to be walked later, any number of times, as a `snapshot` is."""
        bounds = bounds_of(start_us, end_us)
        return Frozen(*bounds, list(self._pieces(*bounds, newest_first=False)))

    def few_events(self, start_us: int | None, end_us: int | None) -> Columns | None:
        """The range's events in order of time, of a series that has no chunks; None of one that has some.

        Shared, never to be changed. 1 µs, where a `freeze` and its walk take 10.
        """
        if self._chunks.chunks:
            return None
        tail = self._ordered_tail()
        first, last = tail.positions(*bounds_of(start_us, end_us))
        return tail.ts_us[first:last], tail.values[first:last]

    def sealed(self) -> Sealed | None:
        """What is held, to be put away without the lock and `restored` elsewhere; None of a series without chunks.

        1 µs a chunk. The chunks go on changing: only what of them is sealed may be asked for.
        """
        chunks = self._chunks.chunks
        if not chunks:
            return None
        late = [(NO_TS, NO_VALUES) if chunk.late is None else chunk.late.columns() for chunk in chunks]
        return Sealed(self._tail_from_us, self._chunks.starts.copy(), chunks.copy(), late, self.unsealed())

    def unsealed(self) -> Columns:
        """The events that are in no chunk, in order of arrival or time: arrays that are not to be changed. 0.3 µs."""
        return self._tail.columns()

    def restore(self, sealed: Sealed) -> None:
        """Begin with that, whose chunks are nobody else's and have no late events yet. There must be nothing held."""
        for chunk, (ts_us, values) in zip(sealed.chunks, sealed.late, strict=True):
            self._n += len(chunk) + len(ts_us)
            if len(ts_us):
                chunk.late = Buffer(ts_us.copy(), values.copy())
        self._chunks = Chunks.of(self._chunk_events, sealed.chunks, sealed.starts)
        self._tail_from_us = sealed.tail_from_us
        self.insert(*sealed.tail)

    def unshared_events(self) -> int:
        """How many events lie in chunks whose arrays no other process can map. 50 ns a chunk; needs no lock."""
        return sum([len(chunk.ts_us) for chunk in self._chunks.chunks if chunk.place is None])

    def contains(self, ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
        """Which of the pairs (ts_us[i], values[i]) are events held: bool[n]. Both must be equal (0.0 equals -0.0).

        O(n log n), and O(chunk_events) for each chunk in whose span some of the stamps lie.
        """
        found = np.zeros(len(ts_us), np.bool_)
        if not len(ts_us) or not self._n:
            return found
        order = ts_us.argsort(kind="stable")
        asked_ts_us, asked_values = ts_us[order], values[order]
        sorted_found = np.zeros(len(ts_us), np.bool_)
        for piece in self._pieces(int(asked_ts_us[0]), int(asked_ts_us[-1]) + 1, newest_first=False):
            held_ts_us, held_values = piece.columns()
            a = int(asked_ts_us.searchsorted(held_ts_us[0]))
            b = int(asked_ts_us.searchsorted(held_ts_us[-1], side="right"))
            if a < b:
                sorted_found[a:b] |= _pairs_among(asked_ts_us[a:b], asked_values[a:b], held_ts_us, held_values)
        found[order] = sorted_found
        return found

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


def _cut_columns(piece: FrozenChunk, start_us: int, end_us: int, newest_first: bool) -> Columns:
    """The events of a piece inside the range, in order; views where its own arrays are in order already."""
    cut = piece.few_columns(start_us, end_us)
    if cut is None:
        ts_us, values = piece.columns()
        first, last = ts_us.searchsorted((start_us, end_us)).tolist()
        cut = ts_us[first:last], values[first:last]
    return (cut[0][::-1], cut[1][::-1]) if newest_first else cut


def _pairs_among(
    ts_us: TimestampsUs, values: Values, held_ts_us: TimestampsUs, held_values: Values
) -> NDArray[np.bool_]:
    """Which pairs (ts_us[i], values[i]) are among the held ones, whose stamps are sorted."""
    first = held_ts_us.searchsorted(ts_us)
    matches = held_ts_us.searchsorted(ts_us, side="right") - first
    pairs = int(matches.sum())
    if pairs > 4 * (len(ts_us) + len(held_ts_us)):
        # Thousands at one instant: comparing each with each would take seconds, a set takes 0.3 µs an event.
        held = set(zip(held_ts_us.tolist(), held_values.tolist(), strict=True))
        return np.fromiter((pair in held for pair in zip(ts_us.tolist(), values.tolist(), strict=True)), np.bool_)
    asked = np.arange(len(ts_us)).repeat(matches)
    at = np.arange(pairs) + (first - matches.cumsum() + matches)[asked]
    found = np.zeros(len(ts_us), np.bool_)
    found[asked[held_values[at] == values[asked]]] = True
    return found
