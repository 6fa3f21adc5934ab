"""NDJSON bodies: one event a line. A line that cannot be read is one rejected item, not a broken body.

With a mapping the members of a line have any names, and a line has an event for each of its value members.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, cast

import msgspec
import numpy as np
from marshmallow import ValidationError
from msgspec import UNSET
from numpy.typing import NDArray

from statsapi.api.body_text import EVENT_MAX_BYTES, Twice, loads, what_is_twice, why_not_json
from statsapi.api.decoding import plain as plain_rows
from statsapi.api.decoding.mapped import Table
from statsapi.api.decoding.mapping import ColumnMapping, choose
from statsapi.api.decoding.rows import (
    AT_ONCE_BYTES,
    BYTE_ORDER_MARK,
    EVENT,
    FEW_BYTES,
    NO_EVENT,
    SHARED_FROM,
    TAGGED_EVENT,
    TOO_LONG,
    Event,
    Fault,
    OddItems,
    Rows,
    count_commas,
    decode_event,
    has_tags,
    is_once,
    require_lines_within,
    require_tags_within,
    require_within,
    separators_fit,
)
from statsapi.errors import echo

# Where texts are shared, this much of a body is decoded at once: its texts take up to ten times that first.
_PIECE_BYTES: Final = 1024 * 1024

_CSV_ALONE: Final = ("delimiter", "skip", "header")


def read(body: bytes, max_events: int) -> Rows:
    body = body.removeprefix(BYTE_ORDER_MARK)
    require_lines_within(body, "\n", max_events)
    plain = plain_rows.read_lines(body, max_events)
    if plain is not None:
        return plain
    whole = body.rstrip()
    lines = 0
    if len(body) <= AT_ONCE_BYTES and separators_fit(body, max_events):
        newlines = _newlines(whole)
        lines = _count_lines_of_objects(whole, newlines)
    if lines:
        require_within(lines, max_events)
        try:
            tagged = False
            events: Sequence[Event]
            try:
                events = EVENT.decode_lines(whole)
            except msgspec.ValidationError as error:
                if not has_tags(error) or not _lines_end_objects(whole, newlines):
                    raise
                events = TAGGED_EVENT.decode_lines(whole)
                tagged = True
        except (ValueError, RecursionError):
            pass
        else:
            if len(events) == lines:
                rows = Rows.of_text(whole, events, "line", range(1, lines + 1), commas_around=0, tagged=tagged)
                if rows is not None:
                    return rows
    return _read_line_by_line(body, max_events)


def _newlines(body: bytes) -> NDArray[np.intp]:
    return np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))


def _count_lines_of_objects(body: bytes, newlines: NDArray[np.intp]) -> int:
    """How many lines there are, if each begins with a { and is no longer than an event; 0 otherwise. 0.01 µs a line.

    msgspec also takes two events in a line, or one in two. But an event holds no object and no string a newline, so a {
    that begins a line stands outside all events: with as many events as lines, each line holds exactly one.
    """
    text = np.frombuffer(body, np.uint8)
    if body[:1] != b"{" or not (text[newlines + 1] == ord("{")).all():
        return 0
    if len(body) > EVENT_MAX_BYTES:
        longest = np.diff(newlines, prepend=-1, append=len(body)).max() - 1
        if longest > EVENT_MAX_BYTES:
            return 0
    return len(newlines) + 1


def _lines_end_objects(body: bytes, newlines: NDArray[np.intp]) -> bool:
    """Whether each line that another one follows ends with a }.

    Tags are an object within an event. But nowhere in JSON a { follows a } with blanks between them: where lines also
    begin with a {, it stands outside all events.
    """
    text = np.frombuffer(body, np.uint8)
    ends = newlines - 1
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
            event = decode_event(line)
            if not is_once(line, event):
                raise ValueError  # noqa: TRY301 (as for any other fault)
            events.append(event)
        except (ValueError, RecursionError):
            if line:
                odd.add(len(lines) - 1, line)
            events.append(events[-1])
    del events[0]
    rows = Rows.of_events(events, "line", lines, tagged=True)
    rows.odd, rows.parse = odd, _parse_event
    return rows


def _parse_event(line: bytes, row: int) -> object:
    """The event of an odd line, or what is wrong with it."""
    item = _parse_line(line, row)
    twice = what_is_twice(item)
    return item if twice is None else Fault(twice[1], twice[0])


def _parse_line(line: bytes, row: int) -> object:
    """An odd line, or what is wrong with it."""
    try:
        return loads(line.rstrip(b"\r\n").decode())
    except RecursionError:
        return Fault("is nested too deeply")
    except json.JSONDecodeError as error:
        return Fault(f"is not JSON: {error.msg} at column {error.colno}")
    except ValueError as error:
        return Fault(why_not_json(error))


# -- with a mapping ------------------------------------------------------------------------------------------------

_Scalar = str | int | float | bool | None


def read_mapped(body: bytes, max_events: int, mapping: ColumnMapping) -> Table:
    """The members that the mapping names; others are read past. ValidationError for what only CSV has.

    0.4 µs a line, 1 µs where names of members are also in nested objects or texts, and 10 µs for a line that is not
    written as the others are.
    """
    _refuse_what_csv_has(mapping)
    names = _members(mapping)
    chosen = choose(mapping, names)
    places = chosen.places
    try:
        decoder = _decoder(tuple(names), mapping.names_columns)
    except ValueError:
        raise ValidationError("a parameter names a member with a quote, a \\ or a control character in it") from None
    body = body.removeprefix(BYTE_ORDER_MARK)
    require_lines_within(body, "\n", max_events)
    whole = body.rstrip()
    labels = frozenset(chosen.tags) if len(chosen.tags) >= SHARED_FROM else frozenset()
    at_once = _decode_at_once(whole, names, mapping.names_columns, max_events // len(chosen.values), labels)
    if at_once is not None:
        lines_read, columns, given = at_once
        if _members_are_once(whole, lines_read, dict(zip(names, given, strict=True))):
            return Table(columns, range(1, lines_read + 1), {}, chosen, _lacks(body, None))
    rows: list[Any] = []
    lines: list[int] = []
    odd: dict[int, bytes | Fault] = OddItems()
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.isspace():
            continue
        require_within((len(lines) + 1) * len(chosen.values), max_events, counted=False)
        lines.append(number)
        try:
            if len(line) > EVENT_MAX_BYTES and len(line.rstrip(b"\r\n")) > EVENT_MAX_BYTES:
                odd[len(lines) - 1] = TOO_LONG
                rows.append(None)
                continue
            row = decoder.decode(line)
            if not _line_is_once(line, names):
                raise ValueError  # noqa: TRY301 (as for any other fault)
            rows.append(row)
        except (ValueError, RecursionError):
            cast(OddItems, odd).add(len(lines) - 1, line)
            rows.append(None)
    faults = {row: text if isinstance(text, Fault) else _why_odd(text, mapping, names) for row, text in odd.items()}
    stand_in = next((row for row in rows if row is not None), None)
    if faults:
        rows = [stand_in if row is None else row for row in rows]
    columns = _columns(rows, places) if stand_in is not None else {place: [None] * len(rows) for place in places}
    columns = {place: _as_null(column) for place, column in columns.items()}
    return Table(columns, lines, faults, chosen, _lacks(body, lines))


def _decode_at_once(
    body: bytes, names: list[str], others_too: bool, max_rows: int, labels: frozenset[int]
) -> tuple[int, dict[int, list[Any]], list[int]] | None:
    """How many lines there are, the columns by place, and in how many lines each member is, be it null. None unless
    each line holds one object beyond doubt, and where there are too many.

    Most bodies have in each line what they have in the first. So that is asked for first, and needs no counting.
    labels: places of columns in which equal texts are kept once.
    """
    if len(body) > AT_ONCE_BYTES and not labels:
        return None
    newlines = _newlines(body)
    lines = _count_lines_of_objects(body, newlines)
    if not 0 < lines <= max_rows or not _lines_end_objects(body, newlines):
        return None
    decoder = _decoder(tuple(names), others_too)
    try:
        first = decoder.decode(body[: newlines[0]] if len(newlines) else body)
        needed = tuple([getattr(first, f"member_{place}") is not UNSET for place in range(len(names))])
        try:
            columns = _columns_of(body, _decoder(tuple(names), others_too, needed), len(names), labels)
        except msgspec.ValidationError:
            columns, needed = _columns_of(body, decoder, len(names), labels), (False,) * len(names)
    except (ValueError, RecursionError):
        return None
    if len(columns[0]) != lines:
        return None
    given = [lines if needed[place] else lines - column.count(UNSET) for place, column in columns.items()]
    for place, times in enumerate(given):
        if times < lines:
            columns[place] = _as_null(columns[place])
    return lines, columns, given


def _columns_of(
    body: bytes, decoder: msgspec.json.Decoder[Any], width: int, labels: frozenset[int]
) -> dict[int, list[Any]]:
    """The columns of lines that hold an object each: in pieces where texts are shared, as each text is made first."""
    if not labels:
        return _columns(decoder.decode_lines(body), range(width))
    columns: dict[int, list[Any]] = {place: [] for place in range(width)}
    shared: dict[str, str] = {}
    at = 0
    while at < len(body):
        end = at + _PIECE_BYTES
        end = len(body) if end >= len(body) else body.find(b"\n", end) + 1 or len(body)
        for place, column in _columns(decoder.decode_lines(body[at:end]), range(width)).items():
            if place in labels:
                column = [shared.setdefault(text, text) if type(text) is str else text for text in column]
            columns[place] += column
        require_tags_within(len(shared))
        at = end
    return columns


def _members_are_once(body: bytes, lines: int, given: dict[str, int]) -> bool:
    """Whether beyond doubt no line has a member twice that the mapping names. given: in how many lines it is, by name.

    A line that has a member holds its name at least once. So where names stand in the body no more often than there
    are lines that have them, none has one twice, whatever else the lines hold.
    """
    first = body[: body.find(b"\n") + 1 or len(body)]
    least = sum(given.values()) - lines
    if first.count(b",") * lines == least == count_commas(body):
        return True  # as few commas as these members need, so there is nothing else
    return (not _names_are_hidden(body, given) and _names_stand_once(body, first, given)) or _all_are_once(body)


def _names_are_hidden(body: bytes, names: Iterable[str]) -> bool:
    """Whether a name may be written with an escape: "\\u0076" is v. None holds a quote, \\ or a control character."""
    if b"\\" not in body:
        return False
    letters = "".join(names)
    if "/" in letters and b"\\/" in body:
        return True
    if not _count_pairs(body, {b"\\u"}):
        return False
    starts = b"".join({b"%x" % (ord(letter) >> 4) for letter in letters if letter.isascii()})
    return not letters.isascii() or re.search(rb"\\u00[%s]" % starts, body) is not None


def _names_stand_once(body: bytes, first: bytes, given: dict[str, int]) -> bool:
    """Whether these names, with their quotes, stand in the body no more often than it is given. first: the first line.

    To count whole names takes 60 ns a name and line of 150 bytes. So of each two letters are counted that stand nowhere
    else, as far as the first line tells: 30 ns for three names.
    """
    pairs: dict[bytes, int] = {}
    for name, times in given.items():
        quoted = b'"%s"' % name.encode()
        starts = (0, len(quoted) - 2, *range(1, len(quoted) - 2)) if len(body) >= FEW_BYTES else ()
        found = (quoted[start : start + 2] for start in starts)
        pair = next((pair for pair in found if first.count(pair) <= 1 and pair not in pairs), None)
        if pair is not None:
            pairs[pair] = times
        elif body.count(quoted) > times:
            return False
    if not pairs or _count_pairs(body, pairs) <= sum(pairs.values()):
        return True
    return all(body.count(b'"%s"' % name.encode()) <= times for name, times in given.items())


def _count_pairs(body: bytes, pairs: Collection[bytes]) -> int:
    """How often one of these pairs of letters stands in the body."""
    letters = np.frombuffer(body, np.uint8)
    seconds: dict[int, list[int]] = {}
    for first, second in pairs:
        seconds.setdefault(first, []).append(second)
    step = 1 << 17  # fits the cache
    found = 0
    for at in range(0, len(body) - 1, step):
        behind = letters[at + 1 : at + 1 + step]
        here = letters[at : at + len(behind)]
        for first, wanted in seconds.items():
            either = behind == wanted[0]
            for second in wanted[1:]:
                either |= behind == second
            either &= here == first
            found += int(np.count_nonzero(either))
    return found


_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_READ_TOGETHER_BYTES: Final = 64 * 1024


def _all_are_once(body: bytes) -> bool:
    """Whether beyond doubt no line has any member twice: then it has just the commas that its members need.

    1 µs a line. Some lines at a time, as each member is an object of its own for a moment.
    """
    if b"\\u002" in body:  # a comma in a name may be an escape
        return False
    at = 0
    while at < len(body):
        end = body.find(b"\n", at + _READ_TOGETHER_BYTES) + 1 or len(body)
        text = body[at:end]
        try:
            lines = _MEMBERS.decode_lines(text)
        except (ValueError, RecursionError):
            return False
        values = b",".join(itertools.chain.from_iterable(map(dict.values, lines)))
        in_names = "".join(itertools.chain.from_iterable(lines)).count(",")
        if count_commas(text) != count_commas(values) - (len(lines) - 1) + in_names:
            return False
        at = end
    return True


def _line_is_once(line: bytes, names: list[str]) -> bool:
    """Whether a line has none of these members twice. ValueError or RecursionError as `loads`."""
    if b"\\" not in line and all(line.count(b'"%s"' % name.encode()) <= 1 for name in names):
        return True
    item = loads(line.decode())
    return not isinstance(item, Twice) or item.names.isdisjoint(names)


def _columns(rows: list[Any], places: Sequence[int]) -> dict[int, list[Any]]:
    return {place: list(map(attrgetter(f"member_{place}"), rows)) for place in places}


def _as_null(column: list[Any]) -> list[Any]:
    """With null where a line has no such member."""
    return [None if value is UNSET else value for value in column]


def _lacks(body: bytes, numbers: Sequence[int] | None) -> Callable[[int, str], bool]:
    """Whether the line of a row has no such member, not even null. numbers: its line by row, None where none is blank.

    A line is read again for it, and the body split at the first call: 1 ms for a MiB, and only where a fault is named.
    """
    lines: list[bytes] = []

    def lacks(row: int, name: str) -> bool:
        if not lines:
            lines.extend(body.split(b"\n"))
        item = _parse_line(lines[row if numbers is None else numbers[row] - 1], row)
        return isinstance(item, dict) and name not in item

    return lacks


def _refuse_what_csv_has(mapping: ColumnMapping) -> None:
    plain = ColumnMapping()
    if wrong := [name for name in _CSV_ALONE if getattr(mapping, name) != getattr(plain, name)]:
        raise ValidationError({name: ["is for CSV: a line of NDJSON says by itself what it has"] for name in wrong})


def _members(mapping: ColumnMapping) -> list[str]:
    """Those that are looked for: the mapping's, and the usual ones in place of those that it does not name."""
    names = dict.fromkeys(
        name
        for name in (mapping.timestamp, mapping.date, mapping.time, *mapping.values, mapping.series, *mapping.tags)
        if name is not None
    )
    if mapping.timestamp is None and mapping.date is None:
        names["timestamp"] = None
    if not mapping.values:
        names["value"] = None
    if not mapping.names_columns:
        names["series"] = None
    return list(names)


@lru_cache(maxsize=64)
def _decoder(names: tuple[str, ...], others_too: bool, needed: tuple[bool, ...] = ()) -> msgspec.json.Decoder[Any]:
    """Of lines with these members, UNSET where a line has none; of `others_too`, which it reads past without making
    anything of them. needed: by place, which of them must be there.
    """
    members = [f"member_{place}" for place in range(len(names))]
    fields: list[Any] = [
        (member, _Scalar) if is_needed else (member, _Scalar | msgspec.UnsetType, UNSET)
        for member, is_needed in zip(members, needed or (False,) * len(names), strict=True)
    ]
    struct = msgspec.defstruct(
        "Line",
        fields,
        rename=dict(zip(members, names, strict=True)),
        forbid_unknown_fields=not others_too,
        kw_only=True,
        gc=False,
    )
    return msgspec.json.Decoder(struct)


def _why_odd(line: bytes, mapping: ColumnMapping, names: list[str]) -> Fault:
    item = _parse_line(line, 0)
    if isinstance(item, Fault):
        return item
    if not isinstance(item, dict):
        return Fault("is not a JSON object")
    if isinstance(item, Twice) and (twice := sorted(item.names & set(names))):
        return Fault("is given twice: keep one of them", twice[0])
    for name in names:
        if isinstance(item.get(name), (dict, list)):
            return Fault(f"has {echo(name)!r} that is not one value: name a member that is a number or text")
    unknown = [echo(name) for name in item if name not in names]
    if unknown and not mapping.names_columns:
        return Fault(f"has {', '.join(unknown[:5])}, which no parameter names: name the members, timestamp= and value=")
    return Fault("cannot be read: a number in it is no float64")
