"""What many tests share: a clock that is set, an app on a memory journal, and binaries that CI must have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from tests.fakes import FakeClock


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
