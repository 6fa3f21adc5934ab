"""Refusals lead to the cure: each names what is wrong with this very input, and what to send instead."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from statsapi.api.cures import cure, header_faults, unreadable, why_no_number
from statsapi.errors import ECHO_MAX

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
FORM = "application/x-www-form-urlencoded"  # what curl -d says by itself

EVENT = '{"timestamp": "2026-11-20T07:45:00Z", "value": 1.5}'
LINES = f"{EVENT}\n{EVENT}\n"
PRETTY = json.dumps(json.loads(EVENT), indent=2)
ARRAY = f"[{EVENT}, {EVENT}]"
TABLE = "timestamp,value\n2026-11-20T07:45:00Z,1.5\n2026-11-20T07:46:00Z,2.5\n"
ROWS = TABLE.partition("\n")[2]


def zipped(text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.csv"), text)
    return packed.getvalue()


def refused(client: FlaskClient, path: str, body: str | bytes, media_type: str | None) -> dict[str, Any]:
    """The problem that this body meets; never a success, never a 500."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = client.post(path, data=body.encode() if isinstance(body, str) else body, headers=headers)
    assert response.status_code in (400, 413, 415, 422), response.text
    assert response.mimetype == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.data)
    assert problem["detail"]
    return problem


# Each: what is sent, as what, and the words that the detail must hold.
BATCHES: list[tuple[str | bytes, str | None, list[str]]] = [
    # no header line
    (ROWS, CSV, ["2026-11-20T07:45:00Z,1.5", "names the columns", "timestamp,value"]),
    ("1795000000,0.1\n1795000001,0.2\n", CSV, ["1795000000,0.1", "timestamp,value"]),
    ("1795000000.25,0.1\n", CSV, ["timestamp,value"]),
    ("2026-11-20 07:45:00,1,cpu\n", CSV, ["timestamp,value,series"]),
    ('"2026-11-20 07:45:00","1"\n', CSV, ["names the columns"]),
    ("20.11.2026 07:45,1\n", CSV, ["names the columns"]),
    ("\n\n" + ROWS, CSV, ["names the columns"]),
    # another delimiter
    ("Zeit;Wert\r\n20.11.2026 07:45;1052,46\r\n", CSV, ["semicolons", "Zeit, Wert", "1052.46", "2026-11-20"]),
    ("timestamp;value\n2026-11-20;1.5\n", CSV, ["semicolons", "separate them with commas"]),
    ("timestamp\tvalue\n2026-11-20\t1.5\n", CSV, ["tabs", "separate them with commas"]),
    ("timestamp|value|series\n2026-11-20|1.5|a\n", CSV, ["bars", "separate them with commas"]),
    ('"timestamp";"value"\n"2026-11-20";"1,5"\n', CSV, ["semicolons"]),
    ("value;timestamp\n-3,25;2026-11-20\n", CSV, ["semicolons", "3.25"]),
    ("timestamp,value\n2026-11-20;1.5\n", CSV, ["line 2", "semicolons"]),
    ("timestamp,value\n2026-11-20\t1.5\n", CSV, ["line 2", "tabs"]),
    # a decimal comma
    ("timestamp,value\n2026-11-20,1,5\n", CSV, ["line 2", "1,5", "Write 1.5"]),
    ('timestamp,value\n2026-11-20,"1,5"\n', CSV, ["line 2", "decimal comma", "1.5"]),
    ("value,timestamp\n-1,25,2026-11-20\n", CSV, ["line 2", "Write -1.25"]),
    ('[{"timestamp": "2026-11-20", "value": "1,5"}]', JSON, ["index 0, value", "decimal comma", "1.5"]),
    ('[{"timestamp": "2026-11-20", "value": 1,5}]', JSON, ["decimal comma", "point"]),
    ('{"timestamp": ["2026-11-20"], "value": ["1052,46"]}', JSON, ["decimal comma", "1052.46"]),
    ('{"timestamp": "2026-11-20", "value": "-0,5"}\n', NDJSON, ["line 1, value", "-0.5"]),
    # columns without a name, unknown ones, misspelt ones
    (",timestamp,value\n0,2026-11-20,1\n", CSV, ["column 1", "pandas", "index=False"]),
    ("timestamp,value,\n2026-11-20,1,\n", CSV, ["column 3", "comma at the end"]),
    ("timestamp,,value\n", CSV, ["column 2", "no name"]),
    ('"","timestamp","value"\n"1",2026-11-20,5\n', CSV, ["column 1", "pandas"]),
    ("timestamp,value\n2026-11-20,1,\n", CSV, ["line 2", "comma at its end"]),
    ("Unnamed: 0,timestamp,value\n", CSV, ["Unnamed: 0", "timestamp, value, series"]),
    ("date,time,cpu\n2026-11-20,07:45,1\n", CSV, ["date", "known are: timestamp, value, series", "one column"]),
    ("time,value,unit\n2026-11-20,1,s\n", CSV, ["time", "is it timestamp?"]),
    ("timestamp,Wert,Raum\n2026-11-20,1,a\n", CSV, ["Wert", "is it value?"]),
    ("timestamp,value,host\n", CSV, ["host", "is it series?"]),
    ("Timestamp,Value\n", CSV, ["Timestamp", "is it timestamp?"]),
    ("timestamp,value,unit\n", CSV, ["unit", "known are: timestamp, value, series"]),
    # the right text under the wrong name
    (LINES, JSON, ["NDJSON", "application/x-ndjson"]),
    (LINES, None, ["NDJSON", "application/x-ndjson"]),
    (LINES, FORM, ["NDJSON", "application/x-ndjson", "--data-binary"]),
    (LINES, CSV, ["NDJSON", "application/x-ndjson"]),
    (ARRAY, NDJSON, ["JSON array", "Content-Type: application/json"]),
    (ARRAY, CSV, ["JSON array", "Content-Type: application/json"]),
    (ARRAY, FORM, ["JSON array", "-H 'Content-Type: application/json'"]),
    (ARRAY, "text/plain", ["JSON array", "-H 'Content-Type: application/json'"]),
    (json.dumps([{"timestamp": 1, "value": 1}], indent=2), NDJSON, ["JSON array"]),
    (TABLE, None, ["CSV", "-H 'Content-Type: text/csv' --data-binary @FILE"]),
    (TABLE, JSON, ["CSV", "text/csv"]),
    (TABLE, NDJSON, ["CSV", "text/csv"]),
    (TABLE, FORM, ["CSV", "text/csv"]),
    (TABLE, "text/plain", ["CSV", "text/csv"]),
    (TABLE, "application/octet-stream", ["CSV", "text/csv"]),
    (ROWS, "text/plain", ["CSV", "names the columns"]),
    ("series,timestamp,value\na,1,2\n", "text/tab-separated-values", ["CSV", "text/csv"]),
    # line ends that curl -d @FILE has eaten
    (TABLE.replace("\n", ""), FORM, ["line ends", "--data-binary @FILE"]),
    (TABLE.replace("\n", ""), CSV, ["line ends", "--data-binary @FILE"]),
    (TABLE.replace("\n", ""), None, ["line ends", "--data-binary @FILE"]),
    ("Zeit;Wert20.11.2026 07:45;1052,4620.11.2026 07:50;900,42", FORM, ["line ends", "--data-binary @FILE"]),
    ("date,time,cpu2026-11-20,07:45:00,642026-11-20,07:46:00,65", FORM, ["line ends", "--data-binary @FILE"]),
    ("when\tmuch20 Nov\t1.521 Nov\t2.5", None, ["line ends", "--data-binary @FILE"]),
    ("api.latency:231|msapi.latency:17.5|h|#route:/usersqueue.depth:12|g", FORM, ["line ends", "--data-binary @FILE"]),
    ("timestamp,value,series2026-11-20,1,a", CSV, ["--data-binary @FILE"]),
    ("timestamp,value17950000001,5", CSV, ["--data-binary @FILE"]),
    (ROWS.replace("\n", ""), FORM, ["--data-binary @FILE"]),
    (LINES.replace("\n", ""), FORM, ["--data-binary @FILE"]),
    (LINES.replace("\n", ""), NDJSON, ["--data-binary @FILE"]),
    (LINES.replace("\n", ""), JSON, ["--data-binary @FILE"]),
    # packed, or no text at all
    (gzip.compress(TABLE.encode(), mtime=0), CSV, ["gzip", "Content-Encoding: gzip"]),
    (gzip.compress(ARRAY.encode(), mtime=0), JSON, ["gzip", "Content-Encoding: gzip"]),
    (gzip.compress(LINES.encode(), mtime=0), NDJSON, ["gzip", "Content-Encoding: gzip"]),
    (gzip.compress(TABLE.encode(), mtime=0), FORM, ["gzip", "Content-Encoding: gzip"]),
    (gzip.compress(TABLE.encode(), mtime=0), None, ["gzip", "Content-Encoding: gzip"]),
    (b"\x28\xb5\x2f\xfd\x04\x00", CSV, ["zstd"]),
    (zipped(TABLE), CSV, ["zip", ".xlsx", "CSV"]),
    (bz2.compress(TABLE.encode()), CSV, ["bzip2"]),
    (lzma.compress(TABLE.encode()), JSON, ["xz"]),
    (zlib.compress(TABLE.encode()), NDJSON, ["zlib"]),
    (b"PAR1\x15\x04\x15", CSV, ["Parquet", "to_csv"]),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", CSV, ["Excel"]),
    (b"SQLite format 3\x00", CSV, ["SQLite"]),
    # other encodings
    (TABLE.encode("utf-16"), CSV, ["UTF-16", "iconv"]),
    (TABLE.encode("utf-16-le"), CSV, ["UTF-16LE", "iconv"]),
    (TABLE.encode("utf-16-be"), NDJSON, ["UTF-16BE", "iconv"]),
    (ARRAY.encode("utf-16"), JSON, ["UTF-16", "Out-File -Encoding utf8"]),
    (TABLE.encode("utf-32"), CSV, ["UTF-32", "iconv"]),
    ("timestamp,value,series\n2026-11-20,1,Büro\n".encode("latin-1"), CSV, ["byte 37", "Latin-1", "ü", "iconv"]),
    ('[{"timestamp": 1, "value": 1, "series": "é"}]'.encode("latin-1"), JSON, ["byte 41", "Latin-1", "é"]),
    ('"timestamp","value"\n"2026-11-20","5 €"\n'.encode("cp1252"), CSV, ["Latin-1", "€"]),
    ('{"timestamp": 1, "value": "5\xb5s"}\n'.encode("latin-1"), NDJSON, ["line 1", "Latin-1"]),
    # JSON as other languages and shells write it
    ("[{'timestamp': 1, 'value': 2}]", JSON, ["single quotes", "json.dumps"]),
    ("[{timestamp: 1, value: 2}]", JSON, ["without quotes"]),
    ('[{\\"timestamp\\": 1, \\"value\\": 2}]', JSON, ["backslashes", "--data-binary @FILE"]),
    ('# mine\n[{"timestamp": 1, "value": 2}]', JSON, ["comment"]),
    ('[ // first\n{"timestamp": 1, "value": 2}]', JSON, ["comment"]),
    ('[{"timestamp": 1, "value": 2} /* last */]', JSON, ["comment"]),
    ('[{"timestamp": 1, # s\n"value": 2}]', JSON, ["comment"]),
    ('[{"timestamp": 1, "value": nan}]', JSON, ["left out"]),
    ('[{"timestamp": 1, "value": 0x1F}]', JSON, ["decimal digits"]),
    ('[{"timestamp": 1, "value": 1_000}]', JSON, ["decimal digits"]),
    (f"[{EVENT} {EVENT}]", JSON, ["no comma between"]),
    # objects over several lines, which are neither JSON nor NDJSON
    (f"{PRETTY}\n{PRETTY}\n", NDJSON, ["jq -c", "jq -s"]),
    (f"{PRETTY}\n{PRETTY}\n", JSON, ["jq -c", "jq -s"]),
    (f"{PRETTY}\n", NDJSON, ["jq -c"]),
    (LINES.replace("\n", "\r"), NDJSON, ["CR"]),
    # CSV with names that are not ours, sent as something else
    ("Zeit;Wert\r\n20.11.2026 07:45;1052,46\r\n", JSON, ["CSV", "text/csv"]),
    ("Zeit;Wert\r\n20.11.2026 07:45;1052,46\r\n", None, ["CSV", "text/csv"]),
    ("Zeit;Wert\r\n20.11.2026 07:45;1052,46\r\n", FORM, ["CSV", "text/csv"]),
    ("date,time,cpu\n2026-11-20,07:45,1\n", NDJSON, ["CSV", "text/csv"]),
    ("date,time,cpu\n2026-11-20,07:45,1\n", "text/plain", ["CSV", "text/csv"]),
    # one event where many are taken
    (EVENT, CSV, ["POST /event ", "application/json"]),
    (EVENT, FORM, ["POST /event ", "application/json"]),
    # what comes before the first line, or between the lines
    ("sep=;\r\ntimestamp;value\r\n", CSV, ["sep=;", "take it out"]),
    ("sep=,\r\ntimestamp,value\r\n", CSV, ["sep=,", "take it out"]),
    ("# sensor 3\n" + TABLE, CSV, ["# sensor 3", "comment", "grep"]),
    (TABLE + "# end\n", CSV, ["line 4", "comment"]),
    ("#timestamp,value\n2026-11-20,1\n", CSV, ["is it timestamp?"]),
    ("", CSV, ["empty"]),
    # no header, and not with commas or not with the time first
    ("2026-11-20 07:45:00\t1\n", CSV, ["tabs", "names them, timestamp,value"]),
    ("1.5,2026-11-20 07:45:00\n", CSV, ["names the columns"]),
    # blanks between the columns
    ("timestamp             value\n2026-11-20T07:45:00Z  1.5\n", CSV, ["blanks", "commas"]),
    ('"timestamp" "value"\n"2026-11-20" 1\n', CSV, ["blanks", "commas"]),
    # values as people show them
    ("timestamp,value\n2026-11-20,1,234.5\n", CSV, ["line 2", "Write 1234.5"]),
    ('timestamp,value\n2026-11-20,"$1,234.50"\n', CSV, ["write 1234.50 alone"]),
    ('timestamp,value\n2026-11-20,"1.234,50 €"\n', CSV, ["write 1234.50 alone"]),
    ('timestamp,value\n2026-11-20,"1,5 %"\n', CSV, ["write 1.5 alone"]),
    ("timestamp,value\n2026-11-20,1\0\n", CSV, ["NUL"]),
    ('[{"timestamp": "$(date -u +%FT%TZ)", "value": 2}]', JSON, ["command", "single quotes"]),
    ("'[{\"timestamp\":", JSON, ["single quote", "Windows"]),
    ("[{“timestamp”: 1, “value”: 2}]", JSON, ["typographic quotes"]),
    ('[{"timestamp": 1, "value": None}]', JSON, ["null"]),
    ('[{"timestamp": 1, "value": .5}]', JSON, ["before and behind the point"]),
    ('[{"timestamp": 1, "value": +5}]', JSON, ["no plus"]),
    ('[{"timestamp": 1, "value": 5},]', JSON, ["comma before a closing bracket"]),
    ('[{"timestamp": 1, "value": 5}', JSON, ["never closed"]),
    ('{"timestamp": 1, "value": 5},\n{"timestamp": 1, "value": 5}\n', JSON, ["put [ before and ] after"]),
    # what is meant for other services
    ("cpu,host=web\\ 1 usage_user=12.5 1795160700000000000\n", "text/plain", ["line protocol"]),
    ("disk value=1 1795160700000000000\n", CSV, ["line protocol"]),
    ("# TYPE rows untyped\nrows 1200\n", "text/plain", ["Prometheus"]),
    ('job_seconds{step="load"} 12.5\n', None, ["Prometheus"]),
    ("api.latency:231|ms\n", FORM, ["StatsD"]),
    ("servers.web.load 1.5 1795160700\n", "text/plain", ["Graphite"]),
    ("timestamp=2026-11-20&value=1.5", FORM, ["form's fields", "JSON"]),
    ("%7B%22timestamp%22%3A1%7D", FORM, ["percent-encoded"]),
    ("@data.csv", "text/csv", ["name of a file", "--data-binary @FILE"]),
    ("--x\r\nContent-Disposition: form-data; name=f\r\n\r\n", "multipart/form-data; boundary=x", ["curl -F"]),
    ("timestamp: 2026-11-20\nvalue: 1.5\n", "text/yaml", ["YAML"]),
    ("<events></events>", "application/xml", ["XML"]),
    ("<!DOCTYPE html><html></html>", CSV, ["HTML"]),
    ("42.5", "text/plain", ["number alone"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "media_type", "said"), BATCHES)
def test_a_refused_batch_is_told_the_cure(
    shared_client: FlaskClient, body: str | bytes, media_type: str | None, said: list[str]
) -> None:
    """The detail names the fault of this body and what to send, and nothing of it is stored."""
    detail = refused(shared_client, "/events", body, media_type)["detail"]
    assert [words for words in said if words not in detail] == [], detail
    assert b'"total_events":0' in shared_client.get("/debug/events").data


@pytest.mark.parametrize(
    ("body", "media_type", "said"),
    [
        (EVENT, FORM, ["-H 'Content-Type: application/json'"]),
        (EVENT, "text/plain", ["-H 'Content-Type: application/json'"]),
        (EVENT, "application/octet-stream", ["-H 'Content-Type: application/json'"]),
        (EVENT, "text/json", ["-H 'Content-Type: application/json'"]),
        (EVENT, "x" * 5000, ["-H 'Content-Type: application/json'", "…"]),
        ("timestamp=2026-11-20&value=1.5", FORM, ["form's fields", "-H 'Content-Type: application/json'"]),
        (ARRAY, JSON, ["POST /events"]),
        (LINES, JSON, ["NDJSON", "POST /events"]),
        (TABLE, JSON, ["CSV", "POST /events"]),
        (TABLE, CSV, ["CSV", "POST /events"]),
        ('{"events": []}', JSON, ["POST /events"]),
        ('{"timestamp": [1], "value": [1]}', JSON, ["POST /events"]),
        (gzip.compress(EVENT.encode(), mtime=0), JSON, ["gzip", "Content-Encoding: gzip"]),
        (EVENT.encode("utf-16"), JSON, ["UTF-16", "iconv"]),
        (EVENT.encode("utf-16-le"), JSON, ["UTF-16LE"]),
        ('{"timestamp": 1, "value": 1, "series": "é"}'.encode("latin-1"), JSON, ["Latin-1", "byte 40"]),
        ('{"timestamp": "2026-11-20", "value": "1,5"}', JSON, ["decimal comma", "1.5"]),
        ('{"timestamp": "2026-11-20", "value": 1,5}', JSON, ["decimal comma"]),
        ("{'timestamp': 1, 'value': 2}", JSON, ["single quotes"]),
        ("{timestamp: 1, value: 2}", JSON, ["without quotes"]),
        ("", JSON, ["empty"]),
        ("@event.json", JSON, ["name of a file"]),
        (" " * 65_537, JSON, ["65536", "POST /events"]),
    ],
)  # fmt: skip
def test_a_refused_event_is_told_the_cure(
    shared_client: FlaskClient, body: str | bytes, media_type: str | None, said: list[str]
) -> None:
    """The same for a single event; where many were sent, the endpoint that takes them is named."""
    detail = refused(shared_client, "/event", body, media_type)["detail"]
    assert [words for words in said if words not in detail] == [], detail


@pytest.mark.parametrize("text", [EVENT, "\ufeff" + EVENT])
def test_a_byte_order_mark_is_passed_over(client: FlaskClient, text: str) -> None:
    """UTF-8 with its mark is read as UTF-8 in every form."""
    assert client.post("/event", data=text.encode(), content_type=JSON).status_code == 200
    mark = text.removesuffix(EVENT)
    for body, media_type in ((ARRAY, JSON), (LINES, NDJSON), (TABLE, CSV), ('{"events": ' + ARRAY + "}", JSON)):
        response = client.post("/events", data=(mark + body).encode(), content_type=media_type)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1,5", "write 1.5"),
        ("-1052,46", "write -1052.46"),
        (",5", "write .5"),
        ("1,5e3", "write 1.5e3"),
        ("1,234.5", "write 1234.5"),
        ("1.234,5", "write 1234.5"),
        ("1 234 567", "write 1234567"),
        ("1'234.5", "write 1234.5"),
        ("1,234,567", "write 1234567"),
        ("\u22125", "write -5"),
        ("0x1F", "write 31"),
        ("5 ms", "write 5 alone"),
        ("12.5%", "write 12.5 alone"),
        ("$3.20", "write 3.20 alone"),
        ("€ 7", "write 7 alone"),
        ("N/A", "leave the event out"),
        ("null", "leave the event out"),
        ("-", "leave the event out"),
        ("", "leave the event out"),
        ("true", "write 1 or 0"),
        ("(5.00)", "minus"),
        ("2026-11-20T07:45:00Z", "other way round"),
        ("abc", "no number"),
        ("1" * 200 + "x", "no number"),
        (True, "not true or false"),
        ([1], "not an array"),
        ({}, "not an object"),
    ],
)
def test_a_value_that_is_no_number(value: object, said: str) -> None:
    """The refusal names the fault of a value, and the number to write if there is one."""
    assert said in why_no_number(value)


