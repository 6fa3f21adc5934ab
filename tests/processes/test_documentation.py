"""What README and docs tell people to type works as it is written, and answers what is shown."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import examples
from tests.journal_engines import shared_postgres
from tests.programs import postgres_binaries, redis_binary, require_binary
from tests.servers import ROOT, redis_server

NOT_EXAMPLES = ("text", "nginx", "html")
RUN = [page for page in examples.PAGES if any(block.language not in NOT_EXAMPLES for block in examples.blocks(page))]
NO_INDEX = re.compile(r"Failed to establish a new connection|Temporary failure in name resolution|timed out", re.I)


@pytest.mark.parametrize("page", RUN)
def test_the_examples_run(page: str, tmp_path: Path) -> None:
    """Each block of the page in turn, by one reader: every answer is the one that is shown."""
    require_binary("curl")
    with contextlib.ExitStack() as stack:
        elsewhere = {}
        if "@db.internal" in examples.read(page):
            port = shared_postgres(postgres_binaries()).port
            elsewhere["statsapi@db.internal/metrics"] = f"postgres@127.0.0.1:{port}/postgres"
        if "redis.internal" in examples.read(page):
            redis = stack.enter_context(redis_server(redis_binary(), tmp_path / "redis"))
            elsewhere[":PASSWORD@redis.internal:6379"] = f"127.0.0.1:{redis.port}"
        desk = examples.Desk(tmp_path / "clone", elsewhere)
        stack.callback(desk.close)
        for block in examples.blocks(page):
            if block.reason_not_run is None:
                desk.run(block)


def test_the_first_block_of_the_readme_installs(tmp_path: Path) -> None:
    """In a copy of what git knows, with an environment of its own: the command is there and knows its version."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split("\0") if listed.returncode == 0 else []
    if not names:
        pytest.skip("this is not a clone")
    for name in filter(None, names):
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]
    install, serve = examples.blocks("README.md")[0].text.strip().splitlines()
    command = f"set -e\n{install}\n{serve.partition(' serve')[0]} --version"
    env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path / "clone", env=env, capture_output=True, text=True, timeout=600
    )
    if done.returncode and NO_INDEX.search(done.stdout + done.stderr) and not os.environ.get("CI"):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("statsapi ")
