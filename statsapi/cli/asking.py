"""`statsapi stats`, `top` and `check`: current statistics, live, compared, or tested against conditions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from statsapi.cli import failures, output
from statsapi.cli.connection import Connection, asks_service
from statsapi.cli.listing import say_unknown
from statsapi.cli.question_options import chooses_series, chooses_span

if TYPE_CHECKING:
    from statsapi.client import Client

_STATS: Final = "count,rate,mean,min,max,stddev,p50,p95,p99"
_STEPS: Final = 40  # bars of the sparkline


@click.command(
    short_help="Show statistics, live if you like.", epilog="Example: statsapi stats latency --window 15m --watch"
)
@click.argument("series", nargs=-1)
@chooses_series
@chooses_span
@click.option("--stats", "wanted", metavar="LIST", default=_STATS, help=f"Show these statistics (default {_STATS}).")
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=2.0,
    metavar="SECONDS",
    help="With --watch, repeat after this many seconds (default 2).",
)
@asks_service
def stats(
    service: Connection,
    series: tuple[str, ...],
    chosen: dict[str, Any],
    span: dict[str, Any],
    wanted: str,
    watch: bool,
    interval: float,
) -> None:
    """Show the statistics of SERIES (default: `default`); several, or all that --match, are answered as one.

    On a terminal a sparkline below shows the mean over time. With --watch the figures are shown again every --interval:
    in place on a terminal, a line each in a pipe, an object each with --json. It continues after the service was away.
    """
    if not span:
        span = {"window": "1h"}
    question = {"series": series or None, **chosen, **span, "stats": wanted}
    with service.client() as client:
        if not watch:
            answer = client.statistics(**question)
            _check_holds(answer, service, *wanted.replace(" ", "").split(","), "count", "groups", "windows")
            if not answer.get("count"):
                say_unknown(client, series)
            if service.as_json:
                output.show_json(answer)
                return
            click.echo(_title(series, chosen, span, answer))
            output.show_table(("STATISTIC", "VALUE"), _rows(answer, wanted), numbers=["VALUE"])
            if output.is_terminal() and "mean" in wanted.split(","):
                click.echo(_course(client, question, span))
        elif output.is_terminal() and not service.as_json:
            _watch_on_terminal(client, question, series, chosen, span, wanted, interval)
        else:
            _watch_in_lines(client, question, wanted, interval, service.as_json)


def _check_holds(answer: dict[str, Any], service: Connection, *names: str) -> None:
    """Fail where the answer lacks all of `names`: then another server gave it."""
    if not answer.keys() & set(names):
        what = f"{service.url} gave another kind of answer, so it is not statsapi: check --url"
        raise failures.Failed(what, failures.NO_SERVICE)


def _title(series: tuple[str, ...], chosen: dict[str, Any], span: dict[str, Any], answer: dict[str, Any]) -> str:
    of = " + ".join(series) or " ".join(f"{name} {', '.join(chosen[name])}" for name in chosen) or "default"
    when = span.get("window") or f"{span.get('start', '')} to {span.get('end', 'now')}"
    told = [f"{of}, {when}"]
    if "relative_error" in answer:
        told.append(f"percentiles within {answer['relative_error']}")
    return "; ".join(told)


def _rows(answer: dict[str, Any], wanted: str) -> list[tuple[str, Any]]:
    return [(name, answer.get(name)) for name in wanted.replace(" ", "").split(",") if name in answer]


def _course(client: Client, question: dict[str, Any], span: dict[str, Any]) -> str:
    """A sparkline of the mean, step by step."""
    if "window" not in span:
        return ""
    seconds = _seconds_of(client, question)
    if seconds is None:
        return ""
    timeline = client.timeline(**{**question, "stats": "mean"}, step=f"{max(1, round(seconds / _STEPS))}s")
    return output.sparkline([step["mean"] for step in timeline["steps"]])


def _seconds_of(client: Client, question: dict[str, Any]) -> float | None:
    """The window's length in seconds, as the service reads it."""
    from datetime import datetime

    answer = client.statistics(**{**question, "windows": f"{question['window']},1us", "window": None, "stats": "count"})
    begin, now = (datetime.fromisoformat(each["from"]) for each in answer["windows"])
    return (now - begin).total_seconds()


