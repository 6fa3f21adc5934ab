"""deploy/nginx.conf, that very file, in a real nginx in front of a real Gunicorn on a Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_binary
from tests.servers import ROOT, gunicorn_server, stop, wait_until

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


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def nginx(directory: Path, socket_path: Path) -> Iterator[int]:
    """nginx with the deployment's file, whose socket and port alone are exchanged; gives the port."""
    binary = require_binary("nginx")
    port = free_port()
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    for old, new in (
        ("unix:/run/statsapi/gunicorn.sock", f"unix:{socket_path}"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert site.count(old) == 1
        site = site.replace(old, new)
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
        yield port
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


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
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
        assert json.loads(response.read())["status"] == 413
        connection.close()

        stop(server)
        status, content_type, problem = ask(port, "GET", "/statistics")
        assert (status, content_type) == (503, "application/problem+json")
        assert problem["type"] == "urn:statsapi:problem:unavailable"
