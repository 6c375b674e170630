"""Runs what was exported, and compares it with the network it came from."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import files
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network, PathLike
from kdtoolkit.edge.decisions import class_indices
from kdtoolkit.export.artefact import Exported
from kdtoolkit.export.classifier import trace_logits
from kdtoolkit.export.quiet import quiet


@dataclass(frozen=True)
class Tolerance:
    """How far from its network an exported one may be.

    Attributes:
        max_difference: of any probability of any image.
        mean_difference: mean over images of an image's largest difference.
        logit_share: how far each logit of an image may be off, as a share of the largest; what that
            can do to a probability is accepted too, of single images.
    """

    max_difference: float
    mean_difference: float
    logit_share: float = 0.0

    def excess(self, differences: np.ndarray, largest_logits: np.ndarray) -> str | None:
        """Says by how much an export is too far off; None if it is not.

        Args:
            differences: the largest difference of a probability of each image, `(n,)`.
            largest_logits: the largest absolute logit of each image, `(n,)`. What their rounding
                to float32 explains is accepted besides.
        """
        largest = np.asarray(largest_logits, np.float64)
        rounding = np.minimum(_ROUNDING * largest, _MOST_ROUNDING)
        # Two logits that are off by x each, one up, one down, move a probability by tanh(x / 2).
        of_one = np.maximum(self.max_difference, np.tanh(self.logit_share * largest / 2))
        for of, accepted, what in (
            (np.max, of_one + rounding, "in a probability"),
            (np.mean, self.mean_difference + rounding, "in the mean over images"),
        ):
            if not of(differences - accepted) <= 0:  # NaN is not
                worst = np.argmax(differences - accepted) if of is np.max else slice(None)
                found, limit = of(differences[worst]), of(accepted[worst])
                return f"by {found:.3g} {what}; the tolerance is {limit:.3g}"
        return None


# Two right float32 computations of a logit differ by some units in its last place: 2^-23 of it and
# less each. Eight of them between two logits move a probability by at most a quarter of that. Seen
# with logits of 1,400: 1.1e-4, each computation within 7.4e-5 of one in float64.
_ROUNDING = 2.0**-22
# Logits so large that more than that is noise decide nothing.
_MOST_ROUNDING = 1e-2


# Rounding to 8 bits moves a logit by some per cent of the logits' range, here and there an image
# between two classes by more than most, and all others by little: int8 files of resnet8, wrn-10-1
# and vgg8-w16, trained for one or six epochs, were off by 0.008 in the mean and by 0.06 at most on
# 597 digits. Networks that are sure of what they have seen have large logits: of two ResNet-20 that
# fit 2,500 images of CIFAR-100, with logits of 8 and 15 in the median, int8 files were off by 0.03
# in the mean and by 0.53 at most on 3,000 and 10,000 others, which is 0.06 of an image's largest
# logit. A channel that has lost its range, a lost layer or a wrong preprocessing spoils the mean.
_EIGHT_BITS = Tolerance(0.5, 0.05, logit_share=0.1)
TOLERANCES = {
    # Other orders of summation, while logits are small: 1e-6 is usual.
    "float32": Tolerance(1e-4, 1e-4),
    # A weight is off by up to 2^-11 of itself and a logit of 10 by some 1e-3; the softmax passes
    # on at most a quarter of the difference of two.
    "float16": Tolerance(1e-2, 1e-2),
    # Weights and activations are off by up to 1/254 of their largest.
    "dynamic_range": _EIGHT_BITS,
    # Sixteen times as coarse, in weights alone: files of a resnet8 were off by 0.02 in the mean on
    # digits, of two ResNet-20 by 0.14 and 0.22 on 600 images of CIFAR-100, where they lost five
    # points. A file that is wrong, of which nothing is left, would be off by about the largest
    # probability.
    "int4": Tolerance(1.0, 0.35),
    # The same rounding; ranges were fixed beforehand, and what lies outside them is cut off.
    "int8": _EIGHT_BITS,
    # What is rounded is rounded as in int8.
    "mixed": _EIGHT_BITS,
    # Normalised pixels and probabilities are rounded too, by up to 1/510 of their range: little.
    "uint8": _EIGHT_BITS,
}
_BATCH = 256
_TIMED = 50


class ParityError(ValueError):
    """An exported network does not compute what the network computes."""


@dataclass(frozen=True)
class Parity:
    """What running an exported network showed.

    Attributes:
        max_difference: largest difference of a probability from the network's, over all images.
        mean_difference: mean over images of an image's largest difference.
        agreement: fraction of images that both decide alike.
        failure: what exceeds the tolerance of the kind of file, in words; None if nothing does.
        test_accuracy: fraction of correct top-1 decisions of the exported network; None without
            labels.
        milliseconds_per_image: median time for one image on its own; LiteRT runs on one thread.
    """

    max_difference: float
    mean_difference: float
    agreement: float
    failure: str | None
    test_accuracy: float | None
    milliseconds_per_image: float


def measure(
    exported: Exported,
    network: Network,
    preprocessing: Callable[[Any], Any] | None,
    images: np.ndarray,
    labels: np.ndarray | None = None,
) -> Parity:
    """Runs an export on images and compares its probabilities with the network's.

    Both run on the CPU, where the exported network will: a GPU multiplies in lower precision.

    Args:
        exported: an `Exported`.
        network: the Keras model that was exported.
        preprocessing: as it was given to the export.
        images: uint8 `(n, height, width, channels)`, at least one.
        labels: class indices `(n,)`, or None.

    Returns:
        A `Parity`. Its `failure` is None where the export keeps the `TOLERANCES` of its kind.

    Raises:
        ValueError: `images` are not uint8 images, or `labels` not their classes.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        accepted = "uint8 images of shape (n, height, width, channels)"
        received = Words(f"{images.dtype}, shape {images.shape}")
        raise ArgumentError("images", accepted, received)
    if labels is not None:
        labels = class_indices(labels, len(images), network.output_shape[-1])
    run, batch = runner(exported.path, exported.format)
    logits = _in_batches(_reference(network, preprocessing), images, _BATCH)
    expected = tf.nn.softmax(logits).numpy()
    probabilities = _in_batches(run, images, batch)
    differences = np.max(np.abs(probabilities - expected), axis=-1)
    largest = np.max(np.abs(logits), axis=-1)
    excess = TOLERANCES[exported.quantization].excess(differences, largest)
    decisions = probabilities.argmax(axis=-1)
    return Parity(
        max_difference=float(np.max(differences)),
        mean_difference=float(np.mean(differences)),
        agreement=float(np.mean(decisions == expected.argmax(axis=-1))),
        failure=excess and f"differs from network {network.name!r} {excess}",
        test_accuracy=None if labels is None else float(np.mean(decisions == labels)),
        milliseconds_per_image=milliseconds_per_image(run, images),
    )


