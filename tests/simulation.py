"""A simulation of several workers on one journal, in one process, from a seed: anything may happen at any time, and
every answer must equal that of a plain list.

Each worker is a real `Service` with a clock of its own, on a journal that all share. A step is one of some twenty acts:
recording in every form, deleting, asking, housekeeping, time that passes, clocks that are set forward and back,
failures and crashes before and after a call into the journal, an older copy that takes the journal's place, damage.
After each step one worker is asked, and compared with `==`.

The list (`Truth`) is told of each record as soon as the engine took it, whatever became of the answer. What it holds
counts from `sure_from_us` on: before that some worker may have let events go for good, by a time that it had reason to
believe.

`Simulation.seen` counts what happened; REQUIRED names what must have happened for a run to mean anything.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from statsapi.config import Settings
from statsapi.engine.holdings import Holdings
from statsapi.errors import IdempotencyConflict, InvalidRequest, JournalDamaged, JournalUnavailable, StatsError
from statsapi.journal import Appended, Journal, Proposal, open_journal
from statsapi.journal.memory import MemoryJournal
from statsapi.model import (
    DAY_US,
    HOUR_US,
    MIN_TS_US,
    MINUTE_US,
    SECOND_US,
    Deletion,
    EventBatch,
    IdempotencyKey,
    Part,
    Span,
)
from statsapi.service.admission import Recorded
from statsapi.service.service import Service
from tests import oracles
from tests.fakes import FakeClock, Opening, Skewed

SERIES: Final = ("a", "b", "c")
WORKERS: Final = 4
DAMAGEABLE: Final = (
    ("records", "record"),
    ("records", "record"),
    ("records", "id"),
    ("records", "appended_us"),
    ("checkpoint", "state"),
    ("checkpoint", "position"),
    ("pieces", "piece"),
    ("keys", "digest"),
    ("keys", "answer"),
    ("keys", "expires_us"),
)
PERCENTILES: Final = (50, Fraction("99.9"))
FAULTS: Final = ("append", "read", "find_answer", "read_checkpoint", "read_pieces", "replace_prefix", "maintain")

REQUIRED: Final = frozenset(
    {
        "append",
        "batch",
        "dedup dropped",
        "key replayed",
        "key conflict",
        "deleted",
        "folded",
        "compacted",
        "expired",
        "ahead",
        "late",
        "clock forward",
        "clock back",
        "restart",
        "refused before",
        "lost answer",
        "crash before",
        "crash after",
        "apply broke",
        "compared raw",
        "compared rolled up",
        "estimated",
        "slow view",
    }
)
"""What a run of any engine meets; a run that does not has proven little."""


class Crash(BaseException):
    """The process is gone: nothing after this runs, no handler either."""


class Fault(NamedTuple):
    """An error for the next call of that name: raised before the engine does anything, or after it did everything."""

    call: str
    after: bool
    error: BaseException


class Event(NamedTuple):
    series: str
    ts_us: int
    value: float


def batch_of(events: list[Event]) -> EventBatch:
    parts = []
    for series in SERIES:
        mine = [(event.ts_us, event.value) for event in events if event.series == series]
        if mine:
            ts_us, values = zip(*mine, strict=True)
            parts.append(Part(series, np.array(ts_us, np.int64), np.array(values, np.float64)))
    return EventBatch(tuple(parts))


class Truth:
    """The journal's content, as a plain list in the order of its records."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, draft: EventBatch | Deletion) -> int:
        """How many events that added or removed."""
        before = len(self.events)
        if isinstance(draft, Deletion):
            self.events = [
                event
                for event in self.events
                if event.series != draft.series or not draft.start_us <= event.ts_us < draft.end_us
            ]
        else:
            for series, ts_us, values in draft.parts:
                self.events += [Event(series, *pair) for pair in zip(ts_us.tolist(), values.tolist(), strict=True)]
        return abs(len(self.events) - before)

    def values(self, series: str, span: Span) -> list[float]:
        return [
            event.value
            for event in self.events
            if event.series == series
            and event.ts_us >= span.start_us
            and (span.end_us is None or event.ts_us < span.end_us)
        ]


