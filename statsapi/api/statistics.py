"""Questions about a window, several windows, a range, or a range step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from flask import Blueprint

from statsapi.api.requests import load_query, service
from statsapi.api.schemas import SEED_STATS, StatisticsQuery, TimelineQuery
from statsapi.errors import InvalidRequest
from statsapi.model import Span
from statsapi.store import Statistics
from statsapi.times import SECOND_US, format_timestamp

blueprint = Blueprint("statistics", __name__)

STEPS_MAX: Final = 5_000
STEP_PERCENTILES_MAX: Final = 50_000

_QUERY = StatisticsQuery()
_TIMELINE_QUERY = TimelineQuery()


@blueprint.get("/statistics")
def get_statistics() -> dict[str, Any]:
    """Statistics of one or several windows or of a range, including everything acknowledged before the request.

    Exactly the seed's four keys unless more is asked for. All windows are answered from one instant.
    """
    query = load_query(_QUERY)
    store, now_us = service().ask()
    windows_us = query.get("windows") or ([query["window"]] if "window" in query else [])
    field = "windows" if "windows" in query else "window"
    spans = service().spans(store, now_us, windows_us, query.get("start"), query.get("end"), field=field)
    percentiles = query.get("percentiles", [])
    stats = query.get("stats", SEED_STATS)
    answers = store.statistics(
        query["series"], spans, [number for _, number in percentiles], ends="first" in stats or "last" in stats
    )
    dumped = [
        _dump(answer, span, now_us, stats, [name for name, _ in percentiles])
        for answer, span in zip(answers, spans, strict=True)
    ]
    if "windows" in query:
        return {
            "series": query["series"],
            "windows": [_dump_span(span) | answer for span, answer in zip(spans, dumped, strict=True)],
        }
    if "window" in query or "start" in query:
        return {"series": query["series"], **_dump_span(spans[0]), **dumped[0]}
    return dumped[0]


@blueprint.get("/statistics/timeline")
def get_timeline() -> dict[str, Any]:
    """The same statistics for each step of a window or range, empty steps included, in one pass: for charts.

    The steps begin at the window's start. The last one ends with the range; a window's has no upper end, as the window
    has none, so the counts add up to the window's.
    """
    query = load_query(_TIMELINE_QUERY)
    store, now_us = service().ask()
    windows_us = [query["window"]] if "window" in query else []
    (span,) = service().spans(store, now_us, windows_us, query.get("start"), query.get("end"))
    step_us = query["step"]
    length_us = (now_us if span.end_us is None else span.end_us) - span.start_us
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
        [number for _, number in percentiles],
        ends="first" in stats or "last" in stats,
    )
    edges_us = [span.start_us + step_us * i for i in range(n_steps)]
    spans = [*(Span(*edges) for edges in pairwise(edges_us)), Span(edges_us[-1], span.end_us)]
    return {
        "series": query["series"],
        **_dump_span(span),
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
    beyond = [stat for stat in ("sum", "variance", "stddev") if stat in dumped and dumped[stat] is None]
    if beyond and (beyond := [stat for stat in summary.beyond_float64() if stat in beyond]):
        dumped["reasons"] = dict.fromkeys(beyond, "its exact value leaves float64")
    return dumped
