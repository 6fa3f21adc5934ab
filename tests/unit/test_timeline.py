"""Timeline against its naive twin, with tiny chunks so that every edge is met soon.

A long run from the same file: make stress SEED=7 OPS=20000
"""

from __future__ import annotations

import gc
import os
import statistics
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from statsapi.engine import counted as counted_module
from statsapi.engine import percentiles as percentiles_module
from statsapi.engine import sealed as sealed_module
from statsapi.engine import step_details as step_details_module
from statsapi.engine import timeline as timeline_module
from statsapi.engine.buffer import Columns
from statsapi.engine.counted import Counted, Keys, Selections, SortedColumn
from statsapi.engine.sketch import Sketch, count_values, merge
from statsapi.engine.step_details import step_details
from statsapi.engine.summary import IDENTITY, Summary
from statsapi.engine.timeline import Timeline
from statsapi.model import MAX_TS_US, MIN_TS_US, Percent
from tests import oracles

wild_floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True),
    st.sampled_from([0.0, -0.0, 1e308, -1e308, 1.7e308, -1.7e308, 5e-324, -5e-324, 1e16, 1.0, -1e16, 1e12, 0.1]),
    st.integers(-3, 3).map(float),
)
# A narrow span makes equal stamps and late events common; a few lie far out.
stamps = st.one_of(st.integers(0, 60), st.integers(-1000, 1000), st.sampled_from([MIN_TS_US, MAX_TS_US]))
bounds = st.one_of(st.none(), st.integers(-5, 65), stamps)
batches = st.lists(st.tuples(stamps, wild_floats), max_size=40)
percents = st.one_of(
    st.sampled_from([0, 25, 29, 50, 95, 99, Fraction("99.9"), 100]), st.decimals(0, 100, places=3).map(Fraction)
)


def columns_of(events: list[oracles.Event]) -> Columns:
    return np.array([ts for ts, _ in events], np.int64), np.array([value for _, value in events], np.float64)


def events_of(columns: Columns) -> list[oracles.Event]:
    ts_us, values = columns
    assert ts_us.dtype == np.int64
    assert values.dtype == np.float64
    return list(zip(ts_us.tolist(), values.tolist(), strict=True))


