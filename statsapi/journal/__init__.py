"""The journal: the durable order of records, and the truth that every worker's store is a view of.

A record is {version, id, appended_us, kind, parts}; `format.py` draws its bytes. Here is what every engine
promises.

Order.  Records stand in the order in which they were committed, and a reader sees them in that order, without
gaps. Positions rise and are never given twice, not even after everything was compacted; what they are is the
engine's affair.

Time.  The engine's clock is the server's where the engine is a server, and this machine's else. A record's
`appended_us` is set inside the append's transaction, by `time_after`: it rises with position, also across compaction
and restarts, but falls where a clock that was wrong by more than a minute was put right. So nothing may rely on its
order. Each Segment says what the engine's clock said (`now_us`). An idempotency key is known for its lifetime at least:
what forgets it is not the clock, which may be wrong for a moment, but `settled_us`, the time that has stood. Whoever
opens the journal sets that, as an engine alone cannot tell.

Durability.  When `append` returns, the record survives the death of every process (memory:// excepted, which
promises nothing). With fsync="always" it survives a power cut too; with "interval" a power cut costs what was
appended since the last `maintain()`, which the service calls once a second. An engine on another machine keeps
what that one's settings keep, which its `promise` tells; "always" refuses settings that keep less. An append that
failed is told apart: JournalUnavailable says whether the record surely does not count (`outcome_unknown` False)
or may. An engine recovers by itself: when the cause is gone the next call works.

History.  A reader names where it stands by a Mark, a position and that record's random id. If the record is
no longer there, or is another (the engine failed over to an older copy, a file was restored, the prefix was
compacted), `read` raises HistoryChanged and the view starts afresh. A view starts so, and never misses or
doubles a record:

    checkpoint = journal.read_checkpoint()
    mark = checkpoint.mark if checkpoint else START      # and begin with the checkpoint's state
    while (segment := journal.read(mark)).records:       # HistoryChanged: start again from the top
        ...                                              # apply segment.changes, in order
        mark = segment.mark

Damage.  Records, checkpoints, their pieces and the answers kept under keys carry checksums over all that matters
(`format.py`), made when they are written and compared whenever they are read. What does not match, and a record or a
piece that is missing between others, is JournalDamaged: it names what it is and says what to do. It is never skipped
and never counted, and only those who have to read it are refused: a view that is past it goes on.

Loss.  That acknowledged records are gone is told once by whoever finds out. Where a view finds its history changed, and
no compaction has passed it, it tells so by itself: from where it stood and where the journal now ends. An engine that
knows more gives its HistoryChanged a `Lost`. What an engine notices when it opens the journal (a high-water mark beside
the file) is its `lost`, which the service reads right after the opening. Both end in an ERROR line, a counter, and
/readyz; an engine need not log it.

Compaction.  A checkpoint replaces every record up to its mark, in one small atomic step (`replace_prefix`).
From then on they are gone for readers; `maintain` takes them from the disk in small steps. Beside its state a
checkpoint has pieces, bytes by an integer key, of which the next one changes only some: what is kept for long
need not be written anew each time. Keys and bytes are the caller's.

Threads.  Every method may be called from several threads at once. A journal is opened by the process that
uses it, after the fork. `close` may be called twice; any other call after it raises JournalUnavailable.

Another engine is one more module with this protocol and one more line in OPENERS; tests/unit/test_journal.py is
its suite.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from statsapi.errors import ConfigError, JournalDamaged, JournalRefused, StatsError
from statsapi.journal.format import decode_batch, encode_batch
from statsapi.model import Change, Deletion, EventBatch, Events, IdempotencyKey

__all__ = [
    "NO_PIECES",
    "START",
    "Appended",
    "Change",
    "Checkpoint",
    "Clock",
    "Decide",
    "Draft",
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
    "decode_batch",
    "encode_batch",
    "open_journal",
    "time_after",
    "wall_clock_us",
]

# What is appended. An EventBatch without parts is a tick: it only moves appended_us.
Draft = EventBatch | Deletion
Clock = Callable[[], int]
Fsync = Literal["interval", "always"]

READ_LIMIT_BYTES = 8 << 20
READ_LIMIT_RECORDS = 65_536


# A last record that is no further ahead of the clock than this was stamped by another worker's clock, which may differ
# a little; one that is further ahead by a clock that was wrong, or this one is.
CLOCKS_DIFFER_US = 60_000_000


def time_after(clock_us: int, last_us: int) -> int:
    """The time of what happens now, after a record that was appended at `last_us`: see Time in the module's text."""
    return last_us if clock_us < last_us <= clock_us + CLOCKS_DIFFER_US else clock_us


