"""The names of series, and the tags that a name may carry.

    latency;route=/users;status=200        base;key=value;key=value

The name is the series: one set of tags has one *canonical* string, with its keys sorted, each once, in Unicode's
normal form NFC. Whatever comes in is brought into that form here, or refused with what is wrong and what to write
instead. Store and journal know nothing of tags.

A name is printable Unicode text of 1 to NAME_MAX characters. It has no blank at either end, and does not begin with
= + - or @, which spreadsheets run. `;` only separates tags. So `/api/users`, `GET /users` and `Länge` are names.

Whatever holds letters beyond ASCII is normalized by `normalized` alone, which refuses what would take long.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from statsapi.errors import echo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME_MAX: Final = 200

NAME_RULE: Final = (
    f"must be 1 to {NAME_MAX} printable characters, without a blank at either end, and not begin with = + - or @; "
    "a semicolon separates tags: base;key=value"
)

# More tags fit in no name: each takes four of its characters, as `;k=v` does.
TAGS_MAX: Final = NAME_MAX // 4

# A character of the form NFC is made of this many at most: U+1F82 is.
DECOMPOSED_MAX: Final = 4

# Combining marks behind one character. Unicode's Stream-Safe Text Format (UAX #15, section 13) allows 30, more than any
# script needs. To sort marks takes the square of their number: of 30 3 µs, of 800 1.8 ms, of 32,000 1.1 s in one call.
MARKS_MAX: Final = 30
_MARKS_TO: Final = 0x20000  # no code point from here on is a mark

_RUN_BY_SPREADSHEETS: Final = "=+-@"
_BEGINS_NO_NAME: Final = frozenset(("", " ", *_RUN_BY_SPREADSHEETS))

PLAIN_NAME: Final = re.compile(r"(?![=+\-@ ])[ -:<-~]{0,199}[!-:<-~]\Z", re.ASCII)
"""Nearly every name: ASCII without tags, which is canonical as it stands. 0.2 µs, and not more for a longer one."""

# As many as stand in some batches. The longest names take 5 MB.
_REMEMBERED: Final = 4096
_TOO_MANY_MARKS: Final = b"\1" * (MARKS_MAX + 1)  # as `_marks_of` tells them
_TEXTS_AT_ONCE: Final = 1000
_JOINED_MAX: Final = _TEXTS_AT_ONCE * NAME_MAX
_CACHED_MAX: Final = 2 * NAME_MAX  # a name in another form; what is longer is hardly one


def canonical_name(text: str) -> str:
    """The one string for that series. 0.3 µs for ASCII without tags, 0.6 to 3 µs for what else has no tags, 0.3 µs for
    names met lately, some µs else.

    Raises ValueError where it is no name, with a sentence that says what is wrong and how to mend it.
    """
    return _canonical(text, few_marks=False)


def canonical_names(texts: Sequence[str]) -> Iterator[str | None]:
    """The canonical name of each text; None for what is no name.

    As `canonical_name`, but marks are looked for in many texts at once: one of more than 30 characters beyond ASCII
    costs 2 µs less.
    """
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[start : start + _TEXTS_AT_ONCE]
        few_marks = sum(map(len, some)) <= _JOINED_MAX and _have_few_marks("\n".join(some))
        for text in some:
            try:
                yield _canonical(text, few_marks)
            except ValueError:
                yield None


def lines_with_many_marks(text: str) -> list[int]:
    """Which lines have more than MARKS_MAX combining marks behind one character, by rising number from 0. 2 ns a
    character.
    """
    found = _marks_of(text)
    lines, line, at = [], 0, 0
    while (run := found.find(_TOO_MANY_MARKS, at)) >= 0:
        line += text.count("\n", at, run)
        lines.append(line)
        at = text.find("\n", run)
        if at < 0:
            break
    return lines


def _have_few_marks(joined: str) -> bool:
    """Whether no joined text has too many marks in a row: the whole would have that run too. Of ASCII, which has none,
    nobody needs to know.
    """
    return not joined.isascii() and _TOO_MANY_MARKS not in _marks_of(joined)


def _canonical(text: str, few_marks: bool) -> str:
    if PLAIN_NAME.match(text):
        return text
    if ";" not in text:
        text = normalized(text, few_marks=few_marks)
        if text.isprintable() and text[:1] not in _BEGINS_NO_NAME and text[-1] != " " and len(text) <= NAME_MAX:
            return text
        return _taken_apart(text)
    return _canonical_name(text) if len(text) <= _CACHED_MAX else _canonical_name.__wrapped__(text)


def normalized(text: str, most: int = NAME_MAX, *, few_marks: bool = False) -> str:
    """The text in Unicode's normal form NFC; unchecked where it is ASCII, which is in that form as it stands.

    0.1 µs for ASCII, else 1.5 µs for more than 30 characters, and what normalizing takes: 35 µs for 800 at the worst.

    Raises ValueError where the text would have more than `most` characters, or has more than MARKS_MAX combining marks
    behind one: before it is normalized, whatever its size. few_marks: the caller knows that there are not.
    """
    if text.isascii():
        return text
    length = len(text)
    if length > DECOMPOSED_MAX * most:
        raise ValueError(f"has {length} characters: {most} at most")
    if length > (most if few_marks else MARKS_MAX):
        found = _marks_of(text)
        marks = found.count(1)
        if marks > MARKS_MAX and _TOO_MANY_MARKS in found:
            raise ValueError(f"has more combining marks in a row than any letter needs: {MARKS_MAX} at most")
        # This many marks stay at least, even if each other character takes in as many as it can.
        if marks - (DECOMPOSED_MAX - 1) * (length - marks) > most:
            raise ValueError(f"has {length} characters: {most} at most")
    return unicodedata.normalize("NFC", text)


def _marks_of(text: str) -> bytes:
    """Of each character 1 if it is a combining mark, else 0. 1.5 to 3 µs, where `unicodedata` takes 35 ns each."""
    import numpy as np  # few names need it, and a command that sends some starts 60 ms sooner without

    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    marks: bytes = _mark_table().take(points, mode="clip").tobytes()
    return marks


@cache
def _mark_table() -> NDArray[np.uint8]:
    """The same for each code point of the first two planes; there are no marks in the others. 8 ms, once."""
    import numpy as np

    return np.fromiter(map(bool, map(unicodedata.combining, map(chr, range(_MARKS_TO)))), np.uint8, _MARKS_TO)


@lru_cache(_REMEMBERED)
def _canonical_name(text: str) -> str:
    return _taken_apart(normalized(text))


def _taken_apart(text: str) -> str:
    """The canonical name of a text in normal form, with its tags in order."""
    _require_text(text, "it", "")
    base, *parts = text.split(";")
    tags: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"has {echo(part)!r} behind a semicolon, where a tag belongs: write base;key=value, or no semicolon"
            )
        _add_tag(tags, key, value)
    return _join(base, tags)


def fold_tags(name: str, tags: Mapping[str, Any]) -> str:
    """The canonical name of `name` (which may carry tags too) with these tags. Some µs.

    A value is a string, an integer or a boolean, which are written as JSON does. Raises ValueError as
    `canonical_name` does.
    """
    if len(tags) > TAGS_MAX:
        raise ValueError(f"has {len(tags):,} tags, of which {TAGS_MAX} fit into its {NAME_MAX} characters at most")
    base, held = split_name(canonical_name(name))
    for key, value in tags.items():
        text = value if isinstance(value, str) else _as_text(key, value)
        _add_tag(held, normalized(key), normalized(text))
    return _join(base, held)


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """Base and tags of a canonical name."""
    base, *parts = name.split(";")
    return base, {key: value for key, _, value in (part.partition("=") for part in parts)}


def tag_value(name: str, key: str) -> str | None:
    """The value of that tag in a canonical name; None where it has none. 0.2 µs: the name itself is the index."""
    sought = f";{key}="
    at = name.find(sought)
    if at < 0:
        return None
    first = at + len(sought)
    end = name.find(";", first)
    return name[first:] if end < 0 else name[first:end]


def canonical_key(text: str) -> str:
    """A tag's key, as names hold it. Raises ValueError as `canonical_name` does."""
    key = normalized(text)
    _require_key(key)
    return key


