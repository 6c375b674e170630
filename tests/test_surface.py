"""What public docstrings refer to is public."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import kdtoolkit

PACKAGE = Path(kdtoolkit.__file__).parent
ROOMS = kdtoolkit.__all__


def _documented(name, value):
    """What has a docstring of ours under a public name: itself, and a class' public methods."""
    if not inspect.ismodule(value) and not getattr(value, "__module__", "").startswith("kdtoolkit"):
        return
    yield name, value
    for own, member in vars(value).items() if inspect.isclass(value) else ():
        member = getattr(member, "fget", getattr(member, "__func__", member))
        if inspect.isroutine(member) and (own == "__init__" or not own.startswith("_")):
            yield f"{name}.{own}", member


def _referred(value):
    """Names in backticks in a docstring, without arguments."""
    return re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*)?`", inspect.getdoc(value) or "")


def _is_public(path, package=kdtoolkit):
    """Whether a dotted name can be reached by names that are listed, or are a class' own."""
    first, _, rest = path.partition(".")
    listed = getattr(package, "__all__", None)
    if listed is None and inspect.ismodule(package):
        listed = [name for name in vars(package) if not name.startswith("_")]
    if not (first in listed if inspect.ismodule(package) else hasattr(package, first)):
        return False
    return not rest or _is_public(rest, getattr(package, first))


@pytest.fixture(scope="module")
def names_of_the_package():
    """Names of modules, and of classes and constants at their top."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        if "recipes" in path.parts or path.name.startswith("_"):
            continue
        names.add(path.stem)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign):
                names |= {name.id for name in node.targets if isinstance(name, ast.Name)}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("room", ROOMS)
def test_what_docstrings_refer_to_is_public(room, names_of_the_package):
    surface = {
        name for other in ROOMS for name in importlib.import_module(f"kdtoolkit.{other}").__all__
    }
    module = importlib.import_module(f"kdtoolkit.{room}")
    missing = []
    for public in ("", *module.__all__):
        value = getattr(module, public) if public else module
        for where, documented in _documented(public, value):
            for name in _referred(documented):
                first = name.partition(".")[0]
                if first == "kdtoolkit":
                    fine = _is_public(name.partition(".")[2])
                elif first in ROOMS and "." in name:
                    fine = _is_public(name)
                elif (
                    first not in names_of_the_package
                    or name.endswith((".json", ".png"))
                    or ("." not in name and name.islower())
                ):
                    continue  # an argument, a file, another package's
                else:
                    rooms = [importlib.import_module(f"kdtoolkit.{other}") for other in ROOMS]
                    fine = first in surface and any(_is_public(name, other) for other in rooms)
                if not fine:
                    missing.append(f"`{name}` in {room}.{where}")
    assert not missing
