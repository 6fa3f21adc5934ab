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

The head is the field's name, so nothing has to be put together in Lua and taken apart in Python: a payload of 160 KB
is copied once less each time. Positions come from a counter that only rises, so none is given twice.

Order and time.  Whatever writes is one script, so one after the other. `appended_us` is `time_after` of the server's
TIME and the previous record's; a clock other than the wall clock (tests) is sent along and used in TIME's place. Each
reading script tells TIME, which is what the reader's *now* is. Keys are forgotten by `maintain`, by the time that has
stood, and have no TTL: a server whose clock is ahead for a moment would forget them.

Late.  An append is sent once: a call that may have reached the server is never sent again, and its outcome is then
unknown. It may lie in a buffer of a server that is paused, or in the backlog of one that starts, whoever sent it may
be dead by then, and the server may carry it out after a read that began later. So each has a time of the server's
(known from its last answer) after which the script refuses it, LATE_US from when it was sent: what has not been
carried out by then never is. Before that the client's retry under its key finds the key.

Groups.  What a process' threads append at one time goes in one script call (see groups.py): 59 µs for one record of
one event, 110 for four, 273 for a hundred (redis-server 7.0 on the same two cores). Large batches go by WATCH and
MULTI, which comes to the same: nothing is recorded unless the meta hash is still what was read, and the script has
the last word where somebody was faster. A key that expires under the WATCH is what TIME is to the script.

Damage.  The server alone knows position and time, and Lua has no CRC. So a check is a sum: of appended_us, position,
what names the record before it, and the checksum of payload and id, which the sender makes and the script adds to.
The reader compares both for each record (0.15 µs). A checkpoint's check is the same kind of sum, and says how many
pieces there are; a piece has its checksum in its name; the answer under a key has one of its own. What was written by
a version without them (schema 1) is read without.

History.  A record names the one before it. So a reader need not be sent the record it stands on again to know that
it still stands: the next one must name it, and where there is no next one the meta hash must. The stream's length
must be what the counters say; where somebody else has removed entries (XTRIM, XDEL, DEL, eviction) a reading script
notes how many are missing and raises the epoch, which is part of every mark: all views everywhere start afresh and
agree on what is left. A server that lost or exchanged everything (flush, restart without its log, failover to an
older copy) fails one of these checks, or has another `born`, or ends before the last record that this process has
seen: then judge.lua finds out whether records are gone, and how many. The first process writes that down beside the
rest (`lost…`), raises the epoch and lets positions go on after those that were given. So all views are told, also one
that starts later, and each once.

Reading asks the primary only (redis_scripts.py says why). XRANGE goes in the same round trip. A reader more than
NEAR_RECORDS behind is served by a script instead, which stops at the limit in bytes: XRANGE can only count.

Decisions.  A decision is appended on the condition that the last record is still the one it began with. Against busy
appenders that alone starves (two of them: median 17 tries, p90 166), so after DECIDE_TRIES it takes a lease, which
other appends respect by waiting. Correctness rests on the condition alone.

Threads.  Appends of a process queue behind one lock; reads share a pool of connections.
No wait is without a limit: connecting, each send and receive, the lock, the lease.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode
from zlib import crc32

import numpy as np

from statsapi.errors import IdempotencyConflict, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import redis_scripts as scripts
from statsapi.journal.checksums import answer_checksum, piece_checksum
from statsapi.journal.columns import COLUMNAR_FROM, decode_records
from statsapi.journal.groups import WAIT_LIMIT_S, GroupCommit, Request, held_up
from statsapi.journal.protocol import (
    NO_PIECES,
    NOTHING_TO_SALVAGE,
    READ_LIMIT_BYTES,
    READ_LIMIT_RECORDS,
    START,
    Appended,
    Checkpoint,
    Clock,
    Decide,
    Fsync,
    HistoryChanged,
    Info,
    Journal,
    LimitStorage,
    Lost,
    Mark,
    Options,
    Proposal,
    Segment,
    damage_by_reading,
    time_after,
    wall_clock_us,
)
from statsapi.journal.redis_primary import DAMAGE_ADVICE, DEFAULT_STREAM, Address, Call, Primary, Script, ServerClock
from statsapi.journal.redis_scripts import ID_BYTES, SCHEMA_VERSION
from statsapi.model import EventBatch, IdempotencyKey

logger = logging.getLogger("statsapi")

# Scripts that declare what they are (#!lua), and CONFIG, INFO and XTRIM as they are used here.
OLDEST_VERSION: Final = 7

# A decision takes the lease after this many plain tries.
DECIDE_TRIES: Final = 3
LEASE_RETRY_S: Final = 1e-3

# One call of the append script; what is queued beyond it goes into the next.
GROUP_BYTES: Final = 16 << 20
GROUP_RECORDS: Final = 256

# From here on a group without keys goes by MULTI instead of the script. Lua hashes each byte of what it is given: to do
# nothing with 160 KB takes a script 203 µs, to append them 293, where XADD alone takes 84. It costs a second round
# trip, some 40 µs.
LARGE_BYTES: Final = 64 << 10

# A reader that was this close when it last looked reads by XRANGE, 0.5 µs a record and 0.1 ms for 160 KB; one further
# behind by a script that counts bytes, 1.1 µs and 0.5 ms. What can have come in between is what one second brings.
NEAR_RECORDS: Final = 1024
# Not more of them than the limit in bytes has room for, going by the size of those before: what is beyond it would come
# twice: of 300 batches that lie behind the first reply held 280, of which 50 were used.
NEAR_LEAST: Final = 16

