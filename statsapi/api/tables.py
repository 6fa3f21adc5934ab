"""Answers as CSV: one row for each span, step, group or bin, and no cell that holds more than one value.

Spreadsheets, pandas, DuckDB and Grafana read it. The columns follow from the question alone, never from the data.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flask import Response, request

from statsapi.api.choosing import BY_SERIES
from statsapi.api.decoding import CSV_TYPE

# Spreadsheets run text that begins with one of these as a formula. A tag's value may begin so.
_RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "\t", "\r")


def is_asked(query: Mapping[str, Any]) -> bool:
    """Whether CSV is asked for: by `format`, or else where Accept prefers CSV to JSON."""
    if (form := query.get("format")) is not None:
        return bool(form == "csv")
    return accepted()


def accepted() -> bool:
    """Whether Accept prefers CSV to JSON. Costs some 20 µs with such a header."""
    return request.accept_mimetypes.best_match(("application/json", CSV_TYPE)) == CSV_TYPE


def head_of(by: str | None, series: str | None) -> list[str]:
    """The columns that say what a row is about: the series, a tag, or how many series were chosen."""
    if by is None:
        return ["matched" if series is None else "series"]
    return ["series"] if by == BY_SERIES else [f"tag.{by}"]


def answer(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """The rows as CSV. A missing or null value is an empty cell."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([_safe(column) for column in columns])
    writer.writerows([_safe(row.get(column)) for column in columns] for row in rows)
    return Response(written.getvalue(), mimetype=CSV_TYPE, headers={"Vary": "Accept"})


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_RUN_BY_SPREADSHEETS) else cell


def flat(told: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON answer as cells: percentiles as p99.9; members of `previous`, `change` or `tag` with that as a prefix."""
    cells: dict[str, Any] = {}
    for name, value in told.items():
        if name == "percentiles" and isinstance(value, Mapping):  # a tag may have this key too
            cells |= {f"p{percentile}": number for percentile, number in value.items()}
        elif isinstance(value, Mapping):
            cells |= {f"{name}.{inner}": cell for inner, cell in flat(value).items()}
        else:
            cells[name] = value
    return cells
