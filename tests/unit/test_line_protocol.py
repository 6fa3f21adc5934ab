"""Influx line protocol, read: the plain way against the careful one, and both against a parser by others."""

from __future__ import annotations

import contextlib
import math
import struct
import sys
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from line_protocol_parser import LineFormatError, parse_line
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from statsapi.api.body_text import EVENT_MAX_BYTES
from statsapi.api.decoding import line_protocol, line_series
from statsapi.api.decoding.line_protocol import Points, read
from statsapi.api.decoding.line_words import PRECISIONS_US, to_us
from statsapi.errors import echo
from statsapi.model import MAX_TS_US, MIN_TS_US
from statsapi.naming.names import fold_tags

NOW_US = 1_763_711_100_000_000


def points_of(body: str | bytes, *, precision: str = "ns", plain: bool = True, **more: Any) -> Points:
    raw = body if isinstance(body, bytes) else body.encode()
    given: dict[str, Any] = {"unit_us": PRECISIONS_US[precision], "now_us": NOW_US, "max_events": 100_000, **more}
    return read(raw, plain=plain, **given)


def events_of(points: Points) -> list[tuple[int, str, int, bytes]]:
    """Line, series, time and value, to the bit."""
    return [
        (line, points.names[code], ts, struct.pack("<d", value))
        for line, code, ts, value in zip(
            points.lines.tolist(), points.codes.tolist(), points.ts_us.tolist(), points.values.tolist(), strict=True
        )
    ]


def stored(body: str, **more: Any) -> dict[str, float]:
    points = points_of(body, **more)
    assert not points.refused
    return {points.names[code]: value for code, value in zip(points.codes, points.values.tolist(), strict=True)}


def refusal(body: str) -> tuple[int, str]:
    """The line and the reason of the only refusal."""
    (bad,) = points_of(body).refused
    return bad.line, f"{bad.field}: {bad.reason}"


