"""What was recorded lately, of all series: so that an answer that is kept can be brought up to date.

No locks, no clock, no I/O. The caller holds Store._lock; what `since` gives may be read without it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

import numpy as np

from statsapi.engine.chunks import NO_TS, NO_VALUES, Buffer
from statsapi.model import MIN_TS_US, TimestampsUs, Values

# This many events are remembered, in 16 bytes each and 50 for the name that goes with it. To add more of them to an
# answer takes as long, 20 ms, as asking 1,000 series anew.
_EVENTS_MAX: Final = 131_072

# Folding leaves one, deletions may leave as many as there are.
_REMOVALS_MAX: Final = 1_024


class Mark(NamedTuple):
    """An instant: how many insertions and removals were noted before it."""

    insertions: int
    removals: int


NO_MARK: Final = Mark(-1, 0)
"""What came since then is not known."""


class Since(NamedTuple):
    """What came after a mark.

    names, ends: each insertion's series, and where its events end among all. removed_to_us: every removal ended there
    or before; MIN_TS_US without any.
    """

    names: list[str]
    ends: list[int]
    ts_us: TimestampsUs
    values: Values
    removed_to_us: int

    def of(self, members: Container[str]) -> tuple[TimestampsUs, Values]:
        """The events of some series. Shared. 50 ns an insertion."""
        chosen = [name in members for name in self.names]
        if all(chosen):
            return self.ts_us, self.values
        mask = np.repeat(chosen, np.diff(self.ends, prepend=0))
        return self.ts_us[mask], self.values[mask]


NOTHING: Final = Since([], [], NO_TS, NO_VALUES, MIN_TS_US)


class Instant(NamedTuple):
    """raw_from_us: see Store. names: every series held, sorted, never changed. since: what came after each of some
    marks, None where that is forgotten.
    """

    raw_from_us: int
    names: list[str]
    mark: Mark
    since: list[Since | None]


class Changes:
    """Notes nothing until somebody asks for a mark, nor when nobody has looked for long."""

    __slots__ = ("_ends", "_events", "_first", "_looked_at", "_names", "_noting", "_removals", "_removed")

    def __init__(self) -> None:
        self._noting = False
        self._looked_at = False
        self._first = 0  # insertions before this one are forgotten
        self._names: list[str] = []
        self._ends: list[int] = []
        self._events = Buffer()
        self._removed = 0
        # (how many removals there were with this one, where it ended): the ends fall, as an earlier removal that ended
        # no later tells nothing that this one does not.
        self._removals: list[tuple[int, int]] = []

    def mark(self) -> Mark:
        """Now. From here on all is noted, until it is too much."""
        self._noting = self._looked_at = True
        return Mark(self._first + len(self._names), self._removed)

    def since(self, mark: Mark) -> Since | None:
        """What came after the mark; None where that is forgotten. Some µs."""
        at = mark.insertions - self._first
        if at < 0:
            return None
        self._looked_at = True
        from_event = self._ends[at - 1] if at else 0
        ends = self._ends[at:]
        if from_event:
            ends = [end - from_event for end in ends]
        removed_to_us = next((end_us for number, end_us in self._removals if number > mark.removals), MIN_TS_US)
        ts_us, values = self._events.columns()
        return Since(self._names[at:], ends, ts_us[from_event:], values[from_event:], removed_to_us)

    def inserted(self, series: str, ts_us: TimestampsUs, values: Values) -> None:
        """Events were added. They are copied. 0.5 µs for one."""
        if not self._noting:
            return
        if self._events.n + len(ts_us) > _EVENTS_MAX:
            self._make_room(len(ts_us))
            if not self._noting:
                return
        self._events.append(ts_us, values)
        self._names.append(series)
        self._ends.append(self._events.n)

    def removed(self, end_us: int) -> None:
        """Events of a series were removed or folded, all of them from before that instant."""
        self._removed += 1
        removals = self._removals
        while removals and removals[-1][1] <= end_us:
            removals.pop()
        if len(removals) < _REMOVALS_MAX:
            removals.append((self._removed, end_us))
        else:  # as if this one, too, ended where the one before did
            removals[-1] = self._removed, removals[-1][1]

    def _make_room(self, events: int) -> None:
        """Forget the older half, or everything where nobody has looked since the last time."""
        n = len(self._names)
        self._noting = self._looked_at
        self._looked_at = False
        forgotten = (n + 1) // 2
        from_event = self._ends[forgotten - 1] if forgotten else 0
        if not self._noting or self._events.n - from_event + events > _EVENTS_MAX:
            self._noting = self._noting and events <= _EVENTS_MAX
            # A batch too large to be noted counts as one insertion that is forgotten.
            self._first += n + 1
            self._names, self._ends, self._events = [], [], Buffer()
            return
        ts_us, values = self._events.columns()
        self._events = Buffer(ts_us[from_event:].copy(), values[from_event:].copy())
        del self._names[:forgotten]
        self._ends = [end - from_event for end in self._ends[forgotten:]]
        self._first += forgotten

    @property
    def nbytes(self) -> int:
        return 2 * self._events.values.nbytes + 50 * len(self._names)
