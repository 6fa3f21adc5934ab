"""deploy/grafana: what its panels ask is answered, with the columns and metrics that they name.

Grafana itself is not to be had here. Its variables are put in as its documentation has it: ${__from} and ${__to} are
Unix time in milliseconds, ${__interval_ms} a number of milliseconds.
"""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient

from tests.fakes import FakeClock

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "dashboards").glob("*.json")}
PANELS = [
    pytest.param(name, panel, target, id=f"{name} {panel['title']} {target['refId']}")
    for name, dashboard in sorted(DASHBOARDS.items())
    for panel in dashboard["panels"]
    for target in panel["targets"]
]
INFINITY = [each for each in PANELS if each.values[0] == "statsapi-exact"]
PROMETHEUS = [each for each in PANELS if each.values[0] == "statsapi-prometheus"]


@pytest.fixture(scope="module")
def filled(shared_client: FlaskClient, shared_clock: FakeClock) -> FlaskClient:
    """An event a minute for two hours, the older half of it rolled up, in two series."""
    for minute in range(120):
        for series in ("default", "web.latency"):
            event = {"timestamp": shared_clock() / 1e6 - 60 * minute, "value": minute, "series": series}
            assert shared_client.post("/event", json=event).status_code == 200
    return shared_client


def substituted(text: str, dashboard: dict[str, Any], values: dict[str, Any]) -> str:
    """With Grafana's own variables, and the dashboard's at what they are at first."""
    own = {each["name"]: each["current"]["value"] for each in dashboard["templating"]["list"]}
    filled_in = re.sub(r"\$\{(\w+)\}", lambda found: str({**own, **values}[found[1]]), text)
    assert "$" not in filled_in
    return filled_in


@pytest.mark.parametrize(("interval_ms", "hours"), [(15_000, 1), (2_500, 0.25), (37_123, 3), (120_000, 23)])
@pytest.mark.parametrize(("name", "panel", "target"), INFINITY)
def test_what_a_panel_asks_is_answered(
    filled: FlaskClient, shared_clock: FakeClock, name: str, panel: Any, target: Any, interval_ms: int, hours: float
) -> None:
    """Each column that it shows is in the answer: numbers are numbers, times are times; at any zoom."""
    now_ms = shared_clock() // 1000
    values = {"__from": now_ms - round(hours * 3_600_000), "__to": now_ms, "__interval_ms": interval_ms}
    query = {
        each["key"]: substituted(each["value"], DASHBOARDS[name], values) for each in target["url_options"]["params"]
    }
    answer = filled.get(target["url"], query_string=query)
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows
    for column in target["columns"]:
        held = [row[column["selector"]] for row in rows]
        if column["type"] == "number":
            assert any(held)
            [float(each) for each in held if each]
        elif column["type"] == "timestamp":
            assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", each) for each in held)
    if "step" in query:
        edges = [datetime.fromisoformat(row["from"]) for row in rows]
        step_us = {(later - edge) // timedelta(microseconds=1) for edge, later in pairwise(edges)}
        resolution_us = 1 if hours <= 1 else 60_000_000
        assert step_us == {-(-interval_ms * 1000 // resolution_us) * resolution_us}
    if "count" in rows[0]:
        counted = sum(int(row["count"]) for row in rows if row["series"] == "default")
        assert abs(counted - min(120, 60 * hours)) <= 1  # the event of now is behind the end


@pytest.mark.parametrize(("name", "panel", "target"), PROMETHEUS)
def test_metrics_that_a_panel_shows_are_there(filled: FlaskClient, name: str, panel: Any, target: Any) -> None:
    """With the labels that it asks for."""
    exposed = filled.get("/metrics").text
    names = re.findall(r"statsapi_\w+", target["expr"])
    assert names
    for metric in names:
        assert re.search(rf"^{metric}(?:\{{| )", exposed, re.MULTILINE), metric
    if "$window" in target["expr"]:
        assert re.search(rf'^{names[0]}\{{series="default",window="1h"\}}', exposed, re.MULTILINE)
    for labels in re.findall(r"by \(([^)]*)\)", target["expr"]):
        (line,) = re.findall(rf"^{names[0]}\{{(.*?)\}}", exposed, re.MULTILINE)[:1]
        assert {each.strip() for each in labels.split(",")} <= set(re.findall(r"(\w+)=", line))


def test_dashboards_and_their_sources_belong_together() -> None:
    """Each names the two that are provisioned; ids differ; nothing overlaps."""
    sources = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "statsapi.yaml").read_text())["datasources"]
    known = {(each["type"], each["uid"]) for each in sources}
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "statsapi.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert len({each["uid"] for each in DASHBOARDS.values()}) == len(DASHBOARDS) == 2
    for dashboard in DASHBOARDS.values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        places: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & places
            assert at["x"] + at["w"] <= 24
            places |= cells
            for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
                assert (source["type"], source["uid"]) in known
