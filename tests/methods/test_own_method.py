"""A method in a folder outside the package: every recipe takes it, and so does the suite.

With the teacher cache and on two workers it is in tests/recipes/test_workers.py.
"""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from kdtoolkit import methods
from kdtoolkit.recipes import born_again, distill, self_distillation
from tests import processes
from tests.methods import OWN_METHOD
from tests.recipes import small_family

NAME = "own_method:LogitsDistance"
SMALL = ("--smoke", "--export=none", "--output_dir=run")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copy(OWN_METHOD, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_method", None)
    methods.registry._REGISTRY.pop("logits_distance", None)


def test_it_is_short():
    assert len(OWN_METHOD.read_text().splitlines()) <= 25


def test_help_lists_its_options(folder, capsys):
    assert distill.RECIPE.main([f"--methods={NAME}+attention", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--logits_distance_weight Weight of the distance, at least 0. (default: 0.1)" in text


@pytest.mark.parametrize(
    ("value", "message"),
    [("-1", "must be at least 0"), ("x", "must be a number"), ("nan", "must be at least 0")],
)
def test_its_options_are_checked(folder, capsys, value, message):
    arguments = [f"--methods={NAME}", f"--logits_distance_weight={value}"]
    assert distill.RECIPE.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"distill: --logits_distance_weight {message}. Received: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("Own", "mode: Literal['a', 'b']", "the option mode of Own must have one of the types"),
        ("Own", "weights: Sequence[float]", "the option weights of Own must have one of the types"),
        ("Own", "weight: 'Unknown'", "Received: name 'Unknown' is not defined"),
        ("Own", "weight: int | float", "Received: int | float"),
        ("Image", "size: float", "would have the flag --image_size, which is the recipe's own"),
        ("Own", "weight: float float", "package.module:Class that can be imported"),
    ],
)
def test_options_that_no_flag_can_hold(tmp_path, monkeypatch, capsys, name, option, message):
    head = "from collections.abc import Sequence\nfrom dataclasses import dataclass\n"
    head += "from typing import Literal\nfrom kdtoolkit import methods\n"
    own = f"@dataclass(frozen=True)\nclass {name}(methods.LogitsMethod):\n"
    own += f"    {option} = methods.option(None, 'Its text.')\n"
    (tmp_path / "broken_method.py").write_text(head + own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert distill.RECIPE.main([f"--methods=broken_method:{name}"]) == 2
    finally:
        sys.modules.pop("broken_method", None)
        methods.registry._REGISTRY.pop(name.lower(), None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distill: --methods") and message in line


def test_a_path_is_no_module(capsys):
    assert distill.RECIPE.main(["--methods=./own_method.py:LogitsDistance"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--methods must be package.module:Class that can be imported" in line


@pytest.mark.parametrize(
    ("recipe", "also", "network", "directory"),
    [
        (distill, "+attention", "student", "own_method:LogitsDistance+attention/seed_0"),
        (born_again, "", "model", "generation_1"),
        (self_distillation, "+embedding", "model", "self_distillation"),
    ],
    ids=["distill", "born_again", "self_distillation"],
)
def test_recipes(folder, capsys, monkeypatch, recipe, also, network, directory):
    small_family.register(monkeypatch)
    arguments = [
        *SMALL,
        f"--{network}=staged",
        f"--methods={NAME}{also}",
        "--logits_distance_weight=0.5",
    ]
    assert recipe.RECIPE.main(arguments) == 0, capsys.readouterr().err
    run = folder / "run-smoke"
    assert (run / directory / "network.keras").exists()
    assert "--logits_distance_weight=0.5" in (run / "config.flags").read_text()
    if recipe is born_again:
        (own,) = json.loads((run / "generations.json").read_text())["methods"]
        assert own == [{"name": "logits_distance", "weight": 0.5, "corrections": []}]


def test_its_term(folder):
    (method,) = methods.parse(NAME)
    teacher, student = (np.random.default_rng(seed).normal(size=(3, 4)) for seed in (0, 1))
    outputs = [methods.Outputs(logits) for logits in (student, teacher)]
    batch = methods.Batch(None, *outputs, None, None, None, 0, 1)
    expected = 0.1 * ((student - teacher) ** 2).mean(-1)
    np.testing.assert_allclose(method.term(batch), expected, rtol=1e-6)


def test_the_suite_of_methods(folder):
    suite = os.path.join(os.path.dirname(__file__), "..", "training", "test_methods.py")
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    places = f"pythonpath={folder} {root}"
    command = ("-m", "pytest", "-n0", suite, "-k", "LogitsDistance", "-o", places)
    found = processes.run(*command, cwd=root, KDTOOLKIT_TEST_METHODS=NAME)
    assert found.returncode == 0, found.stdout
    assert "9 passed, 2 skipped" in found.stdout
