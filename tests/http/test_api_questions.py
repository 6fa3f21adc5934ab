"""Windows, ranges, more statistics, timelines, series, export and deletion, over HTTP."""

from __future__ import annotations

import base64
import csv
import io
import json
import statistics
from fractions import Fraction
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.model import HOUR_US, MINUTE_US, SECOND_US
from statsapi.times import format_timestamp, parse_timestamp_us
from tests import oracles
from tests.calls import assert_problem, post
from tests.fakes import NOW, FakeClock

VALUES = [1.5, -2.0, 1e16, 0.1, 42.0, 3.25, 7.0, 0.1]


@pytest.fixture
def filled(client: FlaskClient, clock: FakeClock) -> FlaskClient:
    """VALUES[i] lies i * 7 + 1 minutes before now."""
    for i, value in enumerate(VALUES):
        post(client, format_timestamp(clock.now_us - (7 * i + 1) * MINUTE_US), value)
    return client


def inside(minutes: float) -> list[float]:
    return [value for i, value in enumerate(VALUES) if 7 * i + 1 <= minutes]


def test_window(filled: FlaskClient) -> None:
    """?window= answers for that window, and tells series, from and to; a window has no upper end."""
    body = filled.get("/statistics?window=15m").json
    assert list(body.items()) == [
        ("series", "default"),
        ("from", "2025-11-21T07:30:00+00:00"),
        ("to", None),
        ("count", 3),
        ("min", -2.0),
        ("max", 1e16),
        ("mean", statistics.mean(inside(15))),
    ]
    for spelled in ("PT15M", "900s", "900", "0.25h"):
        assert filled.get(f"/statistics?window={spelled}").json == body


def test_windows_from_one_snapshot(filled: FlaskClient) -> None:
    """?windows= answers several, in the order asked."""
    body = filled.get("/statistics?windows=5m,1h,15m").json
    assert list(body) == ["series", "windows"]
    assert [answer["count"] for answer in body["windows"]] == [len(inside(m)) for m in (5, 60, 15)]
    assert [answer["mean"] for answer in body["windows"]] == [statistics.mean(inside(m)) for m in (5, 60, 15)]


def test_range_is_half_open(filled: FlaskClient, clock: FakeClock) -> None:
    """[start, end): an event at start counts, one at end does not; without an end there is no upper bound."""
    post(filled, format_timestamp(clock.now_us + HOUR_US), 9.0)
    start, end = (format_timestamp(clock.now_us - m * MINUTE_US) for m in (15, 1))
    body = filled.get(f"/statistics?start={quote(start)}&end={quote(end)}").json
    assert (body["from"], body["to"], body["count"]) == (start, end, 2)
    assert filled.get(f"/statistics?start={quote(start)}").json["count"] == 4
    unquoted_plus = filled.get(f"/statistics?start={start}&end={end}").json
    assert unquoted_plus == body
    seconds = (clock.now_us - 15 * MINUTE_US) / SECOND_US
    assert filled.get(f"/statistics?start={seconds}&end={quote(end)}").json == body


@pytest.mark.parametrize(
    ("start", "end", "minutes"),
    [
        ("now-15m", "now-1m", (15, 1)),
        ("now-15min", "now-60", (15, 1)),
        ("NOW - 15 min", "now-PT1M", (15, 1)),
        ("now-0.25h", "now", (15, 0)),
        ("now-1h", "now+5m", (60, -5)),
        ("now-1h30m", "now+1h", (90, -60)),
        ("2025-11-21T07:30:00Z", "now-1m", (15, 1)),
        ("now-15m", "2025-11-21T07:44:00Z", (15, 1)),
    ],
)
def test_edges_relative_to_now(
    filled: FlaskClient, clock: FakeClock, start: str, end: str, minutes: tuple[int, int]
) -> None:
    """now-15m is the instant of the answer less 15 minutes, with the plus of a URL or without, in every question."""
    absolute = [quote(format_timestamp(clock.now_us - m * MINUTE_US)) for m in minutes]
    for path in ("/statistics?", "/statistics/timeline?step=5m&", "/events?format=csv&"):
        expected = filled.get(f"{path}start={absolute[0]}&end={absolute[1]}")
        if "events" in path and minutes[0] > 60:
            assert_problem(expected, 422, "validation")
            continue
        for write in (quote, str):
            response = filled.get(f"{path}start={write(start)}&end={write(end)}")
            assert (response.status_code, response.data) == (200, expected.data)


