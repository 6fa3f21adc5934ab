"""Recording events, and finding out why one does not show."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from statsapi.api.requests import load_json, load_query, service
from statsapi.api.schemas import DebugQuery, EventSchema
from statsapi.model import EventBatch
from statsapi.times import MINUTE_US, format_timestamp

blueprint = Blueprint("events", __name__)

_EVENT = EventSchema()
_DEBUG_QUERY = DebugQuery()


@blueprint.post("/event")
def post_event() -> dict[str, Any]:
    """Record one event: 200 once it is in the journal."""
    event = load_json(_EVENT)
    recorded = service().record(EventBatch.single(event["series"], event["timestamp"], event["value"]))
    return {
        "status": "success",
        "message": (
            "Event is older than everything kept and counts in no window (expired)"
            if recorded.expired
            else "Event stored successfully"
        ),
        "received_timestamp": format_timestamp(event["timestamp"]),
        "server_time": format_timestamp(recorded.now_us),
    }


@blueprint.get("/debug/events")
def debug_events() -> dict[str, Any]:
    """The raw events held and the late arrivals remembered, newest first."""
    query = load_query(_DEBUG_QUERY)
    now_us, held = service().held_events(query["series"], query["limit"], late_only=query["late"])
    cutoff_us = now_us - service().settings.window_us
    return {
        "current_time": format_timestamp(now_us),
        "cutoff_time": format_timestamp(cutoff_us),
        "total_events": held.total,
        "events": [
            {
                "timestamp": format_timestamp(ts_us),
                "value": value,
                "is_recent": ts_us >= cutoff_us,
                "age_minutes": round((now_us - ts_us) / MINUTE_US, 3),
            }
            for ts_us, value in held.events
        ],
    }
