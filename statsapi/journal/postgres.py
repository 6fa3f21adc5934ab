"""The journal in PostgreSQL 13 or newer: one schema of a database, for any number of machines.

Its tables, and the function that appends: sql/postgres.sql. What proves that a record is what was written:
postgres_rows.py. What a COMMIT waits for: postgres_settings.py.

Order and time.  An append is one statement: a function takes an advisory lock, looks at the last record, gives
positions and time, and writes. The lock is given back when COMMIT is done, also where that waits for a disk or a
standby. So positions rise in the order of commits, without holes, and a reader that sees one sees all before it. Group
commit (group_commit.py) makes up for the wait. The lock is advisory: locking a row was as fast (0.88 to 1.03), but
dirties its page each time. `appended_us` is `time_after` of the server's clock, which each read brings along: it is the
reader's *now*. A clock other than the wall clock (tests) is sent along and used instead.

Reading is one statement, so one snapshot: what stands at the mark, where the journal ends, its checkpoint, and the
records. LISTEN and NOTIFY are not used: a question has to know that nothing is new, which only the server can say.

Compaction deletes rows in order of position, as the pages they fill; autovacuum (set to it in sql/postgres.sql) gives
the pages back to new ones. Partitions that are dropped were 1.05 to 1.08 as fast, but only a table's owner may make
them, and each needs a lock for which all appends and reads wait while somebody dumps the table.

Damage, history and loss: postgres_rows.py, postgres_history.py. What a lost answer means: postgres_appends.py.

Threads.  Appends of a process queue behind one lock; each statement has a session of its own from a few that are kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final

from statsapi.errors import JournalRefused
from statsapi.journal.columns import decode_records
from statsapi.journal.engine_protocol import LimitStorage, Options, damage_by_reading
from statsapi.journal.group_commit import WAIT_LIMIT_S
from statsapi.journal.postgres_appends import Appends
from statsapi.journal.postgres_checkpoint import Checkpoints
from statsapi.journal.postgres_errors import Standby
from statsapi.journal.postgres_health import Health
from statsapi.journal.postgres_history import History
from statsapi.journal.postgres_rows import SCHEMA_VERSION, fill_key_places, rows_of, state_of
from statsapi.journal.postgres_server import LOCK_WAIT_S, Server
from statsapi.journal.postgres_session import Statement, long_of
from statsapi.journal.postgres_settings import choose
from statsapi.journal.postgres_tables import Tables
from statsapi.journal.postgres_url import Address
from statsapi.journal.protocol import (
    NO_PIECES,
    READ_LIMIT_BYTES,
    READ_LIMIT_RECORDS,
    Appended,
    Checkpoint,
    Clock,
    Decide,
    Fsync,
    Info,
    Journal,
    Lost,
    Mark,
    Proposal,
    Segment,
    SharedFolder,
    wall_clock_us,
)
from statsapi.model import IdempotencyKey

# A read asks for the number of records that fit the limit in bytes, by the average size of the last ones: at least
# READ_LEAST, and at most READ_NEAR where the last read met the end. Elsewhere the server counts their bytes too,
# because libpq holds the whole answer in memory.
READ_LEAST: Final = 16
READ_NEAR: Final = 64
INFO_S: Final = 10.0  # to count all records

# One step of maintain removes this many records or keys; a call takes at most STEPS steps.
STEP_ROWS: Final = 5000
STEPS: Final = 64
STEP_PAUSE_S: Final = 1e-3

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_ZEROS = "'\\x" + "00" * 16 + "'::bytea"
# The mark's own record comes along without its payload. The record that this process knows ({known}) is asked for
# only where it is a later one. With the journal's end, and both of these looked up each time, it took 45 µs, not 25.
_READ = f"""
SELECT int8send({_CLOCK}) || int8send(coalesce(c.position, -1)) || m.born || coalesce(c.record_id, {_ZEROS})
       || {{known}}, NULL::bytea
FROM {{schema}}.meta m LEFT JOIN {{schema}}.checkpoint c ON true
UNION ALL
{{rows}}
"""  # noqa: S608 - what is put in are constants
_FEW = """
(SELECT int8send(appended_us) || int8send(position) || id || int8send("check"),
        CASE WHEN position > $1::bigint THEN payload END
 FROM {schema}.records WHERE position >= $1::bigint ORDER BY position LIMIT $2::bigint)
