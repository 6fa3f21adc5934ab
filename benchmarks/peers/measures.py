"""What is timed: single posts, batches, questions, both at once, memory, disk, restarts, numbers of workers.

Each measure starts its peers, lets them take turns round after round (A B C A B C …) and returns one `Section` with
the figures of every round, so that neighbours in time can be compared as pairs.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.load import run_load
from benchmarks.peers.report import Figure, Section
from benchmarks.peers.servers import (
    Columns,
    Flask,
    Form,
    Peer,
    RedisSet,
    Seed,
    SeedUvloop,
    Statsapi,
    StatsapiAgain,
    Table,
    TableUnsynced,
    Wsgi,
)

Say = Callable[[str], None]
_Any = TypeVar("_Any")
PAST_US = 3_000_000_000  # events lie in the last fifty minutes: none leaves the window of an hour meanwhile
VISIBLE_S = 60.0
ACKED = ", acknowledged"
MANY = 100_000  # from so many events on, memory and disk are more of the events than of the server
REDIS_BOUND = 1_000_000  # its script reads all of a set: ten million take it tens of seconds, and everybody waits


@dataclass(frozen=True)
class Size:
    """How much of everything is done."""

    name: str
    rounds: int
    load_s: float
    batch_events: int  # in one round of one form
    stored: tuple[int, ...]
    settle_s: float
    asked_s: float  # at most so long for one kind of question in one turn
    meanwhile_s: float
    meanwhile_rounds: int
    poured: int  # different events at full speed, after which they come again
    workers: tuple[int, ...]


QUICK = Size("quick", 2, 0.5, 50_000, (1_000, 100_000), 0.1, 0.15, 1.0, 1, 400_000, (1, 2, 4))
FULL = Size("full", 7, 3.0, 1_000_000, (1_000, 1_000_000, 10_000_000), 1.0, 2.0, 6.0, 5, 12_000_000, (1, 2, 4))

BATCH = 10_000


def columns(first_us: int, count: int, step_us: int) -> Columns:
    ts_us = first_us + step_us * np.arange(count, dtype=np.int64)
    rng = np.random.default_rng(first_us % 1_000_003)
    return Columns(ts_us, np.round(rng.lognormal(3, 1, count), 3))


def encoded(form: Form, first_us: int, count: int, step_us: int, batch: int = BATCH) -> list[bytes]:
    return [
        form.encode(columns(first_us + at * step_us, min(batch, count - at), step_us)) for at in range(0, count, batch)
    ]


@contextmanager
def running(peers: Sequence[type[Peer]], say: Say, workers: Sequence[int] = (2,)) -> Iterator[list[Peer]]:
    """All of them, with each number of workers, started side by side, ready, and stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="statsapi-peers-") as scratch, ThreadPoolExecutor(4) as pool:
        made = [each(Path(scratch) / f"{each.__name__}-{count}", count) for count in workers for each in peers]
        say(f"starting {len(made)} servers")
        started: list[Peer] = []

        def start(peer: Peer) -> None:
            peer.start()
            started.append(peer)

        try:
            list(pool.map(start, made))
            yield made
        finally:
            list(pool.map(lambda peer: peer.close(), started))


def _in_turn(peers: Sequence[_Any], turn: int) -> Sequence[_Any]:
    """A B C in one round and C B A in the next, so that nobody always comes after the same neighbour.

    Always in one order, statsapi had 0.85 of its twin's batches (median of five forms, two rounds), with turns 0.91.
    """
    return peers[::-1] if turn % 2 else peers


