"""What a journal promises, the values that it takes and gives, and the Journal protocol: what a process that has it
open asks of it. What is asked before that: engine_protocol.py.

The journal is the durable order of records, and the truth that every worker's store is a view of. A record is
{version, id, appended_us, kind, parts}; `format.py` draws its bytes. Every engine promises this:

Order.  Records stand in the order in which they were committed. A reader sees them in that order, without gaps.
Positions rise and are never given twice, not even after everything was compacted. What a position is, is up to the
engine.

Time.  The engine's clock is the server's where the engine is a server, otherwise this machine's. A record's
`appended_us` is set inside the append's transaction, by `time_after`: it rises with position, also across compaction
and restarts. It falls only where a clock that was wrong by more than a minute was put right, so nothing may rely on
its order. Each Segment carries the engine's clock (`now_us`). An idempotency key is known for at least its lifetime.
It is forgotten by `settled_us`, the time that has stood, and not by the clock, which may be wrong for a moment. The
opener of the journal sets `settled_us`, because an engine alone cannot tell.

Durability.  When `append` returns, the record survives the death of every process (except with memory://, which
promises nothing). With fsync="always" it survives a power cut too. With "interval" a power cut costs what was appended
since the last `maintain()`, which the service calls once a second. A server on another machine keeps what its settings
keep: `promise` says what that is, and "always" refuses settings that keep less. JournalUnavailable says what a failed
append came to: either the record surely does not count (`outcome_unknown` False) or it may. An engine recovers by
itself: once the cause is gone, the next call works.

History.  A reader names its place by a Mark: a position and that record's random id. `read` raises HistoryChanged if
that record is gone or is another one, because the engine failed over to an older copy, a file was restored, or the
prefix was compacted. The view then starts afresh. A view that starts this way never misses or doubles a record:

    checkpoint = journal.read_checkpoint()
    mark = checkpoint.mark if checkpoint else START      # and begin with the checkpoint's state
    while (segment := journal.read(mark)).records:       # HistoryChanged: start again from the top
        ...                                              # apply segment.changes, in order
        mark = segment.mark

Damage.  Records, checkpoints, their pieces and the answers kept under keys carry checksums over all that matters
(`checksums.py`). They are made when something is written and compared whenever it is read. A mismatch, or a gap between
records or pieces, raises JournalDamaged, which names the damage and says what to do. Damage is never skipped and never
counted. It refuses only readers that have to read it: a view that is past it goes on.

Loss.  Whoever finds acknowledged records gone reports it once. A view whose history changed, with no compaction past
it, reports it by itself: from where it stood, and where the journal now ends. An engine that knows more gives its
HistoryChanged a `Lost`. A loss that an engine notices at the opening (by a high-water mark beside the file) is its
`lost`, which the service reads right after the opening. Both become an ERROR line, a counter, and a field of /readyz,
so an engine need not log them.

Compaction.  A checkpoint replaces every record up to its mark, in one small atomic step (`replace_prefix`). From then
on readers no longer see them, and `maintain` removes them from the disk in small steps. Beside its state a checkpoint
has pieces: bytes under integer keys, of which the next checkpoint changes only some, so data that is kept for long is
not written anew each time. Keys and bytes are the caller's.

Threads.  Any method may be called from several threads at once. A journal is opened by the process that uses it, after
the fork. `close` may be called twice; any other call after it raises JournalUnavailable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from statsapi.errors import JournalUnavailable, StatsError
from statsapi.model import Change, Deletion, EventBatch, IdempotencyKey

# What an append takes. An EventBatch without parts is a tick: it only moves appended_us.
Draft = EventBatch | Deletion
Clock = Callable[[], int]
Fsync = Literal["interval", "always"]

READ_LIMIT_BYTES: Final = 8 << 20
READ_LIMIT_RECORDS: Final = 65_536

# Clocks of workers may differ a little. A last record that is at most this far ahead of the clock was stamped by such
# a clock. Where it is further ahead, one of the two clocks is wrong.
CLOCKS_DIFFER_US: Final = 60_000_000


def time_after(clock_us: int, last_us: int) -> int:
    """`appended_us` of a record that follows one of `last_us`, with the clock at `clock_us`: see Time above."""
    return last_us if clock_us < last_us <= clock_us + CLOCKS_DIFFER_US else clock_us


class HeldUp(JournalUnavailable):
    """The writer's lock was not free in time. Nothing was recorded."""


