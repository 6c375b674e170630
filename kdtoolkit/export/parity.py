"""Runs what was exported, and compares it with the network it came from."""

import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit.export.classifier import trace
from kdtoolkit.export.quiet import quiet

TOLERANCES = {
    # Other orders of summation: 1e-6 is usual, and grows with the logits.
    "float32": 1e-4,
    # A weight is off by up to 2^-11 of itself and a logit of 10 by some 1e-3; the softmax passes
    # on at most a quarter of the difference of two.
    "float16": 1e-2,
    # Weights and activations are off by up to 1/254 of their largest, which moves a logit by some
    # per cent of the logits' range: an image between two classes can change sides. A wrong
    # preprocessing or a lost layer is off by nearly 1 on some image.
    "dynamic_range": 0.3,
    # The same rounding; ranges were fixed beforehand, and what lies outside them is cut off.
    "int8": 0.3,
    # Normalised pixels and probabilities are rounded too, by up to 1/510 of their range: little.
    "uint8": 0.3,
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
        test_accuracy: fraction of correct top-1 decisions of the exported network; None without
            labels.
        milliseconds_per_image: median time for one image on its own; LiteRT runs on one thread.
    """

    max_difference: float
    test_accuracy: float | None
    milliseconds_per_image: float


def check(exported, network, preprocessing, images, labels=None, tolerance=None):
    """Runs an export on images and compares its probabilities with the network's.

    Both run on the CPU, where the exported network will: a GPU multiplies in lower precision.

    Args:
        exported: an `Exported`.
        network: the Keras model that was exported.
        preprocessing: as it was given to the export.
        images: uint8 `(n, height, width, channels)`, at least one.
        labels: class indices `(n,)`, or None.
        tolerance: largest difference of a probability that passes; by default that of
            `TOLERANCES` for the quantisation.

    Returns:
        A `Parity`.

    Raises:
        ParityError: a probability differs by more than `tolerance`, or is not a number.
        ValueError: `images` are not uint8 images.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(
            "Argument `images` must be uint8 images of shape (n, height, width, channels). "
            f"Received: {images.dtype}, shape {images.shape}"
        )
    tolerance = TOLERANCES[exported.quantization] if tolerance is None else tolerance
    run, batch = _RUNNERS[exported.format](exported.path)
    expected = _in_batches(_reference(network, preprocessing), images, _BATCH)
    probabilities = _in_batches(run, images, batch)
    difference = float(np.max(np.abs(probabilities - expected)))
    if not difference <= tolerance:  # NaN is not
        raise ParityError(
            f"{exported.path} ({exported.quantization}) differs from network {network.name!r} by "
            f"{difference:.3g} in a probability; the tolerance is {tolerance:.3g}"
        )
    accuracy = None
    if labels is not None:
        accuracy = float(np.mean(probabilities.argmax(axis=-1) == np.asarray(labels)))
    return Parity(difference, accuracy, _milliseconds(run, images))


def _reference(network, preprocessing):
    with tf.device("CPU:0"):
        function = trace(network, preprocessing)
    return lambda images: function(tf.constant(images))["probabilities"].numpy()


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


def _milliseconds(run, images):
    run(images[:1])
    seconds = []
    for index in range(_TIMED):
        image = images[index % len(images)][None]
        start = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds) * 1e3)
