"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.durations import format_duration, parse_duration_us


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("90s", 90_000_000),
        ("15m", 900_000_000),
        ("1h", 3_600_000_000),
        ("1.5h", 5_400_000_000),
        ("7d", 604_800_000_000),
        ("2w", 1_209_600_000_000),
        ("250ms", 250_000),
        ("0.000001s", 1),
        ("60", 60_000_000),
        ("PT15M", 900_000_000),
        ("P1DT12H", 129_600_000_000),
        ("PT0.5S", 500_000),
        ("P1W", 604_800_000_000),
        ("1h30m", 5_400_000_000),
        ("1d12h", 129_600_000_000),
        ("1w2d3h4m5s6ms", 788_645_006_000),
        ("1m500ms", 60_500_000),
        ("5min", 300_000_000),
        ("90 s", 90_000_000),
        (" 1h 30m ", 5_400_000_000),
        ("1 hour 30 minutes", 5_400_000_000),
        ("2hrs", 7_200_000_000),
        ("10sec", 10_000_000),
        ("3 days", 259_200_000_000),
        ("2 Weeks", 1_209_600_000_000),
        ("1H", 3_600_000_000),
        ("500us", 500),
        ("500µs", 500),
        ("250msec", 250_000),
        ("1.5", 1_500_000),
        ("0.25d", 21_600_000_000),
        ("1.00000000001h", 3_600_000_000),
        ("PT1.5H", 5_400_000_000),
        ("PT1,5H", 5_400_000_000),
        ("P0.5D", 43_200_000_000),
        ("pt15m", 900_000_000),
        ("PT26H3M4.5S", 93_784_500_000),
    ],
)
def test_durations(written: str, us: int) -> None:
    """Short and ISO 8601 durations are read exactly, and spelled so that they read back."""
    assert parse_duration_us(written) == us
    assert parse_duration_us(format_duration(us)) == us


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        *[
            (written, "such as 90s")
            for written in ("", "h", "P", "PT", "١h", "P1Y", "P1M", "1" * 30, "now", "1h-30m", ".5h")
        ],
        ("1x", "not x"),
        ("1e3s", "not e"),
        ("1ns", "units are us, ms, s, m, h, d and w, not ns"),
        ("5M", "months: write 5m or 5min"),
        ("1h5M", "months: write 5m or 5min"),
        ("1mo", "no fixed length"),
        ("2 years", "no fixed length"),
        ("1y6mo", "no fixed length"),
        ("-1h", "not negative"),
        ("1h1h", "each once"),
        ("1h30min5m", "each once"),
        ("5m 1h", "large to small"),
        ("1h30", "no unit"),
        ("1:30", "not colons"),
        ("01:30:00", "not colons"),
        ("1,5h", "decimal point"),
        ("1h2,5m", "decimal point"),
        ("1h" * 100_000, "each once"),
        ("1 " * 100_000, "such as 90s"),
    ],
    ids=lambda text: text[:20],
)
def test_durations_refused(written: str, reason: str) -> None:
    """Anything else is refused with what is wrong: months and years too, which have no fixed length."""
    with pytest.raises(ValueError, match=f"must be a duration.*{reason}"):
        parse_duration_us(written)


@given(st.dictionaries(st.integers(0, 6), st.integers(0, 999), min_size=1), st.booleans())
def test_durations_add_up(counts: dict[int, int], blanks: bool) -> None:
    """A duration of several pieces is the sum of what each piece is alone."""
    units = ["w", "day", "hrs", "min", "s", "ms", "us"]
    pieces = [f"{counts[at]}{units[at]}" for at in sorted(counts)]
    assert parse_duration_us((" " if blanks else "").join(pieces)) == sum(map(parse_duration_us, pieces))


@given(st.integers(min_value=1, max_value=10**15))
def test_every_duration_has_a_spelling(us: int) -> None:
    """format_duration and parse_duration_us are inverses for any number of microseconds."""
    assert parse_duration_us(format_duration(us)) == us
