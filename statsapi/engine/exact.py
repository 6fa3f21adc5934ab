"""Exact sums of float64 arrays as Python integers, and the statistics made from them, rounded once.

Every finite float64 is an integer multiple of 2**-1074, so Σx is an integer scaled by 2**1074 and Σx² one scaled
by 2**2148. Integers add without error and in any order. So expiry by subtraction, merging and roll-ups all give the
same bits as one sum over the remaining events.

How an array is summed (`scaled_sums`): each value is cut into signed limbs of B bits on one grid for the array,

    x = l0 + l1 + l2 + l3,      l_i an integer multiple of u_i,   |l_i| <= 2**(B-1) · u_i,   u_(i+1) = u_i / 2**B

by the error-free extraction `l = (x + s) - s` with s = 1.5 · 2**52 · u (Rump, Ogita & Oishi, "Accurate
floating-point summation", 2008). With n <= 2**13 values and B = 21 each dot product of two limbs is an integer of at
most 53 bits times a power of two, and so is every partial sum on the way: numpy computes it exactly, in any order.
Then Σx = Σ_i Σ l_i and Σx² = Σ_ij l_i·l_j are put together in Python integers. Arrays for which four limbs are too few
are summed by exponents instead (`_sums_by_exponent`).

Pure functions: no state, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.model import Percent, Values

SUM_SCALE_BITS = 1074
SQUARES_SCALE_BITS = 2 * SUM_SCALE_BITS

# Up to this many values plain Python integers are faster: they cost 0.6 µs a value, numpy's small calls 37 µs in all.
_FEW = 64
# The limbs of a block fit the second-level cache. Also, BLAS keeps a dot product of up to 10,000 elements on the
# calling thread, so no hidden threads start in a worker that is pinned to one core.
_BLOCK = 8_192
# For magnitudes far apart Python integers are faster up to this many values: `_sums_by_exponent` costs at least 100 µs.
_FEW_FAR_APART = 150
# Four limbs of 21 bits reach 84 bits below the largest value: 53 for the value itself, 31 for the spread of
# magnitudes in the array. Normal, log-normal or decimal data spread over some 15.
_LIMBS = 4
# Between these no product of two limbs is subnormal or near overflow; outside, values are scaled first.
_LOW, _HIGH = 2.0**-400, 2.0**480


def scaled_sums(values: Values) -> tuple[int, int]:
    """Return (Σx · 2**1074, Σx² · 2**2148), both exact.

    `values` is a one-dimensional float64 array of any length and is not changed. Subnormals, ±1.8e308 and any mix of
    them are fine; the caller keeps out NaN and infinities. O(n): 6 ns a value while magnitudes differ by less than
    2**31, 25 ns when they differ by more.
    """
    n = len(values)
    if n <= _FEW:
        return _sums_of_few(values)
    total = squares = 0
    for start in range(0, n, _BLOCK):
        block = values[start : start + _BLOCK]
        sums = _sums_by_limbs(block) or _sums_by_exponent(block)
        total += sums[0]
        squares += sums[1]
    return total, squares


def _sums_of_few(values: Values) -> tuple[int, int]:
    total = squares = 0
    for value in values.tolist():
        numerator, denominator = value.as_integer_ratio()
        shift = SUM_SCALE_BITS + 1 - denominator.bit_length()  # the denominator is a power of two
        total += numerator << shift
        squares += numerator * numerator << 2 * shift
    return total, squares


class CumulativeSums:
    """The exact sums of the first `step`, 2·step, 3·step, … of some values, kept so that a sum up to any place is fast.

    `digits` int64[places, d] holds d = 3m - 1 integers for each place, with m limbs, see _Grid: 88 bytes at most, where
    a pair of Python integers takes 450. Making them takes little longer than one sum of all values.
    """

    __slots__ = ("_grid", "digits", "step", "whole")

    def __init__(self, limbs: Values, grid: _Grid, step: int) -> None:
        """From the result of `_cut`. Callers use `CumulativeSums.of`."""
        if missing := -limbs.shape[1] % step:
            limbs = np.pad(limbs, ((0, 0), (0, missing)))
        self._grid = grid
        self.step = step
        sums = _sums_of_limbs(limbs.reshape(len(limbs), -1, step)).cumsum(axis=1)
        integers = np.ldexp(sums, np.array(grid.exponents())[:, np.newaxis]).astype(np.int64)
        self.digits = np.stack(grid.digits(list(integers)), axis=1)
        self.whole = grid.put_together(self.digits[-1].tolist())

    @classmethod
    def noted(cls, scale: Sequence[int], digits: NDArray[np.int64], whole: tuple[int, int]) -> CumulativeSums:
        """Make the sums again from their `scale`, `digits` and `whole`, which somebody kept."""
        sums = cls.__new__(cls)
        *grid, sums.step = scale
        sums._grid = _Grid(*grid)
        sums.digits = digits
        sums.whole = whole
        return sums

    @property
    def scale(self) -> tuple[int, ...]:
        """The five integers that `noted` needs beside `digits` and `whole`."""
        return *self._grid, self.step

    @classmethod
    def of(cls, values: Values, step: int) -> CumulativeSums | None:
        """None for more than 8,192 values, or when their magnitudes are too far apart. O(n), as `scaled_sums`."""
        cut = _cut(values) if len(values) <= _BLOCK else None
        return None if cut is None else cls(*cut, step)

    def before(self, place: int) -> tuple[int, int]:
        """(Σx · 2**1074, Σx² · 2**2148) of the first `place` values, a multiple of `step` above 0. About 2 µs."""
        return self._grid.put_together(self.digits[place // self.step - 1].tolist())


class _Grid(NamedTuple):
    """The units of an array's limbs: limb i is a multiple of 2**(unit - i · bits). Values were scaled by 2**scaling.

    The sums of some of the values are m digits for Σx, one for each limb, and 2m - 1 for Σx²: one for all products
    l_i·l_j of the same weight i + j. The highest digit comes first, and each counts 2**bits times the next. Nothing is
    carried over: digits have any sign and go up to 2**55.
    """

    limbs: int
    bits: int
    unit: int
    scaling: int

    def exponents(self) -> list[int]:
        """The exponents e: each sum s of `_sums_of_limbs`, as s · 2**e, is an integer count of its limbs' own units."""
        m, bits, unit, _ = self
        return [i * bits - unit for i in range(m)] + [(i + j) * bits - 2 * unit for i, j in _pairs(m)]

    def digits(self, integers: list[Any]) -> list[Any]:
        """The digits from those integers, which are Python's or int64 columns."""
        m = self.limbs
        squares: list[Any] = [0] * (2 * m - 1)
        for products, (i, j) in zip(integers[m:], _pairs(m), strict=True):
            squares[i + j] = squares[i + j] + (products if i == j else 2 * products)
        return integers[:m] + squares

    def put_together(self, digits: list[int]) -> tuple[int, int]:
        """The scaled sums from one row of `digits`."""
        m, bits, unit, scaling = self
        total = squares = 0
        for digit in digits[:m]:
            total = (total << bits) + digit
        for digit in digits[m:]:
            squares = (squares << bits) + digit
        lowest = unit - (m - 1) * bits - scaling
        return _shift(total, SUM_SCALE_BITS + lowest), _shift(squares, SQUARES_SCALE_BITS + 2 * lowest)