class TimelineMachine(RuleBasedStateMachine):
    """Every verb on both twins, in any order; a Timeline that differs anywhere, or does not add up inside, fails."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = oracles.NaiveTimeline()
        self.snapshots: list[tuple[Iterator[Columns], list[oracles.Event]]] = []
        self.patch = pytest.MonkeyPatch()

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(
        chunk_events=st.sampled_from([2, 3, 4, 8]),
        near=st.sampled_from([1, 2, 64]),
        select_all=st.sampled_from([2, 99]),
    )
    def start(self, chunk_events: int, near: int, select_all: int) -> None:
        """near: how much is done at once where little changes. select_all: how many values are not narrowed down."""
        self.timeline = Timeline(chunk_events)
        self.unions = Selections()
        self.patch.setattr(percentiles_module, "_PARTITION_ALL", select_all)
        self.patch.setattr(percentiles_module, "_SAMPLE_STEP", 2)
        self.patch.setattr(percentiles_module, "_kept_values", lambda _: near)
        self.patch.setattr(counted_module, "_KEPT_BYTES_PER_EVENT", 1e6)
        self.patch.setattr(timeline_module, "_COUNTS_KEPT_FROM", 0)
        self.patch.setattr(sealed_module, "_NEAR_CUT", near)
        self.patch.setattr(sealed_module, "_NEAR_ENDS", near)
        self.patch.setattr(timeline_module, "_SORTED_FROM", near)
        self.patch.setattr(step_details_module, "_STEPS_SORTED", near)

    @rule(events=batches)
    def insert(self, events: list[oracles.Event]) -> None:
        self.timeline.insert(*columns_of(events))
        self.naive.insert([ts for ts, _ in events], [value for _, value in events])

    @rule(start=st.integers(0, 60), gaps=st.lists(st.tuples(st.integers(0, 3), wild_floats), max_size=40))
    def insert_in_order(self, start: int, gaps: list[tuple[int, float]]) -> None:
        events = []
        for gap, value in gaps:
            start += gap
            events.append((start, value))
        self.insert(events)

    @rule(ts=stamps, value=wild_floats)
    def insert_one(self, ts: int, value: float) -> None:
        self.insert([(ts, value)])

    @rule(cutoff=st.integers(-1000, 1000))
    def expire(self, cutoff: int) -> None:
        assert self.timeline.expire_before(cutoff) == self.naive.expire_before(cutoff)

    @rule(end=st.integers(-1000, 1000), most=st.integers(0, 20))
    def pop_few(self, end: int, most: int) -> None:
        values = self.naive.values(None, end)
        found = self.timeline.pop_few(end, most)
        if len(values) > most:
            assert found is None
        else:
            assert found is not None
            assert found.tolist() == values
            self.naive.expire_before(end)

    @rule(start=bounds, end=bounds)
    def sketches(self, start: int | None, end: int | None) -> None:
        values = np.array(self.naive.values(start, end), np.float64)
        assert merge(self.timeline.sketches(start, end)) == Sketch(0, count_values(values))

    @rule(chunks=st.integers(1, 4))
    def slice_end(self, chunks: int) -> None:
        """A slice from the front is not empty, and has at most this many chunks unless all timestamps are equal."""
        end = self.timeline.slice_end_us(chunks)
        if len(self.naive):
            taken = self.timeline.count(None, end)
            assert taken > 0
            first = min(ts for ts, _ in self.naive.events)
            at_once = self.naive.count(first, first + 1)
            assert end > MAX_TS_US or taken <= at_once + (chunks + 1) * 3 * self.timeline._chunk_events

    @rule(start=bounds, end=bounds)
    def delete(self, start: int | None, end: int | None) -> None:
        assert self.timeline.delete(start, end) == self.naive.delete(start, end)

    @rule(start=bounds, end=bounds)
    def summarise(self, start: int | None, end: int | None) -> None:
        assert self.timeline.summarise(start, end) == self.naive.summarise(start, end)
        assert self.timeline.count(start, end) == self.naive.count(start, end)

    @rule(start=st.integers(-5, 40), width=st.integers(1, 20), moves=st.integers(1, 5))
    def slide(self, start: int, width: int, moves: int) -> None:
        for _ in range(moves):
            self.summarise(start, start + width)
            self.summarise(start, None)
            start += 1

    @rule(start=bounds, end=bounds, ps=st.lists(percents, max_size=4))
    def percentiles(self, start: int | None, end: int | None, ps: list[Percent]) -> None:
        assert self.timeline.percentiles(start, end, ps) == self.naive.percentiles(start, end, ps)

    @rule(
        start=st.integers(-5, 40), width=st.integers(1, 30), moves=st.integers(1, 5), ps=st.lists(percents, max_size=3)
    )
    def slide_percentiles(self, start: int, width: int, moves: int, ps: list[Percent]) -> None:
        """A window slides and what was counted is kept: by the series, and for a union with it, which copies no cut."""
        for i in range(moves):
            for end in (start + width, start + 2 * width, None):
                self.percentiles(start + i, end, ps)
                columns, cuts, rest = self.timeline.value_columns(start + i, end)
                loose = np.sort(rest)
                columns = [*columns, SortedColumn(loose, percentiles_module.sample_of(loose, i))]
                found = percentiles_module.of_columns(columns, ps, cuts, self.unions)
                assert found == self.naive.percentiles(start + i, end, ps)

    @rule(start=bounds, end=bounds, again=st.integers(0, 2))
    def value_columns(self, start: int | None, end: int | None, again: int) -> None:
        for _ in range(1 + again):
            of_span = self.timeline.value_columns(start, end)
            found = of_span.unsorted.tolist()
            for some in [column.values for column in of_span.sorted] + [cut.kept_values() for cut in of_span.cut]:
                assert some.tolist() == sorted(some.tolist())
                found += some.tolist()
            assert sorted(found) == sorted(self.naive.values(start, end))

    @rule(start=st.one_of(st.integers(-20, 60), stamps), step=st.integers(1, 30), n=st.integers(0, 12))
    def steps(self, start: int, step: int, n: int) -> None:
        assert self.timeline.steps(start, step, n) == self.naive.steps(start, step, n)

    @rule(start=bounds, step=st.integers(1, 30), n=st.integers(1, 12), ps=st.lists(percents, max_size=4))
    def step_details(self, start: int | None, step: int, n: int, ps: list[Percent]) -> None:
        start = start or 0
        edges = [*(start + step * i for i in range(n)), None]
        for ends in (False, True):
            found = list(step_details([self.timeline.freeze(start, None)], start, step, n, ps, ends=ends))
            assert len(found) == n
            for i, details in enumerate(found):
                span = edges[i], edges[i + 1]
                expected = (self.naive.first(*span), self.naive.last(*span)) if ends else (None, None)
                assert (details.first, details.last) == expected
                assert details.percentiles == self.naive.percentiles(*span, ps)

    @rule(start=bounds, end=bounds)
    def ends(self, start: int | None, end: int | None) -> None:
        assert self.timeline.first(start, end) == self.naive.first(start, end)
        assert self.timeline.last(start, end) == self.naive.last(start, end)

    @rule(start=bounds, end=bounds, limit=st.one_of(st.none(), st.integers(0, 30)), newest_first=st.booleans())
    def columns(self, start: int | None, end: int | None, limit: int | None, newest_first: bool) -> None:
        expected = self.naive.columns(start, end, limit, newest_first)
        assert events_of(self.timeline.columns(start, end, limit, newest_first)) == expected

    @rule(start=bounds, end=bounds)
    def take_snapshot(self, start: int | None, end: int | None) -> None:
        expected = self.naive.columns(start, end, None, False)
        self.snapshots.append((self.timeline.freeze(start, end).drain(), expected))

    @precondition(lambda self: self.snapshots)
    @rule()
    def walk_snapshot(self) -> None:
        pieces, expected = self.snapshots.pop()
        assert [event for piece in pieces for event in events_of(piece)] == expected

    @rule(events=batches, data=st.data())
    def contains(self, events: list[oracles.Event], data: st.DataObject) -> None:
        if self.naive.events:
            events = events + data.draw(st.lists(st.sampled_from(self.naive.events), max_size=5))
        found = self.timeline.contains(*columns_of(events)).tolist()
        assert found == [self.naive.contains(event) for event in events]

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "timeline"):
            self.timeline.check_invariants()
            assert len(self.timeline) == len(self.naive)
            if len(self.naive):
                stamps = [ts for ts, _ in self.naive.events]
                assert (self.timeline.first_ts_us, self.timeline.last_ts_us) == (min(stamps), max(stamps))


TestTimelineMachine = TimelineMachine.TestCase
TestTimelineMachine.settings = settings(max_examples=settings.default.max_examples * 3 // 2, stateful_step_count=40)


# -- a larger run, from a seed ----------------------------------------------------------------------------------------

STRESS_OPS = int(os.environ.get("STATSAPI_STRESS_OPS", "30"))
STRESS_SEED = int(os.environ.get("STATSAPI_STRESS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.parametrize("chunk_events", [16, 200, 3000])
def test_stress(chunk_events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bulk loads, late bursts, ties, expiry and deletes over some 100,000 events, compared after each step."""
    monkeypatch.setattr(percentiles_module, "_PARTITION_ALL", 100)
    seed = (STRESS_SEED, chunk_events)
    rng = np.random.default_rng(seed)
    timeline = Timeline(chunk_events)
    ts_us, values = np.empty(0, np.int64), np.empty(0)
    now = 0
    for op in range(STRESS_OPS):
        n = int(rng.choice([1, 7, 100, 2000, 8000]))
        late_by = int(rng.choice([0, 50, 20_000, 100_000]))
        new_ts_us = now + np.sort(rng.integers(0, n + 1, n)) - rng.integers(0, late_by + 1, n)
        kind = rng.integers(4)
        new_values: Any = (
            rng.standard_normal(n)
            if kind < 2
            else rng.integers(0, 4, n) * 0.5
            if kind == 2
            else np.exp(rng.normal(0, 60, n))
        )
        now += n
        timeline.insert(new_ts_us, new_values)
        ts_us, values = np.concatenate((ts_us, new_ts_us)), np.concatenate((values, new_values))
        start, end = np.sort(rng.integers(now - 60_000, now + 2, 2)).tolist()
        if op % 7 == 6:
            gone = ts_us < start
            assert timeline.expire_before(start) == np.count_nonzero(gone)
            ts_us, values = ts_us[~gone], values[~gone]
        if op % 11 == 10:
            gone = (ts_us >= end - 500) & (ts_us < end)
            assert timeline.delete(end - 500, end) == np.count_nonzero(gone)
            ts_us, values = ts_us[~gone], values[~gone]
        timeline.check_invariants()
        inside = (ts_us >= start) & (ts_us < end)
        # The sums themselves are proven elsewhere: here the quick ones serve, over the events a plain mask selects.
        where = f"seed {seed}, operation {op}"
        assert timeline.summarise(start, end) == Summary.of(values[inside]), where
        assert timeline.summarise(start, None) == Summary.of(values[ts_us >= start]), where
        assert timeline.count(start, end) == np.count_nonzero(inside), where
        order = np.flatnonzero(inside)[ts_us[inside].argsort(kind="stable")]
        got_ts_us, got_values = timeline.columns(start, end)
        assert (got_ts_us == ts_us[order]).all() and (got_values == values[order]).all(), where  # noqa: PT018
        if inside.any():
            ps: list[Percent] = [0, 50, Fraction("99.9"), Fraction(int(rng.integers(10**9 + 1)), 10**7), 100]
            ordered = np.sort(values[inside]).tolist()
            assert timeline.percentiles(start, end, ps) == [oracles.percentile(ordered, p) for p in ps], where
        step = (end - start) // 7 + 1
        edges = [start + step * i for i in range(8)]
        expected = [Summary.of(values[(ts_us >= a) & (ts_us < b)]) for a, b in pairwise(edges)]
        assert timeline.steps(start, step, 7) == expected, where
        some = rng.integers(0, len(ts_us), 5) if len(ts_us) else np.empty(0, np.int64)
        assert timeline.contains(ts_us[some], values[some]).all(), where
        assert not timeline.contains(ts_us[some], np.nextafter(values[some], 0.3)).any(), where


