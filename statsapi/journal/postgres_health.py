"""Whether a PostgreSQL server can take appends now: the tables are there, and the standbys that COMMIT waits for.

A COMMIT that waits for a standby waits for ever, also when we have gone. So whatever writes looks first, except an
append: the look would double its round trips, so its error says afterwards what was missing.
"""

from __future__ import annotations

import logging
import re
from typing import Final, NamedTuple

from statsapi.errors import JournalRefused, JournalUnavailable
from statsapi.journal.postgres_server import Server
from statsapi.journal.postgres_session import Session, Statement, long_of

logger = logging.getLogger("statsapi")

TABLES: Final = ("records", "checkpoint", "pieces", "idempotency_keys", "meta")

# A role that may not see the state of a standby (it takes pg_monitor) sees its name: that one counts as there.
_LOOK: Final = f"""
SELECT coalesce((SELECT string_agg(t, ', ') FROM unnest(ARRAY{list(TABLES)}) t
                 WHERE to_regclass('{{schema}}.' || t) IS NULL), ''),
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN ''
            ELSE current_setting('synchronous_standby_names') END,
       coalesce((SELECT string_agg(application_name || ' (' || coalesce(state || ', ' || sync_state,
                                   'this role may not see its state: GRANT pg_monitor TO ' || current_user) || ')',
                                   ', ' ORDER BY application_name, pid) FROM pg_stat_replication), 'none'),
       (SELECT count(*) FROM pg_stat_replication
        WHERE state IS NULL OR state = 'streaming' AND sync_state IN ('sync', 'potential', 'quorum'))
"""  # noqa: S608 - what is put in are constants
_WANTED: Final = re.compile(r"\s*(?:(?:any|first)\s+)?(\d+)\s*\(", re.IGNORECASE)


class Seen(NamedTuple):
    """What one look found. `names` is the server's synchronous_standby_names, empty where COMMIT does not wait for it;
    `connected` describes the standbys for people.
    """

    gone: str
    names: str
    connected: str
    there: int

    @property
    def lacks_standbys(self) -> bool:
        wanted = _WANTED.match(self.names)
        return bool(self.names) and self.there < (int(wanted[1]) if wanted else 1)


class Health:
    """Any thread may call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._look = Statement(_LOOK, server.address.schema)
        self._waits = False  # whether COMMIT waited for standbys at the last look
        self._told = False  # that one is missing

    def look(self, session: Session) -> Seen:
        """A round trip; a line in the log when the standbys begin to be too few, and when they are there again. Raises
        Failed and Unanswered.
        """
        get = session.run(self._look).get_value
        gone, names, connected = ((get(0, at) or b"").decode("utf-8", "replace") for at in range(3))
        seen = Seen(gone, names, connected, long_of(get(0, 3)))
        self._waits = bool(seen.names)
        if seen.lacks_standbys != self._told:
            self._told = seen.lacks_standbys
            logger.warning(
                "%s",
                self.describe(seen) if self._told else f"{self._server.address} has its standbys: {seen.connected}",
            )
        return seen

    def check_tables(self, session: Session) -> Seen:
        """JournalUnavailable where a table is gone."""
        seen = self.look(session)
        if seen.gone:
            raise self._server.gone(f"{seen.gone} of its schema")
        return seen

    def check(self, session: Session) -> None:
        """JournalUnavailable where a table is gone, or a standby without which no COMMIT returns."""
        seen = self.check_tables(session)
        if seen.lacks_standbys:
            raise JournalUnavailable(self.describe(seen))

    def describe(self, seen: Seen) -> str:
        return (
            f"{self._server.address} lacks a standby: it is set to synchronous_standby_names = '{seen.names}', and "
            f"connected are: {seen.connected}. Until enough of them stream no write is acknowledged: start them, or "
            "name others (ALTER SYSTEM SET synchronous_standby_names = …; SELECT pg_reload_conf();)"
        )

    def explain(self, failure: JournalUnavailable) -> JournalUnavailable:
        """The failure of a write that was not answered or waited for another, with the standbys that COMMIT waits for.
        At most a connection and a round trip, and nothing where COMMIT waits for none.
        """
        if not self._waits:
            return failure
        try:
            with self._server.session() as session:
                seen = self.look(session)
        except (JournalUnavailable, JournalRefused):
            return failure
        if not seen.names:
            return failure
        told = (
            self.describe(seen)
            if seen.lacks_standbys
            else f"COMMIT waits for {seen.names}; connected: {seen.connected}"
        )
        return JournalUnavailable(f"{failure}; {told}", outcome_unknown=failure.outcome_unknown)
