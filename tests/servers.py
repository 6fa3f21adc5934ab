"""Real Gunicorn servers for tests and benchmarks, and a small WSGI application that shows which worker answered.

    with gunicorn_server(tmp_path, workers=2) as server:
        status, body = server.request("GET", "/statistics")

A server runs in a process group of its own, which is all that is ever signalled or killed. Its log is a file; a port
is chosen by the kernel and read from that log. Nothing sleeps for correctness: everything polls with a deadline.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import psycopg
from werkzeug.serving import WSGIRequestHandler, make_server

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.times import format_timestamp

ROOT = Path(__file__).parent.parent
DEADLINE_S = 30.0  # for everything that takes milliseconds on a quiet machine


def wait_until(condition: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition()`; fails after the deadline, naming `what` was waited for."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:.0f} s for {what}")
        time.sleep(0.01)
    return value


class Server:
    """A running Gunicorn. `target` is `http://host:port` or `unix:/path`."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path, bind: str) -> None:
        self.process = process
        self._log_path = log_path
        self._bind = bind

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    @property
    def target(self) -> str:
        if self._bind.startswith("unix:"):
            return self._bind
        found = re.search(r"Listening at: (http://\S+)", self.log)
        assert found, self.log
        return found[1]

    def connect(self, timeout_s: float = DEADLINE_S) -> socket.socket:
        if self._bind.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout_s)
            try:
                sock.connect(self._bind.removeprefix("unix:"))
            except OSError:
                sock.close()
                raise
            return sock
        host, _, port = self.target.removeprefix("http://").rpartition(":")
        sock = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
        # http.client sends head and body apart: without this the body waits 40 ms for the head's acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def client(self) -> Client:
        return Client(self)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request on a connection of its own: the status and the decoded JSON."""
        with self.client() as client:
            return client.request(method, path, body, headers)

    def workers(self) -> set[int]:
        """The pids of the arbiter's children."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
                if int(parent) == self.process.pid and state != "Z":
                    found.add(int(stat.parent.name))
        return found

    def wait_for_journals(self, count: int) -> None:
        """Wait until this many workers have opened their journal: before that, connections go to those that have."""
        self.wait_until(lambda: self.log.count("Opened the journal") >= count, f"{count} journals")

    def cpu_seconds(self) -> float:
        """What the workers have used of processors so far."""
        ticks = 0
        for pid in self.workers():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_for_workers(self, count: int, *, besides: Collection[int] = ()) -> set[int]:
        """The pids when exactly `count` workers answer `/pid` and none of them is in `besides`."""

        def answering() -> set[int]:
            alive = self.workers()
            if len(alive) != count or not alive.isdisjoint(besides):
                return set()
            # Held open together, or one worker could answer all; enough of them to make up for what a test holds.
            answered: set[int] = set()
            with ExitStack() as clients:
                for _ in range(16 * count):
                    try:
                        answered.add(clients.enter_context(self.client()).request("GET", "/pid")[1])
                    except (OSError, http.client.HTTPException):
                        return set()
                    if answered == alive:
                        return alive
            return set()

        return self.wait_until(answering, f"{count} workers")

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return wait_until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_for_log(self, text: str) -> None:
        self.wait_until(lambda: text in self.log, f"{text!r} in the log")


