"""Timestamps, and the instants of questions, as clients write them."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statsapi.api.decoding.timestamps import read_timestamps_us
from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.times import (
    FromNow,
    format_timestamp,
    format_timestamps,
    has_offset,
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
    """A text with no reading, or with two, is refused with what is wrong with it and with what to write."""
    with pytest.raises(ValueError, match=re.escape(REFUSED[written])):
        parse_timestamp_us(written)


@pytest.mark.parametrize("written", [2026_11_26, 20261126.0, 2026330, 2026_11_26_07_45, 2026_11_26_07_45_00])
def test_numbers_that_spell_a_date(written: float) -> None:
    """A number is Unix time. One that spells a date hardly means that: it is refused, and is never another instant than
    its digits as text.
    """
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


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        *[
            (f"2026-11-27{mark}03:40", f"has {re.escape(repr(mark))} between date and time, where a T or a blank")
            for mark in "x;|,_/+é-"
        ],
        ("2026-11-27+01:00", "where a T or a blank"),
        *[
            (f"2026-11-27 03:40{mark}{offset}", "is not an ISO 8601")
            for mark in (",", ";", "x", "/", "|", "_", ".")
            for offset in ("-05", "+05", "-05:30", "+01:00", "-19,0206")
        ],
        *[
            (f"{day}{joint}{clock}{end}", "two readings, 07:30 and 0?7[.,]30 hours; for the first write .*T07:30")
            for day in ("2026-11-27", "20261127", "2026-W48-5", "2026-331")
            for joint in (" ", "T", "t")
            for clock in ("07.30", "07,30")
            for end in ("", "Z", "+01:00")
        ],
        ("2026/11/27 7.30", "two readings, 07:30 and 7.30 hours"),
        ("2026-11-27 07.30 UTC", "two readings"),
        ("2026-11-27T07.5", "fraction of an hour, 07.5"),
        ("2026-11-27 07.30.15", "like 2026-11-27T07:30:15"),
        ("2026-11-27 03:40,5", "fraction of a minute or seconds .*like 2026-11-27T07:45:50"),
        ("2026-11-27 03:40.30", "fraction of a minute or seconds .*like 2026-11-27T07:45:30"),
        ("20261127T0340.5", "fraction of a minute or seconds"),
        ("2026-11-27 03:40,5 +01:00", "fraction of a minute or seconds"),
        ("2026-11-27 03-40", "is not an ISO 8601"),
        ("2026-11-27 03-05", "is not an ISO 8601"),
        ("2026-11-27 03-0530", "is not an ISO 8601"),
        ("2026-11-27T03:40\N{ARABIC-INDIC DIGIT ZERO}", "is not an ISO 8601"),
    ],
)
def test_what_parsers_alone_would_read_is_refused(written: str, reason: str) -> None:
    """Python's parser takes any mark between date, time and offset, and a part of an hour as one of a second."""
    with pytest.raises(ValueError, match=reason):
        parse_timestamp_us(written)
    with pytest.raises(ValueError, match=reason):
        parse_instant(written)
    assert not read_timestamps_us([*[written] * 100, "2026-11-27T03:40:00Z"])[1][:100].any()


