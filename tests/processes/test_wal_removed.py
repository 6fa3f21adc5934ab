"""The -wal or -shm of a running service is removed or replaced: somebody "cleans up" beside its journal."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from zlib_ng.zlib_ng import crc32

from statsapi.errors import JournalUnavailable
from statsapi.journal import START, Proposal
from statsapi.journal.sqlite import SqliteJournal
from statsapi.model import Deletion, EventBatch
from tests.servers import Server, gunicorn_server, now, post, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def remove(folder: Path, suffixes: Sequence[str]) -> None:
    for suffix in suffixes:
        (folder / f"events.db{suffix}").unlink()


def record(server: Server, values: range) -> int:
    """Post each value until it is acknowledged; a refusal may only say that nothing was recorded. Their number."""

    def recorded(value: int) -> bool:
        status, body = post(server, value)
        if status != 200:
            assert (status, body["outcome"]) == (503, "not recorded"), body
        return status == 200

    for value in values:
        wait_until(lambda value=value: recorded(value), "a post to be taken")  # type: ignore[misc]
    return len(values)


def check_each_worker(server: Server, count: int) -> None:
    """Each worker answers, and the same; until it does, it may only refuse."""
    expected = {"count": count, "min": 0, "max": count - 1, "mean": (count - 1) / 2}

    def asked() -> list[Any]:
        clients = [server.client() for _ in range(8)]
        try:
            return [client.request("GET", "/statistics") for client in clients]
        finally:
            for client in clients:
                client.close()

    def all_answer() -> bool:
        answers = asked()
        assert all(body == expected for status, body in answers if status == 200), answers
        assert {status for status, _ in answers} <= {200, 503}, answers
        return all(status == 200 for status, _ in answers)

    wait_until(all_answer, "each worker to answer")


@pytest.mark.parametrize("killed", [False, True], ids=["all live", "one is killed"])
@pytest.mark.parametrize(
    "removed", [["-wal"], ["-shm"], ["-wal", "-shm"], ["-wal", "-shm", "-mark"]], ids=lambda removed: "".join(removed)
)
def test_what_is_removed_beside_the_journal_costs_nothing(tmp_path: Path, removed: list[str], killed: bool) -> None:
    """What was acknowledged before and after counts, on both workers, on one that is new, and after a restart."""
    with gunicorn_server(tmp_path, workers=2) as server:
        server.wait_for_journals(2)
        count = record(server, range(20))
        remove(tmp_path, removed)
        count += record(server, range(20, 40))
        if killed:
            pids = server.workers()
            os.kill(min(pids), signal.SIGKILL)
            server.wait_for_journals(3)
        check_each_worker(server, count)
        count += record(server, range(40, 60))
        check_each_worker(server, count)
        wait_until(lambda: all((tmp_path / f"events.db{each}").exists() for each in ("-wal", "-shm")), "new ones")
        for pid in server.workers():  # no longer one that is in no folder: the end of all of them costs nothing
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.log.count("Opened the journal") >= (5 if killed else 4), "other workers")
        check_each_worker(server, count)
        assert "LOST" not in server.log
        assert "Traceback" not in server.log
    with gunicorn_server(tmp_path, workers=2) as server:
        check_each_worker(server, count)
        assert "LOST" not in server.log


def test_what_cannot_be_saved_yet_is_refused_until_it_can(tmp_path: Path) -> None:
    """On a full disk the -wal cannot be moved into the file: writes and /readyz say so, and reads go on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]).returncode:
        pytest.skip("no tmpfs may be mounted here; the next test has the same with a reader")
    try:
        with gunicorn_server(tmp_path, workers=2, env={"STATSAPI_JOURNAL": f"sqlite:///{disk}/events.db"}) as server:
            server.wait_for_journals(2)
            batch = [{"timestamp": now(), "value": value} for value in range(1000)]
            with (disk / "filler").open("wb") as filler:
                filler.truncate(8 << 20)
                os.posix_fallocate(filler.fileno(), 0, os.statvfs(disk).f_bavail * 4096 - (200 << 10))
            assert server.request("POST", "/events", batch)[0] == 200
            with (disk / "rest").open("wb", buffering=0) as rest:
                for size in (4096, 1):
                    try:
                        while rest.write(b"x" * size):
                            pass
                    except OSError:
                        pass
            remove(disk, ["-wal"])
            wait_until(lambda: server.log.count("do not kill the service") >= 2, "both workers to notice")
            for path, body in (("/event", {"timestamp": now(), "value": 7}), ("/readyz", None)):
                status, problem = server.request("POST" if body else "GET", path, body)
                assert (status, problem["type"]) == (503, "urn:statsapi:problem:journal-unavailable")
                assert "events.db-wal was removed or replaced" in problem["detail"]
                assert "is full" in problem["detail"]
            check_each_worker(server, 1000)
            (disk / "filler").unlink()
            check_each_worker(server, 1000)
            assert record(server, range(1000, 1010)) == 10
            check_each_worker(server, 1010)
            assert server.request("GET", "/readyz")[0] == 200
            assert server.log.count(" ERROR ") + server.log.count("[ERROR]") == 2
            assert "Traceback" not in server.log
    finally:
        subprocess.run(["umount", disk], check=True)


