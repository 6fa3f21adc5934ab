"""Elements of a JSON array or object: found as a reader that goes letter by letter finds them."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.api.decoding import elements
from statsapi.api.decoding.elements import TooDeep, TooMany, Unclosed, find_elements

MIB = 1 << 20


def twin(text: bytes, at: int) -> tuple[list[tuple[int, int]], int] | None:
    """One letter after the other; None for what is never closed."""
    depth, in_string, escaped = 0, False, False
    ends = [at]
    for place in range(at, len(text)):
        letter = text[place : place + 1]
        if in_string:
            in_string = escaped or letter != b'"'
            escaped = not escaped and letter == b"\\"
        elif letter == b'"':
            in_string = True
        elif letter in b"[{":
            depth += 1
        elif letter in b"]}":
            depth -= 1
            if depth == 0:
                spans = [(first + 1, last) for first, last in zip(ends, [*ends[1:], place], strict=True)]
                empty = len(spans) == 1 and not text[slice(*spans[0])].strip()
                return [] if empty else spans, place + 1
        elif letter == b"," and depth == 1:
            ends.append(place)
    return None


documents = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a\\"[]{},é\n', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(documents, max_size=6), st.sampled_from([1, 2, 3, 7, 64]), st.booleans())
def test_elements_of_any_array(items: list[Any], step: int, spaced: bool) -> None:
    """Each element, parsed alone, is the array's item, wherever the steps of the search end."""
    text = json.dumps(items, indent=1 if spaced else None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elements, "_STEP_BYTES", step)
        found = find_elements(b" " + text + b" ", 1, 10)
    assert found.end == len(text) + 1
    assert [json.loads((b" " + text)[slice(*span)]) for span in found.spans] == items


@given(st.text(alphabet='[]{},"a ', max_size=40), st.sampled_from([1, 2, 3, 7, 64]))
def test_what_is_no_json_is_split_alike(text: str, step: int) -> None:
    """Brackets that do not fit and strings that do not end are read as one letter after the other would be."""
    body = b"[" + text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elements, "_STEP_BYTES", step)
        try:
            found: Any = tuple(find_elements(body, 0, 100))
        except Unclosed:
            found = None
    assert found == twin(body, 0)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (b"[" + b"[]," * (MIB // 3), TooMany),
        (b"[" + b"," * MIB, TooMany),
        (b"[" * MIB, TooDeep),
        (b"[" + b'{"a":' * 200 + b"1", TooDeep),
        (b'["' + b"\\" * MIB, Unclosed),
        (b"[" + b'"' * MIB, Unclosed),
        (b"[" + b"1" * MIB, Unclosed),
    ],
)
def test_hostile_texts_cost_little(text: bytes, refusal: type[Exception]) -> None:
    """What is refused is refused within some MB of memory, whatever the text is made of."""
    tracemalloc.start()
    try:
        with pytest.raises(refusal):
            find_elements(text, 0, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_most_is_exact() -> None:
    """As many elements as asked for are found, one more is too many; an empty array has none."""
    for count in range(4):
        text = json.dumps(list(range(count))).encode()
        assert len(find_elements(text, 0, count).spans) == count
        if count:
            with pytest.raises(TooMany):
                find_elements(text, 0, count - 1)
