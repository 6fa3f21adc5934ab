"""`statsapi bench`, `keys revoke` and what `journal` and `keys` say as JSON or on a terminal, with real servers."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from statsapi.journal import START, Checkpoint, Proposal
from statsapi.journal.sqlite import SqliteJournal
from statsapi.keys import Keys, new_key
from statsapi.model import EventBatch, Part
from tests import journal_engines
from tests.command_line import COMMAND, forget_surroundings, run
from tests.servers import DEADLINE_S, ROOT, free_port, statsapi_serve, wait_until


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_surroundings(monkeypatch, tmp_path)


# bench


def test_bench_is_bounded_and_tells_what_it_does(tmp_path: Path) -> None:
    """Its series, rates and percentiles in order; every event that it counts is there, and none elsewhere."""
    folder = tmp_path / "s"
    folder.mkdir()
    with statsapi_serve(folder, "--port", "0", "--workers", "1", "--journal", "memory://") as server:
        began_s = time.monotonic()
        done = run("bench", server.target, "--seconds", "0.3", "--connections", "2", "--json")
        assert time.monotonic() - began_s < DEADLINE_S
        told = done.json
        assert (done.status, done.err) == (0, "")
        assert [phase["phase"] for phase in told["phases"]] == ["one event", "1,000 events", "read"]
        for phase in told["phases"]:
            assert phase["requests"] > 0 == phase["failures"]
            assert 0 < phase["p50_ms"] <= phase["p95_ms"] <= phase["p99_ms"] <= phase["max_ms"]
        single, batches, _ = told["phases"]
        series = server.request("GET", "/series")[1]["series"]
        held = {each["name"]: each["count"] for each in series}
        assert held == {"statsapi-bench": 1 + single["requests"] + 1000 * batches["requests"]}
        assert batches["requests"] <= 200
        said = run("bench", server.target, "--seconds", "0.1", "--series", "mine").out.splitlines()
    assert said[0].startswith("Recording into the series mine of http://127.0.0.1:")
    assert said[1].split() == ["WHAT", "REQUESTS/S", "EVENTS/S", "P50", "MS", "P95", "MS", "P99", "MS", "MAX", "MS"]
    assert len(said) == 5


def test_bench_of_what_takes_no_events(tmp_path: Path) -> None:
    """Nobody there, no key, a rate limit: told before it is measured, or counted as failures."""
    assert run("bench", f"http://127.0.0.1:{free_port()}").status == 69
    for env, status, said in (
        ({"STATSAPI_API_KEYS": new_key(["write"])[1].line()}, 77, "give a key"),
        # Fewer than there are connections, each of which records at least once: however slow the machine is.
        ({"STATSAPI_RATE_LIMIT": "3/minute"}, 1, "statsapi: one event: "),
    ):
        folder = tmp_path / str(status)
        folder.mkdir()
        at = ("--port", "0", "--workers", "1")
        with statsapi_serve(folder, *at, env=env) as server:
            done = run("bench", server.target, "--seconds", "0.1")
        assert done.status == status, done
        assert said in done.err
        assert "Traceback" not in done.err


# keys revoke


def test_a_revoked_key_ends_within_a_second(tmp_path: Path) -> None:
    """By its id, all lines of it; by the key itself, that line alone; comments, mode and a symbolic link stay."""
    (old, old_line), (new, new_line) = new_key(["read"], "reader"), new_key(["read"], "reader")
    (other, other_line) = new_key(["admin"], "other")
    file, link = tmp_path / "held", tmp_path / "keys"
    file.write_text(f"# ours\n{old_line.line()}  # since May\n\n{new_line.line()}\n{other_line.line()}")
    file.chmod(0o640)
    link.symlink_to(file)
    folder = tmp_path / "s"
    folder.mkdir()
    env = {"STATSAPI_API_KEYS_FILE": str(link)}
    with statsapi_serve(folder, "--port", "0", "--workers", "1", "--journal", "memory://", env=env) as server:

        def status(key: str) -> int:
            return int(server.request("GET", "/statistics", headers={"X-API-Key": key})[0])

        assert [status(key) for key in (old, new, other)] == [200] * 3
        assert run("keys", "revoke", str(link), old) == (0, "1 key revoked\n", "")
        wait_until(lambda: status(old) == 401, "the old key to end")
        assert [status(key) for key in (new, other)] == [200] * 2
        assert run("keys", "revoke", str(link), "reader").out == "1 key revoked\n"
        wait_until(lambda: status(new) == 401, "the new key to end")
        assert status(other) == 200
    assert file.read_text() == f"# ours\n\n{other_line.line()}"
    assert (file.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)
    assert Keys(str(file), None).find(other) is not None
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("held.")]


def test_what_cannot_be_revoked_is_told(tmp_path: Path) -> None:
    """No such key, the last one, a file with faults, none at all; the file stays as it is."""
    file = tmp_path / "keys"
    text = f"{new_key(['read'], 'a')[1].line()}\n{new_key(['read'], 'a')[1].line()}\n"
    file.write_text(text)
    for which, status, said in (("b", 1, "has no such key"), ("a", 78, "this is the last key")):
        done = run("keys", "revoke", str(file), which)
        assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
        assert said in done.err
    assert file.read_text() == text
    file.write_text("nonsense\n")
    done = run("keys", "revoke", str(file), "a")
    assert (done.status, done.err.startswith(f"statsapi: {file}, line 1: ")) == (78, True)
    missing = tmp_path / "none"
    done = run("keys", "revoke", str(missing), "a")
    assert (done.status, done.err) == (78, f"statsapi: {missing} cannot be read: No such file or directory\n")


def test_comments_stay_byte_for_byte(tmp_path: Path) -> None:
    """In any encoding: the service reads keys alone."""
    file = tmp_path / "keys"
    kept = b"# f\xfcr Ada\n" + new_key(["read"], "a")[1].line().encode() + b"\n"
    file.write_bytes(kept + new_key(["read"], "b")[1].line().encode() + b"\n")
    assert run("keys", "revoke", str(file), "b") == (0, "1 key revoked\n", "")
    assert file.read_bytes() == kept


def test_a_key_as_json() -> None:
    """`keys new --json` prints the key and its line as JSON."""
    told = run("keys", "new", "--scope", "read", "--id", "x", "--json").json
    assert told["line"].startswith("x read blake2b:")
    assert told["key"].startswith("statsapi_")


# journal


def test_the_journal_as_json_and_on_a_terminal(tmp_path: Path) -> None:
    """`info` and `check` for programs; on a terminal something moves and leaves nothing behind."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))):
        pass
    env = {"STATSAPI_JOURNAL": f"sqlite:///{path}"}
    info = run("journal", "info", "--json", env=env).json
    assert (info["journal"], info["records"], info["last_record"]) == (str(path), 0, None)
    assert run("journal", "check", "--json", env=env).json == {"damages": []}
    leading, following = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "journal", "check"],
        stdout=subprocess.PIPE,
        stderr=following,
        env={**os.environ, **env, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        timeout=60,
    )
    os.close(following)
    shown = os.read(leading, 65536).decode()
    os.close(leading)
    assert (done.returncode, done.stdout) == (0, b"everything is what was written\n")
    assert "reading the journal" in shown
    assert "Traceback" not in shown


