"""Exact percentiles of the values in many sorted columns, without merging the columns.

Every sorted column comes with a sample, each 64th of its values. For a wanted rank the samples give two pivots that
very likely enclose it. One binary search a column counts the values below a pivot, and the counts tell whether the
pivots enclose the rank. Only the values between the pivots are looked at, some ten thousand out of millions. The idea
is that of Floyd & Rivest's SELECT (1975).

A `CutColumn`, of whose values a span keeps only some, is not copied either: its kept values are counted below each
pivot, which takes 6 µs for 8,192 values where copying them takes 35.

Pivots and counts are kept for the next question (`counted.py`): while the pivots still enclose the wanted ranks, only
new columns are counted. Bad pivots cost time and never give a wrong answer, since counts verify them.

Pure functions: no state, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf, isqrt, nextafter

import numpy as np

from statsapi.engine.counted import Counted, CutColumn, Keys, Selections, SortedColumn, ranked_in
from statsapi.engine.exact import RankPosition, interpolate, percentile_position
from statsapi.engine.piecewise import concatenated
from statsapi.model import Percent, Values

# A sorted column's sample is every 64th value: 2% of the time of a seal, 0.125 bytes an event.
_SAMPLE_STEP = 64
# Up to this many values, partitioning all of them (12 ns each) is faster than narrowing them down first (0.2 ms).
_PARTITION_ALL = 16_384
# Pivots that are kept have about this many values between them and the wanted rank on either side, but at most 1/128 of
# all values. When 2,800 of 10M events come and go with each question, the median moves to and fro by some 40 ranks;
# partitioning the values of both sides takes 40 µs.
_KEPT_VALUES = 4_096


def sample_of(values: Values, stagger: int) -> Values:
    """Every 64th of some sorted values, copied. `stagger`, any number, decides which value is the first.

    Columns that are asked together get different staggers: if all samples began at 0, each sampled value would be
    ranked half a step too low.
    """
    return values[sampled_from(stagger) :: _SAMPLE_STEP].copy()


def sampled_from(stagger: int) -> int:
    """Where a sample with that stagger begins."""
    return stagger * 37 % _SAMPLE_STEP


def of_columns(
    columns: Sequence[SortedColumn],
    ps: Sequence[Percent],
    cuts: Sequence[CutColumn] = (),
    selections: Selections | None = None,
) -> list[float]:
    """The percentiles of the values of all columns together, one for each of `ps` (0 to 100); [] without values.

    Linear interpolation between closest ranks, see `exact.percentile_position`. O(columns · log n + n / 64): 0.5 ms for
    1M values, 4 ms for 10M; more percentiles cost little more. selections: the counts kept from one question to the
    next; with them it is O(columns) as long as the values move little.
    """
    n = sum([len(column[0]) for column in columns])
    n += sum([cut.last - cut.first for cut in cuts])
    return _percentiles(n, partial(_values_at, columns, cuts, n, ps, selections), ps)


def of_values(values: Values, ps: Sequence[Percent]) -> list[float]:
    """The percentiles of an unsorted array, which is reordered in place; [] without values. O(n), 12 ns a value."""
    return _percentiles(len(values), partial(_select, values), ps)


def _percentiles(n: int, values_at: Callable[[list[int]], dict[int, float]], ps: Sequence[Percent]) -> list[float]:
    """The percentiles of n values; `values_at` looks values up by their ranks (ascending, from 0)."""
    if n == 0 or not ps:
        return []
    positions = _positions(n, ps)
    return _interpolated(positions, values_at(_ranks_of(positions)))


def ranks_of(n: int, ps: Sequence[Percent]) -> list[int]:
    """The ranks (from 0, ascending) whose values make the percentiles of n values; n > 0."""
    return _ranks_of(_positions(n, ps))


def interpolated(n: int, at: dict[int, float], ps: Sequence[Percent]) -> list[float]:
    """The percentiles of n values, from the values `at` the ranks that `ranks_of` gives."""
    return _interpolated(_positions(n, ps), at)


def _positions(n: int, ps: Sequence[Percent]) -> list[RankPosition]:
    return [percentile_position(p, n) for p in ps]


def _ranks_of(positions: list[RankPosition]) -> list[int]:
    return sorted({lower for lower, _, _ in positions} | {lower + 1 for lower, part, _ in positions if part})


def _interpolated(positions: list[RankPosition], at: dict[int, float]) -> list[float]:
    return [
        interpolate(at[lower], at[lower + 1], part, of) if part else at[lower] + 0.0 for lower, part, of in positions
    ]


def few(n: int) -> bool:
    """Whether n values are so few that it is faster to look at all of them."""
    return n <= _PARTITION_ALL


def pivots_around(
    columns: Sequence[SortedColumn], cuts: Sequence[CutColumn], n: int, ranks: Sequence[int], width: int
) -> list[tuple[float, float]]:
    """Pairs of pivots, ascending, which do not overlap. Each of the ranks (ascending) very likely lies in a pair, with
    `width` values between it and either pivot. A pivot is infinite where the sample ends. Some ms for 10M values.
    """
    sample, spread = _sample_and_spread(columns, cuts)
    margin = 2 + isqrt(spread) + width // _SAMPLE_STEP
    places: list[tuple[int, int]] = []
    for rank in ranks:
        first, last = rank * len(sample) // n - margin, rank * len(sample) // n + margin + 1
        if places and first <= places[-1][1]:
            places[-1] = places[-1][0], last
        else:
            places.append((first, last))
    inner = [at for pair in places for at in pair if 0 <= at < len(sample)]
    if inner:
        sample.partition(inner)
    pivots: list[tuple[float, float]] = []
    for first, last in places:
        low = float(sample[first]) if first >= 0 else -inf
        high = float(sample[last]) if last < len(sample) else inf
        if pivots and low <= pivots[-1][1]:  # equal values
            pivots[-1] = pivots[-1][0], high
        else:
            pivots.append((low, high))
    return pivots


def _values_at(
    columns: Sequence[SortedColumn],
    cuts: Sequence[CutColumn],
    n: int,
    ps: Sequence[Percent],
    selections: Selections | None,
    ranks: list[int],
) -> dict[int, float]:
    """The values at the given ranks (ascending, from 0) among the n values of all columns."""
    if n <= _PARTITION_ALL:
        return _select(concatenated([column[0] for column in columns] + [c.kept_values() for c in cuts]), ranks)
    found: dict[int, float] = {}
    asked, before = None, None
    if selections is not None:
        asked = tuple([p.as_integer_ratio() for p in ps])  # a Fraction takes 2 µs to hash
        before = selections.recall(asked, n, columns, cuts)
    useful: list[Counted] = []
    if before is not None:
        useful += _look_up(before.moved(columns, cuts), ranks, found, n)
    if len(found) < len(ranks):
        sample, spread = _sample_and_spread(columns, cuts)
        margin = 2 + isqrt(spread)
        if selections is not None:
            margin = max(margin, 2 + isqrt(len(columns)) + _kept_values(n) // _SAMPLE_STEP)
        while len(found) < len(ranks):
            useful += _narrow(columns, cuts, sample, n, [rank for rank in ranks if rank not in found], margin, found)
            margin *= 8
    if selections is not None:
        selections.keep(asked, n, Counted.joined(useful), before)
    return found


def _sample_and_spread(columns: Sequence[SortedColumn], cuts: Sequence[CutColumn]) -> tuple[Values, int]:
    """The sampled values that count, copied, and the square of the likely error of a rank, in sampled values.

    Each column's sample ranks its values wrongly by less than one step, in a direction that differs from column to
    column. If the starts of the samples are as good as random, the sum of these errors has a standard deviation of 0.29
    sqrt(columns) steps. A margin of 3.4 deviations, plus 2, seldom needs a second try. In a cut column the choice of
    the sampled values that are kept is as good as random too: if a share f of m is kept, the variance is
    m f (1 - f) / 4 in the middle of the values, and less elsewhere.
    """
    samples = [column[1] for column in columns]
    spread = len(columns) + len(cuts)
    for cut in cuts:
        kept = _kept_sample(cut)
        samples.append(kept)
        of = len(cut.column.sample)
        spread += 3 * len(kept) * (of - len(kept)) // max(of, 1)
    return concatenated(samples), spread


def _kept_values(n: int) -> int:
    return min(_KEPT_VALUES, n >> 7)


def _kept_sample(cut: CutColumn) -> Values:
    """The sampled values of a cut column that count."""
    rank = cut.rank[cut.sampled_from :: _SAMPLE_STEP]
    return np.compress(ranked_in(rank, cut.first, cut.last), cut.column.sample)


def _select(values: Values, ranks: list[int]) -> dict[int, float]:
    """The values at the given ranks. Reorders `values` in place."""
    values.partition(ranks)
    return {rank: float(values[rank]) for rank in ranks}


def _narrow(
    columns: Sequence[SortedColumn],
    cuts: Sequence[CutColumn],
    sample: Values,
    n: int,
    ranks: list[int],
    margin: int,
    found: dict[int, float],
) -> list[Counted]:
    """Add to `found` the values at those ranks that lie within `margin` sampled values of where they are expected.

    Returns the counts that it took.
    """
    # Neighbours share a pair of pivots: every percentile wants two ranks next to each other.
    groups: list[list[int]] = []
    for rank in ranks:
        if groups and rank - groups[-1][-1] <= _SAMPLE_STEP:
            groups[-1].append(rank)
        else:
            groups.append([rank])
    # The sample may be shorter or longer than n / 64: a column shorter than a step may have no sampled value, and
    # chance decides how many sampled values of a cut column are kept.
    pivots_at = [(group[0] * len(sample) // n - margin, group[-1] * len(sample) // n + margin + 1) for group in groups]
    inner = sorted({at for pair in pivots_at for at in pair if 0 <= at < len(sample)})
    if inner:
        sample.partition(inner)
    pivots = [
        (float(sample[low]) if low >= 0 else -inf, float(sample[high]) if high < len(sample) else inf)
        for low, high in pivots_at
    ]
    # One binary search a column serves all groups. Pivots inside a long run of equal values are equal; then the keys
    # are the bounds of that run instead.
    keys = [Keys(nextafter(low, inf), high) if low < high else _run_of(low) for low, high in pivots]
    counted = Counted.of(columns, cuts, keys)
    useful = _look_up(counted, ranks, found, n)
    # A rank outside its pivots is in a run of values that equal a pivot, or the pivots have missed it.
    runs: dict[float, Keys] = {}
    for group, (low, high), (first, last) in zip(groups, pivots, counted.totals(), strict=True):
        if low < high and group[0] < first:
            runs[low] = _run_of(low)
        if low < high and group[-1] >= last:
            runs[high] = _run_of(high)
    if runs:
        useful += _look_up(Counted.of(columns, cuts, list(runs.values())), ranks, found, n)
    return useful


def _look_up(counted: Counted, ranks: list[int], found: dict[int, float], n: int) -> list[Counted]:
    """Add to `found` the values at those ranks that lie between the keys of a pair.

    Returns the counts of the pairs that held a rank, if any. Keys far from the ranks are replaced by nearer ones.
    """
    useful = []
    width = _kept_values(n)
    for g, (keys, (first, last)) in enumerate(zip(counted.keys, counted.totals(), strict=True)):
        inside = [rank for rank in ranks if first <= rank < last and rank not in found]
        if not inside:
            continue
        useful.append(g)
        if keys.only is not None:
            found.update((rank, keys.only) for rank in inside)
            continue
        middle = counted.values_between(g)
        at = [rank - first for rank in inside]
        low, high = max(at[0] - width, 0), min(at[-1] + width, len(middle) - 1)
        if far := len(middle) > 8 * width:
            middle.partition(sorted({low, *at, high}))
        else:
            middle.partition(at)
        found.update((rank, float(middle[i])) for rank, i in zip(inside, at, strict=True))
        if far and middle[at[-1]] < middle[high]:
            counted = counted.narrowed(g, Keys(float(middle[low]), float(middle[high])))
    return [counted.only(useful)] if useful else []


def _run_of(value: float) -> Keys:
    """The pair of keys that encloses just the values equal to `value`."""
    return Keys(value, nextafter(value, inf), value)
