"""What every journal engine keeps, whichever it is. Nothing here knows of files or assumes one process."""

from __future__ import annotations

import contextlib
import itertools
import re
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from statsapi import journal as journals
from statsapi.errors import ConfigError, IdempotencyConflict, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import (
    START,
    Appended,
    Events,
    HistoryChanged,
    IdempotencyKey,
    Journal,
    Mark,
    Proposal,
    columns,
    decode_batch,
    encode_batch,
    engine_of,
    open_journal,
    redis_scripts,
)
from statsapi.journal import format as record_format
from statsapi.journal.columns import ALONE_FROM_BYTES, COLUMNAR_FROM, decode_records
from statsapi.journal.format import NAMES_AT_ONCE, decode_events, encode
from statsapi.journal.redis_primary import Script
from statsapi.model import MAX_TS_US, MIN_TS_US, Change, Deletion, EventBatch, Part, SingleEvents
from tests.fakes import FakeClock
from tests.journal_engines import ENGINES, TICK, Opener, checkpoint_at, each_series, event, mark_of, segments, values

HOUR_US = 3_600_000_000


@pytest.fixture(params=ENGINES)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    with ENGINES[request.param](tmp_path) as opener:
        yield opener
        opener.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000)


@pytest.fixture
def journal(opener: Opener, clock: FakeClock) -> Journal:
    return opener.open(clock)


