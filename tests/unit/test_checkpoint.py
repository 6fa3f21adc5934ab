"""What is read of a checkpoint that another version wrote, and the errors that name what cannot be read."""

from __future__ import annotations

import secrets
import struct

import numpy as np
import pytest

from statsapi.errors import ConfigError, JournalDamaged, JournalRefused
from statsapi.journal import Checkpoint, encode_batch, engine_of, open_journal
from statsapi.model import DAY_US, HOUR_US, MIN_TS_US, MINUTE_US, EventBatch, Part, Retention
from statsapi.service import checkpoint as checkpoints
from tests.fakes import FakeClock, SharedJournal
from tests.journal_engines import event, mark_of

KEPT = Retention(HOUR_US, DAY_US)


def journal_with(state: bytes, pieces: dict[int, bytes], clock: FakeClock) -> SharedJournal:
    """A journal of one record, which the checkpoint takes the place of."""
    journal = SharedJournal(clock_us=clock)
    mark = mark_of(journal.append(event()))
    assert journal.replace_prefix(None, Checkpoint(secrets.token_bytes(16), mark, clock(), state), pieces)
    return journal


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_states_of_older_versions_are_read(clock: FakeClock, version: int) -> None:
    """The events that a state carries are there, whichever version wrote it."""
    now_us = clock()
    heads = {
        1: struct.pack("<Bxxxxxxxq", 1, now_us - HOUR_US),
        2: struct.pack("<Bxxxxxxxqqq", 2, now_us - HOUR_US, now_us - DAY_US, MIN_TS_US),
        3: struct.pack("<Bxxxxxxxqqqq", 3, now_us - HOUR_US, now_us - DAY_US, MIN_TS_US, now_us - HOUR_US),
    }
    ts_us = np.array([now_us - MINUTE_US, now_us])
    events = encode_batch(EventBatch((Part("a", ts_us, np.array([1.0, 2.5])),)))
    store, mark = checkpoints.begin(journal_with(heads[version] + events, {}, clock), KEPT)
    assert (mark.position, store.sizes.event_count()) == (1, 2)
    store.check_invariants()


def test_a_newer_state_or_piece_is_refused(clock: FakeClock) -> None:
    """An older statsapi names the format that it cannot read, instead of answering from half of the journal."""
    now_us = clock()
    with pytest.raises(JournalRefused, match="the checkpoint has format 4; this statsapi reads up to 3"):
        checkpoints.begin(journal_with(bytes([4]) + bytes(39), {}, clock), KEPT)
    head = struct.pack("<Bxxxxxxxqqqq", 3, now_us - HOUR_US, now_us - DAY_US, MIN_TS_US, now_us)
    nothing = encode_batch(EventBatch(()))
    pieces = {(now_us - 2 * HOUR_US) // MINUTE_US: bytes([2]) + bytes(7)}
    with pytest.raises(JournalRefused, match="a roll-up has format 2; this statsapi reads 1"):
        checkpoints.begin(journal_with(head + nothing, pieces, clock), KEPT)


def test_a_damaged_piece_in_memory_is_told(clock: FakeClock) -> None:
    """A bit that flips in this process's memory is no wrong answer either."""
    journal = journal_with(b"", {5: b"piece"}, clock)
    checkpoint = journal.read_checkpoint()
    assert journal.read_pieces(checkpoint.id, 0, 9) == [(5, b"piece")]
    journal._pieces[5] = (journal._pieces[5][0], b"piecf")
    with pytest.raises(JournalDamaged, match="piece 5"):
        journal.read_pieces(checkpoint.id, 0, 9)


def test_a_journal_in_memory_has_nothing_to_check_or_salvage() -> None:
    """Nothing of it can be seen from another process: each of them says so, and none that all is well."""
    engine = engine_of("memory://")
    for ask in (engine.find_damage, engine.compact, lambda: engine.salvage("/tmp/nowhere.db")):
        with pytest.raises(JournalRefused, match="memory:// lives in the service's own process"):
            ask()
    with pytest.raises(JournalRefused, match="memory:// lives in the service's own process"):
        open_journal("memory://", create=False)


def test_a_journal_is_not_opened_with_what_it_cannot_do() -> None:
    """An fsync that is no mode, and replicas of an engine that has none."""
    with pytest.raises(ConfigError, match="fsync is 'interval' or 'always', not 'never'"):
        open_journal("memory://", fsync="never")
    with pytest.raises(ConfigError, match="memory:// has no replicas"):
        open_journal("memory://", wait_replicas=1)
