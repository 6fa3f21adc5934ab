"""The peers: how each is started with its stock settings, written to, asked, killed, and how much it holds.

A `Peer` is one server on 127.0.0.1 with its files in one folder. `PEERS` names all, statsapi among them. Everything is
asked over the network by one kind of client for all (`http.client`; redis-py for Redis), so that what the client
takes is the same for each.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psycopg
import redis

from benchmarks.load import Answer, events, read_http
from benchmarks.peer_table import TABLE
from benchmarks.peers import programs
from statsapi.times import format_timestamp
from tests.servers import (
    ROOT,
    PostgresServer,
    RedisServer,
    Server,
    free_port,
    start_gunicorn,
    stop,
    wait_until,
)

HOUR_S, DAY_S = 3600, 86_400


@dataclass(frozen=True)
class Columns:
    """Events in order of time: int64 microseconds since 1970 and float64 values, of one length."""

    ts_us: np.ndarray[Any, np.dtype[np.int64]]
    values: np.ndarray[Any, np.dtype[np.float64]]

    def stamps(self) -> list[str]:
        """As ISO 8601 with milliseconds and Z."""
        return [f"{stamp}Z" for stamp in np.datetime_as_string(self.ts_us.astype("M8[us]"), unit="ms").tolist()]

    def rows(self) -> Iterator[tuple[int, float]]:
        return zip(self.ts_us.tolist(), self.values.tolist(), strict=True)


@dataclass(frozen=True)
class Form:
    """One way to write many events at once; `beside` is the form of statsapi that is most like it."""

    encode: Callable[[Columns], bytes]
    path: str = ""
    media_type: str = "application/octet-stream"
    beside: str = "CSV"


class Refused(Exception):
    """The peer did not take an event; the text is what it said."""


class Peer(ABC):
    """One server of a peer, not yet started. Its folder outlives `stop`, `kill` and the next `start`."""

    name: ClassVar[str]
    program: ClassVar[str] = ""  # from PATH or of Debian's package; empty for what this repository holds
    forms: ClassVar[dict[str, Form]] = {}
    fill_with: ClassVar[str] = ""
    questions: ClassVar[tuple[str, ...]] = ()
    stock: ClassVar[str] = ""  # what is not its stock setting, or which of several it runs with

    def __init__(self, directory: Path, workers: int = 2) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.workers = workers
        self.port = 0
        self._client: http.client.HTTPConnection | None = None

    @classmethod
    def require(cls) -> None:
        """Raises `Missing` where the program cannot be had."""
        if cls.program:
            programs.program(cls.program)

    @property
    def target(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Peer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stopped if it runs, and what lies outside of its folder removed."""
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Ready for requests when it returns."""

    @abstractmethod
    def stop(self) -> None:
        """As its operator would, and waits for its end."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL to all of its processes."""

    @abstractmethod
    def pids(self) -> set[int]:
        """Of all its processes."""

    def version(self) -> str:
        """As the program or its package tells; empty for those of this repository."""
        return ""

    def requests(self) -> Iterator[bytes]:
        """Single events without end, one request each, for `load.run_load`."""
        return events()

    def read(self, answer: bytes) -> Answer:
        """What is known of the answer to one of `requests`, as `load.run_load` wants it."""
        return read_http(answer)

    def record(self, ts_us: int, value: float, attempt: str = "") -> None:
        """One event, as its users would write it; `attempt` names a request that may be sent again."""
        body = json.dumps({"timestamp": format_timestamp(ts_us), "value": value}).encode()
        self.call("POST", "/event", body, {"Content-Type": "application/json"})

    def sender(self, form: Form) -> Callable[[bytes], None]:
        """Opens a connection and returns what sends one encoded batch over it and waits for the acknowledgement."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        client.connect()
        headers = {"Content-Type": form.media_type}

        def send(body: bytes) -> None:
            while True:
                client.request("POST", form.path, body, headers)
                response = client.getresponse()
                answer = response.read()
                if response.status not in (429, 503):
                    break
                time.sleep(float(response.headers.get("Retry-After", "1")) / 20)
            if response.status >= 300:
                raise Refused(f"{response.status} {answer[:200]!r}")

        return send

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        """The answer to one of `questions`, over that many last seconds. Absent values are NaN. `Refused` by those that
        hold no events.
        """
        raise Refused(f"{self.name} holds no events: it cannot answer {question!r}")

    def count(self) -> int:
        found = self.ask("moments")["count"]
        return 0 if found != found else int(found)

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        """One request over a connection that stays; `Refused` unless 2xx."""
        if self._client is None or self._client.sock is None or select.select([self._client.sock], [], [], 0)[0]:
            self.hang_up()  # what can be read before a question is the end of a connection that was idle for long
            self._client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            self._client.request(method, path, body, headers or {})
            response = self._client.getresponse()
            answer = response.read()
        except (http.client.HTTPException, OSError):
            self.hang_up()
            raise
        if response.status >= 300:
            raise Refused(f"{response.status} {answer[:200].decode(errors='replace')}")
        return answer

    def hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def disk_bytes(self) -> int:
        return sum(path.lstat().st_blocks * 512 for path in self.directory.rglob("*"))

    def memory_bytes(self) -> int:
        """Proportional set size of all processes: what several share counts once."""
        return sum(_pss_bytes(pid) for pid in self.pids())


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _in_session(session: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.add(int(stat.parent.name))
    return found


def _ready(ask: Callable[[], object]) -> Callable[[], bool]:
    """Whether it answers at all."""

    def asked() -> bool:
        try:
            ask()
        except Refused:
            return True
        except (OSError, http.client.HTTPException):
            return False
        return True

    return asked


class ProgramPeer(Peer):
    """A peer that is one program in the foreground, in a session of its own."""

    _process: subprocess.Popen[bytes]

    def start(self) -> None:
        self.port = self.port or free_port()
        command, env = self.command()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(_ready(self._looked_at), f"{self.name} to answer", deadline_s=120)
            self.prepare()
        except BaseException:
            self.kill()
            raise

    def _looked_at(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended:\n{(self.directory / 'log').read_text(errors='replace')[-2000:]}")
        self.call("GET", self.ready_path)

    ready_path: ClassVar[str] = "/"

    @abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """Its command line, and what is added to the environment."""

    def prepare(self) -> None:
        """Tables and the like, when it answers."""

    def stop(self) -> None:
        self.hang_up()
        self._process.terminate()
        try:
            self._process.wait(120)
        finally:
            self.kill()

    def kill(self) -> None:
        self.hang_up()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def pids(self) -> set[int]:
        return _in_session(self._process.pid)


class GunicornPeer(Peer):
    """An application on the project's Gunicorn settings."""

    app: ClassVar[str]

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        self._server: Server = start_gunicorn(
            self.directory,
            app=self.app,
            workers=self.workers,
            bind=f"127.0.0.1:{self.port}",
            env=self.environment(),
        )
        try:
            wait_until(lambda: "Listening at: http" in self._server.log, f"{self.name} to listen")
            self.port = int(self._server.target.rpartition(":")[2])
            self.wait()
        except BaseException:
            self.kill()
            raise

    def wait(self) -> None:
        wait_until(_ready(lambda: self.call("GET", "/")), f"{self.name} to answer")
        wait_until(lambda: self._server.log.count("Booting worker") >= self.workers, f"{self.workers} workers")

    def stop(self) -> None:
        self.hang_up()
        stop(self._server)

    def kill(self) -> None:
        self.hang_up()
        with suppress(ProcessLookupError):
            os.killpg(self._server.process.pid, signal.SIGKILL)
        self._server.process.wait()

    def pids(self) -> set[int]:
        return _in_session(self._server.process.pid)


