"""The formats in which some texts may be written as times, for guesses: `%d.%m.%Y %H:%M` and a few hundred more."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from statsapi.api.decoding.cells import NUMBER
from statsapi.api.decoding.local_times import Clock
from statsapi.times import has_offset, parse_timestamp_us

_TEXT_MAX: Final = 40  # no time is longer
_READ_MAX: Final = 4000

# A date, and the time of day behind it. Dates with %d/%m stand before the same ones with %m/%d.
_DATES: Final = [
    f"{first}{mark}{second}{mark}{year}"
    for first, second in (("%d", "%m"), ("%m", "%d"))
    for mark in "./-"
    for year in ("%Y", "%y")
] + [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%b %d %Y",
    "%B %d, %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
]

# Points stand between hours and minutes only where each has two digits: a spreadsheet makes 7.5 of 07.50.
_BY_POINTS: Final = ("%H.%M", "%H.%M.%S")
_POINTS: Final = re.compile(r"[T ]\d\d?(?:\.\d\d){1,2}\s*\Z", re.ASCII)
_CLOCKS: Final = (
    "",
    "%H:%M",
    "%H:%M:%S",
    "%H:%M:%S.%f",
    "%H:%M:%S,%f",
    *_BY_POINTS,
    "%I:%M %p",
    "%I:%M:%S %p",
    "%I:%M%p",
    "%I:%M:%S%p",
    "%H",
    "%I %p",
    "%I%p",
    "%H:%M:%S %z",
    "%H:%M %z",
)


class EnoughRead(Exception):
    """A guess has read all the texts that it may read."""


class TimeReader:
    """Reads texts as times for one guess, each once: 10 to 20 µs. Raises EnoughRead beyond _READ_MAX of them."""

    def __init__(self) -> None:
        self._plain: dict[str, bool] = {}
        self._fitting: dict[tuple[str, str], bool] = {}

    def clocks(self, asked: Clock, texts: Sequence[str], *, dates_only: bool = False) -> list[Clock]:
        """The ways to read all these texts, with the zone that was asked for. dates_only: as dates without a time of
        day.

        Where several formats with day and month in the same order read them alike, only the first is given. Formats
        with the other order stay beside it, as they may differ further down in the file.
        """
        if not dates_only and asked.time_format is not None:
            return [asked]
        if all(map(self.is_plain_time, texts)):
            return [asked] if not dates_only or all(":" not in text for text in texts) else []
        readings: dict[tuple[bool, tuple[int, ...]], Clock] = {}
        for time_format in self._formats(texts):
            clock = replace(asked, time_format=time_format)
            if dates_only and ("%H" in time_format or "%I" in time_format):
                continue
            plain = Clock(time_format)
            day_first = time_format.index("%d") < max(map(time_format.find, ("%m", "%b", "%B")))
            readings.setdefault((day_first, tuple(plain.read_one_us(text) for text in texts)), clock)
        return list(readings.values())

    def is_time(self, text: str) -> bool:
        """Whether it is a time in any form."""
        return self.is_plain_time(text) or bool(self._formats([text]))

    def is_plain_time(self, text: str) -> bool:
        """Whether it is a time that needs no format. A number must be Unix time of this century, as most numbers are
        something else.
        """
        if (found := self._plain.get(text)) is None:
            self._count()
            found = self._plain[text] = _is_plain_time(text)
        return found

    def _formats(self, texts: Sequence[str]) -> list[str]:
        """The known formats in which all of these are written."""
        first = texts[0].strip()
        if len(first) > _TEXT_MAX:
            return []
        candidates = _FORMATS.get(_marks_of(first), ()) if re.search(r"\d", first) else ()
        if not re.search(r"[AaPp][Mm]\s*\Z", first):
            candidates = [time_format for time_format in candidates if not time_format.endswith("%p")]
        if not all(map(_POINTS.search, texts)):
            candidates = [time_format for time_format in candidates if not time_format.endswith(_BY_POINTS)]
        return [time_format for time_format in candidates if all(self._fits(text, time_format) for text in texts)]

    def _fits(self, text: str, time_format: str) -> bool:
        if (found := self._fitting.get((text, time_format))) is None:
            self._count()
            try:
                Clock(time_format).read_one_us(text)
            except ValueError:
                found = False
            else:
                found = True
            self._fitting[text, time_format] = found
        return found

    def _count(self) -> None:
        if len(self._plain) + len(self._fitting) >= _READ_MAX:
            raise EnoughRead


def _is_plain_time(text: str) -> bool:
    if len(text) > _TEXT_MAX:
        return False
    try:
        ts_us = parse_timestamp_us(text)
    except ValueError:
        return False
    return bool(re.search(r"[-/:]", text)) or (bool(NUMBER.fullmatch(text)) and ts_us > 10**15 and has_offset(text))


def _marks_of(text: str) -> str:
    """The marks of a text in order. Only formats with the same marks are tried, which costs next to nothing."""
    return "".join(sorted(re.sub(r"[\w ]", "", text)))


def _formats_by_marks() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for date, clock in itertools.product(_DATES, _CLOCKS):
        for joint in (" ", "T", ", ") if clock else ("",):
            time_format = date + joint + clock
            for offset in ("+", "-", "+:", "-:") if "%z" in clock else ("",):
                marks = _marks_of(re.sub(r"%.", "", time_format) + offset)
                found.setdefault(marks, []).append(time_format)
    return found


_FORMATS: Final = _formats_by_marks()
