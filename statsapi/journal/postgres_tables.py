"""The tables of a PostgreSQL journal and the function that appends to them: made at the first start, looked at by every
start. sql/ has both.

A journal is a schema of its own. Tables in it that are not ours are never touched.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from statsapi.errors import JournalRefused, JournalUnavailable
from statsapi.journal.postgres_errors import NO_KEY, NOT_INSERTED
from statsapi.journal.postgres_rows import APPEND, SCHEMA_VERSION, fill_key_places
from statsapi.journal.postgres_server import Server, Told
from statsapi.journal.postgres_session import Failed, Session
from statsapi.journal.protocol import CLOCKS_DIFFER_US

logger = logging.getLogger("statsapi")

OLDEST_VERSION: Final = 13

# Something of this name is there already: a table, type or function, or an object of another kind.
_TAKEN: Final = ("42P07", "42710", "42723", "42P13", "42809")
# Others who start at the same time wait until the tables are there.
MAKE_S: Final = 30.0

_LOOK: Final = """
SELECT n.oid IS NOT NULL, to_regclass({meta}) IS NOT NULL,
       (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid),
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
       has_database_privilege(current_database(), 'CREATE'),
       (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
        WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND c.relrowsecurity AND row_security_active(c.oid))
FROM (SELECT 1) AS one LEFT JOIN pg_namespace n ON n.nspname = {name}
"""
_TABLES: Final = "SELECT schema_version, octet_length(born) FROM {schema}.meta"
_BORN: Final = "INSERT INTO {schema}.meta (schema_version, born, checkpoint_id) VALUES ({version}, {born}, '')"
# Up to schema 2 the table idempotency_keys was named keys, and the function append. Calls of the old function that wait
# for the lock in its body go on after the upgrade, whatever becomes of the function: without the table's name they fail
# and leave nothing. Old workers then look at the tables again, and refuse a newer schema. The function of today looks
# at the version itself, once it has the lock.
# In schema 1 a key's check was expires_us plus the checksum of the rest; an upgrade to schema 2 left such rows where
# calls went on. What was damaged stays so.
_UPGRADE: Final = """
SELECT pg_advisory_xact_lock(1937006964, {meta}::regclass::oid::integer);
ALTER TABLE {schema}.keys RENAME TO idempotency_keys;
ALTER INDEX IF EXISTS {schema}.keys_pkey RENAME TO idempotency_keys_pkey;
ALTER INDEX IF EXISTS {schema}.keys_by_expiry RENAME TO idempotency_keys_by_expiry;
UPDATE {schema}.idempotency_keys SET "check" = (PLACE(name; expires_us) << 32) | ("check" - expires_us)
WHERE "check" - expires_us BETWEEN 0 AND 4294967295
      AND ("check" >> 32 <> PLACE(name; expires_us) OR EXISTS (SELECT 1 FROM {schema}.meta WHERE schema_version = 1));
UPDATE {schema}.meta SET schema_version = {version}
"""
UPGRADE_S: Final = 600.0  # 10 µs a key
# Which of our tables are missing, and the function's text. The text names the schema: after the schema was renamed, the
# function would write to another one.
_WHOLE: Final = """
SELECT coalesce((SELECT string_agg(t, ', ') FROM unnest(ARRAY['records', 'checkpoint', 'pieces', 'idempotency_keys']) t
                 WHERE to_regclass('{schema}.' || t) IS NULL
                       AND (t <> 'idempotency_keys' OR m.schema_version > 2
                            OR to_regclass('{schema}.keys') IS NULL)), ''),
       (SELECT string_agg(p.prosrc, '') FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = {name} AND p.proname = '{append}' AND p.prosrc LIKE '%(1937006964, %')
FROM {schema}.meta m
"""
# Whether the tables beside meta are there, of any version: together they are no other program's.
_OTHERS: Final = """
SELECT bool_and(to_regclass('{schema}.' || t) IS NOT NULL) FROM unnest(ARRAY['records', 'checkpoint', 'pieces']) t
"""
# With other parameters it would stand beside the old one. Ours take the write lock; others' are left.
_DROP: Final = """
DO $do$ DECLARE old text; BEGIN
    FOR old IN SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname = {name} AND p.proname ~ '^append(_[0-9]+)?$'
                     AND p.prosrc LIKE '%(1937006964, %'
    LOOP EXECUTE 'DROP FUNCTION ' || old; END LOOP;
