"""The names of statistics, in all places that use them: stats=, percentiles=, order=, require= and the columns of CSV.
`NAMES` is the one table of names; a percentile has a name too: p95, p99.9.

A figure keeps the name that its client wrote, and has that name in the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

from statsapi.engine.answers import Statistics
from statsapi.engine.summary import Summary
from statsapi.errors import echo, why_repeated
from statsapi.model import SECOND_US, Percent, Span

STATS: Final = ("count", "min", "max", "mean", "sum", "variance", "stddev", "first", "last", "rate")

# Another figure beside the ten statistics. It is not in stats=all, whose ten keys must stay the same.
RANGE: Final = "range"
_MEDIAN: Final = 50

NAMES: Final[dict[str, str | int]] = {
    **{name: name for name in (*STATS, RANGE)},
    "avg": "mean",
    "average": "mean",
    "std": "stddev",
    "stdev": "stddev",
    "var": "variance",
    "median": _MEDIAN,
}

_PERCENT: Final = re.compile(r"\d{1,3}(\.\d{0,30})?|\.\d{1,30}", re.ASCII)
_ENDS: Final = ("first", "last")


class Figure(NamedTuple):
    """One statistic. name: as it was written. Exactly one of the others is given: `stat` is one of STATS or range."""

    name: str
    stat: str = ""
    percent: Percent | None = None


SEED: Final = tuple(Figure(name, name) for name in STATS[:4])
ALL: Final = tuple(Figure(name, name) for name in STATS)


def parse_percent(text: str) -> Percent:
    """The percentile's number, 0 to 100, as a fraction: the float nearest to 99.9 is another number with another rank.

    ValueError says what to write.
    """
    if _PERCENT.fullmatch(text):
        whole, _, decimals = text.partition(".")
        number, unit = int(whole + decimals), 10 ** len(decimals)
        if number <= 100 * unit:
            return Fraction(number, unit) if number % unit else number // unit
    raise ValueError("must be a number from 0 to 100, such as 99.9")


def parse_figure(text: str) -> Figure:
    """The figure of that name. ValueError lists the names."""
    meant = NAMES.get(text)
    if isinstance(meant, str):
        return Figure(text, meant)
    if meant is not None:
        return Figure(text, percent=meant)
    if text[:1] == "p" and _PERCENT.fullmatch(text[1:]):
        try:
            return Figure(text, percent=parse_percent(text[1:]))
        except ValueError:
            raise ValueError("is not a percentile: write p0 to p100, such as p95 or p99.9") from None
    raise ValueError(f"is not one of {', '.join(NAMES)}, or a percentile such as p95 or p99.9")


def percents_of(figures: Iterable[Figure]) -> tuple[Percent, ...]:
    """The percentiles that these figures need, without duplicates."""
    return tuple(dict.fromkeys(figure.percent for figure in figures if figure.percent is not None))


def places_of(figures: Iterable[Figure], percents: Sequence[Percent]) -> dict[str, int]:
    """Figure name -> index of its percentile in `percents`.

    Looked up once for each question, as hashing a Fraction takes 2 µs.
    """
    at = {percent: place for place, percent in enumerate(percents)}
    return {figure.name: at[figure.percent] for figure in figures if figure.percent is not None}


def want_ends(figures: Iterable[Figure]) -> bool:
    return any(figure.stat in _ENDS for figure in figures)


def spread(summary: Summary) -> float | None:
    """The maximum minus the minimum; None without values, and where the difference is beyond float64."""
    if summary.min is None or summary.max is None:
        return None
    difference = summary.max - summary.min  # one subtraction of two float64 is rounded once
    return difference if math.isfinite(difference) else None


def rate(summary: Summary, span: Span, now_us: int) -> float | None:
    length_us = (now_us if span.end_us is None else span.end_us) - span.start_us
    return summary.count * SECOND_US / length_us if length_us > 0 else None


def value_of(
    figure: Figure, answer: Statistics, places: Mapping[str, int], span: Span, now_us: int
) -> int | float | None:
    """The figure's value in the answer for one span; None where it has none. places: from `places_of`."""
    stat = figure.stat
    if figure.percent is not None:
        return answer.percentiles[places[figure.name]] if answer.percentiles else None
    if stat == "rate":
        return rate(answer.summary, span, now_us)
    if stat == RANGE:
        return spread(answer.summary)
    found: int | float | None = getattr(answer if stat in _ENDS else answer.summary, stat)
    return found


