"""All a store holds, and every change of it: timelines and roll-ups by series. The caller holds the store's lock.

These decide what is held (`model.Retention` says where the bounds may lie):
- the *mark*: the last record applied. `appended_us` is that record's time; it falls when a wrong clock was put right.
- the time that has *stood*, `settled_us`. Nothing irreversible is done by a time later than this or the mark's.
- the *horizon*: a whole minute, computed from the two. Events before it are due to be *folded*: a timeline's minute
  becomes a block of the series' roll-ups. Without roll-ups they are dropped. The horizon moves back when the clock was
  wrong; folded events stay folded, and `folded_to_us` is after the last of them.
- the *floor*: events before it do not count any more.

Every event is either in its series' timeline or in its roll-ups, and a question adds up both. So folding can be done in
small slices, with questions in between. An event that comes late for its minute is put into the timeline, and is folded
soon.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from itertools import compress
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.engine import rollup, sketch
from statsapi.engine.changes import Changes
from statsapi.engine.piecewise import PIECE
from statsapi.engine.rollup import Rollups
from statsapi.engine.sweep import Sweep
from statsapi.engine.timeline import Timeline
from statsapi.engine.timelines import Timelines
from statsapi.model import (
    HOUR_US,
    MIN_TS_US,
    MINUTE_US,
    Deletion,
    EventBatch,
    Events,
    Retention,
    RollupBounds,
    SingleEvents,
    TimestampsUs,
    floor_us,
)

# This many events that came too old to be kept raw are remembered, so that wrong timestamps can be found.
LATE_REMEMBERED: Final = 1000

# Up to _PUT_IN new names are inserted into the sorted list, in 50 µs each among 100,000; more are sorted in together.
# Up to _CAME_MAX are remembered for that.
_PUT_IN: Final = 64
_CAME_MAX: Final = 16_384

# Folding one series stops after this many chunks, which take 1.4 ms.
_FOLD_CHUNKS: Final = 128


class LateEvent(NamedTuple):
    """An event that was older than all raw events kept when it was recorded."""

    series: str
    ts_us: int
    value: float


class Holdings:
    """The state of one store. The store reads its fields and writes `appended_us` and `settled_us`; the rest is written
    here.
    """

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.timelines = Timelines()
        self.rollups: dict[str, Rollups] = {}
        self.event_count = 0  # raw events, over all series
        self.rollup_bytes = 0
        self.sweeps: dict[int, Sweep[Any]] = {}  # questions that have not looked at all series yet
        self.changes = Changes()
        self.late: deque[LateEvent] = deque(maxlen=LATE_REMEMBERED)
        self.due: set[str] = set()  # series that may hold something from before the horizon
        self.appended_us = MIN_TS_US
        self.settled_us = MIN_TS_US
        self.folded_to_us = MIN_TS_US  # no roll-up reaches past it
        self.hours_to_us = MIN_TS_US  # no roll-up of an hour reaches past it
        self._horizon_us = MIN_TS_US
        self._raw_at_us = self._raw_from_us = MIN_TS_US - 1  # a time, and what Retention.raw_from_us gives for it
        self._floor_at_us = self._kept_from_us = MIN_TS_US - 1  # a time, and what Retention.from_us gives for it
        self._rollup_bounds = RollupBounds(MIN_TS_US, MIN_TS_US)
        self._names: list[str] | None = None  # sorted, without those in _came; None when a series has gone
        self._came: list[str] = []

    def raw_from_us(self, now_us: int) -> int:
        """See `Store.raw_from_us`."""
        return max(self.retention.raw_from_us(now_us), self.folded_to_us)

    def minutes_from_us(self, now_us: int) -> int:
        """The instant from which roll-ups are, or will be, of minutes. Before it they are of hours."""
        return max(self.retention.rollup_bounds(now_us).minutes_from_us, self.hours_to_us)

    def insert(self, events: Events) -> None:
        series, ts_us, values, stamps_us = events
        # A batch may have 100,000 series of one event, for which arrays of one take five times as long.
        if len(ts_us) == 1:
            oldest_us, latest_us = ts_us.item(), stamps_us.item()
        else:
            oldest_us, latest_us = int(ts_us.min()), int(stamps_us.max())
        if latest_us != self._raw_at_us:  # the same for all series of a batch
            self._raw_at_us, self._raw_from_us = latest_us, self.retention.raw_from_us(latest_us)
        # For nearly every batch this comparison is the only check.
        if oldest_us < self._raw_from_us or oldest_us < self._horizon_us:
            self._remember_late(events)
            if oldest_us < (floor_us := self._floor_us()):
                kept = ts_us >= floor_us
                ts_us, values = ts_us[kept], values[kept]
                if not len(ts_us):
                    return
            if oldest_us < self._horizon_us:
                self.due.add(series)
        if self.sweeps:
            self._show_sweeps(series)
        timeline = self.timelines.opened.get(series)
        if timeline is not None:  # nearly always
            timeline.insert(ts_us, values)
        elif self.timelines.insert(series, ts_us, values) and series not in self.rollups:
            self._remember_new(series)
        self.changes.inserted(series, ts_us, values)
        self.event_count += len(ts_us)

    def insert_singles(self, events: SingleEvents) -> None:
        """What `insert` does for each of these series. 0.4 µs for a new one, where `insert` takes 5."""
        names, ts_us, values, stamps_us = events
        oldest_us = int(ts_us.min())
        if oldest_us < self.retention.raw_from_us(int(stamps_us.max())) or oldest_us < self._horizon_us:
            late = self._late(ts_us, stamps_us)
            self.late.extend(map(LateEvent, [names[i] for i in late], ts_us[late].tolist(), values[late].tolist()))
            if oldest_us < (floor_us := self._floor_us()):
                kept = ts_us >= floor_us
                names, ts_us, values = list(compress(names, kept.tolist())), ts_us[kept], values[kept]
            if oldest_us < self._horizon_us:
                self.due.update(compress(names, (ts_us < self._horizon_us).tolist()))
        if self.sweeps:
            for name in names:
                self._show_sweeps(name)
        for name in self.timelines.insert_singles(names, ts_us, values):
            if name not in self.rollups:
                self._remember_new(name)
        self.changes.inserted_singles(names, ts_us, values)
        self.event_count += len(names)

    def _floor_us(self) -> int:
        """Events before this instant may be dropped. Without roll-ups it is the horizon."""
        if not self.retention.rollup_us:
            return self._horizon_us
        time_us = self._time_us()
        if time_us != self._floor_at_us:  # the same for all series of a batch
            self._floor_at_us, self._kept_from_us = time_us, self.retention.from_us(time_us)
        return self._kept_from_us

    def _time_us(self) -> int:
        """The time for irreversible steps: never past the last record's, nor past the time that has stood."""
        return min(self.settled_us, self.appended_us)

    def _remember_late(self, events: Events) -> None:
        """Remember late events. Whether an event is late depends on its own record only, so all views agree."""
        if len(events.ts_us) == 1:
            if (ts_us := events.ts_us.item()) < self._raw_from_us:  # which `insert` has set by its record's time
                self.late.append(LateEvent(events.series, ts_us, events.values.item()))
            return
        late = self._late(events.ts_us, events.appended_us)
        self.late.extend(LateEvent(events.series, int(events.ts_us[i]), float(events.values[i])) for i in late)

    def _late(self, ts_us: TimestampsUs, stamps_us: TimestampsUs) -> NDArray[np.intp]:
        """Where events lie that were late when they were recorded: the last LATE_REMEMBERED of them."""
        kept_from_us = floor_us(stamps_us - self.retention.raw_us, MINUTE_US)
        return np.flatnonzero(ts_us < kept_from_us)[-LATE_REMEMBERED:]

    def delete(self, deletion: Deletion) -> None:
        self._show_sweeps(deletion.series)
        timeline = self.timelines.to_change(deletion.series)
        if timeline is not None:
            self.changes.removed(deletion.end_us)
            self.event_count -= timeline.delete(deletion.start_us, deletion.end_us)
            self._note_changed(deletion.series)
        rollups = self.rollups.get(deletion.series)
        if rollups is not None:
            self.rollup_bytes += rollups.remove(deletion.start_us, deletion.end_us)[1]
            if not len(rollups):
                self._drop_rollups(deletion.series)
        forgotten = [
            late
            for late in self.late
            if late.series == deletion.series and deletion.start_us <= late.ts_us < deletion.end_us
        ]
        for late in forgotten:
            self.late.remove(late)

    def _note_changed(self, series: str) -> None:
        """Call it after events were taken out of a timeline, so that an empty one takes no memory."""
        if not self.timelines.changed(series) and series not in self.rollups:
            self._names = None

    def _drop_rollups(self, series: str) -> None:
        del self.rollups[series]
        if series not in self.timelines:
            self._names = None

    def _show_sweeps(self, series: str) -> None:
        """Called before the series changes: questions that have not looked at it yet do so now."""
        for sweep in tuple(self.sweeps.values()):
            sweep.before_change(series, *self.of(series))

    def of(self, series: str) -> tuple[Timeline, Rollups]:
        """The timeline and roll-ups of a series; empty ones if there are none. The caller changes neither."""
        timeline = self.timelines.opened.get(series) or self.timelines.get(series) or _NO_TIMELINE
        return timeline, self.rollups.get(series, _NO_ROLLUPS)

    def sorted_names(self) -> list[str]:
        """The names of all series, sorted. For 100,000 names: 20 ms after a series has gone, 4 ms after many have come,
        and 0.2 ms after one has.
        """
        if self._names is None:
            # In pieces first: then no call of 100,000 names in any order keeps the interpreter for 40 ms, but for 15.
            names = [*self.timelines.names(), *(name for name in self.rollups if name not in self.timelines)]
            for first in range(0, len(names), PIECE):
                names[first : first + PIECE] = sorted(names[first : first + PIECE])
            names.sort()
            self._names = names
        elif len(self._came) > _PUT_IN:
            self._names = sorted(self._names + self._came)  # faster than from scratch: all but the end is in order
        elif self._came:
            self._names = self._names.copy()  # others may be reading it
            for name in self._came:
                insort(self._names, name)
        self._came = []
        return self._names

    def _remember_new(self, series: str) -> None:
        if len(self._came) < _CAME_MAX:
            self._came.append(series)
        else:
            self._names = None

    def advance(self, horizon_us: int | None = None, minutes_from_us: int | None = None) -> None:
        """Move the horizon. Series with events or roll-ups to fold, merge or drop become due."""
        time_us = self._time_us()
        if horizon_us is None:
            horizon_us = self.retention.raw_from_us(time_us)
        if horizon_us > self._horizon_us:
            self.due.update(self.timelines.names())
        self._horizon_us = horizon_us
        if not self.retention.rollup_us:
            return
        bounds = self.retention.rollup_bounds(time_us)
        if minutes_from_us is not None:
            bounds = bounds._replace(minutes_from_us=minutes_from_us)
        if bounds != self._rollup_bounds:  # once an hour roll-ups are merged and dropped
            self._rollup_bounds = bounds
            self.due.update(self.rollups)

    def fold(self, series: str) -> int:
        """Fold or drop a slice of a due series, if anything in it is still due. Returns how many raw events that were.

        A slice is at most a minute and some chunks: about 1 ms.
        """
        self.due.discard(series)
        self._show_sweeps(series)
        folded = 0
        timeline = self.timelines.to_change(series, self._horizon_us)
        if timeline is not None:
            before, first_us = len(timeline), timeline.first_ts_us
            end_us = min(self._horizon_us, timeline.slice_end_us(_FOLD_CHUNKS))
            self.changes.removed(end_us)
            if self.retention.rollup_us:
                minute_us = floor_us(first_us, MINUTE_US)
                self._roll_up(series, minute_us, timeline, min(end_us, minute_us + MINUTE_US))
            else:
                timeline.expire_before(end_us)
            folded = before - len(timeline)
            self.event_count -= folded
            if len(timeline) and timeline.first_ts_us < self._horizon_us:
                self.due.add(series)
                return folded
            self._note_changed(series)
        rollups = self.rollups.get(series)
        if rollups is not None:
            hours_from_us, minutes_from_us = self._rollup_bounds
            self.rollup_bytes += rollups.expire(hours_from_us)
            self.rollup_bytes += rollups.coarsen(minutes_from_us)
            self.hours_to_us = max(self.hours_to_us, min(minutes_from_us, self.folded_to_us + HOUR_US))
            if not len(rollups):
                self._drop_rollups(series)
        return folded

    def _roll_up(self, series: str, minute_us: int, timeline: Timeline, end_us: int) -> None:
        """Move a minute's first events, up to `end_us`, to the series' roll-ups."""
        few = timeline.pop_few(end_us, rollup.FEW)
        if few is not None:
            block = rollup.encode_values(few)
        else:
            block = rollup.encode(timeline.summarise(None, end_us), sketch.merge(timeline.sketches(None, end_us)))
            timeline.expire_before(end_us)
        rollups = self.rollups.get(series)
        if rollups is None:
            rollups = self.rollups[series] = Rollups()
        self.rollup_bytes += rollups.add(minute_us, block)
        self.folded_to_us = max(self.folded_to_us, minute_us + MINUTE_US)

    def load(self, events: EventBatch, appended_us: int) -> None:
        """Begin with a checkpoint's raw events. The store must be new."""
        self._names = None
        for series, ts_us, values in events.parts:
            self.timelines.insert(series, ts_us, values)
            self.event_count += len(ts_us)
        self.appended_us = appended_us

    def load_rollups(self, hour_us: int, blocks: dict[str, dict[int, bytes]]) -> None:
        """Begin with a checkpoint's roll-ups of an hour: by series, then as `Rollups.extend` takes them."""
        self._names = None
        for series, held in blocks.items():
            rollups = self.rollups.get(series)
            if rollups is None:
                rollups = self.rollups[series] = Rollups()
            self.rollup_bytes += rollups.extend(hour_us, held)
            if rollup.WHOLE_HOUR in held:
                self.hours_to_us = self.folded_to_us = hour_us + HOUR_US
            else:
                self.folded_to_us = max(self.folded_to_us, hour_us + (max(held) + 1) * MINUTE_US)


# What `Holdings.of` returns for a series without events. Never written to.
_NO_TIMELINE: Final = Timeline()
_NO_ROLLUPS: Final = Rollups()
