"""Headers of proxies in front: the client's address, the scheme, and the path under which they publish the service."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from statsapi.config import Settings
from statsapi.routes import begins_as_endpoint, require_prefix
from statsapi.setting_kinds import PATH_PREFIX

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEADER: Final = "HTTP_X_FORWARDED_PREFIX"


def register(app: Flask, settings: Settings) -> None:
    """Trust as many proxies as the settings say. ConfigError for a prefix that is the path of an endpoint."""
    configured = settings.path_prefix or ""
    require_prefix(configured)
    trusted = settings.trusted_proxies
    if trusted or configured:
        app.wsgi_app = _below(app.wsgi_app, configured)  # type: ignore[assignment,method-assign]
    if trusted:
        # x_prefix is 1 for any number of proxies: each replaces the prefix instead of adding to a list.
        believed = ProxyFix(app.wsgi_app, x_for=trusted, x_proto=trusted, x_prefix=1)
        app.wsgi_app = _with_prefixes_only(believed)  # type: ignore[assignment,method-assign]


def _below(answer: WSGIApplication, configured: str) -> WSGIApplication:
    """Strip the prefix from the path, where the proxy in front did not.

    It is better if the proxy does not strip it: nginx does so with `proxy_pass` and a path, and then also decodes %2F
    and merges //, which names of series may hold.
    """

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        prefix = environ.get("SCRIPT_NAME") or configured
        if prefix and not begins_as_endpoint(prefix):
            environ["SCRIPT_NAME"] = prefix
            path = environ.get("PATH_INFO", "")
            if path == prefix or path.startswith(prefix + "/"):
                environ["PATH_INFO"] = path[len(prefix) :] or "/"  # Werkzeug would redirect to that
        return answer(environ, start_response)

    return answered


def _with_prefixes_only(answer: WSGIApplication) -> WSGIApplication:
    """Drop an X-Forwarded-Prefix that is not made of paths: `//evil.example` would lead to another site."""

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _HEADER in environ:
            prefixes = [each.strip().rstrip("/") for each in environ[_HEADER].split(",")]
            if all(re.fullmatch(PATH_PREFIX, each) for each in prefixes):
                environ[_HEADER] = ",".join(prefixes)
            else:
                del environ[_HEADER]
        return answer(environ, start_response)

    return answered
