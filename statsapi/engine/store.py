"""All series behind the lock: what the records of the journal add up to.

The store is a sum over the records it was given, in journal order; applying never judges (docs/architecture.md,
"Records and views"). It knows no clock, no journal and no HTTP: segments come in, summaries go out. What it holds, and
what is done with it as time goes on, is in holdings.py.

No question about the retention reaches below the horizon, edges before it lie between blocks, and sums are exact: two
views with different horizons give the same answers.

Every public method takes the lock itself where it does not say otherwise; it is never held while something else is
waited for. Whatever is raised while it is held (no memory, an interrupt) breaks the store for good, as nobody can know
how far a change came: from then on it answers nothing, and the view starts another one.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from statsapi.engine import rollup
from statsapi.engine.answers import Draft, OldSpan, Statistics, before
from statsapi.engine.changes import NO_MARK, Instant, Mark
from statsapi.engine.contents import Contents
from statsapi.engine.counted import Selections
from statsapi.engine.frozen import Frozen
from statsapi.engine.guard import Guard
from statsapi.engine.holdings import Holdings
from statsapi.engine.invariants import require
from statsapi.engine.listing import Listing
from statsapi.engine.rollup import Rolled
from statsapi.engine.sizes import Sizes
from statsapi.engine.step_details import step_details
from statsapi.engine.summary import combine
from statsapi.engine.sweep import PAUSE_S, SLICE_S, Sweep
from statsapi.engine.union import Bounds, Looks
from statsapi.engine.union_kept import KeptUnions
from statsapi.model import (
    HOUR_US,
    MINUTE_US,
    Change,
    Deletion,
    Percent,
    Retention,
    SingleEvents,
    Span,
    TimestampsUs,
    Values,
)

PartT = TypeVar("PartT")

# Folding lets others in after this long: a minute of 12 million events, folded at once, would keep them waiting for
# 17 ms. Then it pauses, since a lock that is taken again at once is not handed over: without the pause the longest wait
# was all of those 17 ms.
_FOLD_S: Final = 0.001
_FOLD_PAUSE_S: Final = 0.000_1


class Held(NamedTuple):
    """A page of one series, newest first, and how many events there are in all."""

    total: int
    events: list[tuple[int, float]]


class Store:
    """The view of one worker: what is kept for the `retention`. sizes: how much that is. contents: all of it, for
    checkpoints. listing: which series there are.
    """

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self._lock = Guard()
        self._held = Holdings(retention)
        self.selections = Selections()  # of unions: true whatever changes
        self.unions = KeptUnions()
        self.sizes = Sizes(self._lock, self._held, self.selections, self.unions)
        self.contents = Contents(self._lock, self._held)
        self.listing = Listing(self._lock, self._held)

    @property
    def broken(self) -> bool:
        """Whether something was raised in the middle of a change or a question: it is of no use any more."""
        return self._lock.broken

    @property
    def appended_us(self) -> int:
        """When the last applied record was appended; MIN_TS_US before the first. No lock: one reference is read."""
        return self._held.appended_us

    def settle(self, settled_us: int) -> None:
        """Set the time that has stood; MIN_TS_US: none has. No lock: one reference is written."""
        self._held.settled_us = settled_us

    def raw_from_us(self, now_us: int) -> int:
        """From this instant on the view holds raw events at `now_us`: a whole minute. Every other view says the same,
        unless the retention was made longer or the clock is behind one that was believed. No lock.
        """
        return self._held.raw_from_us(now_us)

    def resolution_us(self, ts_us: int, now_us: int) -> int:
        """How precisely the time of an event at `ts_us` is known: 1 µs while it is raw, then a roll-up's length. No
        lock.
        """
        if ts_us >= self.raw_from_us(now_us):
            return 1
        return MINUTE_US if ts_us >= self._held.minutes_from_us(now_us) else HOUR_US

    def apply(self, changes: Iterable[Change], appended_us: int) -> None:
        """Add a stretch of the journal, the last record of which was appended at `appended_us`."""
        with self._lock:
            for change in changes:
                if isinstance(change, Deletion):
                    self._held.delete(change)
                elif isinstance(change, SingleEvents):
                    self._held.insert_singles(change)
                else:
                    self._held.insert(change)
            self._held.appended_us = appended_us

    def statistics(
        self,
        series: str,
        spans: Sequence[Span],
        now_us: int,
        percentiles: Sequence[Percent] = (),
        *,
        ends: bool = False,
    ) -> list[Statistics]:
        """Each span's statistics, all from one instant; `ends` asks for the values of the first and last event too.

        An edge before `raw_from_us(now_us)` lies between roll-ups: on a multiple of `resolution_us` there. Percentiles
        are numbers from 0 to 100. They are exact, and both ends are known, where no event of the span lies before
        `raw_from_us(now_us)`. Otherwise they come from sketches, also where this view still holds such events raw: that
        must not show. Sketches are merged without the lock.
        """
        raw_from_us = self.raw_from_us(now_us)
        if percentiles and any(span.start_us < raw_from_us for span in spans):
            self._fold_all_of(series)
        with self._lock:
            timeline, rollups = self._held.of(series)
            drafts = []
            for span in spans:
                summary = timeline.summarise(*span)
                if span.start_us < raw_from_us:
                    rolled = rollups.summarise(*span)
                    if rolled.count or timeline.count(*before(span, raw_from_us)):
                        old = OldSpan(span, raw_from_us, self._held.minutes_from_us(now_us))
                        blocks = list(rollups.between(*span)) if percentiles else []
                        drafts.append(old.draft(combine(summary, rolled), timeline, blocks, percentiles, ends))
                        continue
                exact = timeline.percentiles(*span, percentiles) if percentiles else []
                first, last = (timeline.first(*span), timeline.last(*span)) if ends else (None, None)
                drafts.append(Draft(Statistics(summary, exact, first and first[1], last and last[1])))
        return [draft.finished(percentiles) for draft in drafts]

    def steps(
        self,
        series: str,
        span: Span,
        step_us: int,
        n_steps: int,
        now_us: int,
        percentiles: Sequence[Percent] = (),
        *,
        ends: bool = False,
    ) -> list[Statistics]:
        """The statistics of n_steps stretches of step_us each, all from one instant; the last ends where the span does.

        A step that begins before `raw_from_us(now_us)` begins between roll-ups; where an event of it lies before, its
        percentiles come from sketches, as those of `statistics` do. Percentiles and ends of the others need no lock.
        """
        raw_from_us = self.raw_from_us(now_us)
        starts_us = [span.start_us + step_us * i for i in range(n_steps)]
        spans = [Span(*edges) for edges in zip(starts_us, [*starts_us[1:], span.end_us], strict=True)]
        n_rolled = bisect_left(starts_us, raw_from_us)
        if percentiles and n_rolled:
            self._fold_all_of(series)
        events: Frozen | None = None
        with self._lock:
            timeline, rollups = self._held.of(series)
            summaries = timeline.steps(span.start_us, step_us, n_steps - 1)
            summaries.append(timeline.summarise(*spans[-1]))
            rolled_by_step: list[list[Rolled]] = [[] for _ in range(n_rolled)]
            for rolled in rollups.between(span.start_us, spans[n_rolled - 1].end_us) if n_rolled else ():
                rolled_by_step[min((rolled.start_us - span.start_us) // step_us, n_rolled - 1)].append(rolled)
            # The last of those reaches into the raw events: often all that it has is raw.
            if n_rolled and not rolled_by_step[-1] and not timeline.count(*before(spans[n_rolled - 1], raw_from_us)):
                n_rolled -= 1
            drafts = []
            minutes_from_us = self._held.minutes_from_us(now_us)
            for summary, some, step in zip(summaries, rolled_by_step, spans[:n_rolled], strict=False):
                whole = combine(summary, rollup.summarise(rolled.block for rolled in some))
                old = OldSpan(step, raw_from_us, minutes_from_us)
                drafts.append(old.draft(whole, timeline, some, percentiles, ends))
            if (percentiles or ends) and n_rolled < n_steps:
                events = timeline.freeze(starts_us[n_rolled], span.end_us)
        answers = [draft.finished(percentiles) for draft in drafts]
        raw = summaries[n_rolled:]
        if events is None:
            return answers + [Statistics(summary, []) for summary in raw]
        details = step_details([events], starts_us[n_rolled], step_us, len(raw), percentiles, ends=ends)
        return answers + [each.added_to(summary) for summary, each in zip(raw, details, strict=True)]

    def sweep(
        self,
        choose: Callable[[list[str]], Sequence[str]],
        picks: Callable[[str], bool],
        question: Looks[PartT],
        now_us: int,
        *,
        marked: bool = False,
    ) -> tuple[Sequence[str], Sweep[PartT]]:
        """What a question has to know of many series, as they all stand at one instant during this call.

        choose takes the sorted list of names held, which it must not change, and returns the names to be looked at:
        sorted, and perhaps with some that are not held. picks says the same of one name, under the lock. Returns the
        names and, in `Sweep.parts`, the part of each. Others wait for the lock for about a millisecond at a time; see
        sweep.py. marked: `changes` can tell later what came after that instant, which `Sweep.mark` names.
        """
        with self._lock:
            bounds = Bounds(self.raw_from_us(now_us), self._held.minutes_from_us(now_us))
            mark = self._held.changes.mark() if marked else NO_MARK
            sweep = Sweep(picks, question.looker(bounds), mark)
            held = self._held.sorted_names()
            self._held.sweeps[id(sweep)] = sweep
        try:
            names = choose(held)
            waiting = iter(names)
            while self._visit_some(sweep, waiting):
                time.sleep(PAUSE_S)
        finally:
            del self._held.sweeps[id(sweep)]  # one step, so it needs no lock; it may be a broken one
        return names, sweep

    def _visit_some(self, sweep: Sweep[Any], names: Iterator[str]) -> bool:
        """Let the sweep visit the next series; whether there may be more."""
        with self._lock:
            until_s = time.perf_counter() + SLICE_S
            for name in names:
                sweep.visit(name, *self._held.of(name))
                if time.perf_counter() > until_s and self._lock.waiting:
                    return True
            return False

    def changes(self, marks: Sequence[Mark | None], now_us: int) -> Instant:
        """What came since each of those marks, as of one instant. Some µs under the lock."""
        with self._lock:
            changes = self._held.changes
            since = [mark and changes.since(mark) for mark in marks]
            return Instant(self.raw_from_us(now_us), self._held.sorted_names(), changes.mark(), since)

    def snapshot(self, series: Sequence[str], span: Span) -> list[tuple[str, Iterator[tuple[TimestampsUs, Values]]]]:
        """The events of some series as they stand now, to be walked later without the lock.

        Each is in order of time, then arrival, in pieces of a chunk or two. About 1 µs a chunk; copies nothing.
        """
        with self._lock:
            held = [(name, self._held.timelines.get(name)) for name in series]
            return [(name, timeline.freeze(*span).drain()) for name, timeline in held if timeline is not None]

    def contains(self, series: str, ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
        """Which of the pairs (ts_us[i], values[i]) are raw events held: bool[n]."""
        with self._lock:
            return self._held.timelines.contains(series, ts_us, values)

    def count(self, series: str, span: Span) -> int:
        """How many events count in the span, whose edges are as `statistics` wants them."""
        with self._lock:
            timeline, rollups = self._held.of(series)
            return timeline.count(*span) + rollups.summarise(*span).count

    def held(self, series: str, from_us: int, limit: int, *, late_only: bool = False) -> Held:
        """The newest `limit` of the raw events from `from_us` on and the late arrivals remembered.

        An event that seemed late only because a clock was wrong then is among the raw events, and listed once.
        """
        with self._lock:
            late = [(e.ts_us, e.value) for e in self._held.late if e.series == series and e.ts_us < from_us]
            late.sort(reverse=True)
            timeline = self._held.timelines.get(series)
            if timeline is None or late_only:
                return Held(len(late), late[:limit])
            ts_us, values = timeline.columns(from_us, None, limit=limit, newest_first=True)
            total = timeline.count(from_us, None) + len(late)
        # A late arrival is older than every raw event from `from_us` on: the two lists need no merging.
        events = list(zip(ts_us.tolist(), values.tolist(), strict=True)) + late
        return Held(total, events[:limit])

    def holds_expired(self, settled_us: int) -> bool:
        """Whether a record appended now lets something be folded or dropped, once that time has stood. O(series)."""
        raw_from_us, from_us = self.retention.raw_from_us(settled_us), self.retention.from_us(settled_us)
        with self._lock:
            return self._held.timelines.holds_before(raw_from_us) or any(
                rollups.ends_by(from_us) for rollups in self._held.rollups.values()
            )

    def expire(self, horizon_us: int | None = None, minutes_from_us: int | None = None) -> int:
        """Move the horizon as far as it may go, and fold or drop what lies before it; how many raw events that were.

        Where nobody else asks this store: to `horizon_us`, with roll-ups of hours before `minutes_from_us`.
        O(series + chunks); others get in every millisecond or so.
        """
        with self._lock:
            self._held.advance(horizon_us, minutes_from_us)
        folded = 0
        while self._held.due:
            with self._lock:
                until_s = time.perf_counter() + _FOLD_S
                while self._held.due and time.perf_counter() < until_s:
                    folded += self._held.fold(self._held.due.pop())
            time.sleep(_FOLD_PAUSE_S)
        return folded

    def _fold_all_of(self, series: str) -> None:
        """Fold what is due of one series, as far as any view may have folded it: then all views' sketches agree."""
        with self._lock:
            self._held.advance()
        while series in self._held.due:
            with self._lock:
                self._held.fold(series)

    def check_invariants(self) -> None:
        """Raise AssertionError unless every timeline agrees with itself, and the counts with the timelines. O(events);
        for tests.
        """
        with self._lock:
            self._held.timelines.check_invariants()
            held = self._held.timelines.event_count()
            require(held == self._held.event_count, f"{held} events are held, {self._held.event_count} are counted")