class Lost(NamedTuple):
    """Acknowledged records that are no longer in the journal.

    records   how many, at least; None where that cannot be known
    since_us  the `appended_us` of the last record before them, as far as that can be known
    how       a clause for people: "the file was replaced by an older one"
    """

    records: int | None
    since_us: int | None
    how: str


class HistoryChanged(StatsError):
    """The record that a view stands on is no longer there, or is another one: start from the checkpoint.

    `lost` is set where the engine knows that acknowledged records are gone, not merely compacted.
    """

    code = "history-changed"

    def __init__(self, message: str, lost: Lost | None = None) -> None:
        super().__init__(message)
        self.lost = lost


class Mark(NamedTuple):
    """Where a reader stands: after this record. Opaque: compare only for equality."""

    position: int
    record_id: bytes


START = Mark(0, b"")  # before the first record there ever was

NO_PIECES: Mapping[int, bytes | None] = {}


class Proposal(NamedTuple):
    """What a decision wants appended (None: nothing), and the answer that is kept under the key."""

    draft: Draft | None
    answer: bytes = b""


Decide = Callable[[], Proposal]


class Appended(NamedTuple):
    """What an append came to.

    mark         the new record; None when there is none (a replay, or a proposal without a draft)
    appended_us  the record's; without a record, the journal's time when that was decided
    answer       the proposal's, or in a replay the one that was kept first
    replayed     the key was known, with the same digest: nothing was recorded now
    """

    mark: Mark | None
    appended_us: int
    answer: bytes | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the journal.

    mark         where the next read goes on; the mark that was asked with when there is nothing new
    appended_us  of the last record; None when there is nothing new
    changes      Events and Deletions, in an order that gives the same state as the records one by one: small records
                 of events that stand side by side become one Events per series, in order of arrival
    records      how many records these were (ticks count)
    more         there was more than the limits allowed: read on
    now_us       what the engine's clock said at a moment of this read
    """

    mark: Mark
    appended_us: int | None
    changes: list[Change]
    records: int
    more: bool
    now_us: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state that every record up to and including `mark` adds up to; `state` is the service's own bytes.

    `id` is the caller's, new for each checkpoint; `appended_us` is that of the record at `mark`.
    """

    id: bytes
    mark: Mark
    appended_us: int
    state: bytes


class Info(NamedTuple):
    """What stands in a journal, for people. Positions and times are None where there is no such record."""

    location: str
    size_bytes: int
    records: int  # behind the checkpoint
    first_position: int | None
    last_position: int | None
    appended_us: int | None  # of the last record there ever was
    checkpoint_position: int | None
    checkpoint_us: int | None  # when the last record under it was appended
    schema_version: int


