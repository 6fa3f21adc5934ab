"""Answers to questions about spans, and how they are put together when part of a span is rolled up.

Under the store's lock a question only gathers its data, in a `Draft`. The long work on a draft is done after the lock
has been released.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from statsapi.engine import rollup, sketch
from statsapi.engine.rollup import Rolled
from statsapi.engine.sketch import Sketch
from statsapi.engine.summary import Summary
from statsapi.engine.timeline import Timeline
from statsapi.model import HOUR_US, MINUTE_US, Percent, Span, floor_us


class Statistics(NamedTuple):
    """One span's answer.

    percentiles: one for each that was asked for; [] for an empty span.
    first, last: the values of the first and last event; None for an empty span, and if the event has been rolled up.
    rolled_up: "first", "last" or both, if these events have been rolled up.
    relative_errors: the proven error bound of each percentile (`sketch.Estimate`); [] if they are exact.
    """

    summary: Summary
    percentiles: list[float]
    first: float | None = None
    last: float | None = None
    rolled_up: tuple[str, ...] = ()
    relative_errors: list[float | None] = []  # noqa: RUF012 (never written to)


class Draft(NamedTuple):
    """An answer whose percentiles are still to be computed, from the blocks of roll-ups and sketches of raw events.

    partial: incomplete roll-ups, some of whose events have not been folded yet: for each its blocks, and the sketches
    of its raw events. A complete roll-up has at most MAX_BUCKETS buckets. So blocks and sketches of a partial one are
    together bounded to as many, and all views give the same answer.
    """

    answer: Statistics
    blocks: list[bytes] = []  # noqa: RUF012 (never written to)
    partial: list[tuple[list[bytes], list[Sketch]]] = []  # noqa: RUF012
    sketches: list[Sketch] = []  # noqa: RUF012

    def finished(self, percentiles: Sequence[Percent]) -> Statistics:
        """The complete answer. Needs no lock: a draft's contents never change."""
        answer = self.answer
        low, high = answer.summary.min, answer.summary.max
        if not (self.blocks or self.partial or self.sketches) or low is None or high is None:
            return answer
        estimates = self.sketch().percentiles(percentiles, low, high)
        return answer._replace(
            percentiles=[estimate.value for estimate in estimates],
            relative_errors=[estimate.relative_error for estimate in estimates],
        )

    def sketch(self) -> Sketch:
        """The sketch of the whole draft; not bounded."""
        partial = [sketch.merge([rollup.sketch(blocks), *raw]).bounded() for blocks, raw in self.partial]
        return sketch.merge([rollup.sketch(self.blocks), *partial, *self.sketches])


class OldSpan(NamedTuple):
    """A span with an event before `raw_from_us`. Roll-ups are of minutes from minutes_from_us on, of hours before."""

    span: Span
    raw_from_us: int
    minutes_from_us: int

    def draft(
        self, summary: Summary, timeline: Timeline, rolled: list[Rolled], percentiles: Sequence[Percent], ends: bool
    ) -> Draft:
        """The draft. Its answer is the same in every view, however far the view has folded. Caller holds the lock."""
        answer = Statistics(summary, [])
        raw = Span(max(self.span.start_us, self.raw_from_us), self.span.end_us)
        if ends and summary.count:
            last = timeline.last(*raw)
            rolled_up = ("first",) if last else ("first", "last")
            answer = Statistics(summary, [], last=last and last[1], rolled_up=rolled_up)
        if not percentiles:
            return Draft(answer)
        partial: dict[int, tuple[list[bytes], list[Sketch]]] = {}
        start_us, end_us = before(self.span, self.raw_from_us)
        while (event := timeline.first(start_us, end_us)) is not None:
            at_us, length_us = block_at(event[0], self.minutes_from_us)
            inside = max(at_us, start_us), min(at_us + length_us, end_us)
            partial[at_us] = [], timeline.sketches(*inside)
            start_us = inside[1]
        if not partial and not (rolled and rolled[0].start_us < self.minutes_from_us):
            return Draft(answer, [block for _, _, block in rolled], sketches=timeline.sketches(*raw))
        blocks = []
        for start_us, length_us, block in rolled:
            at_us, block_us = block_at(start_us, self.minutes_from_us)
            if at_us in partial or length_us < block_us:
                partial.setdefault(at_us, ([], []))[0].append(block)
            else:
                blocks.append(block)
        return Draft(answer, blocks, list(partial.values()), timeline.sketches(*raw))


def block_at(ts_us: int, minutes_from_us: int) -> tuple[int, int]:
    """Start and length of the roll-up that holds, or will hold, the instant: a minute from minutes_from_us on, else an
    hour.
    """
    length_us = HOUR_US if ts_us < minutes_from_us else MINUTE_US
    return floor_us(ts_us, length_us), length_us


def before(span: Span, ts_us: int) -> tuple[int, int]:
    """The part of the span before the instant, as start and end."""
    return span.start_us, ts_us if span.end_us is None else min(span.end_us, ts_us)
