"""The application factory: wires everything together."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Final

from flask import Flask

from statsapi import api
from statsapi.api.application import PlainApp, ShortApp
from statsapi.config import Settings, unknown_names
from statsapi.journal import Journal, open_journal, wall_clock_us
from statsapi.keys import Keys
from statsapi.service.service import Service
from statsapi.tokens import Tokens

logger = logging.getLogger("statsapi")

_FOREIGN: Final = (
    "statsapi's gunicorn.conf.py is not in use. `statsapi serve` uses it, and so does `gunicorn wsgi:app` in its "
    "folder. Without it several processes lack these: one /metrics for all of them (each shows its own), "
    "STATSAPI_MAX_EVENTS divided among them, a core for each, connections shared evenly. STATSAPI_JOURNAL=memory:// is "
    "refused with several processes."
)


def create_app(
    settings: Settings | None = None,
    *,
    journal: Callable[[], Journal] | None = None,
    clock_us: Callable[[], int] = wall_clock_us,
    background: bool = True,
) -> Flask:
    """A Flask app with its service as `app.extensions["statsapi"]`. It opens nothing and starts no thread yet.

    The service starts with `start()`, which Gunicorn's hooks call after the fork, or by itself with the first
    request (Flask's test client, other WSGI servers). Tests pass a journal opener, a clock, and `background=False`
    to call `service.keep_house()` themselves. Raises ConfigError when the environment's settings or the API keys
    cannot work.
    """
    if settings is None:
        settings = Settings.from_env()
        for name in unknown_names(os.environ):
            logger.warning("%s is not a setting of statsapi and is ignored", name)
        if "statsapi.server.hooks" not in sys.modules:  # gunicorn.conf.py imports it before any application is loaded
            logger.warning("%s", _FOREIGN)
    keyed = settings.api_keys_file or settings.api_keys
    keys = Keys(settings.api_keys_file, settings.api_keys) if keyed else None
    tokens = Tokens(settings) if settings.jwt_key or settings.jwt_jwks_file else None

    def open_configured() -> Journal:
        return open_journal(
            settings.journal, fsync=settings.fsync, clock_us=clock_us, wait_replicas=settings.redis_wait_replicas
        )

    service = Service(
        settings,
        journal or open_configured,
        clock_us,
        background=background,
    )
    app = ShortApp() if settings.shortcuts else PlainApp()
    app.extensions["statsapi"] = service
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["PROPAGATE_EXCEPTIONS"] = False  # a fault is logged and answered as a problem, under tests too
    app.url_map.merge_slashes = False  # a series may be named a//b
    api.register(app, settings, keys, tokens)
    return app
