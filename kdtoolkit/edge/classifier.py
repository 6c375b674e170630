"""The classifier that stops as soon as it is sure."""

import math
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import bounded
from kdtoolkit._checks import Integers, check
from kdtoolkit.data.wording import shown
from kdtoolkit.edge import images, package

_LARGE = 2**31
"""Bytes that a graph's tensors may have together, however small its file is.

All are counted, though LiteRT lets many of them share their memory: it says no more before it
allocates. A ResNet-50 for images of 224x224 has 1.1 GB of them, and a file of 102 MB.
"""


class Prediction(NamedTuple):
    """What a classifier says of an image.

    Attributes:
        label: name of the most probable class.
        index: of that class.
        confidence: its probability at the exit's temperature.
        exit: name of the exit that stopped.
        milliseconds: from the image as it was given to here.
    """

    label: str
    index: int  # type: ignore[assignment]  # a method of tuples, which nobody calls here
    confidence: float
    exit: str
    milliseconds: float


class EarlyExitClassifier:
    """Runs a packaged classifier stage by stage, up to the first exit that is confident enough.

    Exits are tried shallow to deep. One stops when the largest value of
    `softmax(logits / temperature)` reaches its threshold; the last always does. Threads may
    share one object: it classifies an image after another.

    Args:
        path: `.tflite` file that `kdtoolkit.export.to_early_exit` wrote.
        threads: that a stage may use.

    Attributes:
        path: as given.
        labels: class names.
        image_shape: `(height, width, channels)` that the network takes.
        exits: names of the exits, shallow to deep.
        costs: of stopping at each exit, relative to the plain network's, which has no heads.
        operating_points: `OperatingPoint`s, cheapest first.
        temperatures: that divide the exits' logits.
        certificate: what is certified of the operating points, a `Certificate`; or None.

    Raises:
        ValueError: the file cannot be read, is damaged, or is not such a classifier.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1) -> None:
        check("threads", threads, Integers(1))
        self.path = path
        self._lock = threading.Lock()  # of what LiteRT keeps between setting inputs and outputs
        try:
            self._load(threads)
        # LiteRT raises RuntimeError for a graph that this version of it cannot run.
        except (OSError, ValueError, RuntimeError) as error:
            cause = shown(getattr(error, "strerror", None) or str(error).partition("\n")[0], 400)
            raise ValueError(f"Cannot use {os.fspath(path)!r} as a classifier: {cause}") from error

    def _load(self, threads):
        read = package.Package.read(self.path)
        self.labels = read.labels
        self.image_shape = read.image_shape
        self.exits = read.exits
        self.costs = read.costs
        self.operating_points = read.operating_points
        self.certificate = read.certificate
        self.temperatures = read.temperatures
        self.operating_point = read.operating_point
        interpreter = Interpreter(model_path=os.fspath(self.path), num_threads=threads)
        self._stages = [
            interpreter.get_signature_runner(f"stage_{number + 1}")
            for number in range(len(self.exits))
        ]
        # The graph's own shape: a stage would resize itself to any other.
        (details,) = self._stages[0].get_input_details().values()
        if tuple(details["shape"]) != (1, *self.image_shape):
            raise ValueError(f"its image_shape is not that of its graph, {details['shape'][1:]}")
        size = sum(map(_bytes, _tensors(interpreter)))
        most = max(_LARGE, bounded.MOST_EXPANSION * os.path.getsize(self.path))
        if size > most:
            raise ValueError(
                f"its tensors have {size:,} bytes together. Accepted: {most:,}, the larger "
                f"of {_LARGE:,} and {bounded.MOST_EXPANSION} times the size of the file"
            )
        # Each stage allocates its memory on its first run: here, rather than for the first image.
        classes = self.logits(np.zeros(self.image_shape, np.uint8)).shape[1]
        if classes != len(self.labels):
            raise ValueError(f"it has {len(self.labels)} labels, but logits of {classes} classes")

    @property
    def operating_point(self) -> int | None:
        """Index of the operating point in use; None where `thresholds` were set by hand."""
        return self._operating_point

    @operating_point.setter
    def operating_point(self, index: int):
        package.check_index(index, self.operating_points)
        self.thresholds = self.operating_points[index].thresholds
        self._operating_point = index

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Confidence at which each exit but the last stops: 0 always, above 1 never."""
        return self._thresholds[:-1]

    @thresholds.setter
    def thresholds(self, thresholds):
        # The last exit stops whatever it says.
        self._thresholds = (*package.check_thresholds(thresholds, len(self.exits)), 0.0)
        self._operating_point = None

    @overload
    def predict(self, image: np.ndarray) -> Any: ...  # its shape decides

    @overload
    def predict(self, image: Sequence[np.ndarray]) -> list[Prediction]: ...

    def predict(self, image):
        """Classifies an image, or several.

        RGBA is laid over white, colours become grey or grey colours as the network needs, and
        another size is scaled to cover the network's and cut about the centre.

        Args:
            image: uint8 `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels;
                or several: `(n, height, width, channels)`, or a list of images of any sizes.

        Returns:
            A `Prediction`; for several images a list of them.

        Raises:
            ValueError: an image is not a uint8 array of such a shape.
        """
        if isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4:
            return [self._predict(one) for one in image]
        return self._predict(image)

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Runs all stages, whatever the thresholds.

        Args:
            image: one, as for `predict`.

        Returns:
            float32 `(exits, classes)`, not divided by the temperatures.
        """
        with self._lock:
            return np.concatenate(list(self._run(image)))

    def _run(self, image):
        """Yields the logits of exit after exit, `(1, classes)`; a stage runs when asked for."""
        inputs = {"image": images.fit(image, self.image_shape)[None]}
        for stage in self._stages:
            outputs = stage(**inputs)
            yield outputs.pop("logits")
            inputs = outputs

    def _predict(self, image):
        start = time.perf_counter()
        thresholds = self._thresholds
        with self._lock:
            for number, (logits,) in enumerate(self._run(image)):
                index = int(logits.argmax())
                # The softmax of the largest logit; the others are not needed.
                scaled = (logits - logits[index]) / self.temperatures[number]
                confidence = 1 / float(np.exp(scaled).sum())
                if confidence >= thresholds[number]:
                    break
        milliseconds = 1000 * (time.perf_counter() - start)
        return Prediction(self.labels[index], index, confidence, self.exits[number], milliseconds)


def _tensors(interpreter):
    """Details of the tensors of all stages; nothing is allocated for them yet."""
    for subgraph in range(interpreter.num_subgraphs()):
        yield from interpreter.get_tensor_details(subgraph)


def _bytes(tensor):
    return math.prod(map(int, tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
