"""/healthz and /readyz: what is asked every second, by whoever starts, stops and balances the workers."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.cli import healthcheck
from statsapi.config import Settings
from statsapi.errors import JournalUnavailable, ViewNotReady
from statsapi.journal.memory import MemoryJournal
from statsapi.times import SECOND_US
from tests.fakes import FakeClock
from tests.servers import gunicorn_server, wait_until


def app_on(journal: Any, clock: FakeClock) -> Flask:
    return create_app(Settings(journal="memory://"), journal=lambda: journal, clock_us=clock, background=False)


def refusal(client: FlaskClient) -> tuple[str, str]:
    """The type and detail of a 503 from /readyz."""
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    return answer.json["type"].rpartition(":")[2], answer.json["detail"]


class Watched(MemoryJournal):
    """Counts the checks; `broken` is what is wrong with it."""

    checks = 0
    broken = ""

    def check_writable(self, wait_s: float = 1.0) -> None:
        self.checks += 1
        if self.broken:
            raise JournalUnavailable(self.broken)
        super().check_writable(wait_s)


def test_a_healthy_service_is_alive_and_ready(client: FlaskClient) -> None:
    """Both answer 200, and leave no record."""
    assert client.get("/healthz").json == {"status": "ok"}
    assert client.get("/readyz").json == {"status": "ready"}
    assert client.get("/statistics").json["count"] == 0


def test_a_live_process_needs_no_journal(clock: FakeClock) -> None:
    """/healthz answers where the journal cannot even be opened; /readyz says why."""

    def away() -> MemoryJournal:
        raise JournalUnavailable("the disk is away")

    app = create_app(Settings(journal="memory://"), journal=away, clock_us=clock, background=False)
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    assert refusal(client) == ("journal-unavailable", "the disk is away")


def test_a_finding_holds_for_a_second(clock: FakeClock) -> None:
    """However often it is asked, the journal is looked at once a second; a fault shows and goes within that."""
    journal = Watched(clock_us=clock)
    client = app_on(journal, clock).test_client()
    for _ in range(5):
        assert client.get("/readyz").status_code == 200
    assert journal.checks == 1
    journal.broken = "the disk fails"
    clock.advance(SECOND_US)
    for _ in range(5):
        assert refusal(client) == ("journal-unavailable", "the disk fails")
    assert journal.checks == 2
    journal.broken = ""
    clock.advance(-SECOND_US)  # a clock that is set back does not keep a finding alive
    assert client.get("/readyz").status_code == 200


def test_a_replay_that_goes_on_is_not_ready(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the view catches up in another thread /readyz waits a moment, then says so."""
    monkeypatch.setattr("statsapi.service.service.READY_WAIT_S", 0.01)
    app = app_on(MemoryJournal(clock_us=clock), clock)
    client, view = app.test_client(), app.extensions["statsapi"].view()
    with view._catching_up:
        code, detail = refusal(client)
    assert code == ViewNotReady.code
    assert "replaying" in detail
    clock.advance(SECOND_US)
    assert client.get("/readyz").status_code == 200


def test_a_service_that_leaves_is_not_ready_at_once(clock: FakeClock) -> None:
    """Also within the second for which the last finding holds; what comes all the same is served."""
    app = app_on(MemoryJournal(clock_us=clock), clock)
    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    app.extensions["statsapi"].leave()
    assert refusal(client)[0] == "shutting-down"
    assert client.get("/healthz").status_code == 200
    assert client.get("/statistics").status_code == 200


@pytest.mark.processes
def test_a_locked_journal_is_not_ready(tmp_path: Path) -> None:
    """Another program that sits on SQLite's write lock shows, in bounded time, and is gone when it has let go."""
    with gunicorn_server(tmp_path, workers=1) as server:
        wait_until(lambda: server.request("GET", "/readyz")[0] == 200, "a ready worker")
        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            wait_until(lambda: server.request("GET", "/readyz")[0] == 503, "the lock to show")
            begun = time.monotonic()
            status, problem = server.request("GET", "/readyz")
            assert time.monotonic() - begun < 10
            assert status == 503
            assert problem["type"] == "urn:statsapi:problem:journal-unavailable"
            assert server.request("GET", "/healthz") == (200, {"status": "ok"})
            other.execute("ROLLBACK")
        wait_until(lambda: server.request("GET", "/readyz")[0] == 200, "a ready worker")


@pytest.mark.processes
def test_a_stopping_worker_says_that_it_leaves(tmp_path: Path) -> None:
    """After SIGTERM a balancer's kept connection gets 503 shutting-down, while another request is still under way."""
    with gunicorn_server(tmp_path, workers=1) as server, server.client() as balancer, server.connect() as slow:
        assert wait_until(lambda: balancer.request("GET", "/readyz")[0] == 200, "a ready worker")
        slow.sendall(b"POST /event HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGTERM)
        # The worker lets go of idle connections within moments: the next request on this one is its last.
        status, problem = wait_until(
            lambda: (answer := balancer.request("GET", "/readyz"))[0] == 503 and answer, "the worker to hear of it"
        )
        assert (status, problem["type"]) == (503, "urn:statsapi:problem:shutting-down")
        slow.sendall(b"}")
        assert b" 422 " in slow.recv(65536)


@pytest.mark.processes
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_containers_check(tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """statsapi.cli.healthcheck gives 0 for a service that is well, over TCP and a Unix socket, and 1 for none."""
    bind = f"unix:{tmp_path}/s"
    with gunicorn_server(tmp_path, workers=1, bind=bind) as server:
        wait_until(lambda: server.request("GET", "/readyz")[0] == 200, "a ready worker")
        assert healthcheck.main([bind, path]) == 0
        assert healthcheck.main([bind, "/nothing"]) == 1
        assert "answered 404" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert healthcheck.main([f"127.0.0.1:{port}"]) == 1
    assert "does not answer" in capsys.readouterr().err
