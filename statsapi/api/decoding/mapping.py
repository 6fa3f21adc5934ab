"""Which columns of a table make the events, and how they are written: what the query of `POST /events` says.

    ?timestamp=time&value=cpu,mem&tags=host&timezone=Europe/Berlin

`ColumnMapping` is the value that readers of CSV and NDJSON follow, that a refusal proposes, and that any other way in
(a command line) would make. It knows no bytes: `choose` finds its columns among the names that a table has.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

from marshmallow import ValidationError

from statsapi.api.decoding.local_times import Clock
from statsapi.api.decoding.time_formats import FormatRefused, check_format
from statsapi.api.decoding.time_zones import Fold, ZoneRefused, find_zone
from statsapi.errors import echo
from statsapi.model import DEFAULT_SERIES
from statsapi.naming.names import canonical_key, canonical_name, fold_tags, split_name

# The parameters, in the order in which a query is written: first those that name columns, then how a text is read.
COLUMN_PARAMETERS: Final = ("timestamp", "date", "time", "value", "series", "tags", "into")
READING_PARAMETERS: Final = (
    "delimiter",
    "decimal",
    "time_format",
    "timezone",
    "fold",
    "skip",
    "header",
)
PARAMETERS: Final = COLUMN_PARAMETERS + READING_PARAMETERS

VALUES_MAX: Final = 100
TAGS_MAX: Final = 20

_DELIMITERS: Final = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}

# Names that stand in quotes where several are listed: with what ends a name, or a blank or nothing where it begins.
_QUOTED: Final = re.compile(r'[,"\r\n]|^\s|^$')

# A column of one of these names is the time, where nobody says which is.
TIME_NAMES: Final = frozenset(("time", "date", "datetime", "ts", "timestamp"))


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Names of columns, as the table's first line has them; their numbers from 1 as text where it has none.

    timestamp, or date and time: None means the column `timestamp`, or the only one with a usual name.
    values: none means the column `value`, or the only other one.
    series: a column. into: a series. With several values a series is named by its column, behind a point where there is
    a series too: cpu, or web.cpu.
    decimal: None is a point that nobody asked for.
    """

    timestamp: str | None = None
    date: str | None = None
    time: str | None = None
    values: tuple[str, ...] = ()
    series: str | None = None
    tags: tuple[str, ...] = ()
    into: str | None = None
    delimiter: str = ","
    decimal: str | None = None
    clock: Clock = field(default_factory=Clock)
    skip: int = 0
    header: bool = True

    @classmethod
    def of_parameters(cls, given: Mapping[str, Any]) -> ColumnMapping | None:
        """From texts by the names of PARAMETERS (skip: int, header: bool); None where all are as without it.

        ValidationError names each parameter at fault.
        """
        said = {name: given[name] for name in PARAMETERS if given.get(name) is not None}
        if not said:
            return None
        faults: dict[str, list[str]] = {}
        values = _names(said, "value", VALUES_MAX, faults)
        tags = _names(said, "tags", TAGS_MAX, faults)
        _check_columns(said, values, tags, faults)
        delimiter = _DELIMITERS.get(said.get("delimiter", ","), said.get("delimiter", ","))
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter.isalnum() or delimiter in '"+-._\r\n\0':
            faults["delimiter"] = ["must be one character such as ; or | (in a URL %3B, %7C), tab, or space"]
        if said.get("decimal", ".") not in (".", ","):
            faults["decimal"] = ["must be . or ,"]
        clock = _clock(said, faults)
        if faults:
            raise ValidationError(cast(dict[str, Any], faults))
        mapping = cls(
            said.get("timestamp"),
            said.get("date"),
            said.get("time"),
            values,
            said.get("series"),
            tags,
            said.get("into"),
            delimiter,
            said.get("decimal"),
            clock,
            said.get("skip", 0),
            said.get("header", True),
        )
        return mapping if mapping.given() else None

    @property
    def names_columns(self) -> bool:
        """Whether it says which columns are meant, so that all others are ignored."""
        return bool(
            self.values or self.tags or {self.timestamp, self.date, self.time, self.series, self.into} != {None}
        )

    def given(self) -> dict[str, str]:
        """The parameters that differ from what holds without them, as text."""
        said = {
            "timestamp": self.timestamp,
            "date": self.date,
            "time": self.time,
            "value": _line(self.values) if self.values else None,
            "series": self.series,
            "tags": _line(self.tags) if self.tags else None,
            "into": self.into,
            "delimiter": {",": None, "\t": "tab", " ": "space"}.get(self.delimiter, self.delimiter),
            "decimal": self.decimal,
            "time_format": self.clock.time_format,
            "timezone": self.clock.zone_name,
            "fold": self.clock.fold,
            "skip": str(self.skip) if self.skip else None,
            "header": None if self.header else "false",
        }
        return {name: value for name, value in said.items() if value is not None}

    def query(self) -> str:
        """The same as a URL has it, without a ? before."""
        return "&".join(f"{name}={quote(value, safe=':,./')}" for name, value in self.given().items())


