"""How `statsapi import` reads the columns of a file: by its options, and for the rest by the service's proposal.

The service parses the files. It refuses a file that it cannot read, and proposes the columns and forms with which it
can. This module guesses nothing itself. The options are parameters of POST /events, and the service's messages about
those are shown in terms of the options.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import click

_ADVICE: Final = re.compile(r"\((its times [^)]*)\)")
_PROPOSED: Final = re.compile(r"as it is, this goes to POST ('/events\?[^']*'(?: or '/events\?[^']*')*)")
_SHOWN: Final = re.compile(r"to POST ('/events\?[^']*'(?: or '/events\?[^']*')*)")
_QUERY: Final = re.compile(r"'/events\?([^']*)'")
_GROUPED: Final = re.compile(
    r"\((\S+) is read as (\S+) then, with three decimals; where (\S+) is meant, (take [^)]*) first\)"
)
_EXPANDED: Final = re.compile(r'["$`!\\]')  # within double quotes
_PARAMETER: Final = re.compile(
    r"[?&]?\b(timestamp|date|time|value|series|tags|into|delimiter|decimal|time_format|timezone|fold|skip|header)=(?=\S)"
)

# The parameters of a proposal that a given option replaces.
_INSTEAD_OF: Final = {
    "timestamp": ("date", "time"),
    "date": ("timestamp",),
    "time": ("timestamp",),
    "series": ("into",),
    "into": ("series",),
}

_MAPPING: Final = (
    ("timestamp", "COLUMN", "Read times from this column."),
    ("date", "COLUMN", "Read dates from this column; needs --time."),
    ("time", "COLUMN", "Read times of day from this column; needs --date."),
    ("value", "COLUMN,…", "Read values from these columns; each of several makes a series."),
    ("series", "COLUMN", "Read the names of series from this column."),
    ("tags", "COLUMN,…", "Make tags of these columns."),
    ("into", "NAME", "Record into this series."),
    ("delimiter", "SIGN", "Columns are separated by this."),
    ("decimal", "SIGN", "Numbers have this decimal sign."),
    ("time_format", "FORMAT", "Read times in this format of strptime, such as %d.%m.%Y %H:%M."),
    ("timezone", "ZONE", "Read times without a zone in this one, such as Europe/Berlin."),
    ("fold", "WHICH", "Take the earlier or the later of an hour that occurs twice."),
    ("skip", "N", "Skip this many lines before the header."),
)


def takes_mapping(command: Any) -> Any:
    """The options that say how a file is read."""
    for name, shown, text in reversed(_MAPPING):
        command = click.option(f"--{name.replace('_', '-')}", name, metavar=shown, help=text)(command)
    return click.option("--no-header", is_flag=True, help="Read the first line as a row; columns have numbers.")(
        command
    )


class Mapping:
    """How one file is read. `query`: the parameters as text, the same for the same reading; keys are made from it."""

    def __init__(self, file: str, given: dict[str, str]) -> None:
        self._file = file  # as messages name it
        self.query = urlencode(given)

    def parameters(self) -> dict[str, str]:
        return dict(_pairs(self.query))

    def options(self) -> str:
        """The options as a user types them."""
        return _options(self.query)

    def complete(self, refusal: str) -> str | None:
        """Adopt the reading that the service proposes in a refusal. Returns the service's advice about times, which may
        be empty; None where it proposes nothing.
        """
        proposed = _PROPOSED.search(refusal)
        if proposed is None:
            return None
        self._choose(_QUERY.findall(proposed[1]), _GROUPED.search(refusal))
        advice = _ADVICE.search(refusal)
        return "" if advice is None else advice[1]

    def _choose(self, proposed: list[str], grouped: re.Match[str] | None) -> None:
        """Adopt the proposed reading and the given options. With two proposals, the user has to choose one."""
        readings = list(dict.fromkeys(map(self._with_given, proposed)))
        if len(readings) > 1:
            each = "; or ".join(map(_options, readings))
            raise click.UsageError(f"{self._file}: has {len(readings)} readings, give the options of one: {each}")
        if grouped is not None and "decimal" not in self.parameters():
            number, small, large, cure = grouped.groups()
            mark = "," if "," in number else "."
            raise click.UsageError(
                f"{self._file}: {number} has two readings: for {small} give --decimal {mark}, for {large} {cure}"
            )
        self.query = readings[0]

    def _with_given(self, proposed: str) -> str:
        given = self.parameters()
        found = dict(_pairs(proposed))
        found.pop("partial", None)  # an import always keeps the good rows
        for name, others in _INSTEAD_OF.items():
            if name in given:
                found = {other: value for other, value in found.items() if other not in others}
        return urlencode(found | given)


# Parameters without an option of the same name, and other texts to replace.
_OURS: Final = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"send it to POST /write", "give --form lines"),
        (r"\bheader=false\b", "--no-header"),
        (r"\b(timestamp|value): is missing: name", r"--\1 is not given: name"),
        (r"add timezone=(\S+), or your zone, to the query", r"give --timezone \1, or your zone"),
        (r"\?window=(\w+) shows", r"`statsapi stats SERIES --window \1` shows"),
        (r"seconds to each timestamp would", "seconds to each timestamp, as --rebase does, would"),
    )
)


def with_options(said: str) -> str:
    """The service's message, with our options instead of its queries and parameters."""
    for theirs, ours in _OURS:
        said = theirs.sub(ours, said)
    told, at = "", 0
    for shown in _SHOWN.finditer(said):
        told += _PARAMETER.sub(_option, said[at : shown.start()])
        told += f"with {' or '.join(map(_options, _QUERY.findall(shown[1])))}"
        at = shown.end()
    return told + _PARAMETER.sub(_option, said[at:])


def _option(found: re.Match[str]) -> str:
    return "--no-header" if found[1] == "header" else f"--{found[1].replace('_', '-')} "


def _options(query: str) -> str:
    return " ".join(
        "--no-header" if name == "header" else f"--{name.replace('_', '-')} {_quoted(value)}"
        for name, value in _pairs(query)
        if name != "partial"  # an import always keeps the good rows
    )


def _quoted(value: str) -> str:
    """The value quoted for a shell."""
    if not value.isprintable():
        return "$'" + "".join(_escaped(sign) for sign in value) + "'"
    return shlex.quote(value) if _EXPANDED.search(value) else f'"{value}"'


def _escaped(sign: str) -> str:
    if sign in "'\\":
        return f"\\{sign}"
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"


def _pairs(query: str) -> list[tuple[str, str]]:
    """The query's parameters. A value may be empty: pandas writes an index column without a name."""
    return parse_qsl(query, keep_blank_values=True)
