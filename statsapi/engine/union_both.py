"""Two questions about the same series at the same instant: one puts groups in order, one is shown for each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

from statsapi.engine.answers import Statistics
from statsapi.engine.counted import Selections
from statsapi.engine.rollup import Rollups
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import AnswerT, Bounds, Question, Spans
from statsapi.model import Percent


class Both(NamedTuple, Generic[AnswerT]):
    """Looking costs as much as for both. The answer is that of `shown`; `order` only puts groups in order."""

    order: Spans
    shown: Question[Any, AnswerT]

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], tuple[Any, Any]]:
        order, shown = self.order.looker(bounds), self.shown.looker(bounds)
        return lambda timeline, rollups: (order(timeline, rollups), shown(timeline, rollups))

    def unite(self, parts: Sequence[tuple[Any, Any]], *, selections: Selections | None = None) -> AnswerT:
        return self.shown.unite([part for _, part in parts], selections=selections)

    def place(self, parts: Sequence[tuple[Any, Any]], percentiles: Sequence[Percent]) -> Statistics:
        return self.order.place([part for part, _ in parts], percentiles)
