"""Durations as people write them -> microseconds, and back: which are read, and why one is refused.

A duration is `90s`, `15m`, `1h30m`, `5min`, `2w`, `500ms`, `10us`, a number of seconds, or the weeks, days and time of
ISO 8601 (`PT15M`, `P1DT12H`). Months and years have no fixed length, and are refused. Any other text is refused with a
sentence that says what to write instead.
"""

from __future__ import annotations

import re
from typing import Final

from statsapi.model import DAY_US, HOUR_US, MINUTE_US, SECOND_US

_UNIT_US: Final = {"us": 1, "ms": 1000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_UNITS: Final = {
    spelling: _UNIT_US[unit]
    for unit, spellings in {
        "us": "us µs μs",  # the micro sign and the Greek letter
        "ms": "ms msec msecs millisecond milliseconds",
        "s": "s sec secs second seconds",
        "m": "m min mins minute minutes",
        "h": "h hr hrs hour hours",
        "d": "d day days",
        "w": "w wk wks week weeks",
    }.items()
    for spelling in spellings.split()
}
_SECONDS_ALONE = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_DURATION_PART = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([A-Za-zµμ]{1,12}) ?", re.ASCII)
_ISO_DURATION = re.compile(
    r"P(?=.)(?:(N)W)?(?:(N)D)?(?:T(?=.)(?:(N)H)?(?:(N)M)?(?:(N)S)?)?".replace("N", r"\d{1,9}(?:[.,]\d{1,18})?"),
    re.ASCII | re.IGNORECASE,
)
_DURATION_EXAMPLES: Final = "must be a duration such as 90s, 15m, 1h30m, 7d or PT15M"


def parse_duration_us(text: str) -> int:
    """`90s`, `15m`, `1h30m`, `1.5d`, `5 min`, `PT15M`, `P1D` or bare seconds, truncated to whole microseconds.

    ValueError says what to write. Costs 1-3 µs.
    """
    text = text.strip()
    if _SECONDS_ALONE.fullmatch(text):
        return _times(text, SECOND_US)
    if iso := _ISO_DURATION.fullmatch(text):
        return sum(_times(n, _UNIT_US[unit]) for n, unit in zip(iso.groups(), "wdhms", strict=True) if n)
    total_us = at = 0
    above_us = _UNIT_US["w"] + 1
    while part := _DURATION_PART.match(text, at):
        unit_us = _unit_us(part[2])
        if unit_us >= above_us:  # `5m 1h` may be meant as a list
            raise ValueError(f"{_DURATION_EXAMPLES}; its units must go from large to small, each once")
        above_us = unit_us
        total_us += _times(part[1], unit_us)
        at = part.end()
    if not at or at < len(text):
        raise ValueError(_why_no_duration(text, at))
    return total_us


def _unit_us(unit: str) -> int:
    if unit == "M":
        raise ValueError(f"{_DURATION_EXAMPLES}; M could be months: write 5m or 5min for minutes")
    if unit.lower() in ("mo", "mon", "month", "months", "y", "yr", "yrs", "year", "years", "q"):
        raise ValueError(f"{_DURATION_EXAMPLES}; months and years have no fixed length: write days")
    if unit.lower() not in _UNITS:
        raise ValueError(f"{_DURATION_EXAMPLES}; units are us, ms, s, m, h, d and w, not {unit}")
    return _UNITS[unit.lower()]


def _times(number: str, unit_us: int) -> int:
    whole, _, fraction = number.replace(",", ".").partition(".")
    return int(whole + fraction) * unit_us // int("1".ljust(len(fraction) + 1, "0"))


def _why_no_duration(text: str, at: int) -> str:
    if ":" in text:
        return f"{_DURATION_EXAMPLES}; write hours, minutes and seconds with their units, not colons"
    if text.startswith("-"):
        return f"{_DURATION_EXAMPLES}, and not negative"
    if re.match(r"\d+,\d", text[at:], re.ASCII):
        return f"{_DURATION_EXAMPLES}; write a decimal point, not a comma"
    if at and _SECONDS_ALONE.fullmatch(text[at:]):
        return f"{_DURATION_EXAMPLES}; its last number has no unit"
    return _DURATION_EXAMPLES


def format_duration(duration_us: int) -> str:
    """The shortest spelling that `parse_duration_us` reads back: 1h, 90s, 250ms."""
    for unit in ("d", "h", "m", "s", "ms"):
        if duration_us and duration_us % _UNIT_US[unit] == 0:
            return f"{duration_us // _UNIT_US[unit]}{unit}"
    return f"{duration_us / SECOND_US:.6f}".rstrip("0").rstrip(".") + "s"


_SPELLED = (("day", DAY_US), ("h", HOUR_US), ("min", MINUTE_US), ("s", SECOND_US))
_YEAR_US = 365 * DAY_US

# (from this duration on, it is spelled in multiples of this unit)
_ROUNDED_TO = ((10 * DAY_US, DAY_US), (DAY_US, HOUR_US), (10 * MINUTE_US, MINUTE_US), (0, SECOND_US))


def spell_duration(duration_us: int) -> str:
    """The duration rounded for people: 5 h, 1 h 20 min, 3 days, 12 years."""
    if duration_us >= 2 * _YEAR_US:
        return f"{duration_us // _YEAR_US} years"
    if duration_us < SECOND_US:
        return f"{duration_us / 1000:g} ms"
    unit_us = next(unit_us for from_us, unit_us in _ROUNDED_TO if duration_us >= from_us)
    rest_us = (duration_us + unit_us // 2) // unit_us * unit_us
    words = []
    for name, unit_us in _SPELLED:
        count, rest_us = divmod(rest_us, unit_us)
        if count:
            words.append(f"{count} {name}{'s' if name == 'day' and count > 1 else ''}")
    return " ".join(words)
