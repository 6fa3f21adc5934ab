"""Gunicorn's side: real servers, real signals."""

from __future__ import annotations

import http.client
import inspect
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import gunicorn.glogging
import gunicorn.http.message
import gunicorn.http.parser
import gunicorn.http.wsgi
import gunicorn.systemd
import gunicorn.util
import pytest
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config, PreRequest
from gunicorn.workers import gthread
from gunicorn.workers.base import Worker

from statsapi.machine import allowed_cores
from statsapi.server.pinning import choose_core
from statsapi.server.worker import FairThreadWorker, ShortWorker
from statsapi.shortcuts import gunicorn_side
from tests.servers import ROOT, Client, Server, free_port, gunicorn_server, start_gunicorn, stop, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROBE = "tests.servers:app"


def bind_of(kind: str, directory: Path) -> str:
    return f"unix:{directory}/s" if kind == "unix" else "127.0.0.1:0"


def open_at_once(server: Server, count: int) -> Counter[int]:
    """How many of `count` keep-alive connections, opened together and then all asked, each worker holds."""
    socks = [server.connect() for _ in range(count)]
    try:
        for sock in socks:
            sock.sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return Counter(int(read_answer(sock)) for sock in socks)
    finally:
        for sock in socks:
            sock.close()


def read_answer(sock: socket.socket) -> bytes:
    """The body of one answer with a Content-Length."""
    pending = b""
    while b"\r\n\r\n" not in pending:
        pending += sock.recv(65536) or pytest.fail(f"closed after {pending!r}")
    head, _, body = pending.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    while len(body) < length:
        body += sock.recv(65536) or pytest.fail("closed in the body")
    return body[:length]


# Sharing connections


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_connections_opened_at_once_are_shared_evenly(tmp_path: Path, kind: str) -> None:
    """Of 16 connections opened at once each of two workers holds 4 to 12, over TCP and over a Unix socket."""
    with gunicorn_server(tmp_path, app=PROBE, bind=bind_of(kind, tmp_path)) as server:
        workers = server.wait_for_workers(2)
        seen = []
        for _ in range(5):
            rounds = [open_at_once(server, 16) for _ in range(20)]
            seen.append([set(held) == workers and min(held.values()) >= 4 for held in rounds].count(True))
            if seen[-1] >= 16:
                break
    # Twenty rounds take 0.08 s, and a busy machine may keep a worker from its core as long (seen once): so there are
    # five tries. Gunicorn's own worker is this even in a fifth of the rounds over TCP, and would never pass.
    assert seen[-1] >= 16, seen


def test_a_stopped_worker_makes_nobody_wait(tmp_path: Path) -> None:
    """While one worker stands still the others take its share; only the first client can notice."""
    with gunicorn_server(tmp_path, app=PROBE) as server:
        stopped, running = server.wait_for_workers(2)
        try:
            os.kill(stopped, signal.SIGSTOP)
            begin = time.monotonic()
            answers = [server.request("GET", "/pid")[1] for _ in range(50)]
            took_s = time.monotonic() - begin
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert set(answers) == {running}
        assert took_s < 5  # 50 × PATIENCE_S would be 0.5 s, waiting for the worker 30 s each


def test_a_worker_takes_a_connection_that_no_freer_one_wants(tmp_path: Path) -> None:
    """A worker with open connections still answers new ones when the emptier worker is stopped."""
    with gunicorn_server(tmp_path, app=PROBE) as server:
        server.wait_for_workers(2)
        held = [server.client() for _ in range(8)]
        owners = [client.request("GET", "/pid")[1] for client in held]
        stopped = owners[0]
        for client, owner in zip(held, owners, strict=True):
            if owner == stopped:
                client.close()  # the stopped one is now the emptier
        os.kill(stopped, signal.SIGSTOP)
        try:
            answers = {server.request("GET", "/pid")[1] for _ in range(8)}
        finally:
            os.kill(stopped, signal.SIGCONT)
            for client in held:
                client.close()
        assert answers == set(owners) - {stopped}


def test_silent_connections_take_no_threads(tmp_path: Path) -> None:
    """Connections that send nothing, more than there are threads, make nobody wait."""
    with gunicorn_server(tmp_path, app=PROBE, workers=1, args=["--threads", "2"]) as server:
        silent = [server.connect() for _ in range(6)]
        begin = time.monotonic()
        assert server.request("GET", "/pid")[0] == 200
        assert time.monotonic() - begin < 4  # Gunicorn's own worker: 5 s and more
        silent[0].sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(silent[0])
        for sock in silent:
            sock.close()