class Client:
    """A keep-alive HTTP client that opens its connection again only when the server said it would close it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("localhost")
            self._connection.auto_open = 0  # a connection that breaks is a failure, not a reason to try again
            self._connection.sock = self._server.connect()
        payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {} if payload is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, payload, {**kind, **(headers or {})})
        response = self._connection.getresponse()
        text = response.read()
        if response.will_close:
            self.close()
        return response.status, json.loads(text) if text else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def now() -> str:
    return format_timestamp(time.time_ns() // 1000)


def post(server: Server, value: float) -> tuple[int, Any]:
    return server.request("POST", "/event", {"timestamp": now(), "value": value})


def _inherited(but: tuple[str, ...]) -> dict[str, str]:
    """The environment of a server that is started: this one without what begins so, but the switch that CI sets for the
    whole run.
    """
    return {
        name: value for name, value in os.environ.items() if name == "STATSAPI_SHORTCUTS" or not name.startswith(but)
    }


def start_gunicorn(
    directory: Path,
    *,
    app: str = "wsgi:app",
    workers: int | None = 2,
    bind: str = "127.0.0.1:0",
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
) -> Server:
    """Start Gunicorn with the project's gunicorn.conf.py, not waiting for it. Journal and HOME lie in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    log_path = directory / "gunicorn.log"
    inherited = _inherited(("STATSAPI_", "GUNICORN_"))
    inherited.pop("WEB_CONCURRENCY", None)
    # The script, as people start it: `python -m gunicorn` cannot start its own successor (USR2).
    command = [sys.executable, str(Path(sys.executable).with_name("gunicorn")), "--bind", bind]
    if workers is not None:
        command += ["--workers", str(workers)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, *args, app],
            cwd=ROOT,
            env={
                **inherited,
                "HOME": str(directory),
                "XDG_RUNTIME_DIR": str(directory),
                "STATSAPI_JOURNAL": f"sqlite:///{directory}/events.db",
                **(env or {}),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(process, log_path, bind)


def serve_environment(directory: Path, env: Mapping[str, str], *, installed: bool = False) -> dict[str, str]:
    """That of a `statsapi serve` started in `directory`: no settings but `env`; this checkout's package, unless one is
    `installed`.
    """
    theirs = ("STATSAPI_", "GUNICORN_", "WEB_CONCURRENCY", "PYTHONPATH")
    inherited = _inherited(theirs)
    place = {} if installed else {"PYTHONPATH": str(ROOT)}
    return {**inherited, "HOME": str(directory), **place, **env}


@contextmanager
def statsapi_serve(
    directory: Path,
    *arguments: str,
    command: Sequence[str] = (sys.executable, "-m", "statsapi"),
    env: Mapping[str, str] | None = None,
    installed: bool = False,
) -> Iterator[Server]:
    """`statsapi serve` with these arguments in `directory`, ready when it answers; its log lies beside that folder."""
    log_path = directory.with_name(f"{directory.name}.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "serve", *arguments],
            cwd=directory,
            env=serve_environment(directory, env or {}, installed=installed),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, log_path, "")
    try:
        wait_until(lambda: _answers(server), "the server to answer")
        yield server
    finally:
        stop(server)


@contextmanager
def gunicorn_server(directory: Path, **options: Any) -> Iterator[Server]:
    """`start_gunicorn`, ready when it answers; stopped by SIGTERM at the end, its whole group killed if that fails."""
    server = start_gunicorn(directory, **options)
    try:
        wait_until(lambda: _answers(server), "the server to answer")
        yield server
    finally:
        stop(server)


def stop(server: Server) -> int:
    """SIGTERM, wait, and whatever is left of the process group is killed. Returns the exit status."""
    try:
        with suppress(ProcessLookupError):
            server.process.terminate()
        return server.process.wait(DEADLINE_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


def _answers(server: Server) -> bool:
    if server.process.poll() is not None:
        raise AssertionError(f"the server ended with status {server.process.returncode}\n{server.log}")
    try:
        server.request("GET", "/")
    except (OSError, AssertionError, http.client.HTTPException):
        return False
    return True


class _SilentHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as Gunicorn keeps them

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: what a test does not read hides what it prints."""


@contextmanager
def served_here(settings: Settings) -> Iterator[str]:
    """The URL of an application that threads of this process serve: 30 ms where Gunicorn takes a second, for tests of
    what asks a service over HTTP and does not care who serves it.
    """
    app = create_app(settings)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_SilentHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["statsapi"].close()


# Redis


def free_port() -> int:
    """A port that nothing listens at, for programs that cannot be asked which one the kernel chose."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def send_redis(port: int, *words: str, timeout_s: float = DEADLINE_S) -> str:
    """One command to the server on this port, and its answer as text; ConnectionError while it does not answer."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as sock:
        sock.sendall(
            "".join([f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]).encode()
        )
        answer = b""
        while not _is_whole(answer):
            piece = sock.recv(1 << 16)
            if not piece:
                raise ConnectionError(f"the server on {port} hung up")
            answer += piece
        return answer.decode(errors="replace")


def _is_whole(answer: bytes) -> bool:
    """Enough for what the tests ask: a line, or one string with its length before it, or whatever is in an array."""
    head, found, rest = answer.partition(b"\r\n")
    return bool(found) and (not head.startswith(b"$") or head == b"$-1" or len(rest) >= int(head[1:]) + 2)


class RedisServer:
    """A redis-server or valkey-server on 127.0.0.1 with an append-only file in `directory`; not yet started.

    `options` are those of its configuration. It may be killed, paused and started again on the same port and files.
    """

    def __init__(self, binary: str, directory: Path, port: int | None = None, **options: Any) -> None:
        self.port = port or free_port()
        self.directory = directory
        self._binary = binary
        self.options = {"appendonly": "yes", "save": ""} | options
        if options.get("cluster_enabled") == "yes":  # its nodes talk at port + 10,000 otherwise, which may be no port
            self.options["cluster-port"] = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def journal_url(self, stream: str) -> str:
        return f"{self.url}?stream={stream}"

    def send(self, *words: str) -> str:
        return send_redis(self.port, *words)

    def start(self, *, sentinel: bool = False) -> RedisServer:
        """Start it, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "redis.conf"
        if not config.exists():  # Sentinel writes its findings into it
            lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}"]
            for name, value in self.options.items():
                values = value if isinstance(value, list) else [value]
                lines += [f"{name.replace('_', '-')} {each if each != '' else chr(34) * 2}" for each in values]
            config.write_text("\n".join(lines) + "\n")
        with (self.directory / "log").open("ab") as log:
            command = [self._binary, str(config), *(["--sentinel"] if sentinel else [])]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._answers, f"the server on port {self.port} to answer")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            return self.send("PING").startswith("+PONG")
        except OSError:
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; also when it is paused, or has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def redis_server(binary: str, directory: Path, **options: Any) -> Iterator[RedisServer]:
    """A RedisServer that runs; killed at the end, also while it is paused."""
    server = RedisServer(binary, directory, **options)
    try:
        yield server.start()
    finally:
        server.kill()


