"""Several workers, one truth: real Gunicorn on a real journal, read after write and killed in the act."""

from __future__ import annotations

import http.client
import os
import random
import re
import signal
import threading
from functools import partial
from itertools import count
from pathlib import Path

from statsapi.machine import default_max_events
from tests.servers import Server, gunicorn_server, now, start_gunicorn, stop, wait_until


def test_read_your_writes_across_four_workers(tmp_path: Path) -> None:
    """Ten thousand alternating POST and GET, each on a fresh connection to any of 4 workers: no GET misses a POST."""
    pairs, clients = 1250, 4
    missed: list[str] = []

    def alternate(server: Server, series: str) -> None:
        for posted in range(1, pairs + 1):
            status, _ = server.request("POST", "/event", {"timestamp": now(), "value": posted, "series": series})
            answered, body = server.request("GET", f"/statistics?series={series}")
            if (status, answered, body["count"], body["max"]) != (200, 200, posted, posted):
                missed.append(f"{series} after {posted}: {status} {answered} {body}")
                return

    with gunicorn_server(tmp_path, workers=4) as server:
        threads = [threading.Thread(target=alternate, args=(server, f"s{i}")) for i in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert missed == []


def stored_values(server: Server) -> list[float]:
    with server.connect() as sock:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = sock
        connection.request("GET", "/events?format=csv")
        rows = connection.getresponse().read().decode().splitlines()
    return [float(row.split(",")[1]) for row in rows[1:]]


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Ten times all processes are killed under load: every acknowledged event is there afterwards, none twice."""
    numbers = count()
    sent: set[float] = set()
    acknowledged: set[float] = set()
    rounds = random.Random(7)

    def post(server: Server, stop_posting: threading.Event) -> None:
        try:
            with server.client() as client:
                while not stop_posting.is_set():
                    value = float(next(numbers))
                    sent.add(value)
                    if client.request("POST", "/event", {"timestamp": now(), "value": value})[0] == 200:
                        acknowledged.add(value)
        except (OSError, http.client.HTTPException):
            pass  # killed: what was under way is not acknowledged

    def has_reached(enough: int) -> bool:
        return len(acknowledged) >= enough

    for _ in range(10):
        already = len(acknowledged)
        with gunicorn_server(tmp_path, workers=2) as server:
            stored = stored_values(server)
            assert len(stored) == len(set(stored))
            assert acknowledged <= set(stored) <= sent
            stop_posting = threading.Event()
            threads = [threading.Thread(target=post, args=(server, stop_posting)) for _ in range(6)]
            for thread in threads:
                thread.start()
            some = already + rounds.randrange(20, 300)
            wait_until(partial(has_reached, some), "some acknowledged events")
            os.killpg(server.process.pid, signal.SIGKILL)
            stop_posting.set()
            for thread in threads:
                thread.join()
    with gunicorn_server(tmp_path, workers=2) as server:
        stored = stored_values(server)
        assert len(stored) == len(set(stored))
        assert acknowledged <= set(stored) <= sent
        assert server.request("GET", "/statistics")[1]["count"] == len(stored)


def test_term_flushes_and_a_new_server_answers_the_same(tmp_path: Path) -> None:
    """After SIGTERM and a start, the answers are those of before."""
    with gunicorn_server(tmp_path, workers=2) as server:
        for value in (0.1, 0.2, 1e16, -1e16):
            server.request("POST", "/event", {"timestamp": now(), "value": value})
        before = server.request("GET", "/statistics")[1]
    with gunicorn_server(tmp_path, workers=3) as server:
        assert server.request("GET", "/statistics")[1] == before


def test_a_limit_is_shared_by_the_workers(tmp_path: Path) -> None:
    """STATSAPI_MAX_EVENTS: room that one worker has used is used for all; all go on answering. Unset, the machine's
    memory sets it, divided by the workers, and the log says so once.
    """
    with gunicorn_server(tmp_path / "set", workers=2, env={"STATSAPI_MAX_EVENTS": "25"}) as server:
        statuses = [server.request("POST", "/event", {"timestamp": now(), "value": value})[0] for value in range(40)]
        assert statuses == [200] * 25 + [507] * 15
        for _ in range(8):
            assert server.request("GET", "/statistics")[1]["count"] == 25
    with gunicorn_server(tmp_path / "unset", workers=2) as server:
        server.wait_for_journals(2)
        assert server.log.count("raw events are held") == 1
        assert f"At most {default_max_events(2):,} raw events are held" in server.log


def test_what_the_journal_promises_is_said_at_start(tmp_path: Path) -> None:
    """The log tells what an acknowledgement survives, above all that memory:// promises nothing: once, by the arbiter,
    and each line of a start begins as Gunicorn's own do.
    """
    for url, workers, said in (
        ("memory://", 1, "The journal is in memory: everything is lost when the process ends"),
        (f"sqlite:///{tmp_path}/events.db", 2, "what is acknowledged survives the end of every process"),
    ):
        server = start_gunicorn(tmp_path, workers=workers, env={"STATSAPI_JOURNAL": url})
        try:
            server.wait_for_journals(workers)
            assert server.log.count(said) == server.log.count("The journal is ") == 1
            messages = re.findall(r"\[INFO\] (.*)", server.log)
            assert len(messages) > workers
            assert not [message for message in messages if not message[0].isupper()]
        finally:
            stop(server)
