"""A quantile sketch: how many values lie in each of a bounded number of logarithmic buckets.

The mapping is DDSketch's (Masson, Rim & Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 2019): bucket k holds the magnitudes from g**(k-1) up to g**k. Here g = 2**(1/35): 35 buckets make an
octave, and every boundary is one of the boundaries between 1 and 2 times a power of two. Boundaries are float64
numbers, computed once with integers, and a value's bucket is found by comparing bits. So every machine finds the same
bucket; a logarithm from the math library may differ in its last bit.

    key    -71610 ... -1     0      1 ... 71610
    holds  negative values | zero | positive values        keys rise with the values

Buckets 1 and -1 also take the magnitudes below 2.3e-308, the least normal float64.

When more than MAX_BUCKETS are taken, neighbours are merged in pairs over the whole range, which squares g (the uniform
collapse of UDDSketch: Epicoco, Melle, Cafaro & Pulimeno, IEEE Access 2020). The *level* is the number of such merges.
It is the least at which the values fit, so a sketch depends on the bag of values alone, and not on their order or on
the order of merging. DDSketch's own collapse of the lowest buckets gives these no error bound; this one always has one.

The answer for the value of rank r (of n sorted values, from 0) is a point of its bucket, within `relative_error` of
every value in the bucket: 0.01 at level 0, at most doubled by each further level. A percentile lies between the values
of two ranks, and each has such an answer. Where both have one sign, the same error holds for the point between them:

    |(1-t)·a' + t·b' - ((1-t)·a + t·b)| <= (1-t)·e·|a| + t·e·|b| = e · |(1-t)·a + t·b|

Where one is negative and the other positive, the point between them may be close to zero while their errors are large.
Then the bound is computed from the ends of the two buckets, and there may be none.

Pure functions and values: no state, no I/O, no locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf, nextafter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.exact import interpolate, percentile_position
from statsapi.model import Percent, Values

# 5.5 decades of magnitudes at level 0. In a roll-up a bucket takes 2 to 6 bytes, so a busy minute stays below 4 kB.
MAX_BUCKETS: Final = 640

_PER_OCTAVE: Final = 35
# A bucket's width alone gives an error of tanh(ln(g) / 2) = 0.0099. The rest, a hundredth, covers what is rounded on
# the way to an answer. The width doubles with each level: tanh(2x) = 2·tanh(x) / (1 + tanh(x)²).
_RELATIVE_ERROR: Final = Fraction(1, 100)
# At this level all magnitudes are in one bucket.
_LEVELS: Final = 17

# A bucket is one int64: its key in the upper bits, by which it sorts, and its count in the lower ones. 2**44 events are
# 557 years of a thousand events a second.
_COUNT_BITS: Final = 44
_COUNT_MASK: Final = (1 << _COUNT_BITS) - 1

_LEAST_NORMAL: Final = 2.0**-1022
_LEAST: Final = 2.0**-1074

Keys = NDArray[np.int32]
Buckets = NDArray[np.int64]
"""Sorted by key, each key at most once, no count of 0."""

NO_BUCKETS: Buckets = np.empty(0, np.int64)


class Estimate(NamedTuple):
    """A percentile found in buckets: |value - true| <= relative_error * |true|. None: no bound is proven."""

    value: float
    relative_error: float | None


def _errors() -> list[float]:
    """The relative error at each level, rounded up to four decimals: 0.01, 0.02, 0.04, 0.0799, … 0.9884 at the eighth,
    which is the highest that MAX_BUCKETS can ask for.
    """
    errors = [_rounded_up(_RELATIVE_ERROR)]
    for _ in range(_LEVELS):
        error = Fraction(errors[-1])
        errors.append(_rounded_up(2 * error / (1 + error * error)))
    return errors


def _rounded_up(error: Fraction) -> float:
    """To four decimals. Raises OverflowError where it leaves float64."""
    rounded = ceil(error * 10_000) / 10_000
    return rounded if rounded >= error else nextafter(rounded, inf)


_ERRORS: Final = _errors()


def _octave() -> list[int]:
    """The mantissas of the boundaries in [1, 2], as integers times 2**-52: the least one at or above 2**(j / 35)."""
    boundaries = []
    for j in range(_PER_OCTAVE + 1):
        mantissa, power = int(2.0 ** (52 + j / _PER_OCTAVE)), 1 << (52 * _PER_OCTAVE + j)
        while mantissa**_PER_OCTAVE < power:
            mantissa += 1
        while (mantissa - 1) ** _PER_OCTAVE >= power:
            mantissa -= 1
        boundaries.append(mantissa)
    return boundaries


_BOUNDARIES: Final = np.array(_octave()) - (1 << 52)
# For each value of a mantissa's first 12 bits: the last boundary at or below the least such mantissa. A value's own
# boundary is this one or the next: boundaries lie 0.02 apart, these steps 0.0002.
_FIRST: Final = (_BOUNDARIES.searchsorted(np.arange(1 << 12) << 40, side="right") - 1).astype(np.int32)
_MANTISSA: Final = (1 << 52) - 1


def keys_of(values: Values) -> Keys:
    """Each value's key at level 0: int32[n] for finite float64[n]. About 10 ns a value."""
    bits = values.view(np.int64) & np.int64(0x7FFF_FFFF_FFFF_FFFF)
    mantissa = bits & _MANTISSA
    place = _FIRST.take(mantissa >> 40)
    place += mantissa >= _BOUNDARIES.take(place + 1)
    keys: Keys = (bits >> 52).astype(np.int32)
    keys -= 1
    keys *= np.int32(_PER_OCTAVE)
    keys += place
    keys += 1
    np.maximum(keys, 1, out=keys)  # subnormals
    keys[bits == 0] = 0
    np.negative(keys, out=keys, where=values < 0)
    return keys


