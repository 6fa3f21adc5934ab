"""The journal: the durable order of records. It opens a journal by its URL, and nobody else looks at that URL. Others
import this file alone, and the engines import none of it. HTTP, settings and the state that records add up to stay out.

Every engine
protocol              what a journal promises, and what a process that has it open asks of it
engine_protocol       what is asked of an engine by the URL alone: what it can do, opening, damage, salvage
format                the bytes of a record
columns               many records as columns at once
checksums             what proves that a record, a checkpoint or a kept answer is what was written
group_commit          appends of several threads in one
server_clock          the clock of a server, between two answers
memory                the engine in memory

SQLite
sqlite                the engine: what COMMIT waits for (synchronous), and what becomes of a crash
sqlite_tables         tables, page size (PAGE_BYTES), statements, kept answers, and how each row that is read is proven
sqlite_url            its URL
sqlite_start          the file is made, checked and brought up to date
sqlite_upgrade        from older tables to these
sqlite_file           opening the file (pragmas, locks), and noticing another in its place, or a -wal that was removed
sqlite_link           a connection, and when it is opened afresh
sqlite_appends        groups of records, and decisions
sqlite_keeper         each second: the WAL is flushed (fsync=interval) and moved, old rows go
sqlite_wal            how large -wal and -shm get
highwater             the -mark file, by which a lost end is noticed: what is noted of the last record
sqlite_errors         what its errors mean, in words
sqlite_check          everything in the file that is not what was written
sqlite_rows           rows around pages that cannot be read
sqlite_mended         a damaged file as if its first page were whole: a copy of it
sqlite_salvage        the undamaged part, in a new file
sqlite_backup         a copy, while others record
sqlite_compact        space given back to the disk

Redis and Valkey
redis_streams         the engine: its keys, and what keeps each promise
redis_url             its URL
redis_primary         connections to the server that takes writes, and the outcome of each call
redis_server          keys, calls and clock of one journal
redis_scripts         the scripts of lua/, each with its constants
redis_appends         groups of records, large batches, decisions, and the replicas that are waited for
redis_answers         answers kept under an Idempotency-Key
redis_heads           what stands beside a payload, and how the two are proven to fit
redis_history         a server that has another history
redis_checkpoint      checkpoints, staged and put in place
redis_settings        what the server's settings keep: appendonly, appendfsync, eviction
lua/                  the scripts

PostgreSQL
postgres              the engine, and what keeps each promise
postgres_url          its URL
postgres_login        why a server does not let us in
postgres_session      a connection: statements, answers, and a limit to every wait
postgres_errors       what its errors mean, in words
postgres_server       the few sessions of a process, how they are set (lock_timeout …), its clock
postgres_tables       the schema that is made and looked at;  sql/ has the statements
postgres_rows         what a read brings, and how it is proven
postgres_appends      groups of records, decisions, lost answers
postgres_history      a server that has another history
postgres_checkpoint   checkpoints, replaced in one transaction
postgres_settings     what the server's settings keep: synchronous_commit, fsync, standbys
postgres_health       whether it can take appends now
sql/                  tables, and the function that appends: kept answers too

A new engine is one module, with an Engine and the Journal that it opens, and one line in ENGINES. Its suite is
tests/unit/test_journal.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Final

from statsapi.errors import ConfigError
from statsapi.journal.engine_protocol import Engine, Options
from statsapi.journal.format import decode_batch, encode_batch
from statsapi.journal.protocol import (
    CLOCKS_DIFFER_US,
    NO_PIECES,
    START,
    Appended,
    Checkpoint,
    Clock,
    Decide,
    Draft,
    Fsync,
    HistoryChanged,
    Info,
    Journal,
    Lost,
    Mark,
    Proposal,
    Segment,
    time_after,
    wall_clock_us,
)
from statsapi.model import Change, Events, IdempotencyKey

__all__ = [
    "CLOCKS_DIFFER_US",
    "ENGINES",
    "NO_PIECES",
    "START",
    "Appended",
    "Change",
    "Checkpoint",
    "Clock",
    "Decide",
    "Draft",
    "Engine",
    "Events",
    "Fsync",
    "HistoryChanged",
    "IdempotencyKey",
    "Info",
    "Journal",
    "Lost",
    "Mark",
    "Proposal",
    "Segment",
    "check_journal",
    "decode_batch",
    "encode_batch",
    "engine_of",
    "open_journal",
    "time_after",
    "wall_clock_us",
]

_REDIS: Final = "redis_streams:RedisEngine"
_POSTGRES: Final = "postgres:PostgresEngine"

# The engine of each URL scheme, as module:class. It is imported when it is asked for: SQLite needs no Redis client.
ENGINES: Final = {
    "memory": "memory:MemoryEngine",
    "sqlite": "sqlite:SqliteEngine",
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
}


def engine_of(url: str) -> Engine:
    """The engine of the journal that `url` names. Nothing is opened. ConfigError where there is no such engine."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in ENGINES:  # the URL itself is not repeated: it may hold a password
        known = ", ".join(f"{name}://" for name in ENGINES)
        file = "" if separator else f"; a file is named sqlite:///{'/' if url.startswith('/') else ''}… with its path"
        word = scheme.partition(":")[0]
        shown = repr(word) if re.fullmatch(r"[\w.+/-]{0,100}", word) else "what is given"
        raise ConfigError(f"no journal engine for {shown}: the known ones are {known}{file}")
    module, _, name = ENGINES[scheme].partition(":")
    try:
        engine: Callable[[str], Engine] = getattr(import_module(f"statsapi.journal.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise ConfigError("a journal in PostgreSQL needs psycopg: pip install 'statsapi[postgresql]'") from error
    return engine(url)


def open_journal(
    url: str,
    *,
    fsync: str = "interval",
    clock_us: Clock = wall_clock_us,
    create: bool = True,
    wait_replicas: int = 0,
) -> Journal:
    """Open the journal that `url` names, creating it when it is not there (unless `create` is off: JournalRefused).

    `clock_us` is the engine's clock; a server has its own, and uses this one only where it is another than the default.
    `wait_replicas`: an append to Redis returns when this many replicas have it. ConfigError for settings that cannot
    work, JournalRefused for a journal that is there but cannot be used, JournalUnavailable for one that is away.
    """
    engine = _engine_that_waits(url, wait_replicas)
    if fsync not in ("interval", "always"):
        raise ConfigError(f"fsync is 'interval' or 'always', not {fsync!r}")
    return engine.open(Options("always" if fsync == "always" else "interval", clock_us, create, wait_replicas))


def check_journal(url: str, *, wait_replicas: int = 0) -> None:
    """ConfigError where `open_journal` could never open a journal by these. Nothing is opened or asked."""
    _engine_that_waits(url, wait_replicas).check_url()


def _engine_that_waits(url: str, wait_replicas: int) -> Engine:
    engine = engine_of(url)
    if wait_replicas and not engine.has_replicas:
        raise ConfigError(f"STATSAPI_REDIS_WAIT_REPLICAS is for a journal in Redis; {engine.kind}:// has no replicas")
    return engine