# statsapi


def _iso_csv(columns: Columns) -> bytes:
    pairs = zip(columns.stamps(), columns.values.tolist(), strict=True)
    return ("timestamp,value\n" + "".join(f"{stamp},{value!r}\n" for stamp, value in pairs)).encode()


def _iso_lines(columns: Columns) -> list[str]:
    pairs = zip(columns.stamps(), columns.values.tolist(), strict=True)
    return [f'{{"timestamp":"{stamp}","value":{value!r}}}' for stamp, value in pairs]


def _columns(stamps: Sequence[object], columns: Columns) -> bytes:
    return json.dumps({"timestamp": stamps, "value": columns.values.tolist()}, separators=(",", ":")).encode()


class Statsapi(GunicornPeer):
    name = "statsapi"
    app = "wsgi:app"
    forms: ClassVar = {
        "integer columns": Form(
            lambda each: _columns((each.ts_us // 1000).tolist(), each), "/events", "application/json", "integer columns"
        ),
        "ISO columns": Form(lambda each: _columns(each.stamps(), each), "/events", "application/json", "ISO columns"),
        "CSV": Form(_iso_csv, "/events", "text/csv", "CSV"),
        "NDJSON": Form(lambda each: "\n".join(_iso_lines(each)).encode(), "/events", "application/x-ndjson", "NDJSON"),
        "JSON": Form(lambda each: f"[{','.join(_iso_lines(each))}]".encode(), "/events", "application/json", "JSON"),
    }
    fill_with = "integer columns"
    questions = ("moments", "p99", "variance")

    def wait(self) -> None:
        wait_until(_ready(lambda: self.call("GET", "/")), f"{self.name} to answer")
        self._server.wait_for_journals(self.workers)

    def record(self, ts_us: int, value: float, attempt: str = "") -> None:
        body = json.dumps({"timestamp": format_timestamp(ts_us), "value": value}).encode()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": attempt} if attempt else {})
        self.call("POST", "/event", body, headers)

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        asked = {
            "moments": "" if window_s == HOUR_S else f"?window={window_s}s",
            "p99": f"?window={window_s}s&stats=count&percentiles=99",
            "variance": f"?window={window_s}s&stats=variance",
        }
        found = json.loads(self.call("GET", "/statistics" + asked[question]))
        if question == "p99":
            return {"p99": _number(found["percentiles"]["99"])}
        return {name: _number(found[name]) for name in found if isinstance(found[name], int | float | None)}


def _number(found: float | None) -> float:
    return float("nan") if found is None else float(found)


class StatsapiAgain(Statsapi):
    """A second server of the same: how far its ratio is from 1 is the noise of the method."""

    name = "statsapi again (noise)"


# On the same Gunicorn


class Flask(GunicornPeer):
    name = "bare Flask"
    app = "benchmarks.hello:app"


class Wsgi(GunicornPeer):
    name = "bare WSGI"
    app = "benchmarks.hello:bare"


class Table(GunicornPeer):
    name = "Flask and a Postgres table"
    app = "benchmarks.peer_table:app"
    forms: ClassVar = {
        "COPY, without Flask": Form(
            lambda each: "".join(
                f"{stamp}\t{value!r}\n" for stamp, value in zip(each.stamps(), each.values.tolist(), strict=True)
            ).encode(),
            beside="CSV",
        )
    }
    fill_with = "COPY, without Flask"
    questions = ("moments", "p99", "variance")
    stock = "shared_buffers 256 MB; synchronous_commit on"

    @classmethod
    def require(cls) -> None:
        programs.postgres_binaries()

    def __init__(self, directory: Path, workers: int = 2) -> None:
        super().__init__(directory, workers)
        self._database: PostgresServer | None = None

    commit: ClassVar[str] = "on"

    def environment(self) -> dict[str, str]:
        assert self._database is not None
        url = f"postgresql://postgres@127.0.0.1:{self._database.port}/postgres"
        return {"PEER_DATABASE": url, "PEER_COMMIT": self.commit}

    def start(self) -> None:
        if self._database is None:
            folder = PostgresServer.folder()
            self._database = PostgresServer(programs.postgres_binaries(), folder, shared_buffers="256MB").initialise()
        self._database.start()
        self._database.ask(TABLE)
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._database is not None:
            self._database.stop()

    def close(self) -> None:
        self.stop()
        if self._database is not None:
            shutil.rmtree(self._database.directory, ignore_errors=True)

    def kill(self) -> None:
        super().kill()
        if self._database is not None:
            self._database.kill()

    def pids(self) -> set[int]:
        assert self._database is not None
        assert self._database.process is not None
        return super().pids() | {self._database.process.pid, *self._database.children()}

    def disk_bytes(self) -> int:
        assert self._database is not None
        return sum(path.lstat().st_blocks * 512 for path in self._database.directory.rglob("*"))

    def version(self) -> str:
        assert self._database is not None
        return f"PostgreSQL {self._database.ask('SHOW server_version')[0][0].split()[0]}"

    def sender(self, form: Form) -> Callable[[bytes], None]:
        connection = psycopg.connect(self.environment()["PEER_DATABASE"], autocommit=True)

        def send(body: bytes) -> None:
            with connection.cursor().copy("COPY events FROM STDIN") as copy:
                copy.write(body)

        return send

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        more = {"moments": "", "p99": "&percentiles=99", "variance": "&variance=1"}[question]
        found = json.loads(self.call("GET", f"/statistics?seconds={window_s}{more}"))
        return {name: _number(each) for name, each in found.items()}


class TableUnsynced(Table):
    name = "Flask and a Postgres table, commit off"
    commit = "off"
    stock = "shared_buffers 256 MB; synchronous_commit off, which is about our fsync=interval"


# FastAPI and a deque: the design that statsapi grew from


class Seed(ProgramPeer):
    name = "FastAPI and a deque, sync handlers"
    questions = ("moments",)
    arguments: ClassVar[tuple[str, ...]] = ()
    preload = 0

    def python(self) -> str:
        return sys.executable

    def command(self) -> tuple[list[str], dict[str, str]]:
        preload = ["--preload", str(self.preload)] if self.preload else []
        module = ["-m", "benchmarks.peer_seed", "--port", str(self.port)]
        return [self.python(), *module, *self.arguments, *preload], {}

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        return {name: _number(each) for name, each in json.loads(self.call("GET", "/statistics")).items()}


class SeedAsync(Seed):
    name = "FastAPI and a deque, asyncio, no access log"
    arguments = ("--best",)


class SeedUvloop(SeedAsync):
    name = "FastAPI and a deque, uvloop and httptools"

    @classmethod
    def require(cls) -> None:
        programs.uvloop_python()

    def python(self) -> str:
        return programs.uvloop_python()


# Databases


def _posts(path: str, template: str, *, unit_us: int = 1) -> Iterator[bytes]:
    """POSTs whose body is the template with `at` and `value`, from now on, a microsecond apart, all of one length."""
    ts_us = time.time_ns() // 1000
    length = len(template % {"at": ts_us // unit_us, "value": 100_000})
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Length: {length}\r\n\r\n"
    request = (head.replace("%", "%%") + template).encode()
    while True:
        yield request % {b"at": ts_us // unit_us, b"value": 100_000 + ts_us * 7919 % 900_000}
        ts_us += 1


class VictoriaMetrics(ProgramPeer):
    name = "VictoriaMetrics"
    program = "victoria-metrics"
    forms: ClassVar = {
        "JSON lines of columns": Form(
            lambda each: json.dumps(
                {
                    "metric": {"__name__": "events"},
                    "values": each.values.tolist(),
                    "timestamps": (each.ts_us // 1000).tolist(),
                },
                separators=(",", ":"),
            ).encode(),
            "/api/v1/import",
            beside="integer columns",
        ),
        "CSV": Form(
            lambda each: "".join(f"{ts_us // 1000},{value!r}\n" for ts_us, value in each.rows()).encode(),
            "/api/v1/import/csv?format=" + urllib.parse.quote("1:time:unix_ms,2:metric:events"),
            beside="CSV",
        ),
        "Prometheus text": Form(
            lambda each: "".join(f"events {value!r} {ts_us // 1000}\n" for ts_us, value in each.rows()).encode(),
            "/api/v1/import/prometheus",
            beside="CSV",
        ),
    }
    fill_with = "JSON lines of columns"
    questions = ("moments", "p99", "variance")
    stock = (
        "search.latencyOffset 1 ms (stock: 30 s); its series exists before, as it remembers for long that one did not"
    )
    ready_path = "/health"

    def command(self) -> tuple[list[str], dict[str, str]]:
        found = programs.program(self.program)
        return [
            found.path,
            f"-httpListenAddr=127.0.0.1:{self.port}",
            f"-storageDataPath={self.directory}/data",
            "-search.latencyOffset=1ms",
        ], found.env

    def prepare(self) -> None:
        """The series among those of today, by an event outside the window.

        Who asks for it before it is there finds nothing for many seconds after, which is no fault of a running service.
        """
        if (self.directory / "prepared").exists():
            return
        now_us = time.time_ns() // 1000
        before = 2 * HOUR_S if now_us // 1_000_000 % DAY_S > 2 * HOUR_S else -2 * HOUR_S
        self.record(now_us - before * 1_000_000, 0.0)
        time.sleep(2)
        wait_until(lambda: self.call("GET", "/api/v1/export?match[]=events"), "VictoriaMetrics to know the series")
        (self.directory / "prepared").touch()

    def version(self) -> str:
        return f"VictoriaMetrics {programs.program(self.program).version}".rstrip()  # Debian's build tells none

    def requests(self) -> Iterator[bytes]:
        return _posts("/api/v1/import/prometheus", "events %(value)d.25 %(at)d\n", unit_us=1000)

    def record(self, ts_us: int, value: float, attempt: str = "") -> None:
        self.call("POST", "/api/v1/import/prometheus", f"events {_written(value)} {ts_us // 1000}\n".encode())

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        span = f"events[{window_s}s]"
        names = ("count", "min", "max", "mean")
        query = {
            "moments": 'aggr_over_time(("count_over_time","min_over_time","max_over_time","avg_over_time"), '
            + span
            + ")",
            "p99": f"quantile_over_time(0.99, {span})",
            "variance": f"stdvar_over_time({span}) * count_over_time({span}) / (count_over_time({span}) - 1)",
        }[question]
        asked = urllib.parse.urlencode({"query": query, "time": f"{time.time():.3f}", "nocache": 1})
        found = json.loads(self.call("GET", f"/api/v1/query?{asked}"))["data"]["result"]
        if question != "moments":
            return {question: float(found[0]["value"][1]) if found else float("nan")}
        rollups = {each["metric"].get("rollup"): float(each["value"][1]) for each in found}
        keys = ("count_over_time", "min_over_time", "max_over_time", "avg_over_time")
        return {name: rollups.get(key, float("nan")) for name, key in zip(names, keys, strict=True)}


def _written(value: float) -> str:
    return "NaN" if value != value else repr(value)


class Influx(ProgramPeer):
    name = "InfluxDB"
    program = "influxd"
    forms: ClassVar = {
        "line protocol": Form(
            lambda each: "".join(f"events value={value!r} {ts_us}\n" for ts_us, value in each.rows()).encode(),
            "/write?db=peer&precision=u",
            beside="CSV",
        )
    }
    fill_with = "line protocol"
    questions = ("moments", "p99", "variance")
    stock = "without its log of requests"
    ready_path = "/ping"

    def command(self) -> tuple[list[str], dict[str, str]]:
        found = programs.program(self.program)
        self._control = getattr(self, "_control", 0) or free_port()
        settings = {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{self._control}",
            "INFLUXDB_META_DIR": f"{self.directory}/meta",
            "INFLUXDB_DATA_DIR": f"{self.directory}/data",
            "INFLUXDB_DATA_WAL_DIR": f"{self.directory}/wal",
            "INFLUXDB_DATA_QUERY_LOG_ENABLED": "false",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "INFLUXDB_HTTP_LOG_ENABLED": "false",
        }
        (self.directory / "influxdb.conf").touch()
        return [found.path, "-config", str(self.directory / "influxdb.conf")], found.env | settings

    def prepare(self) -> None:
        self.call("POST", "/query?q=CREATE+DATABASE+peer")

    def version(self) -> str:
        client = http.client.HTTPConnection("127.0.0.1", self.port)
        client.request("GET", "/ping")
        return f"InfluxDB {client.getresponse().headers.get('X-Influxdb-Version', '')}"

    def requests(self) -> Iterator[bytes]:
        return _posts("/write?db=peer&precision=u", "events value=%(value)d.25 %(at)d\n")

    def record(self, ts_us: int, value: float, attempt: str = "") -> None:
        self.call("POST", "/write?db=peer&precision=u", f"events value={_written(value)} {ts_us}\n".encode())

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        what = {
            "moments": "COUNT(value),MIN(value),MAX(value),MEAN(value)",
            "p99": "PERCENTILE(value,99)",
            "variance": "STDDEV(value)",
        }[question]
        query = f"SELECT {what} FROM events WHERE time >= now() - {window_s}s"
        (result,) = json.loads(self.call("GET", "/query?" + urllib.parse.urlencode({"db": "peer", "q": query})))[
            "results"
        ]
        if "error" in result:
            raise Refused(result["error"])
        if "series" not in result:
            return dict.fromkeys(("count", "min", "max", "mean", "p99", "variance"), float("nan"))
        row = [_number(each) for each in result["series"][0]["values"][0][1:]]
        if question == "variance":
            return {"variance": row[0] ** 2}
        return dict(zip(("count", "min", "max", "mean") if question == "moments" else ("p99",), row, strict=True))


def _varint(number: int) -> bytes:
    made = b""
    while number > 127:
        made += bytes([number & 127 | 128])
        number >>= 7
    return made + bytes([number])


def _text(text: str) -> bytes:
    return _varint(len(text)) + text.encode()


def _native(each: Columns) -> bytes:
    """A block of ClickHouse's own column format."""
    block = _varint(2) + _varint(len(each.ts_us)) + _text("at") + _text("Int64") + each.ts_us.astype("<i8").tobytes()
    return block + _text("value") + _text("Float64") + each.values.astype("<f8").tobytes()


def _insert(form: str) -> str:
    return "/?query=" + urllib.parse.quote(f"INSERT INTO events FORMAT {form}")


class ClickHouse(ProgramPeer):
    name = "ClickHouse"
    program = "clickhouse-server"
    forms: ClassVar = {
        "Native columns": Form(_native, _insert("Native"), beside="integer columns"),
        "CSV": Form(
            lambda each: "".join(f"{ts_us},{value!r}\n" for ts_us, value in each.rows()).encode(),
            _insert("CSV"),
            beside="CSV",
        ),
        "JSONEachRow": Form(
            lambda each: "".join(f'{{"at":{ts_us},"value":{value!r}}}\n' for ts_us, value in each.rows()).encode(),
            _insert("JSONEachRow"),
            beside="NDJSON",
        ),
    }
    fill_with = "Native columns"
    questions = ("moments", "p99", "variance")
    stock = "MergeTree ordered by an Int64 of microseconds; its users' settings are Debian's"
    ready_path = "/ping"

    def command(self) -> tuple[list[str], dict[str, str]]:
        found = programs.program(self.program)
        self._native_port = getattr(self, "_native_port", 0) or free_port()
        folders = "".join(
            f"<{name}>{self.directory}/{folder}/</{name}>"
            for name, folder in (
                ("path", "data"),
                ("tmp_path", "tmp"),
                ("user_files_path", "files"),
                ("format_schema_path", "schemas"),
            )
        )
        (self.directory / "config.xml").write_text(
            f"<yandex><logger><level>warning</level><console>1</console></logger><http_port>{self.port}</http_port>"
            f"<tcp_port>{self._native_port}</tcp_port><listen_host>127.0.0.1</listen_host>{folders}"
            "<users_config>users.xml</users_config><default_profile>default</default_profile>"
            "<default_database>default</default_database><keep_alive_timeout>3</keep_alive_timeout><mark_cache_size>5368709120</mark_cache_size></yandex>"
        )
        users = Path(found.path).parent.parent.parent / "etc/clickhouse-server/users.xml"
        shutil.copy(users, self.directory / "users.xml")
        return [found.path, f"--config-file={self.directory}/config.xml"], found.env

    def prepare(self) -> None:
        self._run("CREATE TABLE IF NOT EXISTS events (at Int64, value Float64) ENGINE MergeTree ORDER BY at")

    def _run(self, statement: str) -> str:
        return self.call("POST", "/", statement.encode()).decode()

    def version(self) -> str:
        return f"ClickHouse {self._run('SELECT version()').strip()}"

    def requests(self) -> Iterator[bytes]:
        return _posts(_insert("CSV"), "%(at)d,%(value)d.25\n")

    def record(self, ts_us: int, value: float, attempt: str = "") -> None:
        self.call("POST", _insert("CSV"), f"{ts_us},{value!r}\n".encode())

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        names, what = {
            "moments": (("count", "min", "max", "mean"), "count(), min(value), max(value), avg(value)"),
            "p99": (("p99",), "quantileExact(0.99)(value)"),
            "variance": (("variance",), "varSamp(value)"),
        }[question]
        since_us = time.time_ns() // 1000 - window_s * 1_000_000
        query = urllib.parse.urlencode({"query": f"SELECT {what} FROM events WHERE at >= {since_us}"})
        row = self.call("GET", f"/?{query}").decode().split()
        return {name: float(each) for name, each in zip(names, row, strict=True)}


_REDIS_MOMENTS = """
local low, high, sum, count = math.huge, -math.huge, 0, 0
for _, row in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf')) do
  local value = tonumber(string.match(row, ':([^:]*)$'))
  count = count + 1
  sum = sum + value
  if value < low then low = value end
  if value > high then high = value end
end
return {tostring(count), string.format('%.17g', low), string.format('%.17g', high), string.format('%.17g', sum / count)}
"""
_REDIS_P99 = """
local values = {}
for at, row in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf')) do
  values[at] = tonumber(string.match(row, ':([^:]*)$'))
end
table.sort(values)
return {string.format('%.17g', values[math.ceil(#values * 0.99)])}
"""


def _command(*words: str) -> bytes:
    """As Redis's protocol writes it; words of ASCII."""
    return "".join([f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]).encode()


class RedisSet(Peer):
    name = "Redis, a sorted set"
    program = "redis-server"
    forms: ClassVar = {
        "ZADD of many": Form(
            lambda each: _command(
                "ZADD",
                "events",
                *(word for ts_us, value in each.rows() for word in (str(ts_us), f"{ts_us}:{value!r}")),
            ),
            beside="integer columns",
        )
    }
    fill_with = "ZADD of many"
    questions = ("moments", "p99")
    stock = "appendonly yes, appendfsync everysec (stock: snapshots only); statistics in a Lua script"

    def __init__(self, directory: Path, workers: int = 2) -> None:
        super().__init__(directory, workers)
        self._server = RedisServer(programs.program(self.program).path, directory, appendfsync="everysec")
        self.port = self._server.port

    def start(self) -> None:
        self._server.start()
        self._redis = redis.Redis(port=self.port, socket_timeout=600)
        wait_until(self._is_loaded, "Redis to have loaded its file", deadline_s=120)
        self._scripts = {"moments": self._redis.register_script(_REDIS_MOMENTS)}
        self._scripts["p99"] = self._redis.register_script(_REDIS_P99)

    def _is_loaded(self) -> bool:
        try:
            return bool(self._redis.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        assert self._server.process is not None
        self._server.process.terminate()
        self._server.process.wait(120)

    def kill(self) -> None:
        self._server.kill()

    def pids(self) -> set[int]:
        assert self._server.process is not None
        return {self._server.process.pid}

    def version(self) -> str:
        return f"Redis {self._redis.info('server')['redis_version']}"

    def requests(self) -> Iterator[bytes]:
        ts_us = time.time_ns() // 1000
        while True:
            yield _command("ZADD", "events", str(ts_us), f"{ts_us}:{100_000 + ts_us * 7919 % 900_000}.25")
            ts_us += 1

    def read(self, answer: bytes) -> Answer:
        return (answer.startswith(b":"), False) if answer.endswith(b"\r\n") else None

    def record(self, ts_us: int, value: float, attempt: str = "") -> None:
        self._redis.zadd("events", {f"{attempt or os.urandom(8).hex()}:{value!r}": ts_us})

    def sender(self, form: Form) -> Callable[[bytes], None]:
        connection: Any = self._redis.connection_pool.get_connection()  # redis-py has no types for it
        connection.connect()

        def send(body: bytes) -> None:
            connection.send_packed_command([body])
            connection.read_response()

        return send

    def ask(self, question: str, window_s: int = HOUR_S) -> dict[str, float]:
        since_us = time.time_ns() // 1000 - window_s * 1_000_000
        names = {"moments": ("count", "min", "max", "mean"), "p99": ("p99",)}[question]
        row = self._scripts[question](keys=["events"], args=[since_us])
        return {name: float(each) for name, each in zip(names, row, strict=True)}


PEERS: tuple[type[Peer], ...] = (
    Statsapi,
    StatsapiAgain,
    Seed,
    SeedAsync,
    SeedUvloop,
    Flask,
    Wsgi,
    Table,
    TableUnsynced,
    VictoriaMetrics,
    Influx,
    ClickHouse,
    RedisSet,
)
