"""The journal for several machines: a Redis or Valkey stream, on a single server, behind Sentinel, or in a Cluster.

All keys share the hash tag {NAME}, so that a Cluster keeps them on one node and one script sees them all:

    {NAME}             the stream; an entry's id is POSITION-0, its one field the head, its value the payload
                       head: appended_us i64 | position i64 | record id 12 bytes | the previous record's first 8
    {NAME}:meta        hash. position, id, us: of the last record. cp, cp_id, cp_us, cp_name: the checkpoint's mark,
                       time and id. trimmed, missing, epoch: see History. lease, lease_us: see Decisions.
                       piece_bytes: of all pieces
    {NAME}:state:ID    list: a checkpoint's state in parts; with a TTL until the checkpoint is made
    {NAME}:pieces      sorted set: the checkpoint's pieces, each KEY:ID:BYTES with the score KEY; ID is the checkpoint's
                       that brought it
    {NAME}:piece:KEY:ID:BYTES    list: a piece in parts; with a TTL until its checkpoint is made, and never changed
    {NAME}:key:NAME    an idempotency key: expires_us i64 | digest length u32 | digest | answer; PX a little later

The head is the field's name, so nothing has to be put together in Lua and taken apart in Python: a payload of 160 KB is
copied once less each time. Positions come from a counter that only rises, so none is given twice.

Order and time.  Whatever writes is one script, so one after the other. `appended_us` is max(the server's TIME, the
previous record's); a clock other than the wall clock (tests) is sent along and used in TIME's place. An append is sent
once: a call that may have reached the server is never sent again, and its outcome is then unknown. A server that was
paused runs it when it wakes; the client's retry under its key finds the key.

Groups.  What a process' threads append at one time goes in one script call (see groups.py):
59 µs for one record of one event, 110 for four, 273 for a hundred (redis-server 7.0 on the same two cores). Large
batches go by WATCH and MULTI, which comes to the same: nothing is recorded unless the meta hash is still what was read,
and the script has the last word where somebody was faster.

History.  A record names the one before it. So a reader need not be sent the record it stands on again to know that it
still stands: the next one must name it, and where there is no next one the meta hash must. The stream's length must be
what the counters say; where somebody else has removed entries (XTRIM, XDEL, DEL, eviction) a reading script notes how
many are missing and raises the epoch, which is part of every mark: all views everywhere start afresh and agree on what
is left. A server that lost or exchanged everything (flush, failover to an older copy) fails one of these checks.

Reading asks the primary only. Every script is declared as one that writes, so a replica refuses it (READONLY), and so
does a primary that misses the replicas which it must have (NOREPLICAS) or cannot save (MISCONF): a read that fails like
that is better than one that is wrong. XRANGE goes in the same round trip. What lies more than NEAR_RECORDS behind is
read by a script instead, which stops at the limit in bytes: XRANGE can only count.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from statsapi.errors import IdempotencyConflict, JournalRefused, JournalUnavailable
from statsapi.journal import (
    NO_PIECES,
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
    Key,
    Lost,
    Mark,
    Proposal,
    Segment,
    wall_clock_us,
)
from statsapi.journal.format import decode_records
from statsapi.journal.groups import WAIT_LIMIT_S, GroupCommit, Request, held_up
from statsapi.journal.redis_primary import Address, Call, Primary, Script
from statsapi.model import EventBatch

logger = logging.getLogger("statsapi")

SCHEMA_VERSION: Final = 1

# Scripts that declare what they are (#!lua), and CONFIG, INFO and XTRIM as they are used here.
OLDEST_VERSION: Final = 7

# So many plain tries before a decision takes the lease. Its lifetime is what a holder that died costs the others, and
# must be longer than a decision takes (the service bounds its catching up by a second).
DECIDE_TRIES: Final = 3
LEASE_US: Final = 1_500_000
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
STAGED_TTL_MS: Final = 600_000
PIECES_AT_ONCE: Final = 16

# One step of removing compacted records. Freeing 1,024 batches of 10,000 events takes the server some 20 ms.
STEP_RECORDS: Final = 1024
STEPS: Final = 64
STEP_PAUSE_S: Final = 1e-3

# The server forgets a key so much later than the journal's time does, which may be ahead of the server's clock.
KEY_SLACK_MS: Final = 60_000

# A replica has so long to take an append over (STATSAPI_REDIS_WAIT_REPLICAS); less than a socket's timeout.
REPLICAS_TIMEOUT_MS: Final = 1000

_ID_BYTES: Final = 12  # of a record; a mark's record_id has the epoch in four more
_HEAD: Final = np.dtype([("appended_us", "<i8"), ("position", "<i8"), ("id", f"V{_ID_BYTES}"), ("previous", "V8")])

# What reading scripts share. `state` counts the stream: see History in the module's text.
_STATE: Final = """
local stream, meta = KEYS[1], KEYS[2]
local m = redis.call('HMGET', meta, 'position', 'id', 'us', 'epoch', 'cp', 'cp_id', 'trimmed', 'missing')
local position, epoch = tonumber(m[1] or 0), tonumber(m[4] or 0)
local length = redis.call('XLEN', stream)
if not m[1] and length > 0 then
    return redis.error_reply('DAMAGED the stream is there without its meta hash')
