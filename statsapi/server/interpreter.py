"""How a worker sets up its Python: how often it looks for cycles, and how soon its threads take turns."""

from __future__ import annotations

import gc
import sys
from typing import Final

# A full collection of 100,000 series takes 150 to 270 ms, in which no thread runs, and one question about all of them
# set off three to six; POST /event waited as long. Hardly anything is freed by it alone: cycles that requests leave
# die young, in the first two generations, which are collected as ever.
_YOUNGER_PER_FULL_COLLECTION: Final = 10_000

# A thread that applies records gives the interpreter away at each row and each checksum, and gets it back from one that
# decodes a batch after this time; Python's own is 5 ms. Two connections of batches, two workers, a reader beside them:
# p99 of late batches 93 and 160 ms (without and with percentiles), 31 and 53 with 1 ms, 26 and 40 with 0.5, 81 and 48
# with 0.2; batches 2.4, 2.7, 3.1 and 2.6 M/s.
SWITCH_INTERVAL_S: Final = 0.001


def make_full_collections_rare() -> None:
    """Let this process look through all objects for cycles a thousand times less often than Python does by itself."""
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, _YOUNGER_PER_FULL_COLLECTION)


def hand_over_soon() -> None:
    """Let a thread that waits for this process's interpreter have it after SWITCH_INTERVAL_S."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
