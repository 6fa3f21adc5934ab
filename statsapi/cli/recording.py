"""`statsapi post`: events from the shell."""

from __future__ import annotations

import contextlib
import math
import queue
import re
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from statsapi.cli import failures, output
from statsapi.cli.connection import Connection, asks_service

if TYPE_CHECKING:
    from statsapi.client import Client

_RETRY_S: Final = 10.0
_OF_QUERY: Final = re.compile(r", or add timezone=\S+, or your zone, to the query")  # there is no such option here


def _tags(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not key or not separator or not value:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", ctx, option)
        if key in tags:
            raise click.BadParameter(f"{key} is given twice", ctx, option)
        tags[key] = value
    return tags


tag_option = click.option(
    "--tag", "tags", multiple=True, callback=_tags, metavar="KEY=VALUE", help="Add this tag; can be repeated."
)
retry_option = click.option(
    "--retry",
    "retry_s",
    type=click.FloatRange(0, 86_400),
    default=_RETRY_S,
    metavar="SECONDS",
    help=f"Try this long while the service is away (default {_RETRY_S:.0f}); each event counts once.",
)


def number(text: str) -> float | int:
    """A finite number; ValueError says what to write."""
    try:
        with contextlib.suppress(ValueError):
            value = int(text)
            float(value)  # OverflowError
            return value
        found = float(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no number such as 42.5") from None
    if not math.isfinite(found):
        raise ValueError(f"{text!r} is no finite number")
    return found


@click.command(
    short_help="Record an event, or one for each line.",
    epilog="Example: statsapi post 42.5 --series latency --tag status=200",
    context_settings={"ignore_unknown_options": True},  # -5 is a value
)
@click.argument("value")
@click.option("--series", metavar="NAME", help="Record into this series (default `default`).")
@tag_option
@click.option("--timestamp", metavar="TIME", help="Give the event this time, ISO 8601 or Unix time (default now).")
@retry_option
@asks_service
def post(
    service: Connection,
    value: str,
    series: str | None,
    tags: dict[str, str],
    timestamp: str | None,
    retry_s: float,
) -> int:
    """Record VALUE. With - each line of standard input is an event, as it comes: VALUE, or TIME and VALUE.

    When it returns 0 the service has it in its journal. A line that is no event is told and left out, and the exit
    status is 1 then; after Ctrl-C it is 130, and what came before is recorded.
    """
    if value == "-":
        if timestamp is not None:
            raise click.UsageError("--timestamp is for one value; a line may begin with its time")
        return _post_lines(service, series, tags, retry_s)
    try:
        what = number(value)
    except ValueError as error:
        if value.startswith("-") and not value[1:2].isdigit():
            raise click.UsageError(f"no such option {value.partition('=')[0]!r}") from None
        raise click.UsageError(f"VALUE: {error}") from None
    with service.client(give_up_after_s=retry_s) as client, failures.of_arguments():
        answer = client.record(what, timestamp, series, tags)
    if service.as_json:
        output.show_json(answer)
    elif (message := answer.get("message")) != "Event stored successfully":
        failures.say(f"statsapi: {message}")
    return 0


_BATCH_EVENTS: Final = 5_000
_FLUSH_S: Final = 0.5  # how long a line waits for others at most


class _Line(NamedTuple):
    number: int
    value: float
    timestamp: str | None


def _post_lines(service: Connection, series: str | None, tags: dict[str, str], retry_s: float) -> int:
    """Record lines in batches of all that have come meanwhile: `tail -f | statsapi post -` is recorded as it comes."""
    lines: queue.Queue[tuple[int, str] | None] = queue.Queue(2 * _BATCH_EVENTS)

    def read() -> None:
        try:
            for numbered in enumerate(sys.stdin, 1):
                lines.put(numbered)
        finally:
            lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    sent, faults, going_on = 0, 0, True
    with service.client(give_up_after_s=retry_s) as client, failures.of_arguments(), _Interrupt() as interrupt:
        while going_on and not interrupt.came:
            interrupt.is_waiting = True
            batch, going_on = _batch(lines)
            interrupt.is_waiting = False
            events = []
            for line_number, text in batch:
                try:
                    events.append(_event_of(line_number, text))
                except ValueError as error:
                    faults += 1
                    failures.say(f"statsapi: line {line_number}: {error}")
            try:
                stored = _record(client, events, series, tags)
            except Exception:
                failures.say(f"statsapi: {sent:,} were recorded, up to line {batch[0][0] - 1}")
                raise
            sent += stored
            faults += len(events) - stored
    if service.as_json:
        output.show_json({"recorded": sent, "refused": faults})
    else:
        click.echo(f"{sent:,} recorded" + (f", {faults:,} refused" if faults else ""))
    if interrupt.came:
        return 128 + signal.SIGINT
    return failures.NOT_DONE if faults else 0


class _Interrupt:
    """^C ends the wait for lines. A batch under way is finished first; a second ^C ends that too."""

    def __init__(self) -> None:
        self.is_waiting = False
        self.came = False

    def __enter__(self) -> _Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.came = self.came, True
        if self.is_waiting or again:
            raise KeyboardInterrupt


def _batch(lines: queue.Queue[tuple[int, str] | None]) -> tuple[list[tuple[int, str]], bool]:
    """The lines that have come, without blank ones, and whether more may come. ^C ends the input there."""
    batch: list[tuple[int, str]] = []
    end_s = time.monotonic() + _FLUSH_S
    try:
        while len(batch) < _BATCH_EVENTS:
            try:
                line = lines.get(timeout=max(0.0, end_s - time.monotonic()) if batch else None)
            except queue.Empty:
                return batch, True
            if line is None:
                return batch, False
            if not batch:
                end_s = time.monotonic() + _FLUSH_S
            if line[1].strip():
                batch.append(line)
    except KeyboardInterrupt:
        return batch, False
    return batch, True


def _event_of(line_number: int, text: str) -> _Line:
    words = text.split()
    if len(words) > 2:
        raise ValueError(f"{text.strip()!r} is neither VALUE nor TIME and VALUE")
    return _Line(line_number, number(words[-1]), words[0] if len(words) == 2 else None)


def _record(client: Client, events: list[_Line], series: str | None, tags: dict[str, str]) -> int:
    """Record events and return how many. Events whose time the service refuses are reported and left out."""
    from statsapi.client import Refused

    while events:
        batch = [{"value": event.value, "timestamp": event.timestamp} for event in events]
        try:
            answer = client.record_many(batch, series=series, tags=tags)
        except Refused as error:
            wrong = {
                each["line"] - 1: each for each in error.errors if each.get("field") == "timestamp" and "line" in each
            }
            if not wrong or len(wrong) < len(error.errors):  # the series or a tag: so it is of all
                raise
            for at, each in wrong.items():
                failures.say(f"statsapi: line {events[at].number}: the time {each['reason']}")
            events = [event for at, event in enumerate(events) if at not in wrong]
            continue
        for message in answer["messages"]:
            failures.say(f"statsapi: {_OF_QUERY.sub('', message)}")
        return len(events)
    return 0
