"""Recording events, exporting them, and finding out why an event does not show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import msgspec
import numpy as np
from flask import Response, request
from marshmallow import ValidationError
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import NotAcceptable

from statsapi.api import decoding, notes, observing
from statsapi.api.bodies import load_json, read_body, require_json
from statsapi.api.body_text import EVENT_MAX_BYTES
from statsapi.api.choosing import selection_of
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.api.field_kinds import dump_cursor
from statsapi.api.incoming import ask, idempotency_key, json_reply, load_query, service
from statsapi.api.questions import ExportQuery
from statsapi.api.schemas import (
    BatchQuery,
    DebugQuery,
    EventSchema,
    RecordQuery,
    span_edges,
)
from statsapi.config import Settings
from statsapi.engine.placement import RECENT
from statsapi.errors import InvalidRequest, echo
from statsapi.model import MINUTE_US, EventBatch, IdempotencyKey, TimestampsUs, Values
from statsapi.naming.names import split_name
from statsapi.service.admission import Recorded
from statsapi.service.reading import Page
from statsapi.service.service import Reply
from statsapi.times import format_timestamp

_EVENT = EventSchema()
_RECORD_QUERY = RecordQuery()
_BATCH_QUERY = BatchQuery()
_DEBUG_QUERY = DebugQuery()
_EXPORT_QUERY = ExportQuery()

_MEDIA_TYPES = {"application/json": "json", **dict.fromkeys(decoding.NDJSON_TYPES, "ndjson"), decoding.CSV_TYPE: "csv"}
_LINES_TYPE = "text/plain; charset=utf-8"  # line protocol has no media type, so Accept cannot name it

# One row of an export. The batch endpoint reads these forms fastest, and repr() preserves a float to the last bit.
_ROWS = {
    "csv": "{}Z,{!r},{}\n",
    "ndjson": '{{"timestamp":"{}Z","value":{!r},"series":{}}}\n',
    "influx": "{2} value={1!r} {0}000\n",
}


# A dry run lists this many series, and says how many there are.
SERIES_SHOWN_MAX = 100


def recording(
    *,
    alone: int,
    most_bytes: int | None = None,
    answer: Callable[[Reply], Response] = json_reply,
    is_recorded: Callable[[], bool] = lambda: True,
) -> Callable[[Callable[..., Reply]], Callable[..., Response]]:
    """Make a route of a function that records a body under its idempotency key. It gets the path's parameters as well.

    A known key returns its first answer before the body is parsed. The events of an invalid request are counted as
    rejected: `alone` of them, unless the refusal has their number. The body may have at most `most_bytes`, and at most
    what the settings allow. answer: turns the reply into the response. is_recorded: whether this request records
    anything; where it does not (a dry run), its key is ignored.
    """

    def decorate(record: Callable[..., Reply]) -> Callable[..., Response]:
        @wraps(record)
        def recorded(**path: str) -> Response:
            recorder = service()
            limit_bytes = recorder.settings.max_body_bytes
            try:
                body = read_body(limit_bytes if most_bytes is None else min(most_bytes, limit_bytes))
                key = idempotency_key(body) if is_recorded() else None
                known = None if key is None else recorder.find_answer(key)
                reply = record(body, key, **path) if known is None else known
            except ValidationError:
                observing.reject(alone)
                raise
            except InvalidRequest as error:
                observing.reject(alone if error.rejected is None else error.rejected)
                raise
            del body
            recorder.keep_pace(reply)
            response = answer(reply)
            if reply.replayed:
                response.headers["Idempotent-Replayed"] = "true"
            return response

        return recorded

    return decorate


@recording(alone=1, most_bytes=EVENT_MAX_BYTES)
def post_event(body: bytes, key: IdempotencyKey | None) -> Reply:
    """Record one event: 200 once it is in the journal."""
    recorder = service()
    settings = recorder.settings
    query = load_query(_RECORD_QUERY)
    require_json(body)
    event = decoding.decode_one(body) or load_json(body, _EVENT)

    def answer(recorded: Recorded) -> bytes:
        message = notes.STORED
        if recorded.placed is not RECENT or recorded.duplicates:
            written = json.loads(body)["timestamp"]
            message = notes.event_message(recorded, event["timestamp"], written, settings)
        return _line(
            {
                "status": "success",
                "message": message,
                "received_timestamp": format_timestamp(event["timestamp"]),
                "server_time": format_timestamp(recorded.now_us),
            }
        )

    batch = EventBatch.single(event["series"], event["timestamp"], event["value"])
    reject_expired = query["expired"] == "reject"
    dedup = dedup_of(query, settings)
    return recorder.record(batch, answer, key=key, dedup=dedup, reject_expired=reject_expired)


def _is_no_dry_run() -> bool:
    return "dry_run" not in request.environ.get("QUERY_STRING", "") or not load_query(_BATCH_QUERY)["dry_run"]


@recording(alone=0, is_recorded=_is_no_dry_run)
def post_events(body: bytes, key: IdempotencyKey | None) -> Reply:
    """Record many events as one record: all of them or none; with ?partial=true, all valid ones."""
    recorder = service()
    settings = recorder.settings
    query = load_query(_BATCH_QUERY)
    dedup, reject_expired = dedup_of(query, settings), query["expired"] == "reject"
    mapping = ColumnMapping.of_parameters(query)
    shift_us = query["shift"]
    accepted = recorder.accepted(reject_expired=reject_expired, dedup=dedup)
    try:
        decoded = decoding.decode(
            body,
            request.mimetype,
            max_events=settings.max_batch_events,
            accepted=accepted.before_shift(shift_us) if shift_us else accepted,
            mapping=mapping,
        )
    except ValidationError as error:
        raise ValidationError(decoding.with_query(error.messages, body, request.mimetype, mapping)) from None
    if shift_us:
        decoded = decoded.shifted(shift_us)
    if query["dry_run"]:
        recorded = recorder.foresee(decoded.batch, dedup=dedup, reject_expired=reject_expired)
        if decoded.errors:
            _add_proposal(decoded, body, mapping)
        return Reply(_line(_foreseen(recorded, decoded, query["partial_"], settings)), replayed=False)
    if decoded.rejected and not query["partial_"]:
        _add_proposal(decoded, body, mapping)
        raise InvalidRequest(decoded.errors, rejected=decoded.rejected)

    def answer(recorded: Recorded) -> bytes:
        told = _told(recorded, decoded, "success")
        if decoded.errors:
            told["errors"] = decoded.errors
        return _line(told | notes.batch_notes(recorded, decoded, settings))

    reply = recorder.record(decoded.batch, answer, key=key, dedup=dedup, reject_expired=reject_expired)
    if decoded.rejected and not reply.replayed:
        observing.reject(decoded.rejected)
    return reply


def _add_proposal(decoded: decoding.Decoded, body: bytes, mapping: ColumnMapping | None) -> None:
    """Add to the first fault the query that would read the body as it is, if there is one."""
    first = decoded.errors[0]
    first["reason"] += decoding.proposed(body, request.mimetype, mapping, first["reason"])


def _told(recorded: Recorded, decoded: decoding.Decoded, status: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "status": status,
        "stored": recorded.stored,
        "duplicates": recorded.duplicates,
        "expired": recorded.expired,
        "rejected": decoded.rejected,
    }
    if decoded.empty:
        told["empty"] = decoded.empty
    if decoded.mapping is not None:
        told["read_as"] = decoded.mapping.query()
    return told


def _foreseen(recorded: Recorded, decoded: decoding.Decoded, partial: bool, settings: Settings) -> dict[str, Any]:
    """The answer to a dry run: what recording would answer, and the content of the batch. Without ?partial=true one
    fault means that nothing would be recorded.
    """
    told = _told(recorded, decoded, "dry_run")
    kept = partial or not decoded.rejected
    if not kept:
        told["stored"] = told["duplicates"] = told["expired"] = 0
    parts = decoded.batch.parts
    told["rows"] = decoded.rows
    told["first"] = format_timestamp(min(int(part.ts_us.min()) for part in parts)) if parts else None
    told["last"] = format_timestamp(max(int(part.ts_us.max()) for part in parts)) if parts else None
    told["series"] = [
        {
            "name": series,
            "events": len(ts_us),
            "first": format_timestamp(int(ts_us.min())),
            "last": format_timestamp(int(ts_us.max())),
        }
        for series, ts_us, _ in parts[:SERIES_SHOWN_MAX]
    ]
    if len(parts) > SERIES_SHOWN_MAX:
        told["series_total"] = len(parts)
    told["errors"] = decoded.errors
    return told | notes.batch_notes(recorded, decoded, settings) if kept else told


def dedup_of(query: dict[str, Any], settings: Settings) -> bool:
    """Whether a recording leaves out duplicates: as ?dedup says, else as the settings do."""
    asked: bool | None = query["dedup"]
    return settings.dedup if asked is None else asked


def _line(answer: dict[str, Any]) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


def get_events() -> Response:
    """The raw events of a range, of chosen series or all: streamed as CSV or NDJSON, or in pages as JSON.

    A stream is a snapshot: events recorded after the request began are not in it. Series are ordered by name, the
    events of a series by time, then by arrival.
    """
    query = load_query(_EXPORT_QUERY)
    selection = selection_of(query)
    form = query.get("format") or _accepted_form()
    reading = ask()
    span = reading.spans.of_raw_events(*span_edges(query, reading.now_us))
    cursor = query.get("cursor")
    if form == "json":
        if cursor and not selection.matches(cursor.series):
            raise ValidationError(
                {"cursor": [f"goes on in series {cursor.series}, which is not one of those asked for"]}
            )
        page = reading.page(selection, span, query.get("limit", 1000), cursor)
        return Response(_line(_dump_page(page)), mimetype="application/json", headers={"Vary": "Accept"})
    if paged := [name for name in ("limit", "cursor") if name in query]:
        raise ValidationError({name: [f"is for pages of JSON; {form} comes as one stream"] for name in paged})
    named = [(_written(name, form), columns) for name, columns in reading.stream(selection, span)]
    media_type = next((media_type for media_type, name in _MEDIA_TYPES.items() if name == form), _LINES_TYPE)
    return Response(_stream(named, form), content_type=media_type, headers={"Vary": "Accept"})


def _accepted_form() -> str:
    """The form that Accept prefers; JSON where it has no preference. Parameters (charset=utf-8) are ignored."""
    accepted = [(media_type.partition(";")[0], quality) for media_type, quality in request.accept_mimetypes]
    best = MIMEAccept(accepted).best_match(_MEDIA_TYPES) if accepted else "application/json"
    if best is None:
        raise NotAcceptable(f"Events come as {', '.join(_MEDIA_TYPES)}.")
    return _MEDIA_TYPES[best]


def _stream(named: list[tuple[str, Iterator[tuple[TimestampsUs, Values]]]], form: str) -> Iterator[bytes]:
    """The rows, some 16,000 at a time, at 0.8 µs a row. named: (the series as this form writes it, its columns)."""
    row = _ROWS[form].format
    if form == "csv":
        yield b"timestamp,value,series\n"
    for series, columns in named:
        for ts_us, values in columns:
            stamps = (ts_us if form == "influx" else np.datetime_as_string(ts_us.view("M8[us]"))).tolist()
            yield "".join([row(ts, value, series) for ts, value in zip(stamps, values.tolist(), strict=True)]).encode()


def _written(name: str, form: str) -> str:
    """The series' name as a row of that form holds it. ValidationError where the form cannot hold it."""
    if form == "csv":
        return _csv_field(name)
    return _line_series(name) if form == "influx" else msgspec.json.encode(name).decode()


