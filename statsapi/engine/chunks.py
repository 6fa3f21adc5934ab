"""The chunks of a series in order of time, and prefix sums over them.

A late event, say 10:00:05 when chunks start at 10:00:00, 10:00:07 and 10:00:19 and the tail at 10:00:31: `starts` sends
it to the first chunk (`chunk.py` tells what becomes of it there). Prefix sums from that chunk on are cut off. The next
question adds the late value to the chunk's total and extends the prefix sums again.

No locks, no clock, no I/O. The caller holds Store._lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.buffer import NO_VALUES, Buffer
from statsapi.engine.chunk import Chunk
from statsapi.engine.counted import COLUMN_NUMBERS, CutColumn, SortedColumn
from statsapi.engine.frozen import FrozenChunk
from statsapi.engine.invariants import require
from statsapi.engine.percentiles import sample_of
from statsapi.engine.sealed import SealedEvents
from statsapi.engine.summary import Fields, fields_of
from statsapi.model import TimestampsUs, Values

# This many cuts of a series' chunks are remembered, the latest: a span and the one before it cut three times.
_CUTS_REMEMBERED = 4

_FIRST_NUMBERS = count()


class Chunks:
    """The chunks in order of time.

    starts[i] <= every stamp in chunk i <= starts[i + 1]. A stamp that stands on such a boundary may be on both sides,
    the earlier arrivals to the left. room: the chunk size.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.chunks: list[Chunk] = []
        self.starts: list[int] = []
        # Numbers the chunks, which staggers their samples and merges. Series begin at different numbers, as a union of
        # a thousand has a thousand first chunks.
        self._made = next(_FIRST_NUMBERS)
        # The latest cuts asked for by `cut_column`. A cut that was asked for twice has its values, copied.
        self._cuts: dict[tuple[SealedEvents, int, int], SortedColumn | None] = {}
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
        """Make the prefix sums hold for chunks 0 to upto - 1. O(chunks that are new to them)."""
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
        """These chunks, each with a start that is not after its first stamp. Takes both lists over."""
        held = cls(room)
        held.chunks, held.starts = chunks, starts
        held.take_numbers(len(chunks))
        return held

    def take_numbers(self, how_many: int = 1) -> int:
        """The first of that many consecutive numbers, which no other chunk here gets."""
        self._made += how_many
        return self._made - how_many

    def append(self, ts_us: TimestampsUs, values: Values) -> None:
        """Seal time-ordered columns, none earlier than any event here. They are copied."""
        self.chunks.append(Chunk.seal(ts_us, values, self.take_numbers(), self.room))
        self.starts.append(int(ts_us[0]))

    def insert_late(self, ts_us: TimestampsUs, values: Values) -> None:
        """Add time-ordered events, all before the tail. They are copied. There is at least one chunk."""
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
            parted = chunk.parted(ts_us[a:b], values[a:b], self._made, self.room)
            if parted is not None:
                self._replace(i, parted)
                continue
            late = chunk.late
            if late is None:
                late = chunk.late = Buffer()
            late.append(ts_us[a:b], values[a:b])
            if late.n >= chunk.merge_at:
                self._replace(i, chunk.merged(self._made, self.room))

    def _replace(self, i: int, chunks: list[Chunk]) -> None:
        """Put others, which have the next numbers, in the place of chunk i."""
        start_us = self.starts[i]
        self._cuts.clear()
        self.take_numbers(len(chunks))
        self.chunks[i : i + 1] = chunks
        self.starts[i : i + 1] = [start_us, *(int(chunk.sealed.ts_us[0]) for chunk in chunks[1:])]

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
        """The values of chunk i's sealed events in [start_us, end_us); None without any.

        The first time they are not copied: a span that slides cuts elsewhere each time. When the same cut is asked for
        again they are, which takes 35 µs, and are remembered.
        """
        sealed = self.chunks[i].sealed
        cut = sealed.cut_column(start_us, end_us)
        if cut is None:
            return None
        key = sealed, cut.first, cut.last
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
        """The summary of the whole chunks [first, last), as fields; first < last. O(1), and some ns a chunk for the
        extremes.
        """
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

    def count_run(self, first: int, last: int) -> int:
        """How many events the whole chunks [first, last) hold; 0 unless first < last."""
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

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Every array held: their memory is counted by `HeldEvents.nbytes`."""
        yield self._lows
        yield self._highs
        for column in self._cuts.values():
            yield from column[:2] if column else ()
        for chunk in self.chunks:
            yield from chunk.arrays()

    def check_invariants(self, tail_from_us: int) -> None:
        """Raise AssertionError unless chunks, starts and prefix sums agree. For tests."""
        chunks, starts = self.chunks, self.starts
        require(len(chunks) == len(starts), f"{len(chunks)} chunks but {len(starts)} starts")
        for (cut, first, last), column in self._cuts.items():
            require(any(cut is chunk.sealed for chunk in chunks), "a cut is remembered of a chunk that is gone")
            kept = np.sort(FrozenChunk(cut.ts_us, cut.values, cut.rank).columns()[1][first:last])
            require(column is None or np.array_equal(column[0], kept), f"what {first}, {last} keeps is another")
        for i, (chunk, start_us) in enumerate(zip(chunks, starts, strict=True)):
            end_us = starts[i + 1] if i + 1 < len(starts) else tail_from_us
            chunk.check_invariants(f"chunk {i}'s", self.room, start_us, end_us)
            if i + 1 < len(self._counts):
                entry = (
                    self._counts[i + 1] - self._counts[i],
                    self._lows[i],
                    self._highs[i],
                    self._totals[i + 1] - self._totals[i],
                    self._squares[i + 1] - self._squares[i],
                )
                values = chunk.frozen().columns()[1]
                require(entry == fields_of(values), f"chunk {i}'s entry in the prefix sums does not add up")
