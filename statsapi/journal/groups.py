"""Group commit: what the threads of a process append at one time, one of them records for all.

A request queues up and waits for the writer's lock. Who gets it records what is queued by then, in one transaction or
call of the engine, and tells each request what became of it; the others find that out when they get the lock.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from statsapi.errors import IdempotencyConflict, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.format import encode
from statsapi.journal.protocol import Appended, Proposal
from statsapi.model import IdempotencyKey

# How long an append, a decision or a checkpoint waits for others before it gives up.
WAIT_LIMIT_S: Final = 5.0

_UNLIMITED: Final = 1 << 62


# What became of one request: JournalDamaged where what is kept under its key is; its neighbours go on.
Outcome = Appended | IdempotencyConflict | JournalDamaged


class Request:
    """An append under way: its record's id and payload (None: no record), its key and answer. Its recorder sets
    `outcome`.
    """

    __slots__ = ("answer", "key", "outcome", "payload", "record_id")

    def __init__(self, record_id: bytes, payload: bytes | None, answer: bytes, key: IdempotencyKey | None) -> None:
        self.record_id = record_id
        self.payload = payload
        self.answer = answer
        self.key = key
        self.outcome: Outcome | JournalUnavailable | JournalRefused | None = None


class Record(Protocol):
    def __call__(self, group: list[Request], deadline_s: float, /) -> Sequence[Outcome]:
        """Fill the group by `take`, record it, and say what became of each, in its order. The writer's lock is held.

        To be taken as late as may be: who comes meanwhile goes along. Raises JournalUnavailable, also when it had to
        wait longer than until `deadline_s` of time.monotonic, or JournalRefused: then all in the group are told so.
        """


class GroupCommit:
    """The appends of one process. `lock` is the writer's: whoever holds it is the only thread that records."""

    def __init__(
        self, record: Record, lock: threading.RLock, *, id_bytes: int, wait_limit_s: float = WAIT_LIMIT_S
    ) -> None:
        self._record = record
        self._lock = lock
        self._id_bytes = id_bytes
        self._wait_limit_s = wait_limit_s
        self._queue: deque[Request] = deque()
        # Ids are to be unique, not secret: asking the system for each costs a call that lets go of the interpreter.
        self._ids = random.Random(secrets.randbits(256))  # noqa: S311

    def request(self, proposal: Proposal, key: IdempotencyKey | None) -> Request:
        payload = None if proposal.draft is None else encode(proposal.draft)
        return Request(self._ids.randbytes(self._id_bytes), payload, proposal.answer, key)

    def append(self, proposal: Proposal, key: IdempotencyKey | None) -> Appended:
        """Record it, with whatever else is queued. Raises what Journal.append does."""
        deadline_s = time.monotonic() + self._wait_limit_s
        request = self.request(proposal, key)
        self._queue.append(request)
        if not self._lock.acquire(timeout=self._wait_limit_s):
            with contextlib.suppress(ValueError):
                self._queue.remove(request)
                raise held_up()
            # A leader has taken it along: what becomes of it is known soon, as leaders are held to the limit too.
            self._lock.acquire()
        try:
            while request.outcome is None:
                self._record_queued(deadline_s)
        finally:
            if request.outcome is None:
                self._queue.remove(request)  # before the next leader comes, who would record it after all
            self._lock.release()
        if isinstance(request.outcome, Appended):
            return request.outcome
        raise request.outcome

    @contextlib.contextmanager
    def held(self, wait_s: float | None = None) -> Iterator[None]:
        """The writer's lock, waited for no longer than that (the limit); JournalUnavailable without it."""
        if not self._lock.acquire(timeout=self._wait_limit_s if wait_s is None else wait_s):
            raise held_up()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def held_alone(self) -> Iterator[float]:
        """The writer's lock, once what was queued before is recorded: for a decision. Gives the deadline."""
        deadline_s = time.monotonic() + self._wait_limit_s
        with self.held():
            if self._queue:  # they came first; if this fails they are told
                with contextlib.suppress(JournalUnavailable, JournalRefused):
                    self._record_queued(deadline_s)
            yield deadline_s

    def take(self, group: list[Request], limit_records: int = _UNLIMITED, limit_bytes: int = _UNLIMITED) -> None:
        """Move what is queued, up to about these limits, into the group. For who records, with the lock held."""
        size = 0
        while self._queue and size < limit_bytes and len(group) < limit_records:
            request = self._queue.popleft()
            group.append(request)
            size += len(request.payload or b"")

    def _record_queued(self, deadline_s: float) -> None:
        """Record what is queued, and tell each request what became of it. Caller holds the lock.

        Raises what `record` did before it took anything; then all are still queued.
        """
        group: list[Request] = []
        failure: JournalUnavailable | JournalRefused | None = None
        try:
            outcomes = self._record(group, deadline_s)
            for request, outcome in zip(group, outcomes, strict=True):
                request.outcome = outcome
        except (JournalUnavailable, JournalRefused) as error:
            if not group:
                raise
            failure = error
        finally:
            for request in group:
                if request.outcome is None:
                    request.outcome = _told(failure)


def held_up() -> JournalUnavailable:
    return JournalUnavailable("another writer held the journal for too long; nothing was recorded")


def _told(error: JournalUnavailable | JournalRefused | None) -> JournalUnavailable | JournalRefused:
    """An error of its own for each thread that raises it. Without one the recording thread was interrupted."""
    if error is None:
        return JournalUnavailable("the append was interrupted", outcome_unknown=True)
    if isinstance(error, JournalUnavailable):
        return JournalUnavailable(str(error), outcome_unknown=error.outcome_unknown)
    if isinstance(error, JournalDamaged):
        return JournalDamaged(error.what, error.why, advice=error.advice, outcome_unknown=error.outcome_unknown)
    return JournalRefused(*error.faults)
