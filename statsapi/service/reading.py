"""A reading: one consistent instant of a view, from which all questions of a request are answered.

It fixes the state and *now*. `spans.py` turns a question into spans at that now, and `over.py` answers questions about
several series. The store keeps the events and sums them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from statsapi.config import Settings
from statsapi.engine.answers import Statistics
from statsapi.engine.store import Held, Store
from statsapi.model import Percent, SeriesInfo, Span, TimestampsUs, Values
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.patterns import Selection
from statsapi.service.over import Over
from statsapi.service.spans import Cut, SpanAnswer, Spans

EVERY_SERIES: Final = Selection()


class PagePosition(NamedTuple):
    """A place among the events, ordered by series and time: after `shown` of the events at the instant `ts_us`."""

    series: str
    ts_us: int
    shown: int


class StepsAnswer(NamedTuple):
    """The statistics of each step."""

    cut: Cut
    answers: list[Statistics]


class Page(NamedTuple):
    """Events by series, then time, then arrival: (series, ts_us, value). `next` is None at the end."""

    events: list[tuple[str, int, float]]
    next: PagePosition | None


class Reading:
    """The store as caught up for one request, at `now_us`. The request uses it and drops it.

    spans: turns the windows and ranges of a question into spans. catalogue: chooses among the names of the series held,
    and caches its results for other readings. stale_s: seconds since the store was level with the journal, where the
    journal is away and the settings allow such answers; None otherwise.

    Each method answers from one moment of the store, which takes its own lock. Events recorded between two calls are in
    the second answer only; now is the same for both.
    """

    __slots__ = ("_settings", "catalogue", "now_us", "spans", "stale_s", "store")

    def __init__(
        self, store: Store, now_us: int, settings: Settings, catalogue: Catalogue, stale_s: float | None = None
    ) -> None:
        self.store = store
        self.now_us = now_us
        self.catalogue = catalogue
        self.stale_s = stale_s
        self.spans = Spans(store, now_us, settings)
        self._settings = settings

    # -- statistics

    def statistics(
        self,
        series: str,
        windows_us: Sequence[int] = (),
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        percentiles: Sequence[Percent] = (),
        ends: bool = False,
        field: str = "window",
    ) -> list[SpanAnswer]:
        """One answer for each span of the question, all from one moment. See `Store.statistics`."""
        spans = self.spans.meant(windows_us, start_us, end_us, field=field)
        answers = self.store.statistics(series, spans, self.now_us, percentiles, ends=ends)
        return [
            SpanAnswer(span, self.spans.resolution_us(span), answer)
            for span, answer in zip(spans, answers, strict=True)
        ]

    def steps(
        self,
        series: str,
        step_us: int,
        window_us: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        percentiles: Sequence[Percent] = (),
        ends: bool = False,
        align: bool = False,
    ) -> StepsAnswer:
        """A window or range in steps of `step_us`, empty ones included, all from one moment.

        InvalidRequest for too many steps, and for steps that roll-ups cannot be cut into, unless `align` allows longer
        ones.
        """
        cut = self.spans.cut(step_us, window_us, start_us, end_us, len(percentiles), align=align)
        answers = self.store.steps(series, cut.span, cut.step_us, len(cut.spans), self.now_us, percentiles, ends=ends)
        return StepsAnswer(cut, answers)

    def over(self, selection: Selection) -> Over:
        """Answers about all chosen series as one. For a single series `statistics` is cheaper."""
        return Over(self.store, self.spans, self.catalogue, selection, self._settings.max_query_series)

    # -- series and events

    def series(
        self, prefix: str, after: str, limit: int, *, raw_only: bool = False, selection: Selection = EVERY_SERIES
    ) -> list[SeriesInfo]:
        """The first `limit` of the chosen series by name after `after`. See `Listing.page`."""
        chosen = None if selection == EVERY_SERIES else self.catalogue.chosen(self.store.listing.names(), selection)
        return self.store.listing.page(prefix, after, limit, self.now_us, raw_only=raw_only, chosen=chosen)

    def holds(self, series: str) -> bool:
        """Whether anything is held of the series of that name, raw or rolled up."""
        return not self.store.listing.unknown([series])

    def tag_keys(self, selection: Selection = EVERY_SERIES) -> dict[str, int]:
        """Each tag key, sorted, with the number of chosen series that carry it. Series with roll-ups only count too."""
        return self.catalogue.tag_keys(self.store.listing.names(), selection)

    def tag_values(self, key: str, selection: Selection = EVERY_SERIES) -> dict[str, int]:
        """Each value of that tag, sorted, with how many of the chosen series carry it."""
        return self.catalogue.tag_values(self.store.listing.names(), key, selection)

    def page(self, selection: Selection, span: Span, limit: int, position: PagePosition | None) -> Page:
        """The first `limit` raw events of the chosen series in the span, from that position on.

        A late event that lies before the position does not show on later pages.
        """
        rows: list[tuple[str, int, float]] = []
        for name in self._raw_names(selection, position.series if position else ""):
            here = position if position and name == position.series and position.ts_us >= span.start_us else None
            pieces = self.store.snapshot([name], Span(here.ts_us, span.end_us) if here else span)
            events = (
                (name, ts_us, value)
                for _, columns in pieces
                for ts, values in columns
                for ts_us, value in zip(ts.tolist(), values.tolist(), strict=True)
            )
            shown = here.shown if here else 0
            rows += islice(events, shown, shown + limit + 1 - len(rows))
            if len(rows) > limit:
                break
        if len(rows) <= limit:
            return Page(rows, None)
        name, ts_us, _ = rows.pop()
        shown = sum(row[:2] == (name, ts_us) for row in rows)
        if position and shown == limit and position[:2] == (name, ts_us):
            shown += position.shown
        return Page(rows, PagePosition(name, ts_us, shown))

    def stream(self, selection: Selection, span: Span) -> list[tuple[str, Iterator[tuple[TimestampsUs, Values]]]]:
        """All raw events of the span, by series: a snapshot that may be read at any pace. See `Store.snapshot`."""
        return self.store.snapshot(list(self._raw_names(selection)), span)

    def _raw_names(self, selection: Selection, from_name: str = "") -> Iterator[str]:
        """The chosen series with raw events, sorted, from that name on. A page seldom needs all of them."""
        if selection.is_one_name():
            yield from selection.names
            return
        held = self.store.listing.raw_names(from_name)
        for names in selection.among(held) if selection != EVERY_SERIES else [held]:
            yield from names

    def held(self, series: str, limit: int, *, late_only: bool = False) -> Held:
        """The newest raw events and the late arrivals remembered. See `Store.held`."""
        return self.store.held(series, self.store.raw_from_us(self.now_us), limit, late_only=late_only)
