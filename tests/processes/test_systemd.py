"""deploy/statsapi.service and .socket: what systemd says of them, and the service as systemd starts it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import ROOT, Server, now, stop, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

DEPLOY = ROOT / "deploy"

# What systemd does between fork and exec: the socket is descriptor 3, and memory is never writable and executable
# (PR_SET_MDWE, Linux 6.3; an older one says EINVAL, and the test is then without it).
STARTER = """
import ctypes, os, sys
listener = int(sys.argv[1])
if listener != 3:
    os.dup2(listener, 3)
    os.close(listener)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


CREDENTIAL_LINES = (
    "LoadCredential=statsapi.keys:/etc/statsapi.keys",
    "Environment=STATSAPI_API_KEYS_FILE=%d/statsapi.keys",
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, or the test is skipped: a container has no systemd, and CI is one."""
    binary = shutil.which("systemd-analyze")
    if binary is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("with_credential", [False, True])
def test_systemd_accepts_the_units(tmp_path: Path, with_credential: bool) -> None:
    """`systemd-analyze verify` has nothing to say about the very files, but for where the code lies."""
    unit = (DEPLOY / "statsapi.service").read_text()
    command = "/opt/statsapi/.venv/bin/gunicorn"
    assert unit.count(f"ExecStart={command}") == 1
    unit = unit.replace(command, sys.executable).replace("=/opt/statsapi", f"={ROOT}")
    for line in CREDENTIAL_LINES:
        assert unit.count(f"\n#{line}\n") == 1
        unit = unit.replace(f"#{line}", line) if with_credential else unit
    (tmp_path / "statsapi.service").write_text(unit)
    shutil.copy(DEPLOY / "statsapi.socket", tmp_path)
    done = analyze("verify", "--man=no", tmp_path / "statsapi.service", tmp_path / "statsapi.socket")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_shut_in() -> None:
    """`systemd-analyze security`: an exposure below 2 of 10 (1.6 by systemd 252): the network, the socket."""
    done = analyze("security", "--offline=true", "--threshold=20", "--no-pager", DEPLOY / "statsapi.service")
    assert done.returncode == 0, done.stdout


def test_nginx_asks_at_the_units_socket() -> None:
    """The socket of the unit is the upstream of deploy/nginx.conf."""
    (path,) = re.findall(r"^ListenStream=(.+)$", (DEPLOY / "statsapi.socket").read_text(), re.MULTILINE)
    assert f"server unix:{path} " in (DEPLOY / "nginx.conf").read_text()


@contextmanager
def activated(directory: Path, listener: socket.socket, notify_path: Path, *args: str) -> Iterator[Server]:
    """Gunicorn as systemd starts it: with a socket that listens already, and one to tell that it is ready."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STATSAPI_", "GUNICORN_"))}
    log_path = directory / "gunicorn.log"
    command: Sequence[str] = [sys.executable, "-m", "gunicorn", "--workers", "2", *args, "wsgi:app"]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(listener.fileno()), *command],
            cwd=ROOT,
            env={
                **inherited,
                "HOME": str(directory),
                "NOTIFY_SOCKET": str(notify_path),
                "STATSAPI_JOURNAL": f"sqlite:///{directory}/events.db",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[listener.fileno()],
        )
    server = Server(process, log_path, f"unix:{listener.getsockname()}")
    try:
        yield server
    finally:
        stop(server)


def test_the_service_as_systemd_starts_it(tmp_path: Path) -> None:
    """It serves on the socket that is passed to it, tells when it is ready, and a restart refuses no connection."""
    notify_path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listener.bind(str(tmp_path / "s"))
        listener.listen(128)
        notified.bind(str(notify_path))
        notified.settimeout(30)
        with activated(tmp_path, listener, notify_path) as server:
            assert b"READY=1" in notified.recv(4096).split(b"\n")
            server.wait_for_journals(2)
            for value in range(20):
                assert server.request("POST", "/event", {"timestamp": now(), "value": value})[0] == 200
            clients = [server.client() for _ in range(8)]  # both workers have connections of the passed socket
            for client in clients:
                assert client.request("GET", "/statistics")[1]["count"] == 20
                client.close()
            assert len(server.workers()) == 2
            stop(server)
            assert (tmp_path / "s").exists()  # it is systemd's
            waiting = server.connect()
            waiting.sendall(b"GET /statistics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with activated(tmp_path, listener, notify_path), waiting:
            assert b"READY=1" in notified.recv(4096).split(b"\n")
            answer = b""
            while piece := waiting.recv(65536):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"count":20' in answer.replace(b" ", b"")


def test_settings_that_cannot_work_end_with_the_status_that_stops_restarts(tmp_path: Path) -> None:
    """RestartPreventExitStatus names the status with which a start is refused."""
    assert f"RestartPreventExitStatus={os.EX_CONFIG}\n" in (DEPLOY / "statsapi.service").read_text()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(128)
        (tmp_path / "events.db").mkdir()
        with activated(tmp_path, listener, tmp_path / "nobody") as server:
            status = wait_until(server.process.poll, "the refusal")
        assert status == os.EX_CONFIG
