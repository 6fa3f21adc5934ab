"""Appending to a Redis journal: groups of records, large batches, and decisions.

See Late, Groups and Decisions in redis_streams.py.
"""

from __future__ import annotations

import contextlib
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from statsapi.errors import IdempotencyConflict, JournalRefused, JournalUnavailable
from statsapi.journal import redis_scripts as scripts
from statsapi.journal.group_commit import GroupCommit, Request
from statsapi.journal.protocol import Appended, Decide, Proposal, held_up, time_after
from statsapi.journal.redis_answers import kept_answer, kept_checksum
from statsapi.journal.redis_heads import HEAD, content_check, mark_of, sum_of_words
from statsapi.journal.redis_history import History
from statsapi.journal.redis_primary import Call, Script
from statsapi.journal.redis_scripts import ID_BYTES, SCHEMA_VERSION
from statsapi.journal.redis_server import Server
from statsapi.model import EventBatch, IdempotencyKey

# A decision takes the lease after this many plain tries.
DECIDE_TRIES: Final = 3

LEASE_RETRY_S: Final = 1e-3

# The most in one call of the append script; further requests go into the next.
GROUP_BYTES: Final = 16 << 20
GROUP_RECORDS: Final = 256

# A group without keys of at least this size goes by MULTI instead of the script. Lua hashes each byte of its arguments:
# with 160 KB an empty script takes 203 µs and the append 293, but XADD alone 84. MULTI costs a second round trip, some
# 40 µs.
LARGE_BYTES: Final = 64 << 10

# How long a replica may take to have an append (STATSAPI_REDIS_WAIT_REPLICAS); less than a socket's timeout.
REPLICAS_TIMEOUT_MS: Final = 1000

# The server refuses an append that it begins later than this after it was sent: see Late. The excess over a socket's
# timeout allows for the way there, and for the drift between its clock and ours between two calls.
LATE_US: Final = 2_500_000

# Arguments of append.lua: not after, settled time, whether to touch; a key's index, lifetime, checksum, digest length.
_LIMITS: Final = struct.Struct("<qqB")
_KEYED: Final = struct.Struct("<IqII")
_WORD: Final = struct.Struct("<I")