def together(*jobs: Callable[[], object]) -> list[object]:
    """Run the jobs in a thread each, started at a barrier; gives what each returned or raised."""
    barrier = threading.Barrier(len(jobs))
    results: list[object] = [None] * len(jobs)

    def run(at: int) -> None:
        barrier.wait()
        try:
            results[at] = jobs[at]()
        except Exception as error:  # noqa: BLE001 - the test looks at what was raised
            results[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# Order and time


def test_records_come_back_in_the_order_of_their_appends(journal: Journal) -> None:
    """A reader sees every record once, in the order in which the appends returned."""
    for number in range(100):
        journal.append(event(float(number)))
    assert values(journal) == {"default": [float(number) for number in range(100)]}


def test_an_empty_journal_gives_an_empty_segment(journal: Journal) -> None:
    """Reading where nothing is leaves the reader where it stands."""
    segment = journal.read(START)
    assert (segment.mark, segment.appended_us, list(segment.changes)) == (START, None, [])
    assert (segment.records, segment.more) == (0, False)
    assert journal.read_checkpoint() is None


def test_marks_rise_and_name_records(journal: Journal) -> None:
    """Each append gives a mark of its own, at a higher position; reading from it gives what came after it."""
    marks = [mark_of(journal.append(event(float(number)))) for number in range(5)]
    assert sorted({mark.position for mark in marks}) == [mark.position for mark in marks]
    assert len({mark.record_id for mark in marks}) == 5
    assert all(len(mark.record_id) == 16 for mark in marks)
    for number, mark in enumerate(marks):
        assert values(journal, mark) == (
            {"default": [float(later) for later in range(number + 1, 5)]} if number < 4 else {}
        )
    assert segments(journal)[-1].mark == marks[-1]


def test_time_never_falls(opener: Opener, clock: FakeClock) -> None:
    """A clock that goes backwards gives the previous record's time, also after opening the journal again."""
    journal = opener.open(clock)
    given_us = [journal.append(event()).appended_us]
    for step in (5, -100, 50, 200):
        clock.now_us += step
        given_us.append(journal.append(event()).appended_us)
    assert given_us == [1_000_000, 1_000_005, 1_000_005, 1_000_005, 1_000_155]
    (segment,) = segments(journal)
    (change,) = segment.changes
    assert isinstance(change, Events)
    assert change.appended_us.tolist() == given_us
    assert segment.appended_us == given_us[-1]
    if opener.survives:
        journal.close()
        assert opener.open(FakeClock(7)).append(event()).appended_us == given_us[-1]


def test_time_and_positions_outlive_compaction(opener: Opener, clock: FakeClock) -> None:
    """After everything was compacted and removed, time and positions go on from where they were."""
    journal = opener.open(clock)
    last = [journal.append(event()) for _ in range(10)][-1]
    assert journal.replace_prefix(None, checkpoint_at(mark_of(last), last.appended_us))
    journal.maintain()
    clock.now_us = 3
    if opener.survives:
        journal.close()
        journal = opener.open(clock)
    after = journal.append(event(2.0))
    assert after.appended_us == last.appended_us
    assert mark_of(after).position > mark_of(last).position
    assert values(journal, mark_of(last)) == {"default": [2.0]}


def test_a_tick_only_moves_time(journal: Journal, clock: FakeClock) -> None:
    """A batch without parts is a record without changes."""
    clock.now_us += 10
    tick = journal.append(TICK)
    segment = journal.read(START)
    assert (list(segment.changes), segment.records, segment.appended_us) == ([], 1, 1_000_010)
    assert segment.mark == tick.mark


def test_a_second_opening_is_the_same_journal(opener: Opener) -> None:
    """What was appended through one opening is read, in full, through another."""
    if not opener.survives:
        pytest.skip("each opening is a journal of its own")
    one, other = opener.open(), opener.open()
    mark = mark_of(one.append(event(1.0)))
    assert values(other) == {"default": [1.0]}
    other.append(event(2.0))
    assert values(one, mark) == {"default": [2.0]}
    assert not opener.engine.single_process


# Segments


def test_limits_cut_segments(journal: Journal) -> None:
    """Segments end at the limits, hold at least one record, and say whether there is more."""
    for number in range(10):
        journal.append(event(float(number)))
    cut = segments(journal, limit_records=4)
    assert [(segment.records, segment.more) for segment in cut] == [(4, True), (4, True), (2, False)]
    cut = segments(journal, limit_bytes=1)
    assert [(segment.records, segment.more) for segment in cut] == [(1, True)] * 9 + [(1, False)]
    assert values(journal, limit_bytes=100) == {"default": [float(number) for number in range(10)]}


def test_runs_are_merged_by_series(journal: Journal, clock: FakeClock) -> None:
    """Small records between two deletions come as one run per series, in arrival order, each with its time."""
    for number in range(60):
        clock.now_us += 1
        journal.append(event(float(number), "ab"[number % 2]))
    ts_us = np.array([5, 6], np.int64)
    journal.append(
        Proposal(EventBatch((Part("b", ts_us, np.array([7.0, 8.0])), Part("c", ts_us, 2.0 * ts_us.astype(float)))))
    )
    journal.append(event(9.0, "b"))
    journal.append(Proposal(Deletion("a", -5, 10)))
    journal.append(event(10.0, "a"))
    (segment,) = segments(journal)
    assert [getattr(change, "series", None) for change in segment.changes] == ["a", "b", "c", "a", "a"]
    first, second, third, deletion, last = segment.changes
    assert deletion == Deletion("a", -5, 10)
    assert isinstance(first, Events)
    assert first.values.tolist() == [float(number) for number in range(0, 60, 2)]
    assert first.appended_us.tolist() == [1_000_001 + number for number in range(0, 60, 2)]
    assert isinstance(second, Events)
    assert second.values.tolist() == [*[float(number) for number in range(1, 60, 2)], 7.0, 8.0, 9.0]
    assert second.ts_us.tolist() == [0] * 30 + [5, 6, 0]
    assert isinstance(third, Events)
    assert isinstance(last, Events)
    assert (third.values.tolist(), last.values.tolist()) == ([10.0, 12.0], [10.0])
    assert not first.values.flags.writeable
    assert not last.ts_us.flags.writeable


_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
_stamps = st.integers(MIN_TS_US, MAX_TS_US)
_floats = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def _batches(draw: st.DrawFn) -> EventBatch:
    names = draw(st.lists(_names, max_size=5, unique=True))
    columns = [draw(st.lists(st.tuples(_stamps, _floats), max_size=4)) for _ in names]
    return EventBatch(
        tuple(
            Part(
                name,
                np.array([ts for ts, _ in rows], np.int64),
                np.array([value for _, value in rows], np.float64),
            )
            for name, rows in zip(names, columns, strict=True)
        )
    )


_singles = st.builds(
    EventBatch.single, st.sampled_from(["", "a", "b\0", "b", "längere Reihe"]) | _names, _stamps, _floats
)
_deletions = st.builds(Deletion, _names, _stamps, _stamps)
_drafts = st.lists(_singles | _batches() | _deletions, max_size=12) | st.lists(
    _singles | _batches(), min_size=COLUMNAR_FROM, max_size=COLUMNAR_FROM + 16
)


def _naive(drafts: list[EventBatch | Deletion], stamps: list[int]) -> list[object]:
    """The changes by the definition: per run and series, in the order of arrival."""
    runs: list[object] = [{}]
    for draft, stamp in zip(drafts, stamps, strict=True):
        if isinstance(draft, Deletion):
            runs += [draft, {}]
            continue
        for part in draft.parts:
            for ts_us, value in zip(part.ts_us.tolist(), part.values.tolist(), strict=True):
                assert isinstance(runs[-1], dict)
                runs[-1].setdefault(part.series, []).append((ts_us, value.hex(), stamp))
    return [run for run in runs if run != {}]


def _plain(changes: Iterable[Change]) -> list[object]:
    runs: list[object] = [{}]
    for change in each_series(changes):
        if isinstance(change, Deletion):
            runs += [change, {}]
            continue
        assert isinstance(runs[-1], dict)
        columns = (
            change.ts_us.tolist(),
            [value.hex() for value in change.values.tolist()],
            change.appended_us.tolist(),
        )
        runs[-1].setdefault(change.series, []).extend(zip(*columns, strict=True))
    return [run for run in runs if run != {}]


@settings(
    max_examples=settings.default.max_examples * 3 // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    drafts=_drafts,
    alone_from_bytes=st.sampled_from([ALONE_FROM_BYTES, 64, 0]),
    singles_from=st.integers(1, 4),
    names_at_once=st.sampled_from([NAMES_AT_ONCE, 3, 1]),
)
@example(
    drafts=[EventBatch.single("x", 0, -0.0)] * COLUMNAR_FROM + [EventBatch(())],
    alone_from_bytes=64,
    singles_from=9,
    names_at_once=1,
)
@example(
    drafts=[EventBatch.single("x", 1, 5e-324), Deletion("x")] * COLUMNAR_FROM,
    alone_from_bytes=0,
    singles_from=9,
    names_at_once=1,
)
def test_what_comes_back_is_what_was_appended(
    opener: Opener, drafts: list[EventBatch | Deletion], alone_from_bytes: int, singles_from: int, names_at_once: int
) -> None:
    """Every bit of every value, stamp and name survives, in arrival order within its series, merged or not, however
    many names are made at once.
    """
    journal = opener.open()
    start = journal.append(TICK)
    stamps = [journal.append(Proposal(draft)).appended_us for draft in drafts]
    with (
        mock.patch.multiple(
            columns, ALONE_FROM_BYTES=alone_from_bytes, SINGLES_FROM=singles_from, NAMES_AT_ONCE=names_at_once
        ),
        mock.patch.object(record_format, "NAMES_AT_ONCE", names_at_once),
    ):
        segment = journal.read(mark_of(start))
        assert segment.records == len(drafts)
        assert _plain(segment.changes) == _plain(segment.changes) == _naive(drafts, stamps)
    journal.close()


@pytest.mark.slow
def test_many_parts_in_one_record(journal: Journal) -> None:
    """A record of 100,000 series comes back whole."""
    ts_us = np.arange(100_000, dtype=np.int64)
    parts = tuple(Part(f"s{i}", ts_us[i : i + 1], ts_us[i : i + 1].astype(np.float64)) for i in range(100_000))
    journal.append(Proposal(EventBatch(parts)))
    journal.append(event(1.0, "s7"))
    *some, seventh = journal.read(START).changes
    assert isinstance(seventh, Events)
    assert (seventh.series, seventh.values.tolist()) == ("s7", [7.0, 1.0])
    others = [at for at in range(100_000) if at != 7]
    singles = [each for each in some if isinstance(each, SingleEvents)]
    assert len(singles) == len(some) == -(-len(others) // NAMES_AT_ONCE)
    assert [name for each in singles for name in each.names] == [f"s{at}" for at in others]
    for column in ("ts_us", "values"):
        assert np.concatenate([getattr(each, column) for each in singles]).tolist() == others


def test_a_draft_without_a_place_in_the_format_is_refused(journal: Journal) -> None:
    """Columns of different lengths or types, and names that are too long, are refused before anything is
    recorded.
    """
    ts_us, floats = np.zeros(2, np.int64), np.zeros(2)
    for part in (Part("a", ts_us, floats[:1]), Part("x" * 70_000, ts_us, floats)):
        with pytest.raises(ValueError):  # noqa: PT011
            journal.append(Proposal(EventBatch((part,))))
    with pytest.raises(TypeError):
        journal.append(Proposal(EventBatch((Part("a", floats, floats),))))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        journal.append(Proposal(EventBatch((Part("a", ts_us, floats), Part("b", ts_us, ts_us)))))  # type: ignore[arg-type]
    assert values(journal) == {}


# The format by itself


@given(batch=_batches())
def test_a_batch_round_trips(batch: EventBatch) -> None:
    """decode_batch is the inverse of encode_batch."""
    decoded = decode_batch(encode_batch(batch))
    assert [(part.series, part.ts_us.tolist(), part.values.tobytes()) for part in decoded.parts] == [
        (part.series, part.ts_us.tolist(), part.values.tobytes()) for part in batch.parts
    ]


@pytest.mark.parametrize("among", [1, 3, COLUMNAR_FROM + 8])
def test_a_damaged_record_is_never_skipped(among: int) -> None:
    """A payload that is cut, from a newer version, of an unknown kind or inconsistent stops the reader, by
    position.
    """
    good = encode(EventBatch.single("some series", 3, 4.0))
    batch = encode(
        EventBatch((Part("a", np.zeros(2, np.int64), np.zeros(2)), Part("b", np.zeros(0, np.int64), np.zeros(0))))
    )
    deletion = encode(Deletion("some", 1, 2))
    damaged = [b"", good[:-1], good[:-8], good + bytes(8), batch[:-8], deletion[:-8], deletion + bytes(8)]
    for payload in (good, batch, deletion):
        for at, byte in ((0, 2), (0, 0), (1, 7), (4, 9), (7, 255)):
            damaged.append(payload[:at] + bytes((byte,)) + payload[at + 1 :])
    damaged.append(good[:8] + bytes((99,)) + good[9:])  # the name's length
    damaged.append(good[:10] + bytes((2,)) + good[11:])  # the count
    damaged.append(good[:14] + b"\xff" + good[15:])  # not UTF-8
    damaged.append(good[:31] + b"x" + good[32:])  # in the padding after the name
    for payload in damaged:
        payloads = [good] * (among - 1)
        payloads.insert(among // 2, payload)
        with pytest.raises(JournalRefused, match="record"):
            decode_records(range(1, among + 1), [0] * among, payloads)
    with pytest.raises(JournalRefused, match="use a newer one"):
        decode_records([1], [0], [b"\x09" + good[1:]])
    with pytest.raises(JournalRefused, match="the batch"):
        decode_batch(deletion)


_written_names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=2, max_size=30)


@given(names=_written_names, names_at_once=st.integers(1, 5), data=st.data())
def test_names_are_what_was_written_however_they_are_asked_for(
    names: list[str], names_at_once: int, data: st.DataObject
) -> None:
    """One by one, by slices of any step and as a whole, the names of a record are those of a list."""
    payload = encode(EventBatch(tuple(Part(name, np.arange(1), np.zeros(1)) for name in names)))
    with mock.patch.object(record_format, "NAMES_AT_ONCE", names_at_once):
        found, *_ = decode_events(payload, 0, len(payload), "it")
        assert list(found) == names
        assert len(found) == len(names)
        some = data.draw(st.slices(len(names)))
        assert found[some] == names[some]
        for at in range(-len(names), len(names)):
            assert found[at] == names[at]
        for outside in (len(names), -len(names) - 1):
            with pytest.raises(IndexError):
                found[outside]


@given(names=_written_names, data=st.data())
def test_names_that_are_not_text_are_damage_at_once(names: list[str], data: st.DataObject) -> None:
    """A record whose names are cut within a character, or hold a byte that is no text, is refused before any is used,
    exactly where one of them cannot be decoded.
    """
    blob = bytearray("".join(names).encode())
    if blob and data.draw(st.booleans()):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(blob)), min_size=1, max_size=8))), len(blob)]
    written = [bytes(blob[low:high]) for low, high in itertools.pairwise(cuts)]
    head = struct.pack("<BBHI", 1, 0, 0, len(written)) + b"".join(struct.pack("<H", len(name)) for name in written)
    head += struct.pack("<I", 0) * len(written) + blob
    payload = bytes(head) + bytes(-len(head) % 8)
    try:
        expected = [name.decode() for name in written]
    except UnicodeDecodeError:
        for at_once in (1, NAMES_AT_ONCE):
            with mock.patch.object(record_format, "NAMES_AT_ONCE", at_once), pytest.raises(JournalDamaged):
                decode_events(payload, 0, len(payload), "it")
        return
    with mock.patch.object(record_format, "NAMES_AT_ONCE", 1):
        found, *_ = decode_events(payload, 0, len(payload), "it")
        assert list(found) == expected


