"""Retries, deduplication and limits, over HTTP."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.journal.memory import MemoryJournal
from statsapi.model import DAY_US, HOUR_US, MINUTE_US
from statsapi.times import format_timestamp
from tests.calls import assert_problem, post
from tests.fakes import NOW, FakeClock, SharedJournal

EVENT = {"timestamp": NOW, "value": 42.5}


def keyed(client: FlaskClient, key: str, body: Any = EVENT, path: str = "/event") -> Any:
    return client.post(path, json=body, headers={"Idempotency-Key": key})


def two_workers(clock: FakeClock) -> list[Flask]:
    """Two apps, each with a view of its own, on one journal."""
    journal = SharedJournal(clock_us=clock)
    settings = Settings(journal="memory://")
    return [create_app(settings, journal=lambda: journal, clock_us=clock, background=False) for _ in range(2)]


def run_at_once(send: Callable[[Flask], None], apps: list[Flask], count: int) -> None:
    """Call `send` in this many threads; the apps take turns."""
    threads = [threading.Thread(target=send, args=(apps[i % len(apps)],)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_retry_counts_once_and_gets_the_first_answer(client: FlaskClient, clock: FakeClock) -> None:
    """Same key and same body: the first answer again, byte for byte, marked as replayed."""
    first = keyed(client, "k1")
    clock.advance(1_000_000)
    again = keyed(client, '"k1"')
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.data == first.data
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert client.get("/statistics").json["count"] == 1


def test_the_same_key_with_another_request_is_refused(client: FlaskClient) -> None:
    """Another body, or another query, under the same key is a 422; another path is another key."""
    keyed(client, "k1")
    assert_problem(keyed(client, "k1", {**EVENT, "value": 1}), 422, "idempotency-conflict")
    assert_problem(keyed(client, "k1", path="/event?dedup=true"), 422, "idempotency-conflict")
    assert client.get("/statistics").json["count"] == 1


def test_a_refused_request_does_not_use_up_its_key(client: FlaskClient) -> None:
    """After a 4xx the mended request may come with the same key."""
    assert keyed(client, "k1", {"timestamp": NOW}).status_code == 422
    assert keyed(client, "k1").status_code == 200


def test_keys_expire(client: FlaskClient, clock: FakeClock) -> None:
    """After STATSAPI_IDEMPOTENCY_TTL a key is new again."""
    keyed(client, "k1")
    clock.advance(DAY_US + 1)
    assert "Idempotent-Replayed" not in keyed(client, "k1").headers


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a b"])
def test_keys_refused(client: FlaskClient, key: str) -> None:
    """A key is 1 to 255 printable ASCII characters."""
    problem = assert_problem(keyed(client, key), 422, "validation")
    assert problem["errors"][0]["field"] == "Idempotency-Key"


def test_a_race_of_one_key_counts_once(clock: FakeClock) -> None:
    """Sixteen threads on two workers send the same request at once: one event, and one answer for all."""
    apps = two_workers(clock)
    barrier = threading.Barrier(16)
    answers: list[tuple[bytes, bool]] = []

    def send(app: Any) -> None:
        barrier.wait()
        response = keyed(app.test_client(), "k")
        answers.append((response.data, "Idempotent-Replayed" in response.headers))

    run_at_once(send, apps, 16)
    assert len({body for body, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 15
    for app in apps:
        assert app.test_client().get("/statistics").json["count"] == 1


def test_dedup(client: FlaskClient) -> None:
    """?dedup=true leaves out an event that equals one held; without it, equal events are two events."""
    post(client, NOW, 1.0)
    post(client, NOW, 1.0)
    assert client.get("/statistics").json["count"] == 2
    response = client.post("/event?dedup=true", json={"timestamp": NOW, "value": 1.0})
    assert "duplicate" in response.json["message"]
    assert client.get("/statistics").json["count"] == 2
    client.post("/event?dedup=true", json={"timestamp": NOW, "value": 2.0})
    client.post("/event?dedup=true", json={"timestamp": NOW, "value": 1.0, "series": "other"})
    assert client.get("/statistics").json["count"] == 3
    assert client.get("/statistics?series=other").json["count"] == 1


def test_dedup_sees_raw_events_only(client: FlaskClient) -> None:
    """An event older than what is kept cannot be checked: it is reported as expired, and not recorded."""
    response = client.post("/event?dedup=true", json={"timestamp": "2020-01-01", "value": 1.0})
    assert "expired" in response.json["message"]
    assert client.get("/debug/events").json["total_events"] == 0


def test_dedup_as_a_setting(clock: FakeClock) -> None:
    """STATSAPI_DEDUP makes it the default, and ?dedup=false overrides that."""
    app = create_app(Settings(journal="memory://", dedup=True), clock_us=clock, background=False)
    client = app.test_client()
    for _ in range(3):
        post(client, NOW, 1.0)
    assert client.get("/statistics").json["count"] == 1
    client.post("/event?dedup=false", json={"timestamp": NOW, "value": 1.0})
    assert client.get("/statistics").json["count"] == 2


def test_dedup_holds_across_workers_and_races(clock: FakeClock) -> None:
    """Threads on two workers record the same events with dedup at once: each is there once."""
    apps = two_workers(clock)
    barrier = threading.Barrier(8)

    def send(app: Any) -> None:
        client = app.test_client()
        barrier.wait()
        for value in range(20):
            assert client.post("/event?dedup=true", json={"timestamp": NOW, "value": value}).status_code == 200

    run_at_once(send, apps, 8)
    for app in apps:
        assert app.test_client().get("/statistics?stats=count,sum").json == {"count": 20, "sum": 190.0}


def test_future_skew_names_the_events_of_a_batch(clock: FakeClock) -> None:
    """STATSAPI_MAX_FUTURE_SKEW refuses single events of a batch, in every way they are read; the rest can be stored."""
    app = create_app(Settings(journal="memory://", max_future_skew_us=HOUR_US), clock_us=clock, background=False)
    client = app.test_client()
    late, odd = format_timestamp(clock.now_us + 2 * HOUR_US), "2025-11-21T24:00:00Z"
    rows = [EVENT, {"timestamp": late, "value": 1}, {"timestamp": odd, "value": 1}, EVENT]
    problem = assert_problem(client.post("/events", json=rows), 422, "validation")
    assert [(error["index"], error["field"]) for error in problem["errors"]] == [(1, "timestamp"), (2, "timestamp")]
    assert "STATSAPI_MAX_FUTURE_SKEW" in problem["errors"][0]["reason"]
    answer = client.post("/events?partial=true", json=rows).json
    assert (answer["stored"], answer["rejected"]) == (2, 2)
    assert client.get("/statistics").json["count"] == 2


def test_too_many_events_is_told_apart_from_too_large(clock: FakeClock) -> None:
    """A batch over STATSAPI_MAX_BATCH_EVENTS says so, not that its bytes are too many."""
    app = create_app(Settings(journal="memory://", max_batch_events=2), clock_us=clock, background=False)
    problem = assert_problem(app.test_client().post("/events", json=[EVENT] * 3), 413, "request-entity-too-large")
    assert "3 events" in problem["detail"]
    assert "STATSAPI_MAX_BATCH_EVENTS" in problem["detail"]


def test_a_gzipped_event(client: FlaskClient) -> None:
    """POST /event unpacks gzip as POST /events does, and refuses what it cannot unpack."""
    body = gzip.compress(json.dumps(EVENT).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert client.post("/event", data=body, headers=headers).status_code == 200
    assert_problem(client.post("/event", data=body[:-9], headers=headers), 400, "bad-request")
    brotli = client.post("/event", data=body, headers={**headers, "Content-Encoding": "br"})
    assert_problem(brotli, 415, "unsupported-media-type")


def test_the_list_of_faults_is_bounded(client: FlaskClient) -> None:
    """A body of a thousand unknown fields, or columns, is told of the first hundred and how many there are."""
    fields = {f"f{i}": 1 for i in range(1000)}
    for response in (
        client.post("/event", json=EVENT | fields),
        client.post("/events", json={"events": []} | fields),
        client.post("/events", data="timestamp,value," + ",".join(fields), content_type="text/csv"),
    ):
        problem = assert_problem(response, 422, "validation")
        assert (len(problem["errors"]), problem["errors_total"]) == (100, 1000)


def test_half_a_surrogate_pair_can_be_named(client: FlaskClient) -> None:
    """A field whose name is no text at all is a 422 like any other unknown field."""
    body = b'{"timestamp": 0, "value": 1, "\\ud800": 1}'
    for path in ("/event", "/events"):
        problem = assert_problem(client.post(path, data=body, content_type="application/json"), 422, "validation")
        assert "\\ud800" in [error["field"] for error in problem["errors"]]


def test_a_number_too_long_for_python_is_named_for_people(client: FlaskClient) -> None:
    """An integer of 5,000 digits is refused without advice about the interpreter."""
    body = b'{"timestamp": 0, "value": ' + b"9" * 5000 + b"}"
    problem = assert_problem(client.post("/event", data=body, content_type="application/json"), 400, "bad-request")
    assert "4300 digits" in problem["detail"]
    assert "sys." not in problem["detail"]


def test_expired_events_take_no_room(clock: FakeClock) -> None:
    """Series of which only expired events came, or are left, do not count towards STATSAPI_MAX_SERIES."""
    app = create_app(
        Settings(journal="memory://", max_series=2, rollup_retention_us=0), clock_us=clock, background=False
    )
    client = app.test_client()
    long_ago = format_timestamp(clock.now_us - 2 * HOUR_US)
    old = [{"timestamp": long_ago, "value": 1, "series": f"old-{i}"} for i in range(3)]
    assert client.post("/events", json=old).json["expired"] == 3
    for series in ("a", "b"):
        assert post(client, NOW, 1, series=series).status_code == 200
    assert client.post("/events", json=old).json["expired"] == 3
    clock.advance(2 * HOUR_US)  # a and b have expired, and nobody has kept house since
    now = format_timestamp(clock.now_us)
    assert post(client, now, 1, series="c").status_code == 200
    more = [{"timestamp": now, "value": 1, "series": series} for series in "def"]
    problem = assert_problem(client.post("/events", json=more), 507, "store-full")
    assert (
        "holds 1 series, this request adds 3 (d, e, f), and the limit is 2 (STATSAPI_MAX_SERIES)" in problem["detail"]
    )


def test_max_series(clock: FakeClock) -> None:
    """When STATSAPI_MAX_SERIES are held, another one is a 507; those held go on; room comes back with expiry."""
    journal = MemoryJournal(clock_us=clock)
    app = create_app(
        Settings(journal="memory://", max_series=2), journal=lambda: journal, clock_us=clock, background=False
    )
    client = app.test_client()
    for series in ("a", "b"):
        assert post(client, NOW, 1, series=series).status_code == 200
    problem = assert_problem(post(client, NOW, 1, series="c"), 507, "store-full")
    assert "2" in problem["detail"]
    assert post(client, NOW, 1, series="a").status_code == 200
    clock.advance(2 * HOUR_US)
    post(client, format_timestamp(clock.now_us), 1, series="a")
    app.extensions["statsapi"].keep_house()
    assert_problem(post(client, format_timestamp(clock.now_us), 1, series="c"), 507, "store-full")  # b is rolled up
    clock.advance(23 * HOUR_US)
    post(client, format_timestamp(clock.now_us), 1, series="a")
    app.extensions["statsapi"].keep_house()
    assert post(client, format_timestamp(clock.now_us), 1, series="c").status_code == 200


def test_max_events(clock: FakeClock) -> None:
    """STATSAPI_MAX_EVENTS: one more is a 507 that says how many there are; reads go on, room comes back with expiry."""
    journal = MemoryJournal(clock_us=clock)
    app = create_app(
        Settings(journal="memory://", max_events=10, rollup_retention_us=0),
        journal=lambda: journal,
        clock_us=clock,
        background=False,
    )
    client = app.test_client()
    ten_minutes_ago = format_timestamp(clock.now_us - 10 * MINUTE_US)
    nine = [{"timestamp": ten_minutes_ago, "value": i} for i in range(9)]
    assert client.post("/events", json=nine).status_code == 200
    two = [{"timestamp": NOW, "value": 1}, {"timestamp": NOW, "value": 2}]
    for path, dedup in (("/events", ""), ("/events", "?dedup=true")):
        problem = assert_problem(client.post(path + dedup, json=two), 507, "store-full")
        assert "holds 9 events, this request adds 2, and the limit is 10 (STATSAPI_MAX_EVENTS)" in problem["detail"]
    assert post(client, NOW, 1).status_code == 200
    response = client.post("/event", json={"timestamp": NOW, "value": 1})
    assert_problem(response, 507, "store-full")
    assert response.headers["Retry-After"] == "60"
    assert client.get("/statistics").json["count"] == 10

    # What needs no room is taken: what was recorded before, and what has expired.
    assert client.post("/events?dedup=true", json=two[:1]).json["duplicates"] == 1
    long_ago = format_timestamp(clock.now_us - 2 * HOUR_US)
    assert client.post("/events", json=[{"timestamp": long_ago, "value": 1}] * 20).json["expired"] == 20

    clock.advance(56 * MINUTE_US)
    app.extensions["statsapi"].keep_house()
    now = format_timestamp(clock.now_us)
    assert client.post("/events", json=[{"timestamp": now, "value": 1}] * 9).json["stored"] == 9
    assert_problem(post(client, now, 1), 507, "store-full")
    assert client.get("/statistics?window=1h").json["count"] == 10


def test_a_deletion_makes_room(clock: FakeClock) -> None:
    """A full store takes deletions, and events again after them."""
    app = create_app(Settings(journal="memory://", max_events=1), clock_us=clock, background=False)
    client = app.test_client()
    assert post(client, NOW, 1, series="a").status_code == 200
    assert_problem(post(client, NOW, 1, series="b"), 507, "store-full")
    assert client.delete("/series/a").status_code == 200
    assert post(client, NOW, 1, series="b").status_code == 200
