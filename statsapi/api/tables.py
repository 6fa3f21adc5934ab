"""Answers as CSV: one row for each span, step, group or bin, and no cell that holds more than one value.

What spreadsheets, pandas, DuckDB and Grafana read. The columns follow from the question alone, never from the data.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flask import Response, request

from statsapi.api.choosing import BY_SERIES
from statsapi.api.decoding import CSV_TYPE

# Spreadsheets take text that begins so for a formula, and run it. A tag's value may.
_RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "\t", "\r")


def is_asked(query: Mapping[str, Any]) -> bool:
    """By `format`, or else where Accept likes CSV better than JSON."""
    if (form := query.get("format")) is not None:
        return bool(form == "csv")
    return accepted()


def accepted() -> bool:
    """Whether Accept likes CSV better than JSON. Some 20 µs where there is such a header."""
    return request.accept_mimetypes.best_match(("application/json", CSV_TYPE)) == CSV_TYPE


def head_of(by: str | None, series: str | None) -> list[str]:
    """The columns that say what a row is about: the series, a tag, or how many series were chosen."""
    if by is None:
        return ["matched" if series is None else "series"]
    return ["series"] if by == BY_SERIES else [f"tag.{by}"]


def answer(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """A row without some column has an empty cell there, as has one whose value is null."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([_safe(column) for column in columns])
    writer.writerows([_safe(row.get(column)) for column in columns] for row in rows)
    return Response(written.getvalue(), mimetype=CSV_TYPE, headers={"Vary": "Accept"})


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_RUN_BY_SPREADSHEETS) else cell


def flat(told: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON answer as cells: percentiles as p99.9, what is inside `previous`, `change` or `tag` with that in front."""
    cells: dict[str, Any] = {}
    for name, value in told.items():
        if name == "percentiles" and isinstance(value, Mapping):  # a tag may be called so
            cells |= {f"p{percentile}": number for percentile, number in value.items()}
        elif isinstance(value, Mapping):
            cells |= {f"{name}.{inner}": cell for inner, cell in flat(value).items()}
        else:
            cells[name] = value
    return cells
