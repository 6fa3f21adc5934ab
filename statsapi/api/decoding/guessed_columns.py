"""Which columns of a table hold times, values and labels, for guesses: from the names and cells of its first rows.

What a person named stays what it was named for. A column of values is never taken as a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from statsapi.api.decoding.cells import (
    CLOCK_TIME,
    NO_VALUE,
    NUMBER,
    ONE_GROUP,
    are_labels,
    has_decimal_comma,
    is_number,
    is_quantity,
)
from statsapi.api.decoding.local_times import Clock
from statsapi.api.decoding.mapping import COLUMN_PARAMETERS, TAGS_MAX, TIME_NAMES, ColumnMapping
from statsapi.api.decoding.table_head import Head

_VALUES_SHOWN: Final = 20

_HOUR: Final = re.compile(r"\s*(?:[01]?\d|2[0-4])\s*", re.ASCII)
_CLOCK_DIGITS: Final = re.compile(r"\s*\d{4}(?:\d\d)?\s*", re.ASCII)

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


class Guess(NamedTuple):
    """A mapping that may be meant. mend: whether cells of its values have to be mended before they are numbers.
    left_out: why a column that has numbers too is not among its values.
    """

    mapping: ColumnMapping
    mend: bool
    left_out: str | None


class _Numeric(NamedTuple):
    """The columns with numbers, for one decimal sign. numbers: each cell is a number, empty, or a word for no value.
    mixed: half of the cells or more are numbers, some perhaps with units or separators.
    """

    numbers: list[int]
    mixed: list[int]


def guess_mappings(head: Head) -> Iterator[Guess]:
    """The mappings that may be meant, the likely ones first. Raises EnoughRead."""
    names, asked = head.names, head.start
    columns = {at: head.column(at) for at in range(len(names))}
    usable = [at for at in columns if columns[at] and names.count(names[at]) == 1]
    values_asked, named = head.where(asked.values), head.where((asked.series, *asked.tags))
    free = [at for at in usable if at not in values_asked and at not in named]
    pair = _date_and_time(head, columns, free)
    pointed = False
    for decimal in (".", ",") if asked.decimal is None else (asked.decimal,):
        found = _numeric(columns, sorted({*free, *values_asked}), decimal)
        if decimal == "," and (
            pointed or not any("," in text for at in found.numbers or found.mixed for text in columns[at])
        ):
            continue
        for places, clocks in [pair] if pair else _time_columns(head, columns, free, found.numbers):
            if len(places) == 1 and _is_date_alone(head, columns, free, places[0]):
                continue
            values = _without_series(head, [at for at in found.numbers if at not in places])
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
            left_out = head.why_left_out(left[0], decimal) if left else None
            texts = [at for at in free if at not in {*places, *values, *mixed} and _may_be_label(head, at, columns[at])]
            pointed = pointed or (decimal == "." and any("." in text for at in values for text in columns[at]))
            for clock in clocks:
                said = asked.decimal or ("," if decimal == "," else None)
                mapping = _mapping(head, places, some, texts, replace(asked, decimal=said, clock=clock))
                if asked.decimal is None and ambiguous_number(head, mapping):
                    mapping = replace(mapping, decimal=decimal)
                yield Guess(mapping, mend, left_out)


def ambiguous_number(head: Head, mapping: ColumnMapping) -> str | None:
    """A number with two readings, thousands or three decimals, where nobody said which and no other number shows it."""
    if head.start.decimal is not None:
        return None
    mark = mapping.decimal or "."
    places = [at for at in head.where(mapping.values) if at not in head.floats]
    marked = [text.strip() for at in places for text in head.column(at) if mark in text]
    if marked and all(map(ONE_GROUP.fullmatch, marked)) and (mark == "," or _may_group_by_points(mapping)):
        return marked[0]
    return None


def split_number(head: Head, mapping: ColumnMapping) -> tuple[str, str] | None:
    """Two fields that may be one number with a decimal comma: integers side by side in each row, and no header to count
    the columns.
    """
    if mapping.header or mapping.delimiter != "," or head.start.values:
        return None
    places = head.where(mapping.values)
    for at in places:
        if at + 1 in places and all(re.fullmatch(r"[+-]?\d+\|\d+", f"{row[at]}|{row[at + 1]}") for row in head.rows):
            return head.rows[0][at], head.rows[0][at + 1]
    return None


def _may_group_by_points(mapping: ColumnMapping) -> bool:
    """Whether a point may separate thousands. Not where commas separate columns, unless dates are as in German."""
    return mapping.delimiter != "," or "%d.%m" in (mapping.clock.time_format or "")


def _without_series(head: Head, numbers: list[int]) -> list[int]:
    """The columns of numbers that hold values: numbers may also name series. In a column that is called `series` they
    always do, as the name would be lost otherwise; in `sensor` or `metric` where another column has values.
    """
    if not head.start.header or head.start.series or head.start.into:
        return numbers
    values = [at for at in numbers if head.names[at].lower() not in _SERIES_WORDS]
    asked = head.where(head.start.values)
    return [at for at in numbers if at in values or at in asked or not (values or head.names[at] == "series")]


def _may_be_label(head: Head, at: int, texts: list[str]) -> bool:
    if head.names[at].lower() in _SERIES_WORDS:
        return True
    return are_labels(texts) and not head.reader.is_time(texts[0])


def _numeric(columns: dict[int, list[str]], usable: list[int], decimal: str) -> _Numeric:
    numbers, mixed = [], []
    for at in usable:
        told = [text for text in columns[at] if not NO_VALUE.fullmatch(text)]
        plain = sum(is_number(text, decimal) for text in told)
        if told and plain == len(told):
            numbers.append(at)
        elif told and 2 * (plain + sum(not is_number(text, decimal) and is_quantity(text) for text in told)) >= len(
            told
        ):
            mixed.append(at)
    return _Numeric(numbers, mixed)


def _is_decimal_of(columns: dict[int, list[str]], places: list[int], decimal: str, asked: str | None) -> bool:
    """Whether that is the decimal sign of the numbers in cells that have to be mended. It is no point where a comma as
    the sign makes all cells of a column numbers: those need no mending.
    """
    if asked is not None:
        return True
    if decimal == "." and any(at in places for at in _numeric(columns, places, ",").numbers):
        return False
    with_comma = has_decimal_comma(text for at in places for text in columns[at])
    return with_comma == (decimal == ",")


def _is_date_alone(head: Head, columns: dict[int, list[str]], free: list[int], at: int) -> bool:
    """Whether a column holds dates without a time of day, and another seems to hold that: all would be at midnight."""
    if not any(
        head.names[other].lower() in _CLOCK_WORDS or all(map(CLOCK_TIME.fullmatch, columns[other]))
        for other in free
        if other != at
    ):
        return False
    return not any(map(NUMBER.fullmatch, columns[at])) and bool(
        head.reader.clocks(head.start.clock, columns[at], dates_only=True)
    )


def _mapping(
    head: Head, places: tuple[int, ...], values: list[int], texts: list[int], start: ColumnMapping
) -> ColumnMapping:
    """What was asked for, with these columns: of the time (or date and time), of values, and of labels."""
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
    head: Head, columns: dict[int, list[str]], free: list[int]
) -> tuple[tuple[int, ...], list[Clock]] | None:
    """The one column of dates and the one of times of day, and how to read both together; None where there are none."""
    asked = head.start
    if asked.timestamp is not None:
        return None
    times = head.where((asked.time,)) or [at for at in free if all(map(CLOCK_TIME.fullmatch, columns[at]))]
    for words, pattern in ((_HOUR_WORDS, _HOUR), (_CLOCK_WORDS, _CLOCK_DIGITS)):
        times = times or [
            at for at in free if head.names[at].lower() in words and all(map(pattern.fullmatch, columns[at]))
        ]
    if not times:
        return None
    dates = head.where((asked.date,)) or [
        at for at in free if at not in times and head.reader.clocks(asked.clock, columns[at], dates_only=True)
    ]
    if len(times) > 1:
        times = [at for at in times if head.names[at].lower() in _CLOCK_WORDS]
    if len(dates) > 1:
        dates = [at for at in dates if head.names[at].lower() in _DATE_WORDS]
    if len(times) != 1 or len(dates) != 1 or times == dates:
        return None
    halves = [(row[dates[0]].strip(), row[times[0]].strip()) for row in head.rows]
    joined = [" ".join(half) for half in halves if all(half)]
    clocks = head.reader.clocks(asked.clock, joined) if joined else []
    return ((dates[0], times[0]), clocks) if clocks else None


def _time_columns(
    head: Head, columns: dict[int, list[str]], usable: list[int], numbers: Sequence[int]
) -> list[tuple[tuple[int, ...], list[Clock]]]:
    """Each column that may hold the time, and how to read it; where one of them has a usual name, it alone."""
    found: list[tuple[tuple[int, ...], list[Clock]]] = []
    if head.start.date is not None and head.start.time is not None:
        return []
    asked = head.where((head.start.timestamp,))
    for at in (at for at in asked or usable if columns[at]):
        if at in numbers and not asked:
            named = head.names[at].lower() in _TIME_WORDS or (
                not head.start.header and all(map(head.reader.is_plain_time, columns[at]))
            )
            if not named:
                continue
        if clocks := head.reader.clocks(head.start.clock, columns[at]):
            found.append(((at,), clocks))
    for words in (("timestamp",), _TIME_WORDS):
        named_so = [way for way in found if head.names[way[0][0]].lower() in words]
        if len(named_so) == 1:
            return named_so
    return found
