"""All timelines behind the one threading.Lock: one worker's view of the journal.

A store is the sum of the records it has applied, in journal order; applying never judges (DESIGN, "Records and
views"). It knows no clock, no journal and no HTTP: segments come in, summaries go out.

Two bounds decide what it holds:
- the *mark*: the last record applied. `appended_us` is that record's time, and rises.
- the *horizon*: a whole minute; events before it have been dropped. It never passes the last `appended_us` - keep, so
  no question about the retention reaches below it, and two views with different horizons give the same answers.

Every public method takes the lock itself; none is held while something else is waited for.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from statsapi.model import (
    MIN_TS_US,
    Deletion,
    EventBatch,
    Part,
    SeriesInfo,
    Span,
    TimestampsUs,
    Values,
)
from statsapi.summary import IDENTITY, Summary
from statsapi.timeline import Timeline, step_details
from statsapi.times import MINUTE_US, floor_minute_us

# How many of the events that were too old to count are remembered, so that a wrongly stamped one can be found.
LATE_REMEMBERED: Final = 1000

# Expiry lets readers in after this many series.
_SERIES_PER_LOCK: Final = 1000


class EventColumns(Protocol):
    """Events of one series in arrival order: equally long columns, with the time each one's record was appended."""

    @property
    def series(self) -> str: ...
    @property
    def ts_us(self) -> TimestampsUs: ...
    @property
    def values(self) -> Values: ...
    @property
    def appended_us(self) -> TimestampsUs: ...


class LateEvent(NamedTuple):
    """An event that was older than everything kept when it was recorded."""

    series: str
    ts_us: int
    value: float


class Held(NamedTuple):
    """A page of one series, newest first, and how many events there are in all."""

    total: int
    events: list[tuple[int, float]]


class Statistics(NamedTuple):
    """One span's answer. percentiles: one for each asked, [] when the span is empty or none was asked."""

    summary: Summary
    percentiles: list[float]
    first: float | None
    last: float | None


