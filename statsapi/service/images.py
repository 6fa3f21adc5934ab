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

An image and each part have a CRC-32, which each process compares once, before it maps the part. How the files are
written, kept private and opened: image_folder.py.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Final

import msgspec
import numpy as np
from zlib_ng.zlib_ng import crc32

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
from statsapi.service.image_folder import ImageFolder, Stamp

logger = logging.getLogger("statsapi")

_VERSION: Final = 1
_CRC_BYTES: Final = 4
_MAX_SMALL_BYTES: Final = 1 << 30

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


class Images:
    """The images in `folder`, for one process that follows a journal. Any thread may call any method.

    retention: an image with another retention is not used, as it may lack events that must be kept raw.
    """

    def __init__(self, folder: str, retention: Retention) -> None:
        self._folder = ImageFolder(folder)
        self._retention = retention
        self._lock = threading.Lock()
        self._seen: Stamp | None = None  # of the image written or read last
        self._parts: dict[str, tuple[_Part, memoryview]] = {}  # that image's parts, mapped
        self._said = ""
        self.events = 0
        """How many sealed events the image written or read last had."""

    def begin(self, journal: Journal) -> tuple[Store, Mark] | None:
        """A store with the image's state, and its mark; None without a usable image.

        With 10M events it costs some 40 ms for the checksums of parts not mapped yet, and 13 ms for the rest.
        """
        with self._lock:
            stamp = self._folder.stamp("image")
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
                if self._folder.stamp("image") == stamp:
                    self._say(f"The image in {self._folder.path} is not used: {error}")
                else:  # the leader has written another one meanwhile, and removed parts of this one
                    self._seen = None
            return None

    def has_another(self) -> bool:
        """Whether there is an image that this process has neither written nor read. Costs 3 µs."""
        stamp = self._folder.stamp("image")
        return stamp is not None and stamp != self._seen

    def leads(self) -> bool:
        """Whether this process is the leader. Once it is, it stays so until it ends, or until `close`."""
        with self._lock:
            try:
                return CAN_PACK and self._folder.lead()
            except OSError as error:
                self._say(f"Nothing is shared in {self._folder.path}: {error}")
                return False

    def close(self) -> None:
        """Let another process lead. Mapped parts stay mapped."""
        with self._lock:
            self._folder.stop_leading()

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
                self._say(f"Nothing more is shared in {self._folder.path}: {error}")
                self._folder.remove_but(self._parts)
                return None

    def _publish(self, journal: int, mark: Mark, state: State) -> Moved:
        self._folder.require_private()
        held = [chunk for sealed in state.sealed.values() for chunk in sealed.chunks]
        used_bytes: dict[str, int] = defaultdict(int)
        for chunk in held:
            if chunk.sealed.place is not None:
                used_bytes[chunk.sealed.place.file] += _EVENT_BYTES * len(chunk.sealed.ts_us)
        # A part may be gone: removed by another leader with another retention, or by a person.
        kept = {
            name: part
            for name, part in self._parts.items()
            if 2 * used_bytes[name] > part[0].size and self._folder.has(name)
        }
        chunks = [chunk for chunk in held if chunk.sealed.place is None or chunk.sealed.place.file not in kept]
        moved: Moved = []
        places = {id(chunk): chunk.sealed.place for chunk in held}
        if chunks:
            part, starts = self._write_part([chunk.sealed_columns() for chunk in chunks])
            data = self._folder.map(part.name, part.size)
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
        self._folder.write("image", (crc32(body).to_bytes(_CRC_BYTES, "little"), body))
        self._seen = self._folder.stamp("image")
        self.events = image.events
        self._parts = kept
        self._folder.remove_but(kept)
        return moved

    def _load(self, journal: Journal) -> tuple[Store, Mark] | None:
        self._folder.require_private()
        data = self._folder.read("image")
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

    def _say(self, what: str) -> None:
        if what != self._said:
            logger.warning("%s", what)
        self._said = what

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
        self._folder.write(part.name, pieces)
        return part, starts

    def _checked(self, part: _Part) -> memoryview:
        """The part, mapped. ValueError where its checksum does not match."""
        if self._folder.checksum(part.name) != part.checksum:
            raise ValueError(f"the checksum of {part.name} does not match")
        return self._folder.map(part.name, part.size)


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
