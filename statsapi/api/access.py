"""Access control: API keys and their scopes, tokens, and pages of other origins."""

from __future__ import annotations

from typing import Final

from flask import Flask, Request, Response, g, request
from flask_cors import CORS

from statsapi.api import problems
from statsapi.api.application import asked
from statsapi.config import Settings
from statsapi.errors import echo
from statsapi.keys import Caller, Keys
from statsapi.routes import INFLUX, OPEN, ROUTES, scope_of
from statsapi.tokens import InvalidTokenError, Tokens

_BEACONS: Final = ("events.post_event", "events.post_events")
_PUSHGATEWAY: Final = "pushgateway."
# Endpoints that accept text. All others refuse whatever a browser sends without a CORS preflight, as it is not JSON.
_TEXT_DOORS: Final = (INFLUX, _PUSHGATEWAY)
_SENT_UNASKED: Final = ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
_CHALLENGE: Final = 'Bearer realm="statsapi"'

# Headers that a browser's script may send and read across origins, beside the ones that CORS always allows.
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
    "WWW-Authenticate",
    "X-Request-ID",
    "X-Statsapi-Duplicates",
    "X-Statsapi-Ignored-Strings",
    "X-Statsapi-Message",
    "X-Statsapi-Step",
    "X-Statsapi-Stored",
]


def register(app: Flask, settings: Settings, keys: Keys | None, tokens: Tokens | None) -> None:
    """Guard the app's routes. Hooks registered later find the caller's key id in `g.key_id`, where a key was sent.

    Rate limits count a request after its caller was identified and before it may be refused. So a refused request
    counts too, by its address where the key is not known.
    """
    if settings.cors_origins:
        CORS(
            app,
            origins=list(settings.cors_origins),
            methods=["HEAD", *dict.fromkeys(route.method for route in ROUTES)],
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
            send_wildcard=True,
            always_send=False,
            intercept_exceptions=False,  # our errors are answers by then, which pass through after_request
            max_age=600,
        )
    if settings.beacon_origins:
        beacon_origins = frozenset(settings.beacon_origins)
        app.before_request(lambda: _take_beacon(beacon_origins))
    guarded = keys is not None or tokens is not None
    if not guarded:
        known = frozenset((*(settings.cors_origins or ()), *(settings.beacon_origins or ())))
        if "*" not in known:
            app.before_request(lambda: _refuse_other_sites(known))
    if settings.rate_limit is None:
        if guarded:
            app.before_request(lambda: _identify(keys, tokens))
        return
    from statsapi.api import ratelimits

    if guarded:

        @app.before_request
        def identify() -> None:
            g.refusal = _identify(keys, tokens)

    ratelimits.install(app, settings)
    if guarded:
        app.before_request(lambda: g.refusal)


def _take_beacon(origins: frozenset[str]) -> None:
    """Read a body that navigator.sendBeacon sent from one of these pages as JSON, and accept it without a key.

    A browser sends text/plain without a CORS preflight, and without headers of the page's own. Any other client can
    forge the Origin. So only plain recording is open: with a query (a dry run, dedup) the answer would reveal stored
    data.
    """
    environ = request.environ
    if (
        environ.get("HTTP_ORIGIN") in origins
        and environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() == "text/plain"
        and not environ.get("QUERY_STRING")
        and request.url_rule is not None
        and request.url_rule.endpoint in _BEACONS
    ):
        environ["CONTENT_TYPE"] = "application/json"
        g.is_beacon = True


