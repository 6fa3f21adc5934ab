"""Summary is a commutative monoid, and lowers to what the statistics module answers."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.engine.summary import IDENTITY, Summary, combine
from tests import oracles

finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
bags = st.lists(finite | st.sampled_from([0.0, -0.0, 1e308, 5e-324]), max_size=20)


def of(values: list[float]) -> Summary:
    return Summary.of(np.array(values, np.float64))


@given(bags)
def test_lift_is_exact(values: list[float]) -> None:
    """The summary of an array is that of fractions."""
    assert of(values) == oracles.summary(values)


@given(bags)
def test_identity(values: list[float]) -> None:
    """Combining with the summary of nothing changes nothing, from either side."""
    assert combine(IDENTITY, of(values)) == combine(of(values), IDENTITY) == combine(of(values)) == of(values)
    assert combine() == combine(IDENTITY, IDENTITY) == of([]) == IDENTITY


@given(bags, bags, bags)
def test_combine_is_associative_and_commutative(a: list[float], b: list[float], c: list[float]) -> None:
    """Any grouping and any order of the same bags give equal summaries, and so does summing all at once."""
    x, y, z = of(a), of(b), of(c)
    together = of(a + b + c)
    assert combine(combine(x, y), z) == combine(x, combine(y, z)) == combine(z, x, y) == together


@given(bags, st.randoms(use_true_random=False))
def test_order_does_not_show(values: list[float], rng: random.Random) -> None:
    """The same values in another order have the same summary, to the sign of a zero."""
    shuffled = list(values)
    rng.shuffle(shuffled)
    assert repr(of(shuffled)) == repr(of(values))


def test_zeros_have_no_sign() -> None:
    """min and max of negative zeros are plain zero."""
    assert str(of([-0.0]).min) == str(of([-0.0, 0.0]).max) == str(of([-0.0]).mean) == "0.0"


@given(st.lists(finite, min_size=2, max_size=20))
def test_mean_is_that_of_statistics(values: list[float]) -> None:
    """Lowering gives the mean and extremes of the plain list."""
    summary = of(values)
    assert (summary.mean, summary.min, summary.max) == (statistics.mean(values), min(values), max(values))


@pytest.mark.parametrize(
    ("values", "beyond"),
    [
        ([], ()),
        ([1e308], ()),
        ([1.0, 2.0], ()),
        ([1e308] * 3, ("sum",)),
        ([1e200, -1e200], ("variance",)),
        ([1.7e308, -1.7e308], ("variance", "stddev")),
        ([1.7e308] * 3 + [-1.7e308], ("sum", "variance")),
    ],
    ids=str,
)
def test_what_leaves_float64_is_named(values: list[float], beyond: tuple[str, ...]) -> None:
    """A statistic that is too large for float64 is None and named; one that is undefined is None only."""
    summary = of(values)
    assert summary.beyond_float64() == beyond
    assert all(getattr(summary, name) is None for name in beyond)
    assert (summary.mean is None) == (not values)


def test_empty_and_single() -> None:
    """Nothing has no mean, sum, min or max; one value has no variance."""
    assert (IDENTITY.count, IDENTITY.min, IDENTITY.max, IDENTITY.mean, IDENTITY.sum) == (0, None, None, None, None)
    one = of([2.5])
    assert (one.mean, one.sum, one.variance, one.stddev) == (2.5, 2.5, None, None)


def test_a_spike_leaves_no_trace() -> None:
    """Sums from which 1e12 was taken away again give the variance of what is left, which float sums do not."""
    rest = [0.1, 0.2, 0.7, 0.4]
    both = of([1e12, *rest])
    spike = of([1e12])
    left = Summary(4, 0.1, 0.7, both.sum_scaled - spike.sum_scaled, both.sum_squares_scaled - spike.sum_squares_scaled)
    assert left == of(rest)
    assert left.variance == statistics.variance(rest)
