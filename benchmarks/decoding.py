"""What decoding a batch costs, form by form, next to what the plain way costs.

    python -m benchmarks.decoding [events]

Prints the best of many rounds in microseconds an event, and as a multiple of what msgspec takes to read the same events
as a JSON array of objects: the machine's speed is in both, so the multiple travels.
"""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from statsapi.api.decoding import decode, decode_lines
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.api.schemas import EventSchema
from statsapi.server.interpreter import keep_freed_memory
from statsapi.times import format_timestamp

BASE_US = 1_763_711_100_000_000

Event = dict[str, Any]


def events(count: int) -> list[Event]:
    """A minute and more of measurements: ISO timestamps with milliseconds and Z, values of three decimals."""
    rng = random.Random(1)
    return [
        {"timestamp": iso(BASE_US + row * 6000), "value": round(rng.lognormvariate(3, 1), 3)} for row in range(count)
    ]


def iso(ts_us: int) -> str:
    """As JavaScript's toISOString writes it: 2025-11-21T07:45:00.123Z."""
    return f"{format_timestamp(ts_us)[:19]}.{ts_us // 1000 % 1000:03d}Z"


def as_json(items: list[Event]) -> bytes:
    return json.dumps(items, separators=(",", ":")).encode()


def as_ndjson(items: list[Event]) -> bytes:
    return b"".join(as_json(item) + b"\n" for item in items)  # type: ignore[arg-type]


def as_columns(items: list[Event]) -> bytes:
    return json.dumps({name: [item[name] for item in items] for name in ("timestamp", "value")}).encode()


