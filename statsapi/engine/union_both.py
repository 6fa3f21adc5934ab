"""Two questions about the same series at the same instant: what puts groups in order, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from statsapi.engine.answers import Statistics
from statsapi.engine.counted import Selections
from statsapi.engine.rollup import Rollups
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import Bounds, Question

FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")


class Both(NamedTuple, Generic[FirstT, SecondT]):
    """Costs what the two cost. `whole` is that of the first, percentiles included."""

    first: Question[Any, FirstT]
    second: Question[Any, SecondT]

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], tuple[Any, Any]]:
        first, second = self.first.looker(bounds), self.second.looker(bounds)
        return lambda timeline, rollups: (first(timeline, rollups), second(timeline, rollups))

    def unite(
        self,
        parts: Sequence[tuple[Any, Any]],
        *,
        with_percentiles: bool = True,
        selections: Selections | None = None,
    ) -> tuple[FirstT, SecondT]:
        of_first, of_second = [part for part, _ in parts], [part for _, part in parts]
        return (
            self.first.unite(of_first, with_percentiles=with_percentiles, selections=selections),
            self.second.unite(of_second, with_percentiles=with_percentiles, selections=selections),
        )

    def whole(self, answer: tuple[FirstT, SecondT]) -> Statistics:
        return self.first.whole(answer[0])
