"""Batches in, exports out, and reads meanwhile, over HTTP: `python -m benchmarks.bulk [--events N] [--rounds 3]`.

Events per second until a GET has counted them all, the best of some rounds; beside each the plainest thing that could
be done with as many events in the same run, `json.loads` alone, so that the ratio travels where the rate does not. A
new server with an empty SQLite journal (fsync=interval) for every round. The clients are processes of their own and
send bodies that were made before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from benchmarks.decoding import Event, as_columns, as_csv, as_json, as_ndjson, iso
from tests.servers import Server, gunicorn_server

BATCH = 10_000
TYPES = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}


def batch(first_us: int, seed: int, events: int = BATCH, step_us: int = 300) -> list[Event]:
    rng = np.random.default_rng(seed)
    ts_us = first_us + step_us * np.arange(events)
    stamps = np.datetime_as_string(ts_us.astype("M8[us]"), unit="ms").tolist()
    values = np.round(rng.lognormal(3, 1, events), 3).tolist()
    return [{"timestamp": stamp + "Z", "value": value} for stamp, value in zip(stamps, values, strict=True)]


def with_integers(items: list[Event], first_us: int) -> list[Event]:
    return [item | {"timestamp": first_us // 1000 + row} for row, item in enumerate(items)]


def bodies(encode: Callable[[list[Event]], bytes], batches: int, *, integers: bool = False) -> list[bytes]:
    """This many batches in order of time, from half an hour ago on."""
    start_us = time.time_ns() // 1000 - 1_800_000_000
    made = []
    for number in range(batches):
        first_us = start_us + number * BATCH * 300
        items = batch(first_us, number)
        made.append(encode(with_integers(items, first_us) if integers else items))
    return made


@contextmanager
def connection(target: str) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(target.removeprefix("http://"))
    try:
        yield client
    finally:
        client.close()


def ask(client: http.client.HTTPConnection, path: str) -> dict[str, int]:
    client.request("GET", path)
    response = client.getresponse()
    body = response.read()
    assert response.status == 200, body
    answer: dict[str, int] = json.loads(body)
    return answer


def send(client: http.client.HTTPConnection, body: bytes, media_type: str, path: str = "/events") -> None:
    client.request("POST", path, body, {"Content-Type": media_type})
    response = client.getresponse()
    answer = response.read()
    assert response.status == 200, answer


def sender(target: str, mine: list[bytes], media_type: str, barrier: Barrier) -> None:
    with connection(target) as client:
        client.connect()
        barrier.wait()
        for body in mine:
            send(client, body, media_type)
        barrier.wait()


def ingest(
    workers: int, connections: int, every: list[bytes], media_type: str, env: dict[str, str] | None = None
) -> float:
    """Events a second of one round on a new server."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=workers, env=env) as server:
        server.wait_for_journals(workers)
        barrier = context.Barrier(connections + 1)
        clients = [
            context.Process(target=sender, args=(server.target, every[i::connections], media_type, barrier))
            for i in range(connections)
        ]
        for client in clients:
            client.start()
        barrier.wait()
        start = time.perf_counter()
        barrier.wait()
        with connection(server.target) as reader:
            counted = ask(reader, "/statistics")["count"]
        took = time.perf_counter() - start
        for client in clients:
            client.join()
        assert counted == len(every) * BATCH, (counted, len(every) * BATCH)
    return counted / took


def batches_in(events: int, rounds: int) -> None:
    print("Batches of 10,000, until a GET has counted them all (goals: 2, 2, 1.5, 3 M/s)\n")
    print("| | 1 worker, 1 connection | 2 workers, 2 connections | json.loads alone takes |\n|---|---|---|---|")
    forms: list[tuple[str, str, Callable[[list[Event]], bytes], bool]] = [
        ("JSON array, ISO timestamps", "json", as_json, False),
        ("NDJSON", "ndjson", as_ndjson, False),
        ("CSV", "csv", as_csv, False),
        ("columns, ISO timestamps", "json", as_columns, False),
        ("columns, integer timestamps", "json", as_columns, True),
    ]
    yardstick = bodies(as_json, 1)[0]
    loads = max(BATCH / seconds(lambda: json.loads(yardstick)) for _ in range(20))
    for name, form, encode, integers in forms:
        every = bodies(encode, events // BATCH, integers=integers)
        one, two = (max(ingest(n, n, every, TYPES[form]) for _ in range(rounds)) for n in (1, 2))
        print(f"| {name} | {one / 1e6:.2f} M/s | {two / 1e6:.2f} M/s | {one / loads:.2f} × its speed |", flush=True)
    print()


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def reads_meanwhile(duration_s: float) -> None:
    """One client sends 200,000 events/s in batches of 1,000; another asks, and compares with what was acknowledged."""
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=2) as server:
        acknowledged = 0
        stop = threading.Event()

        def write() -> None:
            nonlocal acknowledged
            start_us = time.time_ns() // 1000 - 60_000_000
            made = [as_columns(batch(start_us + i * 5_000, i, 1000, step_us=5)) for i in range(50)]
            begun = time.perf_counter()
            number = 0
            with connection(server.target) as client:
                while not stop.is_set():
                    send(client, made[number % len(made)], TYPES["json"])
                    number += 1
                    acknowledged = number * 1000
                    time.sleep(max(0.0, begun + number / 200 - time.perf_counter()))

        writer = threading.Thread(target=write)
        writer.start()
        waits, stale, begun = [], 0, time.perf_counter()
        with connection(server.target) as client:
            while time.perf_counter() - begun < duration_s:
                at_least = acknowledged
                start = time.perf_counter()
                count = ask(client, "/statistics")["count"]
                waits.append((time.perf_counter() - start) * 1e3)
                stale += count < at_least
                time.sleep(0.002)
        took = time.perf_counter() - begun
        stop.set()
        writer.join()
    cuts = statistics.quantiles(waits, n=100)
    print(
        f"GET /statistics while {acknowledged / took:,.0f} events/s come in: p50 {cuts[49]:.2f} ms,"
        f" p99 {cuts[98]:.2f} ms, worst {max(waits):.2f} ms; {stale} of {len(waits)} stale (goals: p99 10 ms, none)\n"
    )


