"""The URL of a SQLite journal, sqlite:///relative/path.db or sqlite:////absolute/path.db, read with advice."""

from __future__ import annotations

import os
from typing import Final

from statsapi.errors import ConfigError

SCHEME: Final = "sqlite:///"


def path_of(url: str) -> str:
    """The path that `url` names. ConfigError says what to write instead where it cannot be one."""
    path = url.removeprefix(SCHEME)
    if path == url or not path or path.endswith("/"):
        raise ConfigError(
            "a SQLite journal is named sqlite:///relative/path.db or sqlite:////absolute/path.db, not " + repr(url)
        )
    if (reason := _why_no_path(path)) is not None:
        raise ConfigError(f"the SQLite journal {shortened(url)!r} cannot be used: {reason}")
    return path


# What stands behind a journal's name in those of the files beside it: SQLite's own, and ours.
_COMPANIONS: Final = ("-wal", "-shm", "-journal", "-mark", ".limits", ".limits-wal", ".limits-shm", ".limits-journal")


def why_companion(path: str) -> str | None:
    """Why no journal and no copy of one may have this path: the journal beside it writes there. None where there is
    no such journal.
    """
    for suffix in _COMPANIONS:
        journal = path.removesuffix(suffix)
        if journal != path and os.path.isfile(journal):
            return (
                f"{os.path.basename(journal)} lies beside it and keeps a file of its own under this name: name another"
            )
    return None


# Beside the journal's file lie others, named like it with a few characters more (-wal, .limits, a backup's .partial).
_FILE_NAME_BYTES = 255 - 32
# SQLite before 3.44 opens no path longer than 504 bytes, its own suffixes included.
_PATH_BYTES = 512 - 32


def _why_no_path(path: str) -> str | None:
    """Why this cannot be a file's path, with what to write instead; None where it can."""
    if path.startswith(":"):
        return "a journal that lies in memory only is STATSAPI_JOURNAL=memory://"
    if path.startswith("file:") or "?" in path:
        return "it takes a path and no options: write it without file: and without what begins with ?"
    if path[0] in "~$":
        return f"{path[0]} is not replaced in it: write the whole path, sqlite:////home/…"
    if not path.isprintable():
        return "its path contains characters that cannot be shown"
    if (reason := why_companion(path)) is not None:
        return reason
    if os.path.isdir(path):
        return "it is a folder: name a file in it, such as events.db"
    names = [os.fsencode(name) for name in path.split("/")]
    if len(names[-1]) > _FILE_NAME_BYTES or any(len(name) > 255 for name in names):
        return f"a name in its path is too long (a file's {_FILE_NAME_BYTES} bytes, a folder's 255)"
    if len(os.fsencode(os.path.abspath(path))) > _PATH_BYTES:
        return f"its path is longer than {_PATH_BYTES:,} bytes"
    return None


def shortened(url: str) -> str:
    return url if len(url) <= 200 else url[:200] + "…"
