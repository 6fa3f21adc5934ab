"""Tables with any columns, held against csv.DictReader, strptime, zoneinfo and Decimal, row by row."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from statsapi.api.decoding import Decoded, decode, local_times, ndjson_reader, timestamps
from statsapi.api.decoding.local_times import Clock
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.api.decoding.time_formats import check_format
from statsapi.api.decoding.time_zones import Fold, ZoneRefused, find_zone, to_utc_us
from statsapi.api.schemas import BatchQuery
from statsapi.times import parse_timestamp_us

CSV, NDJSON = "text/csv", "application/x-ndjson"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

slow = settings(suppress_health_check=[HealthCheck.too_slow])

# -- the naive twin ------------------------------------------------------------------------------------------------


@dataclass
class Twin:
    """Events by series, and the (line, column) of each fault."""

    events: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)


def twin_time(text: str, time_format: str | None, zone: str | None, fold: str | None) -> int:
    """Microseconds, by strptime and zoneinfo alone; ValueError where there is no one reading."""
    if time_format is not None:
        moment = datetime.strptime(text.strip(), time_format)
    else:
        moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        place = zoneinfo.ZoneInfo(zone or "UTC")
        first, second = (moment.replace(tzinfo=place, fold=number).astimezone(UTC) for number in (0, 1))
        if first != second and fold is None:
            raise ValueError("two readings")
        moment = min(first, second) if fold == "earlier" else max(first, second)
    return (moment - EPOCH) // timedelta(microseconds=1)


def twin_value(text: str, decimal: str) -> float:
    if decimal == ",":
        if "." in text:
            raise ValueError("a point")
        text = text.replace(",", ".")
    if not re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", text, re.ASCII):
        raise ValueError("no number")
    return float(Decimal(text.strip()))


def twin(body: str, query: dict[str, str]) -> Twin:
    """What a table comes to, row by row."""
    told = Twin()
    delimiter = {"tab": "\t"}.get(query.get("delimiter", ","), query.get("delimiter", ","))
    reader = csv.DictReader(io.StringIO(body, newline=""), delimiter=delimiter)
    values = query["value"].split(",")
    for row in reader:
        line = reader.line_num
        if "timestamp" in query:
            column, text = query["timestamp"], row[query["timestamp"]]
        else:
            column = f"{query['date']} and {query['time']}"
            text = f"{row[query['date']].strip()} {row[query['time']].strip()}"
        fields = {name: row[name] for name in values}
        if len(values) > 1:
            fields = {name: text for name, text in fields.items() if text.strip()}
            if not fields:
                continue
        faults = []
        try:
            ts_us = twin_time(text, query.get("time_format"), query.get("timezone"), query.get("fold"))
        except ValueError:
            faults.append((line, column))
        found = {}
        for name, number in fields.items():
            try:
                found[name] = twin_value(number, query.get("decimal", "."))
            except ValueError:
                faults.append((line, name))
        told.faults += faults
        if (line, column) in faults:
            continue
        for name, value in found.items():
            base = row[query["series"]] if "series" in query else query.get("into", "")
            if len(values) > 1:
                base = f"{base}.{name}" if base else name
            tags = {tag: row[tag] for tag in query.get("tags", "").split(",") if tag and row[tag]}
            series = ";".join([base or "default", *(f"{key}={tags[key]}" for key in sorted(tags))])
            told.events.setdefault(series, []).append((ts_us, value))
    return told


def seen(decoded: Decoded) -> Twin:
    events = {
        part.series: list(zip(part.ts_us.tolist(), part.values.tolist(), strict=True)) for part in decoded.batch.parts
    }
    return Twin(events, [(error["line"], error["field"]) for error in decoded.errors])


def mapping_of(query: dict[str, Any]) -> ColumnMapping:
    """As the endpoint makes it of a query."""
    found = ColumnMapping.of_parameters(BatchQuery().load(query))
    assert found is not None
    return found


def read(body: str | bytes, media_type: str = CSV, **query: str) -> Decoded:
    return read_most(100_000, body, media_type, query)


def read_most(most: int, body: str | bytes, media_type: str, query: dict[str, str]) -> Decoded:
    body = body.encode() if isinstance(body, str) else body
    return decode(body, media_type, max_events=most, mapping=mapping_of(query))


def check(body: str, query: dict[str, str]) -> None:
    """As the twin does, with times read by numpy where it can as well as one by one."""
    expected = twin(body, query)
    for vector_min in (1, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timestamps, "_VECTOR_MIN", vector_min)
            decoded = read(body, **query)
        assert seen(decoded) == expected
        assert (decoded.rejected > 0) == bool(expected.faults)
        assert len(decoded.batch) + decoded.rejected == decoded.received


# -- tables as people have them --------------------------------------------------------------------------------------

FORMATS = [
    None,
    "%Y-%m-%dT%H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%y %H:%M",
    "%Y%m%d%H%M%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%d %b %Y %H:%M:%S",
    "%Y %j %H",
    "%Y-%m-%d %H:%M:%S%z",
    "%d.%m.%Y, %H Uhr %M",
    "%d.%m.%Y",
]
ZONES = [None, "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca"]

# Around changes of clock, and anywhere else.
moments = st.one_of(
    st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)),
    st.builds(
        lambda year_day, minutes: datetime(*year_day) + timedelta(minutes=minutes, seconds=minutes % 7),
        st.sampled_from([(2026, 3, 29), (2026, 10, 25), (2026, 11, 1), (2026, 3, 8), (2026, 4, 5), (2026, 2, 15)]),
        st.integers(-60, 24 * 60),
    ),
)
ODD_TEXTS = ["", "x", "31.02.2026 07:45", "2026-02-30 00:00:00", "20.11.2026", "7:5", "٣", "2026-11-20 07:45:61"]


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A table, and the query that reads it."""
    time_format = draw(st.sampled_from(FORMATS))
    zone = draw(st.sampled_from(ZONES))
    delimiter = draw(st.sampled_from([",", ";", "|", "tab"]))
    decimal = draw(st.sampled_from([".", ","]))
    values: list[str] = draw(st.sampled_from([["cpu"], ["cpu", "mem"], ["mem", "Länge", "cpu"]]))
    others: list[str] = draw(st.lists(st.sampled_from(["host", "region", "note"]), unique=True))
    query = {"timestamp": "when", "value": ",".join(values), "delimiter": delimiter, "decimal": decimal}
    if time_format:
        query["time_format"] = time_format
    if zone:
        query["timezone"] = zone
        if draw(st.booleans()):
            query["fold"] = draw(st.sampled_from(["earlier", "later"]))
    named = [name for name in others if name != "note"]
    if draw(st.booleans()) and named:
        query["series"] = named.pop()
    elif draw(st.booleans()):
        query["into"] = "web"
    if draw(st.booleans()) and named:
        query["tags"] = ",".join(named)
    if query["delimiter"] == ",":
        del query["delimiter"]
    header = draw(st.permutations(["when", *values, *others, "ignored"]))

    def written(moment: datetime) -> str:
        if time_format is None:
            return moment.isoformat(
                sep=draw(st.sampled_from("T ")), timespec=draw(st.sampled_from(["seconds", "auto"]))
            )
        return moment.replace(tzinfo=UTC).strftime(time_format)

    base = draw(moments)
    step = timedelta(minutes=draw(st.sampled_from([1, 15, 30, 60 * 24])))
    rows = []
    for number in range(draw(st.integers(0, 12))):
        moment = draw(st.one_of(st.just(base + number * step), moments))
        row = {"when": written(moment) if draw(st.integers(0, 9)) else draw(st.sampled_from(ODD_TEXTS))}
        for name in values:
            text = draw(
                st.one_of(
                    st.integers(-(10**6), 10**6).map(str),
                    st.decimals(-(10**6), 10**6, places=3).map(lambda value: f"{value:f}"),
                    st.sampled_from(["", "-0", "0", "x", "1.234,5", " 7 "]),
                )
            )
            row[name] = text.replace(".", ",") if decimal == "," and text != "1.234,5" else text
        row |= {name: draw(st.sampled_from(["a", "b", "", "web 1"])) for name in [*others, "ignored"]}
        rows.append(row)
    body = io.StringIO(newline="")
    writer = csv.DictWriter(
        body,
        header,
        delimiter={"tab": "\t"}.get(delimiter, delimiter),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writeheader()
    writer.writerows(rows)
    return body.getvalue(), query


@slow
@given(tables())
def test_a_table_is_read_as_the_twin_reads_it(table: tuple[str, dict[str, str]]) -> None:
    """Any columns, delimiter, decimals, format and zone: the same events, the same faults by line and column."""
    check(*table)


@slow
@given(st.sampled_from([name for name in FORMATS if name]), st.lists(moments, min_size=1, max_size=70), st.data())
def test_a_column_by_a_format_is_what_strptime_makes_of_it(
    time_format: str, times: list[datetime], data: st.DataObject
) -> None:
    """Also where digits are lost, doubled or others: numpy may take no text that strptime does not."""
    texts = [time.replace(tzinfo=UTC).strftime(time_format) for time in times]
    for row in data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)):
        at = data.draw(st.integers(0, len(texts[row])))
        texts[row] = texts[row][:at] + data.draw(st.sampled_from(["", "0", "9", " ", "x", ":"])) + texts[row][at + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timestamps, "_VECTOR_MIN", 1)
        ts_us, good = Clock(time_format).read_us(texts)
    for text, found, known in zip(texts, ts_us.tolist(), good.tolist(), strict=True):
        try:
            expected = twin_time(text, time_format, None, None)
        except ValueError:
            expected = None
        assert (found if known else None) == expected, text


