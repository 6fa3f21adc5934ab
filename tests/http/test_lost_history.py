"""Acknowledged records that are gone: an error, a counter, a field of /readyz, once each; never for a compaction."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from statsapi.app import create_app
from statsapi.config import GRACE_US, Settings
from statsapi.journal import HistoryChanged, Lost, open_journal
from statsapi.journal.memory import MemoryJournal
from statsapi.metrics import CounterTable, Metrics
from statsapi.model import HOUR_US, MINUTE_US, SECOND_US
from statsapi.times import format_timestamp
from tests.fakes import FakeClock


class Replaceable(MemoryJournal):
    """A journal whose content can be exchanged for that of before, as a restored copy does."""

    def kept(self) -> tuple[Any, ...]:
        return copy.copy(self._records), self._base, self._checkpoint, dict(self._pieces)

    def become(self, kept: tuple[Any, ...]) -> None:
        records, self._base, self._checkpoint, pieces = kept
        self._records, self._pieces = list(records), dict(pieces)

    def close(self) -> None:
        pass


def app_on(journal: Any, clock: FakeClock) -> Flask:
    return create_app(Settings(journal="memory://"), journal=lambda: journal, clock_us=clock, background=False)


def post(app: Flask, clock: FakeClock, times: int = 1) -> None:
    for _ in range(times):
        clock.advance(SECOND_US)
        answer = app.test_client().post("/event", json={"timestamp": format_timestamp(clock()), "value": 1})
        assert answer.status_code == 200


def count(app: Flask) -> int:
    found: int = app.test_client().get("/statistics").json["count"]
    return found


def told(app: Flask) -> Any:
    return app.test_client().get("/readyz").json.get("lost")


def counted(app: Flask) -> float:
    lines = app.test_client().get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("statsapi_journal_lost_records_total ")))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_an_older_copy_is_told(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """It comes back with three records less: how many, since when, once, and for as long as the service runs."""
    journal = Replaceable(clock_us=clock)
    apps = [app_on(journal, clock) for _ in range(2)]
    post(apps[0], clock, 4)
    older, since_us = journal.kept(), clock()
    post(apps[0], clock, 3)
    for app in apps:
        assert (count(app), told(app), counted(app)) == (7, None, 0)
    journal.become(older)
    for app in apps:
        assert count(app) == 4
        assert told(app) == {
            "records": 3,
            "since": format_timestamp(since_us),
            "noticed": format_timestamp(clock()),
        }
        assert counted(app) == 3
    found = errors(caplog)
    assert len(found) == 2  # one of each worker
    assert "at least 3 acknowledged records are no longer in the journal" in found[0]
    assert format_timestamp(since_us) in found[0]
    post(apps[0], clock)
    assert (count(apps[0]), counted(apps[0])) == (5, 3)
    assert told(apps[0])["records"] == 3
    assert len(errors(caplog)) == 2


def test_an_older_copy_that_has_grown_is_told(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """After others have recorded, at least one record is known to be lost."""
    journal = Replaceable(clock_us=clock)
    app, other = app_on(journal, clock), app_on(journal, clock)
    post(app, clock, 4)
    older = journal.kept()
    post(app, clock, 2)
    assert count(app) == 6
    journal.become(older)
    post(other, clock, 5)
    assert count(app) == 9
    assert told(app)["records"] == 1
    assert told(other) is None  # it had seen nothing of what is gone
    assert len(errors(caplog)) == 1


def test_an_emptied_journal_is_told(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Everything is gone, as after FLUSHALL: since when is no question then."""
    journal = Replaceable(clock_us=clock)
    app = app_on(journal, clock)
    nothing = journal.kept()
    post(app, clock, 5)
    assert count(app) == 5
    journal.become(nothing)
    assert count(app) == 0
    assert told(app) == {"records": 5, "since": None, "all": True, "noticed": format_timestamp(clock())}
    (line,) = errors(caplog)
    assert "LOST: at least 5 acknowledged records are no longer in the journal, all that there were: " in line


