"""Plain lines of line protocol -> columns of events, without a look at any line by itself.

A plain line is `head fields time` or `head fields`, with one blank between: no escape, quote, comment or other blank.
What is read here has one meaning, and `line_scanner` finds the same one. Whatever is in doubt is left to it.
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.api.body_text import EVENT_MAX_BYTES
from statsapi.api.decoding.line_series import Codes
from statsapi.api.decoding.line_words import read_numbers, read_times_us
from statsapi.api.decoding.rows import require_within
from statsapi.model import MAX_TS_US, MIN_TS_US, TimestampsUs, Values
from statsapi.naming.names import lines_with_many_marks


class Options(NamedTuple):
    """How a body is read. unit_us: one of PRECISIONS_US. now_us: the time of a point that has none."""

    unit_us: int
    now_us: int
    max_events: int


class Columns(NamedTuple):
    """Events: the line, time, value and code (see `Codes`) of each."""

    lines: NDArray[np.int64]
    ts_us: TimestampsUs
    values: Values
    codes: NDArray[np.uint32]


class Doubt(Exception):
    """Some of these lines have to be read one by one: lines, bool[lines]."""

    def __init__(self, lines: NDArray[np.bool_]) -> None:
        self.lines = lines


def read_plain(
    piece: bytes, numbers: NDArray[np.int64], *, timed: bool, options: Options, codes: Codes, received: int
) -> Columns:
    """The events of whole lines, which have these numbers. timed: whether each has a time; else none has.

    Raises Doubt where not all is plain, and TooLarge for more than max_events
    events, of which `received` came before.
    """
    ts_us, heads, keys, values, rows = _split(piece, timed=timed, options=options, received=received)
    one_each = len(rows) == len(ts_us)
    code = codes.of_all(heads, keys)
    bad = (code < 0) | ~np.isfinite(values)
    if not one_each:
        bad |= _repeats(rows, code, len(codes.names))
    doubt = np.zeros(len(numbers), np.bool_)
    doubt[rows[bad]] = True
    doubt |= (ts_us < MIN_TS_US) | (ts_us > MAX_TS_US)
    if doubt.any():
        raise Doubt(doubt)
    return Columns(numbers[rows], ts_us[rows], values, code.astype(np.uint32))


class _Fields(NamedTuple):
    """ts_us: the time of each line. Of each field: the head of its line, its key, its value, and its line's row."""

    ts_us: TimestampsUs
    heads: list[str]
    keys: list[str]
    values: Values
    rows: NDArray[np.int64]


def _split(piece: bytes, *, timed: bool, options: Options, received: int) -> _Fields:
    """The fields of these lines. What it makes on the way, ten times the piece, is gone before names are made."""
    text = piece.decode().rstrip("\n")
    if not text.isascii():
        text = _composed(text)
    parts = text.replace("\n", " ").split(" ")
    width = 3 if timed else 2
    heads, fields = parts[::width], parts[1::width]
    ts_us = read_times_us(parts[2::width], options.unit_us) if timed else np.full(len(heads), options.now_us, np.int64)
    joined = ",".join(fields)
    letters = np.frombuffer(joined.encode(), np.uint8)
    separators = letters[(letters == ord("=")) | (letters == ord(","))]
    events = len(separators) // 2 + 1
    if len(separators) != 2 * events - 1 or (separators[::2] != ord("=")).any():
        raise Doubt(np.ones(len(heads), np.bool_))
    if (separators[1::2] != ord(",")).any():
        raise Doubt(np.ones(len(heads), np.bool_))
    require_within(received + events, options.max_events, counted=False)
    pairs = joined.replace("=", ",").split(",")
    keys, texts = pairs[::2], pairs[1::2]
    rows = np.arange(len(heads))
    if events != len(heads):
        counts = np.fromiter((some.count(",") for some in fields), np.int64, len(fields)) + 1
        rows = np.repeat(rows, counts)
        heads = [head for head, some in zip(heads, counts.tolist(), strict=True) for _ in range(some)]
    return _Fields(ts_us, heads, keys, read_numbers(texts), rows)


def _composed(text: str) -> str:
    """The lines in Unicode's normal form NFC, as each of their names is in the end: for 100,000 names at once in a
    fifth of the time. Raises Doubt where a line has too many marks to be normalized.
    """
    if many := lines_with_many_marks(text):
        doubt = np.zeros(text.count("\n") + 1, np.bool_)
        doubt[many] = True
        raise Doubt(doubt)
    # Of what separates the parts of a line only "=" takes in a mark that follows: with U+0338 it would be one sign.
    return unicodedata.normalize("NFC", text.replace("=", "=\x1f")).replace("=\x1f", "=")


