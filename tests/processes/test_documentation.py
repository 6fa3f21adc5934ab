"""What README and docs tell people to type works as it is written, in a clone where `make install` has run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT, gunicorn_server

PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that commands need, and this very environment as .venv."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("statsapi", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def blocks(page: str) -> Iterator[str]:
    """Its blocks of shell."""
    yield from re.findall(r"^ *```sh\n(.*?)^ *```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str, *, having: str) -> list[str]:
    """Lines of its shell blocks, and what stands between backquotes, with this in them; prompts taken away."""
    text = (ROOT / page).read_text()
    lines = [line.removeprefix("$ ").strip() for block in blocks(page) for line in block.splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    return [command for command in [*lines, *spans] if having in command and not command.startswith("#")]


def run(command: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(folder), **env}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=given, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_the_python_that_has_the_packages(page: str) -> None:
    """No `python` or `gunicorn` that a newcomer's path has not, nor a `pip` that Debian refuses."""
    for command in commands(page, having="python -m ") + commands(page, having="gunicorn "):
        if command.startswith(("kill", "systemctl", "install ", "docker")) or command == "python -m …":
            continue
        at = re.search(r"(?<![\w./])(\S*)(python -m |gunicorn )", command)
        if at is not None and command != "python -m gunicorn" and not command.startswith("gunicorn -w"):
            assert at[1] == ".venv/bin/", command
    for command in commands(page, having="pip install"):
        assert command.startswith(".venv/bin/"), command


def test_the_readmes_requests_are_answered(clone: Path, tmp_path: Path) -> None:
    """Each curl line as it stands, but for the port: none is refused, and the first event is counted."""
    lines = [
        line for line in commands("README.md", having="127.0.0.1:8000") if line.startswith("curl ") and "@" not in line
    ]
    assert len(lines) >= 5
    with gunicorn_server(tmp_path / "server", workers=1) as server:
        port = server.target.rpartition(":")[2]
        said = [run(line.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), clone) for line in lines]
    for line, ended in zip(lines, said, strict=True):
        assert ended.returncode == 0, (line, ended.stderr)
        assert "urn:statsapi:problem" not in ended.stdout, (line, ended.stdout)
    assert '"message":"Event stored successfully"' in said[0].stdout
    assert '"count":1,' in said[1].stdout


def test_the_operators_commands_run(clone: Path, tmp_path: Path) -> None:
    """Every `.venv/bin/python -m statsapi …` of README and docs: known, complete, and done."""
    told = {command for page in PAGES for command in commands(page, having=".venv/bin/python -m statsapi")}
    assert len(told) >= 5
    key_line = ""
    with gunicorn_server(tmp_path / "server", workers=1) as server:
        address = server.target.removeprefix("http://")
        journal = f"sqlite:///{tmp_path}/server/events.db"
        for command in sorted(told, key=lambda command: "keys new" not in command):
            typed = re.sub(r"STATSAPI_JOURNAL=\S+ ", "", command)
            typed = typed.replace("/backups/events.db", f"{tmp_path}/b.db").replace(
                "journal backup FILE", "journal backup c.db"
            )
            typed = typed.replace("[ADDRESS [PATH]]", address).replace("check FILE", "check keys.txt")
            typed = typed.replace("NEW", "new.db")
            if typed.endswith("keys new"):
                typed += " --scope read"
            ended = run(typed, clone, STATSAPI_JOURNAL=journal)
            assert ended.returncode == 0, (command, ended.stderr)
            if "keys new" in command:
                key_line = ended.stdout.partition("line: ")[2].splitlines()[0]
                (clone / "keys.txt").write_text(key_line + "\n")
    assert key_line


def test_make_serves_with_what_it_has_installed() -> None:
    """`make serve` and the README's own line start the same."""
    makefile = (ROOT / "Makefile").read_text()
    assert "VENV := .venv\n" in makefile
    assert "\t$(BIN)/gunicorn wsgi:app\n" in makefile
    assert "`.venv/bin/gunicorn wsgi:app`" in (ROOT / "README.md").read_text()
