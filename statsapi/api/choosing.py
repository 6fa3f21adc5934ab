"""Which series a question is about, and in which groups: series=, match=, where=, by=, order=, limit=.

A question with one `series=` (or none), and none of the other parameters, is about one series: it takes the shortest
path, and its answer names the series. Every other question is about the union of the chosen series, and its answer says
how many were chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from marshmallow import ValidationError, fields, validates_schema

from statsapi.api import figures
from statsapi.api.field_kinds import QuerySeriesName, Repeated, WholeNumber
from statsapi.api.figures import Figure, parse_figure
from statsapi.api.schemas import StrictSchema
from statsapi.engine.answers import Statistics
from statsapi.engine.groups import Grouping
from statsapi.errors import echo
from statsapi.model import DEFAULT_SERIES, Span
from statsapi.naming.names import canonical_key, tag_value
from statsapi.naming.patterns import PATTERN_MAX, Glob, Selection, Where
from statsapi.service.over import Groups

GROUPS_MAX: Final = 10_000
GROUPS_SHOWN: Final = 100

# Each name is compared with each pattern: 50 patterns and 100,000 names take a second or two.
PATTERNS_MAX: Final = 50

BY_SERIES: Final = "series"


class Pattern(fields.Field[Glob]):
    json_schema: ClassVar = {"type": "string", "minLength": 1, "maxLength": PATTERN_MAX}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Glob:
        try:
            return Glob(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class TagPattern(fields.Field[Where]):
    json_schema: ClassVar = {"type": "string", "minLength": 3}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Where:
        try:
            return Where.parse(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class By(fields.Field[str]):
    """`series`, or the key of a tag."""

    json_schema: ClassVar = {"type": "string", "minLength": 1, "examples": ["series"]}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not value:
            raise ValidationError("is empty: write series, or the key of a tag")
        try:
            return canonical_key(str(value))
        except ValueError as error:
            raise ValidationError(f"must be series, or the key of a tag: it {error}") from None


class Choice(NamedTuple):
    """series: the name, where the question is about one series; else None."""

    selection: Selection
    series: str | None

    def head(self, matched: int) -> dict[str, Any]:
        """The first members of an answer."""
        return {"matched": matched} if self.series is None else {"series": self.series}


class ChoiceQuery(StrictSchema):
    """The parameters that choose series."""

    series = Repeated(
        QuerySeriesName(load_default=None),
        description="a series by its name; several are answered as their union",
    )
    match = Repeated(
        Pattern(), PATTERNS_MAX, description="series by a pattern: * is any characters, ? is one; case-sensitive"
    )
    where = Repeated(
        TagPattern(),
        PATTERNS_MAX,
        description="tag=pattern: of the chosen series (of all, where nothing chooses) only those with such a tag; all "
        "must hold",
    )


class GroupsQuery(ChoiceQuery):
    """The parameters that choose series and group them."""

    by = By(
        metadata={
            "description": "`series`, or the key of a tag: adds a group for each series or tag value to the total; "
            "covers all series where none is chosen"
        }
    )
    order = fields.String(
        metadata={
            "description": "the order of the groups: `series`, or any statistic or percentile (p95); with - in front, "
            "the largest first"
        }
    )
    limit = WholeNumber(
        1,
        GROUPS_MAX,
        metadata={"description": f"how many groups are shown; {GROUPS_SHOWN} by default"},
    )

    @validates_schema
    def _need_groups(self, data: dict[str, Any], **kwargs: Any) -> None:
        if "by" not in data and (alone := [name for name in ("order", "limit") if name in data]):
            raise ValidationError({name: ["needs by: by=series, or by=TAG"] for name in alone})
        if "order" in data:
            order_of(data)


def selection_of(query: Mapping[str, Any]) -> Selection:
    """The series that a ChoiceQuery chooses; all series where it has no parameter."""
    globs, where = query.get("match", ()), query.get("where", ())
    return Selection(frozenset(query.get("series", ())), tuple(dict.fromkeys(globs)), tuple(dict.fromkeys(where)))


def choice_of(query: Mapping[str, Any]) -> Choice:
    """The same for a question about statistics, which is about `default` where it has no parameter."""
    if not query.keys() & {"series", "match", "where", "by"}:
        return Choice(Selection(frozenset((DEFAULT_SERIES,))), DEFAULT_SERIES)
    selection = selection_of(query)
    one = len(query.get("series", ())) == 1 and selection.is_one_name() and "by" not in query
    return Choice(selection, query["series"][0] if one else None)


class Order(NamedTuple):
    """figure: what the groups are ordered by; None for the group's own name."""

    figure: Figure | None
    descending: bool


def order_of(query: Mapping[str, Any]) -> Order:
    """The order that a query asks for. ValidationError where it names no figure."""
    written = query.get("order", "").strip()  # a plus that a URL turned into a blank
    descending = written[:1] == "-"
    word = written[1:] if descending or written[:1] == "+" else written
    if not written or word == BY_SERIES:
        return Order(None, descending)
    try:
        return Order(parse_figure(word), descending)
    except ValueError as error:
        if word == query["by"]:
            return Order(None, descending)
        raise ValidationError({"order": [f"{echo(word)!r} {error}, or series"]}) from None


def groups_of(query: Mapping[str, Any]) -> Groups | None:
    """The groups that a GroupsQuery asks for."""
    by = query.get("by")
    if by is None:
        return None
    figure, descending = order_of(query)
    key, limit = key_of(by), query.get("limit", GROUPS_SHOWN)
    if figure is None:
        return Groups(Grouping(key, descending=descending, limit=limit))
    percents = figures.percents_of((figure,))
    places = figures.places_of((figure,), percents)
    # All groups cover the same time, so the order by rate is the order by count.
    meant = Figure("count", "count") if figure.stat == "rate" else figure

    def value(answer: Statistics) -> int | float | None:
        return figures.value_of(meant, answer, places, Span(0, 0), 0)

    return Groups(Grouping(key, value, descending, percents, limit), figures.want_ends((figure,)))


def key_of(by: str) -> Callable[[str], str | None]:
    """A function from a series' name to its group; None for a series without that tag."""
    return str if by == BY_SERIES else partial(tag_value, key=by)


def hidden_of(query: Mapping[str, Any]) -> tuple[Figure, ...]:
    """The figures that are needed for the order only."""
    if "by" not in query or (figure := order_of(query).figure) is None:
        return ()
    return (figure,)


def dump_key(by: str, key: str | None) -> dict[str, Any]:
    """The members that name a group. A tag has a member of its own, as its key may equal a statistic's name."""
    return {"series": key} if by == BY_SERIES else {"tag": {by: key}}
