"""The mapping that would take a file, found in its first lines: for a refusal to show, and nothing else.

A proposal is tried on those lines before it is shown, so one that is followed to the letter works. Where a file has two
readings (11/12/2026, two columns of times) both are proposed; where 1.052 may be 1052, that is told. What a person
named stays what it was named for: a value is never proposed as a tag. Cells that hold no number (empty, `N/A`, `5 ms`)
are named by line. Only one kind of file is read without being asked, as nothing else can be meant: a time under a usual
name and one other column, of numbers (`understand`).
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from statsapi.api.decoding.local_times import Clock
from statsapi.api.decoding.mapping import COLUMN_PARAMETERS, TAGS_MAX, TIME_NAMES, ColumnMapping
from statsapi.api.decoding.rows import BYTE_ORDER_MARK
from statsapi.errors import echo
from statsapi.times import has_offset, parse_timestamp_us

# So much of a body is looked at: enough to tell days from months, and done in some milliseconds.
_HEAD_BYTES: Final = 16 * 1024
_HEAD_ROWS: Final = 50

_COLUMNS_MAX: Final = 100
_VALUES_SHOWN: Final = 20
_QUERY_MAX: Final = 1000
_PROPOSALS_MAX: Final = 3

_SKIP_TRIED: Final = 10
_TRIED_MAX: Final = 20
_LOOKS_MAX: Final = 4000
_TEXT_MAX: Final = 40  # no time is longer

_NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_NUMBER_WITH_COMMA: Final = re.compile(r"\s*[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_CLOCK_TIME: Final = re.compile(
    r"\s*(?:\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s*[AaPp][Mm])?|\d\d?\s*[AaPp][Mm])\s*", re.ASCII
)
_HOUR: Final = re.compile(r"\s*(?:[01]?\d|2[0-4])\s*", re.ASCII)
_CLOCK_DIGITS: Final = re.compile(r"\s*\d{4}(?:\d\d)?\s*", re.ASCII)

# Numbers that are thousands to some readers and have three decimals to others.
_ONE_GROUP: Final = re.compile(r"\s*[+-]?[1-9]\d{0,2}[.,]\d{3}\s*", re.ASCII)

# Cells that a person would mend: no value, a number with a unit, one with separators. As units only what is known as
# one: 4xx and web-1 are labels.
_NO_VALUE: Final = re.compile(
    r"\s*(?:#?n/?a|nan|null|none|nil|-+|\?|missing|undefined|unknown|unavailable)\s*", re.ASCII | re.IGNORECASE
)
_UNIT: Final = (
    r"(?:[%‰°$€£¥₹]|°[CF]|[nµμum]?s|sec|min|h|[kKMGT]?i?B|[kKMG]?bps|[kMG]?Hz|[mkM]?(?:W|Wh|V|A)|[mck]?m|[mk]?g|m?[lL]|"
    r"m?bar|h?Pa|kPa|ppm|ppb|lx|dBm?|rpm|m/s|km/h|/s|EUR|USD|GBP|CHF)"
)
_QUANTITY: Final = re.compile(rf"\s*(?:{_UNIT}\s*)?([+-]?[\d.,]*\d[\d.,]*(?:[eE][+-]?\d+)?)(?:\s*{_UNIT})?\s*")
_SEPARATED: Final = re.compile(r"[+-]?\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*(?:[.,]\d+)?", re.ASCII)
_COMMA_IS_DECIMAL: Final = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+", re.ASCII)

_TIME_WORDS: Final = {
    *TIME_NAMES,
    *("date_time", "time_stamp", "timestamps", "timestamp_utc", "@timestamp", "_time", "unixtime", "unix_time"),
    *("epoch", "created", "created_at", "when", "at", "zeit", "zeitpunkt", "zeitstempel", "datum", "fecha", "heure"),
}
_DATE_WORDS: Final = ("date", "day", "datum", "tag", "fecha", "jour")
_HOUR_WORDS: Final = ("hour", "hours", "hr", "hora", "heure", "stunde", "std")
_CLOCK_WORDS: Final = ("time", "clock", "uhrzeit", "zeit", "t", "time_of_day", "tod", *_HOUR_WORDS)
_SERIES_WORDS: Final = ("series", "name", "metric", "sensor")
_NO_VALUES: Final = ("", "id", "index", "unnamed: 0", "row", "nr", "no")

# Forms of a date, and what may stand behind it. The first pairs are read from day to year, the second from month.
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
# With all digits only: a spreadsheet makes 7.5 of 07.50.
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


class Tried(NamedTuple):
    """What a reading makes of some lines: {"line", "field", "reason"} for each fault, and how many events are good."""

    faults: list[dict[str, Any]]
    good: int


TryOn = Callable[[bytes, ColumnMapping | None], Tried]


class Proposal(NamedTuple):
    """A query, and what a person has to know of it.

    as_utc: it would read times as UTC that may be local ones. grouped: a number that it reads with decimals, and that
    may have thousands instead. fault: the first in those lines, as "line 2, cpu: is empty". mend: whether cells have to
    be mended first; else the query leaves out what is at fault. left_out: a cell of a column that is neither taken as
    values nor as a tag. split: two fields that may be one number with a decimal comma.
    """

    query: str
    as_utc: bool
    grouped: str | None = None
    fault: str | None = None
    mend: bool = False
    left_out: str | None = None
    split: tuple[str, str] | None = None


class _Head(NamedTuple):
    """The first rows of a table: `names` of its columns (numbers where it has none) and a few rows of their width.

    begins: the line at which each row begins. lines: how many lines they are, with those before them. floats: columns
    of JSON's own numbers, whose point is no separator.
    """

    names: list[str]
    rows: list[list[str]]
    begins: list[int]
    start: ColumnMapping
    lines: int
    looks: _Looks
    floats: frozenset[int] = frozenset()

    def column(self, at: int) -> list[str]:
        return [row[at] for row in self.rows if row[at].strip()]

    def where(self, names: Sequence[str | None]) -> list[int]:
        """The places of those that are there once."""
        return [self.names.index(name) for name in names if name is not None and self.names.count(name) == 1]

    def where_other(self, at: int, decimal: str) -> str:
        """`'load' (line 2 holds '5%')`: the first cell of a column that is no number."""
        line, text = next(
            (line, row[at])
            for line, row in zip(self.begins, self.rows, strict=True)
            if row[at].strip() and not _NO_VALUE.fullmatch(row[at]) and not _holds(row[at], decimal)
        )
        return f"{echo(self.names[at])!r} is left out, as line {line} holds {echo(text.strip())!r}"


class _Columns(NamedTuple):
    """What the columns of a head hold with one decimal sign: `numbers` nothing else but empty fields and words for no
    value; `mixed` numbers with units, or numbers and something else.
    """

    numbers: list[int]
    mixed: list[int]


def understand(body: bytes) -> ColumnMapping | None:
    """The mapping of a CSV that has but one: a column of times under a usual name and one other, of numbers, in the
    first row that there is. None for any other body, also for one that needs no mapping. 20 µs.
    """
    if body.startswith(b"timestamp,value"):  # nearly all there are
        return None
    head = body[:_HEAD_BYTES].removeprefix(BYTE_ORDER_MARK)
    if b"," not in head:
        return None
    rows = _rows(head.decode("utf-8", "replace"), ",", 0, 2)[0]
    if len(rows) < 2 or len(rows[0]) != 2 or len(rows[1]) != 2:
        return None
    names = [name.strip() for name in rows[0]]
    if set(names) == {"timestamp", "value"} or names[0].lower() == names[1].lower():
        return None
    times = [at for at, name in enumerate(names) if name.lower() in TIME_NAMES]
    if len(times) != 1:
        return None
    other = 1 - times[0]
    if not names[other] or names[other] == "series" or not _NUMBER.fullmatch(rows[1][other]):
        return None
    return ColumnMapping(timestamp=names[times[0]], values=(names[other],))


def propose(body: bytes, is_csv: bool, asked: ColumnMapping | None, try_on: TryOn) -> list[Proposal]:
    """Queries that take the body as it is, at most three, which differ where it has several readings; or one that takes
    it once some cells are mended. What was `asked` for is kept.
    """
    head = body[:_HEAD_BYTES].removeprefix(BYTE_ORDER_MARK)
    if len(body) > _HEAD_BYTES:
        head = head[: head.rfind(b"\n") + 1]
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return []
    plain = _try(try_on, head, asked)
    if plain is not None and not plain.faults and plain.good:  # it was refused for something else
        return []
    given, asked = asked, asked or ColumnMapping()
    looks = _Looks()
    heads = _csv_heads(text, asked, looks) if is_csv else _ndjson_heads(text, asked, looks)
    shown: list[Proposal] = []
    tried: set[str] = set()
    with suppress(_Tired):
        for found in heads:
            sample = b"".join(head.splitlines(keepends=True)[: found.lines])
            for mapping, mixed, left_out in _mappings(found):
                query = mapping.query()
                if len(query) > _QUERY_MAX or query in tried or not query:
                    continue
                tried.add(query)
                if len(tried) > _TRIED_MAX:
                    raise _Tired
                seen = _try(try_on, sample, mapping)
                if not _are_of_cells(seen, mapping) and mapping.tags != asked.tags and "tags" not in found.names:
                    # Their texts may be no names. What is called the series, or tags, is not left out for that.
                    mapping = replace(mapping, tags=asked.tags)
                    seen = _try(try_on, sample, mapping)
                if seen is None or not _are_of_cells(seen, mapping) or not (seen.good or mixed):
                    continue
                before = _try(try_on, sample, given) if plain and plain.faults and seen.faults else None
                if before is not None and len(seen.faults) >= len(before.faults):
                    return []  # it is read no better than it was, and what is at fault has been named
                query = mapping.query() + ("&partial=true" if seen.faults and not mixed else "")
                fault = "line {line}, {field}: {reason}".format_map(seen.faults[0]) if seen.faults else None
                grouped, split = _grouped(found, mapping), _split(found, mapping)
                shown.append(Proposal(query, _are_naive(found, mapping), grouped, fault, mixed, left_out, split))
            if shown:
                break
    return ([proposal for proposal in shown if not proposal.mend] or shown)[:_PROPOSALS_MAX]


def _try(try_on: TryOn, sample: bytes, mapping: ColumnMapping | None) -> Tried | None:
    """None for what cannot be read at all."""
    try:
        return try_on(sample, mapping)
    except (ValidationError, HTTPException):
        return None


def _are_of_cells(seen: Tried | None, mapping: ColumnMapping) -> bool:
    """Whether all that is at fault are values, and empty times."""
    if seen is None:
        return False
    called = "" if mapping.header else "column "
    values = {echo(called + name) for name in mapping.values}
    return all(fault["field"] in values or fault["reason"].startswith("is empty") for fault in seen.faults)


def _grouped(head: _Head, mapping: ColumnMapping) -> str | None:
    """A number that has two readings, where all that have a mark do, and nobody said which."""
    if head.start.decimal is not None:
        return None
    mark = mapping.decimal or "."
    places = [at for at in head.where(mapping.values) if at not in head.floats]
    marked = [text.strip() for at in places for text in head.column(at) if mark in text]
    if marked and all(map(_ONE_GROUP.fullmatch, marked)) and (mark == "," or _may_group_by_points(mapping)):
        return marked[0]
    return None


def _split(head: _Head, mapping: ColumnMapping) -> tuple[str, str] | None:
    """Whole numbers beside each other where nothing says how many columns there are: 1,5 may be one number."""
    if mapping.header or mapping.delimiter != "," or head.start.values:
        return None
    places = head.where(mapping.values)
    for at in places:
        if at + 1 in places and all(re.fullmatch(r"[+-]?\d+\|\d+", f"{row[at]}|{row[at + 1]}") for row in head.rows):
            return head.rows[0][at], head.rows[0][at + 1]
    return None


def _may_group_by_points(mapping: ColumnMapping) -> bool:
    """Columns that commas separate have numbers with decimal points, unless the dates are written as in German."""
    return mapping.delimiter != "," or "%d.%m" in (mapping.clock.time_format or "")


def _are_naive(head: _Head, mapping: ColumnMapping) -> bool:
    if mapping.timestamp is None:
        return mapping.clock.zone is None
    try:
        return any(map(mapping.clock.lacks_offset, head.column(head.names.index(mapping.timestamp))))
    except ValueError:
        return False


# -- what the first lines are ---------------------------------------------------------------------------------------


def _csv_heads(text: str, asked: ColumnMapping, looks: _Looks) -> Iterator[_Head]:
    """Each way to see columns in it, the likely ones first."""
    delimiters = [asked.delimiter] if asked.delimiter != "," else [";", "\t", ",", "|"]
    seen = []
    lines = text.splitlines()
    for delimiter in delimiters:
        for skip in range(asked.skip, asked.skip + _SKIP_TRIED):
            if skip > asked.skip and _holds_time(lines[skip - 1], delimiter, looks):
                break  # an event is not to be left out
            rows, begins, used = _rows(text, delimiter, skip, _HEAD_ROWS)
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
        if not asked.header or any(_NUMBER.fullmatch(name) or looks.is_time(name) for name in names):
            if any(_may_name_columns(line) for line in lines[asked.skip : skip]):
                continue  # of another width than the rows: a number may be split there, or a name dropped
            yield _Head(numbers, rows, begins, replace(start, header=False), used, looks)
        elif len(rows) > 1:
            twice = [at for at, name in enumerate(names) if names.count(name) > 1]
            if any(_holds(row[at], ".") or _holds(row[at], ",") for row in rows[1:] for at in twice):
                by_number = replace(start, header=False, skip=begins[1] - 1)
                by_number = replace(by_number, timestamp=None, date=None, time=None, values=(), series=None, tags=())
                yield _Head(numbers, rows[1:], begins[1:], by_number, used, looks)
            else:
                yield _Head(names, rows[1:], begins[1:], start, used, looks)


def _may_name_columns(line: str) -> bool:
    return sum(bool(field.strip()) for field in re.split(r"[;,\t|]", line)) > 1


def _holds_time(line: str, delimiter: str, looks: _Looks) -> bool:
    """Split at that delimiter, and at any."""
    fields = (*line.split(delimiter)[:_COLUMNS_MAX], *re.split(r"[;,\t|]", line)[:_COLUMNS_MAX])
    return any(looks.is_time(field) for field in dict.fromkeys(fields) if field.strip())


def _rows(text: str, delimiter: str, skip: int, most: int) -> tuple[list[list[str]], list[int], int]:
    """The first that are not blank, the line at which each begins, and at which they end; none where the csv module
    cannot read them.
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


