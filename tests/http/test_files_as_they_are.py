"""Files as people have them: each comes in right, or its refusal shows a query that takes it when it is followed."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsapi.api.decoding.mapping import PARAMETERS
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.durations import parse_duration_us
from statsapi.errors import ECHO_MAX
from statsapi.model import DAY_US
from statsapi.times import format_timestamp, parse_timestamp_us
from tests.calls import assert_problem
from tests.fakes import NOW, FakeClock

CSV, NDJSON = "text/csv", "application/x-ndjson"

SHOWN = re.compile(r"'(/events\?[^']*)'")

http = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def send(client: FlaskClient, body: str | bytes, path: str = "/events", media_type: str = CSV, **query: str) -> Any:
    path += ("&" if "?" in path else "?") + urlencode(query) if query else ""
    return client.post(path, data=body, headers={"Content-Type": media_type})


def shown(client: FlaskClient, body: str | bytes, media_type: str = CSV, **query: str) -> list[str]:
    """The queries that the refusal of this body shows."""
    response = send(client, body, media_type=media_type, **query)
    assert response.status_code in (400, 422), response.text
    return SHOWN.findall(response.json["detail"])


GERMAN = "Zeit;Wert\r\n20.11.2025 07:45;1052,46\r\n20.11.2025 07:50;900,42\r\n"

# Each: a file, and what following the one query that its refusal shows must store: (series, time, value) in order.
FOLLOWED: list[tuple[str, str, str, list[tuple[str, str, float]]]] = [
    (
        "German Excel",
        GERMAN,
        CSV,
        [("default", "2025-11-20T07:45:00Z", 1052.46), ("default", "2025-11-20T07:50:00Z", 900.42)],
    ),
    (
        "German Excel, UTF-8",
        "\ufeff" + GERMAN.partition("20.11.2025 07:50")[0],
        CSV,
        [("default", "2025-11-20T07:45:00Z", 1052.46)],
    ),
    (
        "pandas, its index",
        ",timestamp,value\n0,2025-11-20 07:45:00,0.25\n1,2025-11-20 07:45:01,0.5\n",
        CSV,
        [("default", "2025-11-20T07:45:00Z", 0.25), ("default", "2025-11-20T07:45:01Z", 0.5)],
    ),
    (
        "pandas, times as its index",
        ",cpu,mem\n2025-11-20 07:45:00,1.0,2.0\n2025-11-20 07:46:00,3.0,\n",
        CSV,
        [("cpu", "2025-11-20T07:45:00Z", 1), ("mem", "2025-11-20T07:45:00Z", 2), ("cpu", "2025-11-20T07:46:00Z", 3)],
    ),
    (
        "date and time apart",
        "date,time,cpu,mem,host\n2025-11-20,07:45:00,64,7932,web-0\n2025-11-20,07:46:00,65,4222,web-1\n",
        CSV,
        [
            ("cpu;host=web-0", "2025-11-20T07:45:00Z", 64),
            ("mem;host=web-0", "2025-11-20T07:45:00Z", 7932),
            ("cpu;host=web-1", "2025-11-20T07:46:00Z", 65),
            ("mem;host=web-1", "2025-11-20T07:46:00Z", 4222),
        ],
    ),
    (
        "German date and time apart",
        "Datum;Uhrzeit;Leistung kW\n20.11.2025;7:45;1,5\n20.11.2025;19:46;2,5\n",
        CSV,
        [("default", "2025-11-20T07:45:00Z", 1.5), ("default", "2025-11-20T19:46:00Z", 2.5)],
    ),
    (
        "no header",
        "2025-11-20T07:45:00Z,0.5\n2025-11-20T07:45:01Z,0.25\n",
        CSV,
        [("default", "2025-11-20T07:45:00Z", 0.5), ("default", "2025-11-20T07:45:01Z", 0.25)],
    ),
    (
        "no header, Unix time, several values",
        "1763624700,1,2\n1763624701,3,4\n",
        CSV,
        [
            ("column.2", "2025-11-20T07:45:00Z", 1),
            ("column.3", "2025-11-20T07:45:00Z", 2),
            ("column.2", "2025-11-20T07:45:01Z", 3),
            ("column.3", "2025-11-20T07:45:01Z", 4),
        ],
    ),
    (
        "American, in the afternoon",
        "Date,Amount\n11/20/2025 07:45:00 PM,1.5\n",
        CSV,
        [("default", "2025-11-20T19:45:00Z", 1.5)],
    ),
    (
        "a month's name, in quotes",
        '"when","price","note"\n"Nov 20, 2025 07:45","1.5","a, b"\n"Nov 20, 2025 07:46","2","a, b"\n',
        CSV,
        [("default;note=a, b", "2025-11-20T07:45:00Z", 1.5), ("default;note=a, b", "2025-11-20T07:46:00Z", 2)],
    ),
    ("tabs", "time\tvalue\n2025-11-20 07:45\t1\n", CSV, [("default", "2025-11-20T07:45:00Z", 1)]),
    (
        "Excel's first line",
        "sep=;\ntimestamp;value\n2025-11-20 07:45;1,5\n",
        CSV,
        [("default", "2025-11-20T07:45:00Z", 1.5)],
    ),
    (
        "a title and a comment",
        "Report of station 7\n# by hand\ntime;temp\n2025-11-20 07:45;1\n2025-11-20 07:46;2\n",
        CSV,
        [("default", "2025-11-20T07:45:00Z", 1), ("default", "2025-11-20T07:46:00Z", 2)],
    ),
    (
        "a sensor's name",
        "time,sensor,reading\n2025-11-20 07:45,kitchen,1\n2025-11-20 07:46,hall,2\n",
        CSV,
        [("kitchen", "2025-11-20T07:45:00Z", 1), ("hall", "2025-11-20T07:46:00Z", 2)],
    ),
    (
        "names that a URL cannot hold as they are",
        'time,"T&C, in %",x+y\n2025-11-20 07:45,1,2\n',
        CSV,
        [("T&C, in %", "2025-11-20T07:45:00Z", 1), ("x+y", "2025-11-20T07:45:00Z", 2)],
    ),
    (
        "NDJSON of a logger",
        '{"time": "2025-11-20T07:45:00Z", "cpu": 1, "host": "a"}\n'
        '{"time": "2025-11-20T07:45:01Z", "cpu": 2, "host": "a"}\n',
        NDJSON,
        [("default;host=a", "2025-11-20T07:45:00Z", 1), ("default;host=a", "2025-11-20T07:45:01Z", 2)],
    ),
    (
        "AM and PM beside a date",
        "date,time,v\n2025-11-20,06:45 AM,1\n2025-11-20,12:15 AM,2\n",
        CSV,
        [("default", "2025-11-20T06:45:00Z", 1), ("default", "2025-11-20T00:15:00Z", 2)],
    ),
    (
        "AM and PM, American, without a blank",
        "Day,Clock,v\n11/20/2025,6:45AM,1\n",
        CSV,
        [("default", "2025-11-20T06:45:00Z", 1)],
    ),
    (
        "AM and PM in one column",
        "when,v\n2025-11-20 06:45 AM,1\n",
        CSV,
        [("default", "2025-11-20T06:45:00Z", 1)],
    ),
    (
        "hours beside a date",
        "date,hour,v\n2025-11-20,6,1\n2025-11-20,7,2\n",
        CSV,
        [("default", "2025-11-20T06:00:00Z", 1), ("default", "2025-11-20T07:00:00Z", 2)],
    ),
    (
        "digits beside a date",
        "date,time,v\n2025-11-20,0645,1\n2025-11-20,0700,2\n",
        CSV,
        [("default", "2025-11-20T06:45:00Z", 1), ("default", "2025-11-20T07:00:00Z", 2)],
    ),
    (
        "two columns of one name",
        "\ntime,cpu,cpu\n2025-11-20 07:45,1,2\n2025-11-20 07:46,3,4\n",
        CSV,
        [
            ("column.2", "2025-11-20T07:45:00Z", 1),
            ("column.3", "2025-11-20T07:45:00Z", 2),
            ("column.2", "2025-11-20T07:46:00Z", 3),
            ("column.3", "2025-11-20T07:46:00Z", 4),
        ],
    ),
    (
        "an empty first cell",
        "time,cpu\n2025-11-20 07:45,\n2025-11-20 07:46,1\n",
        CSV,
        [("default", "2025-11-20T07:46:00Z", 1)],
    ),
    (
        "no value first",
        "time,cpu\n2025-11-20 07:45,N/A\n2025-11-20 07:46,1\n",
        CSV,
        [("default", "2025-11-20T07:46:00Z", 1)],
    ),
    (
        "no value in one of several",
        "time,cpu,mem\n2025-11-20 07:45,N/A,3\n2025-11-20 07:46,1,\n",
        CSV,
        [("mem", "2025-11-20T07:45:00Z", 3), ("cpu", "2025-11-20T07:46:00Z", 1)],
    ),
    (
        "a time of day that is empty",
        "date,time,v\n2025-11-20,,1\n2025-11-20,07:46,2\n",
        CSV,
        [("default", "2025-11-20T07:46:00Z", 2)],
    ),
    (
        "points for colons",
        "time,v\n2025-11-20 07.30,1\n2025-11-20 07.45,2\n",
        CSV,
        [("default", "2025-11-20T07:30:00Z", 1), ("default", "2025-11-20T07:45:00Z", 2)],
    ),
    (
        "points for colons, German",
        "Zeit;Wert\n20.11.2025 07.30.15;1,5\n",
        CSV,
        [("default", "2025-11-20T07:30:15Z", 1.5)],
    ),
    (
        "NDJSON with null",
        '{"time": "2025-11-20T07:45:00Z", "cpu": null}\n{"time": "2025-11-20T07:46:00Z", "cpu": 1.052}\n',
        NDJSON,
        [("default", "2025-11-20T07:46:00Z", 1.052)],
    ),
    (
        "NDJSON, German",
        '{"zeit": "20.11.2025 07:45", "wert": "1,5", "deep": {"a": [1]}}\n',
        NDJSON,
        [("default", "2025-11-20T07:45:00Z", 1.5)],
    ),
]


@pytest.mark.parametrize(
    ("body", "media_type", "events"), [case[1:] for case in FOLLOWED], ids=[c[0] for c in FOLLOWED]
)
def test_the_query_that_is_shown_takes_the_file(
    client: FlaskClient, body: str, media_type: str, events: list[tuple[str, str, float]]
) -> None:
    """Followed to the letter it stores what the file says, and a dry run before tells the same."""
    [path] = shown(client, body.encode(), media_type)
    tried = send(client, body.encode(), path, media_type, dry_run="true")
    assert tried.status_code == 200, tried.text
    assert client.get("/series?raw=true").json["series"] == []
    taken = send(client, body.encode(), path, media_type, expired="accept")
    assert taken.status_code == 200, taken.text
    assert (taken.json["stored"], tried.json["stored"]) == (len(events), len(events))
    export = client.get("/events?format=ndjson").text
    held = sorted((item["series"], item["timestamp"], item["value"]) for item in map(json.loads, export.splitlines()))
    assert held == sorted((name, time.replace("Z", ".000000Z"), value) for name, time, value in events)
    times: dict[str, list[str]] = {}
    for name, time, _ in events:
        times.setdefault(name, []).append(time.replace("Z", "+00:00"))
    told = {part["name"]: (part["events"], part["first"], part["last"]) for part in tried.json["series"]}
    assert told == {name: (len(of_name), min(of_name), max(of_name)) for name, of_name in times.items()}


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Flask]:
    """As everywhere, but that what these files hold is kept raw."""
    app = create_app(Settings(journal="memory://", retention_us=2 * DAY_US), clock_us=clock, background=False)
    yield app
    app.extensions["statsapi"].close()


@pytest.fixture
def clock() -> FakeClock:
    """Soon after the events of these files."""
    return FakeClock("2025-11-20T08:00:00Z")


def test_another_encoding_is_refused_with_the_command(client: FlaskClient) -> None:
    """Windows-1252, as Excel writes CSV without "UTF-8", with a query and without: no letter is guessed."""
    body = "Zeit;Zählerstand\r\n20.11.2025 07:45;1,5\r\n".encode("cp1252")
    query = {
        "timestamp": "Zeit",
        "value": "Zählerstand",
        "delimiter": ";",
        "decimal": ",",
        "time_format": "%d.%m.%Y %H:%M",
    }
    for asked in ({}, query):
        problem = assert_problem(send(client, body, **asked), 400, "bad-request")
        assert "iconv -f WINDOWS-1252 -t UTF-8" in problem["detail"]
    assert send(client, body.decode("cp1252").encode("utf-8-sig"), **query).json["stored"] == 1


def test_a_number_of_both_marks_is_told_whole(client: FlaskClient) -> None:
    """Not half of it: 1.052,46 is 1052.46."""
    said = send(client, "Zeit;Wert;Text\nx;1.052,46;y\n").json["detail"]
    assert "1052.46, not 1.052,46" in said


@pytest.mark.parametrize("parameter", ["header", "dry_run", "partial", "dedup"])
def test_a_word_that_is_no_switch_is_refused_with_those_that_are(client: FlaskClient, parameter: str) -> None:
    """Every switch of a query says it alike."""
    [error] = send(client, "timestamp,value\n", **{parameter: "maybe"}).json["errors"]
    assert error == {"field": parameter, "reason": "must be true or false"}


TWO_READINGS = [
    ("timestamp,value\n11/12/2025 07:45,1\n", {"2025-12-11T07:45:00+00:00", "2025-11-12T07:45:00+00:00"}),
    ("time;value\n01.02.25;1\n01.02.25;1\n", {"2025-02-01T00:00:00+00:00", "2025-01-02T00:00:00+00:00"}),
    (
        "opened,closed,n\n2025-11-20 07:45,2025-11-20 07:50,1\n",
        {"2025-11-20T07:45:00+00:00", "2025-11-20T07:50:00+00:00"},
    ),
]


@pytest.mark.parametrize(("body", "times"), TWO_READINGS)
def test_both_readings_are_shown_where_there_are_two(client: FlaskClient, body: str, times: set[str]) -> None:
    """Each query takes the file, and gives the one or the other."""
    paths = shown(client, body)
    assert len(paths) == len(times)
    assert {send(client, body, path, dry_run="true").json["first"] for path in paths} == times


# Each: a file, the number in it, what it is with decimals, and what with thousands.
THOUSANDS = [
    ("Zeit;Wert\n20.11.2025 07:45;1.052\n20.11.2025 07:46;900\n", "1.052", 1.052, "1052", "points"),
    ("time\tvalue\n2025-11-20 07:45\t-21.500\n", "-21.500", -21.5, "-21500", "points"),
    ("time;value\n2025-11-20 07:45;1,052\n", "1,052", 1.052, "1052", "commas"),
    ('time,value\n2025-11-20 07:45,"1,052"\n2025-11-20 07:46,7\n', "1,052", 1.052, "1052", "commas"),
]


@pytest.mark.parametrize(("body", "number", "small", "large", "marks"), THOUSANDS)
def test_thousands_are_told_where_they_may_be_decimals(
    client: FlaskClient, body: str, number: str, small: float, large: str, marks: str
) -> None:
    """The query says which reading it is; with that decimal sign given, nothing is told any more."""
    detail = send(client, body).json["detail"]
    [path] = SHOWN.findall(detail)
    assert f"{number} is read as {number.replace(',', '.')} then" in detail
    assert f"where {large} is meant, take the {marks} out" in detail
    sign = "." if marks == "points" else ","
    assert f"decimal={sign}" in path
    assert send(client, body, path).json["stored"] == body.count("\n") - 1
    assert json.loads(client.get("/events?format=ndjson").text.splitlines()[0])["value"] == small
    assert "is read as" not in send(client, body, decimal=sign).text


@pytest.mark.parametrize(
    "body",
    [
        "Zeit;Wert\n20.11.2025 07:45;1.052\n20.11.2025 07:46;0.5\n",
        "Zeit;Wert\n20.11.2025 07:45;0.125\n",
        "Zeit;Wert\n20.11.2025 07:45;1,052\n20.11.2025 07:46;1,5\n",
        "when,a,b\n2025-11-20 07:45,1.052,2.125\n",
    ],
)
def test_decimals_that_are_certain_are_not_told(client: FlaskClient, body: str) -> None:
    """Another number shows what the mark is, or commas separate the columns."""
    assert len(shown(client, body)) == 1
    assert "is read as" not in send(client, body).json["detail"]


NOT_AT_MIDNIGHT = [
    "date,time,v\n2025-11-20,quarter past,1\n2025-11-20,noon,2\n",
    "date,t,v\n2025-11-20,0.5,1\n",
    "date,hour,v\n2025-11-20,24,1\n2025-11-20,8,1\n",
    "Datum;Uhrzeit;v\n20.11.2025;7h45;1\n",
    "date,time,v\n2025-11-20,42,1\n",
]


@pytest.mark.parametrize("body", NOT_AT_MIDNIGHT)
@pytest.mark.parametrize("named", [False, True])
def test_a_time_of_day_that_cannot_be_read_is_not_left_out(client: FlaskClient, body: str, named: bool) -> None:
    """A query that takes the dates alone would record all at midnight: none is shown, whatever was named."""
    date, time, _ = body.partition("\n")[0].replace(";", ",").split(",")
    query = {"date": date, "time": time} if named else {}
    if named and ";" in body:
        query["delimiter"] = ";"
    assert shown(client, body, **query) == []


NAMED = [
    ("t,cpu,mem\n2025-11-20 07:45,1,2\n2025-11-20 07:46,1,x\n", {"value": "cpu,mem"}, []),
    ("time,cpu,mem\n2025-11-20 07:45,1,2\n2025-11-20 07:46,1,x\n", {"value": "cpu,mem"}, []),
    ("t,cpu,mem\n2025-11-20 07:45,1,2\n", {"value": "mem"}, ["timestamp=t&value=mem"]),
    ("t,cpu,id\n2025-11-20 07:45,1,2\n", {"value": "id"}, ["timestamp=t&value=id"]),
    ("opened,closed,n\n2025-11-20 07:45,2025-11-20 07:50,1\n", {"timestamp": "closed"}, ["timestamp=closed&value=n"]),
    ("t,sensor,v\n2025-11-20 07:45,a,1\n", {"into": "x"}, ["timestamp=t&value=v&tags=sensor&into=x"]),
    ("t,code,v\n2025-11-20 07:45,200,1\n", {"tags": "code"}, ["timestamp=t&value=v&tags=code"]),
    ("t,code,v\n2025-11-20 07:45,200,1\n", {"series": "code"}, ["timestamp=t&value=v&series=code"]),
    ("t,cpu,mem\n2025-11-20 07:45,1,2\n", {"value": "cpu,memory"}, ["timestamp=t&value=cpu,mem"]),
    ("date,hour,v\n2025-11-20,7,1\n", {"timestamp": "date", "value": "hour,w"}, ["timestamp=date&value=hour,v"]),
]


@pytest.mark.parametrize(("body", "query", "queries"), NAMED)
def test_what_was_named_stays_what_it_is(
    client: FlaskClient, body: str, query: dict[str, str], queries: list[str]
) -> None:
    """No value becomes a tag, no time another column; what is missing or misspelt is proposed beside it."""
    assert [path.removeprefix("/events?") for path in shown(client, body, **query)] == queries


def test_a_bad_value_of_a_named_column_is_told_by_line(client: FlaskClient) -> None:
    """And nothing else is proposed for it."""
    body = "time,cpu,mem\n2025-11-20 07:45,1,2\n2025-11-20 07:46,1,x\n"
    problem = send(client, body, timestamp="time", value="cpu,mem").json
    assert [(error["line"], error["field"]) for error in problem["errors"]] == [(3, "mem")]
    assert "'x'" in problem["detail"]


MENDED = [
    ("time,cpu\n2025-11-20 07:45,5 ms\n2025-11-20 07:46,1\n", "line 2, cpu: is '5 ms', which carries a unit"),
    ("time,cpu\n2025-11-20 07:45,1\n2025-11-20 07:46,5%\n2025-11-20 07:46,7 %\n", "line 3, cpu: is '5%'"),
    ("time,cpu\n2025-11-20 07:45,€5\n", "line 2, cpu: is '€5'"),
    ("time;cpu\n2025-11-20 07:45;1.052,46\n2025-11-20 07:46;900,5\n", "line 2, cpu: is '1.052,46'"),
    (
        "zeit;kWh\n20.11.2025 07:45;5,5 kWh\n",
        "line 2, kWh: is '5,5 kWh', which carries a unit or sign: write 5,5 alone",
    ),
    ("time;cpu\n2025-11-20 07:45;1,052.46\n", "line 2, cpu: is '1,052.46'"),
    ('time,cpu\n2025-11-20 07:45,"1,052,300"\n', "line 2, cpu: is '1,052,300'"),
    ("time,cpu\n2025-11-20 07:45,x\n2025-11-20 07:46,1\n", "line 2, cpu: is 'x'"),
    ("2025-11-20 07:45,5%\n2025-11-20 07:46,5%\n", "line 1, column 2: is '5%'"),
]


@pytest.mark.parametrize(("body", "said"), MENDED)
def test_cells_that_have_to_be_mended_are_named(client: FlaskClient, body: str, said: str) -> None:
    """With line, cure, and the query that takes the file then; it is not said that it goes in as it is."""
    if body.startswith("time,cpu\n2025-11-20 07:45,1\n"):  # read without being asked: the row is named as ever
        assert "is '5%'" in send(client, body).json["detail"]
        return
    detail = send(client, body).json["detail"]
    assert said in detail
    assert "as it is" not in detail
    [path] = SHOWN.findall(detail)
    cured = re.sub(r"(?<=\d) ?(?:ms|%|kWh)|€|(?<=,)x$", "", body, flags=re.MULTILINE).replace("1.052,46", "1052,46")
    cured = cured.replace("1,052.46", "1052.46").replace("1,052,300", "1052300").replace("07:45,\n", "07:45,4\n")
    assert send(client, cured, path).json["rejected"] == 0


@pytest.mark.parametrize("cell", ["x", "", "N/A", "5 ms"])
@pytest.mark.parametrize(
    ("header", "query"),
    [
        ("timestamp,value", {}),
        ("time,cpu", {}),
        ("time,cpu", {"into": "x"}),
        ("time,cpu", {"timestamp": "time", "value": "cpu"}),
        ("time,cpu", {"timezone": "UTC"}),
    ],
)
def test_a_fault_of_a_file_that_is_read_is_said_once(
    client: FlaskClient, header: str, query: dict[str, str], cell: str
) -> None:
    """Another way to write the same reading is no cure."""
    body = f"{header}\n2025-11-20 07:45,1\n2025-11-20 07:46,{cell}\n"
    problem = assert_problem(send(client, body, **query), 422, "validation")
    assert problem["errors"][0]["line"] == 3
    assert "goes to POST" not in problem["detail"]


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ('when,load,n\n2025-11-20 07:45,5 ms,1\n2025-11-20 07:46,"900,5",2\n', "timestamp=when&value=n"),
        ("when,note,n\n2025-11-20 07:45,N/A,1\n2025-11-20 07:46,-,2\n", "timestamp=when&value=n"),
        ("when,sunrise,n\n2025-11-20 07:45,07:10,1\n2025-11-20 07:46,07:11,2\n", "timestamp=when&value=n"),
    ],
)
def test_columns_beside_make_no_second_reading(client: FlaskClient, body: str, query: str) -> None:
    """A comma in cells that are left out, words for no value, and clock times, which are no tags."""
    assert shown(client, body) == [f"/events?{query}"]


def test_a_column_that_is_neither_values_nor_a_tag_is_told(client: FlaskClient) -> None:
    """The answer names the column left out, and it does not become a series for each value."""
    detail = send(client, "time,cpu,load\n2025-11-20 07:45,1,5%\n2025-11-20 07:46,2,6%\n").json["detail"]
    assert SHOWN.findall(detail) == ["/events?timestamp=time&value=cpu"]
    assert "'load' is left out, as line 2 holds '5%'" in detail


def test_both_orders_are_shown_where_the_first_lines_do_not_tell(client: FlaskClient) -> None:
    """11.11. is the same in both; what stands further down is not."""
    assert len(shown(client, "time;value\n11.11.2025;1\n")) == 2


def test_texts_that_are_no_tags_are_left_out(client: FlaskClient) -> None:
    """A semicolon ends a tag: the query that is shown names the other columns."""
    [path] = shown(client, "time,cpu,mem,note\n2025-11-20 07:45,1,2,a;b\n")
    assert path == "/events?timestamp=time&value=cpu,mem"


NOT_PROPOSED = [
    "timestamp,value\n2026-11-20T07:45:00Z,1\nnot a time,2\n2026-11-20T07:45:02Z,\n2026-11-20T07:45:04Z,5,6\n",
    "timestamp,value\n46346.3229,12.5\n46346.3264,13.1\n",
    "a,b\nx,y\n",
    "time,host\n2026-11-20,a\n",
    "x",
    "",
    "time;value\n2026-11-20;1\nTotal;x\n",
    '2025-11-20,1\n"\n',
    # names that are none: no query that loses the series
    *(
        f"{head}\n2026-11-20T07:45:00Z,1,{name}\n"
        for head in ("timestamp,value,series", "timestamp,value,Sensor", "time,v,series")
        for name in ("-1", "+1", "=1", "x" * 201)
    ),
]


N = 1763625600
CHANGES_WHAT_IS_SAID = [
    # a number with a decimal comma, split
    ("time,value\n2025-11-20 07:00,1,5\n", CSV, {}),
    ("time,value\n2025-11-20 07:00,1,5\n2025-11-20 07:01,2,5\n", CSV, {"timestamp": "time", "value": "value"}),
    ("time;value\n2025-11-20 07:00;1;5\n", CSV, {}),
    ("time,value\n2025-11-20 07:00;1,5\n", CSV, {}),
    # a named column that the rows lack
    ("time,a,b\n2025-11-20 07:00,1\n", CSV, {"timestamp": "time", "value": "a,b"}),
    ("Report\ntime,a,b\n2025-11-20 07:00,1\n", CSV, {}),
    ("time|a|b\n2025-11-20 07:00|1\n", CSV, {}),
    # the series, or the tags
    (f"timestamp,value,series\n{N},1,web\n{N},2,db\n{N},3,=x\n", CSV, {}),
    (f"time,cpu,name\n{N},1,web\n{N},2,db\n{N},3,=x\n", CSV, {}),
    (f"time,cpu,tags\n{N},1,a\n{N},2,a\n{N},3,a;b\n", CSV, {}),
    (
        f'{{"timestamp": {N}, "value": 1, "series": "a", "tags": {{"h": "b"}}}}\n'
        f'{{"timestamp": {N}, "value": 2, "series": ""}}\n',
        NDJSON,
        {},
    ),
    (
        f'{{"timestamp": {N}, "value": 1, "series": "a"}}\n{{"timestamp": {N}, "value": 2, "series": "=x"}}\n',
        NDJSON,
        {},
    ),
]


@pytest.mark.parametrize(("body", "media_type", "query"), CHANGES_WHAT_IS_SAID)
def test_no_query_is_shown_that_changes_what_the_file_says(
    client: FlaskClient, body: str, media_type: str, query: dict[str, str]
) -> None:
    """None that splits a number, or leaves out a named column, the series or the tags."""
    response = send(client, body, media_type=media_type, **query)
    assert response.status_code == 422
    assert "goes to POST" not in response.text


def test_whole_numbers_side_by_side_may_be_one(client: FlaskClient) -> None:
    """Without a header nothing tells two columns from a decimal comma: both readings are told."""
    body = "2025-11-20 07:00,1,5\n2025-11-20 07:01,2,5\n"
    [path] = shown(client, body)
    reason = send(client, body).text
    assert "value=2,3" in path
    assert "1 and 5 are two values then; where 1,5 is one number, put it into quotes" in reason
    assert "two values then" not in send(client, "2025-11-20 07:00,1.5,5\n").text


def test_a_dry_run_of_what_would_be_refused_tells_of_no_event_that_is_kept(client: FlaskClient) -> None:
    """With a row at fault nothing is stored without partial=true: then there is no message of where events lie."""
    body = "time,value\n2025-11-20 02:00,5\nTotal,5\n"
    told = send(client, body, dry_run="true").json
    assert (told["stored"], told["rejected"]) == (0, 1)
    assert not told.keys() & {"message", "notes", "notes_by_kind"}
    told = send(client, body, dry_run="true", partial="true").json
    assert "kept" in told["message"]


@pytest.mark.parametrize("body", ["time,value\n", "time,value", "\ufefftime,cpu\r\n", "when,who,what\n\n\n"])
def test_a_header_alone_is_told_to_have_no_rows(client: FlaskClient, body: str) -> None:
    """Beside what its columns are called, which with rows may be taken as it is."""
    assert "there are no rows behind the first line" in send(client, body).json["errors"][0]["reason"]
    assert "there are no rows" not in send(client, f"{body.rstrip()}\nx,y\n").text


@pytest.mark.processes
def test_the_pieces_of_a_large_file_go_in(client: FlaskClient, tmp_path: Path) -> None:
    """As docs/from-csv.md splits it: each piece has the header, so that tags and several values go in, too."""
    lines = [f"2025-11-20 07:{row:02},{row},{row * 2},a" for row in range(45)]
    (tmp_path / "big.csv").write_text("\n".join(["time,cpu,mem,host", *lines]) + "\n")
    docs = Path(__file__).parents[2] / "docs" / "from-csv.md"
    [command] = re.findall(r"`(tail -n [^`]*)`", docs.read_text())
    subprocess.run(["sh", "-c", command.replace("50000", "20")], cwd=tmp_path, check=True)
    pieces = sorted(tmp_path.glob("piece-*"))
    assert len(pieces) == 3
    for piece in pieces:
        answer = send(client, piece.read_text(), timestamp="time", value="cpu,mem", tags="host")
        assert answer.status_code == 200
    names = {each["name"]: each["count"] for each in client.get("/series?raw=true").json["series"]}
    assert names == {"cpu;host=a": 45, "mem;host=a": 45}
    refused = send(client, lines[0], timestamp="1", value="2", tags="4", header="false").json["errors"]
    assert "put a line of names before the rows" in refused[0]["reason"]


def test_a_reason_is_said_once(client: FlaskClient) -> None:
    """Also where the query that is shown takes the body once what is at fault is mended."""
    body = f'{{"timestamp": {N}123, "value": true}}\n{{"timestamp": {N}123, "value": "1,5"}}\n'
    for dry_run in ("true", "false"):
        answer = send(client, body, media_type=NDJSON, dry_run=dry_run)
        assert answer.json["errors"][0]["reason"].count("not true or false") == 1


# A date, a mark and digits: what Python's parser takes for a time, with an offset or a part of a second. Then how many
# queries are proposed.
QUIRKS = [
    ("host;1\r\n2026/11/25 08:52;95\r\n2026/11/25 09:02;28\r\n2026/11/27 03:40;-19,0206\r\n", 0),
    ("1|a&b\r\n2026-11-27T04:42:00|-16,8154\r\n", 0),
    ("2026-11-27 03:40;-5,1\n2026-11-27 03:41;-6,2\n", 1),
    ("timestamp,value\n2026-11-27 07.5,1\n2026-11-27 7.25,1\n", 0),
]


@pytest.mark.parametrize(("body", "proposed"), QUIRKS)
def test_no_query_reads_a_field_of_the_file_as_a_part_of_its_time(
    client: FlaskClient, body: str, proposed: int
) -> None:
    """Whatever is proposed keeps every row: none becomes a header to skip, none is read past its own time. Where there
    is no such query, none is proposed.
    """
    paths = shown(client, body)
    assert len(paths) == proposed
    for path in paths:
        told = send(client, body, path, dry_run="true").json
        assert (told["rejected"], told["stored"] + told["expired"]) == (0, body.count("2026"))
        assert told["last"].startswith("2026-11-27T0")


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ("date;time;v\n2026-11-27;07.30;1\n", {"date": "date", "time": "time", "value": "v", "delimiter": ";"}),
        ("date;time;v\n2026-11-27;07,30;1\n", {"date": "date", "time": "time", "value": "v", "delimiter": ";"}),
        ("time,v\n2026-11-27 07.30,1\n", {}),
        ("timestamp,value\n2026-11-27 07.30,1\n", {}),
        ("time,v\n2026-11-27 07.30,1\n", {"timestamp": "time", "value": "v", "timezone": "Europe/Berlin"}),
    ],
)
def test_half_past_seven_with_a_point_has_two_readings(client: FlaskClient, body: str, query: dict[str, str]) -> None:
    """07.30 may be 7.3 hours: refused in every form of a file, with the format that says it is not."""
    problem = assert_problem(send(client, body, **query), 422, "validation")
    reason = problem["errors"][0]["reason"]
    assert "has two readings, 07:30 and 07" in reason
    assert re.search(r"time_format=(%Y-%m-%d %H[.,]%M|%25Y-%25m-%25d%20%25H.%25M)", reason)


@pytest.mark.parametrize("body", NOT_PROPOSED)
def test_nothing_is_proposed_that_would_not_work(client: FlaskClient, body: str) -> None:
    """A file with rows at fault, without times or without numbers: the refusal names what is wrong, and no query."""
    assert shown(client, body) == []


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ("time,v,series\n2025-11-20 07:45,1,7\n", "timestamp=time&value=v&series=series"),
        ("time,v,series\n2025-11-20 07:45,1,1763625600\n", "timestamp=time&value=v&series=series"),
        ("time,v,w,Sensor\n2025-11-20 07:45,1,2,7\n", "timestamp=time&value=v,w&series=Sensor"),
        ("time,value,metric\n2025-11-20 07:45,1,7\n", "timestamp=time&value=value&series=metric"),
        ("time,host,sensor\n2025-11-20 07:45,a,7\n", "timestamp=time&value=sensor&tags=host"),
    ],
)
def test_numbers_may_name_series(client: FlaskClient, body: str, query: str) -> None:
    """A column named like one of series is no value if there is another value column, and no row loses its series."""
    assert shown(client, body) == [f"/events?{query}"]


def test_the_hour_that_happened_twice(client: FlaskClient) -> None:
    """And the one that never did: refused by line with both instants; with fold either is taken."""
    times = ("2026-10-25 01:59", "2026-10-25 02:30", "2026-10-25 02:30", "2026-10-25 03:00", "2026-03-29 02:30")
    body = "timestamp,value\n" + "".join(f"{time},1\n" for time in times)
    problem = assert_problem(send(client, body, timezone="Europe/Berlin"), 422, "validation")
    assert [error["line"] for error in problem["errors"]] == [3, 4, 6]
    for fold, first, after in (("earlier", "2026-03-29T00:30:00", 0), ("later", "2026-03-29T01:30:00", 1)):
        assert f"fold={fold} for 2026-10-25T0{after}:30:00Z" in problem["errors"][0]["reason"]
        told = send(client, body, timezone="Europe/Berlin", fold=fold, dry_run="true").json
        assert told["first"] == f"{first}+00:00"
    assert send(client, body, dry_run="true").json["rejected"] == 0  # as UTC, which has no such hours


@pytest.mark.parametrize(
    ("body", "read_as"),
    [
        ("time,cpu\n2025-11-20 07:45,1\n", "timestamp=time&value=cpu"),
        ("time,sensor\n2025-11-20 07:45,7\n", "timestamp=time&value=sensor"),
        ("Timestamp,Value\n2025-11-20 07:45,1\n", "timestamp=Timestamp&value=Value"),
        ('"ts","Temp, in"\n1763624700,1\n', "timestamp=ts&value=%22Temp, in%22".replace(" ", "%20")),
        ("value,date\n1,2025-11-20\n", "timestamp=date&value=value"),
        ("datetime,timestamp2\n2025-11-20,3\n", "timestamp=datetime&value=timestamp2"),
    ],
)
def test_a_time_and_a_number_need_no_query(client: FlaskClient, body: str, read_as: str) -> None:
    """And the answer says how they were read; posted with that query, it is the same."""
    told = send(client, body).json
    assert (told["stored"], told["read_as"]) == (1, read_as)
    assert send(client, body, f"/events?{read_as}").json["stored"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "time,cpu,mem\n2025-11-20 07:45,1,2\n",
        "time,date\n2025-11-20 07:45,2025-11-20\n",
        "time,series\n2025-11-20 07:45,1\n",
        "time,host\n2025-11-20 07:45,a\n",
        "time,\n2025-11-20 07:45,1\n",
        "time,Time\n2025-11-20 07:45,1\n",
        "cpu,mem\n2025-11-20 07:45,1\n",
        "time;cpu\n2025-11-20 07:45;1\n",
    ],
)
def test_more_than_one_reading_needs_a_query(client: FlaskClient, body: str) -> None:
    """Two numbers, two times, no number, a name that means something else."""
    assert send(client, body).status_code == 422


# -- a dry run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dedup", ["false", "true"])
def test_a_dry_run_tells_what_recording_then_does(client: FlaskClient, dedup: str) -> None:
    """The same members in both answers; nothing is held after it, and everything after the recording."""
    query = {"timestamp": "time", "value": "cpu,mem", "tags": "host", "dedup": dedup}
    rows = ["2025-11-20 07:45,1,2,a", "2025-11-20 07:46,3,,b", "2025-11-20 07:46,3,,b", "2015-11-20 07:46,3,4,b"]
    body = "\n".join(["time,cpu,mem,host", *rows])
    tried = send(client, body, **query, dry_run="true").json
    assert client.get("/series").json["series"] == []
    done = send(client, body, **query).json
    assert {name: tried[name] for name in done if name != "status"} == {
        name: value for name, value in done.items() if name != "status"
    }
    assert (tried["status"], done["status"]) == ("dry_run", "success")
    assert tried["rows"] == 4
    assert [(part["name"], part["events"]) for part in tried["series"]] == [
        ("cpu;host=a", 1),
        ("mem;host=a", 1),
        ("cpu;host=b", 3),
        ("mem;host=b", 1),
    ]
    assert tried["errors"] == []


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (json.dumps([{"timestamp": NOW, "value": 1}, {"timestamp": NOW, "value": "x"}]), "application/json"),
        (json.dumps({"timestamp": [NOW, NOW], "value": [1, "x"]}), "application/json"),
        ("".join(json.dumps({"timestamp": NOW, "value": value}) + "\n" for value in (1, "x")), NDJSON),
        (f"timestamp,value\n{NOW},1\n{NOW},x\n", CSV),
    ],
)
def test_a_dry_run_of_every_form(client: FlaskClient, body: str, media_type: str) -> None:
    """Faults are told with a 200; without partial=true one of them would refuse all."""
    for partial, stored in (("false", 0), ("true", 1)):
        told = send(client, body, media_type=media_type, dry_run="true", partial=partial).json
        assert (told["stored"], told["rejected"], told["rows"]) == (stored, 1, 2)
        assert told["errors"][0]["field"] == "value"
        assert [part["events"] for part in told["series"]] == [1]
    assert client.get("/series").json["series"] == []


def test_a_dry_run_uses_up_no_key(client: FlaskClient) -> None:
    """Before the recording, after it, and with another body under the same key."""
    headers = {"Content-Type": CSV, "Idempotency-Key": "a"}
    body = "timestamp,value\n2025-11-20 07:45,1\n"
    for _ in range(2):
        assert client.post("/events?dry_run=true", data=body, headers=headers).json["status"] == "dry_run"
        assert client.post("/events", data=body, headers=headers).json["stored"] == 1
    assert client.post("/events?dry_run=true", data=body + "2025-11-20,2\n", headers=headers).json["rows"] == 2
    assert client.get("/statistics").json["count"] == 1


def test_a_dry_run_of_many_series_lists_the_first(client: FlaskClient) -> None:
    """And says how many there are."""
    body = "t,n,v\n" + "".join(f"2025-11-20 07:45,s{number:03},1\n" for number in range(150))
    told = send(client, body, timestamp="t", series="n", value="v", dry_run="true").json
    assert (len(told["series"]), told["series_total"]) == (100, 150)


def test_a_dry_run_of_nothing(client: FlaskClient) -> None:
    """A header alone."""
    told = send(client, "timestamp,value\n", dry_run="true").json
    assert (told["rows"], told["first"], told["last"], told["series"]) == (0, None, None, [])


# -- notes and bounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "as_utc"),
    [
        ({}, 2),
        ({"timezone": "Europe/Berlin"}, 0),
        ({"time_format": "%Y-%m-%d %H:%M"}, 2),
        ({"time_format": "%Y-%m-%d %H:%M", "timezone": "+01:00"}, 0),
    ],
)
def test_times_read_as_utc_are_told(client: FlaskClient, query: dict[str, str], as_utc: int) -> None:
    """Only where no zone was named: two events outside the window, by line."""
    body = "t,v\n2025-11-20 04:45,1\n2025-11-20 03:45,1\n"
    told = send(client, body, timestamp="t", value="v", **query).json
    assert told["notes_by_kind"]["read_as_utc"] == as_utc
    assert [note["line"] for note in told["notes"]] == [2, 3]


def test_expired_rows_are_refused_by_line_and_column(client: FlaskClient) -> None:
    """With expired=reject, as in the plain form, and no query is proposed: the file was read."""
    body = "t,v\n2025-11-20 07:45,1\n2015-11-20 07:45,1\n"
    problem = assert_problem(send(client, body, timestamp="t", value="v", expired="reject"), 422, "validation")
    assert [(error["line"], error["field"]) for error in problem["errors"]] == [(3, "t")]
    assert "goes to POST" not in problem["detail"]


def test_a_refusal_stays_short(client: FlaskClient) -> None:
    """Long names, many columns, long fields: nothing of a body fills the answer."""
    bodies = [
        ",".join(f"c{number}" for number in range(5000)) + "\n" + ",".join("1" * 5000) + "\n",
        f"time,{'x' * 60_000},b\n2025-11-20,1,2\n",
        f"time;{'x' * 900};b\n2025-11-20;1;2\n",
        "time,a,b\n2025-11-20," + "x" * 60_000 + ",1\n",
    ]
    for body in bodies:
        for query in ({}, {"timestamp": "time"}, {"timestamp": "time", "value": "b", "tags": "a"}):
            response = send(client, body, **query)
            assert response.status_code in (200, 422)
            assert len(response.data) < 25 * 1024 + ECHO_MAX * 100


words = st.sampled_from(
    ["timestamp", "time", "date", "value", "a", "", "1", "2", "b;c=d", "=x", ",", '"', "\0", "\ud7ff", "x" * 3000]
)
readings = st.fixed_dictionaries(
    {},
    optional={
        **{
            name: words for name in PARAMETERS if name not in ("delimiter", "skip", "header", "time_format", "timezone")
        },
        "delimiter": st.sampled_from([",", ";", "tab", "space", "|", "\n", "", "aa"]),
        "decimal": st.sampled_from([".", ",", "x"]),
        "fold": st.sampled_from(["earlier", "later", ""]),
        "skip": st.sampled_from(["0", "1", "5", "-1", "x"]),
        "header": st.sampled_from(["true", "false", "maybe"]),
        "dry_run": st.sampled_from(["true", "false", ""]),
        "time_format": st.one_of(st.sampled_from(["%d.%m.%Y", "%Y-%m-%d %H:%M", "%"]), st.text(max_size=12)),
        "timezone": st.one_of(st.sampled_from(["Europe/Berlin", "+01:00", "UTC", "..", "posix"]), st.text(max_size=12)),
    },
)
cells = st.one_of(
    st.sampled_from(
        ["timestamp", "value", "time", "2025-11-20", "20.11.2025 07:45", "1", "1,5", "", '"', "NaN", "9" * 400]
    ),
    st.text(max_size=6),
)


@http
@given(
    st.lists(st.lists(cells, max_size=5), max_size=8),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    readings,
    st.booleans(),
)
def test_no_table_and_no_query_is_a_fault_of_the_service(
    client: FlaskClient, rows: list[list[str]], delimiter: str, end: str, query: dict[str, str], quoted: bool
) -> None:
    """Whatever is sent: an answer or a refusal, and every rejected event has a reason."""
    if quoted:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
        body = text.getvalue()
    else:
        body = "".join(delimiter.join(row) + end for row in rows)
    response = send(client, body.encode("utf-8", "surrogatepass"), **query)
    assert response.status_code in (200, 400, 413, 422), response.text
    if response.status_code == 200 and response.json["rejected"]:
        assert response.json["errors"]
    for path in SHOWN.findall(response.text.replace('\\"', '"')) if response.status_code == 422 else ():
        assert send(client, body.encode("utf-8", "surrogatepass"), path).status_code in (200, 422)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("2025-11-20")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@http
@given(st.lists(st.dictionaries(words, values, max_size=4), max_size=6), readings)
def test_no_line_of_json_is_a_fault_of_the_service(
    client: FlaskClient, items: list[dict[str, Any]], query: dict[str, str]
) -> None:
    """The same for NDJSON with members of any kind."""
    body = "".join(json.dumps(item) + "\n" for item in items)
    response = send(client, body, media_type=NDJSON, **query)
    assert response.status_code in (200, 400, 413, 422), response.text
    if response.status_code == 200 and response.json["rejected"]:
        assert response.json["errors"]


def test_random_bytes_are_no_fault_of_the_service(client: FlaskClient) -> None:
    """Of any kind, with a mapping."""
    source = random.Random(7)
    for size in (1, 10, 1000, 100_000):
        for media_type in (CSV, NDJSON):
            body = source.randbytes(size)
            for query in ({}, {"timestamp": "a", "value": "b"}, {"header": "false", "timestamp": "1", "value": "2"}):
                assert send(client, body, media_type=media_type, **query).status_code in (200, 400, 413, 422)


@pytest.mark.parametrize("shift", ["1h", "-1h", "+90s", "1d12h", "-PT15M", "0.000001s"])
def test_events_can_be_moved(client: FlaskClient, clock: FakeClock, shift: str) -> None:
    """By a duration with a sign, in every form, before anything is said of where they lie."""
    sign = -1 if shift[0] == "-" else 1
    moment_us = clock.now_us - 600 * 10**6
    sent_us = moment_us - sign * parse_duration_us(shift.lstrip("+-"))
    sent = format_timestamp(sent_us)
    bodies = {
        "application/json": json.dumps([{"timestamp": sent, "value": 1}]),
        "application/x-ndjson": json.dumps({"timestamp": sent, "value": 2}),
        "text/csv": f"timestamp,value\n{sent},3\n",
    }
    for media_type, body in bodies.items():
        answer = client.post(f"/events?shift={quote(shift)}", data=body, content_type=media_type)
        assert answer.json == {"status": "success", "stored": 1, "duplicates": 0, "expired": 0, "rejected": 0}
    mapped = client.post(
        f"/events?timestamp=t&value=v&shift={quote(shift)}", data=f"t,v\n{sent},4\n", content_type="text/csv"
    )
    assert mapped.json["stored"] == 1
    events = client.get("/events").json["events"]
    assert [(parse_timestamp_us(event["timestamp"]), event["value"]) for event in events] == [
        (moment_us, float(number)) for number in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("shift", "timestamp", "said"),
    [
        ("soon", NOW, "must be a duration such as 9d or -1h30m"),
        ("--1h", NOW, "must be a duration"),
        ("3000000d", NOW, "after the year 9999"),
        ("-3000000d", NOW, "before the year 1"),
        ("99999999999999", NOW, "out of the years 1 to 9999"),
        ("-999999999999999d", NOW, "out of the years 1 to 9999"),
    ],
)
def test_moves_that_lead_nowhere_are_refused(client: FlaskClient, shift: str, timestamp: str, said: str) -> None:
    """A shift is refused if it is no duration or leaves the years that exist."""
    body = json.dumps([{"timestamp": timestamp, "value": 1}])
    answer = client.post(f"/events?shift={shift}", data=body, content_type="application/json")
    problem = assert_problem(answer, 422, "validation")
    assert said in problem["errors"][0]["reason"]
