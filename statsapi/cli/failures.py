"""How commands fail: one line with the cure, and an exit status.

0    done
1    not done: the service refused it, or a checked condition fails
2    a wrong command line
69   no service there: nothing listens, the name is not known, TLS fails, or another server answers (EX_UNAVAILABLE)
75   the service is there and cannot do it now: too many requests, starting, no journal, or the journal is away; try
     again later (EX_TEMPFAIL)
77   the API key is missing, not known, or may not do this (EX_NOPERM)
78   settings, a configuration file, a spool or a journal cannot be used (EX_CONFIG)
130  Ctrl-C;  141  the reader of the output is gone
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from statsapi.errors import ConfigError, JournalUnavailable, StatsError, one_line

if TYPE_CHECKING:
    from statsapi.client import Refused, Unavailable

NOT_DONE: Final = 1
USAGE: Final = 2
NO_SERVICE: Final = os.EX_UNAVAILABLE
TRY_LATER: Final = os.EX_TEMPFAIL
NO_PERMISSION: Final = os.EX_NOPERM
CONFIG: Final = os.EX_CONFIG
_IS_THAT_US: Final = "; is that statsapi, and the path of --url right?"

_ANSWERED: Final = re.compile(r" answered \d{3}$")
_TITLE: Final = re.compile("title[^>]*>([^<]+)", re.IGNORECASE)


class Failed(Exception):
    """A failure that a command reports itself: `message` is one line, with the cure."""

    def __init__(self, message: str, status: int = NOT_DONE) -> None:
        super().__init__(message)
        self.status = status


class Told(NamedTuple):
    status: int
    lines: list[str]


def say(line: str) -> None:
    """Print to standard error. Terminal control codes, which another server's text may hold, are removed."""
    click.echo(one_line(line), err=True)


def of_os(error: OSError) -> str:
    """`data.csv: No such file or directory`"""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}"


