"""One series: exact answers about any range of its events, each remembered until something changes.

A range covers a run of whole chunks (`held_events.py`), parts of the chunks that its edges cut, at most two, and some
of the tail. The run is the difference of two prefix sums (and numpy's min and max over one number per chunk), so its
cost hardly depends on how many events it holds. Differences of integers are exact: nothing drifts when events are
dropped or come late. `percentiles.py` says how ranks are selected.

    operation                 cost, for n events in the range of a series of c chunks of C events
    summarise                 O(log c + C) for the edges + O(c / 1000) µs for the extremes
    percentiles               O(c log C + n / 64)

The monoid vocabulary and the idea of partial aggregates are from Tangwongsan, Hirzel & Schneider, "Optimal and general
out-of-order sliding-window aggregation" (2019). They keep a finger B-tree of partials, since their operations cannot
subtract; exact integers can, so a list of prefix sums is enough. Two levels (blocks of 64 chunks) were measured and
refused: they save the 0.3 ms it takes to extend 1,220 prefix sums after a late event at the far end, and need a third
more code in timelines and chunks.

The caller holds Store._lock around every call.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np

from statsapi.engine import percentiles
from statsapi.engine.buffer import NO_VALUES, UNSUMMED_EVENTS, Columns
from statsapi.engine.chunk import Chunk
from statsapi.engine.counted import COLUMN_NUMBERS, CutColumn, Selections, SortedColumn
from statsapi.engine.held_events import HeldEvents, bounds_of
from statsapi.engine.percentiles import sample_of
from statsapi.engine.sketch import Sketch, count_values
from statsapi.engine.summary import IDENTITY, Fields, Summary, combine_fields, fields_of
from statsapi.model import MAX_TS_US, MIN_TS_US, Percent, Values

# A timeline remembers this many answers until its next change.
_MEMO_ENTRIES = 16

# From this many on, loose values become a sorted column of their own, which is remembered. Fewer are sorted together
# with those of other series, since a column costs each question some 2 µs.
_SORTED_FROM = 256

# Where a range spans more chunks than this, the counts of its percentiles are kept for the next question: with 12
# chunks that saves a quarter of the time.
_COUNTS_KEPT_FROM = 2


class ValueColumns(NamedTuple):
    """The values of some events: in sorted columns, in cut columns, and the rest in any order.

    The arrays are shared and must not be changed. They stay true when the series changes.
    """

    sorted: list[SortedColumn]
    cut: list[CutColumn]
    unsorted: Values


NO_COLUMNS = ValueColumns([], [], NO_VALUES)

# Tails that one question looks at together get samples with different staggers.
_STAGGERS = count()


class Timeline(HeldEvents):
    """Events, and the answers about them: summaries, percentiles, steps, and what a union of series needs of this one.

    >>> timeline = Timeline()
    >>> timeline.insert(np.array([10, 30, 20, 20]), np.array([1.0, 4.0, 2.0, 3.0]))
    >>> timeline.summarise(10, 30).mean, timeline.percentiles(None, None, [50])
    (2.0, [2.5])
    """

    __slots__ = ()

    def summarise(self, start_us: int | None, end_us: int | None) -> Summary:
        """The exact summary of the events in the range. O(log chunks + chunk_events), see the module's table."""
        start_us, end_us = bounds_of(start_us, end_us)
        if start_us >= end_us:
            return IDENTITY
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        tail = self._ordered_tail()
        in_tail = tail.positions(start_us, end_us)
        if not cut and first == last:
            return combine_fields([tail.fields(*in_tail)]) if in_tail[0] < in_tail[1] else IDENTITY
        key = self._memo_key(first, last, cut, in_tail, start_us, end_us)
        known = self.recall(key)
        if known is not None:
            summary: Summary = known
            return summary
        summary = self._summary(first, last, cut, in_tail, start_us, end_us)
        self.remember(key, summary)
        return summary

    def _summary(
        self, first: int, last: int, cut: list[int], in_tail: tuple[int, int], start_us: int, end_us: int
    ) -> Summary:
        parts = [self._chunks.run(first, last)] if first < last else []
        for i in cut:
            parts += self._chunks.chunks[i].fields(start_us, end_us)
        if in_tail[0] < in_tail[1]:
            parts.append(self._tail.fields(*in_tail))
        return combine_fields(parts)

    def percentiles(self, start_us: int | None, end_us: int | None, ps: Sequence[Percent]) -> list[float]:
        """The percentiles of the range's values, one for each of `ps` (0 to 100); [] when it holds no event.

        Linear interpolation between closest ranks (type 7, `exact.percentile_position`); the exact point is rounded
        once. `numpy.percentile` has the same definition but rounds on the way: it may differ in the last places, and
        between neighbours more than 1.8e308 apart it gives inf or nan. A zero has no sign. Raises ValueError for a p
        outside 0 to 100.

        All of `ps` cost little more than one: 0.5 ms for 1M events, 4 ms for 10M; some µs if nothing has changed.
        """
        for p in ps:
            if not 0 <= p <= 100:
                raise ValueError(f"a percentile lies between 0 and 100, {p!r} does not")
        start_us, end_us = bounds_of(start_us, end_us)
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        if start_us >= end_us or not ps:
            return []
        asked = tuple(p.as_integer_ratio() for p in ps)  # a Fraction takes 2 µs to hash
        in_tail = self._ordered_tail().positions(start_us, end_us)
        key = ("percentiles", asked, self._memo_key(first, last, cut, in_tail, start_us, end_us))
        known = self.recall(key)
        if known is not None:
            return list(known)
        columns, chosen = self._sorted_columns(first, last, cut, start_us, end_us)
        # A question does not merge late events into their chunks, which would stall it: sorting them costs 10 ns each.
        chosen.append(np.sort(self._unsorted_values(first, last, cut, start_us, end_us)))
        columns += [SortedColumn(values, sample_of(values, i)) for i, values in enumerate(chosen, 1) if len(values)]
        if self._selections is None and len(columns) > _COUNTS_KEPT_FROM:
            self._selections = Selections()
        answer = percentiles.of_columns(columns, ps, selections=self._selections)
        self.remember(key, tuple(answer))
        return answer

    def first(self, start_us: int | None = None, end_us: int | None = None) -> tuple[int, float] | None:
        """The earliest event of the range as (ts_us, value), of equal stamps the first to arrive; None without any."""
        if self._chunks.chunks:
            return _only_event(self.columns(start_us, end_us, 1))
        return _only_event(self._tail_events(start_us, end_us))

    def last(self, start_us: int | None = None, end_us: int | None = None) -> tuple[int, float] | None:
        """The latest event of the range as (ts_us, value), of equal stamps the last to arrive; None without any."""
        if self._chunks.chunks:
            return _only_event(self.columns(start_us, end_us, 1, newest_first=True))
        return _only_event(self._tail_events(start_us, end_us), -1)

    def extent(self, from_us: int) -> tuple[int, int, int] | None:
        """How many events do not lie before `from_us`, and the first and last stamp of those; None without any.

        0.5 µs where none lies before.
        """
        if not self._n:
            return None
        tail = self._tail
        # Nearly every series is a tail in order; the properties take half as long again.
        if tail.n and tail.in_order and not self._chunks.chunks:
            first_us, last_us = tail.ts_us.item(0), tail.last_ts_us
        else:
            first_us, last_us = self.first_ts_us, self.last_ts_us
        if first_us >= from_us:
            return self._n, first_us, last_us
        first = self.first(from_us)
        return None if first is None else (self.count(from_us, None), first[0], last_us)

    def few_events(self, start_us: int | None, end_us: int | None) -> Columns | None:
        """The range's events in order of time, of a series that has no chunks; None for one that has some.

        Shared, never to be changed. 1 µs, where a `freeze` and its walk take 10.
        """
        return None if self._chunks.chunks else self._tail_events(start_us, end_us)

    def _tail_events(self, start_us: int | None, end_us: int | None) -> Columns:
        tail = self._ordered_tail()
        first, last = tail.positions(*bounds_of(start_us, end_us))
        return tail.ts_us[first:last], tail.values[first:last]

    def few_values(self, start_us: int, end_us: int | None) -> Values | None:
        """The range's values, in any order, if the series has so few events that no answer about it is remembered; else
        None. The array is shared and must not be changed. 1 µs.
        """
        tail = self._tail
        if tail.n > UNSUMMED_EVENTS or self._chunks.chunks:
            return None
        if not tail.in_order:
            tail = self._ordered_tail()
        first, last = tail.positions(start_us, MAX_TS_US + 1 if end_us is None else end_us)
        return tail.values[first:last]

    def value_columns(self, start_us: int | None, end_us: int | None) -> ValueColumns:
        """The range's values, for a selection among the values of several series without the lock.

        0.1 µs a chunk, 1 µs for a chunk that is cut. A tail that has grown by some 256 events, or is cut elsewhere than
        before, is sorted, which takes 20 ns an event.
        """
        start_us, end_us = bounds_of(start_us, end_us)
        if start_us >= end_us or not self._n:
            return NO_COLUMNS
        tail = self._ordered_tail()
        in_tail = tail.positions(start_us, end_us)
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        return self._value_columns(first, last, cut, in_tail, start_us, end_us)

    def summary_and_columns(self, start_us: int | None, end_us: int | None) -> tuple[Summary, ValueColumns]:
        """The results of `summarise` and `value_columns`, for a union: searched once, and not remembered."""
        start_us, end_us = bounds_of(start_us, end_us)
        if start_us >= end_us or not self._n:
            return IDENTITY, NO_COLUMNS
        in_tail = self._ordered_tail().positions(start_us, end_us)
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        summary = self._summary(first, last, cut, in_tail, start_us, end_us)
        return summary, self._value_columns(first, last, cut, in_tail, start_us, end_us)

    def _value_columns(
        self, first: int, last: int, cut: list[int], in_tail: tuple[int, int], start_us: int, end_us: int
    ) -> ValueColumns:
        chunks, tail = self._chunks.chunks, self._tail
        if not chunks and tail.n <= _SORTED_FROM:
            return ValueColumns([], [], tail.between(*in_tail))
        columns = [chunk.sealed.column for chunk in chunks[first:last]]
        cuts = []
        for i in cut:
            column = self._chunks.cut_column(i, start_us, end_us)
            if isinstance(column, CutColumn):
                cuts.append(column)
            elif column is not None:
                columns.append(column)
        late_whole, late_cut = _any_late(chunks[first:last]), _any_late([chunks[i] for i in cut])
        if not late_whole and not late_cut:
            in_order, rest = tail.sorted_and_rest(*in_tail, _SORTED_FROM, next(_STAGGERS))
            if in_order is not None:
                columns.append(in_order)
            return ValueColumns(columns, cuts, rest)
        # The key of the column made of loose values. It is valid until something changes.
        key: tuple[Any, ...] = "loose", *in_tail
        if late_whole:
            key += first, last
        if late_cut:
            key += start_us, end_us
        loose_column: SortedColumn | None = self.recall(key)
        if loose_column is None:
            loose = self._unsorted_values(first, last, cut, start_us, end_us)
            if len(loose) <= _SORTED_FROM:
                return ValueColumns(columns, cuts, loose)
            loose.sort()
            loose_column = SortedColumn(loose, sample_of(loose, next(_STAGGERS)), next(COLUMN_NUMBERS))
            self.remember(key, loose_column)
        columns.append(loose_column)
        return ValueColumns(columns, cuts, NO_VALUES)

    def sketches(self, start_us: int | None, end_us: int | None) -> list[Sketch]:
        """Sketches that together make the range's sketch, at level 0 and not bounded, to be merged without the lock.

        About 1 µs a chunk, and up to 0.1 ms for each chunk that is cut and for the tail.
        """
        start_us, end_us = bounds_of(start_us, end_us)
        if start_us >= end_us:
            return []
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        chunks = self._chunks.chunks
        parts = [Sketch(0, chunk.sealed.buckets()) for chunk in chunks[first:last]]
        for i in cut:
            parts.append(Sketch(0, count_values(chunks[i].sealed.select(start_us, end_us), in_order=True)))
        parts.append(Sketch(0, count_values(self._unsorted_values(first, last, cut, start_us, end_us))))
        return parts

    def slice_end_us(self, chunks: int) -> int:
        """An instant after the first event, with about this many chunks before it; MAX_TS_US + 1 when there are fewer.

        If more chunks than that begin at one instant, the result lies after all of them.
        """
        starts = self._chunks.starts
        # A start is a lower bound and may lie before the first event. Folding up to it would never fold anything.
        at = bisect_right(starts, self.first_ts_us, chunks) if len(starts) > chunks else len(starts)
        return starts[at] if at < len(starts) else MAX_TS_US + 1

    def steps(self, start_us: int, step_us: int, n_steps: int) -> list[Summary]:
        """The summaries of n_steps ranges of step_us each, one after another from start_us on, for a chart.

        One pass: O(steps) for the chunks that lie inside a step, some 20 ns an event for those that do not. Raises
        ValueError for a step that is not positive.
        """
        if step_us <= 0:
            raise ValueError(f"step_us must be positive, not {step_us}")
        parts: list[list[Fields]] = [[] for _ in range(n_steps)]
        end_us = start_us + step_us * n_steps
        chunks, starts = self._chunks.chunks, self._chunks.starts

        def cut(columns: Columns) -> None:
            ts_us, values = columns
            first = max((int(ts_us[0]) - start_us) // step_us, 0)
            last = min((int(ts_us[-1]) - start_us) // step_us + 1, n_steps)
            edges = [min(max(start_us + step_us * i, MIN_TS_US), MAX_TS_US + 1) for i in range(first, last + 1)]
            for i, (a, b) in enumerate(pairwise(ts_us.searchsorted(edges).tolist()), first):
                if a < b:
                    parts[i].append(fields_of(values[a:b]))

        i = max(bisect_left(starts, start_us) - 1, 0)
        while i < len(chunks) and starts[i] < end_us:
            step = (starts[i] - start_us) // step_us
            # Whole chunks of the step. The chunk in which the step ends is left out: its last event may lie outside.
            whole = bisect_left(starts, start_us + (step + 1) * step_us, i + 1) - 1
            if step >= 0 and whole > i:
                parts[step].append(self._chunks.run(i, whole))
                i = whole
            else:
                cut(chunks[i].frozen().columns())
                i += 1
        if self._tail.n:
            cut(self._ordered_tail().columns())
        return [combine_fields(part) for part in parts]

    def _sorted_columns(
        self, first: int, last: int, cut: list[int], start_us: int, end_us: int
    ) -> tuple[list[SortedColumn], list[Values]]:
        """The range's values that chunks hold sorted: whole chunks with their samples, cut ones without."""
        chunks = self._chunks.chunks
        columns = [chunk.sealed.column for chunk in chunks[first:last]]
        chosen = [chunks[i].sealed.select(start_us, end_us) for i in cut]
        return columns, [values for values in chosen if len(values)]

    def _unsorted_values(self, first: int, last: int, cut: list[int], start_us: int, end_us: int) -> Values:
        """The range's values in no sorted column: those of late events and of the tail. Copied."""
        chunks = self._chunks.chunks
        values = [late.columns()[1] for chunk in chunks[first:last] if (late := chunk.late)]
        for i in cut:
            if late := chunks[i].late:
                values.append(late.columns()[1][late.inside(start_us, end_us)])
        tail = self._ordered_tail()
        values.append(tail.between(*tail.positions(start_us, end_us)))
        return np.concatenate(values)

    def _memo_key(
        self, first: int, last: int, cut: list[int], in_tail: tuple[int, int], start_us: int, end_us: int
    ) -> tuple[int, ...]:
        """Where the range's edges fall among the events, valid until something changes. A window that slid past no
        event has the same key.
        """
        place: tuple[int, ...] = (first, last, *in_tail)
        for i in cut:
            chunk = self._chunks.chunks[i]
            if chunk.late:
                return start_us, end_us
            place += chunk.sealed.positions(start_us, end_us)
        return place

    def recall(self, key: tuple[Any, ...]) -> Any:
        """The answer remembered for that key since the last change; None without one."""
        return self._memo.get(key) if self._memo else None

    def remember(self, key: tuple[Any, ...], answer: Any) -> None:
        """Keep an answer until the next change, or until too many are kept."""
        if self._n <= UNSUMMED_EVENTS:
            return
        if self._memo is None or len(self._memo) >= _MEMO_ENTRIES:
            self._memo = {}
        self._memo[key] = answer


def _only_event(columns: Columns, at: int = 0) -> tuple[int, float] | None:
    """The event at that place; None where there is none at all."""
    ts_us, values = columns
    return (ts_us.item(at), values.item(at)) if len(ts_us) else None


def _any_late(chunks: list[Chunk]) -> bool:
    # A loop: a generator takes as long to make as to look at the few chunks that most series of a union have.
    for chunk in chunks:  # noqa: SIM110
        if chunk.late is not None:
            return True
    return False
