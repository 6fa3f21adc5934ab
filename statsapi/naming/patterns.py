"""How a question chooses series: by name, by pattern, narrowed by tags. `Selection` is the whole of that.

In a pattern `*` is any number of characters and `?` is one. Every other character stands for itself, case matters, and
the whole name has to match. The pattern becomes a regular expression in which the text between two stars is searched
once, from the left, without backtracking (an atomic group). So a hostile pattern costs at most the pattern's length
times the name's, 20 µs; `.*a.*a.*a` would cost the name's length to the third power.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from statsapi.errors import echo
from statsapi.naming.names import NAME_MAX, canonical_key, normalized, tag_value

PATTERN_MAX: Final = NAME_MAX

_BEHIND_ALL: Final = "\U0010ffff"  # no character, so no name holds it


def is_pattern(text: str) -> bool:
    """Whether the text is a pattern, in places that take names and patterns: it can match more than one name."""
    return "*" in text or "?" in text


class Glob:
    """`matches` says whether the whole text fits the pattern: about 0.2 µs."""

    __slots__ = ("_match", "pattern", "prefix")

    def __init__(self, pattern: str) -> None:
        """Raises ValueError for an empty pattern, one longer than a name, and one that `normalized` refuses."""
        try:
            self.pattern = pattern = normalized(re.sub(r"\*+", "*", pattern), PATTERN_MAX)
        except ValueError as error:
            raise ValueError(f"must be a pattern of 1 to {PATTERN_MAX} characters: it {error}") from None
        if not 0 < len(pattern) <= PATTERN_MAX:
            raise ValueError(f"must be a pattern of 1 to {PATTERN_MAX} characters, not {len(pattern)}")
        self.prefix = re.split(r"[*?]", pattern, maxsplit=1)[0]
        """The literal text that every matching name begins with."""
        first, *others = ("".join("." if c == "?" else re.escape(c) for c in part) for part in pattern.split("*"))
        expression = first + "".join(f"(?>.*?{part})" for part in others[:-1])
        if not others:
            expression += r"\Z"
        elif others[-1]:  # the last part stands at the end of the name, so it is compared there, not searched
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
    """`key=glob`: the series carries that tag, with a value that matches."""

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
        """Whether the canonical name carries the tag with a matching value. About 0.5 µs."""
        value = tag_value(name, self.key)
        return value is not None and self.glob.matches(value)


class Selection(NamedTuple):
    """The series with one of the names, or matching one of the globs, that also meet every `where`.

    names are canonical. With neither names nor globs it chooses every series that meets them.
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
        """Whether it can choose only this one series, so that the cheaper path for one series answers the question."""
        return len(self.names) == 1 and not self.globs and not self.where

    def among(self, held: Sequence[str], slice_names: int = 1000) -> Iterator[list[str]]:
        """The chosen ones of the names held (sorted, canonical), sorted: a list, perhaps empty, for each `slice_names`.

        Only names with a pattern's prefix are examined. The caller may release a lock between two lists.
        """
        for first, last in self._ranges(held):
            for at in range(first, last, slice_names):
                yield [name for name in held[at : min(at + slice_names, last)] if self.matches(name)]

    def _ranges(self, held: Sequence[str]) -> list[tuple[int, int]]:
        """The index ranges of `held` in which a chosen name may lie: rising, without overlap."""
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
