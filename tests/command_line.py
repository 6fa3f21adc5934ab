"""`statsapi` as tests run it: in this process by click's runner, or in one of its own (that of the wheel:
tests/processes/test_packaging.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from statsapi.cli.main import program
from tests.servers import ROOT

COMMAND = (sys.executable, "-m", "statsapi")


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def run(*arguments: str, text: str = "", env: Mapping[str, str | None] | None = None) -> Done:
    """In this process, with `text` as standard input. A traceback fails the test."""
    done = CliRunner().invoke(program, arguments, input=text, env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def run_process(
    *arguments: str | bytes, text: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Done:
    """In a process of its own, from any folder."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=text,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def forget_surroundings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No variable and no file of whoever runs the tests says which service; `home` is empty."""
    for name in [name for name in os.environ if name.startswith("STATSAPI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