class Chosen(NamedTuple):
    """The columns of a mapping, as places in a table's rows, from 0; and how a person calls each of them.

    times: one, or the date's and the time's.
    """

    times: tuple[int, ...]
    values: tuple[int, ...]
    series: int | None
    tags: tuple[int, ...]
    called: Sequence[str]
    mapping: ColumnMapping

    @property
    def places(self) -> list[int]:
        """All of them, each once."""
        series = () if self.series is None else (self.series,)
        return sorted({*self.times, *self.values, *series, *self.tags})


def choose(mapping: ColumnMapping, names: Sequence[str]) -> Chosen:
    """Where the mapping's columns stand among those names. ValidationError names the parameter at fault."""
    places = _Places(mapping, names)
    times = places.of_times()
    values = places.values(() if places.faults else [names[at] for at in times])
    series = mapping.series
    if not mapping.names_columns and "series" in names:
        series = "series"
    chosen = Chosen(
        times,
        tuple(places.of("value", name) for name in values),
        None if series is None else places.of("series", series),
        tuple(places.of("tags", name) for name in mapping.tags),
        names if mapping.header else [f"column {name}" for name in names],
        mapping,
    )
    faults = places.faults
    if not mapping.names_columns and mapping.header and not faults:
        known = {names[at] for at in chosen.places}
        if unknown := [name for name in names if name not in known]:
            faults["value"] = [
                f"is missing: name the columns that hold values; then {_listed(unknown, 'the others')} are ignored"
            ]
    if not faults and (twice := set(chosen.times) & set(chosen.values)):
        faults["value"] = [f"names {echo(names[min(twice)])!r}, which is the time"]
    if not faults and len(values) > 1:
        _check_names_of(values, mapping, faults)
    if faults:
        raise ValidationError(cast(dict[str, Any], faults))
    return chosen


class _Places:
    """Looks the columns of a mapping up. faults: by parameter, those that are not there or not given."""

    def __init__(self, mapping: ColumnMapping, names: Sequence[str]) -> None:
        self._mapping = mapping
        self._names = names
        self.faults: dict[str, list[str]] = {}

    def of(self, parameter: str, name: str) -> int:
        """Where that column stands; 0, and a fault, where there is not one of that name."""
        names = self._names
        found = [at for at, known in enumerate(names) if known == name]
        if len(found) == 1:
            return found[0]
        if not self._mapping.header:
            fault = f"is {echo(name)!r}: with header=false a column is a number from 1 to {len(names)}"
        elif found:
            at = " and ".join(str(at + 1) for at in found[:5])
            fault = (
                f"names {echo(name)!r}, which columns {at} are called: give numbers with header=false and "
                f"skip={self._mapping.skip + 1}"
            )
        else:
            fault = f"names {echo(name)!r}, which is no column here: {_listed(names)}"
        self.faults.setdefault(parameter, []).append(fault)
        return 0

    def of_times(self) -> tuple[int, ...]:
        """Of the time, or of date and time."""
        mapping = self._mapping
        if mapping.date is not None and mapping.time is not None:
            return self.of("date", mapping.date), self.of("time", mapping.time)
        time = mapping.timestamp
        if time is None and mapping.header:
            usual = [name for name in self._names if name.lower() in TIME_NAMES]
            time = "timestamp" if "timestamp" in usual else usual[0] if len(usual) == 1 else None
        if time is None:
            self.faults["timestamp"] = [f"is missing: name the column that holds the time; {_listed(self._names)}"]
            return (0,)
        return (self.of("timestamp", time),)

    def values(self, times: Iterable[str]) -> tuple[str, ...]:
        """The columns of values, by name: those that are given, or the only one that is nothing else."""
        mapping = self._mapping
        values = mapping.values
        if not values and mapping.header:
            taken = {*times, mapping.series, *mapping.tags}
            others = [name for name in self._names if name not in taken]
            values = ("value",) if "value" in others else tuple(others) if len(others) == 1 else ()
        if not values and not self.faults:
            self.faults["value"] = [
                f"is missing: name the columns that hold values, with commas between; {_listed(self._names)}"
            ]
        return values


