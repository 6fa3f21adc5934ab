"""What is particular to the SQLite journal: processes, crashes, disks and files."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from statsapi.errors import ConfigError, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import (
    START,
    Appended,
    Checkpoint,
    Events,
    Fsync,
    HistoryChanged,
    IdempotencyKey,
    Mark,
    Proposal,
    open_journal,
    sqlite_check,
    sqlite_keeper,
    sqlite_salvage,
    sqlite_upgrade,
    sqlite_wal,
)
from statsapi.journal import sqlite as engine
from statsapi.journal.sqlite import SqliteJournal
from statsapi.model import EventBatch, Part
from tests.journal_engines import event, segments, values
from tests.journal_sample import contents, fill
from tests.old_journals import check_upgraded, make_old, make_schema_3
from tests.servers import ROOT


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "data" / "events.db")


@pytest.fixture
def journal(path: str) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(path, wait_limit_s=0.5)) as journal:
        yield journal


def batch(events: int) -> Proposal:
    return Proposal(EventBatch((Part("batch", np.zeros(events, np.int64), np.zeros(events)),)))


def mark_of(appended: Appended) -> Mark:
    assert appended.mark is not None
    return appended.mark


@contextmanager
def writer(path: str, series: str, count: int, fsync: str = "interval") -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands ready to append when it is sent a line."""
    command = [sys.executable, "-m", "tests.journal_writer", f"sqlite:///{path}", fsync, series, str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


# Processes


def test_processes_append_while_a_reader_follows(journal: SqliteJournal, path: str) -> None:
    """A reader that follows sees every record of several processes once, in commit order, each process's in
    its order.
    """
    each = 300
    with writer(path, "a", each) as a, writer(path, "b", each) as b, writer(path, "c", each) as c:
        for process in (a, b, c):
            go(process)
        mark, stamps = START, list[int]()
        found: dict[str, list[float]] = {}
        while sum(len(each_series) for each_series in found.values()) < 3 * each:
            for segment in segments(journal, mark):
                assert segment.mark.position == mark.position + segment.records
                mark = segment.mark
                for change in segment.changes:
                    assert isinstance(change, Events)
                    found.setdefault(change.series, []).extend(change.values.tolist())
                stamps.append(segment.appended_us)
        assert [process.wait(10) for process in (a, b, c)] == [0, 0, 0]
    assert found == {series: [float(number) for number in range(each)] for series in "abc"}
    assert stamps == sorted(stamps)
    assert values(journal) == found


@pytest.mark.parametrize("fsync", ["interval", "always"])
def test_nothing_acknowledged_is_lost_by_a_kill(path: str, fsync: str) -> None:
    """After SIGKILL at any moment every acknowledged record is there exactly once, and at most one that was
    not.
    """
    for attempt in range(5):
        with writer(path, f"run{attempt}", 100_000, fsync) as process:
            go(process)
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(random.randrange(1, 200))]
            process.send_signal(signal.SIGKILL)
            said += process.stdout.readlines()  # what is left in the pipe was acknowledged as well
            process.wait()
        with closing(SqliteJournal(path)) as journal:
            found = values(journal)[f"run{attempt}"]
        assert found == [float(number) for number in range(len(found))]
        assert len(found) - len(said) in (0, 1)


