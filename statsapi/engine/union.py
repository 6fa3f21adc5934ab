"""Questions over the union of several series' events: what each series adds, and how the parts become one answer.

A question looks at each series under the store's lock, which gathers references and little more. Afterwards, without
the lock, it `unite`s any number of parts. The answer is that of one series that holds all the events: summaries add up
exactly, and percentiles are selected among the values of all. Once an event of the union lies before the raw events,
percentiles come from sketches, whose buckets add up exactly too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from statsapi.engine import percentiles as selection
from statsapi.engine.answers import Draft, OldSpan, Statistics, before
from statsapi.engine.buffer import NO_VALUES
from statsapi.engine.counted import CutColumn, Selections, SortedColumn
from statsapi.engine.percentiles import sample_of
from statsapi.engine.piecewise import concatenated
from statsapi.engine.rollup import Rollups
from statsapi.engine.sketch import Sketch, count_values
from statsapi.engine.summary import IDENTITY, Summary, combine
from statsapi.engine.timeline import NO_COLUMNS, Timeline, ValueColumns
from statsapi.model import Percent, Span, Values

Part = TypeVar("Part")
PartOut = TypeVar("PartOut", covariant=True)
AnswerT = TypeVar("AnswerT")
AnswerOut = TypeVar("AnswerOut", covariant=True)


class Bounds(NamedTuple):
    """The instants that decide how exactly a store can answer: see `Store.raw_from_us`."""

    raw_from_us: int
    minutes_from_us: int


class Looks(Protocol[PartOut]):
    """The half of a question that each series is asked."""

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], PartOut]:
        """A function that looks at one series. It is called under the lock, changes nothing and takes 10 to 100 µs."""


class Question(Looks[Part], Protocol[Part, AnswerOut]):
    """A question to each series, and the way to make one answer of the parts."""

    def unite(self, parts: Sequence[Part], *, selections: Selections | None = None) -> AnswerOut:
        """The answer for the union of the series. Parts are in order of the series' names. Needs no lock.

        selections: the counts of percentiles, kept from one such question to the next.
        """

    def place(self, parts: Sequence[Part], percentiles: Sequence[Percent]) -> Statistics:
        """The statistics by which a group is put in order, with those percentiles alone. Called for every group, while
        `unite` is called only for groups that are shown. Needs no lock.
        """


class SpanPart(NamedTuple):
    """What one series adds to one span.

    few: the values of a series with very few, which are summarised faster together with those of other series. Neither
    the draft's summary nor the columns include them.
    draft: the answer so far.
    columns: the values of the raw events, where percentiles may be exact.
    first, last: the end events as (ts_us, value), if they are raw.
    old: the span has an event from before the raw ones; then the draft has sketches.
    """

    draft: Draft
    columns: ValueColumns = NO_COLUMNS
    few: Values = NO_VALUES
    first: tuple[int, float] | None = None
    last: tuple[int, float] | None = None
    old: bool = False


_NO_DRAFT: Final = Draft(Statistics(IDENTITY, []))
NOTHING: Final = SpanPart(_NO_DRAFT)


class Spans(NamedTuple):
    """Statistics of some spans over a union, as `Store.statistics` gives them for one series.

    The first event of the union is the earliest one, and the last event the latest one. Where timestamps are equal, the
    first event is that of the series whose name comes first, and the last event that of the name that comes last.
    """

    spans: tuple[Span, ...]
    percentiles: tuple[Percent, ...] = ()
    ends: bool = False

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], tuple[SpanPart, ...]]:
        if len(self.spans) == 1:
            (span,) = self.spans
            return lambda timeline, rollups: (self.look_at(timeline, rollups, span, bounds),)
        return lambda timeline, rollups: tuple(self.look_at(timeline, rollups, span, bounds) for span in self.spans)

    def look_at(self, timeline: Timeline, rollups: Rollups, span: Span, bounds: Bounds) -> SpanPart:
        if span.start_us >= bounds.raw_from_us:
            return self._look_at_raw(timeline, span)
        summary = timeline.summarise(*span)
        rolled = rollups.summarise(*span)
        if rolled.count or timeline.count(*before(span, bounds.raw_from_us)):
            blocks = list(rollups.between(*span)) if self.percentiles else []
            old = OldSpan(span, bounds.raw_from_us, bounds.minutes_from_us)
            draft = old.draft(combine(summary, rolled), timeline, blocks, self.percentiles, False)
            last = timeline.last(max(span.start_us, bounds.raw_from_us), span.end_us) if self.ends else None
            return SpanPart(draft, last=last, old=True)
        if not summary.count:
            return NOTHING
        # If another series has an older event, percentiles come from sketches.
        sketches = timeline.sketches(*span) if self.percentiles else []
        columns = timeline.value_columns(*span) if self.percentiles else NO_COLUMNS
        draft = Draft(Statistics(summary, []), sketches=sketches)
        return SpanPart(draft, columns, NO_VALUES, *self._ends(timeline, span))

    def _look_at_raw(self, timeline: Timeline, span: Span) -> SpanPart:
        """Look at a series in a span that begins at the raw events or later."""
        if (few := timeline.few_values(*span)) is not None:
            return SpanPart(_NO_DRAFT, NO_COLUMNS, few, *self._ends(timeline, span)) if len(few) else NOTHING
        # A span that is asked for again while the series has not changed costs 2 µs. Only one is remembered: a window
        # that slides never asks for the same span again.
        key = "part", bool(self.percentiles), self.ends
        known: tuple[Span, SpanPart] | None = timeline.recall(key)
        if known is not None and known[0] == span:
            return known[1]
        if self.percentiles:
            summary, columns = timeline.summary_and_columns(*span)
        else:
            summary, columns = timeline.summarise(*span), NO_COLUMNS
        if not summary.count:
            return NOTHING
        part = SpanPart(Draft(Statistics(summary, [])), columns, NO_VALUES, *self._ends(timeline, span))
        if not columns.cut:  # a column that is cut is copied when it is asked for again
            timeline.remember(key, (span, part))
        return part

    def _ends(self, timeline: Timeline, span: Span) -> tuple[tuple[int, float] | None, tuple[int, float] | None]:
        return (timeline.first(*span), timeline.last(*span)) if self.ends else (None, None)

    def unite(
        self,
        parts: Sequence[tuple[SpanPart, ...]],
        *,
        selections: Selections | None = None,
    ) -> list[Statistics]:
        if not parts:
            return [Statistics(IDENTITY, [])] * len(self.spans)
        # Not zip(*parts), which passes all parts as arguments at once.
        of_spans = [[part[i] for part in parts] for i in range(len(self.spans))]
        return [unite_span(of_span, self.percentiles, self.ends, selections) for of_span in of_spans]

    def place(self, parts: Sequence[tuple[SpanPart, ...]], percentiles: Sequence[Percent]) -> Statistics:
        """The statistics of the first span. Percentiles can be asked for only if `self.percentiles` has some."""
        return unite_span([part[0] for part in parts], percentiles, self.ends)


def unite_span(
    parts: Sequence[SpanPart], percentiles: Sequence[Percent], ends: bool, selections: Selections | None = None
) -> Statistics:
    summaries = [part.draft.answer.summary for part in parts]
    few = [part.few for part in parts if len(part.few)]
    if few:
        few = [few[0] if len(few) == 1 else concatenated(few)]
        summaries.append(Summary.of(few[0]))
    summary = combine(*summaries)
    old = any(part.old for part in parts)
    answer = Statistics(summary, [])
    if ends and summary.count:
        # min keeps the first of equals; max, over the reversed parts, keeps the last.
        last = max((part.last for part in reversed(parts) if part.last), key=stamp_of, default=None)
        if old:
            rolled_up = ("first",) if last else ("first", "last")
            answer = Statistics(summary, [], last=last and last[1], rolled_up=rolled_up)
        else:
            first = min((part.first for part in parts if part.first), key=stamp_of, default=None)
            answer = Statistics(summary, [], first and first[1], last and last[1])
    if not percentiles or not summary.count:
        return answer
    if not old:
        if few and len(few[0]) == summary.count and selection.few(summary.count):
            return answer._replace(percentiles=selection.of_values(few[0].copy(), percentiles))
        columns, cuts = columns_of([part.columns for part in parts], few)
        return answer._replace(percentiles=selection.of_columns(columns, percentiles, cuts, selections))
    return _draft_of(parts, few, answer).finished(percentiles)


def _draft_of(parts: Sequence[SpanPart], few: list[Values], answer: Statistics) -> Draft:
    blocks, partial, sketches = [], [], []
    for part in parts:
        blocks += part.draft.blocks
        partial += part.draft.partial
        sketches += part.draft.sketches
    if few:
        sketches.append(Sketch(0, count_values(concatenated(few))))
    return Draft(answer, blocks, partial, sketches)


def sketch_of(parts: Sequence[SpanPart]) -> Sketch:
    """The sketch of a span with an event from before the raw ones; not bounded."""
    few = [part.few for part in parts if len(part.few)]
    return _draft_of(parts, few, Statistics(IDENTITY, [])).sketch()


def stamp_of(event: tuple[int, float]) -> int:
    return event[0]


def columns_of(parts: Iterable[ValueColumns], few: list[Values]) -> tuple[list[SortedColumn], list[CutColumn]]:
    """The values of all parts, in sorted columns and in cut ones."""
    columns: list[SortedColumn] = []
    cuts: list[CutColumn] = []
    unsorted = list(few)
    for part in parts:
        columns += part.sorted
        cuts += part.cut
        if len(part.unsorted):
            unsorted.append(part.unsorted)
    if unsorted:
        rest = concatenated(unsorted)
        rest.sort()
        columns.append(SortedColumn(rest, sample_of(rest, len(columns))))
    return columns, cuts
