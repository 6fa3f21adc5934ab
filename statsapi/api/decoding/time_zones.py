"""The clock of a place: the time zone with some name, and what its clocks showed, as UTC.

A clock that is set back shows an hour twice; one that is set forward leaves an hour out. A time in such an hour has two
readings, and is in doubt unless a fold says which: `earlier` or `later`, of the two instants, as in JavaScript's
Temporal.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final, Literal, cast

import numpy as np

from statsapi.api.decoding.timestamps import RARE_TIMES_MAX, Mask
from statsapi.api.refusals import TooLarge
from statsapi.errors import echo
from statsapi.model import DAY_US, MAX_TS_US, MIN_TS_US, MINUTE_US, TimestampsUs

Fold = Literal["earlier", "later"]

_NAME_MAX: Final = 100
_OFFSET_MAX_H: Final = 23

_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)

# -- names of zones ------------------------------------------------------------------------------------------------


class ZoneRefused(ValueError):
    """A timezone that is not known here, and what to write."""


def find_zone(name: str) -> tzinfo:
    """The zone with that name or offset: Europe/Berlin, UTC, +01:00, and ` 01:00` for a plus that a URL made a blank.

    Raises ZoneRefused with what to write.
    """
    if offset := re.fullmatch(r"([+ -])(\d\d):?([0-5]\d)", name, re.ASCII):
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if ahead < timedelta(days=1):
            return timezone(-ahead if offset[1] == "-" else ahead)
    if name.upper() in ("UTC", "Z"):
        return timezone.utc  # noqa: UP017 (mypy and zoneinfo agree on this one)
    if name.lower() in _SERVERS_OWN:
        raise ZoneRefused(f"is {echo(name)!r}, a setting of the server: write a zone like Europe/Berlin, or +01:00")
    if inner := re.match(r"(?:posix|right)/(?=.)", name):
        raise ZoneRefused(f"is {echo(name)!r}, a table of the server's own: write {echo(name[inner.end() :])}")
    if len(name) <= _NAME_MAX and name.isascii() and name.isprintable():
        try:
            return zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    if meant := _offset_meant(name):
        raise ZoneRefused(f"is {echo(name)!r}: write {meant}")
    if known := _names_of_zones().get(name[:_NAME_MAX].lower().replace(" ", "_")):
        raise ZoneRefused(f"is {echo(name)!r}: write {known}")
    if not _names_of_zones():
        raise ZoneRefused("cannot be looked up, as this machine has no time zones: install tzdata, or give an offset")
    raise ZoneRefused(f"is {echo(name)!r}, which is no zone known here: write one like Europe/Berlin, or +01:00")


# Names that zoneinfo knows and that mean a setting of the machine, or nothing.
_SERVERS_OWN: Final = ("localtime", "posixrules", "factory")

_AHEAD_OF_UTC: Final = re.compile(
    r"(etc/)?(?:utc|gmt|ut|z)?\s*([+\-\u2212\u2013 ])\s*(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE
)


def _offset_meant(name: str) -> str | None:
    """+01:00 for UTC+1, GMT+1 and +1. -01:00 for Etc/GMT+1 whose plus a URL made a blank: in POSIX, plus is west.

    None for any other text, and for names of zones.
    """
    found = _AHEAD_OF_UTC.fullmatch(name)
    if found is None or int(found[3]) > _OFFSET_MAX_H:
        return None
    etc, sign = found[1], "+" if found[2] in "+ " else "-"
    if etc and found[2] in "+-":
        return None
    if etc:
        sign = "-" if sign == "+" else "+"
    if not int(found[3] + (found[4] or "")):
        return "UTC"
    return f"{sign}{int(found[3]):02}:{found[4] or '00'}"


@lru_cache(maxsize=1)
def _names_of_zones() -> dict[str, str]:
    """Each zone by its name and by its city alone, in small letters. 20 ms, once, for a refusal only."""
    names = sorted(name for name in zoneinfo.available_timezones() if name.lower() not in _SERVERS_OWN)
    return {name.rpartition("/")[2].lower(): name for name in names} | {name.lower(): name for name in names}


# -- what a clock showed ----------------------------------------------------------------------------------------------


def to_utc_us(local_us: TimestampsUs, zone: tzinfo, fold: Fold | None) -> tuple[TimestampsUs, Mask]:
    """What a clock in that zone showed, as UTC, int64[n]; and which rows have one reading, bool[n].

    10-20 ns a row where neighbours share their day: the zone is asked once for each day, and once for each quarter of
    an hour on days when the clock was changed, 5 µs each. Raises TooLarge for too many of them, before it
    is asked for any.
    """
    first_us, second_us = np.zeros_like(local_us), np.zeros_like(local_us)
    rest = np.arange(len(local_us))
    asked = 0
    for unit_us in (DAY_US, 15 * MINUTE_US, 1):
        units = local_us[rest] // unit_us
        starts = np.flatnonzero(np.diff(units, prepend=units[0] - 1))
        different, which = np.unique(units[starts], return_inverse=True)
        asked += len(different)
        if asked > RARE_TIMES_MAX:
            raise TooLarge(
                f"More than {RARE_TIMES_MAX} days have to be looked up in the time zone: send fewer at once."
            )
        found = [_steady_offsets_us(unit * unit_us, unit_us, zone) for unit in different.tolist()]
        lengths = np.diff(starts, append=len(units))
        steady = np.repeat(np.array([offsets is not None for offsets in found])[which], lengths)
        both = np.repeat(np.array([offsets or (0, 0) for offsets in found], np.int64)[which], lengths, axis=0)
        first_us[rest], second_us[rest] = both[:, 0], both[:, 1]
        rest = rest[~steady]
        if not len(rest):
            break
    if fold is None:
        utc_us, one = local_us - first_us, first_us == second_us
    else:
        pick = np.maximum if fold == "earlier" else np.minimum
        utc_us, one = local_us - pick(first_us, second_us), np.ones(len(local_us), np.bool_)
    return utc_us, cast(Mask, one & (utc_us >= MIN_TS_US) & (utc_us <= MAX_TS_US))


def _steady_offsets_us(start_us: int, unit_us: int, zone: tzinfo) -> tuple[int, int] | None:
    """Both offsets (see `_both_offsets_us`) of that stretch of local time; None where they change within it."""
    first = _both_offsets_us(start_us, zone)
    if unit_us == 1:
        return first
    return first if first == _both_offsets_us(start_us + unit_us - 1, zone) else None


def _both_offsets_us(local_us: int, zone: tzinfo) -> tuple[int, int]:
    """The offset before a change of the clock and the one after it, where a local time has two readings; else the same
    offset twice.
    """
    moment = _EPOCH.replace(tzinfo=zone) + timedelta(microseconds=local_us)  # what the clock shows, with fold=0
    first, second = zone.utcoffset(moment), zone.utcoffset(moment.replace(fold=1))
    first_us = first // _MICROSECOND if first else 0
    return first_us, first_us if second == first else (second // _MICROSECOND if second else 0)


def why_in_doubt(local_us: int, zone: tzinfo, zone_name: str | None) -> str:
    """Why a local time has not one reading, and how to say which is meant."""
    first_us, second_us = _both_offsets_us(local_us, zone)
    when = _EPOCH + timedelta(microseconds=local_us)
    if not MIN_TS_US <= local_us - first_us <= MAX_TS_US:
        return "lies outside the years 1 to 9999 (UTC)"
    which = "happened twice" if first_us > second_us else "never happened"
    moved = "back" if first_us > second_us else "forward"
    earlier, later = (
        (when - timedelta(microseconds=offset_us)).isoformat() + "Z"
        for offset_us in (max(first_us, second_us), min(first_us, second_us))
    )
    return (
        f"{which} in {zone_name}, where the clocks went {moved}: add fold=earlier for {earlier} or fold=later "
        f"for {later}, or write the offset"
    )
