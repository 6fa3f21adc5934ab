"""Admission: which timestamps are accepted, limits, duplicates, and where in time the events lie.

Events that must not count are refused here, before or inside the append. Every record in the journal counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.clocks import STEP_US
from statsapi.config import Settings
from statsapi.durations import format_duration, spell_duration
from statsapi.engine.placement import Bounds, Placed
from statsapi.engine.store import Store
from statsapi.errors import InvalidRequest, StoreFull, ViewNotReady
from statsapi.machine import default_max_events
from statsapi.model import MAX_TS_US, MIN_TS_US, MINUTE_US, EventBatch, Parts, TimestampsUs, Values
from statsapi.service.following import DECIDE_WAIT_S, Follower
from statsapi.service.spans import describe_kept
from statsapi.times import format_timestamp

# Limits are checked against the last caught-up view, at most LIMIT_AGE_S old (housekeeping catches up once a second
# anyway). Only within LIMIT_NEAR_EVENTS of the limit is the view caught up first, as that costs every append a read.
# The check waits at most LIMIT_WAIT_S for a replay.
LIMIT_AGE_S: Final = 1.0
LIMIT_NEAR_EVENTS: Final = 2_000_000
LIMIT_WAIT_S: Final = 1.0


class Recorded(NamedTuple):
    """The outcome of recording a batch, at the journal's time `now_us`.

    placed: where its events lie by `bounds`, duplicates included. `expired` of them are older than everything kept:
    they are in the journal and in no answer. With deduplication, events older than the raw events are left out, as they
    can no longer be compared.
    """

    bounds: Bounds
    placed: Placed
    stored: int
    duplicates: int = 0

    @property
    def now_us(self) -> int:
        return self.bounds.now_us

    @property
    def expired(self) -> int:
        return self.placed.expired


class Accepted(NamedTuple):
    """The first and the last accepted timestamp, and the reasons for refusing an earlier or a later one."""

    first_us: int
    last_us: int
    too_early: str
    too_late: str

    def why_not(self, ts_us: int) -> str | None:
        """Why that timestamp is refused; None where it is accepted."""
        return self.too_early if ts_us < self.first_us else self.too_late if ts_us > self.last_us else None

    def before_shift(self, shift_us: int) -> Accepted:
        """The same limits for timestamps that will be moved by `shift_us` afterwards."""
        first_us, last_us = max(self.first_us, MIN_TS_US) - shift_us, min(self.last_us, MAX_TS_US) - shift_us
        return Accepted(
            max(first_us, MIN_TS_US),
            min(last_us, MAX_TS_US),
            self.too_early or "lies before the year 1 when it is shifted",
            self.too_late or "lies after the year 9999 when it is shifted",
        )


ANY_TIME: Final = Accepted(MIN_TS_US, MAX_TS_US, "", "")


def shared_max_events(setting: int | None, workers: int) -> int:
    """STATSAPI_MAX_EVENTS for that many processes."""
    return setting or default_max_events(workers)


def max_events_told(max_events: int) -> str:
    """For the log of a start."""
    return f"At most {max_events:,} raw events are held at one time (STATSAPI_MAX_EVENTS)"


class Admission:
    """Decides whether a recording or deletion is allowed, by the settings and the follower's view.

    Limits bound memory and are not exact to the event: other workers may add some at the same moment.
    """

    def __init__(self, settings: Settings, follower: Follower) -> None:
        self._settings = settings
        self._retention = settings.retention()
        self._follower = follower
        self.max_events = 0
        self.share_memory(1)

    def share_memory(self, workers: int) -> None:
        """Set STATSAPI_MAX_EVENTS, where it is left to us, to what fits when that many processes hold all events."""
        self.max_events = shared_max_events(self._settings.max_events, workers)

    # -- times

    def accepted(self, *, reject_expired: bool = False, dedup: bool = False) -> Accepted:
        """The timestamps that STATSAPI_MAX_FUTURE_SKEW and ?expired=reject allow now; for decoders, which can name the
        event at fault.
        """
        skew_us = self._settings.max_future_skew_us
        if skew_us is None and not reject_expired:
            return ANY_TIME
        first_us, last_us, too_early, too_late = ANY_TIME
        if skew_us is not None:
            last_us = min(self._follower.now_us() + skew_us, MAX_TS_US)
            too_late = (
                f"lies more than {format_duration(skew_us)} ahead of the server's clock (STATSAPI_MAX_FUTURE_SKEW)"
            )
        if reject_expired:
            bounds = self.bounds(self._follower.view().last_caught_up(), dedup=dedup)
            first_us, too_early = bounds.kept_from_us, self._too_early(bounds)
        return Accepted(first_us, last_us, too_early, too_late)

    def refuse_far_future(self, batch: EventBatch) -> None:
        accepted = self.accepted()
        if accepted is not ANY_TIME and (batch.ts_us > accepted.last_us).any():
            raise InvalidRequest([{"field": "timestamp", "reason": accepted.too_late}])

    def refuse_expired(self, bounds: Bounds, placed: Placed) -> None:
        """Refuse events that expired after decoding. `accepted` refused the others before, naming each event."""
        fault = {"field": "timestamp", "reason": self._too_early(bounds)}
        raise InvalidRequest([fault], rejected=placed.expired if sum(placed) > 1 else None)

    def _too_early(self, bounds: Bounds) -> str:
        since = f"now since {format_timestamp(bounds.kept_from_us)}"
        if bounds.clock_ahead_us:
            jumped = spell_duration(bounds.clock_ahead_us)
            since += f" by the server's clock, which went forward by {jumped} and may be wrong"
        if bounds.raw_from_us is not None:
            kept = f"{format_duration(self._settings.retention_us)} (STATSAPI_RETENTION)"
            return f"is older than the raw events kept, without which no duplicate can be told: {kept}, {since}"
        return f"is older than everything kept: {describe_kept(self._settings, self._retention)}, {since}"

    def bounds(self, store: Store, *, dedup: bool = False) -> Bounds:
        """The bounds by which the events that come now are placed."""
        view = self._follower.view()
        now_us = view.now_us(store)
        bounds = Bounds(now_us, now_us - self._settings.window_us, self._retention)
        if (ahead_us := view.clock.unbelieved_us) >= STEP_US:
            bounds = bounds._replace(clock_ahead_us=ahead_us)
        if not dedup:
            return bounds
        raw_from_us = self._comparable_from_us(store, now_us)
        if raw_from_us < bounds.kept_from_us:  # right after a start: no kept event is left out
            return bounds
        return bounds._replace(window_from_us=max(bounds.window_from_us, raw_from_us), raw_from_us=raw_from_us)

    def _comparable_from_us(self, store: Store, now_us: int) -> int:
        """The first instant from which an event can be compared with all events held. An event before it is left out
        for good, so this goes by the time that has stood.
        """
        return max(store.raw_from_us(self._follower.settled_us(now_us)), MIN_TS_US)

    def settled_from_us(self, now_us: int) -> int:
        """The first instant that has not expired by the time that has stood."""
        return self._retention.from_us(self._follower.settled_us(now_us))

    # -- limits

    def count_kept(self, now_us: int, batch: EventBatch) -> int:
        """How many events of the batch take room. Events that expire only by a clock that has not stood yet count."""
        kept_from_us = self.settled_from_us(now_us)
        return int(np.count_nonzero(batch.ts_us >= kept_from_us))

    def refuse_too_many_series(self, batch: EventBatch) -> None:
        """StoreFull where the batch would begin more series than STATSAPI_MAX_SERIES allows.

        Catches the view up where it is old or near a limit, so that `refuse_too_many_events` can use it afterwards.
        """
        view = self._follower.view()
        store = view.last_caught_up()
        if (
            store.sizes.used_events() + len(batch) + LIMIT_NEAR_EVENTS <= self.max_events
            and view.age_s() <= LIMIT_AGE_S
            and not store.listing.unknown(batch.names)
        ):
            return
        try:
            store = view.catch_up(wait_s=LIMIT_WAIT_S)
        except ViewNotReady:  # a replay must not block recording: limits are checked against what it has so far
            store = view.last_caught_up()
        kept_from_us = self.settled_from_us(view.now_us(store))
        # Expired events take no room. A series with only expired events does not count, whether held or new.
        nothing_expired = bool(
            batch.ts_us.min(initial=MAX_TS_US) >= kept_from_us
        )  # comparing each of many series would take seconds
        added = store.listing.unknown(
            batch.names
            if nothing_expired
            else (part.series for part in batch.parts if (part.ts_us >= kept_from_us).any())
        )
        limit = self._settings.max_series
        if not added or store.sizes.series_count() + len(added) <= limit:  # counting is O(series)
            return
        held = store.sizes.series_count(kept_from_us)
        if held + len(added) > limit:
            raise StoreFull("series", held, limit, adding=len(added), names=added, setting="STATSAPI_MAX_SERIES")

    def refuse_too_many_events(self, store: Store, adding: int) -> None:
        """StoreFull where `adding` events are too many. Expired events are not in it: they are dropped when read."""
        if adding and store.sizes.used_events() + adding > self.max_events:
            store.expire()
            held = store.sizes.used_events()
            if held + adding > self.max_events:
                raise StoreFull("events", held, self.max_events, adding=adding, setting="STATSAPI_MAX_EVENTS")

    # -- decisions under the journal's write lock

    def without_duplicates(self, batch: EventBatch, *, reject_expired: bool) -> tuple[EventBatch, Placed, Recorded]:
        """The events that the caught-up view does not hold, where the counted events lie, and the outcome.

        Runs under the journal's write lock.
        """
        store = self._follower.view().catch_up(wait_s=DECIDE_WAIT_S)
        bounds = self.bounds(store, dedup=True)
        placed = bounds.tally([batch.ts_us])
        if placed.expired and reject_expired:
            self.refuse_expired(bounds, placed)
        from_us = self._comparable_from_us(store, bounds.now_us)
        fresh = _without(batch, from_us, store)
        self.refuse_too_many_events(store, len(fresh))  # only now, as duplicates need no room
        counted = bounds.tally([fresh.ts_us])
        stored = len(fresh) - counted.expired
        counted = counted._replace(expired=placed.expired)
        return fresh, counted, Recorded(bounds, placed, stored, len(batch) - stored - placed.expired)

    def refuse_cut_rollups(self, store: Store, edges: Iterable[tuple[str, int]], now_us: int) -> None:
        """Refuse a deletion that would cut a roll-up: it takes whole minutes, and whole hours where minutes have been
        merged. This goes by time, as views differ in how far they have merged.
        """
        faults = []
        for field, edge_us in edges:
            unit_us = MINUTE_US
            if self._retention.rollup_us and edge_us >= self._retention.rollup_bounds(now_us).hours_from_us:
                unit_us = max(unit_us, store.resolution_us(edge_us, now_us))
            if edge_us % unit_us:
                nearest_us = edge_us // unit_us * unit_us + (unit_us if field == "end" else 0)
                nearest = format_timestamp(min(nearest_us, MAX_TS_US))
                what = "minute" if unit_us == MINUTE_US else "hour"
                reason = f"must be a whole {what}; the nearest range that covers it has {nearest}"
                faults.append({"field": field, "reason": reason})
        if faults:
            raise InvalidRequest(faults)


# A body may have 50,000 series of two events: comparing these one by one takes 3 µs, and by a sort 15.
_FEW: Final = 8


def _without(batch: EventBatch, from_us: int, store: Store) -> EventBatch:
    """The events from `from_us` on that the store does not hold, each once. 1 µs for a series of one event."""
    parts = Parts.of(batch.parts)
    unknown = set(store.listing.unknown(parts.names))
    fresh = parts.ts_us >= from_us
    end = 0
    for series, ts_us, values in parts:
        start, end = end, end + len(ts_us)
        if len(ts_us) == 1:
            if series not in unknown and fresh[start] and store.contains(series, ts_us, values)[0]:
                fresh[start] = False
            continue
        new = fresh[start:end]
        new &= ~_duplicates_within(ts_us, values)
        if series not in unknown:
            new[new] = ~store.contains(series, ts_us[new], values[new])
    part_of = np.repeat(np.arange(len(parts)), parts.counts)
    counts = np.bincount(part_of[fresh], minlength=len(parts))
    names = list(compress(parts.names, (counts > 0).tolist()))
    return EventBatch(Parts(names, counts[counts > 0], parts.ts_us[fresh], parts.values[fresh]))


def _duplicates_within(ts_us: TimestampsUs, values: Values) -> NDArray[np.bool_]:
    """Which events equal an earlier one of the same arrays: bool[n]. O(n log n)."""
    if len(ts_us) <= _FEW:
        pairs = list(zip(ts_us.tolist(), values.tolist(), strict=True))
        return np.array([pair in pairs[:at] for at, pair in enumerate(pairs)], np.bool_)
    order = np.lexsort((values, ts_us))  # stable: the first of equal events stays first
    duplicates = np.zeros(len(ts_us), np.bool_)
    same = (np.diff(ts_us[order]) == 0) & (values[order][1:] == values[order][:-1])
    duplicates[order[1:]] = same
    return duplicates
