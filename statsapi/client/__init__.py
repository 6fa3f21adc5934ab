"""The Python client: records events and asks questions. It needs urllib3 alone. No event is lost or counted twice: this
is tested with faults of the transport and killed services, and for the spool also with killed clients.

    from statsapi.client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.record(42.5, series="latency")
        client.statistics("latency", window="5m", stats=["count", "mean", "p95"])

Imports point down this list, never up.

client         the class that programs call; it records
questions      the questions that it asks
calls          one question or recording, tried until it is settled
buffered       the sender in the background: takes events
delivery       sends the events taken, batch after batch, each until it is settled
attempt        one attempt at a batch
backlog        events taken and not settled, behind the sender's one lock
lifecycle      ends and forks of the process
spool          a directory of events on disk
spool_file     one file of the spool
spool_owners   which process owns which files
spool_format   the format of a file
problems       the problems that a sender reports
outbox         the store of events that a sender needs; the one in memory
recorder       timers
http           one request, its answer and its errors
frames         pandas
events         events and questions as text
errors         the exceptions

It imports nothing of the service, so it works without Flask and numpy.
"""

from statsapi.client.buffered import Buffered, Stats
from statsapi.client.client import Client
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
from statsapi.client.questions import Event

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
