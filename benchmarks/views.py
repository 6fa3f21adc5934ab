"""What views cost, with shared events and without: `python -m benchmarks.views [--events 10000000] [--workers 1 2 4]`.

For each number of workers, in turn: the server is filled with batches of columns, in order or two thirds of them late
(`--late`). Printed are the memory of all workers above that of empty ones and the disk, by event; the memory's peak
while the workers are reloaded, as a multiple of before; and after restarts the seconds until /healthz answers, and
until all events are counted. Memory is PSS, with what is mapped from files. Goals: 18 bytes an event and 4 for each
worker, a peak below 2, 10 million events within 0.7 s.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.bulk import ask, connection, send
from tests.servers import Server, gunicorn_server, start_gunicorn, stop

_BATCH = 50_000
_SECONDS = 3_000
_SETTLED_S = 14.0  # an image is written ten seconds after the one before at the latest
_RELOAD_S = 8.0


def memory_bytes(server: Server) -> int:
    """Of all workers, each page that several have in parts."""
    total = 0
    for pid in server.workers():
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return total


def fill(server: Server, events: int, late: bool) -> None:
    rng = np.random.default_rng(1)
    start_us = time.time_ns() // 1000 - _SECONDS * 1_000_000
    with connection(server.target) as client:
        for first in range(0, events, _BATCH):
            ts_us = start_us + _SECONDS * 1_000_000 // events * np.arange(first, min(first + _BATCH, events))
            if late:
                ts_us -= (rng.random(len(ts_us)) < 2 / 3) * rng.integers(0, ts_us - start_us + 1)
            values = np.round(rng.lognormal(3, 1, len(ts_us)), 3)
            body = json.dumps({"timestamp": ts_us.tolist(), "value": values.tolist()}).encode()
            send(client, body, "application/json")


def seconds_until(server: Server, holds: Callable[[Server], bool], began_s: float) -> float:
    while True:
        with suppress(OSError, AssertionError):
            if holds(server):
                return time.perf_counter() - began_s
        time.sleep(0.005)


def counts(events: int) -> Callable[[Server], bool]:
    def all_are_counted(server: Server) -> bool:
        with connection(server.target) as client:
            return ask(client, "/statistics?window=1h")["count"] == events

    return all_are_counted


def restart(directory: Path, env: dict[str, str], workers: int, events: int) -> tuple[float, float]:
    began_s = time.perf_counter()
    server = start_gunicorn(directory, workers=workers, env=env)
    try:
        answers_s = seconds_until(server, lambda server: server.request("GET", "/healthz")[0] == 200, began_s)
        return answers_s, seconds_until(server, counts(events), began_s)
    finally:
        stop(server)


def measure(directory: Path, share: str, workers: int, events: int, late: bool, restarts: int) -> None:
    env = {"STATSAPI_SHARE_EVENTS": share, "STATSAPI_RETENTION": "3h", "STATSAPI_WINDOW": "3h"}
    with gunicorn_server(directory, workers=workers, env=env) as server:
        time.sleep(1)
        empty = memory_bytes(server)
        fill(server, events, late)
        for _ in range(8 * workers):
            assert counts(events)(server)
        time.sleep(_SETTLED_S)
        held = memory_bytes(server)
        disk = sum(path.stat().st_size for path in directory.rglob("events.db*") if path.is_file())
        disk += sum(path.stat().st_size for path in directory.rglob("*.part"))
        server.signal(signal.SIGHUP)
        peak, until_s = 0, time.monotonic() + _RELOAD_S
        while time.monotonic() < until_s:
            peak = max(peak, memory_bytes(server))
            time.sleep(0.05)
    started = [restart(directory, env, workers, events) for _ in range(restarts)]
    answers_s, ready_s = (statistics.median(column) for column in zip(*started, strict=True))
    print(
        f"| {workers} | {share} | {(held - empty) / events:.1f} | {disk / events:.1f} | {peak / held:.2f} | "
        f"{answers_s:.2f} s | {ready_s:.2f} s |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--restarts", type=int, default=3)
    args = parser.parse_args()
    print("| workers | shared | memory, B an event | disk, B an event | reload, times | /healthz after | all counted |")
    print("|---|---|---|---|---|---|---|")
    for workers in args.workers:
        for share in ("on", "off"):
            with tempfile.TemporaryDirectory() as directory:
                measure(Path(directory), share, workers, args.events, args.late, args.restarts)


if __name__ == "__main__":
    main()
