"""JSON bodies: an array of events, `{"events": […]}`, or columns.

msgspec reads a whole body at once where all of it has the types of events. Otherwise the items are found by their
brackets (`elements.py`) and read in groups, and the standard parser reads those that are odd: it lets NaN and long
integers through to the schema, whose refusal names the field.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import msgspec
from marshmallow import ValidationError

from statsapi.api.body_text import EVENT_MAX_BYTES, Twice, loads, what_is_twice, why_not_json, why_not_utf8
from statsapi.api.decoding import plain as plain_rows
from statsapi.api.decoding.elements import TooDeep, TooMany, Unclosed, find_elements
from statsapi.api.decoding.rows import (
    AT_ONCE_BYTES,
    BYTE_ORDER_MARK,
    COLUMNS,
    EVENTS,
    NO_EVENT,
    TAGGED_EVENTS,
    TOO_LONG,
    Event,
    Fault,
    OddItems,
    Rows,
    TaggedEvent,
    commas_within,
    count,
    count_commas,
    decode_event,
    has_tags,
    is_once,
    parse_tags,
    require_within,
    separators_fit,
    too_many,
)
from statsapi.api.refusals import BadBody
from statsapi.api.schemas import EventSchema
from statsapi.model import DEFAULT_SERIES
from statsapi.naming.names import PLAIN_NAME


class _Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"events": […]}` and columns in one: msgspec cannot tell two untagged structs apart."""

    events: list[Event] | msgspec.UnsetType = msgspec.UNSET
    next: str | None = None  # in an exported page, which can be recorded as it is
    series: str = DEFAULT_SERIES
    tags: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timestamp: list[str | int | float] | msgspec.UnsetType = msgspec.UNSET
    value: list[float | str] | msgspec.UnsetType = msgspec.UNSET


