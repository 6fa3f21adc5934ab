"""How the values of the union of several series are spread: how many lie in each of some bins.

While every event of the span is raw, the counts are exact for any edges. A roll-up only has the buckets of its sketch.
Then these are the bins, merged in pairs until they are few enough; where edges were given, an edge that lies inside a
bucket moves to the nearer end of the bucket. The counts are exact for the edges in the answer.
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
    """edges: rising, one more than counts. Bin i holds edges[i] <= value < edges[i + 1], the last bin also its end.

    below, above: how many values lie in no bin, where the edges were given. A single edge makes no bin: `above` then
    counts the values from the edge on.
    of_sketch: the edges are those of the sketch's buckets. Edges that were given have moved by half a bucket at most
    (1 % of the edge while buckets are at their finest), and may have become fewer. Every value of a bin lies between
    its two edges; a value that equals an edge may be counted on either side.
    """

    statistics: Statistics
    edges: list[float]
    counts: list[int]
    below: int = 0
    above: int = 0
    of_sketch: bool = False


class Histogram(NamedTuple):
    """The histogram of one span. Its bins lie between the given `edges` (rising); without edges there are `bins` of
    them between the least and the greatest value, of equal width or, with `log`, of equal ratio.

    ends: whether groups are put in order by their first or last event.
    With `log`, a value that is not positive raises ValueError, with any edges, for raw and rolled-up events alike.
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
        # If low and high are close neighbours among float64 numbers, several edges round to the same one.
        return [low, *sorted({edge for edge in inner if low < edge < high}), high]

    def place(self, parts: Sequence[tuple[SpanPart, ...]], percentiles: Sequence[Percent]) -> Statistics:
        return self._spans().place(parts, percentiles)

    def _spans(self) -> Spans:
        """The question that is put to each series. A percentile, whichever, makes it gather the values."""
        return Spans((self.span,), (50,), self.ends)


def _joined(ends: list[tuple[float, float]], counts: list[int], most: int) -> tuple[list[float], list[int]]:
    """Turn buckets into edges and counts of at most `most` bins. A gap between two buckets becomes an empty bin. If
    that makes more than `most` bins, each gap belongs to the bin below it instead.
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
    """Remove bins between two equal edges, such as the bin of zero. Their values go to the next bin, whose lower edge
    they equal, or else to the last one. Where all values are one number, a single such bin stays.
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
    """The bins between the edges `asked`. An edge inside a bucket moves to the nearer end of the bucket."""
    edges: list[float] = []
    at: list[int] = []  # this many buckets lie below each edge
    for edge in asked:
        i = bisect_left(ends, edge, key=itemgetter(1))
        if i < len(ends):
            low, high = ends[i]
            if low < edge < high:
                edge = low if edge - low <= high - edge else high
            # A bucket of one number, such as zero, counts as above an edge that equals it, but as below the last edge.
            i += low < high == edge or (low == high == edge == asked[-1] and len(asked) > 1)
        if edges and edge <= edges[-1]:
            at[-1] = max(at[-1], i)
        else:
            edges.append(edge)
            at.append(i)
    below = [0, *accumulate(counts)]
    binned = [below[b] - below[a] for a, b in pairwise(at)]
    return Bins(statistics, edges, binned, below[at[0]], below[-1] - below[at[-1]], of_sketch=True)
