"""pandas DataFrames from answers and into events. The network is tests/client_service.py."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from tests.client_service import InProcess, client_of
from tests.fakes import FakeClock

pd = pytest.importorskip("pandas")

START = pd.Timestamp("2025-11-21T07:40:00Z")


@pytest.fixture
def client(app: Flask, clock: FakeClock) -> Any:
    return client_of(InProcess(app), clock)


def frame(**columns: list[Any]) -> Any:
    count = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.date_range(START, periods=count, freq="10s"))


def test_a_frame_is_recorded(client: Any) -> None:
    """Its index holds the times, to the microsecond; a column the series; others tags, left out where empty."""
    rows = frame(value=[1.5, 2, 3], host=["a", "b", None], name=["cpu", "mem", "cpu"])
    rows.index = rows.index + pd.Timedelta("1us")
    told = client.record_frame(rows, series_column="name", tag_columns=["host"])
    assert told["stored"] == 3
    events = {(event.timestamp, event.value, event.series) for event in client.export()}
    assert events == {
        (datetime(2025, 11, 21, 7, 40, 0, 1, UTC), 1.5, "cpu;host=a"),
        (datetime(2025, 11, 21, 7, 40, 10, 1, UTC), 2.0, "mem;host=b"),
        (datetime(2025, 11, 21, 7, 40, 20, 1, UTC), 3.0, "cpu"),
    }


@pytest.mark.parametrize(
    "values",
    [
        pd.array([1, 2], dtype="Int64"),
        pd.array([1, 2], dtype="int8"),
        pd.array([1.0, 2.0], dtype="float32"),
        pd.array([1.0, 2.0], dtype="Float64"),
        pd.Series([1, 2], dtype=object).array,
        pd.Series([Decimal(1), Decimal(2)]).array,
    ],
    ids=lambda values: str(values.dtype),
)
def test_any_kind_of_numbers(client: Any, values: Any) -> None:
    """Also pandas' own, numpy's, and Decimal."""
    rows = pd.DataFrame({"load": values, "at": ["2025-11-21T07:40:00Z", "2025-11-21T07:41:00+00:00"]})
    assert client.record_frame(rows, value="load", timestamp="at", series="s")["stored"] == 2
    assert client.statistics("s") == {"count": 2, "min": 1.0, "max": 2.0, "mean": 1.5}


def test_another_zone_is_the_same_instant(client: Any) -> None:
    """Times of a zone are told in UTC."""
    rows = frame(value=[1.0])
    rows.index = rows.index.tz_convert("Europe/Berlin")
    client.record_frame(rows)
    assert [event.timestamp for event in client.export()] == [START.to_pydatetime()]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (frame(load=[1.0]), {}, "the frame has no column value; it has load"),
        (frame(value=[1.0, None]), {}, r"column value holds nothing in row 1; dropna\(\) removes such rows"),
        (frame(value=pd.array([1, None, 3], dtype="Int64")), {}, "column value holds nothing in row 1"),
        (pd.DataFrame({"value": [1.0]}), {}, "the index holds no times; name their column with timestamp="),
        (frame(value=[1.0]).tz_localize(None), {}, r"times in the index have no zone: .dt.tz_localize\('UTC'\)"),
        (
            pd.DataFrame({"value": [1.0, 2.0], "at": [START, pd.NaT]}),
            {"timestamp": "at"},
            "column at holds nothing in row 1",
        ),
        (frame(value=["x"]), {}, "'x'"),
        (frame(value=[True]), {}, "True"),
        (frame(value=[float("inf")]), {}, "inf"),
    ],
)
def test_what_is_no_event_is_refused_by_name(client: Any, rows: Any, options: dict[str, str], said: str) -> None:
    """Before anything is recorded."""
    with pytest.raises((ValueError, TypeError), match=said):
        client.record_frame(rows, **options)
    assert list(client.export()) == []


def test_answers_are_frames(client: Any) -> None:
    """A row for each window, step, bin and group, with times in UTC; what there is none of is NaN."""
    rows = frame(value=[1.0, 2.0, 3.0, 4.0], host=["a", "a", "b", "b"])
    client.record_frame(rows, series="cpu", tag_columns=["host"])
    one = client.statistics("cpu;host=a", as_frame=True, percentiles=[50, 99.9])
    assert one[["count", "mean", "p50", "p99.9"]].to_numpy().tolist() == [[2, 1.5, 1.5, 1.999]]

    windows = client.statistics("cpu;host=a", windows=["1m", "1h"], as_frame=True)
    assert windows["count"].tolist() == [0, 2]
    assert windows["mean"].isna().tolist() == [True, False]

    groups = client.statistics(match="cpu*", by="host", as_frame=True, stats="count,max")
    assert groups.to_dict("records") == [
        {"tag.host": "a", "count": 2, "max": 2.0},
        {"tag.host": "b", "count": 2, "max": 4.0},
    ]

    steps = client.timeline(
        "cpu;host=b", step="10s", start="2025-11-21T07:40:00Z", end="2025-11-21T07:41:00Z", as_frame=True
    )
    assert steps["from"].tolist() == pd.date_range(START, periods=6, freq="10s").tolist()
    assert steps["count"].tolist() == [0, 0, 1, 1, 0, 0]

    bins = client.histogram(match="cpu*", edges=[2, 3], as_frame=True)
    assert bins[["low", "high", "count"]].to_numpy().tolist() == [
        [float("-inf"), 2.0, 1],
        [2.0, 3.0, 2],
        [3.0, float("inf"), 1],
    ]

    compared = client.statistics("cpu;host=a", compare="previous", as_frame=True)
    assert {"previous.count", "change.count"} <= set(compared)
