"""The heads of records in a Redis stream: what they say, and whether payloads and heads fit each other.

The server alone knows position and time, and Lua has no CRC. So a head's check is a sum: of appended_us, position, the
id of the record before, and the checksum of payload and id. The sender makes that checksum and the script adds the
rest. A reader compares all of it for each record, at 0.15 µs.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import Any, Final, NamedTuple

import numpy as np
from zlib_ng.zlib_ng import crc32

from statsapi.errors import JournalDamaged, JournalRefused
from statsapi.journal.checksums import MISMATCH
from statsapi.journal.columns import COLUMNAR_FROM
from statsapi.journal.protocol import START, Mark
from statsapi.journal.redis_scripts import ID_BYTES
from statsapi.journal.redis_server import Server

UNCHECKED: Final = struct.Struct(f"<qq{ID_BYTES}s8s")  # a head of schema 1
HEAD: Final = struct.Struct(f"<qq{ID_BYTES}s8sq")
_ID_WORDS: Final = struct.Struct("<III")
HEADS: Final = np.dtype(
    {
        "names": ["appended_us", "position", "id", "front", "previous", "previous_words", "check"],
        "formats": ["<i8", "<i8", ("<u4", 3), "<u8", "<u8", ("<u4", 2), "<i8"],
        "offsets": [0, 8, 16, 16, 28, 28, 36],
        "itemsize": HEAD.size,
    }
)


class State(NamedTuple):
    """The journal's state as a reading script gives it (told.lua). checkpoint_position is -1 without a checkpoint."""

    clock_us: int
    position: int
    id: bytes
    epoch: int
    checkpoint_position: int
    checkpoint_record: bytes
    checkpoint_us: int
    missing: int
    born: bytes
    lost_us: int

    @property
    def behind(self) -> Mark:
        """The mark at which a view begins."""
        if self.checkpoint_position < 0:
            return START
        return mark_of(self.checkpoint_position, self.checkpoint_record, self.epoch)


class Rows(NamedTuple):
    """The heads of the records of one read."""

    positions: list[int]
    stamps_us: list[int]
    heads: list[bytes]

    def id(self, at: int) -> bytes:
        return self.heads[at][16 : 16 + ID_BYTES]

    def id_at(self, position: int) -> bytes | None:
        """The id of the record at that position, if it was read."""
        if not self.positions or not self.positions[0] <= position <= self.positions[-1]:
            return None
        at = bisect_left(self.positions, position)
        return self.id(at) if self.positions[at] == position else None

    def names_before(self, record_id: bytes) -> bool:
        """Whether the first record names the one with that id as its predecessor."""
        return self.heads[0][28:36] == record_id[:8]


NO_ROWS: Final = Rows([], [], [])


def epoch_bytes(epoch: int) -> bytes:
    return (epoch & 0xFFFFFFFF).to_bytes(4, "big")


def mark_of(position: int, record_id: bytes, epoch: int) -> Mark:
    return Mark(position, record_id.ljust(ID_BYTES, b"\0") + epoch_bytes(epoch))


def rows_of(server: Server, heads: list[bytes], payloads: list[bytes], first: int | None) -> Rows:
    """The heads, compared with the payloads and with each other. `first` is the position that the first record must
    have where none are missing: a damaged head may say another.
    """
    if set(map(len, heads)) <= {HEAD.size}:
        if len(heads) >= COLUMNAR_FROM:
            return _columns(server, heads, payloads, first)
        unpacked = [HEAD.unpack(head) for head in heads]
    else:
        unpacked = _unpack_any(server, heads)
    rows = Rows([row[1] for row in unpacked], [row[0] for row in unpacked], heads)
    before: tuple[int, bytes] | None = None
    for at, (appended_us, position, record_id, previous, check) in enumerate(unpacked):
        found = appended_us + position + sum_of_words(previous) + content_check(record_id, payloads[at])
        if check is not None and found != check:
            raise _mismatch(server, position if first is None else first + at)
        if before and (position <= before[0] or (position == before[0] + 1 and previous != before[1])):
            raise _out_of_line(server, position if first is None else first + at)
        before = (position, record_id[:8])
    return rows


