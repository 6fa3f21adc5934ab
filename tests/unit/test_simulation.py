"""Workers on one journal under everything that may happen, from seeds: see tests/simulation.py."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.journal_engines import shared_postgres, shared_redis
from tests.programs import postgres_binaries, redis_binary
from tests.servers import PostgresServer, RedisServer
from tests.simulation import REQUIRED, MemoryOpener, ServerOpener, Simulation, SqliteOpener

SEED = int(os.environ.get("STATSAPI_STRESS_SEED", "1"))
MINUTES = float(os.environ.get("STATSAPI_STRESS_MINUTES", "0"))
STEPS = 400
ENGINES = 4

MakeOpener = Callable[[FakeClock], Any]


@pytest.fixture(params=["memory", "sqlite", "redis", "postgresql"])
def runs_of(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[MakeOpener, int, frozenset[str]]:
    """What makes the opener of each run, how many runs there are, and what must have happened in them."""
    if request.param == "memory":
        return lambda clock: MemoryOpener(tmp_path, clock), 12, REQUIRED
    if request.param == "sqlite":
        return lambda clock: SqliteOpener(tmp_path, clock), 8, REQUIRED | {"restored", "damage refused"}
    server: RedisServer | PostgresServer
    server = shared_redis(redis_binary()) if request.param == "redis" else shared_postgres(postgres_binaries())
    return lambda clock: ServerOpener(server.journal_url(secrets.token_hex(4)), clock), 6, REQUIRED


@pytest.mark.slow
def test_workers_agree_with_a_list(runs_of: tuple[MakeOpener, int, frozenset[str]]) -> None:
    """Whatever is recorded, deleted, folded, compacted, restarted, set wrong, broken or restored: answers are exact."""
    make, runs, required = runs_of
    seen: Counter[str] = Counter()
    ends_s = time.monotonic() + MINUTES * 60 / ENGINES
    seed = SEED * 1000
    while seed < SEED * 1000 + runs or time.monotonic() < ends_s:
        simulation = Simulation(seed, make, rollups=seed % 4 != 3)
        simulation.run(STEPS)
        seen += simulation.seen
        seed += 1
    assert not required - {name for name, times in seen.items() if times}, f"never reached; seen were {dict(seen)}"
