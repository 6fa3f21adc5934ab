"""The latest events of all series, kept so that an earlier answer can be brought up to date.

No locks, no clock, no I/O. The caller holds Store._lock; the result of `since` may be read without it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Sequence
from typing import Final, NamedTuple

import numpy as np

from statsapi.engine.buffer import NO_TS, NO_VALUES, Buffer
from statsapi.model import MIN_TS_US, TimestampsUs, Values

# This many events are remembered, in 16 bytes each and 50 for each insertion's name. Adding that many to an answer
# takes 20 ms, as long as asking 1,000 series anew.
_EVENTS_MAX: Final = 131_072

# At most this many removals are remembered. Folding needs one, since its ends rise; each deletion may need another.
_REMOVALS_MAX: Final = 1_024


class Mark(NamedTuple):
    """An instant: how many insertions and removals were noted before it."""

    insertions: int
    removals: int


NO_MARK: Final = Mark(-1, 0)
"""A mark whose later changes are never known."""


class Since(NamedTuple):
    """The changes after a mark.

    names, ends: each insertion's series, and where its events end among all. removed_to_us: every removal ended there
    or before; MIN_TS_US without any.
    """

    names: list[str]
    ends: list[int]
    ts_us: TimestampsUs
    values: Values
    removed_to_us: int

    def of(self, members: Container[str]) -> tuple[TimestampsUs, Values]:
        """The events of some series. The arrays are shared. 50 ns an insertion."""
        chosen = [name in members for name in self.names]
        if all(chosen):
            return self.ts_us, self.values
        mask = np.repeat(chosen, np.diff(self.ends, prepend=0))
        return self.ts_us[mask], self.values[mask]


NOTHING: Final = Since([], [], NO_TS, NO_VALUES, MIN_TS_US)


class Instant(NamedTuple):
    """raw_from_us: see Store. names: every series held, sorted; the list is never changed. since: for each of some
    marks the changes after it, None if they are forgotten.
    """

    raw_from_us: int
    names: list[str]
    mark: Mark
    since: list[Since | None]


class Changes:
    """The log of insertions and removals. It is off until a mark is asked for, and again when nobody has read it for
    long.
    """

    __slots__ = ("_ends", "_events", "_first", "_looked_at", "_names", "_noting", "_removals", "_removed")

    def __init__(self) -> None:
        self._noting = False
        self._looked_at = False
        self._first = 0  # insertions before this one are forgotten
        self._names: list[str] = []
        self._ends: list[int] = []
        self._events = Buffer()
        self._removed = 0
        # (the removal's number, from 1; where it ended). Ends fall along the list: a removal makes earlier ones that
        # ended no later superfluous.
        self._removals: list[tuple[int, int]] = []

    def mark(self) -> Mark:
        """The mark of now. From here on every change is noted, until there are too many."""
        self._noting = self._looked_at = True
        return Mark(self._first + len(self._names), self._removed)

    def since(self, mark: Mark) -> Since | None:
        """The changes after the mark; None if they are forgotten. Some µs."""
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
        """Note that events were added. They are copied. 0.5 µs for one event."""
        if self._noting and self._has_room(len(ts_us)):
            self._events.append(ts_us, values)
            self._names.append(series)
            self._ends.append(self._events.n)

    def inserted_singles(self, names: Sequence[str], ts_us: TimestampsUs, values: Values) -> None:
        """Note that one event was added to each of these series. They are copied."""
        if self._has_room(len(names)):
            first = self._events.n
            self._events.append(ts_us, values)
            self._names += names
            self._ends += range(first + 1, self._events.n + 1)

    def _has_room(self, events: int) -> bool:
        """Whether to note that many events, for which room is made."""
        if self._noting and self._events.n + events > _EVENTS_MAX:
            self._make_room(events)
        return self._noting

    def removed(self, end_us: int) -> None:
        """Note that events of a series were removed or folded, all of them from before end_us."""
        self._removed += 1
        removals = self._removals
        while removals and removals[-1][1] <= end_us:
            removals.pop()
        if len(removals) < _REMOVALS_MAX:
            removals.append((self._removed, end_us))
        else:  # full: this one is noted as if it ended where the last one did, which is later
            removals[-1] = self._removed, removals[-1][1]

    def _make_room(self, events: int) -> None:
        """Forget the older half, and more where the new events need room; or everything, if nobody has read the changes
        since the last call.
        """
        n = len(self._names)
        self._noting = self._looked_at
        self._looked_at = False
        if not self._noting or events > _EVENTS_MAX:
            self._noting = self._noting and events <= _EVENTS_MAX
            # A batch too large to be noted counts as one forgotten insertion.
            self._first += n + 1
            self._names, self._ends, self._events = [], [], Buffer()
            return
        too_many = self._events.n + events - _EVENTS_MAX
        forgotten = max((n + 1) // 2, bisect_left(self._ends, too_many) + 1)
        from_event = self._ends[forgotten - 1]
        ts_us, values = self._events.columns()
        self._events = Buffer(ts_us[from_event:].copy(), values[from_event:].copy())
        del self._names[:forgotten]
        self._ends = [end - from_event for end in self._ends[forgotten:]]
        self._first += forgotten

    @property
    def nbytes(self) -> int:
        return 2 * self._events.values.nbytes + 50 * len(self._names)
