"""When a view's image is written, and when another's is taken (images.py), so that the workers of a machine do not each
hold all events in memory of their own.
"""

from __future__ import annotations

import math
import time
from typing import Final

from statsapi.machine import give_back_freed_memory
from statsapi.service.images import Images
from statsapi.service.view import View

# An image is written when this many sealed events, and this part of all, are in none. With a 16th, 10 million events
# in two workers took 26.6 bytes each (23.4 and 23.4 without images), and 24.5 in four.
SHARED_FROM_EVENTS: Final = 262_144
SHARED_PART: Final = 16

# While records come in, or where the disk is full, not sooner than this after the last one, nor than this many times as
# long as that took: a backfill of late events makes nearly all chunks anew.
BUSY_S: Final = 10.0
BUSY_TIMES: Final = 20.0

# An image holds the rest of the state as well, which is taken under the store's lock: 1 µs for each series and minute.
MAX_SERIES: Final = 4_096
MAX_ROLLUP_BYTES: Final = 64 << 20


class Sharing:
    """For one thread, which calls `share` about once a second."""

    def __init__(self, view: View, images: Images) -> None:
        self._view = view
        self._images = images
        self._position = 0
        self._waits_until_s = -math.inf
        self._fails = False

    def share(self) -> None:
        """Hold what another view has shared in place of memory of its own, or share, where this process leads and that
        is worth it. 3 µs where nothing is to be done; a new image of 10M events takes 20 ms, a quarter of them under
        no lock that questions need.
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
            began_s = time.monotonic()
            shared = view.journal.shared_folder()
            held = view.state()
            if held is not None and shared is not None:
                store, mark, state = held
                moved = images.publish(shared.journal, mark, state)
                store.contents.move(moved or [])
                self._fails = moved is None
                del held, state, moved
                give_back_freed_memory()
            now_s = time.monotonic()
            self._waits_until_s = now_s + max(BUSY_S, BUSY_TIMES * (now_s - began_s))

    def _is_worth_it(self) -> bool:
        store, position = self._view.last_caught_up(), self._view.position
        is_busy, self._position = position != self._position, position
        if (is_busy or self._fails) and time.monotonic() < self._waits_until_s:
            return False
        if store.sizes.held_series() > MAX_SERIES or store.sizes.rollup_bytes() > MAX_ROLLUP_BYTES:
            return False
        unshared = store.contents.unshared_events()
        if unshared >= max(SHARED_FROM_EVENTS, store.sizes.event_count() // SHARED_PART):
            return True
        return 2 * store.sizes.event_count() < self._images.events  # what has gone is let go of, on the disk as well
