"""Checkpoints of a PostgreSQL journal: state and pieces, replaced in one transaction beside the appends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from psycopg import pq
from zlib_ng.zlib_ng import crc32

from statsapi.journal.checksums import MISMATCH, checkpoint_checksum, piece_checksum, pieces_checksum
from statsapi.journal.postgres_rows import NO_ID
from statsapi.journal.postgres_server import Server
from statsapi.journal.postgres_session import Session, Statement, byteas, long_of, longs
from statsapi.journal.protocol import NO_PIECES, Checkpoint, HistoryChanged, Mark

# This many pieces go at once; most have a few KB. The whole transaction may take long: it holds up no append.
PIECES_AT_ONCE: Final = 256
LONGER_S: Final = 30.0

# Checkpoints are made one after the other; appends have a lock of their own.
_HOLD = "SELECT pg_advisory_xact_lock(1937006965, '{schema}.meta'::regclass::oid::integer)"
_HEAD = """
SELECT m.checkpoint_id, c.id, c.position, c.record_id, c.appended_us, c.state_checksum, c.pieces_checksum, c.checksum,
       c.state
FROM {schema}.meta m LEFT JOIN {schema}.checkpoint c ON true
"""
_NAMED = "SELECT id FROM {schema}.checkpoint"
_LIST = "SELECT key, checksum FROM {schema}.pieces ORDER BY key"
_PIECES = """
SELECT p.key, p.checksum, p.piece FROM {schema}.pieces p, {schema}.checkpoint c
WHERE c.id = $1::bytea AND p.key >= $2::bigint AND p.key < $3::bigint ORDER BY p.key
"""
_RECORD = "SELECT id, appended_us FROM {schema}.records WHERE position = $1::bigint"
_DROP = "DELETE FROM {schema}.pieces WHERE key = ANY ($1::bigint[])"
_DROP_BEFORE = "DELETE FROM {schema}.pieces WHERE key < $1::bigint"
_PUT = """
INSERT INTO {schema}.pieces SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
ON CONFLICT (key) DO UPDATE SET checksum = EXCLUDED.checksum, piece = EXCLUDED.piece
"""
_SET = """
INSERT INTO {schema}.checkpoint
VALUES (true, $1::bytea, $2::bigint, $3::bytea, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::bytea)
ON CONFLICT (one) DO UPDATE SET id = EXCLUDED.id, position = EXCLUDED.position, record_id = EXCLUDED.record_id,
    appended_us = EXCLUDED.appended_us, state_checksum = EXCLUDED.state_checksum,
    pieces_checksum = EXCLUDED.pieces_checksum, checksum = EXCLUDED.checksum, state = EXCLUDED.state
