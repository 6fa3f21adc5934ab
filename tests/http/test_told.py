"""What is told of every event: where it lies when it does not show, by POST /event and by each form of POST /events."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsapi.api.decoding import Sent
from statsapi.api.decoding.json_reader import parse_item
from statsapi.api.decoding.rows import Rows
from statsapi.api.notes import NOTED_MAX, STORED, _lacks_offset
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.durations import parse_duration_us
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from statsapi.times import format_timestamp, has_offset, parse_timestamp_us
from tests.calls import assert_problem, scrape, value
from tests.fakes import NOW, FakeClock
from tests.servers import ROOT

NOW_US = parse_timestamp_us(NOW)
KEPT_SINCE = "2025-11-20T07:40:00+00:00"  # a day and the grace ago
RAW_SINCE = "2025-11-21T06:40:00+00:00"  # an hour and the grace ago
AS_UTC = "; read as UTC, as it has no offset"


def client_of(**options: Any) -> FlaskClient:
    return create_app(Settings(journal="memory://", **options), clock_us=FakeClock(), background=False).test_client()


def ago(hours: float) -> str:
    """That long before now, with Z."""
    return format_timestamp(NOW_US - round(hours * HOUR_US)).replace("+00:00", "Z")


def naive(hours: float) -> str:
    return ago(hours).removesuffix("Z")


def told(client: FlaskClient, timestamp: object, query: str = "", **fields: object) -> str:
    answer = client.post(f"/event{query}", json={"timestamp": timestamp, "value": 1.0, **fields})
    assert answer.status_code == 200
    assert list(answer.json) == ["status", "message", "received_timestamp", "server_time"]
    assert answer.json["received_timestamp"] == format_timestamp(parse_timestamp_us(timestamp))
    message: str = answer.json["message"]
    return message


# -- one event -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timestamp",
    [
        ago(0),
        ago(1),  # closed on the left
        ago(0.5),
        naive(0),
        naive(1),
        ago(-1 / 60),  # a minute ahead is still what clocks differ by
        "2025-11-21T08:45:00+01:00",
        NOW_US // 10**6,
        NOW_US // 10**3,
        float(NOW_US // 10**6),
    ],
)
def test_an_event_that_shows_is_stored_successfully(timestamp: object) -> None:
    """In the default window, and not more than a minute ahead: the seed's own sentence."""
    assert told(client_of(), timestamp) == STORED == "Event stored successfully"


@pytest.mark.parametrize(
    ("timestamp", "message"),
    [
        (
            naive(5),
            "Event stored; it lies 5 h before now, outside the default window of 1 h"
            + AS_UTC
            + "; ?window=6h shows it",
        ),
        (ago(5), "Event stored; it lies 5 h before now, outside the default window of 1 h; ?window=6h shows it"),
        (
            "2025-11-21T03:45:00+01:00",
            "Event stored; it lies 5 h before now, outside the default window of 1 h; ?window=6h shows it",
        ),
        (
            (NOW_US - 5 * HOUR_US) // 10**6,
            "Event stored; it lies 5 h before now, outside the default window of 1 h; ?window=6h shows it",
        ),
        (
            ago(1 + 1 / 3600),
            "Event stored; it lies just over 1 h before now, outside the default window of 1 h; ?window=2h shows it",
        ),
        (
            ago(1.4),
            "Event stored; it lies 1 h 24 min before now, outside the default window of 1 h; ?window=2h shows it",
        ),
        (
            ago(23.75),
            "Event stored; it lies 23 h 45 min before now, outside the default window of 1 h; ?window=1d shows it",
        ),
        (ago(24), "Event stored; it lies 1 day before now, outside the default window of 1 h; ?window=1d shows it"),
        (
            ago(24 + 1 / 60),
            "Event stored; it lies 1 day before now, outside the default window of 1 h; it is about to expire",
        ),
        (
            "2025-11-21",  # midnight
            "Event stored; it lies 7 h 45 min before now, outside the default window of 1 h"
            + AS_UTC
            + "; ?window=12h shows it",
        ),
        (
            naive(20),  # nowhere on earth it is now
            "Event stored; it lies 20 h before now, outside the default window of 1 h; ?window=1d shows it",
        ),
        (
            naive(-9),
            "Event stored; it lies 9 h ahead of the server's clock: it counts in every window until then" + AS_UTC,
        ),
        (ago(-9), "Event stored; it lies 9 h ahead of the server's clock: it counts in every window until then"),
        (
            naive(-15),
            "Event stored; it lies 15 h ahead of the server's clock: it counts in every window until then",
        ),
        (
            format_timestamp(NOW_US + MINUTE_US + 1),
            "Event stored; it lies 1 min ahead of the server's clock: it counts in every window until then",
        ),
        (
            NOW_US // 10**6 + 86_400,
            "Event stored; it lies 1 day ahead of the server's clock: it counts in every window until then",
        ),
        (
            "2611-01-01T00:00:00Z",
            "Event stored; it lies 585 years ahead of the server's clock: it counts in every window until then",
        ),
        (
            "2020-11-20T07:45:00Z",
            "Event counts in no window (expired); it lies 5 years before now, but events are kept only since "
            f"{KEPT_SINCE}. To keep more, raise STATSAPI_ROLLUP_RETENTION (now 1d, roll-ups) or STATSAPI_RETENTION "
            "(now 1h, raw events).",
        ),
    ],
)
def test_where_an_event_lies_that_does_not_show(timestamp: object, message: str) -> None:
    """How far away, why, and what shows it; want of an offset is named only where another reading would show it."""
    assert told(client_of(), timestamp) == message


