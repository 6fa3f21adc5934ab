"""`statsapi keys new | check FILE`: make an API key, or find the faults in a file of keys."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from statsapi import keys


def add_to(commands: Any) -> None:
    parser = commands.add_parser("keys", help="make an API key, or check a file of them")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="make a key",
        description="Print a new key, which nothing keeps, and the line to store.",
    )
    new.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=keys.SCOPES,
        help="what it may do; can be given several times; admin holds the others",
    )
    new.add_argument("--id", help="who uses it, for logs; a new key of the same id continues it (default: random)")
    new.set_defaults(run=_new)
    check = actions.add_parser("check", help="name every fault in a file of keys")
    check.add_argument("file", metavar="FILE")
    check.set_defaults(run=_check)


def _new(given: argparse.Namespace) -> int:
    try:
        key, held = keys.new_key(given.scope, given.id)
    except ValueError as error:
        print(f"statsapi: --id: {error}", file=sys.stderr)
        return 2
    print(f"key:  {key}")
    print(f"line: {held.line()}")
    print(
        f"Give the key to its user now: it is shown this once. The line goes into the file that {keys.FILE_VARIABLE} "
        f"names, or into {keys.ENTRIES_VARIABLE}.",
        file=sys.stderr,
    )
    return 0


def _check(given: argparse.Namespace) -> int:
    keys.Keys(given.file, None)
    return 0
