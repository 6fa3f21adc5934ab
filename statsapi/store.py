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
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

import numpy as np

from statsapi.model import MIN_TS_US, Deletion, EventBatch, Part, TimestampsUs, Values
from statsapi.summary import IDENTITY, Summary
from statsapi.timeline import Timeline
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


class Store:
    """The view of one worker.

    keep_us: how long before a record's `appended_us` its events are kept raw (retention + grace), in µs.
    """

    def __init__(self, keep_us: int) -> None:
        self._lock = threading.Lock()
        self._keep_us = keep_us
        self._timelines: dict[str, Timeline] = {}
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
        timeline.insert(ts_us, values)

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
            timeline.delete(deletion.start_us, deletion.end_us)
            if not len(timeline):
                del self._timelines[deletion.series]
        forgotten = [
            late
            for late in self._late
            if late.series == deletion.series and deletion.start_us <= late.ts_us < deletion.end_us
        ]
        for late in forgotten:
            self._late.remove(late)

    def summarise(self, series: str, start_us: int | None, end_us: int | None) -> Summary:
        """The exact summary of [start_us, end_us) of a series; of one never seen, the empty one."""
        with self._lock:
            timeline = self._timelines.get(series)
            return IDENTITY if timeline is None else timeline.summarise(start_us, end_us)

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
                        dropped += timeline.expire_before(horizon_us)
                        if not len(timeline):
                            del self._timelines[name]
        return dropped

    def load(self, events: EventBatch, horizon_us: int, appended_us: int) -> None:
        """Begin with a checkpoint's state. The store must be new."""
        with self._lock:
            for series, ts_us, values in events.parts:
                timeline = self._timelines[series] = Timeline()
                timeline.insert(ts_us, values)
            self._horizon_us = horizon_us
            self._appended_us = appended_us

    def live_events(self) -> EventBatch:
        """A copy of every raw event held: what a checkpoint carries."""
        with self._lock:
            return EventBatch(
                tuple(Part(name, *timeline.columns(None, None)) for name, timeline in self._timelines.items())
            )

    def event_count(self) -> int:
        """How many raw events are held, over all series. O(series)."""
        with self._lock:
            return sum(map(len, self._timelines.values()))
