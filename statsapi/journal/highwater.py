"""How far a journal's file had got: a small file beside it (-mark), by which a lost end is noticed.

A WAL with one flipped bit ends at that bit when it is played back after a crash, and a file that was put in the
journal's place is whole. The journal's file itself shows neither. So each process notes the last record that it has
acknowledged, and the next opening compares.

    head   magic | epoch u64 | device u64 | inode u64 of the journal, its -wal and this file | boot 8
           | inode u32 of its -shm, 0 in one that an older version wrote | CRC-32
    slots  epoch u64 | position i64 | appended_us i64 | id 16 | the journal's inode u64 | boot 8 | CRC-32
                                                                                         (64 bytes, one a process)

A note is one pwrite without an fsync after the commit, 1.5 µs. It survives the death of every process; after a power
cut it may be behind or ahead. Each process has a slot of its own, held by a lock, so that a late note does not undo an
earlier one. Notes of another epoch do not count: a new epoch begins when a process claims a loss, in order to report
it. The file may be removed at any time; the next opening then compares nothing.

The head also shows that a -wal was left behind by another file: after a kill a copy may be moved into the journal's
place, and SQLite would play the old file's -wal into it. Where the journal's inode has changed and the -wal's has not,
the -wal is the old file's. In a folder that was copied as a whole this file is new as well, and then its head says
nothing. Where the -wal or -shm is another while somebody has the journal open, it took the place of the one in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from zlib_ng.zlib_ng import crc32

_MAGIC: Final = b"statmark"
_HEAD: Final = struct.Struct("<8sQQQQQ8sI")
_OLD_HEAD: Final = struct.Struct("<8sQQQQQ8s")
_SLOT: Final = struct.Struct("<Qqq16sQ8s")
_CHECKSUM: Final = struct.Struct("<I")
_FLOCK: Final = struct.Struct("hhqqi0q")  # struct flock of 64-bit Linux
_SLOT_BYTES: Final = 64
_SLOTS: Final = 255


class Noted(NamedTuple):
    """The furthest acknowledged record. `same_file`: it was in this very file; `same_boot`: since this start of the
    machine.
    """

    position: int
    record_id: bytes
    appended_us: int
    same_file: bool = True
    same_boot: bool = True


class _Head(NamedTuple):
    epoch: int
    device: int
    inode: int
    wal_inode: int
    own_inode: int
    boot: bytes
    shm_inode: int = 0  # its last 32 bits; 0 where it was not noted


class Beside(NamedTuple):
    """Whether the -wal and the -shm are those that were noted; None where nothing was."""

    wal: bool | None
    shm: bool | None


# Opening a pipe that is in its place must not block, and what a link leads to is not ours to write.
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class HighWater:
    """For the holder of the writer's lock; `compare` and `note_beside` are for the process that alone opens the file.

    Nothing here ever fails: where the file cannot be made or written, nothing is noted.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._path = ""
        self._epoch = 0
        self._at = 0
        self._inode = 0
        self._boot = bytes(8)

    def compare(self, journal: str, stands: Callable[[Noted], bool]) -> Noted | None:
        """The furthest note beside `journal`, if that file does not hold its record. Later notes go beside it.

        Every opening finds that note until one of them claims the loss.
        """
        try:
            file = os.stat(journal)
            self._open(journal + "-mark", file)
            return self._compare(file.st_dev, file.st_ino, stands)
        except OSError:
            self.close()
            return None

    def claim(self, journal: str) -> bool:
        """Begin a new epoch, so that only one process reports the loss that `compare` found. True if it is this one."""
        if self._file is None:
            return True
        try:
            _lock(self._file, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, 0)
            head = self._read_head()
            ours = head is None or head.epoch == self._epoch
            if ours:
                file = os.stat(journal)
                self._begin(file.st_dev, file.st_ino, _boot())
            elif head is not None:
                self._epoch = head.epoch
            _lock(self._file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0)
        except OSError:
            self.close()
            return True
        return ours

    def note_beside(self, journal: str) -> None:
        """Note that the -wal and -shm that are there now are the journal's."""
        try:
            head = self._read_head()
            if head is not None and not all(_beside(head, journal)):
                file = os.stat(journal)
                self._write_head(file.st_dev, file.st_ino, _boot())
        except OSError:
            self.close()

    def note(self, position: int, record_id: bytes, appended_us: int) -> None:
        if self._file is None:
            return
        try:
            os.pwrite(
                self._file,
                _proven(_SLOT.pack(self._epoch, position, appended_us, record_id, self._inode, self._boot)),
                self._at,
            )
        except OSError:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file = None
        self._path = ""

    def _open(self, path: str, journal: os.stat_result) -> None:
        if self._file is not None and path == self._path and _is_at(self._file, path):
            return
        self.close()
        try:
            self._file = os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.geteuid() == 0:  # the journal's own user must be able to use it later
                os.fchown(self._file, journal.st_uid, journal.st_gid)
            os.fchmod(self._file, stat.S_IMODE(journal.st_mode))
        self._path = path
        if os.fstat(self._file).st_size < (1 + _SLOTS) * _SLOT_BYTES:  # a later note then needs no more disk space
            os.pwrite(self._file, bytes((1 + _SLOTS) * _SLOT_BYTES), 0)
        for slot in range(1, 1 + _SLOTS):
            # A lock of the open file, not of the process: one process may have two journals.
            try:
                _lock(self._file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, slot)
            except OSError:
                continue
            self._at = slot * _SLOT_BYTES
            return
        self.close()

    def _compare(self, device: int, inode: int, stands: Callable[[Noted], bool]) -> Noted | None:
        if self._file is None:
            return None
        self._inode, self._boot = inode, (boot := _boot())
        head = self._read_head()
        if head is None:
            self._begin(device, inode, boot)
            return None
        self._epoch = head.epoch
        same_file, same_boot = (head.device, head.inode) == (device, inode), head.boot == boot
        furthest = _furthest(self._file, head.epoch, inode, boot)
        if furthest is not None and not stands(furthest):
            return furthest
        if not same_file or not same_boot:
            self._write_head(device, inode, boot)
        return None

    def _read_head(self) -> _Head | None:
        return None if self._file is None else _head_of(os.pread(self._file, _SLOT_BYTES, 0))

    def _begin(self, device: int, inode: int, boot: bytes) -> None:
        self._epoch = secrets.randbits(64)
        self._write_head(device, inode, boot)

    def _write_head(self, device: int, inode: int, boot: bytes) -> None:
        if self._file is not None:
            journal = self._path.removesuffix("-mark")
            inodes = inode, _inode(journal + "-wal"), os.fstat(self._file).st_ino
            shm_inode = _shm_inode(journal)
            os.pwrite(self._file, _proven(_HEAD.pack(_MAGIC, self._epoch, device, *inodes, boot, shm_inode)), 0)


