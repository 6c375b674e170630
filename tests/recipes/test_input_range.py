"""A network's pixel values are told from its beginning, and judged before anything is done."""

import dataclasses
import json
import types

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import data
from kdtoolkit.recipes import _outputs, compress, distill
from kdtoolkit.recipes._command import UsageError

FLAG = {"compress": "model_input", "distill": "teacher_input"}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=600)


def network(*beginning):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1))
    for layer in beginning:
        x = layer(x)
    x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(x))
    return keras.Model(image, layers.Dense(10)(x))


def trained(images, labels, *beginning):
    model = network(*beginning)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(images, labels, epochs=8, verbose=0)
    return model


@pytest.fixture(scope="module")
def of_bytes(digits, tmp_path_factory):
    """The file of a network that scales bytes, and the share of validation images it has right."""
    images, labels = digits.train.pixels()
    model = trained(images.astype("float32"), labels, layers.Rescaling(1 / 255))
    path = tmp_path_factory.mktemp("of_bytes") / "network.keras"
    model.save(path)
    images, labels = digits.validation.pixels()

    def accuracy(x):
        return np.mean(model.predict(x.astype("float32"), verbose=0).argmax(-1) == labels)

    right, wrong = accuracy(images), accuracy(digits.preprocessing(images))
    assert right > 0.9
    assert wrong < 0.2
    return path, right, wrong


@pytest.mark.parametrize(
    ("recipe", "arguments"),
    [
        (compress, ["--model={}", "--model_input=normalized", "--quantize=int8"]),
        (distill, ["--teacher={}", "--teacher_input=normalized", "--epochs=1"]),
    ],
)
def test_wrong_pixel_values_are_named_before_anything_is_written(
    recipe, arguments, of_bytes, tmp_path, capsys
):
    path, right, wrong = of_bytes
    run = tmp_path / "run"
    arguments = [argument.format(path) for argument in arguments]
    common = ["--train_examples=600", "--epochs=1", "--deterministic=false"]
    assert recipe.RECIPE.main([*arguments, *common, f"--output_dir={run}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    name = recipe.RECIPE.name
    assert line == (
        f"{name}: --{FLAG[name]} must be the pixel values that the network was trained on: with "
        f"bytes {right:.2%} of 144 validation images are right, with normalized {wrong:.2%}. "
        f"Received: --{FLAG[name]}=normalized"
    )
    assert not run.exists()


def judged(network, digits, value):
    flags = {"taken": types.SimpleNamespace(value=value)}
    flags = type("Flags", (dict,), {"strategy": "auto"})(flags)
    return _outputs.input_range(network, digits, flags, "taken")


def test_auto_is_what_the_first_layers_scale(of_bytes, digits, capsys):
    model = keras.models.load_model(of_bytes[0])
    assert judged(model, digits, "auto") == "bytes"
    assert capsys.readouterr().err == "--taken: bytes, which the network scales by itself\n"


def test_auto_is_normalized_otherwise(digits, capsys):
    images, labels = digits.train.pixels()
    model = trained(digits.preprocessing(images), labels)
    assert judged(model, digits, "auto") == "normalized"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", ["normalized", "unit", "bytes"])
def test_network_that_knows_nothing_is_let_pass(digits, value):
    assert judged(network(), digits, value) == value


def test_test_images_are_never_looked_at(of_bytes, digits):
    blind = dataclasses.replace(digits, test=None, train=None)
    with pytest.raises(UsageError, match="with bytes"):
        judged(keras.models.load_model(of_bytes[0]), blind, "unit")


def test_teacher_for_images_of_another_size_and_range(digits, tmp_path, capsys):
    """It sees the same view as the student, resized, as the bytes that it was trained on."""
    images, labels = digits.train.pixels()
    x = image = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, 2, activation="relu")(layers.Rescaling(1 / 255)(x))
    teacher = keras.Model(image, layers.Dense(10)(layers.Flatten()(x)))
    larger = keras.layers.Resizing(16, 16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile(keras.optimizers.Adam(0.01), loss)
    teacher.fit(larger(images.astype("float32")), labels, epochs=8, verbose=0)
    teacher.save(tmp_path / "teacher.keras")
    run = tmp_path / "run"
    flags = ["--train_examples=600", "--epochs=1", "--deterministic=false", "--export=none"]
    flags += [f"--teacher={tmp_path / 'teacher.keras'}", f"--output_dir={run}"]
    assert distill.RECIPE.main(flags) == 0
    said = capsys.readouterr().err.splitlines()
    assert "--teacher: sees the images of 8x8 resized to 16x16, which it was made for" in said
    assert "--teacher_input: bytes, which the network scales by itself" in said
    images, labels = digits.test.pixels()
    right = teacher.predict(larger(images.astype("float32")), verbose=0).argmax(-1) == labels
    found = json.loads((run / "results.json").read_text())["teacher"]["test_accuracy"]
    assert right.mean() > 0.8
    np.testing.assert_allclose(found, right.mean(), atol=0.005)
