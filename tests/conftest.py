"""Fixtures that many tests share, the marks by which tests are chosen, and what holds the marks true."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# What is imported where it is used is so for the process that hands tests out to others, and runs none: 0.4 s.
if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.routing import Rule

    from tests.fakes import FakeClock

# make test-quick: a tenth of the usual hundred examples. A test that wants more than usual asks for a multiple.
# No example is timed: a busy machine is no fault of the code. What Hypothesis itself sets in CI stays.
settings.register_profile("whole", settings.default, deadline=None)
settings.register_profile("quick", max_examples=10, derandomize=True, deadline=None)
settings.load_profile("whole")

# STATSAPI_SHORTCUTS=off runs whatever makes an application or starts a server without the shortcuts: CI runs the suite
# both ways.
if os.environ.get("STATSAPI_SHORTCUTS") == "off":
    from statsapi.config import Settings

    Settings.__init__.__kwdefaults__["shortcuts"] = False

# What tests write lies in memory where there is room: they wait for no disk, and no other program's load reaches them.
# Whoever sets TMPDIR or --basetemp has another place.
_IN_MEMORY = "/dev/shm"
if "TMPDIR" not in os.environ and os.path.isdir(_IN_MEMORY) and shutil.disk_usage(_IN_MEMORY).free > 4 << 30:
    os.environ["TMPDIR"] = tempfile.tempdir = _IN_MEMORY

PROCESSES = Path(__file__).parent / "processes"
PROGRAMS = ("redis", "postgresql", "nginx")
# The files that take longest begin first, so that none goes on alone when all others have ended.
LONGEST = (
    "test_dashboard",
    "test_nth_call",
    "test_serving",
    "test_clocks",
    "test_serve_command",
    "test_postgresql_faults",
    "test_documentation",
    "test_import",
    "test_simulation",
    "test_batches",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks by place: `processes` is all of tests/processes; `redis`, `postgresql` and `nginx` whatever has the
    program's name in its module, its parameters or its fixtures, which is what starts that program.
    """
    for item in items:
        assert isinstance(item, pytest.Function)
        parameters = item.callspec.id if hasattr(item, "callspec") else ""
        in_processes = item.path.is_relative_to(PROCESSES)
        for program in PROGRAMS:
            by_module = in_processes and program in item.path.stem
            if by_module or program in parameters.split("-") or program in item.fixturenames:
                item.add_marker(program)
                item.add_marker("processes")
        if in_processes:
            item.add_marker("processes")
    rank = {stem: rank for rank, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


class _Running:
    """The test that runs now."""

    test = ""
    marks: frozenset[str] = frozenset()


class _MarkedPopen(subprocess.Popen[Any]):
    """Refuses a test without the mark. An audit hook would see more, and cost every `make test-quick` two seconds."""

    def __init__(self, args: Any, *others: Any, **options: Any) -> None:
        if _Running.test and "processes" not in _Running.marks:
            raise AssertionError(f"{_Running.test} starts {args!r} without @pytest.mark.processes")
        super().__init__(args, *others, **options)


subprocess.Popen = _MarkedPopen  # type: ignore[misc]


def _share_url_builders() -> None:
    """An application takes 4.4 ms to make. In 3.8 of them Werkzeug compiles, for each of 31 rules, two functions that
    build its URL. They depend on the rule's parts alone, so the 2,000 applications of `make test-quick` share them.
    """
    from werkzeug.routing import Rule

    compile_builder = Rule._compile_builder
    compiled: dict[Any, Any] = {}

    def shared(rule: Rule, append_unknown: bool = True) -> Any:
        key = rule.rule, tuple(rule._trace), str(rule.defaults), append_unknown
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    Rule._compile_builder = shared  # type: ignore[assignment,method-assign]


def pytest_collection_finish() -> None:
    _share_url_builders()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """`make test-quick` runs what has no such mark: a test that starts a process without it fails."""
    _Running.test, _Running.marks = item.nodeid, frozenset(mark.name for mark in item.iter_markers())
    try:
        return (yield)
    finally:
        _Running.test = ""


def _app(clock: FakeClock) -> Iterator[Flask]:
    """The real app on a memory journal, with no background thread: tests call keep_house() themselves."""
    from statsapi.app import create_app
    from statsapi.config import Settings

    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    yield app
    app.extensions["statsapi"].close()


def _clock() -> FakeClock:
    from tests.fakes import FakeClock

    return FakeClock()


@pytest.fixture
def clock() -> FakeClock:
    return _clock()


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Flask]:
    yield from _app(clock)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def normalized_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were brought into one of Unicode's normal forms, in order."""
    texts: list[str] = []
    normalize = unicodedata.normalize

    def spy(form: Any, text: str) -> str:
        texts.append(text)
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", spy)
    return texts


# Those of a module share one where they only ask, or are refused.


@pytest.fixture(scope="module")
def shared_clock() -> FakeClock:
    return _clock()


@pytest.fixture(scope="module")
def shared_app(shared_clock: FakeClock) -> Iterator[Flask]:
    yield from _app(shared_clock)


@pytest.fixture(scope="module")
def shared_client(shared_app: Flask) -> FlaskClient:
    return shared_app.test_client()
