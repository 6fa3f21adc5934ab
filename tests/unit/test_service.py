"""The service over a shared journal: views agree, everything expires by itself, faults are told apart."""

from __future__ import annotations

import statistics
import threading
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statsapi.app import create_app
from statsapi.config import GRACE_US, Settings
from statsapi.engine.summary import Summary
from statsapi.errors import JournalDamaged, JournalUnavailable, ViewNotReady
from statsapi.journal import START, HistoryChanged, Lost, Mark, Proposal, Segment, time_after
from statsapi.journal.memory import MemoryJournal
from statsapi.metrics import CounterTable, Metrics
from statsapi.model import (
    HOUR_US,
    MIN_TS_US,
    MINUTE_US,
    SECOND_US,
    Deletion,
    EventBatch,
    IdempotencyKey,
    Part,
    Retention,
    Span,
    floor_us,
)
from statsapi.service import checkpoint
from statsapi.service.following import PACE_EVENTS, PACE_PAUSE_S
from statsapi.service.service import Service
from statsapi.service.view import View
from tests.fakes import FakeClock, Opening, SharedJournal, Skewed
from tests.servers import wait_until

KEEP_US = HOUR_US + GRACE_US


_dedup_values = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 5e-324]), st.floats(allow_nan=False, allow_infinity=False))
_dedup_events = st.tuples(st.sampled_from("ab"), st.integers(0, 2), _dedup_values)


def service_on(journal: Any, clock: Any) -> Service:
    return Service(Settings(journal="memory://"), lambda: journal, clock, background=False)


def summarise(service: Service, series: str = "default") -> Summary:
    """The default window, as GET /statistics asks for it."""
    reading = service.ask()
    store, now_us = reading.store, reading.now_us
    (span,) = reading.spans.meant([])
    return store.statistics(series, [span], now_us)[0].summary


def event(ts_us: int, value: float = 1.0, series: str = "default") -> EventBatch:
    return EventBatch.single(series, ts_us, value)


def test_events_expire_from_memory_and_journal(clock: FakeClock) -> None:
    """What is older than retention and grace goes from store and journal, while later events are recorded."""
    journal = SharedJournal(clock_us=clock)
    service = service_on(journal, clock)
    service.record(event(clock.now_us))
    service.keep_house()
    assert service.view().last_caught_up().sizes.event_count() == 1
    clock.advance(KEEP_US + MINUTE_US)
    service.record(event(clock.now_us))
    service.keep_house()
    assert service.view().last_caught_up().sizes.event_count() == 1
    with pytest.raises(HistoryChanged):
        journal.read(START)
    checkpoint = journal.read_checkpoint()
    assert checkpoint is not None
    assert journal.read(checkpoint.mark).records == 1


def many(first_us: int, events: int) -> EventBatch:
    ts_us = first_us - np.arange(events)
    return EventBatch((Part("default", ts_us, np.ones(events)),))


