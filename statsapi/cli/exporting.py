"""`statsapi export`: the raw events, out of the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from statsapi.cli import failures, output
from statsapi.cli.connection import Connection, asks_service
from statsapi.cli.listing import say_unknown
from statsapi.cli.question_options import chooses_range, chooses_series


@click.command(
    short_help="Write the raw events to a file.",
    epilog="Example: statsapi export cpu --start now-15m -o cpu.csv",
)
@click.argument("series", nargs=-1, metavar="[SERIES…]")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to FILE instead of the screen.",
)
@click.option(
    "--form", type=click.Choice(["csv", "ndjson", "influx"]), default="csv", help="Write in this form (default csv)."
)
@chooses_series
@chooses_range
@asks_service
def export(
    service: Connection,
    series: tuple[str, ...],
    target: Path | None,
    form: Literal["csv", "ndjson", "influx"],
    chosen: dict[str, Any],
    span: dict[str, Any],
) -> int:
    """Write the raw events of SERIES, or of all, as of one moment.

    A file is whole, or as it was before. It can be imported again, here or elsewhere.
    """
    with service.client() as client, failures.of_arguments():
        where = sys.stdout.buffer if target is None else target
        written = client.export_to(where, series or None, form=form, **chosen, **span)
        say_unknown(client, series)
    if target is not None:
        if service.as_json:
            output.show_json({"file": str(target), "bytes": written})
        else:
            failures.say(f"{target}: {written:,} bytes")
    return 0