def held_up() -> HeldUp:
    return HeldUp("another writer held the journal for too long; nothing was recorded")


class Lost(NamedTuple):
    """Acknowledged records that are no longer in the journal.

    records   at least this many; None where that cannot be known
    since_us  `appended_us` of the last record before them; None where that cannot be known, or there is none
    how       a clause for people: "the file was replaced by an older one"
    all       whether there is none: nothing is left of what was before
    """

    records: int | None
    since_us: int | None
    how: str
    all: bool = False


class HistoryChanged(StatsError):
    """The record at a view's mark is gone or is another one: start from the checkpoint.

    `lost` is set where the engine knows that acknowledged records are gone, not merely compacted.
    """

    code = "history-changed"

    def __init__(self, message: str, lost: Lost | None = None) -> None:
        super().__init__(message)
        self.lost = lost


class Mark(NamedTuple):
    """A reader's place: after this record. Opaque: compare only for equality."""

    position: int
    record_id: bytes


START = Mark(0, b"")  # before the first record there ever was

NO_PIECES: Mapping[int, bytes | None] = {}


class Proposal(NamedTuple):
    """What to append (None: nothing), and the answer to keep under the key."""

    draft: Draft | None
    answer: bytes = b""


Decide = Callable[[], Proposal]


class Appended(NamedTuple):
    """The outcome of an append.

    mark         the new record; None when there is none (a replay, or a proposal without a draft)
    appended_us  the record's; without a record, the journal's time of this decision
    answer       the proposal's, or in a replay the first one, which was kept
    replayed     the key was known, with the same digest: nothing was recorded now
    """

    mark: Mark | None
    appended_us: int
    answer: bytes | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the journal.

    mark         where the next read goes on; the given mark when there is nothing new
    appended_us  of the last record; None when there is nothing new
    changes      Events and Deletions, in an order that gives the same state as the records one by one: neighbouring
                 small records of events become one Events per series, in order of arrival; may be walked repeatedly
    records      the number of records (ticks count)
    more         the limits left out further records: read on
    end          the last position of the journal at some moment of this read, at which the mark may lie already
    now_us       the engine's clock at some moment of this read
    """

    mark: Mark
    appended_us: int | None
    changes: Iterable[Change]
    records: int
    more: bool
    end: int
    now_us: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after every record up to and including `mark`; `state` is the service's own bytes.

    `id` is the caller's, new for each checkpoint; `appended_us` is that of the record at `mark`.
    """

    id: bytes
    mark: Mark
    appended_us: int
    state: bytes


class Info(NamedTuple):
    """A summary of a journal, for people. Positions and times are None where there is no such record."""

    location: str
    size_bytes: int
    records: int  # after the checkpoint
    first_position: int | None
    last_position: int | None
    appended_us: int | None  # of the last record ever appended
    checkpoint_position: int | None
    checkpoint_us: int | None  # when the last record under it was appended
    schema_version: int


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class SharedFolder(NamedTuple):
    """A folder for what the processes of this machine share about a journal. It may not be there yet.

    journal: tells the journal from another one that takes its place.
    """

    path: str
    journal: int