# History


def test_a_mark_that_does_not_stand_is_told(journal: Journal) -> None:
    """Another id at the position, or a position that is not there, is a changed history."""
    mark = mark_of(journal.append(event()))
    assert journal.read(mark).records == 0
    for wrong in (
        Mark(mark.position, bytes(16)),
        Mark(mark.position + 1, mark.record_id),
        Mark(mark.position + 9, b""),
    ):
        with pytest.raises(HistoryChanged):
            journal.read(wrong)
    journal.append(event())
    with pytest.raises(HistoryChanged):
        journal.read(Mark(mark.position, bytes(16)))


# Keys


def key_of(name: bytes = b"k", digest: bytes = b"d", ttl_us: int = HOUR_US) -> IdempotencyKey:
    return IdempotencyKey(name, digest, ttl_us)


def test_a_key_counts_once(journal: Journal) -> None:
    """The second append under a key records nothing and gives the first answer."""
    first = journal.append(Proposal(EventBatch.single("a", 1, 2.0), b"one"), key=key_of())
    again = journal.append(Proposal(EventBatch.single("a", 1, 2.0), b"two"), key=key_of())
    assert (first.answer, first.replayed) == (b"one", False)
    assert (again.answer, again.replayed, again.mark) == (b"one", True, None)
    assert values(journal) == {"a": [2.0]}
    assert journal.find_answer(key_of()) == b"one"
    assert journal.find_answer(key_of(b"other")) is None