def test_who_records_much_applies_it(clock: FakeClock) -> None:
    """After PACE_EVENTS events a poster's own view is up to date when it is answered: a reader never has more than that
    to apply.
    """
    journal = SharedJournal(clock_us=clock)
    service, other = service_on(journal, clock), service_on(journal, clock)
    other.record(event(clock.now_us))
    service.view().catch_up()
    for recorded in range(1, 3 * PACE_EVENTS // 10_000):
        other.record(event(clock.now_us))  # of other workers as well
        service.keep_pace(service.record(many(clock.now_us, 10_000)))
        behind = 1 + recorded * 10_001 - service.view().last_caught_up().sizes.event_count()
        assert behind == 10_001 * (recorded % (PACE_EVENTS // 10_000))


def test_single_events_and_replays_do_not_pay(clock: FakeClock) -> None:
    """A single event does not make its poster catch up, and before the first replay is over nothing does."""
    journal = SharedJournal(clock_us=clock)
    service = service_on(journal, clock)
    with pytest.MonkeyPatch.context() as patched:
        catch_up = Mock(side_effect=ViewNotReady(1.0))
        patched.setattr(service.view(), "catch_up", catch_up)
        service.keep_pace(service.record(many(clock.now_us, PACE_EVENTS)))
        assert catch_up.call_count == 1  # the limits', and no second one to keep pace
    service.ask()
    for _ in range(10):
        service.keep_pace(service.record(event(clock.now_us)))
    assert service.view().last_caught_up().sizes.event_count() == PACE_EVENTS
    key = IdempotencyKey(b"key", b"digest", HOUR_US)
    batch = service.record(many(clock.now_us, PACE_EVENTS), key=key)  # its own thread has yet to keep pace
    service.keep_pace(service.record(event(clock.now_us)))
    service.keep_pace(service.record(many(clock.now_us, PACE_EVENTS), key=key))
    assert service.view().last_caught_up().sizes.event_count() == PACE_EVENTS
    service.keep_pace(batch)
    assert service.view().last_caught_up().sizes.event_count() == 2 * PACE_EVENTS + 11


def test_a_question_does_not_wait_for_what_comes_after_it(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where records come as fast as they are applied, catching up ends with what was there when it began."""
    journal = SharedJournal(clock_us=clock)
    service, other = service_on(journal, clock), service_on(journal, clock)
    service.ask()
    for _ in range(5):
        other.record(event(clock.now_us))
    read = journal.read

    def read_one_while_two_come(after: Mark, **limits: Any) -> Segment:
        segment = read(after, limit_records=1, **limits)
        for _ in range(2):
            other.record(event(clock.now_us))
        return segment

    with monkeypatch.context() as patched:
        patched.setattr(journal, "read", read_one_while_two_come)
        assert service.view().catch_up(wait_s=10.0).sizes.event_count() == 5
        patched.setattr(journal, "read", read)
        assert service.view().catch_up().sizes.event_count() == 15


def test_who_records_much_gives_way_to_a_view_that_lags(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poster of batches pauses while another worker's view is behind, but does not wait for a view that is stuck."""
    service, table = service_on(SharedJournal(clock_us=clock), clock), CounterTable(3)
    pauses: list[float] = []
    for slot in (0, 1, 2):
        table.assign(slot)
    service.metrics.share(table, 0)
    other, stopped = Metrics(), Metrics()
    other.share(table, 1)
    stopped.share(table, 2)
    stopped.caught_up(clock.monotonic_us() - 60 * SECOND_US)  # which must not hide the other
    service.ask()
    monkeypatch.setattr("statsapi.service.following.time.sleep", pauses.append)
    for lag_s, pause in ((0.2, []), (0.36, [PACE_PAUSE_S]), (1.0, [PACE_PAUSE_S]), (60.0, [])):
        other.caught_up(clock.monotonic_us() - int(lag_s * 1e6))
        service.keep_pace(service.record(many(clock.now_us, PACE_EVENTS)))
        assert pauses == pytest.approx(pause), lag_s
        service.keep_pace(service.record(event(clock.now_us)))  # never for single events
        assert len(pauses) == len(pause)
        pauses.clear()


def test_a_worker_that_records_nothing_follows(clock: FakeClock) -> None:
    """In the background a view applies what others recorded, although nobody asks it."""
    journal = SharedJournal(clock_us=clock)
    service = service_on(journal, clock)
    service.record(many(clock.now_us, 1000))
    follower = Service(Settings(journal="memory://"), lambda: journal, clock)
    follower.start()
    try:
        wait_until(lambda: follower.view().last_caught_up().sizes.event_count() == 1000, "the view to follow")
    finally:
        follower.close()


@pytest.mark.parametrize("failure", [JournalUnavailable("away"), MemoryError()])
def test_a_replay_that_fails_has_ended(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """Whatever it fails with: otherwise each reload waited for a worker that can never say that it is ready."""
    journal = SharedJournal(clock_us=clock)
    monkeypatch.setattr(journal, "read", Mock(side_effect=failure))
    service = Service(Settings(journal="memory://"), lambda: journal, clock)
    assert not service.has_begun()
    service.start()
    try:
        wait_until(service.has_begun, "the end of the replay")
    finally:
        service.close()


def test_an_append_counts_although_its_worker_cannot_follow(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is in the journal is acknowledged, whatever keeps its worker's view from catching up."""
    journal = SharedJournal(clock_us=clock)
    service = service_on(journal, clock)
    service.record(event(clock.now_us))
    service.view().catch_up()
    for failure in (JournalUnavailable("away"), MemoryError()):
        with monkeypatch.context() as patched:

            def fail(*args: Any, failure: BaseException = failure, **kwargs: Any) -> Any:
                raise failure

            patched.setattr(journal, "read", fail)
            service.keep_pace(service.record(many(clock.now_us, PACE_EVENTS)))
    assert summarise(service).count == 1 + 2 * PACE_EVENTS


def test_events_expire_when_nobody_does_anything(clock: FakeClock) -> None:
    """Without a read or a write, housekeeping alone empties store and journal, and then has nothing left to do."""
    journal = SharedJournal(clock_us=clock)
    services = [service_on(journal, clock) for _ in range(2)]
    for _ in range(100):
        services[0].record(event(clock.now_us))
    clock.advance(KEEP_US + MINUTE_US)
    for _ in range(3):
        for service in services:
            service.keep_house()
            assert service.view().last_caught_up().sizes.event_count() == 0
    checkpoint = journal.read_checkpoint()
    assert checkpoint is not None
    assert journal.read(checkpoint.mark).records == 1  # one tick, although two services keep house
    size = journal.size_bytes()
    for _ in range(200):
        clock.advance(MINUTE_US)
        services[0].keep_house()
    assert journal.size_bytes() <= size


def test_a_checkpoint_carries_what_is_stamped_ahead(clock: FakeClock) -> None:
    """An event from the future outlives the record that brought it."""
    journal = SharedJournal(clock_us=clock)
    service = service_on(journal, clock)
    service.record(event(clock.now_us + 24 * HOUR_US, 7.0))
    service.record(event(clock.now_us, 1.0))
    clock.advance(12 * HOUR_US)
    service.record(event(clock.now_us, 2.0))
    service.keep_house()
    assert journal.read_checkpoint() is not None
    for reader in (service, service_on(journal, clock)):
        summary = summarise(reader)
        assert (summary.count, summary.min, summary.max) == (2, 2.0, 7.0)


def test_deleted_events_stay_deleted_after_compaction(clock: FakeClock) -> None:
    """A deletion counts for what stood before it, in the checkpoint too; what came after it stays."""
    journal = SharedJournal(clock_us=clock)
    service = service_on(journal, clock)
    ahead_us = clock.now_us + 24 * HOUR_US
    service.record(event(ahead_us, 1.0))
    journal.append(Proposal(Deletion("default")))
    service.record(event(ahead_us, 2.0))
    clock.advance(2 * HOUR_US)
    service.record(event(clock.now_us, 3.0, "other"))
    service.keep_house()
    for reader in (service, service_on(journal, clock)):
        assert summarise(reader).max == 2.0
        assert summarise(reader).count == 1


def test_two_compactions_at_once(clock: FakeClock) -> None:
    """Of two workers that compact from the same checkpoint only one wins, and both go on giving the same answers."""
    journal = SharedJournal(clock_us=clock)
    first, second = (service_on(journal, clock) for _ in range(2))
    first.record(event(clock.now_us + 48 * HOUR_US, 5.0))
    clock.advance(2 * HOUR_US)
    first.record(event(clock.now_us, 6.0))
    views = [service.view() for service in (first, second)]
    for view in views:
        view.catch_up()
    barrier = threading.Barrier(2)
    won: list[bool] = []

    def compact(view: View) -> None:
        barrier.wait()
        won.append(view.compact())

    threads = [threading.Thread(target=compact, args=(view,)) for view in views]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, True]
    for reader in (first, second, service_on(journal, clock)):
        assert summarise(reader).count == 2


class _Replaced(SharedJournal):
    """A journal whose content can be exchanged, as a restored file does."""

    def become(self, other: MemoryJournal) -> None:
        with self._writing, self._lock:
            self._records, self._base, self._checkpoint = other._records, other._base, other._checkpoint


def test_a_view_starts_afresh_when_history_changed(clock: FakeClock) -> None:
    """After the journal was replaced by another, answers are the other's: neither the old nor a mixture."""
    journal, other = _Replaced(clock_us=clock), MemoryJournal(clock_us=clock)
    service = service_on(journal, clock)
    for value in (1.0, 2.0, 3.0):
        service.record(event(clock.now_us, value))
        other.append(Proposal(event(clock.now_us, 10 * value)))
    assert summarise(service).max == 3.0
    journal.become(other)
    assert summarise(service).max == 30.0
    assert summarise(service).count == 3


def view_of_five(journal: SharedJournal, clock: FakeClock) -> tuple[View, list[Lost]]:
    """A view of a journal to which five events are appended, and the losses that it will tell."""
    for value in range(1, 6):
        journal.append(Proposal(event(clock.now_us, value)))
    view = View(journal, Retention(KEEP_US))
    told: list[Lost] = []
    view.observe_lost = told.append
    return view, told


def test_a_record_that_is_read_and_then_denied_is_damage(clock: FakeClock) -> None:
    """A journal that a search misses and a walk finds: a view would begin afresh without end. Mended, it is right."""
    denies = True
    replays = 0

    class Denying(SharedJournal):
        def read(self, after: Mark, **options: Any) -> Segment:
            nonlocal replays
            replays += after == START
            if denies and after.position == 3:
                raise HistoryChanged("the record this view stands on is no longer in the journal")
            return super().read(after, **options | {"limit_records": 1})

    view, told = view_of_five(Denying(clock_us=clock), clock)
    for calls in (1, 2, 3):
        with pytest.raises(JournalDamaged, match=r"^the journal's record 3 is damaged \(it is there in one reading"):
            view.catch_up()
        assert replays <= 2 * calls
    denies = False
    assert view.catch_up().sizes.event_count() == 5
    assert told == []


def test_two_losses_at_one_mark_are_no_damage(clock: FakeClock) -> None:
    """The record at the mark stands, and what came after it is lost twice while the view catches up: both are told."""
    losses = [Lost(2, None, "flushed"), Lost(1, None, "flushed again")]

    class Losing(SharedJournal):
        def read(self, after: Mark, **options: Any) -> Segment:
            if after.position == 3 and losses:
                raise HistoryChanged("the last record known here is no longer in the journal", losses.pop(0))
            return super().read(after, **options | {"limit_records": 1})

    view, told = view_of_five(Losing(clock_us=clock), clock)
    assert view.catch_up().sizes.event_count() == 5
    assert [lost.how for lost in told] == ["flushed", "flushed again"]


@pytest.mark.parametrize(
    ("script", "lost", "damaged"),
    [
        (["b"], [2], 0),
        (["b", "a"], [], 0),  # it is the old one again
        (["b", "", "compacted"], [2], 0),  # which passes the view in the middle of its replay
        (["b", "", "empty"], [5], 0),
        (["b", "a", "", "", "", "", "b"], [2], 1),  # who meets that cannot tell it from damage, once
    ],
)
def test_a_loss_is_told_whatever_happens_in_the_replay(
    clock: FakeClock, script: list[str], lost: list[int], damaged: int
) -> None:
    """A view stands on the fifth of six records when another history takes the journal's place, and further ones while
    it reads that: it tells what it lost since it was level, and holds what a fresh view holds.
    """
    histories = {name: MemoryJournal(clock_us=clock) for name in ("a", "b", "compacted", "empty")}
    journal = _Scripted(clock)
    journal.become(histories["a"])
    for _ in range(5):
        histories["a"].append(Proposal(event(clock.now_us)))
    view = View(journal, Retention(KEEP_US))
    told: list[Lost] = []
    view.observe_lost = told.append
    view.catch_up()
    histories["a"].append(Proposal(event(clock.now_us)))
    for _ in range(2):
        histories["b"].append(Proposal(event(clock.now_us)))
    clock.advance(KEEP_US + MINUTE_US)
    histories["b"].append(Proposal(event(clock.now_us)))
    compacted, b = histories["compacted"], histories["b"]
    compacted._records = list(b._records)
    assert checkpoint.compact(compacted, Retention(KEEP_US), clock.now_us)
    journal.script = [histories.get(name) for name in script]
    refused = 0
    while journal.script or refused < damaged:
        try:
            view.catch_up()
        except JournalDamaged:
            refused += 1
    fresh = View(journal, Retention(KEEP_US))
    assert view.catch_up().sizes.event_count() == fresh.catch_up().sizes.event_count()
    assert view.position == fresh.position
    assert [each.records for each in told] == lost
    assert refused == damaged


class _Scripted(_Replaced):
    """Before each read the next history of the script takes the journal's place, if it is one. One record a read."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock_us=clock)
        self.script: list[MemoryJournal | None] = []

    def read(self, after: Mark, **options: Any) -> Segment:
        if self.script and (other := self.script.pop(0)) is not None:
            self.become(other)
        return super().read(after, **options | {"limit_records": 1})


def test_reads_wait_for_a_replay_and_then_give_up(clock: FakeClock) -> None:
    """While another thread replays, a read waits as long as it was told, then says ViewNotReady; later it works."""
    replaying, go_on = threading.Event(), threading.Event()

    class Slow(SharedJournal):
        def read(self, *args: Any, **kwargs: Any) -> Any:
            replaying.set()
            assert go_on.wait(30)
            return super().read(*args, **kwargs)

    view = View(Slow(clock_us=clock), Retention(KEEP_US))
    thread = threading.Thread(target=view.catch_up)
    thread.start()
    assert replaying.wait(30)
    with pytest.raises(ViewNotReady):
        view.catch_up(wait_s=0.01)
    go_on.set()
    thread.join()
    view.catch_up(wait_s=10)


def test_a_stop_does_not_wait_for_the_end_of_a_replay(clock: FakeClock) -> None:
    """A replay of minutes would keep a worker that is told to stop until graceful_timeout, or until Docker kills it."""
    replaying, go_on = threading.Event(), threading.Event()
    reads = []

    class OneByOne(SharedJournal):
        def read(self, after: Any, **options: Any) -> Any:
            reads.append(after)
            replaying.set()
            assert go_on.wait(30)
            return super().read(after, **options | {"limit_records": 1})

    journal = OneByOne(clock_us=clock)
    for _ in range(20):
        journal.append(Proposal(event(clock.now_us)))
    service = Service(Settings(journal="memory://"), lambda: journal, clock)
    service.start()
    assert replaying.wait(30)
    closing = threading.Thread(target=service.close)
    closing.start()
    wait_until(lambda: service._follower._closed, "the stop")
    go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert len(reads) <= 2  # one of the thread that follows, one of housekeeping


def test_a_replay_that_takes_too_long_goes_on_where_it_was(clock: FakeClock) -> None:
    """A reader that runs out of time keeps what was replayed: the next ones finish it."""

    class OneByOne(SharedJournal):
        def read(self, after: Any, **options: Any) -> Any:
            return super().read(after, **options | {"limit_records": 1})

    journal = OneByOne(clock_us=clock)
    service = service_on(journal, clock)
    for _ in range(20):
        service.record(event(clock.now_us))
    view = View(journal, Retention(KEEP_US))
    attempts = 1
    while True:
        try:
            store = view.catch_up(wait_s=0)
            break
        except ViewNotReady:
            attempts += 1
    assert 1 < attempts <= 21
    assert store.sizes.event_count() == 20


@pytest.mark.parametrize(("unknown", "outcome"), [(True, "unknown"), (False, "not recorded")])
def test_a_failing_journal_is_a_503(clock: FakeClock, unknown: bool, outcome: str) -> None:
    """A write that the journal refused is a 503 that says whether the event may have been recorded."""

    class Failing(SharedJournal):
        def append(self, *args: Any, **kwargs: Any) -> Any:
            raise JournalUnavailable("the disk is full", outcome_unknown=unknown)

    app = create_app(
        Settings(journal="memory://"),
        journal=lambda: Failing(clock_us=clock),
        clock_us=clock,
        background=False,
    )
    response = app.test_client().post("/event", json={"timestamp": 1763711100, "value": 1})
    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert response.headers["Retry-After"] == "1"
    assert response.get_json(force=True)["outcome"] == outcome
    assert "the disk is full" in response.get_json(force=True)["detail"]


def test_nothing_is_opened_before_the_first_use(clock: FakeClock) -> None:
    """create_app opens no journal (it may run before a fork), start opens one, and close ends its use for good."""
    opened = []

    def open_journal() -> MemoryJournal:
        opened.append(1)
        return MemoryJournal(clock_us=clock)

    app = create_app(Settings(journal="memory://"), journal=open_journal, clock_us=clock)
    assert opened == []
    service = app.extensions["statsapi"]
    service.start()
    service.start()
    assert opened == [1]
    service.close()
    service.close()
    with pytest.raises(JournalUnavailable):
        service.record(event(clock.now_us))


@pytest.mark.slow
def test_the_background_thread_keeps_house(clock: FakeClock) -> None:
    """With background=True nobody needs to call anything: what is due is done, and a fault does not end it."""
    journal = SharedJournal(clock_us=clock)
    journal.append(Proposal(event(clock.now_us)))
    clock.advance(KEEP_US + MINUTE_US)
    journal.append(Proposal(event(clock.now_us)))
    done = threading.Event()
    faults = [JournalUnavailable("once"), ZeroDivisionError("once")]

    class Watched(SharedJournal):
        def maintain(self) -> None:
            if faults:
                raise faults.pop()
            done.set()

    watched = Watched(clock_us=clock)
    watched._records, watched._appended_us = journal._records, journal._appended_us
    service = Service(Settings(journal="memory://"), lambda: watched, clock)
    service.start()
    assert done.wait(30)
    service.close()
    assert service.view().last_caught_up().sizes.event_count() == 1


def test_an_upkeep_that_fails_does_not_stop_the_others(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While compaction fails for good, the journal's own upkeep, which bounds what a power cut costs, goes on."""
    monkeypatch.setattr("statsapi.service.housekeeping.HOUSEKEEPING_INTERVAL_S", 0.01)
    upkeeps = threading.Semaphore(0)

    class Failing(SharedJournal):
        def read_checkpoint(self) -> Any:
            raise ZeroDivisionError("for good")

        def maintain(self) -> None:
            upkeeps.release()

    service = Service(Settings(journal="memory://"), lambda: Failing(clock_us=clock), clock)
    service.start()
    try:
        assert all(upkeeps.acquire(timeout=30) for _ in range(5))
    finally:
        service.close()


def test_a_replay_does_not_happen_under_the_write_lock(clock: FakeClock) -> None:
    """Deduplication and deletion catch up before they take the journal's write lock, which all writers wait for."""
    under_lock: list[int] = []

    class Watched(SharedJournal):
        deciding = False

        def append(self, proposal: Any, **options: Any) -> Any:
            self.deciding = True
            try:
                return super().append(proposal, **options)
            finally:
                self.deciding = False

        def read(self, *arguments: Any, **options: Any) -> Any:
            segment = super().read(*arguments, **options)
            if self.deciding:
                under_lock.append(segment.records)
            return segment

    journal = Watched(clock_us=clock)
    for _ in range(100):
        journal.append(Proposal(event(clock.now_us)))
    service_on(journal, clock).record(event(clock.now_us, 2.0), dedup=True)
    assert service_on(journal, clock).delete("default", Span(MIN_TS_US)) == 101
    assert under_lock == [0, 0]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), _dedup_values), min_size=1, max_size=40),
        max_size=4,
    )
)
def test_dedup_leaves_out_what_a_plain_set_holds(batches: list[list[tuple[str, int, float]]]) -> None:
    """However many events a batch has of a series, and however many are held."""
    clock = FakeClock()
    service, held = service_on(SharedJournal(clock_us=clock), clock), set[tuple[str, int, float]]()
    for batch in batches:
        parts = []
        for series in sorted({series for series, _, _ in batch}):
            rows = [(clock.now_us + ts_us, value) for name, ts_us, value in batch if name == series]
            ts_us, values = zip(*rows, strict=True)
            parts.append(Part(series, np.array(ts_us, np.int64), np.array(values, np.float64)))
        service.record(EventBatch(tuple(parts)), dedup=True)
        held |= set(batch)
        assert service.ask().store.sizes.event_count() == len(held)


