"""`statsapi tail`: shows each event once as it comes, in any order, even if the service was away meanwhile.

The service lists events by their time, not by their arrival, and two equal events are two. So each poll reads the
events of the last minutes, counts them for each (time, series, value), and shows those beyond the count shown before.
Where the count of events older than some seconds has not changed, only the newest seconds are read.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from statsapi.cli import failures, output
from statsapi.cli.connection import Connection, asks_service
from statsapi.cli.question_options import chooses_series

if TYPE_CHECKING:
    from statsapi.client import Client

Key = tuple[datetime, str, float]

_NEWEST: Final = timedelta(seconds=5)
_LONGEST: Final = timedelta(days=4000)  # raw events are looked for this far back


@click.command(short_help="Show events as they come.", epilog="Example: statsapi tail --match 'web.*' --last 20")
@click.argument("series", nargs=-1)
@chooses_series
@click.option(
    "--last",
    type=click.IntRange(0, 100_000),
    default=10,
    metavar="N",
    help="Begin with the last N events (default 10).",
)
@click.option(
    "--late",
    type=click.IntRange(10, 86_400),
    default=300,
    metavar="SECONDS",
    help="Also show events that come late by up to this much (default 300).",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    metavar="SECONDS",
    help="Look after this many seconds (default 1).",
)
@asks_service
def tail(
    service: Connection, series: tuple[str, ...], chosen: dict[str, Any], last: int, late: int, interval: float
) -> None:
    """Show the events of SERIES (of all unless given or chosen) as they come, each once, until Ctrl-C.

    A line is the time, the value and the series; with --json an object. Equal events are shown as often as they were
    recorded. When the service is away it says so, and shows what came meanwhile when it is back.
    """
    from statsapi.client import Unavailable

    away, first = False, True
    with service.client() as client:
        follower = Follower(client, {"series": series or None, **chosen}, timedelta(seconds=late))
        while True:
            try:
                events = follower.look()
            except Unavailable as error:
                if not away:
                    failures.say(f"statsapi: {failures.why_away(error)}; going on when it is back")
                away = True
            else:
                away = False
                if first:
                    if len(events) < last:
                        events = follower.before(last - len(events)) + events
                    events = events[len(events) - min(last, len(events)) :]
                    first = False
                for at, name, value in events:
                    _show(at, name, value, service.as_json)
            time.sleep(interval)


def _show(at: datetime, name: str, value: float, as_json: bool) -> None:
    if as_json:
        output.show_json({"timestamp": at.isoformat(), "value": value, "series": name})
    else:
        click.echo(f"{at.isoformat()}  {value!r}  {name}")


class Follower:
    """Returns each event once. late: how far back the time of a new event may lie.

    Memory: the events of that span, some 200 bytes each. A poll makes two small requests, and reads the events of the
    newest seconds.
    """

    def __init__(self, client: Client, question: dict[str, Any], late: timedelta) -> None:
        self._client = client
        self._question = question
        self._late = late
        self._shown: Counter[Key] = Counter()
        self._looked_at: datetime | None = None  # the service's time when the last whole look began

    def look(self) -> list[Key]:
        """The events that are new since the last poll, by their time. An exception changes nothing."""
        now = datetime.fromisoformat(self._client.ask("/")["server_time"])
        since = (now if self._looked_at is None else min(now, self._looked_at)) - self._late
        start = since
        if self._looked_at is not None:
            newest = min(now, self._looked_at) - _NEWEST
            if newest > since:
                shown = sum(count for key, count in self._shown.items() if since <= key[0] < newest)
                start = newest if shown == self._count(since, newest) else since
        found = self._read(start)
        new = sorted((found - self._shown).elements())
        # Deleted events are forgotten, so that they show when they are recorded again.
        kept = {key: count for key, count in self._shown.items() if since <= key[0] < start}
        self._shown = Counter(kept) + found
        self._looked_at = now
        return new

    def before(self, most: int) -> list[Key]:
        """The newest events before the span of the first look, at most this many, by their time."""
        from statsapi.client import Refused

        if self._looked_at is None:
            return []
        end, span = self._looked_at - self._late, self._late
        try:
            while self._count(end - span, end) < most and span < _LONGEST:
                span *= 2
            found = self._read(end - span, end)
        except Refused:  # before all that is kept
            found = self._read(None, end)
        return sorted(found.elements())[-most:]

    def _count(self, start: datetime, end: datetime) -> int:
        question = {"match": "*", **self._question} if not any(self._question.values()) else self._question
        count: int = self._client.statistics(**question, start=start, end=end, stats="count")["count"]
        return count

    def _read(self, start: datetime | None, end: datetime | None = None) -> Counter[Key]:
        from statsapi.client import Refused

        def read(since: datetime | None) -> Counter[Key]:
            span: dict[str, Any] = {} if since is None else {"start": since}
            if end is not None:
                span["end"] = end
            events = self._client.export(**self._question, **span)
            return Counter((event.timestamp, event.series, event.value) for event in events)

        try:
            return read(start)
        except Refused as error:
            if not any(each.get("field") == "start" for each in error.errors):
                raise
            return read(None)  # from the first that is held
