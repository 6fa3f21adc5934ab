"""How many cores and how much memory there are, and how many events fit."""

from __future__ import annotations

import os
from pathlib import Path

from statsapi.machine import cpu_limit, default_max_events, memory_bytes


def test_the_least_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    """cgroup v2: a unit's own memory.max, a slice's above it, and the machine's memory; "max" or no file is none."""
    own = tmp_path / "self"
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_bytes(tmp_path, own) == machine
    own.write_text("1:cpu:/\n0::/system.slice/statsapi.service\n")
    unit = tmp_path / "system.slice" / "statsapi.service"
    unit.mkdir(parents=True)
    (unit / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path, own) == machine
    (unit.parent / "memory.max").write_text("2000000\n")
    assert memory_bytes(tmp_path, own) == 2_000_000
    (unit / "memory.max").write_text("1000000\n")
    assert memory_bytes(tmp_path, own) == 1_000_000
    own.write_text("0::/\n")  # a container sees its own cgroup as the root
    assert memory_bytes(tmp_path, own) == machine
    (tmp_path / "memory.max").write_text("500000\n")
    assert memory_bytes(tmp_path, own) == 500_000


def test_workers_share_the_memory() -> None:
    """Each of them holds all events: 1 GiB and two workers make 11 million."""
    assert default_max_events(2, 1 << 30) == (1 << 30) // 2 // 2 // 24
    assert default_max_events(64, 1) == 1


def test_the_least_cpu_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    """cgroup v2 writes quota and period; a systemd unit's CPUQuota= and a slice's above it count, as memory's do."""
    own = tmp_path / "self"
    assert cpu_limit(tmp_path, own) == float("inf")
    own.write_text("0::/system.slice/statsapi.service\n")
    unit = tmp_path / "system.slice" / "statsapi.service"
    unit.mkdir(parents=True)
    (unit / "cpu.max").write_text("max 100000\n")
    assert cpu_limit(tmp_path, own) == float("inf")
    (unit.parent / "cpu.max").write_text("300000 100000\n")
    assert cpu_limit(tmp_path, own) == 3.0
    (unit / "cpu.max").write_text("150000 100000\n")
    assert cpu_limit(tmp_path, own) == 1.5
    own.write_text("0::/\n")  # a container sees its own cgroup as the root
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_limit(tmp_path, own) == 0.5
