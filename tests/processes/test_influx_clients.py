"""The official clients of InfluxDB 1.x, 2 and 3, as PyPI ships them, write to a real server that asks for keys."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import influxdb
import influxdb.exceptions
import influxdb_client_3
import pytest
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client_3.exceptions.exceptions import InfluxDBError as InfluxDB3Error
from influxdb_client_3.exceptions.exceptions import InfluxDBPartialWriteError
from influxdb_client_3.write_client.client.write_api import WriteType

from statsapi.keys import new_key
from tests.servers import Server, gunicorn_server

pytestmark = [
    # The clients' own, which their users meet too.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Place:
    """The server, and keys that may write and read."""

    def __init__(self, server: Server, write: str, read: str) -> None:
        self.server = server
        self.write = write
        self.read = read
        self.url = server.target
        self.port = int(server.target.rpartition(":")[2])

    def count(self, series: str) -> int:
        path = f"/statistics?series={series.replace(';', '%3B')}&stats=count&window=1h"
        status, answer = self.server.request("GET", path, headers={"X-API-Key": self.read})
        assert status == 200
        return answer["count"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    write, entry = new_key(["write"], "writer")
    read, other = new_key(["read"], "reader")
    env = {"STATSAPI_API_KEYS": f"{entry.line()};{other.line()}", "STATSAPI_ACCESS_LOG": "on"}
    args = ["--access-logfile", "-"]
    with gunicorn_server(tmp_path_factory.mktemp("influx"), env=env, args=args) as server:
        yield Place(server, write, read)
        assert write not in server.log
        assert write.removeprefix("statsapi_")[:12] not in server.log


# -- influxdb, of 1.x ----------------------------------------------------------------------------------------------


def of_v1(place: Place, password: str, **more: Any) -> influxdb.InfluxDBClient:
    return influxdb.InfluxDBClient(
        host="127.0.0.1", port=place.port, username="any", password=password, database="metrics", **more
    )


@pytest.mark.parametrize("packed", [False, True])
def test_influxdb_1(place: Place, packed: bool) -> None:
    """Points as dicts and as lines, all precisions, with tags of strange characters; ping; a partial write is told."""
    client = of_v1(place, place.write, gzip=packed)
    host = f"v1 {packed}"
    assert client.ping().startswith("statsapi-")
    now_s = int(time.time())
    for precision, per_second in (("s", 1), ("ms", 1000), ("u", 10**6), (None, 10**9)):
        points = [
            {
                "measurement": "cpu",
                "tags": {"host": host, "odd": "a,b=c d"},
                "time": now_s * per_second,
                "fields": {"usage": 1.5, "cores": 8, "os": 'say "hi", you'},
            }
        ]
        assert client.write_points(points, time_precision=precision)
    assert client.write_points([f"cpu,host={host.replace(' ', chr(92) + ' ')} value=1"], protocol="line")
    for series in (f"cpu.usage;host={host};odd=a,b=c%20d", f"cpu.cores;host={host};odd=a,b=c%20d"):
        assert place.count(series.replace(f"host={host}", f"host=v1%20{packed}")) == 4
    assert place.count(f"cpu;host=v1%20{packed}") == 1
    with pytest.raises(influxdb.exceptions.InfluxDBClientError) as raised:
        client.write_points([f"cpu,host=bad{packed} value=1", "cpu value=true"], protocol="line")
    assert raised.value.code == 400
    said = json.loads(raised.value.content)["error"]
    assert said.startswith("partial write: unable to parse 'cpu value=true': line 2: ")
    assert place.count(f"cpu;host=bad{packed}") == 1
    client.close()


def test_influxdb_1_without_a_key(place: Place) -> None:
    """A wrong password and a key that may only read are errors of the client; the query's password works as well."""
    for password, code in (("wrong", 401), (place.read, 403)):
        client = of_v1(place, password)
        with pytest.raises(influxdb.exceptions.InfluxDBClientError) as raised:
            client.write_points(["cpu value=1"], protocol="line")
        assert raised.value.code == code
        client.close()
    path = f"/write?db=metrics&u=any&p={place.write}"
    assert place.server.request("POST", path, b"cpu,host=query value=1")[0] == 204
    assert place.server.request("POST", "/write?db=metrics&u=any&p=hunter2", b"cpu value=1")[0] == 401
    assert place.count("cpu;host=query") == 1
    place.server.wait_for_log("p=…")
    assert "hunter2" not in place.server.log


