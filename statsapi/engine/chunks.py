"""The sealed part of a series: chunks of sorted numpy columns, and prefix sums over the chunks.

A sealed chunk is three columns, 18 bytes an event:

    ts      int64, time-sorted; equal stamps in order of arrival
    values  float64, sorted by value
    rank    uint16: values[i] happened at position rank[i] in time

Sorted values make percentiles fast and the extremes free. A cut keeps values[rank >= k]. The sums of what a cut keeps
start from the previous cut, or from the nearest of 64 positions whose sums were noted when the chunk was sealed
(`exact.CumulativeSums`).

A late event, say 10:00:05 when chunks start at 10:00:00, 10:00:07 and 10:00:19 and the tail at 10:00:31: `starts` sends
it to the first chunk, where it is appended to that chunk's `late` buffer, in order of arrival. Prefix sums from that
chunk on are cut off. The next question sums the one late value, adds it to the chunk's total and extends the prefix
sums again; where an edge cuts this chunk, all stamps of the buffer are compared. A buffer that holds about a quarter
of a chunk is merged into new sorted columns. The exact size lies between an eighth and three eighths and differs from
chunk to chunk, so that chunks which fill together are not all merged at once. A chunk of more than twice the usual size
is then split as well.

No locks, no clock, no I/O. The caller holds Store._lock; a FrozenChunk may be read without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.counted import COLUMN_NUMBERS, CutColumn, SortedColumn, ranked_in
from statsapi.engine.exact import CumulativeSums, scaled_sums
from statsapi.engine.percentiles import sample_of, sampled_from
from statsapi.engine.sketch import MAX_BUCKETS, Buckets, count_values
from statsapi.engine.summary import Fields, add_fields, fields_of
from statsapi.model import MAX_TS_US, MIN_TS_US, TimestampsUs, Values

# Ranks are uint16, and a chunk splits only past twice its size.
MAX_CHUNK_EVENTS = 2**15 - 1

# A sealed chunk notes its sums before this many positions, so a cut has 32 values to sum on average. Noting them takes
# 30 µs a chunk and 0.7 bytes an event.
_SUMS_NOTED = 64

# Where a cut keeps a tenth of a chunk, none of 64 values at an end is kept once in 800 times.
_NEAR_ENDS = 64

# A cut moves by a few events from one question to the next. This many values from where it was on are kept in order of
# time, so that their places are looked for once in a while only, which takes 10 µs. 512 bytes a chunk that is cut.
_NEAR_CUT = 64

# This many cuts of a series' chunks are remembered, the latest: a span and the one before it cut three times.
_CUTS_REMEMBERED = 4

# Up to this share of a chunk are put in order of time by themselves: half of it takes 26 µs, all of it 63, few 18.
_FEW_SHARE = 2

# A buffer this short is summed anew for each question, in some 10 µs, and keeps no sums: their integers would be half
# the memory of a series of ten events.
UNSUMMED_EVENTS = 32

NO_TS: TimestampsUs = np.empty(0, np.int64)
NO_VALUES: Values = np.empty(0, np.float64)

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
            known = self.nearest_known(k)
            if abs(k - known) < abs(k - self._marked):
                self._marked, self._mark = known, self.sums_at(known)
            if k > self._marked:
                self._mark = _add(self._mark, scaled_sums(self.between(self._marked, k)))
            else:
                self._mark = _subtract(self._mark, scaled_sums(self.between(k, self._marked)))
            self._marked = k
        return self._mark

    def nearest_known(self, k: int) -> int:
        """The place nearest to k whose sums are known anyway."""
        n = self.time_ordered
        return 0 if k <= n - k else n

    def sums_at(self, place: int) -> _Sums:
        """The sums before a `nearest_known`."""
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


class Buffer(_SumsBefore):
    """Events in order of arrival, in two columns that grow: the open tail, and each chunk's late events.

    What has been written is never written again, so a view of the first n stays true while more are appended.
    """

    __slots__ = ("_sorted", "_whole", "in_order", "last_ts_us", "n", "ts_us", "values")

    def __init__(self, ts_us: TimestampsUs = NO_TS, values: Values = NO_VALUES) -> None:
        super().__init__()
        self.ts_us = ts_us
        self.values = values
        self.n = len(ts_us)
        self.in_order = True  # kept up for a tail only, by Timeline
        self.last_ts_us = int(ts_us[-1]) if self.n else MIN_TS_US
        self._whole: Fields | None = None  # of the first events: all there were when it was last asked for
        self._sorted: tuple[int, int, SortedColumn] | None = None  # the values of some positions, see `sorted_and_rest`

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
        if self.n:
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
        first = 0 if not self.n or start_us <= ts_us.item(0) else int(ts_us.searchsorted(start_us))
        last = self.n if end_us > self.last_ts_us else int(ts_us.searchsorted(end_us))
        return first, last

    def without(self, start_us: int, end_us: int) -> Buffer:
        """A copy that lacks the events in [start_us, end_us), with no room to spare."""
        keep = ~self.inside(start_us, end_us)
        ts_us, values = self.columns()
        return Buffer(ts_us[keep], values[keep])

    def in_time_order(self) -> Buffer:
        """A copy in order of time, then of arrival, which knows the sums already."""
        ts_us, values = self.columns()
        order = ts_us.argsort(kind="stable")
        ordered = Buffer(ts_us[order], values[order])
        if self.n > UNSUMMED_EVENTS:
            ordered._whole = self.whole()
        return ordered

    def fields(self, first: int, last: int) -> Fields:
        """Those of the summary of the events at positions first to last; first < last."""
        if self.n <= UNSUMMED_EVENTS:
            return fields_of(self.values[first:last])
        if last - first == self.n:
            return self.whole()
        values = self.values[first:last]
        low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
        return last - first, low, high, *self.sums_between(first, last)

    def whole(self) -> Fields:
        """Those of the summary of all events, of which there are some; only those since the last call are looked at."""
        whole = self._whole
        if whole is None:
            whole = self._whole = fields_of(self.values[: self.n])
        elif whole[0] < self.n:
            whole = self._whole = add_fields(whole, fields_of(self.values[whole[0] : self.n]))
        return whole

    @property
    def time_ordered(self) -> int:
        return self.n

    def whole_sums(self) -> _Sums:
        return self.whole()[3:] if self.n else (0, 0)

    def between(self, first: int, last: int) -> Values:
        return self.values[first:last]

    def sorted_and_rest(self, first: int, last: int, most: int, stagger: int) -> tuple[SortedColumn | None, Values]:
        """The values at positions first to last: sorted, but for the last ones, at most `most`, which came since.

        What is sorted is remembered while more are appended: sorting takes 20 ns a value. Nothing is where all are few.
        """
        if last - first <= most:
            return None, self.values[first:last]
        known = self._sorted
        if known is None or known[0] != first or not last - most <= known[1] <= last:
            ordered = np.sort(self.values[first:last])
            column = SortedColumn(ordered, sample_of(ordered, stagger), next(COLUMN_NUMBERS))
            known = self._sorted = first, last, column
        return known[2], self.values[known[1] : last]

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Every array held."""
        yield from (self.ts_us, self.values)
        if self._sorted is not None:
            yield from self._sorted[2][:2]

    def check_invariants(self) -> None:
        """Raise AssertionError unless a tail's order, last stamp and sums agree with its events."""
        ts_us, values = self.columns()
        if self.in_order:
            require(bool((ts_us[1:] >= ts_us[:-1]).all()), "the tail says it is in order, but is not")
        require(not self.n or self.last_ts_us == ts_us.max(), "the tail's last stamp is not the one it names")
        whole = self._whole
        require(whole is None or whole == fields_of(values[: whole[0]]), "the tail's sums do not add up")
        first, last, column = self._sorted or (0, 0, SortedColumn(NO_VALUES, NO_VALUES))
        require(np.array_equal(column.values, np.sort(values[first:last])), "the tail's sorted values are others")


