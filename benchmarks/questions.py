"""What questions over many series cost from request to answer, in the process: `python -m benchmarks.questions`.

Next to a question about one series in the same run: compare ratios. It takes about a minute and 600 MB.
"""

from __future__ import annotations

import sys
import time
from urllib.parse import quote

from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.journal import wall_clock_us
from statsapi.model import EventBatch

QUESTIONS = (
    "/statistics?series=a%3Bi%3D00000",
    "/statistics?match=a*",
    "/statistics?match=a*&percentiles=50,99",
    "/statistics?match=a*&by=series&order=-mean&limit=10",
    "/statistics?match=a*&by=series&order=-p99&limit=10",
    "/statistics?match=a*&by=series&limit=10000",
    "/statistics?match=a*&by=series&limit=10000&format=csv",
    "/statistics?match=a*&by=k&order=-mean",
    "/statistics?match=a*&compare=previous&window=5m",
    "/statistics/histogram?match=a*",
    "/check?match=a*&by=series&require=mean<1e9",
)


def filled(n_series: int, n_events: int) -> Flask:
    app = create_app(Settings(journal="memory://"), background=False)
    now_us = wall_clock_us()
    for at in range(n_events):
        parts = tuple(
            part
            for i in range(n_series)
            for part in EventBatch.single(f"a;i={i:05};k={i % 10}", now_us - at * 1_000_000, float(i * at % 997)).parts
        )
        app.extensions["statsapi"].record(EventBatch(parts))
    app.test_client().get("/statistics")
    return app


def seconds(client: FlaskClient, question: str, rounds: int = 3) -> float:
    """The best of some."""
    best = float("inf")
    for _ in range(rounds):
        began_s = time.perf_counter()
        answer = client.get(quote(question, safe="/?=&*%<,"))
        best = min(best, time.perf_counter() - began_s)
        if answer.status_code != 200:
            raise SystemExit(f"{question}: {answer.text}")
    return best


def main() -> None:
    for n_series, n_events in ((1_000, 20), (10_000, 5), (100_000, 1)):
        client = filled(n_series, n_events).test_client()
        print(f"\n{n_series:,} series of {n_events} events")
        for question in QUESTIONS:
            print(f"{seconds(client, question) * 1000:10.2f} ms  {question}")


if __name__ == "__main__":
    sys.exit(main())
