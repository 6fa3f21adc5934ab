"""The four seed endpoints keep their exact shapes, and every refusal has one form."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.model import HOUR_US, MINUTE_US, SECOND_US
from statsapi.times import format_timestamp
from tests.calls import assert_problem, post
from tests.fakes import NOW, FakeClock


def test_post_event(client: FlaskClient) -> None:
    """A stored event is a 200 with the seed's four members, in its order."""
    response = post(client, "2025-11-21T07:44:00Z", 42.5)
    assert response.status_code == 200
    assert list(response.json.items()) == [
        ("status", "success"),
        ("message", "Event stored successfully"),
        ("received_timestamp", "2025-11-21T07:44:00+00:00"),
        ("server_time", NOW),
    ]


def test_statistics_of_nothing(client: FlaskClient) -> None:
    """With no recent events the count is 0 and the rest null, with exactly these keys."""
    response = client.get("/statistics")
    assert response.status_code == 200
    assert response.data == b'{"count":0,"min":null,"max":null,"mean":null}\n'


def test_statistics(client: FlaskClient) -> None:
    """Count, min, max and mean of the past hour: old events do not count, those stamped ahead do at once."""
    for timestamp, value in (
        ("2025-11-21T06:44:59.999999Z", 1e9),
        ("2025-11-21T06:45:00Z", 1.0),
        ("2025-11-21T07:00:00Z", 2.5),
        ("2031-01-01T00:00:00Z", 42.5),
        ("2025-11-21T07:45:00Z", 3.2),
    ):
        assert post(client, timestamp, value).status_code == 200
    assert list(client.get("/statistics").json.items()) == [
        ("count", 4),
        ("min", 1.0),
        ("max", 42.5),
        ("mean", 12.3),
    ]


def test_window_slides_to_the_microsecond(client: FlaskClient, clock: FakeClock) -> None:
    """An event counts while timestamp >= now - window, and not a microsecond longer."""
    post(client, NOW, 7)
    clock.advance(HOUR_US)
    assert client.get("/statistics").json["count"] == 1
    clock.advance(1)
    assert client.get("/statistics").json["count"] == 0


@pytest.mark.parametrize(
    "values", [[1e308] * 3, [1e16, 1.0, -1e16], [5e-324, 5e-324, 1.0], [0.1] * 10, [1e12, 0.1, 0.2, -1e12]]
)
def test_mean_is_correctly_rounded(client: FlaskClient, values: list[float]) -> None:
    """The mean is statistics.mean's, to the last bit, where a float sum overflows, cancels or underflows."""
    import statistics

    for value in values:
        post(client, NOW, value)
    assert client.get("/statistics").json["mean"] == statistics.mean(values)


def test_debug_events(client: FlaskClient) -> None:
    """The debug page lists what is held, newest first, and says which of it is recent."""
    post(client, "2025-11-21T07:30:00Z", 1.0)
    post(client, "2025-11-21T06:42:00Z", 2.0)
    post(client, "2025-11-21T07:46:30Z", 3.0)
    body = client.get("/debug/events").json
    assert list(body) == ["current_time", "cutoff_time", "total_events", "events"]
    assert body["current_time"] == NOW
    assert body["cutoff_time"] == "2025-11-21T06:45:00+00:00"
    assert body["total_events"] == 3
    assert [list(event.items()) for event in body["events"]] == [
        [
            ("timestamp", "2025-11-21T07:46:30+00:00"),
            ("value", 3.0),
            ("is_recent", True),
            ("age_minutes", -1.5),
        ],
        [
            ("timestamp", "2025-11-21T07:30:00+00:00"),
            ("value", 1.0),
            ("is_recent", True),
            ("age_minutes", 15.0),
        ],
        [
            ("timestamp", "2025-11-21T06:42:00+00:00"),
            ("value", 2.0),
            ("is_recent", False),
            ("age_minutes", 63.0),
        ],
    ]


