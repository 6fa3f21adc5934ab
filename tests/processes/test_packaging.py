"""What is built and installed: the wheel, in an empty environment, serves from an empty folder.

Installing wants a package index. Where none can be reached these tests are skipped, but CI must reach one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from statsapi import __version__
from tests.programs import require_binary
from tests.servers import DEADLINE_S, ROOT, post, serve_environment, statsapi_serve

UV = Path(sys.executable).with_name("uv")
NO_INDEX = re.compile(r"dns error|[Ff]ailed to fetch|client error \(Connect\)|network connectivity|timed out")


def uv(*arguments: str | Path) -> None:
    program = str(UV) if UV.exists() else require_binary("uv")
    done = subprocess.run([program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode and NO_INDEX.search(done.stderr) and not os.environ.get("CI"):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`statsapi` out of an environment that holds the wheel and what it asks for, as pinned, and nothing else."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    uv("venv", "--python", sys.executable, environment)
    uv("pip", "install", "--python", environment / "bin" / "python", "-c", ROOT / "requirements.txt", wheel)
    return environment / "bin" / "statsapi"


def test_the_wheel_holds_the_service_and_nothing_else(wheel: Path) -> None:
    """Every file of the package that git knows, the configuration and py.typed among them; no tests; the command."""
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", "statsapi"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        assert set(tracked.stdout.splitlines()) <= inside
    assert {"statsapi/server/gunicorn_conf.py", "statsapi/py.typed", "statsapi/__main__.py"} <= inside
    assert {"statsapi/journal/lua/append.lua", "statsapi/journal/sql/postgres.sql"} <= inside
    assert {name.partition("/")[0] for name in inside} == {"statsapi"}
    assert wheel.name == f"statsapi-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "statsapi = statsapi.cli.main:main" in archive.read(entries).decode()


def test_the_installed_service_records_and_answers(command: Path, tmp_path: Path) -> None:
    """From an empty folder: an event is read back, Swagger UI's files are there, HUP keeps it, SIGTERM ends it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    with statsapi_serve(folder, "--port", "0", "--workers", "2", command=[str(command)], installed=True) as server:
        assert f"The journal is {folder}/data/events.db: " in server.log
        assert post(server, 42.5)[0] == 200
        expected = (200, {"count": 1, "min": 42.5, "max": 42.5, "mean": 42.5})
        assert server.request("GET", "/statistics") == expected
        for path in ("/docs/", "/docs/swagger-ui.css"):
            assert b" 200 " in answer_to(server, path)
        assert server.request("GET", "/openapi.json")[1]["info"]["version"] == __version__
        server.wait_for_journals(2)
        server.signal(signal.SIGHUP)
        server.wait_for_journals(4)
        assert server.request("GET", "/statistics") == expected
        server.signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE_S) == 0
        assert "Traceback" not in server.log
    assert [path.name for path in folder.iterdir()] == ["data"]


def answer_to(server: Any, path: str) -> bytes:
    """The beginning of an answer that is not JSON."""
    with server.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        received: bytes = sock.recv(64)
        return received


def test_the_folder_is_no_place_of_code(command: Path, tmp_path: Path) -> None:
    """A configuration, a package or a module that happens to lie there is neither read nor imported."""
    for name in ("gunicorn.conf.py", "redis.py", "wsgi.py", "statsapi.py"):
        (tmp_path / name).write_text(f"raise SystemExit('{name} was imported')\n")
    url = "redis://127.0.0.1:1/0?stream=x"
    with statsapi_serve(tmp_path, "--port", "0", "--journal", url, command=[str(command)], installed=True) as server:
        assert server.request("GET", "/healthz")[0] == 200
        assert "Starting without the journal" in server.log
        assert "was imported" not in server.log


def test_the_installed_command_refuses_in_one_line(command: Path, tmp_path: Path) -> None:
    """WEB_CONCURRENCY, which Gunicorn's own command ends with a traceback for; and the version is told."""
    for arguments, env, status, said in (
        (["serve"], {"WEB_CONCURRENCY": "abc"}, os.EX_CONFIG, "statsapi: WEB_CONCURRENCY='abc': must be"),
        (["serve", "--workers", "0"], {}, 2, "'0' is not a whole number from 1"),
        (["--version"], {}, 0, f"statsapi {__version__}"),
    ):
        env = serve_environment(tmp_path, env, installed=True)
        done = subprocess.run([command, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == status
        (line,) = (done.stdout + done.stderr).splitlines()
        assert said in line
    assert list(tmp_path.iterdir()) == []


# One list of dependencies


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, list[str]]:
    """Distribution -> its pinned versions in a compiled file (several where they depend on Python's version)."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            found.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_pinned_versions_are_those_that_pyproject_asks_for(name: str) -> None:
    """Each dependency is pinned within its bounds, and every pin that is told to come from pyproject.toml is listed."""
    about = project()
    listed = about["project"]["dependencies"] if name == "requirements.txt" else about["dependency-groups"]["dev"]
    pinned = pins(name)
    for text in listed:
        requirement = Requirement(text)
        versions = pinned[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), text
    direct = re.findall(
        r"^(\S+)==.*\n    # via(?: statsapi|\n(?:    #   .*\n)*?    #   statsapi)", (ROOT / name).read_text(), re.M
    )
    assert {canonicalize_name(found) for found in direct} == {
        canonicalize_name(Requirement(text).name) for text in listed
    }


def test_each_dependency_says_why_it_is_there() -> None:
    """In one line, beside its name."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = [*project()["project"]["dependencies"], *project()["dependency-groups"]["dev"]]
    for requirement in listed:
        assert re.search(rf'^    "{re.escape(requirement)}", +# \S+ \S+', text, re.M), requirement