def test_an_empty_answer_is_an_answer(journal: Journal) -> None:
    """A key that was kept with an empty answer is known."""
    journal.append(event(), key=key_of())
    assert journal.append(event(), key=key_of()).replayed
    assert journal.find_answer(key_of()) == b""


def test_a_key_with_another_request_is_a_conflict(journal: Journal) -> None:
    """The same key with another digest is refused, in the append and when it is looked up."""
    journal.append(event(), key=key_of())
    with pytest.raises(IdempotencyConflict):
        journal.append(event(), key=key_of(digest=b"other"))
    with pytest.raises(IdempotencyConflict):
        journal.find_answer(key_of(digest=b"other"))
    assert values(journal) == {"default": [1.0]}


def test_a_key_expires(journal: Journal, clock: FakeClock) -> None:
    """A key is known until its lifetime is over, and new from then on."""
    journal.append(event(1.0), key=key_of(ttl_us=10))
    clock.now_us += 9
    assert journal.append(event(2.0), key=key_of(ttl_us=10)).replayed
    clock.now_us += 1
    assert journal.find_answer(key_of(digest=b"other")) is None
    assert not journal.append(event(3.0), key=key_of(digest=b"other", ttl_us=10)).replayed
    journal.maintain()
    assert journal.append(event(4.0), key=key_of(digest=b"other", ttl_us=10)).replayed
    clock.now_us += 100
    journal.maintain()
    assert not journal.append(event(5.0), key=key_of(ttl_us=10)).replayed
    assert values(journal) == {"default": [1.0, 3.0, 5.0]}


def test_an_answer_without_a_record_is_kept(journal: Journal) -> None:
    """A proposal without a draft records nothing, and its answer is still given again."""
    nothing = journal.append(Proposal(None, b"nothing"), key=key_of())
    assert (nothing.mark, nothing.answer, nothing.replayed) == (None, b"nothing", False)
    assert journal.append(event(), key=key_of()).answer == b"nothing"
    assert journal.read(START).records == 0
    assert journal.append(Proposal(None, b"x")).answer == b"x"


def test_keys_outlive_compaction_and_the_process(opener: Opener) -> None:
    """A retry after compaction and after opening the journal again is still a replay."""
    journal = opener.open()
    done = journal.append(Proposal(EventBatch.single("a", 1, 2.0), b"one"), key=key_of())
    journal.replace_prefix(None, checkpoint_at(mark_of(done), done.appended_us))
    journal.maintain()
    if opener.survives:
        journal.close()
        journal = opener.open()
    assert journal.append(event(), key=key_of()).answer == b"one"


