"""The timestamps and numbers of line protocol, and the unit that `precision=` gives a timestamp.

The plain way reads a column of words, and leaves in doubt what it does not know. The careful way reads one word, and
says what is wrong with it.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Final

import msgspec
import numpy as np

from statsapi.errors import echo
from statsapi.model import MAX_TS_US, TimestampsUs, Values

# A unit is given in µs. Two have no such number: nanoseconds, which are rounded down, and `auto`, where each timestamp
# shows its unit by its size.
_NANOSECONDS: Final = 0
_BY_MAGNITUDE: Final = -1
PRECISIONS_US: Final = {
    **dict.fromkeys(("n", "ns", "nanosecond"), _NANOSECONDS),
    **dict.fromkeys(("u", "us", "µ", "microsecond"), 1),
    **dict.fromkeys(("ms", "millisecond"), 1000),
    **dict.fromkeys(("s", "second"), 1_000_000),
    "m": 60_000_000,
    "h": 3_600_000_000,
    "auto": _BY_MAGNITUDE,
}
"""The unit of each word for a precision that any version of InfluxDB has. For `auto` see `to_us`."""

# The bounds of InfluxDB 3: a number below the first is in seconds, below the second in milliseconds, below the third in
# microseconds. Any other is in nanoseconds.
_AUTO_BELOW: Final = ((5_000_000_000, 1_000_000), (5_000_000_000_000, 1000), (5_000_000_000_000_000, 1))

_SENSIBLE_US: Final = (946_684_800_000_000, 4_102_444_800_000_000)  # the years 2000 to 2100

# -- timestamps ----------------------------------------------------------------------------------------------------


def to_us(number: int, unit_us: int) -> int:
    """A timestamp in µs, which may lie outside the years that a timestamp can be of. unit_us is one of PRECISIONS_US.

    `auto` takes a number below 5e9 for seconds, below 5e12 for milliseconds, below 5e15 for microseconds, and a larger
    one for nanoseconds, whatever its sign.
    """
    if unit_us == _BY_MAGNITUDE:
        unit_us = next((unit for below, unit in _AUTO_BELOW if abs(number) < below), _NANOSECONDS)
    return number // 1000 if unit_us == _NANOSECONDS else number * unit_us


def from_us(ts_us: int, unit_us: int) -> int:
    """The number that `to_us` made this of, without the nanoseconds that were cut off."""
    return ts_us * 1000 if unit_us == _NANOSECONDS else ts_us // abs(unit_us)


def precision_meant(number: int, unit_us: int) -> str | None:
    """The precision that puts a timestamp into the years 2000 to 2100. None where the given unit does so, or no other
    does, or the unit is `auto`.
    """
    found = {
        us: word
        for word, us in (("s", 1_000_000), ("ms", 1000), ("us", 1), ("ns", _NANOSECONDS))
        if _SENSIBLE_US[0] <= to_us(number, us) < _SENSIBLE_US[1]
    }
    return None if unit_us in found or unit_us == _BY_MAGNITUDE else next(iter(found.values()), None)


_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_INTEGERS: Final = msgspec.json.Decoder(list[int])
_NO_TIME: Final = np.iinfo(np.int64).min


def read_timestamp(text: str) -> int | None:
    """The integer of 64 bits that a timestamp is, in whatever unit; None for any other text."""
    if _INTEGER.fullmatch(text):
        number = int(text)
        if -(2**63) <= number < 2**63:
            return number
    return None


def read_times_us(texts: list[str], unit_us: int) -> TimestampsUs:
    """A column of timestamps in µs: int64[n]. A text that is none becomes one before MIN_TS_US.

    The smallest integer of 64 bits, which is before MIN_TS_US in any unit, is none here.
    """
    try:
        numbers = np.array(_INTEGERS.decode(f"[{','.join(texts)}]"), np.int64)
    except (ValueError, OverflowError):
        numbers = _one_by_one(texts)
    if len(numbers) != len(texts):
        numbers = _one_by_one(texts)
    if unit_us == _NANOSECONDS:
        ts_us = numbers // 1000
    elif unit_us == _BY_MAGNITUDE:
        ts_us = numbers // 1000
        for below, smaller_us in reversed(_AUTO_BELOW):
            smaller = (numbers < below) & (numbers > -below)
            ts_us[smaller] = numbers[smaller] * smaller_us
    else:
        within = MAX_TS_US // unit_us + 1
        ts_us = np.clip(numbers, -within, within) * unit_us
    ts_us[numbers == _NO_TIME] = _NO_TIME
    return ts_us


def _one_by_one(texts: list[str]) -> TimestampsUs:
    numbers = map(read_timestamp, texts)
    return np.array([_NO_TIME if number is None else number for number in numbers], np.int64)


# -- numbers -------------------------------------------------------------------------------------------------------

_FLOATS: Final = msgspec.json.Decoder(list[float])

# A column in which each word with an i is an integer such as 1i. Each word ends with a comma, the last one too.
_INTEGERS_MARKED: Final = re.compile(r"(?:-?(?:0|[1-9][0-9]{0,17})i,|[^i,]*+,)*+\Z", re.ASCII)

_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?", re.ASCII)
_MARKED: Final = re.compile(r"([+-]?[0-9]++)([iu])", re.ASCII)
_BOOLEANS: Final = frozenset(("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"))


def read_number(text: str) -> float:
    """The value of a field that is not a string. Raises ValueError with the reason where it is no number."""
    if _FLOAT.fullmatch(text):
        number = float(text)
        if isfinite(number):
            return number
        raise ValueError(f"is {echo(text)}, which is beyond the range of float64")
    if marked := _MARKED.fullmatch(text):
        digits = marked[1].lstrip("+-").lstrip("0") or "0"
        number = int(digits) if len(digits) <= 20 else 2**64
        if text[0] == "-":
            number = -number
        low, high = (-(2**63), 2**63) if marked[2] == "i" else (0, 2**64)
        if not low <= number < high:
            what = "signed" if marked[2] == "i" else "unsigned"
            raise ValueError(f"is {echo(text)}, which is no {what} integer of 64 bits")
        return float(number)
    if text in _BOOLEANS:
        raise ValueError(f"is {text}, a boolean: only numbers are counted, so send 1 or 0, or leave the field out")
    if not text:
        raise ValueError("has no value: write a number, such as 1.5 or 2i")
    raise ValueError(f"is {echo(text)!r}, which is no number such as 1.5 or 2i, and no string in double quotes")


def read_numbers(texts: list[str]) -> Values:
    """A column of values: float64[n], NaN for each text that `read_number` refuses."""
    joined = ",".join(texts)
    try:
        if "i" in joined:
            joined += ","
            if not _INTEGERS_MARKED.match(joined):
                raise ValueError  # noqa: TRY301 (one by one, as for any other)
            joined = joined.replace("i,", ",")[:-1]
        floats = np.array(_FLOATS.decode(f"[{joined}]"), np.float64)
        if len(floats) != len(texts):  # a single one without a value
            raise ValueError  # noqa: TRY301
    except ValueError:
        return np.array([_number_or_nan(text) for text in texts], np.float64)
    for zero in np.flatnonzero(floats == 0.0).tolist():  # JSON's -0 is an integer, without a sign
        floats[zero] = _number_or_nan(texts[zero])
    return floats


def _number_or_nan(text: str) -> float:
    try:
        return read_number(text)
    except ValueError:
        return float("nan")
