"""`statsapi keys new | check FILE`: make an API key, or find the faults in a file of keys."""

from __future__ import annotations

import click

from statsapi import keys as api_keys
from statsapi.cli import failures


@click.group(short_help="Make an API key, or check a file of them.")
def keys() -> None:
    """Make an API key, or check a file of them."""


@keys.command(epilog="Example: statsapi keys new --scope write --scope read --id ingest")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(api_keys.SCOPES),
    help="What it may do; can be given several times; admin holds the others.",
)
@click.option(
    "--id", "key_id", help="Who uses it, for logs; a new key of the same id continues it (random unless given)."
)
def new(scopes: tuple[str, ...], key_id: str | None) -> int:
    """Print a new key, which nothing keeps, and the line to store."""
    try:
        key, held = api_keys.new_key(scopes, key_id)
    except ValueError as error:
        raise click.UsageError(f"--id: {error}") from None
    click.echo(f"key:  {key}")
    click.echo(f"line: {held.line()}")
    failures.say(
        f"Give the key to its user now: it is shown this once. The line goes into the file that "
        f"{api_keys.FILE_VARIABLE} names, or into {api_keys.ENTRIES_VARIABLE}."
    )
    return 0


@keys.command(epilog="Example: statsapi keys check /etc/statsapi/keys")
@click.argument("file")
def check(file: str) -> None:
    """Name every fault in a file of keys."""
    api_keys.Keys(file, None)