class _TaggedDocument(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`{"events": […]}` whose events have tags."""

    events: list[TaggedEvent]
    next: str | None = None


_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_TAGGED_DOCUMENT: Final = msgspec.json.Decoder(_TaggedDocument)
_NAME_SCHEMA: Final = EventSchema(only=("series", "tags"))

# Items that are parsed together, and again one by one where one of them is odd.
_GROUP: Final = 64

# A document has three fields. This many of others are told apart, so that each can be named.
_MEMBERS_MAX: Final = 10_000

_MEMBER: Final = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_KEY_MAX_BYTES: Final = 8192

_SHAPES: Final = (
    'must be an array of events, {"events": […]}, or columns: {"series": "…", "timestamp": […], "value": […]}'
)
_ONE_TAG_FOR_ALL: Final = (
    "has one value for each tag, which is of all events of these columns: send events of other tags as an array of "
    "events, or on their own"
)


def read(body: bytes, max_events: int) -> Rows:
    plain = plain_rows.read_items(body, max_events) or plain_rows.read_columns(body, max_events)
    if plain is not None:
        return plain
    if len(body) > AT_ONCE_BYTES or not separators_fit(body, max_events):
        return _read_slowly(body, max_events)
    try:
        if body[:64].lstrip()[:1] != b"{":
            return _of_list(EVENTS.decode(body), body, max_events) or _read_slowly(body, max_events)
        document = _DOCUMENT.decode(body)
    except (ValueError, RecursionError) as error:
        tagged = _read_tagged(body, max_events) if has_tags(error) else None
        return _read_slowly(body, max_events) if tagged is None else tagged
    if isinstance(document.events, list) and document.timestamp is document.value is msgspec.UNSET:
        # `series` beside `events` is refused below, and cannot be told from its default here.
        if document.series is DEFAULT_SERIES and document.tags is msgspec.UNSET:
            rows = _of_list(document.events, body, max_events, other_commas=document.next is not None)
            return rows or _read_slowly(body, max_events)
    elif isinstance(document.timestamp, list) and isinstance(document.value, list):
        timestamps, values = document.timestamp, document.value
        series = _name_of(document)
        if (
            document.events is msgspec.UNSET
            and len(timestamps) == len(values)
            and series is not None
            and _are_once(body, document)
        ):
            require_within(len(timestamps), max_events)
            return Rows(timestamps, values, series, "index", range(len(timestamps)))
    return _read_slowly(body, max_events)


def _name_of(columns: _Document) -> str | None:
    """The canonical name of the series that all events of these columns are of; None where the schema refuses it."""
    if columns.tags is msgspec.UNSET:
        if PLAIN_NAME.match(columns.series):
            return columns.series
    elif len(memoryview(columns.tags)) > EVENT_MAX_BYTES:  # not to be parsed: 200,000 tags take 18 times their text
        return None
    named: dict[str, object] = {"series": columns.series}
    try:
        if columns.tags is not msgspec.UNSET:
            named["tags"] = parse_tags(bytes(columns.tags))
            if what_is_twice(named):
                return None
        return cast(str, _NAME_SCHEMA.load(named)["series"])
    except (ValidationError, ValueError, RecursionError):
        return None


def _are_once(body: bytes, columns: _Document) -> bool:
    """Whether beyond doubt no member of these columns is given twice."""
    timestamps = cast(list[str | int | float], columns.timestamp)
    least = 1 + (columns.series is not DEFAULT_SERIES)
    if columns.tags is not msgspec.UNSET:
        least += 1 + bytes(columns.tags).count(b",")
    first = body.find(b"[")
    second = body.find(b"[", first + 1)
    ends = body.find(b"]", first), body.find(b"]", second)
    # No other bracket is there, in a text neither: what is left without these two arrays is small.
    if body.find(b"[", second + 1) < 0 and ends == (body.rfind(b"]", first, second), body.rfind(b"]")):
        left = body[:first], body[ends[0] : second], body[ends[1] :]
        if sum(each.count(b",") for each in left) == least:
            return True
    # As Rows.of_text does.
    least += 2 * max(len(timestamps) - 1, 0)
    commas = count_commas(body)
    return commas == least or (
        b"\\" not in body and commas == least + columns.series.count(",") + commas_within(timestamps)
    )


def _read_tagged(body: bytes, max_events: int) -> Rows | None:
    """An array of events that have tags, or `{"events": […]}`; None for all else, and where one event is too long."""
    if why_not_utf8(body):  # the text of tags is not looked at
        return None
    other_commas = False
    try:
        if body[:64].lstrip()[:1] != b"{":
            events = TAGGED_EVENTS.decode(body)
        else:
            document = _TAGGED_DOCUMENT.decode(body)
            events, other_commas = document.events, document.next is not None
    except (ValueError, RecursionError):
        return None
    rows = _of_list(events, body, max_events, tagged=True, other_commas=other_commas)
    if rows is not None and max(map(len, rows.tags or [b""])) > EVENT_MAX_BYTES:
        return None
    return rows


def _of_list(
    events: Sequence[Event], body: bytes, max_events: int, *, tagged: bool = False, other_commas: bool = False
) -> Rows | None:
    """None where one of them may have a member twice. other_commas: whether the document needs one beside theirs."""
    require_within(len(events), max_events)
    around = max(len(events) - 1, 0) + other_commas
    return Rows.of_text(body, events, "index", range(len(events)), commas_around=around, tagged=tagged)


def _read_slowly(body: bytes, max_events: int) -> Rows:
    """The items of a document that msgspec did not take as a whole, found by their brackets and read one by one.

    ValidationError if it is no batch at all. 1 µs an item and 10 ns a byte, in steps of at most 64 KiB.
    """
    body = body.removeprefix(BYTE_ORDER_MARK)
    if broken := why_not_utf8(body):
        raise BadBody(f"The body {broken}.")
    at = len(body) - len(body.lstrip())
    if body.startswith(b"[", at):
        spans = _elements(body, at, len(body), max_events)
        return _rows_of_items(body[start:end] for start, end in spans)
    if body.startswith(b"{", at):
        return _rows_of_document(body, at, max_events)
    if not body.strip():
        raise BadBody('The body is empty; send JSON such as [{"timestamp": …, "value": 42.5}].')
    if len(body) <= EVENT_MAX_BYTES:
        _load(body)  # refuses what is no JSON at all
    raise ValidationError(_SHAPES)


def _elements(body: bytes, at: int, end: int, most: int) -> list[tuple[int, int]]:
    """Where the elements of the array or object lie that begins at body[at]; nothing may follow it before `end`."""
    try:
        spans, closed = find_elements(body, at, most)
    except TooMany:
        if body.startswith(b"{", at):
            raise ValidationError(f"has more than {most} fields; the body {_SHAPES}") from None
        raise too_many(f"More than {most} events", most) from None
    except TooDeep:
        raise BadBody("The JSON is nested too deeply.") from None
    except Unclosed:
        raise BadBody(f"The body is not JSON: what opens {_line_and_column(body, at)} is never closed.") from None
    if body[closed - 1] - body[at] != 2:  # the distance from [ to ], and from { to }
        unexpected = f"Unexpected {chr(body[closed - 1])} {_line_and_column(body, closed - 1)}"
        raise BadBody(f"The body is not JSON: {unexpected}.")
    if body[closed:end].strip():
        closed = end - len(body[closed:end].lstrip())
        raise BadBody(f"The body is not JSON: Extra data {_line_and_column(body, closed)}.")
    return spans


def _line_and_column(body: bytes, at: int) -> str:
    line_start = body.rfind(b"\n", 0, at) + 1
    return f"at line {count(body[:at], chr(10)) + 1} column {at - line_start + 1}"


def _rows_of_items(items: Iterable[bytes]) -> Rows:
    """The rows of items as find_elements found them: their brackets are balanced, and no comma lies between two."""
    events = [NO_EVENT]
    odd = OddItems()
    tagged = False
    items = iter(items)
    while group := list(itertools.islice(items, _GROUP)):
        try:
            if max(map(len, group)) > EVENT_MAX_BYTES:
                raise ValueError  # noqa: TRY301 (each alone, as for any other fault)
            text = b"[%s]" % b",".join(group)
            tags = False
            try:
                found: Sequence[Event] = EVENTS.decode(text)
            except msgspec.ValidationError as error:
                if not has_tags(error):
                    raise
                found = TAGGED_EVENTS.decode(text)
                tagged = tags = True
            if not Rows.of_text(text, found, "index", (), commas_around=len(found) - 1, tagged=tags):
                raise ValueError  # noqa: TRY301 (each alone)
            events += found
        except (ValueError, RecursionError):
            tagged = True
            for item in group:
                if len(item) > EVENT_MAX_BYTES:
                    odd[len(events) - 1] = TOO_LONG
                    events.append(events[-1])
                    continue
                try:
                    event = decode_event(item)
                    if not is_once(item, event):
                        raise ValueError  # noqa: TRY301
                    events.append(event)
                except (ValueError, RecursionError):
                    odd.add(len(events) - 1, item)
                    events.append(events[-1])
    del events[0]
    rows = Rows.of_events(events, "index", range(len(events)), tagged=tagged)
    rows.odd, rows.parse = odd, parse_item
    return rows


def parse_item(text: bytes, index: int) -> object:
    """An odd item of a JSON array, or its fault. BadBody where it is no JSON, as the body is none then."""
    try:
        item = _load(text)
        twice = what_is_twice(item)
        return item if twice is None else Fault(twice[1], twice[0])
    except BadBody as error:
        said = str(error.description).removeprefix("The body ").removesuffix(".")
        raise BadBody(f"The body {said}, in the item of index {index}.") from None


def _load(text: bytes) -> object:
    try:
        return loads(text.decode())
    except RecursionError:
        raise BadBody("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise BadBody(f"The body {why_not_json(error)}.") from None


def _rows_of_document(body: bytes, at: int, max_events: int) -> Rows:
    """`{"events": […]}`, or columns, each pair of whose entries becomes an item."""
    members = _members_of(body, at)
    known = ("events", "next") if "events" in members else COLUMNS
    unknown = [name for name in members if name not in known]
    if unknown:
        raise ValidationError({name: [f"is not known here; the body {_SHAPES}"] for name in unknown})

    def is_array(name: str) -> bool:
        return body.startswith(b"[", members[name][0])

    def load(name: str) -> object:
        start, end = members[name]
        if end - start > EVENT_MAX_BYTES:
            raise ValidationError({name: [TOO_LONG.reason]})
        return _load(body[start:end])

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
    tags = load("tags") if "tags" in members else {}
    if isinstance(tags, Twice):
        faults["tags"] = [cast(tuple[str, str], what_is_twice({"tags": tags}))[1]]
    elif isinstance(tags, dict) and any(isinstance(value, list) for value in tags.values()):
        faults["tags"] = [_ONE_TAG_FOR_ALL]
    else:
        try:
            series = _NAME_SCHEMA.load({"series": series, "tags": tags})["series"]
        except ValidationError as error:
            faults |= cast(dict[str, list[str]], error.messages)
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
    """Where in the body the values of the object at body[at] lie, by key. ValidationError where one is given twice."""
    members: dict[str, tuple[int, int]] = {}
    for start, end in _elements(body, at, len(body), _MEMBERS_MAX):
        member = _MEMBER.match(body[start : min(end, start + _KEY_MAX_BYTES)])
        if member is None:
            _load(b"{" + body[start : min(end, start + _KEY_MAX_BYTES)] + b"}")  # refuses what is no JSON
            raise ValidationError(f"has a field whose name is longer than {_KEY_MAX_BYTES} bytes; the body {_SHAPES}")
        name = cast(str, _load(member[1]))
        if name in members:
            raise ValidationError({name: ["is given twice: keep one of them"]})
        members[name] = (start + member.end(), end)
    return members
