"""What an operator meets: backups, restores and full disks, with real Gunicorn."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from statsapi.journal.sqlite import SqliteJournal
from tests.servers import ROOT, Server, gunicorn_server, now, post, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def statsapi(*arguments: str | Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`python -m statsapi …`, as an operator runs it beside the service."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATSAPI_")}
    command = [sys.executable, "-m", "statsapi", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={**inherited, **env}, capture_output=True, text=True, timeout=60)


def statistics_of_each_worker(server: Server, workers: int) -> list[Any]:
    """GET /statistics on connections held open together: the board gives each worker its share of them."""
    clients = [server.client() for _ in range(4 * workers)]
    try:
        return [client.request("GET", "/statistics") for client in clients]
    finally:
        for client in clients:
            client.close()


# Backup and restore


def test_backup_and_restore_while_running(tmp_path: Path) -> None:
    """Events posted after a backup are gone once it is restored; every worker reports it, and writes go on."""
    workers = 3
    journal, backup = tmp_path / "events.db", tmp_path / "backup.db"
    env = {"STATSAPI_JOURNAL": f"sqlite:///{journal}"}
    with gunicorn_server(tmp_path, workers=workers, env=env) as server:
        server.wait_for_journals(workers)
        for value in range(10):
            assert post(server, value)[0] == 200
        done = statsapi("journal", "backup", backup, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        for value in range(90):
            assert post(server, 1000 + value)[0] == 200
        pids = server.workers()
        assert {body["count"] for _, body in statistics_of_each_worker(server, workers)} == {100}

        os.replace(backup, journal)
        restored = {"count": 10, "min": 0, "max": 9, "mean": 4.5}
        assert statistics_of_each_worker(server, workers) == [(200, restored)] * 4 * workers
        for value in range(10, 30):
            assert post(server, value)[0] == 200
        answers = statistics_of_each_worker(server, workers)
        assert answers == [(200, {"count": 30, "min": 0, "max": 29, "mean": 14.5})] * 4 * workers
        assert server.workers() == pids
        assert "Traceback" not in server.log
    with gunicorn_server(tmp_path, workers=2, env=env) as server:
        assert server.request("GET", "/statistics")[1]["count"] == 30


def test_a_server_that_has_stopped_leaves_one_file(tmp_path: Path) -> None:
    """No -wal is left that would be played into a restored file, not even when no worker could close the journal."""
    folder = tmp_path / "data"
    env = {"STATSAPI_JOURNAL": f"sqlite:///{folder}/events.db"}
    # Where Gunicorn hears of SIGTERM and the workers' end in one go, it forgets the latter and waits out this time.
    with gunicorn_server(tmp_path, workers=2, env=env, args=["--graceful-timeout", "3"]) as server:
        server.wait_for_journals(2)
        assert post(server, 42.5)[0] == 200
        server.signal(signal.SIGSTOP)  # the arbiter hears of both at once, and starts no other worker
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        server.signal(signal.SIGTERM)
        assert (folder / "events.db-wal").exists()
        server.signal(signal.SIGCONT)
        server.process.wait(30)
        assert sorted(path.name for path in folder.iterdir()) == ["events.db", "events.db-mark"]
    with gunicorn_server(tmp_path, workers=2, env=env) as server:
        assert server.request("GET", "/statistics")[1]["max"] == 42.5


def test_restore_into_a_fresh_place(tmp_path: Path) -> None:
    """A backup put where there was nothing is what the service starts with."""
    env = {"STATSAPI_JOURNAL": f"sqlite:///{tmp_path}/events.db"}
    with gunicorn_server(tmp_path, workers=1, env=env) as server:
        assert post(server, 42.5)[0] == 200
        assert statsapi("journal", "backup", tmp_path / "backup.db", env=env).returncode == 0
    (tmp_path / "elsewhere").mkdir()
    os.replace(tmp_path / "backup.db", tmp_path / "elsewhere" / "events.db")
    with gunicorn_server(tmp_path / "elsewhere", workers=1) as server:
        assert server.request("GET", "/statistics")[1]["max"] == 42.5


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    """One line and a status for each: nothing to copy, no place for it, a wrong command line, wrong settings."""
    url = f"sqlite:///{tmp_path}/events.db"
    memory, sqlite, wrong = ({"STATSAPI_JOURNAL": name} for name in ("memory://", url, "kafka://x"))
    existing = tmp_path / "existing.db"
    existing.touch()
    SqliteJournal(str(tmp_path / "events.db")).close()
    for arguments, env, status, said in (
        (("journal", "backup", tmp_path / "b"), memory, 78, "memory:// lives in the service's own process"),
        (("journal", "salvage", "memory"), memory, 78, "memory:// lives in the service's own process"),
        (("journal", "backup", tmp_path / "b"), wrong, 78, "no journal engine for 'kafka'"),
        (("journal", "backup", tmp_path / "b"), {"STATSAPI_JOURNAL": url + "x"}, 78, "there is no journal at"),
        (("journal", "info"), {"STATSAPI_WINDOW": "soon", **sqlite}, 78, "STATSAPI_WINDOW='soon'"),
        (("journal", "backup", existing), sqlite, 1, "is there already"),
        (("journal", "backup", tmp_path / "no" / "b"), sqlite, 1, "cannot be written: No such file or directory"),
    ):
        done = statsapi(*arguments, env=env)
        assert (done.returncode, done.stdout) == (status, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert statsapi("journal", env=sqlite).returncode == 2
    assert statsapi("journal", "backup", "--force", existing, env=sqlite).returncode == 0
    done = statsapi("journal", "info", env=sqlite)
    assert done.returncode == 0
    assert f"journal:        {tmp_path}/events.db\n" in done.stdout
    assert not list(tmp_path.glob("*.partial"))


def test_a_reader_that_has_enough_ends_a_command_in_silence(tmp_path: Path) -> None:
    """As in `statsapi journal info | head -1`: no traceback, and the status of a program that SIGPIPE ended."""
    path = tmp_path / "events.db"
    SqliteJournal(str(path)).close()
    environment = {**os.environ, "STATSAPI_JOURNAL": f"sqlite:///{path}"}
    for action in ("info", "check"):
        command = [sys.executable, "-m", "statsapi", "journal", action]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            program.stdout.close()
            assert program.stderr.read() == b""
        assert program.returncode == 128 + signal.SIGPIPE


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root; tests/processes/test_journal_sqlite.py has the same by injection")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here ({done.stderr.strip()})")
    yield mount
    subprocess.run(["umount", mount], check=True)


def fill(disk: Path) -> Path:
    """Take all the space there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017
    return filler


