"""`statsapi statsd` between the clients of StatsD, as shipped, and a real service that is killed meanwhile."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from statsapi.cli.statsd import Gateway as TakingGateway
from statsapi.client import Client
from tests.servers import ROOT, free_port, gunicorn_server, start_gunicorn, stop, wait_until

SUMS = re.compile(
    r"([\d,]+) datagrams; ([\d,]+) events taken, ([\d,]+) recorded, ([\d,]+) (?:wait|are lost); ([\d,]+) refused"
)


FLOOD = """
import socket, sys
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    sending.sendto(b"a:1|ms", ("127.0.0.1", int(sys.argv[1])))
"""


class Gateway:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self.port = int(wait_until(lambda: re.search(r"listens at 127\.0\.0\.1:(\d+)", self.log), "the gateway")[1])

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[int]]:
        """The exit status, and the sums that it told last."""
        self.process.send_signal(number)
        status = self.process.wait(60)
        return status, [int(each.replace(",", "")) for each in SUMS.findall(self.log)[-1]]


@contextmanager
def gateway(directory: Path, url: str, *options: str) -> Iterator[Gateway]:
    command = [sys.executable, "-m", "statsapi", "statsd", "--listen", "127.0.0.1:0", "--to", url, *options]
    log = directory / "statsd.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, stdout=file, text=True)
    try:
        yield Gateway(process, log)
    finally:
        process.kill()
        process.wait()


def values(url: str, match: str) -> Counter[tuple[str, float]]:
    with Client(url) as client:
        return Counter((event.series, event.value) for event in client.export(match=match))


def test_the_clients_as_shipped(tmp_path: Path) -> None:
    """`statsd` and `datadog`: what measures is an event, with its tags; the rest is counted."""
    statsd: Any = pytest.importorskip("statsd")
    datadog: Any = pytest.importorskip("datadog.dogstatsd")
    with gunicorn_server(tmp_path) as server, gateway(tmp_path, server.target) as between:
        plain = statsd.StatsClient("127.0.0.1", between.port, prefix="shop")
        plain.timing("checkout", 231)
        plain.gauge("stock", 12)
        plain.incr("orders")
        with plain.pipeline() as pipe:
            pipe.timing("checkout", 17.5)
            pipe.timing("checkout", 3)
        tagged = datadog.DogStatsd(host="127.0.0.1", port=between.port, disable_telemetry=True, disable_buffering=True)
        tagged.histogram("latency", 1.5, tags=["route:/users", "status:200"])
        tagged.distribution("latency", 2.5, tags=["status:200"])
        tagged.timing("latency", 3.5)
        tagged.gauge("frost", -7, tags=["place:yard"])
        tagged.increment("hits")
        tagged.set("users", "ada")
        tagged.event("title", "text")
        plain.close()
        tagged.close_socket()
        wait_until(lambda: sum(values(server.target, "*").values()) >= 8, "the events")
        assert values(server.target, "*") == Counter(
            [
                ("shop.checkout", 231.0),
                ("shop.checkout", 17.5),
                ("shop.checkout", 3.0),
                ("shop.stock", 12.0),
                ("latency;route=/users;status=200", 1.5),
                ("latency;status=200", 2.5),
                ("latency", 3.5),
                ("frost;place=yard", -7.0),
            ]
        )
        status, (_, taken, recorded, waiting, refused) = between.stop()
        assert (status, taken, recorded, waiting, refused) == (0, 8, 8, 0, 4)
        assert "4 refused (2 counter, 1 event, 1 set)" in between.log
        assert between.log.count("--counters=events") == 1  # told once, then counted
        assert "Traceback" not in between.log


def test_gauges_of_dogstatsd_without_tags(tmp_path: Path) -> None:
    """With --gauges=values what is below zero is a value as well."""
    datadog: Any = pytest.importorskip("datadog.dogstatsd")
    with gunicorn_server(tmp_path) as server, gateway(tmp_path, server.target, "--gauges", "values") as between:
        client = datadog.DogStatsd(host="127.0.0.1", port=between.port, disable_telemetry=True, disable_buffering=True)
        client.gauge("frost", 0)
        client.gauge("frost", -7)
        client.close_socket()
        wait_until(lambda: len(values(server.target, "frost")) == 2, "the events")
        assert values(server.target, "*") == Counter([("frost", 0.0), ("frost", -7.0)])


@pytest.mark.parametrize("spooled", [False, True])
def test_nothing_that_was_taken_is_lost_while_the_service_is_killed(tmp_path: Path, spooled: bool) -> None:
    """Killed twice and started again while datagrams come; at the end each value is there once."""
    port = free_port()
    url, options = f"http://127.0.0.1:{port}", ["--spool", str(tmp_path / "spool")] if spooled else []
    server = start_gunicorn(tmp_path / "app", bind=f"127.0.0.1:{port}")
    try:
        server.wait_for_journals(2)
        with gateway(tmp_path, url, *options) as between, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            number = 0
            for _ in range(2):
                for _ in range(300):
                    sending.sendto(b"load:%d|ms\nload:%d|h" % (number, number + 1), ("127.0.0.1", between.port))
                    number += 2
                    if number % 100 == 0:
                        os.sched_yield()
                os.killpg(server.process.pid, signal.SIGKILL)
                server.process.wait()
                for _ in range(100):
                    sending.sendto(b"load:%d|d" % number, ("127.0.0.1", between.port))
                    number += 1
                server = start_gunicorn(tmp_path / "app", bind=f"127.0.0.1:{port}")
                server.wait_for_journals(2)
            wait_until(lambda: sum(values(url, "load").values()) == number, "all events")
            status, (datagrams, taken, recorded, waiting, refused) = between.stop(signal.SIGINT)
            assert (status, datagrams, taken, recorded, waiting, refused) == (0, 800, number, number, 0, 0)
        assert values(url, "load") == Counter(("load", float(each)) for each in range(number))
    finally:
        stop(server)


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    """A full buffer drops and counts; at the end what is left is named, and the exit status is not 0."""
    url = f"http://127.0.0.1:{free_port()}"
    with gateway(tmp_path, url, "--max-events", "10") as between, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for number in range(25):
            s.sendto(b"a:%d|ms" % number, ("127.0.0.1", between.port))
        wait_until(lambda: "the buffer is full: events are dropped" in between.log, "the first one dropped")
        status, (_, taken, recorded, waiting, _) = between.stop()
        assert (status, taken, recorded, waiting) == (75, 10, 0, 10)
        assert "15 dropped as the buffer was full" in between.log
        assert "--max-events N keeps more" in between.log
        assert "stats()" not in between.log
        assert "10 events were not acknowledged in time, they are lost" in between.log
        assert between.log.rstrip().splitlines()[-1].count("0 recorded, 10 are lost; ") == 1


def test_it_ends_though_clients_go_on_sending(tmp_path: Path) -> None:
    """At SIGTERM what the kernel holds is taken for a moment, not for as long as more comes: then all of it is sent."""
    with gunicorn_server(tmp_path) as server, gateway(tmp_path, server.target) as between:
        clients = [subprocess.Popen([sys.executable, "-c", FLOOD, str(between.port)]) for _ in range(2)]
        try:
            wait_until(lambda: values(server.target, "a"), "the first event")
            status, (_, taken, recorded, waiting, _) = between.stop()
        finally:
            for client in clients:
                client.kill()
                client.wait()
        assert (status, waiting) == (0, 0)
        assert taken == recorded == sum(values(server.target, "a").values())


def test_what_the_kernel_holds_at_the_end_is_taken(tmp_path: Path) -> None:
    """SIGTERM with thousands of datagrams unread and a spool: each is recorded, or told as lost by the kernel."""
    sent = 9_000
    options = ("--spool", str(tmp_path / "spool"))
    with gunicorn_server(tmp_path) as server, gateway(tmp_path, server.target, *options) as between:
        between.process.send_signal(signal.SIGSTOP)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            for number in range(sent):
                sending.sendto(b"a:%d|ms" % number, ("127.0.0.1", between.port))
        between.process.send_signal(signal.SIGTERM)
        between.process.send_signal(signal.SIGCONT)
        status, taken = between.process.wait(60), SUMS.findall(between.log)[-1]
        lost = re.search(r"([\d,]+) datagrams lost by the kernel", between.log)
        left = re.search(r"([\d,]+) datagrams were left", between.log)
        counted = [int(each.replace(",", "")) for each in (taken[0], *(found[1] for found in (lost, left) if found))]
        assert (status, sum(counted)) == (0, sent), between.log
        assert len(values(server.target, "a")) == counted[0]


def test_datagrams_that_wait_share_one_fsync() -> None:
    """All that wait go to the sender at once, in their order, and each value is there once."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taking,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s,
    ):
        taking.bind(("127.0.0.1", 0))
        taking.setblocking(False)
        sender = Mock()
        between = TakingGateway(taking, sender, counters=False)
        for number in range(50):
            s.sendto(b"a:%d|ms\nb:1|c" % number, taking.getsockname())
        between.take(between.received())
        ((events,),) = [call.args for call in sender.record_many.call_args_list]
        assert [event["value"] for event in events] == list(range(50))
        assert between.received() == []


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--listen", "8125"], 2, "'8125' is not HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], 2, "is not HOST:PORT"),
        (["--listen", "nowhere.invalid:8125"], 78, "cannot be listened at"),
        (["--listen", "192.0.2.1:8125"], 78, "cannot be listened at"),
        (["--to", "ftp://x"], 2, "URL"),
        (["--listen", "127.0.0.1:0", "--spool", "/proc/x"], 78, "name another folder by --spool"),
    ],
)
def test_options_that_cannot_be(options: list[str], status: int, said: str) -> None:
    """One line with the cure."""
    command = [sys.executable, "-m", "statsapi", "statsd", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
