"""Times in a format that strptime describes, such as `%d.%m.%Y %H:%M`: which formats are taken, and a column of times.

Where all texts of a column have one width, numpy puts their digits where ISO 8601 has them. Each other text is read by
strptime.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.api.decoding.timestamps import RARE_TIMES_MAX, Mask, fixed_width_us, rows_of_one_width
from statsapi.api.refusals import TooLarge
from statsapi.errors import echo
from statsapi.model import MAX_TS_US, MIN_TS_US, SECOND_US, TimestampsUs

_FORMAT_MAX: Final = 100
_TEXT_MAX: Final = 100  # a longer text is no time, and is refused unread

_EPOCH: Final = datetime(1970, 1, 1)
_MONDAY: Final = datetime(2024, 1, 1)
_EXAMPLE: Final = datetime(2025, 11, 21, 7, 45, tzinfo=timezone.utc)  # noqa: UP017

# The directives of strptime that depend on neither the machine's locale nor its clock; and, for those that people know
# from elsewhere, what to write instead.
_DIRECTIVES: Final = "aAbBdfHIjmMpSuUVwWyYGz%"
_INSTEAD: Final = {
    "T": "%H:%M:%S",
    "F": "%Y-%m-%d",
    "D": "%m/%d/%y",
    "R": "%H:%M",
    "e": "%d",
    "h": "%b",
    "k": "%H",
    "l": "%I",
    "N": "%f",
    "L": "%f",
    "3N": "%f",
    "i": "%M",
}

# A format may have one directive of each of these groups. Two would contradict each other, or say the same.
_KINDS: Final = ("Yy G", "mbB", "HI", "aAuw", "UWV", "d", "j", "M", "S", "f", "p", "z")


class FormatRefused(ValueError):
    """A time_format that cannot be used, and why."""


def check_format(time_format: str) -> None:
    """Raises FormatRefused for a format that strptime does not read, or whose texts do not name one moment."""
    if len(time_format) > _FORMAT_MAX or not time_format.isprintable():
        raise FormatRefused(f"must be at most {_FORMAT_MAX} printable characters, such as %d.%m.%Y %H:%M")
    found = re.findall(r"%(.?)", time_format)
    for letter in found:
        if letter == "s":
            raise FormatRefused("has %s: Unix time is read by itself, so leave time_format out")
        if letter == "Z":
            raise FormatRefused(
                "has %Z, and a zone's name stands for several offsets: write the name itself into the format, and say "
                "timezone=Europe/Berlin or the like"
            )
        if not letter or letter not in _DIRECTIVES:
            instead = f"write {_INSTEAD[letter]} for it" if letter in _INSTEAD else "see Python's strptime"
            raise FormatRefused(f"has %{letter}, which is not read here: {instead}")
    letters = [letter for letter in found if letter != "%"]
    for kind in _KINDS:
        same = [letter for letter in letters if letter in kind]
        if len(same) > 1:
            raise FormatRefused(f"has both %{same[0]} and %{same[1]}: keep one of them")
    has = set(letters)
    by_week = bool(has & set("UW") and has & set("Yy") and has & set("aAuw")) or {"G", "V"} < has & set("GVaAuw")
    by_day = bool(has & set("Yy") and (("d" in has and has & set("mbB")) or "j" in has))
    if not by_week and not by_day:
        raise FormatRefused("must name year, month and day, such as %d.%m.%Y %H:%M")
    if "j" in has and has & set("dmbB"):
        raise FormatRefused("has both %j, the day of the year, and a month or its day: keep one of them")
    if ("I" in has) != ("p" in has):
        raise FormatRefused("needs %I together with %p: %I is the hour from 01 to 12, %p says AM or PM; %H is 00 to 23")
    if has & set("MS") and not has & set("HI"):
        raise FormatRefused("has minutes or seconds without an hour (%H)")
    try:
        datetime.strptime("", time_format)
    except re.error:
        raise FormatRefused("is not one that strptime reads") from None
    except ValueError as error:
        if "does not match" not in str(error):
            raise FormatRefused(f"is not one that strptime reads: {error}") from None


# -- many texts -------------------------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """A format whose texts all have one width, apart from a fraction at the end. Columns count from 0.

    fields: (from, to, width) of each run of digits: its column in the text, and in 2025-11-21 07:45:00.
    letters: (column, byte) of everything else. short_year: the column of a year of two digits.
    """

    width: int
    fields: list[tuple[int, int, int]]
    letters: list[tuple[int, int]]
    short_year: int | None
    fraction: bool


_WIDTHS: Final = {"Y": (0, 4), "m": (5, 2), "d": (8, 2), "H": (11, 2), "M": (14, 2), "S": (17, 2)}
_ISO: Final = np.frombuffer(b"0000-00-00 00:00:00.000000", np.uint8)


@lru_cache(maxsize=64)
def _layout(time_format: str) -> _Layout | None:
    """None where texts of that format may have several widths."""
    fields, letters = [], []
    short_year, fraction, column = None, False, 0
    for directive, letter in re.findall(r"%(.)|([^%])", time_format):
        # A ? is excluded too: in the bytes that are compared it stands for any letter that is not ASCII.
        if fraction or (letter and (not letter.isascii() or letter == "?" or (letter.isspace() and letter != " "))):
            return None
        if letter or directive == "%":
            letters.append((column, ord(letter or "%")))
            column += 1
        elif directive == "y":
            short_year = column
            column += 2
        elif directive == "f":
            fraction = True
        elif directive in _WIDTHS:
            to, width = _WIDTHS[directive]
            fields.append((column, to, width))
            column += width
        else:
            return None
    if "  " in time_format or (fraction and (not letters or letters[-1][0] != column - 1)):
        return None
    return _Layout(column, fields, letters, short_year, fraction)


def read_column_us(texts: list[Any], time_format: str) -> tuple[TimestampsUs, Mask]:
    """Each text as strptime reads it: microseconds, int64[n], and which could be read, bool[n]. 30-100 ns a row.

    Raises TooLarge for too many different texts that strptime has to read, 10 µs each.
    """
    ts_us, good = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    layout = _layout(time_format)
    if layout is not None and len(texts):
        try:
            rows = rows_of_one_width(texts)
        except TypeError:  # not all are text
            rows = None
        if rows is not None:
            ts_us, good = _by_layout_us(rows, layout)
    read: dict[str, int | None] = {}
    for row in np.flatnonzero(~good).tolist():
        text = texts[row]
        if not isinstance(text, str):
            continue
        if text not in read:
            if len(read) == RARE_TIMES_MAX:
                raise TooLarge(
                    f"More than {RARE_TIMES_MAX} different timestamps have to be read one by one with time_format="
                    f"{echo(time_format)}, such as {echo(text)!r}: send fewer at once."
                )
            try:
                read[text] = read_one_us(text, time_format)
            except ValueError:
                read[text] = None
        if (found := read[text]) is not None:
            ts_us[row], good[row] = found, True
    return ts_us, good


def _by_layout_us(rows: NDArray[np.uint8], layout: _Layout) -> tuple[TimestampsUs, Mask]:
    """The same for texts of one width, uint8[n, width]; what is not digits and letters as in the layout is not read."""
    count, width = rows.shape
    digits = width - layout.width
    if digits != 0 and not (layout.fraction and 1 <= digits <= 6):
        return np.zeros(count, np.int64), np.zeros(count, np.bool_)
    if layout.fraction and digits == 0:
        return np.zeros(count, np.int64), np.zeros(count, np.bool_)
    iso = np.empty((19 + (1 + digits if digits else 0), count), np.uint8)
    iso[:] = _ISO[: len(iso), None]
    columns = np.ascontiguousarray(rows.T)
    for at, to, wide in layout.fields:
        iso[to : to + wide] = columns[at : at + wide]
    if digits:
        iso[20:] = columns[layout.width :]
    if layout.short_year is not None:  # 69 to 99 mean 1969 to 1999, as in POSIX
        tens, ones = columns[layout.short_year], columns[layout.short_year + 1]
        last = (tens > ord("6")) | ((tens == ord("6")) & (ones == ord("9")))
        iso[0] = np.where(last, ord("1"), ord("2"))
        iso[1] = np.where(last, ord("9"), ord("0"))
        iso[2], iso[3] = tens, ones
    ts_us, good = fixed_width_us(iso.T)
    for column, letter in layout.letters:
        good &= columns[column] == letter
    return ts_us, good


# -- one text ---------------------------------------------------------------------------------------------------------


def read_one_us(text: str, time_format: str) -> int:
    """One text in microseconds, as strptime reads it. Raises ValueError with what is wrong, and the cure. 10 µs."""
    if len(text) > _TEXT_MAX:
        raise ValueError(f"has {len(text)} characters, which is no time")
    if not (text := text.strip()):
        raise ValueError("is empty: give a time, or leave the event out")
    try:
        moment = datetime.strptime(text, time_format)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999") from None
    except ValueError as error:
        said = str(error)
        if "does not match" in said or "unconverted data" in said:
            example = _EXAMPLE.strftime(time_format)
            finer = ""
            if "f" in re.findall(r"%(.)", time_format) and re.search(r"\d[.,:]\d{7,}(?!\d)", text):
                finer = "; %f takes six digits: cut the rest off, or write ISO 8601 and leave time_format out"
            raise ValueError(
                f"is {echo(text)!r}, which is not written as time_format={time_format} says: like {example}{finer}"
            ) from None
        raise ValueError(f"is {echo(text)!r}, no moment that exists: {said}") from None
    if set(re.findall(r"%(.)", time_format)) & set("aAuw"):
        said_day = time.strptime(text, time_format).tm_wday
        if said_day != moment.weekday():
            other = (_MONDAY + timedelta(days=said_day)).strftime("%A")
            raise ValueError(f"contradicts itself: {moment.date()} is a {moment:%A}, not a {other}")
    since = moment.replace(tzinfo=None) - _EPOCH - (moment.utcoffset() or timedelta())
    ts_us = (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds
    if not MIN_TS_US <= ts_us <= MAX_TS_US:
        raise ValueError("lies outside the years 1 to 9999 (UTC)")
    return ts_us


def has_offset(time_format: str) -> bool:
    """Whether texts of that format say their offset from UTC."""
    return "z" in re.findall(r"%(.)", time_format)


_POINTS: Final = re.compile(r"\s*\d{4}-\d\d-\d\d([T ])\d\d?([.,])\d\d(\2\d\d)?\s*", re.ASCII)


def cure_of_points(text: object) -> str:
    """The end of a refusal of a time like 07.30: the format that reads a file of them; "" for any other text."""
    if not isinstance(text, str) or (found := _POINTS.fullmatch(text[:_TEXT_MAX])) is None:
        return ""
    joint, mark, seconds = found.groups()
    return f", or add time_format=%Y-%m-%d{joint}%H{mark}%M" + (f"{mark}%S" if seconds else "")
