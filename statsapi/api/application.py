"""Flask as this service runs it: the application, its JSON, and the answer that is one JSON document.

Each does for a request what Flask and Werkzeug would do, with less work: that is what a recording mostly costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from urllib.parse import quote

import msgspec
from flask import Flask, Request, Response
from flask.json.provider import JSONProvider
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, RequestRedirect, Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# A service has one or two names; a client that makes up more must not fill the memory.
_HOSTS_MAX: Final = 64


class Json(JSONProvider):
    """Answers in the order of their keys, without spaces; 1 µs where Flask's own provider takes 10."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return msgspec.json.encode(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return msgspec.json.decode(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        body = msgspec.json.encode(self._prepare_response_obj(args, kwargs))
        return JsonAnswer(body + b"\n")


class JsonAnswer(Response):
    """An answer that is one JSON document.

    With 200 it goes out as it is: Werkzeug would look for what it cannot have, a Location, a status without a body, an
    iterator to be closed. 7 µs of 63.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.status_code != 200 or environ["REQUEST_METHOD"] == "HEAD" or self._on_close:
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return cast(Iterable[bytes], self.response)


class AppRequest(Request):
    """A request that looks once, not three times, which blueprint it belongs to."""

    _blueprints: list[str] | None = None

    @property
    def blueprints(self) -> list[str]:
        known = self._blueprints
        if known is None:
            known = self._blueprints = super().blueprints
        return known


class _Adapter(MapAdapter):
    """The URLs of one request. `known`: the rules without parameters, by method and path, for all of one host."""

    def __init__(
        self, like: MapAdapter, path: str, method: str, query: str, known: dict[tuple[str, str], Rule]
    ) -> None:
        super().__init__(
            like.map, like.server_name, like.script_name, like.subdomain, like.url_scheme, path, method, query
        )
        self.known = known

    def match(self, *args: Any, **kwargs: Any) -> tuple[Rule | Any, Mapping[str, Any]]:
        """As Werkzeug matches; a path without parameters is matched once: 0.4 µs for 4."""
        if args or kwargs != {"return_rule": True}:
            return super().match(*args, **kwargs)
        asked = self.default_method, self.path_info
        rule = self.known.get(asked)
        if rule is not None:
            return rule, {}
        rule, values = super().match(return_rule=True)
        # Nothing else: a client must not fill the memory with paths that mean the same, such as //event.
        if not values and rule.rule == self.path_info and self.default_method in (rule.methods or ()):
            self.known[asked] = rule
        return rule, values


_PAGE: Final = "dashboard.get_page"  # not there where a setting switches it off


class _NoSessions(SessionInterface):
    """There are no sessions: all requests share an empty one that cannot be written. 2 µs for making one each time."""

    _empty: Final = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return self._empty

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """There is nothing to save."""


class App(Flask):
    """Flask that asks Werkzeug once for each host, not for each request, what a URL is relative to (8 µs of 72) and
    which route a path without parameters is.
    """

    json_provider_class = Json
    request_class = AppRequest
    session_interface = _NoSessions()

    def __init__(self) -> None:
        super().__init__("statsapi", static_folder=None)
        self._adapters: dict[tuple[str | None, ...], _Adapter] = {}

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No function here is a coroutine. Looking takes 1 µs."""
        return func

    def raise_routing_exception(self, request: Request) -> NoReturn:
        """A path that lacks its last slash, or the page's that has one more, is told so relative to itself.

        Werkzeug would name an absolute URL, made of the Host that the client sent: another's, where a cache in between
        keeps it, and a wrong one behind a proxy that changes host or prefix.
        """
        target = ""
        if isinstance(request.routing_exception, RequestRedirect):
            asked = request.environ.get("SCRIPT_NAME", "") + request.environ.get("PATH_INFO", "")
            target = quote(asked.rpartition("/")[2].encode("latin1")) + "/"
        elif request.path == "/dashboard/" and request.method in ("GET", "HEAD") and _PAGE in self.view_functions:
            target = "../dashboard"
        if target:
            query = request.query_string.decode("latin1")
            target += f"?{query}" if query else ""
            raise HTTPException(response=Response(status=308, headers={"Location": target}, mimetype="text/plain"))
        super().raise_routing_exception(request)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None  # URLs are made for requests alone
        environ = request.environ
        if "HTTP_UPGRADE" in environ:
            return super().create_url_adapter(request)
        given = environ.get
        asked = (
            given("HTTP_HOST"),
            given("SERVER_NAME"),
            given("SERVER_PORT"),
            given("SCRIPT_NAME"),
            given("wsgi.url_scheme"),
        )
        like = self._adapters.get(asked)
        place = request.path, given("REQUEST_METHOD", "GET"), given("QUERY_STRING", "")
        if like is not None:
            return _Adapter(like, *place, like.known)
        made = super().create_url_adapter(request)
        if made is not None and len(self._adapters) < _HOSTS_MAX:
            self._adapters[asked] = _Adapter(made, *place, {})
        return made
