"""The application factory: wires everything together."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn
from urllib.parse import quote

from flask import Flask, Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter, RequestRedirect

from statsapi import api
from statsapi.config import Settings, unknown_names
from statsapi.journal import Journal, open_journal, wall_clock_us
from statsapi.keys import Keys
from statsapi.service.service import Service

logger = logging.getLogger("statsapi")

# A service has one or two names; a client that makes up more must not fill the memory.
_HOSTS_MAX: Final = 64

_FOREIGN: Final = (
    "statsapi's gunicorn.conf.py is not in use (`statsapi serve` uses it, `gunicorn wsgi:app` in its folder too). "
    "Where there are several processes this is missing: /metrics of all of them together (each tells its own), "
    "STATSAPI_MAX_EVENTS divided by them, a core for each, connections shared evenly. STATSAPI_JOURNAL=memory:// is "
    "refused with them."
)


class _App(Flask):
    """Flask that asks Werkzeug once for each host, not for each request, what a URL is relative to: 8 µs of 72."""

    def __init__(self) -> None:
        super().__init__("statsapi", static_folder=None)
        self._adapters: dict[tuple[str | None, ...], MapAdapter] = {}

    def raise_routing_exception(self, request: Request) -> NoReturn:
        """A path that lacks its last slash is told so relative to itself.

        Werkzeug would name an absolute URL, made of the Host that the client sent: another's, where a cache in between
        keeps it, and a wrong one behind a proxy that changes host or prefix.
        """
        if isinstance(request.routing_exception, RequestRedirect):
            asked = request.environ.get("SCRIPT_NAME", "") + request.environ.get("PATH_INFO", "")
            query = request.query_string.decode("latin1")
            target = quote(asked.rpartition("/")[2].encode("latin1")) + "/" + (f"?{query}" if query else "")
            raise HTTPException(response=Response(status=308, headers={"Location": target}, mimetype="text/plain"))
        super().raise_routing_exception(request)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        environ = request.environ
        given = environ.get
        asked = (
            given("HTTP_HOST"),
            given("SERVER_NAME"),
            given("SERVER_PORT"),
            given("SCRIPT_NAME"),
            given("wsgi.url_scheme"),
        )
        known = self._adapters.get(asked)
        if known is None:
            made = super().create_url_adapter(request)
            if made is not None and len(self._adapters) < _HOSTS_MAX:
                self._adapters[asked] = made
            return made
        return MapAdapter(
            known.map,
            known.server_name,
            known.script_name,
            known.subdomain,
            known.url_scheme,
            request.path,
            given("REQUEST_METHOD", "GET"),
            given("QUERY_STRING", ""),
        )


def create_app(
    settings: Settings | None = None,
    *,
    journal: Callable[[], Journal] | None = None,
    clock_us: Callable[[], int] = wall_clock_us,
    background: bool = True,
) -> Flask:
    """A Flask app with its service as `app.extensions["statsapi"]`; nothing is opened and no thread runs yet.

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
    app = _App()
    app.json = api.Json(app)
    app.extensions["statsapi"] = service
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["PROPAGATE_EXCEPTIONS"] = False  # a fault is logged and answered as a problem, under tests too
    app.url_map.merge_slashes = False  # a series may be named a//b
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=settings.trusted_proxies
        )
    api.register(app, settings, keys)
    return app
