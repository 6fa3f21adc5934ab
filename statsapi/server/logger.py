"""One format and one destination for Gunicorn's log lines and the service's."""

from __future__ import annotations

import logging
from typing import Any

import gunicorn.glogging

from statsapi.api.logs import JsonFormatter, PlainFormatter
from statsapi.config import read_one


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's logger with STATSAPI_LOG_FORMAT, which removes API keys from every line. `logconfig_dict` was refused:
    it would have to repeat the files and levels of the command line.
    """

    def setup(self, cfg: Any) -> None:
        """Set the formatters. Gunicorn calls it on a reload too, with new handlers."""
        super().setup(cfg)
        # Only this setting is read: on_starting reports faulty settings, and needs a logger for that.
        json = read_one("log_format") == "json"
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JsonFormatter() if json else PlainFormatter(handler.formatter))


def log_as_gunicorn_does(error_log: logging.Logger) -> None:
    """Give the service's logger the level and handlers of Gunicorn's, in every worker."""
    ours = logging.getLogger("statsapi")
    ours.handlers = error_log.handlers  # the same list object, as a reload replaces its items
    ours.setLevel(error_log.level)
    ours.propagate = False
