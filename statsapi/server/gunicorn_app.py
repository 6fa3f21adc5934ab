"""Gunicorn as `statsapi serve` runs it: the packaged configuration and application, and refusals in one line.

Importing this imports Gunicorn, which reads WEB_CONCURRENCY then and there: check it before.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.config import Config

CONFIGURATION: Final = "python:statsapi.server.gunicorn_conf"


def _refuse(reason: str) -> NoReturn:
    print(f"statsapi serve: {reason}", file=sys.stderr)
    sys.exit(2)


class _Parser:
    """Gunicorn's own parser, which is asked for the command line (no argument) and for GUNICORN_CMD_ARGS."""

    def __init__(self, parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
        self._parser = parser
        self._options = options

    def parse_args(self, given: Sequence[str] | None = None) -> argparse.Namespace:
        place = "after --" if given is None else "in GUNICORN_CMD_ARGS"

        def refuse(message: str) -> NoReturn:
            _refuse(f"{place}: {message}")

        self._parser.error = refuse  # type: ignore[method-assign]
        found = self._parser.parse_args(self._options if given is None else given)
        if found.args:
            refuse(f"unexpected {found.args[0]!r}: the application is statsapi, only options of Gunicorn belong here")
        return found


class _Config(Config):  # type: ignore[misc]  # Gunicorn has no types
    options: Sequence[str] = ()

    def parser(self) -> _Parser:
        return _Parser(super().parser(), self.options)

    def set(self, name: str, value: Any) -> None:
        """Names the setting at fault, which Gunicorn's validators do not."""
        try:
            super().set(name, value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error


class Server(WSGIApplication):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn with these options of its own; `run()` makes this process the arbiter, and ends with SystemExit."""

    # How the address is chosen, for whoever must choose another one.
    address_options = "--host or --port"

    def __init__(self, options: Sequence[str]) -> None:
        self._options = ["--config", CONFIGURATION, *options]
        # What USR2 starts. Not sys.argv, where `python -m statsapi` has become the path of __main__.py.
        sys.argv = sys.orig_argv[1:]
        super().__init__("statsapi serve -- [OPTIONS]", prog="statsapi serve --")

    def do_load_config(self) -> None:
        try:
            self.load_default_config()
            self.load_config()
            self.cfg.validate()
        except Exception as error:  # noqa: BLE001 (whatever a validator raises, as in Gunicorn's own)
            _refuse(f"Gunicorn's configuration cannot be used: {error}")

    def load_default_config(self) -> None:
        self.cfg = _Config(self.usage, prog=self.prog)
        self.cfg.options = self._options
        self.cfg.set("wsgi_app", "statsapi.app:create_app()")  # another --config need not name it

    def chdir(self) -> None:
        """The folder does not become a place of modules: a redis.py in it must not be taken for the package."""
        os.chdir(self.cfg.chdir)