def _ndjson_heads(text: str, asked: ColumnMapping, looks: _Looks) -> Iterator[_Head]:
    items, begins = [], []
    written = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    for number, line in itertools.islice(written, _HEAD_ROWS):
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
        return  # no query has these
    found = dict.fromkeys(name for item in items for name in item)
    if len(found) <= _COLUMNS_MAX:
        names = [name for name in found if not any(isinstance(item.get(name), (dict, list)) for item in items)]
        rows = [[_as_text(item.get(name)) for name in names] for item in items]
        floats = frozenset(at for at, name in enumerate(names) if any(type(item.get(name)) is float for item in items))
        yield _Head(names, rows, begins, asked, len(text), looks, floats)  # all lines: blank ones are few


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


# -- what the columns are ------------------------------------------------------------------------------------------


def _mappings(head: _Head) -> Iterator[tuple[ColumnMapping, bool, str | None]]:
    """Each with whether it needs cells mended, and the cell for which a column is left out."""
    names, asked = head.names, head.start
    columns = {at: head.column(at) for at in range(len(names))}
    usable = [at for at in columns if columns[at] and names.count(names[at]) == 1]
    values_asked, named = head.where(asked.values), head.where((asked.series, *asked.tags))
    free = [at for at in usable if at not in values_asked and at not in named]
    pair = _date_and_time(head, columns, free)
    pointed = False
    for decimal in (".", ",") if asked.decimal is None else (asked.decimal,):
        found = _columns(columns, sorted({*free, *values_asked}), decimal)
        if decimal == "," and (
            pointed or not any("," in text for at in found.numbers or found.mixed for text in columns[at])
        ):
            continue
        for places, clocks in [pair] if pair else _time_columns(head, columns, free, found.numbers):
            if len(places) == 1 and _is_half(head, columns, free, places[0]):
                continue
            values = _without_names(head, [at for at in found.numbers if at not in places])
            mixed = [at for at in found.mixed if at not in places and names[at] != "series"]
            some = [at for at in values if names[at].lower() not in _NO_VALUES] or values
            if values_asked:
                if not set(values_asked) <= set(values):
                    continue
                some = values_asked if len(values_asked) == len(asked.values) else some
            elif "value" in {names[at] for at in some}:
                some = [at for at in some if names[at] == "value"]
            mend = not some
            some = some or mixed
            if not some or (mend and not _is_decimal_of(columns, some, decimal, asked.decimal)):
                continue
            left = [at for at in mixed if at not in some and not asked.values]
            left_out = head.where_other(left[0], decimal) if left else None
            texts = [at for at in free if at not in {*places, *values, *mixed} and _may_be_label(head, at, columns[at])]
            pointed = pointed or (decimal == "." and any("." in text for at in values for text in columns[at]))
            for clock in clocks:
                mapping = _mapping(
                    head, places, some, texts, replace(asked, decimal=_said(asked, decimal), clock=clock)
                )
                if asked.decimal is None and _grouped(head, mapping):
                    mapping = replace(mapping, decimal=decimal)
                yield mapping, mend, left_out


