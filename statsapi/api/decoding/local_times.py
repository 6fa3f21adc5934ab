"""Times as a file has them: in a form that strptime describes, by the clock of a place.

    texts ── time_format ──> microseconds by that clock ── timezone, fold ──> microseconds UTC

A text that says its own offset keeps it. An hour that a clock showed twice, and one that it left out, have two
readings: they are refused unless `fold` says which. With `earlier` and `later` either kind means the earlier or the
later of the two instants, as in JavaScript's Temporal.
"""

from __future__ import annotations

import re
import time
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from werkzeug.exceptions import RequestEntityTooLarge

from statsapi.api.decoding.timestamps import (
    RARE_TIMES_MAX,
    Mask,
    fixed_width_us,
    read_timestamps_us,
    rows_of_one_width,
)
from statsapi.errors import echo
from statsapi.model import DAY_US, MAX_TS_US, MIN_TS_US, MINUTE_US, SECOND_US, TimestampsUs
from statsapi.times import has_offset, parse_timestamp_us

Fold = Literal["earlier", "later"]

FORMAT_MAX: Final = 100
_OFFSET_MAX_H: Final = 23
_TEXT_MAX: Final = 100  # what is longer is no time, and is not looked at

_EPOCH: Final = datetime(1970, 1, 1)
_MONDAY: Final = datetime(2024, 1, 1)
_EXAMPLE: Final = datetime(2025, 11, 21, 7, 45, tzinfo=timezone.utc)  # noqa: UP017

# What strptime reads without asking the machine's locale or clock, and what people write for it by mistake.
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

# Of each of these a format may have one: two would contradict each other, or be read twice.
_KINDS: Final = ("Yy G", "mbB", "HI", "aAuw", "UWV", "d", "j", "M", "S", "f", "p", "z")


class FormatRefused(ValueError):
    """A time_format that cannot be used, and why."""


class ZoneRefused(ValueError):
    """A timezone that is not known here, and what to write."""


def check_format(time_format: str) -> None:
    """FormatRefused for what strptime does not read, and for what does not name one moment."""
    if len(time_format) > FORMAT_MAX or not time_format.isprintable():
        raise FormatRefused(f"must be at most {FORMAT_MAX} printable characters, such as %d.%m.%Y %H:%M")
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


def find_zone(name: str) -> tzinfo:
    """The zone with that name, or with that offset (+01:00; in a URL the plus may have become a blank)."""
    if offset := re.fullmatch(r"([+ -])(\d\d):?([0-5]\d)", name, re.ASCII):
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if ahead < timedelta(days=1):
            return timezone(-ahead if offset[1] == "-" else ahead)
    if name.upper() in ("UTC", "Z"):
        return timezone.utc  # noqa: UP017 (mypy and zoneinfo agree on this one)
    if name.lower() in _SERVERS_OWN:
        raise ZoneRefused(f"is {echo(name)!r}, a setting of the server: write a zone like Europe/Berlin, or +01:00")
    if inner := re.match(r"(?:posix|right)/(?=.)", name):
        raise ZoneRefused(f"is {echo(name)!r}, a table of the server's own: write {echo(name[inner.end() :])}")
    if len(name) <= FORMAT_MAX and name.isascii() and name.isprintable():
        try:
            return zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    if meant := _offset_meant(name):
        raise ZoneRefused(f"is {echo(name)!r}: write {meant}")
    if known := _names_of_zones().get(name[:FORMAT_MAX].lower().replace(" ", "_")):
        raise ZoneRefused(f"is {echo(name)!r}: write {known}")
    if not _names_of_zones():
        raise ZoneRefused("cannot be looked up, as this machine has no time zones: install tzdata, or give an offset")
    raise ZoneRefused(f"is {echo(name)!r}, which is no zone known here: write one like Europe/Berlin, or +01:00")


# Names that zoneinfo knows, and that stand for how the machine is set up, or for nothing.
_SERVERS_OWN: Final = ("localtime", "posixrules", "factory")

_AHEAD_OF_UTC: Final = re.compile(
    r"(etc/)?(?:utc|gmt|ut|z)?\s*([+\-\u2212\u2013 ])\s*(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE
)


def _offset_meant(name: str) -> str | None:
    """+01:00 for UTC+1, GMT+1 and +1; -01:00 for Etc/GMT+1 whose plus a URL made a blank: POSIX counts to the west.

    None for what has no such meaning, and for names of zones.
    """
    found = _AHEAD_OF_UTC.fullmatch(name)
    if found is None or int(found[3]) > _OFFSET_MAX_H:
        return None
    etc, sign = found[1], "+" if found[2] in "+ " else "-"
    if etc and found[2] in "+-":
        return None
    if etc:
        sign = "-" if sign == "+" else "+"
    if not int(found[3] + (found[4] or "")):
        return "UTC"
    return f"{sign}{int(found[3]):02}:{found[4] or '00'}"


