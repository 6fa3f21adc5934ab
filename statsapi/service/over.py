"""Questions about the union of several series, and about groups of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from statsapi.engine import groups
from statsapi.engine.answers import Statistics
from statsapi.engine.groups import Grouping
from statsapi.engine.histogram import Bins, Histogram
from statsapi.engine.piecewise import let_go
from statsapi.engine.store import Store
from statsapi.engine.union import Question
from statsapi.engine.union import Spans as SpansQuestion
from statsapi.engine.union_both import Both
from statsapi.engine.union_steps import Steps as StepsQuestion
from statsapi.errors import InvalidRequest
from statsapi.model import Percent, Span
from statsapi.naming.catalogue import Catalogue
from statsapi.naming.patterns import Selection
from statsapi.service.spans import Cut, SpanAnswer, Spans

# The limit of a question over several series. It bounds the number of spans or steps times series, which the answer
# holds in memory (300 bytes each). It also bounds the percentiles, and the spans or steps, of all shown groups (5 µs
# each). For a group that is not shown, only the figure of the order is computed (20 µs), and it counts where it is a
# percentile. The largest question, over 100,000 series of 3 events, takes 3 s, and with ten windows 8 s.
SPANS_MAX: Final = 1_000_000
GROUP_PERCENTILES_MAX: Final = 1_000_000
GROUP_ROWS_MAX: Final = 200_000

AnswerT = TypeVar("AnswerT")
OtherT = TypeVar("OtherT")


class ManySteps(NamedTuple):
    """The steps of several series together, and of groups of them."""

    cut: Cut
    answer: groups.Answer[list[Statistics]]


class ManyBins(NamedTuple):
    """The histogram of a span."""

    span: Span
    resolution_us: int
    answer: groups.Answer[Bins]


class Groups(NamedTuple):
    """Which groups are shown beside the total. ends: whether their order needs the first or last event."""

    grouping: Grouping
    ends: bool = False


class _Chooser(NamedTuple):
    """Chooses the series of a question, including named ones that are not held. check: refuses too many."""

    selection: Selection
    catalogue: Catalogue
    check: Callable[[int], None]

    def matches(self, name: str) -> bool:
        return self.selection.matches(name)

    def chosen(self, held: Sequence[str]) -> Sequence[str]:
        names: Sequence[str] = self.catalogue.chosen(held, self.selection)
        if self.selection.names:
            named = {name for name in self.selection.names if self.selection.matches(name)}
            if not named.issubset(names):
                names = sorted(named.union(names))
        self.check(len(names))
        return names


@dataclass(frozen=True, slots=True)
class Over:
    """Answers of a reading about the union of several series, and about groups of them.

    Each method answers from one instant (engine/groups.py), as if all events were in one series. Raises InvalidRequest
    where more series are chosen than STATSAPI_MAX_QUERY_SERIES, or where the answer would be too large (SPANS_MAX).
    """

    _store: Store
    _spans: Spans
    _catalogue: Catalogue
    _selection: Selection
    _max_series: int

    def statistics(
        self,
        windows_us: Sequence[int] = (),
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        percentiles: Sequence[Percent] = (),
        ends: bool = False,
        field: str = "window",
        compare_us: int | None = None,
        by: Groups | None = None,
    ) -> groups.Answer[list[SpanAnswer]]:
        """As `Reading.statistics`. With `compare_us` (or PREVIOUS) each span is compared with an earlier one.

        The figures that `by` orders groups by must be among those asked for, in that order.
        """
        spans = self._spans.meant(windows_us, start_us, end_us, field=field)
        earlier = [(None, "")] * len(spans) if compare_us is None else self._spans.compared(spans, compare_us)
        asked = [*spans, *(span for span, _ in earlier if span is not None)]
        resolutions_us = [self._spans.resolution_us(span) for span in asked]
        question = SpansQuestion(tuple(asked), tuple(percentiles), ends)

        def dump(found: list[Statistics]) -> list[SpanAnswer]:
            answers = [SpanAnswer(*each) for each in zip(asked, resolutions_us, found, strict=True)]
            if compare_us is None:
                return answers
            rest = iter(answers[len(spans) :])
            return [
                answer._replace(previous=next(rest) if span else None, missing=why)
                for answer, (span, why) in zip(answers, earlier, strict=False)
            ]

        answer = self._ask(question, len(asked), len(percentiles), "windows", by)
        return _map(dump, answer)

    def steps(
        self,
        step_us: int,
        window_us: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        percentiles: Sequence[Percent] = (),
        ends: bool = False,
        align: bool = False,
        by: Groups | None = None,
    ) -> ManySteps:
        """As `Reading.steps`. Groups are put in order by the statistics of the whole span."""
        cut = self._spans.cut(step_us, window_us, start_us, end_us, len(percentiles), align=align)
        steps = StepsQuestion(cut.span, cut.step_us, len(cut.spans), tuple(percentiles), ends)
        question: Question[Any, list[Statistics]] = steps
        if by is not None and by.grouping.value is not None:
            question = Both(SpansQuestion((cut.span,), by.grouping.percentiles, by.ends), steps)
        return ManySteps(cut, self._ask(question, len(cut.spans), len(percentiles), "step", by))

    def histogram(
        self,
        window_us: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        bins: int = 20,
        edges: Sequence[float] = (),
        log: bool = False,
        by: Groups | None = None,
    ) -> ManyBins:
        """The histogram of a window or range. InvalidRequest for `log` bins with values that are not positive."""
        (span,) = self._spans.meant([] if window_us is None else [window_us], start_us, end_us)
        histogram = Histogram(span, bins, tuple(edges), log, by is not None and by.ends)
        try:
            answer = self._ask(histogram, 1, max(bins, len(edges)), "limit", by)
        except ValueError as error:
            raise InvalidRequest([{"field": "scale", "reason": str(error)}]) from None
        return ManyBins(span, self._spans.resolution_us(span), answer)

    def _ask(
        self,
        question: Question[Any, AnswerT],
        n_spans: int,
        n_percentiles: int,
        field: str,
        by: Groups | None,
    ) -> groups.Answer[AnswerT]:
        grouping = None if by is None else by.grouping

        def check(n_series: int) -> None:
            most = self._max_series
            if n_series > most:
                chosen_by = "match" if self._selection.globs else "where" if self._selection.where else "series"
                reason = (
                    f"chooses {n_series:,} series, and one question may be about {most:,} (STATSAPI_MAX_QUERY_SERIES): "
                    "narrow it with match or where"
                )
                raise InvalidRequest([{"field": chosen_by, "reason": reason}])
            if n_series * n_spans > SPANS_MAX:
                reason = (
                    f"makes {n_spans:,} spans of each of {n_series:,} series; at most {SPANS_MAX:,} in all are "
                    "answered: choose fewer series, or take fewer spans (a longer step)"
                )
                raise InvalidRequest([{"field": field, "reason": reason}])
            shown = min(n_series, grouping.limit) if grouping else 0
            if shown * n_spans > GROUP_ROWS_MAX:
                rows = f"up to {shown * n_spans:,} spans in {shown:,} groups"
                reason = f"shows {rows}; at most {GROUP_ROWS_MAX:,} are answered: lower it"
                raise InvalidRequest([{"field": "limit", "reason": reason}])
            asked = shown * n_spans * n_percentiles
            placed = n_series if grouping and grouping.percentiles else 0
            if asked and asked + placed > GROUP_PERCENTILES_MAX:
                in_order = f", and puts up to {placed:,} groups in order by one" if placed else ""
                reason = (
                    f"shows up to {asked:,} percentiles or bins in {shown:,} groups{in_order}; at most "
                    f"{GROUP_PERCENTILES_MAX:,} are answered: lower it, or ask for fewer"
                )
                raise InvalidRequest([{"field": "limit", "reason": reason}])

        chooser = _Chooser(self._selection, self._catalogue, check)
        return groups.ask(self._store, chooser, question, self._spans.now_us, grouping)


def _map(change: Callable[[AnswerT], OtherT], answer: groups.Answer[AnswerT]) -> groups.Answer[OtherT]:
    """The answer with `change` applied to its total and to each group."""
    shown = [groups.Group(key, series, change(found)) for key, series, found in answer.groups]
    let_go(answer.groups)
    return groups.Answer(answer.matched, change(answer.total), shown, answer.groups_total)
