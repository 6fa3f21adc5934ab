"""The PostgreSQL journal beside SQLite's, Redis's and a mere table: `python -m benchmarks.postgresql [--rounds 4]`.

One PostgreSQL server on the machine that is measured. Servers take turns, round after round, and the best of each
counts; believe the ratios. STATSAPI_FSYNC=interval and synchronous_commit=off for all, unless --fsync always.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import secrets
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
from benchmarks.machines import batch_of, follow
from benchmarks.peer_table import TABLE
from statsapi.config import Settings
from statsapi.journal import START, Checkpoint, Proposal, open_journal
from statsapi.model import EventBatch, Part
from statsapi.service.view import View
from tests.programs import postgres_binaries, redis_binary
from tests.servers import PostgresServer, gunicorn_server, postgres_server, redis_server

RETENTION = Settings().retention()

MILLION = 1_000_000
REDIS_SYNC = {"interval": "everysec", "always": "always"}


@contextmanager
def running(**options: Any) -> Iterator[PostgresServer]:
    with postgres_server(postgres_binaries(), shared_buffers="256MB", max_wal_size="2GB", **options) as server:
        yield server


def stream() -> str:
    return f"s{secrets.token_hex(4)}"


def rates(targets: dict[str, str], make: Any, rounds: int, seconds: float) -> dict[str, Load]:
    best: dict[str, Load] = {}
    for _ in range(rounds):
        for name, target in targets.items():
            load = run_load(target, make(), connections=16, seconds=seconds)
            assert load.errors == 0, (name, load)
            if name not in best or load.rate > best[name].rate:
                best[name] = load
    return best


def http(server: PostgresServer, rounds: int, seconds: float, fsync: str) -> None:
    print(f"Over HTTP, two workers each, 16 keep-alive connections, STATSAPI_FSYNC={fsync}\n")
    goals = "of SQLite (goal POST 0.6, GET 0.7) | Redis | of Redis | a mere table | of it (goal POST 0.8)"
    print(f"| | SQLite | PostgreSQL | {goals} |")
    print("|---|---|---|---|---|---|---|---|")
    server.ask(TABLE)
    peer = {
        "PEER_DATABASE": f"postgresql://postgres@127.0.0.1:{server.port}/postgres",
        "PEER_COMMIT": "on" if fsync == "always" else "off",
    }
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        targets = {}
        redis = stack.enter_context(
            redis_server(redis_binary(), Path(scratch), appendonly="yes", appendfsync=REDIS_SYNC[fsync])
        )
        urls = {"SQLite": None, "PostgreSQL": server.journal_url(stream()), "Redis": redis.journal_url(stream())}
        for name, url in urls.items():
            env = {"STATSAPI_FSYNC": fsync} | ({"STATSAPI_JOURNAL": url} if url else {})
            gunicorn = stack.enter_context(gunicorn_server(Path(scratch) / name, workers=2, env=env))
            gunicorn.wait_for_journals(2)
            targets[name] = gunicorn.target
        table = gunicorn_server(Path(scratch) / "table", workers=2, app="benchmarks.peer_table:app", env=peer)
        targets["table"] = stack.enter_context(table).target
        for what, make in (("POST /event", events), ("GET /statistics", lambda: get("/statistics"))):
            best = rates(targets, make, rounds, seconds)
            shown = {name: f"{best[name].rate:,.0f}/s, p99 {best[name].p99_ms:.1f} ms" for name in targets}
            ours = best["PostgreSQL"].rate
            print(
                f"| {what} | {shown['SQLite']} | {shown['PostgreSQL']} | {ours / best['SQLite'].rate:.2f} "
                f"| {shown['Redis']} | {ours / best['Redis'].rate:.2f} "
                f"| {shown['table']} | {ours / best['table'].rate:.2f} |",
                flush=True,
            )
    print()


def batches(server: PostgresServer, rounds: int) -> None:
    print("Batches of 10,000 over HTTP, two workers, two connections, M events/s (goal: 0.5)\n")
    print("| | SQLite | PostgreSQL | ratio | Redis | ratio |\n|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as scratch,
        redis_server(redis_binary(), Path(scratch), appendonly="yes", appendfsync="everysec") as redis,
    ):
        for form, encode in (("JSON array", as_json), ("columns", as_columns)):
            every = bodies(encode, 100)
            best = {"SQLite": 0.0, "PostgreSQL": 0.0, "Redis": 0.0}
            for _ in range(rounds):
                name = stream()
                for engine, url in (
                    ("SQLite", None),
                    ("PostgreSQL", server.journal_url(name)),
                    ("Redis", redis.journal_url(name)),
                ):
                    env = {"STATSAPI_JOURNAL": url} if url else {}
                    best[engine] = max(best[engine], ingest(2, 2, every, TYPES["json"], env))
                server.ask(f"DROP SCHEMA {name} CASCADE")
                redis.send("FLUSHALL")
            sqlite, postgres, shared = best.values()
            print(
                f"| {form} | {sqlite / 1e6:.2f} | {postgres / 1e6:.2f} | {postgres / sqlite:.2f} "
                f"| {shared / 1e6:.2f} | {postgres / shared:.2f} |",
                flush=True,
            )
    print()


def calls(server: PostgresServer) -> None:
    print("In the process, one thread, µs\n\n| | |\n|---|---|")
    batch = batch_of(BATCH)
    with contextlib.closing(open_journal(server.journal_url(stream()))) as journal:
        journal.append(SINGLE)
        print(f"| append one event | {best_us(lambda: journal.append(SINGLE), 1000):.0f} |")
        print(f"| append 10,000 events | {best_us(lambda: journal.append(batch), 30):.0f} |")
        print(f"| a decision | {best_us(lambda: journal.append(lambda: SINGLE), 500):.0f} |")
        mark = journal.append(batch).mark or START
        journal.read(mark)
        print(f"| read, nothing new | {best_us(lambda: journal.read(mark), 1000):.0f} |")
    print()


def fill(writer: Any, count: int, records: int) -> None:
    """Append fast: many in one statement."""
    at_once = 1000 if count < 1000 else 10
    with writer._server.session() as session:
        for first in range(0, records, at_once):
            numbers = range(first, min(records, first + at_once))
            requests = [writer._appends.group.request(batch_of(count, number), None) for number in numbers]
            writer._appends._send(session, requests)


def following(server: PostgresServer) -> None:
    print("A view that follows what another process wrote (goal: 300,000 single events/s, 5 M/s in batches)\n")
    print("| records of | behind by | events/s | a record |\n|---|---|---|---|")
    for count, records in ((1, 500), (1, 50_000), (100, 1000), (10_000, 5), (10_000, 300)):
        url = server.journal_url(stream())
        writer, reader = open_journal(url), open_journal(url)
        view = View(reader, RETENTION)
        writer.append(SINGLE)
        view.catch_up()
        best = 0.0
        for _ in range(3):
            fill(writer, count, records)
            found, took = follow(reader, view, records)
            best = max(best, found / took)
        print(f"| {count:,} | {records:,} records | {best:,.0f} | {1e6 * count / best:,.1f} µs |", flush=True)
        writer.close()
        reader.close()
    print()


def million(server: PostgresServer, rounds: int) -> None:
    print("Reads over a million events, one after the other, ms (goal: 100 times)\n")
    print("| | here | a mere table | ratio |\n|---|---|---|---|")
    url, now_us = server.journal_url(stream()), time.time_ns() // 1000
    dice = np.random.default_rng(1)
    with contextlib.closing(open_journal(url)) as journal:
        for first in range(0, MILLION, BATCH):
            ts_us = now_us - 30 * 60_000_000 + np.arange(first, first + BATCH, dtype=np.int64)
            values = dice.lognormal(3, 1, BATCH)
            journal.append(Proposal(EventBatch((Part("default", ts_us, values),))))
    server.ask("DROP TABLE IF EXISTS events")
    server.ask(TABLE)
    server.ask(
        "INSERT INTO events SELECT now() - interval '30 minutes' + n * interval '1 microsecond', exp(3 + random()) "
        "FROM generate_series(1, %s) n",
        MILLION,
    )
    server.ask("ANALYZE events")
    peer = {"PEER_DATABASE": f"postgresql://postgres@127.0.0.1:{server.port}/postgres"}
    with (
        tempfile.TemporaryDirectory() as scratch,
        gunicorn_server(Path(scratch) / "here", workers=1, env={"STATSAPI_JOURNAL": url}) as here,
        gunicorn_server(Path(scratch) / "table", workers=1, app="benchmarks.peer_table:app", env=peer) as table,
    ):
        for what, path in (("count, min, max, mean", "/statistics"), ("and p95", "/statistics?percentiles=95")):
            took = {}
            for name, target in (("here", here), ("table", table)):
                with target.client() as client:
                    status, body = client.request("GET", path)
                    assert (status, body["count"]) == (200, MILLION), body
                    times = []
                    for _ in range(3 * rounds if name == "table" else 300):
                        began = time.perf_counter()
                        client.request("GET", path)
                        times.append(time.perf_counter() - began)
                took[name] = 1e3 * float(np.median(times))
            print(
                f"| {what} | {took['here']:.2f} | {took['table']:.0f} | {took['table'] / took['here']:.0f} |",
                flush=True,
            )
    print()


def bloat(hours: float, rate: int) -> None:
    """Steady load by a clock that runs faster: an hour and five minutes are kept, with a checkpoint each minute."""
    print(f"{hours:g} hours of {rate:,} records a second by a faster clock; autovacuum looks once a real second\n")
    print("| minute | records | records MB | its index | keys MB | all MB | took s |\n|---|---|---|---|---|---|---|")
    clock = [time.time_ns() // 1000]
    with running(autovacuum_naptime="1s", autovacuum_max_workers=2) as server:
        name = stream()
        journal: Any = open_journal(server.journal_url(name), clock_us=lambda: clock[0])
        marks, previous, began = [], None, time.perf_counter()
        for minute in range(int(hours * 60) + 1):
            for _ in range(60):
                clock[0] += 1_000_000
                requests = [journal._appends.group.request(SINGLE, None) for _ in range(rate)]
                with journal._server.session() as session:
                    outcomes = journal._appends._appended(requests, journal._appends._send(session, requests))
            marks.append(outcomes[-1])
            if len(marks) > 65:
                done = marks.pop(0)
                offer = Checkpoint(secrets.token_bytes(16), done.mark, done.appended_us, bytes(4000))
                assert journal.replace_prefix(previous, offer, {minute: bytes(4000)}, drop_pieces_before=minute - 1440)
                previous = offer.id
                journal.maintain()
            if minute % 15 == 0:
                sizes = [
                    server.ask(f"SELECT {function}('{name}.{table}')")[0][0] / 1e6
                    for function, table in (
                        ("pg_table_size", "records"),
                        ("pg_indexes_size", "records"),
                        ("pg_total_relation_size", "idempotency_keys"),
                    )
                ]
                shown = " | ".join(f"{size:.1f}" for size in [*sizes, journal.size_bytes() / 1e6])
                print(
                    f"| {minute} | {journal.info().records:,} | {shown} | {time.perf_counter() - began:.0f} |",
                    flush=True,
                )
        journal.close()
    print()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--hours", type=float, default=3.0, help="of simulated load")
    parser.add_argument("--fsync", choices=("interval", "always"), default="interval")
    parser.add_argument("--only", choices=("http", "batches", "calls", "following", "million", "bloat"))
    asked = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    with running() as server:
        steps = {
            "http": lambda: http(server, asked.rounds, asked.seconds, asked.fsync),
            "batches": lambda: batches(server, asked.rounds),
            "calls": lambda: calls(server),
            "following": lambda: following(server),
            "million": lambda: million(server, asked.rounds),
        }
        for name, step in steps.items():
            if asked.only in (None, name):
                step()
    if asked.only in (None, "bloat"):
        bloat(asked.hours, rate=200)


if __name__ == "__main__":
    main()
