"""The bytes of a record, and their way back into columns.

A payload is little-endian, every block starts at a multiple of 8, and its length is a multiple of 8:

    events   version u8 | kind u8 = 0 | 0 u16        | parts u32
             name lengths u16[parts] | counts u32[parts] | names utf-8 | zeros up to a multiple of 8
             ts_us int64[N] | values float64[N]                            N = sum(counts)
    delete   version u8 | kind u8 = 1 | name length u16 | 0 u32
             start_us int64 | end_us int64 | name utf-8 | zeros up to a multiple of 8

So one event of "default" takes 40 bytes, a batch 16 bytes an event, and decoding a batch copies nothing.
Because the blocks are aligned, many single-event records side by side are a matrix of 8-byte words whose
headers are checked, and whose columns are taken, all at once: 0.15 µs a record where one by one takes 13.

id and appended_us are not in the payload: the engine keeps them beside it, since it looks at them alone.

Damage. What is kept carries a checksum, made when it is written and compared whenever it is read; what does not match
is JournalDamaged. All are CRC-32 as in zlib (5.5 GB/s here and 0.1 µs a call; blake2b: 1 GB/s and 0.35 µs). It finds
every damage within 32 bits and every odd number of flipped bits, and misses one in 4 billion of what is damaged at
random.

Engines that write position and time themselves keep a record sealed, in one piece that proves itself:

    sealed   payload | id 16 | position i64 | appended_us i64 | checksum u32 | 0 u32

The CRC-32 of such a block is always RESIDUE, so many are checked with one C call each, and their columns are taken from
where they stand: reading rows of sealed records alone is faster than reading payload, id, time and checksum apart
(0.34 + 0.09 and 0.93 µs a row).

`checksum` of a record ends with 16 bytes of fixed length, so an engine whose server gives position and time
may let the server go on from `crc32(record_id, crc32(payload))`. A checkpoint's covers those of its pieces, so that a
piece that is missing is noticed as well.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from statsapi.errors import JournalDamaged, JournalRefused
from statsapi.model import Deletion, EventBatch, Part, TimestampsUs, Values

VERSION = 1
KIND_EVENTS = 0
KIND_DELETE = 1

MAX_NAME_BYTES = 0xFFFF
# Well below what the engines take: Redis 512 MB a value, SQLite 10^9 bytes a row.
MAX_PAYLOAD_BYTES = 256 << 20

# µs for 2, 8, 16, 24, 100 records one by one: 90, 250, 360, 420, 1540; in columns: 130, 160, 240, 110, 120.
COLUMNAR_FROM = 6

# Merging records costs four columns of copies and a sort, 60 ns an event; applying one apart from its neighbours 20 µs.
ALONE_FROM_BYTES = 16_384

_HEADER = struct.Struct("<BBHI")
_SINGLE = struct.Struct("<BBHIHI")
_BOUNDS = struct.Struct("<qq")
_PLACE = struct.Struct("<qq")
_END = struct.Struct("<II")
_pack_place, _pack_end = _PLACE.pack, _END.pack
_SEAL = struct.Struct("<16sqqxxxxxxxx")
SEAL_BYTES = _SEAL.size
RESIDUE = crc32(_END.pack(crc32(b""), 0))
MISMATCH = "its checksum does not match"
_KEY = struct.Struct("<q")
_HEAD = struct.Struct("<IqqII")
_ANSWER = struct.Struct("<IIq")

_T = TypeVar("_T", bound=np.generic)

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]


class Events(NamedTuple):
    """Events of one series, in arrival order: three read-only columns of the same length."""

    series: str
    ts_us: TimestampsUs
    values: Values
    appended_us: TimestampsUs


Change = Events | Deletion


def checksum(position: int, record_id: bytes, appended_us: int, payload: bytes) -> int:
    """A record's: the CRC-32 of payload, id, position int64 and appended_us int64, little-endian. 0.5 µs + 0.2 ns/B."""
    return crc32(_PLACE.pack(position, appended_us), crc32(record_id, crc32(payload)))


def seal(position: int, record_id: bytes, appended_us: int, payload: bytes) -> bytes:
    """The record as one block; `record_id` has 16 bytes. 0.8 µs + 0.3 ns/B."""
    beside = record_id + _pack_place(position, appended_us)
    return b"".join((payload, beside, _pack_end(crc32(beside, crc32(payload)), 0)))