def _cpu_s(peer: Peer) -> float:
    ticks = 0
    for pid in peer.pids():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class _Rounds:
    """Figures as they come in, round by round."""

    def __init__(self, unit: str = "", *, more_is_better: bool = False) -> None:
        self._unit, self._more = unit, more_is_better
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}

    def add(
        self,
        subject: str,
        peer: str,
        value: float | None,
        *,
        unit: str = "",
        more_is_better: bool | None = None,
        beside: str = "",
        note: str = "",
    ) -> None:
        more = self._more if more_is_better is None else more_is_better
        kept = self._kept.setdefault(
            (subject, peer), {"unit": unit or self._unit, "more_is_better": more, "beside": beside, "values": []}
        )
        kept["values"].append(value)
        kept["note"] = note or kept.get("note", "")

    def figures(self) -> list[Figure]:
        """Subject by subject, in the order in which they came."""
        subjects = list(dict.fromkeys(subject for subject, _ in self._kept))
        return [
            Figure(subject, peer, **(kept | {"values": tuple(kept["values"])}))
            for wanted in subjects
            for (subject, peer), kept in self._kept.items()
            if subject == wanted
        ]


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    return {peer.name: peer.version() for peer in peers}


# Single posts


def singles(peers: Sequence[type[Peer]], size: Size, say: Say) -> Section:
    section = Section(
        "Single posts",
        f"16 keep-alive connections, one event a request, each acknowledged; {size.rounds} rounds of "
        f"{size.load_s:g} s. Two workers where Gunicorn serves. Processor time is that of the server's processes.",
    )
    rounds = _Rounds("requests/s", more_is_better=True)
    with running(peers, say) as started:
        section.taken["versions"] = versions(started)
        for turn in range(size.rounds):
            say(f"single posts, round {turn + 1}")
            for peer in _in_turn(started, turn):
                name, before = peer.name, _cpu_s(peer)
                warmup_s = min(0.5, size.load_s / 3)
                load = run_load(peer.target, peer.requests(), seconds=size.load_s, warmup_s=warmup_s, read=peer.read)
                cpu_s = _cpu_s(peer) - before
                note = f"{load.errors} errors" if load.errors else ""
                rounds.add("POST of one event", name, load.rate, note=note)
                rounds.add("p99 of it", name, load.p99_ms, unit="ms", more_is_better=False)
                # The warm-up's work is in the processor's time as well, at the same rate.
                asked = load.rate * (load.seconds + warmup_s)
                used = cpu_s / asked * 1e6 if asked else None
                rounds.add("processor time of it", name, used, unit="µs", more_is_better=False)
    section.figures = rounds.figures()
    return section


def workers(peers: Sequence[type[Peer]], size: Size, say: Say) -> Section:
    section = Section(
        "More workers",
        f"POST of one event as above, with 1, 2 and 4 workers on {os.cpu_count()} cores; the load generator takes "
        "a part of one. Each is compared with statsapi on as many workers.",
    )
    rounds = _Rounds("requests/s", more_is_better=True)
    served = [each for each in peers if each in (Statsapi, Flask, Wsgi, Table)]
    with running(served, say, size.workers) as started:
        for turn in range(size.rounds):
            say(f"workers, round {turn + 1}")
            for peer in _in_turn(started, turn):
                count = peer.workers
                load = run_load(peer.target, peer.requests(), seconds=size.load_s, warmup_s=min(0.5, size.load_s / 3))
                rounds.add(f"{count} workers" if count > 1 else "1 worker", peer.name, load.rate)
    section.figures = rounds.figures()
    return section


# Batches


def _send_all(peer: Peer, form: Form, mine: list[bytes], barrier: Barrier) -> None:
    send = peer.sender(form)
    barrier.wait()
    for body in mine:
        send(body)
    barrier.wait()