@lru_cache(maxsize=1)
def _names_of_zones() -> dict[str, str]:
    """By the name in small letters, and by the city alone; 20 ms, once, for a refusal only."""
    names = sorted(name for name in zoneinfo.available_timezones() if name.lower() not in _SERVERS_OWN)
    return {name.rpartition("/")[2].lower(): name for name in names} | {name.lower(): name for name in names}


@dataclass(frozen=True, slots=True)
class Clock:
    """How a column of times is read."""

    time_format: str | None = None
    zone: tzinfo | None = None
    zone_name: str | None = None
    fold: Fold | None = None

    def read_us(self, texts: list[Any]) -> tuple[TimestampsUs, Mask]:
        """Microseconds UTC, int64[n], and which rows name one moment, bool[n]. 30-100 ns a row.

        RequestEntityTooLarge for too many different texts that have to be read one by one, 10 µs each.
        """
        if self.time_format is None:
            ts_us, good = read_timestamps_us(texts)
        else:
            ts_us, good = _by_format_us(texts, self.time_format)
        if self.zone is None or not len(ts_us):
            return ts_us, good
        naive = good & self._naive(texts)
        if naive.any():
            utc_us, one = _to_utc_us(ts_us[naive], self.zone, self.fold)
            ts_us = ts_us.copy()
            ts_us[naive], good[naive] = utc_us, one
        return ts_us, good

    def read_one_us(self, text: object) -> int:
        """One of them. Raises ValueError with what is wrong with it, and the cure."""
        if self.time_format is None:
            try:
                ts_us = parse_timestamp_us(text)
            except ValueError as error:
                raise ValueError(f"{error}{_by_points(text)}") from None
        elif not isinstance(text, str):
            raise ValueError(f"is not text, as time_format={self.time_format} would have it")
        else:
            ts_us = _strptime_us(text, self.time_format)
        if self.zone is None or not self._is_naive(text):
            return ts_us
        utc_us, one = _to_utc_us(np.array([ts_us], np.int64), self.zone, self.fold)
        if not one[0]:
            raise ValueError(self._why_not_one(ts_us, self.zone))
        return int(utc_us[0])

    def lacks_offset(self, text: object) -> bool:
        """Whether that text, which was read, was taken for UTC for want of an offset."""
        return self.zone is None and self._is_naive(text)

    def _is_naive(self, text: object) -> bool:
        if self.time_format is None:
            return not has_offset(text)
        return not _has_zone(self.time_format)

    def _naive(self, texts: list[Any]) -> Mask:
        """Which rows have no offset of their own, where they name a moment at all: bool[n]."""
        if self.time_format is not None:
            return np.full(len(texts), not _has_zone(self.time_format))
        if _all_naive(texts):
            return np.ones(len(texts), np.bool_)
        naive = np.zeros(len(texts), np.bool_)
        known: dict[str, bool] = {}
        for row, text in enumerate(texts):
            if not isinstance(text, str) or text[-1:] == "Z":
                continue
            if (found := known.get(text)) is None:
                try:
                    found = not has_offset(text)
                except ValueError:
                    found = False
                if len(known) < RARE_TIMES_MAX:
                    known[text] = found
            naive[row] = found
        return naive

    def _why_not_one(self, local_us: int, zone: tzinfo) -> str:
        first_us, second_us = _both_offsets_us(local_us, zone)
        when = _EPOCH + timedelta(microseconds=local_us)
        if not MIN_TS_US <= local_us - first_us <= MAX_TS_US:
            return "lies outside the years 1 to 9999 (UTC)"
        which = "happened twice" if first_us > second_us else "never happened"
        moved = "back" if first_us > second_us else "forward"
        earlier, later = (
            (when - timedelta(microseconds=offset_us)).isoformat() + "Z"
            for offset_us in (max(first_us, second_us), min(first_us, second_us))
        )
        return (
            f"{which} in {self.zone_name}, where the clocks went {moved}: add fold=earlier for {earlier} or fold=later "
            f"for {later}, or write the offset"
        )


# -- by a format ---------------------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """A format whose texts all have one width, but for a fraction at the end. Columns count from 0.

    fields: (from, to, width): where a run of digits stands in the text, and where in 2025-11-21 07:45:00.
    letters: (column, byte) of everything else.
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
        # A ? stands for whatever is not ASCII in the bytes that are compared.
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


def _by_format_us(texts: list[Any], time_format: str) -> tuple[TimestampsUs, Mask]:
    """As strptime reads each of them: numpy puts the digits where ISO 8601 has them, where all have one width."""
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
                raise RequestEntityTooLarge(
                    f"More than {RARE_TIMES_MAX} different timestamps have to be read one by one with time_format="
                    f"{echo(time_format)}, such as {echo(text)!r}: send fewer at once."
                )
            try:
                read[text] = _strptime_us(text, time_format)
            except ValueError:
                read[text] = None
        if (found := read[text]) is not None:
            ts_us[row], good[row] = found, True
    return ts_us, good


