"""Bodies that are read by numpy from their bytes, against the readers of any body: the same events, or the same fault.

Whatever a body is, plain or damaged anywhere, both must say the same of it to the last bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from statsapi.api.decoding import decode, plain, words
from statsapi.service.admission import ANY_TIME, Accepted
from statsapi.times import parse_timestamp_us

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
FIRST_US = 1_763_711_100_123_456
AT_MOST = 40  # events a body may have here
SOME_TIMES = Accepted(FIRST_US, FIRST_US + 5_000_000, "is too early", "is too late")

thrice = settings(max_examples=settings.default.max_examples * 3)


# -- both ways -----------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """All that a caller sees of a decoded body, or of its refusal."""

    what: tuple[Any, ...]


def outcome(body: bytes, media_type: str, accepted: Accepted) -> Outcome:
    try:
        decoded = decode(body, media_type, max_events=AT_MOST, accepted=accepted)
    except HTTPException as error:
        return Outcome((type(error).__name__, error.code, error.description))
    except ValidationError as error:
        return Outcome(("ValidationError", error.messages))
    sent = decoded.sent
    good = np.flatnonzero(sent.good).tolist()
    return Outcome(
        (
            [(part.series, part.ts_us.tolist(), part.values.tobytes()) for part in decoded.batch.parts],
            decoded.received,
            decoded.rejected,
            decoded.errors,
            decoded.mapping,
            [(type(time), time) for time in sent.timestamps(good)],
            [sent.number_of(row) for row in good],
            sent.ts_us[sent.good].tolist(),
            sent.rows.counted_by,
        )
    )


def both(
    body: bytes, media_type: str, accepted: Accepted = ANY_TIME, *, rows_at_once: int = 16_384
) -> tuple[Outcome, Outcome, bool]:
    """What the readers of any body make of it, with the plain ones asked first; and whether these took it."""
    took = []

    def noted(read: Callable[..., Any]) -> Callable[..., Any]:
        def reader(*args: Any) -> Any:
            rows = read(*args)
            took.append(rows is not None)
            return rows

        return reader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "_LEAST_BYTES", 1 << 40)
        slowly = outcome(body, media_type, accepted)
        patch.setattr(plain, "_LEAST_BYTES", 0)
        patch.setattr(plain, "_ROWS_AT_ONCE", rows_at_once)
        for name in ("read_items", "read_lines", "read_table", "read_columns"):
            patch.setattr(plain, name, noted(getattr(plain, name)))
        fast = outcome(body, media_type, accepted)
    return slowly, fast, any(took)


def check(body: bytes, media_type: str, *, taken: bool) -> None:
    slowly, fast, took = both(body, media_type)
    assert fast == slowly
    assert took == taken


# -- plain bodies --------------------------------------------------------------------------------------------------

STAMPS: list[Callable[[int], Any]] = [
    lambda us: _iso(us)[:23] + "Z",
    lambda us: _iso(us)[:19] + "Z",
    lambda us: _iso(us)[:19],
    lambda us: _iso(us).replace("T", " "),
    lambda us: _iso(us) + "-05:30",
    lambda us: _iso(us)[:19] + "+01:00",
    lambda us: _iso(us)[:21],
    lambda us: _iso(us) + "789Z",
    lambda us: us // 1_000_000,
    lambda us: us // 1000,
    lambda us: us,
    lambda us: us * 1000,
]


def _iso(us: int) -> str:
    return str(np.datetime64(us, "us"))


numbers = st.one_of(
    st.decimals(-1000, 1000, places=3, allow_nan=False, allow_infinity=False).map(str),
    st.decimals(-(10**8), 10**8, allow_nan=False, allow_infinity=False, places=7).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**17), 10**17).map(str),
    st.integers(0, 99).map(str),
    st.sampled_from(["0", "-0", "-0.0", "0.0", "1e5", "-1E-7", "9007199254740993", "9007199254740992.5", "5e-324"]),
    st.sampled_from(
        ["01", "1.", ".5", "+1", "1e400", "-", "1.2.3", "--1", "1-1", "nan", "1_0", '"3.5"', "null", "0x1"]
    ),
)
usual = st.decimals(-1000, 1000, places=3, allow_nan=False, allow_infinity=False).map(str)


@st.composite
def bodies(draw: st.DrawFn, values: st.SearchStrategy[str] = numbers) -> tuple[bytes, str]:
    """A body as some program writes it, in any of the forms, and its media type."""
    stamp = draw(st.sampled_from(STAMPS))
    count = draw(st.integers(1, AT_MOST + 1) if draw(st.integers(0, 9)) == 0 else st.integers(2, 8))
    step_us = draw(st.sampled_from([0, 1000, 700_000, 61_000_000, -86_399_000_001]))
    times = [stamp(FIRST_US + row * step_us) for row in range(count)]
    written = [draw(values) for _ in range(count)]
    series = draw(st.sampled_from([None, None, "cpu", "default", "a b", "é", "a;k=v", "x}", "y]", "", " z"]))
    value_first, place = draw(st.booleans()), draw(st.sampled_from([0, 2]))
    form = draw(st.sampled_from(["array", "events", "lines", "csv", "columns"]))
    if form == "csv":
        names = ["value", "timestamp"] if value_first else ["timestamp", "value"]
        rows = [
            [value, str(time)] if value_first else [str(time), value]
            for time, value in zip(times, written, strict=True)
        ]
        if series is not None:
            for row in (names, *rows):
                row.insert(place, "series" if row is names else series)
        end = draw(st.sampled_from(["\n", "\r\n"]))
        text = end.join([",".join(row) for row in (names, *rows)])
        return (text + draw(st.sampled_from(["", end, end + end]))).encode(), CSV
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]))
    quoted = [json.dumps(time) for time in times]
    if form == "columns":
        members = [f'"timestamp"{colon}[{comma.join(quoted)}]', f'"value"{colon}[{comma.join(written)}]']
        if value_first:
            members.reverse()
        if series is not None:
            members.insert(place, f'"series"{colon}{json.dumps(series)}')
        return f"{{{comma.join(members)}}}{draw(st.sampled_from(['', chr(10)]))}".encode(), JSON
    items = []
    for time, value in zip(quoted, written, strict=True):
        members = [f'"timestamp"{colon}{time}', f'"value"{colon}{value}']
        if value_first:
            members.reverse()
        if series is not None:
            members.insert(place, f'"series"{colon}{json.dumps(series, ensure_ascii=False)}')
        items.append("{" + comma.join(members) + "}")
    if form == "lines":
        end = draw(st.sampled_from(["\n", "\r\n", " \n"]))
        return (end.join(items) + draw(st.sampled_from(["", end, end + end]))).encode(), NDJSON
    text = "[" + draw(st.sampled_from([",", ", ", ",\n  "])).join(items) + draw(st.sampled_from(["]", " ]\n"]))
    return (f'{{"events":{text}}}' if form == "events" else text).encode(), JSON


PIECES = [bytes([letter]) for letter in b'0123456789.-+eETZ ,:;"{}[]\\\n\r\t\x00\x0b\xa0\xff/tvx'] + [
    *(b'"value":1', b'"series":"b",', b'"tags":{},', b"\xc3\xa9", b"\xef\xbb\xbf", b"2025-11-21T24:00:00.000Z", b"1e5"),
    *(b"\n\n", b"\\u0031", b",1", b"{}", b"null", b"1763711100", b"},{", b"]}", b'"events":[', b"0.", b"-0", b"99:"),
]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    """A body with some bytes replaced, left out, put in, or there twice."""
    body, media_type = draw(bodies(usual))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.sampled_from([0, 0, 1, 1, 2, 8, 30])))
        put = draw(st.sampled_from([*PIECES, b"", body[at:to], body[at:to] * 2]))
        body = body[:at] + put + body[to:]
    return body, media_type


# -- laws ----------------------------------------------------------------------------------------------------------


@thrice
@given(bodies(), st.sampled_from([ANY_TIME, SOME_TIMES]), st.sampled_from([1, 3, 16_384]))
def test_plain_bodies_are_read_as_by_the_readers_of_any_body(
    sent: tuple[bytes, str], accepted: Accepted, rows_at_once: int
) -> None:
    """Events, faults, and what notes say of them are the same, in one piece or in many."""
    slowly, fast, _ = both(*sent, accepted, rows_at_once=rows_at_once)
    assert fast == slowly


@thrice
@given(damaged(), st.sampled_from([ANY_TIME, SOME_TIMES]))
@example((b"timestamp,value\n1763711100,1\n1763711101,2\r3\n", CSV), ANY_TIME)
@example((b"timestamp,value\n1763711100,1\n1763711101,\r2\n", CSV), ANY_TIME)
@example((b"timestamp,value\n1763711100,1\n20251121074500,2\n", CSV), ANY_TIME)
@example((b'[{"timestamp":1763711100,"value":1},{"timestamp":0763711100,"value":1}]', JSON), ANY_TIME)
@example((b'{"timestamp":[1763711100,1763711101],"value":[1,[2]]}', JSON), ANY_TIME)
@example((b'{"timestamp":[1763711100,1763711101],"value":[1,2,3]}', JSON), ANY_TIME)
@example((b'{"timestamp":1763711100,"value":1}\n{"timestamp":1763711100,"value":1}}\n', NDJSON), ANY_TIME)
def test_damaged_bodies_are_judged_as_by_the_readers_of_any_body(sent: tuple[bytes, str], accepted: Accepted) -> None:
    """Wherever a plain body is damaged, the same is taken, and the same is refused in the same words."""
    slowly, fast, _ = both(*sent, accepted)
    assert fast == slowly


PLAIN_ROWS = [(f"2025-11-21T07:4{row}:00.123Z", f"{row * 7.25}") for row in range(9)]


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ("timestamp,value\n" + "".join(f"{time},{value}\n" for time, value in PLAIN_ROWS), CSV),
        ("value,timestamp\r\n" + "".join(f"{value},{time}\r\n" for time, value in PLAIN_ROWS), CSV),
        ("series,timestamp,value\n" + "".join(f"cpu,{time},{value}\n" for time, value in PLAIN_ROWS), CSV),
        ("timestamp,value,series\n" + "\n".join(f"1763711100,{value},a" for _, value in PLAIN_ROWS), CSV),
        ("[" + ",".join(f'{{"timestamp":"{time}","value":{value}}}' for time, value in PLAIN_ROWS) + "]", JSON),
        ('{"events":[' + ",".join(f'{{"value":{v},"timestamp":"{t}"}}' for t, v in PLAIN_ROWS) + "]}", JSON),
        (json.dumps([{"timestamp": t, "value": float(v), "series": "a"} for t, v in PLAIN_ROWS], indent=2), JSON),
        ("".join(f'{{"timestamp": 1763711100, "value": {v}}}\n' for _, v in PLAIN_ROWS), NDJSON),
        (json.dumps({"timestamp": [t for t, _ in PLAIN_ROWS], "value": [1.5] * len(PLAIN_ROWS)}), JSON),
        (json.dumps({"series": "a", "value": [1, 22, -3] * 3, "timestamp": [1_763_711_100_123] * 9}), JSON),
        ("timestamp,value\n" + "".join(f"{time},{math.pi * row}\n" for row, (time, _) in enumerate(PLAIN_ROWS)), CSV),
        ("timestamp,value\n" + "".join(f"{time},{row}e-9\n" for row, (time, _) in enumerate(PLAIN_ROWS)), CSV),
    ],
)
def test_these_bodies_are_plain(body: str, media_type: str) -> None:
    """What programs write is read from its bytes, and not left to the readers of any body."""
    check(body.encode(), media_type, taken=True)


@given(st.lists(numbers, min_size=1, max_size=20), st.booleans())
def test_numbers_are_those_of_float(texts: list[str], signed_zeros: bool) -> None:
    """A column of numbers is float() of each text, to the sign of zero, or none."""
    body, begins, ends = b" " * 48, [], []
    for text in texts:
        begins.append(len(body))
        body += text.encode()
        ends.append(len(body))
        body += b","
    found = words.read_numbers(body + b" " * 48, np.array(begins), np.array(ends), signed_zeros=signed_zeros)
    if found is not None:
        expected = [float(text) for text in texts]
        if not signed_zeros:
            expected = [0.0 if text == "-0" else number for text, number in zip(texts, expected, strict=True)]
        assert found.tobytes() == np.array(expected).tobytes()
    elif all(words_are_json(text) for text in texts):
        assert max(map(len, texts)) > 31 or any(math.isinf(float(text)) for text in texts)


def words_are_json(text: str) -> bool:
    try:
        return type(json.loads(text)) in (int, float)
    except ValueError:
        return False


@given(st.lists(st.integers(0, 10**19 - 1), min_size=1, max_size=20), st.integers(9, 19))
def test_digits_are_those_of_int(wanted: list[int], width: int) -> None:
    """A column of integers of one width is int() of each, or none where one begins with 0 or is beyond 64 bits."""
    texts = [str(number).rjust(width, "0")[-width:] for number in wanted]
    listed = np.array([text.encode().ljust(24, b"x") for text in texts]).view("<u8").reshape(-1, 3)
    found = words.read_digits(np.array(listed.T, order="C")[: -(-width // 8)], width)
    if any(text[0] == "0" or int(text) >= 2**63 for text in texts):
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == [int(text) for text in texts]


@given(st.binary(max_size=300), st.integers(0, 255))
def test_places_are_all_of_them(text: bytes, letter: int) -> None:
    """A letter is found wherever it stands, and none where it stands more often than asked for."""
    expected = [at for at, each in enumerate(text) if each == letter]
    found = words.places_of(text, letter, 0, len(text), len(expected))
    assert found is not None
    assert found.tolist() == expected
    assert not expected or words.places_of(text, letter, 0, len(text), len(expected) - 1) is None


def test_times_as_written_are_those_of_the_body() -> None:
    """A plain body's timestamps are made when they are asked for, of text or numbers as the body has them."""
    text = b"x1763711100x1763711101"
    assert plain.WrittenTimes(text, [1, 12], 10, numbers=True)[:] == [1_763_711_100, 1_763_711_101]
    assert list(plain.WrittenTimes(text, [1, 12], 10, numbers=False)) == ["1763711100", "1763711101"]
    assert parse_timestamp_us(plain.WrittenTimes(text, [1], 10, numbers=False)[0]) == 1_763_711_100_000_000


