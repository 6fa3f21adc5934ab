"""statsapi.client against the service itself, in one process: what is recorded, retried, told and counted.

The network is tests/client_service.py, with faults at every request; a real one is in tests/processes/test_client.py.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsapi.app import create_app
from statsapi.client import (
    BufferFull,
    Client,
    Closed,
    Conflict,
    Problem,
    Refused,
    SpoolError,
    StatsapiWarning,
    Unauthorized,
    Unavailable,
    Undelivered,
)
from statsapi.client.http import Transport, refusal
from statsapi.config import Settings
from tests.client_service import InProcess, client_of, run, sender_of
from tests.fakes import FakeClock

FAULTS = st.lists(st.sampled_from([None, "refused", "lost", "502", "429", "html", "401", "400"]), max_size=12)


def count(app: Flask, series: str = "default") -> int:
    found: int = app.test_client().get("/statistics", query_string={"series": series}).json["count"]
    return found


# -- one call at a time ----------------------------------------------------------------------------------------------


def test_recording_and_asking(app: Flask, clock: FakeClock) -> None:
    """Each method, and its answer is the service's."""
    client = client_of(InProcess(app), clock)
    assert client.record(42.5, series="latency")["message"] == "Event stored successfully"
    told = client.record_many([(datetime(2025, 11, 21, 7, 44, tzinfo=UTC), 1.5), {"value": 4}], series="latency")
    assert told == {"stored": 2, "duplicates": 0, "expired": 0, "rejected": 0, "messages": []}
    assert client.statistics("latency") == {"count": 3, "min": 1.5, "max": 42.5, "mean": 16.0}
    asked = client.statistics("latency", window="5m", stats=["count", "p50"], percentiles=[50, 99.9])
    assert (asked["count"], asked["p50"]) == (3, 4.0)
    assert list(asked["percentiles"]) == ["50", "99.9"]
    assert len(client.timeline("latency", step="1m", window="5m")["steps"]) == 5
    assert client.histogram("latency", edges=[0, 2, 50])["counts"] == [1, 2]
    assert client.statistics(match="lat*", by="series")["groups"][0]["series"] == "latency"
    assert [(each["name"], each["count"]) for each in client.series("lat")] == [("latency", 3)]
    events = list(client.export("latency"))
    assert [event.value for event in events] == [1.5, 42.5, 4.0]
    assert events[0].timestamp == datetime(2025, 11, 21, 7, 44, tzinfo=UTC)


@given(faults=FAULTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_call_that_returns_counted_once(faults: list[Any]) -> None:
    """Whatever the network did; and one that raised says truly whether it may have counted."""
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    client = client_of(InProcess(app, faults), clock)
    raised: Exception | None = None
    try:
        client.record(1.0)
    except (Unavailable, Refused) as error:
        raised = error
    if isinstance(raised, Unavailable):
        assert count(app) <= (raised.outcome == "unknown")
        assert raised.idempotency_key
    elif raised is None:
        assert count(app) == 1
    app.extensions["statsapi"].close()


def test_retries_keep_to_what_is_asked_and_end(app: Flask, clock: FakeClock) -> None:
    """Retry-After is waited for, the key stays the same, and the last error is raised when the time is up."""
    transport = InProcess(app, ["429", "lost"])
    transport.faults += ["502"] * 50
    client = client_of(transport, clock, give_up_after_s=20)
    with pytest.raises(Unavailable, match="answered 502") as caught:
        client.record(1.0, idempotency_key="mine", timestamp=clock() / 1e6)
    assert client._calls._sleep.__self__.slept[0] == 7.0  # type: ignore[attr-defined]
    assert caught.value.outcome == "unknown"  # the second attempt's, though no later one was carried out
    assert {headers["Idempotency-Key"] for *_, headers in transport.requests} == {"mine"}
    transport.faults.clear()
    client.record(1.0, idempotency_key="mine", timestamp=transport_timestamp(transport))
    assert count(app) == 1


def transport_timestamp(transport: InProcess) -> Any:
    return json.loads(transport.requests[0][2] or b"")["timestamp"]


def test_errors_are_the_services_words(app: Flask, clock: FakeClock) -> None:
    """Each kind, with the problem, its code and the fields at fault."""
    client = client_of(InProcess(app), clock)
    with pytest.raises(Refused, match="has two readings") as refused:
        client.record(1.0, "11/12/2026")
    assert (refused.value.status, refused.value.code) == (422, "validation")
    assert refused.value.errors[0]["field"] == "timestamp"
    client.record(1.0, clock() / 1e6, idempotency_key="k")
    with pytest.raises(Conflict, match="was used before"):
        client.record(2.0, clock() / 1e6, idempotency_key="k")
    with pytest.raises(Refused, match="wnidow"):
        client.statistics(wnidow="5m")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="give the timestamp too"):
        client.record(1.0, idempotency_key="k")
    transport = InProcess(app, ["401"])
    with pytest.raises(Unauthorized, match="answered 401: <html>nginx</html>"):
        client_of(transport, clock).record(1.0)
    with pytest.raises(Unavailable, match="without JSON"):
        client_of(InProcess(app, ["html"] * 99), clock).record(1.0)
    assert count(app) == 1


