"""The PostgreSQL journal when its server dies, is paused, cut off, full or replaced: real processes that are killed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from statsapi.errors import JournalRefused, JournalUnavailable
from statsapi.journal import IdempotencyKey, Proposal, open_journal
from statsapi.journal.postgres_health import Seen
from statsapi.journal.postgres_session import Session
from statsapi.model import EventBatch, Part
from tests.calls import count, make_app
from tests.journal_engines import event, mark_of, shared_postgres, values
from tests.programs import postgres_binaries
from tests.redis_load import body, posting
from tests.servers import Line, PostgresServer, gunicorn_server, postgres_server, start_gunicorn, stop, wait_until


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server(postgres_binaries()) as server:
        yield server


@pytest.fixture
def stream() -> str:
    return f"s{secrets.token_hex(4)}"


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(shared_postgres(postgres_binaries()).port)
    yield line
    line.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent for half a second is away; it is two outside tests."""
    for module in ("postgres_session", "postgres_server"):
        monkeypatch.setattr(f"statsapi.journal.{module}.TIMEOUT_S", 0.5)
    monkeypatch.setattr("statsapi.journal.postgres_appends.LOCK_WAIT_S", 0.2)


# Away


def test_a_server_that_is_away_at_start_is_waited_for(tmp_path: Path, server: PostgresServer) -> None:
    """The service starts, is alive and not ready, says why, refuses writes, and works once the engine is there."""
    server.stop()
    service = start_gunicorn(tmp_path, workers=2, env={"STATSAPI_JOURNAL": server.journal_url()})
    try:
        service.wait_for_log("tarting without the journal: postgresql://127.0.0.1")
        status, problem = wait_until(lambda: answer(service, "GET", "/readyz"), "the service to answer")
        assert (status, problem["type"]) == (503, "urn:statsapi:problem:journal-unavailable")
        assert "cannot be reached" in problem["detail"]
        status, problem = service.request("POST", "/event", body())
        assert (status, problem["outcome"]) == (503, "not recorded")
        assert service.request("GET", "/statistics")[0] == 503
        server.start()
        wait_until(lambda: service.request("GET", "/readyz")[0] == 200, "the service to be ready")
        service.wait_for_journals(2)
        assert service.request("POST", "/event", body())[0] == 200
        for _ in range(4):
            assert service.request("GET", "/statistics")[1]["count"] == 1
    finally:
        stop(service)


def answer(service: Any, method: str, path: str) -> Any:
    try:
        return service.request(method, path)
    except (OSError, AssertionError):
        return None


def test_writes_are_refused_and_reads_go_on_while_the_server_is_away(server: PostgresServer) -> None:
    """503 with Retry-After and what became of it; reads tell how old they are; all continues by itself."""
    app = make_app(server.journal_url())
    client = app.test_client()
    for value in range(3):
        assert client.post("/event", json=body(value)).status_code == 200
    assert count(client) == 3
    server.stop()
    refused = client.post("/event", json=body())
    assert (refused.status_code, refused.json["outcome"], refused.headers["Retry-After"]) == (503, "not recorded", "1")
    for path in ("/statistics", "/events", "/series", "/statistics/timeline?window=5m&step=1m"):
        stale = client.get(path)
        assert stale.status_code == 200
        assert 0 <= int(stale.headers["Age"]) < 60
        assert stale.headers["Warning"].startswith("110 ")
    assert client.get("/readyz").status_code == 503
    server.start()
    assert client.post("/event", json=body()).status_code == 200
    assert count(client) == 4
    wait_until(lambda: client.get("/readyz").status_code == 200, "the service to be ready")
    assert b"statsapi_journal_size_bytes" in client.get("/metrics").data
    app.extensions["statsapi"].close()


def test_stale_reads_can_be_refused(server: PostgresServer) -> None:
    """STATSAPI_STALE_READS=refuse: a read that cannot ask the journal is a 503."""
    app = make_app(server.journal_url(), stale_reads="refuse")
    client = app.test_client()
    client.post("/event", json=body())
    assert count(client) == 1
    server.stop()
    refused = client.get("/statistics")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    server.start()
    assert count(client) == 1
    app.extensions["statsapi"].close()