class Store:
    """The view of one worker.

    keep_us: how long before a record's `appended_us` its events are kept raw (retention + grace), in µs.
    """

    def __init__(self, keep_us: int) -> None:
        self._lock = threading.Lock()
        self._keep_us = keep_us
        self._timelines: dict[str, Timeline] = {}
        self._event_count = 0
        self._names: list[str] | None = None  # sorted; None when a series came or went
        self._late: deque[LateEvent] = deque(maxlen=LATE_REMEMBERED)
        self._horizon_us = MIN_TS_US
        self._appended_us = MIN_TS_US

    @property
    def appended_us(self) -> int:
        """When the last applied record was appended; MIN_TS_US before the first. No lock: one reference is read."""
        return self._appended_us

    @property
    def horizon_us(self) -> int:
        return self._horizon_us

    def kept_from_us(self, now_us: int) -> int:
        """The first instant whose events every view still holds raw at `now_us`: a whole minute."""
        return floor_minute_us(now_us - self._keep_us)

    def apply(self, changes: Iterable[EventColumns | Deletion], appended_us: int) -> None:
        """Add a stretch of the journal, the last record of which was appended at `appended_us`. Cannot fail."""
        with self._lock:
            for change in changes:
                if isinstance(change, Deletion):
                    self._delete(change)
                else:
                    self._insert(change)
            self._appended_us = appended_us

    def _insert(self, events: EventColumns) -> None:
        """Caller holds the lock."""
        ts_us, values = events.ts_us, events.values
        oldest_us = int(ts_us.min())
        # The last record's bound is the highest: one comparison clears nearly every batch of both questions.
        if oldest_us < self.kept_from_us(int(events.appended_us[-1])):
            self._remember_late(events)
        if oldest_us < self._horizon_us:
            kept = ts_us >= self._horizon_us
            ts_us, values = ts_us[kept], values[kept]
            if not len(ts_us):
                return
        timeline = self._timelines.get(events.series)
        if timeline is None:
            timeline = self._timelines[events.series] = Timeline()
            self._names = None
        timeline.insert(ts_us, values)
        self._event_count += len(ts_us)

    def _remember_late(self, events: EventColumns) -> None:
        """Caller holds the lock. Whether an event is late depends on its own record only, so all views agree."""
        bounds_us = events.appended_us - self._keep_us
        bounds_us -= bounds_us % MINUTE_US
        (late,) = np.nonzero(events.ts_us < bounds_us)
        self._late.extend(
            LateEvent(events.series, int(events.ts_us[i]), float(events.values[i])) for i in late[-LATE_REMEMBERED:]
        )

    def _delete(self, deletion: Deletion) -> None:
        """Caller holds the lock."""
        timeline = self._timelines.get(deletion.series)
        if timeline is not None:
            self._event_count -= timeline.delete(deletion.start_us, deletion.end_us)
            if not len(timeline):
                self._drop(deletion.series)
        forgotten = [
            late
            for late in self._late
            if late.series == deletion.series and deletion.start_us <= late.ts_us < deletion.end_us
        ]
        for late in forgotten:
            self._late.remove(late)

    def _drop(self, series: str) -> None:
        """Caller holds the lock. An empty series costs nothing."""
        del self._timelines[series]
        self._names = None

    def statistics(
        self, series: str, spans: Sequence[Span], percentiles: Sequence[float] = (), *, ends: bool = False
    ) -> list[Statistics]:
        """Each span's statistics, all from one instant; `ends` asks for the values of the first and last event too.

        percentiles are numbers from 0 to 100.
        """
        with self._lock:
            timeline = self._timelines.get(series)
            if timeline is None:
                return [Statistics(IDENTITY, [], None, None)] * len(spans)
            answers = []
            for span in spans:
                first = timeline.first(*span) if ends else None
                last = timeline.last(*span) if ends else None
                answers.append(
                    Statistics(
                        timeline.summarise(*span),
                        timeline.percentiles(*span, percentiles) if percentiles else [],
                        first and first[1],
                        last and last[1],
                    )
                )
            return answers

    def steps(
        self,
        series: str,
        span: Span,
        step_us: int,
        n_steps: int,
        percentiles: Sequence[float] = (),
        *,
        ends: bool = False,
    ) -> list[Statistics]:
        """The statistics of n_steps stretches of step_us each, all from one instant; the last ends where the span does.

        Percentiles and ends look at each event once, without the lock.
        """
        last_us = span.start_us + step_us * (n_steps - 1)
        pieces: Iterator[tuple[TimestampsUs, Values]] = iter(())
        with self._lock:
            timeline = self._timelines.get(series)
            if timeline is None:
                summaries = [IDENTITY] * n_steps
            else:
                summaries = timeline.steps(span.start_us, step_us, n_steps - 1)
                summaries.append(timeline.summarise(last_us, span.end_us))
                if percentiles or ends:
                    pieces = timeline.snapshot(*span)
        details = step_details(pieces, span.start_us, step_us, n_steps, percentiles)
        return [
            Statistics(summary, detail.percentiles, detail.first, detail.last)
            for summary, detail in zip(summaries, details, strict=True)
        ]

    def series_names(self, from_name: str = "") -> list[str]:
        """The series held from that name on, sorted."""
        with self._lock:
            names = self._sorted_names()
            return names[bisect_left(names, from_name) :]

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
        with self._lock:
            timeline = self._timelines.get(series)
            return 0 if timeline is None else timeline.count(*span)

    def series_count(self, from_us: int | None = None) -> int:
        """How many series are held; with from_us those with an event at or after it, in O(series)."""
        if from_us is None:
            return len(self._timelines)
        with self._lock:
            return sum(timeline.last_ts_us >= from_us for timeline in self._timelines.values())

    def unknown_series(self, names: Iterable[str]) -> list[str]:
        """Those of the names that nothing is held of."""
        return [name for name in names if name not in self._timelines]

    def series_page(self, prefix: str, after: str, limit: int, from_us: int) -> list[SeriesInfo]:
        """The first `limit` series by name after `after` whose names begin so, with their events from from_us on.

        A series whose events all lie before from_us is passed over: it is about to go.
        """
        page: list[SeriesInfo] = []
        with self._lock:
            names = self._sorted_names()
            at = max(bisect_left(names, prefix), bisect_right(names, after))
            while at < len(names) and len(page) < limit and names[at].startswith(prefix):
                timeline = self._timelines[names[at]]
                if (count := timeline.count(from_us, None)) and (first := timeline.first(from_us)):
                    page.append(SeriesInfo(names[at], count, first[0], timeline.last_ts_us))
                at += 1
        return page

    def _sorted_names(self) -> list[str]:
        """Caller holds the lock. Sorted again only when a series came or went: 100,000 names take 20 ms."""
        if self._names is None:
            self._names = sorted(self._timelines)
        return self._names

    def held(self, series: str, from_us: int, limit: int, *, late_only: bool = False) -> Held:
        """The newest `limit` of the raw events from `from_us` on and the late arrivals remembered."""
        with self._lock:
            late = sorted(((e.ts_us, e.value) for e in self._late if e.series == series), reverse=True)
            timeline = self._timelines.get(series)
            if timeline is None or late_only:
                return Held(len(late), late[:limit])
            ts_us, values = timeline.columns(from_us, None, limit=limit, newest_first=True)
            total = timeline.count(from_us, None) + len(late)
        # A late arrival is older than every raw event from `from_us` on: the two lists need no merging.
        events = list(zip(ts_us.tolist(), values.tolist(), strict=True)) + late
        return Held(total, events[:limit])

    def oldest_ts_us(self) -> int | None:
        """The oldest raw event's timestamp over all series. O(series)."""
        with self._lock:
            return min((t.first_ts_us for t in self._timelines.values() if len(t)), default=None)

    def expire(self) -> int:
        """Move the horizon as far as it may go and drop what lies before it; how many events that were.

        O(chunks dropped + series); readers get in between.
        """
        horizon_us = self.kept_from_us(self._appended_us)
        return self.advance_horizon(horizon_us) if horizon_us > self._horizon_us else 0

    def advance_horizon(self, horizon_us: int) -> int:
        """Drop what lies before `horizon_us`, a whole minute that never comes to lie in a question's reach."""
        with self._lock:
            self._horizon_us = max(self._horizon_us, horizon_us)
            names = list(self._timelines)
        dropped = 0
        for first in range(0, len(names), _SERIES_PER_LOCK):
            with self._lock:
                for name in names[first : first + _SERIES_PER_LOCK]:
                    timeline = self._timelines.get(name)
                    if timeline is not None:
                        expired = timeline.expire_before(horizon_us)
                        self._event_count -= expired
                        dropped += expired
                        if not len(timeline):
                            self._drop(name)
        return dropped

    def load(self, events: EventBatch, horizon_us: int, appended_us: int) -> None:
        """Begin with a checkpoint's state. The store must be new."""
        with self._lock:
            for series, ts_us, values in events.parts:
                timeline = self._timelines[series] = Timeline()
                timeline.insert(ts_us, values)
                self._event_count += len(ts_us)
            self._horizon_us = horizon_us
            self._appended_us = appended_us

    def live_events(self) -> EventBatch:
        """A copy of every raw event held: what a checkpoint carries."""
        with self._lock:
            return EventBatch(
                tuple(Part(name, *timeline.columns(None, None)) for name, timeline in self._timelines.items())
            )

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

    def event_count(self) -> int:
        """How many raw events are held, over all series. No lock: one number is read."""
        return self._event_count
