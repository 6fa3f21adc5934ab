"""The Redis server of one journal: its keys there, calls to it, and its clock.

All keys share the hash tag {NAME}, so that a Cluster keeps them on one node and one script sees them all. What each
holds: redis_streams.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from statsapi.errors import JournalDamaged
from statsapi.journal.protocol import Clock, wall_clock_us
from statsapi.journal.redis_primary import DAMAGE_ADVICE, Call, Primary, Script
from statsapi.journal.redis_url import Address
from statsapi.journal.server_clock import ServerClock
from statsapi.model import IdempotencyKey


class Server:
    """Any thread may call. `test_clock_us` is sent along and used in place of the server's clock; None for that one."""

    def __init__(self, address: Address, clock_us: Clock, machine_clock_us: Clock) -> None:
        self.address = address
        self.primary = Primary(address)
        self.clock = ServerClock(str(address), machine_clock_us)
        self.test_clock_us: Callable[[], int] | None = None if clock_us is wall_clock_us else clock_us
        self.name = f"{{{address.stream}}}"
        self.keys = (self.name, f"{self.name}:meta")
        self.pieces_key = f"{self.name}:pieces"
        self.expiry_key = f"{self.name}:keys"

    def calls(self, calls: Sequence[Call], *, resend: bool = True) -> list[Any]:
        """See `Primary.calls`."""
        return self.primary.calls(calls, resend=resend)

    def run(self, script: Script, keys: Iterable[str | bytes] = (), arguments: Iterable[Any] = ()) -> Any:
        """What a script gives that changes nothing, or may run twice. Its first KEYS are stream and meta hash."""
        return self.primary.calls([Call.of(script, [*self.keys, *keys], arguments)])[0]

    def sent_clock(self) -> int | bytes:
        """The clock as scripts take it: empty where the server's own counts."""
        return b"" if self.test_clock_us is None else self.test_clock_us()

    def key_name(self, key: IdempotencyKey) -> bytes:
        return f"{self.name}:key:".encode() + key.name

    def state_key(self, checkpoint_id: bytes) -> str:
        return f"{self.name}:state:{checkpoint_id.hex()}"

    def piece_key(self, name: str) -> str:
        return f"{self.name}:piece:{name}"

    def damaged(self, what: str, why: str) -> JournalDamaged:
        return JournalDamaged(f"{what} at {self.address}", why, advice=DAMAGE_ADVICE)