@pytest.mark.usefixtures("impatient")
def test_a_paused_server_is_not_waited_for_by_each(server: PostgresServer) -> None:
    """Its silence costs a limited time: an append is of unknown outcome, reads are old, and its retry counts once."""
    app = make_app(server.journal_url())
    client, service = app.test_client(), app.extensions["statsapi"]
    journal, key = service.view().journal, IdempotencyKey(b"k", b"d", 10**9)
    assert client.post("/event", json=body()).status_code == 200
    assert count(client) == 1
    server.signal_all(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(JournalUnavailable) as unknown:
            journal.append(event(2.0), key=key)
        assert unknown.value.outcome_unknown
        assert "Age" in client.get("/statistics").headers
        assert time.monotonic() - began < 12
        began = time.monotonic()
        for _ in range(5):
            assert "Age" in client.get("/statistics").headers
        assert time.monotonic() - began < 5
    finally:
        server.signal_all(signal.SIGCONT)
    wait_until(lambda: "Age" not in client.get("/statistics").headers, "the server to answer")
    journal.append(event(2.0), key=key)
    assert values(journal)["default"] == [1.0, 2.0]
    service.close()


def test_no_connection_left_is_told(server: PostgresServer) -> None:
    """With max_connections reached, new sessions are refused in one line, and work again when there is room."""
    server.stop()
    server.options |= {"max_connections": 6, "superuser_reserved_connections": 3, "max_wal_senders": 0}
    server.start()
    server.ask("CREATE ROLE app LOGIN")
    server.ask("CREATE SCHEMA s AUTHORIZATION app")
    journal = open_journal(server.journal_url("s", user="app"))
    journal.append(event(1.0))
    with ExitStack() as stack:
        for _ in range(2):
            target = f"host=127.0.0.1 port={server.port} user=app dbname=postgres"
            stack.enter_context(psycopg.connect(target))
        with pytest.raises(JournalUnavailable, match="no connection left") as refused:
            open_journal(server.journal_url("s", user="app"))
        assert not refused.value.outcome_unknown
        journal.append(event(2.0))  # it has one
        assert values(journal) == {"default": [1.0, 2.0]}
    journal.close()
    other = wait_until(lambda: opened(server.journal_url("s", user="app")), "a connection to be free")
    assert values(other) == {"default": [1.0, 2.0]}
    other.close()


def opened(url: str) -> Any:
    try:
        return open_journal(url)
    except JournalUnavailable:
        return None


def test_a_full_disk_refuses_writes_only(server: PostgresServer) -> None:
    """Nothing is recorded, the reason is told, reads go on, and with space again all works by itself."""
    small = mount_small(server, "8m")
    try:
        server.ask(f"CREATE TABLESPACE small LOCATION '{small}'")
        server.ask("ALTER DATABASE postgres SET default_tablespace = small")
        app = make_app(server.journal_url())
        client = app.test_client()
        journal = open_journal(server.journal_url())
        batch = Proposal(EventBatch((Part("big", np.arange(40_000, dtype=np.int64), np.zeros(40_000)),)))
        recorded, full = fill(journal, batch)
        assert not full.outcome_unknown
        assert "disk of" in str(full)
        assert client.get("/statistics?series=big&window=1h").status_code == 200
        assert len(values(journal).get("big", [])) == recorded * 40_000
        fill(journal, Proposal(EventBatch.single("small" * 300, 0, 1.0)))  # the rest of the last pages
        assert client.post("/event", json=body()).status_code in (200, 503)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        journal.append(batch)
        journal.check_writable()
        assert client.post("/event", json=body()).status_code == 200
        journal.close()
        app.extensions["statsapi"].close()
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(small)], check=False)


def mount_small(server: PostgresServer, size: str) -> Path:
    """A small disk in the server's folder, for the caller to unmount."""
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root only")
    small = server.directory / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a file system")
    shutil.chown(small, "postgres")
    return small


@pytest.mark.slow
def test_a_full_disk_of_the_wal_ends_the_server_and_loses_nothing(server: PostgresServer) -> None:
    """PostgreSQL itself stops; what was acknowledged is there when it has space again and is started."""
    server.stop()
    small = mount_small(server, "40m")
    try:
        moved = shutil.copytree(server.data / "pg_wal", small / "wal")
        for path in (moved, *moved.rglob("*")):
            shutil.chown(path, "postgres", "postgres")
        moved.chmod(0o700)
        shutil.rmtree(server.data / "pg_wal")
        (server.data / "pg_wal").symlink_to(moved)
        server.options |= {"max_wal_size": "1GB", "min_wal_size": "32MB"}
        server.start()
        journal = open_journal(server.journal_url(), fsync="always")
        batch = Proposal(EventBatch((Part("big", np.arange(20_000, dtype=np.int64), np.zeros(20_000)),)))
        recorded, full = fill(journal, batch)
        assert not isinstance(full, JournalRefused)
        server.kill()
        subprocess.run(["mount", "-o", "remount,size=128m", str(small)], check=True)
        server.start()
        with closing(journal):
            journal.append(batch)
            batches = len(values(journal)["big"]) // 20_000
        assert batches in (recorded + 1, recorded + 1 + full.outcome_unknown)
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(small)], check=False)


