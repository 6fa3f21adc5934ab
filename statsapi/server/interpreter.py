"""A worker's process settings: how often Python looks for cycles, how soon its threads take turns, and how much freed
memory it keeps.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from typing import Final

# With 100,000 series a full collection takes 150 to 270 ms, in which no thread runs. One question about all of them
# caused three to six, and POST /event waited that long. A full collection frees hardly anything: the cycles that
# requests leave die young, in the first two generations, which are collected as usual.
_YOUNGER_PER_FULL_COLLECTION: Final = 10_000

# A thread that applies records releases the interpreter lock at each row and each checksum. After this time it gets the
# lock back from a thread that decodes a batch; Python's default is 5 ms. Measured with two connections of batches, two
# workers and a reader, for 5, 1, 0.5 and 0.2 ms: the reader's p99 beside late batches, without percentiles 93, 31, 26
# and 81 ms, with percentiles 160, 53, 40 and 48 ms; batches 2.4, 2.7, 3.1 and 2.6 M/s. Threads that wait beside a
# question over many series get the lock as soon. To release it explicitly each millisecond was refused: such a question
# paid 0.5 ms each time, and up to 7 ms on a busy machine.
SWITCH_INTERVAL_S: Final = 0.001

# glibc returns the end of a heap to the system when this much of it is free; by default 128 KiB, or twice the largest
# block that was freed. A batch of 10,000 events needs some 3 MiB for a moment. Taking returned memory again cost 500
# page faults a batch, 1 of its 4 ms. Larger blocks are still mapped and unmapped one by one. One heap for all threads
# was refused: a body of 100,000 new series took 32 instead of 43 MiB at its peak, but POST and GET got 0.95 of before.
_KEPT_BYTES: Final = 4 << 20
_MAPPED_FROM_BYTES: Final = 4 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def make_full_collections_rare() -> None:
    """Make full collections a thousand times rarer than Python's default in this process."""
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, _YOUNGER_PER_FULL_COLLECTION)


def hand_over_soon() -> None:
    """Let a thread that waits for the interpreter lock have it after SWITCH_INTERVAL_S."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def keep_freed_memory() -> None:
    """Let this process keep some MiB of each heap for its next batch. Without glibc it does nothing."""
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        set_option(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
