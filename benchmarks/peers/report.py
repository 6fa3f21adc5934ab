"""Ratios of pairs in turn, tables and charts, from figures alone: nothing here runs or times anything."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BASELINE = "statsapi"
ENOUGH_PAIRS = 5


@dataclass(frozen=True)
class Figure:
    """What one peer reached in one subject, round by round; None where a round brought nothing.

    `beside` is the subject of the baseline that this one is compared with, itself when empty.
    """

    subject: str
    peer: str
    unit: str
    values: tuple[float | None, ...]
    more_is_better: bool = False
    beside: str = ""
    note: str = ""

    @property
    def median(self) -> float | None:
        return _median(self.values)


@dataclass(frozen=True)
class Ratio:
    """How many times as good the baseline is: above 1 it wins, below 1 the peer does. Bounds are those of the pairs."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """Who wins: where five pairs or more all agree (by chance one time in sixteen), or fewer by more than twice.

        By more than half was not enough: in two pairs of short runs a server won against itself by 1.8 to 2.1.
        """
        margin = 1.0 if self.pairs >= ENOUGH_PAIRS else 2.0
        if self.low > margin:
            return BASELINE
        if self.high < 1 / margin:
            return "peer"
        return "even"


@dataclass
class Section:
    """The figures of one measure, with where and when they were taken."""

    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    cells: dict[str, dict[str, tuple[str, str]]] = field(
        default_factory=dict
    )  # check -> peer -> verdict, what was seen
    taken: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Section:
        figures = [Figure(**(each | {"values": tuple(each["values"])})) for each in stored["figures"]]
        cells = {
            check: {peer: (cell[0], cell[1]) for peer, cell in row.items()} for check, row in stored["cells"].items()
        }
        return cls(**(stored | {"figures": figures, "cells": cells}))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio_of_pairs(
    ours: Sequence[float | None], theirs: Sequence[float | None], *, more_is_better: bool
) -> Ratio | None:
    """Round n of ours with round n of theirs, as these were neighbours in time; rounds that lack one are left out.

    >>> ratio_of_pairs([10.0, 30.0, 12.0], [5.0, 20.0, 4.0], more_is_better=True)
    Ratio(median=2.0, low=1.5, high=3.0, pairs=3)
    """
    ratios = [
        mine / other if more_is_better else other / mine
        for mine, other in zip(ours, theirs, strict=False)
        if mine and other
    ]
    if not ratios:
        return None
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def compared(figures: Sequence[Figure]) -> list[tuple[Figure, Ratio | None]]:
    """Each figure with its ratio to the baseline's figure of the same subject, or of the one it names."""
    ours = {figure.subject: figure for figure in figures if figure.peer == BASELINE}
    found = []
    for figure in figures:
        mine = ours.get(figure.beside or figure.subject)
        ratio = None
        if mine is not None and figure.peer != BASELINE:
            ratio = ratio_of_pairs(mine.values, figure.values, more_is_better=figure.more_is_better)
        found.append((figure, ratio))
    return found