def test_compact_gives_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the service stopped the file is as small as what it holds, which is the same; beside it nothing is done."""
    path = tmp_path / "events.db"
    monkeypatch.setenv("STATSAPI_JOURNAL", f"sqlite:///{path}")
    with closing(SqliteJournal(str(path))) as journal:
        for at in range(200):
            journal.append(
                Proposal(EventBatch((Part("default", np.arange(1000), np.random.default_rng(at).random(1000)),)))
            )
        mark = journal.read(START, limit_records=150).mark
        assert journal.replace_prefix(None, Checkpoint(bytes(16), mark, 1, b""))
        journal.maintain()
        held = journal.read(mark)
        refused = run("journal", "compact")
        assert refused.status == 78
        assert "is in use: stop the service first" in refused.err
    before = path.stat().st_size
    done = run("journal", "compact")
    after = path.stat().st_size
    assert (done.status, done.out) == (0, f"{after:,} bytes, before {before:,}\n")
    assert after < before / 3
    with closing(SqliteJournal(str(path))) as journal:
        assert journal.lost is None
        found = journal.read(mark)
        assert (found.mark, found.records) == (held.mark, held.records)
        journal.append(Proposal(EventBatch.single("default", 1, 1.0)))
    assert run("journal", "check").status == 0


OF_FILES = (["compact"], ["salvage", "NEW"], ["backup", "NEW"])
JOURNAL_COMMANDS = (["info"], ["check"], *OF_FILES)
SERVERS = {"redis": "Redis", "redis-cluster": "Redis", "postgresql": "PostgreSQL"}
ENGINES = [name for name in journal_engines.ENGINES if not name.endswith("-always")]


@pytest.mark.parametrize("command", JOURNAL_COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("name", ENGINES)
def test_each_command_on_each_engine(name: str, command: list[str], tmp_path: Path) -> None:
    """A journal that is there is looked at; of one that is no file each command that needs a file says, in one line and
    in the words of that very engine, what to do instead. Where none is there, no command says that all is well.
    """
    words = ["journal", *(str(tmp_path / "new.db") if word == "NEW" else word for word in command)]
    with journal_engines.ENGINES[name](tmp_path) as opener:
        env = {"STATSAPI_JOURNAL": opener.url}
        none = run(*words, env=env)
        assert (none.status, none.out, none.err.count("\n")) == (78, "", 1)
        if not opener.engine.is_kept:
            assert f"statsapi: {opener.engine.kind}:// " in none.err
            return
        with closing(opener.open()) as held:
            held.append(journal_engines.event())
        done = run(*words, env=env)
        opener.close()
        is_file = opener.engine.is_file
    if is_file or command not in OF_FILES:
        assert (done.status, done.err) == (0, "")
        return
    assert (done.status, done.out, done.err.count("\n")) == (78, "", 1)
    assert f"lives in {SERVERS.get(name, opener.engine.kind)}" in done.err
    others = {"SQLite", "sqlite", *SERVERS.values()} - {SERVERS.get(name)}
    assert not [other for other in others if other in done.err]
    verb = "back up" if command[0] == "backup" else command[0]
    assert f"nothing to {verb} from here" in done.err
    assert not (tmp_path / "new.db").exists()


def test_a_journal_that_is_away_or_damaged(tmp_path: Path) -> None:
    """Each command says the same of it: 75 where it is away, 78 where it cannot be used; `check` finds damage, 1."""
    for url in (f"redis://127.0.0.1:{free_port()}/0", f"postgresql://u@127.0.0.1:{free_port()}/d"):
        for words in (["info"], ["check"], ["backup", str(tmp_path / "copy.db")]):
            away = run("journal", *words, env={"STATSAPI_JOURNAL": url})
            assert (away.status, away.err.count("\n")) == (75, 1)
    for words in (["info"], ["check"], ["compact"], ["backup", str(tmp_path / "b")], ["salvage", str(tmp_path / "s")]):
        none = run("journal", *words, env={"STATSAPI_JOURNAL": f"sqlite:///{tmp_path}/none.db"})
        assert (none.status, none.err.count("\n")) == (78, 1)
    path = tmp_path / "events.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(8192))
    for words in (["info"], ["compact"], ["backup", str(tmp_path / "copy.db")]):
        assert run("journal", *words, env={"STATSAPI_JOURNAL": f"sqlite:///{path}"}).status == 78
