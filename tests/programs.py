"""Programs that tests start beside ours: found where they are, and CI must have them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import wait_until


def require_binary(*names: str) -> str:
    """The path of a program that a test starts, the first of these there is: without one the test is skipped, but CI
    must have it.
    """
    for name in names:
        if path := shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin"):
            return path
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {names[0]} installed")
    pytest.skip(f"{' or '.join(names)} is not installed")


def redis_binary() -> str:
    return require_binary("redis-server", "valkey-server")


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs, those of the newest: Debian keeps the server's off PATH."""
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def postgres_binaries() -> Path:
    if (found := find_postgres()) is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail("CI must have postgresql installed")
    pytest.skip("postgresql is not installed")


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
