"""/metrics: right totals whichever worker answers, read by the official parser, and exact rolling statistics."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.engine.placement import Placed
from statsapi.errors import ConfigError, JournalUnavailable
from statsapi.metrics import BUCKETS, Metrics, Table
from statsapi.journal import Journal, Proposal, open_journal
from statsapi.model import EventBatch
from statsapi.times import HOUR_US, MINUTE_US
from tests.calls import Samples, samples_of, scrape, value
from tests.fakes import NOW, FakeClock
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


def post(client: FlaskClient, value: object, **fields: object) -> int:
    return client.post("/event", json={"timestamp": NOW, "value": value, **fields}).status_code


def test_requests_are_counted_by_route_and_status(client: FlaskClient) -> None:
    """A path's variable part is no label, nor is what has no route; HEAD is the GET that answers it."""
    post(client, 1.0)
    post(client, "many")
    client.get("/statistics")
    client.head("/statistics")
    client.delete("/series/a%20b")
    client.delete("/series/a/b")
    client.get("/nothing/here")
    client.put("/event")
    client.options("/event")
    samples = scrape(client)

    def requests(method: str, route: str, status: int) -> float | None:
        return value(samples, "statsapi_http_requests_total", method=method, route=route, status=str(status))

    assert requests("POST", "/event", 200) == 1
    assert requests("POST", "/event", 422) == 1
    assert requests("GET", "/statistics", 200) == 2
    assert requests("DELETE", "/series/{name}", 200) == 1
    assert requests("DELETE", "/series/{name}", 422) == 1
    assert requests("other", "other", 404) == 1
    assert requests("other", "other", 405) == 1
    assert requests("other", "other", 200) == 1
    assert sum(v for (name, _), v in samples.items() if name == "statsapi_http_requests_total") == 9
    assert value(scrape(client), "statsapi_http_requests_total", method="GET", route="/metrics", status="200") == 1


def test_events_are_counted_by_what_became_of_them(client: FlaskClient) -> None:
    """Stored, rejected (alone, in a batch, partly), expired, duplicate; a replayed answer counts nothing twice."""
    for _ in range(3):
        assert post(client, 1.0) == 200
    assert post(client, 1.0, timestamp="2025-11-20T00:00:00Z") == 200  # expired
    assert post(client, None) == 422
    assert client.post("/event?dedup=true", json={"timestamp": NOW, "value": 1.0}).status_code == 200  # duplicate
    good, bad = {"timestamp": NOW, "value": 2.0}, {"timestamp": NOW, "value": "x"}
    assert client.post("/events", json=[good, bad, bad]).status_code == 422
    for _ in range(2):  # the second is a replay
        answer = client.post("/events?partial=true", json=[good, bad, good], headers={"Idempotency-Key": "k"})
        assert answer.json["stored"] == 2
    samples = scrape(client)
    assert value(samples, "statsapi_events_stored_total") == 5
    assert value(samples, "statsapi_events_rejected_total") == 4
    assert value(samples, "statsapi_events_expired_total") == 1
    assert value(samples, "statsapi_events_duplicate_total") == 1
    assert value(samples, "statsapi_journal_append_duration_seconds_count") == 6


def test_a_rejected_key_or_query_rejects_the_event(client: FlaskClient) -> None:
    """What is refused for its query is one event fewer too; a refused question is none."""
    assert client.post("/event?dedupe=true", json={"timestamp": NOW, "value": 1.0}).status_code == 422
    assert client.get("/statistics?windw=5m").status_code == 422
    assert value(scrape(client), "statsapi_events_rejected_total") == 1


