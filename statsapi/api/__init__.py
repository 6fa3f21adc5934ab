"""HTTP: what requests and answers look like, in Flask and marshmallow. Each endpoint loads its input, asks the service,
and dumps the answer; rules that need state or a clock are the service's. Only `app` and `server` import it.

Routes, as the table in statsapi/routes.py names them
events               recording, /events and its CSV, /debug/events
statistics           /statistics, its timeline and histogram, as JSON and in columns of CSV
check                /check
series               /series and /tags
influx               the endpoints of InfluxDB's clients
pushgateway          the endpoints of jobs that push
ops                  /, /healthz, /readyz, /metrics
dashboard            the files of the live page
openapi              /openapi.json and /docs/
openapi_operations   in it: what each endpoint takes and answers
openapi_shapes       in it: bodies and answers, and their examples

What a request says
bodies               reading and unpacking them, and the JSON of a single event
body_text            a body as text: UTF-8, JSON, and why it cannot be read
refusals             of a whole body: 400, 413, 415
decoding/            bodies of many events -> columns
schemas              what an event and a query may say
field_kinds          the kinds of their fields: what each takes, and the words of a 422 about one
questions            the queries of questions that may be about many series
choosing             series=, match=, where=, by=, order=, limit=
figures              what statistics are called, in queries, answers and columns of CSV
cures                what an unreadable body seems to be, and what to send instead
incoming             the service, the query and the Idempotency-Key of a request

What an answer says
notes                of events that were taken and do not show
tables               answers as CSV: the columns that all begin with, and what a cell may hold
problems             every error: its status and title, and the body

Around every request
application          Flask, its JSON, redirects
access               keys and scopes (401, 403), other origins
ratelimits           requests that are too many: the 429 and its words
limit_storage        where they are counted without a Redis
observing            request ids, counters, the access log, headers of every answer
logs                 how a log line looks
processes            refuses a journal in one process (memory://) with several processes
proxies              what proxies in front are believed
"""

from __future__ import annotations

from typing import Final

from flask import Flask

from statsapi.api import (
    access,
    check,
    dashboard,
    events,
    influx,
    observing,
    openapi,
    ops,
    problems,
    processes,
    proxies,
    pushgateway,
    series,
    statistics,
)
from statsapi.config import Settings
from statsapi.keys import Keys
from statsapi.routes import served
from statsapi.tokens import Tokens

# The modules whose functions the table of routes names.
_VIEWS: Final = {
    "check": check,
    "dashboard": dashboard,
    "events": events,
    "influx": influx,
    "openapi": openapi,
    "ops": ops,
    "pushgateway": pushgateway,
    "series": series,
    "statistics": statistics,
}


def register(app: Flask, settings: Settings, keys: Keys | None, tokens: Tokens | None) -> None:
    proxies.register(app, settings)
    observing.register(app)
    access.register(app, settings, keys, tokens)
    processes.register(app, settings)
    app.url_map.converters["name"] = series.NameConverter
    for route in served(settings):
        module, _, function = route.endpoint.partition(".")
        if module != openapi.docs.name:
            if module not in _VIEWS:
                raise LookupError(f"{route.endpoint}: {module} is not among _VIEWS in statsapi/api/__init__.py")
            app.add_url_rule(route.rule, route.endpoint, getattr(_VIEWS[module], function), methods=[route.method])
    app.register_blueprint(openapi.docs, url_prefix="/docs")
    problems.register(app)
