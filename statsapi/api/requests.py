"""What every route needs: its service, its body, its query."""

from __future__ import annotations

import json
from typing import Any, cast

from flask import current_app, request
from marshmallow import Schema
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from statsapi.service import Service


def service() -> Service:
    return cast(Service, current_app.extensions["statsapi"])


def load_query(schema: Schema) -> dict[str, Any]:
    return cast(dict[str, Any], schema.load(request.args))


def load_json(schema: Schema) -> dict[str, Any]:
    """The body through `schema`. 415 for another media type, 400 for what is no JSON, 422 for what does not fit.

    A missing Content-Type counts as JSON. The standard library's parser, not a stricter one: it lets NaN, huge
    numbers and long integers through to the schema, whose refusal names the field.
    """
    media_type = request.mimetype
    if media_type not in ("application/json", "") and not request.is_json:
        raise UnsupportedMediaType(f"Send JSON with Content-Type: application/json, not {media_type}.")
    body = request.get_data(cache=False)
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
