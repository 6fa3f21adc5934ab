"""The embedded journal: one SQLite file in WAL mode, shared by all workers of one machine.

Its tables, and how it is seen that they are whole: sqlite_tables.py.

Positions are seq: the last row's plus one, or the checkpoint's plus one when everything was compacted, taken
inside the write transaction. Rows go only from the front and only up to the checkpoint, so none is given
twice; AUTOINCREMENT promises the same, and dirties a second page with every append (a third more time).

After a crash. A committed transaction is in the WAL, which is the operating system's once COMMIT returned:
SIGKILL loses nothing. fsync=always: COMMIT fsyncs (synchronous=FULL). fsync=interval: `maintain` does, with a
passive WAL checkpoint (synchronous=NORMAL), and where that cannot come to its end, since somebody reads an older state
or the disk is full, by flushing the -wal itself. How far it had got is noted beside the file (highwater.py), so that a
lost end is noticed when it is opened again. A COMMIT that fails with an I/O error is of unknown outcome: its
last frame may be on the disk. Every other failure surely recorded nothing.

Threads and processes. Three connections, each behind a lock of its own: the writer, the reader, the keeper
(which does `maintain`). What threads append at one time is committed together: see groups.py. Workers are kept
apart by SQLite's own write lock. No lock is waited for without a limit, so a stopped peer costs an error, not a
hang. Order of locks: writer before reader; the keeper's alone.

The file must stay the one that was opened: its inode is compared before every COMMIT and every read (1 µs).
When it was replaced (a backup was moved into its place) each connection is opened afresh, and marks no longer
match. A link is followed at each opening: the file behind it counts. The old file's -wal, which SQLite would play
into the new file, is taken away first. A backup must be moved into place, not copied over the open file, which
nothing can see and SQLite does not survive. Never open the file itself with os.open: closing any descriptor of it
drops the process's POSIX locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple, TypeVar
from urllib.parse import quote

from statsapi.errors import IdempotencyConflict, JournalDamaged, JournalRefused, JournalUnavailable, StatsError
from statsapi.journal import sqlite_salvage
from statsapi.journal import sqlite_tables as tables
from statsapi.journal.checksums import check_sealed, missing, seal, seal_of
from statsapi.journal.columns import decode_sealed
from statsapi.journal.groups import WAIT_LIMIT_S, GroupCommit, Outcome, Request, held_up
from statsapi.journal.highwater import HighWater, Noted, is_left_over
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
    LimitStorage,
    Lost,
    Mark,
    Options,
    Proposal,
    Segment,
    time_after,
    wall_clock_us,
)
from statsapi.journal.sqlite_tables import PAGE_BYTES, SCHEMA_VERSION
from statsapi.journal.sqlite_url import SCHEME, path_of, shortened
from statsapi.model import IdempotencyKey

# Who finds the write lock taken asks again after this. Appends/s of 2 and 4 processes with 4 threads each, on
# two busy cores where runs differ by a third, so that these are much the same:
#
#     without fsync     with fsync
#     16,500  12,500    1,500  1,700   blocking flock around the commit: a stopped peer hangs all
#     14,900  12,100    1,500  1,700   flock polled every 50 µs
#     12,800  12,900    1,900  1,400   flock polled every 200 µs
#     11,100  15,000    1,900    800   SQLite asked every 50 µs
#     13,700  15,100    2,200  1,000   SQLite asked every 200 µs
#     10,500  14,900    2,000  2,000   SQLite asked every 500 µs
#
# So no second lock. SQLite's own busy handler sleeps up to 100 ms: 850-2,700 with fsync and two workers.
RETRY_S = 200e-6

# The WAL is written anew from its start when it is longer than this. Passive checkpoints alone never get
# there under steady load from two workers; the restart holds the write lock for the little that came since
# the last one.
WAL_RESTART_BYTES = 16 << 20
WAL_RESTART_TRIES = 50
# Without anyone calling maintain, COMMIT itself checkpoints from here on: slower, but bounded.
WAL_NET_BYTES = 256 << 20
# After a burst the file shrinks to this at the next restart.
WAL_KEPT_BYTES = 64 << 20

# The -shm's length for a WAL of that length, and its first page.
SHM_BYTES = (WAL_NET_BYTES // (PAGE_BYTES * 4096) + 2) * 32_768

# One step of housekeeping holds the write lock for some milliseconds; a call of maintain takes at most this
# many steps.
STEP_ROWS = 2048
STEP_BYTES = 4 << 20
STEPS = 64
STEP_PAUSE_S = 1e-3

_LAST = "SELECT seq, id, appended_us FROM records ORDER BY seq DESC LIMIT 1"
_PIECES = "SELECT key, piece FROM pieces WHERE key >= ? AND key < ? ORDER BY key"
# One statement, so one snapshot; it looks at no payload.
_PROBE = """
SELECT (SELECT seq FROM records ORDER BY seq DESC LIMIT 1), (SELECT id FROM records WHERE seq = ?1),
       checkpoint.position, checkpoint.record_id
