"""All series behind the lock: what the records of the journal add up to.

The store is a sum over the records it was given, in journal order; applying never judges (docs/architecture.md,
"Records and views"). It knows no clock, no journal and no HTTP: segments come in, summaries go out.

What decides what it holds (`model.Retention` says where the bounds may lie):
- the *mark*: the last record applied. `appended_us` is that record's time; it falls where a wrong clock was put right.
- the time that has *stood*, which the view tells by `settle`. Nothing is done for good by a later time, nor by one
  after the mark's.
- the *horizon*: a whole minute that follows these. Events before it are due to be *folded*: a timeline's minute becomes
  a block of the series' roll-ups. Without roll-ups they are dropped. It moves back with a clock that had been believed
  wrongly; what is folded stays so, and `raw_from_us` is after the last of it.
- the *floor*: what lies before it counts nowhere any more.

Every event is either in its series' timeline or in its roll-ups, and a question adds up both. So folding may be done
in small slices, with questions in between, and an event that comes late for its minute is simply put into the timeline,
to be folded soon. No question about the retention reaches below the horizon, edges before it lie between blocks,
and sums are exact: two views with different horizons give the same answers.

Every public method takes the lock itself; none is held while something else is waited for. Whatever is raised while it
is held (no memory, an interrupt) breaks the store for good, as nobody can know how far a change came: from then on it
answers nothing, and the view starts another one.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from statsapi.engine import rollup, sketch
from statsapi.engine.answers import Draft, OldSpan, Statistics, before, block_at
from statsapi.engine.chunks import require
from statsapi.engine.rollup import Rolled, Rollups
from statsapi.engine.summary import combine
from statsapi.engine.sweep import PAUSE_S, SLICE_S, Sweep
from statsapi.engine.timeline import Timeline, step_details
from statsapi.engine.union import Bounds, Question
from statsapi.errors import ViewBroken
from statsapi.model import (
    EVENT_BYTES,
    HOUR_US,
    MIN_TS_US,
    MINUTE_US,
    Change,
    Deletion,
    EventBatch,
    Events,
    Part,
    Percent,
    Retention,
    RollupBounds,
    SeriesInfo,
    Span,
    TimestampsUs,
    Values,
    floor_us,
)

PartT = TypeVar("PartT")

# How many of the events that were too old to count are remembered, so that a wrongly stamped one can be found.
LATE_REMEMBERED: Final = 1000

# Who walks over all series lets others in after this many.
_SERIES_PER_LOCK: Final = 1000

# Folding lets others in after so long, or after so many chunks of one series, which take 1.4 ms. A minute of 12 million
# events, folded at once, would keep them waiting for 17. It stands back for a moment, since a lock that is taken again
# at once is not handed over: then the longest wait was all of those 17.
_FOLD_S: Final = 0.001
_FOLD_CHUNKS: Final = 128
_FOLD_PAUSE_S: Final = 0.000_1


class LateEvent(NamedTuple):
    """An event that was older than everything kept when it was recorded."""

    series: str
    ts_us: int
    value: float


class Held(NamedTuple):
    """A page of one series, newest first, and how many events there are in all."""

    total: int
    events: list[tuple[int, float]]


class _Lock:
    """A lock that lets nobody in any more once something was raised by who held it: ViewBroken."""

    __slots__ = ("_lock", "broken")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.broken = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.broken:
            self._lock.release()
            raise ViewBroken

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is not None:
            self.broken = True
        self._lock.release()


class Store:
    """The view of one worker: what is kept for the `retention`."""

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self._lock = _Lock()
        self._timelines: dict[str, Timeline] = {}
        self._rollups: dict[str, Rollups] = {}
        self._event_count = 0
        self._rollup_bytes = 0
        self._names: list[str] | None = None  # sorted; None when a series came or went
        self._sweeps: dict[int, Sweep[Any]] = {}  # questions that have yet to see some series
        self._late: deque[LateEvent] = deque(maxlen=LATE_REMEMBERED)
        self._horizon_us = MIN_TS_US
        self._rollup_bounds = RollupBounds(MIN_TS_US, MIN_TS_US)
        self._due: set[str] = set()  # series that may hold something from before the horizon
        self._appended_us = MIN_TS_US
        self._settled_us = MIN_TS_US
        self._folded_to_us = MIN_TS_US  # no roll-up reaches past it
        self._hours_to_us = MIN_TS_US  # no roll-up of an hour does

    @property
    def broken(self) -> bool:
        """Whether something was raised in the middle of a change or a question: it is of no use any more."""
        return self._lock.broken

    @property
    def appended_us(self) -> int:
        """When the last applied record was appended; MIN_TS_US before the first. No lock: one reference is read."""
        return self._appended_us

    def settle(self, settled_us: int) -> None:
        """The time that has stood, from now on; MIN_TS_US: none has. No lock: one reference is written."""
        self._settled_us = settled_us

    def raw_from_us(self, now_us: int) -> int:
        """The first instant from which on this view holds raw events at `now_us`: a whole minute. So does every other
        view, unless the retention was made longer or the clock is behind one that was believed.
        """
        return max(self.retention.raw_from_us(now_us), self._folded_to_us)

    def resolution_us(self, ts_us: int, now_us: int) -> int:
        """How far apart the instants are, around that one, between which events cannot be told apart: 1 µs while they
        are raw, then a roll-up's length.
        """
        if ts_us >= self.raw_from_us(now_us):
            return 1
        return MINUTE_US if ts_us >= self._minutes_from_us(now_us) else HOUR_US

    def _minutes_from_us(self, now_us: int) -> int:
        """From when on roll-ups are of minutes, and not of hours, or to be so."""
        return max(self.retention.rollup_bounds(now_us).minutes_from_us, self._hours_to_us)

    def apply(self, changes: Iterable[Change], appended_us: int) -> None:
        """Add a stretch of the journal, the last record of which was appended at `appended_us`."""
        with self._lock:
            for change in changes:
                if isinstance(change, Deletion):
                    self._delete(change)
                else:
                    self._insert(change)
            self._appended_us = appended_us

    def _insert(self, events: Events) -> None:
        """Caller holds the lock."""
        ts_us, values = events.ts_us, events.values
        oldest_us = int(ts_us.min())
        stamps_us = events.appended_us
        latest_us = int(stamps_us[0] if len(stamps_us) == 1 else stamps_us.max())
        # One comparison clears nearly every batch of all questions.
        if oldest_us < max(self.retention.raw_from_us(latest_us), self._horizon_us):
            self._remember_late(events)
            if oldest_us < (floor_us := self._floor_us()):
                kept = ts_us >= floor_us
                ts_us, values = ts_us[kept], values[kept]
                if not len(ts_us):
                    return
            if oldest_us < self._horizon_us:
                self._due.add(events.series)
        if self._sweeps:
            self._show_sweeps(events.series)
        timeline = self._timelines.get(events.series)
        if timeline is None:
            timeline = self._timelines[events.series] = Timeline()
            if events.series not in self._rollups:
                self._names = None
        timeline.insert(ts_us, values)
        self._event_count += len(ts_us)

    def _floor_us(self) -> int:
        """Caller holds the lock. What lies before may be dropped: the horizon itself, where there are no roll-ups."""
        return self.retention.from_us(self._time_us()) if self.retention.rollup_us else self._horizon_us

    def _time_us(self) -> int:
        """The time by which something may be done for good: never past the last record's, nor what has stood."""
        return min(self._settled_us, self._appended_us)

    def _remember_late(self, events: Events) -> None:
        """Caller holds the lock. Whether an event is late depends on its own record only, so all views agree."""
        kept_from_us = floor_us(events.appended_us - self.retention.raw_us, MINUTE_US)
        (late,) = np.nonzero(events.ts_us < kept_from_us)
        self._late.extend(
            LateEvent(events.series, int(events.ts_us[i]), float(events.values[i])) for i in late[-LATE_REMEMBERED:]
        )

    def _delete(self, deletion: Deletion) -> None:
        """Caller holds the lock."""
        self._show_sweeps(deletion.series)
        timeline = self._timelines.get(deletion.series)
        if timeline is not None:
            self._event_count -= timeline.delete(deletion.start_us, deletion.end_us)
            if not len(timeline):
                self._drop(deletion.series)
        rollups = self._rollups.get(deletion.series)
        if rollups is not None:
            self._rollup_bytes += rollups.remove(deletion.start_us, deletion.end_us)[1]
            if not len(rollups):
                self._drop_rollups(deletion.series)
        forgotten = [
            late
            for late in self._late
            if late.series == deletion.series and deletion.start_us <= late.ts_us < deletion.end_us
        ]
        for late in forgotten:
            self._late.remove(late)

    def _drop(self, series: str) -> None:
        """Caller holds the lock. An empty timeline costs nothing."""
        del self._timelines[series]
        if series not in self._rollups:
            self._names = None

    def _drop_rollups(self, series: str) -> None:
        """Caller holds the lock."""
        del self._rollups[series]
        if series not in self._timelines:
            self._names = None

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
        `raw_from_us(now_us)`: whether this view still holds such ones raw must not show. Otherwise they come from
        sketches, which are merged without the lock.
        """
        raw_from_us = self.raw_from_us(now_us)
        if percentiles and any(span.start_us < raw_from_us for span in spans):
            self._fold_all_of(series)
        with self._lock:
            timeline, rollups = self._held_of(series)
            drafts = []
            for span in spans:
                summary = timeline.summarise(*span)
                if span.start_us < raw_from_us:
                    rolled = rollups.summarise(*span)
                    if rolled.count or timeline.count(*before(span, raw_from_us)):
                        old = OldSpan(span, raw_from_us, self._minutes_from_us(now_us))
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
        percentiles come from sketches, as those of `statistics` do. Of the others percentiles and ends look at each
        event once, without the lock.
        """
        raw_from_us = self.raw_from_us(now_us)
        starts_us = [span.start_us + step_us * i for i in range(n_steps)]
        spans = [Span(*edges) for edges in zip(starts_us, [*starts_us[1:], span.end_us], strict=True)]
        n_rolled = bisect_left(starts_us, raw_from_us)
        if percentiles and n_rolled:
            self._fold_all_of(series)
        pieces: Iterator[tuple[TimestampsUs, Values]] = iter(())
        with self._lock:
            timeline, rollups = self._held_of(series)
            summaries = timeline.steps(span.start_us, step_us, n_steps - 1)
            summaries.append(timeline.summarise(*spans[-1]))
            rolled_by_step: list[list[Rolled]] = [[] for _ in range(n_rolled)]
            for rolled in rollups.between(span.start_us, spans[n_rolled - 1].end_us) if n_rolled else ():
                rolled_by_step[min((rolled.start_us - span.start_us) // step_us, n_rolled - 1)].append(rolled)
            # The last of those reaches into the raw events: often all that it has is raw.
            if n_rolled and not rolled_by_step[-1] and not timeline.count(*before(spans[n_rolled - 1], raw_from_us)):
                n_rolled -= 1
            drafts = []
            minutes_from_us = self._minutes_from_us(now_us)
            for summary, some, step in zip(summaries, rolled_by_step, spans[:n_rolled], strict=False):
                whole = combine(summary, rollup.summarise(rolled.block for rolled in some))
                old = OldSpan(step, raw_from_us, minutes_from_us)
                drafts.append(old.draft(whole, timeline, some, percentiles, ends))
            if (percentiles or ends) and n_rolled < n_steps:
                pieces = timeline.snapshot(starts_us[n_rolled], span.end_us)
        answers = [draft.finished(percentiles) for draft in drafts]
        if n_rolled < n_steps:
            details = step_details(pieces, starts_us[n_rolled], step_us, n_steps - n_rolled, percentiles)
            answers += [
                Statistics(summary, detail.percentiles, detail.first, detail.last)
                for summary, detail in zip(summaries[n_rolled:], details, strict=True)
            ]
        return answers

    def sweep(
        self,
        choose: Callable[[list[str]], Sequence[str]],
        picks: Callable[[str], bool],
        question: Question[PartT, Any],
        now_us: int,
    ) -> tuple[Sequence[str], Sweep[PartT]]:
        """What a question has to know of many series, as they all stand at one instant during this call.

        choose: out of the sorted list of names held, which it must not change, those to be looked at: sorted, also such
        as are not held. picks says the same of one name, under the lock. Gives the names and, in `Sweep.parts`, the
        part of each. The lock is held for about a millisecond at a time; see sweep.py.
        """
        with self._lock:
            bounds = Bounds(self.raw_from_us(now_us), self._minutes_from_us(now_us))
            sweep = Sweep(picks, question.looker(bounds))
            held = self._sorted_names()
            self._sweeps[id(sweep)] = sweep
        try:
            names = choose(held)
            waiting = iter(names)
            while self._visit_some(sweep, waiting):
                time.sleep(PAUSE_S)
        finally:
            del self._sweeps[id(sweep)]  # one step, so it needs no lock; it may be a broken one
        return names, sweep

    def _visit_some(self, sweep: Sweep[Any], names: Iterator[str]) -> bool:
        """Let it visit the next series; whether there may be more."""
        with self._lock:
            until_s = time.perf_counter() + SLICE_S
            for name in names:
                sweep.visit(name, *self._held_of(name))
                if time.perf_counter() > until_s:
                    return True
            return False

    def _show_sweeps(self, series: str) -> None:
        """Caller holds the lock, and is about to change the series."""
        for sweep in tuple(self._sweeps.values()):
            sweep.before_change(series, *self._held_of(series))

    def _held_of(self, series: str) -> tuple[Timeline, Rollups]:
        """Caller holds the lock, and writes to neither."""
        return self._timelines.get(series, _NO_TIMELINE), self._rollups.get(series, _NO_ROLLUPS)

    def names(self) -> Sequence[str]:
        """Every series that is held, also those of roll-ups only, sorted. A list that never changes: another takes its
        place when a series comes or goes. Some ns, or 20 ms under the lock for 100,000 names that have to be sorted.
        """
        with self._lock:
            return self._sorted_names()

    def series_names(self, from_name: str = "") -> list[str]:
        """The series that hold raw events, from that name on, sorted."""
        with self._lock:
            names = self._sorted_names()
            return [name for name in names[bisect_left(names, from_name) :] if name in self._timelines]

    def snapshot(self, series: Sequence[str], span: Span) -> list[tuple[str, Iterator[tuple[TimestampsUs, Values]]]]:
        """The events of some series as they stand now, to be walked later without the lock.

        Each is in order of time, then arrival, in pieces of a chunk or two. About 1 µs a chunk; copies nothing.
        """
        with self._lock:
            return [(name, self._timelines[name].snapshot(*span)) for name in series if name in self._timelines]

    def contains(self, series: str, ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
        """Which of the pairs (ts_us[i], values[i]) are raw events held: bool[n]."""
        with self._lock:
            timeline = self._timelines.get(series)
            return np.zeros(len(ts_us), np.bool_) if timeline is None else timeline.contains(ts_us, values)

    def count(self, series: str, span: Span) -> int:
        """How many events count in the span, whose edges are as `statistics` wants them."""
        with self._lock:
            timeline, rollups = self._held_of(series)
            return timeline.count(*span) + rollups.summarise(*span).count

    def series_count(self, from_us: int | None = None) -> int:
        """How many series are held; with from_us those with a raw event at or after it or with roll-ups. O(series)."""
        with self._lock:
            names = {n for n, timeline in self._timelines.items() if from_us is None or timeline.last_ts_us >= from_us}
            return len(names | self._rollups.keys())

    def unknown_series(self, names: Iterable[str]) -> list[str]:
        """Those of the names that nothing is held of."""
        return [name for name in names if name not in self._timelines and name not in self._rollups]

    def series_page(
        self, prefix: str, after: str, limit: int, now_us: int, *, raw_only: bool = False
    ) -> list[SeriesInfo]:
        """The first `limit` series by name after `after` whose names begin so, with all that a question can reach at
        `now_us`; with `raw_only` those that have raw events, with these alone. 1 µs for each, under the lock.

        What lies before `raw_from_us(now_us)` is told as precisely as roll-ups are, whether it is one already or not.
        """
        raw_from_us = self.raw_from_us(now_us)
        from_us = raw_from_us if raw_only else min(self.retention.from_us(now_us), raw_from_us)
        minutes_from_us = self._minutes_from_us(now_us)
        page: list[SeriesInfo] = []
        timelines = self._timelines
        some_rollups = {} if raw_only else self._rollups
        with self._lock:
            names = self._sorted_names()
            for at in range(max(bisect_left(names, prefix), bisect_right(names, after)), len(names)):
                name = names[at]
                if len(page) == limit or not name.startswith(prefix):
                    break
                timeline, rollups = timelines.get(name), some_rollups.get(name)
                extent = None if timeline is None else timeline.extent(from_us)
                if rollups is not None and (rolled := rollups.extent(from_us)) is not None:
                    if extent is None:
                        extent = rolled
                    else:
                        events, first_us, last_us = extent
                        extent = events + rolled[0], min(first_us, rolled[1]), max(last_us, rolled[2])
                if extent is None:
                    continue
                events, first_us, last_us = extent
                length_us = 1
                if first_us < raw_from_us:
                    first_us, length_us = block_at(first_us, minutes_from_us)
                    if last_us < raw_from_us:
                        last_us = sum(block_at(last_us, minutes_from_us))
                page.append(SeriesInfo(name, events, first_us, last_us, length_us))
        return page

    def _sorted_names(self) -> list[str]:
        """Caller holds the lock. Sorted again only when a series came or went: 100,000 names take 20 ms."""
        if self._names is None:
            self._names = sorted(self._timelines.keys() | self._rollups.keys())
        return self._names

    def held(self, series: str, from_us: int, limit: int, *, late_only: bool = False) -> Held:
        """The newest `limit` of the raw events from `from_us` on and the late arrivals remembered.

        What was late only by a clock that was wrong then is among the raw events, and listed once.
        """
        with self._lock:
            late = [(e.ts_us, e.value) for e in self._late if e.series == series and e.ts_us < from_us]
            late.sort(reverse=True)
            timeline = self._timelines.get(series)
            if timeline is None or late_only:
                return Held(len(late), late[:limit])
            ts_us, values = timeline.columns(from_us, None, limit=limit, newest_first=True)
            total = timeline.count(from_us, None) + len(late)
        # A late arrival is older than every raw event from `from_us` on: the two lists need no merging.
        events = list(zip(ts_us.tolist(), values.tolist(), strict=True)) + late
        return Held(total, events[:limit])

    def holds_expired(self, settled_us: int) -> bool:
        """Whether a record that is appended now would let something be folded or dropped, when this has stood.
        O(series).
        """
        raw_from_us, from_us = self.retention.raw_from_us(settled_us), self.retention.from_us(settled_us)
        with self._lock:
            return any(t.first_ts_us < raw_from_us for t in self._timelines.values()) or any(
                rollups.ends_by(from_us) for rollups in self._rollups.values()
            )

    def expire(self, horizon_us: int | None = None, minutes_from_us: int | None = None) -> int:
        """Move the horizon as far as it may go, and fold or drop what lies before it; how many raw events that were.

        Or to `horizon_us`, with roll-ups of hours before `minutes_from_us`, where others do not ask this store.
        O(series + chunks); others get in every millisecond or so.
        """
        with self._lock:
            self._advance(horizon_us, minutes_from_us)
        folded = 0
        while self._due:
            with self._lock:
                until_s = time.perf_counter() + _FOLD_S
                while self._due and time.perf_counter() < until_s:
                    folded += self._fold(self._due.pop())
            time.sleep(_FOLD_PAUSE_S)
        return folded

    def _advance(self, horizon_us: int | None = None, minutes_from_us: int | None = None) -> None:
        """Caller holds the lock. Move the horizon; what that concerns becomes due."""
        time_us = self._time_us()
        if horizon_us is None:
            horizon_us = self.retention.raw_from_us(time_us)
        if horizon_us > self._horizon_us:
            self._due.update(self._timelines)
        self._horizon_us = horizon_us
        if not self.retention.rollup_us:
            return
        bounds = self.retention.rollup_bounds(time_us)
        if minutes_from_us is not None:
            bounds = bounds._replace(minutes_from_us=minutes_from_us)
        if bounds != self._rollup_bounds:  # once an hour roll-ups are merged, and dropped
            self._rollup_bounds = bounds
            self._due.update(self._rollups)

    def _fold_all_of(self, series: str) -> None:
        """Fold what is due of one series, up to what any view may have folded: from then on their sketches agree."""
        with self._lock:
            self._advance()
        while series in self._due:
            with self._lock:
                self._fold(series)

    def _fold(self, series: str) -> int:
        """Fold or drop some of what is due of a series, or find that nothing is any more. Caller holds the lock.

        At most a minute and some chunks at once: about 1 ms. How many raw events that were.
        """
        self._due.discard(series)
        self._show_sweeps(series)
        folded = 0
        timeline = self._timelines.get(series)
        if timeline is not None and (first_us := timeline.first_ts_us) < self._horizon_us:
            before = len(timeline)
            end_us = min(self._horizon_us, timeline.slice_end_us(_FOLD_CHUNKS))
            if self.retention.rollup_us:
                minute_us = floor_us(first_us, MINUTE_US)
                self._roll_up(series, minute_us, timeline, min(end_us, minute_us + MINUTE_US))
            else:
                timeline.expire_before(end_us)
            folded = before - len(timeline)
            self._event_count -= folded
            if not len(timeline):
                self._drop(series)
            elif timeline.first_ts_us < self._horizon_us:
                self._due.add(series)
                return folded
        rollups = self._rollups.get(series)
        if rollups is not None:
            hours_from_us, minutes_from_us = self._rollup_bounds
            self._rollup_bytes += rollups.expire(hours_from_us)
            self._rollup_bytes += rollups.coarsen(minutes_from_us)
            self._hours_to_us = max(self._hours_to_us, min(minutes_from_us, self._folded_to_us + HOUR_US))
            if not len(rollups):
                self._drop_rollups(series)
        return folded

    def _roll_up(self, series: str, minute_us: int, timeline: Timeline, end_us: int) -> None:
        """Move a minute's first events, up to `end_us`, to the series' roll-ups. Caller holds the lock."""
        few = timeline.pop_few(end_us, rollup.FEW)
        if few is not None:
            block = rollup.encode_values(few)
        else:
            block = rollup.encode(timeline.summarise(None, end_us), sketch.merge(timeline.sketches(None, end_us)))
            timeline.expire_before(end_us)
        rollups = self._rollups.get(series)
        if rollups is None:
            rollups = self._rollups[series] = Rollups()
        self._rollup_bytes += rollups.add(minute_us, block)
        self._folded_to_us = max(self._folded_to_us, minute_us + MINUTE_US)

    def load(self, events: EventBatch, appended_us: int) -> None:
        """Begin with a checkpoint's raw events. The store must be new."""
        with self._lock:
            self._names = None
            for series, ts_us, values in events.parts:
                timeline = self._timelines[series] = Timeline()
                timeline.insert(ts_us, values)
                self._event_count += len(ts_us)
            self._appended_us = appended_us

    def load_rollups(self, hour_us: int, blocks: dict[str, dict[int, bytes]]) -> None:
        """Begin with a checkpoint's roll-ups of an hour: by series, then as `Rollups.extend` takes them."""
        with self._lock:
            self._names = None
            for series, held in blocks.items():
                rollups = self._rollups.get(series)
                if rollups is None:
                    rollups = self._rollups[series] = Rollups()
                self._rollup_bytes += rollups.extend(hour_us, held)
                if rollup.WHOLE_HOUR in held:
                    self._hours_to_us = self._folded_to_us = hour_us + HOUR_US
                else:
                    self._folded_to_us = max(self._folded_to_us, hour_us + (max(held) + 1) * MINUTE_US)

    def live_events(self) -> EventBatch:
        """A copy of every raw event held: what a checkpoint carries."""
        with self._lock:
            return EventBatch(
                tuple(Part(name, *timeline.columns(None, None)) for name, timeline in self._timelines.items())
            )

    @property
    def folded_to_us(self) -> int:
        """No roll-up reaches past it."""
        return self._folded_to_us

    def rolled_up(self) -> dict[str, list[Rolled]]:
        """Every roll-up held, by series."""
        with self._lock:
            return {name: list(rollups.between(None, None)) for name, rollups in self._rollups.items()}

    def size_bytes(self) -> int:
        """About how much memory the events held take. O(chunks + series); others get in between."""
        with self._lock:
            names = list(self._timelines)
        size_bytes = 0
        for first in range(0, len(names), _SERIES_PER_LOCK):
            with self._lock:
                held = (self._timelines.get(name) for name in names[first : first + _SERIES_PER_LOCK])
                size_bytes += sum(timeline.nbytes for timeline in held if timeline is not None)
        return size_bytes

    def rollup_bytes(self) -> int:
        """What the roll-ups hold. No lock: one number is read."""
        return self._rollup_bytes

    def event_count(self) -> int:
        """How many raw events are held, over all series. No lock: one number is read."""
        return self._event_count

    def check_invariants(self) -> None:
        """Raise AssertionError unless every timeline agrees with itself, and the counts with the timelines. O(events);
        for tests.
        """
        with self._lock:
            for timeline in self._timelines.values():
                timeline.check_invariants()
            held = sum(len(timeline) for timeline in self._timelines.values())
            require(held == self._event_count, f"{held} events are held, {self._event_count} are counted")

    def used_events(self) -> int:
        """What is held, measured in events: the raw ones, plus the bytes of roll-ups / EVENT_BYTES. This is what
        STATSAPI_MAX_EVENTS limits. No lock: two numbers are read.
        """
        return self._event_count + self._rollup_bytes // EVENT_BYTES


# Of a series that nothing is held of. Never written to.
_NO_TIMELINE: Final = Timeline()
_NO_ROLLUPS: Final = Rollups()
