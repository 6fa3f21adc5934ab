"""Which time to trust. A question goes by the engine's clock. A step that cannot be undone goes by the part of that
clock's time that has stood.

A clock jumps: a virtual machine is resumed, a board has no battery, a time server answers wrongly once. The monotonic
clock does not jump, but it gives no date. So the *offset* between the two is watched. The time that has **stood** is
the monotonic clock plus the smallest offset of the last ten minutes:

    offset      ────────┐  ┌──────       ────────┐                    ┌──────────
    of clock            └──┘                     │                    │
                   ahead for a moment            └── behind ──────────┘
    stood       ─────────────────────────────────┐                            ┌──
                    lags by nothing              └────────────────────────────┘  ten minutes later

While the clock runs steadily, the time that has stood lags by nothing. A forward step that is taken back costs nothing,
and one that stays is believed after ten minutes. A step back is followed at once. At a start no time has stood yet,
unless there are earlier samples from another worker or a predecessor: all processes of a machine share one monotonic
clock.

CLOCK_MONOTONIC stops while the machine is suspended, so a resume looks like a step forward. That is safe: lagging
behind changes no answer. With CLOCK_BOOTTIME, a wrong time after a resume would count as one that has stood.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from statsapi.durations import spell_duration
from statsapi.model import MIN_TS_US, MINUTE_US, SECOND_US

logger = logging.getLogger("statsapi")

SETTLE_US: Final = 10 * MINUTE_US

# How often a steady clock is sampled, and how far it may move before it is sampled at once. Reading this machine's
# clock takes up to a few ms when the machine is busy; reading a server's clock takes a network round trip more.
SAMPLE_EVERY_US: Final = SECOND_US
SAMPLE_MOVED_US: Final = 50_000

# From this size on a step is logged. A time daemon makes smaller ones.
STEP_US: Final = SECOND_US

# A journal read returns the engine's time at some moment during the read, so the offset is as uncertain as the read is
# long. A long read (of a large journal, at a start) is not used as a sample: one made an untouched clock look a second
# behind. Where every read is long, one is used after a minute, as it is better than none.
VAGUE_US: Final = STEP_US // 2
VAGUE_FOR_US: Final = MINUTE_US

# How long the last step is reported.
TOLD_FOR_US: Final = 24 * 60 * MINUTE_US


class Sample(NamedTuple):
    """The engine's clock minus the monotonic clock, and the monotonic time at which that was seen."""

    monotonic_us: int
    offset_us: int


