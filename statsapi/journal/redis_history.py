"""What this process knows of the history of a Redis journal, and what it does when the server has another one.

See History in redis_streams.py.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from statsapi.journal import redis_scripts as scripts
from statsapi.journal.group_commit import Request
from statsapi.journal.protocol import START, HistoryChanged, Lost, Mark
from statsapi.journal.redis_heads import NO_ROWS, Rows, State, mark_stands
from statsapi.journal.redis_scripts import ID_BYTES
from statsapi.journal.redis_server import Server

# A loss is told at every start until this long after it was noticed.
LOSS_TOLD_US: Final = 7 * 86_400_000_000


class Known(NamedTuple):
    """What this process knows of the history: its id, its last record, its checkpoint's position and time, the number
    of missing records, and its epoch.
    """

    born: bytes = b""
    position: int = 0
    id: bytes = b""
    us: int = 0
    checkpoint_position: int = -1
    checkpoint_us: int = 0
    missing: int = 0
    epoch: int = 0


class _Losing(NamedTuple):
    """The last loss found: when its first part was noticed, all records, and those that were not reported before."""

    began_us: int
    records: int
    more: int


class History:
    """Any thread may call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.known = Known()
        # By position: the id and time of each record that this process appended and that no read has passed yet. A
        # loss may take these records and leave the last known one. The server then gives their positions to other
        # records and goes on past them: only the ids kept here show that ours are gone.
        self._appended: dict[int, tuple[bytes, int]] = {}
        self._knowing = threading.Lock()
        self._suspects = False  # whether an append has shown that records are gone
        self._lost_us = 0  # when the last loss that was reported here was noticed
        self._losing: _Losing | None = None

    def check(self, after: Mark, known: Known, state: State, rows: Rows) -> None:
        """HistoryChanged unless the mark's record and every record that this process ever knew are in the journal.

        `known` is what it knew before it asked for the state. Costs a round trip more where something is wrong.
        """
        stands = mark_stands(after, state, rows)
        lost = self._meet(rows, state)
        gone = (
            state.position < known.position
            or (known.born != state.born and known.born != b"")
            or (rows is not NO_ROWS and rows.id_at(known.position) not in (known.id, None))
        )
        if lost is not None and not gone:  # the last known record stands, so it is this one that is judged
            known, gone = known._replace(position=lost[0], id=lost[1], us=lost[2]), True
        # The epoch of a loss follows from the clock. Two copies that were put back within 2 s may have the same, but
        # where a mark's record is missing from the second, that lacks more; in one history no more are missing without
        # another epoch.
        other_copy = (known.born, known.epoch) == (state.born, state.epoch) and known.missing < state.missing
        if gone or self._suspects or not stands or other_copy:
            told = self._server.run(scripts.JUDGE, arguments=[*known, secrets.token_bytes(8)])
            if told or other_copy:
                stands = False
            with self._knowing:
                self._suspects = False
                if told or other_copy:
                    self.known = Known()
                    self._appended.clear()
        if not stands or (after == START and state.lost_us > self._lost_us):
            loss = self.find_loss(after)
            if not stands or loss is not None:
                raise HistoryChanged("the record this view stands on is no longer in the journal", loss)

    def _meet(self, rows: Rows, state: State) -> tuple[int, bytes, int] | None:
        """Forget the appends that these rows, or a checkpoint, have passed. Gives position, id and time of the last one
        that is not among these rows.
        """
        if not self._appended or rows is NO_ROWS:
            return None
        last, missed = rows.positions[-1], None
        with self._knowing:
            for position in sorted(at for at in self._appended if at <= max(last, state.checkpoint_position)):
                record_id, us = self._appended.pop(position)
                if state.checkpoint_position < position and rows.id_at(position) not in (record_id, None):
                    missed = position, record_id, us
        return missed

    def find_loss(self, after: Mark | None = None) -> Lost | None:
        """The last loss written down, if it came after this mark; without a mark, if it is at most LOSS_TOLD_US old."""
        records, since_us, noticed_us, epoch, clock_us, began_us = self._server.run(scripts.LOSS)
        if after is None:
            news = clock_us - noticed_us < LOSS_TOLD_US
        elif after == START:
            news = noticed_us > self._lost_us
        else:
            news = int.from_bytes(after.record_id[ID_BYTES:], "big") < epoch
        with self._knowing:
            losing = self._losing
            if losing is None or self._lost_us != noticed_us:
                # A process that knew of more records than the one before it notes the same loss again.
                before = losing.records if losing is not None and losing.began_us == began_us else 0
                self._losing = losing = _Losing(began_us, records, records - before)
            self._lost_us = noticed_us
        if not noticed_us or not news:
            return None
        noticed = datetime.fromtimestamp(noticed_us // 1_000_000, UTC).isoformat()
        how = f"{self._server.address} no longer has them, which was noticed at {noticed}"
        return Lost(losing.more, since_us if since_us > 0 else None, how, all=since_us < 0)

    def learn_append(self, known: Known, born: bytes, appended: Iterable[tuple[Request, Any]], now_us: int) -> None:
        """Take note of an append; `known` is what was known before it."""
        last = None
        with self._knowing:  # for all of it: a reader may be looking at the appended ones
            for request, result in appended:
                if isinstance(result, int) and result:
                    last = (result, request.record_id)
                    self._appended.setdefault(result, (request.record_id, now_us))
                    if result <= known.position:
                        self._suspects = True  # that position was given before
            if last is not None:
                if self.known.born not in (b"", born):
                    self._suspects = True  # another history, which says nothing of what is known of this one
                elif last[0] > self.known.position:
                    self.known = Known(self.known.born or born, last[0], last[1], now_us, *self.known[4:])

    def learn_read(self, known: Known, state: State, rows: Rows) -> None:
        """Take note of a read; `known` is what was known before it."""
        last = rows.positions[-1] if rows.positions else 0
        if (
            last <= known.position
            and state.epoch == known.epoch
            and state.checkpoint_position == known.checkpoint_position
            and state.missing == known.missing
            and state.born == known.born
        ):
            return  # nothing new: nearly always
        place = (state.born, state.checkpoint_position, state.checkpoint_us, state.missing, state.epoch)
        with self._knowing:
            self.known = Known(place[0], *self.known[1:4], *place[1:])
            if last > self.known.position:
                self.known = self.known._replace(position=last, id=rows.id(-1), us=rows.stamps_us[-1])
