"""Which core a worker runs on."""

from __future__ import annotations

from statsapi.machine import allowed_cores, cpu_limit


def choose_core(mode: str, workers: int, taken: list[tuple[int, int]]) -> int | None:
    """The core for a new worker; None leaves it free to roam. `taken`: (age, core) of each living worker, the newest
    with the highest age. `mode` is STATSAPI_PIN_WORKERS.

    The core with the fewest workers is chosen; among equals the one whose newest worker is oldest. A reload leaves old
    and new workers side by side, and the old ones are about to go.

    `auto` pins where each worker can have a core of its own and CPU time is not limited by quota: containers with a
    quota all see the same cores, and would all choose the first.
    """
    cores = allowed_cores()
    if mode == "off" or not cores:
        return None
    if mode == "auto" and (workers > len(cores) or cpu_limit() < len(cores)):
        return None
    return min(cores, key=lambda core: (*_crowd(core, taken), core))


def _crowd(core: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
    ages = [age for age, other in taken if other == core]
    return len(ages), max(ages, default=0)