def check(
    exported: Exported,
    network: Network,
    preprocessing: Callable[[Any], Any] | None,
    images: np.ndarray,
    labels: np.ndarray | None = None,
) -> Parity:
    """As `measure`, for an export that must be right.

    Raises:
        ParityError: a probability is not a number, or differs by more than the `TOLERANCES`.
        ValueError: `images` are not uint8 images, or `labels` not their classes.
    """
    parity = measure(exported, network, preprocessing, images, labels)
    if parity.failure:
        raise ParityError(f"{exported.path} ({exported.quantization}) {parity.failure}")
    return parity


def runner(path: PathLike, format: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Returns what runs an exported network, on the CPU, and LiteRT's files on one thread.

    Args:
        path: of an `Exported`.
        format: its own.

    Returns:
        `(run, most)`: a function of uint8 images `(n, height, width, channels)`, at most so many,
        that returns their probabilities, float32 `(n, classes)`.
    """
    return _RUNNERS[format](path)


def probabilities(path: PathLike, format: str, images: np.ndarray) -> np.ndarray:
    """Returns what an exported network says of images, float32 `(n, classes)`; see `runner`."""
    run, most = runner(path, format)
    return _in_batches(run, images, most)


def decisions(path: PathLike, format: str, images: np.ndarray) -> np.ndarray:
    """Returns the classes, int `(n,)`, that an exported network decides for; see `runner`."""
    return probabilities(path, format, images).argmax(axis=-1)


def milliseconds_per_image(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> float:
    """Returns the median time for one image on its own, of 50 runs after a first one.

    Args:
        run: of `runner`.
        images: uint8 `(n, height, width, channels)`, at least one; they take turns.
    """
    run(images[:1])
    seconds = []
    for index in range(_TIMED):
        image = images[index % len(images)][None]
        start = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds) * 1e3)


def discard(path: Path, quantization: str, error: ParityError) -> None:
    """Removes a file that does not compute what its network computes.

    Raises:
        ParityError: the `error`, for a file of float32, where nothing was rounded: a conversion
            that is wrong.
    """
    files.remove(path)
    if quantization == "float32":
        raise error


def _reference(network, preprocessing):
    with tf.device("CPU:0"):
        function = trace_logits(network, preprocessing)
    return lambda images: function(tf.constant(images)).numpy()


def _saved_model(path):
    with tf.device("CPU:0"):
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]

    def run(images):
        with tf.device("CPU:0"):
            return signature(image=tf.constant(images))["probabilities"].numpy()

    return run, _BATCH


def _litert(path):
    with quiet():
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner("serving_default")

    details = runner.get_output_details()["probabilities"]
    scale, zero_point = details["quantization"]

    def run(images):
        probabilities = runner(image=images)["probabilities"]
        if details["dtype"] == np.float32:
            return probabilities
        return (np.float32(probabilities) - zero_point) * scale

    return run, 1


def _keras(path):
    network = keras.models.load_model(path, compile=False)

    def run(images):
        with tf.device("CPU:0"):
            return network.predict_on_batch(images)

    return run, _BATCH


_RUNNERS = {"saved_model": _saved_model, "litert": _litert, "keras": _keras}


def _in_batches(run, images, batch):
    return np.concatenate(
        [run(images[start : start + batch]) for start in range(0, len(images), batch)]
    )
