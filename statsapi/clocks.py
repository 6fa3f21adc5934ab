"""Which time to trust: the engine's clock for what a question covers, and only what of it has stood for what cannot be
undone.

A clock jumps: a virtual machine is resumed, a board has no battery, a time server answers wrongly once. The monotonic
clock does not, but it says no date. So the *offset* between the two is watched. The time that has **stood** is the
monotonic clock plus the smallest offset of the last ten minutes:

    offset      ────────┐  ┌──────       ────────┐                    ┌──────────
    of clock            └──┘                     │                    │
                   ahead for a moment            └── behind ──────────┘
    stood       ─────────────────────────────────┐                            ┌──
                    lags by nothing              └────────────────────────────┘  ten minutes later

While it runs steadily it lags by nothing, a forward step that is taken back costs nothing, and one that stays is
believed after ten minutes. A step back is followed at once. A start begins with nothing that has stood; samples of
before (another worker's, a predecessor's) count, as all processes of a machine have one monotonic clock.

CLOCK_MONOTONIC stands still while the machine is suspended, so a resume looks like a step forward, which is safe:
lagging behind changes no answer. CLOCK_BOOTTIME would take a wrong time after a resume for one that has stood.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from statsapi.model import MIN_TS_US, MINUTE_US, SECOND_US
from statsapi.times import spell_duration

logger = logging.getLogger("statsapi")

SETTLE_US: Final = 10 * MINUTE_US

# How often a steady clock is noted, and by how much it may move before it is noted at once. Reading a clock takes up to
# a few ms on a busy machine, a server's over the network some more.
SAMPLE_EVERY_US: Final = SECOND_US
SAMPLE_MOVED_US: Final = 50_000

# A step that is worth a line in the log. Less is what a time daemon does.
STEP_US: Final = SECOND_US

# What a reading brings is the engine's time of some moment of it, so the offset is known as well as the reading was
# short. A long one (of a large journal, at a start) is no sample: it took a clock that nobody had touched for one that
# was behind by a second. Unless all are long: after a minute any is better than none.
VAGUE_US: Final = STEP_US // 2
VAGUE_FOR_US: Final = MINUTE_US

# How long the last step is told of after it was believed or taken back.
TOLD_FOR_US: Final = 24 * 60 * MINUTE_US


class Sample(NamedTuple):
    """What the engine's clock said beyond the monotonic one, and when, by the latter."""

    monotonic_us: int
    offset_us: int


class Step(NamedTuple):
    """The last jump of the engine's clock: by how much, forward or back (negative), and what it said after it."""

    by_us: int
    to_us: int
    monotonic_us: int


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class SettledClock:
    """Follows the engine's clock by what readers are told of it. Any thread may call.

    clock_us: this machine's clock; one of a test may have a `monotonic_us` of its own, and `earlier` samples.
    share: is told each sample that is kept.
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
        # Apart from the samples, for those who look without the lock.
        self._offset_us: int | None = None
        self._noted = Sample(0, 0)
        self._noted_high_us: int | None = None  # the largest offset that the notes allow; None before the first
        self._began_us: int | None = None
        self._stood_offset_us: int | None = None
        self._step: Step | None = None
        self._unbelieved_us = 0

    def observe(self, now_us: int, asked_us: int | None = None) -> None:
        """The engine said `now_us` at some moment since `asked_us` of `monotonic_us` (None: says it now). 0.4 µs,
        once a second a few more.
        """
        at_us = self.monotonic_us()
        offset_us = now_us - at_us
        vague_us = 0 if asked_us is None else at_us - asked_us
        noted_us, noted_offset_us = self._noted
        if vague_us > VAGUE_US and self._is_no_sample(at_us, offset_us, vague_us):
            if self._noted_high_us is None:  # better than none for who asks meanwhile
                self._offset_us = offset_us
            return
        self._offset_us = offset_us
        if (
            self._noted_high_us is None
            or at_us - noted_us >= SAMPLE_EVERY_US
            or not -SAMPLE_MOVED_US < offset_us - noted_offset_us < SAMPLE_MOVED_US
        ):
            self._note(Sample(at_us, offset_us), offset_us + vague_us)

    def _is_no_sample(self, at_us: int, offset_us: int, vague_us: int) -> bool:
        """Whether a long reading agrees with what is known, and tells nothing that a short one will not tell better."""
        if self._began_us is None:
            self._began_us = at_us
        high_us = self._noted_high_us
        agrees = high_us is None or (offset_us <= high_us and self._noted.offset_us <= offset_us + vague_us)
        return agrees and at_us - max(self._began_us, self._noted.monotonic_us) < VAGUE_FOR_US

    def engine_us(self) -> int | None:
        """What the engine's clock says by now, going by the last observation; None before the first."""
        offset_us = self._offset_us
        return None if offset_us is None else self.monotonic_us() + offset_us

    def settled_us(self) -> int:
        """The time that has stood; MIN_TS_US while none has."""
        offset_us = self._stood_offset_us
        return MIN_TS_US if offset_us is None else self.monotonic_us() + offset_us

    @property
    def settled(self) -> bool:
        """Whether what the engine's clock says has stood, but for what a step may be."""
        return self._stood_offset_us is not None and self._unbelieved_us < STEP_US

    @property
    def unbelieved_us(self) -> int:
        """How far the engine's clock is ahead of the time that has stood; 0 while none has."""
        return self._unbelieved_us

    def last_step(self) -> Step | None:
        """The last step, while it is news."""
        step = self._step
        return step if step is not None and self.monotonic_us() - step.monotonic_us < TOLD_FOR_US else None

    def _note(self, sample: Sample, high_us: int) -> None:
        """`high_us`: the largest offset that this reading allows, its own being the smallest."""
        with self._lock:
            samples = self._samples
            before_us, before_high_us = self._noted.offset_us, self._noted_high_us
            self._noted_high_us = high_us
            if samples and sample.monotonic_us < samples[-1].monotonic_us:  # another thread was faster
                sample = sample._replace(monotonic_us=samples[-1].monotonic_us)
            self._noted = sample
            samples.append(sample)
            from_us = sample.monotonic_us - SETTLE_US
            while len(samples) > 1 and samples[1].monotonic_us <= from_us:
                samples.popleft()
            stood = samples[0].monotonic_us <= from_us
            was_stood, was_unbelieved_us = self._stood_offset_us is not None, self._unbelieved_us
            self._stood_offset_us = min(each.offset_us for each in samples) if stood else None
            self._unbelieved_us = 0 if self._stood_offset_us is None else sample.offset_us - self._stood_offset_us
            by_us = 0
            if before_high_us is not None:  # by how much at least
                by_us = max(0, sample.offset_us - before_high_us) + min(0, high_us - before_us)
            if abs(by_us) >= STEP_US:
                self._step = Step(by_us, sample.monotonic_us + sample.offset_us, sample.monotonic_us)
            believed = was_stood and was_unbelieved_us >= STEP_US > self._unbelieved_us and by_us > -STEP_US
        self._share(sample)
        if abs(by_us) >= STEP_US:
            self.observe_step()
        if by_us >= STEP_US:
            logger.warning(
                "the clock went forward by %s: questions follow it; until it has stood for ten minutes nothing "
                "expires, is folded or forgotten by it",
                spell_duration(by_us),
            )
        elif by_us <= -STEP_US:
            logger.warning(
                "the clock went back by %s: questions follow it; nothing is lost by that", spell_duration(-by_us)
            )
        elif believed:
            logger.warning(
                "the clock has stood for ten minutes since it went forward by %s, and is believed: what is older than "
                "is kept expires",
                spell_duration(was_unbelieved_us),
            )
