"""What this process knows of the history of a PostgreSQL journal, and whether the server still has it.

A view compares the record at its own mark. But this process may have appended further than its view has read: after a
failover to an older copy the mark stands, and records that were acknowledged here are gone. So the last record that
this process appended or read is looked at by each read as well, and by each append before another takes its place:
others may have recorded as many in the meantime, and then the next position says nothing.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from statsapi.journal.postgres_rows import State
from statsapi.journal.postgres_server import Server
from statsapi.journal.postgres_session import Statement, long_of
from statsapi.journal.protocol import HistoryChanged, Lost, Mark


class Known(NamedTuple):
    """The last record that this process appended or read, its time, and the history's id; position 0 for none."""

    position: int = 0
    id: bytes = b""
    us: int = 0
    born: bytes = b""


class History:
    """Any thread may call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.known = Known()
        self._end = Statement("SELECT coalesce(max(position), 0) FROM {schema}.records", server.address.schema)
        self._lock = threading.Lock()

    def check(self, after: Mark, known: Known, state: State) -> None:
        """HistoryChanged unless the mark's record and the known one are in the journal, or were compacted.

        `known` is what was known before the state was asked for.
        """
        other = known.born not in (b"", state.born)
        gone = known.position > state.checkpoint and known.id != state.at_known
        if known.position and (other or gone):
            with self._lock:
                mine = self.known.born == known.born  # told once
                self.known = Known()
            if mine:
                # Where schemas were renamed, a function still writes to the one it was made for.
                self._server.look_again()
                # The number of lost records is known only where nothing was appended after the loss.
                ends = max(state.checkpoint, self.end())
                how = f"{self._server.address} is " + ("another journal" if other else "an older copy")
                lost = Lost(known.position - ends if known.position > ends and not other else None, None, how)
                raise HistoryChanged("the last record known here is no longer in the journal", lost)
        if not state.stands(after):
            raise HistoryChanged("the record this view stands on is no longer in the journal")

    def end(self) -> int:
        """The position of the last record that is there; 0 without one. A round trip."""
        return long_of(self._server.run(self._end).get_value(0, 0))

    def learn_append(self, mark: Mark, us: int, born: bytes, *, known_stands: bool = True) -> None:
        """Take note of an append. What was known before is kept where that record is gone (not `known_stands`), where
        this position is not after it, and in another history: the next read then finds the loss.
        """
        with self._lock:
            if known_stands and mark.position > self.known.position and self.known.born in (b"", born):
                self.known = Known(mark.position, mark.record_id, us, born)

    def learn_read(self, known: Known, mark: Mark, us: int, born: bytes) -> None:
        """`known` is what was known before it."""
        if mark.position > known.position:
            self.learn_append(mark, us, born)
