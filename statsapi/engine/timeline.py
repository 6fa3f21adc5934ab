"""One series: its events in time-sorted chunks of numpy columns, each with its exact summary.

    chunks   [ c0: 8,192 events ][ c1: 8,192 ][ c2: 11,300 ] ... [ cN ]      tail (open, < 8,192)
    starts     t0                  t1           t2                 tN        everything from tail_from on
    prefix   0 ... Σx, Σx², n of c0, of c0+c1, of c0+c1+c2, ...

A range covers a run of whole chunks, the parts of at most two that its edges cut, and some of the tail. The run is the
difference of two prefix sums (and numpy's min and max over one number per chunk), so its cost hardly depends on how
many events it holds. Differences of integers are exact: nothing drifts, whatever has been dropped or come late.
`chunks.py` tells what a chunk holds and what becomes of late events, `percentiles.py` how ranks are selected.

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
file and of chunks.py.

No locks, no clock, no I/O. The caller holds Store._lock; what is handed out (columns, snapshots) may be read without
it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine import percentiles
from statsapi.engine.chunks import (
    MAX_CHUNK_EVENTS,
    NO_TS,
    NO_VALUES,
    UNSUMMED_EVENTS,
    Buffer,
    Chunks,
    Columns,
    FrozenChunk,
    require,
)
from statsapi.engine.percentiles import CutColumn, SortedColumn, sample_of
from statsapi.engine.sketch import Sketch, count_values
from statsapi.engine.summary import IDENTITY, Summary, combine
from statsapi.model import MAX_TS_US, MIN_TS_US, Percent, TimestampsUs, Values

# Smaller chunks leave less to sum at a window's edge, larger ones fewer to walk: summarise over 10M events took 78,
# 95 and 150 µs with 4,096, 8,192 and 16,384, percentiles 5.1, 3.4 and 2.5 ms.
CHUNK_EVENTS = 8_192

# A timeline remembers this many answers until its next change.
_MEMO_ENTRIES = 16


# From this many on, loose values become a sorted column of their own, which is remembered; fewer are sorted together
# with those of other series, as a column costs each question some 2 µs.
_SORTED_FROM = 256


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


class ValueColumns(NamedTuple):
    """The values of some events: in sorted columns, in such of which only a part counts, and the rest in any order.

    Shared, never to be changed; they stay true whatever happens to the series.
    """

    sorted: list[SortedColumn]
    cut: list[CutColumn]
    unsorted: Values


NO_COLUMNS = ValueColumns([], [], NO_VALUES)

# Tails that are asked together get samples with different staggers.
_STAGGERS = count()


class Timeline:
    """One series: insert in any order, ask for any half-open range [start_us, end_us), exactly.

    It has many methods because tail and chunks are one to all of them: two classes would both need the bounds' rules.
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
        if not 2 <= chunk_events <= MAX_CHUNK_EVENTS:
            raise ValueError(f"chunk_events must be 2 to {MAX_CHUNK_EVENTS}, not {chunk_events}")
        self._chunk_events = chunk_events
        self._chunks = _NO_CHUNKS  # own ones from the first seal on: most series are small
        self._tail = Buffer()
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
        self._tail = Buffer(ts_us[count:].copy(), values[count:].copy())
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
        key = self._memo_key(first, last, cut, in_tail, start_us, end_us)
        known = self.recall(key)
        if known is not None:
            summary: Summary = known
            return summary
        summary = combine(
            self._chunks.run(first, last),
            *(self._chunks.chunks[i].summarise(start_us, end_us) for i in cut),
            tail.summarise(*in_tail),
        )
        self.remember(key, summary)
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

        Linear interpolation between closest ranks (type 7, `exact.percentile_position`), of which the exact point is
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
        in_tail = self._ordered_tail().positions(start_us, end_us)
        key = ("percentiles", asked, self._memo_key(first, last, cut, in_tail, start_us, end_us))
        known = self.recall(key)
        if known is not None:
            return list(known)
        columns, chosen = self._sorted_columns(first, last, cut, start_us, end_us)
        # Late events are not merged into their chunks for a question, which would stall it: sorting them costs 10 ns
        # each.
        chosen.append(np.sort(self._unsorted_values(first, last, cut, start_us, end_us)))
        columns += [(values, sample_of(values, i)) for i, values in enumerate(chosen, len(columns))]
        answer = percentiles.of_columns([column for column in columns if len(column[0])], ps)
        self.remember(key, tuple(answer))
        return answer

    def few_values(self, start_us: int, end_us: int | None) -> Values | None:
        """The range's values, in any order, of a series that has so few that nothing of it is remembered; None of one
        that has more. Shared, never to be changed. 1 µs.
        """
        tail = self._tail
        if tail.n > UNSUMMED_EVENTS or self._chunks.chunks:
            return None
        if not tail.in_order:
            tail = self._ordered_tail()
        first, last = tail.positions(start_us, MAX_TS_US + 1 if end_us is None else end_us)
        return tail.values[first:last]

    def value_columns(self, start_us: int | None, end_us: int | None) -> ValueColumns:
        """The range's values, for a selection among those of several series without the lock.

        0.1 µs a chunk, 1 µs for each that is cut; a tail that has grown by some 256 events, or that is cut elsewhere
        than before, is sorted, which takes 20 ns an event.
        """
        start_us, end_us = _bounds(start_us, end_us)
        if start_us >= end_us or not self._n:
            return NO_COLUMNS
        chunks, tail = self._chunks.chunks, self._ordered_tail()
        in_tail = tail.positions(start_us, end_us)
        if not chunks and tail.n <= _SORTED_FROM:
            return ValueColumns([], [], tail.between(*in_tail))
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        columns = [(chunk.values, chunk.sample) for chunk in chunks[first:last]]
        cuts = []
        for i in cut:
            column = self._chunks.cut_column(i, start_us, end_us)
            if isinstance(column, CutColumn):
                cuts.append(column)
            elif column is not None:
                columns.append(column)
        late_whole = any(chunk.late is not None for chunk in chunks[first:last])
        late_cut = any(chunks[i].late is not None for i in cut)
        if not late_whole and not late_cut:
            in_order, rest = tail.sorted_and_rest(*in_tail, _SORTED_FROM, next(_STAGGERS))
            if in_order is not None:
                columns.append(in_order)
            return ValueColumns(columns, cuts, rest)
        # The key under which the values of no sorted column are kept: it holds until something changes.
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
            loose_column = loose, sample_of(loose, next(_STAGGERS))
            self.remember(key, loose_column)
        columns.append(loose_column)
        return ValueColumns(columns, cuts, NO_VALUES)

    def sketches(self, start_us: int | None, end_us: int | None) -> list[Sketch]:
        """Sketches that together are the range's, at level 0 and not bounded, to be merged without the lock.

        About 1 µs a chunk, and for the cut ones and the tail up to 0.1 ms each.
        """
        start_us, end_us = _bounds(start_us, end_us)
        if start_us >= end_us:
            return []
        first, last, cut = self._chunks.locate(start_us, end_us, self._tail_from_us)
        chunks = self._chunks.chunks
        parts = [Sketch(0, chunk.buckets()) for chunk in chunks[first:last]]
        for i in cut:
            parts.append(Sketch(0, count_values(chunks[i].select_sorted(start_us, end_us), in_order=True)))
        parts.append(Sketch(0, count_values(self._unsorted_values(first, last, cut, start_us, end_us))))
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
                cut(chunks[i].frozen().columns())
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
        ts_us: list[TimestampsUs] = [NO_TS]
        values: list[Values] = [NO_VALUES]
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

    def freeze(self, start_us: int | None, end_us: int | None) -> Frozen:
        """The range as it stands now, to be walked later, any number of times, as a `snapshot` is."""
        bounds = _bounds(start_us, end_us)
        return Frozen(*bounds, list(self._pieces(*bounds, newest_first=False)))

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
        return sum(array.nbytes + 112 for array in arrays) + 1_600 * len(self._chunks.chunks) + 400

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

    def _sorted_columns(
        self, first: int, last: int, cut: list[int], start_us: int, end_us: int
    ) -> tuple[list[SortedColumn], list[Values]]:
        """The range's values that chunks hold sorted: of whole chunks with their samples, of cut ones without."""
        chunks = self._chunks.chunks
        columns = [(chunk.values, chunk.sample) for chunk in chunks[first:last]]
        chosen = [chunks[i].select_sorted(start_us, end_us) for i in cut]
        return columns, [values for values in chosen if len(values)]

    def _unsorted_values(self, first: int, last: int, cut: list[int], start_us: int, end_us: int) -> Values:
        """The range's values that no sorted column holds: those of late events and of the tail. Copied."""
        chunks = self._chunks.chunks
        values = [late.columns()[1] for chunk in chunks[first:last] if (late := chunk.late)]
        for i in cut:
            if late := chunks[i].late:
                values.append(late.columns()[1][late.inside(start_us, end_us)])
        tail = self._ordered_tail()
        values.append(tail.between(*tail.positions(start_us, end_us)))
        return np.concatenate(values)

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

    def _memo_key(
        self, first: int, last: int, cut: list[int], in_tail: tuple[int, int], start_us: int, end_us: int
    ) -> tuple[int, ...]:
        """What the answer to a range hangs on, until something changes: a window that slid past no event has the
        same.
        """
        place: tuple[int, ...] = (first, last, *in_tail)
        for i in cut:
            chunk = self._chunks.chunks[i]
            if chunk.late:
                return start_us, end_us
            place += chunk.positions(start_us, end_us)
        return place

    def recall(self, key: tuple[Any, ...]) -> Any:
        """What was remembered for that key since the last change; None for nothing."""
        return self._memo.get(key) if self._memo else None

    def remember(self, key: tuple[Any, ...], answer: Any) -> None:
        """Keep an answer until the next change, or until there are too many."""
        if self._n <= UNSUMMED_EVENTS:
            return
        if self._memo is None or len(self._memo) >= _MEMO_ENTRIES:
            self._memo = {}
        self._memo[key] = answer


