"""The bytes of a record, and the way back.

A payload is little-endian. Every block in it starts at a multiple of 8, and its length is a multiple of 8:

    events   version u8 | kind u8 = 0 | 0 u16        | parts u32
             name lengths u16[parts] | counts u32[parts] | names utf-8 | zeros up to a multiple of 8
             ts_us int64[N] | values float64[N]                            N = sum(counts)
    delete   version u8 | kind u8 = 1 | name length u16 | 0 u32
             start_us int64 | end_us int64 | name utf-8 | zeros up to a multiple of 8

One event of "default" takes 40 bytes and a batch takes 16 bytes an event. Decoding a batch copies nothing.

A payload holds neither id nor appended_us: the engine keeps them beside it, because it looks them up alone. What
proves that a payload is whole: checksums.py. How many records become columns at once: columns.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from statsapi.errors import JournalDamaged, JournalRefused
from statsapi.model import Deletion, EventBatch, Parts, TimestampsUs, Values

VERSION: Final = 1
KIND_EVENTS: Final = 0
KIND_DELETE: Final = 1

MAX_NAME_BYTES: Final = 0xFFFF
# Well below what the engines take: Redis 512 MB a value, SQLite 10^9 bytes a row.
MAX_PAYLOAD_BYTES: Final = 256 << 20

# A record's names, and its series of one event, are made this many at a time: they take 1 MB.
NAMES_AT_ONCE: Final = 8192
_NOT_UTF8: Final = "a series name is not UTF-8"

_HEADER: Final = struct.Struct("<BBHI")
_SINGLE: Final = struct.Struct("<BBHIHI")
_BOUNDS: Final = struct.Struct("<qq")
# Columns from this length on are not copied before they are joined. Asking for the length costs a single event 40 ns.
_COPIED_BELOW: Final = 1024


def encode(draft: EventBatch | Deletion) -> bytes:
    """The payload of a record. ValueError for a draft that the format cannot hold."""
    return _encode_deletion(draft) if isinstance(draft, Deletion) else encode_batch(draft)


def encode_batch(batch: EventBatch, *, limit_bytes: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The payload of an events record. A checkpoint's state keeps batches in this form too."""
    parts = batch.parts
    if len(parts) == 1:  # most records: 2 µs instead of 7
        series, ts_us, values = parts[0]
        name = _encode_name(series)
        count = len(ts_us)
        if len(values) != count:
            raise ValueError(f"series {series!r} has {count} timestamps and {len(values)} values")
        _check_size(16 * count, limit_bytes)
        head = _SINGLE.pack(VERSION, KIND_EVENTS, 0, 1, len(name), count) + name
        return b"".join((head, _padding(head), _column(ts_us, "<i8"), _column(values, "<f8")))
    columns = Parts.of(parts)
    # All at once: 100,000 names as bytes of their own would take 6 MB on the way.
    names = "".join(columns.names).encode()
    lengths = np.fromiter(map(len, columns.names), np.int64, len(columns))
    if lengths.sum() < len(names):
        lengths = np.fromiter((len(name.encode()) for name in columns.names), np.int64, len(columns))
    _check_name(lengths.max(initial=0))
    head = b"".join(
        (
            _HEADER.pack(VERSION, KIND_EVENTS, 0, len(columns)),
            lengths.astype("<u2").tobytes(),
            columns.counts.astype("<u4").tobytes(),
            names,
        )
    )
    _check_size(len(head) + 16 * len(columns.ts_us), limit_bytes)
    if not parts:
        return head
    return b"".join((head, _padding(head), _column(columns.ts_us, "<i8"), _column(columns.values, "<f8")))


def decode_batch(payload: bytes) -> EventBatch:
    """The inverse of `encode_batch`. The arrays are read-only views of `payload`. JournalDamaged for other bytes."""
    _, kind, _, _ = read_header(payload, 0, len(payload), "the batch")
    if kind != KIND_EVENTS:
        raise malformed("the batch", f"it is of kind {kind}")
    names, counts, ts_us, values = decode_events(payload, 0, len(payload), "the batch")
    return EventBatch(Parts(list(names), counts, ts_us, values))


def decode_events(
    data: bytes, low: int, high: int, where: str
) -> tuple[Sequence[str], NDArray[np.uint32], TimestampsUs, Values]:
    _, _, reserved, parts = read_header(data, low, high, where)
    names_at = low + 8 + 6 * parts
    if reserved or names_at > high:
        raise malformed(where, "its header does not fit its length")
    if parts == 0:
        if high - low != 8:
            raise malformed(where, "its header does not fit its length")
        return [], np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64)
    lengths = np.frombuffer(data, "<u2", parts, low + 8)
    counts = np.frombuffer(data, "<u4", parts, low + 8 + 2 * parts)
    if parts == 1:
        names_end, events = names_at + int(lengths[0]), int(counts[0])
    else:
        names_end, events = names_at + int(lengths.sum(dtype=np.int64)), int(counts.sum(dtype=np.int64))
    columns_at = low + ((names_end - low + 7) & -8)
    if columns_at + 16 * events != high:
        raise malformed(where, "its header does not fit its length")
    if any(data[names_end:columns_at]):
        raise malformed(where, "there is something in its padding")
    if parts == 1:
        names: Sequence[str] = [decode_name(data[names_at:names_end], where)]
    else:
        names = _decode_names(data[names_at:names_end], lengths, where)
    ts_us = np.frombuffer(data, "<i8", events, columns_at)
    values = np.frombuffer(data, "<f8", events, columns_at + 8 * events)
    return names, counts, ts_us, values


