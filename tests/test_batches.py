"""Batches: every form, and the fast way held against the schema, item by item."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from statsapi.api.batches import decode, unpack
from statsapi.api.schemas import EventSchema
from tests.conftest import NOW
from tests.test_api_seed import assert_problem

SCHEMA = EventSchema()

timestamps = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes().map(lambda moment: moment.isoformat(sep=" ") + "+05:30"),
    st.integers(-(10**13), 10**13),
    st.floats(-1e11, 1e11),
    st.sampled_from(
        ["2025-11-21T24:00:00Z", "2025-02-29T00:00:00Z", "2025-11-21T07:45:61Z", "2025-325", "soon", "", None, True, []]
    ),
    st.sampled_from([10**400, 1e300, "2025-1１-21T07:45:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T24:00:00"]),
)
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1_0", " 7 ", "nan", "inf", "", "x", None, True, False, [], {}, 10**400, "1e999", "٣"]),
)
series = st.sampled_from(["a", "b/1", "default", "é", "", "a b", "x" * 201, None, 7])
items = st.one_of(
    st.fixed_dictionaries(
        {"timestamp": timestamps, "value": values}, optional={"series": series, "unknown": st.just(1)}
    ),
    st.fixed_dictionaries({"timestamp": st.just(NOW), "value": st.floats(-1e9, 1e9)}),
    st.sampled_from([{}, [], "x", None, 7, {"timestamp": NOW}]),
)


def one_by_one(batch: list[Any]) -> tuple[dict[str, list[tuple[int, float]]], dict[int, set[str]]]:
    """What the schema makes of each item alone: events by series, and the fields at fault by index."""
    good: dict[str, list[tuple[int, float]]] = {}
    bad: dict[int, set[str]] = {}
    for index, item in enumerate(batch):
        try:
            event = SCHEMA.load(item)
            good.setdefault(event["series"], []).append((event["timestamp"], event["value"]))
        except ValidationError as error:
            bad[index] = {"" if field == "_schema" else field for field in error.messages_dict}
    return good, bad


def check(batch: list[Any], body: bytes, media_type: str, *, place: str = "index", offset: int = 0) -> None:
    good, bad = one_by_one(batch)
    decoded = decode(body, media_type, max_events=100_000)
    found = {
        name: list(zip(ts_us.tolist(), values.tolist(), strict=True)) for name, ts_us, values in decoded.batch.parts
    }
    assert repr(found) == repr(good) or (found == good and list(found) != list(good))
    assert (decoded.received, decoded.rejected) == (len(batch), len(bad))
    named: dict[int, set[str]] = {}
    for error in decoded.errors:
        named.setdefault(error[place] - offset, set()).add(error["field"])
        assert error["reason"]
    if sum(map(len, bad.values())) < 100:
        assert named == bad
    assert len(decoded.errors) <= 100


@settings(max_examples=300, deadline=None)
@given(st.lists(items, max_size=30))
def test_json_agrees_with_the_schema(batch: list[Any]) -> None:
    """An array, the same inside `events`, and NDJSON accept, refuse and name exactly what the schema does."""
    check(batch, json.dumps(batch).encode(), "application/json")
    check(batch, json.dumps({"events": batch}).encode(), "application/json")
    lines = "".join(json.dumps(item) + "\n" for item in batch).encode()
    check(batch, lines, "application/x-ndjson", place="line", offset=1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(timestamps, values), max_size=30), st.none() | st.sampled_from(["a", "b/1"]))
def test_columns_agree_with_the_schema(rows: list[Any], name: str | None) -> None:
    """Columns are the same events as rows."""
    shared = {} if name is None else {"series": name}
    columns = {"timestamp": [row[0] for row in rows], "value": [row[1] for row in rows], **shared}
    batch = [{"timestamp": timestamp, "value": value, **shared} for timestamp, value in rows]
    check(batch, json.dumps(columns).encode(), "application/json")


plain = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.datetimes().map(str) | plain, st.floats().map(repr) | plain, series.filter(bool)), max_size=20
    )
)
def test_csv_agrees_with_the_schema(rows: list[Any]) -> None:
    """CSV fields are the strings that the schema reads, quoted where they must be."""
    texts = [(timestamp.strip() or "x", value, str(name)) for timestamp, value, name in rows]
    texts = [row for row in texts if not row[0].replace(".", "").lstrip("-+").isdigit()]
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(("value", "series", "timestamp"))
    writer.writerows((value, name, timestamp) for timestamp, value, name in texts)
    batch = [{"timestamp": timestamp, "value": value, "series": name} for timestamp, value, name in texts]
    check(batch, written.getvalue().encode(), "text/csv", place="line", offset=2)


def test_csv_numbers_are_unix_seconds() -> None:
    """A timestamp field that is a plain number means what the same JSON number means; an empty series is `default`."""
    body = b"timestamp,value,series\r\n1763711100,1,\r\n1763711100.5,2,a\r\n1763711100123,3,\r\n"
    check(
        [
            {"timestamp": 1763711100, "value": 1},
            {"timestamp": 1763711100.5, "value": 2, "series": "a"},
            {"timestamp": 1763711100123, "value": 3},
        ],
        body,
        "text/csv",
        place="line",
        offset=2,
    )


@pytest.mark.parametrize(
    ("body", "media_type", "error"),
    [
        (b"[", "application/json", BadRequest),
        (b"[" * 100_000, "application/json", BadRequest),
        (b"\xff", "application/json", BadRequest),
        (b"7", "application/json", ValidationError),
        (b'{"timestamp": [1], "value": [1, 2]}', "application/json", ValidationError),
        (b'{"events": [], "more": 1}', "application/json", ValidationError),
        (b"timestamp\n1\n", "text/csv", ValidationError),
        (b"timestamp,value,weight\n", "text/csv", ValidationError),
        (b"timestamp,value,value\n", "text/csv", ValidationError),
        (b"[]", "text/html", UnsupportedMediaType),
        (b"[" + b"{}," * 6 + b"{}]", "application/json", RequestEntityTooLarge),
    ],
)
def test_bodies_refused_as_a_whole(body: bytes, media_type: str, error: type[Exception]) -> None:
    """What is no batch at all, or too large a one, is refused whole."""
    with pytest.raises(error):
        decode(body, media_type, max_events=5)


def test_unpack() -> None:
    """gzip is unpacked within the limit; a bomb, a cut and a broken stream are refused."""
    data = b"x" * 100_000
    packed = gzip.compress(data)
    assert unpack(data, None, 10**6) == data
    assert unpack(packed + packed, "gzip", 10**6) == data + data
    with pytest.raises(RequestEntityTooLarge):
        unpack(packed, "gzip", 99_999)
    for broken in (packed[:-4], b"nonsense", packed[:20] + b"zzzz" + packed[24:]):
        with pytest.raises(BadRequest):
            unpack(broken, "gzip", 10**6)
    with pytest.raises(UnsupportedMediaType):
        unpack(data, "br", 10**6)


def test_post_events_all_or_nothing(client: FlaskClient) -> None:
    """One bad item stores nothing and is named; with ?partial=true the good ones are stored and the rest reported."""
    batch = [{"timestamp": NOW, "value": 1}, {"timestamp": NOW, "value": "x"}, {"timestamp": "2020-01-01", "value": 2}]
    problem = assert_problem(client.post("/events", json=batch), 422, "validation")
    assert problem["rejected"] == 1
    assert (problem["errors"][0]["index"], problem["errors"][0]["field"]) == (1, "value")
    assert client.get("/debug/events").json["total_events"] == 0
    body = client.post("/events?partial=true", json=batch).json
    counts = {name: body[name] for name in ("status", "stored", "duplicates", "expired", "rejected")}
    assert counts == {"status": "success", "stored": 1, "duplicates": 0, "expired": 1, "rejected": 1}
    assert body["errors"][0]["index"] == 1
    assert client.get("/statistics").json["count"] == 1


def test_post_events_dedup_retries_and_gzip(client: FlaskClient) -> None:
    """A gzip batch with repeats counts each event once under ?dedup=true, and once under one Idempotency-Key."""
    csv_body = f"timestamp,value\n{NOW},1\n{NOW},2\n{NOW},1\n".encode()
    headers = {"Idempotency-Key": "k", "Content-Encoding": "gzip", "Content-Type": "text/csv"}
    first = client.post("/events?dedup=true", data=gzip.compress(csv_body), headers=headers)
    assert (first.json["stored"], first.json["duplicates"]) == (2, 1)
    again = client.post("/events?dedup=true", data=gzip.compress(csv_body, 1), headers=headers)
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"
    assert client.get("/statistics").json["count"] == 2


def test_an_export_comes_back_bit_for_bit(client: FlaskClient) -> None:
    """What is exported as CSV or NDJSON is imported by the batch endpoint with the same statistics."""
    numbers = [0.1, 1e308, -5e-324, 1e16, -0.0, 3.0]
    client.post("/events", json={"timestamp": [NOW] * 6, "value": numbers, "series": "a"})
    before = client.get("/statistics?series=a&stats=all&percentiles=37").json
    for form, media_type in (("csv", "text/csv"), ("ndjson", "application/x-ndjson")):
        exported = client.get(f"/events?format={form}").data
        client.delete("/series/a")
        assert client.post("/events", data=exported, content_type=media_type).json["stored"] == 6
        assert client.get("/statistics?series=a&stats=all&percentiles=37").json == before
