"""A service under half its load for twenty minutes: `make soak` or `python -m benchmarks.soak [--minutes 20]`.

Two workers on an SQLite journal, raw events for a minute (and five of grace), roll-ups for 20. Single events come at
half the rate that the machine reached just before. Each is due at its own instant, so that a stalled server is charged
for every event that it kept waiting. Beside them come batches, in order and late, deletions, questions of every kind
and, every two and a half minutes, a reload (HUP). The client keeps a list of one series' events and asks for that
series all the time: its count, min, max and mean must equal those of the list.

Every second the workers' memory, the journal's size, the descriptors and the latencies are noted. In the steady half,
once everything that expires has begun to, they must be flat: the last quarter of the run is compared with the quarter
before it. The figures are printed, and drawn as SVG (benchmarks/results/soak.svg). Exit status 1 when one of them grew
or an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.load import events, run_load
from tests.servers import Server, gunicorn_server

CONNECTIONS: Final = 16
# So each quarter of twenty minutes has two reloads. With one each 180 s the third had one and the last two, and p99.9,
# which is that of requests that meet a reload, told the difference.
RELOAD_S: Final = 150
RESULT: Final = Path(__file__).parent / "results" / "soak.svg"

ENV: Final = {"STATSAPI_WINDOW": "1m", "STATSAPI_RETENTION": "1m", "STATSAPI_ROLLUP_RETENTION": "20m"}

# What may grow by how much from the third quarter to the last before it is no longer called flat.
BOUNDS: Final = {"memory_mib": 1.05, "journal_mib": 1.10, "descriptors": 1.05, "p99.9_ms": 1.5}

QUESTIONS: Final = (
    "/statistics?series=load",
    "/statistics?series=load&windows=10s,1m&stats=all",
    "/statistics?series=load&window=1m&percentiles=50,99,99.9",
    "/statistics?series=load&window=15m&percentiles=50,99",
    "/statistics/timeline?series=load&window=1m&step=5s&percentiles=99",
    "/series?limit=100",
    "/debug/events?series=load&limit=50",
    "/metrics",
)


class Connection:
    """One keep-alive connection that is opened again when the server closes it, as a pool's is."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.reopened = 0

    async def request(self, method: str, path: str, body: bytes = b"", key: str = "") -> tuple[int, bytes]:
        """The status and the body. A connection that breaks is tried once more; a POST under its Idempotency-Key."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        if body:
            head += "Content-Type: application/json\r\n"
        if key:
            head += f"Idempotency-Key: {key}\r\n"
        request = head.encode() + b"\r\n" + body
        try:
            return await self._send(request)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            self.reopened += 1
            return await self._send(request)

    async def _send(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Sample:
    """One second of the run."""

    at_s: float
    memory_mib: float
    journal_mib: float
    descriptors: int
    latencies_ms: list[float] = field(default_factory=list)


@dataclass
class Soak:
    server: Server
    directory: Path
    rate: float
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    known: list[tuple[int, float]] = field(default_factory=list)
    compared: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reopened: int = 0

    def __post_init__(self) -> None:
        self.began_s = time.perf_counter()
        self.sent = 0

    def over(self) -> bool:
        return time.perf_counter() - self.began_s > self.seconds

    async def call(self, connection: Connection, method: str, path: str, body: bytes = b"", key: str = "") -> bytes:
        try:
            status, answer = await connection.request(method, path, body, key)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failed.append(f"{method} {path}: {error!r}")
            return b""
        if status != 200:
            self.failed.append(f"{method} {path}: {status} {answer[:200]!r}")
            return b""
        return answer

    async def post_singles(self, number: int) -> None:
        connection = Connection(self.server.target)
        while not self.over():
            due_s = self.began_s + self.sent / self.rate
            self.sent += 1
            turn = self.sent
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            body = json.dumps({"timestamp": time.time(), "value": turn % 1009 / 8, "series": "load"}).encode()
            # A key costs the journal a row: only those that meet a reload need one.
            key = f"single-{turn}" if turn % 50 == 0 else ""
            await self.call(connection, "POST", "/event", body, key)
            self.latencies_ms.append((time.perf_counter() - due_s) * 1e3)
        self.reopened += connection.reopened
        connection.close()

    async def each(self, interval_s: float, act: Callable[[Connection, int], Any]) -> None:
        connection = Connection(self.server.target)
        turn = 0
        while not self.over():
            await act(connection, turn)
            turn += 1
            await asyncio.sleep(max(0.0, self.began_s + turn * interval_s - time.perf_counter()))
        self.reopened += connection.reopened
        connection.close()

    async def post_batch(self, connection: Connection, turn: int) -> None:
        """A thousand events over fifty series, every other time of some minutes ago."""
        now_s = time.time() - (turn % 2) * random.Random(turn).uniform(60, 300)
        rows = [{"timestamp": now_s + i / 1e4, "value": i / 16, "series": f"batch-{i % 50}"} for i in range(1000)]
        await self.call(connection, "POST", "/events", json.dumps(rows).encode(), f"batch-{turn}")

    async def delete(self, connection: Connection, turn: int) -> None:
        await self.call(connection, "DELETE", f"/series/batch-{turn % 50}")

    async def ask(self, connection: Connection, turn: int) -> None:
        await self.call(connection, "GET", QUESTIONS[turn % len(QUESTIONS)])

    async def compare(self, connection: Connection, turn: int) -> None:
        """Record one known event, then ask: what comes back must be the list's own statistics."""
        ts_us, value = time.time_ns() // 1000, random.Random(turn).lognormvariate(3, 2)
        body = json.dumps({"timestamp": ts_us / 1e6, "value": value, "series": "known"}).encode()
        answer = await self.call(connection, "POST", "/event", body, f"known-{turn}")
        if not answer:
            return
        received = np.datetime64(json.loads(answer)["received_timestamp"][:-6], "us").astype(np.int64)
        self.known.append((int(received), value))
        found = await self.call(connection, "GET", "/statistics?series=known&window=1m")
        if not found:
            return
        told = json.loads(found)
        from_us = int(np.datetime64(told["from"][:-6], "us").astype(np.int64))
        values = [value for ts_us, value in self.known if ts_us >= from_us]
        right = [len(values), min(values), max(values), statistics.mean(values)]
        self.compared += 1
        if [told[name] for name in ("count", "min", "max", "mean")] != right:
            self.wrong.append(f"{told} where {right} is right")

    async def note(self, connection: Connection, turn: int) -> None:
        latencies, self.latencies_ms = self.latencies_ms, []
        workers = self.server.workers()
        self.samples.append(
            Sample(
                time.perf_counter() - self.began_s,
                sum(resident_mib(pid) for pid in workers),
                sum(path.stat().st_size for path in self.directory.glob("events.db*")) / 2**20,
                sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in workers),
                latencies,
            )
        )
        if turn % 60 == 0 and turn:
            last = self.samples[-1]
            print(
                f"{turn // 60:3} min  {last.memory_mib:6.0f} MiB  {last.journal_mib:6.1f} MiB on disk "
                f" {last.descriptors} descriptors  {self.compared} compared, {len(self.wrong)} wrong, "
                f"{len(self.failed)} failed",
                flush=True,
            )

    async def reload(self, connection: Connection, turn: int) -> None:
        if turn:
            self.server.signal(signal.SIGHUP)

    async def run(self) -> None:
        await asyncio.gather(
            *(self.post_singles(i) for i in range(CONNECTIONS)),
            self.each(0.2, self.post_batch),
            self.each(10, self.delete),
            self.each(0.05, self.ask),
            self.each(0.5, self.compare),
            self.each(1, self.note),
            self.each(RELOAD_S, self.reload),
        )


