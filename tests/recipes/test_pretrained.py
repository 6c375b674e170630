"""Recipes on a folder of photos, from a file of trained weights."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from kdtoolkit.recipes import born_again, distill, self_distillation
from tests.recipes import small_family

SMALL = ["--image_size=32", "--epochs=1", "--batch_size=16", "--deterministic=false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`photos/`, and a file of a MobileNet of seven classes."""
    path = tmp_path_factory.mktemp("transfer")
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name in ("ant", "bee"):
            (path / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(random.integers(0, 256, (32, 32, 3)).astype(np.uint8))
                image.save(path / "photos" / split / name / f"{index}.png")
    keras.utils.set_random_seed(3)
    network = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=7)
    network.save_weights(path / "trained.weights.h5")
    return path


def run(recipe, folder, output_dir, *flags):
    flags = [f"--dataset={folder / 'photos'}", f"--output_dir={output_dir}", *SMALL, *flags]
    return recipe.RECIPE.main(flags)


def kernels(path):
    network = keras.models.load_model(path, compile=False)
    layers = (layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    return [np.asarray(layer.kernel) for layer in layers]


def original(folder):
    network = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=7)
    network.load_weights(folder / "trained.weights.h5")
    layers = (layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    return [np.asarray(layer.kernel) for layer in layers][:-1]  # the last one is the classifier


def assert_frozen(path, folder):
    for found, expected in zip(kernels(path), original(folder), strict=True):
        np.testing.assert_array_equal(found, expected)


LOADED = (
    "the 54 layers of keras:MobileNet before its classifier are those of trained.weights.h5, which "
    "has 1 more; the classifier, of 2 classes, is new"
)


def test_generations_start_from_a_file(folder, tmp_path, capsys, monkeypatch):
    small_family.register(monkeypatch)
    trained = small_family.small((32, 32, 3), 7, "small")
    trained.save_weights(tmp_path / "small.weights.h5")
    flags = ["--model=small", f"--weights={tmp_path / 'small.weights.h5'}"]
    more = ["--generations=1", "--export=none", "--freeze_epochs=1"]
    assert run(born_again, folder, tmp_path / "run", *flags, *more) == 0
    loaded = LOADED.replace("54 layers of keras:MobileNet", "2 layers of small")
    loaded = loaded.replace("trained.weights.h5", "small.weights.h5")
    assert f"--weights: {loaded}" in capsys.readouterr().err.splitlines()
    expected = np.asarray(trained.get_layer("first").kernel)
    for generation in (0, 1):
        path = tmp_path / "run" / f"generation_{generation}" / "network.keras"
        (kernel,) = kernels(path)
        np.testing.assert_array_equal(kernel, expected)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["given"]) == ["weights", "dataset"]
    # Another file at the same place is not gone on with.
    other = tmp_path / "other" / "small.weights.h5"
    other.parent.mkdir()
    small_family.small((32, 32, 3), 2, "small").save_weights(other)
    flags[1] = f"--weights={other}"
    assert run(born_again, folder, tmp_path / "run", *flags, *more) == 2
    assert "--weights" in capsys.readouterr().err


def test_teacher_starts_from_a_file(folder, tmp_path, capsys):
    flags = ["--teacher=keras:MobileNet", f"--teacher_weights={folder / 'trained.weights.h5'}"]
    flags += ["--student=resnet8", "--export=none", "--teacher_freeze_epochs=1"]
    assert run(distill, folder, tmp_path / "run", *flags) == 0
    assert f"--teacher_weights: {LOADED}" in capsys.readouterr().err.splitlines()
    assert_frozen(tmp_path / "run" / "teacher" / "network.keras", folder)


def test_exits_of_a_trained_network(folder, tmp_path):
    flags = ["--model=keras:MobileNet", f"--weights={folder / 'trained.weights.h5'}"]
    flags += ["--exits=conv_pw_5_relu", "--head_width=8", "--export=none"]
    flags += ["--backbone_learning_rate=1e-9", "--weight_decay=0"]
    assert run(self_distillation, folder, tmp_path / "run", *flags) == 0
    network = keras.models.load_model(tmp_path / "run" / "self_distillation" / "network.keras")
    kernel = network.get_layer("conv1").kernel
    np.testing.assert_allclose(kernel, original(folder)[0], atol=1e-6)
    assert np.any(network.get_layer("logits").bias)


def test_weights_that_do_not_fit(folder, tmp_path, capsys):
    flags = ["--model=keras:MobileNetV2", f"--weights={folder / 'trained.weights.h5'}"]
    assert run(born_again, folder, tmp_path / "run", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--weights must be those of mobilenetv2" in line
    assert "layer " in line
    assert not (tmp_path / "run").exists()


def test_download_that_fails(folder, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://x/y.h5: None -- [Errno -2] Name unknown")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", fail)
    flags = ["--model=keras:MobileNetV2", "--weights=imagenet"]
    assert run(born_again, folder, tmp_path / "run", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("born_again: --weights must be a file where they cannot be downloaded.")
    assert "URL fetch failure" in line
    assert not (tmp_path / "run").exists()