@pytest.mark.parametrize("media_type", [JSON, NDJSON])
def test_wide_gaps_are_left_to_the_readers_of_any_body(media_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's blanks between two rows cost no numpy calls each, and nothing of them is remembered."""
    monkeypatch.setattr(plain, "_LEAST_BYTES", 0)
    words._words_of.cache_clear()
    row = '{"timestamp":"2025-11-21T07:45:00Z","value":1}'
    for blanks, is_plain in ((8, True), (plain._FIRST_ROW_MAX, False), (1 << 20, False)):
        gap = " " * blanks
        text = f"[{row},{gap}{row}]" if media_type == JSON else f"{row}{gap}\n{row}\n"
        read = plain.read_items if media_type == JSON else plain.read_lines
        assert (read(text.encode(), AT_MOST) is not None) == is_plain, blanks
        assert len(decode(text.encode(), media_type, max_events=AT_MOST).sent.good) == 2
    assert words._words_of.cache_info().currsize < 10


def test_a_line_of_csv_that_ends_twice_is_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are numbered alike in a large body and in a small one."""
    body = b"timestamp,value\n" + b"2025-11-21T07:45:00Z,1\r\r\n" * 4
    monkeypatch.setattr(plain, "_LEAST_BYTES", 0)
    assert plain.read_table(body, AT_MOST) is None
    assert plain.read_table(body.replace(b"\r\r", b"\r"), AT_MOST) is not None
