"""The board: shared memory in which each worker shows how many connections it has, for the others to see."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

_CELLS: Final = 3  # of a slot: connections + 1, turns, core + 1


class Load(NamedTuple):
    """What a worker shows of itself: its open connections, a count that rises with each turn of its poll loop, and the
    core it is pinned to (None: it roams).
    """

    connections: int
    turns: int
    core: int | None


class Board:
    """Shared memory in which each worker shows its load. A slot is 24 bytes, written by its owner alone.

    It must exist before the first fork. There is no lock: a load that is read is at most one turn old, and then one
    connection goes to another worker than the best.
    """

    SLOTS: Final = mmap.PAGESIZE // (8 * _CELLS)

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def take(self, slot: int, core: int | None) -> None:
        """For the arbiter: the slot's next worker, which takes no connections yet, runs on `core`."""
        self.clear(slot)
        self._cells[_CELLS * slot + 2] = 0 if core is None else core + 1

    def show(self, slot: int, connections: int, turns: int) -> None:
        self._cells[_CELLS * slot + 1] = turns
        self._cells[_CELLS * slot] = connections + 1

    def clear(self, slot: int) -> None:
        """The slot's worker takes no (more) connections: it is starting, leaving, or gone."""
        self._cells[_CELLS * slot] = 0

    def loads(self) -> dict[int, Load]:
        """The workers that take connections, by slot."""
        cells = self._cells.tolist()
        return {
            at // _CELLS: Load(cells[at] - 1, cells[at + 1], cells[at + 2] - 1 if cells[at + 2] else None)
            for at in range(0, _CELLS * self.SLOTS, _CELLS)
            if cells[at]
        }


def freer_than(slot: int, loads: Mapping[int, Load]) -> set[int]:
    """The slots of the workers that should rather take a connection: they have fewer; or as many, and fewer are open on
    their core. So two busy connections do not meet on one core while another is idle.
    """
    own = loads.get(slot)
    if own is None:
        return set()
    on_core = Counter[int]()
    for load in loads.values():
        if load.core is not None:
            on_core[load.core] += load.connections

    def rank(load: Load) -> tuple[int, int]:
        return load.connections, load.connections if load.core is None else on_core[load.core]

    return {other for other, load in loads.items() if rank(load) < rank(own)}
