"""What a power cut leaves of a real process's journal, at any moment, with any subset of what was not synced."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from statsapi.errors import JournalUnavailable
from statsapi.journal import START, engine_of, sqlite_wal
from statsapi.journal.sqlite import SqliteJournal
from tests.journal_engines import event, events_of, values
from tests.power_cuts import Disk, trace
from tests.servers import ROOT, Server, gunicorn_server, post, wait_until

CUTS = int(os.environ.get("STATSAPI_STRESS_CUTS", "120"))
SEED = int(os.environ.get("STATSAPI_STRESS_SEED", "1"))


def strace_binary() -> str:
    found = shutil.which("strace")
    if found is None:
        if os.environ.get("CI"):
            raise AssertionError("strace is not there")
        pytest.skip("strace is not there")
    return found


def held(path: Path) -> tuple[int, bool]:
    """How many values the journal holds: they rise from 0 without a hole, part of them in the checkpoint's state. And
    whether a check tells that acknowledged ones are gone; it finds nothing else.
    """
    with closing(SqliteJournal(str(path))) as journal:
        checkpoint = journal.read_checkpoint()
        count, mark = 0, START
        if checkpoint is not None:
            count, mark = int.from_bytes(checkpoint.state, "little"), checkpoint.mark
            assert len(journal.read_pieces(checkpoint.id, 0, 1 << 40)) >= 20
        while (segment := journal.read(mark)).records:
            mark = segment.mark
            for change in events_of(segment):
                found = change.values.tolist()
                assert found == [float(value) for value in range(count, count + len(found))]
                count += len(found)
    found = list(engine_of(f"sqlite:///{path}").find_damage())
    gone = [line for line in found if "acknowledged, and no longer at the end" in line]
    assert found == gone
    return count, bool(gone)


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_a_power_cut_loses_what_was_said_and_no_more(fsync: str, tmp_path: Path) -> None:
    """`always` loses nothing that was acknowledged; `interval` a tail, of what came since the last upkeep began; never
    a hole, never damage; and a backup is whole or not there.
    """
    strace = strace_binary()
    folder = tmp_path / "data"
    folder.mkdir()
    calls = trace(folder, fsync, strace)
    random = Random(SEED)
    # Half of them anywhere, half right before or after a sync, where most goes wrong.
    near = [at for at, call in enumerate(calls) if call.name == "sync"]
    cuts = {random.randrange(len(calls)) for _ in range(CUTS // 2)}
    cuts |= {min(len(calls), max(0, random.choice(near) + random.randrange(-1, 3))) for _ in range(CUTS - len(cuts))}
    disk, acknowledged, kept, backed, lost = Disk(folder), 0, 0, 0, 0
    for at, call in enumerate(calls):
        if at in cuts:
            for again in range(2):
                found = tmp_path / f"cut{at}-{again}"
                disk.cut(found, random)
                try:
                    count, told = held(found / "events.db")
                    # The append that was under way may be there as well.
                    assert count >= (acknowledged if fsync == "always" else kept)
                    assert count <= acknowledged + 700
                    assert not told or fsync == "interval"
                    if (found / "backup.db").exists():
                        assert list(engine_of(f"sqlite:///{found}/backup.db").find_damage()) == []
                        assert held(found / "backup.db")[0] >= backed
                    else:
                        assert not backed
                except BaseException as error:
                    error.add_note(f"cut before call {at} of {len(calls)}, {call[:2]}")
                    raise
                lost += count < acknowledged
                shutil.rmtree(found)
        if call.name == "say":
            for word, _, number in (line.partition(" ") for line in call.data.decode().splitlines()):
                if word == "acknowledged":
                    acknowledged = int(number)
                elif word == "kept":
                    kept = int(number)
                elif word == "backed":
                    backed = int(number)
        else:
            disk.do(call)
    assert acknowledged > 1000
    assert (lost > 0) == (fsync == "interval")


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_an_fsync_that_fails_is_unknown_until_the_restart(fsync: str, tmp_path: Path) -> None:
    """The disk refuses one fsync: an append under `always` is of unknown outcome, upkeep under `interval` says so; what
    was acknowledged is there after a restart, and appends go on.
    """
    code = (
        "import sys; from contextlib import closing; from statsapi.errors import JournalUnavailable\n"
        "from statsapi.journal.sqlite import SqliteJournal; from tests.journal_engines import event\n"
        "with closing(SqliteJournal(sys.argv[1], fsync=sys.argv[2])) as journal:\n"
        " for number in range(20):\n"
        "  try: journal.append(event(float(number))); print('acknowledged', number)\n"
        "  except JournalUnavailable as error: print('unknown' if error.outcome_unknown else 'not', number)\n"
        "  try: journal.maintain()\n"
        "  except JournalUnavailable as error: print('upkeep', number)\n"
    )
    told = 0
    for fails in (3, 4, 9, 14):
        path = tmp_path / f"{fails}.db"
        SqliteJournal(str(path)).close()
        inject = f"inject=fsync,fdatasync:error=EIO:when={fails}"
        trace_calls = ["-e", "trace=fsync,fdatasync", "-e", inject, "-o", os.devnull]
        done = subprocess.run(
            [strace_binary(), "-f", *trace_calls, sys.executable, "-c", code, str(path), fsync],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        said = [line.split() for line in done.stdout.splitlines()]
        outcomes = {word: {float(number) for what, number in said if what == word} for word, _ in said}
        # SQLite takes no notice where it was the folder's that failed.
        told += len(outcomes.get("upkeep", ())) + len(outcomes.get("unknown", ()))
        # Under `interval` nothing is recorded after it until an upkeep has moved the whole -wal into the file.
        refused = {number + 1 for number in outcomes.get("upkeep", set())} if fsync == "interval" else set()
        assert outcomes.get("not", set()) == refused
        with closing(SqliteJournal(str(path))) as journal:
            found = values(journal)["default"]
            assert found == sorted(set(found))
            assert outcomes["acknowledged"] <= set(found) <= outcomes["acknowledged"] | outcomes.get("unknown", set())
            assert journal.lost is None
            journal.append(event(99.0))
    assert 3 <= told <= 4


@contextmanager
def failing_fsyncs(server: Server) -> Iterator[None]:
    """Every fsync of every worker fails while the block runs."""
    tracers = []
    try:
        for pid in server.workers():
            calls = ["trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
            command = [strace_binary(), "-f", "-p", str(pid), "-o", os.devnull, "-e", *calls]
            tracers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        for tracer in tracers:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace may not attach here: {said.strip()}")
        yield
    finally:
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_a_service_whose_fsyncs_fail_acknowledges_nothing(fsync: str, tmp_path: Path) -> None:
    """`always`: each post is of unknown outcome. `interval`: from the next upkeep on nothing is recorded, and the log
    says why. Both: /readyz says it, reads go on, and what was acknowledged is there after a kill and a restart.
    """
    acknowledged, unknown, sent = set[float](), set[float](), iter(range(1000))

    def record() -> str:
        value = float(next(sent))
        status, body = post(server, value)
        if status == 200:
            acknowledged.add(value)
            return "acknowledged"
        assert status == 503
        assert f"the disk that holds {tmp_path}/events.db fails" in body["detail"]
        outcome: str = body["outcome"]
        if outcome == "unknown":
            unknown.add(value)
        return outcome

    def answers() -> set[float]:
        status, body = server.request("GET", "/debug/events")
        assert status == 200
        return {event["value"] for event in body["events"]}

    with gunicorn_server(tmp_path, workers=2, env={"STATSAPI_FSYNC": fsync}) as server:
        server.wait_for_journals(2)
        assert {record() for _ in range(20)} == {"acknowledged"}
        with failing_fsyncs(server):
            if fsync == "interval":
                wait_until(lambda: server.log.count("Nothing is recorded until") >= 2, "both workers to find out")
            expected = "unknown" if fsync == "always" else "not recorded"
            assert {record() for _ in range(30)} == {expected}
            wait_until(lambda: {server.request("GET", "/readyz")[0] for _ in range(8)} == {503}, "both to say so")
            assert answers() == acknowledged
        wait_until(lambda: {server.request("GET", "/readyz")[0] for _ in range(8)} == {200}, "both to go on")
        assert {record() for _ in range(20)} == {"acknowledged"}
        assert answers() == acknowledged
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        server.wait_for_journals(4)
        assert acknowledged <= answers() <= acknowledged | unknown
        assert "Traceback" not in server.log
        assert "LOST" not in server.log
    with gunicorn_server(tmp_path, workers=1) as server:
        assert acknowledged <= answers() <= acknowledged | unknown


def test_after_a_flush_that_failed_the_wal_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system forgets what it could not write, so a later flush says nothing: the file must hold all of it, and the
    -wal nothing, before anything is recorded again.
    """
    path = str(tmp_path / "events.db")

    def refuse(real: str) -> None:
        raise JournalUnavailable("the disk fails") from OSError(5, "Input/output error")

    with closing(SqliteJournal(path)) as journal, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        journal.append(event(1.0))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchall()
        journal.append(event(2.0))
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_wal, "flush", refuse)
            with pytest.raises(JournalUnavailable, match="the disk fails"):
                journal.maintain()
        for _ in range(2):  # the reader is in the way
            with pytest.raises(JournalUnavailable, match="may not survive a power cut"):
                journal.append(event(99.0))
            with pytest.raises(JournalUnavailable, match="may not survive a power cut"):
                journal.check_writable()
            journal.maintain()
        assert os.stat(f"{path}-wal").st_size > 0
        reader.execute("COMMIT")
        journal.maintain()
        assert os.stat(f"{path}-wal").st_size == 0
        journal.append(event(3.0))
        assert values(journal) == {"default": [1.0, 2.0, 3.0]}
