"""Influx line protocol: one point a line, `measurement,tag=value field=1.5,other=2i 1700000000000000000`.

Each numeric field of a point is one event of series `measurement.field` with the point's tags; the field `value` is the
series `measurement`. There are two readers:

    piece of whole lines ── numpy looks at separators ──> plain lines ── split into columns ──> events
                                       │                      │ a name, number or time in doubt
                                       └── odd lines ─────────┴──> read by regular expressions, one by one

A plain line has no escape, quote, comment or blank too many. The plain way takes only what the careful one takes, and
makes the same events of it: tests/unit/test_line_protocol.py holds them against each other.
"""

from __future__ import annotations

import re
from array import array
from bisect import insort
from collections.abc import Iterator
from functools import lru_cache
from math import isfinite
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from statsapi.api.bodies import EVENT_MAX_BYTES, why_not_utf8
from statsapi.api.decoding.rows import (
    BYTE_ORDER_MARK,
    TOO_LONG,
    require_lines_within,
    require_tags_within,
    require_within,
)
from statsapi.errors import echo
from statsapi.model import MAX_TS_US, MIN_TS_US, TimestampsUs, Values
from statsapi.naming.names import NAME_MAX, fold_tags

# How many µs one unit of a precision is; 0 for nanoseconds, which are rounded down, and -1 where the number decides.
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
"""Every word for a precision that one of the Influx versions has. auto: see `to_us`."""

# As InfluxDB 3 tells them apart: below these a number is seconds, milliseconds, microseconds, and else nanoseconds.
_AUTO_BELOW: Final = ((5_000_000_000, 1_000_000), (5_000_000_000_000, 1000), (5_000_000_000_000_000, 1))

# Columns of a piece take some ten times its bytes, and each call for it less than 10 ms.
_PIECE_BYTES: Final = 512 * 1024

# Lines read the careful way, and tags and fields in them, together. The dearest take 10 µs each, so 1 s in all; 250,000
# took 2.6 s. A batch of Telegraf with escapes has some thousand.
_CAREFUL_MAX: Final = 100_000

# More tags, or more bytes of a measurement, key or value, fit in no name: of its 200 characters a tag takes four, and a
# character has at most 4 bytes, in three parts before it is normalized, with a backslash each. What is longer is passed
# over, as normalizing 64 KiB takes milliseconds.
_TAGS_MAX: Final = NAME_MAX // 4
_TOKEN_MAX_BYTES: Final = NAME_MAX * 4 * 3 * 2

# The names of series, by the text before the fields and the field's key: 3 µs each to make. Emptied when full, as one
# that drops the oldest is of no use to a batch that goes through more of them in turn. At worst 10 MB.
_NAMES_KEPT: Final = 16_384
_KEPT_MAX_CHARS: Final = 300
_names: dict[tuple[str, str], str] = {}

_INTS: Final = msgspec.json.Decoder(list[int])
_FLOATS: Final = msgspec.json.Decoder(list[float])


class Refused(NamedTuple):
    """A line that holds no point. `line` counts from 1; field "" is the line as a whole; text is what was sent."""

    line: int
    field: str
    reason: str
    text: str


class Points(NamedTuple):
    """The events of a body in order of the lines: ts_us[i], values[i], of series names[codes[i]], from line lines[i].

    refused: those of the lines that hold no point, at most as many as asked for; refused_total: how many there are.
    strings: how many fields were left out as they are text.
    """

    ts_us: TimestampsUs
    values: Values
    names: list[str]
    codes: NDArray[np.uint32]
    lines: NDArray[np.int64]
    refused: list[Refused]
    refused_total: int
    strings: int


def to_us(number: int, unit_us: int) -> int:
    """A timestamp in µs; unit_us is one of PRECISIONS_US. It may lie outside what a timestamp can be.

    `auto` takes a number below 5e9 for seconds, below 5e12 for milliseconds, below 5e15 for microseconds, and a larger
    one for nanoseconds, whatever its sign.
    """
    if unit_us == _BY_MAGNITUDE:
        unit_us = next((unit for below, unit in _AUTO_BELOW if abs(number) < below), _NANOSECONDS)
    return number // 1000 if unit_us == _NANOSECONDS else number * unit_us


