"""A damaged SQLite journal as if its first page were whole: a copy of it, in which that page is written anew.

The first page holds SQLite's header and the tables' definitions. Without them SQLite finds no table, whole as its pages
may be; and both are known but for the tables' places. The records behind them prove themselves (see checksums.py), so a
place that is guessed wrongly shows nothing that was not written. `PRAGMA writable_schema` on the file itself was
refused: a damaged file is never written. So was reading its pages without SQLite: that is another reader to trust.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from statsapi.journal import sqlite_tables as tables
from statsapi.journal.sqlite_errors import judging
from statsapi.journal.sqlite_tables import PAGE_BYTES

# Where a file's header has the number of the change at which its count of pages was true (version-valid-for). Where it
# is not the number of the last change, SQLite goes by the file's length instead.
_COUNT_IS_OF: Final = slice(92, 96)


@contextlib.contextmanager
def mended(path: str, beside: str) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of the file at `path` and of its -wal, with a whole first page. The copy lies beside the
    file `beside` for as long as the block runs. OSError where it cannot be written.
    """
    copy = f"{os.path.abspath(beside)}.{secrets.token_hex(4)}.partial"
    try:
        _copy(path, copy)
        for places in (tables.PLACES, tables.VACUUMED_PLACES):
            _write_first_page(copy, places)
            if _is_of_make(copy):
                break
        else:
            _write_first_page(copy, _read_places(path) or tables.PLACES)
        with _opened(copy) as connection:
            yield connection
    finally:
        for suffix in ("", "-wal", "-shm", "-made"):
            with contextlib.suppress(OSError):
                os.unlink(copy + suffix)


@contextlib.contextmanager
def _opened(copy: str) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{quote(copy)}?mode=rw", uri=True, isolation_level=None)) as opened:
        opened.text_factory = bytes
        opened.execute("PRAGMA writable_schema=ON")  # the -wal may hold a page of its own
        yield opened


def _copy(path: str, copy: str) -> None:
    """Both files, readable to this user alone."""
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy + suffix)
        if suffix and not os.path.exists(path + suffix):
            continue
        with open(path + suffix, "rb") as source, open(copy + suffix, "xb", opener=_private) as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _write_first_page(copy: str, places: dict[str, int]) -> None:
    """Make the copy's first page that of a journal whose tables lie at `places`. No connection has it open."""
    made = copy + "-made"
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection:
        tables.make(connection)
        connection.execute("PRAGMA writable_schema=ON")
        with tables.transaction(connection):
            connection.executemany(
                "UPDATE sqlite_master SET rootpage = ? WHERE name = ?", [(page, name) for name, page in places.items()]
            )
    with open(made, "rb") as file:
        page = bytearray(file.read(PAGE_BYTES))
    os.unlink(made)
    page[_COUNT_IS_OF] = bytes(4)
    with open(copy, "r+b") as file:
        file.write(page)


def _is_of_make(copy: str) -> bool:
    try:
        with _opened(copy) as connection, judging(connection):
            return tables.is_of_make(connection)
    except (sqlite3.Error, MemoryError):
        return False


def _read_places(path: str) -> dict[str, int] | None:
    """The tables' places as the damaged file has them, where each may be one; else None."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            connection.execute("PRAGMA writable_schema=ON")
            with judging(connection):
                return tables.read_places(connection)
    except (sqlite3.Error, MemoryError):
        return None
