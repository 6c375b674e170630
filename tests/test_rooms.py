"""Rooms import each other in one direction: no circle among them, at any depth of the code."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import kdtoolkit

PACKAGE = Path(kdtoolkit.__file__).parent


def imported(tree):
    """Full names of the package's modules, or of names in them, that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "kdtoolkit":
            yield from (f"kdtoolkit.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))


def test_no_circle():
    taken = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        names = [name.split(".") for name in imported(ast.parse(path.read_text()))]
        rooms = {name[1] for name in names if name[0] == "kdtoolkit" and len(name) > 1}
        taken.setdefault(parts[0], set()).update(rooms - {parts[0], "__version__"})
    order = list(TopologicalSorter(taken).static_order())  # a CycleError names the circle
    assert order.index("losses") < order.index("training") < order.index("recipes")
