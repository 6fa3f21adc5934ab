"""How many cores and how much memory this process may use, and how many events fit into that."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from statsapi.model import EVENT_BYTES

# The share of the memory that events may take. The rest is for request bodies, replays, compactions, the system's cache
# and other programs. During a reload the old and the new workers both hold everything.
EVENTS_SHARE: Final = 0.5


_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def memory_bytes(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """The memory in bytes that this process and those beside it may use: the machine's, or the limit of its cgroup."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(int(text) for text in _limits("memory.max", cgroups, own_cgroup) if text.isdecimal())])


def cpu_limit(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> float:
    """The CPU time that this process and those beside it may use, in cores; infinite without a limit.

    docker's --cpus and systemd's CPUQuota= are such limits.
    """
    least = float("inf")
    for text in _limits("cpu.max", cgroups, own_cgroup):
        with contextlib.suppress(ValueError):  # "max 100000" means no limit
            quota_us, period_us = map(float, text.split())
            least = min(least, quota_us / period_us)
    return least


def _limits(name: str, cgroups: Path, own_cgroup: Path) -> Iterator[str]:
    """The content of the file `name` in each cgroup (v2), from this process's up to the root. The lowest limit counts.

    A cgroup without the file is passed over.
    """
    folder = cgroups / _relative_cgroup(own_cgroup)
    for limited in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # the root has no limits
            yield (limited / name).read_text().strip()
        if limited == cgroups:
            break


def _relative_cgroup(own_cgroup: Path) -> str:
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:  # not Linux
        return ""
    # "0::/system.slice/statsapi.service"; a container that sees its own cgroup only has "0::/".
    return next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")


def allowed_cores() -> list[int]:
    """The cores that this process may run on; empty where the platform does not say (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def default_max_events(workers: int, memory: int | None = None) -> int:
    """How many events each of `workers` processes may hold; each of them holds all events."""
    memory = memory_bytes() if memory is None else memory
    return max(1, int(memory * EVENTS_SHARE) // workers // EVENT_BYTES)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, from the middle of the heap too. Takes some ms; does nothing without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