"""
_NAME = "UPDATE {schema}.meta SET checkpoint_id = $1::bytea"

_WHAT: Final = "the journal's checkpoint"


class Checkpoints:
    """See the methods of Journal with the same names. Any thread may call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        schema = server.address.schema
        self._begin, self._commit = Statement("BEGIN", schema), Statement("COMMIT", schema)
        self._begin_read = Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", schema)
        self._hold, self._head, self._named, self._list, self._pieces = (
            Statement(text, schema) for text in (_HOLD, _HEAD, _NAMED, _LIST, _PIECES)
        )
        self._record, self._drop, self._drop_before, self._put, self._set, self._name = (
            Statement(text, schema) for text in (_RECORD, _DROP, _DROP_BEFORE, _PUT, _SET, _NAME)
        )
        self._index: tuple[bytes, dict[int, int]] | None = None

    def read(self) -> Checkpoint | None:
        with self._server.session() as session:
            session.run(self._begin_read)
            current = self._current(session)
            if current is not None:
                self._index = (current[0].id, self._checked_list(session, current[1]))
            session.run(self._commit)
        return None if current is None else current[0]

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        with self._server.session() as session:
            session.run(self._begin_read)
            row = session.run(self._named)
            if row.ntuples == 0 or row.get_value(0, 0) != checkpoint_id:
                raise HistoryChanged("another checkpoint has taken this one's place")
            index = self._index
            if index is None or index[0] != checkpoint_id:
                current = self._current(session)
                if current is None or current[0].id != checkpoint_id:
                    raise self._server.damaged(_WHAT, "it is missing")
                self._index = index = (checkpoint_id, self._checked_list(session, current[1]))
            result = session.run(self._pieces, [checkpoint_id, first, last], LONGER_S)
            session.run(self._commit)
        found = [(long_of(result.get_value(row, 0)), result.get_value(row, 2) or b"") for row in range(result.ntuples)]
        if [key for key, _ in found] != [key for key in index[1] if first <= key < last]:
            raise self._server.damaged(f"{_WHAT}'s pieces {first} to {last - 1}", "some are missing")
        for key, piece in found:
            if piece_checksum(key, piece) != index[1][key]:
                raise self._server.damaged(f"{_WHAT}'s piece {key}", MISMATCH)
        return found

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        with self._server.session() as session:
            session.run(self._begin)
            session.run(self._hold, longer_s=LONGER_S)
            current = self._current(session)
            if previous_id != (None if current is None else current[0].id):
                return False
            if current is not None:
                # Otherwise the new checksum would leave a missing piece out as well.
                self._checked_list(session, current[1])
            appended_us = self._time_of(session, checkpoint.mark, None if current is None else current[0])
            gone = [key for key, piece in pieces.items() if piece is None]
            if gone:
                session.run(self._drop, [longs(gone)], LONGER_S)
            if drop_pieces_before is not None:
                session.run(self._drop_before, [drop_pieces_before], LONGER_S)
            new = (
                (key, piece)
                for key, piece in pieces.items()
                if piece is not None and (drop_pieces_before is None or key >= drop_pieces_before)
            )
            while some := list(islice(new, PIECES_AT_ONCE)):
                keys = [key for key, _ in some]
                checksums = [piece_checksum(key, piece) for key, piece in some]
                session.run(self._put, [longs(keys), longs(checksums), byteas([piece for _, piece in some])], LONGER_S)
            listed = self._listed(session)
            head = (
                checkpoint.id,
                checkpoint.mark.position,
                checkpoint.mark.record_id,
                appended_us,
                crc32(checkpoint.state),
                pieces_checksum(list(listed), list(listed.values())),
            )
            session.run(self._set, [*head, checkpoint_checksum(*head), checkpoint.state], LONGER_S)
            session.run(self._name, [checkpoint.id])
            session.run(self._commit, longer_s=LONGER_S)
        return True

    def _time_of(self, session: Session, mark: Mark, current: Checkpoint | None) -> int:
        """When the mark's record was appended: time goes on from there when no record is left."""
        if current is not None and mark == current.mark:
            return current.appended_us
        row = session.run(self._record, [mark.position])
        if (
            row.ntuples == 0
            or row.get_value(0, 0) != mark.record_id
            or (current and mark.position <= current.mark.position)
        ):
            raise HistoryChanged("the checkpoint's record is not in the journal")
        return long_of(row.get_value(0, 1))

    def _current(self, session: Session) -> tuple[Checkpoint, int] | None:
        """The current checkpoint, checked, and the checksum of the list of its pieces."""
        row = session.run(self._head, longer_s=LONGER_S)
        if row.ntuples != 1:
            raise self._server.damaged("the journal's table meta", "its row is missing")
        get = row.get_value
        named, found = get(0, 0), get(0, 1)
        if found is None:
            if named:
                raise self._server.damaged(_WHAT, "it is missing")
            return None
        state = get(0, 8) or b""
        head = (
            found,
            long_of(get(0, 2)),
            get(0, 3) or NO_ID,
            long_of(get(0, 4)),
            long_of(get(0, 5)),
            long_of(get(0, 6)),
        )
        # A checksum is of 32 bits, and its column of 64: what does not fit was not written.
        is_written = head[4] >> 32 == head[5] >> 32 == 0 and checkpoint_checksum(*head) == long_of(get(0, 7))
        if named != found or not is_written or crc32(state) != head[4]:
            raise self._server.damaged(_WHAT, MISMATCH)
        return Checkpoint(found, Mark(head[1], head[2]), head[3], state), head[5]

    def _listed(self, session: Session) -> dict[int, int]:
        result = session.run(self._list, longer_s=LONGER_S)
        return dict(_pairs(result))

    def _checked_list(self, session: Session, expected: int) -> dict[int, int]:
        """The pieces' checksums by their keys. 1 µs a piece."""
        listed = self._listed(session)
        if pieces_checksum(list(listed), list(listed.values())) != expected:
            raise self._server.damaged(f"the list of {_WHAT}'s pieces", MISMATCH)
        return listed


def _pairs(result: pq.abc.PGresult) -> Sequence[tuple[int, int]]:
    return [(long_of(result.get_value(row, 0)), long_of(result.get_value(row, 1))) for row in range(result.ntuples)]