@pytest.mark.parametrize("suffix", ["", " UTC", "[UTC]", " GMT"])
@pytest.mark.parametrize("moment", ["2025:11:21 07:30", "2025:11:21 07", "2025:11:21, 07:30", "2025:11:21 07:30:00"])
def test_a_date_with_colons_is_read_in_a_query_as_in_a_body(filled: FlaskClient, moment: str, suffix: str) -> None:
    """The text after a camera's date is the time, and not an offset that has lost its plus."""
    start = parse_timestamp_us(moment + suffix)
    assert filled.get(f"/statistics?start={quote(moment + suffix)}").json["from"] == format_timestamp(start)


def test_relative_edges_move_with_the_clock(filled: FlaskClient, clock: FakeClock) -> None:
    """Each answer has its own now: that of its `windows`, to the microsecond."""
    for step_us in (1, MINUTE_US - 1, 90 * SECOND_US):
        clock.advance(step_us)
        body = filled.get("/statistics?start=now-15m").json
        assert body == filled.get("/statistics?window=15m").json
        assert body["from"] == format_timestamp(clock.now_us - 15 * MINUTE_US)


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("start=now-1m&end=now-5m", "end", "lies before start"),
        ("start=now&end=2025-11-21T07:44:59Z", "end", "lies before start"),
        ("start=now-26h", "start", "reaches past what is kept"),
        ("start=now-3000y", "start", "no fixed length"),
        ("start=now-3000000d", "start", "outside the years"),
        ("start=1h", "start", "write it like now-1h"),
        ("start=-1h", "start", "write it like now-1h"),
        ("start=now-1h/h", "start", "must be a duration"),
        ("start=today", "start", "or like now-1h"),
        ("start=11/12/2026", "start", "two readings"),
        ("start=46352.144", "start", "spreadsheet"),
        ("start=2025", "start", "is a year"),
        ("window=1h30", "window", "no unit"),
        ("window=5M", "window", "5min"),
        ("window=1:30", "window", "not colons"),
        ("windows=5m,1y", "windows", "no fixed length"),
    ],
)
def test_instants_and_durations_refused(client: FlaskClient, query: str, field: str, reason: str) -> None:
    """Every question refuses text that is neither instant nor duration, with the cure."""
    for path in ("/statistics?", "/statistics/timeline?step=1m&", "/events?"):
        if field == "start" or path == "/statistics?":
            (error,) = assert_problem(client.get(path + query), 422, "validation")["errors"]
            assert error["field"] == field
            assert reason in error["reason"] or "reaches past what is kept" in error["reason"]


def test_durations_as_people_type_them(filled: FlaskClient) -> None:
    """One and the same window, however it is written."""
    expected = filled.get("/statistics?window=90m").json
    for written in ("1h30m", "1h30min", "1.5h", "90 min", "1+h+30+m", "5400", "PT1H30M", "pt1.5h", "1 hour 30 minutes"):
        assert filled.get(f"/statistics?window={written}").json == expected
        assert filled.get(f"/statistics?windows=5m,{written}").json["windows"][1]["count"] == expected["count"]
        assert (
            filled.get(f"/statistics/timeline?window=90m&step={written}").json["steps"][0]["count"] == expected["count"]
        )


def test_a_deletion_names_its_minutes(filled: FlaskClient, clock: FakeClock) -> None:
    """A deletion relative to now is refused with the whole minutes to send, and nothing is gone."""
    for start, end, minutes in (("now-15m", "now-1m", (15, 1)), ("now-15m", "now-90s", (15, 1))):
        problem = assert_problem(filled.delete(f"/series/default?start={start}&end={end}"), 422, "validation")
        named = [error["reason"].rpartition(" ")[2] for error in problem["errors"]]
        assert named == [format_timestamp(clock.now_us - m * MINUTE_US) for m in minutes]
    assert filled.delete(f"/series/default?start={quote(named[0])}&end={quote(named[1])}").json["deleted"] == 2


