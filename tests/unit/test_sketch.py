"""The quantile sketch: every machine puts a value into the same bucket, order does not matter, its error holds."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore
from hypothesis import example, given
from hypothesis import strategies as st

from statsapi.engine.sketch import EMPTY, MAX_BUCKETS, Sketch, count_values, keys_of, merge
from tests.oracles import PS, any_finite, any_magnitude, assert_errors_hold

LEAST_NORMAL = 2.0**-1022
EDGES = [0.0, -0.0, 5e-324, -5e-324, LEAST_NORMAL, -LEAST_NORMAL, 2.3e-308, 1.7e308, -1.7e308, 1.0, -1.0]


@given(any_finite)
@example(1.0)
@example(math.nextafter(1.0, 0.0))
@example(2.0)
@example(-math.nextafter(2.0, 0.0))
@example(LEAST_NORMAL)
@example(math.nextafter(LEAST_NORMAL, 0.0))
@example(1.7976931348623157e308)
@example(-0.0)
def test_a_key_is_the_power_that_the_definition_says(value: float) -> None:
    """g**(k-1) <= |x| < g**k with g = 2**(1/35), counted from the least normal number: in exact integers. Zero alone
    has key 0, and what is smaller than the least normal number the next one.
    """
    (key,) = keys_of(np.array([value])).tolist()
    assert (key > 0) - (key < 0) == (value > 0) - (value < 0)
    if abs(value) < LEAST_NORMAL:
        assert abs(key) == (value != 0)
        return
    power = (Fraction(abs(value)) * 2**1022) ** 35
    assert 2 ** (abs(key) - 1) <= power < 2 ** abs(key)


def test_keys_rise_with_values_over_every_boundary() -> None:
    """Just below and at each boundary of three octaves the key differs by one, and nowhere else."""
    for octave in (-1022, 0, 1023):
        found = []
        for j in range(35):
            at = math.ldexp(2.0 ** (j / 35), octave)
            near = [at]
            for _ in range(4):
                near = [math.nextafter(near[0], 0.0), *near, math.nextafter(near[-1], math.inf)]
            keys = keys_of(np.array(near))
            assert (np.diff(keys) >= 0).all()
            found += keys.tolist()
        assert set(range(min(found) + (min(found) == 0), max(found) + 1)) <= set(found)


@given(
    st.lists(any_finite | any_magnitude | st.sampled_from(EDGES), min_size=1, max_size=300),
    st.lists(st.decimals(0, 100, places=5).map(Fraction), max_size=5),
)
@example([5e-324, LEAST_NORMAL, -LEAST_NORMAL, -5e-324, 0.0], [])
@example([0.0, 1e-300, 2e-300], [Fraction(1, 10**30)])  # the point between them is no float64 but zero
def test_the_error_holds(values: list[float], ps: list[Fraction]) -> None:
    """Each percentile lies within what is claimed for it, also at the ends of float64 and between two signs."""
    assert_errors_hold(Sketch.of(np.array(values)), values, [*PS, *ps])


@given(st.lists(st.floats(1e-300, 1e300) | st.just(0.0), min_size=1, max_size=300), st.sampled_from([1.0, -1.0]))
def test_the_documented_error_is_claimed(values: list[float], sign: float) -> None:
    """Where all values have one sign, or are 0, each percentile claims what its level says: 0.01 without a collapse."""
    values = [sign * value for value in values]
    sketch = Sketch.of(np.array(values))
    claims = assert_errors_hold(sketch, values, [*PS, Fraction("33.333"), 29])
    assert set(claims) == {sketch.relative_error}
    assert sketch.level or sketch.relative_error == 0.01


@pytest.mark.parametrize("far", [1.0, 10.0])
def test_between_two_signs(far: float) -> None:
    """Between -1 and 1 nothing is proven of a median about zero, but much of a point that is nearly at one of them."""
    values = [-far] * 2 + [far * 1.01] * 2
    sketch = Sketch.of(np.array([values[0] * 2, *values, values[-1] * 2]))
    near, at_zero, exact = sketch.percentiles([40 + Fraction(1, 10**4), 50, 40], -2 * far, 2.02 * far)
    assert near.relative_error is not None
    assert 0.01 <= near.relative_error < 0.02
    assert at_zero.relative_error is None
    assert exact.relative_error == 0.01
    assert_errors_hold(sketch, [values[0] * 2, *values, values[-1] * 2], range(101))


def test_two_values_are_known() -> None:
    """The least and the greatest value are kept, and so is what lies between them when there are no others."""
    sketch = Sketch.of(np.array([-1.0, 5.0]))
    assert [value for value, _ in sketch.percentiles([0, 50, 100], -1.0, 5.0)] == [-1.0, 2.0, 5.0]
    assert {error for _, error in sketch.percentiles([0, 50, 100], -1.0, 5.0)} == {0.01}


@pytest.mark.parametrize("count", [700, 5_000])
def test_the_error_holds_after_a_collapse(count: int) -> None:
    """Values over all magnitudes do not fit at level 0: what is stated then is more, and holds."""
    levels = set()
    for seed in range(20):
        dice = random.Random(seed)
        spread = dice.choice([20, 60, 200, 1000])
        values = [dice.choice((-1, 1)) * 2.0 ** dice.uniform(-spread, spread) for _ in range(count)]
        sketch = Sketch.of(np.array(values))
        assert len(sketch.buckets) <= MAX_BUCKETS
        claims = assert_errors_hold(sketch, values, [*PS, Fraction("12.3456789")])
        assert sum(error is None for error in claims) <= 1  # the one that meets two signs
        levels.add(sketch.level)
    assert max(levels) > 1


@given(st.lists(any_magnitude, max_size=1500), st.randoms(use_true_random=False))
def test_order_and_grouping_do_not_matter(values: list[float], dice: random.Random) -> None:
    """Shuffled, split and bounded on the way or not: the same sketch."""
    whole = Sketch.of(np.array(values))
    dice.shuffle(values)
    held = EMPTY
    at = 0
    while at < len(values):
        step = dice.randint(1, 700)
        part = Sketch(0, count_values(np.array(values[at : at + step])))
        held = merge([held, part.bounded() if dice.random() < 0.5 else part])
        held = held.bounded() if dice.random() < 0.7 else held
        at += step
    assert held.bounded() == whole


@pytest.mark.parametrize("buckets", [100, 4_000, 60_000])
def test_counts_add_up(buckets: int) -> None:
    """Few buckets and many are added up in different ways; both count every value once."""
    dice = np.random.default_rng(7)
    parts = [
        np.exp(dice.uniform(-600, 600, buckets // 10)) * dice.choice([-1.0, 1.0, 0.0], buckets // 10) for _ in range(10)
    ]
    merged = merge([Sketch(0, count_values(part)) for part in parts])
    keys, counts = np.unique(keys_of(np.concatenate(parts)), return_counts=True)
    assert (merged.keys() == keys).all()
    assert (merged.counts() == counts).all()


@given(st.lists(st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3) | st.just(0.0), min_size=1, max_size=400))
def test_as_ddsketch_answers(values: list[float]) -> None:
    """The buckets and answers are those of the authors' package with the same base; but for values on a boundary."""
    base = 2.0 ** (1 / 35)
    mapping = LogarithmicMapping((base - 1) / (base + 1))
    theirs = BaseDDSketch(mapping, DenseStore(), DenseStore(), 0.0)
    for value in values:
        theirs.add(value)
    n = len(values)
    ranks = sorted({(n - 1) * part // 10 for part in range(11)})
    ps = [Fraction(100 * rank, max(n - 1, 1)) for rank in ranks]  # between whose ranks nothing is interpolated
    ours = Sketch.of(np.array(values)).percentiles(ps, min(values), max(values))
    for rank, (answer, _) in zip(ranks, ours, strict=True):
        true = sorted(values)[rank]
        place = math.log(abs(true)) / math.log(base) if true else 0.5
        if true in (min(values), max(values)) or abs(place - round(place)) < 1e-6:
            continue  # the extremes are exact here
        expected = min(max(theirs.get_quantile_value((rank + 0.25) / (n - 1)), min(values)), max(values))
        assert math.isclose(answer, expected, rel_tol=1e-9), (rank, true)
