"""The Python client: records events and asks questions, on urllib3 alone. Made so that no event is lost or
counted twice; that is tested against faults of the transport, a service that is killed, and with a spool also against
clients that are killed.

    from statsapi.client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.record(42.5, series="latency")
        client.statistics("latency", window="5m", stats=["count", "mean", "p95"])

Imports point down this list, never up.

client         what is called
calls          one question or recording, tried until it is settled
buffered       the sender in the background: takes events
delivery       sends what was taken, batch after batch, each until it is settled
attempt        one attempt at a batch
backlog        what was taken and is not settled, behind the sender's one lock
lifecycle      ends and forks of the process
spool          a directory of events on disk
spool_file     a file in it
spool_owners   which process owns which files
spool_format   what is in a file
problems       what a sender has to tell
outbox         what a sender needs of a store of events; the one in memory
recorder       timers
http           one request, its answer and its errors
frames         pandas
events         events and questions as text
errors         what is raised

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