@contextmanager
def of_arguments() -> Iterator[None]:
    """Turn ValueError and TypeError of the client, for bad arguments, into a wrong command line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def told(error: Exception) -> Told | None:
    """The status and the lines for an error that a user can cause; None for one that only our own fault can cause."""
    if isinstance(error, Failed):
        return Told(error.status, [f"statsapi: {error}"])
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, ConfigError):
        return Told(CONFIG, [f"statsapi: {fault}" for fault in error.faults])
    if isinstance(error, JournalUnavailable):
        return Told(TRY_LATER, [f"statsapi: {error}"])
    if isinstance(error, StatsError):
        return Told(NOT_DONE, [f"statsapi: {error}"])
    if isinstance(error, UnicodeEncodeError):  # bytes of the command line that are no UTF-8
        return Told(USAGE, ["statsapi: an argument is not text in UTF-8"])
    if "statsapi.client.errors" not in sys.modules:  # then nothing can have raised one of them
        return None
    return _of_client(error)


def _of_click(error: click.ClickException) -> Told:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return Told(USAGE, error.format_message().splitlines())
    message = " ".join(error.format_message().split()).removesuffix(".")
    if isinstance(error, click.BadParameter) and error.param is not None and type(error) is click.BadParameter:
        hint = error.param.get_error_hint(error.ctx) if error.ctx else error.param.name
        message = f"{str(hint).replace(chr(39), '')}: {error.message.removesuffix('.')}"
    elif message[:1].isupper() and not message[1:2].isupper():
        message = message[0].lower() + message[1:]
    if not isinstance(error, click.UsageError):
        return Told(error.exit_code, [f"statsapi: {message}"])
    path = error.ctx.command_path if error.ctx else "statsapi"
    if isinstance(error, click.NoSuchOption) and error.ctx and error.ctx.parent is None:
        message += "; the options of a command stand behind its name"
    return Told(USAGE, [f"{path}: {message} (see {path} --help)"])


def _of_client(error: Exception) -> Told | None:
    from statsapi.client import Refused, StatsapiError, Unauthorized, Unavailable

    if isinstance(error, Unauthorized):
        return Told(NO_PERMISSION, [f"statsapi: {_one_line(error)}{_cure_of_key(error)}"])
    if isinstance(error, Refused):
        return _of_refusal(error)
    if isinstance(error, Unavailable):
        if error.status is None:
            return Told(NO_SERVICE, [f"statsapi: {unreachable(error)}"])
        if error.status < 300:  # no JSON, or not the answer of statsapi
            return Told(NO_SERVICE, [f"statsapi: {_one_line(error)}; is --url right?"])
        if error.status == 501 and not error.problem:  # no proxy says so of a service behind it
            return Told(NO_SERVICE, [f"statsapi: {_one_line(error)}{_IS_THAT_US}"])
        later = "" if error.retry_after_s is None else f"; try again in {error.retry_after_s:.0f} s"
        proxy = "" if error.problem else "; that is what stands before the service: is the service running?"
        return Told(TRY_LATER, [f"statsapi: {_one_line(error)}{proxy}{later}"])
    if isinstance(error, StatsapiError):
        return Told(NOT_DONE, [f"statsapi: {_one_line(error)}"])
    return None


def _of_refusal(error: Refused) -> Told:
    status = error.status or 0
    if not error.problem and "plain HTTP request was sent to HTTPS port" in str(error):
        return Told(NO_SERVICE, ["statsapi: the server speaks TLS there: write https:// instead of http:// in --url"])
    if not error.problem and status < 400:
        return Told(NO_SERVICE, [f"statsapi: {_one_line(error).replace('the client', '--url')}"])
    if not error.problem:
        return Told(NO_SERVICE, [f"statsapi: {_one_line(error)}{_IS_THAT_US}"])
    if status == 404 and error.code == "not-found":
        return Told(
            NOT_DONE,
            [
                f"statsapi: {_one_line(error)}; the path of --url is wrong, or the service is older than this command, "
                "or has it switched off"
            ],
        )
    return Told(NOT_DONE, [f"statsapi: {_one_line(error)}"])


def _cure_of_key(error: Exception) -> str:
    if getattr(error, "status", None) == 401:
        return "; give a key by --key, STATSAPI_API_KEY or the configuration file (statsapi config)"
    return ""


def _one_line(error: object) -> str:
    said = " ".join(str(error).split()).removesuffix(".")
    answered, is_page, page = said.partition(": <")
    if not is_page or not _ANSWERED.search(answered):
        return said
    title = _TITLE.search(page)
    return f"{answered}: a page" + (f", {title[1].strip()}" if title else "")


def why_away(error: Unavailable) -> str:
    """The same line without `statsapi:`, for commands that continue."""
    told = _of_client(error)
    return "" if told is None else told.lines[0].removeprefix("statsapi: ")


def unreachable(error: Unavailable) -> str:
    """Why there was no answer, in words, from the exception that the client met."""
    import ssl

    from urllib3 import exceptions as met

    url, is_unanswered, _ = _one_line(error).partition(" gave no answer")
    host = url.partition("://")[2].partition("/")[0]
    cause = error.__cause__
    if not is_unanswered:  # an answer, or an export, that broke off
        return f"{url}; {'--timeout waits longer' if isinstance(cause, met.TimeoutError) else 'try again'}"
    said = _one_line(cause) if cause is not None else _one_line(error)
    if isinstance(cause, met.LocationParseError):
        return f"{url} is no URL: {said.removeprefix('Failed to parse: ')}"
    if isinstance(cause, met.NameResolutionError):
        return f"the host {host} is not known; check --url"
    if isinstance(cause, met.NewConnectionError) and "refused" in said:
        return f"nothing listens at {url}: is the service running (statsapi serve), and is --url right?"
    if isinstance(cause, met.NewConnectionError):
        return f"{host} cannot be reached: {said.rpartition('] ')[2]}"
    if isinstance(cause, met.SSLError):
        inner = next((arg for arg in cause.args if isinstance(arg, Exception)), None)
        if isinstance(inner, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {host} is not trusted ({inner.verify_message}); --ca-file FILE trusts its issuer"
            )
        return f"{host} does not speak TLS there ({said}); write http:// instead of https:// if it is meant to be plain"
    if isinstance(cause, met.TimeoutError):
        return f"{host} did not answer in time; --timeout waits longer"
    if isinstance(cause, met.ProtocolError):
        return f"{url} ended the connection without an answer; if it speaks TLS, write https://"
    return _one_line(error)
