"""Listing series and tags, and deleting a series."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from marshmallow import ValidationError
from werkzeug.routing import BaseConverter

from statsapi.api.choosing import selection_of
from statsapi.api.incoming import ask, load_query, require_utf8, service
from statsapi.api.questions import ListQuery, SeriesQuery
from statsapi.api.schemas import DeleteNamedQuery, DeleteQuery, span_edges
from statsapi.durations import format_duration
from statsapi.model import HOUR_US, MAX_TS_US, MIN_TS_US, MINUTE_US, Span, floor_us
from statsapi.naming.names import canonical_key, canonical_name, split_name
from statsapi.times import FromNow, format_timestamp, format_timestamps

_RESOLUTIONS = {length_us: format_duration(length_us) for length_us in (MINUTE_US, HOUR_US)}
_QUERY = SeriesQuery()
_LIST_QUERY = ListQuery()
_DELETE_QUERY = DeleteQuery()
_DELETE_NAMED_QUERY = DeleteNamedQuery()


class NameConverter(BaseConverter):
    """The rest of a path, unchanged: a name may begin or end with a slash, and an invalid name gets a reason."""

    regex = "(?s:.+)"
    part_isolating = False


def get_series() -> dict[str, Any]:
    """The series held, by name; give `next` as `after` for the next page.

    `count`, `first` and `last` cover raw events and roll-ups. Where events have been rolled up, `first` and `last` are
    edges of roll-ups, and `resolution` is the roll-ups' length.
    """
    query = load_query(_QUERY)
    page = ask().series(
        query["prefix"], query["after"], query["limit"] + 1, raw_only=query["raw"], selection=selection_of(query)
    )
    shown = page[: query["limit"]]
    moments = format_timestamps([ts_us for _, _, *ends_us, _ in shown for ts_us in ends_us])
    rows: list[dict[str, Any]] = [
        {"name": name, "tags": _tags_of(name), "count": events, "first": first, "last": last}
        | ({} if resolution_us == 1 else {"resolution": _RESOLUTIONS[resolution_us]})
        for (name, events, _, _, resolution_us), first, last in zip(shown, moments[::2], moments[1::2], strict=True)
    ]
    return {
        "series": rows,
        "next": shown[-1].name if len(page) > len(shown) else None,
    }


def _tags_of(name: str) -> dict[str, str]:
    return split_name(name)[1] if ";" in name else {}


def get_tags() -> dict[str, Any]:
    """The keys of the tags that series carry, and how many series carry each; pages as those of the series."""
    query = load_query(_LIST_QUERY)
    page, after = _page(ask().tag_keys(selection_of(query)), query)
    return {"tags": [{"key": key, "series": carry} for key, carry in page], "next": after}


def get_tag_values(key: str) -> dict[str, Any]:
    """The values of one tag, and how many series carry each. A tag that none carries has no values."""
    query = load_query(_LIST_QUERY)
    require_utf8("key")
    try:
        key = canonical_key(key)
    except ValueError as error:
        raise ValidationError({"key": [str(error)]}) from None
    page, after = _page(ask().tag_values(key, selection_of(query)), query)
    return {"key": key, "values": [{"value": value, "series": carry} for value, carry in page], "next": after}


def _page(found: dict[str, int], query: dict[str, Any]) -> tuple[list[tuple[str, int]], str | None]:
    """The page that the query asks for, and its `next`."""
    texts = list(found)
    first = bisect_right(texts, query["after"])
    last = first + query["limit"]
    return [(text, found[text]) for text in texts[first:last]], texts[last - 1] if last < len(texts) else None


def delete_series(name: str) -> dict[str, Any]:
    """Forget a series, or its events in a range of whole minutes, on every worker and in every replay."""
    require_utf8("name")
    return _delete("name", name, load_query(_DELETE_QUERY))


def delete_named_series() -> dict[str, Any]:
    """The same with the name in the query, which works for every name: clients and proxies may change a path."""
    query = load_query(_DELETE_NAMED_QUERY)
    return _delete("series", query.pop("series"), query)


def _delete(field: str, name: str, query: dict[str, Any]) -> dict[str, Any]:
    _refuse_relative(query)
    if not ask().holds(name):
        try:
            name = canonical_name(name)
        except ValueError as error:
            raise ValidationError({field: [str(error)]}) from None
    deleted = service().delete(name, Span(query.get("start", MIN_TS_US), query.get("end")))
    return {"status": "success", "series": name, "deleted": deleted}


def _refuse_relative(query: dict[str, Any]) -> None:
    """Refuse relative times and suggest a range: now-10m is no whole minute, and rounding would delete other events."""
    now_us = service().now_us()
    edges = dict(zip(("start", "end"), span_edges(query, now_us), strict=True))
    faults = {}
    for name, edge_us in edges.items():
        if edge_us is not None and isinstance(query[name], FromNow):
            minute_us = floor_us(edge_us if name == "start" else edge_us + MINUTE_US - 1, MINUTE_US)
            faults[name] = [
                f"is relative to now, and a deletion takes whole minutes; the nearest range that covers it has "
                f"{format_timestamp(min(minute_us, MAX_TS_US))}"
            ]
    if faults:
        raise ValidationError(faults)
