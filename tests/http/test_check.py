"""GET /check: 200 or 503, each condition with its figure, and what cannot be required."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.api.check import parse_condition
from statsapi.model import HOUR_US, EventBatch
from tests import oracles
from tests.calls import assert_problem
from tests.fakes import FakeClock

VALUES = {"a": [1.0, 2.0, 4.0], "b": [10.0], "c;host=x": [5.0, 7.0]}


def fill(app: Flask, clock: FakeClock) -> FlaskClient:
    for name, values in VALUES.items():
        for value in values:
            app.extensions["statsapi"].record(EventBatch.single(name, clock.now_us, value))
    return app.test_client()


@pytest.fixture(scope="module")
def filled(shared_app: Flask, shared_clock: FakeClock) -> FlaskClient:
    return fill(shared_app, shared_clock)


FIGURES: dict[str, Callable[[list[float]], Any]] = {
    "count": lambda values: len(values),
    "min": min,
    "max": max,
    "mean": statistics.mean,
    "avg": statistics.mean,
    "sum": sum,
    "stddev": lambda values: statistics.stdev(values) if len(values) > 1 else None,
    "range": lambda values: max(values) - min(values),
    "median": statistics.median,
    "p95": lambda values: oracles.percentile(values, 95),
    "rate": lambda values: len(values) / 3600,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}
SIGNS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@pytest.mark.parametrize(
    "written", ["~" * 8000 + "<a<", "a" * 4000 + " " * 4000 + "~", "<" * 8000, "<" + "1 " * 4000 + "="]
)
def test_long_conditions_are_refused_at_once(written: str) -> None:
    """Each is read in one way only: a pattern that tries all ways would take minutes."""
    with pytest.raises(ValueError, match=r"condition|compares by|begins with"):
        parse_condition(written)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("word", FIGURES)
@pytest.mark.parametrize("write", [quote, str])
def test_each_statistic_by_each_sign(filled: FlaskClient, word: str, sign: str, write: Any) -> None:
    """Below, at and above the figure, with < and > as they are or percent-encoded; null never holds."""
    for name, values in VALUES.items():
        figure = FIGURES[word](values)
        for bound in (-1.0, figure, 1e9, 1e-300):
            if bound is None:
                continue
            required = f"{word}{sign}{bound!r}"
            answer = filled.get(f"/check?series={quote(name)}&require={write(required)}" if ";" not in name else
                                f"/check?match={quote(name)}&require={write(required)}")  # fmt: skip
            held = figure is not None and SIGNS[sign](figure, bound)
            assert answer.status_code == (200 if held else 503)
            (condition,) = answer.json["conditions"]
            assert condition["require"] == required
            assert (condition["value"], condition["held"]) == (figure, held)


def test_all_conditions_are_told(filled: FlaskClient) -> None:
    """Those that hold and those that do not, of several require= and of lists, in their order."""
    ok = filled.get("/check?series=a&window=5m&require=p50<500,count>=3&require=+max+<+%2B1e+3")
    assert ok.status_code == 200
    assert list(ok.json) == ["status", "series", "from", "to", "conditions"]
    assert ok.json["status"] == "passed"
    assert [each["require"] for each in ok.json["conditions"]] == ["p50<500", "count>=3", "max<+1e+3"]
    failed = filled.get("/check?series=a&require=count>=4,mean<100,max==0")
    problem = assert_problem(failed, 503, "check-failed")
    assert problem["detail"] == "count>=4 does not hold: it is 3 (and 1 more)"
    assert [each["held"] for each in problem["conditions"]] == [False, True, False]
    assert "Retry-After" not in failed.headers


def test_an_unknown_series_fails_and_is_no_error(filled: FlaskClient) -> None:
    """A count of 0; every other figure is null, which holds for no sign."""
    problem = assert_problem(filled.get("/check?series=none&require=count>=10"), 503, "check-failed")
    assert problem["conditions"] == [{"require": "count>=10", "value": 0, "held": False}]
    for sign in SIGNS:
        problem = assert_problem(filled.get(f"/check?series=none&require=mean{sign}5"), 503, "check-failed")
        assert problem["conditions"][0]["reason"] == "it is null for 0 events"
    assert filled.get("/check?series=none&require=count==0").status_code == 200
    assert filled.get("/check?match=n*&require=count>=1").json["matched"] == 0


def test_every_group_must_hold(app: Flask, clock: FakeClock) -> None:
    """Those that do not are named, as many as limit says; a named series that is not held is a group too."""
    filled = fill(app, clock)
    ok = filled.get("/check?by=series&require=count>=1").json
    assert (ok["groups_total"], ok["groups_failed"], ok["groups"]) == (3, 0, [])
    problem = assert_problem(filled.get("/check?by=series&require=p95<5,count>=1"), 503, "check-failed")
    assert [group["series"] for group in problem["groups"]] == ["b", "c;host=x"]
    assert problem["groups"][0]["conditions"][0] == {"require": "p95<5", "value": 10.0, "held": False}
    assert problem["detail"] == "b: p95<5 does not hold: it is 10.0 (and 1 more)"
    assert "conditions" not in problem
    few = filled.get("/check?by=series&require=p95<5&limit=1").json
    assert (few["groups_failed"], len(few["groups"])) == (2, 1)
    tags = filled.get("/check?by=host&require=count<3").json
    assert [group["tag"] for group in tags["groups"]] == [{"host": None}]
    gone = filled.get("/check?series=a&series=gone&by=series&require=count>=1").json
    assert [group["series"] for group in gone["groups"]] == ["gone"]
    for query in ("match=x*&by=series", "where=host=z&by=host"):
        nothing = assert_problem(filled.get(f"/check?{query}&require=count>=1"), 503, "check-failed")
        assert (nothing["groups_total"], nothing["conditions"][0]["held"]) == (0, False)
    clock.advance(2 * HOUR_US)
    assert filled.get("/check?by=series&require=count>=1").json["groups_failed"] == 3


def test_more_groups_than_are_ever_shown(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """All of them are looked at: the last of 300 fails."""
    parts = [EventBatch.single(f"s{at:03}", clock.now_us, float(at)).parts[0] for at in range(300)]
    app.extensions["statsapi"].record(EventBatch(tuple(parts)))
    problem = assert_problem(client.get("/check?by=series&require=max<299"), 503, "check-failed")
    assert [group["series"] for group in problem["groups"]] == ["s299"]


@pytest.mark.parametrize(
    ("required", "reason"),
    [
        ("", "is not a condition"),
        ("p95", "is not a condition"),
        ("p95<", "'p95<' has no number behind <: write one, as in p95<500"),
        ("<5", "is not one of"),
        ("p95=5", "write p95==5"),
        ("p95=>5", "write p95>=5"),
        ("p95=<5", "write p95<=5"),
        ("p95<>5", "write p95!=5"),
        ("p95!5", "which is not an operator: write one of"),
        ("p95~5", "which is not an operator: write one of"),
        ("1<p95<5", "is not a condition"),
        ("p101<5", "p0 to p100"),
        ("size<5", "is not one of"),
        ("p95<5ms", "is '5ms'"),
        ("p95<nan", "finite"),
        ("p95<1e999", "finite"),
        ("p95<5,", "is not a condition"),
        ("count>=1;p95<5", "is not a condition"),
        (",".join(["count>=0"] * 51), "at most 50"),
    ],
)
def test_conditions_refused(filled: FlaskClient, required: str, reason: str) -> None:
    """Text that is no condition is a 422 that says what to write, never a 503 or a 500."""
    answer = filled.get("/check?" + urlencode({"require": required}))
    (error,) = assert_problem(answer, 422, "validation")["errors"]
    assert error["field"] == "require"
    assert reason in error["reason"], error


def test_a_check_without_conditions_is_refused(filled: FlaskClient) -> None:
    """As are parameters that it does not know."""
    (error,) = assert_problem(filled.get("/check?series=a"), 422, "validation")["errors"]
    assert error == {"field": "require", "reason": "is missing; give a condition such as p95<500"}
    assert_problem(filled.get("/check?require=count>=1&stats=mean"), 422, "validation")


def test_out_of_rollups_it_says_how_near(app: Flask, clock: FakeClock) -> None:
    """A percentile that comes from a sketch has its method and its error beside it; counts are exact."""
    filled = fill(app, clock)
    clock.advance(3 * HOUR_US)
    answer = filled.get("/check?series=a&window=4h&require=p95<5,count==3").json
    assert answer["resolution"] == "1m"
    first, second = answer["conditions"]
    assert (first["method"], first["relative_error"]) == ("ddsketch", 0.01)
    assert second == {"require": "count==3", "value": 3, "held": True}
