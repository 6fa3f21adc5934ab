"""Workers that share sealed events: real processes on one journal, reloaded, killed and started again."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.servers import Server, gunicorn_server

BATCH = 100_000


def record(server: Server, batches: int, first: int = 0) -> None:
    """Batches of different values, some of each late."""
    start_us = time.time_ns() // 1000 - 600_000_000
    for number in range(first, first + batches):
        places = range(number * BATCH, (number + 1) * BATCH)
        status, _ = server.request(
            "POST",
            "/events",
            {
                "timestamp": [start_us + 100 * place - (50_000_000 if place % 97 == 0 else 0) for place in places],
                "value": [place / 7 for place in places],
            },
        )
        assert status == 200


def sharing(server: Server, count: int) -> set[int]:
    """The workers that map shared events, once there are `count` of them."""

    def mapping() -> set[int]:
        found = set()
        for pid in server.workers():
            with suppress(OSError):
                if ".part" in Path(f"/proc/{pid}/maps").read_text():
                    found.add(pid)
        return found if len(found) == count else set()

    found: set[int] = server.wait_until(mapping, f"{count} workers that map shared events")
    return found


def replaced(server: Server, before: set[int]) -> set[int]:
    """Two workers, none of which was among those before."""

    def now() -> set[int]:
        found = server.workers()
        return found if len(found) == 2 and not found & before else set()

    found: set[int] = server.wait_until(now, "other workers")
    return found


def answers(server: Server) -> set[str]:
    """The answers of the workers, each asked several times on its own connections; equal ones are one."""
    return {str(server.request("GET", "/statistics?percentiles=1,50,99&end=2100-01-01")[1]) for _ in range(12)}


def test_workers_that_share_answer_as_those_that_do_not(tmp_path: Path) -> None:
    """Sharing, a reload, the death of the one that writes and of all, and a start: the answer is that of a server that
    shares nothing. Switched off, there are no files.
    """
    with gunicorn_server(tmp_path, workers=2) as server:
        record(server, 4)
        first = sharing(server, 2)
        (said,) = answers(server)
        server.signal(signal.SIGHUP)
        second = replaced(server, first)
        assert sharing(server, 2) == second
        assert answers(server) == {said}
        for pid in second:  # one of them leads
            os.kill(pid, signal.SIGKILL)
            replaced(server, {pid})
            assert answers(server) == {said}
        record(server, 4, first=4)
        sharing(server, 2)
        (said,) = answers(server)
        os.killpg(server.process.pid, signal.SIGKILL)
    with gunicorn_server(tmp_path, workers=2) as server:
        sharing(server, 2)
        assert answers(server) == {said}
    with gunicorn_server(tmp_path, workers=2, env={"STATSAPI_SHARE_EVENTS": "off"}) as server:
        assert answers(server) == {said}
        assert ".part" not in "".join(Path(f"/proc/{pid}/maps").read_text() for pid in server.workers())


def test_little_is_not_shared(tmp_path: Path) -> None:
    """A journal of some batches has no folder beside it."""
    with gunicorn_server(tmp_path, workers=2) as server:
        record(server, 1)
        answers(server)
        assert not (tmp_path / "events.db-views").exists()
