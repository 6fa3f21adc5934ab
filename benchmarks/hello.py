"""The ceilings: a bare Flask application whose answers are as long as those of statsapi, and the same without Flask.

    gunicorn -c gunicorn.conf.py benchmarks.hello:app
    gunicorn -c gunicorn.conf.py benchmarks.hello:bare

Nothing is behind them. Whatever the first reaches under the same Gunicorn settings is what Gunicorn and Flask leave
for statsapi to lose; the second is what Gunicorn leaves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

app = Flask(__name__)

_RECORDED = {
    "status": "success",
    "message": "Event stored successfully",
    "received_timestamp": "2025-11-21T07:45:00.123456+00:00",
    "server_time": "2025-11-21T07:45:00.234567+00:00",
}
_STATISTICS = {"count": 12345, "min": 1.25, "max": 999999.25, "mean": 499999.1234567}


@app.post("/event")
def record() -> dict[str, str]:
    return _RECORDED


@app.get("/statistics")
def statistics() -> dict[str, float]:
    return _STATISTICS


@app.get("/")
def index() -> dict[str, str]:
    return {"message": "hello"}


_RECORDED_BODY, _STATISTICS_BODY = (
    json.dumps(each, separators=(",", ":")).encode() for each in (_RECORDED, _STATISTICS)
)


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI callable that reads the body and says the same."""
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read()
        body = _RECORDED_BODY
    else:
        body = _STATISTICS_BODY
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
