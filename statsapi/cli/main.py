"""`statsapi COMMAND`, or `python -m statsapi COMMAND`: the service, commands for operators, and commands for users.

Each command is its own module, imported when it is used: `statsapi --help` and `serve` load no other. An error is one
line with the cure, and an exit status (failures.py).
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from statsapi import __version__
from statsapi.cli import failures

PROGRAM: Final = "statsapi"
COMPLETE: Final = "_STATSAPI_COMPLETE"  # set by the shell that asks for completions: bash_source, zsh_complete …


# Where each command is (module:name), and its line of `statsapi --help`, in that order. The lines stand here so that
# --help imports none of them; a test compares them with the commands.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve:serve", "Run the service."),
    "stats": ("asking:stats", "Show statistics, live if you like."),
    "top": ("asking:top", "Compare series, or the values of a tag."),
    "check": ("asking:check", "Test a condition on statistics: exit status 0 or 1."),
    "post": ("recording:post", "Record an event, or one for each line."),
    "time": ("timing:time", "Run a command, and record how long it took."),
    "tail": ("tailing:tail", "Show events as they come."),
    "import": ("importing:import_files", "Record files: CSV, NDJSON, JSON, line protocol."),
    "export": ("exporting:export", "Write the raw events to a file."),
    "statsd": ("statsd:statsd", "Take StatsD's datagrams, and record what they measured."),
    "series": ("listing:series", "List the series there are."),
    "tags": ("listing:tags", "List the tags that series carry, or the values of one."),
    "bench": ("bench:bench", "How fast is a service? Posts and reads."),
    "journal": ("journal:journal", "Back up, inspect, check, compact or salvage the journal."),
    "config": ("config:config", "Show the settings in force, and where each came from."),
    "doctor": ("doctor:doctor", "Find what is wrong with a service, and the cure."),
    "keys": ("keys:keys", "Make or revoke an API key, or check a file of them."),
}


class Program(click.Group):
    """The commands, each imported when it is asked for, and every ending as a status and at most one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"statsapi.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """The entry that click's own test runner calls."""
        sys.exit(main(args))


def _show_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"{PROGRAM} {__version__}")
        context.exit()


program = Program(
    name=PROGRAM,
    help="Run the service, ask it and record, and do what an operator does beside it.",
    epilog="`statsapi COMMAND --help` has an example each; docs/command-line.md has the exit statuses, the settings of "
    "--url and --key, and completion for bash, zsh and fish.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        )
    ],
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and return its exit status. A user's mistake never ends in a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _mend_streams()
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # `statsapi journal info | head -1`: the reader has what it wanted
        _write_no_more()
        return 128 + signal.SIGPIPE
    except OSError as error:  # an error outside the command itself, such as a full disk for the output
        failures.say(f"{PROGRAM}: {failures.of_os(error)}")
        _write_no_more()
        return failures.NOT_DONE
    return status


def _mend_streams() -> None:
    """Replace a stream that was closed before the start (`statsapi series >&-`) by one that drops its input. Characters
    that a terminal cannot show are written as escapes.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - for the whole process
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(words: list[str]) -> int:
    try:
        if instruction := os.environ.get(COMPLETE):
            from click.shell_completion import shell_complete

            return shell_complete(program, {}, PROGRAM, COMPLETE, instruction)
        with program.make_context(PROGRAM, words) as context:
            status = program.invoke(context)
            return status if isinstance(status, int) else 0
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)  # the line of ^C
        return 128 + signal.SIGINT
    except OSError:
        raise
    except Exception as error:
        told = failures.told(error)
        if told is None:  # a fault of ours
            raise
        sys.stdout.flush()  # what was found before it stands before it
        for line in told.lines:
            failures.say(line)
        return told.status


def _write_no_more() -> None:
    """Drop the output: the interpreter flushes once more at its end, and would raise the same error again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or no file at all, as under a test's capture
        return
