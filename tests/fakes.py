"""Clocks that are set, and journals in memory that several services share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statsapi.clocks import Sample
from statsapi.journal.memory import MemoryJournal
from statsapi.model import DAY_US
from statsapi.times import parse_timestamp_us

NOW = "2025-11-21T07:45:00+00:00"


class FakeClock:
    """Microseconds since 1970 and a monotonic clock beside it, standing still until told otherwise.

    It has stood for a day, but for one that is not `stood`: that machine has just started.
    """

    def __init__(self, now: str | int = NOW, *, stood: bool = True, monotonic_us: int = DAY_US) -> None:
        self.now_us = now if isinstance(now, int) else parse_timestamp_us(now)
        self._monotonic_us = monotonic_us
        self.earlier = [Sample(0, self.now_us - DAY_US)] if stood else []

    def __call__(self) -> int:
        return self.now_us

    def monotonic_us(self) -> int:
        return self._monotonic_us

    def advance(self, us: int) -> None:
        """Time passes; what is negative sets the clock back."""
        self.now_us += us
        self._monotonic_us += max(us, 0)

    def step(self, us: int) -> None:
        """The clock is set, and no time passes."""
        self.now_us += us


class Skewed:
    """A worker's clock that differs from another by `skew_us`, and moves with it; `step` is for this one alone."""

    def __init__(self, clock: FakeClock, skew_us: int = 0, *, stood: bool = True) -> None:
        self._clock = clock
        self._skew_us = skew_us
        self.monotonic_us = clock.monotonic_us
        self.earlier = [Sample(0, clock() + skew_us - clock.monotonic_us())] if stood else []

    def __call__(self) -> int:
        return self._clock() + self._skew_us

    def step(self, us: int) -> None:
        self._skew_us += us


class Opening:
    """One worker's opening of a memory journal that several share, with a clock of its own. For one thread."""

    def __init__(self, journal: MemoryJournal, clock: Callable[[], int]) -> None:
        self._shared = journal
        self._clock = clock
        self.settled_us: Callable[[], int] = clock
        self.local_clock_us = clock

    def __getattr__(self, name: str) -> Any:
        self._shared._clock_us = self._clock
        self._shared.settled_us = self.settled_us
        return getattr(self._shared, name)

    def close(self) -> None:
        """The journal is the others' too."""


class SharedJournal(MemoryJournal):
    """One journal for several services in one process: closing is the test's, not a service's."""

    def close(self) -> None:
        pass