def _by_layout_us(rows: NDArray[np.uint8], layout: _Layout) -> tuple[TimestampsUs, Mask]:
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
    if layout.short_year is not None:  # 69 to 99 are of the last century, as POSIX has it
        tens, ones = columns[layout.short_year], columns[layout.short_year + 1]
        last = (tens > ord("6")) | ((tens == ord("6")) & (ones == ord("9")))
        iso[0] = np.where(last, ord("1"), ord("2"))
        iso[1] = np.where(last, ord("9"), ord("0"))
        iso[2], iso[3] = tens, ones
    ts_us, good = fixed_width_us(iso.T)
    for column, letter in layout.letters:
        good &= columns[column] == letter
    return ts_us, good


_POINTS: Final = re.compile(r"\s*\d{4}-\d\d-\d\d([T ])\d\d?([.,])\d\d(\2\d\d)?\s*", re.ASCII)


def _by_points(text: object) -> str:
    """The other cure for a time like 07.30, which the format of a whole file can say."""
    if not isinstance(text, str) or (found := _POINTS.fullmatch(text[:_TEXT_MAX])) is None:
        return ""
    joint, mark, seconds = found.groups()
    return f", or add time_format=%Y-%m-%d{joint}%H{mark}%M" + (f"{mark}%S" if seconds else "")


def _has_zone(time_format: str) -> bool:
    return "z" in re.findall(r"%(.)", time_format)


def _strptime_us(text: str, time_format: str) -> int:
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


# -- by the clock of a place ---------------------------------------------------------------------------------------


_NAIVE: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?", re.ASCII)


def _all_naive(texts: list[Any]) -> bool:
    """Whether it is beyond doubt that none has an offset: all are written like the first, which has none."""
    if not isinstance(texts[0], str) or not _NAIVE.fullmatch(texts[0]):
        return False
    try:
        rows = rows_of_one_width(texts)
    except TypeError:
        return False
    return rows is not None and bool(fixed_width_us(rows)[1].all())


def _to_utc_us(local_us: TimestampsUs, zone: tzinfo, fold: Fold | None) -> tuple[TimestampsUs, Mask]:
    """What a clock in that zone showed, as UTC, and which rows have one reading. 10-20 ns a row where neighbours share
    their day: the zone is asked once a day, and once a quarter of an hour on days when the clock was changed.
    """
    first_us, second_us = np.zeros_like(local_us), np.zeros_like(local_us)
    rest = np.arange(len(local_us))
    asked = 0
    for unit_us in (DAY_US, 15 * MINUTE_US, 1):
        units = local_us[rest] // unit_us
        starts = np.flatnonzero(np.diff(units, prepend=units[0] - 1))
        lengths = np.diff(starts, append=len(units))
        known: dict[int, tuple[int, int] | None] = {}
        found = []
        for unit in units[starts].tolist():
            if unit not in known:
                asked += 1
                if asked > RARE_TIMES_MAX:
                    raise RequestEntityTooLarge(
                        f"More than {RARE_TIMES_MAX} days have to be looked up in the time zone: send fewer at once."
                    )
                known[unit] = _steady_offsets_us(unit * unit_us, unit_us, zone)
            found.append(known[unit] or (0, 0))
        steady = np.repeat([known[unit] is not None for unit in units[starts].tolist()], lengths)
        both = np.repeat(np.array(found, np.int64), lengths, axis=0)
        first_us[rest], second_us[rest] = both[:, 0], both[:, 1]
        rest = rest[~steady]
        if not len(rest):
            break
    if fold is None:
        utc_us, one = local_us - first_us, first_us == second_us
    else:
        pick = np.maximum if fold == "earlier" else np.minimum
        utc_us, one = local_us - pick(first_us, second_us), np.ones(len(local_us), np.bool_)
    return utc_us, cast(Mask, one & (utc_us >= MIN_TS_US) & (utc_us <= MAX_TS_US))


def _steady_offsets_us(start_us: int, unit_us: int, zone: tzinfo) -> tuple[int, int] | None:
    """Both offsets of that stretch of local time; None where they change within it."""
    first = _both_offsets_us(start_us, zone)
    if unit_us == 1:
        return first
    return first if first == _both_offsets_us(start_us + unit_us - 1, zone) else None


def _both_offsets_us(local_us: int, zone: tzinfo) -> tuple[int, int]:
    """The offset before a change of the clock and the one after, where that time has two readings; else one twice."""
    moment = (_EPOCH + timedelta(microseconds=local_us)).replace(tzinfo=zone)
    offsets: Sequence[timedelta] = [moment.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1)]
    first, second = (offset // timedelta(microseconds=1) for offset in offsets)
    return first, second