class Shown(NamedTuple):
    """What an answer shows: `figures` as its own members, and `nested` percentiles under "percentiles".

    percents: all percentiles that the store is asked for, in the order of its answer; hidden ones included. large: the
    figures that may leave float64. places: from `places_of`.
    """

    figures: tuple[Figure, ...] = SEED
    nested: tuple[Figure, ...] = ()
    percents: tuple[Percent, ...] = ()
    ends: bool = False
    large: tuple[Figure, ...] = ()
    places: Mapping[str, int] = {}

    @classmethod
    def of(cls, figures: Sequence[Figure] | None, percentiles: Sequence[tuple[str, Percent]], *hidden: Figure) -> Shown:
        """hidden: figures that are computed and not shown, such as the order of groups."""
        if figures is None and not percentiles and not hidden:
            return _SEED_SHOWN
        shown = SEED if figures is None else tuple(figures)
        nested = tuple(Figure(name, percent=percent) for name, percent in percentiles)
        asked = (*shown, *nested, *hidden)
        large = tuple(figure for figure in shown if figure.stat in _MAY_OVERFLOW)
        percents = percents_of(asked)
        return cls(shown, nested, percents, want_ends(asked), large, places_of(asked, percents))

    def dump(self, answer: Statistics, span: Span, now_us: int) -> dict[str, Any]:
        """The statistics of one span, as JSON shows them."""
        summary = answer.summary
        dumped: dict[str, Any] = {}
        for name, stat, percent in self.figures:
            if percent is not None:
                dumped[name] = answer.percentiles[self.places[name]] if answer.percentiles else None
            elif stat == "rate":
                dumped[name] = rate(summary, span, now_us)
            elif stat == RANGE:
                dumped[name] = spread(summary)
            else:
                dumped[name] = getattr(answer if stat in _ENDS else summary, stat)
        if self.nested:
            dumped["percentiles"] = {
                figure.name: value_of(figure, answer, self.places, span, now_us) for figure in self.nested
            }
        if answer.rolled_up or answer.relative_errors or (self.large and None in dumped.values()):
            dumped |= self.dump_how(answer, dumped)
        return dumped

    def dump_how(self, answer: Statistics, dumped: Mapping[str, Any]) -> dict[str, Any]:
        """How exact these numbers are, and why some are null: `method`, `relative_error`, `reasons`, where needed."""
        told: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if answer.rolled_up:
            reasons = {
                figure.name: "it has been rolled up with its minute"
                for figure in self.figures
                if figure.stat in answer.rolled_up
            }
        if answer.relative_errors:
            names: dict[Percent, str] = {}
            for figure in (*self.nested, *self.figures):
                if figure.percent is not None:
                    names.setdefault(figure.percent, figure.name)
            errors = {
                names[percent]: error
                for percent, error in zip(self.percents, answer.relative_errors, strict=True)
                if percent in names
            }
            if errors:
                proven = [error for error in errors.values() if error is not None]
                unproven = [name for name, error in errors.items() if error is None]
                told = {"method": "ddsketch", "relative_error": None if unproven else max(proven)}
                if unproven:
                    others = f"; for the others it is {max(proven)}" if proven else ""
                    reasons["relative_error"] = (
                        f"{', '.join(unproven)}: between a negative and a positive value{others}"
                    )
        for figure in self.large:
            if dumped[figure.name] is None and _overflows(figure.stat, answer.summary):
                reasons[figure.name] = "its exact value leaves float64"
        return told | {"reasons": reasons} if reasons else told


_SEED_SHOWN: Final = Shown()
_MAY_OVERFLOW: Final = ("sum", "variance", "stddev", RANGE)


def _overflows(stat: str, summary: Summary) -> bool:
    return summary.count > 0 if stat == RANGE else stat in summary.beyond_float64()


def change_of(now: int | float | None, before: int | float | None) -> float | None:
    """The relative change, (now - before) / abs(before): 0.1 for 110 after 100, and for -90 after -100.

    None where a number is missing, after 0, and beyond float64.
    """
    if now is None or before is None or not before:
        return None
    try:
        return float((Fraction(now) - Fraction(before)) / abs(Fraction(before)))
    except OverflowError:
        return None


def parse_figures(text: str) -> list[Figure]:
    """The figures of `stats=`: names separated by commas, without duplicates, or `all`.

    The statistics come first, in their fixed order, then the percentiles as they were given.
    """
    if text == "all":
        return list(ALL)
    figures = []
    for word in (part.strip() for part in text.split(",")):
        try:
            figures.append(parse_figure(word))
        except ValueError as error:
            raise ValueError(f"{echo(word)!r} {error}; stats=all gives {', '.join(STATS)}") from None
    if twice := why_repeated([figure.name for figure in figures], [figure[1:] for figure in figures]):
        raise ValueError(twice)
    places = {stat: place for place, stat in enumerate((*STATS, RANGE))}
    figures.sort(key=lambda figure: places.get(figure.stat, len(places)))
    return figures
