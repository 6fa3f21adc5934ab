"""The contract that keeps the journal's engines apart, on small graphs of imports."""

from __future__ import annotations

import tomllib

import pytest
from grimp import ImportGraph

from statsapi.journal import ENGINES
from tests.import_families import FamiliesContract
from tests.servers import ROOT

MODULES = ("a", "a.shared", "a.redis_url", "a.redis", "a.sqlite", "a.sqlite_file", "b", "driver")


@pytest.mark.parametrize(
    ("importer", "imported", "kept"),
    [
        ("a.redis", "a.redis_url", True),
        ("a.redis", "a.shared", True),
        ("b", "a.shared", True),
        ("a.redis", "a.sqlite_file", False),
        ("a.shared", "a.redis_url", False),
        ("a", "a.sqlite", False),
        ("b", "a.redis_url", False),
        ("a.redis_url", "driver", True),
        ("b", "driver", True),
        ("a.sqlite", "driver", False),
        ("a.shared", "driver", False),
    ],
)
def test_a_family_is_imported_by_itself_alone(importer: str, imported: str, kept: bool) -> None:
    """Its own modules, and what is shared, may be imported; no other module imports a part of it, and no
    other of the folder imports its library.
    """
    graph = ImportGraph()
    for module in MODULES:
        graph.add_module(module)
    graph.add_import(importer=importer, imported=imported)
    options = {"folder": "a", "families": ["redis", "sqlite"], "libraries": ["driver of redis"]}
    check = FamiliesContract("apart", {}, options).check(graph, verbose=False)
    assert check.kept is kept
    assert check.metadata["wrong"] == ([] if kept else [f"{importer} imports {imported}"])


def test_every_engine_is_a_family() -> None:
    """An engine that the contract does not name would keep nothing to itself."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (families,) = (each["families"] for each in contracts if each["type"] == "families")
    modules = {engine.partition(":")[0] for engine in ENGINES.values()}
    assert {module.partition("_")[0] for module in modules} == set(families), "families in pyproject.toml"
