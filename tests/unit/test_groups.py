"""Questions over many series: the answer is that of one series with all their events, and of one instant."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statsapi.engine import buffer as buffer_module
from statsapi.engine import counted as counted_module
from statsapi.engine import percentiles as percentiles_module
from statsapi.engine import sealed as sealed_module
from statsapi.engine import store as store_module
from statsapi.engine import timeline as timeline_module
from statsapi.engine import timelines as timelines_module
from statsapi.engine.answers import Statistics
from statsapi.engine.counted import Selections
from statsapi.engine.groups import Answer, Grouping, ask
from statsapi.engine.histogram import Bins, Histogram
from statsapi.engine.rollup import Rollups
from statsapi.engine.store import Store
from statsapi.engine.sweep import PAUSE_S
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import Bounds, Question, Spans
from statsapi.engine.union_both import Both
from statsapi.engine.union_steps import Steps
from statsapi.errors import ViewBroken
from statsapi.journal import Events
from statsapi.model import DAY_US, MINUTE_US, Deletion, Percent, Retention, Span
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.names import tag_value
from statsapi.naming.patterns import Glob, Selection
from tests import oracles
from tests.stores import Insert, Pass, apply

START_US = 20_000 * DAY_US
RAW_US = 5 * MINUTE_US
PS: tuple[Percent, ...] = (0, 25, 50, Fraction("99.9"), 100)
NAMES = ["a", "b;host=x", "c;host=x", "d;host=y"]


class All:
    """Chooses every series of a selection, as the service does."""

    def __init__(self, selection: Selection = Selection()) -> None:  # noqa: B008 (frozen)
        self.selection = selection
        self.matches = selection.matches
        self.chosen = partial(Catalogue().chosen, selection=selection)


def chosen(selection: Selection) -> All:
    return All(selection)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few events make a chunk, a sorted column and a step of a sample: every edge is met soon."""
    monkeypatch.setattr(percentiles_module, "_PARTITION_ALL", 2)
    monkeypatch.setattr(percentiles_module, "_SAMPLE_STEP", 2)
    monkeypatch.setattr(counted_module, "_KEPT_BYTES_PER_EVENT", 1e6)
    monkeypatch.setattr(percentiles_module, "_kept_values", lambda _: 1)
    monkeypatch.setattr(timeline_module, "_COUNTS_KEPT_FROM", 0)
    monkeypatch.setattr(timelines_module, "Timeline", partial(Timeline, chunk_events=4))
    monkeypatch.setattr(timeline_module, "_SORTED_FROM", 2)
    monkeypatch.setattr(timeline_module, "UNSUMMED_EVENTS", 2)
    monkeypatch.setattr(buffer_module, "UNSUMMED_EVENTS", 2)
    monkeypatch.setattr(sealed_module, "_NEAR_CUT", 2)
    monkeypatch.setattr(sealed_module, "_NEAR_ENDS", 1)


class Delete(NamedTuple):
    series: str
    first_minute: int
    minutes: int


values = st.sampled_from([0.0, -0.0, 1.5, -7.25, 1e16, -1e16, 1e-300, 3.0]) | st.floats(
    allow_nan=False, allow_infinity=False
)
series = st.sampled_from(NAMES)
seconds = st.integers(-20 * 60, 30)
changes = st.one_of(
    st.builds(Insert, series, st.lists(st.tuples(seconds, values), min_size=1, max_size=9)),
    st.builds(Delete, series, st.integers(-20, 1), st.integers(1, 10)),
    st.builds(Pass, st.integers(1, 200), st.booleans()),
)