class Watched:
    """A worker's journal: tells the truth what the engine took, and does what was planned for a call."""

    def __init__(self, journal: Journal, simulation: Simulation) -> None:
        object.__setattr__(self, "_journal", journal)
        object.__setattr__(self, "_simulation", simulation)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._journal, name)
        return self._meet(name, found) if name in FAULTS else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._journal, name, value)

    def _meet(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def met(*args: Any, **kwargs: Any) -> Any:
            simulation = self._simulation
            fault = simulation.fault if simulation.fault and simulation.fault.call == name else None
            if fault and not fault.after:
                simulation.fault = None
                simulation.met(fault)
                raise fault.error
            result = self._append(call, *args, **kwargs) if name == "append" else call(*args, **kwargs)
            if name == "replace_prefix" and result:
                simulation.seen["compacted"] += 1
            if fault:
                simulation.fault = None
                simulation.met(fault)
                raise fault.error
            return result

        return met

    def _append(self, call: Callable[..., Appended], proposal: Any, *, key: IdempotencyKey | None = None) -> Appended:
        drafts: list[Any] = []
        if isinstance(proposal, Proposal):
            drafts.append(proposal.draft)
            appended = call(proposal, key=key)
        else:

            def decide() -> Proposal:
                decided: Proposal = proposal()
                drafts[:] = [decided.draft]  # an engine may ask again
                return decided

            appended = call(decide, key=key)
        if not appended.replayed and drafts and drafts[0] is not None:
            self._simulation.truth.record(drafts[0])
        if key is not None and not appended.replayed:
            self._simulation.keys[key.name] = key.digest, appended.answer or b""
        return appended


class Worker:
    """One process: a service, its opening of the journal and its clock."""

    def __init__(self, simulation: Simulation, clock: Skewed) -> None:
        self.clock = clock
        self.away_until = 0  # the step until which nobody asks it anything
        self._opened: list[Journal] = []

        def open_it() -> Journal:
            journal = simulation.opener.open(clock)
            self._opened.append(journal)
            watched: Any = Watched(journal, simulation)
            return watched

        self.service = Service(simulation.settings, open_it, clock, background=False)

    def end(self) -> None:
        """As the end of the process does it: what was opened is closed, and nothing is tidied."""
        for journal in self._opened:
            journal.close()


class MemoryOpener:
    """A memory journal that all workers share, as in one process with several views."""

    survives_copies = False

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._journal = MemoryJournal(clock_us=clock)

    def open(self, clock: Callable[[], int]) -> Any:
        return Opening(self._journal, clock)

    def close(self) -> None:
        self._journal.close()


class SqliteOpener:
    """A SQLite file; copies of it are taken and put back as the documentation says."""

    survives_copies = True

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.path = folder / f"{secrets.token_hex(4)}.db"

    def open(self, clock: Callable[[], int]) -> Journal:
        return open_journal(f"sqlite:///{self.path}", clock_us=clock)

    def close(self) -> None:
        pass

    def copy(self, journal: Any) -> Path:
        copy = self.path.with_suffix(".copy")
        journal.backup(str(copy), overwrite=True)
        return copy

    def restore(self, copy: Path) -> None:
        os.replace(copy, self.path)

    def damage(self, dice: random.Random) -> Callable[[], None] | None:
        """Flip a bit of something that is kept; returns what mends it, None where there is nothing of that kind."""
        table, column = dice.choice(DAMAGEABLE)
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        try:
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            row = "name" if table == "keys" else "rowid"
            newest = f"SELECT {row}, {column} FROM {table} ORDER BY {row} DESC LIMIT 5"
            rows = connection.execute(newest).fetchall() if made else []
            if not rows:
                return None
            rowid, right = dice.choice(rows)
            if isinstance(right, int):
                wrong: bytes | int = right ^ 1 << dice.randrange(60)
            else:
                broken = bytearray(right)
                broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
                wrong = bytes(broken)
            put = f"UPDATE {table} SET {column} = ? WHERE {row} = ?"
            connection.execute(put, (wrong, rowid))
        finally:
            connection.close()

        def mend() -> None:
            with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as again:
                again.execute(put, (right, rowid))

        return mend


class ServerOpener:
    """A journal in a real server (Redis, PostgreSQL). Its time is one clock for all workers, as a server's is."""

    survives_copies = False

    def __init__(self, url: str, clock: FakeClock) -> None:
        self._url, self._clock = url, clock

    def open(self, clock: Callable[[], int]) -> Journal:
        return open_journal(self._url, clock_us=self._clock)

    def close(self) -> None:
        pass


class Simulation:
    """`run(steps)` does that many from the seed. Raises AssertionError with the seed and the last acts."""

    def __init__(self, seed: int, make_opener: Callable[[FakeClock], Any], *, rollups: bool = True) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.machine = FakeClock()
        self.opener = make_opener(self.machine)
        self.settings = Settings(
            journal="memory://", retention_us=HOUR_US, rollup_retention_us=DAY_US if rollups else 0
        )
        self.truth = Truth()
        self.keys: dict[bytes, tuple[bytes, bytes]] = {}
        self.seen: Counter[str] = Counter()
        self.fault: Fault | None = None
        self.step = 0
        self.sure_from_us = MIN_TS_US
        self.sure_raw_from_us = MIN_TS_US
        self.copy: tuple[Path, list[Event], dict[bytes, tuple[bytes, bytes]]] | None = None
        self.acts: list[str] = []
        self.workers = [
            Worker(self, Skewed(self.machine, self.dice.randrange(-200_000, 200_000))) for _ in range(WORKERS)
        ]

    def run(self, steps: int) -> None:
        acts = {
            self.record_one: 30,
            self.record_many: 10,
            self.record_fresh: 8,
            self.record_once: 8,
            self.delete: 2,
            self.keep_house: 12,
            self.pass_time: 12,
            self.set_a_clock: 2,
            self.restart: 2,
            self.fail: 8,
            self.break_apply: 1,
            self.copy_or_restore: 2,
            self.damage: 1,
            self.send_away: 1,
        }
        try:
            for _ in range(steps):
                self.step += 1
                (act,) = self.dice.choices(list(acts), list(acts.values()))
                self.acts.append(act.__name__)
                act()
                self.compare(self.worker())
        except BaseException as error:
            error.add_note(f"seed {self.seed}, step {self.step}, last acts: {', '.join(self.acts[-12:])}")
            raise
        finally:
            self.close()

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.opener.close()

    def met(self, fault: Fault) -> None:
        crash = isinstance(fault.error, Crash)
        self.seen[
            ("crash after" if fault.after else "crash before")
            if crash
            else ("lost answer" if fault.after else "refused before")
        ] += 1

    def worker(self) -> Worker:
        """One that is not away. At most one is at a time."""
        return self.dice.choice([worker for worker in self.workers if worker.away_until <= self.step])

    def send_away(self) -> None:
        """A worker does nothing for a while, as one that is stopped or that nobody reaches."""
        if all(worker.away_until <= self.step for worker in self.workers):
            self.worker().away_until = self.step + 60

    def note_belief(self, worker: Worker) -> None:
        """The instant up to which a worker may have dropped events for good, by the time that has stood."""
        settled_us = worker.service.view().settled_us()
        if settled_us == MIN_TS_US:
            return
        retention = worker.service.retention
        raw_from_us = retention.raw_from_us(settled_us)
        self.sure_raw_from_us = max(self.sure_raw_from_us, raw_from_us)
        from_us = retention.from_us(settled_us) if retention.rollup_us else raw_from_us
        self.sure_from_us = max(self.sure_from_us, from_us)

    # Acts

    def some_ts_us(self) -> int:
        now_us = self.machine()
        kind = self.dice.random()
        if kind < 0.6:
            return now_us - self.dice.randrange(10 * MINUTE_US)
        if kind < 0.75:
            return now_us - self.dice.randrange(HOUR_US)
        if kind < 0.9:
            self.seen["late"] += 1
            return now_us - self.dice.randrange(HOUR_US, 30 * HOUR_US)
        if kind < 0.95:
            self.seen["ahead"] += 1
            return now_us + self.dice.randrange(1, 10 * HOUR_US)
        return now_us - now_us % MINUTE_US - self.dice.choice((0, 0, 1)) - self.dice.randrange(3) * MINUTE_US

    def some_value(self) -> float:
        kind = self.dice.random()
        if kind < 0.7:
            return round(self.dice.lognormvariate(3, 1), 3)
        if kind < 0.9:
            return float(self.dice.randrange(-5, 6))
        return self.dice.choice((1e308, -1e308, 5e-324, 1e16, 1.0, -1e16, -0.0))

    def some_batch(self, events: int) -> EventBatch:
        return batch_of([self.some_event() for _ in range(events)])

    def some_event(self) -> Event:
        return Event(self.dice.choice(SERIES), self.some_ts_us(), self.some_value())

    def attempt(self, worker: Worker, act: Callable[[], Any]) -> Any:
        """Do it on that worker. A crash ends the worker, another one takes its place; an outage is only told."""
        try:
            return act()
        except Crash:
            self.replace(worker)
        except (JournalUnavailable, MemoryError):
            pass
        finally:
            if worker in self.workers:
                self.note_belief(worker)
        return None

    def replace(self, worker: Worker) -> None:
        worker.end()
        self.workers[self.workers.index(worker)] = Worker(self, worker.clock)

    def record_one(self) -> None:
        worker = self.worker()
        batch = EventBatch.single(self.dice.choice(SERIES), self.some_ts_us(), self.some_value())
        if self.attempt(worker, lambda: worker.service.record(batch)):
            self.seen["append"] += 1

    def record_many(self) -> None:
        worker = self.worker()
        batch = self.some_batch(self.dice.choice((2, 10, 40, 300)))
        if self.attempt(worker, lambda: worker.service.record(batch)):
            self.seen["batch"] += 1

    def record_fresh(self) -> None:
        """With deduplication, some of them known: of those that are raw beyond doubt exactly the new ones count."""
        worker = self.worker()
        now_us = self.machine()
        recent = [event for event in self.truth.events if 0 <= now_us - event.ts_us < 20 * MINUTE_US]
        rows = [self.some_event() for _ in range(self.dice.randrange(1, 12))]
        rows = [row for row in rows if 0 <= now_us - row.ts_us < 20 * MINUTE_US]
        rows = rows or [Event("a", now_us, self.some_value())]
        rows += self.dice.sample(recent, min(len(recent), 3)) + rows[:1]
        held = set(self.truth.events)
        before = len(self.truth.events)
        recorded: list[Recorded] = []

        def answer(came: Recorded) -> bytes:
            recorded[:] = [came]
            return b""

        done = self.attempt(worker, lambda: worker.service.record(batch_of(rows), answer, dedup=True))
        if done is None:
            return
        fresh = {*rows} - held
        assert recorded[0].stored == len(fresh), (recorded, fresh)
        assert recorded[0].duplicates == len(rows) - len(fresh), (recorded, rows)
        assert len(self.truth.events) == before + len(fresh)
        self.seen["dedup dropped"] += recorded[0].duplicates > 0

    def record_once(self) -> None:
        """Under a key; half of the time one that was used before, with the same question or another."""
        worker = self.worker()
        again = bool(self.keys) and self.dice.random() < 0.5
        name = self.dice.choice(sorted(self.keys)) if again else b"%016x" % self.dice.getrandbits(64)
        digest, answer = self.keys.get(name, (b"first", b""))
        other = again and self.dice.random() < 0.2
        key = IdempotencyKey(name, b"other" if other else digest, 30 * DAY_US)
        batch = self.some_batch(2)
        before = len(self.truth.events)
        try:
            reply = self.attempt(worker, lambda: worker.service.record(batch, lambda came: name[::-1], key=key))
        except IdempotencyConflict:
            assert other
            self.seen["key conflict"] += 1
            return
        if reply is None:
            return
        assert not other, "another request under a known key was recorded"
        if again:
            assert reply.replayed
            assert reply.body == answer
            assert len(self.truth.events) == before
            self.seen["key replayed"] += 1
        else:
            assert not reply.replayed

    def delete(self) -> None:
        worker = self.worker()
        series = self.dice.choice(SERIES)
        if self.dice.random() < 0.4:
            span = Span(MIN_TS_US)
        else:
            hour_us = self.machine() // HOUR_US * HOUR_US
            start_us = hour_us - self.dice.randrange(4) * HOUR_US
            span = Span(start_us, start_us + self.dice.randrange(1, 4) * HOUR_US)
        before = len(self.truth.events)
        if self.attempt(worker, lambda: worker.service.delete(series, span)) is not None:
            self.seen["deleted"] += len(self.truth.events) < before

    def keep_house(self) -> None:
        worker = self.worker()
        view = worker.service.view()
        before = view.last_caught_up().sizes.event_count()
        self.attempt(worker, worker.service.keep_house)
        after = view.last_caught_up().sizes.event_count()
        self.seen["folded"] += after < before

    def pass_time(self) -> None:
        length_us = self.dice.choice((SECOND_US, 30 * SECOND_US, MINUTE_US, 7 * MINUTE_US, 20 * MINUTE_US, 3 * HOUR_US))
        self.machine.advance(length_us + self.dice.randrange(SECOND_US))
        self.seen["expired"] += any(event.ts_us < self.sure_from_us for event in self.truth.events)

    def set_a_clock(self) -> None:
        """One worker's clock, or all: forward or back by anything from seconds to days; mostly put right soon."""
        by_us = self.dice.choice((2 * SECOND_US, 90 * SECOND_US, 2 * HOUR_US, 3 * DAY_US)) * self.dice.choice((1, -1))
        self.seen["clock forward" if by_us > 0 else "clock back"] += 1
        mine = self.workers if self.dice.random() < 0.5 else [self.worker()]
        for worker in mine:
            worker.clock.step(by_us)
        for _ in range(self.dice.randrange(6)):
            self.dice.choice((self.record_one, self.record_many, self.keep_house, self.restart))()
            self.compare(self.worker())
        if self.dice.random() < 0.3:
            self.machine.advance(4 * MINUTE_US)
        for worker in self.workers:
            if worker in mine or worker.clock in [each.clock for each in mine]:
                worker.clock.step(-by_us)

    def restart(self) -> None:
        self.seen["restart"] += 1
        self.replace(self.worker())

    def fail(self) -> None:
        """The next call of some name fails, or ends the process, before or after the engine did it."""
        name, after = self.dice.choice(FAULTS), self.dice.random() < 0.5
        error: BaseException = Crash()
        if self.dice.random() < 0.5:
            error = JournalUnavailable("planned", outcome_unknown=after and name == "append")
        self.fault = Fault(name, after, error)
        self.dice.choice((self.record_one, self.record_many, self.keep_house, self.keep_house, self.delete))()
        if self.fault is not None:  # nobody called it
            self.fault = None

    def break_apply(self) -> None:
        """Something is raised in the middle of a record being applied."""
        worker = self.worker()
        other = self.worker()
        self.attempt(other, lambda: other.service.record(self.some_batch(10)))
        view = worker.service.view()
        left = self.dice.randrange(1, 3)
        insert = Holdings.insert

        def breaking(self: Any, events: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise MemoryError
            insert(self, events)

        Holdings.insert = breaking  # type: ignore[method-assign]
        try:
            with contextlib.suppress(MemoryError, StatsError):
                view.catch_up()
        finally:
            Holdings.insert = insert  # type: ignore[method-assign]
        self.seen["apply broke"] += left <= 0

    def copy_or_restore(self) -> None:
        """Take a copy of the journal, or put the last one in its place: what came since is gone, and so it is told."""
        if not self.opener.survives_copies:
            return
        worker = self.worker()
        if self.copy is None:
            self.copy = self.opener.copy(worker.service.view().journal), [*self.truth.events], dict(self.keys)
            return
        path, self.truth.events, self.keys = self.copy
        self.opener.restore(path)
        self.copy = None
        self.seen["restored"] += 1

    def damage(self) -> None:
        """A flipped bit in something: whoever must read it is refused, the others answer; then it is mended."""
        if not isinstance(self.opener, SqliteOpener) or (mend := self.opener.damage(self.dice)) is None:
            return
        try:
            for worker in (*self.workers, fresh := Worker(self, self.workers[0].clock)):
                try:
                    self.compare(worker)
                except JournalDamaged:
                    self.seen["damage refused"] += 1
            fresh.end()
            self.ask_for_answers()
        finally:
            mend()

    def ask_for_answers(self) -> None:
        """Each answer that was kept is right, or refused as damaged; none is forgotten."""
        try:
            journal = self.opener.open(self.workers[0].clock)
        except JournalDamaged:
            return
        with contextlib.closing(journal):
            journal.settled_us = lambda: MIN_TS_US  # nothing expires for it
            for name, (digest, answer) in self.keys.items():
                try:
                    found = journal.find_answer(IdempotencyKey(name, digest, DAY_US))
                except JournalDamaged:
                    self.seen["damaged answer refused"] += 1
                else:
                    assert found == answer

    # The comparison

    def compare(self, worker: Worker) -> None:
        """Ask the worker about some spans, and compare with the list."""
        if worker.away_until and worker.away_until <= self.step:
            worker.away_until = 0
            self.seen["slow view"] += 1
        service = worker.service
        reading = service.ask()
        store, now_us = reading.store, reading.now_us
        self.note_belief(worker)
        series = self.dice.choice(SERIES)
        windows_us = [self.dice.choice((MINUTE_US, 10 * MINUTE_US, HOUR_US)), self.dice.choice((2, 6, 24)) * HOUR_US]
        start_us = now_us - self.dice.randrange(HOUR_US)
        questions: list[tuple[list[int], int | None, int | None]] = [
            *(([window_us], None, None) for window_us in windows_us),
            ([], start_us, start_us + self.dice.randrange(1, HOUR_US)),
        ]
        for question in questions:
            try:
                spans = reading.spans.meant(*question)
            except InvalidRequest:
                continue  # it reaches past what is kept
            (answer,) = store.statistics(series, spans, now_us, PERCENTILES)
            self._check(series, spans[0], answer, now_us, store.raw_from_us(now_us))

    def _check(self, series: str, span: Span, answer: Any, now_us: int, raw_from_us: int) -> None:
        rolled_up = span.start_us < raw_from_us
        if span.start_us < (self.sure_from_us if rolled_up else max(self.sure_raw_from_us, self.sure_from_us)):
            return  # a worker had reason to let some of it go, or to fold it
        values = self.truth.values(series, span)
        where = f"{series} {span} at {now_us}"
        assert answer.summary == oracles.summary(values), where
        if values:
            self._check_percentiles(values, answer, where)
            before = self.truth.values(series, Span(span.start_us, raw_from_us)) if rolled_up else []
            assert bool(answer.relative_errors) == bool(before), f"exact although rolled up, or the reverse: {where}"
        self.seen["compared rolled up" if rolled_up else "compared raw"] += 1

    def _check_percentiles(self, values: list[float], answer: Any, where: str) -> None:
        exact = [oracles.exact_percentile(values, p) for p in PERCENTILES]
        if not answer.relative_errors:
            assert answer.percentiles == [float(right) for right in exact], where
            return
        for told, right, error in zip(answer.percentiles, exact, answer.relative_errors, strict=True):
            if error is not None:
                self.seen["estimated"] += 1
                assert abs(Fraction(told) - right) <= Fraction(error) * abs(right), where
