"""The journal for several machines: a Redis or Valkey stream, on a single server, behind Sentinel, or in a Cluster.

All keys share the hash tag {NAME}, so that a Cluster keeps them on one node and one script sees them all:

    {NAME}             the stream; an entry's id is POSITION-0, its one field the head, its value the payload
                       head: appended_us i64 | position i64 | record id 12 bytes | the previous record's first 8
                             | check i64
    {NAME}:meta        hash. position, id, us: of the last record. cp, cp_id, cp_us, cp_name, cp_check: the checkpoint's
                       mark, time, id and check. born, trimmed, missing, epoch, lost…: see History. lease, lease_us: see
                       Decisions. piece_bytes: of all pieces
    {NAME}:state:ID    list: a checkpoint's state in parts; with a TTL until the checkpoint is made
    {NAME}:pieces      sorted set: the checkpoint's pieces, each KEY:ID:BYTES:CHECKSUM with the score KEY; ID is the
                       checkpoint's that brought it
    {NAME}:piece:…     list: a piece in parts; with a TTL until its checkpoint is made, and never changed
    {NAME}:key:NAME    an idempotency key: expires_us i64 | digest length and 2^31 u32 | checksum u32 | check i64
                       | digest | answer
    {NAME}:keys        sorted set: the keys' names, each with the score expires_us
    {NAME}:fence:…     with a TTL: see Late

The head is the field's name, so nothing is joined in Lua and taken apart in Python: a payload of 160 KB is copied once
less each time. Positions come from a counter that only rises, so none is given twice.

Order and time.  Every write is one script, so writes come one after the other. `appended_us` is `time_after` of the
server's TIME and the previous record's. A clock other than the wall clock (tests) is sent along and used instead of
TIME. Each reading script gives TIME, which is the reader's *now*. Keys have no TTL: a server whose clock is ahead for
a moment would forget them. `maintain` forgets them by the time that has stood.

Late.  An append is sent once. A call that may have reached the server is never sent again; its outcome is then unknown.
It may lie in a buffer of a paused server or in the backlog of one that starts, its sender may be dead by then, and the
server may carry it out after a read that began later. So each append has a time of the server's (known from its last
answer) after which the script refuses it: LATE_US from when it was sent. An append that was not carried out by then
never will be. One that was is found by the client's retry under its key.

Groups.  Appends of several threads of a process at one time go in one script call (see group_commit.py): 59 µs for one
record of one event, 110 for four, 273 for a hundred (redis-server 7.0 on the same two cores). Large batches go by WATCH
and MULTI, to the same effect: nothing is recorded unless the meta hash is still as it was read. After a lost race the
script decides. A key that expires under WATCH does there what TIME does in the script.

Damage.  redis_heads.py says what a record's check is. A checkpoint's check is the same kind of sum, and includes the
number of pieces. A piece has its checksum in its name, and the answer under a key has its own. Data of schema 1, which
had no checksums, is read without comparing.

History.  A record names the one before it. So a reader need not get the record at its mark again to know that it is
still there: the next record must name it, and where there is no next one the meta hash must. The stream's length must
agree with the counters. Where somebody else has removed entries (XTRIM, XDEL, DEL, eviction), a reading script notes
how many are missing and raises the epoch, which is part of every mark: all views everywhere start afresh and agree on
what is left. A server that lost or exchanged everything (flush, restart without its log, failover to an older copy)
fails one of these checks, or has another `born`, or ends before the last record that this process has seen. Then
judge.lua finds out whether records are gone, and how many. The first process writes that down beside the rest
(`lost…`), raises the epoch and lets positions go on after those that were given. So all views report it, also one that
starts later, and each once.

Reading asks the primary only (redis_scripts.py says why). XRANGE goes in the same round trip. A reader more than
NEAR_RECORDS behind is served by a script instead, which stops at the limit in bytes: XRANGE can only count.

Decisions.  A decision is appended on condition that the last record is still the one it began with. Against busy
appenders that alone starves (two of them: median 17 tries, p90 166). So after DECIDE_TRIES it takes a lease, and other
appends wait. Correctness rests on the condition alone.

Threads.  Appends of a process queue behind one lock; reads share a pool of connections. Every wait has a limit:
connecting, each send and receive, the lock, the lease.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final
from urllib.parse import parse_qsl, urlencode

from statsapi.errors import IdempotencyConflict, JournalRefused
from statsapi.journal import redis_scripts as scripts
from statsapi.journal.columns import decode_records
from statsapi.journal.engine_protocol import (
    LimitStorage,
    Options,
    damage_by_reading,
)
from statsapi.journal.group_commit import WAIT_LIMIT_S
from statsapi.journal.protocol import (
    NO_PIECES,
    READ_LIMIT_BYTES,
    READ_LIMIT_RECORDS,
    Appended,
    Checkpoint,
    Clock,
    Decide,
    Fsync,
    Info,
    Journal,
    Lost,
    Mark,
    Proposal,
    Segment,
    SharedFolder,
    wall_clock_us,
)
from statsapi.journal.redis_answers import check_answers, kept_answer
from statsapi.journal.redis_appends import Appends
from statsapi.journal.redis_checkpoint import Checkpoints
from statsapi.journal.redis_heads import NO_ROWS, Rows, State, count_until, mark_of, rows_of
from statsapi.journal.redis_history import History
from statsapi.journal.redis_primary import Call
from statsapi.journal.redis_scripts import SCHEMA_VERSION
from statsapi.journal.redis_server import Server
from statsapi.journal.redis_settings import check_exists, check_server
from statsapi.journal.redis_url import DEFAULT_STREAM, Address, require_certificates
from statsapi.model import IdempotencyKey

# A reader that was this close to the end at its last read reads by XRANGE: 0.5 µs a record and 0.1 ms for 160 KB. One
# that is further behind reads by a script that counts bytes: 1.1 µs and 0.5 ms. One second may add records in between.
NEAR_RECORDS: Final = 1024
# COUNT is capped by the average size of the last records, so that a reply fits limit_bytes, but never below this.
# Records beyond the limit would be fetched again: without the cap, 280 batches were received and 50 used.
NEAR_LEAST: Final = 16

# Steps of one call of maintain, and the pause that lets appends in between.
STEPS: Final = 64
STEP_PAUSE_S: Final = 1e-3


class RedisEngine:
    """See the Engine protocol."""

    kind: ClassVar = "redis"
    single_process: ClassVar = False
    is_kept: ClassVar = True
    is_file: ClassVar = False
    is_remote: ClassVar = True
    has_replicas: ClassVar = True

    def __init__(self, url: str) -> None:
        self._url = url

    def check_url(self) -> None:
        require_certificates(Address.parse(self._url))

    def open(self, options: Options) -> Journal:
        self.check_url()
        return RedisJournal(Address.parse(self._url), **options._asdict())

    def shares_limits(self) -> LimitStorage | None:
        """The same Redis, under this stream's hash tag. The `limits` library counts in a single server only."""
        scheme, _, place = self._url.partition("://")
        if "+" in scheme:
            return None
        place, _, query = place.partition("?")
        tls = dict(parse_qsl(query))
        stream = tls.pop("stream", DEFAULT_STREAM)
        return LimitStorage(f"{scheme}://{place}?{urlencode(tls)}", {"key_prefix": f"{{{stream}}}:limits"})

    def find_damage(self) -> Iterator[str]:
        journal = RedisJournal(Address.parse(self._url), create=False)
        return damage_by_reading(journal, lambda: check_answers(journal._server))

    def salvage(self, target: str) -> str:
        raise JournalRefused(
            "this journal lives in Redis: fail over to a replica, restore a backup of its AOF or RDB file, or mend "
            "the AOF with redis-check-aof; there is nothing to salvage from here"
        )

    def compact(self) -> tuple[int, int]:
        raise JournalRefused(
            "this journal lives in Redis, which gives back by itself what is no longer kept (BGREWRITEAOF makes its "
            "AOF smaller at once): there is nothing to compact from here"
        )

    def put_away(self) -> None:
        """The server keeps it."""


