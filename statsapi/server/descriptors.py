"""File descriptors: the limit of this process, and how many connections a worker may have under it.

Gunicorn's worker ends with a traceback, and all its connections with it, when `accept` finds no free descriptor. So the
limit is raised at start as far as it may be, and where that is too low each worker takes fewer connections. Further
ones wait in the listen queue until others close.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any, Final

# What a worker has open besides connections and what its threads open: 19 descriptors when idle with an SQLite journal,
# 25 with 8 clients at once.
RESERVED: Final = 40

# With fewer than this many, and one for each worker, the arbiter or a worker cannot open its own files.
_LEAST: Final = 32

# Standard input, output and error: what a process that starts has open. All else is missing in the workers as well.
_USUAL: Final = 3

_taken = 0  # see count_taken

CURE: Final = "raise it (`ulimit -n`, or LimitNOFILE= of the systemd unit)"


def limit() -> int | None:
    """How many descriptors this process may have open (the soft RLIMIT_NOFILE); None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def count_taken(cfg: Any) -> None:
    """Count what is open already that is none of ours (left open by whoever started this process), and the listeners
    beyond the first. For the arbiter, before it listens; workers inherit the number.
    """
    global _taken
    with contextlib.suppress(OSError):  # without /proc it stays 0
        inherited = len(os.listdir("/proc/self/fd")) - 1 - _USUAL
        listeners = 0 if "GUNICORN_FD" in os.environ else len(cfg.bind) - 1  # after USR2 they are among the inherited
        _taken = max(0, inherited) + max(0, listeners)


def raise_limit(cfg: Any) -> None:
    """Raise the soft limit to what a worker of this configuration needs, as far as the hard limit allows. Processes
    that are forked later inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _needed(cfg)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    with contextlib.suppress(OSError, ValueError):  # macOS refuses some values below its hard limit
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections(cfg: Any) -> int:
    """How many connections a worker may have: as many as its configuration says, or fewer under a low limit. At least
    one more than it has threads, with which it can work.
    """
    most: int = cfg.worker_connections
    if (allowed := limit()) is None:
        return most
    return min(most, max(int(cfg.threads) + 1, allowed - RESERVED - _taken - int(cfg.threads)))


def fault(cfg: Any) -> str | None:
    """Why a server of this configuration cannot run at all under the limit, with the cure; None where it can."""
    least = _LEAST + int(cfg.workers) + _taken
    if (allowed := limit()) is None or allowed >= least:
        return None
    workers = "one worker" if cfg.workers == 1 else f"{cfg.workers} workers"
    besides = f", besides {_taken} that listen or were left open by what started it" if _taken else ""
    return (
        f"RLIMIT_NOFILE allows {allowed} open files, and a server with {workers} needs at least {least - _taken}"
        f"{besides}: {CURE} to {_needed(cfg)}"
    )


def shortage(cfg: Any) -> str | None:
    """A sentence about a limit that is too low for the configuration, with the cure; None where it is enough."""
    if (most := most_connections(cfg)) >= cfg.worker_connections:
        return None
    return (
        f"RLIMIT_NOFILE allows {limit()} open files, so each worker takes {most} connections at a time instead of "
        f"{cfg.worker_connections}, and others wait: {CURE} to {_needed(cfg)}"
    )


def _needed(cfg: Any) -> int:
    return max(int(cfg.worker_connections) + int(cfg.threads), int(cfg.workers)) + RESERVED + _taken
