"""A body as text: UTF-8, JSON in which a name may be given twice, and why a body cannot be read.

Nothing here knows a request: `bodies` has read the body, and `decoding` takes many events out of it.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from typing import Any, Final, cast

from statsapi.api import cures
from statsapi.errors import echo

# The largest single event: a body, a line of NDJSON or a row of CSV. It is a thousand times what an event needs. The
# standard JSON parser takes 3 ms for it at worst.
EVENT_MAX_BYTES: Final = 64 * 1024


def with_cure(refusal: str, body: bytes, sent_as: str | None) -> str:
    """The refusal, and a guess at what the body is instead, if there is one."""
    if found := cures.unreadable(body):
        return f"The body {found}."
    found = cures.cure(body, sent_as)
    return refusal if found is None else f"{refusal} {found}"


class Twice(dict[str, Any]):
    """A JSON object in which some names are given twice; it holds the last value of each."""

    names: frozenset[str]


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = Twice(found)
    counts = Counter(name for name, _ in pairs)
    twice.names = frozenset(name for name, count in counts.items() if count > 1)
    return twice


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_of_pairs)


def loads(text: str) -> object:
    """json.loads that remembers names given twice, for `what_is_twice`."""
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    return cast(object, _DECODER.decode(text))


def what_is_twice(item: object) -> tuple[str, str] | None:
    """(field, reason) for an event in which a member or a tag is given twice, which is ambiguous; else None."""
    if isinstance(item, Twice):
        return min(item.names), "is given twice: keep one of them"
    if isinstance(item, dict) and isinstance(tags := item.get("tags"), Twice):
        return "tags", f"has {echo(min(tags.names))!r} twice: keep one of them"
    return None


def why_not_json(error: ValueError) -> str:
    """The reason for an error that json.loads raised, to follow "the body" or "the line"."""
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(error, error.start)
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error}"
    return "holds an integer of more than 4300 digits"  # the interpreter's own limit


def _not_utf8(error: UnicodeDecodeError, at: int) -> str:
    letter = error.object[error.start : error.start + 1].decode("cp1252", "replace")
    return (
        f"is not UTF-8: {error.reason} at byte {at}, which would be {letter!r} in Latin-1 (Windows-1252): send UTF-8 "
        "(iconv -f WINDOWS-1252 -t UTF-8 FILE)"
    )


def why_not_utf8(body: bytes) -> str | None:
    """The reason why a body of any length is not UTF-8, found in steps; None where it is UTF-8."""
    if body.isascii():
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    step = 1 << 20
    for at in range(0, len(body) + 1, step):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(body[at : at + step], final=at + step >= len(body))
        except UnicodeDecodeError as error:
            return _not_utf8(error, at - held + error.start)
    return None