def is_left_over(wal: str, journal: str) -> bool:
    """Whether that -wal belongs to the file whose place `journal` took."""
    try:
        head, file = _own_head(journal), os.stat(journal)
    except OSError:
        return False
    return (
        head is not None
        and head.wal_inode == _inode(wal) != 0
        and (head.device, head.inode) != (file.st_dev, file.st_ino)
    )


def noted_beside(journal: str) -> Beside:
    """Compare the -wal and -shm beside `journal` with those that were noted at its last opening."""
    try:
        head = _own_head(journal)
    except OSError:
        head = None
    return Beside(None, None) if head is None else _beside(head, journal)


def _own_head(journal: str) -> _Head | None:
    """The head of the file beside `journal`; None where that was copied, as it then speaks of another journal."""
    with os.fdopen(os.open(journal + "-mark", os.O_RDONLY | _FLAGS), "rb") as mark:
        head, own_inode = _head_of(mark.read(_SLOT_BYTES)), os.fstat(mark.fileno()).st_ino
    return head if head is not None and head.own_inode == own_inode else None


def _beside(head: _Head, journal: str) -> Beside:
    shm = head.shm_inode == _shm_inode(journal) if head.shm_inode else None
    return Beside(head.wal_inode == _inode(journal + "-wal"), shm)


def find_noted(journal: str) -> Noted | None:
    """The furthest note beside `journal`, for a reader: nothing is made, locked or written."""
    try:
        inode, mark = os.stat(journal).st_ino, os.open(journal + "-mark", os.O_RDONLY | _FLAGS)
    except OSError:
        return None
    try:
        head = _head_of(os.pread(mark, _SLOT_BYTES, 0))
        return None if head is None else _furthest(mark, head.epoch, inode, _boot())
    except OSError:
        return None
    finally:
        os.close(mark)


def _furthest(mark: int, now_epoch: int, inode: int, boot: bytes) -> Noted | None:
    slots = os.pread(mark, _SLOTS * _SLOT_BYTES, _SLOT_BYTES)
    notes = []
    for at in range(0, len(slots), _SLOT_BYTES):
        block = slots[at : at + _SLOT_BYTES]
        if _is_proven(block, _SLOT):
            epoch, position, appended_us, record_id, noted_inode, noted_boot = _SLOT.unpack_from(block)
            if epoch == now_epoch:
                notes.append(Noted(position, record_id, appended_us, noted_inode == inode, noted_boot == boot))
    return max(notes, default=None)


def _head_of(block: bytes) -> _Head | None:
    if block[:8] != _MAGIC:
        return None
    if _is_proven(block, _HEAD):
        return _Head(*_HEAD.unpack_from(block)[1:])
    return _Head(*_OLD_HEAD.unpack_from(block)[1:]) if _is_proven(block, _OLD_HEAD) else None


def _inode(path: str) -> int:
    """0 where nothing is there. SQLite follows no link to a -wal or -shm."""
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def _shm_inode(journal: str) -> int:
    return _inode(journal + "-shm") & 0xFFFFFFFF


def _lock(file: int, command: int, kind: int, slot: int) -> None:
    fcntl.fcntl(file, command, _FLOCK.pack(kind, os.SEEK_SET, slot * _SLOT_BYTES, _SLOT_BYTES, 0))


def _proven(block: bytes) -> bytes:
    return block + _CHECKSUM.pack(crc32(block))


def _is_proven(block: bytes, layout: struct.Struct) -> bool:
    end = layout.size
    return len(block) >= end + 4 and _CHECKSUM.unpack_from(block, end)[0] == crc32(block[:end])


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _boot() -> bytes:
    """The random id of this start of the machine, half of it."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))[:8]
    except (OSError, ValueError):
        return bytes(8)
