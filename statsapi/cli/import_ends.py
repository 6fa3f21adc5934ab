"""Where files ended when they were imported: `statsapi import` cuts there again, so that a file that has grown since is
cut as it was, and its old rows go under their old keys. And by how much a file was moved to now.

    ~/.local/state/statsapi/imports.json    {"/data/measured.csv": [10, 45000], …}      in rows, or in µs

It is a help, not a truth: without it a repeated import of a grown file counts the rows of its last piece twice, and one
of a file that was moved to now counts all of them twice.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

from statsapi.cli import failures

_FILES_MAX: Final = 1_000
_ENDS_MAX: Final = 1_000  # of a file that is imported each minute: a day's; older keys are forgotten by then


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


def moved_by_us(file: str, last: str, shift_us: int) -> int:
    """By how much the file whose last event is at `last` was moved to now; remembers `shift_us` where it was not."""
    known = _read()
    name = f"{os.path.abspath(file)} to {last}"
    if found := known.get(name):
        return found[0]
    known[name] = [shift_us]
    _write(file, known)
    return shift_us


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
