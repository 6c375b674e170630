"""A run that is killed and started again ends as one that was not: weights, files and figures.

`KDTOOLKIT_TEST_KILLS` sets how often: 3 times by default, and `born_again` alone; from 12 on all
recipes are killed in turn. There are three moments: within half a second of its start, while it
trains, and while it exports. Every second run is killed twice at each of them.
"""

import itertools
import json
import os
import random
import shutil
import signal
import time
import zipfile

import h5py
import numpy as np
import pytest

from tests.processes import Process

KILLS = int(os.environ.get("KDTOOLKIT_TEST_KILLS", "3"))
SMALL = ("--output_dir=run", "--train_examples=200", "--batch_size=48")
RECIPES = {
    "born_again": (
        *("--generations=1", "--epochs=6"),
        *("--augmentation=randaugment", "--mixup=0.2", "--cutmix=1"),
    ),
    "self_distillation": ("--model=resnet8", "--epochs=3"),
    "distill": (
        *("--teacher=resnet8", "--methods=kd,attention", "--cache_teacher", "--views=2"),
        "--epochs=3",
    ),
    "compress": ("--model=network.keras", "--quantize=int8,qat", "--epochs=3"),
}
MOMENTS = ("start", "training", "export")


def killed():
    """Recipe -> how often it is killed."""
    if len(RECIPES) * len(MOMENTS) > KILLS:
        return {"born_again": KILLS}
    share, more = divmod(KILLS, len(RECIPES))
    return {name: share + (number < more) for number, name in enumerate(RECIPES)}


def start(directory, recipe="born_again"):
    command = ("-m", f"kdtoolkit.recipes.{recipe}", *SMALL, *RECIPES[recipe])
    return Process(*command, cwd=directory)


def finish(process):
    output, error = process.communicate()
    assert process.returncode == 0, error
    return output


def kill_at(process, moment, output_dir, drawn):
    """Kills a run at a random moment; returns whether it had not ended before."""
    if moment == "start":
        time.sleep(drawn.uniform(0, 0.5))
    else:
        if moment == "training":
            for line in process.stderr:
                if "epoch" in line:  # it trains: the first line of progress has come
                    break
        else:
            before = changed(output_dir)
            while changed(output_dir) == before and process.poll() is None:
                time.sleep(0.002)
        time.sleep(drawn.uniform(0, 3))
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode == -signal.SIGKILL


def changed(output_dir):
    """When the results were written, before the export or after it."""
    path = output_dir / "results.json"
    return path.stat().st_mtime_ns if path.exists() else None


def weights(path):
    """Every array of a `.keras` file, without Keras."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as stream:
        h5py.File(stream).visititems(
            lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return arrays


def timeless(value):
    """Figures without what a clock said, and without checksums of files, some of which hold such.

    Nor the bytes of a SavedModel: TensorFlow numbers functions by what the process made before.
    """
    if isinstance(value, dict):
        varies = ("second", "sha256", "finished", "files")
        if value.get("format") == "saved_model":
            varies += ("bytes",)
        kept = [key for key in value if not any(part in key for part in varies)]
        return {key: timeless(value[key]) for key in kept}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def content(path):
    """What must not depend on when a run was killed."""
    if path.suffix == ".keras":
        return {name: (a.dtype, a.shape, a.tobytes()) for name, a in weights(path).items()}
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    # Pictures and pages show times; a SavedModel's graph is numbered by what the process built.
    return None if path.suffix in (".html", ".png", ".pb") else path.read_bytes()


def assert_same(expected, found):
    """Two directories hold the same; logs say how often a run was started."""
    names = [
        {str(path.relative_to(each)) for path in each.rglob("*") if path.is_file()}
        for each in (expected, found)
    ]
    names = [{name for name in each if not name.startswith("logs/")} for each in names]
    assert names[0] == names[1]
    for name in sorted(names[0]):
        assert content(found / name) == content(expected / name), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Recipe -> the directory in which it ran."""
    directories = {}

    def run(recipe="born_again"):
        if recipe not in directories:
            directory = tmp_path_factory.mktemp(recipe)
            if recipe == "compress":
                network = run("born_again") / "run" / "generation_1" / "network.keras"
                shutil.copy(network, directory / "network.keras")
            finish(start(directory, recipe))
            directories[recipe] = directory
        return directories[recipe]

    return run


def kill_often(recipe, run, moments, drawn):
    """Kills one run at each of the moments, until it has ended; returns how often it did."""
    count = 0
    for moment in moments:
        was = kill_at(start(run.parent, recipe), moment, run, drawn)
        print(recipe, moment, "killed" if was else "had ended", changed(run))
        if not was:
            break
        count += 1
    return count


@pytest.mark.parametrize("recipe", killed())
def test_killed_run_ends_as_one_that_was_not(recipe, uninterrupted, tmp_path):
    whole, left, drawn = uninterrupted(recipe), killed()[recipe], random.Random(KILLS)
    twice = tuple(moment for moment in MOMENTS for _ in range(2))
    for number, moments in enumerate(itertools.cycle([MOMENTS, twice])):
        directory = tmp_path / str(number)
        directory.mkdir()
        if recipe == "compress":
            shutil.copy(whole / "network.keras", directory)
        left -= kill_often(recipe, directory / "run", moments[:left], drawn)
        assert "Everything is in run" in finish(start(directory, recipe))
        assert_same(whole / "run", directory / "run")
        if not left:
            break


def test_finished_run_prints_its_table_again(uninterrupted):
    run = uninterrupted() / "run"
    before = {p: p.stat().st_mtime_ns for p in run.glob("generation_*/network.keras")}
    assert "test accuracy" in finish(start(run.parent))
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_damaged_network_is_named_and_trained_again(uninterrupted):
    path = uninterrupted() / "run" / "generation_1" / "network.keras"
    expected = weights(path)
    path.write_bytes(path.read_bytes()[:1000])
    process = start(uninterrupted())
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert "generation_1 does not hold what it should (network.keras is not the one" in error
    assert path.with_name("network.keras.damaged").exists()
    for key, value in weights(path).items():
        np.testing.assert_array_equal(value, expected[key])
