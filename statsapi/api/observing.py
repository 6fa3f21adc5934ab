"""Wraps every answer: counts it in the metrics, writes the access log where that is on, and adds the headers that all
answers carry.

It is WSGI middleware, which costs 4 µs and sees every answer. Flask's before_request and after_request would cost 5 µs.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, current_app, g
from werkzeug.wsgi import ClosingIterator

from statsapi.api.logs import REQUEST_ID, note_request
from statsapi.metrics import OTHER
from statsapi.routes import ROUTES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_USABLE_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)

# A page may load, frame and send nothing, unless its own answer has another policy.
HTML_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def register(app: Flask) -> None:
    """Observe every answer. Its X-Request-ID is the request's if that is usable, else a new one."""
    service = app.extensions["statsapi"]
    metrics = service.metrics
    note = _note_access if service.settings.access_log else None
    answer = app.wsgi_app
    # Ids need to be unique, not secret, so they count up: each call for random bytes releases the interpreter lock.
    prefix = ""
    numbers = itertools.count()

    def observed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal prefix
        began_s = perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID")
        if request_id is None or _USABLE_ID.fullmatch(request_id) is None:
            if not prefix:  # made at the first request, after the fork, as all workers would share it otherwise
                prefix = secrets.token_hex(8)
            request_id = f"{prefix}-{next(numbers):x}"
        environ[REQUEST_ID] = request_id
        noted: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            # Here Flask's contexts still exist; after start_response they are gone.
            metrics.request(_row(environ), status[:3], perf_counter() - began_s)
            if note is not None:
                noted[:] = status, g.get("key_id")
            return start_response(status, [*_secured(headers), ("X-Request-ID", request_id)], exc_info)

        pieces = answer(environ, start)
        return pieces if note is None or not noted else note(environ, pieces, began_s, *noted)

    app.wsgi_app = observed  # type: ignore[method-assign]  # as Flask's documentation has it


_JSON: Final = ("Content-Type", "application/json")
_JSON_SECURED: Final = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]


def _secured(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """An answer's headers, plus those that every answer carries. Costs 1 µs; Flask's after_request takes 4 µs."""
    if len(headers) == 2 and headers[0] == _JSON and headers[1][0] == "Content-Length":  # most answers
        return headers + _JSON_SECURED
    held = {name.lower(): value for name, value in headers}
    added = [("X-Content-Type-Options", "nosniff")]
    # Answers hold for now, and some for one key only. An answer that may be cached (a static file) has its own header.
    if "cache-control" not in held:
        added.append(("Cache-Control", "no-store"))
    if held.get("content-type", "").startswith("text/html"):
        if "content-security-policy" not in held:
            added.append(("Content-Security-Policy", HTML_POLICY))
        if "referrer-policy" not in held:
            added.append(("Referrer-Policy", "no-referrer"))
    return headers + added


def _note_access(
    environ: WSGIEnvironment,
    pieces: Iterable[bytes],
    began_s: float,
    status: str,
    key_id: str | None,
) -> Iterable[bytes]:
    """Write the access line once the answer has been handed over. The query is left out, as it may hold secrets."""
    sent_bytes = 0

    def counted() -> Iterable[bytes]:
        nonlocal sent_bytes
        for piece in pieces:
            sent_bytes += len(piece)
            yield piece

    def done() -> None:
        note_request(
            {
                "request_id": environ[REQUEST_ID],
                "method": environ["REQUEST_METHOD"],
                "path": environ["PATH_INFO"].encode("latin-1").decode(errors="backslashreplace"),
                "status": int(status[:3]),
                "duration_ms": round((perf_counter() - began_s) * 1e3, 3),
                "bytes": sent_bytes,
                "key_id": key_id,
            }
        )

    closing = getattr(pieces, "close", None)
    return ClosingIterator(counted(), [done] if closing is None else [closing, done])


# HEAD counts as GET, which answers it. Everything else counts as OTHER, Flask's answers to OPTIONS included.
_ROWS: Final = {(route.rule, route.method): row for row, route in enumerate(ROUTES)}
_ROWS.update({(rule, "HEAD"): row for (rule, method), row in _ROWS.items() if method == "GET"})


def _row(environ: WSGIEnvironment) -> int:
    """The request's row in ROUTES, or OTHER."""
    request = environ.get("werkzeug.request")
    if request is None or (rule := request.url_rule) is None:
        return OTHER
    # request.method would cost 4 µs, as Werkzeug then builds the whole request object.
    return _ROWS.get((rule.rule, environ["REQUEST_METHOD"].upper()), OTHER)


def reject(events: int) -> None:
    """Count events that were refused as invalid."""
    current_app.extensions["statsapi"].metrics.rejected(events)
