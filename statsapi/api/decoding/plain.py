"""Bodies whose rows are all written alike, as programs write them: read by numpy from the bytes, as columns.

The first row says how the others must be written: the same letters around a timestamp of the same width and a number of
any. Each letter of the body is compared with that, so what is read here holds nothing else, and each way to write a row
has one meaning. Whatever differs, be it a single row, makes None: the readers of any body decide on it from the start.

    {"timestamp":"2025-11-21T07:45:00.123Z","value":20.5,"series":"cpu"},
    before       stamp, of one width       between number behind

20-40 ns an event where those readers take 70-150, and no Python object for any. In pieces of _ROWS_AT_ONCE rows, so
that what is made on the way fits the cache and costs no memory to speak of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, overload

import numpy as np

from statsapi.api.decoding.rows import Rows
from statsapi.api.decoding.timestamps import iso_form, iso_words_us, unix_us
from statsapi.api.decoding.words import Places, Words, differ, places_of, read_digits, read_numbers, windows
from statsapi.model import DEFAULT_SERIES, TimestampsUs, Values
from statsapi.naming.names import PLAIN_NAME

# Some 80 to 150 numpy calls take 100 to 130 µs whatever they work on: with fewer bytes the readers of any body are
# faster, below 300 rows of CSV, 800 of JSON objects, 1,500 of columns.
_LEAST_BYTES: Final = 10 * 1024
_LEAST_JSON: Final = 4  # times as many

# 128 kB for each array that is made on the way.
_ROWS_AT_ONCE: Final = 16_384

# Around what is read, so that words may reach beyond it.
_AROUND: Final = b" " * 48

# How far the first row may reach, and the gap behind it: each 8 bytes of them cost numpy calls, and are remembered.
_FIRST_ROW_MAX: Final = 1024

_WS: Final = r"[ \t\n\r]*"
_NUMBER: Final = r"[0-9.eE+-]+"


def _pattern(text: str) -> re.Pattern[bytes]:
    """A pattern in which ~ stands for what JSON allows between two tokens."""
    return re.compile(text.replace("~", _WS).encode())


_STAMP: Final = r'(?P<quote>"?)(?P<stamp>[0-9T:.Z+ -]{9,35})(?P=quote)'
_SERIES: Final = r'"series"~:~"(?P<series%d>[^"\\]*)"'
_LIST: Final = _pattern(r'~(?P<events>\{~"events"~:~)?\[~')
_STAMP_FIRST: Final = _pattern(
    rf'\{{~(?:{_SERIES % 1}~,~)?"timestamp"~:~{_STAMP}~,~"value"~:~(?P<number>{_NUMBER})~(?:,~{_SERIES % 2}~)?\}}'
)
_NUMBER_FIRST: Final = _pattern(
    rf'\{{~(?:{_SERIES % 1}~,~)?"value"~:~(?P<number>{_NUMBER})~,~"timestamp"~:~{_STAMP}~(?:,~{_SERIES % 2}~)?\}}'
)
_NEXT_ITEM: Final = _pattern(r"~,~(?=\{)")
_NEXT_LINE: Final = re.compile(rb"[ \t\r]*\n(?=\{)")
_LIST_ENDS: Final = {False: _pattern(r"~\]~\Z"), True: _pattern(r"~\]~\}~\Z")}
_LINES_END: Final = _pattern(r"~\Z")

_HEADER: Final = re.compile(rb"([a-z]+(?:,[a-z]+){1,2})\r?\n")
_CSV_STAMP: Final = re.compile(rb"[0-9T:.Z+ -]{9,35}")

_DOCUMENT: Final = _pattern(r"~\{~")
_MEMBER: Final = _pattern(r'"(timestamp|value|series)"~:~(?:\[~|"([^"\\]*)")')
_NEXT_MEMBER: Final = _pattern(r"~,~")
_DOCUMENT_ENDS: Final = _pattern(r"~\}~\Z")
_STAMP_OF_COLUMN: Final = _pattern(rf"{_STAMP}(?P<next>~,~)")
_NUMBER_OF_COLUMN: Final = _pattern(rf"{_NUMBER}(?P<next>~,~)")


class WrittenTimes(Sequence[Any]):
    """The timestamps of a body as it writes them, each made when it is looked at."""

    def __init__(self, text: bytes, places: Sequence[int] | Places, width: int, *, numbers: bool) -> None:
        """numbers: whether they are integers, in JSON, or texts."""
        self._text = text
        self._places = places
        self._width = width
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> str | int: ...
    @overload
    def __getitem__(self, at: slice) -> list[str | int]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[each] for each in range(len(self))[at]]
        place = int(self._places[at])
        text = self._text[place : place + self._width].decode()
        return int(text) if self._numbers else text


class _Shape(NamedTuple):
    """How each row is written. The last letter of `behind` ends it; `before` is what lies between two rows as well."""

    before: bytes
    between: bytes
    behind: bytes
    stamp: bytes
    is_iso: bool
    stamp_first: bool


# -- JSON and NDJSON -----------------------------------------------------------------------------------------------


def read_items(body: bytes, max_events: int) -> Rows | None:
    """The events of a JSON array, or of `{"events": […]}`."""
    begin = _LIST.match(body) if len(body) >= _LEAST_JSON * _LEAST_BYTES else None
    if begin is None:
        return None
    last = body.rfind(b"]")
    return _read_objects(body, begin.end(), last, _NEXT_ITEM, _LIST_ENDS[bool(begin["events"])], "index", max_events)


def read_lines(body: bytes, max_events: int) -> Rows | None:
    """The events of NDJSON, from its first line on."""
    if len(body) < _LEAST_JSON * _LEAST_BYTES:
        return None
    return _read_objects(body, 0, len(body), _NEXT_LINE, _LINES_END, "line", max_events)


def _read_objects(
    body: bytes,
    at: int,
    last: int,
    gap: re.Pattern[bytes],
    end: re.Pattern[bytes],
    counted_by: Literal["index", "line"],
    max_events: int,
) -> Rows | None:
    """Objects that begin at body[at], the last of which ends before body[last]."""
    item = _STAMP_FIRST.match(body, at, at + _FIRST_ROW_MAX) or _NUMBER_FIRST.match(body, at, at + _FIRST_ROW_MAX)
    behind = gap.match(body, item.end(), item.end() + _FIRST_ROW_MAX) if item else None
    if item is None or behind is None or (counted_by == "line" and b"\n" in item[0]):
        return None
    series = _one_series(item["series1"], item["series2"])
    closed = body.rfind(b"}", 0, last) + 1
    if series is None or not end.match(body, closed):
        return None
    stamp, number = item.span("stamp"), item.span("number")
    first, second = min(stamp, number), max(stamp, number)
    shape = _Shape(
        before=behind[0] + body[at : first[0]],
        between=body[first[1] : second[0]],
        behind=body[second[1] : item.end()],
        stamp=item["stamp"],
        is_iso=bool(item["quote"]),
        stamp_first=stamp < number,
    )
    read = _read_rows(body[first[0] : closed], shape, max_events, is_json=True)
    return None if read is None else _rows(*read, series, counted_by)


def _one_series(*written: bytes | None) -> str | None:
    """The name that all rows have; None where there are two, or it is not beyond doubt."""
    given = [name for name in written if name is not None]
    if not given:
        return DEFAULT_SERIES
    name = given[0].decode("ascii", "replace")
    return name if len(given) == 1 and PLAIN_NAME.match(name) else None


def _rows(
    times: WrittenTimes, ts_us: TimestampsUs, values: Values, series: str, counted_by: Literal["index", "line"]
) -> Rows:
    first = {"index": 0, "line": 1}[counted_by]
    return Rows(times, values, series, counted_by, range(first, first + len(times)), read=(ts_us, values))


# -- CSV -----------------------------------------------------------------------------------------------------------


def read_table(body: bytes, max_events: int) -> Rows | None:
    """The events of a CSV without quotes whose columns are timestamp, value and perhaps one and the same series."""
    header = _HEADER.match(body) if len(body) >= _LEAST_BYTES else None
    if header is None:
        return None
    names = header[1].decode().split(",")
    at = header.end()
    ended = body.find(b"\n", at, at + _FIRST_ROW_MAX) + 1
    line = body[at:ended]
    content = line.removesuffix(b"\n").removesuffix(b"\r")
    fields = content.split(b",")
    if sorted(names) not in (["timestamp", "value"], ["series", "timestamp", "value"]) or len(fields) != len(names):
        return None
    written = dict(zip(names, fields, strict=True))
    name = written.get("series") or None
    series = _one_series(name)
    if series is None or '"' in series or b"\r" in content or not _CSV_STAMP.fullmatch(written["timestamp"]):
        return None
    # What stands around the two fields: line is before + first + between + second + behind.
    lengths = [len(field) for field in fields]
    begins = [sum(lengths[:place]) + place for place in range(len(fields))]
    first, second = sorted((names.index("timestamp"), names.index("value")))
    shape = _Shape(
        before=line[: begins[first]],
        between=line[begins[first] + lengths[first] : begins[second]],
        behind=line[begins[second] + lengths[second] :],
        stamp=written["timestamp"],
        is_iso=not written["timestamp"].isdigit(),
        stamp_first=names[first] == "timestamp",
    )
    text = body[at + begins[first] :]
    if not text.endswith(b"\n"):
        text += line[len(content) :]
    read = _read_rows(text, shape, max_events, is_json=False)
    if read is None:
        return None
    times, ts_us, values = read
    return Rows(times, values, series, "line", range(2, 2 + len(times)), read=(ts_us, values))


# -- rows of any of them -------------------------------------------------------------------------------------------


def _read_rows(
    text: bytes, shape: _Shape, max_events: int, *, is_json: bool
) -> tuple[WrittenTimes, TimestampsUs, Values] | None:
    """Rows from the first one's first field to the end of the last."""
    before, between, behind, stamp, _, stamp_first = shape
    read_times = _reader_of_times(shape, is_json=is_json)
    if read_times is None or not (before + between + behind).isascii() or not _is_second_alike(text, shape):
        return None
    # As if there were a row before the first.
    text = b"".join((_AROUND, before, text, _AROUND))
    at, to = len(_AROUND), len(text) - len(_AROUND)
    ends = places_of(text, behind[-1], at, to, max_events)
    if ends is None or not len(ends) or ends[-1] != to - 1:
        return None
    starts = np.concatenate(([at], ends[:-1] + 1))
    rows, width = len(ends), len(stamp)
    ts_us, values = np.empty(rows, np.int64), np.empty(rows, np.float64)
    for piece in _pieces(rows):
        row_starts, row_ends = starts[piece], ends[piece] + 1
        if stamp_first:
            number_ends = row_ends - len(behind)
            number_starts = row_starts + (len(before) + width + len(between))
            times = _between(text, row_starts, before, width, between)
            if len(behind) > 1 and _between(text, number_ends, behind[:-1], 0, b"") is None:
                return None
        else:
            number_starts = row_starts + len(before)
            number_ends = row_ends - (len(between) + width + len(behind))
            if before and _between(text, row_starts, before, 0, b"") is None:
                return None
            times = _between(text, number_ends, between, width, behind) if (number_ends > 0).all() else None
        numbers = None if times is None else read_numbers(text, number_starts, number_ends, signed_zeros=not is_json)
        if numbers is None or times is None:
            return None
        found = read_times(times)
        if found is None:
            return None
        ts_us[piece], values[piece] = found, numbers
    stamps = starts + len(before) if stamp_first else ends + 1 - len(behind) - width
    return WrittenTimes(text, stamps, width, numbers=is_json and not shape.is_iso), ts_us, values


