"""Batches: every form held against the schema, item by item, and each way a body is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import re
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from statsapi.api.bodies import unpack
from statsapi.api.body_text import EVENT_MAX_BYTES
from statsapi.api.decoding import Decoded, decode, decode_one, ndjson_reader, rows
from statsapi.api.decoding import plain as plain_module
from statsapi.api.decoding import timestamps as timestamps_module
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.api.field_kinds import Instant
from statsapi.api.problems import ERRORS_NAMED_MAX
from statsapi.api.schemas import EventSchema
from statsapi.times import format_timestamp
from tests.calls import assert_problem
from tests.fakes import NOW
from tests.written_times import FORMS, OTHER_FORMS, REFUSED, REFUSED_FORMS, moments, refused, unix_us, written

SCHEMA = EventSchema()
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"

slow = settings(max_examples=settings.default.max_examples * 3 // 2, suppress_health_check=[HealthCheck.too_slow])


# -- the naive twin ------------------------------------------------------------------------------------------------


class Unreadable(str):
    """In place of an item: the reason why there is none."""


class Doubled(str):
    """In place of an item: a name that stands twice in it."""


def of_pairs(pairs: list[tuple[str, Any]]) -> Any:
    names = [name for name, _ in pairs]
    doubled = sorted(name for name in set(names) if names.count(name) > 1)
    return Doubled(doubled[0]) if doubled else dict(pairs)


def load(text: str) -> Any:
    """The standard parser, but for objects in which a name stands twice."""
    return json.loads(text, object_pairs_hook=of_pairs)


def twin(items: Iterable[tuple[dict[str, int], Any]]) -> tuple[Any, ...]:
    """What the schema makes of (place, item), one by one: columns by series, counts, and the first errors."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    received = rejected = 0
    errors: list[dict[str, Any]] = []
    for place, item in items:
        received += 1
        try:
            event = SCHEMA.load(item)
        except ValidationError as error:
            rejected += 1
            messages = {"": [str(item)]} if isinstance(item, Unreadable) else error.messages_dict
            if isinstance(item, Doubled):
                messages = {str(item): ["is given twice: keep one of them"]}
            for field, reasons in messages.items():
                errors += [{**place, "field": printable(field), "reason": why} for why in reasons]
        else:
            ts_us, values = columns.setdefault(event["series"], ([], []))
            ts_us.append(event["timestamp"])
            values.append(event["value"])
    bits = {name: (ts_us, np.array(values).tobytes()) for name, (ts_us, values) in columns.items()}
    return bits, received, rejected, errors[:ERRORS_NAMED_MAX]


def printable(field: str) -> str:
    return "" if field == "_schema" else field.encode("utf-8", "backslashreplace").decode()


def seen(decoded: Decoded) -> tuple[Any, ...]:
    bits = {}
    for name, ts_us, values in decoded.batch.parts:
        assert name not in bits
        assert (str(ts_us.dtype), str(values.dtype)) == ("int64", "float64")
        assert len(ts_us) == len(values) > 0
        bits[name] = (ts_us.tolist(), values.tobytes())
    return bits, decoded.received, decoded.rejected, [error | {"reason": plain(error)} for error in decoded.errors]


def plain(error: dict[str, Any]) -> str:
    """The reason without the cure behind it, if an item is wrong as a whole: test_cures.py tests the cures."""
    reason: str = error["reason"]
    if error["field"]:
        return reason
    return re.sub(r"(\. The body |: (is|take|separate) ).*", "", reason, flags=re.DOTALL)


def check(body: bytes, media_type: str, items: Iterable[tuple[dict[str, int], Any]]) -> None:
    """Decodes as the twin does, with all timestamps by numpy where it can, with few, and with plain bodies by bytes."""
    check_equal(body, media_type, twin(items))


def check_equal(body: bytes, media_type: str, expected: tuple[Any, ...]) -> None:
    for vector_min, plain_from_bytes in ((1, 1 << 40), (64, 1 << 40), (64, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timestamps_module, "_VECTOR_MIN", vector_min)
            patch.setattr(plain_module, "_LEAST_BYTES", plain_from_bytes)
            assert seen(decode(body, media_type, max_events=100_000)) == expected


def check_json(texts: list[str]) -> None:
    """An array, the same inside `events`, and NDJSON, of items written as JSON."""
    array = f"[{', '.join(texts)}]"
    expected = twin(({"index": index}, item) for index, item in enumerate(load(array)))
    check_equal(array.encode(), JSON, expected)
    check_equal(f'{{"events": {array}}}'.encode(), JSON, expected)
    lines = "".join(text + "\n" for text in texts)
    for text in texts:
        check_one(text)
    errors = [{"line": error["index"] + 1, "field": error["field"], "reason": error["reason"]} for error in expected[3]]
    check_equal(lines.encode(), NDJSON, (*expected[:3], errors))


def check_one(text: str) -> None:
    """A single event: what the fast way reads, it reads as the schema does; it may leave anything to the schema."""
    fast = decode_one(text.encode())
    if fast is not None:
        loaded = EventSchema().load(load(text))
        assert fast == loaded
        assert math.copysign(1.0, fast["value"]) == math.copysign(1.0, loaded["value"])


def check_columns(rows: list[tuple[Any, Any]], shared: dict[str, str]) -> None:
    columns = {"timestamp": [row[0] for row in rows], "value": [row[1] for row in rows]}
    items = [{"timestamp": timestamp, "value": value, **shared} for timestamp, value in rows]
    check(json.dumps(shared | columns).encode(), JSON, [({"index": row}, item) for row, item in enumerate(items)])


def check_csv(body: str) -> None:
    """Against the csv module, row by row."""
    check(body.encode(), CSV, csv_items(body))


def csv_items(body: str) -> Iterator[tuple[dict[str, int], Any]]:
    reader = csv.reader(io.StringIO(body.removeprefix("\ufeff"), newline=""), strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        row = next(reader, None)
        if row is None:
            return
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if not header:
            header = row
        elif len(row) != len(header):
            yield {"line": line}, Unreadable(f"has {len(row)} fields where the header has {len(header)}")
        else:
            item: dict[str, Any] = dict(zip(header, row, strict=True))
            if not item.get("series", "x"):
                del item["series"]
            yield {"line": line}, item


# -- what is written -----------------------------------------------------------------------------------------------

ODD_TIMES: list[Any] = [
    "2025-11-21T24:00:00Z",
    "2025-11-21T24:00:00.000Z",
    "2025-02-29T00:00:00Z",
    "2024-02-29T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2000-02-29T00:00:00Z",
    "2025-11-31T00:00:00Z",
    "2025-00-10T00:00:00Z",
    "2025-13-10T00:00:00Z",
    "2025-11-00T00:00:00Z",
    "0000-11-21T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "2025-11-21T07:45:60Z",
    "2025-11-21T07:60:00Z",
    "2025-11-21T07:45:00z",
    "2025-11-21t07:45:00Z",
    "2025-11-21\n07:45:00Z",
    "2025-11-21T07:45:00,123Z",
    "2025-11-21T07:45:00.123456789Z",
    "2025-11-21T07:45:00.1234567890Z",
    "2025-11-21T07:45:00.",
    "2025-11-21T07:45:00+00:00",
    "2025-11-21T07:45:00-05:30",
    "2025-11-21T07:45:00,05:30",
    "2025-11-21T07:45:00+24:00",
    "2025-11-21T07:45:00+05:60",
    "2025-11-21T07:45:00+0530",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:00:00-14:00",
    "9999-12-31T24:00:00",
    "20251121T074500Z",
    "20251121",
    "2025-11-21",
    "2025-W47-5",
    "2025-325",
    "2025-11-21T07:45",
    "2025-1１-21T07:45:00Z",
    "٢٠٢٥-١١-٢١T٠٧:٤٥:٠٠Z",
    "\ud800" * 20,
    "1763711100",
    " 1763711100",
    "",
    "soon",
    None,
    True,
    [],
    {},
    -0.0,
    2**53 + 1,
    2**63,
    -(2**63),
    2**70,
    10**400,
    1e18,
    1e300,
    float("inf"),
    float("nan"),
    20_000_000_000,
    20_000_000_001,
    253_402_300_799,
    253_402_300_799_999,
    253_402_300_800_000,
    1.7976931348623157e308,
    -62_135_596_800_000,
    9007199254.740993,
    1763711100.1234565,
    1_763_711_100_123_456,
    1_763_711_100_123_456_789,
    1763711100123456789.0,
    20_000_000_000_000,
    20_000_000_000_001,
    20_000_000_000_000_000,
    20_000_000_000_000_001,
    253_402_300_799_999_999_999,
    253_402_300_800_000_000_000,
    -62_135_596_800_000_000_000,
    20261126,
    20261126.0,
    20261126.5,
    2026330,
    202611260745,
    20261126074500,
    20261126074500123,
    *["20261126", "20261399", "2026330", "20261126.0", "20261126.07", "202611260745", "20261126074500"],
    *["20261126074560", "20261126074500.5", "20261126074500123", "2025", "202511", "46352", "46352.144", "46352,144"],
    *["0", "-0", "-0.0", "00", "5", "5.", ".5", "1.", "-1.5", "+1763711100", "1.7e9", "1.7E9", "1.70000E+09", "1e400"],
    *[
        "1763711100123",
        "1763711100123456",
        "1763711100123456789",
        "9" * 18,
        "9" * 19,
        "9" * 21,
        "9" * 40,
        "-" + "9" * 18,
    ],
    *["20000000000", "20000000001", "20000000000001", "20000000000000001", "1763711100 ", "1763711100\n", "1,2"],
    *["1763711100.1234565", "1763711100.5", "99999999", "100000000", "19999999", "999999999999", "1000000000000"],
    *["now", "11/12/2026", "26.11.2026", "2016-12-31T23:59:60Z", "Fri, 21 Nov 2025 07:45:00 +0100"],
]
ODD_VALUES: list[Any] = [
    "3.5",
    "1_0",
    " 7 ",
    "-0",
    "-0.0",
    "٣",
    "1e5",
    "nan",
    "inf",
    "1e999",
    "",
    "x",
    "0x10",
    "1\x00",
    "\ud800",
    "1" * 400,
    None,
    True,
    False,
    [],
    {},
    -0.0,
    2**53 + 1,
    2**63 - 1,
    2**64 + 1,
    10**400,
    2**1024 - 2**970,
    2**1024 - 2**970 - 1,
    float("inf"),
    float("nan"),
    5e-324,
    1.7976931348623157e308,
]
ODD_SERIES: list[Any] = ["default", "é", "", "a b", "x" * 200, "x" * 201, "a\n", None, 7, "\ud800"]

MOMENT = "2025-11-21T07:45:00Z"
EVENT = '{"timestamp": 1, "value": 2}'

# Right in form; now and then in what it says, too.
iso_like = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.integers(0, 9999) | st.integers(2024, 2025),
    st.integers(0, 13),
    st.integers(0, 32),
    st.sampled_from("TTT t"),
    st.integers(0, 25),
    st.integers(0, 61),
    st.integers(0, 61),
    st.sampled_from(["", "", ".1", ".123", ".123456", ".123456789", ".12x", ",123"]),
    st.sampled_from(["", "Z", "Z", "+00:00", "-05:30", "+23:59", "+24:00", "+05:60", ",05:30", "+0530"]),
)
timestamps = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    iso_like,
    st.integers(-(10**16), 10**16) | st.integers(-(10**20), 10**21),
    st.floats(-1e11, 1e11) | st.floats(-1e20, 1e20),
    st.sampled_from(ODD_TIMES),
    written().map(lambda pair: pair[0]),
    refused,
)
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(ODD_VALUES),
)
series = st.sampled_from(["a", "b/1", "cpu.load:x=1@+-_"]) | st.sampled_from(ODD_SERIES)


