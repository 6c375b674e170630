"""Files that rounding spoils are shown as such, by the recipes that write them."""

import json
import shutil

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import export
from kdtoolkit.export import early_exit, parity, quantizations
from kdtoolkit.recipes import _command, _session, compress, self_distillation
from tests.recipes import small_family

SELF_DISTILLATION = ("--smoke", "--model=staged", "--quantize=float32,int8")


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        small_family.register(patch)
        yield


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)

    def run(recipe, *flags, status=0):
        directory = tmp_path / ("run-smoke" if "--smoke" in flags else "run")
        assert recipe.RECIPE.main([f"--output_dir={directory}", *flags]) == status
        output, error = capsys.readouterr()
        if status:
            return directory, error.splitlines()[-1], None
        return directory, output, json.loads((directory / "results.json").read_text())

    return run


@pytest.fixture(scope="module")
def left_before_files(tmp_path_factory):
    """A directory of self-distillation that was trained, and stopped before its first file."""

    def stop(*_, **__):
        raise _command.RunError("stopped")

    directory = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_session, "prepare_process", lambda flags: None)
        patch.setattr(export, "package_early_exit", stop)
        flags = [f"--output_dir={directory}", *SELF_DISTILLATION]
        assert self_distillation.RECIPE.main(flags) == 1
    return directory.with_name("run-smoke")


@pytest.fixture
def package(run, left_before_files, tmp_path):
    """Goes on from there: what is written of the same network."""

    def package(status=0):
        shutil.copytree(left_before_files, tmp_path / "run-smoke")
        return run(self_distillation, *SELF_DISTILLATION, status=status)

    return package


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
    flags = ("--structure=none", "--quantize=float16,mixed,int8", "--train_examples=100")
    directory, output, results = run(compress, f"--model={tmp_path / 'spread.keras'}", *flags)

    whole, half, mixture, integers = results["variants"]
    for row in (whole, half, mixture):
        assert (row["check"], row["failure"]) == ("passed", None)
    described = mixture["mixed"]
    assert described["int8_accuracy"] < described["float32_accuracy"] - 0.01
    assert described["accuracy"] >= described["float32_accuracy"] - 0.01
    operations = described["operations"]
    floats = sum(each["floating"] for each in operations)
    line = f"original, mixed: {floats} of {len(operations)} operations stay in float32; "
    assert 0 < floats < len(operations) and line in output
    assert integers["max_difference"] > 0.5
    assert integers["check"] == "FAILED"
    message = integers["failure"]
    shown = f"differs from network 'spread' by {integers['max_difference']:.3g} in a probability"
    assert message.startswith(shown)
    page = (directory / "report.html").read_text()
    assert f"{floats} of {len(operations)} operations stay in float32; " in page
    for text, failed in ((output, "FAILED, and not kept"), (page, "FAILED")):
        for part in (f"{integers['max_difference']:.1e}", f"{failed}: original, int8", shown):
            assert part in text.replace("&#39;", "'")
    assert "Everything is in" not in output
    assert f"\nEverything else is in {directory}; report.html shows it, " in output
    there = {row["check"]: (directory / row["path"]).exists() for row in results["variants"]}
    assert there == {"passed": True, "FAILED": False}


def test_compress_refuses_to_calibrate_a_loop_before_it_trains(run, tmp_path):
    image = keras.Input((8, 8, 1))
    x = layers.LSTM(4)(layers.Reshape((8, 8))(image))
    keras.Model(image, layers.Dense(10)(x)).save(tmp_path / "recurrent.keras")
    flags = (f"--model={tmp_path / 'recurrent.keras'}", "--structure=none")
    directory, error, _ = run(compress, *flags, status=2)
    assert error.startswith("compress: --quantize: Argument `quantization` must not be int8, ")
    assert not directory.exists()


def test_a_conversion_that_is_wrong_ends_compress(run, monkeypatch, tmp_path):
    """Nothing was rounded, and no digit may be off here."""
    monkeypatch.setitem(parity.TOLERANCES, "float32", parity.Tolerance(-1, -1))
    image = keras.Input((8, 8, 1))
    network = keras.Model(image, layers.Dense(10)(layers.Flatten()(image)), name="linear")
    network.save(tmp_path / "linear.keras")
    flags = (f"--model={tmp_path / 'linear.keras'}", "--structure=none", "--train_examples=100")
    directory, line, _ = run(compress, *flags, status=1)
    file = directory / "export" / "original.tflite"
    assert line.startswith(f"compress: {file} (float32) differs from network 'linear' by ")
    assert not file.exists()


def test_self_distillation_marks_a_file_that_is_wrong(package, monkeypatch):
    """No rounding is allowed here, so that any of it is too much."""
    monkeypatch.setitem(parity.TOLERANCES, "int8", parity.Tolerance(1e-9, 1e-9))
    directory, output, results = package()
    whole, integers, *_ = results["exports"]
    assert (whole["check"], integers["check"]) == ("passed", "FAILED")
    assert "The int8 file differs from the stages by" in integers["failure"]
    assert f"FAILED, and not kept: {integers['path']}: {integers['failure']}" in output
    assert f"Everything else is in {directory}; " in output
    assert not (directory / integers["path"]).exists()


def wrong(monkeypatch, name):
    """Lets the check of one file fail, by the beginning of its name."""
    check = early_exit._check

    def checked(path, functions, images, quantization):
        if name in path.name:
            raise parity.ParityError("It is wrong by 0.7")
        check(path, functions, images, quantization)

    monkeypatch.setattr(early_exit, "_check", checked)


def test_a_conversion_that_is_wrong_ends_self_distillation(package, monkeypatch, tmp_path):
    """What an earlier run left under that name is not taken for its file."""
    wrong(monkeypatch, "early_exit-float32")
    file = tmp_path / "run-smoke" / "export" / "early_exit-float32.tflite"
    begin = _session.begin

    def left(flags, data, chosen):
        output_dir = begin(flags, data, chosen)
        file.parent.mkdir()
        file.write_bytes(b"older")
        return output_dir

    monkeypatch.setattr(_session, "begin", left)
    _, line, _ = package(status=1)
    assert line == "self_distillation: It is wrong by 0.7"
    assert not file.exists()


def test_a_file_is_kept_where_only_what_it_is_compared_with_is_wrong(package, monkeypatch):
    wrong(monkeypatch, "whole-float32")
    directory, output, results = package()
    row = results["exports"][0]
    assert (row["check"], row["not_compared"]) == ("passed", "It is wrong by 0.7")
    assert row["test_accuracy"] is not None and "full_test_accuracy" not in row
    assert (directory / row["path"]).is_file()
    assert f"{row['path']} is right, and not compared" in output
    assert f"Everything is in {directory}; " in output


def test_every_kind_of_file_has_a_tolerance():
    kinds = {*quantizations.FILES, *early_exit.QUANTIZATIONS}
    assert kinds == parity.TOLERANCES.keys()