# A checkpoint's state and pieces travel in such parts, each sooner than a socket's timeout; unfinished ones go after
# the TTL. Pieces, mostly of a few KB, come so many at once.
PART_BYTES: Final = 8 << 20
PIECES_AT_ONCE: Final = 16

STEPS: Final = 64
STEP_PAUSE_S: Final = 1e-3

# A replica has so long to take an append over (STATSAPI_REDIS_WAIT_REPLICAS); less than a socket's timeout.
REPLICAS_TIMEOUT_MS: Final = 1000

# An append is not begun by the server later than this after it was sent: see Late in the module's text. What it is more
# than the socket's timeout is for the way there, and for what its clock and ours run apart between two calls.
LATE_US: Final = 2_500_000

# A loss is told at every start for so long after it was noticed.
LOSS_TOLD_US: Final = 7 * 86_400_000_000

# What is kept under a key; with _CHECKED in the length there is a checksum.
_KEPT: Final = struct.Struct("<qI")
_KEPT_CHECKED: Final = struct.Struct("<qIIq")
_CHECKED: Final = 1 << 31
_UNCHECKED: Final = struct.Struct(f"<qq{ID_BYTES}s8s")  # a head of schema 1
_HEAD: Final = struct.Struct(f"<qq{ID_BYTES}s8sq")
# Of the append script: not after, settled time, whether to touch; a key's index, lifetime, checksum, digest length.
_LIMITS: Final = struct.Struct("<qqB")
_KEYED: Final = struct.Struct("<IqII")
_WORD: Final = struct.Struct("<I")
_ID_WORDS: Final = struct.Struct("<III")
_HEADS: Final = np.dtype(
    {
        "names": ["appended_us", "position", "id", "front", "previous", "previous_words", "check"],
        "formats": ["<i8", "<i8", ("<u4", 3), "<u8", "<u8", ("<u4", 2), "<i8"],
        "offsets": [0, 8, 16, 16, 28, 28, 36],
        "itemsize": _HEAD.size,
    }
)


class _State(NamedTuple):
    """What a reading script tells of the journal at its moment. checkpoint_position is -1 without a checkpoint."""

    clock_us: int
    position: int
    id: bytes
    epoch: int
    checkpoint_position: int
    checkpoint_record: bytes
    checkpoint_us: int
    missing: int
    born: bytes
    lost_us: int

    @property
    def behind(self) -> Mark:
        """Where a view begins."""
        if self.checkpoint_position < 0:
            return START
        return _mark(self.checkpoint_position, self.checkpoint_record, self.epoch)


class _Rows(NamedTuple):
    """What the heads of a read say, one by one."""

    positions: list[int]
    stamps_us: list[int]
    heads: list[bytes]

    def id(self, at: int) -> bytes:
        return self.heads[at][16 : 16 + ID_BYTES]

    def id_at(self, position: int) -> bytes | None:
        """The id of the record there, if it was read."""
        if not self.positions or not self.positions[0] <= position <= self.positions[-1]:
            return None
        at = bisect_left(self.positions, position)
        return self.id(at) if self.positions[at] == position else None

    def names_before(self, record_id: bytes) -> bool:
        """Whether the first of them names the record with that id as the one before it."""
        return self.heads[0][28:36] == record_id[:8]


_NO_ROWS: Final = _Rows([], [], [])


class _Known(NamedTuple):
    """What this process knows of the history: its id, its last record, where and when its checkpoint was, how many
    records were missing from it, and its epoch.
    """

    born: bytes = b""
    position: int = 0
    id: bytes = b""
    us: int = 0
    checkpoint_position: int = -1
    checkpoint_us: int = 0
    missing: int = 0
    epoch: int = 0


def _epoch_bytes(epoch: int) -> bytes:
    return (epoch & 0xFFFFFFFF).to_bytes(4, "big")


def _mark(position: int, record_id: bytes, epoch: int) -> Mark:
    return Mark(position, record_id.ljust(ID_BYTES, b"\0") + _epoch_bytes(epoch))


