"""The docs name all there is: every endpoint, parameter, problem, metric and limit; and no metric that there is not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi import errors
from statsapi.exposition import ViewState, expose
from statsapi.journal import ENGINES, engine_of
from statsapi.keys import ADMIN, READ, WRITE
from statsapi.metrics import Metrics
from statsapi.routes import OPEN, ROUTES
from tests import journal_engines
from tests.calls import assert_problem, parameters_of, samples_of
from tests.examples import read
from tests.fakes import NOW, FakeClock


def described(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json
    return found


def test_every_endpoint_is_documented(app: Flask) -> None:
    """Each rule of the URL map stands in docs/api.md with its method."""
    page = read("docs/api.md")
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        if path.startswith("/docs"):
            path = "/docs/"
        for method in rule.methods - {"HEAD", "OPTIONS"} if rule.methods else ():
            assert f"`{method} {path}`" in page, f"{method} {path}"


def test_every_scope_is_documented() -> None:
    """The table of scopes in docs/access.md has the paths of the one table of routes, and no others."""
    rows = re.findall(r"^\| `?(write|admin|no key)`? \| (.+) \|$", read("docs/access.md"), re.MULTILINE)
    told = {scope: set(re.findall(r"[` ](/[^`]*)`", text)) for scope, text in rows}
    assert told == {
        name: {route.path for route in ROUTES if route.scope == scope and route.summary}
        for name, scope in (("write", WRITE), ("admin", ADMIN), ("no key", OPEN))
    }
    assert not {route.path for route in ROUTES if route.scope == READ and route.method != "GET"}


def test_every_parameter_is_documented(client: FlaskClient) -> None:
    """Of each operation, query and headers: by its name between backquotes, or as it is written in a URL."""
    description = described(client)
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            page = read("docs/influx.md" if operation["tags"] == ["For clients of InfluxDB"] else "docs/api.md")
            for parameter in parameters_of(description, operation):
                name = re.escape(parameter["name"])
                written = re.search(rf"`{name}`|`\??{name}=|[?&]{name}=|`{name}: |\{{{name}\}}", page)
                assert written, f"{parameter['name']} of {method} {path}"


def test_every_engine_is_documented() -> None:
    """Each kind of journal is named in the setting that chooses it and in the table of what a 2xx survives; and the
    suite of engines runs on it.
    """
    (setting,) = re.findall(r"^\| `STATSAPI_JOURNAL` \|.*$", read("docs/configuration.md"), re.MULTILINE)
    for kind in {engine_of(f"{scheme}://").kind for scheme in ENGINES}:
        assert f"`{kind}://" in setting, f"{kind}:// in docs/configuration.md"
        assert f"{kind}://" in read("docs/durability.md"), f"{kind}:// in docs/durability.md"
        assert kind in {name.partition("-")[0] for name in journal_engines.ENGINES}, (
            f"{kind} in tests/journal_engines.py"
        )


def test_every_problem_is_documented() -> None:
    """Each code that our errors carry, as the end of a problem's type; those of HTTP itself go by its names."""
    page = read("docs/api.md")
    kinds = [errors.StatsError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    told = {kind.code for kind in kinds if kind.__module__ == errors.__name__}  # others stay inside the service
    for code in told - {errors.ConfigError.code, errors.StatsError.code}:
        assert f"`{code}`" in page, code


def test_every_status_is_documented(client: FlaskClient) -> None:
    """Each status that the description gives has its row among the errors of docs/api.md."""
    rows = re.findall(r"^\| ([\d, ]+) \|", read("docs/api.md"), re.MULTILINE)
    listed = {status for row in rows for status in row.split(", ")}
    answered = {
        status
        for operations in described(client)["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
    }
    assert answered - {"200", "202", "204"} <= listed


def test_every_metric_is_documented() -> None:
    """docs/monitoring.md names all that a scrape may hold, and nothing else: Redis' clock and the windows among it."""
    state = ViewState(0, 0, 0, 0, 0, [], clock_skew_us=0)
    counted = Metrics()
    counted.clock(True, 0)
    counted.caught_up(1)
    text = expose(counted, state, 2, "")[0].decode()
    there = {
        name if kind != "counter" or name.endswith("_total") else f"{name}_total"
        for name, kind in re.findall(r"^# TYPE (\S+) (\w+)", text, re.MULTILINE)
    }
    there |= {name for name in ("statsapi_window_events", "statsapi_window_stddev") if name in text}
    named = set(re.findall(r"`(statsapi_\w+)`", read("docs/monitoring.md")))
    assert named == there
    samples_of(text)


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (40_001, lambda at: {"timestamp": f"Fri, 21 Nov 2025 07:45:00.{at:06} +0100", "value": 1}),
        (60_001, lambda at: [at]),
    ],
    ids=["rare timestamps", "odd items"],
)
def test_limits_of_odd_bodies_are_documented(client: FlaskClient, clock: FakeClock, count: int, rows: Any) -> None:
    """The number that the refusal names stands in the table of limits and in the description."""
    body = json.dumps([rows(at) for at in range(count)])
    detail = assert_problem(
        client.post("/events", data=body, content_type="application/json"), 413, "request-entity-too-large"
    )["detail"]
    limit = int(re.sub(r"\D", "", re.findall(r"More than ([\d,]+)", detail)[0]))
    assert f"{limit:,}" in read("docs/api.md").partition("## Limits")[2]
    assert f"{limit:,}" in described(client)["components"]["responses"]["413"]["description"]


def test_the_size_of_an_event_is_documented(client: FlaskClient) -> None:
    """64 KiB and not a byte more, as the table of limits and the description say."""

    def event(size: int) -> str:
        body = json.dumps({"timestamp": NOW, "value": 1})
        return body[:-1] + " " * (size - len(body)) + "}"

    assert client.post("/event", data=event(64 * 1024), content_type="application/json").status_code == 200
    assert client.post("/event", data=event(64 * 1024 + 1), content_type="application/json").status_code == 413
    assert "64 KiB" in read("docs/api.md").partition("## Limits")[2]
    for path in ("/event", "/events"):
        assert "64 KiB" in described(client)["paths"][path]["post"]["requestBody"]["description"]
