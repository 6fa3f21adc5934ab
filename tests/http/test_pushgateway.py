"""Pushes as to a Prometheus Pushgateway: gauges become events; whatever cannot be one is refused by name."""

from __future__ import annotations

import base64
import gzip
import math
import unicodedata
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from statsapi.api.decoding.exposition import LINE_MAX_BYTES, PUSH_MAX_BYTES, SAMPLES_MAX
from statsapi.api.pushgateway import read_group
from statsapi.naming.names import split_name
from tests.calls import assert_problem, scrape, value
from tests.fakes import NOW

TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


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
    """Gzip is taken, protobuf is not; an empty push records nothing; a large one is refused."""
    assert push(client, gzip.compress(b"a 1\n"), **{"Content-Encoding": "gzip"}).status_code == 200
    proto = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    assert_problem(push(client, b"\0", **{"Content-Type": proto}), 415, "unsupported-media-type")
    assert push(client, "").status_code == 200
    assert_problem(push(client, b"\xff 1\n"), 422, "validation")
    assert_problem(push(client, b"a 1\n" * (PUSH_MAX_BYTES // 4 + 1)), 413, "request-entity-too-large")
    assert names(client) == ["a;job=x"]


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


OPENMETRICS = {"Content-Type": openmetrics.CONTENT_TYPE_LATEST}


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
    """A line no name needs, and more samples than a second reads. A comment may be of any length."""
    assert push(client, f"# HELP m {'h' * 100_000}\nm 1\n").status_code == 200
    for line in (
        'm{a="' + '\\"' * LINE_MAX_BYTES + '"} 1',
        '{"m' + '"m' * LINE_MAX_BYTES + '"} 1',
        "# TYPE m " + "g" * 5000,
    ):
        (error,) = assert_problem(push(client, f"a 1\n{line}\n"), 422, "validation")["errors"]
        assert error["line"] == 2
        assert "is longer than" in error["reason"]
    assert push(client, "m 1\n" * (SAMPLES_MAX + 1)).status_code == 413


def test_paths_and_queries_that_mean_nothing_are_refused(client: FlaskClient) -> None:
    """An unknown parameter, the name of a metric as a label, and bytes that are no UTF-8 (two such were one series)."""
    assert_problem(client.post("/metrics/job/j?foo=1", data="m 1\n", headers=TEXT), 422, "validation")
    assert_problem(push(client, "m 1\n", "job/j/__name__/other"), 422, "validation")
    odd = {"PATH_INFO": "/metrics/job/\xff"}  # as a server hands %FF on
    for method, body in (("PUT", "m 1\n"), ("POST", "m 1\n"), ("DELETE", "")):
        answer = client.open("/metrics/job/x", method=method, data=body, headers=TEXT, environ_overrides=odd)
        assert_problem(answer, 422, "validation")
    assert names(client) == []