def test_all_statistics(filled: FlaskClient) -> None:
    """stats=all gives every statistic, exact, in a fixed order."""
    body = filled.get("/statistics?stats=all&window=1h").json
    assert list(body)[3:] == ["count", "min", "max", "mean", "sum", "variance", "stddev", "first", "last", "rate"]
    assert body["mean"] == statistics.mean(VALUES)
    assert body["variance"] == statistics.variance(VALUES)
    assert body["stddev"] == statistics.stdev(VALUES)
    assert body["sum"] == float(sum(map(Fraction, VALUES)))
    assert (body["first"], body["last"]) == (VALUES[-1], VALUES[0])
    assert body["rate"] == len(VALUES) / 3600


def test_some_statistics(filled: FlaskClient) -> None:
    """?stats= gives what was asked and no more, also without a window."""
    assert filled.get("/statistics?stats=stddev,count").json == {"count": 8, "stddev": statistics.stdev(VALUES)}


def test_percentiles(filled: FlaskClient) -> None:
    """Percentiles are exact, named as they were asked, and null for an empty window."""
    body = filled.get("/statistics?percentiles=50,95,99.9,0,100").json
    expected = {name: oracles.percentile(VALUES, Fraction(name)) for name in ("50", "95", "99.9", "0", "100")}
    assert list(body) == ["count", "min", "max", "mean", "percentiles"]
    assert body["percentiles"] == expected
    empty = filled.get("/statistics?percentiles=50&series=none&stats=count").json
    assert empty == {"count": 0, "percentiles": {"50": None}}


def test_empty_and_single(filled: FlaskClient, client: FlaskClient) -> None:
    """No events: count and rate 0, and nulls. One event: a null variance."""
    empty = client.get("/statistics?stats=all&series=none").json
    assert {name for name, value in empty.items() if value is not None} == {"count", "rate"}
    post(client, NOW, 5.0, series="one")
    single = client.get("/statistics?stats=all&series=one").json
    assert single["variance"] is None
    assert single["stddev"] is None
    assert "reasons" not in single


def test_beyond_float64_says_why(client: FlaskClient) -> None:
    """A sum or variance that leaves float64 is null with its reason, while the mean and deviation stay right."""
    for value in (1.5e308, 1.5e308, -1.5e308, 1.5e308):
        post(client, NOW, value)
    body = client.get("/statistics?stats=mean,sum,variance,stddev").json
    assert body["mean"] == 7.5e307
    assert body["sum"] is None
    assert body["variance"] is None
    assert body["stddev"] == 1.5e308
    assert set(body["reasons"]) == {"sum", "variance"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("window=-5m", "window"),
        ("window=0", "window"),
        ("window=soon", "window"),
        ("windows=5m,25h", "windows"),
        ("windows=25h", "windows"),
        ("window=25h", "window"),
        ("windows=5m,5m", "windows"),
        ("windows=", "windows"),
        ("windows=" + ",".join(f"{i}s" for i in range(1, 22)), "windows"),
        ("window=5m&start=2025-11-21T07:00:00Z", "window"),
        ("window=5m&windows=5m", "windows"),
        ("end=2025-11-21T07:00:00Z", "end"),
        ("window=5m&end=2025-11-21T07:00:00Z", "end"),
        ("start=2025-11-21T07:00:00Z&end=2025-11-21T06:59:59Z", "end"),
        ("start=2025-11-20T07:39:59Z", "start"),
        ("start=yesterday", "start"),
        ("stats=mode", "stats"),
        ("stats=p101", "stats"),
        ("stats=mean,avg", "stats"),
        ("stats=count,count", "stats"),
        ("percentiles=101", "percentiles"),
        ("percentiles=-1", "percentiles"),
        ("percentiles=nan", "percentiles"),
        ("percentiles=.", "percentiles"),
        ("percentiles=", "percentiles"),
        ("series=a%0Ab", "series"),
        ("window=5m&window=1h", "window"),
    ],
)
def test_questions_refused(client: FlaskClient, query: str, field: str) -> None:
    """A question that cannot be answered as asked is a 422 that names the parameter."""
    problem = assert_problem(client.get("/statistics?" + query), 422, "validation")
    assert field in [error["field"] for error in problem["errors"]]