def test_a_compaction_is_no_loss(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A view that was passed by compactions starts afresh, and nothing is said."""
    journal = Replaceable(clock_us=clock)
    busy, idle = app_on(journal, clock), app_on(journal, clock)
    post(busy, clock, 5)
    assert count(idle) == 5
    for _ in range(3):
        clock.advance(HOUR_US + GRACE_US + MINUTE_US)
        post(busy, clock, 2)
        busy.extensions["statsapi"].keep_house()
    assert journal.info().first_position > 6
    assert count(idle) == 2
    assert (told(idle), counted(idle), errors(caplog)) == (None, 0, [])


def test_what_the_engine_knows_is_told(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """An engine that knows how many there were says so: at the opening, and while a view follows it."""

    class Knowing(Replaceable):
        lost = Lost(12, clock() - HOUR_US, "the file was replaced by an older one")

        def read(self, *arguments: Any, **options: Any) -> Any:
            try:
                return super().read(*arguments, **options)
            except HistoryChanged as changed:
                raise HistoryChanged(str(changed), Lost(None, None, "somebody removed entries")) from changed

    journal = Knowing(clock_us=clock)
    app = app_on(journal, clock)
    older = journal.kept()
    post(app, clock)
    assert told(app)["records"] == 12
    assert told(app)["since"] == format_timestamp(Knowing.lost.since_us or 0)
    assert count(app) == 1
    journal.become(older)
    assert count(app) == 0
    assert counted(app) == 13
    found = errors(caplog)
    assert "at least 12 acknowledged" in found[0]
    assert "replaced by an older one" in found[0]
    assert "an unknown number of acknowledged records" in found[1]
    assert "somebody removed entries" in found[1]


def test_no_number_is_told_where_none_is_known_beyond_what_was_told(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that learnt nothing more of a loss gives 0; "at least 0 records are lost" would say that none is."""

    class Learning(Replaceable):
        lost = Lost(0, None, "the server no longer has them")

    app = app_on(Learning(clock_us=clock), clock)
    count(app)
    assert "LOST: an unknown number of acknowledged records" in errors(caplog)[0]
    assert counted(app) == 1


def test_a_number_that_nobody_knows_is_null(clock: FakeClock) -> None:
    """On /readyz, as the log says; the counter counts it as one."""

    class Unknowing(Replaceable):
        lost = Lost(None, None, "it is another journal")

    app = app_on(Unknowing(clock_us=clock), clock)
    assert count(app) == 0
    assert told(app) == {"records": None, "since": None, "noticed": format_timestamp(clock())}
    assert counted(app) == 1


def test_a_restored_file_is_told(clock: FakeClock, tmp_path: Path) -> None:
    """SQLite: an older backup is moved into the place of the journal while the service runs."""
    path, backup = tmp_path / "events.db", tmp_path / "backup.db"
    url = f"sqlite:///{path}"
    app = create_app(Settings(journal=url), clock_us=clock, background=False)
    post(app, clock, 3)
    journal = open_journal(url, clock_us=clock)
    journal.backup(str(backup))
    journal.close()
    post(app, clock, 4)
    assert count(app) == 7
    shutil.move(backup, path)
    assert count(app) == 3
    assert told(app)["records"] == 4
    app.extensions["statsapi"].close()


def test_a_loss_stays_told_when_its_worker_is_replaced() -> None:
    """Every worker reports a loss that any worker noticed, with the largest of their counts."""
    table = CounterTable(4)
    workers = [Metrics() for _ in range(3)]
    for slot, worker in enumerate(workers):
        table.assign(slot)
        worker.share(table, slot)
    assert workers[0].last_lost() is None
    workers[0].lost(Lost(5, 100, "gone"), 1_000)
    workers[1].lost(Lost(6, None, "gone", all=True), 2_000)
    table.release(0)
    table.assign(0)
    for worker in workers:
        assert worker.last_lost() == (6, None, True, 2_000)
    (family,) = (f for f in workers[2].families(0) if f.name == "statsapi_journal_lost_records")
    assert family.samples[0].value == 6
