"""The latest answers over unions, kept and brought up to date: a dashboard asks a thousand series the same again and
again.

Looking at a thousand series takes 10 to 20 ms, and in nearly all of them little has changed since the last question. So
an answer is kept for all series together, without anything about a single series:

    start                               now
      [edge: all events by time |              ]         summary of all, and the values near the wanted ranks
       gone as the window slides                <- came: the events recorded since (changes.py)

Events recorded since are added, and events that the window has left behind are subtracted, both in integers: the answer
is the same to the bit. No series is looked at, except for the edges once in a while. A kept answer becomes useless when
an event in its window is removed, when a wanted rank has left the known values (ranked.py), or when too much was
recorded. Then all series are looked at, and an answer is kept again at the second question: most questions are asked
once.

Spans that have an end or begin before the raw events are not kept, nor are groups or the first and last event.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from sys import getsizeof
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np

from statsapi.engine import percentiles
from statsapi.engine.answers import Statistics
from statsapi.engine.buffer import NO_TS, NO_VALUES, Columns
from statsapi.engine.changes import NO_MARK, NOTHING, Instant, Mark, Since
from statsapi.engine.counted import Selections
from statsapi.engine.exact import scaled_sums
from statsapi.engine.frozen import Frozen
from statsapi.engine.piecewise import PIECE, concatenated, let_go
from statsapi.engine.ranked import Ranked
from statsapi.engine.rollup import Rollups
from statsapi.engine.summary import IDENTITY, Summary
from statsapi.engine.sweep import Sweep
from statsapi.engine.timeline import Timeline
from statsapi.engine.union import Bounds, Looks, SpanPart, Spans, columns_of, unite_span
from statsapi.model import Percent, Span, TimestampsUs, Values

PartT = TypeVar("PartT")

# The edge has about this many events, at most twice as many, in 16 bytes each. A window of an hour with 10 million
# events slides over them in 94 s; then the edges of all series are looked at again, which takes 30 to 40 ms.
_EDGE_EVENTS: Final = 262_144

# The latest answers are kept as long as they take at most this many bytes together. An answer about 10 million events,
# with three percentiles, takes 5 MB: there is room for four such windows, and some smaller ones.
_BYTES_MAX: Final = 32_000_000

# This many questions are remembered, so that a repeated one is recognised. Each takes 200 bytes.
_ASKED_MAX: Final = 64

# With fewer series, looking at each is faster. Times as a window slid by a second, for looking and for a kept answer:
# two series of ten events 0.05 and 0.06 ms, eight of a thousand events 0.09 and 0.06, 128 of a thousand 1.6 and 0.25.
_SERIES_MIN: Final = 8


class Edge(NamedTuple):
    """All events of the union from its start up to `to_us`, in order of time."""

    ts_us: TimestampsUs
    values: Values
    to_us: int

    @classmethod
    def of(cls, some: Sequence[Frozen | Columns], start_us: int, to_us: int, events_max: int) -> Edge:
        """The edge ends before to_us if it would have more than events_max events. No lock; 20 µs a chunk, 1 if few."""
        ts_us: list[TimestampsUs] = [NO_TS]
        values: list[Values] = [NO_VALUES]
        n = 0
        for events in some:
            for piece_ts_us, piece_values in events.walk() if isinstance(events, Frozen) else (events,):
                if not len(piece_ts_us):
                    continue
                end = len(piece_ts_us)
                if int(piece_ts_us[-1]) >= to_us:
                    end = int(piece_ts_us.searchsorted(to_us))
                ts_us.append(piece_ts_us[:end])
                # Copied: a view would keep alive a whole chunk that was put in order for this walk.
                values.append(piece_values[:end].copy() if isinstance(events, Frozen) else piece_values[:end])
                n += end
            while n > events_max:
                to_us = start_us + (to_us - start_us) // 2
                all_ts_us, all_values = concatenated(ts_us), concatenated(values)
                inside = all_ts_us < to_us
                ts_us, values = [all_ts_us[inside]], [all_values[inside]]
                n = len(ts_us[0])
        all_ts_us, all_values = concatenated(ts_us), concatenated(values)
        let_go(ts_us, values)
        return cls._ordered(all_ts_us, all_values, to_us)

    @classmethod
    def _ordered(cls, ts_us: TimestampsUs, values: Values, to_us: int) -> Edge:
        order = ts_us.argsort(kind="stable")
        return cls(ts_us[order], values[order], to_us)

    def with_late(self, ts_us: TimestampsUs, values: Values) -> Edge:
        """The edge with those of the events that lie in it or before it."""
        late = ts_us < self.to_us
        if not late.any():
            return self
        ts_us, values = np.concatenate((self.ts_us, ts_us[late])), np.concatenate((self.values, values[late]))
        return self._ordered(ts_us, values, self.to_us)

    def slid(self, start_us: int) -> tuple[Values, Edge]:
        """The values before start_us, and the edge without them. start_us is at most to_us."""
        at = int(self.ts_us.searchsorted(start_us))
        return self.values[:at], Edge(self.ts_us[at:], self.values[at:], self.to_us)


class Chooser(Protocol):
    """Which series a question is about. Its members must agree. Its methods are called with canonical names only."""

    @property
    def selection(self) -> Hashable:
        """Identifies the choice: choosers with equal selections choose the same series."""

    def matches(self, name: str) -> bool:
        """Whether the question is about that series. Called under the store's lock: about a µs."""

    def chosen(self, held: Sequence[str]) -> Sequence[str]:
        """All series that the question is about, sorted: chosen from `held` (sorted), and others that it names itself.
        No lock is held.
        """


