"""`statsapi export`: the raw events, out of the service."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from statsapi.cli import failures, output
from statsapi.cli.connection import Service, asks_service


@click.command(
    short_help="Write the raw events to a file.",
    epilog="Example: statsapi export cpu --start now-15m -o cpu.csv",
)
@click.argument("series", nargs=-1, metavar="[SERIES…]")
@click.option(
    "-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="Instead of the screen."
)
@click.option("--form", type=click.Choice(["csv", "ndjson", "influx"]), default="csv", help="csv unless given.")
@click.option("--match", multiple=True, metavar="PATTERN", help="Series by a pattern: web.*")
@click.option("--start", metavar="TIME", help="From then on; now-15m too.")
@click.option("--end", metavar="TIME", help="Until then.")
@asks_service
def export(
    service: Service,
    series: tuple[str, ...],
    target: Path | None,
    form: str,
    match: tuple[str, ...],
    start: str | None,
    end: str | None,
) -> int:
    """Write the raw events of SERIES, or of all, as of one moment.

    A file is whole, or as it was before. It can be imported again, here or elsewhere.
    """
    chosen = {"match": list(match) or None, "start": start, "end": end}
    with service.client() as client, failures.of_arguments():
        where = sys.stdout.buffer if target is None else target
        written = client.export_to(where, list(series) or None, form=form, **chosen)  # type: ignore[arg-type]
    if target is not None:
        if service.as_json:
            output.show_json({"file": str(target), "bytes": written})
        else:
            failures.say(f"{target}: {written:,} bytes")
    return 0
