"""Influx line protocol: one point a line, `measurement,tag=value field=1.5,other=2i 1700000000000000000`.

Each numeric field of a point is one event of series `measurement.field` with the point's tags; the field `value` is the
series `measurement`. There are two ways to read a line:

    piece of whole lines ── numpy looks at separators ──> plain lines ── split into columns ──> events
                                       │                      │ a name, number or time in doubt
                                       └── odd lines ─────────┴──> read by regular expressions, one by one

The plain way (`line_columns`) takes only what the careful way (`line_scanner`) takes, and makes the same events of it:
tests/unit/test_line_protocol.py compares them.
"""

from __future__ import annotations

from array import array
from bisect import insort
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.api.body_text import EVENT_MAX_BYTES, why_not_utf8
from statsapi.api.decoding.line_columns import (
    BLANK,
    ODD,
    TIMED,
    UNTIMED,
    Columns,
    Doubt,
    Options,
    all_alike,
    kinds_of,
    read_plain,
)
from statsapi.api.decoding.line_scanner import LineFault, Scanner
from statsapi.api.decoding.line_series import Codes
from statsapi.api.decoding.rows import BYTE_ORDER_MARK, require_lines_within, require_within
from statsapi.api.refusals import BadBody, TooLarge
from statsapi.errors import echo
from statsapi.model import TimestampsUs, Values

# The columns of a piece take up to 24 times its bytes, and no call for a piece takes 5 ms.
_PIECE_BYTES: Final = 256 * 1024

# Lines that are read the careful way, and their tags and fields, together. The dearest take 10 µs each, so 1 s in all;
# 250,000 took 2.6 s. A batch of Telegraf with escapes has a thousand.
_CAREFUL_MAX: Final = 100_000


class Refused(NamedTuple):
    """A line that holds no point. line: its number, from 1. field: as in LineFault. text: the line as it was sent."""

    line: int
    field: str
    reason: str
    text: str


