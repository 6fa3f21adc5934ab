"""Questions about several series over HTTP: the union as one answer, groups, comparisons, and the same as CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, EventBatch
from statsapi.naming.names import split_name
from statsapi.times import format_timestamp
from tests import oracles
from tests.calls import assert_problem
from tests.fakes import FakeClock

Row = tuple[str, int, float]

# Name, minutes before now, value: two routes, several machines, a series without tags, values of all sizes.
EVENTS = [
    ("web;host=a;route=/users", 1, 1.5),
    ("web;host=a;route=/users", 4, -2.0),
    ("web;host=b;route=/users", 2, 1e16),
    ("web;host=b;route=/jobs", 9, 0.1),
    ("web;host=b;route=/jobs", 50, 3.25),
    ("db;host=c", 3, 42.0),
    ("db;host=c", 30, -1e16),
    ("batch", 5, 7.0),
    ("batch", 20, 0.1),
    ("default", 6, 1000.0),
]
NAMES = sorted({name for name, _, _ in EVENTS})


def fill(app: Flask, clock: FakeClock) -> list[Row]:
    rows = [(name, clock.now_us - minutes * MINUTE_US, value) for name, minutes, value in EVENTS]
    for row in rows:
        app.extensions["statsapi"].record(EventBatch.single(*row))
    return rows


@pytest.fixture(scope="module")
def rows(shared_app: Flask, shared_clock: FakeClock) -> list[Row]:
    return fill(shared_app, shared_clock)


def described(values: list[float]) -> dict[str, Any]:
    """The answer to stats=all&percentiles=50,99.9 for these values, by plain code; without first, last and rate."""
    told: dict[str, Any] = {"count": len(values), "min": None, "max": None, "mean": None, "sum": None}
    told |= {"variance": None, "stddev": None, "percentiles": {"50": None, "99.9": None}}
    if values:
        told |= {"min": min(values), "max": max(values), "mean": statistics.mean(values)}
        told["sum"] = float(sum(map(Fraction, values)))
        told["percentiles"] = {p: oracles.percentile(values, Fraction(p)) for p in ("50", "99.9")}
    if len(values) > 1:
        told |= {"variance": statistics.variance(values), "stddev": statistics.stdev(values)}
    return told


def chosen(rows: list[Row], is_chosen: Callable[[str], bool], since_us: int) -> list[float]:
    return [value for name, ts_us, value in rows if is_chosen(name) and ts_us >= since_us]


def tags(name: str) -> dict[str, str]:
    return split_name(name)[1]


CHOICES: list[tuple[list[tuple[str, str]], Callable[[str], bool]]] = [
    ([("series", "batch"), ("series", "default")], lambda name: name in ("batch", "default")),
    ([("series", "batch"), ("series", "none")], lambda name: name == "batch"),
    ([("series", "batch"), ("series", "batch")], lambda name: name == "batch"),
    ([("match", "*")], lambda name: True),
    ([("match", "web*")], lambda name: name.startswith("web")),
    ([("match", "b?tch")], lambda name: name == "batch"),
    ([("match", "WEB*")], lambda name: False),
    ([("match", "db*"), ("match", "batch")], lambda name: name.startswith(("db", "batch"))),
    ([("match", "db*"), ("series", "batch")], lambda name: name.startswith(("db", "batch"))),
    ([("where", "host=b")], lambda name: tags(name).get("host") == "b"),
    ([("where", "route=*")], lambda name: "route" in tags(name)),
    ([("where", "route=/u*"), ("where", "host=?")], lambda name: tags(name).get("route") == "/users"),
    ([("match", "web*"), ("where", "host=a")], lambda name: name.startswith("web") and tags(name).get("host") == "a"),
    ([("series", "batch")], lambda name: name == "batch"),
]


def ids(choice: Any) -> str | None:
    return "&".join(f"{key}={value}" for key, value in choice) if isinstance(choice, list) else None


@pytest.mark.parametrize(("choice", "is_chosen"), CHOICES, ids=ids)
def test_the_answer_is_that_of_the_union(
    shared_client: FlaskClient, shared_clock: FakeClock, rows: list[Row], choice: list[tuple[str, str]], is_chosen: Any
) -> None:
    """Bit for bit that of a list with the events of all chosen series, in a window, a timeline and an export."""
    query = urlencode([*choice, ("stats", "all"), ("percentiles", "50,99.9")])
    if len(choice) == 1 and choice[0][0] == "series":  # one series, whose answer names it
        name = choice[0][1]
        names_it = shared_client.get(f"/statistics?window=10m&{query}").json
        assert names_it["series"] == name
        assert "matched" not in names_it
    else:
        body = shared_client.get(f"/statistics?{query}").json
        assert body.pop("matched") == len({name for name in NAMES if is_chosen(name)})
        expected = described(chosen(rows, is_chosen, shared_clock.now_us - HOUR_US))
        assert {name: body[name] for name in expected} == expected
    body = shared_client.get(f"/statistics?window=10m&{query}").json
    inside = [row for row in rows if is_chosen(row[0]) and row[1] >= shared_clock.now_us - 10 * MINUTE_US]
    expected = described([value for _, _, value in inside])
    assert {name: body[name] for name in expected} == expected
    inside.sort(key=lambda row: row[1])
    assert (body["first"], body["last"]) == ((inside[0][2], inside[-1][2]) if inside else (None, None))
    steps = shared_client.get(f"/statistics/timeline?window=1h&step=7m&{query}").json["steps"]
    assert len(steps) == 9
    for at, step in enumerate(steps):
        since_us = shared_clock.now_us - HOUR_US + at * 7 * MINUTE_US
        values = [v for n, ts_us, v in rows if is_chosen(n) and since_us <= ts_us < since_us + 7 * MINUTE_US]
        expected = described(values)
        assert {name: step[name] for name in expected} == expected


def test_nothing_that_matches_is_an_empty_answer(shared_client: FlaskClient, rows: list[Row]) -> None:
    """No error: a count of 0, in each form; and no groups."""
    assert shared_client.get("/statistics?match=x*").json == {
        "matched": 0,
        "count": 0,
        "min": None,
        "max": None,
        "mean": None,
    }
    assert shared_client.get("/statistics?match=x*&by=series&stats=count").json == {
        "matched": 0,
        "count": 0,
        "groups": [],
        "groups_total": 0,
    }
    steps = shared_client.get("/statistics/timeline?match=x*&window=2m&step=1m&stats=count").json["steps"]
    assert [step["count"] for step in steps] == [0, 0]
    assert shared_client.get("/statistics/histogram?match=x*").json["counts"] == []


def test_one_series_is_answered_as_ever(shared_client: FlaskClient, rows: list[Row]) -> None:
    """The seed's keys for no series and for one; `matched` is told of unions only."""
    assert list(shared_client.get("/statistics").json) == ["count", "min", "max", "mean"]
    assert list(shared_client.get("/statistics?series=batch").json) == ["count", "min", "max", "mean"]
    assert list(shared_client.get("/statistics?series=batch&window=5m").json)[:3] == ["series", "from", "to"]
    assert list(shared_client.get("/statistics?series=batch&series=default&window=5m").json)[:3] == [
        "matched",
        "from",
        "to",
    ]
    windows = shared_client.get("/statistics?match=*&windows=5m,1h&stats=count").json
    assert [window["count"] for window in windows["windows"]] == [5, 10]
    assert list(windows) == ["matched", "windows"]


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("match=", "match", "1 to 200"),
        ("match=" + "a" * 201, "match", "1 to 200"),
        ("where=status", "where", "has no ="),
        ("where==5", "where", "without a key"),
        ("where=status=", "where", "1 to 200"),
        ("&".join(f"match={i}*" for i in range(51)), "match", "50 times"),
        ("by=", "by", "is empty: write series"),
        ("by=a=b", "by", "key"),
        ("by=series&by=host", "by", "more than once"),
        ("order=mean", "order", "needs by"),
        ("limit=3", "limit", "needs by"),
        ("by=series&limit=0", "limit", "1"),
        ("by=series&limit=10001", "limit", "10,000"),
        ("by=series&order=p101", "order", "p0 to p100"),
        ("by=series&order=size", "order", "or series"),
        ("compare=yesterday", "compare", "or previous"),
        ("compare=0", "compare", "longer than 0"),
        ("format=xml", "format", "json or csv"),
        ("matches=a*", "matches", "match"),
        ("series=a&series=a\x00b", "series", ""),
        ("stats=mean,count,avg", "stats", "'avg' is the same as 'mean'"),
        ("stats=p50,median", "stats", "'median' is the same as 'p50'"),
        ("percentiles=5,5", "percentiles", "'5' is given twice"),
        ("windows=60m,5m,1h", "windows", "'1h' is the same as '60m'"),
    ],
)
def test_what_cannot_be_answered_names_the_parameter(client: FlaskClient, query: str, field: str, reason: str) -> None:
    """A 422 for every pattern and word that is none, never a 500."""
    errors = assert_problem(client.get("/statistics?" + quote(query, safe="=&*?")), 422, "validation")["errors"]
    assert field in [error["field"] for error in errors]
    assert any(reason in error["reason"] for error in errors), errors