def test_what_is_kept_is_said(client: FlaskClient) -> None:
    """A window past the retention is told how much is kept, and since when."""
    problem = assert_problem(client.get("/statistics?window=25h"), 422, "validation")
    assert "1d (STATSAPI_ROLLUP_RETENTION)" in problem["detail"]
    assert "2025-11-20T07:45:00" in problem["detail"]
    problem = assert_problem(client.get("/events?start=2025-11-21T06:39:59Z"), 422, "validation")
    assert "1h (STATSAPI_RETENTION)" in problem["detail"]
    assert "2025-11-21T06:40:00" in problem["detail"]


def test_timeline(filled: FlaskClient, clock: FakeClock) -> None:
    """Each step has its own statistics, empty ones included; together they are the window."""
    post(filled, format_timestamp(clock.now_us + MINUTE_US), 8.0)
    body = filled.get("/statistics/timeline?window=1h&step=10m&stats=count,mean,sum").json
    assert list(body) == ["series", "from", "to", "steps"]
    steps = body["steps"]
    assert len(steps) == 6
    assert list(steps[0]) == ["from", "to", "count", "mean", "sum"]
    assert [step["from"] for step in steps] == [
        format_timestamp(clock.now_us - m * MINUTE_US) for m in range(60, 0, -10)
    ]
    assert [step["to"] for step in steps[:-1]] == [step["from"] for step in steps[1:]]
    assert steps[-1]["to"] is None
    for i, step in enumerate(steps):
        oldest, newest = 60 - 10 * i, 50 - 10 * i
        values = [v for j, v in enumerate(VALUES) if newest < 7 * j + 1 <= oldest] + ([8.0] if i == 5 else [])
        assert step["count"] == len(values)
        assert step["mean"] == (statistics.mean(values) if values else None)
    assert sum(step["count"] for step in steps) == filled.get("/statistics").json["count"]


def test_timeline_with_percentiles_and_ends(filled: FlaskClient) -> None:
    """A step has what a window has: percentiles, its first and its last value; an empty one has nulls."""
    query = "start=2025-11-21T07:00:00Z&step=15m&stats=all&percentiles=50,99.9"
    steps = filled.get(f"/statistics/timeline?{query}").json["steps"]
    for step in steps:
        end = f"&end={quote(step['to'])}" if step["to"] else ""
        single = filled.get(f"/statistics?start={quote(step['from'])}{end}&stats=all&percentiles=50,99.9").json
        del single["series"]
        assert single == step
    nothing = filled.get(f"/statistics/timeline?{query}&series=none").json["steps"][0]
    assert (nothing["first"], nothing["percentiles"]) == (None, {"50": None, "99.9": None})
    too_many = "window=1h&step=1s&percentiles=" + ",".join(str(p) for p in range(1, 20))
    problem = assert_problem(filled.get("/statistics/timeline?" + too_many), 422, "validation")
    assert problem["errors"][0]["field"] == "percentiles"


