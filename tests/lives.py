"""The life of a service, and calls into its journal's engine of which one fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from statsapi.config import Settings
from statsapi.errors import JournalUnavailable, StatsError
from statsapi.journal import Journal, open_journal
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, EventBatch, IdempotencyKey, Part, Span
from statsapi.service.service import Service
from tests.fakes import FakeClock


class Faults:
    """Counts the calls of all connections; at the planned one raises, before or after it was done."""

    def __init__(self) -> None:
        self.calls = 0
        self.planned: int | None = None
        self.error: Callable[[], BaseException] = MemoryError
        self.after = False
        self.happened = False

    @property
    def is_now(self) -> bool:
        """Whether the planned call is under way."""
        return self.calls == self.planned

    def call(self, act: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls != self.planned:
            return act()
        self.happened = True
        if self.after:
            act()
        raise self.error()

    def plan(self, call: int, error: Callable[[], BaseException], after: bool) -> None:
        self.calls, self.planned, self.error, self.after, self.happened = 0, call, error, after, False

    def stop(self) -> None:
        self.planned = None


FAULTS = Faults()


class Life:
    """A service from its start to its end, of which each act may fail; what became of each value that it recorded."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.clock = FakeClock()
        self.folder = folder
        self.counts: dict[float, tuple[int, int]] = {}  # value: least and most times that it counts
        self.service: Service | None = None
        self._next = 0

    def open_service(self) -> Service:
        settings = Settings(journal=self.url, retention_us=HOUR_US, rollup_retention_us=DAY_US)
        return Service(settings, self.open_journal, self.clock, background=False)

    def open_journal(self) -> Journal:
        return open_journal(self.url, clock_us=self.clock)

    def attempt(self, act: Callable[[], Any]) -> BaseException | None:
        """What it raised, if that is something that a caller is told; anything else fails the test."""
        try:
            act()
        except (StatsError, MemoryError) as error:
            # Let go of, as a request's error is: cursors in its frames would keep a closed connection open.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        return None

    def values(self, how_many: int) -> list[float]:
        self._next += how_many
        return [float(2**i) for i in range(self._next - how_many, self._next)]

    def record(self, how_many: int, *, key: bytes = b"", dedup: bool = False, ago_us: int = 0) -> None:
        service = self.service
        assert service is not None
        values = self.values(how_many)
        ts_us = np.full(how_many, self.clock() - ago_us)
        batch = EventBatch((Part("default", ts_us, np.array(values)),))
        under = IdempotencyKey(key, b"digest", DAY_US) if key else None
        error = self.attempt(lambda: service.record(batch, lambda came: b"answer", key=under, dedup=dedup))
        unknown = isinstance(error, MemoryError) or (isinstance(error, JournalUnavailable) and error.outcome_unknown)
        if key and error is not None:  # what an idempotency key is for
            assert self.attempt(lambda: service.record(batch, lambda came: b"answer", key=under)) is None
            error = None
        bounds = (1, 1) if error is None else (0, 1) if unknown else (0, 0)
        self.counts |= dict.fromkeys(values, bounds)

    def delete(self) -> None:
        service = self.service
        assert service is not None
        self.record(2, ago_us=40 * MINUTE_US)
        doomed = list(self.counts)[-2:]
        start_us = (self.clock() - 45 * MINUTE_US) // MINUTE_US * MINUTE_US
        error = self.attempt(lambda: service.delete("default", Span(start_us, start_us + 10 * MINUTE_US)))
        unknown = isinstance(error, MemoryError) or (isinstance(error, JournalUnavailable) and error.outcome_unknown)
        for value in doomed:
            if error is None:
                self.counts[value] = (0, 0)
            elif unknown:
                self.counts[value] = (0, self.counts[value][1])

    def live(self) -> None:
        """Start, record in every way, read, fold, compact, check, back up, start again."""
        for _ in range(2):  # whoever starts and is refused starts again
            self.service = self.open_service()
            if self.attempt(self.service.start) is None:
                break
        service = self.service
        self.record(1)
        self.record(3)
        self.record(2, key=b"once")
        self.record(2, dedup=True)
        self.attempt(service.ask)
        self.delete()
        self.attempt(service.keep_house)
        self.clock.advance(90 * MINUTE_US)
        self.record(1)
        self.attempt(service.keep_house)  # folds and compacts
        self.record(1, ago_us=2 * HOUR_US)
        self.clock.advance(3 * MINUTE_US)
        self.attempt(service.keep_house)
        self.attempt(service.check_ready)
        self.attempt(lambda: service.view().journal.backup(str(self.folder / "copy.db"), overwrite=True))
        self.attempt(lambda: service.view().journal.info())
        self.attempt(service.ask)

    def check(self) -> None:
        """The service that lived through it, and one that starts now, both have what they must."""
        assert self.service is not None
        fresh = self.open_service()
        sums = []
        try:
            for service in (self.service, fresh):
                reading = service.ask()
                store, now_us = reading.store, reading.now_us
                (span,) = reading.spans.meant([6 * HOUR_US])
                summary = store.statistics("default", [span], now_us)[0].summary
                sums.append((summary.count, summary.sum_scaled, summary.sum_squares_scaled))
                total = summary.sum_scaled >> 1074
                for value, (least, most) in self.counts.items():  # each is a bit of its own: twice would carry
                    assert least <= (total // int(value)) % 2 <= most, f"{value} does not count as it must"
                assert summary.count == total.bit_count(), "something counts twice"
        finally:
            fresh.close()
        assert sums[0] == sums[1]

    def end(self) -> None:
        if self.service is not None:
            self.attempt(self.service.close)


def live_once(life: Life, call: int, error: Callable[[], BaseException], *, after: bool, called: str) -> bool:
    """A whole life in which this call fails, and what holds after it. False where it had fewer calls."""
    FAULTS.plan(call, error, after)
    try:
        life.live()
        if not FAULTS.happened:
            return False
        FAULTS.stop()
        life.check()
    except BaseException as failure:
        failure.add_note(f"call {call} failed by {called}")
        raise
    finally:
        FAULTS.stop()
        life.end()
    return True
