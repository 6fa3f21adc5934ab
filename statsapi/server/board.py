"""The board: shared memory in which each worker publishes how many connections it has."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

_CELLS: Final = 3  # of a slot: connections + 1 or _STARTING, turns, core + 1
_STARTING: Final = -1


class Load(NamedTuple):
    """A worker's published state: its open connections, a count of its poll loop's turns, and the core it is pinned to
    (None: not pinned).
    """

    connections: int
    turns: int
    core: int | None


class Board:
    """Shared memory in which each worker publishes its load. A slot has 24 bytes, and only its owner writes it.

    It must exist before the first fork. There is no lock. A load that is read may be one turn old; at worst one
    connection then goes to a worker that is not the freest.
    """

    SLOTS: Final = mmap.PAGESIZE // (8 * _CELLS)

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def take(self, slot: int, core: int | None) -> None:
        """Called by the arbiter: the slot's next worker will run on `core`, and is starting until it shows itself."""
        self._cells[_CELLS * slot] = _STARTING
        self._cells[_CELLS * slot + 2] = 0 if core is None else core + 1

    def show(self, slot: int, connections: int, turns: int) -> None:
        self._cells[_CELLS * slot + 1] = turns
        self._cells[_CELLS * slot] = connections + 1

    def clear(self, slot: int) -> None:
        """Note that the slot's worker accepts no connections any more: it is stopping, or gone."""
        self._cells[_CELLS * slot] = 0

    def anyone_starts(self) -> bool:
        return _STARTING in self._cells.tolist()[::_CELLS]

    def loads(self) -> dict[int, Load]:
        """The loads of the workers that have shown themselves, by slot."""
        cells = self._cells.tolist()
        return {
            at // _CELLS: Load(cells[at] - 1, cells[at + 1], cells[at + 2] - 1 if cells[at + 2] else None)
            for at in range(0, _CELLS * self.SLOTS, _CELLS)
            if cells[at] > 0
        }


def freer_than(slot: int, loads: Mapping[int, Load]) -> set[int]:
    """The slots of the workers that should take a new connection before the worker in `slot`.

    These workers have fewer connections. Among workers with equally many, they run on a core with fewer connections:
    two busy connections should not share a core while another core is idle. A worker that is starting leaves each
    connection to the others.
    """
    own = loads.get(slot)
    if own is None:
        return set(loads)
    on_core = Counter[int]()
    for load in loads.values():
        if load.core is not None:
            on_core[load.core] += load.connections

    def rank(load: Load) -> tuple[int, int]:
        return load.connections, load.connections if load.core is None else on_core[load.core]

    return {other for other, load in loads.items() if rank(load) < rank(own)}
