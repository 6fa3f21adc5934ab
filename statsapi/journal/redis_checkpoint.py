"""Checkpoints of a Redis journal: state and pieces, staged in parts, then put in place by one script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from zlib_ng.zlib_ng import crc32

from statsapi.journal import redis_scripts as scripts
from statsapi.journal.checksums import MISMATCH, piece_checksum
from statsapi.journal.protocol import NO_PIECES, Checkpoint, HistoryChanged
from statsapi.journal.redis_heads import State
from statsapi.journal.redis_primary import Call
from statsapi.journal.redis_scripts import ID_BYTES
from statsapi.journal.redis_server import Server

# A checkpoint's state and pieces travel in parts of this size, each sooner than a socket's timeout; unfinished ones go
# after the TTL. This many pieces are read at once; most have a few KB.
PART_BYTES: Final = 8 << 20
PIECES_AT_ONCE: Final = 16


class Checkpoints:
    """See the methods of Journal with the same names."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def read(self) -> Checkpoint | None:
        missing = None
        while True:
            told, name, check, pieces = self._server.run(scripts.CHECKPOINT, [self._server.pieces_key])
            state = State(*told)
            if name is None:
                return None
            content = self._fetch_state(name)
            if content is not None:
                self._check_checkpoint(state, name, check, pieces, content)
                return Checkpoint(name, state.behind, state.checkpoint_us, content)
            if name == missing:  # one script removes a state and names the next one
                raise self._server.damaged("the checkpoint", "its state is missing")
            missing = name  # unless another checkpoint took its place meanwhile, however often that happens

    def _check_checkpoint(self, state: State, name: bytes, check: bytes | None, pieces: int, content: bytes) -> None:
        """Compare it with its checksum, unless it is of schema 1, which had none."""
        if check is None:
            return
        expected, _, count = check[len(name) :].partition(b":")
        record = state.checkpoint_record
        found = state.checkpoint_position + state.checkpoint_us + _checkpoint_checksum(name, record, content)
        # Where name and sum both differ, an older version has made another checkpoint since, and that is no damage.
        if check.startswith(name) != (expected == b"%d" % found):
            raise self._server.damaged("the checkpoint", MISMATCH)
        if not check.startswith(name):
            return
        if count != b"%d" % pieces:
            raise self._server.damaged("the checkpoint", f"it has {pieces} of its {count.decode()} pieces")

    def _fetch_state(self, name: bytes) -> bytes | None:
        key = self._server.state_key(name)
        count, part = self._server.calls([Call("LLEN", key), Call("LINDEX", key, 0)])
        parts = [part]
        for at in range(1, count):
            parts.append(self._server.calls([Call("LINDEX", key, at)])[0])
        return None if any(part is None for part in parts) else b"".join(parts)

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        names = self._piece_names(checkpoint_id, first, last)
        contents: list[list[bytes]] = []
        for at in range(0, len(names), PIECES_AT_ONCE):
            some = names[at : at + PIECES_AT_ONCE]
            contents += self._server.calls([Call("LRANGE", self._server.piece_key(name), 0, -1) for name in some])
        if not all(contents):
            self._piece_names(checkpoint_id, first, last)  # raises where the next checkpoint has taken them away
        return [
            (int(name.partition(":")[0]), self._piece(name, *parts))
            for name, parts in zip(names, contents, strict=True)
        ]

    def _piece(self, name: str, *parts: bytes) -> bytes:
        """A piece's content, compared with the size and checksum in its name."""
        piece = b"".join(parts)
        key, _, size, *checks = name.split(":")  # one of schema 1 has no checksum
        what = f"the checkpoint's piece {key}"
        if not parts:
            raise self._server.damaged(what, "it is missing")
        if len(piece) != int(size) or any(piece_checksum(int(key), piece) != int(check) for check in checks):
            raise self._server.damaged(what, MISMATCH)
        return piece

    def _piece_names(self, checkpoint_id: bytes, first: int, last: int) -> list[str]:
        names = self._server.run(scripts.PIECES, [self._server.pieces_key], [checkpoint_id, first, last])
        if names is None:
            raise HistoryChanged("another checkpoint has taken this one's place")
        return [name.decode() for name in names]

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        if self._server.calls([Call("HGET", self._server.keys[1], "cp_name")])[0] != previous_id:
            return False  # asked before the state travels, which may have megabytes
        state_key = self._server.state_key(checkpoint.id)
        staged = {state_key: checkpoint.state}
        changes: list[int | str] = []
        for key, piece in pieces.items():
            name = "" if piece is None else f"{key}:{checkpoint.id.hex()}:{len(piece)}:{piece_checksum(key, piece)}"
            changes += (key, name)
            if piece is not None:
                staged[self._server.piece_key(name)] = piece
        for staged_key, content in staged.items():
            self._stage(staged_key, content)
        mark = checkpoint.mark
        record_id, epoch = mark.record_id[:ID_BYTES], int.from_bytes(mark.record_id[ID_BYTES:], "big")
        bound = "-inf" if drop_pieces_before is None else drop_pieces_before
        keys = [*self._server.keys, self._server.pieces_key, state_key]
        if previous_id is not None:
            keys.append(self._server.state_key(previous_id))
        arguments = (previous_id or b"", checkpoint.id, mark.position, record_id, epoch, bound)
        check = _checkpoint_checksum(checkpoint.id, record_id, checkpoint.state)
        done = self._server.calls([Call.of(scripts.COMMIT, keys, [*arguments, check, *changes])], resend=False)[0]
        if done == 1:
            return True
        self._server.calls([Call("UNLINK", *staged)])
        if done == 0:
            return False
        raise HistoryChanged("the record under the new checkpoint is no longer in the journal")

    def _stage(self, key: str, content: bytes) -> None:
        for at in range(0, max(len(content), 1), PART_BYTES):
            self._server.calls([Call.of(scripts.STAGE, [key], [content[at : at + PART_BYTES]])], resend=False)


def _checkpoint_checksum(name: bytes, record_id: bytes, state: bytes) -> int:
    """The part of a checkpoint's check that does not depend on its time."""
    return crc32(name + record_id, crc32(state))
