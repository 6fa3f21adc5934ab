"""Which series there are, and what a question can reach of each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from statsapi.engine.answers import block_at
from statsapi.engine.guard import Guard
from statsapi.engine.holdings import Holdings
from statsapi.model import SeriesInfo


class Listing:
    """The series of that store. `lock` is the store's, which each method takes where it does not say otherwise."""

    __slots__ = ("_held", "_lock")

    def __init__(self, lock: Guard, held: Holdings) -> None:
        self._lock = lock
        self._held = held

    def names(self) -> Sequence[str]:
        """Every series that is held, also those of roll-ups only, sorted. A list that never changes: another takes its
        place when a series comes or goes. Some ns, or 20 ms under the lock for 100,000 names that have to be sorted.
        """
        with self._lock:
            return self._held.sorted_names()

    def raw_names(self, from_name: str = "") -> list[str]:
        """The series that hold raw events, from that name on, sorted."""
        with self._lock:
            names = self._held.sorted_names()
            return [name for name in names[bisect_left(names, from_name) :] if name in self._held.timelines]

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those of the names of which nothing is held. No lock: two maps are asked for each name."""
        return [name for name in names if name not in self._held.timelines and name not in self._held.rollups]

    def page(
        self,
        prefix: str,
        after: str,
        limit: int,
        now_us: int,
        *,
        raw_only: bool = False,
        chosen: Sequence[str] | None = None,
    ) -> list[SeriesInfo]:
        """The first `limit` series by name, of those after `after` whose names begin with `prefix`. Each comes with all
        that a question can reach of it at `now_us`. 1 µs for each, under the lock.

        raw_only: only series that have raw events, and of each these alone. chosen: sorted names, to look at these
        alone. What lies before `Store.raw_from_us(now_us)` is told as precisely as roll-ups are, also where it is still
        raw.
        """
        held = self._held
        raw_from_us = held.raw_from_us(now_us)
        from_us = raw_from_us if raw_only else min(held.retention.from_us(now_us), raw_from_us)
        minutes_from_us = held.minutes_from_us(now_us)
        page: list[SeriesInfo] = []
        timelines = held.timelines
        some_rollups = {} if raw_only else held.rollups
        with self._lock:
            names = held.sorted_names() if chosen is None else chosen
            for at in range(max(bisect_left(names, prefix), bisect_right(names, after)), len(names)):
                name = names[at]
                if len(page) == limit or not name.startswith(prefix):
                    break
                timeline, rollups = timelines.get(name), some_rollups.get(name)
                extent = None if timeline is None else timeline.extent(from_us)
                if rollups is not None and (rolled := rollups.extent(from_us)) is not None:
                    if extent is None:
                        extent = rolled
                    else:
                        events, first_us, last_us = extent
                        extent = events + rolled[0], min(first_us, rolled[1]), max(last_us, rolled[2])
                if extent is None:
                    continue
                events, first_us, last_us = extent
                length_us = 1
                if first_us < raw_from_us:
                    first_us, length_us = block_at(first_us, minutes_from_us)
                    if last_us < raw_from_us:
                        last_us = sum(block_at(last_us, minutes_from_us))
                page.append(SeriesInfo(name, events, first_us, last_us, length_us))
        return page
