"""A column of timestamps as they were written -> microseconds, as statsapi.times reads each of them: 30-60 ns a row.

The common forms, ISO 8601 texts of one width and Unix numbers of one unit, are read by some 40 numpy calls. Whatever
these are unsure of goes to `times.parse_timestamp_us`, row by row, so both give the same microseconds.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from statsapi.api.decoding.words import Words, within
from statsapi.api.refusals import TooLarge
from statsapi.errors import echo
from statsapi.model import DAY_US, MAX_TS_US, MIN_TS_US, MINUTE_US, SECOND_US, TimestampsUs
from statsapi.times import (
    MICROSECONDS_BEYOND,
    MILLISECONDS_BEYOND,
    NANOSECONDS_BEYOND,
    parse_timestamp_us,
    read_iso_us,
)

Mask = NDArray[np.bool_]

_NUMBERS: Final = msgspec.json.Decoder(list[int | float])

# Fewer rows are read faster one by one than by the 40 numpy calls of fixed_width_us.
_VECTOR_MIN: Final = 64

# How many different texts may be in rare forms (RFC 2822, a [Zone], 04:24 PM): each takes 10 to 20 µs, and twice that
# where the answer has to say whether there was an offset.
RARE_TIMES_MAX: Final = 40_000

_WIDTH_MIN: Final = len("2025-11-21T07:45:00")
_WIDTH_MAX: Final = len("2025-11-21T07:45:00.123456789+00:00")

# Texts that are parsed at once: some twenty columns are made on the way. Those of 100,000 texts took 16 MiB together.
_ROWS_AT_ONCE: Final = 16_384

# Where texts in a row share their minutes, these are read one by one: 1 µs each, where some 40 numpy calls for 10,000
# texts take 80.
_FEW_MINUTES: Final = 32
_MINUTES_SHARED: Final = 64

# Not hour 24: with seconds behind it that is no time, and newer Pythons read 24:00 alone.
_MINUTE: Final = re.compile(rb"\d{4}-\d\d-\d\d[T ](?!24)\d\d:\d\d")

_BYTE: Final = np.uint64(0xFF)

# The day number, from 1970, of the first of each month from January of year 0 (no timestamp has it) to January 10000.
_MONTH_DAY: Final = np.arange("0000-01", "10000-02", dtype="M8[M]").astype("M8[D]").astype(np.int64)

# Up to 2^53 the product of doubles is the one that parse_timestamp_us rounds, also for an integer that numpy has made a
# double.
_EXACT: Final = 2.0**53

_DIGIT: Final = re.compile(r" *-?\d+(?![\d-])", re.ASCII)

# Ranges [from, to) of numbers that spell a date, so that they may not be Unix time. Among texts also the small numbers
# are doubtful, and all of seven, eight and fourteen digits. statsapi.times decides on each of them.
_SPELT: Final = (
    (1900_001, 2100_367),
    (1900_01_01, 2100_12_32),
    (1900_01_01_00_00, 2100_12_31_24_00),
    (1900_01_01_00_00_00, 2100_12_31_24_00_00),
    (1900_01_01_00_00_00_000, 2100_12_31_24_00_00_000),
)
_DOUBTFUL_TEXT: Final = ((0, 10**8), *_SPELT[2:3], (10**13, 10**14), *_SPELT[4:])

# Where all numbers are seconds from 1973 to 2603, or all milliseconds from 2001 to 2286, they need not be compared one
# by one.
_USUAL: Final = ((10**8, MILLISECONDS_BEYOND, SECOND_US), (10**12, 10**13 - 1, 1000))


def read_timestamps_us(raw: list[str | int | float]) -> tuple[TimestampsUs, Mask]:
    """Microseconds int64[n] as parse_timestamp_us reads them, and which rows it reads at all, bool[n]. 30-60 ns a row.

    TooLarge for more than RARE_TIMES_MAX different texts in rare forms.
    """
    if not raw:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    if isinstance(raw[0], str) and (numbers := _json_numbers(raw)):
        ts_us, known = _unix_us(numbers, _DOUBTFUL_TEXT)
    else:
        ts_us, known = _mixed_us(raw)
    rare: dict[str, int | None] = {}
    for row in np.flatnonzero(~known).tolist():
        found = _read_alone(raw[row], rare)
        if found is not None:
            ts_us[row], known[row] = found, True
    return ts_us, known


def _read_alone(written: str | int | float, rare: dict[str, int | None]) -> int | None:
    """As parse_timestamp_us reads it; None if it refuses. `rare` remembers texts that are costly to read."""
    found = read_iso_us(written)
    if found is None and written in rare and isinstance(written, str):
        return rare[written]
    if found is None:
        if len(rare) == RARE_TIMES_MAX:
            raise TooLarge(
                f"More than {RARE_TIMES_MAX} different timestamps are in rare forms, or in none, such as "
                f"{echo(str(written))!r}: send fewer at once, or write them like 2025-11-21T07:45:00Z."
            )
        with suppress(ValueError):
            found = parse_timestamp_us(written)
        if isinstance(written, str):  # 1 and 1.0 are one key
            rare[written] = found
    return found


def _mixed_us(raw: list[str | int | float]) -> tuple[TimestampsUs, Mask]:
    try:
        return _iso_us(cast(list[str], raw))
    except TypeError:  # not all of them are strings
        if str not in set(map(type, raw)):
            return _unix_us(cast(list[int | float], raw))
    text = np.fromiter((isinstance(value, str) for value in raw), np.bool_, len(raw))
    ts_us, known = np.zeros(len(raw), np.int64), np.zeros(len(raw), np.bool_)
    for rows, read in ((np.flatnonzero(text), _iso_us), (np.flatnonzero(~text), _unix_us)):
        ts_us[rows], known[rows] = read(cast(Any, [raw[row] for row in rows.tolist()]))
    return ts_us, known


def _json_numbers(texts: list[Any]) -> list[int | float] | None:
    """The numbers, if all are texts and each of them is a number as JSON writes it, with or without blanks around."""
    if not _DIGIT.match(texts[0]):
        return None
    try:
        joined = ",".join(texts)
        if "E+" in joined:  # 1.76371E+12 is what a spreadsheet leaves of a number
            return None
        numbers = _NUMBERS.decode(f"[{joined}]")
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == len(texts) else None  # a quoted field may hold a comma


def unix_us(number: NDArray[np.int64], *, is_text: bool) -> tuple[TimestampsUs, Mask]:
    """Unix time of any unit, one or more of them, written as text or in JSON as numbers. Changes its argument."""
    return _number_us(number, _DOUBTFUL_TEXT if is_text else _SPELT)


def _unix_us(raw: list[int | float], doubtful: Any = _SPELT) -> tuple[TimestampsUs, Mask]:
    number = np.array(raw)  # integers as such only if all of them are, and in 64 bits
    if number.dtype not in (np.int64, np.float64):
        return np.zeros(len(raw), np.int64), np.zeros(len(raw), np.bool_)
    return _number_us(number, doubtful)


def _number_us(number: Any, doubtful: Any) -> tuple[TimestampsUs, Mask]:
    """Unix time of any unit, as statsapi.times tells them apart. Numbers in the ranges `doubtful` are not known: they
    are left to it.
    """
    least, most = number.min(), number.max()
    usual = [factor for first, last, factor in _USUAL if first <= least and most <= last]
    known = np.ones(len(number), np.bool_)
    if not usual:
        for first, end in doubtful:
            known &= (number < first) | (number >= end)
    if number.dtype == np.int64:
        if usual:
            return number * usual[0], known
        magnitude = np.abs(number)
        known &= magnitude >= 0  # -2^63 has none
        factor = np.where(magnitude <= MILLISECONDS_BEYOND, SECOND_US, 1)
        factor[(magnitude > MILLISECONDS_BEYOND) & (magnitude <= MICROSECONDS_BEYOND)] = 1000
        number[magnitude > NANOSECONDS_BEYOND] //= 1000
        return number * factor, known
    if usual:
        scaled = number * float(usual[0])
    else:
        magnitude = np.abs(number)
        number[~(magnitude < _EXACT)] = np.nan  # no overflow below, and no nanoseconds
        scale = np.where(magnitude <= MICROSECONDS_BEYOND, 1000.0, 1.0)
        scale[magnitude <= MILLISECONDS_BEYOND] = SECOND_US
        scaled = number * scale
    known &= np.abs(scaled) < _EXACT  # NaN is not
    scaled[~known] = 0.0
    return np.rint(scaled).astype(np.int64), known


def _iso_us(texts: list[str]) -> tuple[TimestampsUs, Mask]:
    """The common ISO 8601 forms; rows in any other are not known."""
    count = len(texts)
    if (rows := rows_of_one_width(texts)) is not None:
        return fixed_width_us(rows)
    ts_us, known = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    widths = np.fromiter(map(len, texts), np.int64, count)
    for width in range(_WIDTH_MIN, _WIDTH_MAX + 1):
        of_width = np.flatnonzero(widths == width)
        if len(of_width) >= _VECTOR_MIN:
            same = "".join([texts[row] for row in of_width.tolist()]).encode("ascii", "replace")
            rows = np.frombuffer(same, np.uint8).reshape(len(of_width), width)
            ts_us[of_width], known[of_width] = fixed_width_us(rows)
    return ts_us, known


def rows_of_one_width(texts: list[str]) -> NDArray[np.uint8] | None:
    """Their bytes, uint8[n, width], where all have the width of the first; None otherwise. TypeError where not all are
    text. One character is one byte: what is not ASCII becomes '?', which no form has.
    """
    count, width = len(texts), len(texts[0])
    joined = np.frombuffer(("\n".join(texts) + "\n").encode("ascii", "replace"), np.uint8)
    if len(joined) == count * (width + 1):
        rows = joined.reshape(count, width + 1)
        # All newlines there are stand at the ends of rows, so each row is one text, and all have the same width.
        if np.count_nonzero(joined == ord("\n")) == count and (rows[:, width] == ord("\n")).all():
            return rows[:, :width]
    return None


def fixed_width_us(rows: NDArray[np.uint8]) -> tuple[TimestampsUs, Mask]:
    """Parses texts of one width, the columns of `rows` (texts x width), as `iso_words_us` does."""
    count, width = rows.shape
    ts_us, known = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    form = iso_form(rows[0].tobytes()) if count >= _VECTOR_MIN and width <= _WIDTH_MAX else None
    if form is None:
        return ts_us, known
    for at in range(0, count, _ROWS_AT_ONCE):
        piece = rows[at : at + _ROWS_AT_ONCE]
        padded = np.zeros((len(piece), -(-width // 8) * 8), np.uint8)
        padded[:, :width] = piece
        words = np.array(padded.view("<u8").T, order="C")
        ts_us[at : at + _ROWS_AT_ONCE], known[at : at + _ROWS_AT_ONCE] = iso_words_us(words, form)
    return ts_us, known


class IsoForm(NamedTuple):
    """How texts of one width are written:

        2025-11-21T07:45:00 or with a space, then up to nine digits of a fraction, then nothing, Z or +hh:mm
        0         1
        0123456789012345678

    mark: T or a blank. zone: its width, 0, 1 or 6. least, most: what each letter may be, as words; between + and -
    there is also a comma.
    """

    mark: bytes
    fraction: int
    zone: int
    least: list[np.uint64]
    most: list[np.uint64]


@lru_cache(maxsize=64)
def _form_of(mark: bytes, fraction: int, zone: int) -> IsoForm:
    least, most = b"0000-00-00" + mark + b"00:00:00", b"9999-19-39" + mark + b"29:59:59"
    if fraction:
        least, most = least + b"." + b"0" * fraction, most + b"." + b"9" * fraction
    if zone:
        least, most = least + (b"Z" if zone == 1 else b"+00:00"), most + (b"Z" if zone == 1 else b"-29:59")
    behind = -len(least) % 8
    words = (np.frombuffer(text, "<u8") for text in (least + b"\0" * behind, most + b"\x7f" * behind))
    return IsoForm(mark, fraction, zone, *map(list, words))


def iso_form(sample: bytes) -> IsoForm | None:
    """The form of a text, if it is one of those; what stands in the places of its digits is not looked at."""
    width = len(sample)
    zone = 1 if sample.endswith(b"Z") else 6 if width >= 25 and sample[-6:-5] in (b"+", b"-") else 0
    fraction = max(0, width - 19 - zone - 1)  # digits after the point
    if fraction > 9 or width < 19 + zone or width == 19 + zone + 1 or sample[10:11] not in (b"T", b" "):
        return None
    return _form_of(sample[10:11], fraction, zone)


def iso_words_us(words: Words, form: IsoForm) -> tuple[TimestampsUs, Mask]:
    """Parses texts of that form, eight letters a word: uint64[words, texts]. Letters behind a text are ASCII.

    A text that differs from the form in any letter, or names no moment, is not known. 5 ns a text where neighbours
    share their minutes, else 15.
    """
    count = words.shape[1]
    changes = np.flatnonzero((words[0, 1:] != words[0, :-1]) | (words[1, 1:] != words[1, :-1])) + 1
    if len(changes) < _FEW_MINUTES and len(changes) * _MINUTES_SHARED < count:
        firsts = np.concatenate(([0], changes))
        minutes = [_minute_us(text, form.mark) for text in np.array(words[:2, firsts].T, order="C").view("S16")[:, 0]]
        times = np.diff(firsts, append=count)
        ts_us = np.repeat([minute or 0 for minute in minutes], times)
        known = np.repeat([minute is not None for minute in minutes], times)
    else:
        ts_us, known = _minutes_us(words[:2], form)
    digits = _Digits(words[2:], form.least[2:], form.most[2:], first=16)
    known &= digits.known()
    second = digits.two(17)
    if form.fraction:
        taken = min(form.fraction, 6)
        part = np.zeros(count, np.uint64)
        for at in range(20, 20 + taken - 1, 2):
            part *= np.uint64(100)
            part += digits.two(at)
        if taken % 2:
            part *= np.uint64(10)
            part += digits.one(20 + taken - 1)
        part *= np.uint64(10 ** (6 - taken))
        second *= np.uint64(SECOND_US)
        second += part
        ts_us += second.view(np.int64)
    else:
        ts_us += second.view(np.int64) * SECOND_US
    if form.zone == 6:
        at = 19 + (form.fraction and 1 + form.fraction)
        sign = digits.one(at)
        ahead = digits.two(at + 1)
        known &= (sign != ord(",") - ord("+")) & (ahead < 24)
        offset_us = (ahead * np.uint64(60) + digits.two(at + 4)).view(np.int64) * MINUTE_US
        ts_us += np.where(sign == 0, -offset_us, offset_us)
        known &= (ts_us >= MIN_TS_US) & (ts_us <= MAX_TS_US)
    return ts_us, known


def _minute_us(text: bytes, mark: bytes) -> int | None:
    return read_iso_us(text.decode()) if _MINUTE.fullmatch(text) and text[10:11] == mark else None


def _minutes_us(words: Words, form: IsoForm) -> tuple[TimestampsUs, Mask]:
    """Of 2025-11-21T07:45, the first sixteen letters."""
    digits = _Digits(words, form.least[:2], form.most[:2], first=0)
    known = digits.known()
    year = digits.two(0) * np.uint64(100) + digits.two(2)
    month, day, hour = digits.two(5), digits.two(8), digits.two(11)
    known &= (month - np.uint64(1) < 12) & (hour < 24)
    months = (year * np.uint64(12) + month).view(np.int64) - 1
    first = _MONTH_DAY.take(months, mode="clip")
    day = day.view(np.int64)
    known &= (year > 0) & (day > 0) & (day <= _MONTH_DAY.take(months + 1, mode="clip") - first)
    ts_us = (first + day - 1) * DAY_US
    ts_us += (hour * np.uint64(60) + digits.two(14)).view(np.int64) * MINUTE_US
    return ts_us, known


class _Digits:
    """The letters of texts less the least that each may be, so that a digit is its number; in words."""

    def __init__(self, words: Words, least: list[np.uint64], most: list[np.uint64], first: int) -> None:
        self._words = words
        self._bounds = least, most
        self._first = first
        self._digits = [word - floor for word, floor in zip(words, least, strict=True)]
        self._pairs: dict[int, NDArray[np.uint64]] = {}

    def known(self) -> Mask:
        """Where each letter is within its bounds."""
        return within(self._words, *self._bounds)

    def one(self, at: int) -> NDArray[np.uint64]:
        word, letter = divmod(at - self._first, 8)
        return cast(NDArray[np.uint64], (self._digits[word] >> np.uint64(8 * letter)) & _BYTE)

    def two(self, at: int) -> NDArray[np.uint64]:
        """The number of two digits, of which the first is letter `at` of the text."""
        word, letter = divmod(at - self._first, 8)
        if letter == 7:
            return self.one(at) * np.uint64(10) + self.one(at + 1)
        if word not in self._pairs:
            digits = self._digits[word]
            self._pairs[word] = digits * np.uint64(10) + (digits >> np.uint64(8))
        return cast(NDArray[np.uint64], (self._pairs[word] >> np.uint64(8 * letter)) & _BYTE)
