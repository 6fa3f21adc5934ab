"""`statsapi statsd`: receives StatsD's datagrams, and records their values as events."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from statsapi.cli import failures, statsd_lines
from statsapi.cli.connection import Connection, may_ask_service

if TYPE_CHECKING:
    from statsapi.client import Problem
    from statsapi.client.buffered import Buffered

REPORT_EVERY_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.25  # a signal to stop is noticed within this time
_DATAGRAM_BYTES: Final = 65_535
# The kernel's buffer while this process is busy; it may grant less (net.core.rmem_max).
_RECEIVE_BYTES: Final = 8 << 20
# At most this many datagrams are taken at once; with a spool they share one fsync. Until then they are in memory only,
# as they were in the kernel's.
_AT_ONCE: Final = 2_000
_EVENTS_AT_ONCE: Final = 5_000  # the sender stores this many as one piece
_DRAIN_S: Final = 3.0
_COUNT_S: Final = 1.0
_SEND_LAST_S: Final = 10.0


def _address(ctx: click.Context, option: click.Parameter, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", ctx, option)
    return host.strip("[]"), int(port)


@click.command(
    short_help="Take StatsD's datagrams, and record what they measured.",
    epilog="Example: statsapi statsd --listen 127.0.0.1:8125 --to http://127.0.0.1:8000",
)
@click.option(
    "--listen",
    default="127.0.0.1:8125",
    callback=_address,
    metavar="HOST:PORT",
    help="Listen at this UDP address (default 127.0.0.1:8125).",
)
@click.option("--to", metavar="URL", help="Record at the service at URL; the same as --url.")
@click.option(
    "--counters",
    type=click.Choice(["refuse", "events"]),
    default="refuse",
    help="Refuse counters (c), which add up events before they are sent (default), or record each as an event.",
)
@click.option(
    "--gauges",
    type=click.Choice(["changes", "values"]),
    default="changes",
    help="Read a gauge with a sign (-7) as a change (default), or, for DogStatsD's clients, as the value itself.",
)
@click.option(
    "--spool",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep unrecorded events in this folder (default: in memory).",
)
@click.option(
    "--max-events",
    type=click.IntRange(1),
    default=1_000_000,
    metavar="N",
    help="Keep at most this many unrecorded events (default 1,000,000).",
)
@may_ask_service
def statsd(
    find_service: Callable[..., Connection],
    listen: tuple[str, int],
    to: str | None,
    counters: str,
    gauges: str,
    spool: Path | None,
    max_events: int,
) -> int:
    """Timers (ms), histograms (h), distributions (d) and gauges (g) become events, with DogStatsD's tags.

    Lines that are not single events are refused and counted: counters, sets, changes of a gauge, samples. Once a minute
    it reports what it received, refused and sent. While the service is away it keeps up to N events; beyond that it
    drops events, and counts those too.
    """
    client = find_service(to).client()
    from statsapi.client import SpoolError

    with _socket(listen) as taking, contextlib.ExitStack() as stack:
        try:
            sender = client.buffered(when_full="drop", max_events=max_events, spool=spool, on_problem=_say_problem)
        except SpoolError as error:
            raise failures.Failed(f"{error}; name another folder by --spool", failures.CONFIG) from error
        gateway = Gateway(taking, sender, counters=counters == "events", gauges=gauges == "values")
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: gateway.stop()))
        host, port = taking.getsockname()[:2]
        failures.say(f"statsapi: listens at {host}:{port} (UDP), records at {client.url}")
        gateway.run()
        return gateway.close()


def _socket(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        (family, _, _, _, place), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        taking = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise failures.Failed(f"{host}:{port} cannot be listened at: {error}", failures.CONFIG) from None
    try:
        taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        taking.bind(place)
        taking.setblocking(False)
    except OSError as error:
        taking.close()
        raise failures.Failed(f"{host}:{port} cannot be listened at: {error.strerror}", failures.CONFIG) from None
    return taking


def _say_problem(problem: Problem) -> None:
    message = problem.message
    if problem.kind == "dropped":
        message = "the buffer is full: events are dropped, and counted in what is told here; --max-events N keeps more"
    failures.say(f"statsapi: {message}")


class Gateway:
    """Reads one socket and feeds one sender, in one thread. A signal handler may call `stop`."""

    def __init__(self, taking: socket.socket, sender: Buffered, *, counters: bool, gauges: bool = False) -> None:
        self._taking = taking
        self._sender = sender
        self._read = partial(statsd_lines.read, counters=counters, gauges=gauges)
        self._stopping = False
        self._datagrams = 0
        self._unread = 0
        self._refused = Counter[str]()
        self._told: set[str] = set()
        self._told_at_s = time.monotonic()

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Receive and record until `stop`."""
        waiting = select.poll()
        waiting.register(self._taking, select.POLLIN)
        while not self._stopping:
            if waiting.poll(_LOOK_EVERY_S * 1000):
                self.take(self.received())
            if time.monotonic() - self._told_at_s >= REPORT_EVERY_S:
                self.report()

    def received(self) -> list[bytes]:
        """Waiting datagrams, at most _AT_ONCE of them. It does not block."""
        datagrams: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(datagrams) < _AT_ONCE:
                datagrams.append(self._taking.recv(_DATAGRAM_BYTES))
        return datagrams

    def take(self, datagrams: list[bytes]) -> None:
        """Record their values. It blocks only with a spool, for one fsync for all of them."""
        self._datagrams += len(datagrams)
        events: list[dict[str, Any]] = []
        for datagram in datagrams:
            for line in self._read(datagram):
                if isinstance(line, statsd_lines.Refused):
                    self._refuse(line.reason, line.detail)
                else:
                    told = {"timestamp": line.timestamp, "series": line.series}
                    events += [{"value": value, **told} for value in line.values]
        for begin in range(0, len(events), _EVENTS_AT_ONCE):
            self._record(events[begin : begin + _EVENTS_AT_ONCE])

    def _record(self, events: list[dict[str, Any]]) -> None:
        from statsapi.client import SpoolError

        try:
            self._sender.record_many(events)
        except SpoolError as error:
            self._refuse("not kept, as the spool cannot be written", str(error), len(events))

    def _refuse(self, reason: str, detail: str, count: int = 1) -> None:
        self._refused[reason] += count
        if reason not in self._told:  # the first of a kind says it all; the rest is counted
            self._told.add(reason)
            failures.say(f"statsapi: refused: {detail}")

    def _end_receiving(self) -> None:
        """Accept no more datagrams, as clients may send faster than they are read. The socket is connected to itself:
        the kernel then passes on only what its peer sends, and clients see a closed port. Waiting datagrams stay.
        """
        host, port, *rest = self._taking.getsockname()
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
        with contextlib.suppress(OSError):
            self._taking.connect((host, port, *rest))

    def report(self, *, are_lost: bool = False) -> None:
        """Report the sums since the start. are_lost: waiting events are given up."""
        self._told_at_s = time.monotonic()
        stats = self._sender.stats()
        refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self._refused.items()))
        lost = kernel_drops(self._taking)
        failures.say(
            f"statsapi: {self._datagrams:,} datagrams; {stats.taken:,} events taken, {stats.sent:,} recorded, "
            f"{stats.pending:,} {'are lost' if are_lost else 'wait'}; {sum(self._refused.values()):,} refused"
            + (f" ({refused})" if refused else "")
            + (f"; {stats.expired:,} recorded ones count in no window, as they are too old" if stats.expired else "")
            + f"; {stats.refused:,} refused by the service; {stats.dropped:,} dropped as the buffer was full"
            + ("" if lost is None else f"; {lost:,} datagrams lost by the kernel")
            + (f"; {self._unread:,} datagrams were left, as there was no time to take them" if self._unread else "")
        )

    def close(self) -> int:
        """Take the kernel's last datagrams, send them, and report the sums. Returns the exit status."""
        from statsapi.client import Undelivered

        self._end_receiving()
        end_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < end_s and (datagrams := self.received()):
            self.take(datagrams)
        end_s = time.monotonic() + _COUNT_S
        while time.monotonic() < end_s and (datagrams := self.received()):
            self._unread += len(datagrams)
        lost: Undelivered | None = None
        try:
            self._sender.close(_SEND_LAST_S)
        except Undelivered as error:
            lost = error
            failures.say(f"statsapi: {error}")
        self.report(are_lost=lost is not None and not lost.kept)
        return 0 if lost is None else failures.TRY_LATER


def kernel_drops(taking: socket.socket) -> int | None:
    """How many datagrams the kernel has dropped as this socket's buffer was full; None where it does not say."""
    inode = str(os.fstat(taking.fileno()).st_ino)
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for row in Path(table).read_text().splitlines()[1:]:
                fields = row.split()
                if fields[9] == inode:
                    return int(fields[-1])
    return None
