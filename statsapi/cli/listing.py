"""`statsapi series` and `statsapi tags`: list the series and their tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from statsapi.cli import failures
from statsapi.cli.connection import Connection, asks_service
from statsapi.cli.output import show_json, show_table

if TYPE_CHECKING:
    from statsapi.client import Client


@click.command(short_help="List the series there are.", epilog="Example: statsapi series --where status=5*")
@click.argument("prefix", required=False)
@click.option("--match", multiple=True, metavar="GLOB", help="List only names that fit (* and ?); can be repeated.")
@click.option(
    "--where",
    multiple=True,
    metavar="TAG=GLOB",
    help="List only series with this tag; can be repeated, and all must hold.",
)
@asks_service
def series(service: Connection, prefix: str | None, match: tuple[str, ...], where: tuple[str, ...]) -> None:
    """List the series there are, those that begin with PREFIX, with how many events are kept and from when to when.

    Exit status: 0, also where there is none.
    """
    with service.client() as client:
        rows = client.series(prefix, match=match or None, where=where or None)
        if service.as_json:
            for row in rows:
                show_json(row)
            return
        columns = ("SERIES", "EVENTS", "FIRST", "LAST")
        shown: list[tuple[Any, ...]] = [(row["name"], row["count"], row["first"], row["last"]) for row in rows]
    show_table(columns, shown, numbers=["EVENTS"])


@click.command(
    short_help="List the tags that series carry, or the values of one.", epilog="Example: statsapi tags status"
)
@click.argument("key", required=False)
@click.option("--match", multiple=True, metavar="GLOB", help="Count only series that fit (* and ?); can be repeated.")
@click.option(
    "--where",
    multiple=True,
    metavar="TAG=GLOB",
    help="Count only series with this tag; can be repeated, and all must hold.",
)
@asks_service
def tags(service: Connection, key: str | None, match: tuple[str, ...], where: tuple[str, ...]) -> None:
    """List the tags that series carry, or the values of the tag KEY, with how many series carry each."""
    if key == "":
        raise click.BadParameter("is empty; leave it out to list all tags", param_hint="KEY")
    with service.client() as client:
        rows = client.tags(key, match=match or None, where=where or None)
        if service.as_json:
            for row in rows:
                show_json(row)
            return
        name = "key" if key is None else "value"
        shown = [(row[name], row["series"]) for row in rows]
    show_table((name.upper(), "SERIES"), shown, numbers=["SERIES"])
    if key is not None and not shown and not match and not where:
        failures.say(f"statsapi: no series carries a tag {key!r}; `statsapi tags` lists those there are")


def say_unknown(client: Client, names: Iterable[str]) -> None:
    """Name on standard error the series that do not exist. The question is answered all the same."""
    from statsapi.client import StatsapiError

    for name in names:
        bare, *tags = name.split(";")
        held = ";".join([bare, *sorted(tags)])  # as the service names it
        try:
            first = next((row["name"] for row in client.series(held, limit=1)), None)  # by name: it is that one
        except StatsapiError:  # what was asked is done
            return
        if first != held:
            failures.say(f"statsapi: there is no series {name!r}; `statsapi series` lists those there are")