# -- what is promised -------------------------------------------------------------------------------------------------


def timeline_of(values: list[float], chunk_events: int = 4) -> Timeline:
    """One event a microsecond."""
    timeline = Timeline(chunk_events)
    timeline.insert(np.arange(len(values)), np.array(values))
    return timeline


def test_a_spike_that_expired_leaves_no_trace() -> None:
    """After a 1e12 spike has left the window, variance and mean are those of the rest."""
    rest = [0.1, 0.2, 0.3, 0.7, 0.4, 0.9]
    for timeline in (timeline_of([1e12, *rest]), timeline_of([1e12, *rest], chunk_events=100)):
        assert timeline.summarise(None, None).max == 1e12
        assert timeline.summarise(1, None).variance == statistics.variance(rest)
        assert timeline.expire_before(1) == 1
        summary = timeline.summarise(None, None)
        assert (summary.mean, summary.variance) == (statistics.mean(rest), statistics.variance(rest))


@pytest.mark.parametrize("values", [[1e308] * 3, [1e16, 1.0, -1e16], [5e-324] * 5, [1e308, 5e-324, -1e308]], ids=str)
def test_mean_is_exact_where_floats_fail(values: list[float]) -> None:
    """Sums that overflow, cancel or vanish still give the mean of statistics.mean."""
    assert timeline_of(values, chunk_events=2).summarise(None, None).mean == statistics.mean(values)


