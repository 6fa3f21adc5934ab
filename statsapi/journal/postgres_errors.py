"""What a PostgreSQL server's errors mean for the journal, in words: by SQLSTATE, as the texts are in its language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import psycopg

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.postgres_login import LET_IN, OURS, REFUSING
from statsapi.journal.postgres_session import Failed
from statsapi.journal.postgres_url import Address
from statsapi.journal.protocol import HeldUp

# There is no file to check or to salvage from.
_DAMAGE_ADVICE: Final = (
    "restore a backup of the database (pg_basebackup with its WAL, pg_dump), or fail over to a replica"
)

# SQLSTATEs, or their classes, of a server that does nothing for us now. It may be another one tomorrow.
AWAY: Final = ("08", "57", "25006", "53300")
GONE: Final = ("42P01", "3F000", "42883")
# Raised by our own function, sql/postgres_append.sql.
NO_KEY: Final = "ST001"
NOT_INSERTED: Final = "ST002"
_SAID: Final = {
    "53100": "the disk of {place} is full ({said}): free some space there",
    "53200": "the memory of {place} is full ({said})",
    "53300": "{place} has no connection left ({said}): raise its max_connections, or close some",
    "57014": "{place} gave up on the statement ({said})",
    "57P01": "{place} is shutting down ({said})",
    "57P03": "{place} is starting ({said})",
    "25006": "{place} takes no writes: it is a standby, or was made read-only",
    NO_KEY: "the records of {place} have no primary key, as while a backup is restored: nothing is recorded until they "
    "have it; after a restore that failed, drop the schema and restore again",
    NOT_INSERTED: "a trigger or a rule keeps records out of {place}: drop it; nothing was recorded",
}
SHARED: Final = (
    "is a proxy that lets several sessions share one of the server (PgBouncer with pool_mode = transaction or "
    "statement): name the server itself, or give this database pool_mode = session there"
)


class Standby(JournalUnavailable):
    """The server takes no writes now: at the start a mistake, later a failover under way."""


def standby(place: Address) -> Standby:
    """The exception for a server that is a standby, or was made read-only."""
    return Standby(_SAID["25006"].format(place=place))


def refused(error: Failed, place: Address, rights: str) -> JournalUnavailable | JournalRefused:
    """The exception for a statement that the server refused, which did nothing. `rights`: how our role gets its rights.

    Not for the states in GONE: Server.gone.
    """
    state = error.state
    if state == "55P03":
        return HeldUp(
            "another writer, or whoever locked its tables (see pg_locks), held the journal for too long; nothing was "
            "recorded"
        )
    if state == "25006":
        return standby(place)
    if (said := _SAID.get(state)) is not None:
        return JournalUnavailable(said.format(place=place, said=error.said))
    if state == "42501":
        return JournalRefused(f"{place} refuses this role: {error.said}{rights and f': {rights}'}")
    if state in ("26000", "42P05"):  # a prepared statement is gone, or is there already
        return JournalRefused(f"{place} {SHARED}")
    if state in ("XX001", "XX002", "P0002"):  # a page, an index, the row of meta
        return damaged(f"the journal at {place}", error.said)
    if state == "22003":  # only our function for appends counts, from the last record on
        return damaged(f"the last of the journal's records at {place}", f"its position or time is none: {error.said}")
    if state[:2] in ("08", "40", "53", "54", "55", "57", "58", "XX"):
        return JournalUnavailable(f"{place} failed ({error.said})")
    return JournalRefused(f"{place} refuses: {error.said} ({state})")


def unreachable(
    error: psycopg.Error, place: Address, look_into: Callable[[str], tuple[str, list[str | None]]]
) -> JournalUnavailable | JournalRefused:
    """The exception for a connection that failed. `look_into`: finds out what is wrong with the settings, or how each
    host answers, by libpq's words.
    """
    said = " ".join(str(error).split())
    if isinstance(error, psycopg.ProgrammingError):
        return JournalRefused(f"{place} cannot be reached as it is named: {said}")
    slow = isinstance(error, psycopg.errors.ConnectionTimeout)  # to ask again would take as long again
    fault, states = ("", []) if slow else look_into(said)
    if fault:
        return JournalRefused(f"{place} cannot be reached as it is named: {fault}")
    if "53300" in states:
        return JournalUnavailable(_SAID["53300"].format(place=place, said=said))
    if LET_IN in states and ("read-only" in said or "hot standby" in said):
        return standby(place)
    if states and all(state is not None and state.startswith((*REFUSING, OURS)) for state in states):
        refusals = sorted({str(state) for state in states} - {OURS})
        if not refusals:
            return JournalRefused(f"{place} cannot be reached as it is named: {said}")
        return JournalRefused(f"{place} refuses the login: {said} ({', '.join(refusals)})")
    return JournalUnavailable(f"{place} cannot be reached: {said}")


def damaged(what: str, why: str) -> JournalDamaged:
    """JournalDamaged with advice for a database."""
    return JournalDamaged(what, why, advice=_DAMAGE_ADVICE)
