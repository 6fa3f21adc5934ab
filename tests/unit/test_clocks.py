"""Clocks that jump, and what that may cost: nothing, unless a jump stays. Against a list of all events."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statsapi.app import create_app
from statsapi.clocks import SETTLE_US, Sample, SettledClock
from statsapi.config import GRACE_US, Settings
from statsapi.journal import Journal, Proposal, open_journal, sqlite_keeper
from statsapi.journal.memory import MemoryJournal
from statsapi.metrics import CounterTable, Metrics
from statsapi.model import (
    DAY_US,
    HOUR_US,
    MIN_TS_US,
    MINUTE_US,
    SECOND_US,
    Deletion,
    EventBatch,
    IdempotencyKey,
    Part,
    Span,
)
from statsapi.service.admission import Recorded
from statsapi.service.service import Service
from statsapi.service.view import View
from statsapi.times import format_timestamp, parse_timestamp_us
from tests import oracles
from tests.fakes import FakeClock, Opening, SharedJournal, Skewed

KEEP_US = HOUR_US + GRACE_US
DAYS3_US = 3 * DAY_US

Open = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Housekeeping lets nobody in between: it runs 13,000 times here, and nobody waits."""
    monkeypatch.setattr(sqlite_keeper, "STEP_PAUSE_S", 0)


@pytest.fixture(params=["memory", "sqlite"])
def open_shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one journal for several workers, each with a clock of its own."""
    if request.param == "memory":
        journal = MemoryJournal()
        yield lambda clock: Opening(journal, clock)
        return
    opened: list[Journal] = []

    def open_file(clock: Any) -> Journal:
        opened.append(open_journal(f"sqlite:///{tmp_path}/events.db", clock_us=clock))
        return opened[-1]

    yield open_file
    for each in opened:
        each.close()


class World:
    """Workers on one journal, each with a clock of its own that goes with the true time, and every event there was."""

    def __init__(self, open_shared: Open, workers: int = 2, *, stood: bool = True, **options: Any) -> None:
        self.open_shared = open_shared
        self.options = options
        self.true = FakeClock(stood=stood)
        self.clocks = [Skewed(self.true, stood=stood) for _ in range(workers)]
        self.services = [self.start(worker) for worker in range(workers)]
        self.events: list[tuple[int, float]] = []

    def start(self, worker: int) -> Service:
        clock = self.clocks[worker]
        journal = self.open_shared(clock)
        return Service(Settings(journal="memory://", **self.options), lambda: journal, clock, background=False)

    def restart(self) -> None:
        """All workers anew, on a machine of which nobody has seen a clock stand."""
        for worker, clock in enumerate(self.clocks):
            self.services[worker].close()
            clock.earlier = []
            self.services[worker] = self.start(worker)

    def step(self, us: int, *workers: int) -> None:
        for worker in workers or range(len(self.clocks)):
            self.clocks[worker].step(us)

    def record(self, worker: int = 0, ago_us: int = 0, value: float = 1.0, **options: Any) -> Recorded:
        """An event whose client knows the true time; what came of it."""
        ts_us = self.true() - ago_us
        seen: list[Recorded] = []

        def answer(recorded: Recorded) -> bytes:
            seen.append(recorded)
            return b""

        self.services[worker].record(EventBatch.single("default", ts_us, value), answer, **options)
        self.events.append((ts_us, value))
        return seen[0]

    def keep_house(self) -> None:
        for service in self.services:
            service.keep_house()

    def pass_time(self, us: int, every_us: int = MINUTE_US) -> None:
        """Time goes by, with housekeeping on every worker."""
        for _ in range(us // every_us):
            self.true.advance(every_us)
            self.keep_house()

    def check(self, *windows_us: int) -> None:
        """Every worker's answer is that of the list, over the span that it says."""
        for service in self.services:
            reading = service.ask()
            store, now_us = reading.store, reading.now_us
            for span in reading.spans.meant(windows_us):
                (answer,) = store.statistics("default", [span], now_us)
                held = [value for ts_us, value in self.events if ts_us >= span.start_us]
                assert answer.summary == oracles.summary(held), (
                    format_timestamp(max(span.start_us, MIN_TS_US)),
                    len(held),
                )
            store.check_invariants()

    def count(self, worker: int = 0) -> int:
        service = self.services[worker]
        reading = service.ask()
        store, now_us = reading.store, reading.now_us
        (span,) = reading.spans.meant([])
        return store.statistics("default", [span], now_us)[0].summary.count


