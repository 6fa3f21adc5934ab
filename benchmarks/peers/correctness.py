"""Whether each peer counts right: every cell is what a run against that peer answered.

A check writes some events to a new server as that peer's users would, asks, and tells what it saw. `right` is what
statsapi promises (docs/architecture.md); where a peer does otherwise by design, the cell says what it does.
"""

from __future__ import annotations

import http.client
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

from benchmarks.peers.measures import Say, Size
from benchmarks.peers.report import Section
from benchmarks.peers.servers import Peer, Refused, Seed, SeedUvloop, StatsapiAgain

Cell = tuple[str, str]
CLOSE = 1e-9  # of a variance: what is nearer is right, exact or not
SETTLE_S = 6.0  # for peers that show an event late; who reads their writes needs none of it


def _now_us() -> int:
    return time.time_ns() // 1000


def _settled(peer: Peer, expected: int, window_s: int = 3600) -> dict[str, float]:
    """The moments as soon as so many events count, or what they are at the end."""
    end = time.monotonic() + SETTLE_S
    while True:
        found = peer.ask("moments", window_s)
        if found["count"] >= expected or time.monotonic() > end:
            return found
        time.sleep(0.05)


def _counted(found: dict[str, float], expected: int) -> Cell:
    count = 0 if math.isnan(found["count"]) else int(found["count"])
    return ("right" if count == expected else "wrong"), f"{count} of {expected}"


def same_instant(peer: Peer) -> Cell:
    """Three events at one instant, two of one value."""
    at_us = _now_us() - 1_000_000
    for number, value in enumerate((5.0, 5.0, 7.0)):
        peer.record(at_us, value, f"instant-{number}")
    return _counted(_settled(peer, 3), 3)


def late(peer: Peer) -> Cell:
    """Of half an hour ago, after one of now."""
    peer.record(_now_us() - 1000, 1.0, "now")
    before = _settled(peer, 1)["count"]
    peer.record(_now_us() - 1_800_000_000, 2.0, "late")
    return _counted(_settled(peer, int(before) + 1), int(before) + 1)


def read_your_writes(peer: Peer) -> Cell:
    """Post, ask at once, fifty times."""
    before = peer.count()
    missed = 0
    for number in range(50):
        peer.record(_now_us() - 1000, 1.0, f"read-{number}")
        missed += peer.count() < before + number + 1
    return ("wrong" if missed else "right"), f"{missed} of 50 missing"


def _mean(peer: Peer, values: Sequence[float]) -> float:
    base_us = _now_us() - 60_000_000
    for number, value in enumerate(values):
        peer.record(base_us + number * 1_000_000, value, f"mean-{number}-{value}")
    return _settled(peer, len(values))["mean"]


def cancelling_mean(peer: Peer) -> Cell:
    """The mean of 1e16, 1 and -1e16, which is 1/3."""
    values = (1e16, 1.0, -1e16)
    found = _mean(peer, values)
    return ("right" if found == statistics.mean(values) else "wrong"), f"{found:.4g}"


def _variance(peer: Peer, values: Sequence[float], window_s: int, *, before: float | None = None) -> Cell:
    if "variance" not in peer.questions:
        return "none", "has no variance"
    if before is not None:
        peer.record(_now_us() - 600_000_000, before, "spike")
        _settled(peer, 1)
    base_us = _now_us() - 60_000_000
    for number, value in enumerate(values):
        peer.record(base_us + number * 1_000_000, value, f"variance-{number}")
    _settled(peer, len(values), window_s)
    found, right = peer.ask("variance", window_s)["variance"], statistics.variance(values)
    if found == right:
        return "right", "exact"
    error = abs(found - right) / right
    return ("right" if error < CLOSE else "wrong"), f"off by {error:.0e}" if error < 0.01 else f"{found:.4g}"


ORDINARY = (0.1, 0.4, 0.7, 0.3, 0.9)


