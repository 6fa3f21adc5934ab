"""The PostgreSQL server of one journal: the few sessions of this process with it, how they are set, and its clock.

psycopg connects (several hosts, TLS, passwords, as libpq does it). Its pool is not used: it connects again in the
background and hides why it cannot, and we have to say so.

Every wait has a limit: connecting (2 s a host), silence while an answer is due (TIMEOUT_S), locks (LOCK_WAIT_S, by the
server). A session with an answer outstanding is thrown away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, NoReturn

import psycopg
from psycopg import pq

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.postgres_errors import AWAY, GONE, SHARED, damaged, refused, standby, unreachable
from statsapi.journal.postgres_login import fault_of, states_of
from statsapi.journal.postgres_session import TIMEOUT_S, Failed, Parameter, Session, Statement, Unanswered, text_of
from statsapi.journal.postgres_url import Address
from statsapi.journal.protocol import Clock, wall_clock_us
from statsapi.journal.server_clock import ServerClock

# How long the server lets an append wait for the write lock, which a decision in another process may hold.
LOCK_WAIT_S: Final = 2.0
# A holder of the write lock that says nothing for this long has died or was stopped: the server takes the lock away.
IDLE_LOCK_S: Final = 5

# The most sessions that a process has at one time. Few are needed: reads of the view come one after the other, appends
# queue, and housekeeping has one session.
SESSIONS: Final = 8

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
_PID: Final = "SELECT pg_backend_pid()"
# How many failures of a login are looked into: one for each different message of libpq. Each look costs 4.5 KB a host
# for good (postgres_login.py), all of them 0.3 MB. After that many the service just waits for the server.
_LOGINS_MOST: Final = 64


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
        self.rights = ""  # how its role gets the rights that it needs, for messages
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
                    if last or not error.state.startswith(AWAY):
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
        """Close idle sessions: the server may have died, or another one may be the primary. The next caller connects
        anew. Sessions that are in use are closed when they are given back.
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
            read_only, *told = (text_of(row, at) for at in range(4))
            session.pid = int(text_of(row, 4))
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
        """JournalRefused where a proxy lets several sessions share one process of the server. What one session sets
        (such as what COMMIT waits for) or prepares would then hold for another session, or be gone.
        """
        # A second session that the proxy has no room for shares nothing: these errors mean that each has its own.
        with contextlib.suppress(psycopg.Error, Failed, Unanswered):
            other = Session(psycopg.Connection.connect(self.address.conninfo, autocommit=True), -1)
            with contextlib.closing(other):
                for _ in range(3):
                    theirs, ours = (int(text_of(each.simple(_PID), 0)) for each in (other, session))
                    if theirs == session.pid or ours != session.pid:
                        raise JournalRefused(f"{self.address} {SHARED}")

    def _refuse_standby(self) -> NoReturn:
        raise standby(self.address)

    def _unreachable(self, error: psycopg.Error) -> JournalUnavailable | JournalRefused:
        return unreachable(error, self.address, self._look_into)

    def _look_into(self, said: str) -> tuple[str, list[str | None]]:
        """What is wrong with the settings, or how each host answers. It is found out once for each message of libpq:
        while the service waits for a server, the same message comes each second.
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
        if error.state.startswith(AWAY):
            self.drop_idle()
        if error.state.startswith(GONE):
            return self.gone(error.said)
        return refused(error, self.address, self.rights)

    def look_again(self) -> None:
        """The next session looks at the tables and their function, as the first one did."""
        self._prepared = False
        self.drop_idle()

    def gone(self, said: str) -> JournalUnavailable:
        """The exception for tables that are gone. The next session looks at all of them, and says what to do."""
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
        return damaged(f"{what} at {self.address}", why)
