"""The quantile sketch: every machine puts a value into the same bucket, order does not matter, its error holds."""

from __future__ import annotations

import math
import random
import struct
from fractions import Fraction

import numpy as np
import pytest
from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statsapi.sketch import EMPTY, MAX_BUCKETS, Sketch, count_values, keys_of, merge

LEAST_NORMAL = 2.0**-1022
PS = [0, 1, 25, 50, 75, 90, 99, 99.9, 100]


def from_bits(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    return float(value)


any_finite = st.floats(allow_nan=False, allow_infinity=False)
# As likely of any magnitude as of another: hundreds of them need thousands of buckets.
any_magnitude = st.integers(0, 2**64 - 1).map(from_bits).filter(math.isfinite)


def lower_quantile(values: list[float], p: float) -> float:
    return sorted(values)[math.floor((len(values) - 1) * (p / 100))]


def assert_error_holds(sketch: Sketch, values: list[float]) -> None:
    for p, answer in zip(PS, sketch.quantiles(PS, min(values), max(values)), strict=True):
        true = Fraction(lower_quantile(values, p))
        allowed = Fraction(sketch.relative_error) * abs(true) if abs(true) >= LEAST_NORMAL else Fraction(LEAST_NORMAL)
        assert abs(Fraction(answer) - true) <= allowed, (p, answer, float(true), sketch.level)


@settings(deadline=None)
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
    """g**(k-1) <= |x| < g**k with g = 2**(1/35), counted from the least normal number: in exact integers."""
    (key,) = keys_of(np.array([value])).tolist()
    if abs(value) < LEAST_NORMAL:
        assert key == 0
        return
    assert (key > 0) == (value > 0)
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


@settings(deadline=None)
@given(st.lists(any_finite, min_size=1, max_size=300))
def test_the_error_holds(values: list[float]) -> None:
    """Each quantile lies within the stated error of the value of that rank."""
    assert_error_holds(Sketch.of(np.array(values)), values)


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
        assert_error_holds(sketch, values)
        levels.add(sketch.level)
    assert max(levels) > 1


@settings(deadline=None)
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


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3) | st.just(0.0), min_size=1, max_size=400))
def test_as_ddsketch_answers(values: list[float]) -> None:
    """The buckets and answers are those of the authors' package with the same base; but for values on a boundary."""
    base = 2.0 ** (1 / 35)
    mapping = LogarithmicMapping((base - 1) / (base + 1))
    theirs = BaseDDSketch(mapping, DenseStore(), DenseStore(), 0.0)
    for value in values:
        theirs.add(value)
    ours = Sketch.of(np.array(values)).quantiles(PS, min(values), max(values))
    for p, answer in zip(PS, ours, strict=True):
        true = lower_quantile(values, p)
        place = math.log(abs(true)) / math.log(base) if true else 0.5
        if true in (min(values), max(values)) or abs(place - round(place)) < 1e-6:
            continue  # the extremes are exact here
        expected = min(max(theirs.get_quantile_value(p / 100), min(values)), max(values))
        assert math.isclose(answer, expected, rel_tol=1e-9), (p, true)
