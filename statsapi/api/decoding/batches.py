"""Many events in one body -> an EventBatch, and the name of every item that was refused; one event, fast.

Five forms carry the same items: a JSON array, `{"events": […]}`, JSON columns, NDJSON and CSV. What a single event may
say is EventSchema's to decide, here too, but at 5-8 µs an item it would cost thirty times more than all the rest. So:

    body ── msgspec, split ──> columns as written ── numpy ──> columns ──> parts by series
                                        │                         ▲
                                        └── rows in doubt ── EventSchema, one by one: taken, or named

The fast way takes only what the schema takes and yields the same bits; whatever it is unsure of (a `24:00:00`, a null,
a name out of the alphabet) goes to the schema, row by row, so one odd row does not slow its ten thousand neighbours.
tests/unit/test_batches.py holds the two against each other; benchmarks/decoding.py measures them.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from statsapi.api import cures
from statsapi.api.decoding.elements import TooDeep, TooMany, Unclosed, find_elements
from statsapi.api.incoming import EVENT_MAX_BYTES, why_not_json, why_not_utf8, with_cure
from statsapi.api.problems import ERRORS_NAMED_MAX
from statsapi.api.schemas import SERIES_NAME, EventSchema
from statsapi.errors import echo
from statsapi.model import DEFAULT_SERIES, MAX_TS_US, MIN_TS_US, EventBatch, Part, TimestampsUs, Values
from statsapi.service.admission import ANY_TIME, Accepted
from statsapi.times import (
    DAY_US,
    MICROSECONDS_BEYOND,
    MILLISECONDS_BEYOND,
    MINUTE_US,
    NANOSECONDS_BEYOND,
    SECOND_US,
    parse_timestamp_us,
    read_iso_us,
)

NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
CSV_TYPE: Final = "text/csv"

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Mask = NDArray[np.bool_]


class Sent(NamedTuple):
    """The rows in the order they were sent, for whoever has to tell the client about some of them.

    ts_us: int64[n], without meaning where not `good`, bool[n].
    """

    ts_us: TimestampsUs
    good: Mask
    rows: _Rows

    def place(self, row: int) -> dict[str, Any]:
        """{"index": 3} or {"line": 5}."""
        return {self.rows.place: self.rows.places[row]}

    def timestamps(self, rows: Sequence[int]) -> list[Any]:
        """As they were written, each of a row that is good."""
        written: list[Any] = [self.rows.timestamps[row] for row in rows]
        if self.rows.odd:
            odd = [cast(Any, self.rows.item(row)) if row in self.rows.odd else None for row in rows]
            written = [time if item is None else item["timestamp"] for time, item in zip(written, odd, strict=True)]
        return written


class Decoded(NamedTuple):
    """What a body held: `received` items, of which `batch` holds the good ones and `rejected` counts the others.

    A part of the batch for each series, in the order they first appear; within one, events in order of arrival.
    `errors` names the rejected in order, one entry a reason, at most ERRORS_NAMED_MAX of them:
    {"index": 3, "field": "value", "reason": "…"}. `index` counts items from 0; NDJSON and CSV say `line` instead, the
    line of the body from 1. The field "" is the item as a whole.
    """

    batch: EventBatch
    received: int
    rejected: int
    errors: list[dict[str, Any]]
    sent: Sent


def decode(body: bytes, media_type: str, *, max_events: int, accepted: Accepted = ANY_TIME) -> Decoded:
    """The events of a body in any of the five forms, which `media_type` and the outermost JSON value tell apart.

    In CSV every field is text, and a timestamp means what the same text means in JSON (statsapi.times); an empty series
    is the default one. An event whose timestamp is not `accepted` is rejected.

    0.1-0.2 µs an event (benchmarks/decoding.py), 0.5 µs where one is malformed, 8 µs for each malformed one. Raises
    BadRequest for a body that cannot be read (a malformed line of NDJSON is one rejected item, not that),
    ValidationError for one that is no batch, RequestEntityTooLarge for more than `max_events` items, rejected ones
    included, and UnsupportedMediaType.
    """
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type in ("", "application/json") or media_type.endswith("+json"):
        read, form = _json_rows, cures.JSON
    elif media_type in NDJSON_TYPES:
        read, form = _ndjson_rows, cures.NDJSON
    elif media_type == CSV_TYPE:
        read, form = _csv_rows, cures.CSV
    else:
        refusal = f"Send events as application/json, {', '.join(NDJSON_TYPES)} or {CSV_TYPE}, not {echo(media_type)}."
        raise UnsupportedMediaType(with_cure(refusal, body, None))
    try:
        decoded = _settle(read(body, max_events), accepted)
    except BadRequest as error:
        raise BadRequest(with_cure(str(error.description), body, form)) from None
    except ValidationError:
        if found := cures.cure(body, form):
            raise ValidationError(found) from None
        raise
    if form == cures.NDJSON and decoded.errors and decoded.errors[0]["field"] == "":
        first = decoded.errors[0]
        first["reason"] = with_cure(f"{first['reason']}.", body, form).removesuffix(".")
    return decoded


def decode_one(body: bytes) -> dict[str, Any] | None:
    """What EventSchema makes of a body that holds one event, where that is beyond doubt; None leaves it to the schema.

    2 µs, where json.loads and the schema take 10.
    """
    try:
        event = _EVENT.decode(body)
        if type(event.value) is float and isfinite(event.value) and SERIES_NAME.match(event.series):
            return {"timestamp": parse_timestamp_us(event.timestamp), "value": event.value, "series": event.series}
    except (ValueError, RecursionError):
        pass
    return None


# -- what was sent, as columns -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Rows:
    """The items as columns of the same length, as they were written: nothing is checked yet but types.

    `series` is one name if all rows have it. `odd` holds, by row, the text of each item that does not fit the columns,
    or a _Fault where there is no item; the columns repeat the row before there, so that timestamps stay of one width.
    Text, as 16 MiB of small lists would be 350 MB: it is parsed when its row is settled. Row i stands at `places[i]`,
    its index or line.
    """

    timestamps: list[str | int | float]
    values: list[float | str]
    series: list[str] | str
    place: str
    places: Sequence[int]
    odd: dict[int, bytes | _Fault] = field(default_factory=dict)

    def item(self, row: int) -> object:
        """What the schema would have been given for this row. BadRequest where a JSON array is broken there."""
        if row in self.odd:
            text = self.odd[row]
            if isinstance(text, _Fault):
                return text
            item = _load_line(text) if self.place == "line" else _load_item(text, row)
            if isinstance(self.series, str) and isinstance(item, dict):  # columns, which share it
                item["series"] = self.series
            return item
        series = self.series if isinstance(self.series, str) else self.series[row]
        return {"timestamp": self.timestamps[row], "value": self.values[row], "series": series}


class _Fault(NamedTuple):
    """Stands for an item that could not even be read."""

    reason: str


class _Odd(dict[int, "bytes | _Fault"]):
    """The odd items by row, as text, with a bound on what will be made of it when they are parsed."""

    _brackets = 0

    def add(self, row: int, text: bytes) -> None:
        """RequestEntityTooLarge for too many of them, or arrays and objects in all: 16 MiB of [] took 1.4 s."""
        if len(self) == _ODD_MAX:
            raise RequestEntityTooLarge(
                f"More than {_ODD_MAX:,} items are not written as events are (a field given twice, NaN, another type): "
                "send fewer at once."
            )
        self._brackets += text.count(b"[") + text.count(b"{")
        if self._brackets > _BRACKETS_MAX:
            raise RequestEntityTooLarge(
                f"Items that are no events hold more than {_BRACKETS_MAX} arrays and objects together."
            )
        self[row] = text


_TOO_LONG: Final = _Fault(f"is longer than {EVENT_MAX_BYTES} bytes, the most that an event may have")


# A float field takes JSON integers too, and rounds them as float() does; it refuses booleans, null and 1e400. `str`
# beside it costs nothing and keeps a batch with a "3.5" in it on the fast path. gc=False: 100,000 structs would set off
# the cyclic collector, which could find nothing in them.
class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    timestamp: str | int | float
    value: float | str
    series: str = DEFAULT_SERIES


class _Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"events": […]}` and columns in one: msgspec cannot tell two untagged structs apart."""

    events: list[_Event] | msgspec.UnsetType = msgspec.UNSET
    next: str | None = None  # of an exported page, which can be recorded as it is
    series: str = DEFAULT_SERIES
    timestamp: list[str | int | float] | msgspec.UnsetType = msgspec.UNSET
    value: list[float | str] | msgspec.UnsetType = msgspec.UNSET


