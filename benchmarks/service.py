"""The service over HTTP beside its peers, in one run: a table of ratios.

    python -m benchmarks.service [--seconds 3] [--rounds 3]

The servers take turns, round after round, and the best round of each counts: statsapi (two workers, the SQLite journal,
fsync=interval) without and with API keys, a bare Flask hello on the same Gunicorn settings, the seed's design as
documented, and the same at its best. Then GET /statistics with a million events stored.
"""

from __future__ import annotations

import argparse
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import Load, events, get, run_load
from statsapi.journal import Proposal, open_journal
from statsapi.keys import new_key
from statsapi.model import EventBatch, Part
from tests.servers import ROOT, gunicorn_server, wait_until

MILLION = 1_000_000


def preload(directory: Path, events: int) -> None:
    """A journal of this many events of the last 50 minutes, in any order."""
    directory.mkdir(parents=True)
    journal = open_journal(f"sqlite:///{directory}/events.db")
    now_us = time.time_ns() // 1000
    rng = np.random.default_rng(1)
    for _ in range(events // 10_000):
        ts_us = now_us - rng.integers(0, 3_000_000_000, 10_000)
        journal.append(Proposal(EventBatch((Part("default", ts_us, rng.lognormal(3, 1, 10_000)),))))
    journal.close()


@contextmanager
def statsapi(directory: Path, preloaded: int = 0, env: dict[str, str] | None = None) -> Iterator[str]:
    if preloaded:
        preload(directory, preloaded)
    with gunicorn_server(directory, workers=2, env=env) as server:
        server.wait_for_journals(2)
        yield server.target


@contextmanager
def hello(directory: Path) -> Iterator[str]:
    with gunicorn_server(directory, workers=2, app="benchmarks.hello:app") as server:
        time.sleep(2)  # for the second worker, which has nothing to say
        yield server.target


@contextmanager
def seed(directory: Path, *arguments: str) -> Iterator[str]:
    directory.mkdir(parents=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with (directory / "log").open("wb") as log:
        command = [sys.executable, "-m", "benchmarks.peer_seed", "--port", str(port), *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:

            def listening() -> bool:
                assert process.poll() is None, (directory / "log").read_text()
                with socket.socket() as sock:
                    return sock.connect_ex(("127.0.0.1", port)) == 0

            wait_until(listening, "the peer to listen")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


KEY, HELD = new_key(["write"], "benchmark")

SERVERS: dict[str, Callable[[Path], Any]] = {
    "statsapi": statsapi,
    "statsapi, keys on": lambda directory: statsapi(directory, env={"STATSAPI_API_KEYS": HELD.line()}),
    "Flask hello": hello,
    "seed, as documented": seed,
    "seed, at its best": lambda directory: seed(directory, "--best"),
}


def rounds(servers: dict[str, Callable[[Path], Any]], args: argparse.Namespace, make: Any, connections: int) -> None:
    best: dict[str, Load] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        targets = {name: stack.enter_context(start(Path(scratch) / name)) for name, start in servers.items()}
        for _ in range(args.rounds):
            for name, target in targets.items():
                load = run_load(target, make(), connections=connections, seconds=args.seconds)
                if name not in best or load.rate > best[name].rate:
                    best[name] = load
    ours = best["statsapi"]
    print("| | requests/s | p50 ms | p99 ms | errors | statsapi is |\n|---|---|---|---|---|---|")
    for name, load in best.items():
        ratio = f"{ours.rate / load.rate:.2f} ×"
        print(f"| {name} | {load.rate:,.1f} | {load.p50_ms:.2f} | {load.p99_ms:.2f} | {load.errors} | {ratio} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n")
    print("POST /event, 16 keep-alive connections (goals: 1.6 × the documented seed, 0.65 × hello)\n")
    rounds(SERVERS, args, lambda: events(key=KEY), 16)
    print("GET /statistics, few events\n")
    open_to_all = {name: server for name, server in SERVERS.items() if name != "statsapi, keys on"}
    rounds(open_to_all, args, lambda: get("/statistics"), 16)
    print("GET /statistics, a million events (goal: 1,000 × the seed)\n")
    full = {
        "statsapi": lambda directory: statsapi(directory, MILLION),
        "seed, at its best": lambda directory: seed(directory, "--best", "--preload", str(MILLION)),
    }
    rounds(full, args, lambda: get("/statistics"), 4)


if __name__ == "__main__":
    main()
