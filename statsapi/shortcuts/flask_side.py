"""Shortcuts through Flask and Werkzeug. The package's docstring has the gain of each shortcut.

An unusual request takes the normal path through Flask and Werkzeug: one with an unknown host, path or method, a nested
context, a receiver for one of Flask's signals, hooks of a blueprint or for the end of a request, or sessions. So does
every request of an application whose methods were replaced, as request tracing tools do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import iscoroutinefunction
from itertools import chain
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from flask import Flask, Request, Response
from flask.ctx import AppContext, RequestContext, _sentinel
from flask.globals import _cv_app, _cv_request
from flask.sessions import NullSession, SecureCookieSessionInterface, SessionMixin
from flask.signals import (
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    request_finished,
    request_started,
    request_tearing_down,
)
from werkzeug.datastructures import Headers
from werkzeug.routing import MapAdapter, Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# A service has one or two host names. A client that invents more must not fill the memory.
_HOSTS_MAX: Final = 64

_JSON: Final = ("Content-Type", "application/json")

# Headers whose value Werkzeug encodes.
_ADDRESSES: Final = frozenset(("location", "content-location"))


class JsonAnswer(Response):
    """A 200 with one JSON document. It skips Werkzeug's checks that cannot matter here: the type of the body when it is
    made; a Location, a status without a body, an iterator to close when it is sent. Where a hook has changed the body
    or its length, Werkzeug's own checks run.
    """

    def __init__(self, body: bytes) -> None:
        # The attributes that Response.__init__ sets.
        self.headers = Headers()
        self._length = ("Content-Length", str(len(body)))
        self.headers._list = [_JSON, self._length]
        self._status, self._status_code = "200 OK", 200
        self.direct_passthrough = False
        self._on_close = []
        self._body = body
        self.response = [body]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        headers, pieces = self.headers._list, self.response
        if (
            self._status_code != 200
            or environ["REQUEST_METHOD"] == "HEAD"
            or self._on_close
            or type(pieces) is not list
            or len(pieces) != 1
            or pieces[0] is not self._body
            or (len(headers) != 2 and (len(headers) < 2 or any(name.lower() in _ADDRESSES for name, _ in headers)))
            or headers[1] is not self._length
        ):
            return super().__call__(environ, start_response)
        start_response(self._status, list(headers))
        return pieces


class _Request(Request):
    """A request that holds only the environ until another attribute is read."""

    # The attributes that Request.__init__ computes.
    _found_out: Final = frozenset(
        ("method", "scheme", "server", "root_path", "path", "query_string", "headers", "remote_addr")
    )

    def __init__(self, environ: WSGIEnvironment, populate_request: bool = True, shallow: bool = False) -> None:
        self.environ = environ
        self.shallow = shallow
        if populate_request and not shallow:
            environ["werkzeug.request"] = self

    def __getattr__(self, name: str) -> Any:
        """Python calls it for an attribute that is not set yet."""
        if name not in self._found_out:
            raise AttributeError(name)
        super().__init__(self.environ, populate_request=False, shallow=self.shallow)
        return self.__dict__[name]


class _Adapter(MapAdapter):
    """The URL adapter of one request. `known`: the rules without parameters by method and path, shared for one host."""

    def __init__(
        self, like: MapAdapter, path: str, method: str, query: str, known: dict[tuple[str, str], Rule]
    ) -> None:
        super().__init__(
            like.map, like.server_name, like.script_name, like.subdomain, like.url_scheme, path, method, query
        )
        self.known = known

    def match(self, *args: Any, **kwargs: Any) -> tuple[Rule | Any, Mapping[str, Any]]:
        """Match as Werkzeug does. A path without parameters is matched only the first time."""
        if args or kwargs != {"return_rule": True}:
            return super().match(*args, **kwargs)
        asked = self.default_method, self.path_info
        rule = self.known.get(asked)
        if rule is not None:
            return rule, {}
        rule, values = super().match(return_rule=True)
        # Only the exact path is kept: a client must not fill the memory with equivalent paths, such as //event.
        if not values and rule.rule == self.path_info and self.default_method in (rule.methods or ()):
            self.known[asked] = rule
        return rule, values


class _NoSessions(SecureCookieSessionInterface):
    """No sessions: all requests share an empty one that cannot be written. An embedding program that sets a secret key
    gets Flask's sessions.
    """

    empty: Final = NullSession()

    def open_session(self, app: Flask, request: Request) -> Any:
        return super().open_session(app, request) if app.secret_key else self.empty


_NO_SESSIONS: Final = _NoSessions()


class _AppContext(AppContext):
    """An application context without a URL adapter, which only requests need, and without sending signals that have no
    receiver.
    """

    def __init__(self, app: Flask) -> None:
        # The attributes that AppContext.__init__ sets.
        self.app = app
        self.url_adapter = None
        self.g = app.app_ctx_globals_class()
        self._cv_tokens = []

    def push(self) -> None:
        if appcontext_pushed.receivers:
            super().push()
        else:
            self._cv_tokens.append(_cv_app.set(self))


class _Context(RequestContext):
    """A request's context. The route of a known host, method and path is looked up, and a URL adapter is made only when
    it is needed.
    """

    app: App

    def __init__(
        self,
        app: App,
        environ: WSGIEnvironment,
        request: Request | None = None,
        session: SessionMixin | None = None,
    ) -> None:
        rule = app.known_rule(environ) if request is None and session is None else None
        self.is_known = rule is not None
        if rule is None:
            super().__init__(app, environ, request, session)
            return
        # The attributes that RequestContext.__init__ and its match_request set.
        self.app = app
        self.request = made = app.request_class(environ)
        made.json_module = app.json
        made.url_rule, made.view_args = rule, {}
        self.flashes = None
        self._session = _NoSessions.empty
        self._after_request_functions = []
        self._cv_tokens = []

    def __getattr__(self, name: str) -> Any:
        """Make the URL adapter of a known path when it is first read."""
        if name != "url_adapter":
            raise AttributeError(name)
        self.url_adapter = adapter = self.app.create_url_adapter(self.request)
        return adapter

    def push(self) -> None:
        if not self.is_known or _cv_app.get(None) is not None:
            super().push()
            return
        app_context = self.app.app_context()
        app_context.push()
        self._cv_tokens.append((_cv_request.set(self), app_context))

    def pop(self, exc: Any = _sentinel) -> None:
        app = self.app
        if (
            len(self._cv_tokens) != 1
            or app.is_replaced is not False
            or app.teardown_request_funcs
            or app.teardown_appcontext_funcs
            or request_tearing_down.receivers
            or appcontext_tearing_down.receivers
            or appcontext_popped.receivers
            or "files" in self.request.__dict__
            or _cv_request.get(None) is not self
        ):
            super().pop(exc)
            return
        token, app_context = self._cv_tokens.pop()
        _cv_request.reset(token)
        self.request.environ["werkzeug.request"] = None  # otherwise each request would be a reference cycle
        if app_context is not None:
            _cv_app.reset(app_context._cv_tokens.pop())


class App(Flask):
    """Flask with these shortcuts."""

    request_class = _Request
    session_interface = _NO_SESSIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_replaced: bool | None = None  # None until the first request to a known path
        self._adapters: dict[tuple[str | None, ...], _Adapter] = {}
        self._blueprints_of: dict[str, frozenset[str]] = {}  # by endpoint

    def app_context(self) -> AppContext:
        return _AppContext(self)

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        return _Context(self, environ)

    def known_rule(self, environ: WSGIEnvironment) -> Rule | None:
        """The route of a request whose host, method and path were seen before. None for any other, and where Flask must
        do everything: an embedding program has sessions, or has replaced methods.
        """
        adapter = self._adapters.get(_host_of(environ))
        if adapter is None or "HTTP_UPGRADE" in environ:
            return None
        rule = adapter.known.get((environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")))
        if rule is None or self.session_interface is not _NO_SESSIONS or self.config["SECRET_KEY"]:
            return None
        if self.is_replaced is None:
            self.is_replaced = _is_replaced(self)
        return None if self.is_replaced else rule

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Werkzeug binds URLs once for each host, not for each request."""
        if request is None:
            return None  # URLs are made for requests only
        environ = request.environ
        if "HTTP_UPGRADE" in environ:
            return super().create_url_adapter(request)
        asked = _host_of(environ)
        like = self._adapters.get(asked)
        path: str = environ.get("PATH_INFO", "")
        path = path if path.isascii() else path.encode("latin1").decode(errors="replace")
        place = path, environ.get("REQUEST_METHOD", "GET"), environ.get("QUERY_STRING", "")
        if like is not None:
            return _Adapter(like, *place, like.known)
        made = super().create_url_adapter(request)
        if made is not None and len(self._adapters) < _HOSTS_MAX:
            self._adapters[asked] = _Adapter(made, *place, {})
        return made

    def full_dispatch_request(self) -> Response:
        """The hooks of the application, then the view. Any error is handled by Flask."""
        context = _cv_request.get()
        if not isinstance(context, _Context) or not context.is_known:
            return super().full_dispatch_request()
        request = context.request
        endpoint: str = request.url_rule.endpoint  # type: ignore[union-attr]  # a known path has one
        blueprints = self._blueprints_of.get(endpoint)
        if blueprints is None:
            blueprints = self._blueprints_of[endpoint] = frozenset(request.blueprints)
        if (
            request_started.receivers
            or self.url_value_preprocessors
            or not blueprints.isdisjoint(self.before_request_funcs)
        ):
            return super().full_dispatch_request()
        self._got_first_request = True
        try:
            answer: Any = None
            for hook in self.before_request_funcs.get(None, ()):
                answer = hook()
                if answer is not None:
                    break
            else:
                if request.environ["REQUEST_METHOD"] == "OPTIONS":
                    answer = self.dispatch_request()
                else:
                    answer = self.view_functions[endpoint]()
        except Exception as error:  # noqa: BLE001 - as Flask does
            answer = self.handle_user_exception(error)
        hooks = self.after_request_funcs
        if (
            context._after_request_functions
            or request_finished.receivers
            or None in hooks
            or not blueprints.isdisjoint(hooks)
        ):
            return self.finalize_request(answer)
        if type(answer) is JsonAnswer:
            return answer
        if type(answer) is dict:
            return cast(Response, self.json.response(answer))
        return self.make_response(answer)


