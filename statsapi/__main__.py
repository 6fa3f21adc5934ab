"""`python -m statsapi COMMAND`: what an operator does beside the service. Each command is a module of its own.

Exit status: 0 done, 1 not done, 2 a wrong command line, 78 (EX_CONFIG) settings or a journal that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys

from statsapi import journal_command, keys_command
from statsapi.errors import ConfigError, StatsError

COMMANDS = (journal_command, keys_command)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m statsapi", description="What an operator does beside the service.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    given = parser.parse_args(arguments)
    try:
        status: int = given.run(given)
    except ConfigError as error:
        for fault in error.faults:
            print(f"statsapi: {fault}", file=sys.stderr)
        return os.EX_CONFIG
    except StatsError as error:
        print(f"statsapi: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
