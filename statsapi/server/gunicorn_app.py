"""Gunicorn as `statsapi serve` runs it: the packaged configuration and application, and refusals in one line.

Importing this module imports Gunicorn, which reads WEB_CONCURRENCY at import: check the variable before.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import gunicorn.util
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.config import Config

from statsapi.errors import ConfigError
from statsapi.server.checks import concurrency_faults

CONFIGURATION: Final = "python:statsapi.server.gunicorn_conf"


_Refuse = Callable[[str], NoReturn]


class _Parser:
    """Gunicorn's own parser. Gunicorn calls it for the command line (no argument) and for GUNICORN_CMD_ARGS."""

    def __init__(self, parser: argparse.ArgumentParser, options: Sequence[str], refuse: _Refuse) -> None:
        self._parser = parser
        self._options = options
        self._refuse = refuse

    def parse_args(self, given: Sequence[str] | None = None) -> argparse.Namespace:
        place = "after --" if given is None else "in GUNICORN_CMD_ARGS"

        def refuse(message: str) -> NoReturn:
            self._refuse(f"{place}: {message}")

        self._parser.error = refuse  # type: ignore[method-assign]
        found = self._parser.parse_args(self._options if given is None else given)
        if found.args:
            refuse(f"unexpected {found.args[0]!r}: only options of Gunicorn may follow --; the application is statsapi")
        return found


class _Config(Config):  # type: ignore[misc]  # Gunicorn has no types
    options: Sequence[str]
    refuse: _Refuse

    def parser(self) -> _Parser:
        return _Parser(super().parser(), self.options, self.refuse)

    def set(self, name: str, value: Any) -> None:
        """Set a value; an error names the setting, which Gunicorn's validators do not."""
        try:
            super().set(name, value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error


class Server(WSGIApplication):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn with the given options. `run()` makes this process the arbiter, and ends with SystemExit."""

    # The options that choose the address, for error messages.
    address_options = "--host or --port"

    def __init__(self, options: Sequence[str]) -> None:
        self._options = ["--config", CONFIGURATION, *options]
        super().__init__("statsapi serve -- [OPTIONS]", prog="statsapi serve --")

    def run(self) -> None:
        # USR2 starts this command again. sys.argv would not do: for `python -m statsapi` it holds the path of
        # __main__.py.
        sys.argv = sys.orig_argv[1:]
        super().run()

    def refuse(self, reason: str) -> NoReturn:
        """End the process: it is not started by options that Gunicorn does not take."""
        print(f"statsapi serve: {reason}", file=sys.stderr)
        sys.exit(2)

    def do_load_config(self) -> None:
        try:
            self.load_default_config()
            self.load_config()
            self.cfg.validate()
            self._check_addresses()
        except ConfigError:  # a refusal by `_Judged`
            raise
        except Exception as error:  # noqa: BLE001 (whatever a validator raises, as in Gunicorn's own)
            self.refuse(f"Gunicorn's configuration cannot be used: {error}")

    def _check_addresses(self) -> None:
        """ValueError for a --bind that Gunicorn cannot read, which ends `gunicorn` too late for a refusal of ours."""
        for bind in self.cfg.bind:
            try:
                gunicorn.util.parse_address(bind)
            except RuntimeError as error:
                raise ValueError(
                    f"bind: {bind!r} is not an address ({str(error).rstrip('.')}): write HOST:PORT, [IPV6]:PORT or "
                    "unix:/path/to/socket"
                ) from error

    def load_default_config(self) -> None:
        self.cfg = _Config(self.usage, prog=self.prog)
        self.cfg.options, self.cfg.refuse = self._options, self.refuse
        self.cfg.set("wsgi_app", "statsapi.app:create_app()")  # another --config need not name it

    def chdir(self) -> None:
        """Change the folder without adding it to sys.path: a redis.py in it must not hide the package."""
        os.chdir(self.cfg.chdir)


class _Judged(Server):
    """A server that is never run: it refuses by a ConfigError, and stays in the folder it is in."""

    def refuse(self, reason: str) -> NoReturn:
        raise ConfigError(reason)

    def chdir(self) -> None:
        pass


def configuration_faults() -> list[str]:
    """Why `statsapi serve` could not start here by GUNICORN_CMD_ARGS, WEB_CONCURRENCY and the packaged configuration, a
    sentence each.
    """
    try:
        return concurrency_faults(_Judged([]).cfg)
    except ConfigError as error:
        return list(error.faults)
