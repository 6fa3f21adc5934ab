"""The doors for clients of InfluxDB: what is stored, what is told, in whose words, and who may write."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsapi import keys
from statsapi.api.logs import PlainFormatter
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import JournalUnavailable
from statsapi.model import SECOND_US
from statsapi.service.service import Service
from statsapi.times import parse_timestamp_us
from tests.calls import scrape, value
from tests.fakes import NOW, FakeClock

NOW_US = parse_timestamp_us(NOW)
DOORS = ["/write", "/api/v2/write", "/api/v3/write_lp"]


def held(client: FlaskClient) -> dict[str, int]:
    """How many events each series holds."""
    return {series["name"]: series["count"] for series in client.get("/series").json["series"]}


def error_of(door: str, answer: Any) -> str:
    """The text of an error, which must have the form of that door's version."""
    assert answer.content_type == "application/json"
    body = json.loads(answer.data)
    if door == "/api/v2/write":
        assert body.keys() - {"line", "outcome"} == {"code", "message"}
        return body["message"]
    assert body.keys() - {"data", "outcome"} == {"error"}
    if "data" in body:
        assert all(entry.keys() == {"original_line", "line_number", "error_message"} for entry in body["data"])
        return body["error"] + "".join(f"; line {at['line_number']}: {at['error_message']}" for at in body["data"])
    return body["error"]


@pytest.mark.parametrize("door", DOORS)
def test_points_become_events(client: FlaskClient, door: str) -> None:
    """204 without a body, packed or not, whatever the media type is; two points at one instant both count."""
    body = b'cpu,host=a usage=1.5,value=2i,os="linux"\ncpu,host=a usage=1.5\n'
    for more in (
        {"data": body},
        {"data": gzip.compress(body), "headers": {"Content-Encoding": "gzip"}},
        {"data": body, "content_type": "application/x-www-form-urlencoded"},
        {"data": body, "content_type": "text/plain; charset=utf-8"},
    ):
        answer = client.post(door, **more)
        assert (answer.status_code, answer.data) == (204, b"")
        assert answer.headers["X-Statsapi-Stored"] == "3"
        assert answer.headers["X-Statsapi-Ignored-Strings"] == "1"
        assert "X-Statsapi-Message" not in answer.headers
    assert held(client) == {"cpu.usage;host=a": 8, "cpu;host=a": 4}
    assert value(scrape(client), "statsapi_influx_ignored_strings_total") == 4


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("body", [b"", b"\n\n", b"# nothing\n"])
def test_a_body_without_points_is_no_error(client: FlaskClient, door: str, body: bytes) -> None:
    """As in InfluxDB."""
    answer = client.post(door, data=body)
    assert answer.status_code == 204
    assert answer.headers["X-Statsapi-Stored"] == "0"


@pytest.mark.parametrize("door", DOORS)
def test_good_lines_are_stored_where_others_are_refused(client: FlaskClient, door: str) -> None:
    """A 400 that names each line and its reason; without partial acceptance nothing is stored."""
    body = "m f=1\nm f=true\nm f=2\nbad"
    refused = client.post(f"{door}?accept_partial=false", data=body)
    assert refused.status_code == 400
    assert refused.headers["X-Statsapi-Stored"] == "0"
    assert held(client) == {}
    partial = client.post(door, data=body)
    assert partial.status_code == 400
    assert partial.headers["X-Statsapi-Stored"] == "2"
    assert held(client) == {"m.f": 2}
    for answer in (refused, partial):
        text = error_of(door, answer)
        assert "line 2: field f is true, a boolean" in text
        assert "line 4: has no fields behind 'bad'" in text
    assert "partial write" in error_of(door, partial)
    assert "partial write" not in error_of(door, refused)
    assert value(scrape(client), "statsapi_events_rejected_total") == 4


@pytest.mark.parametrize("door", DOORS)
def test_at_most_a_hundred_lines_are_named(client: FlaskClient, door: str) -> None:
    """All are counted."""
    answer = client.post(door, data="m f=1\n" + "m f=x\n" * 150)
    assert answer.status_code == 400
    text = error_of(door, answer)
    assert "line 101: " in text
    assert "line 102: " not in text
    assert value(scrape(client), "statsapi_events_rejected_total") == 150


