"""Why a PostgreSQL server does not let us in, by its SQLSTATE and never by its words: those are in its language.

libpq gives no SQLSTATE of a connection that failed, nor does psycopg. But it can trace the messages of its protocol,
and the server's ErrorResponse is one. So where a connection failed each host is asked once more, with a trace. It
may hold a password, and lies in memory that has no name, for as long as that takes.

Settings with which no server could ever be reached show by what libpq does, because lists of its messages were never
complete. With such settings it gives up on a server of our own that only listens, or on one that reports no error and
is still there.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from psycopg import pq
from psycopg.conninfo import make_conninfo

# Instead of a SQLSTATE: this host lets us in; libpq does not want to be let in, as it is set.
LET_IN: Final = "00000"
OURS: Final = "ours"

# Classes of SQLSTATEs with which a login never succeeds by waiting: authorisation, no such database, no such setting or
# right, a value that is none, a feature that it has not.
REFUSING: Final = ("28", "3D", "42", "22", "0A")

_SAID: Final = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
_TRACE_BYTES: Final = 1 << 20
_TLS_GRANTED: Final = b"S"  # the server's answer to a request for TLS; the handshake may fail in the call that reads it
_GONE_S: Final = 0.2  # how long after libpq gave up the server may take to close the line, where it was the first to


def fault_of(conninfo: str) -> str:
    """libpq's words for settings with which it can reach no server at all; empty where it could, as far as that shows
    before a server answers.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ours = {"host": "localhost", "hostaddr": "127.0.0.1", "port": port}
        connection = pq.PGconn.connect_start(make_conninfo(conninfo, **ours).encode())
        try:
            status = pq.PollingStatus.WRITING
            while connection.status != pq.ConnStatus.BAD and status == pq.PollingStatus.WRITING:
                _wait(connection.socket, select.POLLOUT, _GONE_S)
                status = pq.PollingStatus(connection.connect_poll())
            if connection.status != pq.ConnStatus.BAD and status != pq.PollingStatus.FAILED:
                return ""
            said = _said(connection)
        finally:
            connection.finish()
        socket.create_connection(listener.getsockname()).close()  # it is not that there are no sockets left
    return said.removeprefix(f'connection to server at "127.0.0.1", port {port} failed: ')


def states_of(conninfos: Sequence[str], wait_s: float) -> list[str | None]:
    """For each host, by a conninfo for it alone: the SQLSTATE with which it refuses us, LET_IN, OURS, or None where it
    says nothing within `wait_s`. Resolves names as libpq does, which has no limit. Each call costs 4.5 KB a host for
    good: libpq's trace is a C stream, which psycopg opens and never closes.
    """
    states: list[str | None] = []
    for conninfo in conninfos:
        state = _state_of(conninfo, wait_s)
        if state is None and "sslnegotiation=direct" in conninfo:  # a server before 17 closes the line, as if it died
            otherwise = _state_of(make_conninfo(conninfo, sslnegotiation="postgres"), wait_s) or ""
            state = OURS if otherwise.startswith((LET_IN, *REFUSING)) else None
        states.append(state)
    return states


def _state_of(conninfo: str, wait_s: float) -> str | None:
    trace, line, ours = os.memfd_create("statsapi-login"), -1, False
    try:
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(trace)
            deadline_s, status = time.monotonic() + wait_s, pq.PollingStatus.WRITING
            while connection.status != pq.ConnStatus.BAD and status in _EVENTS:
                # Stays open when libpq closes its own.
                line = os.dup2(connection.socket, line, inheritable=False) if line >= 0 else os.dup(connection.socket)
                if not _wait(line, _EVENTS[status], max(0, deadline_s - time.monotonic())):
                    return None
                # Over TLS the server hears that libpq gives up, and then closes the line too. So this looks, before
                # libpq goes on, whether the server has closed it already.
                tls = connection.ssl_in_use or _next_byte(line) == _TLS_GRANTED
                ours = tls and not _wait(line, select.POLLRDHUP, 0)
                status = pq.PollingStatus(connection.connect_poll())
            if status == pq.PollingStatus.OK:
                return LET_IN
        finally:
            connection.untrace()  # writes what is left of it
            connection.finish()
        if said := _SAID.findall(os.pread(trace, _TRACE_BYTES, 0)):
            return str(said[-1].decode())
        return OURS if ours or (line >= 0 and not _wait(line, select.POLLRDHUP, _GONE_S)) else None
    finally:
        os.close(trace)
        if line >= 0:
            os.close(line)


def _next_byte(descriptor: int) -> bytes:
    """What is read next from a socket, without reading it; empty where there is nothing yet."""
    line = socket.socket(fileno=descriptor)
    try:
        return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""
    finally:
        line.detach()


def _said(connection: pq.abc.PGconn) -> str:
    return " ".join(connection.error_message.decode("utf-8", "replace").split())


def _wait(descriptor: int, events: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(int(1000 * wait_s)))


_EVENTS: Final[Mapping[int, int]] = {
    pq.PollingStatus.READING: select.POLLIN,
    pq.PollingStatus.WRITING: select.POLLOUT,
}
