"""Files that stop early, written and run on test images one at a time."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kdtoolkit import models
from kdtoolkit.data import Data
from kdtoolkit.data.pipeline import Split, StreamingSplit
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.export import metadata
from kdtoolkit.export.artefact import Exported
from kdtoolkit.export.early_exit import to_early_exit, to_one_stage
from kdtoolkit.export.parity import ParityError, discard
from kdtoolkit.export.rows import MOST_IMAGES
from kdtoolkit.export.stage_timing import measured_costs

_CALIBRATION_IMAGES = 200
_TIMED_IMAGES = 500
_NEVER_TIMED = 20  # images that warm caches up


@dataclass(frozen=True)
class EarlyExitFile:
    """A file that stops early, run on the test images one at a time.

    Attributes:
        path: of the file.
        quantization: its kind.
        exported: what was written; None for a file that was removed, which has no figures.
        failure: how it differs from the network, in words; None if it does not.
        test_accuracy: fraction of correct decisions.
        milliseconds_per_image: mean over the images, without the first ones.
        mean_exit_cost: mean cost of an image, relative to the plain network's.
        full_test_accuracy, full_milliseconds_per_image: of the network without its exits in a file
            of the same kind, run image by image beside this one; None where that file is wrong.
        not_compared: how that file is wrong, in words; None if it is not.
    """

    path: Path
    quantization: str
    exported: Exported | None = None
    failure: str | None = None
    test_accuracy: float | None = None
    milliseconds_per_image: float | None = None
    mean_exit_cost: float | None = None
    full_test_accuracy: float | None = None
    full_milliseconds_per_image: float | None = None
    not_compared: str | None = None


class Writer:
    """Writes a multi-exit network, and classifiers, as files for `kdtoolkit.edge`.

    Args:
        network: multi-exit network.
        data: of `kdtoolkit.data.load`; training images calibrate integers.
        cost_unit: what the files say that costs are.
        about: name, author and licence, or None.
    """

    def __init__(
        self, network: keras.Model, data: Data, cost_unit: str, about: metadata.About | None
    ) -> None:
        self._network, self._data, self._cost_unit = network, data, cost_unit
        self._about = about
        self._calibration, _ = data.train.spread(_CALIBRATION_IMAGES)

    def exits(self, path: Path, quantization: str = "float32", **decisions: Any) -> Exported:
        """Writes the network; `decisions` are of `to_early_exit`."""
        return self._write(
            to_early_exit, models.stages(self._network), path, quantization, **decisions
        )

    def classifier(
        self, network: keras.Model, path: Path, quantization: str = "float32"
    ) -> Exported:
        """Writes a network without exits, of one stage."""
        return self._write(to_one_stage, network, path, quantization)

    def _write(self, write, network, path, quantization, **decisions):
        return write(
            network,
            path,
            self._data.preprocessing,
            labels=self._data.info.labels,
            cost_unit=self._cost_unit,
            quantization=quantization,
            calibration=self._calibration,
            about=self._about,
            **decisions,
        )


def costs_in_milliseconds(
    writer: Writer, classifiers: Mapping[str, keras.Model], data: Data
) -> tuple[list[float], list[float]]:
    """Returns what exits cost in milliseconds, behind other ones and alone, on validation images.

    Args:
        writer: a `Writer`.
        classifiers: exit -> the network that ends there, shallow to deep.
        data: of `kdtoolkit.data.load`.
    """
    images, _ = data.validation.pixels(_TIMED_IMAGES)
    count = len(classifiers)
    always = {"thresholds": [0.0] * (count - 1), "validation_accuracy": 0.0, "cost": 1.0}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exits.tflite"
        decisions: dict[str, Any] = {"temperatures": [1.0] * count, "costs": [1.0] * count}
        writer.exits(path, **decisions, operating_points=[always])
        network, alone = EarlyExitClassifier(path), []
        for name, classifier in classifiers.items():
            path = Path(scratch) / f"{name}.tflite"
            writer.classifier(classifier, path)
            alone.append(EarlyExitClassifier(path))
        return measured_costs(network, alone, images)


def write_file(
    path: Path,
    quantization: str,
    writer: Writer,
    whole: keras.Model,
    decisions: Mapping[str, Any],
    test: Split | StreamingSplit,
) -> EarlyExitFile:
    """Writes a file and runs it on the test images; returns its `EarlyExitFile`.

    Args:
        path: of the file.
        quantization: its kind.
        writer: a `Writer`.
        whole: the network without its exits, which it is compared with.
        decisions: what the file decides with, as `to_early_exit` takes it.
        test: the split of test images.

    Raises:
        ParityError: a float32 file differs from its network; it is removed.
    """
    if quantization != "float32":  # whose decisions are others than those that were tested
        decisions = {**decisions, "certificate": None}
    try:
        exported = writer.exits(path, quantization, **decisions)
    except ParityError as error:
        discard(path, quantization, error)
        return EarlyExitFile(path, quantization, failure=str(error))
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / f"whole-{quantization}.tflite"
        not_compared = None
        try:
            writer.classifier(whole, alone, quantization)
        except ParityError as error:
            not_compared = str(error)
        early = EarlyExitClassifier(path)
        classifiers = [early] if not_compared else [early, EarlyExitClassifier(alone)]
        predictions, labels = _predict(classifiers, test)
    cost_of = dict(zip(early.exits, decisions["costs"], strict=True))
    accuracy, milliseconds = _figures(predictions[0], labels)
    full = (None, None) if not_compared else _figures(predictions[1], labels)
    return EarlyExitFile(
        path=path,
        quantization=quantization,
        exported=exported,
        test_accuracy=accuracy,
        milliseconds_per_image=milliseconds,
        mean_exit_cost=float(np.mean([cost_of[p.exit] for p in predictions[0]])),
        full_test_accuracy=full[0],
        full_milliseconds_per_image=full[1],
        not_compared=not_compared,
    )


def _predict(classifiers, test):
    """The `Prediction`s of each classifier on the test images, interleaved, and the labels."""
    images, labels = test.spread(MOST_IMAGES)
    predictions = [[] for _ in classifiers]
    for image in images:
        for classifier, own in zip(classifiers, predictions, strict=True):
            own.append(classifier.predict(image))
    return predictions, labels


def _figures(predictions, labels):
    """Accuracy, and mean milliseconds per image."""
    right = [p.index == label for p, label in zip(predictions, labels, strict=True)]
    timed = predictions[min(_NEVER_TIMED, len(predictions) // 2) :]
    return float(np.mean(right)), float(np.mean([p.milliseconds for p in timed]))