end
local missing = position - tonumber(m[7] or 0) - length
if missing ~= tonumber(m[8] or 0) then
    epoch = epoch + 1
    redis.call('HSET', meta, 'missing', missing, 'epoch', epoch)
end
local state = {position, m[2] or '', epoch, tonumber(m[5] or -1), m[6] or ''}
"""

_CLOCK: Final = """
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
"""

_FIND: Final = """
local function find(key, digest, now)
    local kept = redis.call('GET', key)
    if not kept then return nil end
    local expires, length, from = struct.unpack('<i8I4', kept)
    if expires <= now then return nil end
    if string.sub(kept, from, from + length - 1) ~= digest then return 'c' end
    return 'r' .. string.sub(kept, from + length)
end
"""

# ARGV: clock or '', token or '', position and id on which it depends or '', 1 to touch; then for each record
# id or '', payload, number of its key or '', digest, answer, ttl_us, ttl_ms.
# Gives 'busy', 'moved', or {now, epoch, results…}: the position, 0 for nothing recorded, 'r' with an answer, 'c'.
# Written so that whatever can fail does before the first write.
_APPEND_TEXT: Final = (
    _CLOCK
    + _FIND
    + """
local stream, meta = KEYS[1], KEYS[2]
local m = redis.call('HMGET', meta, 'position', 'id', 'us', 'epoch', 'lease', 'lease_us')
if m[5] and m[5] ~= ARGV[2] and tonumber(m[6]) > clock then return 'busy' end
if not m[1] and redis.call('EXISTS', stream) == 1 then
    return redis.error_reply('DAMAGED the stream is there without its meta hash')