"""
# Many records: payloads up to {bytes}, and the one that goes beyond. Their sizes are not known before. The server finds
# them by the lengths alone, which it reads without the payloads.
_MANY = """
(SELECT int8send(appended_us) || int8send(position) || id || int8send("check"),
        CASE WHEN position > $1::bigint AND before < {bytes}::bigint THEN payload END
 FROM (SELECT r.*, coalesce(sum(CASE WHEN position > $1::bigint THEN octet_length(payload) ELSE 0 END)
              OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
       FROM (SELECT * FROM {schema}.records WHERE position >= $1::bigint ORDER BY position LIMIT $2::bigint) r) sized
 ORDER BY position)
"""
_NOT_KNOWN = "''::bytea"
_KNOWN = f"coalesce((SELECT id FROM {{schema}}.records WHERE position = $3::bigint), {_ZEROS})"  # noqa: S608
_SIZE = """
SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = '{schema}.meta'::regclass) AND c.relkind = 'r'
"""
_INFO = """
SELECT (SELECT count(*) FROM {schema}.records WHERE position > coalesce(c.position, 0)),
       (SELECT min(position) FROM {schema}.records WHERE position > coalesce(c.position, 0)),
       (SELECT max(position) FROM {schema}.records WHERE position > coalesce(c.position, 0)),
       coalesce((SELECT appended_us FROM {schema}.records ORDER BY position DESC LIMIT 1), c.appended_us),
       c.position, c.appended_us
FROM {schema}.meta LEFT JOIN {schema}.checkpoint c ON true
"""
# A lock of its own lets only one process do it at a time. The second number is the last position removed.
_TRIM = """
WITH dead AS (
    SELECT position FROM {schema}.records
    WHERE position > $1::bigint AND position <= coalesce((SELECT position FROM {schema}.checkpoint), 0)
          AND pg_try_advisory_xact_lock(1937006966, '{schema}.meta'::regclass::oid::integer)
    ORDER BY position LIMIT $2::bigint
), gone AS (DELETE FROM {schema}.records r USING dead WHERE r.position = dead.position RETURNING r.position)
SELECT count(*), max(position) FROM gone
"""
# A damaged key is not forgotten, because its expiry may be wrong.
_FORGET = """
WITH due AS (SELECT name FROM {schema}.idempotency_keys
             WHERE expires_us <= $1::bigint AND "check" >> 32 = PLACE(name; expires_us)
             ORDER BY expires_us LIMIT $2::bigint),
     gone AS (DELETE FROM {schema}.idempotency_keys k USING due
              WHERE k.name = due.name AND k.expires_us <= $1::bigint RETURNING 1)
SELECT count(*) FROM gone
"""


class PostgresEngine:
    """See the Engine protocol."""

    kind: ClassVar = "postgresql"
    single_process: ClassVar = False
    is_kept: ClassVar = True
    is_file: ClassVar = False
    is_remote: ClassVar = True
    has_replicas: ClassVar = False

    def __init__(self, url: str) -> None:
        self._url = url

    def check_url(self) -> None:
        Address.parse(self._url)

    def open(self, options: Options) -> Journal:
        address = Address.parse(self._url)
        return PostgresJournal(address, fsync=options.fsync, clock_us=options.clock_us, create=options.create)

    def shares_limits(self) -> LimitStorage | None:
        """Each worker's memory: the `limits` library does not count in PostgreSQL."""
        return LimitStorage("memory://", per_worker=True)

    def find_damage(self) -> Iterator[str]:
        journal = PostgresJournal(Address.parse(self._url), create=False)
        return damage_by_reading(journal, journal._appends.check_answers)

    def salvage(self, target: str) -> str:
        raise JournalRefused(
            "this journal lives in PostgreSQL: fail over to a standby, or restore a backup (pg_basebackup with its "
            "WAL, pg_dump); there is nothing to salvage from here"
        )

    def compact(self) -> tuple[int, int]:
        raise JournalRefused(
            "this journal lives in PostgreSQL, which uses the space of what is no longer kept again (VACUUM FULL "
            "gives it back to the disk): there is nothing to compact from here"
        )

    def put_away(self) -> None:
        """The server keeps it."""


