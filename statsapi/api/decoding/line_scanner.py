"""One line of line protocol that is not plain, or in doubt: read by regular expressions into its point, or refused.

It takes all that InfluxDB takes in a line: escapes, strings, comments, any number of blanks. A line, a tag and a field
cost at most 10 µs each.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from statsapi.api.body_text import EVENT_MAX_BYTES
from statsapi.api.decoding.line_series import TOKEN_MAX_BYTES, base_of, name_series
from statsapi.api.decoding.line_words import precision_meant, read_number, read_timestamp, to_us
from statsapi.api.decoding.rows import TOO_LONG
from statsapi.api.refusals import BadBody
from statsapi.errors import echo
from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.naming.names import NAME_MAX, TAGS_MAX


class LineFault(Exception):
    """Why a line holds no point. `field` is the key, or "timestamp", "tags" or "series"; "" is the line as a whole."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason


class Point(NamedTuple):
    """What a line says. numbers: (key, value) of each field that is one; strings: how many fields are text; time: the
    timestamp as it was written, None where there is none.
    """

    measurement: str
    tags: tuple[tuple[str, str], ...]
    numbers: list[tuple[str, float]]
    strings: int
    time: int | None

    def ts_us(self, unit_us: int) -> int | None:
        """The time in µs; None where the line has none. Raises LineFault for a year that no timestamp can be of."""
        if self.time is None:
            return None
        ts_us = to_us(self.time, unit_us)
        if not MIN_TS_US <= ts_us <= MAX_TS_US:
            meant = precision_meant(self.time, unit_us)
            cure = f"it looks like {meant}, so write with precision={meant}" if meant else "is precision= right?"
            raise LineFault("timestamp", f"is {self.time}, which lies outside the years 1 to 9999: {cure}")
        return ts_us

    def by_series(self) -> dict[str, float]:
        """The value by the name of its series. Raises LineFault for what can be no name, and for a name twice."""
        found: dict[str, float] = {}
        for key, value in self.numbers:
            try:
                name = name_series(self.measurement, self.tags, key)
            except ValueError as error:
                raise LineFault("series", f"{echo(base_of(self.measurement, key))} {error}") from None
            if name in found:
                raise LineFault(key, _TWICE)  # two keys that Unicode normalizes to one
            found[name] = value
        return found


_TWICE: Final = "is there twice in this point: keep one of the two"

# Before a separator a backslash takes its meaning, and elsewhere it is a letter. All quantifiers are possessive, so no
# pattern goes back over what it has matched.
_BLANKS: Final = re.compile(rb"[ \t]*+")
_MEASUREMENT: Final = re.compile(rb"(?:[^\\, \n]++|\\[, ]?+)*+")
_TAG: Final = re.compile(rb"(?:[^\\,= \n]++|\\[,= ]?+)*+")
_TAG_PAIR: Final = re.compile(rb",((?:[^\\,= \n]++|\\[,= ]?+)++)=((?:[^\\,= \n]++|\\[,= ]?+)++)(?!=)")
_TAG_PAIRS: Final = re.compile(rb"(?:,(?:[^\\,= \n]++|\\[,= ]?+)++=(?:[^\\,= \n]++|\\[,= ]?+)++(?!=))*+")
# A usual field, at once. At most 18 digits on either side of the point: such a number is never beyond float64.
_NUMBER_FIELD: Final = re.compile(
    rb"((?:[^\\,= \n]++|\\[^\n]?+)++)=(-?[0-9]{1,18}+)(i|(?:\.[0-9]{1,18}+)?+)(?=[, \t\r\n])"
)
# In a field's key a backslash also takes the meaning of a backslash behind it, as in InfluxDB: `\\=` ends the key.
_FIELD_KEY: Final = re.compile(rb"(?:[^\\,= \n]++|\\[^\n]?+)*+")
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BARE: Final = re.compile(rb"[^, \n\r]*+")
_LINE_END: Final = re.compile(rb"[ \t]*+\r?+(?:\n|\Z)")
_WORD: Final = re.compile(rb"[^ \t\r\n]*+")
_ESCAPED_IN_MEASUREMENT: Final = re.compile(r"\\([, ])")
_ESCAPED: Final = re.compile(r"\\([,= ])")


