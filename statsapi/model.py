"""The values that pass between the layers: plain, frozen, without I/O, locks or JSON names.

Timestamps are int64 microseconds since 1970-01-01 UTC everywhere (`ts_us`); values are finite float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

TimestampsUs = NDArray[np.int64]
Values = NDArray[np.float64]

# A percentile's number, 0 to 100, exactly as written: 99.9 is 999/10, which has no exact float.
Percent = int | Fraction

DEFAULT_SERIES = "default"

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

# The range of datetime, the years 1 to 9999. Every timestamp outside it is refused as it comes in.
MIN_TS_US = -62_135_596_800_000_000
MAX_TS_US = 253_402_300_799_999_999


# The memory of an event: 19 bytes in a large store (benchmarks/README.md), and some for events that are not yet sealed.
# The default limit on events follows from it, and this many bytes of roll-ups count as one event towards that limit.
EVENT_BYTES: Final = 24

# Roll-ups of minutes are merged into roll-ups of hours at this age. With a retention of a year, which is 8,760 hours,
# the 2,880 minutes of two days are a fourth of all roll-ups.
MINUTES_KEPT_US = 2 * DAY_US

_TimeT = TypeVar("_TimeT", int, TimestampsUs)


def floor_us(ts_us: _TimeT, unit_us: int) -> _TimeT:
    """The last multiple of `unit_us` that is not after the instant; of an array, for each of its instants."""
    return ts_us - ts_us % unit_us


class Part(NamedTuple):
    """The events of one series in a batch: two columns of the same length, in any order."""

    series: str
    ts_us: TimestampsUs
    values: Values


class Parts(Sequence[Part]):
    """The parts of many series as slices of common columns: the next counts[k] rows belong to names[k].

    A Part is made when it is accessed: 100,000 of them take 29 MB, the columns 2 MB.
    """

    __slots__ = ("_ends", "counts", "names", "ts_us", "values")

    def __init__(self, names: Sequence[str], counts: NDArray[np.integer], ts_us: TimestampsUs, values: Values) -> None:
        """ValueError where the lengths do not agree."""
        self.names = names
        self.counts = counts
        self.ts_us = ts_us
        self.values = values
        self._ends = np.cumsum(counts, dtype=np.int64)
        if not len(names) == len(counts) or not len(ts_us) == len(values) == (self._ends[-1] if len(names) else 0):
            raise ValueError("a part has more timestamps than values, or fewer")

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Parts:
        """The same parts in common columns; copied, unless they are `Parts`. TypeError for columns of other types."""
        if isinstance(parts, cls):
            return parts
        counts = [len(part.ts_us) for part in parts]
        if counts != [len(part.values) for part in parts]:
            raise ValueError("a part has more timestamps than values, or fewer")
        ts_us, values = np.empty(0, np.int64), np.empty(0, np.float64)
        if parts:
            ts_us = np.concatenate([part.ts_us for part in parts], dtype=np.int64, casting="equiv")
            values = np.concatenate([part.values for part in parts], dtype=np.float64, casting="equiv")
        return cls([part.series for part in parts], np.array(counts, np.int64), ts_us, values)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Part: ...
    @overload
    def __getitem__(self, at: slice) -> list[Part]: ...
    def __getitem__(self, at: int | slice) -> Part | list[Part]:
        if isinstance(at, slice):
            return [self[each] for each in range(len(self))[at]]
        name, end = self.names[at], int(self._ends[at])
        rows = slice(end - int(self.counts[at]), end)
        return Part(name, self.ts_us[rows], self.values[rows])

    def __iter__(self) -> Iterator[Part]:
        start = 0
        for name, end in zip(self.names, self._ends.tolist(), strict=True):
            yield Part(name, self.ts_us[start:end], self.values[start:end])
            start = end


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that are recorded together: all of them or none. A series appears in at most one part."""

    parts: Sequence[Part]

    def __len__(self) -> int:
        return len(self.ts_us)

    @property
    def ts_us(self) -> TimestampsUs:
        """The timestamps of all events; copied only where the parts do not lie together."""
        parts = self.parts
        return parts[0].ts_us if len(parts) == 1 else Parts.of(parts).ts_us

    @property
    def names(self) -> Sequence[str]:
        """The series, in the order of the parts."""
        parts = self.parts
        # The exact type is compared, as isinstance() with an abstract class costs 0.4 µs per event.
        return parts.names if type(parts) is Parts else [part.series for part in parts]

    @classmethod
    def single(cls, series: str, ts_us: int, value: float) -> EventBatch:
        return cls((Part(series, np.array((ts_us,), np.int64), np.array((value,), np.float64)),))


@dataclass(frozen=True, slots=True)
class Deletion:
    """Removes the events of `series` with start_us <= ts < end_us that stand before it in the journal."""

    series: str
    start_us: int = MIN_TS_US
    end_us: int = MAX_TS_US + 1


class Events(NamedTuple):
    """Events of one series, in arrival order: three read-only columns of the same length."""

    series: str
    ts_us: TimestampsUs
    values: Values
    appended_us: TimestampsUs  # when each one's record was appended


class SingleEvents(NamedTuple):
    """One event of each of many series: series names[k] has row k of the three read-only columns."""

    names: Sequence[str]
    ts_us: TimestampsUs
    values: Values
    appended_us: TimestampsUs


Change = Events | SingleEvents | Deletion


class Span(NamedTuple):
    """A half-open interval of time, [start_us, end_us); without an end it has no upper bound."""

    start_us: int
    end_us: int | None = None


class RollupBounds(NamedTuple):
    """Which roll-ups are kept: of hours from hours_from_us, of minutes from minutes_from_us. Both are whole hours."""

    hours_from_us: int
    minutes_from_us: int


class Retention(NamedTuple):
    """How long data is kept, in µs, the grace included. Its methods say where that begins at `now_us`.

    raw_us: raw events.
    rollup_us: their roll-ups; 0 without roll-ups.
    """

    raw_us: int
    rollup_us: int = 0

    def raw_from_us(self, now_us: int) -> int:
        """The first instant whose events every view still holds raw: a whole minute."""
        return floor_us(now_us - self.raw_us, MINUTE_US)

    def from_us(self, now_us: int) -> int:
        """The first instant of which anything is kept, where a roll-up begins. Events before it count nowhere."""
        oldest_us = now_us - max(self.rollup_us, self.raw_us)
        return floor_us(oldest_us, HOUR_US if oldest_us < self._minutes_from_us(now_us) else MINUTE_US)

    def rollup_bounds(self, now_us: int) -> RollupBounds:
        return RollupBounds(
            floor_us(now_us - max(self.rollup_us, self.raw_us), HOUR_US),
            self._minutes_from_us(now_us),
        )

    def _minutes_from_us(self, now_us: int) -> int:
        return floor_us(now_us - max(MINUTES_KEPT_US, self.raw_us), HOUR_US)


class SeriesInfo(NamedTuple):
    """One series: the number of its events, and the instants between which they lie, both included.

    first_us and last_us are timestamps where raw events are held, and else the edges of roll-ups. resolution_us: the
    length of the roll-up that begins at first_us; 1 where first_us is a timestamp.
    """

    name: str
    events: int
    first_us: int
    last_us: int
    resolution_us: int = 1


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An idempotency key. `name` identifies it and its owner, `digest` the request; it is kept ttl_us from the append.

    Both are compared byte by byte. Expiry goes by the time that has stood (`Journal.settled_us`).
    """

    name: bytes
    digest: bytes
    ttl_us: int