def test_debug_finds_a_wrongly_stamped_event(client: FlaskClient) -> None:
    """An event older than everything kept is a 200 that says so, counts nowhere, and is found on the debug page."""
    response = post(client, "2024-11-21T07:45:00Z", 5.0)
    assert response.status_code == 200
    assert "expired" in response.json["message"]
    assert client.get("/statistics").json["count"] == 0
    for query in ("", "?late=true"):
        body = client.get("/debug/events" + query).json
        assert body["total_events"] == 1
        assert body["events"][0]["timestamp"] == "2024-11-21T07:45:00+00:00"
        assert body["events"][0]["is_recent"] is False


@pytest.mark.slow
def test_debug_page_is_bounded(client: FlaskClient, clock: FakeClock) -> None:
    """At most `limit` events are listed, 1000 unless asked otherwise; total_events is the true total."""
    for _ in range(1005):
        clock.advance(1)
        post(client, format_timestamp(clock.now_us), 1.0)
    body = client.get("/debug/events").json
    assert (body["total_events"], len(body["events"])) == (1005, 1000)
    body = client.get("/debug/events?limit=2").json
    assert body["total_events"] == 1005
    assert [event["timestamp"] for event in body["events"]] == [
        format_timestamp(clock.now_us),
        format_timestamp(clock.now_us - 1),
    ]
    assert_problem(client.get("/debug/events?limit=0"), 422, "validation")
    assert_problem(client.get("/debug/events?limit=10001"), 422, "validation")


def test_index(client: FlaskClient) -> None:
    """GET / says that the service runs and lists every endpoint it has."""
    body = client.get("/").json
    assert list(body) == ["message", "server_time", "endpoints"]
    assert body["message"] == "Event Statistics API is running"
    assert body["server_time"] == NOW
    assert list(body["endpoints"])[:4] == ["POST /event", "GET /statistics", "GET /debug/events", "GET /"]


def test_index_lists_the_routes_there_are(app: Flask, client: FlaskClient) -> None:
    """The list of endpoints is that of the router, no more and no less."""
    routes = {
        method + " " + re.sub("<(?:[a-z]+:)?([a-z]+)>", r"{\1}", rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in ("/docs/<path:path>", "/dashboard/<name>")  # what the pages there load
    }
    assert set(client.get("/").json["endpoints"]) == routes


def test_series_are_apart(client: FlaskClient) -> None:
    """An event without a series goes to `default`; statistics without one are those of `default`."""
    post(client, NOW, 1.0)
    post(client, NOW, 2.0, series="cpu.load/host-1")
    assert client.get("/statistics").json["max"] == 1.0
    assert client.get("/statistics?series=default").json["max"] == 1.0
    assert client.get("/statistics?series=cpu.load/host-1").json["max"] == 2.0
    assert client.get("/statistics?series=never-seen").json["count"] == 0


@pytest.mark.parametrize("value", [42, "42.5", " 7 ", "-1e3", 0, -0.0, 1.7976931348623157e308, 5e-324])
def test_values_taken(client: FlaskClient, value: Any) -> None:
    """Numbers and numeric strings are values."""
    assert post(client, NOW, value).status_code == 200
    assert client.get("/statistics").json["max"] == float(value)


@pytest.mark.parametrize(
    "value",
    [
        "true",
        "false",
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
        '"nan"',
        '"inf"',
        '"x"',
        '""',
        "[]",
        "{}",
        "1e400",
        "1" * 400,
        '"1e999"',
        "-" + "9" * 5000,
    ],
)
def test_values_refused(client: FlaskClient, value: str) -> None:
    """Booleans, NaN, infinities, and numbers beyond float64 are refused, naming the field; nothing is stored."""
    response = client.post(
        "/event", data=f'{{"timestamp": "{NOW}", "value": {value}}}', content_type="application/json"
    )
    body = assert_problem(response, 422, "validation") if len(value) < 1000 else json.loads(response.data)
    if len(value) < 1000:
        assert [error["field"] for error in body["errors"]] == ["value"]
        assert body["detail"].startswith("value: ")
    assert response.status_code in (400, 422)
    assert client.get("/statistics").json["count"] == 0


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["timestamp", "value"]),
        ({"timestamp": None, "value": None}, ["timestamp", "value"]),
        ({"timestamp": "yesterday", "value": 1}, ["timestamp"]),
        ({"timestamp": True, "value": 1}, ["timestamp"]),
        ({"timestamp": NOW, "value": 1, "serie": "x"}, ["serie"]),
        ({"timestamp": NOW, "value": 1, "series": ""}, ["series"]),
        ({"timestamp": NOW, "value": 1, "series": "a "}, ["series"]),
        ({"timestamp": NOW, "value": 1, "series": "x" * 201}, ["series"]),
        ({"timestamp": NOW, "value": 1, "series": "é;"}, ["series"]),
        ({"timestamp": NOW, "value": 1, "series": "a\n"}, ["series"]),
        ({"timestamp": NOW, "value": 1, "series": 7}, ["series"]),
        ([], [""]),
        ("x", [""]),
        (None, [""]),
        (7, [""]),
    ],
)
def test_what_does_not_fit_is_named(client: FlaskClient, body: Any, fields: list[str]) -> None:
    """A 422 names every field at fault, and stores nothing."""
    response = client.post("/event", data=json.dumps(body), content_type="application/json")
    problem = assert_problem(response, 422, "validation")
    assert sorted(error["field"] for error in problem["errors"]) == sorted(fields)
    assert all(error["reason"] for error in problem["errors"])
    assert client.get("/debug/events").json["total_events"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b'{"value": 1,}',
        b"\xff\xfe\x00",
        b'{"value": "\xff"}',
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'{"timestamp": 1, "value": ' + b"1" * 5000 + b"}",
    ],
)
def test_malformed_json(client: FlaskClient, body: bytes) -> None:
    """A body that is no JSON, is nested too deeply or has an absurd number is a 400 that says where."""
    assert_problem(client.post("/event", data=body, content_type="application/json"), 400, "bad-request")


