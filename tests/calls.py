"""Calls through Flask's test client, and what every answer is held against."""

from __future__ import annotations

import json
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.routing import Rule

from statsapi.app import create_app
from statsapi.config import Settings

CALLS = [
    ("POST", "/event", "write"),
    ("POST", "/events", "write"),
    ("GET", "/events", "read"),
    ("GET", "/statistics", "read"),
    ("GET", "/statistics/timeline?window=1h&step=1m", "read"),
    ("GET", "/statistics/histogram", "read"),
    ("GET", "/check?require=count>=0", "read"),
    ("GET", "/series", "read"),
    ("GET", "/tags", "read"),
    ("GET", "/tags/default", "read"),
    ("GET", "/metrics", "read"),
    ("DELETE", "/series/default", "admin"),
    ("DELETE", "/series?series=default", "admin"),
    ("GET", "/debug/events", "admin"),
]


def path_of(rule: Rule) -> str:
    """The path of a URL rule with {name} for each of its parameters, as Werkzeug has parsed it."""
    return "".join(f"{{{text}}}" if is_parameter else text for is_parameter, text in rule._trace).removeprefix("|")


def parameters_of(description: Any, operation: Any) -> list[dict[str, Any]]:
    """An operation's parameters, also those that it shares with others."""
    shared = description["components"]["parameters"]
    return [shared[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in operation["parameters"]]


def make_app(url: str, **settings: Any) -> Flask:
    """An app without threads of its own, over that journal."""
    return create_app(Settings(journal=url, **settings), background=False)


def count(client: FlaskClient) -> int:
    """The hour's count, from a view that has caught up with the journal."""
    response = client.get("/statistics")
    assert response.status_code == 200, response.json
    assert "Age" not in response.headers
    found: int = response.json["count"]
    return found


def post(client: FlaskClient, timestamp: Any, value: Any, **more: Any) -> Any:
    return client.post("/event", json={"timestamp": timestamp, "value": value, **more})


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Every error is application/problem+json with the five members, and its status twice the same."""
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(response.data)
    assert list(body)[:4] == ["type", "title", "status", "detail"]
    assert body["type"] == f"urn:statsapi:problem:{code}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    """Every sample of a scrape, by name and labels; none comes twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def scrape(client: FlaskClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    return samples_of(answer.text)