def test_groups(shared_client: FlaskClient, rows: list[Row]) -> None:
    """by=series has a row for each beside the total, by=TAG one for each value; without the tag it is null, last."""
    body = shared_client.get("/statistics?by=series&stats=count,mean").json
    assert body["matched"] == body["groups_total"] == len(NAMES)
    for group, name in zip(body["groups"], NAMES, strict=True):
        values = [value for series, _, value in rows if series == name]
        assert group == {"series": name, "count": len(values), "mean": statistics.mean(values)}
    body = shared_client.get("/statistics?by=host&stats=count&percentiles=50").json
    assert [group["tag"] for group in body["groups"]] == [{"host": host} for host in ("a", "b", "c", None)]
    for group in body["groups"]:
        values = [value for series, _, value in rows if tags(series).get("host") == group["tag"]["host"]]
        assert group["count"] == len(values)
        assert group["percentiles"] == {"50": oracles.percentile(values, 50)}
    named = shared_client.get("/statistics?series=batch&series=none&by=series&stats=count").json
    assert named["groups"] == [{"series": "batch", "count": 2}, {"series": "none", "count": 0}]
    assert named["matched"] == 1


@pytest.mark.parametrize("order", ["mean", "p95", "median", "range", "rate", "last", "stddev", "series", "host"])
@pytest.mark.parametrize("sign", ["", "-", "+"])
@pytest.mark.parametrize("path", ["/statistics?", "/statistics/timeline?window=1h&step=30m&", "/statistics/histogram?"])
def test_the_order_of_groups(shared_client: FlaskClient, rows: list[Row], order: str, sign: str, path: str) -> None:
    """By any statistic or percentile, asked or not, of the whole span, in each form; without a value at the end."""
    found = shared_client.get(f"{path}by=host&order={sign}{order}").json["groups"]
    shown = shared_client.get("/statistics?by=host&stats=mean,p95,median,range,rate,last,stddev").json["groups"]
    expected = [group["tag"] for group in shown]
    if order in ("series", "host"):
        expected = expected[::-1] if sign == "-" else expected
    else:
        with_value = [group for group in shown if group[order] is not None]
        with_value.sort(key=lambda group: group[order], reverse=sign == "-")
        without = [group for group in shown if group[order] is None]
        expected = [group["tag"] for group in with_value + without]
    assert [group["tag"] for group in found] == expected
    first = shared_client.get(f"{path}by=host&order={sign}{order}&limit=1").json
    assert first["groups"] == found[:1]
    assert first["groups_total"] == 4


