"""`statsapi serve`: real servers started from an empty folder, and every refusal in one line.

tests/processes/test_packaging.py starts the installed command; here it is `python -m statsapi serve` of this checkout.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config, make_settings

from statsapi import __version__
from statsapi.cli.main import main
from statsapi.server import gunicorn_conf, hooks
from statsapi.server.board import Board
from tests.command_line import COMMAND, run_process
from tests.servers import DEADLINE_S, ROOT, post, serve_environment, statsapi_serve, wait_until


def refused(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """The exit status of `statsapi serve`, and what it says but for Gunicorn's own greeting."""
    done = subprocess.run(
        [sys.executable, "-m", "statsapi", "serve", *arguments],
        cwd=folder,
        env=serve_environment(folder, env),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "Starting gunicorn" not in line]
    assert len(said) == 1, said
    return done.returncode, said[0]


def test_it_serves_from_an_empty_folder(tmp_path: Path) -> None:
    """An event posted is read back, lies in the folder, is there after a restart; the place is told at start."""
    folder = tmp_path / "empty"
    folder.mkdir()
    for count in (1, 2):
        with statsapi_serve(folder, "--port", "0") as server:
            assert f"The journal is {folder}/data/events.db: " in server.log
            assert "Listening at: http://127.0.0.1:" in server.log
            assert post(server, 42.5)[0] == 200
            assert server.request("GET", "/statistics")[1]["count"] == count
            server.signal(signal.SIGTERM)
            assert server.process.wait(DEADLINE_S) == 0
            assert "Traceback" not in server.log
    assert [path.name for path in folder.iterdir()] == ["data"]
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["events.db", "events.db-mark"]


