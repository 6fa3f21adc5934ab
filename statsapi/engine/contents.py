"""Everything a store holds, taken out and put back: for checkpoints and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from statsapi.engine.chunk import Chunk
from statsapi.engine.guard import Guard
from statsapi.engine.held_events import Sealed
from statsapi.engine.holdings import Holdings, LateEvent
from statsapi.engine.rollup import Rolled
from statsapi.engine.sealed import Place, SealedColumns
from statsapi.model import EventBatch, Part

# Others get the lock after this many chunks, which take some 0.2 ms.
_CHUNKS_PER_LOCK: Final = 128


class Times(NamedTuple):
    """The times of `Holdings`."""

    appended_us: int
    folded_to_us: int
    hours_to_us: int


class State(NamedTuple):
    """Everything a store held at one instant. The arrays are never changed.

    small: the events of series without chunks.
    """

    times_us: Times
    sealed: dict[str, Sealed]
    small: EventBatch
    rollups: dict[str, list[Rolled]]
    late: list[LateEvent]


class Contents:
    """Everything one store holds. `lock` is the store's; each method takes it unless it says otherwise."""

    __slots__ = ("_held", "_lock")

    def __init__(self, lock: Guard, held: Holdings) -> None:
        self._lock = lock
        self._held = held

    def load(self, events: EventBatch, appended_us: int) -> None:
        """Begin with a checkpoint's raw events. The store must be new."""
        with self._lock:
            self._held.load(events, appended_us)

    def load_rollups(self, hour_us: int, blocks: dict[str, dict[int, bytes]]) -> None:
        """Begin with a checkpoint's roll-ups of an hour: by series, then as `Rollups.extend` takes them."""
        with self._lock:
            self._held.load_rollups(hour_us, blocks)

    def live_events(self) -> EventBatch:
        """A copy of every raw event held, for a checkpoint."""
        with self._lock:
            held = self._held.timelines
            opened = [Part(name, *timeline.columns(None, None)) for name, timeline in held.opened.items()]
            return EventBatch((*opened, *held.few_events()))

    @property
    def folded_to_us(self) -> int:
        """An instant that no roll-up reaches past."""
        return self._held.folded_to_us

    def rolled_up(self) -> dict[str, list[Rolled]]:
        """Every roll-up held, by series."""
        with self._lock:
            return {name: list(rollups.between(None, None)) for name, rollups in self._held.rollups.items()}

    def state(self) -> State:
        """Everything held, to be written without the lock. 1 µs for each chunk, small series and roll-up."""
        with self._lock:
            held = self._held
            opened = held.timelines.opened.items()
            sealed = {name: some for name, timeline in opened if (some := timeline.sealed())}
            small = [Part(name, *timeline.unsealed()) for name, timeline in opened if name not in sealed]
            rollups = {name: list(some.between(None, None)) for name, some in held.rollups.items()}
            times_us = Times(held.appended_us, held.folded_to_us, held.hours_to_us)
            return State(times_us, sealed, EventBatch((*small, *held.timelines.few_events())), rollups, list(held.late))

    def restore(self, state: State) -> None:
        """Begin with that state, except its roll-ups, which `load_rollups` must have loaded before. Otherwise the store
        must be new. No other store may use the state's chunks.
        """
        with self._lock:
            held = self._held
            held.load(state.small, state.times_us.appended_us)
            for name, sealed in state.sealed.items():
                timeline = held.timelines.new(name)
                timeline.restore(sealed)
                held.event_count += len(timeline)
            _, held.folded_to_us, held.hours_to_us = state.times_us
            held.late.extend(state.late)

    def move(self, moved: Sequence[tuple[Chunk, SealedColumns, Place]]) -> None:
        """Let each chunk hold the given arrays, which equal its own: see `SealedEvents.move_to`. Others get the lock in
        between.
        """
        for first in range(0, len(moved), _CHUNKS_PER_LOCK):
            with self._lock:
                for chunk, columns, place in moved[first : first + _CHUNKS_PER_LOCK]:
                    chunk.sealed.move_to(columns, place)

    def unshared_events(self) -> int:
        """How many events lie in chunks that no other process can map. No lock: changes meanwhile may be missed."""
        return sum([timeline.unshared_events() for timeline in list(self._held.timelines.opened.values())])