@cache
def _pairs(m: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(m) for j in range(i, m)]


def _sums_of_limbs(limbs: Values) -> Values:
    """Σ l_i, then Σ l_i·l_j for j >= i, over the last axis: each an exact float64."""
    # Refused: limbs @ limbs.T. It is as fast, but BLAS may start threads for it, in a worker pinned to one core.
    products = [np.vecdot(limbs[i:], limbs[i]) for i in range(len(limbs))]
    return np.concatenate([limbs.sum(axis=-1), *products])


def _sums_by_limbs(values: Values) -> tuple[int, int] | None:
    """The sums of at most _BLOCK values, or None when their magnitudes are too far apart for _LIMBS limbs."""
    cut = _cut(values)
    if cut is None:
        return None
    limbs, grid = cut
    sums = _sums_of_limbs(limbs).tolist()
    integers = [int(math.ldexp(each, exponent)) for each, exponent in zip(sums, grid.exponents(), strict=True)]
    return grid.put_together(grid.digits(integers))


def _cut(values: Values) -> tuple[Values, _Grid] | None:
    """At most _BLOCK values (one or more) as limbs[i, v], or None when their magnitudes are too far apart."""
    n = len(values)
    largest = max(float(values.max()), -float(values.min()))
    scaling = 600 if 0.0 < largest < _LOW else -560 if largest > _HIGH else 0
    source = values
    if scaling:
        source = values * 2.0**scaling
        # Scaling down may make a product subnormal, which loses bits. Scaling up is exact.
        if scaling < 0 and not (source * 2.0**-scaling == values).all():
            return None
        largest *= 2.0**scaling
    # A sum of n products of two limbs is at most n · 2**(2B - 2) units. It must not exceed 2**53.
    bits = (55 - (n - 1).bit_length()) // 2
    unit = math.frexp(largest)[1] - bits + 1  # u_0 is 2**unit; largest < 2**(bits - 1) · u_0
    limbs = np.empty((_LIMBS, n))
    rest = np.empty(n)
    for i, limb in enumerate(limbs):
        grid = math.ldexp(1.5, 52 + unit - i * bits)
        np.add(source, grid, out=limb)
        limb -= grid
        np.subtract(source, limb, out=rest)
        # While a rest is left, a look at the first few values mostly finds it and saves a look at all.
        if not rest[:32].any() and not rest.any():
            return limbs[: i + 1], _Grid(i + 1, bits, unit, scaling)
        source = rest
    return None


