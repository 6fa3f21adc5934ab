"""Problems that a buffered sender reports to the program: to a callback, or as a StatsapiWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from statsapi.client.errors import StatsapiWarning

Kind = Literal["unavailable", "dropped", "refused", "unsure", "damaged", "undelivered"]


class Problem(NamedTuple):
    """One report of a sender.

    `kind` is one of: unavailable (the service has accepted nothing for half a minute, or our requests are wrong in a
    way that waiting does not mend), dropped (the buffer is full), refused (the service refused these events), unsure
    (nobody can find out any more whether the events count), damaged (a file of the spool was changed or cut),
    undelivered (the process ends before the events were sent). `details` holds the refused events that the service
    named: {"event", "field", "reason"}.
    """

    kind: Kind
    events: int
    message: str
    details: tuple[dict[str, Any], ...] = ()


class Reporter:
    """Reports problems to `on_problem`, or else as warnings. Never raises: recording and sending go on."""

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
