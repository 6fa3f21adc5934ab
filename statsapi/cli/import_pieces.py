"""How `statsapi import` cuts a file into pieces of whole rows, the same ones each time.

The Idempotency-Key of a piece is made from its content. So a file must be cut the same way each time, even when it has
grown: it is cut where it ended before (import_ends.py remembers that), and the rows before that cut are sent under the
same keys as before.

A last row without a line end, or with an open quote, may become longer as the file grows. So it is a piece by itself.
Each piece is sent with a line feed at its end, even where the file has none yet: so the row stays the same one when its
line end has come.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import IO, Final, NamedTuple

from statsapi.cli import failures, import_lines

PIECE_ROWS: Final = 20_000
PIECE_BYTES: Final = 2 << 20
LINE_BYTES: Final = 16 << 20  # the default of STATSAPI_MAX_BODY_BYTES; a JSON document is one piece too
_CHUNK_BYTES: Final = 1 << 16


class Piece(NamedTuple):
    """The lines of a file from first_line on, 1 being its first. `header`: what each piece begins with, for CSV.
    `is_finished`: whether the end of its last row was there. `blank`: how many of the rows are blank lines.
    """

    first_line: int
    rows: int
    header: bytes
    body: bytes
    is_finished: bool = True
    blank: int = 0

    @property
    def lines(self) -> int:
        """How many of the file's lines the piece holds."""
        return self.body.count(b"\n") + (self.body[-1:] not in (b"", b"\n"))

    def halves(self, cutter: Cutter) -> list[Piece]:
        """Two pieces of whole rows; none where it is a single row."""
        rows = list(cutter.rows(cutter.points(io.BytesIO(self.body)), self.rows, len(self.body) + 1))
        if len(rows) < 2:
            return []
        middle = len(rows) // 2
        halves = rows[:middle], rows[middle:]
        begins = self.first_line, self.first_line + b"".join(halves[0]).count(b"\n")
        return [
            Piece(begin, len(half), self.header, b"".join(half), blank=_blank(half))
            for begin, half in zip(begins, halves, strict=True)
        ]


class Cutter:
    """Cuts files of one form. `delimiter` is for CSV, where a quote counts only at the beginning of a field."""

    def __init__(self, form: str, delimiter: str = ",") -> None:
        self._form = form
        mark = re.escape(delimiter.encode())
        # After a field's opening quote: the text up to the closing one, if that is in this line.
        self._opens = re.compile(rb"(?:^|" + mark + rb')[ ]*"')
        self._closes = re.compile(rb'(?:[^"]|"")*"(?!")')

    def points(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The points of line protocol: a string may join several lines into one."""
        return import_lines.points(lines) if self._form == "lines" else iter(lines)

    def rows(self, lines: Iterable[bytes], most: int, most_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """The next rows, at most `most` of them and about `most_bytes`. A line end within quotes of CSV ends no row."""
        rows, size, row, is_open = 0, 0, list[bytes](), False
        for line in lines:
            row.append(line)
            size += len(line)
            if self._form == "csv" and (is_open or b'"' in line):
                is_open = self._open_behind(line, is_open)
            if not is_open:
                yield row[0] if len(row) == 1 else b"".join(row)
                row = []
                rows += 1
                if rows >= most or size >= most_bytes:
                    return
            elif size > LINE_BYTES:
                raise failures.Failed(f"{line[:40]!r} and the 16 MiB before it hold a quote that is never closed")
        if row:
            yield import_lines.Open(b"".join(row))

    def _open_behind(self, line: bytes, is_open: bool) -> bool:
        """Whether a quoted field continues after this line's end."""
        at = 0
        while True:
            if is_open:
                closing = self._closes.match(line, at)
                if closing is None:
                    return True
                at, is_open = closing.end(), False
            opening = self._opens.search(line, at)
            if opening is None:
                return False
            at, is_open = opening.end(), True

    def pieces(self, lines: Iterator[bytes], headers: int, ends: Iterable[int]) -> Iterator[Piece]:
        """All pieces of the file, each with the first `headers` lines as its header. It is cut after each number of
        rows in `ends`, which do not count the header.

        Memory is bounded, except for a JSON document.
        """
        if self._form == "json":
            yield Piece(1, 1, b"", b"".join(lines).rstrip())
            return
        header = b"".join(itertools.islice(lines, headers))
        first_line, done = 1 + headers, 0
        cuts = iter(sorted(set(ends)))
        cut = next(cuts, None)
        while True:
            while cut is not None and cut <= done:
                cut = next(cuts, None)
            most = PIECE_ROWS if cut is None else min(PIECE_ROWS, cut - done)
            if not (body := list(self.rows(lines, most))):
                return
            for finished, rows in _parts(body):
                piece = Piece(first_line, len(rows), header, _ended(b"".join(rows)), finished, _blank(rows))
                yield piece
                first_line += piece.lines
            done += len(body)


def _blank(rows: list[bytes]) -> int:
    return sum(not row.strip(b" \r\n") for row in rows)


def is_finished(row: bytes) -> bool:
    """Whether the row's line end is there."""
    return row.endswith(b"\n") and not isinstance(row, import_lines.Open)


def _parts(rows: list[bytes]) -> Iterator[tuple[bool, list[bytes]]]:
    """The rows in groups: neighbouring finished rows together, each unfinished row by itself."""
    begin = 0
    for at, row in enumerate(rows):
        if not is_finished(row):
            if begin < at:
                yield True, rows[begin:at]
            yield False, [row]
            begin = at + 1
    if begin < len(rows):
        yield True, rows[begin:]


def _ended(body: bytes) -> bytes:
    return body.removesuffix(b"\n").removesuffix(b"\r") + b"\n"


def lines_of(file: str, content: IO[bytes]) -> Iterator[bytes]:
    """The lines of the file. A line of more than LINE_BYTES is refused before it fills the memory. Carriage returns
    alone, the line ends of old Macs, become line feeds.
    """
    head = content.read(_CHUNK_BYTES)
    if b"\r" in head and b"\n" not in head.replace(b"\r", b"", 1).lstrip() and b"\n" not in head:
        yield from _lines_of_returns(file, head, content)
        return
    number = 0
    while True:
        *whole, rest = head.split(b"\n")
        for line in whole:
            number += 1
            yield line + b"\n"
        if len(rest) > LINE_BYTES:
            raise failures.Failed(f"{file}: line {number + 1:,} is longer than 16 MiB, which is no event: see --form")
        more = content.read(_CHUNK_BYTES)
        if not more:
            if rest:
                yield rest
            return
        head = rest + more


def _lines_of_returns(file: str, head: bytes, content: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in itertools.chain([head], iter(lambda: content.read(_CHUNK_BYTES), b"")):
        *whole, rest = (rest + chunk).split(b"\r")
        yield from (line + b"\n" for line in whole)
        if len(rest) > LINE_BYTES:
            raise failures.Failed(f"{file}: a line is longer than 16 MiB, which is no event: see --form")
    if rest:
        yield rest