def test_many_are_sent_in_batches_and_can_be_repeated(app: Flask, clock: FakeClock) -> None:
    """An error in the third batch says what was stored; the same call under its key counts nothing twice."""
    events = [{"value": number, "timestamp": clock() / 1e6} for number in range(10)]
    transport = InProcess(app, [None, None, "400"])
    client = client_of(transport, clock)
    with pytest.raises(Refused) as caught:
        client.record_many(iter(events), idempotency_key="file-1", batch_events=4)
    assert "8 events were stored before this" in caught.value.__notes__[0]
    assert client.record_many(events, idempotency_key="file-1", batch_events=4)["stored"] == 10
    assert count(app) == 10
    assert client.record_many([])["stored"] == 0


def test_a_url_and_a_key_that_cannot_be(app: Flask) -> None:
    """Named before anything is sent; a key is not shown."""
    for url in ("127.0.0.1:8000", "ftp://x", "http://", "http://u:p@x/", "http://x/?a=1"):
        with pytest.raises(ValueError, match="URL"):
            Client(url)
    with pytest.raises(ValueError, match="API key"):
        Client("http://x", "se\ncret")
    assert "secret" not in repr(Client("http://x/stats/", "secret"))
    assert Transport("http://x/stats/", None, timeout_s=1, ca_file=None, connections=1).url == "http://x/stats"


