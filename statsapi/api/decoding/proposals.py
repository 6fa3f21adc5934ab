"""The mapping that would take a file, found in its first lines: for a refusal to show, and nothing else.

A proposal is tried on those lines before it is shown, so one that is followed to the letter works. Where a file has two
readings (11/12/2026, two columns of times) both are proposed. Only one kind of file is read without being asked, as
nothing else can be meant: a time under a usual name and one other column, of numbers (`understand`).
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
_CLOCK_TIME: Final = re.compile(r"\s*\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s*[AaPp][Mm])?\s*", re.ASCII)

_TIME_WORDS: Final = {
    *TIME_NAMES,
    *("date_time", "time_stamp", "timestamps", "timestamp_utc", "@timestamp", "_time", "unixtime", "unix_time"),
    *("epoch", "created", "created_at", "when", "at", "zeit", "zeitpunkt", "zeitstempel", "datum", "fecha", "heure"),
}
_DATE_WORDS: Final = ("date", "day", "datum", "tag", "fecha", "jour")
_CLOCK_WORDS: Final = ("time", "clock", "uhrzeit", "zeit", "hora", "heure", "hour")
_SERIES_WORDS: Final = ("series", "name", "metric", "sensor")
_NO_VALUES: Final = ("", "id", "index", "unnamed: 0", "row", "nr", "no")

# Forms of a date, and what may stand behind it. The first pairs are read from day to year, the second from month.
_DATES: Final = [
    f"{first}{mark}{second}{mark}{year}"
    for first, second in (("%d", "%m"), ("%m", "%d"))
    for mark in "./-"
    for year in ("%Y", "%y")
] + ["%Y.%m.%d", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%b %d %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y"]
_CLOCKS: Final = (
    "",
    "%H:%M",
    "%H:%M:%S",
    "%H:%M:%S.%f",
    "%H:%M:%S,%f",
    "%I:%M %p",
    "%I:%M:%S %p",
    "%H:%M:%S %z",
    "%H:%M %z",
)


class Proposal(NamedTuple):
    """A query, and whether it would read times as UTC that may be local ones."""

    query: str
    as_utc: bool


class _Head(NamedTuple):
    """The first rows of a table: `names` of its columns (numbers where it has none) and a few rows of their width.

    lines: how many lines they are, with those before them.
    """

    names: list[str]
    rows: list[list[str]]
    start: ColumnMapping
    lines: int
    looks: _Looks

    def column(self, at: int) -> list[str]:
        return [row[at] for row in self.rows if row[at].strip()]


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


def propose(
    body: bytes,
    is_csv: bool,
    asked: ColumnMapping | None,
    try_on: Callable[[bytes, ColumnMapping | None], bool],
) -> list[Proposal]:
    """Queries that take the body as it is, at most three, which differ where it has several readings.

    try_on: whether a body is read by a mapping, or without one, and has no fault. What was `asked` for is kept where it
    names no columns.
    """
    head = body[:_HEAD_BYTES].removeprefix(BYTE_ORDER_MARK)
    if len(body) > _HEAD_BYTES:
        head = head[: head.rfind(b"\n") + 1]
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return []
    if _fits_mapping(try_on, head, asked):  # it was refused for something else
        return []
    asked = asked or ColumnMapping()
    looks = _Looks()
    heads = _csv_heads(text, asked, looks) if is_csv else _ndjson_heads(text, asked, looks)
    shown: list[Proposal] = []
    tried: set[str] = set()
    with suppress(_Tired):
        for found in heads:
            sample = b"".join(head.splitlines(keepends=True)[: found.lines])
            for mapping in _mappings(found):
                query = mapping.query()
                if len(query) > _QUERY_MAX or query in tried or not query or mapping == asked:
                    continue
                tried.add(query)
                if len(tried) > _TRIED_MAX:
                    raise _Tired
                fits = _fits_mapping(try_on, sample, mapping)
                if not fits and (mapping.tags or mapping.series):  # their texts may be no names
                    mapping = replace(mapping, tags=(), series=None)
                    fits = _fits_mapping(try_on, sample, mapping)
                if fits:
                    shown.append(Proposal(mapping.query(), _are_naive(found, mapping)))
            if shown:
                break
    return shown[:_PROPOSALS_MAX]


def _fits_mapping(
    try_on: Callable[[bytes, ColumnMapping | None], bool], sample: bytes, mapping: ColumnMapping | None
) -> bool:
    try:
        return try_on(sample, mapping)
    except (ValidationError, HTTPException):
        return False


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
            rows, used = _rows(text, delimiter, skip, _HEAD_ROWS)
            widths = {len(row) for row in rows}
            if len(widths) == 1 and 1 < len(rows[0]) <= _COLUMNS_MAX and not rows[0][0].startswith(("#", "sep=")):
                seen.append((skip, delimiter, rows, used))
                break
            if skip >= len(lines):
                break
    for skip, delimiter, rows, used in sorted(seen, key=lambda way: way[0]):
        start = replace(asked, delimiter=delimiter, skip=skip)
        names = [name.strip() for name in rows[0]]
        if not asked.header or any(_NUMBER.fullmatch(name) or looks.is_time(name) for name in names):
            numbers = [str(at) for at in range(1, len(names) + 1)]
            yield _Head(numbers, rows, replace(start, header=False), used, looks)
        elif len(rows) > 1:
            yield _Head(names, rows[1:], start, used, looks)


def _holds_time(line: str, delimiter: str, looks: _Looks) -> bool:
    return any(looks.is_time(field) for field in line.split(delimiter)[:_COLUMNS_MAX] if field.strip())


def _rows(text: str, delimiter: str, skip: int, most: int) -> tuple[list[list[str]], int]:
    """The first that are not blank, and at which line they end; none where the csv module cannot read them."""
    reader = csv.reader(text.splitlines(keepends=True)[skip:], strict=True, delimiter=delimiter)
    rows: list[list[str]] = []
    used = 0
    try:
        for row in reader:
            used = reader.line_num
            if row and (len(row) > 1 or row[0].strip()):
                rows.append(row)
                if len(rows) == most:
                    break
    except csv.Error:
        return [], skip
    return rows, skip + used


def _ndjson_heads(text: str, asked: ColumnMapping, looks: _Looks) -> Iterator[_Head]:
    items = []
    for line in itertools.islice(filter(str.strip, text.splitlines()), _HEAD_ROWS):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(item, dict):
            return
        items.append(item)
    if not items:
        return
    found = dict.fromkeys(name for item in items for name in item)
    if len(found) <= _COLUMNS_MAX:
        names = [name for name in found if not any(isinstance(item.get(name), (dict, list)) for item in items)]
        rows = [[_as_text(item.get(name)) for name in names] for item in items]
        yield _Head(names, rows, asked, len(text), looks)  # all lines: blank ones are few


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


# -- what the columns are ------------------------------------------------------------------------------------------


def _mappings(head: _Head) -> Iterator[ColumnMapping]:
    names, start = head.names, head.start
    columns = {at: head.column(at) for at in range(len(names))}
    usable = [at for at in columns if columns[at] and names.count(names[at]) == 1]
    pair = _date_and_time(head, columns, usable)
    for decimal in (".", ",") if start.decimal == "." else (",",):
        pattern = _NUMBER if decimal == "." else _NUMBER_WITH_COMMA
        numbers = [at for at in usable if all(map(pattern.fullmatch, columns[at]))]
        if decimal == "," and not any("," in text for at in numbers for text in columns[at]):
            continue
        for places, clocks in [pair] if pair else _time_columns(head, columns, usable, numbers):
            values = [at for at in numbers if at not in places]
            some = [at for at in values if names[at].lower() not in _NO_VALUES] or values
            if "value" in {names[at] for at in some}:
                some = [at for at in some if names[at] == "value"]
            texts = [at for at in usable if at not in places and at not in values and _is_label(columns[at])]
            if not some:
                continue
            for clock in clocks:
                yield _mapping(head, places, some, texts, replace(start, decimal=decimal, clock=clock))


def _mapping(
    head: _Head, places: tuple[int, ...], values: list[int], texts: list[int], start: ColumnMapping
) -> ColumnMapping:
    names = [head.names[at] for at in places]
    said: dict[str, Any] = dict.fromkeys(COLUMN_PARAMETERS)
    del said["value"]
    said |= {"timestamp": names[0]} if len(names) == 1 else {"date": names[0], "time": names[1]}
    said["tags"] = ()
    if start.header:
        called = [at for at in texts if head.names[at].lower() in _SERIES_WORDS]
        said["series"] = head.names[called[0]] if called else None
        said["tags"] = tuple(head.names[at] for at in texts if at not in called[:1])[:TAGS_MAX]
    elif len(values) > 1:
        said["into"] = "column"
    if start.into is not None and said["series"] is None:
        said["into"] = start.into
    return replace(start, values=tuple(head.names[at] for at in values[:_VALUES_SHOWN]), **said)


def _date_and_time(
    head: _Head, columns: dict[int, list[str]], usable: list[int]
) -> tuple[tuple[int, ...], list[Clock]] | None:
    """A column of dates and one of times of day."""
    times = [at for at in usable if all(map(_CLOCK_TIME.fullmatch, columns[at]))]
    if not times:
        return None
    dates = [at for at in usable if at not in times and _clocks(head, columns[at], alone=True)]
    if len(times) > 1:
        times = [at for at in times if head.names[at].lower() in _CLOCK_WORDS]
    if len(dates) > 1:
        dates = [at for at in dates if head.names[at].lower() in _DATE_WORDS]
    if len(times) != 1 or len(dates) != 1:
        return None
    joined = [f"{row[dates[0]].strip()} {row[times[0]].strip()}" for row in head.rows if row[dates[0]].strip()]
    clocks = _clocks(head, joined)
    return ((dates[0], times[0]), clocks) if clocks else None


def _time_columns(
    head: _Head, columns: dict[int, list[str]], usable: list[int], numbers: Sequence[int]
) -> list[tuple[tuple[int, ...], list[Clock]]]:
    """Each column that may hold the time; the one with a usual name alone, where there is one."""
    found: list[tuple[tuple[int, ...], list[Clock]]] = []
    for at in usable:
        if at in numbers:
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
    """Whether texts repeat, as those of a tag do."""
    distinct = set(texts)
    return max(map(len, distinct)) <= 100 and len(distinct) <= max(4, len(texts) // 2)
