"""statsapi.client against real servers that are killed, a real nginx whose connections break, and clients that die."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from statsapi.client import Client, Problem
from tests.programs import nginx_with
from tests.servers import ROOT, Server, free_port, start_gunicorn, stop, wait_until

SITE = """
server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_next_upstream off; proxy_read_timeout 5s; }}
}}
"""


@contextmanager
def service(directory: Path, port: int) -> Iterator[list[Server]]:
    """The running server is the list's only member; `killed_and_started_again` puts another there."""
    servers = [start_gunicorn(directory, bind=f"127.0.0.1:{port}")]
    try:
        servers[0].wait_for_journals(2)
        yield servers
    finally:
        stop(servers[0])


def killed_and_started_again(servers: list[Server], directory: Path, port: int) -> None:
    """SIGKILL to all its processes, in the middle of whatever they do."""
    os.killpg(servers[0].process.pid, signal.SIGKILL)
    servers[0].process.wait()
    servers[0] = start_gunicorn(directory, bind=f"127.0.0.1:{port}")
    servers[0].wait_for_journals(2)


def kill_workers_of_nginx(directory: Path) -> None:
    """All connections through it break; its master starts others."""
    master = (directory / "nginx.pid").read_text().strip()
    for worker in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)


def recorded(server: Server) -> Counter[float]:
    """How often each value counts."""
    with Client(server.target) as client:
        return Counter(event.value for event in client.export())


def test_ten_streams_count_exactly_through_kills_and_broken_connections(tmp_path: Path) -> None:
    """The service is killed and started again five times, and nginx's connections break all the while: each event that
    was taken counts once.
    """
    port, upstream = free_port(), free_port()
    told: list[Problem] = []
    done = threading.Event()
    taken: list[float] = []

    def stream(first: int) -> None:
        with Client(f"http://127.0.0.1:{port}", timeout_s=5).buffered(
            flush_s=0.02, batch_events=20, on_problem=told.append
        ) as sender:
            number = first
            while not done.is_set():
                assert sender.record(number)
                number += 1
                time.sleep(0.001)
            sender.flush(60)
            taken.extend(range(first, number))

    with (
        service(tmp_path / "app", upstream) as servers,
        nginx_with(tmp_path, SITE.format(port=port, upstream=upstream), port),
    ):
        threads = [threading.Thread(target=stream, args=(1_000_000 * each,)) for each in range(10)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                before = sum(recorded(servers[0]).values())
                wait_until(lambda: sum(recorded(servers[0]).values()) > before + 200, "more events")  # noqa: B023
                kill_workers_of_nginx(tmp_path)
                killed_and_started_again(servers, tmp_path / "app", upstream)
                kill_workers_of_nginx(tmp_path)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert len(taken) > 1000
        assert recorded(servers[0]) == Counter(taken)
        assert [problem for problem in told if problem.kind != "unavailable"] == []


def test_what_a_killed_client_had_taken_counts_once(tmp_path: Path) -> None:
    """With a spool: the client is killed five times, the service once. Every event for which record() had returned is
    there exactly once; of the others at most those that were just being recorded.
    """
    port, spool = free_port(), tmp_path / "spool"
    acknowledged = tmp_path / "acknowledged"
    numbers: list[int] = []
    with service(tmp_path / "app", port) as servers:
        for life in range(5):
            command = [sys.executable, "-m", "tests.streaming_client", f"http://127.0.0.1:{port}", str(spool)]
            first = 1_000_000 * (life + 1)
            client = subprocess.Popen([*command, str(first), str(acknowledged)], cwd=ROOT)
            try:
                wait_until(lambda: acknowledged.exists() and f"{first + 150}\n" in acknowledged.read_text(), "events")  # noqa: B023
            finally:
                client.kill()
                client.wait()
            if life == 2:
                killed_and_started_again(servers, tmp_path / "app", port)
        numbers = [int(line) for line in acknowledged.read_text().split()]
        with Client(f"http://127.0.0.1:{port}").buffered(spool=spool) as sender:
            sender.flush(60)
        found = recorded(servers[0])
        assert set(found.values()) == {1}
        unfinished = set(found) - set(numbers)
        assert set(numbers) <= set(found)
        assert len(unfinished) <= 5  # one a life: on disk, and killed before record() returned
    assert [path.name for path in spool.iterdir()] == []


FORKING = """
import os, sys
from statsapi.client import Client
sender = Client(sys.argv[1]).buffered(flush_s=0.05, spool=sys.argv[2] or None)
for number in range(100):
    sender.record(number)
if os.fork() == 0:
    for number in range(1000, 1100):
        sender.record(number)
    sender.close()
    os._exit(0)
for number in range(2000, 2100):
    sender.record(number)
assert os.wait()[1] == 0
# No close: it happens at the end of the process.
"""


@pytest.mark.parametrize("spooled", [False, True])
def test_a_fork_and_the_end_of_a_process(tmp_path: Path, spooled: bool) -> None:
    """Parent and child both record, what was taken before the fork is the parent's, and nobody calls close()."""
    port = free_port()
    with service(tmp_path / "app", port) as servers:
        spool = str(tmp_path / "spool") if spooled else ""
        command = [sys.executable, "-c", FORKING, f"http://127.0.0.1:{port}", spool]
        assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 0
        assert recorded(servers[0]) == Counter([*range(100), *range(1000, 1100), *range(2000, 2100)])


class _Busy(http.server.BaseHTTPRequestHandler):
    """Answers 429 and 503 with Retry-After: 1, then 200."""

    statuses: ClassVar[list[int]] = []
    at_s: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.at_s.append(time.monotonic())
        status = self.statuses.pop(0) if self.statuses else 200
        body = json.dumps({"status": "success", "stored": 1, "duplicates": 0, "expired": 0, "rejected": 0}).encode()
        self.send_response(status)
        if status != 200:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize("buffered", [False, True])
def test_retry_after_is_obeyed(buffered: bool) -> None:
    """Nothing is sent again before the time that the service asked for has passed."""
    _Busy.statuses, _Busy.at_s = [429, 503], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            client = Client(f"http://127.0.0.1:{server.server_address[1]}")
            if buffered:
                with client.buffered(flush_s=0) as sender:
                    sender.record(1.0)
                    sender.flush(30)
            else:
                assert client.record_many([{"value": 1}])["stored"] == 1
        finally:
            server.shutdown()
    first, second, third = _Busy.at_s
    assert second - first >= 1
    assert third - second >= 1