def spike(peer: Peer) -> Cell:
    """1e12 ten minutes ago, then five ordinary values: their variance, over the last five minutes."""
    return _variance(peer, ORDINARY, 300, before=1e12)


def far_from_zero(peer: Peer) -> Cell:
    """The variance of five values near 1e9."""
    return _variance(peer, [1e9 + each for each in ORDINARY], 300)


def retried(peer: Peer) -> Cell:
    """The same request twice, as who got no answer sends it."""
    at_us = _now_us() - 1_000_000
    for _ in range(2):
        peer.record(at_us, 3.0, "the-same")
    time.sleep(0.2)
    return _counted(_settled(peer, 1), 1)


def killed(peer: Peer) -> Cell:
    """Fifty posts, kill -9 of all its processes right after the last answer, start again."""
    for number in range(50):
        peer.record(_now_us() - 1000, 1.0, f"killed-{number}")
    peer.kill()
    peer.start()
    return _counted(_settled(peer, 50), 50)


def refuses_nan(peer: Peer) -> Cell:
    """1, NaN, 3: refused with a reason, or the mean is lost."""
    base_us = _now_us() - 60_000_000
    peer.record(base_us, 1.0, "nan-0")
    said = ""
    try:
        peer.record(base_us + 1_000_000, float("nan"), "nan-1")
    except (Refused, redis.RedisError, http.client.HTTPException) as error:
        said = str(error)[:3]
    peer.record(base_us + 2_000_000, 3.0, "nan-2")
    found = _settled(peer, 2)
    seen = f"count {found['count']:.0f}, mean {found['mean']:.3g}"
    if said:
        return ("right" if found["mean"] == 2.0 else "wrong"), f"refused ({said}); {seen}"
    return "wrong", f"taken; {seen}"


CHECKS: dict[str, Callable[[Peer], Cell]] = {
    "three events at one instant count": same_instant,
    "a late event counts": late,
    "read your writes, at once": read_your_writes,
    "mean of `[1e16, 1, -1e16]`": cancelling_mean,
    "variance after a spike of 1e12 has left": spike,
    "variance of values near 1e9": far_from_zero,
    "a retry counts once": retried,
    "`kill -9` right after the answer": killed,
    "NaN is refused": refuses_nan,
}


def correctness(peers: Sequence[type[Peer]], size: Size, say: Say) -> Section:
    section = Section(
        "Does it count right?",
        "Each check runs against a new server and says what it saw. A kill of the processes is no power cut: what the "
        "kernel was given survives it. A retry carries an `Idempotency-Key` to statsapi and the same member to Redis. "
        f"A variance is right when it is off by less than {CLOSE:g} of itself.",
    )
    able = [each for each in peers if each.questions and each is not StatsapiAgain]
    able = [each for each in able if not issubclass(each, Seed) or each is SeedUvloop]
    with ThreadPoolExecutor(4) as pool:  # nothing is timed here
        rows = list(pool.map(lambda each: _checked(each, say), able))
    section.taken["versions"] = {each.name: version for each, (version, _) in zip(able, rows, strict=True)}
    section.cells = {
        check: {each.name: cells[check] for each, (_, cells) in zip(able, rows, strict=True)} for check in CHECKS
    }
    return section


def _checked(each: type[Peer], say: Say) -> tuple[str, dict[str, Cell]]:
    """The version, and each check against a new server; one that fails to run says so in its cell."""
    cells: dict[str, Cell] = {}
    version = ""
    for check, run in CHECKS.items():
        say(f"{each.name}: {check}")
        with tempfile.TemporaryDirectory(prefix="statsapi-peers-") as scratch, each(Path(scratch) / "peer") as peer:
            version = peer.version()
            try:
                cells[check] = run(peer)
            except (Refused, OSError, AssertionError, http.client.HTTPException, redis.RedisError) as error:
                cells[check] = "none", f"could not be asked: {str(error)[:80]}"
    return version, cells
