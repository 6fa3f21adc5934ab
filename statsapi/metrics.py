"""The workers' own counters, in memory that all workers of a machine share, as Prometheus metric families.

Each worker adds to its own row of float64 cells, and the worker that is scraped adds up the rows. So every worker
answers with the same totals. A row belongs to a slot, not to a process: the worker that takes a dead worker's slot adds
to the same cells. Nothing has to be carried over when a worker is killed, and nothing is left behind.
prometheus_client's multiprocess mode was refused: it leaves a file for every process that ever ran.

    row     requests: route x status | request seconds: route x (buckets, sum) | event counters | timings | gauges

Sums are whole numbers below 2**53, or seconds. A cell is 8 aligned bytes, written at once: a reader sees the old value
or the new one, and a killed worker leaves one of the two. The columns are fixed here. The arbiter imports this module
before it forks, so workers from before and after a reload agree on them.

A new arbiter (a restart, USR2) counts from zero, which Prometheus handles as a counter reset.
"""

from __future__ import annotations

import math
import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from statsapi.clocks import Sample
from statsapi.engine.placement import Placed
from statsapi.journal import Lost
from statsapi.model import MINUTE_US
from statsapi.routes import ROUTES

# The place of requests that have no row in the table of routes.
OTHER: Final = len(ROUTES)
_ROUTE_NAMES: Final = (*((route.method, route.path) for route in ROUTES), ("other", "other"))

STATUSES: Final = (
    *(200, 202, 204, 206, 301, 302, 304, 308),
    *(400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 414, 415, 416, 422, 428, 429, 431),
    *(500, 502, 503, 504, 507),
)
_STATUS_NAMES: Final = (*map(str, STATUSES), "other")
_STATUS_AT: Final = {status: at for at, status in enumerate(_STATUS_NAMES)}

# In seconds. A single event takes 0.3 ms, a full batch 0.1 s, a wait for fsync a few ms.
BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_BUCKET_NAMES: Final = (*map(str, BUCKETS), "+Inf")
_HISTOGRAM: Final = len(_BUCKET_NAMES) + 1  # the buckets, not cumulative, and the sum

_ACCEPTED: Final = (
    "Events accepted, by their time at arrival: recent (in the default window), older (before it, but kept), "
    "expired (before everything kept), ahead (more than a minute ahead of the clock)."
)
_EVENTS: Final = (
    ("rejected", "Events refused as invalid; valid events of the same request are not counted."),
    ("duplicate", "Events left out by deduplication."),
)
_TIMINGS: Final = (
    ("journal_append", "Appends to the journal, from the call until the record is as durable as configured."),
    ("journal_fsync", "Waits for the disk: COMMIT with STATSAPI_FSYNC=always, else each second's WAL checkpoint."),
)

# Where each group of cells begins in a row.
_REQUESTS: Final = 0
_SECONDS: Final = _REQUESTS + len(_ROUTE_NAMES) * len(_STATUS_NAMES)
_EVENTS_AT: Final = _SECONDS + len(_ROUTE_NAMES) * _HISTOGRAM
_PLACES_AT: Final = _EVENTS_AT + len(_EVENTS)
_TIMINGS_AT: Final = _PLACES_AT + len(Placed._fields)
_REPLAYS: Final = _TIMINGS_AT + len(_TIMINGS) * _HISTOGRAM  # their number, and their seconds
_CAUGHT_UP_S: Final = _REPLAYS + 2  # when the view was last level with the journal, in monotonic seconds; 0: no worker
_BROKEN: Final = _CAUGHT_UP_S + 1  # how often the view broke and started afresh
# Four cells: the least number of lost records, where an unknown number counts as one; since when; when it was noticed
# (µs since 1970, 0: never); and how many of the lost records were counted exactly.
_LOST: Final = _BROKEN + 1
_STEPS: Final = _LOST + 4  # of the clock, forward or back
_ALL_US: Final = -1  # instead of a time since when: all earlier records are gone
_UNLIMITED: Final = _STEPS + 1  # requests that passed uncounted, as the rate limit's storage could not be reached
_IGNORED: Final = _UNLIMITED + 1  # string fields of line protocol
_CLOCK: Final = _IGNORED + 1  # two cells: 1 settled, 2 not settled, 0 unknown; how far it is ahead, in seconds
# The clock samples of the last minutes, one a minute, for a new worker, which has no samples of its own yet.
_SAMPLES: Final = _CLOCK + 2
_SAMPLES_KEPT: Final = 16
CELLS: Final = _SAMPLES + 2 * _SAMPLES_KEPT