def test_the_range_is_half_open() -> None:
    """An event at the start counts, one at the end does not; an empty or inverted range holds nothing."""
    timeline = timeline_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert timeline.summarise(1, 5).count == timeline.count(1, 5) == 4
    for start, end in ((3, 3), (5, 1)):
        assert timeline.summarise(start, end) == IDENTITY
        assert timeline.count(start, end) == timeline.delete(start, end) == 0
        assert timeline.percentiles(start, end, [50]) == []
        assert timeline.steps(start, 1, 0) == []
        assert timeline.first(start, end) is timeline.last(start, end) is None
        assert len(timeline.columns(start, end)[0]) == len(list(timeline.freeze(start, end).drain())) == 0


def test_equal_stamps_keep_the_order_of_arrival() -> None:
    """Among events of one instant, the first to arrive is first and the last to arrive is last, late or not."""
    timeline = Timeline(2)
    for value in range(20):
        timeline.insert(np.array([7, 9]), np.array([float(value), 100.0 + value]))
        timeline.check_invariants()
    assert timeline.columns(7, 8)[1].tolist() == list(range(20))
    assert (timeline.first(7, 8), timeline.last(7, 8)) == ((7, 0.0), (7, 19.0))


@pytest.mark.parametrize("step_us", [0, 1, 3])
@pytest.mark.parametrize("behind", [1, 2, 5])
def test_a_batch_that_comes_late_for_a_gap(behind: int, step_us: int) -> None:
    """Of two clients that post a stream in turn, one is behind: each of its batches lies in a gap, and may begin and
    end at the instant of its neighbours. All is as if every event had come alone.
    """
    rng = np.random.default_rng(behind)
    timeline, alone = Timeline(8), oracles.NaiveTimeline()
    order = [number for i in range(20 + behind) for number in (2 * i, 2 * (i - behind) + 1) if 0 <= number < 40]
    for number in order:
        n = int(rng.integers(8, 20))
        ts_us = 40 * number + np.minimum(np.arange(n) * step_us, 41)
        values = rng.integers(0, 30, n) / 7
        timeline.insert(ts_us, values)
        alone.insert(ts_us.tolist(), values.tolist())
        timeline.check_invariants()
        assert events_of(timeline.columns(None, None)) == alone.between(None, None)
        for start_us in (0, 40 * number - 20, 40 * number, 40 * number + 3, 40 * number + 41):
            assert timeline.summarise(start_us, None) == alone.summarise(start_us, None)
            assert timeline.summarise(None, start_us) == alone.summarise(None, start_us)


