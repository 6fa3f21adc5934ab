"""The timelines of all series. Of a series with few events only these are held, in 16 bytes each.

A body of 1 MiB may name 100,000 series. A timeline with its two arrays takes 440 bytes, the bytes of one event 64; name
and entry in a dict take 110 more. When a series of few events is asked about, its timeline is made for the question.
When it changes, its timeline is made for the change, and again only its events are held afterwards.

No locks, no clock, no I/O. The caller holds Store._lock where it does not say otherwise.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.buffer import Columns
from statsapi.engine.invariants import require
from statsapi.engine.timeline import Timeline
from statsapi.model import MAX_TS_US, Parts, TimestampsUs, Values

_EVENT: Final = struct.Struct("=qd")
_EVENT_BYTES: Final = _EVENT.size

# Up to this many events are few, at least 1. With 16, 20,000 series of ten events would take 304 bytes each instead of
# 660, but a question by series 7 µs for each instead of 4.
FEW_EVENTS: Final = 4

_STAMPS: Final = [struct.Struct(f"={count}q") for count in range(FEW_EVENTS + 1)]

_ENTRY_BYTES: Final = 52  # in a dict of 100,000


class Timelines:
    """The timelines by name. `in` and `len` need no lock.

    opened: those that are held whole. No series is both here and among those of few events, except for a moment in
    which it moves from one to the other.
    """

    __slots__ = ("_few", "opened")

    def __init__(self) -> None:
        self.opened: dict[str, Timeline] = {}
        # The stamps as int64, in order of arrival, then the values as float64.
        self._few: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self.opened) + len(self._few)

    def __contains__(self, name: str) -> bool:
        return name in self._few or name in self.opened or name in self._few  # it may be moving, either way

    def names(self) -> list[str]:
        """The names of all, in no particular order."""
        return [*self.opened, *self._few]

    def get(self, name: str) -> Timeline | None:
        """A series' timeline, not to be changed. Some ns, and 2 µs for few events."""
        timeline = self.opened.get(name)
        if timeline is None and (events := self._few.get(name)) is not None:
            return _timeline_of(events)
        return timeline

    def to_change(self, name: str, before_us: int = MAX_TS_US + 1) -> Timeline | None:
        """A series' timeline, which is held whole until `changed` is called. None where no event lies before that
        instant: housekeeping looks at each series once a minute, and most have nothing to fold. 0.6 µs then.
        """
        timeline = self.opened.get(name)
        if timeline is not None:
            return timeline if timeline.first_ts_us < before_us else None
        events = self._few.get(name)
        if events is None or min(_stamps_of(events)) >= before_us:
            return None
        return self._open(name, events)

    def changed(self, name: str) -> bool:
        """Call it after a change of what `to_change` gave. Returns whether any event of the series is left."""
        timeline = self.opened[name]
        if len(timeline) <= FEW_EVENTS and (columns := timeline.few_events(None, None)) is not None:
            if len(timeline):
                ts_us, values = columns
                self._few[name] = ts_us.tobytes() + values.tobytes()
            del self.opened[name]
        return len(timeline) > 0

    def _open(self, name: str, events: bytes) -> Timeline:
        timeline = self.opened[name] = _timeline_of(events)
        del self._few[name]
        return timeline

    def new(self, name: str) -> Timeline:
        """An empty timeline for a series of which none is held."""
        timeline = self.opened[name] = Timeline()
        return timeline

    def insert(self, name: str, ts_us: TimestampsUs, values: Values) -> bool:
        """Add a series' events, as `Timeline.insert` does. Whether no event of it was held before."""
        if not len(ts_us):
            return False
        timeline = self.opened.get(name)
        if timeline is not None:
            timeline.insert(ts_us, values)
            return False
        events = self._few.get(name)
        if len(events or b"") // _EVENT_BYTES + len(ts_us) <= FEW_EVENTS:
            self._few[name] = _joined(events or b"", ts_us.tobytes() + values.tobytes())
        elif events is None:
            self.new(name).insert(ts_us, values)
        else:
            self._open(name, events).insert(ts_us, values)
        return events is None

    def insert_singles(self, names: Sequence[str], ts_us: TimestampsUs, values: Values) -> list[str]:
        """Add one event to each of these series. The names of those of which no event was held before. 0.2 µs for a
        series of few events.
        """
        events = np.column_stack((ts_us, values.view(np.int64))).view("V16").ravel().tolist()
        opened, few = self.opened, self._few
        full_bytes = FEW_EVENTS * _EVENT_BYTES
        new = []
        for at, (name, event) in enumerate(zip(names, events, strict=True)):
            if name in opened:
                opened[name].insert(ts_us[at : at + 1], values[at : at + 1])
                continue
            held = few.get(name)
            if held is None:
                few[name] = event
                new.append(name)
            elif len(held) < full_bytes:
                few[name] = _joined(held, event)
            else:
                self._open(name, _joined(held, event))
        return new

    def contains(self, name: str, ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
        """Which of the pairs (ts_us[i], values[i]) are events of a series: bool[n]. 2 µs for a series of one event."""
        events = self._few.get(name)
        if events is not None and len(events) == _EVENT_BYTES:
            held_us, held = _EVENT.unpack(events)
            found: NDArray[np.bool_] = (ts_us == held_us) & (values == held)
            return found
        timeline = self.get(name)
        return np.zeros(len(ts_us), np.bool_) if timeline is None else timeline.contains(ts_us, values)

    def holds_before(self, ts_us: int) -> bool:
        """Whether any event lies before that instant. O(series)."""
        few_us = np.frombuffer(b"".join([events[: len(events) // 2] for events in self._few.values()]), np.int64)
        return bool((few_us < ts_us).any()) or any(held.first_ts_us < ts_us for held in self.opened.values())

    def last_ts_us(self, name: str) -> int | None:
        """The latest stamp of a series; None where no event of it is held."""
        events = self._few.get(name)
        if events is not None:
            return max(_stamps_of(events))
        timeline = self.opened.get(name)
        return None if timeline is None else timeline.last_ts_us

    def few_events(self) -> Parts:
        """The series that are not among `opened`, with their events in order of arrival. Copied."""
        held = list(self._few.values())
        counts = np.fromiter(map(len, held), np.int64, len(held)) // _EVENT_BYTES
        stamps = b"".join([events[: len(events) // 2] for events in held])
        values = b"".join([events[len(events) // 2 :] for events in held])
        return Parts(list(self._few), counts, *_columns_of(stamps + values))

    def nbytes(self, names: Sequence[str]) -> int:
        """About how many bytes those of them take that are still held, names included. 0.2 µs for few events."""
        size_bytes = 0
        for name in names:
            timeline, events = self.opened.get(name), self._few.get(name)
            if timeline is not None or events is not None:
                own_bytes = sys.getsizeof(events) if timeline is None else timeline.nbytes
                size_bytes += own_bytes + _ENTRY_BYTES + sys.getsizeof(name)
        return size_bytes

    def event_count(self) -> int:
        """How many events there are. O(series)."""
        return sum(map(len, self.opened.values())) + sum(map(len, self._few.values())) // _EVENT_BYTES

    def check_invariants(self) -> None:
        """Raise AssertionError unless every timeline agrees with itself, and none is held twice. For tests."""
        for timeline in self.opened.values():
            timeline.check_invariants()
        require(not self.opened.keys() & self._few.keys(), "a series is held whole and as its few events")
        for events in self._few.values():
            require(0 < len(events) <= FEW_EVENTS * _EVENT_BYTES, f"few events of {len(events)} bytes")
            _timeline_of(events).check_invariants()


def _joined(held: bytes, new: bytes) -> bytes:
    """Both, in `Timelines._few`'s form."""
    stamps, new_stamps = len(held) // 2, len(new) // 2
    return held[:stamps] + new[:new_stamps] + held[stamps:] + new[new_stamps:]


def _stamps_of(events: bytes) -> tuple[int, ...]:
    """Some 0.1 µs, where an array takes 0.7."""
    return _STAMPS[len(events) // _EVENT_BYTES].unpack_from(events)


def _columns_of(events: bytes) -> Columns:
    count = len(events) // _EVENT_BYTES
    return np.frombuffer(events, np.int64, count), np.frombuffer(events, np.float64, count, len(events) // 2)


def _timeline_of(events: bytes) -> Timeline:
    timeline = Timeline()
    timeline.begin(*_columns_of(events))
    return timeline