def _asked_until_away(client: Client, question: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The answer, or None and why the service is away. An error that would come again is raised."""
    from statsapi.client import Unavailable

    try:
        return client.statistics(**question), ""
    except Unavailable as error:
        return None, failures.why_away(error)


def _watch_in_lines(client: Client, question: dict[str, Any], wanted: str, interval_s: float, as_json: bool) -> None:
    away = ""
    names: list[str] = []
    while True:
        answer, why = _asked_until_away(client, question)
        if answer is None:
            if not away:
                failures.say(f"statsapi: {why}; going on when it is back")
            away = why
        else:
            away = ""
            if as_json:
                output.show_json(answer)
            else:
                rows = _rows(answer, wanted)
                if [name for name, _ in rows] != names:
                    names = [name for name, _ in rows]
                    click.echo("  ".join(["TIME".ljust(8), *(name.rjust(10) for name in names)]))
                shown = [output.cell(value).rjust(10) for _, value in rows]
                click.echo("  ".join([time.strftime("%H:%M:%S"), *shown]))
        time.sleep(interval_s)


def _watch_on_terminal(
    client: Client,
    question: dict[str, Any],
    series: tuple[str, ...],
    chosen: dict[str, Any],
    span: dict[str, Any],
    wanted: str,
    interval_s: float,
) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from statsapi.client import Unavailable

    last: Any = Text("…")
    with Live(last, console=Console(highlight=False), auto_refresh=False, transient=False) as live:
        answered_s = time.monotonic()
        while True:
            answer, why = _asked_until_away(client, question)
            course = ""
            if answer is not None:
                answered_s = time.monotonic()
                try:
                    course = _course(client, question, span)
                except Unavailable:  # it went away between the two questions; the next one reports it
                    course = ""
                cells = [[name, output.cell(value)] for name, value in _rows(answer, wanted)]
                table = output.rich_table(("STATISTIC", "VALUE"), cells, {1})
                last = Group(Text(_title(series, chosen, span, answer), style="bold"), table, Text(course))
                live.update(last, refresh=True)
            else:
                old = f"{time.monotonic() - answered_s:.0f} s old: {why}"
                live.update(Group(last, Text(old, style="red")), refresh=True)
            time.sleep(interval_s)


@click.command(
    short_help="Compare series, or the values of a tag.", epilog="Example: statsapi top --by route --order -p95"
)
@chooses_series
@chooses_span
@click.option(
    "--by", metavar="TAG", default="series", help="Make a row for each value of this tag (default: each series)."
)
@click.option(
    "--order",
    metavar="STATISTIC",
    default="-count",
    help="Order by this statistic; with -, the largest first (default -count).",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, metavar="N", help="Show this many rows (default 20)."
)
@click.option(
    "--stats",
    "wanted",
    metavar="LIST",
    default="count,mean,p50,p95,p99,max",
    help="Show these columns (default count,mean,p50,p95,p99,max).",
)
@asks_service
def top(
    service: Connection, chosen: dict[str, Any], span: dict[str, Any], by: str, order: str, limit: int, wanted: str
) -> None:
    """Compare groups: a row for each series, or each value of a tag, in order of a statistic."""
    from statsapi.client import Refused

    names = wanted.replace(" ", "").split(",")
    figure = order.removeprefix("-")
    adds_figure = figure not in (*names, "series")
    if adds_figure:
        names.append(figure)
    question = {**chosen, **(span or {"window": "1h"}), "by": by, "order": order, "limit": limit}
    with service.client() as client:
        try:
            answer = client.statistics(**question, stats=",".join(names))
        except Refused as error:
            if adds_figure and f"stats: {figure!r} " in str(error):  # the user has typed it elsewhere
                raise failures.Failed(str(error).replace("stats: ", "--order: ", 1).partition(";")[0]) from error
            raise
        _check_holds(answer, service, "groups")
    if service.as_json:
        output.show_json(answer)
        return
    rows = [
        (group["series"] if "series" in group else group["tag"].get(by), *(group.get(name) for name in names))
        for group in answer["groups"]
    ]
    columns = [name.upper() for name in (by, *names)]
    output.show_table(columns, rows, numbers=columns[1:])
    if (more := answer["groups_total"] - len(rows)) > 0:
        failures.say(f"and {more:,} more; --limit shows them")


@click.command(
    short_help="Test a condition on statistics: exit status 0 or 1.",
    epilog="Example: statsapi check 'p95<500' 'count>=10' --series latency --window 5m",
)
@click.argument("conditions", metavar="CONDITION...", nargs=-1, required=True)
@click.option("--series", multiple=True, metavar="NAME", help="Test this series (default `default`); can be repeated.")
@chooses_series
@chooses_span
@click.option("--by", metavar="TAG", help="Test each value of this tag by itself (`series`: each series).")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing if all conditions hold.")
@asks_service
def check(
    service: Connection,
    conditions: tuple[str, ...],
    series: tuple[str, ...],
    chosen: dict[str, Any],
    span: dict[str, Any],
    by: str | None,
    quiet: bool,
) -> int:
    """Test conditions on statistics, for monitors, cron and CI. Quote a condition, as 'p95<500': shells redirect by <.

    Exit status: 0 all hold, 1 one fails; 2 a condition cannot be read; 69, 75, 77 not known, as the service does not
    answer or the key may not read. A condition on a null figure (without events) fails.
    """
    from statsapi.client import Refused, Unavailable

    question = {"require": ",".join(conditions), "series": series or None, **chosen, **span, "by": by}
    with service.client() as client:
        try:
            answer, status = client.ask("/check", **question), 0
            _check_holds(answer, service, "conditions", "groups")
        except Unavailable as error:
            if error.code != "check-failed":
                raise
            answer, status = error.problem, failures.NOT_DONE
        except Refused as error:
            if error.status != 422:
                raise
            raise failures.Failed(str(error), failures.USAGE) from error  # 2, not 1: it cannot be read
    if quiet and not status:
        return status
    if service.as_json:
        output.show_json(answer)
        return status
    for group in answer.get("groups") or ([answer] if "conditions" in answer else []):
        name = group.get("series") if group is not answer else None
        if "tag" in group:
            name = ";".join(f"{key}={value}" for key, value in group["tag"].items())
        for each in group["conditions"]:
            found = each.get("reason") or f"it is {'null' if each['value'] is None else each['value']}"
            words = "holds" if each["held"] else "does not hold"
            click.echo(f"{f'{name}: ' if name else ''}{each['require']} {words}: {found}")
    if "groups_total" in answer:
        failed, total = answer["groups_failed"], answer["groups_total"]
        held = (
            "the one group holds" if total == 1 else f"all {total:,} groups hold" if total else "there is no such group"
        )
        click.echo(f"{failed:,} of {total:,} groups do not hold" if failed else held)
    return status
