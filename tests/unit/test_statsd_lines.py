"""StatsD's lines: what is an event of what value, and what is refused under which name."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.cli.statsd_lines import Measured, Refused, read

WORDS = st.text("abcdefgh._-/ 0", min_size=1, max_size=12).map(str.strip).filter(lambda text: text.strip("-. "))
VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=3)


def only(line: str, *, counters: bool = False) -> Measured | Refused:
    (found,) = read(line.encode(), counters=counters)
    return found


@pytest.mark.parametrize(
    ("line", "series", "values"),
    [
        ("api.latency:231|ms", "api.latency", [231.0]),
        ("api.latency:17.5|h|#route:/users,status:200", "api.latency;route=/users;status=200", [17.5]),
        ("queue.depth:12|g", "queue.depth", [12.0]),
        ("d:-1.5e3|d", "d", [-1500.0]),
        ("t:-4|ms", "t", [-4.0]),
        ("packed:1:2.5:3|d|#a:b", "packed;a=b", [1.0, 2.5, 3.0]),
        ("a:1|ms|@1", "a", [1.0]),
        ("a:1|ms|@1.0|#x:y", "a;x=y", [1.0]),
        ("a:1|ms|c:ci-f00|e:it-false|card:low", "a", [1.0]),
        ("a:1|ms|#vip,x:y", "a;vip=true;x=y", [1.0]),
        ("a:1|ms|#x:y:z", "a;x=y:z", [1.0]),
        ("a:1|ms|#x:y,x:y", "a;x=y", [1.0]),
        ("a:1|ms|#", "a", [1.0]),
        ("größe:1|ms", "größe", [1.0]),
        ("a:.5|ms", "a", [0.5]),
        ("a:5.|ms", "a", [5.0]),
    ],
)
def test_what_is_an_event(line: str, series: str, values: list[float]) -> None:
    """Of the four types that are measured values, with tags, several values, and what may be passed over."""
    assert only(line) == Measured(series, values, None)


def test_a_time_of_its_own() -> None:
    """DogStatsD 1.3: Unix time in seconds."""
    assert only("a:1|g|T1763711100") == Measured("a", [1.0], datetime(2025, 11, 21, 7, 45, tzinfo=UTC))


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        ("hits:1|c", "counter", "--counters=events records each count"),
        ("sampled:4|ms|@0.1", "sample rate", "set the rate to 1"),
        ("sampled:4|ms|@zero", "sample rate", "set the rate to 1"),
        ("users:42|s", "set", "counts different values"),
        ("q:+1|g", "change of a gauge", "send what it is"),
        ("q:-1|g", "change of a gauge", "send what it is"),
        ("_e{5,4}:title|text", "event", "no value"),
        ("_sc|redis|0", "service check", "no value"),
        ("hello", "malformed", "is not NAME:VALUE|TYPE"),
        ("a:1", "malformed", "is not NAME:VALUE|TYPE"),
        (":1|ms", "malformed", "is not NAME:VALUE|TYPE"),
        ("a:1|x", "malformed", "has the type 'x', and ms, h, d and g are taken"),
        ("a:1|ms|what", "malformed", "has a part 'what' that is not known"),
        ("a:1|ms|Tnow", "malformed", "no Unix time"),
        ("a:|ms", "value", "has the value '', which is no number"),
        ("a:1_0|ms", "value", "has the value '1_0'"),
        ("a:nan|ms", "value", "has the value 'nan'"),
        ("a:1e999|ms", "value", "has the value '1e999'"),
        ("a:1:x|ms", "value", "has the value 'x'"),
        ("a:1|ms|#x:y,x:z", "tag", "has the tag 'x' with two values"),
        ("=a:1|ms", "name", "begins with ="),
        ("a:1|ms|#x:", "name", "has a tag 'x' without a value"),
        ("x" * 201 + ":1|ms", "name", "has 201 characters"),
    ],
)
def test_what_is_refused_by_name(line: str, reason: str, said: str) -> None:
    """Sums, changes and samples of events, and what is no line at all, with the cure."""
    found = only(line)
    assert isinstance(found, Refused)
    assert found.reason == reason
    assert said in found.detail


def test_counters_are_events_where_that_is_asked_for() -> None:
    """Each count is one event of that value; a sampled one is refused still."""
    assert only("hits:3|c", counters=True) == Measured("hits", [3.0], None)
    assert isinstance(only("hits:3|c|@0.5", counters=True), Refused)


def test_a_gauge_below_zero_is_one_event() -> None:
    """Clients send it as two lines, since a sign means a change: the first, a 0 that nobody measured, is no event."""
    assert [measured(line) for line in read(b"t:0|g\nt:-3|g")] == [("t", [-3.0])]
    assert [measured(line) for line in read(b"a:1|g\nt:0|g\r\nt:-3.5|g\r\nb:2|ms\n")] == [
        ("a", [1.0]),
        ("t", [-3.5]),
        ("b", [2.0]),
    ]
    for odd in (b"t:0|g\nu:-3|g", b"t:1|g\nt:-3|g", b"t:0|ms\nt:-3|g", b"t:-3|g\nt:0|g"):
        first, second = read(odd)
        refused = [line for line in (first, second) if isinstance(line, Refused)]
        assert [line.reason for line in refused] == ["change of a gauge"]
    assert [measured(line) for line in read(b"t:0|g\nt:+3|g") if isinstance(line, Measured)] == [("t", [0.0])]
    assert [measured(line) for line in read(b"t:0|g")] == [("t", [0.0])]


@pytest.mark.parametrize("section", ["#", "#k:v", "c:ci-f00", "e:it-false", "card:low", "T1763711100"])
def test_a_sign_is_the_values_own_in_dogstatsd(section: str) -> None:
    """Its clients send no changes: a datagram with one of its sections has values, each an event, the 0 as well. A plus
    none of them writes, so that is a change still.
    """
    *found, change = read(f"t:0|g\nt:-3|g\nu:-7:-8|g|{section}\nt:+4|g".encode())
    assert [measured(line)[1] for line in found] == [[0.0], [-3.0], [-7.0, -8.0]]
    assert isinstance(change, Refused)


def test_signs_are_values_where_that_is_asked_for() -> None:
    """What a client of DogStatsD sends without tags cannot be told from a change: the refusal names the option."""
    (refused,) = read(b"t:-7|g")
    assert isinstance(refused, Refused)
    assert "--gauges=values" in refused.detail
    assert [measured(line) for line in read(b"t:0|g\nt:-7|g", gauges=True)] == [("t", [0.0]), ("t", [-7.0])]


def measured(line: Measured | Refused) -> tuple[str, list[float]]:
    assert isinstance(line, Measured)
    return line.series, line.values


def test_one_bad_line_costs_no_other() -> None:
    """Several lines a datagram, empty ones and CRLF among them."""
    found = list(read(b"a:1|ms\r\n\nb:x|ms\n\xff\xfe:1|ms\nc:2|ms\n"))
    assert [each.series if isinstance(each, Measured) else each.reason for each in found] == [
        "a",
        "value",
        "malformed",
        "c",
    ]


@given(
    name=WORDS, values=VALUES, kind=st.sampled_from(["ms", "h", "d"]), tags=st.dictionaries(WORDS, WORDS, max_size=3)
)
def test_what_a_client_writes_is_read(name: str, values: list[float], kind: str, tags: dict[str, str]) -> None:
    """Every finite value comes back to the last bit, under the name with its tags in order."""
    line = f"{name}:{':'.join(map(repr, values))}|{kind}"
    if tags:
        line += "|#" + ",".join(f"{key}:{value}" for key, value in tags.items())
    expected = ";".join([name, *(f"{key}={tags[key]}" for key in sorted(tags))])
    found = only(line)
    if isinstance(found, Measured):
        assert (found.series, found.values) == (expected, values)
    else:
        assert name[0] in "=+-@" or len(expected) > 200


@given(datagram=st.binary(max_size=300))
def test_no_bytes_raise(datagram: bytes) -> None:
    """Whatever comes: each line is an event of finite values, or refused."""
    found = list(read(datagram))
    assert len(found) == sum(bool(line.strip()) for line in datagram.split(b"\n"))


@given(st.lists(st.sampled_from([*":|#@Tcg1-,a\né;", "ms", "_e{"]), max_size=30))
def test_no_shuffled_line_raises(pieces: list[str]) -> None:
    """Its own signs in any order."""
    for each in read("".join(pieces).encode(), counters=True):
        assert isinstance(each, Measured | Refused)