class Names(Protocol):
    """See `Listing`."""

    def names(self) -> Sequence[str]: ...


class Source(Protocol):
    """The methods of `Store` that are used here."""

    @property
    def listing(self) -> Names: ...

    def changes(self, marks: Sequence[Mark | None], now_us: int) -> Instant: ...

    def sweep(
        self,
        choose: Callable[[list[str]], Sequence[str]],
        picks: Callable[[str], bool],
        question: Looks[PartT],
        now_us: int,
        *,
        marked: bool = False,
    ) -> tuple[Sequence[str], Sweep[PartT]]: ...


class _Chosen(NamedTuple):
    """The series that a question is about. held: all series that were held then. matched: how many of them it chose."""

    held: Sequence[str]
    names: Sequence[str]
    members: set[str]
    matched: int

    @classmethod
    def of(cls, names: Sequence[str], matched: int) -> _Chosen:
        return cls((), names, _set_of(names), matched)

    def now(self, held: Sequence[str], names: Sequence[str]) -> _Chosen:
        """The chosen series `names`, with `held` as it is now. 50 ns for each series, if either has changed."""
        if held is self.held:
            return self
        members = self.members if names == self.names else _set_of(names)
        matched = sum([len(members.intersection(held[at : at + PIECE])) for at in range(0, len(held), PIECE)])
        return _Chosen(held, names, members, matched)


def _set_of(names: Sequence[str]) -> set[str]:
    """The names as a set, which is never changed."""
    members: set[str] = set()
    for at in range(0, len(names), PIECE):
        members.update(names[at : at + PIECE])
    return members


class _Kept(NamedTuple):
    """What is known at an instant about the events of some series from a window's start on."""

    chosen: _Chosen
    n: int
    sum_scaled: int
    sum_squares_scaled: int
    ranked: Ranked
    edge: Edge

    @classmethod
    def of(cls, parts: Sequence[SpanPart], edge: Edge, chosen: _Chosen, ps: Sequence[Percent]) -> _Kept:
        """From parts without old events. 10 to 20 µs a series."""
        summary = unite_span(parts, (), False).summary
        few = [part.few for part in parts if len(part.few)]
        columns, cuts = columns_of([part.columns for part in parts], few)
        ranked = Ranked.of(columns, cuts, summary.count, _ranks(summary.count, ps))
        return cls(chosen, summary.count, summary.sum_scaled, summary.sum_squares_scaled, ranked, edge)

    def moved(self, start_us: int, since: Since, chosen: _Chosen) -> _Kept:
        """The same for the window after it has slid, at a later instant."""
        ts_us, values = since.of(chosen.members)
        # Some events may be older than the window: they are added, and left behind at once.
        gone, edge = self.edge.with_late(ts_us, values).slid(start_us)
        came_sums, gone_sums = scaled_sums(values), scaled_sums(gone)
        return _Kept(
            chosen,
            self.n + len(values) - len(gone),
            self.sum_scaled + came_sums[0] - gone_sums[0],
            self.sum_squares_scaled + came_sums[1] - gone_sums[1],
            self.ranked.changed(values, gone),
            edge,
        )

    def lengthened(self, added: Edge, since: Since, since_added: Since | None, chosen: _Chosen) -> _Kept | None:
        """The same for the window that begins where the edge ended, with a new edge, which was read between the two
        instants.

        since: the changes since this was kept. since_added: those since the new edge was read; None if forgotten.
        """
        from_us = self.edge.to_us
        if since_added is None or since.removed_to_us > from_us:
            return None
        ts_us, values = since_added.of(chosen.members)
        inside = ts_us >= from_us
        edge = added.with_late(ts_us[inside], values[inside])
        return self.moved(from_us, since, chosen)._replace(edge=edge)

    def answer(self, ps: Sequence[Percent]) -> Statistics | None:
        """The answer; None where the value at a wanted rank is unknown."""
        n = self.n
        if not n:
            return Statistics(IDENTITY, [])
        at = self.ranked.at(_ranks(n, ps))
        if at is None:
            return None
        summary = Summary(n, at[0] + 0.0, at[n - 1] + 0.0, self.sum_scaled, self.sum_squares_scaled)
        return Statistics(summary, percentiles.interpolated(n, at, ps))

    @property
    def nbytes(self) -> int:
        return self.ranked.nbytes + self.edge.ts_us.nbytes + self.edge.values.nbytes + getsizeof(self.chosen.members)


