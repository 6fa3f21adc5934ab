"""Where the peers' programs come from: PATH, Debian's packages in a folder of our own, or a venv of their own.

Nothing is installed: packages are unpacked into a cache folder (STATSAPI_PEERS_CACHE, or ~/.cache/statsapi-peers), so
no root is needed, no daemon starts and no requirement of the project grows. What cannot be had is skipped, with the
reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tests.programs import find_postgres

PACKAGES = {
    "victoria-metrics": "victoria-metrics",
    "influxd": "influxdb",
    "clickhouse-server": "clickhouse-server",
    "redis-server": "redis-server",
}
_FOLDERS = ("usr/bin", "usr/sbin")
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu")


class Missing(Exception):
    """The program cannot be had here; the text says why."""


@dataclass(frozen=True)
class Program:
    """A program and the environment that it needs beside the usual."""

    path: str
    env: dict[str, str]
    version: str = ""  # of Debian's package, where it was unpacked


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("STATSAPI_PEERS_CACHE") or Path(home) / "statsapi-peers")


@cache
def program(name: str) -> Program:
    """From PATH, else unpacked from Debian's package. `Missing` where neither is there."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    if found := shutil.which(name, path=places):
        return Program(found, {})
    package = PACKAGES[name]
    root = cache_folder() / package
    if not root.exists():
        _unpack(package, root)
    for path in (root / folder / name for folder in _FOLDERS):
        if path.exists():
            libraries = [str(root / each) for each in _LIBRARIES if (root / each).is_dir()]
            env = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}
            return Program(str(path), env, (root / "version").read_text())
    raise Missing(f"Debian's package {package} holds no {name}")


def _unpack(package: str, root: Path) -> None:
    """The package, and what it depends on that is not installed, into a folder that only we use."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Missing(f"it is not on PATH, and without apt-get Debian's package {package} cannot be fetched")
    plan = _run(["apt-get", "install", "--simulate", "--no-install-recommends", package])
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    made = root.with_name(f"{root.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    _run(["apt-get", "--quiet", "download", *names], made)
    for archive in sorted(made.glob("*.deb")):
        if archive.name.startswith(f"{package}_"):
            (made / "version").write_text(archive.name.split("_")[1])
        _run(["dpkg-deb", "--extract", str(archive), str(made)])
        archive.unlink()
    made.rename(root)


def _run(command: list[str], directory: Path | None = None) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Missing(f"`{' '.join(command[:4])} …` failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout


@cache
def uvloop_python() -> str:
    """A Python with the same FastAPI and uvicorn as ours, and with what `uvicorn[standard]` brings besides."""
    wanted = [f"fastapi=={version('fastapi')}", f"uvicorn[standard]=={version('uvicorn')}"]
    root = cache_folder() / f"uvicorn-{version('uvicorn')}-{sys.version_info.major}.{sys.version_info.minor}"
    python = root / "bin" / "python"
    if not (root / ".complete").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(root)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
        (root / ".complete").touch()
    return str(python)


def postgres_binaries() -> Path:
    """The folder of PostgreSQL's programs."""
    found = find_postgres()
    if found is None:
        raise Missing("PostgreSQL's server is not installed (Debian: postgresql); it needs a user of its own")
    return found
