"""How strongly a patriarch is softened, stated as the primary score it ends with.

Each softened loss has one minimum over free logits, in which the primary score, the largest
probability, takes a value that depends on the loss' strength alone. These functions go from one to
the other in plain floats, so that tolerant, smoothed and penalised patriarchs compare at the same
primary score. They need neither Keras nor TensorFlow: command lines check their flags with them.
"""

import math

from kdtoolkit._checks import FRACTION, ArgumentError

PATRIARCHS = ("tolerant", "label_smoothing", "confidence_penalty", "plain")
"""Kinds of a `kdtoolkit.training.Patriarch`; here, since a command line checks them."""

TOP_K = 5
"""Number of scores that a tolerant loss compares, where there are as many classes."""

NORMALIZATIONS = ("l2", "l1")
"""What `focal_weights` divides logits by; here, since a command line checks it."""


def eta_from_primary_score(primary_score: float, top_k: int = 5) -> float:
    """Returns the `eta` of Yang et al. 2019, Eqn 3, whose optimum has this primary score.

    `eta = (K - 1) / (K - 1 + K f)`: minimise Eqn 3 with `f` on the true class and `1 - f` shared by
    the other `K - 1` of the top `K`. At `primary_score=1` the value is the largest `eta` that does
    not soften at all.

    Args:
        primary_score: the wanted largest probability, in `(1 / top_k, 1]`.
        top_k: `K`, the number of scores that the loss compares, at least 2.

    Raises:
        ValueError: an argument is outside its range.
    """
    _check_top_k(top_k)
    _check_primary_score(primary_score, top_k)
    return (top_k - 1) / (top_k - 1 + top_k * primary_score)


def primary_score_from_eta(eta: float, top_k: int = 5) -> float:
    """Returns the primary score at the optimum of Eqn 3: the inverse of `eta_from_primary_score`.

    `clip((1 - eta)(K - 1) / (eta K), 1 / K, 1)`: up to `eta = (K-1)/(2K-1)` nothing softens, from
    `eta = (K-1)/K` on the top `K` scores are equal.

    Raises:
        ValueError: `eta` is outside [0, 1], or `top_k` is below 2.
    """
    _check_top_k(top_k)
    if not 0 <= eta <= 1:
        raise ArgumentError("eta", FRACTION, eta)
    if eta == 0:
        return 1.0
    return min(max((1 - eta) * (top_k - 1) / (eta * top_k), 1 / top_k), 1.0)


def epsilon_from_primary_score(primary_score: float, classes: int) -> float:
    """Returns the label smoothing `epsilon = (1 - f) C / (C - 1)` whose optimum is `f`.

    Raises:
        ValueError: `primary_score` is outside `(1 / classes, 1]`.
    """
    _check_primary_score(primary_score, classes)
    return (1 - primary_score) * classes / (classes - 1)


def beta_from_primary_score(primary_score: float, classes: int) -> float:
    """Returns the confidence penalty `beta = 1 / (f ln(f (C - 1) / (1 - f)))` whose optimum is `f`.

    Raises:
        ValueError: `primary_score` is outside `(1 / classes, 1]`.
    """
    _check_primary_score(primary_score, classes)
    if primary_score == 1:
        return 0.0
    odds = primary_score * (classes - 1) / (1 - primary_score)
    return 1 / (primary_score * math.log(odds))


def _check_top_k(top_k):
    if top_k < 2:
        raise ArgumentError("top_k", "at least 2", top_k)


def _check_primary_score(primary_score, scores):
    if not 1 / scores < primary_score <= 1:
        raise ArgumentError("primary_score", f"in (1/{scores}, 1]", primary_score)
