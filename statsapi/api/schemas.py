"""JSON <-> model: shapes and ranges. Rules that need state or a clock are the service's."""

from __future__ import annotations

import re
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validate

from statsapi.model import DEFAULT_SERIES
from statsapi.times import parse_timestamp_us

SERIES_NAME: Final = re.compile(r"[A-Za-z0-9_.:/@=+\-]{1,200}\Z", re.ASCII)
SERIES_RULE: Final = "must be 1 to 200 characters out of A-Z a-z 0-9 _ . : / @ = + -"

DEBUG_PAGE_MAX: Final = 10_000


class Timestamp(fields.Field[int]):
    """Any timestamp DESIGN's section 4 allows; deserializes to microseconds UTC."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            return parse_timestamp_us(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class FiniteFloat(fields.Float):
    """A number, or what Python's float() reads in a string, within float64; no booleans, NaN or infinities."""

    default_error_messages = {  # noqa: RUF012 (marshmallow reads it from the class)
        "required": "is missing; give a number such as 42.5",
        "null": "must be a number, not null",
        "invalid": "must be a number such as 42.5",
        "special": "must be finite: NaN, infinities and numbers beyond float64 are not taken",
        "too_large": "must be finite: NaN, infinities and numbers beyond float64 are not taken",
    }


class SeriesName(fields.String):
    default_error_messages = {"invalid": SERIES_RULE}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(
            load_default=DEFAULT_SERIES, validate=validate.Regexp(SERIES_NAME, error=SERIES_RULE), **options
        )


class StrictSchema(Schema):
    """Refuses what it does not know, naming what it does: a misspelt field must not be lost."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        known = ", ".join(self.fields)
        self.error_messages = {
            **self.error_messages,
            "unknown": f"is not known here; known are: {known}",
            "type": f"must be a JSON object with the fields: {known}",
        }


class EventSchema(StrictSchema):
    timestamp = Timestamp(
        required=True,
        error_messages={
            "required": "is missing; give an ISO 8601 string or Unix seconds",
            "null": "must be an ISO 8601 string or Unix seconds, not null",
        },
    )
    value = FiniteFloat(required=True)
    series = SeriesName()


class StatisticsQuery(StrictSchema):
    series = SeriesName()


class DebugQuery(StrictSchema):
    series = SeriesName()
    limit = fields.Integer(load_default=1000, validate=validate.Range(min=1, max=DEBUG_PAGE_MAX))
    late = fields.Boolean(load_default=False)
