"""A chart over the union of several series: statistics for each of many steps, as `Store.steps` has them for one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from statsapi.engine import percentiles as selection
from statsapi.engine.answers import OldSpan, Statistics
from statsapi.engine.chunks import Columns
from statsapi.engine.counted import Selections
from statsapi.engine.held_events import Frozen
from statsapi.engine.rollup import Rolled, Rollups
from statsapi.engine.rollup import summarise as summarise_rolled
from statsapi.engine.summary import IDENTITY, Summary, combine
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import NOTHING, Bounds, SpanPart, Spans, unite_span
from statsapi.model import Percent, Span, Values


class StepsPart(NamedTuple):
    """What one series adds to a chart.

    rolled: to each step that begins before the raw events. summaries: to each other one. events: of those other ones,
    where percentiles or ends are asked for.
    """

    rolled: list[SpanPart]
    summaries: list[Summary]
    events: Frozen | None


class Steps(NamedTuple):
    """n_steps stretches of step_us each; the last ends where the span does.

    A step that begins before `raw_from_us` begins between roll-ups. Looking at a series takes as long as `Store.steps`;
    uniting looks at each event once where percentiles or ends are asked for, and holds the values of one step.
    """

    span: Span
    step_us: int
    n_steps: int
    percentiles: tuple[Percent, ...] = ()
    ends: bool = False

    def _spans(self) -> list[Span]:
        starts_us = [self.span.start_us + self.step_us * i for i in range(self.n_steps)]
        return [Span(*edges) for edges in zip(starts_us, [*starts_us[1:], self.span.end_us], strict=True)]

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], StepsPart]:
        spans = self._spans()
        n_rolled = bisect_left([span.start_us for span in spans], bounds.raw_from_us)
        one = Spans(spans=(), percentiles=self.percentiles, ends=self.ends)
        details = bool(self.percentiles or self.ends) and n_rolled < self.n_steps

        def look(timeline: Timeline, rollups: Rollups) -> StepsPart:
            if not len(timeline) and not len(rollups):
                return StepsPart([NOTHING] * n_rolled, [IDENTITY] * (self.n_steps - n_rolled), None)
            summaries = timeline.steps(self.span.start_us, self.step_us, self.n_steps - 1)
            summaries.append(timeline.summarise(*spans[-1]))
            rolled = []
            if n_rolled:
                # The last of those steps reaches into the raw events, and may have nothing else.
                rolled = self._look_at_old(timeline, rollups, spans[: n_rolled - 1], summaries, bounds)
                rolled.append(one.look_at(timeline, rollups, spans[n_rolled - 1], bounds))
            events = timeline.freeze(spans[n_rolled].start_us, self.span.end_us) if details else None
            return StepsPart(rolled, summaries[n_rolled:], events)

        return look

    def _look_at_old(
        self, timeline: Timeline, rollups: Rollups, spans: list[Span], summaries: list[Summary], bounds: Bounds
    ) -> list[SpanPart]:
        """The steps that end before the raw events: one walk over the roll-ups."""
        rolled_by_step: list[list[Rolled]] = [[] for _ in spans]
        if spans:
            for rolled in rollups.between(spans[0].start_us, spans[-1].end_us):
                rolled_by_step[(rolled.start_us - self.span.start_us) // self.step_us].append(rolled)
        parts = []
        for span, some, summary in zip(spans, rolled_by_step, summaries, strict=False):
            if not some and not summary.count:
                parts.append(NOTHING)
                continue
            whole = combine(summary, summarise_rolled(each.block for each in some))
            old = OldSpan(span, bounds.raw_from_us, bounds.minutes_from_us)
            parts.append(SpanPart(old.draft(whole, timeline, some, self.percentiles, False), old=True))
        return parts

    def unite(
        self, parts: Sequence[StepsPart], *, with_percentiles: bool = True, selections: Selections | None = None
    ) -> list[Statistics]:
        if not parts:
            return [Statistics(IDENTITY, [])] * self.n_steps
        percentiles = self.percentiles if with_percentiles else ()
        answers = []
        for of_step in zip(*[part.rolled for part in parts], strict=True):
            answers.append(unite_span(of_step, percentiles, self.ends))
        walks = [_Walk(part.events.walk()) for part in parts if part.events is not None]
        raw = self._spans()[len(answers) :]
        for i, span in enumerate(raw):
            answer = Statistics(combine(*[part.summaries[i] for part in parts]), [])
            if walks and answer.summary.count:
                end_us = span.end_us if i + 1 < len(raw) else None
                answer = self._with_details(answer, walks, end_us, percentiles)
            answers.append(answer)
        return answers

    def _with_details(
        self, answer: Statistics, walks: list[_Walk], end_us: int | None, percentiles: Sequence[Percent]
    ) -> Statistics:
        values: list[Values] = []
        first: tuple[int, float] | None = None
        last: tuple[int, float] | None = None
        for walk in walks:
            for ts_us, some in walk.until(end_us):
                values.append(some)
                if first is None or ts_us[0] < first[0]:
                    first = int(ts_us[0]), float(some[0])
                if last is None or ts_us[-1] >= last[0]:
                    last = int(ts_us[-1]), float(some[-1])
        if percentiles:
            answer = answer._replace(percentiles=selection.of_values(np.concatenate(values), percentiles))
        if self.ends:
            answer = answer._replace(first=first and first[1], last=last and last[1])
        return answer

    def whole(self, answer: list[Statistics]) -> Statistics:
        return Statistics(combine(*[step.summary for step in answer]), [])


class _Walk:
    """Events of one series in order of time, taken step by step."""

    __slots__ = ("_pieces", "_rest")

    def __init__(self, pieces: Iterator[Columns]) -> None:
        self._pieces = pieces
        self._rest: Columns | None = None

    def until(self, end_us: int | None) -> Iterator[Columns]:
        """The events before `end_us` that were not taken yet; None: all."""
        while True:
            piece = self._rest or next(self._pieces, None)
            self._rest = None
            if piece is None:
                return
            ts_us, values = piece
            at = len(ts_us) if end_us is None else int(ts_us.searchsorted(end_us))
            if at:
                yield ts_us[:at], values[:at]
            if at < len(ts_us):
                self._rest = ts_us[at:], values[at:]
                return