_EVENTS: Final = msgspec.json.Decoder(list[_Event])
_EVENT: Final = msgspec.json.Decoder(_Event)
_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_FLOATS: Final = msgspec.json.Decoder(list[float])
_NUMBERS: Final = msgspec.json.Decoder(list[int | float])

_SCHEMA: Final = EventSchema()
_SERIES_SCHEMA: Final = EventSchema(only=("series",))

# A larger body is not parsed by one call: msgspec takes 2 ns a byte and 0.1 µs an event, and holds the interpreter.
_AT_ONCE_BYTES: Final = 8 * 1024 * 1024

# Below this there is nothing to look for first: whatever it holds, msgspec takes 5 ms and 20 MB for it. Counting in all
# bodies took 5 % of what decoding 10,000 events takes.
_LOOK_FROM_BYTES: Final = 1024 * 1024

# An event has at most three fields, a separator each; the rest is for what is sent in vain.
_SEPARATORS_AN_EVENT: Final = 4

# Arrays and objects in items that are no events, which the standard parser has to read: 0.2 s.
_BRACKETS_MAX: Final = 1_000_000

# However few events are allowed, this many lines may be blank.
_BLANKS_ALLOWED: Final = 200_000

# Items that the standard parser has to read one by one, 10 µs each: 100,000 of them took 1.06 s.
_ODD_MAX: Final = 60_000

# Items that are parsed together, and again one by one where one of them is odd.
_GROUP: Final = 64

# Fields of a document that are told apart, to be named; it has three.
_MEMBERS_MAX: Final = 10_000

# CSV is split in pieces: what is not ASCII takes up to four times its bytes, more than once.
_CSV_STEP_BYTES: Final = 2 * 1024 * 1024

_COLUMNS: Final = ("timestamp", "value", "series")
_SHAPES: Final = (
    'must be an array of events, {"events": […]}, or columns: {"series": "…", "timestamp": […], "value": […]}'
)


def _from_events(events: list[_Event], place: str, places: Sequence[int]) -> _Rows:
    # Three comprehensions: attrgetter or astuple for all fields at once takes 2.5 times as long.
    timestamps = [event.timestamp for event in events]
    values = [event.value for event in events]
    series = [event.series for event in events]
    return _Rows(timestamps, values, series, place, places)


def _within(received: int, max_events: int, *, counted: bool = True) -> None:
    """RequestEntityTooLarge for too many; `counted` says that `received` are all there are."""
    if received > max_events:
        raise _too_many(f"{received if counted else f'More than {max_events}'} events", max_events)


def _too_many(sent: str, max_events: int) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(
        f"{sent} were sent; one request may hold at most {max_events} (STATSAPI_MAX_BATCH_EVENTS)."
    )


