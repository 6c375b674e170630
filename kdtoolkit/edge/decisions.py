"""What early exit decides, from logits: NumPy alone."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdtoolkit._checks import ArgumentError, Words


def class_indices(
    values: Any, images: int, classes: int | None = None, argument: str = "labels"
) -> np.ndarray:
    """Returns the classes of images as `(images,)`; given as `(images, 1)` too, as Keras has them.

    Args:
        values: integers, as an array or what becomes one.
        images, classes: how many there are; None of any number of classes.
        argument: the name that the values have where they were passed.

    Raises:
        ArgumentError: there is not one for each image, or one is no class.
    """
    found = np.asarray(values)
    shaped = found.shape in ((images,), (images, 1)) and np.issubdtype(found.dtype, np.integer)
    most = math.inf if classes is None else classes - 1
    if not shaped or (images and (found.min() < 0 or found.max() > most)):
        received = f"{found.dtype} {found.shape}"
        if shaped:
            received = f"from {found.min()} to {found.max()}"
        upwards = "upwards" if classes is None else f"to {most}"
        accepted = f"{images} integers from 0 {upwards}, a class for each image"
        raise ArgumentError(argument, accepted, Words(received))
    return found.reshape(-1)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the log-softmax over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def confidences(log_f: np.ndarray) -> np.ndarray:
    """Returns how sure devices are: the largest probability, one over a sum of float32.

    What is above `1 - 2^-24` is 1 there, and stops at every threshold up to 1.

    Args:
        log_f: of `log_probabilities`, `(..., classes)`.

    Returns:
        float64 `(...)`.
    """
    return 1 / np.exp(-log_f.max(-1)).astype(np.float32).astype(np.float64)


def decide(
    logits: Sequence[np.ndarray], temperatures: Sequence[float], thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what early exit with the given thresholds says of images.

    Args:
        logits: one `(n, classes)` for each exit.
        temperatures: of the exits.
        thresholds: of the exits but the last.

    Returns:
        `(decisions, exits)`, int `(n,)` each: class indices, and indices of the exits that stop.
    """
    log_f = np.stack([log_probabilities(z / t) for z, t in zip(logits, temperatures, strict=True)])
    stops = confidences(log_f) >= np.array([*thresholds, 0.0])[:, None]
    taken = stops.argmax(axis=0)  # the first that stops
    return log_f.argmax(-1)[taken, np.arange(log_f.shape[1])], taken