def as_pairs(pairs: list[tuple[str, Any]]) -> str:
    """A JSON object with its keys as given, even twice."""
    return "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}"


pairs_of_event = st.fixed_dictionaries(
    {"timestamp": timestamps, "value": values}, optional={"series": series, "extra": st.just(1), "\ud800": st.just(1)}
).map(lambda item: as_pairs(list(item.items())))
texts_of_items = st.one_of(
    st.builds(lambda value: as_pairs([("timestamp", NOW), ("value", value)]), st.floats(-1e9, 1e9)),
    pairs_of_event,
    st.lists(
        st.one_of(
            st.tuples(st.just("timestamp"), timestamps),
            st.tuples(st.just("value"), values),
            st.tuples(st.just("series"), series),
        ),
        max_size=5,
    ).map(as_pairs),
    st.sampled_from(["{}", "[]", '"x"', "null", "7", "true", "NaN", '{"value": -0, "timestamp": -0}', "[[[{}]]]"]),
)


# -- the fast way against the twin ---------------------------------------------------------------------------------


@slow
@given(st.lists(texts_of_items, max_size=40))
@example([])
@example([as_pairs([("timestamp", time), ("value", 1)]) for time in ODD_TIMES])
@example([as_pairs([("timestamp", time), ("value", 1)]) for time in ODD_TIMES if isinstance(time, str)])
@example([as_pairs([("timestamp", NOW), ("value", value)]) for value in ODD_VALUES])
@example([as_pairs([("timestamp", 1), ("value", 1), ("series", name)]) for name in ODD_SERIES])
@example(["{}"] * 120 + [as_pairs([("timestamp", "soon"), ("value", None)])] * 120)
@example([as_pairs([("value", "x")]), as_pairs([("timestamp", 1), ("value", 1)])] * 150)
@example([as_pairs([("timestamp", 1)])] * 99 + ["{}", "{}"])
def test_json_and_ndjson_agree_with_the_schema(texts: list[str]) -> None:
    """An array, the same in `events`, and NDJSON take, refuse, name and round what the schema does, item by item."""
    check_json(texts)


@slow
@given(st.lists(st.tuples(timestamps, values), max_size=40), st.none() | st.sampled_from(["a", "b/1"]))
@example([(time, 1.0) for time in ODD_TIMES], None)
@example([(1, value) for value in ODD_VALUES], "a")
# Texts that make up the right number of characters, or of newlines, only together.
@example([(text, 1.0) for text in (MOMENT, f"{MOMENT}\n{MOMENT}", "", MOMENT[1:])], None)
@example([(text, 1.0) for text in (MOMENT, MOMENT + "0", MOMENT[1:])], None)
@example([(text, 1.0) for text in (MOMENT, MOMENT + "é", "é" + MOMENT)], None)
def test_columns_agree_with_the_schema(rows: list[tuple[Any, Any]], name: str | None) -> None:
    """Columns are the same events as rows, in one series."""
    check_columns(rows, {} if name is None else {"series": name})


@slow
@given(st.sampled_from([time for time in ODD_TIMES if isinstance(time, str)]) | iso_like, st.data())
def test_any_wrong_character_in_a_column_of_timestamps(form: str, data: st.DataObject) -> None:
    """In a column of one form, a text that differs from the others in any character is judged on its own."""
    rows = [form] * 5
    for row in range(data.draw(st.integers(0, 1)), 5):
        at = data.draw(st.integers(0, len(form)))
        rows[row] = form[:at] + data.draw(st.sampled_from("0123456789TZ:+-., \nx１")) + form[at + 1 :]
    check_columns([(text, 1.0) for text in rows], {})


@slow
@given(st.lists(written(), min_size=1, max_size=12))
def test_every_form_means_the_same_in_every_body(times: list[tuple[str, int]]) -> None:
    """A text is the microsecond it was written for, in an array, in NDJSON, CSV, columns, alone and in a query."""
    texts, meant = zip(*times, strict=True)
    expected = {"default": (list(meant), np.arange(float(len(meant))).tobytes())}
    events = [{"timestamp": text, "value": row} for row, text in enumerate(texts)]
    lines = "".join(f'"{text}",{row}\n' for row, text in enumerate(texts))
    bodies = [
        (json.dumps(events), JSON),
        (json.dumps({"timestamp": texts, "value": [*range(len(texts))]}), JSON),
        ("".join(json.dumps(event) + "\n" for event in events), NDJSON),
        (f"timestamp,value\n{lines}", CSV),
    ]
    if not any("," in text for text in texts):
        bodies.append((f"timestamp,value\n{lines}".replace('"', ""), CSV))
    for body, media_type in bodies:
        decoded = decode(body.encode(), media_type, max_events=100)
        assert (seen(decoded)[0], decoded.errors) == (expected, [])
    for text, us in times:
        event = decode_one(json.dumps({"timestamp": text, "value": 1.0}).encode())
        assert event is not None
        assert event["timestamp"] == us
        assert Instant().deserialize(text) == us
        assert Instant().deserialize(text.replace("+", " ")) == us or text.strip().startswith("+")