def _shift(scaled: int, bits: int) -> int:
    """`scaled` · 2**bits, for a result that is known to be an integer."""
    return scaled << bits if bits >= 0 else scaled >> -bits


def _sums_by_exponent(values: Values) -> tuple[int, int]:
    """The sums of at most _BLOCK values of any magnitudes: a superaccumulator with a digit for each eight exponents.

    With x = y · 2**(8g - 1023) and 1 <= |y| < 2**8, every y has 60 bits on one grid, for any g, and is cut into

        y = l0 + l1 + l2,    |l0| <= 2**19 units of 2**-11,    |l1| <= 2**19 of 2**-31,    |l2| <= 2**20 of 2**-52

    For 2**13 values the sums of l0, of l1 + l2, and of the products of one weight are integers of at most 53 bits in
    their units. They are computed for each g, and put together in Python integers.
    """
    if len(values) <= _FEW_FAR_APART:
        return _sums_of_few(values)
    bits = np.ascontiguousarray(values).view(np.int64)
    exponent = (bits >> 52) & 0x7FF
    subnormal = exponent == 0  # true for zeros as well
    if subnormal.any():
        total, squares = _sums_of_subnormals(values[subnormal])
        of_others = _sums_by_exponent(values[~subnormal])
        return total + of_others[0], squares + of_others[1]
    group = (exponent >> 3).astype(np.uint8)
    order = group.argsort(kind="stable")  # by radix: 2 ns a value; bincount in place of it took 1 to 4 for each sum
    group = group[order]
    exponent &= 7
    exponent += 1023
    exponent <<= 52
    bits = bits & ~(0x7FF << 52)
    bits |= exponent
    y = bits.view(np.float64)[order]
    l0 = y + _UPPER_CUT
    l0 -= _UPPER_CUT
    rest = np.subtract(y, l0, out=y)
    l1 = rest + _LOWER_CUT
    l1 -= _LOWER_CUT
    l2 = rest - l1
    l0_l2 = l0 * l2
    l0_l2 *= 2.0
    starts = np.flatnonzero(np.diff(group, prepend=group[0] ^ 1))
    first, last = int(group[0]), int(group[-1])
    places = group[starts].astype(np.intp) - first
    digits = np.zeros((7, last - first + 1), np.int64)
    products = (l0 * l0, l0 * l1, l1 * l1 + l0_l2, l1 * l2, l2 * l2)
    for row, (column, unit) in enumerate(zip((l0, rest, *products), _UNITS, strict=True)):
        digits[row, places] = np.ldexp(np.add.reduceat(column, starts), -unit).astype(np.int64)
    # The digits of Σx are 8 bits apart, those of Σx² 16. Pairs of the former are added, so that both are 16 apart.
    sums = np.pad(digits[:2], ((0, 0), (0, digits.shape[1] % 2))).reshape(2, -1, 2)
    upper, lower = _read_digits(sums[..., 0] + (sums[..., 1] << 8))
    base = 8 * first - 1023
    total = _shift(upper, base + _UNITS[0] + SUM_SCALE_BITS) + _shift(lower, base + _UNITS[1] + SUM_SCALE_BITS)
    squares = 0
    lowest = _UNITS[-1]
    for product, unit, times in zip(_read_digits(digits[2:]), _UNITS[2:], (1, 2, 1, 2, 1), strict=True):
        squares += times * product << unit - lowest
    return total, _shift(squares, 2 * base + lowest + SQUARES_SCALE_BITS)


_UPPER_CUT = 1.5 * 2.0 ** (52 - 11)
_LOWER_CUT = 1.5 * 2.0 ** (52 - 31)
# The units, as exponents of two, of l0, of l1 + l2, and of the products l0·l0, l0·l1, l1·l1 + 2·l0·l2, l1·l2 and l2·l2.
_UNITS = (-11, -52, -22, -42, -62, -83, -104)


def _sums_of_subnormals(values: Values) -> tuple[int, int]:
    """The sums of subnormals and zeros. All are below 2**52 units of 2**-1074, so four limbs always suffice."""
    sums = _sums_by_limbs(values)
    if sums is None:
        raise AssertionError("subnormals have at most 52 bits")
    return sums


