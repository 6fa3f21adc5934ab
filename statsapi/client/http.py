"""One request to the service: it ends with an answer, or with an error that says whether to try again.

Redirects are not followed: a POST would become a GET. Sockets are not shared across a fork.
"""

from __future__ import annotations

import email.utils
import gzip
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from statsapi import __version__
from statsapi.client.errors import Conflict, Refused, Unauthorized, Unavailable

NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"

_RETRIED: Final = (408, 425, 429)  # and every 5xx
_NOT_SENT: Final = (NewConnectionError, ConnectTimeoutError, ProxyError)
_GZIP_FROM_BYTES: Final = 1_000
_SHOWN: Final = 200  # characters of what another server said


class Reply(NamedTuple):
    """An answer of 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Connections to one service. Any number of threads may use it at once."""

    def __init__(self, url: str, key: str | None, *, timeout_s: float, ca_file: str | None, connections: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(_why_no_url(url, parts.scheme))
        try:
            _ = parts.port
        except ValueError:
            # Neither the port nor the URL is repeated: the port may be a password whose @host was forgotten.
            raise ValueError("it is no URL: its port is not a number up to 65535") from None
        if parts.query or parts.fragment or parts.username:
            raise ValueError("the URL may hold a path, but no query, fragment or user; the API key is `key`")
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": f"statsapi-client/{__version__}", "Accept-Encoding": "gzip"}
        if key is not None:
            if not key.isascii() or not key.isprintable() or not key.strip():
                raise ValueError("the API key holds characters that no key has")
            self._headers["Authorization"] = f"Bearer {key.strip()}"
        if ca_file:
            try:
                ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"ca_file={ca_file!r} holds no certificates that can be read: {error}") from None
        self._options: dict[str, Any] = {
            "num_pools": 1,
            "maxsize": connections,
            "timeout": urllib3.Timeout(connect=timeout_s, read=timeout_s),
            "retries": False,
            **({"ca_certs": ca_file} if ca_file else {}),
        }
        self._pools: tuple[int, urllib3.PoolManager] | None = None

    def send(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One attempt. Raises Refused (and its kinds) or Unavailable."""
        response = self.open(method, path, query, body, headers)
        try:
            return Reply(response.status, response.headers, response.data)
        except HTTPError as error:
            raise Unavailable(f"the answer of {self.url} broke off") from error
        finally:
            response.release_conn()

    def open(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """As `send`, but the body of a 2xx is still to be read. Its reader releases the connection."""
        target = f"{self.url}{path}" + (f"?{query}" if query else "")
        try:
            response = self._pool().request(
                method,
                target,
                body=body,
                headers={**self._headers, **(headers or {})},
                preload_content=False,
                redirect=False,
            )
            if not 200 <= response.status < 300:
                said = response.data
                response.release_conn()
                error = refusal(self.url, response.status, response.headers, said)
                error.headers, error.body = response.headers, said
                raise error
        except HTTPError as error:
            raise _unanswered(self.url, error) from error
        return response

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self._pools is not None and self._pools[0] == os.getpid():
            self._pools[1].clear()
        self._pools = None

    def _pool(self) -> urllib3.PoolManager:
        """The pool of this process. A forked child gets a new one: on a shared socket, two processes would read each
        other's answers.
        """
        pools = self._pools
        if pools is None or pools[0] != os.getpid():
            pools = self._pools = (os.getpid(), urllib3.PoolManager(**self._options))
        return pools[1]


def squeezed(body: bytes) -> tuple[bytes, dict[str, str]]:
    """The body, gzipped where that saves more than it costs, and the headers that say so."""
    if len(body) < _GZIP_FROM_BYTES:
        return body, {}
    return gzip.compress(body, 1), {"Content-Encoding": "gzip"}


def decode(url: str, reply: Reply) -> Any:
    """The JSON of an answer. Raises Unavailable for a body that is not JSON: it came from a proxy or another server."""
    try:
        return json.loads(reply.body)
    except ValueError:
        raise Unavailable(
            f"{url} answered {reply.status} without JSON, so this is not statsapi: {_shown(reply.body)}",
            status=reply.status,
        ) from None


def recorded(url: str, reply: Reply) -> dict[str, Any]:
    """The answer to a recording. Raises Unavailable unless it is the service's own acknowledgement."""
    answer = decode(url, reply)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        raise Unavailable(
            f"{url} answered {reply.status} without an acknowledgement, so this is not statsapi", status=reply.status
        )
    return answer


def _unanswered(url: str, error: HTTPError) -> Unavailable:
    sure = isinstance(error, _NOT_SENT) or (
        isinstance(error, SSLError) and any(isinstance(arg, ssl.SSLCertVerificationError) for arg in error.args)
    )
    return Unavailable(f"{url} gave no answer: {error}", outcome="not recorded" if sure else "unknown")


def refusal(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Refused | Unavailable:
    problem = _problem_of(body)
    said = problem.get("detail") or problem.get("title")
    message = str(said) if said else f"{url} answered {status}: {_shown(body)}"
    if status >= 500 or status in _RETRIED:
        known = problem.get("outcome") == "not recorded" or status in (429, 507)
        return Unavailable(
            message,
            status=status,
            problem=problem,
            outcome="not recorded" if known else "unknown",
            retry_after_s=_retry_after_s(headers.get("Retry-After")),
        )
    if status < 400:
        message = f"{url} redirects to {headers.get('Location', 'elsewhere')}; give the client that URL"
    if status in (401, 403):
        return Unauthorized(message, status=status, problem=problem)
    kind = Conflict if str(problem.get("type", "")).endswith(":idempotency-conflict") else Refused
    return kind(message, status=status, problem=problem)


def _problem_of(body: bytes) -> dict[str, Any]:
    """The problem document of the service; {} for another server's answer."""
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    ours = isinstance(problem, dict) and str(problem.get("type", "")).startswith("urn:statsapi:problem:")
    return problem if ours else {}


def _retry_after_s(text: str | None) -> float | None:
    """The value of Retry-After in seconds, which may be given as a date; None for any other text."""
    if not text:
        return None
    try:
        if text.strip().isdigit():
            return float(text)
        moment_s: float = email.utils.parsedate_to_datetime(text).timestamp()
        return max(0.0, moment_s - time.time())
    except (TypeError, ValueError):
        return None


def _shown(body: bytes) -> str:
    text = " ".join(body[: 4 * _SHOWN].decode(errors="replace").split())
    return (text[:_SHOWN] + "…" if len(text) > _SHOWN else text) or "nothing"


def pause_s(failures: int, asked_s: float | None, chance: float, *, longest_s: float = 30.0) -> float:
    """Seconds until the next attempt after this many failures in a row: 0.1, 0.2, 0.4 … up to `longest_s`. `chance` (0
    to 1) takes away up to half, so that many clients do not come back at once. Never less than `asked_s`.
    """
    usual_s = min(longest_s, 0.1 * 2.0 ** min(failures - 1, 20)) * (1 - chance / 2)
    return max(usual_s, asked_s or 0.0)


def _why_no_url(url: str, scheme: str) -> str:
    """It is repeated only where it can hold no password."""
    if scheme in ("http", "https"):
        return "the URL names no host: it is one such as http://127.0.0.1:8000"
    if "://" in url:
        return "the URL must begin with http:// or https://, as http://127.0.0.1:8000 does"
    return f"{'it' if '@' in url else repr(url)} is no URL such as http://127.0.0.1:8000"
