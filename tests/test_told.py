"""What is told of every event: where it lies when it does not show, by POST /event and by each form of POST /events."""

from __future__ import annotations

import gzip
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from statsapi.api.notes import STORED
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.times import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    format_timestamp,
    parse_duration_us,
    parse_timestamp_us,
)
from tests.conftest import NOW, FakeClock
from tests.test_metrics import scrape, value

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
@settings(deadline=None, max_examples=150)
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
    """What was left out as a duplicate does not show either, where the first does not."""
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
        b'{"timestamp": "2025-11-21T02:45:00Z", "value": 1, "timestamp": "2025-11-21T02:45:00"}',  # the last counts
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
