"""Group commit: of several threads that append at one time, one records for all.

A request queues up and waits for the writer's lock. The thread that gets the lock records everything queued by then, in
one transaction or call of the engine, and sets each request's outcome. The other threads find theirs when they get the
lock.
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
from statsapi.journal.protocol import Appended, Proposal, held_up
from statsapi.model import IdempotencyKey

# How long an append, a decision or a checkpoint waits for others before it gives up.
WAIT_LIMIT_S: Final = 5.0

_UNLIMITED: Final = 1 << 62


# The outcome of one request. JournalDamaged where the answer kept under its key is damaged; its neighbours go on.
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
        """Fill the group by `take`, record it, and give each request's outcome, in order. The writer's lock is held.

        Take as late as possible: requests that come meanwhile go along. Raises JournalUnavailable (also where it had to
        wait until `deadline_s` of time.monotonic) or JournalRefused: every request in the group then gets that error.
        """


class GroupCommit:
    """The appends of one process. `lock` is the writer's: only its holder records."""

    def __init__(
        self, record: Record, lock: threading.RLock, *, id_bytes: int, wait_limit_s: float = WAIT_LIMIT_S
    ) -> None:
        self._record = record
        self._lock = lock
        self._id_bytes = id_bytes
        self._wait_limit_s = wait_limit_s
        self._queue: deque[Request] = deque()
        # Ids must be unique, not secret. Asking the system for each costs a call that releases the interpreter's lock.
        self._ids = random.Random(secrets.randbits(256))  # noqa: S311

    def request(self, proposal: Proposal, key: IdempotencyKey | None) -> Request:
        payload = None if proposal.draft is None else encode(proposal.draft)
        return Request(self._ids.randbytes(self._id_bytes), payload, proposal.answer, key)

    def append(self, proposal: Proposal, key: IdempotencyKey | None) -> Appended:
        """Record it, together with everything else that is queued. Raises as Journal.append does."""
        deadline_s = time.monotonic() + self._wait_limit_s
        request = self.request(proposal, key)
        self._queue.append(request)
        if not self._lock.acquire(timeout=self._wait_limit_s):
            with contextlib.suppress(ValueError):
                self._queue.remove(request)
                raise held_up()
            # A leader has taken it along. Its outcome is known soon, because leaders are held to the limit too.
            self._lock.acquire()
        try:
            while request.outcome is None:
                self._record_queued(deadline_s)
        finally:
            if request.outcome is None:
                self._queue.remove(request)  # now, or the next leader would record it after all
            self._lock.release()
        if isinstance(request.outcome, Appended):
            return request.outcome
        raise request.outcome

    @contextlib.contextmanager
    def held(self, wait_s: float | None = None) -> Iterator[None]:
        """Hold the writer's lock. JournalUnavailable where it is not free within `wait_s` (by default the limit)."""
        if not self._lock.acquire(timeout=self._wait_limit_s if wait_s is None else wait_s):
            raise held_up()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def held_alone(self) -> Iterator[float]:
        """For a decision: record what was queued before, then hold the writer's lock. Gives the deadline."""
        deadline_s = time.monotonic() + self._wait_limit_s
        with self.held():
            if self._queue:  # these came first; if recording fails, each request gets the error
                with contextlib.suppress(JournalUnavailable, JournalRefused):
                    self._record_queued(deadline_s)
            yield deadline_s

    def take(self, group: list[Request], limit_records: int = _UNLIMITED, limit_bytes: int = _UNLIMITED) -> None:
        """Move queued requests into the group, up to about these limits. Caller holds the lock."""
        size = 0
        while self._queue and size < limit_bytes and len(group) < limit_records:
            request = self._queue.popleft()
            group.append(request)
            size += len(request.payload or b"")

    def _record_queued(self, deadline_s: float) -> None:
        """Record what is queued and set each request's outcome. Caller holds the lock.

        Raises an error that `record` raised before it took anything; all requests are then still queued.
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
                    request.outcome = _own_error(failure)


def _own_error(error: JournalUnavailable | JournalRefused | None) -> JournalUnavailable | JournalRefused:
    """A copy of the error, for a thread of its own to raise. None: the recording thread was interrupted."""
    if error is None:
        return JournalUnavailable("the append was interrupted", outcome_unknown=True)
    if isinstance(error, JournalUnavailable):
        return JournalUnavailable(str(error), outcome_unknown=error.outcome_unknown)
    if isinstance(error, JournalDamaged):
        return JournalDamaged(error.what, error.why, advice=error.advice, outcome_unknown=error.outcome_unknown)
    return JournalRefused(*error.faults)