def _not_ready(server: Server) -> Any:
    status, found = server.request("GET", "/readyz")
    return status == 503 and found


def test_a_full_disk_stops_writes_only(tmp_path: Path, small_disk: Path) -> None:
    """Writes get a 503 that says why and records nothing, reads go on, also on a worker that starts then; with space
    again all works, without a restart.
    """
    env = {"STATSAPI_JOURNAL": f"sqlite:///{small_disk}/events.db"}
    with gunicorn_server(tmp_path, workers=2, env=env) as server:
        server.wait_for_journals(2)
        recorded = 0
        for value in range(50):
            assert post(server, value)[0] == 200
            recorded += 1
        filler = fill(small_disk)
        refused = 0
        batch = [{"timestamp": now(), "value": 1}] * 5000
        requests = (("/event", batch[0]), ("/events", batch), ("/events?dedup=true", batch), ("/event", batch[0]))
        for _ in range(20):
            for path, body in requests:
                status, problem = server.request("POST", path, body)
                if status == 200:  # there was room left in the file itself
                    recorded += 1 if path == "/event" else problem["stored"]
                    continue
                refused += 1
                assert (status, problem["outcome"]) == (503, "not recorded")
                assert problem["type"] == "urn:statsapi:problem:journal-unavailable"
                assert f"the disk that holds {small_disk}/events.db is full" in problem["detail"]
                assert "free some space" in problem["detail"]
            assert server.request("GET", "/statistics")[1]["count"] == recorded
        assert refused > 40
        found = wait_until(lambda: _not_ready(server), "the full disk to be told")
        assert found["type"] == "urn:statsapi:problem:journal-unavailable"
        assert "is full" in found["detail"]

        before = server.workers()
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(server.workers() - before) == 1, "another worker")
        server.wait_for_journals(3)
        for status, body in statistics_of_each_worker(server, 2):
            assert (status, body["count"]) == (200, recorded)

        filler.unlink()
        wait_until(lambda: server.request("GET", "/readyz")[0] == 200, "space, without a write from outside")
        pids = server.workers()
        for value in range(50):
            assert post(server, value)[0] == 200
        assert server.request("POST", "/events", batch)[0] == 200
        for status, body in statistics_of_each_worker(server, 2):
            assert (status, body["count"]) == (200, recorded + 50 + len(batch))
        assert server.workers() == pids
        assert "Traceback" not in server.log


def test_a_start_on_a_full_disk_waits_for_space(tmp_path: Path, small_disk: Path) -> None:
    """The server starts, says that the disk is full, and serves what was recorded as soon as there is space."""
    env = {"STATSAPI_JOURNAL": f"sqlite:///{small_disk}/events.db"}
    with gunicorn_server(tmp_path, workers=2, env=env) as server:
        assert post(server, 42.5)[0] == 200
    assert sorted(path.name for path in small_disk.iterdir()) == ["events.db", "events.db-mark"]
    filler = fill(small_disk)
    with gunicorn_server(tmp_path, workers=2, env=env) as server:
        for method, body in (("GET", None), ("POST", {"timestamp": now(), "value": 1})):
            status, problem = server.request(method, "/statistics" if body is None else "/event", body)
            assert status == 503
            assert f"{small_disk}/events.db is full" in problem["detail"]
        pids = wait_until(lambda: len(pids := server.workers()) == 2 and pids, "both workers")
        filler.unlink()
        assert post(server, 1)[0] == 200
        assert server.request("GET", "/statistics")[1]["count"] == 2
        assert server.workers() == pids


def test_a_backup_that_does_not_fit_leaves_nothing(tmp_path: Path, small_disk: Path) -> None:
    """A backup to a full disk says so, takes its half away, and the journal goes on."""
    env = {"STATSAPI_JOURNAL": f"sqlite:///{tmp_path}/events.db"}
    with gunicorn_server(tmp_path, workers=1, env=env) as server:
        for _ in range(6):
            batch = [{"timestamp": now(), "value": value / 3} for value in range(100_000)]
            assert server.request("POST", "/events", batch)[0] == 200
        done = statsapi("journal", "backup", small_disk / "backup.db", env=env)
        assert done.returncode == 1
        assert done.stderr.endswith("is full: free some space\n")
        assert list(small_disk.iterdir()) == []
        assert post(server, 1)[0] == 200