def filled(server: Server, events: int) -> None:
    with connection(server.target) as client:
        for body in bodies(as_csv, events // BATCH):
            send(client, body, TYPES["csv"])
        assert ask(client, "/statistics")["count"] == events


def exports(events: int) -> None:
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=1) as server:
        filled(server, events)
        (worker,) = server.workers()
        before = peak_kib(worker, reset=True)
        size, start = 0, time.perf_counter()
        with connection(server.target) as client:
            client.request("GET", "/events?format=csv")
            response = client.getresponse()
            while piece := response.read1(1 << 20):
                size += piece.count(b"\n")
        took = time.perf_counter() - start
        grown = (peak_kib(worker) - before) / 1024
    assert size == events + 1
    print(
        f"Export of {events:,} events as CSV: {events / took:,.0f} events/s, peak memory +{grown:.1f} MB"
        " (goals: 500,000, 50)\n"
    )


def peak_kib(pid: int, *, reset: bool = False) -> int:
    """The process's largest resident size; with `reset` counted anew from now on."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


def windows(events: int) -> None:
    """Four windows in one question, against one asked twice."""
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=1) as server:
        filled(server, events)
        with connection(server.target) as client:

            def median_ms(query: str) -> float:
                times = [seconds(lambda: ask(client, f"/statistics?{query}&stats=all")) * 1e3 for _ in range(400)]
                return statistics.median(times)

            four, one = median_ms("windows=5m,15m,30m,1h"), median_ms("window=1h")
    print(f"windows= of four: {four:.2f} ms, window= of one: {one:.2f} ms: {four / one:.2f} times (goal: 2)\n")


def many_series(count: int) -> None:
    """As many series of ten events: the worker's memory, and what a question about one of them costs."""
    now_us = time.time_ns() // 1000
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=1) as server:
        (worker,) = server.workers()
        with connection(server.target) as client:

            def median_ms(series: str) -> float:
                path = f"/statistics?series={series}"
                return statistics.median(seconds(lambda: ask(client, path)) * 1e3 for _ in range(400))

            send(client, as_csv([{"timestamp": iso(now_us), "value": 1.0, "series": "s-0"}]), TYPES["csv"])
            alone = median_ms("s-0")
            before = resident_kib(worker)
            for first in range(0, count, 1000):
                rows = [
                    {"timestamp": iso(now_us - row * 1000), "value": row / 8, "series": f"s-{number}"}
                    for row in range(10)
                    for number in range(first, first + 1000)
                ]
                send(client, as_csv(rows), TYPES["csv"])
            among = median_ms(f"s-{count // 2}")
            each = (resident_kib(worker) - before) * 1024 / count
    print(
        f"{count:,} series of 10 events: {each:,.0f} bytes each (goal: 1,300);"
        f" a question about one {among:.2f} ms, alone {alone:.2f} ms\n"
    )


def listing(count: int, page: int = 1_000) -> None:
    """A page of GET /series among as many series, with raw events only, then with rolled-up ones as well."""
    print(f"GET /series, a page of {page:,} among {count:,} (goal: 3 ms)\n")

    def get(client: http.client.HTTPConnection, number: int) -> None:
        client.request("GET", f"/series?limit={page}&after=s-{number * page % (count - page):06}")
        client.getresponse().read()

    with (
        tempfile.TemporaryDirectory() as scratch,
        gunicorn_server(Path(scratch), workers=1) as server,
        connection(server.target) as client,
    ):
        for what, ages_s in (("raw events", (0, 600, 1_200)), ("rolled-up events as well", (7_200, 18_000))):
            now_us = time.time_ns() // 1000
            for first in range(0, count, 10_000):
                rows = [
                    {"timestamp": iso(now_us - age_s * 1_000_000 - number), "value": 1.0, "series": f"s-{number:06}"}
                    for age_s in ages_s
                    for number in range(first, min(first + 10_000, count))
                ]
                send(client, as_csv(rows), TYPES["csv"])
            time.sleep(10)  # they are rolled up meanwhile
            median_ms = statistics.median(seconds(partial(get, client, number)) for number in range(300)) * 1e3
            print(f"- with {what}: {median_ms:.2f} ms")
    print()


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n")
    batches_in(args.events, args.rounds)
    reads_meanwhile(10)
    exports(1_000_000)
    windows(1_000_000)
    many_series(100_000)
    listing(10_000)


if __name__ == "__main__":
    main()