def test_timeline_of_a_range(filled: FlaskClient) -> None:
    """A range that is no multiple of the step ends with a shorter one."""
    query = "start=2025-11-21T07:00:00Z&end=2025-11-21T07:25:00Z&step=10m"
    steps = filled.get("/statistics/timeline?" + query).json["steps"]
    assert [(step["from"][11:16], step["to"][11:16]) for step in steps] == [
        ("07:00", "07:10"),
        ("07:10", "07:20"),
        ("07:20", "07:25"),
    ]
    whole = filled.get("/statistics?start=2025-11-21T07:00:00Z&end=2025-11-21T07:25:00Z").json
    assert sum(step["count"] for step in steps) == whole["count"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("/events?limit=0", "limit: must be a whole number from 1 to 10,000"),
        ("/series?limit=many", "limit: must be a whole number from 1 to 10,000"),
        ("/debug/events?limit=10001", "limit: must be a whole number from 1 to 10,000"),
        ("/statistics?by=series&limit=1.5", "limit: must be a whole number from 1 to 10,000"),
        ("/statistics/histogram?bins=1001", "bins: must be a whole number from 1 to 1,000"),
        ("/statistics/histogram?scale=cube", "scale: must be linear or log"),
        ("/statistics?format=xml", "format: must be json or csv"),
        ("/events?format=xml", "format: must be json, ndjson, csv or influx"),
        ("/series?raw=perhaps", "raw: must be true or false"),
    ],
)
def test_what_a_parameter_takes_is_told(client: FlaskClient, question: str, said: str) -> None:
    """In the words of all refusals, with every bound and every word."""
    assert assert_problem(client.get(question), 422, "validation")["detail"] == said


def test_timeline_is_bounded(client: FlaskClient) -> None:
    """More than 5,000 steps, or 50,000 percentiles in them, are refused with what to ask for instead; so is no step."""
    assert len(client.get("/statistics/timeline?window=1h&step=720ms").json["steps"]) == 5000
    problem = assert_problem(client.get("/statistics/timeline?window=1h&step=500ms"), 422, "validation")
    assert problem["detail"] == (
        "step: makes 7,200 steps of this span; at most 5,000 are answered: take a longer step, or a shorter span"
    )
    ps = ",".join(map(str, range(15)))
    problem = assert_problem(client.get(f"/statistics/timeline?window=1h&step=1s&percentiles={ps}"), 422, "validation")
    assert problem["detail"] == (
        "percentiles: makes 54,000 percentiles of 3,600 steps; at most 50,000 are answered: take fewer of them, or a "
        "longer step"
    )
    problem = assert_problem(client.get("/statistics/timeline?window=1h"), 422, "validation")
    assert problem["errors"][0]["field"] == "step"


def test_series_list(client: FlaskClient, clock: FakeClock) -> None:
    """GET /series tells name, count, first and last, by name, in pages, by prefix; expired series are not there."""
    for name in ("b", "a/1", "a/2", "a/3"):
        post(client, NOW, 1.0, series=name)
    post(client, "2025-11-21T07:30:00Z", 1.0, series="b")
    body = client.get("/series").json
    assert list(body) == ["series", "next"]
    assert [series["name"] for series in body["series"]] == ["a/1", "a/2", "a/3", "b"]
    assert body["series"][3] == {"name": "b", "tags": {}, "count": 2, "first": "2025-11-21T07:30:00+00:00", "last": NOW}
    assert body["next"] is None
    page = client.get("/series?prefix=a/&limit=2").json
    assert ([series["name"] for series in page["series"]], page["next"]) == (["a/1", "a/2"], "a/2")
    page = client.get("/series?prefix=a/&limit=2&after=a/2").json
    assert ([series["name"] for series in page["series"]], page["next"]) == (["a/3"], None)
    clock.advance(2 * HOUR_US)
    post(client, format_timestamp(clock.now_us), 1.0, series="new")
    assert [series["name"] for series in client.get("/series?raw=true").json["series"]] == ["new"]
    clock.advance(25 * HOUR_US)
    post(client, format_timestamp(clock.now_us), 1.0, series="newest")
    assert [series["name"] for series in client.get("/series").json["series"]] == ["newest"]