def shown(value: float | None) -> str:
    """Three significant digits, with commas.

    >>> [shown(value) for value in (None, 0.01234, 4.2, 1234.5, 3_500_000.0)]
    ['—', '0.0123', '4.20', '1,230', '3,500,000']
    """
    if value is None:
        return "—"
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def _won(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return {BASELINE: BASELINE, "peer": "**the peer**", "even": "even"}[ratio.verdict]


def table_of(section: Section) -> str:
    """A Markdown table: one line for each subject and peer, who wins in the last column."""
    lines = [
        f"| | | median | spread of rounds | {BASELINE} is … times as good (all pairs) | wins |",
        "|---|---|---|---|---|---|",
    ]
    for figure, ratio in compared(section.figures):
        known = [value for value in figure.values if value is not None]
        spread = f"{shown(min(known))} to {shown(max(known))}" if len(known) > 1 else ""
        times = f"{shown(ratio.median)} ({shown(ratio.low)} to {shown(ratio.high)})" if ratio else ""
        beside = f" beside our {figure.beside}" if figure.beside and figure.beside != figure.subject else ""
        note = f"; {figure.note}" if figure.note else ""
        lines.append(
            f"| {figure.subject} | {figure.peer}{beside}{note} | {shown(figure.median)} {figure.unit} "
            f"| {spread} | {times} | {_won(ratio)} |"
        )
    return "\n".join(lines)


MARKS = {"right": "✓", "wrong": "✗", "none": "—"}


def table_of_cells(section: Section) -> str:
    """A Markdown table: one line for each check, one column for each peer, what was seen in each cell."""
    peers = list(dict.fromkeys(peer for row in section.cells.values() for peer in row))
    lines = [f"| | {' | '.join(peers)} |", "|---|" + "---|" * len(peers)]
    for check, row in section.cells.items():
        cells = (f"{MARKS[row[peer][0]]} {row[peer][1]}".strip() if peer in row else "" for peer in peers)
        lines.append(f"| {check} | {' | '.join(each.replace('|', '/') for each in cells)} |")
    return "\n".join(lines)


def page_of(sections: dict[str, Section]) -> str:
    """All of it as one Markdown page."""
    parts = [
        "# statsapi beside its peers",
        "Ratios are of neighbouring runs in turn: above 1 statsapi is better, below 1 the peer is. Who wins is said "
        f"where all of {ENOUGH_PAIRS} pairs or more agree, or fewer by more than twice; else it is even. "
        "How to read it, and what is not fair: benchmarks/README.md.",
    ]
    for name, section in sections.items():
        taken = ", ".join(f"{key}: {value}" for key, value in section.taken.items() if key != "versions")
        parts += [f"## {section.title} (`{name}`)", section.how, f"{taken}."]
        if versions := section.taken.get("versions"):
            parts.append("; ".join(f"{peer}: {version}" for peer, version in versions.items() if version))
        if section.figures:
            parts.append(table_of(section))
        if section.cells:
            parts.append(table_of_cells(section))
        if section.skipped:
            parts.append("Skipped: " + "; ".join(f"{peer} ({why})" for peer, why in section.skipped.items()) + ".")
    return "\n\n".join(parts) + "\n"


# Charts

OURS, THEIRS = "#1b6e53", "#8a94a3"


@dataclass(frozen=True)
class Panel:
    """One panel of bars: the best figure of each peer in some subjects of one section."""

    title: str
    section: str
    subjects: tuple[str, ...]  # empty: all
    more_is_better: bool


def bars_of(panel: Panel, sections: dict[str, Section]) -> list[tuple[str, float]]:
    """Each peer's best median among the subjects of the panel, the best first; the baseline's A/A twin left out."""
    if panel.section not in sections:
        return []
    best: dict[str, float] = {}
    for figure in sections[panel.section].figures:
        if (panel.subjects and figure.subject not in panel.subjects) or figure.median is None:
            continue
        if figure.peer.startswith(f"{BASELINE} again"):
            continue
        value, known = figure.median, best.get(figure.peer)
        if known is None or (value > known) == panel.more_is_better:
            best[figure.peer] = value
    return sorted(best.items(), key=lambda each: each[1], reverse=panel.more_is_better)


def draw(panels: Sequence[Panel], sections: dict[str, Section], path: Path, note: str) -> bool:
    """Bars on logarithmic axes as SVG, a note below; the same bytes for the same figures.

    False where no panel has a figure.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "statsapi", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    drawn = [(panel, bars) for panel in panels if (bars := bars_of(panel, sections))]
    if not drawn:
        return False
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    highest = max(len(bars) for _, bars in drawn)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, (0.26 * highest + 0.7) * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (panel, bars) in zip(axes.flat, drawn, strict=False):
        names, values = [name for name, _ in bars][::-1], [value for _, value in bars][::-1]
        axis.barh(names, values, color=[OURS if name == BASELINE else THEIRS for name in names], height=0.7)
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 3, max(values) * 6)
        for at, value in enumerate(values):
            axis.annotate(shown(value), (value, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_title(panel.title, fontsize=9, loc="left", fontweight="bold", x=-0.95)
        better = "longer is better" if panel.more_is_better else "shorter is better"
        axis.set_title(better, fontsize=8, loc="right", color="#5a6372")
        axis.tick_params(axis="x", labelbottom=False, length=0, which="both")
        axis.tick_params(axis="y", length=0)
        for label, name in zip(axis.get_yticklabels(), names, strict=True):
            label.set_fontweight("bold" if name == BASELINE else "normal")
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    figure.supxlabel(note, fontsize=8, color="#5a6372")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return True
