"""`statsapi stats`, `top`, `check`, `post` and `time`, with a real server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import COMMAND, forget_surroundings, run, run_process
from tests.servers import DEADLINE_S, ROOT, Server, free_port, statsapi_serve, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    with statsapi_serve(folder, "--port", "0", "--workers", "1", "--journal", "memory://") as started:
        yield started


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> None:
    forget_surroundings(monkeypatch, tmp_path)
    monkeypatch.setenv("STATSAPI_URL", server.target)


def figures(server: Server, series: str) -> dict[str, Any]:
    found: dict[str, Any] = server.request("GET", f"/statistics?series={series}")[1]
    return found


def recorded(server: Server, series: str, count: int) -> bool:
    return bool(figures(server, series)["count"] == count)


# post


def test_post_records_one_event(server: Server) -> None:
    """A value, negative ones too, with series, tags and time; what the service has to say about it is passed on."""
    assert run("post", "42.5", "--series", "one") == (0, "", "")
    assert run("post", "-5", "--series", "one").status == 0
    assert run("post", "--series", "one", "-1e3").status == 0
    assert figures(server, "one") == {"count": 3, "min": -1000.0, "max": 42.5, "mean": -962.5 / 3}
    assert run("post", "1", "--series", "t", "--tag", "b=2", "--tag", "a=x=y", "--json").json["status"] == "success"
    assert figures(server, "t;a=x=y;b=2")["count"] == 1
    said = run("post", "1", "--series", "old", "--timestamp", "2020-01-01T00:00:00Z")
    assert said.status == 0
    assert "in no window" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "VALUE: 'x' is no number such as 42.5"),
        (["nan"], "no finite number"),
        (["1e999"], "no finite number"),
        (["9" * 400], "is no number"),
        (["--seris", "1"], "unexpected extra argument"),
        (["--seris=1"], "no such option '--seris'"),
        (["1", "--tag", "a"], "'a' is not KEY=VALUE"),
        (["1", "--tag", "a=1", "--tag", "a=2"], "a is given twice"),
        (["1", "--series", ""], "the series is empty"),
        (["-", "--timestamp", "now"], "--timestamp is for one value"),
        ([], "missing argument 'VALUE'"),
    ],
)
def test_what_post_cannot_record_is_a_wrong_command_line(arguments: list[str], said: str) -> None:
    """Status 2 before anything is sent."""
    done = run("post", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_post_takes_lines(server: Server) -> None:
    """Values, times with values, blank lines; what is no event is told by its line and left out; the rest counts."""
    text = "1\n2.5\n\n nope \n2020-01-01T00:00:00Z 7\n1 2 3\n13/13/2026 4\n-1e1\nInfinity\n"
    done = run("post", "-", "--series", "lines", text=text)
    assert (done.status, done.out) == (1, "4 recorded, 4 refused\n")
    for said in ("line 4: 'nope' is no number", "line 6: ", "line 7: the time ", "line 9: 'Infinity'", "expired"):
        assert said in done.err
    assert figures(server, "lines")["count"] == 3
    assert run("post", "-", "--series", "lines", "--json", text="1\n2\n").json == {"recorded": 2, "refused": 0}
    assert run("post", "-").out == "0 recorded\n"
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 7200))
    local = run("post", "-", "--series", "local", text=f"{at} 1\n")
    assert "write the offset (such as +02:00).\n" in local.err
    refused = run("post", "-", "--series", "=x", text="1\n")
    assert (refused.status, refused.out) == (1, "")
    assert "series" in refused.err


def test_post_records_lines_as_they_come(server: Server) -> None:
    """`tail -f log | statsapi post -`: an event counts while the pipe stays open, and after ^C."""
    command = [*COMMAND, "post", "-", "--series", "pipe"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        for count in (1, 2):
            sender.stdin.write(b"5\n")
            sender.stdin.flush()
            wait_until(partial(recorded, server, "pipe", count), f"event {count}")
        sender.send_signal(signal.SIGINT)
        assert sender.wait(DEADLINE_S) == 130
        assert sender.stdout.read() == b"2 recorded\n"


# stats, top, check


@pytest.fixture(scope="module")
def _filled(server: Server) -> None:
    for value, series in ((1, "web.a"), (3, "web.a"), (8, "web.b")):
        event = {"value": value, "series": series, "tags": {"route": f"/{value}"}, "timestamp": time.time()}
        assert server.request("POST", "/event", event)[0] == 200


@pytest.mark.usefixtures("_filled")
def test_stats_says_what_the_service_says() -> None:
    """As lines, as JSON, of one series, of many, of what is chosen, of a range, of nothing."""
    said = run("stats", "--match", "web.*", "--window", "5m")
    assert said.out.splitlines()[:5] == [
        "match web.*, 5m",
        "STATISTIC    VALUE",
        "count            3",
        "rate          0.01",
        "mean             4",
    ]
    assert run("stats", "--match", "web.*", "--where", "route=/8", "--stats", "count,max", "--json").json["max"] == 8
    assert run("stats", "web.a;route=/1", "web.b;route=/8", "--json").json["count"] == 2
    assert run("stats", "--match", "*", "--start", "now-2m", "--end", "now-1m", "--json").json["count"] == 0
    assert "mean   -" in re.sub(" +", " ", run("stats", "none").out).replace("mean -", "mean   -")
    done = run("stats", "--window", "soon")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "window" in done.err


@pytest.mark.usefixtures("_filled")
def test_a_series_that_is_not_there_is_told() -> None:
    """On standard error, by `stats`, `export` and `tags`; one that is there is not, whatever else begins like it."""
    said = "statsapi: there is no series 'web'; `statsapi series` lists those there are\n"
    for arguments in (["stats", "web"], ["stats", "web", "--json"], ["export", "web"]):
        done = run(*arguments)
        assert (done.status, done.err) == (0, said)
    done = run("tags", "nope")
    assert (done.status, done.err.partition(";")[0]) == (0, "statsapi: no series carries a tag 'nope'")
    for arguments in (["stats", "web.a;route=/1", "--start", "now-1s"], ["export", "web.a;route=/1"]):
        assert run(*arguments).err == ""
    assert run("tags", "route").err == ""


@pytest.mark.usefixtures("_filled")
def test_tags_of_some_series() -> None:
    """Those that carry another tag, and fit a name."""
    assert run("tags", "--where", "route=/8").out.splitlines() == ["KEY    SERIES", "route       1"]
    assert run("tags", "route", "--where", "route=/8", "--where", "route=/1").out.splitlines() == ["VALUE  SERIES"]
    assert run("tags", "route", "--where", "route=/?", "--match", "web.b*").out.splitlines()[1:] == ["/8          1"]
    assert run("tags", "route", "--where", "none=*").err == ""


@pytest.mark.usefixtures("_filled")
def test_top_sorts_groups() -> None:
    """By a statistic that is no column yet, by a tag, with how many are not shown."""
    by_tag = run("top", "--match", "web.*", "--by", "route", "--order", "-p90", "--stats", "count")
    assert by_tag.out.splitlines() == [
        "ROUTE  COUNT  P90",
        "/8         1    8",
        "/3         1    3",
        "/1         1    1",
    ]
    wrong = run("top", "--order", "-p101")
    assert (wrong.status, wrong.err) == (
        1,
        "statsapi: --order: 'p101' is not a percentile: write p0 to p100, such as p95 or p99.9\n",
    )
    limited = run("top", "--match", "web.*", "--order", "series", "--limit", "1", "--stats", "mean")
    assert limited.out.splitlines() == ["SERIES          MEAN", "web.a;route=/1     1"]
    assert limited.err == "and 2 more; --limit shows them\n"
    assert [group["max"] for group in run("top", "--match", "web.*", "--order", "-max", "--json").json["groups"]] == [
        *(8, 3, 1)
    ]


@pytest.mark.usefixtures("_filled")
def test_check_is_an_exit_status() -> None:
    """0 and 1 as GET /check; what cannot be said is neither."""
    held = run("check", "p95<500", "count>=3", "--match", "web.*")
    assert held == (0, "p95<500 holds: it is 7.5\ncount>=3 holds: it is 3\n", "")
    assert run("check", "count>=3", "--match", "web.*", "-q") == (0, "", "")
    failed = run("check", "count>=3,max<5", "--match", "web.*")
    assert failed == (1, "count>=3 holds: it is 3\nmax<5 does not hold: it is 8.0\n", "")
    grouped = run("check", "max<5", "--match", "web.*", "--by", "route", "-q")
    assert grouped == (
        1,
        "/8: max<5 does not hold: it is 8.0\n1 of 3 groups do not hold\n".replace("/8", "route=/8"),
        "",
    )
    assert run("check", "mean<5", "--series", "none").out == "mean<5 does not hold: it is null for 0 events\n"
    assert run("check", "max<5", "--match", "web.*", "--json").json["conditions"][0]["held"] is False
    assert run("check", "max<<5").status == 2
    assert run("check", "max<5", "--url", f"http://127.0.0.1:{free_port()}").status == 69


def test_watching_goes_on_when_the_service_was_away(tmp_path: Path) -> None:
    """In a pipe: a line for each look, one line when it is away, and figures again when it is back."""
    port = str(free_port())
    folder = tmp_path / "served"
    folder.mkdir()
    at = ["--port", port, "--workers", "1"]
    command = [*COMMAND, "stats", "--watch", "--interval", "0.1", "--url", f"http://127.0.0.1:{port}", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        with statsapi_serve(folder, *at):
            watcher = subprocess.Popen(command, stdout=out, stderr=err, env=env)
            wait_until(lambda: (tmp_path / "out").read_text().count("\n") > 1, "figures")
        try:
            wait_until(lambda: "going on when it is back" in (tmp_path / "err").read_text(), "the news")
            seen = (tmp_path / "out").read_text().count("\n")
            with statsapi_serve(folder, *at):
                wait_until(lambda: (tmp_path / "out").read_text().count("\n") > seen, "figures again")
                watcher.send_signal(signal.SIGINT)
                assert watcher.wait(DEADLINE_S) == 130
        finally:
            watcher.kill()
            watcher.wait()
    assert (tmp_path / "err").read_text().strip().count("\n") == 0
    assert all(json.loads(line)["count"] == 0 for line in (tmp_path / "out").read_text().splitlines())


def on_terminal(*arguments: str, until: str, keys: bytes = b"") -> tuple[str, int]:
    """The screen of a command on a terminal of its own until it shows `until`; then `keys` are pressed."""
    leading, following = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=following, stdout=following, stderr=following, env=env, start_new_session=True
    )
    os.close(following)
    shown, end_s, pressed = b"", time.monotonic() + DEADLINE_S, False
    try:
        while time.monotonic() < end_s:
            if select.select([leading], [], [], 0.1)[0]:
                try:
                    piece = os.read(leading, 65536)
                except OSError:  # Linux: everybody has closed it
                    break
                if not piece:
                    break
                shown += piece
            if keys and not pressed and until in shown.decode(errors="replace"):
                os.kill(process.pid, signal.SIGINT)
                pressed = True
        status = process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        os.close(leading)
    text = shown.decode()
    assert until in text, text
    return text, status


@pytest.mark.usefixtures("_filled")
def test_a_terminal_gets_a_table_and_a_sparkline() -> None:
    """Once, and live until ^C; no traceback, and names are text, not markup."""
    text, status = on_terminal("stats", "--match", "web.*", until="▁")
    assert status == 0
    assert "Traceback" not in text
    text, status = on_terminal("stats", "--match", "web.*", "--watch", "--interval", "0.1", until="▁", keys=b"\x03")
    assert status == 130
    assert "Traceback" not in text
    assert run("post", "1", "--series", "web.[red]x[/nope]").status == 0
    text, status = on_terminal("series", "web.[", until="web.[red]x[/nope]")
    assert status == 0


# time


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_time_ends_as_the_command_did(server: Server, script: str, status: int) -> None:
    """Its status, 128 + n for a signal; its outputs and input are its own; duration and status are recorded."""
    series = f"job{status}"
    done = run_process("time", "--series", series, "--tag", "host=a", "--", "sh", "-c", f"cat; {script}", text="in\n")
    assert done == (status, "in\n", "")
    found = figures(server, f"{series};command=sh;host=a;status={status}")
    assert found["count"] == 1
    assert 0 < found["min"] < DEADLINE_S


def test_time_needs_no_dashes_and_no_options_of_the_command_are_its_own() -> None:
    """`statsapi time sh -c …`: --help, --series and bytes that are no text go to the command."""
    assert run_process("time", "echo", "--help", "--series").out == "--help --series\n"
    assert run_process("time", "printf", "%s", "a b  c").out == "a b  c"
    command: list[str | bytes] = [*COMMAND, "time", "printf", "%s", b"\xff"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xff", b"")


def test_time_of_what_cannot_run(server: Server, tmp_path: Path) -> None:
    """127 for what is not there, 126 for what may not run, as shells; both are recorded."""
    (tmp_path / "text").write_text("x")
    for command, status in (("no-such-command", 127), (str(tmp_path / "text"), 126)):
        done = run_process("time", "--series", "never", command)
        assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
    assert run("stats", "--match", "never*", "--json", "--stats", "count").json["count"] == 2


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"STATSAPI_URL": "http://127.0.0.1:1"}, "nothing listens"),
        ({"STATSAPI_URL": "nonsense"}, "is no URL"),
        ({"STATSAPI_CONFIG": "/no/such/file"}, "is not there"),
        ({"STATSAPI_API_KEY": "schlüssel"}, "characters that no key has"),
    ],
)
def test_a_service_that_is_away_changes_nothing_of_the_command(env: dict[str, str], said: str) -> None:
    """It runs, its status stands, and one line on standard error warns, which cron mails."""
    for script, status in (("echo done", 0), ("echo done; exit 3", 3)):
        done = run_process("time", "--retry", "0", "sh", "-c", script, env=env)
        assert (done.status, done.out, done.err.count("\n")) == (status, "done\n", 1)
        assert done.err.startswith("statsapi: warning: ")
        assert said in done.err


def test_signals_reach_the_command(server: Server) -> None:
    """SIGTERM to us ends the command as it likes to end, and that is recorded."""
    script = 'trap "echo bye; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    command = [*COMMAND, "time", "--series", "told", "bash", "-c", script]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"bye\n"
        assert process.wait(DEADLINE_S) == 9
        assert process.stderr.read() == b""
    assert figures(server, "told;command=bash;status=9")["count"] == 1