def count_values(values: Values, *, in_order: bool = False) -> Buckets:
    """The buckets of some values at level 0. O(n): 12 ns a value that is `in_order` (rising)."""
    keys = keys_of(values)
    if not in_order:
        keys.sort()
    edges = np.flatnonzero(keys[1:] != keys[:-1])
    edges += 1
    first = np.empty(len(edges) + (len(keys) > 0), np.int64)
    if not len(first):
        return NO_BUCKETS
    first[0] = 0
    first[1:] = edges
    counts = np.empty_like(first)
    np.subtract(first[1:], first[:-1], out=counts[:-1])
    counts[-1] = len(keys) - first[-1]
    return _pack(keys[first].astype(np.int64), counts)


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """How many values lie in each bucket, at a level. The buckets are never changed."""

    level: int
    buckets: Buckets

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sketch):
            return NotImplemented
        return self.level == other.level and np.array_equal(self.buckets, other.buckets)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(cls, values: Values) -> Sketch:
        """The bounded sketch of some finite values in any order."""
        return cls(0, count_values(values)).bounded()

    @classmethod
    def of_counts(cls, level: int, keys: NDArray[np.int64], counts: NDArray[np.integer]) -> Sketch:
        """The sketch of some counts by key: keys of that level in any order, which may repeat."""
        return cls(level, _add_up(_pack(keys, counts)))

    @property
    def relative_error(self) -> float:
        """The error bound of any rank's answer: |answer - value| <= relative_error * |value|, for each value that is 0,
        or at least 2.4e-308 away from 0 (at level 0; further levels need more).
        """
        return _ERRORS[min(self.level, _LEVELS)]

    def keys(self) -> NDArray[np.int64]:
        return self.buckets >> _COUNT_BITS

    def counts(self) -> NDArray[np.int64]:
        return self.buckets & _COUNT_MASK

    def at_level(self, level: int) -> Sketch:
        """The sketch with neighbouring buckets merged until it has that level, which is not below its own."""
        if level == self.level:
            return self
        keys = self.keys()
        # Buckets 1 and 2 become 1, -1 and -2 become -1; zero stays alone.
        merged = np.sign(keys) * ((np.abs(keys) - 1 >> level - self.level) + 1)
        return Sketch(level, _add_up(_pack(merged, self.counts())))

    def bounded(self) -> Sketch:
        """The sketch at the lowest level, from its own on, at which MAX_BUCKETS suffice."""
        sketch = self
        while len(sketch.buckets) > MAX_BUCKETS:
            sketch = sketch.at_level(sketch.level + 1)
        return sketch

    def edges(self, low: float, high: float) -> list[tuple[float, float]]:
        """For each bucket the two numbers between which its values lie, rising, when all values are in [low, high]."""
        pairs = (_ends(key, self.level, low, high) for key in self.keys().tolist())
        return [(float(least), float(greatest)) for least, greatest in pairs]

    def percentiles(self, ps: Sequence[Percent], low: float, high: float) -> list[Estimate]:
        """Estimates of the n values' percentiles, as `exact.percentile_position` defines them, with their error bounds.

        `low` and `high` are the least and the greatest value: no answer lies beyond them, and they are the exact
        answers for ranks 0 and n - 1. Needs at least one value. About 10 µs, and 2 µs for each of `ps`.
        """
        keys = self.keys()
        below = self.counts().cumsum()
        n = int(below[-1])
        positions = [percentile_position(p, n) for p in ps]
        ranks = [rank for lower, _, _ in positions for rank in (lower, min(lower + 1, n - 1))]
        found: list[int] = keys[below.searchsorted(np.array(ranks, np.int64), side="right")].tolist()
        points = {key: self._point(key, low, high) for key in set(found)}
        answers = [
            low if rank == 0 else high if rank == n - 1 else points[key] for rank, key in zip(ranks, found, strict=True)
        ]
        estimates = []
        for i, (_, part, of) in enumerate(positions):
            pair = slice(2 * i, 2 * i + 2)
            a, b = answers[pair]
            value = interpolate(a, b, part, of)
            error: float | None = self.relative_error
            if (
                (part and a < 0.0 < b)
                or (abs(value) < _LEAST_NORMAL and (a or b))
                or not {1, -1}.isdisjoint(found[pair])
            ):
                ends = [self._ends(*at, n, low, high) for at in zip(ranks[pair], found[pair], strict=True)]
                least, most = (x + (y - x) * part / of for x, y in zip(*ends, strict=True))
                error = _proven(value, least, most)
                error = None if error is None else max(error, self.relative_error)
            estimates.append(Estimate(value, error))
        return estimates

    def _point(self, key: int, low: float, high: float) -> float:
        """The point whose relative distance to both ends of the bucket is the same: 2ab / (a + b)."""
        if abs(key) == 1:  # this bucket begins at the float64 next to zero, or at the value that is nearest to it
            a, b = _ends(key, self.level, low, high)
            return float(2 * a * b / (a + b))
        return min(max(_middle(key, self.level), low), high)

    def _ends(self, rank: int, key: int, n: int, low: float, high: float) -> tuple[Fraction, Fraction]:
        """The two numbers between which the value of that rank lies, both included."""
        if rank in (0, n - 1):
            return (Fraction(low if rank == 0 else high),) * 2
        return _ends(key, self.level, low, high)