def test_whatever_is_said_to_be_written_can_be_read() -> None:
    """The numbers that a refusal proposes are numbers."""
    for value in ("1,5", ",5", "-3,25", "1.234,5", "1 234", "\u22125", "12.5%", "5 ms", "0xff", "1,234,567.8"):
        proposed = re.search(r"write (\S+)", why_no_number(value))
        assert proposed is not None
        float(proposed[1])


def test_gzip_within_gzip(client: FlaskClient) -> None:
    """A body packed twice under one header is refused as packed twice, not as lacking the header."""
    for path, body in (("/events", TABLE), ("/event", EVENT)):
        headers = {"Content-Encoding": "gzip", "Content-Type": CSV if path == "/events" else JSON}
        response = client.post(path, data=gzip.compress(gzip.compress(body.encode())), headers=headers)
        assert response.status_code == 400
        assert "packed twice" in response.json["detail"]


def test_what_the_cure_for_a_single_event_says_works(client: FlaskClient) -> None:
    """A single event sent as anything else is led to the one place that takes it as it is."""
    for media_type in (CSV, FORM, "text/plain"):
        assert "send it to POST /event with" in refused(client, "/events", EVENT, media_type)["detail"]
    assert client.post("/event", data=EVENT, content_type=JSON).status_code == 200


