"""Files that rounding spoils are shown as such, by the recipes that write them."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit.export import early_exit, litert, parity
from kdtoolkit.recipes import compress, self_distillation


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._run.prepare_process", lambda flags: None)

    def run(recipe, *flags):
        directory = tmp_path / ("run-smoke" if "--smoke" in flags else "run")
        assert recipe.RECIPE.main([f"--output_dir={directory}", *flags]) == 0
        output = capsys.readouterr().out
        return directory, output, json.loads((directory / "results.json").read_text())

    return run


def test_compress_marks_a_file_that_is_wrong(run, tmp_path):
    """A channel that nothing reads spreads the grid of what is beside it until nothing is left."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, name="small")(image)
    wide = layers.Conv2D(1, 3, name="wide")
    x = layers.Concatenate()([x, wide(image)])
    x = layers.Conv2D(8, 1, name="mixed")(x)
    logits = layers.Dense(10, name="logits")(layers.Flatten()(x))
    network = keras.Model(image, logits, name="spread")
    wide.kernel.assign(1e3 * wide.kernel)
    mixed = network.get_layer("mixed").kernel
    mixed.assign(np.where(np.arange(9)[:, None] == 8, 0, mixed))
    network.get_layer("logits").kernel.assign(3 * network.get_layer("logits").kernel)
    network.save(tmp_path / "spread.keras")
    flags = ("--structure=none", "--quantize=float16,int8", "--train_examples=100")
    directory, output, results = run(compress, f"--model={tmp_path / 'spread.keras'}", *flags)

    whole, half, integers = results["variants"]
    for row in (whole, half):
        assert (row["check"], row["failure"]) == ("passed", None)
    assert integers["max_difference"] > 0.5
    assert integers["check"] == "FAILED"
    message = integers["failure"]
    shown = f"differs from network 'spread' by {integers['max_difference']:.3g} in a probability"
    assert message.startswith(shown)
    page = (directory / "report.html").read_text()
    for text in (output, page):
        for part in (f"{integers['max_difference']:.1e}", "FAILED: original, int8", shown):
            assert part in text.replace("&#x27;", "'")


def test_self_distillation_marks_a_file_that_is_wrong(run, monkeypatch):
    """No rounding is allowed here, so that any of it is too much."""
    monkeypatch.setitem(parity.TOLERANCES, "int8", parity.Tolerance(1e-9, 1e-9))
    directory, output, results = run(
        self_distillation, "--smoke", "--model=resnet8", "--quantize=float32,int8"
    )
    whole, integers, *_ = results["exports"]
    assert (whole["check"], integers["check"]) == ("passed", "FAILED")
    assert "The int8 file differs from the stages by" in integers["failure"]
    assert f"FAILED, and not written: {integers['path']}: {integers['failure']}" in output
    assert not (directory / integers["path"]).exists()


def test_every_kind_of_file_has_a_tolerance():
    assert {*litert.QUANTIZATIONS, *early_exit.QUANTIZATIONS} == parity.TOLERANCES.keys()
