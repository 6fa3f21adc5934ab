"""Exact sums over the first k of n events in order of time, where k moves little from one question to the next.

No locks, no clock, no I/O. The caller holds Store._lock, as asking moves the mark.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from statsapi.engine.exact import scaled_sums
from statsapi.engine.invariants import require
from statsapi.model import Values

Sums = tuple[int, int]
"""Σx and Σx² as integers, in the units of `exact.scaled_sums`."""


class SumsBefore(ABC):
    """Events in order of time, with the sums before the position that was asked for last: the mark.

    The edge of a sliding window moves by a few events from one question to the next. The sums move with it, from the
    nearest position where they are known: the mark, no event, all events, or a position that the class knows besides.
    """

    __slots__ = ("_mark", "_marked")

    def __init__(self) -> None:
        self._marked = 0
        self._mark: Sums = (0, 0)

    def sums_before(self, k: int) -> Sums:
        """The sums of the first k events, 0 <= k <= time_ordered. O(distance to the nearest known position)."""
        if k == 0:
            return 0, 0
        n = self.time_ordered
        if k == n:
            return self.whole_sums()
        if k != self._marked:
            known = self.nearest_known(k)
            if abs(k - known) < abs(k - self._marked):
                self._marked, self._mark = known, self.sums_at(known)
            if k > self._marked:
                self._mark = add(self._mark, scaled_sums(self.between(self._marked, k)))
            else:
                self._mark = subtract(self._mark, scaled_sums(self.between(k, self._marked)))
            self._marked = k
        return self._mark

    def nearest_known(self, k: int) -> int:
        """The position nearest to k whose sums need no summing, the mark aside."""
        n = self.time_ordered
        return 0 if k <= n - k else n

    def sums_at(self, known: int) -> Sums:
        """The sums before a position that `nearest_known` gave."""
        return self.whole_sums() if known else (0, 0)

    def sums_between(self, first: int, last: int) -> Sums:
        """The sums of the events at positions [first, last)."""
        if first > 0 and last < self.time_ordered:  # cut on both sides: too rare for a second mark
            return scaled_sums(self.between(first, last))
        return subtract(self.sums_before(last), self.sums_before(first))

    def check_mark(self, whose: str) -> None:
        """Raise AssertionError unless the mark and all known positions have the sums of the events. For tests.

        `whose` begins the message.
        """
        require(self._mark == scaled_sums(self.between(0, self._marked)), f"{whose} mark does not add up")
        for known in {self.nearest_known(k) for k in range(self.time_ordered + 1)}:
            summed = scaled_sums(self.between(0, known))
            require(self.sums_at(known) == summed, f"{whose} sums before {known} do not add up")

    @property
    @abstractmethod
    def time_ordered(self) -> int:
        """How many events have a position in time."""

    @abstractmethod
    def whole_sums(self) -> Sums:
        """The sums of all events that have a position in time."""

    @abstractmethod
    def between(self, first: int, last: int) -> Values:
        """The values at positions [first, last) in time, in any order."""


def add(a: Sums, b: Sums) -> Sums:
    return a[0] + b[0], a[1] + b[1]


def subtract(a: Sums, b: Sums) -> Sums:
    return a[0] - b[0], a[1] - b[1]
