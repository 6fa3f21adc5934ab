"""Images: the state of a view at a mark, in files. The views of this machine map them instead of using memory of their
own, and a restart begins with them.

    FOLDER/image           the state at a mark, and which part holds which chunk         replaced as a whole
    FOLDER/HEX.part        packed chunks (engine/packed.py), one after another           never changed
    FOLDER/leader          the process that holds its lock is the only writer            empty

The leader writes the chunks that are in no part yet into a new part, then an image that lists all parts. Then it
removes the parts that the image does not list; a process that has mapped one keeps it. A chunk that changes (late
events are merged, events are deleted) becomes a new chunk, which is in no part. A part that is mostly unused is
rewritten.

An image is optional: without a usable one, a view is built from the journal. An image is used if its mark still stands
in the journal, and the records after the mark are applied as usual. So two services on one journal, or a leader that
was killed at any moment, do no harm.

An image and each part have a CRC-32, which each process compares once, before it maps the part. Nothing is compared
after that, so the folder and its files are private to this user.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import re
import secrets
import stat
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import FileIO
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from statsapi.engine.chunk import Chunk
from statsapi.engine.contents import State, Times
from statsapi.engine.held_events import Sealed
from statsapi.engine.holdings import LateEvent
from statsapi.engine.packed import CAN_PACK, pack, unpack
from statsapi.engine.rollup import WHOLE_HOUR
from statsapi.engine.sealed import Place, SealedColumns
from statsapi.engine.store import Store
from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import HistoryChanged, Journal, Mark, decode_batch, encode_batch
from statsapi.model import HOUR_US, MINUTE_US, Retention, floor_us

logger = logging.getLogger("statsapi")

_VERSION: Final = 1
_CRC_BYTES: Final = 4
_IO_BYTES: Final = 1 << 20
_MAX_SMALL_BYTES: Final = 1 << 30

# Parts, and files left half-written when a process ended. Any other file in the folder is not ours.
_OURS: Final = re.compile(r"[0-9a-f]{16}\.part(\.new)?|image\.new")

# The least number of bytes of a sealed event in a part.
_EVENT_BYTES: Final = 18

Moved = list[tuple[Chunk, SealedColumns, Place]]
_Rolled = tuple[int, int, bytes]


class _Part(msgspec.Struct, array_like=True, frozen=True):
    name: str
    size: int
    checksum: int


class _Series(msgspec.Struct, array_like=True, frozen=True):
    """Columns of 8 bytes a row. parts, at: each chunk's part, and its first byte there. late_counts: how many late
    events each chunk has; the other late columns hold them one chunk after another.
    """

    name: str
    tail_from_us: int
    starts: bytes
    parts: bytes
    at: bytes
    late_counts: bytes
    late_ts_us: bytes
    late_values: bytes
    tail_ts_us: bytes
    tail_values: bytes


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """The first members of an image, the same in every version."""

    version: int
    journal: int


class _Image(msgspec.Struct, array_like=True, frozen=True):
    """journal: identifies the journal's file. times_us: the times of `State`. events: the number of sealed events."""

    version: int
    journal: int
    position: int
    record_id: bytes
    retention: tuple[int, ...]
    times_us: Times
    events: int
    parts: list[_Part]
    series: list[_Series]
    small: bytes
    rollups: list[tuple[str, list[_Rolled]]]
    late: list[tuple[str, int, float]]


class _Stamp(NamedTuple):
    inode: int
    mtime_ns: int
    size: int


