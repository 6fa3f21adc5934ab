"""The formats of log lines. Plain is Gunicorn's own format; JSON is one object a line, tracebacks included. In both, a
line logged during a request carries the request's id, and anything that looks like an API key is cut out. Both are done
when a line is written: a request that logs nothing pays nothing.

They are formatters of the standard library. python-json-logger offers more (renaming, encoders), which is not needed.
"""

from __future__ import annotations

import copy
import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from flask import has_request_context, request

from statsapi.errors import one_line
from statsapi.keys import redact

REQUEST_ID: Final = "statsapi.request_id"  # its place in the WSGI environ

access = logging.getLogger("statsapi.access")
access.setLevel(logging.INFO)  # its own level, so that --log-level=warning does not silence STATSAPI_ACCESS_LOG=on


class PlainFormatter(logging.Formatter):
    """Another formatter's lines. A message of ours is one line, and a traceback follows as it is. During a request, the
    first line ends with the request_id.
    """

    def __init__(self, form: logging.Formatter | None) -> None:
        super().__init__()
        self._form = form or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if not message.isprintable() and record.name.startswith("statsapi"):  # Gunicorn's may be several lines
            record = copy.copy(record)
            record.msg, record.args = one_line(message), None
        text = self._form.format(record)
        request_id = _request_id(record)
        if request_id is not None:
            first, end, rest = text.partition("\n")
            text = f"{first} request_id={_shown(request_id)}{end}{rest}"
        return redact(text)


class JsonFormatter(logging.Formatter):
    """{"time", "level", "logger", "pid", "message", …}; during a request also its request_id."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
        }
        fields: dict[str, Any] | None = getattr(record, "fields", None)
        if fields is not None:
            line |= {"message": "request", **fields}
        else:
            line["message"] = record.getMessage()
            request_id = _request_id(record)
            if request_id is not None:
                line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line))  # pure ASCII, so that a surrogate or a Unicode line separator does no harm


def _request_id(record: logging.LogRecord) -> str | None:
    """The id of the current request; None outside a request, and for an access line, which has the id already."""
    if hasattr(record, "fields") or not has_request_context():
        return None
    request_id: str | None = request.environ.get(REQUEST_ID)
    return request_id


def note_request(fields: dict[str, Any]) -> None:
    """One line for a request, with a field for each of `fields`. 20 µs."""
    shown = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
    access.info("request %s", shown, extra={"fields": fields})


def _shown(value: Any) -> str:
    """The value, quoted unless it is one plain word: a path may hold anything, line ends too."""
    text = "-" if value is None else str(value)
    return text if text.isprintable() and text.isascii() and not set(' "=') & set(text) else json.dumps(text)
