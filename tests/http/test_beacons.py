"""What navigator.sendBeacon sends: JSON as text/plain, from named origins alone, without a key."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.keys import new_key
from statsapi.times import format_timestamp
from tests.calls import assert_problem

ORIGIN = "https://shop.example"


def client_of(**given: Any) -> FlaskClient:
    settings = {"journal": "memory://", "beacon_origins": (ORIGIN, "http://localhost:3000"), **given}
    return create_app(Settings(**settings), background=False).test_client()


@pytest.fixture
def key_line() -> tuple[str, str]:
    key, entry = new_key(["admin"], "admin")
    return key, entry.line()


def beacon(client: FlaskClient, path: str = "/event", origin: str | None = ORIGIN, **options: Any) -> Any:
    event = {"timestamp": time.time(), "value": 1, "series": "vitals"}
    body = json.dumps([event] if path.startswith("/events") else event)
    headers = {"Content-Type": "text/plain;charset=UTF-8", **({"Origin": origin} if origin else {})}
    headers |= options.pop("headers", {})
    return client.open(path, **{"method": "POST", "data": body, "headers": headers, **options})


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("path", ["/event", "/events"])
@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_a_beacon_of_a_named_origin_is_recorded(key_line: tuple[str, str], path: str, origin: str, keyed: bool) -> None:
    """With keys configured and without."""
    client = client_of(api_keys=key_line[1] if keyed else None)
    assert beacon(client, path, origin).status_code == 200
    found = client.get("/statistics?series=vitals", headers={"X-API-Key": key_line[0]})
    assert found.json["count"] == 1


@pytest.mark.parametrize(
    "origin",
    [None, "null", "https://evil.example", "https://shop.example.evil", "http://shop.example", ORIGIN + ":443",
     ORIGIN + "/", "https://SHOP.example", "*", ""],
)  # fmt: skip
def test_no_other_origin_is(key_line: tuple[str, str], origin: str | None) -> None:
    """Neither a missing one nor one that looks alike: 401 with keys, and without keys text/plain is refused as ever."""
    assert beacon(client_of(api_keys=key_line[1]), origin=origin).status_code == 401
    plain = client_of(beacon_origins=None)
    assert beacon(client_of(), origin=origin).status_code == beacon(plain, origin=origin).status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("POST", "/event", {"headers": {"Content-Type": "application/json"}}),
        ("POST", "/event", {"headers": {"Content-Type": "text/plainer"}}),
        ("POST", "/events?dry_run=true", {}),
        ("POST", "/events?dedup=true", {}),
        ("POST", "/event?x", {}),
        ("POST", "/write", {}),
        ("PUT", "/metrics/job/a", {}),
        ("GET", "/statistics", {}),
        ("GET", "/debug/events", {}),
        ("DELETE", "/series/vitals", {}),
    ],
)
def test_all_else_of_that_origin_needs_a_key(
    key_line: tuple[str, str], method: str, path: str, options: dict[str, Any]
) -> None:
    """Also recordings that are no beacon, and those with a query, whose answers would tell what is held."""
    client = client_of(api_keys=key_line[1])
    assert beacon(client, path, method=method, **options).status_code == 401
    assert client.get("/statistics?series=vitals", headers={"X-API-Key": key_line[0]}).json["count"] == 0


def test_beacons_are_limited_by_address(key_line: tuple[str, str]) -> None:
    """Whatever page they are of."""
    client = client_of(api_keys=key_line[1], rate_limit="2/minute")
    assert [beacon(client).status_code for _ in range(3)] == [200, 200, 429]
    assert client.get("/statistics", headers={"X-API-Key": key_line[0]}).status_code == 200


@pytest.mark.parametrize("body", ["", "not json", "[", "{}", '{"value": 1}', "a" * 70_000, "\x00"])
def test_a_faulty_beacon_is_refused_as_other_recordings_are(body: str) -> None:
    """With the cure, never a 500; one event has the same limit."""
    client = client_of()
    answer = beacon(client, data=body)
    expected = client.post("/event", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == expected.status_code
    assert answer.json == expected.json


def test_a_key_beside_a_beacon_must_be_right(key_line: tuple[str, str]) -> None:
    """One that is not known is refused, as its sender believes to have one."""
    client = client_of(api_keys=key_line[1])
    assert beacon(client, headers={"X-API-Key": "statsapi_other"}).status_code == 401
    assert beacon(client, headers={"X-API-Key": key_line[0]}).status_code == 200


RECORDED_AS_TEXT = [
    ("/write", "m v=1"),
    ("/api/v2/write", "m v=1"),
    ("/api/v3/write_lp", "m v=1"),
    ("/metrics/job/x", "m 1\n"),
]


@pytest.mark.parametrize(("path", "body"), RECORDED_AS_TEXT)
def test_pages_of_other_sites_cannot_record_where_no_key_is_asked(path: str, body: str) -> None:
    """A browser sends text and forms at once. Own pages, named origins, and what is no browser may."""
    named = "https://app.example"
    settings = Settings(journal="memory://", cors_origins=(named,))
    client = create_app(settings, background=False).test_client()
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "text/plain; charset=utf-8", ""):
        for origin in ("http://evil.example", "null", "https://app.example.evil", "http://localhost:1"):
            refused = client.post(path, data=body, headers={"Origin": origin, "Content-Type": media_type})
            assert refused.status_code == 403, (media_type, origin)
            assert b"STATSAPI_CORS_ORIGINS" in refused.data
        for allowed in ({}, {"Origin": named}, {"Origin": "http://localhost"}):
            answer = client.post(path, data=body, headers={**allowed, "Content-Type": media_type})
            assert answer.status_code in (200, 204), (media_type, allowed)
    assert client.get("/statistics?match=*").json["count"] == 12


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/event", '{{"timestamp":"{now}","value":1}}'),
        ("/events", '[{{"timestamp":"{now}","value":1}}]'),
    ],
)
def test_nor_can_they_with_a_body_of_no_type(path: str, body: str) -> None:
    """It counts as JSON, and a browser sends it without asking first; what is no browser may send it."""
    client = create_app(Settings(journal="memory://"), background=False).test_client()
    body = body.format(now=format_timestamp(time.time_ns() // 1000))
    for origin in ("http://evil.example", "null"):
        refused = client.post(path, data=body, headers={"Origin": origin})
        assert_problem(refused, 403, "forbidden")
        text = client.post(path, data=body, headers={"Origin": origin, "Content-Type": "text/plain"})
        assert text.status_code in (403, 415)
    assert client.post(path, data=body).status_code == 200
    assert client.post(path, data=body, headers={"Origin": "http://localhost"}).status_code == 200
    assert client.get("/statistics").json["count"] == 2


def test_with_keys_the_key_alone_counts(key_line: tuple[str, str]) -> None:
    """No page of another site has one."""
    key, line = key_line
    client = create_app(Settings(journal="memory://", api_keys=line), background=False).test_client()
    headers = {"Origin": "http://evil.example", "Content-Type": "text/plain", "Authorization": f"Token {key}"}
    assert client.post("/write", data="m v=1", headers=headers).status_code == 204
    del headers["Authorization"]
    assert client.post("/write", data="m v=1", headers=headers).status_code == 401