@pytest.mark.parametrize("housekeeping", [False, True])
def test_series_list_has_rolled_up_series(
    app: Flask, client: FlaskClient, clock: FakeClock, housekeeping: bool
) -> None:
    """A series whose events have all been rolled up is listed, with the edges between which they lie; ?raw=true has raw
    events alone; and the list is the same before they were folded.
    """
    for name, times in {
        "old": ("2025-11-20T09:15:17Z", "2025-11-21T01:02:03.5Z", "2025-11-21T01:02:03.5Z"),
        "both": ("2025-11-21T01:02:00Z", NOW),
        "raw": ("2025-11-21T07:30:00.000001Z",),
        "edge": ("2025-11-21T06:40:00Z",),
        "before the edge": ("2025-11-21T06:39:59.999999Z",),
    }.items():
        for timestamp in times:
            post(client, timestamp, 1.0, series=name.replace(" ", "-"))
    if housekeeping:
        app.extensions["statsapi"].keep_house()
    rows = {
        name: row
        for row in client.get("/series").json["series"]
        if (name := row.pop("name"))
        and row.pop("tags") == {}
        and row["count"] == client.get(f"/statistics?window=24h&series={name}").json["count"]
    }
    assert rows == {
        "before-the-edge": {
            "count": 1,
            "first": "2025-11-21T06:39:00+00:00",
            "last": "2025-11-21T06:40:00+00:00",
            "resolution": "1m",
        },
        "both": {"count": 2, "first": "2025-11-21T01:02:00+00:00", "last": NOW, "resolution": "1m"},
        "edge": {"count": 1, "first": "2025-11-21T06:40:00+00:00", "last": "2025-11-21T06:40:00+00:00"},
        "old": {
            "count": 3,
            "first": "2025-11-20T09:15:00+00:00",
            "last": "2025-11-21T01:03:00+00:00",
            "resolution": "1m",
        },
        "raw": {"count": 1, "first": "2025-11-21T07:30:00.000001+00:00", "last": "2025-11-21T07:30:00.000001+00:00"},
    }
    raw = client.get("/series?raw=true").json["series"]
    assert [(row["name"], row["count"], row["first"]) for row in raw] == [
        ("both", 1, NOW),
        ("edge", 1, "2025-11-21T06:40:00+00:00"),
        ("raw", 1, "2025-11-21T07:30:00.000001+00:00"),
    ]
    assert client.delete("/series/old").json["deleted"] == 3
    assert [row["name"] for row in client.get("/series?prefix=o").json["series"]] == []
    assert "old" not in client.get("/events?format=csv").text


def test_export_csv_and_back(client: FlaskClient, app: Flask) -> None:
    """A CSV export holds every event to the last bit, with its series as a column."""
    rows = [("2025-11-21T07:44:00.000001Z", 0.1, "a"), (NOW, -1.7976931348623157e308, "a"), (NOW, 5e-324, "b")]
    for timestamp, value, series in rows:
        post(client, timestamp, value, series=series)
    response = client.get("/events?format=csv")
    assert response.mimetype == "text/csv"
    read = list(csv.DictReader(io.StringIO(response.text)))
    assert [(float(row["value"]), row["series"]) for row in read] == [(row[1], row[2]) for row in rows]
    assert read[0]["timestamp"] == "2025-11-21T07:44:00.000001Z"
    before = {series: client.get(f"/statistics?series={series}&stats=all").json for series in "ab"}
    for series in "ab":
        client.delete(f"/series/{series}")
    for row in read:
        post(client, row["timestamp"], row["value"], series=row["series"])
    assert {series: client.get(f"/statistics?series={series}&stats=all").json for series in "ab"} == before