@pytest.mark.parametrize(
    ("options", "timestamp", "message"),
    [
        (
            {"rollup_retention_us": 0},
            naive(5),
            f"Event counts in no window (expired); it lies 5 h before now, but events are kept only since {RAW_SINCE}"
            f"{AS_UTC}. To keep more, raise STATSAPI_ROLLUP_RETENTION (now 0, roll-ups) or STATSAPI_RETENTION (now 1h, "
            "raw events).",
        ),
        (
            {"window_us": 5 * MINUTE_US},
            ago(0.2),
            "Event stored; it lies 12 min before now, outside the default window of 5 min; ?window=15m shows it",
        ),
        (
            {"window_us": 90 * MINUTE_US, "retention_us": 2 * HOUR_US},
            ago(1.6),
            "Event stored; it lies 1 h 36 min before now, outside the default window of 1 h 30 min; ?window=2h shows "
            "it",
        ),
        (
            {"retention_us": 7 * DAY_US},  # raw, and outside all the same
            ago(50),
            "Event stored; it lies 2 days 2 h before now, outside the default window of 1 h; ?window=3d shows it",
        ),
        (
            {"rollup_retention_us": 400 * DAY_US},
            ago(24 * 380),
            "Event stored; it lies 380 days before now, outside the default window of 1 h; ?window=400d shows it",
        ),
        ({"window_us": HOUR_US, "rollup_retention_us": 0}, ago(1), STORED),
        (
            {"max_future_skew_us": HOUR_US},
            ago(-0.5),
            "Event stored; it lies 30 min ahead of the server's clock: it counts in every window until then",
        ),
    ],
)
def test_the_settings_decide_where_it_lies(options: dict[str, Any], timestamp: str, message: str) -> None:
    """Other windows and retentions, with roll-ups and without."""
    assert told(client_of(**options), timestamp) == message


moments_us = st.one_of(
    st.integers(NOW_US - 3 * DAY_US, NOW_US + DAY_US),
    st.builds(
        lambda edge_us, by_us: edge_us + by_us,
        st.sampled_from(
            [
                *(NOW_US, NOW_US + MINUTE_US, NOW_US - HOUR_US, NOW_US - DAY_US),
                *(parse_timestamp_us(KEPT_SINCE), parse_timestamp_us(RAW_SINCE)),
            ]
        ),
        st.integers(-2, 2) | st.integers(-(2**30), 2**30),
    ),
)
retentions = st.sampled_from(
    [
        {},
        {"rollup_retention_us": 0},
        {"rollup_retention_us": 2 * DAY_US + HOUR_US},
        {"retention_us": 3 * HOUR_US, "window_us": 7 * MINUTE_US, "metrics_windows": ()},
    ]
)


