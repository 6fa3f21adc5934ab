"""The kinds of values that settings have: durations, switches, words, numbers, names, origins, rate limits. Each
refuses a value that cannot work, and its message says what to write instead.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlsplit

from marshmallow import ValidationError, fields, validate

from statsapi.durations import format_duration, parse_duration_us
from statsapi.model import DAY_US
from statsapi.naming.names import canonical_name
from statsapi.naming.patterns import Glob, is_pattern
from statsapi.redis_hosts import DATABASE_MAX, is_host, why_no_certificates

# A hundred years: a time this far before or after now is still within the years 1 to 9999.
DURATION_MAX_US: Final = 36_500 * DAY_US

_ORIGIN = re.compile(r"(https?)://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)


class Duration(fields.Field[int]):
    """A positive duration; deserializes to microseconds."""

    json_schema: ClassVar = {
        "type": "string",
        "pattern": r"^\s*[0-9Pp][0-9A-Za-zµμ.,\s]*$",
        "description": "90s, 15m, 1h30m, 5min, 2w, PT15M, or seconds",
        "examples": ["5m"],
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            duration_us = parse_duration_us(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        if not 0 < duration_us <= DURATION_MAX_US:
            raise ValidationError(f"must be longer than 0 and at most {format_duration(DURATION_MAX_US)}")
        return duration_us


_SWITCH_WORDS: Final = {
    **dict.fromkeys(("on", "true", "yes", "1"), True),
    **dict.fromkeys(("off", "false", "no", "0"), False),
}


def read_switch(text: object) -> bool | None:
    """What a word for on or off means, in any case; None for any other text. It is the only reader of such words, so
    that one word means the same in every setting.
    """
    return _SWITCH_WORDS.get(str(text).lower())


class Switch(fields.Field[bool]):
    """On or off, the same in every setting; deserializes to a bool."""

    default_error_messages = {  # noqa: RUF012 (marshmallow's way)
        "invalid": "must be on or off (or true, false, yes, no, 1, 0)"
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        on = read_switch(value)
        if on is None:
            raise self.make_error("invalid")
        return on


class AutoSwitch(Switch):
    """A switch that the service can choose itself: deserializes to `auto`, `on` or `off`."""

    default_error_messages = {"invalid": "must be auto, on or off (or true, false, yes, no, 1, 0)"}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if str(value).lower() == "auto":
            return "auto"
        return "on" if super()._deserialize(value, attr, data, **kwargs) else "off"


class Choice(fields.Field[str]):
    """One of a few words, in any case; deserializes to the word as it stands in `words`."""

    def __init__(self, *, words: tuple[str, ...], **options: Any) -> None:
        super().__init__(error_messages={"invalid": f"must be {' or '.join(words)}"}, **options)
        self._words = words

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if (word := str(value).lower()) not in self._words:
            raise self.make_error("invalid")
        return word


class Number(fields.Integer):
    """A whole number in plain digits. Python's int() would accept `1_000`, and digits of any script."""

    def __init__(self, *, least: int, most: int, **options: Any) -> None:
        rule = f"must be a whole number from {least} to {most}, in digits alone"
        super().__init__(validate=validate.Range(least, most, error=rule), error_messages={"invalid": rule}, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not re.fullmatch("[0-9]{1,18}", str(value), re.ASCII):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


# The last two are internal: they are used where the setting is unset, with an SQLite journal and with memory://.
_RATE_LIMIT_STORAGES: Final = ("redis", "rediss", "redis+unix", "sqlite+limits", "memory")
_RATE_LIMIT_REDIS: Final = re.compile(
    r"(?:[^/?\s]*@)?([^/?@:\s]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]*)?(\?\S*)?", re.ASCII
)
_RATE_LIMIT_MOST: Final = 1_000_000_000
_YEAR_S: Final = 366 * 24 * 3600


def valid_rate_limit(value: str) -> None:
    import limits  # here, as only services with a limit need it

    try:
        items = limits.parse_many(value)
    except ValueError:
        raise ValidationError("must be like 100/minute, or several of these separated by commas") from None
    if re.search(r"(/|per)\s*0+\s*[a-z]", value.lower()):  # `limits` reads `1/0 minute` as `1/minute`
        raise ValidationError("names a period of 0: write 100/minute, or 100/5 minutes")
    for item in items:
        if not 1 <= item.amount <= _RATE_LIMIT_MOST:
            raise ValidationError(
                f"must allow from 1 to {_RATE_LIMIT_MOST:,} requests, not {item.amount}; unset it for no limit"
            )
        if item.get_expiry() > _YEAR_S:
            raise ValidationError("names a period of more than a year")
    if len({item.get_expiry() for item in items}) < len(items):
        raise ValidationError("limits one period twice: leave only the lower of the two limits")


def valid_rate_limit_storage(value: str) -> None:
    """Refuse a storage that cannot work. Without this check `limits` would fail in each worker, with a traceback."""
    scheme, _, place = value.partition("://")
    if scheme not in _RATE_LIMIT_STORAGES:
        raise ValidationError("must be redis://host:port/db, rediss:// for TLS, or redis+unix:///path/to/socket")
    try:
        _ = urlsplit(value).port
    except ValueError as error:
        said = "its port is not a number up to 65535" if "ort " in str(error) else str(error)  # else it is told
        raise ValidationError(f"is not an address: {said}") from None
    match = _RATE_LIMIT_REDIS.fullmatch(place)
    if scheme in ("redis", "rediss") and (match is None or not is_host(match[1])):
        raise ValidationError("is not an address: write redis://host:port/db, where db is the database's number")
    if match is not None and int((match[3] or "/").strip("/") or 0) > DATABASE_MAX:
        raise ValidationError(f"names a database beyond the last possible one, {DATABASE_MAX}")
    if scheme == "rediss" and (why := why_no_certificates(dict(parse_qsl(urlsplit(value).query)))):
        raise ValidationError(why)
    if scheme == "redis+unix" and not re.fullmatch(r"([^/\s]*@)?/[^/].*", place):
        raise ValidationError("does not name a socket: write redis+unix:///path/to/socket")


PATH_PREFIX: Final = r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]+)*"
"""The path under which a proxy publishes the service, without its last slash. No segment is `.` or `..`."""


