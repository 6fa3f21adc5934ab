"""The numeric core alone, without HTTP, journal or lock: `python -m benchmarks.timeline [--events N]`.

Every line is the median (and the worst) of many; edges move from one question to the next, so that no cache of answers
helps where the line does not say so. Memory is what tracemalloc has counted, which sees numpy's arrays. It takes about
a minute and 500 MB for 10 million events.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from statsapi.engine.exact import scaled_sums
from statsapi.engine.timeline import Timeline
from statsapi.model import TimestampsUs, Values

SPACING_US = 360  # 10 million events in an hour
BATCH = 10_000
PS = (50, 90, 95, 99)


def timed(run: Callable[[], object]) -> float:
    """One call, in µs of this thread's processor time: what else runs on the machine shows in caches only."""
    before = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - before) / 1000


def report(what: str, times_us: list[float], per: str = "") -> float:
    median = statistics.median(times_us)
    print(f"{what:<74} {show(median):>10} {show(max(times_us)):>10} {per}", flush=True)
    return median


def show(us: float) -> str:
    return f"{us:.2f} µs" if us < 1000 else f"{us / 1000:.2f} ms"


def events(n: int, seed: int = 1) -> tuple[TimestampsUs, Values]:
    rng = np.random.default_rng(seed)
    return np.arange(n, dtype=np.int64) * SPACING_US, rng.lognormal(3, 1, n)


def batches(ts_us: TimestampsUs, values: Values) -> Iterator[tuple[TimestampsUs, Values]]:
    for i in range(0, len(ts_us), BATCH):
        yield ts_us[i : i + BATCH], values[i : i + BATCH]


def load(ts_us: TimestampsUs, values: Values) -> tuple[Timeline, list[float]]:
    timeline = Timeline()
    return timeline, [timed(lambda b=batch: timeline.insert(*b)) for batch in batches(ts_us, values)]


def lowered(timeline: Timeline, start_us: int) -> None:
    summary = timeline.summarise(start_us, None)
    assert summary.mean is not None
    assert summary.variance is not None


