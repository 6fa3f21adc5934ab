"""From the columns of a table to events, as a mapping says: a row has one event for each of its value columns.

Whatever a row holds besides is not looked at. A fault names its column as the file calls it. Where there are several
value columns an empty field is no event, and is counted; a single one must not be empty. An empty tag is no tag.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from statsapi.api.cures import without_separators
from statsapi.api.decoding.mapping import Chosen, name_event
from statsapi.api.decoding.rows import Fault, require_tags_within
from statsapi.api.decoding.timestamps import Mask
from statsapi.api.field_kinds import FiniteFloat
from statsapi.api.problems import ERRORS_NAMED_MAX
from statsapi.errors import ECHO_MAX, echo
from statsapi.model import TimestampsUs, Values
from statsapi.service.admission import Accepted

_FLOATS: Final = msgspec.json.Decoder(list[float])
_VALUE: Final = FiniteFloat()
_WITH_UNIT: Final = re.compile(r"([^\d\s.,+-]{1,8}\s*)?([+-]?\d+,\d+)(?(1)|\s*[^\d\s.,+-]\S{0,8})")
_LACKING: Final = "is not in this item"


class Table(NamedTuple):
    """The chosen columns of a file, as it writes them, all of the same length.

    columns: by their place. lines: the line at which each row begins, from 1. odd: rows that could not be read, which
    hold something all the same. lacks: whether a row has no such column at all, which in NDJSON is not the same as an
    empty one; it is asked for the few rows whose faults are named.
    """

    columns: dict[int, list[Any]]
    lines: Sequence[int]
    odd: dict[int, Fault]
    chosen: Chosen
    lacks: Callable[[int, str], bool] = lambda row, name: False


class Judged(NamedTuple):
    """Events, row by row, and within a row column by column: arrays of n = rows times value columns.

    names[codes[i]] is the series of event i, where it is good. `empty` of the others are no events at all.
    """

    names: list[str]
    codes: NDArray[np.uint32]
    ts_us: TimestampsUs
    values: Values
    good: Mask
    empty: int
    errors: list[dict[str, Any]]
    times: list[Any]


def judge(table: Table, accepted: Accepted) -> Judged:
    """0.15-0.3 µs an event; 10 µs for one that has to be looked at by itself. Names at most ERRORS_NAMED_MAX faults."""
    chosen = table.chosen
    mapping, clock = chosen.mapping, chosen.mapping.clock
    rows, wide = len(table.lines), len(chosen.values)
    times = _times(table)
    ts_us, good = clock.read_us(times)
    good = good & (ts_us >= accepted.first_us) & (ts_us <= accepted.last_us)
    odd = np.zeros(rows, np.bool_)
    odd[list(table.odd)] = True
    good &= ~odd
    values = np.empty((rows, wide), np.float64)
    empty = np.zeros((rows, wide), np.bool_)
    for column, at in enumerate(chosen.values):
        values[:, column], blank = _read_values(table.columns[at], mapping.decimal)
        if wide > 1 and blank is not None:
            empty[:, column] = blank & ~odd
    names, codes, unnamed = _name(table)
    finite = np.isfinite(values)
    taken = finite & good[:, None] & (codes >= 0)
    errors: list[dict[str, Any]] = []
    doubtful = ~((finite | empty).all(axis=1) & good & ~unnamed) & ~empty.all(axis=1)
    for row in np.flatnonzero(doubtful).tolist():
        if len(errors) >= ERRORS_NAMED_MAX:
            break
        for called, reason in _faults(table, row, times[row], accepted, empty[row], finite[row]):
            errors.append({"line": table.lines[row], "field": called, "reason": reason})
    del errors[ERRORS_NAMED_MAX:]
    flat = np.maximum(codes, 0).astype(np.uint32).ravel()
    if wide > 1:
        times = np.repeat(np.array(times, object), wide).tolist()
        ts_us = np.repeat(ts_us, wide)
    return Judged(names, flat, ts_us, values.ravel(), taken.ravel(), int(empty.sum()), errors, times)


def _times(table: Table) -> list[Any]:
    places = table.chosen.times
    if len(places) == 1:
        times = table.columns[places[0]]
        if bool in set(map(type, times)):  # among numbers numpy would take true for 1
            times = [None if isinstance(time, bool) else time for time in times]
        return times
    dates, times = (table.columns[at] for at in places)
    try:
        if " " not in "".join(dates) and _are_bare(times):
            return list(map(" ".join, zip(dates, times, strict=True)))
    except TypeError:  # NDJSON may have numbers there, which are no such texts
        pass
    return [
        "" if _is_blank(date) or _is_blank(time) else f"{str(date).strip()} {str(time).strip()}"
        for date, time in zip(dates, times, strict=True)
    ]


def _are_bare(times: list[str]) -> bool:
    """Whether it is beyond doubt that none is empty or blank, which behind a date would be midnight. 15 ns a text."""
    joined = "".join(times)
    return all(times) and joined.isascii() and not any(blank in joined for blank in " \t\v\f\r\n\x1c\x1d\x1e\x1f")


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _read_values(texts: list[Any], decimal: str | None) -> tuple[Values, Mask | None]:
    """What float() makes of each, NaN where nothing; and where a field is empty, bool[n], or None for nowhere."""
    numbers = _as_numbers(texts, decimal)
    if numbers is not None:
        return numbers, None
    found = np.fromiter((_number(text, decimal) for text in texts), np.float64, len(texts))
    blank = np.fromiter(map(_is_blank, texts), np.bool_)
    return found, blank


def _as_numbers(texts: list[Any], decimal: str | None) -> Values | None:
    """All at once, where all are written as JSON writes numbers: a third of float()'s time."""
    try:
        joined = "\n".join(texts)
    except TypeError:  # numbers already
        if not set(map(type, texts)) <= {int, float}:
            return None
        try:
            return np.fromiter(texts, np.float64, len(texts))
        except OverflowError:
            return None
    if "," in joined or decimal == ",":
        if decimal != "," or "." in joined:
            return None
        joined = joined.replace(",", ".")
    try:
        floats = _FLOATS.decode(f"[{joined.replace(chr(10), ',')}]")
    except ValueError:
        return None
    if len(floats) != len(texts):
        return None  # a quoted field holds a line end
    numbers = np.array(floats, np.float64)
    for row in np.flatnonzero(numbers == 0.0).tolist():  # JSON's -0 is an integer, without a sign
        numbers[row] = _number(texts[row], decimal)
    return numbers


