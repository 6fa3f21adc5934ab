"""The timelines of all series, of which those with few events are only these."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.engine import timelines as timelines_module
from statsapi.engine.held_events import CHUNK_EVENTS
from statsapi.engine.store import Store
from statsapi.engine.timeline import Timeline
from statsapi.engine.timelines import FEW_EVENTS, Timelines
from statsapi.model import (
    HOUR_US,
    MAX_TS_US,
    MIN_TS_US,
    MINUTE_US,
    Deletion,
    Events,
    Retention,
    SingleEvents,
    Span,
    TimestampsUs,
    Values,
)

_names = st.sampled_from("abcdefg")
_stamps = st.integers(MIN_TS_US, MAX_TS_US)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_events = st.lists(st.tuples(_stamps, _floats), min_size=1, max_size=3)
_rows = st.lists(st.tuples(_stamps, _floats), min_size=7, max_size=7)
_changes = st.one_of(
    st.tuples(st.just("insert"), _names, _events),
    st.tuples(st.just("singles"), st.lists(_names, min_size=1, max_size=7), _rows),
    st.tuples(st.just("delete"), _names, st.tuples(_stamps, _stamps)),
)


def columns(events: list[tuple[int, float]]) -> tuple[TimestampsUs, Values]:
    return np.array([ts_us for ts_us, _ in events], np.int64), np.array([value for _, value in events], np.float64)


def bits(events: list[tuple[int, float]]) -> list[tuple[int, str]]:
    """In order of time, then of arrival."""
    return [(ts_us, value.hex()) for ts_us, value in sorted(events, key=lambda event: event[0])]


@pytest.mark.parametrize(("few", "chunk_events"), [(1, 4), (1, 2), (3, 4), (FEW_EVENTS, CHUNK_EVENTS)])
@given(changes=st.lists(_changes, max_size=12), some_us=_stamps)
def test_they_hold_what_a_plain_dict_holds(
    few: int, chunk_events: int, changes: list[tuple[str, Any, Any]], some_us: int
) -> None:
    """Every event comes back to the bit, whichever way it came in; so do names, counts and stamps."""
    small = partial(Timeline, chunk_events=chunk_events)
    with mock.patch.multiple(timelines_module, FEW_EVENTS=few, Timeline=small):
        compare_with_a_dict(changes, some_us)


def compare_with_a_dict(changes: list[tuple[str, Any, Any]], some_us: int) -> None:
    timelines, twin = Timelines(), dict[str, list[tuple[int, float]]]()
    for how, subject, data in changes:
        if how == "insert":
            assert timelines.insert(subject, *columns(data)) == (subject not in twin)
            twin.setdefault(subject, []).extend(data)
        elif how == "singles":
            rows = list(zip(subject, data, strict=False))
            new = [name for name in dict.fromkeys(subject) if name not in twin]
            assert timelines.insert_singles(subject, *columns([event for _, event in rows])) == new
            for name, event in rows:
                twin.setdefault(name, []).append(event)
        elif (timeline := timelines.to_change(subject)) is not None:
            low_us, high_us = sorted(data)
            left = [event for event in twin[subject] if not low_us <= event[0] < high_us]
            assert timeline.delete(low_us, high_us) == len(twin[subject]) - len(left)
            twin[subject] = left
            assert timelines.changed(subject) == bool(left)
            if not left:
                del twin[subject]
        timelines.check_invariants()
        assert sorted(timelines.names()) == sorted(twin)
        assert len(timelines) == len(twin)
        assert timelines.event_count() == sum(map(len, twin.values()))
        assert timelines.holds_before(some_us) == any(ts_us < some_us for held in twin.values() for ts_us, _ in held)
        for name in "abcdefg":
            timeline = timelines.get(name)
            asked = [*twin.get(name, []), (some_us, 0.0), (some_us, -0.0), (some_us, 1.5)]
            expected = [event in twin.get(name, []) for event in asked]
            assert timelines.contains(name, *columns(asked)).tolist() == expected
            assert (timeline is not None) == (name in timelines) == (name in twin)
            held = twin.get(name, [])
            assert timelines.last_ts_us(name) == max([ts_us for ts_us, _ in held], default=None)
            asked = [*held, *twin.get("a", []), *((ts_us, -value) for ts_us, value in held), (some_us, 0.0)]
            assert timelines.contains(name, *columns(asked)).tolist() == [event in held for event in asked]
            if timeline is not None:
                ts_us, values = timeline.columns(None, None)
                assert list(zip(ts_us.tolist(), [value.hex() for value in values.tolist()], strict=True)) == bits(held)
        apart = {part.series: part for part in timelines.few_events()}
        assert apart.keys() | timelines.opened.keys() == twin.keys()
        for name, part in apart.items():
            assert bits(list(zip(part.ts_us.tolist(), part.values.tolist(), strict=True))) == bits(twin[name])


def test_a_question_leaves_few_events_as_they_are() -> None:
    """What is asked for only is made for the question, so that asking about 100,000 series takes no memory."""
    timelines = Timelines()
    timelines.insert_singles(["a", "b"], *columns([(1, 1.0), (2, 2.0)]))
    before = timelines.nbytes(["a", "b"])
    for name in timelines.names():
        timeline = timelines.get(name)
        assert timeline is not None
        assert timeline.summarise(None, None).count == 1
    assert not timelines.opened
    assert timelines.nbytes(["a", "b"]) == before < 2 * 200


NOW_US = 1_763_711_100_000_000


@pytest.mark.parametrize("rollup_us", [0, 24 * HOUR_US])
def test_housekeeping_leaves_few_events_as_they_are(rollup_us: int) -> None:
    """Each minute all series are looked at; those of few events are held as these afterwards: where nothing was folded,
    and where some was folded or deleted.
    """
    store = Store(Retention(HOUR_US, rollup_us))
    names = [f"series {number}" for number in range(100)]
    ones, stamps_us = np.ones(100), np.full(100, NOW_US)
    for ages_us in (50 * MINUTE_US, MINUTE_US):
        store.apply([SingleEvents(names, stamps_us - ages_us, ones, stamps_us)], NOW_US)
    one_us = store._held.timelines.nbytes(["series 1"])
    for later_us, folded in ((0, 0), (20 * MINUTE_US, 100)):
        store.settle(NOW_US + later_us)
        store.apply([Deletion("series 0", NOW_US - MINUTE_US, NOW_US)], NOW_US + later_us)
        assert store.expire() == folded
        assert not store._held.timelines.opened
        store.check_invariants()
    assert store._held.timelines.nbytes(["series 1"]) < one_us
    rolled = bool(rollup_us)
    assert [store.count(name, Span(NOW_US - HOUR_US)) for name in names] == [rolled, *[1 + rolled] * 99]


def test_a_series_that_moves_is_there_all_the_time() -> None:
    """Whoever asks without the lock finds it, also where it goes from one map to the other between two looks."""

    class Moving(dict[str, Any]):
        """Lets the series move on, after each look."""

        def __contains__(self, name: object) -> bool:
            found = super().__contains__(name)
            next(moves, None)
            return found

    for first in ("to_change", "changed"):
        timelines = Timelines()
        timelines.insert("a", *columns([(1, 1.0)]))
        if first == "changed":
            timelines.to_change("a")
        moves = iter(())
        timelines._few, timelines.opened = Moving(timelines._few), Moving(timelines.opened)
        moves = (getattr(timelines, first)("a") for _ in range(1))
        assert "a" in timelines


@st.composite
def _records(draw: st.DrawFn) -> list[tuple[str, int, float, int]]:
    """Events of different series around now, each with the time of its record."""
    names = draw(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=10, unique=True))
    ages = st.one_of(st.integers(0, 3 * MINUTE_US), st.integers(0, 6 * HOUR_US), st.just(60 * MINUTE_US))
    return [(name, NOW_US - draw(ages), draw(_floats), NOW_US - draw(st.integers(0, 5)) * MINUTE_US) for name in names]


def state_of(store: Store) -> object:
    held, now_us = store.contents.state(), NOW_US
    small = {
        part.series: (part.ts_us.tolist(), [value.hex() for value in part.values.tolist()]) for part in held.small.parts
    }
    spans = [Span(now_us - MINUTE_US), Span(now_us - HOUR_US), Span(now_us - 6 * HOUR_US)]
    answers = {name: store.statistics(name, spans, now_us, [50], ends=True) for name in "abcdefghij"}
    kept = store._held
    return (
        small,
        held.times_us,
        held.rollups,
        sorted(held.late),
        answers,
        kept.due,
        kept.event_count,
        kept.sorted_names(),
    )


@pytest.mark.parametrize("rollup_us", [0, 24 * HOUR_US])
@given(
    segments=st.lists(_records(), min_size=1, max_size=5), deleted=st.sampled_from("abcdefghijx"), expired=st.booleans()
)
def test_singles_do_what_events_of_each_series_do(
    rollup_us: int, segments: list[list[tuple[str, int, float, int]]], deleted: str, expired: bool
) -> None:
    """One change of many series has the outcome of a change for each: also of late and expired events, of what is due,
    and of what an earlier answer has to learn.
    """
    stores = [Store(Retention(HOUR_US, rollup_us)) for _ in range(2)]
    for store in stores:
        store.settle(NOW_US)
        store.apply([], NOW_US - 10 * MINUTE_US)
        if expired:
            store.expire()
    marks = [store.changes([None], NOW_US).mark for store in stores]
    for records in segments:
        appended_us = max(stamp_us for *_, stamp_us in records)
        names = [name for name, *_ in records]
        ts_us, values = columns([(ts_us, value) for _, ts_us, value, _ in records])
        stamps_us = np.array([stamp_us for *_, stamp_us in records])
        stores[0].apply([SingleEvents(names, ts_us, values, stamps_us)], appended_us)
        rows = [slice(at, at + 1) for at in range(len(names))]
        each = [Events(name, ts_us[row], values[row], stamps_us[row]) for name, row in zip(names, rows, strict=True)]
        stores[1].apply(each, appended_us)
        for store in stores:
            store.check_invariants()
        assert state_of(stores[0]) == state_of(stores[1])
    since = [store.changes([mark], NOW_US).since[0] for store, mark in zip(stores, marks, strict=True)]
    plain = [some and (some.names, some.ends, some.ts_us.tolist(), some.values.tolist()) for some in since]
    assert plain[0] == plain[1]
    for store in stores:
        store.apply([Deletion(deleted)], NOW_US)
        store.expire()
        store.check_invariants()
    assert state_of(stores[0]) == state_of(stores[1])
