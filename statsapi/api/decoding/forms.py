"""The forms in which bodies carry events: the reader of each, and what a refusal says of another form or a table."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np
from marshmallow import ValidationError

from statsapi.api import cures
from statsapi.api.body_text import with_cure
from statsapi.api.decoding import csv_reader, json_reader, line_protocol, mapped, ndjson_reader, proposals
from statsapi.api.decoding.judging import Decoded, Sent, fold_text, judge, judge_table, parts_of
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.api.decoding.rows import EVENT, TAGGED_EVENT, Rows, has_tags, is_once
from statsapi.api.problems import ERRORS_NAMED_MAX
from statsapi.api.refusals import BadBody, UnsupportedForm
from statsapi.errors import echo
from statsapi.model import DEFAULT_SERIES, EventBatch
from statsapi.naming.names import PLAIN_NAME, canonical_name
from statsapi.service.admission import ANY_TIME, Accepted
from statsapi.times import parse_timestamp_us

# A query that may be proposed is tried on the first lines of a body, which may hold this many events.
_TRIED_MAX: Final = 10_000


class Form(NamedTuple):
    """How the bodies of a media type are read. cure_as: what `cures` calls the form, to tell when a body is in another.

    read_mapped: how they are read by a mapping of columns; None for a form that has no columns.
    """

    read: Callable[[bytes, int], Rows]
    cure_as: str
    read_mapped: Callable[[bytes, int, ColumnMapping], mapped.Table] | None = None


_JSON: Final = Form(json_reader.read, cures.JSON)
_NDJSON: Final = Form(ndjson_reader.read, cures.NDJSON, ndjson_reader.read_mapped)
_CSV: Final = Form(csv_reader.read, cures.CSV, csv_reader.read_mapped)

JSON_TYPE: Final = "application/json"  # and whatever ends with +json, and no media type at all
NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CSV_TYPE: Final = "text/csv"
FORMS: Final = {JSON_TYPE: _JSON, **dict.fromkeys(NDJSON_TYPES, _NDJSON), CSV_TYPE: _CSV}


def decode(
    body: bytes,
    media_type: str,
    *,
    max_events: int,
    accepted: Accepted = ANY_TIME,
    mapping: ColumnMapping | None = None,
) -> Decoded:
    """The events of a body in any of the five forms, which `media_type` and the outermost JSON value tell apart.

    With a mapping, CSV and NDJSON may have any columns. Without one, a CSV of a time and one other column is read by
    the only mapping that it can have, which the result names.

    In CSV every field is text, and a timestamp means what the same text means in JSON (statsapi.times); an empty series
    is the default one. An event whose timestamp is not `accepted` is rejected.

    0.1-0.2 µs an event (benchmarks/decoding.py), 0.5 µs where one is malformed, 8 µs for each malformed one. Raises
    BadBody for a body that cannot be read (a malformed line of NDJSON is one rejected item, not that), ValidationError
    for one that is no batch, TooLarge for more than `max_events` items, rejected ones included, and UnsupportedForm.
    """
    media_type = media_type.partition(";")[0].strip().lower()
    form = FORMS.get(JSON_TYPE if media_type == "" or media_type.endswith("+json") else media_type)
    if form is None:
        *others, last = FORMS
        refusal = f"Send events as {', '.join(others)} or {last}, not {echo(media_type)}."
        raise UnsupportedForm(with_cure(refusal, body, None))
    if mapping is not None and form.read_mapped is None:
        reason = "is for CSV and NDJSON: write each event on a line (jq -c '.[]' FILE)"
        raise ValidationError({parameter: [reason] for parameter in mapping.given()})
    if mapping is None and form is _CSV:
        mapping = proposals.understand(body)
    try:
        if mapping is not None and form.read_mapped is not None:
            decoded = judge_table(form.read_mapped(body, max_events, mapping), accepted)
        else:
            decoded = judge(form.read(body, max_events), accepted)
    except BadBody as error:
        raise BadBody(with_cure(str(error.description), body, form.cure_as)) from None
    except ValidationError:
        if found := cures.cure(body, form.cure_as):
            raise ValidationError(found) from None
        raise
    if form is _NDJSON and mapping is None and decoded.errors and decoded.errors[0]["field"] == "":
        first = decoded.errors[0]
        first["reason"] = with_cure(f"{first['reason']}.", body, form.cure_as).removesuffix(".")
    return decoded


class Lines(NamedTuple):
    """What a body of line protocol held: `decoded`, whose errors name lines; `refused`, its first lines at fault, as
    they were sent; and `strings`, how many fields were left out as they are text.
    """

    decoded: Decoded
    refused: list[line_protocol.Refused]
    strings: int


def decode_lines(body: bytes, *, unit_us: int, now_us: int, max_events: int, accepted: Accepted = ANY_TIME) -> Lines:
    """The events of a body of Influx line protocol; see line_protocol.read, also for what it raises.

    Each line that is refused counts as one rejected item. A point whose timestamp is not `accepted` is refused.
    """
    points = line_protocol.read(
        body, unit_us=unit_us, now_us=now_us, max_events=max_events, refused_max=ERRORS_NAMED_MAX
    )
    ts_us, lines, refused = points.ts_us, points.lines, points.refused
    good = np.ones(len(ts_us), np.bool_)
    rejected = points.refused_total
    if accepted is not ANY_TIME:
        good = (ts_us >= accepted.first_us) & (ts_us <= accepted.last_us)
        untimely, first = np.unique(lines[~good], return_index=True)
        rejected += len(untimely)
        named = slice(ERRORS_NAMED_MAX)
        texts = body.split(b"\n") if len(untimely) else []
        for line, ts in zip(untimely[named].tolist(), ts_us[~good][first[named]].tolist(), strict=True):
            text = echo(texts[line - 1].rstrip(b"\r").decode(errors="replace"))
            refused.append(line_protocol.Refused(line, "timestamp", accepted.why_not(ts) or "", text))
        refused = sorted(refused)[:ERRORS_NAMED_MAX]
    errors: list[dict[str, Any]] = [{"line": bad.line, "field": bad.field, "reason": bad.reason} for bad in refused]
    batch = EventBatch(parts_of(points.names, points.codes, ts_us, points.values, good))
    rows = Rows(cast(Any, ts_us), [], "", "line", lines)
    decoded = Decoded(batch, len(ts_us) + points.refused_total, rejected, errors, Sent(ts_us, good, rows))
    return Lines(decoded, refused, points.strings)


def decode_one(body: bytes) -> dict[str, Any] | None:
    """What EventSchema makes of a body that holds one event; None where that is in doubt, and the schema has to decide.

    2 µs, where json.loads and the schema take 10.
    """
    try:
        tags = b""
        try:
            event = EVENT.decode(body)  # not decode_event: each call counts here
        except msgspec.ValidationError as error:
            if not has_tags(error):
                raise
            tagged = TAGGED_EVENT.decode(body)
            event, tags = tagged, bytes(tagged.tags) if tagged.tags else b""
        series = event.series
        if series is DEFAULT_SERIES and not tags:
            once = body.count(b",") == 1 or is_once(body, event)
        else:
            once = body.count(b",") == 2 or is_once(body, event)
            series = series if PLAIN_NAME.match(series) else canonical_name(series)
            series = fold_text(series, tags) if tags else series
        if once and type(event.value) is float and isfinite(event.value):
            return {"timestamp": parse_timestamp_us(event.timestamp), "value": event.value, "series": series}
    except (ValueError, RecursionError):
        pass
    return None


def proposed(body: bytes, media_type: str, mapping: ColumnMapping | None, said: str = "") -> str:
    """The end of a sentence that refuses a body: the queries that take it; "" where none is known. A reason that was
    `said` before is left out.
    """
    form = FORMS.get(media_type.partition(";")[0].strip().lower())
    if form is None or form.read_mapped is None:
        return ""

    def try_on(sample: bytes, tried: ColumnMapping | None) -> proposals.Tried:
        decoded = decode(sample, media_type, max_events=_TRIED_MAX, mapping=tried)
        return proposals.Tried(decoded.errors, len(decoded.batch))

    found = proposals.propose(body, form is _CSV, mapping, try_on)
    return proposals.as_sentence(found, said)


def with_query(messages: Any, body: bytes, media_type: str, mapping: ColumnMapping | None) -> Any:
    """A ValidationError's messages; behind the first of them, the queries that take the body."""
    found = proposed(body, media_type, mapping)
    if not found:
        return messages
    if isinstance(messages, dict):
        first = next(iter(messages))
        return {**messages, first: _with_first(messages[first], found)}
    return _with_first(messages, found)


def _with_first(reasons: Any, found: str) -> list[str]:
    first, *others = reasons if isinstance(reasons, list) else [reasons]
    return [f"{str(first).removesuffix('.')}{found}", *others]