class RedisJournal:
    """See the Journal protocol, and the module's text for what is kept where."""

    kind: ClassVar = "redis"
    single_process: ClassVar = False
    is_remote: ClassVar = True
    has_replicas: ClassVar = True

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
        # The engine's clock is the server's. One that a test sets is sent along.
        self._clock_us = None if clock_us is wall_clock_us else clock_us
        self.local_clock_us = self._clock_us
        self._server_clock = ServerClock(str(address), machine_clock_us)
        self.settled_us = self._clock_us or self._server_clock.now_us
        self.lost: Lost | None = None
        self._wait_replicas = wait_replicas
        self._name = f"{{{address.stream}}}"
        self._keys = (self._name, f"{self._name}:meta")
        self._pieces_key = f"{self._name}:pieces"
        self._forget_key = f"{self._name}:keys"
        self._appends = GroupCommit(self._record, threading.RLock(), id_bytes=ID_BYTES, wait_limit_s=wait_limit_s)
        self._keeping = threading.Lock()
        self._behind_records: float = math.inf  # how far the last reader was from the end
        self._record_bytes = 1.0  # of an average record that it got
        self._primary = Primary(address)
        self._address = address
        self._known = _Known()
        self._knowing = threading.Lock()
        self._suspects = False  # whether an append has shown that records are gone
        self._lost_us = 0  # when the last loss that was told here was noticed
        try:
            self.promise = self._check_server(fsync)
            if not create:
                self._check_exists()
            self.lost = self._find_loss()
        except BaseException:
            self._primary.close()
            raise

    @classmethod
    def open(cls, url: str, options: Options) -> Journal:
        return cls(Address.parse(url), **options._asdict())

    @classmethod
    def shares_limits(cls, url: str) -> LimitStorage | None:
        """The same Redis, under this stream's hash tag. The `limits` library counts in a single server only."""
        scheme, _, place = url.partition("://")
        if "+" in scheme:
            return None
        place, _, query = place.partition("?")
        tls = dict(parse_qsl(query))
        stream = tls.pop("stream", DEFAULT_STREAM)
        return LimitStorage(f"{scheme}://{place}?{urlencode(tls)}", {"key_prefix": f"{{{stream}}}:limits"})

    @classmethod
    def find_damage(cls, url: str) -> Iterator[str]:
        return damage_by_reading(cls.open(url, Options(create=False)))

    @classmethod
    def salvage(cls, url: str, target: str) -> str:
        raise JournalRefused(NOTHING_TO_SALVAGE)

    @classmethod
    def put_away(cls, url: str) -> None:
        """A server keeps it."""

    @property
    def clock_skew_us(self) -> int | None:
        return None if self._clock_us is not None else self._server_clock.skew_us

    # Appending

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        self._primary.check_open()
        if isinstance(proposal, Proposal):
            return self._appends.append(proposal, key)
        with self._appends.held_alone() as deadline:
            outcome = self._decide(proposal, key, deadline)
        if isinstance(outcome, IdempotencyConflict):
            raise outcome
        return outcome

    def _record(self, group: list[Request], deadline: float) -> list[Appended | IdempotencyConflict]:
        self._appends.take(group, GROUP_RECORDS, GROUP_BYTES)
        known = self._known
        now_us, epoch, born, *results = self._send_group(group, deadline)
        self._learn(known, born, zip(group, results, strict=True), now_us)
        return [self._outcome(request, result, now_us, epoch) for request, result in zip(group, results, strict=True)]

    def _send_group(self, group: Sequence[Request], deadline: float) -> list[Any]:
        large = sum(len(request.payload or b"") for request in group) >= LARGE_BYTES
        if (
            large
            and time.monotonic() < deadline
            and all(request.key is None and request.payload is not None for request in group)
        ):
            reply = self._send_large(group)
            if reply is not None:
                return reply
        while True:
            reply = self._send(group, deadline)
            if isinstance(reply, list):
                return reply
            if reply == b"busy":
                time.sleep(LEASE_RETRY_S)

    def _send(
        self,
        group: Iterable[Request],
        deadline_s: float,
        token: bytes = b"",
        after: bytes = b"",
        script: Script = scripts.APPEND,
    ) -> Any:
        """One call of the append script, never sent twice. Caller holds the writer's lock.

        JournalUnavailable where the deadline is over; this process may have been stopped since its caller began.
        """
        now_s = time.monotonic()
        if now_s >= deadline_s:
            raise held_up()
        keys: list[str | bytes] = [*self._keys, self._forget_key]
        not_after_us = self._server_clock.at(now_s) + LATE_US
        limits = _LIMITS.pack(not_after_us, self.settled_us(), self._wait_replicas > 0)
        arguments: list[Any] = [self._clock(), token, after, limits]
        for request in group:
            payload, key = request.payload, request.key
            front = kept = b""
            if payload is not None:
                front = request.record_id + _WORD.pack(_content_check(request.record_id, payload))
            if key is not None:
                keys.append(self._key_name(key))
                check = _answer_checksum(key, request.answer)
                kept = _KEYED.pack(len(keys), key.ttl_us, check, len(key.digest)) + key.digest + request.answer
            arguments += (front, payload or b"", kept)
        # Under a key whose first append is known, too, this waits for all that stands before: hence `touch`.
        reply, *waited = self._calls([Call.of(script, keys, arguments), *self._wait()], resend=False)
        if isinstance(reply, list):
            self._check_waited(waited)
        elif reply.startswith(b"late"):
            self._server_clock.set(int(reply[4:]), time.monotonic())
        return reply

    def _send_large(self, group: Sequence[Request]) -> list[Any] | None:
        """What the append script does, by WATCH and MULTI; None when somebody was faster. Caller holds the writer's
        lock.
        """
        stream, meta = self._keys
        told: list[Any] = []

        def append(replies: list[Any]) -> list[Call]:
            _, _, (position, last, us, epoch, lease, born), (seconds, micros), length = replies
            if lease is not None or ((position is None or last is None) and length):
                return [Call("UNWATCH")]  # the script knows what to say
            clock_us = int(seconds) * 1_000_000 + int(micros) if self._clock_us is None else self._clock_us()
            now_us, at, previous = time_after(clock_us, int(us or 0)), int(position or 0), last or bytes(8)
            born = born or group[-1].record_id
            told[:] = [now_us, int(epoch or 0), born]
            calls = [Call("MULTI")]
            for request in group:
                at += 1
                told.append(at)
                content = _content_check(request.record_id, request.payload or b"")
                check = now_us + at + _sum_of_words(previous) + content
                head = _HEAD.pack(now_us, at, request.record_id, previous[:8], check)
                calls.append(Call("XADD", stream, f"{at}-0", head, request.payload))
                previous = request.record_id
            fields = ("position", at, "id", previous, "us", now_us, "schema", SCHEMA_VERSION, "born", born)
            return [*calls, Call("HSET", meta, *fields), Call("EXEC"), *self._wait()]

        # A key that expires under WATCH lets EXEC do nothing: what the script's `late` is.
        fence = f"{self._name}:fence:{secrets.token_hex(8)}"
        first = [
            Call("SET", fence, "", "PX", LATE_US // 1000),
            Call("WATCH", meta, fence),
            Call("HMGET", meta, "position", "id", "us", "epoch", "lease", "born"),
            Call("TIME"),
            Call("XLEN", stream),
        ]
        replies = self._primary.calls(first, resend=False, then=append)
        if len(replies) == 1:
            return None
        done, *waited = replies[len(group) + 2 :]
        if done is None:
            return None
        if any(isinstance(reply, Exception) for reply in done):  # nothing that is known would do that
            raise JournalUnavailable(f"{self._address} carried out a part of the append: {done}", outcome_unknown=True)
        self._check_waited(waited)
        return told

    def _wait(self) -> list[Call]:
        return [Call("WAIT", self._wait_replicas, REPLICAS_TIMEOUT_MS)] if self._wait_replicas else []

    def _check_waited(self, waited: Sequence[int]) -> None:
        if waited and waited[0] < self._wait_replicas:
            raise JournalUnavailable(
                f"{waited[0]} of {self._wait_replicas} replicas (STATSAPI_REDIS_WAIT_REPLICAS) took the append over "
                f"within {REPLICAS_TIMEOUT_MS / 1000:g} s",
                outcome_unknown=True,
            )

    def _outcome(self, request: Request, result: Any, now_us: int, epoch: int) -> Appended | IdempotencyConflict:
        if request.key is not None and isinstance(result, bytes):
            return self._kept(request.key, result, now_us)
        return Appended(_mark(result, request.record_id, epoch) if result else None, now_us, request.answer)

    def _decide(self, decide: Decide, key: IdempotencyKey | None, deadline: float) -> Appended | IdempotencyConflict:
        token = b""
        try:
            tries = 0
            while (outcome := self._try_decision(decide, key, token, deadline)) is None:
                tries += 1
                if tries == DECIDE_TRIES:
                    token = secrets.token_bytes(8)
                if time.monotonic() >= deadline:
                    raise held_up()
            return outcome
        finally:
            if token:
                with contextlib.suppress(JournalUnavailable, JournalRefused):  # it runs out by itself
                    self._calls([Call.of(scripts.RELEASE, self._keys, [token])])

    def _try_decision(
        self, decide: Decide, key: IdempotencyKey | None, token: bytes, deadline_s: float
    ) -> Appended | IdempotencyConflict | None:
        """None when somebody was faster, or holds the lease. Caller holds the writer's lock."""
        keys: list[str | bytes] = [*self._keys, *(() if key is None else (self._key_name(key),))]
        digest = b"" if key is None else key.digest
        begun = self._calls([Call.of(scripts.BEGIN, keys, [self._clock(), token, self.settled_us(), digest])])[0]
        if not isinstance(begun, list):
            time.sleep(LEASE_RETRY_S)
            return None
        if key is not None and begun[1] is not None:
            return self._kept(key, begun[1], begun[0])
        proposal = decide()
        request = self._appends.request(proposal, key)
        adds = isinstance(proposal.draft, EventBatch) and proposal.draft.parts
        known = self._known
        after = b"%d:%s" % (begun[2], begun[3])
        reply = self._send([request], deadline_s, token, after, scripts.APPEND if adds else scripts.APPEND_ALWAYS)
        if not isinstance(reply, list):
            if reply == b"busy":
                time.sleep(LEASE_RETRY_S)
            return None
        now_us, epoch, born, result = reply
        self._learn(known, born, [(request, result)], now_us)
        return self._outcome(request, result, now_us, epoch)

    def _kept(self, key: IdempotencyKey, found: bytes, now_us: int) -> Appended | IdempotencyConflict:
        """What a script found under a key. JournalDamaged where that is not what was kept."""
        what, kept = found[:1], found[1:]
        if what != b"d":
            _, length = _KEPT.unpack_from(kept)
            checked = kept[_KEPT_CHECKED.size :][:length] == key.digest  # though the bit that says so is gone
            if length < _CHECKED and not (what == b"c" and checked):  # of before schema 2
                return (
                    IdempotencyConflict() if what == b"c" else Appended(None, now_us, kept[_KEPT.size + length :], True)
                )
            _, length, crc, _ = _KEPT_CHECKED.unpack_from(kept)
            answer_at = _KEPT_CHECKED.size + length - _CHECKED
            digest, answer = kept[_KEPT_CHECKED.size : answer_at], kept[answer_at:]
            if _answer_checksum(IdempotencyKey(key.name, digest, 0), answer) == crc:
                return IdempotencyConflict() if what == b"c" else Appended(None, now_us, answer, replayed=True)
        raise self._damaged("the answer kept under an Idempotency-Key", "its checksum does not match")

    def _key_name(self, key: IdempotencyKey) -> bytes:
        return f"{self._name}:key:".encode() + key.name

    def _clock(self) -> int | bytes:
        return b"" if self._clock_us is None else self._clock_us()

    # Reading

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        keys: list[str | bytes] = [*self._keys, self._key_name(key)]
        found = self._calls([Call.of(scripts.FIND_ANSWER, keys, [self.settled_us(), key.digest])])[0]
        if found is None:
            return None
        known = self._kept(key, found, 0)
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
        known = self._known
        heads: list[bytes] = []
        asked = self._server_clock.asked()
        if near := self._behind_records <= NEAR_RECORDS:
            count = min(limit_records, NEAR_RECORDS, max(NEAR_LEAST, int(limit_bytes / self._record_bytes) + 1))
            entries, told = self._calls(
                [
                    Call("XRANGE", self._name, f"({after.position}-0", "+", "COUNT", count),
                    Call.of(scripts.PROBE, self._keys, []),
                ]
            )
            fields = [entry[1] for entry in entries]
            heads, payloads = [field[0] for field in fields], [field[1] for field in fields]
            # These are two moments. Where only the second knew of newer records, neither the mark's own record nor the
            # one behind it was seen.
            near = bool(heads) or told[1] <= after.position
        if not near:
            arguments = [after.position, limit_records, max(1, limit_bytes)]
            asked = self._server_clock.asked()
            told, *rest = self._calls([Call.of(scripts.READ, self._keys, arguments)])[0]
            heads, payloads = rest[::2], rest[1::2]
        state = _State(*told)
        self._server_clock.answered(asked, state.clock_us)
        rows = self._rows(heads, payloads, after.position + 1 if state.missing == 0 else None) if heads else _NO_ROWS
        self._check_history(after, known, state, rows)
        if heads and state.missing == 0 and rows.positions[-1] != after.position + len(heads):
            raise self._damaged(f"the journal's record {after.position + 1}", "it is not the one that stood there")
        self._learn_state(known, state, rows)
        return self._segment(after, state, rows, payloads, until_us, wrong_after_us, limit_bytes)

    def _rows(self, heads: list[bytes], payloads: list[bytes], first: int | None) -> _Rows:
        """What the heads say, compared with the payloads and with each other. `first` is the position that the first
        of them must have, where no records are missing: a damaged one need not say its own.
        """
        if set(map(len, heads)) <= {_HEAD.size}:
            if len(heads) >= COLUMNAR_FROM:
                return self._columns(heads, payloads, first)
            unpacked = [_HEAD.unpack(head) for head in heads]
        else:
            unpacked = self._unpack_any(heads)
        rows = _Rows([row[1] for row in unpacked], [row[0] for row in unpacked], heads)
        before: tuple[int, bytes] | None = None
        for at, (appended_us, position, record_id, previous, check) in enumerate(unpacked):
            found = appended_us + position + _sum_of_words(previous) + _content_check(record_id, payloads[at])
            if check is not None and found != check:
                raise self._mismatch(position if first is None else first + at)
            if before and (position <= before[0] or (position == before[0] + 1 and previous != before[1])):
                raise self._out_of_line(position if first is None else first + at)
            before = (position, record_id[:8])
        return rows

    def _unpack_any(self, heads: list[bytes]) -> list[tuple[Any, ...]]:
        """Heads of before schema 2 have no checksum; what else is there was not written by statsapi."""
        try:
            return [
                _HEAD.unpack(head) if len(head) == _HEAD.size else (*_UNCHECKED.unpack(head), None) for head in heads
            ]
        except struct.error:
            raise JournalRefused(
                f"{self._address} holds an entry that statsapi did not write: give it a stream of its own"
            ) from None

    def _columns(self, heads: list[bytes], payloads: list[bytes], first: int | None) -> _Rows:
        """The same for many records at once: 0.15 µs each, where one by one takes 0.35."""
        columns = np.frombuffer(b"".join(heads), _HEADS)
        positions, appended_us, ids = columns["position"], columns["appended_us"], columns["id"]
        checks = np.fromiter(map(crc32, payloads), np.int64, len(payloads))
        checks ^= ids[:, 0] ^ ids[:, 1] ^ ids[:, 2]
        words = columns["previous_words"]
        wrong = appended_us + positions + words[:, 0] + words[:, 1] + checks != columns["check"]
        if wrong.any():
            at = int(wrong.argmax())
            raise self._mismatch(int(positions[at]) if first is None else first + at)
        steps = np.diff(positions)
        wrong = (steps < 1) | ((steps == 1) & (columns["previous"][1:] != columns["front"][:-1]))
        if wrong.any():
            at = int(wrong.argmax()) + 1
            raise self._out_of_line(int(positions[at]) if first is None else first + at)
        return _Rows(positions.tolist(), appended_us.tolist(), heads)

    def _mismatch(self, position: int) -> JournalDamaged:
        return self._damaged(f"the journal's record {position}", "its checksum does not match")

    def _out_of_line(self, position: int) -> JournalDamaged:
        return self._damaged(f"the journal's record {position}", "it does not follow the one before it")

    def _damaged(self, what: str, why: str) -> JournalDamaged:
        return JournalDamaged(f"{what} at {self._address}", why, advice=DAMAGE_ADVICE)

    def _segment(
        self,
        after: Mark,
        state: _State,
        rows: _Rows,
        payloads: list[bytes],
        until_us: int | None,
        wrong_after_us: int | None,
        limit_bytes: int,
    ) -> Segment:
        """What of this belongs to the segment, decoded."""
        now_us = state.clock_us if self._clock_us is None else self._clock_us()
        stamps = rows.stamps_us
        count = _count_until(stamps, until_us, wrong_after_us)
        ended = count < len(stamps)  # the journal ends here, for this call
        size = 0
        for at in range(count):
            size += len(payloads[at])
            if size >= limit_bytes and at + 1 < count:
                count, ended = at + 1, False
                break
        if count == 0:
            self._behind_records = state.position - after.position
            return Segment(after, None, [], 0, more=False, now_us=now_us)
        self._record_bytes = max(1.0, sum(map(len, payloads)) / len(payloads))
        # One after the other, but where somebody else has taken some out.
        positions = rows.positions[:count]
        self._behind_records = state.position - positions[-1]
        changes = decode_records(positions, stamps[:count], payloads[:count])
        mark = _mark(positions[-1], rows.id(count - 1), state.epoch)
        more = not ended and positions[-1] < state.position
        return Segment(mark, stamps[count - 1], changes, count, more=more, now_us=now_us)

    # History

    def _check_history(self, after: Mark, known: _Known, state: _State, rows: _Rows) -> None:
        """HistoryChanged unless the mark's record is in the journal, and all that this process ever knew of.

        `known` is what it knew before it asked for the state. A round trip more where something is wrong.
        """
        stands = _stands(after, state, rows)
        suspect = (
            self._suspects
            or state.position < known.position
            or (known.born != state.born and known.born != b"")
            or (rows is not _NO_ROWS and rows.id_at(known.position) not in (known.id, None))
        )
        if suspect or not stands:
            told = self._calls([Call.of(scripts.JUDGE, self._keys, [*known, secrets.token_bytes(8)])], resend=True)[0]
            if told:
                stands = False
            with self._knowing:
                self._suspects = False
                if told:
                    self._known = _Known()
        if not stands or (after == START and state.lost_us > self._lost_us):
            lost = self._find_loss(after)
            if not stands or lost is not None:
                raise HistoryChanged("the record this view stands on is no longer in the journal", lost)

    def _find_loss(self, after: Mark | None = None) -> Lost | None:
        """The last loss that was written down, if it came after this mark; without a mark, if it is still news."""
        records, since_us, noticed_us, epoch, clock_us = self._calls([Call.of(scripts.LOSS, self._keys, [])])[0]
        if after is None:
            news = clock_us - noticed_us < LOSS_TOLD_US
        elif after == START:
            news = noticed_us > self._lost_us
        else:
            news = int.from_bytes(after.record_id[ID_BYTES:], "big") < epoch
        self._lost_us = noticed_us
        if not noticed_us or not news:
            return None
        noticed = datetime.fromtimestamp(noticed_us // 1_000_000, UTC).isoformat()
        return Lost(records, since_us or None, f"{self._address} no longer has them, which was noticed at {noticed}")

    def _learn(self, known: _Known, born: bytes, appended: Iterable[tuple[Request, Any]], now_us: int) -> None:
        """Take note of what was just appended, `known` being what was known before."""
        last = None
        for request, result in appended:
            if isinstance(result, int) and result:
                last = (result, request.record_id)
                if result <= known.position:
                    self._suspects = True  # that position was given before
        if last is not None:
            with self._knowing:
                if last[0] > self._known.position:
                    self._known = _Known(self._known.born or born, last[0], last[1], now_us, *self._known[4:])

    def _learn_state(self, known: _Known, state: _State, rows: _Rows) -> None:
        """The same of what was just read."""
        last = rows.positions[-1] if rows.positions else 0
        if (
            last <= known.position
            and state.epoch == known.epoch
            and state.checkpoint_position == known.checkpoint_position
            and state.missing == known.missing
            and state.born == known.born
        ):
            return  # nothing new, as nearly always
        place = (state.born, state.checkpoint_position, state.checkpoint_us, state.missing, state.epoch)
        with self._knowing:
            self._known = _Known(place[0], *self._known[1:4], *place[1:])
            if last > self._known.position:
                self._known = self._known._replace(position=last, id=rows.id(-1), us=rows.stamps_us[-1])

    def read_checkpoint(self) -> Checkpoint | None:
        for _ in range(3):
            told, name, check, pieces = self._calls([Call.of(scripts.CHECKPOINT, [*self._keys, self._pieces_key], [])])[
                0
            ]
            state = _State(*told)
            if name is None:
                return None
            content = self._fetch_state(name)
            if content is not None:
                self._check_checkpoint(state, name, check, pieces, content)
                return Checkpoint(name, state.behind, state.checkpoint_us, content)
            # Another one took its place meanwhile.
        raise self._damaged("the checkpoint", "its state is missing")

    def _check_checkpoint(self, state: _State, name: bytes, check: bytes | None, pieces: int, content: bytes) -> None:
        """Compare it with its checksum, if the version that made it had those."""
        if check is None:
            return
        expected, _, count = check[len(name) :].partition(b":")
        record = state.checkpoint_record
        found = state.checkpoint_position + state.checkpoint_us + _checkpoint_checksum(name, record, content)
        if check.startswith(name) != (expected == b"%d" % found):  # neither: an older version made another one since
            raise self._damaged("the checkpoint", "its checksum does not match")
        if not check.startswith(name):
            return
        if count != b"%d" % pieces:
            raise self._damaged("the checkpoint", f"it has {pieces} of its {count.decode()} pieces")

    def _fetch_state(self, name: bytes) -> bytes | None:
        key = self._state_key(name)
        count, part = self._calls([Call("LLEN", key), Call("LINDEX", key, 0)])
        parts = [part]
        for at in range(1, count):
            parts.append(self._calls([Call("LINDEX", key, at)])[0])
        return None if any(part is None for part in parts) else b"".join(parts)

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        names = self._piece_names(checkpoint_id, first, last)
        contents: list[list[bytes]] = []
        for at in range(0, len(names), PIECES_AT_ONCE):
            some = names[at : at + PIECES_AT_ONCE]
            contents += self._calls([Call("LRANGE", self._piece_key(name), 0, -1) for name in some])
        if not all(contents):
            self._piece_names(checkpoint_id, first, last)  # raises where the next checkpoint has taken them away
        return [
            (int(name.partition(":")[0]), self._piece(name, *parts))
            for name, parts in zip(names, contents, strict=True)
        ]

    def _piece(self, name: str, *parts: bytes) -> bytes:
        """A piece's content, compared with what its name says of it."""
        piece = b"".join(parts)
        key, _, size, *checks = name.split(":")  # one of before schema 2 has no checksum
        what = f"the checkpoint's piece {key}"
        if not parts:
            raise self._damaged(what, "it is missing")
        if len(piece) != int(size) or any(piece_checksum(int(key), piece) != int(check) for check in checks):
            raise self._damaged(what, "its checksum does not match")
        return piece

    def _piece_names(self, checkpoint_id: bytes, first: int, last: int) -> list[str]:
        names = self._calls([Call.of(scripts.PIECES, [*self._keys, self._pieces_key], [checkpoint_id, first, last])])[0]
        if names is None:
            raise HistoryChanged("another checkpoint has taken this one's place")
        return [name.decode() for name in names]

    # Compaction and housekeeping

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        if self._calls([Call("HGET", self._keys[1], "cp_name")])[0] != previous_id:
            return False  # before megabytes travel
        state_key = self._state_key(checkpoint.id)
        staged = {state_key: checkpoint.state}
        changes: list[int | str] = []
        for key, piece in pieces.items():
            name = "" if piece is None else f"{key}:{checkpoint.id.hex()}:{len(piece)}:{piece_checksum(key, piece)}"
            changes += (key, name)
            if piece is not None:
                staged[self._piece_key(name)] = piece
        for staged_key, content in staged.items():
            self._stage(staged_key, content)
        mark = checkpoint.mark
        record_id, epoch = mark.record_id[:ID_BYTES], int.from_bytes(mark.record_id[ID_BYTES:], "big")
        bound = "-inf" if drop_pieces_before is None else drop_pieces_before
        keys = [*self._keys, self._pieces_key, state_key]
        if previous_id is not None:
            keys.append(self._state_key(previous_id))
        arguments = (previous_id or b"", checkpoint.id, mark.position, record_id, epoch, bound)
        check = _checkpoint_checksum(checkpoint.id, record_id, checkpoint.state)
        done = self._calls([Call.of(scripts.COMMIT, keys, [*arguments, check, *changes])], resend=False)[0]
        if done == 1:
            return True
        self._calls([Call("UNLINK", *staged)])
        if done == 0:
            return False
        raise HistoryChanged("the record under the new checkpoint is no longer in the journal")

    def _stage(self, key: str, content: bytes) -> None:
        for at in range(0, max(len(content), 1), PART_BYTES):
            self._calls([Call.of(scripts.STAGE, [key], [content[at : at + PART_BYTES]])], resend=False)

    def maintain(self) -> None:
        if not self._keeping.acquire(blocking=False):
            return  # another thread is at it
        try:
            forget = Call.of(scripts.FORGET, [*self._keys, self._forget_key], [self.settled_us()])
            for _ in range(STEPS):
                if not any(self._calls([Call.of(scripts.TRIM, self._keys, []), forget], resend=False)):
                    break
                time.sleep(STEP_PAUSE_S)  # let those who append in between
        finally:
            self._keeping.release()

    def check_writable(self, wait_s: float = 1.0) -> None:
        self._primary.check_open()
        with self._appends.held(wait_s):
            self._primary.calls([Call.of(scripts.CHECK, self._keys, [])], timeout_s=wait_s)

    def size_bytes(self) -> int:
        """Of stream and checkpoint, as the server estimates it from samples; keys are not counted."""
        name, piece_bytes = self._calls([Call("HMGET", self._keys[1], "cp_name", "piece_bytes")])[0]
        held = [self._keys[0], *(() if name is None else (self._state_key(name),))]
        sizes = self._calls([Call("MEMORY", "USAGE", key) for key in held])
        return sum(size or 0 for size in sizes) + int(piece_bytes or 0)

    def info(self) -> Info:
        told, name, *_ = self._calls([Call.of(scripts.CHECKPOINT, [*self._keys, self._pieces_key], [])])[0]
        state = _State(*told)
        covered = max(state.checkpoint_position, 0)
        entries, us, length, trimmed = self._calls(
            [
                Call("XRANGE", self._keys[0], f"({covered}-0", "+", "COUNT", 1),
                Call("HGET", self._keys[1], "us"),
                Call("XLEN", self._keys[0]),
                Call("HGET", self._keys[1], "trimmed"),
            ]
        )
        first = int(entries[0][0].partition(b"-")[0]) if entries else None
        dead = covered - int(trimmed or 0)  # under the checkpoint, still in the stream
        return Info(
            location=str(self._address),
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
        self._primary.close()

    def _state_key(self, checkpoint_id: bytes) -> str:
        return f"{self._name}:state:{checkpoint_id.hex()}"

    def _piece_key(self, name: str) -> str:
        return f"{self._name}:piece:{name}"

    def _calls(self, calls: Sequence[Call], *, resend: bool = True) -> list[Any]:
        return self._primary.calls(calls, resend=resend)

    # The server's settings

    def _check_exists(self) -> None:
        if not self._calls([Call("EXISTS", self._keys[1])])[0]:
            raise JournalRefused(f"no journal at {self._address}: nothing was ever recorded there")

    def _check_server(self, fsync: Fsync) -> str:
        """Warn of what the server's settings do not keep, refuse what cannot work; gives the promise."""
        info = _parse_info(self._calls([Call("INFO")])[0])
        version = info.get("redis_version", "0")
        if int(version.partition(".")[0]) < OLDEST_VERSION:
            raise JournalRefused(
                f"{self._address} is Redis {version}; it takes Redis {OLDEST_VERSION} or newer, or Valkey"
            )
        if info.get("cluster_enabled") == "1" and self._address.kind != "cluster":
            raise JournalRefused(f"{self._address} is a node of a Cluster: write redis+cluster:// for it")
        schema, (seconds, micros) = self._calls([Call("HGET", self._keys[1], "schema"), Call("TIME")])
        self._server_clock.set(int(seconds) * 1_000_000 + int(micros), time.monotonic())
        if schema is not None and int(schema) > SCHEMA_VERSION:
            raise JournalRefused(f"the journal at {self._address} has schema {int(schema)}: use a newer statsapi")
        try:
            policy = self._calls([Call("CONFIG", "GET", "appendfsync")])[0][1].decode()
        except JournalRefused as error:  # managed servers often forbid it
            policy = None
            logger.warning("%s: whether it syncs its log to the disk could not be checked (%s)", self._address, error)
        if fsync == "always" and (info.get("aof_enabled") == "0" or policy not in ("always", None)):
            raise JournalRefused(
                f"STATSAPI_FSYNC=always needs appendonly yes and appendfsync always on {self._address}, which has "
                f"{'appendonly no' if info.get('aof_enabled') == '0' else 'appendfsync ' + str(policy)}"
            )
        for fault in _missing(info, policy, self._wait_replicas):
            logger.warning("%s: %s", self._address, fault)
        kept = "keeps no log (appendonly no)"
        if info.get("aof_enabled") != "0":
            kept = {
                "always": "syncs each append to its disk (appendfsync always)",
                "everysec": "syncs its log once a second (appendfsync everysec): a power cut there costs up to two "
                "seconds",
                "no": "leaves its log to the operating system (appendfsync no)",
            }.get(str(policy), "keeps a log")
        waits = f", and {self._wait_replicas} replicas have it before a 2xx" if self._wait_replicas else ""
        return f"the journal is {self._address}: the end of every process here loses nothing; the server {kept}{waits}"


def _missing(info: dict[str, str], policy: str | None, wait_replicas: int) -> list[str]:
    """What the settings do not keep: one sentence each, with what to set."""
    found = []
    if info.get("aof_enabled") == "0":
        found.append("a crash or restart of it loses what came after its last snapshot: set appendonly yes")
    elif policy == "no":
        found.append("a power cut there loses what its operating system had not written: set appendfsync everysec")
    evicts = info.get("maxmemory_policy", "noeviction")
    if evicts != "noeviction":
        found.append(
            f"it may throw out acknowledged events or keys when memory runs out (maxmemory-policy {evicts}): "
            "set maxmemory-policy noeviction"
        )
    replicas = int(info.get("connected_slaves", "0"))
    if replicas < wait_replicas:
        found.append(
            f"it has {replicas} of the {wait_replicas} replicas that each append waits for "
            "(STATSAPI_REDIS_WAIT_REPLICAS): until they are there every write is a 503"
        )
    return found


def _parse_info(text: bytes) -> dict[str, str]:
    rows = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in rows if colon}


def _stands(after: Mark, state: _State, rows: _Rows) -> bool:
    """Whether the mark's record is in the journal: the record behind it, or the meta hash, names it.

    Where the next record is missing somebody took it out; that was counted, and is in the epoch.
    """
    if after == state.behind:
        return True
    if not (
        state.checkpoint_position < after.position <= state.position
        and after.position > 0
        and after.record_id[ID_BYTES:] == _epoch_bytes(state.epoch)
    ):
        return False
    if rows.positions and rows.positions[0] == after.position + 1:
        return rows.names_before(after.record_id)
    return after.position != state.position or state.id == after.record_id[:ID_BYTES]


def _content_check(record_id: bytes, payload: bytes) -> int:
    """The part of a record's check that is known before its position and time are.

    The id by exclusive or, which numpy does for many at once: to put it through crc32 took 0.07 µs a record more.
    """
    first, second, third = _ID_WORDS.unpack(record_id)
    return crc32(payload) ^ first ^ second ^ third  # type: ignore[no-any-return]


def _sum_of_words(previous: bytes) -> int:
    """Of the first eight bytes of an id: two words, as a sum in Lua has to stay below 2^53."""
    return int.from_bytes(previous[:4], "little") + int.from_bytes(previous[4:8], "little")


def _checkpoint_checksum(name: bytes, record_id: bytes, state: bytes) -> int:
    """The part of a checkpoint's check that is known before its time is."""
    return crc32(name + record_id, crc32(state))


def _count_until(stamps_us: list[int], until_us: int | None, wrong_after_us: int | None) -> int:
    """How many records there are before the first that ends the journal for a read: see Journal.read."""
    if until_us is None or not stamps_us:
        return len(stamps_us)
    stamps = np.array(stamps_us, np.int64)
    late = stamps > until_us
    if wrong_after_us is not None:
        late &= stamps <= wrong_after_us
    return int(late.argmax()) if late.any() else len(stamps_us)


def _answer_checksum(key: IdempotencyKey, answer: bytes) -> int:
    """The part of a kept answer's check that is known before its time is."""
    return answer_checksum(key.name, key.digest, answer, 0)