def test_export_formats(client: FlaskClient) -> None:
    """The format comes from ?format= or Accept; NDJSON has an object a line; ranges and a series narrow it."""
    for minute in range(40, 45):
        post(client, f"2025-11-21T07:{minute}:00Z", minute)
    response = client.get("/events?series=default&start=2025-11-21T07:42:00Z&format=ndjson")
    assert response.mimetype == "application/x-ndjson"
    assert [json.loads(line)["value"] for line in response.text.splitlines()] == [42.0, 43.0, 44.0]
    assert client.get("/events", headers={"Accept": "text/csv"}).mimetype == "text/csv"
    assert client.get("/events", headers={"Accept": "*/*"}).mimetype == "application/json"
    assert client.get("/events?format=csv&series=none").text == "timestamp,value,series\n"
    assert_problem(client.get("/events", headers={"Accept": "image/png"}), 406, "not-acceptable")
    assert_problem(client.get("/events?format=xml"), 422, "validation")
    assert_problem(client.get("/events?start=2025-11-21T01:00:00Z"), 422, "validation")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_export_pages(client: FlaskClient, limit: int) -> None:
    """Pages of JSON, followed by their cursor, give every event once, in order, through runs at one instant too."""
    for series in "ab":
        for i in range(9):
            post(client, f"2025-11-21T07:{40 + i // 4}:00Z", i, series=series)
    seen: list[tuple[str, float]] = []
    cursor = ""
    while True:
        body = client.get(f"/events?limit={limit}&cursor={cursor}").json
        assert len(body["events"]) <= limit
        seen += [(event["series"], event["value"]) for event in body["events"]]
        cursor = body["next"]
        if cursor is None:
            break
    assert seen == [(series, float(i)) for series in "ab" for i in range(9)]
    assert_problem(client.get("/events?cursor=xyz"), 422, "validation")


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_what_is_exported_can_be_recorded_again(filled: FlaskClient, form: str) -> None:
    """Every form of the export is a batch, of nothing too, and gives the same statistics to the last bit."""
    before = filled.get("/statistics?stats=all").json
    exported = filled.get(f"/events?format={form}")
    filled.delete("/series/default")
    empty = filled.get(f"/events?format={form}")
    assert filled.post("/events", data=exported.data, content_type=exported.mimetype).json["stored"] == len(VALUES)
    assert filled.get("/statistics?stats=all").json == before
    assert filled.post("/events", data=empty.data, content_type=empty.mimetype).json["stored"] == 0


def test_export_by_accept(client: FlaskClient) -> None:
    """Parameters of a media type, and the other names of NDJSON, are understood."""
    for accept, mimetype in (
        ("text/csv; charset=utf-8", "text/csv"),
        ("application/jsonl", "application/x-ndjson"),
        ("text/html, text/csv;q=0.5, */*;q=0.1", "text/csv"),
    ):
        response = client.get("/events", headers={"Accept": accept})
        assert (response.mimetype, response.headers["Vary"]) == (mimetype, "Accept")


@pytest.mark.parametrize(
    "position", ["0 -1 a", "0 9999999999999999999 a", f"{10**26} 0 a", "0 0 ", f"0 0 {'a' * 201}", "0 0", "x 0 a"]
)
def test_a_cursor_that_was_never_given_is_refused(client: FlaskClient, position: str) -> None:
    """Whatever a cursor holds, it is a 422, never a 500."""
    cursor = base64.urlsafe_b64encode(position.encode()).decode()
    problem = assert_problem(client.get(f"/events?cursor={cursor}"), 422, "validation")
    assert [error["field"] for error in problem["errors"]] == ["cursor"]


def test_parameters_that_would_do_nothing_are_refused(client: FlaskClient) -> None:
    """A limit or a cursor on a stream, a cursor of another series, a range that ends before it starts."""
    for series in "ab":
        for value in (1, 2):
            post(client, NOW, value, series=series)
    cursor = client.get("/events?limit=1").json["next"]
    for query, field in (
        ("format=csv&limit=1", "limit"),
        (f"format=ndjson&cursor={cursor}", "cursor"),
        (f"series=b&cursor={cursor}", "cursor"),
        ("start=2025-11-21T07:40:00Z&end=2025-11-21T07:30:00Z", "end"),
    ):
        problem = assert_problem(client.get(f"/events?{query}"), 422, "validation")
        assert [error["field"] for error in problem["errors"]] == [field]
    refused = client.delete("/series/a?start=2025-11-21T07:40:00Z&end=2025-11-21T07:30:00Z")
    assert assert_problem(refused, 422, "validation")["errors"][0]["field"] == "end"