def test_an_export_is_paged(app: Flask, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All events once, in order, though a page was lost on its way."""
    monkeypatch.setattr("statsapi.client.questions.PAGE", 7)
    transport = InProcess(app)
    client = client_of(transport, clock)
    client.record_many(
        [{"value": number, "timestamp": clock() / 1e6, "series": "ab"[number % 2]} for number in range(40)]
    )
    transport.faults = [None, "lost", None, "502"]
    values = [event.value for event in client.export()]
    assert values == [*range(0, 40, 2), *range(1, 40, 2)]
    assert [each["name"] for each in client.series()] == ["a", "b"]


# -- timers ----------------------------------------------------------------------------------------------------------


def test_timers(app: Flask, clock: FakeClock) -> None:
    """A block, a function and a coroutine, also those that raise; the block's own error is the one that is seen."""
    transport = InProcess(app)
    client = client_of(transport, clock)
    ticks = iter([0.0, 1.0, 3.5])
    with client.timer("job", clock_s=lambda: next(ticks)) as timer:
        pass
    assert timer.elapsed_s == 2.5

    @client.timed("job")
    def work(number: int) -> int:
        """Its docstring."""
        return number // 0

    @client.timed("job")
    async def waiting() -> str:
        await asyncio.sleep(0)
        return "done"

    with pytest.raises(ZeroDivisionError):
        work(1)
    assert work.__doc__ == "Its docstring."
    assert asyncio.run(waiting()) == "done"
    answer = client.statistics("job", stats="count,max")
    assert answer == {"count": 3, "max": 2.5}

    transport.faults = ["400"]
    with pytest.raises(ZeroDivisionError) as caught:
        work(1)
    assert "the duration was not recorded" in caught.value.__notes__[0]
    transport.faults = ["400"]
    with pytest.raises(Refused), client.timer("job"):
        pass
    with pytest.raises(TypeError, match="generator"):

        @client.timed("job")
        def numbers() -> Any:
            yield 1


# -- in the background -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spooled", [False, True])
@given(faults=FAULTS, sizes=st.lists(st.integers(1, 7), max_size=8))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_event_that_was_taken_counts_once(
    tmp_path_factory: pytest.TempPathFactory, spooled: bool, faults: list[Any], sizes: list[int]
) -> None:
    """Whatever the network did, in their order, and each batch under one key with one body."""
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    transport = InProcess(app, faults)
    spool = tmp_path_factory.mktemp("spool") if spooled else None
    sender = sender_of(transport, clock, batch_events=5, spool=spool, on_problem=lambda problem: None)
    expected: list[int] = []
    for size in sizes:
        values = [len(expected) + at for at in range(size)]
        assert sender.record_many({"value": value} for value in values) == size
        expected += values
        sender.step()
    run(sender, clock)
    bodies: dict[str, set[bytes | None]] = {}
    for _, _, body, headers in transport.requests:
        bodies.setdefault(headers["Idempotency-Key"], set()).add(body)
    assert all(len(each) == 1 for each in bodies.values())
    stored = [event["value"] for event in app.test_client().get("/events").json["events"]]
    assert stored == expected
    stats = sender.stats()
    assert (stats.sent, stats.pending, stats.dropped, stats.refused) == (len(expected), 0, 0, 0)
    sender.close()
    if spool:
        assert list(spool.iterdir()) == []
    app.extensions["statsapi"].close()


def test_batches_go_when_they_are_full_or_have_waited(app: Flask, clock: FakeClock) -> None:
    """A second after the first event, or at once when there are enough; large ones are gzipped."""
    transport = InProcess(app)
    sender = sender_of(transport, clock, batch_events=100, flush_s=1.0)
    assert sender.step() is None
    sender.record(1.0)
    assert sender.step() == 1.0
    clock.advance(600_000)
    sender.record(2.0)
    assert sender.step() == pytest.approx(0.4)
    clock.advance(400_000)
    assert sender.step() == 0.0
    assert count(app) == 2
    sender.record_many({"value": number} for number in range(150))
    assert sender.step() == 0.0
    assert count(app) == 102
    assert [headers.get("Content-Encoding") for *_, headers in transport.requests] == [None, "gzip"]
    assert gzip.decompress(transport.requests[1][2] or b"").count(b"\n") == 100
    sender.flush(0) if sender.stats().pending == 0 else run(sender, clock)
    sender.close()


@pytest.mark.parametrize("spooled", [False, True])
def test_what_it_does_when_full(app: Flask, clock: FakeClock, tmp_path: Path, spooled: bool) -> None:
    """Drops and counts, raises, or waits until there is room: never more than max_events."""
    spool = tmp_path if spooled else None
    problems: list[Problem] = []
    dropping = sender_of(InProcess(app), clock, max_events=2, when_full="drop", on_problem=problems.append, spool=spool)
    assert [dropping.record(value) for value in range(5)] == [True, True, False, False, False]
    assert dropping.stats()[:4] == (2, 0, 2, 3)
    assert [problem.kind for problem in problems] == ["dropped"]
    run(dropping, clock)
    assert dropping.record(5) is True
    run(dropping, clock)
    assert dropping.record_many([{"value": 6}, {"value": 7}, {"value": 8}]) == 2
    assert dropping.record(9) is False
    dropping.step()
    assert dropping.record_many([{"value": 10}]) == 1
    assert dropping.record_many([{"value": 11}, {"value": 12}]) == 1  # there is room for one of the two
    run(dropping, clock)
    dropping.close()
    assert dropping.stats()[:4] == (7, 7, 0, 6)
    assert count(app) == 7

    raising = sender_of(InProcess(app), clock, max_events=2, when_full="raise", spool=spool)
    assert raising.record_many([{"value": 1}, {"value": 2}]) == 2
    with pytest.raises(BufferFull, match="2 events wait"):
        raising.record(3)
    run(raising, clock)
    raising.close()

    blocking = sender_of(InProcess(app), clock, max_events=2, spool=spool)
    done = []
    thread = threading.Thread(target=lambda: done.append(blocking.record_many({"value": 1} for _ in range(5))))
    thread.start()
    while not done:
        blocking.step()
        pending = blocking.stats().pending
        assert pending <= 2
        if pending:  # else the thread has yet to run, and hours would pass
            clock.advance(100_000)
    thread.join()
    run(blocking, clock)
    blocking.close()
    assert count(app) == 7 + 2 + 5


def test_the_service_refuses_some_events(app: Flask, clock: FakeClock, tmp_path: Path) -> None:
    """They are named with the reason, counted, and kept in the spool; all others count."""
    problems: list[Problem] = []
    sender = sender_of(InProcess(app), clock, on_problem=problems.append, spool=tmp_path)
    sender.record(1.0)
    sender.record(2.0, "11/12/2026")
    sender.record(3.0)
    run(sender, clock)
    assert count(app) == 2
    assert (sender.stats().sent, sender.stats().refused) == (2, 1)
    (problem,) = problems
    assert (problem.kind, problem.events) == ("refused", 1)
    assert "has two readings" in problem.message
    assert json.loads(problem.details[0]["event"])["value"] == 2.0
    (kept,) = (tmp_path / "aside").iterdir()
    assert json.loads(kept.read_text())["field"] == "timestamp"
    sender.close()


def test_a_wrong_key_or_path_loses_nothing(app: Flask, clock: FakeClock) -> None:
    """It is told at once and once, and tried until somebody has mended it."""
    problems: list[Problem] = []
    sender = sender_of(InProcess(app, ["401"] * 5), clock, on_problem=problems.append)
    sender.record(1.0)
    run(sender, clock)
    assert count(app) == 1
    assert [problem.kind for problem in problems] == ["unavailable"]
    assert "answered 401" in problems[0].message


def test_an_outage_is_told_after_half_a_minute(app: Flask, clock: FakeClock) -> None:
    """A restart of the service is not worth a word."""
    problems: list[Problem] = []
    transport = InProcess(app, ["refused"] * 5)
    sender = sender_of(transport, clock, on_problem=problems.append)
    sender.record(1.0)
    run(sender, clock)
    assert not problems
    transport.faults = ["refused"] * 20
    sender.record(2.0)
    run(sender, clock)
    assert [problem.kind for problem in problems] == ["unavailable"]
    assert count(app) == 2


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("first", ["lost", "refused"])
def test_an_unknown_outcome_is_not_sent_after_the_key_is_forgotten(
    app: Flask, clock: FakeClock, tmp_path: Path, spooled: bool, first: Any
) -> None:
    """It might count twice: it is told and put aside. What surely was not recorded is sent however late."""
    problems: list[Problem] = []
    spool = tmp_path if spooled else None
    transport = InProcess(app, [first, "refused"])
    sender = sender_of(transport, clock, on_problem=problems.append, key_lifetime_s=3600, spool=spool)
    sender.record(1.0, clock() / 1e6 + 7200)
    clock.advance(1_000_000)
    assert sender.step() == 0.0
    if spooled:  # another process goes on
        sender._backlog.box.close()
        sender = sender_of(transport, clock, on_problem=problems.append, key_lifetime_s=3600, spool=spool)
    clock.advance(60_000_000)
    assert sender.step() == 0.0
    clock.advance(3_600_000_000)
    assert sender.step() == 0.0
    assert count(app) == 1
    assert [problem.kind for problem in problems if problem.kind != "unavailable"] == ["unsure"] * (first == "lost")
    assert (sender.stats().unsure, sender.stats().pending) == (int(first == "lost"), 0)
    if spooled:
        assert len(list(tmp_path.glob("aside/*.events"))) == (first == "lost")


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("failure", ["refused", "401", "500", "lost"])
def test_a_half_that_was_recorded_is_not_forgotten(
    app: Flask, clock: FakeClock, tmp_path: Path, spooled: bool, failure: Any
) -> None:
    """A batch goes in halves; the first is recorded, the second is not. Longer than the key is remembered nothing of it
    is sent again, as the first half would count twice: that is told.
    """
    problems: list[Problem] = []
    transport = InProcess(app, ["413", None, failure])
    spool = tmp_path if spooled else None
    sender = sender_of(transport, clock, on_problem=problems.append, key_lifetime_s=3600, spool=spool)
    for value in range(4):
        sender.record(value, clock() / 1e6 + 7200)
    clock.advance(1_000_000)
    sender.step()
    recorded = count(app)
    assert recorded == (4 if failure == "lost" else 2)
    clock.advance(3_700_000_000)
    run(sender, clock)
    assert count(app) == recorded
    assert problems[-1].kind == "unsure"


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("faults", [["lost", "413"], ["413", "lost", "413"], ["413", None, "lost", None, "413"]])
def test_what_may_have_been_recorded_is_not_halved(
    app: Flask, clock: FakeClock, tmp_path: Path, spooled: bool, faults: Any
) -> None:
    """A piece whose outcome is unknown, and which has become too large since, is told and set aside: its halves would
    have keys of their own and count twice. The batches behind it go on.
    """
    problems: list[Problem] = []
    transport = InProcess(app, faults)
    sender = sender_of(transport, clock, on_problem=problems.append, spool=tmp_path if spooled else None)
    for value in range(4):
        sender.record(value)
    clock.advance(2_000_000)
    sender.step()
    once = count(app)
    sender.record(9)
    run(sender, clock, 20)
    assert count(app) == once + 1
    assert [problem.kind for problem in problems] == ["unsure"]
    assert problems[0].events == 4


def test_a_batch_that_is_too_large_goes_in_halves(app: Flask, clock: FakeClock) -> None:
    """Each under a key of its own; a single event that is too large is refused by name."""
    transport = InProcess(app, ["413", "413", None, None, "413", "413"])
    problems: list[Problem] = []
    sender = sender_of(transport, clock, on_problem=problems.append)
    for value in range(4):
        sender.record(value)
    clock.advance(2_000_000)
    run(sender, clock)
    assert count(app) == 3
    keys = [headers["Idempotency-Key"] for *_, headers in transport.requests]
    assert len(set(keys)) == len(keys) == 7
    assert [(problem.kind, problem.events) for problem in problems] == [("refused", 1)]


def test_without_a_callback_problems_are_warnings(
    app: Flask, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a warning is an error, or the callback fails, the message goes to stderr and events go on."""
    sender = sender_of(InProcess(app, ["401"]), clock)
    sender.record(1.0)
    clock.advance(1_000_000)
    with pytest.warns(StatsapiWarning, match="1 events wait for the service"):
        sender._reporter.tell("unavailable", 1, "1 events wait for the service")
    sender.step()  # warnings are errors here
    assert "answered 401" in capsys.readouterr().err
    run(sender, clock)
    assert count(app) == 1


def test_a_fault_of_ours_ends_no_thread(app: Flask, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised, the batch is there for the next attempt."""
    problems: list[Problem] = []
    transport = InProcess(app)
    sender = sender_of(transport, clock, on_problem=problems.append)
    sender.record(1.0)
    clock.advance(1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(transport, "send", lambda *args: 1 // 0)
        sender.step()
    assert "ZeroDivisionError" in problems[0].message
    run(sender, clock)
    assert count(app) == 1


def test_closing(app: Flask, clock: FakeClock, tmp_path: Path) -> None:
    """close() sends the pending events, reports how many it cannot send, and a spool keeps them for the next start."""
    sender = client_of(InProcess(app), clock).buffered(flush_s=1000)
    sender.record(1.0)
    sender.close()
    sender.close()
    assert count(app) == 1
    with pytest.raises(Closed):
        sender.record(2.0)

    sender = sender_of(InProcess(app, ["refused"] * 99), clock)
    sender.record(3.0)
    with pytest.raises(Undelivered, match="they are lost") as caught:
        sender.flush(0)
    assert (caught.value.events, caught.value.kept) == (1, False)
    with pytest.raises(Undelivered, match="1 events were not acknowledged"):
        sender.close()

    sender = sender_of(InProcess(app, ["refused"] * 99), clock, spool=tmp_path)
    sender.record(4.0)
    with pytest.raises(Undelivered, match="they are kept"):
        sender.flush(0)
    sender.close()
    with client_of(InProcess(app), clock).buffered(spool=tmp_path) as sender:
        sender.flush(30)
        assert sender.stats().sent == 1
    assert count(app) == 2


def test_options_that_cannot_be(app: Flask, clock: FakeClock, tmp_path: Path) -> None:
    """Named when the sender is made."""
    with pytest.raises(ValueError, match="when_full"):
        sender_of(InProcess(app), clock, when_full="wait")
    with pytest.raises(ValueError, match="at least 1"):
        sender_of(InProcess(app), clock, max_events=0)
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot be used"):
        sender_of(InProcess(app), clock, spool=tmp_path / "file")


def test_tags_other_questions_and_files(app: Flask, clock: FakeClock, tmp_path: Path) -> None:
    """Keys and values of tags page by page, an endpoint without a method, and a file that can be recorded again."""
    client = client_of(InProcess(app), clock)
    client.record_many([{"value": 1, "tags": {"host": host, "os": "x"}} for host in ("a", "b")], series="cpu")
    assert list(client.tags()) == [{"key": "host", "series": 2}, {"key": "os", "series": 2}]
    assert list(client.tags("host", match="*=b*")) == [{"value": "b", "series": 1}]
    assert client.ask("/healthz") == {"status": "ok"}
    with pytest.raises(Unavailable, match="strange answer to GET /healthz"):
        client._calls.ask("/healthz", {}, "series")
    with Client("http://x") as closing:
        assert repr(closing) == "Client('http://x')"


def test_what_other_servers_say() -> None:
    """A redirect names the URL to use, a page is cut, and Retry-After may be a date or nonsense."""
    moved = refusal("http://x", 301, {"Location": "https://x/"}, b"")
    assert str(moved) == "http://x redirects to https://x/; give the client that URL"
    assert "answered 500: nothing" in str(refusal("http://x", 500, {}, b""))
    long = refusal("http://x", 500, {}, b"<p>" + b"a" * 5000)
    assert len(str(long)) < 400
    for text, expected in (("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None), ("", None), ("3", 3.0)):
        refused = refusal("http://x", 503, {"Retry-After": text}, b"")
        assert isinstance(refused, Unavailable)
        assert refused.retry_after_s == expected


def test_options_of_a_sender_that_cannot_be(app: Flask) -> None:
    """Named before a thread runs."""
    client = Client("http://x")
    for options in ({"when_full": "burst"}, {"max_events": 0}, {"batch_events": 0}, {"flush_s": -1}):
        with pytest.raises(ValueError, match="|".join(options)):
            client.buffered(**options)


@pytest.mark.parametrize("error", [None, KeyError("k")])
def test_a_sender_that_cannot_deliver_says_so_at_its_end(app: Flask, clock: FakeClock, error: Exception | None) -> None:
    """At the end of a block, unless that has an error of its own, which then has a note."""
    sender = sender_of(InProcess(app, ["refused"] * 9), clock)

    def work() -> None:
        with sender:
            sender.record(1.0)
            with pytest.raises(Undelivered, match="1 events were not acknowledged in time"):
                sender.flush(0)
            if error is not None:
                raise error

    with pytest.raises(Undelivered if error is None else KeyError) as caught:
        work()
    if error is not None:
        assert "1 events were not acknowledged in time, they are lost" in caught.value.__notes__[0]
    with pytest.raises(Closed):
        sender.record(2.0)


@pytest.mark.slow
def test_an_exporting_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """A stream that breaks off leaves the file that was there, and nothing beside it."""
    bodies = [b"timestamp,value,series\n" * 3, b"timestamp"]

    class Half(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Content-Length", str(len(body) if bodies else 1000))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    target = tmp_path / "events.csv"
    with HTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        client = Client(f"http://127.0.0.1:{server.server_address[1]}", give_up_after_s=0)
        assert client.export_to(target) == 69
        with pytest.raises(Unavailable, match="the export broke off after"):
            client.export_to(target)
        server.shutdown()
        thread.join()
    assert target.read_bytes() == b"timestamp,value,series\n" * 3
    assert list(tmp_path.iterdir()) == [target]


def test_frames_without_pandas_say_what_to_install(
    app: Flask, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways; what needs none works."""
    client = client_of(InProcess(app), clock)
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "statsapi.client.frames", raising=False)
    monkeypatch.delattr("statsapi.client.frames", raising=False)
    for ask in (lambda: client.statistics(as_frame=True), lambda: client.record_frame([])):
        with pytest.raises(ImportError, match="pip install pandas"):
            ask()
    assert client.statistics()["count"] == 0
