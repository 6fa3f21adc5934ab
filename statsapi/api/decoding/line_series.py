"""The names of line protocol's series: `measurement.key`, or `measurement` for the key `value`, and the point's tags.

A name takes 3 µs to make, so it is kept: for one body by its code, and from body to body by what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from statsapi.api.decoding.rows import require_tags_within
from statsapi.errors import echo
from statsapi.naming.names import DECOMPOSED_MAX, NAME_MAX, fold_tags, normalized

# A longer measurement, key or value fits in no name either: a character is at most DECOMPOSED_MAX of them before it is
# normalized, each of which has at most 4 bytes and may have a backslash. What is longer is cut.
TOKEN_MAX_BYTES: Final = NAME_MAX * DECOMPOSED_MAX * 4 * 2

# Names by "head key" (see Codes). All are dropped when this many are kept: to drop the oldest
# does not help a batch that goes through more names than that in turn. They take 10 MB at worst.
_NAMES_KEPT: Final = 16_384
_KEPT_MAX_CHARS: Final = 300
_names: dict[str, str] = {}


class Codes(dict[str, int]):
    """The series of one body: `names`, and the place of each among them, which is its code.

    As a dict it has the code by "head key": a plain line's text before its fields, and the field's key; neither has a
    blank. (A tuple of the two takes 130 bytes more: 10 MB for 100,000 fields.) The code is -1 where the careful way has
    to look.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._code_of: dict[str, int] = {}
        self._by_key: dict[str, _CodesOfKey] = {}
        self._tags = 0

    def of(self, name: str) -> int:
        """The code of a canonical name."""
        code = self._code_of.get(name)
        if code is None:
            code = self._code_of[name] = len(self.names)
            self.names.append(name)
        return code

    def of_all(self, heads: list[str], keys: list[str]) -> NDArray[np.int64]:
        """The code of each head with its key, int64[n]: 0.12 µs each, and 0.07 µs where all have one key.

        Raises TooLarge where the names have too many tags together.
        """
        if keys.count(keys[0]) == len(keys):
            found: Iterator[int] = map(self._by_key.setdefault(keys[0], _CodesOfKey(self, keys[0])).__getitem__, heads)
        else:
            found = map(self.__getitem__, map(" ".join, zip(heads, keys, strict=True)))
        return np.fromiter(found, np.int64, len(heads))

    def forget(self) -> None:
        """Keep the names alone: 20 MB less for 100,000 of them."""
        self.clear()
        self._code_of.clear()
        self._by_key.clear()

    def __missing__(self, written: str) -> int:
        code = self[written] = self.look_up(written)
        return code

    def look_up(self, written: str) -> int:
        """The code of "head key", which this does not remember."""
        name = _names.get(written)
        if name is None:
            self._tags += written.count(",")
            require_tags_within(self._tags)
            name = _plain_name(*written.split(" "))
            if name and len(written) <= _KEPT_MAX_CHARS:
                if len(_names) >= _NAMES_KEPT:
                    _names.clear()
                _names[written] = name
        return self.of(name) if name else -1


class _CodesOfKey(dict[str, int]):
    """The codes of one field key, by head."""

    def __init__(self, codes: Codes, key: str) -> None:
        self._codes = codes
        self._key = key

    def __missing__(self, head: str) -> int:
        code = self[head] = self._codes.look_up(f"{head} {self._key}")
        return code


def _plain_name(head: str, key: str) -> str:
    """The series of a field in a plain line; "" where the careful way has to look."""
    if len(head) + len(key) > TOKEN_MAX_BYTES:
        return ""
    measurement, *written = head.split(",")
    tags: dict[str, str] = {}
    for tag in written:
        name, _, value = tag.partition("=")
        if not name or not value or "=" in value or tags.setdefault(name, value) != value:
            return ""
    if not measurement or not key:
        return ""
    try:
        return name_series(measurement, tuple(tags.items()), key)
    except ValueError:
        return ""


def _stands(name: str) -> bool:
    """Whether it is in normal form as it is, and so is each part of it."""
    try:
        return normalized(name) == name
    except ValueError:
        return False


def base_of(measurement: str, key: str) -> str:
    """The name of a field's series without its tags."""
    return measurement if key == "value" else f"{measurement}.{key}"


_BLANK_AT_AN_END: Final = re.compile(" [;=]|[;=] ")


@lru_cache(4096)  # of short names only: an exception is not kept
def name_series(measurement: str, tags: tuple[tuple[str, str], ...], key: str) -> str:
    """The canonical name of a field's series. ValueError says what is wrong with it."""
    base = base_of(measurement, key)
    # The usual name, in a third of fold_tags' time: in normal form, without a blank at either end of a part.
    found = ";".join([base, *(f"{name}={value}" for name, value in sorted(tags))])
    if (
        found.isprintable()
        and len(found) <= NAME_MAX
        and found.count(";") == len(tags) == len({name for name, _ in tags if name and "=" not in name})
        and found[0] not in "=+-@; "
        and found[-1] != " "
        and not _BLANK_AT_AN_END.search(found)
        and _stands(found)
    ):
        return found
    if ";" in base:
        raise ValueError("has a semicolon in it, which separates tags in the name of a series: write another character")
    folded: dict[str, str] = {}
    for name, value in tags:
        if folded.setdefault(name, value) != value:
            raise ValueError(f"has the tag {echo(name)!r} twice: keep one of the two")
    return fold_tags(base, folded)