def test_only_a_late_batch_is_sorted_not_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a batch lies in a gap, the events around it are not sealed again, but for a few that are no chunk, or that
    are of the same instants.
    """
    sealed, seal = 0, sealed_module.SealedColumns.seal

    def count(ts_us: Any, values: Any, stagger: int, room: int) -> Any:
        nonlocal sealed
        sealed += len(ts_us)
        return seal(ts_us, values, stagger, room)

    monkeypatch.setattr(sealed_module.SealedColumns, "seal", count)
    timeline = Timeline(1_000)
    for number in [*range(0, 60, 2), *range(1, 60, 2)]:
        timeline.insert((1_200 * number + np.arange(1_200)) // 7 * 7, np.arange(1_200.0))
    assert 60 * 1_200 - 1_000 <= sealed < 1.1 * 60 * 1_200


@settings(max_examples=settings.default.max_examples * 3)
@given(st.lists(wild_floats, min_size=1, max_size=40), st.lists(st.integers(0, 200), max_size=40))
def test_values_are_put_in_order(values: list[float], steps: list[int]) -> None:
    """Also values that only their last bits tell apart. Equal ones keep their order; -0.0 comes before 0.0."""
    near = (np.full(len(steps), values[0]).view(np.int64) ^ np.array(steps, np.int64)).view(np.float64)
    array = np.concatenate((np.array(values), near[np.isfinite(near)]))
    order, in_order = sealed_module._by_value(array)
    expected = np.lexsort((np.arange(len(array)), ~np.signbit(array), array))
    assert order.tolist() == expected.tolist()
    assert in_order.tobytes() == array[expected].tobytes()


def test_a_slice_is_not_empty_where_an_earlier_event_is_gone() -> None:
    """Many chunks begin at one instant, and the first of them still claims an earlier beginning."""
    timeline = Timeline(2)
    timeline.insert(np.full(4, 2), np.arange(4.0))
    timeline.insert(np.array([0]), np.array([9.0]))
    timeline.expire_before(1)
    assert timeline.count(None, timeline.slice_end_us(1)) == 4
    timeline.insert(np.array([3, 3, 5]), np.arange(3.0))
    assert timeline.slice_end_us(1) == 3


def test_an_unanswerable_question_is_refused() -> None:
    """Percentiles outside 0 to 100 and steps that do not advance raise ValueError, as does a chunk size without
    sense.
    """
    timeline = timeline_of([1.0])
    for p in (-1, 100.1, float("nan")):
        with pytest.raises(ValueError, match="percentile"):
            timeline.percentiles(None, None, [cast(Any, p)])
    with pytest.raises(ValueError, match="step_us"):
        timeline.steps(0, 0, 1)
    for chunk_events in (1, 40_000):
        with pytest.raises(ValueError, match="chunk_events"):
            Timeline(chunk_events)


def test_an_empty_timeline_answers() -> None:
    """Every question to a series without events has an answer; its first and last stamps alone do not exist."""
    timeline = Timeline()
    assert timeline.summarise(None, None) == IDENTITY
    assert timeline.percentiles(None, None, [50]) == []
    assert timeline.expire_before(5) == len(timeline) == 0
    assert timeline.contains(np.array([1]), np.array([1.0])).tolist() == [False]
    for name in ("first_ts_us", "last_ts_us"):
        with pytest.raises(ValueError, match=r"zero-size|no event"):
            getattr(timeline, name)


# -- percentiles ------------------------------------------------------------------------------------------------------

VALUES = {
    "log-normal": lambda rng, n: rng.lognormal(3, 1, n),
    "few different": lambda rng, n: rng.integers(0, 5, n) * 1.5,
    "all equal": lambda rng, n: np.full(n, 2.5),
    "nearly all equal": lambda rng, n: np.where(rng.random(n) < 0.99, 1.0, rng.random(n)),
    "rising with time": lambda rng, n: np.arange(n, dtype=float),
    "zeros of both signs": lambda rng, n: rng.choice([-0.0, 0.0, 1.0], n),
    "ends of float64": lambda rng, n: rng.choice([-1.7976931348623157e308, 1.7976931348623157e308, 5e-324], n),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "late"])
def test_percentiles_are_rounded_once(kind: str, shuffled: bool) -> None:
    """Over 60,000 events, where the pivots narrow the values down, every percentile is the exact one, rounded once."""
    rng = np.random.default_rng(3)
    n = 60_000
    ts_us, values = np.arange(n), VALUES[kind](rng, n)
    timeline = Timeline(1000)
    order = rng.permutation(n) if shuffled else ts_us
    for batch in np.array_split(order, 20):
        timeline.insert(ts_us[batch], values[batch])
    ps = [Fraction(p) for p in ("0", "0.001", "1", "25", "33.3", "50", "90", "99", "99.9", "99.999", "100")]
    for start in (0, 1, 12_345, 59_000):
        ordered = np.sort(values[start:]).tolist()
        expected = [oracles.percentile(ordered, p) for p in ps]
        assert timeline.percentiles(start, None, ps) == expected
        assert timeline.percentiles(start, None, ps) == expected  # from the memo


def test_percentiles_find_ranks_that_the_pivots_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a margin of nearly nothing the first pivots miss; wider ones find every rank."""
    monkeypatch.setattr(percentiles_module, "isqrt", lambda _: -1)
    monkeypatch.setattr(percentiles_module, "_KEPT_VALUES", 0)
    monkeypatch.setattr(percentiles_module, "_PARTITION_ALL", 10)
    values = np.random.default_rng(1).standard_normal(20_000)
    timeline = Timeline(500)
    timeline.insert(np.arange(20_000), values)
    calls: list[Any] = []
    narrow = percentiles_module._narrow

    def counted(*args: Any) -> Any:
        calls.append(args[3])
        return narrow(*args)

    monkeypatch.setattr(percentiles_module, "_narrow", counted)
    ordered = np.sort(values).tolist()
    assert timeline.percentiles(None, None, range(101)) == [oracles.percentile(ordered, p) for p in range(101)]
    assert len(calls) > 1