def _without_names(head: _Head, numbers: list[int]) -> list[int]:
    """Those of the columns of numbers that are values: numbers may name series too. What is called `series` always
    does, as it is lost otherwise; a `sensor` or `metric` does where there are other numbers.
    """
    if not head.start.header or head.start.series or head.start.into:
        return numbers
    values = [at for at in numbers if head.names[at].lower() not in _SERIES_WORDS]
    asked = head.where(head.start.values)
    return [at for at in numbers if at in values or at in asked or not (values or head.names[at] == "series")]


def _may_be_label(head: _Head, at: int, texts: list[str]) -> bool:
    if head.names[at].lower() in _SERIES_WORDS:
        return True
    return _is_label(texts) and not head.looks.is_time(texts[0])


def _said(asked: ColumnMapping, decimal: str) -> str | None:
    return asked.decimal or (decimal if decimal == "," else None)


def _columns(columns: dict[int, list[str]], usable: list[int], decimal: str) -> _Columns:
    numbers, mixed = [], []
    for at in usable:
        told = [text for text in columns[at] if not _NO_VALUE.fullmatch(text)]
        plain = sum(_holds(text, decimal) for text in told)
        if told and plain == len(told):
            numbers.append(at)
        elif told and 2 * (plain + sum(not _holds(text, decimal) and _is_quantity(text) for text in told)) >= len(told):
            mixed.append(at)
    return _Columns(numbers, mixed)


