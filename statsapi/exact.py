"""Exact sums of float64 arrays as Python integers, and the statistics that are rounded from them once.

Every finite float64 is an integer multiple of 2**-1074, so Σx is an integer scaled by 2**1074 and Σx² one scaled
by 2**2148. Integers add without error and in any order, so whatever is built on them (expiry by subtraction,
merging, roll-ups) gives the same bits as one sum over the events that are left.

How an array is summed (`scaled_sums`): each value is cut into signed limbs of B bits on one grid for the array,

    x = l0 + l1 + l2 + l3,      l_i an integer multiple of u_i,   |l_i| <= 2**(B-1) · u_i,   u_(i+1) = u_i / 2**B

by the error-free extraction `l = (x + s) - s` with s = 1.5 · 2**52 · u (Rump, Ogita & Oishi, "Accurate
floating-point summation", 2008). With n <= 2**13 values and B = 21 each dot product of two limbs is an integer of at
most 53 bits times a power of two, and so is every partial sum on the way: numpy computes it exactly, in whatever
order it likes. Then Σx = Σ_i Σ l_i and Σx² = Σ_ij l_i·l_j are put together in Python integers.

Pure functions: no state, no I/O; numpy and the standard library only.
"""

from __future__ import annotations

import math

import numpy as np

from statsapi.model import Values

SUM_SCALE_BITS = 1074
SQUARES_SCALE_BITS = 2 * SUM_SCALE_BITS

# Up to here plain Python integers win; they cost 0.6 µs a value, numpy's small calls 37 µs in all.
_FEW = 64
# The limbs of a block fit the second-level cache. Also, BLAS keeps a dot product of up to 10,000 elements on the
# calling thread, so no hidden threads start in a worker that is pinned to one core.
_BLOCK = 8_192
# Four limbs of 21 bits reach 84 bits below the largest value: 53 for the value itself, 31 for the spread of
# magnitudes in the array. Normal, log-normal or decimal data spread over some 15.
_LIMBS = 4
_SPREAD = 2.0**-30
# Between these no product of two limbs is subnormal or near overflow; outside, values are scaled first.
_LOW, _HIGH = 2.0**-400, 2.0**480


def scaled_sums(values: Values) -> tuple[int, int]:
    """Return (Σx · 2**1074, Σx² · 2**2148), both exact.

    `values` is a one-dimensional float64 array of any length and is not changed; subnormals, ±1.8e308 and any mix of
    them are fine, NaN and infinities are the caller's to keep out. O(n): 25 ns a value while magnitudes differ by
    less than 2**31, 850 ns when they differ by hundreds of decades.
    """
    n = len(values)
    if n <= _FEW:
        return _sums_of_few(values)
    total = squares = 0
    for start in range(0, n, _BLOCK):
        block = values[start : start + _BLOCK]
        sums = _sums_by_limbs(block) or _sums_by_spread(block)
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


def _sums_by_limbs(values: Values) -> tuple[int, int] | None:
    """The sums of at most _BLOCK values, or None when their magnitudes are too far apart for _LIMBS limbs."""
    n = len(values)
    largest = max(float(values.max()), -float(values.min()))
    if largest == 0.0:
        return 0, 0
    scaling = 600 if largest < _LOW else -560 if largest > _HIGH else 0
    source = values
    if scaling:
        source = values * 2.0**scaling
        # Downwards, a product that is subnormal has lost bits. (Upwards all are exact.)
        if scaling < 0 and not (source * 2.0**-scaling == values).all():
            return None
        largest *= 2.0**scaling
    # A sum of n products of two limbs is at most n · 2**(2B - 2) units, which must not pass 2**53.
    bits = (55 - (n - 1).bit_length()) // 2
    unit = math.frexp(largest)[1] - bits + 1  # u_0 is 2**unit; largest < 2**(bits - 1) · u_0
    limbs = np.empty((_LIMBS, n))
    rest = np.empty(n)
    for i, limb in enumerate(limbs):
        grid = math.ldexp(1.5, 52 + unit - i * bits)
        np.add(source, grid, out=limb)
        limb -= grid
        np.subtract(source, limb, out=rest)
        # Looking at a few first saves looking at all, as long as there is something left.
        if not rest[:32].any() and not rest.any():
            break
        source = rest
    else:
        return None
    # In units of the last limb's grid: integers first, one shift at the end.
    lowest = unit - i * bits
    limbs = limbs[: i + 1]
    total = squares = 0
    for j, limb_sum in enumerate(limbs.sum(axis=1).tolist()):
        total += int(math.ldexp(limb_sum, j * bits - unit)) << (i - j) * bits
        # Not limbs @ limbs.T, which is as fast: BLAS may start threads for it, in a worker that is pinned to one core.
        for k, product in enumerate(np.vecdot(limbs[j:], limbs[j]).tolist(), j):
            units = int(math.ldexp(product, (j + k) * bits - 2 * unit))
            squares += units << (2 * i - j - k) * bits + (j < k)  # products off the diagonal count twice
    return (
        _shift(total, SUM_SCALE_BITS + lowest - scaling),
        _shift(squares, SQUARES_SCALE_BITS + 2 * (lowest - scaling)),
    )


def _shift(scaled: int, bits: int) -> int:
    """`scaled` · 2**bits, for a result that is known to be an integer."""
    return scaled << bits if bits >= 0 else scaled >> -bits


def _sums_by_spread(values: Values) -> tuple[int, int]:
    """The sums of values whose magnitudes lie far apart: by groups, largest first, each narrow enough for the limbs."""
    magnitudes = np.abs(values)
    order = magnitudes.argsort()
    magnitudes = magnitudes[order]
    ordered = values[order]
    total = squares = 0
    end = len(ordered)
    while end and (largest := float(magnitudes[end - 1])) > 0.0:
        start = int(magnitudes[:end].searchsorted(largest * _SPREAD))
        group = ordered[start:end]
        sums = (_sums_by_limbs(group) if end - start > _FEW else None) or _sums_of_few(group)
        total += sums[0]
        squares += sums[1]
        end = start
    return total, squares


def rounded_sum(total: int) -> float:
    """The float64 nearest to Σx, ties to even. `total` is Σx · 2**1074.

    Raises OverflowError when the exact sum leaves float64 (the sum of [1e308] * 3 does; its mean does not).
    """
    return total / (1 << SUM_SCALE_BITS)  # Python's int / int rounds correctly, once


def mean(count: int, total: int) -> float | None:
    """The float64 nearest to Σx / count, equal to `statistics.mean` bit for bit; None for no values. Never
    overflows.
    """
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

    It is rounded once: the root is not taken of a variance that was rounded, or had overflowed, before. Raises
    OverflowError when the root itself leaves float64 ([1.7e308, -1.7e308]).
    """
    if count < 2:
        return None
    return _rounded_root(*_variance_ratio(count, total, squares))


def _variance_ratio(count: int, total: int, squares: int) -> tuple[int, int]:
    """(n·Σx² − (Σx)²) / (n·(n−1)) as two integers: nothing cancels, for nothing is rounded."""
    return count * squares - total * total, count * (count - 1) << SQUARES_SCALE_BITS


def _rounded_root(numerator: int, denominator: int) -> float:
    """The float64 nearest to sqrt(numerator / denominator), for numerator >= 0 and denominator > 0.

    The way of CPython's statistics module: an integer root of 55 bits or more, rounded to odd, so that the division
    that follows cannot round twice (Boldo & Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
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
