"""Each call to a journal's server fails once: the first, the second, and so on to the last of a service's whole life.

As tests/unit/test_nth_call.py does it with SQLite. A call fails before the server got anything, or after it did it all,
so that its answer is lost; either way the connection is gone.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import exceptions
from redis.connection import Connection

from statsapi.journal.postgres_session import Session, Unanswered
from tests.journal_engines import shared_postgres, shared_redis
from tests.lives import FAULTS, Life, live_once
from tests.programs import postgres_binaries, redis_binary

Ways = dict[str, tuple[Callable[[], BaseException], bool]]

# How a call fails, and whether the server has carried it out.
REDIS: Ways = {
    "not sent": (lambda: exceptions.ConnectionError("Connection closed by server."), False),
    "answer lost": (lambda: exceptions.ConnectionError("Connection closed by server."), True),
    "memory": (MemoryError, False),
    "memory, after": (MemoryError, True),
}
POSTGRESQL: Ways = {
    "not sent": (lambda: Unanswered("server closed the connection unexpectedly"), False),
    "answer lost": (lambda: Unanswered("server closed the connection unexpectedly"), True),
}


def live_through(url: Callable[[], str], ways: Ways, way: str, folder: Path) -> None:
    """A life for each call, which fails in that way."""
    error, after = ways[way]
    call, going = 0, True
    while going:
        call += 1
        going = live_once(Life(url(), folder), call, error, after=after, called=way)
    assert call > 50, "a life has many calls"


def cut(hang_up: Callable[[], Any], act: Callable[[], Any]) -> Any:
    """Act; where that is the call that fails, its connection is gone."""
    try:
        return FAULTS.call(act)
    except BaseException:
        if FAULTS.is_now:
            hang_up()
        raise


@pytest.fixture(autouse=True)
def _without_log(monkeypatch: pytest.MonkeyPatch) -> None:
    # The records that pytest keeps would keep errors, and their frames.
    monkeypatch.setattr(logging.getLogger("statsapi"), "disabled", True)


@pytest.mark.parametrize("way", REDIS)
def test_each_call_to_redis_fails_once(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails, and however: nothing is lost, doubled, or told otherwise than it is."""
    send, read = Connection.send_packed_command, Connection.read_response

    def received(connection: Any, *args: Any, **kwargs: Any) -> Any:
        return cut(connection.disconnect, lambda: read(connection, *args, **kwargs))

    def sent(connection: Any, *args: Any, **kwargs: Any) -> Any:
        if FAULTS.after:  # what could not be sent has not arrived
            return send(connection, *args, **kwargs)
        return cut(connection.disconnect, lambda: send(connection, *args, **kwargs))

    monkeypatch.setattr(Connection, "send_packed_command", sent)
    monkeypatch.setattr(Connection, "read_response", received)
    server = shared_redis(redis_binary())
    live_through(lambda: server.journal_url(secrets.token_hex(4)), REDIS, way, tmp_path)


@pytest.mark.parametrize("way", POSTGRESQL)
def test_each_call_to_postgresql_fails_once(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails, and however: nothing is lost, doubled, or told otherwise than it is."""
    run, simple, connect = Session.run, Session.simple, psycopg.Connection.connect

    def refused(*args: Any, **kwargs: Any) -> Any:
        def act() -> Any:
            connection = connect(*args, **kwargs)
            if FAULTS.is_now:
                connection.close()
            return connection

        try:
            return FAULTS.call(act)
        except Unanswered as error:
            raise psycopg.OperationalError(str(error)) from None

    def cut_off(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda session, *args, **kwargs: cut(session.close, lambda: call(session, *args, **kwargs))

    monkeypatch.setattr(Session, "run", cut_off(run))
    monkeypatch.setattr(Session, "simple", cut_off(simple))
    monkeypatch.setattr(psycopg.Connection, "connect", refused)
    server = shared_postgres(postgres_binaries())
    live_through(lambda: server.journal_url(secrets.token_hex(4)), POSTGRESQL, way, tmp_path)
