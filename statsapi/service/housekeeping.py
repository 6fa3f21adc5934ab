"""Housekeeping: the journal's upkeep, folding, expiry, compaction. Every worker does it.

The clock and the journal alone decide what is due. A step that cannot be undone goes by the time that has stood.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from statsapi.clocks import STEP_US, SettledClock, Step
from statsapi.engine.store import Store
from statsapi.errors import JournalRefused, ShuttingDown, StatsError
from statsapi.journal import CLOCKS_DIFFER_US, Proposal
from statsapi.metrics import Metrics
from statsapi.model import MIN_TS_US, MINUTE_US, SECOND_US, EventBatch, floor_us
from statsapi.service.following import DECIDE_WAIT_S, Follower
from statsapi.service.sharing import LOOK_S
from statsapi.service.view import View
from statsapi.times import format_nearest

logger = logging.getLogger("statsapi")

HOUSEKEEPING_INTERVAL_S: Final = 1.0
COMPACT_WITHIN_US: Final = 30 * SECOND_US


class Housekeeping:
    """In threads of its own from `begin()` to `stop()`, or by `keep_house()` alone (`background` false: tests)."""

    def __init__(self, follower: Follower, metrics: Metrics, *, background: bool) -> None:
        self._follower = follower
        self._metrics = metrics
        self._background = background
        self._beginning = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._said: dict[str, str] = {}  # by thread, for as long as it fails
        self._said_ahead = False
        self._tidied_minute_us: int | None = None
        self._compacted_minute_us: int | None = None
        # Each worker has its own moment in the minute: the first one compacts, and the others find it done.
        self._compact_after_us = secrets.randbelow(COMPACT_WITHIN_US) if background else 0

    def begin(self) -> None:
        """Start the threads, unless they run already or were stopped."""
        with self._beginning:
            if not self._background or self._threads or self._stopping.is_set():
                return
            # Separate threads: a replay or a compaction may take long, and the upkeep that limits the loss at a power
            # cut must not wait for it.
            for act, interval_s in (
                (self._maintain_journal, HOUSEKEEPING_INTERVAL_S),
                (self._tidy, HOUSEKEEPING_INTERVAL_S),
                (self._follower.share, LOOK_S),
                (self._follower.follow, 0.0),  # paces itself
            ):
                thread = threading.Thread(target=self._repeat, args=(act, interval_s), name=act.__name__, daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self) -> None:
        """Ask the threads to end, which they do within a second; `join` waits for it."""
        self._stopping.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def keep_house(self) -> None:
        """Let the journal do its upkeep, catch up, and fold what is due; once a minute also compact."""
        self._maintain_journal()
        self._tidy()

    def clock_notice(self) -> dict[str, Any] | None:
        """The member `clock` of /readyz: the clock jumped, or the last record is ahead of it; None for neither."""
        view = self._follower.opened()
        if view is not None and (step := view.clock.last_step()) is not None:
            return _describe_step(step, view.clock)
        if view is not None and view.clock.unbelieved_us >= STEP_US:  # the step came before this worker started
            return _describe_clock(view.clock)
        return {"last_record_ahead": True} if view is not None and self._said_ahead else None

    def _maintain_journal(self) -> None:
        self._follower.view().journal.maintain()

    def _tidy(self) -> None:
        view = self._follower.view()
        store = self._follower.catch_up(None)
        self._note_clock(view, store)
        settled_us = view.settled_us()
        if settled_us == MIN_TS_US:
            return
        minute_us = floor_us(settled_us, MINUTE_US)
        if minute_us != self._tidied_minute_us:  # the horizon moves by whole minutes
            if settled_us - store.appended_us >= MINUTE_US and store.holds_expired(settled_us):
                self._tick(settled_us)
                store = view.catch_up()
            self._tidied_minute_us = minute_us
        store.settle(settled_us)
        store.expire()  # each time, as late events may have arrived for a folded minute
        if minute_us != self._compacted_minute_us and settled_us - minute_us >= self._compact_after_us:
            self._compacted_minute_us = minute_us  # set before a failure: damage need not be read each second
            view.compact()

    def _note_clock(self, view: View, store: Store) -> None:
        """Set the clock's metrics, and log where the clock and the last record are too far apart."""
        self._metrics.clock(view.clock.settled, view.clock.unbelieved_us)
        engine_us = view.clock.engine_us()
        ahead = engine_us is not None and store.appended_us - engine_us > CLOCKS_DIFFER_US
        if ahead and not self._said_ahead:
            logger.warning(
                "The last record was stamped %s, which is in the future: its clock was wrong, or this one is. "
                "Questions go by the present clock; nothing is lost",
                format_nearest(store.appended_us),
            )
        self._said_ahead = ahead

    def _tick(self, settled_us: int) -> None:
        """Append an empty record where no others come in: only records move the horizon of every view."""

        def unless_another_did() -> Proposal:
            store = self._follower.view().catch_up(wait_s=DECIDE_WAIT_S)
            return Proposal(EventBatch(()) if settled_us - store.appended_us >= MINUTE_US else None)

        self._follower.view().journal.append(unless_another_did)

    def _repeat(self, act: Callable[[], None], interval_s: float) -> None:
        name = act.__name__
        while True:
            started_s = time.monotonic()
            wait_s = interval_s
            try:
                act()
                self._said.pop(name, None)
            except ShuttingDown:
                return
            except StatsError as error:
                if str(error) not in self._said.values():  # once, not each second for as long as it lasts
                    refused = isinstance(error, JournalRefused)  # a person has to repair it
                    level = logging.ERROR if refused else logging.WARNING
                    logger.log(level, "Housekeeping waits for the journal: %s", error)
                self._said[name] = str(error)
            except Exception:
                # Logged with its traceback and tried again: without this thread nothing would expire.
                logger.exception("Housekeeping failed")
                wait_s = HOUSEKEEPING_INTERVAL_S
            if self._stopping.wait(max(0.0, started_s + wait_s - time.monotonic())):
                return


def _describe_step(step: Step, clock: SettledClock) -> dict[str, Any]:
    return {
        "jumped_seconds": step.by_us / SECOND_US,
        "at": format_nearest(step.to_us),
        **_describe_clock(clock),
    }


def _describe_clock(clock: SettledClock) -> dict[str, Any]:
    return {"ahead_seconds": clock.unbelieved_us / SECOND_US, "settled": clock.settled}
