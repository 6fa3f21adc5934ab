"""Other servers than ours, and ours without its configuration: memory:// is never answered from half of the events."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.api.processes import Claim, listening_inodes
from statsapi.app import create_app
from statsapi.config import Settings
from tests.servers import ROOT, gunicorn_server, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEMORY = {"STATSAPI_JOURNAL": "memory://"}
# Without our hooks a worker that has just been forked swallows SIGTERM, and is killed after this time.
FOREIGN = ["--config", "/dev/null", "--graceful-timeout", "3"]

# What touches events or tells of them, and what does not.
REFUSED = [
    ("POST", "/event"),
    ("POST", "/events"),
    ("GET", "/statistics"),
    ("GET", "/statistics?window=5m"),
    ("GET", "/statistics/timeline?window=1h&step=5m"),
    ("GET", "/debug/events"),
    ("GET", "/events"),
    ("GET", "/series"),
    ("DELETE", "/series/default"),
    ("GET", "/metrics"),
    ("GET", "/readyz"),
    ("HEAD", "/statistics"),
]
OPEN = [("GET", "/healthz"), ("GET", "/"), ("GET", "/openapi.json"), ("GET", "/docs/"), ("OPTIONS", "/event")]


def event() -> dict[str, Any]:
    return {"timestamp": time.time(), "value": 1}


# What a server says of itself


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_a_server_with_several_processes_gets_no_answer_from_memory(
    client: FlaskClient, method: str, path: str
) -> None:
    """503 with what to do, for all that touches events; the same request alone is answered."""
    body = event() if method == "POST" else None
    response = client.open(path, method=method, environ_overrides={"wsgi.multiprocess": True}, json=body)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    if method != "HEAD":
        problem = response.get_json()
        assert problem["type"] == "urn:statsapi:problem:journal-refused"
        assert "one process" in problem["detail"]
        assert "STATSAPI_JOURNAL=sqlite:///" in problem["detail"]
    assert client.open(path, method=method, json=body).status_code in (200, 422)
    assert client.get("/statistics").get_json()["count"] <= 1


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_touches_no_event_is_answered_all_the_same(client: FlaskClient, method: str, path: str) -> None:
    """Also to several processes: whoever restarts on /healthz must not restart for this."""
    response = client.open(path, method=method, environ_overrides={"wsgi.multiprocess": True})
    assert response.status_code == 200


def test_a_path_that_is_not_there_stays_one(client: FlaskClient) -> None:
    """404 and 405 are what they were."""
    for path, status in (("/no", 404), ("/event", 405)):
        assert client.get(path, environ_overrides={"wsgi.multiprocess": True}).status_code == status


def test_a_journal_on_disk_is_for_several_processes(tmp_path: Path) -> None:
    """Only memory:// is refused."""
    app = create_app(Settings(journal=f"sqlite:///{tmp_path}/e.db"), background=False)
    response = app.test_client().get("/statistics", environ_overrides={"wsgi.multiprocess": True})
    assert response.status_code == 200
    app.extensions["statsapi"].close()


# Gunicorn without our configuration


@pytest.mark.parametrize("args", ["-w 2", "-w 2 --preload", "-w 3 -k gthread --threads 2"])
def test_gunicorn_without_our_configuration_is_refused_with_memory(tmp_path: Path, args: str) -> None:
    """Two workers: nothing is recorded or answered, /readyz says why, the log as well; /healthz is 200."""
    with gunicorn_server(tmp_path, env=MEMORY, workers=None, args=[*FOREIGN, *args.split()]) as server:
        for _ in range(8):
            assert server.request("POST", "/event", event())[0] == 503
            assert server.request("GET", "/statistics")[0] == 503
            status, problem = server.request("GET", "/readyz")
            assert status == 503
            assert "one process" in problem["detail"]
        assert server.request("GET", "/healthz")[0] == 200
        assert "gunicorn.conf.py is not in use" in server.log
        assert "wsgi.multiprocess" in server.log
        assert "Traceback" not in server.log


def test_gunicorn_without_our_configuration_and_one_worker_serves_from_memory(tmp_path: Path) -> None:
    """One process is one process; a second one that TTIN adds, which Gunicorn does not tell, answers nothing."""
    with gunicorn_server(tmp_path, env=MEMORY, workers=1, args=FOREIGN) as server:
        (first,) = server.workers()
        for count in range(1, 5):
            assert server.request("POST", "/event", event())[0] == 200
            assert server.request("GET", "/statistics")[1]["count"] == count
        server.signal(signal.SIGTTIN)
        wait_until(lambda: len(server.workers()) == 2, "a second worker")
        recorded, refused = 4, 0

        def one_was_refused() -> bool:
            nonlocal recorded, refused
            status, _ = server.request("POST", "/event", event())
            recorded += status == 200
            refused += status == 503
            status, answer = server.request("GET", "/statistics")
            assert status == 503 or answer["count"] == recorded
            return refused > 3

        wait_until(one_was_refused, "the second worker to be asked")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in server.workers() and len(server.workers()) == 2, "the first one's end")
        wait_until(lambda: server.request("GET", "/readyz")[0] == 200, "one of the others to take over")


