"""Ask a store one question over many series: for their total and for groups of them, at one instant."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Generic, NamedTuple

from statsapi.engine.answers import Statistics
from statsapi.engine.counted import Selections
from statsapi.engine.piecewise import in_order, let_go
from statsapi.engine.store import Store
from statsapi.engine.sweep import Sweep
from statsapi.engine.union import AnswerT, Question, Spans
from statsapi.engine.union_kept import Chooser
from statsapi.model import Percent


class Grouping(NamedTuple):
    """How series are grouped, and which groups are shown.

    key_of: maps a series' name to its group; None is a group too (of the series without that tag).
    value: the value by which groups are put in order; None: by key. Groups without a value come last, either way.
    percentiles: those that `value` looks at. For groups that are not shown, nothing else is computed.
    """

    key_of: Callable[[str], str | None]
    value: Callable[[Statistics], Any] | None = None
    descending: bool = False
    percentiles: tuple[Percent, ...] = ()
    limit: int = 100


class Group(NamedTuple, Generic[AnswerT]):
    """One group: how many series were chosen for it, and its answer."""

    key: str | None
    series: int
    answer: AnswerT


class Answer(NamedTuple, Generic[AnswerT]):
    """matched: how many of the chosen series are held. groups_total: how many groups there are, shown or not."""

    matched: int
    total: AnswerT
    groups: list[Group[AnswerT]] = []  # noqa: RUF012 (never written to)
    groups_total: int = 0


def ask(
    store: Store, chooser: Chooser, question: Question[Any, AnswerT], now_us: int, grouping: Grouping | None = None
) -> Answer[AnswerT]:
    """The answer for the union of the chosen series, and for each group of them, at one instant.

    No part of it includes events recorded meanwhile. Other threads wait about a millisecond at a time for the lock, and
    for the interpreter as long as the process makes them (in a worker: server/interpreter.py). Raises ViewBroken, as
    every question does.
    """
    if grouping is None and isinstance(question, Spans):
        known = store.unions.ask(store, chooser, question, now_us, store.selections)
        if known is not None:
            return Answer(*known)
    names, sweep = store.sweep(chooser.chosen, chooser.matches, question, now_us)
    try:
        return _answer(names, sweep, question, grouping, store.selections)
    finally:
        let_go(sweep.parts)


def _answer(
    names: Sequence[str],
    sweep: Sweep[Any],
    question: Question[Any, AnswerT],
    grouping: Grouping | None,
    selections: Selections,
) -> Answer[AnswerT]:
    total = question.unite(sweep.parts, selections=selections)
    if grouping is None:
        return Answer(sweep.held, total)
    parts: dict[str | None, list[Any]] = {}
    for name, part in zip(names, sweep.parts, strict=True):
        parts.setdefault(grouping.key_of(name), []).append(part)
    keys: Iterable[str | None]
    keys = in_order(parts, _key_order, descending=grouping.descending and grouping.value is None)
    if grouping.value is not None:
        value = grouping.value
        with_value, without = [], []
        for key in keys:
            found = value(question.place(parts[key], grouping.percentiles))
            if found is None:
                without.append(key)
            else:
                with_value.append((found, key))
        # Equal values stay in the order of their keys, also in reverse.
        placed = in_order(with_value, itemgetter(0), descending=grouping.descending)
        keys = chain((key for _, key in placed), without)
    groups = []
    for key in islice(keys, grouping.limit):
        groups.append(Group(key, len(parts[key]), question.unite(parts[key])))
    groups_total = len(parts)
    while parts:
        parts.popitem()
    return Answer(sweep.held, total, groups, groups_total)


def _key_order(key: str | None) -> tuple[bool, Hashable]:
    return key is None, key or ""
