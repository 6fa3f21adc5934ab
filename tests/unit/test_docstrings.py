"""The examples in docstrings hold, and the map of the package is the one that its imports are checked against."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import tomllib

import pytest

import statsapi
from tests.servers import ROOT

NAMES = [
    module.name for module in pkgutil.walk_packages(statsapi.__path__, "statsapi.") if "__main__" not in module.name
]
EXAMPLES = {
    name: examples
    for name in NAMES
    if (examples := [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples])
}


def test_the_map_of_the_package_is_in_the_order_of_its_layers() -> None:
    """Each name of statsapi/__init__.py stands where the linter has it: no module is missing, none imports upwards."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == ["statsapi"])
    place = {name: at for at, layer in enumerate(layers) for name in layer.split(" | ")}
    named = re.findall(r"^([a-z_]+)/? {2,}", statsapi.__doc__ or "", re.MULTILINE)
    assert sorted(named) == sorted(place)
    assert [place[name] for name in named] == sorted(place.values())


def test_there_are_examples() -> None:
    """The search finds those of the timeline, or the test below would run nothing."""
    assert "statsapi.engine.timeline" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_hold(name: str) -> None:
    """Each says what it prints."""
    runner = doctest.DocTestRunner()
    for example in EXAMPLES[name]:
        assert runner.run(example).failed == 0
