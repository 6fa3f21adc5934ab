"""What passes between the layers: a batch's parts, whether they lie together or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.journal.format import decode_batch, encode_batch
from statsapi.model import EventBatch, Part, Parts

lengths = st.lists(st.integers(0, 3), max_size=5)


def some_parts(counts: list[int]) -> tuple[Part, ...]:
    """A part for each count; all their events differ."""
    columns = np.arange(sum(counts), dtype=np.int64)
    ends = np.cumsum(counts, dtype=np.int64).tolist()
    spans = zip([0, *ends], ends, strict=False)
    return tuple(Part(f"s{k}", columns[low:high], columns[low:high] / 2) for k, (low, high) in enumerate(spans))


def written(parts: object) -> list[tuple[str, list[int], list[float]]]:
    return [(part.series, part.ts_us.tolist(), part.values.tolist()) for part in parts]  # type: ignore[attr-defined]


@given(lengths)
def test_parts_that_lie_together_are_the_same_parts(counts: list[int]) -> None:
    """By iteration, index, slice, length, name, time and in the journal's bytes."""
    apart = some_parts(counts)
    together = Parts.of(apart)
    assert written(together) == written(apart)
    assert written(together[at] for at in range(-len(apart), len(apart))) == written((*apart, *apart))
    assert written(together[1:-1]) == written(apart[1:-1])
    assert len(together) == len(apart)
    assert Parts.of(together) is together
    one, other = EventBatch(apart), EventBatch(together)
    assert len(one) == len(other) == sum(counts)
    assert list(one.names) == list(other.names)
    assert one.ts_us.tolist() == other.ts_us.tolist()
    assert one.ts_us.dtype == other.ts_us.dtype == np.int64
    assert encode_batch(one) == encode_batch(other)
    assert written(decode_batch(encode_batch(other)).parts) == written(apart)


def test_one_part_is_not_copied() -> None:
    """The timestamps of a batch of one part are that part's own."""
    (part,) = some_parts([3])
    assert EventBatch((part,)).ts_us is part.ts_us


def test_an_index_beyond_the_parts_is_an_error() -> None:
    """As with a tuple."""
    for at in (2, -3):
        with pytest.raises(IndexError):
            Parts.of(some_parts([1, 2]))[at]


def test_columns_that_do_not_belong_together_are_refused() -> None:
    """More values than timestamps, counts that add up to something else, a name too many."""
    ts_us, values = np.arange(3), np.ones(3)
    for names, counts, number in ((["a"], [3], 2), (["a"], [2], 3), (["a", "b"], [3], 3), ([], [], 3)):
        with pytest.raises(ValueError, match="more timestamps than values, or fewer"):
            Parts(names, np.array(counts, np.int64), ts_us, values[:number])
    with pytest.raises(ValueError, match="more timestamps than values, or fewer"):
        Parts.of([Part("a", ts_us, values[:2]), Part("b", ts_us, values)])
    with pytest.raises(TypeError):
        Parts.of([Part("a", ts_us, values.astype(np.float32)), Part("b", ts_us, values)])