def _few_by_time(values: Values, rank: NDArray[np.uint16], first: int, last: int) -> Values:
    """Of sorted values those at ranks [first, last), in order of time; first < last."""
    at = ranked_in(rank, first, last).nonzero()[0]  # few among many: np.compress takes three times as long
    by_time = np.empty(len(at))
    by_time[rank[at] - np.uint16(first)] = values[at]
    return by_time


class FrozenChunk(NamedTuple):
    """The arrays of one chunk, or of the tail, as they were when it was made: none of them is ever changed."""

    ts_us: TimestampsUs
    values: Values
    rank: NDArray[np.uint16] | None  # None: values are in order of time already
    late: Columns = (NO_TS, NO_VALUES)
    sample: Values = NO_VALUES  # of sorted values

    def in_time_order(self) -> FrozenChunk:
        """The same, but for `values`, which are put in order of time. 60 µs."""
        by_time = np.empty_like(self.values)
        by_time[self.rank] = self.values
        return FrozenChunk(self.ts_us, by_time, None, self.late)

    def few_columns(self, start_us: int, end_us: int) -> Columns | None:
        """Its events in [start_us, end_us), as `columns` has them, where these are few: 10 µs. None else."""
        if self.rank is None or len(self.late[0]):
            return None
        first, last = self.ts_us.searchsorted((start_us, end_us)).tolist()
        if (last - first) * _FEW_SHARE > len(self.ts_us):
            return None
        values = _few_by_time(self.values, self.rank, first, last) if first < last else NO_VALUES
        return self.ts_us[first:last], values

    def columns(self) -> Columns:
        """Its events in order of time, then of arrival. The arrays may be the chunk's own: not to be changed."""
        if self.rank is None:
            return self.ts_us, self.values
        by_time = self.in_time_order().values
        late_ts_us, late_values = self.late
        if not len(late_ts_us):
            return self.ts_us, by_time
        # Late events arrived after those that are sorted in: a stable sort puts them behind equal stamps.
        ts_us = np.concatenate((self.ts_us, late_ts_us))
        order = ts_us.argsort(kind="stable")
        return ts_us[order], np.concatenate((by_time, late_values))[order]