end
local position, last = tonumber(m[1] or 0), m[2] or ''
if ARGV[3] ~= '' and (position ~= tonumber(ARGV[3]) or last ~= ARGV[4]) then return 'moved' end
local now = math.max(ARGV[1] == '' and clock or tonumber(ARGV[1]), tonumber(m[3] or 0))
local results = {now, tonumber(m[4] or 0)}
local before = position
for at = 6, #ARGV, 7 do
    local key = ARGV[at + 2] ~= '' and KEYS[tonumber(ARGV[at + 2])]
    local known = key and find(key, ARGV[at + 3], now)
    if known then
        results[#results + 1] = known
    else
        local id = ARGV[at]
        if id == '' then
            results[#results + 1] = 0
        else
            local previous = last == '' and string.rep('\\0', 8) or string.sub(last, 1, 8)
            position = position + 1
            local head = struct.pack('<i8i8', now, position) .. id .. previous
            redis.call('XADD', stream, string.format('%.0f-0', position), head, ARGV[at + 1])
            last = id
            results[#results + 1] = position
        end
        if key then
            local digest = ARGV[at + 3]
            local head = struct.pack('<i8I4', now + tonumber(ARGV[at + 5]), #digest)
            redis.call('SET', key, head .. digest .. ARGV[at + 4], 'PX', ARGV[at + 6])
        end
    end
end
if position > before then
    redis.call('HSET', meta, 'position', string.format('%.0f', position), 'id', last,
               'us', string.format('%.0f', now))
    if before == 0 then redis.call('HSET', meta, 'schema', SCHEMA) end
end
if ARGV[5] == '1' then redis.call('HINCRBY', meta, 'touched', 1) end
if m[5] then redis.call('HDEL', meta, 'lease', 'lease_us') end
return results
""".replace("SCHEMA", str(SCHEMA_VERSION))
)
_APPEND: Final = Script("#!lua\n" + _APPEND_TEXT)
# For what lets room come back where memory is full: a tick, which moves time and so the horizon, and a deletion.
_APPEND_ALWAYS: Final = Script("#!lua flags=allow-oom\n" + _APPEND_TEXT)

# ARGV: clock or '', token or '' (then the lease is taken), digest. KEYS[3]: the idempotency key, if there is one.
# Gives 'busy', {now, answer} for a key that is known, or {now, false, position, id}.
_BEGIN: Final = Script(
    "#!lua flags=allow-oom\n"
    + _CLOCK
    + _FIND
    + f"""
local meta = KEYS[2]
local m = redis.call('HMGET', meta, 'position', 'id', 'us', 'lease', 'lease_us')
local now = math.max(ARGV[1] == '' and clock or tonumber(ARGV[1]), tonumber(m[3] or 0))
local known = KEYS[3] and find(KEYS[3], ARGV[3], now)
if known then return {{now, known}} end
if m[4] and m[4] ~= ARGV[2] and tonumber(m[5]) > clock then return 'busy' end
if ARGV[2] ~= '' then
    redis.call('HSET', meta, 'lease', ARGV[2], 'lease_us', string.format('%.0f', clock + {LEASE_US}))
end
return {{now, false, tonumber(m[1] or 0), m[2] or ''}}
"""
)

_RELEASE: Final = Script(
    """#!lua flags=allow-oom
if redis.call('HGET', KEYS[2], 'lease') == ARGV[1] then redis.call('HDEL', KEYS[2], 'lease', 'lease_us') end
return 1
"""
)

_PROBE: Final = Script("#!lua flags=allow-oom\n" + _STATE + "return state\n")

# ARGV: position, limit in records, limit in bytes. Gives the state, then head and payload in turn.
_READ: Final = Script(
    "#!lua flags=allow-oom\n"
    + _STATE
    + """
local from, left, bytes = '(' .. ARGV[1] .. '-0', tonumber(ARGV[2]), tonumber(ARGV[3])
local reply = {state}
while left > 0 and bytes > 0 do
    local part = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(left, 32))
    if #part == 0 then break end
    for at = 1, #part do
        if bytes <= 0 then break end
        local entry = part[at][2]
        reply[#reply + 1] = entry[1]
        reply[#reply + 1] = entry[2]
        bytes = bytes - #entry[2]
    end
    left = left - #part
    from = '(' .. part[#part][1]
end
return reply
"""
)

# ARGV: clock or '', digest. KEYS[3]: the key.
_FIND_ANSWER: Final = Script(
    "#!lua flags=allow-oom\n"
    + _CLOCK
    + _FIND
    + """
local now = math.max(ARGV[1] == '' and clock or tonumber(ARGV[1]), tonumber(redis.call('HGET', KEYS[2], 'us') or 0))
return find(KEYS[3], ARGV[2], now) or false
"""
)

# Writes nothing, but is refused wherever a write would be: a replica, no memory, too few replicas, a full disk.
_CHECK: Final = Script("#!lua\nreturn 1\n")

# ARGV: a part. KEYS[1]: what it is of. Also where memory is full: compaction is what makes room.
_STAGE: Final = Script(
    f"""#!lua flags=allow-oom
redis.call('RPUSH', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], {STAGED_TTL_MS})
"""
)

# ARGV: the previous checkpoint's id or '', the new one's id, its mark's position, record id and epoch, appended_us, the
# key before which pieces go or '-inf'; then for each piece that changes its key, and its name, staged, or ''.
# KEYS[3]: the pieces; KEYS[4]: the new state, staged; KEYS[5]: the previous one's. The pieces' own keys are made here,
# as only the script knows which go; all have the same hash tag. Gives 1; 0 for a lost race; -1 where the mark does not
# stand.
_COMMIT: Final = Script(
    "#!lua flags=allow-oom\n"
    + _STATE
    + """
local current = redis.call('HMGET', meta, 'cp_name', 'cp_us')
if (current[1] or '') ~= ARGV[1] then return 0 end
local at, id, us = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[6])
if epoch ~= tonumber(ARGV[5]) then return -1 end
if at ~= state[4] or id ~= state[5] then
    if at <= state[4] then return -1 end
    local entry = redis.call('XRANGE', stream, ARGV[3] .. '-0', ARGV[3] .. '-0')[1]
    if not entry or string.sub(entry[2][1], 17, 28) ~= id then return -1 end
    us = math.max(us, (struct.unpack('<i8', entry[2][1])))
end
us = math.max(us, tonumber(current[2] or 0))
local staged = {KEYS[4]}
for n = 9, #ARGV, 2 do
    if ARGV[n] ~= '' then staged[#staged + 1] = stream .. ':piece:' .. ARGV[n] end
end
for _, key in ipairs(staged) do
    if redis.call('EXISTS', key) == 0 then return redis.error_reply('STAGED a part of the checkpoint has gone') end
end
for _, key in ipairs(staged) do redis.call('PERSIST', key) end
local pieces, grown = KEYS[3], 0
local function bytes(name) return tonumber(string.match(name, '%d+$')) end
local function drop(from, to)
    for _, name in ipairs(redis.call('ZRANGE', pieces, from, to, 'BYSCORE')) do
        redis.call('ZREM', pieces, name)
        redis.call('UNLINK', stream .. ':piece:' .. name)
        grown = grown - bytes(name)
    end
end
for n = 8, #ARGV, 2 do
    drop(ARGV[n], ARGV[n])
    if ARGV[n + 1] ~= '' then
        redis.call('ZADD', pieces, ARGV[n], ARGV[n + 1])
        grown = grown + bytes(ARGV[n + 1])
    end
end
drop('-inf', '(' .. ARGV[7])
redis.call('HINCRBY', meta, 'piece_bytes', grown)
redis.call('HSET', meta, 'cp', ARGV[3], 'cp_id', id, 'cp_us', string.format('%.0f', us), 'cp_name', ARGV[2])
if KEYS[5] then redis.call('UNLINK', KEYS[5]) end
return 1
"""
)

# ARGV: the checkpoint's id, the first key, the one behind the last. KEYS[3]: the pieces. Gives their names; nothing for
# another checkpoint.
_PIECES: Final = Script(
    """#!lua flags=allow-oom
if redis.call('HGET', KEYS[2], 'cp_name') ~= ARGV[1] then return false end
return redis.call('ZRANGE', KEYS[3], ARGV[2], '(' .. ARGV[3], 'BYSCORE')
"""
)

# Gives 1 where there may be more. Entries that somebody else took before are no longer missing then.
_TRIM: Final = Script(
    "#!lua flags=allow-oom\n"
    + _STATE
    + f"""
local trimmed = tonumber(m[7] or 0)
local upto = math.min(state[4], trimmed + {STEP_RECORDS})
if upto <= trimmed then return 0 end
local removed = redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f-0', upto + 1))
redis.call('HSET', meta, 'trimmed', string.format('%.0f', upto), 'missing', missing - (upto - trimmed) + removed)
return upto < state[4] and 1 or 0
"""
)

_CHECKPOINT: Final = Script(
    "#!lua flags=allow-oom\n" + _STATE + "local cp = redis.call('HMGET', meta, 'cp_us', 'cp_name')\n"
    "return {state, cp[1], cp[2]}\n"
)


_HEAD_STRUCT: Final = struct.Struct(f"<qq{_ID_BYTES}s8s")


class _State(NamedTuple):
    """What a reading script tells of the journal at its moment. checkpoint_position is -1 without a checkpoint."""

    position: int
    id: bytes
    epoch: int
    checkpoint_position: int
    checkpoint_record: bytes

    @property
    def behind(self) -> Mark:
        """Where a view begins."""
        if self.checkpoint_position < 0:
            return START
        return _mark(self.checkpoint_position, self.checkpoint_record, self.epoch)


def _mark(position: int, record_id: bytes, epoch: int) -> Mark:
    return Mark(position, record_id.ljust(_ID_BYTES, b"\0") + epoch.to_bytes(4, "big"))


class RedisJournal:
    """See the Journal protocol, and the module's text for what is kept where."""

    needs_single_process = False
    lost: Lost | None = None

    def __init__(
        self,
        address: Address,
        *,
        fsync: Fsync = "interval",
        clock_us: Clock = wall_clock_us,
        wait_replicas: int = 0,
        wait_limit_s: float = WAIT_LIMIT_S,
        create: bool = True,
    ) -> None:
        self.observe_fsync: Callable[[float], None] = lambda seconds: None
        # The engine's clock is the server's. One that a test sets is sent along.
        self._clock_us = None if clock_us is wall_clock_us else clock_us
        self.settled_us = clock_us
        self.local_clock_us: Clock | None = clock_us
        self._wait_replicas = wait_replicas
        self._name = f"{{{address.stream}}}"
        self._keys = (self._name, f"{self._name}:meta")
        self._pieces_key = f"{self._name}:pieces"
        self._appends = GroupCommit(self._record, threading.RLock(), id_bytes=_ID_BYTES, wait_limit_s=wait_limit_s)
        self._keeping = threading.Lock()
        self._behind_records: float = math.inf  # how far the last reader was from the end
        self._record_bytes = 1.0  # of an average record that it got
        self._primary = Primary(address)
        self._address = address
        try:
            self.promise = self._check_server(fsync)
            if not create:
                self._check_exists()
        except BaseException:
            self._primary.close()
            raise

    # Appending

    def append(self, proposal: Proposal | Decide, *, key: Key | None = None) -> Appended:
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
        now_us, epoch, *results = self._send_group(group, deadline)
        return [self._outcome(request, result, now_us, epoch) for request, result in zip(group, results, strict=True)]

    def _send_group(self, group: Sequence[Request], deadline: float) -> list[Any]:
        large = sum(len(request.payload or b"") for request in group) >= LARGE_BYTES
        if large and all(request.key is None and request.payload is not None for request in group):
            reply = self._send_large(group)
            if reply is not None:
                return reply
        while True:
            reply = self._send(group)
            if isinstance(reply, list):
                return reply
            if time.monotonic() >= deadline:
                raise held_up()
            time.sleep(LEASE_RETRY_S)

    def _send(
        self,
        group: Iterable[Request],
        token: bytes = b"",
        after: Sequence[Any] = (b"", b""),
        script: Script = _APPEND,
    ) -> Any:
        """One call of the append script, never sent twice. Caller holds the writer's lock."""
        keys: list[str | bytes] = [*self._keys]
        arguments: list[Any] = [self._clock(), token, *after, 1 if self._wait_replicas else 0]
        for request in group:
            payload, key = request.payload, request.key
            arguments += (b"", b"") if payload is None else (request.record_id, payload)
            if key is None:
                arguments += (b"", b"", b"", b"", b"")
            else:
                keys.append(self._key_name(key))
                ttl_ms = -(-key.ttl_us // 1000) + KEY_SLACK_MS
                arguments += (len(keys), key.digest, request.answer, key.ttl_us, ttl_ms)
        # Under a key whose first append is known, too, this waits for all that stands before: hence `touch`.
        reply, *waited = self._calls([Call.of(script, keys, arguments), *self._wait()], resend=False)
        if isinstance(reply, list):
            self._check_waited(waited)
        return reply

    def _send_large(self, group: Sequence[Request]) -> list[Any] | None:
        """What the append script does, by WATCH and MULTI; None when somebody was faster. Caller holds the writer's
        lock.
        """
        stream, meta = self._keys
        told: list[Any] = []

        def append(replies: list[Any]) -> list[Call]:
            _, (position, last, us, epoch, lease), (seconds, micros), length = replies
            if lease is not None or (position is None and length):
                return [Call("UNWATCH")]  # the script knows what to say
            clock_us = int(seconds) * 1_000_000 + int(micros) if self._clock_us is None else self._clock_us()
            now_us, at, previous = max(clock_us, int(us or 0)), int(position or 0), last or bytes(8)
            told[:] = [now_us, int(epoch or 0)]
            calls = [Call("MULTI")]
            for request in group:
                at += 1
                told.append(at)
                head = _HEAD_STRUCT.pack(now_us, at, request.record_id, previous[:8])
                calls.append(Call("XADD", stream, f"{at}-0", head, request.payload))
                previous = request.record_id
            fields = ("position", at, "id", previous, "us", now_us, "schema", SCHEMA_VERSION)
            return [*calls, Call("HSET", meta, *fields), Call("EXEC"), *self._wait()]

        first = [
            Call("WATCH", meta),
            Call("HMGET", meta, "position", "id", "us", "epoch", "lease"),
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
        if isinstance(result, bytes):
            return _known(result, now_us)
        return Appended(_mark(result, request.record_id, epoch) if result else None, now_us, request.answer)

    def _decide(self, decide: Decide, key: Key | None, deadline: float) -> Appended | IdempotencyConflict:
        token = b""
        try:
            tries = 0
            while (outcome := self._try_decision(decide, key, token)) is None:
                tries += 1
                if tries == DECIDE_TRIES:
                    token = secrets.token_bytes(8)
                if time.monotonic() >= deadline:
                    raise held_up()
            return outcome
        finally:
            if token:
                with contextlib.suppress(JournalUnavailable, JournalRefused):  # it runs out by itself
                    self._calls([Call.of(_RELEASE, self._keys, [token])])

    def _try_decision(self, decide: Decide, key: Key | None, token: bytes) -> Appended | IdempotencyConflict | None:
        """None when somebody was faster, or holds the lease. Caller holds the writer's lock."""
        keys: list[str | bytes] = [*self._keys, *(() if key is None else (self._key_name(key),))]
        digest = b"" if key is None else key.digest
        begun = self._calls([Call.of(_BEGIN, keys, [self._clock(), token, digest])], resend=True)[0]
        if not isinstance(begun, list):
            time.sleep(LEASE_RETRY_S)
            return None
        if begun[1] is not None:
            return _known(begun[1], begun[0])
        proposal = decide()
        request = self._appends.request(proposal, key)
        adds = isinstance(proposal.draft, EventBatch) and proposal.draft.parts
        reply = self._send([request], token, begun[2:], _APPEND if adds else _APPEND_ALWAYS)
        if not isinstance(reply, list):
            if reply == b"busy":
                time.sleep(LEASE_RETRY_S)
            return None
        now_us, epoch, result = reply
        return self._outcome(request, result, now_us, epoch)

    def _key_name(self, key: Key) -> bytes:
        return f"{self._name}:key:".encode() + key.name

    def _clock(self) -> int | bytes:
        return b"" if self._clock_us is None else self._clock_us()

    # Reading

    def find_answer(self, key: Key) -> bytes | None:
        keys: list[str | bytes] = [*self._keys, self._key_name(key)]
        found = self._calls([Call.of(_FIND_ANSWER, keys, [self._clock(), key.digest])])[0]
        if found is None:
            return None
        known = _known(found, 0)
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
        heads: list[bytes] = []
        if near := self._behind_records <= NEAR_RECORDS:
            count = min(limit_records, NEAR_RECORDS, max(NEAR_LEAST, int(limit_bytes / self._record_bytes) + 1))
            entries, told = self._calls(
                [
                    Call("XRANGE", self._name, f"({after.position}-0", "+", "COUNT", count),
                    Call.of(_PROBE, self._keys, []),
                ]
            )
            fields = [entry[1] for entry in entries]
            heads, payloads = [field[0] for field in fields], [field[1] for field in fields]
            # These are two moments. Where only the second knew of newer records, neither the mark's own record nor the
            # one behind it was seen.
            near = bool(heads) or told[0] <= after.position
        if not near:
            arguments = [after.position, limit_records, max(1, limit_bytes)]
            told, *rest = self._calls([Call.of(_READ, self._keys, arguments)])[0]
            heads, payloads = rest[::2], rest[1::2]
        state = _State(*told)
        joined = b"".join(heads)
        if len(joined) != len(heads) * _HEAD.itemsize:
            raise JournalRefused(
                f"{self._address} holds an entry that statsapi did not write: give it a stream of its own"
            )
        columns = np.frombuffer(joined, _HEAD)
        _check_stands(after, state, columns)
        due = _count_until(columns["appended_us"], until_us, wrong_after_us)
        return self._segment(after, state, columns, payloads, due, limit_bytes)

    def _segment(
        self, after: Mark, state: _State, columns: Any, payloads: list[bytes], due: int, limit_bytes: int
    ) -> Segment:
        """What of this belongs to the segment, decoded: the first `due` records at most."""
        now_us = (self._clock_us or wall_clock_us)()
        stamps = columns["appended_us"]
        count = due
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
        positions = columns["position"][:count].tolist()
        self._behind_records = state.position - positions[-1]
        changes = decode_records(positions, stamps[:count].tolist(), payloads[:count])
        mark = _mark(positions[-1], columns["id"][count - 1].tobytes(), state.epoch)
        more = not ended and positions[-1] < state.position
        return Segment(mark, int(stamps[count - 1]), changes, count, more=more, now_us=now_us)

    def read_checkpoint(self) -> Checkpoint | None:
        for _ in range(3):
            told, cp_us, name = self._calls([Call.of(_CHECKPOINT, self._keys, [])])[0]
            if name is None:
                return None
            state = self._fetch_state(name)
            if state is not None:
                return Checkpoint(name, _State(*told).behind, int(cp_us), state)
            # Another one took its place meanwhile.
        raise JournalRefused(f"the journal at {self._address} is damaged: its checkpoint has no state")

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
            raise JournalRefused(f"the journal at {self._address} is damaged: a part of its checkpoint is missing")
        return [(int(name.partition(":")[0]), b"".join(parts)) for name, parts in zip(names, contents, strict=True)]

    def _piece_names(self, checkpoint_id: bytes, first: int, last: int) -> list[str]:
        names = self._calls([Call.of(_PIECES, [*self._keys, self._pieces_key], [checkpoint_id, first, last])])[0]
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
            name = "" if piece is None else f"{key}:{checkpoint.id.hex()}:{len(piece)}"
            changes += (key, name)
            if piece is not None:
                staged[self._piece_key(name)] = piece
        for staged_key, content in staged.items():
            self._stage(staged_key, content)
        mark = checkpoint.mark
        record_id, epoch = mark.record_id[:_ID_BYTES], int.from_bytes(mark.record_id[_ID_BYTES:], "big")
        bound = "-inf" if drop_pieces_before is None else drop_pieces_before
        keys = [*self._keys, self._pieces_key, state_key]
        if previous_id is not None:
            keys.append(self._state_key(previous_id))
        arguments = (previous_id or b"", checkpoint.id, mark.position, record_id, epoch, checkpoint.appended_us, bound)
        done = self._calls([Call.of(_COMMIT, keys, [*arguments, *changes])], resend=False)[0]
        if done == 1:
            return True
        self._calls([Call("UNLINK", *staged)])
        if done == 0:
            return False
        raise HistoryChanged("the record under the new checkpoint is no longer in the journal")

    def _stage(self, key: str, content: bytes) -> None:
        for at in range(0, max(len(content), 1), PART_BYTES):
            self._calls([Call.of(_STAGE, [key], [content[at : at + PART_BYTES]])], resend=False)

    def maintain(self) -> None:
        if not self._keeping.acquire(blocking=False):
            return  # another thread is at it
        try:
            for _ in range(STEPS):
                if not self._calls([Call.of(_TRIM, self._keys, [])], resend=False)[0]:
                    break
                time.sleep(STEP_PAUSE_S)  # let those who append in between
        finally:
            self._keeping.release()

    def check_writable(self, wait_s: float = 1.0) -> None:
        self._primary.check_open()
        with self._appends.held(wait_s):
            self._primary.calls([Call.of(_CHECK, self._keys, [])], timeout_s=wait_s)

    def size_bytes(self) -> int:
        """Of stream and checkpoint, as the server estimates it from samples; keys are not counted."""
        name, piece_bytes = self._calls([Call("HMGET", self._keys[1], "cp_name", "piece_bytes")])[0]
        held = [self._keys[0], *(() if name is None else (self._state_key(name),))]
        sizes = self._calls([Call("MEMORY", "USAGE", key) for key in held])
        return sum(size or 0 for size in sizes) + int(piece_bytes or 0)

    def info(self) -> Info:
        told, cp_us, _ = self._calls([Call.of(_CHECKPOINT, self._keys, [])])[0]
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
            checkpoint_position=None if cp_us is None else covered,
            checkpoint_us=None if cp_us is None else int(cp_us),
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
        schema = self._calls([Call("HGET", self._keys[1], "schema")])[0]
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


def _check_stands(after: Mark, state: _State, columns: Any) -> None:
    """HistoryChanged unless the mark's record is in the journal: the record behind it, or the meta hash, names it.

    Where the next record is missing somebody took it out; that was counted, and is in the epoch.
    """
    if after == state.behind:
        return
    stands = (
        state.checkpoint_position < after.position <= state.position
        and after.position > 0
        and after.record_id[_ID_BYTES:] == state.epoch.to_bytes(4, "big")
    )
    if stands and len(columns) and int(columns["position"][0]) == after.position + 1:
        stands = columns["previous"][0].tobytes() == after.record_id[:8]
    elif stands and after.position == state.position:
        stands = after.record_id[:_ID_BYTES] == state.id
    if not stands:
        raise HistoryChanged("the record this view stands on is no longer in the journal")


def _count_until(stamps: Any, until_us: int | None, wrong_after_us: int | None) -> int:
    """How many records stand before the first that ends the journal: see Journal.read."""
    if until_us is None:
        return len(stamps)
    ends = stamps > until_us
    if wrong_after_us is not None:
        ends &= stamps <= wrong_after_us
    return int(ends.argmax()) if ends.any() else len(stamps)


def _known(found: bytes, now_us: int) -> Appended | IdempotencyConflict:
    """What a script found under a key."""
    return Appended(None, now_us, found[1:], replayed=True) if found[:1] == b"r" else IdempotencyConflict()
