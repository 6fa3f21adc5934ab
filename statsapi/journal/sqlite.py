"""The embedded journal: one SQLite file in WAL mode, shared by all workers of one machine.

    log         seq INTEGER PRIMARY KEY | id | appended_us | payload        one row a record
    checkpoint  id | position | record_id | appended_us | state             at most one row
    pieces      key INTEGER PRIMARY KEY | piece                             the checkpoint's, changed with it
    keys        name PRIMARY KEY | digest | answer | expires_us             written with the record

Positions are seq: the last row's plus one, or the checkpoint's plus one when everything was compacted, taken
inside the write transaction. Rows go only from the front and only up to the checkpoint, so none is given
twice; AUTOINCREMENT promises the same, and dirties a second page with every append (a third more time).

After a crash. A committed transaction is in the WAL, which is the operating system's once COMMIT returned:
SIGKILL loses nothing. fsync=always: COMMIT fsyncs (synchronous=FULL). fsync=interval: `maintain` does, with a
passive WAL checkpoint (synchronous=NORMAL). A COMMIT that fails with an I/O error is of unknown outcome: its
last frame may be on the disk. Every other failure surely recorded nothing.

Threads and processes. Three connections, each behind a lock of its own: the writer, the reader, the keeper
(which does `maintain`). What threads append at one time is committed together: see groups.py. Workers are kept
apart by SQLite's own write lock. No lock is waited for without a limit, so a stopped peer costs an error, not a
hang. Order of locks: writer before reader; the keeper's alone.

The file must stay the one that was opened: its inode is compared before every COMMIT and every read (1 µs).
When it was replaced (a backup was moved into its place) each connection is opened afresh, and marks no longer
match. The old file's -wal, which SQLite would play into the new file, is taken away first. A backup must be
moved into place, not copied over the open file, which nothing can see and SQLite does not survive. Never open
the file itself with os.open: closing any descriptor of it drops the process's POSIX locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from statsapi.errors import IdempotencyConflict, JournalRefused, JournalUnavailable
from statsapi.journal import (
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
    Key,
    Lost,
    Mark,
    Proposal,
    Segment,
    time_after,
    wall_clock_us,
)
from statsapi.journal.format import decode_records
from statsapi.journal.groups import WAIT_LIMIT_S, GroupCommit, Request, held_up

APPLICATION_ID = 0x73746174  # "stat"
SCHEMA_VERSION = 2

# CPU µs an append of one event / of 10,000: 4 KiB 29 / 361, 8 KiB 34 / 316, 16 KiB 41 / 280. Single ones are
# many.
PAGE_BYTES = 4096

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

# One step of housekeeping holds the write lock for some milliseconds; a call of maintain takes at most this
# many steps.
STEP_ROWS = 2048
STEP_BYTES = 4 << 20
STEPS = 64
STEP_PAUSE_S = 1e-3

# What schema 2 has that 1 had not.
_PIECES_TABLE = "CREATE TABLE pieces (key INTEGER PRIMARY KEY, piece BLOB NOT NULL);"

_SCHEMA = """
CREATE TABLE log (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, appended_us INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, position INTEGER NOT NULL,
    record_id BLOB NOT NULL, appended_us INTEGER NOT NULL, state BLOB NOT NULL
);
CREATE TABLE keys (
    name BLOB PRIMARY KEY, digest BLOB NOT NULL, answer BLOB NOT NULL, expires_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_by_expiry ON keys (expires_us);
"""
_SCHEMA += _PIECES_TABLE

_LAST = "SELECT seq, appended_us FROM log ORDER BY seq DESC LIMIT 1"
_CHECKPOINT = "SELECT id, position, record_id, appended_us, state FROM checkpoint"
_PIECES = "SELECT key, piece FROM pieces WHERE key >= ? AND key < ? ORDER BY key"
_LAST_CHECKPOINT = "SELECT position, appended_us FROM checkpoint"
# One statement, so one snapshot; it looks at no payload.
_PROBE = """
SELECT (SELECT seq FROM log ORDER BY seq DESC LIMIT 1), (SELECT id FROM log WHERE seq = ?1),
       checkpoint.position, checkpoint.record_id
FROM (SELECT 1) LEFT JOIN checkpoint
"""
_INFO = """
SELECT count(log.seq), min(log.seq), max(log.seq), coalesce(max(log.appended_us), checkpoint.appended_us),
       checkpoint.position, checkpoint.appended_us
FROM (SELECT 1) LEFT JOIN checkpoint LEFT JOIN log ON log.seq > coalesce(checkpoint.position, 0)
"""
_ROWS = "SELECT seq, appended_us, payload FROM log WHERE seq > ?1 ORDER BY seq LIMIT ?2"
_INSERT = "INSERT INTO log (seq, id, appended_us, payload) VALUES (?, ?, ?, ?)"
_FIND_KEY = "SELECT digest, answer FROM keys WHERE name = ? AND expires_us > ?"
_KEEP_KEY = "INSERT OR REPLACE INTO keys (name, digest, answer, expires_us) VALUES (?, ?, ?, ?)"

_DEAD = """
SELECT seq, length(payload) FROM log WHERE seq <= (SELECT position FROM checkpoint) ORDER BY seq LIMIT ?
"""
_DROP_DEAD = "DELETE FROM log WHERE seq <= min(?, (SELECT position FROM checkpoint))"
_EXPIRED = "SELECT 1 FROM keys WHERE expires_us <= ? LIMIT 1"
_DROP_KEYS = f"""
DELETE FROM keys WHERE name IN (SELECT name FROM keys WHERE expires_us <= ? LIMIT {STEP_ROWS})
"""  # noqa: S608 - the only thing put in is a constant

_T = TypeVar("_T")


class _Identity(NamedTuple):
    device: int
    inode: int


class SqliteJournal:
    """See the Journal protocol, and the module's text for what is kept where and by which lock."""

    needs_single_process = False
    lost: Lost | None = None

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
        file.prepare(create=create)
        try:
            for link in (self._writer, self._reader, self._keeper):
                link.connection()
        except BaseException:
            self.close()
            raise

    # Appending

    def append(self, proposal: Proposal | Decide, *, key: Key | None = None) -> Appended:
        if isinstance(proposal, Proposal):
            return self._appends.append(proposal, key)
        with self._appends.held_alone() as deadline:
            outcome = self._transact(self._writer, lambda connection: self._decide(connection, proposal, key), deadline)
        if isinstance(outcome, IdempotencyConflict):
            raise outcome
        return outcome

    def _record(self, group: list[Request], deadline: float) -> list[Appended | IdempotencyConflict]:
        return self._transact(self._writer, lambda connection: self._record_group(connection, group), deadline)

    def _record_group(
        self, connection: sqlite3.Connection, group: list[Request]
    ) -> list[Appended | IdempotencyConflict]:
        self._appends.take(group)  # not before: whoever came while the write lock was waited for is in
        tail = _Tail(connection, self._clock_us(), self.settled_us())
        outcomes: list[Appended | IdempotencyConflict] = []
        for request in group:
            known = None if request.key is None else tail.find(request.key)
            outcomes.append(known or tail.record(request))
        return outcomes

    def _decide(
        self, connection: sqlite3.Connection, decide: Decide, key: Key | None
    ) -> Appended | IdempotencyConflict:
        tail = _Tail(connection, self._clock_us(), self.settled_us())
        known = None if key is None else tail.find(key)
        return known or tail.record(self._appends.request(decide(), key))

    def _transact(self, link: _Link, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        """Run `work` in one write transaction and commit it; whatever it raises, nothing of it stays.

        Caller holds the link's lock. `work` is run again when the file was found replaced before the commit.
        """
        for _ in range(3):
            connection = link.connection(check=False)  # the check before COMMIT is the one that counts
            self._begin(link, connection, deadline)
            committing = False
            try:
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
                raise _unavailable(error, self._file.path, committing=committing) from error
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
                    raise _unavailable(error, self._file.path) from error
                if time.monotonic() >= deadline:
                    raise held_up() from error
            else:
                return
            time.sleep(RETRY_S)

    # Reading

    def find_answer(self, key: Key) -> bytes | None:
        def look(connection: sqlite3.Connection) -> tuple[bytes, bytes] | None:
            row: tuple[bytes, bytes] | None = connection.execute(_FIND_KEY, (key.name, self.settled_us())).fetchone()
            return row

        row = self._query(self._reader, look)
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
        positions: list[int] = []
        stamps: list[int] = []
        payloads: list[bytes] = []

        def fetch(connection: sqlite3.Connection) -> tuple[bool, bytes] | None:
            if _probe(connection, after) <= after.position:
                return None
            # The rows must be of the snapshot in which the mark stands: between two statements a prefix may
            # go.
            connection.execute("BEGIN")
            last = _probe(connection, after)
            size, ended = 0, False
            for position, stamp, payload in connection.execute(_ROWS, (after.position, max(1, limit_records))):
                if until_us is not None and until_us < stamp and (wrong_after_us is None or stamp <= wrong_after_us):
                    ended = True
                    break
                positions.append(position)
                stamps.append(stamp)
                payloads.append(payload)
                size += len(payload)
                if size >= limit_bytes:
                    break
            if not positions:
                return None
            (record_id,) = connection.execute("SELECT id FROM log WHERE seq = ?", positions[-1:]).fetchone()
            return not ended and positions[-1] < last, record_id

        now_us = self._clock_us()
        found = self._query(self._reader, fetch)
        if found is None:
            return Segment(after, None, [], 0, more=False, now_us=now_us)
        more, record_id = found
        changes = decode_records(positions, stamps, payloads)
        mark = Mark(positions[-1], record_id)
        return Segment(mark, stamps[-1], changes, len(positions), more=more, now_us=now_us)

    def read_checkpoint(self) -> Checkpoint | None:
        row = self._query(self._reader, lambda connection: connection.execute(_CHECKPOINT).fetchone())
        return None if row is None else Checkpoint(row[0], Mark(row[1], row[2]), row[3], row[4])

    def _query(self, link: _Link, look: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `look` on the link's connection; a transaction that it begins ends with it."""
        with link.lock:
            try:
                return look(link.connection())
            except sqlite3.Error as error:
                link.suspect(error)
                raise _unavailable(error, self._file.path) from error
            finally:
                link.roll_back()

    # Compaction and housekeeping

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        def look(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
            connection.execute("BEGIN")
            current = connection.execute("SELECT id FROM checkpoint").fetchone()
            if current is None or current[0] != checkpoint_id:
                raise HistoryChanged("another checkpoint has taken this one's place")
            return connection.execute(_PIECES, (first, last)).fetchall()

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
            current = connection.execute("SELECT id, appended_us FROM checkpoint").fetchone()
            if previous_id != (None if current is None else current[0]):
                return False
            _probe(connection, checkpoint.mark)
            row = connection.execute(
                "SELECT appended_us FROM log WHERE seq = ?", (checkpoint.mark.position,)
            ).fetchone()
            # Time goes on from here when no record is left, so it is the record's own, not what a caller says.
            (appended_us,) = row or current[1:]
            connection.execute(
                "INSERT OR REPLACE INTO checkpoint (one, id, position, record_id, appended_us, state)"
                " VALUES (1, ?, ?, ?, ?, ?)",
                (checkpoint.id, *checkpoint.mark, appended_us, checkpoint.state),
            )
            kept = ((key, piece) for key, piece in pieces.items() if piece is not None)
            connection.executemany("INSERT OR REPLACE INTO pieces (key, piece) VALUES (?, ?)", kept)
            gone = ((key,) for key, piece in pieces.items() if piece is None)
            connection.executemany("DELETE FROM pieces WHERE key = ?", gone)
            if drop_pieces_before is not None:
                connection.execute("DELETE FROM pieces WHERE key < ?", (drop_pieces_before,))
            return True

        with self._appends.held():
            return self._transact(self._writer, switch, time.monotonic() + self._wait_limit_s)

    def maintain(self) -> None:
        if not self._keeper.lock.acquire(blocking=False):
            return  # another thread is at it
        try:
            busy, wal_bytes = self._flush("PASSIVE")
            if busy:
                return  # another worker is at it
            for _ in range(WAL_RESTART_TRIES if wal_bytes > WAL_RESTART_BYTES else 0):
                busy, _ = self._flush("RESTART")
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

    def _flush(self, mode: str) -> tuple[bool, int]:
        """Fsync the WAL and copy it into the file. Gives whether somebody was in the way, and the WAL's
        length.
        """
        began_s = time.perf_counter()
        busy, frames, _ = self._query(
            self._keeper, lambda connection: connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        )
        if not busy and not self._commit_fsyncs:
            self.observe_fsync(time.perf_counter() - began_s)
        return bool(busy), frames * PAGE_BYTES

    def _drop_dead_records(self) -> bool:
        """One step; gives whether there may be more."""
        dead = self._query(self._keeper, lambda connection: connection.execute(_DEAD, (STEP_ROWS,)).fetchall())
        size, upto = 0, 0
        for upto, length in dead:  # noqa: B007 - its last value is what is wanted
            size += length
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
        records, first, last, appended_us, position, stamp = self._query(
            self._reader, lambda connection: connection.execute(_INFO).fetchone()
        )
        return Info(
            self._file.path, self.size_bytes(), records, first, last, appended_us, position, stamp, SCHEMA_VERSION
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
            ((said, *_), *_) = copy.execute("PRAGMA quick_check(1)").fetchall()
        if said != "ok":
            raise JournalUnavailable(f"{self._source} is damaged ({said}); the copy was not kept")


def _fsync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _Tail:
    """The end of the log inside one write transaction."""

    def __init__(self, connection: sqlite3.Connection, clock_us: int, settled_us: int) -> None:
        self._connection = connection
        self._position, last_us = _last(connection)
        self._now_us = time_after(clock_us, last_us)
        self._settled_us = settled_us

    def find(self, key: Key) -> Appended | IdempotencyConflict | None:
        row = self._connection.execute(_FIND_KEY, (key.name, self._settled_us)).fetchone()
        if row is None:
            return None
        digest, answer = row
        if digest != key.digest:
            return IdempotencyConflict()
        return Appended(None, self._now_us, bytes(answer), replayed=True)

    def record(self, request: Request) -> Appended:
        mark = None
        if request.payload is not None:
            self._position += 1
            mark = Mark(self._position, request.record_id)
            self._connection.execute(_INSERT, (*mark, self._now_us, request.payload))
        if (key := request.key) is not None:
            self._connection.execute(_KEEP_KEY, (key.name, key.digest, request.answer, self._now_us + key.ttl_us))
        return Appended(mark, self._now_us, request.answer)


def _last(connection: sqlite3.Connection) -> tuple[int, int]:
    """Position and appended_us of the last record there ever was."""
    row: tuple[int, int] | None = connection.execute(_LAST).fetchone()
    return row or connection.execute(_LAST_CHECKPOINT).fetchone() or (0, 0)


def _probe(connection: sqlite3.Connection, after: Mark) -> int:
    """Check that the mark stands, and give the last record's position (0: none is held)."""
    last, record_id, position, checkpoint_record = connection.execute(_PROBE, (after.position,)).fetchone()
    if position is None:
        stands = after == START or record_id == after.record_id
    elif position == after.position:
        stands = checkpoint_record == after.record_id
    else:
        stands = after.position > position and record_id == after.record_id
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
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class _File:
    """The database file: making it, checking that it is ours, and noticing when it is another one."""

    def __init__(self, path: str, wait_limit_s: float) -> None:
        self.path = path
        self._folder = os.path.dirname(path)
        self._wait_limit_s = wait_limit_s
        self._lock = threading.Lock()
        self._opened: tuple[_Identity, _Identity | None] | None = None  # the file last opened, and its -wal

    def identity(self) -> _Identity:
        try:
            found = os.stat(self.path)
        except OSError as error:
            # A restore may be under way: a new file made now would be replaced, with what was recorded in it.
            raise JournalUnavailable(f"{self.path} is not there ({error.strerror}); restore it, or restart") from error
        return _Identity(found.st_dev, found.st_ino)

    def size_bytes(self) -> int:
        size = 0
        for path in (self.path, self.path + "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(path).st_size
        return size

    def prepare(self, *, create: bool) -> None:
        """Make the file, or see whether it can be used. JournalRefused if not, with what to do."""
        if not create and not os.path.exists(self.path):
            raise JournalRefused(f"there is no journal at {self.path}")
        try:
            os.makedirs(self._folder, exist_ok=True)
        except OSError as error:
            raise JournalRefused(
                f"the folder {self._folder} cannot be made ({error.strerror}): make it, or name another"
            ) from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise JournalRefused(
                f"the journal's folder {self._folder} cannot be written (SQLite keeps -wal and -shm there): "
                "let this user write it, or name another"
            )
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise JournalRefused(f"{self.path} is not a file: name another")
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise JournalRefused(f"{self.path} is read-only: let this user write it, or name another")
        with self._alone() as folder:
            try:
                connection = self._connect("rwc" if create else "rw")
                try:
                    if self._is_new(connection):
                        if not create:
                            raise JournalRefused(f"{self.path} is empty")
                        self._make(connection)
                        os.fsync(folder)  # SQLite does so for the -wal, not for the file
                    # Walks the pages that hold the records' heads: 50 ns a record, and most damage shows here.
                    connection.execute("SELECT count(*) FROM log").fetchone()
                    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                finally:
                    connection.close()
            except sqlite3.Error as error:
                if _primary(error) == sqlite3.SQLITE_BUSY:
                    raise JournalRefused(f"{self.path} is locked by another process: stop it") from error
                if _cause(error) == sqlite3.SQLITE_FULL:  # space comes back without a restart, at an opening too
                    raise _unavailable(error, self.path) from error
                raise JournalRefused(_refusal(error, self.path)) from error
            if mode != "wal":
                raise JournalRefused(
                    f"{self.path} is on a file system that cannot share memory, as WAL must: use a local disk"
                )

    def connect(self, settings: tuple[str, ...]) -> tuple[sqlite3.Connection, _Identity]:
        """A connection to the file that is at the path now, never to one that it would have to make."""
        with self._alone():
            identity = self.identity()
            if self._opened is not None and self._opened[0] != identity and self._opened[1] == self._wal():
                for suffix in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path + suffix)
            try:
                connection = self._connect("rw")
                try:
                    self._check_made(connection)
                    for setting in settings:
                        connection.execute(setting).fetchall()
                    connection.execute(_LAST).fetchall()  # opens the -wal
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from error
            except JournalRefused as error:
                raise JournalUnavailable(str(error)) from error
            self._opened = (identity, self._wal())
            return connection, identity

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            timeout=self._wait_limit_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_NET_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}")
        connection.execute("PRAGMA secure_delete=OFF")  # Debian's build overwrites what is deleted otherwise
        return connection

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        """Whether nothing was made in it yet; an older one is brought up to date. JournalRefused for what is not ours,
        or too new. Caller is `_alone`.
        """
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, things) == (0, 0, 0):
            return True
        if application != APPLICATION_ID:
            raise JournalRefused(f"{self.path} is another program's database: name another file")
        if version == 1:
            connection.executescript(f"BEGIN IMMEDIATE; {_PIECES_TABLE} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise JournalRefused(
                f"{self.path} has schema {version} and this statsapi knows {SCHEMA_VERSION}: use a newer one"
            )
        return False

    def _check_made(self, connection: sqlite3.Connection) -> None:
        if self._is_new(connection):
            raise JournalUnavailable(f"{self.path} was replaced by an empty file; restore it")

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
            f" PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """No other worker opens the file meanwhile: an flock on the folder, polled, since a blocking one has
        no limit.
        """
        deadline = time.monotonic() + self._wait_limit_s
        with self._lock:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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

    def _wal(self) -> _Identity | None:
        try:
            found = os.stat(self.path + "-wal")
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
    sqlite3.SQLITE_CORRUPT: "{path} is damaged",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database, or damaged",
}
_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_READONLY: "let this user write it, or name another file",
    sqlite3.SQLITE_CANTOPEN: "let this user read and write it and its folder, or name another file",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or move it away",
    sqlite3.SQLITE_NOTADB: "name another file, or restore it from a backup, or move it away",
}


def _refusal(error: sqlite3.Error, path: str) -> str:
    code = _primary(error)
    said = _SAID.get(code, "{path} cannot be used").format(path=path)
    return f"{said} ({error}): {_ADVICE.get(code, 'see to the cause')}"


def _unavailable(error: sqlite3.Error, path: str, *, committing: bool = False) -> JournalUnavailable:
    code, cause = _primary(error), _cause(error)
    said = _SAID.get(cause, "{path} failed").format(path=path)
    # These leave the commit's last frame unwritten; after any other failure it may be on the disk.
    surely_not = not committing or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
    advice = f": {_ADVICE[cause]}" if cause in _ADVICE else ""
    return JournalUnavailable(f"{said} ({error}){advice}", outcome_unknown=not surely_not)
