"""Reads while batches come in at full speed: `python -m benchmarks.pressure [--seconds 8] [--workers 1 2] ...`.

Some connections post batches of 10,000 events as fast as they are answered, in order of time or late (each batch at a
random second of the past fifty minutes). A further one asks GET /statistics, with or without percentiles, every few
milliseconds. Printed are the rate of acknowledged events, the latency of the answers, how many of them lacked an event
that had been acknowledged before the question, and how many posts were told to wait (429, 503). Goals: p99 under
100 ms and worst under 300 ms with two connections, late or not.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from benchmarks.bulk import BATCH, connection
from tests.servers import gunicorn_server

_SECOND = b"2000-01-01T00:00:00"


def template(seed: int) -> bytes:
    """A batch of columns that lies within one second, whose text is replaced for each batch."""
    rng = np.random.default_rng(seed)
    stamps = [f"2000-01-01T00:00:00.{i * 100:06d}Z" for i in range(BATCH)]
    values = np.round(rng.lognormal(3, 1, BATCH), 3).tolist()
    return json.dumps({"timestamp": stamps, "value": values}, separators=(",", ":")).encode()


def write(
    target: str,
    number: int,
    writers: int,
    late: bool,
    seconds: float,
    counted: Synchronized[int],
    refused: Synchronized[int],
    barrier: Barrier,
) -> None:
    body = template(number)
    pick = random.Random(number)
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(minutes=50)
    with connection(target) as client:
        client.connect()
        barrier.wait()
        end = time.perf_counter() + seconds
        sent = 0
        while time.perf_counter() < end:
            offset_s = pick.randrange(3000) if late else (sent * writers + number) % 3000
            second = (start + timedelta(seconds=offset_s)).isoformat().encode()
            client.request("POST", "/events", body.replace(_SECOND, second), {"Content-Type": "application/json"})
            response = client.getresponse()
            answer = response.read()
            if response.status in (429, 503):
                with refused.get_lock():
                    refused.value += 1
                time.sleep(float(response.headers.get("Retry-After", "1")) / 20)
                continue
            assert response.status == 200, answer
            with counted.get_lock():
                counted.value += BATCH
            sent += 1


def ask(client: http.client.HTTPConnection, path: str) -> int:
    client.request("GET", path)
    response = client.getresponse()
    body = response.read()
    assert response.status == 200, body
    count: int = json.loads(body)["count"]
    return count


def run(workers: int, writers: int, late: bool, path: str, seconds: float, pause_s: float) -> str:
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=workers) as server:
        server.wait_for_journals(workers)
        barrier = context.Barrier(writers + 1)
        counted: Synchronized[int] = context.Value("q", 0)
        refused: Synchronized[int] = context.Value("q", 0)
        clients = [
            context.Process(target=write, args=(server.target, i, writers, late, seconds, counted, refused, barrier))
            for i in range(writers)
        ]
        for client in clients:
            client.start()
        waits: list[float] = []
        stale = 0
        barrier.wait()
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            time.sleep(pause_s)
            with connection(server.target) as reader:  # a new one each time, so that it meets every worker
                at_least = counted.value
                start = time.perf_counter()
                count = ask(reader, path)
                waits.append((time.perf_counter() - start) * 1e3)
                stale += count < at_least
        took = time.perf_counter() - begun
        for client in clients:
            client.join()
    cuts = statistics.quantiles(waits, n=100)
    return (
        f"| {workers} | {writers} | {'late' if late else 'in order'} | {path} | {counted.value / took / 1e6:.2f} M/s |"
        f" {cuts[49]:.1f} | {cuts[98]:.0f} | {max(waits):.0f} | {len(waits)} | {stale} | {refused.value} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two questions")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    print("| workers | writers | order | question | acked | p50 ms | p99 ms | worst ms | reads | stale | refused |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for workers in args.workers:
        for writers in args.writers:
            for late in (False, True):
                for path in ("/statistics", "/statistics?window=1h&percentiles=50,99"):
                    for _ in range(args.rounds):
                        print(run(workers, writers, late, path, args.seconds, args.pause), flush=True)


if __name__ == "__main__":
    main()