def test_a_race_on_one_key_has_one_winner(journal: Journal) -> None:
    """Of many appends at once under one key exactly one is recorded, and all get its answer."""
    for attempt in range(10):
        key = key_of(name=str(attempt).encode())
        results = together(
            *(
                lambda at=at, key=key: journal.append(
                    Proposal(EventBatch.single("a", at, at), str(at).encode()), key=key
                )
                for at in range(8)
            )
        )
        appended = [result for result in results if isinstance(result, Appended)]
        assert len(appended) == 8, results
        winners = [at for at, result in enumerate(appended) if not result.replayed]
        assert len(winners) == 1
        assert {result.answer for result in appended} == {str(winners[0]).encode()}
    assert len(values(journal)["a"]) == 10


def test_neighbours_of_a_conflict_are_recorded(journal: Journal) -> None:
    """Replays, conflicts and failing decisions do not fail the appends that are committed with them."""

    def fail() -> Proposal:
        raise ZeroDivisionError

    journal.append(Proposal(None, b"first"), key=key_of())
    for attempt in range(10):
        results = together(
            lambda: journal.append(event(1.0)),
            lambda: journal.append(event(9.0), key=key_of(digest=b"other")),
            lambda: journal.append(event(9.0), key=key_of()),
            lambda: journal.append(fail),
            lambda: journal.append(lambda: event(1.0)),
            lambda: journal.append(fail, key=key_of(b"failing")),
            lambda: journal.append(event(1.0)),
        )
        kinds = [type(result) for result in results]
        assert kinds == [
            Appended, IdempotencyConflict, Appended, ZeroDivisionError, Appended, ZeroDivisionError, Appended,
        ]  # fmt: skip
        assert len(values(journal)["default"]) == 3 * (attempt + 1)
    assert set(values(journal)["default"]) == {1.0}
    assert journal.find_answer(key_of(b"failing")) is None


# Decisions


def test_a_decision_sees_everything_before_it(journal: Journal) -> None:
    """Inside a decision the journal can be read, up to the record right before its own."""
    journal.append(event(1.0))
    journal.append(Proposal(None, b"kept"), key=key_of())
    seen: list[object] = []

    def decide() -> Proposal:
        seen[:] = [values(journal), journal.find_answer(key_of())]
        return Proposal(EventBatch.single("default", 0, 2.0), b"decided")

    assert journal.append(decide).answer == b"decided"
    assert seen == [{"default": [1.0]}, b"kept"]
    assert values(journal) == {"default": [1.0, 2.0]}


def test_no_decision_is_lost(opener: Opener) -> None:
    """Many threads that each append one more than what they read count up without a gap, beside plain
    appends.
    """
    journals = [opener.open() for _ in range(2)] if opener.survives else [opener.open()]

    def count_up(journal: Journal) -> None:
        for _ in range(15):
            journal.append(lambda: event(1.0 + len(values(journal).get("counter", [])), "counter"))
            journal.append(event(0.0, "other"))

    results = together(*(lambda at=at: count_up(journals[at % len(journals)]) for at in range(6)))
    assert results == [None] * 6
    found = values(journals[0])
    assert found["counter"] == [1.0 + number for number in range(90)]
    assert found["other"] == [0.0] * 90


def test_a_known_key_spares_the_decision(journal: Journal) -> None:
    """A replay does not run the decision again."""
    runs: list[int] = []

    def decide() -> Proposal:
        runs.append(1)
        return Proposal(EventBatch.single("a", 1, 1.0), b"answer")

    assert journal.append(decide, key=key_of()).answer == b"answer"
    assert journal.append(decide, key=key_of()).replayed
    assert len(runs) == 1


# Threads


@pytest.mark.slow
def test_threads_append_and_read_at_once(journal: Journal) -> None:
    """Readers that follow while several threads append see every record once, each thread's in its order."""
    writers, each = 4, 100
    done = threading.Event()

    def write(writer: int) -> None:
        for number in range(each):
            journal.append(event(float(number), f"w{writer}"))

    def follow() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        mark = START
        while True:
            last = done.is_set()
            for segment in segments(journal, mark):
                mark = segment.mark
                for change in segment.changes:
                    assert isinstance(change, Events)
                    found.setdefault(change.series, []).extend(change.values.tolist())
            if last:
                return found

    def write_all() -> None:
        try:
            results = together(*(lambda at=at: write(at) for at in range(writers)))
        finally:
            done.set()
        assert results == [None] * writers

    results = together(write_all, follow, follow)
    expected = {f"w{writer}": [float(number) for number in range(each)] for writer in range(writers)}
    assert results == [None, expected, expected]


def test_an_acknowledged_append_is_read_at_once(journal: Journal) -> None:
    """A read that starts after an append returned gives it, whoever else appends."""

    def check(writer: int) -> None:
        mark = START
        for number in range(50):
            done = journal.append(event(float(number), f"w{writer}"))
            found = segments(journal, mark)
            assert found
            mark = found[-1].mark
            assert mark.position >= mark_of(done).position

    assert together(*(lambda at=at: check(at) for at in range(4))) == [None] * 4


# Checkpoints


