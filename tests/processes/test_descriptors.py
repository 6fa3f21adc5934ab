"""Few file descriptors: a server says so in one line, takes fewer connections, and loses none of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.command_line import COMMAND
from tests.servers import DEADLINE_S, Server, now, serve_environment, statsapi_serve

SHORT = "No connection can be accepted: Too many open files"


def serve_under(limit: str, folder: Path, *arguments: str) -> AbstractContextManager[Server]:
    """`statsapi serve` with one worker, started by a shell after `ulimit LIMIT`."""
    shell = ("sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *COMMAND)
    return statsapi_serve(folder, "--port", "0", "--workers", "1", *arguments, command=shell)


def open_files(server: Server) -> int:
    (worker,) = server.workers()
    return len(os.listdir(f"/proc/{worker}/fd"))


def test_more_connections_than_descriptors_are_served_in_turn(tmp_path: Path) -> None:
    """With 64 of them 70 clients, each of which keeps its connection as long as it may, are all answered by the one
    worker; the log has one line that names the limit and the cure.
    """
    with serve_under("-n 64", tmp_path) as server, ExitStack() as clients:
        before = server.workers()
        for value in range(70):
            client = clients.enter_context(server.client())
            assert client.request("POST", "/event", {"timestamp": now(), "value": value})[0] == 200
        assert server.request("GET", "/statistics")[1]["count"] == 70
        assert server.workers() == before
        (line,) = [line for line in server.log.splitlines() if "RLIMIT_NOFILE" in line]
        assert (
            "RLIMIT_NOFILE allows 64 open files, so each worker takes 20 connections at a time instead of 1000" in line
        )
        assert "raise it (`ulimit -n`, or LimitNOFILE= of the systemd unit) to 1044" in line
        assert SHORT not in server.log
        assert "Traceback" not in server.log


def test_the_limit_is_raised_where_that_is_allowed(tmp_path: Path) -> None:
    """A soft limit of 64 below a high hard one holds nobody up: 100 are open at once, and the log has no line of it."""
    with serve_under("-Sn 64", tmp_path) as server, ExitStack() as clients:
        before = open_files(server)
        for value in range(100):
            client = clients.enter_context(server.client())
            assert client.request("POST", "/event", {"timestamp": now(), "value": value})[0] == 200
        # The connection that asked whether the server answers may still have been open at `before`.
        assert open_files(server) >= before + 99
        assert "RLIMIT_NOFILE" not in server.log


def test_a_connection_that_finds_no_descriptor_waits(tmp_path: Path) -> None:
    """Silent clients take the last of them: the log says it once, clients that are connected are answered, and new ones
    as soon as others close. What was acknowledged is there.
    """
    with serve_under("-n 34", tmp_path, "--threads", "16") as server, ExitStack() as clients:
        before = server.workers()
        first = clients.enter_context(server.client())
        assert first.request("POST", "/event", {"timestamp": now(), "value": 1})[0] == 200
        silent = [clients.enter_context(server.connect()) for _ in range(40)]
        server.wait_for_log(SHORT)
        assert "RLIMIT_NOFILE is 34: raise it" in server.log
        for _ in range(20):
            assert first.request("GET", "/healthz")[0] == 200
        last = clients.enter_context(server.connect())
        last.sendall(b"GET /statistics HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in silent:
            sock.close()
        assert b'"count":1,' in last.recv(65_536)
        assert server.workers() == before
        assert server.log.count(SHORT) == 1
        assert "Traceback" not in server.log


def refusal(tmp_path: Path, under: Sequence[str], *arguments: str) -> str:
    """The one line of a `statsapi serve` that refuses to start, by a command that runs it under some limit."""
    done = subprocess.run(
        [*under, *COMMAND, "serve", "--port", "0", *arguments],
        cwd=tmp_path,
        env=serve_environment(tmp_path, {}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    (line,) = [line for line in done.stderr.splitlines() if "Starting gunicorn" not in line]
    assert done.returncode == 78, line
    return line


def test_a_limit_that_the_server_itself_does_not_fit_in_is_refused(tmp_path: Path) -> None:
    """One line that names the limit, what is needed and the cure; status 78."""
    for workers, said in (
        ("1", "a server with one worker needs at least 33"),
        ("3", "with 3 workers needs at least 35"),
    ):
        line = refusal(tmp_path, ["sh", "-c", 'ulimit -n 24; exec "$@"', "sh"], "--workers", workers)
        assert said in line
        assert "Refusing to start: RLIMIT_NOFILE allows 24 open files" in line


_LEAVE_OPEN = """
import os, sys
for _ in range(int(sys.argv[1])):
    os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
os.execvp(sys.argv[2], sys.argv[2:])
"""
UNDER_64 = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-c", _LEAVE_OPEN)


def refusal_under_64(tmp_path: Path, left_open: int, *arguments: str) -> str:
    """The one line of a `statsapi serve` that refuses to start with 64 descriptors, of which some are left open."""
    return refusal(tmp_path, [*UNDER_64, str(left_open)], "--workers", "2", *arguments)


@pytest.mark.parametrize("left_open", [34, 48, 55])
def test_descriptors_that_were_left_open_do_not_count(tmp_path: Path, left_open: int) -> None:
    """What started the server left them open for it: it refuses in one line, where a worker ended with a traceback."""
    line = refusal_under_64(tmp_path, left_open)
    assert (
        "Refusing to start: RLIMIT_NOFILE allows 64 open files, and a server with 2 workers needs at least 34" in line
    )
    found = re.search(r"besides (\d+) that listen or were left open by what started it: raise it", line)
    assert found is not None
    assert left_open <= int(found[1]) <= left_open + 4  # and perhaps what the test itself was given


def test_addresses_count(tmp_path: Path) -> None:
    """Each listens on a descriptor, which every worker has as well."""
    binds = [word for _ in range(50) for word in ("--bind", "127.0.0.1:0")]
    assert re.search(r"besides (49|5\d) that listen or were left open", refusal_under_64(tmp_path, 0, "--", *binds))


def test_a_few_that_were_left_open_are_told_by_fewer_connections(tmp_path: Path) -> None:
    """The server starts and answers, and the line that names the limit has them reckoned in."""
    command = (*UNDER_64, "15", *COMMAND)
    with statsapi_serve(tmp_path, "--port", "0", "--workers", "1", command=command) as server, ExitStack() as clients:
        for value in range(30):
            client = clients.enter_context(server.client())
            assert client.request("POST", "/event", {"timestamp": now(), "value": value})[0] == 200
        (line,) = [line for line in server.log.splitlines() if "RLIMIT_NOFILE" in line]
        found = re.search(r"each worker takes (\d+) connections at a time instead of 1000", line)
        assert found is not None
        assert int(found[1]) < 10
        assert SHORT not in server.log
        assert "Traceback" not in server.log
