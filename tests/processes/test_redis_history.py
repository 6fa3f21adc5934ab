"""A Redis journal whose history was lost, or a part of it: flushed, put back to an older copy, trimmed by hand."""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import JournalDamaged
from statsapi.journal import START, Checkpoint, HistoryChanged, Journal, Lost, Mark, open_journal, wall_clock_us
from statsapi.journal.group_commit import Request
from statsapi.journal.redis_heads import Rows, State
from statsapi.journal.redis_history import History, Known
from statsapi.journal.redis_scripts import ID_BYTES
from statsapi.journal.redis_server import Server
from statsapi.journal.redis_streams import RedisJournal
from statsapi.journal.redis_url import Address
from statsapi.journal.server_clock import ServerClock
from statsapi.model import HOUR_US, EventBatch, Retention
from statsapi.service.service import Service
from statsapi.service.view import View
from statsapi.times import format_timestamp
from tests.journal_engines import event, segments, shared_redis, values
from tests.programs import redis_binary
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
    return [journal.append(event(float(number))).mark for number in range(records)]


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
    assert one.append(event(9.0)).mark.position == 6  # no position is given twice
    for journal in (one, other, idle, after):
        assert values(journal) == {"default": [9.0]}


def test_a_flush_that_an_append_comes_upon(server: RedisServer, stream: str, opened: Open) -> None:
    """A record that is appended before anybody noticed the flush stands, and the loss before it is reported all the
    same.
    """
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
    assert one.append(event(8.0)).mark.position == 6
    assert values(one) == {"default": [7.0, 8.0]}


def test_a_flush_in_the_middle_of_recording_is_counted_once(server: RedisServer, stream: str, opened: Open) -> None:
    """What two processes record between the flush and its discovery is no loss. The second process reports the whole
    loss, and the first then only the part that it did not know of.
    """
    one, other, late = opened(), opened(), opened()
    fill(one, 5)
    mark_one = one.read(START).mark
    mark_other = fill(other, 2)[-1]
    assert late.read(START).records == 7
    flush(server, stream)
    fill(other, 1)
    first = told(one, mark_one)
    assert first is not None
    assert first.records == 5
    mark_one = segments(one)[-1].mark
    fill(other, 4)  # up to positions beyond those of the history that is gone
    fill(one, 1)
    second = told(other, mark_other)
    assert second is not None
    assert second.records == 7
    rest = told(one, mark_one)
    assert rest is not None
    assert rest.records == 2
    assert told(late, mark_other) == second
    assert values(one) == values(other) == values(late) == {"default": [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]}
    assert opened().lost == second


@pytest.mark.parametrize("since", [0, 1, 3, 8])
def test_an_older_copy_is_told_with_how_many_records(
    server: RedisServer, stream: str, opened: Open, since: int
) -> None:
    """The number is right however many records others appended to the copy before anybody noticed, even more than were
    lost.
    """
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
    assert idle.append(event(9.0)).mark.position > 7


@pytest.mark.parametrize(("others", "ours"), [(0, 1), (0, 3), (0, 4), (1, 0), (1, 1), (3, 1), (4, 1), (4, 9)])
def test_a_lost_end_is_noticed_however_much_came_after_it(
    server: RedisServer, stream: str, opened: Open, others: int, ours: int
) -> None:
    """Also by a process that has appended beyond the lost positions before it reads again."""
    one, other = opened(), opened()
    mark = fill(one, 3)[-1]
    one.read(START)
    other.read(START)
    keep_copy(server, stream)
    fill(one, 3)
    put_back(server, stream)
    fill(other, others)
    fill(one, ours)
    lost = told(one, mark)
    assert lost is not None
    assert lost.records == 3
    assert values(one)["default"] == [0.0, 1.0, 2.0, *map(float, range(others)), *map(float, range(ours))]


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


