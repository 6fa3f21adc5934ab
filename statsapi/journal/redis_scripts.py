"""The Lua scripts of the Redis journal: lua/*.lua, each loaded once with the pieces of lua/shared that it needs.

A script's file says what its KEYS and ARGV are and what it gives. A line `-- needs a, b` stands for these pieces, in
that order. Constants that Python has too are set in the script's first line, so each has one home.

Every script is declared as one that writes, so a replica refuses it (READONLY), and so does a primary that misses the
replicas which it must have (NOREPLICAS) or cannot save (MISCONF): a read that fails like that is better than one that
is wrong.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from statsapi.journal.protocol import CLOCKS_DIFFER_US
from statsapi.journal.redis_primary import Script

# 2: heads with a checksum. An older statsapi refuses them, so all machines are to be updated together.
SCHEMA_VERSION: Final = 2

ID_BYTES: Final = 12  # of a record; a mark's record_id has the epoch in four more

# How long a decision may hold the lease. A holder that died costs the others this long, and a decision must take less
# (the service bounds its catching up by a second).
LEASE_US: Final = 1_500_000

# A part of a checkpoint that was never finished goes after this.
STAGED_TTL_MS: Final = 600_000

# One step of removing compacted records. Freeing 1,024 batches of 10,000 events takes the server some 20 ms.
STEP_RECORDS: Final = 1024

_CONSTANTS: Final = {
    "CLOCKS_DIFFER_US": CLOCKS_DIFFER_US,
    "ID_BYTES": ID_BYTES,
    "LEASE_US": LEASE_US,
    "SCHEMA_VERSION": f"'{SCHEMA_VERSION}'",  # as a hash gives it back
    "STAGED_TTL_MS": STAGED_TTL_MS,
    "STEP_RECORDS": STEP_RECORDS,
}
_NEEDS: Final = re.compile(r"^ *-- needs (.+)\n", re.MULTILINE)
_COMMENT: Final = re.compile(r"^\s*--.*\n", re.MULTILINE)


def load(name: str, *, even_when_full: bool = True) -> Script:
    """The script of lua/NAME.lua. `even_when_full`: it also runs where the server's memory is full."""
    text = _COMMENT.sub("", _read(name))
    used = {word: value for word, value in _CONSTANTS.items() if word in text}
    constants = f"local {', '.join(used)} = {', '.join(map(str, used.values()))}\n" if used else ""
    flags = "#!lua flags=allow-oom\n" if even_when_full else "#!lua\n"
    return Script(flags + constants + text)


def _read(name: str) -> str:
    """The text of a file, with those of the pieces that it needs."""
    text = files("statsapi.journal").joinpath("lua", f"{name}.lua").read_text("utf-8")
    return _NEEDS.sub(lambda line: "".join(_read(f"shared/{piece}") for piece in line[1].split(", ")), text)


APPEND: Final = load("append", even_when_full=False)
# For appends that let room come back: a tick, which moves time and so the horizon, and a deletion.
APPEND_ALWAYS: Final = load("append")
BEGIN: Final = load("begin")
CHECK: Final = load("check", even_when_full=False)
CHECKPOINT: Final = load("checkpoint")
COMMIT: Final = load("commit")
FIND_ANSWER: Final = load("find_answer")
FORGET: Final = load("forget")
JUDGE: Final = load("judge")
LOSS: Final = load("loss")
PIECES: Final = load("pieces")
PROBE: Final = load("probe")
READ: Final = load("read")
RELEASE: Final = load("release")
STAGE: Final = load("stage")
TRIM: Final = load("trim")
