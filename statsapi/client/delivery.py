"""The delivery of a backlog: batches in their order, each sent again and again until it is settled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from statsapi.client import lifecycle
from statsapi.client.attempt import Attempt
from statsapi.client.backlog import Backlog
from statsapi.client.errors import Conflict, Refused, Unavailable
from statsapi.client.http import Transport, pause_s
from statsapi.client.outbox import Batch
from statsapi.client.problems import Kind, Reporter

_TOLD_AFTER_S: Final = 30.0  # a shorter outage, such as a restart, is not reported
_LONGEST_PAUSE_S: Final = 30.0


class Backoff:
    """When to try again after failed attempts, and whether to report them: once in a row of failures. Caller holds the
    backlog's lock.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.reset()

    def reset(self) -> None:
        """An attempt settled its batch."""
        self.failures = 0  # in a row
        self.not_before_s = 0.0
        self._since_s = 0.0
        self._is_told = False

    def fail(self, now_s: float, asked_s: float | None, tell_after_s: float) -> bool:
        """Note a failed attempt, after which the service asked for a pause of `asked_s`. Returns whether to report it
        now: once attempts have failed for `tell_after_s`.
        """
        if not self.failures:
            self._since_s = now_s
        self.failures += 1
        self.not_before_s = now_s + pause_s(self.failures, asked_s, self._chance(), longest_s=_LONGEST_PAUSE_S)
        tell = not self._is_told and now_s - self._since_s >= tell_after_s
        self._is_told = self._is_told or tell
        return tell


