"""Percentiles have one definition, in every window and form: linear interpolation (type 7) at the decimal text's rank,
rounded once; and where they come from a sketch, what they claim holds.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from statsapi.engine.exact import interpolate, percentile_position
from statsapi.engine.sketch import Sketch
from statsapi.engine.store import Store
from statsapi.engine.timeline import Timeline
from statsapi.model import DAY_US, HOUR_US, MIN_TS_US, MINUTE_US, Events, Percent, Retention, Span
from statsapi.times import format_timestamp
from tests import oracles
from tests.calls import assert_problem
from tests.fakes import FakeClock
from tests.oracles import any_finite, any_magnitude, assert_errors_hold, from_bits

LARGEST = 1.7976931348623157e308
TINIEST = 5e-324

# Of each the float is another number, or times n - 1 another rank.
DECIMALS = """
    0.1 0.2 0.3 0.7 1.1 2.2 5.5 9.9 29.0 33.3 33.333 57.8 64.1 66.67 70.1 82.9 95.5 97.5 99.5 99.9 99.99 99.999
    99.9999999 0.000001 0.30000000000000004 14.285714285714286 99.99999999999999999999 .5 7. 007 100.0
"""
TEXTS = (*map(str, range(101)), *DECIMALS.split())
SIZES = (1, 2, 3, 7, 19, 20, 59, 60, 100, 101, 201, 1_000, 1_001, 12_345)


def percent(text: str) -> Fraction:
    return Fraction(text.rstrip("."))


# The definition


@pytest.mark.parametrize("n", [*SIZES, 1_000_001, 2**53 + 1])
def test_ranks_are_those_of_the_text(n: int) -> None:
    """Rank and part are floor and rest of p (n - 1) / 100, p as it is written; floats miss some of these."""
    missed = 0
    for text in TEXTS:
        lower, part, of = percentile_position(percent(text), n)
        place = percent(text) * (n - 1) / 100
        assert lower == math.floor(place)
        assert Fraction(part, of) == place - lower
        missed += math.floor(float(text) / 100 * (n - 1)) != lower
    assert n not in (101, 1_001, 1_000_001) or missed


@pytest.mark.parametrize(
    ("values", "p", "expected"),
    [
        (range(1, 60), 95, 56.1),
        ([1.0] * 19 + [1000.0], 95, 50.95),
        ([1.0] * 19 + [1000.0], 99, 810.19),
        (range(101), 29, 29.0),
        (range(1, 11), 90, 9.1),
        (range(1, 8), 70, 5.2),
        ([0.1, 0.2], 50, 0.15000000000000002),  # the middle of those two float64 numbers, not of the decimals
        ([0.1, 0.7], Fraction("33.3"), 0.2998),
        ([TINIEST, 3 * TINIEST], 50, 2 * TINIEST),
        ([0.0, TINIEST], 50, 0.0),  # half of the least number is rounded to even
        ([0.0, TINIEST], Fraction("50.0001"), TINIEST),
        ([-TINIEST, 0.0], 60, 0.0),
        ([-1.7e308, 1.7e308], 75, 8.5e307),
        ([-LARGEST, LARGEST], 50, 0.0),
        ([-LARGEST, LARGEST], Fraction(1, 10**30), -LARGEST),
        ([LARGEST, LARGEST], Fraction("99.9"), LARGEST),
        ([1.0, math.nextafter(1.0, 2.0)], Fraction("50.0000001"), math.nextafter(1.0, 2.0)),
        ([-0.0, -0.0], 50, 0.0),
        ([1e16, 1e16 + 2], Fraction("49.999"), 1e16),
        ([2.0**53, 2.0**53 + 2], 50, 2.0**53),
    ],
)
def test_percentiles_are_rounded_once(values: Any, p: Percent, expected: float) -> None:
    """Each is the float64 nearest to the exact point, by hand and by fractions."""
    values = [float(value) for value in values]
    timeline = Timeline()
    timeline.insert(np.arange(len(values)), np.array(values)[np.random.default_rng(1).permutation(len(values))])
    (answer,) = timeline.percentiles(None, None, [p])
    assert answer == expected == oracles.percentile(values, p)
    assert math.copysign(1.0, answer) == (-1.0 if expected < 0 else 1.0)


@given(any_finite | any_magnitude, any_finite | any_magnitude, st.integers(1, 10**33), st.data())
def test_interpolation_is_that_of_fractions(a: float, b: float, of: int, data: st.DataObject) -> None:
    """Between any two numbers, subnormals and the ends of float64 among them, whatever part of the way."""
    low, high = sorted((a, b))
    part = data.draw(st.integers(0, of - 1))
    exact = Fraction(low) + (Fraction(high) - Fraction(low)) * Fraction(part, of)
    assert interpolate(low, high, part, of) == float(exact)
    assert low <= interpolate(low, high, part, of) <= high


# What a sketch claims

BAGS = {
    "0 to n": lambda dice, n: [float(i) for i in range(n)],
    "0 to n, negative": lambda dice, n: [-float(i) for i in range(n)],
    "log-normal": lambda dice, n: [dice.lognormvariate(3, 1) for _ in range(n)],
    "both signs": lambda dice, n: [dice.gauss(0, 10) for _ in range(n)],
    "mostly zeros": lambda dice, n: [dice.choice((0.0, 0.0, 0.0, -0.0, 1.0, -3.0)) for _ in range(n)],
    "every magnitude": lambda dice, n: [
        abs(value) for _ in range(n) if math.isfinite(value := from_bits(dice.getrandbits(64)))
    ],
    "every float64": lambda dice, n: [
        value for _ in range(n) if math.isfinite(value := from_bits(dice.getrandbits(64)))
    ],
    "subnormals": lambda dice, n: [dice.randrange(-(2**52), 2**52) * TINIEST for _ in range(n)],
    "two ends": lambda dice, n: [dice.choice((-LARGEST, LARGEST, TINIEST)) for _ in range(n)],
}


@pytest.mark.slow
@pytest.mark.parametrize("bag", BAGS)
def test_every_claim_holds(bag: str) -> None:
    """Every p of every form, for few values and many, at every level: each answer is as near as it claims."""
    dice = random.Random(4)
    ps = [percent(text) for text in TEXTS]
    for n in SIZES[:-1]:
        values = BAGS[bag](dice, n)
        if not values:
            continue
        whole = Sketch.of(np.array(values))
        for level in {whole.level, whole.level + 1, 5, 8}:
            if level >= whole.level:
                claims = assert_errors_hold(whole.at_level(level), values, ps)
                if min(values) >= 2.5e-308 and max(values) < LARGEST and level == whole.level:
                    assert set(claims) == {whole.relative_error}


# One answer in every window


def post(client: FlaskClient, clock: FakeClock, values: list[float], ago_us: int = 30 * MINUTE_US, **more: Any) -> None:
    ts = [format_timestamp(clock.now_us - ago_us + i) for i in range(len(values))]
    assert client.post("/events", json={"timestamp": ts, "value": values, **more}).json["stored"] == len(values)


LONG = (
    "window=1h",
    "window=61m",
    "window=6h",
    "window=24h",
    "start=2025-11-20T08:00:00Z",
    "start=2025-11-21T01:00:00Z",
)


@pytest.mark.parametrize("housekeeping", [False, True])
@pytest.mark.parametrize("span", LONG)
def test_a_long_window_of_raw_events_is_exact(
    app: Flask, client: FlaskClient, clock: FakeClock, span: str, housekeeping: bool
) -> None:
    """19 ones and 1000, all raw: p99 is 810.19 in the hour and in the day, and first and last are told."""
    post(client, clock, [1.0] * 19 + [1000.0])
    post(client, clock, [7.0], ago_us=5 * HOUR_US, series="other")
    if housekeeping:
        app.extensions["statsapi"].keep_house()
    body = client.get(f"/statistics?{span}&percentiles=99,95,50,100&stats=first,last").json
    assert body["percentiles"] == {"99": 810.19, "95": 50.95, "50": 1.0, "100": 1000.0}
    assert (body["first"], body["last"]) == (1.0, 1000.0)
    assert not {"method", "relative_error", "reasons"} & body.keys()


def test_windows_and_steps_differ_by_what_they_hold(app: Flask, client: FlaskClient, clock: FakeClock) -> None:
    """One event five hours ago: only the windows and steps that hold it are answered by a sketch; without it none."""
    post(client, clock, [1.0] * 19 + [1000.0])
    post(client, clock, [3.0], ago_us=5 * HOUR_US)
    asked = "/statistics?windows=1h,3h,6h,24h&percentiles=99&stats=first"
    for _ in range(2):
        windows = client.get(asked).json["windows"]
        assert [window.get("method") for window in windows] == [None, None, "ddsketch", "ddsketch"]
        assert [window["percentiles"]["99"] for window in windows[:2]] == [810.19, 810.19]
        assert [window["first"] for window in windows] == [1.0, 1.0, None, None]
        true = oracles.percentile([1.0] * 19 + [1000.0, 3.0], 99)
        assert abs(windows[3]["percentiles"]["99"] - true) <= 0.01 * true
        steps = client.get("/statistics/timeline?window=6h&step=2h&percentiles=99&stats=first,last").json["steps"]
        assert [step.get("method") for step in steps] == ["ddsketch", None, None]
        assert [step["percentiles"]["99"] for step in steps] == [3.0, None, 810.19]
        assert [(step["first"], step["last"]) for step in steps] == [(None, None), (None, None), (1.0, 1000.0)]
        assert [step.get("reasons", {}).keys() for step in steps] == [{"first", "last"}, set(), set()]
        app.extensions["statsapi"].keep_house()
    hour = "start=2025-11-21T02:00:00Z&end=2025-11-21T03:00:00Z"
    assert client.delete(f"/series/default?{hour}").json["deleted"] == 1
    assert [window["percentiles"] for window in client.get(asked).json["windows"]] == [{"99": 810.19}] * 4


@pytest.mark.parametrize(("age_us", "exact"), [(65 * MINUTE_US, True), (65 * MINUTE_US + 1, False)])
def test_where_raw_events_end(client: FlaskClient, clock: FakeClock, age_us: int, exact: bool) -> None:
    """An event at the first instant that every view still holds raw is exact in any window, one just before is not."""
    post(client, clock, [1.0, 2.0])
    post(client, clock, [4.0], ago_us=age_us)
    body = client.get("/statistics?window=24h&percentiles=50,75&stats=first").json
    assert body["first"] == (4.0 if exact else None)
    assert body.get("method") == (None if exact else "ddsketch")
    assert not exact or body["percentiles"] == {"50": 2.0, "75": 3.0}


def test_ranks_in_rolled_up_events(client: FlaskClient, clock: FakeClock) -> None:
    """p29 of 0 to 100 is 29, give or take a hundredth, also from roll-ups, and so is each other."""
    post(client, clock, [float(value) for value in range(101)], ago_us=3 * HOUR_US)
    for texts in (TEXTS[:60], TEXTS[60:]):
        body = client.get(f"/statistics?window=24h&stats=count&percentiles={','.join(texts)}").json
        assert (body["method"], body["relative_error"]) == ("ddsketch", 0.01)
        assert list(body["percentiles"]) == list(texts)
        for text, answer in body["percentiles"].items():
            true = percent(text)  # of 0 to 100 it is the value
            assert abs(Fraction(answer) - true) <= Fraction(0.01) * true


def test_where_no_error_is_claimed(client: FlaskClient, clock: FakeClock) -> None:
    """A median between -1 and 1 may be anything about zero: null, with the reason, and what holds for the others."""
    post(client, clock, [-2.0, -1.0, 1.0, 2.0], ago_us=3 * HOUR_US)
    body = client.get("/statistics?window=24h&stats=count&percentiles=50,0,51.5,90").json
    assert (body["method"], body["relative_error"]) == ("ddsketch", None)
    reason = body["reasons"]["relative_error"]
    assert reason.startswith("50: between a negative and a positive value; for the others it is 0.")
    alone = client.get("/statistics?window=24h&stats=count&percentiles=0,90").json
    assert (alone["relative_error"], "reasons" in alone) == (0.01, False)
    only = client.get("/statistics?window=24h&stats=count&percentiles=50").json
    assert only["reasons"] == {"relative_error": "50: between a negative and a positive value"}


@pytest.mark.parametrize(
    "text", ["100.000000000000000001", "101", "-0", "+5", "1e1", "5e", "0x10", "5,", "", "½", "1" * 40]
)
def test_no_percentile(client: FlaskClient, text: str) -> None:
    """A percentile that is no plain number from 0 to 100 is refused, also just outside."""
    problem = assert_problem(client.get("/statistics", query_string={"percentiles": text}), 422, "validation")
    said = (
        "has an empty item before, after or between" if text == "5," else "must be a number from 0 to 100, such as 99.9"
    )
    assert said in problem["errors"][0]["reason"]


@pytest.mark.parametrize("hours", [False, True])
@pytest.mark.parametrize("n", [1, 16, 17, 500, 1_500, 3_000])
def test_a_view_that_folds_later_agrees(n: int, hours: bool) -> None:
    """A view that has folded nothing yet has the answers of one that has folded, and merged hours: the same buckets,
    also where a roll-up cannot keep as many as there are.
    """
    dice = random.Random(n)
    values = [value for _ in range(n) if math.isfinite(value := from_bits(dice.getrandbits(64)))]
    now_us = FakeClock().now_us
    retention = Retention(65 * MINUTE_US, 5 * DAY_US)
    span_us = 3 * HOUR_US if hours else 3 * MINUTE_US
    start_us = now_us - (4 * DAY_US if hours else 3 * HOUR_US)
    start_us -= start_us % HOUR_US
    ts_us = np.array([start_us + dice.randrange(span_us) for _ in values])
    halves = [
        Events("s", some_ts_us, some_values, np.full(len(some_ts_us), now_us))
        for some_ts_us, some_values in zip(np.array_split(ts_us, 2), np.array_split(np.array(values), 2), strict=True)
        if len(some_ts_us)
    ]
    folded, half_folded, lagging = (Store(retention) for _ in range(3))
    for store in (folded, half_folded, lagging):
        for half in halves:
            has_stood = store is folded or (store is half_folded and half is not halves[-1])
            store.settle(now_us if has_stood else MIN_TS_US)
            store.apply([half], now_us)
            store.expire()
    assert folded.sizes.event_count() == 0
    assert lagging.sizes.event_count() == len(values)
    spans = [Span(start_us), Span(start_us, start_us + HOUR_US)]
    ps: list[Percent] = [0, 1, Fraction("33.3"), 50, 99, 100]
    for answers in (
        [store.statistics("s", spans, now_us, ps, ends=True) for store in (folded, half_folded, lagging)],
        [store.steps("s", spans[0], HOUR_US, 3, now_us, ps, ends=True) for store in (folded, half_folded, lagging)],
    ):
        assert answers.count(answers[0]) == 3
