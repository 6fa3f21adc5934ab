"""The mergeable exact summary of a bag of values: a commutative monoid, in the words of Tangwongsan & Hirzel's
sliding-window papers.

    lift      Summary.of(values)       an array of values -> its summary
    identity  IDENTITY                 the summary of no values
    combine   combine(a, b, ...)       the summary of all the values of several bags
    lower     .mean .variance ...      a summary -> the numbers that are shown

It is associative, commutative and exact: count and both sums are integers, min and max pick. So totals combined in any
order and grouping, over any parts, are equal under ==; also when parts were subtracted on the way. Only `lower` rounds,
once.

Pure values: no time, no I/O, no locks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from statsapi.engine import exact
from statsapi.model import Values

# The fields of the summary of one value or more; a zero may have a sign. Summaries that are combined at once stay in
# this form: a Summary takes 1 µs to make.
Fields = tuple[int, float, float, int, int]

# Up to this many values plain Python finds the extremes faster than numpy, whose two calls take 4 µs.
_FEW = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """Count, extremes and exact power sums of some float64 values.

    count: how many values.
    min, max: the extremes, None for no values. A zero has no sign here: the order of -0.0 and 0.0 must not show.
    sum_scaled: Σx · 2**1074, exact.
    sum_squares_scaled: Σx² · 2**2148, exact.
    """

    count: int
    min: float | None
    max: float | None
    sum_scaled: int
    sum_squares_scaled: int

    @classmethod
    def of(cls, values: Values) -> Summary:
        """Lift: the summary of a one-dimensional float64 array of finite values, which is not kept.

        O(n), about 10 ns a value (see `exact.scaled_sums`).
        """
        return combine_fields([fields_of(values)]) if len(values) else IDENTITY

    @property
    def sum(self) -> float | None:
        """The float64 nearest to Σx; None for no values, and when it leaves float64 (see `beyond_float64`)."""
        try:
            return exact.rounded_sum(self.sum_scaled) if self.count else None
        except OverflowError:
            return None

    @property
    def mean(self) -> float | None:
        """The float64 nearest to Σx / count, as `statistics.mean`; None for no values only: a mean never overflows."""
        return exact.mean(self.count, self.sum_scaled)

    @property
    def variance(self) -> float | None:
        """The float64 nearest to the sample variance (n - 1), as `statistics.variance`.

        None below two values, and when it leaves float64 (see `beyond_float64`). A few µs, like `stddev`.
        """
        try:
            return exact.variance(self.count, self.sum_scaled, self.sum_squares_scaled)
        except OverflowError:
            return None

    @property
    def stddev(self) -> float | None:
        """The float64 nearest to the root of the exact sample variance, as `statistics.stdev`.

        It exists for [1e200, -1e200], whose variance leaves float64. None below two values, and when it leaves
        float64 itself.
        """
        try:
            return exact.stddev(self.count, self.sum_scaled, self.sum_squares_scaled)
        except OverflowError:
            return None

    def beyond_float64(self) -> tuple[str, ...]:
        """The names among "sum", "variance" and "stddev" that are None because their exact value leaves float64.

        Tells "too large to show" from "not defined". Costs as much as reading the three.
        """
        names = []
        if self.count and self.sum is None:
            names.append("sum")
        if self.count > 1:
            names += [name for name in ("variance", "stddev") if getattr(self, name) is None]
        return tuple(names)


IDENTITY = Summary(0, None, None, 0, 0)
"""The summary of no values: combine(IDENTITY, x) == x."""


def fields_of(values: Values) -> Fields:
    """The fields of one value or more. 2 µs for one value, else as `Summary.of`."""
    n = len(values)
    if n <= _FEW:
        some = values.tolist()
        return n, min(some), max(some), *exact.scaled_sums(values)
    # The methods `min` and `max` take 1 µs longer.
    return n, float(np.minimum.reduce(values)), float(np.maximum.reduce(values)), *exact.scaled_sums(values)


def add_fields(a: Fields, b: Fields) -> Fields:
    """The fields of both bags together."""
    return a[0] + b[0], min(a[1], b[1]), max(a[2], b[2]), a[3] + b[3], a[4] + b[4]


def combine_fields(parts: list[Fields]) -> Summary:
    """The summary of all the values of some bags; IDENTITY for no bags."""
    if not parts:
        return IDENTITY
    count, low, high, total, squares = parts[0]
    if len(parts) > 1:
        for part in parts[1:]:
            count += part[0]
            if part[1] < low:
                low = part[1]
            if part[2] > high:
                high = part[2]
            total += part[3]
            squares += part[4]
    # Adding zero turns -0.0 into 0.0 and leaves every other value alone.
    return Summary(count, low + 0.0, high + 0.0, total, squares)


def combine(*summaries: Summary) -> Summary:
    """The summary of all the values that the given ones summarise; IDENTITY for none. O(number of summaries)."""
    parts = [summary for summary in summaries if summary.count]
    if len(parts) < 2:
        return parts[0] if parts else IDENTITY
    # A plain loop: five sums and picks over generators take four times as long for the usual three parts.
    count = sum_scaled = sum_squares_scaled = 0
    low, high = inf, -inf
    for part in parts:
        count += part.count
        sum_scaled += part.sum_scaled
        sum_squares_scaled += part.sum_squares_scaled
        if part.min is not None and part.min < low:
            low = part.min
        if part.max is not None and part.max > high:
            high = part.max
    return Summary(count, low, high, sum_scaled, sum_squares_scaled)
