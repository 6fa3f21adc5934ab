"""The options that commands share to choose series and spans."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Final

import click

_SERIES: Final = {
    "match": click.option(
        "--match", multiple=True, metavar="GLOB", help="Choose series whose name fits (* and ?); can be repeated."
    ),
    "where": click.option(
        "--where",
        multiple=True,
        metavar="TAG=GLOB",
        help="Choose only series with this tag; can be repeated, and all must hold.",
    ),
}
_RANGE: Final = {
    "start": click.option("--start", metavar="TIME", help="Begin at this time, such as now-2h."),
    "end": click.option("--end", metavar="TIME", help="End before this time (default: no end)."),
}
_SPAN: Final = {
    "window": click.option(
        "--window", metavar="SPAN", help="Begin this long ago: 5m, 1h30m, 2w (default: the service's window)."
    ),
    **_RANGE,
}


def chooses_series(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --match and --where, and passes their values to the command as `chosen`."""
    return _collecting(command, "chosen", _SERIES)


def chooses_range(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --start and --end, and passes their values to the command as `span`."""
    return _collecting(command, "span", _RANGE)


def chooses_span(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --window, --start and --end, and passes their values to the command as `span`."""
    return _collecting(command, "span", _SPAN)


def _collecting(command: Callable[..., Any], name: str, options: dict[str, Any]) -> Callable[..., Any]:
    def run(*args: Any, **given: Any) -> Any:
        held = {each: given.pop(each) for each in options}
        return command(*args, **{name: {each: value for each, value in held.items() if value}}, **given)

    run = update_wrapper(run, command)
    for option in reversed(options.values()):
        run = option(run)
    return run
