"""One instant of many series, looked at little by little.

A question over 100,000 series takes longer than others may be kept waiting, and still has to be of one instant. So it
lets go of the lock after a millisecond where others wait for it, and whoever is about to change a series that it has
not come to yet looks at that series for it first (`before_change`). Nothing is copied, and a change costs more only
while such a question runs, and only for series that the question is about.

What was refused: keeping changes out between the slices (whoever asks catches up first, and would wait for the whole of
it), and copies of timelines (they share chunks that remember cuts, so a copy cannot be asked without the lock).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from statsapi.engine.changes import NO_MARK, Mark
from statsapi.engine.rollup import Rollups
from statsapi.engine.timeline import Timeline

# The lock is taken for this long, about, where others wait for it; then the thread stands back for a moment, since a
# lock that is taken again at once is not handed over.
SLICE_S: Final = 0.001
PAUSE_S: Final = 0.000_1

Part = TypeVar("Part")


class Sweep(Generic[Part]):
    """What one question has seen. Caller of every method holds Store._lock."""

    __slots__ = ("_early", "_look", "_picks", "_seen_to", "held", "mark", "parts")

    def __init__(
        self, picks: Callable[[str], bool], look: Callable[[Timeline, Rollups], Part], mark: Mark = NO_MARK
    ) -> None:
        """picks: whether the question is about that series. look: what it wants of one; it must not change it. mark:
        the question's instant, where somebody wants to know later what came after it.
        """
        self.mark = mark
        self._picks = picks
        self._look = look
        self._early: dict[str, tuple[bool, Part]] = {}
        self._seen_to = ""  # names rise: every series up to this one has been looked at
        self.parts: list[Part] = []
        self.held = 0
        """How many of the parts are of a series that something is held of."""

    def before_change(self, name: str, timeline: Timeline, rollups: Rollups) -> None:
        """Look at the series now, if the question has yet to."""
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
