"""Unions over HTTP, against a list: whatever came late, was rolled up, deleted or read again by another worker."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.journal import wall_clock_us
from statsapi.model import DAY_US, MINUTE_US, EventBatch
from statsapi.naming.names import fold_tags, split_name
from statsapi.times import format_timestamp, parse_timestamp_us
from tests import oracles
from tests.fakes import FakeClock
from tests.journal_engines import ENGINES, Opener

RETENTION_US = 5 * MINUTE_US
SERIES: list[tuple[str, dict[str, Any]]] = [
    ("web", {"host": "a", "status": 200}),
    ("web", {"host": "b", "status": 500}),
    ("web", {"host": "b"}),
    ("db", {}),
]
NAMES = [fold_tags(*one) for one in SERIES]
SETTINGS = Settings(window_us=RETENTION_US, retention_us=RETENTION_US, rollup_retention_us=DAY_US)


class Insert(NamedTuple):
    series: int
    events: list[tuple[int, float]]


class Delete(NamedTuple):
    series: int
    first_minute: int
    minutes: int


class Pass(NamedTuple):
    seconds: int
    keep_house: bool


class Restart(NamedTuple):
    pass


which = st.integers(0, len(SERIES) - 1)
values = st.sampled_from([0.0, -0.0, 1.5, -7.25, 1e16, -1e16, 1e-300, 3.0]) | st.floats(
    allow_nan=False, allow_infinity=False
)
steps = st.lists(
    st.one_of(
        st.builds(Insert, which, st.lists(st.tuples(st.integers(-20 * 60, 30), values), min_size=1, max_size=8)),
        st.builds(Delete, which, st.integers(-20, 1), st.integers(1, 10)),
        st.builds(Pass, st.integers(1, 300), st.booleans()),
        st.builds(Restart),
    ),
    max_size=10,
)
CHOICES: list[tuple[list[tuple[str, str]], frozenset[int]]] = [
    ([("match", "*")], frozenset(range(4))),
    ([("match", "web*")], frozenset({0, 1, 2})),
    ([("where", "host=b")], frozenset({1, 2})),
    ([("where", "status=*"), ("match", "w*")], frozenset({0, 1})),
    ([("series", NAMES[0]), ("series", NAMES[3])], frozenset({0, 3})),
]


class Run:
    """The steps over HTTP, and to a list. A restart is another worker, which reads the journal from its beginning."""

    def __init__(self, opener: Opener) -> None:
        self.clock = FakeClock()
        self.opener = opener
        self.events: list[tuple[str, int, float]] = []
        self.app = self.start()

    def start(self) -> Flask:
        return create_app(SETTINGS, journal=lambda: self.opener.open(self.clock), clock_us=self.clock, background=False)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def do(self, step: Insert | Delete | Pass | Restart) -> None:
        now_us = self.clock.now_us
        match step:
            case Insert(series, events):
                base, tags = SERIES[series]
                rows = [(now_us + at * 1_000_000, value) for at, value in events]
                body = [
                    {"timestamp": format_timestamp(ts_us), "value": value, "series": base, "tags": tags}
                    for ts_us, value in rows
                ]
                assert self.client.post("/events", json=body).status_code == 200
                self.events += [(NAMES[series], *row) for row in rows]
            case Delete(series, first, minutes):
                start_us = (now_us // MINUTE_US + first) * MINUTE_US
                end_us = start_us + minutes * MINUTE_US
                edges = {"start": format_timestamp(start_us), "end": format_timestamp(end_us)}
                answer = self.client.delete("/series?" + urlencode({"series": NAMES[series], **edges}))
                assert answer.status_code == 200, answer.text
                self.events = [e for e in self.events if e[0] != NAMES[series] or not start_us <= e[1] < end_us]
            case Pass(seconds, keep_house):
                self.clock.advance(seconds * 1_000_000)
                if keep_house:
                    self.app.extensions["statsapi"].keep_house()
            case Restart() if self.opener.survives:
                self.app.extensions["statsapi"].close()
                self.app = self.start()


def assert_told(body: dict[str, Any], held: list[float], has_old: bool) -> None:
    """That these statistics are those of that list."""
    assert body["count"] == len(held)
    if not held:
        assert {body[name] for name in ("min", "max", "mean", "sum", "p50", "stddev")} == {None}
        return
    assert (body["min"], body["max"], body["mean"]) == (min(held), max(held), statistics.mean(held))
    summary = oracles.summary(held)
    assert (body["sum"], body["variance"], body["stddev"]) == (summary.sum, summary.variance, summary.stddev)
    assert ("method" in body) == has_old
    for name in ("p50", "p99.9"):
        true = oracles.exact_percentile(held, Fraction(name[1:]))
        if not has_old:
            assert body[name] == float(true)
        elif body["relative_error"] is not None:
            assert abs(Fraction(body[name]) - true) <= Fraction(body["relative_error"]) * abs(true)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def journal(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.sampled_from(CHOICES), st.sampled_from([60, 240, 1500]), st.sampled_from(["series", "host"]))
def test_a_union_is_that_of_the_list(
    journal: str,
    tmp_path: Path,
    done: list[Insert | Delete | Pass | Restart],
    choice: tuple[list[tuple[str, str]], frozenset[int]],
    window_s: int,
    by: str,
) -> None:
    """Total and each group, in a window and step by step; percentiles exact while all is raw, else as near as told."""
    with ENGINES[journal](tmp_path) as opener:
        run = Run(opener)
        try:
            for step in done:
                run.do(step)
            ask(run, choice, window_s, by)
        finally:
            run.app.extensions["statsapi"].close()


def ask(run: Run, choice: tuple[list[tuple[str, str]], frozenset[int]], window_s: int, by: str) -> None:
    chosen = {NAMES[at] for at in choice[1]}
    query = urlencode([*choice[0], ("by", by), ("stats", "all"), ("window", window_s)])
    words = "count,min,max,mean,sum,variance,stddev,p50,p99.9"
    body = run.client.get(f"/statistics?{query}&stats={words}".replace("stats=all&", "")).json
    raw_from_us = run.app.extensions["statsapi"].ask().store.raw_from_us(run.clock.now_us)

    def assert_span(told: dict[str, Any], names: set[str], from_us: int, to_us: int | None) -> None:
        inside = [e for e in run.events if e[0] in names and from_us <= e[1] and (to_us is None or e[1] < to_us)]
        assert_told(told, [value for _, _, value in inside], any(ts_us < raw_from_us for _, ts_us, _ in inside))

    from_us = parse_timestamp_us(body["from"])
    assert run.clock.now_us - window_s * 1_000_000 - MINUTE_US < from_us <= run.clock.now_us - window_s * 1_000_000
    assert_span(body, chosen, from_us, None)
    keys = {name: name if by == "series" else split_name(name)[1].get("host") for name in chosen}
    for group in body["groups"]:
        key = group["series"] if by == "series" else group["tag"]["host"]
        assert_span(group, {name for name in chosen if keys[name] == key}, from_us, None)
    assert sum(group["count"] for group in body["groups"]) == body["count"]
    steps = run.client.get(f"/statistics/timeline?{query}&stats={words}&step=2m".replace("stats=all&", "")).json
    for shown in (steps["steps"], *(group["steps"] for group in steps["groups"])):
        assert len(shown) == -(-window_s // 120)
    for step in steps["steps"]:
        to_us = step["to"] and parse_timestamp_us(step["to"])
        assert_span(step, chosen, parse_timestamp_us(step["from"]), to_us)


@pytest.fixture
def apps(journal: str, tmp_path: Path) -> Iterator[Flask]:
    with ENGINES[journal](tmp_path) as opener:
        app = create_app(Settings(), journal=opener.open, background=False)
        yield app
        app.extensions["statsapi"].close()


@pytest.mark.slow
def test_what_is_recorded_together_is_answered_together(apps: Flask) -> None:
    """While a writer records one event for each of two series at once, no answer holds one without the other.

    As groups, as a total, and step by step.
    """
    service = apps.extensions["statsapi"]
    now_us = wall_clock_us()
    between = [EventBatch.single(f"m{at:04}", now_us, 0.0).parts[0] for at in range(3000)]
    between += [EventBatch.single(name, now_us, 1.0).parts[0] for name in "az"]
    service.record(EventBatch(tuple(between)))  # a question takes several turns of the lock to get from a to z
    allowed, begun = threading.Semaphore(0), threading.Event()
    asked = threading.Event()

    def write() -> None:
        client = apps.test_client()
        while allowed.acquire() and not asked.is_set():
            pair = [{"timestamp": now_us / 1e6, "value": 1.0, "series": series} for series in ("a", "z")]
            assert client.post("/events", json=pair).status_code == 200
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    try:
        client = apps.test_client()
        for _ in range(15):  # the writer has begun with 200 pairs when a question comes
            begun.clear()
            allowed.release(200)
            assert begun.wait(30)
            body = client.get("/statistics?by=series&stats=count,sum&order=-sum&limit=2&compare=previous").json
            first, second = body["groups"]
            assert (first["count"], first["sum"]) == (second["count"], second["sum"])
            assert body["count"] - 3000 == first["count"] + second["count"]
            seen.add(body["count"])
            steps = client.get("/statistics/timeline?by=series&stats=sum&order=-sum&limit=2&window=10m&step=5m").json
            first, second = steps["groups"]
            assert first["steps"] == second["steps"]
    finally:
        asked.set()
        allowed.release()
        writer.join()
    assert len(seen) > 1
