"""The board: shared memory in which each worker shows how many connections it has, for the others to see."""

from __future__ import annotations

import mmap
from typing import Final, NamedTuple


class Load(NamedTuple):
    """What a worker shows of itself: its open connections, and a count that rises with each turn of its poll loop."""

    connections: int
    turns: int


class Board:
    """Shared memory in which each worker shows its load. A slot is 16 bytes, written by its owner alone.

    It must exist before the first fork. There is no lock: a load that is read is at most one turn old, and then one
    connection goes to another worker than the best.
    """

    SLOTS: Final = mmap.PAGESIZE // 16

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")  # connections + 1, turns; for each slot

    def show(self, slot: int, connections: int, turns: int) -> None:
        self._cells[2 * slot + 1] = turns
        self._cells[2 * slot] = connections + 1

    def clear(self, slot: int) -> None:
        """The slot's worker takes no (more) connections: it is starting, leaving, or gone."""
        self._cells[2 * slot] = 0

    def loads(self) -> dict[int, Load]:
        """The workers that take connections, by slot."""
        cells = self._cells.tolist()
        return {at // 2: Load(cells[at] - 1, cells[at + 1]) for at in range(0, len(cells), 2) if cells[at]}
