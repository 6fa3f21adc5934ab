"""The PostgreSQL server of one journal: sessions with it, what its errors mean, and its clock.

psycopg connects (several hosts, TLS, passwords, as libpq does it). Statements go by libpq's own calls as psycopg wraps
them: its cursors wait for an answer without a limit. (They cost next to nothing: 14 µs a statement, and these 12.) Its
pool connects again in the background and hides why it cannot, and we have to say so: the few sessions are kept here.

Every wait has a limit: connecting (2 s a host), silence while an answer is due (TIMEOUT_S), locks (LOCK_WAIT_S, by the
server). A session with an answer outstanding is thrown away.
"""

from __future__ import annotations

import contextlib
import select
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import psycopg
from psycopg import pq

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.postgres_login import LET_IN, OURS, REFUSING, fault_of, states_of
from statsapi.journal.postgres_url import Address
from statsapi.journal.protocol import Clock, HeldUp, wall_clock_us
from statsapi.journal.server_clock import ServerClock

# There is no file to check or to salvage from.
DAMAGE_ADVICE: Final = (
    "restore a backup of the database (pg_basebackup with its WAL, pg_dump), or fail over to a replica"
)

# How long the server waits for the write lock; a decision in another process may hold it.
LOCK_WAIT_S: Final = 2.0
# A server that is silent for longer, where an answer is due, counts as away. An append may wait for the lock first.
TIMEOUT_S = 2.0
# Who holds the write lock and says nothing for so long has died or was stopped: the server takes it away.
IDLE_LOCK_S: Final = 5

# Sessions of a process at one time. A view reads one at a time, appends queue, and housekeeping has one.
SESSIONS: Final = 8

OLDEST_VERSION: Final = 13

_SETUP: Final = f"""
SET lock_timeout = {int(LOCK_WAIT_S * 1000)};
SET idle_in_transaction_session_timeout = {IDLE_LOCK_S * 1000};
SET statement_timeout = 0;
SET default_transaction_isolation = 'read committed';
SET client_min_messages = warning;
SET search_path = pg_catalog;
SET standard_conforming_strings = on;
SET row_security = off;
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET max_parallel_workers_per_gather = 0;
SET jit = off;
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, current_database(), current_user,
       current_setting('server_version'), pg_backend_pid();
"""