class Journal(Protocol):
    """A journal that one process has open. See the module's text for order, durability, history and threads."""

    observe_fsync: Callable[[float], None]
    """Called with the seconds of each wait for the disk that makes records safe from a power cut. The opener sets it.
    """

    settled_us: Callable[[], int]
    """The time that has stood, by which idempotency keys are forgotten. Any thread may call it. The opener sets it;
    until then it is the engine's clock.
    """

    @property
    def lost(self) -> Lost | None:
        """Records that the opening found missing."""

    @property
    def local_clock_us(self) -> Clock | None:
        """The engine's clock where asking it costs nothing; None where only a read brings it."""

    @property
    def clock_skew_us(self) -> int | None:
        """This machine's clock minus the engine's, as measured last; None where both are one, or not measured yet."""

    @property
    def promise(self) -> str:
        """One sentence for the log at start: what survives what."""

    def shared_folder(self) -> SharedFolder | None:
        """Where processes that use this journal may share files about it; None where there is no such place."""

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        """Record it, once per key, and return when it is as durable as configured.

        A callable runs under the journal's write lock: nothing else is appended between its run and its record. It may
        call `read` and `find_answer` of this journal (to catch its view up), but nothing that appends. An engine
        without such a lock runs it again after a lost race, so its result must be its only effect. An exception from
        it is raised here, and nothing is recorded or kept.

        With a key, the record, the key and proposal.answer are written together or not at all. For a known key that
        has not expired, the same digest gives the first answer with replayed=True (a callable is then not run), and
        another digest raises IdempotencyConflict.

        Raises JournalUnavailable; without `outcome_unknown` nothing was recorded. ValueError for a draft that the
        format cannot hold (a series name beyond 65,535 bytes; columns of different lengths).
        """

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        """The answer kept under this key, or None. IdempotencyConflict where another request used the key. Costs as
        much as a `read` with nothing new.
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
        """The records committed after that mark, in commit order and up to the limits, at least one if there is any.

        With `until_us` the journal ends, for this call, before the first record appended later than that. Records later
        than `wrong_after_us` do not end it: the caller knows that a wrong clock stamped them. Every record whose append
        returned before this call began is included (or `more` is True). With nothing new it costs a few µs. The arrays
        are read-only.

        Raises HistoryChanged when the mark's record is gone or covered by a checkpoint, other than a checkpoint at that
        very mark. START is valid only while there is no checkpoint. JournalRefused for a record that this version
        cannot read; JournalDamaged for one that is missing or not what was written. Neither is ever skipped.
        """

    def read_checkpoint(self) -> Checkpoint | None:
        """The current checkpoint with its state. JournalDamaged where it or the list of its pieces is damaged."""

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        """That checkpoint's pieces with first <= key < last, by rising key.

        HistoryChanged when it is not (or no longer) the current checkpoint. JournalDamaged for a piece that is missing
        or not what was written.
        """

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        """Make this the checkpoint, if the current one is still `previous_id` (None: there is none); otherwise False.

        It keeps the previous one's pieces, without those whose key is lower than `drop_pieces_before`. Each of `pieces`
        replaces the one with its key; None removes it.

        HistoryChanged when checkpoint.mark is neither a record of the journal nor the current checkpoint's mark.
        """

    def maintain(self) -> None:
        """Housekeeping, called about once a second by a background thread of each worker. It bounds the cost of a power
        cut, and removes compacted records and expired keys from the disk in small steps that do not hold up appends.
        """

    def check_writable(self, wait_s: float = 1.0) -> None:
        """Take the write lock and give it back; nothing is recorded. A few µs. JournalUnavailable when the lock is not
        free within about `wait_s`, or the journal cannot be written. What only a write shows, such as a full disk, it
        sees from the first write that failed until one succeeds.
        """

    def size_bytes(self) -> int:
        """The journal's size on disk (or in memory), with what `maintain` has yet to remove."""

    def info(self) -> Info:
        """A summary of it, all of one moment. O(records)."""

    def backup(self, path: str, *, overwrite: bool = False) -> None:
        """Make `path` a journal that holds what this one held at one moment of the call, while others append.

        `path` either becomes the whole copy, on the disk, or stays as it was. JournalRefused with the reason when
        something is there (unless `overwrite`), when the copy cannot be written there, or when this engine has no
        backups. JournalUnavailable when this journal cannot be read.
        """

    def close(self) -> None:
        """Release everything. May be called twice."""
