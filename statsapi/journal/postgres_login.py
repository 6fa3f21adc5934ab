"""Why a PostgreSQL server does not let us in, by its SQLSTATE and never by its words: those are in its language.

libpq gives no SQLSTATE of a connection that failed, nor does psycopg. But it can trace the messages of its protocol,
and the server's ErrorResponse is one. So where a connection failed each host is asked once more, with a trace. It
may hold a password, and lies in memory that has no name, for as long as that takes.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Mapping
from typing import Final

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# Instead of a SQLSTATE: this host lets us in.
LET_IN: Final = "00000"

# Classes of SQLSTATEs with which a login never succeeds by waiting: authorisation, no such database, no such setting or
# right, a value that is none, a feature that it has not.
REFUSING: Final = ("28", "3D", "42", "22", "0A")

_SAID: Final = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
_TRACE_BYTES: Final = 1 << 20


def states_of(conninfo: str, wait_s: float) -> list[str | None]:
    """For each host of `conninfo`: the SQLSTATE with which it refuses us, LET_IN, or None where it says nothing within
    `wait_s`. Resolves names as libpq does, which has no limit. Each call costs some KB for good: libpq's trace is a C
    stream, which psycopg never closes.
    """
    given = conninfo_to_dict(conninfo)
    ways: dict[str, list[str]] = {
        name: str(given[name]).split(",") for name in ("host", "hostaddr", "port") if given.get(name) is not None
    }
    hosts = max(len(ways.get("host", [])), len(ways.get("hostaddr", [])), 1)
    common = {**given, "target_session_attrs": "any"}
    return [
        _state_of(
            make_conninfo("", **common | {name: each[at if len(each) == hosts else 0] for name, each in ways.items()}),
            wait_s,
        )
        for at in range(hosts)
    ]


def _state_of(conninfo: str, wait_s: float) -> str | None:
    trace = os.memfd_create("statsapi-login")
    try:
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(trace)
            if _connected(connection, time.monotonic() + wait_s):
                return LET_IN
        finally:
            connection.untrace()  # writes what is left of it
            connection.finish()
        said = _SAID.findall(os.pread(trace, _TRACE_BYTES, 0))
        return said[-1].decode() if said else None
    finally:
        os.close(trace)


_EVENTS: Final[Mapping[int, int]] = {
    pq.PollingStatus.READING: select.POLLIN,
    pq.PollingStatus.WRITING: select.POLLOUT,
}


def _connected(connection: pq.abc.PGconn, deadline_s: float) -> bool:
    status = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD and status in _EVENTS:
        poll = select.poll()
        poll.register(connection.socket, _EVENTS[status])
        if not poll.poll(max(0, int(1000 * (deadline_s - time.monotonic())))):
            return False
        status = pq.PollingStatus(connection.connect_poll())
    return status == pq.PollingStatus.OK