def fill(journal: Any, proposal: Proposal) -> tuple[int, JournalUnavailable]:
    """Append it until the disk is full: how many were recorded, and the error."""
    for recorded in range(5000):
        try:
            journal.append(proposal)
        except JournalUnavailable as error:
            return recorded, error
    raise AssertionError("the disk never was full")


# The answer to a COMMIT that is lost


def url_through(line: Line, stream: str) -> str:
    return shared_postgres(postgres_binaries()).journal_url(stream, port=line.port)


@pytest.mark.parametrize("decided", [False, True])
def test_an_append_whose_answer_is_lost_is_looked_up(line: Line, stream: str, decided: bool) -> None:
    """The connection breaks after COMMIT was sent, and another can be made: the append is found, and acknowledged."""
    journal = open_journal(url_through(line, stream))
    journal.append(lambda: event(1.0))  # all its statements are prepared
    journal.append(event(1.5))
    run = Session.run
    losing = [b"COMMIT" if decided else b"append("]

    def through(self: Session, statement: Any, *rest: Any, **named: Any) -> Any:
        if losing and losing[0] in statement.text:
            losing.clear()
            line.swallow()
            threading.Timer(0.3, line.mend).start()
        return run(self, statement, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "run", through)
        done = journal.append((lambda: event(2.0)) if decided else event(2.0))
    assert done.mark is not None
    assert values(journal) == {"default": [1.0, 1.5, 2.0]}
    assert journal.read(mark_of(done)).records == 0
    journal.close()


@pytest.mark.usefixtures("impatient")
def test_a_lost_answer_that_cannot_be_looked_up_is_unknown(line: Line, stream: str) -> None:
    """While nobody can be asked the outcome is unknown; the retry under the key gets the answer that was kept."""
    journal = open_journal(url_through(line, stream))
    journal.append(event(1.0))
    key = IdempotencyKey(b"k", b"d", 10**9)
    line.swallow()
    with pytest.raises(JournalUnavailable) as lost:
        journal.append(event(2.0)._replace(answer=b"first"), key=key)
    assert lost.value.outcome_unknown
    line.mend()
    again = journal.append(event(2.0)._replace(answer=b"second"), key=key)
    assert (again.answer, again.replayed) == (b"first", True)
    assert values(journal) == {"default": [1.0, 2.0]}
    journal.close()


def test_a_line_that_was_cut_is_found_mended(line: Line, stream: str) -> None:
    """A statement that surely did not arrive is sent on a new connection; without one it is surely not recorded."""
    journal = open_journal(url_through(line, stream))
    first = mark_of(journal.append(event(1.0)))
    line.cut()
    line.mend()
    journal.append(event(2.0))
    line.cut()
    with pytest.raises(JournalUnavailable) as refused:
        journal.append(event(3.0))
    assert not refused.value.outcome_unknown
    with pytest.raises(JournalUnavailable):
        journal.read(first)
    line.mend()
    journal.append(event(4.0))
    assert values(journal) == {"default": [1.0, 2.0, 4.0]}
    journal.close()


def test_a_backend_that_was_ended_is_replaced(stream: str) -> None:
    """pg_terminate_backend of our sessions is noticed before the next use: nothing fails, nothing counts twice."""
    server = shared_postgres(postgres_binaries())
    journal = open_journal(server.journal_url(stream))
    for number in range(5):
        journal.append(event(float(number)))
        server.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'statsapi' "
            "AND query LIKE %s",
            f"%{stream}%",
        )
    assert values(journal) == {"default": [0.0, 1.0, 2.0, 3.0, 4.0]}
    journal.close()


# Under load


