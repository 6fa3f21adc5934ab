"""All that a store holds, as a checkpoint takes it out and brings it back."""

from __future__ import annotations

from statsapi.engine.guard import Guard
from statsapi.engine.holdings import Holdings
from statsapi.engine.rollup import Rolled
from statsapi.model import EventBatch, Part


class Contents:
    """All that this store holds. `lock` is the store's, which each method takes."""

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
        """A copy of every raw event held: what a checkpoint carries."""
        with self._lock:
            return EventBatch(
                tuple(Part(name, *timeline.columns(None, None)) for name, timeline in self._held.timelines.items())
            )

    @property
    def folded_to_us(self) -> int:
        """No roll-up reaches past it."""
        return self._held.folded_to_us

    def rolled_up(self) -> dict[str, list[Rolled]]:
        """Every roll-up held, by series."""
        with self._lock:
            return {name: list(rollups.between(None, None)) for name, rollups in self._held.rollups.items()}
