"""The Redis journal beside SQLite's, and what more machines cost: `python -m benchmarks.machines [--rounds 4]`.

One redis-server (appendonly yes, appendfsync everysec) on the machine that is measured. Servers take turns, round after
round, and the best of each counts; believe the ratios. For more machines than there are cores it counts work instead of
time: each process says how much CPU it used, for recording and for following, and the server says how much it did.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import multiprocessing.synchronize
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bulk import BATCH, TYPES, bodies, ingest
from benchmarks.decoding import as_columns, as_json
from benchmarks.journal import SINGLE, best_us
from benchmarks.load import Load, events, get, run_load
from statsapi.config import Settings
from statsapi.journal import START, Journal, Proposal, open_journal
from statsapi.model import EventBatch, Part
from statsapi.service.view import View
from tests import servers
from tests.servers import RedisServer, gunicorn_server

RETENTION = Settings().retention()


BINARY = shutil.which("redis-server") or shutil.which("valkey-server") or ""


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    with (
        tempfile.TemporaryDirectory() as scratch,
        servers.redis_server(BINARY, Path(scratch), appendfsync="everysec") as server,
    ):
        yield server


def cpu_s(server: RedisServer) -> float:
    """What the server's main thread has used of a processor so far."""
    rows = dict(row.split(":") for row in server.send("INFO", "cpu").split() if row.count(":") == 1)
    return float(rows["used_cpu_user_main_thread"]) + float(rows["used_cpu_sys_main_thread"])


def http(rounds: int, seconds: float) -> None:
    print("Over HTTP, two workers each, 16 keep-alive connections (goal: POST 0.8)\n")
    print("| | SQLite | Redis | ratio | CPU of redis-server a request |\n|---|---|---|---|---|")
    with redis_server() as server, tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        targets = {}
        for name, url in (("SQLite", None), ("Redis", server.journal_url("http"))):
            env = {"STATSAPI_JOURNAL": url} if url else {}
            gunicorn = stack.enter_context(gunicorn_server(Path(scratch) / name, workers=2, env=env))
            gunicorn.wait_for_journals(2)
            targets[name] = gunicorn.target
        for what, make in (("POST /event", events), ("GET /statistics", lambda: get("/statistics"))):
            best: dict[str, Load] = {}
            requests, busy_s = 0, -cpu_s(server)
            for _ in range(rounds):
                for name, target in targets.items():
                    load = run_load(target, make(), connections=16, seconds=seconds)
                    assert load.errors == 0, load
                    requests += load.requests * (name == "Redis")
                    if name not in best or load.rate > best[name].rate:
                        best[name] = load
            shown = [f"{best[name].rate:,.0f}/s, p99 {best[name].p99_ms:.1f} ms" for name in targets]
            each_us = (
                1e6 * (busy_s + cpu_s(server)) / requests * seconds / (seconds + 0.5)
            )  # the warm-up is not counted
            ratio = best["Redis"].rate / best["SQLite"].rate
            print(f"| {what} | {' | '.join(shown)} | {ratio:.2f} | {each_us:.0f} µs |", flush=True)
    print()


def batches(rounds: int) -> None:
    print("Batches of 10,000 over HTTP, two workers, two connections, M events/s (goal: 0.7)\n")
    print("| | SQLite | Redis | ratio |\n|---|---|---|---|")
    for form, encode in (("JSON array", as_json), ("columns", as_columns)):
        every = bodies(encode, 100)
        best = {"SQLite": 0.0, "Redis": 0.0}
        for _ in range(rounds):
            best["SQLite"] = max(best["SQLite"], ingest(2, 2, every, TYPES["json"]))
            with redis_server() as server:
                env = {"STATSAPI_JOURNAL": server.journal_url("batches")}
                best["Redis"] = max(best["Redis"], ingest(2, 2, every, TYPES["json"], env))
        sqlite, redis = best.values()
        print(f"| {form} | {sqlite / 1e6:.2f} | {redis / 1e6:.2f} | {redis / sqlite:.2f} |", flush=True)
    print()


def batch_of(count: int, number: int = 0) -> Proposal:
    """Events a microsecond apart, in order over rising numbers, of the past minute."""
    first_us = time.time_ns() // 1000 - 60_000_000 + number * count
    return Proposal(EventBatch((Part("default", first_us + np.arange(count), np.ones(count)),)))


def calls() -> None:
    print("In the process, one thread, µs\n\n| | |\n|---|---|")
    batch = batch_of(BATCH)
    with redis_server() as server, contextlib.closing(open_journal(server.journal_url("calls"))) as journal:
        journal.append(SINGLE)
        print(f"| PING, as the same client sends it | {best_us(lambda: ping(journal), 1000):.0f} |")
        print(f"| append one event | {best_us(lambda: journal.append(SINGLE), 1000):.0f} |")
        print(f"| append 10,000 events | {best_us(lambda: journal.append(batch), 30):.0f} |")
        print(f"| a decision | {best_us(lambda: journal.append(lambda: SINGLE), 500):.0f} |")
        mark = journal.append(batch).mark or START
        journal.read(mark)
        print(f"| read, nothing new | {best_us(lambda: journal.read(mark), 1000):.0f} |")
    print()


