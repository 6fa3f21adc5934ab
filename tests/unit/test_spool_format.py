"""The format of a spool's files: what they tell after any damage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.client.spool_format import NewerVersionError, encode_head, encode_line, read

KEY = "0123456789abcdef0123456789abcdef"
EVENTS = st.lists(st.integers(0, 10**6).map(lambda value: f'{{"value":{value}}}'), min_size=1, max_size=4)
MARKS = st.sampled_from([("t", "1763711100000000"), ("n", ""), ("s", "0"), ("s", "")])
LINES = st.lists(st.one_of(EVENTS, MARKS), max_size=8)


def written(lines: list[Any]) -> tuple[bytes, list[bytes], list[int]]:
    """A file of those lines, its events, and how many of them end with each line."""
    content, ends = encode_head(), [0]
    events: list[bytes] = []
    for line in lines:
        if isinstance(line, tuple):
            content += encode_line(KEY, line[0], len(events), line[1])
        else:
            content += encode_line(KEY, "e", len(events), "\t".join(line))
            events += [event.encode() for event in line]
        ends.append(len(events))
    return content, events, ends


@given(lines=LINES)
def test_what_was_written_is_read(lines: list[Any]) -> None:
    """All events in their order, the last word about an attempt, and the pieces that go in halves."""
    content, events, _ = written(lines)
    found = read(content, KEY)
    marks = [line for line in lines if isinstance(line, tuple)]
    tried = [kind for kind, _ in marks if kind in "tn"]
    assert found.events == events
    assert (found.tried_us is not None) == (tried[-1:] == ["t"])
    assert found.split == {piece for kind, piece in marks if kind == "s"}
    assert (found.damage, found.lost, found.sound_bytes) == ("", 0, len(content))


@given(lines=LINES, data=st.data())
def test_a_torn_file_holds_all_whole_lines(lines: list[Any], data: st.DataObject) -> None:
    """Cut anywhere: the lines before the cut are read, of the torn one nothing, and that is no damage."""
    content, events, ends = written(lines)
    cut = data.draw(st.integers(0, len(content)))
    found = read(content[:cut], KEY)
    whole = content[:cut].count(b"\n")
    is_all_but_its_end = cut < len(content) and content[cut : cut + 1] == b"\n" and whole > 0
    assert found.events == events[: ends[max(whole - 1, 0) + is_all_but_its_end]]
    assert (found.damage, found.lost) == ("", 0)


@given(lines=LINES, data=st.data())
def test_a_changed_byte_makes_no_event_and_loses_none_silently(lines: list[Any], data: st.DataObject) -> None:
    """Only written events are read, in their order and once; that some are missing is told, and how many, where a line
    behind them says so.
    """
    content, events, _ = written(lines)
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(changed), KEY)
    except NewerVersionError:
        pytest.fail("the head has a checksum, so a changed version is damage")
    rest = iter(events)
    assert all(event in rest for event in found.events)
    missing = len(events) - len(found.events)
    assert not missing or found.damage
    if content.find(b"\n", at) + 1 < len(content) and found.events[-1:] == events[-1:]:
        assert found.lost == missing