def fill(world: World) -> None:
    """Events of the past 50 minutes, by all workers."""
    for minute in range(50):
        world.record(minute % len(world.services), 0, float(minute))
        world.pass_time(MINUTE_US)


# A clock that is ahead for a moment


@pytest.mark.slow
@pytest.mark.parametrize("restarts", ["no", "during", "after", "both"])
@pytest.mark.parametrize("housekeeping", [False, True])
@pytest.mark.parametrize("ahead_us", [DAYS3_US, 80 * 365 * DAY_US, 7_000 * 365 * DAY_US, 2 * HOUR_US])
def test_a_moment_ahead_costs_nothing(open_shared: Open, ahead_us: int, housekeeping: bool, restarts: str) -> None:
    """Events are recorded while the clock is ahead, and then it is put right: nothing is lost, windows are right at
    once, later events are not called expired, and expiry and compaction go on as ever.
    """
    world = World(open_shared)
    fill(world)
    world.check(HOUR_US, DAY_US)
    world.step(ahead_us)
    assert world.record(value=100.0).expired == (1 if ahead_us > DAY_US + HOUR_US else 0)
    if restarts in ("during", "both"):
        world.restart()
    world.record(1, value=101.0)
    if housekeeping:
        world.pass_time(9 * MINUTE_US)
    world.check(HOUR_US, DAY_US)
    world.step(-ahead_us)
    if restarts in ("after", "both"):
        world.restart()
    world.check(HOUR_US, DAY_US)  # at once, and before anybody kept house
    assert world.count() == sum(ts_us >= world.true() - HOUR_US for ts_us, _ in world.events) >= 43
    assert world.record(value=102.0).expired == 0
    for minute in range(150):
        world.record(minute % 2, value=float(minute))
        world.pass_time(MINUTE_US)
        world.check(HOUR_US, DAY_US)
    world.services.append(world.start(0))  # from the checkpoint
    world.check(HOUR_US, DAY_US)
    store = world.services[-1].view().last_caught_up()
    assert store.sizes.event_count() <= 68  # what is older was compacted, the records that were stamped ahead too


def test_what_was_stamped_ahead_is_compacted_with_its_neighbours(open_shared: Open) -> None:
    """A record stamped 80 years ahead holds up no compaction, and an event is carried for as long as it is live."""
    world = World(open_shared, rollup_retention_us=0)
    world.record()
    world.step(80 * 365 * DAY_US)
    world.record(value=2.0)
    world.step(-80 * 365 * DAY_US)
    for _ in range(3):
        world.pass_time(40 * MINUTE_US)
        world.record()
    world.pass_time(6 * MINUTE_US)
    journal = world.services[0].view().journal
    assert journal.info().checkpoint_position == 3  # the first of the three that came after, 86 minutes ago
    assert world.services[0].view().last_caught_up().sizes.event_count() == 2


def test_without_rollups_nothing_is_dropped(open_shared: Open) -> None:
    """Where what expires is dropped at once, an event that comes while the clock is ahead is not."""
    world = World(open_shared, rollup_retention_us=0)
    fill(world)
    world.step(DAYS3_US)
    world.record(value=5.0)
    world.pass_time(5 * MINUTE_US)
    world.step(-DAYS3_US)
    world.check(HOUR_US)
    world.restart()
    world.check(HOUR_US)


@pytest.mark.slow
def test_a_clock_that_flaps(open_shared: Open) -> None:
    """Three days ahead every other minute, on one worker or all: never ten minutes, so never believed."""
    world = World(open_shared)
    fill(world)
    for minute in range(60):
        by_us = DAYS3_US if minute % 2 == 0 else -DAYS3_US
        world.step(by_us, *([0] if minute % 4 < 2 else []))
        if minute % 4 == 1 or minute % 4 == 3:
            world.check(HOUR_US, DAY_US)
        world.record(minute % 2, value=float(minute))
        world.pass_time(MINUTE_US)
    world.check(HOUR_US, DAY_US)


