"""What commands print: a table for people, aligned lines for pipes, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import click

_BARS: Final = "▁▂▃▄▅▆▇█"


def is_terminal() -> bool:
    return sys.stdout.isatty()


def show_json(what: Any) -> None:
    """One document in one line; a stream is a line each (NDJSON)."""
    click.echo(json.dumps(what, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[str] = ()) -> None:
    """Columns of `numbers` are right-aligned. On a terminal the table fits the width; in a pipe it is aligned lines."""
    right = {at for at, name in enumerate(columns) if name in set(numbers)}
    cells = [[cell(value) for value in row] for row in rows]
    if is_terminal():
        from rich.console import Console

        Console(highlight=False).print(rich_table(columns, cells, right))
        return
    for line in plain_lines(columns, cells, right):
        click.echo(line)


def rich_table(columns: Sequence[str], cells: Iterable[Sequence[str]], right: set[int]) -> Any:
    """Names are text, never markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if at in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(each) for each in row))
    return table


def plain_lines(columns: Sequence[str], cells: Sequence[Sequence[str]], right: set[int]) -> Iterable[str]:
    all_rows = [list(columns), *cells]
    widths = [max(len(row[at]) for row in all_rows) for at in range(len(columns))]
    for row in all_rows:
        shown = [
            each.rjust(width) if at in right else each.ljust(width)
            for at, (each, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(shown).rstrip()


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """On a terminal, show on standard error that work is under way and since when. It is erased at the end."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def cell(value: Any) -> str:
    """`-` for nothing; numbers as they are, integers with commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float) -> str:
    """Six significant digits, for people; --json has all of them."""
    return f"{value:,.6g}" if not math.isfinite(value) or abs(value) < 1e6 else f"{value:.6g}"


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value, from the least to the greatest; a blank for none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(_BARS) - 1) / (high - low) if 0 < high - low < math.inf else 0.0
    return "".join(" " if value is None else _BARS[round((value - low) * scale)] for value in values)