class PostgresServer:
    """A PostgreSQL server on 127.0.0.1 with its data in `directory`; made, and not yet started.

    It refuses to run as root, so then it runs as the user `postgres`, and its folder is not under pytest's, which that
    user may not enter. `options` are those of its configuration. It may be killed, paused and started again.
    """

    def __init__(self, binaries: Path, directory: Path, port: int | None = None, **options: Any) -> None:
        self.port = port or free_port()
        self.directory = directory
        self.data = directory / "data"
        self.binaries = binaries
        self.options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "shared_buffers": "32MB",
            "logging_collector": "off",
            "lc_messages": "C",
        } | options
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def folder() -> Path:
        """A new folder that the server's user may enter."""
        directory = Path(tempfile.mkdtemp(prefix="statsapi-pg-", dir="/tmp"))
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
        return directory

    def journal_url(
        self, stream: str = "statsapi", *, port: int | None = None, user: str = "postgres", rest: str = ""
    ) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/postgres?stream={stream}{rest}"

    def command(self, program: str, *arguments: str) -> list[str]:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return [*as_user, str(self.binaries / program), *arguments]

    def run(self, program: str, *arguments: str) -> str:
        """One of its programs, to its end; its output. Fails where it does."""
        done = subprocess.run(
            self.command(program, *arguments),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def initialise(self) -> PostgresServer:
        self.run(
            "initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        return self

    def copy_to(self, directory: Path, **options: Any) -> PostgresServer:
        """A standby of this server, streaming from it; not yet started."""
        standby = PostgresServer(
            self.binaries, directory, **(self.options | {"unix_socket_directories": str(directory)} | options)
        )
        name = options.get("cluster_name", "standby")
        source = f"host=127.0.0.1 port={self.port} user=postgres application_name={name}"
        self.run("pg_basebackup", "-d", source, "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast")
        return standby

    def start(self, *, wait: bool = True) -> PostgresServer:
        with (self.directory / "log").open("ab") as log:
            settings = [f"-c{name}={value}" for name, value in self.options.items()]
            command = self.command("postgres", "-D", str(self.data), f"-p{self.port}", *settings)
            self.process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log, start_new_session=True)
        if wait:
            wait_until(self.answers, f"PostgreSQL on port {self.port} to answer")
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            self.ask("SELECT 1")
        except psycopg.Error:
            return False
        return True

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def ask(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows that a statement gives, each time on a connection of its own."""
        target = f"host={self.directory} port={self.port} user=postgres dbname=postgres connect_timeout=2"
        with psycopg.connect(target, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def signal_all(self, number: int) -> None:
        """To the server with all its processes, each of which has a group of its own."""
        assert self.process is not None
        for pid in [self.process.pid, *self.children()]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def children(self) -> list[int]:
        assert self.process is not None
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(stat.parent.name))
        return found

    def stop(self) -> None:
        """A fast stop (SIGINT): sessions are ended, everything is written."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """SIGKILL to the postmaster and its children, also when they are paused, or have ended."""
        if self.process is not None and self.process.poll() is None:
            children = self.children()
            self.process.kill()
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def postgres_server(binaries: Path, **options: Any) -> Iterator[PostgresServer]:
    """A PostgresServer that runs; killed at the end, also while it is paused, and its folder removed."""
    directory = PostgresServer.folder()
    server = PostgresServer(binaries, directory, **options)
    try:
        yield server.initialise().start()
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


class RefusingPostgres:
    """Speaks as much of PostgreSQL's protocol as it takes to refuse each login, in words of its own language."""

    def __init__(self, state: str, said: str, severity: str) -> None:
        fields = {"S": severity, "V": "FATAL", "C": state, "M": said}
        body = b"".join(name.encode() + text.encode() + b"\0" for name, text in fields.items()) + b"\0"
        self._refusal = b"E" + struct.pack(">i", len(body) + 4) + body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, suppress(OSError):
                while len(head := sock.recv(8, socket.MSG_WAITALL)) == 8:
                    length, code = struct.unpack(">ii", head)
                    sock.recv(length - 8, socket.MSG_WAITALL)
                    if code in (80877103, 80877104):  # wants TLS or GSSAPI
                        sock.sendall(b"N")
                        continue
                    sock.sendall(self._refusal)
                    break

    def close(self) -> None:
        self._listener.close()


class Line:
    """A line to a server on 127.0.0.1 that can be cut: TCP connections to `port` go on to `target`.

    cut():      ends the connections there are, and takes no more until mend()
    swallow():  what the server answers from now on is thrown away, with its connection; what is sent still arrives
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._is_cut = self._swallows = False
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        self._hang_up()

    def swallow(self) -> None:
        self._swallows = True

    def mend(self) -> None:
        self._is_cut = self._swallows = False

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    def _hang_up(self) -> None:
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._open.clear()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), DEADLINE_S)
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for source, sink, answers in ((client, server, False), (server, client, True)):
                sock_args = (source, sink, answers)
                threading.Thread(target=self._carry, args=sock_args, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while (piece := source.recv(1 << 16)) and not (answers and self._swallows):
                sink.sendall(piece)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


# The small application: gunicorn … tests.servers:app


class _Probe:
    """GET /pid: the worker's pid. POST /echo: the body's length. GET /wait?for=path: answers once that file exists.
    GET /told: scheme and path as the server tells them.

    Its service only writes down that Gunicorn's hooks started and closed it.
    """

    def __init__(self) -> None:
        self.extensions = {"statsapi": self}

    def start(self) -> None:
        self._note("start")

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        if path := os.environ.get("PROBE_NOTES"):
            with open(path, "a") as notes:
                notes.write(f"{what} {os.getpid()}\n")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer: Any = os.getpid()
        if environ["PATH_INFO"] == "/wait":
            path = Path(parse_qs(environ["QUERY_STRING"])["for"][0])
            path.with_suffix(".asked").touch()
            wait_until(path.exists, str(path))
        elif environ["PATH_INFO"] == "/echo":
            answer = len(environ["wsgi.input"].read())
        elif environ["PATH_INFO"] == "/told":
            names = {"scheme": "wsgi.url_scheme", "prefix": "SCRIPT_NAME", "forwarded": "HTTP_X_FORWARDED_PROTO"}
            answer = {name: environ.get(key) for name, key in names.items()}
        body = json.dumps(answer).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


app = _Probe()
