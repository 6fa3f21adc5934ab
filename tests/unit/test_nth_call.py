"""Each call into SQLite fails once: the first, the second, and so on to the last of a service's whole life.

What was acknowledged counts once, what was refused does not count, and what was told to be unknown counts once or not
at all; every view agrees with one that starts afresh. A call fails before the engine does anything, or after it did it
all, so that its answer is lost. Engines that are servers: tests/processes/test_nth_call.py.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from statsapi.errors import StatsError
from statsapi.journal import Journal, sqlite_upgrade
from statsapi.journal.sqlite import SqliteJournal
from tests.lives import FAULTS, Life, live_once
from tests.old_journals import check_upgraded, make_old

# Where a ROLLBACK fails, its transaction holds the lock. Nobody here gives it back, so a longer wait brings nothing.
LOCK_WAIT_S = 0.1

_connect = sqlite3.connect


class FaultyCursor:
    """A cursor whose rows may fail to come as well."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(lambda: self.fetchone(), None)

    def fetchone(self) -> Any:
        return FAULTS.call(self._cursor.fetchone)

    def fetchall(self) -> Any:
        return FAULTS.call(self._cursor.fetchall)


class FaultyConnection(sqlite3.Connection):
    def execute(self, *args: Any) -> Any:
        return FaultyCursor(FAULTS.call(lambda: super(FaultyConnection, self).execute(*args)))

    def executemany(self, *args: Any) -> Any:
        return FaultyCursor(FAULTS.call(lambda: super(FaultyConnection, self).executemany(*args)))

    def executescript(self, *args: Any) -> Any:
        return FaultyCursor(FAULTS.call(lambda: super(FaultyConnection, self).executescript(*args)))

    def backup(self, *args: Any, **kwargs: Any) -> Any:
        return FAULTS.call(lambda: super(FaultyConnection, self).backup(*args, **kwargs))


def connect(*args: Any, **kwargs: Any) -> Any:
    return FAULTS.call(lambda: _connect(*args, factory=FaultyConnection, **kwargs))


def engine_error(code: int, text: str) -> Callable[[], sqlite3.OperationalError]:
    def make() -> sqlite3.OperationalError:
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        return error

    return make


KINDS: dict[str, tuple[Callable[[], BaseException], bool]] = {
    "io": (engine_error(sqlite3.SQLITE_IOERR, "disk I/O error"), False),
    "answer lost": (engine_error(sqlite3.SQLITE_IOERR, "disk I/O error"), True),
    "full": (engine_error(sqlite3.SQLITE_FULL, "database or disk is full"), False),
    "locked": (engine_error(sqlite3.SQLITE_BUSY, "database is locked"), False),
    "memory": (MemoryError, False),
    "memory, after": (MemoryError, True),
}


class SqliteLife(Life):
    def open_journal(self) -> Journal:
        return SqliteJournal(f"{self.folder}/events.db", clock_us=self.clock, wait_limit_s=LOCK_WAIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_call_of_a_life_fails_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails, and however: nothing is lost, doubled, or told otherwise than it is."""
    monkeypatch.setattr(sqlite3, "connect", connect)
    # The records that pytest keeps would keep errors, their frames and so the cursors in them.
    monkeypatch.setattr(logging.getLogger("statsapi"), "disabled", True)
    error, after = KINDS[kind]
    call, going = 0, True
    while going:
        call += 1
        folder = tmp_path / str(call)
        folder.mkdir()
        life = SqliteLife(f"sqlite:///{folder}/events.db", folder)
        going = live_once(life, call, error, after=after, called=kind)
    assert call > 100, "a life has many calls"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_call_of_an_upgrade_fails_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails, and however: the next opening goes on from there, and everything is in the new tables."""
    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(sqlite_upgrade, "UPGRADE_ROWS", 7)
    monkeypatch.setattr(logging.getLogger("statsapi"), "disabled", True)
    error, after = KINDS[kind]
    call = 0
    while True:
        call += 1
        path = str(tmp_path / f"{call}.db")
        FAULTS.stop()
        marks = make_old(path, 2, 12)
        FAULTS.plan(call, error, after)
        try:
            SqliteJournal(path).close()
        except (StatsError, MemoryError) as met:
            met.__cause__ = met.__context__ = None
        happened = FAULTS.happened
        FAULTS.stop()
        try:
            with closing(SqliteJournal(path)) as journal:
                check_upgraded(journal, 2, marks)
        except BaseException as failure:
            failure.add_note(f"call {call} failed by {kind}")
            raise
        if not happened:
            break
    assert call > 50, "an upgrade has many calls"
