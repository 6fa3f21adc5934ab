"""What the benchmark beside peers makes of its figures: pairs, verdicts, tables, charts. Nothing here is timed."""

from __future__ import annotations

import doctest
import json
import statistics
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import read_http
from benchmarks.peers import report
from benchmarks.peers.report import (
    BASELINE,
    Figure,
    Panel,
    Ratio,
    Section,
    bars_of,
    compared,
    draw,
    page_of,
    ratio_of_pairs,
    shown,
    table_of,
    table_of_cells,
)

positive = st.floats(min_value=1e-6, max_value=1e9)
rounds = st.lists(st.tuples(st.none() | positive, st.none() | positive), max_size=9)


def section(*figures: Figure, **more: object) -> Section:
    return Section("Title", "How.", list(figures), **more)  # type: ignore[arg-type] # as its fields are


def test_the_examples_hold() -> None:
    """Those in the docstrings give what they say."""
    assert doctest.testmod(report).failed == 0


@given(rounds, st.booleans())
def test_a_ratio_is_the_median_of_neighbours(pairs: list[tuple[float | None, float | None]], more: bool) -> None:
    """Round by round, as a plain loop computes it; rounds that lack a figure are left out, never shifted."""
    wanted = []
    for mine, other in pairs:
        if mine is not None and other is not None:
            wanted.append(mine / other if more else other / mine)
    found = ratio_of_pairs([each[0] for each in pairs], [each[1] for each in pairs], more_is_better=more)
    if not wanted:
        assert found is None
    else:
        assert found == Ratio(statistics.median(wanted), min(wanted), max(wanted), len(wanted))


@given(rounds)
def test_the_other_side_sees_the_opposite(pairs: list[tuple[float | None, float | None]]) -> None:
    """Whoever wins against the other loses when the two change places."""
    mine, theirs = [each[0] for each in pairs], [each[1] for each in pairs]
    one = ratio_of_pairs(mine, theirs, more_is_better=True)
    other = ratio_of_pairs(theirs, mine, more_is_better=True)
    opposite = {BASELINE: "peer", "peer": BASELINE, "even": "even"}
    if one is None or other is None:
        assert one is other
    elif all(abs(bound - edge) > 1e-9 for bound in (one.low, one.high) for edge in (1.0, 2.0, 0.5)):
        assert one.verdict == opposite[other.verdict]


@pytest.mark.parametrize(
    ("low", "high", "pairs", "verdict"),
    [
        (1.01, 2.0, 5, BASELINE),
        (0.99, 2.0, 9, "even"),
        (0.5, 0.99, 5, "peer"),
        (1.01, 2.0, 4, "even"),
        (2.1, 3.0, 1, BASELINE),
        (0.4, 0.49, 2, "peer"),
        (0.47, 0.55, 2, "even"),
    ],
)
def test_who_wins(low: float, high: float, pairs: int, verdict: str) -> None:
    """All of five pairs must agree, and fewer by more than twice."""
    assert Ratio((low + high) / 2, low, high, pairs).verdict == verdict


def test_a_form_is_compared_with_the_one_that_it_names() -> None:
    """A peer's own form stands beside ours of another name; what has no counterpart gets no ratio."""
    ours = Figure("integer columns", BASELINE, "events/s", (4.0,), more_is_better=True)
    theirs = Figure("Native columns", "ClickHouse", "events/s", (2.0,), more_is_better=True, beside="integer columns")
    alone = Figure("another", "ClickHouse", "events/s", (2.0,), more_is_better=True)
    assert [ratio for _, ratio in compared([ours, theirs, alone])] == [None, Ratio(2.0, 2.0, 2.0, 1), None]


def test_less_is_better_where_it_is() -> None:
    """A peer that takes twice the time is half as good."""
    ours, theirs = Figure("p99", BASELINE, "ms", (5.0,)), Figure("p99", "Redis", "ms", (10.0,))
    assert compared([ours, theirs])[1][1] == Ratio(2.0, 2.0, 2.0, 1)


