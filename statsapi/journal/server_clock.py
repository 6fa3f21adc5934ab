"""The clock of a server that keeps a journal (Redis, PostgreSQL), as it is known between two answers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("statsapi")

# How often this machine's clock is compared with the server's, and the difference from which on it is logged.
SKEW_INTERVAL_S: Final = 1.0
SKEW_WARNS_US: Final = 1_000_000


class ServerClock:
    """The server's clock, estimated between its answers, and the difference to this machine's.

    Any thread may call. `skew_us` is this machine's clock minus the server's, None before the first answer.
    """

    def __init__(self, server: str, machine_clock_us: Callable[[], int]) -> None:
        self._server = server
        self._machine_clock_us = machine_clock_us
        self._told: tuple[int, float] = (0, 0.0)
        self._measured_s = -math.inf
        self._warned_us = 0
        self.skew_us: int | None = None

    def set(self, server_us: int, now_s: float) -> None:
        """The server's clock was `server_us` at `now_s` of time.monotonic, or a little earlier."""
        self._told = (server_us, now_s)

    def at(self, now_s: float) -> int:
        """The server's clock at that time, or a little less, unless somebody has moved it since."""
        server_us, told_s = self._told
        return server_us + int(1e6 * (now_s - told_s))

    def now_us(self) -> int:
        return self.at(time.monotonic())

    def asked(self) -> tuple[float, int]:
        """Take this before a call that brings the server's time, and give it to `answered` after the call."""
        return time.monotonic(), self._machine_clock_us()

    def answered(self, asked: tuple[float, int], server_us: int) -> None:
        """Take the server's time. Once a second measure the skew at the middle of the round trip; log a large one."""
        now_s = time.monotonic()
        self._told = (server_us, now_s)
        if now_s - self._measured_s < SKEW_INTERVAL_S:
            return
        self._measured_s = now_s
        half_us = int(5e5 * (now_s - asked[0]))
        skew_us = asked[1] + half_us - server_us
        if half_us > SKEW_WARNS_US:  # the round trip was too slow to measure
            return
        self.skew_us = skew_us
        if abs(skew_us) - half_us > SKEW_WARNS_US:
            if abs(skew_us - self._warned_us) > max(SKEW_WARNS_US, abs(skew_us) // 10):
                self._warned_us = skew_us
                logger.warning(
                    "The clock of this machine is %.1f s %s that of %s, which is the one that counts: set it right",
                    abs(skew_us) / 1e6,
                    "ahead of" if skew_us > 0 else "behind",
                    self._server,
                )
        elif self._warned_us:
            self._warned_us = 0
            logger.warning("The clock of this machine agrees with that of %s again", self._server)
