"""What early exit decides, from logits: NumPy alone."""

from collections.abc import Sequence

import numpy as np


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the log-softmax over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


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
    confidence = np.exp(log_f.max(-1))
    stops = confidence >= np.array([*thresholds, 0.0])[:, None]
    taken = stops.argmax(axis=0)  # the first that stops
    return log_f.argmax(-1)[taken, np.arange(log_f.shape[1])], taken
