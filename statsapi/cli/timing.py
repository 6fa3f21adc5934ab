"""`statsapi time`: records how long a command takes, in cron jobs too. It exits with the command's own status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time as clock
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import click

from statsapi.cli import failures
from statsapi.cli.connection import Connection, may_ask_service
from statsapi.cli.recording import retry_option, tag_option


class _Time(click.Command):
    """The first word that is no option begins the command, with or without `--` before it."""

    allow_interspersed_args = False


@click.command(
    cls=_Time,
    short_help="Run a command, and record how long it took.",
    epilog="Example: statsapi time --series backup -- rsync -a /home /backups",
)
@click.option("--series", metavar="NAME", default="commands", help="Record into this series (default `commands`).")
@tag_option
@retry_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@may_ask_service
def time(
    find_service: Callable[..., Connection], series: str, tags: dict[str, str], retry_s: float, command: tuple[str, ...]
) -> int:
    """Run COMMAND and record its duration in seconds, with the tags `command` (its name) and `status`.

    The exit status is the command's: 128+N where signal N ended it, 127 where it is not there, 126 where it cannot be
    run. Whatever is wrong with the service or its settings is a warning and changes nothing of that.
    """
    began_s = clock.monotonic()
    status = _run(command)
    took_s = clock.monotonic() - began_s
    found = {"command": os.path.basename(command[0]) or command[0], "status": str(status), **tags}
    try:
        service = find_service()
        with service.client(give_up_after_s=retry_s) as client:
            answer = client.record(took_s, None, series, found)
        if service.as_json:
            click.echo(json.dumps({"seconds": took_s, "status": status, **answer}), err=True)
    except KeyboardInterrupt:
        failures.say("statsapi: warning: not recorded: interrupted")
    except Exception as error:  # noqa: BLE001 - the command's status matters more than any of our faults
        told = failures.told(error)
        said = told.lines[0].removeprefix("statsapi: ") if told else f"{type(error).__name__}: {error}"
        failures.say(f"statsapi: warning: {took_s:.3f} s of {found['command']} not recorded: {said}")
    return status


def _run(command: tuple[str, ...]) -> int:
    """The command's status as shells report it. Signals are passed on to the command; ^C reaches it by itself."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []  # signals before the child was started

    def pass_on(number: int, frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def leave_alone(number: int, frame: FrameType | None) -> None: ...

    with _handling(
        {
            **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), pass_on),
            **dict.fromkeys((signal.SIGINT, signal.SIGQUIT), leave_alone if os.isatty(0) else pass_on),
        }
    ):
        try:
            child = subprocess.Popen(command)  # noqa: S603 - it is what the user typed
        except FileNotFoundError as error:
            failures.say(f"statsapi: {failures.of_os(error)}")
            return 127
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL
            failures.say(f"statsapi: {failures.of_os(error) if isinstance(error, OSError) else error}")
            return 126
        for number in early:
            pass_on(number, None)
        status = child.wait()
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _handling(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Handle the signals, except ignored ones, as under nohup: the command inherits those as ignored."""
    before: dict[signal.Signals, Any] = {}
    try:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