class Scanner:
    """Reads the line that begins at body[start], and nothing from body[most] on. end: where the next line begins, once
    it is read. tokens: how many lines, tags and fields that took: what it costs.
    """

    def __init__(self, body: bytes, start: int, most: int) -> None:
        self._body = body
        self._most = most
        self._at = self._start = start
        self.end = start
        self.tokens = 1
        self._too_long = False

    def point(self) -> Point | None:
        """The line's point; None for a blank line and a comment.

        Raises LineFault for a line that holds none, whose `end` is known all the same, and BadBody where a string is
        not closed.
        """
        try:
            return self._point()
        except LineFault:
            if self.end == self._start:
                self.end = self._body.find(b"\n", self._at) + 1 or len(self._body)
            if self._at == self._most < len(self._body):
                raise LineFault("", TOO_LONG.reason) from None
            raise

    def _point(self) -> Point | None:
        line_end = self._body.find(b"\n", self._start) + 1 or len(self._body)
        self._take(_BLANKS)
        if self._ends() or self._next() == b"#":
            self.end = line_end
            return None
        measurement = self._unescaped(_MEASUREMENT, _ESCAPED_IN_MEASUREMENT)
        if not measurement:
            raise LineFault("", "has no measurement: a line is `measurement,tag=value field=1.5 timestamp`")
        tags = self._tags()
        if not self._take(_BLANKS) or self._ends():
            raise LineFault("", f"has no fields behind {echo(measurement)!r}: write a blank and then field=1.5")
        numbers, strings, fault = self._fields()
        time = self._time()
        if fault is not None:
            raise fault
        if self._too_long:
            raise LineFault(
                "series",
                f"{echo(measurement)} has a name that is too long: {NAME_MAX} characters at most, with its tags",
            )
        if not numbers:
            raise LineFault("", "has strings alone: a point needs a field that is a number")
        return Point(measurement, tuple(tags), numbers, strings, time)

    def _tags(self) -> list[tuple[str, str]]:
        tags: list[tuple[str, str]] = []
        while True:
            if len(tags) == TAGS_MAX:
                passed = _TAG_PAIRS.match(self._body, self._at, self._most)
                if passed is not None and passed.end() > self._at:
                    self._too_long = True
                    self._at = passed.end()
            found = _TAG_PAIR.match(self._body, self._at, self._most)
            if found is not None:
                self._at = found.end()
                tags.append((self._text(found[1], _ESCAPED), self._text(found[2], _ESCAPED)))
            elif self._next() == b",":
                self._at += 1
                tags.append(self._tag())
            else:
                self.tokens += len(tags)
                return tags

    def _tag(self) -> tuple[str, str]:
        """Raises LineFault with what is wrong with a tag that _TAG_PAIR does not match."""
        key = self._unescaped(_TAG, _ESCAPED)
        if self._next() != b"=":
            what = f"{echo(key)!r} without =" if key else "a comma with no tag behind it"
            raise LineFault("tags", f"have {what}: write tag=value, and a blank in a tag as `\\ `")
        self._at += 1
        value = self._unescaped(_TAG, _ESCAPED)
        if not key:
            raise LineFault("tags", "have a value without a key: write tag=value")
        if self._next() == b"=":
            raise LineFault("tags", f"have an = within the value of {echo(key)!r}: write it as \\=")
        if not value:
            raise LineFault("tags", f"have no value for {echo(key)!r}: give it one, or leave the tag out")
        return key, value

    def _fields(self) -> tuple[list[tuple[str, float]], int, LineFault | None]:
        """The numbers, how many strings, and the first fault of a value: behind that the line can still be read. Raises
        LineFault for a fault behind which it cannot.
        """
        numbers: list[tuple[str, float]] = []
        strings, fault = 0, None
        keys: set[str] = set()
        while True:
            self.tokens += 1
            found = _NUMBER_FIELD.match(self._body, self._at, self._most)
            if found is not None:
                key = self._text(found[1], _ESCAPED)
                if key not in keys:
                    keys.add(key)
                    whole, rest = found[2], found[3]
                    numbers.append((key, float(int(whole)) if rest == b"i" else float(whole + rest)))
                    self._at = found.end()
                    if self._next() != b",":
                        return numbers, strings, fault
                    self._at += 1
                    continue
            key = self._unescaped(_FIELD_KEY, _ESCAPED)
            if self._next() != b"=":
                what = f"{echo(key)!r} without =" if key else "a comma or blank with no field behind it"
                raise LineFault("", f"has {what} among its fields: write field=1.5, and a blank in a key as `\\ `")
            self._at += 1
            if not key:
                raise LineFault("", "has a field without a key: write field=1.5")
            if key in keys:
                fault = fault or LineFault(key, _TWICE)
            keys.add(key)
            if self._next() == b'"':
                self._string(key)
                strings += 1
            else:
                text = self._take(_BARE).decode()
                try:
                    numbers.append((key, read_number(text)))
                except ValueError as error:
                    fault = fault or LineFault(key, str(error))
            if self._next() != b",":
                return numbers, strings, fault
            self._at += 1

    def _string(self, key: str) -> None:
        found = _STRING.match(self._body, self._at, self._most)
        if found is None:
            number = self._body.count(b"\n", 0, self._start) + 1
            raise BadBody(
                f"Line {number} of the body has a string that is not closed within {EVENT_MAX_BYTES} bytes, in the "
                f'field {echo(key)}: write " behind it, and \\" for a quote in it. As no end of a line behind it can '
                "be trusted, nothing was recorded."
            )
        self._at = found.end()
        if not self._ends() and self._next() not in (b",", b" ", b"\t"):
            raise LineFault(key, 'has text behind the closing quote of its string: write \\" for a quote within')

    def _time(self) -> int | None:
        if not self._ends() and not self._take(_BLANKS):
            if self._next() == b"\r":
                raise LineFault("", "has a carriage return within: end lines with a line feed")
            raise LineFault("", f"has {echo(self._take(_WORD).decode(errors='replace'))!r} where a blank belongs")
        time = None
        if not self._ends():
            text = self._take(_WORD).decode(errors="replace")
            time = read_timestamp(text)
            if time is None:
                what = "integer of 64 bits, Unix time in the unit that precision= names"
                raise LineFault("timestamp", f"is {echo(text)!r}, which is no {what}")
            if not self._ends():
                raise LineFault("", "has something behind its timestamp: a blank in a tag or key is written as `\\ `")
        found = _LINE_END.match(self._body, self._at, self._most)
        assert found is not None  # noqa: S101 - for the type checker: _ends() has seen it
        self.end = found.end()
        return time

    def _ends(self) -> bool:
        """Whether nothing but blanks is left of the line."""
        found = _LINE_END.match(self._body, self._at, self._most)
        return found is not None and (
            found.end() < self._most or self._most == len(self._body) or found[0][-1:] == b"\n"
        )

    def _next(self) -> bytes:
        return self._body[self._at : min(self._at + 1, self._most)]

    def _take(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self._body, self._at, self._most)
        assert found is not None  # noqa: S101 - for the type checker: all of them match nothing too
        self._at = found.end()
        return found[0]

    def _unescaped(self, pattern: re.Pattern[bytes], escaped: re.Pattern[str]) -> str:
        return self._text(self._take(pattern), escaped)

    def _text(self, token: bytes, escaped: re.Pattern[str]) -> str:
        if len(token) > TOKEN_MAX_BYTES:
            self._too_long = True
            token = token[:NAME_MAX]
        text = token.decode(errors="replace")
        return escaped.sub(r"\1", text) if "\\" in text else text