class Sealed(NamedTuple):
    """What stands beside the payload of a sealed record."""

    record_id: bytes
    position: int
    appended_us: int


def seal_of(record: bytes) -> Sealed:
    """JournalDamaged is for `decode_sealed` and `check_sealed`: nothing is checked here but the length."""
    if len(record) < SEAL_BYTES:
        return Sealed(b"", 0, 0)
    return Sealed(*_SEAL.unpack_from(record, len(record) - SEAL_BYTES))


def check_sealed(position: int, record: bytes) -> Sealed:
    """One record's seal, if it is the one that was written at this position; JournalDamaged otherwise."""
    if crc32(record) != RESIDUE or len(record) < SEAL_BYTES + 8:
        raise JournalDamaged(_where(position), MISMATCH)
    sealed = seal_of(record)
    if sealed.position != position:
        raise JournalDamaged(_where(position), f"record {sealed.position} stands in its place")
    return sealed


def decode_sealed(after: int, records: Sequence[bytes]) -> list[Change]:
    """`decode_records` for the sealed records that follow position `after` without a gap, all checked.

    JournalDamaged names the first that is not what was written, or is missing.
    """
    if set(map(crc32, records)) - {RESIDUE}:
        at = next(at for at, record in enumerate(records) if crc32(record) != RESIDUE)
        raise JournalDamaged(_where(after + 1 + at), MISMATCH)
    positions = range(after + 1, after + 1 + len(records))
    changes: list[Change] = []
    first = 0
    for at in [at for at, record in enumerate(records) if len(record) >= ALONE_FROM_BYTES and _is_compact(record)]:
        changes += _decode_small(positions[first:at], None, records[first:at])
        changes += _decode_alone_sealed(positions[at], records[at])
        first = at + 1
    return changes + _decode_small(positions[first:], None, records[first:])


def missing(first: int, last: int) -> JournalDamaged:
    """These records ought to stand in the journal and do not."""
    what = _where(first) if first == last else f"the journal's records {first} to {last}"
    return JournalDamaged(what, "it is missing" if first == last else "they are missing")


def checksums(
    positions: Sequence[int], record_ids: Sequence[bytes], appended_us: Sequence[int], payloads: Sequence[bytes]
) -> list[int]:
    """`checksum` of each: 0.22 µs a record."""
    places = np.empty((len(positions), 2), "<i8")
    places[:, 0] = positions
    places[:, 1] = appended_us
    return list(map(crc32, places.view("V16").ravel().tolist(), map(crc32, record_ids, map(crc32, payloads))))


def piece_checksum(key: int, piece: bytes) -> int:
    """A piece's. Pieces outlive the checkpoint that they were written with, so it has no part in it."""
    return crc32(_KEY.pack(key), crc32(piece))


def pieces_checksum(keys: Sequence[int], each: Sequence[int]) -> int:
    """Of all pieces, by rising key: covers which there are, and what each one's checksum is."""
    table = np.empty((len(keys), 2), "<i8")
    table[:, 0] = keys
    table[:, 1] = each
    return crc32(table.tobytes())


def checkpoint_checksum(
    checkpoint_id: bytes, position: int, record_id: bytes, appended_us: int, state_checksum: int, pieces: int
) -> int:
    """A checkpoint's head: `state_checksum` is crc32(state), `pieces` is `pieces_checksum`.

    So the head can be checked without reading the state.
    """
    return crc32(
        _HEAD.pack(len(checkpoint_id), position, appended_us, state_checksum, pieces) + checkpoint_id + record_id
    )


def answer_checksum(name: bytes, digest: bytes, answer: bytes, expires_us: int) -> int:
    """Of the answer that is kept under an idempotency key."""
    return crc32(answer, crc32(_ANSWER.pack(len(name), len(digest), expires_us) + name + digest))


def encode(draft: EventBatch | Deletion) -> bytes:
    """The payload of a record. ValueError for what has no place in the format."""
    return _encode_deletion(draft) if isinstance(draft, Deletion) else encode_batch(draft)