class Delivery:
    """Sends the batches of a backlog, in a thread of its own or step by step. One thread at a time sends.

    It takes the backlog's lock to choose a batch and to settle it, and does not hold it while it sends or reports.
    Methods that need the lock held say so.
    """

    def __init__(
        self,
        transport: Transport,
        backlog: Backlog,
        reporter: Reporter,
        *,
        flush_s: float,
        key_lifetime_s: float,
        chance: Callable[[], float],
        background: bool,
    ) -> None:
        self._transport = transport
        self._backlog = backlog
        self._reporter = reporter
        self._flush_s = flush_s
        self._key_lifetime_us = round(key_lifetime_s * 1e6)
        self._background = background
        self._backoff = Backoff(chance)
        self.thread: threading.Thread | None = None

    def start_empty(self) -> None:
        """Begin anew in the child of a fork, where the thread does not run."""
        self._backoff.reset()
        self.thread = None

    @property
    def failures(self) -> int:
        """Failed attempts in a row. Caller holds the lock."""
        return self._backoff.failures

    def start(self) -> None:
        """Start the thread that sends, unless it runs. Caller holds the lock."""
        is_running = self.thread is not None and self.thread.is_alive()
        if self._background and not is_running and not self._backlog.is_closed:
            self.thread = threading.Thread(target=self._run, name="statsapi-sender", daemon=True)
            self.thread.start()
            lifecycle.close_at_the_end_of_this_process()

    def _run(self) -> None:
        while True:
            with self._backlog.changed:
                while True:
                    batch, wait_s = self._next()
                    if batch is not None:
                        break
                    if self._backlog.is_closed and (wait_s is None or self._backlog.is_late()):
                        return
                    self._backlog.changed.wait(wait_s)
                if self._backlog.is_late():
                    return
            self._attempt(batch)

    def step(self) -> float | None:
        """One step of the thread: make an attempt, or return the seconds until there is something to do (None: until
        something is recorded).
        """
        with self._backlog.changed:
            batch, wait_s = self._next()
        if batch is None:
            return wait_s
        self._attempt(batch)
        return 0.0

    def _next(self) -> tuple[Batch | None, float | None]:
        """The batch to send now, or the seconds without anything to do. Caller holds the lock."""
        box, now_s = self._backlog.outbox(), self._backlog.clock_s()
        if self._backlog.spool is not None and now_s >= self._backlog.adopt_at_s and not self._backlog.is_closed:
            self._backlog.adopt()
        due_s = None
        if box.head() is None and box.open_events():
            due_s = self._backlog.opened_s + self._flush_s
            if now_s >= due_s or self._backlog.is_closed:
                self._backlog.seal()
        if (head := box.head()) is not None:
            if now_s >= self._backoff.not_before_s:
                return head, 0.0
            due_s = self._backoff.not_before_s
        if self._backlog.is_closed:
            if due_s is not None and self._backlog.end_s is not None:
                due_s = min(due_s, self._backlog.end_s)
        elif self._backlog.spool is not None:
            due_s = self._backlog.adopt_at_s if due_s is None else min(due_s, self._backlog.adopt_at_s)
        return None, None if due_s is None else max(0.0, due_s - now_s)

    def _attempt(self, batch: Batch) -> None:
        """Send the batch once. After any error it is either settled or still there for the next attempt."""
        with self._backlog.changed:
            box = self._backlog.outbox()
        was_tried_us, now_us = batch.tried_us, self._backlog.now_us()
        if was_tried_us is not None and now_us - was_tried_us > self._key_lifetime_us:
            self._give_up(
                batch,
                "unsure",
                f"{batch.events} events were sent to {self._transport.url} without an answer, longer ago than the "
                "service remembers keys (key_lifetime_s): to send them again might count them twice",
            )
            return
        attempt = Attempt(self._transport, box, batch)
        try:
            box.begin(batch, now_us)
            attempt.send()
        except Conflict as error:
            if batch.damage:  # it had been recorded, whole, before it was damaged
                self._finish(batch, batch.events, 0)
                return
            self._give_up(batch, "unsure", f"{batch.events} events: {error}", error)
        except Refused as error:
            self._forget_attempt(batch, attempt)
            if error.status == 413 and attempt.was_tried:
                self._give_up(
                    batch,
                    "unsure",
                    f"{batch.events} events were sent without an answer, all or in part, and are too large for the "
                    f"service now: in smaller pieces they might count twice ({error})",
                    error,
                )
            elif error.status == 422 and error.problem:
                self._give_up(batch, "refused", f"{batch.events} events were refused: {error}", error)
            else:  # a wrong key, path or proxy says nothing about the events
                self._wait(str(error), None, tell_after_s=0.0)
        except Unavailable as error:
            if error.outcome == "not recorded":
                self._forget_attempt(batch, attempt)
            self._wait(str(error), error.retry_after_s, tell_after_s=_TOLD_AFTER_S)
        except Exception as error:  # noqa: BLE001 - the thread must go on: an unreadable disk, a fault of ours
            self._wait(f"{type(error).__name__}: {error}", None, tell_after_s=0.0)
        else:
            refused = attempt.refused
            if attempt.rejected:
                with self._backlog.changed:
                    box.keep_refused(batch, refused)
                first = f", the first: {refused[0]['field']}: {refused[0]['reason']}" if refused else ""
                told = f"{attempt.rejected} of {batch.events} events were refused{first}"
                self._reporter.tell("refused", attempt.rejected, told, refused)
            self._finish(batch, attempt.sent, attempt.rejected, attempt.expired)

    def _forget_attempt(self, batch: Batch, attempt: Attempt) -> None:
        """Note that nothing was recorded, unless a piece was sent or an earlier attempt is in doubt."""
        if not attempt.was_tried and not attempt.sent:
            with self._backlog.changed:
                self._backlog.outbox().clear(batch)

    def _finish(self, batch: Batch, sent: int, refused: int, expired: int = 0) -> None:
        with self._backlog.changed:
            self._backlog.outbox().finish(batch)
            self._backlog.totals.sent += sent
            self._backlog.totals.expired += expired
            self._backlog.totals.refused += refused
            self._backoff.reset()
            self._backlog.settle(batch.events)

    def _give_up(self, batch: Batch, kind: Kind, message: str, error: Refused | None = None) -> None:
        with self._backlog.changed:
            self._backlog.outbox().set_aside(batch, {"why": message, "problem": error.problem if error else None})
            setattr(self._backlog.totals, kind, getattr(self._backlog.totals, kind) + batch.events)
            self._backoff.reset()
            self._backlog.settle(batch.events)
        self._reporter.tell(kind, batch.events, message)

    def _wait(self, message: str, asked_s: float | None, *, tell_after_s: float) -> None:
        """Note that the attempt failed. The next one comes after a pause."""
        with self._backlog.changed:
            tell = self._backoff.fail(self._backlog.clock_s(), asked_s, tell_after_s)
            self._backlog.last_error = message
            pending = self._backlog.pending
        if tell:
            self._reporter.tell("unavailable", pending, f"{pending} events wait for the service: {message}")