def _ranks(n: int, ps: Sequence[Percent]) -> list[int]:
    """The ranks of the percentiles and of the extremes, ascending."""
    return percentiles.ranks_of(n, (0, *ps, 100)) if n else []


class _Asked(NamedTuple):
    """A question about a window that began at start_us, asked at the instant of the mark.

    slide_us: how far the window may have slid when the question is repeated. kept: None until the second question.
    """

    key: Hashable
    start_us: int
    slide_us: int
    mark: Mark
    kept: _Kept | None = None

    def covers(self, key: Hashable, start_us: int) -> bool:
        """Whether the question at start_us is this one, with its window slid."""
        return 0 <= start_us - self.start_us <= self.slide_us and self.key == key


_Looked = tuple[Sequence[SpanPart], list[Frozen | Columns | None]]


class _Look(NamedTuple):
    """The question to each series: its part of each span, and the events of the span's edge, if it has one."""

    spans: Spans
    edges: Sequence[Span | None]

    def looker(self, bounds: Bounds) -> Callable[[Timeline, Rollups], _Looked]:
        spans, edges = self.spans, self.edges
        if any(edges) and not spans.percentiles:
            spans = spans._replace(percentiles=(50,))  # extremes need the values, too
        look = spans.looker(bounds)
        return lambda timeline, rollups: (
            look(timeline, rollups),
            [edge and _edge_events(timeline, edge) for edge in edges],
        )


def _edge_events(timeline: Timeline, span: Span) -> Frozen | Columns:
    few = timeline.few_events(*span)
    return timeline.freeze(*span) if few is None else few


class KeptUnions:
    """Any thread may call any method. What one thread keeps may then be lost, and is made again."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: tuple[_Asked, ...] = ()

    def ask(
        self, store: Source, chooser: Chooser, question: Spans, now_us: int, selections: Selections
    ) -> tuple[int, list[Statistics]] | None:
        """How many of the chosen series are held, and the answers for their union, all at one instant.

        None for a question whose answers are never kept. With a kept answer it takes 0.2 ms, and 0.1 µs for each event
        that came or went; the lock is held for some µs of that. Else it takes as long as looking at all series.
        """
        if question.ends or any(span.end_us is not None for span in question.spans):
            return None
        if len(chooser.chosen(store.listing.names())) < _SERIES_MIN:
            return None
        ps = question.percentiles
        key = chooser.selection, tuple([p.as_integer_ratio() for p in ps])
        starts_us = [span.start_us for span in question.spans]
        asked = [self._nearest(key, start_us) for start_us in starts_us]
        added, added_mark = _added_edges(store, chooser, asked, starts_us, now_us)
        instant = store.changes([*[each and each.mark for each in asked], added_mark], now_us)
        if min(starts_us) < instant.raw_from_us:
            return None
        sound: list[_Asked | None] = []
        moved: list[_Asked] = []
        chosen: _Chosen | None = None
        for start_us, before, since, edge in zip(starts_us, asked, instant.since, added, strict=False):
            # Removals from before a window's start do not matter: the window has left those events behind.
            if before is None or since is None or since.removed_to_us > start_us:
                sound.append(None)
                continue
            sound.append(before)
            kept = before.kept
            if kept is None or len(moved) < len(sound) - 1:
                continue
            chosen = chosen or kept.chosen.now(instant.names, chooser.chosen(instant.names))
            if edge is not None:
                kept = kept.lengthened(edge, since, instant.since[-1], chosen)
                since = NOTHING
            if kept is not None and start_us <= kept.edge.to_us:
                kept = kept.moved(start_us, since, chosen)
                moved.append(before._replace(start_us=start_us, mark=instant.mark, kept=kept))
        answers = [each.kept and each.kept.answer(ps) for each in moved]
        found = [answer for answer in answers if answer is not None]
        if chosen is not None and len(found) == len(starts_us):
            self._remember(moved, asked)
            return chosen.matched, found
        matched, found, new = _looked(store, chooser, question, key, now_us, selections, sound)
        self._remember(new, asked)
        return matched, found

    def _nearest(self, key: Hashable, start_us: int) -> _Asked | None:
        """The same question about the window that has slid least. Windows of other lengths may cover it, too."""
        covering = [each for each in self._asked if each.covers(key, start_us)]
        return max(covering, key=lambda each: each.start_us, default=None)

    def _remember(self, new: Sequence[_Asked], instead_of: Sequence[_Asked | None]) -> None:
        asked = [each for each in self._asked if not any(each is gone for gone in instead_of)]
        asked += new
        nbytes = 0
        for i in reversed(range(len(asked))):
            kept = asked[i].kept
            if kept is not None:
                nbytes += kept.nbytes
                if nbytes > _BYTES_MAX:
                    asked[i] = asked[i]._replace(kept=None)
        self._asked = tuple(asked[-_ASKED_MAX:])

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the kept answers take."""
        return sum([each.kept.nbytes for each in self._asked if each.kept is not None])


