"""The kinds of fields that events and queries have: what each takes, what it becomes, and the words of a 422 about it.

Each kind describes its input in `json_schema`, from which openapi.py describes the API.
"""

from __future__ import annotations

import base64
import re
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote, unquote_plus

from flask import current_app, has_request_context, request
from marshmallow import ValidationError, fields, validate

from statsapi.api.cures import why_no_number
from statsapi.api.figures import NAMES, STATS, Figure, parse_figures, parse_percent
from statsapi.durations import parse_duration_us
from statsapi.errors import echo, why_repeated
from statsapi.model import DEFAULT_SERIES, MAX_TS_US, MIN_TS_US, Percent
from statsapi.naming.names import NAME_MAX, NAME_RULE, canonical_name
from statsapi.service.reading import PagePosition
from statsapi.service.service import Service
from statsapi.times import FromNow, parse_instant, parse_timestamp_us

_REPEATED_MAX: Final = 1000


class WholeNumber(fields.Integer):
    """A whole number from `least` to `most`."""

    def __init__(self, least: int, most: int, **options: Any) -> None:
        rule = f"must be a whole number from {least:,} to {most:,}"
        super().__init__(
            validate=validate.Range(least, most, error=rule),
            error_messages={"invalid": rule, "too_large": rule},
            **options,
        )


class Word(fields.String):
    """One of two words or more."""

    def __init__(self, *words: str, **options: Any) -> None:
        rule = f"must be {', '.join(words[:-1])} or {words[-1]}"
        super().__init__(validate=validate.OneOf(words, error=rule), **options)


