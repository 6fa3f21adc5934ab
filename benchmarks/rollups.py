"""What long windows cost: `python -m benchmarks.rollups [questions|stalls|compaction|ingest]`. Compare ratios.

It takes about two minutes and 1.5 GB.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np

from statsapi.app import create_app
from statsapi.clocks import Sample, SettledClock
from statsapi.config import Settings
from statsapi.engine import rollup
from statsapi.engine.rollup import Rollups
from statsapi.engine.store import Store
from statsapi.journal import Events, Proposal, open_journal
from statsapi.model import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    EventBatch,
    Part,
    Retention,
    Span,
    TimestampsUs,
    Values,
)
from statsapi.service.view import View

PS = (50.0, 90.0, 95.0, 99.0, 99.9)
BATCH = 10_000
START_US = 20_000 * DAY_US

DICE = np.random.default_rng(1)


class PassingClock:
    """A clock that is moved, and has stood."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.earlier = [Sample(0, 0)]

    def __call__(self) -> int:
        return self.now_us

    monotonic_us = __call__


def lognormal(n: int) -> Values:
    """Three decades, as latencies are."""
    return DICE.lognormal(3, 1, n)


def signed(n: int) -> Values:
    """Eight decades of both signs: more buckets than are kept, until neighbours are merged."""
    return DICE.choice([-1.0, 1.0], n) * 10.0 ** DICE.uniform(-4, 4, n)


def apply(store: Store, ts_us: TimestampsUs, values: Values, appended_us: int) -> None:
    store.apply([Events("default", ts_us, values, np.full(len(ts_us), appended_us))], appended_us)
    store.settle(appended_us)


