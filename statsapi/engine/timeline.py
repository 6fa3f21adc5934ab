"""One series: its events in time-sorted chunks of numpy columns, each with its exact summary.

    chunks   [ c0: 8,192 events ][ c1: 8,192 ][ c2: 11,300 ] ... [ cN ]      tail (open, < 8,192)
    starts     t0                  t1           t2                 tN        everything from tail_from on
    prefix   0 ... Σx, Σx², n of c0, of c0+c1, of c0+c1+c2, ...

A range covers a run of whole chunks, the parts of at most two that its edges cut, and some of the tail. The run is the
difference of two prefix sums (and numpy's min and max over one number per chunk), so its cost hardly depends on how
many events it holds. Differences of integers are exact: nothing drifts, whatever has been dropped or come late.

A sealed chunk is three columns, 18 bytes an event:

    ts      int64, time-sorted; equal stamps in order of arrival
    values  float64, sorted by value
    rank    uint16: values[i] happened at position rank[i] in time

Sorted values make percentiles fast and the extremes free. A cut keeps values[rank >= k]. Its sums start from the last
cut, or from the nearest of 64 places where they were noted when the chunk was sealed (`exact.CumulativeSums`).

A late event, say 10:00:05 when chunks start at 10:00:00, 10:00:07, 10:00:19 and the tail at 10:00:31: `starts` sends it
to the first chunk, where it is appended to that chunk's `late` buffer, in order of arrival. Prefix sums from that chunk
on are cut off. A question that comes now sums the one late value, adds it to the chunk's total and extends the prefix
sums again; where an edge cuts this chunk, the buffer is searched by comparing all its stamps. When the buffer
holds about a quarter of a chunk (between an eighth and three eighths, so that chunks which fill together do not all
settle at once), it is merged into new sorted columns: the chunk is *settled*; past two chunks' worth it is split as
well.

    operation                 cost, for m events into a series of c chunks of C events
    insert in order           O(m), and a value sort of every C events
    insert late               O(m log m + chunks touched), and a merge of O(C) every C/4 events of a chunk
    summarise, count          O(log c + C) for the edges + O(c / 1000) µs for the extremes
    percentiles               O(c log C + n / 64) for n events in the range
    expire_before, delete     O(chunks dropped + C)

Monoid vocabulary and the idea of trees of partial aggregates: Tangwongsan, Hirzel & Schneider, "Optimal and general
out-of-order sliding-window aggregation" (2019). Theirs keeps a finger B-tree of partials since it may not subtract;
exact integers may, so a list of prefix sums is enough. Two levels (blocks of 64 chunks) were measured and refused:
they save the 0.3 ms it takes to extend 1,220 prefix sums after a late event at the far end, and cost a third of this
file.

No locks, no clock, no I/O. Whoever calls holds Store._lock; what is handed out (columns, snapshots) may be read
without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from math import inf, isqrt, nextafter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.exact import CumulativeSums, interpolate, percentile_place, scaled_sums
from statsapi.engine.sketch import MAX_BUCKETS, Buckets, Sketch, count_values
from statsapi.engine.summary import IDENTITY, Summary, combine
from statsapi.model import MAX_TS_US, MIN_TS_US, Percent, TimestampsUs, Values

# Smaller chunks leave less to sum at a window's edge, larger ones fewer to walk: summarise over 10M events took 78,
# 95 and 150 µs with 4,096, 8,192 and 16,384, percentiles 5.1, 3.4 and 2.5 ms.
CHUNK_EVENTS = 8_192
# Ranks are uint16, and a chunk splits only past twice its size.
_MAX_CHUNK_EVENTS = 2**15 - 1

# A chunk notes the sums before so many places when it is sealed, which leaves 32 values to sum at a cut on average.
# Noting them takes 30 µs a chunk and 0.7 bytes an event.
_SUMS_NOTED = 64

# A tail this short is summed anew for each question, in some 10 µs, and keeps no sums: their integers would be half the
# memory of a series of ten events.
_UNSUMMED = 32

# A sorted column's sample for percentiles is every 64th value: 2% of the time of a seal, 0.125 bytes an event.
_SAMPLE_STEP = 64
# Up to here percentiles partition all values (12 ns an event) rather than narrow them down first (0.2 ms).
_PARTITION_ALL = 16_384
_MEMO_ENTRIES = 16

_NO_TS: TimestampsUs = np.empty(0, np.int64)
_NO_VALUES: Values = np.empty(0, np.float64)

Columns = tuple[TimestampsUs, Values]
_Sums = tuple[int, int]


class _SumsBefore(ABC):
    """Sums over the first k of n events in time order, k moving little from one question to the next.

    A sliding window cuts a chunk a few events further on each time: the sums are moved from the nearest place where
    they are known, which is the last cut, nothing at all, everything, or what a chunk has noted when it was sealed.
    """

    __slots__ = ("_mark", "_marked")

    def __init__(self) -> None:
        self._marked = 0
        self._mark: _Sums = (0, 0)

    def sums_before(self, k: int) -> _Sums:
        if k == 0:
            return 0, 0
        n = self.time_ordered
        if k == n:
            return self.whole_sums()
        if k != self._marked:
            known = self.known_place(k)
            if abs(k - known) < abs(k - self._marked):
                self._marked, self._mark = known, self.sums_at(known)
            if k > self._marked:
                self._mark = _add(self._mark, scaled_sums(self.between(self._marked, k)))
            else:
                self._mark = _subtract(self._mark, scaled_sums(self.between(k, self._marked)))
            self._marked = k
        return self._mark

    def known_place(self, k: int) -> int:
        """The place nearest to k whose sums are known anyway."""
        n = self.time_ordered
        return 0 if k <= n - k else n

    def sums_at(self, place: int) -> _Sums:
        """The sums before a `known_place`."""
        return self.whole_sums() if place else (0, 0)

    def sums_between(self, first: int, last: int) -> _Sums:
        if first > 0 and last < self.time_ordered:  # a cut on both sides: rare, and not worth two marks
            return scaled_sums(self.between(first, last))
        return _subtract(self.sums_before(last), self.sums_before(first))

    @property
    @abstractmethod
    def time_ordered(self) -> int:
        """How many events have a position in time."""

    @abstractmethod
    def whole_sums(self) -> _Sums:
        """The sums of all of those."""

    @abstractmethod
    def between(self, first: int, last: int) -> Values:
        """The values at positions first to last in time, in any order."""


class _Buffer(_SumsBefore):
    """Events in order of arrival, in two columns that grow: the open tail, and each chunk's late events.

    What has been written is never written again, so a view of the first n stays true while more are appended.
    """

    __slots__ = ("_summed", "_sums", "_whole", "in_order", "last_ts_us", "n", "ts_us", "values")

    def __init__(self, ts_us: TimestampsUs = _NO_TS, values: Values = _NO_VALUES) -> None:
        super().__init__()
        self.ts_us = ts_us
        self.values = values
        self.n = len(ts_us)
        self.in_order = True  # kept up for a tail only, by Timeline
        self.last_ts_us = int(ts_us[-1]) if self.n else MIN_TS_US
        self._summed = 0
        self._sums: _Sums = (0, 0)
        self._whole = IDENTITY  # of all events, when it was last asked for

    def append(self, ts_us: TimestampsUs, values: Values) -> None:
        n = self.n
        end = n + len(ts_us)
        if end > len(self.ts_us):
            self.reserve(end)
        self.ts_us[n:end] = ts_us
        self.values[n:end] = values
        self.n = end

    def reserve(self, n: int) -> None:
        """Make room for n events in all. Grows by half, from 4, so that ten events take ten places."""
        capacity = max(n, len(self.ts_us) * 3 // 2 + 4)
        ts_us, values = np.empty(capacity, np.int64), np.empty(capacity, np.float64)
        ts_us[: self.n] = self.ts_us[: self.n]
        values[: self.n] = self.values[: self.n]
        self.ts_us, self.values = ts_us, values

    def columns(self) -> Columns:
        return self.ts_us[: self.n], self.values[: self.n]

    def inside(self, start_us: int, end_us: int) -> NDArray[np.bool_]:
        ts_us = self.ts_us[: self.n]
        inside: NDArray[np.bool_] = ts_us >= start_us
        inside &= ts_us < end_us
        return inside

    def positions(self, start_us: int, end_us: int) -> tuple[int, int]:
        """Where [start_us, end_us) begins and ends. Needs in_order."""
        ts_us = self.ts_us[: self.n]
        first = 0 if not self.n or start_us <= ts_us[0] else int(ts_us.searchsorted(start_us))
        last = self.n if end_us > self.last_ts_us else int(ts_us.searchsorted(end_us))
        return first, last

    def without(self, start_us: int, end_us: int) -> _Buffer:
        """A copy that lacks the events in [start_us, end_us), with no room to spare."""
        keep = ~self.inside(start_us, end_us)
        ts_us, values = self.columns()
        return _Buffer(ts_us[keep], values[keep])

    def in_time_order(self) -> _Buffer:
        """A copy in order of time, then of arrival, which knows the sums already."""
        ts_us, values = self.columns()
        order = ts_us.argsort(kind="stable")
        ordered = _Buffer(ts_us[order], values[order])
        if self.n > _UNSUMMED:
            ordered._sums = self.whole_sums()
            ordered._summed = self.n
        return ordered

    def summarise(self, first: int, last: int) -> Summary:
        """The summary of the events at positions first to last."""
        if last - first == self._whole.count == self.n:
            return self._whole
        values = self.values[first:last]
        if self.n <= _UNSUMMED or first == last:
            return Summary.of(values)
        low, high = float(values.min()), float(values.max())
        summary = Summary(last - first, low + 0.0, high + 0.0, *self.sums_between(first, last))
        if last - first == self.n:
            self._whole = summary
        return summary

    @property
    def time_ordered(self) -> int:
        return self.n

    def whole_sums(self) -> _Sums:
        """The sums of all events; only those since the last call are summed."""
        if self._summed < self.n:
            self._sums = _add(self._sums, scaled_sums(self.values[self._summed : self.n]))
            self._summed = self.n
        return self._sums

    def between(self, first: int, last: int) -> Values:
        return self.values[first:last]


class _Piece(NamedTuple):
    """The arrays of one chunk, or of the tail, as they were when it was made: none of them is ever changed."""

    ts_us: TimestampsUs
    values: Values
    rank: NDArray[np.uint16] | None  # None: values are in order of time already
    late: Columns = (_NO_TS, _NO_VALUES)

    def columns(self) -> Columns:
        """Its events in order of time, then of arrival. The arrays may be the chunk's own: not to be changed."""
        if self.rank is None:
            return self.ts_us, self.values
        by_time = np.empty_like(self.values)
        by_time[self.rank] = self.values
        late_ts_us, late_values = self.late
        if not len(late_ts_us):
            return self.ts_us, by_time
        # Late events arrived after those that are sorted in: a stable sort puts them behind equal stamps.
        ts_us = np.concatenate((self.ts_us, late_ts_us))
        order = ts_us.argsort(kind="stable")
        return ts_us[order], np.concatenate((by_time, late_values))[order]


