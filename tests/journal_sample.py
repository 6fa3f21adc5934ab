"""Makes a journal with something of everything and ends without closing it, as a killed process does: `PATH SECOND`.

Before SECOND (0 or 1) is 1 everything is in the file; what comes after is in its -wal.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from statsapi.journal import START, Checkpoint, IdempotencyKey, Mark, Proposal
from statsapi.journal.sqlite import SqliteJournal
from statsapi.model import Deletion, EventBatch, Part
from tests.journal_engines import each_series

HOUR_US = 3_600_000_000
KEYS = 150


def key(number: int) -> IdempotencyKey:
    return IdempotencyKey(number.to_bytes(2, "big") * 16, b"digest" * 5, 1 << 60)


def fill(journal: SqliteJournal, first: int) -> None:
    """Single events, batches, a deletion, keys, and a checkpoint with pieces."""
    mark = Mark(0, b"")
    for number in range(first, first + KEYS):
        event = EventBatch.single(f"series {number % 5}", number, number / 3)
        mark = journal.append(Proposal(event, b"answer %d" % number), key=key(number * 331 % 65_521)).mark or mark
    checkpoint = journal.read_checkpoint()
    pieces = {number: os.urandom(40 + 97 * (number % 60)) for number in range(first, first + 60)}
    journal.replace_prefix(
        checkpoint.id if checkpoint else None, Checkpoint(os.urandom(16), mark, 0, os.urandom(700)), pieces
    )
    journal.maintain()
    for number in range(first, first + 200):
        journal.append(Proposal(EventBatch.single("default", number, number / 7)))
    for number in range(4):
        values = np.arange(3000 * number, dtype=np.float64)
        journal.append(Proposal(EventBatch((Part("batch", values.astype(np.int64), values),))))
    journal.append(Proposal(Deletion("series 1", 0, HOUR_US)))


def contents(journal: SqliteJournal) -> list[object]:
    """Everything that can be asked of it."""
    found: list[object] = []
    checkpoint = journal.read_checkpoint()
    found.append(checkpoint)
    mark = START
    if checkpoint is not None:
        found.append(journal.read_pieces(checkpoint.id, 0, 30))
        found.append(journal.read_pieces(checkpoint.id, 30, 1 << 40))
        mark = checkpoint.mark
    while (segment := journal.read(mark, limit_records=97)).records:
        mark = segment.mark
        for change in each_series(segment.changes):
            if isinstance(change, Deletion):
                found.append(change)
            else:
                columns = (change.ts_us, change.values, change.appended_us)
                found.append((change.series, *(column.tobytes() for column in columns)))
    found.append(mark)
    return found


def history(journal: SqliteJournal) -> list[object]:
    """The checkpoint with its pieces, and each record after it: (its mark, its changes)."""
    checkpoint = journal.read_checkpoint()
    pieces = [] if checkpoint is None else journal.read_pieces(checkpoint.id, 0, 1 << 40)
    found: list[object] = [(checkpoint, pieces)]
    mark = START if checkpoint is None else checkpoint.mark
    while (segment := journal.read(mark, limit_records=1)).records:
        mark = segment.mark
        found.append(
            (
                mark,
                [
                    change
                    if isinstance(change, Deletion)
                    else (change.series, change.ts_us.tobytes(), change.values.tobytes(), change.appended_us.tobytes())
                    for change in each_series(segment.changes)
                ],
            )
        )
    return found


def answers(journal: SqliteJournal, first: int) -> list[bytes | None]:
    return [journal.find_answer(key(number * 331 % 65_521)) for number in range(first, first + KEYS)]


if __name__ == "__main__":
    journal = SqliteJournal(sys.argv[1])
    fill(journal, 0)
    if sys.argv[2] == "1":
        journal.maintain()
        fill(journal, KEYS)
    else:
        journal.close()
    sys.stdout.flush()
    os._exit(0)
