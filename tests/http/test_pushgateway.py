"""Pushes as to a Prometheus Pushgateway: gauges become events; whatever cannot be one is refused by name."""

from __future__ import annotations

import base64
import gzip
import math
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from statsapi.api.decoding import exposition
from statsapi.api.decoding.exposition import LINE_MAX_BYTES, PARTS_MAX, PUSH_MAX_BYTES
from statsapi.api.pushgateway import read_group
from statsapi.naming.names import split_name
from tests.calls import assert_problem, scrape, value
from tests.fakes import NOW

TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
OPENMETRICS = {"Content-Type": openmetrics.CONTENT_TYPE_LATEST}
PROTOBUF = {
    "Content-Type": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
}


def push(client: FlaskClient, body: str | bytes, group: str = "job/x", **headers: str) -> Any:
    return client.put(f"/metrics/{group}", data=body, headers=TEXT | headers)


def names(client: FlaskClient) -> list[str]:
    return [row["name"] for row in client.get("/series").json["series"]]


def test_each_gauge_is_an_event_of_now(client: FlaskClient) -> None:
    """In the series of its name and labels; PUT and POST alike, and each push counts."""
    registry = CollectorRegistry()
    gauge = Gauge("rows", "Rows copied.", ["table"], registry=registry)
    gauge.labels("users").set(3)
    gauge.labels("orders").set(4.5)
    for send in (client.put, client.post):
        answer = send("/metrics/job/backup", data=generate_latest(registry), headers=TEXT)
        assert (answer.status_code, answer.data) == (200, b"")
    assert names(client) == ["rows;job=backup;table=orders", "rows;job=backup;table=users"]
    events = client.get("/events?series=rows%3Bjob%3Dbackup%3Btable%3Dusers").json["events"]
    assert [(event["timestamp"], event["value"]) for event in events] == [(NOW, 3.0)] * 2


def test_labels_of_the_path_win(client: FlaskClient) -> None:
    """As in a Pushgateway, also where they come in base64; an empty label is none."""
    path = base64.urlsafe_b64encode("/var/länge x".encode()).decode()
    assert push(client, 'a{job="own",path="p",empty=""} 1\n', f"job/mine/path@base64/{path}").status_code == 200
    assert push(client, "b 1\n", "job/mine/zone@base64/=").status_code == 200
    assert names(client) == ["a;job=mine;path=/var/länge x", "b;job=mine"]


@pytest.mark.parametrize("metric", [Counter, Histogram, Summary])
def test_sums_of_events_are_refused_by_name(client: FlaskClient, metric: Any) -> None:
    """With all that came with them: nothing is recorded, and all samples at fault are counted."""
    registry = CollectorRegistry()
    Gauge("fine", "A gauge.", registry=registry).set(1)
    made = metric("busy", "Many events.", registry=registry)
    made.inc() if metric is Counter else made.observe(1)
    problem = assert_problem(push(client, generate_latest(registry)), 422, "validation")
    assert problem["errors"][0]["field"].startswith("busy")
    assert f"is a {metric.__name__.lower()}, which holds" in problem["errors"][0]["reason"]
    assert names(client) == []
    assert value(scrape(client), "statsapi_events_rejected_total") >= 1


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ("a NaN\n", "a", "is nan"),
        ("a +Inf\n", "a", "is inf"),
        ("a 1 1700000000000\n", "a", "has a timestamp"),
        ("a 1\na 2\n", "a", "appears twice"),
        ('a{x=";"} 1\n', "a", "semicolon"),
        ('a{x="' + "y" * 300 + '"} 1\n', "a", "200"),
        ("# TYPE a stateset\na 1\n", "a", "type"),
    ],
)
def test_what_cannot_be_an_event(client: FlaskClient, body: str, field: str, says: str) -> None:
    """Each sample at fault is named, with what to do."""
    problem = assert_problem(push(client, "good 1\n" + body), 422, "validation")
    assert problem["errors"][0]["field"] == field
    assert says in problem["errors"][0]["reason"]
    assert names(client) == []


