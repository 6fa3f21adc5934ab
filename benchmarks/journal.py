"""What the journal costs: `python -m benchmarks.journal [folder]`. Prints a table; compare ratios, not machines."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np

from statsapi.journal import START, Journal, Proposal, open_journal
from statsapi.journal.columns import decode_records
from statsapi.journal.format import encode
from statsapi.model import EventBatch, Part

THREADS = 4
SECONDS = 2.0

SINGLE = Proposal(EventBatch.single("default", 0, 1.5))


def best_us(call: Callable[[], object], calls: int, rounds: int = 5) -> float:
    """The least of several rounds' averages: the others tell of the neighbours."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return min(times)


def worker(
    url: str,
    fsync: str,
    barrier: multiprocessing.synchronize.Barrier,
    results: multiprocessing.Queue[tuple[int, list[float]]],
) -> None:
    journal = open_journal(url, fsync=fsync)
    counts, waits, stop = [0] * THREADS, [[] for _ in range(THREADS)], threading.Event()

    def append(at: int) -> None:
        while not stop.is_set():
            start = time.perf_counter()
            journal.append(SINGLE)
            waits[at].append(time.perf_counter() - start)
            counts[at] += 1

    def maintain() -> None:
        while not stop.wait(1.0):
            journal.maintain()

    barrier.wait()
    threads = [threading.Thread(target=append, args=(at,)) for at in range(THREADS)]
    threads.append(threading.Thread(target=maintain))
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    journal.close()
    results.put((sum(counts), [wait for part in waits for wait in part]))


def under_load(folder: str, processes: int, fsync: str) -> str:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    url = f"sqlite:///{folder}/load-{processes}-{fsync}.db"
    started = [context.Process(target=worker, args=(url, fsync, barrier, results)) for _ in range(processes)]
    for process in started:
        process.start()
    found = [results.get() for _ in started]
    for process in started:
        process.join()
    waits = np.concatenate([part for _, part in found]) * 1e3
    low, high = np.percentile(waits, [50, 99])
    rate = sum(count for count, _ in found) / SECONDS
    share = min(count for count, _ in found) / max(count for count, _ in found)
    return f"{rate:8,.0f}/s   p50 {low:6.2f} ms   p99 {high:6.1f} ms   least/most of a process {share:.2f}"


def replay(journal: Journal) -> tuple[int, int, float]:
    start = time.perf_counter()
    records, events, mark = 0, 0, START
    while (segment := journal.read(mark)).records:
        mark = segment.mark
        records += segment.records
        events += sum(len(change.values) for change in segment.changes if hasattr(change, "values"))
    return records, events, time.perf_counter() - start


def one_thread(url: str, batch: Proposal) -> None:
    name = url.partition(":")[0]
    journal = open_journal(url)
    print(f"{name}: append one event           {best_us(lambda: journal.append(SINGLE), 2000):8.1f} µs")
    journal.maintain()
    mark = journal.append(SINGLE).mark or START
    print(f"{name}: nothing new                {best_us(lambda: journal.read(mark), 2000):8.1f} µs")
    print(f"{name}: append 10,000 events       {best_us(lambda: journal.append(batch), 50):8.1f} µs")
    journal.maintain()
    last = journal.append(batch).mark or START
    print(f"{name}: nothing new after a batch  {best_us(lambda: journal.read(last), 2000):8.1f} µs")
    journal.close()


def main(folder: str) -> None:
    for fsync in ("interval", "always"):
        for processes in (1, 2, 4):
            print(f"append, {fsync:8} {processes} x {THREADS} threads  {under_load(folder, processes, fsync)}")
    batch = Proposal(EventBatch((Part("default", np.arange(10_000), np.ones(10_000)),)))
    wide = EventBatch(tuple(Part(f"series {i}", np.arange(1), np.ones(1)) for i in range(100_000)))
    for url in ("memory://", f"sqlite:///{folder}/one.db"):
        one_thread(url, batch)
    for name, series in (("one series", 1), ("1,000 series", 1000)):
        journal = open_journal(f"sqlite:///{folder}/replay-{series}.db")
        for number in range(300_000 // 1000):
            names = [f"series {(1000 * number + i) % series}" for i in range(1000)]
            fill(journal, names)
        journal.maintain()
        records, _, took = min((replay(journal) for _ in range(3)), key=lambda result: result[2])
        print(f"replay, single events, {name}: {records / took:,.0f} records/s")
        journal.close()
    payload, singles = encode(wide), [encode(EventBatch.single("default", 0, 1.5))] * 100_000
    print(
        f"decode 100,000 parts in one record   {best_us(lambda: list(decode_records([1], [1], [payload])), 1):8.0f} µs"
    )
    print(f"encode them                          {best_us(lambda: encode(wide), 1):8.0f} µs")
    stamps = range(len(singles))
    print(f"decode 100,000 single-event records  {best_us(lambda: decode_records(stamps, stamps, singles), 1):8.0f} µs")


def fill(journal: Journal, names: list[str]) -> None:
    for name in names:
        journal.append(Proposal(EventBatch.single(name, 0, 1.5)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        scratch = tempfile.mkdtemp()
        try:
            main(scratch)
        finally:
            shutil.rmtree(scratch)
