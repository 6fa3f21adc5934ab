"""The client, as programs call it: each method is a question or a recording. calls.py tries it until it is settled.

Every recording carries an Idempotency-Key of its own, so that a retry counts once. Methods return what the service
answered, as dicts; docs/api.md describes them. Any number of threads may share a client, and it survives a fork.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, TypedDict, Unpack, cast, overload
from urllib.parse import quote

from statsapi.client.calls import Answer, Calls, new_key
from statsapi.client.events import Number, Tags, Timestamp, encode_event, line_of, query_of
from statsapi.client.http import JSON, NDJSON, Reply, Transport
from statsapi.client.recorder import Recorder

if TYPE_CHECKING:
    import pandas as pd

    from statsapi.client.buffered import Buffered, WhenFull
    from statsapi.client.problems import Problem

# The service takes 100,000 by default. 10,000 are some 0.6 MB, which nginx lets through unless it is told otherwise.
BATCH_EVENTS: Final = 10_000
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


class BufferedOptions(TypedDict, total=False):
    """How a sender in the background is to work: the parameters of `Buffered`."""

    max_events: int
    flush_s: float
    when_full: WhenFull
    batch_events: int
    spool: str | Path | None
    on_problem: Callable[[Problem], None] | None
    key_lifetime_s: float


class Event(NamedTuple):
    """An event that was read back. `timestamp` is in UTC."""

    timestamp: datetime
    value: float
    series: str


class Client(Recorder):
    """A client of the service at `url` (a path prefix may follow the host), with an API `key` if it asks for one.

    An attempt may take `timeout_s`. A call is tried again, with growing pauses and after what `Retry-After` asks, until
    `give_up_after_s` have passed since it began: then the last error is raised. `ca_file` holds certificates to trust
    instead of the system's. `clock_s`, `sleep` and `now_us` are for tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        give_up_after_s: float = 30.0,
        ca_file: str | None = None,
        connections: int = 16,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        transport = Transport(url, key, timeout_s=timeout_s, ca_file=ca_file, connections=connections)
        self._calls = Calls(transport, give_up_after_s=give_up_after_s, clock_s=clock_s, sleep=sleep)
        self._now_us = now_us

    @property
    def url(self) -> str:
        return self._calls.transport.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections. A buffered sender is closed by itself."""
        self._calls.transport.close()

    # -- recording ---------------------------------------------------------------------------------------------------

    def record(
        self,
        value: Number,
        timestamp: Timestamp | None = None,
        series: str | None = None,
        tags: Tags | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Record one event; when this returns, it is in the service's journal. The time is now unless given.

        With an `idempotency_key` of yours (an order's number) and a `timestamp` the same call counts once, whoever
        makes it again.
        """
        now_us = self._now_us() if idempotency_key is None else None
        body = encode_event(value, timestamp, series, tags, now_us).encode()
        return self._calls.record("/event", JSON, body, idempotency_key or new_key())

    def record_many(
        self,
        events: Iterable[Mapping[str, Any] | tuple[Any, ...]],
        *,
        series: str | None = None,
        tags: Tags | None = None,
        idempotency_key: str | None = None,
        batch_events: int = BATCH_EVENTS,
    ) -> Answer:
        """Record many: mappings (`value`, and `timestamp`, `series`, `tags` if you like), or pairs (timestamp, value).

        `series` and `tags` are for events that name none. Up to `batch_events` are one request, which is stored whole
        or not at all; the iterable is never held whole. Returns the sums {"stored", "duplicates", "expired",
        "rejected"}, with "messages": what the service said about them, such as that some show in no window. An error
        says in a note how many were stored before it; the same call with the same `idempotency_key` counts none twice.
        """
        key = idempotency_key or new_key()
        clock_us = self._now_us if idempotency_key is None else _no_clock
        told: Answer = {"stored": 0, "duplicates": 0, "expired": 0, "rejected": 0, "messages": []}
        lines = (line_of(event, series, tags, clock_us()) for event in events)
        number = 0
        try:
            while batch := list(islice(lines, batch_events)):
                body = ("\n".join(batch) + "\n").encode()
                answer = self._calls.record("/events", NDJSON, body, f"{key}/{number}")
                for name in ("stored", "duplicates", "expired", "rejected"):
                    told[name] += answer[name]
                if "message" in answer:
                    told["messages"].append(answer["message"])
                number += 1
        except Exception as error:
            if number:
                error.add_note(
                    f"statsapi: {told['stored']} events were stored before this; the same call with "
                    f"idempotency_key={key!r} counts none of them twice"
                )
            raise
        return told

    def record_frame(
        self,
        frame: pd.DataFrame,
        *,
        value: str = "value",
        timestamp: str | None = None,
        series: str | None = None,
        series_column: str | None = None,
        tag_columns: Iterable[str] = (),
        idempotency_key: str | None = None,
    ) -> Answer:
        """Record the rows of a pandas DataFrame: its columns by name; without `timestamp` its index holds the times.

        Times need a zone, as elsewhere; a missing value or time is refused, naming its row. Answers as record_many().
        """
        events = _frames().events_of(frame, value, timestamp, series_column, list(tag_columns))
        return self.record_many(events, series=series, idempotency_key=idempotency_key)

    def buffered(self, **options: Unpack[BufferedOptions]) -> Buffered:
        """A sender in the background. Its options and their defaults: `Buffered`."""
        from statsapi.client.buffered import Buffered

        return Buffered(self._calls.transport, **options)

    # -- questions ---------------------------------------------------------------------------------------------------

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

    def post(
        self, path: str, body: bytes, media_type: str, *, idempotency_key: str | None = None, **parameters: Any
    ) -> Answer:
        """POST a body as it is, such as a CSV file: {} for an answer without one. Tried again as record() is, under one
        key; without one of yours what it records may be recorded again by another call.
        """

        return self._calls.post(path, body, media_type, idempotency_key, parameters)

    def exchange(
        self, path: str, body: bytes, media_type: str, *, idempotency_key: str | None = None, **parameters: Any
    ) -> Reply:
        """The same, and the answer as it came, for an endpoint that says in its headers what it did. A refusal is
        raised, and has its headers and body too.
        """
        return self._calls.exchange(path, body, media_type, idempotency_key, parameters)

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


def _no_clock() -> None:
    """For calls with a key of the caller's: another call, with another time, would be another request."""
    return


def _framed(answer: Answer, as_frame: bool) -> Answer | pd.DataFrame:
    if not as_frame:
        return answer
    return cast("pd.DataFrame", _frames().frame_of(answer))


def _frames() -> Any:
    try:
        from statsapi.client import frames
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise ImportError("frames need pandas, which is not installed: pip install pandas") from None
    return frames
