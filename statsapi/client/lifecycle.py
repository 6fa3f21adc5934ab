"""The ends and the forks of this process, for the senders that live in it.

At its end each is closed; in the child of a fork each begins anew. They are not kept alive for that.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Final, Protocol


class Living(Protocol):
    """What is told of both. These two methods are called here alone."""

    def _close_at_exit(self) -> None:
        """The process ends. Raises nothing."""

    def _forked(self) -> None:
        """This is the child of a fork, and no other thread is there."""


_LIVE: Final[weakref.WeakSet[Living]] = weakref.WeakSet()
_finalized_pid = os.getpid()


def watch(sender: Living) -> None:
    """From now on it is told."""
    _LIVE.add(sender)


def close_at_the_end_of_this_process() -> None:
    """Children of multiprocessing end without atexit, by finalizers of their own, which they forget at their start. So
    this is called again where a thread starts.
    """
    global _finalized_pid
    if _finalized_pid != os.getpid():
        _finalized_pid = os.getpid()
        if util := sys.modules.get("multiprocessing.util"):
            util.Finalize(None, _close_all, exitpriority=0)


def _close_all() -> None:
    for sender in list(_LIVE):
        sender._close_at_exit()


def _in_child() -> None:
    for sender in list(_LIVE):
        sender._forked()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_in_child)
