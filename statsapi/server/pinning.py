"""Which core a worker runs on."""

from __future__ import annotations

from statsapi.machine import allowed_cores, cpu_limit


def choose_core(mode: str, taken: list[tuple[int, int]]) -> int | None:
    """The core for a new worker; None leaves it free to roam. `taken`: (age, core) of each living worker, the newest
    with the highest age. `mode` is STATSAPI_PIN_WORKERS.

    The core with the fewest workers is chosen; among equals the one whose newest worker is oldest. A reload leaves old
    and new workers side by side, and the old ones are about to go.

    `auto` pins unless CPU time is limited by quota: containers with a quota all see the same cores, and would all
    choose the first. Workers that outnumber the cores share them evenly. Left to roam, four on two cores answered 0.82
    of the posts of two (0.58 to 0.91); pinned, 1.02. The threads of a process hand its interpreter's lock to each
    other, and where they roam from core to core (benchmarks/README.md).
    """
    cores = allowed_cores()
    if mode == "off" or not cores:
        return None
    if mode == "auto" and cpu_limit() < len(cores):
        return None
    return min(cores, key=lambda core: (*_crowd(core, taken), core))


def _crowd(core: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
    ages = [age for age, other in taken if other == core]
    return len(ages), max(ages, default=0)
