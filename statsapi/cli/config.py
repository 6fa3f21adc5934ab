"""`statsapi config`: the settings in force and where each came from; no secrets."""

from __future__ import annotations

import os
from typing import Any

import click

from statsapi.cli import connection, failures, output
from statsapi.cli.connection import Connection, asks_service


@click.command(
    short_help="Show the settings in force, and where each came from.", epilog="Example: statsapi config --changed"
)
@click.option("--changed", is_flag=True, help="Show only settings that differ from their default.")
@asks_service
def config(service: Connection, changed: bool) -> int:
    """Show which service commands ask, and the settings that `statsapi serve` would start with here.

    Secrets are left out. Exit status 78: a setting is wrong; the line says which and why.
    """
    from statsapi.config import effective, unknown_names, without_secrets
    from statsapi.server.checks import CONCURRENCY

    rows: list[tuple[str, str, str]] = [
        ("url", without_secrets(service.url), service.sources["url"]),
        ("key", "(not shown)" if service.key else "unset", service.sources["key"]),
        ("ca_file", service.ca_file or "unset", service.sources["ca_file"]),
        ("timeout", f"{service.timeout_s:g}", service.sources["timeout"]),
    ]
    for_serve: list[tuple[Any, ...]] = [tuple(each) for each in effective(os.environ)]
    if concurrency := os.environ.get(CONCURRENCY, "").strip():
        for_serve.append((CONCURRENCY, concurrency, "environment"))
    if changed:
        rows = [row for row in rows if row[2] not in ("the default", "not given")]
        for_serve = [row for row in for_serve if row[2] != "default"]
    ignored = unknown_names(os.environ)
    faults = _faults()
    if service.as_json:
        output.show_json(
            {
                "client": {name: {"value": value, "source": source} for name, value, source in rows},
                "client_file": str(connection.file_path()),
                "serve": {name: {"value": value, "source": source} for name, value, source in for_serve},
                "ignored": ignored,
                "faults": faults,
            }
        )
    else:
        click.echo(f"Commands that ask a service (file: {connection.file_path()}):")
        output.show_table(("SETTING", "VALUE", "FROM"), rows)
        click.echo("\nstatsapi serve:")
        output.show_table(("SETTING", "VALUE", "FROM"), for_serve)
    for name in ignored:
        failures.say(f"statsapi: warning: {name} is not a setting and is ignored")
    for fault in faults:
        failures.say(f"statsapi: {fault}")
    return failures.CONFIG if faults else 0


def _faults() -> list[str]:
    """Why `statsapi serve` would refuse to start here, a sentence each; nothing is opened or bound."""
    from statsapi.errors import ConfigError
    from statsapi.server.checks import check_concurrency, check_folder, journal_faults, settings_faults

    try:
        check_folder()
    except ConfigError as error:
        return list(error.faults)
    try:
        check_concurrency()
        from statsapi.server.gunicorn_app import configuration_faults

        faults = configuration_faults()
    except ConfigError as error:
        faults = list(error.faults)
    return settings_faults() + journal_faults() + faults
