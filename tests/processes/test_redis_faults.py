"""The Redis journal when its server is away, paused, cut off or replaced: real processes, killed and stopped."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import JournalUnavailable
from statsapi.journal import HistoryChanged, IdempotencyKey, Mark, Proposal, Segment, open_journal
from statsapi.model import EventBatch, Part
from statsapi.times import format_timestamp
from tests.calls import count, make_app
from tests.fakes import FakeClock
from tests.journal_engines import event, shared_redis, values
from tests.programs import redis_binary
from tests.redis_load import body, posting
from tests.servers import Line, RedisServer, gunicorn_server, start_gunicorn, stop, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    # With everysec the server writes its log after it has answered where its disk is busy, and a kill loses that.
    server = RedisServer(redis_binary(), tmp_path / "redis", appendfsync="always")
    yield server
    server.kill()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(shared_redis(redis_binary()).port)
    yield line
    line.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent for half a second is away; it is two outside tests."""
    monkeypatch.setattr("statsapi.journal.redis_primary.TIMEOUT_S", 0.5)


# Away at start


def test_a_server_that_is_away_at_start_is_waited_for(tmp_path: Path, server: RedisServer) -> None:
    """The service starts, is alive and not ready, says why, refuses writes, and works once the engine is there."""
    service = start_gunicorn(tmp_path, workers=2, env={"STATSAPI_JOURNAL": server.journal_url("s")})
    try:
        service.wait_for_log("tarting without the journal: redis://127.0.0.1")
        wait_until(lambda: answers(service), "the service to answer")
        assert service.request("GET", "/healthz")[0] == 200
        status, problem = service.request("GET", "/readyz")
        assert (status, problem["type"]) == (503, "urn:statsapi:problem:journal-unavailable")
        assert "cannot be reached" in problem["detail"]
        status, problem = service.request("POST", "/event", body())
        assert (status, problem["outcome"]) == (503, "not recorded")
        assert service.request("GET", "/statistics")[0] == 503  # nothing was ever read: there is nothing to serve
        server.start()
        wait_until(lambda: service.request("GET", "/readyz")[0] == 200, "the service to be ready")
        service.wait_for_journals(2)
        assert service.request("POST", "/event", body())[0] == 200
        for _ in range(4):
            assert service.request("GET", "/statistics")[1]["count"] == 1
    finally:
        stop(service)


def answers(service: Any) -> bool:
    try:
        return bool(service.request("GET", "/healthz")[0] == 200)
    except (OSError, AssertionError):
        return False


# Away later


def test_writes_are_refused_and_reads_go_on_while_the_server_is_away(server: RedisServer) -> None:
    """503 with Retry-After and what became of it; reads tell how old they are; all continues by itself."""
    server.start()
    app = make_app(server.journal_url("s"))
    client = app.test_client()
    for value in range(3):
        assert client.post("/event", json=body(value)).status_code == 200
    assert count(client) == 3
    server.kill()
    refused = client.post("/event", json=body())
    assert (refused.status_code, refused.json["outcome"], refused.headers["Retry-After"]) == (503, "not recorded", "1")
    for path in ("/statistics", "/events", "/series", "/debug/events", "/statistics/timeline?window=5m&step=1m"):
        stale = client.get(path)
        assert stale.status_code == 200
        assert 0 <= int(stale.headers["Age"]) < 60
        assert stale.headers["Warning"].startswith("110 ")
    assert client.get("/statistics").json["count"] == 3
    assert client.get("/readyz").status_code == 503
    server.start()
    assert client.post("/event", json=body()).status_code == 200
    assert count(client) == 4
    app.extensions["statsapi"].close()


def test_stale_reads_can_be_refused(server: RedisServer) -> None:
    """STATSAPI_STALE_READS=refuse: a read that cannot ask the journal is a 503."""
    server.start()
    app = make_app(server.journal_url("s"), stale_reads="refuse")
    client = app.test_client()
    client.post("/event", json=body())
    assert count(client) == 1
    server.kill()
    refused = client.get("/statistics")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    server.start()
    assert count(client) == 1
    app.extensions["statsapi"].close()


