"""Many series looked at in short slices of time, each as it was at one instant.

A question over 100,000 series takes longer than other threads may be kept waiting, and still must see all series at one
instant. So it releases the lock after a millisecond if others wait for it. A thread that is about to change a series
which the question has not reached yet first looks at that series on its behalf (`before_change`). Nothing is copied,
and a change costs more only while such a question runs, and only for the series it is about.

Refused: keeping changes out between the slices (every question catches up first, and would wait for the whole sweep),
and copies of timelines (they share chunks that remember cuts, so a copy cannot be asked without the lock).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from statsapi.engine.changes import NO_MARK, Mark
from statsapi.engine.rollup import Rollups
from statsapi.engine.timeline import Timeline

# If others wait, the lock is held for about SLICE_S. Then the thread pauses: a lock that is taken again at once is not
# handed over.
SLICE_S: Final = 0.001
PAUSE_S: Final = 0.000_1

Part = TypeVar("Part")


class Sweep(Generic[Part]):
    """The parts that one question has gathered so far. Caller of every method holds Store._lock."""

    __slots__ = ("_early", "_look", "_picks", "_seen_to", "held", "mark", "parts")

    def __init__(
        self, picks: Callable[[str], bool], look: Callable[[Timeline, Rollups], Part], mark: Mark = NO_MARK
    ) -> None:
        """picks: whether the question is about that series. look: makes a series' part, and changes nothing. mark: the
        question's instant, for callers that will ask for the changes after it.
        """
        self.mark = mark
        self._picks = picks
        self._look = look
        self._early: dict[str, tuple[bool, Part]] = {}
        self._seen_to = ""  # names rise: every series up to this one has been looked at
        self.parts: list[Part] = []
        self.held = 0
        """How many of the parts belong to a series with events or roll-ups."""

    def before_change(self, name: str, timeline: Timeline, rollups: Rollups) -> None:
        """Look at the series now, if the question has not done so."""
        if name > self._seen_to and name not in self._early and self._picks(name):
            self._early[name] = bool(len(timeline) or len(rollups)), self._look(timeline, rollups)

    def visit(self, name: str, timeline: Timeline, rollups: Rollups) -> None:
        """Add the part of the next series, as it was at the question's instant."""
        early = self._early.pop(name, None) if self._early else None
        self._seen_to = name
        if early is None:
            early = bool(len(timeline) or len(rollups)), self._look(timeline, rollups)
        self.held += early[0]
        self.parts.append(early[1])