# -- influxdb-client, of 2 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_influxdb_client_2(place: Place, packed: bool) -> None:
    """Points, dicts and lines; synchronous and in batches; ping, health and version; a partial write is told."""
    host = f"v2{packed}"
    with InfluxDBClient(place.url, place.write, org="any", enable_gzip=packed) as client:
        assert client.ping()
        assert client.version().startswith("statsapi-")
        assert client.health().status == "pass"
        writer = client.write_api(write_options=SYNCHRONOUS)
        point = Point("cpu").tag("host", host).field("usage", 1.5).field("n", 3).field("os", "x\ny")
        writer.write("any", "any", point)
        for unit, per_second in (("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)):
            timed = point.time(int(time.time()) * per_second, unit)
            writer.write("any", "any", timed)
            writer.write("any", "any", [timed, timed])
        assert place.count(f"cpu.usage;host={host}") == place.count(f"cpu.n;host={host}") == 13
        with pytest.raises(InfluxDBError) as raised:
            writer.write("any", "any", [f"cpu,host={host}-bad value=1", "bad"])
        assert raised.value.message.startswith("unable to parse (partial write, 1 event stored): line 2: ")
        assert place.count(f"cpu;host={host}-bad") == 1
        failed: list[Any] = []
        with client.write_api(
            write_options=WriteOptions(batch_size=1000, flush_interval=100),
            error_callback=lambda *what: failed.append(what),
        ) as batching:
            for number in range(3000):
                batching.write("any", "any", f"batched,host={host} value={number}i")
        assert not failed
        assert place.count(f"batched;host={host}") == 3000


def test_influxdb_client_2_without_a_key(place: Place) -> None:
    """Its error carries our words; ping needs no key."""
    with InfluxDBClient(place.url, "wrong", org="any") as client:
        assert client.ping()
        with pytest.raises(InfluxDBError, match="not known"):
            client.write_api(write_options=SYNCHRONOUS).write("any", "any", "cpu value=1")


# -- influxdb3-python ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v2", [False, True])
def test_influxdb_3(place: Place, v2: bool) -> None:
    """Points and lines through its own endpoint and that of 2; a partial write has its lines one by one."""
    host = f"v3{v2}"
    options = influxdb_client_3.WriteOptions(write_type=WriteType.synchronous, use_v2_api=v2)
    client = influxdb_client_3.InfluxDBClient3(
        host=place.url,
        token=place.write,
        database="any",
        write_client_options=influxdb_client_3.write_client_options(write_options=options),
    )
    try:
        assert client.get_server_version().startswith("statsapi-")
        point = influxdb_client_3.Point("cpu").tag("host", host).field("usage", 1.5).field("n", 3)
        client.write(point)
        for unit, per_second in (("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)):
            client.write(point.time(int(time.time()) * per_second, unit), write_precision=unit)
        assert place.count(f"cpu.usage;host={host}") == place.count(f"cpu.n;host={host}") == 5
        with pytest.raises(InfluxDB3Error) as raised:
            client.write([f"cpu,host={host}-bad value=1", "cpu value=true"])
        if not v2:
            assert isinstance(raised.value, InfluxDBPartialWriteError)
            (line,) = raised.value.line_errors
            assert (line.line_number, line.original_line) == (2, "cpu value=true")
            assert "a boolean" in line.error_message
        assert place.count(f"cpu;host={host}-bad") == 1
    finally:
        client.close()


# -- and by hand ---------------------------------------------------------------------------------------------------


def test_a_packed_batch_of_ten_thousand(place: Place) -> None:
    """As Telegraf sends it: one request, gzip, a token."""
    now_ns = time.time_ns()
    body = "".join(f"big,host=h{at % 100} value={at}i {now_ns - at}\n" for at in range(10_000)).encode()
    headers = {"Authorization": f"Token {place.write}", "Content-Encoding": "gzip"}
    assert place.server.request("POST", "/api/v2/write?org=o&bucket=b", gzip.compress(body), headers)[0] == 204
    path = "/statistics?match=big*&stats=count,sum"
    answer = place.server.request("GET", path, headers={"X-API-Key": place.read})[1]
    assert answer == {"matched": 100, "count": 10_000, "sum": 49_995_000.0}