def _unpack_any(server: Server, heads: list[bytes]) -> list[tuple[Any, ...]]:
    """Heads of schema 1 have no checksum. Any other entry was not written by statsapi."""
    try:
        return [HEAD.unpack(head) if len(head) == HEAD.size else (*UNCHECKED.unpack(head), None) for head in heads]
    except struct.error:
        raise JournalRefused(
            f"{server.address} holds an entry that statsapi did not write: give it a stream of its own"
        ) from None


def _columns(server: Server, heads: list[bytes], payloads: list[bytes], first: int | None) -> Rows:
    """The same for many records at once: 0.15 µs each, where one by one takes 0.35."""
    columns = np.frombuffer(b"".join(heads), HEADS)
    positions, appended_us, ids = columns["position"], columns["appended_us"], columns["id"]
    checks = np.fromiter(map(crc32, payloads), np.int64, len(payloads))
    checks ^= ids[:, 0] ^ ids[:, 1] ^ ids[:, 2]
    words = columns["previous_words"]
    wrong = appended_us + positions + words[:, 0] + words[:, 1] + checks != columns["check"]
    if wrong.any():
        at = int(wrong.argmax())
        raise _mismatch(server, int(positions[at]) if first is None else first + at)
    steps = np.diff(positions)
    wrong = (steps < 1) | ((steps == 1) & (columns["previous"][1:] != columns["front"][:-1]))
    if wrong.any():
        at = int(wrong.argmax()) + 1
        raise _out_of_line(server, int(positions[at]) if first is None else first + at)
    return Rows(positions.tolist(), appended_us.tolist(), heads)


def _mismatch(server: Server, position: int) -> JournalDamaged:
    return server.damaged(f"the journal's record {position}", MISMATCH)


def _out_of_line(server: Server, position: int) -> JournalDamaged:
    return server.damaged(f"the journal's record {position}", "it does not follow the one before it")


def mark_stands(after: Mark, state: State, rows: Rows) -> bool:
    """Whether the mark's record is in the journal: the next record, or the meta hash, names it.

    A missing next record was removed by somebody else. That was counted, and the epoch shows it.
    """
    if after == state.behind:
        return True
    if not (
        state.checkpoint_position < after.position <= state.position
        and after.position > 0
        and after.record_id[ID_BYTES:] == epoch_bytes(state.epoch)
    ):
        return False
    if rows.positions and rows.positions[0] == after.position + 1:
        return rows.names_before(after.record_id)
    return after.position != state.position or state.id == after.record_id[:ID_BYTES]


def content_check(record_id: bytes, payload: bytes) -> int:
    """The part of a record's check that does not depend on position and time.

    The id goes in by exclusive or, which numpy does for many at once; by crc32 it took 0.07 µs a record more.
    """
    first, second, third = _ID_WORDS.unpack(record_id)
    return crc32(payload) ^ first ^ second ^ third  # type: ignore[no-any-return]


def sum_of_words(previous: bytes) -> int:
    """The sum of the two words in the first eight bytes of an id: a sum in Lua has to stay below 2^53."""
    return int.from_bytes(previous[:4], "little") + int.from_bytes(previous[4:8], "little")


def count_until(stamps_us: list[int], until_us: int | None, wrong_after_us: int | None) -> int:
    """The number of records before the first that ends the journal for a read: see Journal.read."""
    if until_us is None or not stamps_us:
        return len(stamps_us)
    stamps = np.array(stamps_us, np.int64)
    late = stamps > until_us
    if wrong_after_us is not None:
        late &= stamps <= wrong_after_us
    return int(late.argmax()) if late.any() else len(stamps_us)