_IN_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ "})
_IN_TAG = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})


def _line_series(name: str) -> str:
    """The measurement and tags of line protocol that POST /write would turn into this name."""
    base, tags = split_name(name)
    if base[0] == "#" or any(text.endswith("\\") for text in (base, *tags, *tags.values())):
        what = f"cannot hold the series {echo(name)!r}: nothing may begin with # or end with a backslash there"
        raise ValidationError({"format": [f"influx {what}; csv can"]})
    parts = (f",{key.translate(_IN_TAG)}={value.translate(_IN_TAG)}" for key, value in tags.items())
    return base.translate(_IN_MEASUREMENT) + "".join(parts)


def _csv_field(name: str) -> str:
    """The name, quoted where it holds a delimiter, a line end or quotes."""
    return '"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name


def _dump_page(page: Page) -> dict[str, Any]:
    return {
        "events": [
            {"timestamp": format_timestamp(ts_us), "value": value, "series": name} for name, ts_us, value in page.events
        ],
        "next": page.next and dump_cursor(page.next),
    }


def debug_events() -> dict[str, Any]:
    """The raw events held and the late arrivals remembered, newest first."""
    query = load_query(_DEBUG_QUERY)
    reading = ask()
    held = reading.held(query["series"], query["limit"], late_only=query["late"])
    now_us = reading.now_us
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
