"""Whether a network is right as often as it is sure."""

import numpy as np

from kdtoolkit._checks import Integers, check
from kdtoolkit.analysis.numbers import Calibration, Reliability
from kdtoolkit.edge.decisions import class_indices, log_probabilities
from kdtoolkit.export import thresholds


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Returns confidence against accuracy (Guo et al., ICML 2017, section 2).

    Args:
        logits: `(n, classes)`.
        labels: class indices `(n,)`.
        bins: of equal width, from 0 to 1.

    Raises:
        ArgumentError: `bins` is no positive integer.
    """
    check("bins", bins, Integers(1))
    log_f = log_probabilities(logits)
    labels = class_indices(labels, *log_f.shape)
    confidence, right = np.exp(log_f.max(axis=-1)), log_f.argmax(axis=-1) == labels
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidences, accuracies = (
            np.bincount(places, values, minlength=bins) / counts for values in (confidence, right)
        )
    gaps = np.abs(confidences - accuracies)[counts > 0]
    error = float(gaps @ counts[counts > 0] / len(right))
    return Reliability(counts, confidences, accuracies, error)


def temperature_scaling(
    logits: np.ndarray,
    labels: np.ndarray,
    held_out_logits: np.ndarray,
    held_out_labels: np.ndarray,
    bins: int = 15,
) -> Calibration:
    """Returns the reliability before and after the temperature that suits held-out images best.

    Args:
        logits, labels: `(n, classes)` and `(n,)`, of the images that are looked at.
        held_out_logits, held_out_labels: likewise, of the validation images that fit it.
        bins: of `reliability`.
    """
    temperature = thresholds.calibrate(held_out_logits, held_out_labels)
    return Calibration(
        temperature,
        reliability(logits, labels, bins),
        reliability(np.asarray(logits, np.float64) / temperature, labels, bins),
    )
