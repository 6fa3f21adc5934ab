"""What the routes share: the service, the query, the body, the idempotency key."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final, cast

from flask import Response, current_app, request
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from statsapi.api.schemas import StrictSchema
from statsapi.model import Key
from statsapi.service import Reply, Service

# The IETF draft's key is a quoted string; most clients send it bare. Both are the same key.
_IDEMPOTENCY_KEY: Final = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})', re.ASCII)


def service() -> Service:
    return cast(Service, current_app.extensions["statsapi"])


def load_query(schema: StrictSchema) -> dict[str, Any]:
    """The query through `schema`; a parameter given twice is refused, as one of them would be ignored."""
    if not request.query_string and schema.defaults is not None:  # most requests: 30 µs saved
        return dict(schema.defaults)
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise ValidationError({name: ["is given more than once"] for name in repeated})
    return cast(dict[str, Any], schema.load(request.args))


def load_json(body: bytes, schema: Schema) -> dict[str, Any]:
    """The body through `schema`. 415 for another media type, 400 for what is no JSON, 422 for what does not fit.

    A missing Content-Type counts as JSON. The standard library's parser, not a stricter one: it lets NaN, huge
    numbers and long integers through to the schema, whose refusal names the field.
    """
    media_type = request.mimetype
    if media_type not in ("application/json", "") and not request.is_json:
        raise UnsupportedMediaType(f"Send JSON with Content-Type: application/json, not {media_type}.")
    try:
        document = json.loads(body)
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise BadRequest(_malformed(body, error)) from None
    return cast(dict[str, Any], schema.load(document))


def _malformed(body: bytes, error: ValueError) -> str:
    if not body.strip():
        return 'The body is empty; send JSON such as {"timestamp": "2025-11-21T07:45:00Z", "value": 42.5}.'
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8: {error.reason} at byte {error.start}."
    return f"The body is not JSON: {error}."


def idempotency_key(body: bytes) -> Key | None:
    """The request's key, bound to method and path, with a digest of what was asked; None without the header.

    See draft-ietf-httpapi-idempotency-key-header.
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(header.strip())
    if match is None:
        raise ValidationError({"Idempotency-Key": ["must be 1 to 255 printable ASCII characters"]})
    name = hashlib.blake2b(digest_size=32)
    for part in (request.method, request.path, match[1] or match[2]):
        name.update(part.encode() + b"\0")
    digest = hashlib.blake2b(body, digest_size=32)
    digest.update(b"\0".join((b"", request.mimetype.encode(), request.query_string)))
    return Key(name.digest(), digest.digest(), service().settings.idempotency_ttl_us)


def json_reply(reply: Reply) -> Response:
    response = Response(reply.body, mimetype="application/json")
    if reply.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