def test_years_of_two_digits() -> None:
    """All hundred, at once and one by one: 69 to 99 are of the last century."""
    texts = [f"01.02.{year:02}" for year in range(100)]
    for some in (texts, texts[:60], texts[60:]):
        ts_us, good = Clock("%d.%m.%y").read_us(some)
        assert good.all()
        assert ts_us.tolist() == [twin_time(text, "%d.%m.%y", None, None) for text in some]


@slow
@given(st.sampled_from([zone for zone in ZONES if zone]), st.lists(moments, min_size=1, max_size=50))
def test_local_times_are_what_zoneinfo_makes_of_them(zone: str, times: list[datetime]) -> None:
    """Each alone and all together, with either fold and without; years in which a clock was changed by seconds too."""
    texts = [time.isoformat() for time in times]
    folds: list[Fold | None] = [None, "earlier", "later"]
    for fold in folds:
        clock = Clock(None, find_zone(zone), zone, fold)
        ts_us, good = clock.read_us(texts)
        for text, found, known in zip(texts, ts_us.tolist(), good.tolist(), strict=True):
            try:
                expected = twin_time(text, None, zone, fold)
            except ValueError:
                with pytest.raises(ValueError, match=r"happened twice|never happened"):
                    clock.read_one_us(text)
                assert not known
            else:
                assert (known, found) == (True, expected)
                assert clock.read_one_us(text) == expected


@pytest.mark.parametrize("zone", ["Europe/Amsterdam", "America/Anchorage", "Pacific/Apia", "Africa/Monrovia"])
def test_clocks_of_before_1970_and_days_that_were_left_out(zone: str) -> None:
    """Offsets with seconds, a day that Samoa skipped: every quarter of an hour of some days, as zoneinfo has them."""
    texts = []
    for day in ("1937-07-01", "1867-10-18", "2011-12-29", "2011-12-30", "1972-01-07", "1983-10-30"):
        begin = datetime.fromisoformat(day)
        texts += [(begin + timedelta(minutes=15 * at)).isoformat() for at in range(-8, 120)]
    folds: list[Fold] = ["earlier", "later"]
    for fold in folds:
        ts_us, good = Clock(None, find_zone(zone), zone, fold).read_us(texts)
        assert good.all()
        assert ts_us.tolist() == [twin_time(text, None, zone, fold) for text in texts]