def test_a_view_that_has_begun_afresh_is_not_served_as_an_old_one(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the engine goes away in the middle of a replay, what is there so far is no state that ever was."""
    server.start()
    app = make_app(server.journal_url("s"))
    service, client = app.extensions["statsapi"], app.test_client()
    for value in range(3):
        client.post("/event", json=body(value))
    assert count(client) == 3
    journal = service.view().journal
    read = journal.read
    history = iter(("has changed", "is gone"))

    def read_then_lose(after: Mark) -> Segment:
        if next(history) == "has changed":
            raise HistoryChanged("as a failover does")
        server.kill()  # the view has begun afresh by now
        return read(after)

    monkeypatch.setattr(journal, "read", read_then_lose)
    assert client.get("/statistics").status_code == 503
    monkeypatch.undo()
    assert client.get("/statistics").status_code == 503
    server.start()
    assert count(client) == 3
    service.close()


# Paused


@pytest.mark.usefixtures("impatient")
def test_an_append_that_a_paused_server_carries_out_late_counts_once(server: RedisServer) -> None:
    """The client is told that the outcome is unknown; its retry under the key, sooner or later, changes nothing."""
    server.start()
    app = make_app(server.journal_url("s"))
    service, client = app.extensions["statsapi"], app.test_client()
    assert client.post("/event", json=body()).status_code == 200
    assert count(client) == 1
    keyed, sent = {"Idempotency-Key": "late"}, body(2.0)
    server.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    # Past the look-up of its key, as when the server stops right then.
    reply = client.post("/event", json=body(3.0))
    assert (reply.status_code, reply.json["outcome"], reply.headers["Retry-After"]) == (503, "unknown", "1")
    assert client.post("/event", json=sent, headers=keyed).status_code == 503
    assert time.monotonic() - began_s < 4
    began_s = time.monotonic()
    for _ in range(20):  # the first of them finds out, the others need not
        assert "Age" in client.get("/statistics").headers
    assert time.monotonic() - began_s < 2
    server.signal(signal.SIGCONT)
    wait_until(lambda: client.post("/event", json=sent, headers=keyed).status_code == 200, "the retry")
    again = client.post("/event", json=sent, headers=keyed)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert count(client) == 3
    service.close()


@pytest.mark.usefixtures("impatient")
def test_a_keyed_append_carried_out_late_is_known_to_its_retry(server: RedisServer) -> None:
    """The append and its retry by another machine lie in the server's buffers: it wakes, and records one of them."""
    server.start()
    one, other = open_journal(server.journal_url("s")), open_journal(server.journal_url("s"))
    for journal in (one, other):
        journal.append(event())  # each has a connection
    key = IdempotencyKey(b"k", b"d", 3_600_000_000)
    server.signal(signal.SIGSTOP)
    for journal in (one, other):
        with pytest.raises(JournalUnavailable, match="did not answer") as caught:
            journal.append(event(2.0)._replace(answer=b"first"), key=key)
        assert caught.value.outcome_unknown
    with pytest.raises(JournalUnavailable, match="cannot be reached") as caught:
        one.append(event(3.0))  # that one needed a new connection
    assert not caught.value.outcome_unknown
    server.signal(signal.SIGCONT)
    again = one.append(event(2.0), key=key)
    assert (again.replayed, again.answer) == (True, b"first")
    assert values(one) == {"default": [1.0, 1.0, 2.0]}
    one.close()
    other.close()


LARGE = Proposal(EventBatch((Part("default", np.arange(10_000), np.ones(10_000)),)))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("in_time", [True, False])
@pytest.mark.parametrize("how", ["single", "large"])
def test_what_a_server_wakes_too_late_for_is_never_carried_out(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str, in_time: bool
) -> None:
    """Sent to a server that stands still, by the script or between WATCH and EXEC: until LATE_US has passed it may
    still be carried out, later never, so whoever looks then knows.
    """
    monkeypatch.setattr("statsapi.journal.redis_appends.LATE_US", 30_000_000 if in_time else 700_000)
    server.start()
    journal, reader = (open_journal(server.journal_url("s")) for _ in range(2))
    journal.append(event())
    server.send("CONFIG", "RESETSTAT")
    proposal = event(2.0)
    engine: Any = journal
    if how == "single":
        server.signal(signal.SIGSTOP)
    else:
        # One that is large indeed does not fit into the sockets' buffers: the server never gets the whole of it.
        monkeypatch.setattr("statsapi.journal.redis_appends.LARGE_BYTES", 1000)
        proposal = Proposal(EventBatch((Part("default", np.arange(100), np.ones(100)),)))

        # What is sent with EXEC is put together last.
        def pause() -> list[Any]:
            server.signal(signal.SIGSTOP)
            return []

        monkeypatch.setattr(engine._appends, "_wait", pause)
    began_s = time.monotonic()
    with pytest.raises(JournalUnavailable, match="did not answer") as caught:
        journal.append(proposal)
    assert caught.value.outcome_unknown
    time.sleep(max(0.0, began_s + 0.9 - time.monotonic()))
    server.signal(signal.SIGCONT)
    command = "evalsha" if how == "single" else "exec"
    wait_until(lambda: f"cmdstat_{command}:" in server.send("INFO", "commandstats"), "the server to come to it")
    monkeypatch.undo()
    expected = 1 + in_time * (1 if how == "single" else 100)
    assert len(values(reader)["default"]) == expected
    journal.append(event(3.0))  # nor does it come along with the next
    assert len(values(reader)["default"]) == expected + 1
    for opened in (journal, reader):
        opened.close()


def test_a_process_that_was_stopped_sends_nothing_late(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds on waking that the time its caller waits is over records nothing, and says so."""
    server.start()
    journal = open_journal(server.journal_url("s"))
    journal.append(event())
    engine: Any = journal
    with pytest.raises(JournalUnavailable, match="nothing was recorded") as caught:
        engine._appends._send([engine._appends.group.request(event(2.0), None)], time.monotonic() - 1)
    assert not caught.value.outcome_unknown
    # The server's clock is put forward by an hour: the first try is refused as late, the second goes by what it said.
    clock = engine._server.clock
    clock.set(clock.now_us() - 3_600_000_000, time.monotonic())
    assert journal.append(event(3.0)).mark.position == 2
    clock.set(clock.now_us() - 3_600_000_000, time.monotonic())
    assert journal.append(lambda: event(4.0)).mark.position == 3
    assert values(journal) == {"default": [1.0, 3.0, 4.0]}
    journal.close()


@pytest.mark.usefixtures("impatient")
def test_readers_do_not_each_wait_for_a_paused_server(server: RedisServer) -> None:
    """Threads that ask at one moment share one timeout."""
    server.start()
    app = make_app(server.journal_url("s"))
    app.test_client().post("/event", json=body())
    assert count(app.test_client()) == 1
    server.signal(signal.SIGSTOP)
    waited: list[float] = []

    def ask() -> None:
        began_s = time.monotonic()
        assert app.test_client().get("/statistics").headers["Age"]
        waited.append(time.monotonic() - began_s)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.signal(signal.SIGCONT)
    assert len(waited) == 4
    assert max(waited) < 1.5, waited  # four in turn would take two seconds
    app.extensions["statsapi"].close()


# Cut off


def test_an_append_whose_answer_is_lost_is_not_sent_again(line: Line) -> None:
    """Neither by us nor by the client library: it stands there once, and its outcome is unknown."""
    journal = open_journal(f"redis://127.0.0.1:{line.port}?stream={secrets.token_hex(4)}")
    journal.append(event())
    line.swallow()
    with pytest.raises(JournalUnavailable, match="did not answer") as caught:
        journal.append(event(2.0))
    assert caught.value.outcome_unknown
    for proposal in (lambda: event(3.0), LARGE):  # these look at the journal first
        with pytest.raises(JournalUnavailable) as caught:
            journal.append(proposal)
        assert not caught.value.outcome_unknown
    line.mend()
    assert values(journal) == {"default": [1.0, 2.0]}
    assert journal.append(event(4.0)).mark.position == 3
    journal.close()


def test_neighbours_of_a_lost_answer_are_all_told(line: Line) -> None:
    """Whoever went along in one group gets an error of its own, and the next group is a new one."""
    journal = open_journal(f"redis://127.0.0.1:{line.port}?stream={secrets.token_hex(4)}")
    journal.append(event())
    line.swallow()
    errors: list[JournalUnavailable] = []

    def append(value: float) -> None:
        try:
            journal.append(event(value))
        except JournalUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=append, args=(float(value),)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(error) for error in errors}) == 8
    line.mend()
    recorded = values(journal)["default"]
    assert len(recorded) == len(set(recorded[1:])) + 1
    unknown = sum(error.outcome_unknown for error in errors)
    assert 1 <= len(recorded) - 1 <= unknown
    journal.close()


def test_a_line_that_was_cut_is_found_mended(line: Line) -> None:
    """Connections that died while idle are no failure: the next call has a new one."""
    journal = open_journal(f"redis://127.0.0.1:{line.port}?stream={secrets.token_hex(4)}")
    mark = journal.append(event()).mark
    line.cut()
    for call in (lambda: journal.append(event(2.0)), lambda: journal.read(mark), journal.check_writable):
        with pytest.raises(JournalUnavailable) as caught:
            call()
        assert not caught.value.outcome_unknown
    line.mend()
    journal.append(event(3.0))
    assert values(journal) == {"default": [1.0, 3.0]}
    journal.close()


# Under load


def test_a_server_killed_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, server: RedisServer) -> None:
    """Clients that retry with their key until they hear 200: in the end each event is there exactly once."""
    server.start()
    env = {"STATSAPI_JOURNAL": server.journal_url("s")}
    with gunicorn_server(tmp_path / "service", workers=2, env=env) as service, posting(service) as load:
        for _ in range(4):
            load.wait_for(100)
            server.kill()
            server.start()
        load.wait_for(100)
        load.stop()
        assert service.request("GET", "/statistics")[1]["count"] == len(load.acknowledged)
    journal = open_journal(server.journal_url("s"))
    assert sorted(values(journal)["default"]) == sorted(load.acknowledged)
    journal.close()


# Two machines


def test_two_machines_are_one_service(tmp_path: Path) -> None:
    """Read your writes, keys, deduplication and deletion from either of two services on one stream."""
    url = shared_redis(redis_binary()).journal_url(secrets.token_hex(4))
    env = {"STATSAPI_JOURNAL": url}
    with (
        gunicorn_server(tmp_path / "one", workers=2, env=env) as one,
        gunicorn_server(tmp_path / "two", workers=2, env=env) as two,
    ):
        for number in range(50):
            writer, reader = (one, two) if number % 2 else (two, one)
            assert writer.request("POST", "/event", body(number))[0] == 200
            assert reader.request("GET", "/statistics")[1]["count"] == number + 1
        sent, keyed = body(), {"Idempotency-Key": "k"}
        first = one.request("POST", "/event", sent, keyed)
        assert two.request("POST", "/event", sent, keyed) == first
        doubled = body(7.5)
        assert one.request("POST", "/event?dedup=true", doubled)[0] == 200
        assert "duplicate" in two.request("POST", "/event?dedup=true", doubled)[1]["message"]
        assert two.request("GET", "/statistics")[1]["count"] == 52
        assert two.request("DELETE", "/series/default")[1]["deleted"] == 52
        assert one.request("GET", "/statistics")[1]["count"] == 0


def test_what_one_machine_compacts_is_compacted_for_all() -> None:
    """Expiry and the checkpoint are decided once: a machine that was behind, and one that starts, answer the same."""
    url = shared_redis(redis_binary()).journal_url(secrets.token_hex(4))
    clock = FakeClock()
    one, other = (create_app(Settings(journal=url), clock_us=clock, background=False) for _ in range(2))
    clients = [app.test_client() for app in (one, other)]

    def post(minutes_ahead: int) -> None:
        stamp = format_timestamp(clock.now_us + minutes_ahead * 60_000_000)
        assert clients[0].post("/event", json={"timestamp": stamp, "value": 1.0}).status_code == 200

    for _ in range(5):
        post(0)
    post(100)  # still to come when the others have gone
    assert [count(client) for client in clients] == [6, 6]
    clock.advance(66 * 60_000_000)
    post(0)
    one.extensions["statsapi"].keep_house()
    clock.advance(60_000_000)
    one.extensions["statsapi"].keep_house()  # takes from the stream what is under the checkpoint
    assert [count(client) for client in clients] == [2, 2]
    journal = open_journal(url)
    info = journal.info()
    assert (info.checkpoint_position, info.records) == (6, 1)
    journal.close()
    third = create_app(Settings(journal=url), clock_us=clock, background=False)
    assert count(third.test_client()) == 2
    for app in (one, other, third):
        app.extensions["statsapi"].close()
