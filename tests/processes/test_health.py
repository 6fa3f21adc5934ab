"""/healthz and /readyz of real servers: a locked journal, a worker that leaves, and the check of the container."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from statsapi.cli import healthcheck
from tests.servers import gunicorn_server, wait_until


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


def test_the_probe_of_an_address_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says how it is written; an IPv6 address has brackets, as for Gunicorn."""
    for address in ("localhost", "localhost:http", ":", "localhost:65536"):
        assert healthcheck.main([address]) == 1
        assert capsys.readouterr().err == f"{address} is no address: write HOST:PORT, [IPV6]:PORT or unix:/path\n"
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as closed:
        port = closed.getsockname()[1]
    assert healthcheck.main([f"[::1]:{port}"]) == 1
    assert "refused" in capsys.readouterr().err