def test_the_rolling_statistics_are_exact(clock: FakeClock) -> None:
    """Each configured series and window as of the scrape: the very bits that statistics.mean and stdev give."""
    settings = Settings(journal="memory://", metrics_series=("default", "a/b", "none"), metrics_windows=("5m", "1h"))
    app = create_app(settings, clock_us=clock, background=False)
    client = app.test_client()
    values = [1e16, 1.0, -1e16, 0.1, 0.2]
    for number in values:
        post(client, number, series="a/b")
    clock.advance(10 * MINUTE_US)
    later = "2025-11-21T07:55:00Z"
    post(client, 0.3, series="a/b", timestamp=later)
    samples = scrape(client)
    labels = {"series": "a/b", "window": "1h"}
    held = [*values, 0.3]
    assert value(samples, "statsapi_window_events", **labels) == 6
    assert value(samples, "statsapi_window_mean", **labels) == statistics.mean(held)
    assert value(samples, "statsapi_window_stddev", **labels) == statistics.stdev(held)
    assert value(samples, "statsapi_window_sum_of_values", **labels) == math.fsum(held)
    assert value(samples, "statsapi_window_min", **labels) == -1e16
    assert value(samples, "statsapi_window_max", **labels) == 1e16
    assert value(samples, "statsapi_window_mean", series="a/b", window="5m") == 0.3
    assert value(samples, "statsapi_window_stddev", series="a/b", window="5m") is None  # of one value: none
    assert value(samples, "statsapi_window_events", series="none", window="5m") == 0
    assert value(samples, "statsapi_window_mean", series="none", window="5m") is None
    assert value(samples, "statsapi_store_events") == 6
    assert value(samples, "statsapi_store_series") == 1
    assert (value(samples, "statsapi_store_bytes") or 0) > 6 * 16
    assert value(samples, "statsapi_store_rollup_bytes") == 0
    assert (value(samples, "statsapi_journal_size_bytes") or 0) > 0
    clock.advance(HOUR_US)  # the window slides without anybody recording, to the microsecond
    assert value(scrape(client), "statsapi_window_events", **labels) == 1
    clock.advance(1)
    assert value(scrape(client), "statsapi_window_events", **labels) == 0
    app.extensions["statsapi"].close()


def test_openmetrics_for_those_who_ask(client: FlaskClient) -> None:
    """The form follows Accept; a version that is none gives the plain one, not an error."""
    post(client, 1.0)
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(answer.text)}
    assert families["statsapi_events_stored"].samples[0].value == 1
    for accept in ("application/openmetrics-text;version=x", "text/plain;version=x", "image/png", "*/*", ";;=,"):
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.text.startswith("# HELP")


def test_without_a_journal_the_counts_are_still_there(clock: FakeClock) -> None:
    """A scrape tells of the trouble instead of failing with it."""

    def away() -> Journal:
        raise JournalUnavailable("away")

    app = create_app(Settings(journal="memory://"), journal=away, clock_us=clock, background=False)
    client = app.test_client()
    assert post(client, 1.0) == 503
    samples = scrape(client)
    assert value(samples, "statsapi_view_ready") == 0
    assert value(samples, "statsapi_http_requests_total", method="POST", route="/event", status="503") == 1
    assert value(samples, "statsapi_store_events") is None


def test_lag_and_replay(clock: FakeClock) -> None:
    """The replay counts once; the lag is the time since the view was level, and nothing right after."""
    metrics = Metrics()

    def read(now_us: int) -> Samples:
        return {(s.name, frozenset(s.labels.items())): s.value for f in metrics.families(now_us) for s in f.samples}

    assert value(read(clock()), "statsapi_view_lag_seconds") is None
    metrics.caught_up(clock())
    assert value(read(clock() + 2_500_000), "statsapi_view_lag_seconds") == 2.5
    metrics.replayed(0.25)
    assert value(read(clock()), "statsapi_replay_duration_seconds_sum") == 0.25
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    samples = [scrape(app.test_client()) for _ in range(3)][-1]
    assert value(samples, "statsapi_replay_duration_seconds_count") == 1
    assert value(samples, "statsapi_view_lag_seconds") == 0


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_waits_for_the_disk_are_seen(tmp_path: Path, fsync: str) -> None:
    """COMMIT with `always`; the upkeep, which a power cut's cost hangs on, with `interval`."""
    seen: list[float] = []
    journal = open_journal(f"sqlite:///{tmp_path}/e.db", fsync=fsync)
    journal.observe_fsync = seen.append
    journal.append(Proposal(EventBatch.single("a", 0, 1.0)))
    assert len(seen) == (fsync == "always")
    journal.check_writable()
    journal.maintain()
    assert len(seen) == 1
    assert seen[0] > 0
    journal.close()