def _refuse_other_sites(known: frozenset[str]) -> Response | None:
    """403 where a page of another site makes its visitors' browsers record here, on a service without keys (CSRF).

    A browser sends JSON across origins only after a CORS preflight. It sends text, forms and bodies without a type at
    once; line protocol and pushes are text, and a body without a type counts as JSON. Clients other than browsers send
    no Origin.
    """
    environ = asked().environ
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:  # most requests
        return None
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if (
        origin in known
        or environ["REQUEST_METHOD"] != "POST"
        or request.url_rule is None
        or media_type not in _SENT_UNASKED
        or not (media_type == "" or request.url_rule.endpoint.startswith(_TEXT_DOORS))
        or origin.partition("://")[2].lower() == request.host.lower()
    ):
        return None
    detail = (
        f"Pages of {echo(origin)} may not record here: add this origin to STATSAPI_CORS_ORIGINS, or send the request "
        "from a program that is not a browser, without an Origin."
    )
    return problems.problem(403, problems.code_of("Forbidden"), "Forbidden", detail)


def _identify(keys: Keys | None, tokens: Tokens | None) -> Response | None:
    """Identify the caller and set `g.key_id`. 401 without a known key, 403 without the scope. Costs 5 µs."""
    caller = asked()
    rule, environ = caller.url_rule, caller.environ
    # A preflight cannot carry a key, and an unknown path has nothing to guard: they get their usual 200, 404 or 405.
    if rule is None or environ["REQUEST_METHOD"].upper() == "OPTIONS":
        return None
    scope = scope_of(rule.endpoint)
    if scope is OPEN:
        return None
    as_influx = rule.endpoint.startswith(INFLUX)
    presented = _presented(environ)
    if not presented and as_influx:
        presented = _presented_as_influx(caller)
    elif not presented and rule.endpoint.startswith(_PUSHGATEWAY):
        presented = _password(caller)
    if not presented:
        if "is_beacon" in g:
            return None
        detail = "Send an API key: Authorization: Bearer KEY, or X-API-Key: KEY."
        if tokens is not None:
            detail = "Send a token: Authorization: Bearer TOKEN." if keys is None else f"{detail[:-1]}, or a token."
        if as_influx:
            detail = (
                "Send an API key as the token (Authorization: Token KEY), or as the password: Basic, or the "
                "parameter p."
            )
        return _refuse(401, "Unauthorized", detail, _CHALLENGE)
    try:
        held = _find(keys, tokens, presented)
    except InvalidTokenError as error:
        return _refuse(401, "Unauthorized", str(error), f'{_CHALLENGE}, error="invalid_token"')
    g.key_id = held.id
    if not held.may(scope):
        holder = "this token" if held.id.startswith("jwt:") else f"key {held.id}"
        detail = f"This needs the scope {scope}, which {holder} does not have."
        return _refuse(403, "Forbidden", detail, f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"')
    return None


def _find(keys: Keys | None, tokens: Tokens | None, presented: str) -> Caller:
    """The caller with this key or token. InvalidTokenError, with a sentence for the client, where it is not known."""
    held = None if keys is None else keys.find(presented)
    if held is not None:
        return held
    if tokens is None or (keys is not None and presented.count(".") != 2):
        raise InvalidTokenError("This API key is not known; it may have been replaced.")
    try:
        return tokens.find(presented)
    except InvalidTokenError as error:
        raise InvalidTokenError(f"This token is not accepted: {error}.") from None


def _presented_as_influx(caller: Request) -> str:
    """The key where InfluxDB's clients put it: a token, a password, or the password in the query."""
    given: str = caller.environ.get("HTTP_AUTHORIZATION", "")
    if given[:6].lower() == "token ":
        return given[6:].strip()
    return _password(caller) or str(caller.args.get("p", ""))


def _password(caller: Request) -> str:
    """The key where clients of a Pushgateway put it too."""
    basic = caller.authorization
    return str(basic.password or "") if basic is not None and basic.type == "basic" else ""


def _refuse(status: int, title: str, detail: str, challenge: str) -> Response:
    headers = {"WWW-Authenticate": challenge}
    return problems.problem(status, problems.code_of(title), title, detail, headers=headers)


def _presented(environ: dict[str, str]) -> str:
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return environ.get(
        "HTTP_X_API_KEY", ""
    ).strip()  # next to Authorization: Basic too, which a proxy in front may need
