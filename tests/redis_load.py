"""Clients that post to services while their engine is killed, and send again until they hear 200."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from statsapi.times import format_timestamp
from tests.servers import Server, wait_until


def body(value: float = 1.0) -> dict[str, Any]:
    return {"timestamp": format_timestamp(time.time_ns() // 1000), "value": value}


class Load:
    """Clients that post events, each with a value and a key of its own, and send one again until they hear 200."""

    def __init__(self, services: Sequence[Server], clients: int) -> None:
        self.acknowledged: list[float] = []
        self.failures: list[object] = []
        self._numbers = itertools.count()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._post, args=(services[at % len(services)],)) for at in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _post(self, service: Server) -> None:
        while not self._done.is_set():
            value = float(next(self._numbers))
            sent, keyed = body(value), {"Idempotency-Key": f"event-{value}"}
            while (answer := service.request("POST", "/event", sent, keyed))[0] != 200:
                if answer[0] != 503 or answer[1]["outcome"] not in ("unknown", "not recorded"):
                    self.failures.append(answer)
                    return
                time.sleep(0.01)
            self.acknowledged.append(value)

    def wait_for(self, events: int) -> None:
        """Wait until this many more events are acknowledged."""
        enough = len(self.acknowledged) + events
        wait_until(lambda: len(self.acknowledged) >= enough or self.failures, "some acknowledged events")
        assert self.failures == []

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        assert self.failures == []


@contextmanager
def posting(*services: Server, clients: int = 6) -> Iterator[Load]:
    load = Load(services, clients)
    try:
        yield load
    finally:
        load.stop()
