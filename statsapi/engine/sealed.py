"""The sealed events of a chunk: sorted columns that never change, and the answers that they remember.

A sealed chunk is three columns, 18 bytes an event:

    ts_us   int64, ascending; equal stamps in order of arrival
    values  float64, ascending
    rank    uint16: values[i] happened at position rank[i] in time

Sorted values make percentiles fast and the extremes free. A cut at position k keeps the values whose rank is below k,
or the others. The sums of what a cut keeps start from the previous cut, or from the nearest of 64 positions whose sums
were noted when the chunk was sealed (`exact.CumulativeSums`).

No locks, no clock, no I/O. The caller holds Store._lock; a SealedColumns may be read without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.buffer import NO_VALUES, Columns
from statsapi.engine.counted import COLUMN_NUMBERS, CutColumn, SortedColumn, ranked_in
from statsapi.engine.exact import CumulativeSums, scaled_sums
from statsapi.engine.frozen import FrozenChunk, few_by_time
from statsapi.engine.invariants import require
from statsapi.engine.percentiles import sample_of, sampled_from
from statsapi.engine.sketch import MAX_BUCKETS, Buckets, count_values
from statsapi.engine.summary import Fields
from statsapi.engine.sums_before import Sums, SumsBefore, add, subtract
from statsapi.model import MAX_TS_US, MIN_TS_US, TimestampsUs, Values

# Sealing notes the sums before this many positions, so a cut has 32 values to sum on average. Noting them takes 30 µs a
# chunk and 0.7 bytes an event.
_SUMS_NOTED = 64

# Where a cut keeps a tenth of a chunk, none of 64 values at an end is kept once in 800 times.
_NEAR_ENDS = 64

# A cut moves by a few events from one question to the next. This many values from where it was on are kept in order of
# time, so that their places are looked for once in a while only, which takes 10 µs. 512 bytes a chunk that is cut.
_NEAR_CUT = 64


_ALL_BUT_SIGN = (1 << 63) - 1


class Place(NamedTuple):
    """Where other processes find a chunk's arrays: in that file, from that byte on."""

    file: str
    at: int


