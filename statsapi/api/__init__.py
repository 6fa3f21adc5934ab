"""HTTP: what requests and answers look like, in Flask and marshmallow. Each endpoint loads its input, asks the service,
and dumps the answer; rules that need state or a clock are the service's. Only `app` and `server` import this.
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
            app.add_url_rule(route.rule, route.endpoint, getattr(_VIEWS[module], function), methods=[route.method])
    app.register_blueprint(openapi.docs, url_prefix="/docs")
    problems.register(app)
