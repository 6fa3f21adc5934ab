"""What questions over many series cost: `python -m benchmarks.groups [union|groups|others|names]`. Compare ratios.

It takes about two minutes and 1.5 GB.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.engine.groups import Grouping, ask
from statsapi.engine.store import Store
from statsapi.engine.union import Spans
from statsapi.engine.union_kept import KeptUnions
from statsapi.journal import Events
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, EventBatch, Part, Retention, Span
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.patterns import Glob, Selection, Where
from statsapi.server.interpreter import hand_over_soon

NOW_US = 20_000 * DAY_US
PS = (50, 95, 99)
DICE = np.random.default_rng(1)
ROUNDS = 10

CATALOGUE = Catalogue()


class Chosen:
    """The series of a selection, found once for each state of a store."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.matches = selection.matches
        self.chosen = partial(CATALOGUE.chosen, selection=selection)


EVERY = Chosen(Selection(globs=(Glob("web.*"),)))


def filled(series: int, events: int) -> Store:
    """This many series of this many events each, over the last hour; lognormal, as latencies are."""
    store = Store(Retention(HOUR_US + 5 * MINUTE_US))
    for i in range(series):
        ts_us = NOW_US - HOUR_US + np.sort(DICE.integers(0, HOUR_US, events))
        store.apply([Events(f"web.{i:06}", ts_us, DICE.lognormal(3, 1, events), np.array([NOW_US]))], NOW_US)
    return store


def write(store: Store, series: str) -> None:
    """One more event, so that no answer is remembered."""
    store.apply([Events(series, np.array([NOW_US]), np.array([20.0]), np.array([NOW_US]))], NOW_US)