@given(st.binary(max_size=300), st.sampled_from([JSON, NDJSON, CSV, None]))
def test_any_bytes_have_a_cure_or_none(body: bytes, sent_as: str | None) -> None:
    """The guess never fails, and never fills the answer."""
    for said in (cure(body, sent_as), unreadable(body)):
        assert said is None or len(said) < 400


@given(st.text(max_size=300))
def test_any_value_has_a_reason(text: str) -> None:
    """So does that about a value."""
    assert 0 < len(why_no_number(text)) < ECHO_MAX * 12


@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["timestamp", "value", "series", "", "date", "time"]), max_size=9)
)
def test_a_header_is_faultless_or_named(names: list[str]) -> None:
    """A header has no fault exactly if it names timestamp and value, perhaps series, and each once."""
    good = sorted(names) in (["timestamp", "value"], ["series", "timestamp", "value"])
    assert (header_faults(names) == {}) == good


LONG = "x" * 60_000


@pytest.mark.parametrize(
    ("method", "path", "body", "media_type"),
    [
        ("POST", "/event", json.dumps({"timestamp": 1, "value": 1, LONG: 1}), JSON),
        ("POST", "/event", json.dumps({"timestamp": LONG, "value": 1}), JSON),
        ("POST", "/event", json.dumps({"timestamp": 1, "value": LONG}), JSON),
        ("POST", "/event", json.dumps({"timestamp": 1, "value": "1," + "5" * 60_000}), JSON),
        ("POST", "/event", json.dumps({"timestamp": 1, "value": 1, "series": LONG}), JSON),
        ("POST", "/event", json.dumps({"\ud800" * 9000: 1}), JSON),
        ("POST", "/event", "{" + ",".join(f'"{i}":1' for i in range(6000)) + "}", JSON),
        ("POST", "/event", EVENT, "text/" + LONG),
        ("POST", "/events", json.dumps([{"timestamp": 1, "value": 1, LONG: 1}] * 200), JSON),
        ("POST", "/events", json.dumps([{"timestamp": LONG, "value": LONG, "series": LONG}] * 90), JSON),
        ("POST", "/events", json.dumps({LONG[:8000]: 1, LONG[:7000]: 1}), JSON),
        ("POST", "/events", json.dumps({LONG: 1}), JSON),
        ("POST", "/events", json.dumps({"timestamp": [LONG], "value": [LONG]}), JSON),
        ("POST", "/events", (json.dumps({"timestamp": LONG, "value": 1}) + "\n") * 100, NDJSON),
        ("POST", "/events", f"timestamp,value,{LONG}\n1,2,3\n", CSV),
        ("POST", "/events", f"{LONG};{LONG[:5]}\n1,2,3\n", CSV),
        ("POST", "/events", f"timestamp,value\n{LONG},{LONG[:5]}\n", CSV),
        ("POST", "/events", f"timestamp,value\n1,{LONG[:50_000]},{LONG[:5]}\n", CSV),
        ("POST", "/events", "timestamp,value," + "," * 60_000 + "\n", CSV),
        ("POST", "/events", f"2026-11-20,{LONG}\n", CSV),
        ("POST", "/events?" + LONG[:4000] + "=1", ARRAY, JSON),
        ("POST", "/events?dedup=" + LONG[:4000], ARRAY, JSON),
        ("GET", "/statistics?series=" + LONG[:4000], "", None),
        ("GET", "/statistics?window=" + LONG[:4000], "", None),
        ("GET", "/statistics?windows=" + LONG[:4000], "", None),
        ("GET", "/statistics?stats=" + LONG[:4000], "", None),
        ("GET", "/statistics?percentiles=" + LONG[:4000], "", None),
        ("GET", "/statistics?percentiles=" + "9" * 4000, "", None),
        ("GET", "/statistics?percentiles=" + "1," * 4000, "", None),
        ("GET", "/statistics?start=" + LONG[:4000], "", None),
        ("GET", "/statistics?start=" + "9" * 6000, "", None),
        ("GET", "/statistics?start=" + "2026-11-20" + "0" * 6000, "", None),
        ("GET", "/statistics?" + "&".join(f"{i}=" for i in range(1500)), "", None),
        ("GET", "/statistics?" + LONG[:4000], "", None),
        ("GET", "/events?cursor=" + "MSAx" * 1500, "", None),
        ("GET", "/events?format=" + LONG[:4000], "", None),
        ("GET", "/debug/events?limit=" + "9" * 6000, "", None),
        ("GET", "/" + LONG[:6000], "", None),
        ("POST", "/statistics/" + LONG[:6000], "", None),
        ("DELETE", "/series/" + LONG[:6000], "", None),
        ("POST", "/series/" + LONG[:6000], "", None),
    ],
)  # fmt: skip
def test_what_is_told_back_is_short(
    shared_client: FlaskClient, method: str, path: str, body: str, media_type: str | None
) -> None:
    """No name or value comes back whole: of each at most 200 characters, whoever tells it, so no answer is large."""
    response = shared_client.open(path, method=method, data=body.encode(), content_type=media_type)
    assert 400 <= response.status_code < 500, response.text
    assert len(response.data) < 100_000
    assert "x" * (ECHO_MAX + 1) not in response.text
    assert "9" * (ECHO_MAX + 1) not in response.text
    assert "5" * (ECHO_MAX + 1) not in response.text
    assert len(json.loads(response.data)["detail"]) < 2000


@pytest.mark.parametrize("header", ["Content-Encoding", "Idempotency-Key", "Accept"])
def test_headers_told_back_are_short(shared_client: FlaskClient, header: str) -> None:
    """The same for what stands in headers."""
    method, path = ("GET", "/events") if header == "Accept" else ("POST", "/event")
    response = shared_client.open(path, method=method, data=EVENT, content_type=JSON, headers={header: LONG[:8000]})
    assert 400 <= response.status_code < 500
    assert len(response.data) < 1500