def test_media_type(client: FlaskClient) -> None:
    """Another media type is a 415 that names the right one; none at all, and any +json, count as JSON."""
    event = json.dumps({"timestamp": NOW, "value": 1})
    problem = assert_problem(
        client.post("/event", data=event, content_type="application/x-www-form-urlencoded"),
        415,
        "unsupported-media-type",
    )
    assert "application/json" in problem["detail"]
    assert client.post("/event", data=event).status_code == 200
    assert client.post("/event", data=event, content_type="application/vnd.x+json").status_code == 200
    assert client.post("/event", data=event, content_type="application/json; charset=utf-8").status_code == 200


def test_routing_errors(client: FlaskClient) -> None:
    """Unknown paths and wrong methods are problems too, with Allow where it belongs; in one order at each start."""
    assert_problem(client.get("/nowhere"), 404, "not-found")
    response = client.get("/event")
    problem = assert_problem(response, 405, "method-not-allowed")
    assert "POST" in response.headers["Allow"]
    assert "POST" in problem["detail"]
    response = client.put("/statistics")
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
    problem = assert_problem(client.get("/statistics?d=1&window=x&a=1&c=1&b=1"), 422, "validation")
    assert [error["field"] for error in problem["errors"]] == ["window", "a", "b", "c", "d"]


def test_unknown_query_parameters_are_refused(client: FlaskClient) -> None:
    """A misspelt parameter must not give another question's answer."""
    for path in ("/statistics?serie=x", "/debug/events?limt=3"):
        problem = assert_problem(client.get(path), 422, "validation")
        assert problem["errors"][0]["field"] in ("serie", "limt")