@pytest.mark.parametrize("bad", ["a b\n", 'a{x="1 3\n', "a{ 3\n", "{} 3\n", "<html></html>\n"])
def test_a_line_that_cannot_be_read_is_named(client: FlaskClient, bad: str) -> None:
    """By its number."""
    problem = assert_problem(push(client, "ok 1\n# a comment\n" + bad), 422, "validation")
    assert problem["errors"][0]["line"] == 3
    assert names(client) == []


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ("jo/x", "/metrics/job/JOB"),
        ("job", "/metrics/job/JOB"),
        ("job/x/y", "/metrics/job/JOB"),
        ("job/", "is empty"),
        ("job@base64/=", "is empty"),
        ("job/x/y@base64/!!", "base64"),
        ("job/x/y@base64/_w==", "base64"),
        ("job/x/y/1/y/2", "twice"),
        ("job/x/job/y", "twice"),
    ],
)
def test_paths_that_name_no_group(client: FlaskClient, group: str, says: str) -> None:
    """Are refused with the path to use, for every method."""
    for send in (client.put, client.post, client.delete):
        problem = assert_problem(send(f"/metrics/{group}", data="a 1\n", headers=TEXT), 422, "validation")
        assert says in problem["detail"]


def test_other_bodies(client: FlaskClient) -> None:
    """Gzip is taken; other forms are not; an empty push records nothing; a large one is refused."""
    assert push(client, gzip.compress(b"a 1\n"), **{"Content-Encoding": "gzip"}).status_code == 200
    for other in ("application/json", PROTOBUF["Content-Type"].replace("delimited", "text")):
        assert_problem(push(client, b"\0", **{"Content-Type": other}), 415, "unsupported-media-type")
    assert push(client, "").status_code == 200
    assert_problem(push(client, b"\xff 1\n"), 422, "validation")
    assert_problem(push(client, b"a 1\n" * (PUSH_MAX_BYTES // 4 + 1)), 413, "request-entity-too-large")
    assert names(client) == ["a;job=x"]


# What Prometheus' Go client 1.14 sent: a gauge, and one with a label that has two values; then the same with a counter.
GO = bytes.fromhex(
    "2a0a0e6261636b75705f7365636f6e64731209486f77206c6f6e672e1801220b1209090000000000002940510a0b726f77735f636f706965641205"
    "526f77732e1801221c0a0f0a057461626c6512066f7264657273120909000000000068b040221b0a0e0a057461626c65120575736572731209090000"
    "000000403140"
)
GO_COUNTER = bytes.fromhex("220a0a72756e735f746f74616c120552756e732e1800220b1a0909000000000000f03f")


def varint(number: int) -> bytes:
    """As protobuf writes a length."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def family(name: str, *metrics: bytes, kind: int = 1) -> bytes:
    """A MetricFamily behind its length, written by hand."""
    told = field(1, name.encode()) + varint(3 << 3) + varint(kind) + b"".join(field(4, metric) for metric in metrics)
    return varint(len(told)) + told


def gauge(value: float, **labels: str) -> bytes:
    pairs = (field(1, field(1, name.encode()) + field(2, text.encode())) for name, text in labels.items())
    return b"".join(pairs) + field(2, b"\x09" + struct.pack("<d", value))


def test_what_the_go_client_pushes(client: FlaskClient) -> None:
    """Delimited protobuf: each gauge is an event; a counter is refused by name, and the push with it."""
    assert push(client, GO, **PROTOBUF).status_code == 200
    found = {one["name"]: one["count"] for one in client.get("/series").json["series"]}
    assert found == {"backup_seconds;job=x": 1, "rows_copied;job=x;table=orders": 1, "rows_copied;job=x;table=users": 1}
    assert client.get("/statistics?series=rows_copied;job=x;table=users").json["mean"] == 17.25
    problem = assert_problem(push(client, GO + GO_COUNTER, **PROTOBUF), 422, "validation")
    assert problem["errors"] == [{"field": "runs_total", "reason": problem["errors"][0]["reason"]}]
    assert "is a counter" in problem["detail"]
    assert client.get("/statistics?match=*").json["count"] == 3


def test_damaged_protobuf_is_refused_whole(client: FlaskClient) -> None:
    """Wherever it is cut or changed: recorded as sent, or refused with the place; never a fault of the service."""
    whole = {len(GO), 0, 43}  # between two families
    for end in range(len(GO)):
        status = push(client, GO[:end], **PROTOBUF).status_code
        assert status == (200 if end in whole else 422), end
    for at in range(len(GO)):
        for flipped in (0x01, 0x80, 0xFF):
            body = GO[:at] + bytes([GO[at] ^ flipped]) + GO[at + 1 :]
            assert push(client, body, **PROTOBUF).status_code in (200, 413, 422), (at, flipped)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (family("a", gauge(1.0), gauge(2.0)), "twice"),
        (family("a", field(1, field(1, b"l") + field(2, b"1")) * 2 + gauge(1.0)), "a label of a appears twice"),
        (family("a", gauge(math.nan)), "is nan"),
        (family("a", gauge(1.0) + varint(6 << 3) + varint(7)), "has a timestamp"),
        (family("a", field(5, b"\x09" + struct.pack("<d", 1.0))), "has no such value"),
        (family("a", b""), "has no such value"),
        (family("a", gauge(1.0), kind=4), "is a histogram"),
        (family("a", gauge(1.0), kind=2), "is a summary"),
        (family("a", gauge(1.0), kind=77), "unknown type"),
        (family("", gauge(1.0)), "no name"),
        (family("a", gauge(1.0, l="x" * 5000)), "4,096 bytes"),
        (varint(3) + field(1, b"\xff"), "cannot be read"),
        (family("a", field(1, field(1, b"l") + field(2, b"\xff")) + gauge(1.0)), "utf-8"),
        (b"\xff" * 11, "at byte 0"),
    ],
)
def test_protobuf_that_is_no_event(client: FlaskClient, body: bytes, said: str) -> None:
    """Is refused, and says why."""
    problem = assert_problem(push(client, body, **PROTOBUF), 422, "validation")
    assert said in problem["detail"]
    assert names(client) == []


def test_floods_in_protobuf(client: FlaskClient) -> None:
    """Empty metrics and empty families are counted before they are unpacked."""
    for body in (family("a", *[b""] * 60_000), b"\0" * (PUSH_MAX_BYTES - 1), family("a", *[gauge(1.0)] * 50_001)):
        assert_problem(push(client, body, **PROTOBUF), 413, "request-entity-too-large")


def test_a_counter_that_is_declared_by_its_family(client: FlaskClient) -> None:
    """As OpenMetrics does it, also in the text format: a_total is the counter a."""
    problem = assert_problem(push(client, "# TYPE a counter\na_total 1\nb_total 2\n"), 422, "validation")
    assert [error["field"] for error in problem["errors"]] == ["a_total"]
    assert push(client, "# TYPE a gauge\na_total 1\n").status_code == 200


def test_delete_says_that_it_deletes_nothing(client: FlaskClient) -> None:
    """202, as jobs expect when they end; the events stay."""
    push(client, "a 1\n")
    answer = client.delete("/metrics/job/x")
    assert (answer.status_code, "Nothing was deleted" in answer.text) == (202, True)
    assert names(client) == ["a;job=x"]


def test_a_retry_under_a_key_counts_once(client: FlaskClient) -> None:
    """As everywhere; another push under it is refused."""
    for replayed in (None, "true"):
        answer = push(client, "a 1\n", **{"Idempotency-Key": "k"})
        assert (answer.status_code, answer.headers.get("Idempotent-Replayed")) == (200, replayed)
    assert push(client, "a 2\n", **{"Idempotency-Key": "k"}).status_code == 422
    assert client.get("/series").json["series"][0]["count"] == 1


_LABEL = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
_VALUE = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=";"), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.dictionaries(_LABEL, _VALUE, max_size=3),
    group=st.dictionaries(_LABEL, _VALUE, max_size=3),
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_what_the_client_writes_is_read(
    client: FlaskClient, labels: dict[str, str], group: dict[str, str], number: float
) -> None:
    """Any label and number that the official client sends comes back in the series' tags, bit for bit."""
    registry = CollectorRegistry()
    gauge = Gauge("measured", "Of a test.", sorted(labels), registry=registry)
    (gauge.labels(*(labels[name] for name in sorted(labels))) if labels else gauge).set(number)
    parts = ["job", "j"]
    for name, text in group.items():
        if name != "job":
            parts += [f"{name}@base64", base64.urlsafe_b64encode(text.encode()).decode()]
    body = generate_latest(registry)
    before = client.get("/statistics?match=measured*&stats=count").json["count"]
    answer = push(client, body, "/".join(parts))
    assert answer.status_code == 200, answer.text
    assert client.get("/statistics?match=measured*&stats=count").json["count"] == before + 1
    expected = {**labels, **read_group("/".join(parts))}
    held = [row for row in client.get("/series?match=measured*").json["series"] if row["tags"] == _canonical(expected)]
    assert len(held) == 1
    assert split_name(held[0]["name"])[0] == "measured"
    last = client.get("/statistics", query_string={"series": held[0]["name"], "stats": "last,max,min"}).json
    assert last["min"] <= number + 0.0 <= last["max"]
    assert math.isfinite(last["last"])


def _canonical(tags: dict[str, str]) -> dict[str, str]:
    return {name: unicodedata.normalize("NFC", text) for name, text in sorted(tags.items())}


def test_openmetrics_is_read_as_such(client: FlaskClient) -> None:
    """Its gauges are events; a body without its end, or with more behind it, is refused."""
    registry = CollectorRegistry()
    Gauge("rows", "Rows copied.", ["table"], registry=registry).labels("users").set(3)
    body = openmetrics.generate_latest(registry)
    assert push(client, body, **OPENMETRICS).status_code == 200
    assert names(client) == ["rows;job=x;table=users"]
    for broken in (body.removesuffix(b"# EOF\n"), body + b"more 1\n"):
        (error,) = assert_problem(push(client, broken, **OPENMETRICS), 422, "validation")["errors"]
        assert "is not OpenMetrics" in error["reason"]
    (error,) = assert_problem(push(client, b"a 1\nb one\n# EOF\n", **OPENMETRICS), 422, "validation")["errors"]
    assert error["line"] == 2


@pytest.mark.parametrize("metric", [Counter, Histogram, Summary, Info])
def test_openmetrics_of_no_single_values_is_refused_by_name(client: FlaskClient, metric: Any) -> None:
    """A counter came as two series before, its total and its time of making."""
    registry = CollectorRegistry()
    made = metric("told", "Help.", registry=registry)
    made.info({"a": "b"}) if metric is Info else made.inc() if metric is Counter else made.observe(1)
    problem = assert_problem(push(client, openmetrics.generate_latest(registry), **OPENMETRICS), 422, "validation")
    assert [error["field"] for error in problem["errors"]] == ["told"]
    assert client.get("/statistics?match=*").json["count"] == 0


def test_a_set_of_states_is_refused_by_name(client: FlaskClient) -> None:
    """OpenMetrics has it; the text format writes it as a gauge."""
    registry = CollectorRegistry()
    Enum("state", "Help.", states=["up", "down"], registry=registry).state("up")
    problem = assert_problem(push(client, openmetrics.generate_latest(registry), **OPENMETRICS), 422, "validation")
    assert "type stateset" in problem["errors"][0]["reason"]


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "9" * 5000, "1e999"])
def test_numbers_beyond_all_floats_are_named(client: FlaskClient, number: str) -> None:
    """As values and as timestamps, in both forms; they were a 500."""
    for body in (f"m {number}\n", f"m 1 {number}\n"):
        for headers in (TEXT, OPENMETRICS):
            end = "# EOF\n" if headers is OPENMETRICS else ""
            problem = assert_problem(push(client, body + end, **headers), 422, "validation")
            assert problem["errors"][0]["reason"]


def test_what_would_take_long_is_refused_first(client: FlaskClient) -> None:
    """A line no name needs. A comment may be of any length."""
    assert push(client, f"# HELP m {'h' * 100_000}\nm 1\n").status_code == 200
    for line in (
        'm{a="' + '\\"' * LINE_MAX_BYTES + '"} 1',
        '{"m' + '"m' * LINE_MAX_BYTES + '"} 1',
        "# TYPE m " + "g" * 5000,
    ):
        (error,) = assert_problem(push(client, f"a 1\n{line}\n"), 422, "validation")["errors"]
        assert error["line"] == 2
        assert "is longer than" in error["reason"]


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("m 1\n" * (PARTS_MAX + 1), "30,001 samples with 0 labels and 0 types were pushed"),
        ('m{a="1"} 1\n' * (PARTS_MAX // 2 + 1), "15,001 samples with 15,001 labels"),
        ("# TYPE m gauge\n" * (PARTS_MAX + 1), "30,001 types"),
        ("m{" + ",".join(f'a{i}="1"' for i in range(300)) + "} 1\n", None),
        (("m{" + ",".join(f'a{i}="1"' for i in range(300)) + "} 1\n") * 100, "100 samples with 30,000 labels"),
        (('m{a="' + '\\"' * 1000 + '"} 1\n') * 70, "at most 30,000 of them together"),
    ],
)
def test_a_push_is_counted_before_it_is_parsed(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: dict[str, str], body: str, said: str | None
) -> None:
    """Samples, labels and types together, where each pair of quotes is a label: more than that would take seconds."""
    parsed = []
    for name in ("_parse_text", "_parse_openmetrics"):
        monkeypatch.setattr(exposition, name, lambda lines: parsed.append(lines) or [])  # type: ignore[func-returns-value]
    response = push(client, body + "# EOF\n", **form)
    assert len(parsed) == (said is None)
    if said is not None:
        assert said in assert_problem(response, 413, "request-entity-too-large")["detail"]


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_of_a_push_that_cannot_be_read_one_line_is_read_again(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: dict[str, str]
) -> None:
    """The line at which the parser stopped, which is named: to look through all lines before it took as long again."""
    lines = []

    def seen(given: Iterable[str]) -> Iterator[str]:
        for line in given:
            lines.append(line)
            yield line

    def spy(parse: Any) -> Any:
        return lambda given: parse(seen(given))

    for name in ("_parse_text", "_parse_openmetrics"):
        monkeypatch.setattr(exposition, name, spy(getattr(exposition, name)))
    body = "".join(f"m{i} 1\n" for i in range(1000)) + "x{\n# EOF\n"
    (error,) = assert_problem(push(client, body, **form), 422, "validation")["errors"]
    assert error["line"] == 1001
    assert len(lines) <= 1003


def test_paths_and_queries_that_mean_nothing_are_refused(client: FlaskClient) -> None:
    """An unknown parameter, the name of a metric as a label, and bytes that are no UTF-8 (two such were one series)."""
    assert_problem(client.post("/metrics/job/j?foo=1", data="m 1\n", headers=TEXT), 422, "validation")
    assert_problem(push(client, "m 1\n", "job/j/__name__/other"), 422, "validation")
    odd = {"PATH_INFO": "/metrics/job/\xff"}  # as a server hands %FF on
    for method, body in (("PUT", "m 1\n"), ("POST", "m 1\n"), ("DELETE", "")):
        answer = client.open("/metrics/job/x", method=method, data=body, headers=TEXT, environ_overrides=odd)
        assert_problem(answer, 422, "validation")
    assert names(client) == []
