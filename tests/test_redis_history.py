"""A Redis journal whose history was lost, or a part of it: flushed, put back to an older copy, trimmed by hand."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from statsapi.errors import JournalDamaged
from statsapi.journal import START, Checkpoint, HistoryChanged, Journal, Lost, Mark, open_journal
from tests.conftest import redis_binary
from tests.journal_engines import event, segments, shared_redis, values
from tests.servers import RedisServer

Open = Callable[[], Journal]


@pytest.fixture
def server() -> RedisServer:
    return shared_redis(redis_binary())


@pytest.fixture
def stream() -> str:
    return secrets.token_hex(4)


@pytest.fixture
def opened(server: RedisServer, stream: str) -> Iterator[Open]:
    """Opens the journal once more: another process."""
    journals: list[Journal] = []

    def open_another() -> Journal:
        journals.append(open_journal(server.journal_url(stream)))
        return journals[-1]

    yield open_another
    for journal in journals:
        journal.close()


def fill(journal: Journal, records: int) -> list[Mark]:
    return [journal.append(event(float(number))).mark for number in range(records)]  # type: ignore[misc]


def keys(stream: str) -> list[str]:
    return [f"{{{stream}}}", f"{{{stream}}}:meta"]


def flush(server: RedisServer, stream: str) -> None:
    server.send("DEL", *keys(stream))


def keep_copy(server: RedisServer, stream: str) -> None:
    for key in keys(stream):
        server.send("COPY", key, f"{key}:older", "REPLACE")


def put_back(server: RedisServer, stream: str) -> None:
    for key in keys(stream):
        server.send("COPY", f"{key}:older", key, "REPLACE")


def told(journal: Journal, mark: Mark) -> Lost | None:
    """What a reader at that mark is told when it finds its history changed."""
    with pytest.raises(HistoryChanged) as caught:
        journal.read(mark)
    return caught.value.lost


def test_a_flush_is_told_to_every_view(server: RedisServer, stream: str, opened: Open) -> None:
    """To the one that recorded, one that read, one that was idle, and one that was opened after it; each once."""
    one, other, idle = opened(), opened(), opened()
    marks = fill(one, 5)
    assert other.read(START).records == 5
    assert idle.read(START, limit_records=3).records == 3
    flush(server, stream)
    after = opened()
    assert after.lost is None  # nobody knows yet
    assert after.read(START).records == 0
    lost = told(other, marks[4])
    assert lost is not None
    assert lost.records == 5
    assert "no longer has them" in lost.how
    for journal, mark in ((one, marks[4]), (idle, marks[2]), (after, START)):
        assert told(journal, mark) == lost
    assert opened().lost == lost  # it goes on being told to those who come
    for journal in (one, other, idle, after):
        assert journal.read(START).records == 0
    assert one.append(event(9.0)).mark.position == 6  # type: ignore[union-attr]  # no position is given twice
    for journal in (one, other, idle, after):
        assert values(journal) == {"default": [9.0]}


def test_a_flush_that_an_append_comes_upon(server: RedisServer, stream: str, opened: Open) -> None:
    """What is recorded before anybody noticed stands, and the loss before it is told all the same."""
    one, idle = opened(), opened()
    marks = fill(one, 5)
    idle.read(START)
    flush(server, stream)
    mark = one.append(event(7.0)).mark
    assert mark is not None
    for journal, stood in ((one, mark), (idle, marks[4])):
        lost = told(journal, stood)
        assert lost is not None
        assert lost.records == 5
    assert values(one) == values(idle) == {"default": [7.0]}
    assert one.append(event(8.0)).mark.position == 6  # type: ignore[union-attr]
    assert values(one) == {"default": [7.0, 8.0]}


@pytest.mark.parametrize("since", [0, 1, 3, 8])
def test_an_older_copy_is_told_with_how_many_records(
    server: RedisServer, stream: str, opened: Open, since: int
) -> None:
    """However many were recorded on top of it by others before anybody who knew noticed, also more than were lost."""
    one, idle = opened(), opened()
    older = fill(one, 4)
    keep_copy(server, stream)
    (segment,) = segments(one)
    lost_marks = fill(one, 3)
    idle.read(START)
    put_back(server, stream)
    fill(opened(), since)
    lost = told(idle, lost_marks[-1])
    assert lost is not None
    assert (lost.records, lost.since_us) == (3, segment.appended_us)
    assert told(one, older[-1]) == lost  # its mark stands, but what it recorded after it does not
    assert values(one) == values(idle) == {"default": [0.0, 1.0, 2.0, 3.0, *map(float, range(since))]}
    assert idle.append(event(9.0)).mark.position > 7  # type: ignore[union-attr]


def test_a_loss_is_counted_once(server: RedisServer, stream: str, opened: Open) -> None:
    """By views that knew of different numbers of records, whichever notices first."""
    for first, counts in ((0, [3, 5]), (1, [5, 5])):
        flush(server, stream)
        server.send("DEL", f"{{{stream}}}:meta")
        views = [opened(), opened()]
        fill(opened(), 2)
        keep_copy(server, stream)
        for view, more in zip(views, (3, 2), strict=True):
            fill(opened(), more)
            view.read(START)
        put_back(server, stream)
        marks = [Mark(1, b""), Mark(1, b"")]
        found = [told(views[at], marks[at]) for at in (first, 1 - first)]
        assert [lost.records for lost in found if lost is not None] == counts


def test_a_second_loss_is_another_one(server: RedisServer, stream: str, opened: Open) -> None:
    """Flushed, recorded again, and flushed again."""
    journal = opened()
    for records in (4, 2):
        mark = fill(journal, records)[-1]
        assert len(segments(journal)) == 1
        flush(server, stream)
        lost = told(journal, mark)
        assert lost is not None
        assert lost.records == records
        assert values(journal) == {}


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (("XTRIM", "{}", "MINID", "4-0"), 3),
        (("XDEL", "{}", "3-0", "6-0"), 2),
        (("XDEL", "{}", "8-0"), 1),
        (("DEL", "{}"), 8),
    ],
)
def test_what_somebody_took_out_is_told_with_how_many(
    server: RedisServer, stream: str, opened: Open, words: tuple[str, ...], lost: int
) -> None:
    """In front, in the middle, at the end, all of it; to those who were past it as well."""
    one, other = opened(), opened()
    marks = fill(one, 8)
    server.send(*(word.replace("{}", f"{{{stream}}}") for word in words))
    for journal, mark in ((one, marks[-1]), (other, marks[0])):
        found = told(journal, mark)
        assert found is not None
        assert found.records == lost
    last = segments(one)[-1].mark if lost < 8 else START
    assert one.read(last).records == other.read(last).records == 0
    assert opened().lost is not None


def test_compaction_is_no_loss(opened: Open) -> None:
    """A view that was passed by a checkpoint starts afresh, and nothing is told."""
    one, other = opened(), opened()
    marks = fill(one, 5)
    other.read(START)
    assert one.replace_prefix(None, Checkpoint(b"c", marks[3], 0, b"state"))
    one.maintain()
    for journal in (one, other):
        assert told(journal, marks[1]) is None
        assert values(journal, marks[3]) == {"default": [4.0]}
    assert opened().lost is None


def test_a_loss_under_a_checkpoint(server: RedisServer, stream: str, opened: Open) -> None:
    """Put back to before the checkpoint, or flushed with it: what counts is what stood behind it, and nothing that it
    left behind gets into the next one.
    """
    journal = opened()
    fill(journal, 2)
    keep_copy(server, stream)
    marks = fill(journal, 4)
    assert journal.replace_prefix(None, Checkpoint(b"c", marks[1], 0, b"state"), {1: b"one"})
    assert journal.read(marks[1]).records == 2
    put_back(server, stream)
    lost = told(journal, marks[3])
    assert lost is not None
    assert lost.records == 4
    assert journal.read_checkpoint() is None
    assert values(journal) == {"default": [0.0, 1.0]}
    mark = journal.append(event(9.0)).mark
    assert mark is not None
    assert journal.replace_prefix(None, Checkpoint(b"d", mark, 0, b"state"), {2: b"two"})
    assert journal.read_pieces(b"d", 0, 9) == [(2, b"two")]
    journal.read(mark)
    flush(server, stream)
    lost = told(journal, mark)
    assert lost is not None
    assert lost.records == 0  # none stood behind the checkpoint, but that is gone
    assert values(journal) == {}


def test_a_meta_hash_that_is_gone_is_refused(server: RedisServer, stream: str, opened: Open) -> None:
    """In whole or in part: the records are there, and what they add up to is not known; no answer is made of them."""
    journal = opened()
    mark = fill(journal, 3)[-1]
    journal.read(START)
    for words in (("HDEL", "id"), ("HDEL", "position"), ("DEL",)):
        server.send(words[0], keys(stream)[1], *words[1:])
        for call in (lambda: journal.read(mark), lambda: journal.append(event()), lambda: opened().read(START)):
            with pytest.raises(JournalDamaged, match="without its meta hash"):
                call()


def test_a_server_that_forgets_when_it_restarts(tmp_path: Path) -> None:
    """A real one, killed: without a log it comes back empty, or as of its last snapshot; with one nothing is lost."""
    server = RedisServer(redis_binary(), tmp_path, appendonly="no", appendfsync="always").start()
    try:
        for saved, kept in ((False, 0), (True, 3)):
            server.send("FLUSHALL")
            journal, view = open_journal(server.journal_url("s")), open_journal(server.journal_url("s"))
            fill(journal, 3)
            if saved:
                server.send("SAVE")
            mark = fill(journal, 2)[-1]
            view.read(START)
            server.kill()
            server.start()
            lost = told(view, mark)
            assert lost is not None
            assert lost.records == 5 - kept
            assert values(view) == ({"default": [0.0, 1.0, 2.0]} if kept else {})
            journal.close()
            view.close()
    finally:
        server.kill()


def test_a_restart_that_keeps_all_tells_nothing(tmp_path: Path) -> None:
    """With a log that is synced the mark stands."""
    server = RedisServer(redis_binary(), tmp_path, appendfsync="always").start()
    try:
        journal = open_journal(server.journal_url("s"))
        mark = fill(journal, 3)[-1]
        server.kill()
        server.start()
        reader: Any = open_journal(server.journal_url("s"))
        assert reader.read(mark).records == 0
        assert reader.lost is None
        reader.close()
        journal.close()
    finally:
        server.kill()
