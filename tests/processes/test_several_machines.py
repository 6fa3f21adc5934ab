"""deploy/nginx-machines.conf, nginx-shards.conf and the compose files, those very files."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from statsapi.config import env_names
from statsapi.journal.postgres_tables import OLDEST_VERSION
from statsapi.times import format_timestamp
from tests.journal_engines import shared_redis
from tests.programs import nginx_with, redis_binary, require_binary
from tests.servers import ROOT, Server, free_port, gunicorn_server


def site(name: str, port: int, addresses: dict[str, str]) -> str:
    """nginx.conf with that file in its upstream's place, as docs/several-machines.md and the compose file make it."""
    common = (ROOT / "deploy" / "nginx.conf").read_text()
    common, replaced = re.subn(r"^upstream statsapi \{.*?^\}\n", "", common, flags=re.MULTILINE | re.DOTALL)
    assert replaced == 1
    made = (ROOT / "deploy" / name).read_text() + common
    if name == "nginx-shards.conf":
        assert made.count("http://statsapi;") >= 2
        made = made.replace("proxy_pass http://statsapi;", "proxy_pass http://$statsapi_shard;")
    for old, new in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "listen [::]:80;": f"listen [::1]:{port};",
        **addresses,
    }.items():
        assert old in made, old
        made = made.replace(old, new)
    return made


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        named["Content-Type"] = "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), named)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text)


