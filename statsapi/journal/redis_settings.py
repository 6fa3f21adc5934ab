"""What a Redis server's settings keep: the promise, warnings of what they do not keep, and refusals."""

from __future__ import annotations

import logging
import time
from typing import Final

from statsapi.errors import JournalRefused
from statsapi.journal.protocol import Fsync
from statsapi.journal.redis_primary import Call
from statsapi.journal.redis_scripts import SCHEMA_VERSION
from statsapi.journal.redis_server import Server

logger = logging.getLogger("statsapi")

# Scripts that declare what they are (#!lua), and CONFIG, INFO and XTRIM as they are used here.
OLDEST_VERSION: Final = 7


def check_exists(server: Server) -> None:
    if not server.calls([Call("EXISTS", server.keys[1])])[0]:
        raise JournalRefused(f"no journal at {server.address}: nothing was ever recorded there")


def check_server(server: Server, fsync: Fsync, wait_replicas: int) -> str:
    """Warn where the server's settings may lose events, refuse those that cannot work, and give the promise."""
    info = _parse_info(server.calls([Call("INFO")])[0])
    version = info.get("redis_version", "0")
    if int(version.partition(".")[0]) < OLDEST_VERSION:
        raise JournalRefused(
            f"{server.address} is Redis {version}; it takes Redis {OLDEST_VERSION} or newer, or Valkey"
        )
    if info.get("cluster_enabled") == "1" and server.address.kind != "cluster":
        raise JournalRefused(f"{server.address} is a node of a Cluster: write redis+cluster:// for it")
    schema, (seconds, micros) = server.calls([Call("HGET", server.keys[1], "schema"), Call("TIME")])
    server.clock.set(int(seconds) * 1_000_000 + int(micros), time.monotonic())
    if schema is not None and int(schema) > SCHEMA_VERSION:
        raise JournalRefused(f"the journal at {server.address} has schema {int(schema)}: use a newer statsapi")
    try:
        policy = server.calls([Call("CONFIG", "GET", "appendfsync")])[0][1].decode()
    except JournalRefused as error:  # managed servers often forbid it
        policy = None
        logger.warning("%s: whether it syncs its log to the disk could not be checked (%s)", server.address, error)
    if fsync == "always" and (info.get("aof_enabled") == "0" or policy not in ("always", None)):
        raise JournalRefused(
            f"STATSAPI_FSYNC=always needs appendonly yes and appendfsync always on {server.address}, which has "
            f"{'appendonly no' if info.get('aof_enabled') == '0' else 'appendfsync ' + str(policy)}"
        )
    for fault in _warnings(info, policy, wait_replicas):
        logger.warning("%s: %s", server.address, fault)
    kept = "keeps no log (appendonly no)"
    if info.get("aof_enabled") != "0":
        kept = {
            "always": "syncs each append to its disk (appendfsync always)",
            "everysec": "syncs its log once a second (appendfsync everysec): a power cut there costs up to two seconds",
            "no": "leaves its log to the operating system (appendfsync no)",
        }.get(str(policy), "keeps a log")
    waits = f", and {wait_replicas} replicas have it before a 2xx" if wait_replicas else ""
    return f"The journal is {server.address}: the end of every process here loses nothing; the server {kept}{waits}"


def _warnings(info: dict[str, str], policy: str | None, wait_replicas: int) -> list[str]:
    """One sentence for each way to lose events, with the setting that prevents it."""
    found = []
    if info.get("aof_enabled") == "0":
        found.append("a crash or restart of it loses what came after its last snapshot: set appendonly yes")
    elif policy == "no":
        found.append("a power cut there loses what its operating system had not written: set appendfsync everysec")
    evicts = info.get("maxmemory_policy", "noeviction")
    if evicts != "noeviction":
        found.append(
            f"it may evict acknowledged events or keys when memory runs out (maxmemory-policy {evicts}): "
            "set maxmemory-policy noeviction"
        )
    replicas = int(info.get("connected_slaves", "0"))
    if replicas < wait_replicas:
        found.append(
            f"it has {replicas} of the {wait_replicas} replicas that each append waits for "
            "(STATSAPI_REDIS_WAIT_REPLICAS): until they are there every write is a 503"
        )
    return found


def _parse_info(text: bytes) -> dict[str, str]:
    rows = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in rows if colon}
