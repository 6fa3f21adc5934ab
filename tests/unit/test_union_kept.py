"""Answers over unions that are kept and brought up to date: they equal the answers of asking every series anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statsapi.engine import changes as changes_module
from statsapi.engine import percentiles as percentiles_module
from statsapi.engine import ranked as ranked_module
from statsapi.engine import timelines as timelines_module
from statsapi.engine import union_kept as kept_module
from statsapi.engine.answers import Statistics
from statsapi.engine.changes import Changes
from statsapi.engine.counted import SortedColumn
from statsapi.engine.groups import Answer, ask
from statsapi.engine.percentiles import interpolated, ranks_of, sample_of
from statsapi.engine.ranked import Ranked
from statsapi.engine.store import Store
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import Spans
from statsapi.journal import Events
from statsapi.model import DAY_US, MIN_TS_US, MINUTE_US, SECOND_US, Deletion, Percent, Retention, Span
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.patterns import Glob, Selection
from tests import oracles
from tests.stores import Insert, Pass, apply

START_US = 20_000 * DAY_US
RAW_US = 5 * MINUTE_US
PS: tuple[Percent, ...] = (25, 50, Fraction("99.9"))
NAMES = ["a1", "a2", "a3", "b1"]
ALL_A = Selection(globs=(Glob("a*"),))
EVERY = Selection()
NAMED = Selection(names=frozenset({"a1", "b1", "never held"}))


class Choose:
    """Chooses the series of a selection, also those that are named and not held, as the service does."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.matches = selection.matches
        self._catalogue = Catalogue()

    def chosen(self, held: Sequence[str]) -> list[str]:
        return sorted(self.selection.names.union(self._catalogue.chosen(held, self.selection)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every edge is met soon: of chunks, of what is known near a rank, of the window's edge and of what is noted."""
    monkeypatch.setattr(kept_module, "_SERIES_MIN", 1)
    monkeypatch.setattr(kept_module, "_EDGE_EVENTS", 8)
    monkeypatch.setattr(ranked_module, "_KEPT_VALUES", 2)
    monkeypatch.setattr(changes_module, "_EVENTS_MAX", 24)
    monkeypatch.setattr(percentiles_module, "_PARTITION_ALL", 2)
    monkeypatch.setattr(percentiles_module, "_SAMPLE_STEP", 2)
    monkeypatch.setattr(percentiles_module, "_kept_values", lambda _: 1)
    monkeypatch.setattr(timelines_module, "Timeline", partial(Timeline, chunk_events=4))


class Delete(NamedTuple):
    series: str
    first_s: int | None
    seconds: int


class Ask(NamedTuple):
    selection: Selection
    windows_s: tuple[int, ...]
    ps: tuple[Percent, ...]


values = st.sampled_from([0.0, -0.0, 1.5, 1.5, -7.25, 1e16, -1e16, 1e-300, 3.0]) | st.floats(
    allow_nan=False, allow_infinity=False
)
series = st.sampled_from(NAMES)
asks = st.builds(
    Ask,
    st.sampled_from([ALL_A, EVERY, NAMED]),
    st.sampled_from([(60,), (240,), (60, 240), (240, 230)]),
    st.sampled_from([(), PS]),
)
changes = st.one_of(
    st.builds(Insert, series, st.lists(st.tuples(st.integers(-300, 5), values), min_size=1, max_size=12)),
    st.builds(Insert, series, st.lists(st.tuples(st.integers(-70, 0), values), min_size=1, max_size=3)),
    st.builds(Delete, series, st.none() | st.integers(-300, 5), st.integers(1, 100)),
    st.builds(Pass, st.integers(1, 3), st.booleans()),
    st.builds(Pass, st.integers(1, 100), st.booleans()),
)


class Twin:
    """A store and a list, and each answer of the one compared with what the other says."""

    def __init__(self, rollup_us: int = 0) -> None:
        self.store = Store(Retention(RAW_US, rollup_us))
        self.now_us = START_US
        self.events: list[tuple[str, int, float]] = []
        self.looks = 0  # how often all series were looked at
        self.edge_looks = 0  # and how often of that at edges only
        self.meanwhile: Callable[[], None] | None = None  # what is done once, right after all were looked at
        sweep = self.store.sweep

        def counted(*args: Any, **options: Any) -> Any:
            self.looks += 1
            self.edge_looks += getattr(args[2], "spans", None) == Spans(())
            swept = sweep(*args, **options)
            if self.meanwhile is not None:
                meanwhile, self.meanwhile = self.meanwhile, None
                meanwhile()
            return swept

        self.store.sweep = counted  # type: ignore[method-assign]

    def looks_for(self, question: Ask) -> int:
        """Ask; how often all series were looked at for that."""
        before = self.looks
        self.ask(*question)
        return self.looks - before

    def insert(self, series: str, events: list[tuple[int, float]]) -> None:
        placed = [(self.now_us + at * SECOND_US, value) for at, value in events]
        apply(self.store, series, placed, self.now_us)
        self.events += [(series, ts, value) for ts, value in placed]

    def delete(self, series: str, first_s: int | None, seconds: int) -> None:
        if first_s is None:
            self.store.apply([Deletion(series)], self.now_us)
            self.events = [event for event in self.events if event[0] != series]
            return
        start_us = self.now_us + first_s * SECOND_US
        end_us = start_us + seconds * SECOND_US
        self.store.apply([Deletion(series, start_us, end_us)], self.now_us)
        self.events = [e for e in self.events if not (e[0] == series and start_us <= e[1] < end_us)]

    def pass_time(self, seconds: int, fold: bool) -> None:
        self.now_us += seconds * SECOND_US
        self.store.apply([], self.now_us)
        self.store.settle(self.now_us)
        if fold:
            self.store.expire()

    def ask(
        self, selection: Selection, windows_s: tuple[int, ...], ps: tuple[Percent, ...]
    ) -> Answer[list[Statistics]]:
        question = Spans(tuple(Span(self.now_us - window_s * SECOND_US) for window_s in windows_s), ps)
        answer = ask(self.store, Choose(selection), question, self.now_us)
        assert answer.matched == len([name for name in self.store.listing.names() if selection.matches(name)])
        for window_s, got in zip(windows_s, answer.total, strict=True):
            start_us = self.now_us - window_s * SECOND_US
            held = [value for name, ts, value in self.events if ts >= start_us and selection.matches(name)]
            assert got.summary == oracles.summary(held)
            assert got.percentiles == ([oracles.percentile(held, p) for p in ps] if held else [])
        return answer

    def do(self, step: Insert | Delete | Pass | Ask) -> None:
        match step:
            case Insert(series, events):
                self.insert(series, events)
            case Delete(series, first_s, seconds):
                self.delete(series, first_s, seconds)
            case Pass(seconds, fold):
                self.pass_time(seconds, fold)
            case Ask(selection, windows_s, ps):
                self.ask(selection, windows_s, ps)


@pytest.mark.slow
@settings(max_examples=4 * settings.default.max_examples)
@given(st.lists(changes, max_size=8), asks, st.lists(changes | asks, max_size=20), st.sampled_from([0, DAY_US]))
def test_an_answer_that_was_kept_is_that_of_all_events(
    before: list[Insert | Delete | Pass], question: Ask, steps: list[Insert | Delete | Pass | Ask], rollup_us: int
) -> None:
    """After each change, asked again: late events, deletions, folding, series that come and go, other questions."""
    twin = Twin(rollup_us)
    for step in [*before, question, question]:
        twin.do(step)
    for each in steps:
        twin.do(each)
        twin.do(question)
    twin.store.check_invariants()


def filled(series: int = 3, events: int = 120) -> Twin:
    """Series with an event every two seconds, and the first two questions asked."""
    twin = Twin()
    dice = np.random.default_rng(3)
    for i in range(series):
        twin.insert(f"a{i}", [(-2 * at, float(dice.normal())) for at in range(events)][::-1])
    assert [twin.looks_for(MINUTE), twin.looks_for(MINUTE)] == [1, 1]
    return twin


MINUTE = Ask(ALL_A, (60,), PS)


def test_a_window_that_slides_looks_at_the_series_where_its_edge_ends() -> None:
    """The series are not looked at for each question: the window moves by one of several events. Late events come into
    the kept edge, or before it.
    """
    twin = filled()
    looks = []
    for i in range(40):
        twin.pass_time(1, fold=False)
        twin.insert("a1", [(0, i / 7), (-59, i / 5), (-120, 1e9)])
        looks.append(twin.looks_for(MINUTE))
    assert 3 < sum(looks) < 20


@pytest.fixture
def all_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank ever leaves what is known."""
    monkeypatch.setattr(percentiles_module, "_PARTITION_ALL", 10_000)


def slid_past_its_edge() -> Twin:
    """So far that the next question looks for a new edge: the window's start is two seconds past the known one."""
    twin = filled()
    (known,) = (each.kept for each in twin.store.unions._asked)
    assert known is not None
    while known.edge.to_us >= twin.now_us - 58 * SECOND_US:
        twin.pass_time(1, fold=False)
        assert twin.looks_for(MINUTE) == 0
    twin.pass_time(4, fold=False)
    return twin


@pytest.mark.usefixtures("all_known")
def test_where_an_edge_ends_only_edges_are_looked_at() -> None:
    """Again and again while a window slides, with events that come late into any part of it."""
    twin = filled()
    for i in range(40):
        twin.pass_time(1, fold=i % 2 == 0)
        twin.insert("a1", [(0, i / 7)])
        twin.insert("a2", [(-58 + i % 7, i / 5), (-59, -i / 3)])
        twin.ask(*MINUTE)
    assert twin.looks == 2 + twin.edge_looks
    assert 3 < twin.edge_looks < 20


@pytest.mark.usefixtures("all_known")
def test_what_comes_while_edges_are_looked_at_counts() -> None:
    """Into the edge that was, into the new one, and elsewhere; then the window slides over all of it."""
    twin = slid_past_its_edge()
    late = [(at, at / 3) for at in range(-70, 1)]
    twin.meanwhile = lambda: twin.insert("a2", late[:23])
    assert twin.looks_for(MINUTE) == 1
    assert twin.edge_looks == 1
    for _ in range(5):
        twin.pass_time(1, fold=False)
        twin.ask(*MINUTE)


@pytest.mark.usefixtures("all_known")
def test_what_is_removed_before_or_while_edges_are_looked_at_does_not_count() -> None:
    """Before: between the old edge and the window's start. Meanwhile: in the window. All series are looked at then."""
    for delete in (lambda twin: twin.delete("a1", -63, 2), lambda twin: twin.delete("a1", -30, 9)):
        for meanwhile in (False, True):
            twin = slid_past_its_edge()
            if meanwhile:
                twin.meanwhile = partial(delete, twin)
            else:
                delete(twin)
            looks = twin.looks_for(MINUTE)
            assert (looks, twin.edge_looks) == (2, 1)
            twin.ask(*MINUTE)


@pytest.mark.usefixtures("all_known")
def test_more_than_is_noted_while_edges_are_looked_at_is_looked_for() -> None:
    """All series are looked at then."""
    twin = slid_past_its_edge()
    twin.meanwhile = lambda: twin.insert("a1", [(-i, 1.0) for i in range(30)])
    assert twin.looks_for(MINUTE) == 2
    twin.ask(*MINUTE)


@pytest.mark.usefixtures("all_known")
def test_an_edge_too_long_to_be_kept_ends_earlier() -> None:
    """Many events of the edge are of one instant. When a window slides past them, all series are looked at."""
    twin = slid_past_its_edge()
    for _ in range(3):
        twin.insert("a1", [(-58, 1.0)] * 20)
    lengths = []
    for _ in range(6):
        twin.pass_time(1, fold=False)
        twin.ask(*MINUTE)
        twin.ask(*MINUTE)
        lengths += [len(each.kept.edge.values) for each in twin.store.unions._asked if each.kept is not None]
    assert lengths
    assert max(lengths) <= 2 * 8 + 3


def test_what_stays_as_it_is_is_not_looked_at_again() -> None:
    """Nor where another series was written to, which is not asked about; nor for windows asked for together."""
    twin = filled()
    twin.insert("b1", [(0, 5.0)])
    assert twin.looks_for(MINUTE) == 0
    both = Ask(ALL_A, (60, 90), ())
    assert [twin.looks_for(both) for _ in range(3)] == [1, 1, 0]
    assert twin.looks_for(MINUTE) == 0


def test_an_event_that_was_removed_counts_no_more() -> None:
    """Out of the window: all series are looked at; from before it, none is."""
    twin = filled()
    twin.delete("a1", -100, 30)
    assert twin.looks_for(MINUTE) == 0
    twin.delete("a1", -30, 10)
    assert [twin.looks_for(MINUTE) for _ in range(3)] == [1, 1, 0]
    twin.delete("a2", None, 0)
    twin.insert("a2", [(-10, 7.0)])
    assert [twin.looks_for(MINUTE) for _ in range(3)] == [1, 1, 0]


def test_what_is_folded_or_dropped_before_the_window_costs_nothing() -> None:
    """A window's start is never before what was folded."""
    for rollup_us in (0, DAY_US):
        twin = Twin(rollup_us)
        for name in ("a1", "a2"):
            twin.insert(name, [(at, at / 7) for at in range(-240, 0, 7)])
        question = Ask(ALL_A, (240,), PS)
        looks = []
        for _ in range(30):
            twin.pass_time(3, fold=True)
            looks.append(twin.looks_for(question))
        assert looks[:3] == [1, 1, 0]
        assert sum(looks) < 15


def test_what_is_folded_just_before_all_series_are_looked_at_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """By then the window is older than the raw events. The answer comes from roll-ups, as it does when no answers are
    kept.
    """
    twin = Twin(DAY_US)
    for name in ("a1", "a2"):
        twin.insert(name, [(at, at / 7) for at in range(-240, 0, 7)])
    question = Spans((Span(START_US - 240 * SECOND_US),), PS)
    first = ask(twin.store, Choose(ALL_A), question, START_US)
    changes = twin.store.changes

    def fold_after(*args: Any) -> Any:
        instant = changes(*args)
        twin.pass_time(200, fold=True)
        return instant

    monkeypatch.setattr(twin.store, "changes", fold_after)
    second = ask(twin.store, Choose(ALL_A), question, START_US)
    monkeypatch.setattr(kept_module, "_SERIES_MIN", 99)
    assert second == ask(twin.store, Choose(ALL_A), question, START_US) != first
    assert all(each.kept is None for each in twin.store.unions._asked)


def test_what_was_dropped_by_a_later_clock_counts_no_more() -> None:
    """A question by a clock that is behind the one by which events were dropped begins before these."""
    twin = Twin()
    twin.insert("a1", [(at, at / 7) for at in range(-240, 0, 7)])
    question = Ask(ALL_A, (240,), PS)
    assert [twin.looks_for(question) for _ in range(3)] == [1, 1, 0]
    now_us = twin.now_us
    twin.pass_time(200, fold=True)
    horizon_us = twin.store.raw_from_us(twin.now_us)
    twin.now_us = now_us
    twin.events = [event for event in twin.events if event[1] >= horizon_us]
    assert 0 < len(twin.events) < 20
    assert [twin.looks_for(question) for _ in range(3)] == [1, 1, 0]


def test_series_that_come_and_go_are_counted() -> None:
    """A new one adds its events without a look, and `matched` is true at once."""
    twin = filled()
    twin.insert("a55", [(-5, 3.0), (-61, 4.0)])
    assert twin.looks_for(MINUTE) == 0
    assert twin.ask(*MINUTE).matched == 4
    twin.delete("a55", None, 0)
    assert twin.ask(*MINUTE).matched == 3


def test_more_than_is_noted_is_looked_for() -> None:
    """Many single events, or one batch that is larger than all that may be noted; and then it goes on."""
    for batches in ([1] * 60, [60], [25], [12, 12, 12]):
        twin = filled()
        for n in batches:
            twin.insert("a1", [(0, 0.0)] * n)
        assert [twin.looks_for(MINUTE) for _ in range(3)] == [1, 1, 0]


def test_a_rank_that_has_moved_away_is_looked_for() -> None:
    """More new values came on one side of it than are known there."""
    twin = filled()
    twin.insert("a1", [(0, 100.0)] * 6)
    assert [twin.looks_for(MINUTE) for _ in range(2)] == [1, 0]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the latest answers, none that is too large; memory tells of them."""
    twin = filled()
    of_minute = twin.store.unions.nbytes
    questions = [Ask(ALL_A, (60,), (p,)) for p in (1, 2, 3, 4)]
    twin.ask(*questions[0])
    twin.ask(*questions[0])
    monkeypatch.setattr(kept_module, "_BYTES_MAX", int(2.5 * (twin.store.unions.nbytes - of_minute)))
    monkeypatch.setattr(kept_module, "_ASKED_MAX", 3)
    for question in questions:
        twin.ask(*question)
        twin.ask(*question)
    assert [twin.looks_for(question) for question in reversed(questions)] == [0, 0, 1, 1]
    unions = twin.store.unions
    assert len(unions._asked) <= 3
    assert 0 < sum(each.kept is not None for each in unions._asked) <= 2
    assert 0 < unions.nbytes < 10_000
    assert twin.store.sizes.memory_bytes() > unions.nbytes
    monkeypatch.setattr(kept_module, "_BYTES_MAX", 10)
    assert [twin.looks_for(Ask(EVERY, (60,), PS)) for _ in range(4)] == [1, 1, 1, 1]


def test_nothing_is_kept_of_few_series_ends_or_spans_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions about few series, and about spans with an end, are answered as before."""
    twin = filled()
    start_us = twin.now_us - MINUTE_US
    for question in (Spans((Span(start_us),), PS, ends=True), Spans((Span(start_us, twin.now_us),), PS)):
        for _ in range(3):
            before = twin.looks
            ask(twin.store, Choose(ALL_A), question, twin.now_us)
            assert twin.looks == before + 1
    monkeypatch.setattr(kept_module, "_SERIES_MIN", 4)
    assert twin.looks_for(MINUTE) == 1


@pytest.mark.slow
def test_what_is_written_together_is_in_an_answer_together() -> None:
    """Under a writer thread, two series whose values cancel out: no sum differs from zero."""
    store = Store(Retention(RAW_US))
    for name in ("a1", "a2", "a3"):
        apply(store, name, [(START_US, 0.0)] * 30, START_US)
    question = Spans((Span(START_US),), (50,))
    chooser = Choose(ALL_A)
    records, written = threading.Semaphore(0), threading.Semaphore(0)
    stop = threading.Event()

    def write() -> None:
        value = 0.0
        while not stop.is_set():
            records.acquire()
            written.release()
            value += 1.0
            one, other = (
                Events(name, np.array([START_US]), np.array([signed]), np.array([START_US]))
                for name, signed in (("a1", value), ("a3", -value))
            )
            store.apply([one, other], START_US)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = set()
        for _ in range(200):
            records.release(3)
            for _ in range(3):
                written.acquire()
            (got,) = ask(store, chooser, question, START_US).total
            assert got.summary.sum == 0.0
            assert got.percentiles == [0.0]
            assert got.summary.count % 2 == 0
            counts.add(got.summary.count)
        assert len(counts) > 5
    finally:
        stop.set()
        records.release()
        writer.join()


some_values = st.lists(values | st.integers(-3, 3).map(float), min_size=1, max_size=40)


@pytest.mark.slow
@given(some_values, st.lists(st.tuples(st.booleans(), some_values), max_size=6), st.integers(0, 99))
def test_a_rank_that_is_found_is_the_right_one(
    held: list[float], steps: list[tuple[bool, list[float]]], seed: int
) -> None:
    """Of a bag of which little is known, while values come and go; what is near the first ranks is found."""
    dice = np.random.default_rng(seed)
    parts = np.array_split(dice.permutation(held), 3)
    columns = [SortedColumn(np.sort(part), sample_of(np.sort(part), i)) for i, part in enumerate(parts)]
    ranks = ranks_of(len(held), PS)
    ranked = Ranked.of(columns, (), len(held), ranks)
    for add, some in [(True, []), *steps]:
        if add:
            came, gone = some, []
        else:
            came, gone = [], [held[i] for i in dice.permutation(len(held))[: len(some)]]
        for value in gone:
            held.remove(value)
        held = held + came
        ranked = ranked.changed(np.array(came), np.array(gone))
        ordered = sorted(held)
        assert ranked.unknown.min() >= 0
        assert int(ranked.unknown.sum() + ranked.counts.sum()) == len(held)
        for rank in range(len(held)):
            found = ranked.at([rank])
            assert found is None or found == {rank: ordered[rank]}
        if held:
            found = ranked.at(ranks_of(len(held), PS))
            if found is not None:
                assert interpolated(len(held), found, PS) == [oracles.percentile(held, p) for p in PS]


class Note(NamedTuple):
    """So many events of a series are noted, or (0) a removal up to that instant."""

    series: str
    events: int
    end_us: int


notes = st.lists(st.builds(Note, series, st.integers(0, 30), st.integers(0, 9)), max_size=30)


@given(notes, st.sets(st.integers(0, 30)))
@example([Note("a", 1, 0), Note("a", 13, 0), Note("a", 12, 0)], {0, 2})  # the last two do not fit together
def test_what_came_since_a_mark_is_all_of_it_or_nothing(some: list[Note], marked: set[int]) -> None:
    """In order of arrival, of the series asked for, and how far removals reached."""
    noted = Changes()
    marks = []
    for at, note in enumerate(some):
        if at in marked:
            marks.append((at, noted.mark()))
        if note.events:
            noted.inserted(note.series, np.arange(note.events) + 100 * at, np.arange(0.5, note.events))
        else:
            noted.removed(note.end_us)
        for from_at, mark in marks:
            since = noted.since(mark)
            came = some[from_at : at + 1]
            total = sum(each.events for each in came)
            assert since is not None or total > 12  # half of what may be noted
            if since is None:
                continue
            for members in (frozenset(NAMES), frozenset(NAMES[:1]), frozenset[str]()):
                expected = [
                    100 * (from_at + i) + k
                    for i, each in enumerate(came)
                    if each.series in members
                    for k in range(each.events)
                ]
                ts_us, got = since.of(members)
                assert ts_us.tolist() == expected
                assert got.tolist() == [ts % 100 + 0.5 for ts in expected]
            assert since.removed_to_us == max([each.end_us for each in came if not each.events], default=MIN_TS_US)
    assert noted.nbytes < 100_000
