"""What a PostgreSQL server's settings keep: the promise, warnings of what they do not keep, and refusals."""

from __future__ import annotations

import logging

from statsapi.errors import JournalRefused
from statsapi.journal.postgres_health import Health
from statsapi.journal.postgres_server import Server
from statsapi.journal.protocol import Fsync

logger = logging.getLogger("statsapi")

_SETTINGS = """
SELECT current_setting('fsync'), current_setting('full_page_writes'), reset_val,
       current_setting('synchronous_standby_names'), current_setting('wal_writer_delay')
FROM pg_settings WHERE name = 'synchronous_commit'
"""


def choose(server: Server, health: Health, fsync: Fsync) -> str:
    """Set what each session's COMMIT waits for (`server.settings`), and give the promise.

    STATSAPI_FSYNC=interval: nothing, as with SQLite, unless the server names standbys that a COMMIT has to wait for:
    a quorum that the server is set to is waited for. always: as the server is set, and at least its own disk.
    """
    with server.session() as session:
        row = session.simple(_SETTINGS)
    syncs, whole_pages, level, standbys, delay = ((row.get_value(0, at) or b"").decode() for at in range(5))
    if syncs == "off":
        if fsync == "always":
            raise JournalRefused(f"STATSAPI_FSYNC=always needs fsync = on at {server.address}, which has it off")
        logger.warning("%s: a power cut there may destroy the database (fsync = off): set fsync = on", server.address)
    if whole_pages == "off":
        logger.warning("%s: a power cut there may tear a page: set full_page_writes = on", server.address)
    if fsync == "interval" and not standbys:
        level = "off"
    elif level == "off":
        level = "on"
    server.settings = f"SET synchronous_commit = {level};"
    server.drop_idle()
    with server.session() as session:
        health.look(session)  # so that a start without its quorum is logged at once
    kept = f"The journal is {server.address}: the end of every process here loses nothing; "
    if level == "off":
        return kept + (
            f"a crash or a power cut of the server costs up to three times its wal_writer_delay ({delay}): "
            "STATSAPI_FSYNC=always waits for its disk"
        )
    if syncs == "off":
        return kept + "the server's own end loses nothing, but a power cut there may (fsync = off)"
    if not standbys or level == "local":
        without = f"does not wait for {standbys}" if standbys else "a failover loses what its standbys do not have"
        return kept + f"a 2xx is on the server's disk (synchronous_commit = {level}), and {without}"
    return kept + f"a 2xx is on the server's disk and with its standbys {standbys} (synchronous_commit = {level})"
