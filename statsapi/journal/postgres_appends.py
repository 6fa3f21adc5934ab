"""Appending to a PostgreSQL journal: groups of records in one statement each, decisions, and what a lost answer meant.

A group is one call of the function `append`, which is a transaction of its own: one round trip. It holds the write lock
(an advisory one) from before it looks at the last record until COMMIT is done, so positions rise in the order of
commits. A decision holds the lock over its two or three round trips; the server takes it from a holder that says
nothing for too long.

A lost answer. Where the connection breaks, or the answer takes too long, the record may be there. It is looked for by
its id, on a new connection, in a transaction that writes: its own COMMIT then waits for whatever standby the record has
to be on. If it is found, the append succeeded. If it is not, and the old connection's backend is gone, the append
surely failed and is sent once more. Otherwise nobody knows, and the error says so (`outcome_unknown`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from psycopg import pq

from statsapi.errors import IdempotencyConflict, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.checksums import MISMATCH, answer_checksum
from statsapi.journal.group_commit import GroupCommit, Outcome, Request
from statsapi.journal.postgres_health import Health
from statsapi.journal.postgres_history import History, Known
from statsapi.journal.postgres_rows import APPEND, ID_BYTES, content_check, key_place
from statsapi.journal.postgres_server import LOCK_WAIT_S, Server
from statsapi.journal.postgres_session import Failed, Parameter, Session, Statement, Unanswered, byteas, long_of, longs
from statsapi.journal.protocol import Appended, Decide, HeldUp, Mark, Proposal, held_up, time_after
from statsapi.model import IdempotencyKey

# The most in one statement; further requests go into the next.
GROUP_BYTES: Final = 16 << 20
GROUP_RECORDS: Final = 256

# A large group needs longer: 20 MB/s is a slow disk.
_BYTES_PER_S: Final = 20 << 20

# How often a lost answer's backend is asked for, and for how long.
LOOK_AGAIN_S: Final = 0.05
LOOK_FOR_S: Final = 1.0

_APPEND = f"""
SELECT at, now_us, history, kept_digest, kept_answer, kept_us, kept_check, stands::integer::bigint
FROM {{schema}}.{APPEND}($1::bigint, $2::bigint, $3::bytea[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[],
                     $8::bytea[], $9::bigint[], $10::bigint[], $11::bigint, $12::bytea)
"""  # noqa: S608 - what is put in is a constant
_HOLD = "SELECT pg_advisory_xact_lock(1937006964, '{schema}.meta'::regclass::oid::integer)"
_TRY_HOLD = """
SELECT pg_try_advisory_xact_lock(1937006964, '{schema}.meta'::regclass::oid::integer)::integer::bigint
"""
_LAST_US = """
SELECT coalesce((SELECT appended_us FROM {schema}.records ORDER BY position DESC LIMIT 1),
                (SELECT appended_us FROM {schema}.checkpoint), 0),
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
"""
_ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1::bigint"
# After the known record, where that stands: another history may have given lower positions since.
_FOUND = """
SELECT position, id, appended_us FROM {schema}.records
WHERE position > coalesce((SELECT position FROM {schema}.records WHERE position = $1::bigint AND id = $2::bytea), 0)
      AND id = ANY ($3::bytea[])
"""
# The key, and the keys after and before it. A key whose name was damaged is no longer found, but its row may still
# stand next to where the search ends.
_ANSWER = """
(SELECT name, digest, answer, expires_us, "check" FROM {schema}.idempotency_keys WHERE name = $1::bytea)
UNION ALL
(SELECT name, NULL, NULL, expires_us, "check" FROM {schema}.idempotency_keys
WHERE name > $1::bytea ORDER BY name LIMIT 1)
UNION ALL
(SELECT name, NULL, NULL, expires_us, "check" FROM {schema}.idempotency_keys
WHERE name < $1::bytea ORDER BY name DESC LIMIT 1)
"""
_ANSWERS = """
SELECT name, digest, answer, expires_us, "check" FROM {schema}.idempotency_keys
WHERE name >= $1::bytea ORDER BY name LIMIT 4096
"""
_TOUCH = "UPDATE {schema}.meta SET touched = touched + 1"


def is_kept(name: bytes, digest: bytes, answer: bytes, expires_us: int, check: int) -> bool:
    """Whether this row of `idempotency_keys` is what was written."""
    return key_place(name, expires_us) << 32 | answer_checksum(name, digest, answer, 0) == check


class Appends:
    """The appends of one process. They queue behind the lock of `group`. `settled_us`, `observe_fsync`: see Journal."""

    def __init__(
        self,
        server: Server,
        history: History,
        health: Health,
        settled_us: Callable[[], int],
        observe_fsync: Callable[[float], None] | None,
        *,
        wait_limit_s: float,
    ) -> None:
        self._server = server
        self._history = history
        self._health = health
        self._settled_us = settled_us
        self._observe_fsync = observe_fsync
        self._failed = False
        schema = server.address.schema
        self._append, self._hold, self._try_hold, self._last_us, self._alive, self._found, self._answer, self._touch = (
            Statement(text, schema) for text in (_APPEND, _HOLD, _TRY_HOLD, _LAST_US, _ALIVE, _FOUND, _ANSWER, _TOUCH)
        )
        self._answers = Statement(_ANSWERS, schema)
        self._begin, self._commit = Statement("BEGIN", schema), Statement("COMMIT", schema)
        self.group = GroupCommit(self._record, threading.RLock(), id_bytes=ID_BYTES, wait_limit_s=wait_limit_s)

    def append(self, proposal: Proposal | Decide, key: IdempotencyKey | None) -> Appended:
        """See Journal.append."""
        self._server.check_open()
        if isinstance(proposal, Proposal):
            try:
                return self.group.append(proposal, key)
            except HeldUp as error:  # in the queue of this process
                raise self._health.explain(error) from error
        with self._explained(), self.group.held_alone() as deadline_s:
            outcome = self._decide(proposal, key, deadline_s)
        if not isinstance(outcome, Appended):
            raise outcome
        return outcome

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        """See Journal.find_answer."""
        found = self._found_under(key, self._server.run(self._answer, [key.name]), 0)
        if isinstance(found, Appended):
            return found.answer
        if found is None:
            return None
        raise found

    def check_writable(self, wait_s: float) -> None:
        """See Journal.check_writable."""
        self._server.check_open()
        deadline_s = time.monotonic() + wait_s
        with self._explained(), self.group.held(wait_s), self._server.session() as session:
            self._health.check(session)
            session.run(self._begin)
            while not long_of(session.run(self._try_hold).get_value(0, 0)):
                if time.monotonic() >= deadline_s:
                    raise held_up()
                time.sleep(min(0.005, wait_s))
            if self._failed:
                session.run(self._touch)
                session.run(self._commit)
                self._failed = False

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to an error the standbys that a COMMIT may have waited for: where a write was not answered, or waited for
        another that was not.
        """
        try:
            yield
        except JournalUnavailable as error:
            if not error.outcome_unknown and not isinstance(error, HeldUp):
                raise
            self._failed = self._failed or error.outcome_unknown
            raise self._health.explain(error) from error

    # A group

    def _record(self, group: list[Request], deadline_s: float) -> list[Outcome]:
        try:
            with self._explained():
                return self._record_group(group, deadline_s)
        except (JournalUnavailable, JournalRefused):
            if not group:  # no session: all that are queued fail now, instead of waiting for as long again
                self.group.take(group)
            raise

    def _record_group(self, group: list[Request], deadline_s: float) -> list[Outcome]:
        for last in (False, True):
            with self._server.session() as session:
                if not group:
                    self.group.take(group, GROUP_RECORDS, GROUP_BYTES)
                if time.monotonic() >= deadline_s:
                    raise held_up()
                since = self._history.known
                try:
                    return self._appended(group, self._send(session, group))
                except Failed as error:
                    self._failed = True
                    failure = self._server.failure(error)
                    if last or not error.state.startswith(("25006", "57")):
                        raise failure from error
                except Unanswered as error:
                    session.close()
                    failure = self._server.unanswered(error, outcome_unknown=True)
            # The session is closed, so its slot is free for the session that looks the record up.
            if failure.outcome_unknown if isinstance(failure, JournalUnavailable) else False:
                outcomes = self._look_up(group, session.pid, since, failure)
                if outcomes is not None:
                    return outcomes
                if last:
                    raise JournalUnavailable(str(failure)) from failure
        raise AssertionError  # for the type checker

    def _send(self, session: Session, group: Sequence[Request]) -> pq.abc.PGresult:
        """One call of the function. JournalUnavailable where the server warns of its COMMIT."""
        began_s = time.perf_counter()
        session.warned = ""
        size = sum(len(request.payload or b"") for request in group)
        result = session.run(self._append, self._parameters(group), LOCK_WAIT_S + size / _BYTES_PER_S)
        self._check_warned(session)
        if self._observe_fsync is not None:
            self._observe_fsync(time.perf_counter() - began_s)
        self._failed = False
        return result

    def _check_warned(self, session: Session) -> None:
        if session.warned:  # somebody cancelled the wait for a standby: it is committed here, and maybe here alone
            raise JournalUnavailable(f"{self._server.address} warns: {session.warned}", outcome_unknown=True)

    def _parameters(self, group: Sequence[Request]) -> list[Parameter]:
        clock, known = self._server.test_clock_us, self._history.known
        ids = [request.record_id for request in group]
        payloads = [request.payload for request in group]
        checks = [
            0 if payload is None else content_check(record_id, payload)
            for record_id, payload in zip(ids, payloads, strict=True)
        ]
        head: list[Parameter] = [
            None if clock is None else clock(),
            self._settled_us(),
            byteas(ids),
            longs(checks),
            byteas(payloads),
        ]
        keys = [request.key for request in group]
        if not any(keys) and None not in payloads:
            return [*head, None, None, None, None, None, known.position, known.id]
        return [
            *head,
            byteas([None if key is None else key.name for key in keys]),
            byteas([b"" if key is None else key.digest for key in keys]),
            byteas([request.answer for request in group]),
            longs([0 if key is None else key.ttl_us for key in keys]),
            longs(
                [
                    0 if key is None else answer_checksum(key.name, key.digest, request.answer, 0)
                    for key, request in zip(keys, group, strict=True)
                ]
            ),
            known.position,
            known.id,
        ]

    def _appended(self, group: Sequence[Request], result: pq.abc.PGresult) -> list[Outcome]:
        get = result.get_value
        now_us, born = long_of(get(0, 1)), get(0, 2) or b""
        outcomes: list[Outcome] = []
        last: Mark | None = None
        if result.ntuples == 1 and get(0, 0) is not None:  # the first position: all were recorded
            first = long_of(get(0, 0))
            for at, request in enumerate(group):
                last = Mark(first + at, request.record_id)
                outcomes.append(Appended(last, now_us, request.answer))
        else:
            for row, request in enumerate(group):
                known = None
                if request.key is not None:
                    known = self._known(request.key, [get(row, at) for at in range(3, 7)], now_us, expires=False)
                if known is not None:
                    outcomes.append(known)
                    continue
                mark = None if get(row, 0) is None else Mark(long_of(get(row, 0)), request.record_id)
                last = mark or last
                outcomes.append(Appended(mark, now_us, request.answer))
        if last is not None:
            self._history.learn_append(last, now_us, born, known_stands=bool(long_of(get(0, 7))))
        return outcomes

    def _known(
        self, key: IdempotencyKey, kept: Sequence[bytes | None], now_us: int, *, expires: bool = True
    ) -> Outcome | None:
        """What is kept under the key: digest, answer, expiry and check, as they stand in the table."""
        digest, answer, expires_us, check = kept[0], kept[1], long_of(kept[2]), long_of(kept[3])
        if digest is None or answer is None or kept[2] is None:
            return None
        if not is_kept(key.name, digest, answer, expires_us, check):
            return self._damaged_key()
        if expires and expires_us <= self._settled_us():
            return None
        return IdempotencyConflict() if digest != key.digest else Appended(None, now_us, answer, replayed=True)

    def _found_under(self, key: IdempotencyKey, result: pq.abc.PGresult, now_us: int) -> Outcome | None:
        """The answer among what _ANSWER found: the one kept under the key, or None.

        JournalDamaged where a key next to it was this key, before its name was changed.
        """
        for row in range(result.ntuples):
            name, *kept = (result.get_value(row, at) for at in range(5))
            if kept[0] is not None:
                return self._known(key, kept, now_us)
            expires_us, place = long_of(kept[2]), long_of(kept[3]) >> 32
            if name == key.name or key_place(name or b"", expires_us) != place == key_place(key.name, expires_us):
                return self._damaged_key()
        return None

    def _damaged_key(self) -> JournalDamaged:
        return self._server.damaged("an answer that is kept under an Idempotency-Key", MISMATCH)

    def check_answers(self) -> None:
        """Read all kept answers. JournalDamaged for the first one that is not what was written, or is out of order."""
        least = b""
        while True:
            result = self._server.run(self._answers, [least], LOCK_WAIT_S)
            for row in range(result.ntuples):
                name, digest, answer = (result.get_value(row, at) or b"" for at in range(3))
                expires_us, check = long_of(result.get_value(row, 3)), long_of(result.get_value(row, 4))
                if name < least or not is_kept(name, digest, answer, expires_us, check):
                    raise self._damaged_key()
                least = name + b"\0"  # the next name that there can be
            if not result.ntuples:
                return

    # Decisions

    def _decide(self, decide: Decide, key: IdempotencyKey | None, deadline_s: float) -> Outcome:
        with self._server.session() as session:
            session.run(self._begin)
            session.run(self._hold, longer_s=LOCK_WAIT_S)
            if key is not None:
                known = self._found_under(key, session.run(self._answer, [key.name]), self._now_us(session))
                if known is not None:
                    self._touch_and_commit(session)
                    return known
            request = self.group.request(decide(), key)
            if time.monotonic() >= deadline_s:
                raise held_up()
            since = self._history.known
            result = session.run(
                self._append, self._parameters([request]), LOCK_WAIT_S + len(request.payload or b"") / _BYTES_PER_S
            )
            session.warned = ""
            try:
                session.run(self._commit, longer_s=LOCK_WAIT_S)
            except Unanswered as error:
                session.close()
                failure = self._server.unanswered(error, outcome_unknown=True)
            else:
                self._check_warned(session)
                return self._appended([request], result)[0]
        outcomes = self._look_up([request], session.pid, since, failure)
        if outcomes is None:
            raise JournalUnavailable(str(failure)) from failure  # surely not, and the decision may be another now
        return outcomes[0]

    def _now_us(self, session: Session) -> int:
        row = session.run(self._last_us)
        clock = self._server.test_clock_us
        return time_after(long_of(row.get_value(0, 1)) if clock is None else clock(), long_of(row.get_value(0, 0)))

    def _touch_and_commit(self, session: Session) -> None:
        """Write something: its COMMIT waits for the standby that everything before it has to be on."""
        session.warned = ""
        session.run(self._touch)
        session.run(self._commit, longer_s=LOCK_WAIT_S)
        self._check_warned(session)

    # After a lost answer

    def _look_up(
        self, group: Sequence[Request], pid: int, since: Known, failure: JournalUnavailable | JournalRefused
    ) -> list[Outcome] | None:
        """The outcomes where the group is in the journal; None where it surely is not. Raises `failure` otherwise.

        pid: of the process that it was sent to. since: what was known before.
        """
        ends_s = time.monotonic() + LOOK_FOR_S
        while True:
            try:
                with self._server.session() as session:
                    session.run(self._begin)
                    gone = not long_of(session.run(self._alive, [pid]).get_value(0, 0))
                    session.run(self._hold, longer_s=LOCK_WAIT_S)
                    outcomes = self._find(session, group, since)
                    if outcomes is not None:
                        self._touch_and_commit(session)
                        return outcomes
                    if gone:
                        return None
            except (JournalUnavailable, JournalRefused) as error:
                if time.monotonic() >= ends_s or isinstance(error, JournalRefused):
                    raise failure from error
            if time.monotonic() >= ends_s:
                raise failure
            time.sleep(LOOK_AGAIN_S)

    def _find(self, session: Session, group: Sequence[Request], since: Known) -> list[Outcome] | None:
        ids = [request.record_id for request in group if request.payload is not None]
        result = session.run(self._found, [since.position, since.id, byteas(ids)], LOCK_WAIT_S)
        found = {
            result.get_value(row, 1): (long_of(result.get_value(row, 0)), long_of(result.get_value(row, 2)))
            for row in range(result.ntuples)
        }
        outcomes: list[Outcome] = []
        for request in group:
            if (place := found.get(request.record_id)) is not None:
                outcomes.append(Appended(Mark(place[0], request.record_id), place[1], request.answer))
                continue
            if request.key is None:
                if request.payload is not None:
                    return None
                outcomes.append(Appended(None, self._now_us(session), request.answer))
                continue
            kept = session.run(self._answer, [request.key.name])
            known = self._found_under(request.key, kept, self._now_us(session))
            if known is None:
                return None
            outcomes.append(known)
        return outcomes
