"""Helpers of the routes: the service, its reading, the query, the idempotency key, the answer to a recording."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

from flask import Response, after_this_request, current_app, g, request
from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict

from statsapi.api.application import Json, asked
from statsapi.api.schemas import StrictSchema
from statsapi.errors import echo
from statsapi.model import IdempotencyKey
from statsapi.service.reading import Reading
from statsapi.service.service import Reply, Service

STALE_WARNING: Final = '110 statsapi "Response is Stale"'

_NO_UTF8: Final = "holds percent-encoded bytes that are not UTF-8"

# The IETF draft has the key in quotes, and most clients send it without. Both forms mean the same key.
_IDEMPOTENCY_KEY: Final = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})', re.ASCII)


def service() -> Service:
    found: Service = current_app._get_current_object().extensions["statsapi"]  # type: ignore[attr-defined]
    return found


def ask() -> Reading:
    """The reading that answers this request. A stale reading marks the answer with RFC 9111's Age, and with the Warning
    that HTTP caches use.
    """
    reading = service().ask()
    if reading.stale_s is not None:
        age = str(math.ceil(reading.stale_s))

        @after_this_request
        def mark(response: Response) -> Response:
            response.headers["Age"] = age
            response.headers["Warning"] = STALE_WARNING
            return response

    return reading


def load_query(schema: StrictSchema) -> dict[str, Any]:
    """The query loaded by `schema`. A parameter given twice is refused where one of its values would be ignored."""
    if schema.defaults is not None and not asked().environ.get("QUERY_STRING"):  # most requests; saves 30 µs
        return dict(schema.defaults)
    args = query_args()
    repeated = [name for name, values in args.lists() if len(values) > 1]
    if not repeated:
        return cast(dict[str, Any], schema.load(args))
    if refused := [name for name in repeated if name not in schema.repeated]:
        raise ValidationError({name: ["is given more than once"] for name in refused})
    given = {name: values if name in repeated else values[0] for name, values in args.lists()}
    return cast(dict[str, Any], schema.load(given))


def query_args() -> MultiDict[str, str]:
    """The query's parameters. ValidationError where one is not UTF-8: Werkzeug leaves %FF as three characters, which
    would be the name of another series.
    """
    written: str = asked().environ.get("QUERY_STRING", "")
    if "%" in written or not written.isascii():
        for parameter in written.encode("latin-1").split(b"&"):
            try:
                unquote_to_bytes(parameter).decode()
            except UnicodeDecodeError:
                name = unquote_to_bytes(parameter.partition(b"=")[0]).decode(errors="replace")
                raise ValidationError({echo(name): [_NO_UTF8]}) from None
    return request.args


def idempotency_key(body: bytes) -> IdempotencyKey | None:
    """The request's idempotency key, bound to API key, method and path, with a digest of the request.

    None without the header.

    See draft-ietf-httpapi-idempotency-key-header.
    """
    header: str | None = asked().environ.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(header.strip())
    if match is None:
        raise ValidationError({"Idempotency-Key": ["must be 1 to 255 printable ASCII characters"]})
    name = hashlib.blake2b(digest_size=32)
    for part in (request.method, request.path, match[1] or match[2]):
        name.update(part.encode() + b"\0")
    if (key_id := g.get("key_id")) is not None:  # anonymous adds nothing: older names stay valid
        name.update(key_id.encode() + b"\0")
    digest = hashlib.blake2b(body, digest_size=32)
    digest.update(b"\0".join((b"", request.mimetype.encode(), request.query_string)))
    return IdempotencyKey(name.digest(), digest.digest(), service().settings.idempotency_ttl_us)


def json_reply(reply: Reply) -> Response:
    provider: Json = current_app._get_current_object().json  # type: ignore[attr-defined]
    return provider.answer(reply.body)


def require_utf8(field: str) -> None:
    """ValidationError where the path is not UTF-8. Werkzeug would put U+FFFD there, which makes another name."""
    try:
        request.environ["PATH_INFO"].encode("latin-1").decode()
    except UnicodeDecodeError:
        raise ValidationError({field: [_NO_UTF8]}) from None