class Step(NamedTuple):
    """The last jump of the engine's clock: its size (negative: back), and the clock's time after it."""

    by_us: int
    to_us: int
    monotonic_us: int


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class SettledClock:
    """Follows the engine's clock by the times that journal reads return. Any thread may call.

    clock_us: this machine's clock. A test's clock may have its own `monotonic_us`, and `earlier` samples.
    share: called with each sample that is kept.
    """

    def __init__(
        self,
        clock_us: Callable[[], int],
        earlier: Iterable[Sample] = (),
        share: Callable[[Sample], None] = lambda sample: None,
    ) -> None:
        self.monotonic_us: Callable[[], int] = getattr(clock_us, "monotonic_us", monotonic_us)
        self._share = share
        self.observe_step: Callable[[], None] = lambda: None
        """Called when the engine's clock jumped by STEP_US or more."""
        self._lock = threading.Lock()
        self._samples = deque(sorted((*earlier, *getattr(clock_us, "earlier", ()))))
        # Kept apart from the samples, for readers without the lock.
        self._offset_us: int | None = None
        self._last_sample = Sample(0, 0)
        self._last_high_us: int | None = None  # the largest offset that the last sample allows; None before the first
        self._began_us: int | None = None
        self._stood_offset_us: int | None = None
        self._step: Step | None = None
        self._unbelieved_us = 0

    def observe(self, now_us: int, asked_us: int | None = None) -> None:
        """The engine's clock said `now_us` at some moment between `asked_us`, by `monotonic_us`, and now.

        asked_us: None where it is the engine's time right now. Costs 0.4 µs, and once a second a few µs more.
        """
        at_us = self.monotonic_us()
        offset_us = now_us - at_us
        vague_us = 0 if asked_us is None else at_us - asked_us
        last_us, last_offset_us = self._last_sample
        if vague_us > VAGUE_US and self._is_no_sample(at_us, offset_us, vague_us):
            if self._last_high_us is None:  # better than none, for questions that come before the first sample
                self._offset_us = offset_us
            return
        self._offset_us = offset_us
        if (
            self._last_high_us is None
            or at_us - last_us >= SAMPLE_EVERY_US
            or not -SAMPLE_MOVED_US < offset_us - last_offset_us < SAMPLE_MOVED_US
        ):
            self._keep(Sample(at_us, offset_us), offset_us + vague_us)

    def _is_no_sample(self, at_us: int, offset_us: int, vague_us: int) -> bool:
        """Whether a long read can be ignored: it agrees with the last sample, which is less than VAGUE_FOR_US old."""
        if self._began_us is None:
            self._began_us = at_us
        high_us = self._last_high_us
        agrees = high_us is None or (offset_us <= high_us and self._last_sample.offset_us <= offset_us + vague_us)
        return agrees and at_us - max(self._began_us, self._last_sample.monotonic_us) < VAGUE_FOR_US

    def engine_us(self) -> int | None:
        """The engine's time now, extrapolated from the last observation; None before the first."""
        offset_us = self._offset_us
        return None if offset_us is None else self.monotonic_us() + offset_us

    def settled_us(self) -> int:
        """The time that has stood; MIN_TS_US while none has."""
        offset_us = self._stood_offset_us
        return MIN_TS_US if offset_us is None else self.monotonic_us() + offset_us

    @property
    def settled(self) -> bool:
        """Whether the engine's clock has stood, give or take less than STEP_US."""
        return self._stood_offset_us is not None and self._unbelieved_us < STEP_US

    @property
    def unbelieved_us(self) -> int:
        """How far the engine's clock is ahead of the time that has stood; 0 while none has."""
        return self._unbelieved_us

    def last_step(self) -> Step | None:
        """The last step, for TOLD_FOR_US after it; then None."""
        step = self._step
        return step if step is not None and self.monotonic_us() - step.monotonic_us < TOLD_FOR_US else None

    def _keep(self, sample: Sample, high_us: int) -> None:
        """Keep a sample. `high_us`: the largest offset that its read allows; `sample.offset_us` is the smallest."""
        with self._lock:
            samples = self._samples
            before_us, before_high_us = self._last_sample.offset_us, self._last_high_us
            self._last_high_us = high_us
            if samples and sample.monotonic_us < samples[-1].monotonic_us:  # another thread was faster
                sample = sample._replace(monotonic_us=samples[-1].monotonic_us)
            self._last_sample = sample
            samples.append(sample)
            from_us = sample.monotonic_us - SETTLE_US
            while len(samples) > 1 and samples[1].monotonic_us <= from_us:
                samples.popleft()
            stood = samples[0].monotonic_us <= from_us
            was_stood, was_unbelieved_us = self._stood_offset_us is not None, self._unbelieved_us
            self._stood_offset_us = min(each.offset_us for each in samples) if stood else None
            self._unbelieved_us = 0 if self._stood_offset_us is None else sample.offset_us - self._stood_offset_us
            by_us = 0
            if before_high_us is not None:  # the smallest step that explains both samples
                by_us = max(0, sample.offset_us - before_high_us) + min(0, high_us - before_us)
            if abs(by_us) >= STEP_US:
                self._step = Step(by_us, sample.monotonic_us + sample.offset_us, sample.monotonic_us)
            believed = was_stood and was_unbelieved_us >= STEP_US > self._unbelieved_us and by_us > -STEP_US
        self._share(sample)
        if abs(by_us) >= STEP_US:
            self.observe_step()
        if by_us >= STEP_US:
            logger.warning(
                "The clock went forward by %s: questions follow it at once; expiry, folding and forgetting wait until "
                "it has stood for ten minutes",
                spell_duration(by_us),
            )
        elif by_us <= -STEP_US:
            logger.warning(
                "The clock went back by %s: questions follow it; nothing is lost by that", spell_duration(-by_us)
            )
        elif believed:
            logger.warning(
                "The clock has stood for ten minutes since it went forward by %s, and is believed now: events beyond "
                "the retention expire",
                spell_duration(was_unbelieved_us),
            )