def _may_hold(body: bytes, max_events: int) -> bool:
    """Whether the body has no more commas than that many events, so that parsing it costs no more than they do.

    0.3 ms a MiB: half a hundredth of parsing it.
    """
    if len(body) < _LOOK_FROM_BYTES:
        return True
    return _count(body, ",") <= _SEPARATORS_AN_EVENT * max_events + 1000


def _count(body: bytes, letter: str) -> int:
    """How often an ASCII letter stands in the body, in slices: a byte of memory for each byte looked at."""
    letters = np.frombuffer(body, np.uint8)
    step = 1 << 20
    return sum(int(np.count_nonzero(letters[at : at + step] == ord(letter))) for at in range(0, len(body), step))


def _within_lines(body: bytes, ends: str, max_events: int) -> None:
    """RequestEntityTooLarge for lines beyond number, most of which must be blank: each costs 0.1 µs."""
    if len(body) >= _LOOK_FROM_BYTES:
        lines = sum(_count(body, end) for end in ends)
        if lines > max(2 * max_events, _BLANKS_ALLOWED):
            raise _too_many(f"{lines} lines", max_events)


def _json_rows(body: bytes, max_events: int) -> _Rows:
    if len(body) > _AT_ONCE_BYTES or not _may_hold(body, max_events):
        return _json_rows_slowly(body, max_events)
    try:
        if body[:64].lstrip()[:1] != b"{":
            return _from_list(_EVENTS.decode(body), max_events)
        document = _DOCUMENT.decode(body)
    except (ValueError, RecursionError):
        return _json_rows_slowly(body, max_events)
    if isinstance(document.events, list) and document.timestamp is document.value is msgspec.UNSET:
        # `series` beside `events` is refused below, and cannot be told from its default here.
        if document.series is DEFAULT_SERIES:
            return _from_list(document.events, max_events)
    elif isinstance(document.timestamp, list) and isinstance(document.value, list):
        timestamps, values = document.timestamp, document.value
        if document.events is msgspec.UNSET and len(timestamps) == len(values) and SERIES_NAME.match(document.series):
            _within(len(timestamps), max_events)
            return _Rows(timestamps, values, document.series, "index", range(len(timestamps)))
    return _json_rows_slowly(body, max_events)


def _from_list(events: list[_Event], max_events: int) -> _Rows:
    _within(len(events), max_events)
    return _from_events(events, "index", range(len(events)))


def _json_rows_slowly(body: bytes, max_events: int) -> _Rows:
    """The items of a document that msgspec did not take as a whole, found by their brackets and read one by one.

    ValidationError if it is no batch at all. 1 µs an item and 10 ns a byte, in steps of at most 64 KiB.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if broken := why_not_utf8(body):
        raise BadRequest(f"The body {broken}.")
    at = len(body) - len(body.lstrip())
    if body.startswith(b"[", at):
        spans = _elements(body, at, len(body), max_events)
        return _rows_of_items(body[start:end] for start, end in spans)
    if body.startswith(b"{", at):
        return _rows_of_document(body, at, max_events)
    if not body.strip():
        raise BadRequest('The body is empty; send JSON such as [{"timestamp": …, "value": 42.5}].')
    if len(body) <= EVENT_MAX_BYTES:
        _load_text(body)  # refuses what is no JSON at all
    raise ValidationError(_SHAPES)


def _elements(body: bytes, at: int, end: int, most: int) -> list[tuple[int, int]]:
    """Where the elements of the array or object lie that begins at body[at]; nothing may follow it before `end`."""
    try:
        spans, closed = find_elements(body, at, most)
    except TooMany:
        if body.startswith(b"{", at):
            raise ValidationError(f"has more than {most} fields; the body {_SHAPES}") from None
        raise _too_many(f"More than {most} events", most) from None
    except TooDeep:
        raise BadRequest("The JSON is nested too deeply.") from None
    except Unclosed:
        raise BadRequest(f"The body is not JSON: what opens {_place(body, at)} is never closed.") from None
    if body[closed - 1] - body[at] != 2:  # of [ and ], of { and }
        raise BadRequest(f"The body is not JSON: Unexpected {chr(body[closed - 1])} {_place(body, closed - 1)}.")
    if body[closed:end].strip():
        closed = end - len(body[closed:end].lstrip())
        raise BadRequest(f"The body is not JSON: Extra data {_place(body, closed)}.")
    return spans


def _place(body: bytes, at: int) -> str:
    line_start = body.rfind(b"\n", 0, at) + 1
    return f"at line {_count(body[:at], chr(10)) + 1} column {at - line_start + 1}"


def _rows_of_items(items: Iterable[bytes]) -> _Rows:
    """The rows of items as find_elements found them: brackets balanced, and no comma between two of them."""
    events = [_NO_EVENT]  # what the first row repeats if it is odd
    odd = _Odd()
    items = iter(items)
    while group := list(itertools.islice(items, _GROUP)):
        try:
            if max(map(len, group)) > EVENT_MAX_BYTES:
                raise ValueError  # noqa: TRY301 (each alone, as for any other fault)
            events += _EVENTS.decode(b"[%s]" % b",".join(group))
        except (ValueError, RecursionError):
            for item in group:
                if len(item) > EVENT_MAX_BYTES:
                    odd[len(events) - 1] = _TOO_LONG
                    events.append(events[-1])
                    continue
                try:
                    events.append(_EVENT.decode(item))
                except (ValueError, RecursionError):
                    odd.add(len(events) - 1, item)
                    events.append(events[-1])
    del events[0]
    rows = _from_events(events, "index", range(len(events)))
    rows.odd = odd
    return rows


def _load_item(text: bytes, index: int) -> object:
    """An item of a JSON array: where it is no JSON, neither is the body."""
    try:
        return _load_text(text)
    except BadRequest as error:
        said = str(error.description).removeprefix("The body ").removesuffix(".")
        raise BadRequest(f"The body {said}, in the item of index {index}.") from None


def _load_text(text: bytes) -> object:
    """The standard library's parser lets NaN and long integers through to the schema, which names the field."""
    try:
        return cast(object, json.loads(text.decode()))
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise BadRequest(f"The body {why_not_json(error)}.") from None