END $do$
"""
_RIGHTS: Final = """
SELECT bool_and(has_table_privilege(c.oid, wanted))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
WHERE n.nspname = {name} AND c.relkind = 'r'
"""
_MAY_APPEND: Final = """
SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = {name} AND p.proname = '{append}'
"""


class Tables:
    """`create`: whether to make what is not there. A journal that was there once is never made again: only a start
    may begin anew.
    """

    def __init__(self, server: Server, *, create: bool) -> None:
        self._server = server
        self._create = create
        self._was_there = False
        stream, self._schema = server.address.stream, server.address.schema
        self._words = {"{schema}": self._schema, "{name}": f"'{stream}'", "{meta}": f"'{self._schema}.meta'"}
        self._words |= {"{append}": APPEND, "{version}": str(SCHEMA_VERSION)}
        self._words |= {"{clocks_differ_us}": str(CLOCKS_DIFFER_US), "{no_key}": NO_KEY, "{not_inserted}": NOT_INSERTED}

    def prepare(self, session: Session, told: Told) -> None:
        """Make the tables unless they are there. JournalRefused where they cannot be used, with what to do."""
        place = self._server.address
        major = int(told.version.partition(".")[0].split("beta")[0].split("rc")[0].split("devel")[0])
        if major < OLDEST_VERSION:
            raise JournalRefused(f"{place} is PostgreSQL {told.version}; it takes {OLDEST_VERSION} or newer")
        try:
            self._prepare(session, told)
            self._was_there = True
            self._server.rights = self._rights(told)
        except Failed as error:
            if error.state == "42501":
                raise self._without_rights(told, error.said) from error
            if error.state in _TAKEN:
                raise JournalRefused(
                    f"{place}: the schema {self._schema} holds something of another program that has the name of ours "
                    f"({error.said}): name another schema by ?stream=NAME, or let its owner drop or rename that"
                ) from error
            raise

    def _prepare(self, session: Session, told: Told) -> None:
        exists, ours, things, usage, create, create_schema, hidden = self._look(session)
        place = self._server.address
        if ours and hidden:
            raise JournalRefused(
                f"{place}: row-level security could hide rows of {hidden} from the role {told.role!r}: let the owner "
                "run ALTER TABLE … DISABLE ROW LEVEL SECURITY, or give that role BYPASSRLS"
            )
        if exists and not usage:
            raise self._without_rights(told, f"it may not use the schema {self._schema}")
        if not ours and things and (session.simple(self._fill(_OTHERS)).get_value(0, 0) or b"") == b"t":
            raise self._gone("meta")
        if not ours and self._was_there:
            what = f"the table {self._schema}.meta" if exists else f"the schema {self._schema}"
            raise JournalRefused(
                f"{place}: {what} was dropped while this service was running, and what was recorded is gone: restore "
                "a backup of the database, or restart the service to begin anew"
            )
        if not ours and things:
            raise JournalRefused(
                f"{place}: the schema {self._schema} holds tables of another program: name another by ?stream=NAME"
            )
        if not ours:
            if not self._create:
                raise JournalRefused(f"no journal at {place}: nothing was ever recorded there")
            if not exists and not create_schema:
                raise JournalRefused(
                    f"{place}: the role {told.role!r} may not make a schema in {told.database!r}: let its owner run "
                    f'CREATE SCHEMA {self._schema} AUTHORIZATION "{told.role}";'
                )
            if exists and not create:
                raise JournalRefused(
                    f"{place}: the role {told.role!r} may not make tables in the schema {self._schema}: let its owner "
                    f'run GRANT USAGE, CREATE ON SCHEMA {self._schema} TO "{told.role}";'
                )
            self._make(session)
        try:
            row = session.simple(self._fill(_TABLES))
        except Failed as error:
            if error.state in ("42703", "42P01"):
                raise JournalRefused(
                    f"{place}: the table {self._schema}.meta is another program's: name another by ?stream=NAME"
                ) from error
            raise
        if row.ntuples != 1 or (row.get_value(0, 1) or b"") != b"16":
            raise self._server.damaged("the journal's table meta", "its row is missing or not what was written")
        version = int(row.get_value(0, 0) or b"0")
        if version > SCHEMA_VERSION and self._was_there:
            raise JournalRefused(
                f"another version has upgraded the journal at {place} to schema {version}, and this one reads up to "
                f"{SCHEMA_VERSION}: restart this service with that version"
            )
        if version > SCHEMA_VERSION:
            raise JournalRefused(f"the journal at {place} has schema {version}: use a newer statsapi")
        if version < 1:
            raise self._server.damaged("the journal's table meta", f"no statsapi has schema version {version}")
        self._require_whole(session, told, version)
        if (session.simple(self._fill(_RIGHTS)).get_value(0, 0) or b"") != b"t":
            raise self._without_rights(told, "it may not read and write all its tables")
        if (session.simple(self._fill(_MAY_APPEND)).get_value(0, 0) or b"") != b"t":
            raise self._without_rights(told, f"it may not call {self._schema}.{APPEND}")

    def _require_whole(self, session: Session, told: Told, version: int) -> None:
        """JournalRefused where a table is gone. A function that is gone, or another schema's, is made again; tables of
        an older version are brought up to date.
        """
        place = self._server.address
        row = session.simple(self._fill(_WHOLE))
        if missing := (row.get_value(0, 0) or b"").decode():
            raise self._gone(missing)
        if self._is_ours(row.get_value(0, 1)) and version == SCHEMA_VERSION:
            return
        try:
            with self._alone(session):
                found = int(session.simple(self._fill(_TABLES)).get_value(0, 0) or b"0")  # others may have been first
                if found > SCHEMA_VERSION:
                    raise JournalRefused(f"the journal at {place} has schema {found}: use a newer statsapi")
                if found < SCHEMA_VERSION:
                    self._upgrade(session, found)
                # Where others were first their sessions may be at it: to them a function that is made again is gone.
                if not self._is_ours(session.simple(self._fill(_WHOLE)).get_value(0, 1)):
                    session.simple(self._fill(_DROP), MAKE_S)
                    session.simple(self._function(), MAKE_S)
            if found < SCHEMA_VERSION:
                logger.info("The journal at %s is brought from schema %d to %d", place, found, SCHEMA_VERSION)
        except Failed as error:
            if error.state == "55P03":
                raise JournalUnavailable(
                    f"{place}: its tables could not be brought up to date, as others used them for {MAKE_S:.0f} s "
                    "(pg_dump, a transaction that was left open, see pg_locks): let them end; it is tried again"
                ) from error
            if error.state != "42501":
                raise
            raise JournalRefused(
                f"{self._server.address}: the function {self._schema}.{APPEND} is gone, or of another version or "
                f"schema, and the role {told.role!r} may not make it: start statsapi once as the owner of "
                f"{self._schema}.meta"
            ) from error

    def _is_ours(self, text: bytes | None) -> bool:
        """Whether the function that `_WHOLE` has found is the one of this version and schema."""
        return (text or b"").decode() == self._function().split("$$")[1]

    def _upgrade(self, session: Session, found: int) -> None:
        try:
            session.simple(self._fill(_UPGRADE), UPGRADE_S)
        except Failed as error:
            if error.state != "42P01":
                raise
            why = f"it says schema version {found}, and the tables beside it are of another"
            raise self._server.damaged("the journal's table meta", why) from error

    def _gone(self, missing: str) -> JournalRefused:
        return JournalRefused(
            f"{self._server.address}: of the schema {self._schema} {missing} is gone: restore a backup of the "
            f"database, or begin anew after DROP SCHEMA {self._schema} CASCADE;"
        )

    def _without_rights(self, told: Told, said: str) -> JournalRefused:
        return JournalRefused(
            f"{self._server.address}: the role {told.role!r} lacks rights ({said}): {self._rights(told)}"
        )

    def _rights(self, told: Told) -> str:
        return (
            f"let the schema's owner run "
            f'GRANT USAGE ON SCHEMA {self._schema} TO "{told.role}"; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL '
            f'TABLES IN SCHEMA {self._schema} TO "{told.role}"; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA '
            f'{self._schema} TO "{told.role}";'
        )

    def _look(self, session: Session) -> tuple[bool, bool, int, bool, bool, bool, str]:
        row = session.simple(self._fill(_LOOK))
        values = [(row.get_value(0, at) or b"f").decode() for at in range(6)]
        flags = [value == "t" for value in values]
        hidden = (row.get_value(0, 6) or b"").decode()
        return flags[0], flags[1], int(values[2]), flags[3], flags[4], flags[5], hidden

    def _make(self, session: Session) -> None:
        text = self._fill(_text_of("postgres.sql"))
        with self._alone(session):
            exists, ours, *_ = self._look(session)
            if not ours:  # nobody else has made them meanwhile
                if not exists:
                    session.simple(f"CREATE SCHEMA {self._schema}")
                session.simple(text, MAKE_S)
                session.simple(self._function(), MAKE_S)
                born = f"'\\x{secrets.token_hex(16)}'"
                session.simple(self._fill(_BORN).format(born=born))

    @contextlib.contextmanager
    def _alone(self, session: Session) -> Iterator[None]:
        """A transaction in which nobody else makes anything. It waits for no standby: it acknowledges nothing, and the
        first append waits for all that came before it.
        """
        limit = f"SET LOCAL lock_timeout = {int(MAKE_S * 1000)}; SET LOCAL synchronous_commit = local"
        session.simple(f"BEGIN; {limit}; SELECT pg_advisory_xact_lock(1937006964, 0)", MAKE_S)
        try:
            yield
            session.simple("COMMIT", MAKE_S)
        finally:
            if session.is_in_transaction:
                session.simple("ROLLBACK")

    def _function(self) -> str:
        return self._fill(_text_of("postgres_append.sql"))

    def _fill(self, text: str) -> str:
        for word, value in self._words.items():
            text = text.replace(word, value)
        return fill_key_places(text)


def _text_of(name: str) -> str:
    return files("statsapi.journal").joinpath(f"sql/{name}").read_text()
