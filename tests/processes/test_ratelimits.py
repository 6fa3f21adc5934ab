"""Rate limits of real servers: exact over workers and machines, and never a reason to fail when Redis does."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from statsapi.api.ratelimits import REDIS_TIMEOUT_S
from statsapi.app import create_app
from statsapi.config import Settings
from tests.fakes import FakeClock
from tests.programs import redis_binary
from tests.servers import ROOT, RedisServer, Server, gunicorn_server, redis_server, wait_until


def test_the_limit_is_the_limit_on_four_workers(tmp_path: Path) -> None:
    """Of 240 requests at once on four workers exactly the 100 of STATSAPI_RATE_LIMIT=100/minute are answered."""
    statuses: Counter[int] = Counter()
    with gunicorn_server(tmp_path, workers=4, env={"STATSAPI_RATE_LIMIT": "100/minute"}) as server:
        # That the server answers was asked until it did: those were counted too.
        already = 100 - int(rate_limit_of(server.target)["r"]) - 1

        def ask() -> None:
            for _ in range(30):
                with server.client() as client:
                    statuses[client.request("GET", "/statistics")[0]] += 1

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == {200: 100 - already - 1, 429: 240 - (100 - already - 1)}
    assert already < 50


def rate_limit_of(target: str) -> dict[str, str]:
    connection = http.client.HTTPConnection(target.removeprefix("http://"))
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    connection.close()
    return dict(part.split("=") for part in response.headers["RateLimit"].split(";")[1:])


def test_off_by_default(clock: FakeClock) -> None:
    """Without the setting nothing is counted, no header is added, and no library for it is loaded."""
    client = create_app(Settings(journal="memory://"), clock_us=clock, background=False).test_client()
    assert "RateLimit" not in client.get("/").headers
    unwanted = {"flask_limiter", "limits", "redis", "statsapi.api.ratelimits"}
    code = f"import sys, wsgi; print(sorted({unwanted} & sys.modules.keys()))"
    env = {**os.environ, "STATSAPI_JOURNAL": "memory://", "STATSAPI_RATE_LIMIT": ""}
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env, text=True) == "[]\n"


def test_where_redis_keeps_the_journal_it_counts_as_well(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Unless told otherwise: two services on one stream count together, one on another stream by itself."""
    redis.send("CONFIG", "SET", "appendonly", "yes")  # or the journal warns
    asked = []
    for stream in ("a", "a", "b"):
        settings = Settings(journal=redis.journal_url(stream), rate_limit="3/minute")
        app = create_app(settings, background=False)
        asked.append([app.test_client().get("/series").status_code for _ in range(2)])
        app.extensions["statsapi"].close()
    assert asked == [[200, 200], [200, 429], [200, 200]]
    assert redis.send("KEYS", "{a}:limits:*").startswith("*1")
    assert caplog.text == ""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    socket_path = tmp_path / "redis.sock"
    with redis_server(redis_binary(), tmp_path / "redis", appendonly="no", unixsocket=socket_path) as server:
        yield server


def asked_at_once(servers: list[Server], each: int) -> tuple[Counter[int], float]:
    """What `each` requests by four clients of each server were answered, and the longest of them in seconds."""
    statuses: Counter[int] = Counter()
    longest_s = 0.0
    lock = threading.Lock()

    def ask(server: Server) -> None:
        nonlocal longest_s
        with server.client() as client:
            for _ in range(each):
                began_s = time.monotonic()
                status, _ = client.request("GET", "/series")
                with lock:
                    statuses[status] += 1
                    longest_s = max(longest_s, time.monotonic() - began_s)

    threads = [threading.Thread(target=ask, args=(server,)) for server in servers for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses, longest_s


def test_the_limit_is_the_limit_on_two_machines(tmp_path: Path, redis: RedisServer) -> None:
    """Two services of two workers each, with journals of their own, let exactly 100 of 400 requests pass."""
    env = {"STATSAPI_RATE_LIMIT": "100/minute", "STATSAPI_RATE_LIMIT_STORAGE": redis.url}
    with ExitStack() as stack:
        servers = [stack.enter_context(gunicorn_server(tmp_path / name, workers=2, env=env)) for name in "ab"]
        for server in servers:
            server.wait_for_journals(2)
        redis.send("FLUSHALL")  # that the servers answer was asked until they did
        assert asked_at_once(servers, 50)[0] == {200: 100, 429: 300}
        commands = redis.send("INFO", "commandstats")
    assert sum(map(int, re.findall(r"cmdstat_(?:evalsha|ttl|get|ping):calls=(\d+)", commands))) <= 2 * 402 + 10, (
        commands
    )


@pytest.mark.parametrize("gone", ["killed", "paused"])
def test_redis_that_is_away_holds_nobody_up(tmp_path: Path, redis: RedisServer, gone: str) -> None:
    """Requests pass, none waits for long, it is said once a worker; when Redis is back they are limited again."""
    env = {"STATSAPI_RATE_LIMIT": "20/minute", "STATSAPI_RATE_LIMIT_STORAGE": redis.url}
    with gunicorn_server(tmp_path / "a", workers=2, env=env) as server:
        server.wait_for_journals(2)
        redis.send("FLUSHALL")
        assert asked_at_once([server], 10)[0] == {200: 20, 429: 20}
        stop_asking = threading.Event()
        found: list[tuple[Counter[int], float]] = []

        def ask() -> None:
            while not stop_asking.is_set():
                found.append(asked_at_once([server], 5))

        asking = threading.Thread(target=ask)
        asking.start()
        if gone == "killed":
            redis.kill()
        else:
            redis.signal(signal.SIGSTOP)
        server.wait_until(lambda: server.log.count("Requests are not limited while") == 2, "both workers to say so")
        already = len(found)
        wait_until(lambda: len(found) > already + 20, "requests meanwhile")
        if gone == "killed":
            redis.start()
        else:
            redis.signal(signal.SIGCONT)
        server.wait_until(lambda: server.log.count("Requests can be counted again") == 2, "both workers to say so")
        stop_asking.set()
        asking.join()
        statuses, _ = asked_at_once([server], 10)  # a Redis that was killed counts from zero
        assert statuses[200] <= 20
        assert statuses[429] == 40 - statuses[200]
        assert set().union(*(statuses for statuses, _ in found)) <= {200, 429}  # no 500, and no connection that broke
        assert sum(statuses[200] for statuses, _ in found) > 300
        # Of a paused Redis the client's own default would wait for 5 s; a busy machine is not Redis' fault.
        assert max(longest_s for _, longest_s in found) < 5 * REDIS_TIMEOUT_S
    assert server.log.count("Requests are not limited while") == 2
    assert "Traceback" not in server.log


def test_redis_that_is_not_there_at_start(tmp_path: Path, redis: RedisServer) -> None:
    """The service starts and answers, and limits as soon as Redis is there; a Unix socket will do as well."""
    redis.kill()
    env = {
        "STATSAPI_RATE_LIMIT": "5/minute",
        "STATSAPI_RATE_LIMIT_STORAGE": f"redis+unix://{tmp_path}/redis.sock",
    }
    with gunicorn_server(tmp_path / "a", workers=1, env=env) as server:
        assert [server.request("GET", "/series")[0] for _ in range(9)] == [200] * 9
        redis.start()
        server.wait_until(lambda: server.request("GET", "/series")[0] == 429, "the limit")