class CounterTable:
    """Rows in memory that is shared with every process forked later. A row has some 7 KB, allocated at first use."""

    def __init__(self, slots: int) -> None:
        shared = mmap.mmap(-1, 8 * (1 + slots * CELLS))
        self._used = memoryview(shared).cast("d")  # [0]: the number of slots ever used; only the arbiter writes it
        self._rows: NDArray[np.float64] = np.frombuffer(shared, np.float64, offset=8).reshape(slots, CELLS)

    def assign(self, slot: int) -> None:
        """Called before the slot's worker is forked. The slot's counts stay; its last worker's gauges are cleared."""
        self._used[0] = max(self._used[0], slot + 1.0)
        self.release(slot)

    def release(self, slot: int) -> None:
        """Called when the slot's worker has ended; its counts stay."""
        self._rows[slot, [_CAUGHT_UP_S, _CLOCK, _CLOCK + 1]] = 0.0

    def row(self, slot: int) -> memoryview[float]:
        begin = 1 + slot * CELLS
        return self._used[begin : begin + CELLS]

    def rows(self) -> NDArray[np.float64]:
        """A copy of all rows that were ever used. 10 µs for four workers."""
        return self._rows[: int(self._used[0])].copy()


class Metrics:
    """The counters of one worker: private, until `share` gives it a row that all workers see. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # cells[at] += 1 is three steps
        self._table: CounterTable | None = None
        self._cells: memoryview[float] = memoryview(bytearray(8 * CELLS)).cast("d")

    def share(self, table: CounterTable, slot: int) -> None:
        """Count in that slot's row from now on; scrapes then show the totals of the table."""
        self._table, self._cells = table, table.row(slot)

    def request(self, route: int, status: str, seconds: float) -> None:
        """One answer; `route` is a place in ROUTES or OTHER, `status` three digits. 0.7 µs."""
        cells = self._cells
        count_at = _REQUESTS + route * len(_STATUS_NAMES) + _STATUS_AT.get(status, len(STATUSES))
        first = _SECONDS + route * _HISTOGRAM
        bucket_at = first + bisect_left(BUCKETS, seconds)
        with self._lock:
            cells[count_at] += 1.0
            cells[bucket_at] += 1.0
            cells[first + len(_BUCKET_NAMES)] += seconds

    def recorded(self, placed: Placed, duplicates: int, append_s: float) -> None:
        """One append: where its events lay, how many more were left out as duplicates, how long it took. 0.8 µs."""
        recent, older, expired, ahead = placed
        cells = self._cells
        bucket_at = _TIMINGS_AT + bisect_left(BUCKETS, append_s)
        with self._lock:
            cells[_PLACES_AT] += recent
            cells[bucket_at] += 1.0
            cells[_TIMINGS_AT + len(_BUCKET_NAMES)] += append_s
            if older or expired or ahead or duplicates:
                cells[_PLACES_AT + 1] += older
                cells[_PLACES_AT + 2] += expired
                cells[_PLACES_AT + 3] += ahead
                cells[_EVENTS_AT + 1] += duplicates

    def rejected(self, events: int) -> None:
        with self._lock:
            self._cells[_EVENTS_AT] += events

    def fsynced(self, seconds: float) -> None:
        first = _TIMINGS_AT + _HISTOGRAM
        with self._lock:
            self._cells[first + bisect_left(BUCKETS, seconds)] += 1.0
            self._cells[first + len(_BUCKET_NAMES)] += seconds

    def replayed(self, seconds: float) -> None:
        with self._lock:
            self._cells[_REPLAYS] += 1.0
            self._cells[_REPLAYS + 1] += seconds

    def caught_up(self, at_us: int) -> None:
        """The view was level with the journal at that time of the monotonic clock, which a machine's workers share.

        At the start, before it is level, the time at which its replay began.
        """
        self._cells[_CAUGHT_UP_S] = at_us / 1e6

    def view_broke(self) -> None:
        with self._lock:
            self._cells[_BROKEN] += 1.0

    def lost(self, lost: Lost, noticed_us: int) -> None:
        """Acknowledged records are missing. Each worker notices that by itself; a scrape shows the largest count."""
        with self._lock:
            cells = self._cells
            cells[_LOST] += lost.records or 1
            cells[_LOST + 3] += lost.records or 0
            cells[_LOST + 1] = _ALL_US if lost.all else lost.since_us or 0
            cells[_LOST + 2] = noticed_us

    def last_lost(self) -> tuple[int | None, int | None, bool, int] | None:
        """The loss that any worker noticed, None without one: (records, None where the number is unknown; since when;
        whether all earlier records are gone; when it was last noticed).
        """
        rows = self._rows_now()[:, _LOST : _LOST + 4]
        records, since_us, noticed_us, _ = rows[rows[:, 2].argmax()].tolist()
        if not records:
            return None
        known_us = None if since_us in (0, _ALL_US) else int(since_us)
        known = int(rows[:, 0].max()) if rows[:, 3].any() else None
        return known, known_us, since_us == _ALL_US, int(noticed_us)

    def clock_stepped(self) -> None:
        """The engine's clock jumped. Each worker sees that by itself; a scrape shows the largest count."""
        with self._lock:
            self._cells[_STEPS] += 1.0

    def ignored(self, strings: int) -> None:
        """This many fields of line protocol were left out, as they hold text."""
        with self._lock:
            self._cells[_IGNORED] += strings

    def unlimited(self) -> None:
        """A request passed that could not be counted against the rate limit."""
        with self._lock:
            self._cells[_UNLIMITED] += 1.0

    def clock(self, settled: bool, ahead_us: int) -> None:
        self._cells[_CLOCK] = 1.0 if settled else 2.0
        self._cells[_CLOCK + 1] = ahead_us / 1e6

    def share_clock_sample(self, sample: Sample) -> None:
        """Keep a sample for future workers: each minute's latest time and smallest offset."""
        at = _SAMPLES + sample.monotonic_us // MINUTE_US % _SAMPLES_KEPT * 2
        with self._lock:
            cells = self._cells
            if cells[at] // MINUTE_US == sample.monotonic_us // MINUTE_US and cells[at]:
                offset_us = min(cells[at + 1], sample.offset_us)
            else:
                offset_us = sample.offset_us
            # In this order, so that a reader in between does not take the new offset for an old sample's.
            cells[at] = sample.monotonic_us
            cells[at + 1] = offset_us

    def clock_samples(self) -> list[Sample]:
        """The samples that all workers of this machine kept."""
        found = self._rows_now()[:, _SAMPLES:].reshape(-1, 2)
        return [Sample(int(at_us), int(offset_us)) for at_us, offset_us in found.tolist() if at_us]

    def _rows_now(self) -> NDArray[np.float64]:
        return np.array(self._cells).reshape(1, CELLS) if self._table is None else self._table.rows()

    def lag_s(self, monotonic_us: int, below_s: float = math.inf) -> float | None:
        """Seconds since the view that is furthest behind, among this machine's workers, was level with the journal.
        Views that are `below_s` or more behind do not count.

        None where there is no view. Costs 10 µs.
        """
        now_s = monotonic_us / 1e6
        caught_up_s = self._rows_now()[:, _CAUGHT_UP_S]
        known = caught_up_s[(caught_up_s > 0) & (caught_up_s > now_s - below_s)]
        return max(0.0, now_s - float(known.min())) if len(known) else None

    def families(self, monotonic_us: int) -> Iterator[Metric]:
        """Everything counted, by all workers."""
        rows = self._rows_now()
        cells = rows.sum(axis=0)
        yield from _request_families(cells)
        yield from _event_families(cells)
        yield from _trouble_families(cells, rows)
        if (lag_s := self.lag_s(monotonic_us)) is not None:
            yield gauge(
                "statsapi_view_lag_seconds",
                "How long ago the view that is furthest behind was level with the journal (about 1 when idle).",
                lag_s,
            )