def cuts(n: int, times: int) -> list[int]:
    """Starts anywhere in the first tenth of n events."""
    rng = random.Random(7)
    return [rng.randrange(n * SPACING_US // 10) for _ in range(times)]


def sums() -> None:
    rng = np.random.default_rng(2)
    cases = {
        "log-normal": rng.lognormal(3, 1, 8192),
        "one decimal": np.round(rng.random(8192) * 100, 1),
        "spread over 2**60": rng.lognormal(0, 8, 8192),
        "any bits at all": (bits := rng.integers(0, 2**64, 9000, np.uint64).view(np.float64))[np.isfinite(bits)][:8192],
    }
    for name, values in cases.items():
        times = [timed(lambda v=values: scaled_sums(v)) * 1000 / len(values) for _ in range(50)]
        print(f"{'scaled_sums of 8,192 values, ' + name:<74} {statistics.median(times):7.1f} ns an event")


def questions(timeline: Timeline, n: int) -> float:
    lowered(timeline, 0)
    label = f"{n:,} events: "
    median = report(
        label + "summarise, mean, variance; start anywhere",
        [timed(lambda s=s: lowered(timeline, s)) for s in cuts(n, 300)],
    )
    start_us = n * SPACING_US // 20
    sliding = [timed(lambda i=i: lowered(timeline, start_us + i * SPACING_US)) for i in range(300)]
    report(label + "the same, sliding on by one event", sliding)
    start_us += 300 * SPACING_US
    lowered(timeline, start_us)
    report(label + "the same, past no event", [timed(lambda: lowered(timeline, start_us)) for _ in range(300)])
    report(label + f"percentiles {PS}", [timed(lambda s=s: timeline.percentiles(s, None, PS)) for s in cuts(n, 15)])
    timeline.percentiles(None, None, PS)
    report(label + "the same, unchanged", [timed(lambda: timeline.percentiles(None, None, PS)) for _ in range(50)])
    return median


def memory(order: str, ts_us: TimestampsUs, values: Values) -> None:
    n = len(ts_us)
    gc.collect()
    tracemalloc.start()
    timeline, _ = load(ts_us, values)
    timeline.summarise(None, None)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    label = f"memory, {n:,} events {order}"
    print(f"{label:<74} {held / n:7.1f} B an event (says itself {timeline.nbytes / n:.1f})")


def in_order(n: int) -> None:
    ts_us, values = events(n)
    memory("in order", ts_us, values)
    timeline, times = load(ts_us, values)
    report("insert 10,000 in order", times, f"{n / sum(times):.1f} M events/s")
    small, _ = load(*events(1000))
    few = questions(small, 1000)
    if n > 1_000_000:
        questions(load(*events(1_000_000))[0], 1_000_000)
    many = questions(timeline, n)
    print(f"{f'summarise: {n:,} events against 1,000':<74} {many / few:7.2f} times")
    step_us = n * SPACING_US // 60
    report(f"{n:,} events: steps, 60 of them", [timed(lambda s=s: timeline.steps(s, step_us, 60)) for s in cuts(n, 5)])
    repeated(ts_us, np.round(values / 20))
    freezing = report(f"{n:,} events: freeze", [timed(lambda: timeline.freeze(None, None)) for _ in range(10)])
    walk = timed(lambda: sum(len(piece[0]) for piece in timeline.freeze(None, None).drain()))
    print(f"{f'{n:,} events: walk of what is frozen':<74} {(walk - freezing) * 1000 / n:7.1f} ns an event")
    last_us = timeline.last_ts_us
    one, value = np.empty(1, np.int64), np.array([3.5])
    singles, lates, reads = [], [], []
    for i in range(20_000):
        one[0] = last_us + i
        singles.append(timed(lambda: timeline.insert(one, value)))
    report("insert one, in order", singles)
    for i in range(20_000):
        one[0] = last_us - 5_000_000 - i % 1000
        lates.append(timed(lambda: timeline.insert(one, value)))
        if i % 10 == 0:
            reads.append(timed(lambda s=n * SPACING_US // 10 + i * SPACING_US: lowered(timeline, s)))
    report("insert one, 5 s late", lates)
    report("summarise after ten of those", reads)
    report("expire 10 s' worth", [timed(lambda i=i: timeline.expire_before(i * 10_000_000)) for i in range(1, 50)])
    report("expire all that is left", [timed(lambda: timeline.expire_before(last_us * 2))])


def repeated(ts_us: TimestampsUs, values: Values) -> None:
    timeline = Timeline()
    timeline.insert(ts_us, values)
    n = len(ts_us)
    times = [timed(lambda s=s: timeline.percentiles(s, None, PS)) for s in cuts(n, 15)]
    report(f"{n:,} events, 60 different values: percentiles {PS}", times)


def random_order(n: int) -> None:
    ts_us, values = events(n)
    order = np.random.default_rng(3).permutation(n)
    ts_us, values = ts_us[order], values[order]
    memory("in random order", ts_us, values)
    timeline, times = load(ts_us, values)
    report("insert 10,000 in random order", times, f"{n / sum(times):.1f} M events/s")
    report("summarise, the first after the load in random order", [timed(lambda: lowered(timeline, 5_000_000))])
    report("percentiles, the first after it", [timed(lambda: timeline.percentiles(5_000_000, None, PS))])


def steady(n: int, seconds: int) -> None:
    """200,000 events a second in batches of 1,000, each up to 2 s late, a question each 10 ms, expiry each second."""
    ts_us, values = events(n)
    timeline, _ = load(ts_us, values)
    window_us = n * SPACING_US
    now_us = window_us
    rng = np.random.default_rng(4)
    inserts: list[float] = []
    reads: list[float] = []
    expiries: list[float] = []
    for i in range(200 * seconds):
        now_us += 5_000
        batch = now_us - rng.integers(0, 2_000_000, 1000)
        inserts.append(timed(lambda b=batch: timeline.insert(b, values[:1000])))
        if i % 2:
            reads.append(timed(lambda from_us=now_us - window_us: lowered(timeline, from_us)))
        if i % 200 == 0:
            expiries.append(timed(lambda from_us=now_us - window_us: timeline.expire_before(from_us)))
    report("steady, 200,000 events/s up to 2 s late: insert 1,000", inserts)
    report("steady: summarise after every other of them", reads)
    report("steady: expire", expiries)


def many_small(n_series: int) -> None:
    ts_us, values = events(10)
    gc.collect()
    tracemalloc.start()
    series = []
    for _ in range(n_series):
        timeline = Timeline()
        for i in range(10):
            timeline.insert(ts_us[i : i + 1], values[i : i + 1])
        timeline.summarise(None, None)
        series.append(timeline)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"{f'memory, {n_series:,} series of 10 events, each asked once':<74} {held / n_series:7.0f} B a series")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    n = parser.parse_args().events
    print(f"{'':<74} {'median':>10} {'worst':>10}")
    sums()
    in_order(n)
    random_order(n)
    steady(n, seconds=10)
    many_small(20_000)


if __name__ == "__main__":
    main()