@slow
@given(moments, st.sampled_from(list(FORMS)), st.integers(1, 200))
def test_a_column_of_one_form(moment: Any, form: str, count: int) -> None:
    """Each row is the instant it was written for, also with more rows than are read one by one."""
    write, fine_us = FORMS[form]
    rows = [moment - timedelta(seconds=row * 1001, microseconds=row) for row in range(count)]
    meant = [us - us % fine_us for us in map(unix_us, rows)]
    texts = [write(row) for row in rows]
    decoded = decode(json.dumps({"timestamp": texts, "value": [0] * count}).encode(), JSON, max_events=count)
    assert decoded.batch.parts[0].ts_us.tolist() == meant
    decoded = decode(("timestamp,value\n" + "".join(f'"{text}",0\n' for text in texts)).encode(), CSV, max_events=count)
    assert decoded.batch.parts[0].ts_us.tolist() == meant


@slow
@given(moments, st.sampled_from(list(REFUSED_FORMS)))
def test_what_has_two_readings_is_refused_in_every_body(moment: Any, form: str) -> None:
    """It is refused for the same reason alone, in an array, in NDJSON, in CSV and in columns; in a query it is no
    instant either.
    """
    text = REFUSED_FORMS[form](moment)
    with pytest.raises(ValidationError) as refusal:
        SCHEMA.load({"timestamp": text, "value": 1})
    reason = refusal.value.messages_dict["timestamp"][0]
    event = json.dumps({"timestamp": text, "value": 1})
    for body, media_type in (
        (f"[{event}]", JSON),
        (json.dumps({"timestamp": [text], "value": [1]}), JSON),
        (event, NDJSON),
        (f'timestamp,value\n"{text}",1\n', CSV),
    ):
        (error,) = decode(body.encode(), media_type, max_events=1).errors
        assert (error["field"], error["reason"]) == ("timestamp", reason)
    assert decode_one(event.encode()) is None
    with pytest.raises(ValidationError):
        Instant().deserialize(text)


def test_the_forms_over_http(client: FlaskClient) -> None:
    """POST /event and all forms of POST /events take the forms with one reading and name what is wrong with others."""
    for text, meant in OTHER_FORMS.items():
        answer = client.post("/event", json={"timestamp": text, "value": 1}).json
        assert answer["received_timestamp"] == meant + "+00:00"
    texts = list(OTHER_FORMS)
    values = [*range(len(texts))]
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([("timestamp", "value"), *zip(texts, values, strict=True)])
    for body, media_type in (
        (json.dumps([{"timestamp": text, "value": 1} for text in texts]), JSON),
        (json.dumps({"timestamp": texts, "value": values}), JSON),
        ("".join(json.dumps({"timestamp": text, "value": 1}) + "\n" for text in texts), NDJSON),
        (lines.getvalue(), CSV),
    ):
        answer = client.post("/events", data=body, content_type=media_type).json
        assert answer["stored"] + answer["expired"] == len(texts)
    for text, reason in REFUSED.items():
        if len(text) >= EVENT_MAX_BYTES:
            continue
        problem = assert_problem(client.post("/event", json={"timestamp": text, "value": 1}), 422, "validation")
        assert reason in problem["errors"][0]["reason"]


@pytest.mark.parametrize(
    ("body", "media_type", "first_us", "count"),
    [
        # Nanoseconds as time.time_ns() has them, Java's ZonedDateTime, Go's time.Time, a cloud's export.
        (
            "".join(
                f'{{"timestamp": {1_763_711_000_000_000_000 + row * 1_000_000}, "value": 0.5}}\n' for row in range(100)
            ),
            NDJSON,
            1_763_711_000_000_000,
            100,
        ),
        (
            '{"timestamp": "2025-11-21T08:44:59.123+01:00[Europe/Paris]", "value": 1}\n'
            '{"timestamp": "2025-11-21T07:44:59.5Z[UTC]", "value": 2}\n',
            NDJSON,
            1_763_711_099_123_000,
            2,
        ),
        ('{"timestamp": "2025-11-21 07:44:59.26 +0000 UTC", "value": 1}\n', NDJSON, 1_763_711_099_260_000, 1),
        ("timestamp,value\n2025-11-21 07:40:00,41.9\n2025-11-21 07:44:59,49.7\n", CSV, 1_763_710_800_000_000, 2),
        ("timestamp,value\n20251121074400,1\n20251121074459,2\n", CSV, 1_763_711_040_000_000, 2),
        ("timestamp,value\n2025/11/21 07:44:00,1\n2025/11/21 7:44:59,2\n", CSV, 1_763_711_040_000_000, 2),
        ("timestamp,value\n1763711040000,1\n1763711099999,2\n", CSV, 1_763_711_040_000_000, 2),
        ("timestamp,value\n1763711040000000,1\n1763711099999999,2\n", CSV, 1_763_711_040_000_000, 2),
    ],
)
def test_files_as_others_write_them(client: FlaskClient, body: str, media_type: str, first_us: int, count: int) -> None:
    """A file as other programs write it is recorded as it is, and its events show in the window."""
    assert client.post("/events", data=body, content_type=media_type).json["stored"] == count
    assert client.get("/statistics").json["count"] == count
    assert client.get("/series").json["series"][0]["first"] == format_timestamp(first_us)


@pytest.mark.parametrize("days", ["46346.3229", "46346", "46346,3229", "45982.32"])
def test_a_spreadsheets_day_numbers_are_named(client: FlaskClient, days: str) -> None:
    """They are not taken for Unix seconds of 1970, where they would be lost: each line is refused, with the date that
    is meant.
    """
    body = f'timestamp,value\n"{days}",12.5\n"{days}",13.1\n'
    problem = assert_problem(client.post("/events", data=body, content_type=CSV), 422, "validation")
    assert problem["rejected"] == 2
    meant = "2026-11-20T" if days.startswith("46346") else "2025-11-21T07:40:48"
    assert "spreadsheet's day number" in problem["errors"][0]["reason"]
    assert meant in problem["errors"][0]["reason"]


@slow
@given(st.lists(st.integers(-(10**19), 10**19) | st.integers(-(2 * 10**10) - 9, 2 * 10**10 + 9), max_size=20))
def test_integer_timestamps_agree_with_the_schema(numbers: list[int]) -> None:
    """A column of integers alone is read as seconds or milliseconds, each by its own magnitude."""
    check_columns([(number, 1.0) for number in numbers], {})


@slow
@given(st.lists(st.floats(-3e14, 3e14) | st.floats(-3e10, 3e10), max_size=20), st.booleans())
def test_float_timestamps_agree_with_the_schema(numbers: list[float], mixed: bool) -> None:
    """A column of floats, with integers among them or not, rounds to the microsecond as the schema does."""
    check_columns([(int(number) if mixed and row % 2 else number, 1.0) for row, number in enumerate(numbers)], {})


