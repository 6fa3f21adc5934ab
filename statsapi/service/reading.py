"""A reading: one consistent instant of a view, from which everything that a request asks is answered.

It fixes the state and *now*. What a question means by that now is decided here: where its spans begin and end, how far
back it may reach, how finely it may cut. What is kept, and how it adds up, is the store's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple

from statsapi.config import Settings
from statsapi.engine.answers import Statistics
from statsapi.engine.store import Held, Store
from statsapi.errors import InvalidRequest
from statsapi.exposition import State
from statsapi.model import Percent, Retention, SeriesInfo, Span, TimestampsUs, Values
from statsapi.naming.catalogue import Catalogue
from statsapi.times import format_duration, format_timestamp, parse_duration_us

STEPS_MAX: Final = 5_000
STEP_PERCENTILES_MAX: Final = 50_000


class Position(NamedTuple):
    """A place among the events by series and time: behind `shown` of the events at that very instant."""

    series: str
    ts_us: int
    shown: int


class Answer(NamedTuple):
    """The statistics of a span. Its edges, where they lie before the raw events, are multiples of `resolution_us`."""

    span: Span
    resolution_us: int
    statistics: Statistics


class Steps(NamedTuple):
    """The statistics of a span, step by step: the last step ends where the span does."""

    span: Span
    resolution_us: int
    steps: list[tuple[Span, Statistics]]


class Page(NamedTuple):
    """Events by series, then time, then arrival: (series, ts_us, value). `next` is None at the end."""

    events: list[tuple[str, int, float]]
    next: Position | None


class Reading:
    """The store as caught up for one request, at `now_us`. To be used by that request and then dropped.

    catalogue: chooses among the names of the series that are held, and remembers what it found for other readings.
    stale_s: how long ago the store was level with the journal, where the journal is away and the settings allow such
    answers; None otherwise.

    Each method is answered from one moment of the store, which takes its own lock. What is recorded between two calls
    is in the second only; now is the same for both.
    """

    __slots__ = ("_settings", "catalogue", "now_us", "stale_s", "store")

    def __init__(
        self, store: Store, now_us: int, settings: Settings, catalogue: Catalogue, stale_s: float | None = None
    ) -> None:
        self.store = store
        self.now_us = now_us
        self.catalogue = catalogue
        self.stale_s = stale_s
        self._settings = settings

    # -- which span is meant

    def spans(
        self,
        windows_us: Sequence[int] = (),
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        field: str = "window",
    ) -> list[Span]:
        """The spans that a question means: an explicit range, or windows that end now and have no upper bound.

        Without either it is the default window. An edge where there are only roll-ups is moved outwards, to between two
        of them. InvalidRequest where a span reaches past what is kept; `field` is what its client calls the windows. A
        start may lie up to the grace before the retention, as its client computed it some time ago.
        """
        now_us = self.now_us
        if start_us is not None:
            if start_us < (from_us := self.store.retention.from_us(now_us)):
                raise InvalidRequest([{"field": "start", "reason": self._past_what_is_kept(from_us)}])
            spans = [Span(start_us, end_us)]
        else:
            longest_us = self._settings.longest_window_us()
            for window_us in windows_us:
                if window_us > longest_us:
                    reason = f"{format_duration(window_us)} {self._past_what_is_kept(now_us - longest_us)}"
                    raise InvalidRequest([{"field": field, "reason": reason}])
            spans = [Span(now_us - window_us) for window_us in windows_us or (self._settings.window_us,)]
        return [self._between_rollups(span) for span in spans]

    def _between_rollups(self, span: Span) -> Span:
        start_us, end_us = span
        start_us -= start_us % self.store.resolution_us(start_us, self.now_us)
        if end_us is not None:
            end_us += -end_us % self.store.resolution_us(end_us, self.now_us)
        return Span(start_us, end_us)

    def raw_span(self, start_us: int | None, end_us: int | None) -> Span:
        """The span of raw events that a question means; without a start it begins with the first one held.

        InvalidRequest where it begins before.
        """
        raw_from_us = self.store.raw_from_us(self.now_us)
        if start_us is not None and start_us < raw_from_us:
            kept = f"raw events are kept for {format_duration(self._settings.retention_us)} (STATSAPI_RETENTION)"
            reason = f"reaches past what is kept: {kept}, now since {format_timestamp(raw_from_us)}"
            raise InvalidRequest([{"field": "start", "reason": reason}])
        return Span(raw_from_us if start_us is None else start_us, end_us)

    def _past_what_is_kept(self, from_us: int) -> str:
        kept = describe_kept(self._settings, self.store.retention)
        return f"reaches past what is kept: {kept}, now since {format_timestamp(from_us)}"

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
    ) -> list[Answer]:
        """One answer for each span that `spans` makes of it, all from one moment. See `Store.statistics`."""
        spans = self.spans(windows_us, start_us, end_us, field=field)
        answers = self.store.statistics(series, spans, self.now_us, percentiles, ends=ends)
        return [
            Answer(span, self.store.resolution_us(span.start_us, self.now_us), answer)
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
    ) -> Steps:
        """A window or range in steps of `step_us`, empty ones included, all from one moment.

        InvalidRequest for steps that roll-ups cannot be cut into, and for more of them than are answered.
        """
        (span,) = self.spans([] if window_us is None else [window_us], start_us, end_us)
        resolution_us = self.store.resolution_us(span.start_us, self.now_us)
        if step_us % resolution_us:
            reason = f"must be a multiple of {format_duration(resolution_us)}: this span begins where no less is kept"
            raise InvalidRequest([{"field": "step", "reason": reason}])
        # A window is as long as it is called, although its start may have been moved to between two roll-ups.
        length_us = window_us or (self.now_us if span.end_us is None else span.end_us) - span.start_us
        n_steps = max(1, -(-length_us // step_us))
        if n_steps > STEPS_MAX:
            reason = f"makes {n_steps} steps of this span; at most {STEPS_MAX} are answered"
            raise InvalidRequest([{"field": "step", "reason": reason}])
        if n_steps * len(percentiles) > STEP_PERCENTILES_MAX:
            reason = f"makes {n_steps * len(percentiles)} of these steps; at most {STEP_PERCENTILES_MAX} are answered"
            raise InvalidRequest([{"field": "percentiles", "reason": reason}])
        answers = self.store.steps(series, span, step_us, n_steps, self.now_us, percentiles, ends=ends)
        edges_us = [span.start_us + step_us * i for i in range(n_steps)]
        spans = [*(Span(*edges) for edges in pairwise(edges_us)), Span(edges_us[-1], span.end_us)]
        return Steps(span, resolution_us, list(zip(spans, answers, strict=True)))

    # -- series and events

    def series(self, prefix: str, after: str, limit: int, *, raw_only: bool = False) -> list[SeriesInfo]:
        """The first `limit` series by name after `after`. See `Store.series_page`."""
        return self.store.series_page(prefix, after, limit, self.now_us, raw_only=raw_only)

    def page(self, series: str | None, span: Span, limit: int, position: Position | None) -> Page:
        """The first `limit` raw events of a `raw_span` from that position on, of one series or all.

        An event that comes late into what was shown before the position is not met again.
        """
        names = [series] if series is not None else self.store.series_names(position.series if position else "")
        rows: list[tuple[str, int, float]] = []
        for name in names:
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
        return Page(rows, Position(name, ts_us, shown))

    def stream(self, series: str | None, span: Span) -> list[tuple[str, Iterator[tuple[TimestampsUs, Values]]]]:
        """All raw events of a `raw_span`, by series: a snapshot, to be walked at leisure. See `Store.snapshot`."""
        return self.store.snapshot(self.store.series_names() if series is None else [series], span)

    def held(self, series: str, limit: int, *, late_only: bool = False) -> Held:
        """The newest raw events and the late arrivals remembered. See `Store.held`."""
        return self.store.held(series, self.store.raw_from_us(self.now_us), limit, late_only=late_only)

    # -- the service itself

    def state(self, journal_bytes: int, clock_skew_us: int | None) -> State:
        """What /metrics shows of this view. O(series + chunks)."""
        settings, store = self._settings, self.store
        windows = [(text, parse_duration_us(text)) for text in settings.metrics_windows]
        windows = [(text, us) for text, us in windows if us <= settings.longest_window_us()]
        summaries = [
            (series, text, answer.statistics.summary)
            for series in (settings.metrics_series if windows else ())
            for (text, _), answer in zip(windows, self.statistics(series, [us for _, us in windows]), strict=True)
        ]
        return State(
            store.event_count(),
            store.size_bytes(),
            store.rollup_bytes(),
            store.series_count(),
            journal_bytes,
            summaries,
            clock_skew_us,
        )


def describe_kept(settings: Settings, retention: Retention) -> str:
    """For how long anything is kept, and the setting that says so."""
    setting = "STATSAPI_ROLLUP_RETENTION" if retention.rollup_us else "STATSAPI_RETENTION"
    return f"{format_duration(settings.longest_window_us())} ({setting})"
