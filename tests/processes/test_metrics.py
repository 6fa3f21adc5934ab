"""/metrics of real servers: totals whichever worker answers, and what promtool and Prometheus say of them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.calls import Samples, samples_of, value
from tests.fakes import NOW
from tests.programs import require_binary
from tests.servers import Server, gunicorn_server, wait_until


def scrape_server(server: Server) -> Samples:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = server.connect()
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        assert response.status == 200
        return samples_of(response.read().decode())
    finally:
        connection.close()


def record(server: Server, events: int) -> None:
    """Each on a connection of its own, so that both workers record some."""
    for number in range(events):
        status, _ = server.request("POST", "/event", {"timestamp": 0, "value": number})
        assert status == 200


def totals(server: Server, scrapes: Iterable[int] = range(12)) -> set[tuple[float | None, ...]]:
    """The totals that do not change with the scrape itself, of several scrapes on connections of their own."""
    seen: set[tuple[float | None, ...]] = set()
    for _ in scrapes:
        samples = scrape_server(server)
        seen.add(
            (
                value(samples, "statsapi_http_requests_total", method="POST", route="/event", status="200"),
                value(samples, "statsapi_events_expired_total"),
                value(samples, "statsapi_journal_append_duration_seconds_count"),
            )
        )
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_totals_are_right_whoever_answers_and_survive_workers(tmp_path: Path) -> None:
    """With two workers; after kill -9 of each of them; after HUP, while new workers sit in new slots. No file stays."""
    with gunicorn_server(tmp_path, workers=2) as server:
        server.wait_for_journals(2)
        record(server, 40)
        assert totals(server) == {(40, 40, 40)}
        opened = 2
        for killed in sorted(workers := server.workers()):
            os.kill(killed, signal.SIGKILL)
            opened += 1
            server.wait_for_journals(opened)
            record(server, 10)
        assert totals(server) == {(60, 60, 60)}
        replaced = server.workers()
        assert replaced.isdisjoint(workers)
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(now := server.workers()) == 2 and now.isdisjoint(replaced), "the reload's workers alone")
        server.wait_for_journals(opened + 2)
        record(server, 10)
        assert totals(server) == {(70, 70, 70)}
        samples = scrape_server(server)
        assert (value(samples, "statsapi_replay_duration_seconds_count") or 0) >= 1
        assert (value(samples, "statsapi_view_lag_seconds") or 0) < 30
        left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {"gunicorn.log", "events.db", "events.db-wal", "events.db-shm", "events.db-mark"}


def test_promtool_finds_nothing_to_say(client: FlaskClient, app: Flask) -> None:
    """Prometheus' own checker is silent: empty, with every kind of event and answer, and without a view."""
    promtool = require_binary("promtool")
    exposed = [client.get("/metrics").data]
    for at, sent in enumerate(({"timestamp": NOW, "value": 1}, {"timestamp": "2000-01-01", "value": 1}, {"value": 1})):
        client.post("/event", json=sent)
        client.post("/events?dedup=true&partial=true", json=[sent] * 2)
        client.get(("/no", "/statistics?window=0", "/docs")[at])
    exposed.append(client.get("/metrics").data)
    app.extensions["statsapi"].close()
    exposed.append(client.get("/metrics").data)
    for text in exposed:
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    families = [{line.split()[2] for line in text.decode().splitlines() if line[:6] == "# TYPE"} for text in exposed]
    assert "statsapi_window_events" in families[1]
    assert "statsapi_window_events" not in families[2]


def test_prometheus_scrapes_it(tmp_path: Path) -> None:
    """A real Prometheus takes every line, and answers with the rolling mean."""
    prometheus = require_binary("prometheus")
    with gunicorn_server(tmp_path / "server", workers=2) as server:
        host = server.target.removeprefix("http://")
        server.request("POST", "/event", {"timestamp": "2999-01-01", "value": 0.1})
        server.request("POST", "/event", {"timestamp": "2999-01-01", "value": 0.2})
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: statsapi, static_configs: [{{targets: ['{host}']}}]}}]\n"
        )
        log_path = tmp_path / "prometheus.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    prometheus,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={tmp_path}/tsdb",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            found = wait_until(
                lambda: re.search(r"[Ll]istening on\D+address=(\S+?:[1-9]\d*)", log_path.read_text()),
                "prometheus to listen",
            )
            query = f"http://{found[1].strip(chr(34))}/api/v1/query?query=statsapi_window_mean%7Bwindow%3D%221h%22%7D"

            def asked() -> list[dict[str, object]]:
                try:
                    with urllib.request.urlopen(query) as answer:
                        return json.load(answer)["data"]["result"]
                except urllib.error.HTTPError as error:
                    assert error.code == 503  # noqa: PT017 - Prometheus listens before it is ready
                    error.close()
                    return []

            (result,) = wait_until(asked, "a scrape")
            assert float(result["value"][1]) == statistics.mean([0.1, 0.2])
        finally:
            process.terminate()
            process.wait(30)