@slow
@given(
    st.lists(
        st.one_of(
            texts_of_items,
            st.sampled_from(
                [
                    "",
                    "  \t",
                    "{",
                    "}",
                    '{"timestamp": 1',
                    '"value": 2}',
                    '{"timestamp": 1, "value": 1} {"timestamp": 1, "value": 1}',
                    '{"timestamp": 1, "value": 1}, {"timestamp": 1, "value": 1}',
                    '{"timestamp": 1, "value": 1},',
                    '  {"timestamp": 1, "value": 1}  ',
                    '{"timestamp": 1, "value": ' + "1" * 5000 + "}",
                    "[" * 100_000,
                    "[" * 50_000,
                    "\x0b",
                    "\x0c7",
                ]
            ),
        ),
        max_size=20,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\n\n"]),
    st.sampled_from(["", "\ufeff"]),
)
@example(['{"timestamp": 1,', '"value": 1}', f"{EVENT} {EVENT}"], "\n", "", "")
@example([EVENT + EVENT], "\n", "\n", "")
@example(["", EVENT + EVENT], "\n", "", "")
@example([EVENT, f"{EVENT}\r{EVENT}"], "\n", "", "")
@example([EVENT, f"{EVENT},{EVENT}", " " + EVENT], "\r\n", "\r\n", "\ufeff")
def test_ndjson_lines_stand_alone(texts: list[str], newline: str, end: str, mark: str) -> None:
    """A line is one item whatever the others are: blank ones are skipped, one that is no JSON is rejected alone."""

    def item(text: str) -> Any:
        if len(text) > EVENT_MAX_BYTES:
            return Unreadable("is longer than 65536 bytes, the most that an event may have")
        try:
            return load(text)
        except RecursionError:
            return Unreadable("is nested too deeply")
        except json.JSONDecodeError as error:
            return Unreadable(f"is not JSON: {error.msg} at column {error.colno}")
        except ValueError:
            return Unreadable("holds an integer of more than 4300 digits")

    body = mark + newline.join(texts) + end
    check(body.encode(), NDJSON, [({"line": line}, item(text)) for line, text in enumerate(texts, 1) if text.strip()])


field = st.one_of(
    st.datetimes().map(str),
    iso_like,
    st.integers(-(10**12), 10**12).map(str),
    st.floats().map(repr),
    st.sampled_from([str(odd) for odd in ODD_TIMES + ODD_VALUES + ODD_SERIES if "\ud800" not in str(odd)]),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(
        ["-0", "0", "0.0", "-1e2", "007", "+5", ".5", "5.", "1e400", "1" * 30, "-", "1,2", 'a"b', "[", "]"]
    ),
)


@slow
@given(
    st.permutations(["timestamp", "value", "series"]),
    st.booleans(),
    st.lists(
        st.one_of(
            st.tuples(field, field, field),
            st.tuples(st.just(NOW), st.floats(-1e9, 1e9).map(repr), st.sampled_from(["a", "b", ""])),
            st.lists(st.sampled_from(["", " ", "1"]), max_size=5).map(tuple),
        ),
        max_size=20,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["", "\ufeff"]),
)
def test_csv_agrees_with_the_schema(
    order: list[str], with_series: bool, rows: list[tuple[str, ...]], newline: str, quoting: Any, mark: str
) -> None:
    """CSV, in any order of columns, quoting and ends of line, is the same items with text for fields."""
    header = [name for name in order if with_series or name != "series"]
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator=newline, quoting=quoting)
    writer.writerow(header)
    for row in rows:
        by_name = dict(zip(("timestamp", "value", "series"), row, strict=False))
        writer.writerow([by_name[name] for name in header] if len(row) == 3 else row)
    body = mark + written.getvalue()
    check_csv(body)
    check_csv(body.rstrip("\r\n"))


@slow
@given(st.lists(st.sampled_from(["-0", "0", "0.0", "-0.0", "1", "-1e2", "2.5", "1e400", " 7", "[", "1_0"]), max_size=9))
def test_csv_numbers_agree_with_the_schema(fields: list[str]) -> None:
    """Values and timestamps that are numbers as text, down to the sign of zero."""
    check_csv("timestamp,value\n" + "".join(f"{text},{text}\n" for text in fields))
    check_csv("value,timestamp\n" + "".join(f"{text},{text}\n" for text in fields))


@pytest.mark.parametrize(
    "rows",
    [
        '1,"1,2"',
        '"1,2",1',
        '"1,2",1\n"[",1',
        "1,2,3\n4",
        "4\n1,2,3",
        "1,2\n,3,4\n5",
        "1,2\n\n \n3,4\n",
        "1,2\r3,4\r\n5,6",
        ' 1,2\n1 ,2\n"1 ",2\n"1\n",2',
        '"2025-11-21\n07:45:00",2\n"",""\n3,4',
        'a"b,2\n"a""b",2\n1,2',
        "1\x0b,2\x0c\n1\x1c,2\u2028\n1\x85,2",
        "1\x002,3",
        "007,007\n+5,+5\n.5,.5\n5.,5.\n1e3,1e3\n1E+3,1E+3\n-0,-0",
        "٣,٣",
        "1,2\n" + "1" * 5000 + ",3",
    ],
)
@pytest.mark.parametrize("header", ["timestamp,value", "value,timestamp", "series,value"])
def test_csv_small_print(header: str, rows: str) -> None:
    """Separators, blanks, quotes and spellings of numbers where they are not expected."""
    if header == "series,value":
        header, rows = "series,value,timestamp", rows.replace("\n", ",1\n") + ",1"
    for end in ("", "\n", "\r\n", "\n\n"):
        check_csv(f"{header}\n{rows}{end}")


@pytest.mark.slow
@pytest.mark.parametrize("odd", [0, 20])
@pytest.mark.parametrize("form", ["milliseconds", "isoformat", "seconds", "floats", "mixed"])
def test_ten_thousand_events(form: str, odd: int) -> None:
    """Large batches agree with the schema in every form, whether all is well or an odd item stands among thousands."""
    rng = random.Random(f"{form} {odd}")
    forms: dict[str, Any] = {
        "milliseconds": lambda us: f"{format_timestamp(us)[:19]}.{us // 1000 % 1000:03d}Z",
        "isoformat": format_timestamp,
        "seconds": lambda us: us // 1_000_000,
        "floats": lambda us: us / 1e6,
    }
    events: list[dict[str, Any]] = []
    for _ in range(10_000):
        written = forms[rng.choice(list(forms)) if form == "mixed" else form]
        ts_us = rng.choice([rng.randrange(-(10**15), 10**16), 1_763_711_100_000_000 + rng.randrange(3600) * 250_000])
        events.append({"timestamp": written(ts_us), "value": round(rng.lognormvariate(3, 2), rng.randrange(6))})
    for row, event in enumerate(events):
        event["series"] = f"s{row % 7}" if form == "floats" else f"s{rng.randrange(3000)}"
    for row in rng.sample(range(10_000), odd):
        name = rng.choice(["timestamp", "value", "series"])
        events[row][name] = rng.choice({"timestamp": ODD_TIMES, "value": ODD_VALUES, "series": ODD_SERIES}[name])
    check_json([json.dumps(event) for event in events])
    rows = [(event["timestamp"], event["value"]) for event in events]
    check_columns(rows, {"series": "a"})
    written_csv = io.StringIO(newline="")
    writer = csv.writer(written_csv, lineterminator="\n")
    writer.writerow(("series", "timestamp", "value"))
    texts = [[str(event[name]) for name in ("series", "timestamp", "value")] for event in events]
    writer.writerows([row for row in texts if "\ud800" not in "".join(row)])
    check_csv(written_csv.getvalue())


@pytest.mark.slow
def test_many_series_keep_their_order() -> None:
    """Series come in the order they first appear, the events of each in order of arrival, beyond 65,536 series too."""
    count = 70_000
    names = [f"s{row % count}" for row in range(count + 1000)]
    rows = "".join(f"{1_763_711_100 + row},{row},{name}\n" for row, name in enumerate(names))
    decoded = decode(b"timestamp,value,series\n" + rows.encode(), CSV, max_events=100_000)
    assert [part.series for part in decoded.batch.parts] == names[:count]
    assert decoded.batch.parts[5].values.tolist() == [5.0, 5.0 + count]
    assert len(decoded.batch) == count + 1000


# -- small print ---------------------------------------------------------------------------------------------------


def test_csv_numbers_are_unix_seconds() -> None:
    """A timestamp field that is a plain number means what the same JSON number means; an empty series is `default`."""
    body = "\ufefftimestamp,value,series\r\n1763711100,1,\r\n\r\n1763711100.5,2,a\r\n1763711100123,3,"
    decoded = decode(body.encode(), CSV, max_events=3)
    assert [(part.series, part.ts_us.tolist(), part.values.tolist()) for part in decoded.batch.parts] == [
        ("default", [1_763_711_100_000_000, 1_763_711_100_123_000], [1.0, 3.0]),
        ("a", [1_763_711_100_500_000], [2.0]),
    ]