FROM (SELECT 1) LEFT JOIN checkpoint
"""
_INFO = "SELECT count(*), min(seq), max(seq) FROM records WHERE seq > ?"
_ROWS = "SELECT record FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2"
_DEAD = "SELECT seq, length(record) FROM records WHERE seq <= ?1 ORDER BY seq LIMIT ?2"
_DROP_DEAD = "DELETE FROM records WHERE seq <= ?"
_EXPIRED = "SELECT 1 FROM keys WHERE expires_us <= ? LIMIT 1"
_DROP_KEYS = f"""
DELETE FROM keys WHERE name IN (SELECT name FROM keys WHERE expires_us <= ?1 LIMIT {STEP_ROWS}) AND expires_us <= ?1
"""  # noqa: S608 - the only thing put in is a constant

_T = TypeVar("_T")


# Position, id and appended_us of the last record there ever was.
_Last = tuple[int, bytes, int]


class _Identity(NamedTuple):
    device: int
    inode: int


class _Opened(NamedTuple):
    """What was opened last: the file, where it was, and its -wal."""

    path: str
    file: _Identity
    wal: _Identity | None


class SqliteJournal:
    """See the Journal protocol, and the module's text for what is kept where and by which lock."""

    kind: ClassVar = "sqlite"
    single_process: ClassVar = False
    is_remote: ClassVar = False
    has_replicas: ClassVar = False
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
        self._commit_fsyncs = fsync == "always"
        self.settled_us = clock_us
        self.local_clock_us: Clock | None = clock_us
        self._clock_us = clock_us
        self._wait_limit_s = wait_limit_s
        file = _File(os.path.abspath(path), wait_limit_s)
        synchronous = "FULL" if fsync == "always" else "NORMAL"
        self.promise = f"the journal is {file.path}: what is acknowledged survives the end of every process" + (
            " and a power cut" if fsync == "always" else "; a power cut costs the last second"
        )
        self._file = file
        self._writer = _Link(file, f"PRAGMA synchronous={synchronous}", "PRAGMA busy_timeout=0")
        self._appends = GroupCommit(self._record, self._writer.lock, id_bytes=16, wait_limit_s=wait_limit_s)
        self._reader = _Link(file, f"PRAGMA busy_timeout={int(wait_limit_s * 1000)}")
        self._keeper = _Link(file, "PRAGMA synchronous=NORMAL", "PRAGMA busy_timeout=0")
        self._end: _Tail | None = None
        self._pieces: tables.Pieces | None = None
        file.prepare(create=create)
        try:
            for link in (self._writer, self._reader, self._keeper):
                link.connection()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, url: str, options: Options) -> Journal:
        path = path_of(url)
        try:
            return cls(path, fsync=options.fsync, clock_us=options.clock_us, create=options.create)
        except OSError as error:  # a folder that may not be looked into, a name that is too long for this file system
            raise JournalRefused(f"the SQLite journal {shortened(url)!r} cannot be used: {error.strerror}") from error

    @classmethod
    def shares_limits(cls, url: str) -> LimitStorage | None:
        """A small file of its own beside the journal (api/limit_storage.py)."""
        return LimitStorage(f"sqlite+limits:///{url.removeprefix(SCHEME)}.limits")

    @classmethod
    def find_damage(cls, url: str) -> Iterator[str]:
        for damage in sqlite_salvage.damages(url.removeprefix(SCHEME)):
            yield f"{damage.what}: {damage.why}"

    @classmethod
    def salvage(cls, url: str, target: str) -> str:
        saved = sqlite_salvage.salvage(url.removeprefix(SCHEME), target)
        checkpoint = f"the checkpoint with {saved.pieces:,} pieces" if saved.checkpoint else "no checkpoint"
        return f"{saved.records:,} records, {checkpoint}, {saved.answers:,} answers kept under an Idempotency-Key"

    @classmethod
    def put_away(cls, url: str) -> None:
        """Leave one file. SQLite's last connection folds the -wal into it. Of workers that close theirs at the same
        moment none may be the last, and a restore would then meet the -wal of another file.
        """
        cls.open(url, Options(create=False)).close()

    # Appending

    @property
    def lost(self) -> Lost | None:
        return self._file.claim_loss()

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        if isinstance(proposal, Proposal):
            return self._appends.append(proposal, key)
        with self._appends.held_alone() as deadline:
            outcome = self._transact(self._writer, lambda connection: self._decide(connection, proposal, key), deadline)
            self._note_end()
        if not isinstance(outcome, Appended):
            raise outcome
        return outcome

    def _record(self, group: list[Request], deadline: float) -> list[Outcome]:
        outcomes = self._transact(self._writer, lambda connection: self._record_group(connection, group), deadline)
        self._note_end()
        return outcomes

    def _record_group(self, connection: sqlite3.Connection, group: list[Request]) -> list[Outcome]:
        tail = self._tail(connection)
        self._appends.take(group)  # not before: whoever came while the write lock was waited for is in
        outcomes: list[Outcome] = []
        for request in group:
            known = None if request.key is None else tail.find(request.key)
            outcomes.append(known or tail.record(request))
        return outcomes

    def _decide(self, connection: sqlite3.Connection, decide: Decide, key: IdempotencyKey | None) -> Outcome:
        tail = self._tail(connection)
        known = None if key is None else tail.find(key)
        return known or tail.record(self._appends.request(decide(), key))

    def _tail(self, connection: sqlite3.Connection) -> _Tail:
        tail = self._end = _Tail(connection, _last(connection, self._writer.seen), self._clock_us(), self.settled_us)
        return tail

    def _note_end(self) -> None:
        """Note how far it has got with what was committed. Caller holds the writer's lock."""
        if self._end is not None and (last := self._end.recorded) is not None:
            self._writer.seen = last
            self._file.water.note(*last)

    def _transact(self, link: _Link, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        """Run `work` in one write transaction and commit it; whatever it raises, nothing of it stays.

        Caller holds the link's lock. `work` is run again when the file was found replaced before the commit.
        """
        for _ in range(3):
            connection = link.connection(check=False)  # the check before COMMIT is the one that counts
            committing = False
            try:
                self._begin(link, connection, deadline)
                result = work(connection)
                if not link.stands():
                    link.drop()
                    continue
                committing = True
                if self._commit_fsyncs and link is self._writer:
                    began_s = time.perf_counter()
                    connection.execute("COMMIT")
                    self.observe_fsync(time.perf_counter() - began_s)
                else:
                    connection.execute("COMMIT")
            except sqlite3.Error as error:
                link.suspect(error)
                raise _failure(error, self._file.path, committing=committing) from error
            else:
                return result
            finally:
                link.roll_back()
        raise JournalUnavailable(f"{self._file.path} is being replaced")

    def _begin(self, link: _Link, connection: sqlite3.Connection, deadline: float) -> None:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if _primary(error) != sqlite3.SQLITE_BUSY:
                    link.suspect(error)
                    raise _failure(error, self._file.path) from error
                if time.monotonic() >= deadline:
                    raise held_up() from error
            else:
                return
            time.sleep(RETRY_S)

    # Reading

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        row = self._query(self._reader, lambda connection: tables.read_answer(connection, key.name, self.settled_us()))
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

        def fetch(connection: sqlite3.Connection) -> bool:
            """Whether there is more."""
            if _probe(connection, after) <= after.position:
                return False
            # The rows must be of the snapshot in which the mark stands: between two statements a prefix may
            # go.
            connection.execute("BEGIN")
            last = _probe(connection, after)
            size = 0
            for (record,) in connection.execute(_ROWS, (after.position, max(1, limit_records))):
                if until_us is not None:
                    stamp = seal_of(record).appended_us
                    if until_us < stamp and (wrong_after_us is None or stamp <= wrong_after_us):
                        check_sealed(after.position + 1 + len(records), record)  # a wrong stamp would end it for ever
                        return False
                records.append(record)
                size += len(record)
                if size >= limit_bytes:
                    break
            if not records:
                raise missing(after.position + 1, last)
            return after.position + len(records) < last

        now_us = self._clock_us()
        try:
            more = self._query(self._reader, fetch)
            if not records:
                return Segment(after, None, [], 0, more=False, now_us=now_us)
            changes = decode_sealed(after.position, records)
        except TypeError as error:  # a changed bit made it a number or a null
            raise JournalDamaged(
                f"the journal's record {after.position + 1 + len(records)}", "it is not of its form"
            ) from error
        record_id, position, appended_us = seal_of(records[-1])
        return Segment(Mark(position, record_id), appended_us, changes, len(records), more=more, now_us=now_us)

    def read_checkpoint(self) -> Checkpoint | None:
        def look(connection: sqlite3.Connection) -> Checkpoint | None:
            connection.execute("BEGIN")
            head = tables.read_head(connection)
            if head is None:
                return None
            self._pieces = tables.read_pieces_index(connection, head)
            mark = Mark(head.position, head.record_id)
            return Checkpoint(head.id, mark, head.appended_us, tables.read_state(connection, head))

        return self._query(self._reader, look)

    def _query(self, link: _Link, look: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `look` on the link's connection; a transaction that it begins ends with it."""
        with link.lock:
            try:
                return look(link.connection())
            except StatsError:
                raise
            except BaseException as error:
                # A statement that was left in the middle keeps its snapshot, and every later question would be answered
                # from that: even a lock that was busy costs this connection.
                link.drop()
                if isinstance(error, sqlite3.Error):
                    raise _failure(error, self._file.path) from error
                raise
            finally:
                link.roll_back()

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

        return self._query(self._reader, look)

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
                tables.read_pieces_index(connection, current)  # what is missing must not become what is right
            _probe(connection, checkpoint.mark)
            record = tables.read_record(connection, checkpoint.mark.position)
            # Time goes on from here when no record is left, so it is the record's own, not what a caller says.
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

        with self._appends.held():
            return self._transact(self._writer, switch, time.monotonic() + self._wait_limit_s)

    def maintain(self) -> None:
        if not self._keeper.lock.acquire(blocking=False):
            return  # another thread is at it
        try:
            busy, wal_bytes = self._flush()
            if busy:
                return  # another worker is at it
            for _ in range(WAL_RESTART_TRIES if wal_bytes > WAL_RESTART_BYTES else 0):
                busy, _, _ = self._move_wal("RESTART")
                if not busy:
                    break
                time.sleep(STEP_PAUSE_S)
            for step in (self._drop_dead_records, self._drop_expired_keys):
                for _ in range(STEPS):
                    if not step():
                        break
                    time.sleep(STEP_PAUSE_S)  # let those who append in between
        finally:
            self._keeper.lock.release()

    def _flush(self) -> tuple[bool, int]:
        """Make safe from a power cut what was appended before. Gives whether somebody moves the WAL into the file just
        now, and the WAL's length.

        Moving it flushes it first. Where that cannot come to its end (somebody reads an older state, moves it himself
        and was stopped, the file cannot grow) it is flushed by itself.
        """
        began_s = time.perf_counter()
        flushed = False
        try:
            busy, frames, moved = self._move_wal("PASSIVE")
            flushed = not busy and moved >= frames
        finally:
            if not flushed and not self._commit_fsyncs:
                self._file.flush_wal()
        if not self._commit_fsyncs:
            self.observe_fsync(time.perf_counter() - began_s)
        return busy, frames * PAGE_BYTES

    def _move_wal(self, mode: str) -> tuple[bool, int, int]:
        """Copy the WAL into the file. Gives whether somebody was in the way, its frames, and how many are there."""
        busy, frames, moved = self._query(
            self._keeper, lambda connection: connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        )
        return bool(busy), frames, moved

    def _drop_dead_records(self) -> bool:
        """One step; gives whether there may be more."""

        def look(connection: sqlite3.Connection) -> list[tuple[int, int]]:
            head = tables.read_head(connection)
            return connection.execute(_DEAD, (0 if head is None else head.position, STEP_ROWS)).fetchall()

        dead = self._query(self._keeper, look)
        size, upto = 0, 0
        for upto, length in dead:  # noqa: B007 - its last value is what is wanted
            size += length or 0  # a changed bit made it a null
            if size >= STEP_BYTES:
                break
        if dead:
            self._keep(_DROP_DEAD, upto)
        return bool(dead)

    def _drop_expired_keys(self) -> bool:
        """One step; gives whether there may be more."""

        settled_us = self.settled_us()
        some = self._query(
            self._keeper, lambda connection: connection.execute(_EXPIRED, (settled_us,)).fetchone() is not None
        )
        if some:
            self._keep(_DROP_KEYS, settled_us)
        return some

    def _keep(self, statement: str, parameter: int) -> None:
        self._transact(
            self._keeper,
            lambda connection: connection.execute(statement, (parameter,)),
            time.monotonic() + self._wait_limit_s,
        )

    def check_writable(self, wait_s: float = 1.0) -> None:
        deadline = time.monotonic() + wait_s
        with self._appends.held(wait_s):
            try:
                self._begin(self._writer, self._writer.connection(), deadline)
            finally:
                self._writer.roll_back()

    def size_bytes(self) -> int:
        self._reader.check_open()
        return self._file.size_bytes()

    def info(self) -> Info:
        def look(connection: sqlite3.Connection) -> tuple[tables.Head | None, int, int, int, _Last | None]:
            connection.execute("BEGIN")
            head = tables.read_head(connection)
            counted = connection.execute(_INFO, (0 if head is None else head.position,)).fetchone()
            return head, *counted, _last(connection, None)

        head, records, first, last, seen = self._query(self._reader, look)
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
        # On a connection of its own: copying takes long, and the reader's lock is everybody's.
        link = _Link(self._file, f"PRAGMA busy_timeout={int(self._wait_limit_s * 1000)}")
        self._reader.check_open()
        try:
            self._query(link, lambda connection: _Backup(self._file.path, path, overwrite).run(connection))
        finally:
            link.close()

    def close(self) -> None:
        for link in (self._keeper, self._reader, self._writer):
            with link.lock:
                link.close()
        self._file.close()


class _Backup:
    """A copy of the database at another path: made beside it, checked, flushed, and only then given its name.

    SQLite's backup interface in one step: one read transaction, so the copy is of one moment and writers go on; in
    several steps it would begin again whenever another process has written. VACUUM INTO gives the same, compacted, in
    twice the time (0.8 and 1.6 s for 250 MB), during which the WAL cannot be written anew from its start.
    """

    def __init__(self, source: str, target: str, overwrite: bool) -> None:
        self._source = source
        self._target = os.path.abspath(target)
        self._overwrite = overwrite

    def run(self, connection: sqlite3.Connection) -> None:
        self._check_target()
        partial = f"{self._target}.{secrets.token_hex(4)}.partial"
        try:
            self._make(partial)
            self._copy(connection, partial)
            self._check_copy(partial)
            _fsync(partial)
            self._check_target()
            os.replace(partial, self._target)
            _fsync(os.path.dirname(self._target))
        except OSError as error:
            raise JournalRefused(f"{self._target} cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)

    def _check_target(self) -> None:
        if not os.path.lexists(self._target):
            return
        if not self._overwrite:
            raise JournalRefused(f"{self._target} is there already: name another file")
        if not os.path.isfile(self._target):
            raise JournalRefused(f"{self._target} is not a file: name another")
        if os.path.samefile(self._source, self._target):
            raise JournalRefused(f"{self._target} is the journal itself: name another file")
        if os.path.exists(self._target + "-wal"):  # it would be played into the copy
            raise JournalRefused(f"{self._target} is in use, as its -wal shows: name another file")

    def _make(self, partial: str) -> None:
        """Who may read the journal may read the copy and nobody else, and a copy that root makes can be put back."""
        source = os.stat(self._source)
        made = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.geteuid() == 0:
                os.fchown(made, source.st_uid, source.st_gid)
            os.fchmod(made, stat.S_IMODE(source.st_mode))
        finally:
            os.close(made)

    def _copy(self, connection: sqlite3.Connection, partial: str) -> None:
        deadline = time.monotonic() + WAIT_LIMIT_S

        def tell(status: int, remaining: int, total: int) -> None:
            if status != sqlite3.SQLITE_DONE and time.monotonic() > deadline:  # it would be tried again for ever
                raise JournalUnavailable(f"another process holds {self._source}")

        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode=OFF").fetchall()  # nothing to roll back to, and flushed as a whole
            copy.execute("PRAGMA synchronous=OFF")
            try:
                connection.backup(copy, progress=tell)
            except sqlite3.Error as error:
                if _primary(error) == sqlite3.SQLITE_FULL:
                    raise JournalRefused(f"the disk that holds {self._target} is full: free some space") from error
                # Which of the two files it is, SQLite does not say.
                raise JournalUnavailable(f"copying {self._source} to {self._target} failed: {error}") from error

    def _check_copy(self, partial: str) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{quote(partial)}?immutable=1", uri=True)) as copy:
            copy.text_factory = bytes
            damage = next(tables.damages(copy, self._source), None)
        if damage is not None:
            raise JournalDamaged(damage.what, f"{damage.why}; the copy was not kept")


def _fsync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _Tail:
    """The end of the records inside one write transaction."""

    def __init__(self, connection: sqlite3.Connection, last: _Last | None, clock_us: int, settled_us: Clock) -> None:
        self._connection = connection
        self._position, _, last_us = last or (0, b"", 0)
        self._now_us = time_after(clock_us, last_us)
        self._settled_us = settled_us
        self.recorded: _Last | None = None

    def find(self, key: IdempotencyKey) -> Outcome | None:
        try:
            kept = tables.read_answer(self._connection, key.name, self._settled_us())
        except JournalDamaged as error:
            return error
        if kept is None:
            return None
        digest, answer = kept
        if digest != key.digest:
            return IdempotencyConflict()
        return Appended(None, self._now_us, answer, replayed=True)

    def record(self, request: Request) -> Appended:
        mark, now_us = None, self._now_us
        if (payload := request.payload) is not None:
            self._position = position = self._position + 1
            record_id = request.record_id
            mark = Mark(position, record_id)
            self._connection.execute(
                tables.INSERT_RECORD, (position, record_id, now_us, seal(position, record_id, now_us, payload))
            )
            self.recorded = (position, record_id, now_us)
        if (key := request.key) is not None:
            tables.write_answer(self._connection, key.name, key.digest, request.answer, now_us + key.ttl_us)
        return Appended(mark, now_us, request.answer)


def _last(connection: sqlite3.Connection, seen: _Last | None) -> _Last | None:
    """The last record there ever was, checked unless it is the one that was `seen` whole. JournalDamaged also where
    that one is gone.
    """
    row: _Last | None = connection.execute(_LAST).fetchone()
    if row == seen and seen is not None:
        return seen
    if row is None:
        head = tables.read_head(connection)
        last = None if head is None else (head.position, head.record_id, head.appended_us)
    else:
        if tables.read_record(connection, row[0]) is None:  # found from behind, and not by its number
            raise missing(row[0], row[0])
        last = row
    if seen is not None and (last is None or last[0] < seen[0]):
        raise missing(1 if last is None else last[0] + 1, seen[0])
    return last


def _probe(connection: sqlite3.Connection, after: Mark) -> int:
    """Check that the mark stands, and give the last record's position (0: none is held)."""
    last, record_id, position, checkpoint_record = connection.execute(_PROBE, (after.position,)).fetchone()
    if position is None:
        stands = after == START or record_id == after.record_id
    elif position == after.position:
        stands = checkpoint_record == after.record_id
    elif isinstance(position, int):
        stands = after.position > position and record_id == after.record_id
    else:
        raise JournalDamaged("the journal's checkpoint", "it is not of its form")
    if not stands:
        raise HistoryChanged("the record this view stands on is no longer in the journal")
    return last or 0


class _Link:
    """A connection, opened when it is needed: at first, after a fault, and when the file was replaced.

    All but check_open is for the holder of `lock`.
    """

    def __init__(self, file: _File, *settings: str) -> None:
        self.lock = threading.RLock()
        self._file = file
        self._settings = settings
        self._connection: sqlite3.Connection | None = None
        self.seen: _Last | None = None  # the last record, as it was last seen whole over this connection
        self._identity: _Identity | None = None
        self._closed = False

    def check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")

    def connection(self, *, check: bool = True) -> sqlite3.Connection:
        """The open connection, or a new one; without `check` it may be to a file that was replaced."""
        self.check_open()
        if self._connection is None or (check and not self.stands()):
            self.drop()
            self._connection, self._identity = self._file.connect(self._settings)
        return self._connection

    def stands(self) -> bool:
        """Whether the file that is open is still the one at its path."""
        return self._identity == self._file.identity()

    def suspect(self, error: sqlite3.Error) -> None:
        """After anything but a full disk or a busy lock, do not trust the connection: the next call opens
        another.
        """
        if _primary(error) not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            self.drop()

    def roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.drop()

    def close(self) -> None:
        self._closed = True
        self.drop()

    def drop(self) -> None:
        if self._connection is not None:
            # Rolled back first: a closed connection keeps its write lock while a cursor of it is alive, such as one in
            # the traceback of the error that somebody is just being told.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
            self.seen = None


class _File:
    """The database file: making it, checking that it is ours, and noticing when it is another one."""

    def __init__(self, path: str, wait_limit_s: float) -> None:
        self.path = path
        self.water = HighWater()
        self._wait_limit_s = wait_limit_s
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._loss: Lost | None = None
        self._claimed = False

    @property
    def real(self) -> str:
        """Where the file is, behind any links: SQLite keeps its -wal and -shm there."""
        return os.path.realpath(self.path)

    def identity(self) -> _Identity:
        try:
            found = os.stat(self.path)
        except OSError as error:
            # A restore may be under way: a new file made now would be replaced, with what was recorded in it.
            raise JournalUnavailable(f"{self.path} is not there ({error.strerror}); restore it, or restart") from error
        return _Identity(found.st_dev, found.st_ino)

    def size_bytes(self) -> int:
        size = 0
        real = self.real
        for path in (real, real + "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(path).st_size
        return size

    def claim_loss(self) -> Lost | None:
        """What was missing when it was opened; of all who found it only one is told."""
        with self._lock:
            if self._loss is not None and not self._claimed:
                self._claimed = self.water.claim(self.real)
                if not self._claimed:
                    self._loss = None
            return self._loss

    def flush_wal(self) -> None:
        """Fsync the -wal. Closing its descriptor drops no lock: SQLite's are on the file and on the -shm."""
        try:
            wal = os.open(self.real + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalUnavailable(f"{self.path}-wal cannot be opened ({error.strerror})") from error
        try:
            os.fdatasync(wal)
        except OSError as error:
            raise JournalUnavailable(f"the disk that holds {self.path} fails ({error.strerror})") from error
        finally:
            os.close(wal)

    def close(self) -> None:
        self.water.close()

    def prepare(self, *, create: bool) -> None:
        """Make the file, or see whether it can be used. JournalRefused if not, with what to do."""
        if not create and not os.path.exists(self.path):
            raise JournalRefused(f"there is no journal at {self.path}")
        folder = os.path.dirname(self.real)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise JournalRefused(
                f"the folder {folder} cannot be made ({error.strerror}): make it, or name another"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise JournalRefused(
                f"the journal's folder {folder} cannot be written (SQLite keeps -wal and -shm there): "
                "let this user write it, or name another"
            )
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise JournalRefused(f"{self.path} is not a file: name another")
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise JournalRefused(f"{self.path} is read-only: let this user write it, or name another")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise JournalRefused(f"{self.path} cannot be used ({error.strerror}): name another") from error
        with self._alone() as opened_folder:
            self._unlink_left_over_wal(self.real)
            self._check_space()
            try:
                connection = self._connect("rwc" if create else "rw")
                try:
                    if tables.is_new(connection, self.path):
                        if not create:
                            raise JournalRefused(f"{self.path} is empty")
                        tables.make(connection)
                        os.fsync(opened_folder)  # SQLite does so for the -wal, not for the file
                    elif tables.is_old(connection):
                        connection.close()
                        self._upgrade()
                        connection = self._connect("rw")
                    tables.check_tables(connection, self.path)
                    with tables.snapshot(connection):
                        tables.check_counts(connection)
                    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                finally:
                    connection.close()
            except sqlite3.Error as error:
                if _primary(error) == sqlite3.SQLITE_BUSY:
                    raise JournalRefused(f"{self.path} is locked by another process: stop it") from error
                if _cause(error) == sqlite3.SQLITE_FULL:  # space comes back without a restart, at an opening too
                    raise _failure(error, self.path) from error
                raise _refusal(error, self.path) from error
            if mode != b"wal":
                raise JournalRefused(
                    f"{self.path} is on a file system that cannot share memory, as WAL must: use a local disk"
                )

    def _upgrade(self) -> None:
        """Bring an older file up to date. Caller is `_alone`."""
        with contextlib.closing(self._connect("rw")) as connection:
            try:
                # Before anything is read: then nobody else can have it open, an older version's workers above all.
                connection.execute("PRAGMA busy_timeout=1000").fetchall()
                connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
                connection.execute("PRAGMA synchronous=FULL")
                tables.upgrade(connection)
            except sqlite3.Error as error:
                if _primary(error) != sqlite3.SQLITE_BUSY:
                    raise
                raise JournalRefused(
                    f"{self.path} is of an older version, and in use: stop all its workers, then start this one"
                ) from error

    def connect(self, settings: tuple[str, ...]) -> tuple[sqlite3.Connection, _Identity]:
        """A connection to the file that is at the path now, never to one that it would have to make."""
        with self._alone():
            identity, real = self.identity(), self.real
            before = self._opened
            replaced = before is not None and before.file != identity
            if before is not None and replaced and before.path == real and before.wal == _identity_of(real + "-wal"):
                _unlink_wal(real)
            self._unlink_left_over_wal(real)
            self._check_space()
            try:
                connection = self._connect("rw")
                try:
                    self._check_made(connection)
                    for setting in settings:
                        connection.execute(setting).fetchall()
                    connection.execute(_LAST).fetchall()  # opens the -wal
                    self._back_shm(real + "-shm")
                    if before is None or replaced:
                        self._compare(connection, real, told_by_views=replaced)
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error as error:
                raise _failure(error, self.path) from error
            except JournalDamaged:
                raise
            except JournalRefused as error:
                raise JournalUnavailable(str(error)) from error
            self._opened = _Opened(real, identity, _identity_of(real + "-wal"))
            self.water.note_wal(real)
            return connection, identity

    def _unlink_left_over_wal(self, real: str) -> None:
        """Before anything opens the file: SQLite would play an older file's -wal into the one that took its place."""
        if is_left_over(real + "-wal", real):
            _unlink_wal(real)

    def _compare(self, connection: sqlite3.Connection, real: str, *, told_by_views: bool) -> None:
        """Whether what was noted as acknowledged is there."""
        with tables.snapshot(connection):
            last = _last(connection, None)

        def stands(noted: Noted) -> bool:
            # One that begins after the note was read: who noted it had committed before.
            with tables.snapshot(connection):
                head = tables.read_head(connection)
                if head is not None and noted.position <= head.position:
                    return True
                row = connection.execute("SELECT id FROM records WHERE seq = ?", (noted.position,)).fetchone()
                return row is not None and row[0] == noted.record_id

        noted = self.water.compare(real, stands)
        if noted is None:
            return
        if told_by_views:
            self.water.claim(real)
            return
        position = 0 if last is None else last[0]
        self._loss = Lost(
            noted.position - position if noted.position > position else None,
            None if last is None else last[2],
            self._how(noted, position),
        )

    def _how(self, noted: Noted, position: int) -> str:
        end = f"record {noted.position} was acknowledged, and {self.path} ends with {position or 'none'}"
        if noted.position <= position:
            end = f"record {noted.position} was acknowledged, and {self.path} has another one in its place"
        if not noted.same_file:
            return f"{end}: an older or another file was put in its place"
        if not noted.same_boot:
            return f"{end}: the machine went down before the last of it was on the disk"
        return f"{end}: the end of it, or of its -wal, is damaged or was taken away"

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.real)}?mode={mode}",
            uri=True,
            timeout=self._wait_limit_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = bytes  # a changed bit makes text of a blob
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_NET_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}")
        connection.execute("PRAGMA secure_delete=OFF")  # Debian's build overwrites what is deleted otherwise
        return connection

    def _check_made(self, connection: sqlite3.Connection) -> None:
        if tables.is_new(connection, self.path):
            raise JournalUnavailable(f"{self.path} was replaced by an empty file; restore it")
        if tables.is_old(connection):
            raise JournalUnavailable(f"{self.path} was replaced by one of an older version; restart")
        tables.check_tables(connection, self.path)

    def _check_space(self) -> None:
        """Refuse to open it on a full disk whose blocks are smaller than a page.

        SQLite makes the -shm longer by one byte a page. With smaller blocks the rest of the page has no place on the
        disk until it is touched, and touching it there ends the process (SIGBUS).
        """
        if (found := self._small_blocks()) is not None:
            free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
            if free * found.f_frsize < SHM_BYTES + WAL_RESTART_BYTES // 64:
                raise JournalUnavailable(f"the disk that holds {self.path} is full: free some space")

    def _back_shm(self, shm: str) -> None:
        """Give all of the -shm its place on such a disk, by another process: closing it drops this one's locks."""
        if self._small_blocks() is None:
            return
        code = "import os, sys; f = os.open(sys.argv[1], os.O_RDWR); os.posix_fallocate(f, 0, int(sys.argv[2]))"
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", code, shm, str(SHM_BYTES)], capture_output=True, check=False
        )
        if done.returncode:
            raise JournalUnavailable(f"the disk that holds {self.path} is full: free some space")

    def _small_blocks(self) -> os.statvfs_result | None:
        found = os.statvfs(os.path.dirname(self.real))
        return found if found.f_frsize < PAGE_BYTES else None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """No other worker opens the file meanwhile: an flock on the folder, polled, since a blocking one has
        no limit.
        """
        deadline = time.monotonic() + self._wait_limit_s
        with self._lock:
            try:
                folder = os.open(os.path.dirname(self.real), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise JournalUnavailable(f"the folder of {self.path} is not there ({error.strerror})") from error
            try:
                while True:
                    try:
                        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() >= deadline:
                            raise JournalUnavailable(f"another process is opening {self.path}") from None
                        time.sleep(STEP_PAUSE_S)
                yield folder
            finally:
                os.close(folder)


def _unlink_wal(real: str) -> None:
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real + suffix)


def _identity_of(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return _Identity(found.st_dev, found.st_ino)


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for what the Python module raised by itself."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code


def _cause(error: sqlite3.Error) -> int:
    """What to tell people: the primary code, but that the -shm found no space is a full disk too.

    For what was recorded it is not the same: the commit's last frame is in the WAL by then.
    """
    code: int = getattr(error, "sqlite_errorcode", -1)
    return sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else _primary(error)


_SAID = {
    sqlite3.SQLITE_FULL: "the disk that holds {path} is full",
    sqlite3.SQLITE_IOERR: "the disk that holds {path} fails",
    sqlite3.SQLITE_BUSY: "another process holds {path}",
    sqlite3.SQLITE_READONLY: "{path} has become read-only",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database, or damaged",
}
_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_READONLY: "let this user write it, or name another file",
    sqlite3.SQLITE_CANTOPEN: "let this user read and write it and its folder, or name another file",
    sqlite3.SQLITE_NOTADB: "name another file, or restore it from a backup, or move it away",
}


def _is_damage(error: sqlite3.Error) -> bool:
    return _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _refusal(error: sqlite3.Error, path: str) -> JournalRefused:
    code = _primary(error)
    if code == sqlite3.SQLITE_CORRUPT:
        return JournalDamaged(path, str(error))
    said = _SAID.get(code, "{path} cannot be used").format(path=path)
    return JournalRefused(f"{said} ({error}): {_ADVICE.get(code, 'see to the cause')}")


def _failure(error: sqlite3.Error, path: str, *, committing: bool = False) -> JournalUnavailable | JournalDamaged:
    code, cause = _primary(error), _cause(error)
    if _is_damage(error):
        return JournalDamaged(path, str(error), outcome_unknown=committing)
    said = _SAID.get(cause, "{path} failed").format(path=path)
    # These leave the commit's last frame unwritten; after any other failure it may be on the disk.
    surely_not = not committing or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
    advice = f": {_ADVICE[cause]}" if cause in _ADVICE else ""
    return JournalUnavailable(f"{said} ({error}){advice}", outcome_unknown=not surely_not)
