"""Rate limits: exact over workers, told in headers, by address or key, and never a reason to fail."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from limits.storage import MemoryStorage, Storage

from statsapi.api.limit_storage import SqliteStorage
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import ConfigError
from tests.calls import assert_problem
from tests.fakes import FakeClock

_TELLING = ("RateLimit-Policy", "RateLimit")


def test_what_is_left_is_told(tmp_path: Path, clock: FakeClock) -> None:
    """Each answer carries the policy and what is left; beyond it a 429 problem says when to come back."""
    settings = Settings(
        journal="memory://", rate_limit="2/minute", rate_limit_storage=f"sqlite+limits:///{tmp_path}/limits"
    )
    client = create_app(settings, clock_us=clock, background=False).test_client()
    for left in (1, 0):
        response = client.get("/statistics")
        assert response.headers["RateLimit-Policy"] == '"default";q=2;w=60'
        assert response.headers["RateLimit"].startswith(f'"default";r={left};t=')
    response = client.get("/statistics")
    problem = assert_problem(response, 429, "too-many-requests")
    assert "STATSAPI_RATE_LIMIT" in problem["detail"]
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert client.get("/healthz").status_code != 429


def test_addresses_are_told_apart_as_far_as_proxies_are_trusted(clock: FakeClock) -> None:
    """X-Forwarded-For counts only from as many proxies as STATSAPI_TRUSTED_PROXIES says, and is otherwise ignored."""
    for trusted, expected in ((0, 429), (1, 200)):
        settings = Settings(journal="memory://", rate_limit="1/minute", trusted_proxies=trusted)
        client = create_app(settings, clock_us=clock, background=False).test_client()
        assert client.get("/", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 200
        assert client.get("/", headers={"X-Forwarded-For": "10.0.0.2"}).status_code == expected
        spoofed = client.get("/", headers={"X-Forwarded-For": "10.9.9.9, 10.0.0.1"})
        assert spoofed.status_code == 429  # what the client itself wrote in front is not believed


def test_without_counters_requests_pass(clock: FakeClock, tmp_path: Path) -> None:
    """A storage that cannot be opened is said in the log and the metrics; nobody is turned away for it."""
    settings = Settings(
        journal="memory://", rate_limit="1/minute", rate_limit_storage=f"sqlite+limits:///{tmp_path}/no/such/folder"
    )
    client = create_app(settings, clock_us=clock, background=False).test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 200]
    assert "statsapi_rate_limit_uncounted_total 4.0" in client.get("/metrics").text


class Failing(Storage):
    """Counts in memory, unless it is told to fail: at once, or between two commands of one request."""

    STORAGE_SCHEME = ["failing"]  # noqa: RUF012 - as the library declares it

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri, **options)
        self.held = MemoryStorage()
        self.fails: set[str] = set()
        self.asked = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    def ask(self, what: str) -> MemoryStorage:
        self.asked += 1
        if what in self.fails:
            raise ConnectionError("gone")
        return self.held

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self.ask("incr").incr(key, expiry, amount)

    def get_expiry(self, key: str) -> float:
        return self.ask("get_expiry").get_expiry(key)

    def get(self, key: str) -> int:
        return self.ask("get").get(key)

    def check(self) -> bool:
        return self.ask("check").check()

    def reset(self) -> int | None:
        return self.held.reset()

    def clear(self, key: str) -> None:
        self.held.clear(key)


def storage_of(app: Flask) -> Any:
    (limiter,) = app.extensions["limiter"]
    return limiter.storage


@pytest.mark.parametrize(("fails", "asked"), [("incr", 1), ("get_expiry", 2)])
def test_counters_that_fail_are_left_alone_for_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, fails: str, asked: int
) -> None:
    """Tried once a second, said once when they go and once when they are back; then what was counted still counts."""
    caplog.set_level(logging.INFO, "statsapi")
    now_s = [100.0]
    monkeypatch.setattr("statsapi.api.ratelimits.time.monotonic", lambda: now_s[0])
    settings = Settings(journal="memory://", rate_limit="5/minute", rate_limit_storage="failing://")
    app = create_app(settings, clock_us=clock, background=False)
    client, storage = app.test_client(), storage_of(app)

    def ask() -> tuple[int, str | None]:
        response = client.get("/")
        return response.status_code, response.headers.get("RateLimit", "").partition(";t=")[0] or None

    assert ask() == (200, '"default";r=4')
    caplog.clear()
    storage.fails = {fails}
    for _ in range(3):
        storage.asked = 0
        assert [ask() for _ in range(5)] == [(200, None)] * 5
        assert storage.asked == asked
        now_s[0] += 1.01
    storage.fails = set()
    # What counted before the storage failed a moment later did count.
    left = 4 if fails == "incr" else 1
    assert [ask() for _ in range(left)] == [(200, f'"default";r={left - 1 - i}') for i in range(left)]
    assert ask() == (429, '"default";r=0')
    assert caplog.messages == [
        "Requests are not limited while they cannot be counted: gone",
        "Requests can be counted again and are limited",
    ]


def test_of_two_limits_the_one_that_is_passed_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """`4/hour,3/second`: what is left is told of the second, until the hour's four are used up."""
    now_s = [1000.0]
    monkeypatch.setattr("statsapi.api.ratelimits.time.time", lambda: now_s[0])
    settings = Settings(
        journal="memory://", rate_limit="4/hour,3/second", rate_limit_storage=f"sqlite+limits:///{tmp_path}/limits"
    )
    app = create_app(settings, clock_us=clock, background=False)
    client = app.test_client()
    told = []
    for _ in range(2):
        for _ in range(3):
            answer = client.get("/")
            policy, standing = (answer.headers[name].removeprefix('"default";') for name in _TELLING)
            told.append((answer.status_code, policy, standing, answer.headers.get("Retry-After")))
        now_s[0] += 1.5
    assert told == [
        (200, "q=3;w=1", "r=2;t=1", None),
        (200, "q=3;w=1", "r=1;t=1", None),
        (200, "q=3;w=1", "r=0;t=1", None),
        (200, "q=3;w=1", "r=2;t=1", None),
        (429, "q=4;w=3600", "r=0;t=3599", "3599"),
        (429, "q=4;w=3600", "r=0;t=3599", "3599"),
    ]
    assert storage_of(app).get("LIMITER/address:127.0.0.1/statsapi/4/1/hour") == 6


