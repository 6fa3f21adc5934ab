"""What a reader makes of a body: its items as columns, as they were written, and the limits that all readers keep.

A body is small when it arrives (STATSAPI_MAX_BODY_BYTES) and can be large once it is parsed. So whatever could cost
much is counted before it is done: items, lines, separators, brackets, and items that only the standard parser reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import is_not
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from statsapi.api.body_text import EVENT_MAX_BYTES, Twice, loads, what_is_twice, why_not_json
from statsapi.api.refusals import TooLarge
from statsapi.model import DEFAULT_SERIES, TimestampsUs, Values

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

# A larger body is not parsed by one call: msgspec takes 2 ns a byte and 0.1 µs an event, and holds the interpreter.
AT_ONCE_BYTES: Final = 8 * 1024 * 1024

# Of each different set of tags a name is made, at 2.7 µs a tag: 99,000 rows with ten tags each, all different, took
# 2.9 s.
TAGS_MAX: Final = 200_000

# From this many columns of tags on, equal texts in them are kept once: 100,000 rows of 20 short tags took 250 MB.
SHARED_FROM: Final = 4

# In a smaller body nothing is counted first: whatever it holds, msgspec takes 5 ms and 20 MB for it. Counting in all
# bodies took 5 % of the time of decoding 10,000 events.
_COUNT_FROM_BYTES: Final = 1024 * 1024

# An event without tags has at most three fields, each with one separator. The fourth leaves room for separators that
# mean nothing. A body of more is read piece by piece: so is a large one of events that have several tags each.
_SEPARATORS_AN_EVENT: Final = 4

# This many lines may be blank, however few events are allowed.
_BLANKS_ALLOWED: Final = 200_000

# Items that the standard parser has to read one by one, 10 µs each: 100,000 of them took 1.06 s.
_ODD_MAX: Final = 60_000

# Arrays and objects in these items: reading this many takes 0.2 s.
_BRACKETS_MAX: Final = 1_000_000


# A float field takes JSON integers too, and rounds them as float() does; it refuses booleans, null and 1e400. `str`
# beside it costs nothing and keeps a batch with a "3.5" in it on the fast path. gc=False: 100,000 structs would set off
# the cyclic collector, which could find nothing in them.
class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One event with the types that its fields may have in JSON: this is what msgspec checks."""

    timestamp: str | int | float
    value: float | str
    series: str = DEFAULT_SERIES


class TaggedEvent(Event, forbid_unknown_fields=True, gc=False):
    """One event that may have tags, as they stand in the text: a batch has few sets of them, and each is parsed once.

    A type of its own, so that events without tags, nearly all there are, cost what they did.
    """

    tags: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


COLUMNS: Final = ("timestamp", "value", "series", "tags")

EVENT: Final = msgspec.json.Decoder(Event)
EVENTS: Final = msgspec.json.Decoder(list[Event])
TAGGED_EVENT: Final = msgspec.json.Decoder(TaggedEvent)
TAGGED_EVENTS: Final = msgspec.json.Decoder(list[TaggedEvent])


def has_tags(error: Exception) -> bool:
    """Whether a decoder of events without tags stopped as there are some: 0.2 µs."""
    return isinstance(error, msgspec.ValidationError) and "`tags`" in str(error)


def decode_event(text: bytes) -> Event:
    """One event, with tags or without. Raises as msgspec does where it is not written as events are."""
    try:
        return EVENT.decode(text)
    except msgspec.ValidationError as error:
        if not has_tags(error):
            raise
    return TAGGED_EVENT.decode(text)


_NO_TAGS: Final = msgspec.Raw()

# The columns of an odd row repeat the row before it; those of the first row repeat this.
NO_EVENT: Final = Event(0, 0.0)


class Fault(NamedTuple):
    """Stands for an item that could not even be read; `field` is the member at fault, where it is one."""

    reason: str
    field: str = ""


TOO_LONG: Final = Fault(f"is longer than {EVENT_MAX_BYTES} bytes, the most that an event may have")


class OddItems(dict[int, "bytes | Fault"]):
    """By row, the text of each item that does not fit the columns, or a Fault where there is no item.

    Text, since 16 MiB of small lists would be 350 MB of objects; bounded, since each will be parsed by itself.
    """

    _brackets = 0

    def add(self, row: int, text: bytes) -> None:
        """TooLarge for too many items, or too many arrays and objects in them: 16 MiB of [] took 1.4 s."""
        if len(self) == _ODD_MAX:
            raise TooLarge(
                f"More than {_ODD_MAX:,} items are not written as events are (a field given twice, NaN, another type): "
                "send fewer at once."
            )
        self._brackets += text.count(b"[") + text.count(b"{")
        if self._brackets > _BRACKETS_MAX:
            raise TooLarge(f"Items that are no events hold more than {_BRACKETS_MAX} arrays and objects together.")
        self[row] = text