# Signals


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_reload_under_load_fails_no_request(tmp_path: Path, kind: str) -> None:
    """Four HUPs while keep-alive clients ask without a pause: every request is answered with 200."""
    failures: list[str] = []
    answered = Counter[int]()
    done = threading.Event()

    def ask(client: Client) -> None:
        with client:
            while not done.is_set():
                try:
                    status, pid = client.request("GET", "/pid")
                except Exception as error:  # noqa: BLE001  # whatever it is, it is a failed request
                    failures.append(repr(error))
                    return
                if status != 200:
                    failures.append(str(status))
                answered[pid] += 1

    with gunicorn_server(tmp_path, app=PROBE, bind=bind_of(kind, tmp_path)) as server:
        workers = server.wait_for_workers(2)
        threads = [threading.Thread(target=ask, args=(server.client(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                server.signal(signal.SIGHUP)
                workers = server.wait_for_workers(2, besides=workers)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert len(answered) >= 6  # several generations took part


@pytest.mark.parametrize(
    "ends", ["the replay ends", "told again", "after half of graceful_timeout", "the server stops"]
)
def test_a_reload_waits_for_the_new_workers_replay(tmp_path: Path, ends: str) -> None:
    """The old workers answer while their successors replay, so that no request waits for it, until these are ready, or
    somebody tells them to stop again, or it takes too long. The stop of the server is heard at once.
    """
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    slowly = tmp_path / "slowly.py"
    slowly.write_text(
        f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"exec(open({str(ROOT / 'gunicorn.conf.py')!r}).read())\n"
        "def post_worker_init(worker):\n"
        "    hooks.post_worker_init(worker)\n"
        "    begun = hooks.service_of(worker).has_begun\n"
        "    def has_begun():\n"
        f"        if not begun() or not os.path.exists({str(gate)!r}):\n"
        "            return False\n"
        f"        with open({str(notes)!r}, 'a') as file:\n"
        "            print(os.getpid(), file=file)\n"
        "        return True\n"
        "    hooks.service_of(worker).has_begun = has_begun\n"
    )
    gate.touch()
    timeout = "8" if ends == "after half of graceful_timeout" else "30"
    with gunicorn_server(tmp_path, args=["--config", str(slowly), "--graceful-timeout", timeout]) as server:
        server.wait_until(lambda: notes.exists() and notes.read_text().count("\n") == 2, "two replays")
        old = server.workers()
        gate.unlink()
        server.signal(signal.SIGHUP)
        server.wait_for_journals(4)
        new = server.workers() - old
        with server.client() as client:
            for _ in range(20):
                status, answer = client.request("GET", "/readyz")
                assert status == 200, answer
        assert old < server.workers()
        assert "Worker exiting" not in server.log
        if ends == "the replay ends":
            gate.touch()
        elif ends == "told again":
            for pid in old:
                os.kill(pid, signal.SIGTERM)
        elif ends == "the server stops":
            server.signal(signal.SIGTERM)
            assert server.process.wait(8) == 0  # not after SUCCESSORS_WAIT_S
            return
        server.wait_until(lambda: server.workers() == new, "the old workers' end")
        assert server.request("GET", "/healthz")[0] == 200


def test_term_finishes_the_request_under_way_and_then_closes(tmp_path: Path) -> None:
    """SIGTERM lets a request finish; the service is closed after it, once, by the worker that started it."""
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with gunicorn_server(tmp_path, app=PROBE, workers=1, env={"PROBE_NOTES": str(notes)}) as server:
        answers: list[tuple[int, object]] = []
        thread = threading.Thread(target=lambda: answers.append(server.request("GET", f"/wait?for={gate}")))
        thread.start()
        wait_until(gate.with_suffix(".asked").exists, "the request to be under way")
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        assert "close" not in notes.read_text()
        gate.touch()
        thread.join()
        assert server.process.wait(30) == 0
    (worker,) = re.findall(r"start (\d+)", notes.read_text())
    assert answers == [(200, int(worker))]
    assert notes.read_text() == f"start {worker}\nclose {worker}\n"


def test_a_stop_is_heard_by_workers_that_have_just_been_forked(tmp_path: Path) -> None:
    """SIGTERM that reaches a worker before it has handlers of its own is not lost: the server stops at once."""
    slowly = tmp_path / "slowly.py"
    slowly.write_text(
        f"import sys, time\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"exec(open({str(ROOT / 'gunicorn.conf.py')!r}).read())\n"
        "def post_fork(server, worker):\n    time.sleep(1)\n    hooks.post_fork(server, worker)\n"
    )
    server = start_gunicorn(tmp_path, app=PROBE, args=["--config", str(slowly), "--graceful-timeout", "600"])
    try:
        wait_until(lambda: len(server.workers()) == 2, "two forks")
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log
    finally:
        stop(server)


def test_silent_connections_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    """SIGTERM ends connections that have never sent anything with the idle ones, long before graceful_timeout."""
    with (
        gunicorn_server(tmp_path, app=PROBE, args=["--graceful-timeout", "600"]) as server,
        server.connect(),
        server.connect(),
    ):
        server.wait_for_workers(2)
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_a_killed_worker_is_replaced_and_its_connections_forgotten(tmp_path: Path) -> None:
    """After kill -9 a new worker takes its place, and connections are shared evenly again at once."""
    with gunicorn_server(tmp_path, app=PROBE) as server:
        workers = server.wait_for_workers(2)
        with ExitStack() as held:
            for _ in range(8):
                held.enter_context(server.connect())
            killed = min(workers)
            os.kill(killed, signal.SIGKILL)
            workers = server.wait_for_workers(2, besides={killed})
        wait_until(
            lambda: min((held := open_at_once(server, 16)).values()) >= 4 and set(held) == workers,
            "an even share for both",
        )


# An arbiter that is killed alone

NO_LONGER_THAN_S = 8.0  # 2 s on a quiet machine, where Gunicorn's own workers stay for graceful_timeout, 30 s


def left_of(server: Server) -> set[int]:
    """The processes of the server's group that run, whoever their parent is by now."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == server.process.pid and state != "Z":
                found.add(int(stat.parent.name))
    return found


def kill_arbiter(server: Server) -> float:
    """SIGKILL to the arbiter alone; seconds until none of its workers is left."""
    server.signal(signal.SIGKILL)
    server.process.wait()
    began_s = time.monotonic()
    wait_until(lambda: not left_of(server), "the workers' end", deadline_s=NO_LONGER_THAN_S)
    return time.monotonic() - began_s


@contextmanager
def kept_alive(server: Server, clients: int = 4) -> Iterator[Counter[str]]:
    """Keep-alive clients that ask without a pause until their connection ends; the answers by status."""
    answered = Counter[str]()
    done = threading.Event()

    def ask(client: Client) -> None:
        with client, suppress(OSError, http.client.HTTPException, AttributeError):
            while not done.is_set():
                answered[str(client.request("POST", "/event", {"timestamp": time.time(), "value": 1})[0])] += 1

    threads = [threading.Thread(target=ask, args=(server.client(),)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: sum(answered.values()) > 20 or not server.workers(), "load")
        yield answered
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_workers_end_with_an_arbiter_that_is_killed_and_the_next_server_starts(tmp_path: Path, kind: str) -> None:
    """Under keep-alive load, three times on one address: it is free again soon, and what was acknowledged is there."""
    bind = f"unix:{tmp_path}/s" if kind == "unix" else f"127.0.0.1:{free_port()}"
    acknowledged = 0
    for _ in range(3):
        server = start_gunicorn(tmp_path, bind=bind)
        try:
            server.wait_for_journals(2)
            with kept_alive(server) as answered:
                kill_arbiter(server)
            assert set(answered) == {"200"}
            acknowledged += answered["200"]
        finally:
            stop(server)
    with gunicorn_server(tmp_path, bind=bind) as server:
        count = server.request("GET", "/statistics")[1]["count"]
    assert acknowledged <= count <= acknowledged + 3 * 4  # what was under way may count without its answer


@pytest.mark.parametrize("moment", ["first fork", "second fork", "listening", "journal", "replacement"])
def test_workers_that_are_just_being_forked_end_with_the_arbiter(tmp_path: Path, moment: str) -> None:
    """Whatever a worker is doing between its fork and its first request, it does not keep the port."""
    bind = f"127.0.0.1:{free_port()}"
    for _ in range(3):
        server = start_gunicorn(tmp_path, bind=bind, workers=3)
        try:
            if moment == "first fork":
                wait_until(server.workers, "a worker")
            elif moment == "second fork":
                wait_until(lambda: len(server.workers()) >= 2, "two workers")  # noqa: B023
            elif moment == "listening":
                server.wait_for_log("Listening at")
            elif moment == "journal":
                server.wait_for_journals(1)
            else:
                server.wait_for_journals(3)
                before = server.workers()
                os.kill(min(before), signal.SIGKILL)
                wait_until(lambda: server.workers() - before, "a new worker")  # noqa: B023
            kill_arbiter(server)
            assert "Traceback" not in server.log
        finally:
            stop(server)
    with gunicorn_server(tmp_path, bind=bind) as server:
        assert server.request("GET", "/healthz")[0] == 200


def test_a_stopped_worker_ends_with_an_arbiter_that_is_killed(tmp_path: Path) -> None:
    """A worker that is stopped with SIGSTOP is continued then, and does not keep the port."""
    bind = f"127.0.0.1:{free_port()}"
    server = start_gunicorn(tmp_path, bind=bind)
    try:
        server.wait_for_journals(2)
        os.kill(min(server.workers()), signal.SIGSTOP)
        kill_arbiter(server)
        assert port_is_free(bind)
    finally:
        stop(server)


def test_a_request_under_way_is_finished_when_the_arbiter_is_killed(tmp_path: Path) -> None:
    """One that ends soon is answered; one that does not is cut off, and does not keep the port."""
    bind = f"127.0.0.1:{free_port()}"
    for ends in (True, False):
        gate = tmp_path / f"gate-{ends}"
        server = start_gunicorn(tmp_path, app=PROBE, bind=bind, workers=1)
        answers: list[int] = []

        def ask(server: Server = server, gate: Path = gate, answers: list[int] = answers) -> None:
            with suppress(OSError, http.client.HTTPException):
                answers.append(server.request("GET", f"/wait?for={gate}")[0])

        thread = threading.Thread(target=ask)
        try:
            server.wait_for_workers(1)
            thread.start()
            wait_until(gate.with_suffix(".asked").exists, "the request to be under way")
            server.signal(signal.SIGKILL)
            server.process.wait()
            server.wait_for_log("so this worker ends")
            wait_until(lambda: port_is_free(bind), "the port")  # long before the request's end
            if ends:
                gate.touch()
            wait_until(lambda: not left_of(server), "the workers' end", deadline_s=NO_LONGER_THAN_S)  # noqa: B023
            thread.join()
        finally:
            stop(server)
        assert answers == ([200] if ends else [])


def port_is_free(bind: str) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", int(bind.rpartition(":")[2])))
        except OSError:
            return False
        return True


# One process for what one process remembers


def test_compose_starts_with_an_empty_environment(tmp_path: Path) -> None:
    """Gunicorn starts with the environment that docker-compose.yml makes of unset variables."""
    compose = (ROOT / "docker-compose.yml").read_text()
    given = re.findall(r"^      ([A-Z_]+):(?: +([^#\s]\S*))?(?: +#.*)?$", compose, re.MULTILINE)
    assert {"STATSAPI_TRUSTED_PROXIES", "WEB_CONCURRENCY"} <= dict(given).keys()
    # A name alone is passed on where it is set.
    env = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in given if value}
    with gunicorn_server(tmp_path, workers=None, env=env) as server:
        assert server.request("GET", "/healthz")[0] == 200


def test_memory_journal_refuses_a_second_worker(tmp_path: Path) -> None:
    """memory:// with two workers does not start: one clear line, no traceback, status 78, no pid file left."""
    pidfile = tmp_path / "pid"
    server = start_gunicorn(tmp_path, env={"STATSAPI_JOURNAL": "memory://"}, workers=2, args=["--pid", str(pidfile)])
    try:
        assert server.process.wait(30) == os.EX_CONFIG
    finally:
        stop(server)
    assert "Refusing to start: STATSAPI_JOURNAL=memory://" in server.log
    assert "Traceback" not in server.log
    assert not pidfile.exists()


def test_settings_that_cannot_work_are_all_named_at_start(tmp_path: Path) -> None:
    """Each fault is a line of its own, the journal's and the number of workers among them; nothing is served."""
    env = {"STATSAPI_WINDOW": "soon", "STATSAPI_FSYNC": "perhaps", "STATSAPI_JOURNAL": "bogus://x"}
    env |= {"STATSAPI_PATH_PREFIX": "/metrics"}
    server = start_gunicorn(tmp_path, env=env, workers=0)
    try:
        assert server.process.wait(30) == os.EX_CONFIG
    finally:
        stop(server)
    lines = [line for line in server.log.splitlines() if "Refusing to start" in line]
    assert len(lines) == 5
    assert "Traceback" not in server.log


def test_a_journal_that_cannot_be_used_stops_the_server(tmp_path: Path) -> None:
    """A file that is no database: a clear line, no traceback, and no worker started again and again."""
    (tmp_path / "events.db").write_bytes(b"these are not events" * 1000)
    server = start_gunicorn(tmp_path)
    try:
        assert server.process.wait(30) != 0
    finally:
        stop(server)
    assert "Refusing to start" in server.log
    assert "Traceback" not in server.log


def refusals(directory: Path, bind: str) -> list[str]:
    """Why a server does not start at this address; it ends with status 78 and never says a second thing."""
    server = start_gunicorn(directory, bind=bind)
    try:
        assert server.process.wait(30) == os.EX_CONFIG, server.log
    finally:
        stop(server)
    assert "Traceback" not in server.log
    assert "Connection in use" not in server.log  # Gunicorn's own five tries, a second each
    return [line.partition("Refusing to start: ")[2] for line in server.log.splitlines() if "Refusing" in line]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::1]", "localhost"])
def test_a_port_in_use_is_said_at_once(tmp_path: Path, host: str) -> None:
    """One line names the address, who holds it, and the setting; Gunicorn alone tries for five seconds."""
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.create_server(("::1" if host == "[::1]" else "127.0.0.1", 0), family=family) as held:
        port = held.getsockname()[1]
        (fault,) = refusals(tmp_path, f"{host}:{port}")
    holder = f"by process {os.getpid()} ("
    assert fault.startswith(f"{host}:{port} is in use {holder}")
    assert "--bind" in fault


def test_a_unix_socket_in_use_is_not_taken_away(tmp_path: Path) -> None:
    """A second server is refused and the first goes on; Gunicorn alone would leave the first with no socket."""
    with gunicorn_server(tmp_path / "first", bind=f"unix:{tmp_path}/s") as server:
        (fault,) = refusals(tmp_path / "second", f"unix:{tmp_path}/s")
        assert fault.startswith(f"unix:{tmp_path}/s is in use")
        assert server.request("GET", "/healthz")[0] == 200


def test_a_unix_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """A server that was killed leaves its socket: nobody listens, so the next one takes the name."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{tmp_path}/s")
    with gunicorn_server(tmp_path, bind=f"unix:{tmp_path}/s") as server:
        assert server.request("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("no-such-host.invalid:8000", "its host is not known"),
        ("192.0.2.1:8000", "this machine does not have that address"),
        ("127.0.0.1:70000", "ports go up to 65535"),
        ("[fe80::1]:8000", "cannot be listened at (Invalid argument)"),
        ("unix:", "unix: names no socket"),
        ("unix:{dir}/file", "is not a socket"),
        ("unix:{dir}/absent/s", "its folder is not there"),
        ("unix:{dir}/file/s", "its folder is not there"),
        ("unix:{dir}/" + "s" * 120, "too long"),
    ],
)
def test_an_address_that_cannot_be_is_said_at_once(tmp_path: Path, bind: str, reason: str) -> None:
    """Each with its reason and the setting; none ends in a traceback."""
    (tmp_path / "file").touch()
    (fault,) = refusals(tmp_path / "server", bind.format(dir=tmp_path))
    assert reason in fault
    assert "--bind" in fault


def test_memory_journal_starts_one_worker_and_stays_there(tmp_path: Path) -> None:
    """memory:// needs no setting to start with one worker; TTIN is refused with a line in the log."""
    env = {"STATSAPI_JOURNAL": "memory://"}
    with gunicorn_server(tmp_path, app=PROBE, env=env, workers=None) as server:
        (worker,) = server.wait_for_workers(1)
        server.signal(signal.SIGTTIN)
        server.wait_for_log("Staying at one worker")
        assert server.workers() == {worker}


def test_reload_of_a_memory_journal_never_runs_two_workers(tmp_path: Path) -> None:
    """HUP with memory:// closes the old worker before the new one starts, and warns of the loss."""
    notes = tmp_path / "notes"
    env = {"STATSAPI_JOURNAL": "memory://", "PROBE_NOTES": str(notes)}
    with gunicorn_server(tmp_path, app=PROBE, env=env, workers=1) as server:
        old = server.wait_for_workers(1)
        server.signal(signal.SIGHUP)
        server.wait_for_workers(1, besides=old)
        assert [line.split()[0] for line in notes.read_text().splitlines()] == ["start", "close", "start"]
        assert "all events held are lost" in server.log


# Cores


@pytest.mark.skipif(len(allowed_cores()) < 2, reason="needs two cores")
def test_each_worker_keeps_a_core_of_its_own(tmp_path: Path) -> None:
    """Pinned workers are on different cores at start, after one was killed, and after a reload."""

    def cores(workers: set[int]) -> list[set[int]]:
        return sorted((os.sched_getaffinity(pid) for pid in workers), key=min)

    first_two = [{core} for core in allowed_cores()[:2]]
    with gunicorn_server(tmp_path, app=PROBE, env={"STATSAPI_PIN_WORKERS": "on"}) as server:
        workers = server.wait_for_workers(2)
        assert cores(workers) == first_two
        for killed in sorted(workers):
            os.kill(killed, signal.SIGKILL)
            workers = server.wait_for_workers(2, besides={killed})
            assert cores(workers) == first_two
        server.signal(signal.SIGHUP)
        assert cores(server.wait_for_workers(2, besides=workers)) == first_two


def test_workers_roam_when_told_so(tmp_path: Path) -> None:
    """STATSAPI_PIN_WORKERS=off leaves every core to every worker."""
    with gunicorn_server(tmp_path, app=PROBE, env={"STATSAPI_PIN_WORKERS": "off"}) as server:
        for pid in server.wait_for_workers(2):
            assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)


@pytest.mark.skipif(len(allowed_cores()) < 2, reason="needs two cores")
def test_a_core_is_chosen_by_who_lives() -> None:
    """The core with the fewest living workers; among equals the one whose workers are about to be replaced."""
    first, second = allowed_cores()[:2]
    taken = [(age, core) for age, core in enumerate(allowed_cores(), 1)]
    assert choose_core("on", []) == first
    assert choose_core("on", [(1, first)]) == second
    assert choose_core("on", [*taken[1:], (9, first)]) == second
    assert choose_core("off", []) is None


# Gunicorn's private names


def test_gunicorn_has_the_private_names_that_are_used() -> None:
    """The names that statsapi.server overrides, calls or reads, which no version of Gunicorn promises: the one that is
    gone is named here, before a worker fails for want of it.
    """
    used = {
        gthread: ["DEFAULT_WORKER_DATA_TIMEOUT", "STOP_KEEPALIVE_LINGER"],
        gthread.ThreadWorker: [
            *("accept", "enqueue_req", "finish_request", "handle_exit", "init_signals", "notify"),
            *("set_accept_enabled", "wait_for_and_dispatch_events", "_cap_keepalive", "_keepalive_after"),
            *("get_thread_pool", "handle", "handle_request", "init_process", "on_client_socket_readable", "run"),
            "on_pending_socket_readable",
        ],
        gthread.TConn: ["close"],
        gthread.PollableMethodQueue: ["close", "defer"],
        Arbiter: ["WORKER_BOOT_ERROR", "WORKERS", "kill_workers", "reap_workers", "reload", "signal"],
        gunicorn.util: ["parse_address", "write_error", "write_nonblock", "is_ipv6", "http_date"],
        gunicorn.http.wsgi.Response: [*("process_headers", "default_headers", "write", "_emit_body", "should_close")],
        gunicorn.http.wsgi: ["create", "WSGIErrorsWrapper", "_make_early_hints_callback"],
        gunicorn.http: ["RequestParser"],
        gunicorn.http.parser.RequestParser: ["mesg_class", "finish_body"],
        gunicorn.http.message.Request: ["should_close", "set_body_reader"],
        gunicorn.systemd: ["listen_fds"],
        gunicorn.glogging.Logger: ["setup"],
        WSGIApplication: ["load_default_config", "do_load_config", "load_config", "chdir"],
        Config: ["parser", "set", "validate"],
        PreRequest: ["default"],
    }
    attributes = {  # those that an __init__ sets
        gthread.ThreadWorker: [
            *(
                "_accepting",
                "nr_conns",
                "max_keepalived",
                "worker_connections",
                "pending_conns",
                "keepalived_conns",
                "method_queue",
                "alive",
                "tpool",
                "poller",
            )
        ],
        gthread.TConn: ["initialized", "data_ready", "timeout", "parser", "sock"],
        gunicorn.http.parser.RequestParser: ["mesg", "unreader"],
        gunicorn.http.message.Request: [
            *("unreader", "peer_addr", "remote_addr", "req_number", "body", "trailers", "headers", "must_close"),
            "_expected_100_continue",
        ],
        Worker: ["sockets", "ppid", "booted", "age"],
        Arbiter: ["num_workers", "master_pid", "pidfile"],
    }
    missing = [f"{owner.__name__}.{name}" for owner, names in used.items() for name in names if not _has(owner, name)]
    for owner, names in attributes.items():
        source = "".join(inspect.getsource(kind) for kind in owner.__mro__ if kind is not object)
        missing += [f"{owner.__name__}.{name}" for name in names if f"self.{name} = " not in source]
    assert not missing
    # The worker's methods that ours replace take what ours take.
    for name in used[gthread.ThreadWorker]:
        theirs = inspect.signature(getattr(gthread.ThreadWorker, name))
        for kind in (FairThreadWorker, ShortWorker):
            assert list(theirs.parameters) == list(inspect.signature(getattr(kind, name)).parameters), name
    theirs, ours = (inspect.signature(make) for make in (gunicorn.http.wsgi.create, gunicorn_side.create))
    assert list(theirs.parameters) == list(ours.parameters)


def _has(owner: object, name: str) -> bool:
    return hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


# The rest of gunicorn.conf.py


def test_nothing_is_left_in_the_home_directory(tmp_path: Path) -> None:
    """No control socket, and the command line wins over the file."""
    with gunicorn_server(tmp_path, app=PROBE, args=["--keep-alive", "7", "--log-level", "debug"]) as server:
        server.wait_for_workers(2)
        assert "keepalive: 7" in server.log
        assert not [path for path in tmp_path.rglob("*") if path.is_socket()]


def test_requests_in_every_shape_keep_their_connection(tmp_path: Path) -> None:
    """Chunked bodies, bodies in pieces, pipelined requests and 7 KiB headers, all on one connection."""
    with gunicorn_server(tmp_path, app=PROBE, workers=1) as server, server.connect() as sock:
        chunked = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
        assert read_answer(sock) == b"11"
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nfour")
        sock.sendall(b"more")
        assert read_answer(sock) == b"8"
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 7000 + b"\r\n\r\n")
        pid = read_answer(sock)
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        received = b""
        while received.count(b"\r\n\r\n" + pid) < 3:
            received += sock.recv(65536) or pytest.fail(f"closed after {received!r}")


def test_new_code_comes_with_usr2_not_with_hup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn.conf.py imports the service into the arbiter, so HUP goes on with the code that is loaded; USR2 starts
    another arbiter with the new code on the same socket, and no request fails.
    """
    code = tmp_path / "code"
    code.mkdir()
    shutil.copytree(ROOT / "statsapi", code / "statsapi", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, code)
    monkeypatch.setattr("tests.servers.ROOT", code)

    def running(server: Server) -> str:
        message: str = server.request("GET", "/")[1]["message"]
        return message

    with gunicorn_server(tmp_path / "run", bind=f"unix:{tmp_path}/s", args=("--pid", str(tmp_path / "pid"))) as server:
        server.wait_for_journals(2)
        module = code / "statsapi" / "api" / "ops.py"
        text = module.read_text()
        assert text.count("Event Statistics API is running") == 1
        module.write_text(text.replace("Event Statistics API is running", "new code"))
        with (code / "statsapi" / "app.py").open("a") as file:  # a mix of old and new files could not even start
            file.write("\nfrom statsapi.api.ops import NEW\n")
        with module.open("a") as file:
            file.write("\nNEW = True\n")
        before = server.workers()
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers() - before) == 2 == len(server.workers()), "two new workers")
        server.wait_for_journals(4)
        assert {running(server) for _ in range(8)} == {"Event Statistics API is running"}

        server.signal(signal.SIGUSR2)
        server.wait_for_journals(6)
        assert Path(tmp_path / "pid.2").exists()
        server.signal(signal.SIGTERM)
        seen = []

        def ended() -> bool:
            seen.append(running(server))
            return server.process.poll() is not None

        wait_until(ended, "the old arbiter's end")
        assert {running(server) for _ in range(8)} == {"new code"}
