"""CSV bodies: a line that names the columns, then one event a line. Every field is text.

With a mapping the columns have any names, or none, and a line has an event for each of its value columns.

Without quotes a body is split in pieces of whole lines, a column at a time; with quotes Python's csv module reads it
row by row, five times as long.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence, Set
from typing import Any, Final, cast

import msgspec
import numpy as np
from marshmallow import ValidationError

from statsapi.api import cures
from statsapi.api.body_text import EVENT_MAX_BYTES, why_not_utf8
from statsapi.api.decoding import plain as plain_rows
from statsapi.api.decoding.mapped import Table
from statsapi.api.decoding.mapping import Chosen, ColumnMapping, choose
from statsapi.api.decoding.rows import (
    BYTE_ORDER_MARK,
    SHARED_FROM,
    TOO_LONG,
    Fault,
    Rows,
    count,
    require_lines_within,
    require_tags_within,
    require_within,
)
from statsapi.api.refusals import BadBody
from statsapi.model import DEFAULT_SERIES

_FLOATS: Final = msgspec.json.Decoder(list[float])

# A body is split in pieces of this size: a text that is not ASCII takes up to four times its bytes, more than once, and
# a field of one or two letters takes 70 bytes.
_PIECE_BYTES: Final = 512 * 1024


def read(body: bytes, max_events: int) -> Rows:
    """The columns timestamp, value and series, as the first line names them."""
    plain = plain_rows.read_table(body.removeprefix(BYTE_ORDER_MARK), max_events)
    if plain is not None:
        return plain
    table = _Table(max_events, body)
    _fill(table, body, max_events)
    return table.rows()


def read_mapped(body: bytes, max_events: int, mapping: ColumnMapping) -> Table:
    """The columns that the mapping names. ValidationError says which of them the first line does not have."""
    table = _Table(max_events, body, mapping)
    _fill(table, body, max_events)
    return table.mapped()


def _fill(table: _Table, body: bytes, max_events: int) -> None:
    whole = body
    body = body.removeprefix(BYTE_ORDER_MARK)
    quoted = b'"' in body
    require_lines_within(body, "\n", max_events)
    if b"\r" in body:
        require_lines_within(body, "\r", max_events)
        if not quoted:
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    line = 1
    if table.skip:
        body, line = _skip(body, table.skip)
        quoted = quoted and b'"' in body
    try:
        if quoted:
            for begins, row in _quoted_rows(body, table.delimiter):
                table.add(begins + line - 1, row)
        else:
            _add_pieces(table, body, line)
    except UnicodeDecodeError:
        raise BadBody(f"The body {why_not_utf8(whole.removeprefix(BYTE_ORDER_MARK))}.") from None


def _skip(body: bytes, lines: int) -> tuple[bytes, int]:
    """The body without its first lines, and the number of the line that it begins with then."""
    ends = itertools.islice(re.finditer(rb"\r\n|\n|\r", body), lines)
    at = skipped = 0
    for end in ends:
        at, skipped = end.end(), skipped + 1
    return (body[at:] if skipped == lines else b""), lines + 1


def _add_pieces(table: _Table, body: bytes, line: int) -> None:
    """A body without quotes, in pieces of whole lines, but for a line that is longer than a piece."""
    at = 0
    while at < len(body):
        end = body.rfind(b"\n", at, at + _PIECE_BYTES) + 1 or body.find(b"\n", at) + 1 or len(body)
        end = len(body) if len(body) - at <= _PIECE_BYTES else end
        line = table.add_piece(line, body[at:end])
        at = end


class _Table:
    """The rows of a CSV, column by column, as they are read. The first that is not blank is the header."""

    def __init__(self, max_events: int, body: bytes, mapping: ColumnMapping | None = None) -> None:
        self._max_events = max_events
        self._body = body  # to say what is wrong with it
        self._mapping = mapping
        self._chosen: Chosen | None = None
        self.delimiter = "," if mapping is None else mapping.delimiter
        self.skip = 0 if mapping is None else mapping.skip
        self._header: list[str] = []
        self._places: Sequence[int] = ()  # of the columns that are kept
        self._columns: list[list[str]] = []
        self._labels: Set[int] = frozenset()  # the places of columns whose texts are shared
        self._shared: dict[str, str] = {}
        self._events_a_row = 1
        self._lines: list[Sequence[int]] = []
        self._received = 0
        self._odd: dict[int, bytes | Fault] = {}

    def add(self, line: int, row: list[str]) -> None:
        """A row that begins at that line of the body. A blank one is skipped, a ragged one is an odd row."""
        if len(row) == 1 and not row[0].strip():
            return
        if not self._header and self._begin(row):
            return
        if len(row) == len(self._header):
            self._take(line, [row[place] for place in self._places])
        else:
            self._refuse(line, self._why_ragged(row))

    def _begin(self, row: list[str]) -> bool:
        """Find the columns in the first row; whether it names them, and holds no event."""
        if self._mapping is None:
            self._header = _checked_header(row, self._body)
            self._places = range(len(row))
        else:
            has_names = self._mapping.header
            self._header = [name.strip() for name in row] if has_names else [str(at + 1) for at in range(len(row))]
            self._chosen = choose(self._mapping, self._header)
            self._places = self._chosen.places
            self._events_a_row = len(self._chosen.values)
            if len(self._chosen.tags) >= SHARED_FROM:
                self._labels = frozenset(self._chosen.tags)
        self._columns = [[] for _ in self._places]
        return self._mapping is None or self._mapping.header

    def _why_ragged(self, row: list[str]) -> str:
        if self._mapping is None:
            return cures.ragged(row, self._header)
        what = "the header" if self._mapping.header else "the first row"
        reason = f"has {len(row)} fields where {what} has {len(self._header)}"
        if self.delimiter == "," and len(row) > len(self._header):
            reason += ": a field with a comma in it stands in quotes"
        else:
            reason += ": mend the line, or add partial=true to store all others"
        return reason

    def add_piece(self, line: int, piece: bytes) -> int:
        """Whole lines without a quote; the first of them is that line of the body. Returns the number of the next."""
        at = 0
        while not self._header and at < len(piece):
            end = piece.find(b"\n", at) + 1 or len(piece)
            self._add_line(line, piece[at:end])
            at, line = end, line + 1
        rest = piece[at:].rstrip(b"\n")
        if rest and (len(rest) > _PIECE_BYTES or not self._add_even(line, rest)):
            for number, text in enumerate(io.BytesIO(rest), line):
                self._add_line(number, text)
        return line + count(piece[at:], "\n")

    def _add_even(self, line: int, piece: bytes) -> bool:
        """Add the lines if each has as many fields as the header; else add none and return False.

        Where the separators come in the same order in each row, one split at all of them lays the fields out in
        strides. 0.08 µs a row of two; with each newline made a field of its own instead 0.1, the csv module 0.5.
        """
        letters = np.frombuffer(piece, np.uint8)
        delimiter = ord(self.delimiter)
        separators = letters[(letters == delimiter) | (letters == ord("\n"))]
        width = len(self._header)
        rows, ragged = divmod(len(separators) + 1, width)
        if ragged:
            return False
        pattern = [*[delimiter] * (width - 1), ord("\n")]
        if (np.append(separators, ord("\n")).reshape(rows, width) != pattern).any():
            return False
        require_within((self._received + rows) * self._events_a_row, self._max_events, counted=False)
        fields = piece.decode().replace("\n", self.delimiter).split(self.delimiter)
        for place, column in zip(self._places, self._columns, strict=True):
            texts = fields[place::width]
            column += map(self._shared.setdefault, texts, texts) if place in self._labels else texts
        require_tags_within(len(self._shared))
        self._lines.append(range(line, line + rows))
        self._received += rows
        return True

    def _add_line(self, line: int, text: bytes) -> None:
        if len(text) <= EVENT_MAX_BYTES:
            self.add(line, text.decode().rstrip("\n").split(self.delimiter))
        elif not self._header:
            raise BadBody(f"The first line, which names the columns, is longer than {EVENT_MAX_BYTES} bytes.")
        else:
            self._refuse(line, TOO_LONG.reason)

    def _take(self, line: int, row: list[str]) -> None:
        require_within((self._received + 1) * self._events_a_row, self._max_events, counted=False)
        for place, column, text in zip(self._places, self._columns, row, strict=True):
            column.append(self._shared.setdefault(text, text) if place in self._labels else text)
        require_tags_within(len(self._shared))
        self._lines.append((line,))
        self._received += 1

    def _refuse(self, line: int, reason: str) -> None:
        self._take(line, [column[-1] if column else "0" for column in self._columns])
        self._odd[self._received - 1] = Fault(reason)

    def rows(self) -> Rows:
        if not self._header:
            _checked_header([], self._body)
        rows = _of_columns(dict(zip(self._header, self._columns, strict=True)), self._all_lines())
        rows.odd = self._odd
        return rows

    def mapped(self) -> Table:
        if self._chosen is None:
            where = f"behind the {self.skip} lines that skip= leaves out" if self.skip else "as the body is empty"
            raise ValidationError(f"has no line that names the columns, {where}")
        odd = cast(dict[int, Fault], self._odd)
        return Table(dict(zip(self._places, self._columns, strict=True)), self._all_lines(), odd, self._chosen)

    def _all_lines(self) -> Sequence[int]:
        return self._lines[0] if len(self._lines) == 1 else list(itertools.chain.from_iterable(self._lines))


def _quoted_rows(body: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line they begin at. After a broken quote no row boundary can be trusted: BadBody."""
    held_bytes = 0  # of the row that is being read

    def lines() -> Iterator[str]:
        nonlocal held_bytes
        for line in io.BytesIO(body):
            for text in line.splitlines(keepends=True) if b"\r" in line else (line,):
                held_bytes += len(text)
                if held_bytes > EVENT_MAX_BYTES:
                    raise BadBody(
                        f'The row that begins at line {begins} is longer than {EVENT_MAX_BYTES} bytes: is a quote (") '
                        "missing there?"
                    )
                yield text.decode()

    reader = csv.reader(lines(), strict=True, delimiter=delimiter)
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            said = f"The body is not CSV: {error} (in the row that begins at line {begins})."
            raise BadBody(f"{said} {cures.quoted_delimiter(body, delimiter)}".rstrip()) from None
        held_bytes = 0
        if row:
            yield begins, row


