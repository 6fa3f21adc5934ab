"""Questions about a window."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from statsapi.api.requests import load_query, service
from statsapi.api.schemas import StatisticsQuery

blueprint = Blueprint("statistics", __name__)

_QUERY = StatisticsQuery()


@blueprint.get("/statistics")
def get_statistics() -> dict[str, Any]:
    """Count, min, max and mean of the default window, including everything acknowledged before the request."""
    summary = service().summarise(load_query(_QUERY)["series"])
    return {"count": summary.count, "min": summary.min, "max": summary.max, "mean": summary.mean}
