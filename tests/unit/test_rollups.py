"""Roll-ups and checkpoints: whoever folds, merges, compacts or restarts, and whenever, a long window has one answer,
the exact one.
"""

from __future__ import annotations

import contextlib
import math
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.config import GRACE_US, Settings
from statsapi.engine import holdings, rollup, timelines
from statsapi.engine.answers import Statistics
from statsapi.engine.rollup import Rollups
from statsapi.engine.sketch import Sketch
from statsapi.engine.store import Store
from statsapi.engine.timeline import Timeline
from statsapi.errors import InvalidRequest
from statsapi.journal import Events, Journal, open_journal
from statsapi.journal.redis_primary import Primary
from statsapi.model import (
    DAY_US,
    HOUR_US,
    MAX_TS_US,
    MIN_TS_US,
    MINUTE_US,
    SECOND_US,
    Deletion,
    EventBatch,
    Part,
    Percent,
    Retention,
    SeriesInfo,
    Span,
)
from statsapi.service.service import Service
from tests import oracles
from tests.fakes import FakeClock, SharedJournal
from tests.journal_engines import shared_redis
from tests.oracles import any_finite, any_magnitude
from tests.programs import redis_binary
from tests.servers import wait_until

PS: list[Percent] = [1, Fraction("33.3"), 50, 99]


def service_on(journal: Journal, clock: FakeClock, **options: Any) -> Service:
    return Service(Settings(journal="memory://", **options), lambda: journal, clock, background=False)


def service_at(url: str, clock: FakeClock) -> Service:
    return Service(Settings(journal=url), lambda: open_journal(url, clock_us=clock), clock, background=False)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a journal that every opening of it shares, and that outlives them."""
    return f"sqlite:///{tmp_path}/events.db" if request.param == "sqlite" else redis_url()


def redis_url() -> str:
    return shared_redis(redis_binary()).journal_url(secrets.token_hex(4))


# A block


@given(st.lists(any_finite | any_magnitude, min_size=1, max_size=60))
def test_a_block_holds_its_events(values: list[float]) -> None:
    """Summary and sketch come back out of the bytes as they are."""
    block = rollup.encode_values(np.array(values))
    assert rollup.summarise([block]) == oracles.summary(values)
    assert rollup.sketch([block]) == Sketch.of(np.array(values))


@given(st.lists(any_magnitude, min_size=1, max_size=1500), st.randoms(use_true_random=False))
def test_a_block_is_a_function_of_its_events(values: list[float], dice: random.Random) -> None:
    """Merged out of any parts in any order, the bytes are the same: of few values, of many, of more than fit."""
    whole = rollup.encode_values(np.array(values))
    dice.shuffle(values)
    parts = []
    at = 0
    while at < len(values):
        step = dice.choice((1, 2, 10, 200))
        parts.append(rollup.encode_values(np.array(values[at : at + step])))
        at += step
    while len(parts) > 1:
        few = [parts.pop(dice.randrange(len(parts))) for _ in range(min(len(parts), dice.randint(2, 5)))]
        parts.append(rollup.merge(few))
    assert parts == [whole]


@pytest.mark.slow
def test_an_hour_is_packed_and_taken_apart() -> None:
    """Minutes added in any order, merged, removed and coarsened: the same as a dict of lists of values."""
    for seed in range(30):
        dice = random.Random(seed)
        rollups = Rollups()
        naive: dict[int, list[float]] = {}
        size = 0
        for _ in range(200):
            minute = dice.randrange(0, 300)
            values = [dice.gauss(0, 10) for _ in range(dice.choice((1, 3, 20)))]
            match dice.randrange(8):
                case 0:
                    start, end = sorted((dice.randrange(0, 300), dice.randrange(0, 300)))
                    start, end = (start // 60 * 60, end // 60 * 60) if start < 120 else (start, max(end, start))
                    removed, grown = rollups.remove(start * MINUTE_US, end * MINUTE_US)
                    gone = [m for m in naive if start <= m < end]
                    assert removed == sum(len(naive.pop(m)) for m in gone)
                    size += grown
                case 1:
                    size += rollups.coarsen(120 * MINUTE_US + 5)
                case _:
                    size += rollups.add(minute * MINUTE_US, rollup.encode_values(np.array(values)))
                    naive.setdefault(minute, []).extend(values)
            start, end = 60 * dice.randrange(0, 5), 60 * dice.randrange(1, 6)
            if dice.random() < 0.5:
                start, end = dice.randrange(120, 300), dice.randrange(120, 300)
            held = [value for m in naive if start <= m < end for value in naive[m]]
            assert rollups.events == sum(len(values) for values in naive.values())
            later = [m for m in naive if m >= start]
            first, last = (min(later, default=0), max(later, default=0))
            extent = rollups.extent(start * MINUTE_US)
            assert (extent.events if extent else 0) == sum(len(naive[m]) for m in later)
            if extent:
                assert extent.first_us // MINUTE_US in (first, first // 60 * 60)
                assert extent.last_us // MINUTE_US in (last, last // 60 * 60)
            assert rollups.summarise(start * MINUTE_US, end * MINUTE_US) == oracles.summary(held)
        assert size == sum(map(len, rollups._hours.values()))


# Several workers


class Twin:
    """Every event that counts, with the bag of values in any span."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, float]] = []

    def values(self, series: str, start_us: int, end_us: int | None) -> list[float]:
        return [v for s, ts, v in self.events if s == series and ts >= start_us and (end_us is None or ts < end_us)]

    def delete(self, series: str, start_us: int, end_us: int) -> None:
        self.events = [e for e in self.events if not (e[0] == series and start_us <= e[1] < end_us)]


