"""Questions about a window, several windows, a range, or a range step by step.

Where a span begins before the raw events, its edges there lie between roll-ups: `from` is the true one, `resolution`
the roll-ups' length. Where an event of it lies there, percentiles come with `method` and `relative_error`, and
`first` is null. All else is exact as ever.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from statsapi.api.incoming import load_query, service
from statsapi.api.schemas import SEED_STATS, StatisticsQuery, TimelineQuery, span_edges
from statsapi.engine.answers import Statistics
from statsapi.errors import InvalidRequest
from statsapi.model import Span
from statsapi.times import SECOND_US, format_duration, format_timestamp

STEPS_MAX: Final = 5_000
STEP_PERCENTILES_MAX: Final = 50_000

_QUERY = StatisticsQuery()
_TIMELINE_QUERY = TimelineQuery()


def get_statistics() -> dict[str, Any]:
    """Statistics of one or several windows or of a range, including everything acknowledged before the request.

    Exactly the seed's four keys unless more is asked for. All windows are answered from one instant.
    """
    query = load_query(_QUERY)
    asked = service()
    store, now_us = asked.ask()
    windows_us = query.get("windows") or ([query["window"]] if "window" in query else [])
    field = "windows" if "windows" in query else "window"
    spans = asked.spans(store, now_us, windows_us, *span_edges(query, now_us), field=field)
    percentiles = query.get("percentiles", [])
    stats = query.get("stats", SEED_STATS)
    numbers = [number for _, number in percentiles]
    ends = "first" in stats or "last" in stats
    answers = store.statistics(query["series"], spans, now_us, numbers, ends=ends)
    dumped = [
        _dump(answer, span, now_us, stats, [name for name, _ in percentiles])
        for answer, span in zip(answers, spans, strict=True)
    ]
    if not {"window", "windows", "start"} & query.keys():
        return dumped[0]
    told = [
        _dump_span(span) | _dump_resolution(store.resolution_us(span.start_us, now_us)) | answer
        for span, answer in zip(spans, dumped, strict=True)
    ]
    return {"series": query["series"], **({"windows": told} if "windows" in query else told[0])}


def get_timeline() -> dict[str, Any]:
    """The same statistics for each step of a window or range, empty steps included, in one pass: for charts.

    The steps begin at the window's start. The last one ends with the range; a window's has no upper end, as the window
    has none, so the counts add up to the window's.
    """
    query = load_query(_TIMELINE_QUERY)
    store, now_us = service().ask()
    windows_us = [query["window"]] if "window" in query else []
    (span,) = service().spans(store, now_us, windows_us, *span_edges(query, now_us))
    step_us = query["step"]
    resolution_us = store.resolution_us(span.start_us, now_us)
    if step_us % resolution_us:
        reason = f"must be a multiple of {format_duration(resolution_us)}: this span begins where no less is kept"
        raise InvalidRequest([{"field": "step", "reason": reason}])
    # A window is as long as it is called, although its start may have been moved to between two roll-ups.
    length_us = query.get("window") or (now_us if span.end_us is None else span.end_us) - span.start_us
    n_steps = max(1, -(-length_us // step_us))
    if n_steps > STEPS_MAX:
        reason = f"makes {n_steps} steps of this span; at most {STEPS_MAX} are answered"
        raise InvalidRequest([{"field": "step", "reason": reason}])
    percentiles = query.get("percentiles", [])
    if n_steps * len(percentiles) > STEP_PERCENTILES_MAX:
        reason = f"makes {n_steps * len(percentiles)} of these steps; at most {STEP_PERCENTILES_MAX} are answered"
        raise InvalidRequest([{"field": "percentiles", "reason": reason}])
    stats = query.get("stats", SEED_STATS)
    answers = store.steps(
        query["series"],
        span,
        step_us,
        n_steps,
        now_us,
        [number for _, number in percentiles],
        ends="first" in stats or "last" in stats,
    )
    edges_us = [span.start_us + step_us * i for i in range(n_steps)]
    spans = [*(Span(*edges) for edges in pairwise(edges_us)), Span(edges_us[-1], span.end_us)]
    return {
        "series": query["series"],
        **_dump_span(span),
        **_dump_resolution(resolution_us),
        "steps": [
            _dump_span(step) | _dump(answer, step, now_us, stats, [name for name, _ in percentiles])
            for step, answer in zip(spans, answers, strict=True)
        ],
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