def _added_edges(
    store: Source, chooser: Chooser, asked: Sequence[_Asked | None], starts_us: Sequence[int], now_us: int
) -> tuple[list[Edge | None], Mark]:
    """For each window that has slid past the end of its edge, the next edge; and the instant of all of them."""
    spans = [
        Span(before.kept.edge.to_us, start_us + before.slide_us)
        if before is not None and before.kept is not None and start_us > before.kept.edge.to_us
        else None
        for start_us, before in zip(starts_us, asked, strict=True)
    ]
    if not any(spans):
        return [None] * len(spans), NO_MARK
    _, sweep = store.sweep(chooser.chosen, chooser.matches, _Look(Spans(()), spans), now_us, marked=True)
    try:
        return [_edge_of(sweep, i, span) for i, span in enumerate(spans)], sweep.mark
    finally:
        let_go(sweep.parts)


def _edge_of(sweep: Sweep[_Looked], i: int, span: Span | None) -> Edge | None:
    if span is None:
        return None
    frozen = [events for part in sweep.parts if (events := part[1][i]) is not None]
    edge = Edge.of(frozen, span.start_us, span.end_us or span.start_us, 2 * _EDGE_EVENTS)
    let_go(frozen)
    return edge


def _looked(
    store: Source,
    chooser: Chooser,
    question: Spans,
    key: Hashable,
    now_us: int,
    selections: Selections,
    asked: Sequence[_Asked | None],
) -> tuple[int, list[Statistics], list[_Asked]]:
    """Look at all series: how many are held, the answers, and what to remember. asked: the earlier questions."""
    ps = question.percentiles
    edges = [
        None if before is None else Span(span.start_us, span.start_us + before.slide_us)
        for span, before in zip(question.spans, asked, strict=True)
    ]
    names, sweep = store.sweep(chooser.chosen, chooser.matches, _Look(question, edges), now_us, marked=True)
    chosen = _Chosen.of(names, sweep.held)
    answers, new = [], []
    try:
        for i, span in enumerate(question.spans):
            parts = [part[0][i] for part in sweep.parts]
            kept, answer = None, None
            edge = _edge_of(sweep, i, edges[i])
            if edge is not None and not any(part.old for part in parts):
                kept = _Kept.of(parts, edge, chosen, ps)
                answer = kept.answer(ps)
            if answer is None:
                kept = None
                answer = unite_span(parts, ps, False, selections)
            answers.append(answer)
            n = answer.summary.count
            slide_us = max(now_us - span.start_us, 0) * _EDGE_EVENTS // max(n, _EDGE_EVENTS)
            new.append(_Asked(key, span.start_us, slide_us, sweep.mark, kept))
            let_go(parts)
    finally:
        let_go(sweep.parts)
    return sweep.held, answers, new
