"""`statsapi COMMAND`, or `python -m statsapi COMMAND`: the service, and what an operator does beside it.

Each command is a module of its own.

Exit status: 0 done, 1 not done, 2 a wrong command line, 78 (EX_CONFIG) settings or a journal that cannot be used,
141 (SIGPIPE) nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import NoReturn

from statsapi import __version__
from statsapi.cli import journal, keys, serve
from statsapi.errors import ConfigError, StatsError

COMMANDS = (serve, journal, keys)


class _Parser(argparse.ArgumentParser):
    """Errors are one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    parser = _Parser(prog="statsapi", description="Run the service, and do what an operator does beside it.")
    parser.add_argument("--version", action="version", version=f"statsapi {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    words, passed_on = list(sys.argv[1:] if arguments is None else arguments), []
    if words[:1] == ["serve"] and "--" in words:  # argparse would look for our own options behind it
        at = words.index("--")
        words, passed_on = words[:at], words[at + 1 :]
    given, unknown = parser.parse_known_args(words, argparse.Namespace(passed_on=passed_on))
    if unknown:
        hint = "; Gunicorn's options stand after --" if words[0] == "serve" else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    try:
        status: int = given.run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # `statsapi journal info | head -1`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 128 + signal.SIGPIPE
    except ConfigError as error:
        for fault in error.faults:
            print(f"statsapi: {fault}", file=sys.stderr)
        return os.EX_CONFIG
    except StatsError as error:
        print(f"statsapi: {error}", file=sys.stderr)
        return 1
    return status
