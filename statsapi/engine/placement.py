"""Where events lie at an instant: in the default window, before it, before everything kept, or ahead of the clock.

This is the one place that tells them apart: answers, metrics and refusals all ask here. Nearly every batch lies in the
window as a whole, so that is checked first: two comparisons for an event, two passes over a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.model import MINUTE_US, Retention, TimestampsUs

# The clocks of clients differ from ours by seconds. An event further ahead has a wrong time, or that of another zone.
AHEAD_TOLERATED_US: Final = MINUTE_US


class Placed(NamedTuple):
    """How many events lie in each place.

    recent: in the default window, and at most a minute ahead of the clock. older: before the window, but kept.
    expired: before everything kept. ahead: more than a minute ahead of the clock.
    """

    recent: int
    older: int
    expired: int
    ahead: int


NONE: Final = Placed(0, 0, 0, 0)
RECENT: Final = Placed(1, 0, 0, 0)
OLDER: Final = Placed(0, 1, 0, 0)
EXPIRED: Final = Placed(0, 0, 1, 0)
AHEAD: Final = Placed(0, 0, 0, 1)


class Bounds(NamedTuple):
    """The instants that separate the places at `now_us`.

    window_from_us: the first instant of the default window, which is never before kept_from_us. retention: says what is
    kept. raw_from_us: with deduplication, the first instant of the raw events; events before it are not kept then.
    clock_ahead_us: by how much the clock went forward and has not stood since (clocks.py); events that expired by this
    step are kept until it has.
    """

    now_us: int
    window_from_us: int
    retention: Retention
    raw_from_us: int | None = None
    clock_ahead_us: int = 0

    @property
    def kept_from_us(self) -> int:
        return self.retention.from_us(self.now_us) if self.raw_from_us is None else self.raw_from_us

    @property
    def ahead_after_us(self) -> int:
        return self.now_us + AHEAD_TOLERATED_US

    def place(self, ts_us: int) -> Placed:
        """Where one event lies: RECENT, OLDER, EXPIRED or AHEAD itself. 0.3 µs for a recent one."""
        if ts_us >= self.window_from_us:
            return RECENT if ts_us <= self.now_us + AHEAD_TOLERATED_US else AHEAD
        return OLDER if ts_us >= self.kept_from_us else EXPIRED

    def tally(self, columns: Sequence[TimestampsUs]) -> Placed:
        """How many of the columns' events lie in each place. Some µs, and 0.5 ns an event if all are recent, else 2."""
        if len(columns) == 1:
            ts_us = columns[0]
        elif columns:
            ts_us = np.concatenate(columns)  # else each of many short columns would cost two calls of numpy
        else:
            return NONE
        events = len(ts_us)
        if events == 1:
            return self.place(ts_us.item())
        if not events or (ts_us.min() >= self.window_from_us and ts_us.max() <= self.ahead_after_us):
            return Placed(events, 0, 0, 0)
        ahead = int(np.count_nonzero(ts_us > self.ahead_after_us))
        expired = int(np.count_nonzero(ts_us < self.kept_from_us))
        older = int(np.count_nonzero(ts_us < self.window_from_us)) - expired
        return Placed(events - older - expired - ahead, older, expired, ahead)

    def split(self, ts_us: TimestampsUs) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of the older, the expired and the ahead events: bool[n] each."""
        expired = ts_us < self.kept_from_us
        return (ts_us < self.window_from_us) & ~expired, expired, ts_us > self.ahead_after_us
