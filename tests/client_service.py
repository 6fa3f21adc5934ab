"""The client's connections, led into a service of this process, with faults where a network has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from flask import Flask

from statsapi.client import Client, Unavailable
from statsapi.client.buffered import Buffered
from statsapi.client.http import Reply, Transport, refusal
from tests.fakes import FakeClock

# Before the request arrives; after it was carried out, in place of the answer; instead of all, an answer of this kind.
Fault = Literal["refused", "lost", "502", "401", "400", "429", "html", "413"]


class InProcess(Transport):
    """Each request goes to `app`, unless `faults` has something else for it; None in it is no fault."""

    def __init__(self, app: Flask, faults: Iterable[Fault | None] = ()) -> None:
        super().__init__("http://stats.test", None, timeout_s=1, ca_file=None, connections=1)
        self._client = app.test_client()
        self.faults = list(faults)
        self.requests: list[tuple[str, str, bytes | None, dict[str, str]]] = []

    def send(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        self.requests.append((method, path, body, dict(headers or {})))
        fault = self.faults.pop(0) if self.faults else None
        if fault == "refused":
            raise Unavailable("Connection refused", outcome="not recorded")
        if fault == "html":
            return Reply(200, {}, b"<html>Please log in</html>")
        if fault and fault.isdigit():
            raise refusal(self.url, int(fault), {"Retry-After": "7"} if fault == "429" else {}, b"<html>nginx</html>")
        response = self._client.open(path, method=method, query_string=query, data=body, headers=dict(headers or {}))
        if fault == "lost":
            raise Unavailable("Connection reset by peer")
        if response.status_code >= 300:
            raise refusal(self.url, response.status_code, dict(response.headers), response.data)
        return Reply(response.status_code, dict(response.headers), response.data)


class Timeline:
    """A monotonic clock in seconds, and the wall clock of a FakeClock, that go on by sleeping."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.clock.monotonic_us() / 1e6

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(round(seconds * 1e6))


def client_of(transport: InProcess, clock: FakeClock, **options: Any) -> Client:
    """A client whose time is the service's."""
    time = Timeline(clock)
    client = Client("http://stats.test", clock_s=time, sleep=time.sleep, now_us=clock, **options)
    client._calls.transport = transport
    return client


def sender_of(transport: InProcess, clock: FakeClock, **options: Any) -> Buffered:
    """A sender without a thread, whose time is the service's: tests call step()."""
    options = {"chance": lambda: 0.0, **options}
    return Buffered(transport, clock_s=Timeline(clock), now_us=clock, background=False, **options)


def run(sender: Buffered, clock: FakeClock, most_steps: int = 1000) -> None:
    """Step until nothing waits, and let pass the time that each step asks for."""
    for _ in range(most_steps):
        if sender.stats().pending == 0:
            return
        wait_s = sender.step()
        assert wait_s is not None
        clock.advance(round(wait_s * 1e6) + 1)
    raise AssertionError(f"not done after {most_steps} steps: {sender.stats()}")