def name_event(mapping: ColumnMapping, value: str | None, series: str, tags: Mapping[str, Any]) -> str:
    """The series of an event: `value` is the name of its column where there are several of them, `series` what its
    row says, empty for nothing. ValueError says what is wrong with the name.
    """
    name = series or mapping.into or ("" if value is not None else DEFAULT_SERIES)
    if value is not None:
        if name:
            base, own = split_name(canonical_name(name))
            name = fold_tags(f"{base}.{value}", own)
        else:
            name = value
    return fold_tags(name, tags) if tags else canonical_name(name)


def _names(said: Mapping[str, Any], parameter: str, most: int, faults: dict[str, list[str]]) -> tuple[str, ...]:
    """A list in one parameter is a line of CSV, so that a name may hold a comma: "in, out",total."""
    if parameter not in said:
        return ()
    try:
        found = next(csv.reader(io.StringIO(str(said[parameter])), strict=True, skipinitialspace=True), [""])
    except csv.Error:
        found = []
        faults[parameter] = ['has a quote (") that is not closed: names with a comma stand in quotes, "a, b",c']
    if len(found) > most:
        faults[parameter] = [f"takes at most {most} columns, not {len(found)}"]
    elif len(set(found)) < len(found):
        faults[parameter] = ["names a column twice"]
    return tuple(found)


def _line(names: Sequence[str]) -> str:
    return ",".join('"' + name.replace('"', '""') + '"' if _QUOTED.search(name) else name for name in names)


def _check_columns(
    said: Mapping[str, Any], values: tuple[str, ...], tags: tuple[str, ...], faults: dict[str, list[str]]
) -> None:
    apart = [name for name in ("date", "time") if name in said]
    if apart and "timestamp" in said:
        faults[apart[0]] = ["cannot be combined with timestamp: give one column, or date and time"]
    elif len(apart) == 1:
        missing = "time" if apart == ["date"] else "date"
        faults[apart[0]] = [f"needs {missing}= beside it; a column that holds both is timestamp="]
    if "series" in said and "into" in said:
        faults["into"] = ["cannot be combined with series: the name is a column's, or this one"]
    if "into" in said:
        try:
            canonical_name(said["into"])
        except ValueError as error:
            faults["into"] = [str(error)]
    for name in tags:
        if said.get("header", True):
            try:
                canonical_key(name)
            except ValueError as error:
                faults["tags"] = [f"names {echo(name)!r}, which cannot be a tag: it {error}"]
    if not said.get("header", True):
        if tags:
            faults["tags"] = [
                "needs names, and with header=false columns have none: put a line of names before the rows"
            ]
        for name in ("timestamp", "value"):
            if name not in said and not (name == "timestamp" and apart):
                faults.setdefault(name, ["is missing: with header=false give the column's number, from 1"])
        if len(values) > 1 and not {"into", "series"} & set(said):
            faults.setdefault("value", [f"names {len(values)} columns without names: add into=NAME, for series NAME.2"])


def _clock(said: Mapping[str, Any], faults: dict[str, list[str]]) -> Clock:
    zone = None
    time_format, zone_name, fold = said.get("time_format"), said.get("timezone"), said.get("fold")
    if time_format is not None:
        try:
            check_format(time_format)
        except FormatRefused as error:
            faults["time_format"] = [str(error)]
    if zone_name is not None:
        try:
            zone = find_zone(zone_name)
        except ZoneRefused as error:
            faults["timezone"] = [str(error)]
    if fold not in (None, "earlier", "later"):
        faults["fold"] = ["must be earlier or later"]
    elif fold is not None and zone_name is None:
        faults["fold"] = ["needs a timezone, whose changes of clock it is about"]
    return Clock(time_format, zone, zone_name, cast(Fold | None, fold))


def _check_names_of(values: Sequence[str], mapping: ColumnMapping, faults: dict[str, list[str]]) -> None:
    for value in values:
        try:
            name_event(mapping, value, "", {})
        except ValueError as error:
            faults["value"] = [f"names {echo(value)!r}, which cannot be a series: it {error}"]


def _listed(names: Sequence[str], what: str = "there are") -> str:
    some = ", ".join(echo(name) or "one without a name" for name in names[:10])
    return f"{what} {some}{', …' if len(names) > 10 else ''}"
