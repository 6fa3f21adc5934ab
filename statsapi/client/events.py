"""Events, times and questions as the service reads them. Wrong arguments raise TypeError or ValueError before anything
is sent.

A time is a datetime with a zone, Unix seconds as a number, text as the service reads it (ISO 8601 …), or None for now.
A datetime without a zone is refused: `datetime.now()` is local time, which the service would take as UTC.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, SupportsFloat, SupportsIndex
from urllib.parse import urlencode

Timestamp = datetime | float | int | str
Number = SupportsFloat | SupportsIndex
Tags = Mapping[str, str | int | float | bool]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# The service reads an integer in this range as microseconds: a date (14 or 17 digits) has another length.
_PLAIN_US: Final = (10**15, 10**16)
_FIRST_US: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_BOOLEANS: Final = ("bool", "bool_")  # Python's and numpy's types, by name; float() would accept both


def encode_event(
    value: Number, timestamp: Timestamp | None, series: str | None, tags: Tags | None, now_us: int | None
) -> str:
    """The event as one line of NDJSON, without the line's end."""
    line = f'{{"timestamp":{_time_of(timestamp, now_us)},"value":{_number_of(value)}'
    if series is not None:
        line += _series_of(series)
    if tags:
        line += f',"tags":{_tags_of(tags)}'
    return line + "}"


def line_of(
    event: Mapping[str, Any] | tuple[Any, ...], series: str | None, tags: Tags | None, now_us: int | None
) -> str:
    """A line of NDJSON from an event in a form that record_many() takes."""
    if isinstance(event, Mapping):
        unknown = event.keys() - {"value", "timestamp", "series", "tags"}
        if unknown or "value" not in event:
            raise ValueError(
                f"an event has value, timestamp, series and tags, not {', '.join(sorted(map(str, event)))}"
            )
        named = event.get("series")
        return encode_event(
            event["value"],
            event.get("timestamp"),
            series if named is None else named,
            event.get("tags") or tags,
            now_us,
        )
    if not isinstance(event, tuple | list) or len(event) != 2:
        raise ValueError(f"{event!r} is neither a mapping nor a pair (timestamp, value)")
    return encode_event(event[1], event[0], series, tags, now_us)


def text_of_us(us: int) -> str:
    """JSON for that many microseconds since 1970, exactly."""
    if _PLAIN_US[0] <= us < _PLAIN_US[1]:
        return str(us)
    return f'"{(EPOCH + timedelta(microseconds=us)).isoformat()}"'


def micros_of(moment: datetime) -> int:
    """Microseconds since 1970 of a datetime, which must have a zone."""
    if moment != moment:  # pandas.NaT calls itself a datetime
        raise ValueError("the timestamp is NaT, which is no time")
    if moment.utcoffset() is None:
        raise ValueError(
            f"the timestamp {moment.isoformat()} has no time zone: write datetime.now(UTC), or add one by "
            ".astimezone() for local time or .replace(tzinfo=UTC) for UTC"
        )
    us = (moment - EPOCH) // _MICROSECOND
    if not _FIRST_US <= us <= _LAST_US:
        raise ValueError(f"the timestamp {moment.isoformat()} is outside the years 1 to 9999 of UTC")
    return us


def _time_of(timestamp: Timestamp | None, now_us: int | None) -> str:
    if timestamp is None:
        if now_us is None:
            raise ValueError("with an idempotency_key, give the timestamp too: a repeated call would have another time")
        return text_of_us(now_us)
    if isinstance(timestamp, datetime):
        return text_of_us(micros_of(timestamp))
    if isinstance(timestamp, str):
        if not timestamp.strip():
            raise ValueError("the timestamp is empty")
        return json.dumps(timestamp)
    return _number_of(timestamp, "timestamp")


def _number_of(value: object, what: str = "value") -> str:
    """JSON that gives the same float64 back. Integers keep their digits, so that microseconds stay exact."""
    if type(value) is not float:
        if isinstance(value, str | bytes) or type(value).__name__ in _BOOLEANS:
            raise TypeError(f"the {what} is {value!r}, which is no number")
        try:
            if hasattr(value, "__index__"):
                whole = value.__index__()
                if math.isfinite(float(whole)):  # OverflowError beyond float64
                    return str(whole)
            value = float(value)  # type: ignore[arg-type]
        except OverflowError:
            raise ValueError(f"the {what} is beyond float64") from None
        except (TypeError, ValueError):
            raise TypeError(f"the {what} is {value!r}, which is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"the {what} is {value!r}, which is no finite number")
    return repr(value)


@lru_cache(maxsize=1024)
def _series_of(series: str) -> str:
    if not isinstance(series, str):
        raise TypeError(f"the series is {series!r}, which is no text")
    if not series:
        raise ValueError("the series is empty; leave it out for the default one")
    return f',"series":{json.dumps(series)}'


def _tags_of(tags: Tags) -> str:
    if not isinstance(tags, Mapping):
        raise TypeError(f"the tags are {tags!r}; give a dict")
    for key, value in tags.items():
        if not isinstance(key, str):
            raise TypeError(f"the tag {key!r} is no text")
        if value is None or isinstance(value, list | dict | tuple | set):
            raise TypeError(f"the tag {key} is {value!r}; give text or a number")
    return json.dumps({key: _tag_text(tags[key]) for key in sorted(tags)}, separators=(",", ":"))


def _tag_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- questions -------------------------------------------------------------------------------------------------------


def query_of(parameters: Mapping[str, Any]) -> str:
    """The query string. None values are left out. Lists of `series`, `match` and `where` repeat the name, other lists
    are joined by commas.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in parameters.items():
        if value is None:
            continue
        if name in ("series", "match", "where"):
            if isinstance(value, Mapping):  # {"status": "5*"} is where=status=5*
                value = [f"{key}={pattern}" for key, pattern in value.items()]
            pairs += [(name, str(each)) for each in ([value] if isinstance(value, str) else value)]
        elif name in ("start", "end"):
            pairs.append((name, _edge_of(value)))
        elif isinstance(value, str | timedelta | bool | int | float):
            pairs.append((name, _word_of(value)))
        else:
            pairs.append((name, ",".join(_word_of(each) for each in value)))
    return urlencode(pairs)


def _edge_of(value: Timestamp) -> str:
    if isinstance(value, datetime):
        return (EPOCH + micros_of(value) * _MICROSECOND).isoformat()
    return value if isinstance(value, str) else _number_of(value, "start or end")


def _word_of(value: object) -> str:
    if isinstance(value, timedelta):
        return f"{value // _MICROSECOND}us"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
