"""The classifier of one graph: an image in, probabilities out."""

import os
import threading
import time
import zipfile
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
    """Runs a classifier of one graph, such as `student.tflite` or a file of `compress`.

    Threads may share one object: they take turns at it.

    Args:
        path: `.tflite` file that `kdtoolkit.export.to_litert` or a recipe wrote.
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
        takes = self._graph.runner.get_input_details()[_INPUT]
        self.image_shape = tuple(map(int, takes["shape"][1:]))
        if takes["dtype"] != np.uint8 or len(self.image_shape) != 3:
            kind = np.dtype(takes["dtype"])
            raise ValueError(f"it takes {kind} {takes['shape']}, not pixels of one image")
        # Real values are (stored - zero) * scale; floats have a scale of 0.
        scale, zero = self._graph.runner.get_output_details()[_OUTPUT]["quantization"]
        self._scale, self._zero = (np.float32(scale), zero) if scale else (np.float32(1), 0)
        # Memory is allocated in the first run: here, rather than for the first image.
        classes = len(self.probabilities(np.zeros(self.image_shape, np.uint8)))
        if classes != len(self.labels):
            raise ValueError(f"it has {len(self.labels)} labels, but {classes} classes")

    @overload
    def predict(self, image: np.ndarray) -> Any: ...  # its shape decides

    @overload
    def predict(self, image: Sequence[np.ndarray]) -> list[Prediction]: ...

    def predict(self, image):
        """Classifies an image, or several.

        Args:
            image: uint8 `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels,
                converted and scaled as by `EarlyExitClassifier.predict`; or several: `(n, height,
                width, channels)`, or a list of images of any sizes.

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
    """Opens any `.tflite` that this package wrote, as the classifier that it is.

    Args:
        path: the file.
        threads: that it may use.

    Raises:
        ValueError: the file cannot be read, or is not such a classifier.
    """
    with opening.blaming(path):
        names, _ = _names(path)
    kind = EarlyExitClassifier if package.EARLY_EXIT in names else Classifier
    return kind(path, threads)


def _names(path):
    """Names of the associated files, and the labels that one of them holds."""
    bounded.check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist(), associated.read_labels(archive)
    except OSError:
        raise
    except Exception as error:  # whatever zipfile and zlib raise for damaged bytes
        cause = str(error) or type(error).__name__
        raise ValueError(
            f"it carries no readable {associated.LABELS}, or is cut short: {cause}"
        ) from error
