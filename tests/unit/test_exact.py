"""scaled_sums and what is rounded from them, against fractions and the statistics module."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statsapi.engine import exact
from statsapi.model import Values
from tests import oracles

finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
LARGEST = 1.7976931348623157e308
TINIEST = 5e-324


def any_bits(rng: np.random.Generator, n: int) -> Values:
    bits = rng.integers(0, 2**64, 2 * n + 10, np.uint64).view(np.float64)
    return bits[np.isfinite(bits)][:n]


# Each one takes another way through scaled_sums: one grid, a digit for each eight exponents, scaling up or down, zeros.
SHAPES: dict[str, Callable[[np.random.Generator, int], Values]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "decimals": lambda rng, n: np.round(rng.random(n) * 100, 1),
    "integers": lambda rng, n: rng.integers(-1000, 1000, n).astype(float),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.5, 0.0, -0.0),
    "spread over 20 decades": lambda rng, n: 10.0 ** rng.uniform(-10, 10, n),
    "spread over 600 decades": lambda rng, n: 10.0 ** rng.uniform(-320, 308, n) * rng.choice((-1, 1), n),
    "any bits": any_bits,
    "powers of two": lambda rng, n: np.float64(2.0) ** rng.integers(-1074, 1024, n),
    "just below a power of two": lambda rng, n: np.full(n, np.nextafter(2.0, 0.0)),
    "largest": lambda rng, n: np.full(n, LARGEST),
    "huge": lambda rng, n: rng.uniform(-1, 1, n) * LARGEST,
    "tiniest": lambda rng, n: np.full(n, -TINIEST),
    "subnormal": lambda rng, n: rng.integers(-(2**52), 2**52, n) * np.float64(TINIEST),
    "huge and tiniest": lambda rng, n: np.where(rng.random(n) < 0.5, LARGEST, TINIEST),
    "huge and ordinary": lambda rng, n: np.where(rng.random(n) < 0.1, -1e300, rng.standard_normal(n)),
    "about the upper bound of scaling": lambda rng, n: 2.0 ** rng.uniform(470, 490, n),
    "about the lower bound of scaling": lambda rng, n: 2.0 ** rng.uniform(-410, -390, n),
    "where a scaled value turns subnormal": lambda rng, n: 2.0 ** rng.uniform(-520, 500, n),
}


# The mantissas whose limbs and products are largest, where sums of 8,192 of them need all 53 bits.
FULL = ["0x1.fffffffffffffp7", "0x1.ffeffffffffffp7", "0x1.ffe001fffffffp7", "0x1.00100000fffffp0", "0x1.fff7fffffp7"]


@pytest.mark.parametrize("mantissa", FULL)
def test_digits_of_full_blocks_are_exact(mantissa: str) -> None:
    """However large the limbs are, no sum of a block's is rounded; two magnitudes keep it from having one grid."""
    values = np.full(exact._BLOCK, float.fromhex(mantissa))
    values[:200] *= 2.0**-800
    values[200:400] *= 2.0**-8
    for signs in (1.0, np.resize([1.0, -1.0, 1.0], len(values))):
        assert exact.scaled_sums(values * signs) == oracles.scaled_sums((values * signs).tolist())


@pytest.mark.parametrize("n", [0, 1, 2, exact._FEW, exact._FEW + 1, 200, 1025])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_exact_for_every_shape_and_size(shape: str, n: int) -> None:
    """Σx and Σx² are those of fractions, whichever way they were computed."""
    values = SHAPES[shape](np.random.default_rng(n), n)
    assert exact.scaled_sums(values) == oracles.scaled_sums(values.tolist())


@pytest.mark.parametrize("shape", ["normal", "largest", "just below a power of two", "any bits", "tiniest"])
def test_sums_over_more_than_one_block_are_exact(shape: str) -> None:
    """A full block, where products of limbs come closest to 2**53, and the short one after it add up."""
    values = SHAPES[shape](np.random.default_rng(5), exact._BLOCK + 100)
    assert exact.scaled_sums(values) == oracles.scaled_sums(values.tolist())


@given(st.lists(finite, max_size=40), st.integers(1, 6), st.randoms(use_true_random=False))
def test_sums_are_exact_for_wild_values(values: list[float], times: int, rng: random.Random) -> None:
    """Any mix of magnitudes, repeated and shuffled, sums without error."""
    values = values * times
    rng.shuffle(values)
    assert exact.scaled_sums(np.array(values)) == oracles.scaled_sums(values)