@given(moments_us, retentions)
@settings(max_examples=settings.default.max_examples * 3 // 2)
def test_what_is_said_of_an_event_holds(ts_us: int, options: dict[str, Any]) -> None:
    """It shows where it is said to, and only there: in the default window, in the window named, or in none."""
    client = client_of(**options)
    message = told(client, format_timestamp(ts_us))
    longest_us = Settings(**options).longest_window_us()

    def shows(query: str) -> bool:
        return bool(client.get(f"/statistics{query}").json["count"])

    if message == STORED:
        assert shows("")
        assert ts_us <= NOW_US + MINUTE_US
    elif found := re.search(r"\?window=(\w+) shows it", message):
        assert not shows("")
        assert shows(found[0].split()[0])
        assert parse_duration_us(found[1]) <= longest_us
    elif "ahead of" in message:
        assert shows("")
        assert shows("?window=1s")
    elif "about to expire" in message:
        assert NOW_US - ts_us > longest_us
    else:
        assert "(expired)" in message
        assert not shows(f"?window={longest_us // SECOND_US}")


def test_a_duplicate_tells_where_it_lies() -> None:
    """The answer says where a duplicate lies, as it did for the first event."""
    client = client_of()
    said = "Event equals one that is stored already and was left out (duplicate)"
    for timestamp, where in [
        (ago(0), ""),
        (ago(-9), "; it lies 9 h ahead of the server's clock: it counts in every window until then"),
        (naive(-8), "; it lies 8 h ahead of the server's clock: it counts in every window until then" + AS_UTC),
        (
            ago(1 + 1 / 30),
            "; it lies 1 h 2 min before now, outside the default window of 1 h; ?window=2h shows it",
        ),
    ]:
        first = told(client, timestamp, "?dedup=true")
        assert first == f"Event stored{where}" or (not where and first == STORED)
        assert told(client, timestamp, "?dedup=true") == said + where


def test_deduplication_keeps_raw_events_only() -> None:
    """An event older than those is left out; what would count it is told: no deduplication, where roll-ups reach."""
    left_out = (
        "Event was left out (expired); it lies {} before now, but raw events are kept only since "
        + RAW_SINCE
        + "{}, and with deduplication an older one cannot be compared. To keep more, raise STATSAPI_RETENTION "
        "(now 1h){}."
    )
    without = f"; ?dedup=false counts what lies since {KEPT_SINCE}"
    assert told(client_of(), ago(5), "?dedup=true") == left_out.format("5 h", "", without)
    assert told(client_of(), naive(5), "?dedup=true") == left_out.format("5 h", AS_UTC, without)
    assert told(client_of(), "2020-01-01", "?dedup=true") == left_out.format("5 years", "", "")
    assert told(client_of(rollup_retention_us=0), ago(5), "?dedup=true") == left_out.format("5 h", "", "")
    assert told(client_of(dedup=True), ago(5), "?dedup=false").startswith("Event stored; it lies 5 h before now")


@pytest.mark.parametrize(
    "body",
    [
        b'{"value": 1, "timestamp": "2025-11-21T02:45:00"}',
        b' {"timestamp": "2025-11-21T02:45:00.000000", "value": "1"}\n',
        '{"timestamp": "2025-11-21T02:45:00", "value": 1}'.encode("utf-16"),
        b'{"timestamp": "20251121T0245", "value": 1, "series": "cpu"}',
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_however_the_event_is_written(body: bytes, packed: bool) -> None:
    """What the timestamp said is looked up again in the body, whatever way it was read first."""
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if packed else {})
    answer = client_of().post("/event", data=gzip.compress(body) if packed else body, headers=headers)
    if answer.status_code == 400 and body[:1] not in (b" ", b"{"):
        return  # another change decides whether UTF-16 is read
    assert answer.json["message"].startswith("Event stored; it lies 5 h before now")
    assert AS_UTC in answer.json["message"]


@pytest.mark.parametrize("path", ["/event", "/events"])
def test_a_retry_gets_the_first_answer(clock: FakeClock, path: str) -> None:
    """Where the event lay when it came is told again, though it has expired since, also to those who reject such."""
    client = create_app(Settings(journal="memory://"), clock_us=clock, background=False).test_client()
    event = {"timestamp": naive(5), "value": 1}

    def send() -> Any:
        body = event if path == "/event" else [event]
        return client.post(f"{path}?expired=reject", json=body, headers={"Idempotency-Key": "k"})

    first = send()
    clock.advance(20 * HOUR_US)
    again = send()
    assert "5 h before now" in first.text
    assert again.data == first.data
    assert "Idempotent-Replayed" in again.headers
    assert value(scrape(client), "statsapi_events_accepted_total", placement="older") == 1


# -- many events: every form, against a naive twin -----------------------------------------------------------------


class Row(NamedTuple):
    timestamp: Any
    value: Any = 1.0


def as_json(rows: list[Row]) -> bytes:
    return json.dumps([row._asdict() for row in rows]).encode()


def as_events(rows: list[Row]) -> bytes:
    return json.dumps({"events": [row._asdict() for row in rows]}).encode()


def as_columns(rows: list[Row]) -> bytes:
    return json.dumps({"timestamp": [row.timestamp for row in rows], "value": [row.value for row in rows]}).encode()


def as_ndjson(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row._asdict()) + "\n" for row in rows).encode()


def as_ndjson_with_blanks(rows: list[Row]) -> bytes:
    return "".join("\n" + json.dumps(row._asdict()) + "\n" for row in rows).encode()


def as_csv(rows: list[Row]) -> bytes:
    return "".join(["timestamp,value\n", *(f"{row.timestamp},{row.value}\n" for row in rows)]).encode()


def as_quoted_csv(rows: list[Row]) -> bytes:
    return "".join(['"value",timestamp\r\n', *(f'{row.value},"{row.timestamp}"\r\n\r\n' for row in rows)]).encode()


JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"

# The form, its media type, and where a row of it stands.
FORMS: dict[str, tuple[Callable[[list[Row]], bytes], str, Callable[[int], dict[str, int]]]] = {
    "array": (as_json, JSON, lambda row: {"index": row}),
    "events": (as_events, JSON, lambda row: {"index": row}),
    "columns": (as_columns, JSON, lambda row: {"index": row}),
    "ndjson": (as_ndjson, NDJSON, lambda row: {"line": row + 1}),
    "ndjson with blank lines": (as_ndjson_with_blanks, NDJSON, lambda row: {"line": 2 * row + 2}),
    "csv": (as_csv, CSV, lambda row: {"line": row + 2}),
    "quoted csv": (as_quoted_csv, CSV, lambda row: {"line": 2 * row + 2}),
}

every_form = pytest.mark.parametrize("form", FORMS)


def send(client: FlaskClient, form: str, rows: list[Row], query: str = "", *, packed: bool = False) -> Any:
    write, media_type, _ = FORMS[form]
    body = write(rows)
    headers = {"Content-Type": media_type} | ({"Content-Encoding": "gzip"} if packed else {})
    return client.post(f"/events{query}", data=gzip.compress(body) if packed else body, headers=headers)


class Lie(NamedTuple):
    """The twin's verdict on a row."""

    kind: str
    as_utc: bool


OFFSETS = [timedelta(minutes=15 * quarters) for quarters in range(-12 * 4, 14 * 4 + 1)]


def twin_of(row: Row, *, rollups: bool, dedup: bool) -> Lie | None:
    """The place of an event, by the contract and datetimes; None for one that is refused or shows."""
    if not isinstance(row.value, float):
        return None
    now = datetime.fromisoformat(NOW)
    written = row.timestamp
    offset = True
    if isinstance(written, str):
        moment = datetime.fromisoformat(written)
        offset = moment.tzinfo is not None
        moment = moment if offset else moment.replace(tzinfo=UTC)
    else:
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(written * 10**6))
    kept = now - (timedelta(days=1, minutes=5) if rollups and not dedup else timedelta(hours=1, minutes=5))
    window = now - timedelta(hours=1)
    if window <= moment <= now + timedelta(minutes=1):
        return None
    readings = (moment - ahead for ahead in OFFSETS)
    helps = not offset and any(window <= reading <= now + timedelta(minutes=1) for reading in readings)
    kind = "ahead" if moment > now else "expired" if moment < kept else "outside_window"
    return Lie(kind, helps)