class Appends:
    """The appends of one process. They queue behind the lock of `group`. `settled_us`: see Journal."""

    def __init__(
        self,
        server: Server,
        history: History,
        settled_us: Callable[[], int],
        *,
        wait_replicas: int,
        wait_limit_s: float,
    ) -> None:
        self._server = server
        self._history = history
        self._settled_us = settled_us
        self._wait_replicas = wait_replicas
        self.group = GroupCommit(self._record, threading.RLock(), id_bytes=ID_BYTES, wait_limit_s=wait_limit_s)

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        self._server.primary.check_open()
        if isinstance(proposal, Proposal):
            return self.group.append(proposal, key)
        with self.group.held_alone() as deadline:
            outcome = self._decide(proposal, key, deadline)
        if isinstance(outcome, IdempotencyConflict):
            raise outcome
        return outcome

    def _record(self, group: list[Request], deadline: float) -> list[Appended | IdempotencyConflict]:
        self.group.take(group, GROUP_RECORDS, GROUP_BYTES)
        known = self._history.known
        now_us, epoch, born, *results = self._send_group(group, deadline)
        self._history.learn_append(known, born, zip(group, results, strict=True), now_us)
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

        JournalUnavailable where the deadline has passed, as this process may have been stopped meanwhile.
        """
        now_s = time.monotonic()
        if now_s >= deadline_s:
            raise held_up()
        keys: list[str | bytes] = [*self._server.keys, self._server.expiry_key]
        not_after_us = self._server.clock.at(now_s) + LATE_US
        limits = _LIMITS.pack(not_after_us, self._settled_us(), self._wait_replicas > 0)
        arguments: list[Any] = [self._server.sent_clock(), token, after, limits]
        for request in group:
            payload, key = request.payload, request.key
            front = kept = b""
            if payload is not None:
                front = request.record_id + _WORD.pack(content_check(request.record_id, payload))
            if key is not None:
                keys.append(self._server.key_name(key))
                check = kept_checksum(key, request.answer)
                kept = _KEYED.pack(len(keys), key.ttl_us, check, len(key.digest)) + key.digest + request.answer
            arguments += (front, payload or b"", kept)
        # WAIT covers writes of this connection only. `touch` makes one, so that a replay under a known key waits too.
        reply, *waited = self._server.calls([Call.of(script, keys, arguments), *self._wait()], resend=False)
        if isinstance(reply, list):
            self._check_waited(waited)
        elif reply.startswith(b"late"):
            self._server.clock.set(int(reply[4:]), time.monotonic())
        return reply

    def _send_large(self, group: Sequence[Request]) -> list[Any] | None:
        """Do as the append script does, by WATCH and MULTI. None after a lost race. Caller holds the writer's lock."""
        stream, meta = self._server.keys
        told: list[Any] = []

        def append(replies: list[Any]) -> list[Call]:
            _, _, (position, last, us, epoch, lease, born), (seconds, micros), length = replies
            if lease is not None or ((position is None or last is None) and length):
                return [Call("UNWATCH")]  # the script gives the right answer
            clock_us = (
                int(seconds) * 1_000_000 + int(micros)
                if self._server.test_clock_us is None
                else self._server.test_clock_us()
            )
            now_us, at, previous = time_after(clock_us, int(us or 0)), int(position or 0), last or bytes(8)
            born = born or group[-1].record_id
            told[:] = [now_us, int(epoch or 0), born]
            calls = [Call("MULTI")]
            for request in group:
                at += 1
                told.append(at)
                content = content_check(request.record_id, request.payload or b"")
                check = now_us + at + sum_of_words(previous) + content
                head = HEAD.pack(now_us, at, request.record_id, previous[:8], check)
                calls.append(Call("XADD", stream, f"{at}-0", head, request.payload))
                previous = request.record_id
            fields = ("position", at, "id", previous, "us", now_us, "schema", SCHEMA_VERSION, "born", born)
            return [*calls, Call("HSET", meta, *fields), Call("EXEC"), *self._wait()]

        # A key that expires under WATCH makes EXEC do nothing, as `late` makes the script.
        fence = f"{self._server.name}:fence:{secrets.token_hex(8)}"
        first = [
            Call("SET", fence, "", "PX", LATE_US // 1000),
            Call("WATCH", meta, fence),
            Call("HMGET", meta, "position", "id", "us", "epoch", "lease", "born"),
            Call("TIME"),
            Call("XLEN", stream),
        ]
        replies = self._server.primary.calls(first, resend=False, then=append)
        if len(replies) == 1:
            return None
        done, *waited = replies[len(group) + 2 :]
        if done is None:
            return None
        if any(isinstance(reply, Exception) for reply in done):  # no known cause
            raise JournalUnavailable(
                f"{self._server.address} carried out a part of the append: {done}", outcome_unknown=True
            )
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
            return kept_answer(self._server, request.key, result, now_us)
        return Appended(mark_of(result, request.record_id, epoch) if result else None, now_us, request.answer)

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
                with contextlib.suppress(JournalUnavailable, JournalRefused):  # the lease runs out by itself
                    self._server.calls([Call.of(scripts.RELEASE, self._server.keys, [token])])

    def _try_decision(
        self, decide: Decide, key: IdempotencyKey | None, token: bytes, deadline_s: float
    ) -> Appended | IdempotencyConflict | None:
        """None after a lost race, or while another process holds the lease. Caller holds the writer's lock."""
        keys, digest = ([], b"") if key is None else ([self._server.key_name(key)], key.digest)
        begun = self._server.run(scripts.BEGIN, keys, [self._server.sent_clock(), token, self._settled_us(), digest])
        if not isinstance(begun, list):
            time.sleep(LEASE_RETRY_S)
            return None
        if key is not None and begun[1] is not None:
            return kept_answer(self._server, key, begun[1], begun[0])
        proposal = decide()
        request = self.group.request(proposal, key)
        adds = isinstance(proposal.draft, EventBatch) and proposal.draft.parts
        known = self._history.known
        after = b"%d:%s" % (begun[2], begun[3])
        reply = self._send([request], deadline_s, token, after, scripts.APPEND if adds else scripts.APPEND_ALWAYS)
        if not isinstance(reply, list):
            if reply == b"busy":
                time.sleep(LEASE_RETRY_S)
            return None
        now_us, epoch, born, result = reply
        self._history.learn_append(known, born, [(request, result)], now_us)
        return self._outcome(request, result, now_us, epoch)