def _holds(text: str, decimal: str) -> bool:
    """Whether it is a number."""
    return bool((_NUMBER if decimal == "." else _NUMBER_WITH_COMMA).fullmatch(text))


def _is_quantity(text: str) -> bool:
    """Whether it is a number with a unit, with another decimal sign, or with separators."""
    if (found := _QUANTITY.fullmatch(text)) is None:
        return False
    return any(pattern.fullmatch(found[1]) for pattern in (_NUMBER, _NUMBER_WITH_COMMA, _SEPARATED))


def _is_decimal_of(columns: dict[int, list[str]], places: list[int], decimal: str, asked: str | None) -> bool:
    """Whether that is the decimal sign of the numbers in cells that have to be mended. Those that the comma alone makes
    numbers of need no mending.
    """
    if asked is not None:
        return True
    if decimal == "." and any(at in places for at in _columns(columns, places, ",").numbers):
        return False
    found = [each[1] for at in places for text in columns[at] if (each := _QUANTITY.fullmatch(text))]
    with_comma = any(_COMMA_IS_DECIMAL.fullmatch(number) and not _ONE_GROUP.fullmatch(number) for number in found)
    return with_comma == (decimal == ",")


def _is_half(head: _Head, columns: dict[int, list[str]], free: list[int], at: int) -> bool:
    """Whether a column holds dates alone beside one that seems to hold the time of day: all would be at midnight."""
    if not any(
        head.names[other].lower() in _CLOCK_WORDS or all(map(_CLOCK_TIME.fullmatch, columns[other]))
        for other in free
        if other != at
    ):
        return False
    return not any(map(_NUMBER.fullmatch, columns[at])) and bool(_clocks(head, columns[at], alone=True))