def test_a_time_with_an_offset_keeps_it() -> None:
    """timezone= is for those without one; Unix time has one by what it is."""
    body = "timestamp,value\n2026-07-01 12:00:00,1\n2026-07-01T12:00:00Z,2\n2026-07-01T12:00:00-05:00,3\n1782907200,4\n"
    [part] = read(body, timezone="Europe/Berlin").batch.parts
    noon = parse_timestamp_us("2026-07-01T12:00:00Z")
    hour = 3_600_000_000
    assert [(int(ts_us) - noon) // hour for ts_us in part.ts_us] == [-2, 0, 5, 0]


# -- which columns ---------------------------------------------------------------------------------------------------


def names_of(decoded: Decoded) -> list[str]:
    return [part.series for part in decoded.batch.parts]


def test_several_values_make_series_named_by_their_columns() -> None:
    """Behind the row's series, or the one they all go into; an empty field is no event, and is counted."""
    body = "t,cpu,mem,host\n2026-11-20,1,2,a\n2026-11-20,3,,b\n"
    decoded = read(body, timestamp="t", value="cpu,mem")
    assert (names_of(decoded), decoded.empty, decoded.received, decoded.rows) == (["cpu", "mem"], 1, 3, 2)
    assert names_of(read(body, timestamp="t", value="cpu,mem", into="web")) == ["web.cpu", "web.mem"]
    assert names_of(read(body, timestamp="t", value="cpu,mem", into="web;dc=x")) == ["web.cpu;dc=x", "web.mem;dc=x"]
    assert names_of(read(body, timestamp="t", value="cpu,mem", series="host")) == ["a.cpu", "a.mem", "b.cpu"]
    assert names_of(read(body, timestamp="t", value="cpu", tags="host")) == ["default;host=a", "default;host=b"]
    assert names_of(read(body, timestamp="t", value="cpu", into="use", tags="host")) == ["use;host=a", "use;host=b"]


def test_a_ragged_row_behind_an_empty_field_is_rejected() -> None:
    """It is no empty field, whatever stands before it."""
    decoded = read("t,cpu,mem\n2026-11-20,1,\n2026-11-20\n", timestamp="t", value="cpu,mem")
    assert (decoded.empty, decoded.rejected, len(decoded.batch)) == (1, 2, 1)
    assert [error["line"] for error in decoded.errors] == [3]


def test_an_empty_value_is_refused_where_it_is_the_only_one() -> None:
    """A row without any value would be there for nothing."""
    decoded = read("t,cpu\n2026-11-20,\n", timestamp="t", value="cpu")
    assert decoded.rejected == 1
    assert decoded.errors == [
        {"line": 2, "field": "cpu", "reason": "is empty: give a number such as 42.5, or leave the event out"}
    ]


def test_columns_by_number() -> None:
    """Where no line names them; lines before them are left out, and counted all the same."""
    decoded = read(
        "a report\r\n\r\n2026-11-20,7,x\r\n2026-11-21,y,x\r\n", header="false", timestamp="1", value="2", skip="1"
    )
    assert decoded.rejected == 1
    assert (decoded.errors[0]["line"], decoded.errors[0]["field"]) == (4, "column 2")
    assert names_of(read("2026-11-20,7,8\n", header="false", timestamp="1", value="2,3", into="w")) == ["w.2", "w.3"]


def test_names_with_commas_stand_in_quotes() -> None:
    """In the header as in the parameter, which is a line of CSV."""
    decoded = read('t,"in, C","a ""b"""\n2026-11-20,1,2\n', timestamp="t", value='"in, C","a ""b"""')
    assert names_of(decoded) == ["in, C", 'a "b"']
    assert names_of(read("t,a,b\n2026-11-20,1,2\n", timestamp="t", value="a, b")) == ["a", "b"]


def test_what_is_left_to_the_header() -> None:
    """Without columns the plain ones are meant, a series too; with some named all others are passed over."""
    assert names_of(read("timestamp,value,series\n2026-11-20,1,a\n", timezone="UTC")) == ["a"]
    assert names_of(read("timestamp,value,series\n2026-11-20,1,a\n", timestamp="timestamp")) == ["default"]
    assert names_of(read("date,cpu\n2026-11-20,1\n", delimiter=",", into="x")) == ["x"]
    with pytest.raises(ValidationError, match="the others"):
        read("timestamp,value,host\n2026-11-20,1,a\n", timezone="UTC")
    with pytest.raises(ValidationError, match="hold values"):
        read("timestamp,cpu,mem\n2026-11-20,1,2\n", timezone="UTC")


BAD_QUERIES = [
    ({"timestamp": "t", "date": "d", "time": "x"}, "date", "cannot be combined"),
    ({"date": "d"}, "date", "needs time="),
    ({"time": "d"}, "time", "needs date="),
    ({"series": "a", "into": "b"}, "into", "cannot be combined"),
    ({"into": "=x"}, "into", "spreadsheets"),
    ({"into": ""}, "into", "is empty"),
    ({"value": "a,a"}, "value", "twice"),
    ({"value": '"a'}, "value", "not closed"),
    ({"value": ",".join(map(str, range(101)))}, "value", "at most 100"),
    ({"tags": ",".join(map(str, range(21)))}, "tags", "at most 20"),
    ({"tags": "a=b"}, "tags", "cannot be a tag"),
    ({"delimiter": "ab"}, "delimiter", "one character"),
    ({"delimiter": '"'}, "delimiter", "one character"),
    ({"delimiter": "1"}, "delimiter", "one character"),
    ({"delimiter": "é"}, "delimiter", "one character"),
    ({"delimiter": ""}, "delimiter", "one character"),
    ({"decimal": "'"}, "decimal", "must be"),
    ({"fold": "0", "timezone": "UTC"}, "fold", "earlier or later"),
    ({"fold": "later"}, "fold", "needs a timezone"),
    ({"timezone": "europe/berlin"}, "timezone", "write Europe/Berlin"),
    ({"timezone": "Berlin"}, "timezone", "write Europe/Berlin"),
    ({"timezone": "New York"}, "timezone", "write America/New_York"),
    ({"timezone": "CETT"}, "timezone", "no zone known"),
    ({"timezone": "Europe"}, "timezone", "no zone known"),
    ({"timezone": "zone.tab"}, "timezone", "no zone known"),
    ({"timezone": "../../etc/passwd"}, "timezone", "no zone known"),
    ({"timezone": "/etc/localtime"}, "timezone", "no zone known"),
    ({"timezone": "\0"}, "timezone", "no zone known"),
    ({"timezone": "+25:00"}, "timezone", "no zone known"),
    ({"timezone": ""}, "timezone", "no zone known"),
    ({"timezone": "GMT+1"}, "timezone", "write +01:00"),
    ({"timezone": "gmt 1"}, "timezone", "write +01:00"),
    ({"timezone": "UTC+2"}, "timezone", "write +02:00"),
    ({"timezone": "GMT-5"}, "timezone", "write -05:00"),
    ({"timezone": "UTC\u22125"}, "timezone", "write -05:00"),
    ({"timezone": "UTC+5:30"}, "timezone", "write +05:30"),
    ({"timezone": "UTC +0530"}, "timezone", "write +05:30"),
    ({"timezone": "Etc/GMT 1"}, "timezone", "write -01:00"),
    ({"timezone": "+1"}, "timezone", "write +01:00"),
    ({"timezone": "UTC+00"}, "timezone", "write UTC"),
    ({"timezone": "UTC+24"}, "timezone", "no zone known"),
    ({"timezone": "localtime"}, "timezone", "the server"),
    ({"timezone": "posixrules"}, "timezone", "the server"),
    ({"timezone": "Factory"}, "timezone", "the server"),
    ({"timezone": "LOCALTIME"}, "timezone", "the server"),
    ({"timezone": "right/Europe/Berlin"}, "timezone", "write Europe/Berlin"),
    ({"timezone": "posix/Europe/Berlin"}, "timezone", "write Europe/Berlin"),
    ({"skip": "-1"}, "skip", ""),
    ({"header": "maybe"}, "header", "must be true or false"),
    ({"skip": "1001"}, "skip", ""),
    ({"header": "false"}, "timestamp", "number"),
    ({"header": "false", "timestamp": "1", "value": "2,3"}, "value", "into=NAME"),
    ({"header": "false", "timestamp": "1", "value": "2", "tags": "3"}, "tags", "have none"),
    ({"time_format": ""}, "time_format", "year, month and day"),
    ({"time_format": "%H:%M"}, "time_format", "year, month and day"),
    ({"time_format": "%d.%m. %H:%M"}, "time_format", "year, month and day"),
    ({"time_format": "%s"}, "time_format", "Unix time"),
    ({"time_format": "%Y-%m-%d %Z"}, "time_format", "timezone="),
    ({"time_format": "%c"}, "time_format", "strptime"),
    ({"time_format": "%F %T"}, "time_format", "write %Y-%m-%d"),
    ({"time_format": "%Y-%m-%d %T"}, "time_format", "write %H:%M:%S"),
    ({"time_format": "%Y-%m-%d %"}, "time_format", "not read here"),
    ({"time_format": "%Y-%m-%d %I:%M"}, "time_format", "%p"),
    ({"time_format": "%Y-%m-%d %H:%M %p"}, "time_format", "%I"),
    ({"time_format": "%Y-%m-%d %M"}, "time_format", "without an hour"),
    ({"time_format": "%Y-%m-%d %d"}, "time_format", "%d and %d"),
    ({"time_format": "%Y %y-%m-%d"}, "time_format", "%Y and %y"),
    ({"time_format": "%Y-%m-%d %j"}, "time_format", "%j"),
    ({"time_format": "%Y-%m-%d" + "x" * 100}, "time_format", "at most 100"),
    ({"time_format": "%Y-%m-%d\n"}, "time_format", "printable"),
]


@pytest.mark.parametrize(("query", "parameter", "said"), BAD_QUERIES)
def test_a_parameter_at_fault_is_named(query: dict[str, str], parameter: str, said: str) -> None:
    """Before the body is looked at, with what to write."""
    with pytest.raises(ValidationError) as refused:
        mapping_of({"timestamp": "t", **query} if not {"date", "time", "header"} & set(query) else query)
    faults = refused.value.messages_dict
    assert said in " ".join(faults[parameter])


@pytest.mark.parametrize("hours", range(-12, 15))
@pytest.mark.parametrize("written", ["GMT{:+}", "UTC{:+}", "utc{:+03}", "UTC {:+}:00", "{:+}"])
def test_the_offset_that_is_proposed_means_the_same(written: str, hours: int) -> None:
    """Noon at GMT+1 is 11:00Z, although the zone called Etc/GMT+1 lies west of Greenwich."""
    name = written.format(hours)
    try:
        zone = find_zone(name)
    except ZoneRefused as refused:
        zone = find_zone(str(refused).rpartition("write ")[2])
    assert datetime(2026, 11, 20, 12, tzinfo=zone).astimezone(UTC) == datetime(
        2026, 11, 20, 12, tzinfo=UTC
    ) - timedelta(hours=hours)


@pytest.mark.parametrize("time_format", [*filter(None, FORMATS), "%G-W%V-%u", "%Y %U %a", "%%%Y%%%m%%%d", "[%Y(%m)*%d"])
def test_formats_that_name_a_day_are_taken(time_format: str) -> None:
    """Weeks and marks of regular expressions too: what was written with it is read with it."""
    check_format(time_format)
    moment = datetime(2026, 11, 23, 7, tzinfo=UTC)
    text = moment.strftime(time_format)
    assert Clock(time_format).read_one_us(text) == twin_time(text, time_format, None, None)


BAD_TABLES = [
    ("a,b\n1,2\n", {"timestamp": "x", "value": "b"}, "timestamp", "there are a, b"),
    ("a,b\n1,2\n", {"timestamp": "a", "value": "x"}, "value", "there are a, b"),
    ("a,b\n1,2\n", {"timestamp": "a", "value": "b", "series": "x"}, "series", "there are"),
    ("a,b\n1,2\n", {"timestamp": "a", "value": "b", "tags": "x"}, "tags", "there are"),
    ("a,b\n1,2\n", {"date": "a", "time": "x", "value": "b"}, "time", "there are"),
    ("a,b\n1,2\n", {"timestamp": "a", "value": "a"}, "value", "is the time"),
    ("a,b,b\n1,2,3\n", {"timestamp": "a", "value": "b"}, "value", "columns 2 and 3"),
    ("a;b\n1;2\n", {"timestamp": "a", "value": "b"}, "timestamp", "there are a;b"),
    ("1,2\n", {"header": "false", "timestamp": "1", "value": "3"}, "value", "from 1 to 2"),
    ("1,2\n", {"header": "false", "timestamp": "t", "value": "2"}, "timestamp", "from 1 to 2"),
    ("t,=a,=b\n1,2,3\n", {"timestamp": "t", "value": "=a,=b"}, "value", "cannot be a series"),
    ("", {"timestamp": "a", "value": "b"}, "_schema", "empty"),
    ("a,b\n1,2\n", {"timestamp": "a", "value": "b", "skip": "2"}, "_schema", "skip"),
]


@pytest.mark.parametrize(("body", "query", "parameter", "said"), BAD_TABLES)
def test_a_column_that_is_not_there_is_named(body: str, query: dict[str, str], parameter: str, said: str) -> None:
    """With those that are there, and by the parameter that names it."""
    with pytest.raises(ValidationError) as refused:
        read(body, **query)
    assert said in " ".join(refused.value.normalized_messages()[parameter])


BAD_ROWS = [
    ("t,v\n20.11.2026 07:45,1\n", {"time_format": "%d.%m.%Y"}, (2, "t"), "not written as time_format=%d.%m.%Y says"),
    ("t,v\n31.02.2026,1\n", {"time_format": "%d.%m.%Y"}, (2, "t"), "no moment that exists"),
    ("t,v\n,1\n", {"time_format": "%d.%m.%Y"}, (2, "t"), "is empty"),
    (
        "t,v\n2026-11-27 07.30,1\n",
        {},
        (2, "t"),
        "for the first write 2026-11-27T07:30, or add time_format=%Y-%m-%d %H.%M",
    ),
    ('t,v\n"2026-11-27 07,30",1\n', {}, (2, "t"), "or add time_format=%Y-%m-%d %H,%M"),
    ("t,v\n2026-11-27T7.30.15,1\n", {}, (2, "t"), "or add time_format=%Y-%m-%dT%H.%M.%S"),
    ('t,v\n"2026-11-27 03:40,-05",1\n', {}, (2, "t"), "is not an ISO 8601"),
    ("t,v\n2026-10-25 02:30,1\n", {"timezone": "Europe/Berlin"}, (2, "t"), "fold=earlier for 2026-10-25T00:30:00Z"),
    ("t,v\n2026-03-29 02:30,1\n", {"timezone": "Europe/Berlin"}, (2, "t"), "never happened in Europe/Berlin"),
    ("t,v\n2026-11-20,1.5\n", {"decimal": ","}, (2, "v"), "decimal=,"),
    ('t,v\n2026-11-20,"1.052,46"\n', {"decimal": ","}, (2, "v"), "write 1052,46"),
    ("t,v\n7:45,1\n", {"time_format": "%d.%m.%Y"}, (2, "t"), "like 21.11.2025"),
    ('t,v\n2026-11-20,"1,2,3"\n', {"decimal": ","}, (2, "v"), "42,5"),
    ('t,v\n2026-11-20,"1 000,5"\n', {"decimal": ","}, (2, "v"), "has separators between its digits: write 1000,5"),
    ('t,v\n2026-11-20,"-1\u202f234\u202f567,5"\n', {"decimal": ","}, (2, "v"), "write -1234567,5"),
    ('t,v\n2026-11-20,"1\'000,5"\n', {"decimal": ","}, (2, "v"), "has separators between its digits: write 1000,5"),
    ('t,v\n2026-11-20,"1,000,000"\n', {"decimal": ","}, (2, "v"), "has separators between its digits: write 1000000"),
    ("t,v\n2026-11-20,1 000\n", {"decimal": ","}, (2, "v"), "has separators between its digits: write 1000"),
    ('t,v\n2026-11-20,"1,5"\n', {}, (2, "v"), "decimal comma"),
    ("t,v\n2026-11-20,NaN\n", {}, (2, "v"), "must be finite"),
    ("t,v\n2026-11-20,1e999\n", {}, (2, "v"), "must be finite"),
    ("t,v\n2026-11-20\n", {}, (2, ""), "has 1 fields"),
    ("t,v\n2026-11-20,1,2\n", {}, (2, ""), "has 3 fields"),
    ("t,v,s\n2026-11-20,1,=x\n", {"series": "s"}, (2, "s"), "formula"),
    ("t,v,s\n2026-11-20,1,a;b\n", {"tags": "s"}, (2, "s"), "semicolon"),
]


@pytest.mark.parametrize(("body", "query", "where", "said"), BAD_ROWS)
def test_a_row_at_fault_is_named(body: str, query: dict[str, str], where: tuple[int, str], said: str) -> None:
    """By line and column, with the cure; good rows beside it are taken."""
    good = "2026-11-20,1" if "time_format" not in query else "20.11.2026,1"
    good += ",x" if "s" in body.partition("\n")[0].split(",") else ""
    decoded = read(f"{body}{good}\n", timestamp="t", value="v", **query)
    assert (decoded.received, decoded.rejected) == (2, 1)
    assert len(decoded.batch) == 1
    assert (decoded.errors[0]["line"], decoded.errors[0]["field"]) == where
    assert said in decoded.errors[0]["reason"]


@pytest.mark.parametrize(
    ("time_format", "right", "wrong", "said"),
    [
        ("%A %d %B %Y", "Friday 27 November 2026", "Monday 27 November 2026", "2026-11-27 is a Friday, not a Monday"),
        ("%a, %d.%m.%Y %H:%M", "Fri, 27.11.2026 07:45", "Sun, 27.11.2026 07:45", "is a Friday, not a Sunday"),
        ("%Y-%m-%d %w", "2026-11-27 5", "2026-11-27 0", "is a Friday, not a Sunday"),
        ("%u %Y-%j", "5 2026-331", "1 2026-331", "is a Friday, not a Monday"),
    ],
)
def test_a_weekday_that_the_day_is_not_is_refused(time_format: str, right: str, wrong: str, said: str) -> None:
    """A weekday that contradicts the date gives a time two readings: it is refused, alone and in a column. With a
    week's number the weekday is a part of the date.
    """
    clock = Clock(time_format)
    assert clock.read_one_us(right) // 86_400_000_000 == 20_784
    with pytest.raises(ValueError, match=f"contradicts itself: .*{said}"):
        clock.read_one_us(wrong)
    assert clock.read_us([right, wrong] * 70)[1].tolist() == [True, False] * 70
    assert Clock("%G-W%V-%a").read_one_us("2026-W48-Fri") // 86_400_000_000 == 20_784


@pytest.mark.parametrize("digits", ["1234567", "123456789"])
def test_a_fraction_finer_than_a_microsecond_is_told(digits: str) -> None:
    """strptime takes six digits; what else is wrong is not blamed on them."""
    body = f"t,v\n20.11.2026 07:45:00.{digits},1\n20.11.2026 07:45,1\n"
    said = [
        error["reason"] for error in read(body, timestamp="t", value="v", time_format="%d.%m.%Y %H:%M:%S.%f").errors
    ]
    assert ["%f takes six digits: cut the rest off" in reason for reason in said] == [True, False]


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u00a0"])
@pytest.mark.parametrize("time_format", [None, "%Y-%m-%d %H:%M"])
@pytest.mark.parametrize(("where", "what"), [("d", "a date"), ("k", "a time of day")])
def test_half_a_time_is_no_time(blank: str, time_format: str | None, where: str, what: str) -> None:
    """An empty time of day is not midnight, and an empty date is not today: either is refused under its own column, in
    every form.
    """
    query = {"date": "d", "time": "k", "value": "v"} | ({} if time_format is None else {"time_format": time_format})
    row = {"d": "2026-11-20", "k": "07:45", "v": "1"}
    bad = row | {where: blank}
    body = io.StringIO(newline="")
    writer = csv.DictWriter(body, list(row))
    writer.writeheader()
    writer.writerows([row, bad, row])
    for text, media_type, line in ((body.getvalue(), CSV, 3), (lines(row, bad, row), NDJSON, 2)):
        decoded = read(text, media_type, **query)
        assert (len(decoded.batch), decoded.rejected) == (2, 1)
        said = {"line": line, "field": where, "reason": f"is empty: give {what}, or leave the event out"}
        assert decoded.errors == [said]


# -- NDJSON ----------------------------------------------------------------------------------------------------------


def lines(*items: Any) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def test_members_of_any_name() -> None:
    """Numbers as numbers or text, tags of any plain type, what is not named is read past, however deep."""
    body = lines(
        {"ts": 1795160700, "cpu": 1.5, "mem": "7", "host": "a", "up": True, "deep": {"a": [[1]]}},
        {"ts": "2026-11-20T07:45:00Z", "cpu": 2, "host": 5, "up": False},
    )
    decoded = read(body, NDJSON, timestamp="ts", value="cpu,mem", tags="host,up")
    assert decoded.errors == []
    assert seen(decoded).events == {
        "cpu;host=a;up=true": [(1795160700000000, 1.5)],
        "mem;host=a;up=true": [(1795160700000000, 7.0)],
        "cpu;host=5;up=false": [(parse_timestamp_us("2026-11-20T07:45:00Z"), 2.0)],
    }
    assert decoded.empty == 1


def test_one_and_true_are_two_tags() -> None:
    """They are equal to Python."""
    body = lines({"ts": 1795160700, "cpu": 1, "up": 1}, {"ts": 1795160700, "cpu": 1, "up": True})
    assert names_of(read(body, NDJSON, timestamp="ts", value="cpu", tags="up")) == ["default;up=1", "default;up=true"]


@pytest.mark.parametrize(
    ("item", "field_", "said"),
    [
        ({"cpu": 1}, "ts", "is not in this item"),
        ({"ts": None, "cpu": 1}, "ts", "is null"),
        ({"ts": True, "cpu": 1}, "ts", "must be"),
        ({"ts": 1795160700}, "cpu", "is not in this item"),
        ({"ts": 1795160700, "cpu": None}, "cpu", "not null"),
        ({"ts": 1795160700, "cpu": True}, "cpu", "true or false"),
        ({"ts": 1795160700, "cpu": [1]}, "", "not one value"),
        ({"ts": {}, "cpu": 1}, "", "not one value"),
        ({"ts": 1795160700, "cpu": 1, "host": 1.5}, "host", "decimals"),
        ([], "", "not a JSON object"),
        (None, "", "not a JSON object"),
        ("x", "", "not a JSON object"),
    ],
)
def test_a_line_at_fault_is_named(item: Any, field_: str, said: str) -> None:
    """By line and member; those around it are taken."""
    good = {"ts": 1795160700, "cpu": 1, "host": "a"}
    decoded = read(lines(good, item, good), NDJSON, timestamp="ts", value="cpu", tags="host")
    assert (len(decoded.batch), decoded.rejected) == (2, 1)
    assert (decoded.errors[0]["line"], decoded.errors[0]["field"]) == (2, field_)
    assert said in decoded.errors[0]["reason"]


def test_a_member_that_is_not_there_is_told_behind_blank_lines() -> None:
    """Where lines are read one by one, and for date and time apart, both."""
    good = {"d": "2026-11-20", "t": "07:45", "v": 1}
    body = "\n" + lines(good) + "\n \n" + lines({"v": 1}, {**good, "t": None})
    decoded = read(body, NDJSON, date="d", time="t", value="v")
    assert [(error["line"], error["field"], error["reason"].partition(":")[0]) for error in decoded.errors] == [
        (5, "d", "is not in this item"),
        (5, "t", "is not in this item"),
        (6, "t", "is null"),
    ]


def test_lines_that_cannot_be_read_are_named() -> None:
    """Broken JSON, bytes that are no UTF-8, a line too long, a number beyond all."""
    good = b'{"ts": 1795160700, "cpu": 1}\n'
    bad = [b"{\n", b'{"ts": "\xff"}\n', b'{"ts": 1, "x": "' + b"y" * 70_000 + b'"}\n', b'{"ts": 1, "cpu": 1e999}\n']
    decoded = read(good + b"".join(bad) + good, NDJSON, timestamp="ts", value="cpu")
    assert (len(decoded.batch), decoded.rejected) == (2, 4)
    assert [error["line"] for error in decoded.errors] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("body", "taken", "rejected"),
    [
        ('{"t":1795160700,"v":1}{"t":1795160701,"v":2}\n', 0, 1),
        ('{"t":1795160700,"v":1,"x":[{"a":1},\n{"b":2}]}{"t":1795160701,"v":2}\n', 0, 2),
        ('{"t":1795160700,"v":1}{"t":1795160701,"v":2}\n{"t":1795160700,\n"v":1}', 0, 3),
        ('\r\n{"t":1795160700,"v":1}\r\n \r\n{"t":1795160701,"v":2}\r\n', 2, 0),
    ],
)
def test_a_line_is_one_object(body: str, taken: int, rejected: int) -> None:
    """Two in one, or one in two, are no lines of NDJSON, however many objects there are in all."""
    decoded = read(body, NDJSON, timestamp="t", value="v")
    assert (len(decoded.batch), decoded.rejected) == (taken, rejected)