def as_csv(items: list[Event], *, quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(items[0]), lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(items)
    return text.getvalue().encode()


def replaced(items: list[Event], row: int, **fields: Any) -> list[Event]:
    return [*items[:row], {**items[row], **fields}, *items[row + 1 :]]


def best_us(act: Callable[[], object], count: int) -> float:
    """The best of as many rounds as fit in a second and a half, at least three."""
    best, rounds, deadline = float("inf"), 0, time.perf_counter() + 1.5
    while rounds < 3 or time.perf_counter() < deadline:
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
        rounds += 1
    return best * 1e6 / count


def main(count: int) -> None:
    keep_freed_memory()  # as a worker does
    items = events(count)
    numbers = [item | {"timestamp": BASE_US // 1_000_000 + row} for row, item in enumerate(items)]
    floats = [item | {"timestamp": (BASE_US + row * 6000) / 1e6} for row, item in enumerate(items)]
    offsets = [item | {"timestamp": item["timestamp"][:19] + "+01:00"} for item in items]
    isoformat = [item | {"timestamp": format_timestamp(BASE_US + row * 250_000)} for row, item in enumerate(items)]
    ns = [item | {"timestamp": BASE_US * 1000 + row} for row, item in enumerate(items)]
    go = [item | {"timestamp": f"{item['timestamp'][:10]} {item['timestamp'][11:23]} +0000 UTC"} for item in items]
    slashes = [item | {"timestamp": item["timestamp"][:19].replace("-", "/").replace("T", " ")} for item in items]
    series = [item | {"series": f"host-{row % 100}"} for row, item in enumerate(items)]
    many = [item | {"series": f"host-{row // 10}"} for row, item in enumerate(items)]
    middle = count // 2
    types = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}
    cases: list[tuple[str, str, bytes]] = [
        ("JSON array", "json", as_json(items)),
        ('{"events": […]}', "json", b'{"events":' + as_json(items) + b"}"),
        ("NDJSON", "ndjson", as_ndjson(items)),
        ("CSV", "csv", as_csv(items)),
        ("columns", "json", as_columns(items)),
        ("columns, integer timestamps", "json", as_columns(numbers)),
        ("columns, float timestamps", "json", as_columns(floats)),
        ("JSON array, integer timestamps", "json", as_json(numbers)),
        ("CSV, integer timestamps", "csv", as_csv(numbers)),
        ("JSON array, integer nanoseconds", "json", as_json(ns)),
        ("CSV, nanoseconds", "csv", as_csv(ns)),
        ("JSON array, Go's time.String()", "json", as_json(go)),
        ("CSV, 2025/11/21 07:45:00", "csv", as_csv(slashes)),
        ("JSON array, +01:00", "json", as_json(offsets)),
        ("JSON array, isoformat() of two widths", "json", as_json(isoformat)),
        ("JSON array, 100 series", "json", as_json(series)),
        ("CSV, 100 series", "csv", as_csv(series)),
        ("JSON array, 10 events a series", "json", as_json(many)),
        ("CSV, all quoted", "csv", as_csv(items, quoting=csv.QUOTE_ALL)),
        ('JSON array, one value "3.5"', "json", as_json(replaced(items, middle, value="3.5"))),
        (
            "JSON array, one 24:00:00.000Z",
            "json",
            as_json(replaced(items, middle, timestamp="2025-11-21T24:00:00.000Z")),
        ),
        ("JSON array, one null", "json", as_json(replaced(items, middle, value=None))),
        ("NDJSON, one null", "ndjson", as_ndjson(replaced(items, middle, value=None))),
        ("CSV, one ragged row", "csv", as_csv(items).replace(b"Z,", b"Z,,", 1)),
        ("JSON array, each without a value", "json", as_json([{"timestamp": 1}] * count)),
    ]
    german = [
        {
            "Zeit": f"{time[8:10]}.{time[5:7]}.{time[:4]} {time[11:19]}",
            "Wert": str(item["value"]).replace(".", ","),
        }
        for item in items
        for time in [item["timestamp"]]
    ]
    apart = [
        {"date": time[:10], "time": time[11:19], "in": item["value"], "out": item["value"], "host": f"web-{row % 8}"}
        for row, item in enumerate(items)
        for time in [item["timestamp"]]
    ]
    named = [{"time": item["timestamp"], "cpu": item["value"], "host": "a"} for item in items]
    local = {"timezone": "Europe/Berlin"}
    ways = {"timestamp": "Zeit", "value": "Wert", "decimal": ",", "time_format": "%d.%m.%Y %H:%M:%S", **local}
    tables: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("CSV with names of columns", "csv", as_csv(named), {"timestamp": "time", "value": "cpu"}),
        ("CSV from a German spreadsheet, a zone", "csv", as_csv(german), ways),
        (
            "CSV, date and time, 2 values, a tag (row)",
            "csv",
            as_csv(apart),
            {"date": "date", "time": "time", "value": "in,out", "tags": "host", **local},
        ),
        ("NDJSON with names, a tag", "ndjson", as_ndjson(named), {"timestamp": "time", "value": "cpu", "tags": "host"}),
    ]
    array = as_json(items)
    schema = EventSchema()
    unit = best_us(lambda: msgspec.json.decode(array), count)
    print(f"{count} events                                  µs an event   x msgspec")
    for name, media_type, body in cases:

        def act(body: bytes = body, media_type: str = types[media_type]) -> object:
            return decode(body, media_type, max_events=count)

        report(name, best_us(act, count), unit)
    for name, media_type, body, query in tables:
        mapping = ColumnMapping.of_parameters(query)

        def read(
            body: bytes = body, media_type: str = types[media_type], mapping: ColumnMapping | None = mapping
        ) -> object:
            return decode(body, media_type, max_events=2 * count, mapping=mapping)

        report(name, best_us(read, count), unit)
    points = "\n".join(
        f"cpu,host=h{row % 100},region=eu usage={item['value']} {BASE_US * 1000 + row}"
        for row, item in enumerate(items)
    ).encode()
    lines_us = best_us(lambda: decode_lines(points, unit_us=0, now_us=BASE_US, max_events=count), count)
    report("line protocol, 100 series", lines_us, unit)
    report("  msgspec.json.decode, nothing checked", unit, unit)
    report("  json.loads, nothing checked", best_us(lambda: json.loads(array), count), unit)
    report("  json.loads and EventSchema", best_us(lambda: schema.load(json.loads(array), many=True), count), unit)


def report(name: str, us: float, unit: float) -> None:
    print(f"{name:40} {us:16.3f} {us / unit:10.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
