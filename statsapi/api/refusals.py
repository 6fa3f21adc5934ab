"""The refusals of a whole body, for those who read bodies and know no web: `decoding` raises them."""

from __future__ import annotations

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType


class BadBody(BadRequest):
    """400: the body is not what its media type says."""


class TooLarge(RequestEntityTooLarge):
    """413: the body holds more than a limit allows."""


class UnsupportedForm(UnsupportedMediaType):
    """415: the body's media type or Content-Encoding is not taken."""
