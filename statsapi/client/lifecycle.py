"""The end and the forks of this process, for the senders in it.

At the process's end each sender is closed; in the child of a fork each begins anew. References to senders are weak.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Final, Protocol


class Living(Protocol):
    """An object that is told of both. Only this module calls the two methods."""

    def _close_at_exit(self) -> None:
        """The process ends. Raises nothing."""

    def _forked(self) -> None:
        """This is the child of a fork, and no other thread is there."""


_LIVE: Final[weakref.WeakSet[Living]] = weakref.WeakSet()
_finalized_pid = os.getpid()


def watch(sender: Living) -> None:
    """Tell this sender of the process's end and forks from now on."""
    _LIVE.add(sender)


def close_at_the_end_of_this_process() -> None:
    """Make sure that this process closes its senders. Children of multiprocessing run no atexit handlers but their own
    finalizers, and drop the parent's at their start. So this is called again whenever a thread starts.
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