def test_what_only_csv_has_is_refused_for_ndjson() -> None:
    """By the parameter's name; and for JSON all of them, with what to do."""
    for query in ({"delimiter": ";"}, {"skip": "1"}, {"header": "false", "timestamp": "1", "value": "2"}):
        with pytest.raises(ValidationError, match="is for CSV"):
            read(lines({"timestamp": 1, "value": 1}), NDJSON, **query)
    with pytest.raises(ValidationError, match="jq"):
        read("[]", "application/json", timestamp="a")


def test_without_columns_ndjson_has_the_plain_members() -> None:
    """A misspelt one is refused there too."""
    plain = {"timestamp": "2026-11-20 07:45:00", "value": 1, "series": "a"}
    [part] = read(lines(plain), NDJSON, timezone="Europe/Berlin").batch.parts
    assert (part.series, int(part.ts_us[0])) == ("a", parse_timestamp_us("2026-11-20T06:45:00Z"))
    decoded = read(lines(plain, {**plain, "sereis": "b"}), NDJSON, timezone="Europe/Berlin")
    assert "sereis" in decoded.errors[0]["reason"]


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_events_are_counted_not_rows() -> None:
    """Three values a row: as many rows as fit, and not one more; in pieces, with quotes and as NDJSON."""
    query = {"timestamp": "t", "value": "a,b,c"}
    rows = ["2026-11-20,1,2,3"] * 4
    for quote in ("", '"'):
        body = f"t,{quote}a{quote},b,c\n" + "\n".join(rows)
        assert read_most(12, body, CSV, query).received == 12
        with pytest.raises(RequestEntityTooLarge):
            read_most(11, body, CSV, query)
    body = lines(*[{"t": "2026-11-20", "a": 1, "b": 2, "c": 3}] * 4)
    assert read_most(12, body, NDJSON, query).received == 12
    with pytest.raises(RequestEntityTooLarge):
        read_most(11, body, NDJSON, query)


