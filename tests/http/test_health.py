"""/healthz and /readyz: what is asked every second, by whoever starts, stops and balances the workers."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import JournalUnavailable, ViewNotReady
from statsapi.journal.memory import MemoryJournal
from statsapi.model import SECOND_US
from tests.fakes import FakeClock


def app_on(journal: Any, clock: FakeClock) -> Flask:
    return create_app(Settings(journal="memory://"), journal=lambda: journal, clock_us=clock, background=False)


def refusal(client: FlaskClient) -> tuple[str, str]:
    """The type and detail of a 503 from /readyz."""
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    return answer.json["type"].rpartition(":")[2], answer.json["detail"]


class Watched(MemoryJournal):
    """Counts the checks; `broken` is what is wrong with it."""

    checks = 0
    broken = ""

    def check_writable(self, wait_s: float = 1.0) -> None:
        self.checks += 1
        if self.broken:
            raise JournalUnavailable(self.broken)
        super().check_writable(wait_s)


def test_a_healthy_service_is_alive_and_ready(client: FlaskClient) -> None:
    """Both answer 200, and leave no record."""
    assert client.get("/healthz").json == {"status": "ok"}
    assert client.get("/readyz").json == {"status": "ready"}
    assert client.get("/statistics").json["count"] == 0


def test_a_live_process_needs_no_journal(clock: FakeClock) -> None:
    """/healthz answers where the journal cannot even be opened; /readyz says why."""

    def away() -> MemoryJournal:
        raise JournalUnavailable("the disk is away")

    app = create_app(Settings(journal="memory://"), journal=away, clock_us=clock, background=False)
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    assert refusal(client) == ("journal-unavailable", "the disk is away")
    for path in ("/readyz", "/statistics", "/debug/events"):
        assert "outcome" not in client.get(path).json, "nothing was to be recorded"
    assert client.post("/event", json={"timestamp": 1, "value": 1}).json["outcome"] == "not recorded"


def test_a_recording_that_waits_for_a_replay_in_vain_was_not_recorded(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dedup, and a deletion: both need the view. The answer did not tell what became of them."""
    view = app.extensions["statsapi"].view()
    monkeypatch.setattr(view, "catch_up", Mock(side_effect=ViewNotReady(1.0)))
    event = {"timestamp": 1, "value": 1}
    for answer in (client.post("/events?dedup=true", json=[event]), client.delete("/series/default")):
        assert answer.status_code == 503
        assert answer.json["type"].endswith(ViewNotReady.code)
        assert answer.json["outcome"] == "not recorded"
    assert "outcome" not in client.get("/statistics").json


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_fault_in_a_push_leaves_its_outcome_unknown(
    app: Flask, client: FlaskClient, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PUT too, which is what most clients of a Pushgateway send."""
    app.config["PROPAGATE_EXCEPTIONS"] = False
    journal = app.extensions["statsapi"].view().journal
    monkeypatch.setattr(journal, "append", Mock(side_effect=RuntimeError("a fault")))
    answer = client.open("/metrics/job/x", method=method, data="m 1\n")
    assert answer.status_code == 500
    assert answer.json["outcome"] == "unknown"


def test_a_finding_holds_for_a_second(clock: FakeClock) -> None:
    """However often it is asked, the journal is looked at once a second; a fault shows and goes within that."""
    journal = Watched(clock_us=clock)
    client = app_on(journal, clock).test_client()
    for _ in range(5):
        assert client.get("/readyz").status_code == 200
    assert journal.checks == 1
    journal.broken = "the disk fails"
    clock.advance(SECOND_US)
    for _ in range(5):
        assert refusal(client) == ("journal-unavailable", "the disk fails")
    assert journal.checks == 2
    journal.broken = ""
    clock.advance(-SECOND_US)  # a clock that is set back does not keep a finding alive
    assert client.get("/readyz").status_code == 200


def test_a_replay_that_goes_on_is_not_ready(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the view catches up in another thread /readyz waits a moment, then says so."""
    monkeypatch.setattr("statsapi.service.service.READY_WAIT_S", 0.01)
    app = app_on(MemoryJournal(clock_us=clock), clock)
    client, view = app.test_client(), app.extensions["statsapi"].view()
    with view._catching_up:
        code, detail = refusal(client)
    assert code == ViewNotReady.code
    assert "replaying" in detail
    clock.advance(SECOND_US)
    assert client.get("/readyz").status_code == 200


def test_a_service_that_leaves_is_not_ready_at_once(clock: FakeClock) -> None:
    """Also within the second for which the last finding holds; what comes all the same is served."""
    app = app_on(MemoryJournal(clock_us=clock), clock)
    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    app.extensions["statsapi"].leave()
    assert refusal(client)[0] == "shutting-down"
    assert client.get("/healthz").status_code == 200
    assert client.get("/statistics").status_code == 200


@pytest.mark.parametrize(
    ("trusted", "header", "told"),
    [
        (0, None, ""),
        (0, "192.0.2.1", "STATSAPI_TRUSTED_PROXIES=0 trusts no proxy"),
        (1, "192.0.2.1", ""),
        (1, "198.51.100.1, 192.0.2.1", ""),
        (2, "192.0.2.1", "STATSAPI_TRUSTED_PROXIES=2, and X-Forwarded-For names 1"),
        (2, None, ""),
        (0, " , ", ""),
    ],
)
def test_readyz_tells_proxies_that_do_not_fit(clock: FakeClock, trusted: int, header: str | None, told: str) -> None:
    """Where a request shows it: X-Forwarded-For that nobody believes, or that names fewer than are believed."""
    app = create_app(Settings(journal="memory://", trusted_proxies=trusted), clock_us=clock, background=False)
    headers = {} if header is None else {"X-Forwarded-For": header}
    answer = app.test_client().get("/readyz", headers=headers).json
    assert (told in answer["proxy"]) if told else answer == {"status": "ready"}
    app.extensions["statsapi"].close()