def timed_ms(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1e3


def cpu_ms(call: Callable[[], object]) -> float:
    """Of this thread: what else runs on the machine shows in caches only."""
    began_s = time.thread_time()
    call()
    return (time.thread_time() - began_s) * 1e3


def forget_selections(store: Store) -> None:
    """What percentiles counted is counted again, as for a first question."""
    for name in store.listing.names():
        store._held.timelines.opened[name]._selections = None


def show(what: str, took_ms: list[float], goal_ms: float | None = None) -> None:
    took_ms.sort()
    goal = "" if goal_ms is None else f"   (goal {goal_ms:,.0f} ms)"
    print(f"  {what:<58} {took_ms[len(took_ms) // 2]:9.2f} ms, worst {took_ms[-1]:9.2f}{goal}", flush=True)


def union() -> None:
    """1,000 series of 10,000 events beside one series with 10 million, in turns, events recorded before each.

    The one series is asked twice: with the results kept from the previous question, and without them.
    """
    many = filled(1_000, 10_000)
    one = Store(many.retention)
    for i in range(1_000):
        ts_us = NOW_US - HOUR_US + (np.arange(10_000) + i * 10_000) * (HOUR_US // 10_000_000)
        one.apply([Events("web.one", ts_us, DICE.lognormal(3, 1, 10_000), np.array([NOW_US]))], NOW_US)
    print("10 million events, in 1,000 series and in one: median and worst of 10; goals: 30 ms, 1.5 times one series")
    names = many.names()
    gc.freeze()  # workers collect seldom, too
    for what, start_us, slides_us, written in (
        ("inside the span", NOW_US - HOUR_US, 0, names[500:501]),
        ("inside the span, all written to in between", NOW_US - HOUR_US, 0, names),
        ("cut by a span that begins at the same instant each time", NOW_US - HOUR_US // 2, 0, names[500:501]),
        ("cut by a span that slides by a second each time", NOW_US - HOUR_US // 2, 1_000_000, names[500:501]),
    ):
        print(f" all series {what}")
        for asked, ps in (("count to stddev", ()), ("with three percentiles", PS)):
            took: tuple[list[float], list[float], list[float]] = [], [], []
            for i in range(ROUNDS + 2):
                start_us += slides_us
                span = Span(start_us)
                for name in written:
                    write(many, name)
                    write(one, "web.one")
                first = cpu_ms(lambda span=span, ps=ps: ask(many, EVERY, Spans((span,), ps), NOW_US))
                second = cpu_ms(lambda span=span, ps=ps: one.statistics("web.one", [span], NOW_US, ps))
                write(one, "web.one")
                forget_selections(one)
                third = cpu_ms(lambda span=span, ps=ps: one.statistics("web.one", [span], NOW_US, ps))
                if i > 1:
                    for times, ms in zip(took, (first, second, third), strict=True):
                        times.append(ms)
            show(f"{asked}, 1,000 series", took[0], None if ps else 30)
            show(f"{asked}, one series", took[1])
            if ps:
                show(f"{asked}, one series of which nothing is kept", took[2])
                ratios = [took[0][ROUNDS // 2] / times[ROUNDS // 2] for times in took[1:]]
                print("    ratios of the medians {:.1f} and {:.1f}   (goal 1.5)".format(*ratios))
    print(" all series cut by a span that slides by a second each time, 300 times: edges are looked at in between")
    means = []
    for store, call in (
        (many, lambda span: ask(many, EVERY, Spans((span,), PS), NOW_US)),
        (one, lambda span: one.statistics("web.one", [span], NOW_US, PS)),
    ):
        took_ms = []
        for i in range(300):
            write(store, store.listing.names()[0])
            span = Span(NOW_US - HOUR_US * 3 // 4 + i * 1_000_000)
            took_ms.append(cpu_ms(lambda span=span, call=call: call(span)))
        means.append(sum(took_ms[2:]) / len(took_ms[2:]))
        show(f"with three percentiles, {len(store.listing.names()):,} series", took_ms[2:])
        print(f"    mean {means[-1]:.2f} ms; the first two {took_ms[0]:.0f} and {took_ms[1]:.0f} ms")
    print(f"    ratio of the means {means[0] / means[1]:.1f}   (goal 1.5)")


def groups() -> None:
    """Rows for 10,000 and totals of 100,000 series."""
    by_mean = Grouping(str, lambda answer: answer.summary.mean, descending=True, limit=10)
    for series, events, rounds, goal_ms in ((10_000, 100, ROUNDS, 250), (100_000, 10, 3, 2_500)):
        store = filled(series, events)
        gc.freeze()
        print(f"{series:,} series of {events} events")
        names = store.listing.names()
        show(
            "choosing them by a pattern",
            [timed_ms(lambda n=names: Catalogue().chosen(n, Selection(globs=(Glob("w*"),))))],
        )
        for what, start_us in (("inside", NOW_US - HOUR_US), ("cut", NOW_US - HOUR_US // 2)):
            for asked, ps, grouping in (
                ("total", (), None),
                ("total with three percentiles", PS, None),
                ("the 10 with the highest mean", (), by_mean),
                ("the 10 with the highest mean, with three percentiles", PS, by_mean),
            ):
                took_ms = []
                for _ in range(rounds + 1):
                    write(store, "web.000500")
                    question = Spans((Span(start_us),), ps)
                    took_ms.append(cpu_ms(lambda s=store, q=question, g=grouping: ask(s, EVERY, q, NOW_US, g)))
                show(f"{what}: {asked}", took_ms[1:], goal_ms if grouping else None)
        del store
        gc.unfreeze()
        gc.collect()


def others(seconds: float = 6.0) -> None:
    """POST /event and GET /statistics of one series through the app, alone and while 100,000 series are asked for."""
    app = create_app(Settings(journal="memory://", max_series=1_000_000), background=False)
    service = app.extensions["statsapi"]
    now_us = service.now_us()
    for first in range(0, 100_000, 1_000):
        ts_us = now_us - DICE.integers(0, HOUR_US // 2, 10)
        parts = tuple(Part(f"web.{i:06}", ts_us, DICE.lognormal(3, 1, 10)) for i in range(first, first + 1_000))
        service.record(EventBatch(parts))
    store = service.view().catch_up()
    gc.freeze()
    client = app.test_client()
    print("POST /event and GET /statistics in one process, 100,000 series held: p50, p99 and worst in ms")
    question = Spans((Span(now_us - HOUR_US // 4),), PS)
    by_mean = Grouping(str, lambda answer: answer.summary.mean, descending=True, limit=10)
    for what, grouping, anew in (
        ("alone", None, False),
        ("while totals are asked for", None, False),
        ("while they are asked for anew", None, True),
        ("while groups are asked for", by_mean, False),
    ):
        stop = threading.Event()
        asked = 0

        def keep_asking(grouping: Grouping | None = grouping, stop: threading.Event = stop, anew: bool = anew) -> None:
            nonlocal asked
            while not stop.is_set():
                if anew and asked % 2 == 0:  # the first question looks at all series, and so does the second
                    store.unions = KeptUnions()
                ask(store, EVERY, question, now_us, grouping)
                asked += 1

        asker = threading.Thread(target=keep_asking)
        if what != "alone":
            asker.start()
        posts, gets = [], []
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            posts.append(timed_ms(lambda: client.post("/event", json={"timestamp": time.time(), "value": 1.5})))
            gets.append(timed_ms(lambda: client.get("/statistics")))
            time.sleep(0.002)
        stop.set()
        if what != "alone":
            asker.join()
        for call, took_ms in (("POST", posts), ("GET", gets)):
            took_ms.sort()
            p50, p99 = took_ms[len(took_ms) // 2], took_ms[len(took_ms) * 99 // 100]
            print(f"  {what:<28} {call:<5} {p50:7.2f} {p99:7.2f} {took_ms[-1]:7.2f}   ({asked} questions)", flush=True)
    service.close()


def names() -> None:
    """Choosing among 100,000 names, for the first time and again."""
    held = sorted(f"latency.{i % 97};host=h{i};route=/u{i % 50};status={i % 6}00" for i in range(100_000))
    print("100,000 names with three tags")
    for what, selection in (
        ("all", Selection()),
        ("match=latency.1*", Selection(globs=(Glob("latency.1*"),))),
        ("match=*h9*", Selection(globs=(Glob("*h9*"),))),
        ("where=status=5*", Selection(where=(Where.parse("status=5*"),))),
    ):
        catalogue = Catalogue()
        show(f"{what}, first", [timed_ms(lambda c=catalogue, s=selection: c.chosen(held, s))])
        show(f"{what}, again", [timed_ms(lambda c=catalogue, s=selection: c.chosen(held, s))])
    show("keys of tags", [timed_ms(lambda: Catalogue().tag_keys(held))])
    show("values of a tag that differs in each", [timed_ms(lambda: Catalogue().tag_values(held, "host"))])


PARTS = {"union": union, "groups": groups, "others": others, "names": names}

if __name__ == "__main__":
    hand_over_soon()  # as a worker does
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
