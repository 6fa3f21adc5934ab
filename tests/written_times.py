"""Times as programs and people write them, each with the microsecond that is meant: for tests of all doors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

from hypothesis import strategies as st

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

US, MS, S, MIN, DAY = 1, 1000, 1_000_000, 60_000_000, 86_400_000_000

# A moment in some offset -> text, and how fine that text is.
Form = tuple[Callable[[datetime], str], int]


def unix_us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def utc(form: str) -> Callable[[datetime], str]:
    """strftime of the moment in UTC."""
    return lambda moment: moment.astimezone(UTC).strftime(form)


def local(form: str) -> Callable[[datetime], str]:
    return lambda moment: moment.strftime(form)


def leap(form: str) -> Callable[[datetime], str]:
    """The second 60 of the minute before, whose start is the moment's minute."""
    return lambda moment: (moment.astimezone(UTC) - timedelta(minutes=1)).strftime(form)


def iso_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


FORMS: dict[str, Form] = {
    "iso": (datetime.isoformat, US),
    "iso naive": (lambda moment: moment.astimezone(UTC).replace(tzinfo=None).isoformat(), US),
    "javascript": (lambda moment: iso_utc(moment).split("+")[0][:19] + f".{moment.microsecond // 1000:03}Z", MS),
    "iso compact": (utc("%Y%m%dT%H%M%SZ"), S),
    "iso week": (utc("%G-W%V-%uT%H:%M:%SZ"), S),
    "iso day of year": (utc("%Y-%jT%H:%M"), MIN),
    "date": (utc("%Y-%m-%d"), DAY),
    "date of eight digits": (utc("%Y%m%d"), DAY),
    "fourteen digits": (utc("%Y%m%d%H%M%S"), S),
    "ldap": (utc("%Y%m%d%H%M%S.%fZ"), US),
    "unix s": (lambda moment: str(unix_us(moment) // S), S),
    "unix ms": (lambda moment: str(unix_us(moment) // MS), MS),
    "unix us": (lambda moment: str(unix_us(moment)), US),
    "unix ns": (lambda moment: f"{unix_us(moment)}999", US),
    "unix s with a fraction": (lambda moment: f"{unix_us(moment) // S}.{unix_us(moment) % S:06}", US),
    "unix s with a plus": (lambda moment: f"+{unix_us(moment) // S}", S),
    "unix ns as a float": (lambda moment: f"{unix_us(moment)}e3", US),
    "postgres": (local("%Y-%m-%d %H:%M:%S.%f%z"), US),
    "utc by name": (utc("%Y-%m-%d %H:%M:%S UTC"), S),
    "gmt by name": (utc("%Y-%m-%d %H:%M:%S.%f GMT"), US),
    "ruby": (local("%Y-%m-%d %H:%M:%S %z"), S),
    "go utc": (utc("%Y-%m-%d %H:%M:%S.%f +0000 UTC"), US),
    "go local": (local("%Y-%m-%d %H:%M:%S.%f %z CET m=+0.000123"), US),
    "go without a name": (local("%Y-%m-%d %H:%M:%S %z %z"), S),
    "java": (lambda moment: f"{moment.isoformat()}[Europe/Paris]", US),
    "java utc": (lambda moment: f"{iso_utc(moment).replace('+00:00', 'Z')}[UTC]", US),
    "rfc 9557 calendar": (lambda moment: f"{moment.isoformat()}[Asia/Tokyo][u-ca=japanese]", US),
    "rfc 2822": (lambda moment: format_datetime(moment), S),
    "rfc 2822 with a comment": (lambda moment: f"{format_datetime(moment)} (CET)", S),
    "http": (utc("%a, %d %b %Y %H:%M:%S GMT"), S),
    "slashes": (utc("%Y/%m/%d %H:%M:%S"), S),
    "slashes with an offset": (local("%Y/%m/%d %H:%M:%S %z"), S),
    "slashes, to the minute": (utc("%Y/%m/%d %H:%M"), MIN),
    "dots": (utc("%Y.%m.%d %H:%M:%S.%f"), US),
    "leap": (leap("%Y-%m-%dT%H:%M:60Z"), MIN),
    "leap naive": (leap("%Y-%m-%d %H:%M:60"), MIN),
    "leap compact": (leap("%Y%m%d%H%M60"), MIN),
    "leap rfc 2822": (leap("%a, %d %b %Y %H:%M:60 +0000"), MIN),
}

# What has two readings, none, or not all of it.
REFUSED_FORMS: dict[str, Callable[[datetime], str]] = {
    "month or day first": lambda moment: moment.strftime("%m/%d/%Y %H:%M"),
    "day first": lambda moment: moment.strftime("%d.%m.%Y %H:%M"),
    "two digits of year": lambda moment: moment.strftime("%d.%m.%y %H:%M"),
    "spreadsheet": lambda moment: str((unix_us(moment) / DAY) + 25569),
    "spreadsheet day": lambda moment: str(unix_us(moment) // DAY + 25569),
    "spreadsheet, cut short": lambda moment: f"{unix_us(moment) // MS:.5E}",
    "am or pm": lambda moment: moment.strftime("%Y-%m-%d %I:%M %p"),
    "month as a word": lambda moment: moment.strftime("%d %b %Y %H:%M:%S"),
    "apache": lambda moment: moment.strftime("%d/%b/%Y:%H:%M:%S %z"),
    "ctime": lambda moment: moment.strftime("%a %b %d %H:%M:%S %Y"),
    "zone by name": lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S CET"),
    "zone without offset": lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S[Europe/Paris]"),
    "critical": lambda moment: moment.isoformat() + "[!Europe/Paris]",
    "twelve digits": lambda moment: moment.strftime("%Y%m%d%H%M"),
    "year": lambda moment: moment.strftime("%Y"),
    "month": lambda moment: moment.strftime("%Y%m"),
    "time": lambda moment: moment.strftime("%H:%M:%S"),
}

BLANKS = ["", "", "", " ", "  ", "\t"]

offsets: Any = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# From 1980, as numbers of twelve digits that spell a date are milliseconds of 1976; within what all forms can write.
moments: Any = st.datetimes(datetime(1980, 1, 2), datetime(2099, 12, 30), timezones=offsets | st.just(UTC))


@st.composite
def written(draw: Any) -> tuple[str, int]:
    """A text, and the microseconds it means."""
    moment = draw(moments)
    write, fine_us = FORMS[draw(st.sampled_from(list(FORMS)))]
    us = unix_us(moment)
    return draw(st.sampled_from(BLANKS)) + write(moment) + draw(st.sampled_from(BLANKS)), us - us % fine_us


refused: Any = st.builds(lambda moment, write: write(moment), moments, st.sampled_from(list(REFUSED_FORMS.values())))


# What is no ISO 8601, Unix time but as text, or both and yet has one reading; with what it means.
OTHER_FORMS = {
    # Unix time as text
    "0": "1970-01-01T00:00:00",
    "1763711100": "2025-11-21T07:45:00",
    "+1763711100": "2025-11-21T07:45:00",
    "1763711100.": "2025-11-21T07:45:00",
    "1763711100.25": "2025-11-21T07:45:00.250000",
    "1763711100123": "2025-11-21T07:45:00.123000",
    "1763711100123456": "2025-11-21T07:45:00.123456",
    "1763711100123456789": "2025-11-21T07:45:00.123456",
    "1.7637111e9": "2025-11-21T07:45:00",
    "1.763711100123456e+18": "2025-11-21T07:45:00.123456",
    "-86400": "1969-12-31T00:00:00",
    # dates of digits alone
    "20251121": "2025-11-21T00:00:00",
    "20251121074500": "2025-11-21T07:45:00",
    "20251121074500Z": "2025-11-21T07:45:00",
    "20251121074500.5Z": "2025-11-21T07:45:00.500000",
    "20251121084500+0100": "2025-11-21T07:45:00",
    "20251121084500 +0100": "2025-11-21T07:45:00",
    "20251121 UTC": "2025-11-21T00:00:00",
    # UTC and offsets behind a blank
    "2025-11-21 07:45:00 UTC": "2025-11-21T07:45:00",
    "2025-11-21 07:45:00.5 GMT": "2025-11-21T07:45:00.500000",
    "2025-11-21T07:45 Z": "2025-11-21T07:45:00",
    "2025-11-21T07:45:00utc": "2025-11-21T07:45:00",
    "2025-11-21T07:45:00.123456 UTC": "2025-11-21T07:45:00.123456",
    "2025-11-21 08:45:00 +0100": "2025-11-21T07:45:00",
    "2025-11-21 02:15:00 -05:30": "2025-11-21T07:45:00",
    # Go's time.String(), with and without its monotonic clock
    "2025-11-21 07:45:00.26 +0000 UTC": "2025-11-21T07:45:00.260000",
    "2025-11-21 08:45:00.26 +0100 CET": "2025-11-21T07:45:00.260000",
    "2025-11-21 08:45:00 +0100 +0100": "2025-11-21T07:45:00",
    "2025-11-21 07:45:00.123456789 +0000 UTC m=+0.000012345": "2025-11-21T07:45:00.123456",
    # RFC 9557, as Java writes it: the offset decides
    "2025-11-21T08:45:00.123+01:00[Europe/Paris]": "2025-11-21T07:45:00.123000",
    "2025-11-21T07:45:00Z[UTC]": "2025-11-21T07:45:00",
    "2025-11-21T07:45Z[Europe/Paris]": "2025-11-21T07:45:00",
    "2025-11-21T07:45:00[UTC]": "2025-11-21T07:45:00",
    "2025-11-21T07:45:00[Etc/UTC]": "2025-11-21T07:45:00",
    "2025-11-21T08:45:00+01:00[Europe/Paris][u-ca=gregory]": "2025-11-21T07:45:00",
    "2025-11-21T07:45:00[u-ca=gregory]": "2025-11-21T07:45:00",
    # leap seconds
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00",
    "2016-12-31 23:59:60.5": "2017-01-01T00:00:00.500000",
    "20161231T235960Z": "2017-01-01T00:00:00",
    "20161231235960": "2017-01-01T00:00:00",
    "2017-01-01T00:59:60+01:00[Europe/Paris]": "2017-01-01T00:00:00",
    "2025-11-21T07:44:60": "2025-11-21T07:45:00",
    # RFC 2822
    "Fri, 21 Nov 2025 08:45:00 +0100": "2025-11-21T07:45:00",
    "Fri, 21 Nov 2025 07:45:00 GMT": "2025-11-21T07:45:00",
    "21 Nov 2025 02:45 EST": "2025-11-21T07:45:00",
    "Fri, 21 Nov 2025 00:45:00 PDT": "2025-11-21T07:45:00",
    "Fri, 21 Nov 2025 08:45:00 +0100 (CET)": "2025-11-21T07:45:00",
    "fri, 21 nov 2025 07:45:00 -0000": "2025-11-21T07:45:00",
    "Sat, 31 Dec 2016 23:59:60 +0000": "2017-01-01T00:00:00",
    # the year first, however it goes on
    "2025/11/21 07:45:00": "2025-11-21T07:45:00",
    "2025/11/21": "2025-11-21T00:00:00",
    "2025/11/21T07:45:00.5Z": "2025-11-21T07:45:00.500000",
    "2025/11/21 08:45 +0100": "2025-11-21T07:45:00",
    "2025/1/5 7:45": "2025-01-05T07:45:00",
    "2025.11.21 07:45:00": "2025-11-21T07:45:00",
    "2025-1-5": "2025-01-05T00:00:00",
    "2025:11:21 07:45:00": "2025-11-21T07:45:00",
    "2025-11-21, 07:45:00": "2025-11-21T07:45:00",
    "2025-11-21  07:45:00": "2025-11-21T07:45:00",
    # blanks around any of them
    " 2025-11-21T07:45:00Z": "2025-11-21T07:45:00",
    "2025-11-21 07:45\t": "2025-11-21T07:45:00",
    "\n 1763711100 \r\n": "2025-11-21T07:45:00",
    "\u00a02025-11-21\u00a0": "2025-11-21T00:00:00",
}


# What is refused, and a part of the reason: what is wrong with this text, and what to send.
REFUSED = {
    "": "is empty",
    " ": "is empty",
    "soon": "is not an ISO 8601",
    "now": "only start and end may",
    "yesterday": "only start and end may",
    "NaT": "holds NaT instead of a time",
    "null": "holds null instead of a time",
    # too little of a date, or one that does not exist
    "2025": "is a year alone",
    "2025-11": "names no day",
    "2025-W47": "names no day",
    "2025W47": "names no day",
    "07:45:00": "a time but no date",
    "2025-11-31": "day is out of range",
    "2025-11-21T25:00:00": "hour must be in 0..23",
    "2025-11-21T07:45:61Z": "second must be in 0..59",
    "2025-13-21 07:45:00 UTC": "month must be in 1..12",
    "20251399": "has 8 digits, like a date,",
    "20251121074599": "has 14 digits, like a date and a time",
    "2025999": "has 7 digits",
    "202511": "fewer than its eight digits",
    "251121": "fewer than its eight digits",
    # two readings
    "11/12/2026": "has two readings, 2026-12-11 and 2026-11-12",
    "11/12/2026 07:45": "has two readings, 2026-12-11 and 2026-11-12",
    "11-12-2026": "has two readings, 2026-12-11 and 2026-11-12",
    "1.2.2026": "has two readings, 2026-02-01 and 2026-01-02",
    "26.11.2026": "write 2026-11-26",
    "26.11.2026 07:45:00": "write 2026-11-26",
    "11/26/2026": "write 2026-11-26",
    "11/11/2026": "write 2026-11-11",
    "31/31/2026": "names a day that does not exist",
    "26.11.26": "year of two digits",
    "11/12/26 07:45": "year of two digits",
    "2026-11-26 07:45 PM": "AM or PM",
    "2026/11/26 7:45:00 a.m.": "AM or PM",
    "202611260745": "write it like 2026-11-26T07:45:00",
    "20261126074500123": "write it like 2026-11-26T07:45:00.123",
    "20261126.0": "write it like 2026-11-26",
    "20261126.07": "write it like 2026-11-26",
    # spreadsheets
    "46352.144": "a spreadsheet's day number; format the column so that it says 2026-11-26T03:27:22",
    "46352": "a spreadsheet's day number; format the column so that it says 2026-11-26T00:00:00",
    "46352,144": "a spreadsheet's day number",
    "1.76371E+12": "a spreadsheet cut short",
    "1E+09": "a spreadsheet cut short",
    "1763711100,5": "decimal comma; write it with a point, 1763711100.5",
    # months as words, and zones by name
    "26 Nov 2026": "month as a word",
    "November 26, 2026 07:45": "month as a word",
    "26-Nov-2026": "month as a word",
    "26/Nov/2026:07:45:00 +0000": "month as a word",
    "Fri Nov 20 07:45:00 2026": "month as a word",
    "Fri, 20 Nov 26 07:45:00 GMT": "month as a word",
    "Fri Nov 20 2026 08:45:00 GMT+0100 (CET)": "month as a word",
    "Thu, 20 Nov 2026 07:45:00 GMT": "2026-11-20 is a Friday, not Thu",
    "Fri, 31 Nov 2026 07:45:00 GMT": "day is out of range",
    "20 Xyz 2026 07:45:00 GMT": "has Xyz in place of a month's name",
    "20 Nov 2026 07:45:00 CET": "RFC 2822 does not define",
    "2026-11-26 07:45 CET": "names the zone CET",
    "2026-11-26 07:45:00 EST": "names the zone EST",
    "2026-11-26T07:45:00[Europe/Paris]": "names the zone Europe/Paris but no offset",
    "2026-11-26T07:45:00Z[!Europe/Paris]": "critical",
    "2026-11-26 08:45:00 +0100 UTC": "contradicts itself",
    "2026-11-26 07:45 GMT+1": "is not an ISO 8601",
    # no numbers
    "1_763_711_100": "is not an ISO 8601",
    "0x10": "is not an ISO 8601",
    "1763711100s": "is not an ISO 8601",
    "074500": "is not an ISO 8601",
    "--5": "is not an ISO 8601",
    "inf": "is not an ISO 8601",
    "٢٠٢٥-١١-٢١": "is not an ISO 8601",
    "١٧٦٣٧١١١٠٠": "is not an ISO 8601",
    # outside
    "0001-01-01T00:00:00+14:00": "outside the years 1 to 9999",
    "9999-12-31T23:00:00-14:00": "outside the years 1 to 9999",
    "9999-12-31T24:00:00": "outside the years 1 to 9999",
    "9999-12-31T23:59:60Z": "outside the years 1 to 9999",
    "Fri, 31 Dec 9999 23:59:00 -0100": "outside the years 1 to 9999",
    "9" * 400: "outside the years 1 to 9999",
    "9" * 21: "outside the years 1 to 9999",
    "1e400": "finite",
    # control characters, and no end
    "2025-11-21\x00": "control character",
    "2025-11-21T07:45:00\x1bZ": "control character",
    "x" * 100_000: "100000 characters",
    "2025-11-21 " * 10_000 + "x": "characters",
    "2025/11/21 " + " " * 100_000 + "x": "characters",
}