def test_a_stopped_peer_costs_an_error_not_a_hang(journal: SqliteJournal, path: str) -> None:
    """While a stopped process holds the write lock, appends fail in time as surely not recorded, and reads go
    on.
    """
    mark = mark_of(journal.append(event(1.0)))
    hold = (
        f"import sqlite3; c = sqlite3.connect({path!r}, isolation_level=None); c.execute('BEGIN IMMEDIATE');"
        "print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout is not None
            peer.stdout.readline()
            peer.send_signal(signal.SIGSTOP)
            errors: list[JournalUnavailable] = []

            def fail(proposal: Proposal) -> None:
                with pytest.raises(JournalUnavailable, match="another writer") as caught:
                    journal.append(proposal)
                errors.append(caught.value)

            threads = [threading.Thread(target=fail, args=(event(2.0),)) for _ in range(3)]
            threads.append(threading.Thread(target=fail, args=(lambda: event(2.0),)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [error.outcome_unknown for error in errors] == [False] * 4
            with pytest.raises(JournalUnavailable):
                journal.replace_prefix(None, Checkpoint(b"c", mark, 0, b""))
            assert values(journal) == {"default": [1.0]}
        finally:
            peer.kill()
    journal.append(event(3.0))
    assert values(journal) == {"default": [1.0, 3.0]}


def test_those_who_wait_are_committed_together(journal: SqliteJournal) -> None:
    """Appends that queue up behind a slow writer become one transaction."""
    inside, let_go = threading.Event(), threading.Event()

    def slow() -> Proposal:
        inside.set()
        let_go.wait()
        return event(0.0)

    first = threading.Thread(target=journal.append, args=(slow,))
    first.start()
    inside.wait()
    results: list[Appended] = []
    threads = [threading.Thread(target=lambda: results.append(journal.append(event(1.0)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(journal._appends.group._queue) < 6:
        pass
    let_go.set()
    for thread in (first, *threads):
        thread.join()
    assert len({result.appended_us for result in results}) == 1
    assert sorted(mark_of(result).position for result in results) == [2, 3, 4, 5, 6, 7]


# Durability and size


def test_fsync_modes(path: str) -> None:
    """fsync=always syncs at every COMMIT, fsync=interval leaves that to maintain."""
    modes: list[tuple[Fsync, int]] = [("interval", 1), ("always", 2)]
    for fsync, synchronous in modes:
        with closing(SqliteJournal(path, fsync=fsync)) as journal:
            connection = journal._writer.connection()
            assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)


def test_maintain_moves_everything_into_the_file(journal: SqliteJournal, path: str, tmp_path: Path) -> None:
    """Records appended before maintain() are in the synced file and do not need the WAL."""
    for number in range(100):
        journal.append(event(float(number)))
    journal.maintain()
    copy = str(tmp_path / "copy.db")
    subprocess.run(["cp", path, copy], check=True)  # by another process: see the module about POSIX locks
    with closing(SqliteJournal(copy)) as copied:
        assert values(copied) == {"default": [float(number) for number in range(100)]}


def test_files_stay_bounded_under_load(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under steady load with regular compaction neither the WAL nor the file grows with what went through."""
    monkeypatch.setattr(sqlite_wal, "RESTART_BYTES", 1 << 20)
    monkeypatch.setattr(sqlite_wal, "KEPT_BYTES", 1 << 20)
    each = 1500
    ahead = threading.Semaphore(200)  # how far the writers may be ahead of compaction, on a machine of any speed
    with closing(SqliteJournal(path)) as one, closing(SqliteJournal(path)) as other:

        def write(journal: SqliteJournal) -> None:
            for _ in range(each):
                ahead.acquire()
                journal.append(batch(1000))

        threads = [threading.Thread(target=write, args=(journal,)) for journal in (one, other)]
        for thread in threads:
            thread.start()
        wal_bytes, file_bytes, records, previous, mark = 0, 0, 0, None, START
        while records < 2 * each:
            found = segments(one, mark)
            if found:
                mark = found[-1].mark
                checkpoint = Checkpoint(os.urandom(16), mark, found[-1].appended_us or 0, b"")
                assert one.replace_prefix(previous, checkpoint)
                previous = checkpoint.id
            other.maintain()
            wal_bytes = max(wal_bytes, os.stat(path + "-wal").st_size)
            file_bytes = max(file_bytes, os.stat(path).st_size)
            compacted = sum(segment.records for segment in found)
            records += compacted
            if compacted:
                ahead.release(compacted)
        for thread in threads:
            thread.join()
        went_through = 2 * each * 16_000
        assert wal_bytes < went_through / 3
        assert file_bytes < went_through / 3
        with closing(sqlite3.connect(path)) as look:
            assert look.execute("SELECT count(*) FROM records").fetchone() == (0,)
            assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def found_after_each_call(journal: SqliteJournal, path: str, statement: str, calls: int) -> Iterator[list[Any]]:
    """What a query of one column finds after each of that many calls of maintain, of two steps of ten rows each."""
    with mock.patch.multiple(sqlite_keeper, STEP_ROWS=10, STEPS=2):
        for _ in range(calls):
            journal.maintain()
            with closing(sqlite3.connect(path)) as look:
                yield [value for (value,) in look.execute(statement)]


def test_dead_records_leave_in_bounded_steps(journal: SqliteJournal, path: str) -> None:
    """One call of maintain does a bounded amount of work; readers never see what is dead, and in the end it
    is gone.
    """
    marks = [mark_of(journal.append(event(float(number)))) for number in range(50)]
    assert journal.replace_prefix(None, Checkpoint(b"c", marks[44], 0, b""))
    left = []
    for found in found_after_each_call(journal, path, "SELECT count(*) FROM records", 4):
        left += found
        assert values(journal, marks[44]) == {"default": [45.0, 46.0, 47.0, 48.0, 49.0]}
    assert left == [30, 10, 5, 5]


def test_expired_keys_leave_in_bounded_steps(journal: SqliteJournal, path: str) -> None:
    """A walk over all keys finds those that have expired, wherever they stand, and goes on while there are such."""
    names = [bytes([number]) * 32 for number in range(60)]
    early = {name for number, name in enumerate(names) if number < 25 or number % 7 == 0}
    for name in names:
        due_us = 1000 if name in early else 10_000_000_000
        done = journal.append(Proposal(EventBatch(()), name), key=IdempotencyKey(name, b"d", due_us))
    journal.settled_us = lambda: done.appended_us + 1_000_000
    left = [set(found) for found in found_after_each_call(journal, path, "SELECT name FROM keys", 8)]
    assert left[0] == set(names[20:])
    assert all(some <= more for more, some in itertools.pairwise(left))
    assert left[-1] == set(names) - early
    for name in names:
        assert journal.find_answer(IdempotencyKey(name, b"d", 1)) == (None if name in early else name)


def test_a_walk_that_finds_few_expired_keys_goes_on_a_second_later(
    journal: SqliteJournal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where keys come and expire all the time there are some everywhere. Each call went through all keys then."""
    monkeypatch.setattr(sqlite_keeper, "STEP_ROWS", 32)
    names = [number.to_bytes(2, "big") * 16 for number in range(320)]
    for number, name in enumerate(names):
        due_us = 1000 if number < 64 or number % 32 == 5 else 10_000_000_000
        done = journal.append(Proposal(EventBatch(()), name), key=IdempotencyKey(name, b"d", due_us))
    journal.settled_us = lambda: done.appended_us + 1_000_000
    left = []
    for _ in range(9):
        journal.maintain()
        with closing(sqlite3.connect(path)) as look:
            left.append(look.execute("SELECT count(*) FROM keys").fetchone()[0])
    assert left == [255, 254, 253, 252, 251, 250, 249, 248, 248]


def test_a_prefix_that_goes_while_it_is_read_leaves_no_gap(
    journal: SqliteJournal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read gives the records as of the moment of its mark, even if they are removed meanwhile."""
    marks = [mark_of(journal.append(event(float(number)))) for number in range(10)]
    probe, calls = engine._probe, []

    def then_compact(connection: sqlite3.Connection, after: Mark) -> int:
        last = probe(connection, after)
        calls.append(after)
        if len(calls) == 2:
            with closing(SqliteJournal(path)) as other:
                assert other.replace_prefix(None, Checkpoint(b"c", marks[5], 0, b""))
                other.maintain()
        return last

    monkeypatch.setattr(engine, "_probe", then_compact)
    assert journal.read(marks[0]).records == 9
    monkeypatch.undo()
    with pytest.raises(HistoryChanged):
        journal.read(marks[0])


def test_nothing_leaks(path: str) -> None:
    """Opening, refusing and closing leave no descriptor behind."""
    SqliteJournal(path).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        journal = SqliteJournal(path)
        journal.append(event())
        journal.read(START)
        journal.maintain()
        journal.close()
        with pytest.raises(JournalRefused):
            SqliteJournal(os.path.dirname(path))
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(os.listdir(os.path.dirname(path))) == ["events.db", "events.db-mark"]


# Files of other versions, and files that cannot be used


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_is_brought_up_to_date(path: str, version: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its records, checkpoint, pieces and keys stay, and have checksums from then on. One line of the log says so."""
    caplog.set_level(logging.INFO, "statsapi")
    marks = make_old(path, version, 20)
    with closing(SqliteJournal(path)) as journal, closing(SqliteJournal(path)) as other:
        check_upgraded(journal, version, marks)
        mark = mark_of(journal.append(event(21.0)))
        assert mark.position == 21
        assert journal.replace_prefix(b"c" * 16, Checkpoint(b"d", marks[4], 0, b""), {3: b"three"})
        assert other.read_pieces(b"d", 0, 4)[-1] == (3, b"three")
    assert [message.partition(" in ")[0] for message in caplog.messages] == [
        f"{path} is of an older version and was brought to schema 4"
    ]
    with closing(sqlite3.connect(path)) as look:
        look.text_factory = bytes
        assert list(sqlite_check.find_all(look, path)) == []


def record_keys(path: str) -> list[IdempotencyKey]:
    keys = [IdempotencyKey(os.urandom(32), b"digest", 10**15) for _ in range(300)]
    with closing(SqliteJournal(path)) as journal:
        for key in keys:
            journal.append(Proposal(EventBatch.single("default", 0, 1.0), key.name), key=key)
    return keys


def test_schema_3_gets_its_index_of_names(path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All stays as it is. Check and salvage read a file that was not opened yet."""
    caplog.set_level(logging.INFO, "statsapi")
    keys = record_keys(path)
    make_schema_3(path)
    assert list(sqlite_salvage.damages(path)) == []
    assert sqlite_salvage.salvage(path, str(tmp_path / "new.db")).answers == len(keys)
    with closing(SqliteJournal(path)) as journal:
        assert journal.info().schema_version == 4
        assert values(journal) == {"default": [1.0] * len(keys)}
        assert [journal.find_answer(key) for key in keys] == [key.name for key in keys]
        assert journal.append(Proposal(EventBatch(()), b"again"), key=keys[7]).replayed
    assert [message.partition(" in ")[0] for message in caplog.messages] == [
        f"{path} is of an older version and was brought to schema 4"
    ]
    assert list(sqlite_salvage.damages(path)) == []
    SqliteJournal(path).close()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("origin", ["made", "of schema 1", "of schema 2"])
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("damage", ["", "header", "first page", "name in the index"])
def test_schema_3_is_read_and_saved_by_check_and_salvage(
    origin: str, compacted: bool, damage: str, path: str, tmp_path: Path
) -> None:
    """Its index has another name, and its tables other places where it was upgraded or compacted. Salvage took the
    checkpoint for lost, or all; and check said to start this version first, which refuses what is damaged.
    """
    if origin == "made":
        with closing(SqliteJournal(path)) as journal:
            fill(journal, 0)
    else:
        make_old(path, int(origin[-1]), 12)
        SqliteJournal(path).close()
    make_schema_3(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if compacted:
            connection.execute("VACUUM")
        counts = [
            connection.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in ("records", "pieces", "keys")
        ]
        (index,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'keys_by_expiry'").fetchone()
    data = bytearray(Path(path).read_bytes())
    if damage == "header":
        data[60] ^= 8
    elif damage == "first page":
        data[100:4096] = bytes(3996)
    elif damage:
        data[(index - 1) * 4096 + 4] ^= 1  # the number of its entries
    Path(path).write_bytes(data)
    said = list(sqlite_salvage.damages(path))
    assert bool(said) == bool(damage)
    if damage:
        with pytest.raises(JournalDamaged):
            SqliteJournal(path)
    else:
        with closing(SqliteJournal(path)) as journal:
            expected = contents(journal)
        assert list(sqlite_salvage.damages(path)) == []
        Path(path).write_bytes(data)
    if damage == "first page" and origin != "made":
        return  # where its tables are is not known: nobody wrote that down elsewhere
    new = str(tmp_path / "new.db")
    assert sqlite_salvage.salvage(path, new) == (*counts, True)
    if not damage:
        with closing(SqliteJournal(new)) as journal:
            assert contents(journal) == expected


@pytest.mark.parametrize(("version", "flipped"), [(1, 3), (2, 3), (3, 1), (3, 2)])
def test_a_changed_number_of_an_old_schema_is_damage(version: int, flipped: int, path: str) -> None:
    """One bit of it. It was `no such table: records`, or an upgrade that did nothing and said that it did."""
    if version == 3:
        record_keys(path)
        make_schema_3(path)
    else:
        make_old(path, version, 5)
    data = bytearray(Path(path).read_bytes())
    assert data[63] == version
    data[63] = flipped
    Path(path).write_bytes(data)
    with pytest.raises(JournalDamaged, match="its header is not that of a journal"):
        SqliteJournal(path)
    assert Path(path).read_bytes() == data


@pytest.mark.parametrize("damage", ["a place", "a hidden row"])
def test_schema_3_that_is_damaged_stays_as_it_is(path: str, damage: str) -> None:
    """The new index would not have what the damage hides, and the change would hide the damage."""
    record_keys(path)
    make_schema_3(path)
    data = bytearray(Path(path).read_bytes())
    with closing(sqlite3.connect(path)) as look:
        places = dict(look.execute("SELECT name, rootpage FROM sqlite_master"))
    if damage == "a place":
        at = data.index(b"CREATE TABLE pieces") - 1
        assert data[at] == places["pieces"]
        data[at] = places["checkpoint"]
    else:
        start = (places["keys"] - 1) * 4096
        leaf = (int.from_bytes(data[start + 8 : start + 12], "big") - 1) * 4096
        data[leaf + 4] -= 1
    Path(path).write_bytes(data)
    with pytest.raises(JournalDamaged):
        SqliteJournal(path)
    assert Path(path).read_bytes() == data


@pytest.mark.parametrize("schema", [4, 3])
def test_an_upgrade_may_be_interrupted(schema: int, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after any step it goes on from there when the file is opened again, with the same result; also where it
    was on its way to an older schema than this.
    """
    monkeypatch.setattr(sqlite_upgrade, "UPGRADE_ROWS", 7)
    for survived in range(12):
        path = str(tmp_path / f"{survived}.db")
        marks = make_old(path, 2, 30)
        code = (
            "import os, sys; from statsapi.journal import sqlite, sqlite_upgrade as t; t.UPGRADE_ROWS = 7; left = "
            f"[{survived}]\n"
            "class C(sqlite.sqlite3.Connection):\n"
            " def execute(self, statement, *a):\n"
            "  if statement == 'COMMIT':\n"
            "   if not left[0]: os._exit(9)\n"
            "   left[0] -= 1\n"
            "  return super().execute(statement, *a)\n"
            "old = sqlite.sqlite3.connect\n"
            "sqlite.sqlite3.connect = lambda *a, **k: old(*a, factory=C, **k)\n"
            f"sqlite.SqliteJournal({path!r}).close()"
        )
        died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode
        if survived and schema == 3:
            make_schema_3(path)
        with closing(SqliteJournal(path)) as journal:
            check_upgraded(journal, 2, marks)
        if died == 0:
            break
    else:
        raise AssertionError("it was interrupted at each step")
    assert survived > 5


@pytest.mark.parametrize("compacted", [False, True], ids=["as upgraded", "compacted"])
def test_an_upgraded_file_is_whole_and_its_definitions_can_be_lost(compacted: bool, path: str, tmp_path: Path) -> None:
    """The check finds nothing in it; with damage to a definition everything in it is salvaged all the same."""
    marks = make_old(path, 2, 20)
    SqliteJournal(path).close()
    one = engine.SqliteEngine(f"sqlite:///{path}")
    if compacted:
        one.compact()
    assert list(one.find_damage()) == []
    data = bytearray(Path(path).read_bytes())
    data[data.index(b"CREATE TABLE records") + 9] = 0xFF
    Path(path).write_bytes(data)
    (line,) = one.find_damage()
    assert "malformed database schema" in line
    one.salvage(str(tmp_path / "new.db"))
    with closing(SqliteJournal(str(tmp_path / "new.db"))) as journal:
        check_upgraded(journal, 2, marks)


def test_a_damaged_older_file_is_refused(path: str, tmp_path: Path) -> None:
    """A value of another type is told with its table; a salvage says to start this version on the file first."""
    make_old(path, 2, 20)
    with closing(sqlite3.connect(path)) as older, older:
        older.execute("UPDATE log SET appended_us = x'00' WHERE seq = 9")
    with pytest.raises(JournalDamaged, match="the table log"):
        SqliteJournal(path)
    with pytest.raises(JournalRefused, match="of an older version"):
        engine.SqliteEngine(f"sqlite:///{path}").salvage(str(tmp_path / "new.db"))
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", "-mark", ".limits"])
def test_a_name_that_belongs_to_the_journal_beside_it_is_refused(suffix: str, path: str) -> None:
    """As a journal, as a backup's and as a salvage's name; where no such journal is beside it, it is taken."""
    with closing(SqliteJournal(path)) as journal:
        with pytest.raises(ConfigError, match="keeps a file of its own under this name"):
            open_journal(f"sqlite:///{path}{suffix}")
        with pytest.raises(JournalRefused, match="keeps a file of its own under this name"):
            journal.backup(path + suffix, overwrite=True)
    with pytest.raises(JournalRefused, match="keeps a file of its own under this name"):
        engine.SqliteEngine(f"sqlite:///{path}").salvage(path + suffix)
    open_journal(f"sqlite:///{path}.other{suffix}").close()


def test_an_older_file_in_use_is_not_upgraded(path: str) -> None:
    """While an older version's worker has it open it is left as it is, and the refusal says to stop that first."""
    make_old(path, 2, 5)
    with closing(sqlite3.connect(path)) as older:
        assert older.execute("SELECT count(*) FROM log").fetchone() == (3,)
        with pytest.raises(JournalRefused, match="stop all its workers"):
            SqliteJournal(path)
        assert older.execute("PRAGMA user_version").fetchone() == (2,)
    SqliteJournal(path).close()


def test_files_that_are_not_ours_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's database, a damaged file, a newer schema, a folder, a read-only one: a sentence says
    what to do.
    """
    foreign, garbage, newer = (str(tmp_path / name) for name in ("foreign.db", "garbage.db", "newer.db"))
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    Path(garbage).write_bytes(os.urandom(10_000))
    SqliteJournal(newer).close()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version=99")
    in_a_file = os.path.join(garbage, "x.db")
    for path, said in (
        (foreign, "name another file"),
        (garbage, "restore it from a backup"),
        (newer, "use a newer one"),
        (str(tmp_path), "name a file in it"),
        (in_a_file, "as a file stands in its way: name another by --journal or STATSAPI_JOURNAL"),
    ):
        before = Path(path).read_bytes() if os.path.isfile(path) else b""
        with pytest.raises(ConfigError, match=said):
            open_journal(f"sqlite:///{path}")
        assert not before or Path(path).read_bytes() == before
    good = str(tmp_path / "good.db")
    SqliteJournal(good).close()
    for target, said in ((good, "read-only"), (str(tmp_path), "cannot be written")):
        with monkeypatch.context() as patch:  # tests may run as root, whom no mode stops
            patch.setattr(os, "access", lambda path, mode, target=target: path != target)
            with pytest.raises(JournalRefused, match=said):
                SqliteJournal(good)


def test_damage_among_the_records_is_refused_at_start(tmp_path: Path) -> None:
    """A file whose header is fine and whose pages are not is refused when it is opened, with what to do."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        for _ in range(3000):
            journal.append(event())
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(path.stat().st_size // 4))
    with pytest.raises(JournalRefused, match="damaged"):
        SqliteJournal(str(path))


def test_an_interrupted_creation_is_completed(tmp_path: Path) -> None:
    """An empty file, as a crash during the first start leaves it, becomes a journal."""
    path = tmp_path / "events.db"
    path.touch()
    with closing(SqliteJournal(str(path))) as journal:
        journal.append(event(1.0))
        assert values(journal) == {"default": [1.0]}


# Faults at run time


def test_a_full_disk_is_said_and_survived(journal: SqliteJournal) -> None:
    """When the disk is full nothing is recorded, the error says so, and appends work again once there is
    space.
    """
    first = mark_of(journal.append(event(1.0)))
    connection = journal._writer.connection()
    connection.execute("PRAGMA max_page_count=20")
    for proposal in (batch(100_000), lambda: batch(100_000)):
        with pytest.raises(JournalUnavailable, match="full") as caught:
            journal.append(proposal)
        assert not caught.value.outcome_unknown
    assert values(journal) == {"default": [1.0]}
    key = IdempotencyKey(b"name", b"digest", 3_600_000_000)
    with pytest.raises(JournalUnavailable, match="free some space"):
        journal.append(batch(100_000), key=key)
    assert journal.find_answer(key) is None
    with pytest.raises(JournalUnavailable, match="full"):
        journal.replace_prefix(None, Checkpoint(b"c" * 16, first, 0, b"s" * 500_000))
    assert journal.read_checkpoint() is None
    journal.maintain()
    connection.execute("PRAGMA max_page_count=1000000")
    journal.append(batch(100), key=key)
    assert journal.find_answer(key) == b""
    journal.append(event(2.0))
    assert values(journal)["default"] == [1.0, 2.0]


def test_a_failing_disk_is_said_and_survived(journal: SqliteJournal, path: str) -> None:
    """A write that fails in the COMMIT is of unknown outcome, counts once or not at all, and later appends
    work.
    """
    journal.append(event(1.0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path + "-wal").st_size + 2000, limits[1]))
    try:
        with pytest.raises(JournalUnavailable, match="disk") as caught:
            journal.append(event(2.0))
        assert caught.value.outcome_unknown
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.append(event(3.0))
    assert values(journal) in ({"default": [1.0, 3.0]}, {"default": [1.0, 2.0, 3.0]})


# Backups and restored files


def back_up(path: str, to: str) -> None:
    with closing(SqliteJournal(path)) as journal:
        journal.backup(to)


def test_a_backup_under_load_is_of_one_moment(path: str, tmp_path: Path) -> None:
    """While two processes append, each copy holds a prefix of what both acknowledge, and is one sound file."""
    with closing(SqliteJournal(path)) as journal, writer(path, "a", 100_000) as a, writer(path, "b", 100_000) as b:
        for process in (a, b):
            go(process)
        for number in range(5):
            assert a.stdout is not None
            assert b.stdout is not None
            said = {"a": int(a.stdout.readline()), "b": int(b.stdout.readline())}
            copy = tmp_path / f"{number}.db"
            journal.backup(str(copy))
            assert not list(tmp_path.glob(f"{number}.db?*"))
            with closing(sqlite3.connect(copy)) as look:
                assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            with closing(SqliteJournal(str(copy))) as held:
                found = values(held)
            for series, last in said.items():
                assert found[series] == [float(value) for value in range(len(found[series]))]
                assert len(found[series]) > last
        a.kill()
        b.kill()


def test_a_backup_never_spoils_what_is_there(journal: SqliteJournal, path: str, tmp_path: Path) -> None:
    """The journal itself, a folder and a file in use are refused, another file is replaced by force only; no rest."""
    journal.append(event(1.0))
    target = tmp_path / "target"
    target.mkdir()
    existing, folder, used = target / "backup.db", target / "folder", target / "used.db"
    existing.write_bytes(b"something else")
    folder.mkdir()
    linked = target / "link.db"
    linked.symlink_to(path)
    with closing(SqliteJournal(str(used))) as other:
        other.append(event(5.0))
        for file, overwrite, said in (
            (existing, False, "there already"),
            (folder, True, "not a file"),
            (Path(path), True, "the journal itself"),
            (linked, True, "the journal itself"),
            (used, True, "in use"),
            (tmp_path / "no" / "backup.db", False, "No such file or directory"),
        ):
            with pytest.raises(JournalRefused, match=said):
                journal.backup(str(file), overwrite=overwrite)
        assert values(other) == {"default": [5.0]}
    assert existing.read_bytes() == b"something else"
    journal.backup(str(existing), overwrite=True)
    with closing(SqliteJournal(str(existing))) as copy:
        assert values(copy) == values(journal) == {"default": [1.0]}
    assert sorted(file.name for file in target.iterdir()) == [
        "backup.db",
        "backup.db-mark",
        "folder",
        "link.db",
        "used.db",
        "used.db-mark",
    ]


def test_a_backup_keeps_the_journals_mode(journal: SqliteJournal, path: str, tmp_path: Path) -> None:
    """A backup is readable for the same users as the journal."""
    os.chmod(path, 0o640)
    journal.backup(str(tmp_path / "backup.db"))
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o640


def test_a_damaged_journal_gives_no_backup(path: str, tmp_path: Path) -> None:
    """Damage that shows in the copy only is said, and the earlier backup stays."""
    backup = tmp_path / "backup.db"
    with closing(SqliteJournal(path)) as journal:
        for _ in range(50):
            journal.append(batch(1000))
        journal.backup(str(backup))
        before = backup.read_bytes()
        journal.maintain()
        with open(path, "r+b") as file:  # drops this process's locks, which nobody misses here
            file.seek(os.stat(path).st_size - 3 * 4096)
            file.write(os.urandom(2 * 4096))
        with pytest.raises(JournalDamaged, match="the copy was not kept"):
            journal.backup(str(backup), overwrite=True)
    assert backup.read_bytes() == before


def test_a_restored_file_is_noticed(path: str, tmp_path: Path) -> None:
    """When a backup is moved into place, every worker changes over: views start afresh, appends go to the new
    file.
    """
    backup = str(tmp_path / "backup.db")
    with closing(SqliteJournal(path)) as one, closing(SqliteJournal(path)) as other:
        kept = mark_of(one.append(event(1.0)))
        back_up(path, backup)
        for number in range(300):
            lost = mark_of(one.append(event(float(number))))
        assert other.read(lost).records == 0
        os.replace(backup, path)
        with pytest.raises(HistoryChanged):
            one.read(lost)
        assert other.read(kept).records == 0
        other.append(event(2.0))
        one.append(lambda: event(3.0))
        one.maintain()
        other.maintain()
        assert values(one) == values(other) == {"default": [1.0, 2.0, 3.0]}
    with closing(SqliteJournal(path)) as again:
        assert values(again) == {"default": [1.0, 2.0, 3.0]}
    with closing(sqlite3.connect(path)) as look:
        assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_replaced_during_a_decision_is_not_written(path: str, tmp_path: Path) -> None:
    """A decision made on the old file is made again on the new one."""
    backup = str(tmp_path / "backup.db")
    runs: list[Any] = []
    with closing(SqliteJournal(path)) as journal:
        journal.append(event(1.0))
        back_up(path, backup)
        journal.append(event(2.0))

        def decide() -> Proposal:
            if not runs:
                os.replace(backup, path)
            runs.append(values(journal)["default"])
            return event(9.0)

        journal.append(decide)
        assert runs == [[1.0], [1.0]]
        assert values(journal) == {"default": [1.0, 9.0]}


def test_a_file_that_is_gone_is_not_made_anew(path: str, tmp_path: Path) -> None:
    """While the file is away nothing is acknowledged, and none is made that a restore would replace."""
    away = str(tmp_path / "away.db")
    with closing(SqliteJournal(path)) as journal:
        mark = mark_of(journal.append(event(1.0)))
        back_up(path, away)
        os.unlink(path)
        calls = (lambda: journal.append(event(2.0)), lambda: journal.read(mark), journal.maintain)
        for call in calls:
            with pytest.raises(JournalUnavailable, match="not there") as caught:
                call()
            assert not caught.value.outcome_unknown
        assert not os.path.exists(path)
        os.replace(away, path)
        journal.append(event(3.0))
        assert values(journal, mark) == {"default": [3.0]}


def test_a_file_behind_a_link_is_followed(tmp_path: Path) -> None:
    """A backup that is moved over the link's target, or over the link, and a link that is turned to another file, are
    noticed.
    """
    (tmp_path / "disk").mkdir()
    target, link = str(tmp_path / "disk" / "real.db"), str(tmp_path / "link.db")
    os.symlink(target, link)
    with closing(SqliteJournal(link)) as journal:
        journal.append(event(1.0))
        assert os.path.exists(target + "-wal")
        for number, place in enumerate((target, link)):
            backup = str(tmp_path / f"{number}.db")
            journal.backup(backup)
            lost = mark_of(journal.append(event(9.0)))
            os.replace(backup, place)
            with pytest.raises(HistoryChanged):
                journal.read(lost)
            journal.append(event(2.0 + number))
            assert values(journal) == {"default": [1.0, 2.0, 3.0][: 2 + number]}
        os.unlink(link)
        os.symlink(target, link)
        assert values(journal) == {"default": [1.0, 2.0, 9.0]}
    for path in (target, link):
        with closing(sqlite3.connect(path)) as look:
            assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_reader_does_not_keep_the_wal_from_the_disk(path: str, tmp_path: Path) -> None:
    """While somebody holds a read transaction, maintain flushes the -wal itself, and says how long it took."""
    trace = tmp_path / "trace"
    code = (
        "import sqlite3, sys; from statsapi.journal.sqlite import SqliteJournal; "
        "from tests.journal_engines import event\n"
        "journal = SqliteJournal(sys.argv[1]); journal.append(event(1.0)); journal.maintain()\n"
        "old = sqlite3.connect(sys.argv[1]); old.execute('BEGIN'); old.execute('SELECT * FROM records').fetchall()\n"
        "seconds = []; journal.observe_fsync = seconds.append\n"
        "for number in range(3):\n"
        " journal.append(event(2.0)); print('appended', file=sys.stderr, flush=True); journal.maintain()\n"
        "assert len(seconds) == 3; print('end', file=sys.stderr, flush=True)\n"
    )
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI"):
            raise AssertionError("strace is not there")
        pytest.skip("strace is not there")
    calls = "trace=fsync,fdatasync,write"
    command = [strace, "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", code, path]
    subprocess.run(command, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    parts = trace.read_text().split('"appended"')[1:]
    if len(parts) != 3:
        parts = trace.read_text().split('"appended')[1:]
    assert len(parts) == 3
    for part in parts:
        assert "sync(" in part
        assert "events.db-wal>" in part.split("sync(", 1)[1].split("\n")[0]


@contextmanager
def small_blocks(folder: Path) -> Iterator[Path]:
    """An ext4 file system of 4 MiB with blocks of 1 kB."""
    image, mount = folder / "image", folder / "disk"
    mount.mkdir()
    image.write_bytes(bytes(4 << 20))
    for command in (["mkfs.ext4", "-q", "-b", "1024", str(image)], ["mount", "-o", "loop", str(image), str(mount)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mkfs.ext4")
        if done.returncode:
            pytest.skip(f"no ext4 may be made or mounted here ({done.stderr.strip()})")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_full_disk_of_small_blocks_ends_no_process(tmp_path: Path) -> None:
    """Opening and appending there say that it is full; the process lives, and goes on once there is space."""
    code = (
        "import sys; from statsapi.errors import JournalUnavailable\n"
        "from statsapi.journal.sqlite import SqliteJournal; from tests.journal_engines import event, values\n"
        "try:\n"
        " journal = SqliteJournal(sys.argv[1])\n"
        " for _ in range(2000): journal.append(event(2.0))\n"
        "except JournalUnavailable as error: print(error)\n"
        "else: print('all', len(values(journal)['default'])); journal.close()\n"
    )
    with small_blocks(tmp_path) as disk:
        file = disk / "events.db"
        with closing(SqliteJournal(str(file))) as journal:
            journal.append(event(1.0))
        for left in (0, 10, 30, 60, 100, 200, 400, 600):
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as rest:
                while os.statvfs(disk).f_bfree > left:
                    rest.write(bytes(1024 * max(1, (os.statvfs(disk).f_bfree - left) // 2)))
            done = subprocess.run(
                [sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (left, done)
            assert "is full: free some space" in done.stdout
            filler.unlink()
        with closing(SqliteJournal(str(file))) as journal:
            assert values(journal)["default"][0] == 1.0
            journal.append(event(3.0))


_KILLED = """
import os, sys
from statsapi.journal import Proposal, open_journal
from statsapi.model import EventBatch
journal = open_journal(f"sqlite:///{sys.argv[1]}", create=True)
for value in range(10):
    journal.append(Proposal(EventBatch.single("default", 0, float(value))))
    if value == 4:
        journal.backup(sys.argv[2])
os._exit(9)  # nothing is closed: the -wal stays, with all ten
"""


def _leave_a_wal(folder: Path) -> tuple[Path, Path]:
    path, copy = folder / "events.db", folder / "copy.db"
    subprocess.run([sys.executable, "-c", _KILLED, str(path), str(copy)], cwd=ROOT, check=False)
    assert Path(f"{path}-wal").stat().st_size > 0
    return path, copy


def test_a_wal_that_was_left_behind_is_not_played_into_a_backup(tmp_path: Path) -> None:
    """A backup that takes the place of a killed service's file is that backup, whatever its -wal holds."""
    path, copy = _leave_a_wal(tmp_path)
    os.replace(copy, path)
    for _ in range(2):
        with closing(open_journal(f"sqlite:///{path}")) as journal:
            assert values(journal) == {"default": [0.0, 1.0, 2.0, 3.0, 4.0]}


@pytest.mark.parametrize("kept", [("", "-wal"), ("", "-wal", "-mark"), ("", "-wal", "-shm", "-mark")])
def test_a_folder_that_was_copied_keeps_its_wal(tmp_path: Path, kept: tuple[str, ...]) -> None:
    """A file that is copied together with its -wal holds all, in another place or back in its own."""
    path, _ = _leave_a_wal(tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    for suffix in kept:
        shutil.copy2(f"{path}{suffix}", f"{away}/events.db{suffix}")
    for suffix in ("", "-wal", "-shm", "-mark"):
        os.unlink(f"{path}{suffix}")
    for suffix in reversed(kept):
        shutil.copy2(f"{away}/events.db{suffix}", f"{path}{suffix}")
    for place in (path, away / "events.db"):
        with closing(open_journal(f"sqlite:///{place}")) as journal:
            assert values(journal) == {"default": [float(value) for value in range(10)]}


def test_what_others_do_meanwhile_is_no_damage(path: str) -> None:
    """While records come under keys and go to checkpoints, whoever opens the file, or checks it, finds it whole."""
    ends = threading.Event()

    def live() -> None:
        with closing(SqliteJournal(path)) as journal:
            checkpoint_id = None
            for number in range(10_000):
                key = IdempotencyKey(b"%d" % number, b"", 10**18)
                mark = journal.append(event(float(number)), key=key).mark
                assert mark is not None
                checkpoint = Checkpoint(b"%016d" % number, mark, 0, b"state" * (number % 7))
                assert journal.replace_prefix(checkpoint_id, checkpoint, {number: b"piece"})
                checkpoint_id = checkpoint.id
                journal.maintain()
                if ends.is_set():
                    return

    thread = threading.Thread(target=live)
    with closing(SqliteJournal(path)):  # the file is there
        thread.start()
    try:
        for _ in range(60):
            with closing(SqliteJournal(path)) as journal:
                assert journal.lost is None
                journal.maintain()
                journal.info()
            assert list(sqlite_salvage.damages(path)) == []
    finally:
        ends.set()
        thread.join()
