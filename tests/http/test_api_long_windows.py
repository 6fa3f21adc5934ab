"""Windows longer than raw events are kept: what the answers say of themselves, and what is refused."""

from __future__ import annotations

import re
import statistics

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from statsapi.times import format_timestamp
from tests import oracles
from tests.calls import assert_problem
from tests.fakes import FakeClock

VALUES = [0.1 * n for n in range(1, 25)]


@pytest.fixture
def filled(app: Flask, client: FlaskClient, clock: FakeClock) -> FlaskClient:
    """An event an hour for 24 hours, each 17 seconds past the half hour, told in one batch; the clock on 07:45:00."""
    events = [
        {"timestamp": format_timestamp(clock.now_us - hour * HOUR_US + 15 * MINUTE_US + 17 * SECOND_US), "value": value}
        for hour, value in enumerate(VALUES, 1)
    ]
    answer = client.post("/events", json=events).json
    assert (answer["stored"], answer["expired"]) == (24, 0)
    return client


@pytest.mark.parametrize("housekeeping", [False, True])
def test_a_day(app: Flask, filled: FlaskClient, clock: FakeClock, housekeeping: bool) -> None:
    """All events of 24 hours count, exactly; the answer says from when, and to which resolution."""
    if housekeeping:
        app.extensions["statsapi"].keep_house()
    clock.advance(20 * SECOND_US)
    body = filled.get("/statistics?window=24h&stats=all").json
    assert list(body)[:4] == ["series", "from", "to", "resolution"]
    assert (body["from"], body["to"], body["resolution"]) == ("2025-11-20T07:45:00+00:00", None, "1m")
    assert body["count"] == 24
    assert (body["min"], body["max"]) == (min(VALUES), max(VALUES))
    assert body["mean"] == statistics.mean(VALUES)
    assert body["stddev"] == statistics.stdev(VALUES)
    assert body["rate"] == 24 / (86400 + 20)
    assert (body["first"], body["last"]) == (None, VALUES[0])
    assert body["reasons"] == {"first": "it has been rolled up with its minute"}


def test_windows_side_by_side(filled: FlaskClient) -> None:
    """Only the long ones have a resolution, and a method where an event of theirs may have been rolled up."""
    windows = filled.get("/statistics?windows=5m,1h,2h,24h&percentiles=50").json["windows"]
    assert [window["count"] for window in windows] == [0, 1, 2, 24]
    assert [window.get("resolution") for window in windows] == [None, None, "1m", "1m"]
    assert [window.get("method") for window in windows] == [None, None, "ddsketch", "ddsketch"]
    assert windows[3]["relative_error"] == 0.01
    true = oracles.percentile(VALUES, 50)
    assert abs(windows[3]["percentiles"]["50"] - true) <= 0.01 * true
    assert windows[1]["percentiles"] == {"50": VALUES[0]}


def test_after_a_collapse_a_larger_error_is_claimed(client: FlaskClient, clock: FakeClock) -> None:
    """A minute's values over 600 decades need seven times as many buckets as there are: what holds then is told."""
    ts = format_timestamp(clock.now_us - 2 * HOUR_US)
    values = [10.0 ** (n / 5) for n in range(-1500, 1500)]
    body = {"timestamp": [ts] * len(values), "value": values}
    assert client.post("/events", json=body).json["stored"] == len(values)
    answer = client.get("/statistics?window=24h&percentiles=0,50,100").json
    assert (answer["method"], answer["relative_error"]) == ("ddsketch", 0.8569)
    assert (answer["percentiles"]["0"], answer["percentiles"]["100"]) == (values[0], values[-1])
    true = oracles.percentile(values, 50)
    assert abs(answer["percentiles"]["50"] - true) <= 0.8569 * true
    assert "reasons" not in answer
    exact = client.get("/statistics?window=1h&percentiles=50").json
    assert "relative_error" not in exact


def test_edges_are_moved_outwards(filled: FlaskClient) -> None:
    """A range in the roll-ups begins and ends on whole minutes, and says so; an end in the raw events stays."""
    query = "/statistics?start=2025-11-20T09:00:17.5Z&end={}&stats=count"
    body = filled.get(query.format("2025-11-20T10:00:17Z")).json
    assert (body["from"], body["to"]) == ("2025-11-20T09:00:00+00:00", "2025-11-20T10:01:00+00:00")
    assert body["count"] == 2  # 09:00:17 and 10:00:17
    body = filled.get(query.format("2025-11-21T07:00:17Z")).json
    assert (body["to"], body["count"]) == ("2025-11-21T07:00:17+00:00", 22)


