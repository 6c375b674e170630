"""A run that is killed and started again ends with the weights of one that was not.

`KDTOOLKIT_TEST_KILLS` sets how often it is killed (2 by default).
"""

import os
import random
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest

KILLS = int(os.environ.get("KDTOOLKIT_TEST_KILLS", "2"))
COMMAND = [
    *(sys.executable, "-m", "kdtoolkit.recipes.born_again", "--generations=2", "--export=none"),
    *("--train_examples=600", f"--epochs={max(4, 2 * KILLS)}", "--batch_size=48"),
]


def start(output_dir):
    return subprocess.Popen(
        [*COMMAND, f"--output_dir={output_dir}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, error = process.communicate()
    assert process.returncode == 0, error
    return output


def weights(path):
    """Every array of a `.keras` file, without Keras."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as stream:
        h5py.File(stream).visititems(
            lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return arrays


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(start(output_dir))
    return output_dir


def test_killed_run_ends_with_the_same_weights(uninterrupted, tmp_path):
    moments = random.Random(KILLS)
    output_dir = tmp_path / "run"
    for _ in range(KILLS):
        process = start(output_dir)
        for line in process.stderr:
            if "epoch" in line:  # it trains: the first line of progress has come
                break
        time.sleep(moments.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print("killed with", sorted(path.name for path in output_dir.glob("generation_*/*")))
    output = finish(start(output_dir))
    assert "test accuracy" in output
    for generation in range(3):
        name = f"generation_{generation}/network.keras"
        expected, found = weights(uninterrupted / name), weights(output_dir / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(value, found[key], err_msg=f"{name} {key}")
    left = [p.name for p in output_dir.rglob("*") if "partial" in p.name or p.suffix == ".state"]
    assert left == []


def test_finished_run_prints_its_table_again(uninterrupted):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.glob("generation_*/network.keras")}
    assert "test accuracy" in finish(start(uninterrupted))
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_damaged_network_is_named_and_trained_again(uninterrupted):
    path = uninterrupted / "generation_2" / "network.keras"
    expected = weights(path)
    path.write_bytes(path.read_bytes()[:1000])
    process = start(uninterrupted)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert "generation_2 does not hold what it should (network.keras is not the one" in error
    assert path.with_name("network.keras.damaged").exists()
    for key, value in weights(path).items():
        np.testing.assert_array_equal(value, expected[key])
