"""How `statsapi import` cuts a file: pieces that end where a row does, the same ones whenever it is cut.

The Idempotency-Key of a piece is made of what it holds. So a file must be cut alike each time, also when it has grown
meanwhile: then there is a cut where it ended before (import_ends.py remembers that), and the rows before it go under
the keys that they went under.

A last row that is not finished, as no line end is there or its quote is open, may be another one when the file has
grown. So it is a piece of its own. And each piece ends with a line feed, whatever the file has there: the row is the
same one when its line end has come.
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
LINE_BYTES: Final = 16 << 20  # STATSAPI_MAX_BODY_BYTES unless it is raised; a JSON document goes as one too
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
        """How many of the file's."""
        return self.body.count(b"\n") + (self.body[-1:] not in (b"", b"\n"))

    def halves(self, cutter: Cutter) -> list[Piece]:
        """Of whole rows; none where it is a single one."""
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
    """Of files of one form. `delimiter` is CSV's: a quote has a meaning only where a field begins."""

    def __init__(self, form: str, delimiter: str = ",") -> None:
        self._form = form
        mark = re.escape(delimiter.encode())
        # Behind a field's opening quote: up to the closing one, if that is in this line.
        self._opens = re.compile(rb"(?:^|" + mark + rb')[ ]*"')
        self._closes = re.compile(rb'(?:[^"]|"")*"(?!")')

    def points(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines, and those as one that a string of line protocol spans."""
        return import_lines.points(lines) if self._form == "lines" else iter(lines)

    def rows(self, lines: Iterable[bytes], most: int, most_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """The next rows, up to so many or so many bytes: a line's end within quotes of CSV is no row's."""
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
        """Whether a quoted field goes on behind this line's end."""
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
        """All of it, each piece with the first `headers` lines. A cut is at each of `ends`: so many lines behind them.

        Bounded memory, but for a JSON document.
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
    """Whether its end is there."""
    return row.endswith(b"\n") and not isinstance(row, import_lines.Open)


def _parts(rows: list[bytes]) -> Iterator[tuple[bool, list[bytes]]]:
    """The rows that are finished together, each other one for itself."""
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
    """The lines. One of more than LINE_BYTES is no event, and is refused before it fills the memory. Where a file ends
    its lines with carriage returns alone, as old Macs did, they end with line feeds here.
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
