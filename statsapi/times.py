"""Text and numbers to microseconds, and back. A leaf; everything that reads a time reads it here.

A timestamp is any ISO 8601 form that `datetime.fromisoformat` or dateutil's `isoparse` reads, with at least a full
date, or a number of Unix seconds (beyond ±2e10: milliseconds). Naive means UTC. Fractions finer than a microsecond
are cut off, as both parsers do. A duration is `90s`, `15m`, `1h`, `7d`, `500ms`, a number of seconds, or the
day-and-time part of ISO 8601 (`PT15M`, `P1DT12H`).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

from dateutil.parser import isoparse

from statsapi.model import DAY_US as DAY_US
from statsapi.model import HOUR_US as HOUR_US
from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.model import MINUTE_US as MINUTE_US
from statsapi.model import SECOND_US as SECOND_US

# Larger numbers are milliseconds: as seconds they would lie after the year 2603. pydantic draws the same line.
MILLISECONDS_BEYOND = 2e10

_EPOCH = datetime(1970, 1, 1)

# isoparse also reads a year, a month or a week alone; those name no instant that a person would mean.
_FULL_DATE = re.compile(r"\d{4}(-\d\d-\d\d|\d{4}|-?\d{3}|-?W\d\d-?\d)(?!\d)", re.ASCII)

_UNIT_US = {"ms": 1000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_SHORT_DURATION = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)(ms|[smhdw])?", re.ASCII)
_ISO_DURATION = re.compile(
    r"P(?=.)(?:(\d{1,9})W)?(?:(\d{1,9})D)?(?:T(?=.)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:[.,]\d{1,6})?)S)?)?",
    re.ASCII,
)


def parse_timestamp_us(value: object) -> int:
    """Microseconds since 1970-01-01 UTC of a timestamp as a client may write it.

    Raises ValueError with a sentence that says what to write instead. 0.4 µs for the common ISO forms, 5 µs for those
    that only `isoparse` reads.
    """
    if isinstance(value, str):
        return _parse_iso_us(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _unix_us(value)
    raise ValueError("must be an ISO 8601 string such as 2025-11-21T07:45:00Z, or a number of Unix seconds")


def has_offset(value: object) -> bool:
    """Whether a timestamp that `parse_timestamp_us` accepts says its own place in UTC; False: it was read as UTC.

    A Unix number is counted from an instant in UTC, so it has one. Costs what parsing does: for the rare path.
    """
    return not isinstance(value, str) or _parse_iso(value).tzinfo is not None


def _parse_iso_us(text: str) -> int:
    moment = _parse_iso(text)
    # Not astimezone(UTC): that overflows where year 1 or 9999 is crossed by the offset.
    since = moment.replace(tzinfo=None) - _EPOCH
    offset = moment.utcoffset()
    if offset:
        since -= offset
    return _in_range((since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds)


def _parse_iso(text: str) -> datetime:
    if not _FULL_DATE.match(text) or not text.isprintable():  # any character may separate date and time, NUL too
        raise ValueError(
            "is not a full ISO 8601 date and time; write it like 2025-11-21T07:45:00Z or as a number of Unix seconds"
        )
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        try:
            return isoparse(text)
        except OverflowError:
            raise ValueError("lies outside the years 1 to 9999") from None
        except ValueError:
            raise ValueError("is not an ISO 8601 date and time; write it like 2025-11-21T07:45:00Z") from None


def _unix_us(number: int | float) -> int:
    if not -1e18 < number < 1e18:  # NaN fails this too, and integers of 400 digits do not overflow it
        raise ValueError("must be a finite number of Unix seconds within the years 1 to 9999")
    scale = SECOND_US if abs(number) <= MILLISECONDS_BEYOND else 1000
    # round() of the double product is the nearest microsecond: both errors together stay under half of one.
    return _in_range(round(number * scale))


def _in_range(ts_us: int) -> int:
    if not MIN_TS_US <= ts_us <= MAX_TS_US:
        raise ValueError("lies outside the years 1 to 9999 (UTC)")
    return ts_us


def format_timestamp(ts_us: int) -> str:
    """ISO 8601 in UTC with a numeric offset, microseconds only where there are any."""
    second, microsecond = divmod(ts_us, SECOND_US)
    return f"{_format_second(second)}.{microsecond:06d}+00:00" if microsecond else f"{_format_second(second)}+00:00"


@lru_cache(maxsize=64)  # neighbours share their second: a page of events, an event and the server's time
def _format_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()


def parse_duration_us(text: str) -> int:
    """Microseconds of `90s`, `15m`, `1h`, `1.5d`, `PT15M`, `P1D` or bare seconds; ValueError says what to write."""
    if short := _SHORT_DURATION.fullmatch(text):
        number, unit = short[1], _UNIT_US[short[2] or "s"]
        whole, _, fraction = number.partition(".")
        return int(whole) * unit + int((fraction or "0").ljust(6, "0")) * unit // 1_000_000
    if iso := _ISO_DURATION.fullmatch(text):
        weeks, days, hours, minutes, seconds = iso.groups()
        whole, _, fraction = (seconds or "0").replace(",", ".").partition(".")
        total = int(whole) * SECOND_US + int((fraction or "0").ljust(6, "0"))
        for count, unit in ((weeks, 7 * DAY_US), (days, DAY_US), (hours, HOUR_US), (minutes, MINUTE_US)):
            total += int(count or 0) * unit
        return total
    raise ValueError("must be a duration such as 90s, 15m, 1h, 7d or PT15M")


def format_duration(duration_us: int) -> str:
    """The shortest spelling that `parse_duration_us` reads back: 1h, 90s, 250ms."""
    for unit in ("d", "h", "m", "s", "ms"):
        if duration_us and duration_us % _UNIT_US[unit] == 0:
            return f"{duration_us // _UNIT_US[unit]}{unit}"
    return f"{duration_us / SECOND_US:.6f}".rstrip("0").rstrip(".") + "s"


_SPELLED = (("day", DAY_US), ("h", HOUR_US), ("min", MINUTE_US), ("s", SECOND_US))


def spell_duration(duration_us: int) -> str:
    """For people, cut to what they would say: 5 h, 1 h 20 min, 3 days, 12 years; two units where the first is small."""
    if duration_us >= 2 * 365 * DAY_US:
        return f"{duration_us // (365 * DAY_US)} years"
    if duration_us < SECOND_US:
        return f"{duration_us / 1000:g} ms"
    at = next(at for at, (_, unit_us) in enumerate(_SPELLED) if duration_us >= unit_us)
    words = []
    for name, unit_us in _SPELLED[at : at + 2]:
        count, duration_us = divmod(duration_us, unit_us)
        if count:
            words.append(f"{count} {name}{'s' if name == 'day' and count > 1 else ''}")
        if count >= 10 and name in ("day", "min"):
            break
    return " ".join(words)


def floor_minute_us(ts_us: int) -> int:
    return ts_us - ts_us % MINUTE_US