def test_tags_called_like_statistics(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """A tag has a place of its own in a group, so it may be called count, series or percentiles, in CSV as well."""
    app.extensions["statsapi"].record(EventBatch.single("a;count=7;p95=x", clock.now_us, 1.0))
    body = client.get("/statistics?by=count&stats=count&order=-count").json
    assert body["groups"] == [{"tag": {"count": "7"}, "count": 1}]
    assert client.get("/statistics?by=p95&stats=p95").json["groups"] == [{"tag": {"p95": "x"}, "p95": 1.0}]
    assert client.get("/statistics?by=count&stats=count&format=csv").text == (
        f"tag.count,from,to,count\n7,{format_timestamp(clock.now_us - HOUR_US)},,1\n"
    )
    for i, key in enumerate(
        ("percentiles", "previous", "change", "tag", "steps", "windows", "matched", "from", "reasons")
    ):
        app.extensions["statsapi"].record(EventBatch.single(f"b{i};{key}=v", clock.now_us, 2.0))
        for path in (
            "?",
            "?windows=5m,1h&",
            "?compare=5m&window=5m&",
            "/timeline?step=30m&window=1h&",
            "/histogram?bins=1&",
        ):
            answer = client.get(f"/statistics{path}match=b{i}*&by={key}&format=csv")
            assert {line[f"tag.{key}"] for line in table(answer)} == {"v"}, path


def test_groups_of_a_timeline(shared_client: FlaskClient, rows: list[Row]) -> None:
    """Each group has the steps that a timeline of its series alone has."""
    query = "window=1h&step=15m&stats=all&percentiles=90"
    body = shared_client.get(f"/statistics/timeline?match=web*&by=series&{query}").json
    assert list(body) == ["matched", "from", "to", "steps", "groups", "groups_total"]
    for group in body["groups"]:
        assert list(group) == ["series", "steps"]
        alone = shared_client.get(f"/statistics/timeline?{urlencode({'match': group['series']})}&{query}").json
        assert group["steps"] == alone["steps"]
    assert body["steps"] == shared_client.get(f"/statistics/timeline?match=web*&{query}").json["steps"]


def table(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200
    assert answer.content_type == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_csv_is_flat(shared_client: FlaskClient, rows: list[Row]) -> None:
    """A column for each statistic and percentile, the same numbers as in JSON; for Accept: text/csv as well."""
    query = "by=host&window=1h&stats=count,avg,p90,stddev&percentiles=50,99.9&order=-count"
    groups = shared_client.get("/statistics?" + query).json["groups"]
    answer = shared_client.get(f"/statistics?{query}&format=csv")
    assert answer.text.split("\n")[0] == "tag.host,from,to,count,avg,stddev,p90,p50,p99.9,method,relative_error"
    for line, group in zip(table(answer), groups, strict=True):
        assert line["tag.host"] == (group["tag"]["host"] or "")
        assert (line["from"], line["to"], line["method"]) == (group["from"], "", "")
        for name, number in (
            ("count", group["count"]),
            ("avg", group["avg"]),
            ("stddev", group["stddev"]),
            ("p90", group["p90"]),
            ("p50", group["percentiles"]["50"]),
            ("p99.9", group["percentiles"]["99.9"]),
        ):
            assert line[name] == ("" if number is None else repr(number))
    accepted = shared_client.get("/statistics?" + query, headers={"Accept": "text/csv, */*;q=0.1"})
    assert accepted.data == answer.data
    assert accepted.headers["Vary"] == "Accept"
    for accept in ("*/*", "application/json", "text/html,*/*", "application/json, text/csv;q=0.5", "text/plain"):
        assert shared_client.get("/statistics?" + query, headers={"Accept": accept}).is_json
    alone = table(shared_client.get("/statistics", headers={"Accept": "text/csv"}))
    assert [(line["series"], line["count"], line["mean"]) for line in alone] == [("default", "1", "1000.0")]
    windows = table(shared_client.get("/statistics?match=*&windows=5m,1h&format=csv"))
    assert [(line["matched"], line["count"]) for line in windows] == [("6", "5"), ("6", "10")]


def test_csv_of_a_timeline(shared_client: FlaskClient, rows: list[Row]) -> None:
    """A row for each step of each group, or of the total."""
    body = shared_client.get("/statistics/timeline?by=host&window=1h&step=20m&stats=count,mean").json
    lines = table(shared_client.get("/statistics/timeline?by=host&window=1h&step=20m&stats=count,mean&format=csv"))
    expected = [
        [group["tag"]["host"] or "", step["from"], step["to"] or "", str(step["count"])]
        for group in body["groups"]
        for step in group["steps"]
    ]
    assert [[line["tag.host"], line["from"], line["to"], line["count"]] for line in lines] == expected
    lines = table(shared_client.get("/statistics/timeline?window=1h&step=20m&format=csv&series=batch"))
    assert [line["series"] for line in lines] == ["batch"] * 3


def test_no_cell_is_a_formula(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """Text that a spreadsheet would run has an apostrophe in front; commas and quotes are quoted; numbers are bare."""
    for value in ('=HYPERLINK("http://evil")', "+1", "-1", "@sum", 'a,"b"', "=1,2"):
        app.extensions["statsapi"].record(EventBatch.single(f"a;key={value}", clock.now_us, -5.0))
    lines = table(client.get("/statistics?by=key&stats=mean&format=csv"))
    assert sorted(line["tag.key"] for line in lines) == sorted(
        ['\'=HYPERLINK("http://evil")', "'+1", "'-1", "'@sum", 'a,"b"', "'=1,2"]
    )
    assert {line["mean"] for line in lines} == {"-5.0"}


def test_words_people_type(shared_client: FlaskClient, rows: list[Row]) -> None:
    """Aliases are keys as they were typed, with the values of what they stand for."""
    body = shared_client.get("/statistics?match=*&stats=median,avg,std,p95,p99.9,range,var").json
    values = [value for _, _, value in rows]
    assert body.pop("matched") == 6
    assert list(body.items()) == [
        ("avg", statistics.mean(values)),
        ("var", statistics.variance(values)),
        ("std", statistics.stdev(values)),
        ("range", max(values) - min(values)),
        ("median", oracles.percentile(values, 50)),
        ("p95", oracles.percentile(values, 95)),
        ("p99.9", oracles.percentile(values, Fraction("99.9"))),
    ]
    one = shared_client.get("/statistics?series=batch&stats=median,range,count&percentiles=50").json
    assert one == {"count": 2, "range": 6.9, "median": 3.55, "percentiles": {"50": 3.55}}
    step = shared_client.get("/statistics/timeline?series=batch&window=1h&step=1h&stats=p50,avg").json["steps"][0]
    assert (step["p50"], step["avg"]) == (3.55, 3.55)


def test_a_range_beyond_float64_says_why(client: FlaskClient) -> None:
    """As a sum does."""
    for value in (1.5e308, -1.5e308):
        client.post("/event", json={"timestamp": "2025-11-21T07:45:00Z", "value": value})
    body = client.get("/statistics?stats=range,mean").json
    assert body == {"mean": 0.0, "range": None, "reasons": {"range": "its exact value leaves float64"}}


def test_compared_with_the_span_before(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """`previous` is what an earlier span has, `change` how much larger it is now; null where there is nothing."""
    record = app.extensions["statsapi"].record
    for minutes, value in ((1, 6.0), (3, 4.0), (6, 2.0), (8, 2.0), (9, -4.0)):
        record(EventBatch.single("a", clock.now_us - minutes * MINUTE_US, value))
    record(EventBatch.single("b", clock.now_us - MINUTE_US, 1.0))
    body = client.get("/statistics?series=a&window=5m&compare=previous&stats=count,mean,stddev,p50&percentiles=99").json
    before = client.get("/statistics?series=a&start=now-10m&end=now-5m&stats=count,mean,stddev,p50&percentiles=99").json
    del before["series"]
    assert body["previous"] == before
    assert body["change"]["count"] == float(Fraction(2 - 3, 3))
    assert body["change"]["mean"] is None  # after 0
    assert body["change"]["p50"] == 1.5
    assert body["change"]["percentiles"]["99"] == (body["percentiles"]["99"] - 2.0) / 2.0
    groups = client.get("/statistics?by=series&window=5m&compare=previous&stats=count").json["groups"]
    assert [group["previous"]["count"] for group in groups] == [3, 0]
    assert [group["change"]["count"] for group in groups] == [-1 / 3, None]
    line = table(client.get("/statistics?by=series&window=5m&compare=5m&stats=count&format=csv"))[0]
    assert (line["count"], line["previous.count"], line["change.count"]) == ("2", "3", repr(-1 / 3))
    range_ = client.get("/statistics?series=a&start=now-5m&end=now-2m&compare=3m&stats=count").json
    assert (range_["count"], range_["previous"]["count"]) == (1, 2)
    both = client.get("/statistics?series=a&windows=5m,2m&compare=previous&stats=count").json["windows"]
    assert [(w["count"], w["previous"]["count"]) for w in both] == [(2, 3), (1, 1)]


def test_a_negative_number_that_rises_has_a_positive_change(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """The change is a part of the size of what was before."""
    for minutes, value in ((1, -90.0), (6, -100.0)):
        app.extensions["statsapi"].record(EventBatch.single("default", clock.now_us - minutes * MINUTE_US, value))
    assert client.get("/statistics?window=5m&compare=previous&stats=mean").json["change"] == {"mean": 0.1}


def test_what_is_not_kept_cannot_be_compared(shared_client: FlaskClient, rows: list[Row]) -> None:
    """`previous` is null, with how much is kept; of some windows, those that reach as far."""
    body = shared_client.get("/statistics?match=*&window=1h&compare=1w&stats=count").json
    assert (body["count"], body["previous"], body["change"]) == (10, None, None)
    assert "1d (STATSAPI_ROLLUP_RETENTION)" in body["reasons"]["previous"]
    both = shared_client.get("/statistics?windows=1h,20h&compare=previous&stats=count").json["windows"]
    assert [window["previous"] is None for window in both] == [False, True]
    ahead = shared_client.get("/statistics?start=now%2B1h&compare=previous").json
    assert ahead["previous"] is None
    assert "no length" in ahead["reasons"]["previous"]


@pytest.fixture
def long_app(clock: FakeClock) -> Any:
    settings = Settings(journal="memory://", rollup_retention_us=15 * DAY_US, max_query_series=5)
    app = create_app(settings, clock_us=clock, background=False)
    yield app
    app.extensions["statsapi"].close()


def test_the_same_span_last_week(long_app: Flask, clock: FakeClock) -> None:
    """Out of roll-ups, whose edges it tells; exact beside percentiles that say how near they are."""
    service, client = long_app.extensions["statsapi"], long_app.test_client()
    old = [3.0, 5.0, 10.0]
    for at, value in enumerate(old):
        service.record(EventBatch.single(f"s{at}", clock.now_us + at * MINUTE_US, value))
    clock.advance(7 * DAY_US)
    service.record(EventBatch.single("s0", clock.now_us - MINUTE_US, 9.0))
    service.keep_house()
    clock.advance(30 * MINUTE_US)
    body = client.get("/statistics?match=s*&window=1h&compare=1w&stats=count,mean&percentiles=50").json
    assert body["count"] == 1
    previous = body["previous"]
    assert previous["mean"] == statistics.mean(old)
    assert body["change"]["mean"] == 0.5
    assert previous["resolution"] == "1h"
    assert previous["from"].endswith(":00:00+00:00")
    assert (previous["method"], previous["relative_error"]) == ("ddsketch", 0.01)
    assert abs(previous["percentiles"]["50"] - 5.0) <= 0.05


def test_a_question_about_too_many_series(long_app: Flask, clock: FakeClock) -> None:
    """It is refused, and names the setting: every form of question, each way to choose."""
    client = long_app.test_client()
    for at in range(6):
        long_app.extensions["statsapi"].record(EventBatch.single(f"s{at};k=v", clock.now_us, 1.0))
    asked = (
        ("match=s*", "match"),
        ("where=k=v", "where"),
        ("by=series", "series"),
        ("&".join(f"series=s{at}" for at in range(6)), "series"),
    )
    for query, field in asked:
        for path in ("/statistics?", "/statistics/timeline?window=2m&step=1m&", "/statistics/histogram?"):
            problem = assert_problem(client.get(path + query), 422, "validation")
            assert problem["errors"][0]["field"] == field
            assert "6 series" in problem["detail"]
            assert "STATSAPI_MAX_QUERY_SERIES" in problem["detail"]
    assert client.get("/statistics?match=s?;k=v&where=k=w").json["matched"] == 0
    assert client.get("/statistics?match=s[0-4]*").json["matched"] == 0  # no brackets


@pytest.mark.slow
def test_what_would_be_too_much_is_refused(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """Steps times series, and percentiles times groups, are bounded before anything is looked at."""
    app.extensions["statsapi"].record(
        EventBatch(tuple(EventBatch.single(f"s{i:03}", clock.now_us, 1.0).parts[0] for i in range(250)))
    )
    problem = assert_problem(client.get("/statistics/timeline?match=s*&window=1h&step=720ms"), 422, "validation")
    assert problem["errors"][0]["field"] == "step"
    assert "choose fewer series, or take fewer spans" in problem["detail"]
    problem = assert_problem(
        client.get("/statistics/timeline?match=s*&window=1h&step=1s&by=series&limit=10000"), 422, "validation"
    )
    assert problem["detail"].startswith("limit: shows up to 900,000 spans in 250 groups")
    assert problem["detail"].endswith("lower it")
    of_groups = "/statistics/timeline?match=s*&window=200s&step=1s&by=series&limit=50&percentiles=" + ",".join(
        map(str, range(100))
    )
    problem = assert_problem(client.get(f"{of_groups}&order=p50"), 422, "validation")
    assert "puts up to 250 groups in order" in problem["detail"]
    ok = client.get("/statistics/timeline?match=s*&window=1h&step=1s&by=series&limit=2").json
    assert len(ok["groups"][1]["steps"]) == 3600


def test_histogram(shared_client: FlaskClient, rows: list[Row]) -> None:
    """Exact counts in bins of equal width, of equal ratio, or between given edges, with what lies outside."""
    choice = "series=batch&series=default&where=host=none"
    body = shared_client.get("/statistics/histogram?series=batch&series=default&bins=4").json
    assert list(body) == ["matched", "from", "to", "count", "min", "max", "edges", "counts", "below", "above"]
    assert (body["count"], body["min"], body["max"], body["matched"]) == (3, 0.1, 1000.0, 2)
    assert body["edges"] == [float(Fraction(0.1) + (1000 - Fraction(0.1)) * i / 4) for i in range(5)]
    assert body["counts"] == [2, 0, 0, 1]
    body = shared_client.get("/statistics/histogram?series=batch&series=default&edges=1,5,7,8").json
    assert (body["edges"], body["counts"]) == ([1.0, 5.0, 7.0, 8.0], [0, 0, 1])
    assert (body["below"], body["above"]) == (1, 1)
    body = shared_client.get("/statistics/histogram?series=batch&scale=log&bins=2").json
    assert body["edges"][1] == pytest.approx(0.7**0.5)
    assert body["counts"] == [1, 1]
    assert body["series"] == "batch"
    grouped = shared_client.get("/statistics/histogram?by=series&series=batch&series=default&edges=0,500,2000").json
    assert [(group["series"], group["counts"]) for group in grouped["groups"]] == [
        ("batch", [2, 0]),
        ("default", [0, 1]),
    ]
    lines = table(shared_client.get("/statistics/histogram?series=batch&edges=1,7&format=csv"))
    assert [(line["low"], line["high"], line["count"]) for line in lines] == [
        ("", "1.0", "1"),
        ("1.0", "7.0", "1"),
        ("7.0", "", "0"),
    ]
    assert shared_client.get(f"/statistics/histogram?{choice}").json["count"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("bins=0", "bins"),
        ("bins=1001", "bins"),
        ("edges=1", "edges"),
        ("edges=2,1", "edges"),
        ("edges=1,1", "edges"),
        ("edges=1,x", "edges"),
        ("edges=1,inf", "edges"),
        ("edges=1,2&bins=3", "bins"),
        ("edges=1,2&scale=log", "scale"),
        ("scale=cubic", "scale"),
        ("scale=log&match=*", "scale"),
        ("stats=count", "stats"),
    ],
)
def test_histograms_refused(shared_client: FlaskClient, rows: list[Row], query: str, field: str) -> None:
    """Each names its parameter; a logarithm of what has none is refused too."""
    problem = assert_problem(shared_client.get("/statistics/histogram?" + query), 422, "validation")
    assert field in [error["field"] for error in problem["errors"]]


def test_a_histogram_of_rollups_says_so(long_app: Flask, clock: FakeClock) -> None:
    """Its edges are the sketch's buckets, merged until they are few enough; its counts add up."""
    service, client = long_app.extensions["statsapi"], long_app.test_client()
    for value in range(1, 101):
        service.record(EventBatch.single("s", clock.now_us, float(value)))
    clock.advance(3 * HOUR_US)
    body = client.get("/statistics/histogram?series=s&window=4h&bins=10").json
    assert body["method"] == "ddsketch"
    assert "rolled up" in body["reasons"]["edges"]
    assert sum(body["counts"]) == body["count"] == 100
    assert len(body["counts"]) <= 10
    assert (body["edges"][0], body["edges"][-1]) == (1.0, 100.0)
    given = client.get("/statistics/histogram?series=s&window=4h&edges=0,50,200").json
    assert given["edges"] == [0.0, pytest.approx(50, rel=0.01), 200.0]
    assert sum(given["counts"]) == 100
    assert "rolled up" in given["reasons"]["edges"]


def test_head_and_options_as_for_any_question(shared_client: FlaskClient, rows: list[Row]) -> None:
    """HEAD has the head of GET, and nothing is stored by caches."""
    for path in ("/statistics?match=*&by=series", "/statistics?match=*&format=csv", "/statistics/histogram?match=*"):
        got, head = shared_client.get(path), shared_client.head(path)
        assert head.status_code == 200
        assert head.headers["Content-Length"] == str(len(got.data))
        assert head.data == b""
        assert got.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("choice", "is_chosen"), CHOICES, ids=ids)
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_events_of_chosen_series(
    shared_client: FlaskClient, rows: list[Row], choice: list[tuple[str, str]], is_chosen: Any, limit: int
) -> None:
    """By series, then time, in pages of any size and as a stream: each chosen event once."""
    expected = [[format_timestamp(ts_us), value, name] for name, ts_us, value in sorted(rows) if is_chosen(name)]
    query = urlencode([*choice, ("limit", limit)])
    found: list[list[Any]] = []
    cursor = ""
    while cursor is not None:
        page = shared_client.get(f"/events?{query}&cursor={cursor}").json
        found += [[event["timestamp"], event["value"], event["series"]] for event in page["events"]]
        cursor = page["next"]
    assert found == expected
    lines = shared_client.get(f"/events?{urlencode(choice)}&format=csv").text.splitlines()[1:]
    assert [float(line.split(",")[1]) for line in lines] == [value for _, value, _ in expected]


def test_a_cursor_of_another_choice_is_refused(shared_client: FlaskClient, rows: list[Row]) -> None:
    """It would go on where nothing chosen is."""
    cursor = shared_client.get("/events?match=b*&limit=1").json["next"]
    assert shared_client.get(f"/events?match=*&limit=1&cursor={cursor}").status_code == 200
    problem = assert_problem(shared_client.get(f"/events?match=web*&cursor={cursor}"), 422, "validation")
    assert problem["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ("0,", "has an empty item before, after or between commas: write the missing item, or remove a comma"),
        (",", "has an empty item before, after or between commas: write the missing item, or remove a comma"),
        ("a,b", "'a' is no number such as 42.5"),
        ("1;2", "'1;2' is no number such as 42.5"),
        ("", "'' is no number such as 42.5"),
        ("true,2", "'true' is no number such as 42.5"),
        ("1e400,2", "'1e400' must be finite: NaN, infinities and numbers beyond float64 are not taken"),
    ],
)
def test_edges_that_are_no_numbers_are_refused(client: FlaskClient, edges: str, said: str) -> None:
    """In words about edges, not about an event's value."""
    answer = client.get("/statistics/histogram", query_string={"edges": edges})
    assert (answer.status_code, answer.json["errors"]) == (422, [{"field": "edges", "reason": said}])