def _mapping(
    head: _Head, places: tuple[int, ...], values: list[int], texts: list[int], start: ColumnMapping
) -> ColumnMapping:
    names = [head.names[at] for at in places]
    said: dict[str, Any] = dict.fromkeys(COLUMN_PARAMETERS)
    del said["value"]
    said |= {"timestamp": names[0]} if len(names) == 1 else {"date": names[0], "time": names[1]}
    said |= {"tags": start.tags, "series": start.series, "into": start.into}
    if start.header and not (start.values or start.tags):
        called = [at for at in texts if head.names[at].lower() in _SERIES_WORDS and not (start.series or start.into)]
        if called:
            said["series"] = head.names[called[0]]
        said["tags"] = tuple(head.names[at] for at in texts if at not in called[:1])[:TAGS_MAX]
    elif not start.header and len(values) > 1 and not (start.series or start.into):
        said["into"] = "column"
    return replace(start, values=tuple(head.names[at] for at in values[:_VALUES_SHOWN]), **said)


def _date_and_time(
    head: _Head, columns: dict[int, list[str]], free: list[int]
) -> tuple[tuple[int, ...], list[Clock]] | None:
    """A column of dates and one of times of day."""
    asked = head.start
    if asked.timestamp is not None:
        return None
    times = head.where((asked.time,)) or [at for at in free if all(map(_CLOCK_TIME.fullmatch, columns[at]))]
    for words, pattern in ((_HOUR_WORDS, _HOUR), (_CLOCK_WORDS, _CLOCK_DIGITS)):
        times = times or [
            at for at in free if head.names[at].lower() in words and all(map(pattern.fullmatch, columns[at]))
        ]
    if not times:
        return None
    dates = head.where((asked.date,)) or [
        at for at in free if at not in times and _clocks(head, columns[at], alone=True)
    ]
    if len(times) > 1:
        times = [at for at in times if head.names[at].lower() in _CLOCK_WORDS]
    if len(dates) > 1:
        dates = [at for at in dates if head.names[at].lower() in _DATE_WORDS]
    if len(times) != 1 or len(dates) != 1 or times == dates:
        return None
    halves = [(row[dates[0]].strip(), row[times[0]].strip()) for row in head.rows]
    joined = [" ".join(half) for half in halves if all(half)]
    clocks = _clocks(head, joined) if joined else []
    return ((dates[0], times[0]), clocks) if clocks else None


