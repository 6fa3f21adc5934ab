"""Exact percentiles of the values in many sorted columns, without merging the columns.

Every sorted column comes with a sample, each 64th of its values. For a wanted rank the samples give two pivots that
very likely enclose it. How many values of each column lie below a pivot is one binary search, so whether they do is
known; and only the values between the pivots, a few thousand out of millions, are looked at. The idea is that of
Floyd & Rivest's SELECT (1975).

Pure functions: no state, no I/O; numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf, isqrt, nextafter

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.exact import interpolate, percentile_position
from statsapi.model import Percent, Values

# A sorted column's sample is every 64th value: 2% of the time of a seal, 0.125 bytes an event.
_SAMPLE_STEP = 64
# Up to this many values, partitioning all of them (12 ns each) is faster than narrowing them down first (0.2 ms).
_PARTITION_ALL = 16_384

# Values in ascending order, and `sample_of` them. A plain tuple: a range of 10M events has 1,220 of them.
SortedColumn = tuple[Values, Values]


def sample_of(values: Values, stagger: int) -> Values:
    """Every 64th of sorted values, copied. `stagger` is any number and chooses the first one.

    Columns that are asked together get different staggers: if all samples began at 0, each sampled value would be
    ranked half a step too low.
    """
    return values[stagger * 37 % _SAMPLE_STEP :: _SAMPLE_STEP].copy()


def of_columns(columns: Sequence[SortedColumn], ps: Sequence[Percent]) -> list[float]:
    """The percentiles of the values of all columns together, one for each of `ps` (0 to 100); [] without values.

    Linear interpolation between closest ranks, see `exact.percentile_position`. O(columns · log n + n / 64): 0.5 ms for
    1M values, 4 ms for 10M; more percentiles cost little more.
    """
    n = sum(len(values) for values, _ in columns)
    return _interpolated(n, partial(_values_at, columns, n), ps)


def of_values(values: Values, ps: Sequence[Percent]) -> list[float]:
    """The percentiles of an unsorted array, which is reordered in place; [] without values. O(n), 12 ns a value."""
    return _interpolated(len(values), partial(_select, values), ps)


def _interpolated(n: int, values_at: Callable[[list[int]], dict[int, float]], ps: Sequence[Percent]) -> list[float]:
    """The percentiles of n values; `values_at` looks values up by their ranks (ascending, from 0)."""
    if n == 0 or not ps:
        return []
    positions = [percentile_position(p, n) for p in ps]
    ranks = {lower for lower, _, _ in positions} | {lower + 1 for lower, part, _ in positions if part}
    at = values_at(sorted(ranks))
    return [
        interpolate(at[lower], at[lower + 1], part, of) if part else at[lower] + 0.0 for lower, part, of in positions
    ]


def _values_at(columns: Sequence[SortedColumn], n: int, ranks: list[int]) -> dict[int, float]:
    """The values at the given ranks (ascending, from 0) among the n values of all columns."""
    if n <= _PARTITION_ALL:
        return _select(np.concatenate([values for values, _ in columns]), ranks)
    sample = np.concatenate([sample for _, sample in columns])
    # Each column's sample ranks its values wrongly by less than one step, in a direction that differs from column to
    # column. If the starts of the samples are as good as random, the sum of these errors has a standard deviation of
    # 0.29 sqrt(columns) steps. A margin of 3.4 deviations, plus 2, seldom needs a second try.
    margin = 2 + isqrt(len(columns))
    found: dict[int, float] = {}
    while len(found) < len(ranks):
        _narrow(columns, sample, [rank for rank in ranks if rank not in found], margin, found)
        margin *= 8
    return found


def _select(values: Values, ranks: list[int]) -> dict[int, float]:
    """The values at the given ranks. Reorders `values` in place."""
    values.partition(ranks)
    return {rank: float(values[rank]) for rank in ranks}


def _narrow(
    columns: Sequence[SortedColumn], sample: Values, ranks: list[int], margin: int, found: dict[int, float]
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
    pivots_at = [
        (min(group[0] // _SAMPLE_STEP - margin, len(sample) - 1), group[-1] // _SAMPLE_STEP + margin + 1)
        for group in groups
    ]
    inner = sorted({at for pair in pivots_at for at in pair if 0 <= at < len(sample)})
    if inner:
        sample.partition(inner)
    pivots = [
        (float(sample[low]) if low >= 0 else -inf, float(sample[high]) if high < len(sample) else inf)
        for low, high in pivots_at
    ]
    # One binary search a column serves all groups: the values strictly between the pivots begin at
    # searchsorted(nextafter(low)) and end at searchsorted(high). Pivots inside a long run of equal values are equal;
    # then the bounds of that run are asked for instead.
    keys = [_between(low, high) if low < high else _run_of(low) for low, high in pivots]
    below = _count_below(columns, keys)
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
            inner = [rank - first for rank in inside]
            middle.partition(inner)
            found.update((rank, float(middle[at])) for rank, at in zip(inside, inner, strict=True))
        # A rank outside is in a run of values equal to a pivot, or the pivots have missed it.
        if group[0] < first:
            strays.append((low, [rank for rank in group if rank < first]))
        if group[-1] >= last:
            strays.append((high, [rank for rank in group if rank >= last]))
    if strays:
        runs = _count_below(columns, [_run_of(pivot) for pivot, _ in strays]).sum(axis=0).reshape(-1, 2).tolist()
        for (pivot, outside), (first, last) in zip(strays, runs, strict=True):
            found.update((rank, pivot) for rank in outside if first <= rank < last)


def _between(low: float, high: float) -> tuple[float, float]:
    """The keys whose counts below are the first rank strictly between low and high, and the rank after the last."""
    return nextafter(low, inf), high


def _run_of(value: float) -> tuple[float, float]:
    """The keys whose counts below are the first rank of the values equal to `value`, and the rank after the last."""
    return value, nextafter(value, inf)


def _count_below(columns: Sequence[SortedColumn], keys: list[tuple[float, float]]) -> NDArray[np.int64]:
    """int64[columns, 2 · keys]: how many of each column's values are less than each of the keys, flattened."""
    flat = np.array(keys).ravel()
    return np.array([values.searchsorted(flat) for values, _ in columns])
