"""How many cores and how much memory there are, and how many events fit."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from statsapi.machine import cpu_limit, default_max_events, memory_bytes
from statsapi.server.interpreter import (
    SWITCH_INTERVAL_S,
    hand_over_soon,
    keep_freed_memory,
    make_full_collections_rare,
)


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


def test_what_a_question_builds_sets_off_no_full_collection() -> None:
    """Half a million objects that are held stop no thread for all that a process holds; cycles still die young."""

    class Cyclic:
        pass

    before, full = gc.get_threshold(), []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(info)

    gc.collect()
    gc.callbacks.append(note)
    try:
        make_full_collections_rare()
        held: list[object] = [[i] for i in range(500_000)]
        assert not full
        seen = []
        for _ in range(10_000):
            one = Cyclic()
            one.self = one  # type: ignore[attr-defined]
            seen.append(weakref.ref(one))
        assert sum(ref() is not None for ref in seen) < len(seen) // 2
        assert not full
        gc.set_threshold(*before)  # this is what it is about
        held += [[i] for i in range(500_000)]
        assert full
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)


def test_a_waiting_thread_gets_the_interpreter_soon() -> None:
    """A worker's threads take turns after SWITCH_INTERVAL_S, sooner than Python lets them by itself."""
    usual_s = sys.getswitchinterval()
    assert usual_s > SWITCH_INTERVAL_S
    try:
        hand_over_soon()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    finally:
        sys.setswitchinterval(usual_s)


def test_the_c_library_is_told_to_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's heaps keep 4 MiB each; a C library without such a setting is left alone."""
    told: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=told.__setitem__))
    keep_freed_memory()
    assert told == {-1: 4 << 20, -3: 4 << 20}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