def test_two_losses_at_nearly_the_same_time(server: RedisServer, stream: str, opened: Open) -> None:
    """An older copy is put back twice, and each time another process notices: none goes on with what it read between.
    Nothing in the second copy tells of the first loss, so both have the epoch of the same two seconds.
    """
    one, other = opened(), opened()
    fill(one, 2)
    keep_copy(server, stream)
    fill(one, 3)
    views = [View(journal, Retention(HOUR_US)) for journal in (one, other)]
    for view in views:
        view.catch_up()
    put_back(server, stream)
    fill(one, 1)
    assert views[0].catch_up().sizes.event_count() == 3
    put_back(server, stream)
    assert views[1].catch_up().sizes.event_count() == 2
    assert views[0].catch_up().sizes.event_count() == 2


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
    """Put back to before the checkpoint: all records since then are lost. Flushed with it: only those behind it are
    counted. Nothing of the lost checkpoint gets into the next one.
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


# Services


def test_services_say_that_records_are_lost(server: RedisServer, stream: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each that held them, and one that starts after it: an ERROR line, a counter, a field in /readyz, once each."""
    apps = [create_app(Settings(journal=server.journal_url(stream)), background=False) for _ in range(2)]
    clients = [app.test_client() for app in apps]
    body = {"timestamp": format_timestamp(time.time_ns() // 1000), "value": 1.0}
    for _ in range(6):
        assert clients[0].post("/event", json=body).status_code == 200
    assert [client.get("/statistics").json["count"] for client in clients] == [6, 6]
    assert "lost" not in clients[0].get("/readyz").json
    flush(server, stream)
    apps.append(create_app(Settings(journal=server.journal_url(stream)), background=False))
    clients.append(apps[2].test_client())
    assert clients[2].get("/statistics").json["count"] == 0
    for _ in range(3):
        assert [client.get("/statistics").json["count"] for client in clients] == [0, 0, 0]
    lines = [record for record in caplog.records if "LOST" in record.message]
    assert [record.levelno for record in lines] == [logging.ERROR] * 3
    for line, client in zip(lines, clients, strict=True):
        assert "at least 6 acknowledged records" in line.message
        assert "no longer in the journal, all that there were: " in line.message
        lost = client.get("/readyz").json["lost"]
        assert (lost["records"], lost["since"], lost["all"]) == (6, None, True)
        metrics = client.get("/metrics").text
        assert re.search(r"^statsapi_\w*lost\w* 6(\.0)?$", metrics, re.MULTILINE), metrics
    for app in apps:
        app.extensions["statsapi"].close()


@pytest.mark.parametrize("ahead_s", [3600, -3600, 90_000_000])
def test_a_machine_whose_clock_is_wrong_answers_as_the_others(
    server: RedisServer, stream: str, caplog: pytest.LogCaptureFixture, ahead_s: int
) -> None:
    """Two services on one stream, one with its clock an hour ahead: both answer 60, and it says how wrong it is."""
    url = server.journal_url(stream)

    def wrong_us() -> int:
        return time.time_ns() // 1000 + ahead_s * 1_000_000

    def open_wrong() -> Journal:
        return RedisJournal(Address.parse(url), machine_clock_us=wrong_us)

    right = Service(Settings(journal=url), lambda: open_journal(url), wall_clock_us, background=False)
    wrong = Service(Settings(journal=url), open_wrong, wrong_us, background=False)
    now_us = time.time_ns() // 1000
    for minute in range(60):
        service = (right, wrong)[minute % 2]
        service.record(EventBatch.single("default", now_us - minute * 59_000_000, 1.0))
    for service in (right, wrong, right):
        service.keep_house()
        reading = service.ask()
        store, asked_us = reading.store, reading.now_us
        (answer,) = store.statistics("default", reading.spans.meant([]), asked_us)
        assert answer.summary.count == 60
    warnings = [record.message for record in caplog.records if "The clock of this machine" in record.message]
    assert len(warnings) == 1
    assert f"{abs(ahead_s)}.0 s {'ahead of' if ahead_s > 0 else 'behind'}" in warnings[0]
    shown = re.search(r"^statsapi_clock_skew_seconds (\S+)$", wrong.expose_metrics("")[0].decode(), re.MULTILINE)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(ahead_s, abs=1)
    for service in (right, wrong):
        service.close()


def test_the_skew_is_logged_once_for_each_change(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a second, with its sign, not for what a slow answer may explain; and when it is over."""
    monkeypatch.setattr("statsapi.journal.server_clock.SKEW_INTERVAL_S", 0.0)
    machine_us = [0]
    clock = ServerClock("redis://there", lambda: machine_us[0])
    server_us = 1_764_000_000_000_000
    for skew_s, said in (
        (0.2, 0),
        (-0.9, 0),
        (5.0, 1),
        (5.3, 1),
        (-7.5, 2),
        (-7.4, 2),
        (0.1, 3),
        (0.0, 3),
        (4000.0, 4),
    ):
        machine_us[0] = server_us + int(skew_s * 1e6)
        clock.answered(clock.asked(), server_us)
        assert clock.skew_us == pytest.approx(skew_s * 1e6, abs=20_000)
        assert len(caplog.records) == said, skew_s
    assert "5.0 s ahead of" in caplog.messages[0]
    assert "7.5 s behind" in caplog.messages[1]
    assert "agrees" in caplog.messages[2]
    machine_us[0] = server_us
    asked_s, asked_us = clock.asked()
    clock.answered((asked_s - 10, asked_us), server_us)  # ten seconds under way: nobody can tell
    assert clock.skew_us == pytest.approx(4e9, abs=20_000)


def test_an_append_while_a_reader_looks_at_those_before_it() -> None:
    """What one thread notes of its appends does not fail the read of another that forgets those it has met."""
    history = History(Server(Address.parse("redis://127.0.0.1:1/0"), wall_clock_us, wall_clock_us))

    def append(position: int) -> None:
        request = Request(position.to_bytes(ID_BYTES, "big"), b"", b"", None)
        history.learn_append(Known(), b"", [(request, position)], 0)

    class Interrupted(dict[int, tuple[bytes, int]]):
        def __iter__(self) -> Iterator[int]:
            for at in super().__iter__():
                if other.ident is None:
                    other.start()
                    other.join(0.05)  # the other thread has its turn here; it may have to wait for this one
                yield at

    other = threading.Thread(target=append, args=(3,))
    history._appended = Interrupted()
    for position in (1, 2):
        append(position)
    nothing = State(0, 0, b"", 0, -1, b"", 0, 0, b"", 0)
    assert history._meet(Rows([1], [0], [(1).to_bytes(44, "little")]), nothing) is not None
    other.join()
    assert list(history._appended) == [2, 3]