def _is_second_alike(text: bytes, shape: _Shape) -> bool:
    """Whether the second row, if there is one, begins and ends as it must. 2 µs, where rows have each its own
    series: to find that out from columns costs a third of reading them.
    """
    before, between, behind, stamp, _, stamp_first = shape
    first = text.find(behind[-1:]) + 1
    end = text.find(behind[-1:], first) + 1
    row = text[first:end]
    if not row:
        return True
    inner = row[len(before) : len(row) - len(behind)]
    at = len(stamp) if stamp_first else len(inner) - len(stamp) - len(between)
    return row.startswith(before) and row.endswith(behind) and at > 0 and inner.startswith(between, at)


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(at, at + _ROWS_AT_ONCE) for at in range(0, rows, _ROWS_AT_ONCE))


def _between(text: bytes, at: Places, ahead: bytes, width: int, behind: bytes) -> Words | None:
    """The words of a field of `width` letters between these texts, which begin at each place. None where one differs,
    or lies outside of the text.
    """
    lead = -len(ahead) % 8
    skipped = (lead + len(ahead)) // 8
    least = b"\0" * lead + ahead + b"\0" * width + behind
    looked_at = b"\0" * lead + b"\xff" * len(ahead) + b"\0" * width + b"\xff" * len(behind)
    length = len(least) + -len(least) % 8
    try:
        words = windows(text, at - lead, length)
    except IndexError:
        return None
    if differ(words, least.ljust(length, b"\0"), looked_at.ljust(length, b"\0")):
        return None
    return words[skipped : skipped + -(-width // 8)]


def _reader_of_times(shape: _Shape, *, is_json: bool) -> Callable[[Words], TimestampsUs | None] | None:
    """How the words of its timestamps become microseconds; None where that is not known."""
    if shape.is_iso:
        form = iso_form(shape.stamp)
        if form is None:
            return None

        def read_iso(words: Words) -> TimestampsUs | None:
            ts_us, known = iso_words_us(words, form)
            return ts_us if known.all() else None

        return read_iso
    width = len(shape.stamp)
    if not shape.stamp.isdigit() or width > 19:
        return None

    def read_unix(words: Words) -> TimestampsUs | None:
        numbers = read_digits(words, width)
        if numbers is None:
            return None
        ts_us, known = unix_us(numbers, is_text=not is_json)
        return ts_us if known.all() else None

    return read_unix


# -- columns -------------------------------------------------------------------------------------------------------


def read_columns(body: bytes, max_events: int) -> Rows | None:
    """The events of JSON columns: timestamp and value, and perhaps the series of all."""
    begin = _DOCUMENT.match(body) if len(body) >= _LEAST_JSON * _LEAST_BYTES else None
    if begin is None:
        return None
    at = begin.end()
    found: dict[bytes, tuple[int, int] | bytes] = {}
    while True:
        member = _MEMBER.match(body, at)
        if member is None or member[1] in found:
            return None
        if member[2] is not None:
            found[member[1]], at = member[2], member.end()
        else:
            closed = body.find(b"]", member.end())
            found[member[1]], at = (member.end(), closed), closed + 1
        behind = _NEXT_MEMBER.match(body, at) if at > 0 else None
        if behind is None:
            break
        at = behind.end()
    times, numbers, name = found.get(b"timestamp"), found.get(b"value"), found.get(b"series")
    if not _DOCUMENT_ENDS.match(body, at) or isinstance(times, bytes) or isinstance(numbers, bytes):
        return None
    if times is None or numbers is None or isinstance(name, tuple):
        return None
    series = _one_series(name)
    read = None if series is None else _read_times(body, *times, max_events)
    if series is None or read is None:
        return None
    written, ts_us = read
    values = _read_values(body, *numbers, len(ts_us))
    return None if values is None else _rows(written, ts_us, values, series, "index")


def _read_times(body: bytes, at: int, to: int, max_events: int) -> tuple[WrittenTimes, TimestampsUs] | None:
    """A list of timestamps of one width, from the first of them to the bracket that ends it."""
    first = _STAMP_OF_COLUMN.match(body, at, min(to, at + _FIRST_ROW_MAX))
    if first is None:
        return None
    quote, stamp, gap = first["quote"], first["stamp"], first["next"]
    shape = _Shape(quote, b"", quote, stamp, bool(quote), True)
    read = _reader_of_times(shape, is_json=True)
    width, stride = len(stamp), first.end() - at
    listed = body[at:to].rstrip(b" \t\n\r")
    rows, rest = divmod(len(listed) + len(gap), stride)
    if read is None or rest or rows > max_events:
        return None
    # As if one more followed. Behind each stand a quote, the comma, and the quote of the next.
    text = b"".join((listed, gap, quote, _AROUND))
    if quote and text[:1] != quote:
        return None
    behind = quote + gap + quote
    length = (width + len(behind) + 7) & -8
    same = (b"\0" * width + behind).ljust(length, b"\0")
    looked_at = (b"\0" * width + b"\xff" * len(behind)).ljust(length, b"\0")
    ts_us = np.empty(rows, np.int64)
    for piece in _pieces(rows):
        begin = piece.start * stride + len(quote)
        count = len(ts_us[piece])
        words = np.array(np.ndarray((length // 8, count), "<u8", text, begin, (8, stride)), order="C")
        found = None if differ(words, same, looked_at) else read(words[: -(-width // 8)])
        if found is None:
            return None
        ts_us[piece] = found
    places = range(len(quote), len(quote) + rows * stride, stride)
    return WrittenTimes(text, places, width, numbers=not quote), ts_us


def _read_values(body: bytes, at: int, to: int, rows: int) -> Values | None:
    """A list of that many numbers."""
    first = _NUMBER_OF_COLUMN.match(body, at, min(to, at + _FIRST_ROW_MAX))
    if first is None or first["next"][:1] != b",":
        return None
    before = first["next"][1:]
    text = b"".join((_AROUND, before, body[at:to].rstrip(b" \t\n\r"), b",", _AROUND))
    ends = places_of(text, ord(","), len(_AROUND), len(text) - len(_AROUND), rows)
    if ends is None or len(ends) != rows:
        return None
    starts = np.concatenate(([len(_AROUND)], ends[:-1] + 1))
    values = np.empty(rows, np.float64)
    for piece in _pieces(rows):
        if before and _between(text, starts[piece], before, 0, b"") is None:
            return None
        numbers = read_numbers(text, starts[piece] + len(before), ends[piece], signed_zeros=False)
        if numbers is None:
            return None
        values[piece] = numbers
    return values
