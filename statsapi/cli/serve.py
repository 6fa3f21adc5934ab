"""`statsapi serve`: Gunicorn with the packaged configuration, in this same process and from any folder.

This process becomes Gunicorn's arbiter: for signals, systemd and containers it is the same as `gunicorn wsgi:app`, and
USR2 starts `statsapi serve` again with the same arguments. An exec of the `gunicorn` script was refused: it may lie in
another folder than Python (`pip install --user`) or be missing, and it reads WEB_CONCURRENCY before it can be checked.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any

import click

from statsapi.server import HOST, PORT
from statsapi.server.board import Board
from statsapi.server.checks import CONCURRENCY

_Check = Callable[[click.Context, click.Parameter, str | None], Any]


def _host(ctx: click.Context, option: click.Parameter, text: str | None) -> str | None:
    if text is None or re.fullmatch(r"[A-Za-z0-9._-]+", text, re.ASCII):
        return text
    with contextlib.suppress(ValueError):
        return f"[{ipaddress.IPv6Address(text.removeprefix('[').removesuffix(']'))}]"
    raise click.BadParameter(
        f"{text!r} is not an address or a name (a Unix socket is given as `-- --bind unix:/path`)", ctx, option
    )


def _whole(least: int, most: int | None = None) -> _Check:
    def whole(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
        if text is None:
            return None
        if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) < least or (most and int(text) > most):
            upper = "" if most is None else f" to {most}"
            raise click.BadParameter(f"{text!r} is not a whole number from {least}{upper}", ctx, option)
        return int(text)

    return whole


class _Serve(click.Command):
    """Arguments after `--` are passed to Gunicorn unparsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = args[at + 1 :]
        try:
            return super().parse_args(ctx, args[:at])
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"no such option {error.option_name!r}; Gunicorn's options stand after --", ctx
            ) from None


@click.command(
    cls=_Serve,
    options_metavar="[--host HOST] [--port PORT] [--workers N] [--threads N] [--journal URL] [-- OPTION ...]",
    short_help="Run the service.",
    epilog="Example: statsapi serve --port 8000 --journal sqlite:////var/lib/statsapi/events.db",
)
@click.option(
    "--host",
    metavar="HOST",
    callback=_host,
    help=f"Listen at this address or name (default {HOST}: this machine only).",
)
@click.option(
    "--port",
    callback=_whole(0, 65_535),
    metavar="PORT",
    help=f"Listen at this port (default {PORT}); 0 takes a free one.",
)
@click.option(
    "--workers",
    metavar="N",
    callback=_whole(1, Board.SLOTS),
    help=f"Run this many processes (default {CONCURRENCY}, or one for each core, at most 4).",
)
@click.option("--threads", metavar="N", callback=_whole(1), help="Run this many threads in each process (default 4).")
@click.option(
    "--journal",
    metavar="URL",
    help="Keep events in this journal: sqlite:///relative/path, sqlite:////absolute/path, memory://, "
    "redis://host:port/db?stream=NAME, or postgresql://user@host/db?stream=NAME (default STATSAPI_JOURNAL, or "
    "sqlite:///data/events.db).",
)
@click.pass_obj
def serve(
    passed_on: list[str],
    host: str | None,
    port: int | None,
    workers: int | None,
    threads: int | None,
    journal: str | None,
) -> int:
    """Run the service until SIGTERM or Ctrl-C.

    Settings are read from STATSAPI_... variables. What stands after -- goes to Gunicorn (`statsapi serve -- --help`
    lists it), as does GUNICORN_CMD_ARGS.

    Exit status: 0 stopped, 2 a wrong command line, 78 settings, journal or address cannot be used.
    """
    from statsapi.config import env_names
    from statsapi.server.checks import check_concurrency, check_folder

    check_folder()
    check_concurrency()
    if journal is not None:
        os.environ[env_names()["journal"]] = journal
    options: list[str] = []
    if host is not None or port is not None:
        options += ["--bind", f"{host or HOST}:{PORT if port is None else port}"]
    if workers is not None:
        options += ["--workers", str(workers)]
    if threads is not None:
        options += ["--threads", str(threads)]
    from statsapi.server.gunicorn_app import Server

    Server([*options, *passed_on]).run()
    return 0