def _time_columns(
    head: _Head, columns: dict[int, list[str]], usable: list[int], numbers: Sequence[int]
) -> list[tuple[tuple[int, ...], list[Clock]]]:
    """Each column that may hold the time; the one with a usual name alone, where there is one."""
    found: list[tuple[tuple[int, ...], list[Clock]]] = []
    if head.start.date is not None and head.start.time is not None:
        return []
    asked = head.where((head.start.timestamp,))
    for at in (at for at in asked or usable if columns[at]):
        if at in numbers and not asked:
            named = head.names[at].lower() in _TIME_WORDS or (
                not head.start.header and all(map(head.looks.is_plain_time, columns[at]))
            )
            if not named:
                continue
        if clocks := _clocks(head, columns[at]):
            found.append(((at,), clocks))
    for words in (("timestamp",), _TIME_WORDS):
        named_so = [way for way in found if head.names[way[0][0]].lower() in words]
        if len(named_so) == 1:
            return named_so
    return found


def _clocks(head: _Head, texts: list[str], *, alone: bool = False) -> list[Clock]:
    """The ways to read all of these; dates `alone` have no time of day. Of formats with day and month in one order that
    read them alike, the first: those with another order may differ further down.
    """
    asked = head.start.clock
    if not alone and asked.time_format is not None:
        return [asked]
    if all(map(head.looks.is_plain_time, texts)):
        return [asked] if not alone or all(":" not in text for text in texts) else []
    readings: dict[tuple[bool, tuple[int, ...]], Clock] = {}
    for time_format in head.looks.formats(texts):
        clock = replace(asked, time_format=time_format)
        if alone and ("%H" in time_format or "%I" in time_format):
            continue
        plain = Clock(time_format)
        day_first = time_format.index("%d") < max(map(time_format.find, ("%m", "%b", "%B")))
        readings.setdefault((day_first, tuple(plain.read_one_us(text) for text in texts)), clock)
    return list(readings.values())


