"""/metrics: right totals whichever worker answers, read by the official parser, and exact rolling statistics."""

from __future__ import annotations

import math
import statistics
import sys
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.engine.placement import Placed
from statsapi.errors import ConfigError, JournalUnavailable
from statsapi.journal import Journal, Proposal, open_journal
from statsapi.metrics import BUCKETS, CounterTable, Metrics
from statsapi.model import HOUR_US, MINUTE_US, EventBatch
from tests.calls import Samples, scrape, value
from tests.fakes import NOW, FakeClock


def post(client: FlaskClient, value: object, **fields: object) -> int:
    return client.post("/event", json={"timestamp": NOW, "value": value, **fields}).status_code


def test_requests_are_counted_by_route_and_status(client: FlaskClient) -> None:
    """A path's variable part is no label, nor is what has no route; HEAD is the GET that answers it."""
    post(client, 1.0)
    post(client, "many")
    client.get("/statistics")
    client.head("/statistics")
    client.delete("/series/a%20")
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
    """An event refused for its query counts as rejected; a refused question does not."""
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
    """A dead worker's counts stay in the total and its gauges go; other slots are not touched."""
    table = CounterTable(4)

    def worker(slot: int) -> Metrics:
        table.assign(slot)
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
    table.release(0)
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
    assert Settings.from_env({"STATSAPI_METRICS_SERIES": "a, b,a"}).metrics_series == ("a", "b")


def test_patterns_of_series(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are shown always, a pattern shows what matches it as of the scrape, and says how many it leaves out."""
    settings = Settings(journal="memory://", metrics_series=("none", "web.*", "web.b", "?"), metrics_windows=("5m",))
    app = create_app(settings, clock_us=clock, background=False)
    client = app.test_client()
    for name in ("web.a", "web.b", "web.c", "x", "yy"):
        post(client, 2.5, series=name)

    def shown() -> list[str]:
        return sorted(dict(labels)["series"] for name, labels in scrape(client) if name == "statsapi_window_events")

    assert shown() == ["none", "web.a", "web.b", "web.c", "x"]
    assert value(scrape(client), "statsapi_window_mean", series="web.c", window="5m") == 2.5
    post(client, 2.5, series="web.d")
    monkeypatch.setattr("statsapi.service.scrape.METRICS_MATCHED_MAX", 2)
    assert shown() == ["none", "web.a", "web.b", "web.c"]
    assert value(scrape(client), "statsapi_window_series_left_out") == 2
    assert Settings.from_env({"STATSAPI_METRICS_SERIES": "web.**,a"}).metrics_series == ("web.*", "a")
    app.extensions["statsapi"].close()