def _number(value: Any, decimal: str | None) -> float:
    if isinstance(value, str):
        if decimal == ",":
            if "." in value:
                return float("nan")
            value = value.replace(",", ".")
    elif type(value) not in (int, float):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def _name(table: Table) -> tuple[list[str], NDArray[np.int64], Mask]:
    """The distinct series, the code of each event's, int64[rows, values] (-1: none), and the rows without one."""
    chosen = table.chosen
    rows, wide = len(table.lines), len(chosen.values)
    columns = [table.columns[at] for at in ((() if chosen.series is None else (chosen.series,)) + chosen.tags)]
    sets: list[tuple[Any, ...]] = [()]
    found = np.zeros(rows, np.uint32)
    if columns:
        code_of: defaultdict[Any, int] = defaultdict(itertools.count().__next__)
        # One key at a time: those of all rows would take 2 kB each, and the cyclic collector would look through them.
        keys: Iterable[Any]
        is_text = all(map(_all_text, columns))
        if is_text:
            keys = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        else:
            keys = map(_key, zip(*columns, strict=True))
        found = np.fromiter(map(code_of.__getitem__, keys), np.uint32, rows)
        if not is_text:
            sets = [tuple([value for _, value in key]) for key in code_of]
        else:
            sets = [(key,) for key in code_of] if len(columns) == 1 else list(code_of)
    within = 0 if chosen.series is None else sum(str(values[0]).count(";") for values in sets)
    require_tags_within((len(sets) * len(columns) + within) * wide)
    names: dict[str, int] = {}
    codes = np.full((len(sets), wide), -1, np.int64)
    for at, values in enumerate(sets):
        for column in range(wide):
            try:
                name = _name_of(chosen, values, column)
            except ValueError:
                continue
            codes[at, column] = names.setdefault(name, len(names))
    unnamed: Mask = np.any(codes < 0, axis=1)
    return list(names), codes[found], unnamed[found]