class Run:
    """The same changes to a store, to one in which all series are one, and to a list."""

    def __init__(self, steps: list[Insert | Delete | Pass], ask_between: Question[Any, Any] | None = None) -> None:
        """ask_between: what is asked after each change, so that much is remembered when the next change comes."""
        retention = Retention(RAW_US, DAY_US)
        self.store, self.one = Store(retention), Store(retention)
        self.now_us = START_US
        self.events: list[tuple[str, int, float]] = []
        for step in steps:
            if ask_between is not None:
                ask(self.store, chosen(Selection()), ask_between, self.now_us)
            match step:
                case Insert(name, events):
                    placed = [(self.now_us + at * 1_000_000, value) for at, value in events]
                    apply(self.store, name, placed, self.now_us)
                    apply(self.one, "all", placed, self.now_us)
                    self.events += [(name, ts, value) for ts, value in placed]
                case Delete(name, first, minutes):
                    start_us = (self.now_us // MINUTE_US + first) * MINUTE_US
                    end_us = start_us + minutes * MINUTE_US
                    self.store.apply([Deletion(name, start_us, end_us)], self.now_us)
                    self.events = [e for e in self.events if not (e[0] == name and start_us <= e[1] < end_us)]
                    # One series cannot forget some of its events: it begins again with those that are left.
                    self.one = Store(retention)
                    for _, ts, value in self.events:
                        apply(self.one, "all", [(ts, value)], self.now_us)
                case Pass(passed, fold):
                    self.now_us += passed * 1_000_000
                    for store in (self.store, self.one):
                        store.apply([], self.now_us)
                        store.settle(self.now_us)
                        if fold:
                            store.expire()


spans = st.tuples(st.integers(-25, 1), st.none() | st.integers(-25, 2))


@pytest.mark.slow
@settings(max_examples=4 * settings.default.max_examples)
@given(st.lists(changes, max_size=14), st.lists(spans, min_size=1, max_size=2), st.frozensets(series), st.booleans())
def test_a_union_is_one_series_with_all_the_events(
    steps: list[Insert | Delete | Pass], edges: list[tuple[int, int | None]], names: frozenset[str], ask_between: bool
) -> None:
    """Late events, roll-ups, deletions: summaries as statistics and fractions have them, percentiles as one series."""
    # Fixed spans, while time passes.
    minute = (START_US + sum(step.seconds for step in steps if isinstance(step, Pass)) * 1_000_000) // MINUTE_US
    asked = tuple(
        Span((minute + first) * MINUTE_US, None if last is None else (minute + last) * MINUTE_US)
        for first, last in edges
    )
    question = Spans(asked, PS, ends=True)
    run = Run(steps, question if ask_between else None)
    answer = ask(run.store, chosen(Selection(names)), question, run.now_us)
    assert answer.matched == len({name for name, _, _ in run.events if name in names or not names})
    for span, got in zip(asked, answer.total, strict=True):
        inside = [
            (name, ts, value)
            for name, ts, value in sorted(run.events, key=lambda e: (e[1], e[0]))
            if (name in names or not names) and span.start_us <= ts and (span.end_us is None or ts < span.end_us)
        ]
        held = [value for _, _, value in inside]
        assert got.summary == oracles.summary(held)
        if held:
            assert got.summary.mean == statistics.mean(held)
        raw_from_us = run.store.raw_from_us(run.now_us)
        if all(ts >= raw_from_us for _, ts, _ in inside):
            assert got.percentiles == ([oracles.percentile(held, p) for p in PS] if held else [])
            assert got.relative_errors == []
            assert (got.first, got.last) == ((held[0], held[-1]) if held else (None, None))
            assert got.rolled_up == ()
        else:
            last = inside[-1][1] >= raw_from_us
            assert (got.first, got.last) == (None, held[-1] if last else None)
            assert got.rolled_up == (("first",) if last else ("first", "last"))
            for value, error, p in zip(got.percentiles, got.relative_errors, PS, strict=True):
                true = oracles.exact_percentile(held, p)
                assert error is None or abs(Fraction(value) - true) <= Fraction(error) * abs(true)
    if not names:
        (first, *_) = asked
        (single,) = run.one.statistics("all", [first], run.now_us, PS)
        (united, *_) = answer.total
        assert united.percentiles == single.percentiles
        assert united.relative_errors == single.relative_errors


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples)
@given(st.lists(changes, max_size=12), st.booleans(), st.sampled_from(["name", "mean", "p50"]), st.integers(1, 5))
def test_groups_are_unions_of_their_own(
    steps: list[Insert | Delete | Pass], descending: bool, order: str, limit: int
) -> None:
    """Each group is what a question about its series alone gives; in order, equal ones by key, those without last."""
    run = Run(steps)
    span = Span(run.now_us - 3 * MINUTE_US)
    question = Spans((span,), PS)

    def mean(answer: Statistics) -> float | None:
        return answer.summary.mean

    def median(answer: Statistics) -> float | None:
        return answer.percentiles[0] if answer.percentiles else None

    value = {"name": None, "mean": mean, "p50": median}[order]
    first = Spans((span,), (50,))
    held = run.store.listing.names()
    for key_of, keys in (
        (lambda name: name, list(held)),
        (
            lambda name: tag_value(name, "host"),
            sorted({tag_value(n, "host") for n in held}, key=lambda k: (k is None, k)),
        ),
    ):
        grouping = Grouping(key_of, value, descending, percentiles=(50,) if order == "p50" else (), limit=limit)
        answer = ask(run.store, chosen(Selection()), question, run.now_us, grouping)
        assert answer.total == ask(run.store, chosen(Selection()), question, run.now_us).total
        alone = {}
        for key in keys:
            names = frozenset(name for name in held if key_of(name) == key)
            alone[key] = ask(run.store, chosen(Selection(names)), question, run.now_us)
        expected = keys[::-1] if descending and value is None else keys
        if value is not None:
            values_by_key = {}
            for key in keys:
                names = frozenset(name for name in held if key_of(name) == key)
                values_by_key[key] = value(ask(run.store, chosen(Selection(names)), first, run.now_us).total[0])
            with_value = [key for key in keys if values_by_key[key] is not None]
            with_value.sort(key=values_by_key.__getitem__, reverse=descending)
            expected = with_value + [key for key in keys if key not in with_value]
        assert [group.key for group in answer.groups] == expected[:limit]
        assert answer.groups_total == len(keys)
        for group in answer.groups:
            assert group.answer == alone[group.key].total
            assert group.series == alone[group.key].matched


