"""What a buffered sender has to tell whoever runs it, and how: to a callback, or as a StatsapiWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from statsapi.client.errors import StatsapiWarning

Kind = Literal["unavailable", "dropped", "refused", "unsure", "damaged", "undelivered"]


class Problem(NamedTuple):
    """What a sender has to tell.

    `kind` is one of: unavailable (the service has taken nothing for half a minute, or will take nothing from us as
    things are), dropped (the buffer is full), refused (the service will not have these events), unsure (whether they
    count cannot be found out any more), damaged (a file of the spool is not what was written), undelivered (the process
    ends with them). `details` holds the refused events that the service named: {"event", "field", "reason"}.
    """

    kind: Kind
    events: int
    message: str
    details: tuple[dict[str, Any], ...] = ()


class Reporter:
    """Tells problems to `on_problem`, or as warnings without it. Never raises: events go on."""

    def __init__(self, on_problem: Callable[[Problem], None] | None) -> None:
        self._on_problem = on_problem

    def tell(self, kind: Kind, events: int, message: str, details: Iterable[dict[str, Any]] = ()) -> None:
        try:
            if self._on_problem is not None:
                self._on_problem(Problem(kind, events, message, tuple(details)))
            else:
                warnings.warn(message, StatsapiWarning, stacklevel=2)
        except Exception as error:  # noqa: BLE001 - a warning made an error, a callback's fault
            print(f"statsapi: {message} ({type(error).__name__}: {error})", file=sys.stderr)