def resident_mib(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


def flat(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Each figure in the third quarter of the run and in the last; those of a reload's minute are typical too."""
    quarters = [samples[len(samples) * i // 4 : len(samples) * (i + 1) // 4] for i in (2, 3)]
    found: dict[str, tuple[float, float]] = {}
    for name in ("memory_mib", "journal_mib", "descriptors"):
        before, after = (statistics.median(getattr(sample, name) for sample in quarter) for quarter in quarters)
        found[name] = before, after
    tails = [np.concatenate([sample.latencies_ms for sample in quarter]) for quarter in quarters]
    found["p99.9_ms"] = tuple(float(np.percentile(tail, 99.9)) for tail in tails)  # type: ignore[assignment] # two
    return found


def draw(samples: list[Sample], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    at_min = [sample.at_s / 60 for sample in samples]
    figure, axes = plt.subplots(4, 1, sharex=True, figsize=(9, 9), layout="constrained")
    rows: list[tuple[str, list[float]]] = [
        ("workers' memory, MiB", [sample.memory_mib for sample in samples]),
        ("journal on disk, MiB", [sample.journal_mib for sample in samples]),
        ("open descriptors", [sample.descriptors for sample in samples]),
        ("POST /event p99, ms", [float(np.percentile(s.latencies_ms or [0.0], 99)) for s in samples]),
    ]
    for axis, (label, values) in zip(axes, rows, strict=True):
        axis.plot(at_min, values, linewidth=0.8)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch) / "full", workers=2) as server:
        full = run_load(server.target, events(), connections=CONNECTIONS, seconds=4).rate
    print(f"full load {full:,.0f} events/s; half of it for {args.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as scratch, gunicorn_server(Path(scratch), workers=2, env=ENV) as server:
        soak = Soak(server, Path(scratch), full / 2, args.minutes * 60)
        asyncio.run(soak.run())
        for line in server.log.splitlines():
            if "Traceback" in line or "ERROR" in line:
                soak.failed.append(line)
    draw(soak.samples, RESULT)
    bad = False
    reloads = soak.seconds // RELOAD_S
    print(f"\n{soak.sent:,} single events; {reloads:.0f} reloads, {soak.reopened} connections opened again")
    print(f"{soak.compared} answers compared, {len(soak.wrong)} wrong; {len(soak.failed)} requests failed\n")
    for text in (soak.wrong + soak.failed)[:10]:
        print(" ", text)
        bad = True
    print("| | third quarter | last quarter | ratio | bound |\n|---|---|---|---|---|")
    for name, (before, after) in flat(soak.samples).items():
        print(f"| {name} | {before:.1f} | {after:.1f} | {after / before:.3f} | {BOUNDS[name]} |")
        bad |= after / before > BOUNDS[name]
    print(f"\n{RESULT}")
    sys.exit(bad)


if __name__ == "__main__":
    main()
