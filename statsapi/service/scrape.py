"""The part of /metrics that comes from a reading."""

from __future__ import annotations

from typing import Final

from statsapi.config import Settings
from statsapi.durations import parse_duration_us
from statsapi.exposition import ViewState
from statsapi.naming.patterns import Glob, Selection, is_pattern
from statsapi.service.reading import Reading

# A scrape shows this many of the series that a pattern of STATSAPI_METRICS_SERIES matches: 18 lines and 0.1 ms each.
METRICS_MATCHED_MAX: Final = 1_000


def view_state(reading: Reading, settings: Settings, journal_bytes: int, clock_skew_us: int | None) -> ViewState:
    """The view's sizes, and the windows of the shown series. O(series + chunks)."""
    sizes = reading.store.sizes
    windows = [(text, parse_duration_us(text)) for text in settings.metrics_windows]
    windows = [(text, us) for text, us in windows if us <= settings.longest_window_us()]
    names, left_out = _shown_series(reading, settings)
    summaries = [
        (series, text, answer.statistics.summary)
        for series in (names if windows else ())
        for (text, _), answer in zip(windows, reading.statistics(series, [us for _, us in windows]), strict=True)
    ]
    return ViewState(
        sizes.event_count(),
        sizes.memory_bytes(),
        sizes.rollup_bytes(),
        sizes.series_count(),
        journal_bytes,
        summaries,
        left_out,
        clock_skew_us,
    )


def _shown_series(reading: Reading, settings: Settings) -> tuple[list[str], int]:
    """The series of STATSAPI_METRICS_SERIES, and how many of those that match are left out."""
    given = settings.metrics_series
    named = [name for name in given if not is_pattern(name)]
    globs = tuple(Glob(text) for text in given if is_pattern(text))
    if not globs:
        return named, 0
    known = set(named)
    matched = [
        n for n in reading.catalogue.chosen(reading.store.listing.names(), Selection(globs=globs)) if n not in known
    ]
    return named + matched[:METRICS_MATCHED_MAX], max(0, len(matched) - METRICS_MATCHED_MAX)