@settings(max_examples=settings.default.max_examples // 2)
@given(finite, st.integers(0, 60), st.integers(exact._FEW + 1, 300), st.integers(0, 2**32))
def test_sums_are_exact_about_any_magnitude(centre: float, bits: int, n: int, seed: int) -> None:
    """Values within some powers of two of one another, anywhere in float64, sum without error."""
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        values = centre * rng.uniform(-1, 1, n) * 2.0 ** rng.integers(-bits, 1, n)
    assert exact.scaled_sums(values) == oracles.scaled_sums(values.tolist())


@pytest.mark.parametrize(("n", "step"), [(1, 1), (5, 2), (64, 8), (1000, 128), (1024, 128), (exact._BLOCK, 4096)])
@pytest.mark.parametrize("shape", SHAPES)
def test_cumulative_sums_are_exact_at_every_place(shape: str, n: int, step: int) -> None:
    """Whatever is noted of the first step, 2·step, … values, and of all, is what they sum up to."""
    values = SHAPES[shape](np.random.default_rng(n), n)
    cumulative = exact.CumulativeSums.of(values, step)
    if cumulative is None:
        assert exact._sums_by_limbs(values) is None  # the same limit, met by the sums' other ways
        return
    assert cumulative.whole == oracles.scaled_sums(values.tolist())
    for place in range(step, n + 1, step):
        assert cumulative.before(place) == oracles.scaled_sums(values[:place].tolist())


def test_cumulative_sums_are_not_made_of_too_many() -> None:
    """Beyond a block the limbs' sums would leave 53 bits."""
    assert exact.CumulativeSums.of(np.ones(exact._BLOCK + 1), 128) is None


def test_input_is_left_alone() -> None:
    """A read-only, strided input works and is not written to."""
    values = np.arange(1000.0)[::3]
    values.flags.writeable = False
    assert exact.scaled_sums(values) == oracles.scaled_sums(list(range(0, 1000, 3)))


def of(values: list[float]) -> tuple[int, int, int]:
    return len(values), *exact.scaled_sums(np.array(values, np.float64))


def outcome(call: Callable[[], float | None]) -> float | str | None:
    try:
        return call()
    except OverflowError:
        return "overflow"


def assert_as_statistics(values: list[float]) -> None:
    count, total, squares = of(values)
    assert exact.mean(count, total) == statistics.mean(values)
    assert outcome(lambda: exact.rounded_sum(total)) == outcome(lambda: float(sum(map(Fraction, values))))
    if count > 1:
        variance = outcome(lambda: statistics.variance(values))
        assert outcome(lambda: exact.variance(count, total, squares)) == variance
        assert outcome(lambda: exact.stddev(count, total, squares)) == outcome(lambda: statistics.stdev(values))


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(finite, min_size=1, max_size=30))
def test_lowering_equals_statistics_for_wild_values(values: list[float]) -> None:
    """mean, variance and stddev are those of the statistics module bit for bit, overflow included."""
    assert_as_statistics(values)


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from([0.0, 1e9, 1e15]))
def test_lowering_equals_statistics_for_close_values(values: list[float], offset: float) -> None:
    """Values that share their leading digits, where float sums cancel, lower to the same bits."""
    assert_as_statistics([value + offset for value in values])


@pytest.mark.parametrize(
    "values",
    [
        [1e308] * 3,
        [1e16, 1.0, -1e16],
        [1e200, -1e200],
        [LARGEST, -LARGEST],
        [TINIEST, 0.0],
        [TINIEST] * 3,
        [0.1] * 10,
        [-0.0, 0.0],
        [4.0, 4.0, 4.0 + 2**-50],
    ],
    ids=str,
)
def test_lowering_equals_statistics_where_others_fail(values: list[float]) -> None:
    """Overflowing sums, cancelling sums and subnormals come out as in the statistics module."""
    assert_as_statistics(values)


def test_undefined_is_none() -> None:
    """No values have no mean, one value has no variance."""
    assert exact.mean(0, 0) is None
    assert exact.variance(*of([1.0])) is exact.stddev(*of([1.0])) is None


def test_stddev_exists_where_the_variance_overflows() -> None:
    """The root of a variance beyond float64 is rounded from the exact fraction."""
    count, total, squares = of([1e200, -1e200])
    with pytest.raises(OverflowError):
        exact.variance(count, total, squares)
    assert exact.stddev(count, total, squares) == 1.414213562373095e200


def test_root_is_rounded_once() -> None:
    """Halfway between two floats the root goes to the nearer, also when it lies ever so little off the middle."""
    for numerator in range(1, 2000):
        root = exact._rounded_root(numerator, 7)
        below, above = (Fraction(math.nextafter(root, to)) for to in (-math.inf, math.inf))
        middle_below, middle_above = (below + Fraction(root)) / 2, (above + Fraction(root)) / 2
        assert middle_below**2 <= Fraction(numerator, 7) <= middle_above**2
    middle = 2**53 + 1  # between 2**53 and 2**53 + 2
    assert exact._rounded_root(middle**2, 1) == 2.0**53
    assert exact._rounded_root(middle**2 * 4**60 + 1, 4**60) == 2.0**53 + 2
    assert exact._rounded_root(middle**2 * 4**60 - 1, 4**60) == 2.0**53