def test_export_is_a_snapshot(client: FlaskClient, clock: FakeClock) -> None:
    """Recordings, expiry and deletions during an export do not show in it."""
    for i in range(100):
        post(client, format_timestamp(clock.now_us - i * SECOND_US), float(i))
    response = client.get("/events?format=csv")
    stream = response.iter_encoded()
    next(stream)
    post(client, NOW, 1e9)
    client.delete("/series/default")
    rest = b"".join(stream).decode().splitlines()
    assert sorted(float(row.split(",")[1]) for row in rest) == [float(i) for i in range(100)]


def test_delete(filled: FlaskClient, clock: FakeClock) -> None:
    """DELETE forgets a series or whole minutes of it and says how many events that were; later ones count again."""
    start, end = (quote(format_timestamp(clock.now_us - m * MINUTE_US)) for m in (15, 1))
    body = filled.delete(f"/series/default?start={start}&end={end}").json
    assert body == {"status": "success", "series": "default", "deleted": 2}
    assert filled.get("/statistics").json["count"] == len(VALUES) - 2
    assert filled.delete("/series/default").json["deleted"] == len(VALUES) - 2
    assert filled.get("/statistics").json["count"] == 0
    assert filled.get("/series").json["series"] == []
    assert filled.delete("/series/default").json["deleted"] == 0
    post(filled, NOW, 3.0)
    assert filled.get("/statistics").json["count"] == 1


def test_delete_counts_what_could_be_seen(client: FlaskClient) -> None:
    """An event that has expired is not among the deleted, whether or not it was cleaned up by then."""
    post(client, NOW, 1.0)
    post(client, "2025-11-20T07:39:59Z", 2.0)
    assert client.delete("/series/default").json["deleted"] == 1


@pytest.mark.parametrize("name", ["-a", "=1", "+1", "@a", "", " a", "a ", "a;b", "a\u200d", "a" * 201])
def test_names_that_a_sheet_or_a_page_would_lose_are_refused(client: FlaskClient, name: str) -> None:
    """A series can be seen, and opened in a spreadsheet, or it cannot be recorded."""
    problem = assert_problem(post(client, NOW, 1.0, series=name), 422, "validation")
    assert problem["errors"][0]["field"] == "series"


def test_a_plus_in_a_query(client: FlaskClient) -> None:
    """It is a blank, as URLs have it; but where only the name with a + is held, it is that one, as it was before names
    could hold blanks.
    """
    post(client, NOW, 1.0, series="a+b")
    assert client.get("/statistics?series=a+b").json["count"] == 1
    assert client.get("/statistics?series=a%2Bb").json["count"] == 1
    for _ in range(2):
        post(client, NOW, 1.0, series="a b")
    for written, count in (("a+b", 2), ("a%20b", 2), ("a%2Bb", 1)):
        assert client.get(f"/statistics?series={written}").json["count"] == count
        assert len(client.get(f"/events?series={written}").json["events"]) == count


def test_delete_takes_names_with_slashes(client: FlaskClient) -> None:
    """A series may be named like a path, percent-encoded or not."""
    for path in ("a//b/c", quote("a//b/c", safe="")):
        post(client, NOW, 1.0, series="a//b/c")
        assert client.delete(f"/series/{path}").json["deleted"] == 1


def test_delete_wants_whole_minutes(client: FlaskClient) -> None:
    """Another range is refused, naming the nearest one that covers it."""
    response = client.delete("/series/x?start=2025-11-21T07:00:30Z&end=2025-11-21T07:10:01Z")
    problem = assert_problem(response, 422, "validation")
    reasons = {error["field"]: error["reason"] for error in problem["errors"]}
    assert "2025-11-21T07:00:00+00:00" in reasons["start"]
    assert "2025-11-21T07:11:00+00:00" in reasons["end"]
    assert_problem(client.delete("/series/a%0Ab"), 422, "validation")


def test_deleted_from_the_debug_page_too(client: FlaskClient) -> None:
    """A late arrival that is deleted is forgotten as well."""
    post(client, "2024-01-01T00:00:00Z", 1.0)
    client.delete("/series/default")
    body: Any = client.get("/debug/events").json
    assert body["total_events"] == 0
