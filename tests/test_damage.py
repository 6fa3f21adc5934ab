"""Damage in a journal: it is right, or refused with one line that names it; never a wrong answer, never a traceback."""

from __future__ import annotations

import random
import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.journal.format import (
    answer_checksum,
    checkpoint_checksum,
    checksum,
    checksums,
    piece_checksum,
    pieces_checksum,
)

I64 = st.integers(-(1 << 63), (1 << 63) - 1)
U32 = st.integers(0, (1 << 32) - 1)

# Checksums


@given(st.lists(st.tuples(I64, st.binary(max_size=20), I64, st.binary(max_size=60))))
def test_checksums_of_many_are_those_of_each(records: list[tuple[int, bytes, int, bytes]]) -> None:
    """The bulk form gives what the single one does, and a server that knows position and time last can go on."""
    each = [checksum(*record) for record in records]
    assert checksums(*[[record[at] for record in records] for at in range(4)]) == each
    for (position, record_id, appended_us, payload), expected in zip(records, each, strict=True):
        begun = crc32(record_id, crc32(payload))
        assert crc32(struct.pack("<q", appended_us), crc32(struct.pack("<q", position), begun)) == expected


def flipped(value: int | bytes, bit: int) -> int | bytes:
    """The value with one bit of it flipped; an integer is one of 64 bits, or 32 where it must be positive."""
    if isinstance(value, int):
        return value ^ (1 << bit % 32)
    changed = bytearray(value)
    changed[bit // 8 % len(value)] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        (checksum, (7, b"i" * 16, 1_764_000_000_000_000, b"payload.")),
        (piece_checksum, (29_000_000, b"a piece")),
        (checkpoint_checksum, (b"c" * 16, 7, b"i" * 16, 1_764_000_000_000_000, 123, 456)),
        (answer_checksum, (b"name", b"digest", b"answer", 1_764_000_000_000_000)),
    ],
)
def test_a_flipped_bit_in_any_field_changes_the_checksum(function: object, fields: tuple[int | bytes, ...]) -> None:
    """Every field counts."""
    assert callable(function)
    right = function(*fields)
    for at, field in enumerate(fields):
        for bit in range(32 if isinstance(field, int) else 8 * len(field)):
            assert function(*fields[:at], flipped(field, bit), *fields[at + 1 :]) != right


def test_a_missing_piece_changes_the_checksum_of_all() -> None:
    """Which pieces there are counts, and what each is."""
    keys, each = list(range(20)), [random.Random(7).getrandbits(32) for _ in range(20)]
    right = pieces_checksum(keys, each)
    for at in range(20):
        assert pieces_checksum(keys[:at] + keys[at + 1 :], each[:at] + each[at + 1 :]) != right
        assert pieces_checksum(keys, [*each[:at], each[at] ^ 1, *each[at + 1 :]]) != right
    assert pieces_checksum([], []) == 0
