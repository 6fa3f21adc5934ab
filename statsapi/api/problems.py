"""Every error as application/problem+json (RFC 9457): one function builds the body, one table knows the statuses.

    {"type": "urn:statsapi:problem:validation", "title": "…", "status": 422, "detail": "what to do",
     "errors": [{"field": "value", "reason": "must be a number"}]}

`type` is stable and made for programs; `title` and `detail` are for people. `errors` names the fields or items at
fault, where there are such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from flask import Flask, Response, current_app, has_request_context, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, default_exceptions

from statsapi import errors
from statsapi.keys import redact

# An answer lists at most this many faults, and says how many there are.
ERRORS_NAMED_MAX: Final = 100

# The most specific class wins. Among classes with the same status, the most frequent one comes first.
_STATUS: dict[type[errors.StatsError], tuple[int, str]] = {
    errors.InvalidRequest: (422, "The request is not valid"),
    errors.IdempotencyConflict: (422, "Idempotency-Key was used before"),
    errors.StoreFull: (507, "The store is full"),
    errors.JournalUnavailable: (503, "The journal is not available"),
    errors.JournalRefused: (503, "The journal cannot be used"),
    errors.JournalDamaged: (503, "The journal is damaged"),
    errors.ShuttingDown: (503, "Shutting down"),
    errors.OutOfMemory: (503, "Out of memory"),
    errors.ViewNotReady: (503, "Not ready yet"),
    errors.StatsError: (500, "Internal error"),
}

MEDIA_TYPE: Final = "application/problem+json"

# For an endpoint with its own form of errors: (status, code, detail, headers, members) -> answer.
Shape = Callable[[int, str, str, Mapping[str, str] | None, dict[str, Any]], Response]
SHAPES: Final[dict[str, Shape]] = {}
"""The endpoints with their own form of errors, by Flask's name of the endpoint."""

_HTTP_DETAIL: dict[int, str] = {
    404: "There is no such endpoint; GET / lists them.",
    500: "This is a fault of the service. It has been logged.",
}


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """An answer with that problem, in the endpoint's own form of errors where it has one."""
    shape = SHAPES.get(request.endpoint or "") if has_request_context() else None
    if shape is not None:
        return shape(status, code, detail, headers, members)
    response = Response(encode(status, code, title, detail, **members), status, mimetype=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def encode(status: int, code: str, title: str, detail: str, **members: Any) -> bytes:
    """The body of every problem. `members` (errors, outcome, …) follow the standard ones. API keys that a client wrote
    into its request are not repeated: problems end up in clients' logs.
    """
    body = {
        "type": f"urn:statsapi:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        **members,
    }
    return redact(msgspec.json.encode(body).decode()).encode() + b"\n"


def code_of(title: str) -> str:
    """The code for a status's name in HTTP: "Not Found" becomes not-found."""
    return title.lower().replace(" ", "-")


def usual(status: int) -> tuple[str, str]:
    """The code and the title of the problem that a client meets most often under this status."""
    for kind, (kinds_status, title) in _STATUS.items():
        if kinds_status == status and kind is not errors.StatsError:
            return kind.code, title
    title = default_exceptions[status]().name
    return code_of(title), title


def unreadable(error: Exception) -> Response:
    """The answer to a body in which Gunicorn found a fault. The connection closes, as the next request's start is
    unknown.
    """
    detail = f"The body could not be read: {error}; nothing was recorded."
    return problem(400, "bad-request", "Bad Request", detail, headers={"Connection": "close"})


def register(app: Flask) -> None:
    app.register_error_handler(ValidationError, _validation)
    app.register_error_handler(errors.StatsError, _refused)
    app.register_error_handler(MemoryError, _out_of_memory)
    app.register_error_handler(HTTPException, _http)


def _validation(error: ValidationError) -> Response:
    faults = [{"field": field, "reason": reason} for field, reason in flatten(error.messages)]
    return _invalid(faults)


def _invalid(faults: list[dict[str, Any]], rejected: int | None = None) -> Response:
    first = faults[0]
    where = "".join(f"{name} {first[name]}, " for name in ("index", "line") if name in first)
    where += f"{first['field']}: " if first["field"] else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    members: dict[str, Any] = {"errors": faults[:ERRORS_NAMED_MAX]}
    if len(faults) > ERRORS_NAMED_MAX:
        members["errors_total"] = len(faults)
    if rejected is not None:
        members["rejected"] = rejected
        more = f" ({rejected} event{' is' if rejected == 1 else 's are'} at fault; nothing was stored)"
    status, title = _STATUS[errors.InvalidRequest]
    return problem(status, errors.InvalidRequest.code, title, f"{where}{first['reason']}{more}", **members)


def flatten(messages: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """marshmallow's nested messages as (dotted field, reason); the whole body is the empty field."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from flatten(inner, path if key == "_schema" else f"{path}.{key}" if path else str(key))
    elif isinstance(messages, list):
        for inner in messages:
            yield from flatten(inner, path)
    else:
        yield errors.echo(path), str(messages)


def _refused(error: errors.StatsError) -> Response:
    if isinstance(error, errors.InvalidRequest):
        return _invalid(error.items, error.rejected)
    status, title = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    if status == 500:
        current_app.logger.error("Unexpected refusal", exc_info=error)
    headers, members = {}, {}
    if hasattr(error, "retry_after_s"):
        headers["Retry-After"] = str(error.retry_after_s)
    told = errors.JournalUnavailable | errors.JournalDamaged | errors.OutOfMemory | errors.ViewNotReady
    if _is_recording() and isinstance(error, told):
        members["outcome"] = "unknown" if error.outcome_unknown else "not recorded"
    return problem(status, error.code, title, str(error), headers=headers, **members)


def _is_recording() -> bool:
    """Whether the request may have recorded something: a deletion is a record too."""
    return request.method not in ("GET", "HEAD", "OPTIONS")


def _out_of_memory(error: MemoryError) -> Response:
    """Log one line without a traceback, as too low a memory limit may cause one for each request."""
    current_app.logger.error("Out of memory in %s %s", request.method, request.path)
    detail = "This worker has too little memory for the request: send less at once, or give the service more."
    return _refused(errors.OutOfMemory(detail))


def _http(error: HTTPException) -> Response:
    """Errors of Flask and Werkzeug: 404, 405, 413, 415; and 500 for every exception that nothing else handles."""
    status = error.code or 500
    title = error.name  # Werkzeug's, for http.HTTPStatus has other phrases in Python 3.13
    detail = _HTTP_DETAIL.get(status) or error.description or title
    # Our Content-Type and body replace Werkzeug's; headers like Allow and Location stay.
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    if "Allow" in headers:  # a set's order differs at each start
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    if status == 405:
        detail = f"{errors.echo(request.path)} takes {headers.get('Allow', 'other methods')}, not {request.method}."
    elif status == 413 and error.description == RequestEntityTooLarge.description:  # Werkzeug's; ours tell more
        limit = current_app.config["MAX_CONTENT_LENGTH"]
        detail = f"The body may have at most {limit} bytes (STATSAPI_MAX_BODY_BYTES)."
    members = {}
    if status == 500 and _is_recording():
        # The fault may have come after the append.
        members["outcome"] = "unknown"
        detail += " Whether this request was recorded is unknown: send it again with the same Idempotency-Key."
    return problem(status, code_of(title), title, detail, headers=headers, **members)