def read(
    body: bytes, *, unit_us: int, now_us: int, max_events: int, refused_max: int = 100, plain: bool = True
) -> Points:
    """The points of a body. A point without a timestamp is of `now_us`. plain=False reads each line the careful way.

    Some twice what CSV takes an event (benchmarks/decoding.py); an odd line twenty times that. Raises
    RequestEntityTooLarge for more than `max_events` events or too many odd lines, and BadRequest for a body that is no
    UTF-8 or in which a string is not closed, as then no end of a line can be trusted.
    """
    body = body.removeprefix(BYTE_ORDER_MARK)
    require_lines_within(body, "\n", max_events)
    if b"\r\n" in body and b'"' not in body:
        body = body.replace(b"\r\n", b"\n")
    if not_utf8 := why_not_utf8(body):
        raise BadRequest(f"The body {not_utf8}.")
    reader = _Reader(body, unit_us, now_us, max_events, refused_max)
    at, line = 0, 1
    while at < len(body):
        end = body.rfind(b"\n", at, at + _PIECE_BYTES) + 1 or body.find(b"\n", at) + 1 or len(body)
        end = len(body) if len(body) - at <= _PIECE_BYTES else end
        line = reader.add_piece(at, end, line, plain=plain)
        at = end
    return reader.points()


class _Doubt(Exception):
    """Something in these plain lines is not plain after all: bool[lines]."""

    def __init__(self, lines: NDArray[np.bool_]) -> None:
        self.lines = lines


class _Columns(NamedTuple):
    """Events: each one's line, time, value, and the place of its series among the names."""

    lines: NDArray[np.int64]
    ts_us: TimestampsUs
    values: Values
    codes: NDArray[np.uint32]


