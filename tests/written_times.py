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
