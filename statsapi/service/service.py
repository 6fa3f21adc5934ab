"""The service's operations as sequences of steps: record, delete, ask. It knows no HTTP, and of a journal only what
every engine promises.

Recording only appends to the journal. Reading first catches the view up with the journal, then asks the view. So the
answer holds everything that any worker acknowledged before the question. Clocks decide which part of the state a
question covers. Only records change the state. A step that cannot be undone goes by the time that has stood
(clocks.py).
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
from statsapi.service.admission import Accepted, Admission, Recorded, max_events_told
from statsapi.service.following import DECIDE_WAIT_S, READ_WAIT_S, Follower
from statsapi.service.housekeeping import Housekeeping
from statsapi.service.reading import Reading
from statsapi.service.scrape import view_state
from statsapi.service.view import View
from statsapi.times import format_nearest

logger = logging.getLogger("statsapi")

# How long a scrape waits for a replay; after that it shows the counters alone.
SCRAPE_WAIT_S: Final = 1.0

# How long a readiness check waits for the journal's write lock, and then for a replay; and for how long its result is
# used again.
READY_WAIT_S: Final = 0.5
READY_HOLDS_US: Final = SECOND_US


# Makes the answer to a recording from its outcome. The idempotency key keeps this answer, with the record.
MakeAnswer = Callable[[Recorded], bytes]


class Reply(NamedTuple):
    """events: how many this request appended."""

    body: bytes
    replayed: bool
    events: int = 0


class Service:
    """Opens its journal at the first use or at `start()`, in the process that uses it, so never before a fork.

    open_journal: called once. clock_us: this machine's clock, in microseconds since 1970 UTC. background: do
    housekeeping in threads, once a second; without them the caller calls `keep_house()` (tests).
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
        # Under other servers nothing calls `start`: there housekeeping begins when the journal is opened.
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
        """Unless STATSAPI_MAX_EVENTS is set, allow as many events as fit when this many processes hold all of them."""
        self._admission.share_memory(workers)

    # -- from start to end

    def start(self, said: str = "", max_events_said: int = 0) -> None:
        """Open the journal and begin the replay in the background. Safe to call twice.

        said, max_events_said: the journal's promise and the limit on events, where the server has logged them already.
        Then they are not logged again for each worker.

        It does not wait for a journal that is unavailable or unusable. The journal is tried again once a second and by
        each request, which gets the reason. The server checked the journal before it forked this worker. So a fault
        came later, and other workers may still answer: they must not end with this one.
        """
        self._follower.promise_said = said
        self._housekeeping.begin()
        if self.max_events != max_events_said:
            logger.info("%s", max_events_told(self.max_events))
        try:
            self.view()
        except JournalUnavailable as error:
            logger.warning("Starting without the journal: %s", error)
        except JournalRefused as error:
            logger.error("Starting without the journal: %s", error)  # noqa: TRY400 (the text is enough)

    def has_begun(self) -> bool:
        """Whether the replay of the start has ended or failed: no request waits for it any more."""
        return self._follower.has_followed

    def leave(self) -> None:
        """Report this worker as not ready from now on. It still serves requests until `close`."""
        self._leaving = True

    def close(self) -> None:
        """Stop the background threads and flush and close the journal. Safe to call twice."""
        self.leave()
        self._housekeeping.stop()
        self._follower.stop()
        self._housekeeping.join()
        self._follower.close()

    def keep_house(self) -> None:
        """The background threads' work of one second, for a caller with its own clock."""
        self._housekeeping.keep_house()

    def view(self) -> View:
        """The view; the first caller opens the journal."""
        return self._follower.view()

    def now_us(self) -> int:
        """The engine's time; the last record's time where that is a little ahead, as a recorded event has happened."""
        return self._follower.now_us()

    def check_ready(self) -> None:
        """Raise the reason why this worker cannot record and answer now: ShuttingDown, JournalUnavailable,
        JournalRefused or ViewNotReady.

        The result is used for a second, so any number of checks costs the journal one access a second.
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
        """The notices that /readyz adds while this worker is ready: a clock that jumped, records that were lost."""
        told: dict[str, Any] = {}
        if (clock := self._housekeeping.clock_notice()) is not None:
            told["clock"] = clock
        if (lost := self.metrics.last_lost()) is not None:
            records, since_us, all_gone, noticed_us = lost
            told["lost"] = {
                "records": records,
                "since": None if since_us is None else format_nearest(since_us),
                "noticed": format_nearest(noticed_us),
            } | ({"all": True} if all_gone else {})
        return told

    # -- recording

    def find_answer(self, key: IdempotencyKey) -> Reply | None:
        """The first answer to this key, or None. Call it before limits and the body are checked."""
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
            events = 0
        else:
            events = sum(counted)
            self.metrics.recorded(counted, duplicates, time.perf_counter() - began_s)
        self._follower.recorded(events)
        return Reply(appended.answer or b"", appended.replayed, events)

    def keep_pace(self, reply: Reply) -> None:
        """Apply what was recorded, if that is much. To be called after `record`, when the batch and its body are gone:
        they and what they become would otherwise take memory at the same time.
        """
        self._follower.keep_pace(reply.events)

    def foresee(self, batch: EventBatch, *, dedup: bool = False, reject_expired: bool = False) -> Recorded:
        """The outcome of recording the batch now, without recording it. Raises as `record` does for an invalid batch
        and for the limits.
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
        """Delete the series' events in the span, on every worker. Returns how many of the events held were deleted.

        The edges must be whole minutes; otherwise InvalidRequest names the nearest ones. A deletion is a record like
        any other: events recorded later count, even in that span.
        """
        edges = (("start", span.start_us), ("end", MAX_TS_US + 1 if span.end_us is None else span.end_us))
        deleted = 0

        def decide() -> Proposal:
            nonlocal deleted
            view = self.view()
            store = view.catch_up(wait_s=DECIDE_WAIT_S)
            now_us = view.now_us(store)
            # The later of the two times: other workers' clocks may be ahead, and have merged minutes into hours.
            self._admission.refuse_cut_rollups(store, edges, max(now_us, store.appended_us))
            kept_from_us = self._admission.settled_from_us(now_us)
            deleted = store.count(series, span._replace(start_us=max(span.start_us, kept_from_us)))
            return Proposal(Deletion(series, *(edge_us for _, edge_us in edges)))

        self._catch_up_before_deciding()
        self.view().journal.append(decide)
        return deleted

    def _catch_up_before_deciding(self) -> None:
        """Catch up without the write lock first, so that little is left to do under it: a replay there would stop every
        other writer.
        """
        self.view().catch_up(wait_s=READ_WAIT_S)

    # -- asking

    def ask(self) -> Reading:
        """A reading with everything acknowledged before this call. It is for one request; do not keep it.

        Raises ViewNotReady while a replay takes longer than READ_WAIT_S, and JournalUnavailable. While a remote journal
        is away, with STATSAPI_STALE_READS=serve, it holds the state when last level, and `stale_s` says how old it is.
        """
        store, stale_s = self._follower.catch_up_or_stale()
        return Reading(store, self.view().now_us(store), self.settings, self._catalogue, stale_s)

    def expose_metrics(self, accept: str) -> tuple[bytes, str]:
        """All workers' counters and the caught-up state, and the media type. Without a view the counters alone.

        O(series + chunks): 0.7 ms for a million events of one series, 0.14 s for 100,000 series.
        """
        try:
            store = self._follower.catch_up(SCRAPE_WAIT_S)
            journal = self.view().journal
            reading = Reading(store, self.view().now_us(store), self.settings, self._catalogue)
            state = view_state(reading, self.settings, journal.size_bytes(), journal.clock_skew_us)
        except StatsError:  # the scrape shows it (statsapi_view_ready) and does not fail
            state = None
        return expose(self.metrics, state, self._follower.monotonic_us(), accept)
