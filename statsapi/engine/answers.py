"""What a question is answered with, and how an answer is put together where part of it is rolled up.

Under the store's lock a question only gathers what it needs, in a `Draft`; what takes long is done with that after the
lock is let go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from statsapi.engine import rollup, sketch
from statsapi.engine.rollup import Rolled
from statsapi.engine.sketch import Sketch
from statsapi.engine.summary import Summary
from statsapi.engine.timeline import Timeline
from statsapi.model import HOUR_US, MINUTE_US, Percent, Span


class Statistics(NamedTuple):
    """One span's answer. percentiles: one for each asked, [] when the span is empty or none was asked.

    first, last: the values of the first and last event; None where there is none, or where it has been rolled up:
    `rolled_up` names those.
    relative_errors: what is proven for each of the percentiles (`sketch.Estimate`); [] where they are exact.
    """

    summary: Summary
    percentiles: list[float]
    first: float | None = None
    last: float | None = None
    rolled_up: tuple[str, ...] = ()
    relative_errors: list[float | None] = []  # noqa: RUF012 (never written to)


class Draft(NamedTuple):
    """An answer of which the percentiles are still to be found, in sketches and roll-ups' buckets.

    blocks: what together is a roll-up, or would be one if all that is due were folded: its buckets and its raw events'
    sketches. As it would then have no more than MAX_BUCKETS, it must not have more now.
    """

    answer: Statistics
    buckets: list[bytes] = []  # noqa: RUF012 (never written to)
    blocks: list[tuple[list[bytes], list[Sketch]]] = []  # noqa: RUF012
    sketches: list[Sketch] = []  # noqa: RUF012

    def finished(self, percentiles: Sequence[Percent]) -> Statistics:
        """Needs no lock: what it holds never changes."""
        answer = self.answer
        low, high = answer.summary.min, answer.summary.max
        if not (self.buckets or self.blocks or self.sketches) or low is None or high is None:
            return answer
        estimates = self.sketch().percentiles(percentiles, low, high)
        return answer._replace(
            percentiles=[estimate.value for estimate in estimates],
            relative_errors=[estimate.relative_error for estimate in estimates],
        )

    def sketch(self) -> Sketch:
        """Of all that it holds; not bounded."""
        blocks = [sketch.merge([rollup.sketch(buckets), *raw]).bounded() for buckets, raw in self.blocks]
        return sketch.merge([rollup.sketch(self.buckets), *blocks, *self.sketches])


class OldSpan(NamedTuple):
    """A span that has an event before `raw_from_us`, and from when on roll-ups are of minutes, not of hours."""

    span: Span
    raw_from_us: int
    minutes_from_us: int

    def draft(
        self, summary: Summary, timeline: Timeline, rolled: list[Rolled], percentiles: Sequence[Percent], ends: bool
    ) -> Draft:
        """The answer, the same in each view, however far it has folded. Caller holds the lock."""
        answer = Statistics(summary, [])
        raw = Span(max(self.span.start_us, self.raw_from_us), self.span.end_us)
        if ends and summary.count:
            last = timeline.last(*raw)
            rolled_up = ("first",) if last else ("first", "last")
            answer = Statistics(summary, [], last=last and last[1], rolled_up=rolled_up)
        if not percentiles:
            return Draft(answer)
        blocks: dict[int, tuple[list[bytes], list[Sketch]]] = {}
        start_us, end_us = before(self.span, self.raw_from_us)
        while (event := timeline.first(start_us, end_us)) is not None:
            at_us, length_us = block_at(event[0], self.minutes_from_us)
            inside = max(at_us, start_us), min(at_us + length_us, end_us)
            blocks[at_us] = [], timeline.sketches(*inside)
            start_us = inside[1]
        if not blocks and not (rolled and rolled[0].start_us < self.minutes_from_us):
            return Draft(answer, [bucket for _, _, bucket in rolled], sketches=timeline.sketches(*raw))
        buckets = []
        for start_us, length_us, bucket in rolled:
            at_us, block_us = block_at(start_us, self.minutes_from_us)
            if at_us in blocks or length_us < block_us:
                blocks.setdefault(at_us, ([], []))[0].append(bucket)
            else:
                buckets.append(bucket)
        return Draft(answer, buckets, list(blocks.values()), timeline.sketches(*raw))


def block_at(ts_us: int, minutes_from_us: int) -> tuple[int, int]:
    """Of the roll-up that holds the instant, or will: start and length. From `minutes_from_us` on that is a minute."""
    length_us = HOUR_US if ts_us < minutes_from_us else MINUTE_US
    return ts_us - ts_us % length_us, length_us


def before(span: Span, ts_us: int) -> tuple[int, int]:
    """The part of it that lies before the instant, as start and end."""
    return span.start_us, ts_us if span.end_us is None else min(span.end_us, ts_us)