@pytest.mark.parametrize(
    "media_type",
    ["", "application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"],
)
def test_media_types_of_json(media_type: str) -> None:
    """No media type at all, and any +json, count as JSON."""
    assert decode(b'\n [{"timestamp": 1, "value": 2}]', media_type, max_events=1).received == 1


@pytest.mark.parametrize("media_type", ["application/x-ndjson", "application/ndjson", "application/jsonl"])
def test_media_types_of_ndjson(media_type: str) -> None:
    """NDJSON goes by several names."""
    assert decode(b'{"timestamp": 1, "value": 2}', media_type, max_events=1).received == 1


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"[]", JSON),
        (b'{"events": []}', JSON),
        (b'{"timestamp": [], "value": []}', JSON),
        (b"", NDJSON),
        (b"\n \n", NDJSON),
        (b"timestamp,value", CSV),
        (b"\n timestamp , value \n\n", CSV),
    ],
)
def test_no_events_is_a_batch_of_none(body: bytes, media_type: str) -> None:
    """An empty batch is a batch."""
    decoded = decode(body, media_type, max_events=0)
    assert seen(decoded) == ({}, 0, 0, [])


@pytest.mark.parametrize(
    ("body", "media_type", "said"),
    [
        (b"", JSON, "empty"),
        (b"  \n", JSON, "empty"),
        (b"[", JSON, "not JSON"),
        (b'{"events": [}', JSON, "not JSON"),
        (b'[{"timestamp": 1, "value": 1},]', JSON, "not JSON"),
        (b"[]x", JSON, "not JSON"),
        (b"[" * 100_000, JSON, "nested"),
        (b"[" * 101 + b"]" * 101, JSON, "nested"),
        (b'[{"timestamp": 1, "value": 1}}', JSON, "Unexpected }"),
        (b'{"timestamp": [1}, "value": [1]}', JSON, "not JSON"),
        (b'{"timestamp": [1], "value": [1] 2}', JSON, "Extra data at line 1 column 33"),
        (b'{"timestamp": [1,], "value": [1, 2]}', JSON, "index 1"),
        (b'{"timestamp" [1]}', JSON, "not JSON"),
        (b'[{"timestamp": 1, "value": 1}\n, {"timestamp": 1 "value": 1}]', JSON, "index 1"),
        (b'{"events":' * 100_000, JSON, "nested"),
        (b"\xff", JSON, "UTF-8"),
        (b'[{"timestamp": "\xff", "value": 1}]', JSON, "UTF-8: invalid start byte at byte 16"),
        (b'[{"timestamp": 1, "value": ' + b"1" * 5000 + b"}]", JSON, "digits"),
        (b"timestamp,value\n1,\xff\n", CSV, "UTF-8: invalid start byte at byte 18"),
        (b'timestamp,value\n1,2\n"1,3\n1,4\n', CSV, "line 3"),
        (b'timestamp,value\n1,"2"3\n', CSV, "line 2"),
    ],
)
def test_bodies_that_cannot_be_read(body: bytes, media_type: str, said: str) -> None:
    """What is malformed as a whole is a 400 that says how."""
    with pytest.raises(BadRequest, match=re.escape(said)):
        decode(body, media_type, max_events=5)


@pytest.mark.parametrize(
    ("body", "media_type", "fields"),
    [
        (b"7", JSON, ["_schema"]),
        (b"null", JSON, ["_schema"]),
        (b'"[]"', JSON, ["_schema"]),
        (b"{}", JSON, ["_schema"]),
        (b'{"events": 7}', JSON, ["events"]),
        (b'{"events": null}', JSON, ["events"]),
        (b'{"events": [], "more": 1}', JSON, ["more"]),
        (b'{"events": [], "series": "a"}', JSON, ["series"]),
        (b'{"events": [], "series": "default"}', JSON, ["series"]),
        (b'{"events": [], "value": []}', JSON, ["value"]),
        (b'{"items": [], "more": 1}', JSON, ["items", "more"]),
        (b'{"series": "a"}', JSON, ["timestamp", "value"]),
        (b'{"timestamp": []}', JSON, ["value"]),
        (b'{"timestamp": 1, "value": 1}', JSON, ["timestamp", "value"]),
        (b'{"timestamp": [1], "value": [1, 2]}', JSON, ["value"]),
        (b'{"timestamp": [], "value": [], "series": "a;b"}', JSON, ["series"]),
        (b'{"timestamp": [], "value": [], "series": null}', JSON, ["series"]),
        (b'{"timestamp": [], "value": [], "unit": "ms"}', JSON, ["unit"]),
        (b'{"timestamp": [], "value": [], "\\ud800": 1}', JSON, ["\ud800"]),
        (b"", CSV, ["timestamp", "value"]),
        (b"\n\n", CSV, ["timestamp", "value"]),
        (b"timestamp\n1\n", CSV, ["value"]),
        (b",timestamp,value\n", CSV, ["column 1"]),
        (b'timestamp,value,"weight"\n', CSV, ["weight"]),
        (b"timestamp,value,value\n", CSV, ["value"]),
        (b"Timestamp,value\n", CSV, ["Timestamp", "timestamp"]),
        (b"2025-11-21,1\n", CSV, ["_schema"]),
    ],
)
def test_what_is_no_batch_is_named(body: bytes, media_type: str, fields: list[str]) -> None:
    """A document that is no batch at all is a 422 that names the field, the column or the shape."""
    with pytest.raises(ValidationError) as refused:
        decode(body, media_type, max_events=5)
    messages = refused.value.messages
    if isinstance(messages, list):
        messages = {"_schema": messages}
    assert sorted(messages) == fields
    assert all(all(reasons) for reasons in messages.values())


@pytest.mark.parametrize(
    "media_type", ["text/html", "application/x-www-form-urlencoded", "text/plain", "application/xml"]
)
def test_other_media_types(media_type: str) -> None:
    """Another media type is a 415 that names what is taken."""
    with pytest.raises(UnsupportedMediaType) as refused:
        decode(b"[]", media_type, max_events=5)
    assert all(name in str(refused.value) for name in (JSON, NDJSON, CSV, media_type))


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (f"[{', '.join([EVENT] * 7)}]", JSON),
        (f"[{', '.join(['{}'] * 7)}]", JSON),
        (f'{{"events": [{", ".join([EVENT] * 7)}]}}', JSON),
        ('{"timestamp": [1, 2, 3, 4, 5, 6, 7], "value": [1, 2, 3, 4, 5, 6, 7]}', JSON),
        ('{"timestamp": [1, 2, 3, 4, 5, 6, 7], "value": [1, 2, 3, 4, 5, 6, null]}', JSON),
        (f"{EVENT}\n" * 7, NDJSON),
        (f"{EVENT}\n\n{{\n" * 3 + "7", NDJSON),
        ("timestamp,value\n" + "1,2\n" * 7, CSV),
        ("timestamp,value\n" + '1,2\n\n"1",2\n1\n' * 2 + "1,2", CSV),
    ],
)
def test_too_many_events(body: str, media_type: str) -> None:
    """More events than the limit, rejected ones counted too, are a 413 that says how many, if known, and the limit."""
    with pytest.raises(RequestEntityTooLarge, match=r"^413 .*: (7|More than 6) events .* at most 6"):
        decode(body.encode(), media_type, max_events=6)
    assert decode(body.encode(), media_type, max_events=7).received == 7


@pytest.mark.parametrize("item", [b"{}", b"[]"])
def test_brackets_beyond_number(item: bytes) -> None:
    """Hundreds of thousands of empty items are refused before they fill the memory."""
    with pytest.raises(RequestEntityTooLarge, match="More than 100000 events"):
        decode(b"[" + b",".join([item] * 300_000) + b"]", JSON, max_events=100_000)


def test_named_errors_are_bounded() -> None:
    """All rejected items are counted, the first hundred reasons named."""
    decoded = decode(b"[" + b"{}," * 4999 + b'{"timestamp": "x", "value": 1}]', JSON, max_events=5000)
    assert (decoded.received, decoded.rejected, len(decoded.errors)) == (5000, 5000, ERRORS_NAMED_MAX)
    assert [(error["index"], error["field"]) for error in decoded.errors[-2:]] == [(49, "timestamp"), (49, "value")]