class _Names(Sequence[str]):
    """The names in a record of many parts, made as they are asked for: 100,000 of them take 6.5 MB, their text 1 MB.

    JournalDamaged where one is not UTF-8, at once.
    """

    __slots__ = ("_blob", "_ends", "_is_ascii")

    def __init__(self, blob: bytes, lengths: NDArray[np.uint16], where: str) -> None:
        self._blob = blob
        self._ends = np.concatenate(([0], lengths.cumsum(dtype=np.int64)))
        self._is_ascii = blob.isascii()
        if not self._is_ascii:
            decode_name(blob, where)
            begins = np.frombuffer(blob, np.uint8)[self._ends[:-1][lengths > 0]]
            if (begins & 0xC0 == 0x80).any():
                raise malformed(where, _NOT_UTF8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if not isinstance(at, slice):
            at = range(len(self))[at]
            return self._blob[self._ends[at] : self._ends[at + 1]].decode()
        first, stop, step = at.indices(len(self))
        if step != 1:
            return [self[k] for k in range(first, stop, step)]
        ends = self._ends[first : max(first, stop) + 1].tolist()
        if self._is_ascii:  # slicing one str takes a third of decoding each name
            begin = ends[0]
            text = self._blob[begin : ends[-1]].decode("ascii")
            return [text[low - begin : high - begin] for low, high in pairwise(ends)]
        return [self._blob[low:high].decode() for low, high in pairwise(ends)]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), NAMES_AT_ONCE):
            yield from self[first : first + NAMES_AT_ONCE]


def _decode_names(blob: bytes, lengths: NDArray[np.uint16], where: str) -> Sequence[str]:
    names = _Names(blob, lengths, where)
    return names if len(names) > NAMES_AT_ONCE else names[:]


def decode_name(name: bytes, where: str) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise malformed(where, _NOT_UTF8) from error


def _encode_name(series: str) -> bytes:
    name = series.encode()
    _check_name(len(name))
    return name


def _check_name(length: int) -> None:
    if length > MAX_NAME_BYTES:
        raise ValueError(f"a series name takes {length} bytes; a record has room for {MAX_NAME_BYTES}")


def _encode_deletion(deletion: Deletion) -> bytes:
    name = _encode_name(deletion.series)
    bounds = _BOUNDS.pack(deletion.start_us, deletion.end_us)
    return _HEADER.pack(VERSION, KIND_DELETE, len(name), 0) + bounds + name + _padding(name)


def decode_deletion(data: bytes, low: int, high: int, where: str) -> Deletion:
    _, _, name_length, reserved = read_header(data, low, high, where)
    end = low + 24 + name_length
    if reserved or high - low != (24 + name_length + 7) & -8 or any(data[end:high]):
        raise malformed(where, "its header does not fit its length")
    start_us, end_us = _BOUNDS.unpack_from(data, low + 8)
    return Deletion(decode_name(data[low + 24 : end], where), start_us, end_us)


def read_header(data: bytes, low: int, high: int, where: str) -> tuple[int, int, int, int]:
    if high - low < 8 or (high - low) % 8:
        raise malformed(where, "its length is not one that a record can have")
    version, kind, name_length, parts = _HEADER.unpack_from(data, low)
    if version > VERSION:
        raise JournalRefused(f"{where} has format {version}; this statsapi reads up to {VERSION}: use a newer one")
    if version != VERSION or kind not in (KIND_EVENTS, KIND_DELETE):
        raise malformed(where, f"it has format {version} and kind {kind}")
    return version, kind, name_length, parts


def _column(array: NDArray[np.generic], dtype: str) -> bytes | memoryview:
    """The array's bytes. TypeError for another kind: a silent cast would change what was recorded.

    A large array is not copied. With the copy, a batch of 10,000 made the heap grow so far that malloc gave its end
    back to the system each time: 45 page faults, and 0.06 of the append's time.
    """
    array = array.astype(dtype, casting="equiv", copy=False)
    return array.tobytes() if len(array) < _COPIED_BELOW else np.ascontiguousarray(array).data


def _padding(block: bytes) -> bytes:
    return bytes(-len(block) % 8)


def _check_size(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ValueError(f"a record of {size} bytes exceeds the limit of {limit_bytes} bytes")


def record_name(position: int) -> str:
    return f"the journal's record {position}"


def malformed(where: str, why: str) -> JournalDamaged:
    return JournalDamaged(where, why)