class _Tired(Exception):
    """Enough was looked at."""


class _Looks:
    """Reads texts as times, each once, and no more than _LOOKS_MAX: 10 to 20 µs each."""

    def __init__(self) -> None:
        self._plain: dict[str, bool] = {}
        self._fitting: dict[tuple[str, str], bool] = {}

    def is_plain_time(self, text: str) -> bool:
        """Whether it needs no format: of numbers only Unix time of this century, as most numbers are something else."""
        if (found := self._plain.get(text)) is None:
            self._count()
            found = self._plain[text] = _is_plain_time(text)
        return found

    def is_time(self, text: str) -> bool:
        return self.is_plain_time(text) or bool(self.formats([text]))

    def formats(self, texts: Sequence[str]) -> list[str]:
        """Those of ours in which all of these are written."""
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
        if len(self._plain) + len(self._fitting) >= _LOOKS_MAX:
            raise _Tired


def _is_plain_time(text: str) -> bool:
    if len(text) > _TEXT_MAX:
        return False
    try:
        ts_us = parse_timestamp_us(text)
    except ValueError:
        return False
    return bool(re.search(r"[-/:]", text)) or (bool(_NUMBER.fullmatch(text)) and ts_us > 10**15 and has_offset(text))


def _marks_of(text: str) -> str:
    """The marks in a text of a time, sorted: what tells the formats apart at no cost."""
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


def _is_label(texts: list[str]) -> bool:
    """Whether texts repeat, as those of a tag do, and are neither words for no value nor times of day."""
    if any(all(map(pattern.fullmatch, texts)) for pattern in (_NO_VALUE, _CLOCK_TIME)):
        return False
    distinct = set(texts)
    return max(map(len, distinct)) <= 100 and len(distinct) <= max(4, len(texts) // 2)