class SealedColumns(NamedTuple):
    """What of a chunk never changes.

    cumulative: the sums noted, of the values in order of time; None where noting them would cost something extra, or
    where magnitudes lie too far apart. buckets: the sketch of the values; None where it is not known or too large.
    merge_at: how many late events the chunk takes before they are merged in.
    """

    ts_us: TimestampsUs
    values: Values
    rank: NDArray[np.uint16]
    sample: Values
    cumulative: CumulativeSums | None
    buckets: Buckets | None
    sums: Sums
    sampled_from: int
    merge_at: int

    @classmethod
    def seal(cls, ts_us: TimestampsUs, values: Values, stagger: int, room: int) -> SealedColumns:
        """Events in order of time, which are copied and sorted. O(n log n).

        `stagger` is any number; neighbours get different ones. `room` is the series' chunk size.
        """
        order, in_order = _by_value(values)
        cumulative = CumulativeSums.of(values, max(room // _SUMS_NOTED, 1))
        sums = scaled_sums(values) if cumulative is None else cumulative.whole
        # Buckets are counted now, which costs an insertion 5 ns an event, and not while a whole minute is rolled up.
        buckets = _kept(count_values(in_order, in_order=True))
        rank = order.astype(np.uint16)
        return cls._sampled(ts_us.copy(), in_order, rank, sums, stagger, _merge_at(stagger, room), cumulative, buckets)

    @classmethod
    def _sampled(
        cls,
        ts_us: TimestampsUs,
        values: Values,
        rank: NDArray[np.uint16],
        sums: Sums,
        stagger: int,
        merge_at: int,
        cumulative: CumulativeSums | None = None,
        buckets: Buckets | None = None,
    ) -> SealedColumns:
        sample = sample_of(values, stagger)
        return cls(ts_us, values, rank, sample, cumulative, buckets, sums, sampled_from(stagger), merge_at)

    def merged(self, late: Columns, late_sums: Sums, stagger: int, room: int) -> SealedColumns:
        """These events and late ones, which come in order of arrival. `late_sums` are theirs. O(n)."""
        # Merging two sorted runs, in time and in value, takes a third of the time of sorting the whole anew.
        late_ts_us, late_values = late
        order = late_ts_us.argsort(kind="stable")
        late_ts_us, late_values = late_ts_us[order], late_values[order]
        ts_us, late_at, sorted_at = _merge_sorted(self.ts_us, late_ts_us)
        by_value = late_values.argsort()
        values, late_in, sorted_in = _merge_sorted(self.values, late_values[by_value])
        rank = np.empty(len(values), np.uint16)
        rank[late_in] = late_at[by_value]
        rank[sorted_in] = sorted_at.astype(np.uint16)[self.rank]
        return self._sampled(ts_us, values, rank, add(self.sums, late_sums), stagger, _merge_at(stagger, room))

    def without(self, first: int, last: int, gone: Sums, stagger: int) -> SealedColumns:
        """These events but those at positions [first, last) in time, whose sums are `gone`; some are left. O(n)."""
        keep = ~ranked_in(self.rank, first, last)
        ts_us = np.concatenate((self.ts_us[:first], self.ts_us[last:]))
        rank = self.rank[keep]
        rank[rank >= last] -= np.uint16(last - first)
        return self._sampled(ts_us, self.values[keep], rank, subtract(self.sums, gone), stagger, self.merge_at)


class SealedEvents(SumsBefore):
    """Sealed columns that answer. What the latest questions found is remembered, as the next ones ask nearly the same.

    place: where other processes find the arrays; None where no other process can map them.
    """

    __slots__ = (
        "_buckets",
        "_extremes_at",
        "_near_cut",
        "_near_from",
        "_positions",
        "column",
        "cumulative",
        "place",
        "rank",
        "sampled_from",
        "sums",
        "ts_us",
        "values",
    )

    def __init__(self, columns: SealedColumns, place: Place | None = None) -> None:
        """Takes 10 µs at most: no array is looked at or copied."""
        super().__init__()
        n = len(columns.ts_us)
        self._positions: tuple[int, int, int, int] | None = None  # a question asks for the same several times
        self._extremes_at = 0, n, 0, n - 1
        self._near_from = 0
        self._near_cut = NO_VALUES
        self.sums = columns.sums
        self.sampled_from = columns.sampled_from
        self._take(columns, place, next(COLUMN_NUMBERS))

    def columns(self, merge_at: int) -> SealedColumns:
        """What never changes. Needs no lock."""
        return SealedColumns(
            self.ts_us,
            self.values,
            self.rank,
            self.column.sample,
            self.cumulative,
            self._buckets,
            self.sums,
            self.sampled_from,
            merge_at,
        )

    def move_to(self, columns: SealedColumns, place: Place) -> None:
        """Hold these arrays, which equal its own, in place of them. What was counted in its values stays true."""
        self._take(columns, place, self.column.number)

    def _take(self, columns: SealedColumns, place: Place | None, number: int) -> None:
        self.ts_us, self.values, self.rank = columns.ts_us, columns.values, columns.rank
        self.column = SortedColumn(columns.values, columns.sample, number)
        self.cumulative = columns.cumulative
        self._buckets = columns.buckets
        self.place = place

    def positions(self, start_us: int, end_us: int) -> tuple[int, int]:
        """Where [start_us, end_us) begins and ends. O(log n)."""
        known = self._positions
        if known is not None and known[0] == start_us and known[1] == end_us:
            return known[2], known[3]
        first = int(self.ts_us.searchsorted(start_us)) if start_us > MIN_TS_US else 0
        last = int(self.ts_us.searchsorted(end_us)) if end_us <= MAX_TS_US else len(self.ts_us)
        self._positions = start_us, end_us, first, last
        return first, last

    def fields(self, first: int, last: int) -> Fields:
        """The summary of the events at positions [first, last), as fields; first < last."""
        return (last - first, *self._extremes(first, last), *self.sums_between(first, last))

    def buckets(self) -> Buckets:
        """The sketch of the values. Kept where it takes at most half a byte an event: larger ones come of values that
        lie over so many decades that nearly each has a bucket of its own.
        """
        if self._buckets is not None:
            return self._buckets
        buckets = count_values(self.values, in_order=True)
        self._buckets = _kept(buckets)
        return buckets

    def select(self, start_us: int, end_us: int) -> Values:
        """The values of the events in [start_us, end_us), sorted by value. Shared, never to be changed."""
        first, last = self.positions(start_us, end_us)
        if last - first == len(self.values):
            return self.values
        return self._sorted_between(first, last) if first < last else NO_VALUES

    def cut_column(self, start_us: int, end_us: int) -> CutColumn | None:
        """What `select` gives, but not copied; None where there is none. 1 µs."""
        first, last = self.positions(start_us, end_us)
        if first >= last:
            return None
        return CutColumn(self.column, self.rank, first, last, self.sampled_from, self._near_from, self._near_cut)

    def _extremes(self, first: int, last: int) -> tuple[float, float]:
        """The least and the greatest of the values at positions [first, last) in time; first < last."""
        rank = self.rank
        known_first, known_last, least, greatest = self._extremes_at
        # An extreme of a range is that of each narrower one in which it lies.
        narrower = known_first <= first and last <= known_last
        if not narrower or not first <= rank.item(least) < last:
            least = _first_ranked(rank, first, last)
        if not narrower or not first <= rank.item(greatest) < last:
            greatest = len(rank) - 1 - _first_ranked(rank[::-1], first, last)
        self._extremes_at = first, last, least, greatest
        return self.values.item(least), self.values.item(greatest)

    @property
    def time_ordered(self) -> int:
        return len(self.ts_us)

    def whole_sums(self) -> Sums:
        return self.sums

    def nearest_known(self, k: int) -> int:
        if self.cumulative is None:
            return super().nearest_known(k)
        step = self.cumulative.step
        return min((k + step // 2) // step * step, self.time_ordered)

    def sums_at(self, known: int) -> Sums:
        if self.cumulative is None or not 0 < known < self.time_ordered:
            return super().sums_at(known)
        return self.cumulative.before(known)

    def between(self, first: int, last: int) -> Values:
        if first >= last:
            return NO_VALUES
        if last - first <= _NEAR_CUT:
            return self._between_near(first, last)
        return self._sorted_between(first, last)

    def _sorted_between(self, first: int, last: int) -> Values:
        """The values at positions [first, last) in time, sorted by value; first < last."""
        return np.compress(ranked_in(self.rank, first, last), self.values)  # values[mask] takes twice as long

    def _between_near(self, first: int, last: int) -> Values:
        """The values at positions [first, last) in time, in order of time; these are 1 to _NEAR_CUT."""
        near_from = self._near_from
        if not near_from <= first <= last <= near_from + len(self._near_cut):
            self._near_from = near_from = first
            self._near_cut = few_by_time(self.values, self.rank, first, first + _NEAR_CUT)
        return self._near_cut[first - near_from : last - near_from]

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Every array held."""
        yield from (self.ts_us, self.rank, *self.column[:2])
        if self.cumulative:
            yield self.cumulative.digits
        if self._buckets is not None:
            yield self._buckets
        yield self._near_cut

    def check_invariants(self, whose: str) -> None:
        """Raise AssertionError unless columns, sums and what is remembered agree. For tests.

        `whose` begins the message.
        """
        values, rank, n = self.values, self.rank, len(self.ts_us)
        require(bool((values[1:] >= values[:-1]).all()), f"{whose} values are not sorted")
        require(bool((np.sort(rank) == np.arange(n)).all()), f"{whose} ranks are not a permutation")
        require(self.sums == scaled_sums(values), f"{whose} sums do not add up")
        require(np.array_equal(self.buckets(), count_values(values)), f"{whose} buckets do not add up")
        by_time = FrozenChunk(self.ts_us, values, rank).columns()[1]
        near = by_time[self._near_from :][: len(self._near_cut)]
        require(np.array_equal(self._near_cut, near), f"{whose} values near its last cut are others")
        self.check_mark(whose)


def _by_value(values: Values) -> tuple[NDArray[np.int64], Values]:
    """The order that sorts the values, equal ones as they are, and the values in that order. For 1 to 65,536 values.

    Numpy sorts integers in a third to four fifths of the time that argsort takes for floats. So the last bits of each
    value give way to its place; what only those bits tell apart is put in order afterwards.
    """
    bits = values.view(np.int64)
    keys = bits >> 63
    keys &= _ALL_BUT_SIGN
    keys ^= bits  # integers that rise as the values do
    places = (1 << (len(values) - 1).bit_length()) - 1
    keys &= ~places
    keys |= np.arange(len(values))
    keys.sort()
    keys &= places
    in_order = values[keys]
    if (in_order[1:] < in_order[:-1]).any():
        again = in_order.argsort(kind="stable")  # fast for what is nearly in order
        return keys[again], in_order[again]
    return keys, in_order


def _merge_at(stagger: int, room: int) -> int:
    """Between an eighth and three eighths of the chunk size, at least 1."""
    return room // 8 + int(stagger * 0.6180339887 % 1.0 * (room // 4)) + 1  # 0.618 spreads consecutive numbers evenly


def _kept(buckets: Buckets) -> Buckets | None:
    return buckets if len(buckets) <= MAX_BUCKETS else None


def _first_ranked(rank: NDArray[np.uint16], first: int, last: int) -> int:
    """Where the first rank in [first, last) is; there is one."""
    # It is nearly always among the first few, and looking through all ranks takes 5 µs.
    for some in (rank[:_NEAR_ENDS], rank):
        inside = ranked_in(some, first, last)
        at = int(inside.argmax())
        if inside[at]:
            break
    return at


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
