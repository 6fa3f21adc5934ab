"""Endpoints for InfluxDB's clients and Telegraf: the three that take line protocol, /ping and /health.

Each numeric field of a point becomes one event (decoding/line_protocol.py). Database, bucket and organisation are
ignored. As in InfluxDB, the valid lines of a body are stored where others are refused, and the answer is then a 400 in
the form of that version; `accept_partial=false` stores all or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from flask import Response
from marshmallow import ValidationError, fields

from statsapi import __version__
from statsapi.api import decoding, notes, observing, problems
from statsapi.api.decoding.line_protocol import Refused
from statsapi.api.decoding.line_words import PRECISIONS_US, from_us, precision_meant
from statsapi.api.events import dedup_of, recording
from statsapi.api.field_kinds import Word
from statsapi.api.incoming import load_query, service
from statsapi.api.schemas import RecordQuery
from statsapi.errors import StatsError
from statsapi.keys import redact
from statsapi.model import IdempotencyKey
from statsapi.service.admission import Recorded
from statsapi.service.service import Reply

VERSION: Final = f"statsapi-{__version__}"

STORED_HEADER: Final = "X-Statsapi-Stored"
DUPLICATES_HEADER: Final = "X-Statsapi-Duplicates"
STRINGS_HEADER: Final = "X-Statsapi-Ignored-Strings"
MESSAGE_HEADER: Final = "X-Statsapi-Message"

# -- the query -----------------------------------------------------------------------------------------------------


def _check_precision(word: str) -> None:
    """A function instead of OneOf, as the API's description would list all seventeen words for each endpoint."""
    if word and word not in PRECISIONS_US:
        raise ValidationError("must be ns, us, ms, s, m, h or auto")


def _precision(default: str) -> fields.String:
    return fields.String(
        load_default=default,
        validate=_check_precision,
        metadata={"description": "of the timestamps: ns, us, ms, s, m, h, or auto, by their size"},
    )


def _ignored(**options: Any) -> fields.String:
    return fields.String(metadata={"description": "not looked at"}, **options)


class WriteQuery(RecordQuery):
    """The parameters of all clients together, as clients send unneeded ones too: that of 3 sends `org` everywhere."""

    expired = Word(
        "accept",
        "reject",
        load_default="accept",
        metadata={"description": "as for POST /events"},
    )
    precision = _precision("ns")
    accept_partial = fields.Boolean(
        load_default=True,
        metadata={"description": "store the good lines where others are refused; false: all or nothing"},
    )
    u = fields.String(metadata={"description": "the user: not looked at"})
    p = fields.String(metadata={"description": "the password: an API key"})
    db = _ignored()
    rp = _ignored()
    consistency = _ignored()
    bucket = _ignored()
    org = _ignored()
    org_id = _ignored(data_key="orgID")
    no_sync = _ignored()


class WriteQueryV3(WriteQuery):
    precision = _precision("auto")


_QUERIES: Final = {"write_v1": WriteQuery(), "write_v2": WriteQuery(), "write_v3": WriteQueryV3()}

# -- answers -------------------------------------------------------------------------------------------------------


class _Outcome(msgspec.Struct, array_like=True):
    """The outcome of a write. It is kept under the idempotency key, and the answer is made from it."""

    stored: int
    duplicates: int
    rejected: int
    strings: int
    message: str
    refused: list[Refused]


def _said(outcome: _Outcome) -> list[str]:
    """A sentence for each refused line that is listed."""
    found = []
    for bad in outcome.refused:
        of = f"field {bad.field} " if bad.field not in ("", "timestamp", "tags", "series") else ""
        of = of or (f"{bad.field} " if bad.field else "")
        found.append(f"line {bad.line}: {of}{bad.reason}")
    return found


class _Shape(NamedTuple):
    """The form of an InfluxDB version's errors: `error` and `message` are the members that hold the text."""

    code: bool
    text: str

    def body(self, status: int, text: str, **members: Any) -> bytes:
        told: dict[str, Any] = {"code": _CODES.get(status, "internal error")} if self.code else {}
        return redact(msgspec.json.encode(told | {self.text: text} | members).decode()).encode() + b"\n"


_CODES: Final = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    413: "request too large",
    415: "unsupported media type",
    422: "unprocessable entity",
    429: "too many requests",
    503: "unavailable",
    507: "unavailable",
}
_V1: Final = _Shape(code=False, text="error")
_V2: Final = _Shape(code=True, text="message")
_V3: Final = _Shape(code=False, text="error")
_SHAPES: Final = {"write_v1": _V1, "write_v2": _V2, "write_v3": _V3}


def _shaped(shape: _Shape) -> problems.Shape:
    """Any problem in the form of that version, which answers 400 for an invalid request."""

    def respond(
        status: int, code: str, detail: str, headers: Mapping[str, str] | None, members: dict[str, Any]
    ) -> Response:
        status = 400 if code == "validation" else status
        kept = {name: value for name, value in members.items() if name == "outcome"}
        response = Response(shape.body(status, detail, **kept), status, mimetype="application/json")
        response.headers.update(headers or {})
        return response

    return respond


problems.SHAPES.update({f"influx.{door}": _shaped(shape) for door, shape in _SHAPES.items()})


