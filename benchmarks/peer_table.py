"""The common first solution, as an honest peer: a table in PostgreSQL behind Flask, under the same Gunicorn.

    PEER_DATABASE=postgresql://… gunicorn -c gunicorn.conf.py benchmarks.peer_table:app

An indexed table; each POST /event is one INSERT that is committed before its answer, each GET /statistics one SELECT
with count, min, max, avg and percentile_cont over the past hour. A pool of connections, prepared statements, no schema
library. PEER_COMMIT is its synchronous_commit, so that it is as durable as the service in the comparison.
"""

from __future__ import annotations

import os
from datetime import datetime
from functools import cache
from typing import Any

import psycopg
from flask import Flask, request
from psycopg_pool import ConnectionPool

app = Flask(__name__)

TABLE = """
CREATE TABLE IF NOT EXISTS events (at timestamptz NOT NULL, value double precision NOT NULL);
CREATE INDEX IF NOT EXISTS events_at ON events (at);
"""
INSERT = "INSERT INTO events VALUES (%s, %s)"
SELECT = "SELECT count(*), min(value), max(value), avg(value) FROM events WHERE at >= now() - interval '%d seconds'"
PERCENTILE = "percentile_cont(%s) WITHIN GROUP (ORDER BY value)"
VARIANCE = "var_samp(value)"


@cache
def pool() -> ConnectionPool[psycopg.Connection[Any]]:
    """Made by the worker that uses it, after the fork."""
    options = {"autocommit": True, "options": f"-c synchronous_commit={os.environ.get('PEER_COMMIT', 'on')}"}
    return ConnectionPool(os.environ["PEER_DATABASE"], min_size=4, max_size=8, kwargs=options, open=True)


@app.post("/event")
def record() -> Any:
    body = request.get_json()
    try:
        at, value = datetime.fromisoformat(body["timestamp"]), float(body["value"])
    except (KeyError, TypeError, ValueError) as error:
        return {"error": str(error)}, 422
    with pool().connection() as connection:
        connection.execute(INSERT, (at, value), prepare=True)
    return {"status": "success"}


@app.get("/statistics")
def statistics() -> Any:
    """Statistics of the past hour, or of this many `seconds`; with the percentile in `percentiles` and the variance."""
    query, names = SELECT % request.args.get("seconds", 3600, int), ["count", "min", "max", "mean"]
    if "percentiles" in request.args:
        share = request.args.get("percentiles", 95.0, float)
        query = query.replace(" FROM", f", {PERCENTILE % (share / 100)} FROM")
        names.append(f"p{share:g}")
    if "variance" in request.args:
        query = query.replace(" FROM", f", {VARIANCE} FROM")
        names.append("variance")
    with pool().connection() as connection:
        row = connection.execute(query, prepare=True).fetchone()
    return dict(zip(names, row or (), strict=True))


@app.get("/")
def index() -> dict[str, str]:
    return {"message": "table"}