def test_keys_outlive_a_moment_ahead(open_shared: Open) -> None:
    """A retry counts once, although the clock was two days further for five minutes, and an hour after that."""
    world = World(open_shared)
    key = IdempotencyKey(b"name", b"digest", DAY_US)

    def retry() -> bool:
        batch = EventBatch.single("default", world.true(), 1.0)
        return world.services[1].record(batch, key=key).replayed

    assert not retry()
    world.step(2 * DAY_US)
    for _ in range(5):
        assert retry()
        world.pass_time(MINUTE_US)
    world.step(-2 * DAY_US)
    world.pass_time(HOUR_US)
    assert retry()
    world.pass_time(DAY_US, HOUR_US)
    assert not retry()


def test_dedup_drops_nothing_while_the_clock_is_ahead(open_shared: Open) -> None:
    """An event that is no duplicate is recorded, and a duplicate is left out, whatever the clock says. The answer
    follows that clock, as it does without deduplication: it calls expired what no window reaches now.
    """
    world = World(open_shared)
    world.record(value=1.0, dedup=True)
    world.step(DAYS3_US)
    for _ in range(2):
        recorded = world.record(1, value=2.0, dedup=True)
        assert (recorded.stored, recorded.duplicates, recorded.expired) == (0, 0, 1)
    del world.events[-1:]
    world.step(-DAYS3_US)
    world.check(HOUR_US)


# One that stays