# What an odd row repeats if it is the first.
_NO_EVENT: Final = _Event(0, 0.0)

_MEMBER: Final = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_KEY_MAX_BYTES: Final = 8192


def _rows_of_document(body: bytes, at: int, max_events: int) -> _Rows:
    """`{"events": […]}`, or columns, whose rows become items."""
    members = _members_of(body, at)
    known = ("events", "next") if "events" in members else _COLUMNS
    unknown = [name for name in members if name not in known]
    if unknown:
        raise ValidationError({name: [f"is not known here; the body {_SHAPES}"] for name in unknown})

    def is_array(name: str) -> bool:
        return body.startswith(b"[", members[name][0])

    def load(name: str) -> object:
        start, end = members[name]
        if end - start > EVENT_MAX_BYTES:
            raise ValidationError({name: [_TOO_LONG.reason]})
        return _load_text(body[start:end])

    if "events" in members:
        if not is_array("events"):
            load("events")
            raise ValidationError({"events": ["must be an array of events"]})
        if "next" in members and not isinstance(load("next"), str | None):
            raise ValidationError({"next": ["must be that of an exported page, or left out"]})
        return _rows_of_items(body[start:end] for start, end in _elements(body, *members["events"], max_events))
    if not members:
        raise ValidationError(_SHAPES)
    faults: dict[str, list[str]] = {}
    for name in ("timestamp", "value"):
        if name not in members:
            faults[name] = ["is missing; the body " + _SHAPES]
        elif not is_array(name):
            load(name)
            faults[name] = ["must be an array, one entry for each event; POST /event takes a single event"]
    series = load("series") if "series" in members else DEFAULT_SERIES
    faults |= _SERIES_SCHEMA.validate({"series": series})
    if faults:
        raise ValidationError(cast(dict[str, Any], faults))
    timestamps, values = (_elements(body, *members[name], max_events) for name in ("timestamp", "value"))
    if len(timestamps) != len(values):
        raise ValidationError({"value": [f"has {len(values)} entries where timestamp has {len(timestamps)}"]})
    pairs = zip(timestamps, values, strict=True)
    rows = _rows_of_items(
        b'{"timestamp":%s,"value":%s}' % (body[slice(*timestamp)], body[slice(*value)]) for timestamp, value in pairs
    )
    rows.series = cast(str, series)
    return rows


def _members_of(body: bytes, at: int) -> dict[str, tuple[int, int]]:
    """Where in the body the values of the object at body[at] lie, by key; of equal keys the last holds."""
    members = {}
    for start, end in _elements(body, at, len(body), _MEMBERS_MAX):
        member = _MEMBER.match(body[start : min(end, start + _KEY_MAX_BYTES)])
        if member is None:
            _load_text(b"{" + body[start : min(end, start + _KEY_MAX_BYTES)] + b"}")  # refuses what is no JSON
            raise ValidationError(f"has a field whose name is longer than {_KEY_MAX_BYTES} bytes; the body {_SHAPES}")
        members[cast(str, _load_text(member[1]))] = (start + member.end(), end)
    return members


def _ndjson_rows(body: bytes, max_events: int) -> _Rows:
    body = body.removeprefix(_BYTE_ORDER_MARK)
    _within_lines(body, "\n", max_events)
    whole = body.rstrip()
    count = 0
    if len(body) <= _AT_ONCE_BYTES and _may_hold(body, max_events):
        count = _lines_of_objects(whole)
    if count:
        _within(count, max_events)
        try:
            events = _EVENT.decode_lines(whole)
        except (ValueError, RecursionError):
            pass
        else:
            if len(events) == count:
                return _from_events(events, "line", range(1, count + 1))
    return _ndjson_rows_slowly(body, max_events)


def _lines_of_objects(body: bytes) -> int:
    """How many lines there are, if each begins with a { and is no longer than an event; 0 otherwise. 0.01 µs a line.

    msgspec also takes two events in a line, or one in two. But an event holds no object and no string a newline, so a {
    that begins a line stands outside all events: with as many events as lines, each line holds exactly one.
    """
    text = np.frombuffer(body, np.uint8)
    newlines = np.flatnonzero(text == ord("\n"))
    if body[:1] != b"{" or not (text[newlines + 1] == ord("{")).all():
        return 0
    if len(body) > EVENT_MAX_BYTES:
        longest = np.diff(newlines, prepend=-1, append=len(body)).max() - 1
        if longest > EVENT_MAX_BYTES:
            return 0
    return len(newlines) + 1


def _ndjson_rows_slowly(body: bytes, max_events: int) -> _Rows:
    """Line by line; blank lines are skipped, a line that is no JSON is an odd row."""
    events = [_NO_EVENT]
    odd = _Odd()
    lines: list[int] = []
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.isspace():
            continue
        _within(len(lines) + 1, max_events, counted=False)
        lines.append(number)
        try:
            if len(line) > EVENT_MAX_BYTES and len(line.rstrip(b"\r\n")) > EVENT_MAX_BYTES:
                line, odd[len(lines) - 1] = b"", _TOO_LONG
            events.append(_EVENT.decode(line))
        except (ValueError, RecursionError):
            if line:
                odd.add(len(lines) - 1, line)
            events.append(events[-1])
    del events[0]
    rows = _from_events(events, "line", lines)
    rows.odd = odd
    return rows


def _load_line(line: bytes) -> object:
    try:
        return cast(object, json.loads(line.rstrip(b"\r\n").decode()))
    except RecursionError:
        return _Fault("is nested too deeply")
    except json.JSONDecodeError as error:
        return _Fault(f"is not JSON: {error.msg} at column {error.colno}")
    except ValueError as error:
        return _Fault(why_not_json(error))


