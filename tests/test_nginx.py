"""deploy/nginx.conf, that very file, in a real nginx in front of a real Gunicorn on a Unix socket."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import require_binary
from tests.servers import ROOT, Server, free_port, gunicorn_server, stop, wait_until

MAIN = """
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
worker_processes 1;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    include {dir}/site.conf;
}}
"""


@contextmanager
def nginx(directory: Path, socket_path: Path, header_timeout: str = "15s") -> Iterator[int]:
    """nginx with the deployment's file, whose socket, port and patience alone are exchanged; gives the port."""
    port = free_port()
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    for old, new, times in (
        ("unix:/run/statsapi/gunicorn.sock", f"unix:{socket_path}", 2),
        ("listen 80;", f"listen 127.0.0.1:{port};", 1),
        ("client_header_timeout 15s;", f"client_header_timeout {header_timeout};", 1),
    ):
        assert site.count(old) == times
        site = site.replace(old, new)
    with nginx_with(directory, site, port):
        yield port


@contextmanager
def nginx_with(directory: Path, site: str, port: int) -> Iterator[None]:
    """nginx with this in its http context, up when it listens to the port."""
    binary = require_binary("nginx")
    (directory / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(dir=directory, user=user))
    process = subprocess.Popen(
        [binary, "-c", str(directory / "nginx.conf"), "-p", str(directory), "-e", str(directory / "error.log")]
    )
    try:

        def listening() -> bool:
            assert process.poll() is None, (directory / "error.log").read_text()
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listening, "nginx to listen")
        yield
    finally:
        process.terminate()
        process.wait(30)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, response.getheader("Content-Type", ""), json.loads(text)


def test_the_service_behind_nginx(tmp_path: Path) -> None:
    """Requests, large bodies and refusals go through nginx; what nginx itself refuses looks like our problems."""
    directory = tmp_path
    socket_path = directory / "gunicorn.sock"
    with (
        gunicorn_server(directory / "app", workers=2, bind=f"unix:{socket_path}") as server,
        nginx(directory, socket_path) as port,
    ):
        event = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 42.5}).encode()
        for expected in range(1, 51):
            assert ask(port, "POST", "/event", event)[0] == 200
            assert ask(port, "GET", "/statistics")[2]["count"] == expected
        assert ask(port, "GET", "/nowhere")[:2] == (404, "application/problem+json")

        padded = event + b" " * (15 << 20)  # fits, and does not fit in nginx's buffer
        assert ask(port, "POST", "/event", padded)[0] == 200
        too_large = event + b" " * (17 << 20)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", "/event")
        connection.putheader("Content-Length", str(len(too_large)))
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Type")) == (413, "application/problem+json")
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Cache-Control") == "no-store"
        assert json.loads(response.read())["status"] == 413
        connection.close()

        stop(server)
        status, content_type, problem = ask(port, "GET", "/statistics")
        assert (status, content_type) == (503, "application/problem+json")
        assert problem["type"] == "urn:statsapi:problem:unavailable"


@contextmanager
def behind_nginx(directory: Path, **options: Any) -> Iterator[tuple[Server, int]]:
    """The server and nginx's port."""
    socket_path = directory / "gunicorn.sock"
    with (
        gunicorn_server(directory / "app", bind=f"unix:{socket_path}", **options) as server,
        nginx(directory, socket_path, header_timeout="600s") as port,
    ):
        yield server, port


def test_the_clients_address_is_nginxs_word(tmp_path: Path) -> None:
    """Behind nginx limits go by the address that nginx saw, whatever the client claims to be."""
    env = {"STATSAPI_TRUSTED_PROXIES": "1", "STATSAPI_RATE_LIMIT": "30/minute"}
    with behind_nginx(tmp_path, env=env) as (_, port):
        statuses = []
        for number in range(40):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/series", headers={"X-Forwarded-For": f"10.0.0.{number}"})
            response = connection.getresponse()
            statuses.append(response.status)
            response.read()
            connection.close()
        assert statuses == [200] * 30 + [429] * 10


def test_answers_are_compressed_for_those_who_ask(tmp_path: Path) -> None:
    """A long answer goes gzipped over the wire and is the same."""
    with behind_nginx(tmp_path, workers=1) as (_, port):
        batch = [{"timestamp": "2100-01-01T00:00:00Z", "value": number} for number in range(500)]
        assert ask(port, "POST", "/events", json.dumps(batch).encode())[2]["stored"] == 500
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/events?format=csv", headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        assert response.getheader("Content-Encoding") == "gzip"
        assert gzip.decompress(response.read()).count(b"\n") == 501
        connection.close()


def test_slow_clients_do_not_stop_others(tmp_path: Path) -> None:
    """With 200 connections that never finish their head or body, a normal client is served as ever."""
    with behind_nginx(tmp_path, workers=1) as (_, port), ExitStack() as slow:
        for number in range(200):
            sock = slow.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            head = b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60\r\n"
            sock.sendall(head + (b"\r\n{" if number % 2 else b"X"))
        event = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1}).encode()
        for expected in range(1, 51):
            assert ask(port, "POST", "/event", event)[0] == 200
            assert ask(port, "GET", "/statistics")[2]["count"] == expected


def test_a_slow_body_arrives_whole(tmp_path: Path) -> None:
    """A body that comes in many small pieces is one request."""
    with behind_nginx(tmp_path, workers=1) as (_, port):
        body = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body))
            for byte in body:
                sock.sendall(bytes((byte,)))
            response = http.client.HTTPResponse(sock)
            response.begin()
            assert response.status == 200
        assert ask(port, "GET", "/statistics")[2]["count"] == 1


def replaced(server: Server, old: set[int]) -> set[int]:
    """The two workers, when none of the old ones is left."""
    now = server.workers()
    return now if len(now) == 2 and now.isdisjoint(old) else set()


def test_a_rolling_restart_under_load_fails_nothing(tmp_path: Path) -> None:
    """Four HUPs while clients write and read through nginx: no request fails, and every event counts once."""
    with behind_nginx(tmp_path, workers=2) as (server, port):
        stop_asking = threading.Event()
        stored = Counter[str]()
        failures: list[Any] = []

        def client(name: str) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            body = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1, "series": name})
            headers = {"Content-Type": "application/json"}
            while not stop_asking.is_set():
                if name == "keyed":
                    headers["Idempotency-Key"] = str(stored[name])
                connection.request("POST", "/event", body, headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status == 200:
                    stored[name] += 1
                else:
                    failures.append((response.status, answer))
            connection.close()

        threads = [threading.Thread(target=client, args=(name,)) for name in ("a", "b", "c", "keyed")]
        for thread in threads:
            thread.start()
        workers = server.workers()
        for _ in range(4):
            server.signal(signal.SIGHUP)
            old = workers
            workers = wait_until(
                lambda old=old: len(now := server.workers()) == 2 and not now & old and now, "new workers"
            )
        stop_asking.set()
        for thread in threads:
            thread.join()
        assert failures == []
        for name, count in stored.items():
            assert ask(port, "GET", f"/statistics?series={name}")[2]["count"] == count > 0
