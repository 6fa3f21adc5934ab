"""`python -m statsapi keys new | check FILE`: makes API keys, and looks over a file of them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from statsapi import keys
from statsapi.errors import ConfigError


def add_to(commands: Any) -> None:
    actions = commands.add_parser("keys", help="API keys").add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser(
        "new", help="make a key", description="Prints a new key, which nothing keeps, and the line to store."
    )
    new.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=keys.SCOPES,
        help="what it may do; may be given several times; admin holds the others",
    )
    new.add_argument("--id", help="who uses it, for logs: a new key of the same id continues it (default: random)")
    new.set_defaults(run=_new_key)
    check = actions.add_parser("check", help="find what is wrong in a file of keys", description="Names every fault.")
    check.add_argument("file")
    check.set_defaults(run=_check_keys)


def _new_key(given: argparse.Namespace) -> int:
    try:
        key, held = keys.new_key(given.scope, given.id)
    except ValueError as error:
        print(f"--id: {error}", file=sys.stderr)
        return 2
    print(f"key:  {key}")
    print(f"line: {held.line()}")
    print(
        f"Give the key to its user now: it is shown this once. The line goes into the file that {keys.FILE_VARIABLE} "
        f"names, or into {keys.ENTRIES_VARIABLE}.",
        file=sys.stderr,
    )
    return 0


def _check_keys(given: argparse.Namespace) -> int:
    try:
        keys.Keys(given.file, None)
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return 1
    return 0
