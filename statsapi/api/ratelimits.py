"""Rate limits: so many requests per API key, or per address, whichever worker they reach.

Off unless STATSAPI_RATE_LIMIT says otherwise. Then each request is counted in one place that all workers share: a small
SQLite file beside the journal (the `limits` library has no such storage), or Redis for more than one machine. Imported
only then, which takes 50 ms.

The rules and the Redis storage are the `limits` library's. Flask-Limiter, which stands on it, was refused: one limit
for all requests needs none of its decorators, and it asked Redis three times a request where two are enough, passed
over unknown paths and refused keys, and logged a traceback for each request while Redis was away.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from flask import Flask, Response, g, request
from limits import RateLimitItem, parse_many
from limits.storage import Storage, storage_from_string

from statsapi.api import problems
from statsapi.config import Settings

logger = logging.getLogger("statsapi")

# Asked from the same network, Redis answers in less than a millisecond. So long to connect, and so long for each
# command, of which a request has two; the first that fails is the last.
REDIS_TIMEOUT_S: Final = 0.2

# After a failure the counters are left alone for so long. Then one request of the process tries them, no other waits.
RETRY_EVERY_S: Final = 1.0

_EXEMPT = ("/healthz", "/readyz")

_BUSY_S = 2.0
_SWEEP_EVERY = 1000  # increments of one process between two looks for what has expired

_SCHEMA = "CREATE TABLE IF NOT EXISTS hits (key TEXT PRIMARY KEY, count INTEGER, expires_s REAL) WITHOUT ROWID"
_COUNT = """
INSERT INTO hits (key, count, expires_s) VALUES (?1, ?2, ?3 + ?4)
ON CONFLICT (key) DO UPDATE SET
    count = CASE WHEN expires_s <= ?3 THEN excluded.count ELSE count + excluded.count END,
    expires_s = CASE WHEN expires_s <= ?3 THEN excluded.expires_s ELSE expires_s END
