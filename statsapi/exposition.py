"""A scrape: the workers' counters and the state of a caught-up view, in the formats that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from statsapi.engine.summary import Summary
from statsapi.metrics import Metrics, gauge


class ViewState(NamedTuple):
    """The state of a caught-up view, which is the same on every worker. windows: (series, window as written, summary).

    left_out: how many series match STATSAPI_METRICS_SERIES and are not in `windows`, which is limited.
    """

    events: int
    events_bytes: int
    rollup_bytes: int
    series: int
    journal_bytes: int
    windows: list[tuple[str, str, Summary]]
    left_out: int = 0
    clock_skew_us: int | None = None


# Prometheus reserves the suffixes _count and _sum for histograms and summaries (`promtool check metrics`).
_WINDOW_NAMES: Final = {"count": "events", "sum": "sum_of_values"}


def _state_families(state: ViewState | None) -> Iterator[Metric]:
    yield gauge(
        "statsapi_view_ready",
        "1 when this scrape holds the store and the windows; 0 when they are missing, because the journal cannot be "
        "read or the replay is not done.",
        float(state is not None),
    )
    if state is None:
        return
    yield gauge("statsapi_store_events", "Raw events held.", state.events)
    yield gauge("statsapi_store_bytes", "Memory of the raw events in each worker.", state.events_bytes)
    yield gauge("statsapi_store_rollup_bytes", "Memory of the roll-ups in each worker.", state.rollup_bytes)
    yield gauge("statsapi_store_series", "Series held.", state.series)
    yield gauge("statsapi_journal_size_bytes", "Size of the journal, on disk or in its server.", state.journal_bytes)
    if state.clock_skew_us is not None:
        yield gauge(
            "statsapi_clock_skew_seconds",
            "This machine's clock minus the clock of the journal's server, which is the one that counts.",
            state.clock_skew_us / 1e6,
        )
    yield gauge(
        "statsapi_window_series_left_out",
        "Series that match a pattern of STATSAPI_METRICS_SERIES and are left out, as 1,000 others are shown.",
        state.left_out,
    )
    for stat in ("count", "mean", "min", "max", "sum", "stddev"):
        family = GaugeMetricFamily(
            f"statsapi_window_{_WINDOW_NAMES.get(stat, stat)}",
            f"The exact {stat} of the window that ends now; absent where it does not exist.",
            labels=("series", "window"),
        )
        for series, window, summary in state.windows:
            value = getattr(summary, stat)
            if value is not None:  # no events, one for a stddev, or beyond float64: a gap, as NaN breaks sums
                family.add_metric((series, window), value)
        yield family


class _Scrape(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def expose(metrics: Metrics, state: ViewState | None, monotonic_us: int, accept: str) -> tuple[bytes, str]:
    """A scrape's body and its media type, in the form that `accept` asks for (text, or OpenMetrics)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape([*metrics.families(monotonic_us), *_state_families(state)]))
    # prometheus_client's choose_encoder raises on `version=x`, which it reads as a number.
    if "application/openmetrics-text" in accept:
        body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return body, openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_PLAIN_0_0_4
