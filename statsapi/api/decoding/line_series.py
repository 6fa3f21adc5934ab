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

# Codes by what was written, dropped when there are this many more, or one more for each 40 bytes of the body: but for
# those of heads that are not written as their series is named, which are dear to find again (see `_as_named`). Without
# a bound, 100,000 heads of a body of 1.3 MiB that are never written again took 10 MB, a third of what it cost; with
# 65,536 they take 7. To drop them all made three rounds of 33,000 fields with six tags take 0.9 s instead of 0.5, and
# 2.0 instead of 0.9 where letters and marks were apart.
_CODES_KEPT: Final = 32_768
_BYTES_A_CODE: Final = 40


class Codes(dict[str, int]):
    """The series of one body: `names`, and the place of each among them, which is its code.

    As a dict it has the code by "head key": a plain line's text before its fields, and the field's key; neither has a
    blank. (A tuple of the two takes 130 bytes more: 10 MB for 100,000 fields.) The code is -1 where the careful way has
    to look.
    """

    def __init__(self, body_bytes: int) -> None:
        self.names: list[str] = []
        self._kept = max(_CODES_KEPT, body_bytes // _BYTES_A_CODE)
        self._code_of: dict[str, int] = {}
        self._by_key: dict[str, _CodesOfKey] = {}
        self._tags = 0
        self._left = 0  # how many codes the last drop has left
        self._dropped = False

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
        if len(self) + sum(map(len, self._by_key.values())) > self._kept + self._left:
            self._drop()
        if keys.count(keys[0]) == len(keys):
            found: Iterator[int] = map(self._by_key.setdefault(keys[0], _CodesOfKey(self, keys[0])).__getitem__, heads)
        else:
            found = map(self.__getitem__, map(" ".join, zip(heads, keys, strict=True)))
        return np.fromiter(found, np.int64, len(heads))

    def _drop(self) -> None:
        """Drop the codes that `look_up` finds again by the name. 0.4 µs each."""
        names = self.names
        dear = [(it, code) for it, code in self.items() if code < 0 or names[code] != _as_named(*it.split(" "))]
        self._dropped |= len(dear) < len(self)
        self.clear()
        self.update(dear)
        self._left = len(dear)
        for key, codes in list(self._by_key.items()):
            dear = [(it, code) for it, code in codes.items() if code < 0 or names[code] != _as_named(it, key)]
            self._dropped |= len(dear) < len(codes)
            codes.clear()
            codes.update(dear)
            self._left += len(dear)
            if not dear:
                del self._by_key[key]

    def forget(self) -> None:
        """Keep the names alone: 10 MB less for 100,000 of them."""
        self.clear()
        self._code_of.clear()
        self._by_key.clear()

    def __missing__(self, written: str) -> int:
        code = self[written] = self.look_up(written)
        return code

    def look_up(self, written: str) -> int:
        """The code of "head key", which this does not remember."""
        if self._dropped:
            head, key = written.split(" ")
            code = self._code_of.get(_as_named(head, key))
            if code is not None and _has_parts(head, key):
                return code
        name = _names.get(written)
        if name is None:
            name = _plain_name(*written.split(" "))
            if name not in self._code_of:  # else its tags are counted
                self._tags += written.count(",")
                require_tags_within(self._tags)
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


def _as_named(head: str, key: str) -> str:
    """The name of a field's series if the head is written as it: with its tags sorted, and in normal form. Where a
    series has this name and `_has_parts`, it is that of this field.
    """
    if key == "value":
        return head.replace(",", ";")
    if "," in head:
        return head.replace(",", f".{key};", 1).replace(",", ";")
    return f"{head}.{key}"


def _has_parts(head: str, key: str) -> bool:
    """Whether what is a part of the head is one of `_as_named`, and none is missing."""
    is_whole = head[:1] not in ("", ",") and key != "" and head.count("=") == head.count(",")
    return is_whole and ";" not in head and ";" not in key


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
