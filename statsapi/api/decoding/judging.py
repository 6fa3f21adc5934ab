"""Rows as they were written -> events by series, or the reasons why some are none.

The fast way takes only what `EventSchema` takes, and makes the same events of it. Any row that it is unsure of goes to
the schema, which accepts it or names what is at fault.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from operator import methodcaller
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from statsapi.api.body_text import Twice
from statsapi.api.decoding import mapped
from statsapi.api.decoding.local_times import Clock
from statsapi.api.decoding.mapping import ColumnMapping
from statsapi.api.decoding.rows import COLUMNS, Fault, Rows, parse_tags, require_tags_within
from statsapi.api.decoding.timestamps import Mask, read_timestamps_us
from statsapi.api.problems import ERRORS_NAMED_MAX, flatten
from statsapi.api.schemas import EventSchema
from statsapi.model import DEFAULT_SERIES, EventBatch, Part, Parts, TimestampsUs, Values
from statsapi.naming.names import PLAIN_NAME, canonical_name, canonical_names, fold_tags
from statsapi.service.admission import ANY_TIME, Accepted
from statsapi.times import parse_timestamp_us

_SCHEMA: Final = EventSchema()

KeyT = TypeVar("KeyT")


class Sent(NamedTuple):
    """The rows in the order they were sent, for notes about some of them.

    good: bool[n], which rows are events. ts_us: int64[n], without meaning for the others. clock: how the timestamps of
    a table were read.
    """

    ts_us: TimestampsUs
    good: Mask
    rows: Rows
    clock: Clock | None = None

    def number_of(self, row: int) -> dict[str, Any]:
        """{"index": 3} or {"line": 5}: the row as the client counts."""
        return self.rows.number_of(row)

    def timestamps(self, rows: Sequence[int]) -> list[Any]:
        """The timestamps of these good rows, as they were written."""
        written: list[Any] = [self.rows.timestamps[row] for row in rows]
        if self.rows.odd:
            odd = [cast(Any, self.rows.item(row)) if row in self.rows.odd else None for row in rows]
            written = [time if item is None else item["timestamp"] for time, item in zip(written, odd, strict=True)]
        return written


class Decoded(NamedTuple):
    """What a body held: `received` items, of which `batch` holds the good ones and `rejected` counts the others.

    The batch has a part for each series, in the order they first appear; within one, events in order of arrival.
    `errors` names the rejected in order, one entry a reason, at most ERRORS_NAMED_MAX of them:
    {"index": 3, "field": "value", "reason": "…"}. `index` counts items from 0; NDJSON and CSV say `line` instead, the
    line of the body from 1. The field "" is the item as a whole.
    """

    batch: EventBatch
    received: int
    rejected: int
    errors: list[dict[str, Any]]
    sent: Sent
    mapping: ColumnMapping | None = None  # by which it was read
    empty: int = 0  # fields without a value, in a table with several value columns; `received` does not count them
    table_rows: int | None = None  # where a row may hold several events

    def shifted(self, shift_us: int) -> Decoded:
        """The same, with each event moved by that."""
        parts = Parts.of(self.batch.parts)
        moved = Parts(parts.names, parts.counts, parts.ts_us + shift_us, parts.values)
        return self._replace(batch=EventBatch(moved), sent=self.sent._replace(ts_us=self.sent.ts_us + shift_us))

    @property
    def rows(self) -> int:
        """How many items or lines there were."""
        return self.received if self.table_rows is None else self.table_rows


def judge(rows: Rows, accepted: Accepted) -> Decoded:
    """Reads the columns, lets the schema decide on the rows in doubt, and gathers the good ones by series.

    An event whose timestamp is not `accepted` is rejected.
    """
    received = len(rows.timestamps)
    if rows.read is not None:
        ts_us, values = rows.read
        good = np.ones(received, np.bool_)
    else:
        ts_us, good = read_timestamps_us(cast(list[str | int | float], rows.timestamps))
        values = _floats(cast(list[float | str], rows.values))
        good &= np.isfinite(values)
    names, codes, bad_names = _name_series(rows)
    if bad_names is not None:
        good &= ~bad_names
    good[list(rows.odd)] = False
    if accepted is not ANY_TIME:
        good &= (ts_us >= accepted.first_us) & (ts_us <= accepted.last_us)

    errors: list[dict[str, Any]] = []
    code_of: dict[str, int] = {}
    for row in np.flatnonzero(~good).tolist():
        # Only an odd row can still be good: any other was refused by the functions that the schema itself calls. So it
        # is not made where its fault would not be named: 280 events with 6,800 tags each took 1 s.
        odd = row in rows.odd
        if not odd and len(errors) == ERRORS_NAMED_MAX:
            continue
        item = rows.item(row)
        event = _read_item(item) if odd else None
        if event is None and len(errors) == ERRORS_NAMED_MAX:
            continue
        if isinstance(item, Fault):
            faults = [(item.field, item.reason)]
        else:
            try:
                event = event or _SCHEMA.load(cast(Any, item))
            except ValidationError as error:
                faults = list(flatten(error.messages))
            else:
                refusal = accepted.why_not(event["timestamp"])
                if refusal is None:
                    ts_us[row], values[row], good[row] = event["timestamp"], event["value"], True
                    code_of = code_of or {name: code for code, name in enumerate(names)}
                    codes[row] = code_of.setdefault(event["series"], len(code_of))
                    continue
                faults = [("timestamp", refusal)]
        errors += [{**rows.number_of(row), "field": name, "reason": reason} for name, reason in faults]
        del errors[ERRORS_NAMED_MAX:]
    names = list(code_of) or names
    rejected = received - int(np.count_nonzero(good))
    batch = EventBatch(parts_of(names, codes, ts_us, values, good))
    # What the batch holds is not kept twice while it is recorded: 5 to 10 MB of 100,000 events.
    rows = replace(rows, values=[], series=DEFAULT_SERIES, tags=None, read=None)
    return Decoded(batch, received, rejected, errors, Sent(ts_us, good, rows))


def judge_table(table: mapped.Table, accepted: Accepted) -> Decoded:
    """The same for the columns of a table that a mapping names."""
    wide = len(table.chosen.values)
    names, codes, ts_us, values, good, empty, errors, times = mapped.judge(table, accepted)
    numbers = table.lines if wide == 1 else np.repeat(np.array(table.lines, np.int64), wide).tolist()
    rows = Rows(times, cast(list[float | str], []), DEFAULT_SERIES, "line", numbers)
    received = len(values) - empty
    rejected = received - int(np.count_nonzero(good))
    mapping = table.chosen.mapping
    batch = EventBatch(parts_of(names or [DEFAULT_SERIES], codes, ts_us, values, good))
    sent = Sent(ts_us, good, rows, mapping.clock)
    return Decoded(batch, received, rejected, errors, sent, mapping, empty, len(table.lines))


def _read_item(item: object) -> dict[str, Any] | None:
    """What the schema makes of a parsed item, at a twentieth of its cost; None where the schema has to decide."""
    if not isinstance(item, dict) or not item.keys() <= set(COLUMNS):
        return None  # a Fault too
    timestamp, value, series = item.get("timestamp"), item.get("value"), item.get("series", DEFAULT_SERIES)
    if type(value) not in (int, float, str) or type(series) is not str:
        return None
    try:
        series = canonical_name(series)
        if "tags" in item:
            if not isinstance(item["tags"], dict):
                return None
            series = fold_tags(series, item["tags"])
        number = float(cast(Any, value))
        if isfinite(number):
            return {"timestamp": parse_timestamp_us(timestamp), "value": number, "series": series}
    except (ValueError, OverflowError):
        pass
    return None


def fold_text(series: str, text: bytes) -> str:
    """The canonical name with the tags of a TaggedEvent. Raises ValueError or RecursionError where the schema refuses
    them.
    """
    tags = parse_tags(text)
    if not isinstance(tags, dict) or isinstance(tags, Twice):
        raise ValueError  # noqa: TRY004 (not the caller's fault, but the client's)
    return fold_tags(series, tags)


def _name_with_tags(name: str, text: bytes) -> str | None:
    try:
        return fold_text(name, text) if text else canonical_name(name)
    except (ValueError, RecursionError):
        return None


_SEMICOLONS: Final = methodcaller("count", ";")  # each begins a tag within a name


def _name_series(rows: Rows) -> tuple[list[str], NDArray[np.uint32], Mask | None]:
    """The distinct canonical names; the code of each row's name, its place among them; and which rows have no name,
    bool[n], or None where all have one.

    Each way to write a name, and each text of tags beside it, is looked at once.
    """
    received = len(rows.timestamps)
    if rows.tags is None:
        if isinstance(rows.series, str):
            written, codes = [rows.series], np.zeros(received, np.uint32)
        else:
            written, codes = _factorize(rows.series, received)
        if all(map(PLAIN_NAME.match, written)):
            return written, codes, None
        texts: list[bytes] = []
    else:
        series = [rows.series] * received if isinstance(rows.series, str) else rows.series
        pairs, codes = _factorize(list(zip(series, rows.tags, strict=True)), received)
        written, texts = [name for name, _ in pairs], [text for _, text in pairs]
    require_tags_within(sum(map(_SEMICOLONS, written)) + sum(text.count(b":") for text in texts))
    code_of: dict[str, int] = {}
    recoded = np.zeros(len(written), np.uint32)
    bad = np.zeros(len(written), np.bool_)
    names = canonical_names(written) if rows.tags is None else map(_name_with_tags, written, texts)
    for code, name in enumerate(names):
        if name is None:
            bad[code] = True
        else:
            recoded[code] = code_of.setdefault(name, len(code_of))
    return list(code_of), recoded[codes], bad[codes]


def _factorize(series: list[KeyT], rows: int) -> tuple[list[KeyT], NDArray[np.uint32]]:
    """The distinct names in order of appearance, and for each row the code of its name: its place among them."""
    if series and series.count(series[0]) == rows:  # 1-5 ns a row, the dict 50
        return series[:1], np.zeros(rows, np.uint32)
    code_of: defaultdict[KeyT, int] = defaultdict(itertools.count().__next__)
    codes = np.fromiter(map(code_of.__getitem__, series), np.uint32, rows)
    return list(code_of), codes


def parts_of(
    names: list[str], codes: NDArray[np.uint32], ts_us: TimestampsUs, values: Values, good: Mask
) -> Sequence[Part]:
    """The good rows by series; row i is of series names[codes[i]]. All parts are views of the same columns, which are
    sorted by series once: O(rows + series).
    """
    if not good.all():
        codes, ts_us, values = codes[good], ts_us[good], values[good]
    if len(names) == 1:
        return (Part(names[0], ts_us, values),) if len(ts_us) else ()
    # numpy sorts 16 bits by radix: 5 ns a row, against 60 for wider integers.
    order = np.argsort(codes.astype(np.uint16) if len(names) <= 1 << 16 else codes, kind="stable")
    counts = np.bincount(codes, minlength=len(names))
    if not counts.all():
        names, counts = list(itertools.compress(names, counts.tolist())), counts[counts > 0]
    return Parts(names, counts, ts_us[order], values[order])


def _floats(written: list[float | str]) -> Values:
    """float() of each; NaN for a text that is no number."""
    try:
        return np.fromiter(written, np.float64, len(written))  # calls float() for a string
    except ValueError:
        return np.fromiter(map(_float_or_nan, written), np.float64, len(written))


def _float_or_nan(value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("nan")
