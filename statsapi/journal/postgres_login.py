"""Why a PostgreSQL server does not let us in, by its SQLSTATE and never by its words: those are in its language.

Neither libpq nor psycopg gives the SQLSTATE of a connection that failed. But libpq can trace the messages of its
protocol, and the server's ErrorResponse is one of them. So each host is asked once more after a failure, with a trace.
The trace may hold a password. It is kept in memory that has no name, and only while the host is asked.

Some settings can reach no server at all. They are recognised by what libpq does, not by its messages: no list of those
was ever complete. With such settings libpq gives up on a socket of our own that only listens (`fault_of`), or on a
server that reports no error and has not closed the connection (OURS).
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

# Two answers beside the SQLSTATEs: the host lets us in; libpq itself gives up, because of how it is set.
LET_IN: Final = "00000"
OURS: Final = "ours"

# Classes of SQLSTATEs for which waiting never helps: a login that is not authorised, a database that does not exist, an
# unknown setting or a missing right, a value that is not valid, a feature that the server does not have.
REFUSING: Final = ("28", "3D", "42", "22", "0A")

_SAID: Final = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
_TRACE_BYTES: Final = 1 << 20
_TLS_GRANTED: Final = b"S"  # the server's answer to a request for TLS; the handshake may fail in the call that reads it
_GONE_S: Final = 0.2  # after libpq gave up: a server that ended the login has closed its side by then


def fault_of(conninfo: str) -> str:
    """What libpq says of settings that can reach no server at all. Empty where they could reach one, as far as can be
    seen before a server answers.
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
