"""Something is raised in the middle of a change, at any line of it: no later answer counts a part twice or leaves it
out.
"""

from __future__ import annotations

import contextlib
import linecache
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from statsapi.app import create_app
from statsapi.config import GRACE_US, Settings
from statsapi.engine import (
    buffer,
    changes,
    chunk,
    chunks,
    exact,
    frozen,
    held_events,
    holdings,
    percentiles,
    rollup,
    sealed,
    sketch,
    store,
    summary,
    sums_before,
    timeline,
    timelines,
)
from statsapi.errors import ViewNotReady
from statsapi.journal import Proposal
from statsapi.journal.memory import MemoryJournal
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, Deletion, EventBatch, Part, Span
from statsapi.service import checkpoint, view
from statsapi.service.service import Service
from tests import oracles
from tests.fakes import FakeClock

# A line of any of these may raise. Not what takes and releases locks: memory does not end between those.
_ENGINE = (
    *(buffer, chunk, chunks, exact, frozen, held_events, percentiles, rollup, sealed, sketch, store, summary),
    *(sums_before, timeline, timelines, changes, holdings),
)
_FILES = {module.__file__ for module in (*_ENGINE, checkpoint, view)}
_SAFE = {"__enter__", "__exit__", "catch_up", "_step_or_start_afresh", "age_s", "last_caught_up", "_unusable"}


class Fault:
    """Raises at the n-th line of the package that is run meanwhile, once; `lines` says how many there were."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.at, self.error = at, error
        self.lines = 0

    def __enter__(self) -> Fault:
        self._before = sys.gettrace()  # make coverage measures by one
        sys.settrace(self._trace)
        return self

    def __exit__(self, *raised: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in _FILES or frame.f_code.co_name in _SAFE:
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        # Out of a `with` block Python tells its first line again, before __exit__ is called: no code of ours runs
        # there, and a fault there would leave any lock locked.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not line.lstrip().startswith("with "):
            self.lines += 1
            if self.lines == self.at:
                raise self.error(f"at line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}")
        return self._line


class InSteps(MemoryJournal):
    """Gives some records at a time."""

    def read(self, after: Any, **options: Any) -> Any:
        return super().read(after, **options | {"limit_records": 4})

    def close(self) -> None:
        pass


class World:
    """A journal of a few records of all kinds, and the list of what counts."""

    def __init__(self) -> None:
        dice = random.Random(7)
        self.clock = FakeClock()
        self.journal = InSteps(clock_us=self.clock)
        self.events: list[tuple[str, int, float]] = []
        for number in range(14):
            parts = []
            for series in ("a", "b")[: 1 + number % 2]:
                n = (1, 3, 40)[number % 3]
                ts_us = self.clock.now_us - np.array(
                    [dice.randrange(2 * HOUR_US if number % 4 else 1000) for _ in range(n)]
                )
                values = np.array([dice.gauss(0, 1) for _ in range(n)])
                self.events += [(series, t, v) for t, v in zip(ts_us.tolist(), values.tolist(), strict=True)]
                parts.append(Part(series, ts_us, values))
            self.journal.append(Proposal(EventBatch(tuple(parts))))
            if number == 9:
                minute_us = self.clock.now_us // MINUTE_US * MINUTE_US
                gone = Span(minute_us - 30 * MINUTE_US, minute_us - 20 * MINUTE_US)
                self.journal.append(Proposal(Deletion("a", gone.start_us, gone.end_us)))
                self.events = [e for e in self.events if e[0] != "a" or not gone.start_us <= e[1] < gone.end_us]
            self.clock.advance(2 * MINUTE_US)

    def start(self) -> Service:
        return Service(Settings(journal="memory://"), lambda: self.journal, self.clock, background=False)

    def ask(self, service: Service) -> None:
        """All kinds of questions; each answer is the list's."""
        reading = service.ask()
        held, now_us = reading.store, reading.now_us
        for series in "ab":
            for span in reading.spans.meant([HOUR_US, 5 * MINUTE_US, DAY_US]):
                self.check(held, series, span, now_us)
        held.check_invariants()

    def check(self, held: store.Store, series: str, span: Span, now_us: int) -> None:
        (answer,) = held.statistics(series, [span], now_us, [50], ends=True)
        expected = [v for s, t, v in self.events if s == series and t >= span.start_us]
        assert answer.summary == oracles.summary(expected)
        if not answer.relative_errors and expected:
            assert answer.percentiles == [oracles.percentile(expected, 50)]


def lines_of(act: Callable[[], object]) -> int:
    with Fault(0, MemoryError) as fault:
        act()
    return fault.lines