class _Chunk(_SumsBefore):
    """Sorted columns that are never changed, their sums, and a buffer of late events."""

    __slots__ = ("_buckets", "cumulative", "late", "rank", "sample", "settle_at", "sums", "ts_us", "values")

    def __init__(
        self,
        ts_us: TimestampsUs,
        values: Values,
        rank: NDArray[np.uint16],
        sums: _Sums,
        stagger: int,
        room: int,
        cumulative: CumulativeSums | None = None,
        buckets: Buckets | None = None,
    ) -> None:
        """`stagger` is any number; neighbours get different ones. `room` is the timeline's chunk size."""
        super().__init__()
        self._buckets = buckets
        self.cumulative = cumulative  # of the sorted columns in order of time, where they cost nothing to make
        self.ts_us = ts_us
        self.values = values
        self.rank = rank
        self.sums = sums  # of the sorted columns
        # Chunks that all began their samples at 0 would rank each sampled value half a step too low.
        self.sample = _sample(values, stagger)
        self.late: _Buffer | None = None
        # Between an eighth and three eighths, at least 1; 0.618 spreads consecutive numbers evenly.
        self.settle_at = room // 8 + int(stagger * 0.6180339887 % 1.0 * (room // 4)) + 1

    @classmethod
    def seal(cls, ts_us: TimestampsUs, values: Values, stagger: int, room: int) -> _Chunk:
        """A chunk of time-ordered columns, which are copied."""
        order = values.argsort()
        cumulative = CumulativeSums.of(values, max(room // _SUMS_NOTED, 1))
        sums = scaled_sums(values) if cumulative is None else cumulative.whole
        chunk = cls(ts_us.copy(), values[order], order.astype(np.uint16), sums, stagger, room, cumulative)
        chunk.buckets()  # now, when it costs an insertion 5 ns an event, and not while a whole minute is rolled up
        return chunk

    def __len__(self) -> int:
        return len(self.ts_us) + (self.late.n if self.late else 0)

    def stats(self) -> tuple[int, float, float, int, int]:
        """count, min, max, Σx, Σx² of everything, late events included."""
        low, high = float(self.values[0]), float(self.values[-1])
        late = self.late
        if late is None:
            return len(self.values), low, high, *self.sums
        _, values = late.columns()
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        return len(self), low, high, *_add(self.sums, late.whole_sums())

    def positions(self, start_us: int, end_us: int) -> tuple[int, int]:
        """Where [start_us, end_us) begins and ends among the sorted events."""
        first = int(self.ts_us.searchsorted(start_us)) if start_us > MIN_TS_US else 0
        last = int(self.ts_us.searchsorted(end_us)) if end_us <= MAX_TS_US else len(self.ts_us)
        return first, last

    def count(self, start_us: int, end_us: int) -> int:
        first, last = self.positions(start_us, end_us)
        return last - first + (int(np.count_nonzero(self.late.inside(start_us, end_us))) if self.late else 0)

    def summarise(self, start_us: int, end_us: int) -> Summary:
        first, last = self.positions(start_us, end_us)
        summary = IDENTITY
        if first < last:
            inside = self._inside(first, last)
            low = float(self.values[inside.argmax()])
            high = float(self.values[len(inside) - 1 - inside[::-1].argmax()])
            summary = Summary(last - first, low + 0.0, high + 0.0, *self.sums_between(first, last))
        if self.late is None:
            return summary
        _, values = self.late.columns()
        return combine(summary, Summary.of(values[self.late.inside(start_us, end_us)]))

    def buckets(self) -> Buckets:
        """The sketch of the sorted events. Kept where that takes at most half a byte an event: else their values lie
        over so many decades that nearly each has a bucket of its own.
        """
        if self._buckets is not None:
            return self._buckets
        buckets = count_values(self.values, in_order=True)
        if len(buckets) <= MAX_BUCKETS:
            self._buckets = buckets
        return buckets

    def select_sorted(self, start_us: int, end_us: int) -> Values:
        """The values of the sorted events in [start_us, end_us), sorted by value; late ones are not among them."""
        first, last = self.positions(start_us, end_us)
        return self.values if last - first == len(self.values) else self.between(first, last)

    def _inside(self, first: int, last: int) -> NDArray[np.bool_]:
        """Which of `values` stand at positions first to last in time; first < last."""
        # One comparison for two bounds: what lies before `first` wraps round to the far end of uint16.
        inside: NDArray[np.bool_] = self.rank - np.uint16(first) < last - first
        return inside

    @property
    def time_ordered(self) -> int:
        return len(self.ts_us)

    def whole_sums(self) -> _Sums:
        return self.sums

    def known_place(self, k: int) -> int:
        if self.cumulative is None:
            return super().known_place(k)
        step = self.cumulative.step
        return min((k + step // 2) // step * step, self.time_ordered)

    def sums_at(self, place: int) -> _Sums:
        if self.cumulative is None or not 0 < place < self.time_ordered:
            return super().sums_at(place)
        return self.cumulative.before(place)

    def between(self, first: int, last: int) -> Values:
        if first >= last:
            return _NO_VALUES
        return np.compress(self._inside(first, last), self.values)  # values[mask] takes twice as long

    def piece(self) -> _Piece:
        if self.late is None:
            return _Piece(self.ts_us, self.values, self.rank)
        return _Piece(self.ts_us, self.values, self.rank, self.late.columns())

    def settled(self, stagger: int, room: int) -> list[_Chunk]:
        """Chunks of `room` to 2·room events which hold the same, the late ones sorted in. O(n)."""
        late = self.late
        if late is None:
            return [self]
        if len(self) > 2 * room:
            ts_us, values = self.piece().columns()
            pieces = len(self) // room
            edges = [len(self) * i // pieces for i in range(pieces + 1)]
            return [_Chunk.seal(ts_us[a:b], values[a:b], stagger + i, room) for i, (a, b) in enumerate(pairwise(edges))]
        # Merging two sorted runs, in time and in value, takes a third of the time of sorting the whole anew.
        late_ts_us, late_values = late.columns()
        order = late_ts_us.argsort(kind="stable")
        late_ts_us, late_values = late_ts_us[order], late_values[order]
        ts_us, late_at, sorted_at = _merge(self.ts_us, late_ts_us)
        by_value = late_values.argsort()
        values, late_in, sorted_in = _merge(self.values, late_values[by_value])
        rank = np.empty(len(values), np.uint16)
        rank[late_in] = late_at[by_value]
        rank[sorted_in] = sorted_at.astype(np.uint16)[self.rank]
        return [_Chunk(ts_us, values, rank, _add(self.sums, late.whole_sums()), stagger, room)]

    def without(self, start_us: int, end_us: int, stagger: int, room: int) -> _Chunk | None:
        """A chunk that lacks the events in [start_us, end_us); None when there is none left."""
        first, last = self.positions(start_us, end_us)
        late = self.late.without(start_us, end_us) if self.late else None
        if last - first == len(self.ts_us):
            # A chunk is never without sorted events; the late ones take their place.
            if late is None or not late.n:
                return None
            order = late.columns()[0].argsort(kind="stable")
            return _Chunk.seal(late.ts_us[order], late.values[order], stagger, room)
        if first < last:
            keep = ~self._inside(first, last)
            ts_us = np.concatenate((self.ts_us[:first], self.ts_us[last:]))
            rank = self.rank[keep]
            rank[rank >= last] -= np.uint16(last - first)
            sums = _subtract(self.sums, self.sums_between(first, last))
            kept = _Chunk(ts_us, self.values[keep], rank, sums, stagger, room)
        else:
            kept = _Chunk(self.ts_us, self.values, self.rank, self.sums, stagger, room, self.cumulative, self._buckets)
        if late is not None and late.n:
            kept.late = late
            kept.settle_at = self.settle_at  # another one may be passed already
        return kept


class _Chunks:
    """The sealed chunks in order of time, with prefix sums over them.

    starts[i] <= every stamp in chunk i <= starts[i + 1]. A stamp that stands on such a boundary may be on both sides,
    the earlier arrivals to the left.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.chunks: list[_Chunk] = []
        self.starts: list[int] = []
        self._made = 0  # so many chunks have been made; staggers their samples and settling
        self._forget()

    def _forget(self, chunk: int = 0) -> None:
        """Cut the prefix sums off before `chunk`, which is about to change."""
        if chunk == 0:
            # Entry i is about chunks 0 to i - 1, all relative to some base: only differences count.
            self._counts, self._totals, self._squares = [0], [0], [0]
            self._lows = self._highs = _NO_VALUES
        elif chunk < len(self._counts) - 1:
            del self._counts[chunk + 1 :], self._totals[chunk + 1 :], self._squares[chunk + 1 :]

    def _extend(self, upto: int) -> None:
        """Make the prefix sums hold for chunks 0 to upto - 1."""
        first = len(self._counts) - 1
        if first >= upto:
            return
        if upto > len(self._lows):
            # Not a view: these arrays are written in place.
            self._lows = np.resize(self._lows, len(self.chunks) * 5 // 4)
            self._highs = np.resize(self._highs, len(self._lows))
        count, total, squares = self._counts[-1], self._totals[-1], self._squares[-1]
        for i in range(first, upto):
            added, low, high, sum_scaled, sum_squares_scaled = self.chunks[i].stats()
            self._counts.append(count := count + added)
            self._totals.append(total := total + sum_scaled)
            self._squares.append(squares := squares + sum_squares_scaled)
            self._lows[i] = low
            self._highs[i] = high

    def number(self, how_many: int = 1) -> int:
        self._made += how_many
        return self._made - how_many

    def append(self, ts_us: TimestampsUs, values: Values) -> None:
        """Seal time-ordered columns, none earlier than any event here. They are copied."""
        self.chunks.append(_Chunk.seal(ts_us, values, self.number(), self.room))
        self.starts.append(int(ts_us[0]))

    def insert_late(self, ts_us: TimestampsUs, values: Values) -> None:
        """Add time-ordered events, all before the tail. There is at least one chunk."""
        starts = self.starts
        starts[0] = min(starts[0], int(ts_us[0]))
        first = bisect_right(starts, int(ts_us[0])) - 1
        last = bisect_right(starts, int(ts_us[-1])) - 1
        self._forget(first)
        edges = [0, len(ts_us)]
        if first < last:
            edges[1:1] = ts_us.searchsorted(starts[first + 1 : last + 1]).tolist()
        # From the right, so that a split does not move the chunks that are still to be met.
        for i in range(last, first - 1, -1):
            a, b = edges[i - first], edges[i - first + 1]
            if a == b:
                continue
            chunk = self.chunks[i]
            late = chunk.late
            if late is None:
                late = chunk.late = _Buffer()
            late.append(ts_us[a:b], values[a:b])
            if late.n >= chunk.settle_at:
                self._settle(i)

    def _settle(self, i: int) -> None:
        start_us = self.starts[i]
        chunks = self.chunks[i].settled(self._made, self.room)
        self.number(len(chunks))
        self.chunks[i : i + 1] = chunks
        self.starts[i : i + 1] = [start_us, *(int(chunk.ts_us[0]) for chunk in chunks[1:])]

    def locate(self, start_us: int, end_us: int, tail_from_us: int) -> tuple[int, int, list[int]]:
        """[start_us, end_us) as a run of whole chunks [first, last) and the chunks (at most two) that it may cut."""
        starts = self.starts
        first = bisect_left(starts, start_us)  # the chunks from here on begin inside, or later
        last = bisect_left(starts, end_us, first)  # the chunks from here on begin after the end
        cut = [first - 1] if first else []
        if last and not (starts[last] if last < len(starts) else tail_from_us) < end_us:
            last -= 1
            if last >= first:
                cut.append(last)
        return first, max(first, last), cut

    def run(self, first: int, last: int) -> Summary:
        """The summary of the whole chunks [first, last)."""
        if first >= last:
            return IDENTITY
        self._extend(last)
        return Summary(
            self._counts[last] - self._counts[first],
            float(self._lows[first:last].min()) + 0.0,
            float(self._highs[first:last].max()) + 0.0,
            self._totals[last] - self._totals[first],
            self._squares[last] - self._squares[first],
        )

    def check_invariants(self, tail_from_us: int) -> None:
        """Raise AssertionError unless chunks, starts and prefix sums agree."""
        chunks, starts = self.chunks, self.starts
        _require(len(chunks) == len(starts), f"{len(chunks)} chunks but {len(starts)} starts")
        for i, (chunk, start_us) in enumerate(zip(chunks, starts, strict=True)):
            ts_us, values = chunk.piece().columns()
            end_us = starts[i + 1] if i + 1 < len(starts) else tail_from_us
            n = len(chunk.ts_us)
            _require(0 < n <= 2 * self.room, f"chunk {i} has {n} sorted events, room is {self.room}")
            _require(bool((ts_us[1:] >= ts_us[:-1]).all()), f"chunk {i} is not in order of time")
            _require(start_us <= ts_us[0] and ts_us[-1] <= end_us, f"chunk {i} holds events outside its bounds")
            _require(bool((chunk.values[1:] >= chunk.values[:-1]).all()), f"chunk {i}'s values are not sorted")
            _require(bool((np.sort(chunk.rank) == np.arange(n)).all()), f"chunk {i}'s ranks are not a permutation")
            _require(chunk.sums == scaled_sums(chunk.values), f"chunk {i}'s sums do not add up")
            counted = count_values(chunk.values)
            _require(np.array_equal(chunk.buckets(), counted), f"chunk {i}'s buckets do not add up")
            _require(not chunk.late or 0 < chunk.late.n < chunk.settle_at, f"chunk {i}'s late events should be settled")
            marked = chunk.between(0, chunk._marked)
            _require(chunk._mark == scaled_sums(marked), f"chunk {i}'s mark at {chunk._marked} does not add up")
            for place in {chunk.known_place(k) for k in range(n + 1)}:
                known = scaled_sums(chunk.between(0, place))
                _require(chunk.sums_at(place) == known, f"chunk {i}'s sums before {place} do not add up")
            if i + 1 < len(self._counts):
                whole = Summary.of(values)
                _require(self.run(i, i + 1) == whole, f"chunk {i}'s entry in the prefix sums does not add up")

    def count_run(self, first: int, last: int) -> int:
        if first >= last:
            return 0
        self._extend(last)
        return self._counts[last] - self._counts[first]

    def remove(self, start_us: int, end_us: int) -> int:
        """Drop the events in [start_us, end_us); how many that were. O(chunks dropped + two cut)."""
        starts = self.starts
        first = max(bisect_left(starts, start_us) - 1, 0)
        last = bisect_left(starts, end_us)  # only chunks [first, last) can hold any
        kept: list[tuple[int, _Chunk]] = []
        removed = 0
        for i in range(first, last):
            chunk = self.chunks[i]
            removed += len(chunk)
            if first < i < last - 1:
                continue
            survivor = chunk.without(start_us, end_us, self.number(), self.room)
            if survivor is not None:
                removed -= len(survivor)
                kept.append((starts[i] if starts[i] < start_us else max(starts[i], end_us), survivor))
        if not removed:
            return 0
        if first == 0 and len(kept) <= 1 and len(self._counts) > last:
            self._forget_front(last, kept[0][1] if kept else None)
        else:
            self._forget(first)
        self.chunks[first:last] = [chunk for _, chunk in kept]
        self.starts[first:last] = [start for start, _ in kept]
        return removed

    def _forget_front(self, last: int, survivor: _Chunk | None) -> None:
        """Chunks [0, last) go, but for what `survivor` holds: the prefix sums of those that stay need no change."""
        dropped = last if survivor is None else last - 1
        for prefix in (self._counts, self._totals, self._squares):
            del prefix[:dropped]
        self._lows, self._highs = self._lows[dropped:].copy(), self._highs[dropped:].copy()
        if survivor is not None:
            count, self._lows[0], self._highs[0], total, squares = survivor.stats()
            self._counts[0] = self._counts[1] - count
            self._totals[0] = self._totals[1] - total
            self._squares[0] = self._squares[1] - squares


class Timeline:
    """One series: insert in any order, ask for any half-open range [start_us, end_us), exactly.

    A bound of None is no bound. Stamps are int64 µs UTC in MIN_TS_US..MAX_TS_US, values finite float64; both are
    vouched for by the caller, as is Store._lock, which is held around every call.

        >>> timeline = Timeline()
        >>> timeline.insert(np.array([10, 30, 20, 20]), np.array([1.0, 4.0, 2.0, 3.0]))
        >>> timeline.summarise(10, 30).mean, timeline.percentiles(None, None, [50])
        (2.0, [2.5])
        >>> timeline.expire_before(20), len(timeline), timeline.last(None, 30)
        (1, 3, (20, 3.0))
    """

    __slots__ = ("_chunk_events", "_chunks", "_memo", "_n", "_tail", "_tail_from_us")

    def __init__(self, chunk_events: int = CHUNK_EVENTS) -> None:
        """chunk_events: how many events make a chunk, 2 to 32,767. Tests take a few, to meet every edge soon."""
        if not 2 <= chunk_events <= _MAX_CHUNK_EVENTS:
            raise ValueError(f"chunk_events must be 2 to {_MAX_CHUNK_EVENTS}, not {chunk_events}")
        self._chunk_events = chunk_events
        self._chunks = _NO_CHUNKS  # own ones from the first seal on: most series are small
        self._tail = _Buffer()
        self._tail_from_us = MIN_TS_US  # every chunk's stamps <= this <= the tail's stamps
        self._n = 0
        self._memo: dict[Any, Any] | None = None  # answers since the last change

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
            self._chunks = _Chunks(self._chunk_events)
        end = len(ts_us) // self._chunk_events * self._chunk_events
        for first in range(0, end, self._chunk_events):
            last = first + self._chunk_events
            self._chunks.append(ts_us[first:last], values[first:last])
        self._tail_from_us = int(ts_us[end - 1])
        self._tail = _Buffer(ts_us[end:].copy(), values[end:].copy())

    def expire_before(self, cutoff_us: int) -> int:
        """Drop every event with ts < cutoff_us; how many that were. O(chunks dropped + one cut); memory is given
        back.
        """
        return self.delete(None, cutoff_us)

    def delete(self, start_us: int | None, end_us: int | None) -> int:
        """Drop the events in [start_us, end_us); how many that were. O(chunks dropped + two cut)."""
        start_us, end_us = _bounds(start_us, end_us)
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
        self._tail = _Buffer(ts_us[count:].copy(), values[count:].copy())
        self._n -= count
        self._memo = None
        return values[:count]

    # -- questions ----------------------------------------------------------------------------------------------------

    def summarise(self, start_us: int | None, end_us: int | None) -> Summary:
        """The exact summary of the events in the range. O(log chunks + chunk_events), see the module's table."""
        start_us, end_us = _bounds(start_us, end_us)
        if start_us >= end_us:
            return IDENTITY
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        tail = self._ordered_tail()
        in_tail = tail.positions(start_us, end_us)
        if not cut and first == last:
            return tail.summarise(*in_tail)
        key = self._place(first, last, cut, start_us, end_us)
        known = self._recall(key)
        if known is not None:
            summary: Summary = known
            return summary
        summary = combine(
            self._chunks.run(first, last),
            *(self._chunks.chunks[i].summarise(start_us, end_us) for i in cut),
            tail.summarise(*in_tail),
        )
        self._remember(key, summary)
        return summary

    def count(self, start_us: int | None, end_us: int | None) -> int:
        """How many events the range holds. Costs a few µs."""
        start_us, end_us = _bounds(start_us, end_us)
        if start_us >= end_us:
            return 0
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        first_in_tail, last_in_tail = self._ordered_tail().positions(start_us, end_us)
        in_cut = sum(self._chunks.chunks[i].count(start_us, end_us) for i in cut)
        return self._chunks.count_run(first, last) + in_cut + last_in_tail - first_in_tail

    def percentiles(self, start_us: int | None, end_us: int | None, ps: Sequence[Percent]) -> list[float]:
        """The percentiles of the range's values, one for each of `ps` (0 to 100); [] when it holds no event.

        Linear interpolation between closest ranks (type 7, `exact.percentile_place`), of which the exact point is
        rounded once. `numpy.percentile` means the same and rounds on the way: it may differ in the last places, and
        between neighbours more than 1.8e308 apart it gives inf or nan. A zero has no sign. Raises ValueError for a p
        outside.

        All of them cost little more than one: 1M events 0.5 ms, 10M 4 ms; unchanged, some µs.
        """
        for p in ps:
            if not 0 <= p <= 100:
                raise ValueError(f"a percentile lies between 0 and 100, {p!r} does not")
        start_us, end_us = _bounds(start_us, end_us)
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        if start_us >= end_us or not ps:
            return []
        asked = tuple(p.as_integer_ratio() for p in ps)  # a Fraction takes 2 µs to hash
        key = ("percentiles", asked, self._place(first, last, cut, start_us, end_us))
        known = self._recall(key)
        if known is not None:
            return list(known)
        chunks = self._chunks.chunks
        columns = [(chunk.values, chunk.sample) for chunk in chunks[first:last]]
        unsorted = [late.columns()[1] for chunk in chunks[first:last] if (late := chunk.late)]
        for i in cut:
            chosen = chunks[i].select_sorted(start_us, end_us)
            columns.append((chosen, _sample(chosen, i)))
            late = chunks[i].late
            if late is not None:
                unsorted.append(late.columns()[1][late.inside(start_us, end_us)])
        tail = self._ordered_tail()
        unsorted.append(tail.between(*tail.positions(start_us, end_us)))
        # The late events are not settled for a question, which would stall it: sorting them all costs 10 ns each.
        loose = np.sort(np.concatenate(unsorted))
        columns.append((loose, _sample(loose, len(chunks))))
        columns = [column for column in columns if len(column[0])]
        n = sum(len(column) for column, _ in columns)
        answer = _percentiles(n, lambda ranks: _values_at(columns, n, ranks), ps)
        self._remember(key, tuple(answer))
        return answer

    def sketches(self, start_us: int | None, end_us: int | None) -> list[Sketch]:
        """Sketches that together are the range's, at level 0 and not bounded, to be merged without the lock.

        About 1 µs a chunk, and for the cut ones and the tail up to 0.1 ms each.
        """
        start_us, end_us = _bounds(start_us, end_us)
        if start_us >= end_us:
            return []
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        parts = []
        loose = [_NO_VALUES]
        for chunk in self._chunks.chunks[first:last]:
            parts.append(Sketch(0, chunk.buckets()))
            if chunk.late:
                loose.append(chunk.late.columns()[1])
        for i in cut:
            chunk = self._chunks.chunks[i]
            parts.append(Sketch(0, count_values(chunk.select_sorted(start_us, end_us), in_order=True)))
            if chunk.late:
                loose.append(chunk.late.columns()[1][chunk.late.inside(start_us, end_us)])
        tail = self._ordered_tail()
        loose.append(tail.between(*tail.positions(start_us, end_us)))
        parts.append(Sketch(0, count_values(np.concatenate(loose))))
        return parts

    def slice_end_us(self, chunks: int) -> int:
        """An instant after the first event, with about so many chunks before it; MAX_TS_US + 1 when there are fewer.

        Where more of them begin at one instant there is no such one among them.
        """
        starts = self._chunks.starts
        at = bisect_right(starts, starts[0], chunks) if len(starts) > chunks else len(starts)
        return starts[at] if at < len(starts) else MAX_TS_US + 1

    def steps(self, start_us: int, step_us: int, n_steps: int) -> list[Summary]:
        """The summaries of n_steps ranges of step_us each, one after another from start_us on, for a chart.

        One pass: O(steps) for the chunks that lie inside a step, some 20 ns an event for those that do not. Raises
        ValueError for a step that is not positive.
        """
        if step_us <= 0:
            raise ValueError(f"step_us must be positive, not {step_us}")
        parts: list[list[Summary]] = [[] for _ in range(n_steps)]
        end_us = start_us + step_us * n_steps
        chunks, starts = self._chunks.chunks, self._chunks.starts

        def cut(columns: Columns) -> None:
            ts_us, values = columns
            first = max((int(ts_us[0]) - start_us) // step_us, 0)
            last = min((int(ts_us[-1]) - start_us) // step_us + 1, n_steps)
            edges = [min(max(start_us + step_us * i, MIN_TS_US), MAX_TS_US + 1) for i in range(first, last + 1)]
            for i, (a, b) in enumerate(pairwise(ts_us.searchsorted(edges).tolist()), first):
                if a < b:
                    parts[i].append(Summary.of(values[a:b]))

        i = max(bisect_left(starts, start_us) - 1, 0)
        while i < len(chunks) and starts[i] < end_us:
            step = (starts[i] - start_us) // step_us
            # Chunks up to the one in which the step ends, which is left out: its last stamp is not known to be inside.
            whole = bisect_left(starts, start_us + (step + 1) * step_us, i + 1) - 1
            if step >= 0 and whole > i:
                parts[step].append(self._chunks.run(i, whole))
                i = whole
            else:
                cut(chunks[i].piece().columns())
                i += 1
        if self._tail.n:
            cut(self._ordered_tail().columns())
        return [combine(*part) for part in parts]

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
        ts_us: list[TimestampsUs] = [_NO_TS]
        values: list[Values] = [_NO_VALUES]
        bounds = _bounds(start_us, end_us)
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
        bounds = _bounds(start_us, end_us)
        pieces = list(self._pieces(*bounds, newest_first))
        pieces.reverse()

        def walk() -> Iterator[Columns]:
            while pieces:
                ts_us, values = _cut_columns(pieces.pop(), *bounds, newest_first)
                if len(ts_us):
                    ts_us.flags.writeable = values.flags.writeable = False
                    yield ts_us, values

        return walk()

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
        arrays: list[NDArray[Any]] = [self._tail.ts_us, self._tail.values, self._chunks._lows, self._chunks._highs]
        for chunk in self._chunks.chunks:
            arrays += [chunk.ts_us, chunk.values, chunk.rank, chunk.sample]
            if chunk.cumulative:
                arrays.append(chunk.cumulative.digits)
            if chunk._buckets is not None:
                arrays.append(chunk._buckets)
            if chunk.late:
                arrays += [chunk.late.ts_us, chunk.late.values]
        # An array object takes 112 bytes, a chunk with its sums and its entries in the lists some 1,600, a timeline
        # 400.
        return sum(array.nbytes + 112 for array in arrays) + 1_600 * len(self._chunks.chunks) + 400

    def check_invariants(self) -> None:
        """Raise AssertionError, saying what and where, unless everything in here agrees. O(events); for tests."""
        chunks, tail = self._chunks.chunks, self._tail
        self._chunks.check_invariants(self._tail_from_us)
        held = sum(map(len, chunks)) + tail.n
        _require(held == self._n, f"{held} events are held, {self._n} are counted")
        _require(tail.n < self._chunk_events, f"the tail of {tail.n} should have been sealed")
        _require(bool(chunks) or self._tail_from_us == MIN_TS_US, "no chunk, but the tail has a lower bound")
        _require(_NO_CHUNKS.chunks == [], "the shared empty list of chunks was written to")
        ts_us, values = tail.columns()
        _require(bool((ts_us >= self._tail_from_us).all()), "the tail holds an event from before its lower bound")
        if tail.in_order:
            _require(bool((ts_us[1:] >= ts_us[:-1]).all()), "the tail says it is in order, but is not")
        _require(not tail.n or tail.last_ts_us == ts_us.max(), "the tail's last stamp is not the one it names")
        _require(tail._sums == scaled_sums(values[: tail._summed]), "the tail's sums do not add up")

    # -- the rest is private; caller holds Store._lock ----------------------------------------------------------------

    def _ordered_tail(self) -> _Buffer:
        """The tail, sorted if late events have come into it since the last question."""
        if not self._tail.in_order:
            self._tail = self._tail.in_time_order()
        return self._tail

    def _pieces(self, start_us: int, end_us: int, newest_first: bool) -> Iterator[_Piece]:
        """The chunks that may hold events of the range, and the tail."""
        if start_us >= end_us:
            return
        starts = self._chunks.starts
        chunks = self._chunks.chunks[max(bisect_left(starts, start_us) - 1, 0) : bisect_left(starts, end_us)]
        with_tail = self._tail.n > 0 and end_us > self._tail_from_us
        if newest_first:
            if with_tail:
                yield _Piece(*self._ordered_tail().columns(), None)
            yield from (chunk.piece() for chunk in reversed(chunks))
        else:
            yield from (chunk.piece() for chunk in chunks)
            if with_tail:
                yield _Piece(*self._ordered_tail().columns(), None)

    def _place(self, first: int, last: int, cut: list[int], start_us: int, end_us: int) -> tuple[int, ...]:
        """What the answer to a range hangs on, until something changes: a window that slid past no event has the
        same.
        """
        place: tuple[int, ...] = (first, last, *self._ordered_tail().positions(start_us, end_us))
        for i in cut:
            chunk = self._chunks.chunks[i]
            if chunk.late:
                return start_us, end_us
            place += chunk.positions(start_us, end_us)
        return place

    def _recall(self, key: tuple[Any, ...]) -> Any:
        return self._memo.get(key) if self._memo else None

    def _remember(self, key: tuple[Any, ...], answer: Any) -> None:
        if self._n <= _UNSUMMED:
            return
        if self._memo is None or len(self._memo) >= _MEMO_ENTRIES:
            self._memo = {}
        self._memo[key] = answer


_NO_CHUNKS = _Chunks(CHUNK_EVENTS)  # of every timeline that has none; never written to


def _bounds(start_us: int | None, end_us: int | None) -> tuple[int, int]:
    """The range as two plain integers, within what a stamp can be."""
    start = MIN_TS_US if start_us is None else max(int(start_us), MIN_TS_US)
    end = MAX_TS_US + 1 if end_us is None else min(int(end_us), MAX_TS_US + 1)
    return start, end


def _add(a: _Sums, b: _Sums) -> _Sums:
    return a[0] + b[0], a[1] + b[1]


def _subtract(a: _Sums, b: _Sums) -> _Sums:
    return a[0] - b[0], a[1] - b[1]


def _merge(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Two sorted arrays as one, a's elements before equal ones of b, and where b's and a's elements are in it."""
    b_at = a.searchsorted(b, side="right") + np.arange(len(b))
    of_a = np.ones(len(a) + len(b), np.bool_)
    of_a[b_at] = False
    a_at = np.flatnonzero(of_a)
    merged = np.empty(len(of_a), a.dtype)
    merged[a_at] = a
    merged[b_at] = b
    return merged, b_at, a_at


def _cut_columns(piece: _Piece, start_us: int, end_us: int, newest_first: bool) -> Columns:
    """The events of a piece inside the range, in order; views where its own arrays are in order already."""
    ts_us, values = piece.columns()
    first, last = ts_us.searchsorted((start_us, end_us)).tolist()
    way = slice(None, None, -1) if newest_first else slice(None)
    return ts_us[first:last][way], values[first:last][way]


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


class StepDetails(NamedTuple):
    """What a step's summary does not tell: the values of its first and last event, and percentiles ([] if empty)."""

    first: float | None
    last: float | None
    percentiles: list[float]


def step_details(
    pieces: Iterable[Columns], start_us: int, step_us: int, n_steps: int, ps: Sequence[Percent]
) -> list[StepDetails]:
    """The details of n_steps steps of step_us each from start_us on, out of the pieces of a `snapshot`.

    The last step takes whatever comes after it too. O(events), about 15 ns each with percentiles; needs no lock, and
    the memory of one step's values.
    """
    details = [StepDetails(None, None, [])] * n_steps
    later_edges = start_us + step_us * np.arange(1, n_steps)
    step, held = 0, [_NO_VALUES]

    def finish() -> None:
        values = np.concatenate(held)
        if len(values):
            first, last = float(values[0]), float(values[-1])
            details[step] = StepDetails(first, last, _percentiles(len(values), partial(_select, values), ps))

    for ts_us, values in pieces:
        steps = later_edges.searchsorted(ts_us[[0, -1]], side="right").tolist()
        inner = ts_us.searchsorted(later_edges[steps[0] : steps[1]]).tolist()
        for at, (a, b) in enumerate(pairwise([0, *inner, len(ts_us)]), steps[0]):
            if a == b:
                continue
            if at != step:
                finish()
                step, held = at, [_NO_VALUES]
            held.append(values[a:b])
    finish()
    return details


# -- percentiles ------------------------------------------------------------------------------------------------------


def _sample(values: Values, stagger: int) -> Values:
    """Every 64th of sorted values; where it begins depends on `stagger`, else it would rank values too low."""
    return values[stagger * 37 % _SAMPLE_STEP :: _SAMPLE_STEP].copy()


def _percentiles(n: int, values_at: Callable[[list[int]], dict[int, float]], ps: Sequence[Percent]) -> list[float]:
    """The percentiles of n values; `values_at` looks some up by rank (sorted, from 0)."""
    if n == 0 or not ps:
        return []
    places = [percentile_place(p, n) for p in ps]
    wanted = {lower for lower, _, _ in places} | {lower + 1 for lower, part, _ in places if part}
    at = values_at(sorted(wanted))
    return [interpolate(at[lower], at[lower + 1], part, of) if part else at[lower] + 0.0 for lower, part, of in places]


def _values_at(columns: list[tuple[Values, Values]], n: int, ranks: list[int]) -> dict[int, float]:
    """The values at the given ranks (sorted, from 0) among the n values of all columns.

    The samples together hold every 64th value, and each column's sample is off by less than one step, in a direction
    that differs from column to column. So a rank's place in the partitioned sample gives two pivots that very likely
    enclose it, and only the values between them, a few thousand, are looked at. Whether they did is counted, by
    binary search in
    every column; if not, the pivots are set further apart. The idea is that of Floyd & Rivest's SELECT (1975).
    """
    if n <= _PARTITION_ALL:
        return _select(np.concatenate([values for values, _ in columns]), ranks)
    sample = np.concatenate([sample for _, sample in columns])
    # A place is off by the sum of the columns' errors: 0.29 sqrt(columns) steps is their standard deviation, if the
    # starts
    # of the samples are as good as random. 3.4 of that, and a little, seldom need a second try.
    margin = 2 + isqrt(len(columns))
    found: dict[int, float] = {}
    while len(found) < len(ranks):
        _narrow(columns, sample, [rank for rank in ranks if rank not in found], margin, found)
        margin *= 8
    return found


def _select(values: Values, ranks: list[int]) -> dict[int, float]:
    """The values at the given ranks; `values` are moved about."""
    values.partition(ranks)
    return {rank: float(values[rank]) for rank in ranks}


def _narrow(
    columns: list[tuple[Values, Values]], sample: Values, ranks: list[int], margin: int, found: dict[int, float]
) -> None:
    """Add to `found` the values at those ranks that lie within `margin` sampled values of where they are expected."""
    # Neighbours share a pair of pivots: every percentile wants two ranks next to each other.
    groups: list[list[int]] = []
    for rank in ranks:
        if groups and rank - groups[-1][-1] <= _SAMPLE_STEP:
            groups[-1].append(rank)
        else:
            groups.append([rank])
    # Columns shorter than a step may have no sampled value, so the sample may be shorter than n / 64.
    places = [
        (min(group[0] // _SAMPLE_STEP - margin, len(sample) - 1), group[-1] // _SAMPLE_STEP + margin + 1)
        for group in groups
    ]
    inner = sorted({place for pair in places for place in pair if 0 <= place < len(sample)})
    if inner:
        sample.partition(inner)
    pivots = [
        (float(sample[low]) if low >= 0 else -inf, float(sample[high]) if high < len(sample) else inf)
        for low, high in places
    ]
    # The values strictly between low and high begin at searchsorted(nextafter(low)) and end at searchsorted(high), so
    # one
    # call a column does for all. In a long run of equal values the pivots are equal, and the run itself is asked for.
    keys = [_band(low, high) if low < high else _band(low, high)[::-1] for low, high in pivots]
    below = _below(columns, keys)
    totals = below.sum(axis=0).tolist()
    strays: list[tuple[float, list[int]]] = []
    for g, (group, (low, high)) in enumerate(zip(groups, pivots, strict=True)):
        first, last = totals[2 * g], totals[2 * g + 1]
        inside = [rank for rank in group if first <= rank < last]
        if low == high:
            found.update((rank, low) for rank in inside)
            continue
        if inside:
            edges = below[:, 2 * g : 2 * g + 2].tolist()
            middle = np.concatenate([values[a:b] for (values, _), (a, b) in zip(columns, edges, strict=True) if a < b])
            places = [rank - first for rank in inside]
            middle.partition(places)
            found.update((rank, float(middle[place])) for rank, place in zip(inside, places, strict=True))
        # A rank outside is in a run of values equal to a pivot, or the pivots have missed it.
        if group[0] < first:
            strays.append((low, [rank for rank in group if rank < first]))
        if group[-1] >= last:
            strays.append((high, [rank for rank in group if rank >= last]))
    if strays:
        runs = _below(columns, [_band(pivot, pivot)[::-1] for pivot, _ in strays]).sum(axis=0).reshape(-1, 2).tolist()
        for (pivot, outside), (first, last) in zip(strays, runs, strict=True):
            found.update((rank, pivot) for rank in outside if first <= rank < last)


def _band(low: float, high: float) -> tuple[float, float]:
    return nextafter(low, inf), high


def _below(columns: list[tuple[Values, Values]], keys: list[tuple[float, float]]) -> NDArray[np.int64]:
    """How many values are less than each key, column by column."""
    flat = np.array(keys).ravel()
    return np.array([values.searchsorted(flat) for values, _ in columns])


def _require(holds: bool, else_message: str) -> None:
    """assert, but also under python -O."""
    if not holds:
        raise AssertionError(else_message)