@pytest.mark.parametrize("kind", [Spans, Steps, Histogram])
def test_only_groups_that_are_shown_are_answered(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every other group only the one percentile of the order is computed."""
    store = Store(Retention(RAW_US))
    for i in range(9):
        apply(store, f"s{i}", [(START_US, float(i)), (START_US, 10.0 + i)], START_US)
    span = Span(START_US)
    questions: dict[type[Any], Question[Any, Any]] = {
        Spans: Spans((span, Span(START_US - 1)), PS),
        Steps: Both(Spans((span,), (95,)), Steps(span, MINUTE_US, 3, PS)),
        Histogram: Histogram(span, 4),
    }
    united: list[int] = []
    unite = kind.unite

    def count_and_unite(self: Any, parts: Sequence[Any], **more: Any) -> Any:
        united.append(len(parts))
        return unite(self, parts, **more)

    monkeypatch.setattr(kind, "unite", count_and_unite)
    placed: list[Statistics] = []

    def p95(answer: Statistics) -> float:
        placed.append(answer)
        return answer.percentiles[0]

    grouping = Grouping(str, p95, descending=True, percentiles=(95,), limit=2)
    answer = ask(store, chosen(Selection()), questions[kind], START_US, grouping)
    assert [group.key for group in answer.groups] == ["s8", "s7"]
    assert united == [9, 1, 1]
    assert [each.percentiles for each in placed] == [[i + 9.5] for i in range(9)]


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples * 3 // 2)
@given(st.lists(changes, max_size=12), st.integers(-25, 0), st.integers(1, 6), st.integers(1, 9), st.booleans())
def test_each_step_of_a_chart_is_a_span_of_its_own(
    steps: list[Insert | Delete | Pass], first: int, length: int, n_steps: int, ends: bool
) -> None:
    """Over raw events, over roll-ups, and where one passes into the other; as total and in groups."""
    run = Run(steps)
    start_us = (run.now_us // MINUTE_US + first) * MINUTE_US
    step_us = length * MINUTE_US
    starts_us = [start_us + i * step_us for i in range(n_steps)]
    spans = [Span(*pair) for pair in zip(starts_us, [*starts_us[1:], None], strict=True)]
    by_host = Grouping(lambda name: tag_value(name, "host"))
    chart = ask(run.store, chosen(Selection()), Steps(Span(start_us), step_us, n_steps, PS, ends), run.now_us, by_host)
    apart = ask(run.store, chosen(Selection()), Spans(tuple(spans), PS, ends), run.now_us, by_host)
    assert chart == apart


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples * 3 // 2)
@given(
    st.lists(changes, max_size=12),
    st.integers(-25, 1),
    st.integers(1, 12),
    st.frozensets(values, max_size=5).map(lambda some: tuple(sorted({value + 0.0 for value in some}))),
)
def test_a_histogram_counts_each_value_once(
    steps: list[Insert | Delete | Pass], first: int, bins: int, edges: tuple[float, ...]
) -> None:
    """Exactly, by given edges or equal widths, while all is raw; by the sketch's edges else."""
    run = Run(steps)
    start_us = (run.now_us // MINUTE_US + first) * MINUTE_US
    got = ask(run.store, chosen(Selection()), Histogram(Span(start_us), bins, edges), run.now_us).total
    held = [value for _, ts, value in run.events if ts >= start_us]
    assert got.statistics.summary == oracles.summary(held)
    assert sum(got.counts) + got.below + got.above == len(held)
    assert got.of_sketch == any(start_us <= ts < run.store.raw_from_us(run.now_us) for _, ts, _ in run.events)
    if not held:
        return
    between = list(zip(got.edges, got.edges[1:], strict=False))
    assert len(between) == len(got.counts)
    if got.of_sketch:
        if edges:
            assert got.edges == sorted(set(got.edges))
        else:
            assert (got.edges[0], got.edges[-1]) == (min(held), max(held))
            assert len(got.counts) <= bins
        for (low, high), count in zip(between, got.counts, strict=True):
            assert sum(low < value < high for value in held) <= count <= sum(low <= value <= high for value in held)
        lowest, highest = got.edges[0], got.edges[-1]
        assert sum(value < lowest for value in held) <= got.below <= sum(value <= lowest for value in held)
        assert sum(value > highest for value in held) <= got.above <= sum(value >= highest for value in held)
        return
    assert got.edges == (list(edges) or got.edges)
    expected = [sum(low <= value < high for value in held) for low, high in between]
    if expected:
        expected[-1] += held.count(got.edges[-1])
    assert got.counts == expected
    assert got.below == sum(value < got.edges[0] for value in held)
    if not edges:
        least, most = Fraction(min(held)), Fraction(max(held))
        assert (got.edges[0], got.edges[-1]) == (min(held), max(held))
        exact = [float(least + (most - least) * i / bins) for i in range(bins + 1)]
        assert set(got.edges) == set(exact)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spread", "few values", "rising", "late"])
def test_spans_that_cut_every_chunk_select_among_what_they_keep(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut on the left, on the right, on both sides, again and again as a window slides; equal values, trends, late
    events; real sizes of samples.
    """
    monkeypatch.undo()
    monkeypatch.setattr(timelines_module, "Timeline", partial(Timeline, chunk_events=512))
    dice = np.random.default_rng(7)
    store = Store(Retention(RAW_US))
    stamps, held = [], []
    for i in range(40):
        ts_us = np.sort(dice.integers(0, RAW_US, 1100 + i))
        some = dice.lognormal(3, 1, len(ts_us))
        if kind == "few values":
            some = np.floor(some / 20)
        elif kind == "rising":
            some = ts_us.astype(np.float64) + dice.integers(0, 9, len(ts_us))
        parts = [slice(None)] if kind != "late" else [slice(None, None, 2), slice(1, None, 2)]
        for part in parts:
            n = len(ts_us[part])
            store.apply([Events(f"s{i}", START_US + ts_us[part], some[part], np.full(n, START_US))], START_US)
        stamps.append(ts_us)
        held.append(some)
    ts_us, values = np.concatenate(stamps), np.concatenate(held)
    ps: tuple[Percent, ...] = (0, 1, 50, 95, Fraction("99.9"), 100)
    twice = (100, None), (100, None), (101, None), (100, None), (100, 250), (100, 250), (100, 250)
    for start, end in (*twice, (150, 151), (0, 200), (0, None), (0, None), (-5, 400)):
        span = Span(START_US + start * 1_000_000, None if end is None else START_US + end * 1_000_000)
        inside = values[(ts_us >= start * 1_000_000) & (ts_us < (end or 10**6) * 1_000_000)].tolist()
        (got,) = ask(store, chosen(Selection()), Spans((span,), ps), START_US).total
        assert got.summary == oracles.summary(inside)
        assert got.percentiles == [oracles.percentile(sorted(inside), p) for p in ps]


def test_a_logarithmic_histogram_has_equal_ratios() -> None:
    """Its bins have equal ratios. There is none for values that have no logarithm."""
    store = Store(Retention(RAW_US))
    apply(store, "a", [(START_US, 10.0**i) for i in range(5)], START_US)
    question = Histogram(Span(START_US), bins=4, log=True)
    got = ask(store, chosen(Selection()), question, START_US).total
    assert got.edges == pytest.approx([1, 10, 100, 1000, 10_000])
    assert sum(got.counts) == 5
    apply(store, "b", [(START_US, 0.0)], START_US)
    with pytest.raises(ValueError, match=r"needs positive values, and the least one is 0\.0"):
        ask(store, chosen(Selection()), question, START_US)


@pytest.mark.parametrize("later_us", [0, 20 * MINUTE_US])
@pytest.mark.parametrize("edges", [(), (1.0,), (1.0, 2.0)])
@pytest.mark.parametrize("held", [[-2.0], [-2.0, -2.0], [-2.0, 3.0], [0.0]])
def test_no_logarithmic_scale_has_values_that_are_not_positive(
    held: list[float], edges: tuple[float, ...], later_us: int
) -> None:
    """One value or many, with edges given or not, raw or rolled up: the error is the same."""
    store = Store(Retention(RAW_US, DAY_US))
    apply(store, "a", [(START_US, value) for value in held], START_US)
    question = Histogram(Span(START_US), 4, edges, log=True)
    with pytest.raises(ValueError, match=rf"the least one is {min(held)}"):
        ask(store, chosen(Selection()), question, START_US + later_us)
    assert not store.broken


@pytest.mark.parametrize(
    ("held", "bins", "counts"),
    [
        ([1e-300, 1.0, 5.0, 1e300], 2, None),
        ([1e-300, 1.0, 5.0, 1e300], 1, [4]),
        ([-1.0, 0.0, 1.0], 1, [3]),
        ([0.0, 5e-324], 20, [2]),
        ([-1.0, 0.0], 20, None),
        ([7.0, 7.0], 3, [2]),
    ],
)
def test_there_are_no_more_bins_over_roll_ups_than_asked_for(
    held: list[float], bins: int, counts: list[int] | None
) -> None:
    """Gaps between buckets are bins only while there is room, and a bucket of one number is none of its own."""
    store = Store(Retention(RAW_US, DAY_US))
    apply(store, "a", [(START_US, value) for value in held], START_US)
    got = ask(store, chosen(Selection()), Histogram(Span(START_US), bins), START_US + 20 * MINUTE_US).total
    assert got.of_sketch
    assert len(got.counts) <= bins
    assert counts is None or got.counts == counts
    assert sum(got.counts) == len(held)
    assert (got.edges[0], got.edges[-1]) == (min(held), max(held))
    assert got.edges == sorted(set(got.edges)) or len(set(held)) == 1


def test_edges_given_over_roll_ups_move_to_the_nearest_buckets() -> None:
    """An edge that cuts no bucket stays. One that does moves to the end of its bucket, and the answer says so. Edges
    that become one are given once.
    """
    store = Store(Retention(RAW_US, DAY_US))
    held = [float(i) for i in range(1, 1001)]
    apply(store, "a", [(START_US, value) for value in held], START_US)
    now_us = START_US + 20 * MINUTE_US

    def bins(*edges: float) -> Bins:
        return ask(store, chosen(Selection()), Histogram(Span(START_US), 20, edges), now_us).total

    got = bins(0.0, 10.5, 100.25, 500.0, 2000.0)
    assert got.of_sketch
    assert (got.edges[0], got.edges[1], got.edges[-1]) == (0.0, 10.5, 2000.0)
    assert got.edges[2:4] == pytest.approx([100.25, 500.0], rel=0.01)
    assert got.counts[0] == 10
    assert sum(got.counts) == 1000
    got = bins(500.0, 500.001, 900.0)
    assert len(got.edges) == 2
    assert [got.below, got.above] == [pytest.approx(499, abs=6), pytest.approx(100, abs=10)]
    got = bins(10.5)
    assert (got.edges, got.counts, got.below, got.above) == ([10.5], [], 10, 990)


def test_nothing_that_matches_is_an_empty_answer() -> None:
    """Of an empty store, and of a name that is not held: a count of 0, and no groups but for the name."""
    store = Store(Retention(RAW_US))
    question = Spans((Span(START_US),), PS, ends=True)
    empty = Statistics(oracles.summary([]), [])
    assert ask(store, chosen(Selection()), question, START_US) == Answer(0, [empty])
    assert ask(store, chosen(Selection(globs=(Glob("x*"),))), question, START_US, Grouping(str)) == Answer(0, [empty])


@pytest.mark.slow
def test_however_far_a_view_has_folded_the_answer_is_the_same() -> None:
    """One store that folds nothing, and one that folds all it may, over values of many decades."""
    dice = np.random.default_rng(5)
    stores = [Store(Retention(RAW_US, DAY_US)) for _ in range(2)]
    now_us = START_US
    for minute in range(20):
        now_us = START_US + minute * MINUTE_US
        for name in NAMES:
            n = int(dice.integers(0, 900))
            ts_us = now_us - dice.integers(0, 3 * MINUTE_US, n)
            some = dice.choice([-1.0, 1.0], n) * 10.0 ** dice.uniform(-9, 9, n)
            for store in stores:
                if n:
                    store.apply([Events(name, ts_us, some, np.full(n, now_us))], now_us)
        stores[1].settle(now_us)
        stores[1].expire()
    stores[0].settle(now_us)
    question = Spans((Span(START_US), Span(now_us - RAW_US)), PS, ends=True)
    first, second = (ask(store, chosen(Selection()), question, now_us) for store in stores)
    assert first == second
    assert first.total[0].relative_errors
    assert not first.total[1].relative_errors


def in_turns(store: Store, changes: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody always waited for the lock: after each series others are let in, and one change is made."""
    monkeypatch.setattr(store_module, "SLICE_S", -1.0)
    monkeypatch.setattr(store._lock, "waiting", [None])

    def sleep(seconds: float) -> None:
        if changes and seconds == PAUSE_S and not changing.locked():
            with changing:
                changes.pop(0)()

    changing = threading.Lock()
    monkeypatch.setattr("statsapi.engine.store.time.sleep", sleep)


def test_what_is_changed_meanwhile_is_in_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inserts, deletions, folding, series that come and go after each visit: the answer is that of its beginning."""
    store = Store(Retention(RAW_US, DAY_US))
    now_us = START_US
    names = [f"s{i}" for i in range(8)]
    for i, name in enumerate(names):
        apply(store, name, [(now_us - at * 40_000_000, float(at + i)) for at in range(12)], now_us)
    question = Spans((Span(now_us - 10 * MINUTE_US), Span(now_us - RAW_US)), PS, ends=True)
    before = ask(store, chosen(Selection()), question, now_us, Grouping(str))

    def insert() -> None:
        for name in ("s0", "s7", "s55"):
            apply(store, name, [(now_us, 1e6)], now_us)

    def begin_anew() -> None:
        store.apply([Deletion("s5")], now_us)
        apply(store, "s5", [(now_us, -1e6)], now_us)

    def fold() -> None:
        store.apply([], now_us + 8 * MINUTE_US)
        store.settle(now_us + 8 * MINUTE_US)
        store.expire(now_us + MINUTE_US)

    changes: list[Callable[[], object]] = [
        insert,
        begin_anew,
        fold,
        lambda: store.apply([Deletion("s6")], now_us),
        insert,
    ]
    with monkeypatch.context() as patch:
        in_turns(store, changes, patch)
        meanwhile = ask(store, chosen(Selection()), question, now_us, Grouping(str))
    assert not changes
    assert meanwhile == before
    assert not store._held.sweeps
    assert ask(store, chosen(Selection()), question, now_us, Grouping(str)) != before


class Looks(NamedTuple):
    """A question that notes which series it has looked at, by their counts."""

    looked_at: list[int]
    then: Callable[[], object]

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], int]:
        def look(timeline: Timeline, rollups: Rollups) -> int:
            self.looked_at.append(len(timeline))
            self.then()
            return len(timeline)

        return look

    def unite(self, parts: Sequence[int], *, selections: Selections | None = None) -> int:
        return sum(parts)

    def place(self, parts: Sequence[int], percentiles: Sequence[Percent]) -> Statistics:
        pytest.fail("no answer is put in order here")


def test_who_waits_for_the_lock_is_let_in_before_the_next_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question lets others in when its slice is over, and never when nobody waits."""
    store = Store(Retention(RAW_US))
    for i in range(3):
        apply(store, f"s{i}", [(START_US, 1.0)] * (i + 1), START_US)
    monkeypatch.setattr(store_module, "SLICE_S", -1.0)
    pauses: list[list[int]] = []
    others: list[threading.Thread] = []
    looked_at: list[int] = []

    def begin_to_wait() -> None:
        if not others:
            others.append(threading.Thread(target=store.listing.names))
            others[0].start()
            while not store._lock.waiting:
                assert others[0].is_alive()

    asking = threading.current_thread()

    def sleep(seconds: float) -> None:
        if seconds == PAUSE_S and threading.current_thread() is asking:
            pauses.append(list(looked_at))
            others[0].join()

    monkeypatch.setattr("statsapi.engine.store.time.sleep", sleep)
    assert ask(store, chosen(Selection()), Looks(looked_at, begin_to_wait), START_US).total == 6
    assert pauses == [[1]]
    assert looked_at == [1, 2, 3]
    assert not store._lock.waiting


@pytest.mark.slow
def test_two_series_that_are_always_written_together_never_differ() -> None:
    """Under a writer thread, in one record or two of one stretch: count and sum of both are the same in each answer."""
    store = Store(Retention(RAW_US))
    fill = [f"m{i}" for i in range(300)]
    for name in fill:
        apply(store, name, [(START_US, 0.0)], START_US)
    stop = threading.Event()
    # This many for each question: a writer without bound would make each question slower than the one before.
    records = threading.Semaphore(0)

    def write() -> None:
        value = 0.0
        while not stop.is_set():
            records.acquire()
            value += 1.0
            one = np.array([START_US]), np.array([value]), np.array([START_US])
            store.apply([Events("a", *one), Events("z", *one), Events("m150", *one)], START_US)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = set()
        for _ in range(60):
            records.release(300)
            answer = ask(
                store, chosen(Selection()), Spans((Span(START_US),), (50,)), START_US, Grouping(str, limit=999)
            )
            by_name = {group.key: group.answer[0] for group in answer.groups}
            if "a" in by_name:
                assert by_name["a"] == by_name["z"]
                assert by_name["m150"].summary.sum == by_name["a"].summary.sum
                assert answer.total[0].summary.count == 3 * by_name["a"].summary.count + len(fill)
                counts.add(by_name["a"].summary.count)
        assert len(counts) > 5
    finally:
        stop.set()
        records.release()
        writer.join()
    assert not store._held.sweeps


def test_what_is_raised_while_choosing_leaves_the_store_whole() -> None:
    """A question that fails outside the lock is forgotten; one inside breaks the store, as each does."""
    store = Store(Retention(RAW_US))
    apply(store, "a", [(START_US, 1.0)], START_US)

    def fail(held: Sequence[str]) -> list[str]:
        raise ZeroDivisionError

    failing = All()
    failing.chosen = partial(fail)

    with pytest.raises(ZeroDivisionError):
        ask(store, failing, Spans((Span(START_US),)), START_US)
    assert not store.broken
    assert not store._held.sweeps

    class Broken(Spans):
        def looker(self, bounds):  # type: ignore[no-untyped-def]
            return lambda timeline, rollups: 1 / 0

    with pytest.raises(ZeroDivisionError):
        ask(store, chosen(Selection()), Broken((Span(START_US),)), START_US)
    with pytest.raises(ViewBroken):
        ask(store, chosen(Selection()), Spans((Span(START_US),)), START_US)
    assert not store._held.sweeps