def _as_text(key: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case None:
            kind = "null"
        case float():
            kind = "a number with decimals"
        case _:
            kind = "not one value"
    raise ValueError(f"has a tag {echo(key)!r} that is {kind}: give it as a string, or leave it out")


def _add_tag(tags: dict[str, str], key: str, value: str) -> None:
    _require_key(key)
    if not value:
        raise ValueError(f"has a tag {echo(key)!r} without a value: give it one, or leave the tag out")
    if ";" in value:
        raise ValueError(f"has a tag {echo(key)!r} whose value holds a semicolon, which separates tags: write another")
    _require_text(value, "the value of its tag {!r}", key)
    if tags.setdefault(key, value) != value:
        raise ValueError(
            f"has the tag {echo(key)!r} twice, as {echo(tags[key])!r} and as {echo(value)!r}: keep one of them"
        )


def _require_key(key: str) -> None:
    if not key:
        raise ValueError("has a tag without a key: write base;key=value")
    if "=" in key or ";" in key:
        raise ValueError(f"has a tag whose key {echo(key)!r} holds = or ;, which end a key: write another character")
    _require_text(key, "the key {!r} of a tag", key)


def _require_text(text: str, what: str, key: str) -> None:
    """That it is printable, and has no blank at its ends. `what` is how to call it, with a place for the key."""
    if not text.isprintable():
        odd = next(character for character in text if not character.isprintable())
        called = unicodedata.name(odd, "a control character" if unicodedata.category(odd) == "Cc" else "no character")
        raise ValueError(f"holds U+{ord(odd):04X} ({called}), which cannot be printed: leave it out")
    if text[:1] == " " or text[-1:] == " ":
        raise ValueError(f"has a blank at an end: {what.format(echo(key))} must not begin or end with one")


def _join(base: str, tags: dict[str, str]) -> str:
    if not base:
        raise ValueError("is empty before its tags: write base;key=value" if tags else "is empty: give it a name")
    if base[-1] == " ":
        raise ValueError("has a blank before the semicolon: leave it out")
    if base[0] in _RUN_BY_SPREADSHEETS:
        raise ValueError(f"begins with {base[0]}, which spreadsheets take for a formula: begin with another character")
    name = ";".join([base, *(f"{key}={tags[key]}" for key in sorted(tags))])
    if len(name) > NAME_MAX:
        raise ValueError(f"has {len(name)} characters, with its tags: {NAME_MAX} at most")
    return name
