"""What an error of SQLite means: the words for people, what to do, and whether a commit may have been carried out."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from typing import Final

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable

_SAID: Final = {
    sqlite3.SQLITE_FULL: "the disk that holds {path} is full",
    sqlite3.SQLITE_IOERR: "the disk that holds {path} fails",
    sqlite3.SQLITE_BUSY: "another process holds {path}",
    sqlite3.SQLITE_READONLY: "{path} has become read-only",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database, or damaged",
}
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_READONLY: "let this user write it, or name another file",
    sqlite3.SQLITE_CANTOPEN: "let this user read and write it, its -wal and -shm, and its folder, or name another file",
    sqlite3.SQLITE_NOTADB: "name another file, or restore it from a backup, or move it away",
}


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for an error that the Python module raised by itself."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code


def cause(error: sqlite3.Error) -> int:
    """The code to explain to people: the primary code, except that a -shm without space is a full disk too.

    For the outcome of a commit the two differ: with a -shm without space, its last frame is in the WAL already.
    """
    code: int = getattr(error, "sqlite_errorcode", -1)
    return sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else primary_code(error)


def is_damage(error: sqlite3.Error) -> bool:
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_of_disk(error: JournalUnavailable) -> bool:
    """Whether a read, a write or an fsync of the disk failed. SQLite writes before it flushes, so that a lack of space
    is met by a write, which is repeated; an fsync that meets one has lost what it was to write.
    """
    met = error.__cause__
    if isinstance(met, sqlite3.Error):
        return cause(met) == sqlite3.SQLITE_IOERR
    return isinstance(met, OSError) and met.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def judged(error: BaseException, connection: sqlite3.Connection) -> sqlite3.Error | None:
    """SQLite's error behind `error`, which a statement on `connection` raised; None where it is another's.

    Damage raises three more: UnicodeDecodeError, where the message repeats a definition that is no text; MemoryError,
    where a row claims 4 GiB and SQLite's count of its pages wraps to none; and "string or blob too big". Each may be
    what it says, so SQLite looks through the file, and what it finds is the error. A lower limit to the length of rows
    (SQLITE_LIMIT_LENGTH) was refused: with one of 2,000 bytes SQLite 3.40 raises the same MemoryError.
    """
    too_big = isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_TOOBIG
    if (too_big or isinstance(error, UnicodeDecodeError | MemoryError)) and (said := fault_in(connection)) is not None:
        damage = sqlite3.DatabaseError(said)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        return damage
    return error if isinstance(error, sqlite3.Error) else None


@contextlib.contextmanager
def judging(connection: sqlite3.Connection) -> Iterator[None]:
    """Every error that damage causes leaves the block as one of SQLite: see `judged`."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
        met = judged(error, connection)
        if met is None or met is error:
            raise
        raise met from error


def fault_in(connection: sqlite3.Connection) -> str | None:
    """The first damage that SQLite itself finds in the file; None where it finds none, or cannot look now."""
    try:
        rows = connection.execute("PRAGMA quick_check(1)").fetchall()
    except UnicodeDecodeError as error:
        return bytes(error.object).decode("utf-8", "replace")
    except sqlite3.Error as error:
        return str(error) if is_damage(error) or primary_code(error) == sqlite3.SQLITE_TOOBIG else None
    except MemoryError:
        return None
    said = rows[0][0] if rows else "ok"
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return None if text == "ok" else text


def refusal(error: sqlite3.Error, path: str) -> JournalRefused:
    """For an error at the first opening, where a person is waiting."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_CORRUPT:
        return JournalDamaged(path, str(error))
    said = _SAID.get(code, "{path} cannot be used").format(path=path)
    return JournalRefused(f"{said} ({error}): {_ADVICE.get(code, 'see to the cause')}")


def failure(error: sqlite3.Error, path: str, *, committing: bool = False) -> JournalUnavailable | JournalDamaged:
    """For an error at work. `committing`: it came from COMMIT, so its outcome may be unknown."""
    code, told = primary_code(error), cause(error)
    if is_damage(error):
        return JournalDamaged(path, str(error), outcome_unknown=committing)
    said = _SAID.get(told, "{path} failed").format(path=path)
    # These leave the commit's last frame unwritten. After any other failure it may be on the disk.
    surely_not = not committing or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
    advice = f": {_ADVICE[told]}" if told in _ADVICE else ""
    return JournalUnavailable(f"{said} ({error}){advice}", outcome_unknown=not surely_not)