@pytest.mark.parametrize("storage", ["memory://", "sqlite+limits:///{}/limits"])
def test_a_clock_that_was_ahead_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, storage: str
) -> None:
    """What was counted meanwhile is forgotten when the clock is right again; a step back of less than a second, as
    between requests that wait for each other, forgets nothing.
    """
    now_s = [1_000.0]
    monkeypatch.setattr("statsapi.api.ratelimits.time.time", lambda: now_s[0])
    settings = Settings(journal="memory://", rate_limit="2/minute", rate_limit_storage=storage.format(tmp_path))
    client = create_app(settings, clock_us=clock, background=False).test_client()

    def ask(at_s: float) -> tuple[int, str]:
        now_s[0] = at_s
        answer = client.get("/")
        return answer.status_code, answer.headers["RateLimit"].removeprefix('"default";')

    far_s = 80 * 365 * 86_400.0
    assert [ask(far_s), ask(far_s), ask(far_s - 0.9)] == [(200, "r=1;t=60"), (200, "r=0;t=60"), (429, "r=0;t=61")]
    assert [ask(1_000), ask(1_000), ask(1_001)] == [(200, "r=1;t=60"), (200, "r=0;t=60"), (429, "r=0;t=59")]
    assert ask(1_061) == (200, "r=1;t=60")


def test_what_is_not_there_counts_too(clock: FakeClock) -> None:
    """A 404 and a 405 cost as much as others: who looks for paths is limited."""
    app = create_app(Settings(journal="memory://", rate_limit="2/minute"), clock_us=clock, background=False)
    client = app.test_client()
    answers = [client.get("/wp-login.php"), client.put("/event"), client.get("/.env"), client.get("/")]
    assert [answer.status_code for answer in answers] == [404, 405, 429, 429]


def test_the_setting_is_checked() -> None:
    """A wrong limit or storage URL is refused at the start, without showing a password."""
    with pytest.raises(ConfigError, match="100/minute"):
        Settings.from_env({"STATSAPI_RATE_LIMIT": "often"})
    for storage in ("redis://u:geheim@host:x/0", "rediss://:geheim@[::1", "memcached://:geheim@host", "host:6379"):
        with pytest.raises(
            ConfigError, match=r"STATSAPI_RATE_LIMIT_STORAGE=.*(must be redis://|is not an address)"
        ) as caught:
            Settings.from_env({"STATSAPI_RATE_LIMIT_STORAGE": storage})
        assert "geheim" not in str(caught.value)
    settings = Settings.from_env({"STATSAPI_RATE_LIMIT_STORAGE": "redis://:geheim@host"})
    assert settings.rate_limit_storage == "redis://:geheim@host"
    assert "geheim" not in repr(settings)


@pytest.mark.parametrize("journal", ["redis+sentinel://host/mymaster", "rediss+cluster://host"])
def test_no_limit_is_counted_behind_sentinel_or_in_a_cluster(journal: str) -> None:
    """It is said at start, with every other fault, and what to do."""
    environ = {"STATSAPI_JOURNAL": journal, "STATSAPI_RATE_LIMIT": "9/minute", "STATSAPI_WINDOW": "soon"}
    with pytest.raises(ConfigError, match="STATSAPI_RATE_LIMIT_STORAGE=redis://host:port/db") as caught:
        Settings.from_env(environ)
    assert len(caught.value.faults) == 2
    del environ["STATSAPI_WINDOW"]
    with pytest.raises(ConfigError, match="STATSAPI_RATE_LIMIT_STORAGE=redis://host:port/db"):
        Settings.from_env(environ)
    Settings.from_env(environ | {"STATSAPI_RATE_LIMIT_STORAGE": "redis://other"})


def test_counters_expire_and_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter begins anew when its time is over, and what has expired leaves the file."""
    now_s = [1000.0]
    monkeypatch.setattr("statsapi.api.ratelimits.time.time", lambda: now_s[0])
    monkeypatch.setattr("statsapi.api.limit_storage._SWEEP_EVERY", 5)
    storage = SqliteStorage(f"sqlite+limits:///{tmp_path}/limits")
    assert [storage.incr("a", 60), storage.incr("a", 60), storage.incr("b", 60)] == [1, 2, 1]
    assert (storage.get("a"), storage.get_expiry("a")) == (2, 1060.0)
    now_s[0] = 1060.0
    assert storage.get("a") == 0
    assert storage.incr("a", 60) == 1
    storage.incr("c", 60)
    assert storage.reset() == 2  # b was swept
    storage.incr("a", 60)
    storage.clear("a")
    assert storage.get("a") == 0
    assert storage.check()
