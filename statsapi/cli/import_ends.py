"""Where files ended when they were imported: `statsapi import` cuts there again, so that a file that has grown since is
cut as it was, and its old rows go under their old keys. By how much a file was moved to now. And which row was recorded
before its line end was there.

    ~/.local/state/statsapi/imports.json    {"/data/measured.csv": [10, 45000], …}      in rows, or in µs

It is a help, not a truth: without it a repeated import of a grown file counts the rows of its last piece twice, and one
of a file that was moved to now counts all of them twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Final

from statsapi.cli import failures

_FILES_MAX: Final = 1_000
_ENDS_MAX: Final = 3_000  # two for each minute of a day; older keys are forgotten by then


def place() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "statsapi" / "imports.json"


def remembered(file: str) -> list[int]:
    """After how many rows that file ended, by rising number."""
    return _read().get(os.path.abspath(file), [])


def remember(file: str, rows: int) -> None:
    """To be called before these rows are sent. Where it cannot be kept, that is said."""
    known = _read()
    name = os.path.abspath(file)
    known[name] = sorted({*known.pop(name, []), rows})[-_ENDS_MAX:]  # the newest last
    _write(file, known)


def moved_by_us(file: str, which: str) -> int | None:
    """By how much the file was moved to now when it was imported first. `which` import of it that is, and what is the
    same as long as the file only grows.
    """
    found = _read().get(_named(file, "moved", which))
    return None if found is None else found[0]


def remember_move(file: str, which: str, shift_us: int) -> None:
    known = _read()
    known[_named(file, "moved", which)] = [shift_us]
    _write(file, known)


class UnfinishedRows:
    """The rows of a file that one import of it recorded without their line end: each was the file's last one then."""

    def __init__(self, file: str, which: str) -> None:
        self._file = file
        self._name = _named(file, "unfinished", which)
        numbers = _read().get(self._name, [])
        # By its number in the file: how long it was, and what it was.
        self._rows: dict[int, tuple[int, int]] = {
            row: (size, digest) for row, size, digest in zip(*[iter(numbers)] * 3, strict=False)
        }

    def have_begun(self, number: int, row: bytes) -> bool:
        """Whether that row is one of those, and goes on since."""
        size, digest = self._rows.get(number, (0, 0))
        row = row.rstrip(b"\r\n")
        return 0 < size < len(row) and _digest(row[:size]) == digest

    def add(self, number: int, row: bytes) -> None:
        """To be called before it is sent."""
        row = row.rstrip(b"\r\n")
        self._rows[number] = len(row), _digest(row)
        self._keep()

    def remove(self, number: int) -> None:
        """It was not recorded."""
        del self._rows[number]
        self._keep()

    def _keep(self) -> None:
        known = _read()
        known.pop(self._name, None)
        kept = list(self._rows.items())[-_ENDS_MAX:]
        if kept:
            known[self._name] = [number for row, what in kept for number in (row, *what)]
        _write(self._file, known)


def _named(file: str, what: str, which: str) -> str:
    return f"{os.path.abspath(file)} {what} {hashlib.sha256(which.encode()).hexdigest()[:16]}"


def _digest(row: bytes) -> int:
    return int.from_bytes(hashlib.sha256(row).digest()[:6])


def _write(file: str, known: dict[str, list[int]]) -> None:
    kept = dict(list(known.items())[-_FILES_MAX:])
    path = place()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(kept))
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        failures.say(
            f"{file}: {path} cannot be written ({error.strerror}): if this file grows or is moved to now, and is "
            "imported again, rows of today will count twice"
        )


def _read() -> dict[str, list[int]]:
    try:
        known = json.loads(place().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        name: ends
        for name, ends in known.items()
        if isinstance(ends, list) and ends and all(type(end) is int for end in ends)
    }