def _checked_header(names: list[str], body: bytes) -> list[str]:
    """The column names; ValidationError says what is wrong with them."""
    names = [name.strip() for name in names]
    if faults := cures.header_faults(names, body):
        raise ValidationError(cast(dict[str, Any], faults))
    return names


def _of_columns(by_name: dict[str, list[str]], lines: Sequence[int]) -> Rows:
    timestamps, values = by_name["timestamp"], by_name["value"]
    series: list[str] | str = DEFAULT_SERIES
    if "series" in by_name:
        series = by_name["series"]
        if "" in series:
            series = [name or DEFAULT_SERIES for name in series]
    return Rows(
        cast(list[str | int | float], timestamps),
        _as_json_numbers(values) or cast(list[float | str], values),
        series,
        "line",
        lines,
    )


def _as_json_numbers(texts: list[str]) -> list[float | str] | None:
    """What float() makes of each text, if all are numbers as JSON writes them: a third of float()'s time."""
    try:
        floats = _FLOATS.decode(f"[{','.join(texts)}]")
    except ValueError:
        return None
    if len(floats) != len(texts):
        return None  # a quoted field holds a comma
    if 0.0 in floats:  # JSON's -0 is an integer, without a sign; float("-0") has one
        return [value or float(text) for value, text in zip(floats, texts, strict=True)]
    return cast(list[float | str], floats)