def ping(journal: Any) -> None:
    from statsapi.journal.redis_primary import Call

    journal._server.primary.calls([Call("PING")])


def follow(journal: Journal, view: View, records: int) -> tuple[int, float]:
    """Events that were new to the view, and the seconds it took."""
    before, start = view.last_caught_up().sizes.event_count(), time.perf_counter()
    view.catch_up()
    return view.last_caught_up().sizes.event_count() - before, time.perf_counter() - start


def following() -> None:
    print("A view that follows what another process wrote (goal: 500,000 events/s)\n")
    print("| records of | behind by | events/s | a record |\n|---|---|---|---|")
    for count, records in ((1, 500), (1, 50_000), (100, 1000), (10_000, 5), (10_000, 300)):
        with redis_server() as server:
            writer, reader = open_journal(server.journal_url("f")), open_journal(server.journal_url("f"))
            view = View(reader, RETENTION)
            writer.append(SINGLE)
            view.catch_up()
            best = 0.0
            for _ in range(3):
                fill(server, writer, count, records)
                found, took = follow(reader, view, records)
                best = max(best, found / took)
            each = f"{1e6 * count / best:,.1f} µs"
            print(f"| {count:,} | {records:,} records | {best:,.0f} | {each} |", flush=True)
            writer.close()
            reader.close()
    print()


def fill(server: RedisServer, writer: Any, count: int, records: int) -> None:
    """Append fast: many in one script call."""
    at_once = 1000 if count < 1000 else 10
    for first in range(0, records, at_once):
        numbers = range(first, min(records, first + at_once))
        requests = [writer._appends.group.request(batch_of(count, number), None) for number in numbers]
        writer._appends._send(requests, time.monotonic() + 60)


# More machines


def machine(
    url: str,
    rate: int,
    seconds: float,
    size: int,
    barrier: multiprocessing.synchronize.Barrier,
    results: multiprocessing.Queue[tuple[int, float, int, float]],
) -> None:
    """One machine's share of the work: record `rate` records a second, and follow everybody's twenty times a second."""
    journal = open_journal(url)
    view = View(journal, RETENTION)
    view.catch_up()
    barrier.wait()
    begun, recorded, record_s, follow_s, before = (
        time.perf_counter(),
        0,
        0.0,
        0.0,
        view.last_caught_up().sizes.event_count(),
    )
    while (now := time.perf_counter() - begun) < seconds:
        start = time.process_time()
        while recorded < rate * now:
            journal.append(batch_of(size))
            recorded += 1
        middle = time.process_time()
        view.catch_up()
        record_s += middle - start
        follow_s += time.process_time() - middle
        time.sleep(max(0.0, 0.05 - (time.perf_counter() - begun - now)))
    barrier.wait()
    view.catch_up()
    results.put((recorded, record_s, view.last_caught_up().sizes.event_count() - before, follow_s))
    journal.close()


def machines(rate: int, size: int, seconds: float) -> None:
    print(f"More machines: each records {rate:,} records/s of {size:,} and follows all of them; CPU µs a record\n")
    print("| machines | recorded/s | recording its own | following one of anybody's | the server, each | server busy |")
    print("|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for count in (1, 2, 4, 8):
        with redis_server() as server:
            barrier, results = context.Barrier(count + 1), context.Queue()
            arguments = (server.journal_url("m"), rate, seconds, size, barrier, results)
            started = [context.Process(target=machine, args=arguments) for _ in range(count)]
            for process in started:
                process.start()
            barrier.wait()
            before, begun = cpu_s(server), time.perf_counter()
            barrier.wait()
            busy, took = cpu_s(server) - before, time.perf_counter() - begun
            found = [results.get() for _ in started]
            for process in started:
                process.join()
            recorded = sum(row[0] for row in found)
            record = 1e6 * sum(row[1] for row in found) / recorded
            followed = 1e6 * sum(row[3] for row in found) / (sum(row[2] for row in found) / size)
            print(
                f"| {count} | {recorded / took:,.0f} | {record:.0f} | {followed:.1f} | {1e6 * busy / recorded:.0f} "
                f"| {busy / took:.0%} |",
                flush=True,
            )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", choices=("http", "batches", "calls", "following", "machines"))
    args = parser.parse_args()
    if not BINARY:
        print("Left out: neither redis-server nor valkey-server is installed.")
        return
    print(f"{platform.platform()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n")
    parts = {
        "http": lambda: http(args.rounds, args.seconds),
        "batches": lambda: batches(args.rounds),
        "calls": calls,
        "following": following,
        "machines": lambda: (machines(250, 1, 6.0), machines(10, 10_000, 6.0)),
    }
    for name, run in parts.items():
        if args.only in (None, name):
            run()


if __name__ == "__main__":
    main()