@dataclass(slots=True)
class Rows:
    """The items of a body as columns of the same length, as they were written: nothing is checked yet but types.

    timestamps, values: what JSON or a text says. series: one name if all rows have it.
    counted_by, numbers: row i is the item with {counted_by: numbers[i]}, such as {"index": 3} or {"line": 5}.
    read: timestamps and values as columns, int64[n] and float64[n], where each of them has been read already.
    tags: the text of each row's tags, empty where it has none; None where no row has any.
    odd: the items that do not fit the columns, which repeat the row before there, so that timestamps stay of one width.
    parse: makes the item from an odd row's text, when that row is judged; None where `odd` holds no text.
    """

    timestamps: Sequence[str | int | float]
    values: Sequence[float | str] | Values
    series: list[str] | str
    counted_by: Literal["index", "line"]
    numbers: Sequence[int] | NDArray[np.int64]
    odd: dict[int, bytes | Fault] = field(default_factory=dict)
    parse: Callable[[bytes, int], object] | None = None
    tags: list[bytes] | None = None
    read: tuple[TimestampsUs, Values] | None = None

    @classmethod
    def of_events(
        cls,
        events: Sequence[Event],
        counted_by: Literal["index", "line"],
        numbers: Sequence[int],
        *,
        tagged: bool = False,
    ) -> Rows:
        """tagged: whether some may be TaggedEvents."""
        # Three comprehensions: attrgetter or astuple for all fields at once takes 2.5 times as long.
        timestamps = [event.timestamp for event in events]
        values = [event.value for event in events]
        series = [event.series for event in events]
        rows = cls(timestamps, values, series, counted_by, numbers)
        if tagged:
            texts = [bytes(tags) if (tags := getattr(event, "tags", _NO_TAGS)) else b"" for event in events]
            rows.tags = texts if any(texts) else None
        return rows

    @classmethod
    def of_text(
        cls,
        text: bytes,
        events: Sequence[Event],
        counted_by: Literal["index", "line"],
        numbers: Sequence[int],
        *,
        commas_around: int,
        tagged: bool = False,
    ) -> Rows | None:
        """The same for all events of a text; None where one of them may have a member twice.

        commas_around: how many the text needs outside of events. tagged: whether all are TaggedEvents. Tags are looked
        at where they are parsed.
        """
        commas, least = count_commas(text), commas_around + len(events)
        timestamps = [event.timestamp for event in events]
        values = [event.value for event in events]
        rows = cls(timestamps, values, DEFAULT_SERIES, counted_by, numbers)
        if commas == least:  # none has a series, nor tags
            return rows
        series = [event.series for event in events]
        if series.count(series[0] if series else "") == len(series) > 0:
            rows.series = series[0]
            given = 0 if series[0] == DEFAULT_SERIES else len(series)
        else:
            rows.series = series
            given = len(series) - series.count(DEFAULT_SERIES)
        if tagged:
            tags = [bytes(tags) if (tags := event.tags) else b"" for event in cast(Sequence[TaggedEvent], events)]
            least += (len(tags) if all(tags) else len(tags) - tags.count(b"")) + count_commas(b"".join(tags))
            rows.tags = tags
        if commas == least + given:
            return rows
        if given < len(series):  # the default may be written out
            given = sum(map(is_not, series, repeat(DEFAULT_SERIES)))
            if commas == least + given:
                return rows
        if b"\\" in text:  # a comma may be an escape
            names = len(events), len(events), given, sum(map(bool, rows.tags or ())), 1, 1
            return rows if _stand(text, names) else None
        given += len(series) * series[0].count(",") if isinstance(rows.series, str) else "".join(series).count(",")
        return rows if commas == least + given or commas == least + given + commas_within(timestamps) else None

    def number_of(self, row: int) -> dict[str, Any]:
        """{"index": 3} or {"line": 5}: the row as the client counts."""
        return {self.counted_by: int(self.numbers[row])}

    def item(self, row: int) -> object:
        """What the schema is to judge, or a Fault. Raises what `parse` raises: BadBody for a broken JSON array."""
        if row in self.odd:
            text = self.odd[row]
            if isinstance(text, Fault) or self.parse is None:
                return text
            parsed = self.parse(text, row)
            if isinstance(self.series, str) and isinstance(parsed, dict):  # JSON columns, which share their series
                parsed["series"] = self.series
            return parsed
        series = self.series if isinstance(self.series, str) else self.series[row]
        value = self.values[row]
        value = float(value) if isinstance(value, np.floating) else value
        item: dict[str, Any] = {"timestamp": self.timestamps[row], "value": value, "series": series}
        if self.tags is not None and (text := self.tags[row]):
            try:
                item["tags"] = parse_tags(text)
                if twice := what_is_twice(item):
                    return Fault(twice[1], twice[0])
            except RecursionError:
                return Fault("is nested too deeply")
            except ValueError as error:
                return Fault(f"has tags that cannot be read: it {why_not_json(error)}")
        return item


