"""A reading: one consistent instant of a view, from which everything that a request asks is answered.

It fixes the state and *now*. What a question means by that now is decided here: where its spans begin and end, how far
back it may reach, how finely it may cut. What is kept, and how it adds up, is the store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple, TypeVar

from statsapi.config import Settings
from statsapi.engine import groups
from statsapi.engine.answers import Statistics
from statsapi.engine.groups import Grouping
from statsapi.engine.histogram import Bins, Histogram
from statsapi.engine.store import Held, Store
from statsapi.engine.union import Question
from statsapi.engine.union import Spans as SpansQuestion
from statsapi.engine.union_both import Both
from statsapi.engine.union_steps import Steps as StepsQuestion
from statsapi.errors import InvalidRequest
from statsapi.exposition import State
from statsapi.model import Percent, Retention, SeriesInfo, Span, TimestampsUs, Values
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.patterns import Glob, Selection, is_pattern
from statsapi.times import format_duration, format_timestamp, parse_duration_us

STEPS_MAX: Final = 5_000
STEP_PERCENTILES_MAX: Final = 50_000

# Over several series: spans or steps times series, which is what a question holds while it is answered (300 bytes
# each); and of all groups that are shown, the numbers of percentiles, and of spans or steps (5 µs each).
PARTS_MAX: Final = 1_000_000
GROUP_PERCENTILES_MAX: Final = 1_000_000
GROUP_ROWS_MAX: Final = 200_000

# A scrape shows this many of the series that a pattern of STATSAPI_METRICS_SERIES matches: 18 lines and 0.1 ms each.
METRICS_MATCHED_MAX: Final = 1_000

EVERY_SERIES: Final = Selection()

PREVIOUS: Final = 0
"""`compare` with the span of equal length before."""

AnswerT = TypeVar("AnswerT")
OtherT = TypeVar("OtherT")


class Position(NamedTuple):
    """A place among the events by series and time: behind `shown` of the events at that very instant."""

    series: str
    ts_us: int
    shown: int


class Answer(NamedTuple):
    """The statistics of a span. Its edges, where they lie before the raw events, are multiples of `resolution_us`.

    previous: of the span that it is compared with; where there is none although it was asked for, `missing` says why.
    """

    span: Span
    resolution_us: int
    statistics: Statistics
    previous: Answer | None = None
    missing: str = ""


class Cut(NamedTuple):
    """A span cut into steps of `step_us`, whose edges before the raw events are multiples of `resolution_us`. The last
    step ends where the span does.
    """

    span: Span
    resolution_us: int
    step_us: int
    spans: list[Span]


class Steps(NamedTuple):
    """The statistics of each step."""

    cut: Cut
    answers: list[Statistics]


class ManySteps(NamedTuple):
    """The same over several series, and in groups of them."""

    cut: Cut
    answer: groups.Answer[list[Statistics]]


class ManyBins(NamedTuple):
    """How values are spread over a span."""

    span: Span
    resolution_us: int
    answer: groups.Answer[Bins]


class Groups(NamedTuple):
    """Which groups are shown beside the total, and what their order looks at, beyond summaries: those percentiles, and
    with `ends` the first and last event.
    """

    grouping: Grouping
    percents: tuple[Percent, ...] = ()
    ends: bool = False


class Page(NamedTuple):
    """Events by series, then time, then arrival: (series, ts_us, value). `next` is None at the end."""

    events: list[tuple[str, int, float]]
    next: Position | None


class _Chooser(NamedTuple):
    """Chooses the series of a question, those also that are named and not held. check: refuses too many."""

    selection: Selection
    catalogue: Catalogue
    check: Callable[[int], None]

    def matches(self, name: str) -> bool:
        return self.selection.matches(name)

    def chosen(self, held: Sequence[str]) -> Sequence[str]:
        names: Sequence[str] = self.catalogue.chosen(held, self.selection)
        if self.selection.names:
            named = {name for name in self.selection.names if self.selection.matches(name)}
            if not named.issubset(names):
                names = sorted(named.union(names))
        self.check(len(names))
        return names


@dataclass(frozen=True, slots=True)
class Over:
    """What a reading answers about the union of several series, and about groups of them.

    Each method is answered from one instant (engine/groups.py), as if all the events were of one series. Raises
    InvalidRequest where more series are chosen than STATSAPI_MAX_QUERY_SERIES, or where these make too much to hold.
    """

    _reading: Reading
    _settings: Settings
    _selection: Selection

    def statistics(
        self,
        windows_us: Sequence[int] = (),
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        percentiles: Sequence[Percent] = (),
        ends: bool = False,
        field: str = "window",
        compare_us: int | None = None,
        by: Groups | None = None,
    ) -> groups.Answer[list[Answer]]:
        """As `Reading.statistics`. With `compare_us` (or PREVIOUS) each span is compared with an earlier one.

        What `by` looks at is part of what is asked, in that order.
        """
        reading = self._reading
        spans = reading.spans(windows_us, start_us, end_us, field=field)
        earlier = [(None, "")] * len(spans) if compare_us is None else reading.compared(spans, compare_us)
        asked = [*spans, *(span for span, _ in earlier if span is not None)]
        resolutions_us = [reading.store.resolution_us(span.start_us, reading.now_us) for span in asked]
        question = SpansQuestion(tuple(asked), tuple(percentiles), ends)

        def dump(found: list[Statistics]) -> list[Answer]:
            answers = [Answer(*each) for each in zip(asked, resolutions_us, found, strict=True)]
            if compare_us is None:
                return answers
            rest = iter(answers[len(spans) :])
            return [
                answer._replace(previous=next(rest) if span else None, missing=why)
                for answer, (span, why) in zip(answers, earlier, strict=False)
            ]

        answer = self._ask(question, len(asked), len(percentiles), "windows", by)
        return _map(dump, answer)

    def steps(
        self,
        step_us: int,
        window_us: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        percentiles: Sequence[Percent] = (),
        ends: bool = False,
        align: bool = False,
        by: Groups | None = None,
    ) -> ManySteps:
        """As `Reading.steps`. Groups are put in order by the statistics of the whole span."""
        reading = self._reading
        cut = reading.cut(step_us, window_us, start_us, end_us, len(percentiles), align=align)
        steps = StepsQuestion(cut.span, cut.step_us, len(cut.spans), tuple(percentiles), ends)
        answer = self._ask_in_order(cut.span, steps, len(cut.spans), len(percentiles), "step", by)
        return ManySteps(cut, answer)

    def histogram(
        self,
        window_us: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        bins: int = 20,
        edges: Sequence[float] = (),
        log: bool = False,
        by: Groups | None = None,
    ) -> ManyBins:
        """How the values of a window or range are spread. InvalidRequest for `log` with values that have none."""
        reading = self._reading
        (span,) = reading.spans([] if window_us is None else [window_us], start_us, end_us)
        histogram = Histogram(span, bins, tuple(edges), log)
        try:
            answer = self._ask_in_order(span, histogram, 1, max(bins, len(edges)), "limit", by)
        except ValueError as error:
            raise InvalidRequest([{"field": "scale", "reason": str(error)}]) from None
        resolution_us = reading.store.resolution_us(span.start_us, reading.now_us)
        return ManyBins(span, resolution_us, answer)

    def _ask_in_order(
        self,
        span: Span,
        question: Question[Any, AnswerT],
        n_parts: int,
        n_percentiles: int,
        field: str,
        by: Groups | None,
    ) -> groups.Answer[AnswerT]:
        """Groups in order of their statistics over the whole span, which the question itself need not know."""
        if by is None or by.grouping.value is None:
            return self._ask(question, n_parts, n_percentiles, field, by)
        both = Both(SpansQuestion((span,), by.percents, by.ends), question)
        return _map(lambda found: found[1], self._ask(both, n_parts, n_percentiles, field, by))

    def _ask(
        self,
        question: Question[Any, AnswerT],
        n_parts: int,
        n_percentiles: int,
        field: str,
        by: Groups | None,
    ) -> groups.Answer[AnswerT]:
        grouping = None if by is None else by.grouping

        def check(n_series: int) -> None:
            most = self._settings.max_query_series
            if n_series > most:
                chosen_by = "match" if self._selection.globs else "where" if self._selection.where else "series"
                reason = (
                    f"chooses {n_series:,} series, and one question may be about {most:,} (STATSAPI_MAX_QUERY_SERIES): "
                    "narrow it with match or where"
                )
                raise InvalidRequest([{"field": chosen_by, "reason": reason}])
            if n_series * n_parts > PARTS_MAX:
                reason = (
                    f"makes {n_parts:,} spans of each of {n_series:,} series; at most {PARTS_MAX:,} in all are answered"
                )
                raise InvalidRequest([{"field": field, "reason": reason}])
            shown = min(n_series, grouping.limit) if grouping else 0
            if shown * n_parts > GROUP_ROWS_MAX:
                rows = f"up to {shown * n_parts:,} spans in {shown:,} groups"
                reason = f"shows {rows}; at most {GROUP_ROWS_MAX:,} are answered"
                raise InvalidRequest([{"field": "limit", "reason": reason}])
            if shown * n_parts * n_percentiles > GROUP_PERCENTILES_MAX:
                reason = (
                    f"shows up to {shown * n_parts * n_percentiles:,} percentiles or bins in {shown:,} groups; at most "
                    f"{GROUP_PERCENTILES_MAX:,} are answered"
                )
                raise InvalidRequest([{"field": "limit", "reason": reason}])

        chooser = _Chooser(self._selection, self._reading.catalogue, check)
        return groups.ask(self._reading.store, chooser, question, self._reading.now_us, grouping)


def _map(change: Callable[[AnswerT], OtherT], answer: groups.Answer[AnswerT]) -> groups.Answer[OtherT]:
    """With what it says of the series in another form."""
    shown = [groups.Group(key, series, change(found)) for key, series, found in answer.groups]
    return groups.Answer(answer.matched, change(answer.total), shown, answer.groups_total)


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
        align: bool = False,
    ) -> Steps:
        """A window or range in steps of `step_us`, empty ones included, all from one moment.

        InvalidRequest for more steps than are answered, and for those that roll-ups cannot be cut into, unless these
        may be made longer (`align`).
        """
        cut = self.cut(step_us, window_us, start_us, end_us, len(percentiles), align=align)
        answers = self.store.steps(series, cut.span, cut.step_us, len(cut.spans), self.now_us, percentiles, ends=ends)
        return Steps(cut, answers)

    def cut(
        self,
        step_us: int,
        window_us: int | None,
        start_us: int | None,
        end_us: int | None,
        n_percentiles: int,
        *,
        align: bool,
    ) -> Cut:
        """The span of a timeline and its steps. Raises as `steps` does."""
        (span,) = self.spans([] if window_us is None else [window_us], start_us, end_us)
        resolution_us = self.store.resolution_us(span.start_us, self.now_us)
        if step_us % resolution_us and align:
            step_us += resolution_us - step_us % resolution_us
        if step_us % resolution_us:
            reason = (
                f"must be a multiple of {format_duration(resolution_us)}: this span begins where no less is kept; "
                "align=true takes the next one"
            )
            raise InvalidRequest([{"field": "step", "reason": reason}])
        # A window is as long as it is called, although its start may have been moved to between two roll-ups.
        length_us = window_us or (self.now_us if span.end_us is None else span.end_us) - span.start_us
        n_steps = max(1, -(-length_us // step_us))
        if n_steps > STEPS_MAX:
            reason = f"makes {n_steps} steps of this span; at most {STEPS_MAX} are answered"
            raise InvalidRequest([{"field": "step", "reason": reason}])
        if n_steps * n_percentiles > STEP_PERCENTILES_MAX:
            reason = f"makes {n_steps * n_percentiles} of these steps; at most {STEP_PERCENTILES_MAX} are answered"
            raise InvalidRequest([{"field": "percentiles", "reason": reason}])
        edges_us = [span.start_us + step_us * i for i in range(n_steps)]
        spans = [*(Span(*edges) for edges in pairwise(edges_us)), Span(edges_us[-1], span.end_us)]
        return Cut(span, resolution_us, step_us, spans)

    def over(self, selection: Selection) -> Over:
        """Questions about all series that it chooses, answered as one. Of a single series `statistics` is cheaper."""
        return Over(self, self._settings, selection)

    def compared(self, spans: Sequence[Span], compare_us: int) -> list[tuple[Span | None, str]]:
        """With which span each of these `spans` is compared, or why with none.

        PREVIOUS is the span of equal length before; else it is the same span that long ago, and what has no upper end
        then ended at that long before now.
        """
        found: list[tuple[Span | None, str]] = []
        from_us = self.store.retention.from_us(self.now_us)
        for span in spans:
            end_us = self.now_us if span.end_us is None else span.end_us
            length_us = end_us - span.start_us
            by_us = length_us if compare_us == PREVIOUS else compare_us
            if length_us <= 0:
                found.append((None, "this span has no length as of now"))
            elif span.start_us - by_us < from_us:
                found.append((None, self._past_what_is_kept(from_us)))
            else:
                found.append((self._between_rollups(Span(span.start_us - by_us, end_us - by_us)), ""))
        return found

    # -- series and events

    def series(
        self, prefix: str, after: str, limit: int, *, raw_only: bool = False, selection: Selection = EVERY_SERIES
    ) -> list[SeriesInfo]:
        """The first `limit` of the chosen series by name after `after`. See `Store.series_page`."""
        chosen = None if selection == EVERY_SERIES else self.catalogue.chosen(self.store.names(), selection)
        return self.store.series_page(prefix, after, limit, self.now_us, raw_only=raw_only, chosen=chosen)

    def tag_keys(self, selection: Selection = EVERY_SERIES) -> dict[str, int]:
        """Each key of a tag, sorted, with how many of the chosen series carry it: of those held, rolled up or not."""
        return self.catalogue.tag_keys(self.store.names(), selection)

    def tag_values(self, key: str, selection: Selection = EVERY_SERIES) -> dict[str, int]:
        """Each value of that tag, sorted, with how many of the chosen series carry it."""
        return self.catalogue.tag_values(self.store.names(), key, selection)

    def page(self, selection: Selection, span: Span, limit: int, position: Position | None) -> Page:
        """The first `limit` raw events of a `raw_span` from that position on, of the chosen series.

        An event that comes late into what was shown before the position is not met again.
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
        return Page(rows, Position(name, ts_us, shown))

    def stream(self, selection: Selection, span: Span) -> list[tuple[str, Iterator[tuple[TimestampsUs, Values]]]]:
        """All raw events of a `raw_span`, by series: a snapshot, to be walked at leisure. See `Store.snapshot`."""
        return self.store.snapshot(list(self._raw_names(selection)), span)

    def _raw_names(self, selection: Selection, from_name: str = "") -> Iterator[str]:
        """Those of the chosen series that hold raw events, from that name on, sorted. A page seldom needs them all."""
        if selection.is_one_name():
            yield from selection.names
            return
        held = self.store.series_names(from_name)
        for names in selection.among(held) if selection != EVERY_SERIES else [held]:
            yield from names

    def held(self, series: str, limit: int, *, late_only: bool = False) -> Held:
        """The newest raw events and the late arrivals remembered. See `Store.held`."""
        return self.store.held(series, self.store.raw_from_us(self.now_us), limit, late_only=late_only)

    # -- the service itself

    def state(self, journal_bytes: int, clock_skew_us: int | None) -> State:
        """What /metrics shows of this view. O(series + chunks)."""
        settings, store = self._settings, self.store
        windows = [(text, parse_duration_us(text)) for text in settings.metrics_windows]
        windows = [(text, us) for text, us in windows if us <= settings.longest_window_us()]
        names, left_out = self._shown_series()
        summaries = [
            (series, text, answer.statistics.summary)
            for series in (names if windows else ())
            for (text, _), answer in zip(windows, self.statistics(series, [us for _, us in windows]), strict=True)
        ]
        return State(
            store.sizes.event_count(),
            store.sizes.memory_bytes(),
            store.sizes.rollup_bytes(),
            store.sizes.series_count(),
            journal_bytes,
            summaries,
            left_out,
            clock_skew_us,
        )

    def _shown_series(self) -> tuple[list[str], int]:
        """The series of STATSAPI_METRICS_SERIES, and how many of those that match are left out."""
        given = self._settings.metrics_series
        named = [name for name in given if not is_pattern(name)]
        globs = tuple(Glob(text) for text in given if is_pattern(text))
        if not globs:
            return named, 0
        known = set(named)
        matched = [n for n in self.catalogue.chosen(self.store.names(), Selection(globs=globs)) if n not in known]
        return named + matched[:METRICS_MATCHED_MAX], max(0, len(matched) - METRICS_MATCHED_MAX)


def describe_kept(settings: Settings, retention: Retention) -> str:
    """For how long anything is kept, and the setting that says so."""
    setting = "STATSAPI_ROLLUP_RETENTION" if retention.rollup_us else "STATSAPI_RETENTION"
    return f"{format_duration(settings.longest_window_us())} ({setting})"