def wild(dice: random.Random) -> float:
    return dice.choice((-1, 1)) * 2.0 ** dice.uniform(-900, 900)


def ordinary(dice: random.Random) -> float:
    return dice.lognormvariate(3, 1)


def run(
    seed: int,
    value: Callable[[random.Random], float],
    steps: int,
    open_shared: Callable[[FakeClock], Callable[[], Journal]],
    **options: Any,
) -> tuple[int, int]:
    """Workers on one journal, each keeping house and starting afresh when it likes, against the twin. Gives how many
    answers were compared, and in how many percentiles came from sketches.
    """
    dice = random.Random(seed)
    clock = FakeClock()
    opened = open_shared(clock)
    workers = [service_on(opened(), clock, **options) for _ in range(3)]
    twin = Twin()
    longest_us = workers[0].settings.longest_window_us()
    compared = sketched = 0
    for _ in range(steps):
        worker = dice.choice(workers)
        match dice.randrange(12):
            case 0 | 1:
                clock.advance(dice.choice((SECOND_US, MINUTE_US, 13 * MINUTE_US, HOUR_US + 7, longest_us // 7)))
            case 2:
                worker.close()
                workers[workers.index(worker)] = service_on(opened(), clock, **options)
            case 3 | 4 | 5:
                worker.keep_house()
            case 6:
                series = dice.choice("ab")
                now_us = worker.ask().now_us
                start_us = now_us - dice.randrange(longest_us + HOUR_US)
                end_us = start_us + dice.randrange(longest_us)
                unit_us = dice.choice((MINUTE_US, HOUR_US))
                span = Span(start_us // unit_us * unit_us, end_us // unit_us * unit_us)
                try:
                    worker.delete(series, span)
                except InvalidRequest:
                    assert unit_us == MINUTE_US
                else:
                    twin.delete(series, *span)
            case _:
                parts = []
                for series in dice.sample("ab", dice.randint(1, 2)):
                    n = dice.choice((1, 2, 40))
                    far_us = dice.choice((MINUTE_US, HOUR_US, longest_us - 2 * HOUR_US))
                    ts = [clock.now_us + MINUTE_US - dice.randrange(far_us) for _ in range(n)]
                    values = [value(dice) for _ in range(n)]
                    twin.events += [(series, t, v) for t, v in zip(ts, values, strict=True)]
                    parts.append(Part(series, np.array(ts), np.array(values)))
                worker.record(EventBatch(tuple(parts)))
        if dice.random() < 0.3:
            compared += 1
            sketched += compare(dice, workers, twin, dice.choice("ab"), longest_us)
    for worker in workers:
        worker.close()
    return compared, sketched


def compare(dice: random.Random, workers: list[Service], twin: Twin, series: str, longest_us: int) -> bool:
    now_us = workers[0].ask().now_us
    if dice.random() < 0.5:
        asked: dict[str, Any] = {"windows_us": [dice.choice((MINUTE_US * 5, HOUR_US, HOUR_US * 3, longest_us))]}
    else:
        start_us = now_us - dice.randrange(longest_us)
        asked = {"windows_us": [], "start_us": start_us, "end_us": start_us + dice.randrange(longest_us)}
    answers = []
    raw_from_us = workers[0].retention.raw_from_us(now_us)
    for worker in workers:
        reading = worker.ask()
        store, worker_now_us = reading.store, reading.now_us
        assert worker_now_us == now_us
        (span,) = reading.spans.meant(**asked)
        (answer,) = store.statistics(series, [span], now_us, PS, ends=True)
        answers.append((span, answer))
    assert answers.count(answers[0]) == len(workers)
    pages = [[worker.ask().series("", "", 10, raw_only=raw_only) for worker in workers] for raw_only in (False, True)]
    for page in pages:
        assert page.count(page[0]) == len(workers)
    assert_listed(pages, twin, now_us, workers[0].retention)
    span, answer = answers[0]
    values = twin.values(series, *span)
    assert answer.summary == oracles.summary(values)
    if len(values) > 1 and answer.summary.variance is not None:
        assert answer.summary.variance == statistics.variance(values)
    raw = not twin.values(series, span.start_us, min(span.end_us or raw_from_us, raw_from_us))
    assert_percentiles(answer, values, raw)
    assert answer.rolled_up == () if raw else "first" in answer.rolled_up
    if raw and values:
        inside = [e for e in twin.events if e[0] == series and span.start_us <= e[1] < (span.end_us or math.inf)]
        assert answer.first in [v for _, ts, v in inside if ts == min(ts for _, ts, _ in inside)]
        assert answer.last in [v for _, ts, v in inside if ts == max(ts for _, ts, _ in inside)]
    # Step by step it is the same.
    unit_us = store.resolution_us(span.start_us, now_us)
    step_us = unit_us * dice.choice((1, 60)) if unit_us > 1 else 7 * MINUTE_US
    length_us = (now_us if span.end_us is None else span.end_us) - span.start_us
    n_steps = max(1, -(-length_us // step_us))
    if n_steps > 100:  # the twin is slow
        return bool(answer.relative_errors)
    steps = store.steps(series, span, step_us, n_steps, now_us, PS)
    for i, step in enumerate(steps):
        end_us = span.end_us if i == n_steps - 1 else span.start_us + step_us * (i + 1)
        held = twin.values(series, span.start_us + step_us * i, end_us)
        assert step.summary == oracles.summary(held)
        end_us = min(raw_from_us if end_us is None else end_us, raw_from_us)
        assert_percentiles(step, held, not twin.values(series, span.start_us + step_us * i, end_us))
    return bool(answer.relative_errors)


def assert_listed(pages: list[list[list[SeriesInfo]]], twin: Twin, now_us: int, retention: Retention) -> None:
    """Every series with an event that a question can reach is listed, with their number and where they lie."""
    raw_from_us = retention.raw_from_us(now_us)
    for page, from_us in zip(pages, (retention.from_us(now_us), raw_from_us), strict=True):
        held = {s: sorted(ts for name, ts, _ in twin.events if name == s and ts >= from_us) for s in "ab"}
        assert [(row.name, row.events) for row in page[0]] == [(s, len(ts)) for s, ts in held.items() if ts]
        for name, _, first_us, last_us, resolution_us in page[0]:
            ts = held[name]
            assert (resolution_us == 1) == (ts[0] >= raw_from_us)
            assert first_us == ts[0] // resolution_us * resolution_us
            assert last_us == ts[-1] if ts[-1] >= raw_from_us else ts[-1] < last_us <= ts[-1] + resolution_us


def assert_percentiles(answer: Statistics, values: list[float], raw: bool) -> None:
    """Exact and rounded once where all events are raw; else within what is claimed, and nothing only for two signs."""
    assert bool(answer.relative_errors) == (not raw)
    errors = answer.relative_errors or [None] * len(PS)
    for p, found, error in zip(PS, answer.percentiles, errors, strict=bool(values)):
        if raw:
            assert found == oracles.percentile(values, p)
        elif error is None:
            assert min(values) < 0 < max(values)
        else:
            true = oracles.exact_percentile(values, p)
            assert abs(Fraction(found) - true) <= Fraction(error) * abs(true)


@pytest.mark.slow
@pytest.mark.parametrize("value", [ordinary, wild])
@pytest.mark.parametrize("rollup_retention_us", [5 * HOUR_US, DAY_US, 7 * DAY_US])
def test_workers_agree_and_are_exact(value: Callable[[random.Random], float], rollup_retention_us: int) -> None:
    """Late and future events, deletions, restarts and compactions at any time: every worker gives the twin's answer."""

    def one_for_all(clock: FakeClock) -> Callable[[], Journal]:
        journal = SharedJournal(clock_us=clock)
        return lambda: journal

    totals = [run(seed, value, 150, one_for_all, rollup_retention_us=rollup_retention_us) for seed in range(5)]
    compared, sketched = map(sum, zip(*totals, strict=True))
    assert compared > 120
    assert sketched > 50


@pytest.mark.redis
@pytest.mark.processes
def test_machines_agree_and_are_exact() -> None:
    """The same for workers that share nothing but a server."""

    def one_each(clock: FakeClock) -> Callable[[], Journal]:
        url = redis_url()
        return lambda: open_journal(url, clock_us=clock)

    totals = [run(seed, ordinary, 150, one_each) for seed in range(4)]
    compared, sketched = map(sum, zip(*totals, strict=True))
    assert compared > 80
    assert sketched > 30


def test_many_events_in_a_minute_agree_after_a_collapse() -> None:
    """A minute of 2,000 values over all magnitudes: more buckets than are kept, on a worker that has folded it, on one
    that has not, and on one that began from a checkpoint.
    """
    clock = FakeClock()
    journal = SharedJournal(clock_us=clock)
    workers = [service_on(journal, clock) for _ in range(3)]
    dice = random.Random(5)
    values = [wild(dice) for _ in range(2_000)]
    ts_us = np.array([clock.now_us - dice.randrange(MINUTE_US) for _ in values])
    workers[0].record(EventBatch((Part("default", ts_us, np.array(values)),)))
    clock.advance(HOUR_US + GRACE_US + 2 * MINUTE_US)
    workers[0].record(EventBatch.single("default", clock.now_us, 1.0))
    workers[0].keep_house()
    workers[2] = service_on(journal, clock)
    answers = []
    for worker in workers:
        reading = worker.ask()
        store, now_us = reading.store, reading.now_us
        answers += store.statistics("default", reading.spans.meant([DAY_US]), now_us, PS)
    assert answers.count(answers[0]) == 3
    assert answers[0].summary == oracles.summary([*values, 1.0])
    assert min(error for error in answers[0].relative_errors if error is not None) > 0.01


def pieces_of(journal: Journal) -> list[tuple[int, bytes]]:
    """All pieces of the checkpoint, if there is one."""
    checkpoint = journal.read_checkpoint()
    return journal.read_pieces(checkpoint.id, MIN_TS_US, MAX_TS_US) if checkpoint else []


@pytest.mark.parametrize("rollup_us", [0, DAY_US])
def test_folding_ends_where_many_chunks_are_of_one_instant(rollup_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events before them were deleted or folded. Each call folds some events, and no call is due again that would fold
    none.
    """
    monkeypatch.setattr(timelines, "Timeline", partial(Timeline, chunk_events=2))
    monkeypatch.setattr(holdings, "_FOLD_CHUNKS", 2)
    store = Store(Retention(5 * MINUTE_US, rollup_us))
    at_us = MINUTE_US + SECOND_US
    for stamps in ([at_us] * 8, [SECOND_US, MINUTE_US]):
        ts_us = np.array(stamps)
        store.apply([Events("s", ts_us, np.ones(len(ts_us)), ts_us)], at_us)
    store.apply([Deletion("s", MINUTE_US, MINUTE_US + 1)], at_us)
    if not rollup_us:
        store.apply([Deletion("s", SECOND_US, SECOND_US + 1)], at_us)
    store.settle(HOUR_US)
    store._held.advance(2 * MINUTE_US)
    folded = 0
    while store._held.due:
        now = store._held.fold(store._held.due.pop())
        assert now or not store._held.due
        folded += now
    assert folded == (9 if rollup_us else 8)


def test_an_idle_series_costs_nothing(clock: FakeClock) -> None:
    """A day and some hours after its last event, housekeeping alone has left nothing of it in memory and journal."""
    journal = SharedJournal(clock_us=clock)
    services = [service_on(journal, clock, rollup_retention_us=3 * DAY_US) for _ in range(2)]
    for hour in range(60):
        services[0].record(EventBatch.single(f"s{hour % 7}", clock.now_us, 1.0))
        clock.advance(HOUR_US)
        services[hour % 2].keep_house()
    assert pieces_of(journal)
    for _ in range(3 * 24 + 6):
        clock.advance(HOUR_US)
        for service in services:
            service.keep_house()
    for _ in range(3):
        clock.advance(HOUR_US + GRACE_US + MINUTE_US)
        for service in services:
            service.keep_house()
            store = service.view().last_caught_up()
            assert (store.sizes.series_count(), store.sizes.event_count(), store.sizes.rollup_bytes()) == (0, 0, 0)
    assert pieces_of(journal) == []
    assert journal.info().records <= 3  # of the ticks


def test_what_is_turned_off_goes(clock: FakeClock) -> None:
    """A start without roll-ups takes those that are there from the journal; a start with them begins anew."""
    journal = SharedJournal(clock_us=clock)
    for rollup_retention_us in (DAY_US, 0, DAY_US):
        service = service_on(journal, clock, rollup_retention_us=rollup_retention_us)
        service.record(EventBatch.single("default", clock.now_us, 1.0))
        clock.advance(HOUR_US + GRACE_US + MINUTE_US)
        service.record(EventBatch.single("default", clock.now_us, 1.0))
        service.keep_house()
        assert bool(pieces_of(journal)) == bool(rollup_retention_us)
    reading = service.ask()
    store, now_us = reading.store, reading.now_us
    assert store.statistics("default", [Span(now_us - 2 * HOUR_US)], now_us)[0].summary.count == 3


def test_a_start_passes_over_years_without_events(clock: FakeClock) -> None:
    """Hours without pieces are read by the day, and whatever lies between them is there."""
    reads: list[int] = []

    class Counted(SharedJournal):
        def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
            reads.append(last - first)
            return super().read_pieces(checkpoint_id, first, last)

    journal = Counted(clock_us=clock)
    years10_us = 3_650 * DAY_US
    dice = random.Random(7)
    bases = [years10_us - 2 * DAY_US, *(dice.randrange(30 * DAY_US, years10_us) for _ in range(20)), 3 * HOUR_US]
    ago_us = {base - dice.randrange(6) * HOUR_US for base in bases for _ in range(3)}
    ts_us = np.array([clock.now_us - each for each in ago_us])
    service = service_on(journal, clock, rollup_retention_us=years10_us)
    service.record(EventBatch((Part("default", ts_us, np.ones(len(ts_us))),)))
    clock.advance(HOUR_US + GRACE_US + MINUTE_US)
    service.record(EventBatch.single("default", clock.now_us, 1.0))
    service.keep_house()
    assert pieces_of(journal)
    reads.clear()
    reading = service_on(journal, clock, rollup_retention_us=years10_us).ask()
    store, now_us = reading.store, reading.now_us
    for window_us in (2 * HOUR_US, 31 * DAY_US, years10_us // 2, years10_us):
        (span,) = reading.spans.meant([window_us])
        expected = 1 + (ts_us >= span.start_us).sum()
        assert store.statistics("default", [span], now_us)[0].summary.count == expected
    assert len(reads) < 6_000


# Journals that outlive the process


def prepare(service: Service, clock: FakeClock) -> Twin:
    """Half a day in which a good deal was compacted and a span of that deleted, ready for the next compaction."""
    dice = random.Random(3)
    twin = Twin()

    def record(n: int) -> None:
        for series in "ab":
            ts = [clock.now_us - dice.randrange(5 * HOUR_US) for _ in range(n)]
            values = [ordinary(dice) for _ in range(n)]
            twin.events += [(series, t, v) for t, v in zip(ts, values, strict=True)]
            service.record(EventBatch((Part(series, np.array(ts), np.array(values)),)))

    for _ in range(4):
        record(100)
        clock.advance(40 * MINUTE_US)
        service.keep_house()
    assert service.view().journal.read_checkpoint() is not None
    minute_us = clock.now_us // MINUTE_US * MINUTE_US
    gone = Span(minute_us - 4 * HOUR_US, minute_us - 3 * HOUR_US)
    service.delete("a", gone)
    twin.delete("a", *gone)
    record(50)
    clock.advance(HOUR_US + GRACE_US + 2 * MINUTE_US)
    record(50)
    return twin


def check(service: Service, twin: Twin) -> None:
    reading = service.ask()
    store, now_us = reading.store, reading.now_us
    for hours in (1, 4, 6, 24):
        (span,) = reading.spans.meant([hours * HOUR_US])
        for series in "ab":
            (answer,) = store.statistics(series, [span], now_us)
            assert answer.summary == oracles.summary(twin.values(series, *span)), (hours, series)


def check_after_death(url: str, clock: FakeClock, twin: Twin) -> None:
    """Before the next compaction and after it, by the worker that did it and by one that starts then."""
    service = service_at(url, clock)
    check(service, twin)
    service.view().compact()
    check(service, twin)
    service.close()
    fresh = service_at(url, clock)
    check(fresh, twin)
    fresh.close()


@pytest.mark.processes
def test_a_compaction_that_is_killed_changes_nothing_or_all(tmp_path: Path) -> None:
    """SIGKILL at many instants of a checkpoint that adds, merges and deletes roll-ups: each time every answer is the
    twin's.
    """
    clock = FakeClock()
    path = tmp_path / "events.db"
    service = service_at(f"sqlite:///{path}", clock)
    twin = prepare(service, clock)
    service.close()

    def compact_and_die(at: int) -> int:
        copy = tmp_path / f"{at}.db"
        shutil.copy(path, copy)
        command = [sys.executable, "-m", "tests.checkpoint_killed", str(copy), str(clock.now_us), str(at)]
        died = subprocess.run(command, timeout=60, check=False, stdout=subprocess.PIPE)
        assert died.returncode == (0 if died.stdout else -signal.SIGKILL)
        check_after_death(f"sqlite:///{copy}", clock, twin)
        return int(died.stdout or 0)

    instants = compact_and_die(1_000_000)
    assert instants > 1_000
    spread = [instants * i // 8 for i in range(1, 8)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compact_and_die, [2, *spread, *range(instants - 7, instants + 1)]))


@pytest.mark.redis
@pytest.mark.processes
def test_a_compaction_that_stops_between_calls_changes_nothing_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with Redis, for a machine that is lost after any of its calls. The last call commits; what was sent
    ahead of it goes by itself.
    """

    class Lost(BaseException):
        pass

    calls = Primary.calls
    left = 0

    def counted(self: Primary, *arguments: Any, **options: Any) -> list[Any]:
        nonlocal left
        replies = calls(self, *arguments, **options)
        left -= 1
        if left == 0:
            raise Lost
        return replies

    monkeypatch.setattr(Primary, "calls", counted)

    def compact_and_stop(at: int) -> int:
        nonlocal left
        clock, url = FakeClock(), redis_url()
        service = service_at(url, clock)
        twin = prepare(service, clock)
        service.ask()
        left = at
        with contextlib.suppress(Lost):
            service.view().compact()
        used, left = at - left, 0
        service.close()
        check_after_death(url, clock, twin)
        server, name = shared_redis(redis_binary()), url.partition("stream=")[2]
        kept = [key for key in server.send("KEYS", f"{{{name}}}:*").split() if ":piece:" in key or ":state:" in key]
        lasting = [key for key in kept if server.send("TTL", key) == ":-1\r\n"]
        assert len(lasting) == int(server.send("ZCARD", f"{{{name}}}:pieces")[1:]) + 1
        return used

    instants = compact_and_stop(1_000_000)
    assert instants > 10
    for at in range(1, instants + 1, max(1, instants // 12)):
        compact_and_stop(at)
    for at in range(instants - 2, instants + 1):
        compact_and_stop(at)


@pytest.mark.slow
def test_anybody_compacts_while_others_record_ask_and_start(url: str) -> None:
    """Two workers record and ask, two compact, one starts again and again: a window of a day holds what was
    acknowledged before the question, and nothing twice.
    """
    clock = FakeClock()
    checkpoints: set[bytes] = set()
    acknowledged = [0, 0]
    begun = [0, 0]
    done = threading.Event()

    def count(service: Service) -> int:
        reading = service.ask()
        store, now_us = reading.store, reading.now_us
        (span,) = reading.spans.meant([DAY_US])
        return store.statistics("default", [span], now_us)[0].summary.count

    def has_more_than(seen: int) -> bool:
        return len(checkpoints) > seen

    def record(at: int) -> None:
        service = service_at(url, clock)
        dice = random.Random(at)
        seen = 0
        for number in range(150):
            if number % 10 == 0 and number > 40:  # the clock is 20 minutes further each time, and past the retention
                wait_until(partial(has_more_than, seen), "another checkpoint")
                seen = len(checkpoints)
            clock.advance(2 * MINUTE_US)  # 10 hours in all
            ts_us = np.array([clock.now_us - dice.randrange(3 * HOUR_US) for _ in range(20)])
            begun[at] += 20
            service.record(EventBatch((Part("default", ts_us, np.ones(20)),)))
            acknowledged[at] += 20
            least = sum(acknowledged)
            found = count(service)
            assert least <= found <= sum(begun)
        service.close()

    def compact() -> None:
        service = service_at(url, clock)
        while not done.is_set():
            service.keep_house()
            service.view().compact()
            if checkpoint := service.view().journal.read_checkpoint():
                checkpoints.add(checkpoint.id)
            done.wait(0.01)
        service.close()

    def start() -> None:
        while not done.is_set():
            least = sum(acknowledged)
            service = service_at(url, clock)
            found = count(service)
            assert least <= found <= sum(begun)
            service.close()

    with ThreadPoolExecutor(5) as pool:
        others = [pool.submit(compact), pool.submit(compact), pool.submit(start)]
        try:
            for writer in [pool.submit(record, at) for at in range(2)]:
                writer.result()
        finally:
            done.set()
        for other in others:
            other.result()
    service = service_at(url, clock)
    assert count(service) == sum(begun) == 6_000
    assert len(checkpoints) >= 10
    service.close()
