"""The engines that tests/unit/test_journal.py runs on: one entry each, nothing else to write for a new one."""

from __future__ import annotations

import atexit
import functools
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from statsapi.journal import (
    START,
    Appended,
    Checkpoint,
    Engine,
    Events,
    Journal,
    Mark,
    Proposal,
    Segment,
    engine_of,
    open_journal,
    wall_clock_us,
)
from statsapi.model import Change, Deletion, EventBatch, IdempotencyKey, SingleEvents
from tests.programs import postgres_binaries, redis_binary
from tests.servers import PostgresServer, RedisServer, wait_until


class Opener:
    """Opens journals that all are the same journal, and closes them at the end."""

    def __init__(self, url: str, fsync: str) -> None:
        self.url, self._fsync = url, fsync
        self._opened: list[Journal] = []

    @property
    def engine(self) -> Engine:
        return engine_of(self.url)

    @property
    def survives(self) -> bool:
        """Whether what was recorded is there when the journal is opened again."""
        return self.engine.is_kept

    @property
    def backs_up(self) -> bool:
        return self.engine.is_file

    def open_copy(self, path: Path) -> Journal:
        """Open what `backup` made."""
        journal = open_journal(f"{self.engine.kind}:///{path}", fsync=self._fsync, create=False)
        self._opened.append(journal)
        return journal

    def open(self, clock_us: Callable[[], int] = wall_clock_us) -> Journal:
        journal = open_journal(self.url, fsync=self._fsync, clock_us=clock_us)
        self._opened.append(journal)
        return journal

    def close(self) -> None:
        for journal in self._opened:
            journal.close()


@contextmanager
def memory(folder: Path) -> Iterator[Opener]:
    yield Opener("memory://", "interval")


@contextmanager
def sqlite(folder: Path) -> Iterator[Opener]:
    yield Opener(f"sqlite:///{folder}/{secrets.token_hex(4)}/events.db", "interval")


@contextmanager
def sqlite_always(folder: Path) -> Iterator[Opener]:
    yield Opener(f"sqlite:///{folder}/{secrets.token_hex(4)}/events.db", "always")


@functools.cache
def shared_redis(binary: str, *, cluster: bool = False) -> RedisServer:
    """One server for all tests of this process: each has a stream of its own. It ends with the process."""
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    server = RedisServer(binary, Path(directory), appendfsync="everysec", cluster_enabled="yes" if cluster else "no")
    atexit.register(server.kill)
    server.start()
    if cluster:  # the smallest there is: one node with all the slots
        server.send("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        wait_until(lambda: "cluster_state:ok" in server.send("CLUSTER", "INFO"), "the Cluster to be whole")
    return server


@contextmanager
def redis(folder: Path) -> Iterator[Opener]:
    yield Opener(shared_redis(redis_binary()).journal_url(secrets.token_hex(4)), "interval")


@contextmanager
def redis_cluster(folder: Path) -> Iterator[Opener]:
    server = shared_redis(redis_binary(), cluster=True)
    yield Opener(f"redis+cluster://127.0.0.1:{server.port}?stream={secrets.token_hex(4)}", "interval")


@functools.cache
def shared_postgres(binaries: Path) -> PostgresServer:
    """One server for all tests of this process: each has a schema of its own. It ends with the process."""
    directory = PostgresServer.folder()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    server = PostgresServer(binaries, directory, max_connections=400)
    atexit.register(server.kill)
    return server.initialise().start()


@contextmanager
def postgresql(folder: Path) -> Iterator[Opener]:
    yield Opener(shared_postgres(postgres_binaries()).journal_url(secrets.token_hex(4)), "interval")


@contextmanager
def postgresql_always(folder: Path) -> Iterator[Opener]:
    yield Opener(shared_postgres(postgres_binaries()).journal_url(secrets.token_hex(4)), "always")


ENGINES = {
    "memory": memory,
    "sqlite": sqlite,
    "sqlite-always": sqlite_always,
    "redis": redis,
    "redis-cluster": redis_cluster,
    "postgresql": postgresql,
    "postgresql-always": postgresql_always,
}


def event(value: float = 1.0, series: str = "default", ts_us: int = 0) -> Proposal:
    return Proposal(EventBatch.single(series, ts_us, value))


TICK = Proposal(EventBatch(()))


def use_key(journal: Journal, key: IdempotencyKey, how: str) -> None:
    """Look for the key's answer (`find`), or record an event under it (`append`, `decide`)."""
    if how == "find":
        journal.find_answer(key)
    else:
        journal.append(event() if how == "append" else event, key=key)


def segments(journal: Journal, after: Mark = START, **limits: int) -> list[Segment]:
    """Everything after that mark, segment by segment."""
    found = []
    while (segment := journal.read(after, **limits)).records:
        found.append(segment)
        after = segment.mark
    return found


def each_series(changes: Iterable[Change]) -> Iterator[Events | Deletion]:
    """The changes, with single events of many series as one Events for each."""
    for change in changes:
        if isinstance(change, SingleEvents):
            for at, name in enumerate(change.names):
                row = slice(at, at + 1)
                yield Events(name, change.ts_us[row], change.values[row], change.appended_us[row])
        else:
            yield change


def events_of(segment: Segment) -> list[Events]:
    """The segment's changes, where none may be a deletion."""
    changes = list(segment.changes)
    events = [change for change in changes if isinstance(change, Events)]
    assert len(events) == len(changes)
    return events


def values(journal: Journal, after: Mark = START, **limits: int) -> dict[str, list[float]]:
    """The values of each series after that mark in the order of arrival; a deletion stands there as None."""
    found: dict[str, list[float]] = {}
    for segment in segments(journal, after, **limits):
        for change in each_series(segment.changes):
            if isinstance(change, Deletion):
                found.setdefault(change.series, []).append(None)
            else:
                found.setdefault(change.series, []).extend(change.values.tolist())
    return found


def mark_of(appended: Appended) -> Mark:
    assert appended.mark is not None
    return appended.mark


def checkpoint_at(mark: Mark, appended_us: int = 0, state: bytes = b"") -> Checkpoint:
    return Checkpoint(secrets.token_bytes(16), mark, appended_us, state)
