"""`statsapi journal backup FILE | info | check | compact | salvage NEW`: the journal that STATSAPI_JOURNAL names."""

from __future__ import annotations

import contextlib
import os

import click

from statsapi.cli import failures, output
from statsapi.config import Settings
from statsapi.errors import CopyRefused, one_line
from statsapi.journal import Engine, Journal, engine_of, open_journal
from statsapi.times import format_timestamp


@click.group(short_help="Back up, inspect, check, compact or salvage the journal.")
def journal() -> None:
    """Back up, inspect, check, compact or salvage the journal that STATSAPI_JOURNAL names."""


def _engine() -> Engine:
    return engine_of(Settings.from_env().journal)


def _open() -> contextlib.closing[Journal]:
    url = Settings.from_env().journal
    # create=False: an empty backup of a missing journal is worse than an error.
    return contextlib.closing(open_journal(url, create=False))


@journal.command(epilog="Example: statsapi journal backup /backups/events.db")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def backup(file: str, force: bool) -> None:
    """Copy it to FILE, as of one moment, while the service runs.

    FILE becomes the whole copy or stays as it was. To restore it, move it into the journal's place.
    """
    with _open() as held:
        try:
            with output.busy("copying the journal"):
                held.backup(file, overwrite=force)
        except CopyRefused as error:  # of the file that was named, not of the settings
            raise failures.Failed(str(error)) from error
        click.echo(f"{file}: {os.path.getsize(file):,} bytes, a copy of {held.info().location}")


@journal.command(epilog="Example: statsapi journal info --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Print its place, size and contents in short."""
    with _open() as held:
        info = held.info()
    if as_json:
        output.show_json(
            {
                "journal": info.location,
                "size_bytes": info.size_bytes,
                "schema_version": info.schema_version,
                "records": info.records,
                "first_position": info.first_position,
                "last_position": info.last_position,
                "last_record": None if info.appended_us is None else format_timestamp(info.appended_us),
                "checkpoint_position": info.checkpoint_position,
                "checkpoint": None if info.checkpoint_us is None else format_timestamp(info.checkpoint_us),
            }
        )
        return
    rows = {
        "journal": info.location,
        "size": f"{info.size_bytes:,} bytes",
        "schema version": info.schema_version,
        "records": f"{info.records:,}" + (f" ({info.first_position} to {info.last_position})" if info.records else ""),
        "last record": "none" if info.appended_us is None else format_timestamp(info.appended_us),
        "checkpoint": "none"
        if info.checkpoint_us is None
        else f"at {info.checkpoint_position}, {format_timestamp(info.checkpoint_us)}",
    }
    for name, value in rows.items():
        click.echo(f"{name + ':':16}{value}")


# At most this many damages are printed; a lost sector of small records may be dozens.
_NAMED_MAX = 100


def _say_damage(engine: Engine) -> int:
    count = 0
    for count, line in enumerate(engine.find_damage(), 1):
        if count <= _NAMED_MAX:
            click.echo(one_line(line))
    if count > _NAMED_MAX:
        click.echo(f"and {count - _NAMED_MAX:,} more")
    return count


@journal.command(epilog="Example: statsapi journal check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> int:
    """Read all of it and name every damage.

    Every checksum is compared; each damage is a line. Exit status 0: no damage; 1: damage was found. It may run beside
    the service.
    """
    engine = _engine()
    if as_json:
        damages = list(engine.find_damage())
        output.show_json({"damages": damages})
        return failures.NOT_DONE if damages else 0
    with output.busy("reading the journal"):
        count = _say_damage(engine)
    if not count:
        click.echo("everything is what was written")
        return 0
    otherwise = "save what is whole with `statsapi journal salvage NEW`" if engine.is_file else "fail over to a replica"
    failures.say(f"{count:,} damaged: restore a backup, or {otherwise}")
    return failures.NOT_DONE


@journal.command(epilog="Example: statsapi journal compact")
def compact() -> None:
    """Give the space of what is no longer kept back to the disk.

    The service uses that space again, so this is for a journal that was once far larger. Stop the service first. It
    takes as much space again as the journal for a while.
    """
    engine = _engine()
    with output.busy("writing the journal anew"):
        before, after = engine.compact()
    click.echo(f"{after:,} bytes, before {before:,}")


@journal.command(epilog="Example: statsapi journal salvage /var/lib/statsapi/saved.db")
@click.argument("new")
def salvage(new: str) -> None:
    """Save the undamaged part of a journal to a new file.

    Every record, roll-up and kept answer that is whole goes to NEW, and what is missing is told. The damaged one stays
    as it is. Stop the service first, and move NEW into its place then.
    """
    engine = _engine()
    try:
        with output.busy("saving what is whole"):
            saved = engine.salvage(new)
    except CopyRefused as error:  # of the file that was named, not of the settings
        raise failures.Failed(str(error)) from error
    click.echo(f"{new} holds {saved}; missing is:")
    if not _say_damage(engine):
        click.echo("nothing")
