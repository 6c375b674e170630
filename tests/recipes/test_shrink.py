"""From a classifier to the chosen file, in one command; interrupted, it ends the same."""

import contextlib
import json
import os
import signal

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from PIL import Image

from kdtoolkit import data, files, training
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.recipes import shrink
from kdtoolkit.training import checkpoint, evaluation

DIGITS = ["--train_examples=200", "--batch_size=50", "--epochs=2", "--epochs_from_scratch=2"]


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)


def right(path, images, labels):
    """The share of right decisions of a file, by LiteRT alone."""
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    decided = [runner(image=image[None])["probabilities"][0].argmax() for image in images]
    return np.mean(np.array(decided) == labels)


def results(directory):
    return json.loads((directory / "results.json").read_text())


def assert_chosen(directory, cost, validation, limit):
    """The chosen file keeps the limit, and nothing smaller does; worked out anew."""
    found = results(directory)
    rows = [row for row in found["files_tried"] if row["failure"] is None]
    accuracies = {}
    for row in rows:
        path = directory / row["path"]
        assert row["bytes"] == path.stat().st_size
        if row["candidate"] == "early_exit":
            classifier, (images, labels) = EarlyExitClassifier(path), validation
            decided = [prediction.index for prediction in classifier.predict(list(images))]
            accuracies[row["name"]] = np.mean(np.array(decided) == labels)
        else:
            accuracies[row["name"]] = right(path, *validation)
        assert row["validation_accuracy"] == pytest.approx(accuracies[row["name"]])
    assert rows[0]["name"] == "classifier, float32"
    least = accuracies["classifier, float32"] - limit - 1e-9
    chosen = found["chosen"]
    assert accuracies[chosen["name"]] >= least
    for row in rows:
        assert accuracies[row["name"]] < least or row[cost] >= chosen[cost]
    copy = directory / "export" / "chosen.tflite"
    assert files.sha256(copy) == files.sha256(directory / chosen["path"])
    assert [row["name"] for row in rows if row["chosen"]] == [chosen["name"]]
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """`photos/` of dark ants and bright bees, and weights of a MobileNet of seven classes."""
    path = tmp_path_factory.mktemp("shrink")
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 4)):
        for name, least in (("ant", 0), ("bee", 56)):
            (path / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(least, least + 200, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / "photos" / split / name / f"{index}.png")
    keras.utils.set_random_seed(3)
    network = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=7)
    network.save_weights(path / "trained.weights.h5")
    return path


def test_photos_and_trained_weights(photos, tmp_path, capsys):
    """The classifier is fine-tuned first. It has no stages for exits: a line says so."""
    flags = [f"--dataset={photos / 'photos'}", "--image_size=32", "--model=keras:MobileNet"]
    flags += [f"--weights={photos / 'trained.weights.h5'}", "--epochs=1", "--batch_size=16"]
    flags += ["--freeze_epochs=1", "--candidates=early_exit", "--target=bytes"]
    directory = tmp_path / "run"
    assert shrink.RECIPE.main([*flags, f"--output_dir={directory}"]) == 0
    output = capsys.readouterr().out
    loaded = data.load(str(photos / "photos"), image_size=32)
    found = assert_chosen(directory, "bytes", loaded.validation.spread(2_000), 0.01)
    outcomes = {row["candidate"]: row["outcome"] for row in found["tried"]}
    assert "no layers named stage1" in outcomes["early_exit"]
    assert outcomes["early_exit"] in " ".join(output.split())
    assert found["verdict"] in output
    assert f"Interpreter('{directory}/export/chosen.tflite')" in output
    assert (directory / "export" / "labels.txt").read_text().split() == ["ant", "bee"]
    row = results(directory / "classifier" / "generation_0")
    images, labels = loaded.test.pixels()
    accuracy = right(directory / found["files_tried"][0]["path"], images, labels)
    assert row["test_accuracy"] == pytest.approx(accuracy)
    assert list(found["given"]) == ["weights"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A network with stages, of few channels, that knows something of the digits."""
    digits = data.load("digits")
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="stage1")(image)
    x = layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="stage2")(x)
    x = layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="stage3")(x)
    network = keras.Model(image, layers.Dense(10)(layers.Flatten()(x)), name="small")
    trainer = training.Patriarch(network, "plain")
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    steps = digits.train.steps_per_epoch(50)
    batches = digits.train.epochs(50, seed=0, generation=0, first_epoch=0, epochs=2)
    trainer.fit(batches, epochs=2, steps_per_epoch=steps, verbose=0)
    logits, labels = evaluation.predict(network, digits.validation)
    assert np.mean(logits.argmax(axis=-1) == labels) > 0.5
    path = tmp_path_factory.mktemp("given") / "small.keras"
    network.save(path)
    return path


@contextlib.contextmanager
def interrupted(name):
    """Sends the process what Ctrl-C sends, after the first epoch of a candidate's training."""
    whole = checkpoint.SaveCheckpoints.on_epoch_end

    def stop(self, epoch, logs=None):
        whole(self, epoch, logs)
        if name in str(self.checkpoints.directory) and epoch == 0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.SaveCheckpoints, "on_epoch_end", stop)
        yield


def timeless(found):
    """What must not depend on a clock."""
    varies = ("milliseconds_per_image", "seconds", "on_front", "finished", "sha256", "files")
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in varies}
    return [timeless(each) for each in found] if isinstance(found, list) else found


def test_interrupted_search_ends_as_one_that_was_not(classifier, tmp_path, capsys):
    flags = [*DIGITS, f"--model={classifier}", "--target=bytes", "--max_accuracy_drop=0.1"]
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    assert shrink.RECIPE.main([*flags, f"--output_dir={whole}"]) == 0
    validation = data.load("digits", train_examples=200).validation.spread(2_000)
    found = assert_chosen(whole, "bytes", validation, 0.1)
    candidates = {row["candidate"] for row in found["files_tried"]}
    assert {"quantize", "channels-0.75", "early_exit"} <= candidates
    for name in ("channels-0.75", "early_exit"):
        with interrupted(name):
            assert shrink.RECIPE.main([*flags, f"--output_dir={halted}"]) == 130
        assert "the same command goes on where it stopped" in capsys.readouterr().err
    before = (halted / "quantize" / "candidate.json").read_bytes()
    assert shrink.RECIPE.main([*flags, f"--output_dir={halted}"]) == 0
    assert (halted / "quantize" / "candidate.json").read_bytes() == before
    again = results(halted)
    assert timeless(again["files_tried"]) == timeless(found["files_tried"])
    assert timeless(again["tried"]) == timeless(found["tried"])
    assert timeless(again["chosen"]) == timeless(found["chosen"])
    copies = [files.sha256(run / "export" / "chosen.tflite") for run in (whole, halted)]
    assert copies[0] == copies[1]