def values_of(journal: SqliteJournal) -> list[float]:
    changes = journal.read(START).changes
    return [value for change in changes if not isinstance(change, Deletion) for value in change.values.tolist()]


def append(journal: SqliteJournal, value: float) -> None:
    journal.append(Proposal(EventBatch.single("default", 1, value)))


def maintain(*journals: SqliteJournal) -> None:
    """At the same time, as each waits for the others to let go."""
    with ThreadPoolExecutor(len(journals)) as pool:
        for done in [pool.submit(journal.maintain) for journal in journals]:
            done.result()


def test_a_reader_delays_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While another process reads an older state, what the -wal holds cannot be moved: one refusal says so, once."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path), wait_limit_s=0.2)) as journal:
        append(journal, 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
            append(journal, 2)
            remove(tmp_path, ["-wal", "-shm"])
            for _ in range(2):
                journal.maintain()
                with pytest.raises(JournalUnavailable, match="do not kill the service") as caught:
                    append(journal, 99)
                assert not caught.value.outcome_unknown
                with pytest.raises(JournalUnavailable, match="somebody is reading it"):
                    journal.check_writable()
                assert values_of(journal) == [1, 2]
            assert [each.levelname for each in caplog.records] == ["ERROR"]
        journal.maintain()
        assert [each.levelname for each in caplog.records] == ["ERROR", "WARNING"]
        append(journal, 3)
        assert values_of(journal) == [1, 2, 3]
        assert journal.info().records == 3
    with closing(SqliteJournal(str(path))) as journal:
        assert journal.lost is None
        assert values_of(journal) == [1, 2, 3]


def test_nobody_opens_it_while_another_holds_what_was_removed(tmp_path: Path) -> None:
    """Who comes later is refused until the other has let go, and then has everything."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
        remove(tmp_path, ["-wal"])
        with pytest.raises(JournalUnavailable, match="stop them by SIGTERM"):
            SqliteJournal(str(path), wait_limit_s=0.05)
        journal.maintain()
        append(journal, 2)
        with closing(SqliteJournal(str(path))) as other:
            append(other, 3)
            append(journal, 4)
            assert values_of(journal) == values_of(other) == [1, 2, 3, 4]


def append_in_a_service(journal: SqliteJournal, value: float) -> None:
    """Its housekeeping goes on meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(append, journal, value)
        while not done.done():
            journal.maintain()
        done.result()


def replace(folder: Path, suffixes: Sequence[str]) -> None:
    """By a copy, as somebody does who restores one."""
    for suffix in suffixes:
        shutil.copy(folder / f"events.db{suffix}", folder / "copy")
        os.replace(folder / "copy", folder / f"events.db{suffix}")


@pytest.mark.parametrize("replaced", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids=lambda replaced: "".join(replaced))
def test_nobody_opens_what_took_the_place_of_one_in_use(tmp_path: Path, replaced: list[str]) -> None:
    """Who opened it would record into the copy, and its records or the others' would be lost."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
        append(journal, 2)
        replace(tmp_path, replaced)
        with pytest.raises(JournalUnavailable, match="stop them by SIGTERM"):
            SqliteJournal(str(path), wait_limit_s=0.05)
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(SqliteJournal, str(path))  # waits, and is in nobody's way
            journal.maintain()
            with closing(opening.result()) as other:
                append(other, 3)
                append(journal, 4)
                assert values_of(journal) == values_of(other) == [1, 2, 3, 4]
    with closing(SqliteJournal(str(path))) as journal:
        assert journal.lost is None
        assert values_of(journal) == [1, 2, 3, 4]


def test_a_start_while_another_program_has_the_file_open(tmp_path: Path) -> None:
    """Its -wal and -shm were never noted; they are those in use all the same."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        assert shell.execute("SELECT count(*) FROM records").fetchone() == (1,)
        with closing(SqliteJournal(str(path), wait_limit_s=0.05)) as journal:
            append(journal, 2)
            assert values_of(journal) == [1, 2]


def test_a_mark_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It notes no -shm. Its other notes count, and the next opening completes it."""
    path, mark = tmp_path / "events.db", tmp_path / "events.db-mark"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
        older = mark.read_bytes()[:56]
        with mark.open("r+b") as file:
            file.write(older + crc32(older).to_bytes(4, "little") + bytes(4))
        with closing(SqliteJournal(str(path), wait_limit_s=0.05)) as other:
            append(other, 2)
            assert mark.read_bytes()[:56] == older
            replace(tmp_path, ["-wal"])
            with pytest.raises(JournalUnavailable, match="removed or replaced"):
                SqliteJournal(str(path), wait_limit_s=0.05)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("stranger", ["a folder", "a link", "a link to nothing", "a pipe"])
def test_what_is_no_file_in_its_place_is_removed(tmp_path: Path, suffix: str, stranger: str) -> None:
    """SQLite opens nothing as long as it is there."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
        beside = tmp_path / f"events.db{suffix}"
        beside.rename(tmp_path / "moved")
        if stranger == "a folder":
            beside.mkdir()
        elif stranger == "a pipe":
            os.mkfifo(beside)
        else:
            beside.symlink_to(tmp_path / ("moved" if stranger == "a link" else "nowhere"))
        append_in_a_service(journal, 2)
        journal.maintain()
        append(journal, 3)
        assert beside.is_file()
        assert not beside.is_symlink()
        assert values_of(journal) == [1, 2, 3]


def test_a_folder_that_is_not_empty_is_named(tmp_path: Path) -> None:
    """It is somebody's: writes are refused until it is away."""
    path, beside = tmp_path / "events.db", tmp_path / "events.db-wal"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
        beside.unlink()
        beside.mkdir()
        (beside / "theirs").touch()
        journal.maintain()
        with pytest.raises(JournalUnavailable, match=r"a folder stands in the place of .*-wal: remove it") as caught:
            append(journal, 99)
        assert not caught.value.outcome_unknown
        assert values_of(journal) == [1]
        shutil.rmtree(beside)
        journal.maintain()
        append(journal, 2)
        assert values_of(journal) == [1, 2]


def test_nothing_is_committed_to_a_wal_that_others_have_left(tmp_path: Path) -> None:
    """It would be lost with this process: an append waits until all have let go, and is in the new one."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        append(journal, 1)
        left = os.open(f"{path}-wal", os.O_RDONLY)
        try:
            remove(tmp_path, ["-wal"])
            append_in_a_service(journal, 2)
            assert os.fstat(left).st_size == 0  # moved into the file, and nothing came after
        finally:
            os.close(left)
        assert values_of(journal) == [1, 2]
        assert os.stat(f"{path}-wal").st_size > 0


def test_a_stop_saves_what_was_removed(tmp_path: Path) -> None:
    """Who closes last moves the -wal into the file, whether or not somebody had noticed."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as first, closing(SqliteJournal(str(path))) as second:
        append(first, 1)
        append(second, 2)
        remove(tmp_path, ["-wal", "-shm"])
    with closing(SqliteJournal(str(path))) as journal:
        assert values_of(journal) == [1, 2]


@pytest.mark.parametrize("both", [False, True], ids=["an older -wal", "an older -wal and -shm"])
def test_an_older_one_in_its_place_is_not_played(tmp_path: Path, both: bool) -> None:
    """A copy of the -wal that somebody moves back is not what the file holds."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal, closing(SqliteJournal(str(path))) as other:
        append(journal, 1)
        for suffix in ("-wal", "-shm") if both else ("-wal",):
            shutil.copy(f"{path}{suffix}", tmp_path / f"older{suffix}")
        append(other, 2)
        for older in tmp_path.glob("older*"):
            os.replace(older, f"{path}{older.name.removeprefix('older')}")
        maintain(journal, other)
        append(journal, 3)
        append(other, 4)
        append(journal, 5)
        assert values_of(journal) == values_of(other) == [1, 2, 3, 4, 5]
    with closing(SqliteJournal(str(path))) as journal:
        assert journal.lost is None
        assert values_of(journal) == [1, 2, 3, 4, 5]


def test_a_restore_wins(tmp_path: Path) -> None:
    """Where the file is replaced as well, what counts is the new one: nothing of the old is moved into it."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal, closing(SqliteJournal(str(path))) as other:
        append(journal, 1)
        journal.backup(str(tmp_path / "backup.db"))
        append(other, 2)
        remove(tmp_path, ["-wal", "-shm"])
        os.replace(tmp_path / "backup.db", path)
        maintain(journal, other)
        assert values_of(journal) == values_of(other) == [1]
        append(other, 3)
        assert values_of(journal) == values_of(other) == [1, 3]