RETURNING count
"""


class SqliteStorage(Storage):
    """Counters in a SQLite file, `sqlite+limits:///path`: one statement a hit, so no two workers count the same one.

    20 µs a hit. Nothing is synced: after a power cut the counters may begin anew. Opened with the first hit, in the
    process that hits, never before a fork. Any thread may call any method.
    """

    STORAGE_SCHEME = ["sqlite+limits"]  # noqa: RUF012 - as the base class declares it

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        self._path = uri.partition(":///")[2]
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._increments = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def _query(self, statement: str, *parameters: object) -> tuple[Any, ...] | None:
        """The first row. The statement commits by itself."""
        with self._lock:
            if self._connection is None:
                connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
                connection.execute("PRAGMA journal_mode=WAL").fetchall()
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute(_SCHEMA)
                weakref.finalize(self, connection.close)  # nobody closes a storage
                self._connection = connection
            rows = self._connection.execute(statement, parameters).fetchall()
        return rows[0] if rows else None

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now_s = time.time()
        self._increments += 1
        if self._increments % _SWEEP_EVERY == 0:
            self._query("DELETE FROM hits WHERE expires_s <= ?", now_s)
        row = self._query(_COUNT, key, amount, now_s, expiry)
        return int(row[0]) if row else 0

    def get(self, key: str) -> int:
        row = self._query("SELECT count FROM hits WHERE key = ? AND expires_s > ?", key, time.time())
        return int(row[0]) if row else 0

    def get_expiry(self, key: str) -> float:
        row = self._query("SELECT expires_s FROM hits WHERE key = ?", key)
        return float(row[0]) if row else time.time()

    def check(self) -> bool:
        return self._query("SELECT 1") == (1,)

    def reset(self) -> int | None:
        row = self._query("SELECT count(*) FROM hits")
        self._query("DELETE FROM hits")
        return int(row[0]) if row else None

    def clear(self, key: str) -> None:
        self._query("DELETE FROM hits WHERE key = ?", key)


class _Standing(NamedTuple):
    """Where a request stands: the limit that speaks for it, how often it may be called yet, when that begins anew."""

    limit: RateLimitItem
    left: int  # below zero beyond the limit
    reset_at_s: float


class _Counters:
    """The counters of one process's storage, and what to do when they cannot be kept: nothing, once a second."""

    def __init__(self, storage: Storage, limits: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._limits = sorted(parse_many(limits), key=lambda limit: limit.get_expiry())
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._down = False
        self._try_at_s = 0.0

    def hit(self, who: str) -> _Standing | None:
        """Count a request of `who`; None while the counters cannot be kept, which is logged once.

        Of several limits the one that is passed speaks, or else that of the shortest time. In Redis a limit takes two
        round trips, 60 µs in all beside it; in SQLite it takes 13 µs.
        """
        if self._down and not self._may_try():
            return None
        try:
            standing = self._hit(who)
        except Exception as error:  # noqa: BLE001 - whatever it is: a limit protects the service, it must not stop it
            self._fail(error)
            return None
        if self._down:
            self._recover()
        return standing

    def _hit(self, who: str) -> _Standing:
        first: _Standing | None = None
        for limit in self._limits:
            key = limit.key_for("statsapi", who)
            left = limit.amount - self._storage.incr(key, limit.get_expiry())
            if first is None or left < 0:
                standing = _Standing(limit, left, self._storage.get_expiry(key))
                if left < 0:
                    return standing
                first = standing
        assert first is not None  # noqa: S101 - parse_many refuses an empty text
        return first

    def _may_try(self) -> bool:
        with self._lock:
            now_s = self._clock_s()
            if now_s < self._try_at_s:
                return False
            self._try_at_s = now_s + RETRY_EVERY_S
            return True

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._try_at_s = self._clock_s() + RETRY_EVERY_S
            if self._down:
                return
            self._down = True
        logger.error("Requests are not limited while they cannot be counted: %s", error)

    def _recover(self) -> None:
        with self._lock:
            if not self._down:
                return
            self._down = False
        logger.warning("Requests can be counted again and are limited")


def install(app: Flask, settings: Settings) -> Callable[[], Response | None]:
    """What counts a request against settings.rate_limit, all but those for health, and gives a 429 beyond it.

    To be called once it is known who asks. An answer tells what is left (`RateLimit`, `RateLimit-Policy`:
    draft-ietf-httpapi-ratelimit-headers). Where the counters cannot be kept, requests pass and the log says why.
    """
    counters = _Counters(_storage(settings), settings.rate_limit or "")

    def count() -> Response | None:
        if request.path in _EXEMPT:
            return None
        g.rate_limit = standing = counters.hit(_who())
        if standing is None or standing.left >= 0:
            return None
        wait_s = _wait_s(standing)
        detail = f"At most {settings.rate_limit} requests are answered; try again in {wait_s} s (STATSAPI_RATE_LIMIT)."
        headers = {"Retry-After": str(wait_s)}
        return problems.problem(429, "too-many-requests", "Too Many Requests", detail, headers=headers)

    def tell(response: Response) -> Response:
        standing: _Standing | None = g.get("rate_limit")
        if standing is not None:
            limit = standing.limit
            response.headers["RateLimit-Policy"] = f'"default";q={limit.amount};w={limit.get_expiry()}'
            response.headers["RateLimit"] = f'"default";r={max(standing.left, 0)};t={_wait_s(standing)}'
        return response

    app.after_request(tell)
    return count


def _wait_s(standing: _Standing) -> int:
    return max(1, math.ceil(standing.reset_at_s - time.time()))


def _who() -> str:
    """The API key's id; without keys the client's address, as far as STATSAPI_TRUSTED_PROXIES lets us know it."""
    key_id = g.get("key_id")
    return f"key:{key_id}" if key_id else f"address:{request.remote_addr or 'unix'}"


def _storage(settings: Settings) -> Storage:
    """Nothing is opened yet."""
    uri = settings.rate_limit_storage or _beside(settings.journal)
    options: dict[str, Any] = {}
    if uri.startswith("redis"):
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # No second try: it would double what a request waits, and the next one tries again anyway.
        options = {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S}
        options["retry"] = Retry(NoBackoff(), 0)
    storage = storage_from_string(uri, **options)
    assert isinstance(storage, Storage)  # noqa: S101 - for the type checker: not one of the asynchronous kind
    return storage


def _beside(journal: str) -> str:
    """The storage that is shared by those who share the journal."""
    path = journal.removeprefix("sqlite:///")
    return "memory://" if path == journal else f"sqlite+limits:///{path}.limits"
