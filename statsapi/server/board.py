"""The board: shared memory in which each worker publishes how many connections it has."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

_CELLS: Final = 3  # of a slot: connections + 1, turns, core + 1 and _STARTING
_STARTING: Final = 1 << 32


class Load(NamedTuple):
    """A worker's published state: its open connections, a count of its poll loop's turns, the core it is pinned to
    (None: not pinned), and whether it is starting: requests to it would wait for its replay.
    """

    connections: int
    turns: int
    core: int | None
    starting: bool


class Board:
    """Shared memory in which each worker publishes its load. A slot has 24 bytes, and only its owner writes it. The
    page's last cell belongs to no slot; the arbiter notes there that the server stops.

    It must exist before the first fork. There is no lock. A load that is read may be one turn old; at worst one
    connection then goes to a worker that is not the freest.
    """

    SLOTS: Final = (mmap.PAGESIZE // 8 - 1) // _CELLS

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def take(self, slot: int, core: int | None) -> None:
        """Called by the arbiter: the slot's next worker will run on `core`; it starts, and accepts nothing yet."""
        self.clear(slot)
        self._cells[_CELLS * slot + 2] = (0 if core is None else core + 1) | _STARTING

    def show(self, slot: int, connections: int, turns: int) -> None:
        self._cells[_CELLS * slot + 1] = turns
        self._cells[_CELLS * slot] = connections + 1

    def started(self, slot: int) -> None:
        self._cells[_CELLS * slot + 2] &= ~_STARTING

    def clear(self, slot: int) -> None:
        """Note that the slot's worker accepts no connections any more: it is stopping, or gone."""
        self._cells[_CELLS * slot] = 0
        self.started(slot)

    def stop(self) -> None:
        """Called by the arbiter: the server stops, so no worker that starts is waited for."""
        self._cells[-1] = 1

    def starting(self) -> set[int]:
        """The slots of the workers that are starting, whether or not they accept connections yet; none once the server
        stops.
        """
        cells = self._cells.tolist()
        if cells[-1]:
            return set()
        return {slot for slot, cell in enumerate(cells[2 : _CELLS * self.SLOTS : _CELLS]) if cell >= _STARTING}

    def loads(self) -> dict[int, Load]:
        """The loads of the workers that accept connections, by slot."""
        cells = self._cells.tolist()
        found = {}
        for at in range(0, _CELLS * self.SLOTS, _CELLS):
            if cells[at]:
                core = cells[at + 2] & ~_STARTING
                found[at // _CELLS] = Load(
                    cells[at] - 1, cells[at + 1], core - 1 if core else None, cells[at + 2] >= _STARTING
                )
        return found


def freer_than(slot: int, loads: Mapping[int, Load]) -> set[int]:
    """The slots of the workers that should take a new connection before the worker in `slot`.

    These workers are not starting where this one is, or have fewer connections. Among workers with equally many, they
    run on a core with fewer connections: two busy connections should not share a core while another core is idle.
    """
    own = loads.get(slot)
    if own is None:
        return set()
    on_core = Counter[int]()
    for load in loads.values():
        if load.core is not None:
            on_core[load.core] += load.connections

    def rank(load: Load) -> tuple[bool, int, int]:
        return load.starting, load.connections, load.connections if load.core is None else on_core[load.core]

    return {other for other, load in loads.items() if rank(load) < rank(own)}
