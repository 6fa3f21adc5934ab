"""The journal in memory: the same promises within one process, and nothing after its end.

Records are kept sealed, as bytes (checksums.py). So a caller may change its arrays later, and reading is the same code
as in every engine. The journal is a list of records and the position before the first one; a checkpoint cuts the list.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final, NamedTuple

from statsapi.errors import ConfigError, IdempotencyConflict, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.checksums import MISMATCH, piece_checksum, seal
from statsapi.journal.columns import decode_sealed
from statsapi.journal.engine_protocol import LimitStorage, Options
from statsapi.journal.format import VERSION, encode
from statsapi.journal.protocol import (
    NO_PIECES,
    READ_LIMIT_BYTES,
    READ_LIMIT_RECORDS,
    START,
    Appended,
    Checkpoint,
    Clock,
    Decide,
    HistoryChanged,
    Info,
    Journal,
    Lost,
    Mark,
    Proposal,
    Segment,
    SharedFolder,
    time_after,
    wall_clock_us,
)
from statsapi.model import IdempotencyKey

# For whoever asks from another process, as every command does.
_NOWHERE_ELSE: Final = (
    "memory:// lives in the service's own process and ends with it: there is nothing to back up, to look at or to save "
    "from here; export the events (GET /events?format=csv), or use a journal that is kept (sqlite:///…)"
)


class MemoryEngine:
    """See the Engine protocol."""

    kind: ClassVar = "memory"
    single_process: ClassVar = True
    is_kept: ClassVar = False
    is_file: ClassVar = False
    is_remote: ClassVar = False
    has_replicas: ClassVar = False

    def __init__(self, url: str) -> None:
        self._url = url

    def check_url(self) -> None:
        if self._url != "memory://":
            raise ConfigError("memory:// takes nothing behind the slashes")

    def open(self, options: Options) -> Journal:
        self.check_url()
        if not options.create:
            raise JournalRefused(_NOWHERE_ELSE)
        return MemoryJournal(clock_us=options.clock_us)

    def shares_limits(self) -> LimitStorage | None:
        return LimitStorage("memory://")

    def find_damage(self) -> Iterator[str]:
        raise JournalRefused(_NOWHERE_ELSE)

    def salvage(self, target: str) -> str:
        raise JournalRefused(_NOWHERE_ELSE)

    def compact(self) -> tuple[int, int]:
        raise JournalRefused(_NOWHERE_ELSE)

    def put_away(self) -> None:
        """It ended with its process."""


class _Record(NamedTuple):
    id: bytes
    appended_us: int
    sealed: bytes


class _Kept(NamedTuple):
    digest: bytes
    answer: bytes
    expires_us: int


class MemoryJournal:
    """See the Journal protocol. `_writing` is held for a whole append, decision included. `_lock` is held only to touch
    the fields: so a decision can read, and readers never wait for a decision.
    """

    lost: Lost | None = None
    clock_skew_us: int | None = None
    promise = "The journal is in memory: everything is lost when the process ends"

    def __init__(self, *, clock_us: Clock = wall_clock_us) -> None:
        self.observe_fsync: Callable[[float], None] = lambda seconds: None
        self.settled_us = clock_us
        self.local_clock_us: Clock | None = clock_us
        self._clock_us = clock_us
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._records: list[_Record] = []
        self._base = 0  # the position before _records[0]
        self._appended_us = 0  # of the last record ever appended
        self._sealed_bytes = 0
        self._checkpoint: Checkpoint | None = None
        self._pieces: dict[int, tuple[int, bytes]] = {}  # with their checksums
        self._keys: dict[bytes, _Kept] = {}
        self._closed = False

    def shared_folder(self) -> SharedFolder | None:
        return None

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        with self._writing:
            if key is not None and (answer := self.find_answer(key)) is not None:
                return Appended(None, self._now_us(), answer, replayed=True)
            if not isinstance(proposal, Proposal):
                self._check_open()
                proposal = proposal()
            payload = None if proposal.draft is None else encode(proposal.draft)
            with self._lock:
                self._check_open()
                now_us = self._now_us()
                mark = None
                if payload is not None:
                    record_id = secrets.token_bytes(16)
                    sealed = seal(self._base + len(self._records) + 1, record_id, now_us, payload)
                    record = _Record(record_id, now_us, sealed)
                    self._records.append(record)
                    self._sealed_bytes += len(sealed)
                    self._appended_us = now_us
                    mark = Mark(self._base + len(self._records), record.id)
                if key is not None:
                    self._keys[key.name] = _Kept(key.digest, proposal.answer, now_us + key.ttl_us)
            return Appended(mark, now_us, proposal.answer)

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        with self._lock:
            self._check_open()
            kept = self._keys.get(key.name)
            if kept is None or kept.expires_us <= self.settled_us():
                return None
        if kept.digest != key.digest:
            raise IdempotencyConflict
        return kept.answer

    def read(
        self,
        after: Mark,
        *,
        until_us: int | None = None,
        wrong_after_us: int | None = None,
        limit_bytes: int = READ_LIMIT_BYTES,
        limit_records: int = READ_LIMIT_RECORDS,
    ) -> Segment:
        with self._lock:
            self._check_open()
            self._check_stands(after)
            first = after.position - self._base
            now_us = self._clock_us()
            held = len(self._records)
            last = self._base + held
            records = self._records[first : min(held, first + max(1, limit_records))]
        if until_us is not None:
            for count, record in enumerate(records):
                if record.appended_us > until_us and (wrong_after_us is None or record.appended_us <= wrong_after_us):
                    del records[count:]
                    held = first + count
                    break
        size = 0
        for count, record in enumerate(records, 1):
            size += len(record.sealed)
            if size >= limit_bytes:
                del records[count:]
                break
        if not records:
            return Segment(after, None, (), 0, more=False, end=after.position, now_us=now_us)
        end = after.position + len(records)
        changes = decode_sealed(after.position, [record.sealed for record in records])
        mark = Mark(end, records[-1].id)
        more = first + len(records) < held
        return Segment(mark, records[-1].appended_us, changes, len(records), more=more, end=last, now_us=now_us)

    def read_checkpoint(self) -> Checkpoint | None:
        with self._lock:
            self._check_open()
            return self._checkpoint

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        with self._lock:
            self._check_open()
            if self._checkpoint is None or self._checkpoint.id != checkpoint_id:
                raise HistoryChanged("another checkpoint has taken this one's place")
            held = sorted((key, *self._pieces[key]) for key in self._pieces if first <= key < last)
        for key, expected, piece in held:
            if piece_checksum(key, piece) != expected:
                raise JournalDamaged(f"the journal's checkpoint's piece {key}", MISMATCH)
        return [(key, piece) for key, _, piece in held]

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        with self._writing, self._lock:
            self._check_open()
            if previous_id != (None if self._checkpoint is None else self._checkpoint.id):
                return False
            self._check_stands(checkpoint.mark)
            dead = checkpoint.mark.position - self._base
            self._sealed_bytes -= sum(len(record.sealed) for record in self._records[:dead])
            del self._records[:dead]
            self._base += dead
            self._checkpoint = checkpoint
            for key, piece in pieces.items():
                self._pieces.pop(key, None)
                if piece is not None:
                    self._pieces[key] = (piece_checksum(key, piece), piece)
            if drop_pieces_before is not None:
                self._pieces = {key: held for key, held in self._pieces.items() if key >= drop_pieces_before}
            return True

    def maintain(self) -> None:
        with self._lock:
            self._check_open()
            settled_us = self.settled_us()
            # Keys of one lifetime expire in the order of their arrival. With several lifetimes some merely go later.
            while self._keys:
                name = next(iter(self._keys))
                if self._keys[name].expires_us > settled_us:
                    break
                del self._keys[name]

    def check_writable(self, wait_s: float = 1.0) -> None:
        if not self._writing.acquire(timeout=wait_s):
            raise JournalUnavailable("another writer held the journal for too long")
        try:
            with self._lock:
                self._check_open()
        finally:
            self._writing.release()

    def size_bytes(self) -> int:
        with self._lock:
            self._check_open()
            return self._size_bytes()

    def info(self) -> Info:
        with self._lock:
            self._check_open()
            checkpoint = self._checkpoint
            held = len(self._records)
            return Info(
                location="memory://",
                size_bytes=self._size_bytes(),
                records=held,
                first_position=self._base + 1 if held else None,
                last_position=self._base + held if held else None,
                appended_us=self._appended_us or None,
                checkpoint_position=None if checkpoint is None else checkpoint.mark.position,
                checkpoint_us=None if checkpoint is None else checkpoint.appended_us,
                schema_version=VERSION,
            )

    def backup(self, path: str, *, overwrite: bool = False) -> None:
        raise JournalRefused(_NOWHERE_ELSE)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._records = []
            self._keys = {}

    def _size_bytes(self) -> int:
        """Caller holds _lock."""
        state = 0 if self._checkpoint is None else len(self._checkpoint.state)
        return self._sealed_bytes + state + sum(len(piece) for _, piece in self._pieces.values())

    def _check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")

    def _now_us(self) -> int:
        return time_after(self._clock_us(), self._appended_us)

    def _check_stands(self, mark: Mark) -> None:
        """Caller holds _lock."""
        behind = START if self._checkpoint is None else self._checkpoint.mark
        if mark == behind:
            return
        at = mark.position - self._base
        if not 0 < at <= len(self._records) or self._records[at - 1].id != mark.record_id:
            raise HistoryChanged("the record this view stands on is no longer in the journal")