class Place(NamedTuple):
    """Where other processes find a chunk's arrays: in that file, from that byte on."""

    file: str
    at: int


class SealedColumns(NamedTuple):
    """What of a chunk is never changed."""

    ts_us: TimestampsUs
    values: Values
    rank: NDArray[np.uint16]
    sample: Values
    cumulative: CumulativeSums | None
    buckets: Buckets | None
    sums: _Sums
    sampled_from: int
    merge_at: int


class Chunk(_SumsBefore):
    """Sorted columns that are never changed, their sums, and a buffer of late events."""

    __slots__ = (
        "_buckets",
        "_extremes_at",
        "_near_cut",
        "_near_from",
        "_positions",
        "column",
        "cumulative",
        "late",
        "merge_at",
        "place",
        "rank",
        "sampled_from",
        "sums",
        "ts_us",
        "values",
    )

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
        # The latest answer of `positions`, which each question asks for several times, and of `_extremes`.
        self._positions: tuple[int, int, int, int] | None = None
        self._extremes_at = 0, len(values), 0, len(values) - 1
        self._near_from = 0
        self._near_cut = NO_VALUES
        self.cumulative = cumulative  # of the sorted columns in order of time, where they cost nothing to make
        self.ts_us = ts_us
        self.values = values
        self.rank = rank
        self.sums = sums  # of the sorted columns
        # Chunks that all began their samples at 0 would rank each sampled value half a step too low.
        self.column = SortedColumn(values, sample_of(values, stagger), next(COLUMN_NUMBERS))
        self.sampled_from = sampled_from(stagger)
        self.late: Buffer | None = None
        self.place: Place | None = None
        # Between an eighth and three eighths, at least 1; 0.618 spreads consecutive numbers evenly.
        self.merge_at = room // 8 + int(stagger * 0.6180339887 % 1.0 * (room // 4)) + 1

    @classmethod
    def seal(cls, ts_us: TimestampsUs, values: Values, stagger: int, room: int) -> Chunk:
        """A chunk of time-ordered columns, which are copied."""
        order = values.argsort()
        cumulative = CumulativeSums.of(values, max(room // _SUMS_NOTED, 1))
        sums = scaled_sums(values) if cumulative is None else cumulative.whole
        chunk = cls(ts_us.copy(), values[order], order.astype(np.uint16), sums, stagger, room, cumulative)
        chunk.buckets()  # now, when it costs an insertion 5 ns an event, and not while a whole minute is rolled up
        return chunk

    @classmethod
    def of(cls, columns: SealedColumns, place: Place) -> Chunk:
        """The chunk that `sealed` was asked of, without its late events. 10 µs: nothing is looked at or copied."""
        chunk = cls.__new__(cls)
        _SumsBefore.__init__(chunk)
        chunk.late = None
        chunk._positions = None
        chunk._extremes_at = 0, len(columns.values), 0, len(columns.values) - 1
        chunk._near_from = 0
        chunk._near_cut = NO_VALUES
        chunk.sums = columns.sums
        chunk.sampled_from = columns.sampled_from
        chunk.merge_at = columns.merge_at
        chunk._take(columns, place, next(COLUMN_NUMBERS))
        return chunk

    def sealed(self) -> SealedColumns:
        """All of it but the late events: arrays that are never changed."""
        return SealedColumns(
            self.ts_us,
            self.values,
            self.rank,
            self.column.sample,
            self.cumulative,
            self._buckets,
            self.sums,
            self.sampled_from,
            self.merge_at,
        )

    def move_to(self, columns: SealedColumns, place: Place) -> None:
        """Hold these arrays, which equal its own, in place of them. What was counted in its values stays true."""
        self._take(columns, place, self.column.number)

    def _take(self, columns: SealedColumns, place: Place, number: int) -> None:
        self.ts_us, self.values, self.rank = columns.ts_us, columns.values, columns.rank
        self.column = SortedColumn(columns.values, columns.sample, number)
        self.cumulative = columns.cumulative
        self._buckets = columns.buckets
        self.place = place

    def __len__(self) -> int:
        return len(self.ts_us) + (self.late.n if self.late else 0)

    def whole(self) -> Fields:
        """Those of the summary of everything, late events included."""
        fields = len(self.values), float(self.values[0]), float(self.values[-1]), *self.sums
        return fields if self.late is None else add_fields(fields, self.late.whole())

    def positions(self, start_us: int, end_us: int) -> tuple[int, int]:
        """Where [start_us, end_us) begins and ends among the sorted events."""
        known = self._positions
        if known is not None and known[0] == start_us and known[1] == end_us:
            return known[2], known[3]
        first = int(self.ts_us.searchsorted(start_us)) if start_us > MIN_TS_US else 0
        last = int(self.ts_us.searchsorted(end_us)) if end_us <= MAX_TS_US else len(self.ts_us)
        self._positions = start_us, end_us, first, last
        return first, last

    def count(self, start_us: int, end_us: int) -> int:
        first, last = self.positions(start_us, end_us)
        return last - first + (int(np.count_nonzero(self.late.inside(start_us, end_us))) if self.late else 0)

    def fields(self, start_us: int, end_us: int) -> list[Fields]:
        """Those of the summaries of the sorted events in [start_us, end_us), and of the late ones, if there are any."""
        first, last = self.positions(start_us, end_us)
        some: list[Fields] = []
        if first < last:
            some.append((last - first, *self._extremes(first, last), *self.sums_between(first, last)))
        if self.late is not None:
            late = self.late.columns()[1][self.late.inside(start_us, end_us)]
            if len(late):
                some.append(fields_of(late))
        return some

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
        if last - first == len(self.values):
            return self.values
        return self._sorted_between(first, last) if first < last else NO_VALUES

    def cut_column(self, start_us: int, end_us: int) -> CutColumn | None:
        """What `select_sorted` gives, but not copied; None where there is none. 1 µs."""
        first, last = self.positions(start_us, end_us)
        if first >= last:
            return None
        return CutColumn(self.column, self.rank, first, last, self.sampled_from, self._near_from, self._near_cut)

    def _extremes(self, first: int, last: int) -> tuple[float, float]:
        """The least and the greatest of the values at positions first to last in time; first < last."""
        rank = self.rank
        known_first, known_last, least, greatest = self._extremes_at
        # The extreme of a range is that of each smaller one which it lies in.
        smaller = known_first <= first and last <= known_last
        if not smaller or not first <= rank.item(least) < last:
            least = _first_ranked(rank, first, last)
        if not smaller or not first <= rank.item(greatest) < last:
            greatest = len(rank) - 1 - _first_ranked(rank[::-1], first, last)
        self._extremes_at = first, last, least, greatest
        return self.values.item(least), self.values.item(greatest)

    @property
    def time_ordered(self) -> int:
        return len(self.ts_us)

    def whole_sums(self) -> _Sums:
        return self.sums

    def nearest_known(self, k: int) -> int:
        if self.cumulative is None:
            return super().nearest_known(k)
        step = self.cumulative.step
        return min((k + step // 2) // step * step, self.time_ordered)

    def sums_at(self, place: int) -> _Sums:
        if self.cumulative is None or not 0 < place < self.time_ordered:
            return super().sums_at(place)
        return self.cumulative.before(place)

    def between(self, first: int, last: int) -> Values:
        if first >= last:
            return NO_VALUES
        if last - first <= _NEAR_CUT:
            return self._between_near(first, last)
        return self._sorted_between(first, last)

    def _sorted_between(self, first: int, last: int) -> Values:
        """Those at positions first to last in time, sorted by value; first < last."""
        return np.compress(ranked_in(self.rank, first, last), self.values)  # values[mask] takes twice as long

    def _between_near(self, first: int, last: int) -> Values:
        """Those of at most _NEAR_CUT events, 1 to that many, in order of time."""
        near_from = self._near_from
        if not near_from <= first <= last <= near_from + len(self._near_cut):
            self._near_from = near_from = first
            self._near_cut = _few_by_time(self.values, self.rank, first, first + _NEAR_CUT)
        return self._near_cut[first - near_from : last - near_from]

    def frozen(self) -> FrozenChunk:
        if self.late is None:
            return FrozenChunk(self.ts_us, self.values, self.rank, sample=self.column.sample)
        return FrozenChunk(self.ts_us, self.values, self.rank, self.late.columns(), self.column.sample)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Every array held."""
        yield from (self.ts_us, self.rank, *self.column[:2])
        if self.cumulative:
            yield self.cumulative.digits
        if self._buckets is not None:
            yield self._buckets
        yield self._near_cut
        if self.late:
            yield from (self.late.ts_us, self.late.values)

    def merged(self, stagger: int, room: int) -> list[Chunk]:
        """Chunks of `room` to 2·room events which hold the same, the late ones sorted in. O(n)."""
        late = self.late
        if late is None:
            return [self]
        if len(self) > 2 * room:
            ts_us, values = self.frozen().columns()
            pieces = len(self) // room
            edges = [len(self) * i // pieces for i in range(pieces + 1)]
            return [Chunk.seal(ts_us[a:b], values[a:b], stagger + i, room) for i, (a, b) in enumerate(pairwise(edges))]
        # Merging two sorted runs, in time and in value, takes a third of the time of sorting the whole anew.
        late_ts_us, late_values = late.columns()
        order = late_ts_us.argsort(kind="stable")
        late_ts_us, late_values = late_ts_us[order], late_values[order]
        ts_us, late_at, sorted_at = _merge_sorted(self.ts_us, late_ts_us)
        by_value = late_values.argsort()
        values, late_in, sorted_in = _merge_sorted(self.values, late_values[by_value])
        rank = np.empty(len(values), np.uint16)
        rank[late_in] = late_at[by_value]
        rank[sorted_in] = sorted_at.astype(np.uint16)[self.rank]
        return [Chunk(ts_us, values, rank, _add(self.sums, late.whole_sums()), stagger, room)]

    def without(self, start_us: int, end_us: int, stagger: int, room: int) -> Chunk | None:
        """A chunk that lacks the events in [start_us, end_us); None when there is none left."""
        first, last = self.positions(start_us, end_us)
        late = self.late.without(start_us, end_us) if self.late else None
        if last - first == len(self.ts_us):
            # A chunk is never without sorted events; the late ones take their place.
            if late is None or not late.n:
                return None
            order = late.columns()[0].argsort(kind="stable")
            return Chunk.seal(late.ts_us[order], late.values[order], stagger, room)
        if first < last:
            keep = ~ranked_in(self.rank, first, last)
            ts_us = np.concatenate((self.ts_us[:first], self.ts_us[last:]))
            rank = self.rank[keep]
            rank[rank >= last] -= np.uint16(last - first)
            sums = _subtract(self.sums, self.sums_between(first, last))
            kept = Chunk(ts_us, self.values[keep], rank, sums, stagger, room)
        else:
            kept = Chunk(self.ts_us, self.values, self.rank, self.sums, stagger, room, self.cumulative, self._buckets)
        if late is not None and late.n:
            kept.late = late
            kept.merge_at = self.merge_at  # another one may be passed already
        return kept


def _first_ranked(rank: NDArray[np.uint16], first: int, last: int) -> int:
    """The place of the first rank in [first, last); there is one."""
    # It is nearly always among the first few, and looking through all ranks takes 5 µs.
    for some in (rank[:_NEAR_ENDS], rank):
        inside = ranked_in(some, first, last)
        at = int(inside.argmax())
        if inside[at]:
            break
    return at


_FIRST_NUMBERS = count()


class Chunks:
    """The sealed chunks in order of time, with prefix sums over them.

    starts[i] <= every stamp in chunk i <= starts[i + 1]. A stamp that stands on such a boundary may be on both sides,
    the earlier arrivals to the left.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.chunks: list[Chunk] = []
        self.starts: list[int] = []
        # Numbers the chunks, which staggers their samples and settling. Series begin at different numbers, as a union
        # of a thousand has a thousand first chunks.
        self._made = next(_FIRST_NUMBERS)
        # The latest cuts asked for by `cut_column`, and what they keep, copied, if asked for twice.
        self._cuts: dict[tuple[Chunk, int, int], SortedColumn | None] = {}
        self._forget()

    def _forget(self, chunk: int = 0) -> None:
        """Cut the prefix sums off before `chunk`, which is about to change."""
        if chunk == 0:
            # Entry i is about chunks 0 to i - 1, all relative to some base: only differences count.
            self._counts, self._totals, self._squares = [0], [0], [0]
            self._lows = self._highs = NO_VALUES
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
            added, low, high, sum_scaled, sum_squares_scaled = self.chunks[i].whole()
            self._counts.append(count := count + added)
            self._totals.append(total := total + sum_scaled)
            self._squares.append(squares := squares + sum_squares_scaled)
            self._lows[i] = low
            self._highs[i] = high

    @classmethod
    def of(cls, room: int, chunks: list[Chunk], starts: list[int]) -> Chunks:
        """These chunks, each with a start that is not after its first stamp."""
        held = cls(room)
        held.chunks, held.starts = chunks, starts
        held.take_numbers(len(chunks))
        return held

    def take_numbers(self, how_many: int = 1) -> int:
        self._made += how_many
        return self._made - how_many

    def append(self, ts_us: TimestampsUs, values: Values) -> None:
        """Seal time-ordered columns, none earlier than any event here. They are copied."""
        self.chunks.append(Chunk.seal(ts_us, values, self.take_numbers(), self.room))
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
                late = chunk.late = Buffer()
            late.append(ts_us[a:b], values[a:b])
            if late.n >= chunk.merge_at:
                self._merge_late(i)

    def _merge_late(self, i: int) -> None:
        start_us = self.starts[i]
        self._cuts.clear()
        chunks = self.chunks[i].merged(self._made, self.room)
        self.take_numbers(len(chunks))
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

    def cut_column(self, i: int, start_us: int, end_us: int) -> SortedColumn | CutColumn | None:
        """The values of chunk i's sorted events in [start_us, end_us); None without any.

        The first time they are not copied: a span that slides cuts elsewhere each time. When the same cut is asked for
        again they are, which takes 35 µs, and are remembered.
        """
        chunk = self.chunks[i]
        cut = chunk.cut_column(start_us, end_us)
        if cut is None:
            return None
        key = chunk, cut.first, cut.last
        if key not in self._cuts:
            if len(self._cuts) == _CUTS_REMEMBERED:
                del self._cuts[next(iter(self._cuts))]
            self._cuts[key] = None
            return cut
        column = self._cuts[key]
        if column is None:
            values = cut.kept_values()
            column = SortedColumn(values, sample_of(values, self.take_numbers()), next(COLUMN_NUMBERS))
            self._cuts[key] = column
        return column

    def run(self, first: int, last: int) -> Fields:
        """Those of the summary of the whole chunks [first, last); first < last."""
        if last - first == 1:
            return self.chunks[first].whole()
        self._extend(last)
        return (
            self._counts[last] - self._counts[first],
            float(np.minimum.reduce(self._lows[first:last])),
            float(np.maximum.reduce(self._highs[first:last])),
            self._totals[last] - self._totals[first],
            self._squares[last] - self._squares[first],
        )

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Every array held: their memory is counted by `Timeline.nbytes`."""
        yield self._lows
        yield self._highs
        for column in self._cuts.values():
            yield from column[:2] if column else ()
        for chunk in self.chunks:
            yield from chunk.arrays()

    def check_invariants(self, tail_from_us: int) -> None:
        """Raise AssertionError unless chunks, starts and prefix sums agree."""
        chunks, starts = self.chunks, self.starts
        require(len(chunks) == len(starts), f"{len(chunks)} chunks but {len(starts)} starts")
        for (cut, first, last), column in self._cuts.items():
            require(any(cut is chunk for chunk in chunks), "a cut is remembered of a chunk that is gone")
            kept = np.sort(FrozenChunk(cut.ts_us, cut.values, cut.rank).columns()[1][first:last])
            require(column is None or np.array_equal(column[0], kept), f"what {first}, {last} keeps is another")
        for i, (chunk, start_us) in enumerate(zip(chunks, starts, strict=True)):
            ts_us, values = chunk.frozen().columns()
            end_us = starts[i + 1] if i + 1 < len(starts) else tail_from_us
            n = len(chunk.ts_us)
            require(0 < n <= 2 * self.room, f"chunk {i} has {n} sorted events, room is {self.room}")
            require(bool((ts_us[1:] >= ts_us[:-1]).all()), f"chunk {i} is not in order of time")
            require(start_us <= ts_us[0] and ts_us[-1] <= end_us, f"chunk {i} holds events outside its bounds")
            require(bool((chunk.values[1:] >= chunk.values[:-1]).all()), f"chunk {i}'s values are not sorted")
            require(bool((np.sort(chunk.rank) == np.arange(n)).all()), f"chunk {i}'s ranks are not a permutation")
            require(chunk.sums == scaled_sums(chunk.values), f"chunk {i}'s sums do not add up")
            counted = count_values(chunk.values)
            require(np.array_equal(chunk.buckets(), counted), f"chunk {i}'s buckets do not add up")
            require(not chunk.late or 0 < chunk.late.n < chunk.merge_at, f"chunk {i}'s late events should be settled")
            marked = chunk.between(0, chunk._marked)
            require(chunk._mark == scaled_sums(marked), f"chunk {i}'s mark at {chunk._marked} does not add up")
            near = FrozenChunk(chunk.ts_us, chunk.values, chunk.rank).columns()[1][chunk._near_from :][
                : len(chunk._near_cut)
            ]
            require(np.array_equal(chunk._near_cut, near), f"chunk {i}'s values near its last cut are others")
            for place in {chunk.nearest_known(k) for k in range(n + 1)}:
                known = scaled_sums(chunk.between(0, place))
                require(chunk.sums_at(place) == known, f"chunk {i}'s sums before {place} do not add up")
            if i + 1 < len(self._counts):
                entry = (
                    self._counts[i + 1] - self._counts[i],
                    self._lows[i],
                    self._highs[i],
                    self._totals[i + 1] - self._totals[i],
                    self._squares[i + 1] - self._squares[i],
                )
                require(entry == fields_of(values), f"chunk {i}'s entry in the prefix sums does not add up")

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
        kept: list[tuple[int, Chunk]] = []
        removed = 0
        for i in range(first, last):
            chunk = self.chunks[i]
            removed += len(chunk)
            if first < i < last - 1:
                continue
            survivor = chunk.without(start_us, end_us, self.take_numbers(), self.room)
            if survivor is not None:
                removed -= len(survivor)
                kept.append((starts[i] if starts[i] < start_us else max(starts[i], end_us), survivor))
        if not removed:
            return 0
        self._cuts.clear()
        if first == 0 and len(kept) <= 1 and len(self._counts) > last:
            self._forget_front(last, kept[0][1] if kept else None)
        else:
            self._forget(first)
        self.chunks[first:last] = [chunk for _, chunk in kept]
        self.starts[first:last] = [start for start, _ in kept]
        return removed

    def _forget_front(self, last: int, survivor: Chunk | None) -> None:
        """Chunks [0, last) go, but for what `survivor` holds: the prefix sums of those that stay need no change."""
        dropped = last if survivor is None else last - 1
        for prefix in (self._counts, self._totals, self._squares):
            del prefix[:dropped]
        self._lows, self._highs = self._lows[dropped:].copy(), self._highs[dropped:].copy()
        if survivor is not None:
            count, self._lows[0], self._highs[0], total, squares = survivor.whole()
            self._counts[0] = self._counts[1] - count
            self._totals[0] = self._totals[1] - total
            self._squares[0] = self._squares[1] - squares


def _add(a: _Sums, b: _Sums) -> _Sums:
    return a[0] + b[0], a[1] + b[1]


def _subtract(a: _Sums, b: _Sums) -> _Sums:
    return a[0] - b[0], a[1] - b[1]


def _merge_sorted(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Two sorted arrays as one, a's elements before equal ones of b, and where b's and a's elements are in it."""
    b_at = a.searchsorted(b, side="right") + np.arange(len(b))
    of_a = np.ones(len(a) + len(b), np.bool_)
    of_a[b_at] = False
    a_at = np.flatnonzero(of_a)
    merged = np.empty(len(of_a), a.dtype)
    merged[a_at] = a
    merged[b_at] = b
    return merged, b_at, a_at


def require(holds: bool, else_message: str) -> None:
    """assert, but also under python -O."""
    if not holds:
        raise AssertionError(else_message)
