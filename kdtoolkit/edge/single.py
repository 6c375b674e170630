"""The classifier of one graph: an image in, probabilities out."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from kdtoolkit import bounded
from kdtoolkit._checks import Integers, check
from kdtoolkit.edge import associated, images, opening, package
from kdtoolkit.edge.classifier import EarlyExitClassifier, Prediction, several
from kdtoolkit.edge.stage import Stage

_SIGNATURE, _INPUT, _OUTPUT = "serving_default", "image", "probabilities"


class Classifier:
    """Runs a classifier of one graph, such as student.tflite or a file of `compress`.

    Threads may share one object: they take turns at it. Such a file has no checksum of its graph:
    damage to weights shows as other probabilities.

    Args:
        path: `.tflite` file that a recipe wrote, or `kdtoolkit.export.to_litert` with `labels`.
        threads: that it may use.

    Attributes:
        path: as given.
        labels: class names.
        image_shape: `(height, width, channels)` that the network takes.

    Raises:
        ValueError: the file cannot be read, or is not such a classifier.
    """

    exit = "network"
    """What a `Prediction` has as the name of the exit: there is one."""

    def __init__(self, path: str | os.PathLike, threads: int = 1) -> None:
        check("threads", threads, Integers(1))
        self.path = path
        self._lock = threading.Lock()  # of what LiteRT keeps between setting inputs and outputs
        with opening.blaming(path):
            self._load(threads)

    def _load(self, threads):
        self.labels = _names(self.path)[1]
        interpreter, _ = opening.open_interpreter(self.path, threads)
        found = interpreter.get_signature_list().get(_SIGNATURE, {})
        if found != {"inputs": [_INPUT], "outputs": [_OUTPUT]}:
            raise ValueError(f"it has no signature {_SIGNATURE} from {_INPUT} to {_OUTPUT}")
        self._graph = Stage(interpreter, _SIGNATURE)
        self.image_shape = _image_shape(self._graph.runner.get_input_details()[_INPUT])
        self._scale, self._zero = _quantization(self._graph.runner.get_output_details()[_OUTPUT])
        # Memory is allocated in the first run: here, rather than for the first image.
        black = np.zeros((1, *self.image_shape), np.uint8)
        shape, accepted = np.shape(self._graph(image=black)[_OUTPUT]), (1, len(self.labels))
        if shape != accepted:
            raise ValueError(
                f"its {_OUTPUT} must have the shape {accepted}, one for each label. "
                f"Received: {shape}"
            )

    @overload
    def predict(self, image: np.ndarray) -> Any: ...  # its shape decides

    @overload
    def predict(self, image: Sequence[np.ndarray]) -> list[Prediction]: ...

    def predict(self, image):
        """Classifies an image, or several.

        Args:
            image: uint8 `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels,
                converted and scaled as by `EarlyExitClassifier.predict`; or several: `(n, height,
                width, channels)`, or a list of images of any sizes. A network of other channels
                takes images of `image_shape` alone.

        Returns:
            A `Prediction`, whose `exit` is `"network"`; for several images a list of them.

        Raises:
            ValueError: an image is not a uint8 array of such a shape.
        """
        if several(image):
            return [self.predict(each) for each in image]
        start = time.perf_counter()
        probabilities = self.probabilities(image)
        index = int(probabilities.argmax())
        milliseconds = 1000 * (time.perf_counter() - start)
        confidence = float(probabilities[index])
        return Prediction(self.labels[index], index, confidence, self.exit, milliseconds)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Runs the network on an image, as for `predict`.

        Returns:
            float32 `(classes,)`.
        """
        pixels = images.fit(image, self.image_shape)[None]
        with self._lock:
            (stored,) = self._graph(image=pixels)[_OUTPUT]
            return (stored.astype(np.float32) - self._zero) * self._scale


def load(path: str | os.PathLike, threads: int = 1) -> EarlyExitClassifier | Classifier:
    """Opens a `.tflite` of either kind as the classifier that it is.

    Args:
        path: file for a `Classifier` or an `EarlyExitClassifier`.
        threads: that it may use.

    Raises:
        ValueError: the file cannot be read, or is not such a classifier.
    """
    with opening.blaming(path):
        names, _ = _names(path)
    kind = EarlyExitClassifier if package.EARLY_EXIT in names else Classifier
    return kind(path, threads)


def _image_shape(takes):
    """`(height, width, channels)` that an input takes, from LiteRT's details of it."""
    # Sizes that are not fixed are -1 there, and 1 in "shape".
    shape, kind = tuple(map(int, takes["shape_signature"])), np.dtype(takes["dtype"])
    if kind != np.uint8 or len(shape) != 4 or min(shape[1:]) < 1:
        raise ValueError(
            f"its {_INPUT} must be uint8 (1, height, width, channels). Received: {kind} {shape}"
        )
    return shape[1:]


def _quantization(returns):
    """Scale and zero point of an output: its real values are (stored - zero point) * scale."""
    kind, (scale, zero) = np.dtype(returns["dtype"]), returns["quantization"]
    if kind == np.float32:
        return np.float32(1), 0
    if kind not in (np.uint8, np.int8) or not scale:
        raise ValueError(
            f"its {_OUTPUT} must be float32, or uint8 or int8 with a scale. "
            f"Received: {kind}, scale {scale}"
        )
    return np.float32(scale), zero


def _names(path):
    """Names of the associated files, and the labels that one of them holds."""
    bounded.check_regular(path)
    with open(path, "rb") as file, associated.opened(file, associated.LABELS) as archive:
        return archive.namelist(), associated.read_labels(archive)