class PostgresJournal:
    """See the Journal protocol, and the module's text for what is kept where."""

    lost: Lost | None = None  # each view finds it out by itself

    def __init__(
        self,
        address: Address,
        *,
        fsync: Fsync = "interval",
        clock_us: Clock = wall_clock_us,
        machine_clock_us: Clock = wall_clock_us,
        wait_limit_s: float = WAIT_LIMIT_S,
        create: bool = True,
    ) -> None:
        self.observe_fsync: Callable[[float], None] = lambda seconds: None
        self._server = server = Server(address, clock_us, machine_clock_us)
        server.prepare = Tables(server, create=create).prepare
        self.local_clock_us = server.test_clock_us
        self.settled_us = self.local_clock_us or server.clock.now_us
        self._history = History(server)
        self._checkpoints = Checkpoints(server)
        self._health = Health(server)
        schema = address.schema
        # By whether a record is asked for that is known here, and whether there are many.
        self._reads = {
            (known, many): Statement(
                _READ.replace("{known}", _KNOWN if known else _NOT_KNOWN).replace(
                    "{rows}", _MANY.replace("{bytes}", "$4" if known else "$3") if many else _FEW
                ),
                schema,
            )
            for known in (False, True)
            for many in (False, True)
        }
        self._size, self._info, self._trim, self._forget = (
            Statement(fill_key_places(text), schema) for text in (_SIZE, _INFO, _TRIM, _FORGET)
        )
        self._keeping = threading.Lock()
        self._trimmed = 0
        self._is_near = False  # whether the last read met the end
        self._record_bytes = 1.0  # average size of the records of the last read
        try:
            self.promise = choose(server, self._health, fsync)
        except Standby as error:
            server.close()
            raise JournalRefused(
                f"{error}: name the primary, or all its hosts with target_session_attrs=read-write; "
                "default_transaction_read_only of the role or the database must be off"
            ) from error
        except BaseException:
            server.close()
            raise
        self._appends = Appends(
            server,
            self._history,
            self._health,
            lambda: self.settled_us(),
            (lambda seconds: self.observe_fsync(seconds)) if "commit = off" not in server.settings else None,
            wait_limit_s=wait_limit_s,
        )

    @property
    def clock_skew_us(self) -> int | None:
        return None if self._server.test_clock_us is not None else self._server.clock.skew_us

    def shared_folder(self) -> SharedFolder | None:
        return None

    def append(self, proposal: Proposal | Decide, *, key: IdempotencyKey | None = None) -> Appended:
        return self._appends.append(proposal, key)

    # Reading

    def find_answer(self, key: IdempotencyKey) -> bytes | None:
        return self._appends.find_answer(key)

    def read(
        self,
        after: Mark,
        *,
        until_us: int | None = None,
        wrong_after_us: int | None = None,
        limit_bytes: int = READ_LIMIT_BYTES,
        limit_records: int = READ_LIMIT_RECORDS,
    ) -> Segment:
        known = self._history.known
        count = min(max(1, limit_records), max(READ_LEAST, int(limit_bytes / self._record_bytes) + 1))
        if self._is_near:
            count = min(count, READ_NEAR)
        server = self._server
        asked = server.clock.asked()
        wanted: list[int | bytes | None] = [after.position, count + 2]  # the mark's record, and one that tells of more
        asks_known, many = known.position > after.position, not self._is_near
        if asks_known:
            wanted.append(known.position)
        if many:
            wanted.append(limit_bytes)
        result = server.run(self._reads[asks_known, many], wanted)
        state = state_of(server, result, after, known.position)
        server.clock.answered(asked, state.clock_us)
        self._history.check(after, known, state)  # first: of a prefix that was compacted, records are missing rightly
        rows = rows_of(server, result, state.first_row, after.position)
        now_us = state.clock_us if server.test_clock_us is None else server.test_clock_us()
        self._is_near = len(rows.stamps_us) <= count and not rows.cut
        if not rows.heads:
            return Segment(after, None, (), 0, more=False, end=after.position, now_us=now_us)
        stamps, payloads = rows.stamps_us, rows.payloads
        end = after.position + len(stamps)
        if len(stamps) > count or rows.cut:  # far behind: where the journal ends is worth a question
            end = max(end, self._history.end())
        count = min(count, len(stamps))
        ended = False  # whether the journal ends here, for this call
        if until_us is not None:
            for at, stamp in enumerate(stamps[:count]):
                if stamp > until_us and (wrong_after_us is None or stamp <= wrong_after_us):
                    count, ended = at, True
                    break
        size = 0
        for at in range(count):
            size += len(payloads[at])
            if size >= limit_bytes and at + 1 < count:
                count, ended = at + 1, False
                break
        if count == 0:
            return Segment(after, None, (), 0, more=False, end=end, now_us=now_us)
        self._record_bytes = max(1.0, size / count)
        last = after.position + count
        mark = Mark(last, rows.id(count - 1))
        self._history.learn_read(known, mark, stamps[count - 1], state.born)
        changes = decode_records(range(after.position + 1, last + 1), stamps[:count], payloads[:count])
        more = not ended and (count < len(stamps) or rows.cut)
        return Segment(mark, stamps[count - 1], changes, count, more=more, end=end, now_us=now_us)

    def read_checkpoint(self) -> Checkpoint | None:
        return self._checkpoints.read()

    def read_pieces(self, checkpoint_id: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        return self._checkpoints.read_pieces(checkpoint_id, first, last)

    # Compaction and housekeeping

    def replace_prefix(
        self,
        previous_id: bytes | None,
        checkpoint: Checkpoint,
        pieces: Mapping[int, bytes | None] = NO_PIECES,
        *,
        drop_pieces_before: int | None = None,
    ) -> bool:
        return self._checkpoints.replace_prefix(previous_id, checkpoint, pieces, drop_pieces_before=drop_pieces_before)

    def maintain(self) -> None:
        self._server.check_open()
        if not self._keeping.acquire(blocking=False):
            return  # another thread is at it
        try:
            with self._server.session() as session:
                if self._health.check_tables(session).lacks_standbys:
                    return  # each COMMIT would leave a process of the server behind that waits
            for step in (self._drop_dead_records, self._drop_expired_keys):
                for _ in range(STEPS):
                    if not step():
                        break
                    time.sleep(STEP_PAUSE_S)  # let appends in between
        finally:
            self._keeping.release()

    def _drop_dead_records(self) -> bool:
        """One step. Returns whether there may be more. It goes on where it stopped: a scan from the front would go over
        all that vacuum has yet to remove.
        """
        with self._server.session() as session:
            row = session.run(self._trim, [self._trimmed, STEP_ROWS], LOCK_WAIT_S)
        removed, upto = long_of(row.get_value(0, 0)), long_of(row.get_value(0, 1))
        self._trimmed = max(self._trimmed, upto)
        return removed == STEP_ROWS

    def _drop_expired_keys(self) -> bool:
        """One step. Returns whether there may be more."""
        with self._server.session() as session:
            row = session.run(self._forget, [self.settled_us(), STEP_ROWS], LOCK_WAIT_S)
        return long_of(row.get_value(0, 0)) == STEP_ROWS

    def check_writable(self, wait_s: float = 1.0) -> None:
        self._appends.check_writable(wait_s)

    def size_bytes(self) -> int:
        """Of its tables and their indexes, with rows that vacuum has yet to remove."""
        return long_of(self._server.run(self._size).get_value(0, 0))

    def info(self) -> Info:
        result = self._server.run(self._info, longer_s=INFO_S)
        found = [result.get_value(0, at) for at in range(6)]
        records, first, last, appended_us, at, at_us = (None if value is None else long_of(value) for value in found)
        return Info(
            location=str(self._server.address),
            size_bytes=self.size_bytes(),
            records=records or 0,
            first_position=first,
            last_position=last,
            appended_us=appended_us,
            checkpoint_position=at,
            checkpoint_us=at_us,
            schema_version=SCHEMA_VERSION,
        )

    def backup(self, path: str, *, overwrite: bool = False) -> None:
        raise JournalRefused(
            "this journal lives in PostgreSQL, which has backups of its own (pg_basebackup with its WAL, pg_dump, a "
            "standby): there is nothing to back up from here"
        )

    def close(self) -> None:
        self._server.close()
