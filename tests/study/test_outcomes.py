"""Outcomes of runs of recipes, against what their files say when they are run here."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import data, files
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.recipes import compress, self_distillation
from kdtoolkit.study import timing
from kdtoolkit.study.outcomes import outcomes
from tests.recipes import small_family

SMALL = ("--train_examples=60", "--epochs=1", "--batch_size=30", "--deterministic=false")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=60)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory, digits):
    directory = tmp_path_factory.mktemp("compress")
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1))
    for width in (8, 16):
        x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(image, keras.layers.Dense(10)(x)).save(directory / "network.keras")
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


@pytest.fixture(scope="module")
def stopping_early(tmp_path_factory):
    """A run that keeps every operating point, as those that try it out do."""
    directory = tmp_path_factory.mktemp("exits") / "run-smoke"
    flags = [f"--output_dir={directory}", "--max_accuracy_drop=0.9", "--smoke", "--model=staged"]
    with pytest.MonkeyPatch.context() as patch:
        small_family.register(patch)
        assert self_distillation.RECIPE.main([*flags, "--deterministic=false"]) == 0
    return directory


def test_outcomes_of_early_exit(stopping_early):
    digits = data.load("digits", train_examples=40)
    results = results_of(stopping_early)
    found = outcomes(stopping_early, results, digits)
    classifier = EarlyExitClassifier(stopping_early / "export" / "early_exit-float32.tflite")
    cost_of = dict(zip(classifier.exits, classifier.costs, strict=True))
    images, labels = digits.test.pixels()
    budgets = [name for name in found if name.startswith("early exit at ")]
    assert budgets
    for name in budgets:
        budget = float(name.split()[-1])
        fits = [k for k, point in enumerate(classifier.operating_points) if point.cost <= budget]
        classifier.operating_point = fits[-1]
        predicted = classifier.predict(images)
        figures, correct = found[name]
        differs = correct != (np.array([one.index for one in predicted]) == labels)
        assert differs.mean() <= 0.01  # an image may be as sure as a threshold
        cost = np.mean([cost_of[one.exit] for one in predicted])
        assert figures["cost"] == pytest.approx(cost, abs=0.01)
        assert figures["test_accuracy"] == pytest.approx(correct.mean())
        assert figures["milliseconds_per_image"] is None
    *_, deepest = costs = results["exit_costs"]
    for name in (*costs, "ensemble"):  # which needs all exits
        cost = found[f"self distillation {name}"].figures["cost"]
        assert cost == costs.get(name, costs[deepest])
    whole = found["whole network"]
    assert np.array_equal(whole.correct, found[f"self distillation {deepest}"].correct)
    assert whole.figures["cost"] == 1.0
    seconds = sum(one.figures.get("seconds", 0.0) for one in found.values())
    assert seconds == pytest.approx(sum(row["seconds"] for row in results["exits"]))


def test_what_files_take_is_measured(compressed, stopping_early, digits, monkeypatch):
    monkeypatch.setattr(timing, "_IMAGES", 3)
    for directory in (compressed, stopping_early):
        results = results_of(directory)
        taken = timing.milliseconds(directory, results, digits)
        found = outcomes(directory, results, digits)
        has = [name for name, one in found.items() if "milliseconds_per_image" in one.figures]
        assert list(taken) == has and all(0 < value < 1000 for value in taken.values())


def test_mean_over_images_of_the_median_of_the_repeats():
    """Image k takes k and 2 k milliseconds, but for one repeat that something else slowed down."""
    turns = iter(range(12))

    def run(factor):
        return lambda image: 900.0 if next(turns) in (2, 9) else factor * float(image)

    found = timing.mean_milliseconds({"a": run(1), "b": run(2)}, np.array([1, 3]), repeats=3)
    assert found == {"a": 2.0, "b": 4.0}
