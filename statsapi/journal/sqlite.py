"""The embedded journal: one SQLite file in WAL mode, shared by all workers of one machine.

Its tables: sqlite_tables.py. Its file, and how that may be replaced: sqlite_file.py; made by
sqlite_start.py. Its connections: sqlite_link.py.

A position is seq: the last row's plus one, or the checkpoint's plus one when everything was compacted, taken inside the
write transaction. Rows go only from the front and only up to the checkpoint, so no position is given twice.
AUTOINCREMENT promises the same, and dirties a second page with every append (a third more time).

After a crash. A committed transaction is in the WAL, which the operating system holds once COMMIT has returned: SIGKILL
loses nothing. fsync=always: COMMIT fsyncs (synchronous=FULL). fsync=interval: `maintain` does, with a passive WAL
checkpoint (synchronous=NORMAL). Where that cannot finish, because of a reader of an older state or a full disk, it
flushes the -wal itself. The end of the journal is noted beside the file (highwater.py), so that a lost end is noticed
at the next opening. A COMMIT that fails with an I/O error is of unknown outcome: its last frame may be on the disk.
Every other failure surely recorded nothing.

Threads and processes. Three connections, each behind a lock of its own: the writer, the reader, the keeper (which runs
`maintain`). Appends of several threads at one time are committed together: see group_commit.py. SQLite's own write
lock keeps workers apart. Every wait for a lock has a limit, so a stopped peer costs an error, not a hang. Order of
locks: writer before reader; the keeper's alone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from zlib_ng.zlib_ng import crc32

from statsapi.errors import IdempotencyConflict, JournalDamaged, JournalRefused
from statsapi.journal import sqlite_compact, sqlite_salvage
from statsapi.journal import sqlite_tables as tables
from statsapi.journal.checksums import check_sealed, missing, seal_of
from statsapi.journal.columns import decode_sealed
from statsapi.journal.engine_protocol import LimitStorage, Options
from statsapi.journal.group_commit import WAIT_LIMIT_S
from statsapi.journal.protocol import (
    NO_PIECES,
    READ_LIMIT_BYTES,
    READ_LIMIT_RECORDS,
    START,
    Appended,
    Checkpoint,
    Clock,
    Decide,
    Fsync,
    HistoryChanged,
    Info,
    Journal,
    Lost,
    Mark,
    Proposal,
    Segment,
    SharedFolder,
    wall_clock_us,
)
from statsapi.journal.sqlite_appends import Appends
from statsapi.journal.sqlite_backup import Backup
from statsapi.journal.sqlite_file import File
from statsapi.journal.sqlite_keeper import Keeper
from statsapi.journal.sqlite_link import Link
from statsapi.journal.sqlite_start import prepare
from statsapi.journal.sqlite_tables import SCHEMA_VERSION, Last
from statsapi.journal.sqlite_url import SCHEME, path_of, shortened
from statsapi.model import IdempotencyKey

_PIECES = "SELECT key, piece FROM pieces WHERE key >= ? AND key < ? ORDER BY key"
# One statement, so one snapshot; it looks at no payload.
_PROBE = """
SELECT (SELECT seq FROM records ORDER BY seq DESC LIMIT 1), (SELECT id FROM records WHERE seq = ?1),
       checkpoint.position, checkpoint.record_id
