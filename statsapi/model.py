"""The values that pass between the layers: plain, frozen, without I/O, locks or JSON names.

Timestamps are int64 microseconds since 1970-01-01 UTC everywhere (`ts_us`); values are finite float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TimestampsUs = NDArray[np.int64]
Values = NDArray[np.float64]

DEFAULT_SERIES = "default"

# What a datetime can hold, years 1 to 9999. Everything outside is refused at the door.
MIN_TS_US = -62_135_596_800_000_000
MAX_TS_US = 253_402_300_799_999_999


class Part(NamedTuple):
    """The events of one series in a batch: two columns of the same length, in any order."""

    series: str
    ts_us: TimestampsUs
    values: Values


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that are recorded together: all of them or none. A series appears in at most one part."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.ts_us) for part in self.parts)

    @classmethod
    def single(cls, series: str, ts_us: int, value: float) -> EventBatch:
        return cls((Part(series, np.array((ts_us,), np.int64), np.array((value,), np.float64)),))


@dataclass(frozen=True, slots=True)
class Deletion:
    """Removes the events of `series` with start_us <= ts < end_us that stand before it in the journal."""

    series: str
    start_us: int = MIN_TS_US
    end_us: int = MAX_TS_US + 1


class Span(NamedTuple):
    """A half-open stretch of time, [start_us, end_us); without an end it has no upper bound."""

    start_us: int
    end_us: int | None = None


class SeriesInfo(NamedTuple):
    """What is held of one series: how many events, and the first and last timestamp."""

    name: str
    events: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key: `name` says whose, `digest` what was asked; kept for ttl_us from the append.

    Both are compared byte by byte. Expiry is judged by the journal's time, max(the clock, the last
    appended_us).
    """

    name: bytes
    digest: bytes
    ttl_us: int
