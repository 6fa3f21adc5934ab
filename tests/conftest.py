"""What many tests share: a clock that is set, an app on a memory journal, and binaries that CI must have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.times import parse_timestamp_us

NOW = "2025-11-21T07:45:00+00:00"


class FakeClock:
    """Microseconds since 1970, standing still until it is told otherwise."""

    def __init__(self, now: str = NOW) -> None:
        self.now_us = parse_timestamp_us(now)

    def __call__(self) -> int:
        return self.now_us

    def advance(self, us: int) -> None:
        self.now_us += us


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Flask]:
    """The real app on a memory journal, with no background thread: tests call keep_house() themselves."""
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    yield app
    app.extensions["statsapi"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def require_binary(*names: str) -> str:
    """The path of a program that a test starts, the first of these there is: without one the test is skipped, but CI
    must have it.
    """
    for name in names:
        if path := shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin"):
            return path
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {names[0]} installed")
    pytest.skip(f"{' or '.join(names)} is not installed")


def redis_binary() -> str:
    return require_binary("redis-server", "valkey-server")