def _csv_rows(body: bytes, max_events: int) -> _Rows:
    body = body.removeprefix(_BYTE_ORDER_MARK)
    quoted = b'"' in body
    _within_lines(body, "\n", max_events)
    if b"\r" in body:
        _within_lines(body, "\r", max_events)
        if not quoted:
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    table = _Table(max_events, body)
    try:
        _fill(table, body, quoted=quoted)
    except UnicodeDecodeError:
        raise BadRequest(f"The body {why_not_utf8(body)}.") from None
    return table.rows()


def _fill(table: _Table, body: bytes, *, quoted: bool) -> None:
    if quoted:
        for line, row in _quoted_csv(body):
            table.add(line, row)
    else:
        line, at = 1, 0
        while at < len(body):
            # Whole lines, but for one that is longer than a step.
            end = body.rfind(b"\n", at, at + _CSV_STEP_BYTES) + 1 or body.find(b"\n", at) + 1 or len(body)
            end = len(body) if len(body) - at <= _CSV_STEP_BYTES else end
            line = table.add_piece(line, body[at:end])
            at = end


class _Table:
    """The rows of a CSV, column by column, as they are read. The first that is not blank is the header."""

    def __init__(self, max_events: int, body: bytes) -> None:
        self._max_events = max_events
        self._body = body  # to say what is wrong with it
        self._header: list[str] = []
        self._columns: list[list[str]] = []
        self._lines: list[Sequence[int]] = []
        self._received = 0
        self._odd: dict[int, bytes | _Fault] = {}

    def add(self, line: int, row: list[str]) -> None:
        """A row that begins at that line of the body. A blank one is passed over, a ragged one is an odd row."""
        if len(row) == 1 and not row[0].strip():
            return
        if not self._header:
            self._header = _header(row, self._body)
            self._columns = [[] for _ in row]
        elif len(row) == len(self._header):
            self._take(line, row)
        else:
            self._refuse(line, cures.ragged(row, self._header))

    def add_piece(self, line: int, piece: bytes) -> int:
        """Some whole lines without a quote, the first of which is that one of the body; the number of the next."""
        at = 0
        while not self._header and at < len(piece):
            end = piece.find(b"\n", at) + 1 or len(piece)
            self._add_line(line, piece[at:end])
            at, line = end, line + 1
        rest = piece[at:].rstrip(b"\n")
        if rest and (len(rest) > _CSV_STEP_BYTES or not self._add_even(line, rest)):
            for number, text in enumerate(io.BytesIO(rest), line):
                self._add_line(number, text)
        return line + _count(piece[at:], "\n")

    def _add_even(self, line: int, piece: bytes) -> bool:
        """Whether each line has as many fields as the header and was added; if not, none was.

        Where the separators come in the same order in each row, one split at all of them lays the fields out in
        strides. 0.08 µs a row of two; with each newline made a field of its own instead 0.1, the csv module 0.5.
        """
        letters = np.frombuffer(piece, np.uint8)
        separators = letters[(letters == ord(",")) | (letters == ord("\n"))]
        width = len(self._header)
        rows, ragged = divmod(len(separators) + 1, width)
        if ragged:
            return False
        pattern = [*[ord(",")] * (width - 1), ord("\n")]
        if (np.append(separators, ord("\n")).reshape(rows, width) != pattern).any():
            return False
        _within(self._received + rows, self._max_events)
        fields = piece.decode().replace("\n", ",").split(",")
        for column, found in enumerate(self._columns):
            found += fields[column::width]
        self._lines.append(range(line, line + rows))
        self._received += rows
        return True

    def _add_line(self, line: int, text: bytes) -> None:
        if len(text) <= EVENT_MAX_BYTES:
            self.add(line, text.decode().rstrip("\n").split(","))
        elif not self._header:
            raise BadRequest(f"The first line, which names the columns, is longer than {EVENT_MAX_BYTES} bytes.")
        else:
            self._refuse(line, _TOO_LONG.reason)

    def _take(self, line: int, row: list[str]) -> None:
        _within(self._received + 1, self._max_events, counted=False)
        for column, text in zip(self._columns, row, strict=True):
            column.append(text)
        self._lines.append((line,))
        self._received += 1

    def _refuse(self, line: int, reason: str) -> None:
        self._take(line, [column[-1] if column else "0" for column in self._columns])
        self._odd[self._received - 1] = _Fault(reason)

    def rows(self) -> _Rows:
        if not self._header:
            _header([], self._body)
        lines = self._lines[0] if len(self._lines) == 1 else list(itertools.chain.from_iterable(self._lines))
        rows = _from_fields(self._header, self._columns, lines)
        rows.odd = self._odd
        return rows