class Images:
    """The images in `folder`, for one process that follows a journal. Any thread may call any method.

    retention: an image with another retention is not used, as it may lack events that must be kept raw.
    """

    def __init__(self, folder: str, retention: Retention) -> None:
        self._folder = folder
        self._retention = retention
        self._lock = threading.Lock()
        self._leader_fd: int | None = None
        self._seen: _Stamp | None = None  # of the image written or read last
        self._parts: dict[str, tuple[_Part, memoryview]] = {}  # that image's parts, mapped
        self._said = ""
        self.events = 0
        """How many sealed events the image written or read last had."""

    def begin(self, journal: Journal) -> tuple[Store, Mark] | None:
        """A store with the image's state, and its mark; None without a usable image.

        With 10M events it costs some 40 ms for the checksums of parts not mapped yet, and 13 ms for the rest.
        """
        with self._lock:
            stamp = self._stamp()
            if stamp is None:
                return None
            self._seen = stamp
            try:
                return self._load(journal)
            except HistoryChanged:
                return None
            except Exception as error:  # a bad file must cost no more than the sharing
                if isinstance(error, JournalUnavailable | JournalRefused) and not isinstance(error, JournalDamaged):
                    self._seen = None  # it is looked at again
                    raise
                if self._stamp() == stamp:
                    self._say(f"the image in {self._folder} is not used: {error}")
                else:  # the leader has written another one meanwhile, and removed parts of this one
                    self._seen = None
            return None

    def has_another(self) -> bool:
        """Whether there is an image that this process has neither written nor read. Costs 3 µs."""
        stamp = self._stamp()
        return stamp is not None and stamp != self._seen

    def leads(self) -> bool:
        """Whether this process is the leader. Once it is, it stays so until it ends, or until `close`."""
        with self._lock:
            if self._leader_fd is None:
                try:
                    self._leader_fd = self._take_lead()
                except OSError as error:
                    self._say(f"nothing is shared in {self._folder}: {error}")
            return self._leader_fd is not None

    def close(self) -> None:
        """Let another process lead. Mapped parts stay mapped."""
        with self._lock:
            if self._leader_fd is not None:
                os.close(self._leader_fd)
                self._leader_fd = None

    def publish(self, journal: int, mark: Mark, state: State) -> Moved | None:
        """Write an image of the state at the mark. Only the leader may call it. Returns the chunks that may drop their
        arrays, with their replacements; None where the files cannot be written, which is logged once and leaves the
        old image.

        10M events that are in no part yet take 0.13 s, in which other threads run.
        """
        with self._lock:
            try:
                return self._publish(journal, mark, state)
            except (OSError, ValueError, MemoryError) as error:
                self._say(f"nothing more is shared in {self._folder}: {error}")
                self._remove_but(self._parts)
                return None

    def _publish(self, journal: int, mark: Mark, state: State) -> Moved:
        self._require_private()
        held = [chunk for sealed in state.sealed.values() for chunk in sealed.chunks]
        used_bytes: dict[str, int] = defaultdict(int)
        for chunk in held:
            if chunk.sealed.place is not None:
                used_bytes[chunk.sealed.place.file] += _EVENT_BYTES * len(chunk.sealed.ts_us)
        # A part may be gone: removed by another leader with another retention, or by a person.
        kept = {
            name: part
            for name, part in self._parts.items()
            if 2 * used_bytes[name] > part[0].size and os.path.isfile(self._path(name))
        }
        chunks = [chunk for chunk in held if chunk.sealed.place is None or chunk.sealed.place.file not in kept]
        moved: Moved = []
        places = {id(chunk): chunk.sealed.place for chunk in held}
        if chunks:
            part, starts = self._write_part([chunk.sealed_columns() for chunk in chunks])
            data = self._map(part)
            kept[part.name] = part, data
            for chunk, at in zip(chunks, starts, strict=True):
                place = places[id(chunk)] = Place(part.name, at)
                moved.append((chunk, unpack(data, at), place))
        numbers = {name: number for number, name in enumerate(kept)}
        image = _Image(
            _VERSION,
            journal,
            mark.position,
            mark.record_id,
            tuple(self._retention),
            state.times_us,
            sum(len(chunk.sealed.ts_us) for chunk in held),
            [part for part, _ in kept.values()],
            [
                _encode_series(name, sealed, numbers, [places[id(chunk)] for chunk in sealed.chunks])
                for name, sealed in state.sealed.items()
            ],
            encode_batch(state.small, limit_bytes=_MAX_SMALL_BYTES),
            [(name, [(*rolled,) for rolled in some]) for name, some in state.rollups.items()],
            [(*late,) for late in state.late],
        )
        body = msgspec.msgpack.encode(image)
        self._write("image", (crc32(body).to_bytes(_CRC_BYTES, "little"), body))
        self._seen = self._stamp()
        self.events = image.events
        self._parts = kept
        self._remove_but(kept)
        return moved

    def _load(self, journal: Journal) -> tuple[Store, Mark] | None:
        self._require_private()
        with self._open("image") as file:
            data = memoryview(file.read())
        body = data[_CRC_BYTES:]
        if crc32(body) != int.from_bytes(data[:_CRC_BYTES], "little"):
            raise ValueError("its checksum does not match")
        head = msgspec.msgpack.decode(body, type=_Head)
        shared = journal.shared_folder()
        if head.version != _VERSION or shared is None or head.journal != shared.journal:
            return None
        image = msgspec.msgpack.decode(body, type=_Image)
        if image.retention != tuple(self._retention):
            return None
        mark = Mark(image.position, image.record_id)
        journal.read(mark, limit_records=1)  # HistoryChanged where it does not stand
        self._parts = {part.name: self._parts.get(part.name) or (part, self._checked(part)) for part in image.parts}
        store = Store(self._retention)
        for hour_us, blocks in _by_hour(image.rollups):
            store.contents.load_rollups(hour_us, blocks)
        parts = [(part.name, self._parts[part.name][1]) for part in image.parts]
        sealed = {series.name: _decode_series(series, parts) for series in image.series}
        late = [LateEvent(*each) for each in image.late]
        store.contents.restore(State(image.times_us, sealed, decode_batch(image.small), {}, late))
        self.events = image.events
        return store, mark

    # Files

    def _stamp(self) -> _Stamp | None:
        try:
            found = os.stat(os.path.join(self._folder, "image"))
        except OSError:
            return None
        return _Stamp(found.st_ino, found.st_mtime_ns, found.st_size)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _say(self, what: str) -> None:
        if what != self._said:
            logger.warning("%s", what)
        self._said = what

    def _require_private(self) -> None:
        """Raise unless the folder is a private directory of this user. A link is refused, as it may lead elsewhere."""
        found = os.lstat(self._folder)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError("the folder is a link or a file: remove it")
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"the folder is not this user's alone: chmod 700 {self._folder}, or remove it")

    def _take_lead(self) -> int | None:
        if not CAN_PACK:
            return None
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        self._require_private()
        fd = os.open(self._path("leader"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return fd

    def _write_part(self, chunks: Sequence[SealedColumns]) -> tuple[_Part, list[int]]:
        pieces: list[bytes | memoryview] = []
        starts = []
        size = checksum = 0
        for chunk in chunks:
            starts.append(size)
            for piece in pack(chunk):
                pieces.append(piece)
                checksum = crc32(piece, checksum)
                size += len(piece)
        part = _Part(f"{secrets.token_hex(8)}.part", size, checksum)
        self._write(part.name, pieces)
        return part, starts

    def _write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file; a failure leaves no file. It is not mapped, so a full disk is an error, not a signal."""
        path = self._path(name)
        new = path + ".new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=_IO_BYTES) as file:
                file.writelines(pieces)
            os.rename(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise

    def _remove_but(self, kept: Iterable[str]) -> None:
        with contextlib.suppress(OSError):
            self._require_private()
            for name in os.listdir(self._folder):
                if _OURS.fullmatch(name) and name not in kept:
                    with contextlib.suppress(OSError):  # somebody's folder of that name
                        os.unlink(self._path(name))

    def _checked(self, part: _Part) -> memoryview:
        """The part, mapped. It is read first, so that a bad disk raises an error instead of a signal."""
        buffer = memoryview(bytearray(_IO_BYTES))
        checksum = 0
        with self._open(part.name) as file:
            while count := file.readinto(buffer):
                checksum = crc32(buffer[:count], checksum)
        if checksum != part.checksum:
            raise ValueError(f"the checksum of {part.name} does not match")
        return self._map(part)

    def _open(self, name: str) -> FileIO:
        """Open a regular file; anything else, which might block or never end, is refused."""
        fd = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ValueError(f"{name} is no file")
        return FileIO(fd)

    def _map(self, part: _Part) -> memoryview:
        with self._open(part.name) as file:
            return memoryview(mmap.mmap(file.fileno(), part.size, prot=mmap.PROT_READ))


def _encode_series(name: str, sealed: Sealed, numbers: Mapping[str, int], places: Sequence[Place | None]) -> _Series:
    known = [place for place in places if place is not None]
    late_ts_us, late_values = zip(*sealed.late, strict=True)
    return _Series(
        name,
        sealed.tail_from_us,
        np.array(sealed.starts, np.int64).tobytes(),
        np.array([numbers[place.file] for place in known], np.int64).tobytes(),
        np.array([place.at for place in known], np.int64).tobytes(),
        np.array(list(map(len, late_ts_us)), np.int64).tobytes(),
        np.concatenate(late_ts_us).tobytes(),
        np.concatenate(late_values).tobytes(),
        sealed.tail[0].tobytes(),
        sealed.tail[1].tobytes(),
    )


def _decode_series(series: _Series, parts: Sequence[tuple[str, memoryview]]) -> Sealed:
    chunks = []
    for number, at in zip(_integers(series.parts), _integers(series.at), strict=True):
        name, data = parts[number]
        chunks.append(Chunk.of(unpack(data, at), Place(name, at)))
    late_ts_us, late_values = np.frombuffer(series.late_ts_us, np.int64), np.frombuffer(series.late_values)
    ends = list(accumulate(_integers(series.late_counts), initial=0))
    late = [(late_ts_us[first:last], late_values[first:last]) for first, last in pairwise(ends)]
    tail = np.frombuffer(series.tail_ts_us, np.int64), np.frombuffer(series.tail_values)
    return Sealed(series.tail_from_us, _integers(series.starts), chunks, late, tail)


def _integers(column: bytes) -> list[int]:
    numbers: list[int] = np.frombuffer(column, np.int64).tolist()
    return numbers


def _by_hour(rollups: Iterable[tuple[str, list[_Rolled]]]) -> list[tuple[int, dict[str, dict[int, bytes]]]]:
    """Each hour's blocks, as `Contents.load_rollups` takes them, by rising hour."""
    hours: dict[int, dict[str, dict[int, bytes]]] = defaultdict(lambda: defaultdict(dict))
    for name, some in rollups:
        for start_us, length_us, block in some:
            hour_us = floor_us(start_us, HOUR_US)
            minute = WHOLE_HOUR if length_us == HOUR_US else (start_us - hour_us) // MINUTE_US
            hours[hour_us][name][minute] = block
    return sorted(hours.items(), key=itemgetter(0))
