"""Recipes on two workers end as on two replicas of one process; only the chief's disk is used.

The workers run in directories of their own, and all paths among their flags are relative: what the
second one reads of a file or finds in a directory is what the chief sent it.
"""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from kdtoolkit.launch import free_ports
from tests.methods import OWN_METHOD
from tests.processes import Process
from tests.recipes.test_resume import weights

FLAGS = ("--output_dir=run", "--train_examples=100", "--epochs=2", "--batch_size=30")
TWO_CPUS = """
import sys, tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from kdtoolkit.recipes import {recipe}
sys.exit({recipe}.RECIPE.main())
"""
RECIPES = {
    "compress": ("--model=network.keras", "--sparsity=0.7", "--quantize=qat", "--mixup=1"),
    "distill": (
        *("--teacher=network.keras", "--student=resnet8"),
        "--method=own_method:LogitsDistance+kd+attention",  # one from outside the package
        *("--cache_teacher", "--views=2", "--export=none"),
    ),
}

# Trainings on workers themselves are tried in tests/training.
pytestmark = pytest.mark.skipif(
    os.environ.get("KDTOOLKIT_TEST") != "all", reason="minutes: set KDTOOLKIT_TEST=all"
)
RESULTS = {"compress": "variants", "distill": "methods"}
STAGES = {"compress": 2, "distill": 3}  # with one that is pruned; as many as the student


def start(directory, command, flags, **environment):
    return Process(*command, *FLAGS, *flags, cwd=directory, **environment)


def start_workers(recipe, flags, directories):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(directories))]
    command = ("-m", f"kdtoolkit.recipes.{recipe}", "--strategy=multi_worker")
    tasks = [{"type": "worker", "index": index} for index in range(len(directories))]
    return [
        start(
            *(directory, command, flags),
            TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": task}),
        )
        for directory, task in zip(directories, tasks, strict=True)
    ]


def network(stages):
    """A small one with stages like those of a ResNet on the digits."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1))
    for stage, (width, stride) in enumerate(((8, 1), (16, 2), (16, 2))[:stages], start=1):
        x = keras.layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU(name=f"stage{stage}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10)(x))


@pytest.fixture(scope="module", params=RECIPES)
def runs(request, tmp_path_factory):
    """The recipe and the directories of one process with two replicas, the chief, the other."""
    recipe, flags = request.param, RECIPES[request.param]
    directories = [tmp_path_factory.mktemp(name) for name in ("alone", "chief", "other")]
    for directory in directories:
        shutil.copy(OWN_METHOD, directory)
    for directory in directories[:2]:
        network(STAGES[recipe]).save(directory / "network.keras")
    processes = start_workers(recipe, flags, directories[1:])
    try:
        ends(processes)
        command = ("-c", TWO_CPUS.format(recipe=recipe), "--strategy=mirrored")
        processes.append(start(directories[0], command, flags))
        ends(processes[2:])
    finally:
        for process in processes:
            process.kill()
    return recipe, *directories


def ends(processes):
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error


def files(directory):
    """What a run left, by name; events and caches by directory."""
    found = {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}
    return {str(path.parent if "logs" in path.parts else path) for path in found}


def test_only_the_chief_writes(runs):
    """The other worker keeps, where it cannot read the chief's, a teacher cache of its own."""
    recipe, alone, chief, other = runs
    assert files(chief) == files(alone)
    cached = {name for name in files(alone) if name.startswith("run/teacher_cache/")}
    assert bool(cached) == (recipe == "distill")
    assert files(other) - {OWN_METHOD.name} == cached


def test_same_weights(runs):
    """Of every network that was trained, bit for bit; and the second worker's cached outputs."""
    _, alone, chief, other = runs
    networks = sorted(Path(name) for name in files(alone) if name.endswith("network.keras"))
    assert len(networks) > 1
    for path in networks:
        expected, found = weights(alone / path), weights(chief / path)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{path} {name}")
    for path in other.rglob("*.npy"):
        assert path.read_bytes() == (chief / path.relative_to(other)).read_bytes()


def test_same_figures(runs):
    recipe, alone, chief, _ = runs
    rows, found = (
        json.loads((directory / "run" / "results.json").read_text())[RESULTS[recipe]]
        for directory in (alone, chief)
    )
    assert len(rows) == len(found)
    for expected, row in zip(rows, found, strict=True):
        assert expected.keys() == row.keys()
        same = {"test_accuracy", "validation_accuracy", "test_loss", "sparsity"} & row.keys()
        assert len(same) == 3
        for name in same:
            assert row[name] == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.parametrize("runs", ["distill"], indirect=True)
def test_finished_run_ends_all_workers(runs):
    """The chief finds it, and shows it; the other learns that from it."""
    recipe, _, *directories = runs
    processes = start_workers(recipe, RECIPES[recipe], directories)
    try:
        (table, said), (nothing, _) = (process.communicate(timeout=300) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    assert f"{recipe}: finished on " in said
    assert "test accuracy" in table
    assert nothing == ""
