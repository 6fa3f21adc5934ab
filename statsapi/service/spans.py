"""The spans of a question: where they begin and end, how far back they may reach, how finely they may be cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from statsapi.config import Settings
from statsapi.durations import format_duration
from statsapi.engine.answers import Statistics
from statsapi.engine.store import Store
from statsapi.errors import InvalidRequest
from statsapi.model import Retention, Span
from statsapi.times import format_timestamp

STEPS_MAX: Final = 5_000
STEP_PERCENTILES_MAX: Final = 50_000

PREVIOUS: Final = 0
"""The value of `compare` for the span of equal length before."""


class Cut(NamedTuple):
    """A span cut into steps of `step_us`. Edges before the raw events are multiples of `resolution_us`. The last step
    ends with the span.
    """

    span: Span
    resolution_us: int
    step_us: int
    spans: list[Span]


class SpanAnswer(NamedTuple):
    """The statistics of a span. Edges before the raw events are multiples of `resolution_us`.

    previous: the statistics of the span it is compared with. Where they were asked for and do not exist, `missing` says
    why.
    """

    span: Span
    resolution_us: int
    statistics: Statistics
    previous: SpanAnswer | None = None
    missing: str = ""


class Spans:
    """Turns questions into spans at one instant, by `now_us` and what the store keeps then."""

    __slots__ = ("_settings", "_store", "now_us")

    def __init__(self, store: Store, now_us: int, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self.now_us = now_us

    def meant(
        self,
        windows_us: Sequence[int] = (),
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        field: str = "window",
    ) -> list[Span]:
        """The spans that a question means: an explicit range, or windows that end now and have no upper bound.

        Without either it is the default window. An edge among roll-ups moves outwards, to the edge of a roll-up.
        InvalidRequest where a span reaches past what is kept; `field` is the client's name of the windows. A start may
        lie up to the grace before the retention, as its client computed it some time ago.
        """
        now_us = self.now_us
        if start_us is not None:
            if start_us < (from_us := self._store.retention.from_us(now_us)):
                raise InvalidRequest([{"field": "start", "reason": self._past_what_is_kept(from_us)}])
            spans = [Span(start_us, end_us)]
        else:
            longest_us = self._settings.longest_window_us()
            for window_us in windows_us:
                if window_us > longest_us:
                    reason = f"{format_duration(window_us)} {self._past_what_is_kept(now_us - longest_us)}"
                    raise InvalidRequest([{"field": field, "reason": reason}])
            spans = [Span(now_us - window_us) for window_us in windows_us or (self._settings.window_us,)]
        return [self.between_rollups(span) for span in spans]

    def between_rollups(self, span: Span) -> Span:
        start_us, end_us = span
        start_us -= start_us % self._store.resolution_us(start_us, self.now_us)
        if end_us is not None:
            end_us += -end_us % self._store.resolution_us(end_us, self.now_us)
        return Span(start_us, end_us)

    def resolution_us(self, span: Span) -> int:
        """The span's edges are multiples of this many µs where it begins before the raw events."""
        return self._store.resolution_us(span.start_us, self.now_us)

    def of_raw_events(self, start_us: int | None, end_us: int | None) -> Span:
        """The span of raw events that a question means; without a start it begins with the first raw event.

        InvalidRequest where it begins before the raw events.
        """
        raw_from_us = self._store.raw_from_us(self.now_us)
        if start_us is not None and start_us < raw_from_us:
            kept = f"raw events are kept for {format_duration(self._settings.retention_us)} (STATSAPI_RETENTION)"
            reason = f"reaches past what is kept: {kept}, now since {format_timestamp(raw_from_us)}"
            raise InvalidRequest([{"field": "start", "reason": reason}])
        return Span(raw_from_us if start_us is None else start_us, end_us)

    def cut(
        self,
        step_us: int,
        window_us: int | None,
        start_us: int | None,
        end_us: int | None,
        n_percentiles: int,
        *,
        align: bool,
    ) -> Cut:
        """The span of a timeline and its steps. Raises as `steps` does."""
        (span,) = self.meant([] if window_us is None else [window_us], start_us, end_us)
        resolution_us = self.resolution_us(span)
        if step_us % resolution_us and align:
            step_us += resolution_us - step_us % resolution_us
        if step_us % resolution_us:
            reason = (
                f"must be a multiple of {format_duration(resolution_us)}, the length of the roll-ups at the span's "
                "start; align=true takes the next multiple"
            )
            raise InvalidRequest([{"field": "step", "reason": reason}])
        # A window keeps its length, although its start may have moved to the edge of a roll-up.
        length_us = window_us or (self.now_us if span.end_us is None else span.end_us) - span.start_us
        n_steps = max(1, -(-length_us // step_us))
        if n_steps > STEPS_MAX:
            reason = (
                f"makes {n_steps:,} steps of this span; at most {STEPS_MAX:,} are answered: take a longer step, or a "
                "shorter span"
            )
            raise InvalidRequest([{"field": "step", "reason": reason}])
        if n_steps * n_percentiles > STEP_PERCENTILES_MAX:
            reason = (
                f"makes {n_steps * n_percentiles:,} percentiles of {n_steps:,} steps; at most {STEP_PERCENTILES_MAX:,} "
                "are answered: take fewer of them, or a longer step"
            )
            raise InvalidRequest([{"field": "percentiles", "reason": reason}])
        edges_us = [span.start_us + step_us * i for i in range(n_steps)]
        spans = [*(Span(*edges) for edges in pairwise(edges_us)), Span(edges_us[-1], span.end_us)]
        return Cut(span, resolution_us, step_us, spans)

    def compared(self, spans: Sequence[Span], compare_us: int) -> list[tuple[Span | None, str]]:
        """The span that each of `spans` is compared with, or None and the reason.

        PREVIOUS means the span of equal length before; a number of µs means the same span that long ago. A span without
        an upper end then ends `compare_us` before now.
        """
        found: list[tuple[Span | None, str]] = []
        from_us = self._store.retention.from_us(self.now_us)
        for span in spans:
            end_us = self.now_us if span.end_us is None else span.end_us
            length_us = end_us - span.start_us
            by_us = length_us if compare_us == PREVIOUS else compare_us
            if length_us <= 0:
                found.append((None, "this span has no length as of now"))
            elif span.start_us - by_us < from_us:
                found.append((None, self._past_what_is_kept(from_us)))
            else:
                found.append((self.between_rollups(Span(span.start_us - by_us, end_us - by_us)), ""))
        return found

    def _past_what_is_kept(self, from_us: int) -> str:
        kept = describe_kept(self._settings, self._store.retention)
        return f"reaches past what is kept: {kept}, now since {format_timestamp(from_us)}"


def describe_kept(settings: Settings, retention: Retention) -> str:
    """How long events or roll-ups are kept, and the setting for it."""
    setting = "STATSAPI_ROLLUP_RETENTION" if retention.rollup_us else "STATSAPI_RETENTION"
    return f"{format_duration(settings.longest_window_us())} ({setting})"
