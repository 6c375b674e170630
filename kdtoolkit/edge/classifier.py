"""The classifier that stops as soon as it is sure."""

import functools
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from kdtoolkit._checks import Integers, check
from kdtoolkit.edge import images, opening, package
from kdtoolkit.edge.stage import Stage

_FEW, _AT_ONCE, _SMALL = 4, 32, 2**21
"""From how many images on a stage runs on how many at once, of a graph whose tensors have so few
bytes for each thread.

What a run of a stage costs whatever it runs on is a part of its time only where that is short, or
where there is too little for several threads to do. See `benchmarks/edge_latency.py`.
"""


class Prediction(NamedTuple):
    """What a classifier says of an image.

    Attributes:
        label: name of the most probable class.
        index: of that class.
        confidence: its probability at the exit's temperature.
        exit: name of the exit that stopped.
        milliseconds: from the image as it was given to here; of several that were given together,
            its share: what a stage took, over the images that it ran on.
    """

    label: str
    index: int  # type: ignore[assignment]  # a method of tuples, which nobody calls here
    confidence: float
    exit: str
    milliseconds: float


class EarlyExitClassifier:
    """Runs a packaged classifier stage by stage, up to the first exit that is confident enough.

    Exits are tried shallow to deep. One stops when the largest value of
    `softmax(logits / temperature)` reaches its threshold; the last always does. Of several images a
    stage runs on those that no stage before was sure of. Threads may share one object: they take
    turns at it.

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
        with opening.blaming(path):
            self._load(threads)

    def _load(self, threads):
        read = package.Package.read(self.path)
        self.labels = read.labels
        self.image_shape = read.image_shape
        self.exits = read.exits
        self.costs = read.costs
        self.operating_points = read.operating_points
        self.certificate = read.certificate
        self.temperatures = read.temperatures
        # NumPy divides by an array faster than by a number.
        self._divisors = [np.array(value, np.float32) for value in read.temperatures]
        self.operating_point = read.operating_point
        interpreter, size = opening.open_interpreter(self.path, threads)
        self._stages = [
            Stage(interpreter, f"stage_{number + 1}") for number in range(len(self.exits))
        ]
        # The graph's own shape: a stage would resize itself to any other.
        (details,) = self._stages[0].runner.get_input_details().values()
        if tuple(details["shape"]) != (1, *self.image_shape):
            raise ValueError(f"its image_shape is not that of its graph, {details['shape'][1:]}")
        # Each stage allocates its memory on its first run: here, rather than for the first image.
        classes = self.logits(np.zeros(self.image_shape, np.uint8)).shape[1]
        if classes != len(self.labels):
            raise ValueError(f"it has {len(self.labels)} labels, but logits of {classes} classes")
        self._is_small = size <= _SMALL * threads

    @property
    def operating_point(self) -> int | None:
        """Index of the operating point in use; None where `thresholds` were set by hand."""
        return self._operating_point

    @operating_point.setter
    def operating_point(self, index: int):
        index = package.check_index(index, self.operating_points)
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
            A `Prediction`; for several images a list of them, the same as one at a time.

        Raises:
            ValueError: an image is not a uint8 array of such a shape.
        """
        if not several(image):
            return self._predict(image, self._thresholds)
        predictions, thresholds = [], self._thresholds
        for some in self._parts(image):
            predictions += self._predict_several(some, thresholds)
        return predictions

    def logits(self, image: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Runs all stages, whatever the thresholds.

        Args:
            image: one or several, as for `predict`.

        Returns:
            float32 `(exits, classes)`, not divided by the temperatures; of several images
            `(n, exits, classes)`.
        """
        if not several(image):
            return self._logits([image])[0]
        parts = [self._logits(some) for some in self._parts(image)]
        empty = np.empty((0, len(self.exits), len(self.labels)), np.float32)
        return np.concatenate([empty, *parts])

    def _parts(self, images):
        """Yields as many of the images as a stage can take at once."""
        most = self._most_at_once if len(images) >= _FEW else 1
        for start in range(0, len(images), most):
            yield images[start : start + most]

    @functools.cached_property
    def _most_at_once(self):
        """One for a graph of one image alone, such as one that flattens its features."""
        if not self._is_small:
            return 1
        noise = np.random.default_rng(0).integers(0, 256, (2, *self.image_shape), np.uint8)
        single = np.concatenate([self._logits([image]) for image in noise])
        try:
            same = np.allclose(self._logits(noise), single, rtol=1e-5, atol=1e-5)
        except (RuntimeError, ValueError):  # of LiteRT, and of shapes that do not fit
            same = False
        return _AT_ONCE if same else 1

    def _logits(self, some):
        """float32 `(n, exits, classes)` of images that a stage takes at once."""
        with self._lock:
            inputs, logits = self._inputs(some), []
            for stage in self._stages:
                inputs = stage(**inputs)
                logits.append(inputs.pop("logits"))
            return np.stack(logits, axis=1)  # a copy: another thread's run writes to the stages'

    def _inputs(self, some):
        return {"image": np.stack([images.fit(image, self.image_shape) for image in some])}

    def _predict(self, image, thresholds):
        start = time.perf_counter()
        inputs = {"image": images.fit(image, self.image_shape)[None]}
        with self._lock:
            for number, stage in enumerate(self._stages):
                inputs = stage(**inputs)
                (logits,) = inputs.pop("logits")
                index = int(logits.argmax())
                # The softmax of the largest logit; the others are not needed.
                powers = logits - logits[index]
                powers /= self._divisors[number]
                confidence = 1 / float(np.add.reduce(np.exp(powers, out=powers)))
                if confidence >= thresholds[number]:
                    break
        milliseconds = 1000 * (time.perf_counter() - start)
        return Prediction(self.labels[index], index, confidence, self.exits[number], milliseconds)

    def _predict_several(self, some, thresholds):
        """The same as `_predict`, of images that a stage takes at once."""
        if len(some) == 1:
            return [self._predict(some[0], thresholds)]
        start, share = time.perf_counter(), 0.0
        predictions = [None] * len(some)
        unsure, last = np.arange(len(some)), len(self.exits) - 1
        inputs = self._inputs(some)
        with self._lock:
            for number, stage in enumerate(self._stages):
                inputs = stage(**inputs)
                logits = inputs.pop("logits")
                indices = logits.argmax(axis=-1)
                powers = logits - logits.max(axis=-1, keepdims=True)
                powers /= self._divisors[number]
                np.exp(powers, out=powers)
                confidences = 1 / powers.sum(axis=-1).astype(np.float64)
                stops = (confidences >= thresholds[number]) | (number == last)
                now = time.perf_counter()
                share += 1000 * (now - start) / len(unsure)
                start = now
                for image, index, confidence in zip(
                    *(values[stops].tolist() for values in (unsure, indices, confidences)),
                    strict=True,
                ):
                    label, name = self.labels[index], self.exits[number]
                    predictions[image] = Prediction(label, index, confidence, name, share)
                unsure = unsure[~stops]
                if not len(unsure):
                    break
                inputs = {name: values[~stops] for name, values in inputs.items()}
        return predictions


def several(image: object) -> bool:
    """Whether these are several images: a list of them, or an array of four axes."""
    return isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4
