"""Events, times and questions as the client writes them, read by what the service reads them with."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.client import Client
from statsapi.client.events import encode_event, line_of, query_of
from statsapi.client.http import pause_s
from statsapi.times import parse_timestamp_us
from tests.servers import ROOT

NOW_US = 1_764_142_000_123_456
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def encode(value: Any, timestamp: Any = None, series: Any = None, tags: Any = None) -> dict[str, Any]:
    line = encode_event(value, timestamp, series, tags, NOW_US)
    assert "\n" not in line
    assert "\t" not in line
    event: dict[str, Any] = json.loads(line)
    return event


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES))
def test_a_datetime_keeps_its_microsecond(moment: datetime) -> None:
    """The service reads the very instant, whatever the zone and the century."""
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_timestamp_us(encode(1.0, moment)["timestamp"]) == expected


@given(st.integers(-(10**16), 4 * 10**15))
def test_the_time_of_now_keeps_its_microsecond(now_us: int) -> None:
    """Also where a number of that size would be milliseconds, or spell a date."""
    assert parse_timestamp_us(json.loads(encode_event(1.0, None, None, None, now_us))["timestamp"]) == now_us


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_keeps_its_bits(value: float) -> None:
    """What is read is the same float64."""
    read = encode(value)["value"]
    assert float(read) == value
    assert math.copysign(1, float(read)) == math.copysign(1, value)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (7, 7),
        (2**60 + 1, 2**60 + 1),
        (Decimal("0.1"), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.float64(1e308), 1e308),
    ],
)
def test_numbers_of_all_kinds(value: Any, read: Any) -> None:
    """Whatever Python takes for a number; integers keep their digits."""
    assert encode(value)["value"] == read


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (True, TypeError),
        (np.bool_(False), TypeError),
        ("1.5", TypeError),
        (None, TypeError),
        (1j, TypeError),
        ([1], TypeError),
        (math.nan, ValueError),
        (-math.inf, ValueError),
        (10**400, ValueError),
        (Decimal("1e400"), ValueError),
    ],
)
def test_what_is_no_number_is_refused(value: Any, error: type[Exception]) -> None:
    """At once, where the caller is, and with its name."""
    with pytest.raises(error, match="the value is"):
        encode(value)


@pytest.mark.parametrize(
    ("timestamp", "error", "message"),
    [
        (datetime(2026, 11, 26), ValueError, "no time zone"),
        ("", ValueError, "empty"),
        (True, TypeError, "the timestamp is True"),
        (math.nan, ValueError, "no finite number"),
        (b"2026-11-26", TypeError, "the timestamp is"),
        (datetime(2026, 11, 26).date(), TypeError, "no number"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), ValueError, "outside the years"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))), ValueError, "outside the years"),
    ],
)
def test_what_is_no_time_is_refused(timestamp: Any, error: type[Exception], message: str) -> None:
    """A datetime without a zone too: it is local time to Python and would be UTC to the service."""
    with pytest.raises(error, match=message):
        encode(1.0, timestamp)


@pytest.mark.parametrize("timestamp", [1764142000, 1764142000.5, "2026-11-26T07:45:00Z", 1764142000123456])
def test_numbers_and_text_go_through(timestamp: Any) -> None:
    """The service reads them, as everywhere."""
    assert encode(1.0, timestamp)["timestamp"] == timestamp


def test_names_and_tags() -> None:
    """Any text is one line of ASCII; tags are text, sorted by key."""
    event = encode(1.0, None, "Länge\n\t\ud800", {"b": 2, "a": True, "c": "x\ty"})
    assert event["series"] == "Länge\n\t\ud800"
    assert list(event["tags"].items()) == [("a", "true"), ("b", "2"), ("c", "x\ty")]
    for bad in ({"a": None}, {1: "x"}, {"a": [1]}, [("a", "b")], "a=b"):
        with pytest.raises(TypeError):
            encode(1.0, None, None, bad)
    with pytest.raises(TypeError):
        encode(1.0, None, 7)
    with pytest.raises(ValueError, match="series is empty"):
        encode(1.0, None, "")


def test_events_of_many() -> None:
    """Mappings and pairs; a field that no event has is named, so that a misspelt one is not lost."""
    assert json.loads(line_of({"value": 1, "series": "a"}, "b", None, NOW_US))["series"] == "a"
    assert json.loads(line_of((5, 2.5), "b", {"k": "v"}, NOW_US)) == {
        "timestamp": 5,
        "value": 2.5,
        "series": "b",
        "tags": {"k": "v"},
    }
    for bad in ({"value": 1, "sereis": "a"}, {"timestamp": 1}, (1, 2, 3), 7, "12"):
        with pytest.raises(ValueError, match=r"an event has|is neither"):
            line_of(bad, None, None, NOW_US)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give the timestamp too"):
        line_of({"value": 1}, None, None, None)


def test_questions() -> None:
    """Lists are repeated or joined as the service wants them; times and durations keep their microseconds."""
    query = query_of(
        {
            "series": ["a", "b;k=v"],
            "match": "web.*",
            "where": {"status": "5*", "route": "/x"},
            "start": datetime(2026, 11, 26, 8, 45, tzinfo=timezone(timedelta(hours=1))),
            "end": 1764142000.5,
            "window": timedelta(minutes=5),
            "stats": ["count", "p95"],
            "percentiles": [50, 99.9],
            "raw": True,
            "limit": None,
        }
    )
    assert parse_qsl(query) == [
        ("series", "a"),
        ("series", "b;k=v"),
        ("match", "web.*"),
        ("where", "status=5*"),
        ("where", "route=/x"),
        ("start", "2026-11-26T07:45:00+00:00"),
        ("end", "1764142000.5"),
        ("window", "300000000us"),
        ("stats", "count,p95"),
        ("percentiles", "50,99.9"),
        ("raw", "true"),
    ]


@given(st.integers(1, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1000))
def test_pauses_grow_and_are_bounded(failures: int, chance: float, asked_s: float | None) -> None:
    """Never less than was asked, and never more than the longest unless more was asked."""
    pause = pause_s(failures, asked_s, chance)
    assert (asked_s or 0.0) <= pause <= max(30.0, asked_s or 0.0)
    assert pause >= 0.05


@pytest.mark.processes
def test_it_needs_urllib3_alone() -> None:
    """In an interpreter without anything else that the service is made of."""
    program = """
import sys
class No:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in sys.stdlib_module_names and root not in ("statsapi", "urllib3"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, No())
import statsapi.client, statsapi.client.spool
assert not {"flask", "numpy"} & set(sys.modules)
others = {name for name in sys.modules if name.startswith("statsapi.") and not name.startswith("statsapi.client")}
assert not others, others
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_certificates_that_cannot_be_read_are_refused_at_once(tmp_path: Path) -> None:
    """They were an answer that never came, and every call was tried again."""
    (tmp_path / "text.pem").write_text("no certificate")
    for name in ("none.pem", "text.pem", "."):
        with pytest.raises(ValueError, match="holds no certificates"):
            Client("https://127.0.0.1:1", ca_file=str(tmp_path / name))