class RedisJournal:
    """See the Journal protocol, and the module's text for what is kept where."""

    def __init__(
        self,
        address: Address,
        *,
        fsync: Fsync = "interval",
        clock_us: Clock = wall_clock_us,
        machine_clock_us: Clock = wall_clock_us,
        wait_replicas: int = 0,
        wait_limit_s: float = WAIT_LIMIT_S,
        create: bool = True,
    ) -> None:
        self.observe_fsync: Callable[[float], None] = lambda seconds: None
        self._server = Server(address, clock_us, machine_clock_us)
        self.local_clock_us = self._server.test_clock_us
        self.settled_us = self.local_clock_us or self._server.clock.now_us
        self.lost: Lost | None = None
        self._history = History(self._server)
        self._appends = Appends(
            self._server,
            self._history,
            lambda: self.settled_us(),
            wait_replicas=wait_replicas,
            wait_limit_s=wait_limit_s,
        )
        self._checkpoints = Checkpoints(self._server)
        self._keeping = threading.Lock()
        self._behind_records: float = math.inf  # how many records the last reader was behind the end
        self._record_bytes = 1.0  # average size of the records of the last read
        try:
            self.promise = check_server(self._server, fsync, wait_replicas)
            if not create:
                check_exists(self._server)
            self.lost = self._history.find_loss()
        except BaseException:
            self._server.primary.close()
            raise

    @property
    def clock_skew_us(self) -> int | None:
        return None if self._server.test_clock_us is not None else self._server.clock.skew_us

    # Appending

    def shared_folder(self) -> SharedFolder | None:
        return None

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        return self._appends.append(proposal, key=key)

    # Reading

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        found = self._server.run(scripts.FIND_ANSWER, [self._server.key_name(key)], [self.settled_us(), key.digest])
        if found is None:
            return None
        known = kept_answer(self._server, key, found, 0)
        if isinstance(known, IdempotencyConflict):
            raise known
        return known.answer

    def read(
        self,
        after: Mark,
        *,
        until_us: int | None = None,
        wrong_after_us: int | None = None,
        limit_bytes: int = READ_LIMIT_BYTES,
        limit_records: int = READ_LIMIT_RECORDS,
    ) -> Segment:
        limit_records = max(1, limit_records)
        known = self._history.known
        heads: list[bytes] = []
        asked = self._server.clock.asked()
        if near := self._behind_records <= NEAR_RECORDS:
            count = min(limit_records, NEAR_RECORDS, max(NEAR_LEAST, int(limit_bytes / self._record_bytes) + 1))
            entries, told = self._server.calls(
                [
                    Call("XRANGE", self._server.name, f"({after.position}-0", "+", "COUNT", count),
                    Call.of(scripts.PROBE, self._server.keys, []),
                ]
            )
            fields = [entry[1] for entry in entries]
            heads, payloads = [field[0] for field in fields], [field[1] for field in fields]
            # XRANGE and the probe are not atomic. Where records arrived in between, neither the mark's record nor the
            # next one was seen, so the mark cannot be verified: read by the script.
            near = bool(heads) or told[1] <= after.position
        if not near:
            arguments = [after.position, limit_records, max(1, limit_bytes)]
            asked = self._server.clock.asked()
            told, *rest = self._server.calls([Call.of(scripts.READ, self._server.keys, arguments)])[0]
            heads, payloads = rest[::2], rest[1::2]
        state = State(*told)
        self._server.clock.answered(asked, state.clock_us)
        rows = (
            rows_of(self._server, heads, payloads, after.position + 1 if state.missing == 0 else None)
            if heads
            else NO_ROWS
        )
        self._history.check(after, known, state, rows)
        if heads and state.missing == 0 and rows.positions[-1] != after.position + len(heads):
            raise self._server.damaged(
                f"the journal's record {after.position + 1}", "it is not the one that stood there"
            )
        self._history.learn_read(known, state, rows)
        return self._segment(after, state, rows, payloads, until_us, wrong_after_us, limit_bytes)

    def _segment(
        self,
        after: Mark,
        state: State,
        rows: Rows,
        payloads: list[bytes],
        until_us: int | None,
        wrong_after_us: int | None,
        limit_bytes: int,
    ) -> Segment:
        """What of this belongs to the segment, decoded."""
        now_us = state.clock_us if self._server.test_clock_us is None else self._server.test_clock_us()
        stamps = rows.stamps_us
        count = count_until(stamps, until_us, wrong_after_us)
        ended = count < len(stamps)  # the journal ends here, for this call
        size = 0
        for at in range(count):
            size += len(payloads[at])
            if size >= limit_bytes and at + 1 < count:
                count, ended = at + 1, False
                break
        if count == 0:
            self._behind_records = state.position - after.position
            return Segment(after, None, (), 0, more=False, end=state.position, now_us=now_us)
        self._record_bytes = max(1.0, sum(map(len, payloads)) / len(payloads))
        # They rise one by one, except where somebody else has removed some.
        positions = rows.positions[:count]
        self._behind_records = state.position - positions[-1]
        changes = decode_records(positions, stamps[:count], payloads[:count])
        mark = mark_of(positions[-1], rows.id(count - 1), state.epoch)
        more = not ended and positions[-1] < state.position
        return Segment(mark, stamps[count - 1], changes, count, more=more, end=state.position, now_us=now_us)

    def read_checkpoint(self) -> Checkpoint | None:
        return self._checkpoints.read()

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        return self._checkpoints.read_pieces(checkpoint_id, first, last)

    # Compaction and housekeeping

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        return self._checkpoints.replace_prefix(previous_id, checkpoint, pieces, drop_pieces_before=drop_pieces_before)

    def maintain(self) -> None:
        if not self._keeping.acquire(blocking=False):
            return  # another thread is at it
        try:
            forget = Call.of(scripts.FORGET, [*self._server.keys, self._server.expiry_key], [self.settled_us()])
            for _ in range(STEPS):
                if not any(self._server.calls([Call.of(scripts.TRIM, self._server.keys, []), forget], resend=False)):
                    break
                time.sleep(STEP_PAUSE_S)  # let appends in between
        finally:
            self._keeping.release()

    def check_writable(self, wait_s: float = 1.0) -> None:
        self._server.primary.check_open()
        with self._appends.group.held(wait_s):
            self._server.primary.calls([Call.of(scripts.CHECK, self._server.keys, [])], timeout_s=wait_s)

    def size_bytes(self) -> int:
        """Of stream and checkpoint, as the server estimates it from samples; keys are not counted."""
        name, piece_bytes = self._server.calls([Call("HMGET", self._server.keys[1], "cp_name", "piece_bytes")])[0]
        held = [self._server.keys[0], *(() if name is None else (self._server.state_key(name),))]
        sizes = self._server.calls([Call("MEMORY", "USAGE", key) for key in held])
        return sum(size or 0 for size in sizes) + int(piece_bytes or 0)

    def info(self) -> Info:
        told, name, *_ = self._server.run(scripts.CHECKPOINT, [self._server.pieces_key])
        state = State(*told)
        covered = max(state.checkpoint_position, 0)
        entries, us, length, trimmed = self._server.calls(
            [
                Call("XRANGE", self._server.keys[0], f"({covered}-0", "+", "COUNT", 1),
                Call("HGET", self._server.keys[1], "us"),
                Call("XLEN", self._server.keys[0]),
                Call("HGET", self._server.keys[1], "trimmed"),
            ]
        )
        first = int(entries[0][0].partition(b"-")[0]) if entries else None
        dead = covered - int(trimmed or 0)  # under the checkpoint, still in the stream
        return Info(
            location=str(self._server.address),
            size_bytes=self.size_bytes(),
            records=max(length - dead, 0),
            first_position=first,
            last_position=state.position if first is not None else None,
            appended_us=None if us is None else int(us),
            checkpoint_position=None if name is None else covered,
            checkpoint_us=None if name is None else state.checkpoint_us,
            schema_version=SCHEMA_VERSION,
        )

    def backup(self, path: str, *, overwrite: bool = False) -> None:
        raise JournalRefused(
            "this journal lives in Redis, which has backups of its own (BGSAVE, its AOF and RDB files, a replica): "
            "there is nothing to back up from here"
        )

    def close(self) -> None:
        self._server.primary.close()