def _repeats(rows: NDArray[np.int64], codes: NDArray[np.int64], series: int) -> NDArray[np.bool_]:
    """Which events are of a series that another event of their line is of, too: bool[n]. 30 ns an event."""
    pairs = rows * (series + 1) + codes + 1
    ordered = np.sort(pairs)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.isin(pairs, twice)


# -- which lines are plain -----------------------------------------------------------------------------------------


def all_alike(piece: bytes) -> tuple[int, bool] | None:
    """How many lines there are, and whether they have times, where all are plain and all have a time or none has one.

    piece: lines without the end of the last. Most bodies are so, and `kinds_of` would take as long as reading them.
    """
    if b'"' in piece or b"\\" in piece or b"#" in piece or b"\t" in piece or b"\r" in piece:
        return None
    letters = np.frombuffer(piece, np.uint8)
    separators = letters[(letters == ord(" ")) | (letters == ord("\n"))]
    for width in (3, 2):
        lines, rest = divmod(len(separators) + 1, width)
        if rest:
            continue
        table = np.append(separators, ord("\n")).reshape(lines, width)
        if (table[:, -1] == ord("\n")).all() and (table[:, :-1] == ord(" ")).all():
            break
    else:
        return None
    if len(piece) > EVENT_MAX_BYTES:
        ends = np.flatnonzero(letters == ord("\n"))
        if np.diff(ends, prepend=-1, append=len(piece)).max() > EVENT_MAX_BYTES + 1:
            return None
    return lines, width == 3


ODD, BLANK, TIMED, UNTIMED = range(4)
"""The kinds of lines: to be read one by one; without a point; plain with a time; plain without one."""

_MARK_ODD, _MARK_BLANK, _MARK_EQUALS, _MARK_COMMA = 1, 2, 3, 4
_MARKS: Final = np.zeros(256, np.uint8)
_MARKS[:32] = _MARK_ODD
_MARKS[[ord("\\"), ord('"'), ord("#"), 127]] = _MARK_ODD
_MARKS[ord("\n")] = 0
_MARKS[ord(" ")] = _MARK_BLANK
_MARKS[ord("=")] = _MARK_EQUALS
_MARKS[ord(",")] = _MARK_COMMA


def kinds_of(letters: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The kind of each line, by its separators alone: uint8[lines]. Line i is letters[starts[i]:ends[i]].

    1 ns a byte and 10 ns a separator.
    """
    count = len(starts)
    marks = _MARKS[letters]
    places = np.flatnonzero(marks)
    marks = marks[places]
    line_of = np.repeat(np.arange(count), np.diff(np.searchsorted(places, ends), prepend=0))
    blanks = marks == _MARK_BLANK
    blank_places, blank_lines = places[blanks], line_of[blanks]
    per_line = np.bincount(blank_lines, minlength=count)
    kinds = np.full(count, ODD, np.uint8)
    kinds[per_line == 1] = UNTIMED
    kinds[per_line == 2] = TIMED
    kinds[ends == starts] = BLANK
    kinds[ends - starts > EVENT_MAX_BYTES] = ODD
    kinds[line_of[marks == _MARK_ODD]] = ODD
    # A blank at either end of a line, or behind another blank.
    edge = blank_places == starts[blank_lines]
    edge |= blank_places == ends[blank_lines] - 1
    edge[1:] |= np.diff(blank_places) == 1
    kinds[blank_lines[edge]] = ODD
    # The fields lie behind the first blank and before the second one, and are key=value,key=value.
    first = np.zeros(count, np.int64)
    first[blank_lines[::-1]] = blank_places[::-1]
    last = np.where(per_line == 1, ends, 0)
    last[blank_lines] = np.where(per_line[blank_lines] == 1, ends[blank_lines], blank_places)
    among = (marks >= _MARK_EQUALS) & (places > first[line_of])
    inside = among & (places < last[line_of])
    kinds[line_of[among & ~inside]] = ODD  # behind the second blank
    lines, equals = line_of[inside], marks[inside] == _MARK_EQUALS
    begins = np.diff(lines, prepend=-1) != 0
    ends_here = np.append(begins[1:], True)[: len(lines)]
    wrong = begins & ~equals
    wrong |= ends_here & ~equals
    wrong[1:] |= ~begins[1:] & (equals[1:] == equals[:-1])
    kinds[lines[wrong]] = ODD
    has_fields = np.zeros(count, np.bool_)
    has_fields[lines] = True
    kinds[~has_fields & (kinds != BLANK)] = ODD
    kinds[(letters[starts] == ord("#")) | (per_line == ends - starts)] = BLANK  # a comment, or blanks alone
    return kinds
