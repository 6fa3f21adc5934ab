"""Questions about a window, several windows, a range, or a range step by step.

Where a span begins before the raw events, its edges there lie between roll-ups: `from` is the true one, `resolution`
the roll-ups' length. Where an event of it lies there, percentiles come with `method` and `relative_error`, and
`first` is null. All else is exact as ever.
"""

from __future__ import annotations

from typing import Any

from statsapi.api.incoming import ask, load_query
from statsapi.api.schemas import SEED_STATS, StatisticsQuery, TimelineQuery, span_edges
from statsapi.engine.answers import Statistics
from statsapi.model import SECOND_US, Span
from statsapi.times import format_duration, format_timestamp

_QUERY = StatisticsQuery()
_TIMELINE_QUERY = TimelineQuery()


def get_statistics() -> dict[str, Any]:
    """Statistics of one or several windows or of a range, including everything acknowledged before the request.

    Exactly the seed's four keys unless more is asked for. All windows are answered from one instant.
    """
    query = load_query(_QUERY)
    reading = ask()
    windows_us = query.get("windows") or ([query["window"]] if "window" in query else [])
    percentiles = query.get("percentiles", [])
    stats = query.get("stats", SEED_STATS)
    answers = reading.statistics(
        query["series"],
        windows_us,
        *span_edges(query, reading.now_us),
        percentiles=[number for _, number in percentiles],
        ends="first" in stats or "last" in stats,
        field="windows" if "windows" in query else "window",
    )
    names = [name for name, _ in percentiles]
    dumped = [_dump(answer.statistics, answer.span, reading.now_us, stats, names) for answer in answers]
    if not {"window", "windows", "start"} & query.keys():
        return dumped[0]
    told = [
        _dump_span(answer.span) | _dump_resolution(answer.resolution_us) | statistics
        for answer, statistics in zip(answers, dumped, strict=True)
    ]
    return {"series": query["series"], **({"windows": told} if "windows" in query else told[0])}


def get_timeline() -> dict[str, Any]:
    """The same statistics for each step of a window or range, empty steps included, in one pass: for charts.

    The steps begin at the window's start. The last one ends with the range; a window's has no upper end, as the window
    has none, so the counts add up to the window's.
    """
    query = load_query(_TIMELINE_QUERY)
    reading = ask()
    percentiles = query.get("percentiles", [])
    stats = query.get("stats", SEED_STATS)
    span, resolution_us, steps = reading.steps(
        query["series"],
        query["step"],
        query.get("window"),
        *span_edges(query, reading.now_us),
        percentiles=[number for _, number in percentiles],
        ends="first" in stats or "last" in stats,
    )
    names = [name for name, _ in percentiles]
    return {
        "series": query["series"],
        **_dump_span(span),
        **_dump_resolution(resolution_us),
        "steps": [_dump_span(step) | _dump(answer, step, reading.now_us, stats, names) for step, answer in steps],
    }


def _dump_span(span: Span) -> dict[str, Any]:
    return {
        "from": format_timestamp(span.start_us),
        "to": None if span.end_us is None else format_timestamp(span.end_us),
    }


def _dump_resolution(resolution_us: int) -> dict[str, str]:
    return {"resolution": format_duration(resolution_us)} if resolution_us > 1 else {}


def _dump(answer: Statistics, span: Span, now_us: int, stats: Any, percentiles: list[str]) -> dict[str, Any]:
    summary = answer.summary
    dumped: dict[str, Any] = {}
    for stat in stats:
        if stat == "rate":
            length_us = (now_us if span.end_us is None else span.end_us) - span.start_us
            dumped[stat] = summary.count * SECOND_US / length_us if length_us > 0 else None
        else:
            dumped[stat] = getattr(answer if stat in ("first", "last") else summary, stat)
    if percentiles:
        numbers: list[float | None] = [*answer.percentiles] or [None] * len(percentiles)
        dumped["percentiles"] = dict(zip(percentiles, numbers, strict=True))
    reasons = {stat: "it has been rolled up with its minute" for stat in answer.rolled_up if stat in dumped}
    if answer.relative_errors:
        proven = [error for error in answer.relative_errors if error is not None]
        unproven = [name for name, error in zip(percentiles, answer.relative_errors, strict=True) if error is None]
        dumped |= {"method": "ddsketch", "relative_error": None if unproven else max(proven)}
        if unproven:
            others = f"; for the others it is {max(proven)}" if proven else ""
            reasons["relative_error"] = f"{', '.join(unproven)}: between a negative and a positive value{others}"
    if any(stat in dumped and dumped[stat] is None for stat in ("sum", "variance", "stddev")):
        reasons |= {stat: "its exact value leaves float64" for stat in summary.beyond_float64() if stat in dumped}
    return dumped | {"reasons": reasons} if reasons else dumped