def _read_digits(digits: NDArray[np.int64]) -> list[int]:
    """Each row's integer Σ digits[k] · 2**(16k), for digits of any sign and up to 2**62. 5 µs for a row of 128."""
    rows, count = digits.shape
    digits = np.pad(digits, ((0, 0), (0, -count % 4)))
    # Every fourth digit is 64 bits further on: such digits, made positive by 2**62, are the words of one integer.
    apart = digits.reshape(rows, -1, 4).transpose(0, 2, 1) + 2**62
    offset = int.from_bytes(b"\0\0\0\0\0\0\0\x40" * apart.shape[2], "little")
    read = int.from_bytes
    return [
        sum(read(part.tobytes(), "little") - offset << 16 * place for place, part in enumerate(row)) for row in apart
    ]


def rounded_sum(total: int) -> float:
    """The float64 nearest to Σx, ties to even. `total` is Σx · 2**1074.

    Raises OverflowError when the exact sum leaves float64 (the sum of [1e308] * 3 does; its mean does not).
    """
    return total / (1 << SUM_SCALE_BITS)  # Python's int / int rounds correctly, once


def mean(count: int, total: int) -> float | None:
    """The float64 nearest to Σx / count, equal to `statistics.mean` bit for bit; None for no values. No overflow."""
    return total / (count << SUM_SCALE_BITS) if count else None


def variance(count: int, total: int, squares: int) -> float | None:
    """The float64 nearest to the sample variance, equal to `statistics.variance` bit for bit; None below two values.

    Raises OverflowError when the exact variance leaves float64 ([1e200, -1e200]); `stddev` may still exist.
    """
    if count < 2:
        return None
    numerator, denominator = _variance_ratio(count, total, squares)
    return numerator / denominator


def stddev(count: int, total: int, squares: int) -> float | None:
    """The float64 nearest to the root of the exact sample variance, equal to `statistics.stdev`; None below two values.

    It is rounded once: the root is taken of the exact variance, which may be too large for float64. Raises
    OverflowError when the root itself leaves float64 ([1.7e308, -1.7e308]).
    """
    if count < 2:
        return None
    return _rounded_root(*_variance_ratio(count, total, squares))


class RankPosition(NamedTuple):
    """Where a percentile lies among sorted values: at `lower` + `part` / `of`, between two ranks.

    Ranks count from 0; 0 <= part < of. With part 0 the rank above `lower` need not exist.
    """

    lower: int
    part: int
    of: int


def percentile_position(p: Percent, n: int) -> RankPosition:
    """The position h = p · (n - 1) / 100 among n values. This is the one definition of a percentile here: linear
    interpolation between closest ranks, type 7 of Hyndman & Fan, "Sample quantiles in statistical packages" (1996).

    The division is of integers: p29 of 101 values is the value of rank 29, while 29 / 100 * 100 in floats is less.
    """
    numerator, denominator = p.as_integer_ratio()
    of = 100 * denominator
    lower, part = divmod((n - 1) * numerator, of)
    return RankPosition(lower, part, of)


def interpolate(low: float, high: float, part: int, of: int) -> float:
    """The float64 nearest to low + (high - low) · part / of. A zero has no sign. About 1 µs.

    Nothing is rounded on the way, so subnormals and neighbours more than 1.8e308 apart need no special case.
    """
    if part == 0 or low == high:
        return low + 0.0
    a, a_unit = low.as_integer_ratio()
    b, b_unit = high.as_integer_ratio()
    unit = max(a_unit, b_unit)  # both are powers of two
    return (a * (unit // a_unit) * (of - part) + b * (unit // b_unit) * part) / (unit * of) + 0.0


def _variance_ratio(count: int, total: int, squares: int) -> tuple[int, int]:
    """(n·Σx² − (Σx)²) / (n·(n−1)) as two integers. Nothing is rounded, so no digits cancel."""
    return count * squares - total * total, count * (count - 1) << SQUARES_SCALE_BITS


def _rounded_root(numerator: int, denominator: int) -> float:
    """The float64 nearest to sqrt(numerator / denominator), for numerator >= 0 and denominator > 0.

    As in CPython's statistics module: an integer root of 55 bits or more is rounded to odd, so that the division that
    follows cannot round twice (Boldo & Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
    """
    if numerator == 0:
        return 0.0
    half_shift = (numerator.bit_length() - denominator.bit_length() - 109) // 2
    if half_shift >= 0:
        return float(_root_to_odd(numerator, denominator << 2 * half_shift) << half_shift)
    return _root_to_odd(numerator << -2 * half_shift, denominator) / (1 << -half_shift)


def _root_to_odd(numerator: int, denominator: int) -> int:
    """floor(sqrt(numerator / denominator)), made odd when it is not exact."""
    root = math.isqrt(numerator // denominator)
    return root | (root * root * denominator != numerator)