def parse_tags(text: bytes) -> Any:
    """The value that a TaggedEvent has as its tags. RecursionError, and ValueError for what msgspec passed over: bytes
    that are no UTF-8, and an integer of more than 4300 digits.
    """
    commas = text.count(b",")
    if text.count(b":") == commas + 1:
        tags = json.loads(text.decode())  # of bytes json guesses the encoding first, a third of its time
        if not isinstance(tags, dict) or len(tags) == commas + 1:
            return tags
    return loads(text.decode())  # one may be there twice


# -- each member once ----------------------------------------------------------------------------------------------

# msgspec takes the last of members of one name, without a word. But no event has fewer commas than its members need: so
# where a body has as few as all its events need, no member is there twice. Commas in texts are counted, too, unless a
# backslash may hide them.


def count_commas(text: bytes) -> int:
    return text.count(b",") if len(text) < FEW_BYTES else count(text, ",")


FEW_BYTES: Final = 4096  # fewer are counted faster without numpy


def commas_within(column: Sequence[str | int | float]) -> int:
    """How many commas its texts hold: as many as the JSON that they are from, where no backslash is in it."""
    return "".join([each for each in column if isinstance(each, str)]).count(",")


def is_once(text: bytes, event: Event) -> bool:
    """Whether no member of a single event, as decode_event reads it from this text, is given twice. 0.1 µs."""
    commas = text.count(b",")
    if commas == 1:
        return True
    least = 1 + (event.series is not DEFAULT_SERIES)
    if type(event) is TaggedEvent and event.tags:
        least += 1 + bytes(event.tags).count(b",")
    if commas == least:
        return True
    return _stand(text, (1,) * len(_NAMES)) or not isinstance(loads(text.decode()), Twice)


_NAMES: Final = tuple(b'"%s"' % name.encode() for name in (*COLUMNS, "events", "next"))


def _stand(text: bytes, times: Sequence[int]) -> bool:
    """Whether no name stands in the text more often than that: as a member, or as another text. One whose letters are
    written as escapes, \\u0076alue, could not be found: False where there may be such.
    """
    hidden = b"\\u006" in text or b"\\u007" in text
    return not hidden and all(text.count(name) <= most for name, most in zip(_NAMES, times, strict=True))


def require_within(received: int, max_events: int, *, counted: bool = True) -> None:
    """TooLarge for too many events; `counted` says that there are no more than these `received`."""
    if received > max_events:
        raise too_many(f"{received if counted else f'More than {max_events}'} events", max_events)


def too_many(sent: str, max_events: int) -> TooLarge:
    return TooLarge(f"{sent} were sent; one request may hold at most {max_events} (STATSAPI_MAX_BATCH_EVENTS).")


def require_tags_within(tags: int) -> None:
    """TooLarge for too many tags in the different names of a body."""
    if tags > TAGS_MAX:
        raise TooLarge(
            f"The different series of this body have {tags:,} tags together, and one request may bring {TAGS_MAX:,}: "
            "send fewer at once."
        )


def separators_fit(body: bytes, max_events: int) -> bool:
    """Whether the body has no more commas than that many events have, so that parsing it costs no more than they do.

    0.3 ms a MiB: half a hundredth of parsing it.
    """
    if len(body) < _COUNT_FROM_BYTES:
        return True
    return count(body, ",") <= _SEPARATORS_AN_EVENT * max_events + 1000


def require_lines_within(body: bytes, ends: str, max_events: int) -> None:
    """TooLarge for so many lines that most must be blank: each costs 0.1 µs."""
    if len(body) >= _COUNT_FROM_BYTES:
        lines = sum(count(body, end) for end in ends)
        if lines > max(2 * max_events, _BLANKS_ALLOWED):
            raise too_many(f"{lines} lines", max_events)


def count(body: bytes, letter: str) -> int:
    """How often an ASCII letter stands in the body. In slices, as each byte looked at takes a byte of memory."""
    letters = np.frombuffer(body, np.uint8)
    step = 1 << 20
    return sum(int(np.count_nonzero(letters[at : at + step] == ord(letter))) for at in range(0, len(body), step))
