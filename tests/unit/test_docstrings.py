"""The examples in docstrings hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import statsapi

NAMES = [
    module.name for module in pkgutil.walk_packages(statsapi.__path__, "statsapi.") if "__main__" not in module.name
]
EXAMPLES = {
    name: examples
    for name in NAMES
    if (examples := [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples])
}


def test_there_are_examples() -> None:
    """The search finds those of the timeline, or the test below would run nothing."""
    assert "statsapi.engine.timeline" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_hold(name: str) -> None:
    """Each says what it prints."""
    runner = doctest.DocTestRunner()
    for example in EXAMPLES[name]:
        assert runner.run(example).failed == 0