# -- what a point is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cpu,host=a usage=1.5 1", {"cpu.usage;host=a": 1.5}),
        ("cpu value=3", {"cpu": 3.0}),
        ("cpu,z=1,a=2 value=3", {"cpu;a=2;z=1": 3.0}),
        ("cpu,host=a user=1i,idle=2u,value=-.5,x=+1e3,y=7.", {
            "cpu.user;host=a": 1, "cpu.idle;host=a": 2, "cpu;host=a": -0.5, "cpu.x;host=a": 1000, "cpu.y;host=a": 7,
        }),
        (r"my\ m\,x,ta\ g=a\=b\,c fi\ e\=ld=1", {"my m,x.fi e=ld;ta g=a=b,c": 1}),
        ("m=x f=1", {"m=x.f": 1}),
        (r"m\=x f=1", {r"m\=x.f": 1}),
        (r"m,path=C:\ ok,q=\x f=1", {r"m.f;path=C: ok;q=\x": 1}),
        ('m s="a,b c=d \\" \\\\",f=2 5', {"m.f": 2}),
        ('m f=1,s="two\nlines\n\n# no comment"', {"m.f": 1}),
        ('m,q="x f=1', {'m.f;q="x': 1}),
        ("  m   f=1   5  ", {"m.f": 1}),
        ("\tm f=1\r\n", {"m.f": 1}),
        ("# a comment\n\n\r\n   \nm f=1\n", {"m.f": 1}),
        ("\ufeffm f=1", {"m.f": 1}),
        ("Länge,ort=Köln wert=1", {"Länge.wert;ort=Köln": 1}),
        (r"m a\\=1,b\\\=c=2", {r"m.a\\": 1, r"m.b\\=c": 2}),
        ("m f=9007199254740993i", {"m.f": 9007199254740992.0}),
        ("m f=18446744073709551615u", {"m.f": 18446744073709551615.0}),
        ("m f=-9223372036854775808i", {"m.f": -9223372036854775808.0}),
    ],
)  # fmt: skip
def test_each_numeric_field_is_an_event_of_a_series(line: str, expected: dict[str, float]) -> None:
    """measurement.field with the tags, sorted; `value` is the measurement; strings, blanks and comments are passed."""
    assert stored(line) == expected
    assert stored(line, plain=False) == expected


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        ("m f=1\nbad", 2, "no fields behind 'bad'"),
        ("m f=true", 1, "f: is true, a boolean"),
        ("m a=1,f=T", 1, "f: is T, a boolean"),
        ('m s="x"', 1, "strings alone"),
        ("m,a= f=1", 1, "tags: have no value for 'a'"),
        ("m,a f=1", 1, "tags: have 'a' without ="),
        ("m, f=1", 1, "tags: have a comma with no tag"),
        ("m,a=b=c f=1", 1, r"an = within the value of 'a': write it as \="),
        ("m,a=1,a=2 f=1", 1, "has the tag 'a' twice"),
        ("m,a=x;y f=1", 1, "semicolon"),
        ("m;a=x f=1", 1, "semicolon"),
        (",a=1 f=1", 1, "no measurement"),
        ("=m f=1", 1, "begins with ="),
        ("m f=1,f=2", 1, "f: is there twice"),
        ('m f=1,f="x"', 1, "f: is there twice"),
        ("m f=true,f=2", 1, "f: is true"),
        ("m f=2,f=true", 1, "f: is there twice"),
        ("m a\u0301=1,\u00e1=2", 1, "is there twice"),
        ("m f", 1, "'f' without ="),
        ("m f=", 1, "f: has no value"),
        ("m =1", 1, "a field without a key"),
        ("m f=1,", 1, "with no field behind it"),
        ("m f=1, g=2", 1, "with no field behind it"),
        ("m f=1x", 1, "f: is '1x', which is no number"),
        ("m f=1i2", 1, "no number"),
        ("m f=1.5i", 1, "no number"),
        ("m f=nan", 1, "no number"),
        ("m f=0x10", 1, "no number"),
        ("m f=1_000", 1, "no number"),
        ("m f=1,5", 1, "'5' without ="),
        ("m f=1e400", 1, "beyond the range of float64"),
        ("m f=9223372036854775808i", 1, "no signed integer of 64 bits"),
        ("m f=-1u", 1, "no unsigned integer of 64 bits"),
        ("m f=1 1.5", 1, "timestamp: is '1.5'"),
        ("m f=1 now", 1, "timestamp: is 'now'"),
        ("m f=1 9223372036854775808", 1, "timestamp: is '9223372036854775808'"),
        ("m f=1 5 6", 1, "something behind its timestamp"),
        ('m f="a"b', 1, "text behind the closing quote"),
        ("m\x01 f=1", 1, "cannot be printed"),
        (f"m,a={'x' * 200} f=1", 1, "characters, with its tags: 200 at most"),
        (f"m f=1\nm,a={'x' * 70_000} f=1\nm f=2", 2, "longer than 65536 bytes"),
        (f'm f=1,s="{"x" * 60_000}",t={"y" * 9_000}\nm f=2', 1, "longer than 65536 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_point_is_named(body: str, line: int, reason: str) -> None:
    """The line, and what is wrong with it; its neighbours are read."""
    found = refusal(body)
    assert found[0] == line
    assert reason in found[1]
    assert len(points_of(body).ts_us) == sum("f=" in text and at != line for at, text in enumerate(body.split("\n"), 1))


def test_a_refused_line_does_not_move_the_others() -> None:
    """A point is stored whole or not at all; lines within a string are counted."""
    points = points_of('m f=1\nm a=1,b=true\nm f=2,s="x\ny\nz"\nm f=true\nm f=3 5')
    assert [(line, value) for line, value in zip(points.lines.tolist(), points.values.tolist(), strict=True)] == [
        (1, 1.0),
        (3, 2.0),
        (7, 3.0),
    ]
    assert [bad.line for bad in points.refused] == [2, 6]
    assert points.refused[1].text == "m f=true"
    assert points.strings == 1


def test_two_points_at_one_instant_are_two_events() -> None:
    """The same line twice counts twice."""
    assert points_of("m f=1 5\nm f=1 5\n").values.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("body", ['m s="abc', 'm f=1\nm s="abc\nm f=2\n', f'm s="{"x" * 70_000}"', 'm s="a\\"'])
def test_a_string_that_does_not_end_refuses_the_body(body: str) -> None:
    """No end of a line behind it can be trusted."""
    for plain in (True, False):
        with pytest.raises(BadRequest, match=r"Line [12] of the body has a string that is not closed"):
            points_of(body, plain=plain)


def test_what_is_not_utf8_refuses_the_body() -> None:
    """It is told which encoding it may be."""
    with pytest.raises(BadRequest, match="not UTF-8"):
        points_of(b"m,ort=K\xf6ln f=1")


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "number", "expected_us"),
    [
        ("ns", 1_763_711_100_000_000_999, NOW_US),
        ("ns", -1, -1),
        ("us", NOW_US, NOW_US),
        ("u", NOW_US, NOW_US),
        ("ms", NOW_US // 1000, NOW_US),
        ("s", NOW_US // 1_000_000, NOW_US),
        ("m", 1, 60_000_000),
        ("h", -1, -3_600_000_000),
        ("auto", NOW_US * 1000, NOW_US),
        ("auto", NOW_US, NOW_US),
        ("auto", NOW_US // 1000, NOW_US),
        ("auto", NOW_US // 1_000_000, NOW_US),
        ("auto", -4_999_999_999, -4_999_999_999_000_000),
    ],
)
def test_precisions(precision: str, number: int, expected_us: int) -> None:
    """The number is in that unit; nanoseconds are rounded down; `auto` goes by the number's size."""
    assert to_us(number, PRECISIONS_US[precision]) == expected_us
    for plain in (True, False):
        assert points_of(f"m f=1 {number}", precision=precision, plain=plain).ts_us.tolist() == [expected_us]


def test_no_timestamp_means_now() -> None:
    """Whatever the precision is, also among points that have one."""
    assert points_of("m f=1\nm f=2 5000\nm f=3", precision="s").ts_us.tolist() == [NOW_US, 5_000_000_000, NOW_US]


@pytest.mark.parametrize("precision", sorted(set(PRECISIONS_US)))
@given(number=st.integers(-(2**63), 2**63 - 1))
@example(number=-(2**63))
def test_any_time_is_read_alike(precision: str, number: int) -> None:
    """Exactly, by both ways, or refused where no timestamp can be that."""
    expected_us = to_us(number, PRECISIONS_US[precision])
    for plain in (True, False):
        points = points_of(f"m f=1 {number}\nm f=2 7", precision=precision, plain=plain)
        if MIN_TS_US <= expected_us <= MAX_TS_US:
            assert points.ts_us[0] == expected_us
        else:
            assert points.refused[0].line == 1
            assert "outside the years 1 to 9999" in points.refused[0].reason


# -- the two ways agree, with each other and with others -----------------------------------------------------------

# Marks that compose with a letter, and with "="; characters that become a semicolon, a backtick and a letter.
texts = st.text(st.sampled_from('ab é,= \\"i.1-;#_\t\u0301\u0327\u0338\u037e\u1fef\u212a'), max_size=5)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: f"{number}i"),
    st.sampled_from(["0", "-0", "-0i", "1.", ".5", "+1", "007", "007i", "1e5", "1E-5", "1e400", "t", "", "1ii", "2u"]),
    st.sampled_from(['"x"', '"a b=c,d"', '"\\""', '"l\nl"', '"', "nan", "1_0", "[1", "1]", "null"]),
)
plain_words = st.sampled_from(["a", "b", "cpu", "value", "usage", "Ä", "A\u0308", "e" + "\u0301" * 31])
words = st.one_of(plain_words, plain_words, texts)
pairs = st.builds("{}={}".format, words, words)
fields = st.builds("{}={}".format, words, numbers)
times = st.one_of(st.just(""), st.integers(-(2**63), 2**63).map(str), st.sampled_from(["5", "007", "+5", "1.5", "x"]))


@st.composite
def lines(draw: Any) -> str:
    head = ",".join([draw(words), *draw(st.lists(pairs, max_size=2))])
    body = ",".join(draw(st.lists(fields, min_size=1, max_size=3)))
    blank = draw(st.sampled_from([" ", " ", " ", "  ", "\t", " \t"]))
    time_of = draw(times)
    text = f"{head}{blank}{body}{blank if time_of else ''}{time_of}"
    return text + draw(st.sampled_from(["", "", "", " ", "\r"]))


bodies = st.one_of(
    st.lists(st.one_of(lines(), st.just(""), st.just("# x")), max_size=6).map("\n".join),
    st.text(st.sampled_from('ab,= \\"i.1\n\r\t#'), max_size=30),
)


@given(bodies)
@example("a a=1,b=2,a=3\nb a=1")
@example('a a=1\nb s="x\na a=1\n" 5\na a=1')
@example("a a=1 5\na a=1 x\na a=1")
def test_the_plain_way_agrees_with_the_careful_one(body: str) -> None:
    """The same events to the bit, in the same order, and the same refusals; or the same body refused as a whole."""
    ways: list[Points | str] = []
    for plain in (True, False):
        try:
            ways.append(points_of(body, plain=plain))
        except BadRequest as error:
            ways.append(str(error.description))
    points, careful = ways
    if isinstance(points, str) or isinstance(careful, str):
        assert points == careful
        return
    assert events_of(points) == events_of(careful)
    assert points.refused == careful.refused
    assert points.refused_total == careful.refused_total
    assert points.strings == careful.strings


def test_letters_and_marks_apart_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names are those of the letters in one, also where a mark follows a sign that it would change. Only a line
    with more marks than can be normalized is read the careful way, and named.
    """
    lines_of_each = [f"e\u0301,e\u0301a=\u0338{number},b=e\u0301 e\u0301f={number}" for number in range(50)]
    careful = []
    read_one = line_protocol._Reader._read_one

    def note(self: Any, start: int, number: int) -> None:
        careful.append(number)
        read_one(self, start, number)

    monkeypatch.setattr(line_protocol._Reader, "_read_one", note)
    points = points_of("\n".join(lines_of_each))
    assert careful == []
    assert points.names == [f"\u00e9.\u00e9f;b=\u00e9;\u00e9a=\u0338{number}" for number in range(50)]
    many = ["x" + "\u0301" * 31 + " f=1", "m f=1", "x" + "\u0301" * 30 + " f=1", "y" + "\u0301" * 40 + " f=1"]
    points = points_of("\n".join([*lines_of_each, *many, *lines_of_each]))
    assert careful == [51, 54]
    assert [refused.line for refused in points.refused] == [51, 54]
    assert len(points.codes) == 102


def judged_by_others(line: str) -> dict[str, float] | None:
    """The numbers in what line-protocol-parser makes of a line, by series; None where it refuses it."""
    try:
        point = parse_line(line)
    except LineFormatError:
        return None
    if point is None:
        return {}
    assert point["time"] is None or isinstance(point["time"], int)
    found = {}
    for key, value in point["fields"].items():
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            base = point["measurement"] if key == "value" else f"{point['measurement']}.{key}"
            if ";" in base:
                return None
            try:
                found[fold_tags(base, point["tags"])] = float(value)
            except ValueError:
                return None
    return found or None


@given(lines().filter(lambda line: "\n" not in line and "\r" not in line and "\t" not in line))
@example(r"m\\,x=1 f=1")
@example(r"m,a=x\\ y f=1")
def test_as_others_read_it(line: str) -> None:
    """What both take they read alike, and we take what line-protocol-parser takes, but for what is listed here.

    It keeps the first of a field that is there twice, which is refused here. It refuses +1, subnormal
    numbers, the largest and smallest integers, and a tag given twice with one value, which InfluxDB takes.
    """
    theirs = judged_by_others(line)
    try:
        points = points_of(line)
    except BadRequest:
        assert theirs is None
        return
    if points.refused:
        reason = points.refused[0].reason
        assert theirs is None or "is there twice" in reason or "outside the years" in reason, reason
        return
    ours = {points.names[code]: value for code, value in zip(points.codes, points.values.tolist(), strict=True)}
    if theirs is None:
        text = line.strip(" \t").replace("\\,", "").replace("\\ ", "")
        tags = text.partition(" ")[0].split(",")[1:]
        subnormal = any(0 < abs(value) < sys.float_info.min for value in ours.values())
        extreme = "9223372036854775807" in line or "9223372036854775808" in line
        assert "=+" in line or subnormal or extreme or len(set(tags)) < len(tags) or not ours, line
        return
    assert ours == theirs
    assert all(math.copysign(1, ours[name]) == math.copysign(1, theirs[name]) for name in ours)


# -- bounds --------------------------------------------------------------------------------------------------------


def test_too_many_events_are_refused_before_they_are_made() -> None:
    """Fields count, not lines; refused lines count as well."""
    for body in ("m a=1,b=2,c=3\n", "m a=1\nm a=1\nm a=1\n", "bad\nbad\nbad\n", "m\\ x a=1,b=2,c=3\n"):
        with pytest.raises(RequestEntityTooLarge, match="STATSAPI_MAX_BATCH_EVENTS"):
            points_of(body, max_events=2)
        assert points_of(body, max_events=3)


@pytest.mark.parametrize(
    "line",
    [
        "bad\n", "m f=true\n", "m f=1 x\n", "m,a=1,a=2 f=1\n", "m\\ x f=1\n", 'm s="",f=1\n', "#\n", "m f=\\\n",
        'm f="\\""x\n', "\\" * 60_000 + "\n", "m," + "a=1," * 15_000 + " f=1\n", "m " + "a=1," * 15_000 + "\n",
        "=" * 60_000 + "\n", " " * 60_000 + "\n", 'm s="' + "\n" * 60_000 + '",f=1\n', "m f=" + "1" * 60_000 + "\n",
        "m f=" + "1" * 60_000 + "i\n", "m f=1 " + "1" * 60_000 + "\n", "é=\n", "m f=1\r\n", 'm f=1,s="a"\n',
    ],
)  # fmt: skip
def test_hostile_bodies_end_soon(line: str) -> None:
    """4 MiB of each takes some seconds at most on a busy machine, refused or not."""
    body = (line * (4 * 1024 * 1024 // len(line.encode()))).encode()
    began_s = time.process_time()
    with contextlib.suppress(RequestEntityTooLarge, BadRequest):
        assert len(points_of(body).refused) <= 100
    assert time.process_time() - began_s < 6


def test_names_are_kept_within_bounds() -> None:
    """Series names are remembered from body to body, up to a number."""
    for batch in range(3):
        points_of("\n".join(f"m,a={batch}-{number} f=1" for number in range(9_000)))
        assert len(line_series._names) <= line_series._NAMES_KEPT
    assert EVENT_MAX_BYTES == 65536
    assert len(points_of("bad" * 1000).refused[0].text) == len(echo("bad" * 1000))


def test_many_different_fields_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 different fields took 360 bytes each, besides their piece; 100,000 of them went beyond 32 MiB."""
    monkeypatch.setattr(line_protocol, "_PIECE_BYTES", 16 * 1024)
    monkeypatch.setattr(line_series, "_names", {})
    body = "\n".join(f"m f{i}=1" for i in range(10_000))
    points_of(body)
    tracemalloc.start()
    try:
        points = points_of(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(points.ts_us) == 10_000
    assert peak_bytes < 10_000 * 240
