"""How a worker sets up its process: how often Python looks for cycles, how soon its threads take turns, and what it
keeps of freed memory.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from typing import Final

# A full collection of 100,000 series takes 150 to 270 ms, in which no thread runs, and one question about all of them
# set off three to six; POST /event waited as long. Hardly anything is freed by it alone: cycles that requests leave
# die young, in the first two generations, which are collected as ever.
_YOUNGER_PER_FULL_COLLECTION: Final = 10_000

# A thread that applies records gives the interpreter away at each row and each checksum, and gets it back from one that
# decodes a batch after this time; Python's own is 5 ms. Two connections of batches, two workers, a reader beside them:
# p99 of late batches 93 and 160 ms (without and with percentiles), 31 and 53 with 1 ms, 26 and 40 with 0.5, 81 and 48
# with 0.2; batches 2.4, 2.7, 3.1 and 2.6 M/s. Others who wait beside a question over many series get it as soon;
# standing back each millisecond took such a question 0.5 ms each time, and up to 7 on a busy machine.
SWITCH_INTERVAL_S: Final = 0.001

# glibc gives the end of a heap back to the system when this much of it is free: 128 KiB, or twice the largest block
# that was freed, if nothing is set. A batch of 10,000 events takes some 3 MiB for a moment, and what had been given
# back cost 500 page faults a batch, 1 of 4 ms. Larger blocks are mapped and unmapped by themselves, as ever.
_KEPT_BYTES: Final = 4 << 20
_MAPPED_FROM_BYTES: Final = 4 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def make_full_collections_rare() -> None:
    """Let this process look through all objects for cycles a thousand times less often than Python does by itself."""
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, _YOUNGER_PER_FULL_COLLECTION)


def hand_over_soon() -> None:
    """Let a thread that waits for this process's interpreter have it after SWITCH_INTERVAL_S."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def keep_freed_memory() -> None:
    """Let this process keep some MiB of each heap for its next batch. Where the C library has no such setting, nothing
    is set.
    """
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        set_option(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