def timed_ms(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1e3


def questions() -> None:
    """Memory of 24 hours, and window=24h with 1M and 10M raw events besides."""
    print("24 hours of one series, in bytes:")
    for what, draw, per_minute in (
        ("1 event a minute", lognormal, 1),
        ("60 events a minute", lognormal, 60),
        ("6,000 events a minute", lognormal, 6_000),
        ("200,000 events a minute", lognormal, 200_000),
        ("200,000 events a minute, 8 decades, both signs", signed, 200_000),
    ):
        rollups = Rollups()
        for minute in range(1440):
            rollups.add(START_US + minute * MINUTE_US, rollup.encode_values(draw(per_minute)))
        print(f"  {what:<48} {rollups.nbytes:>12,}")
    for raw in (1_000_000, 10_000_000):
        now_us = START_US + DAY_US
        store = Store(Retention(HOUR_US + 5 * MINUTE_US, DAY_US + 5 * MINUTE_US))
        for minute in range(1440 - 65):
            at_us = START_US + minute * MINUTE_US
            apply(store, at_us + np.sort(DICE.integers(0, MINUTE_US, 5_000)), lognormal(5_000), at_us + MINUTE_US)
        store.expire()
        first_us = now_us - HOUR_US
        for i in range(0, raw, BATCH):
            ts_us = first_us + (np.arange(i, i + BATCH) * (HOUR_US // raw))
            apply(store, ts_us, lognormal(BATCH), now_us)
        store.expire()
        print(f"window=24h, {raw:,} raw events: median of 15, the start moving by a minute each time")
        for what, ps in (("count to variance", ()), ("with five percentiles", PS)):
            took_ms = sorted(
                timed_ms(lambda s=store, m=m, ps=ps, now_us=now_us: s.statistics("default", [Span(m)], now_us, ps))
                for m in range(START_US, START_US + 15 * MINUTE_US, MINUTE_US)
            )
            print(f"  {what:<22} {took_ms[7]:8.3f} ms")


def stalls(rounds: int = 10, minute_events: int = 12_000_000) -> None:
    """What a reader waits at worst while a minute at 200,000 events/s is folded, and while one is recorded."""
    print(f"a reader's longest wait in each of {rounds} minutes of {minute_events:,} events: median, worst")
    for what, retention in (("dropped", Retention(MINUTE_US)), ("rolled up", Retention(MINUTE_US, DAY_US))):
        store = Store(retention)
        values = lognormal(BATCH)
        waits: dict[str, list[float]] = {"recorded": [], what: []}
        took_ms: list[float] = []
        for minute in range(rounds):
            first_us = START_US + minute * MINUTE_US

            def record(store: Store = store, first_us: int = first_us, values: Values = values) -> None:
                step_us = MINUTE_US // (minute_events // BATCH)
                for at_us in range(first_us, first_us + MINUTE_US, step_us):
                    apply(store, np.linspace(at_us, at_us + step_us - 1, BATCH).astype(np.int64), values, at_us)
                    time.sleep(0.0001)

            waits["recorded"].append(longest_wait_ms(store, first_us, record))
            now_us = first_us + 2 * MINUTE_US
            store.apply([], now_us)
            store.settle(now_us)

            def expire(store: Store = store, took_ms: list[float] = took_ms) -> None:
                took_ms.append(timed_ms(store.expire))

            waits[what].append(longest_wait_ms(store, first_us, expire))
        for act, each in waits.items():
            each.sort()
            print(f"  while they are {act:<10} {each[rounds // 2]:8.2f} {each[-1]:8.2f} ms")
        print(f"  which took {sorted(took_ms)[rounds // 2]:.0f} ms", flush=True)


def compaction(rounds: int = 5, minute_events: int = 12_000_000) -> None:
    """The same while a checkpoint takes the place of such a minute's records in a SQLite journal."""
    with tempfile.TemporaryDirectory() as folder:
        clock = PassingClock()
        journal = open_journal(f"sqlite:///{folder}/events.db", clock_us=clock)
        view = View(journal, Retention(MINUTE_US, DAY_US), SettledClock(clock))
        values = lognormal(BATCH)
        waits, took_ms = [], []
        for _ in range(rounds):
            for _ in range(minute_events // BATCH):
                clock.now_us += MINUTE_US * BATCH // minute_events
                part = Part("default", clock.now_us - np.arange(BATCH, 0, -1), values)
                journal.append(Proposal(EventBatch((part,))))
            clock.now_us += MINUTE_US
            journal.append(Proposal(EventBatch.single("default", clock.now_us, 1.0)))
            store = view.catch_up()
            store.expire()
            waits.append(
                longest_wait_ms(store, clock.now_us - MINUTE_US, lambda: took_ms.append(timed_ms(view.compact)))
            )
        journal.close()
    waits.sort()
    print(f"  while they are compacted {waits[rounds // 2]:7.2f} {waits[-1]:8.2f} ms")
    print(f"  which took {sorted(took_ms)[rounds // 2]:.0f} ms", flush=True)


def longest_wait_ms(store: Store, start_us: int, act: Callable[[], None]) -> float:
    """How long the slowest question took of those that were asked while `act` ran in another thread."""
    worker = threading.Thread(target=act)
    worst_ms = 0.0
    worker.start()
    while worker.is_alive():
        span = Span(start_us + 30 * SECOND_US)
        worst_ms = max(worst_ms, timed_ms(lambda s=span: store.statistics("default", [s], start_us + 30 * SECOND_US)))
        time.sleep(0.0002)
    return worst_ms


def ingest(minutes: int = 12) -> None:
    """Batches through the whole app while time passes, with everything kept for a minute and the grace: steady state.

    Each simulated minute brings 1.2 million events of one series, then housekeeping with compaction. Best of two.
    """
    print("batch ingest in one process with a SQLite journal, expiry and compaction included:")
    took: dict[int, float] = {}
    for _ in range(2):
        for rollup_retention_us in (0, DAY_US):
            with tempfile.TemporaryDirectory() as folder:
                clock = PassingClock()
                settings = Settings(
                    journal=f"sqlite:///{folder}/events.db",
                    retention_us=MINUTE_US,
                    window_us=MINUTE_US,
                    rollup_retention_us=rollup_retention_us,
                )
                app = create_app(settings, clock_us=clock, background=False)
                client = app.test_client()
                began_s = time.perf_counter()
                spent_s = 0.0
                for _ in range(minutes):
                    for _ in range(120):
                        clock.now_us += MINUTE_US // 120
                        ts_us = clock.now_us - np.arange(BATCH, 0, -1)
                        before_s = time.perf_counter()
                        body = json.dumps({"timestamp": (ts_us / 1e6).tolist(), "value": lognormal(BATCH).tolist()})
                        spent_s += time.perf_counter() - before_s  # the client's
                        answer = client.post("/events", data=body, content_type="application/json")
                        assert answer.status_code == 200, answer.text
                        client.get("/statistics")
                    app.extensions["statsapi"].keep_house()
                took_s = time.perf_counter() - began_s - spent_s
                took[rollup_retention_us] = min(took_s, took.get(rollup_retention_us, took_s))
                app.extensions["statsapi"].close()
    events = minutes * 120 * BATCH
    without, rolled = (events / took[us] / 1e6 for us in (0, DAY_US))
    print(f"  without roll-ups {without:.2f} M events/s, with them {rolled:.2f}: {1 - rolled / without:.1%} less")


PARTS = {"questions": questions, "stalls": stalls, "compaction": compaction, "ingest": ingest}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
