"""Questions about a window, several windows, a range, or a range step by step; of one series or of many.

Where a span begins before the raw events, its edges there are edges of roll-ups: `from` is the edge used, `resolution`
the roll-ups' length. Where the span has events there, percentiles come with `method` and `relative_error`, and `first`
is null. All other figures stay exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from flask import Response

from statsapi.api import tables
from statsapi.api.application import asked
from statsapi.api.choosing import Choice, choice_of, dump_key, groups_of, hidden_of
from statsapi.api.figures import Shown, change_of
from statsapi.api.incoming import ask, load_query, query_args
from statsapi.api.questions import HistogramQuery, StatisticsQuery, TimelineQuery
from statsapi.api.schemas import PlainStatisticsQuery, PlainTimelineQuery, StrictSchema, span_edges
from statsapi.durations import format_duration
from statsapi.engine import groups
from statsapi.engine.answers import Statistics
from statsapi.engine.histogram import Bins
from statsapi.model import Span
from statsapi.service.spans import Cut, SpanAnswer
from statsapi.times import format_timestamp

# For a timeline as CSV with ?align=true: the step used, which is `step` in JSON.
STEP_HEADER: Final = "X-Statsapi-Step"

_PLAIN: Final = PlainStatisticsQuery()
_QUERY: Final = StatisticsQuery()
_PLAIN_TIMELINE: Final = PlainTimelineQuery()
_TIMELINE: Final = TimelineQuery()
_HISTOGRAM: Final = HistogramQuery()

Json = dict[str, Any]


_NAMES: Final[dict[StrictSchema, frozenset[str]]] = {
    schema: frozenset(schema.fields) for schema in (_PLAIN, _PLAIN_TIMELINE)
}


def _is_plain(schema: StrictSchema) -> bool:
    """Whether this is a question about one series, answered as JSON, with parameters of `schema` only, as most are. It
    costs 2 µs; the schema with all parameters would take 20 µs more.
    """
    environ = asked().environ
    if "csv" in environ.get("HTTP_ACCEPT", "") and tables.accepted():
        return False
    if not environ.get("QUERY_STRING"):
        return True
    args = query_args()
    return _NAMES[schema].issuperset(args) and len(args.getlist("series")) < 2


def get_statistics() -> Json | Response:
    """Statistics of one or several windows or of a range, including everything acknowledged before the request.

    It has exactly four keys (count, min, max, mean) unless more is asked for. All windows, groups and comparisons are
    answered from one instant.
    """
    if not _is_plain(_PLAIN):
        return _many_statistics(load_query(_QUERY))
    query = load_query(_PLAIN)
    reading = ask()
    shown = Shown.of(query.get("stats"), query.get("percentiles", ()))
    answers = reading.statistics(
        query["series"],
        _windows_us(query),
        *span_edges(query, reading.now_us),
        percentiles=shown.percents,
        ends=shown.ends,
        field="windows" if "windows" in query else "window",
    )
    dumped = [shown.dump(answer.statistics, answer.span, reading.now_us) for answer in answers]
    if not {"window", "windows", "start"} & query.keys():
        return dumped[0]
    told = [dump_edges(answer) | statistics for answer, statistics in zip(answers, dumped, strict=True)]
    return {"series": query["series"], **({"windows": told} if "windows" in query else told[0])}


def _many_statistics(query: Json) -> Json | Response:
    choice, by, compare_us = choice_of(query), query.get("by"), query.get("compare")
    shown = Shown.of(query.get("stats"), query.get("percentiles", ()), *hidden_of(query))
    reading = ask()
    found = reading.over(choice.selection).statistics(
        _windows_us(query),
        *span_edges(query, reading.now_us),
        percentiles=shown.percents,
        ends=shown.ends,
        field="windows" if "windows" in query else "window",
        compare_us=compare_us,
        by=groups_of(query),
    )
    is_csv = tables.is_asked(query)
    with_edges = is_csv or not {"window", "windows", "start", "compare"}.isdisjoint(query)

    def dump(answers: list[SpanAnswer]) -> list[Json]:
        return [_dump_answer(answer, shown, reading.now_us, with_edges, compare_us is not None) for answer in answers]

    if is_csv:
        columns = [*tables.head_of(by, choice.series), "from", "to", *_columns(shown)]
        if compare_us is not None:
            earlier = ["from", "to", *_columns(shown)]
            columns += [f"previous.{name}" for name in earlier] + [f"change.{name}" for name in _numbers(shown)]
        return tables.answer(columns, (tables.flat(row) for row in _rows(choice, by, found, dump)))

    def joined(answers: list[SpanAnswer]) -> Json:
        told = dump(answers)
        return {"windows": told} if "windows" in query else told[0]

    head = choice.head(found.matched) if choice.series is None or with_edges else {}
    return head | joined(found.total) | _dump_groups(by, found, joined)


def get_timeline() -> Json | Response:
    """The same statistics for each step of a window or range, empty steps included, in one pass: for charts.

    The steps begin at the window's start. The last step ends with the range. A window has no upper end, and neither has
    its last step, so the counts add up to the window's.
    """
    if not _is_plain(_PLAIN_TIMELINE):
        return _many_steps(load_query(_TIMELINE))
    query = load_query(_PLAIN_TIMELINE)
    reading = ask()
    shown = Shown.of(query.get("stats"), query.get("percentiles", ()))
    cut, answers = reading.steps(
        query["series"],
        query["step"],
        query.get("window"),
        *span_edges(query, reading.now_us),
        percentiles=shown.percents,
        ends=shown.ends,
        align=query["align"],
    )
    return {
        "series": query["series"],
        **_dump_cut(cut, query),
        "steps": _dump_steps(cut, answers, shown, reading.now_us),
    }


def _many_steps(query: Json) -> Json | Response:
    choice, by = choice_of(query), query.get("by")
    shown = Shown.of(query.get("stats"), query.get("percentiles", ()))
    reading = ask()
    cut, found = reading.over(choice.selection).steps(
        query["step"],
        query.get("window"),
        *span_edges(query, reading.now_us),
        percentiles=shown.percents,
        ends=shown.ends,
        align=query["align"],
        by=groups_of(query),
    )

    def dump(steps: list[Statistics]) -> list[Json]:
        return _dump_steps(cut, steps, shown, reading.now_us)

    if tables.is_asked(query):
        columns = [*tables.head_of(by, choice.series), "from", "to", *_columns(shown)]
        table = tables.answer(columns, (tables.flat(row) for row in _rows(choice, by, found, dump)))
        if query["align"]:
            table.headers[STEP_HEADER] = format_duration(cut.step_us)
        return table
    return {
        **choice.head(found.matched),
        **_dump_cut(cut, query),
        "steps": dump(found.total),
        **_dump_groups(by, found, lambda steps: {"steps": dump(steps)}),
    }


def get_histogram() -> Json | Response:
    """The distribution of the values in a window or range: how many lie in each bin."""
    query = load_query(_HISTOGRAM)
    choice, by = choice_of(query), query.get("by")
    reading = ask()
    span, resolution_us, found = reading.over(choice.selection).histogram(
        query.get("window"),
        *span_edges(query, reading.now_us),
        bins=query.get("bins", 20),
        edges=query.get("edges", ()),
        log=query.get("scale") == "log",
        by=groups_of(query),
    )
    if tables.is_asked(query):
        columns = [*tables.head_of(by, choice.series), "from", "to", "low", "high", "count", "method"]
        edges_given = "edges" in query
        rows = _rows(choice, by, found, lambda bins: [_dump_span(span) | row for row in _bin_rows(bins, edges_given)])
        return tables.answer(columns, (tables.flat(row) for row in rows))

    return {
        **choice.head(found.matched),
        **_dump_span(span),
        **_dump_resolution(resolution_us),
        **_dump_bins(found.total),
        **_dump_groups(by, found, _dump_bins),
    }


def _windows_us(query: Json) -> list[int]:
    return query.get("windows") or ([query["window"]] if "window" in query else [])


def _rows(choice: Choice, by: str | None, found: groups.Answer[Any], dump: Any) -> Iterator[Json]:
    """The rows of a table: for the total where there are no groups, else for the groups."""
    if by is None:
        head = choice.head(found.matched)
        yield from (head | row for row in dump(found.total))
        return
    for key, _, answer in found.groups:
        head = dump_key(by, key)
        yield from (head | row for row in dump(answer))


def _dump_groups(by: str | None, found: groups.Answer[Any], dump: Any) -> Json:
    if by is None:
        return {}
    return {
        "groups": [dump_key(by, key) | dump(answer) for key, _, answer in found.groups],
        "groups_total": found.groups_total,
    }


def _numbers(shown: Shown) -> list[str]:
    names = [figure.name for figure in shown.figures] + [f"p{figure.name}" for figure in shown.nested]
    return list(dict.fromkeys(names))


def _columns(shown: Shown) -> list[str]:
    """The columns of one span's statistics, with the percentiles' method and error as in JSON."""
    return _numbers(shown) + (["method", "relative_error"] if shown.percents else [])


def _dump_answer(answer: SpanAnswer, shown: Shown, now_us: int, with_edges: bool, compared: bool) -> Json:
    told = dump_edges(answer) if with_edges else {}
    told |= shown.dump(answer.statistics, answer.span, now_us)
    if not compared:
        return told
    reasons = told.pop("reasons", {})
    if answer.previous is None:
        told |= {"previous": None, "change": None, "reasons": reasons | {"previous": answer.missing}}
        return told
    previous = _dump_answer(answer.previous, shown, now_us, True, False)
    change: Json = {figure.name: change_of(told[figure.name], previous[figure.name]) for figure in shown.figures}
    if shown.nested:
        now, before = told["percentiles"], previous["percentiles"]
        change["percentiles"] = {name: change_of(now[name], before[name]) for name in now}
    told |= {"previous": previous, "change": change}
    return told | {"reasons": reasons} if reasons else told


def dump_edges(answer: SpanAnswer) -> Json:
    """The span that was answered."""
    return _dump_span(answer.span) | _dump_resolution(answer.resolution_us)


def _dump_span(span: Span) -> Json:
    return {
        "from": format_timestamp(span.start_us),
        "to": None if span.end_us is None else format_timestamp(span.end_us),
    }


def _dump_cut(cut: Cut, query: Json) -> Json:
    """The span of a timeline, and its step where that may differ from the one asked for."""
    told = _dump_span(cut.span) | _dump_resolution(cut.resolution_us)
    return told | {"step": format_duration(cut.step_us)} if query["align"] else told


def _dump_steps(cut: Cut, answers: list[Statistics], shown: Shown, now_us: int) -> list[Json]:
    return [
        _dump_span(step) | shown.dump(answer, step, now_us) for step, answer in zip(cut.spans, answers, strict=True)
    ]


def _dump_resolution(resolution_us: int) -> dict[str, str]:
    return {"resolution": format_duration(resolution_us)} if resolution_us > 1 else {}


_OF_SKETCH: Final = (
    "they are those of a sketch's buckets, as part of the span has been rolled up; counts are exact, but for values "
    "that equal an edge"
)


def _dump_bins(bins: Bins) -> Json:
    summary = bins.statistics.summary
    told: Json = {
        "count": summary.count,
        "min": summary.min,
        "max": summary.max,
        "edges": bins.edges,
        "counts": bins.counts,
        "below": bins.below,
        "above": bins.above,
    }
    if bins.of_sketch:
        told |= {"method": "ddsketch", "reasons": {"edges": _OF_SKETCH}}
    return told


def _bin_rows(bins: Bins, edges_given: bool) -> Sequence[Json]:
    """The bins as rows; where the client gave the edges, also the counts below and above them."""
    rows: list[Json] = [
        {"low": low, "high": high, "count": count}
        for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False)
    ]
    if edges_given and bins.edges:
        rows.insert(0, {"high": bins.edges[0], "count": bins.below})
        rows.append({"low": bins.edges[-1], "count": bins.above})
    how = {"method": "ddsketch"} if bins.of_sketch else {}
    return [row | how for row in rows]
