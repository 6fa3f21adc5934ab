"""The ceiling: a bare Flask application whose answers are as long as those of statsapi, and nothing behind them.

    gunicorn -c gunicorn.conf.py benchmarks.hello:app

Whatever this reaches under the same Gunicorn settings is what Gunicorn and Flask leave for statsapi to lose.
"""

from __future__ import annotations

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