EMPTY = Sketch(0, NO_BUCKETS)


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """The sketch of the values of all sketches, at the highest of their levels and not bounded.

    O(buckets): 6 ns each for many.
    """
    some = [sketch for sketch in sketches if len(sketch.buckets)]
    if len(some) < 2:
        return some[0] if some else EMPTY
    level = max(sketch.level for sketch in some)
    return Sketch(level, _add_up(np.concatenate([sketch.at_level(level).buckets for sketch in some])))


def _pack(keys: NDArray[np.int64], counts: NDArray[np.integer]) -> Buckets:
    buckets: Buckets = keys << _COUNT_BITS
    buckets += counts.astype(np.int64, copy=False)
    return buckets


def _add_up(buckets: Buckets) -> Buckets:
    """Put buckets in order, and add the counts of equal keys."""
    if len(buckets) > 4_096:
        # Sorting 8,000, 100,000 and 600,000 buckets takes 65, 720 and 6,800 µs. Counting them into an array with a
        # place for each possible key takes 21, 310 and 3,500, and up to 300 for few buckets whose keys lie far apart.
        keys = buckets >> _COUNT_BITS
        lowest = int(keys.min())
        # Counted in float64, which is exact below 2**53.
        counts = np.bincount(keys - lowest, weights=buckets & _COUNT_MASK).astype(np.int64)
        taken = np.flatnonzero(counts)
        return _pack(taken + lowest, counts[taken])
    ordered = np.sort(buckets)
    keys = ordered >> _COUNT_BITS
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return _pack(keys[first], np.add.reduceat(ordered & _COUNT_MASK, first))


def _middle(key: int, level: int) -> float:
    """The point whose relative distance to both ends of the bucket is the same. Both must be normal numbers."""
    if key == 0:
        return 0.0
    # The ends' ratio a / b is taken as a power of two. The point of the topmost bucket may leave float64: the caller
    # limits it to the greatest value.
    middle: float = _boundary(abs(key) - 1 << level) * (2.0 / (1.0 + 2.0 ** (-(1 << level) / _PER_OCTAVE)))
    return middle if key > 0 else -middle


def _boundary(steps: int) -> float:
    """The least float64 at or above g**steps · 2**-1022; infinite where there is none."""
    octave, j = divmod(steps, _PER_OCTAVE)
    return (1.0 + int(_BOUNDARIES[j]) * 2.0**-52) * 2.0 ** (octave - 1022) if octave <= 2045 else inf


def _ends(key: int, level: int, low: float, high: float) -> tuple[Fraction, Fraction]:
    """The least and the greatest number that the bucket may hold, when all values are in [low, high]."""
    if key == 0:
        return Fraction(), Fraction()
    size = abs(key)
    least = _LEAST if size == 1 else _boundary(size - 1 << level)
    greatest = _boundary(size << level)
    first, last = (least, greatest) if key > 0 else (-greatest, -least)
    return Fraction(max(first, low)), Fraction(min(last, high))


def _proven(value: float, low: Fraction, high: Fraction) -> float | None:
    """The largest relative error of `value` as an estimate of any number in [low, high]; None if it is unbounded."""
    if low <= 0 <= high:
        return 0.0 if low == high == value else None
    try:
        return _rounded_up(max(abs(Fraction(value) - end) / abs(end) for end in (low, high)))
    except OverflowError:
        return None
