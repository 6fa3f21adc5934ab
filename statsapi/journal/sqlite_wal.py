"""The -wal and -shm beside a journal's file: how large they get, flushing them, and the space they need.

Paths are of the file itself, with links resolved: SQLite keeps both there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Final

from statsapi.errors import JournalUnavailable
from statsapi.journal.sqlite_tables import PAGE_BYTES

# The WAL is written anew from its start when it is longer than this. Passive checkpoints alone never get there under
# steady load from two workers; the restart holds the write lock for the little that came since the last one.
RESTART_BYTES: Final = 16 << 20
# Where nobody calls maintain, COMMIT itself checkpoints from here on: slower, but bounded.
NET_BYTES: Final = 256 << 20
# After a burst the -wal shrinks to this at the next restart.
KEPT_BYTES: Final = 64 << 20

# The length of the -shm for a WAL of that length, and its first page.
SHM_BYTES: Final = (NET_BYTES // (PAGE_BYTES * 4096) + 2) * 32_768


_RESERVE: Final = """
import errno, os, sys
try:
    os.posix_fallocate(os.open(sys.argv[1], os.O_RDWR), 0, int(sys.argv[2]))
except OSError as error:
    sys.stderr.write(error.strerror)
    sys.exit(3 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 4)
"""
_NO_SPACE: Final = 3


def unlink(real: str) -> None:
    """Remove both files."""
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real + suffix)


def flush(real: str) -> None:
    """Fsync the -wal. Closing its descriptor drops no lock: SQLite's are on the file and on the -shm."""
    try:
        wal = os.open(real + "-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalUnavailable(f"{real}-wal cannot be opened ({error.strerror})") from error
    try:
        os.fdatasync(wal)
    except OSError as error:
        raise JournalUnavailable(f"the disk that holds {real} fails ({error.strerror})") from error
    finally:
        os.close(wal)


def check_space(real: str) -> None:
    """Refuse to open it on a full disk whose blocks are smaller than a page.

    SQLite extends the -shm by writing one byte a page. With smaller blocks the rest of the page has no place on the
    disk until it is touched, and on a full disk touching it ends the process (SIGBUS).
    """
    if (found := _small_blocks(real)) is not None:
        free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        if free * found.f_frsize < SHM_BYTES + RESTART_BYTES // 64:
            raise JournalUnavailable(f"the disk that holds {real} is full: free some space")


def is_shm_in_use(real: str) -> bool:
    """Whether anybody who has the file open has this -shm open, by SQLite's locks; True where the system does not say.

    It is read from /proc, as opening the -shm here would drop our own locks.
    """
    try:
        inode, shm_inode = os.stat(real).st_ino, os.lstat(real + "-shm").st_ino
        with open("/proc/locks", encoding="ascii") as lines:
            locked = {int(line.split(":")[3].split()[0]) for line in lines if " POSIX " in line and "->" not in line}
    except (OSError, ValueError, IndexError):
        return True
    return shm_inode in locked or inode not in locked


def reserve_shm(real: str) -> None:
    """Reserve the whole -shm on such a disk, by another process: closing the -shm here would drop our locks."""
    if _small_blocks(real) is None:
        return
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", _RESERVE, real + "-shm", str(SHM_BYTES)], capture_output=True, check=False
    )
    if done.returncode == _NO_SPACE:
        raise JournalUnavailable(f"the disk that holds {real} is full: free some space")
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
        raise JournalUnavailable(f"the disk that holds {real} fails: its -shm cannot be reserved ({why})")


def _small_blocks(real: str) -> os.statvfs_result | None:
    found = os.statvfs(os.path.dirname(real))
    return found if found.f_frsize < PAGE_BYTES else None
