"""The queries that would take somebody's table as it is, for a refusal to show; found in its first lines.

Each query is tried on those lines before it is shown, so a client that follows it to the letter is taken. Where a file
has two readings (11/12/2026, two columns of times) both are proposed; where 1.052 may be 1052, the refusal says so.
What a person named stays what it was named for, and a column of values is never proposed as a tag. Cells that hold no
number (empty, `N/A`, `5 ms`) are named by line.

One kind of file is read without being asked, as nothing else can be meant: a time under a usual name and one other
column, of numbers (`understand`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

from marshmallow import ValidationError

from statsapi.api.decoding.cells import NUMBER
from statsapi.api.decoding.guessed_columns import ambiguous_number, guess_mappings, split_number
from statsapi.api.decoding.guessed_formats import EnoughRead, TimeReader
from statsapi.api.decoding.mapping import TIME_NAMES, ColumnMapping
from statsapi.api.decoding.rows import BYTE_ORDER_MARK
from statsapi.api.decoding.table_head import Head, csv_heads, first_rows, ndjson_heads
from statsapi.api.refusals import BadBody, TooLarge
from statsapi.errors import echo

# This much of a body is looked at: enough to tell days from months, and done in some milliseconds.
_HEAD_BYTES: Final = 16 * 1024

_QUERY_MAX: Final = 1000
_PROPOSALS_MAX: Final = 3
_TRIED_MAX: Final = 20


class Tried(NamedTuple):
    """What a mapping makes of some lines: {"line", "field", "reason"} for each fault, and how many events are good."""

    faults: list[dict[str, Any]]
    good: int


TryOn = Callable[[bytes, ColumnMapping | None], Tried]


class Proposal(NamedTuple):
    """A query, and what a person has to know before using it.

    as_utc: whether it reads as UTC what may be local times. ambiguous: a number that it reads with three decimals and
    that may be thousands. fault: the first fault in those lines, as "line 2, cpu: is empty". mend: whether cells have
    to be mended first; else the query leaves out what is at fault. left_out: why a column with numbers is not taken.
    split: two fields that may be one number with a decimal comma.
    """

    query: str
    as_utc: bool
    ambiguous: str | None = None
    fault: str | None = None
    mend: bool = False
    left_out: str | None = None
    split: tuple[str, str] | None = None


def understand(body: bytes) -> ColumnMapping | None:
    """The only mapping that a CSV can have: a time under a usual name and one other column, which has a number in the
    first row. None for any other body, and for one that needs no mapping. 20 µs.
    """
    if body.startswith(b"timestamp,value"):  # nearly all bodies
        return None
    head = body[:_HEAD_BYTES].removeprefix(BYTE_ORDER_MARK)
    if b"," not in head:
        return None
    rows = first_rows(head.decode("utf-8", "replace"), ",", 0, 2)[0]
    if len(rows) < 2 or len(rows[0]) != 2 or len(rows[1]) != 2:
        return None
    names = [name.strip() for name in rows[0]]
    if set(names) == {"timestamp", "value"} or names[0].lower() == names[1].lower():
        return None
    times = [at for at, name in enumerate(names) if name.lower() in TIME_NAMES]
    if len(times) != 1:
        return None
    other = 1 - times[0]
    if not names[other] or names[other] == "series" or not NUMBER.fullmatch(rows[1][other]):
        return None
    return ColumnMapping(timestamp=names[times[0]], values=(names[other],))


def propose(body: bytes, is_csv: bool, asked: ColumnMapping | None, try_on: TryOn) -> list[Proposal]:
    """The queries that take the body as it is, at most three: several where it has several readings. Where there is
    none, those that take it once some cells are mended. What was `asked` for is kept.

    try_on: reads some bytes by a mapping, as the service would. Some milliseconds, for refusals only.
    """
    head = body[:_HEAD_BYTES].removeprefix(BYTE_ORDER_MARK)
    if len(body) > _HEAD_BYTES:
        head = head[: head.rfind(b"\n") + 1]
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return []
    plain = _try(try_on, head, asked)
    if plain is not None and not plain.faults and plain.good:  # the body was refused for something else
        return []
    given, asked = asked, asked or ColumnMapping()
    reader = TimeReader()
    heads = csv_heads(text, asked, reader) if is_csv else ndjson_heads(text, asked, reader)
    shown: list[Proposal] = []
    tried: set[str] = set()
    with suppress(EnoughRead):
        for found in heads:
            sample = b"".join(head.splitlines(keepends=True)[: found.lines])
            for mapping, mend, left_out in guess_mappings(found):
                query = mapping.query()
                if len(query) > _QUERY_MAX or query in tried or not query:
                    continue
                tried.add(query)
                if len(tried) > _TRIED_MAX:
                    raise EnoughRead
                seen = _try(try_on, sample, mapping)
                if not _are_of_cells(seen, mapping) and mapping.tags != asked.tags and "tags" not in found.names:
                    # The texts of tags may be refused, so try without. A column that is called series or tags stays.
                    mapping = replace(mapping, tags=asked.tags)
                    seen = _try(try_on, sample, mapping)
                if seen is None or not _are_of_cells(seen, mapping) or not (seen.good or mend):
                    continue
                before = _try(try_on, sample, given) if plain and plain.faults and seen.faults else None
                if before is not None and len(seen.faults) >= len(before.faults):
                    return []  # no better than before, and the faults have been named
                query = mapping.query() + ("&partial=true" if seen.faults and not mend else "")
                fault = "line {line}, {field}: {reason}".format_map(seen.faults[0]) if seen.faults else None
                ambiguous, split = ambiguous_number(found, mapping), split_number(found, mapping)
                shown.append(Proposal(query, _are_naive(found, mapping), ambiguous, fault, mend, left_out, split))
            if shown:
                break
    return ([proposal for proposal in shown if not proposal.mend] or shown)[:_PROPOSALS_MAX]


def _try(try_on: TryOn, sample: bytes, mapping: ColumnMapping | None) -> Tried | None:
    """What the mapping makes of the sample; None where that cannot be read at all."""
    try:
        return try_on(sample, mapping)
    except (ValidationError, BadBody, TooLarge):
        return None


def _are_of_cells(seen: Tried | None, mapping: ColumnMapping) -> bool:
    """Whether nothing is at fault but values and empty times."""
    if seen is None:
        return False
    called = "" if mapping.header else "column "
    values = {echo(called + name) for name in mapping.values}
    return all(fault["field"] in values or fault["reason"].startswith("is empty") for fault in seen.faults)


def _are_naive(head: Head, mapping: ColumnMapping) -> bool:
    """Whether times would be taken for UTC for want of an offset or a zone."""
    if mapping.timestamp is None:
        return mapping.clock.zone is None
    try:
        return any(map(mapping.clock.lacks_offset, head.column(head.names.index(mapping.timestamp))))
    except ValueError:
        return False


# -- the words of a refusal ----------------------------------------------------------------------------------------


def as_sentence(found: Sequence[Proposal], said: str) -> str:
    """The end of a sentence that refuses a body: the queries that take it; "" where none is known. A reason that was
    `said` before is left out.
    """
    if not found:
        return ""
    shown = " or ".join(f"'/events?{proposal.query}'" for proposal in found)
    which = ", whichever is meant" if len(found) > 1 else ""
    first = found[0]
    notes = []
    if any(proposal.as_utc for proposal in found):
        notes.append("its times are UTC then; for local ones add &timezone=Europe/Berlin or the like")
    if first.ambiguous is not None:
        number, sign = first.ambiguous, "commas" if "," in first.ambiguous else "points"
        small, large = number.replace(",", "."), re.sub("[.,]", "", number)
        notes.append(
            f"{number} is read as {small} then, with three decimals; where {large} is meant, take the {sign} out of "
            "the numbers first"
        )
    if first.split is not None:
        one, other = first.split
        notes.append(f"{one} and {other} are two values then; where {one},{other} is one number, put it into quotes")
    if first.left_out is not None:
        notes.append(f"its column {first.left_out}")
    told = "".join(f" ({note})" for note in notes)
    if first.fault is None:
        return f"; as it is, this goes to POST {shown}{which}{told}"
    if first.mend:
        if said and first.fault.endswith(f": {said}"):
            return f"; with all such cells mended this goes to POST {shown}{which}{told}"
        return f"; {first.fault}; with all such cells mended this goes to POST {shown}{which}{told}"
    return f"; as it is, this goes to POST {shown}{which}, without what is at fault ({first.fault}){told}"
