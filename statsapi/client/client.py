"""The client, as programs call it: this file records, questions.py asks. calls.py tries each call until it is settled.

Every recording carries an Idempotency-Key of its own, so that a retry counts once. Methods return what the service
answered, as dicts; docs/api.md describes them. Any number of threads may share a client, and it survives a fork.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from statsapi.client.calls import Answer, Calls, new_key
from statsapi.client.events import Number, Tags, Timestamp, encode_event, line_of
from statsapi.client.http import JSON, NDJSON, Reply, Transport
from statsapi.client.questions import Questions
from statsapi.client.recorder import Recorder

if TYPE_CHECKING:
    import pandas as pd

    from statsapi.client.buffered import Buffered, WhenFull
    from statsapi.client.problems import Problem

# The service takes 100,000 by default. 10,000 are some 0.6 MB, which nginx lets through unless it is told otherwise.
BATCH_EVENTS: Final = 10_000


class BufferedOptions(TypedDict, total=False):
    """How a sender in the background is to work: the parameters of `Buffered`."""

    max_events: int
    flush_s: float
    when_full: WhenFull
    batch_events: int
    spool: str | Path | None
    on_problem: Callable[[Problem], None] | None
    key_lifetime_s: float


class Client(Questions, Recorder):
    """A client of the service at `url` (a path prefix may follow the host), with an API `key` if it asks for one.

    An attempt may take `timeout_s`. A call is tried again, with growing pauses and after what `Retry-After` asks, until
    `give_up_after_s` have passed since it began: then the last error is raised. `ca_file` holds certificates to trust
    instead of the system's. `clock_s`, `sleep` and `now_us` are for tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        give_up_after_s: float = 30.0,
        ca_file: str | None = None,
        connections: int = 16,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        transport = Transport(url, key, timeout_s=timeout_s, ca_file=ca_file, connections=connections)
        self._calls = Calls(transport, give_up_after_s=give_up_after_s, clock_s=clock_s, sleep=sleep)
        self._now_us = now_us

    @property
    def url(self) -> str:
        return self._calls.transport.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections. A buffered sender is closed by itself."""
        self._calls.transport.close()

    # -- recording ---------------------------------------------------------------------------------------------------

    def record(
        self,
        value: Number,
        timestamp: Timestamp | None = None,
        series: str | None = None,
        tags: Tags | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Record one event; when this returns, it is in the service's journal. The time is now unless given.

        With an `idempotency_key` of yours (an order's number) and a `timestamp` the same call counts once, whoever
        makes it again.
        """
        now_us = self._now_us() if idempotency_key is None else None
        body = encode_event(value, timestamp, series, tags, now_us).encode()
        return self._calls.record("/event", JSON, body, idempotency_key or new_key())

    def record_many(
        self,
        events: Iterable[Mapping[str, Any] | tuple[Any, ...]],
        *,
        series: str | None = None,
        tags: Tags | None = None,
        idempotency_key: str | None = None,
        batch_events: int = BATCH_EVENTS,
    ) -> Answer:
        """Record many: mappings (`value`, and `timestamp`, `series`, `tags` if you like), or pairs (timestamp, value).

        `series` and `tags` are for events that name none. Up to `batch_events` are one request, which is stored whole
        or not at all; the iterable is never held whole. Returns the sums {"stored", "duplicates", "expired",
        "rejected"}, with "messages": what the service said about them, such as that some show in no window. An error
        says in a note how many were stored before it; the same call with the same `idempotency_key` counts none twice.
        """
        key = idempotency_key or new_key()
        clock_us = self._now_us if idempotency_key is None else _no_clock
        told: Answer = {"stored": 0, "duplicates": 0, "expired": 0, "rejected": 0, "messages": []}
        lines = (line_of(event, series, tags, clock_us()) for event in events)
        number = 0
        try:
            while batch := list(islice(lines, batch_events)):
                body = ("\n".join(batch) + "\n").encode()
                answer = self._calls.record("/events", NDJSON, body, f"{key}/{number}")
                for name in ("stored", "duplicates", "expired", "rejected"):
                    told[name] += answer[name]
                if "message" in answer:
                    told["messages"].append(answer["message"])
                number += 1
        except Exception as error:
            if number:
                error.add_note(
                    f"statsapi: {told['stored']} events were stored before this; the same call with "
                    f"idempotency_key={key!r} counts none of them twice"
                )
            raise
        return told

    def record_frame(
        self,
        frame: pd.DataFrame,
        *,
        value: str = "value",
        timestamp: str | None = None,
        series: str | None = None,
        series_column: str | None = None,
        tag_columns: Iterable[str] = (),
        idempotency_key: str | None = None,
    ) -> Answer:
        """Record the rows of a pandas DataFrame: its columns by name; without `timestamp` its index holds the times.

        Times need a zone, as elsewhere; a missing value or time is refused, naming its row. Answers as record_many().
        """
        from statsapi.client.frames import events_of

        events = events_of(frame, value, timestamp, series_column, list(tag_columns))
        return self.record_many(events, series=series, idempotency_key=idempotency_key)

    def buffered(self, **options: Unpack[BufferedOptions]) -> Buffered:
        """A sender in the background. Its options and their defaults: `Buffered`."""
        from statsapi.client.buffered import Buffered

        return Buffered(self._calls.transport, **options)

    def post(
        self, path: str, body: bytes, media_type: str, *, idempotency_key: str | None = None, **parameters: Any
    ) -> Answer:
        """POST a body as it is, such as a CSV file. {} for an empty answer.

        Tried again as record() is, under one key. Without a key of yours another call may record the same again.
        """
        return self._calls.post(path, body, media_type, idempotency_key, parameters)

    def exchange(
        self, path: str, body: bytes, media_type: str, *, idempotency_key: str | None = None, **parameters: Any
    ) -> Reply:
        """POST as `post` does, and return the answer as it came: for an endpoint that says in its headers what it did.
        A refusal is raised, and has its headers and body too.
        """
        return self._calls.exchange(path, body, media_type, idempotency_key, parameters)


def _no_clock() -> None:
    """Gives no time to events without one, where the caller chose the key. With this machine's time, a repeated call
    would send another body under the same key, and be refused.
    """
    return