@pytest.mark.parametrize("victim", ["backend", "postmaster"])
def test_a_server_killed_under_load_loses_nothing_that_was_acknowledged(
    tmp_path: Path, server: PostgresServer, victim: str
) -> None:
    """kill -9 of a backend (the server then restarts itself), or of all: each acknowledged event is there once."""
    env = {"STATSAPI_JOURNAL": server.journal_url(), "STATSAPI_FSYNC": "always"}
    with gunicorn_server(tmp_path, workers=2, env=env) as service, posting(service, clients=6) as load:
        load.wait_for(100)
        for _ in range(2):
            if victim == "backend":
                ((pid,),) = server.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'statsapi' LIMIT 1")
                os.kill(pid, signal.SIGKILL)
            else:
                server.kill()
                time.sleep(0.2)
                server.start()
            load.wait_for(100)
        load.stop()
        assert service.request("GET", "/statistics")[1]["count"] == len(load.acknowledged)
    journal = open_journal(server.journal_url())
    assert sorted(values(journal)["default"]) == sorted(load.acknowledged)
    journal.close()


def test_two_machines_are_one_service(tmp_path: Path, server: PostgresServer) -> None:
    """Services that share a journal answer alike at once, also of keys and of what was deleted."""
    env = {"STATSAPI_JOURNAL": server.journal_url()}
    with (
        gunicorn_server(tmp_path / "one", workers=2, env=env) as one,
        gunicorn_server(tmp_path / "two", workers=2, env=env) as two,
        one.client() as first,
        two.client() as second,
    ):
        for number in range(1, 101):
            poster, asker = (first, second) if number % 2 else (second, first)
            assert poster.request("POST", "/event", body(number))[0] == 200
            assert asker.request("GET", "/statistics")[1]["count"] == number
        keyed = {"Idempotency-Key": "once"}
        sent = body(1000)
        assert first.request("POST", "/event", sent, keyed) == second.request("POST", "/event", sent, keyed)
        assert second.request("GET", "/statistics")[1]["count"] == 101
        assert first.request("DELETE", "/series/default")[0] == 200
        assert second.request("GET", "/statistics")[1]["count"] == 0


# Another server takes over


