"""Appending to a SQLite journal: groups of records and decisions, each in one write transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from statsapi.errors import IdempotencyConflict, JournalDamaged
from statsapi.journal import sqlite_tables as tables
from statsapi.journal.checksums import seal
from statsapi.journal.group_commit import GroupCommit, Outcome, Request
from statsapi.journal.protocol import Appended, Clock, Decide, Mark, Proposal, time_after
from statsapi.journal.sqlite_file import File
from statsapi.journal.sqlite_link import Link
from statsapi.journal.sqlite_tables import Last
from statsapi.model import IdempotencyKey

_T = TypeVar("_T")


class Appends:
    """The appends of one process, over the writer's connection `link`. They queue behind its lock: see group_commit.py.

    `settled_us`: see Journal. `observe_commit` gets the seconds of each COMMIT.
    """

    def __init__(
        self,
        link: Link,
        file: File,
        clock_us: Clock,
        settled_us: Clock,
        wait_limit_s: float,
        *,
        observe_commit: Callable[[float], None] | None,
    ) -> None:
        self._link = link
        self._file = file
        self._clock_us = clock_us
        self._settled_us = settled_us
        self._observe_commit = observe_commit
        self._end: _Tail | None = None
        self.group = GroupCommit(self._record, link.lock, id_bytes=16, wait_limit_s=wait_limit_s)

    def append(self, proposal: Proposal | Decide, key: IdempotencyKey | None) -> Appended:
        """See Journal.append."""
        if isinstance(proposal, Proposal):
            return self.group.append(proposal, key)
        with self.group.held_alone() as deadline:
            outcome = self.transact(lambda connection: self._decide(connection, proposal, key), deadline)
            self._note_end()
        if not isinstance(outcome, Appended):
            raise outcome
        return outcome

    def _record(self, group: list[Request], deadline: float) -> list[Outcome]:
        outcomes = self.transact(lambda connection: self._record_group(connection, group), deadline)
        self._note_end()
        return outcomes

    def _record_group(self, connection: sqlite3.Connection, group: list[Request]) -> list[Outcome]:
        tail = self._tail(connection)
        self.group.take(group)  # only now, so that requests that came during the wait for the write lock are in
        outcomes: list[Outcome] = []
        for request in group:
            known = None if request.key is None else tail.find(request.key)
            outcomes.append(known or tail.record(request))
        return outcomes

    def _decide(self, connection: sqlite3.Connection, decide: Decide, key: IdempotencyKey | None) -> Outcome:
        tail = self._tail(connection)
        known = None if key is None else tail.find(key)
        return known or tail.record(self.group.request(decide(), key))

    def _tail(self, connection: sqlite3.Connection) -> _Tail:
        tail = self._end = _Tail(
            connection, tables.read_last(connection, self._link.seen), self._clock_us(), self._settled_us
        )
        return tail

    def _note_end(self) -> None:
        """Note the last committed record beside the file. Caller holds the writer's lock."""
        if self._end is not None and (last := self._end.recorded) is not None:
            self._link.seen = last
            self._file.water.note(*last)

    def transact(self, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        """See Link.transact. Caller holds the writer's lock."""
        self._file.check_safe()
        return self._link.transact(work, deadline, self._observe_commit)


class _Tail:
    """The end of the records inside one write transaction."""

    def __init__(self, connection: sqlite3.Connection, last: Last | None, clock_us: int, settled_us: Clock) -> None:
        self._connection = connection
        self._position, _, last_us = last or (0, b"", 0)
        self._now_us = time_after(clock_us, last_us)
        self._settled_us = settled_us
        self.recorded: Last | None = None

    def find(self, key: IdempotencyKey) -> Outcome | None:
        try:
            kept = tables.read_answer(self._connection, key.name, self._settled_us())
        except JournalDamaged as error:
            return error
        if kept is None:
            return None
        digest, answer = kept
        if digest != key.digest:
            return IdempotencyConflict()
        return Appended(None, self._now_us, answer, replayed=True)

    def record(self, request: Request) -> Appended:
        mark, now_us = None, self._now_us
        if (payload := request.payload) is not None:
            self._position = position = self._position + 1
            record_id = request.record_id
            mark = Mark(position, record_id)
            self._connection.execute(
                tables.INSERT_RECORD, (position, record_id, now_us, seal(position, record_id, now_us, payload))
            )
            self.recorded = (position, record_id, now_us)
        if (key := request.key) is not None:
            tables.write_answer(self._connection, key.name, key.digest, request.answer, now_us + key.ttl_us)
        return Appended(mark, now_us, request.answer)
