"""Journals under clocks that jump: what a record is stamped with, what a reader is told, which keys are forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statsapi.journal import CLOCKS_DIFFER_US, START, IdempotencyKey, Journal, Mark, time_after
from statsapi.model import DAY_US, HOUR_US, MIN_TS_US, MINUTE_US, SECOND_US
from tests.fakes import FakeClock
from tests.journal_engines import ENGINES, Opener, checkpoint_at, event, events_of, segments, values

NOW_US = 1_764_000_000 * SECOND_US


@pytest.fixture(params=("memory", "sqlite", "redis", "postgresql"))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    with ENGINES[request.param](tmp_path) as opener:
        yield opener
        opener.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_US)


@pytest.fixture
def journal(opener: Opener, clock: FakeClock) -> Journal:
    return opener.open(clock)


def append_at(journal: Journal, clock: FakeClock, now_us: int, value: float = 1.0) -> int:
    clock.now_us = now_us
    return journal.append(event(value)).appended_us


@pytest.mark.parametrize(
    ("clock_us", "last_us", "time_us"),
    [
        (NOW_US, NOW_US - 5, NOW_US),
        (NOW_US, NOW_US, NOW_US),
        (NOW_US, NOW_US + 5, NOW_US + 5),
        (NOW_US, NOW_US + CLOCKS_DIFFER_US, NOW_US + CLOCKS_DIFFER_US),
        (NOW_US, NOW_US + CLOCKS_DIFFER_US + 1, NOW_US),
        (NOW_US, NOW_US + 80 * 365 * DAY_US, NOW_US),
        (0, NOW_US, 0),
        (5, 0, 5),
    ],
)
def test_time_after_a_record(clock_us: int, last_us: int, time_us: int) -> None:
    """A record that is ahead by a minute at most still gives the time; one further ahead does not."""
    assert time_after(clock_us, last_us) == time_us


@pytest.mark.parametrize("wrong_us", [NOW_US + 3 * DAY_US, NOW_US + 80 * 365 * DAY_US, NOW_US + MINUTE_US + 100])
def test_a_clock_that_was_ahead_is_left_behind(opener: Opener, clock: FakeClock, wrong_us: int) -> None:
    """What was appended while the clock was ahead keeps its stamp; what comes after has the right time at once."""
    journal = opener.open(clock)
    assert append_at(journal, clock, NOW_US, 1.0) == NOW_US
    assert append_at(journal, clock, wrong_us, 2.0) == wrong_us
    assert append_at(journal, clock, NOW_US + 5, 3.0) == NOW_US + 5
    assert append_at(journal, clock, NOW_US + 4, 4.0) == NOW_US + 5
    assert values(journal) == {"default": [1.0, 2.0, 3.0, 4.0]}
    if opener.survives:
        journal.close()
        assert append_at(opener.open(clock), clock, NOW_US + 6) == NOW_US + 6


@pytest.mark.parametrize("wrong_us", [0, 1, NOW_US - 3 * DAY_US])
def test_a_clock_that_is_behind_is_followed(journal: Journal, clock: FakeClock, wrong_us: int) -> None:
    """A clock that says 1970 stamps 1970, and the right time again as soon as it is put right."""
    assert append_at(journal, clock, NOW_US) == NOW_US
    assert append_at(journal, clock, wrong_us) == wrong_us
    assert append_at(journal, clock, NOW_US + 1) == NOW_US + 1
    (segment,) = segments(journal)
    assert segment.appended_us == NOW_US + 1


def test_a_read_tells_the_time(journal: Journal, clock: FakeClock) -> None:
    """Each segment says what the engine's clock says, also one with nothing new in it and after wrong stamps."""
    assert journal.read(START).now_us == NOW_US
    append_at(journal, clock, NOW_US + 3 * DAY_US)
    clock.now_us = NOW_US + 7
    segment = journal.read(START)
    assert (segment.now_us, segment.appended_us) == (NOW_US + 7, NOW_US + 3 * DAY_US)
    assert journal.read(segment.mark).now_us == NOW_US + 7


def read_until(journal: Journal, until_us: int, wrong_after_us: int | None) -> list[float]:
    found, mark = [], START
    while (segment := journal.read(mark, until_us=until_us, wrong_after_us=wrong_after_us, limit_records=2)).records:
        for change in events_of(segment):
            found += change.values.tolist()
        mark = segment.mark
    return found


def test_a_wrong_stamp_does_not_end_a_read(journal: Journal, clock: FakeClock) -> None:
    """A bounded read stops before the first record later than the bound, but not before one that is known to be stamped
    wrongly.
    """
    stamps_us = [0, 1, 3 * DAY_US, 3 * DAY_US, 3 * DAY_US, 2, 3 * DAY_US, 70 * MINUTE_US]
    for number, offset_us in enumerate(stamps_us):
        append_at(journal, clock, NOW_US + offset_us, float(number))
    assert read_until(journal, NOW_US + HOUR_US, None) == [0.0, 1.0]
    assert read_until(journal, NOW_US + HOUR_US, NOW_US + 2 * HOUR_US) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert read_until(journal, NOW_US + DAY_US, NOW_US + 2 * DAY_US) == [float(n) for n in range(8)]
    assert read_until(journal, NOW_US - 1, NOW_US + DAY_US) == []


def key() -> IdempotencyKey:
    return IdempotencyKey(b"name", b"digest", HOUR_US)


def test_keys_are_forgotten_by_time_that_has_stood(journal: Journal, clock: FakeClock) -> None:
    """A clock that is ahead makes no key unknown, in a look-up, an append, a decision or housekeeping; time that has
    stood does.
    """
    settled_us = MIN_TS_US
    journal.settled_us = lambda: settled_us
    journal.append(event(1.0), key=key())
    clock.now_us += 3 * DAY_US
    for settled_us in (MIN_TS_US, NOW_US, NOW_US + HOUR_US - 1):  # noqa: B007 (journal.settled_us reads it)
        journal.maintain()
        assert journal.find_answer(key()) is not None
        assert journal.append(event(2.0), key=key()).replayed
        assert journal.append(lambda: event(3.0), key=key()).replayed
    settled_us = NOW_US + HOUR_US
    assert journal.find_answer(key()) is None
    journal.maintain()
    settled_us = MIN_TS_US
    assert journal.find_answer(key()) is None  # it is gone
    assert not journal.append(event(4.0), key=key()).replayed
    assert values(journal) == {"default": [1.0, 4.0]}


def test_the_checkpoint_has_its_records_time(journal: Journal, clock: FakeClock) -> None:
    """After everything was compacted time goes on from the last record, wrongly stamped or not."""
    append_at(journal, clock, NOW_US + 3 * DAY_US)
    append_at(journal, clock, NOW_US)
    mark: Mark = journal.read(START).mark
    assert journal.replace_prefix(None, checkpoint_at(mark, NOW_US + 3 * DAY_US))
    journal.maintain()
    assert append_at(journal, clock, NOW_US - 5) == NOW_US
    assert append_at(journal, clock, NOW_US + 5) == NOW_US + 5