class _Reader:
    """What was read so far of one body."""

    def __init__(self, body: bytes, unit_us: int, now_us: int, max_events: int, refused_max: int) -> None:
        self._body = body
        self._unit_us = unit_us
        self._now_us = now_us
        self._max_events = max_events
        self._refused_max = refused_max
        self._codes = _Codes()
        self._columns: list[_Columns] = []
        # Arrays and no tuples, which the cyclic collector would look through again and again.
        self._slow = (array("q"), array("q"), array("d"), array("q"))
        self._received = 0
        self._read_to = 0  # by the careful way
        self._refused: list[Refused] = []
        self._refused_total = 0
        self._strings = 0
        self._careful = 0

    def points(self) -> Points:
        lines, ts_us, values, codes = self._slow
        slow = _Columns(
            np.array(lines, np.int64), np.array(ts_us, np.int64), np.array(values), np.array(codes).astype(np.uint32)
        )
        columns = [*self._columns, slow] if lines or not self._columns else self._columns
        all_of = columns[0]
        if len(columns) > 1:
            all_of = _Columns(
                np.concatenate([some.lines for some in columns]),
                np.concatenate([some.ts_us for some in columns]),
                np.concatenate([some.values for some in columns]),
                np.concatenate([some.codes for some in columns]),
            )
            order = np.argsort(all_of.lines, kind="stable")
            all_of = _Columns(all_of.lines[order], all_of.ts_us[order], all_of.values[order], all_of.codes[order])
        return Points(
            all_of.ts_us,
            all_of.values,
            self._codes.names,
            all_of.codes,
            all_of.lines,
            self._refused,
            self._refused_total,
            self._strings,
        )

    def add_piece(self, at: int, end: int, line: int, *, plain: bool) -> int:
        """The lines from body[at] to body[end], the first of which has that number. Returns the number of the next."""
        if plain and end - at <= 2 * _PIECE_BYTES and self._read_to <= at:
            count = self._add_alike(self._body[at:end], line)
            if count:
                return line + count
        letters = np.frombuffer(self._body, np.uint8, end - at, at)
        ends = np.flatnonzero(letters == ord("\n"))
        if not len(ends) or ends[-1] != len(letters) - 1:
            ends = np.append(ends, len(letters))
        starts = np.concatenate(([0], ends[:-1] + 1))
        if not plain or len(letters) > 2 * _PIECE_BYTES:  # one long line
            kinds = np.full(len(ends), _ODD, np.uint8)
        else:
            kinds = _kinds(letters, starts, ends)
        kinds[starts + at < self._read_to] = _BLANK
        for place in np.flatnonzero(kinds == _ODD).tolist():
            if kinds[place] == _ODD:
                self._read_one(at + int(starts[place]), line + place)
                # A string may hold line ends: what begins before its end is no line.
                kinds[place + 1 : np.searchsorted(starts, self._read_to - at)] = _BLANK
        for kind in (_TIMED, _UNTIMED):
            some = kinds == kind
            if not some.any():
                continue
            if some.all():
                piece = self._body[at:end]
            else:
                # np.repeat counts each line with its end.
                lengths = np.append(starts[1:], len(letters)) - starts
                piece = letters[np.repeat(some, lengths)].tobytes()
            numbers = np.flatnonzero(some)
            while len(numbers):
                try:
                    self._add_plain(piece, numbers + line, timed=kind == _TIMED)
                    break
                except _Doubt as doubt:
                    for place in numbers[doubt.lines].tolist():
                        self._read_one(at + int(starts[place]), line + place)
                    numbers = numbers[~doubt.lines]
                    texts = piece.split(b"\n")
                    piece = b"\n".join([texts[place] for place in np.flatnonzero(~doubt.lines).tolist()])
        return line + len(ends)

    # -- plain lines

    def _add_alike(self, piece: bytes, line: int) -> int:
        """Lines that are all plain and all with a time, or all without, as most bodies are; how many. Adds nothing and
        returns 0 for others: _kinds then looks at each line, which takes as long as all that is done here.
        """
        if b'"' in piece or b"\\" in piece or b"#" in piece or b"\t" in piece or b"\r" in piece:
            return 0
        whole = piece.rstrip(b"\n")
        letters = np.frombuffer(whole, np.uint8)
        separators = letters[(letters == ord(" ")) | (letters == ord("\n"))]
        for width in (3, 2):
            lines, rest = divmod(len(separators) + 1, width)
            if rest:
                continue
            table = np.append(separators, ord("\n")).reshape(lines, width)
            if (table[:, -1] == ord("\n")).all() and (table[:, :-1] == ord(" ")).all():
                break
        else:
            return 0
        if len(whole) > EVENT_MAX_BYTES:
            ends = np.flatnonzero(letters == ord("\n"))
            if np.diff(ends, prepend=-1, append=len(whole)).max() > EVENT_MAX_BYTES + 1:
                return 0
        try:
            self._add_plain(whole, np.arange(line, line + lines), timed=width == 3)
        except _Doubt:
            return 0
        return lines + len(piece) - len(whole) - (1 if len(piece) > len(whole) else 0)

    def _add_plain(self, piece: bytes, numbers: NDArray[np.int64], *, timed: bool) -> None:
        """Lines `head fields time` or `head fields`, one blank between. Adds nothing where it raises _Doubt."""
        text = piece.decode().rstrip("\n")
        parts = text.replace("\n", " ").split(" ")
        width = 3 if timed else 2
        heads, fields = parts[::width], parts[1::width]
        ts_us = self._times(parts[2::width]) if timed else np.full(len(heads), self._now_us, np.int64)
        joined = ",".join(fields)
        letters = np.frombuffer(joined.encode(), np.uint8)
        separators = letters[(letters == ord("=")) | (letters == ord(","))]
        events = len(separators) // 2 + 1
        if len(separators) != 2 * events - 1 or (separators[::2] != ord("=")).any():
            raise _Doubt(np.ones(len(heads), np.bool_))
        if (separators[1::2] != ord(",")).any():
            raise _Doubt(np.ones(len(heads), np.bool_))
        require_within(self._received + events, self._max_events, counted=False)
        pairs = joined.replace("=", ",").split(",")
        keys, texts = pairs[::2], pairs[1::2]
        rows = np.arange(len(heads))
        one_each = events == len(heads)
        if not one_each:
            counts = np.fromiter((some.count(",") for some in fields), np.int64, len(fields)) + 1
            rows = np.repeat(rows, counts)
            heads = [head for head, some in zip(heads, counts.tolist(), strict=True) for _ in range(some)]
        values = _numbers(texts)
        codes = self._codes.of_all(heads, keys)
        bad = (codes < 0) | ~np.isfinite(values)
        if not one_each:
            bad |= self._twice(rows, codes)
        doubt = np.zeros(len(numbers), np.bool_)
        doubt[rows[bad]] = True
        doubt |= (ts_us < MIN_TS_US) | (ts_us > MAX_TS_US)
        if doubt.any():
            raise _Doubt(doubt)
        self._received += events
        self._columns.append(_Columns(numbers[rows], ts_us[rows], values, codes.astype(np.uint32)))

    def _times(self, texts: list[str]) -> TimestampsUs:
        """The timestamps in µs; one that is no timestamp is beyond what there can be."""
        try:
            numbers = np.array(_INTS.decode(f"[{','.join(texts)}]"), np.int64)
        except (ValueError, OverflowError):
            numbers = np.array([_int_or(text, _NO_TIME) for text in texts], np.int64)
        if len(numbers) != len(texts):
            numbers = np.array([_int_or(text, _NO_TIME) for text in texts], np.int64)
        if self._unit_us == _NANOSECONDS:
            found = numbers // 1000
        elif self._unit_us == _BY_MAGNITUDE:
            found = numbers // 1000
            for below, unit_us in reversed(_AUTO_BELOW):
                smaller = (numbers < below) & (numbers > -below)
                found[smaller] = numbers[smaller] * unit_us
        else:
            within = MAX_TS_US // self._unit_us + 1
            found = np.clip(numbers, -within, within) * self._unit_us
        found[numbers == _NO_TIME] = _NO_TIME
        return found

    def _twice(self, rows: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which events are of a series that their line has twice. 30 ns an event."""
        pairs = rows * (len(self._codes.names) + 1) + codes + 1
        ordered = np.sort(pairs)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        return np.isin(pairs, twice)

    # -- odd lines

    def _read_one(self, start: int, number: int) -> None:
        most = min(len(self._body), start + EVENT_MAX_BYTES + 1)
        scanner = _Scanner(self._body, start, most)
        try:
            point = scanner.point()
            if point is None:
                return
            ts_us = self._now_us if point.time is None else _checked_us(point.time, self._unit_us)
            by_series = _by_series(point)
        except _Fault as fault:
            self._refuse(number, start, scanner.end, fault)
            return
        finally:
            self._read_to = max(self._read_to, scanner.end)
            self._careful += scanner.tokens
            if self._careful > _CAREFUL_MAX:
                raise RequestEntityTooLarge(
                    f"More than {_CAREFUL_MAX:,} lines, tags and fields together are in lines with strings, escapes or "
                    "faults: send fewer at once."
                )
        self._strings += point.strings
        require_within(self._received + len(by_series), self._max_events, counted=False)
        self._received += len(by_series)
        lines, times, values, codes = self._slow
        for name, value in by_series.items():
            lines.append(number)
            times.append(ts_us)
            values.append(value)
            codes.append(self._codes.of(name))

    def _refuse(self, number: int, start: int, end: int, fault: _Fault) -> None:
        require_within(self._received + 1, self._max_events, counted=False)
        self._received += 1
        self._refused_total += 1
        if len(self._refused) == self._refused_max:
            if self._refused[-1].line < number:
                return
            del self._refused[-1]
        text = self._body[start : min(end, start + 1000)].decode(errors="replace").rstrip("\r\n")
        insort(self._refused, Refused(number, echo(fault.field), fault.reason, echo(text)))


class _Codes(dict[tuple[str, str], int]):
    """By head and field key of plain lines, the place of the series in `names`; -1: the careful way has to look."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._code_of: dict[str, int] = {}
        self._by_key: dict[str, _CodesOfKey] = {}
        self._tags = 0

    def of(self, name: str) -> int:
        code = self._code_of.get(name)
        if code is None:
            code = self._code_of[name] = len(self.names)
            self.names.append(name)
        return code

    def of_all(self, heads: list[str], keys: list[str]) -> NDArray[np.int64]:
        """The code of each. Where all have one key it takes 0.07 µs each instead of 0.12."""
        if keys.count(keys[0]) == len(keys):
            found: Iterator[int] = map(self._by_key.setdefault(keys[0], _CodesOfKey(self, keys[0])).__getitem__, heads)
        else:
            found = map(self.__getitem__, zip(heads, keys, strict=True))
        return np.fromiter(found, np.int64, len(heads))

    def __missing__(self, pair: tuple[str, str]) -> int:
        code = self[pair] = self.code_of(pair)
        return code

    def code_of(self, pair: tuple[str, str]) -> int:
        name = _names.get(pair)
        if name is None:
            self._tags += pair[0].count(",")
            require_tags_within(self._tags)
            name = _plain_name(*pair)
            if name and len(pair[0]) + len(pair[1]) <= _KEPT_MAX_CHARS:
                if len(_names) >= _NAMES_KEPT:
                    _names.clear()
                _names[pair] = name
        return self.of(name) if name else -1


class _CodesOfKey(dict[str, int]):
    """By head, for one field key."""

    def __init__(self, codes: _Codes, key: str) -> None:
        self._codes = codes
        self._key = key

    def __missing__(self, head: str) -> int:
        code = self[head] = self._codes.code_of((head, self._key))
        return code


def _plain_name(head: str, key: str) -> str:
    """The series of a plain line; "" where the careful way has to look."""
    if len(head) + len(key) > _TOKEN_MAX_BYTES:
        return ""
    measurement, *written = head.split(",")
    tags: dict[str, str] = {}
    for tag in written:
        name, _, value = tag.partition("=")
        if not name or not value or "=" in value or tags.setdefault(name, value) != value:
            return ""
    if not measurement or not key:
        return ""
    try:
        return _fold(measurement, tuple(tags.items()), key)
    except ValueError:
        return ""


def _base(measurement: str, key: str) -> str:
    return measurement if key == "value" else f"{measurement}.{key}"


_BLANK_AT_AN_END: Final = re.compile(" [;=]|[;=] ")


@lru_cache(4096)  # faults are not kept, so what is kept is not long
def _fold(measurement: str, tags: tuple[tuple[str, str], ...], key: str) -> str:
    """The canonical name of a field's series. ValueError says what is wrong with it."""
    base = _base(measurement, key)
    # Nothing in these names has another form or a blank at an end: a third of fold_tags' time.
    found = ";".join([base, *(f"{name}={value}" for name, value in sorted(tags))])
    if (
        found.isascii()
        and found.isprintable()
        and len(found) <= NAME_MAX
        and found.count(";") == len(tags) == len({name for name, _ in tags if name and "=" not in name})
        and found[0] not in "=+-@; "
        and found[-1] != " "
        and not _BLANK_AT_AN_END.search(found)
    ):
        return found
    if ";" in base:
        raise ValueError("has a semicolon in it, which separates tags in the name of a series: write another character")
    folded: dict[str, str] = {}
    for name, value in tags:
        if folded.setdefault(name, value) != value:
            raise ValueError(f"has the tag {echo(name)!r} twice: keep one of the two")
    return fold_tags(base, folded)


# -- what plain lines are ------------------------------------------------------------------------------------------

_ODD, _BLANK, _TIMED, _UNTIMED = range(4)

_MARK_ODD, _MARK_BLANK, _MARK_EQUALS, _MARK_COMMA = 1, 2, 3, 4
_MARKS: Final = np.zeros(256, np.uint8)
_MARKS[:32] = _MARK_ODD
_MARKS[[ord("\\"), ord('"'), ord("#"), 127]] = _MARK_ODD
_MARKS[ord("\n")] = 0
_MARKS[ord(" ")] = _MARK_BLANK
_MARKS[ord("=")] = _MARK_EQUALS
_MARKS[ord(",")] = _MARK_COMMA


def _kinds(letters: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """For each line whether its separators are those of a plain one with a time, or without; or it is blank, or odd.

    letters[starts[i]:ends[i]] is line i. 1 ns a byte and 10 ns a separator.
    """
    count = len(starts)
    marks = _MARKS[letters]
    places = np.flatnonzero(marks)
    marks = marks[places]
    line_of = np.repeat(np.arange(count), np.diff(np.searchsorted(places, ends), prepend=0))
    blanks = marks == _MARK_BLANK
    blank_places, blank_lines = places[blanks], line_of[blanks]
    per_line = np.bincount(blank_lines, minlength=count)
    kinds = np.full(count, _ODD, np.uint8)
    kinds[per_line == 1] = _UNTIMED
    kinds[per_line == 2] = _TIMED
    kinds[ends == starts] = _BLANK
    kinds[ends - starts > EVENT_MAX_BYTES] = _ODD
    kinds[line_of[marks == _MARK_ODD]] = _ODD
    # A blank at an end of a line, and two in a row.
    edge = blank_places == starts[blank_lines]
    edge |= blank_places == ends[blank_lines] - 1
    edge[1:] |= np.diff(blank_places) == 1
    kinds[blank_lines[edge]] = _ODD
    # The fields lie behind the first blank, before the second one, and are key=value,key=value.
    first = np.zeros(count, np.int64)
    first[blank_lines[::-1]] = blank_places[::-1]
    last = np.where(per_line == 1, ends, 0)
    last[blank_lines] = np.where(per_line[blank_lines] == 1, ends[blank_lines], blank_places)
    among = (marks >= _MARK_EQUALS) & (places > first[line_of])
    inside = among & (places < last[line_of])
    kinds[line_of[among & ~inside]] = _ODD  # behind the second blank
    lines, equals = line_of[inside], marks[inside] == _MARK_EQUALS
    begins = np.diff(lines, prepend=-1) != 0
    ends_here = np.append(begins[1:], True)[: len(lines)]
    wrong = begins & ~equals
    wrong |= ends_here & ~equals
    wrong[1:] |= ~begins[1:] & (equals[1:] == equals[:-1])
    kinds[lines[wrong]] = _ODD
    has_fields = np.zeros(count, np.bool_)
    has_fields[lines] = True
    kinds[~has_fields & (kinds != _BLANK)] = _ODD
    kinds[(letters[starts] == ord("#")) | (per_line == ends - starts)] = _BLANK  # a comment, or blanks alone
    return kinds


_NO_TIME: Final = np.iinfo(np.int64).min

_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)

# `1i`, and what has no i: each one ends with the comma behind it.
_INTEGERS_MARKED: Final = re.compile(r"(?:-?(?:0|[1-9][0-9]{0,17})i,|[^i,]*+,)*+\Z", re.ASCII)


def _int_or(text: str, other: int) -> int:
    if _INTEGER.fullmatch(text):
        number = int(text)
        if -(2**63) < number < 2**63:
            return number
    return other


def _numbers(texts: list[str]) -> Values:
    """The value of each field; NaN for one that the careful way has to look at."""
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
        return _number(text)
    except ValueError:
        return float("nan")


_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?", re.ASCII)
_MARKED: Final = re.compile(r"([+-]?[0-9]++)([iu])", re.ASCII)
_BOOLEANS: Final = frozenset(("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"))


def _number(text: str) -> float:
    """The value of a field that is no string. ValueError says why it has none."""
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
            raise ValueError(f"is {echo(text)}, which no {what} integer of 64 bits is")
        return float(number)
    if text in _BOOLEANS:
        raise ValueError(f"is {text}, a boolean: only numbers are counted, so send 1 or 0, or leave the field out")
    if not text:
        raise ValueError("has no value: write a number, such as 1.5 or 2i")
    raise ValueError(f"is {echo(text)!r}, which is no number such as 1.5 or 2i, and no string in double quotes")


# -- the careful way -----------------------------------------------------------------------------------------------


class _Fault(Exception):
    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason


class _Point(NamedTuple):
    measurement: str
    tags: tuple[tuple[str, str], ...]
    numbers: list[tuple[str, float]]
    strings: int
    time: int | None


_TWICE: Final = "is there twice in this point: keep one of the two"


def _checked_us(number: int, unit_us: int) -> int:
    ts_us = to_us(number, unit_us)
    if not MIN_TS_US <= ts_us <= MAX_TS_US:
        meant = precision_meant(number, unit_us)
        cure = f"it looks like {meant}, so write with precision={meant}" if meant else "is precision= right?"
        raise _Fault("timestamp", f"is {number}, which lies outside the years 1 to 9999: {cure}")
    return ts_us


def precision_meant(number: int, unit_us: int) -> str | None:
    """The precision with which a time lies in the years 2000 to 2100, where it does not with the one that was given."""
    found = {
        us: word
        for word, us in (("s", 1_000_000), ("ms", 1000), ("us", 1), ("ns", _NANOSECONDS))
        if _SENSIBLE_US[0] <= to_us(number, us) < _SENSIBLE_US[1]
    }
    return None if unit_us in found or unit_us == _BY_MAGNITUDE else next(iter(found.values()), None)


_SENSIBLE_US: Final = (946_684_800_000_000, 4_102_444_800_000_000)


def number_of(ts_us: int, unit_us: int) -> int:
    """What a time of that unit was written as, but for nanoseconds that were cut off."""
    return ts_us * 1000 if unit_us == _NANOSECONDS else ts_us // abs(unit_us)


def _by_series(point: _Point) -> dict[str, float]:
    """The value for each series."""
    found: dict[str, float] = {}
    for key, value in point.numbers:
        try:
            name = _fold(point.measurement, point.tags, key)
        except ValueError as error:
            raise _Fault("series", f"{echo(_base(point.measurement, key))} {error}") from None
        if name in found:
            raise _Fault(key, _TWICE)  # in two of Unicode's forms
        found[name] = value
    return found


# A backslash takes a separator's meaning and is itself otherwise. Possessive: nothing is ever looked at twice.
_BLANKS: Final = re.compile(rb"[ \t]*+")
_MEASUREMENT: Final = re.compile(rb"(?:[^\\, \n]++|\\[, ]?+)*+")
_TAG: Final = re.compile(rb"(?:[^\\,= \n]++|\\[,= ]?+)*+")
_TAG_PAIR: Final = re.compile(rb",((?:[^\\,= \n]++|\\[,= ]?+)++)=((?:[^\\,= \n]++|\\[,= ]?+)++)(?!=)")
_TAG_PAIRS: Final = re.compile(rb"(?:,(?:[^\\,= \n]++|\\[,= ]?+)++=(?:[^\\,= \n]++|\\[,= ]?+)++(?!=))*+")
# The usual number, and surely not one beyond float64.
_NUMBER_FIELD: Final = re.compile(
    rb"((?:[^\\,= \n]++|\\[^\n]?+)++)=(-?[0-9]{1,18}+)(i|(?:\.[0-9]{1,18}+)?+)(?=[, \t\r\n])"
)
# In a field's key one backslash takes another one's meaning too, as InfluxDB has it: `\\=` ends the key.
_FIELD_KEY: Final = re.compile(rb"(?:[^\\,= \n]++|\\[^\n]?+)*+")
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BARE: Final = re.compile(rb"[^, \n\r]*+")
_LINE_END: Final = re.compile(rb"[ \t]*+\r?+(?:\n|\Z)")
_WORD: Final = re.compile(rb"[^ \t\r\n]*+")
_ESCAPED_IN_MEASUREMENT: Final = re.compile(r"\\([, ])")
_ESCAPED: Final = re.compile(r"\\([,= ])")


class _Scanner:
    """Reads one line that begins at body[start]; body[most] is not looked at. `end` is where the next line begins."""

    def __init__(self, body: bytes, start: int, most: int) -> None:
        self._body = body
        self._most = most
        self._at = self._start = start
        self.end = start
        self.tokens = 1
        self._too_long = False

    def point(self) -> _Point | None:
        """None for a blank line and a comment. _Fault says what is wrong, with `end` behind the line all the same."""
        try:
            return self._point()
        except _Fault:
            if self.end == self._start:
                self.end = self._body.find(b"\n", self._at) + 1 or len(self._body)
            if self._at == self._most < len(self._body):
                raise _Fault("", TOO_LONG.reason) from None
            raise

    def _point(self) -> _Point | None:
        line_end = self._body.find(b"\n", self._start) + 1 or len(self._body)
        self._take(_BLANKS)
        if self._ends() or self._next() == b"#":
            self.end = line_end
            return None
        measurement = self._unescaped(_MEASUREMENT, _ESCAPED_IN_MEASUREMENT)
        if not measurement:
            raise _Fault("", "has no measurement: a line is `measurement,tag=value field=1.5 timestamp`")
        tags = self._tags()
        if not self._take(_BLANKS) or self._ends():
            raise _Fault("", f"has no fields behind {echo(measurement)!r}: write a blank and then field=1.5")
        numbers, strings, fault = self._fields()
        time = self._time()
        if fault is not None:
            raise fault
        if self._too_long:
            raise _Fault(
                "series",
                f"{echo(measurement)} has a name that is too long: {NAME_MAX} characters at most, with its tags",
            )
        if not numbers:
            raise _Fault("", "has strings alone: a point needs a field that is a number")
        return _Point(measurement, tuple(tags), numbers, strings, time)

    def _tags(self) -> list[tuple[str, str]]:
        tags: list[tuple[str, str]] = []
        while True:
            if len(tags) == _TAGS_MAX:
                passed = _TAG_PAIRS.match(self._body, self._at, self._most)
                if passed is not None and passed.end() > self._at:
                    self._too_long = True
                    self._at = passed.end()
            found = _TAG_PAIR.match(self._body, self._at, self._most)
            if found is not None:
                self._at = found.end()
                tags.append((self._text(found[1], _ESCAPED), self._text(found[2], _ESCAPED)))
            elif self._next() == b",":
                self._at += 1
                tags.append(self._tag())
            else:
                self.tokens += len(tags)
                return tags

    def _tag(self) -> tuple[str, str]:
        """One that _TAG_PAIR does not take: _Fault."""
        key = self._unescaped(_TAG, _ESCAPED)
        if self._next() != b"=":
            what = f"{echo(key)!r} without =" if key else "a comma with no tag behind it"
            raise _Fault("tags", f"have {what}: write tag=value, and a blank in a tag as `\\ `")
        self._at += 1
        value = self._unescaped(_TAG, _ESCAPED)
        if not key:
            raise _Fault("tags", "have a value without a key: write tag=value")
        if self._next() == b"=":
            raise _Fault("tags", f"have an = within the value of {echo(key)!r}: write it as \\=")
        if not value:
            raise _Fault("tags", f"have no value for {echo(key)!r}: give it one, or leave the tag out")
        return key, value

    def _fields(self) -> tuple[list[tuple[str, float]], int, _Fault | None]:
        """Numbers, how many strings, and the first fault of a value. One that hides where things end is raised."""
        numbers: list[tuple[str, float]] = []
        strings, fault = 0, None
        keys: set[str] = set()
        while True:
            self.tokens += 1
            found = _NUMBER_FIELD.match(self._body, self._at, self._most)
            if found is not None:
                key = self._text(found[1], _ESCAPED)
                if key not in keys:
                    keys.add(key)
                    whole, rest = found[2], found[3]
                    numbers.append((key, float(int(whole)) if rest == b"i" else float(whole + rest)))
                    self._at = found.end()
                    if self._next() != b",":
                        return numbers, strings, fault
                    self._at += 1
                    continue
            key = self._unescaped(_FIELD_KEY, _ESCAPED)
            if self._next() != b"=":
                what = f"{echo(key)!r} without =" if key else "a comma or blank with no field behind it"
                raise _Fault("", f"has {what} among its fields: write field=1.5, and a blank in a key as `\\ `")
            self._at += 1
            if not key:
                raise _Fault("", "has a field without a key: write field=1.5")
            if key in keys:
                fault = fault or _Fault(key, _TWICE)
            keys.add(key)
            if self._next() == b'"':
                self._string(key)
                strings += 1
            else:
                text = self._take(_BARE).decode()
                try:
                    numbers.append((key, _number(text)))
                except ValueError as error:
                    fault = fault or _Fault(key, str(error))
            if self._next() != b",":
                return numbers, strings, fault
            self._at += 1

    def _string(self, key: str) -> None:
        found = _STRING.match(self._body, self._at, self._most)
        if found is None:
            number = self._body.count(b"\n", 0, self._start) + 1
            raise BadRequest(
                f"Line {number} of the body has a string that is not closed within {EVENT_MAX_BYTES} bytes, in the "
                f'field {echo(key)}: write " behind it, and \\" for a quote in it. As no end of a line behind it can '
                "be trusted, nothing was recorded."
            )
        self._at = found.end()
        if not self._ends() and self._next() not in (b",", b" ", b"\t"):
            raise _Fault(key, 'has text behind the closing quote of its string: write \\" for a quote within')

    def _time(self) -> int | None:
        if not self._ends() and not self._take(_BLANKS):
            if self._next() == b"\r":
                raise _Fault("", "has a carriage return within: end lines with a line feed")
            raise _Fault("", f"has {echo(self._take(_WORD).decode(errors='replace'))!r} where a blank belongs")
        time = None
        if not self._ends():
            text = self._take(_WORD).decode(errors="replace")
            if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
                what = "an integer of 64 bits, Unix time in the unit that precision= names"
                raise _Fault("timestamp", f"is {echo(text)!r}, which is no {what.removeprefix('an ')}")
            time = int(text)
            if not self._ends():
                raise _Fault("", "has something behind its timestamp: a blank in a tag or key is written as `\\ `")
        found = _LINE_END.match(self._body, self._at, self._most)
        assert found is not None  # noqa: S101 - for the type checker: _ends() has seen it
        self.end = found.end()
        return time

    def _ends(self) -> bool:
        """Whether nothing is left of the line."""
        found = _LINE_END.match(self._body, self._at, self._most)
        return found is not None and (
            found.end() < self._most or self._most == len(self._body) or found[0][-1:] == b"\n"
        )

    def _next(self) -> bytes:
        return self._body[self._at : min(self._at + 1, self._most)]

    def _take(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self._body, self._at, self._most)
        assert found is not None  # noqa: S101 - for the type checker: all of them match nothing too
        self._at = found.end()
        return found[0]

    def _unescaped(self, pattern: re.Pattern[bytes], escaped: re.Pattern[str]) -> str:
        return self._text(self._take(pattern), escaped)

    def _text(self, token: bytes, escaped: re.Pattern[str]) -> str:
        if len(token) > _TOKEN_MAX_BYTES:
            self._too_long = True
            token = token[:NAME_MAX]
        text = token.decode(errors="replace")
        return escaped.sub(r"\1", text) if "\\" in text else text
