"""Type hints of the public surface, and what a type checker makes of them."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest
from mypy import api

import kdtoolkit

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("analysis", "comparison", "compression", "data", "edge", "export", "front"),
    *("generations", "losses", "methods", "models", "training"),
)
LAZY = ("", *(f".{room}" for room in ROOMS if room not in ("comparison", "generations", "methods")))


def test_a_type_checker_finds_no_mistake(monkeypatch):
    monkeypatch.chdir(ROOT)
    limit = sys.getrecursionlimit()
    try:
        report, errors, status = api.run([])  # pyproject.toml says of what
    finally:
        sys.setrecursionlimit(limit)  # which mypy raises, for the tests after this one too
    assert status == 0, report + errors


@pytest.mark.parametrize("name", LAZY)
def test_type_checkers_see_what_is_imported_when_it_is_used(name):
    package = importlib.import_module(f"kdtoolkit{name}")
    (block,) = (
        node
        for node in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {}
    for node in block.body:
        for alias in node.names:
            assert alias.name == alias.asname  # which says that it is for others
            seen[alias.asname] = node.module
    assert sorted(seen) == package.__all__
    for public, module in seen.items():
        value = getattr(package, public)
        if module == package.__name__:
            assert value is importlib.import_module(f"{module}.{public}")
        else:
            assert value is getattr(importlib.import_module(module), public)


def _public_functions(value):
    """A function, or those of a class that a user may call or override, with their names."""
    if inspect.isfunction(value):
        yield value.__name__, value
    if not inspect.isclass(value):
        return
    for base in value.__mro__:
        if not base.__module__.startswith("kdtoolkit"):
            continue
        for name, member in vars(base).items():
            member = inspect.unwrap(getattr(member, "fget", getattr(member, "__func__", member)))
            written = inspect.isfunction(member) and member.__module__.startswith("kdtoolkit")
            if written and (name in ("__init__", "__call__") or not name.startswith("_")):
                yield f"{base.__name__}.{name}", member


@pytest.mark.parametrize("room", ROOMS)
def test_the_public_surface_has_type_hints(room):
    module = importlib.import_module(f"kdtoolkit.{room}")
    missing = []
    for public in module.__all__:
        for name, function in _public_functions(inspect.unwrap(getattr(module, public))):
            signature = inspect.signature(function)
            empty = [
                parameter.name
                for parameter in signature.parameters.values()
                if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
            ]
            if signature.return_annotation is signature.empty:
                empty.append("what it returns")
            if empty and not name.endswith("Classifier.predict"):  # whose hints are overloads
                missing.append(f"{name}: {', '.join(empty)}")
    assert not missing


def test_the_package_says_that_it_has_type_hints():
    assert (Path(kdtoolkit.__file__).parent / "py.typed").is_file()
    assert "kdtoolkit = py.typed" in (ROOT / "setup.cfg").read_text()