class Pair:
    """A primary and a standby that streams from it; `synchronous`: a COMMIT waits for the standby."""

    def __init__(self, stack: ExitStack, *, synchronous: bool) -> None:
        self.first = stack.enter_context(postgres_server(postgres_binaries()))
        directory = PostgresServer.folder()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self.second = self.first.copy_to(directory)
        stack.callback(self.second.kill)
        self.second.start()
        wait_until(lambda: self.first.ask("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), "streaming")
        if synchronous:
            self.first.ask("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (standby)'")
            self.first.ask("SELECT pg_reload_conf()")
            wait_until(lambda: self.first.ask("SHOW synchronous_standby_names") == [("ANY 1 (standby)",)], "the quorum")

    def url(self, rest: str = "") -> str:
        hosts = f"127.0.0.1:{self.first.port},127.0.0.1:{self.second.port}"
        return f"postgresql://postgres@{hosts}/postgres?stream=s{rest}"

    def promote(self) -> None:
        self.second.ask("SELECT pg_promote()")
        wait_until(lambda: self.second.ask("SELECT pg_is_in_recovery()") == [(False,)], "the standby to be promoted")


def test_a_synchronous_standby_takes_over_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Two machines under load, the primary killed, the standby promoted: each acknowledged event is there once. With
    either STATSAPI_FSYNC, as a quorum that is asked for is waited for.
    """
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=True)
        journal = open_journal(pair.url())
        assert "with its standbys ANY 1 (standby)" in journal.promise
        journal.close()
        env = {"STATSAPI_JOURNAL": pair.url()}
        one, two = (
            stack.enter_context(gunicorn_server(tmp_path / name, workers=1, env=env)) for name in ("one", "two")
        )
        with posting(one, two) as load:
            load.wait_for(200)
            pair.first.kill()
            pair.promote()
            load.wait_for(200)
            load.stop()
            for service in (one, two):
                assert service.request("GET", "/statistics")[1]["count"] == len(load.acknowledged)
                assert "LOST" not in service.log
        journal = open_journal(pair.url())
        assert sorted(values(journal)["default"]) == sorted(load.acknowledged)
        journal.close()


@pytest.mark.usefixtures("impatient")
def test_a_standby_that_is_missing_leaves_the_outcome_unknown() -> None:
    """Without a quorum an append is neither acknowledged nor called refused, by any look-up."""
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=True)
        journal = open_journal(pair.url())
        journal.append(event(1.0))
        pair.second.stop()
        with pytest.raises(JournalUnavailable) as unknown:
            journal.append(event(2.0))
        assert unknown.value.outcome_unknown
        # Whoever ends the wait makes it visible, and no safer: its retry must not be told that it is.
        key = IdempotencyKey(b"k", b"d", 10**9)
        pair.first.ask("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        with pytest.raises(JournalUnavailable):
            journal.append(event(3.0), key=key)
        pair.first.ask("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        with pytest.raises(JournalUnavailable) as unknown:
            journal.append(event(3.0), key=key)
        pair.second.start()
        wait_until(lambda: opened_append(journal, key), "the quorum to be there")
        assert values(journal)["default"] == [1.0, 2.0, 3.0]
        journal.close()


@pytest.mark.usefixtures("impatient")
def test_a_missing_standby_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """/readyz and the 503 of a POST name the quorum, who is connected in which state, and what to do; the log does so
    once, and once when it is there again.
    """
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=True)
        app = make_app(pair.url())
        client, service = app.test_client(), app.extensions["statsapi"]
        assert client.post("/event", json=body()).status_code == 200
        pair.second.stop()
        wait_until(lambda: not pair.first.ask("SELECT 1 FROM pg_stat_replication"), "the standby to be gone")
        for _ in range(3):
            service.keep_house()
            service._checked_us = None
            refused = client.get("/readyz")
            assert (refused.status_code, "outcome" in refused.json) == (503, False)
            assert "synchronous_standby_names = 'ANY 1 (standby)'" in refused.json["detail"]
            assert "connected are: none" in refused.json["detail"]
            assert "ALTER SYSTEM" in refused.json["detail"]
        refused = client.post("/event", json=body())
        assert (refused.status_code, refused.json["outcome"]) == (503, "unknown")
        assert "synchronous_standby_names = 'ANY 1 (standby)'" in refused.json["detail"]
        assert caplog.text.count("lacks a standby") == 1
        pair.second.start()

        def ready() -> bool:
            service._checked_us = None
            return bool(client.get("/readyz").status_code == 200)

        wait_until(ready, "the quorum to be there")
        assert caplog.text.count("has its standbys: standby (streaming, quorum)") == 1
        assert client.post("/event", json=body()).status_code == 200
        service.close()


def test_who_waits_behind_a_missing_standby_is_told_of_it() -> None:
    """An append that waits behind another's COMMIT for the standby is not recorded, and the error names the quorum."""
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=True)
        one, other = (stack.enter_context(closing(open_journal(pair.url()))) for _ in range(2))
        pair.second.stop()
        with pytest.raises(JournalUnavailable):
            one.append(event())
        for proposal in (event(), event):
            with pytest.raises(JournalUnavailable, match=r"another writer.*synchronous_standby_names = 'ANY 1") as told:
                other.append(proposal)
            assert not told.value.outcome_unknown


def test_a_first_start_without_its_quorum_says_so(tmp_path: Path) -> None:
    """It makes its tables, waits for nobody, is not ready and says what is missing; with the quorum it goes on."""
    with ExitStack() as stack:
        server = stack.enter_context(
            postgres_server(postgres_binaries(), synchronous_standby_names="ANY 1 (standby, other)")
        )
        service = stack.enter_context(
            gunicorn_server(tmp_path, workers=1, env={"STATSAPI_JOURNAL": server.journal_url("s")})
        )
        status, problem = service.request("GET", "/readyz")
        assert (status, "ANY 1 (standby, other)" in problem["detail"]) == (503, True)
        assert service.log.count("lacks a standby") == 2  # the arbiter's look before the fork, and the worker's
        directory = PostgresServer.folder()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        standby = server.copy_to(directory)
        stack.callback(standby.kill)
        standby.start()
        service.wait_until(lambda: service.request("GET", "/readyz")[0] == 200, "the quorum")
        assert service.request("POST", "/event", body())[0] == 200


@pytest.mark.usefixtures("impatient")
def test_the_state_of_standbys_that_a_role_may_not_see() -> None:
    """They count as there until an append is not answered; then the right to grant is named."""
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=False)
        pair.first.ask("CREATE ROLE app LOGIN")
        pair.first.ask("CREATE ROLE watcher LOGIN IN ROLE app, pg_monitor")
        pair.first.ask("CREATE SCHEMA s AUTHORIZATION app")
        pair.first.ask("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (elsewhere)'")
        pair.first.ask("SELECT pg_reload_conf()")
        wait_until(
            lambda: pair.first.ask("SHOW synchronous_standby_names") == [("FIRST 1 (elsewhere)",)], "the new setting"
        )
        journal = open_journal(pair.first.journal_url("s", user="app"))
        journal.check_writable()
        named = r"FIRST 1 \(elsewhere\).*standby \(.*GRANT pg_monitor TO app"
        with pytest.raises(JournalUnavailable, match=named) as unknown:
            journal.append(event())
        assert unknown.value.outcome_unknown
        journal.close()
        watching = open_journal(pair.first.journal_url("s", user="watcher"))
        with pytest.raises(JournalUnavailable, match=r"lacks a standby.*standby \(streaming, async\)"):
            watching.check_writable()
        watching.close()