def _quoted_csv(body: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line they begin at. After a broken quote no row boundary can be trusted: BadRequest."""
    held_bytes = 0  # of the row that is being read

    def lines() -> Iterator[str]:
        nonlocal held_bytes
        for line in io.BytesIO(body):
            for text in line.splitlines(keepends=True) if b"\r" in line else (line,):
                held_bytes += len(text)
                if held_bytes > EVENT_MAX_BYTES:
                    raise BadRequest(
                        f'The row that begins at line {begins} is longer than {EVENT_MAX_BYTES} bytes: is a quote (") '
                        "missing there?"
                    )
                yield text.decode()

    reader = csv.reader(lines(), strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            said = f"The body is not CSV: {error} (in the row that begins at line {begins})."
            raise BadRequest(f"{said} {cures.quoted_delimiter(body)}".rstrip()) from None
        held_bytes = 0
        if row:
            yield begins, row


def _header(names: list[str], body: bytes) -> list[str]:
    """The column names; ValidationError says what is wrong with them."""
    names = [name.strip() for name in names]
    if faults := cures.header_faults(names, body):
        raise ValidationError(cast(dict[str, Any], faults))
    return names


def _from_fields(header: list[str], columns: list[list[str]], lines: Sequence[int]) -> _Rows:
    by_name = dict(zip(header, columns, strict=True))
    timestamps, values = by_name["timestamp"], by_name["value"]
    series: list[str] | str = DEFAULT_SERIES
    if "series" in by_name:
        series = by_name["series"]
        if "" in series:
            series = [name or DEFAULT_SERIES for name in series]
    return _Rows(
        cast(list[str | int | float], timestamps),
        _json_floats(values) or cast(list[float | str], values),
        series,
        "line",
        lines,
    )


def _json_floats(texts: list[str]) -> list[float | str] | None:
    """What float() makes of each text, if they are all numbers as JSON writes them: a third of float()'s time."""
    try:
        floats = _FLOATS.decode(f"[{','.join(texts)}]")
    except ValueError:
        return None
    if len(floats) != len(texts):
        return None  # a quoted field holds a comma
    if 0.0 in floats:  # JSON's -0 is an integer, without a sign; float("-0") has one
        return [value or float(text) for value, text in zip(floats, texts, strict=True)]
    return cast(list[float | str], floats)


# -- from what was written to what was meant -----------------------------------------------------------------------


def _settle(rows: _Rows, accepted: Accepted) -> Decoded:
    """Reads the columns, lets the schema decide on the rows in doubt, and parts the good ones by series."""
    received = len(rows.timestamps)
    ts_us, good = _timestamps_us(rows.timestamps)
    values = _floats(rows.values)
    good &= np.isfinite(values)
    names, codes = _numbered(rows.series, received)
    if bad_names := [code for code, name in enumerate(names) if not SERIES_NAME.match(name)]:
        good &= ~np.isin(codes, bad_names)
    good[list(rows.odd)] = False
    if accepted is not ANY_TIME:
        good &= (ts_us >= accepted.first_us) & (ts_us <= accepted.last_us)

    errors: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for row in np.flatnonzero(~good).tolist():
        item = rows.item(row)
        # Only an odd row can still be good: the others failed the schema's own functions.
        event = _read_item(item) if row in rows.odd else None
        if event is None and len(errors) == ERRORS_NAMED_MAX:
            continue
        where = {rows.place: rows.places[row]}
        if isinstance(item, _Fault):
            faults = [("", item.reason)]
        else:
            try:
                event = event or _SCHEMA.load(cast(Any, item))
            except ValidationError as error:
                faults = _flatten(error)
            else:
                refusal = accepted.why_not(event["timestamp"])
                if refusal is None:
                    ts_us[row], values[row], good[row] = event["timestamp"], event["value"], True
                    numbers = numbers or {name: number for number, name in enumerate(names)}
                    codes[row] = numbers.setdefault(event["series"], len(numbers))
                    continue
                faults = [("timestamp", refusal)]
        errors += [{**where, "field": name, "reason": reason} for name, reason in faults]
        del errors[ERRORS_NAMED_MAX:]
    names = list(numbers) or names
    rejected = received - int(np.count_nonzero(good))
    batch = EventBatch(_parts(names, codes, ts_us, values, good))
    return Decoded(batch, received, rejected, errors, Sent(ts_us, good, rows))


def _flatten(error: ValidationError) -> list[tuple[str, str]]:
    """(field, reason) for each; "" is the item itself. An event has no fields within fields."""
    messages = cast(dict[str, list[str]], error.messages)
    return [
        ("" if name == "_schema" else echo(name), reason) for name, reasons in messages.items() for reason in reasons
    ]


def _read_item(item: object) -> dict[str, Any] | None:
    """What the schema makes of a parsed item, at a twentieth of its cost; None for what it refuses.

    100,000 events whose values are null, and then given again, or NaN, held a core for seconds.
    """
    if not isinstance(item, dict) or not item.keys() <= set(_COLUMNS):
        return None  # a _Fault too
    timestamp, value, series = item.get("timestamp"), item.get("value"), item.get("series", DEFAULT_SERIES)
    if type(value) not in (int, float, str) or type(series) is not str or not SERIES_NAME.match(series):
        return None
    try:
        number = float(cast(Any, value))
        if isfinite(number):
            return {"timestamp": parse_timestamp_us(timestamp), "value": number, "series": series}
    except (ValueError, OverflowError):
        pass
    return None


def _numbered(series: list[str] | str, rows: int) -> tuple[list[str], NDArray[np.uint32]]:
    """The distinct names in order of appearance, and for each row the number of its own."""
    if isinstance(series, str):
        return [series], np.zeros(rows, np.uint32)
    if series and series.count(series[0]) == rows:  # 1-5 ns a row, the dict 50
        return series[:1], np.zeros(rows, np.uint32)
    numbers: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    codes = np.fromiter(map(numbers.__getitem__, series), np.uint32, rows)
    return list(numbers), codes


def _parts(
    names: list[str], codes: NDArray[np.uint32], ts_us: TimestampsUs, values: Values, good: Mask
) -> tuple[Part, ...]:
    """The good rows by series. Parts are views of common columns, sorted by series once: O(rows + series)."""
    if not good.all():
        codes, ts_us, values = codes[good], ts_us[good], values[good]
    if len(names) > 1:
        # numpy sorts 16 bits by radix: 5 ns a row, against 60 for wider integers.
        order = np.argsort(codes.astype(np.uint16) if len(names) <= 1 << 16 else codes, kind="stable")
        ts_us, values = ts_us[order], values[order]
    ends = np.cumsum(np.bincount(codes, minlength=len(names))).tolist()
    spans = zip(names, [0, *ends], ends, strict=False)
    return tuple([Part(name, ts_us[start:end], values[start:end]) for name, start, end in spans if start < end])


def _floats(raw: list[float | str]) -> Values:
    """float() of each; NaN where there is none."""
    try:
        return np.fromiter(raw, np.float64, len(raw))  # calls float() for a string
    except ValueError:
        return np.fromiter(map(_float_or_nan, raw), np.float64, len(raw))


def _float_or_nan(value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("nan")


# -- timestamps ----------------------------------------------------------------------------------------------------

# Below this many rows one by one is faster than the 40 numpy calls of _fixed_width_us.
_VECTOR_MIN: Final = 64

# RFC 2822, a [Zone], 04:24 PM: 10 to 20 µs each, twice where the answer has to tell whether there was an offset.
_RARE_TIMES_MAX: Final = 40_000

_WIDTH_MIN: Final = len("2025-11-21T07:45:00")
_WIDTH_MAX: Final = len("2025-11-21T07:45:00.123456789+00:00")

# The day number, from 1970, of the first of each month from January of year 0 (no timestamp has it) to January 10000.
_MONTH_DAY: Final = np.arange("0000-01", "10000-02", dtype="M8[M]").astype("M8[D]").astype(np.int32)

# Up to 2^53 the double product is the one parse_timestamp_us rounds, for an integer that numpy made a double as well.
_EXACT: Final = 2.0**53

_DIGIT: Final = re.compile(r" *-?\d+(?![\d-])", re.ASCII)

# Numbers that spell a date, with which more may be wrong than their unit; of texts also the small ones, and all of
# seven, eight and fourteen digits. statsapi.times decides on each.
_SPELT: Final = (
    (1900_001, 2100_367),
    (1900_01_01, 2100_12_32),
    (1900_01_01_00_00, 2100_12_31_24_00),
    (1900_01_01_00_00_00, 2100_12_31_24_00_00),
    (1900_01_01_00_00_00_000, 2100_12_31_24_00_00_000),
)
_DOUBTFUL_TEXT: Final = ((0, 10**8), *_SPELT[2:3], (10**13, 10**14), *_SPELT[4:])

# Seconds from 1973 to 2603, or milliseconds from 2001 to 2286, need no look at each number.
_USUAL: Final = ((10**8, MILLISECONDS_BEYOND, SECOND_US), (10**12, 10**13 - 1, 1000))


def _timestamps_us(raw: list[str | int | float]) -> tuple[TimestampsUs, Mask]:
    """Microseconds as parse_timestamp_us reads them, and which rows it reads at all. 30-60 ns a row."""
    if not raw:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    if isinstance(raw[0], str) and (numbers := _json_numbers(raw)):
        ts_us, known = _unix_us(numbers, _DOUBTFUL_TEXT)
    else:
        ts_us, known = _mixed_us(raw)
    rare: dict[str, int | None] = {}
    for row in np.flatnonzero(~known).tolist():
        found = _read_alone(raw[row], rare)
        if found is not None:
            ts_us[row], known[row] = found, True
    return ts_us, known


def _read_alone(written: str | int | float, rare: dict[str, int | None]) -> int | None:
    """As parse_timestamp_us reads it, None for what it refuses. `rare` remembers what is costly to read again."""
    found = read_iso_us(written)
    if found is None and written in rare and isinstance(written, str):
        return rare[written]
    if found is None:
        if len(rare) == _RARE_TIMES_MAX:
            raise RequestEntityTooLarge(
                f"More than {_RARE_TIMES_MAX} different timestamps are in rare forms, or in none, such as "
                f"{echo(str(written))!r}: send fewer at once, or write them like 2025-11-21T07:45:00Z."
            )
        with suppress(ValueError):
            found = parse_timestamp_us(written)
        if isinstance(written, str):  # 1 and 1.0 are one key
            rare[written] = found
    return found


def _mixed_us(raw: list[str | int | float]) -> tuple[TimestampsUs, Mask]:
    try:
        return _iso_us(cast(list[str], raw))
    except TypeError:  # not all of them are strings
        if str not in set(map(type, raw)):
            return _unix_us(cast(list[int | float], raw))
    text = np.fromiter((isinstance(value, str) for value in raw), np.bool_, len(raw))
    ts_us, known = np.zeros(len(raw), np.int64), np.zeros(len(raw), np.bool_)
    for rows, read in ((np.flatnonzero(text), _iso_us), (np.flatnonzero(~text), _unix_us)):
        ts_us[rows], known[rows] = read(cast(Any, [raw[row] for row in rows.tolist()]))
    return ts_us, known


def _json_numbers(texts: list[Any]) -> list[int | float] | None:
    """The numbers, if all are texts and each of them is one as JSON writes it, blanks around it or not."""
    if not _DIGIT.match(texts[0]):
        return None
    try:
        joined = ",".join(texts)
        if "E+" in joined:  # 1.76371E+12 is what a spreadsheet leaves of a number
            return None
        numbers = _NUMBERS.decode(f"[{joined}]")
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == len(texts) else None  # a quoted field may hold a comma


def _unix_us(raw: list[int | float], doubtful: Any = _SPELT) -> tuple[TimestampsUs, Mask]:
    """Unix time of any unit, as statsapi.times tells them apart; what might be read otherwise there is not known.

    `doubtful` are ranges of numbers, [from, to), that are left to it.
    """
    number = np.array(raw)  # integers as such only if all of them are, and in 64 bits
    if number.dtype not in (np.int64, np.float64):
        return np.zeros(len(raw), np.int64), np.zeros(len(raw), np.bool_)
    least, most = number.min(), number.max()
    usual = [factor for first, last, factor in _USUAL if first <= least and most <= last]
    known = np.ones(len(raw), np.bool_)
    if not usual:
        for first, end in doubtful:
            known &= (number < first) | (number >= end)
    if number.dtype == np.int64:
        if usual:
            return number * usual[0], known
        magnitude = np.abs(number)
        known &= magnitude >= 0  # -2^63 has none
        factor = np.where(magnitude <= MILLISECONDS_BEYOND, SECOND_US, 1)
        factor[(magnitude > MILLISECONDS_BEYOND) & (magnitude <= MICROSECONDS_BEYOND)] = 1000
        number[magnitude > NANOSECONDS_BEYOND] //= 1000
        return number * factor, known
    if usual:
        scaled = number * float(usual[0])
    else:
        magnitude = np.abs(number)
        number[~(magnitude < _EXACT)] = np.nan  # no overflow below, and no nanoseconds
        scale = np.where(magnitude <= MICROSECONDS_BEYOND, 1000.0, 1.0)
        scale[magnitude <= MILLISECONDS_BEYOND] = SECOND_US
        scaled = number * scale
    known &= np.abs(scaled) < _EXACT  # NaN is not
    scaled[~known] = 0.0
    return np.rint(scaled).astype(np.int64), known


def _iso_us(texts: list[str]) -> tuple[TimestampsUs, Mask]:
    """The common ISO 8601 forms; rows in any other are not known."""
    count, width = len(texts), len(texts[0])
    # One character is one byte: what is not ASCII becomes '?', which no form has.
    joined = np.frombuffer(("\n".join(texts) + "\n").encode("ascii", "replace"), np.uint8)
    if len(joined) == count * (width + 1):
        rows = joined.reshape(count, width + 1)
        # All newlines there are stand at the ends of rows, so each row is one text, and all have the same width.
        if np.count_nonzero(joined == ord("\n")) == count and (rows[:, width] == ord("\n")).all():
            return _fixed_width_us(rows[:, :width])
    ts_us, known = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    widths = np.fromiter(map(len, texts), np.int64, count)
    for width in range(_WIDTH_MIN, _WIDTH_MAX + 1):
        of_width = np.flatnonzero(widths == width)
        if len(of_width) >= _VECTOR_MIN:
            same = "".join([texts[row] for row in of_width.tolist()]).encode("ascii", "replace")
            rows = np.frombuffer(same, np.uint8).reshape(len(of_width), width)
            ts_us[of_width], known[of_width] = _fixed_width_us(rows)
    return ts_us, known


def _fixed_width_us(rows: NDArray[np.uint8]) -> tuple[TimestampsUs, Mask]:
    """Parses texts of one width, the columns of `rows` (texts x width), written like the first of them.

        2025-11-21T07:45:00 or with a space, then up to nine digits of a fraction, then nothing, Z or +hh:mm
        0         1
        0123456789012345678

    A row that differs from that form in any byte, or names no moment, is not known. Some 40 numpy calls, most of them
    on single bytes: 30 ns a row.
    """
    count, width = rows.shape
    unknown = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    if count < _VECTOR_MIN or not _WIDTH_MIN <= width <= _WIDTH_MAX:
        return unknown
    sample = rows[0].tobytes()
    zone = 1 if sample.endswith(b"Z") else 6 if width >= 25 and sample[-6:-5] in (b"+", b"-") else 0
    fraction = max(0, width - 19 - zone - 1)  # digits after the point
    if fraction > 9 or width == 19 + zone + 1 or sample[10:11] not in (b"T", b" "):
        return unknown

    # The least and the most that each byte may be. Between + and - there is also a comma.
    least = b"0000-00-00" + sample[10:11] + b"00:00:00"
    most = b"9999-19-39" + sample[10:11] + b"29:59:59"
    if fraction:
        least, most = least + b"." + b"0" * fraction, most + b"." + b"9" * fraction
    if zone:
        least, most = least + (b"Z" if zone == 1 else b"+00:00"), most + (b"Z" if zone == 1 else b"-29:59")
    floor = np.frombuffer(least, np.uint8)[:, None]
    reach = np.frombuffer(most, np.uint8)[:, None] - floor
    digit = np.array(rows.T, order="C")  # so that each step below runs over neighbouring bytes
    digit -= floor  # below the least wraps to more than its reach
    known = cast(Mask, (digit <= reach).all(axis=0))

    def two(column: int) -> NDArray[np.uint8]:
        return cast(NDArray[np.uint8], digit[column] * np.uint8(10) + digit[column + 1])

    month, day, hour, minute, second = two(5), two(8), two(11), two(14), two(17)
    known &= (month - np.uint8(1) < 12) & (hour < 24)
    year = two(0).astype(np.int32) * 100 + two(2)
    months = year * 12 + month - 1
    first = _MONTH_DAY.take(months, mode="clip")
    known &= (year > 0) & (day > 0) & (day <= _MONTH_DAY.take(months + 1, mode="clip") - first)

    ts_us = (first + day - np.int32(1)).astype(np.int64) * DAY_US
    ts_us += (hour.astype(np.int32) * 3600 + minute.astype(np.int32) * 60 + second).astype(np.int64) * SECOND_US
    if fraction:
        part = np.zeros(count, np.int32)
        for column in range(20, 20 + min(fraction, 6)):
            part *= 10
            part += digit[column]
        ts_us += part * np.int32(10 ** max(0, 6 - fraction))
    if zone == 6:
        sign = digit[width - 6]
        ahead, past = two(width - 5), two(width - 2)
        known &= (sign != ord(",") - ord("+")) & (ahead < 24)
        offset_us = (ahead.astype(np.int64) * 60 + past) * MINUTE_US
        ts_us += np.where(sign == 0, -offset_us, offset_us)
        known &= (ts_us >= MIN_TS_US) & (ts_us <= MAX_TS_US)
    return ts_us, known