def each_line(lines: int) -> range:
    """Every line of a short act. Of a long one, as many as fit into some seconds, and not always the same ones of a
    loop.
    """
    return range(1, lines + 1, max(1, lines // 200 | 1))


@pytest.mark.slow
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])
def test_a_replay_that_fails_at_any_line(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """The question that meets the fault is answered after a fresh start, or interrupted; the next one is right. Whoever
    still holds the old store gets a right answer from it, or is told to ask again. The fault is logged and counted.
    """
    caplog.set_level(logging.CRITICAL, "statsapi")
    world = World()
    for at in each_line(lines_of(lambda: world.start().ask())):
        service = world.start()
        first = service.view().last_caught_up()
        with Fault(at, error), contextlib.suppress(error):
            service.ask()
        world.ask(service)
        if first is not service.view().last_caught_up() and first.broken:
            with pytest.raises(ViewNotReady):
                first.statistics("a", [Span(0)], world.clock.now_us)
        totals = {s.name: s.value for f in service.metrics.families(0) for s in f.samples if not s.labels}
        assert totals["statsapi_view_broken_total"] in (0, 1)


@pytest.mark.slow
def test_what_is_recorded_after_a_fault_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    """A view that stands, and more records: one line of applying these fails, and nothing counts twice."""
    caplog.set_level(logging.CRITICAL, "statsapi")

    def fail(at: int) -> int:
        world = World()
        service = world.start()
        world.ask(service)
        for number in range(6):
            ts_us = world.clock.now_us - number * 30 * MINUTE_US
            world.journal.append(Proposal(EventBatch.single("a", ts_us, float(number))))
            world.events.append(("a", ts_us, float(number)))
        held = service.view().last_caught_up()
        with Fault(at, MemoryError) as fault, contextlib.suppress(MemoryError):
            service.ask()
        broken = held.broken
        world.ask(service)
        if broken:
            with pytest.raises(ViewNotReady):
                held.count("a", Span(0))
            assert service.view().last_caught_up() is not held
        return fault.lines

    for at in range(1, fail(0) + 1):
        fail(at)


@pytest.mark.slow
def test_folding_that_fails_at_any_line(caplog: pytest.LogCaptureFixture) -> None:
    """Folding, dropping and compacting: whichever line raises, the answers after it are the list's."""
    caplog.set_level(logging.CRITICAL, "statsapi")

    def fail(at: int) -> int:
        world = World()
        service = world.start()
        world.ask(service)
        world.clock.advance(HOUR_US + GRACE_US)
        world.journal.append(Proposal(EventBatch.single("b", world.clock.now_us, 1.0)))
        world.events.append(("b", world.clock.now_us, 1.0))
        with Fault(at, MemoryError) as fault, contextlib.suppress(MemoryError):
            service.keep_house()
        world.ask(service)
        service.keep_house()
        world.ask(service)
        world.ask(world.start())
        return fault.lines

    for at in each_line(fail(0)):
        fail(at)


@pytest.mark.slow
def test_a_question_that_fails_at_any_line(caplog: pytest.LogCaptureFixture) -> None:
    """A question does work that was put off, such as sums and sorting: a fault in one spoils no later answer."""
    caplog.set_level(logging.CRITICAL, "statsapi")
    world = World()

    def question(service: Service) -> None:
        reading = service.ask()
        held, now_us = reading.store, reading.now_us
        held.statistics("a", reading.spans.meant([HOUR_US, DAY_US]), now_us, [50], ends=True)
        held.steps("a", Span(now_us - HOUR_US), 7 * MINUTE_US, 9, now_us, [50])

    for at in each_line(lines_of(lambda: question(world.start()))):
        service = world.start()
        service.ask()
        with Fault(at, MemoryError), contextlib.suppress(MemoryError):
            question(service)
        world.ask(service)


def test_a_fault_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applying fails once: the request is answered, and there is an error in the log and a counter. It fails again and
    again: the request gets no wrong answer.
    """
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    client = app.test_client()
    service = app.extensions["statsapi"]
    moment = "2025-11-21T07:45:00Z"
    insert = timelines.Timelines.insert
    faults = 1

    def failing(self: Any, *arguments: Any) -> Any:
        nonlocal faults
        insert(self, *arguments)
        if faults:
            faults -= 1
            raise MemoryError("no memory")

    monkeypatch.setattr(timelines.Timelines, "insert", failing)
    client.post("/event", json={"timestamp": moment, "value": 1})
    assert client.get("/statistics").json["count"] == 1
    assert any("starts afresh" in record.getMessage() for record in caplog.records)
    assert "statsapi_view_broken_total 1.0" in client.get("/metrics").text
    client.post("/event", json={"timestamp": moment, "value": 2})
    faults = 5
    while faults:
        answer = client.get("/statistics")
        assert answer.status_code >= 500 or answer.json["count"] == 2
    assert client.get("/statistics").json["count"] == 2
    assert service.view().last_caught_up().sizes.event_count() == 2