def encode_batch(batch: EventBatch, *, limit_bytes: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The payload of an events record; also good for keeping a batch elsewhere, such as in a checkpoint's state."""
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
    names = [_encode_name(part.series) for part in parts]
    counts = [len(part.ts_us) for part in parts]
    if counts != [len(part.values) for part in parts]:
        raise ValueError("a part has another number of timestamps than of values")
    head = b"".join(
        (
            _HEADER.pack(VERSION, KIND_EVENTS, 0, len(parts)),
            np.fromiter(map(len, names), "<u2", len(names)).tobytes(),
            np.array(counts, "<u4").tobytes(),
            *names,
        )
    )
    _check_size(len(head) + 16 * sum(counts), limit_bytes)
    if not parts:
        return head
    ts_us = np.concatenate([part.ts_us for part in parts], dtype="<i8", casting="equiv")
    values = np.concatenate([part.values for part in parts], dtype="<f8", casting="equiv")
    return b"".join((head, _padding(head), ts_us.tobytes(), values.tobytes()))


def decode_batch(payload: bytes) -> EventBatch:
    """The inverse of encode_batch; the arrays are read-only views of `payload`. JournalDamaged if it is not
    one.
    """
    _, kind, _, _ = _header(payload, 0, len(payload), "the batch")
    if kind != KIND_EVENTS:
        raise _malformed("the batch", f"it is of kind {kind}")
    names, counts, ts_us, values = _decode_events(payload, 0, len(payload), "the batch")
    return EventBatch(tuple(Part(*part) for part in _split(names, counts, ts_us, values)))


def decode_records(positions: Sequence[int], appended_us: Sequence[int], payloads: Sequence[bytes]) -> list[Change]:
    """The changes these records make, in order: small records of events side by side become one Events per series.

    Within a series arrival order is kept. About 0.15 µs a single-event record, 0.5 with many series; next to nothing
    for a batch, whose columns are views of its payload. JournalDamaged names the position of a record that cannot be
    read, JournalRefused one that is too new.
    """
    changes: list[Change] = []
    first = 0
    for at in [at for at, payload in enumerate(payloads) if len(payload) >= ALONE_FROM_BYTES and _is_compact(payload)]:
        changes += _decode_small(positions[first:at], appended_us[first:at], payloads[first:at])
        changes += _decode_alone(positions[at], appended_us[at], payloads[at], len(payloads[at]))
        first = at + 1
    if first == 0:
        return _decode_small(positions, appended_us, payloads)
    return changes + _decode_small(positions[first:], appended_us[first:], payloads[first:])


def _is_compact(payload: bytes) -> bool:
    """Whether a part has so much that merging it with others saves nothing."""
    parts = int.from_bytes(payload[4:8], "little")
    return len(payload) >= ALONE_FROM_BYTES * parts


def _decode_alone(position: int, appended_us: int, payload: bytes, end: int) -> list[Change]:
    """One record of either kind, which ends there."""
    where = _where(position)
    _, kind, _, _ = _header(payload, 0, end, where)
    if kind == KIND_DELETE:
        return [_decode_deletion(payload, 0, end, where)]
    names, counts, ts_us, values = _decode_events(payload, 0, end, where)
    appended = np.full(len(ts_us), appended_us, np.int64)  # broadcast_to has 5 µs of its own
    appended.flags.writeable = False
    return [
        Events(name, ts_us[low:high], values[low:high], appended[low:high])
        for name, low, high in _bounds(names, counts)
        if high > low
    ]


def _decode_alone_sealed(position: int, record: bytes) -> list[Change]:
    sealed = seal_of(record)
    if sealed.position != position:
        raise _misplaced(position, sealed.position)
    return _decode_alone(position, sealed.appended_us, record, len(record) - SEAL_BYTES)


def _misplaced(position: int, found: int) -> JournalDamaged:
    if found > position:
        return missing(position, found - 1)
    return JournalDamaged(_where(position), f"record {found} stands in its place")


def _decode_small(
    positions: Sequence[int], appended_us: Sequence[int] | None, payloads: Sequence[bytes]
) -> list[Change]:
    """Records that are not worth a step each. Without `appended_us` they are sealed, and known to be what was written:
    their positions are checked, and their times taken, here.
    """
    count = len(payloads)
    if count == 0:
        return []
    if count == 1:
        if appended_us is None:
            return _decode_alone_sealed(positions[0], payloads[0])
        return _decode_alone(positions[0], appended_us[0], payloads[0], len(payloads[0]))
    data = b"".join(payloads)
    lengths = np.fromiter(map(len, payloads), np.int64, count)
    ends = lengths.cumsum()
    starts = ends - lengths
    if appended_us is None:
        ends -= SEAL_BYTES
        lengths -= SEAL_BYTES
    crooked = np.flatnonzero((lengths % 8 != 0) | (lengths < 8))
    if len(crooked):
        raise _malformed(_where(positions[int(crooked[0])]), "its length is not one that a record can have")
    words = np.frombuffer(data, "<u8")
    if appended_us is None:
        places = ends >> 3
        found = words[places + 2].view("<i8")
        misplaced = np.flatnonzero(found != np.array(positions, np.int64))
        if len(misplaced):
            at = int(misplaced[0])
            raise _misplaced(positions[at], int(found[at]))
        stamps = words[places + 3].view("<i8")
    else:
        stamps = np.array(appended_us, np.int64)
    heads = words[starts >> 3]
    alien = np.flatnonzero(((heads & np.uint64(0xFF)) != VERSION) | ((heads & np.uint64(0xFF00)) > KIND_DELETE << 8))
    if len(alien):
        at = int(alien[0])
        _header(data, int(starts[at]), int(ends[at]), _where(positions[at]))
    run = _Run(positions, stamps, data, words, starts, ends, heads, SEAL_BYTES >> 3 if appended_us is None else 0)
    changes: list[Change] = []
    first = 0
    for at in np.flatnonzero((heads & np.uint64(0xFF00)) == KIND_DELETE << 8).tolist():
        changes += run.events(first, at)
        changes.append(_decode_deletion(data, int(starts[at]), int(ends[at]), _where(positions[at])))
        first = at + 1
    changes += run.events(first, count)
    return changes


class _Run:
    """Records side by side in one buffer, whose lengths, versions and kinds were checked."""

    def __init__(
        self,
        positions: Sequence[int],
        appended_us: Ints,
        data: bytes,
        words: Words,
        starts: Ints,
        ends: Ints,
        heads: Words,
        seal_words: int,
    ) -> None:
        self.positions = positions
        self.appended_us = appended_us
        self.data = data
        self.words = words
        self.starts = starts
        self.ends = ends
        self.heads = heads
        self.seal_words = seal_words

    def events(self, first: int, stop: int) -> list[Events]:
        """The events of the records [first, stop), none of which is a deletion, one Events per series."""
        if first == stop:
            return []
        codes: dict[str, int] = {}
        blocks: list[_Block] = []
        if stop - first < COLUMNAR_FROM:
            others = list(range(first, stop))
        else:
            single = self._singles(first, stop)
            for rows in self._by_length(first + np.flatnonzero(single)):
                blocks.append(self._single_block(rows, codes))
            others = (first + np.flatnonzero(~single)).tolist()
        sorted_blocks = not blocks or (len(blocks) == 1 and not others)
        for at in others:
            low, high = int(self.starts[at]), int(self.ends[at])
            names, counts, ts_us, values = _decode_events(self.data, low, high, _where(self.positions[at]))
            if len(ts_us):
                part_codes = [codes.setdefault(name, len(codes)) for name in names]
                blocks.append(_Block(np.repeat(part_codes, counts), np.repeat(at, len(ts_us)), ts_us, values))
        return self._merge(list(codes), blocks, in_order=sorted_blocks) if blocks else []

    def _singles(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Which of the records hold exactly one event and have the length that follows from their name's."""
        lengths = self.ends[first:stop] - self.starts[first:stop]
        one_part = (self.heads[first:stop] >> np.uint64(16) == 1 << 16) & (lengths >= 32)
        # The last record may be 8 bytes long: it is then no candidate, and reads its own head instead of past
        # the end.
        second = self.words[(self.starts[first:stop] >> 3) + one_part]
        name_length = (second & np.uint64(0xFFFF)).astype(np.int64)
        counts = (second >> np.uint64(16)) & np.uint64(0xFFFFFFFF)
        fits: NDArray[np.bool_] = lengths == ((14 + name_length + 7) & -8) + 16
        single: NDArray[np.bool_] = one_part & (counts == 1) & fits
        return single

    def _by_length(self, rows: Ints) -> list[Ints]:
        lengths = self.ends[rows] - self.starts[rows]
        if not len(rows) or (lengths == lengths[0]).all():
            return [rows] if len(rows) else []
        return [rows[lengths == length] for length in np.unique(lengths)]

    def _single_block(self, rows: Ints, codes: dict[str, int]) -> _Block:
        """Single-event records of the same length: a matrix of words, one row a record."""
        width = int(self.ends[rows[0]] - self.starts[rows[0]]) >> 3
        start = int(self.starts[rows[0]]) >> 3
        if int(rows[-1] - rows[0]) == len(rows) - 1:
            stride = width + self.seal_words
            table = self.words[start : start + stride * len(rows)].reshape(-1, stride)[:, :width]
        else:
            table = self.words[(self.starts[rows] >> 3)[:, None] + np.arange(width)]
        names = table[:, 1:-2]  # name length, count and name
        if (names == names[0]).all():
            code = codes.setdefault(self._name(names[0].tobytes(), rows[0]), len(codes))
            row_codes = np.broadcast_to(np.int64(code), rows.shape)
        else:
            keys = np.ascontiguousarray(names).view(f"V{8 * (width - 3)}").ravel().tolist()
            # In the order of the first arrival; a dict of bytes took 0.15 µs a record, np.unique of them 0.6.
            known = {key: codes.setdefault(self._name(key, rows[0]), len(codes)) for key in dict.fromkeys(keys)}
            row_codes = np.fromiter(map(known.__getitem__, keys), np.int64, len(keys))
        return _Block(row_codes, rows, table[:, -2].view("<i8"), table[:, -1].view("<f8"))

    def _name(self, key: bytes, at: int) -> str:
        end = 6 + int.from_bytes(key[:2], "little")
        if any(key[end:]):
            raise _malformed(f"a record after {_where(self.positions[at])}", "there is something in its padding")
        return _decode_name(key[6:end], f"a record after {_where(self.positions[at])}")

    def _merge(self, names: list[str], blocks: list[_Block], *, in_order: bool) -> list[Events]:
        codes = _concatenate([block.codes for block in blocks])
        rows = _concatenate([block.rows for block in blocks])
        ts_us = _concatenate([block.ts_us for block in blocks])
        values = _concatenate([block.values for block in blocks])
        order: Ints | None = None if in_order else rows.argsort(kind="stable")
        if len(names) > 1:
            # Sorting 16-bit codes is a radix sort: linear, and ten times faster than of 64-bit ones.
            small = codes.astype(np.uint16) if len(names) <= 1 << 16 else codes
            by_code = (small if order is None else small[order]).argsort(kind="stable")
            order = by_code if order is None else order[by_code]
        if order is not None:
            rows, ts_us, values = rows[order], ts_us[order], values[order]
        else:
            ts_us, values = np.ascontiguousarray(ts_us), np.ascontiguousarray(values)
        appended_us = self.appended_us[rows]
        for column in (ts_us, values, appended_us):
            column.flags.writeable = False
        counts = np.bincount(codes, minlength=len(names)) if len(names) > 1 else [len(ts_us)]
        return [
            Events(name, ts_us[low:high], values[low:high], appended_us[low:high])
            for name, low, high in _bounds(names, counts)
            if high > low
        ]


class _Block(NamedTuple):
    """Events with the number of their series and the row of their record, both rising within a series."""

    codes: Ints
    rows: Ints
    ts_us: TimestampsUs
    values: Values


def _decode_events(
    data: bytes, low: int, high: int, where: str
) -> tuple[list[str], NDArray[np.uint32], TimestampsUs, Values]:
    _, _, reserved, parts = _header(data, low, high, where)
    names_at = low + 8 + 6 * parts
    if reserved or names_at > high:
        raise _malformed(where, "its header does not fit its length")
    if parts == 0:
        if high - low != 8:
            raise _malformed(where, "its header does not fit its length")
        return [], np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64)
    lengths = np.frombuffer(data, "<u2", parts, low + 8)
    counts = np.frombuffer(data, "<u4", parts, low + 8 + 2 * parts)
    if parts == 1:
        names_end, events = names_at + int(lengths[0]), int(counts[0])
    else:
        names_end, events = names_at + int(lengths.sum(dtype=np.int64)), int(counts.sum(dtype=np.int64))
    columns_at = low + ((names_end - low + 7) & -8)
    if columns_at + 16 * events != high:
        raise _malformed(where, "its header does not fit its length")
    if any(data[names_end:columns_at]):
        raise _malformed(where, "there is something in its padding")
    if parts == 1:
        names = [_decode_name(data[names_at:names_end], where)]
    else:
        names = _decode_names(data[names_at:names_end], lengths, where)
    ts_us = np.frombuffer(data, "<i8", events, columns_at)
    values = np.frombuffer(data, "<f8", events, columns_at + 8 * events)
    return names, counts, ts_us, values


def _decode_names(blob: bytes, lengths: NDArray[np.uint16], where: str) -> list[str]:
    ends = lengths.cumsum(dtype=np.int64).tolist()
    starts = [0, *ends[:-1]]
    if blob.isascii():  # slicing one str takes a third of decoding each name
        text = blob.decode("ascii")
        return [text[low:high] for low, high in zip(starts, ends, strict=True)]
    return [_decode_name(blob[low:high], where) for low, high in zip(starts, ends, strict=True)]


def _decode_name(name: bytes, where: str) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise _malformed(where, "a series name is not UTF-8") from error


def _encode_name(series: str) -> bytes:
    name = series.encode()
    if len(name) > MAX_NAME_BYTES:
        raise ValueError(f"a series name takes {len(name)} bytes; a record has room for {MAX_NAME_BYTES}")
    return name


def _encode_deletion(deletion: Deletion) -> bytes:
    name = _encode_name(deletion.series)
    bounds = _BOUNDS.pack(deletion.start_us, deletion.end_us)
    return _HEADER.pack(VERSION, KIND_DELETE, len(name), 0) + bounds + name + _padding(name)


def _decode_deletion(data: bytes, low: int, high: int, where: str) -> Deletion:
    _, _, name_length, reserved = _header(data, low, high, where)
    end = low + 24 + name_length
    if reserved or high - low != (24 + name_length + 7) & -8 or any(data[end:high]):
        raise _malformed(where, "its header does not fit its length")
    start_us, end_us = _BOUNDS.unpack_from(data, low + 8)
    return Deletion(_decode_name(data[low + 24 : end], where), start_us, end_us)


def _header(data: bytes, low: int, high: int, where: str) -> tuple[int, int, int, int]:
    if high - low < 8 or (high - low) % 8:
        raise _malformed(where, "its length is not one that a record can have")
    version, kind, name_length, parts = _HEADER.unpack_from(data, low)
    if version > VERSION:
        raise JournalRefused(f"{where} has format {version}; this statsapi reads up to {VERSION}: use a newer one")
    if version != VERSION or kind not in (KIND_EVENTS, KIND_DELETE):
        raise _malformed(where, f"it has format {version} and kind {kind}")
    return version, kind, name_length, parts


def _split(
    names: list[str], counts: NDArray[np.uint32], ts_us: TimestampsUs, values: Values
) -> list[tuple[str, TimestampsUs, Values]]:
    return [(name, ts_us[low:high], values[low:high]) for name, low, high in _bounds(names, counts)]


def _bounds(names: list[str], counts: Sequence[int] | NDArray[np.integer]) -> list[tuple[str, int, int]]:
    """Each name with the slice of the columns that is its."""
    ends = np.cumsum(counts, dtype=np.int64).tolist() if len(names) > 1 else [int(count) for count in counts]
    return list(zip(names, [0, *ends[:-1]], ends, strict=True)) if names else []


def _concatenate(arrays: list[NDArray[_T]]) -> NDArray[_T]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _column(array: NDArray[np.generic], dtype: str) -> bytes:
    """The array's bytes. TypeError for another kind: a silent cast would change what was recorded."""
    return array.astype(dtype, casting="equiv", copy=False).tobytes()


def _padding(block: bytes) -> bytes:
    return bytes(-len(block) % 8)


def _check_size(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ValueError(f"a record of {size} bytes; the most is {limit_bytes}")


def _where(position: int) -> str:
    return f"the journal's record {position}"


def _malformed(where: str, why: str) -> JournalDamaged:
    return JournalDamaged(where, why)