def _all_text(column: list[Any]) -> bool:
    return set(map(type, column)) <= {str}


def _key(values: tuple[Any, ...]) -> tuple[tuple[type, Any], ...]:
    """With their types: 1 and true are equal, and are not written alike."""
    return tuple([(type(value), value) for value in values])


def _name_of(chosen: Chosen, values: Sequence[Any], column: int) -> str:
    series = ""
    if chosen.series is not None:
        series, values = values[0], values[1:]
        if series is None:
            series = ""
        if isinstance(series, int) and not isinstance(series, bool):
            series = str(series)
        if not isinstance(series, str):
            raise ValueError("is not text")
    keys = [chosen.called[at] for at in chosen.tags]
    tags = {key: value for key, value in zip(keys, values, strict=True) if value not in ("", None)}
    value = chosen.called[chosen.values[column]].removeprefix("column " if not chosen.mapping.header else "")
    return name_event(chosen.mapping, value if len(chosen.values) > 1 else None, series, tags)


def _faults(table: Table, row: int, time: Any, accepted: Accepted, empty: Mask, finite: Mask) -> list[tuple[str, str]]:
    """What is wrong with a row, as (column, reason), in the order time, values, series."""
    if row in table.odd:
        return [(echo(table.odd[row].field), table.odd[row].reason)]
    chosen = table.chosen
    faults = []
    blank = [at for at in chosen.times if _is_blank(table.columns[at][row])]
    if blank and (len(chosen.times) > 1 or table.columns[blank[0]][row] is None):
        faults += [(chosen.called[at], _why_no_time(table, row, at)) for at in blank]
    else:
        called = " and ".join(chosen.called[at] for at in chosen.times)
        try:
            refusal = accepted.why_not(chosen.mapping.clock.read_one_us(time))
        except ValueError as error:
            refusal = str(error)
        if refusal is not None:
            faults.append((called, refusal))
    for column, at in enumerate(chosen.values):
        if not finite[column] and not empty[column]:
            value = table.columns[at][row]
            lacking = value is None and table.lacks(row, chosen.called[at])
            faults.append((chosen.called[at], _LACKING if lacking else _why_no_value(value, chosen.mapping.decimal)))
    columns = (() if chosen.series is None else (chosen.series,)) + chosen.tags
    try:
        for column in range(len(chosen.values)):
            _name_of(chosen, [table.columns[at][row] for at in columns], column)
    except ValueError as error:
        faults.append((", ".join(chosen.called[at] for at in columns) or "series", str(error)))
    return [(echo(where), reason) for where, reason in faults]


def _why_no_time(table: Table, row: int, at: int) -> str:
    """What is wrong with a date, a time of day, or both in one, that is not there."""
    if table.columns[at][row] is None:
        return _LACKING if table.lacks(row, table.chosen.called[at]) else "is null: give a time, or leave the event out"
    what = "a time" if len(table.chosen.times) == 1 else ("a date", "a time of day")[table.chosen.times.index(at)]
    return f"is empty: give {what}, or leave the event out"


def _why_no_value(value: Any, decimal: str | None) -> str:
    if decimal == "," and isinstance(value, str):
        if "." in value:
            plain = without_separators(value.strip()) if len(value) <= ECHO_MAX else None
            cure = f"write {plain.replace('.', ',')}" if plain else "write it with a comma alone"
            return f"is {echo(value)!r}, which holds a point, but decimal=, was asked for: {cure}"
        if unit := _WITH_UNIT.fullmatch(value.strip()[:ECHO_MAX]):
            return f"is {echo(value)!r}, which carries a unit or sign: write {unit[2]} alone"
        if "," in value:
            if np.isinf(_number(value, decimal)):
                value = value.replace(",", ".")
            else:
                plain = without_separators(value.strip().replace(",", ".")) if len(value) <= ECHO_MAX else None
                if plain:
                    return (
                        f"is {echo(value)!r}, which has separators between its digits: write {plain.replace('.', ',')}"
                    )
                return f"is {echo(value)!r}, which is no number such as 42,5"
    try:
        _VALUE.deserialize(value)
    except ValidationError as error:
        return str(error.messages[0] if isinstance(error.messages, list) else error.messages)
    return "is no number such as 42.5"
