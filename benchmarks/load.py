"""A lean load generator: raw non-blocking sockets under one epoll, closed loop, keep-alive.

    python -m benchmarks.load http://127.0.0.1:8000 --post /event --connections 16 --seconds 5
    python -m benchmarks.load unix:/run/statsapi.sock --get /statistics

It shares the machine's cores with the server it measures, so it must cost little: about 13 µs a request, a tenth
of what a Flask request costs. Each connection has one request under way; the next leaves when the answer is
complete. Only complete 2xx answers count as requests; anything else (another status, a closed or refused
connection) is an error and is counted apart. Latency runs from the send to the last byte.

Every request of `events()` carries another timestamp and value, so no server can profit from seeing the same
body twice.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, repeat
from urllib.parse import urlsplit

_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSING = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """What one run saw. `errors` is not part of `requests`."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def address(target: str) -> tuple[int, str | tuple[str, int]]:
    """The socket family and address of `http://host:port` or `unix:/path`."""
    if target.startswith("unix:"):
        return socket.AF_UNIX, target.removeprefix("unix:")
    parts = urlsplit(target)
    return socket.AF_INET, (parts.hostname or "127.0.0.1", parts.port or 80)


def get(path: str) -> Iterator[bytes]:
    """The same GET, for ever."""
    return repeat(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".encode())


def events(path: str = "/event", *, start_s: float | None = None, key: str = "") -> Iterator[bytes]:
    """POSTs of one event each: timestamps a microsecond apart from `start_s` (default: now), values all different.

    `key` is an API key. Body and head have a fixed length, so a request is one bytes formatting (0.6 µs).
    """
    body_length = len('{"timestamp": "2025-11-21T07:45:00.000000Z", "value": 100000.25}')
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{authorization}Content-Type: application/json\r\n"
        f"Content-Length: {body_length}\r\n\r\n"
    )
    start_us = int((time.time() if start_s is None else start_s) * 1e6)
    for second in count(start_us // 1_000_000):
        stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        template = (head + f'{{"timestamp": "{stamp}.%06dZ", "value": %d.25}}').encode()
        for microsecond in range(1_000_000):
            yield template % (microsecond, 100_000 + (microsecond * 7919 + second) % 900_000)


# What is known of an answer so far: None while it is not whole, else whether it is good and whether the server closes.
Answer = tuple[bool, bool] | None


def read_http(answer: bytes) -> Answer:
    """An answer over HTTP/1: 2xx is good."""
    head_end = answer.find(b"\r\n\r\n")
    if not _complete(answer, head_end):
        return None
    closes = answer.find(b"lose", 0, head_end) > 0 and _CLOSING.search(answer, 0, head_end) is not None
    return answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")), closes


def run_load(
    target: str,
    requests: Iterator[bytes],
    *,
    connections: int = 16,
    seconds: float = 5.0,
    warmup_s: float = 0.5,
    read: Callable[[bytes], Answer] = read_http,
) -> Load:
    """Drive `target` for `warmup_s`, which is thrown away, then for `seconds`. Returns when the time is over.

    read: says whether the received bytes are a whole answer, and its status; HTTP by default.
    """
    family, peer = address(target)
    poller = select.epoll()
    socks: dict[int, socket.socket] = {}
    sent_at: dict[int, float] = {}
    partial: dict[int, bytes] = {}
    latencies = array("d")
    errors = 0
    clock = time.perf_counter

    def connect() -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(5)
        sock.connect(peer)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        partial[sock.fileno()] = b""
        poller.register(sock, select.EPOLLIN)
        ask(sock)

    def ask(sock: socket.socket) -> None:
        sent_at[sock.fileno()] = clock()
        sock.send(next(requests))  # far below the socket's buffer: taken whole

    def drop(fd: int) -> None:
        poller.unregister(fd)
        socks.pop(fd).close()

    def reopen(fd: int) -> None:
        nonlocal errors
        drop(fd)
        try:
            connect()
        except OSError:
            errors += 1
            time.sleep(0.01)

    for _ in range(connections):
        connect()
    begin = clock() + warmup_s
    end = begin + seconds
    warm = warmup_s == 0
    now = clock()
    while now < end:
        while len(socks) < connections:  # those that could not be opened again
            try:
                connect()
            except OSError:
                errors += 1
                time.sleep(0.01)
                break
        ready = poller.poll(min(0.5, end - now))
        now = clock()
        if not warm and now >= begin:
            warm, errors, begin = True, 0, now
            latencies = array("d")
        for fd, _ in ready:
            sock = socks[fd]
            try:
                data = sock.recv(16_384)
            except OSError:
                data = b""
            if not data:
                errors += 1
                reopen(fd)
                continue
            answer = partial[fd] + data if partial[fd] else data
            told = read(answer)
            if told is None:
                partial[fd] = answer
                continue
            if partial[fd]:
                partial[fd] = b""
            now = clock()
            good, closes = told
            if good:
                latencies.append(now - sent_at[fd])
            else:
                errors += 1
            if closes:
                reopen(fd)
                continue
            try:
                ask(sock)
            except OSError:
                errors += 1
                reopen(fd)
    elapsed = clock() - begin
    for fd in list(socks):
        drop(fd)
    poller.close()
    ranked = sorted(latencies) or [0.0]
    return Load(
        requests=len(latencies),
        errors=errors,
        seconds=elapsed,
        p50_ms=ranked[len(ranked) // 2] * 1e3,
        p99_ms=ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)] * 1e3,
        max_ms=ranked[-1] * 1e3,
    )


def _complete(answer: bytes, head_end: int) -> bool:
    """Whether the bytes hold a whole answer. One without a length or chunks counts as complete with its head.

    The two spellings that servers use are found by `find`: a case-blind search took 4 µs a request.
    """
    if head_end < 0:
        return False
    at = answer.find(b"\nContent-Length: ", 0, head_end)
    if at < 0:
        at = answer.find(b"\ncontent-length: ", 0, head_end)
    if at >= 0:
        return len(answer) - head_end - 4 >= int(answer[at + 17 : answer.find(b"\r", at + 17)])
    return not _CHUNKED.search(answer, 0, head_end) or answer.endswith(b"0\r\n\r\n", head_end + 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="http://host:port or unix:/path")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--get", metavar="PATH", default="/statistics")
    what.add_argument("--post", metavar="PATH", help="POST changing events there instead")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    args = parser.parse_args()
    requests = events(args.post) if args.post else get(args.get)
    load = run_load(args.target, requests, connections=args.connections, seconds=args.seconds, warmup_s=args.warmup)
    print(json.dumps({"rate": round(load.rate), **load.__dict__}))


if __name__ == "__main__":
    main()