def test_a_checkpoint_replaces_the_prefix(journal: Journal, clock: FakeClock) -> None:
    """A view that starts reads the checkpoint and goes on after it; one at its mark goes on; one behind
    starts afresh.
    """
    appended = []
    for number in range(10):
        clock.now_us += 1
        appended.append(journal.append(event(float(number))))
    marks = [mark_of(one) for one in appended]
    checkpoint = checkpoint_at(marks[5], appended[5].appended_us, b"state" * 1000)
    assert journal.replace_prefix(None, checkpoint)
    for _ in range(2):  # before the dead records are gone, and after
        assert journal.read_checkpoint() == checkpoint
        assert values(journal, marks[5]) == {"default": [6.0, 7.0, 8.0, 9.0]}
        assert values(journal, marks[7]) == {"default": [8.0, 9.0]}
        for behind in (START, marks[0], marks[4]):
            with pytest.raises(HistoryChanged):
                journal.read(behind)
        with pytest.raises(HistoryChanged):
            journal.read(Mark(marks[5].position, bytes(16)))
        journal.maintain()


def test_a_stale_checkpoint_loses(journal: Journal) -> None:
    """A checkpoint that started from another one than the current changes nothing."""
    marks = [mark_of(journal.append(event())) for _ in range(4)]
    first = checkpoint_at(marks[1])
    assert not journal.replace_prefix(b"never was", first)
    assert journal.replace_prefix(None, first)
    assert not journal.replace_prefix(None, checkpoint_at(marks[2]))
    assert journal.read_checkpoint() is not None
    second = checkpoint_at(marks[2])
    assert journal.replace_prefix(first.id, second)
    assert not journal.replace_prefix(first.id, checkpoint_at(marks[3]))
    found = journal.read_checkpoint()
    assert found is not None
    assert found.id == second.id
    assert journal.replace_prefix(second.id, checkpoint_at(marks[2]))  # the same prefix, another state


def test_a_checkpoint_at_a_mark_that_does_not_stand_is_refused(journal: Journal) -> None:
    """A checkpoint cannot stand on a record that is not there, nor move back."""
    marks = [mark_of(journal.append(event())) for _ in range(3)]
    with pytest.raises(HistoryChanged):
        journal.replace_prefix(None, checkpoint_at(Mark(marks[1].position, bytes(16))))
    current = checkpoint_at(marks[1])
    assert journal.replace_prefix(None, current)
    with pytest.raises(HistoryChanged):
        journal.replace_prefix(current.id, checkpoint_at(marks[0]))


def test_pieces_change_with_their_checkpoint(journal: Journal) -> None:
    """The next checkpoint keeps, replaces, takes away and adds pieces; one that loses changes none."""
    marks = [mark_of(journal.append(event())) for _ in range(4)]
    first = checkpoint_at(marks[0])
    assert journal.replace_prefix(None, first, {-5: b"minus", 1: b"one", 3: b"three", 70: b"x" * 100_000, 2**40: b""})
    assert journal.read_pieces(first.id, -10, 2**41) == [
        (-5, b"minus"),
        (1, b"one"),
        (3, b"three"),
        (70, b"x" * 100_000),
        (2**40, b""),
    ]
    assert journal.read_pieces(first.id, 1, 3) == [(1, b"one")]
    assert not journal.replace_prefix(b"never was", checkpoint_at(marks[1]), {1: b"lost"}, drop_pieces_before=9)
    with pytest.raises(HistoryChanged):
        journal.replace_prefix(first.id, checkpoint_at(Mark(marks[1].position, bytes(16))), {1: b"lost"})
    assert journal.read_pieces(first.id, 0, 4) == [(1, b"one"), (3, b"three")]
    second = checkpoint_at(marks[1])
    assert journal.replace_prefix(first.id, second, {3: None, 4: b"four", 70: b"y", 2: None}, drop_pieces_before=1)
    assert journal.read_pieces(second.id, -10, 100) == [(1, b"one"), (4, b"four"), (70, b"y")]
    third = checkpoint_at(marks[1])
    assert journal.replace_prefix(second.id, third, {4: b"four again", 0: b"late"}, drop_pieces_before=4)
    assert journal.read_pieces(third.id, -10, 100) == [(4, b"four again"), (70, b"y")]
    for gone in (first.id, second.id, b"never was"):
        with pytest.raises(HistoryChanged):
            journal.read_pieces(gone, 0, 100)


def test_pieces_are_those_of_one_checkpoint(opener: Opener) -> None:
    """Who reads pieces while others make checkpoints gets those of the one it names, or is told that it is gone."""
    shared = opener.open()
    mark = mark_of(shared.append(event()))
    assert shared.replace_prefix(None, checkpoint_at(mark), dict.fromkeys(range(20), b"0"))
    done = threading.Event()

    def write() -> None:
        journal = opener.open() if opener.survives else shared
        try:
            for number in range(1, 60):
                current = journal.read_checkpoint()
                assert current is not None
                pieces = dict.fromkeys(range(20), b"%d" % number)
                assert journal.replace_prefix(current.id, checkpoint_at(mark, state=b"%d" % number), pieces)
        finally:
            done.set()

    def read() -> None:
        journal = opener.open() if opener.survives else shared
        while not done.is_set():
            current = journal.read_checkpoint()
            assert current is not None
            with contextlib.suppress(HistoryChanged):
                found = journal.read_pieces(current.id, 0, 20)
                assert found == [(key, current.state or b"0") for key in range(20)]

    assert together(write, read, read) == [None] * 3


def test_of_checkpoints_at_once_one_wins(journal: Journal) -> None:
    """When several compact from the same checkpoint, exactly one commits."""
    previous = None
    for _ in range(10):
        mark = mark_of(journal.append(event()))
        offers = [checkpoint_at(mark) for _ in range(4)]
        results = together(
            *(lambda offer=offer, previous=previous: journal.replace_prefix(previous, offer) for offer in offers)
        )
        assert sorted(results, key=bool) == [False, False, False, True]
        current = journal.read_checkpoint()
        assert current is not None
        previous = current.id
        assert previous == offers[results.index(True)].id


