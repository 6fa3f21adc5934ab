"""The examples in docstrings hold, and the text of each folder lists what is in it, as its imports are checked."""

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
PACKAGES = [
    "statsapi",
    *(module.name for module in pkgutil.walk_packages(statsapi.__path__, "statsapi.") if module.ispkg),
]
NO_CODE = ("__pycache__", "dashboard")
EXAMPLES = {
    name: examples
    for name in NAMES
    if (examples := [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples])
}


def layers_of(package: str) -> dict[str, int]:
    """Where the linter has each module of a package, from above."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [package])
    return {name: at for at, layer in enumerate(layers) for name in layer.split(" | ")}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_folder_lists_what_is_in_it(package: str) -> None:
    """Every file and folder of code once, and nothing that is gone; where imports point down the list, as the linter
    has them.
    """
    told = importlib.import_module(package).__doc__ or ""
    named = re.findall(r"^([a-z_0-9]+/?) {2,}", told, re.MULTILINE)
    folder = ROOT.joinpath(*package.split("."))
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    folders = {f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name not in NO_CODE}
    there = modules | folders
    assert sorted(there - set(named)) == [], f"in the folder, and not in the text of {package}"
    assert sorted(set(named) - there) == [], f"in the text of {package}, and not in the folder"
    assert len(named) == len(there), f"listed twice in the text of {package}"
    if "Imports point down this list" in told:
        layers = layers_of(package)
        places = [layers[name.rstrip("/")] for name in named]
        assert places == sorted(places)


def test_there_are_examples() -> None:
    """The search finds those of the timeline, or the test below would run nothing."""
    assert "statsapi.engine.timeline" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_hold(name: str) -> None:
    """Each says what it prints."""
    runner = doctest.DocTestRunner()
    for example in EXAMPLES[name]:
        assert runner.run(example).failed == 0
