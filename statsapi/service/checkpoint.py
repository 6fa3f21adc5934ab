"""Checkpoints: the state that replaces compacted records in the journal, how a store begins with one, and how the next
one is made.

    state    version u8 = 3 | 7 zeros | horizon_us i64 | pieces_from_us i64 | minutes_from_us i64 | pieces_to_us i64
             | the raw events from the horizon on, as one encoded batch
    piece    version u8 = 1 | minutes u8 (1 or 60) | 0 u16 | series u32 | name lengths u16[n] | block lengths u32[n]
             | names utf-8 | blocks                                       key: the minute's number since 1970

A piece holds the roll-ups of all series for one minute, or for one hour from `minutes_from_us` backwards. Nearly always
compaction adds the piece of the minute that has just been folded, and drops the oldest; so its cost does not grow with
what is kept. A state of version 2 has no pieces_to_us, which was its horizon; one of version 1 has no roll-ups.

Compaction goes by the time that has stood (clocks.py). A record stamped by a wrong clock does not block it: one from
the future is compacted, and its live events go into the state; one from the past waits for the records before it.
"""

from __future__ import annotations

import secrets
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np

from statsapi.engine import rollup
from statsapi.engine.store import Store
from statsapi.errors import JournalRefused
from statsapi.journal import START, Checkpoint, HistoryChanged, Journal, Mark, decode_batch, encode_batch
from statsapi.model import HOUR_US, MIN_TS_US, MINUTE_US, Deletion, Retention, floor_us

_VERSION: Final = 3
_HEAD: Final = struct.Struct("<Bxxxxxxxqqqq")
_HEAD_2: Final = struct.Struct("<Bxxxxxxxqqq")
_HEAD_1: Final = struct.Struct("<Bxxxxxxxq")
# A little less than SQLite's limit for one row: 60 million events that are stamped ahead.
_MAX_BYTES: Final = 950_000_000
_EVENT_BYTES: Final = 16

_PIECE_VERSION: Final = 1
_PIECE_HEAD: Final = struct.Struct("<BBHI")
_EMPTY_HOURS: Final = 24  # at most this many are read at once behind an hour that had no pieces

# An hour's blocks by series, then by minute; minute 60 stands for the whole hour.
_Hour = dict[str, dict[int, bytes]]


class _State(NamedTuple):
    """horizon_us: up to where raw events were folded, by the time that had stood. pieces_from_us: the first minute that
    a piece may have. minutes_from_us: from there on all pieces are of minutes. pieces_to_us: no piece ends after it.

    The horizon falls when a clock that was believed is put right; pieces made by the wrong clock stay.
    """

    horizon_us: int
    pieces_from_us: int
    minutes_from_us: int
    pieces_to_us: int
    events: bytes


_NOTHING: Final = _State(MIN_TS_US, MIN_TS_US, MIN_TS_US, MIN_TS_US, b"")


def _decode_state(state: bytes) -> _State:
    version = state[0]
    if version == 1:
        return _State(_HEAD_1.unpack_from(state)[1], MIN_TS_US, MIN_TS_US, MIN_TS_US, state[_HEAD_1.size :])
    if version == 2:
        _, horizon_us, pieces_from_us, minutes_from_us = _HEAD_2.unpack_from(state)
        return _State(horizon_us, pieces_from_us, minutes_from_us, horizon_us, state[_HEAD_2.size :])
    if version != _VERSION:
        raise JournalRefused(f"the checkpoint has format {version}; this statsapi reads up to {_VERSION}")
    _, horizon_us, pieces_from_us, minutes_from_us, pieces_to_us = _HEAD.unpack_from(state)
    return _State(horizon_us, pieces_from_us, minutes_from_us, pieces_to_us, state[_HEAD.size :])


def _encode_piece(minutes: int, blocks: dict[str, bytes]) -> bytes:
    names = [name.encode() for name in blocks]
    return b"".join(
        (
            _PIECE_HEAD.pack(_PIECE_VERSION, minutes, 0, len(names)),
            np.fromiter(map(len, names), "<u2", len(names)).tobytes(),
            np.fromiter(map(len, blocks.values()), "<u4", len(names)).tobytes(),
            *names,
            *blocks.values(),
        )
    )


def _decode_piece(piece: bytes) -> tuple[int, dict[str, bytes]]:
    """How many minutes the piece covers (1 or 60), and its blocks by series."""
    version, minutes, _, n = _PIECE_HEAD.unpack_from(piece)
    if version != _PIECE_VERSION:
        raise JournalRefused(f"a roll-up has format {version}; this statsapi reads {_PIECE_VERSION}")
    name_lengths = np.frombuffer(piece, "<u2", n, _PIECE_HEAD.size)
    lengths = np.frombuffer(piece, "<u4", n, _PIECE_HEAD.size + 2 * n)
    name_at = _PIECE_HEAD.size + 6 * n
    at = name_at + int(name_lengths.sum())
    blocks = {}
    for name_length, length in zip(name_lengths.tolist(), lengths.tolist(), strict=True):
        blocks[piece[name_at : name_at + name_length].decode()] = piece[at : at + length]
        name_at += name_length
        at += length
    return minutes, blocks


