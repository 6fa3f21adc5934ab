"""Answers as pandas DataFrames, and rows of a DataFrame as events. Imported only when needed: pandas is optional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

try:
    import pandas as pd
except ModuleNotFoundError as error:
    if error.name != "pandas":
        raise
    raise ImportError("frames need pandas, which is not installed: pip install pandas") from None

_TIMES: Final = ("from", "to", "previous.from", "previous.to")
_NESTED: Final = ("groups", "windows", "steps", "reasons", "groups_total", "matched")


def frame_of(answer: dict[str, Any]) -> pd.DataFrame:
    """One row for each group, window, step or bin. With groups there is no row for the total. Null is NaN or NaT."""
    rows: list[dict[str, Any]] = []
    if "groups" in answer:
        for group in answer["groups"]:
            rows += _rows({**_shared(answer), **group})
    else:
        rows += _rows(answer)
    frame = pd.DataFrame(rows)
    for name in _TIMES:
        if name in frame:
            frame[name] = pd.to_datetime(frame[name], format="ISO8601", utc=True)
    return frame


def _shared(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("from", "to", "resolution") if name in answer}


def _rows(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one group or of the total: its spans, its bins, or the answer itself."""
    head = {name: value for name, value in answer.items() if name not in _NESTED}
    spans = answer.get("steps", answer.get("windows"))
    if spans is not None:
        key: dict[str, Any] = {name: head[name] for name in ("series", "tag") if name in head}
        yield from (_flat({**key, **span}) for span in spans)
    elif "counts" in answer:
        edges = head.pop("edges")
        counts, below, above = head.pop("counts"), head.pop("below"), head.pop("above")
        shared = {name: head[name] for name in head if name not in ("count", "min", "max")}
        bins = [{"low": low, "high": high, "count": n} for low, high, n in zip(edges, edges[1:], counts, strict=False)]
        if below:
            bins.insert(0, {"low": float("-inf"), "high": edges[0], "count": below})
        if above:
            bins.append({"low": edges[-1], "high": float("inf"), "count": above})
        yield from (_flat({**shared, **each}) for each in bins)
    else:
        yield _flat(head)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "percentiles":
            flat |= {f"p{percent}": found for percent, found in (value or {}).items()}
        elif name in ("previous", "change") and value is not None:
            flat |= {f"{name}.{inner}": found for inner, found in _flat(value).items()}
        elif name == "tag":
            flat |= {f"tag.{key}": found for key, found in value.items()}
        elif name not in _NESTED:
            flat[name] = value
    return flat


def events_of(
    frame: pd.DataFrame, value: str, timestamp: str | None, series_column: str | None, tag_columns: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows as events. ValueError names the column or the row at fault, before the first row is returned."""
    wanted = [name for name in (value, timestamp, series_column, *tag_columns) if name is not None]
    if missing := [name for name in wanted if name not in frame]:
        raise ValueError(f"the frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    times = pd.Series(frame.index) if timestamp is None else frame[timestamp].reset_index(drop=True)
    place = "the index" if timestamp is None else f"column {timestamp}"
    if isinstance(times.dtype, pd.DatetimeTZDtype):
        stamps: list[Any] = times.dt.tz_convert("UTC").dt.as_unit("us").tolist()
    elif pd.api.types.is_datetime64_any_dtype(times.dtype):
        raise ValueError(
            f"the times in {place} have no zone: .dt.tz_localize('UTC') adds it, or another zone if they are local"
        )
    elif timestamp is None and pd.api.types.is_integer_dtype(times.dtype):
        raise ValueError("the index holds no times; name their column with timestamp=")
    else:
        stamps = times.tolist()
    for name, column in ((place, times), (f"column {value}", frame[value].reset_index(drop=True))):
        if column.isna().any():
            raise ValueError(
                f"{name} holds nothing in row {int(column.isna().to_numpy().argmax())}; dropna() removes such rows"
            )
    return _events(frame, stamps, value, series_column, tag_columns)


def _events(
    frame: pd.DataFrame, stamps: list[Any], value: str, series_column: str | None, tag_columns: list[str]
) -> Iterator[dict[str, Any]]:
    columns = [frame[name].tolist() for name in (value, *([series_column] if series_column else []), *tag_columns)]
    for at, stamp in enumerate(stamps):
        event: dict[str, Any] = {"timestamp": stamp, "value": columns[0][at]}
        if series_column:
            event["series"] = columns[1][at]
        if tag_columns:
            tags = [column[at] for column in columns[-len(tag_columns) :]]
            event["tags"] = {name: tag for name, tag in zip(tag_columns, tags, strict=True) if not pd.isna(tag)}
        yield event