def test_without_our_configuration_a_journal_on_disk_is_kept_in_order(tmp_path: Path) -> None:
    """Two workers agree; the log says once in each of them what is missing; upkeep runs without our hooks."""
    env = {"STATSAPI_WINDOW": "1s", "STATSAPI_RETENTION": "1s"}
    with gunicorn_server(tmp_path, env=env, workers=2, args=FOREIGN) as server:
        for count in range(1, 9):
            assert server.request("POST", "/event", {"timestamp": time.time() + 100, "value": 1})[0] == 200
            assert server.request("GET", "/statistics")[1]["count"] == count

        def said() -> list[str]:
            return [line for line in server.log.splitlines() if "gunicorn.conf.py is not in use" in line]

        wait_until(lambda: len(said()) == 2, "both workers to say it")
        assert "/metrics" in said()[0]
        assert "core" in said()[0]

        def all_keep_house() -> bool:
            server.request("GET", "/statistics")  # whoever answers has opened its journal, and begun
            pids = server.workers()
            return all(len(list(Path(f"/proc/{pid}/task").iterdir())) >= 4 for pid in pids)  # three threads do

        wait_until(all_keep_house, "both workers to keep house")
        assert len(said()) == 2


def test_with_our_configuration_nothing_is_missing(tmp_path: Path) -> None:
    """No such line, also where the application is loaded before the fork."""
    for args in ([], ["--preload"]):
        with gunicorn_server(tmp_path / str(len(args)), args=args) as server:
            assert server.request("GET", "/readyz")[0] in (200, 503)
            assert "is not in use" not in server.log


# Other servers


@contextmanager
def serving(command: list[str], directory: Path) -> Iterator[int]:
    """The port of another server, which writes it into its output; killed at the end."""
    log = directory / "log"
    env = {**os.environ, **MEMORY, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=env, start_new_session=True)
    try:
        port = int(wait_until(lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()), "its port")[1])
        wait_until(lambda: answers(port), "an answer")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/healthz")[0] == 200
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request on a connection of its own: the status and the decoded JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(("options", "status"), [("threaded=True", 200), ("threaded=False", 200), ("processes=2", 503)])
def test_werkzeugs_server(tmp_path: Path, options: str, status: int) -> None:
    """With threads it is one process; with processes each request has its own, and is refused."""
    code = f"from wsgi import app; from werkzeug.serving import run_simple; run_simple('127.0.0.1', 0, app, {options})"
    with serving([sys.executable, "-c", code], tmp_path) as port:
        for count in range(1, 4):
            assert ask(port, "POST", "/event", event())[0] == status
            if status == 200:
                assert ask(port, "GET", "/statistics")[1]["count"] == count
        assert ask(port, "GET", "/readyz")[0] == status


def test_flasks_server_with_its_reloader(tmp_path: Path) -> None:
    """Two processes have the socket, and one of them answers."""
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", "0", "--debug"]
    with serving(command, tmp_path) as port:
        for count in range(1, 4):
            assert ask(port, "POST", "/event", event())[0] == 200
            assert ask(port, "GET", "/statistics")[1]["count"] == count


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_the_standard_librarys_server(app: Flask) -> None:
    """wsgiref: one process, one thread; and two services in one process do not get in each other's way."""
    other = create_app(Settings(journal="memory://"), background=False)
    servers = [make_server("127.0.0.1", 0, each, handler_class=_Quiet) for each in (app, other)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        for server in servers:
            for count in range(1, 4):
                assert ask(server.server_port, "POST", "/event", {"timestamp": "2100-01-01", "value": 1})[0] == 200
                assert ask(server.server_port, "GET", "/statistics")[1]["count"] == count
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
        other.extensions["statsapi"].close()


# The claim to a socket


def test_a_socket_belongs_to_the_process_that_was_asked_first() -> None:
    """Of two processes that were forked with one listening socket the second is refused, until the first has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        code = (
            "import sys; from statsapi.api.processes import Claim\n"
            "for line in sys.stdin: print(Claim().is_held(), flush=True)"
        )
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                close_fds=False,
                cwd=ROOT,
                text=True,
            )
            for _ in range(2)
        ]

        def ask(child: subprocess.Popen[str]) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        first, second = children
        try:
            assert [ask(first), ask(second), ask(first), ask(second)] == ["True", "False", "True", "False"]
            first.kill()
            first.wait()
            assert ask(second) == "True"
        finally:
            for child in children:
                child.kill()
                child.communicate()


def test_services_with_sockets_of_their_own_are_left_alone() -> None:
    """Unrelated ports, also of one process; a socket that does not listen is nothing to claim."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.socket() as silent,
    ):
        inodes = set(listening_inodes())
        assert {os.fstat(one.fileno()).st_ino, os.fstat(two.fileno()).st_ino} <= inodes
        assert os.fstat(silent.fileno()).st_ino not in inodes
        assert Claim().is_held()
        assert Claim().is_held()
