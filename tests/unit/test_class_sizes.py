"""No class of the service does too much."""

from __future__ import annotations

import ast
from pathlib import Path

import statsapi

# Some 20 is what a reader keeps in view. HeldEvents has 21, which are one idea: the columns of one series.
METHODS_MAX = 22

# The client's methods are what its users call, one for each call of the API; they have no state beyond its connection.
EXCEPTIONS = {"Client"}


def methods_of(definition: ast.ClassDef) -> int:
    return sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in definition.body)


def test_no_class_has_more_methods_than_a_reader_keeps_in_view() -> None:
    """Each class has at most METHODS_MAX methods and properties, and an exception that is no longer needed is named."""
    sources = Path(statsapi.__file__).parent.rglob("*.py")
    trees = [ast.parse(source.read_text("utf-8")) for source in sources]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes if methods_of(node) > METHODS_MAX} == EXCEPTIONS