SAYS = {"ahead": "ahead of the server's clock", "expired": "kept only since", "outside_window": "outside the default"}


def check_told(answer: Any, form: str, rows: list[Row], *, rollups: bool = True, dedup: bool = False) -> None:
    """The answer tells of just the rows that the twin does, in order, for the same reasons, and counts them all."""
    lies = [(index, lie) for index, row in enumerate(rows) if (lie := twin_of(row, rollups=rollups, dedup=dedup))]
    rejected = sum(not isinstance(row.value, float) for row in rows)
    assert answer.status_code == 200
    body = answer.json
    keys = ["status", "stored", "duplicates", "expired", "rejected"] + ["errors"] * bool(rejected)
    assert list(body) == keys + (["message", "notes_by_kind", "notes"] if lies else [])
    assert body["rejected"] == rejected
    assert body["stored"] + body["duplicates"] + body["expired"] + rejected == len(rows)
    if not lies:
        return
    counts = Counter(lie.kind for _, lie in lies)
    assert body["notes_by_kind"] == {
        "expired": counts["expired"],
        "outside_window": counts["outside_window"],
        "ahead": counts["ahead"],
        "read_as_utc": sum(lie.as_utc for _, lie in lies),
    }
    assert body["expired"] == counts["expired"]
    assert len(body["notes"]) == min(len(lies), 100)
    for note, (index, lie) in zip(body["notes"], lies, strict=False):
        assert {name: note[name] for name in note if name != "reason"} == FORMS[form][2](index) | {"field": "timestamp"}
        assert [kind for kind, says in SAYS.items() if says in note["reason"]] == [lie.kind]
        assert (AS_UTC in note["reason"]) == lie.as_utc
    for kind, says in {"ahead": "ahead of the server's clock", "expired": "(expired)"}.items():
        assert (says in body["message"]) == bool(counts[kind])
    assert ("read as UTC" in body["message"]) == any(lie.as_utc for _, lie in lies)
    assert len(body["message"]) < 1200


def as_written(ts_us: int, how: str) -> Any:
    if how == "number":
        return ts_us / 10**6 if ts_us % 10**6 else ts_us // 10**6
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ts_us)
    if how == "naive":
        return moment.replace(tzinfo=None).isoformat()
    if how == "space":
        return moment.replace(tzinfo=None).isoformat(" ", "microseconds")
    if how == "Z":
        return moment.replace(tzinfo=None).isoformat() + "Z"
    return moment.astimezone(timezone(timedelta(minutes=-330))).isoformat()