@pytest.mark.parametrize(
    ("step", "used"), [("90s", "2m"), ("1ms", "1m"), ("59999999us", "1m"), ("7m", "7m"), ("25h", "25h")]
)
def test_a_step_may_be_made_longer(filled: FlaskClient, step: str, used: str) -> None:
    """With align=true up to the next multiple of the resolution, as if that had been asked for; the answer says so."""
    plain = filled.get(f"/statistics/timeline?window=23h&step={used}&stats=count,mean").json
    aligned = filled.get(f"/statistics/timeline?window=23h&step={step}&align=true&stats=count,mean").json
    assert aligned.pop("step") == used
    assert aligned == plain
    table = filled.get(f"/statistics/timeline?window=23h&step={step}&align=true&format=csv")
    assert table.headers["X-Statsapi-Step"] == used
    assert "X-Statsapi-Step" not in filled.get(f"/statistics/timeline?window=23h&step={used}&format=csv").headers
    many = filled.get(f"/statistics/timeline?match=*&window=23h&step={step}&align=true&stats=count,mean").json
    assert (many["step"], many["steps"]) == (used, plain["steps"])


def test_a_step_of_raw_events_stays(filled: FlaskClient) -> None:
    """Any step is taken as it is where the events are held raw."""
    body = filled.get("/statistics/timeline?window=50m&step=90500ms&align=true").json
    assert body["step"] == "90500ms"
    assert "resolution" not in body
    problem = assert_problem(filled.get("/statistics/timeline?window=24h&step=90s"), 422, "validation")
    assert problem["errors"][0]["reason"].endswith("align=true takes the next multiple")


def test_a_day_step_by_step(filled: FlaskClient, clock: FakeClock) -> None:
    """24 steps of an hour, also 20 seconds into a minute; what is asked of each is there, or why not."""
    clock.advance(20 * SECOND_US)
    body = filled.get("/statistics/timeline?window=24h&step=1h&stats=count,mean,last&percentiles=50").json
    assert (body["from"], body["resolution"]) == ("2025-11-20T07:45:00+00:00", "1m")
    assert [step["mean"] for step in body["steps"]] == VALUES[::-1]
    assert (body["steps"][-1]["last"], body["steps"][0]["last"]) == (VALUES[0], None)
    assert body["steps"][0]["reasons"] == {"last": "it has been rolled up with its minute"}
    assert [step.get("method") for step in body["steps"]] == ["ddsketch"] * 23 + [None]
    problem = assert_problem(filled.get("/statistics/timeline?window=24h&step=90s"), 422, "validation")
    assert "multiple of 1m" in problem["detail"]
    assert problem["errors"][0]["field"] == "step"


def test_metrics_show_a_day(app: Flask, filled: FlaskClient) -> None:
    """The default windows of /metrics have 24 hours among them."""
    text = filled.get("/metrics").text
    assert 'statsapi_window_events{series="default",window="24h"} 24.0' in text
    assert f'statsapi_window_mean{{series="default",window="24h"}} {statistics.mean(VALUES)!r}' in text
    assert "statsapi_store_rollup_bytes 0.0" in text
    app.extensions["statsapi"].keep_house()
    assert re.search(r"statsapi_store_rollup_bytes [1-9]", filled.get("/metrics").text)


def test_an_event_older_than_everything_kept_is_expired(client: FlaskClient, clock: FakeClock) -> None:
    """It is a 200 as ever, and named: nothing is asked about so far back."""
    ages_us = (2 * HOUR_US, DAY_US + MINUTE_US, DAY_US + HOUR_US)
    events = [{"timestamp": format_timestamp(clock.now_us - age_us), "value": 1} for age_us in ages_us]
    answer = client.post("/events", json=events).json
    assert (answer["stored"], answer["expired"]) == (2, 1)
    assert client.get("/statistics?window=24h").json["count"] == 1
    assert client.get("/debug/events").json["total_events"] == 3


