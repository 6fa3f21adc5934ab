"""A session with a PostgreSQL server: statements, their answers, and a limit to every wait.

psycopg connects. Statements go by libpq's own calls as psycopg wraps them, because psycopg's cursors wait for an answer
without a limit. (The cursors cost next to nothing: a statement takes 14 µs with them, and 12 µs so.)
"""

from __future__ import annotations

import contextlib
import select
import struct
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import pq

# A server that is silent for longer, where an answer is due, counts as away. An append may wait for the lock first.
TIMEOUT_S = 2.0

_LONG = struct.Struct(">q")
_ARRAY: Final = struct.Struct(">iiIii")
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_OK: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_POLLIN: Final = select.POLLIN | select.POLLERR | select.POLLHUP

Parameter = int | bytes | None


class Statement:
    """A statement with $1, $2…, whose types it says itself; prepared once by each session."""

    def __init__(self, text: str, schema: str) -> None:
        self.text = text.replace("{schema}", schema).encode()
        self.name = f"s{hash(self.text) & 0xFFFFFFFFFFFF:x}".encode()


class Failed(Exception):
    """The server refused a statement and did nothing of it."""

    def __init__(self, state: str, said: str) -> None:
        super().__init__(said)
        self.state = state
        self.said = said


class Unanswered(Exception):
    """No answer came: the connection broke, or the wait was too long (`timed_out`). Nobody knows what was done."""

    def __init__(self, said: str, *, timed_out: bool = False) -> None:
        super().__init__(said)
        self.timed_out = timed_out


class Session:
    """One connection, for one thread at a time.

    warned  the last WARNING that the server gave since this was last set to ""
    era     the number that Server had when it made this: see Server.drop_idle
    pid     of the server's process
    """

    def __init__(self, connection: psycopg.Connection[Any], era: int) -> None:
        self.era = era
        self._connection = connection
        self._pg = pg = connection.pgconn
        self._poll = select.poll()
        self._poll.register(pg.socket, select.POLLIN)
        self._prepared: set[bytes] = set()
        self.pid = 0
        self.warned = ""
        pg.notice_handler = self._note

    def _note(self, notice: pq.abc.PGresult) -> None:
        severity = notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
        if severity == b"WARNING":
            self.warned = (notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")

    @property
    def is_free(self) -> bool:
        """Whether it is connected, in no transaction, and waits for no answer."""
        return self._pg.transaction_status == pq.TransactionStatus.IDLE

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, failed or not, and no answer is awaited."""
        return self._pg.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)

    @property
    def is_through_proxy(self) -> bool:
        """Whether whoever let us in is another process than the one that answers."""
        return self._pg.backend_pid != self.pid

    def still_there(self) -> bool:
        """Whether it is still connected, as far as this side can tell. Costs a system call.

        Anything to read before a question was sent means that the server has ended the session, or is about to.
        """
        return not self._poll.poll(0)

    def run(self, statement: Statement, parameters: Sequence[Parameter] = (), longer_s: float = 0.0) -> pq.abc.PGresult:
        """Its result, in binary. `longer_s`: what it may take beyond TIMEOUT_S. Raises Failed and Unanswered."""
        pg = self._pg
        patience_s = TIMEOUT_S + longer_s
        packed = [_LONG.pack(each) if isinstance(each, int) else each for each in parameters]
        try:
            if statement.name not in self._prepared:
                pg.send_prepare(statement.name, statement.text)
                self._results(patience_s)
                self._prepared.add(statement.name)
            pg.send_query_prepared(statement.name, packed, [1] * len(packed), 1)
            return self._results(patience_s)[-1]
        except psycopg.Error as error:
            raise Unanswered(str(error).strip()) from error

    def simple(self, text: str, longer_s: float = 0.0) -> pq.abc.PGresult:
        """The last result, as text, of statements without parameters. Raises as `run` does."""
        try:
            self._pg.send_query(text.encode())
            return self._results(TIMEOUT_S + longer_s)[-1]
        except psycopg.Error as error:
            raise Unanswered(str(error).strip()) from error

    def _results(self, patience_s: float) -> list[pq.abc.PGresult]:
        pg = self._pg
        while pg.flush():
            self._wait(patience_s, select.POLLIN | select.POLLOUT)
        results: list[pq.abc.PGresult] = []
        failed: pq.abc.PGresult | None = None
        while True:
            while pg.is_busy():
                self._wait(patience_s, select.POLLIN)
            result = pg.get_result()
            if result is None:
                break
            if result.status not in _OK:
                failed = failed or result
            results.append(result)
        if failed is not None:
            said = failed.get_error_message("utf-8").strip()
            state = failed.error_field(pq.DiagnosticField.SQLSTATE)
            severity = failed.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
            if state is None or severity != b"ERROR" or pg.status != pq.ConnStatus.OK:
                raise Unanswered(said)  # a process that is ended in the middle of COMMIT may have committed
            primary = failed.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
            raise Failed(state.decode(), primary.decode("utf-8", "replace"))
        return results

    def _wait(self, patience_s: float, events: int) -> None:
        if events & select.POLLOUT:
            self._poll.modify(self._pg.socket, events)
        try:
            ready = self._poll.poll(int(1000 * patience_s))
        finally:
            if events & select.POLLOUT:
                self._poll.modify(self._pg.socket, select.POLLIN)
        if not ready:
            raise Unanswered("it did not answer in time", timed_out=True)
        if ready[0][1] & _POLLIN:
            self._pg.consume_input()

    def close(self) -> None:
        """Close it at once, also with an answer outstanding, which nobody gets."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


def text_of(result: pq.abc.PGresult, column: int) -> str:
    """A value of the first row, as text; empty for NULL."""
    return (result.get_value(0, column) or b"").decode()


def long_of(value: bytes | None) -> int:
    """A bigint of a result; 0 for NULL."""
    return 0 if value is None else int.from_bytes(value, "big", signed=True)


def byteas(values: Sequence[bytes | None]) -> bytes:
    """A parameter bytea[]."""
    parts: list[bytes] = [_ARRAY.pack(1, 1, 17, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


def longs(values: Sequence[int]) -> bytes:
    """A parameter bigint[]."""
    return b"".join([_ARRAY.pack(1, 0, 20, len(values), 1), *(b"\0\0\0\x08" + _LONG.pack(value) for value in values)])
