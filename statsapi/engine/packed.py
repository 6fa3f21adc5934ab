"""The bytes of a sealed chunk. Any number of processes may map them instead of having arrays of their own.

    packed   head int64[16] | Σx, Σx² as signed integers, each zero-padded to a multiple of 8 bytes
             | ts_us int64[n] | values float64[n] | digits int64[places, width] | buckets int64[] | sample float64[]
             | rank uint16[n] | zeros up to a multiple of 8

Little-endian; the length is a multiple of 8. Unpacking copies no array, reads none, and checks nothing: the caller must
know that the bytes are those that `pack` made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from statsapi.engine.exact import CumulativeSums
from statsapi.engine.sealed import SealedColumns

# Arrays are mapped with the bytes they have in memory, so the machine must be little-endian.
CAN_PACK: Final = sys.byteorder == "little"

_HEAD_WORDS: Final = 16
_NONE: Final = np.empty(0, np.int64)


def pack(columns: SealedColumns) -> Sequence[bytes | memoryview]:
    """The bytes, in pieces. Large arrays are not copied. 15 µs."""
    sums = [_signed_bytes(number) for number in columns.sums]
    cumulative, buckets = columns.cumulative, columns.buckets
    digits = _NONE.reshape(0, 0) if cumulative is None else cumulative.digits
    head = np.zeros(_HEAD_WORDS, np.int64)
    head[:8] = (
        len(columns.ts_us),
        len(sums[0]),
        len(sums[1]),
        *digits.shape,
        -1 if buckets is None else len(buckets),
        len(columns.sample),
        columns.sampled_from,
    )
    head[8] = columns.merge_at
    if cumulative is not None:
        head[9:14] = cumulative.scale
    arrays = (columns.ts_us, columns.values, digits, _NONE if buckets is None else buckets, columns.sample)
    return [
        head.tobytes(),
        *sums,
        *(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays),
        np.ascontiguousarray(columns.rank).view(np.uint8).data,
        bytes(-2 * len(columns.rank) % 8),
    ]


def unpack(data: memoryview, at: int) -> SealedColumns:
    """The chunk whose bytes begin at `at`. Its arrays are views of `data` and keep it alive. 8 µs."""
    n, sum_bytes, square_bytes, places, width, buckets, sample, sampled_from, merge_at, *scale = np.frombuffer(
        data, np.int64, _HEAD_WORDS, at
    ).tolist()
    at += 8 * _HEAD_WORDS

    def take(dtype: Any, count: int) -> NDArray[Any]:
        nonlocal at
        array = np.frombuffer(data, dtype, count, at)
        at += array.nbytes
        return array

    sums = (
        int.from_bytes(data[at : at + sum_bytes], "little", signed=True),
        int.from_bytes(data[at + sum_bytes : at + sum_bytes + square_bytes], "little", signed=True),
    )
    at += sum_bytes + square_bytes
    ts_us, values = take(np.int64, n), take(np.float64, n)
    digits = take(np.int64, places * width).reshape(places, width)
    found_buckets = take(np.int64, max(buckets, 0))
    sampled = take(np.float64, sample)
    return SealedColumns(
        ts_us,
        values,
        take(np.uint16, n),
        sampled,
        CumulativeSums.noted(scale[:5], digits, sums) if places else None,
        found_buckets if buckets >= 0 else None,
        sums,
        sampled_from,
        merge_at,
    )


def _signed_bytes(number: int) -> bytes:
    length = number.bit_length() // 8 + 1
    return number.to_bytes(length + -length % 8, "little", signed=True)
