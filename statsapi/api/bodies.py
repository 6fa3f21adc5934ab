"""The body of a request: reads it to its end, unpacks it, and loads the JSON of a single event."""

from __future__ import annotations

import zlib
from typing import Any, Final, cast

from flask import request
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import ClientDisconnected

from statsapi.api import cures
from statsapi.api.application import asked
from statsapi.api.body_text import EVENT_MAX_BYTES, loads, what_is_twice, why_not_json, with_cure
from statsapi.api.refusals import BadBody, TooLarge, UnsupportedForm
from statsapi.errors import echo


def read_body(limit_bytes: int) -> bytes:
    """The whole body, unpacked. BadBody for one that was cut off, TooLarge beyond the limit.

    When a client disconnects in the middle, Gunicorn hands over the received part as if it were the whole body: half a
    CSV could be recorded.
    """
    environ = asked().environ  # not the request's properties: each costs 1 µs, for every event
    announced = None if "HTTP_TRANSFER_ENCODING" in environ else int(environ.get("CONTENT_LENGTH") or 0)
    if announced is not None and announced > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        if announced is None:
            # Werkzeug truncates a chunked body at its limit without an error.
            request.max_content_length = limit_bytes + 1
            body = request.get_data(cache=False)
        else:
            # One read takes 0.4 ms for 0.5 MB. get_data takes 0.9 ms: it reads 64 KiB at a time, and each time Gunicorn
            # moves the rest.
            body = environ["wsgi.input"].read(announced)
    except (ClientDisconnected, OSError):
        raise BadBody("The body was cut off; nothing was recorded.") from None
    if announced is not None and len(body) < announced:
        raise BadBody(f"The body ended after {len(body)} of {announced} bytes; nothing was recorded.")
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    encoding = environ.get("HTTP_CONTENT_ENCODING")
    return body if encoding is None else unpack(body, encoding, limit_bytes)


def require_json(body: bytes) -> None:
    """415 for another media type; a missing Content-Type counts as JSON."""
    if asked().environ.get("CONTENT_TYPE") == "application/json":  # most requests; saves two properties
        return
    if request.mimetype and not request.is_json:
        refusal = (
            f"Send JSON with Content-Type: application/json, not {echo(request.mimetype)} "
            "(curl: add -H 'Content-Type: application/json')."
        )
        raise UnsupportedForm(with_cure(refusal, body, cures.JSON))


def load_json(body: bytes, schema: Schema) -> dict[str, Any]:
    """The body loaded by `schema`: 400 where it is not JSON, 422 where it does not fit the schema.

    The standard library's parser is used. It passes NaN, huge numbers and long integers on to the schema, whose refusal
    names the field; a stricter parser could not.
    """
    try:
        document = loads(body.decode("utf-8-sig"))
    except RecursionError:
        raise BadBody("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise BadBody(with_cure(_malformed(body, error), body, cures.JSON)) from None
    if isinstance(document, list):
        raise ValidationError("is an array, and this takes a single event: send many to POST /events")
    if isinstance(document, dict) and isinstance(document.get("events", document.get("timestamp")), list):
        raise ValidationError("holds many events, and this takes a single one: send many to POST /events")
    if found := what_is_twice(document):
        field, reason = found
        raise ValidationError({field: [reason]})
    return cast(dict[str, Any], schema.load(cast(Any, document)))


def _malformed(body: bytes, error: ValueError) -> str:
    if not body.strip():
        return 'The body is empty; send JSON such as {"timestamp": "2025-11-21T07:45:00Z", "value": 42.5}.'
    return f"The body {why_not_json(error)}."


# -- Content-Encoding ----------------------------------------------------------------------------------------------

# The input and output of one inflate call. A call holds its output twice, so a step is smaller than the whole body.
_GZIP_STEP_BYTES: Final = 64 * 1024

# Each member needs a new inflater, which takes microseconds: 16 MiB of empty members, 20 bytes each, would keep a core
# busy for seconds.
_GZIP_MEMBERS_MAX: Final = 1000


def unpack(body: bytes, content_encoding: str | None, limit_bytes: int) -> bytes:
    """The body without its Content-Encoding, which may be identity, or gzip with one member or many.

    TooLarge beyond `limit_bytes`: never more than one byte beyond is inflated. BadBody for a corrupt or truncated
    body, UnsupportedForm for another encoding. The copy at the end doubles the memory of an accepted body for a moment.
    """
    encoding = (content_encoding or "").strip().lower()
    if encoding in ("", "identity"):
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedForm(f"Send the body as it is or with Content-Encoding: gzip, not {echo(encoding)}.")
    if not body:
        raise BadBody("The gzip body is empty.")
    pieces: list[bytes] = []
    held = at = members = 0
    view = memoryview(body)
    while at < len(body):
        members += 1
        if members > _GZIP_MEMBERS_MAX:
            raise BadBody(f"The gzip body has more than {_GZIP_MEMBERS_MAX} members.")
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            step = view[at : at + _GZIP_STEP_BYTES]
            try:
                piece = inflater.decompress(step, min(_GZIP_STEP_BYTES, limit_bytes - held + 1))
            except zlib.error as error:
                raise BadBody(f"The gzip body is corrupt: {error}.") from None
            if not step and not piece and not inflater.eof:
                raise BadBody("The gzip body is truncated.")
            # At a member's end zlib may report the rest in both attributes.
            at += len(step) - len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
            held += len(piece)
            if held > limit_bytes:
                raise _too_large(limit_bytes)
            pieces.append(piece)
    unpacked = b"".join(pieces)
    if unpacked.startswith(b"\x1f\x8b"):
        raise BadBody("The body is gzip within gzip: it was packed twice, so unpack it once (gunzip).")
    return unpacked


def _too_large(limit_bytes: int) -> TooLarge:
    if limit_bytes == EVENT_MAX_BYTES:
        return TooLarge(
            f"A single event may have at most {limit_bytes} bytes, unpacked; POST /events takes many in one body."
        )
    return TooLarge(f"The body may have at most {limit_bytes} bytes, unpacked (STATSAPI_MAX_BODY_BYTES).")