# -- Content-Encoding ----------------------------------------------------------------------------------------------

DATA = random.Random(5).randbytes(100_000) + b"x" * 200_000


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
def test_what_is_not_packed(encoding: str | None) -> None:
    """Without an encoding the body is what it is, within the limit."""
    assert unpack(DATA, encoding, len(DATA)) == DATA
    with pytest.raises(RequestEntityTooLarge):
        unpack(DATA, encoding, len(DATA) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_gzip(encoding: str) -> None:
    """gzip is unpacked within the limit to the byte, of one member, of many, of empty ones."""
    for body in (gzip.compress(DATA), gzip.compress(DATA[:70_000]) + gzip.compress(b"") + gzip.compress(DATA[70_000:])):
        assert unpack(body, encoding, len(DATA)) == DATA
        with pytest.raises(RequestEntityTooLarge):
            unpack(body, encoding, len(DATA) - 1)
    assert unpack(gzip.compress(b""), encoding, 0) == b""


PACKED = gzip.compress(DATA, mtime=0)  # the same for every worker that runs tests


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        PACKED[:5],
        PACKED[:-9],
        PACKED[:-1],
        PACKED[:-8] + bytes(8),
        PACKED[:50_000] + b"zzzz" + PACKED[50_004:],
        PACKED + b"more",
        PACKED + PACKED[:-1],
        zlib.compress(DATA),
        gzip.compress(b"", mtime=0) * 1001,
    ],
)
def test_broken_gzip(body: bytes) -> None:
    """A cut, a changed or a padded stream is a 400, whatever could be read of it; so are members beyond number."""
    with pytest.raises(BadRequest):
        unpack(body, "gzip", 10**6)


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "identity, gzip"])
def test_other_encodings(encoding: str) -> None:
    """Another encoding is a 415 that names the one taken."""
    with pytest.raises(UnsupportedMediaType, match="gzip"):
        unpack(PACKED, encoding, 10**6)