def test_what_was_counted_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three windows slide on: pivots are sought once for each, and new chunks alone are counted."""
    monkeypatch.setattr(percentiles_module, "_PARTITION_ALL", 1000)
    monkeypatch.setattr(timeline_module, "_COUNTS_KEPT_FROM", 0)
    monkeypatch.setattr(counted_module, "_KEPT_BYTES_PER_EVENT", 5)
    dice = np.random.default_rng(3)
    values = dice.lognormal(3, 1, 60_000)
    timeline = Timeline(500)
    timeline.insert(np.arange(40_000), values[:40_000])
    ps: tuple[Percent, ...] = (50, 95, Fraction("99.9"))
    sought: list[Any] = []
    narrow = percentiles_module._narrow

    def count_and_narrow(*args: Any) -> Any:
        sought.append(1)
        return narrow(*args)

    monkeypatch.setattr(percentiles_module, "_narrow", count_and_narrow)
    counted: list[int] = []
    kept = Selections.keep

    def keep(self: Selections, asked: object, n: int, found: Any, before: Any) -> None:
        old = set() if before is None else set(before.numbers.tolist())
        counted.append(len(set(found.numbers.tolist()) - old - {0}))
        kept(self, asked, n, found, before)

    monkeypatch.setattr(Selections, "keep", keep)
    for now in range(40_000, 46_000, 100):
        timeline.insert(np.arange(now, now + 100), values[now : now + 100])
        for width in (20_000, 30_000, 40_000):
            start = now + 100 - width
            expected = np.sort(values[start : now + 100]).tolist()
            assert timeline.percentiles(start, None, ps) == [oracles.percentile(expected, p) for p in ps]
    assert len(sought) <= 3 + 2, "the first time, and hardly ever again"
    assert max(counted[3:]) <= 1


def test_a_column_without_a_number_that_is_gone() -> None:
    """Some of the loose values were counted. Counts stay right when their column, which has no number, is gone."""
    columns = [SortedColumn(np.arange(at, at + 9.0), np.empty(0), at + 1) for at in range(3)]
    loose = SortedColumn(np.array([2.0, 5.0]), np.empty(0))
    counted = Counted.of([*columns, loose], [], [Keys(2.5, 4.5), Keys(5.0, 5.5, 5.0)])
    assert counted.totals() == [(3 + 2 + 1 + 1, 5 + 4 + 3 + 1), (5 + 4 + 3 + 1, 6 + 5 + 4 + 2)]
    moved = counted.moved(columns, [])
    assert moved.totals() == [(3 + 2 + 1, 5 + 4 + 3), (5 + 4 + 3, 6 + 5 + 4)]
    assert sorted(moved.values_between(0).tolist()) == [3.0] * 3 + [4.0] * 3
    assert moved.moved(columns[1:], []).totals() == [(2 + 1, 4 + 3), (4 + 3, 5 + 4)]


@pytest.mark.slow
def test_what_was_counted_takes_little_memory_and_is_given_back() -> None:
    """However many different percentiles are asked for: half a byte an event, in eight selections at most."""
    timeline = Timeline()
    n = 400_000
    timeline.insert(np.arange(n), np.random.default_rng(4).lognormal(3, 1, n))
    before = timeline.nbytes
    for i in range(30):
        timeline.percentiles(None, None, [50, 95, 99 + Fraction(i, 100)])
        timeline.check_invariants()
    assert 0 < timeline.nbytes - before <= n / 2
    timeline.expire_before(n - 10_000)
    assert timeline.nbytes < 10_000 * 40


# -- copies, snapshots, memory ----------------------------------------------------------------------------------------


def test_a_snapshot_stays_as_it_was() -> None:
    """What a snapshot shows is the moment it was taken, whatever is inserted, settled, expired or deleted meanwhile."""
    rng = np.random.default_rng(2)
    timeline = Timeline(8)
    timeline.insert(rng.integers(0, 100, 200), rng.random(200))
    expected = events_of(timeline.columns(None, None))
    snapshot = timeline.freeze(None, None).drain()
    walked = events_of(next(snapshot))
    timeline.insert(rng.integers(0, 200, 200), rng.random(200))
    timeline.delete(20, 40)
    walked += events_of(next(snapshot))
    timeline.expire_before(90)
    for piece in snapshot:
        assert len(piece[0]) <= 16 + 4
        walked += events_of(piece)
    assert walked == expected


def test_what_is_handed_out_does_no_harm() -> None:
    """Columns are the caller's to write to, a snapshot's pieces refuse it, and inputs are copied."""
    timeline = Timeline(4)
    ts_us, values = np.arange(10), np.arange(10.0)
    timeline.insert(ts_us, values)
    ts_us[:], values[:] = -1, -1
    for column in timeline.columns(None, None):
        column[:] = 77
    for piece in timeline.freeze(None, None).drain():
        for column in piece:
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 77
    assert events_of(timeline.columns(None, None)) == [(i, float(i)) for i in range(10)]
    timeline.check_invariants()


def test_contains_among_thousands_at_one_instant() -> None:
    """Pairs are found by value where all stamps are equal, in time that does not multiply."""
    timeline = Timeline()
    timeline.insert(np.zeros(20_000, np.int64), np.arange(20_000.0))
    asked = np.arange(0.0, 40_000.0, 4)
    assert timeline.contains(np.zeros(10_000, np.int64), asked).tolist() == (asked < 20_000).tolist()


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
def test_memory_is_small_and_given_back() -> None:
    """20 bytes an event in order, 28 in random order, near nothing after expiry; nbytes says about the same."""
    n = 200_000
    rng = np.random.default_rng(1)
    for order, limit in ((np.arange(n), 20), (rng.permutation(n), 28)):
        values = rng.random(n)
        tracemalloc.start()
        try:
            timeline = Timeline()
            for batch in np.array_split(order, 20):
                timeline.insert(batch, values[: len(batch)])
            timeline.summarise(None, None)
            held = traced()
            assert held < limit * n
            assert 0.9 < timeline.nbytes / held < 1.1
            timeline.expire_before(n - 100)
            assert len(timeline) == 100
            assert traced() < 10_000
        finally:
            tracemalloc.stop()


def test_a_small_series_is_small() -> None:
    """A series of ten events, one by one, asked once, takes less than 1,000 bytes."""
    ts_us, values = np.arange(10), np.arange(10.0)
    tracemalloc.start()
    try:
        before = traced()
        many = []
        for _ in range(200):
            timeline = Timeline()
            for i in range(10):
                timeline.insert(ts_us[i : i + 1], values[i : i + 1])
            timeline.summarise(None, None)
            many.append(timeline)
        assert (traced() - before) / len(many) < 1000
    finally:
        tracemalloc.stop()