def test_a_histogram_bucket_includes_its_bound() -> None:
    """le is less or equal, the buckets accumulate, and what is beyond the last is in +Inf."""
    metrics = Metrics()
    for seconds in (BUCKETS[0], BUCKETS[1], BUCKETS[-1] * 2):
        metrics.fsynced(seconds)
    (family,) = (f for f in metrics.families(0) if f.name == "statsapi_journal_fsync_duration_seconds")
    found = {s.labels.get("le", s.name[-5:]): s.value for s in family.samples}
    assert found[str(BUCKETS[0])] == 1
    assert found[str(BUCKETS[1])] == 2
    assert found[str(BUCKETS[-1])] == 2
    assert found["+Inf"] == found["count"] == 3


def test_no_count_is_lost_between_threads() -> None:
    """Threads of one worker that count at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        metrics, barrier = Metrics(), threading.Barrier(4)

        def count() -> None:
            barrier.wait()
            for _ in range(5000):
                metrics.recorded(Placed(1, 0, 1, 0), 1, 0.001)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    totals = {s.name: s.value for f in metrics.families(0) for s in f.samples if not s.labels}
    assert totals["statsapi_events_stored_total"] == totals["statsapi_events_expired_total"] == 20_000
    assert totals["statsapi_journal_append_duration_seconds_count"] == 20_000


def test_a_slot_goes_on_counting_for_its_next_worker() -> None:
    """What a dead worker counted stays in the total, what it showed of itself goes; other slots are not touched."""
    table = Table(4)

    def worker(slot: int) -> Metrics:
        table.take(slot)
        metrics = Metrics()
        metrics.share(table, slot)
        return metrics

    def read(metrics: Metrics, name: str) -> float | None:
        return {s.name: s.value for f in metrics.families(10_000_000) for s in f.samples if not s.labels}.get(name)

    first, second = worker(0), worker(2)
    first.recorded(Placed(3, 0, 0, 0), 0, 0.001)
    second.recorded(Placed(4, 0, 0, 0), 0, 0.001)
    first.caught_up(1_000_000)
    second.caught_up(9_000_000)
    assert read(second, "statsapi_view_lag_seconds") == 9.0
    table.leave(0)
    assert read(second, "statsapi_view_lag_seconds") == 1.0
    successor = worker(0)
    successor.recorded(Placed(5, 0, 0, 0), 0, 0.001)
    assert read(successor, "statsapi_events_stored_total") == read(second, "statsapi_events_stored_total") == 12


def test_windows_beyond_the_retention_are_refused() -> None:
    """Only where they were asked for: who shortens the retention need not know of the default."""
    with pytest.raises(ConfigError, match=r"STATSAPI_METRICS_WINDOWS \(25h\)"):
        Settings.from_env({"STATSAPI_METRICS_WINDOWS": "5m,25h"})
    with pytest.raises(ConfigError, match="STATSAPI_METRICS_WINDOWS"):
        Settings.from_env({"STATSAPI_METRICS_WINDOWS": "5m,soon"})
    short = {"STATSAPI_RETENTION": "10m", "STATSAPI_WINDOW": "10m", "STATSAPI_ROLLUP_RETENTION": "0"}
    app = create_app(Settings.from_env(short | {"STATSAPI_JOURNAL": "memory://"}), background=False)
    samples = scrape(app.test_client())
    assert value(samples, "statsapi_window_events", series="default", window="5m") == 0
    assert value(samples, "statsapi_window_events", series="default", window="1h") is None
    assert Settings.from_env({"STATSAPI_METRICS_SERIES": "a, b,,a"}).metrics_series == ("a", "b")


# With real workers


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


@pytest.mark.processes
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


@pytest.mark.processes
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


@pytest.mark.processes
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
