"""Where the elements of a JSON array or object lie in its text, found without parsing them.

The standard parser holds the interpreter until it has read all of a body, and makes objects of all of it: 16 MiB of
`[],[],…` took 10 s and 1.4 GB. What is found here is small enough to be parsed on its own, and counted before that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Small enough for the arrays below to stay within the cache and each call within 2 ms. 8 ns a byte.
_STEP_BYTES: Final = 128 * 1024

# No event is nested more deeply than {"events": [{"tags": {}}]}; the standard parser gives up near 1,000.
DEPTH_MAX: Final = 100

_OPENS, _CLOSES, _COMMA = 1, 2, 3
_KIND: Final = np.zeros(256, np.uint8)
_KIND[[ord("["), ord("{")]] = _OPENS
_KIND[[ord("]"), ord("}")]] = _CLOSES
_KIND[ord(",")] = _COMMA


class TooDeep(ValueError):
    """Nested beyond DEPTH_MAX."""


class TooMany(ValueError):
    """More elements than asked for."""


class Unclosed(ValueError):
    """The text ends first."""


class Elements(NamedTuple):
    """`spans` holds (start, end) of each element, blanks around it included; `end` is behind the closing bracket."""

    spans: list[tuple[int, int]]
    end: int


def find_elements(text: bytes, at: int, most: int) -> Elements:
    """The elements of the array, or the `"key": value` pairs of the object, whose bracket is text[at].

    Brackets and commas within strings are passed over, whether the strings are well-formed or not; that opening and
    closing brackets are of one kind is left to who parses the elements. Raises TooMany as soon as there are more than
    `most`, TooDeep, and Unclosed. Memory: some 2 MB, and 16 bytes an element.
    """
    letters = np.frombuffer(text, np.uint8)
    depth, in_string, escaped = 0, 0, False
    commas: list[int] = []
    for start in range(at, len(text), _STEP_BYTES):
        piece = letters[start : start + _STEP_BYTES]
        quotes = piece == ord('"')
        escaped = _drop_escaped(piece, quotes, escaped)
        inside = np.cumsum(quotes, dtype=np.uint8)  # wraps, but stays odd or even
        inside += np.uint8(in_string)
        inside &= np.uint8(1)
        in_string = int(inside[-1])
        kinds = _KIND[piece]
        kinds[inside == 1] = 0
        places = np.flatnonzero(kinds)
        kind = kinds[places]
        # One below: a comma counts for the level at which it stands.
        levels = np.cumsum((kind == _OPENS).view(np.int8) - (kind == _CLOSES).view(np.int8), dtype=np.int32) + np.int32(
            depth
        )
        closed = np.flatnonzero(levels == 0)
        if len(closed):
            last = int(closed[0])
            kind, levels, end = kind[:last], levels[:last], start + int(places[last]) + 1
        if len(levels) and levels.max() > DEPTH_MAX:
            raise TooDeep
        found = places[: len(kind)][(kind == _COMMA) & (levels == 1)]
        if len(commas) + len(found) >= max(most, 1):
            raise TooMany
        commas += (found + start).tolist()
        if len(closed):
            spans = list(zip([at + 1, *(comma + 1 for comma in commas)], [*commas, end - 1], strict=True))
            if len(spans) == 1 and not text[at + 1 : end - 1].strip():
                spans = []
            if len(spans) > most:
                raise TooMany
            return Elements(spans, end)
        depth = int(levels[-1]) if len(levels) else depth
    raise Unclosed


def _drop_escaped(piece: NDArray[np.uint8], quotes: NDArray[np.bool_], escaped: bool) -> bool:
    """Unset the quotes that a backslash escapes; whether the byte after the piece is escaped.

    `escaped` says that the piece's first byte is. In a run of backslashes every second one escapes what follows it.
    """
    backslashes = np.flatnonzero(piece == ord("\\"))
    if escaped:
        quotes[0] = False
        if len(backslashes) and backslashes[0] == 0:
            backslashes = backslashes[1:]
    if not len(backslashes):
        return False
    begins = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)
    lengths = np.diff(begins, append=len(backslashes))
    targets = backslashes[np.arange(len(backslashes)) - np.repeat(begins, lengths) & 1 == 0] + 1
    if targets[-1] == len(piece):
        quotes[targets[:-1]] = False
        return True
    quotes[targets] = False
    return False
