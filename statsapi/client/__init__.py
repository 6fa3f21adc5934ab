"""The Python client: records events and asks questions, on urllib3 alone. Made so that no event is lost or
counted twice; that is tested against faults of the transport, and not yet against killed processes.

    from statsapi.client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.record(42.5, series="latency")
        client.statistics("latency", window="5m", stats=["count", "mean", "p95"])

client.py: what is called. buffered.py: the sender in the background, which takes events into a backlog.py;
delivery.py: how they are sent from there, attempt.py by attempt; problems.py: what is told of it; lifecycle.py: ends
and forks of the process. outbox.py: what a sender needs of a store of events, and the one in memory; spool.py: the one
on disk, in files (spool_file.py, spool_format.py) that some process owns (spool_owners.py). Below them recorder.py
(timers), http.py (one request, its errors), events.py (events as text), frames.py (pandas) and errors.py.
It imports nothing of the service, so neither Flask nor numpy need be there.
"""

from statsapi.client.buffered import Buffered, Stats
from statsapi.client.client import Client, Event
from statsapi.client.errors import (
    BufferFull,
    Closed,
    Conflict,
    Refused,
    SpoolError,
    StatsapiError,
    StatsapiWarning,
    Unauthorized,
    Unavailable,
    Undelivered,
)
from statsapi.client.problems import Problem

__all__ = [
    "BufferFull",
    "Buffered",
    "Client",
    "Closed",
    "Conflict",
    "Event",
    "Problem",
    "Refused",
    "SpoolError",
    "Stats",
    "StatsapiError",
    "StatsapiWarning",
    "Unauthorized",
    "Unavailable",
    "Undelivered",
]
