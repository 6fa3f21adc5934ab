"""With a journal in one process (memory://), refuses to answer where several would, each from its own events.

Our gunicorn.conf.py refuses a second worker at start. Under another server or configuration, two signs show that there
are several processes:

- `wsgi.multiprocess`, by which a server says that other processes may answer too;
- the listening socket. Processes that share one were forked by the same server, so each would answer some of the
  requests. The first process that is asked binds a name made of the socket's inode; no other process can bind it while
  that one lives. Services on different ports, and test clients without a port, share no socket and do not disturb each
  other. Linux only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask import Flask, request

from statsapi.config import Settings
from statsapi.errors import JournalRefused
from statsapi.journal import engine_of
from statsapi.routes import OPEN, READY, scope_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("statsapi")

_REASON: Final = "statsapi.refused"

_TO_DO: Final = (
    "Start it with one process (`statsapi serve` does), or name a journal that "
    "processes share, such as STATSAPI_JOURNAL=sqlite:///data/events.db."
)


def register(app: Flask, settings: Settings) -> None:
    """Refuse requests about events, and /readyz, where another process may hold other events. No-op for other journals.

    The check wraps Flask and costs 0.25 µs a request. The hook that refuses costs some 6 µs, and is added only when
    it is needed.
    """
    engine = engine_of(settings.journal)
    if not engine.single_process:
        return
    claim = Claim()
    answer = app.wsgi_app
    lock = threading.Lock()
    hooks = app.before_request_funcs[None]

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reason = ""
        if environ.get("wsgi.multiprocess"):
            reason = "this server says that others answer beside it (wsgi.multiprocess)"
        elif not claim.is_held():
            reason = "another one answers at the same port"
        if reason:
            environ[_REASON] = f"STATSAPI_JOURNAL={engine.kind}:// keeps events in one process, and {reason}. {_TO_DO}"
            with lock:
                if _refuse not in hooks:
                    logger.error("%s", environ[_REASON])
                    hooks.append(_refuse)
        return answer(environ, start_response)

    app.wsgi_app = guarded  # type: ignore[method-assign]  # as Flask's documentation has it


def _refuse() -> None:
    reason = request.environ.get(_REASON)
    rule = request.url_rule
    if reason is None or rule is None or request.method == "OPTIONS":
        return
    if scope_of(rule.endpoint) is not OPEN or rule.rule == READY:
        refused = JournalRefused(reason)
        refused.retry_after_s = 1  # while a server replaces a process there are two for a moment
        raise refused


class Claim:
    """This process's claim to every socket that it listens on. All applications of a process share one claim, and it
    ends with the process.
    """

    _lock: Final = threading.Lock()
    _names: Final[dict[int, socket.socket]] = {}  # by the listening socket's inode
    _pid = 0

    def __init__(self) -> None:
        self._held_by = 0

    def is_held(self) -> bool:
        """Whether no other process claimed one of these sockets first. Costs 0.2 ms the first time, then 0.16 µs."""
        if self._held_by == os.getpid():
            return True
        with self._lock:
            if Claim._pid != os.getpid():  # forked: the claim is the parent's
                Claim._pid = os.getpid()
                self._names.clear()
            if all(self._claim(inode) for inode in listening_inodes()):
                self._held_by = os.getpid()
        return self._held_by == os.getpid()

    def _claim(self, inode: int) -> bool:
        if inode not in self._names:
            name = socket.socket(socket.AF_UNIX)
            try:
                name.bind(f"\0statsapi one process {inode}")  # no file, and gone with the process
            except OSError:
                name.close()
                return False
            self._names[inode] = name
        return True


def listening_inodes() -> list[int]:
    """The inodes of the sockets that this process listens at; none where the system does not tell."""
    found = []
    with contextlib.suppress(OSError):
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith("socket:"):
                    with socket.socket(fileno=os.dup(int(link.name))) as sock:
                        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                            found.append(os.fstat(sock.fileno()).st_ino)
    return found
