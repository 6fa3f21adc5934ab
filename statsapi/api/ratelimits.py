"""Rate limits by Flask-Limiter: so many requests per API key, or per address, whichever worker they reach.

Off unless STATSAPI_RATE_LIMIT says otherwise. Then each request is counted in one place that all workers share: a small
SQLite file beside the journal (the `limits` library has no such storage), or Redis for more than one machine. Imported
only then, which takes 50 ms.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from typing import Any

from flask import Flask, Response, g, request
from flask_limiter import Limiter
from flask_limiter.errors import RateLimitExceeded
from limits.storage import Storage

from statsapi.api import problems
from statsapi.config import Settings

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


def install(app: Flask, settings: Settings) -> None:
    """Count every request but those for health against settings.rate_limit, and answer 429 once there are too many.

    An answer tells what is left (`RateLimit`, `RateLimit-Policy`: draft-ietf-httpapi-ratelimit-headers). Where the
    counters cannot be kept, requests pass and the log says why: a limit protects the service, it must not stop it.
    """
    limiter = Limiter(
        _who,
        app=app,
        application_limits=[settings.rate_limit or ""],
        application_limits_exempt_when=lambda: request.path in _EXEMPT,
        storage_uri=settings.rate_limit_storage or _beside(settings.journal),
        strategy="fixed-window",
        swallow_errors=True,
    )

    def too_many(error: RateLimitExceeded) -> Response:
        wait_s = _wait_s(limiter)
        detail = f"At most {settings.rate_limit} requests are answered; try again in {wait_s} s (STATSAPI_RATE_LIMIT)."
        headers = {"Retry-After": str(wait_s)}
        return problems.problem(429, "too-many-requests", "Too Many Requests", detail, headers=headers)

    def tell(response: Response) -> Response:
        limit = limiter.current_limit
        if limit is not None:
            response.headers["RateLimit-Policy"] = f'"default";q={limit.limit.amount};w={limit.limit.get_expiry()}'
            response.headers["RateLimit"] = f'"default";r={max(limit.remaining, 0)};t={_wait_s(limiter)}'
        return response

    app.register_error_handler(RateLimitExceeded, too_many)
    app.after_request(tell)


def _wait_s(limiter: Limiter) -> int:
    limit = limiter.current_limit
    return max(1, int(limit.reset_at - time.time())) if limit is not None else 1


def _who() -> str:
    """The API key's id; without keys the client's address, as far as STATSAPI_TRUSTED_PROXIES lets us know it."""
    key_id = g.get("key_id")
    return f"key:{key_id}" if key_id else f"address:{request.remote_addr or 'unix'}"


def _beside(journal: str) -> str:
    """The storage that is shared by those who share the journal."""
    path = journal.removeprefix("sqlite:///")
    return "memory://" if path == journal else f"sqlite+limits:///{path}.limits"
