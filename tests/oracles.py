"""Naive twins: the plainest code that is right, slow and without a trick, for tests to compare with under ==."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from hypothesis import strategies as st

from statsapi.engine.sketch import Sketch
from statsapi.engine.summary import IDENTITY, Summary
from statsapi.model import Percent

Event = tuple[int, float]


def scaled_sums(values: Sequence[float]) -> tuple[int, int]:
    """Σx · 2**1074 and Σx² · 2**2148: every float is a fraction whose denominator is a power of two."""
    pairs = [_scaled(value) for value in values]
    return sum(x for x, _ in pairs), sum(x_squared for _, x_squared in pairs)


@lru_cache(100_000)  # the same events are summed again and again: 150 of them in 34 instead of 533 µs
def _scaled(value: float) -> tuple[int, int]:
    numerator, denominator = value.as_integer_ratio()
    return numerator * (2**1074 // denominator), numerator**2 * (2**2148 // denominator**2)


def summary(values: Sequence[float]) -> Summary:
    if not values:
        return IDENTITY
    return Summary(len(values), min(values), max(values), *scaled_sums(values))


def exact_percentile(values: Sequence[float], p: Percent) -> Fraction:
    """Linear interpolation between closest ranks (type 7), as a fraction."""
    ordered = sorted(values)
    place = Fraction(p) / 100 * (len(ordered) - 1)
    lower = math.floor(place)
    upper = min(lower + 1, len(ordered) - 1)
    return Fraction(ordered[lower]) + (Fraction(ordered[upper]) - Fraction(ordered[lower])) * (place - lower)


def percentile(values: Sequence[float], p: Percent) -> float:
    """The same, rounded once."""
    return float(exact_percentile(values, p))


class NaiveTimeline:
    """The verbs of Timeline over one list of (ts_us, value) in order of arrival."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __len__(self) -> int:
        return len(self.events)

    def insert(self, ts_us: Sequence[int], values: Sequence[float]) -> None:
        self.events.extend(zip(ts_us, values, strict=True))

    def between(self, start_us: int | None, end_us: int | None) -> list[Event]:
        """The events of [start_us, end_us) in order of time, then of arrival."""
        inside = [e for e in self.events if _inside(e[0], start_us, end_us)]
        return sorted(inside, key=lambda event: event[0])

    def values(self, start_us: int | None, end_us: int | None) -> list[float]:
        return [value for _, value in self.between(start_us, end_us)]

    def delete(self, start_us: int | None, end_us: int | None) -> int:
        before = len(self.events)
        self.events = [e for e in self.events if not _inside(e[0], start_us, end_us)]
        return before - len(self.events)

    def expire_before(self, cutoff_us: int) -> int:
        return self.delete(None, cutoff_us)

    def summarise(self, start_us: int | None, end_us: int | None) -> Summary:
        return summary(self.values(start_us, end_us))

    def count(self, start_us: int | None, end_us: int | None) -> int:
        return len(self.between(start_us, end_us))

    def percentiles(self, start_us: int | None, end_us: int | None, ps: Sequence[Percent]) -> list[float]:
        values = self.values(start_us, end_us)
        return [percentile(values, p) for p in ps] if values else []

    def steps(self, start_us: int, step_us: int, n_steps: int) -> list[Summary]:
        edges = [start_us + step_us * i for i in range(n_steps + 1)]
        return [self.summarise(edges[i], edges[i + 1]) for i in range(n_steps)]

    def first(self, start_us: int | None, end_us: int | None) -> Event | None:
        return next(iter(self.between(start_us, end_us)), None)

    def last(self, start_us: int | None, end_us: int | None) -> Event | None:
        return next(reversed(self.between(start_us, end_us)), None)

    def columns(self, start_us: int | None, end_us: int | None, limit: int | None, newest_first: bool) -> list[Event]:
        events = self.between(start_us, end_us)
        return (events[::-1] if newest_first else events)[:limit]

    def contains(self, event: Event) -> bool:
        return event in self.events


def _inside(ts_us: int, start_us: int | None, end_us: int | None) -> bool:
    return (start_us is None or ts_us >= start_us) and (end_us is None or ts_us < end_us)


PS: list[Percent] = [0, 1, 25, 50, 75, 90, 99, Fraction("99.9"), 100]


def from_bits(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    return float(value)


any_finite = st.floats(allow_nan=False, allow_infinity=False)


# As likely of any magnitude as of another: hundreds of them need thousands of buckets.
any_magnitude = st.integers(0, 2**64 - 1).map(from_bits).filter(math.isfinite)


def assert_errors_hold(sketch: Sketch, values: list[float], ps: Sequence[Percent] = PS) -> list[float | None]:
    """Each answer lies as near to the percentile, as fractions have it, as it claims; gives the claims."""
    ordered = sorted(values)
    estimates = sketch.percentiles(ps, ordered[0] + 0.0, ordered[-1] + 0.0)
    for p, (answer, error) in zip(ps, estimates, strict=True):
        true = exact_percentile(ordered, p)
        assert ordered[0] <= answer <= ordered[-1]
        if error is not None:
            assert error >= sketch.relative_error
            assert abs(Fraction(answer) - true) <= Fraction(error) * abs(true), (p, answer, float(true), sketch.level)
    return [error for _, error in estimates]
