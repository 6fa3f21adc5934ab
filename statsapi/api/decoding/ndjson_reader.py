"""NDJSON bodies: one event a line. A line that cannot be read is one rejected item, not a broken body."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import cast

import msgspec
import numpy as np

from statsapi.api.bodies import EVENT_MAX_BYTES, why_not_json
from statsapi.api.decoding.rows import (
    AT_ONCE_BYTES,
    BYTE_ORDER_MARK,
    EVENT,
    NO_EVENT,
    TAGGED_EVENT,
    TOO_LONG,
    Event,
    Fault,
    OddItems,
    Rows,
    decode_event,
    has_tags,
    require_lines_within,
    require_within,
    separators_fit,
)


def read(body: bytes, max_events: int) -> Rows:
    body = body.removeprefix(BYTE_ORDER_MARK)
    require_lines_within(body, "\n", max_events)
    whole = body.rstrip()
    count = 0
    if len(body) <= AT_ONCE_BYTES and separators_fit(body, max_events):
        count = _count_lines_of_objects(whole)
    if count:
        require_within(count, max_events)
        try:
            tagged = False
            events: Sequence[Event]
            try:
                events = EVENT.decode_lines(whole)
            except msgspec.ValidationError as error:
                if not has_tags(error) or not _lines_end_objects(whole):
                    raise
                events = TAGGED_EVENT.decode_lines(whole)
                tagged = True
        except (ValueError, RecursionError):
            pass
        else:
            if len(events) == count:
                return Rows.of_events(events, "line", range(1, count + 1), tagged=tagged)
    return _read_line_by_line(body, max_events)


def _count_lines_of_objects(body: bytes) -> int:
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


def _lines_end_objects(body: bytes) -> bool:
    """Whether each line that another one follows ends with a }.

    Tags are an object within an event. But nowhere in JSON a { follows a } with blanks between them: where lines also
    begin with a {, it stands outside all events.
    """
    text = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(text == ord("\n")) - 1
    ends -= text[ends] == ord("\r")
    return bool((text[ends] == ord("}")).all())


def _read_line_by_line(body: bytes, max_events: int) -> Rows:
    """Blank lines are skipped; a line that does not hold an event alone is an odd row."""
    events = [NO_EVENT]
    odd = OddItems()
    lines: list[int] = []
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.isspace():
            continue
        require_within(len(lines) + 1, max_events, counted=False)
        lines.append(number)
        try:
            if len(line) > EVENT_MAX_BYTES and len(line.rstrip(b"\r\n")) > EVENT_MAX_BYTES:
                line, odd[len(lines) - 1] = b"", TOO_LONG
            events.append(decode_event(line))
        except (ValueError, RecursionError):
            if line:
                odd.add(len(lines) - 1, line)
            events.append(events[-1])
    del events[0]
    rows = Rows.of_events(events, "line", lines, tagged=True)
    rows.odd, rows.parse = odd, _parse_line
    return rows


def _parse_line(line: bytes, row: int) -> object:
    """An odd line, or what is wrong with it."""
    try:
        return cast(object, json.loads(line.rstrip(b"\r\n").decode()))
    except RecursionError:
        return Fault("is nested too deeply")
    except json.JSONDecodeError as error:
        return Fault(f"is not JSON: {error.msg} at column {error.colno}")
    except ValueError as error:
        return Fault(why_not_json(error))
