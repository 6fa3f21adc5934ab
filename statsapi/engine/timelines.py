"""The timelines of all series. Of a series with one event only that event is held, in 16 bytes.

A body of 1 MiB may name 100,000 new series. A timeline with its two arrays takes 440 bytes, a lone event 64; name and
entry in a dict take 110 more. When a series of one event is asked about, its timeline is made for the question. It
stays from the second event on.

No locks, no clock, no I/O. The caller holds Store._lock where it does not say otherwise.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.buffer import Buffer
from statsapi.engine.invariants import require
from statsapi.engine.timeline import Timeline
from statsapi.model import Parts, TimestampsUs, Values

_LONE: Final = struct.Struct("=qd")
_LONE_BYTES: Final = 64
_ENTRY_BYTES: Final = 52  # in a dict of 100,000


class Timelines:
    """The timelines by name. `in` and `len` need no lock.

    opened: those that are held whole. No series is both here and among the lone events, except for a moment in which
    it moves from there to here.
    """

    __slots__ = ("_lone", "opened")

    def __init__(self) -> None:
        self.opened: dict[str, Timeline] = {}
        self._lone: dict[str, bytes] = {}  # the stamp as int64, then the value as float64

    def __len__(self) -> int:
        return len(self.opened) + len(self._lone)

    def __contains__(self, name: str) -> bool:
        return name in self._lone or name in self.opened  # without the lock, in this order: a series may be moving

    def names(self) -> list[str]:
        """The names of all, in no particular order."""
        return [*self.opened, *self._lone]

    def get(self, name: str) -> Timeline | None:
        """A series' timeline, not to be changed. Some ns, and 1 µs for a lone event."""
        timeline = self.opened.get(name)
        if timeline is None and (event := self._lone.get(name)) is not None:
            return _timeline_of(event)
        return timeline

    def to_change(self, name: str) -> Timeline | None:
        """A series' timeline, which is held whole from here on."""
        timeline = self.opened.get(name)
        if timeline is None and (event := self._lone.get(name)) is not None:
            timeline = self.opened[name] = _timeline_of(event)
            del self._lone[name]
        return timeline

    def new(self, name: str) -> Timeline:
        """An empty timeline for a series of which none is held."""
        timeline = self.opened[name] = Timeline()
        return timeline

    def drop(self, name: str) -> None:
        """Remove a timeline that `to_change` gave and that has become empty."""
        del self.opened[name]

    def insert(self, name: str, ts_us: TimestampsUs, values: Values) -> bool:
        """Add a series' events, as `Timeline.insert` does. Whether no event of it was held before."""
        timeline = self.to_change(name)
        if timeline is not None:
            timeline.insert(ts_us, values)
        elif len(ts_us) == 1:
            self._lone[name] = ts_us.tobytes() + values.tobytes()
        else:
            self.new(name).insert(ts_us, values)
        return timeline is None

    def insert_singles(self, names: Sequence[str], ts_us: TimestampsUs, values: Values) -> list[str]:
        """Add one event to each of these series. The names of those of which no event was held before: 0.2 µs each."""
        events = np.column_stack((ts_us, values.view(np.int64))).view("V16").ravel().tolist()
        opened, lone = self.opened, self._lone
        new = []
        for at, (name, event) in enumerate(zip(names, events, strict=True)):
            if name in opened or name in lone:
                self.insert(name, ts_us[at : at + 1], values[at : at + 1])
            else:
                lone[name] = event
                new.append(name)
        return new

    def contains(self, name: str, ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
        """Which of the pairs (ts_us[i], values[i]) are events of a series: bool[n]. 2 µs for a lone event."""
        if (event := self._lone.get(name)) is not None:
            held_us, held = _LONE.unpack(event)
            found: NDArray[np.bool_] = (ts_us == held_us) & (values == held)
            return found
        timeline = self.opened.get(name)
        return np.zeros(len(ts_us), np.bool_) if timeline is None else timeline.contains(ts_us, values)

    def holds_before(self, ts_us: int) -> bool:
        """Whether any event lies before that instant. O(series)."""
        lone_us = np.frombuffer(b"".join(self._lone.values()), np.int64)[::2]
        return bool((lone_us < ts_us).any()) or any(held.first_ts_us < ts_us for held in self.opened.values())

    def last_ts_us(self, name: str) -> int | None:
        """The latest stamp of a series; None where no event of it is held."""
        event = self._lone.get(name)
        if event is not None:
            return int.from_bytes(event[:8], sys.byteorder, signed=True)
        timeline = self.opened.get(name)
        return None if timeline is None else timeline.last_ts_us

    def lone_events(self) -> Parts:
        """The series that are not among `opened`, with their events. Copied."""
        events = np.frombuffer(b"".join(self._lone.values()), np.int64).reshape(-1, 2)
        ts_us, values = events[:, 0].copy(), events[:, 1].copy().view(np.float64)
        return Parts(list(self._lone), np.ones(len(ts_us), np.int64), ts_us, values)

    def nbytes(self, names: Sequence[str]) -> int:
        """About how many bytes those of them take that are still held, names included. 0.1 µs for a lone event."""
        size_bytes = 0
        for name in names:
            timeline = self.opened.get(name)
            if timeline is not None or name in self._lone:
                own_bytes = _LONE_BYTES if timeline is None else timeline.nbytes
                size_bytes += own_bytes + _ENTRY_BYTES + sys.getsizeof(name)
        return size_bytes

    def event_count(self) -> int:
        """How many events there are. O(series)."""
        return sum(map(len, self.opened.values())) + len(self._lone)

    def check_invariants(self) -> None:
        """Raise AssertionError unless every timeline agrees with itself, and none is held twice. For tests."""
        for timeline in self.opened.values():
            timeline.check_invariants()
        require(not self.opened.keys() & self._lone.keys(), "a series is held whole and as a lone event")


def _timeline_of(event: bytes) -> Timeline:
    return Timeline(tail=Buffer(np.frombuffer(event, np.int64, 1), np.frombuffer(event, np.float64, 1, 8)))
