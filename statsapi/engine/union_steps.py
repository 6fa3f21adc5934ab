"""A chart over the union of several series: statistics of many steps, as `Store.steps` gives them for one series."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from statsapi.engine.answers import OldSpan, Statistics
from statsapi.engine.buffer import UNSUMMED_EVENTS, Columns
from statsapi.engine.counted import Selections
from statsapi.engine.frozen import Frozen
from statsapi.engine.piecewise import concatenated
from statsapi.engine.rollup import Rolled, Rollups
from statsapi.engine.rollup import summarise as summarise_rolled
from statsapi.engine.step_details import step_details
from statsapi.engine.summary import IDENTITY, Summary, combine
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import NOTHING, Bounds, SpanPart, Spans, unite_span
from statsapi.model import Percent, Span, Values


class StepsPart(NamedTuple):
    """What one series adds to a chart.

    rolled: its parts of the steps that begin before the raw events.
    summaries: its summaries of the other steps. events: its events in those, if percentiles or ends are asked for.
    few: all events in the span of a series with very few, which are summarised faster together with those of other
    series. Then the other fields are empty.
    """

    rolled: Sequence[SpanPart]
    summaries: Sequence[Summary]
    events: Frozen | None
    few: Columns | None = None


class Steps(NamedTuple):
    """n_steps stretches of step_us each; the last ends where the span does.

    A step that begins before `raw_from_us` begins between two roll-ups. Looking at a series takes as long as
    `Store.steps`. Uniting, if percentiles or ends are asked for, takes as long as `step_details`, and the memory of one
    step's values.
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
        # Gathering few events takes 3 µs, while 10 steps take 40.
        few = UNSUMMED_EVENTS if not n_rolled and not self.ends else 0

        def look(timeline: Timeline, rollups: Rollups) -> StepsPart:
            if 0 < len(timeline) <= few and (events := timeline.few_events(*self.span)) is not None:
                return StepsPart((), (), None, events)
            if not len(timeline) and not len(rollups):
                return StepsPart([NOTHING] * n_rolled, [IDENTITY] * (self.n_steps - n_rolled), None)
            summaries = timeline.steps(self.span.start_us, self.step_us, self.n_steps - 1)
            summaries.append(timeline.summarise(*spans[-1]))
            rolled = []
            if n_rolled:
                # The last rolled step reaches into the raw events, and may have no others.
                rolled = self._look_at_old(timeline, rollups, spans[: n_rolled - 1], summaries, bounds)
                rolled.append(one.look_at(timeline, rollups, spans[n_rolled - 1], bounds))
            frozen = timeline.freeze(spans[n_rolled].start_us, self.span.end_us) if details else None
            return StepsPart(rolled, summaries[n_rolled:], frozen)

        return look

    def _look_at_old(
        self, timeline: Timeline, rollups: Rollups, spans: list[Span], summaries: list[Summary], bounds: Bounds
    ) -> list[SpanPart]:
        """The parts of the steps that end before the raw events: one walk over the roll-ups."""
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

    def unite(self, parts: Sequence[StepsPart], *, selections: Selections | None = None) -> list[Statistics]:
        if not parts:
            return [Statistics(IDENTITY, [])] * self.n_steps
        answers = []
        for i in range(len(parts[0].rolled)):
            answers.append(unite_span([part.rolled[i] for part in parts], self.percentiles, self.ends))
        first_raw, n_raw = len(answers), self.n_steps - len(answers)
        few = self._few_by_step([part.few for part in parts if part.few is not None])
        many = [part for part in parts if part.few is None]
        raw = []
        for i in range(n_raw):
            summaries = [part.summaries[i] for part in many]
            if few:
                summaries.append(Summary.of(few[i]))
            raw.append(combine(*summaries))
        events = [part.events for part in many if part.events is not None]
        if not (events or few) or not (self.percentiles or self.ends):
            return answers + [Statistics(summary, []) for summary in raw]
        start_us = self.span.start_us + self.step_us * first_raw
        details = step_details(events, start_us, self.step_us, n_raw, self.percentiles, ends=self.ends, few=few)
        return answers + [each.added_to(summary) for summary, each in zip(raw, details, strict=True)]

    def _few_by_step(self, some: list[Columns]) -> list[Values]:
        """The values of each step, in any order; [] for no events."""
        if not some:
            return []
        ts_us = concatenated([each for each, _ in some])
        order = ts_us.argsort()
        later_edges = self.span.start_us + self.step_us * np.arange(1, self.n_steps)
        return np.split(concatenated([each for _, each in some])[order], ts_us[order].searchsorted(later_edges))

    def place(self, parts: Sequence[StepsPart], percentiles: Sequence[Percent]) -> Statistics:
        """Gives summaries only. Groups placed by the whole span's first or last event or percentiles need `Both`."""
        summaries = [step.draft.answer.summary for part in parts for step in part.rolled]
        summaries += [summary for part in parts for summary in part.summaries]
        few = [part.few[1] for part in parts if part.few is not None]
        return Statistics(combine(*summaries, *([Summary.of(concatenated(few))] if few else [])), [])
