"""What is done in pieces is what one call does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.engine import holdings as holdings_module
from statsapi.engine import piecewise
from statsapi.engine.piecewise import concatenated, in_order, let_go
from statsapi.engine.store import Store
from statsapi.journal import Events
from statsapi.model import DAY_US, Deletion, Retention


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    """Three make a piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "PIECE", 3)
        patch.setattr(holdings_module, "_PUT_IN", 2)
        patch.setattr(holdings_module, "_CAME_MAX", 4)
        yield


@given(st.lists(st.lists(st.floats(allow_nan=False), max_size=4), min_size=1, max_size=12))
def test_arrays_side_by_side(arrays: list[list[float]]) -> None:
    """In their order, and a copy where there is one only."""
    given_arrays = [np.array(each, np.float64) for each in arrays]
    joined = concatenated(given_arrays)
    assert joined.tolist() == [value for each in arrays for value in each]
    assert not any(np.shares_memory(joined, each) for each in given_arrays)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers())), st.booleans())
def test_sorting_is_stable(items: list[tuple[int, int]], descending: bool) -> None:
    """Equal keys stay in the order given, also in reverse."""
    expected = sorted(items, key=lambda item: item[0], reverse=descending)
    assert list(in_order(iter(items), lambda item: item[0], descending=descending)) == expected


@given(st.lists(st.lists(st.integers(), max_size=9), max_size=3))
def test_lists_are_emptied(lists: list[list[int]]) -> None:
    """However long they are."""
    let_go(*lists)
    assert not any(lists)


NAMES = st.sampled_from([f"s{i}" for i in range(9)])


@given(st.lists(st.tuples(st.sampled_from(["come", "go", "look"]), NAMES), max_size=40))
def test_names_stay_sorted(steps: list[tuple[str, str]]) -> None:
    """Whatever comes and goes between two looks; and a list that was handed out stays as it was."""
    store = Store(Retention(DAY_US))
    held: set[str] = set()
    handed_out = []
    now_us = 20_000 * DAY_US
    for what, name in [*steps, ("look", "")]:
        if what == "come":
            store.apply([Events(name, np.array([now_us]), np.array([1.0]), np.array([now_us]))], now_us)
            held.add(name)
        elif what == "go":
            store.apply([Deletion(name, 0, 2 * now_us)], now_us)
            held.discard(name)
        else:
            handed_out.append((store.listing.names(), sorted(held)))
        assert store.sizes.series_count() == len(held)
    assert all(list(names) == expected for names, expected in handed_out)
