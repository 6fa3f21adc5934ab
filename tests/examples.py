"""The examples of README and docs, run as a reader runs them: in a clone, a shell, and a server of their own.

    ```console    `$ command` lines, each with the answer that it is compared with
    ```sh         a script that ends with status 0; a last line of `statsapi serve` starts the server of what follows
    ```python     run as it stands; by pytest where it holds tests
    ```nginx      tests/processes/test_nginx.py has nginx run it
    ```html       tests/processes/test_beacons.py shows it in a browser
    ```text       a drawing: not an example

A block whose first line begins with NOT_RUN is left out, and says why. In an answer `…` stands for anything, a time for
any time, and white space may have been added to break the line.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from statsapi.keys import new_key
from tests.servers import DEADLINE_S, ROOT, Server, free_port, stop, wait_until

NOT_RUN = "# not run by the tests: "
PAGES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"),
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)?")
_SERVE = re.compile(r"((?:\w+=\S+ )*)(?:\.venv/bin/)?statsapi serve\b([^#]*)(?:#.*)?")


class Block(NamedTuple):
    page: str
    language: str
    text: str

    @property
    def reason_not_run(self) -> str | None:
        return self.text.partition("\n")[0].removeprefix(NOT_RUN) if self.text.startswith(NOT_RUN) else None


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str) -> list[Block]:
    """In their order, without the indentation that a list gives them."""
    return [Block(page, found[2], textwrap.dedent(found[3])) for found in _FENCED.finditer(read(page))]


def prose(page: str) -> str:
    """The page without its blocks."""
    return _FENCED.sub("", read(page))


def spans(page: str) -> list[str]:
    """The texts between backquotes in the prose."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, and what is shown as their answers."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, answer = part.partition("\n")
        yield command, answer


def answers(shown: str, said: str) -> bool:
    """Whether that is what the page shows."""
    pattern = ""
    for piece in re.split(f"(…|\\s+|{_TIME.pattern})", shown.strip()):
        if piece == "…":
            pattern += ".*"
        elif piece.isspace():
            pattern += r"\s*"
        elif _TIME.fullmatch(piece):
            pattern += f"(?:{_TIME.pattern})"
        else:
            pattern += re.escape(piece)
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


class Shell:
    """One bash for a whole page, so that its variables last."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.run("set -o pipefail")

    def run(self, command: str) -> tuple[int, str]:
        """The exit status, and what it said on both its outputs."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        end = f"end-{secrets.token_hex(8)}"
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n%s %s\\n' {end} $?\n")
        self._bash.stdin.flush()
        watch = threading.Timer(DEADLINE_S, os.killpg, (self._bash.pid, signal.SIGKILL))
        watch.start()
        said = ""
        try:
            for line in self._bash.stdout:
                if line.startswith(end):
                    return int(line.split()[1]), said
                said += line
        finally:
            watch.cancel()
        raise AssertionError(f"{command} did not end\n{said}")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.stdout.close()


class Desk:
    """A folder with the clone's files and this environment as `.venv`, a shell in it, and a server at its port 8000.

    Paths of a machine (/var/lib/statsapi, …) are folders below it; `elsewhere` are other places and what stands for
    them.
    """

    def __init__(self, folder: Path, elsewhere: Mapping[str, str]) -> None:
        self.folder = folder
        port = free_port()
        self._places = {"127.0.0.1:8000": f"127.0.0.1:{port}", "0.0.0.0": "127.0.0.1", **elsewhere}
        for place in ("/var/lib/statsapi", "/backups", "/etc/nginx/conf.d"):
            (folder / place[1:]).mkdir(parents=True)
            self._places[place] = str(folder / place[1:])
        self._port = port
        for name in ("statsapi", "deploy"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("wsgi.py", "gunicorn.conf.py"):
            shutil.copy(ROOT / name, folder)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "bin").mkdir()
        (folder / "bin" / "statsapi").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m statsapi "$@"\n')
        (folder / "bin" / "statsapi").chmod(0o755)
        (folder / "keys.txt").write_text(f"{new_key(['admin'], 'reader')[1].line()}\n")
        (folder / ".curlrc").write_text("silent\nshow-error\nmax-time = 20\n")
        self.env = {
            "PATH": f"{folder}/bin:/usr/bin:/bin:/usr/sbin",
            "HOME": str(folder),
            "PYTHONPATH": str(folder),
            "LC_ALL": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",  # as at a terminal: what is printed first is seen first
        }
        self._shell = Shell(folder, self.env)
        self._server: Server | None = None
        self._log = folder / "server.log"

    def run(self, block: Block) -> None:
        text = self._placed(block.text)
        if block.language == "console":
            self._serve_by_default()
            for command, shown in commands(block):
                self._say(self._placed(command), shown, block.page)
        elif block.language == "sh":
            lines = text.strip().splitlines()
            serves = _SERVE.fullmatch(lines[-1])
            script = "\n".join(lines[:-1] if serves else lines)
            if serves is None:
                self._serve_by_default()
                self._say(f"( set -euo pipefail\n{script}\n)", "…", block.page)
                return
            exports = "\n".join(line for line in lines[:-1] if line.startswith("export "))
            others = [line for line in lines[:-1] if not line.startswith("export ") and "pip install" not in line]
            if others:
                self._say("( set -euo pipefail\n" + "\n".join(others) + "\n)", "…", block.page)
            self._serve(f"{exports}\n{serves[1]}", serves[2])
        elif block.language == "python":
            self._run_python(block)
        else:
            assert block.language in ("text", "nginx", "html"), (
                f"{block.page} has a block of {block.language or 'nothing'}: {block.text}"
            )

    def close(self) -> None:
        self._shell.close()
        self._stop()

    def _placed(self, text: str) -> str:
        for place, stands_for in self._places.items():
            text = text.replace(place, stands_for)
        return text

    def _say(self, command: str, shown: str, page: str) -> None:
        status, said = self._shell.run(command)
        told = f"{page}: {command}\nended with {status} and said\n{said}\nthe page shows\n{shown}"
        assert status == 0, told
        assert answers(shown, said), told

    def _serve(self, before: str, options: str) -> None:
        """Start it as the page says, but for the port, in place of the one before."""
        self._stop()
        options = options if "--port 8000" in options else f" --port 8000 {options}"
        options = options.replace("--port 8000", f"--port {self._port}")
        command = f"set -euo pipefail\n{before}exec statsapi serve {options}"
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._server = Server(process, self._log, "")
        wait_until(self._is_ready, f"the server that was started by {command}")

    def _serve_by_default(self) -> None:
        """The set-up for a page that does not start a service itself."""
        if self._server is None:
            self._serve("", f"--journal sqlite:///{self.folder}/var/lib/statsapi/events.db")

    def _is_ready(self) -> bool:
        """By a path that no rate limit counts."""
        assert self._server is not None
        assert self._server.process.poll() is None, self._server.log
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _stop(self) -> None:
        if self._server is not None:
            stop(self._server)
            self._server = None

    def _run_python(self, block: Block) -> None:
        file = self.folder / "test_example.py"
        text = self._placed(block.text)
        if text != block.text:  # it speaks to the server
            self._serve_by_default()
        file.write_text(text)
        by = ["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"] if "def test_" in block.text else []
        done = subprocess.run(
            [sys.executable, *by, str(file)], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{block.page}:\n{block.text}\n{done.stdout}{done.stderr}"