def _answer(door: str, reply: Reply) -> Response:
    outcome = msgspec.json.decode(reply.body, type=_Outcome)
    if outcome.rejected:
        response = Response(_refusal(door, outcome), 400, mimetype="application/json")
    else:
        response = Response(status=204)
        del response.headers["Content-Type"]
    response.headers[STORED_HEADER] = str(outcome.stored)
    if outcome.duplicates:
        response.headers[DUPLICATES_HEADER] = str(outcome.duplicates)
    if outcome.strings:
        response.headers[STRINGS_HEADER] = str(outcome.strings)
    if outcome.message:
        response.headers[MESSAGE_HEADER] = outcome.message.encode("ascii", "replace").decode()
    return response


def _refusal(door: str, outcome: _Outcome) -> bytes:
    """The body of a refusal. By the words `partial write` and `unable to parse` Telegraf knows not to send it again."""
    said = _said(outcome)
    more = outcome.rejected - len({bad.line for bad in outcome.refused})
    rest = [f"and {more} more lines"] if more else []
    if door == "write_v3":
        kept = "partial write of line protocol occurred" if outcome.stored else "parsing failed for write_lp endpoint"
        data = [
            {"original_line": bad.text, "line_number": bad.line, "error_message": reason.partition(": ")[2]}
            for bad, reason in zip(outcome.refused, said, strict=True)
        ]
        return _V3.body(400, kept, data=data)
    if door == "write_v2":
        kept = "nothing was stored"
        if outcome.stored:
            kept = f"partial write, {outcome.stored} event{'s' if outcome.stored > 1 else ''} stored"
        text = f"unable to parse ({kept}): " + "; ".join(said + rest)
        return _V2.body(400, text, line=outcome.refused[0].line)
    parts = [f"unable to parse '{bad.text}': {reason}" for bad, reason in zip(outcome.refused, said, strict=True)]
    text = "\n".join(parts + rest)
    return _V1.body(400, f"partial write: {text} dropped={outcome.rejected}" if outcome.stored else text)


# -- writing -------------------------------------------------------------------------------------------------------


def _write(door: str, body: bytes, key: IdempotencyKey | None) -> Reply:
    recorder = service()
    settings = recorder.settings
    query = load_query(_QUERIES[door])
    dedup, reject_expired = dedup_of(query, settings), query["expired"] == "reject"
    unit_us = PRECISIONS_US[query["precision"] or _QUERIES[door].fields["precision"].load_default]
    lines = decoding.decode_lines(
        body,
        unit_us=unit_us,
        now_us=recorder.now_us(),
        max_events=settings.max_batch_events,
        accepted=recorder.accepted(reject_expired=reject_expired, dedup=dedup),
    )
    decoded = lines.decoded
    if decoded.rejected and not (query["accept_partial"] and len(decoded.batch)):
        observing.reject(decoded.rejected)
        return Reply(msgspec.json.encode(_Outcome(0, 0, decoded.rejected, 0, "", lines.refused)), replayed=False)

    def answer(recorded: Recorded) -> bytes:
        noted = notes.batch_notes(recorded, decoded, settings).get("message", "")
        if noted and (meant := _precision_meant(decoded, unit_us)):
            noted = f"{noted.partition('; ')[0]}; they look like {meant}, so write with precision={meant}."
        outcome = _Outcome(recorded.stored, recorded.duplicates, decoded.rejected, lines.strings, noted, lines.refused)
        return msgspec.json.encode(outcome)

    reply = recorder.record(decoded.batch, answer, key=key, dedup=dedup, reject_expired=reject_expired)
    if not reply.replayed:
        if decoded.rejected:
            observing.reject(decoded.rejected)
        if lines.strings:
            recorder.metrics.ignored(lines.strings)
    return reply


def _precision_meant(decoded: decoding.Decoded, unit_us: int) -> str | None:
    """A precision that would put the first and the last event into this century, where the given one does not."""
    times = decoded.sent.ts_us[decoded.sent.good]
    first, last = (precision_meant(from_us(int(ts_us), unit_us), unit_us) for ts_us in (times.min(), times.max()))
    return first if first == last else None


@recording(alone=0, answer=lambda reply: _answer("write_v1", reply))
def write_v1(body: bytes, key: IdempotencyKey | None) -> Reply:
    """POST /write of InfluxDB 1.x."""
    return _write("write_v1", body, key)


@recording(alone=0, answer=lambda reply: _answer("write_v2", reply))
def write_v2(body: bytes, key: IdempotencyKey | None) -> Reply:
    """POST /api/v2/write of InfluxDB 2."""
    return _write("write_v2", body, key)


@recording(alone=0, answer=lambda reply: _answer("write_v3", reply))
def write_v3(body: bytes, key: IdempotencyKey | None) -> Reply:
    """POST /api/v3/write_lp of InfluxDB 3."""
    return _write("write_v3", body, key)


# -- what clients ask before they write ----------------------------------------------------------------------------


def ping() -> Response:
    """204 with the version in a header: clients ask it whether the server runs."""
    response = Response(status=204, headers={"X-Influxdb-Version": VERSION, "X-Influxdb-Build": "statsapi"})
    del response.headers["Content-Type"]
    return response


def health() -> tuple[dict[str, Any], int]:
    """/readyz in the words of InfluxDB 2: `status` is pass or fail."""
    told = {"name": "statsapi", "message": "ready for writes", "status": "pass", "checks": [], "version": VERSION}
    try:
        service().check_ready()
    except StatsError as error:
        return told | {"message": str(error), "status": "fail"}, 503
    return told, 200