class PathPrefix(fields.String):
    """Deserializes to a path without its last slash; empty for none."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        prefix: str = super()._deserialize(value, attr, data, **kwargs).rstrip("/")
        if not re.fullmatch(PATH_PREFIX, prefix, re.ASCII):
            raise ValidationError("must be a path like /stats, of letters, digits and . _ ~ - between slashes")
        return prefix


class OptionalDuration(Duration):
    """A duration of a setting that can be switched off: its refusals say so."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            return super()._deserialize(value, attr, data, **kwargs)
        except ValidationError as error:
            raise ValidationError([f"{reason}, or off" for reason in error.messages]) from None


class NamesOrPatterns(fields.Field[tuple[str, ...]]):
    """Names of series and patterns for them, separated by commas. Duplicates are dropped."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        names = []
        for name in _split(value):
            try:
                names.append(Glob(name).pattern if is_pattern(name) else canonical_name(name))
            except ValueError as error:
                raise ValidationError(f"{name!r} is not the name of a series: it {error}") from None
        return tuple(dict.fromkeys(names))


class Durations(fields.Field[tuple[str, ...]]):
    """Durations separated by commas, kept as they are written. Duplicates are dropped."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        seen: dict[int, str] = {}
        for text in (texts := _split(value)):
            try:
                duration_us = Duration().deserialize(text)
            except ValidationError as error:
                raise ValidationError([f"{text!r} {reason}" for reason in error.messages]) from None
            if (other := seen.setdefault(duration_us, text)) != text:
                raise ValidationError(f"contains one window twice, as {other} and as {text}")
        return texts


_ITEMS_MAX: Final = 1000


def _split(value: object) -> tuple[str, ...]:
    """The items between the commas: at least one, without duplicates."""
    items = tuple(dict.fromkeys(item.strip() for item in str(value).split(",")))
    if not any(items):
        raise ValidationError("is empty or contains only commas: write a,b,c, or leave it unset")
    if not all(items):
        raise ValidationError("has an empty item before, after or between commas: write a,b,c")
    if len(items) > _ITEMS_MAX:
        raise ValidationError(f"takes at most {_ITEMS_MAX:,}, not {len(items):,}")
    return items


class Origins(fields.Field[tuple[str, ...]]):
    """Web origins separated by commas. They are checked, as Flask-CORS reads anything unknown as a pattern."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        origins = _split(value)
        for origin in origins:
            if origin == "*":
                continue
            match = _ORIGIN.fullmatch(origin)
            if match is None or int(match[2] or 1) not in range(1, 65_536):
                raise ValidationError(
                    f"{origin} is not an origin: write https://host or https://host:port, with no path"
                )
            if match[2] and int(match[2]) == {"http": 80, "https": 443}[match[1]]:
                shorter = origin.rpartition(":")[0]
                raise ValidationError(f"{origin} never matches, as browsers omit the default port: write {shorter}")
        return origins


class NamedOrigins(Origins):
    """Web origins, without `*`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        origins = super()._deserialize(value, attr, data, **kwargs)
        if "*" in origins:
            raise ValidationError("must name each origin: * would let every page on the web record")
        return origins