@pytest.mark.slow
def test_views_agree_while_others_compact(opener: Opener) -> None:
    """While one thread appends and one compacts and maintains, a view that starts afresh when told never
    miscounts.
    """
    journal = opener.open()
    total = 300
    done = threading.Event()

    def write() -> None:
        try:
            for _ in range(total):
                journal.append(event(1.0))
        finally:
            done.set()

    def compact() -> None:
        while not done.is_set():
            checkpoint = journal.read_checkpoint()
            held = int(checkpoint.state) if checkpoint else 0
            segment = journal.read(checkpoint.mark if checkpoint else START, limit_records=20)
            if segment.records:
                state = str(held + segment.records).encode()
                assert journal.replace_prefix(
                    checkpoint.id if checkpoint else None,
                    checkpoint_at(segment.mark, segment.appended_us or 0, state),
                )
            journal.maintain()

    def view() -> tuple[int, int]:
        starts, count, mark, last = 0, 0, None, False
        while not last:
            last = done.is_set()
            try:
                if mark is None:
                    starts += 1
                    checkpoint = journal.read_checkpoint()
                    count = int(checkpoint.state) if checkpoint else 0
                    mark = checkpoint.mark if checkpoint else START
                for segment in segments(journal, mark, limit_records=7):
                    mark = segment.mark
                    count += segment.records
            except HistoryChanged:
                mark, last = None, False
        return count, starts

    wrote, compacted, first, second = together(write, compact, view, view)
    assert (wrote, compacted) == (None, None)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert (first[0], second[0]) == (total, total)


# The end


def test_a_closed_journal_says_so(journal: Journal) -> None:
    """Closing twice is fine; any use afterwards is JournalUnavailable, and nothing was recorded."""
    mark = mark_of(journal.append(event()))
    journal.close()
    journal.close()
    calls: list[Callable[[], object]] = [
        lambda: journal.append(event()),
        lambda: journal.append(lambda: event()),
        lambda: journal.read(mark),
        lambda: journal.find_answer(key_of()),
        journal.read_checkpoint,
        lambda: journal.read_pieces(b"", 0, 1),
        lambda: journal.replace_prefix(None, checkpoint_at(mark)),
        journal.maintain,
        journal.check_writable,
        journal.size_bytes,
        journal.info,
    ]
    for call in calls:
        with pytest.raises(JournalUnavailable) as caught:
            call()
        assert not caught.value.outcome_unknown


def test_whether_it_can_be_written_is_told_without_a_record(journal: Journal) -> None:
    """The check leaves neither a record nor a lock behind."""
    first = mark_of(journal.append(event(1.0)))
    for _ in range(3):
        journal.check_writable()
    assert mark_of(journal.append(event(2.0))).position == first.position + 1
    assert values(journal) == {"default": [1.0, 2.0]}


def test_a_check_waits_for_the_write_lock_no_longer_than_it_is_told(journal: Journal) -> None:
    """While a decision holds the write lock the check fails in time; afterwards it succeeds."""
    begun, done = threading.Event(), threading.Event()

    def decide() -> Proposal:
        begun.set()
        assert done.wait(30)
        return TICK

    thread = threading.Thread(target=lambda: journal.append(decide))
    thread.start()
    try:
        assert begun.wait(30)
        with pytest.raises(JournalUnavailable, match="another writer"):
            journal.check_writable(0.01)
    finally:
        done.set()
        thread.join()
    journal.check_writable()


def test_size_and_promise(journal: Journal) -> None:
    """The journal tells what it occupies and what it promises."""
    before = journal.size_bytes()
    journal.append(Proposal(EventBatch((Part("a", np.arange(50_000), np.zeros(50_000)),))))
    assert journal.size_bytes() > before + 500_000
    assert journal.promise


def test_info(journal: Journal, clock: FakeClock) -> None:
    """The journal tells its records, positions, times and checkpoint, also when it is empty or all compacted."""
    empty = journal.info()
    assert (empty.records, empty.last_position, empty.appended_us, empty.checkpoint_position) == (0, None, None, None)
    first = mark_of(journal.append(event()))
    clock.now_us += 5
    last = mark_of(journal.append(event()))
    info = journal.info()
    assert (info.records, info.first_position, info.last_position) == (2, first.position, last.position)
    assert info.appended_us == clock.now_us
    assert info.size_bytes == journal.size_bytes()
    journal.replace_prefix(None, checkpoint_at(first, clock.now_us - 5))
    info = journal.info()
    assert (info.records, info.first_position, info.checkpoint_position) == (1, last.position, first.position)
    assert info.checkpoint_us == clock.now_us - 5
    journal.replace_prefix(journal.read_checkpoint().id, checkpoint_at(last, clock.now_us))
    info = journal.info()
    assert (info.records, info.first_position, info.last_position) == (0, None, None)
    assert (info.appended_us, info.checkpoint_position) == (clock.now_us, last.position)
    assert info.location


