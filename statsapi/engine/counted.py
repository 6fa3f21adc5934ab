"""Counts for percentiles: how many values of sorted columns lie below some keys, and which values lie between two keys.
They are kept for the next question.

Columns never change, so a count in a column stays true. The next question counts only in columns that are new to it: in
a window over 10 million events that slides by a second, these are the chunks sealed since. In a `CutColumn` the cut
moves: the values it left behind are subtracted.

Pure functions and immutable values: no lock, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from statsapi.model import Values

# Numbers of columns. No two columns get the same one.
COLUMN_NUMBERS: Final = count(1)

# A selection that looked at more values than this between two pivots is not kept: it would hold half a megabyte.
_MIDDLE_KEPT: Final = 65_536

# This many selections are kept for each series, and as many for all unions of series: four windows, each with its
# predecessor.
_SELECTIONS_KEPT: Final = 8

# All kept selections together take at most this many bytes for each event of the largest selection.
_KEPT_BYTES_PER_EVENT: Final = 0.5

_NONE: Final = np.empty(0, np.int64)


class SortedColumn(NamedTuple):
    """Values in ascending order, and each 64th of them.

    number: identifies the column, so that later questions find its counts; 0 for a column made for one question.
    """

    values: Values
    sample: Values
    number: int = 0


class CutColumn(NamedTuple):
    """A sorted column in which only some values count: those whose rank lies in [first, last), one or more.

    rank uint16[n]: each value's place in time. near: the values at the places from `near_from` on, in order of time.
    """

    column: SortedColumn
    rank: NDArray[np.uint16]
    first: int
    last: int
    sampled_from: int
    near_from: int
    near: Values

    def kept(self) -> NDArray[np.bool_]:
        return ranked_in(self.rank, self.first, self.last)

    def kept_values(self) -> Values:
        """Sorted, copied."""
        return np.compress(self.kept(), self.column.values)


def ranked_in(rank: NDArray[np.uint16], first: int, last: int) -> NDArray[np.bool_]:
    """Which ranks lie in [first, last); first < last."""
    # One comparison for two bounds: what lies before `first` wraps round to the far end of uint16.
    inside: NDArray[np.bool_] = rank - np.uint16(first) < last - first if first else rank < last
    return inside


class Keys(NamedTuple):
    """Two keys: the values v with low <= v < high lie between them. only: when set, all of these values equal it."""

    low: float
    high: float
    only: float | None = None


class Counted(NamedTuple):
    """The counts for some pairs of keys.

    numbers int64[columns]: the columns, in the order in which they were asked. below int64[columns, 2 · pairs]: how
    many values of each column are less than each key. between: for each pair, the values between its keys, column by
    column; empty for a pair whose values are all equal. cuts: the same for the cut columns.
    """

    keys: tuple[Keys, ...]
    numbers: NDArray[np.int64]
    below: NDArray[np.int64]
    between: list[Values]
    cuts: CountedCuts

    @classmethod
    def of(cls, columns: Sequence[SortedColumn], cuts: Sequence[CutColumn], keys: Sequence[Keys]) -> Counted:
        """Count in all columns. 2 µs a column; 15 µs for one that is cut."""
        none = Counted(tuple(keys), _NONE, np.empty((0, 2 * len(keys)), np.int64), [np.empty(0)] * len(keys), _NO_CUTS)
        return none.moved(columns, cuts)

    def moved(self, columns: Sequence[SortedColumn], cuts: Sequence[CutColumn]) -> Counted:
        """The counts for other columns. Columns that are counted here already are not counted again: 0.1 µs each."""
        cuts_counted = self.cuts.moved(cuts, self.keys)
        numbers = np.array([number for _, _, number in columns], np.int64)
        known = int(np.count_nonzero(self.numbers))  # columns without a number come last
        if known and len(numbers) >= known and (numbers[:known] == self.numbers[:known]).all():
            return self._extended(columns[known:], known, numbers, cuts_counted)
        rows = _rows_of(numbers, self.numbers)
        new = (rows < 0).nonzero()[0].tolist()
        flat = _flat(self.keys)
        below = self.below.take(rows, axis=0) if len(self.below) else np.empty((len(rows), len(flat)), np.int64)
        for i in new:
            below[i] = columns[i].values.searchsorted(flat)
        runs = _runs_of(rows)
        between = []
        for g, keys in enumerate(self.keys):
            if keys.only is not None:
                between.append(np.empty(0))
                continue
            edges = _ends(self.below[:, 2 * g : 2 * g + 2])
            some = []
            for first, last in runs:
                row = int(rows[first])
                if row < 0:
                    a, b = below[first, 2 * g : 2 * g + 2].tolist()
                    some.append(columns[first].values[a:b])
                else:
                    some.append(self.between[g][edges[row] : edges[row + last - first]])
            between.append(np.concatenate(some) if some else np.empty(0))
        return Counted(self.keys, numbers, below, between, cuts_counted)

    def _extended(
        self, added: Sequence[SortedColumn], known: int, numbers: NDArray[np.int64], cuts: CountedCuts
    ) -> Counted:
        """The usual case: the first columns are the known ones, and new ones come after them."""
        if not added and known == len(self.numbers):
            return self._replace(cuts=cuts)
        flat = _flat(self.keys)
        below = self.below[:known]
        ends = (below[:, 1::2] - below[:, ::2]).sum(axis=0).tolist()
        of_added = [column.values.searchsorted(flat).tolist() for column in added]
        between = []
        for g, (pair, end) in enumerate(zip(self.keys, ends, strict=True)):
            if pair.only is not None:
                between.append(self.between[g])
                continue
            some = [self.between[g][:end]]
            for column, places in zip(added, of_added, strict=True):
                some.append(column.values[places[2 * g] : places[2 * g + 1]])
            between.append(np.concatenate(some))
        below = np.concatenate((below, np.array(of_added, np.int64).reshape(len(added), len(flat))))
        return Counted(self.keys, numbers, below, between, cuts)

    def narrowed(self, g: int, keys: Keys) -> Counted:
        """With narrower keys for pair g: both lie between its present ones. 10 ns for each value between those."""
        values = self.between[g]
        lengths = self.below[:, 2 * g + 1] - self.below[:, 2 * g]
        less, inside, stays = _counts_by_owner(values, lengths, keys)
        below = self.below.copy()
        below[:, 2 * g] += less
        below[:, 2 * g + 1] = below[:, 2 * g] + inside
        return Counted(
            (*self.keys[:g], keys, *self.keys[g + 1 :]),
            self.numbers,
            below,
            [*self.between[:g], values[stays], *self.between[g + 1 :]],
            self.cuts.narrowed(g, keys) if len(self.cuts.numbers) else self.cuts,
        )

    def totals(self) -> list[tuple[int, int]]:
        """For each pair, how many values are less than its low key and less than its high key."""
        sums = self.below.sum(axis=0)
        if len(self.cuts.numbers):
            sums += self.cuts.below.sum(axis=0)
        totals = sums.tolist()
        return list(zip(totals[::2], totals[1::2], strict=True))

    def values_between(self, g: int) -> Values:
        """The values between the keys of pair g, in any order. Copied."""
        if not len(self.cuts.numbers):
            return self.between[g].copy()
        return np.concatenate((self.between[g], self.cuts.kept_between(g)))

    def only(self, pairs: Sequence[int]) -> Counted:
        """The counts for some of the pairs."""
        if len(pairs) == len(self.keys):
            return self
        flat = [at for g in pairs for at in (2 * g, 2 * g + 1)]
        return Counted(
            tuple(self.keys[g] for g in pairs),
            self.numbers,
            self.below[:, flat],
            [self.between[g] for g in pairs],
            self.cuts.only(pairs, flat),
        )

    @staticmethod
    def joined(some: Sequence[Counted]) -> Counted:
        """One object with the pairs of all of `some`, which are about the same columns."""
        first = some[0]
        if len(some) == 1:
            return first
        return Counted(
            tuple(keys for each in some for keys in each.keys),
            first.numbers,
            np.concatenate([each.below for each in some], axis=1),
            [values for each in some for values in each.between],
            CountedCuts.joined([each.cuts for each in some]),
        )

    def arrays(self) -> list[NDArray[Any]]:
        """Every array held."""
        return [self.numbers, self.below, *self.between, *self.cuts.arrays()]


class CountedCuts(NamedTuple):
    """The counts in cut columns.

    numbers int64[cuts]: the columns. first, last int64[cuts]: the ranks from which and up to which values count.
    places int64[cuts, 2 · pairs]: where each key stands among all values of the column. below: how many of the values
    that count are less than the key.
    between, ranks: for each pair, all values between its keys, column by column, and their ranks.
    """

    numbers: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    places: NDArray[np.int64]
    below: NDArray[np.int64]
    between: list[Values]
    ranks: list[NDArray[np.uint16]]

    def moved(self, cuts: Sequence[CutColumn], keys: Sequence[Keys]) -> CountedCuts:
        if not cuts:
            if not len(self.numbers) and len(self.between) == len(keys):
                return self
            return _NO_CUTS._replace(
                places=np.empty((0, 2 * len(keys)), np.int64),
                below=np.empty((0, 2 * len(keys)), np.int64),
                between=[np.empty(0)] * len(keys),
                ranks=[np.empty(0, np.uint16)] * len(keys),
            )
        which = np.array([(cut.column.number, cut.first, cut.last) for cut in cuts], np.int64)
        numbers, first, last = np.ascontiguousarray(which.T)
        flat = _flat(keys)
        rows = _rows_of(numbers, self.numbers)
        known = rows >= 0
        if known.any():
            places, below = self.places.take(rows, axis=0), self.below.take(rows, axis=0)
            was_first, was_last = self.first.take(rows), self.last.take(rows)
        else:
            places = np.empty((len(cuts), len(flat)), np.int64)
            below = places.copy()
            was_first, was_last = first, last
        new = (~known).nonzero()[0].tolist()
        for i in new:
            places[i] = cuts[i].column.values.searchsorted(flat)
        again = new
        behind: list[Values] = []
        owners: list[int] = []
        order = flat.argsort(kind="stable")
        for i in (known & ((first != was_first) | (last != was_last))).nonzero()[0].tolist():
            cut = cuts[i]
            a, b = int(was_first[i]) - cut.near_from, cut.first - cut.near_from
            if 0 <= a <= b <= len(cut.near) and cut.last == was_last[i]:
                behind.append(cut.near[a:b])
                owners.append(i)
            else:
                again.append(i)
        if behind:
            below[owners] -= _count_below(behind, flat, order)
        if again:
            for i in again:
                below[i, order] = _kept_below(cuts[i].kept(), places[i, order].tolist())
        runs = _runs_of(rows)
        if not new and len(runs) == 1 and len(numbers) == len(self.numbers):
            return CountedCuts(numbers, first, last, places, below, self.between, self.ranks)
        between, ranks = [], []
        for g, pair in enumerate(keys):
            some, some_ranks = [np.empty(0)], [np.empty(0, np.uint16)]
            edges = _ends(self.places[:, 2 * g : 2 * g + 2]) if len(self.places) else []
            for start, end in runs if pair.only is None else ():
                row = int(rows[start])
                if row < 0:
                    a, b = places[start, 2 * g : 2 * g + 2].tolist()
                    some.append(cuts[start].column.values[a:b])
                    some_ranks.append(cuts[start].rank[a:b])
                else:
                    part = slice(edges[row], edges[row + end - start])
                    some.append(self.between[g][part])
                    some_ranks.append(self.ranks[g][part])
            between.append(np.concatenate(some))
            ranks.append(np.concatenate(some_ranks))
        return CountedCuts(numbers, first, last, places, below, between, ranks)

    def kept_between(self, g: int) -> Values:
        """The values of pair g that count."""
        return np.compress(self._kept(g), self.between[g])

    def _kept(self, g: int) -> NDArray[np.bool_]:
        """Which of the values of pair g count."""
        lengths = self.places[:, 2 * g + 1] - self.places[:, 2 * g]
        first = self.first.astype(np.uint16).repeat(lengths)
        kept_here = (self.last - self.first).astype(np.uint16).repeat(lengths)
        kept: NDArray[np.bool_] = self.ranks[g] - first < kept_here
        return kept

    def narrowed(self, g: int, keys: Keys) -> CountedCuts:
        values = self.between[g]
        lengths = self.places[:, 2 * g + 1] - self.places[:, 2 * g]
        less, inside, stays = _counts_by_owner(values, lengths, keys)
        places, below = self.places.copy(), self.below.copy()
        places[:, 2 * g] += less
        places[:, 2 * g + 1] = places[:, 2 * g] + inside
        less, inside, _ = _counts_by_owner(values, lengths, keys, self._kept(g))
        below[:, 2 * g] += less
        below[:, 2 * g + 1] = below[:, 2 * g] + inside
        return self._replace(
            places=places,
            below=below,
            between=[*self.between[:g], values[stays], *self.between[g + 1 :]],
            ranks=[*self.ranks[:g], self.ranks[g][stays], *self.ranks[g + 1 :]],
        )

    def only(self, pairs: Sequence[int], flat: list[int]) -> CountedCuts:
        return self._replace(
            places=self.places[:, flat],
            below=self.below[:, flat],
            between=[self.between[g] for g in pairs],
            ranks=[self.ranks[g] for g in pairs],
        )

    @staticmethod
    def joined(some: Sequence[CountedCuts]) -> CountedCuts:
        return some[0]._replace(
            places=np.concatenate([each.places for each in some], axis=1),
            below=np.concatenate([each.below for each in some], axis=1),
            between=[values for each in some for values in each.between],
            ranks=[ranks for each in some for ranks in each.ranks],
        )

    def arrays(self) -> list[NDArray[Any]]:
        return [self.numbers, self.first, self.last, self.places, self.below, *self.between, *self.ranks]


_NO_COUNTS: Final = np.empty((0, 0), np.int64)
_NO_CUTS: Final = CountedCuts(_NONE, _NONE, _NONE, _NO_COUNTS, _NO_COUNTS, [], [])


class _Selection(NamedTuple):
    """asked: the question, as a key. n: how many values it was about."""

    asked: object
    n: int
    counted: Counted
    nbytes: int


class Selections:
    """The counts of the latest selections. Several threads may call its methods at once; then the counts of one thread
    may be lost, and are taken again.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[_Selection, ...] = ()

    def recall(
        self, asked: object, n: int, columns: Sequence[SortedColumn], cuts: Sequence[CutColumn]
    ) -> Counted | None:
        """The counts for the same question about nearly the same values; None without any. Some µs."""
        found: _Selection | None = None
        for each in self._kept:
            if each.asked != asked or (found is not None and abs(each.n - n) > abs(found.n - n)):
                continue
            # Windows of another length and spans elsewhere have other pivots. So a selection is of use only if it has
            # counted this question's middle column.
            of_columns, of_cuts = each.counted.numbers, each.counted.cuts.numbers
            if (columns and (of_columns == columns[len(columns) // 2].number).any()) or (
                cuts and (of_cuts == cuts[len(cuts) // 2].column.number).any()
            ):
                found = each
        return found and found.counted

    def keep(self, asked: object, n: int, counted: Counted, before: Counted | None) -> None:
        """Keep the counts in place of `before`, from which they were made, unless its window has another length."""
        if any(len(values) > _MIDDLE_KEPT for values in (*counted.between, *counted.cuts.between)):
            return
        nbytes = sum([array.nbytes + 112 for array in counted.arrays()])
        kept = [s for s in self._kept if s.counted is not before or (s.n - n) * 16 > n or (n - s.n) * 16 > n]
        kept.append(_Selection(asked, n, counted, nbytes))
        most = max([s.n for s in kept]) * _KEPT_BYTES_PER_EVENT
        while len(kept) > 1 and (len(kept) > _SELECTIONS_KEPT or sum([s.nbytes for s in kept]) > most):
            del kept[0]
        self._kept = tuple(kept)

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the kept selections take."""
        return sum([selection.nbytes for selection in self._kept])


def _flat(keys: Sequence[Keys]) -> Values:
    return np.array([key for low, high, _ in keys for key in (low, high)])


def _rows_of(numbers: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each number stands in `among`; -1 for a number that is not in it, or is 0."""
    if len(numbers) == len(among) and (numbers == among).all():
        rows = np.arange(len(numbers))
    elif len(among):
        order = among.argsort()
        at = among.searchsorted(numbers, sorter=order)
        rows = order[np.minimum(at, len(order) - 1)]
        rows[among[rows] != numbers] = -1
    else:
        return np.full(len(numbers), -1)
    rows[numbers == 0] = -1
    return rows


def _runs_of(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches [first, last) of rows that follow each other; -1 is a stretch of its own."""
    if not len(rows):
        return []
    follows = (rows[1:] == rows[:-1] + 1) & (rows[1:] > 0)
    return list(pairwise([0, *(np.flatnonzero(~follows) + 1).tolist(), len(rows)]))


def _ends(places: NDArray[np.int64]) -> list[int]:
    """0, then for each column the place where its values between two keys end, when all columns' values follow each
    other.
    """
    return [0, *(places[:, 1] - places[:, 0]).cumsum().tolist()]


def _counts_by_owner(
    values: Values, lengths: NDArray[np.int64], keys: Keys, counted: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """For each owner, how many of its values are less than the keys, and how many lie between them; then a mask of the
    values between them.

    lengths: how many values each owner has; they follow each other. counted: which values count; None: all.
    """
    owner = np.arange(len(lengths)).repeat(lengths)
    less, stays = values < keys.low, (values >= keys.low) & (values < keys.high)
    if counted is not None:
        less, stays = less & counted, stays & counted
    below, inside = (np.bincount(owner[some], minlength=len(lengths)) for some in (less, stays))
    return below, inside, stays


def _count_below(some: list[Values], flat: Values, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[arrays, keys]: how many of each array's values are less than each key."""
    lengths = [len(values) for values in some]
    owner = np.arange(len(some)).repeat(lengths)
    width = len(flat) + 1
    at = flat[order].searchsorted(np.concatenate(some), side="right")
    counts = np.bincount(owner * width + at, minlength=len(some) * width).reshape(-1, width).cumsum(axis=1)
    below = np.empty((len(some), len(flat)), np.int64)
    below[:, order] = counts[:, :-1]
    return below


def _kept_below(kept: NDArray[np.bool_], ends: list[int]) -> list[int]:
    """For each i, how many of the first ends[i] values are kept; ends ascend."""
    counts = []
    start = total = 0
    for end in ends:
        if end > start:
            total += int(np.count_nonzero(kept[start:end]))
            start = end
        counts.append(total)
    return counts
