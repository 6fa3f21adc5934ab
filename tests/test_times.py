"""Timestamps and durations as clients write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from dateutil.parser import isoparse
from hypothesis import given
from hypothesis import strategies as st

from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.times import format_duration, format_timestamp, has_offset, parse_duration_us, parse_timestamp_us

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2025-11-21T07:45:00Z", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21T07:45:00z", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21T07:45:00", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21 07:45:00", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21T07:45", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21", "2025-11-21T00:00:00+00:00"),
        ("20251121T074500Z", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21T09:45:00+02:00", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21T02:15:00-0530", "2025-11-21T07:45:00+00:00"),
        ("2025-11-21T24:00:00Z", "2025-11-22T00:00:00+00:00"),
        ("2025-W47-5T07:45:00Z", "2025-11-21T07:45:00+00:00"),
        ("2025W475", "2025-11-21T00:00:00+00:00"),
        ("2025-325T07:45:00Z", "2025-11-21T07:45:00+00:00"),
        ("2025325", "2025-11-21T00:00:00+00:00"),
        ("2025-11-21T07:45:00.5Z", "2025-11-21T07:45:00.500000+00:00"),
        ("2025-11-21T07:45:00,123Z", "2025-11-21T07:45:00.123000+00:00"),
        ("2025-11-21T07:45:00.123456789123Z", "2025-11-21T07:45:00.123456+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
        (1763711100, "2025-11-21T07:45:00+00:00"),
        (1763711100.25, "2025-11-21T07:45:00.250000+00:00"),
        (1763711100.123456, "2025-11-21T07:45:00.123456+00:00"),
        (1763711100123, "2025-11-21T07:45:00.123000+00:00"),
        (1763711100123.5, "2025-11-21T07:45:00.123500+00:00"),
        (20_000_000_000, "2603-10-11T11:33:20+00:00"),
        (20_000_000_001, "1970-08-20T11:33:20.001000+00:00"),
        (0, "1970-01-01T00:00:00+00:00"),
        (-1.5, "1969-12-31T23:59:58.500000+00:00"),
    ],
)
def test_timestamp_forms(written: object, meant: str) -> None:
    """Every form DESIGN names is read, and normalised to UTC microseconds."""
    assert format_timestamp(parse_timestamp_us(written)) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "2025",
        "2025-11",
        "2025-W47",
        "2025W47",
        "1763711100",
        "2025-11-31",
        "2025-11-21T25:00:00",
        "2025-11-21T07:45:60Z",
        " 2025-11-21",
        "2025-11-21T07:45:00 UTC",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:00:00-14:00",
        "9999-12-31T24:00:00",
        "٢٠٢٥-١١-٢١",
        "2025-11-21\x00",
        "9" * 400,
        float("nan"),
        float("inf"),
        1e300,
        10**400,
        -(10**400),
        True,
        None,
        [],
        {},
    ],
)
def test_timestamps_refused(written: object) -> None:
    """What is no timestamp, or lies outside the years 1 to 9999, is refused with a sentence."""
    with pytest.raises(ValueError, match=r"^(must|is|lies) "):
        parse_timestamp_us(written)


@pytest.mark.parametrize("written", ["2025-11-21T07:45:00Z", "20251121T074500-0530", 1763711100, 1763711100.5])
def test_an_offset_is_told(written: object) -> None:
    """Z, a numeric offset and a Unix number say where in UTC they are."""
    assert has_offset(written)


@pytest.mark.parametrize("written", ["2025-11-21T07:45:00", "2025-11-21 07:45", "2025-W47-5", "2025-11-21"])
def test_a_missing_offset_is_told(written: object) -> None:
    """A text without any was read as UTC for want of one."""
    assert not has_offset(written)


offsets = st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)).map(
    lambda d: timezone(timedelta(seconds=d // timedelta(seconds=1)))
)


@given(st.datetimes(timezones=st.none() | offsets))
def test_timestamp_is_what_datetime_means(moment: datetime) -> None:
    """For every datetime the ISO text gives its distance from the epoch, or a refusal outside years 1 to 9999 UTC."""
    exact_us = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    if (offset := moment.utcoffset()) is not None:
        exact_us -= offset // timedelta(microseconds=1)
    if MIN_TS_US <= exact_us <= MAX_TS_US:
        assert parse_timestamp_us(moment.isoformat()) == exact_us
        assert parse_timestamp_us(format_timestamp(exact_us)) == exact_us
    else:
        with pytest.raises(ValueError, match="outside"):
            parse_timestamp_us(moment.isoformat())


@given(st.text(alphabet="0123456789-:T.+WZ ,", max_size=26))
def test_timestamp_accepts_what_either_parser_reads(text: str) -> None:
    """A string is read as one of the two parsers reads it, or refused with ValueError: never another exception."""
    readings = set()
    for parser in (datetime.fromisoformat, isoparse):
        try:
            moment = parser(text)
            naive = moment.replace(tzinfo=UTC) - EPOCH - (moment.utcoffset() or timedelta())
            readings.add(naive // timedelta(microseconds=1))
            if not MIN_TS_US <= max(readings) <= MAX_TS_US:
                return
        except (ValueError, OverflowError):
            pass
    try:
        assert parse_timestamp_us(text) in readings
    except ValueError:
        names_a_day = re.match(r"\d{4}-?(\d\d-?\d\d|\d{3}|W\d\d-?\d)(?!\d)", text)
        assert not readings or not names_a_day


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("90s", 90_000_000),
        ("15m", 900_000_000),
        ("1h", 3_600_000_000),
        ("1.5h", 5_400_000_000),
        ("7d", 604_800_000_000),
        ("2w", 1_209_600_000_000),
        ("250ms", 250_000),
        ("0.000001s", 1),
        ("60", 60_000_000),
        ("PT15M", 900_000_000),
        ("P1DT12H", 129_600_000_000),
        ("PT0.5S", 500_000),
        ("P1W", 604_800_000_000),
    ],
)
def test_durations(written: str, us: int) -> None:
    """Short and ISO 8601 durations are read exactly, and spelled so that they read back."""
    assert parse_duration_us(written) == us
    assert parse_duration_us(format_duration(us)) == us


@pytest.mark.parametrize("written", ["", "h", "1x", "-1h", "1 h", "P", "PT", "1e3s", "١h", "P1Y", "1" * 30])
def test_durations_refused(written: str) -> None:
    """Anything else is refused, months and years too: they have no fixed length."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration_us(written)


@given(st.integers(min_value=1, max_value=10**15))
def test_every_duration_has_a_spelling(us: int) -> None:
    """format_duration and parse_duration_us are inverses for any number of microseconds."""
    assert parse_duration_us(format_duration(us)) == us