# SQLSTATEs, or their classes, of a server that does nothing for us now. It may be another one tomorrow.
_AWAY: Final = ("08", "57", "25006", "53300")
_GONE: Final = ("42P01", "3F000", "42883")
# Raised by our own function, sql/postgres_append.sql.
NO_KEY: Final = "ST001"
NOT_INSERTED: Final = "ST002"
_SAID: Final = {
    "53100": "the disk of {place} is full ({said}): free some space there",
    "53200": "the memory of {place} is full ({said})",
    "53300": "{place} has no connection left ({said}): raise its max_connections, or close some",
    "57014": "{place} gave the statement up ({said})",
    "57P01": "{place} is shutting down ({said})",
    "57P03": "{place} is starting ({said})",
    "25006": "{place} takes no writes: it is a standby, or was made read-only",
    NO_KEY: "the records of {place} have no primary key, as while a backup is restored: nothing is recorded until they "
    "have it; after a restore that failed, drop the schema and restore again",
    NOT_INSERTED: "a trigger or a rule keeps records out of {place}: drop it; nothing was recorded",
}
_PID: Final = "SELECT pg_backend_pid()"
_SHARED: Final = (
    "is a proxy that lets several sessions share one of the server (PgBouncer with pool_mode = transaction or "
    "statement): name the server itself, or give this database pool_mode = session there"
)
# Failed logins that are looked into, by what libpq said: each costs 4.5 KB a host for good (postgres_login.py), so all
# of them 0.3 MB. With further ones a server is waited for.
_LOGINS_MOST: Final = 64
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
    era     which one of the server's it was made in: see Server.drop_idle
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
                raise Unanswered(said)  # who was told to end in the middle of COMMIT may have committed
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
        """At once: an answer that is outstanding is nobody's."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


class Told(NamedTuple):
    """What a server says of itself to a new session."""

    database: str
    role: str
    version: str


class Server:
    """Any thread may call. `test_clock_us` is used in place of the server's clock; None for that one.

    prepare: called with each first session after the start, and after the tables were found gone.
    """

    def __init__(self, address: Address, clock_us: Clock, machine_clock_us: Clock) -> None:
        self.address = address
        self.clock = ServerClock(str(address), machine_clock_us)
        self.test_clock_us: Clock | None = None if clock_us is wall_clock_us else clock_us
        self.prepare: Callable[[Session, Told], None] = lambda session, told: None
        self.rights = ""  # how its role gets those that it needs
        self.settings = ""  # SQL for each new session
        self._prepared = False
        self._preparing = threading.Lock()
        self._idle: list[Session] = []
        self._era = 0
        self._slots = threading.BoundedSemaphore(SESSIONS)
        self._closed = False
        self._logins: dict[str, tuple[str, list[str | None]]] = {}  # why each login failed, by what libpq said

    def check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A session for this thread; a transaction that is left open is rolled back.

        Failed and Unanswered that come out of it become JournalUnavailable, whose outcome is known: for statements that
        change nothing, or may not be carried out. JournalRefused where waiting will not help.
        """
        self.check_open()
        if not self._slots.acquire(timeout=LOCK_WAIT_S + TIMEOUT_S):
            raise JournalUnavailable(f"all {SESSIONS} sessions with {self.address} were busy for too long")
        session = None
        try:
            session = self._take()
            yield session
        except Failed as error:
            raise self.failure(error) from error
        except Unanswered as error:
            raise self.unanswered(error) from error
        finally:
            if session is not None:
                self._give_back(session)
            self._slots.release()

    def run(self, statement: Statement, parameters: Sequence[Parameter] = (), longer_s: float = 0.0) -> pq.abc.PGresult:
        """The result of a statement that changes nothing. It is asked again on another connection where one broke."""
        for last in (False, True):
            with self.session() as session:
                try:
                    return session.run(statement, parameters, longer_s)
                except Unanswered as error:
                    if last or error.timed_out:
                        raise
                    self.drop_idle()
                except Failed as error:
                    if last or not error.state.startswith(_AWAY):
                        raise
                    session.close()
                    self.drop_idle()
        raise AssertionError  # for the type checker

    def _take(self) -> Session:
        while True:
            try:
                session = self._idle.pop()
            except IndexError:
                return self._connect()
            if session.still_there():
                return session
            session.close()

    def _give_back(self, session: Session) -> None:
        if session.is_in_transaction:
            with contextlib.suppress(Failed, Unanswered):
                session.simple("ROLLBACK")
        if session.is_free and not self._closed and session.era == self._era:
            self._idle.append(session)
        else:
            session.close()

    def drop_idle(self) -> None:
        """The server may have died, or another one may be the primary: whoever comes next connects anew. Sessions that
        are in use are closed when they are given back.
        """
        self._era += 1
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def _connect(self) -> Session:
        try:
            era = self._era
            session = Session(psycopg.Connection.connect(self.address.conninfo, autocommit=True), era)
        except psycopg.Error as error:
            raise self._unreachable(error) from error
        try:
            row = session.simple(self.settings + _SETUP)
            read_only, *told = (_text(row, at) for at in range(4))
            session.pid = int(_text(row, 4))
            if read_only == "t":
                self._refuse_standby()
            if not self._prepared:
                if session.is_through_proxy:
                    self._refuse_shared(session)
                with self._preparing:
                    self.prepare(session, Told(*told))
                    self._prepared = True
        except BaseException:
            session.close()
            raise
        return session

    def _refuse_shared(self, session: Session) -> None:
        """JournalRefused where a proxy gives one process of the server to several sessions: what a session sets (what
        COMMIT waits for, for one) and prepares would be another's, or gone.
        """
        with contextlib.suppress(psycopg.Error, Failed, Unanswered):  # no room for a second one: each has its own
            other = Session(psycopg.Connection.connect(self.address.conninfo, autocommit=True), -1)
            with contextlib.closing(other):
                for _ in range(3):
                    theirs, ours = (int(_text(each.simple(_PID), 0)) for each in (other, session))
                    if theirs == session.pid or ours != session.pid:
                        raise JournalRefused(f"{self.address} {_SHARED}")

    def _refuse_standby(self) -> NoReturn:
        raise Standby(_SAID["25006"].format(place=self.address))

    def _unreachable(self, error: psycopg.Error) -> JournalUnavailable | JournalRefused:
        said, place = " ".join(str(error).split()), self.address
        if isinstance(error, psycopg.ProgrammingError):
            return JournalRefused(f"{place} cannot be reached as it is named: {said}")
        slow = isinstance(error, psycopg.errors.ConnectionTimeout)  # to ask again would take as long again
        fault, states = ("", []) if slow else self._look_into(said)
        if fault:
            return JournalRefused(f"{place} cannot be reached as it is named: {fault}")
        if "53300" in states:
            return JournalUnavailable(_SAID["53300"].format(place=place, said=said))
        if LET_IN in states and ("read-only" in said or "hot standby" in said):
            return Standby(_SAID["25006"].format(place=place))
        if states and all(state is not None and state.startswith((*REFUSING, OURS)) for state in states):
            refusals = sorted({str(state) for state in states} - {OURS})
            if not refusals:
                return JournalRefused(f"{place} cannot be reached as it is named: {said}")
            return JournalRefused(f"{place} refuses the login: {said} ({', '.join(refusals)})")
        return JournalUnavailable(f"{place} cannot be reached: {said}")

    def _look_into(self, said: str) -> tuple[str, list[str | None]]:
        """What is wrong with the settings, or how each host answers. Once for each text of libpq: who waits for a
        server meets the same one each second.
        """
        if (known := self._logins.get(said)) is not None:
            return known
        if len(self._logins) >= _LOGINS_MOST:
            return "", []
        found: tuple[str, list[str | None]] = ("", [])
        with contextlib.suppress(OSError):  # no socket, no descriptor: that passes
            fault = fault_of(self.address.conninfo)
            found = self._logins[said] = fault, [] if fault else states_of(self.address.each, TIMEOUT_S)
        return found

    def failure(self, error: Failed) -> JournalUnavailable | JournalRefused:
        """The exception for what the server refused. Nothing was done."""
        state, place = error.state, self.address
        if state.startswith(_AWAY):
            self.drop_idle()
        if state.startswith(_GONE):
            return self.gone(error.said)
        if state == "55P03":
            return HeldUp(
                "another writer, or who locked its tables (see pg_locks), held the journal for too long; nothing was "
                "recorded"
            )
        said = _SAID.get(state)
        if state == "25006":
            return Standby(_SAID[state].format(place=place))
        if said is not None:
            return JournalUnavailable(said.format(place=place, said=error.said))
        if state == "42501":
            return JournalRefused(f"{place} refuses this role: {error.said}{self.rights and f': {self.rights}'}")
        if state in ("26000", "42P05"):  # a prepared statement is gone, or is there already
            return JournalRefused(f"{place} {_SHARED}")
        if state in ("XX001", "XX002", "P0002"):  # a page, an index, the row of meta
            return JournalDamaged(f"the journal at {place}", error.said, advice=DAMAGE_ADVICE)
        if state[:2] in ("08", "40", "53", "54", "55", "57", "58", "XX"):
            return JournalUnavailable(f"{place} failed ({error.said})")
        return JournalRefused(f"{place} refuses: {error.said} ({state})")

    def look_again(self) -> None:
        """The next session looks at the tables and their function, as the first one did."""
        self._prepared = False
        self.drop_idle()

    def gone(self, said: str) -> JournalUnavailable:
        """Of the tables: the next session looks at all of them, and says what to do."""
        self.look_again()
        return JournalUnavailable(f"the tables of {self.address} are gone ({said}): they are looked for again")

    def unanswered(self, error: Unanswered, *, outcome_unknown: bool = False) -> JournalUnavailable:
        self.drop_idle()
        said = " ".join(str(error).split())
        return JournalUnavailable(f"{self.address} did not answer: {said}", outcome_unknown=outcome_unknown)

    def close(self) -> None:
        self._closed = True
        self.drop_idle()

    def damaged(self, what: str, why: str) -> JournalDamaged:
        return JournalDamaged(f"{what} at {self.address}", why, advice=DAMAGE_ADVICE)


class Standby(JournalUnavailable):
    """The server takes no writes now: at the start a mistake, later a failover under way."""


def _text(result: pq.abc.PGresult, column: int) -> str:
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