@pytest.mark.parametrize(
    ("names", "there", "lacks"),
    [
        ("", 0, False),
        ("a", 0, True),
        ("a, b", 1, False),
        ("*", 1, False),
        ("ANY 2 (a, b)", 1, True),
        ("any 2(a, b)", 2, False),
        ("FIRST 3 (*)", 2, True),
        ("2 (a, b)", 1, True),
        ("2 (a, b)", 2, False),
    ],
)
def test_how_many_standbys_are_wanted(names: str, there: int, lacks: bool) -> None:
    """As PostgreSQL reads synchronous_standby_names; a plain list wants one."""
    assert Seen("", names, "", there).lacks_standbys == lacks


def opened_append(journal: Any, key: IdempotencyKey) -> bool:
    try:
        journal.append(event(3.0), key=key)
    except JournalUnavailable:
        return False
    return True


def test_a_failover_to_a_standby_that_is_behind_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Records that an asynchronous standby had not got leave all answers and are reported lost; later ones count."""
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=False)
        app = make_app(pair.url(), fsync="always")
        client = app.test_client()
        for value in range(3):
            assert client.post("/event", json=body(value)).status_code == 200
        assert count(client) == 3
        end = pair.first.ask("SELECT pg_current_wal_flush_lsn()")[0][0]
        wait_until(lambda: pair.second.ask("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end) == [(True,)], "replay")
        pair.second.stop()
        for value in (10, 11):
            assert client.post("/event", json=body(value)).status_code == 200
        assert count(client) == 5
        assert client.post("/event", json=body(12)).status_code == 200  # which its view has not read
        pair.first.kill()
        stale = client.get("/statistics")
        assert ("Age" in stale.headers, stale.json["count"]) == (True, 5)
        pair.second.start()
        pair.promote()
        assert client.post("/event", json=body(20)).status_code == 200
        assert client.post("/event", json=body(21)).status_code == 200
        assert count(client) == 5
        assert client.get("/statistics").json["max"] == 21.0
        assert "LOST" in caplog.text
        app.extensions["statsapi"].close()


def test_a_standby_alone_is_refused() -> None:
    """One clear line at the start; of several hosts the one that takes writes is found."""
    with ExitStack() as stack:
        pair = Pair(stack, synchronous=False)
        with pytest.raises(JournalRefused, match=r"standby, or was made read-only.*name the primary"):
            open_journal(pair.second.journal_url("s"))
        hosts = f"127.0.0.1:{pair.second.port},127.0.0.1:{pair.first.port}"
        journal = open_journal(f"postgresql://postgres@{hosts}/postgres?stream=s")
        journal.append(event())
        journal.close()


def test_a_lost_answer_is_looked_up_in_the_history_that_is_there_now(line: Line, stream: str) -> None:
    """After an older copy took over, positions begin again lower: what was appended there is found all the same."""
    server = shared_postgres(postgres_binaries())
    journal = open_journal(url_through(line, stream))
    for number in range(10):
        journal.append(event(float(number)))
    server.ask(f"DELETE FROM {stream}.records WHERE position > 3")
    run = Session.run
    losing = [True]

    def through(self: Session, statement: Any, *rest: Any, **named: Any) -> Any:
        if losing and b"append(" in statement.text:
            losing.clear()
            line.swallow()
            threading.Timer(0.3, line.mend).start()
        return run(self, statement, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "run", through)
        done = journal.append(event(100.0))
    assert mark_of(done).position == 4
    other = open_journal(server.journal_url(stream))
    assert values(other) == {"default": [0.0, 1.0, 2.0, 100.0]}
    other.close()
    journal.close()
