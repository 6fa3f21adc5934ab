"""When a view writes its image, and when it maps another's (images.py), so that the workers of a machine share the
memory of most events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from statsapi.machine import give_back_freed_memory
from statsapi.service.images import Images
from statsapi.service.view import View

# An image is written when at least this many sealed events, and at least this fraction of all, are in no image. With a
# 16th, 10 million events took 26.6 bytes each in two workers together (23.4 in each worker without images), and 24.5 in
# four.
SHARED_FROM_EVENTS: Final = 262_144
SHARED_PART: Final = 16

# No image is written in the middle of a burst: whoever takes it applies again what came while it was written. So while
# records come in, an image waits until none has come for QUIET_S, but at most until they have come for BUSY_S. While
# they go on, or where the disk is full, the next one waits BUSY_S after the last one, and BUSY_TIMES as long as writing
# that took: a backfill of late events changes nearly all chunks.
QUIET_S: Final = 1.0
BUSY_S: Final = 10.0
BUSY_TIMES: Final = 20.0

# How often `share` is to be called. The sooner another worker's image is seen, the fewer records came since: at 3 M
# events/s, and looking once a second, a worker applied 0.7 s of records again, on a core that had none to spare.
LOOK_S: Final = 0.1

# An image holds the rest of the state too, which is copied under the store's lock: 1 µs for each series and minute.
MAX_SERIES: Final = 4_096
MAX_ROLLUP_BYTES: Final = 64 << 20


class Sharing:
    """Decides for one view. A single thread calls `share`, each LOOK_S."""

    def __init__(self, view: View, images: Images, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._images = images
        self._monotonic_s = monotonic_s
        self._position = 0
        self._moved_s = -math.inf  # when the view was first seen at that position
        self._busy_from_s = -math.inf  # since when it has moved at least each QUIET_S
        self._waits_until_s = -math.inf
        self._counted_s = -math.inf
        self._fails = False

    def share(self) -> None:
        """Map another view's image instead of using own memory, or write one, where this process leads and it is worth
        it. Costs 3 µs where nothing is to be done. A new image of 10M events takes 20 ms, a quarter of that under no
        lock that questions need.
        """
        view, images = self._view, self._images
        if view.age_s() == math.inf:
            return
        if images.has_another():
            image = images.begin(view.journal)
            if image is not None:
                view.change_to(*image)
                del image
                give_back_freed_memory()
        elif self._is_worth_it() and images.leads():
            began_s = self._monotonic_s()
            shared = view.journal.shared_folder()
            held = view.state()
            if held is not None and shared is not None:
                store, mark, state = held
                moved = images.publish(shared.journal, mark, state)
                store.contents.move(moved or [])
                self._fails = moved is None
                del held, state, moved
                give_back_freed_memory()
            now_s = self._monotonic_s()
            self._waits_until_s = now_s + max(BUSY_S, BUSY_TIMES * (now_s - began_s))

    def _is_worth_it(self) -> bool:
        store, position, now_s = self._view.last_caught_up(), self._view.position, self._monotonic_s()
        if position != self._position:
            if now_s - self._moved_s >= QUIET_S:
                self._busy_from_s = now_s
            self._position, self._moved_s = position, now_s
        if now_s - self._moved_s < QUIET_S and now_s < max(self._busy_from_s + BUSY_S, self._waits_until_s):
            return False
        if self._fails and now_s < self._waits_until_s:
            return False
        if now_s - self._counted_s < QUIET_S:  # counting takes 0.3 µs a series
            return False
        self._counted_s = now_s
        if store.sizes.held_series() > MAX_SERIES or store.sizes.rollup_bytes() > MAX_ROLLUP_BYTES:
            return False
        unshared = store.contents.unshared_events()
        if unshared >= max(SHARED_FROM_EVENTS, store.sizes.event_count() // SHARED_PART):
            return True
        return 2 * store.sizes.event_count() < self._images.events  # what has gone is let go of, on the disk as well