FROM (SELECT 1) LEFT JOIN checkpoint
"""
_INFO = "SELECT count(*), min(seq), max(seq) FROM records WHERE seq > ?"
_ROWS = "SELECT record FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2"


class SqliteEngine:
    """See the Engine protocol."""

    kind: ClassVar = "sqlite"
    single_process: ClassVar = False
    is_kept: ClassVar = True
    is_file: ClassVar = True
    is_remote: ClassVar = False
    has_replicas: ClassVar = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._path = url.removeprefix(SCHEME)

    def check_url(self) -> None:
        path_of(self._url)

    def open(self, options: Options) -> Journal:
        path = path_of(self._url)
        try:
            return SqliteJournal(path, fsync=options.fsync, clock_us=options.clock_us, create=options.create)
        except OSError as error:  # a folder that may not be looked into, a name that is too long for this file system
            raise JournalRefused(
                f"the SQLite journal {shortened(self._url)!r} cannot be used: {error.strerror}"
            ) from error

    def shares_limits(self) -> LimitStorage | None:
        """A small file of its own beside the journal (api/limit_storage.py)."""
        return LimitStorage(f"sqlite+limits:///{self._path}.limits")

    def find_damage(self) -> Iterator[str]:
        for damage in sqlite_salvage.damages(self._path):
            yield f"{damage.what}: {damage.why}"

    def salvage(self, target: str) -> str:
        saved = sqlite_salvage.salvage(self._path, target)
        checkpoint = f"the checkpoint with {saved.pieces:,} pieces" if saved.checkpoint else "no checkpoint"
        return f"{saved.records:,} records, {checkpoint}, {saved.answers:,} answers kept under an Idempotency-Key"

    def compact(self) -> tuple[int, int]:
        file = File(os.path.abspath(path_of(self._url)), WAIT_LIMIT_S)
        prepare(file, create=False)
        return sqlite_compact.compact(file)

    def put_away(self) -> None:
        """Leave one file. SQLite's last connection folds the -wal into it. Of workers that close theirs at the same
        moment none may be the last, and a restore would then meet the -wal of another file.
        """
        self.open(Options(create=False)).close()


class SqliteJournal:
    """See the Journal protocol, and the module's text for what is kept where and by which lock."""

    clock_skew_us: int | None = None

    def __init__(
        self,
        path: str,
        *,
        fsync: Fsync = "interval",
        clock_us: Clock = wall_clock_us,
        wait_limit_s: float = WAIT_LIMIT_S,
        create: bool = True,
    ) -> None:
        self.observe_fsync: Callable[[float], None] = lambda seconds: None
        self.settled_us = clock_us
        self.local_clock_us: Clock | None = clock_us
        self._clock_us = clock_us
        self._wait_limit_s = wait_limit_s
        file = File(os.path.abspath(path), wait_limit_s)
        synchronous = "FULL" if fsync == "always" else "NORMAL"
        self.promise = f"The journal is {file.path}: what is acknowledged survives the end of every process" + (
            " and a power cut" if fsync == "always" else "; a power cut costs the last second"
        )
        self._file = file
        self._writer = Link(file, f"PRAGMA synchronous={synchronous}", "PRAGMA busy_timeout=0")
        self._appends = Appends(
            self._writer,
            file,
            clock_us,
            lambda: self.settled_us(),
            wait_limit_s,
            observe_commit=(lambda seconds: self.observe_fsync(seconds)) if fsync == "always" else None,
        )
        self._reader = Link(file, f"PRAGMA busy_timeout={int(wait_limit_s * 1000)}")
        self._keeping = Link(file, "PRAGMA synchronous=NORMAL", "PRAGMA busy_timeout=0")
        self._keeper = Keeper(self._keeping, file, wait_limit_s, flushes=fsync != "always")
        self._pieces: tables.Pieces | None = None
        prepare(file, create=create)
        try:
            for link in (self._writer, self._reader, self._keeping):
                link.connection()
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> Lost | None:
        return self._file.claim_loss()

    def shared_folder(self) -> SharedFolder | None:
        return SharedFolder(self._file.real + "-views", self._file.identity().inode)

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        return self._appends.append(proposal, key)

    # Reading

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        row = self._reader.query(lambda connection: tables.read_answer(connection, key.name, self.settled_us()))
        if row is None:
            return None
        digest, answer = row
        if digest != key.digest:
            raise IdempotencyConflict
        return answer

    def read(
        self,
        after: Mark,
        *,
        until_us: int | None = None,
        wrong_after_us: int | None = None,
        limit_bytes: int = READ_LIMIT_BYTES,
        limit_records: int = READ_LIMIT_RECORDS,
    ) -> Segment:
        records: list[bytes] = []
        residues: set[int] = set()
        last = after.position

        def fetch(connection: sqlite3.Connection) -> bool:
            """Whether there is more."""
            nonlocal last
            if _probe(connection, after) <= after.position:
                return False
            # The rows must come from the snapshot in which the mark was checked: a prefix may go in between.
            connection.execute("BEGIN")
            last = _probe(connection, after)
            size = 0
            for (record,) in connection.execute(_ROWS, (after.position, max(1, limit_records))):
                if until_us is not None:
                    stamp = seal_of(record).appended_us
                    if until_us < stamp and (wrong_after_us is None or stamp <= wrong_after_us):
                        # A damaged stamp would end every read here.
                        check_sealed(after.position + 1 + len(records), record)
                        return False
                residues.add(crc32(record))  # here, while the record is in the cache: 10 µs for 160 kB instead of 46
                records.append(record)
                size += len(record)
                if size >= limit_bytes:
                    break
            if not records:
                raise missing(after.position + 1, last)
            return after.position + len(records) < last

        now_us = self._clock_us()
        try:
            more = self._reader.query(fetch)
            if not records:
                return Segment(after, None, (), 0, more=False, end=after.position, now_us=now_us)
            changes = decode_sealed(after.position, records, residues)
        except TypeError as error:  # a flipped bit made it a number or a null
            raise JournalDamaged(
                f"the journal's record {after.position + 1 + len(records)}", "it is not of its form"
            ) from error
        record_id, position, appended_us = seal_of(records[-1])
        return Segment(
            Mark(position, record_id),
            appended_us,
            changes,
            len(records),
            more=more,
            end=max(last, position),
            now_us=now_us,
        )

    def read_checkpoint(self) -> Checkpoint | None:
        def look(connection: sqlite3.Connection) -> Checkpoint | None:
            connection.execute("BEGIN")
            head = tables.read_head(connection)
            if head is None:
                return None
            self._pieces = tables.read_pieces_index(connection, head)
            mark = Mark(head.position, head.record_id)
            return Checkpoint(head.id, mark, head.appended_us, tables.read_state(connection, head))

        return self._reader.query(look)

    # Compaction and housekeeping

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        def look(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
            connection.execute("BEGIN")
            current = connection.execute("SELECT id FROM checkpoint").fetchone()
            if current is None or current[0] != checkpoint_id:
                raise HistoryChanged("another checkpoint has taken this one's place")
            index = self._pieces
            if index is None or index.checkpoint_id != checkpoint_id:
                head = tables.read_head(connection)
                if head is None:
                    raise HistoryChanged("another checkpoint has taken this one's place")
                index = self._pieces = tables.read_pieces_index(connection, head)
            pieces = connection.execute(_PIECES, (first, last)).fetchall()
            index.check(first, last, pieces)
            return pieces

        return self._reader.query(look)

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        def switch(connection: sqlite3.Connection) -> bool:
            current = tables.read_head(connection)
            if previous_id != (None if current is None else current.id):
                return False
            if current is not None:
                # Otherwise the new checksum would leave a missing piece out as well.
                tables.read_pieces_index(connection, current)
            _probe(connection, checkpoint.mark)
            record = tables.read_record(connection, checkpoint.mark.position)
            # Time continues from here when no record is left, so it is the record's own, not the caller's.
            appended_us = (record or current or checkpoint).appended_us
            gone = ((key,) for key, piece in pieces.items() if piece is None)
            connection.executemany("DELETE FROM pieces WHERE key = ?", gone)
            if drop_pieces_before is not None:
                connection.execute("DELETE FROM pieces WHERE key < ?", (drop_pieces_before,))
            tables.write_pieces(
                connection,
                (
                    (key, piece)
                    for key, piece in pieces.items()
                    if piece is not None and (drop_pieces_before is None or key >= drop_pieces_before)
                ),
            )
            tables.write_checkpoint(connection, checkpoint.id, *checkpoint.mark, appended_us, checkpoint.state)
            return True

        with self._appends.group.held():
            return self._appends.transact(switch, time.monotonic() + self._wait_limit_s)

    def maintain(self) -> None:
        # The writer first, then the reader: a decision holds the writer's lock and reads.
        if not all(link.leave_removed() for link in (self._writer, self._reader, self._keeping)):
            return
        self._keeper.maintain(self.settled_us, self.observe_fsync)

    def check_writable(self, wait_s: float = 1.0) -> None:
        self._file.check_safe()
        deadline = time.monotonic() + wait_s
        with self._appends.group.held(wait_s):
            if self._writer.failed:  # a lock is no proof of space: a page is written, as by an append
                self._writer.transact(tables.touch, deadline)
                return
            try:
                self._writer.begin(self._writer.connection(), deadline)
            finally:
                self._writer.roll_back()

    def size_bytes(self) -> int:
        self._reader.check_open()
        return self._file.size_bytes()

    def info(self) -> Info:
        def look(connection: sqlite3.Connection) -> tuple[tables.Head | None, int, int, int, Last | None]:
            connection.execute("BEGIN")
            head = tables.read_head(connection)
            base = 0 if head is None else head.position
            records, first, last = connection.execute(_INFO, (base,)).fetchone()
            seen = tables.read_last(connection, None)
            end = base if seen is None else seen[0]
            if records != end - base or (records and (first, last) != (base + 1, end)):
                raise JournalDamaged("the journal's records", f"they are not all of {base + 1} to {end}")
            return head, records, first, last, seen

        head, records, first, last, seen = self._reader.query(look)
        return Info(
            self._file.path,
            self.size_bytes(),
            records,
            first,
            last,
            None if seen is None else seen[2],
            None if head is None else head.position,
            None if head is None else head.appended_us,
            SCHEMA_VERSION,
        )

    def backup(self, path: str, *, overwrite: bool = False) -> None:
        # On a connection of its own: copying takes long, and all reads need the reader's lock.
        link = Link(self._file, f"PRAGMA busy_timeout={int(self._wait_limit_s * 1000)}")
        self._reader.check_open()
        try:
            link.query(lambda connection: Backup(self._file.path, path, overwrite).run(connection))
        finally:
            link.close()

    def close(self) -> None:
        for link in (self._keeping, self._reader, self._writer):
            with link.lock:
                link.close()
        self._file.close()


def _probe(connection: sqlite3.Connection, after: Mark) -> int:
    """Check that the mark's record is there, and give the last record's position (0: there is none)."""
    last, record_id, position, checkpoint_record = connection.execute(_PROBE, (after.position,)).fetchone()
    if position is None:
        stands = after == START or record_id == after.record_id
    elif position == after.position:
        stands = checkpoint_record == after.record_id
    elif isinstance(position, int):
        stands = after.position > position and record_id == after.record_id
    else:
        raise JournalDamaged(tables.CHECKPOINT, "it is not of its form")
    if not stands:
        if not connection.in_transaction:
            connection.execute("BEGIN")
        tables.holds(connection, after.position, after.record_id)  # or JournalDamaged: beginning afresh would not help
        raise HistoryChanged("the record this view stands on is no longer in the journal")
    return last or 0