# The functions of Flask and Werkzeug that a known path skips.
_PASSED_BY: Final = (
    *("full_dispatch_request", "preprocess_request", "dispatch_request", "finalize_request", "make_response"),
    *("process_response", "do_teardown_request", "do_teardown_appcontext", "ensure_sync"),
)
_PASSED_BY_OF_CONTEXTS: Final = ("__init__", "push", "pop", "match_request")


def _is_replaced(app: App) -> bool:
    """Whether a function that a known path skips is not Flask's or this module's own: it was replaced on the
    application, on one of its classes or on a context's class, or overridden. True also where one is a coroutine.

    It takes 60 µs and runs once, as Flask allows no new view or hook after the first request. A function is recognised
    by its globals: a tool's replacement copies the name and module of the original, and may be in place before this
    module is loaded.
    """
    if app.request_class is not _Request or app.response_class is not Response:
        return True
    if not vars(app).keys().isdisjoint(_PASSED_BY):
        return True
    functions = [vars(kind).get(name) for kind in type(app).__mro__ for name in _PASSED_BY]
    for context in (_Context, _AppContext):
        functions += [vars(kind).get(name) for kind in context.__mro__[:-1] for name in _PASSED_BY_OF_CONTEXTS]
    for function in functions:
        if function is not None and not (
            type(function) is FunctionType and function.__globals__["__name__"] in ("flask.app", "flask.ctx", __name__)
        ):
            return True
    return any(map(iscoroutinefunction, chain(app.view_functions.values(), *app.before_request_funcs.values())))


def _host_of(environ: WSGIEnvironment) -> tuple[str | None, ...]:
    given = environ.get
    return (
        given("HTTP_HOST"),
        given("SERVER_NAME"),
        given("SERVER_PORT"),
        given("SCRIPT_NAME"),
        given("wsgi.url_scheme"),
    )
