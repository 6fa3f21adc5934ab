"""`statsapi bench URL`: how fast a service is, as seen by a client on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final, NamedTuple

import click

from statsapi.cli import failures, output
from statsapi.cli.connection import Connection, may_ask_service

SERIES: Final = "statsapi-bench"
_BATCH: Final = 1_000
_EVENTS_MAX: Final = 200_000  # a fast service must not be filled
_FAILURES_MAX: Final = 20  # in a row: the service is away, or refuses more


class Phase(NamedTuple):
    """The results of one kind of request. Latencies of the successful requests, in seconds, sorted."""

    name: str
    took_s: float
    events: int
    latencies_s: list[float]
    failures: int
    last_failure: str

    def percentile_ms(self, percent: int) -> float | None:
        """Nearest rank."""
        if not self.latencies_s:
            return None
        return self.latencies_s[max(0, -(-percent * len(self.latencies_s) // 100) - 1)] * 1000

    def told(self) -> dict[str, Any]:
        return {
            "phase": self.name,
            "seconds": self.took_s,
            "requests": len(self.latencies_s),
            "requests_per_s": len(self.latencies_s) / self.took_s,
            "events_per_s": self.events / self.took_s,
            **{f"p{percent}_ms": self.percentile_ms(percent) for percent in (50, 95, 99)},
            "max_ms": self.percentile_ms(100),
            "failures": self.failures,
            "last_failure": self.last_failure,
        }


@click.command(
    short_help="How fast is a service? Posts and reads.",
    epilog="Example: statsapi bench http://127.0.0.1:8000 --seconds 3 --connections 8",
)
@click.argument("address", metavar="[URL]", required=False)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    metavar="S",
    help="Measure each of the three parts for this long (default 3); a part ends --timeout later at most.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    default=4,
    metavar="N",
    help="Use this many connections at once (default 4).",
)
@click.option("--series", metavar="NAME", default=SERIES, help=f"Record into this series (default {SERIES}).")
@may_ask_service
def bench(
    find_service: Callable[..., Connection], address: str | None, seconds: float, connections: int, series: str
) -> int:
    """Measure the service at URL (--url unless given): single events, batches of 1,000, and reads, some seconds each.

    The events are real ones, in their own series, at most 200,000 in batches; they expire like all others. The figures
    include the network and this Python client, which can use one core only. Exit status 1: a request failed.
    """
    service = find_service(address)
    if not service.as_json:
        click.echo(
            f"Recording into the series {series} of {service.url}: its events are real, and expire as others do."
        )
    with service.client(connections=connections) as client:
        client.record(1.0, series=series)  # fails before measuring, if the key may not write
        events = [{"value": float(value), "series": series} for value in range(_BATCH)]
        done = [
            _measure("one event", client.record, connections, seconds, 1, 1.0, series=series),
            _measure("1,000 events", client.record_many, connections, seconds, _BATCH, events),
            _measure("read", client.statistics, connections, seconds, 0, series, window="5m", percentiles="50,99"),
        ]
    if service.as_json:
        output.show_json({"url": service.url, "series": series, "phases": [phase.told() for phase in done]})
    else:
        _show(done)
    failing = [phase for phase in done if phase.failures]
    for phase in failing:
        failures.say(f"statsapi: {phase.name}: {phase.failures:,} failed, the last with: {phase.last_failure}")
    return failures.NOT_DONE if failing else 0


def _show(done: list[Phase]) -> None:
    columns = ("WHAT", "REQUESTS/S", "EVENTS/S", "P50 MS", "P95 MS", "P99 MS", "MAX MS")
    rows = []
    for phase in done:
        rates = [f"{len(phase.latencies_s) / phase.took_s:,.0f}", f"{phase.events / phase.took_s:,.0f}"]
        found = [phase.percentile_ms(percent) for percent in (50, 95, 99, 100)]
        rows.append((phase.name, *rates, *("-" if each is None else f"{each:,.2f}" for each in found)))
    output.show_table(columns, rows, numbers=columns[1:])


def _measure(
    name: str, call: Callable[..., Any], connections: int, seconds: float, events: int, *given: Any, **options: Any
) -> Phase:
    """`connections` threads make the call again and again until the seconds are over."""
    lock = threading.Lock()
    begun = count()
    latencies_s: list[float] = []
    failed = 0
    last_failure = ""
    begin_s = time.perf_counter()
    end_s = begin_s + seconds

    def work() -> None:
        nonlocal failed, last_failure
        in_a_row = 0
        while (before_s := time.perf_counter()) < end_s and in_a_row < _FAILURES_MAX:
            if events > 1 and next(begun) >= _EVENTS_MAX // events:
                return
            try:
                call(*given, **options)
            except Exception as error:  # noqa: BLE001 - counted and told; a thread must not end in a traceback
                in_a_row += 1
                told = failures.told(error)
                with lock:
                    failed += 1
                    last_failure = told.lines[0].removeprefix("statsapi: ") if told else repr(error)
            else:
                in_a_row = 0
                with lock:
                    latencies_s.append(time.perf_counter() - before_s)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - begin_s
    return Phase(name, took_s, len(latencies_s) * events, sorted(latencies_s), failed, last_failure)