hows = st.sampled_from(["naive", "space", "Z", "-05:30", "number"])
good_rows = st.builds(lambda ts_us, how, value: Row(as_written(ts_us, how), value), moments_us, hows, st.just(1.0))
bad_rows = st.builds(lambda row: Row(row.timestamp, "many"), good_rows)
quickly = settings(max_examples=settings.default.max_examples * 2 // 5, suppress_health_check=[HealthCheck.too_slow])


@every_form
@given(
    st.lists(st.one_of(good_rows, good_rows, bad_rows), max_size=30),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@quickly
def test_every_row_is_told_in_every_form(
    form: str, rows: list[Row], times: int, rollups: bool, dedup: bool, packed: bool
) -> None:
    """The right index or line, for the right reason, fast path or slow, packed or not, with dedup, the good of a bad
    batch; all counts are true beyond the first hundred.
    """
    rows *= times
    client = client_of(**({} if rollups else {"rollup_retention_us": 0}))
    query = f"?partial=true&dedup={str(dedup).lower()}"
    answer = send(client, form, rows, query, packed=packed)
    check_told(answer, form, rows, rollups=rollups, dedup=dedup)


@every_form
@pytest.mark.parametrize("how", ["naive", "space", "Z", "-05:30", "number"])
def test_long_columns_of_one_kind(form: str, how: str) -> None:
    """Hundreds of rows, so that timestamps are read by the column: those outside are scattered among the others."""
    rows = [Row(as_written(NOW_US - minute * 7 * MINUTE_US, how), float(minute)) for minute in range(-200, 300)]
    random.Random(1).shuffle(rows)
    check_told(send(client_of(), form, rows), form, rows)


@every_form
def test_what_shows_is_answered_as_ever(form: str) -> None:
    """With nothing to note the answer has its five keys, and no more."""
    answer = send(client_of(), form, [Row(ago(0.1 * tenth)) for tenth in range(10)])
    assert answer.json == {"status": "success", "stored": 10, "duplicates": 0, "expired": 0, "rejected": 0}
    assert send(client_of(), form, []).json["stored"] == 0


@every_form
def test_odd_rows_are_told_too(form: str) -> None:
    """A row that only the schema takes (an ISO form of its own) is told like its neighbours."""
    rows = [Row(NOW_US // 10**6), Row("2025-W47-5"), Row("2025-11-20T24:00:00"), Row("20251121T0745+0000")]
    (first, second) = send(client_of(), form, rows).json["notes"]
    assert [first, second] == [
        FORMS[form][2](index)
        | {
            "field": "timestamp",
            "reason": "lies 7 h 45 min before now, outside the default window of 1 h; read as UTC, as it has no "
            "offset; ?window=12h shows it",
        }
        for index in (1, 2)
    ]


# -- the sentence about a whole file -------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_years_ago(form: str, packed: bool) -> None:
    """One sentence: what was sent, what is kept, the setting to change, how to move the file to now."""
    rows = [Row(f"2019-01-{day:02}T00:00:00Z", float(day)) for day in range(1, 31)]
    body = send(client_of(), form, rows, packed=packed).json
    assert (body["stored"], body["expired"]) == (0, 30)
    assert body["message"] == (
        "All 30 events count in no window (expired): they lie from 2019-01-01T00:00:00+00:00 to "
        f"2019-01-30T00:00:00+00:00, but events are kept only since {KEPT_SINCE}; STATSAPI_ROLLUP_RETENTION=2518d (now "
        "1d) would keep them, and adding 214904700 seconds to each timestamp would move the last of them to now."
    )


def test_its_advice_holds() -> None:
    """With the setting that is named, or moved by the seconds that are named, the events show as they are said to."""
    rows = [Row(f"2019-01-{day:02}T00:00:00Z", float(day)) for day in range(1, 31)]
    message = send(client_of(), "csv", rows).json["message"]
    setting, by_s = re.findall(r"=(\d+d) .* adding (\d+) seconds", message)[0]
    kept = client_of(rollup_retention_us=parse_duration_us(setting))
    answer = send(kept, "csv", rows).json
    assert (answer["stored"], answer["expired"]) == (30, 0)
    shown = re.findall(r"\?window=\w+", answer["message"])[0]
    assert kept.get(f"/statistics{shown}").json["count"] == 30
    moved = [
        Row(format_timestamp(parse_timestamp_us(row.timestamp) + int(by_s) * SECOND_US), row.value) for row in rows
    ]
    client = client_of()
    assert send(client, "csv", moved).json["stored"] == 2  # a day apart, and a day is kept
    assert client.get("/statistics").json == {"count": 1, "min": 30.0, "max": 30.0, "mean": 30.0}


@pytest.mark.processes
def test_the_docs_move_a_file_as_they_say(tmp_path: Path) -> None:
    """The lines that docs/api.md shows make a file of now out of an old one."""
    page = (ROOT / "docs" / "api.md").read_text()
    (program,) = re.findall(r"python3 -c '\n(.*?)' 214904700 < old.csv", page, re.DOTALL)
    old = "timestamp,value,series\n2019-01-29T00:00:00Z,1,a\n2019-01-30T00:00:00Z,2.5,\n"
    moved = subprocess.run(
        [sys.executable, "-c", program, "214904700"], input=old, capture_output=True, text=True, check=True
    ).stdout
    client = client_of()
    assert client.post("/events", data=moved, content_type=CSV).json["stored"] == 2
    assert client.get("/statistics").json["mean"] == 2.5


@pytest.mark.parametrize(
    ("options", "query", "timestamps", "message"),
    [
        (
            {},
            "",
            ["2019-01-01"],
            "The event counts in no window (expired): it lies at 2019-01-01T00:00:00+00:00, but events are kept only "
            f"since {KEPT_SINCE}; STATSAPI_ROLLUP_RETENTION=2518d (now 1d) would keep it, and adding 217410300 "
            "seconds to each timestamp would move it to now.",
        ),
        (
            {"rollup_retention_us": 0},
            "",
            [ago(5), ago(6)],
            "All 2 events count in no window (expired): they lie from 2025-11-21T01:45:00+00:00 to "
            f"2025-11-21T02:45:00+00:00, but events are kept only since {RAW_SINCE}; STATSAPI_ROLLUP_RETENTION=2d "
            "(now 0) would keep them, and adding 18000 seconds to each timestamp would move the last of them to now.",
        ),
        (
            {},
            "",
            ["1901-01-01", "1902-01-01"],
            "All 2 events count in no window (expired): they lie from 1901-01-01T00:00:00+00:00 to "
            f"1902-01-01T00:00:00+00:00, but events are kept only since {KEPT_SINCE}; no setting keeps what is "
            "more than 100 years old (STATSAPI_ROLLUP_RETENTION is 1d), and adding 3909627900 seconds to each "
            "timestamp would move the last of them to now.",
        ),
        (
            {},
            "?dedup=true",
            [ago(5), ago(6)],
            "All 2 events count in no window (expired): they lie from 2025-11-21T01:45:00+00:00 to "
            f"2025-11-21T02:45:00+00:00, but raw events are kept only since {RAW_SINCE}, and with deduplication older "
            f"ones cannot be compared; STATSAPI_RETENTION=2d (now 1h) would keep them, ?dedup=false counts what lies "
            f"since {KEPT_SINCE}, and adding 18000 seconds to each timestamp would move the last of them to now.",
        ),
        (
            {},
            "",
            [ago(20), ago(3), ago(12)],
            "All 3 events are kept, but lie outside the default window of 1 h, from 2025-11-20T11:45:00+00:00 to "
            "2025-11-21T04:45:00+00:00; ?window=1d shows them.",
        ),
        (
            {},
            "",
            [naive(5)] * 3,
            "All 3 events are kept, but lie outside the default window of 1 h, at 2025-11-21T02:45:00+00:00; "
            "?window=6h shows them. These have no offset and were read as UTC; if they are local times, write "
            "the offset (such as +02:00).",
        ),
        (
            {"rollup_retention_us": 0},
            "",
            [ago(1.01)],
            "The event is kept, but lies outside the default window of 1 h, at 2025-11-21T06:44:24+00:00, and "
            "will soon expire.",
        ),
        (
            {},
            "",
            [naive(-9), naive(-8.5)],
            "All 2 events lie up to 9 h ahead of the server's clock, from 2025-11-21T16:15:00+00:00 to "
            "2025-11-21T16:45:00+00:00: they count in every window until then. These have no offset and were read as "
            "UTC; if they are local times, write the offset (such as +02:00).",
        ),
        (
            {},
            "",
            [naive(-2)],
            "The event lies 2 h ahead of the server's clock, at 2025-11-21T09:45:00+00:00: it counts in every window "
            "until then. It has no offset and was read as UTC; if it is a local time, write the offset (such as "
            "+02:00).",
        ),
        (
            {},
            "",
            [ago(0), ago(0), ago(2), naive(-2), ago(-2), ago(100)],
            "1 of the 6 events counts in no window (expired): it lies at 2025-11-17T03:45:00+00:00, but events "
            f"are kept only since {KEPT_SINCE}; STATSAPI_ROLLUP_RETENTION=6d (now 1d) would keep it, and adding "
            "360000 seconds to each timestamp would move it to now. 1 of the 6 events is kept, but lies outside "
            "the default window of 1 h, at 2025-11-21T05:45:00+00:00; ?window=3h shows it. 2 of the 6 events lie "
            "up to 2 h ahead of the server's clock, at 2025-11-21T09:45:00+00:00: they count in every window "
            "until then. 1 of these has no offset and was read as UTC; if it is a local time, write the offset "
            "(such as +02:00).",
        ),
    ],
)
def test_the_sentence_of_a_file(options: dict[str, Any], query: str, timestamps: list[str], message: str) -> None:
    """The message says in plain words where events lie, from when to when, and what shows or keeps them."""
    body = client_of(**options).post(f"/events{query}", json=[{"timestamp": t, "value": 1} for t in timestamps]).json
    assert body["message"] == message


def test_what_was_rejected_is_not_all() -> None:
    """Beside rejected events, all means all that were taken."""
    rows = [Row(ago(5)), Row(ago(5), "many"), Row(ago(6))]
    body = send(client_of(), "array", rows, "?partial=true").json
    assert body["message"].startswith("All 2 events that were taken are kept, but lie outside")
    assert [note["index"] for note in body["notes"]] == [0, 2]
    assert [error["index"] for error in body["errors"]] == [1]


def test_an_answer_stays_small() -> None:
    """It is kept under the idempotency key: whatever was sent, it is bounded."""
    client = client_of()
    rows = [Row("2019-01-01T00:00:00.000000000000" + "0" * 300, float(row)) for row in range(5000)]
    rows += [Row(naive(5), "x" * 1000)] * 200
    answer = send(client, "array", rows, "?partial=true")
    assert answer.json["notes_by_kind"]["expired"] == 5000
    assert len(answer.json["notes"]) == NOTED_MAX == 100
    assert len(answer.data) < 50_000


# -- ?expired=reject -----------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dedup", [False, True])
@pytest.mark.parametrize("rollups", [False, True])
def test_expired_events_can_be_refused(form: str, packed: bool, dedup: bool, rollups: bool) -> None:
    """All or nothing, each named; with partial named and counted as rejected. What is kept is taken."""
    client = client_of(**({} if rollups else {"rollup_retention_us": 0}))
    since = parse_timestamp_us(KEPT_SINCE if rollups and not dedup else RAW_SINCE)
    edge = [Row(as_written(since, "Z"), 1.0), Row(as_written(since - 1, "Z"), 2.0)]
    rows = [Row(ago(0.5), 3.0), Row("2019-01-01T00:00:00", 4.0), *edge, Row("2025-W01-1", 5.0), Row(ago(0.25), 6.0)]
    places = [FORMS[form][2](row) for row in (1, 3, 4)]
    query = f"?expired=reject&dedup={str(dedup).lower()}"
    problem = assert_problem(send(client, form, rows, query, packed=packed), 422, "validation")
    kept = "raw events" if dedup else "everything"
    assert [{**error, "reason": ""} for error in problem["errors"]] == [
        {**place, "field": "timestamp", "reason": ""} for place in places
    ]
    for error in problem["errors"]:
        assert f"is older than {'the ' if dedup else ''}{kept} kept" in error["reason"]
        assert f"now since {format_timestamp(since)}" in error["reason"]
        assert ("STATSAPI_ROLLUP_RETENTION" if rollups and not dedup else "STATSAPI_RETENTION") in error["reason"]
    assert problem["rejected"] == 3
    assert client.get("/statistics").json["count"] == 0
    body = send(client, form, rows, f"{query}&partial=true", packed=packed).json
    assert (body["stored"], body["expired"], body["rejected"]) == (3, 0, 3)
    assert body["errors"] == problem["errors"]
    assert body["notes_by_kind"] == {"expired": 0, "outside_window": 1, "ahead": 0, "read_as_utc": 0}
    assert client.get("/statistics").json["count"] == 2
    samples = scrape(client)
    assert value(samples, "statsapi_events_rejected_total") == 6
    assert value(samples, "statsapi_events_expired_total") == 0


@pytest.mark.parametrize("rollups", [False, True])
def test_right_after_a_start_deduplication_tells_what_has_expired(rollups: bool) -> None:
    """While no clock has stood for ten minutes nothing is left out for good; but what no window reaches has expired."""
    options: dict[str, Any] = {} if rollups else {"rollup_retention_us": 0}
    settings = Settings(journal="memory://", **options)
    client = create_app(settings, clock_us=FakeClock(stood=False), background=False).test_client()
    days9 = ago(9 * 24)
    for _ in range(2):
        assert told(client, days9, "?dedup=true").startswith("Event counts in no window (expired); it lies 9 days")
        counts = send(client, "array", [Row(days9), Row(ago(1.01)), Row(ago(1.01)), Row(days9)], "?dedup=true").json
        assert (counts["stored"] + counts["duplicates"], counts["expired"]) == (2, 2)
        assert counts["notes_by_kind"]["expired"] == 2
        refused = client.post("/event?dedup=true&expired=reject", json={"timestamp": days9, "value": 1})
        assert_problem(refused, 422, "validation")
    assert client.get("/statistics?window=1h").json["count"] == 0
    assert client.get("/series").json["series"][0]["count"] == 1
    page = scrape(client)
    assert value(page, "statsapi_events_stored_total") == 1
    assert value(page, "statsapi_events_expired_total") == 6
    assert value(page, "statsapi_events_duplicate_total") == 3
    assert value(page, "statsapi_events_accepted_total", placement="older") == 1


@pytest.mark.parametrize("query", ["?expired=reject", "?expired=reject&dedup=true", "?dedup=true&expired=reject"])
def test_one_expired_event_can_be_refused(query: str) -> None:
    """POST /event takes the same parameter: 422, named, counted, and nothing recorded; what is kept is stored."""
    client = client_of()
    for written in ("2019-01-01", 0, "1969-12-31T23:59:59Z", "2025-11-20T07:39:59.999999Z"):
        problem = assert_problem(
            client.post(f"/event{query}", json={"timestamp": written, "value": 1}), 422, "validation"
        )
        assert problem["errors"][0]["field"] == "timestamp"
        assert "rejected" not in problem
    assert client.get("/debug/events").json["total_events"] == 0
    assert value(scrape(client), "statsapi_events_rejected_total") == 4
    assert told(client, ago(1), query) == STORED
    assert told(client, ago(1.05), query).startswith("Event stored; it lies 1 h 3 min before now")


@pytest.mark.parametrize("path", ["/event", "/events"])
def test_what_expired_may_be(client: FlaskClient, path: str) -> None:
    """accept or reject; anything else is named."""
    body = {"timestamp": NOW, "value": 1}
    for query in ("expired=drop", "expired=", "expired=true", "expire=reject"):
        assert_problem(client.post(f"{path}?{query}", json=body if path == "/event" else [body]), 422, "validation")
    assert client.post(f"{path}?expired=accept", json=body if path == "/event" else [body]).status_code == 200


def test_a_refusal_of_expired_events_does_not_use_up_the_key() -> None:
    """A refused request may come again under its key, also without the parameter; what was recorded may not."""
    client = client_of()
    rows = [{"timestamp": "2019-01-01", "value": 1}]
    for _ in range(2):
        refused = client.post("/events?expired=reject", json=rows, headers={"Idempotency-Key": "k"})
        assert_problem(refused, 422, "validation")
    assert client.post("/events", json=rows, headers={"Idempotency-Key": "k"}).json["expired"] == 1
    again = client.post("/events?expired=reject", json=rows, headers={"Idempotency-Key": "k"})
    assert_problem(again, 422, "idempotency-conflict")


@pytest.mark.parametrize("dedup", [False, True])
def test_what_expires_while_it_is_recorded_is_refused_too(clock: FakeClock, dedup: bool) -> None:
    """A body that was read before a minute turned and is recorded after it: nothing is taken that has expired."""
    app = create_app(Settings(journal="memory://", rollup_retention_us=0), clock_us=clock, background=False)
    admission = app.extensions["statsapi"]._admission
    refuse_far_future = admission.refuse_far_future

    def turn(batch: Any) -> None:
        clock.advance(MINUTE_US)
        refuse_far_future(batch)

    admission.refuse_far_future = turn
    client = app.test_client()
    rows = [{"timestamp": RAW_SINCE, "value": 1}, {"timestamp": NOW, "value": 1}, {"timestamp": RAW_SINCE, "value": 2}]
    query = f"?expired=reject&partial=true&dedup={str(dedup).lower()}"
    problem = assert_problem(client.post(f"/events{query}", json=rows), 422, "validation")
    assert problem["rejected"] == 2
    assert client.get("/statistics").json["count"] == 0
    assert value(scrape(client), "statsapi_events_rejected_total") == 2


def test_the_future_skew_stays_a_refusal() -> None:
    """STATSAPI_MAX_FUTURE_SKEW refuses as ever, also beside expired=reject; within it what is ahead is told."""
    client = client_of(max_future_skew_us=10 * HOUR_US)
    rows = [Row(ago(-11)), Row("2019-01-01"), Row(naive(-9)), Row(ago(0))]
    body = send(client, "csv", rows, "?partial=true&expired=reject").json
    assert [(error["line"], error["reason"].split()[0]) for error in body["errors"]] == [(2, "lies"), (3, "is")]
    assert [note["line"] for note in body["notes"]] == [4]
    body = send(client, "csv", rows, "?partial=true").json
    assert body["notes_by_kind"] == {"expired": 1, "outside_window": 0, "ahead": 1, "read_as_utc": 1}


# -- metrics -------------------------------------------------------------------------------------------------------


def placements(client: FlaskClient) -> dict[str, float | None]:
    samples = scrape(client)
    names = ("recent", "older", "expired", "ahead")
    return {name: value(samples, "statsapi_events_accepted_total", placement=name) for name in names}


def test_events_are_counted_by_where_they_fell() -> None:
    """One by one and in batches; duplicates and rejected ones are not accepted, a replay counts nothing twice."""
    client = client_of()
    assert placements(client) == {"recent": 0, "older": 0, "expired": 0, "ahead": 0}
    for timestamp in (ago(0), ago(-0.01), ago(5), ago(-9), ago(-10), "2019-01-01"):
        told(client, timestamp)
    assert placements(client) == {"recent": 2, "older": 1, "expired": 1, "ahead": 2}
    rows = [
        Row(ago(0), 7.0),
        Row(ago(2), 7.0),
        Row(ago(3), 7.0),
        Row(ago(-2), 7.0),
        Row("2019-01-01"),
        Row(ago(2), "x"),
    ]
    for _ in range(2):
        body = client.post("/events?partial=true", data=as_json(rows), headers={"Idempotency-Key": "k"}).json
        assert body["stored"] == 4
    assert placements(client) == {"recent": 3, "older": 3, "expired": 2, "ahead": 3}
    body = send(client, "array", rows[:5], "?dedup=true").json
    assert (body["stored"], body["duplicates"], body["expired"]) == (0, 2, 3)
    assert placements(client) == {"recent": 3, "older": 3, "expired": 5, "ahead": 3}
    send(client, "array", rows[:5], "?expired=reject")
    assert placements(client) == {"recent": 3, "older": 3, "expired": 5, "ahead": 3}
    samples = scrape(client)
    assert value(samples, "statsapi_events_stored_total") == 9
    assert value(samples, "statsapi_events_expired_total") == 5
    assert value(samples, "statsapi_events_duplicate_total") == 2


def test_dedup_counts_the_new_ones_where_they_fell() -> None:
    """With deduplication what is stored is counted by place, without the duplicates of its own batch."""
    client = client_of(retention_us=DAY_US)
    rows = [Row(ago(0)), Row(ago(0)), Row(ago(3)), Row(ago(3)), Row(ago(-3)), Row("2019-01-01")]
    body = send(client, "ndjson", rows, "?dedup=true").json
    assert (body["stored"], body["duplicates"], body["expired"]) == (3, 2, 1)
    assert body["notes_by_kind"] == {"expired": 1, "outside_window": 2, "ahead": 1, "read_as_utc": 0}
    assert placements(client) == {"recent": 1, "older": 1, "expired": 1, "ahead": 1}


@pytest.mark.parametrize(
    "rest", ["", ".5", ".123456", ",5", "Z", "z", "+01:00", "-00:30", "+0100", "+01", ".5+01:00", "."]
)
@pytest.mark.parametrize(
    "date", ["2025-11-21T07:45:00", "2025-11-21 07:45:00", "2025-W47-5T07:45:00", "20251121T074500"]
)
def test_a_missing_offset_is_seen_as_by_the_parser(date: str, rest: str) -> None:
    """The short cut agrees with has_offset wherever a text is a timestamp at all."""
    written = date + rest
    try:
        parse_timestamp_us(written)
    except ValueError:
        return
    assert _lacks_offset(written) != has_offset(written)


@pytest.mark.parametrize(
    ("written", "as_utc"),
    [
        ("1763693100", False),  # Unix seconds as text
        ("1763693100000", False),
        ("2025-11-21 02:45:00 UTC", False),
        ("2025-11-21 02:45:00 +0000 UTC", False),
        ("2025-11-21T03:45:00+01:00[Europe/Berlin]", False),
        ("Fri, 21 Nov 2025 02:45:00 GMT", False),
        ("2025/11/21 02:45:00", True),
        (" 2025-11-21T02:45:00 ", True),
        ("20251121024500", True),
        ("2025-11-21T02:44:60", True),
    ],
)
@every_form
def test_an_offset_in_any_form_of_a_timestamp(form: str, written: str, as_utc: bool) -> None:
    """Forms of other languages and Unix time as text are told alike, alone and in a batch."""
    said = "ies 5 h before now, outside the default window of 1 h" + AS_UTC * as_utc + "; ?window=6h shows it"
    assert told(client_of(), written) == f"Event stored; it l{said}"
    if form == "csv" and "," in written:
        return  # has to be quoted there
    body = send(client_of(), form, [Row(ago(0)), Row(written)]).json
    place = FORMS[form][2](1)
    assert body["notes"] == [place | {"field": "timestamp", "reason": f"l{said}"}]
    assert body["notes_by_kind"]["read_as_utc"] == as_utc


def test_what_was_written_is_found_again() -> None:
    """Also for a row that does not fit the columns, in whose place they repeat the row before."""
    odd: Any = {1: b'{"timestamp": 5, "value": 1}'}
    rows = Rows([NOW, NOW, ago(1)], [1.0, 1.0, 1.0], "default", "index", range(3), odd, parse_item)
    sent = Sent(np.full(3, NOW_US), np.full(3, True), rows)
    assert sent.timestamps([0, 1, 2]) == [NOW, 5, ago(1)]
    assert sent.timestamps([2]) == [ago(1)]


@given(hows, moments_us, st.integers(0, 26), st.sampled_from("0123456789TZ:+-., "))
def test_any_character_of_a_timestamp(how: str, ts_us: int, at: int, character: str) -> None:
    """Whatever else a timestamp may hold, the short cut and the parser agree about its offset."""
    written = str(as_written(ts_us, how))
    written = written[:at] + character + written[at + 1 :]
    try:
        parse_timestamp_us(written)
    except ValueError:
        return
    assert _lacks_offset(written) != has_offset(written)