class Journal(Protocol):
    """See the module's text for order, durability, history and threads."""

    observe_fsync: Callable[[float], None]
    """Called with the seconds of each wait for the disk that makes records safe from a power cut; the opener sets it.
    """

    settled_us: Callable[[], int]
    """The time that has stood, by which idempotency keys are forgotten; any thread may call it. The opener sets it;
    until then it is the engine's clock.
    """

    @property
    def lost(self) -> Lost | None:
        """What was found missing when the journal was opened."""

    @property
    def local_clock_us(self) -> Clock | None:
        """The engine's clock where asking it costs nothing; None where it comes with each read only."""

    @property
    def clock_skew_us(self) -> int | None:
        """This machine's clock less the engine's, as it was lately; None where they are one, or it is not known yet."""

    @property
    def needs_single_process(self) -> bool:
        """Whether a second process would see another journal (memory://)."""

    @property
    def promise(self) -> str:
        """One sentence for the log at start: what survives what."""

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        """Record it, once per key, and return when it is as durable as configured.

        A callable is run under the journal's write lock: nobody else appends between its run and its record.
        It may call `read` and `find_answer` of this journal (to catch its view up), nothing that appends. An
        engine without such a lock runs it again when somebody was faster, so it must have no effect but its
        result. What it raises comes out here, and nothing is recorded or kept.

        With a key the record, the key and proposal.answer are written together or not at all. A key that is
        known and not expired: the same digest gives the first answer with replayed=True (a callable is then
        not run), another digest raises IdempotencyConflict.

        Raises JournalUnavailable; without `outcome_unknown` nothing was recorded. ValueError for a draft that
        has no place in the format (a series name beyond 65,535 bytes; columns of different lengths).
        """

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        """The answer kept under this key, or None; IdempotencyConflict for another request. Costs what
        a `read` with nothing new does.
        """

    def read(
        self,
        after: Mark,
        *,
        until_us: int | None = None,
        wrong_after_us: int | None = None,
        limit_bytes: int = READ_LIMIT_BYTES,
        limit_records: int = READ_LIMIT_RECORDS,
    ) -> Segment:
        """What was committed after that mark, in commit order, at least one record if there is any, up to the
        limits.

        With `until_us` the journal ends, for this call, before the first record appended later than that; records
        later than `wrong_after_us`, of which the caller knows that a wrong clock stamped them, do not end it.
        Everything whose append returned before this call began is there (or `more` is True). With nothing new
        it costs a few µs. The arrays are read-only. Raises HistoryChanged when the mark's record no longer
        stands, or is covered by a checkpoint, except by one with that very mark; START stands only as long as
        there is no checkpoint. JournalRefused for a record that this version cannot read, JournalDamaged for one that
        is not what was written, or missing: neither is ever skipped.
        """

    def read_checkpoint(self) -> Checkpoint | None:
        """The current checkpoint with its state. JournalDamaged where it, or the list of its pieces, is not whole."""

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        """That checkpoint's pieces with keys from `first` up to, not including, `last`, by rising key.

        HistoryChanged when it is not the current one (any more). JournalDamaged for one that is not what was written,
        or missing.
        """

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        """Make this the checkpoint, if the current one is still `previous_id` (None: there is none); else
        False.

        Its pieces are the previous one's, but for those with a lower key than `drop_pieces_before`, and for
        `pieces`, which take the place of what had their key; None takes it away.

        HistoryChanged when checkpoint.mark is neither a record of the journal nor the current checkpoint's
        mark.
        """

    def maintain(self) -> None:
        """Housekeeping, about once a second from a background thread of each worker: bounds what a power cut
        can cost, and takes compacted records and expired keys from the disk in small steps that do not hold
        up appends.
        """

    def check_writable(self, wait_s: float = 1.0) -> None:
        """Take the write lock and give it back; nothing is recorded. JournalUnavailable when it is not to be had in
        `wait_s` (about), or the journal cannot be written. A few µs. What only the write itself finds out (a disk
        that is full) it does not see.
        """

    def size_bytes(self) -> int:
        """What the journal occupies on disk (or in memory), housekeeping included."""

    def info(self) -> Info:
        """What stands in it, all of one moment. O(records)."""

    def backup(self, path: str, *, overwrite: bool = False) -> None:
        """Make `path` a journal that holds what this one held at one moment of the call, while others append.

        `path` either becomes the whole copy, on the disk, or stays as it was. JournalRefused when something is there
        (unless `overwrite`), when it cannot be written or hold the copy, or when this engine has no backups, with
        the reason; JournalUnavailable when this journal cannot be read.
        """

    def close(self) -> None:
        """Release everything; what was acknowledged stays. May be called twice."""


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class Options(NamedTuple):
    """What `open_journal` takes beside the URL."""

    fsync: Fsync
    clock_us: Clock
    create: bool
    wait_replicas: int


def _open_memory(url: str, options: Options) -> Journal:
    from statsapi.journal.memory import MemoryJournal

    if url != "memory://":
        raise ConfigError("memory:// takes nothing behind the slashes")
    return MemoryJournal(clock_us=options.clock_us)


def _open_sqlite(url: str, options: Options) -> Journal:
    from statsapi.journal.sqlite import SqliteJournal

    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.endswith("/"):
        raise ConfigError(
            "a SQLite journal is named sqlite:///relative/path.db or sqlite:////absolute/path.db, not " + repr(url)
        )
    if (reason := _why_no_path(path)) is not None:
        raise ConfigError(f"the SQLite journal {_shortened(url)!r} cannot be used: {reason}")
    try:
        return SqliteJournal(path, fsync=options.fsync, clock_us=options.clock_us, create=options.create)
    except OSError as error:  # a folder that may not be looked into, a name that is too long for this file system
        raise JournalRefused(f"the SQLite journal {_shortened(url)!r} cannot be used: {error.strerror}") from error


# Beside the journal's file lie others, named like it with a few characters more (-wal, .limits, a backup's .partial).
_FILE_NAME_BYTES = 255 - 32
# SQLite before 3.44 opens no path longer than 504 bytes, its own suffixes included.
_PATH_BYTES = 512 - 32