@pytest.mark.parametrize(("door", "default"), [*zip(DOORS, ["ns", "ns", "auto"], strict=True)])
def test_precision_says_what_a_timestamp_counts(client: FlaskClient, door: str, default: str) -> None:
    """In the words of every version; `auto` goes by the size; what is no unit is refused."""
    now_s = NOW_US // SECOND_US
    units = {"ns": 10**9, "us": 10**6, "u": 10**6, "ms": 1000, "millisecond": 1000, "s": 1, "second": 1, "auto": 1}
    for unit, per_second in units.items():
        assert client.post(f"{door}?precision={unit}", data=f"m f=1 {now_s * per_second}").status_code == 204
    for query in ("", "?precision="):
        per_second = 10**9 if default == "ns" else 1000
        assert client.post(door + query, data=f"m f=1 {now_s * per_second}").status_code == 204
    assert client.get("/statistics?series=m.f&window=5m&stats=count").json["count"] == len(units) + 2
    answer = client.post(f"{door}?precision=day", data="m f=1")
    assert answer.status_code == 400
    assert error_of(door, answer) == "precision: must be ns, us, ms, s, m, h or auto"


@pytest.mark.parametrize("door", DOORS)
def test_what_clients_send_beside_is_taken(client: FlaskClient, door: str) -> None:
    """Databases and the like mean nothing; what nobody knows is refused."""
    query = "db=d&rp=r&consistency=one&u=me&p=secret&bucket=b&org=o&orgID=1&no_sync=true"
    assert client.post(f"{door}?{query}", data="m f=1").status_code == 204
    answer = client.post(f"{door}?{query}&pretty=1", data="m f=1")
    assert answer.status_code == 400
    assert error_of(door, answer).startswith("pretty: is not known here; known are: ")


@pytest.mark.parametrize("door", DOORS)
def test_an_idempotency_key_counts_once(client: FlaskClient, door: str) -> None:
    """A retry gets the first answer again, also where that was a partial 400; another body is a conflict."""
    headers = {"Idempotency-Key": "batch-1"}
    body = 'm f=1,s="x"\nbad'
    answers = [client.post(door, data=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].data == answers[1].data
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]
    assert held(client) == {"m.f": 1}
    assert value(scrape(client), "statsapi_events_rejected_total") == 1
    assert value(scrape(client), "statsapi_influx_ignored_strings_total") == 1
    other = client.post(door, data="m f=2", headers=headers)
    assert other.status_code == 422
    assert "Idempotency-Key" in error_of(door, other)


@pytest.mark.parametrize("door", DOORS)
def test_duplicates_and_old_events_are_told(client: FlaskClient, door: str) -> None:
    """dedup and expired mean what they mean on /events; what does not show is told in a header."""
    at = NOW_US * 1000
    for stored, duplicates in (("1", None), ("0", "1")):
        answer = client.post(f"{door}?dedup=true&precision=ns", data=f"m f=1 {at}")
        assert answer.headers["X-Statsapi-Stored"] == stored
        assert answer.headers.get("X-Statsapi-Duplicates") == duplicates
    answer = client.post(f"{door}?precision=s", data="m f=1 5")
    assert answer.status_code == 204
    assert "counts in no window (expired)" in answer.headers["X-Statsapi-Message"]
    answer = client.post(f"{door}?precision=s&expired=reject", data=f"m f=1 5\nm f=2 {NOW_US // SECOND_US}")
    assert answer.status_code == 400
    assert "line 1: timestamp is older than everything kept" in error_of(door, answer)
    assert answer.headers["X-Statsapi-Stored"] == "1"


@pytest.mark.parametrize("door", DOORS)
def test_a_point_too_far_ahead_is_named(clock: FakeClock, door: str) -> None:
    """STATSAPI_MAX_FUTURE_SKEW holds line by line."""
    app = create_app(Settings(journal="memory://", max_future_skew_us=SECOND_US), clock_us=clock, background=False)
    client = app.test_client()
    answer = client.post(f"{door}?precision=s", data=f"m f=1\nm f=1 {NOW_US // SECOND_US + 60}")
    assert answer.status_code == 400
    assert "line 2: timestamp lies more than 1s ahead" in error_of(door, answer)
    assert held(client) == {"m.f": 1}


# -- other errors, in their words ----------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"data": b"m f=1", "headers": {"Content-Encoding": "br"}}, 415, "gzip"),
        ({"data": b"m f=1", "headers": {"Content-Encoding": "gzip"}}, 400, "corrupt"),
        ({"data": b"m,a=\xff f=1"}, 400, "not UTF-8"),
        ({"data": b'm f=1\nm s="x'}, 400, "Line 2 of the body has a string that is not closed"),
        ({"data": b"m f=1\n" * 100_001}, 413, "STATSAPI_MAX_BATCH_EVENTS"),
        ({"data": b"m" * (16 * 1024 * 1024 + 1)}, 413, "STATSAPI_MAX_BODY_BYTES"),
        ({"data": b"m f=1", "headers": {"Idempotency-Key": "\u00e9"}}, 400, "Idempotency-Key"),
        ({"data": b"m f=1", "query_string": "db=a&db=b&bucket=a&bucket=b"}, 400, "given more than once"),
    ],
)
def test_problems_are_told_as_that_version_does(
    client: FlaskClient, door: str, request_: dict[str, Any], status: int, said: str
) -> None:
    """Never as another form of problem, and nothing is recorded."""
    answer = client.post(door, **request_)
    assert answer.status_code == status
    assert said in error_of(door, answer)
    assert held(client) == {}


