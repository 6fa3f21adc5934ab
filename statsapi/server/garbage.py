"""How often a worker looks for cycles of objects that nothing else refers to."""

from __future__ import annotations

import gc
from typing import Final

# A full collection of 100,000 series takes 150 to 270 ms, in which no thread runs, and one question about all of them
# set off three to six; POST /event waited as long. Hardly anything is freed by it alone: cycles that requests leave
# die young, in the first two generations, which are collected as ever.
_YOUNGER_PER_FULL_COLLECTION: Final = 10_000


def make_full_collections_rare() -> None:
    """Let this process look through all objects for cycles a thousand times less often than Python does by itself."""
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, _YOUNGER_PER_FULL_COLLECTION)