def test_body_limit(clock: FakeClock) -> None:
    """A body over STATSAPI_MAX_BODY_BYTES is 413 by its announced length, before a byte of it is read."""
    app = create_app(Settings(journal="memory://", max_body_bytes=1024), clock_us=clock, background=False)
    client = app.test_client()

    class Unreadable:
        def read(self, *_: Any) -> bytes:
            raise AssertionError("the body was read")

        readline = readlines = __iter__ = read

    response = client.post(
        "/event",
        environ_overrides={
            "wsgi.input": Unreadable(),
            "CONTENT_LENGTH": "1025",
            "CONTENT_TYPE": "application/json",
        },
    )
    problem = assert_problem(response, 413, "request-entity-too-large")
    assert "1024" in problem["detail"]


def test_unforeseen_faults_are_problems_too(app: Flask, client: FlaskClient) -> None:
    """A fault in the code is logged and answered as a 500 problem that tells no secrets."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret")

    app.extensions["statsapi"].ask = broken
    response = client.get("/statistics")
    problem = assert_problem(response, 500, "internal-server-error")
    assert "secret" not in response.text
    assert "logged" in problem["detail"]
    assert "outcome" not in problem


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(ZeroDivisionError("secret"), 500, "internal-server-error"), (MemoryError(), 503, "out-of-memory")],
)
def test_a_fault_while_recording_leaves_the_outcome_unknown(
    app: Flask, client: FlaskClient, fault: Exception, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record may be in the journal already, which the answer says; the retry under the same key counts once."""
    service = app.extensions["statsapi"]
    journal = service.view().journal
    append = journal.append

    def broken(*given: Any, **named: Any) -> None:
        append(*given, **named)
        raise fault

    body = {"timestamp": NOW, "value": 1}
    calls = [
        lambda: client.post("/event", json=body, headers={"Idempotency-Key": "a"}),
        lambda: client.post("/events", json=[body], headers={"Idempotency-Key": "b"}),
    ]
    for call in calls:
        with monkeypatch.context() as patch:
            patch.setattr(journal, "append", broken)
            problem = assert_problem(call(), status, code)
            assert problem["outcome"] == "unknown"
            assert ("Idempotency-Key" in problem["detail"]) == (status == 500)
        assert call().status_code == 200
    assert client.get("/statistics").json["count"] == len(calls)


def test_a_question_for_which_memory_is_too_little(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Is no fault of the service: 503 and one line, without a traceback and without an outcome."""

    def broken() -> None:
        raise MemoryError

    monkeypatch.setattr(app.extensions["statsapi"], "ask", broken)
    response = client.get("/statistics")
    problem = assert_problem(response, 503, "out-of-memory")
    assert "outcome" not in problem
    assert response.headers["Retry-After"] == "1"
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == ("Out of memory in GET /statistics", None)


def test_max_future_skew(clock: FakeClock) -> None:
    """With STATSAPI_MAX_FUTURE_SKEW an event stamped further ahead is refused; without, any future counts."""
    app = create_app(Settings(journal="memory://", max_future_skew_us=MINUTE_US), clock_us=clock, background=False)
    client = app.test_client()
    assert post(client, format_timestamp(clock.now_us + MINUTE_US), 1).status_code == 200
    problem = assert_problem(post(client, format_timestamp(clock.now_us + MINUTE_US + 1), 1), 422, "validation")
    assert problem["errors"][0]["field"] == "timestamp"
    assert client.get("/statistics").json["count"] == 1


def test_a_clock_that_goes_back_a_little_changes_nothing(client: FlaskClient, clock: FakeClock) -> None:
    """Now is not before a last record that is ahead by a minute at most, as workers' clocks differ: an event does not
    come back into the window. One that is further ahead was stamped by a wrong clock, or the clock is wrong now: that
    of now is followed at once.
    """
    post(client, NOW, 1.0)
    clock.advance(HOUR_US + SECOND_US)
    post(client, format_timestamp(clock.now_us), 2.0)
    assert client.get("/statistics").json["count"] == 1
    clock.step(-MINUTE_US)
    assert client.get("/statistics").json["count"] == 1
    clock.step(-1)
    assert client.get("/statistics").json["count"] == 2