def _why_no_path(path: str) -> str | None:
    """Why this is taken neither for a file's path nor for what else it may have been meant as; None for a path."""
    if path.startswith(":"):
        return "a journal that lies in memory only is STATSAPI_JOURNAL=memory://"
    if path.startswith("file:") or "?" in path:
        return "it takes a path and no options: write it without file: and without what begins with ?"
    if path[0] in "~$":
        return f"{path[0]} is not replaced in it: write the whole path, sqlite:////home/…"
    if not path.isprintable():
        return "its path contains characters that cannot be shown"
    if os.path.isdir(path):
        return "it is a folder: name a file in it, such as events.db"
    names = [os.fsencode(name) for name in path.split("/")]
    if len(names[-1]) > _FILE_NAME_BYTES or any(len(name) > 255 for name in names):
        return f"a name in its path is too long (a file's {_FILE_NAME_BYTES} bytes, a folder's 255)"
    if len(os.fsencode(os.path.abspath(path))) > _PATH_BYTES:
        return f"its path is longer than {_PATH_BYTES:,} bytes"
    return None


def _shortened(url: str) -> str:
    return url if len(url) <= 200 else url[:200] + "…"


def _open_redis(url: str, options: Options) -> Journal:
    from statsapi.journal.redis_primary import Address
    from statsapi.journal.redis_streams import RedisJournal

    return RedisJournal(Address.parse(url), **options._asdict())


def find_damage(url: str) -> Iterator[str]:
    """One sentence for each thing in the journal that is not what was written; reads all of it.

    JournalRefused and JournalUnavailable where it cannot be read at all.
    """
    if url.startswith("sqlite:///"):
        from statsapi.journal import sqlite_salvage

        for damage in sqlite_salvage.damages(url.removeprefix("sqlite:///")):
            yield f"{damage.what}: {damage.why}"
        return
    journal = open_journal(url, create=False)
    try:
        checkpoint = journal.read_checkpoint()
        mark = checkpoint.mark if checkpoint else START
        if checkpoint:
            journal.read_pieces(checkpoint.id, -(1 << 62), 1 << 62)
        while (segment := journal.read(mark)).records:
            mark = segment.mark
    except JournalDamaged as error:
        yield f"{error.what}: {error.why}"
    finally:
        journal.close()


def salvage(url: str, target: str) -> str:
    """Save what is whole in a SQLite journal to a new file; says what that is. JournalRefused where it cannot be."""
    if not url.startswith("sqlite:///"):
        raise JournalRefused("only a journal in a file (sqlite:///…) can be salvaged: Redis has tools of its own")
    from statsapi.journal import sqlite_salvage

    saved = sqlite_salvage.salvage(url.removeprefix("sqlite:///"), target)
    checkpoint = f"the checkpoint with {saved.pieces:,} pieces" if saved.checkpoint else "no checkpoint"
    return f"{saved.records:,} records, {checkpoint}, {saved.answers:,} answers kept under an Idempotency-Key"


# Engines are imported when they are asked for: nobody needs a Redis client to run on SQLite.
OPENERS: dict[str, Callable[[str, Options], Journal]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
    "redis": _open_redis,
    "rediss": _open_redis,
    "redis+sentinel": _open_redis,
    "rediss+sentinel": _open_redis,
    "redis+cluster": _open_redis,
    "rediss+cluster": _open_redis,
}


def open_journal(
    url: str,
    *,
    fsync: str = "interval",
    clock_us: Clock = wall_clock_us,
    create: bool = True,
    wait_replicas: int = 0,
) -> Journal:
    """Open the journal that `url` names, creating it when it is not there (unless `create` is off: JournalRefused).

    `clock_us` is the engine's clock; Redis has its own, and uses this one only where it is another than the default.
    `wait_replicas`: an append to Redis returns when so many replicas have it. ConfigError for settings that cannot
    work, JournalRefused for a journal that is there but cannot be used, JournalUnavailable for one that is away.
    """
    scheme, separator, _ = url.partition("://")
    opener = OPENERS.get(scheme)
    if not separator or opener is None:  # the URL itself is not repeated: it may hold a password
        known = ", ".join(f"{name}://" for name in OPENERS)
        raise ConfigError(f"no journal engine for {scheme.partition(':')[0]!r}: the known ones are {known}")
    if fsync not in ("interval", "always"):
        raise ConfigError(f"fsync is 'interval' or 'always', not {fsync!r}")
    if wait_replicas and not scheme.startswith("redis"):
        raise ConfigError(f"STATSAPI_REDIS_WAIT_REPLICAS is for a journal in Redis; {scheme}:// has no replicas")
    return opener(url, Options("always" if fsync == "always" else "interval", clock_us, create, wait_replicas))
