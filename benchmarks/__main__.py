"""`make bench`: every benchmark, one after another; each runs alone as `python -m benchmarks.NAME` too."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "timeline",
    "journal",
    "decoding",
    "hostile",
    "rollups",
    "views",
    "groups",
    "questions",
    "bulk",
    "pressure",
    "service",
    "machines",
    "postgresql",
    "page",
    "peers",
)

for name in NAMES:
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
