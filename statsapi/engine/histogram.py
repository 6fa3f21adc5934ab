"""How the values of the union of several series are spread: how many lie in each of some bins.

While every event of the span is raw the counts are exact, whatever the edges. Of roll-ups only the sketch's buckets are
left. Then they are the bins, merged in pairs until they are few enough; where edges were given, each one that lies
inside a bucket moves to the nearer end of it. The counts are exact for the edges that are told.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from math import exp, log
from operator import itemgetter
from typing import Final, NamedTuple

import numpy as np

from statsapi.engine.answers import Statistics
from statsapi.engine.counted import Selections
from statsapi.engine.exact import interpolate
from statsapi.engine.rollup import Rollups
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import Bounds, SpanPart, Spans, columns_of, sketch_of, unite_span
from statsapi.model import Percent, Span

# Negative values, zero and positive ones are never in one bucket of a sketch.
_FEWEST: Final = 3


class Bins(NamedTuple):
    """edges: rising, one more than counts. Bin i holds edges[i] <= value < edges[i + 1], the last one its end too.

    below, above: how many values lie in no bin, where the edges were given. A single edge has no bin: `above` are the
    values from it on.
    of_sketch: the edges are the sketch's, also where others were given: perhaps fewer, each moved by half a bucket at
    most (1 % of the edge while buckets are at their finest). Every value of a bin lies between its two edges, and one
    that equals an edge may be counted on either side of it.
    """

    statistics: Statistics
    edges: list[float]
    counts: list[int]
    below: int = 0
    above: int = 0
    of_sketch: bool = False


class Histogram(NamedTuple):
    """Of one span: `edges` (rising), or that many `bins` between the least and the greatest value, of equal width or,
    with `log`, of equal ratio.

    ends: whether groups are put in order by their first or last event.
    With `log` a value that is not positive raises ValueError, which says so: whatever the edges, raw or rolled up.
    """

    span: Span
    bins: int = 20
    edges: tuple[float, ...] = ()
    log: bool = False
    ends: bool = False

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], tuple[SpanPart, ...]]:
        return self._spans().looker(bounds)

    def unite(
        self,
        parts: Sequence[tuple[SpanPart, ...]],
        *,
        selections: Selections | None = None,
    ) -> Bins:
        of_span = [part for (part,) in parts]
        statistics = unite_span(of_span, (), False)
        low, high = statistics.summary.min, statistics.summary.max
        if low is None or high is None:
            return Bins(statistics, list(self.edges), [0] * max(len(self.edges) - 1, 0))
        if self.log and low <= 0:
            raise ValueError(f"a logarithmic scale needs positive values, and the least one is {low!r}")
        if any(part.old for part in of_span):
            sketch = sketch_of(of_span)
            if self.edges:
                ends = sketch.edges(low, high)
                return _between_buckets(statistics, ends, sketch.counts().tolist(), self.edges)
            while len(sketch.buckets) > max(self.bins, _FEWEST):
                sketch = sketch.at_level(sketch.level + 1)
            return Bins(
                statistics, *_joined(sketch.edges(low, high), sketch.counts().tolist(), self.bins), of_sketch=True
            )
        edges = list(self.edges) or self._edges(low, high)
        below = np.zeros(len(edges), np.int64)
        asked = np.array(edges)
        up_to_last = 0
        few = [part.few for part in of_span if len(part.few)]
        columns, cuts = columns_of([part.columns for part in of_span], few)
        for values in chain((column.values for column in columns), (cut.kept_values() for cut in cuts)):
            below += values.searchsorted(asked)
            up_to_last += int(values.searchsorted(edges[-1], side="right"))
        if len(edges) == 1:
            return Bins(statistics, edges, [], int(below[0]), statistics.summary.count - int(below[0]))
        counts = np.diff(below)
        counts[-1] += up_to_last - below[-1]
        return Bins(statistics, edges, counts.tolist(), int(below[0]), statistics.summary.count - up_to_last)

    def _edges(self, low: float, high: float) -> list[float]:
        if low == high:
            return [low, high]
        if self.log:
            first, last = log(low), log(high)
            inner = [exp(first + (last - first) * i / self.bins) for i in range(1, self.bins)]
        else:
            inner = [interpolate(low, high, i, self.bins) for i in range(1, self.bins)]
        # Where the values lie next to each other, not every edge is a float64 of its own.
        return [low, *sorted({edge for edge in inner if low < edge < high}), high]

    def place(self, parts: Sequence[tuple[SpanPart, ...]], percentiles: Sequence[Percent]) -> Statistics:
        return self._spans().place(parts, percentiles)

    def _spans(self) -> Spans:
        """What is looked at in each series: its values, which are what any percentile asks for."""
        return Spans((self.span,), (50,), self.ends)


def _joined(ends: list[tuple[float, float]], counts: list[int], most: int) -> tuple[list[float], list[int]]:
    """Buckets side by side as edges and counts: with an empty bin wherever there is a gap between two, unless these
    make more than `most` bins. Then a gap belongs to the bin below it.
    """
    edges, filled = [ends[0][0]], []
    for (low, high), count in zip(ends, counts, strict=True):
        if low > edges[-1]:
            edges.append(low)
            filled.append(0)
        edges.append(high)
        filled.append(count)
    if len(filled) > most:
        edges, filled = [*(low for low, _ in ends), ends[-1][1]], counts
    while len(filled) > most:
        edges, filled = [*edges[:-1:2], edges[-1]], [sum(filled[i : i + 2]) for i in range(0, len(filled), 2)]
    return _with_width(edges, filled)


def _with_width(edges: list[float], counts: list[int]) -> tuple[list[float], list[int]]:
    """Without bins between two equal edges, such as that of zero: their values are in the next one, as its lower edge,
    or in the last one. Of one number alone there is one such bin.
    """
    wide, filled, left = [edges[0]], [], 0
    for high, count in zip(edges[1:], counts, strict=True):
        left += count
        if high > wide[-1]:
            wide.append(high)
            filled.append(left)
            left = 0
    if not filled:
        return [edges[0], edges[-1]], [left]
    filled[-1] += left
    return wide, filled


def _between_buckets(
    statistics: Statistics, ends: list[tuple[float, float]], counts: list[int], asked: Sequence[float]
) -> Bins:
    """The bins between given edges, each of which moves out of the bucket that it lies in."""
    edges: list[float] = []
    at: list[int] = []  # this many buckets lie below each edge
    for edge in asked:
        i = bisect_left(ends, edge, key=itemgetter(1))
        if i < len(ends):
            low, high = ends[i]
            if low < edge < high:
                edge = low if edge - low <= high - edge else high
            # A bucket of one number, such as zero, begins the bin from it on, and belongs to the last one all the same.
            i += low < high == edge or (low == high == edge == asked[-1] and len(asked) > 1)
        if edges and edge <= edges[-1]:
            at[-1] = max(at[-1], i)
        else:
            edges.append(edge)
            at.append(i)
    below = [0, *accumulate(counts)]
    binned = [below[b] - below[a] for a, b in pairwise(at)]
    return Bins(statistics, edges, binned, below[at[0]], below[-1] - below[at[-1]], of_sketch=True)
