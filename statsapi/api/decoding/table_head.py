"""The first rows of somebody's table, CSV or NDJSON, as a guess looks at them: each way to see columns in the text."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from statsapi.api.decoding.cells import NO_VALUE, NUMBER, is_number
from statsapi.api.decoding.guessed_formats import TimeReader
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.errors import echo

_ROWS_MAX: Final = 50
_COLUMNS_MAX: Final = 100
_SKIP_TRIED: Final = 10  # lines before the header


class Head(NamedTuple):
    """The first rows of a table. names: of its columns, or their numbers from 1 where it has no header. rows: each as
    wide as names.

    begins: the line at which each row begins. start: what was asked for, and what the text alone shows: delimiter,
    lines to skip, whether there is a header. lines: the rows lie within this many lines of the text. floats: the
    columns with fractions of JSON, in which a point never separates thousands.
    """

    names: list[str]
    rows: list[list[str]]
    begins: list[int]
    start: ColumnMapping
    lines: int
    reader: TimeReader
    floats: frozenset[int] = frozenset()

    def column(self, at: int) -> list[str]:
        """The cells of a column that are not blank."""
        return [row[at] for row in self.rows if row[at].strip()]

    def where(self, names: Sequence[str | None]) -> list[int]:
        """The places of those names that exactly one column has."""
        return [self.names.index(name) for name in names if name is not None and self.names.count(name) == 1]

    def why_left_out(self, at: int, decimal: str) -> str:
        """`'load' is left out, as line 2 holds '5%'`: by the first cell of that column that is no number."""
        line, text = next(
            (line, row[at])
            for line, row in zip(self.begins, self.rows, strict=True)
            if row[at].strip() and not NO_VALUE.fullmatch(row[at]) and not is_number(row[at], decimal)
        )
        return f"{echo(self.names[at])!r} is left out, as line {line} holds {echo(text.strip())!r}"


def csv_heads(text: str, asked: ColumnMapping, reader: TimeReader) -> Iterator[Head]:
    """Each way to see columns in the text, the likely ones first."""
    delimiters = [asked.delimiter] if asked.delimiter != "," else [";", "\t", ",", "|"]
    seen = []
    lines = text.splitlines()
    for delimiter in delimiters:
        for skip in range(asked.skip, asked.skip + _SKIP_TRIED):
            if skip > asked.skip and _holds_time(lines[skip - 1], delimiter, reader):
                break  # that line is an event, which must not be left out
            rows, begins, used = first_rows(text, delimiter, skip, _ROWS_MAX)
            widths = {len(row) for row in rows}
            if len(widths) == 1 and 1 < len(rows[0]) <= _COLUMNS_MAX and not rows[0][0].startswith(("#", "sep=")):
                seen.append((skip, delimiter, rows, begins, used))
                break
            if skip >= len(lines):
                break
    for skip, delimiter, rows, begins, used in sorted(seen, key=lambda way: way[0]):
        start = replace(asked, delimiter=delimiter, skip=skip)
        names = [name.strip() for name in rows[0]]
        numbers = [str(at) for at in range(1, len(names) + 1)]
        if not asked.header or any(NUMBER.fullmatch(name) or reader.is_time(name) for name in names):
            if any(_may_name_columns(line) for line in lines[asked.skip : skip]):
                continue  # a header of another width: a row's number may be split in two, or a column have no name
            yield Head(numbers, rows, begins, replace(start, header=False), used, reader)
        elif len(rows) > 1:
            twice = [at for at, name in enumerate(names) if names.count(name) > 1]
            if any(is_number(row[at], ".") or is_number(row[at], ",") for row in rows[1:] for at in twice):
                by_number = replace(start, header=False, skip=begins[1] - 1)
                by_number = replace(by_number, timestamp=None, date=None, time=None, values=(), series=None, tags=())
                yield Head(numbers, rows[1:], begins[1:], by_number, used, reader)
            else:
                yield Head(names, rows[1:], begins[1:], start, used, reader)


def _may_name_columns(line: str) -> bool:
    return sum(bool(field.strip()) for field in re.split(r"[;,\t|]", line)) > 1


def _holds_time(line: str, delimiter: str, reader: TimeReader) -> bool:
    """Whether a field is a time, where the line is split at this delimiter or at all known ones."""
    fields = (*line.split(delimiter)[:_COLUMNS_MAX], *re.split(r"[;,\t|]", line)[:_COLUMNS_MAX])
    return any(reader.is_time(field) for field in dict.fromkeys(fields) if field.strip())


def first_rows(text: str, delimiter: str, skip: int, most: int) -> tuple[list[list[str]], list[int], int]:
    """The first rows that are not blank, `most` at most; the line at which each begins; and the line at which the last
    ends. No rows where the csv module cannot read them.
    """
    reader = csv.reader(text.splitlines(keepends=True)[skip:], strict=True, delimiter=delimiter)
    rows: list[list[str]] = []
    begins: list[int] = []
    begin = used = 0
    try:
        for row in reader:
            begin, used = used, reader.line_num
            if row and (len(row) > 1 or row[0].strip()):
                rows.append(row)
                begins.append(skip + begin + 1)
                if len(rows) == most:
                    break
    except csv.Error:
        return [], [], skip
    return rows, begins, skip + used


def ndjson_heads(text: str, asked: ColumnMapping, reader: TimeReader) -> Iterator[Head]:
    """The members of its objects as columns, in order of appearance; nothing where not all lines are objects."""
    items, begins = [], []
    written = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    for number, line in itertools.islice(written, _ROWS_MAX):
        begins.append(number)
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(item, dict):
            return
        items.append(item)
    if not items:
        return
    if any(isinstance(item.get("tags"), (dict, list)) for item in items):
        return  # no mapping takes tags from an object
    found = dict.fromkeys(name for item in items for name in item)
    if len(found) <= _COLUMNS_MAX:
        names = [name for name in found if not any(isinstance(item.get(name), (dict, list)) for item in items)]
        rows = [[_as_text(item.get(name)) for name in names] for item in items]
        floats = frozenset(at for at, name in enumerate(names) if any(type(item.get(name)) is float for item in items))
        yield Head(names, rows, begins, asked, len(text), reader, floats)  # so all lines: few are blank


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