def _request_families(cells: NDArray[np.float64]) -> Iterator[Metric]:
    requests = CounterMetricFamily("statsapi_http_requests", "Requests answered.", labels=("method", "route", "status"))
    seconds = HistogramMetricFamily(
        "statsapi_http_request_duration_seconds",
        "Requests, from their head until the head of the answer.",
        labels=("method", "route"),
    )
    for route, names in enumerate(_ROUTE_NAMES):
        first = _REQUESTS + route * len(_STATUS_NAMES)
        for status, count in zip(_STATUS_NAMES, cells[first : first + len(_STATUS_NAMES)].tolist(), strict=True):
            if count:
                requests.add_metric((*names, status), count)
        _add_histogram(seconds, names, cells, _SECONDS + route * _HISTOGRAM)
    yield requests
    yield seconds


def _event_families(cells: NDArray[np.float64]) -> Iterator[Metric]:
    """The families about recorded events, their durations, and replays."""
    placed = CounterMetricFamily("statsapi_events_accepted", _ACCEPTED, labels=("placement",))
    counts = Placed(*cells[_PLACES_AT : _PLACES_AT + len(Placed._fields)].tolist())
    for name, count in counts._asdict().items():
        placed.add_metric((name,), count)
    yield placed
    yield _counter("stored", "Events recorded that count.", counts.recent + counts.older + counts.ahead)
    yield _counter("expired", "Events that were older than everything kept when they came.", counts.expired)
    for at, (what, meaning) in enumerate(_EVENTS, _EVENTS_AT):
        yield _counter(what, meaning, float(cells[at]))
    for at, (what, meaning) in enumerate(_TIMINGS):
        timing = HistogramMetricFamily(f"statsapi_{what}_duration_seconds", meaning, labels=())
        _add_histogram(timing, (), cells, _TIMINGS_AT + at * _HISTOGRAM, always=True)
        yield timing
    yield SummaryMetricFamily(
        "statsapi_replay_duration_seconds",
        "From a worker's start until its view was level with the journal.",
        count_value=int(cells[_REPLAYS]),
        sum_value=float(cells[_REPLAYS + 1]),
    )


