"""A check for monitors and CI: 200 where the statistics meet all conditions, 503 naming the conditions that fail.

No state is kept between two checks. A condition on a null figure (no events, or one event for a stddev) always fails.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from flask import Response
from marshmallow import ValidationError, fields

from statsapi.api.choosing import (
    GROUPS_MAX,
    GROUPS_SHOWN,
    By,
    ChoiceQuery,
    choice_of,
    dump_key,
    key_of,
)
from statsapi.api.field_kinds import FiniteFloat, Repeated, WholeNumber
from statsapi.api.figures import Figure, parse_figure, percents_of, places_of, value_of, want_ends
from statsapi.api.incoming import ask, load_query, service
from statsapi.api.problems import problem
from statsapi.api.schemas import WindowQuery, span_edges
from statsapi.api.statistics import dump_edges
from statsapi.engine.groups import Grouping
from statsapi.engine.piecewise import let_go
from statsapi.errors import echo
from statsapi.service.over import Groups
from statsapi.service.spans import SpanAnswer

CODE: Final = "check-failed"
CONDITIONS_MAX: Final = 50

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
# Possessive quantifiers, and no character fits two neighbouring parts: so a match is linear in the text's length.
_CONDITION: Final = re.compile(r"([^<>=!~\s]*+)\s*+([<>=!~]++)([^<>=!~]*+)")
_LOST_PLUS: Final = re.compile(r"(?<=[eE]) (?=\d)", re.ASCII)
_EXAMPLE: Final = "p95<500"


class Condition(NamedTuple):
    """text: the condition as it was written, without blanks."""

    text: str
    figure: Figure
    holds: Callable[[float, float], bool]
    bound: float


def parse_condition(text: str) -> Condition:
    """`p95<500`: a statistic, one of < <= > >= == !=, and a number. ValueError says what to write."""
    found = _CONDITION.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            f"{echo(text)!r} is not a condition: write a statistic, one of < <= > >= == != and a number, as {_EXAMPLE}"
        )
    word, sign, number = found.groups()
    number = _LOST_PLUS.sub("+", number.strip())
    if sign not in _OPERATORS:
        meant = {"=": "==", "=>": ">=", "=<": "<=", "<>": "!=", "===": "=="}.get(sign)
        cure = f"write {word}{meant}{number}" if meant else "write one of < <= > >= == !="
        raise ValueError(f"{echo(text)!r} compares by {echo(sign)}, which is not an operator: {cure}")
    try:
        figure = parse_figure(word)
    except ValueError as error:
        raise ValueError(f"{echo(text)!r} begins with {echo(word)!r}, which {error}") from None
    try:
        bound = float(FiniteFloat().deserialize(number))
    except ValidationError as error:
        reason = "; ".join(map(str, error.messages)) if number else "is missing"
        raise ValueError(f"{echo(text)!r} ends with a number that {reason}") from None
    return Condition(f"{word}{sign}{number}", figure, _OPERATORS[sign], bound)


class Conditions(fields.Field[tuple[Condition, ...]]):
    """One condition, or several separated by commas."""

    json_schema: ClassVar = {"type": "string", "minLength": 1, "examples": [_EXAMPLE]}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Condition, ...]:
        try:
            return tuple(parse_condition(text) for text in str(value).split(","))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class CheckQuery(ChoiceQuery, WindowQuery):
    require = Repeated(
        Conditions(),
        CONDITIONS_MAX,
        required=f"is missing; give a condition such as {_EXAMPLE}",
        description="a condition: a statistic or percentile, one of < <= > >= == !=, and a number; several are "
        "separated by commas or given as more parameters",
    )
    by = By(metadata={"description": "`series` or the key of a tag: each group must meet the conditions by itself"})
    limit = WholeNumber(
        1,
        GROUPS_MAX,
        metadata={"description": f"how many of the failing groups are named; {GROUPS_SHOWN} by default"},
    )


_QUERY: Final = CheckQuery()


def get_check() -> dict[str, Any] | Response:
    """200 with each figure where every condition holds; else 503, a problem whose `conditions` say which ones fail."""
    query = load_query(_QUERY)
    conditions = [condition for some in query["require"] for condition in some]
    if len(conditions) > CONDITIONS_MAX:
        raise ValidationError({"require": [f"takes at most {CONDITIONS_MAX} conditions, not {len(conditions)}"]})
    choice, by = choice_of(query), query.get("by")
    figures = [condition.figure for condition in conditions]
    percents = percents_of(figures)
    places = places_of(figures, percents)
    # All groups are checked, and only failing ones are shown.
    grouping = None if by is None else Groups(Grouping(key_of(by), limit=service().settings.max_query_series))
    reading = ask()
    found = reading.over(choice.selection).statistics(
        [query["window"]] if "window" in query else [],
        *span_edges(query, reading.now_us),
        percentiles=percents,
        ends=want_ends(figures),
        by=grouping,
    )
    (total,) = found.total
    told: dict[str, Any] = choice.head(found.matched) | dump_edges(total)
    # Without a chosen series there is no group. The conditions are then checked on an empty set of events.
    if not found.groups:
        told["conditions"] = _dump(conditions, total, places, reading.now_us)
        n_failed = sum(not each["held"] for each in told["conditions"])
        detail = _said(told["conditions"]) if n_failed else ""
        if by is not None:
            told |= {"groups_total": 0, "groups_failed": 0, "groups": []}
    else:
        failing = [
            (key, answer)
            for key, _, (answer,) in found.groups
            if not all(_holds(condition, answer, places, reading.now_us) for condition in conditions)
        ]
        groups = [
            dump_key(str(by), key) | {"conditions": _dump(conditions, answer, places, reading.now_us)}
            for key, answer in failing[: query.get("limit", GROUPS_SHOWN)]
        ]
        n_failed = len(failing)
        told |= {"groups_total": found.groups_total, "groups_failed": n_failed, "groups": groups}
        detail = f"{_name(groups[0])}: {_said(groups[0]['conditions'])}" if failing else ""
        let_go(failing, found.groups)
    if not n_failed:
        return {"status": "passed", **told}
    more = f" (and {n_failed - 1} more)" if n_failed > 1 else ""
    return problem(503, CODE, "A condition does not hold", f"{detail}{more}", **told)


def _holds(condition: Condition, answer: SpanAnswer, places: Mapping[str, int], now_us: int) -> bool:
    value = value_of(condition.figure, answer.statistics, places, answer.span, now_us)
    return value is not None and condition.holds(value, condition.bound)


def _name(group: dict[str, Any]) -> str:
    return str(group["series"]) if "series" in group else ";".join(f"{k}={v}" for k, v in group["tag"].items())


def _said(conditions: Sequence[dict[str, Any]]) -> str:
    """The first failing condition, as a sentence."""
    condition = next(condition for condition in conditions if not condition["held"])
    value = condition["value"]
    return f"{condition['require']} does not hold: it is {'null' if value is None else value}"


def _dump(
    conditions: Sequence[Condition], answer: SpanAnswer, places: Mapping[str, int], now_us: int
) -> list[dict[str, Any]]:
    """Each condition, its figure, and whether it holds. A percentile from roll-ups carries its error bound."""
    told = []
    statistics = answer.statistics
    for text, figure, holds, bound in conditions:
        value = value_of(figure, statistics, places, answer.span, now_us)
        shown: dict[str, Any] = {"require": text, "value": value, "held": value is not None and holds(value, bound)}
        if figure.percent is not None and statistics.relative_errors:
            error = statistics.relative_errors[places[figure.name]]
            shown |= {"method": "ddsketch", "relative_error": error}
        if value is None:
            shown["reason"] = (
                f"it is null for {statistics.summary.count} event{'' if statistics.summary.count == 1 else 's'}"
            )
        told.append(shown)
    return told
