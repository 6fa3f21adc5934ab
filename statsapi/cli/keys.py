"""`statsapi keys new | check FILE | revoke FILE ID|KEY`: make or revoke an API key, or find the faults in a file."""

from __future__ import annotations

import click

from statsapi import keys as api_keys
from statsapi.cli import failures
from statsapi.cli.output import show_json


@click.group(short_help="Make or revoke an API key, or check a file of them.")
def keys() -> None:
    """Make or revoke an API key, or check a file of them."""


@keys.command(epilog="Example: statsapi keys new --scope write --scope read --id ingest")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(api_keys.SCOPES),
    help="Give the key this scope; can be repeated. admin includes the others.",
)
@click.option(
    "--id",
    "key_id",
    metavar="ID",
    help="Name the key's user, for logs; a new key may have the id of an older one (default: random).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(scopes: tuple[str, ...], key_id: str | None, as_json: bool) -> int:
    """Print a new key, which nothing keeps, and the line to store."""
    try:
        key, held = api_keys.new_key(scopes, key_id)
    except ValueError as error:
        raise click.UsageError(f"--id: {error}") from None
    if as_json:
        show_json({"key": key, "line": held.line()})
        return 0
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
    """Name every fault in a file of keys, or say that there is none."""
    found = api_keys.check(file)
    click.echo(f"{file}: {found} key{'' if found == 1 else 's'}, no faults")


@keys.command(epilog="Example: statsapi keys revoke /etc/statsapi/keys ingest")
@click.argument("file")
@click.argument("which", metavar="ID|KEY")
def revoke(file: str, which: str) -> int:
    """Take the keys of an id, or one key, out of a file of keys.

    The service notices within a second. Of an id that has an old key and a new one, give the old KEY itself; but other
    users of this machine can see a command line. Exit status 1: no such key is there.
    """
    taken = api_keys.revoke(file, which)
    if not taken:
        raise failures.Failed(f"{file} has no such key; statsapi keys check {file} finds its faults")
    click.echo(f"{taken} key{'' if taken == 1 else 's'} revoked")
    return 0
