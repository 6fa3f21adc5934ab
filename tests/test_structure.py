"""The shape that DESIGN fixes: imports point one way, and the numeric core knows nothing of the web."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "statsapi"

# Who may import whom, inside the package. A new module has to find its place here.
ALLOWED = {
    "model": set(),
    "errors": set(),
    "times": {"model"},
    "exact": {"model"},
    "summary": {"exact", "model"},
    "sketch": {"exact", "model"},
    "timeline": {"exact", "summary", "sketch", "model"},
    "rollup": {"summary", "sketch", "model"},
    "clocks": {"model"},
    "store": {"timeline", "rollup", "summary", "sketch", "model", "errors"},
    "journal": {"model", "errors", "journal"},
    "config": {"errors", "model", "times"},
    "machine": set(),
    "checkpoint": {"store", "journal", "rollup", "model", "errors"},
    "view": {"checkpoint", "clocks", "store", "journal", "model", "errors"},
    "placement": {"model"},
    "metrics": {"clocks", "model", "placement", "summary"},
    "keys": {"errors"},
    "service": {
        "view",
        "clocks",
        "store",
        "summary",
        "journal",
        "config",
        "machine",
        "metrics",
        "model",
        "placement",
        "errors",
        "times",
    },
    "api": {
        "__version__",
        "api",
        "keys",
        "service",
        "metrics",
        "store",
        "summary",
        "config",
        "model",
        "placement",
        "errors",
        "times",
    },
    "app": {"api", "keys", "service", "journal", "config", "errors", "times"},
    "serve_command": {"gunicorn_app", "errors"},
    "gunicorn_app": set(),
    "gunicorn_conf": {"serving", "serve_command"},
    "serving": {"app", "api", "keys", "config", "errors", "journal", "metrics", "service"},
    "healthcheck": set(),
    "journal_command": {"journal", "config", "errors", "times"},
    "keys_command": {"keys", "errors"},
    "__main__": {"__version__", "journal_command", "keys_command", "serve_command", "errors"},
    "__init__": set(),
}


def imports_of(path: Path) -> set[str]:
    """The statsapi modules (first component) that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "statsapi" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("statsapi.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """Every module imports only what its layer may."""
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imports_of(path) <= ALLOWED[module]


@pytest.mark.parametrize("module", ["exact", "summary", "timeline"])
def test_the_numeric_core_stands_alone(module: str) -> None:
    """Importing it brings in numpy and the standard library, no web framework and no database."""
    code = f"import statsapi.{module}, sys; print([m for m in ('flask', 'marshmallow', 'sqlite3') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=PACKAGE.parent).strip() == "[]"