def _trouble_families(cells: NDArray[np.float64], rows: NDArray[np.float64]) -> Iterator[Metric]:
    """Faults, and the clock's steps. cells: the totals; rows: each worker's cells."""
    yield CounterMetricFamily(
        "statsapi_view_broken",
        "How often a worker's view started afresh after an exception in the middle of a change.",
        value=float(cells[_BROKEN]),
    )
    yield CounterMetricFamily(
        "statsapi_journal_lost_records",
        "The least number of acknowledged records that are missing from the journal.",
        value=float(rows[:, _LOST].max()),
    )
    yield CounterMetricFamily(
        "statsapi_clock_steps",
        "How often the clock jumped by more than a second, forward or back.",
        value=float(rows[:, _STEPS].max()),
    )
    yield CounterMetricFamily(
        "statsapi_rate_limit_uncounted",
        "Requests that passed without a rate limit, as they could not be counted.",
        value=float(cells[_UNLIMITED]),
    )
    yield CounterMetricFamily(
        "statsapi_influx_ignored_strings",
        "String fields of Influx line protocol that were left out of points with numbers.",
        value=float(cells[_IGNORED]),
    )
    if (known := rows[:, _CLOCK] > 0).any():
        yield gauge(
            "statsapi_clock_settled",
            "1 when the clock has stood for ten minutes on every worker; 0: what expires is judged by the time "
            "that has stood.",
            float((rows[known, _CLOCK] == 1.0).all()),
        )
        yield gauge(
            "statsapi_clock_step_seconds",
            "How far the clock is ahead of the time that has stood, after a step forward.",
            float(rows[known, _CLOCK + 1].max()),
        )


def _add_histogram(
    family: HistogramMetricFamily, names: Sequence[str], cells: NDArray[np.float64], first: int, always: bool = False
) -> None:
    counts = np.cumsum(cells[first : first + len(_BUCKET_NAMES)]).tolist()
    if counts[-1] or always:
        total_s = float(cells[first + len(_BUCKET_NAMES)])
        family.add_metric(names, list(zip(_BUCKET_NAMES, counts, strict=True)), total_s)


def _counter(what: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"statsapi_events_{what}", meaning, value=value)


def gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)
