"""The common base of a client and a buffered sender: record(), and timers that use it."""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from statsapi.client.errors import StatsapiError
from statsapi.client.events import Number, Tags, Timestamp

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Timer:
    """Records the seconds that a `with` block takes, by time.perf_counter(), also when the block raises.

    `tags` may be changed inside the block; `elapsed_s` is set at its end.
    """

    def __init__(self, recorder: Recorder, series: str, tags: Tags | None, clock_s: Callable[[], float]) -> None:
        self.series = series
        self.tags: dict[str, str | int | float | bool] = dict(tags or {})
        self.elapsed_s: float | None = None
        self._recorder = recorder
        self._clock_s = clock_s
        self._started_s = clock_s()

    def __enter__(self) -> Timer:
        self._started_s = self._clock_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed_s = self._clock_s() - self._started_s
        try:
            self._recorder.record(self.elapsed_s, series=self.series, tags=self.tags or None)
        except StatsapiError as failure:
            if error is None:
                raise
            error.add_note(f"statsapi: the duration was not recorded: {failure}")  # the block's error is the one raised


class Recorder(ABC):
    """A class that records events one by one."""

    @abstractmethod
    def record(
        self, value: Number, timestamp: Timestamp | None = None, series: str | None = None, tags: Tags | None = None
    ) -> Any:
        """Record one event."""

    def timer(
        self, series: str, tags: Tags | None = None, *, clock_s: Callable[[], float] = time.perf_counter
    ) -> Timer:
        """`with client.timer("job"):` records how many seconds the block took."""
        return Timer(self, series, tags, clock_s)

    def timed(self, series: str, tags: Tags | None = None) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
        """`@client.timed("job")` records how many seconds each call of the function, or of the coroutine, took."""

        def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(
                    f"{function.__qualname__} is a generator, whose call takes no time: use timer() inside it"
                )
            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def timed_coroutine(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                    with self.timer(series, tags):
                        return await function(*args, **kwargs)

                return cast(Callable[_P, _R], timed_coroutine)

            @wraps(function)
            def timed_function(*args: _P.args, **kwargs: _P.kwargs) -> _R:
                with self.timer(series, tags):
                    return function(*args, **kwargs)

            return timed_function

        return decorate
