"""The design statsapi grew from, as an honest peer: FastAPI, one uvicorn process, a deque behind a lock.

    python -m benchmarks.peer_seed --port 8001            as documented: sync handlers, access log
    python -m benchmarks.peer_seed --port 8001 --best     at its best: async handlers, no access log
    python -m benchmarks.peer_seed --port 8001 --preload 1000000

It keeps the seed's design: values are validated by a pydantic model, events live in a
`collections.deque` in arrival order, and GET /statistics walks all of them and computes with Python's `statistics`.
It has the seed's four endpoints with their exact shapes, and nothing more: nothing is durable, nothing expires, a
second process would see other events. `--preload` fills the deque before the first request, as posting a million
events one by one would take minutes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, field_validator

_WINDOW = timedelta(hours=1)


class Event(BaseModel):
    timestamp: datetime
    value: float

    @field_validator("timestamp")
    @classmethod
    def in_utc(cls, stamp: datetime) -> datetime:
        return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)


class EventStore:
    def __init__(self) -> None:
        self._events: deque[tuple[datetime, float]] = deque()
        self._lock = threading.Lock()

    def add(self, timestamp: datetime, value: float) -> None:
        with self._lock:
            self._events.append((timestamp, value))

    def recent(self) -> list[float]:
        cutoff = datetime.now(UTC) - _WINDOW
        with self._lock:
            return [value for timestamp, value in self._events if timestamp >= cutoff]

    def all(self) -> list[tuple[datetime, float]]:
        with self._lock:
            return list(self._events)


def create_peer(*, best: bool = False, preload: int = 0) -> FastAPI:
    """The peer's application; `best` runs the handlers on the event loop instead of in a thread pool."""
    app = FastAPI(title="Event Statistics API")
    store = EventStore()
    for timestamp, value in preloaded(preload):
        store.add(timestamp, value)

    def record(event: Event) -> dict[str, Any]:
        store.add(event.timestamp, event.value)
        return {
            "status": "success",
            "message": "Event stored successfully",
            "received_timestamp": event.timestamp.isoformat(),
            "server_time": datetime.now(UTC).isoformat(),
        }

    def summarise() -> dict[str, Any]:
        values = store.recent()
        if not values:
            return {"count": 0, "min": None, "max": None, "mean": None}
        return {"count": len(values), "min": min(values), "max": max(values), "mean": statistics.mean(values)}

    def explain() -> dict[str, Any]:
        now = datetime.now(UTC)
        cutoff = now - _WINDOW
        events = [
            {
                "timestamp": timestamp.isoformat(),
                "value": value,
                "is_recent": timestamp >= cutoff,
                "age_minutes": (now - timestamp).total_seconds() / 60,
            }
            for timestamp, value in store.all()
        ]
        return {
            "current_time": now.isoformat(),
            "cutoff_time": cutoff.isoformat(),
            "total_events": len(events),
            "events": events,
        }

    def index() -> dict[str, Any]:
        return {
            "message": "Event Statistics API is running",
            "server_time": datetime.now(UTC).isoformat(),
            "endpoints": {
                "POST /event": "Submit an event with timestamp and value",
                "GET /statistics": "Get statistics for the past hour",
                "GET /debug/events": "View all stored events",
            },
        }

    on_loop = _as_coroutine if best else _as_it_is
    app.post("/event")(on_loop(record))
    app.get("/statistics")(on_loop(summarise))
    app.get("/debug/events")(on_loop(explain))
    app.get("/")(on_loop(index))
    return app


def preloaded(events: int) -> list[tuple[datetime, float]]:
    """`events` events spread over the last 50 minutes in order, the same values in every run."""
    rng = random.Random(7)
    now = datetime.now(UTC)
    step = timedelta(minutes=50) / max(events, 1)
    return [(now - step * (events - nth), rng.lognormvariate(3, 1)) for nth in range(events)]


def _as_it_is(handler: Callable[..., Any]) -> Callable[..., Any]:
    return handler


def _as_coroutine(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)  # FastAPI reads the parameters through the wrapper
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return coroutine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--best", action="store_true", help="async handlers and no access log")
    parser.add_argument("--preload", type=int, default=0, metavar="EVENTS")
    args = parser.parse_args()
    app = create_peer(best=args.best, preload=args.preload)
    uvicorn.run(app, host="127.0.0.1", port=args.port, access_log=not args.best)


if __name__ == "__main__":
    main()
