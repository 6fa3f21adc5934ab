"""A yes or no for monitors and CI: do these statistics hold what is required of them? 200, or 503 with what does not.

Nothing is remembered between two questions. A condition whose figure is null (no events, one for a stddev) never holds.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from flask import Response
from marshmallow import ValidationError, fields, validate

from statsapi.api.choosing import (
    GROUPS_MAX,
    GROUPS_SHOWN,
    By,
    ChoiceQuery,
    choice_of,
    dump_key,
    key_of,
)
from statsapi.api.figures import Figure, parse_figure, percents_of, places_of, value_of, want_ends
from statsapi.api.incoming import ask, load_query, service
from statsapi.api.problems import problem
from statsapi.api.schemas import FiniteFloat, Repeated, WindowQuery, span_edges
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
# Possessive, and no sign is in two of its parts: tried in one way only, however long it is.
_CONDITION: Final = re.compile(r"([^<>=!~\s]*+)\s*+([<>=!~]++)([^<>=!~]*+)")
_LOST_PLUS: Final = re.compile(r"(?<=[eE]) (?=\d)", re.ASCII)
_EXAMPLE: Final = "p95<500"


class Condition(NamedTuple):
    """text: as it was written, without blanks."""

    text: str
    figure: Figure
    holds: Callable[[float, float], bool]
    bound: float


def parse_condition(text: str) -> Condition:
    """`p95<500`: a statistic, one of < <= > >= == !=, and a number. ValueError says what to write."""
    found = _CONDITION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{echo(text)!r} is no condition: write a statistic, < <= > >= == or !=, a number: {_EXAMPLE}")
    word, sign, number = found.groups()
    number = _LOST_PLUS.sub("+", number.strip())
    if sign not in _OPERATORS:
        meant = {"=": "==", "=>": ">=", "=<": "<=", "<>": "!=", "===": "=="}.get(sign)
        cure = f"write {word}{meant}{number}" if meant else "there are < <= > >= == and !="
        raise ValueError(f"{echo(text)!r} compares by {echo(sign)}: {cure}")
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
    """One condition, or several with commas between them."""

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
        description="what has to hold, with commas between or given again: a statistic or percentile, < <= > >= == or "
        "!=, and a number",
    )
    by = By(metadata={"description": "`series` or the key of a tag: every group must hold, by itself"})
    limit = fields.Integer(
        validate=validate.Range(min=1, max=GROUPS_MAX),
        metadata={"description": f"how many of the groups that do not hold are named; {GROUPS_SHOWN} unless given"},
    )


_QUERY: Final = CheckQuery()


def get_check() -> dict[str, Any] | Response:
    """200 where every condition holds, with each figure; else 503, a problem whose `conditions` say which do not."""
    query = load_query(_QUERY)
    conditions = [condition for some in query["require"] for condition in some]
    if len(conditions) > CONDITIONS_MAX:
        raise ValidationError({"require": [f"takes at most {CONDITIONS_MAX} conditions, not {len(conditions)}"]})
    choice, by = choice_of(query), query.get("by")
    figures = [condition.figure for condition in conditions]
    percents = percents_of(figures)
    places = places_of(figures, percents)
    # All groups are looked at, and those that do not hold are shown.
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
    # Where nothing is chosen there is no group, and what is required of one is required of no events.
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
    """The first that does not hold, as a sentence."""
    condition = next(condition for condition in conditions if not condition["held"])
    value = condition["value"]
    return f"{condition['require']} does not hold: it is {'null' if value is None else value}"


def _dump(
    conditions: Sequence[Condition], answer: SpanAnswer, places: Mapping[str, int], now_us: int
) -> list[dict[str, Any]]:
    """Each condition, its figure, and whether it holds. A percentile out of roll-ups says how near it is."""
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