def test_a_bomb_is_not_unpacked() -> None:
    """A body that would unpack to 256 MiB is refused with little more than the limit ever held."""
    bomb = gzip.compress(bytes(2**26)) * 4
    tracemalloc.start()
    try:
        with pytest.raises(RequestEntityTooLarge):
            unpack(bomb, "gzip", 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 2**19
    finally:
        tracemalloc.stop()


# -- over HTTP -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 100_000, 300_000])
def test_gzip_members_longer_than_a_step(size: int) -> None:
    """Each member counts once, also where one takes several steps to inflate: it used to be read again for ever."""
    members = [bytes([65 + i]) * size for i in range(3)]
    assert unpack(b"".join(map(gzip.compress, members)), "gzip", 10**6) == b"".join(members)


# -- what a hostile body may cost ----------------------------------------------------------------------------------

MIB = 1 << 20
N = 100_000


def repeated(item: str, count: int = N) -> bytes:
    return ("[" + ",".join([item] * count) + "]").encode()


def numbered(form: str, count: int = N) -> bytes:
    return ("[" + ",".join(form % i for i in range(count)) + "]").encode()


MANY_TAGS = b'"tags":{%s},' % b",".join(b'"k%d":"v"' % i for i in range(200_000))

HOSTILE: list[tuple[bytes, str, int]] = [
    (b"{" + MANY_TAGS + b'"timestamp":[1],"value":[1]}', JSON, 422),
    (b"[{" + MANY_TAGS + b'"timestamp":1,"value":1}]', JSON, 422),
    (b'[{"timestamp":1,"value":1},{' + MANY_TAGS + b'"timestamp":1,"value":1}]', JSON, 422),
    (b'{"events":[{' + MANY_TAGS + b'"timestamp":1,"value":1}]}', JSON, 422),
    (b"{" + MANY_TAGS + b'"timestamp":1,"value":1}\n', NDJSON, 422),
    (b"[" + b"[]," * (4 * MIB // 3) + b"1]", JSON, 413),
    (b"[" + b"{}," * (4 * MIB // 3) + b"1]", JSON, 413),
    (b"[" + b"," * 4 * MIB + b"]", JSON, 413),
    (b"[" + b"1" * 4 * MIB + b"]", JSON, 422),
    (b'["' + b"\\" * 4 * MIB + b'"]', JSON, 422),
    (b"[" * 4 * MIB, JSON, 400),
    (b'{"a":' * MIB, JSON, 400),
    (b'{"' + b"k" * 4 * MIB + b'":1}', JSON, 400),
    (b"{" + b",".join(b'"%07x":1' % i for i in range(400_000)) + b"}", JSON, 422),
    (b'{"events":[' + b"[]," * (4 * MIB // 3) + b"1]}", JSON, 413),
    (b'{"value":[1],"timestamp":[' + b"1," * (2 * MIB) + b"1]}", JSON, 413),
    (b'{"value":[1],"timestamp":[[' + b"[]," * (MIB // 3) + b"1]]}", JSON, 422),
    (b"[" + b",".join([b"[" + b"[]," * 21_000 + b"1]"] * 64) + b"]", JSON, 413),
    (b"[" + b"[]," * (4 * MIB // 3) + b"1]", NDJSON, 422),
    ((b"[" + b"[]," * 21_000 + b"1]\n") * 64, NDJSON, 413),
    (b"\n" * 4 * MIB, NDJSON, 413),
    (b"\n" * 4 * MIB, CSV, 413),
    (b"\r" * 4 * MIB, CSV, 413),
    (b"timestamp,value\n" + b"1," * 2 * MIB, CSV, 422),
    (b"timestamp," * (4 * MIB // 10), CSV, 400),
    (b"timestamp,value\n" + b'"' * 4 * MIB, CSV, 400),
    (b"timestamp,value\n" + b'""\n' * MIB, CSV, 413),
    (b'timestamp,value\n"' + b"a\n" * 90_000, CSV, 400),
    (b"timestamp,value\n" + b"1,2\n" * MIB, CSV, 413),
    (b"timestamp,value\n1," + b"1" * 4 * MIB, CSV, 422),
    (b"timestamp,value,series\n" + ("1,2," + "\U0001f600" * 300 + "\n").encode() * 3400, CSV, 422),
]  # fmt: skip


@pytest.mark.parametrize(("body", "media_type", "status"), HOSTILE)
def test_a_hostile_body_is_refused_before_it_costs(
    client: FlaskClient, body: bytes, media_type: str, status: int
) -> None:
    """Each is refused within 8 times its size in memory, and the standard parser never sees more than one event's
    worth of it.
    """
    seen_bytes: list[int] = []

    def loads(text: str) -> Any:
        seen_bytes.append(len(text.encode("utf-8", "replace")))
        return json.JSONDecoder().decode(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json, "loads", loads)
        patch.setattr("statsapi.api.body_text._DECODER", SimpleNamespace(decode=loads))
        tracemalloc.start()
        try:
            response = client.post("/events", data=body, content_type=media_type)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert response.status_code == status
    assert len(response.data) < 100_000
    assert max(seen_bytes, default=0) <= EVENT_MAX_BYTES
    assert peak < 8 * len(body)


TAGGED_NAMES = [f"m;z={i};y={i};" + ";".join(f"t{j}=1" for j in range(11)) for i in range(20_000)]


@pytest.mark.parametrize(
    ("path", "body", "media_type"),
    [
        ("/events", "timestamp,value,series\n" + "".join(f"1,1,{name}\n" for name in TAGGED_NAMES), CSV),
        ("/events?timestamp=t&series=s&value=v", "t,v,s\n" + "".join(f"1,1,{name}\n" for name in TAGGED_NAMES), CSV),
        ("/events", json.dumps([{"timestamp": 1, "value": 1, "series": name} for name in TAGGED_NAMES]), JSON),
    ],
    ids=["CSV", "mapped CSV", "JSON"],
)
def test_tags_within_names_count_as_those_beside_them(
    client: FlaskClient, path: str, body: str, media_type: str
) -> None:
    """A body of different series with more than 200,000 tags together is refused, wherever the tags are written."""
    response = client.post(path, data=body, content_type=media_type)
    assert response.status_code == 413
    assert re.search(r"have 2[68]0,000 tags together", response.get_json()["detail"])


@pytest.mark.slow
def test_timestamps_in_rare_forms_are_bounded() -> None:
    """Up to a limit different ones are read one by one, and equal ones once; more are too large a request."""
    most = timestamps_module.RARE_TIMES_MAX
    form = '{"timestamp":"Fri, 21 Nov 2025 %02d:%02d:%02d +0000","value":1}'

    def body(count: int) -> bytes:
        times = [form % (i // 3600, i // 60 % 60, i % 60) for i in range(count)]  # within a day
        return ("[" + ",".join(times * 2) + "]").encode()

    assert len(decode(body(most), JSON, max_events=N).batch) == 2 * most
    with pytest.raises(RequestEntityTooLarge, match=f"More than {most} different timestamps.*send fewer"):
        decode(body(most + 1), JSON, max_events=N)
    times = [f"2025-11-21 {i // 3600:02}:{i // 60 % 60:02}" for i in range(0, 86_400, 60)] * 30
    assert len(decode(json.dumps({"timestamp": times, "value": [1] * len(times)}).encode(), JSON, max_events=N).batch)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["[{}]", '{{"events":[{}]}}'])
def test_items_that_are_read_one_by_one_are_bounded(form: str) -> None:
    """Up to a limit, events with a field given twice are refused by name; with one more the request is too large."""
    most = rows._ODD_MAX
    twice = '{"value":null,"timestamp":1763711100,"value":1}'
    for separator, whole, media_type in ((",", form, JSON), ("\n", "{}", NDJSON)):
        taken = whole.format(separator.join([twice] * most)).encode()
        assert decode(taken, media_type, max_events=N).rejected == most
        with pytest.raises(RequestEntityTooLarge, match=r"More than 60,000 items.*send fewer"):
            decode(whole.format(separator.join([twice] * (most + 1))).encode(), media_type, max_events=N)


ALONE = '"timestamp": "2025-11-20T07:45:00", "value": 1'
TWICE = [
    *[
        (f'{{"value": {first}, "timestamp": "2025-11-20T07:45:00", "value": 1, "series": "s"}}', "value")
        for first in ("1", "2.5", "null", "NaN", '"soon"', "[]", "{}", "1e999")
    ],
    (f'{{{ALONE}, "timestamp": 1}}', "timestamp"),
    (f'{{{ALONE}, "timesta\\u006dp": 1}}', "timestamp"),
    (f'{{"series": "a", {ALONE}, "series": "b"}}', "series"),
    (f'{{"series": "default", {ALONE}, "series": "default"}}', "series"),
    (f'{{"series": "a, b", {ALONE}, "s\\u0065ries": "a\\u002c"}}', "series"),
    (f'{{{ALONE} ,"value" :2}}', "value"),
    (f'{{{ALONE}, "tags": {{"a": 1}}, "tags": {{"b": 2}}}}', "tags"),
    (f'{{{ALONE}, "tags": {{"a": 1, "a": 2}}}}', "tags"),
    (f'{{{ALONE}, "tags": {{"a": "x", "b": "1,2", "\\u0061": "x"}}}}', "tags"),
    (f'{{{ALONE}, "series": "s", "tags": {{"a,": 1, "b": 2, "b": 2}}}}', "tags"),
]
# Beside it: events that have as many commas, and whatever else may hide one more.
BESIDE = [
    [f"{{{ALONE}}}"],
    [f'{{{ALONE}, "series": "s"}}'],
    [f'{{{ALONE}, "series": "default"}}', f"{{{ALONE}}}"],
    [f'{{{ALONE}, "series": "a,b"}}', f"{{{ALONE}}}"],
    [f'{{{ALONE}, "series": "a\\u002cb"}}', '{"timestamp": "Fri, 21 Nov 2025 07:45:00 +0000", "value": 1}'],
    [f'{{{ALONE}, "series": "value"}}', f'{{{ALONE}, "series": "timestamp"}}'],
    [f'{{{ALONE}, "tags": {{"value": 1, "b": "c"}}}}', f"{{{ALONE}}}"],
    ["{}", '{"timestamp": 1}', "null"],
]


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize(("text", "field"), TWICE)
def test_a_member_given_twice_is_refused_by_name(shared_client: FlaskClient, text: str, field: str) -> None:
    """It has two readings: alone, in an array, in `events` and in NDJSON, whatever and how much stands beside it."""
    problem = assert_problem(shared_client.post("/event", data=text, content_type=JSON), 422, "validation")
    assert [error["field"] for error in problem["errors"]] == [field]
    assert "twice: keep one of them" in problem["errors"][0]["reason"]
    assert decode_one(text.encode()) is None
    for beside in BESIDE:
        for times in (0, 1, 40, 130):
            texts = [*beside * times, text, *beside[::-1] * times]
            at = len(beside) * times
            array = ",".join(texts)
            for body, media_type, place in (
                (f"[{array}]", JSON, {"index": at}),
                (f'{{"events": [{array}]}}', JSON, {"index": at}),
                (f'{{"next": null, "events": [{array}]}}', JSON, {"index": at}),
                ("\n".join(texts), NDJSON, {"line": at + 1}),
            ):
                decoded = decode(body.encode(), media_type, max_events=N)
                bad = 0 if beside[0] != "{}" else 2 * times * len(beside)
                assert (decoded.received, decoded.rejected) == (len(texts), bad + 1)
                if not bad:
                    assert decoded.errors[0] | place | {"field": field} == decoded.errors[0]
                    assert "twice: keep one of them" in decoded.errors[0]["reason"]


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    *('"timestamp": 1', '"timestamp": "Fri, 21 Nov 2025 07:45:00 +0000"', '"value": 1', '"value":2'),
                    *('"series": "a"', '"series": "default"', '"series":"a,b"', '"value" : 3'),
                    *('"s\\u0065ries": "a\\u002c"', '"tags": {}', '"tags": {"a": 1, "b": 2}'),
                    *('"tags": {"a": 1, "a": 1}', '"tags": {"a": "1,2"}'),
                ]
            ),
            min_size=2,
            max_size=4,
        ).map(lambda members: "{" + ", ".join(members) + "}"),
        max_size=6,
    )
)
def test_members_are_counted_as_a_parser_counts_them(texts: list[str]) -> None:
    """Of any events those are good that have each member once, in every form."""
    loaded = [load(text) for text in texts]
    good = [
        isinstance(item, dict) and {"timestamp", "value"} <= item.keys() and not isinstance(item.get("tags"), Doubled)
        for item in loaded
    ]
    expected = [at for at, is_good in enumerate(good) if not is_good]
    for text, is_good in zip(texts, good, strict=True):
        assert is_good or decode_one(text.encode()) is None
    array = ",".join(texts)
    for body, media_type in ((f"[{array}]", JSON), (f'{{"events":[{array}]}}', JSON), ("\n".join(texts), NDJSON)):
        decoded = decode(body.encode(), media_type, max_events=N)
        assert (decoded.received, decoded.rejected) == (len(texts), len(expected))
        found = {error["line"] - 1 if "line" in error else error["index"] for error in decoded.errors}
        assert sorted(found) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"events": [], "events": [EVENT]}', "events"),
        ('{"events": [EVENT], "events": [EVENT]}', "events"),
        ('{"next": null, "events": [EVENT], "next": null}', "next"),
        ('{"series": "a", "series": "b", "timestamp": [1], "value": [1]}', "series"),
        ('{"series": "a", "timestamp": [1], "series": "a", "value": [1]}', "series"),
        ('{"timestamp": [1], "value": [1], "timestamp": [2]}', "timestamp"),
        ('{"timestamp": [1, 2], "value": [1], "value": [1, 2]}', "value"),
        ('{"timestamp": [1], "value": [1], "value": [2], "series": "a,b"}', "value"),
        ('{"timestamp": [1], "value": [], "value": [2]}', "value"),
        ('{"timestamp": [1], "value": [1], "tags": {"a": 1}, "tags": {"a": 1}}', "tags"),
        ('{"timestamp": [1], "value": [1], "tags": {"a": 1, "a": 2}}', "tags"),
        ('{"timestamp": ["a]"], "value": [1], "series": "]", "s\\u0065ries": "["}', "series"),
        ('{"series": "a", "timestamp": [1], "series": "]", "value": [1]}', "series"),
        ('{"series": "a", "timestamp": [1], "value": [1], "series": "]"}', "series"),
        ('{"value": [1], "timestamp": [1], "tags": {"a": "b"}, "series": "b", "tags": {"a": "],,,"}}', "tags"),
    ],
)
def test_a_member_of_the_whole_body_given_twice_is_refused_by_name(client: FlaskClient, body: str, field: str) -> None:
    """A second `events`, or a second column of one name, gives the body two readings."""
    problem = assert_problem(
        client.post("/events", data=body.replace("EVENT", EVENT), content_type=JSON), 422, "validation"
    )
    assert problem["errors"][0]["field"] == field
    assert "twice: keep one of them" in problem["errors"][0]["reason"]


@pytest.mark.parametrize("times", [1, 200])
@pytest.mark.parametrize(
    ("good", "twice", "field"),
    [
        ('{"t": 1, "v": 2}', '{"t": 1, "v": 2, "v": 3}', "v"),
        ('{"t": 1, "v": 2}', '{"t": 1, "v": 2, "t": 1}', "t"),
        ('{"t": 1, "v": 2, "x": "v"}', '{"t": 1, "v": 2, "v": 3, "x": 1}', "v"),
        ('{"t": 1, "v": 2, "x": 1}', '{"t": 1, "v": 2, "\\u0076": 3, "x": 1}', "v"),
        ('{"t": 1, "v": 2}\n{"t": 1, "v": 2, "x": "a, b"}', '{"t": 1, "v": 2, "v": null}', "v"),
        ('{"t": 1, "v": 2, "s": "a"}\n{"t": 1, "v": 2}', '{"t": 1, "v": 2, "s": "a", "s": "b"}', "s"),
        ('{"t": 1, "v": 2, "s": "a"}\n{"t": 1, "v": 2, "s": null}', '{"t": 1, "v": 2, "s": "a", "s": null}', "s"),
        # As many commas as the others have, or all lines together need.
        ('{"t": 1, "v": 2, "x": 1}', '{"t": 1, "v": 5, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": 1}', '{"t": 1, "\\u0076": 5, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": 1}\n{"t": 1, "v": 2, "x": 1, "y": 2}', '{"t": 1, "v": 5, "v": 2, "t": 1}', "t"),
        ('{"t": 1, "v": 2, "x": "a,b"}', '{"t": 1, "v": 5, "x": 1, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": [1, 2]}', '{"t": 1, "v": 5, "x": 1, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": {"v": 1}}', '{"t": 1, "v": 5, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": {"v": 1, "y": 1}}', '{"t": 1, "v": 5, "x": 1, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": "v"}', '{"t": 1, "v": 5, "v": 2}', "v"),
        ('{"t": 1, "v": 2, "x": 1}\n{"t": 1, "v": 2, "s": null}', '{"t": 1, "v": 2, "s": null, "s": "a"}', "s"),
        ('{"t": 1, "v": 2, "\\u002c": 1}', '{"t": 1, "v": 5, "v": 2, ",": 1}', "v"),
    ],
)
def test_a_named_member_given_twice_is_refused(good: str, twice: str, field: str, times: int) -> None:
    """In NDJSON with other names too; a member that the query does not name may be there as often as it likes."""
    mapping = ColumnMapping(timestamp="t", values=("v",), series="s")
    lines = [*good.split("\n") * times, twice, *good.split("\n") * times]
    decoded = decode("\n".join(lines).encode(), NDJSON, max_events=N, mapping=mapping)
    assert (decoded.received, decoded.rejected) == (len(lines), 1)
    place = {"line": 1 + len(lines) // 2, "field": field, "reason": "is given twice: keep one of them"}
    assert decoded.errors == [place]
    lines = ['{"t": 1, "v": 2, "x": 1, "x": 2}'] * times + ['{"t": 1, "v": 2, "x": {"a": 1, "a": 1}}']
    decoded = decode("\n".join(lines).encode(), NDJSON, max_events=N, mapping=mapping)
    assert (decoded.received, decoded.rejected) == (len(lines), 0)


MEMBERS = [
    *('"t": 1', '"t":2', '"v": 1', '"v" :2', '"v": null', '"\\u0076": 3', '"s": "a"', '"s": null', '"s": "t"'),
    *('"x": 1', '"x": "v"', '"x": {"v": 1}', '"x": [{"v": 1}, 2]', '"y": "a,b"', '"y": "\\",\\"v\\": 1"', '"y": null'),
    *('"a,b": 1', '"a\\u002cb": {}', '"": ""', '"v,": {"s": "s", "t": [1, "v", {}]}', '"y": "\\u00e4"', '"x:": ":"'),
]


@pytest.mark.parametrize("few", [0, rows.FEW_BYTES])
@given(
    st.lists(st.lists(st.sampled_from(MEMBERS), max_size=5), min_size=1, max_size=5),
    st.sampled_from([(0, 0), (1, 0), (0, 1), (30, 30)]),
    st.lists(st.sampled_from(MEMBERS[9:]), max_size=2),
)
def test_named_members_are_counted_as_a_parser_counts_them(
    few: int, lines: list[list[str]], beside: tuple[int, int], others: list[str]
) -> None:
    """A line is refused as ambiguous exactly where a member that the mapping names is in it twice, whatever is beside:
    in texts, nested, under an escaped name; and as many commas missing elsewhere. Good lines count as they say.
    """
    usual = ['"t": 1', '"v": 4', *others]
    texts = ["{" + ", ".join(line) + "}" for line in [usual] * beside[0] + lines + [usual] * beside[1]]
    bad, values = {}, []
    for number, text in enumerate(texts, 1):
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
        given_names = [name for name, _ in pairs]
        doubled = sorted(name for name in "tvs" if given_names.count(name) > 1)
        item = dict(pairs)
        if doubled:
            bad[number] = doubled[0]
        elif item.get("t") is None or item.get("v") is None:
            bad[number] = None
        else:
            values.append((item.get("s") or "default", float(item["v"])))
    mapping = ColumnMapping(timestamp="t", values=("v",), series="s")
    with patch.object(ndjson_reader, "FEW_BYTES", few):
        decoded = decode("\n".join(texts).encode(), NDJSON, max_events=N, mapping=mapping)
    assert (decoded.received, decoded.rejected) == (len(texts), len(bad))
    twice = {error["line"]: error["field"] for error in decoded.errors if "twice" in error["reason"]}
    assert twice == {number: name for number, name in bad.items() if name is not None}
    found = [(part.series, value) for part in decoded.batch.parts for value in part.values.tolist()]
    assert sorted(found) == sorted(values)


@pytest.mark.slow
def test_many_series_of_odd_items_take_linear_time() -> None:
    """Names of series in items that have to be read one by one are numbered, not searched for."""
    body = numbered('{"\\u0076alue": 1, "timestamp": 1, "series": "s%d"}', 30_000)[:-1] + b',{"\\u0076alue": NaN}]'
    decoded = decode(body, JSON, max_events=N)
    assert [part.series for part in decoded.batch.parts[:3]] == ["s0", "s1", "s2"]
    assert len(decoded.batch.parts) == 30_000


def test_no_line_is_longer_than_an_event() -> None:
    """An event of just 64 KiB is taken in each form; with a byte more it is named, and its neighbours are taken."""
    for more, rejected in ((0, 0), (1, 1)):
        digits = EVENT_MAX_BYTES - len('{"timestamp":1,"value":"1."}') + more
        line = '{"timestamp":1,"value":"1.' + "0" * digits + '"}'
        for body, media_type in ((f"{EVENT}\n{line}\n{EVENT}\n", NDJSON), (f"[{EVENT}, null,{line}]", JSON)):
            decoded = decode(body.encode(), media_type, max_events=9)
            assert (decoded.received, decoded.rejected) == (3, rejected + (media_type == JSON))
            assert not rejected or "65536 bytes" in decoded.errors[-1]["reason"]
        row = "1,1." + "0" * (EVENT_MAX_BYTES - 5 + more)
        decoded = decode(f"timestamp,value\n1,1\n{row}\n1,2,3\n".encode(), CSV, max_events=9)
        assert (decoded.received, decoded.rejected) == (3, rejected + 1)
