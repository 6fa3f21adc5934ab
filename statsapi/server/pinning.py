"""Which core a worker runs on."""

from __future__ import annotations

from statsapi.machine import allowed_cores, cpu_limit


def choose_core(mode: str, taken: list[tuple[int, int]]) -> int | None:
    """The core for a new worker; None leaves it unpinned. `taken`: (Gunicorn's age, core) of each living worker; the
    newest worker has the highest age. `mode` is STATSAPI_PIN_WORKERS.

    The core with the fewest workers is chosen; among equals the one whose newest worker is oldest. During a reload old
    and new workers run side by side, and the old ones are about to end.

    `auto` pins unless a quota limits the CPU time: containers with a quota all see the same cores, and would all choose
    the first. If there are more workers than cores, they share them evenly. Four unpinned workers on two cores answered
    0.82 times as many posts as two workers (0.58 to 0.91); four pinned ones 1.02 times. The threads of a process hand
    its interpreter lock to each other, and unpinned threads do so across cores (benchmarks/README.md).
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
