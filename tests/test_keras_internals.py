"""Private names of Keras are in `kdtoolkit/_keras.py` and nowhere else."""

import ast
from pathlib import Path

import keras
import pytest

import kdtoolkit

PACKAGE = Path(kdtoolkit.__file__).parent

# What Keras calls, and `Trainer` must answer otherwise: it says there why.
OVERRIDDEN = {
    ("training/step.py", "_make_function"),
    ("training/step.py", "_maybe_symbolic_build"),
}


@pytest.fixture(scope="module")
def private_names():
    """What Keras' objects have that begins with one underscore."""
    image = keras.Input((2,))
    network = keras.Sequential([image, keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    functional = keras.Model(image, network(image))
    values = (
        *(network, functional, *network.layers, network.output, functional.operations[-1]),
        *(network.optimizer, network.layers[-1]._inbound_nodes[0], network.variables[0]),
        *(keras.callbacks.Callback(), keras.metrics.Mean(), keras.losses.MeanSquaredError()),
    )
    names = {name for value in values for name in dir(value)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def _used(tree):
    """Attributes that the file reads or sets, and those it looks up by a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            yield from (a.value for a in node.args[1:2] if isinstance(a, ast.Constant))


def _own(tree):
    """Methods of the file's classes, and what it sets of `self`, whatever Keras calls so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (part.name for part in node.body if isinstance(part, ast.FunctionDef))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if getattr(node.value, "id", "") == "self" else []


def _overridden(tree):
    """Methods of classes that have a base."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.bases:
            yield from (part.name for part in node.body if isinstance(part, ast.FunctionDef))


def test_private_names_of_keras_are_in_one_module(private_names):
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "_keras.py":
            tree = ast.parse(path.read_text())
            names = (set(_used(tree)) - set(_own(tree))) | set(_overridden(tree))
            found |= {
                (path.relative_to(PACKAGE).as_posix(), name) for name in names & private_names
            }
    assert found == OVERRIDDEN


def test_private_modules_of_keras_are_not_imported():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            modules = [*names, str(getattr(node, "module", ""))]
            assert not any(name.startswith(("keras.src", "keras._")) for name in modules), path
