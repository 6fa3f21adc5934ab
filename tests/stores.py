"""What tests do to a store, as steps that Hypothesis may draw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statsapi.engine.store import Store
from statsapi.journal import Events


class Insert(NamedTuple):
    series: str
    events: list[tuple[int, float]]


class Pass(NamedTuple):
    """Time passes, and what is due is folded, or not yet."""

    seconds: int
    fold: bool


def apply(store: Store, series: str, events: list[tuple[int, float]], appended_us: int) -> None:
    ts_us = np.array([ts for ts, _ in events], np.int64)
    values = np.array([value for _, value in events])
    store.apply([Events(series, ts_us, values, np.full(len(events), appended_us))], appended_us)