def test_options_reach_gunicorn(tmp_path: Path) -> None:
    """Ours, those after --, and the packaged configuration below them, as Gunicorn itself tells."""
    own = ["--host", "localhost", "--port", "0", "--workers", "3", "--threads", "2"]
    journal = f"sqlite:///{tmp_path}/elsewhere.db"
    passed_on = ["--log-level", "debug", "--keep-alive", "7"]
    env = {"STATSAPI_JOURNAL": "sqlite:////nowhere/x.db", "GUNICORN_CMD_ARGS": "--keep-alive 9 --max-requests 5000"}
    with statsapi_serve(tmp_path, *own, "--journal", journal, "--", *passed_on, env=env) as server:
        server.wait_for_journals(3)
        for line in ("workers: 3", "threads: 2", "keepalive: 7", "max_requests: 5000", "bind: ['localhost:0']"):
            assert f"  {line}\n" in server.log
        assert f"worker_class: {gunicorn_conf.worker_class}" in server.log
        assert len(server.workers()) == 3
    assert (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_listened_at(tmp_path: Path, host: str) -> None:
    """With or without brackets; the log has it as it stands in a URL."""
    with statsapi_serve(tmp_path, "--host", host, "--port", "0") as server:
        assert server.target.startswith("http://[::1]:")
        assert server.request("GET", "/healthz") == (200, {"status": "ok"})


def test_a_folder_to_write_in_and_a_home_are_not_needed(tmp_path: Path) -> None:
    """With a journal elsewhere it serves from a folder that cannot be written, and without HOME."""
    journal = tmp_path / "journal"
    command = ("env", "-u", "HOME", "sh", "-c", 'cd /proc; exec "$@"', "sh", sys.executable, "-m", "statsapi")
    with statsapi_serve(
        tmp_path, "--port", "0", "--journal", f"sqlite:///{journal}/events.db", command=command
    ) as server:
        assert os.readlink(f"/proc/{server.process.pid}/cwd") == "/proc"
        assert b"\0HOME=" not in b"\0" + Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert post(server, 1.5)[0] == 200
        assert f"The journal is {journal}/events.db: " in server.log
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_a_folder_in_which_no_journal_can_be_made_is_named(tmp_path: Path) -> None:
    """The journal's default place is below the current folder: one that cannot be written is refused with the cure, and
    one that is gone as well, by `serve` and `config` alike.
    """
    status, line = refused(Path("/proc"), "--port", "0")
    assert (status, "the folder /proc/data cannot be made (" in line) == (78, True), line
    assert line.endswith("make it, or name another by --journal or STATSAPI_JOURNAL")
    for command in ("serve", "config"):
        done = subprocess.run(
            ["sh", "-c", f'mkdir {command}; cd {command}; rmdir ../{command}; exec "$@"', "sh", *COMMAND, command],
            cwd=tmp_path,
            env=serve_environment(tmp_path, {}),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert (done.returncode, done.stderr) == (
            78,
            "statsapi: the current folder does not exist any more: start from another\n",
        )


@pytest.mark.parametrize(("given", "workers"), [("2", 2), ("  ", None), ("", None)])
def test_the_number_of_workers_is_what_platforms_set(tmp_path: Path, given: str, workers: int | None) -> None:
    """WEB_CONCURRENCY, and set to nothing it is unset, which Gunicorn alone does not survive."""
    with statsapi_serve(tmp_path, "--port", "0", env={"WEB_CONCURRENCY": given}) as server:
        expected = workers or gunicorn_conf.workers
        wait_until(lambda: len(server.workers()) == expected, f"{expected} workers")


@pytest.mark.parametrize(
    ("arguments", "concurrency", "status", "said"),
    [
        (["--workers", "0"], "", 2, "statsapi serve: --workers: '0' is not a whole number from 1 "),
        (["--workers", "-1"], "", 2, "statsapi serve: --workers: '-1' is not a whole number from 1 "),
        (["--workers", str(Board.SLOTS + 1)], "", 2, f"is not a whole number from 1 to {Board.SLOTS}"),
        (["--threads", "0"], "", 2, "statsapi serve: --threads: '0' is not a whole number from 1 "),
        (["--threads", "many"], "", 2, "statsapi serve: --threads: 'many' is not a whole number from 1 "),
        (["--port", "65536"], "", 2, "statsapi serve: --port: '65536' is not a whole number from 0 to 65535"),
        (["--port", "-1"], "", 2, "--port"),
        (["--port", ""], "", 2, "'' is not a whole number"),
        (["--port", "abc"], "", 2, "statsapi serve: --port: 'abc' is not a whole number from 0 to 65535"),
        (["--port", "99999"], "", 2, "'99999' is not a whole number from 0 to 65535"),
        (["--host", "/run/x"], "", 2, "a Unix socket is given as `-- --bind unix:/path`"),
        (["--host", "unix:/run/x"], "", 2, "a Unix socket is given as `-- --bind unix:/path`"),
        (["--host", ""], "", 2, "'' is not an address or a name"),
        (["--host", "a:b:8000"], "", 2, "is not an address or a name"),
        (["--work", "2"], "", 2, "statsapi serve: no such option '--work'; Gunicorn's options stand after --"),
        (["--bind", "127.0.0.1:0"], "", 2, "no such option '--bind'; Gunicorn's options stand after --"),
        ([], "abc", 78, "statsapi: WEB_CONCURRENCY='abc': must be a whole number from 1"),
        (["--workers", "2"], "2.5", 78, "statsapi: WEB_CONCURRENCY='2.5': must be a whole"),
        ([], "0", 78, "WEB_CONCURRENCY='0'"),
    ],
)
def test_what_cannot_work_is_refused_before_gunicorn_is_imported(
    arguments: list[str],
    concurrency: str,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line names what to change: status 2 for the command line, 78 for WEB_CONCURRENCY."""
    monkeypatch.setenv("WEB_CONCURRENCY", concurrency)
    ended = main(["serve", *arguments])
    out, err = capsys.readouterr()
    assert (ended, out, err.count("\n")) == (status, "", 1)
    assert said in err


COUNTS = {  # numbers of workers and threads that cannot work, by GUNICORN_CMD_ARGS
    "--workers 0": "0 workers cannot answer anything: set --workers or WEB_CONCURRENCY to 1 or more",
    f"--workers {Board.SLOTS + 1}": f"set --workers or WEB_CONCURRENCY to {Board.SLOTS} or less",
    "--threads 0": "0 threads cannot answer anything: set --threads to 1 or more",
    "--threads 1001": "1001 threads are more than the 1000 connections that a worker can have: set --threads to 1000",
    "--worker-connections 3": "4 threads are more than the 3 connections that a worker can have",
    "--worker-connections 0": "set --worker-connections to 1 or more",
}
SETTINGS = {  # environments that cannot work, and what is said of them
    "STATSAPI_WINDOW=soon": "STATSAPI_WINDOW='soon': must be a duration",
    "STATSAPI_JOURNAL=kafka://x": "no journal engine for 'kafka'",
    "STATSAPI_REDIS_WAIT_REPLICAS=1": "STATSAPI_REDIS_WAIT_REPLICAS is for a journal in Redis",
    "STATSAPI_API_KEYS=x": "must have 3 words",
    "STATSAPI_PATH_PREFIX=/events": "begins like an endpoint",
    "SCRIPT_NAME=/events": "begins like an endpoint",
    f"WEB_CONCURRENCY={Board.SLOTS + 1}": f"set --workers or WEB_CONCURRENCY to {Board.SLOTS} or less",
    "WEB_CONCURRENCY=5000000": "5000000 workers are more than",
    **{f"GUNICORN_CMD_ARGS={arguments}": said for arguments, said in COUNTS.items()},
}


@pytest.mark.parametrize("given", SETTINGS)
def test_what_serve_refuses_is_refused_by_each_that_judges(tmp_path: Path, given: str) -> None:
    """`statsapi serve`, its --check-config, `gunicorn wsgi:app`, its --check-config, and `statsapi config` say the same
    line, and end with status 78.
    """
    variable, _, value = given.partition("=")
    env = {variable: value}
    status, line = refused(tmp_path, "--port", "0", **env)
    assert (status, SETTINGS[given] in line) == (78, True), line
    reason = line.partition("Refusing to start: ")[2]
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    for command, folder in (
        ((sys.executable, "-m", "statsapi", "serve", "--", "--check-config"), tmp_path),
        ((sys.executable, "-m", "statsapi", "config"), tmp_path),
        ((gunicorn, "--check-config", "wsgi:app"), ROOT),
        ((gunicorn, "--bind", "127.0.0.1:0", "wsgi:app"), ROOT),
    ):
        journal = {"STATSAPI_JOURNAL": f"sqlite:///{tmp_path}/x.db"}
        done = subprocess.run(
            command,
            cwd=folder,
            env=serve_environment(tmp_path, journal | env),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        said = [line for line in done.stderr.splitlines() if "Starting gunicorn" not in line]
        assert (done.returncode, len(said)) == (78, 1), done.stderr
        assert said[0].endswith(reason), command


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WEB_CONCURRENCY", "abc", "WEB_CONCURRENCY='abc': must be a whole number from 1"),
        ("WEB_CONCURRENCY", "-1", "WEB_CONCURRENCY='-1': must be a whole number from 1"),
        ("GUNICORN_CMD_ARGS", "--nonsense", "in GUNICORN_CMD_ARGS: unrecognized arguments: --nonsense"),
        ("GUNICORN_CMD_ARGS", "--timeout -5", "timeout: Value must be positive: -5"),
        ("GUNICORN_CMD_ARGS", "--bind 'x", "No closing quotation"),
    ],
)
def test_config_judges_what_gunicorn_would_read(tmp_path: Path, variable: str, value: str, said: str) -> None:
    """One line beside the table, and status 78 as for any other setting; a second fault has its own line."""
    for more, lines in (({}, 1), ({"STATSAPI_WINDOW": "soon"}, 2)):
        done = run_process("config", env={variable: value, **more}, cwd=tmp_path)
        assert (done.status, done.err.count("\n")) == (78, lines), done.err
        assert said in done.err
        assert "STATSAPI_RETENTION" in done.out
    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_there_can_be_are_not_started_later() -> None:
    """A reload with more workers than the board has slots stays at that many, and so does each TTIN."""
    warned: list[str] = []
    server = SimpleNamespace(
        cfg=Config(), num_workers=2, log=SimpleNamespace(warning=lambda text, *values: warned.append(text % values))
    )
    server.cfg.set("workers", 5_000_000)
    hooks.on_reload(server)
    assert server.cfg.workers == Board.SLOTS
    hooks.nworkers_changed(server, Board.SLOTS, Board.SLOTS - 1)
    assert (server.num_workers, warned) == (2, [])
    hooks.nworkers_changed(server, Board.SLOTS + 1, Board.SLOTS)
    assert server.num_workers == Board.SLOTS
    assert warned == [f"Staying at {Board.SLOTS} workers: one server can have no more"]


@pytest.mark.parametrize(
    ("arguments", "env", "status", "said"),
    [
        (["--host", "no.such.host.invalid", "--port", "0"], {}, 78, "with --host or --port"),
        (["--port", "0", "--host", "203.0.113.7"], {}, 78, "does not have that address: choose another with --host"),
        (["--", "--nonsense", "3"], {}, 2, "statsapi serve: after --: unrecognized arguments: --nonsense"),
        (["--", "--keep-alive", "long"], {}, 2, "after --: argument --keep-alive: invalid int value: 'long'"),
        (["--", "--bind"], {}, 2, "after --: argument -b/--bind: expected one argument"),
        (["--", "other:app"], {}, 2, "after --: unexpected 'other:app'"),
        (["--", "--timeout", "-5"], {}, 2, "timeout: Value must be positive: -5"),
        (["--", "--config", "none.py"], {}, 2, "'none.py' doesn't exist"),
        (["--", "--bind", "127.0.0.1:abc"], {}, 2, "bind: '127.0.0.1:abc' is not an address"),
        (["--", "--bind", "::1:8000"], {}, 2, "write HOST:PORT, [IPV6]:PORT or unix:/path/to/socket"),
        ([], {"GUNICORN_CMD_ARGS": "--bind [::1"}, 2, "bind: '[::1' is not an address"),
        (["--host", "fe80::1", "--port", "0"], {}, 78, "(Invalid argument): choose another with --host or --port"),
        (["--", "--bind", "unix:"], {}, 78, "write --bind unix:/path/to/socket"),
        (["--", "--bind", "unix:/nope/sock"], {}, 78, "unix:/nope/sock cannot be made, as its folder is not there"),
        ([], {"GUNICORN_CMD_ARGS": "--nonsense"}, 2, "in GUNICORN_CMD_ARGS: unrecognized arguments: --nonsense"),
        ([], {"GUNICORN_CMD_ARGS": "other:app"}, 2, "in GUNICORN_CMD_ARGS: unexpected 'other:app'"),
        ([], {"GUNICORN_CMD_ARGS": "--bind 'x"}, 2, "No closing quotation"),
        (["--journal", "kafka://x", "--port", "0"], {}, 78, "no journal engine for 'kafka'"),
        (["--journal", "sqlite:////proc/none/x.db", "--port", "0"], {}, 78, "/proc/none"),
        (["--journal", "sqlite:////tmp", "--port", "0"], {}, 78, "it is a folder: name a file in it"),
        (
            ["--journal", f"sqlite:///{__file__}/x.db", "--port", "0"],
            {},
            78,
            "as a file stands in its way: name another",
        ),
        (["--journal", "memory://", "--port", "0", "--workers", "2"], {}, 78, "start one (--workers 1"),
        (["--port", "0"], {"STATSAPI_WINDOW": "soon"}, 78, "STATSAPI_WINDOW='soon'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    tmp_path: Path, arguments: list[str], env: dict[str, str], status: int, said: str
) -> None:
    """Also what Gunicorn finds, and what is wrong with settings, journal and address."""
    ended, line = refused(tmp_path, *arguments, **env)
    assert (ended, said in line) == (status, True), line


def test_a_port_in_use_is_named_with_its_option(tmp_path: Path) -> None:
    """The address, who has it, and the option of this command, not Gunicorn's."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        status, line = refused(tmp_path, "--port", str(port))
    assert status == 78
    assert f"127.0.0.1:{port} is in use by process {os.getpid()} " in line
    assert line.endswith("choose another with --host or --port")


def test_reload_and_upgrade(tmp_path: Path) -> None:
    """HUP starts new workers with the same options; USR2 starts the same command again on the same socket, and no
    request in between fails.
    """
    given = ["--port", "0", "--journal", f"sqlite:///{tmp_path}/e.db", "--", "--pid", str(tmp_path / "pid")]
    with statsapi_serve(tmp_path, "--workers", "2", *given) as server:
        server.wait_for_journals(2)
        counts = [0]

        def record() -> bool:
            assert post(server, 1.0)[0] == 200
            counts.append(server.request("GET", "/statistics")[1]["count"])
            assert counts[-1] == counts[-2] + 1
            return True

        before = server.workers()
        server.signal(signal.SIGHUP)
        wait_until(lambda: record() and len(server.workers() - before) == 2 == len(server.workers()), "new workers")
        server.signal(signal.SIGUSR2)
        wait_until(lambda: record() and (tmp_path / "pid.2").exists(), "the second arbiter")
        server.wait_for_journals(6)
        second = int((tmp_path / "pid.2").read_text())
        command = Path(f"/proc/{second}/cmdline").read_bytes().split(b"\0")[1:-1]
        assert command == Path(f"/proc/{server.process.pid}/cmdline").read_bytes().split(b"\0")[1:-1]
        server.signal(signal.SIGTERM)
        wait_until(lambda: record() and server.process.poll() is not None, "the first arbiter's end")
        record()
        assert "Traceback" not in server.log
        os.kill(second, signal.SIGTERM)
        wait_until(lambda: server.log.count("Shutting down: Master") == 2, "the second arbiter's end")


def test_the_files_configuration_is_the_packaged_one() -> None:
    """gunicorn.conf.py adds no setting and changes none."""
    names = make_settings().keys()

    def settings(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in names}

    assert settings(runpy.run_path(str(ROOT / "gunicorn.conf.py"))) == settings(vars(gunicorn_conf))
    assert {"bind", "workers", "worker_class", "pre_fork", "wsgi_app"} <= settings(vars(gunicorn_conf)).keys()


def test_the_version_and_the_commands_are_told() -> None:
    """`--version` is that of the package; `--help` and `serve -- --help` end with 0."""
    for arguments, said in (
        (["--version"], f"statsapi {__version__}\n"),
        (["--help"], "serve"),
        (["serve", "--help"], "--journal URL"),
        (["serve", "--", "--help"], "--keep-alive"),
    ):
        done = subprocess.run([sys.executable, "-m", "statsapi", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout
