"""The answers kept under idempotency keys in Redis: as they are sent, and as they are found."""

from __future__ import annotations

import struct
from typing import Final

from statsapi.errors import IdempotencyConflict, JournalDamaged
from statsapi.journal.checksums import MISMATCH, answer_checksum
from statsapi.journal.protocol import Appended
from statsapi.journal.redis_primary import Call
from statsapi.journal.redis_server import Server
from statsapi.model import IdempotencyKey

# The head of what is kept under a key. With _CHECKED in the length it has a checksum.
_KEPT: Final = struct.Struct("<qI")
_KEPT_CHECKED: Final = struct.Struct("<qIIq")
_CHECKED: Final = 1 << 31

_STEP: Final = 1024  # answers that are read at once


def kept_answer(server: Server, key: IdempotencyKey, found: bytes, now_us: int) -> Appended | IdempotencyConflict:
    """The answer in what a script found under a key (find.lua). JournalDamaged where that is not what was kept."""
    what, kept = found[:1], found[1:]
    if what != b"d":
        _, length = _KEPT.unpack_from(kept)
        # Whether it has a checksum, also where the bit that says so was flipped.
        checked = kept[_KEPT_CHECKED.size :][:length] == key.digest
        if length < _CHECKED and not (what == b"c" and checked):  # of schema 1
            return IdempotencyConflict() if what == b"c" else Appended(None, now_us, kept[_KEPT.size + length :], True)
        _, length, crc, _ = _KEPT_CHECKED.unpack_from(kept)
        answer_at = _KEPT_CHECKED.size + length - _CHECKED
        digest, answer = kept[_KEPT_CHECKED.size : answer_at], kept[answer_at:]
        if kept_checksum(IdempotencyKey(key.name, digest, 0), answer) == crc:
            return IdempotencyConflict() if what == b"c" else Appended(None, now_us, answer, replayed=True)
    raise _damaged(server)


def _damaged(server: Server) -> JournalDamaged:
    return server.damaged("an answer that is kept under an Idempotency-Key", MISMATCH)


def check_answers(server: Server) -> None:
    """Read all kept answers. JournalDamaged for the first that is not what was written, or is missing."""
    at = 0
    while names := server.calls([Call("ZRANGE", server.expiry_key, at, at + _STEP - 1)])[0]:
        keys = [IdempotencyKey(name, b"", 0) for name in names]
        found = server.calls([Call("GET", server.key_name(key)) for key in keys])
        for key, kept in zip(keys, found, strict=True):
            if kept is None:
                raise _damaged(server)
            if _KEPT.unpack_from(kept)[1] >= _CHECKED:
                expires_us, _, crc, check = _KEPT_CHECKED.unpack_from(kept)
                if expires_us + crc != check:
                    raise _damaged(server)
            kept_answer(server, key, b"c" + kept, 0)
        at += len(names)


def kept_checksum(key: IdempotencyKey, answer: bytes) -> int:
    """The part of a kept answer's check that does not depend on its time."""
    return answer_checksum(key.name, key.digest, answer, 0)