def test_times_that_must_be_read_one_by_one_are_bounded() -> None:
    """By the limit of rare forms: strptime takes 10 µs each."""
    texts = [f"{second // 60:02}:{second % 60:02} 1 Jan {year}" for year in range(1000, 9999) for second in range(5)]
    with pytest.raises(RequestEntityTooLarge, match="one by one"):
        Clock("%M:%S %d %b %Y %H").read_us(texts)


@pytest.mark.slow
def test_days_that_are_looked_up_in_a_zone_are_bounded() -> None:
    """By the same limit: 45,000 days of 123 years."""
    texts = np.datetime_as_string(np.arange("1900-01-01", "2023-03-17", dtype="M8[D]").astype("M8[s]")).tolist()
    with pytest.raises(RequestEntityTooLarge, match="days"):
        Clock(None, find_zone("Europe/Berlin"), "Europe/Berlin").read_us(texts)
    assert Clock(None, find_zone("Europe/Berlin"), "Europe/Berlin").read_us(texts[-30_000:])[1].all()


class _CountingZone(tzinfo):
    """A zone of one offset that counts how often it was asked."""

    asked = 0

    def utcoffset(self, when: datetime | None) -> timedelta:
        self.asked += 1
        return timedelta(hours=1)

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> None:
        return None