def test_limits_do_not_wait_for_a_replay(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a view replays, an event of a series that it does not know yet is recorded."""
    monkeypatch.setattr("statsapi.service.admission.LIMIT_WAIT_S", 0.01)
    service = service_on(SharedJournal(clock_us=clock), clock)
    with service.view()._catching_up:
        service.record(event(clock.now_us))
    assert summarise(service).count == 1


# Several workers, wrong clocks, restarts, compactions: against a list.

_SERIES = ("default", "a")
_steps = st.one_of(
    st.tuples(
        st.just("record"),
        st.integers(0, 2),
        st.lists(
            st.tuples(
                st.sampled_from(_SERIES),
                st.integers(-150, 150).map(lambda minutes: minutes * MINUTE_US // 2 + minutes),
                st.floats(allow_nan=False, allow_infinity=False),
            ),
            max_size=4,
        ),
    ),
    st.tuples(
        st.just("delete"),
        st.integers(0, 2),
        st.sampled_from(_SERIES),
        st.integers(-100, 100),
        st.integers(0, 100),
    ),
    st.tuples(st.just("advance"), st.integers(0, 90)),
    st.tuples(st.just("keep_house"), st.integers(0, 2)),
    st.tuples(st.just("restart"), st.integers(0, 2)),
)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.lists(_steps, max_size=25), st.tuples(*[st.integers(-5, 5)] * 3))
def test_every_view_agrees_with_a_list(steps: list[Any], skews_s: tuple[int, int, int]) -> None:
    """Three workers with clocks some seconds apart give the very answers of a list of all events, at every step."""
    clock = FakeClock()
    journal = MemoryJournal(clock_us=clock)
    clocks = [Skewed(clock, skew_s * SECOND_US) for skew_s in skews_s]

    def start_service(worker: int) -> Service:
        return service_on(Opening(journal, clocks[worker]), clocks[worker])

    services = [start_service(worker) for worker in range(3)]
    recorded: list[tuple[str, int, float]] = []
    for step in steps:
        match step:
            case ("record", worker, events):
                by_series: dict[str, list[tuple[int, float]]] = {}
                for series, offset_us, value in events:
                    by_series.setdefault(series, []).append((clock.now_us + offset_us, value))
                    recorded.append((series, clock.now_us + offset_us, value))
                parts = tuple(
                    Part(series, np.array([e[0] for e in rows]), np.array([e[1] for e in rows]))
                    for series, rows in by_series.items()
                )
                services[worker].record(EventBatch(parts))
            case ("delete", _, series, start, minutes):
                start_us = floor_us(clock.now_us, MINUTE_US) + start * MINUTE_US
                end_us = start_us + minutes * MINUTE_US
                journal.append(Proposal(Deletion(series, start_us, end_us)))
                recorded = [e for e in recorded if not (e[0] == series and start_us <= e[1] < end_us)]
            case ("advance", minutes):
                clock.advance(minutes * MINUTE_US + 1)
            case ("keep_house", worker):
                services[worker].keep_house()
            case ("restart", worker):
                services[worker] = start_service(worker)
        for i, service in enumerate(services):
            for series in _SERIES:
                summary = summarise(service, series)
                now_us = time_after(clocks[i](), service.view().last_caught_up().appended_us)
                values = [v for s, ts_us, v in recorded if s == series and ts_us >= now_us - HOUR_US]
                assert summary.count == len(values)
                if values:
                    assert summary.mean == statistics.mean(values)
                    assert (summary.min, summary.max) == (min(values), max(values))
            store = service.view().last_caught_up()
            store.check_invariants()
