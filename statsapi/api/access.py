"""Who may call what: API keys and their scopes, and the pages of other origins."""

from __future__ import annotations

from typing import Final

from flask import Flask, Request, Response, g, request
from flask_cors import CORS

from statsapi.api import problems
from statsapi.config import Settings
from statsapi.keys import Keys
from statsapi.routes import INFLUX, OPEN, scope_of

_CHALLENGE: Final = 'Bearer realm="statsapi"'

# Headers that a browser's script may send and read across origins, beside those that it always may.
_CORS_SENT: Final = [
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "X-API-Key",
    "X-Request-ID",
]
_CORS_READ: Final = [
    "Age",
    "Idempotent-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Warning",
    "X-Request-ID",
]


def register(app: Flask, settings: Settings, keys: Keys | None) -> None:
    """Guard the app's routes. Hooks registered later find the caller's key id as `g.key_id`, where there is a key.

    Rate limits count a request after its caller was identified and before it is refused: a refused request counts too,
    by its address where the key is not known.
    """
    if settings.cors_origins:
        CORS(
            app,
            origins=list(settings.cors_origins),
            methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
            send_wildcard=True,
            always_send=False,
            intercept_exceptions=False,  # our errors are answers by then, and pass after_request as all do
            max_age=600,
        )
    if settings.rate_limit is None:
        if keys is not None:
            app.before_request(lambda: _identify(keys))
        return
    from statsapi.api import ratelimits

    if keys is not None:

        @app.before_request
        def identify() -> None:
            g.refusal = _identify(keys)

    ratelimits.install(app, settings)
    if keys is not None:
        app.before_request(lambda: g.refusal)


def _identify(keys: Keys) -> Response | None:
    """Identify the caller: sets `g.key_id`. 401 without a known key, 403 without the scope. 5 µs."""
    asked = request._get_current_object()  # type: ignore[attr-defined]  # the proxy costs a look-up at each use
    rule = asked.url_rule
    # A preflight cannot carry a key, and an unknown path has nothing to guard: they go on to 200, 404 and 405.
    if rule is None or asked.method == "OPTIONS":
        return None
    scope = scope_of(rule.endpoint)
    if scope is OPEN:
        return None
    as_influx = rule.endpoint.startswith(INFLUX)
    presented = _presented(asked.environ) or (_presented_as_influx(asked) if as_influx else "")
    if not presented:
        detail = "Send an API key: Authorization: Bearer KEY, or X-API-Key: KEY."
        if as_influx:
            detail = "Send an API key as the token (Authorization: Token KEY), or as the password (Basic, or ?p=KEY)."
        return _refuse(401, "Unauthorized", detail, _CHALLENGE)
    held = keys.find(presented)
    if held is None:
        detail = "This API key is not known; it may have been replaced."
        return _refuse(401, "Unauthorized", detail, f'{_CHALLENGE}, error="invalid_token"')
    g.key_id = held.id
    if not held.may(scope):
        detail = f"This needs the scope {scope}, which key {held.id} does not have."
        return _refuse(403, "Forbidden", detail, f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"')
    return None


def _presented_as_influx(asked: Request) -> str:
    """The key where InfluxDB's clients put it: a token, a password, or the password in the query."""
    given: str = asked.environ.get("HTTP_AUTHORIZATION", "")
    if given[:6].lower() == "token ":
        return given[6:].strip()
    basic = asked.authorization
    if basic is not None and basic.type == "basic" and basic.password:
        return str(basic.password)
    return str(asked.args.get("p", ""))


def _refuse(status: int, title: str, detail: str, challenge: str) -> Response:
    headers = {"WWW-Authenticate": challenge}
    return problems.problem(status, problems.code_of(title), title, detail, headers=headers)


def _presented(environ: dict[str, str]) -> str:
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return environ.get(
        "HTTP_X_API_KEY", ""
    ).strip()  # also beside Authorization: Basic, which a proxy may need for itself