def event(series: str | None = None, value: float = 1.0) -> dict[str, Any]:
    made = {"timestamp": format_timestamp(time.time_ns() // 1000), "value": value}
    return made | ({"series": series} if series else {})


def machines(stack: ExitStack, directory: Path, urls: dict[str, str]) -> dict[str, Server]:
    require_binary("nginx")
    return {
        name: stack.enter_context(
            gunicorn_server(directory / name, workers=1, env={"STATSAPI_JOURNAL": url, "STATSAPI_TRUSTED_PROXIES": "1"})
        )
        for name, url in urls.items()
    }


def test_three_machines_behind_nginx_are_one_service(tmp_path: Path) -> None:
    """Whichever nginx chooses gives the same answer; one that is killed is missed by nobody who may send again."""
    url = shared_redis(redis_binary()).journal_url(secrets.token_hex(4))
    names = [f"statsapi-{number}" for number in (1, 2, 3)]
    port = free_port()
    with ExitStack() as stack:
        servers = machines(stack, tmp_path, dict.fromkeys(names, url))
        addresses = {f"{name}:8000": server.target.removeprefix("http://") for name, server in servers.items()}
        stack.enter_context(nginx_with(tmp_path, site("nginx-machines.conf", port, addresses), port))
        for expected in range(1, 61):
            assert ask(port, "POST", "/event", event())[0] == 200
            assert ask(port, "GET", "/statistics")[1]["count"] == expected
        logs = [server.log for server in servers.values()]
        assert all("The journal is redis://" in log for log in logs)
        os.killpg(servers[names[0]].process.pid, signal.SIGKILL)
        for expected in range(61, 101):
            status, _ = ask(port, "POST", "/event", event(), Idempotency_Key=f"after-{expected}")
            assert status == 200
            assert ask(port, "GET", "/statistics")[1]["count"] == expected


def test_nginx_routes_on_the_series(tmp_path: Path) -> None:
    """Two groups with a stream each carry disjoint series: by header, by query, by path, and by no series at all."""
    redis = shared_redis(redis_binary())
    names = ["statsapi-a1", "statsapi-a2", "statsapi-b1", "statsapi-b2"]
    streams = {"a": secrets.token_hex(4), "b": secrets.token_hex(4)}
    port = free_port()
    with ExitStack() as stack:
        servers = machines(stack, tmp_path, {name: redis.journal_url(streams[name[9]]) for name in names})
        addresses = {f"{name}:8000": server.target.removeprefix("http://") for name, server in servers.items()}
        addresses["unix:/run/statsapi/unclear.sock"] = f"unix:{tmp_path}/unclear.sock"
        stack.enter_context(nginx_with(tmp_path, site("nginx-shards.conf", port, addresses), port))
        for series in (None, "cpu/load", "eu.orders", "billing", "europe"):
            sent = {"X_Series": series} if series else {}
            assert ask(port, "POST", "/event", event(series), **sent)[0] == 200
            query = f"?series={series}" if series else ""
            assert ask(port, "GET", f"/statistics{query}")[1]["count"] == 1
            assert ask(port, "GET", f"/statistics{query}", **sent)[1]["count"] == 1
        held = {shard: ask(port, "GET", "/series", X_Shard=shard)[1]["series"] for shard in "ab"}
        assert {shard: [series["name"] for series in found] for shard, found in held.items()} == {
            "a": ["cpu/load", "default", "europe"],
            "b": ["billing", "eu.orders"],
        }
        for name, found in (("statsapi-a1", 1), ("statsapi-b2", 0)):
            assert servers[name].request("GET", "/statistics?series=europe")[1]["count"] == found
        assert ask(port, "DELETE", "/series/eu.orders")[1]["deleted"] == 1
        assert ask(port, "GET", "/statistics?series=eu.orders")[1]["count"] == 0
        for path, headers in (("/statistics?series=eu%2Eorders", {}), ("/statistics", {"X_Shard": "c"})):
            status, problem = ask(port, "GET", path, **headers)
            assert (status, problem["type"]) == (400, "urn:statsapi:problem:bad-request")


@pytest.mark.parametrize(
    ("file", "journal", "server", "wants"),
    [
        (
            "docker-compose.machines.yml",
            "redis://valkey:6379/",
            "valkey",
            ("--appendonly yes", "--maxmemory-policy noeviction"),
        ),
        ("docker-compose.postgresql.yml", "postgresql://statsapi@postgres/statsapi?", "postgres", ()),
    ],
)
def test_the_compose_files_fit_the_rest(file: str, journal: str, server: str, wants: tuple[str, ...]) -> None:
    """Their settings are settings, nginx knows their machines, and its file is made as the tests above make it."""
    compose = yaml.safe_load((ROOT / file).read_text())
    services = compose["services"]
    upstream = (ROOT / "deploy" / "nginx-machines.conf").read_text()
    machines_there = re.findall(r"server (\S+):8000", upstream)
    assert machines_there == [name for name in services if name.startswith("statsapi-")]
    for name in machines_there:
        settings = [key for key in services[name]["environment"] if key.startswith("STATSAPI_")]
        assert set(settings) <= set(env_names().values())
        assert services[name]["environment"]["STATSAPI_JOURNAL"].startswith(journal)
        assert services[name]["environment"]["WEB_CONCURRENCY"] is None  # "" would end Gunicorn
        assert set(services[name]["depends_on"]) == {server}
    assert set(machines_there) == set(services["nginx"]["depends_on"])
    assert "sed '/^upstream statsapi {/,/^}/d' nginx.conf" in services["nginx"]["command"][-1]
    command = " ".join(services[server].get("command", []))
    for setting in wants:
        assert setting in command


def test_the_compose_file_of_postgresql_fits_itself() -> None:
    """The login in the URL is the one that the image makes, with one password; and the check asks for it."""
    services = yaml.safe_load((ROOT / "docker-compose.postgresql.yml").read_text())["services"]
    made, given = services["postgres"]["environment"], services["statsapi-1"]["environment"]
    login = f"postgresql://{made['POSTGRES_USER']}@postgres/{made['POSTGRES_DB']}?stream="
    assert given["STATSAPI_JOURNAL"].startswith(login)
    assert given["PGPASSWORD"] == made["POSTGRES_PASSWORD"]
    assert services["postgres"]["healthcheck"]["test"] == ["CMD", "pg_isready", "-U", made["POSTGRES_USER"]]
    (volume,) = services["postgres"]["volumes"]
    assert volume == "journal:/var/lib/postgresql/data"
    major = re.fullmatch(r"postgres:(\d+)-alpine", services["postgres"]["image"])
    assert major is not None
    assert OLDEST_VERSION <= int(major[1]) < 18  # from 18 on the image keeps its data in another folder
    for name in ("statsapi-2", "statsapi-3"):
        assert services[name] == services["statsapi-1"]


@pytest.mark.parametrize("name", ["nginx-machines.conf", "nginx-shards.conf"])
def test_each_upstream_leaves_a_dead_machine_alone(name: str) -> None:
    """Every machine has max_fails and fail_timeout, and connections are kept."""
    text = (ROOT / "deploy" / name).read_text()
    blocks = re.findall(r"upstream (\w+) \{(.*?)\n\}", text, flags=re.DOTALL)
    assert [machines for name, machines in blocks if name != "statsapi_unclear"]
    for block in blocks:
        if block[0] != "statsapi_unclear":
            assert block[1].count("max_fails=3 fail_timeout=10s;") == block[1].count("server ") >= 2
            assert "keepalive 32;" in block[1]
