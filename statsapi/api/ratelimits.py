"""Rate limits by Flask-Limiter: at most N requests per API key, or per address, whichever worker they reach.

Off unless STATSAPI_RATE_LIMIT says otherwise. Then each request is counted in one place that all workers share: a small
SQLite file beside the journal (the `limits` library has no such storage), or for more than one machine Redis, the
journal's own unless another is named. Imported only then, which takes 50 ms.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any, Final

from flask import Flask, Response, g, request
from flask_limiter import Limit, Limiter
from limits import RateLimitItem, WindowStats
from limits.storage import Storage
from limits.strategies import STRATEGIES, FixedWindowRateLimiter

from statsapi.api import limit_storage  # noqa: F401 - so that the `limits` library knows sqlite+limits://
from statsapi.api.incoming import service
from statsapi.config import Settings
from statsapi.errors import ConfigError
from statsapi.journal import engine_of
from statsapi.routes import HEALTH, READY

logger = logging.getLogger("statsapi")

# Timeout of a connect and of each command. A request sends two commands; the first failure ends it. In the same network
# Redis answers in less than a millisecond.
REDIS_TIMEOUT_S: Final = 0.2

# After a failure no request uses the storage for this long. Then one request of the process tries it; no other waits.
RETRY_EVERY_S: Final = 1.0

# Requests that wait for each other read the clock in another order than they are counted in.
CLOCK_TOLERANCE_S: Final = 1.0

_UNCOUNTED: Final = WindowStats(0.0, 0)


class _Lenient(FixedWindowRateLimiter):
    """The library's fixed windows, with two changes. A request that cannot be counted passes; the first is logged, and
    the metrics count all. A request's window (how many are left, until when) is read once, when the request is counted.

    Flask-Limiter's own means were refused. With `swallow_errors` every request asks a storage that is away and logs a
    traceback. With `in_memory_fallback` the requests under way do so too, and the storage may be tried again only after
    a minute. Both ask Redis three times a request; this asks twice.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._lock = threading.Lock()
        self._try_at_s: float | None = None  # while the storage is away

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        trial = self._try_at_s is not None
        if trial and not self._may_try():
            service().metrics.unlimited()
            return True
        key = item.key_for(*identifiers)
        try:
            count, until_s = self._count(item, key, cost)
            if until_s > time.time() + item.get_expiry() + CLOCK_TOLERANCE_S:
                # The window began by a clock that was ahead, and would last until that time comes: 80 years, or days.
                self.storage.clear(key)
                count, until_s = self._count(item, key, cost)
            left = item.amount - count
            window = WindowStats(until_s, left)
        except Exception as error:  # noqa: BLE001 - whatever it is: a limit protects the service, it must not stop it
            if self._is_news(time.monotonic() + RETRY_EVERY_S):
                logger.error("Requests are not limited while they cannot be counted: %s", error)  # noqa: TRY400
            service().metrics.unlimited()
            return True
        if trial and self._is_news(None):
            logger.warning("Requests can be counted again and are limited")
        g.setdefault("rate_limit_windows", {})[item] = window
        return left >= 0

    def _count(self, item: RateLimitItem, key: str, cost: int) -> tuple[int, float]:
        """The count with this request, and until when it stands."""
        return self.storage.incr(key, item.get_expiry(), cost), self.storage.get_expiry(key)

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        windows: dict[RateLimitItem, WindowStats] = g.get("rate_limit_windows", {})
        return windows.get(item, _UNCOUNTED)

    def _may_try(self) -> bool:
        with self._lock:
            now_s = time.monotonic()
            if self._try_at_s is not None:
                if now_s < self._try_at_s:
                    return False
                self._try_at_s = now_s + RETRY_EVERY_S
            return True

    def _is_news(self, try_at_s: float | None) -> bool:
        """Whether this changes the storage's state: it went away, or it came back."""
        with self._lock:
            before, self._try_at_s = self._try_at_s, try_at_s
        return (before is None) != (try_at_s is None)


STRATEGIES["statsapi"] = _Lenient


def install(app: Flask, settings: Settings) -> None:
    """Count each request against settings.rate_limit, all but those for health, and answer 429 beyond it.

    Call it after the hook that identifies the caller is installed, and before any hook that refuses: refused requests
    count too. Answers tell how many requests are left (`RateLimit`, `RateLimit-Policy`:
    draft-ietf-httpapi-ratelimit-headers). With several limits, they are about the one that is exceeded, or else about
    the one with the shortest period.
    """
    storage_uri, storage_options = _storage(settings)

    def wait_s() -> int:
        limit = limiter.current_limit
        return max(1, math.ceil(limit.window.reset_time - time.time())) if limit is not None else 1

    def detail() -> str:
        return f"At most {settings.rate_limit} requests are answered; try again in {wait_s()} s (STATSAPI_RATE_LIMIT)."

    limiter = Limiter(
        _who,
        app=app,
        default_limits=[
            Limit(settings.rate_limit or "", exempt_when=lambda: request.path in (HEALTH, READY), error_message=detail)
        ],
        request_identifier=lambda: (
            "statsapi"
        ),  # one count for all paths, unknown ones too, which a count by endpoint would let pass
        storage_uri=storage_uri,
        storage_options=storage_options,
        strategy="statsapi",
    )

    @app.after_request
    def tell(response: Response) -> Response:
        limit = limiter.current_limit
        if limit is not None and limit.window is not _UNCOUNTED:
            response.headers["RateLimit-Policy"] = f'"default";q={limit.limit.amount};w={limit.limit.get_expiry()}'
            response.headers["RateLimit"] = f'"default";r={max(limit.remaining, 0)};t={wait_s()}'
            if limit.breached:
                response.headers["Retry-After"] = str(wait_s())
        return response


def _who() -> str:
    """The API key's id; without one the client's address, as far as STATSAPI_TRUSTED_PROXIES reveals it."""
    key_id = g.get("key_id")
    return f"key:{key_id}" if key_id else f"address:{request.remote_addr or 'unix'}"


def _storage(settings: Settings) -> tuple[str, dict[str, Any]]:
    """The storage's URI and options: the configured one, else the one that all users of the journal share."""
    if uri := settings.rate_limit_storage:
        return uri, _redis_options() if uri.startswith("redis") else {}
    place = engine_of(settings.journal).shares_limits()
    if place is None:
        raise ConfigError("STATSAPI_RATE_LIMIT needs a place to count in: set STATSAPI_RATE_LIMIT_STORAGE")
    if place.per_worker:
        logger.warning(
            "Each worker counts its own requests against STATSAPI_RATE_LIMIT, so n workers pass n times as many: "
            "set STATSAPI_RATE_LIMIT_STORAGE=redis://host:port/db to count all together"
        )
    return place.uri, {**(_redis_options() if place.uri.startswith("redis") else {}), **place.options}


def _redis_options() -> dict[str, Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # No retry: it would double a request's wait, and the next request tries again anyway.
    retry = Retry(NoBackoff(), 0)
    return {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S, "retry": retry}