@pytest.mark.parametrize("door", DOORS)
def test_a_journal_that_is_away_says_when_to_try_again(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """503 with Retry-After, as these clients wait for it, and whether it may have been recorded."""

    def fail(*_: Any, **__: Any) -> None:
        raise JournalUnavailable("the journal is away", outcome_unknown=True)

    service: Service = app.extensions["statsapi"]
    monkeypatch.setattr(service.view().journal, "append", fail)
    answer = client.post(door, data="m f=1")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert error_of(door, answer) == "the journal is away"
    assert json.loads(answer.data)["outcome"] == "unknown"


# -- ping and health -----------------------------------------------------------------------------------------------


def test_ping_and_health(app: Flask, client: FlaskClient) -> None:
    """204 with a version for GET and HEAD; health is /readyz in their words."""
    for answer in (client.get("/ping"), client.head("/ping")):
        assert (answer.status_code, answer.data) == (204, b"")
        assert answer.headers["X-Influxdb-Version"].startswith("statsapi-")
    answer = client.get("/health")
    assert (answer.status_code, answer.json["status"]) == (200, "pass")
    app.extensions["statsapi"].leave()
    answer = client.get("/health")
    assert (answer.status_code, answer.json["status"]) == (503, "fail")


# -- keys ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(clock: FakeClock) -> tuple[FlaskClient, str, str]:
    """A client, a key that may write, and one that may read."""
    write, entry = keys.new_key(["write"], "writer")
    read, other = keys.new_key(["read"], "reader")
    app = create_app(
        Settings(journal="memory://", api_keys=f"{entry.line()};{other.line()}"), clock_us=clock, background=False
    )
    return app.test_client(), write, read


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


@pytest.mark.parametrize("door", DOORS)
def test_keys_are_read_as_clients_send_them(keyed: tuple[FlaskClient, str, str], door: str) -> None:
    """Token, Bearer, basic authentication, X-API-Key, and the password of the query."""
    client, write, read = keyed
    ways: list[Any] = [
        lambda key: {"headers": {"Authorization": f"Token {key}"}},
        lambda key: {"headers": {"Authorization": f"token  {key} "}},
        lambda key: {"headers": {"Authorization": f"Bearer {key}"}},
        lambda key: {"headers": {"Authorization": basic(key)}},
        lambda key: {"headers": {"X-API-Key": key}},
        lambda key: {"headers": {"X-API-Key": key, "Authorization": basic("a proxy's")}},
        lambda key: {"query_string": {"u": "any", "p": key}},
    ]
    for way in ways:
        assert client.post(door, data="m f=1", **way(write)).status_code == 204
        refused = client.post(door, data="m f=1", **way(read))
        assert refused.status_code == 403
        assert "needs the scope write, which key reader does not have" in error_of(door, refused)
        unknown = client.post(door, data="m f=1", **way("unknown"))
        assert unknown.status_code == 401
        assert "not known" in error_of(door, unknown)
        assert unknown.headers["WWW-Authenticate"]
    without = client.post(door, data="m f=1")
    assert without.status_code == 401
    assert "Send an API key" in error_of(door, without)
    if door == "/api/v2/write":
        assert json.loads(without.data)["code"] == "unauthorized"
    for path in ("/ping", "/health"):
        assert client.get(path).status_code < 300


def test_elsewhere_these_ways_are_none(keyed: tuple[FlaskClient, str, str]) -> None:
    """A key in a query ends up in logs, and basic authentication may be a proxy's."""
    client, _, read = keyed
    for way in ({"headers": {"Authorization": f"Token {read}"}}, {"headers": {"Authorization": basic(read)}}):
        assert client.get("/statistics", **way).status_code == 401
    assert client.get(f"/statistics?p={read}").status_code == 401


def test_a_key_is_not_told_back(keyed: tuple[FlaskClient, str, str]) -> None:
    """Neither from a line at fault nor from a query; and a log line hides whatever stands behind p=."""
    client, write, _ = keyed
    for door in DOORS:
        answer = client.post(door, data=f"m,k={write} bad", headers={"Authorization": f"Token {write}"})
        assert answer.status_code == 400
        assert write not in answer.text
    formatter = PlainFormatter(logging.Formatter("%(message)s"))
    line = f'"POST /write?db=d&p=hunter2&u=x HTTP/1.1" 204, POST /write?p={write}'
    shown = formatter.format(logging.LogRecord("x", logging.INFO, "", 0, line, None, None))
    assert shown == '"POST /write?db=d&p=…&u=x HTTP/1.1" 204, POST /write?p=…'


# -- whatever is sent ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed() -> FlaskClient:
    app: Flask = create_app(Settings(journal="memory://", max_series=50), clock_us=FakeClock(), background=False)
    return app.test_client()


@given(
    door=st.sampled_from(DOORS),
    body=st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from('mab,= \\"i.1-\n\r\t#;é\0'), max_size=60).map(str.encode),
        st.lists(st.sampled_from([b"m f=1", b"m,a=b f=1i 5", b'm s="', b'",', b"\n", b" ", b",", b"\\", b"\xff"])).map(
            b"".join
        ),
    ),
    query=st.dictionaries(
        st.sampled_from(["precision", "accept_partial", "dedup", "expired", "db", "p", "x"]),
        st.sampled_from(["", "s", "auto", "true", "false", "reject", "\0", "é"]),
        max_size=3,
    ),
    encoding=st.sampled_from([None, None, None, "gzip", "identity", "x"]),
)
@settings(suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_no_fault_of_ours(
    fuzzed: FlaskClient, door: str, body: bytes, query: dict[str, str], encoding: str | None
) -> None:
    """204, or an error in that version's words; never a 500."""
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    answer = fuzzed.post(door, data=body, query_string=query, headers=headers)
    assert answer.status_code in (204, 400, 415, 507), answer.text
    if answer.status_code != 204:
        assert error_of(door, answer)


NAMES = st.tuples(
    st.text("ab.,= \\\"'#;é/-", min_size=1, max_size=8),
    st.dictionaries(st.text('ab,= \\"#é', min_size=1, max_size=5), st.text('ab,= \\"#é', min_size=1, max_size=5)),
)


@given(
    names=st.lists(NAMES, min_size=1, max_size=4),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    at_us=st.integers(0, 3_000_000_000),
)
def test_an_export_as_line_protocol_is_read_back(
    names: list[tuple[str, dict[str, str]]], values: list[float], at_us: int
) -> None:
    """By another service: the same series, instants and values, to the last bit; a name that line protocol cannot hold
    is refused.
    """
    clock = FakeClock()
    first, second = (create_app(Settings(journal="memory://"), clock_us=clock, background=False) for _ in range(2))
    stamp_us, taken = clock() - at_us, 0
    for base, tags in names:
        for number in values:
            event = {"timestamp": f"{stamp_us // 10**6}.{stamp_us % 10**6:06}", "value": number}
            taken += first.test_client().post("/event", json=event | {"series": base, "tags": tags}).status_code == 200
    exported = first.test_client().get("/events?format=influx")
    held = first.test_client().get("/events").json["events"]
    assert len(held) == taken
    if exported.status_code == 422:
        (error,) = exported.json["errors"]
        assert "nothing may begin with # or end with a backslash" in error["reason"]
        parts = [part for event in held for part in re.split("[;=]", event["series"])]
        assert any(part.endswith("\\") or part.startswith("#") for part in parts)
        return
    assert exported.content_type == "text/plain; charset=utf-8"
    assert exported.text.count("\n") == len(held)
    if held:
        written = second.test_client().post("/api/v2/write?bucket=b&precision=ns", data=exported.data)
        assert written.status_code == 204, written.text
    found = second.test_client().get("/events").json["events"]
    assert [(each["series"], each["timestamp"], each["value"].hex()) for each in found] == [
        (each["series"], each["timestamp"], each["value"].hex()) for each in held
    ]


def test_a_point_that_is_too_old_is_shown_as_it_was_sent(client: FlaskClient) -> None:
    """Version 1 repeats the line; it was empty."""
    answer = client.post("/write?expired=reject", data="m v=1\nold,a=b v=2 1000000000\r\n")
    assert answer.status_code == 400
    assert "unable to parse 'old,a=b v=2 1000000000': line 2" in error_of("/write", answer)


def test_a_carriage_return_within_a_line_is_named(client: FlaskClient) -> None:
    """As files of old Macs have them."""
    assert "carriage return" in error_of("/write", client.post("/write", data="m v=1\rm v=2\n"))


def test_the_key_a_refusal_asks_for_is_not_taken_for_one(keyed: tuple[FlaskClient, str, str]) -> None:
    """The advice was redacted as if it held a key."""
    client, _, _ = keyed
    assert "the parameter p." in error_of("/write", client.post("/write", data="m f=1"))


def test_a_pushgateway_client_may_send_the_key_as_a_password(keyed: tuple[FlaskClient, str, str]) -> None:
    """As prometheus_client's basic_auth_handler does; a key that may only read is refused."""
    client, write, read = keyed
    for key, status in ((write, 200), (read, 403), ("none", 401)):
        headers = {"Authorization": basic(key), "Content-Type": "text/plain"}
        assert client.post("/metrics/job/x", data="m 1\n", headers=headers).status_code == status