class Timestamp(fields.Field[int]):
    """Any timestamp that statsapi.times reads; deserializes to microseconds UTC."""

    json_schema: ClassVar = {
        "anyOf": [
            {"type": "string", "examples": ["2025-11-21T07:45:00Z"]},  # not format: date-time, which is narrower
            {"type": "number", "minimum": MIN_TS_US * 1000, "exclusiveMaximum": (MAX_TS_US + 1) * 1000},
        ],
        "description": "ISO 8601 with a full date, RFC 2822, or Unix time as a number or text (seconds, beyond 2e10 "
        "milliseconds, 2e13 microseconds, 2e16 nanoseconds); UTC without an offset. An ambiguous one is refused",
    }
    default_error_messages = {  # noqa: RUF012 (marshmallow reads it from the class)
        "required": "is missing; give an ISO 8601 string or Unix seconds",
        "null": "must be an ISO 8601 string or Unix seconds, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            return parse_timestamp_us(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


# A space that was a plus before an offset: a time stands before it, and behind the offset nothing but a zone's name or
# tag. Go writes the offset twice where the zone has no name. In 2025:11:21 07:45, as cameras write it, the first colons
# belong to the date.
_LOST_PLUS: Final = re.compile(
    r"((?:[Tt]\d|[^\d:]\d\d?:).{0,24}?) (\d\d(?::?\d\d)?)(?: +\2)?(?= *(?:\Z|\[|\([^)]*\)\Z| [A-Z]{1,5}\b))", re.ASCII
)


_LOST_PLUS_OF_NOW: Final = re.compile(r"\A(now) +(?=[\dP])", re.ASCII | re.IGNORECASE)


class Instant(fields.Field[int | FromNow]):
    """A timestamp as in a body, or one relative to the instant of the answer, which `span_edges` resolves.

    A space before an offset may be a plus: in a URL, the + of ?start=2025-11-21T07:45:00+01:00 means a space.
    """

    json_schema: ClassVar = {
        "type": "string",
        "examples": ["2025-11-21T07:45:00Z", "now-1h"],
        "description": "a timestamp as in an event, or now, now-1h30m, now+5m: relative to the instant of the answer",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int | FromNow:
        text = _LOST_PLUS.sub(r"\1+\2", _LOST_PLUS_OF_NOW.sub(r"\1+", str(value).strip()), count=1)
        try:
            return parse_instant(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class CommaSeparated(fields.Field[list[Any]]):
    """`a,b,c` in one parameter: each item is loaded by `inner`; at least one, at most `most`, none twice."""

    json_schema: ClassVar = {"type": "string", "minLength": 1, "description": "several, with commas between"}

    def __init__(self, inner: fields.Field[Any], most: int, **options: Any) -> None:
        super().__init__(**options)
        self.inner = inner
        self.most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        items = [item.strip() for item in str(value).split(",")]
        if len(items) > self.most:
            raise ValidationError(f"takes at most {self.most}, not {len(items)}")
        loaded = []
        if len(items) > 1 and "" in items:
            raise ValidationError(
                "has an empty item before, after or between commas: write the missing item, or remove a comma"
            )
        for item in items:
            try:
                loaded.append(self.inner.deserialize(item))
            except ValidationError as error:
                raise ValidationError([f"{echo(item)!r} {message}" for message in error.messages]) from None
        if repeated := why_repeated(items, loaded):
            raise ValidationError(repeated)
        return loaded


class Repeated(fields.Field[tuple[Any, ...]]):
    """A parameter that may be given more than once: each value is loaded by `inner`, at most `most` of them.

    Names and patterns may hold commas, so a list of them cannot be separated by commas.
    """

    def __init__(
        self, inner: fields.Field[Any], most: int = _REPEATED_MAX, *, description: str, required: str = ""
    ) -> None:
        """required: the message where the parameter is missing; None where it is optional."""
        described = {"description": description} if description else {}
        messages: dict[str, Any] = {"required": required} if required else {}
        super().__init__(required=bool(required), metadata=described, error_messages=messages)
        self.inner = inner
        self.most = most
        item: dict[str, Any] = getattr(inner, "json_schema", {})
        self.json_schema = {"type": "array", "items": {"type": "string"} | item, "minItems": 1, "maxItems": most}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if len(values) > self.most:
            raise ValidationError(f"may be given {self.most} times, not {len(values)}")
        return tuple(self.inner.deserialize(each) for each in values)


_WORDS: Final = f"({'|'.join(NAMES)}|p100(\\.0{{0,30}})?|p[0-9]{{1,2}}(\\.[0-9]{{0,30}})?|p\\.[0-9]{{1,30}})"


class Stats(fields.Field[list[Figure]]):
    """Names of statistics, or `all`; deserializes to figures in the order of the answer."""

    json_schema: ClassVar = {
        "type": "string",
        "pattern": f"^(all|{_WORDS}(,{_WORDS})*)$",
        "description": f"some of {', '.join(NAMES)}, p95, p99.9, …, with commas between; or all, which is "
        f"{', '.join(STATS)}",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Figure]:
        try:
            return parse_figures(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Percentile(fields.Field[tuple[str, Percent]]):
    """A percentile: the text as written, which is its name in the answer, and its number from 0 to 100."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, Percent]:
        try:
            return value, parse_percent(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


_TAGS_RULE: Final = 'must be an object such as {"route": "/users", "status": 200}, or be left out'


class FiniteFloat(fields.Float):
    """A finite float64: a number, or a string that Python's float() reads; no booleans, NaN or infinities."""

    json_schema: ClassVar = {
        "type": ["number", "string"],
        "description": "a finite float64, or a string that holds one",
    }
    default_error_messages = {  # noqa: RUF012
        "required": "is missing; give a number such as 42.5",
        "null": "must be a number, not null",
        "special": "must be finite: NaN, infinities and numbers beyond float64 are not taken",
        "too_large": "must be finite: NaN, infinities and numbers beyond float64 are not taken",
    }

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        return (
            ValidationError(why_no_number(kwargs["input"])) if key == "invalid" else super().make_error(key, **kwargs)
        )


class SeriesName(fields.String):
    """A name in any spelling; deserializes to the canonical name, which identifies the series."""

    json_schema: ClassVar = {
        "pattern": r"^(?![=+@ -])[^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u0020\u007f-\u009f;]$",
        "description": NAME_RULE,
        "examples": ["latency", "latency;route=/users;status=200"],
    }
    default_error_messages = {"invalid": NAME_RULE, "null": NAME_RULE}  # noqa: RUF012

    def __init__(self, *, load_default: str | None = DEFAULT_SERIES) -> None:
        super().__init__(load_default=load_default)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return canonical_name(super()._deserialize(value, attr, data, **kwargs))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class QuerySeriesName(SeriesName):
    """A name as in a body. A plus in a URL means a blank, which names may hold; a plus itself is written %2B.

    Where a series with the plus is held and none with the blank, the plus stays: in older versions no name held a
    blank, so an unescaped plus worked. A %20 has never meant a plus.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = super()._deserialize(value, attr, data, **kwargs)
        if " " not in name or not has_request_context():
            return name
        # The text as it was sent, with its pluses.
        sent = (
            part.partition("=")[2]
            for part in request.query_string.decode(errors="replace").split("&")
            if "+" in part and unquote_plus(part.partition("=")[0]) == attr
        )
        as_sent = next((unquote(text) for text in sent if unquote_plus(text) == value), None)
        if as_sent is None:
            return name
        reading = cast(Service, current_app.extensions["statsapi"]).ask()
        with_pluses = super()._deserialize(as_sent, attr, data, **kwargs)
        return with_pluses if reading.holds(with_pluses) and not reading.holds(name) else name


class NameAsHeld(fields.String):
    """A name exactly as it is held, unchecked: an older version may have taken one that is refused today."""

    json_schema: ClassVar = SeriesName.json_schema

    def __init__(self) -> None:
        super().__init__(required=True, error_messages={"required": "is missing: say which, as series=NAME"})


class Tags(fields.Field[dict[str, Any]]):
    """An object of tags, which `fold_tags` makes part of the series' name."""

    json_schema: ClassVar = {
        "type": "object",
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
        "description": "tags, which become part of the series' name: base;key=value, sorted by key",
        "examples": [{"route": "/users", "status": 200}],
    }
    default_error_messages = {"null": _TAGS_RULE.replace("{", "{{").replace("}", "}}")}  # noqa: RUF012 (a format)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError(_TAGS_RULE)
        return value


class Cursor(fields.Field[PagePosition | None]):
    """The position at which an export continues, as `dump_cursor` wrote it. Empty means the beginning."""

    json_schema: ClassVar = {"type": "string", "description": "`next` of the page before"}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> PagePosition | None:
        if not value:
            return None
        position: PagePosition | None = None
        try:
            ts_us, shown, series = base64.b64decode(value, altchars=b"-_", validate=True).decode().split(" ", 2)
            position = PagePosition(series, int(ts_us), int(shown))
        except ValueError:  # binascii.Error is one
            pass
        if (
            position is None
            or not 0 < len(position.series) <= NAME_MAX
            or not MIN_TS_US <= position.ts_us <= MAX_TS_US
            or not 0 <= position.shown < 2**53
        ):
            raise ValidationError("is not a cursor of this service: give `next` of the page before")
        return position


def dump_cursor(position: PagePosition) -> str:
    return base64.urlsafe_b64encode(f"{position.ts_us} {position.shown} {position.series}".encode()).decode()


class Shift(fields.String):
    """A duration that may have a sign; deserializes to µs, negative for `-1h30m`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs).strip()
        sign, length = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
        try:
            shift_us = sign * parse_duration_us(length)
        except ValueError:
            raise ValidationError("must be a duration such as 9d or -1h30m") from None
        if abs(shift_us) > MAX_TS_US - MIN_TS_US:
            raise ValidationError("moves every timestamp out of the years 1 to 9999")
        return shift_us
