"""How much memory there is, and how many events fit into it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

# What an event costs a worker: 19 bytes in a store of many (benchmarks/README.md), and some for what is not yet sealed.
EVENT_BYTES: Final = 24

# Of the memory, for events; the rest is for bodies, replays, compactions, the system's cache and whoever else lives
# here. During a reload old and new workers hold everything side by side for a while.
EVENTS_SHARE: Final = 0.5


def memory_bytes(cgroups: Path = Path("/sys/fs/cgroup"), own_cgroup: Path = Path("/proc/self/cgroup")) -> int:
    """What this process and those beside it may use: the machine's, or what a container or unit is limited to.

    The least `memory.max` on the way from the process's cgroup to the root counts (cgroup v2).
    """
    least = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    folder = cgroups / _relative_cgroup(own_cgroup)
    for limited in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):  # the root has none, or it says "max"
            least = min(least, int((limited / "memory.max").read_text()))
        if limited == cgroups:
            break
    return least


def _relative_cgroup(own_cgroup: Path) -> str:
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:  # not Linux
        return ""
    # "0::/system.slice/statsapi.service"; a container that sees its own cgroup only has "0::/".
    return next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")


def default_max_events(workers: int, memory: int | None = None) -> int:
    """How many events `workers` processes, each of which holds all of them, may hold."""
    memory = memory_bytes() if memory is None else memory
    return max(1, int(memory * EVENTS_SHARE) // workers // EVENT_BYTES)
