"""What the client raises, as one tree. A message is what the service said, where it said something.

    StatsapiError
    ├── Refused           the service said no, and would again: nothing was recorded
    │   ├── Conflict      the Idempotency-Key was used before with another request
    │   └── Unauthorized  the API key is not known, or lacks the scope
    ├── Unavailable       no answer that settles it, after all retries
    ├── BufferFull        the buffer holds `max_events` already (when_full="raise")
    ├── Undelivered       flush() or close() ended with events that the service has not acknowledged
    ├── Closed            record() after close()
    └── SpoolError        the spool cannot be used or written: the event was not taken

What is wrong with the arguments is a TypeError or a ValueError, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

Outcome = Literal["not recorded", "unknown"]


class StatsapiError(Exception):
    """The root of what the client raises."""


class StatsapiWarning(RuntimeWarning):
    """What a buffered sender has to say when it has no `on_problem` to tell."""


class _Answered(StatsapiError):
    """`status` is that of HTTP, `problem` the decoded body (RFC 9457): {} where another server answered.

    headers and body: what was answered, as it came.
    """

    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""

    def __init__(self, message: str, *, status: int | None = None, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = dict(problem or {})

    @property
    def code(self) -> str:
        """The last part of the problem's `type`: "validation", "store-full"; empty where there is none."""
        return str(self.problem.get("type", "")).rpartition(":")[2]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The fields or events at fault: {"index"?, "field", "reason"}; the first 100."""
        return list(self.problem.get("errors", ()))


class Refused(_Answered):
    """The service said no. Nothing was recorded, and the same request would be refused again."""


class Conflict(Refused):
    """The Idempotency-Key was used before with another request: what was sent then counts, this does not."""


class Unauthorized(Refused):
    """The API key is not known (401), or does not allow this (403)."""


class Unavailable(_Answered):
    """No answer that settles it. `outcome` says whether a recording surely did not happen, or is unknown: then send the
    same again under the same `idempotency_key`, which counts once. `retry_after_s` is what the service asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        problem: Mapping[str, Any] | None = None,
        outcome: Outcome = "unknown",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, problem=problem)
        self.outcome: Outcome = outcome
        self.retry_after_s = retry_after_s
        self.idempotency_key: str | None = None


class BufferFull(StatsapiError):
    """The buffer holds `max_events` that the service has not acknowledged; this event was not taken."""


class Closed(StatsapiError):
    """The sender was closed; this event was not taken."""


class Undelivered(StatsapiError):
    """`events` were not acknowledged in time. `kept` says whether they lie in the spool, for the next start."""

    def __init__(self, message: str, *, events: int, kept: bool) -> None:
        super().__init__(message)
        self.events = events
        self.kept = kept


class SpoolError(StatsapiError):
    """The spool cannot be used or written. An event that record() was called with was not taken."""