class Points(NamedTuple):
    """The events of a body in order of the lines: ts_us[i], values[i], of series names[codes[i]], from line lines[i].

    refused: the first lines that hold no point, at most as many as asked for; refused_total: how many there are.
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


def read(
    body: bytes, *, unit_us: int, now_us: int, max_events: int, refused_max: int = 100, plain: bool = True
) -> Points:
    """The points of a body. A point without a timestamp is of `now_us`. plain=False reads each line the careful way.

    About twice what CSV takes an event (benchmarks/decoding.py), and twenty times that for an odd line. Raises
    TooLarge for more than `max_events` events or too many odd lines. Raises BadBody for a body that is not UTF-8, and
    for one in which a string is not closed: behind it, what ends a line is not known.
    """
    body = body.removeprefix(BYTE_ORDER_MARK)
    require_lines_within(body, "\n", max_events)
    if b"\r\n" in body and b'"' not in body:
        body = body.replace(b"\r\n", b"\n")
    if not_utf8 := why_not_utf8(body):
        raise BadBody(f"The body {not_utf8}.")
    reader = _Reader(body, Options(unit_us, now_us, max_events), refused_max)
    at, line = 0, 1
    while at < len(body):
        end = body.rfind(b"\n", at, at + _PIECE_BYTES) + 1 or body.find(b"\n", at) + 1 or len(body)
        end = len(body) if len(body) - at <= _PIECE_BYTES else end
        line = reader.add_piece(at, end, line, plain=plain)
        at = end
    return reader.points()


class _Reader:
    """What has been read of one body."""

    def __init__(self, body: bytes, options: Options, refused_max: int) -> None:
        self._body = body
        self._options = options
        self._refused_max = refused_max
        self._codes = Codes()
        self._columns: list[Columns] = []
        # The events of careful lines. Arrays instead of tuples, which the cyclic collector would look through again and
        # again.
        self._slow = (array("q"), array("q"), array("d"), array("q"))
        self._received = 0
        self._read_to = 0  # by the careful way
        self._refused: list[Refused] = []
        self._refused_total = 0
        self._strings = 0
        self._careful = 0

    def points(self) -> Points:
        """All that was read, in order of the lines. Nothing more can be read afterwards."""
        self._codes.forget()
        lines, ts_us, values, codes = self._slow
        slow = Columns(
            np.array(lines, np.int64), np.array(ts_us, np.int64), np.array(values), np.array(codes).astype(np.uint32)
        )
        columns = [*self._columns, slow] if lines or not self._columns else self._columns
        all_of = columns[0]
        if len(columns) > 1:
            all_of = Columns(
                np.concatenate([some.lines for some in columns]),
                np.concatenate([some.ts_us for some in columns]),
                np.concatenate([some.values for some in columns]),
                np.concatenate([some.codes for some in columns]),
            )
            order = np.argsort(all_of.lines, kind="stable")
            all_of = Columns(all_of.lines[order], all_of.ts_us[order], all_of.values[order], all_of.codes[order])
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
        """Read body[at:end], whole lines of which the first has the number `line`. Returns the next line's number."""
        is_one_long_line = end - at > 2 * _PIECE_BYTES
        plain = plain and not is_one_long_line
        if plain and self._read_to <= at:
            count = self._add_alike(self._body[at:end], line)
            if count:
                return line + count
        letters = np.frombuffer(self._body, np.uint8, end - at, at)
        ends = np.flatnonzero(letters == ord("\n"))
        if not len(ends) or ends[-1] != len(letters) - 1:
            ends = np.append(ends, len(letters))
        starts = np.concatenate(([0], ends[:-1] + 1))
        kinds = kinds_of(letters, starts, ends) if plain else np.full(len(ends), ODD, np.uint8)
        kinds[starts + at < self._read_to] = BLANK
        for place in np.flatnonzero(kinds == ODD).tolist():
            if kinds[place] == ODD:
                self._read_one(at + int(starts[place]), line + place)
                # A string may hold line ends: what begins before its end is no line.
                kinds[place + 1 : np.searchsorted(starts, self._read_to - at)] = BLANK
        for kind in (TIMED, UNTIMED):
            some = kinds == kind
            if not some.any():
                continue
            if some.all():
                piece = self._body[at:end]
            else:
                lengths = np.append(starts[1:], len(letters)) - starts  # each line with its end
                piece = letters[np.repeat(some, lengths)].tobytes()
            numbers = np.flatnonzero(some)
            while len(numbers):
                try:
                    self._add_plain(piece, numbers + line, timed=kind == TIMED)
                    break
                except Doubt as doubt:
                    for place in numbers[doubt.lines].tolist():
                        self._read_one(at + int(starts[place]), line + place)
                    numbers = numbers[~doubt.lines]
                    texts = piece.split(b"\n")
                    piece = b"\n".join([texts[place] for place in np.flatnonzero(~doubt.lines).tolist()])
        return line + len(ends)

    def _add_alike(self, piece: bytes, line: int) -> int:
        """Add lines that are all plain and alike, and return how many. For others add nothing, and return 0."""
        whole = piece.rstrip(b"\n")
        found = all_alike(whole)
        if found is None:
            return 0
        lines, timed = found
        try:
            self._add_plain(whole, np.arange(line, line + lines), timed=timed)
        except Doubt:
            return 0
        return lines + len(piece) - len(whole) - (1 if len(piece) > len(whole) else 0)

    def _add_plain(self, piece: bytes, numbers: NDArray[np.int64], *, timed: bool) -> None:
        """Add plain lines. Adds nothing where it raises Doubt."""
        columns = read_plain(
            piece, numbers, timed=timed, options=self._options, codes=self._codes, received=self._received
        )
        self._received += len(columns.lines)
        self._columns.append(columns)

    def _read_one(self, start: int, number: int) -> None:
        """Read the line that begins at body[start] the careful way."""
        most = min(len(self._body), start + EVENT_MAX_BYTES + 1)
        scanner = Scanner(self._body, start, most)
        try:
            point = scanner.point()
            if point is None:
                return
            ts_us = point.ts_us(self._options.unit_us)
            by_series = point.by_series()
        except LineFault as fault:
            self._refuse(number, start, scanner.end, fault)
            return
        finally:
            self._read_to = max(self._read_to, scanner.end)
            self._careful += scanner.tokens
            if self._careful > _CAREFUL_MAX:
                raise TooLarge(
                    f"More than {_CAREFUL_MAX:,} lines, tags and fields together are in lines with strings, escapes or "
                    "faults: send fewer at once."
                )
        self._strings += point.strings
        self._receive(len(by_series))
        lines, times, values, codes = self._slow
        for name, value in by_series.items():
            lines.append(number)
            times.append(self._options.now_us if ts_us is None else ts_us)
            values.append(value)
            codes.append(self._codes.of(name))

    def _refuse(self, number: int, start: int, end: int, fault: LineFault) -> None:
        """Count a line that holds no point, and keep it if it is among the first."""
        self._receive(1)
        self._refused_total += 1
        if len(self._refused) == self._refused_max:
            if self._refused[-1].line < number:
                return
            del self._refused[-1]
        text = self._body[start : min(end, start + 1000)].decode(errors="replace").rstrip("\r\n")
        insort(self._refused, Refused(number, echo(fault.field), fault.reason, echo(text)))

    def _receive(self, events: int) -> None:
        require_within(self._received + events, self._options.max_events, counted=False)
        self._received += events