def test_a_backup_is_a_journal_of_one_moment(opener: Opener, journal: Journal, tmp_path: Path) -> None:
    """It holds checkpoint, records and keys of that moment and goes its own way; or the engine says why not."""
    path = tmp_path / "copies" / "backup.db"
    path.parent.mkdir()
    covered = journal.append(event(1.0))
    key = IdempotencyKey(b"name", b"digest", HOUR_US)
    kept = journal.append(event(2.0)._replace(answer=b"first"), key=key)
    journal.replace_prefix(None, checkpoint_at(mark_of(covered), covered.appended_us, b"state"))
    if not opener.backs_up:
        with pytest.raises(JournalRefused, match="nothing to back up"):
            journal.backup(str(path))
        assert not path.exists()
        return
    journal.backup(str(path))
    journal.append(event(3.0))
    copy = opener.open_copy(path)
    assert copy.read_checkpoint() == journal.read_checkpoint()
    assert values(copy, mark_of(covered)) == {"default": [2.0]}
    assert copy.find_answer(key) is None  # by the real clock its hour is over
    copy.append(event(4.0))
    assert values(copy, mark_of(kept)) == {"default": [4.0]}
    assert values(journal, mark_of(kept)) == {"default": [3.0]}
    with pytest.raises(JournalRefused, match="there already"):
        journal.backup(str(path))
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".partial"] == []


def test_a_journal_that_is_not_there_is_not_made_on_request(opener: Opener, tmp_path: Path) -> None:
    """`create=False` refuses a file that is missing or empty, and leaves things as they are. A journal that ends with
    its process is nowhere else.
    """
    if not opener.survives:
        with pytest.raises(JournalRefused):
            open_journal(opener.url, create=False)
    if not opener.backs_up:
        pytest.skip("the journal is no file")
    missing, empty = tmp_path / "no" / "events.db", tmp_path / "empty.db"
    empty.touch()
    for path, said in ((missing, "no journal at"), (empty, "is empty")):
        with pytest.raises(JournalRefused, match=said):
            opener.open_copy(path)
    assert not missing.parent.exists()
    assert empty.stat().st_size == 0


SERVER = {"is_kept", "is_remote", "has_replicas"}


def test_a_url_nobody_knows_is_a_config_error() -> None:
    """An unknown engine, a malformed URL and an unknown fsync mode are refused, naming what is known."""
    for url in ("kafka://x", "", "sqlite", "x.db", "sqlite:x.db"):
        with pytest.raises(ConfigError, match="sqlite://"):
            open_journal(url)
    with pytest.raises(ConfigError) as caught:
        open_journal("nosuch://user:secret@host")
    assert "secret" not in str(caught.value)
    for url in ("sqlite://x.db", "sqlite:///", "sqlite:////tmp/", "memory://x"):
        with pytest.raises(ConfigError):
            open_journal(url)
    with pytest.raises(ConfigError, match="always"):
        open_journal("memory://", fsync="never")


@pytest.mark.parametrize(
    ("url", "kind", "can", "limits"),
    [
        ("memory://", "memory", {"single_process"}, ("memory://", {})),
        ("sqlite:///a/b.db", "sqlite", {"is_kept", "is_file"}, ("sqlite+limits:///a/b.db.limits", {})),
        ("sqlite:////b.db", "sqlite", {"is_kept", "is_file"}, ("sqlite+limits:////b.db.limits", {})),
        ("redis://u:p@h:1/2", "redis", SERVER, ("redis://u:p@h:1/2?", {"key_prefix": "{statsapi}:limits"})),
        (
            "rediss://h/0?stream=s&ssl_ca_certs=%2Fca",
            "redis",
            SERVER,
            ("rediss://h/0?ssl_ca_certs=%2Fca", {"key_prefix": "{s}:limits"}),
        ),
        ("redis+sentinel://h/mymaster", "redis", SERVER, None),
        ("rediss+cluster://h?stream=s", "redis", SERVER, None),
    ],
)
def test_an_engine_answers_before_a_journal_is_open(url: str, kind: str, can: set[str], limits: object) -> None:
    """What the service, its hosts and its limits ask of a journal that is named and not open; nothing is made."""
    engine = engine_of(url)
    abilities = ("single_process", "is_kept", "is_file", "is_remote", "has_replicas")
    assert (engine.kind, {name for name in abilities if getattr(engine, name)}) == (kind, can)
    assert journals.ENGINES[engine.kind] == journals.ENGINES[url.partition("://")[0]]  # messages call the journal by it
    place = engine.shares_limits()
    assert (place if place is None else (place.uri, place.options)) == limits
    assert place is None or not place.per_worker


def test_a_url_without_an_engine_is_refused_without_repeating_it() -> None:
    """The known schemes are named; a password in the URL is not."""
    for url in ("mysql://user:secret@host/db", "sqlite", "", "://", "host=h password=secret", "user=u secret://"):
        known = ", ".join(f"{scheme}://" for scheme in journals.ENGINES)
        with pytest.raises(ConfigError, match=f"no journal engine for .*{re.escape(known)}") as refused:
            engine_of(url)
        assert "secret" not in str(refused.value)


def test_every_lua_file_is_loaded() -> None:
    """Each script is one that the journal runs, with all pieces that it names; a piece that none needs is not kept."""
    folder = Path(redis_scripts.__file__).with_name("lua")
    scripts = {path.stem: path.read_text() for path in folder.glob("*.lua")}
    assert {name.upper() for name in scripts} == {
        name for name, script in vars(redis_scripts).items() if isinstance(script, Script)
    } - {"APPEND_ALWAYS"}
    needed = {
        piece for text in scripts.values() for line in re.findall("-- needs (.+)", text) for piece in line.split(", ")
    }
    assert needed == {path.stem for path in folder.glob("shared/*.lua")}