def test_a_jump_that_stays_is_believed_after_ten_minutes(open_shared: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Until then nothing expires. Then events expire that are too old by the new time. Both are logged once."""
    world = World(open_shared, workers=1)
    fill(world)
    held = len(world.events)
    with caplog.at_level(logging.WARNING, "statsapi"):
        world.step(DAYS3_US)
        world.true.advance(1)
        world.keep_house()
        world.pass_time(SETTLE_US - MINUTE_US)
        store = world.services[0].view().last_caught_up()
        assert store.sizes.event_count() == held
        assert not world.services[0].view().clock.settled
        world.pass_time(2 * MINUTE_US)
    assert store.sizes.event_count() + store.sizes.rollup_bytes() == 0
    assert world.services[0].view().clock.settled
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "went forward by 3 days" in said[0]
    assert "is believed" in said[1]


@pytest.mark.slow
def test_after_a_wrong_belief_events_count_again(open_shared: Open) -> None:
    """The clock was ahead for an hour, and believed: what was held is gone, but what comes after counts at once, is
    listed, found by deduplication, kept by the hour, and compacted.
    """
    kept: list[dict[str, Any]] = [{}, {"rollup_retention_us": 0}]
    for options in kept:
        world = World(open_shared, **options)
        world.services[0].delete("default", world.services[0].ask().spans.meant()[0]._replace(start_us=MIN_TS_US))
        fill(world)
        world.step(DAYS3_US)
        world.pass_time(HOUR_US)
        world.step(-DAYS3_US)
        world.restart()
        world.events.clear()
        for minute in range(100):
            recorded = world.record(minute % 2, value=float(minute), dedup=True)
            assert (recorded.stored, recorded.expired) == (1, 0)
            duplicate = world.record(minute % 2, value=float(minute), dedup=True)
            assert (duplicate.stored, duplicate.duplicates) == (0, 1)
            del world.events[-1]
            world.check(HOUR_US)
            world.pass_time(MINUTE_US)
        reading = world.services[0].ask()
        store, now_us = reading.store, reading.now_us
        assert store.held("default", store.raw_from_us(now_us), 1000).total >= 60
        world.check(HOUR_US)
        for service in world.services:
            service.close()


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True])
def test_after_a_wrong_belief_roll_ups_stay(open_shared: Open, restart: bool) -> None:
    """Where roll-ups are kept for longer than the clock was ahead, a wrong belief costs detail only: minutes were
    folded, and merged into hours, too early. No event is lost or counted twice, in windows of any length.
    """
    world = World(open_shared, rollup_retention_us=7 * DAY_US)
    fill(world)
    world.step(DAYS3_US)
    world.record(value=7.0)
    world.pass_time(HOUR_US)
    world.record(value=8.0)
    world.step(-DAYS3_US)
    if restart:
        world.restart()
    windows_us = (HOUR_US, 2 * HOUR_US, DAY_US, 6 * DAY_US)
    for minute in range(130):
        world.check(*windows_us)
        world.record(minute % 2, ago_us=minute % 5 * HOUR_US // 2, value=float(minute))
        world.pass_time(MINUTE_US)
    world.services.append(world.start(0))
    world.check(*windows_us)
    world.pass_time(2 * DAY_US, HOUR_US)
    world.services.append(world.start(0))
    world.check(HOUR_US, 5 * DAY_US)
    assert world.events[0][0] >= world.true() - 5 * DAY_US


def test_a_view_that_lags_gives_the_same_answers(open_shared: Open) -> None:
    """A worker for which no time has stood yet holds raw what others have folded. Its sums and percentiles of long
    windows are theirs, also for more magnitudes than a sketch keeps apart.
    """
    world = World(open_shared)
    dice = random.Random(5)
    ts_us = world.true() - np.array([dice.randrange(20 * MINUTE_US) for _ in range(4_000)])
    values = np.array([dice.choice((-1, 1)) * 2.0 ** dice.uniform(-900, 900) for _ in ts_us])
    world.services[0].record(EventBatch((Part("default", ts_us, values),)))
    world.true.advance(KEEP_US + 30 * MINUTE_US)
    world.record()
    world.services[0].view().catch_up().expire()
    world.clocks[1].earlier = []
    world.services[1] = world.start(1)
    answers = []
    for service in world.services:
        reading = service.ask()
        store, now_us = reading.store, reading.now_us
        minute_us = now_us // MINUTE_US * MINUTE_US
        spans = [Span(minute_us - DAY_US), Span(minute_us - 110 * MINUTE_US, minute_us - 100 * MINUTE_US)]
        answers.append(store.statistics("default", spans, now_us, [1, 50, 99], ends=True))
    assert [s.view().last_caught_up().sizes.event_count() for s in world.services] == [1, 4_001]
    assert answers[0] == answers[1]
    assert answers[0][0].relative_errors


def test_a_suspended_machine(open_shared: Open) -> None:
    """Resumed after eight hours: the window is empty at once, and what was held expires ten minutes later."""
    world = World(open_shared, workers=1, rollup_retention_us=0)
    fill(world)
    world.true.step(8 * HOUR_US)  # the monotonic clock stood still
    assert world.count() == 0
    world.keep_house()
    assert world.services[0].view().last_caught_up().sizes.event_count() == 50
    world.pass_time(12 * MINUTE_US)
    assert world.services[0].view().last_caught_up().sizes.event_count() == 0
    world.record()
    assert world.count() == 1


def test_a_week_of_downtime(open_shared: Open) -> None:
    """A start after a week: windows are empty at once; ten minutes later what is old is gone, from the journal too."""
    world = World(open_shared)
    fill(world)
    for service in world.services:
        service.close()
    world.true.advance(7 * DAY_US)
    world.restart()
    assert world.count() == 0
    world.pass_time(9 * MINUTE_US)
    assert world.services[0].view().last_caught_up().sizes.event_count() > 0
    world.record()
    world.pass_time(2 * MINUTE_US)
    for service in world.services:
        store = service.view().last_caught_up()
        assert (store.sizes.event_count(), store.sizes.rollup_bytes()) == (1, 0)
    assert world.services[0].view().journal.info().records <= 3  # the new one, and ticks
    assert world.count(1) == 1


# One that is behind


@pytest.mark.slow
@pytest.mark.parametrize("behind_us", [DAYS3_US, HOUR_US, None])
@pytest.mark.parametrize("workers", [[0], [0, 1]])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_behind(open_shared: Open, behind_us: int | None, workers: list[int], restarts: bool) -> None:
    """A clock is behind by an hour, by three days, or says 1970; while running or at the start; on one worker or all.
    Nothing is lost and nothing counts twice: while it is so, when it is put right, and two hours later.
    """
    world = World(open_shared)
    fill(world)
    by_us = world.true() if behind_us is None else behind_us
    world.step(-by_us, *workers)
    if restarts:
        world.restart()
    for minute in range(20):
        world.record(minute % 2, value=float(minute))
        world.pass_time(MINUTE_US)
        assert world.count(0) == len(world.events)
        world.check(HOUR_US)
    world.step(by_us, *workers)
    world.check(HOUR_US, DAY_US)
    if restarts:
        world.restart()
    for minute in range(100):
        world.record(minute % 2, value=float(minute))
        world.pass_time(MINUTE_US)
        world.check(HOUR_US, DAY_US)


def test_a_start_in_1970(open_shared: Open) -> None:
    """A board without a battery records before it knows the date; events stamped by clients count as they say."""
    world = World(open_shared, workers=1, stood=False)
    world.step(-world.true())
    for _ in range(15):
        world.record()
        world.pass_time(MINUTE_US)
    assert world.count() == 15
    world.step(parse_timestamp_us("2025-11-21T07:45:00Z"))
    assert world.count() == 15
    world.pass_time(2 * HOUR_US)
    world.check(HOUR_US, DAY_US)
    assert world.count() == 0


# Any of it


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_any_jumps_that_are_taken_back(open_shared: Open, seed: int) -> None:
    """Clocks of three workers jump by anything for less than ten minutes at a time, with deletions, compactions and
    restarts in between: all give the list's answers.
    """
    dice = random.Random(seed)
    world = World(open_shared, workers=3)
    off: dict[int, tuple[int, int]] = {}  # by how much, and since when
    for _ in range(250):
        match dice.randrange(10):
            case 0:
                worker = dice.randrange(3)
                if worker not in off:
                    by_us = dice.choice((1, 1, -1)) * int(10 ** dice.uniform(5, 15))
                    off[worker] = by_us, world.true()
                    world.step(by_us, worker)
            case 1:
                worker = dice.randrange(3)
                world.services[worker].close()
                world.services[worker] = world.start(worker)
            case 2 | 3:
                world.keep_house()
            case 4 | 5:
                world.true.advance(dice.choice((SECOND_US, MINUTE_US, 4 * MINUTE_US)))
            case 6 if not off:
                world.true.advance(dice.choice((13 * MINUTE_US, HOUR_US)))
            case 7 if dice.random() < 0.2:
                minute_us = world.true() // MINUTE_US * MINUTE_US
                start_us = minute_us - dice.randrange(60) * MINUTE_US
                world.services[0].view().journal.append(Proposal(Deletion("default", start_us, minute_us)))
                world.events = [e for e in world.events if not start_us <= e[0] < minute_us]
            case _:
                ts_us = world.true() - np.array([dice.randrange(2 * HOUR_US) for _ in range(dice.choice((1, 1, 20)))])
                values = np.array([dice.gauss(0, 1) for _ in ts_us])
                dice.choice(world.services).record(EventBatch((Part("default", ts_us, values),)))
                world.events += zip(ts_us.tolist(), values.tolist(), strict=True)
        for worker, (by_us, since_us) in list(off.items()):
            if world.true() - since_us > 5 * MINUTE_US:
                world.step(-by_us, worker)
                del off[worker]
        if not off:
            world.check(HOUR_US, 20 * HOUR_US)
    assert len(world.events) > 100


# The time that has stood


def settled(*samples: tuple[int, int]) -> tuple[FakeClock, SettledClock]:
    clock = FakeClock(0, stood=False, monotonic_us=0)
    return clock, SettledClock(clock, [Sample(*each) for each in samples])


def test_nothing_stands_at_first() -> None:
    """Ten minutes after the first look the time has stood, and lags by nothing."""
    clock, settling = settled()
    for minute in range(11):
        settling.observe(clock())
        assert settling.settled_us() == (clock() if minute == 10 else MIN_TS_US)
        assert settling.settled == (minute == 10)
        clock.advance(MINUTE_US)


def test_a_look_of_long_ago_is_proof_enough() -> None:
    """A worker that starts takes over what another has seen stand; an offset that is larger than that is a step."""
    clock, settling = settled((-DAY_US, 0))
    settling.observe(clock())
    assert settling.settled_us() == clock()
    clock, settling = settled((-DAY_US, -DAYS3_US))
    settling.observe(clock())
    assert settling.settled_us() == clock() - DAYS3_US
    for _ in range(11):
        clock.advance(MINUTE_US)
        settling.observe(clock())
    assert settling.settled_us() == clock()


def test_the_smallest_offset_of_ten_minutes_counts() -> None:
    """Against a plain look at all samples, for any jumps at any times."""
    for seed in range(50):
        dice = random.Random(seed)
        clock, settling = settled()
        seen: list[tuple[int, int]] = []
        for _ in range(300):
            clock.advance(dice.choice((1000, SECOND_US, MINUTE_US, 15 * MINUTE_US)) * dice.randint(1, 3))
            if dice.random() < 0.2:
                clock.step(int(dice.gauss(0, HOUR_US)))
            settling.observe(clock())
            now_us = clock.monotonic_us()
            seen.append((now_us, clock() - now_us))
            before = [at for at, each in enumerate(seen) if each[0] <= now_us - SETTLE_US]
            if not before:
                assert settling.settled_us() == MIN_TS_US
            else:
                least_us = min(offset_us for _, offset_us in seen[before[-1] :])
                assert settling.settled_us() == now_us + least_us


def test_workers_share_what_they_saw(open_shared: Open) -> None:
    """A worker that takes a place later goes by what others of the machine have seen, and need not wait."""
    table = CounterTable(4)
    clock = FakeClock(stood=False)

    def start(slot: int) -> Service:
        service = Service(Settings(journal="memory://"), lambda: open_shared(clock), clock, background=False)
        table.assign(slot)
        service.metrics.share(table, slot)
        return service

    first = start(0)
    for _ in range(15):
        first.keep_house()
        clock.advance(MINUTE_US)
    later = start(1)
    later.keep_house()
    assert later.view().settled_us() == clock()
    clock.step(DAYS3_US)
    assert start(2).view().settled_us() == clock() - DAYS3_US


def test_shared_samples_are_the_least_of_their_minute() -> None:
    """Of each minute the latest time and the smallest offset are kept, of the last sixteen minutes."""
    metrics = Metrics()
    for second in range(20 * 60):
        metrics.share_clock_sample(Sample(second * SECOND_US, second % 60 - 30))
    found = sorted(metrics.clock_samples())
    assert found == [Sample((minute * 60 + 59) * SECOND_US, -30) for minute in range(4, 20)]


# What is said


def test_what_was_late_by_a_wrong_clock_is_listed_once(clock: FakeClock) -> None:
    """/debug/events lists an event that came while the clock was ahead among the others, not as a late one besides."""
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    client = app.test_client()
    moment = format_timestamp(clock())
    clock.step(DAYS3_US)
    assert client.post("/event", json={"timestamp": moment, "value": 1}).status_code == 200
    assert client.get("/debug/events?late=true").json["total_events"] == 1
    clock.step(-DAYS3_US)
    assert client.get("/debug/events").json["total_events"] == 1
    assert client.get("/debug/events?late=true").json["total_events"] == 0


def test_a_worker_that_came_after_the_step_tells_it_too() -> None:
    """It has not seen the clock step, and knows from the others that it is ahead of the time that has stood."""
    clock, table = FakeClock(), CounterTable(2)
    journal = SharedJournal(clock_us=clock)
    clients = []
    for slot in (0, 1):
        app = create_app(Settings(journal="memory://"), journal=lambda: journal, clock_us=clock, background=False)
        service = app.extensions["statsapi"]
        table.assign(slot)
        service.metrics.share(table, slot)
        clients.append(app.test_client())
        if slot == 0:
            for _ in range(12):
                clock.advance(MINUTE_US)
                service.keep_house()
            clock.step(DAYS3_US)
            service.keep_house()
    first, second = (client.get("/readyz").json["clock"] for client in clients)
    assert (first["ahead_seconds"], first["settled"]) == (259_200.0, False)
    assert second == {"ahead_seconds": 259_200.0, "settled": False}


def test_what_happened_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The log, the metrics and /readyz say that a clock jumped, and that it came back; questions are answered
    meanwhile.
    """
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    client = app.test_client()
    service = app.extensions["statsapi"]

    def gauge(name: str) -> float:
        service.keep_house()
        lines = client.get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

    assert client.get("/readyz").json == {"status": "ready"}
    assert (gauge("statsapi_clock_settled"), gauge("statsapi_clock_step_seconds")) == (1, 0)
    with caplog.at_level(logging.WARNING, "statsapi"):
        clock.step(DAYS3_US)
        assert (gauge("statsapi_clock_settled"), gauge("statsapi_clock_step_seconds")) == (0, 3 * 86_400)
        told = client.get("/readyz").json["clock"]
        assert told == {
            "jumped_seconds": 259_200.0,
            "at": format_timestamp(clock()),
            "ahead_seconds": 259_200.0,
            "settled": False,
        }
        event = {"timestamp": format_timestamp(clock() - DAYS3_US), "value": 1}
        for path, body in (("/event", event), ("/events", [event])):
            message = client.post(path, json=body).json["message"]
            assert "went forward by 3 days and has not stood for ten minutes" in message
            assert "counts from then on" in message
            assert "STATSAPI_ROLLUP_RETENTION" not in message, "nothing has expired: no setting is the cure"
        refused = client.post("/event?expired=reject", json=event).json["errors"][0]["reason"]
        assert "by the server's clock, which went forward by 3 days and may be wrong" in refused
        clock.advance(MINUTE_US)
        clock.step(-DAYS3_US)
        assert (gauge("statsapi_clock_settled"), gauge("statsapi_clock_step_seconds")) == (1, 0)
    assert client.get("/readyz").json["clock"]["jumped_seconds"] == -259_200.0
    assert client.get("/statistics").json["count"] == 2
    assert gauge("statsapi_clock_steps_total") == 2
    said = [record.getMessage() for record in caplog.records]
    assert ["forward by 3 days" in said[0], "back by 3 days" in said[1], "is in the future" in said[2]] == [True] * 3
    assert len(said) == 3
    clock.advance(DAY_US)
    service.keep_house()
    assert "jumped_seconds" not in client.get("/readyz").json.get("clock", {})


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stood", [False, True])
def test_a_long_reading_is_no_clock_that_was_set(caplog: pytest.LogCaptureFixture, moment: float, stood: bool) -> None:
    """At a start on a large journal the engine's time comes from some moment of a long reading. Nothing is warned of,
    and later times are judged as they are.
    """
    clock = FakeClock(stood=stood)
    settling = SettledClock(clock)

    def read(takes_us: int) -> None:
        asked_us = clock.monotonic_us()
        clock.advance(int(takes_us * moment))
        said_us = clock()
        clock.advance(takes_us - int(takes_us * moment))
        settling.observe(said_us, asked_us)

    for _ in range(3):
        read(4 * SECOND_US)
        assert settling.engine_us() is not None
    read(100)
    read(3 * SECOND_US)
    for _ in range(700):
        read(100)
        clock.advance(SECOND_US)
    assert (settling.last_step(), settling.settled) == (None, True)
    assert settling.unbelieved_us < 200
    assert caplog.text == ""
    clock.step(-5 * SECOND_US)
    read(SECOND_US)
    assert "back by" in caplog.text
    clock.step(HOUR_US)
    read(SECOND_US)
    assert "forward by" in caplog.text


def test_long_readings_alone_are_better_than_none() -> None:
    """If every reading takes a second, the time stands all the same, a little behind: what is due goes."""
    clock = FakeClock(stood=False)
    settling = SettledClock(clock)
    for _ in range(1000):
        asked_us, said_us = clock.monotonic_us(), clock()
        clock.advance(SECOND_US)
        settling.observe(said_us, asked_us)
    assert clock() - settling.settled_us() == SECOND_US
    assert settling.last_step() is None


def test_a_view_that_starts_on_a_large_journal_warns_of_no_clock(caplog: pytest.LogCaptureFixture) -> None:
    """The time that reading, or applying, a large piece takes is not a step of the clock."""
    clock = FakeClock()
    journal = MemoryJournal(clock_us=clock)
    journal.append(Proposal(EventBatch.single("a", clock(), 1.0)))
    read = journal.read

    def slow(*given: Any, **named: Any) -> Any:
        segment = read(*given, **named)
        clock.advance(3 * SECOND_US)
        return segment

    settling = SettledClock(clock)
    view = View(journal, Settings(journal="memory://").retention(), settling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "read", slow)
        view.catch_up()
    view.catch_up()
    assert settling.last_step() is None
    assert caplog.text == ""
