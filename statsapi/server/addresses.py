"""Checks the configured addresses before Gunicorn binds them, and says in one sentence why one cannot be used."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any, Final

import gunicorn.systemd
import gunicorn.util

# How long to wait for an address in use: workers of a killed server release it within milliseconds.
ADDRESS_WAIT_S: Final = 0.5

UNIX_PATH_BYTES: Final = 107  # Linux; elsewhere 103


def faults_of_addresses(server: Any) -> list[str]:
    """Why the configured addresses cannot be bound, a sentence for each.

    Gunicorn itself tries for five seconds, names no setting, and replaces a Unix socket on which another server
    listens. Sockets that systemd or an older arbiter (USR2) hands over are bound already.
    """
    if server.master_pid or gunicorn.systemd.listen_fds(unset_environment=False) or server.cfg.reuse_port:
        return []
    faults = []
    options = getattr(server.app, "address_options", "--bind")  # those of `statsapi serve`
    until_s = time.monotonic() + ADDRESS_WAIT_S
    for address in server.cfg.address:
        while (reason := _why_not_bound(address)) is not None:
            if reason != _IN_USE or time.monotonic() >= until_s:
                option = options if isinstance(address, tuple) else "--bind"
                faults.append(reason.format(_shown(address), _holder(address), option))
                break
            time.sleep(0.02)
    return faults


_IN_USE: Final = "{0} is in use{1}: stop what listens there, or choose another with {2}"


def _why_not_bound(address: Any) -> str | None:
    try:
        if isinstance(address, tuple):
            family = socket.AF_INET6 if gunicorn.util.is_ipv6(address[0]) else socket.AF_INET
            with socket.socket(family) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
        elif isinstance(address, str) and not address.startswith("\0"):
            return _why_no_unix_socket(address)
    except socket.gaierror:
        return "{0} cannot be listened at, as its host is not known: choose another with {2}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _IN_USE
        if error.errno == errno.EADDRNOTAVAIL:
            return "{0} cannot be listened at, as this machine does not have that address: choose another with {2}"
        return f"{{0}} cannot be listened at ({error.strerror}): choose another with {{2}}"
    except OverflowError:
        return "{0} cannot be listened at, as ports go up to 65535: choose another with {2}"
    return None


def _why_no_unix_socket(path: str) -> str | None:
    if not path:
        return "{0} names no socket: write --bind unix:/path/to/socket"
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        return (
            f"{{0}} is too long (a Unix socket's path has at most {UNIX_PATH_BYTES} bytes): choose another with --bind"
        )
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return "{0} cannot be made, as its folder is not there: make it, or choose another with --bind"
    if not os.access(folder, os.W_OK | os.X_OK):
        return (
            "{0} cannot be made, as its folder cannot be written: let this user write it, or choose another with --bind"
        )
    if not os.path.exists(path):
        return None
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return "{0} is not a socket: choose another with --bind"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ADDRESS_WAIT_S)
        try:
            sock.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None  # left behind by a server that was killed: Gunicorn takes its place
        except TimeoutError:  # a server listens there, and its queue is full
            return _IN_USE
    return _IN_USE


def _shown(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _holder(address: Any) -> str:
    """Which process listens at a port of this machine; empty where this user may not see it."""
    if not isinstance(address, tuple):
        return ""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == address[1]:  # listening
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda found: int(found.name)):
        with contextlib.suppress(OSError):
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                return f" by process {folder.name} ({(folder / 'comm').read_text().strip()})"
    return ""
