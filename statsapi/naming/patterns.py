"""How a question chooses series: by name, by pattern, narrowed by tags. `Selection` is the whole of that.

A pattern knows `*` (any characters, none included) and `?` (one character). Every other character is itself, upper and
lower case are not the same, and the whole name has to fit. It becomes a regular expression in which what stands between
two stars is sought once, from the left, and never again (an atomic group). So a hostile pattern costs at most the
length of the pattern times that of the name, 20 µs, where `.*a.*a.*a` costs it to the third power.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from statsapi.errors import echo
from statsapi.naming.names import NAME_MAX, canonical_key, tag_value

PATTERN_MAX: Final = NAME_MAX

_BEHIND_ALL: Final = "\U0010ffff"  # no character, so no name holds it


def is_pattern(text: str) -> bool:
    """Whether it can fit more than one name, where both patterns and names may be given."""
    return "*" in text or "?" in text


class Glob:
    """`matches` says whether the whole text fits the pattern: about 0.2 µs."""

    __slots__ = ("_match", "pattern", "prefix")

    def __init__(self, pattern: str) -> None:
        """Raises ValueError for an empty pattern and one longer than a name."""
        self.pattern = pattern = re.sub(r"\*+", "*", unicodedata.normalize("NFC", pattern))
        if not 0 < len(pattern) <= PATTERN_MAX:
            raise ValueError(f"must be a pattern of 1 to {PATTERN_MAX} characters, not {len(pattern)}")
        self.prefix = re.split(r"[*?]", pattern, maxsplit=1)[0]
        """What everything that matches begins with."""
        first, *others = ("".join("." if c == "?" else re.escape(c) for c in part) for part in pattern.split("*"))
        expression = first + "".join(f"(?>.*?{part})" for part in others[:-1])
        if not others:
            expression += r"\Z"
        elif others[-1]:  # stands at the end, behind all that was found: it is looked at there, and not sought
            least = len(pattern) - pattern.rindex("*") - 1
            expression += f".{{{least},}}+(?<={others[-1]})"
        self._match = re.compile(expression, re.DOTALL).match

    def matches(self, text: str) -> bool:
        return self._match(text) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"


class Where(NamedTuple):
    """`key=glob`: the series carries that tag, with a value that fits."""

    key: str
    glob: Glob

    @classmethod
    def parse(cls, text: str) -> Where:
        """Raises ValueError where it is not key=pattern."""
        key, equals, pattern = text.partition("=")
        if not equals:
            raise ValueError(f"must be a tag and a pattern for its value, as status=5*: {echo(text)!r} has no =")
        return cls(canonical_key(key), Glob(pattern))

    def matches(self, name: str) -> bool:
        """Of a canonical name. About 0.5 µs."""
        value = tag_value(name, self.key)
        return value is not None and self.glob.matches(value)


class Selection(NamedTuple):
    """Those of the names, and those that fit one of the globs, that fulfil every `where`.

    names are canonical. With neither names nor globs it is every series that fulfils them.
    """

    names: frozenset[str] = frozenset()
    globs: tuple[Glob, ...] = ()
    where: tuple[Where, ...] = ()

    def matches(self, name: str) -> bool:
        """Whether it chooses the series of that canonical name. Any thread, no lock; about 0.5 µs for each rule."""
        for where in self.where:
            if not where.matches(name):
                return False
        if name in self.names:
            return True
        if not self.globs:
            return not self.names
        return any(glob.matches(name) for glob in self.globs)

    def is_one_name(self) -> bool:
        """Whether it can only ever be that one series: the question then is of one series, and costs what that does."""
        return len(self.names) == 1 and not self.globs and not self.where

    def among(self, held: Sequence[str], slice_names: int = 1000) -> Iterator[list[str]]:
        """Those that it chooses of the names held (sorted, canonical), sorted, in pieces out of at most that many.

        Only names that begin as a pattern does are looked at. The caller may let others in between two pieces.
        """
        for first, last in self._ranges(held):
            for at in range(first, last, slice_names):
                chosen = [name for name in held[at : min(at + slice_names, last)] if self.matches(name)]
                if chosen:
                    yield chosen

    def _ranges(self, held: Sequence[str]) -> list[tuple[int, int]]:
        """The places in `held` at which a chosen name may stand: rising, none of them twice."""
        if not self.names and not self.globs:
            return [(0, len(held))]
        ranges = [(bisect_left(held, name), bisect_right(held, name)) for name in self.names]
        ranges += [(bisect_left(held, g.prefix), bisect_left(held, g.prefix + _BEHIND_ALL)) for g in self.globs]
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            elif first < last:
                merged.append((first, last))
        return merged
