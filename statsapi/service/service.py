"""What the service does, as orders of steps: record, delete, ask. Knows no HTTP and no engine.

Recording appends to the journal and nothing else. Reading first catches the view up with the journal, then asks it; so
what any worker acknowledged before the question is in the answer. Clocks decide which part of the state a question
covers; they never change the state, only records do. What cannot be undone goes by time that has stood (clocks.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from statsapi.config import Settings
from statsapi.engine.placement import NONE
from statsapi.errors import JournalRefused, JournalUnavailable, ShuttingDown, StatsError
from statsapi.exposition import expose
from statsapi.journal import Decide, Journal, Proposal
from statsapi.metrics import Metrics
from statsapi.model import MAX_TS_US, SECOND_US, Deletion, EventBatch, IdempotencyKey, Span
from statsapi.naming.catalogue import Catalogue
from statsapi.service.admission import Accepted, Admission, Recorded
from statsapi.service.following import DECIDE_WAIT_S, READ_WAIT_S, Follower
from statsapi.service.housekeeping import Housekeeping
from statsapi.service.reading import Reading
from statsapi.service.scrape import view_state
from statsapi.service.view import View
from statsapi.times import format_nearest

logger = logging.getLogger("statsapi")

# How long a scrape waits for a replay; it shows what it has without it.
SCRAPE_WAIT_S: Final = 1.0

# What a readiness check waits for the journal's write lock and for a replay, each; and for how long its finding holds.
READY_WAIT_S: Final = 0.5
READY_HOLDS_US: Final = SECOND_US


# Makes the answer to a recording out of what it came to: it is kept under the idempotency key, with the record.
MakeAnswer = Callable[[Recorded], bytes]


class Reply(NamedTuple):
    body: bytes
    replayed: bool


class Service:
    """Opens its journal with the first use or `start()`, in the process that uses it: never before a fork.

    open_journal: called once. clock_us: this machine's, microseconds since 1970 UTC. background: keep house in threads
    of its own, once a second; without them, `keep_house()` is the caller's (tests).
    """

    def __init__(
        self,
        settings: Settings,
        open_journal: Callable[[], Journal],
        clock_us: Callable[[], int],
        *,
        background: bool = True,
    ) -> None:
        self.settings = settings
        self.retention = settings.retention()
        self.metrics = Metrics()
        # Housekeeping begins with the journal where nobody calls `start`: under other servers than ours.
        self._follower = Follower(settings, open_journal, clock_us, self.metrics, lambda: self._housekeeping.begin())
        self._housekeeping = Housekeeping(self._follower, self.metrics, background=background)
        self._admission = Admission(settings, self._follower)
        self._catalogue = Catalogue()
        self._clock_us = clock_us
        self._leaving = False
        self._checking = threading.Lock()
        self._checked_us: int | None = None
        self._not_ready: StatsError | None = None

    @property
    def max_events(self) -> int:
        return self._admission.max_events

    def share_memory(self, workers: int) -> None:
        """Set STATSAPI_MAX_EVENTS, where it is left to us, to what fits when that many processes hold all events."""
        self._admission.share_memory(workers)

    # -- from start to end

    def start(self) -> None:
        """Open the journal and begin the replay in the background. Safe to call twice.

        A journal that is not available now, or that cannot be used, is not waited for: it is tried again once a second
        and by each request, which gets the reason. The server has checked it before this worker was forked. So what is
        wrong now came later, and other workers may still answer: they must not end with this one.
        """
        self._housekeeping.begin()
        logger.info("at most %s raw events are held at one time (STATSAPI_MAX_EVENTS)", f"{self.max_events:,}")
        try:
            self.view()
        except JournalUnavailable as error:
            logger.warning("starting without the journal: %s", error)
        except JournalRefused as error:
            logger.error("starting without the journal: %s", error)  # noqa: TRY400 (the text says it all)

    def leave(self) -> None:
        """From now on this worker is not ready; what reaches it all the same is still served until `close`."""
        self._leaving = True

    def close(self) -> None:
        """Stop the background threads and flush and close the journal. Safe to call twice."""
        self.leave()
        self._housekeeping.stop()
        self._follower.stop()
        self._housekeeping.join()
        self._follower.close()

    def keep_house(self) -> None:
        """What the background threads do once a second, for a caller with a clock of its own."""
        self._housekeeping.keep_house()

    def view(self) -> View:
        """The view, with the journal opened by whoever comes first."""
        return self._follower.view()

    def now_us(self) -> int:
        """The engine's time; the last record's where that is a little ahead: what was recorded has happened."""
        return self._follower.now_us()

    def check_ready(self) -> None:
        """Raise what keeps this worker from recording and answering now: ShuttingDown, JournalUnavailable,
        JournalRefused or ViewNotReady.

        What was found holds for a second of the clock, so any number of checks costs the journal one look a second.
        """
        if self._leaving:
            raise ShuttingDown
        with self._checking:
            now_us = self._clock_us()
            if self._checked_us is None or not 0 <= now_us - self._checked_us < READY_HOLDS_US:
                self._not_ready = None
                try:
                    self.view().journal.check_writable(READY_WAIT_S)
                    self._follower.catch_up(READY_WAIT_S)
                except StatsError as error:
                    self._not_ready = error
                self._checked_us = now_us
            if self._not_ready is not None:
                raise self._not_ready.with_traceback(None)

    def notices(self) -> dict[str, Any]:
        """What /readyz tells beside that this worker is ready: a clock that jumped, records that were lost."""
        told: dict[str, Any] = {}
        if (clock := self._housekeeping.clock_notice()) is not None:
            told["clock"] = clock
        if (lost := self.metrics.last_lost()) is not None:
            records, since_us, noticed_us = lost
            told["lost"] = {
                "records": records,
                "since": None if since_us is None else format_nearest(since_us),
                "noticed": format_nearest(noticed_us),
            }
        return told

    # -- recording

    def find_answer(self, key: IdempotencyKey) -> Reply | None:
        """The first answer to this key, if there was one; to be asked before limits and the like are looked at."""
        body = self.view().journal.find_answer(key)
        return None if body is None else Reply(body, replayed=True)

    def accepted(self, *, reject_expired: bool = False, dedup: bool = False) -> Accepted:
        """Which timestamps may be recorded as of now. See `Admission.accepted`."""
        return self._admission.accepted(reject_expired=reject_expired, dedup=dedup)

    def record(
        self,
        batch: EventBatch,
        make_answer: MakeAnswer = lambda recorded: b"",
        *,
        key: IdempotencyKey | None = None,
        dedup: bool = False,
        reject_expired: bool = False,
    ) -> Reply:
        """Append the batch as one record; when this returns it is as durable as configured.

        With a key: once per key, and its first answer again for every retry. With `dedup` events that equal one held
        or one earlier in the batch (series, timestamp, value) are left out; that is decided under the journal's write
        lock, so it holds across workers. With `reject_expired` none may be older than everything kept (with `dedup`:
        than the raw events). Raises InvalidRequest and StoreFull (nothing is recorded then), IdempotencyConflict and
        JournalUnavailable.
        """
        admission = self._admission
        admission.refuse_far_future(batch)
        admission.refuse_too_many_series(batch)
        proposal: Proposal | Decide
        counted = NONE
        duplicates = 0
        if dedup:
            self._catch_up_before_deciding()

            def proposal() -> Proposal:
                nonlocal counted, duplicates
                fresh, counted, recorded = admission.without_duplicates(batch, reject_expired=reject_expired)
                duplicates = recorded.duplicates
                return Proposal(fresh if fresh.parts else None, make_answer(recorded))

        else:
            store = self.view().last_caught_up()
            bounds = admission.bounds(store)
            counted = bounds.tally([batch.ts_us])
            recent, older, expired, ahead = counted
            if expired and reject_expired:
                admission.refuse_expired(bounds, counted)
            stored = recent + older + ahead
            admission.refuse_too_many_events(
                store, stored if not expired else admission.count_kept(bounds.now_us, batch)
            )
            proposal = Proposal(batch if stored or expired else None, make_answer(Recorded(bounds, counted, stored)))
        began_s = time.perf_counter()
        appended = self.view().journal.append(proposal, key=key)
        if appended.replayed:
            self._follower.recorded(0)
        else:
            self.metrics.recorded(counted, duplicates, time.perf_counter() - began_s)
            self._follower.recorded(sum(counted))
        return Reply(appended.answer or b"", appended.replayed)

    def foresee(self, batch: EventBatch, *, dedup: bool = False, reject_expired: bool = False) -> Recorded:
        """What recording the batch would come to as of now, without recording it. Raises what `record` raises for what
        the batch is and for the limits.
        """
        admission = self._admission
        admission.refuse_far_future(batch)
        admission.refuse_too_many_series(batch)
        if dedup:
            self._catch_up_before_deciding()
            return admission.without_duplicates(batch, reject_expired=reject_expired)[2]
        store = self.view().last_caught_up()
        bounds = admission.bounds(store)
        placed = bounds.tally([part.ts_us for part in batch.parts])
        if placed.expired and reject_expired:
            admission.refuse_expired(bounds, placed)
        admission.refuse_too_many_events(store, admission.count_kept(bounds.now_us, batch))
        return Recorded(bounds, placed, sum(placed) - placed.expired)

    def delete(self, series: str, span: Span) -> int:
        """Forget the series' events in the span, everywhere; how many of those held that were.

        The edges are whole minutes; InvalidRequest names the nearest ones otherwise. A record like any other: events
        recorded later count, also in that span.
        """
        edges = (("start", span.start_us), ("end", MAX_TS_US + 1 if span.end_us is None else span.end_us))
        deleted = 0

        def decide() -> Proposal:
            nonlocal deleted
            view = self.view()
            store = view.catch_up(wait_s=DECIDE_WAIT_S)
            now_us = view.now_us(store)
            # Not by a clock that is behind the others', which may have merged minutes into hours by now.
            self._admission.refuse_cut_rollups(store, edges, max(now_us, store.appended_us))
            kept_from_us = self._admission.settled_from_us(now_us)
            deleted = store.count(series, span._replace(start_us=max(span.start_us, kept_from_us)))
            return Proposal(Deletion(series, *(edge_us for _, edge_us in edges)))

        self._catch_up_before_deciding()
        self.view().journal.append(decide)
        return deleted

    def _catch_up_before_deciding(self) -> None:
        """So that only what was recorded since is caught up with under the write lock: a replay there would stop every
        other writer.
        """
        self.view().catch_up(wait_s=READ_WAIT_S)

    # -- asking

    def ask(self) -> Reading:
        """Everything acknowledged before this call, at this moment: for one request, not to be kept.

        Raises ViewNotReady while a replay takes longer than READ_WAIT_S, and JournalUnavailable. While a Redis journal
        is away, and STATSAPI_STALE_READS=serve, it is of the state when last level: its `stale_s` tells how old.
        """
        store, stale_s = self._follower.catch_up_or_stale()
        return Reading(store, self.view().now_us(store), self.settings, self._catalogue, stale_s)

    def expose_metrics(self, accept: str) -> tuple[bytes, str]:
        """All workers' counts and the caught-up state, and their media type. Without journal or view the counts alone.

        O(series + chunks): 0.7 ms for a million events of one series, 0.14 s for 100,000 series.
        """
        try:
            store = self._follower.catch_up(SCRAPE_WAIT_S)
            journal = self.view().journal
            reading = Reading(store, self.view().now_us(store), self.settings, self._catalogue)
            state = view_state(reading, self.settings, journal.size_bytes(), journal.clock_skew_us)
        except StatsError:  # that is for a scrape to show, not to fail by
            state = None
        return expose(self.metrics, state, self._follower.monotonic_us(), accept)
