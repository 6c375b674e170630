"""How sure a network is: its scores by rank, and how they grow over the generations."""

from collections.abc import Sequence

import numpy as np

from kdtoolkit._checks import FRACTION, check
from kdtoolkit.edge.decisions import class_indices, log_probabilities


def sorted_confidences(logits: np.ndarray) -> np.ndarray:
    """Returns the mean of the largest score, of the second largest, and so on to the smallest.

    Yang et al. (AAAI 2019) call it the energy of the classes, and look at that of training images.

    Args:
        logits: `(n, classes)`.

    Returns:
        float64 `(classes,)`, which falls and sums to 1.
    """
    scores = np.exp(log_probabilities(logits))
    return np.sort(scores, axis=-1)[:, ::-1].mean(axis=0)


def true_score(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean score of the true class.

    Args:
        logits: `(n, classes)`.
        labels: class indices `(n,)`.
    """
    log_f = log_probabilities(logits)
    labels = class_indices(labels, *log_f.shape)
    return float(np.exp(log_f[np.arange(len(labels)), labels]).mean())


def expected_true_scores(first: float, weights: Sequence[float]) -> list[float]:
    """Returns what the mean score of the true class is at the optimum of every generation.

    A student of Eqn 4 of Yang et al. (AAAI 2019), at temperature 1, has its optimum at the mixture
    `(1 - lambda) onehot(y) + lambda p` of the label and its teacher's scores p, so that

        1 - f_g = lambda_g (1 - f_{g-1}),    1 - f_g = lambda^g (1 - f_0) for one lambda

    on the images that it learns from, as it sees them. A network that has not reached its optimum,
    or whose weights decay, is elsewhere.

    Args:
        first: mean score of the true class of the patriarch, in [0, 1].
        weights: lambda of each student, in [0, 1].

    Returns:
        One score for each generation, the patriarch's included.

    Raises:
        ArgumentError: an argument is outside its range.
    """
    check("first", first, FRACTION)
    scores = [float(first)]
    for weight in weights:
        check("weights", weight, FRACTION)
        scores.append(1 - float(weight) * (1 - scores[-1]))
    return scores
