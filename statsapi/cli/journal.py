"""`statsapi journal backup FILE | info | check | salvage NEW`: the journal that STATSAPI_JOURNAL names."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any

from statsapi.config import Settings
from statsapi.errors import JournalRefused
from statsapi.journal import Journal, find_damage, open_journal, salvage
from statsapi.times import format_timestamp


def add_to(commands: Any) -> None:
    parser = commands.add_parser("journal", help="back up, inspect, check or salvage the journal")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    backup = actions.add_parser(
        "backup",
        help="copy it to a file, as of one moment, while the service runs",
        description="Copy the journal that STATSAPI_JOURNAL names to FILE, as of one moment, while the service runs. "
        "FILE becomes the whole copy or stays as it was. To restore it, move it into the journal's place.",
    )
    backup.add_argument("file", metavar="FILE")
    backup.add_argument("--force", action="store_true", help="replace FILE if it is there")
    backup.set_defaults(run=_backup)
    info = actions.add_parser("info", help="print its place, size and contents in short")
    info.set_defaults(run=_info)
    check = actions.add_parser(
        "check",
        help="read all of it and name every damage",
        description="Read all of the journal and compare every checksum; print one line for each damage. "
        "Exit status 0: no damage; 1: damage was found. It may run beside the service.",
    )
    check.set_defaults(run=_check)
    salvage = actions.add_parser(
        "salvage",
        help="save the undamaged part of a journal to a new file",
        description="Save every record, roll-up and kept answer that is whole to a new journal, NEW, and say what is "
        "missing. The damaged one stays as it is. Stop the service first, and move NEW into its place then.",
    )
    salvage.add_argument("new", metavar="NEW")
    salvage.set_defaults(run=_salvage)


def _open() -> contextlib.closing[Journal]:
    url = Settings.from_env().journal
    # create=False: an empty backup of a missing journal is worse than an error.
    return contextlib.closing(open_journal(url, create=False))


def _backup(given: argparse.Namespace) -> int:
    with _open() as journal:
        try:
            journal.backup(given.file, overwrite=given.force)
        except JournalRefused as error:  # of the file that was named, not of the settings
            print(f"statsapi: {error}", file=sys.stderr)
            return 1
        print(f"{given.file}: {os.path.getsize(given.file):,} bytes, a copy of {journal.info().location}")
    return 0


def _info(given: argparse.Namespace) -> int:
    with _open() as journal:
        info = journal.info()
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
        print(f"{name + ':':16}{value}")
    return 0


# At most this many damages are printed; a lost sector of small records may be dozens.
_NAMED_MAX = 100


def _say_damage(url: str) -> int:
    count = 0
    for count, line in enumerate(find_damage(url), 1):
        if count <= _NAMED_MAX:
            print(line)
    if count > _NAMED_MAX:
        print(f"and {count - _NAMED_MAX:,} more")
    return count


def _check(given: argparse.Namespace) -> int:
    count = _say_damage(Settings.from_env().journal)
    if not count:
        print("everything is what was written")
        return 0
    print(
        f"{count:,} damaged: restore a backup, or save what is whole with `statsapi journal salvage NEW`",
        file=sys.stderr,
    )
    return 1


def _salvage(given: argparse.Namespace) -> int:
    url = Settings.from_env().journal
    try:
        saved = salvage(url, given.new)
    except JournalRefused as error:
        print(f"statsapi: {error}", file=sys.stderr)
        return 1
    print(f"{given.new} holds {saved}; missing is:")
    if not _say_damage(url):
        print("nothing")
    return 0