def begin(journal: Journal, retention: Retention) -> tuple[Store, Mark]:
    """A store with the checkpoint's content, and the mark after which its records follow. Costs about 1 µs a block.

    HistoryChanged when another checkpoint was made in the meantime: begin again.
    """
    checkpoint = journal.read_checkpoint()
    store = Store(retention)
    if checkpoint is None:
        return store, START
    state = _decode_state(checkpoint.state)
    if retention.rollup_us:
        first_us = max(state.pieces_from_us, retention.from_us(state.horizon_us))
        for hour_us, hour in _hours(journal, checkpoint.id, floor_us(first_us, HOUR_US), state.pieces_to_us):
            store.contents.load_rollups(hour_us, hour)
    store.contents.load(decode_batch(state.events), checkpoint.appended_us)
    return store, checkpoint.mark


def _hours(journal: Journal, checkpoint_id: bytes, start_us: int, end_us: int) -> Iterator[tuple[int, _Hour]]:
    """Each hour of the range that has pieces, in order.

    One hour is read at once, as it may have many MB, but up to a day behind an hour without pieces. A young journal
    that keeps ten years has 88,000 of those, each a read of 25 µs, or a round trip.
    """
    hours = 1
    while start_us < end_us:
        next_us = min(start_us + hours * HOUR_US, end_us)
        pieces = _read(journal, checkpoint_id, start_us, next_us)
        for number, of_hour in groupby(pieces, lambda piece: piece[0] * MINUTE_US // HOUR_US):
            yield number * HOUR_US, _decode_hour(number * HOUR_US, of_hour)
        hours = 1 if pieces else min(2 * hours, _EMPTY_HOURS)
        start_us = next_us


def _decode_hour(hour_us: int, pieces: Iterable[tuple[int, bytes]]) -> _Hour:
    hour: _Hour = defaultdict(dict)
    for key, piece in pieces:
        minutes, blocks = _decode_piece(piece)
        minute = rollup.WHOLE_HOUR if minutes == rollup.WHOLE_HOUR else key - hour_us // MINUTE_US
        for series, block in blocks.items():
            hour[series][minute] = block
    return hour


def _read(journal: Journal, checkpoint_id: bytes, start_us: int, end_us: int) -> list[tuple[int, bytes]]:
    return journal.read_pieces(checkpoint_id, start_us // MINUTE_US, -(-end_us // MINUTE_US))


def compact(journal: Journal, retention: Retention, settled_us: int, wrong_after_us: int | None = None) -> bool:
    """Replace the records beyond the raw retention by a checkpoint of their sums. Returns whether that was done.

    `settled_us` is a time that has stood. Records stamped later than `wrong_after_us` are known to come from a wrong
    clock. The cost is one read and addition of those records, and of the pieces that they change. Several workers may
    compact at once: one wins, and the others notice and stop.
    """
    try:
        return _compact(journal, retention, settled_us, wrong_after_us)
    except HistoryChanged:
        return False


def _compact(journal: Journal, retention: Retention, settled_us: int, wrong_after_us: int | None) -> bool:
    horizon_us = retention.raw_from_us(settled_us)
    checkpoint = journal.read_checkpoint()
    state = _NOTHING if checkpoint is None else _decode_state(checkpoint.state)
    if checkpoint is not None and horizon_us == state.horizon_us:
        return False
    # New in the roll-ups are the records since the checkpoint, and those of its raw events that are no longer kept raw.
    # Of the existing roll-ups only those that change are read.
    store = Store(retention)
    store.settle(settled_us)
    mark = START
    if checkpoint is not None:
        store.contents.load(decode_batch(state.events), checkpoint.appended_us)
        mark = checkpoint.mark
    began_at = mark
    deletions: list[Deletion] = []
    bound_us = settled_us - retention.raw_us
    while True:
        segment = journal.read(mark, until_us=bound_us, wrong_after_us=wrong_after_us)
        if segment.appended_us is None:
            break
        store.apply(segment.changes, segment.appended_us)
        deletions += [change for change in segment.changes if isinstance(change, Deletion)]
        mark = segment.mark
        if store.sizes.event_count() * _EVENT_BYTES > _MAX_BYTES:
            return False
    pieces_from_us = retention.from_us(settled_us) if retention.rollup_us else MIN_TS_US
    if mark == began_at and (checkpoint is None or pieces_from_us - state.pieces_from_us < HOUR_US):
        return False
    store.expire(horizon_us, state.minutes_from_us)
    # Roll-ups are merged into hours as of the last compacted record, not as of `settled_us`: a later deletion in the
    # journal may name minutes of an hour that was still kept in minutes then. Nor are they merged past the existing
    # ones, as a clock that was believed may be put right.
    pieces_to_us = max(state.pieces_to_us, store.contents.folded_to_us)
    bounds = retention.rollup_bounds(min(store.appended_us, settled_us))
    hours_to_us = min(bounds.minutes_from_us, pieces_to_us - pieces_to_us % -HOUR_US)
    minutes_from_us = max(state.minutes_from_us, hours_to_us)
    store.expire(horizon_us, minutes_from_us)
    pieces = _Pieces(journal, checkpoint.id, deletions) if checkpoint is not None else _Pieces(journal, b"", [])
    if retention.rollup_us:
        pieces.add(store)
        first_us = max(state.minutes_from_us, pieces_from_us)
        pieces.coarsen(floor_us(first_us, HOUR_US), min(minutes_from_us, state.pieces_to_us))
        pieces.delete(max(state.pieces_from_us, pieces_from_us), state.pieces_to_us)
    compacted = Checkpoint(
        secrets.token_bytes(16),
        mark,
        store.appended_us,
        _HEAD.pack(_VERSION, horizon_us, pieces_from_us, minutes_from_us, pieces_to_us)
        + encode_batch(store.contents.live_events(), limit_bytes=_MAX_BYTES),
    )
    drop_before = (pieces_from_us if retention.rollup_us else max(pieces_to_us, horizon_us)) // MINUTE_US
    return journal.replace_prefix(
        None if checkpoint is None else checkpoint.id, compacted, pieces.changed, drop_pieces_before=drop_before
    )


class _Pieces:
    """The pieces that a compaction changes: `changed` by key, None for a piece to remove."""

    def __init__(self, journal: Journal, checkpoint_id: bytes, deletions: list[Deletion]) -> None:
        self.changed: dict[int, bytes | None] = {}
        self._journal = journal
        self._checkpoint_id = checkpoint_id
        self._deletions = deletions

    def add(self, store: Store) -> None:
        """Add the store's roll-ups to the existing pieces."""
        added: dict[tuple[int, int], dict[str, bytes]] = defaultdict(dict)
        for series, held in store.contents.rolled_up().items():
            for rolled in held:
                added[rolled.start_us, rolled.length_us][series] = rolled.block
        for (start_us, length_us), blocks in added.items():
            self._change(start_us, length_us, blocks)

    def coarsen(self, start_us: int, end_us: int) -> None:
        """Merge the pieces of the range's minutes into those of its hours."""
        for hour_us in range(start_us, end_us, HOUR_US):
            if hour_us // MINUTE_US not in self.changed:
                self._change(hour_us, HOUR_US, {})

    def delete(self, start_us: int, end_us: int) -> None:
        """Remove the series that the deletions name from the range's pieces."""
        for deletion in self._deletions:
            first_us, last_us = max(deletion.start_us, start_us), min(deletion.end_us, end_us)
            for hour_us in range(floor_us(first_us, HOUR_US), last_us, HOUR_US):
                for key, piece in self._read(max(hour_us, first_us), min(hour_us + HOUR_US, last_us)):
                    # Most pieces do not contain the name; the search runs at 1 GB/s.
                    if key not in self.changed and deletion.series.encode() in piece:
                        minutes, blocks = _decode_piece(piece)
                        if deletion.series in blocks:
                            self._change(key * MINUTE_US, minutes * MINUTE_US, {})

    def _change(self, start_us: int, length_us: int, added: dict[str, bytes]) -> None:
        parts: dict[str, list[bytes]] = defaultdict(list)
        for key, piece in self._read(start_us, start_us + length_us):
            self.changed[key] = None
            for series, block in self._left(key, _decode_piece(piece)[1]):
                parts[series].append(block)
        for series, block in added.items():
            parts[series].append(block)
        if parts:
            merged = {series: rollup.merge(blocks) for series, blocks in parts.items()}
            self.changed[start_us // MINUTE_US] = _encode_piece(length_us // MINUTE_US, merged)

    def _left(self, key: int, blocks: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
        start_us = key * MINUTE_US
        gone = {each.series for each in self._deletions if each.start_us <= start_us < each.end_us}
        return ((series, block) for series, block in blocks.items() if series not in gone)

    def _read(self, start_us: int, end_us: int) -> list[tuple[int, bytes]]:
        return _read(self._journal, self._checkpoint_id, start_us, end_us) if self._checkpoint_id else []