def _write(peer: Peer, form: Form, bodies: list[bytes], connections: int) -> tuple[float, float]:
    """When the first body left, and when the last was acknowledged: seconds by `perf_counter`."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(connections + 1)
    clients = [
        context.Process(target=_send_all, args=(peer, form, bodies[at::connections], barrier), daemon=True)
        for at in range(connections)
    ]
    for client in clients:
        client.start()
    barrier.wait(120)
    start = time.perf_counter()
    barrier.wait(600)
    end = time.perf_counter()
    for client in clients:
        client.join()
    return start, end


def _visible(peer: Peer, expected: int) -> float | None:
    """When a question counted all of them; None when none did in a minute."""
    deadline = time.perf_counter() + VISIBLE_S
    while (counted := peer.count()) < expected:
        if time.perf_counter() > deadline:
            return None
        time.sleep(0.001)
    return time.perf_counter() if counted == expected else None


def batches(peers: Sequence[type[Peer]], size: Size, say: Say) -> Section:
    count = size.batch_events
    section = Section(
        "Batches until visible",
        f"{count:,} events in batches of 10,000 over two connections, from the first byte until a question has counted "
        f"all of them; {size.rounds} rounds. Each form of a peer stands beside the form of ours that is most like it. "
        "Acknowledged is the rate until the last answer to a batch, when a question need not count it yet.",
    )
    section.skipped = {
        each.name: "it takes one event at a time" for each in peers if not each.forms and each is not Wsgi
    }
    rounds = _Rounds("events/s", more_is_better=True)
    able = [each for each in peers if each.forms]
    runs = size.rounds * max(len(each.forms) for each in able)
    step_us = max(1, PAST_US // (runs * count))
    with running(able, say) as started:
        section.taken["versions"] = versions(started)
        begin_us = time.time_ns() // 1000 - PAST_US - 200_000_000
        held = {peer.name: peer.count() for peer in started}
        run = dict.fromkeys(held, 0)
        for turn in range(size.rounds):
            for peer in _in_turn(started, turn):
                name = peer.name
                for label, form in peer.forms.items():
                    say(f"batches, round {turn + 1}: {name}, {label}")
                    first_us = begin_us + run[name] * count * step_us
                    run[name] += 1
                    bodies = encoded(form, first_us, count, step_us)
                    start, acked = _write(peer, form, bodies, 2)
                    held[name] += count
                    seen = _visible(peer, held[name])
                    rate = None if seen is None else count / (seen - start)
                    rounds.add(f"{label}{ACKED}", name, count / (acked - start), beside=f"{form.beside}{ACKED}")
                    note = ""
                    if seen is None:
                        note = f"{peer.count() - held[name] + count:,} of {count:,} seen after {VISIBLE_S:.0f} s"
                        held[name] = peer.count()
                    rounds.add(label, name, rate, beside=form.beside, note=note)
    section.figures = rounds.figures()
    return section


# Questions


def _fill(peer: Peer, count: int) -> None:
    """That many events over the last fifty minutes, in the form the peer takes fastest."""
    form = peer.forms[peer.fill_with]
    step_us = PAST_US // count
    first_us = time.time_ns() // 1000 - PAST_US
    send = peer.sender(form)
    for at in range(0, count, BATCH):
        send(form.encode(columns(first_us + at * step_us, min(BATCH, count - at), step_us)))


def _settled(read: Callable[[], int], pause_s: float) -> int:
    """A size when it has stayed for a pause, within one in a hundred; at most after fifteen."""
    before = read()
    for _ in range(15):
        time.sleep(pause_s)
        now = read()
        if abs(now - before) <= before / 100:
            return now
        before = now
    return before


@dataclass(frozen=True)
class _Filled:
    """A peer that holds its events, and what they cost it; `why` it cannot be asked, where it cannot."""

    peer: Peer
    memory_bytes: int = 0
    disk_bytes: int = 0
    why: str = ""


def _filled(peer: Peer, count: int, size: Size, stack: ExitStack) -> _Filled:
    """Started, filled, and measured beside the same server when it was empty; `stack` stops it."""
    if isinstance(peer, Seed):  # one by one would take minutes, so it makes its own before it starts
        with type(peer)(peer.directory / "empty") as empty:
            memory, disk = empty.memory_bytes(), 0
        peer.preload = count
        stack.enter_context(peer)
    else:
        stack.enter_context(peer)
        memory, disk = peer.memory_bytes(), _settled(peer.disk_bytes, size.settle_s)
        _fill(peer, count)
    if _visible(peer, count) is None:
        return _Filled(peer, why=f"it counts {peer.count():,} of {count:,} events")
    grown = _settled(peer.memory_bytes, size.settle_s) - memory
    written = _settled(peer.disk_bytes, size.settle_s) - disk
    return _Filled(peer, max(grown, 0), max(written, 0))


def questions(peers: Sequence[type[Peer]], size: Size, say: Say) -> Section:
    section = Section(
        "Questions, memory, disk, restart",
        "Events over fifty minutes; before each question one more event is written, so that no kept answer helps: what "
        f"is timed is the question alone, by one client. {size.rounds} turns, the median of each. Memory is what all "
        "processes hold in proportion (PSS) beyond the empty server; disk what the files took on beyond it; restart "
        "from the start of the program until a question counts all.",
    )
    able = [each for each in peers if each.questions and each not in (StatsapiAgain, TableUnsynced)]
    able = [each for each in able if not issubclass(each, Seed) or each is SeedUvloop]
    rounds = _Rounds("ms")
    for count in size.stored:
        _questions_of(count, able, size, say, rounds, section)
    section.figures = rounds.figures()
    return section


def _questions_of(
    count: int, able: Sequence[type[Peer]], size: Size, say: Say, rounds: _Rounds, section: Section
) -> None:
    of = f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1000}k"
    with tempfile.TemporaryDirectory(prefix="statsapi-peers-") as scratch, ExitStack() as stack:
        made = [each(Path(scratch) / each.__name__) for each in able if count <= REDIS_BOUND or each is not RedisSet]
        if len(made) < len(able):
            section.skipped[f"{RedisSet.name} at {of}"] = "its script would hold everybody up for tens of seconds"
        say(f"{of} events into {len(made)} servers")
        with ThreadPoolExecutor(4) as pool:
            filled = list(pool.map(lambda peer: _filled(peer, count, size, stack), made))
        started: list[Peer] = []
        for each in filled:
            name = each.peer.name
            if each.why:
                section.skipped[f"{name} at {of}"] = each.why
                continue
            started.append(each.peer)
            if count >= MANY:
                rounds.add(
                    f"memory, {of}", name, each.memory_bytes / count, unit="bytes an event", note=each.peer.stock
                )
                if not isinstance(each.peer, Seed):
                    rounds.add(f"disk, {of}", name, each.disk_bytes / count, unit="bytes an event")
        for turn in range(size.rounds):
            say(f"questions over {of}, round {turn + 1}")
            for peer in _in_turn(started, turn):
                for question, label in (("moments", "count, min, max, mean"), ("p99", "p99")):
                    if question in peer.questions:
                        rounds.add(f"{label}, {of}", peer.name, _asked_ms(peer, question, size.asked_s))
        for peer in started:
            if isinstance(peer, Seed) or count < MANY:
                continue
            say(f"restart of {peer.name} with {of}")
            expected = peer.count()
            peer.stop()
            begun = time.perf_counter()
            peer.start()
            seen = _visible(peer, expected)
            took = None if seen is None else seen - begun
            note = "" if seen else f"{peer.count():,} of {expected:,} are there"
            rounds.add(f"restart, {of}", peer.name, took, unit="s", note=note)


def _asked_ms(peer: Peer, question: str, most_s: float) -> float:
    """The median of the questions that fit, at least three unless one alone takes longer than all of the time."""
    took: list[float] = []
    end = time.perf_counter() + most_s
    while not took or (time.perf_counter() < end and len(took) < 200) or (len(took) < 3 and sum(took) < most_s * 1e3):
        peer.record(time.time_ns() // 1000 - 1000, 20.0)
        start = time.perf_counter()
        peer.ask(question)
        took.append((time.perf_counter() - start) * 1e3)
    return statistics.median(took)


# Questions while events come in


def _pour(
    peer: Peer, form: Form, bodies: list[bytes], events: int, rate: float, counted: Any, barrier: Barrier, until: Any
) -> None:
    """Batches, at `rate` events a second or as fast as they are answered when that is 0, until the time is over."""
    send = peer.sender(form)
    barrier.wait()
    begun = time.perf_counter()
    for number, body in enumerate(cycle(bodies)):
        if until.is_set():
            break
        if rate:
            time.sleep(max(0.0, begun + number * events / rate - time.perf_counter()))
        send(body)
        with counted.get_lock():
            counted.value += events


def meanwhile(peers: Sequence[type[Peer]], size: Size, say: Say) -> Section:
    section = Section(
        "Questions while events come in",
        f"A new server each time; {size.meanwhile_s:g} s, {size.meanwhile_rounds} rounds. 200,000 events/s are one "
        "connection with 200 batches of 1,000 a second, full speed are two with batches of 10,000. A question every "
        "10 ms, count to mean and p99 in turn. An answer is stale when it lacks an event acknowledged before the "
        f"question. At full speed the same {size.poured:,} events come again and again, which InfluxDB takes for "
        "the same points.",
    )
    able = [each for each in peers if each.forms and each not in (StatsapiAgain, TableUnsynced)]
    rounds = _Rounds("ms")
    made: dict[tuple[str, bool], list[list[bytes]]] = {}
    for turn in range(size.meanwhile_rounds):
        for full in (False, True):
            for each in _in_turn(able, turn):
                say(f"{'full speed' if full else '200,000/s'}, round {turn + 1}: {each.name}")
                if (key := (each.name, full)) not in made:
                    made[key] = _poured(each, size, full=full)
                _meanwhile_of(each, made[key], size, rounds, full=full)
    section.figures = rounds.figures()
    return section


def _poured(each: type[Peer], size: Size, *, full: bool) -> list[list[bytes]]:
    """The bodies of each connection, made before."""
    form = each.forms[each.fill_with]
    batch, connections = (BATCH, 2) if full else (1000, 1)
    needed = size.poured // connections if full else int(220_000 * size.meanwhile_s)
    begin_us = time.time_ns() // 1000 - PAST_US
    step_us = PAST_US // (needed * connections)
    return [encoded(form, begin_us + at * needed * step_us, needed, step_us, batch) for at in range(connections)]


def _meanwhile_of(each: type[Peer], bodies: list[list[bytes]], size: Size, rounds: _Rounds, *, full: bool) -> None:
    context = multiprocessing.get_context("fork")
    form = each.forms[each.fill_with]
    at = "full speed" if full else "200,000/s"
    with tempfile.TemporaryDirectory(prefix="statsapi-peers-") as scratch, each(Path(scratch) / "peer") as peer:
        counted, until = context.Value("q", 0), context.Event()
        barrier = context.Barrier(len(bodies) + 1)
        batch = BATCH if full else 1000
        writers = [
            context.Process(
                target=_pour,
                args=(peer, form, mine, batch, 0 if full else 200_000, counted, barrier, until),
                daemon=True,
            )
            for mine in bodies
        ]
        for writer in writers:
            writer.start()
        barrier.wait(120)
        begun = time.perf_counter()
        threading.Timer(size.meanwhile_s, until.set).start()  # also while one question takes longer than all of it
        waits: dict[str, list[float]] = {"moments": [], "p99": []}
        stale = asked = 0
        while not until.is_set():
            question = ("moments", "p99")[asked % 2]
            at_least = counted.value
            start = time.perf_counter()
            if question in peer.questions and at_least:
                found = peer.ask(question)
                waits[question].append((time.perf_counter() - start) * 1e3)
                if question == "moments":
                    stale += not found["count"] >= at_least
            asked += 1
            time.sleep(0.01)
        took = time.perf_counter() - begun
        poured = counted.value
        for writer in writers:
            writer.join(120)
            if writer.is_alive():
                writer.kill()
    rounds.add(f"events/s taken, {at}", each.name, poured / took, unit="events/s", more_is_better=True)
    for question, label in (("moments", "count, min, max, mean"), ("p99", "p99")):
        if waits[question]:
            ranked = sorted(waits[question])
            note = f"{stale} of {len(ranked)} stale" if question == "moments" else f"{len(ranked)} questions"
            rounds.add(f"{label}, {at}: median", each.name, statistics.median(ranked), note=note)
            rounds.add(f"{label}, {at}: 99 of 100 within", each.name, ranked[len(ranked) * 99 // 100])


MEASURES: dict[str, Callable[[Sequence[type[Peer]], Size, Say], Section]] = {
    "singles": singles,
    "batches": batches,
    "questions": questions,
    "meanwhile": meanwhile,
    "workers": workers,
}
