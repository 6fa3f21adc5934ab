"""The catalogue: the names of the series held, and the tags in them.

It stores no index: a question searches the sorted list of names, which the store keeps anyway. Results are cached while
that list stays the same, so a dashboard that asks each second pays once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from statsapi.naming.names import split_name, tag_value
from statsapi.naming.patterns import Selection

_REMEMBERED: Final = 16

# After this many names the thread releases the interpreter lock, as other threads would wait up to 5 ms for it each
# time.
_SLICE_NAMES: Final = 1000
_PAUSE_S: Final = 0.000_05


class _Found(NamedTuple):
    """The cached results for one list of names."""

    held: Sequence[str]
    chosen: dict[Selection, list[str]]
    keys: dict[Selection, dict[str, int]]
    values: dict[tuple[Selection, str], dict[str, int]]


class Catalogue:
    """Any thread may call any method. Results are shared: do not change them.

    `held` is always the sorted list of the canonical names held. It is never changed, only replaced by another list.
    """

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found = _Found((), {}, {}, {})

    def chosen(self, held: Sequence[str], selection: Selection) -> list[str]:
        """The names that the selection chooses, sorted. About 0.3 µs for each name examined, once."""
        found = self._found_in(held)
        names = found.chosen.get(selection)
        if names is None:
            names = []
            for piece in selection.among(held, _SLICE_NAMES):
                names += piece
                time.sleep(_PAUSE_S)
            _remember(found.chosen, selection, names)
        return names

    def tag_keys(self, held: Sequence[str], selection: Selection = Selection()) -> dict[str, int]:  # noqa: B008 (frozen)
        """Each key among the chosen names, sorted, with how many of them carry it. About 1 µs a name, once."""
        found = self._found_in(held)
        keys = found.keys.get(selection)
        if keys is None:
            counts: Counter[str] = Counter()
            names = self.chosen(held, selection)
            for first in range(0, len(names), _SLICE_NAMES):
                for name in names[first : first + _SLICE_NAMES]:
                    if ";" in name:
                        counts.update(split_name(name)[1].keys())
                time.sleep(_PAUSE_S)
            keys = dict(sorted(counts.items()))
            _remember(found.keys, selection, keys)
        return keys

    def tag_values(self, held: Sequence[str], key: str, selection: Selection = Selection()) -> dict[str, int]:  # noqa: B008
        """Each value of that tag, sorted, with how many of the chosen names carry it. About 0.3 µs a name, once."""
        found = self._found_in(held)
        values = found.values.get((selection, key))
        if values is None:
            counts: Counter[str] = Counter()
            names = self.chosen(held, selection)
            for first in range(0, len(names), _SLICE_NAMES):
                some = (tag_value(name, key) for name in names[first : first + _SLICE_NAMES])
                counts.update(value for value in some if value is not None)
                time.sleep(_PAUSE_S)
            values = dict(sorted(counts.items()))
            _remember(found.values, (selection, key), values)
        return values

    def _found_in(self, held: Sequence[str]) -> _Found:
        found = self._found
        if found.held is not held:
            found = self._found = _Found(held, {}, {}, {})
        return found


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
