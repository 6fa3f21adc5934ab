"""Where events lie at an instant, by the column and one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.durations import spell_duration
from statsapi.engine.placement import AHEAD, EXPIRED, NONE, OLDER, RECENT, Bounds, Placed
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Retention
from statsapi.times import parse_timestamp_us

NOW_US = parse_timestamp_us("2025-11-21T07:45:30Z")
RAW_US = HOUR_US + 5 * MINUTE_US
EDGES_US = [
    NOW_US - HOUR_US,
    NOW_US,
    NOW_US + MINUTE_US,
    parse_timestamp_us("2025-11-21T06:40:00Z"),
    parse_timestamp_us("2025-11-20T07:40:00Z"),
    parse_timestamp_us("2025-11-14T07:00:00Z"),
]


def bounds_of(rollup_us: int, dedup: bool) -> Bounds:
    retention = Retention(RAW_US, rollup_us)
    raw_from_us = retention.raw_from_us(NOW_US) if dedup else None
    return Bounds(NOW_US, NOW_US - HOUR_US, retention, raw_from_us)


def naive_place(ts_us: int, rollup_us: int, dedup: bool) -> Placed:
    """The four sentences of Placed's docstring, for one event."""
    kept_us, unit_us = (RAW_US, MINUTE_US) if dedup else (max(RAW_US, rollup_us), MINUTE_US)
    if not dedup and rollup_us > 2 * DAY_US:
        unit_us = HOUR_US
    kept_from_us = (NOW_US - kept_us) // unit_us * unit_us
    if ts_us > NOW_US + 60 * SECOND_US:
        return AHEAD
    if ts_us >= NOW_US - HOUR_US:
        return RECENT
    return OLDER if ts_us >= kept_from_us else EXPIRED


near_edges = st.builds(lambda edge_us, by_us: edge_us + by_us, st.sampled_from(EDGES_US), st.integers(-2, 2))
anywhere = st.integers(NOW_US - 10 * DAY_US, NOW_US + DAY_US)


@given(
    st.lists(st.lists(near_edges | anywhere, max_size=6), max_size=4),
    st.sampled_from([0, DAY_US + 5 * MINUTE_US, 7 * DAY_US + 5 * MINUTE_US]),
    st.booleans(),
)
def test_columns_and_single_events_agree(columns: list[list[int]], rollup_us: int, dedup: bool) -> None:
    """However many columns there are, they come to the sum of their events, each where the naive twin puts it."""
    bounds = bounds_of(rollup_us, dedup)
    arrays = [np.array(column, np.int64) for column in columns]
    expected = NONE
    for ts_us in [ts_us for column in columns for ts_us in column]:
        place = naive_place(ts_us, rollup_us, dedup)
        assert bounds.place(ts_us) is place
        expected = Placed(*(have + more for have, more in zip(expected, place, strict=True)))
    assert bounds.tally(arrays) == expected
    older, expired, ahead = (
        (sum(int(mask.sum()) for mask in masks) for masks in zip(*(map(bounds.split, arrays)), strict=True))
        if arrays
        else (0, 0, 0)
    )
    assert (older, expired, ahead) == expected[1:]


@pytest.mark.parametrize("edge_us", EDGES_US)
@pytest.mark.parametrize("by_us", [-1, 0, 1])
@pytest.mark.parametrize("dedup", [False, True])
def test_every_edge_to_the_microsecond(edge_us: int, by_us: int, dedup: bool) -> None:
    """Among recent events, the one at an edge is counted where it lies, whether or not the others decide it."""
    bounds = bounds_of(DAY_US + 5 * MINUTE_US, dedup)
    placed = bounds.tally([np.array([NOW_US, edge_us + by_us]), np.array([NOW_US])])
    expected = naive_place(edge_us + by_us, DAY_US + 5 * MINUTE_US, dedup)
    assert placed == expected._replace(recent=expected.recent + 2)


def test_a_single_event_is_told_by_identity() -> None:
    """One event comes to RECENT itself, which is what the hot path asks for."""
    assert bounds_of(0, False).tally([np.array([NOW_US])]) is RECENT


@pytest.mark.parametrize(
    ("duration_us", "said"),
    [
        (5 * HOUR_US, "5 h"),
        (5 * HOUR_US + 300_000, "5 h"),
        (80 * MINUTE_US, "1 h 20 min"),
        (9 * HOUR_US - SECOND_US, "9 h"),
        (9 * HOUR_US - MINUTE_US, "8 h 59 min"),
        (90 * SECOND_US, "1 min 30 s"),
        (10 * MINUTE_US + 29 * SECOND_US, "10 min"),
        (59 * MINUTE_US + 29 * SECOND_US, "59 min"),
        (59 * MINUTE_US + 59 * SECOND_US, "1 h"),
        (599_700_000, "10 min"),
        (59_999_999, "1 min"),
        (SECOND_US, "1 s"),
        (250_000, "250 ms"),
        (1, "0.001 ms"),
        (0, "0 ms"),
        (DAY_US, "1 day"),
        (DAY_US + 3 * HOUR_US, "1 day 3 h"),
        (2 * DAY_US + 59 * MINUTE_US, "2 days 1 h"),
        (2 * DAY_US - 1, "2 days"),
        (10 * DAY_US - 1, "10 days"),
        (366 * DAY_US, "366 days"),
        (12 * DAY_US + 3 * HOUR_US, "12 days"),
        (400 * DAY_US, "400 days"),
        (730 * DAY_US, "2 years"),
        (5 * 365 * DAY_US + 30 * DAY_US, "5 years"),
    ],
)
def test_durations_as_people_say_them(duration_us: int, said: str) -> None:
    """One unit, or two where the first alone would be coarse, rounded to the second."""
    assert spell_duration(duration_us) == said
