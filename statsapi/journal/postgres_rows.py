"""What a read of a PostgreSQL journal brings: its state, and records whose heads and payloads fit each other.

    state  clock i64 | checkpoint's position i64 (-1: none) | history's id 16 | checkpoint's record id 16
           | id of the record at the known position 16, where it was asked for            zeros where there is none
    head   appended_us i64 | position i64 | record id 16 | check i64                      big-endian, as libpq sends

    key    "check" i64: 31 bits that prove name and expiry, and can be made in SQL | CRC-32 of name, digest and answer

The server gives position and time, and has no CRC before version 18. So a record's check is a sum: of appended_us, of
position, and of a checksum of payload and id that the sender makes.
"""

from __future__ import annotations

import re
import struct
from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np
from psycopg import pq
from zlib_ng.zlib_ng import crc32

from statsapi.journal.checksums import MISMATCH
from statsapi.journal.columns import COLUMNAR_FROM
from statsapi.journal.postgres_server import Server
from statsapi.journal.protocol import START, Mark

SCHEMA_VERSION: Final = 3
# The function that appends. An older version of statsapi uses another name, and finds that one gone.
APPEND: Final = f"append_{SCHEMA_VERSION}"

ID_BYTES: Final = 16

# Of a key: what the server proves before it takes the key for expired, or for unknown. No flipped bit of an expiry is a
# multiple of this prime.
_KEY_PRIME: Final = 2_147_483_629
KEY_PLACE_SQL: Final = f"""
(({{expires_us}} + ('x' || left(encode(sha256({{name}}), 'hex'), 8))::bit(32)::bigint) % {_KEY_PRIME})"""
NO_ID: Final = bytes(ID_BYTES)
_STATE: Final = struct.Struct(">qq16s16s")
_HEAD: Final = struct.Struct(">qq16sq")
_WORDS: Final = struct.Struct("<IIII")
_HEADS: Final = np.dtype([("us", ">i8"), ("position", ">i8"), ("id", "<u4", 4), ("check", ">i8")])


def key_place(name: bytes, expires_us: int) -> int:
    """What KEY_PLACE_SQL gives: the upper half of a key's check. 0.7 µs."""
    return (expires_us + int.from_bytes(sha256(name).digest()[:4], "big")) % _KEY_PRIME


def fill_key_places(text: str) -> str:
    """SQL in which each PLACE(name; expires_us) is KEY_PLACE_SQL."""
    return _PLACE.sub(lambda found: KEY_PLACE_SQL.format(name=found[1], expires_us=found[2]), text)


_PLACE: Final = re.compile(r"PLACE\((.+?); (.+?)\)")


class State(NamedTuple):
    """The journal as one statement saw it. `first_row`: of the result, after the mark's own."""

    clock_us: int
    checkpoint: int
    born: bytes
    checkpoint_record: bytes
    at_known: bytes
    at_mark: bytes
    first_row: int

    def stands(self, mark: Mark) -> bool:
        """Whether the mark's record is in the journal, or is where its checkpoint ends."""
        if mark.position <= self.checkpoint or mark == START:
            behind = START if self.checkpoint < 0 else Mark(self.checkpoint, self.checkpoint_record)
            return mark == behind
        return mark.record_id == self.at_mark != NO_ID


class Rows(NamedTuple):
    """The records of one read. cut: there are more, beyond the bytes that it may take."""

    stamps_us: list[int]
    heads: list[bytes]
    payloads: list[bytes]
    cut: bool = False

    def id(self, at: int) -> bytes:
        return self.heads[at][16:32]


def content_check(record_id: bytes, payload: bytes) -> int:
    """The part of a record's check that does not depend on position and time."""
    one, two, three, four = _WORDS.unpack(record_id)
    return crc32(payload) ^ one ^ two ^ three ^ four  # type: ignore[no-any-return]


def state_of(server: Server, result: pq.abc.PGresult, after: Mark, known: int) -> State:
    """What a read says beside records. JournalDamaged where it cannot be that."""
    packed = result.get_value(0, 0) if result.ntuples else None
    if packed is None or len(packed) not in (_STATE.size, _STATE.size + ID_BYTES):
        asked = f", or its record {known}," if known > after.position else ""
        raise server.damaged(f"the journal's table meta or checkpoint{asked}", "it is missing or not of its form")
    at_mark, first_row = NO_ID, 1
    if result.ntuples > 1:
        head = result.get_value(1, 0) or b""
        if len(head) == _HEAD.size and _HEAD.unpack(head)[1] == after.position:
            at_mark, first_row = head[16:32], 2
    at_known = packed[_STATE.size :] or (at_mark if known == after.position else NO_ID)
    clock_us, checkpoint, born, record_id = _STATE.unpack_from(packed)
    return State(clock_us, checkpoint, born, record_id, at_known, at_mark, first_row)


def rows_of(server: Server, result: pq.abc.PGresult, first_row: int, after: int) -> Rows:
    """The records of a read, for a mark at position `after` that stands. JournalDamaged where one is missing, or is not
    what was written. 0.2 µs a record.
    """
    get = result.get_value
    count = result.ntuples
    if count == first_row:
        return Rows([], [], [])
    heads = [get(row, 0) or b"" for row in range(first_row, count)]
    sent = [get(row, 1) for row in range(first_row, count)]
    payloads = [payload for payload in sent if payload is not None]
    cut = len(payloads) < len(sent)
    del heads[len(payloads) :]
    first = after + 1
    for at, head in enumerate(heads) if set(map(len, heads)) != {_HEAD.size} else ():
        if len(head) != _HEAD.size:
            raise server.damaged(f"the journal's record {first + at}", "it is not of its form")
    if len(heads) < COLUMNAR_FROM:
        stamps = []
        for at, head in enumerate(heads):
            us, position, record_id, check = _HEAD.unpack(head)
            _in_place(server, first + at, position)
            if us + position + content_check(record_id, payloads[at]) != check:
                raise server.damaged(f"the journal's record {position}", MISMATCH)
            stamps.append(us)
        return Rows(stamps, heads, payloads, cut)
    columns = np.frombuffer(b"".join(heads), _HEADS)
    us, positions = columns["us"].astype("<i8"), columns["position"].astype("<i8")
    elsewhere = positions != np.arange(first, first + len(heads))
    if elsewhere.any():
        at = int(elsewhere.argmax())
        _in_place(server, first + at, int(positions[at]))
    ids = columns["id"]
    checks = np.fromiter(map(crc32, payloads), np.int64, len(payloads))
    checks ^= ids[:, 0] ^ ids[:, 1] ^ ids[:, 2] ^ ids[:, 3]
    wrong = us + positions + checks != columns["check"]
    if wrong.any():
        raise server.damaged(f"the journal's record {first + int(wrong.argmax())}", MISMATCH)
    return Rows(us.tolist(), heads, payloads, cut)


def _in_place(server: Server, expected: int, found: int) -> None:
    if found > expected:
        raise server.damaged(f"the journal's record {expected}", "it is missing")
    if found < expected:
        raise server.damaged(f"the journal's record {expected}", f"record {found} stands in its place")
