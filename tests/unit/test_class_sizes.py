"""No class of the service does too much."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import statsapi

# Some 20 is what a reader keeps in view. HeldEvents has 21, which are one idea: the columns of one series.
METHODS_MAX = 22


def methods_of(definition: ast.ClassDef) -> int:
    return sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in definition.body)


@pytest.mark.slow
def test_no_class_has_more_methods_than_a_reader_keeps_in_view() -> None:
    """Each class has at most METHODS_MAX methods of its own, properties and overloads included."""
    sources = Path(statsapi.__file__).parent.rglob("*.py")
    trees = [ast.parse(source.read_text("utf-8")) for source in sources]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert len(classes) > 100  # they were found
    assert {node.name for node in classes if methods_of(node) > METHODS_MAX} == set()
