"""The state that `statsapi import` remembers of a file: where it ended at each import, by how much its times were moved
to now, and which row was recorded before its line end was there.

The next import cuts the file at the old ends again. So a file that has grown is cut as before, and its old rows are
sent under their old keys.

    ~/.local/state/statsapi/imports/6f1d….json    {"file": "/data/measured.csv", "ends": [10, 45000], …}

Ends are in rows, shifts in µs. Each imported file has its own state file, so that any number of imports may run at
once; two imports of the same file take turns. Without the state file, a repeated import of a grown file counts the rows
of its last piece twice, and a repeated import of a file that was moved to now counts all rows twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from statsapi.cli import failures

_ENDS_MAX: Final = 3_000  # two for each minute of a day; older keys are forgotten by then
_KEPT_S: Final = 30 * 86_400  # how long the state of a file is kept after its last import

_said: set[str] = set()


def folder() -> Path:
    """Where the state is. It begins with `~` where there is no HOME and the system does not know the user."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "statsapi" / "imports"


def _place(file: str) -> Path:
    return folder() / f"{hashlib.sha256(os.path.abspath(file).encode()).hexdigest()[:32]}.json"


def remembered(file: str) -> list[int]:
    """After how many rows that file ended, by rising number."""
    return _read(file).get("ends", [])


def remember(file: str, rows: int) -> None:
    """Remember this end. Call it before the rows are sent. If it cannot be written, a message says so."""
    _change(file, lambda known: known | {"ends": sorted({*known.get("ends", []), rows})[-_ENDS_MAX:]})


def moved_by_us(file: str, which: str) -> int | None:
    """By how many µs the file's times were moved to now at its first import. `which` identifies that import, and stays
    the same while the file only grows.
    """
    found = _read(file).get(_named("moved", which))
    return None if found is None else found[0]


def remember_move(file: str, which: str, shift_us: int) -> None:
    _change(file, lambda known: known | {_named("moved", which): [shift_us]})


class UnfinishedRows:
    """The rows of a file that an import recorded without their line end. Each was the file's last row at the time."""

    def __init__(self, file: str, which: str) -> None:
        self._file = file
        self._name = _named("unfinished", which)
        numbers = _read(file).get(self._name, [])
        # Row number -> its length, and a digest of its content.
        self._rows: dict[int, tuple[int, int]] = {
            row: (size, digest) for row, size, digest in zip(*[iter(numbers)] * 3, strict=False)
        }

    def have_begun(self, number: int, row: bytes) -> bool:
        """Whether this row was recorded without its line end, and has become longer since."""
        size, digest = self._rows.get(number, (0, 0))
        row = row.rstrip(b"\r\n")
        return 0 < size < len(row) and _digest(row[:size]) == digest

    def add(self, number: int, row: bytes) -> None:
        """Note a row. Call it before the row is sent."""
        row = row.rstrip(b"\r\n")
        self._rows[number] = len(row), _digest(row)
        self._keep()

    def remove(self, number: int) -> None:
        """Forget a row that was not recorded after all."""
        del self._rows[number]
        self._keep()

    def _keep(self) -> None:
        kept = list(self._rows.items())[-_ENDS_MAX:]
        numbers = [number for row, what in kept for number in (row, *what)]
        _change(self._file, lambda known: known | {self._name: numbers})


def _named(what: str, which: str) -> str:
    return f"{what} {hashlib.sha256(which.encode()).hexdigest()[:16]}"


def _digest(row: bytes) -> int:
    return int.from_bytes(hashlib.sha256(row).digest()[:6])


def _change(file: str, change: Callable[[dict[str, list[int]]], dict[str, list[int]]]) -> None:
    """Change the file's state under a lock. If it cannot be written, a message says so once."""
    path = _place(file)
    partial = path.with_suffix(f".{os.getpid()}")
    if path.parts[0] == "~":
        _say_once(file, "there is no home directory to remember it in: set HOME or XDG_STATE_HOME")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(path.parent)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = {name: numbers for name, numbers in change(_read(file)).items() if numbers}
            partial.write_text(json.dumps({"file": os.path.abspath(file), **kept}))
            partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        _say_once(file, f"{path} cannot be written ({error.strerror})")


def _say_once(file: str, why: str) -> None:
    if file not in _said:
        _said.add(file)
        failures.say(
            f"{file}: {why}: if this file grows or is moved to now, and is imported again, rows of today will count "
            "twice"
        )


@functools.cache  # once a process: a file that is imported piece by piece changes what is known of it often
def _forget_old(place: Path) -> None:
    before_s = time.time() - _KEPT_S
    with os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime < before_s:
                    os.unlink(entry.path)


def _read(file: str) -> dict[str, list[int]]:
    try:
        known: Any = json.loads(_place(file).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        name: numbers
        for name, numbers in known.items()
        if isinstance(numbers, list) and numbers and all(type(number) is int for number in numbers)
    }
