"""The format of a spool's file: events as lines of text, of which all sound ones can be read after any damage.

    statsapi-spool 1 CRC
    CRC e OFFSET EVENT<tab>EVENT…     events, as JSON; OFFSET is the number of events before this line
    CRC t OFFSET MICROSECONDS         an attempt to send OFFSET events began at that time: its outcome is unknown
    CRC n OFFSET                      …and is known now: nothing was recorded
    CRC s OFFSET PIECE                this piece (empty: the whole) was too large, and is sent in halves from here on

CRC covers the rest of the line and the file's Idempotency-Key. So a damaged line is noticed, and the next OFFSET tells
how many events were in it. A line that a crash left unfinished was never acknowledged. The sound lines are sent.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, NamedTuple

from statsapi.client.errors import SpoolError

VERSION: Final = 1
_HEAD_OF_ANY: Final = re.compile(rb"(statsapi-spool (\d{1,9})) ([0-9a-f]{8})\n")
_LINE: Final = re.compile(rb"([0-9a-f]{8}) ([etns]) (\d{1,18}) ([^\n]*)")


class Contents(NamedTuple):
    """The content of a file. `events` are JSON texts in their order."""

    events: list[bytes]
    tried_us: int | None  # the time of the first attempt whose outcome is unknown
    split: frozenset[str]  # the pieces that are sent in halves
    damage: str  # what is wrong with the file, in words; empty for a sound file
    lost: int  # acknowledged events that cannot be read; after the last sound line there may have been more
    sound_bytes: int  # length up to the end of the last sound line, whose newline may be missing


class NewerVersionError(SpoolError):
    """A file that another version of the client wrote. It is left alone."""


def encode_line(key: str, kind: str, offset: int, payload: str) -> bytes:
    """One line of the file."""
    rest = f"{kind} {offset} {payload}".encode()
    return b"%08x %b\n" % (_crc(key, rest), rest)


def encode_head(version: int = VERSION) -> bytes:
    """The first line."""
    text = b"statsapi-spool %d" % version
    return b"%b %08x\n" % (text, zlib.crc32(text))


def read(content: bytes, key: str) -> Contents:
    """The sound lines of a file with this key: never an event that was not written, and none twice.

    NewerVersionError for a file of another version.
    """
    events: list[bytes] = []
    tried_us: int | None = None
    split: set[str] = set()
    bad = lost = expected = at = sound = 0  # `expected`: the offset of the next line
    head = _HEAD_OF_ANY.match(content)
    if head and int(head[3], 16) == zlib.crc32(head[1]):
        if int(head[2]) != VERSION:
            raise NewerVersionError(f"is of version {int(head[2])}, and this client reads {VERSION}")
        at = sound = head.end()
    elif encode_head().startswith(content):  # the process ended while it began the file
        return Contents([], None, frozenset(), "", 0, 0)
    else:
        bad = 1
        at = content.find(b"\n") + 1 or len(content)
    while at < len(content):
        stop = content.find(b"\n", at)
        finished = stop >= 0
        line = content[at : stop if finished else len(content)]
        found = _sound(line, key)
        if found is None and not finished and (found := _sound(line[:-1], key)):
            line = line[:-1]  # the line is complete; only its newline was changed
        line_end = at + len(line) + finished
        at = stop + 1 if finished else len(content)
        if found is None:
            bad += finished
            continue
        sound = line_end
        kind, offset, payload = found
        if offset < expected:  # a piece of the file is there twice
            bad += 1
            continue
        lost += offset - expected
        expected = offset
        if kind == b"e":
            items = payload.split(b"\t")
            events += items
            expected += len(items)
        elif kind == b"t":
            tried_us = int(payload)
        elif kind == b"n":
            tried_us = None
        else:
            split.add(payload.decode())
    damage = ""
    if bad or lost:
        known = f", and {lost} events of {len(events) + lost} cannot be read" if lost else ""
        damage = f"{bad or 'some'} of its lines {'is' if bad == 1 else 'are'} not what was written{known}"
    return Contents(events, tried_us, frozenset(split), damage, lost, sound)


def _crc(key: str, rest: bytes) -> int:
    return zlib.crc32(rest, zlib.crc32(key.encode()))


def _sound(line: bytes, key: str) -> tuple[bytes, int, bytes] | None:
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != _crc(key, line[9:]):
        return None
    return match[2], int(match[3]), match[4]
