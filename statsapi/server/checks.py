"""What is wrong with the settings and with the numbers of workers and threads, before anything is opened or bound.

`statsapi serve`, Gunicorn's `--check-config` and `statsapi config` judge by these functions. None of them imports
Gunicorn, which reads WEB_CONCURRENCY at import.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from statsapi import tokens
from statsapi.config import Settings, read_one
from statsapi.errors import ConfigError
from statsapi.journal import Engine, check_journal, engine_of
from statsapi.keys import Keys
from statsapi.routes import require_prefix
from statsapi.server.board import Board

CONCURRENCY: Final = "WEB_CONCURRENCY"  # how many workers: what platforms set, and Gunicorn reads


def check_folder() -> None:
    """Refuse a current folder that is gone (ConfigError): Gunicorn asks for it at import, and a relative journal is in
    it.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError("the current folder does not exist any more: start from another") from error


def check_concurrency() -> None:
    """Refuse a faulty WEB_CONCURRENCY (ConfigError), and unset an empty one. Gunicorn reads it at import, where it
    would end in a traceback.
    """
    text = os.environ.get(CONCURRENCY)
    if text is None:
        return
    if not text.strip():
        del os.environ[CONCURRENCY]  # set to nothing is unset, as with our own settings
    elif not re.fullmatch(r"0*[1-9][0-9]{0,8}", text.strip(), re.ASCII):
        raise ConfigError(f"{CONCURRENCY}={text!r}: must be a whole number from 1, the number of workers; or unset")


def settings_faults() -> list[str]:
    """Everything that is wrong with the settings of this process, the files of keys included, a sentence each. The
    journal is judged by opening it, or by `journal_faults`.
    """
    faults: list[str] = []
    for check in (Settings.from_env, load_keys, _load_token_keys, _check_prefix):
        try:
            check()
        except ConfigError as error:
            faults += error.faults
    return faults


def journal_faults() -> list[str]:
    """Why no journal could ever be opened by the settings. Nothing is opened or asked."""
    try:
        check_journal(read_one("journal"), wait_replicas=read_one("redis_wait_replicas"))
    except ConfigError as error:
        return list(error.faults)
    return []


def load_keys() -> None:
    """Let the workers inherit the API keys that the arbiter read last: see statsapi.keys. ConfigError if faulty."""
    file, entries = read_one("api_keys_file"), read_one("api_keys")
    if file or entries:
        Keys(file, entries)


def _load_token_keys() -> None:
    if key := read_one("jwt_key"):
        tokens.read_key(key)
    if key_set := read_one("jwt_jwks_file"):
        tokens.load(key_set)


def _check_prefix() -> None:
    require_prefix(read_one("path_prefix") or "")


def lone_engine() -> Engine | None:
    """The journal's engine, where the journal lives in one process, so that a second worker would give wrong answers;
    None for any other.
    """
    try:
        engine = engine_of(read_one("journal"))
    except ConfigError:
        return None  # the journal's own check reports the fault
    return engine if engine.single_process else None


def most_workers() -> int:
    """How many workers a server can have: one where the journal lives in it, else as many as the board has slots."""
    return 1 if lone_engine() else Board.SLOTS


def concurrency_faults(cfg: Any) -> list[str]:
    """Why a server with this configuration of Gunicorn's could not work, by its numbers of workers and threads."""
    faults = []
    if cfg.workers < 1:
        faults.append(f"{cfg.workers} workers cannot answer anything: set --workers or {CONCURRENCY} to 1 or more")
    elif cfg.workers > 1 and (engine := lone_engine()):
        faults.append(
            f"STATSAPI_JOURNAL={engine.kind}:// keeps events in one process, so {cfg.workers} workers would each "
            f"answer from their own: start one (--workers 1, or {CONCURRENCY}=1), or name a journal that workers share "
            "(sqlite:///…)"
        )
    elif cfg.workers > Board.SLOTS:
        faults.append(
            f"{cfg.workers} workers are more than the {Board.SLOTS} that one server can have: set --workers or "
            f"{CONCURRENCY} to {Board.SLOTS} or less"
        )
    # A worker stops accepting at worker_connections, so the threads beyond would never have anything to do.
    if cfg.threads < 1:
        faults.append(f"{cfg.threads} threads cannot answer anything: set --threads to 1 or more")
    elif cfg.worker_connections < 1:
        faults.append(
            f"{cfg.worker_connections} connections of a worker answer nothing: set --worker-connections to 1 or more"
        )
    elif cfg.threads > cfg.worker_connections:
        faults.append(
            f"{cfg.threads} threads are more than the {cfg.worker_connections} connections that a worker can have: set "
            f"--threads to {cfg.worker_connections} or less"
        )
    return faults
