"""Gunicorn's log lines and the service's: one form, one place."""

from __future__ import annotations

import logging
from typing import Any

import gunicorn.glogging

from statsapi.api.logs import JsonFormatter, PlainFormatter
from statsapi.config import read_one


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's logger with STATSAPI_LOG_FORMAT, and no key in a line, whoever writes it. Not `logconfig_dict`, which
    would have to repeat what the command line says of files and levels.
    """

    def setup(self, cfg: Any) -> None:
        """Also called on a reload, with new handlers."""
        super().setup(cfg)
        # On its own: on_starting says what is wrong with the settings, and needs a logger for that.
        json = read_one("log_format") == "json"
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JsonFormatter() if json else PlainFormatter(handler.formatter))


def log_as_gunicorn_does(error_log: logging.Logger) -> None:
    """What the service logs goes where Gunicorn's own lines go, by level and handlers, in every worker."""
    ours = logging.getLogger("statsapi")
    ours.handlers = error_log.handlers  # the very list: a reload exchanges what is in it
    ours.setLevel(error_log.level)
    ours.propagate = False
