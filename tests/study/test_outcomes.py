"""Outcomes of runs of recipes, against what their files say when they are run here."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import data, files, models
from kdtoolkit.recipes import compress
from kdtoolkit.study.outcomes import outcomes

SMALL = ("--train_examples=60", "--epochs=1", "--batch_size=30", "--deterministic=false")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=60)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory, digits):
    directory = tmp_path_factory.mktemp("compress")
    keras.utils.set_random_seed(0)
    models.build("resnet8", (8, 8, 1), 10).save(directory / "network.keras")
    flags = [
        f"--model={directory / 'network.keras'}",
        f"--output_dir={directory / 'run'}",
        "--structure=channels",
        "--calibration_images=8",
    ]
    assert compress.RECIPE.main([*flags, *SMALL]) == 0
    return directory / "run"


def results_of(directory):
    return files.read_record(directory / "results.json")


def by_interpreter(path, images):
    """The decisions of a file, one image at a time."""
    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return np.array([runner(image=image[None])["probabilities"].argmax() for image in images])


def test_outcomes_of_compress(compressed, digits):
    results = results_of(compressed)
    found = outcomes(compressed, results, digits)
    assert list(found) == ["original", "original, int8", "50% channels", "50% channels, int8"]
    images, labels = digits.test.pixels()
    original, *_ = rows = results["variants"]
    for row in rows:
        figures, correct = found[row["variant"]]
        assert np.array_equal(correct, by_interpreter(compressed / row["path"], images) == labels)
        assert correct.mean() == figures["test_accuracy"]
        for key in ("bytes", "gzipped_bytes", "macs", "parameters", "milliseconds_per_image"):
            assert figures[key] == row[key]
        assert figures["bytes"] == (compressed / row["path"]).stat().st_size
        assert figures["cost"] == row["macs"] / original["macs"]
    assert 0.2 < found["50% channels"].figures["cost"] < 0.8
    seconds = [one.figures.get("seconds", 0.0) for one in found.values()]
    assert seconds == [0.0, 0.0, rows[2]["seconds"], 0.0]  # of one training, once


def test_a_file_that_was_not_kept_is_no_outcome(compressed, digits):
    results = results_of(compressed)
    results["variants"][1]["failure"] = "differs"
    assert "original, int8" not in outcomes(compressed, results, digits)


def test_accuracies_that_the_run_did_not_write(compressed, digits):
    results = results_of(compressed)
    results["variants"][2]["test_accuracy"] += 0.1
    with pytest.raises(files.DamagedFileError, match="of the test images, and its run wrote"):
        outcomes(compressed, results, digits)
