"""Rate limits: exact over workers, told in headers, by address or key, and never a reason to fail."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from pathlib import Path

import pytest

from statsapi.api.ratelimits import SqliteStorage
from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import ConfigError
from tests.conftest import FakeClock
from tests.servers import gunicorn_server
from tests.test_api_seed import assert_problem


def test_the_limit_is_the_limit_on_four_workers(tmp_path: Path) -> None:
    """Of 240 requests at once on four workers exactly the 100 of STATSAPI_RATE_LIMIT=100/minute are answered."""
    statuses: Counter[int] = Counter()
    with gunicorn_server(tmp_path, workers=4, env={"STATSAPI_RATE_LIMIT": "100/minute"}) as server:
        # That the server answers was asked until it did: those were counted too.
        already = 100 - int(rate_limit_of(server.target)["r"]) - 1

        def ask() -> None:
            for _ in range(30):
                with server.client() as client:
                    statuses[client.request("GET", "/statistics")[0]] += 1

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == {200: 100 - already - 1, 429: 240 - (100 - already - 1)}
    assert already < 50


def rate_limit_of(target: str) -> dict[str, str]:
    connection = http.client.HTTPConnection(target.removeprefix("http://"))
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    connection.close()
    return dict(part.split("=") for part in response.headers["RateLimit"].split(";")[1:])


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
    """A storage that cannot be opened is said in the log; nobody is turned away for it."""
    settings = Settings(
        journal="memory://", rate_limit="1/minute", rate_limit_storage=f"sqlite+limits:///{tmp_path}/no/such/folder"
    )
    client = create_app(settings, clock_us=clock, background=False).test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 200]


def test_off_by_default(clock: FakeClock) -> None:
    """Without the setting nothing is counted and no header is added."""
    client = create_app(Settings(journal="memory://"), clock_us=clock, background=False).test_client()
    assert "RateLimit" not in client.get("/").headers


def test_the_setting_is_checked() -> None:
    """What is no limit is refused at start."""
    with pytest.raises(ConfigError, match="100/minute"):
        Settings.from_env({"STATSAPI_RATE_LIMIT": "often"})


def test_a_client_that_is_missing_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis needs a package that is not installed by itself: a refusal with the remedy, not a traceback."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install redis"):
        Settings.from_env({"STATSAPI_RATE_LIMIT_STORAGE": "redis://localhost"})


def test_counters_expire_and_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter begins anew when its time is over, and what has expired leaves the file."""
    now_s = [1000.0]
    monkeypatch.setattr("statsapi.api.ratelimits.time.time", lambda: now_s[0])
    monkeypatch.setattr("statsapi.api.ratelimits._SWEEP_EVERY", 5)
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
