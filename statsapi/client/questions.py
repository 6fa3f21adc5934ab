"""The questions of a client: what was recorded, and what follows from it. client.py records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, TypedDict, Unpack, overload
from urllib.parse import quote

from statsapi.client.calls import Answer, Calls, new_key
from statsapi.client.events import Timestamp, query_of
from statsapi.client.http import NDJSON

if TYPE_CHECKING:
    import pandas as pd

PAGE: Final = 10_000  # the longest page the service gives
_EXPORTED: Final = {"csv": "text/csv", "ndjson": NDJSON, "influx": "text/plain"}

Names = str | Iterable[str]
Where = Mapping[str, str] | Iterable[str] | str
Words = str | Iterable[str]
Percentiles = str | float | Iterable[str | float]
Duration = str | timedelta | float


class ExportQuestion(TypedDict, total=False):
    """Which events: those of series that fit a pattern or carry a tag, in a range. Nothing given: all."""

    match: Names
    where: Where
    start: Timestamp
    end: Timestamp


class GroupsQuestion(ExportQuestion, total=False):
    """Over which span, and in which groups. Durations are text as the service reads it, timedeltas, or seconds."""

    window: Duration
    by: str
    order: str
    limit: int


class StatisticsQuestion(GroupsQuestion, total=False):
    """What `statistics` asks: the parameters of GET /statistics."""

    windows: Words
    stats: Words
    percentiles: Percentiles
    compare: Duration


class TimelineQuestion(GroupsQuestion, total=False):
    """What `timeline` asks besides its step: the parameters of GET /statistics/timeline."""

    stats: Words
    percentiles: Percentiles
    align: bool


class HistogramQuestion(GroupsQuestion, total=False):
    """What `histogram` asks: the parameters of GET /statistics/histogram."""

    bins: int
    edges: str | Iterable[float]
    scale: Literal["linear", "log"]


class Event(NamedTuple):
    """An event that was read back. `timestamp` is in UTC."""

    timestamp: datetime
    value: float
    series: str


class Questions:
    """What a client asks. Each method is a GET, and returns what the service answered; docs/api.md describes that."""

    _calls: Calls  # of the client

    @overload
    def statistics(
        self, series: Names | None = None, *, as_frame: Literal[False] = False, **question: Unpack[StatisticsQuestion]
    ) -> Answer: ...

    @overload
    def statistics(
        self, series: Names | None = None, *, as_frame: Literal[True], **question: Unpack[StatisticsQuestion]
    ) -> pd.DataFrame: ...

    def statistics(
        self, series: Names | None = None, *, as_frame: bool = False, **question: Unpack[StatisticsQuestion]
    ) -> Answer | pd.DataFrame:
        """Statistics of a window, several windows or a range, of one series or of many: `StatisticsQuestion`.

        With `as_frame` a pandas DataFrame: a row for each group and window, a column for each statistic (`p99.9`).
        """
        return _framed(self._calls.ask("/statistics", {"series": series, **question}), as_frame)

    @overload
    def timeline(
        self,
        series: Names | None = None,
        *,
        step: Duration,
        as_frame: Literal[False] = False,
        **question: Unpack[TimelineQuestion],
    ) -> Answer: ...

    @overload
    def timeline(
        self,
        series: Names | None = None,
        *,
        step: Duration,
        as_frame: Literal[True],
        **question: Unpack[TimelineQuestion],
    ) -> pd.DataFrame: ...

    def timeline(
        self,
        series: Names | None = None,
        *,
        step: Duration,
        as_frame: bool = False,
        **question: Unpack[TimelineQuestion],
    ) -> Answer | pd.DataFrame:
        """The same step by step, for charts: `TimelineQuestion`; with `as_frame` a row for each group and step."""
        return _framed(self._calls.ask("/statistics/timeline", {"series": series, "step": step, **question}), as_frame)

    @overload
    def histogram(
        self, series: Names | None = None, *, as_frame: Literal[False] = False, **question: Unpack[HistogramQuestion]
    ) -> Answer: ...

    @overload
    def histogram(
        self, series: Names | None = None, *, as_frame: Literal[True], **question: Unpack[HistogramQuestion]
    ) -> pd.DataFrame: ...

    def histogram(
        self, series: Names | None = None, *, as_frame: bool = False, **question: Unpack[HistogramQuestion]
    ) -> Answer | pd.DataFrame:
        """How many values lie in each bin: `HistogramQuestion`.

        With `as_frame` a row for each group and bin (`low`, `high`, `count`), and for what lies below and above them.
        """
        return _framed(self._calls.ask("/statistics/histogram", {"series": series, **question}), as_frame)

    def series(self, prefix: str | None = None, *, raw: bool | None = None, **narrowing: Any) -> Iterator[Answer]:
        """The series there are, by name, page by page as they are read: {"name", "count", "first", "last", …}.

        `narrowing` are further parameters of GET /series.
        """
        after = None
        while True:
            question = {"prefix": prefix, "raw": raw, "after": after, "limit": PAGE, **narrowing}
            page = self._calls.ask("/series", question, "series", "next")
            yield from page["series"]
            after = page["next"]
            if after is None:
                return

    def tags(self, key: str | None = None, **narrowing: Any) -> Iterator[Answer]:
        """The keys of the tags that series carry, {"key", "series"}; of one `key` its values, {"value", "series"}.

        `series` is how many carry it. `narrowing` are further parameters of GET /tags.
        """
        path, rows = ("/tags", "tags") if key is None else (f"/tags/{quote(key, safe='')}", "values")
        after = None
        while True:
            page = self._calls.ask(path, {"after": after, "limit": PAGE, **narrowing}, rows, "next")
            yield from page[rows]
            after = page["next"]
            if after is None:
                return

    def ask(self, path: str, **question: Any) -> Answer:
        """The answer to GET `path` with any parameters: what has no method of its own. None is left out."""
        return self._calls.ask(path, question)

    def export(self, series: Names | None = None, **question: Unpack[ExportQuestion]) -> Iterator[Event]:
        """The raw events, of all series unless some are chosen: by series, then by time. They come in pages, each of
        which is tried again by itself, so a broken connection costs nothing.
        """
        cursor = None
        while True:
            asked = {"series": series, **question, "limit": PAGE, "cursor": cursor}
            page = self._calls.ask("/events", asked, "events", "next")
            for event in page["events"]:
                yield Event(datetime.fromisoformat(event["timestamp"]), event["value"], event["series"])
            cursor = page["next"]
            if cursor is None:
                return

    def export_to(
        self,
        file: str | Path | BinaryIO,
        series: Names | None = None,
        *,
        form: Literal["csv", "ndjson", "influx"] = "csv",
        **question: Unpack[ExportQuestion],
    ) -> int:
        """Write them to a file as one stream, a snapshot, and return how many bytes. The file can be recorded again.

        A stream that breaks off is Unavailable: a file by name is then left as it was, not half.
        """
        query = query_of({"series": series, **question, "format": form})
        if not isinstance(file, str | Path):
            return self._calls.export(query, _EXPORTED[form], file)
        target = Path(file)
        partial = target.with_name(f".{target.name}.{new_key()}")
        try:
            with partial.open("xb") as out:
                written = self._calls.export(query, _EXPORTED[form], out)
            partial.replace(target)
        except OSError as error:
            if error.filename == str(partial):  # which nobody has named
                error.filename = str(target)
            raise
        finally:
            partial.unlink(missing_ok=True)
        return written


def _framed(answer: Answer, as_frame: bool) -> Answer | pd.DataFrame:
    if not as_frame:
        return answer
    from statsapi.client.frames import frame_of

    return frame_of(answer)