def test_too_many_days_are_refused_before_a_zone_is_asked_for_any() -> None:
    """Each different day is asked for four times: asking for 40,000 days and then refusing the request took 0.7 s."""
    days = np.arange("1900-01-01", "2019-01-01", dtype="M8[D]").astype("M8[us]").astype(np.int64)
    with pytest.raises(RequestEntityTooLarge, match="days"):
        to_utc_us(days, zone := _CountingZone(), "later")
    assert zone.asked == 0
    assert to_utc_us(np.tile(days[:100], 20), zone, "later")[1].all()
    assert zone.asked == 400


def test_times_without_seconds_are_seen_to_have_no_offset_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not read a second time to find that out: for a column of 100,000 that took 0.6 s more."""
    monkeypatch.setattr(local_times, "has_offset", lambda text: pytest.fail(f"{text} was read again"))
    texts = [f"2025-11-{day:02} 02:30" for day in range(1, 31)]
    clock = Clock(None, find_zone("+01:00"), "+01:00")
    assert clock.read_us(texts)[0].tolist() == [parse_timestamp_us(f"{text}:00+01:00") for text in texts]


def test_times_in_a_format_take_little_memory() -> None:
    """At most 180 bytes for each of 100,000 texts: all at once their words and digits took 270."""
    texts = [f"21.{i % 12 + 1:02}.2025 07:{i % 60:02}:{i % 59:02}.{i:06}" for i in range(100_000)]
    clock = Clock("%d.%m.%Y %H:%M:%S.%f")
    clock.read_us(texts[:100])
    tracemalloc.start()
    try:
        ts_us, good = clock.read_us(texts)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 180 * len(texts)
    assert good.all()
    assert ts_us[::7919].tolist() == [clock.read_one_us(text) for text in texts[::7919]]


def test_a_long_text_is_no_time() -> None:
    """It is not handed to a regular expression."""
    with pytest.raises(ValueError, match="characters"):
        Clock("%Y %m %d").read_one_us("2026" + " " * 60_000 + "x")


# -- the query -------------------------------------------------------------------------------------------------------

column_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@given(
    st.lists(column_names, min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["a", "b c", "ü", 'q"', "x,y", "+"]), max_size=3, unique=True),
    st.sampled_from([",", ";", "|", "\t", " ", "^"]),
    st.sampled_from(["%d.%m.%Y %H:%M", "%Y+%m&%d=", None]),
    st.sampled_from(["Europe/Berlin", "+01:00", None]),
    st.integers(0, 1000),
)
def test_a_mapping_survives_its_query(
    values: Sequence[str], tags: Sequence[str], delimiter: str, time_format: str | None, zone: str | None, skip: int
) -> None:
    """What is shown as a URL's query is read back as the same mapping: commas, quotes, plus and ampersand too."""
    clock = Clock(time_format, find_zone(zone) if zone else None, zone)
    mapping = ColumnMapping(
        timestamp="", values=tuple(values), tags=tuple(tags), delimiter=delimiter, decimal=",", clock=clock, skip=skip
    )
    assert mapping_of(dict(parse_qsl(mapping.query(), keep_blank_values=True))) == mapping


