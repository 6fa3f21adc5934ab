"""`statsapi serve`: Gunicorn with the packaged configuration, in this very process and from any folder.

The process that was started is Gunicorn's arbiter: signals, systemd and containers meet what `gunicorn wsgi:app` would
be, and USR2 starts `statsapi serve` again with the same arguments. Not an exec of the `gunicorn` script, which may lie
elsewhere than Python (`pip install --user`) or nowhere, and which reads WEB_CONCURRENCY before anything can check it.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any, Final

from statsapi.config import env_names
from statsapi.errors import ConfigError
from statsapi.server import HOST, PORT

CONCURRENCY: Final = "WEB_CONCURRENCY"  # how many workers: what platforms set, and Gunicorn reads


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "serve",
        help="run the service",
        usage="%(prog)s [--host HOST] [--port PORT] [--workers N] [--threads N] [--journal URL] [-- OPTION ...]",
        description="Run the service until SIGTERM or Ctrl-C. Settings are read from STATSAPI_... variables. What "
        "stands after -- goes to Gunicorn (`statsapi serve -- --help` lists it), as does GUNICORN_CMD_ARGS.",
        epilog="Exit status: 0 stopped, 2 a wrong command line, 78 settings, journal or address cannot be used.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", type=_host, help=f"address or name to listen at (default {HOST}: this machine only)")
    parser.add_argument("--port", type=_whole(0, 65_535), help=f"port to listen at (default {PORT}); 0: a free one")
    parser.add_argument(
        "--workers",
        type=_whole(1),
        metavar="N",
        help=f"processes (default {CONCURRENCY}, or one for each core, at most 4)",
    )
    parser.add_argument("--threads", type=_whole(1), metavar="N", help="threads of each process (default 4)")
    parser.add_argument(
        "--journal",
        metavar="URL",
        help="where events are kept: sqlite:///relative/path, sqlite:////absolute/path, memory://, or "
        "redis://host:port/db?stream=NAME (default STATSAPI_JOURNAL, or sqlite:///data/events.db)",
    )
    parser.set_defaults(run=_serve)


def _host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]+", text, re.ASCII):
        return text
    with contextlib.suppress(ValueError):
        return f"[{ipaddress.IPv6Address(text.removeprefix('[').removesuffix(']'))}]"
    raise argparse.ArgumentTypeError(
        f"{text!r} is not an address or a name (a Unix socket is given as `-- --bind unix:/path`)"
    )


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) < least or (most and int(text) > most):
            upper = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}{upper}")
        return int(text)

    return whole


def _serve(given: argparse.Namespace) -> int:
    _check_concurrency()
    if given.journal is not None:
        os.environ[env_names()["journal"]] = given.journal
    options: list[str] = []
    if given.host is not None or given.port is not None:
        options += ["--bind", f"{given.host or HOST}:{PORT if given.port is None else given.port}"]
    if given.workers is not None:
        options += ["--workers", str(given.workers)]
    if given.threads is not None:
        options += ["--threads", str(given.threads)]
    from statsapi.server.gunicorn_app import Server

    Server([*options, *given.passed_on]).run()
    return 0


def _check_concurrency() -> None:
    """Before Gunicorn is imported, which reads it then and there and ends in a traceback."""
    text = os.environ.get(CONCURRENCY)
    if text is None:
        return
    if not text.strip():
        del os.environ[CONCURRENCY]  # set to nothing is unset, as with our own settings
    elif not re.fullmatch(r"0*[1-9][0-9]{0,8}", text.strip(), re.ASCII):
        raise ConfigError(f"{CONCURRENCY}={text!r}: must be a whole number from 1, the number of workers; or unset")