_NO_CHUNKS = Chunks(CHUNK_EVENTS)  # of every timeline that has none; never written to


def _bounds(start_us: int | None, end_us: int | None) -> tuple[int, int]:
    """The range as two plain integers, within what a stamp can be."""
    start = MIN_TS_US if start_us is None else max(int(start_us), MIN_TS_US)
    end = MAX_TS_US + 1 if end_us is None else min(int(end_us), MAX_TS_US + 1)
    return start, end


def _cut_columns(piece: FrozenChunk, start_us: int, end_us: int, newest_first: bool) -> Columns:
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
    step, held = 0, [NO_VALUES]

    def finish() -> None:
        values = np.concatenate(held)
        if len(values):
            first, last = float(values[0]), float(values[-1])
            details[step] = StepDetails(first, last, percentiles.of_values(values, ps))

    for ts_us, values in pieces:
        steps = later_edges.searchsorted(ts_us[[0, -1]], side="right").tolist()
        inner = ts_us.searchsorted(later_edges[steps[0] : steps[1]]).tolist()
        for at, (a, b) in enumerate(pairwise([0, *inner, len(ts_us)]), steps[0]):
            if a == b:
                continue
            if at != step:
                finish()
                step, held = at, [NO_VALUES]
            held.append(values[a:b])
    finish()
    return details