def test_dedup_knows_raw_events_only(client: FlaskClient, clock: FakeClock) -> None:
    """Whether an older one was there before cannot be told: it is reported as expired, and does not count twice."""
    old = [{"timestamp": format_timestamp(clock.now_us - 2 * HOUR_US), "value": 1}]
    assert client.post("/events", json=old).json["stored"] == 1
    assert client.post("/events?dedup=true", json=old).json["expired"] == 1
    assert client.get("/statistics?window=24h").json["count"] == 1


def test_without_roll_ups_there_are_no_long_windows(clock: FakeClock) -> None:
    """STATSAPI_ROLLUP_RETENTION=0: as if they had never been."""
    app = create_app(Settings(journal="memory://", rollup_retention_us=0), clock_us=clock, background=False)
    client = app.test_client()
    two_hours_ago = format_timestamp(clock.now_us - 2 * HOUR_US)
    assert client.post("/events", json=[{"timestamp": two_hours_ago, "value": 1}]).json["expired"] == 1
    problem = assert_problem(client.get("/statistics?window=2h"), 422, "validation")
    assert "1h (STATSAPI_RETENTION)" in problem["detail"]


def test_weeks_are_kept_by_hours(clock: FakeClock) -> None:
    """Beyond two days edges, steps and deletions are of whole hours, and a refusal names the nearest ones."""
    settings = Settings(journal="memory://", rollup_retention_us=30 * DAY_US)
    app = create_app(settings, clock_us=clock, background=False)
    client = app.test_client()
    hours = range(1, 20 * 24)
    events = [
        {"timestamp": format_timestamp(clock.now_us - hour * HOUR_US), "value": hour, "series": "s"} for hour in hours
    ]
    assert client.post("/events", json=events).json["stored"] == len(hours)
    for _ in range(2):
        body = client.get("/statistics?series=s&window=7d&stats=count,sum&percentiles=50").json
        assert (body["from"], body["resolution"]) == ("2025-11-14T07:00:00+00:00", "1h")
        assert (body["count"], body["sum"]) == (7 * 24, sum(range(1, 7 * 24 + 1)))
        assert abs(body["percentiles"]["50"] - 84) <= 0.84
        app.extensions["statsapi"].keep_house()
    steps = client.get("/statistics/timeline?series=s&window=7d&step=1d&stats=count").json["steps"]
    assert [step["count"] for step in steps] == [24] * 7
    problem = assert_problem(client.get("/statistics/timeline?series=s&window=7d&step=90m"), 422, "validation")
    assert "multiple of 1h" in problem["detail"]

    gone = "/series/s?start=2025-11-14T08:{}:00Z&end=2025-11-14T10:{}:00Z"
    problem = assert_problem(client.delete(gone.format("30", "15")), 422, "validation")
    assert "whole hour; the nearest range that covers it has 2025-11-14T08:00:00+00:00" in problem["detail"]
    assert "2025-11-14T11:00:00+00:00" in problem["errors"][1]["reason"]
    assert client.delete(gone.format("00", "00")).json["deleted"] == 2
    assert client.get("/statistics?series=s&window=7d").json["count"] == 7 * 24 - 2
    recent = client.delete("/series/s?start=2025-11-20T08:45:00Z&end=2025-11-20T08:46:00Z")
    assert recent.json["deleted"] == 1


def test_roll_ups_count_towards_the_limits(clock: FakeClock) -> None:
    """They take memory too: as many events as fit into it."""
    settings = Settings(journal="memory://", max_events=100)
    app = create_app(settings, clock_us=clock, background=False)
    client = app.test_client()
    old = [
        {"timestamp": format_timestamp(clock.now_us - 2 * HOUR_US - n * MINUTE_US), "value": n, "series": f"s{n % 4}"}
        for n in range(90)
    ]
    assert client.post("/events", json=old).json["stored"] == 90
    app.extensions["statsapi"].keep_house()
    now = format_timestamp(clock.now_us)
    assert client.post("/events", json=[{"timestamp": now, "value": 1}] * 30).json["stored"] == 30
    problem = assert_problem(client.post("/events", json=[{"timestamp": now, "value": 1}] * 70), 507, "store-full")
    assert "STATSAPI_MAX_EVENTS" in problem["detail"]
    assert client.get("/statistics?series=s1&window=24h").json["count"] == 23