def test_the_table_says_where_a_peer_wins() -> None:
    """The last cell names the winner, in bold where it is the peer."""
    ours = Figure("posts", BASELINE, "1/s", (100.0,) * 5, more_is_better=True)
    faster = Figure(
        "posts", "Redis", "1/s", (1000.0, 900.0, 1100.0, 1000.0, 1000.0), more_is_better=True, note="a note"
    )
    slower = Figure("posts", "the seed", "1/s", (None, None, None, None, None), more_is_better=True)
    table = table_of(section(ours, faster, slower)).splitlines()
    assert table[2].endswith("| 100 1/s | 100 to 100 |  |  |")
    assert table[3] == "| posts | Redis; a note | 1,000 1/s | 900 to 1,100 | 0.100 (0.0909 to 0.111) | **the peer** |"
    assert table[4] == "| posts | the seed | — 1/s |  |  |  |"


def test_a_check_shows_what_was_seen_with_each_peer() -> None:
    """One column for each peer, in the order in which they were asked; a cell that was not run stays empty."""
    cells = {
        "NaN": {BASELINE: ("right", "refused"), "Redis": ("wrong", "mean nan")},
        "variance": {BASELINE: ("right", "a|b"), "seed": ("none", "")},
    }
    assert table_of_cells(section(cells=cells)).splitlines() == [
        "| | statsapi | Redis | seed |",
        "|---|---|---|---|",
        "| NaN | ✓ refused | ✗ mean nan |  |",
        "| variance | ✓ a/b |  | — |",
    ]


@pytest.mark.parametrize("value", [1e-9, 0.5, 9.995, 12, 999.5, 1e12])
def test_three_digits_are_shown(value: float) -> None:
    """What is shown lies within half a hundredth of the value."""
    assert float(shown(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)


def test_what_is_stored_is_read_again() -> None:
    """A section survives its JSON, and the page of both is one."""
    made = section(
        Figure("posts", BASELINE, "1/s", (1.0, None), more_is_better=True, beside="", note="n"),
        cells={"NaN": {BASELINE: ("right", "refused")}},
        taken={"size": "quick", "versions": {"Redis": "Redis 7"}},
        skipped={"InfluxDB": "not there"},
    )
    again = Section.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    page = page_of({"singles": made})
    assert page == page_of({"singles": again})
    for text in ("## Title (`singles`)", "size: quick.", "Redis 7", "✓ refused", "Skipped: InfluxDB (not there)."):
        assert text in page


def panel_sections() -> dict[str, Section]:
    return {
        "batches": section(
            Figure("CSV", BASELINE, "1/s", (3.0,), more_is_better=True),
            Figure("columns", BASELINE, "1/s", (5.0,), more_is_better=True),
            Figure("CSV", "ClickHouse", "1/s", (7.0, 9.0), more_is_better=True),
            Figure("CSV", f"{BASELINE} again (noise)", "1/s", (99.0,), more_is_better=True),
            Figure("CSV", "Redis", "1/s", (None,), more_is_better=True),
        )
    }


def test_a_panel_has_the_best_of_each_peer() -> None:
    """The best first; neither the twin that shows the noise, nor who has no figure."""
    sections = panel_sections()
    assert bars_of(Panel("t", "batches", (), True), sections) == [("ClickHouse", 8.0), (BASELINE, 5.0)]
    assert bars_of(Panel("t", "batches", ("CSV",), False), sections) == [(BASELINE, 3.0), ("ClickHouse", 8.0)]
    assert bars_of(Panel("t", "elsewhere", (), True), sections) == []


@pytest.mark.slow
@pytest.mark.processes  # Matplotlib starts fc-list where it has not yet kept the list of fonts
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib's own
def test_the_chart_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    """Two drawings are equal byte for byte, are XML and name each peer; without figures there is none."""
    panels = [Panel("batches", "batches", (), True), Panel("none", "elsewhere", (), True)]
    one, two = tmp_path / "a" / "one.svg", tmp_path / "two.svg"
    assert draw(panels, panel_sections(), one, "a note")
    assert draw(panels, panel_sections(), two, "a note")
    assert one.read_bytes() == two.read_bytes()
    texts = {
        "".join(each.itertext()).strip() for each in ElementTree.parse(one).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {BASELINE, "ClickHouse", "8.00", "5.00", "a note"} <= texts
    assert not draw(panels[1:], panel_sections(), tmp_path / "none.svg", "")


def test_a_chunked_head_alone_is_no_answer() -> None:
    """A head that happens to end like a last chunk (ClickHouse's `timeout=10`) is not taken for the whole."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=10\r\n\r\n"
    assert read_http(head) is None
    assert read_http(head + b"0\r\n\r\n") == (True, False)
