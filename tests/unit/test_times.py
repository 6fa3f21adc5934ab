"""Timestamps and durations as clients write them."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from dateutil.parser import isoparse
from hypothesis import example, given
from hypothesis import strategies as st

from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.times import (
    FromNow,
    format_duration,
    format_timestamp,
    format_timestamps,
    has_offset,
    parse_duration_us,
    parse_instant,
    parse_timestamp_us,
)
from tests.written_times import OTHER_FORMS, REFUSED

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
        (1763711100123456, "2025-11-21T07:45:00.123456+00:00"),
        (1763711100123456.0, "2025-11-21T07:45:00.123456+00:00"),
        (1763711100123456789, "2025-11-21T07:45:00.123456+00:00"),
        (1.763711100123456e18, "2025-11-21T07:45:00.123456+00:00"),
        (20_000_000_000_000, "2603-10-11T11:33:20+00:00"),
        (20_000_000_000_001, "1970-08-20T11:33:20.000001+00:00"),
        (20_000_000_000_000_000, "2603-10-11T11:33:20+00:00"),
        (20_000_000_000_001_999, "1970-08-20T11:33:20.000001+00:00"),
        (-20_000_000_000_001, "1969-05-14T12:26:39.999999+00:00"),
        (-20_000_000_000_000_001, "1969-05-14T12:26:39.999999+00:00"),
        (MAX_TS_US * 1000 + 999, "9999-12-31T23:59:59.999999+00:00"),
        (0, "1970-01-01T00:00:00+00:00"),
        (-1.5, "1969-12-31T23:59:58.500000+00:00"),
    ],
)
def test_timestamp_forms(written: object, meant: str) -> None:
    """Every form that docs/api.md names is read, and normalised to UTC microseconds."""
    assert format_timestamp(parse_timestamp_us(written)) == meant


@pytest.mark.parametrize("written", OTHER_FORMS)
def test_other_forms_with_one_reading(written: str) -> None:
    """What Go, Java, mail, databases and people write is read where it can mean but one instant."""
    assert format_timestamp(parse_timestamp_us(written)) == OTHER_FORMS[written] + "+00:00"


@pytest.mark.parametrize("written", REFUSED, ids=lambda written: written[:40])
def test_timestamps_refused(written: str) -> None:
    """What has no reading or two is refused with what is wrong with it, and the cure."""
    with pytest.raises(ValueError, match=re.escape(REFUSED[written])):
        parse_timestamp_us(written)


@pytest.mark.parametrize("written", [2026_11_26, 20261126.0, 2026330, 2026_11_26_07_45, 2026_11_26_07_45_00])
def test_numbers_that_spell_a_date(written: float) -> None:
    """A number is Unix time, and one that spells a date was hardly meant so: it is refused, never another instant than
    the same digits as text."""
    with pytest.raises(ValueError, match=r"two readings.*write it like 2026-11-26"):
        parse_timestamp_us(written)


@pytest.mark.parametrize(
    "written", [float("nan"), float("inf"), 1e300, 10**400, -(10**400), -(10**20), True, None, [], {}]
)
def test_timestamps_of_other_kinds_refused(written: object) -> None:
    """What is neither text nor a finite number, or lies outside the years 1 to 9999, is refused with a sentence."""
    with pytest.raises(ValueError, match=r"^(must|lies) "):
        parse_timestamp_us(written)


@given(
    st.integers(0, 3 * 10**20) | st.integers(0, 3 * 10**17) | st.integers(0, 10**9), st.sampled_from(["", ".0", "e0"])
)
@example(20261126, "")
@example(2_000_001, ".0")
def test_digits_never_mean_two_instants(number: int, end: str) -> None:
    """The same digits as a number and as text are the same instant, or one of the two is refused."""
    readings = set()
    for written in (float(number) if end else number, f"{number}{end}"):
        with contextlib.suppress(ValueError):
            readings.add(parse_timestamp_us(written))
    assert len(readings) <= 1 or not 1900 <= int(str(number)[:4]) <= 2100


@given(st.text(max_size=60) | st.lists(st.sampled_from([*OTHER_FORMS, *map(str, REFUSED)])).map("".join))
def test_nothing_but_valueerror(text: str) -> None:
    """Any text is a timestamp or a ValueError with a short reason, and an offset is told for the former."""
    try:
        ts_us = parse_timestamp_us(text)
    except ValueError as error:
        ts_us, reason = MIN_TS_US, str(error)
    else:
        reason = f"has an offset: {has_offset(text)}"
    assert MIN_TS_US <= ts_us <= MAX_TS_US
    assert 10 < len(reason) < 300


NAIVE = (
    "2025-11-21T07:45:00",
    "2025-11-21 07:45",
    "2025-W47-5",
    "2025-11-21",
    "20251121",
    "20251121074500",
    "2025325",
    "2016-12-31T23:59:60",
    "2025/11/21 07:45:00",
    "2025-11-21T07:45:00[u-ca=gregory]",
    " 2025-1-5 ",
)
WITH_OFFSET = (
    "2025-11-21T07:45:00Z",
    "20251121T074500-0530",
    1763711100,
    1763711100.5,
    "1763711100",
    "1763711100123456789",
    "2025-11-21 07:45:00 UTC",
    "2025-11-21 07:45:00GMT",
    "2025-11-21 UTC",
    "2025-11-21T07:45:00[UTC]",
    "2025-11-21T08:45:00+01:00[Europe/Paris]",
    "Fri, 21 Nov 2025 07:45:00 GMT",
    "21 Nov 2025 02:45 EST",
    "2025-11-21 08:45:00 +0100",
    "20251121074500Z",
)


@pytest.mark.parametrize("written", WITH_OFFSET)
def test_an_offset_is_told(written: object) -> None:
    """Z, a numeric offset, UTC by name and a Unix number say where in UTC they are."""
    assert has_offset(written)


@pytest.mark.parametrize("written", NAIVE)
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
    """Whatever one of the two parsers reads, with at least a full date, is read as one of them does."""
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
    if not readings or not re.match(r"\d{4}-?(\d\d-?\d\d|\d{3}|W\d\d-?\d)(?![\d.])", text):
        return
    assert parse_timestamp_us(text) in readings


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
        ("1h30m", 5_400_000_000),
        ("1d12h", 129_600_000_000),
        ("1w2d3h4m5s6ms", 788_645_006_000),
        ("1m500ms", 60_500_000),
        ("5min", 300_000_000),
        ("90 s", 90_000_000),
        (" 1h 30m ", 5_400_000_000),
        ("1 hour 30 minutes", 5_400_000_000),
        ("2hrs", 7_200_000_000),
        ("10sec", 10_000_000),
        ("3 days", 259_200_000_000),
        ("2 Weeks", 1_209_600_000_000),
        ("1H", 3_600_000_000),
        ("500us", 500),
        ("500µs", 500),
        ("250msec", 250_000),
        ("1.5", 1_500_000),
        ("0.25d", 21_600_000_000),
        ("1.00000000001h", 3_600_000_000),
        ("PT1.5H", 5_400_000_000),
        ("PT1,5H", 5_400_000_000),
        ("P0.5D", 43_200_000_000),
        ("pt15m", 900_000_000),
        ("PT26H3M4.5S", 93_784_500_000),
    ],
)
def test_durations(written: str, us: int) -> None:
    """Short and ISO 8601 durations are read exactly, and spelled so that they read back."""
    assert parse_duration_us(written) == us
    assert parse_duration_us(format_duration(us)) == us


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        *[
            (written, "such as 90s")
            for written in ("", "h", "P", "PT", "١h", "P1Y", "P1M", "1" * 30, "now", "1h-30m", ".5h")
        ],
        ("1x", "not x"),
        ("1e3s", "not e"),
        ("1ns", "not ns"),
        ("5M", "months: write 5m or 5min"),
        ("1h5M", "months: write 5m or 5min"),
        ("1mo", "no fixed length"),
        ("2 years", "no fixed length"),
        ("1y6mo", "no fixed length"),
        ("-1h", "not negative"),
        ("1h1h", "each once"),
        ("1h30min5m", "each once"),
        ("5m 1h", "large to small"),
        ("1h30", "no unit"),
        ("1:30", "not colons"),
        ("01:30:00", "not colons"),
        ("1,5h", "decimal point"),
        ("1h2,5m", "decimal point"),
        ("1h" * 100_000, "each once"),
        ("1 " * 100_000, "such as 90s"),
    ],
    ids=lambda text: text[:20],
)
def test_durations_refused(written: str, reason: str) -> None:
    """Anything else is refused with what is wrong: months and years too, which have no fixed length."""
    with pytest.raises(ValueError, match=f"must be a duration.*{reason}"):
        parse_duration_us(written)


@given(st.dictionaries(st.integers(0, 6), st.integers(0, 999), min_size=1), st.booleans())
def test_durations_add_up(counts: dict[int, int], blanks: bool) -> None:
    """A duration of several pieces is the sum of what each piece is alone."""
    units = ["w", "day", "hrs", "min", "s", "ms", "us"]
    pieces = [f"{counts[at]}{units[at]}" for at in sorted(counts)]
    assert parse_duration_us((" " if blanks else "").join(pieces)) == sum(map(parse_duration_us, pieces))


HOUR_US = 3_600_000_000


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("now", FromNow(0)),
        ("NOW", FromNow(0)),
        ("now-1h", FromNow(-HOUR_US)),
        ("now+5m", FromNow(HOUR_US // 12)),
        ("now-1h30m", FromNow(-HOUR_US * 3 // 2)),
        ("now - 1h", FromNow(-HOUR_US)),
        (" now-PT1H ", FromNow(-HOUR_US)),
        ("now-60", FromNow(-60_000_000)),
        ("now-0s", FromNow(0)),
        ("2025-11-21T07:45:00Z", 1_763_711_100_000_000),
        ("1763711100", 1_763_711_100_000_000),
        ("Fri, 21 Nov 2025 07:45:00 GMT", 1_763_711_100_000_000),
    ],
)
def test_instants(written: str, meant: int | FromNow) -> None:
    """An instant is a timestamp, or lies a duration from now."""
    assert parse_instant(written) == meant


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("1h", "write it like now-1h"),
        ("-1h30m", "write it like now-1h"),
        ("1h ago", "write it like now-1h"),
        ("now-", "must be a duration"),
        ("now-x", "must be a duration"),
        ("now-1h/h", "must be a duration"),
        ("now-1M", "months"),
        ("now 1h", "or like now-1h"),
        ("nowhere", "or like now-1h"),
        ("yesterday", "or like now-1h"),
        ("", "is empty"),
        ("11/12/2026", "two readings"),
        ("2025", "is a year"),
    ],
)
def test_instants_refused(written: str, reason: str) -> None:
    """What is no instant is refused, and a duration alone with how it becomes one."""
    with pytest.raises(ValueError, match=reason):
        parse_instant(written)


@given(st.integers(min_value=1, max_value=10**15))
def test_every_duration_has_a_spelling(us: int) -> None:
    """format_duration and parse_duration_us are inverses for any number of microseconds."""
    assert parse_duration_us(format_duration(us)) == us


@given(st.lists(st.integers(MIN_TS_US, MAX_TS_US) | st.integers(-10, 10).map(lambda s: s * 1_000_000), max_size=20))
def test_many_timestamps_are_formatted_as_one(stamps: list[int]) -> None:
    """The quick way for a list writes what the way for one does, whole seconds and early years among them."""
    assert format_timestamps(stamps) == [format_timestamp(ts_us) for ts_us in stamps]
