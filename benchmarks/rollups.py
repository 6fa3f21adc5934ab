"""What long windows cost: `python -m benchmarks.rollups [questions|stalls|ingest]`. Compare ratios, not machines.

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

from statsapi import rollup
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.journal import Events
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Retention, Span, TimestampsUs, Values
from statsapi.rollup import Rollups
from statsapi.store import Store

PS = (50.0, 90.0, 95.0, 99.0, 99.9)
BATCH = 10_000
START_US = 20_000 * DAY_US

DICE = np.random.default_rng(1)


def lognormal(n: int) -> Values:
    """Three decades, as latencies are."""
    return DICE.lognormal(3, 1, n)


def signed(n: int) -> Values:
    """Eight decades of both signs: more buckets than are kept, until neighbours are merged."""
    return DICE.choice([-1.0, 1.0], n) * 10.0 ** DICE.uniform(-4, 4, n)


def apply(store: Store, ts_us: TimestampsUs, values: Values, appended_us: int) -> None:
    store.apply([Events("default", ts_us, values, np.full(len(ts_us), appended_us))], appended_us)


def timed_ms(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1e3


def median_ms(call: Callable[[], object], times: int = 15) -> float:
    return sorted(timed_ms(call) for _ in range(times))[times // 2]


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
        starts = iter(range(10_000))

        def ask(ps: tuple[float, ...], store: Store = store, now_us: int = now_us) -> None:
            span = Span(START_US + next(starts) % 50 * MINUTE_US)
            store.statistics("default", [span], now_us, ps)

        print(f"  count to variance      {median_ms(lambda: ask(())):8.3f} ms")
        print(f"  with five percentiles  {median_ms(lambda: ask(PS)):8.3f} ms")


def stalls(rate: int = 200_000, seconds: int = 100) -> None:
    """What a reader waits while events come in and are folded, with and without roll-ups.

    The raw retention is a minute here, so that a minute of events (12 million at 200,000/s) is folded each minute.
    """
    print(f"a reader's waits while {rate:,} events/s come in, for {seconds} s: p50, p99.9, worst")
    for what, retention in (
        ("events are dropped ", Retention(MINUTE_US)),
        ("events are rolled up", Retention(MINUTE_US, DAY_US)),
    ):
        store = Store(retention)
        began_s = time.perf_counter()
        done = threading.Event()
        waits: list[float] = []
        folding: list[float] = []

        def now_us(began_s: float = began_s) -> int:
            return START_US + 30 * SECOND_US + int((time.perf_counter() - began_s) * 1e6)

        def read(store: Store = store, done: threading.Event = done, waits: list[float] = waits) -> None:
            while not done.is_set():
                asked_us = now_us()
                began = time.perf_counter()
                store.statistics("default", [Span(asked_us - 30 * SECOND_US)], asked_us)
                waits.append((time.perf_counter() - began) * 1e3)
                time.sleep(0.001)

        def fold(store: Store = store, done: threading.Event = done, folding: list[float] = folding) -> None:
            while not done.wait(1.0):
                began = time.perf_counter()
                if store.expire():
                    folding.append(time.perf_counter() - began)

        threads = [threading.Thread(target=each) for each in (read, fold)]
        for thread in threads:
            thread.start()
        values = lognormal(BATCH)
        for batch in range(seconds * rate // BATCH):
            if (ahead_s := began_s + batch * BATCH / rate - time.perf_counter()) > 0:
                time.sleep(ahead_s)
            at_us = now_us()
            apply(store, at_us - np.arange(BATCH, 0, -1), values, at_us)
        done.set()
        for thread in threads:
            thread.join()
        waits.sort()
        at = [waits[int(len(waits) * part)] for part in (0.5, 0.999)]
        took = ", ".join(f"{each * 1e3:.0f} ms" for each in folding)
        print(f"  {what}  {at[0]:7.3f} {at[1]:7.3f} {waits[-1]:7.3f} ms of {len(waits):,}; it took {took}", flush=True)


def ingest(minutes: int = 12) -> None:
    """Batches through the whole app while time passes, with everything kept for a minute and the grace: steady state.

    Each simulated minute brings 1.2 million events of one series, then housekeeping with compaction. Best of two.
    """
    print("batch ingest in one process with a SQLite journal, expiry and compaction included:")
    took: dict[int, float] = {}
    for _ in range(2):
        for rollup_retention_us in (0, DAY_US):
            with tempfile.TemporaryDirectory() as folder:
                clock = [START_US]
                settings = Settings(
                    journal=f"sqlite:///{folder}/events.db",
                    retention_us=MINUTE_US,
                    window_us=MINUTE_US,
                    rollup_retention_us=rollup_retention_us,
                )
                app = create_app(settings, clock_us=lambda clock=clock: clock[0], background=False)
                client = app.test_client()
                began_s = time.perf_counter()
                spent_s = 0.0
                for _ in range(minutes):
                    for _ in range(120):
                        clock[0] += MINUTE_US // 120
                        ts_us = clock[0] - np.arange(BATCH, 0, -1)
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


PARTS = {"questions": questions, "stalls": stalls, "ingest": ingest}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
