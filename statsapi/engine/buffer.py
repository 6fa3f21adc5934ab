"""Columns that grow: the open tail of a series, the late events of a chunk, and what was recorded lately.

No locks, no clock, no I/O. The caller holds Store._lock; the arrays that `columns` gives may be read without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.counted import COLUMN_NUMBERS, SortedColumn
from statsapi.engine.invariants import require
from statsapi.engine.percentiles import sample_of
from statsapi.engine.summary import Fields, add_fields, fields_of
from statsapi.engine.sums_before import Sums, SumsBefore
from statsapi.model import MIN_TS_US, TimestampsUs, Values

# A buffer this short is summed anew for each question, in some 10 µs, and keeps no sums: their integers would be half
# the memory of a series of ten events.
UNSUMMED_EVENTS = 32

NO_TS: TimestampsUs = np.empty(0, np.int64)
NO_VALUES: Values = np.empty(0, np.float64)

Columns = tuple[TimestampsUs, Values]
"""Events: ts_us int64[n] and values float64[n]."""


class Buffer(SumsBefore):
    """Events in order of arrival, in two columns that grow.

    The first n events are never written again, so a view of them stays true while more are appended.

    n: how many events there are; the arrays `ts_us` and `values` may be longer. in_order, last_ts_us: whether the
    stamps ascend, and the latest of them. `HeldEvents` keeps these two true for its tail; for late events they are not
    kept.
    """

    __slots__ = ("_sorted", "_whole", "in_order", "last_ts_us", "n", "ts_us", "values")

    def __init__(self, ts_us: TimestampsUs = NO_TS, values: Values = NO_VALUES) -> None:
        """Takes the arrays over. `in_order` and `last_ts_us` are true for ascending stamps."""
        SumsBefore.__init__(self)  # super() takes as long as this call: 50 ns for each new series
        self.ts_us = ts_us
        self.values = values
        self.n = len(ts_us)
        self.in_order = True
        self.last_ts_us = int(ts_us[-1]) if self.n else MIN_TS_US
        self._whole: Fields | None = None  # of the first events: as many as there were when it was last asked for
        self._sorted: tuple[int, int, SortedColumn] | None = None  # the values of some positions, see `sorted_and_rest`

    def append(self, ts_us: TimestampsUs, values: Values) -> None:
        """Add events, which are copied. Leaves `in_order` and `last_ts_us` as they are."""
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
        """All events, in order of arrival. Shared: not to be changed."""
        return self.ts_us[: self.n], self.values[: self.n]

    def inside(self, start_us: int, end_us: int) -> NDArray[np.bool_]:
        """Which events lie in [start_us, end_us): bool[n]. O(n)."""
        ts_us = self.ts_us[: self.n]
        inside: NDArray[np.bool_] = ts_us >= start_us
        inside &= ts_us < end_us
        return inside

    def positions(self, start_us: int, end_us: int) -> tuple[int, int]:
        """Where [start_us, end_us) begins and ends. Needs `in_order`. O(log n)."""
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
        """A copy in order of time, then of arrival. It takes over the sums of the whole."""
        ts_us, values = self.columns()
        order = ts_us.argsort(kind="stable")
        ordered = Buffer(ts_us[order], values[order])
        if self.n > UNSUMMED_EVENTS:
            ordered._whole = self.whole()
        return ordered

    def fields(self, first: int, last: int) -> Fields:
        """The summary of the events at positions [first, last), as fields; first < last."""
        if self.n <= UNSUMMED_EVENTS:
            return fields_of(self.values[first:last])
        if last - first == self.n:
            return self.whole()
        values = self.values[first:last]
        low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
        return last - first, low, high, *self.sums_between(first, last)

    def whole(self) -> Fields:
        """The summary of all events, as fields; there is at least one event. O(events since the last call)."""
        whole = self._whole
        if whole is None:
            whole = self._whole = fields_of(self.values[: self.n])
        elif whole[0] < self.n:
            whole = self._whole = add_fields(whole, fields_of(self.values[whole[0] : self.n]))
        return whole

    @property
    def time_ordered(self) -> int:
        return self.n

    def whole_sums(self) -> Sums:
        return self.whole()[3:] if self.n else (0, 0)

    def between(self, first: int, last: int) -> Values:
        return self.values[first:last]

    def sorted_and_rest(self, first: int, last: int, most: int, stagger: int) -> tuple[SortedColumn | None, Values]:
        """The values at positions [first, last): most of them in a sorted column, and at most `most` of the last ones
        loose. No column where there are at most `most` in all. `stagger`: see `percentiles.sample_of`.

        The column is remembered while more events are appended, as sorting takes 20 ns a value.
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
        """Raise AssertionError unless a tail's order, last stamp and sums agree with its events. For tests."""
        ts_us, values = self.columns()
        if self.in_order:
            require(bool((ts_us[1:] >= ts_us[:-1]).all()), "the tail says it is in order, but is not")
            self.check_mark("the tail's")
        require(not self.n or self.last_ts_us == ts_us.max(), "the tail's last stamp is not the one it names")
        whole = self._whole
        require(whole is None or whole == fields_of(values[: whole[0]]), "the tail's sums do not add up")
        first, last, column = self._sorted or (0, 0, SortedColumn(NO_VALUES, NO_VALUES))
        require(np.array_equal(column.values, np.sort(values[first:last])), "the tail's sorted values are others")