def read_strictly(text: str) -> int | None:
    """ISO 8601 read letter by letter: microseconds, or None for a text that is not ISO 8601. It uses nothing of the
    parsers.
    """

    def digits(part: str, count: int) -> int:
        if len(part) != count or not part or part.strip("0123456789"):
            raise ValueError(part)
        return int(part)

    def clock(part: str) -> timedelta:
        fields = part.split(":") if ":" in part else [part[at : at + 2] for at in range(0, len(part), 2)]
        if not 1 <= len(fields) <= 3 or (len(fields) < 2 and ":" in part):
            raise ValueError(part)
        hours, minutes, seconds = [digits(field, 2) for field in fields] + [0] * (3 - len(fields))
        if hours > 24 or minutes > 59 or seconds > 59 or (hours == 24 and minutes + seconds):
            raise ValueError(part)
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)

    try:
        joint = next((at for at, letter in enumerate(text) if letter in "Tt "), len(text))
        day, time = text[:joint], text[joint + 1 :]
        if joint < len(text) and not time:
            return None
        year = digits(day[:4], 4)
        rest = day[4:]
        if "W" in rest:
            week, _, weekday = (
                rest.replace("-W", "W", 1)[1:].partition("-")
                if "-" in rest[2:]
                else (rest.strip("-")[1:3], "", rest[-1])
            )
            if len(rest.replace("-", "")) != 4:
                return None
            date = datetime.fromisocalendar(year, digits(week, 2), digits(weekday, 1))
        elif len(rest.replace("-", "")) == 3 and rest.count("-") <= 1 and rest.find("-") <= 0:
            date = datetime(year, 1, 1) + timedelta(days=digits(rest.replace("-", ""), 3) - 1)
            if date.year != year:
                return None
        elif len(rest) == 6 and rest[0] == rest[3] == "-":
            date = datetime(year, digits(rest[1:3], 2), digits(rest[4:], 2))
        else:
            date = datetime(year, digits(rest[:2], 2), digits(rest[2:], 2))
        offset = timedelta()
        if time[-1:] in ("Z", "z"):
            time = time[:-1]
            if not time:
                return None
        elif (sign := max(time.find("+"), time.find("-"))) >= 0:
            if sign == 2 and (time.count(":") > 1 or (time[sign] == "-" and ":" not in time[sign:])):
                return None
            offset = clock(time[sign + 1 :]) * (-1 if time[sign] == "-" else 1)
            if abs(offset) >= timedelta(days=1):
                return None
            time = time[:sign]
            if not time:
                return None
        mark = max(time.find("."), time.find(","))
        part = 0
        if mark >= 0:
            if len(time[:mark].replace(":", "")) != 6 or time[mark + 1 :].strip("0123456789") or not time[mark + 1 :]:
                return None
            part = int(time[mark + 1 :][:6].ljust(6, "0"))
            time = time[:mark]
            if time.startswith("24") and part:
                return None
        moment = date + (clock(time) if time else timedelta()) - offset
    except (ValueError, OverflowError):
        return None
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) + part


mark = st.sampled_from(["", "", "", ":", ":", ".", ",", "-", "+", " ", ";", "x", "/", "_", "|"])


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("2026-11-27T7:45:00Z", 1_795_765_500_000_000),
        ("2026-11-27 07:45:0Z", None),
        ("2026-11-27T07:45:000", None),
        ("2026-11-27T07:45:00+1", None),
    ],
)
def test_a_column_of_times_with_a_digit_too_few_or_too_many(written: str, us: int | None) -> None:
    """Each row is read or refused as it is alone, whatever other form has its width."""
    ts_us, known = read_timestamps_us([written] * 70)
    assert known.tolist() == [us is not None] * 70
    if us is None:
        with pytest.raises(ValueError, match="is not an ISO 8601"):
            parse_timestamp_us(written)
    else:
        assert set(ts_us.tolist()) == {us, parse_timestamp_us(written)}


two = st.integers(0, 61).map("{:02}".format)
iso_like = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["2026-11-27", "20261127", "2026-W48-5", "2026W485", "2026-331", "2024366", "2026-11"]),
        st.sampled_from(["T", " ", "t", "", "x", ";", ",", "_", "+", "-"]),
        st.integers(0, 25).map("{:02}".format) | st.just(""),
        *[mark, two | st.just("")] * 2,
        st.sampled_from(["", "", "", ".5", ",123", ".1234567", "."]),
        st.sampled_from(["", "", "Z", "z", "+01:00", "-0530", "+01", "-05", ",-05", " +01:00", ";+05", "Q"]),
    ),
)


@pytest.mark.slow
@settings(max_examples=2000)
@given(iso_like)
@example("2026-11-27 03.40")
@example("2026-11-27 03:40,-19")
@example("2026-11-27T03-05:00")
@example("2026-11-27T03:40:00-05:30:15")
@example("2026112700 ")
def test_timestamp_is_read_as_strictly_as_letter_by_letter(text: str) -> None:
    """What a strict reader takes is read so, alone and in a column; nothing else that begins with a date is read, but
    for the forms of other programs, which have a blank before the offset.
    """
    expected = read_strictly(text.strip())
    try:
        found = parse_timestamp_us(text)
    except ValueError:
        found = None
    if expected is None and found is not None:
        assert re.search(r"\d  |\d +([+-]|Z\Z)|:?60|^\d{14}|^\d+\Z|^\d+\.\d*\Z", text.strip()), (text, found)
    elif not text.strip().isdigit() and not re.match(r"\d+[.,]", text):
        assert found == expected, text
    ts_us, known = read_timestamps_us([text] * 70)
    assert known.all() == (found is not None)
    assert found is None or (ts_us == found).all()


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


@given(st.lists(st.integers(MIN_TS_US, MAX_TS_US) | st.integers(-10, 10).map(lambda s: s * 1_000_000), max_size=20))
def test_many_timestamps_are_formatted_as_one(stamps: list[int]) -> None:
    """The quick way for a list writes what the way for one does, whole seconds and early years among them."""
    assert format_timestamps(stamps) == [format_timestamp(ts_us) for ts_us in stamps]