def test_zeros_keep_their_sign() -> None:
    """Read all at once, -0 would lose it."""
    decoded = read("t,v\n2026-11-20,-0\n2026-11-20,0\n2026-11-20,-0.0\n", timestamp="t", value="v")
    assert np.signbit(decoded.batch.parts[0].values).tolist() == [True, False, True]


def test_many_columns_of_tags_take_little_memory() -> None:
    """4,000 rows of 20 short tags took 42 times their size; the series are those that the twin makes."""
    tags = [f"a{i}" for i in range(20)]
    body = f"t,v,{','.join(tags)}\n" + "".join(
        f"2025-11-21T07:45:00Z,1,{','.join(str(row % 97 * i % 99) for i in range(20))}\n" for row in range(4000)
    )
    query = {"timestamp": "t", "value": "v", "tags": ",".join(tags)}
    read(body, **query)
    tracemalloc.start()
    try:
        read(body, **query)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 26 * len(body)
    check(body, query)


def test_different_texts_in_many_columns_of_tags_are_refused_early() -> None:
    """A body whose tags cannot be named is refused before its columns are made."""
    rows = (",".join(["1", "1", *(f"{row:x}.{column}" for column in range(10))]) for row in range(25_000))
    body = "t,v,a,b,c,d,e,f,g,h,i,j\n" + "\n".join(rows)
    with pytest.raises(RequestEntityTooLarge, match="tags together"):
        read(body, timestamp="t", value="v", tags="a,b,c,d,e,f,g,h,i,j")


def test_lines_with_many_tags_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As each line alone is read, wherever a piece ends, with a tag that is missing, null, true or a number."""
    monkeypatch.setattr(ndjson_reader, "_PIECE_BYTES", 100)
    odd: list[dict[str, Any]] = [{}, {"e": None}, {"e": True}, {"e": 1}, {"e": "1"}, {"e": [1]}]
    items = [{"t": 1, "v": row, "a": "x", "b": str(row % 3), "c": "y" * 40, "d": "z"} for row in range(12)]
    items += [item | odd[row % 6] for row, item in enumerate(items)]
    query = {"timestamp": "t", "value": "v", "tags": "a,b,c,d,e", "partial": "true"}
    decoded = read(lines(*items), NDJSON, **query)
    one_by_one = [read(lines(item), NDJSON, **query) for item in items]
    assert decoded.rejected == sum(each.rejected for each in one_by_one)
    assert set(names_of(decoded)) == {name for each in one_by_one for name in names_of(each)}
    assert len(decoded.batch) == sum(len(each.batch) for each in one_by_one)
