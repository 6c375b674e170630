"""How strongly a patriarch is softened, stated as the primary score it ends with.

Each softened loss has one minimum over free logits, in which the primary score, the largest
probability, takes a value that depends on the loss' strength alone. These functions go from one to
the other in plain floats, so that tolerant, smoothed and penalised patriarchs compare at the same
primary score. They need neither Keras nor TensorFlow: command lines check their flags with them.
"""

import math
from typing import Any

from kdtoolkit._checks import FRACTION, INSIDE_0_1, ArgumentError, Integers, check

PATRIARCHS = ("tolerant", "label_smoothing", "confidence_penalty", "plain")
"""Kinds of a `kdtoolkit.training.Patriarch`; here, since a command line checks them."""

TOP_K = 5
"""Number of scores that a tolerant loss compares, where there are as many classes."""

NORMALIZATIONS = ("l2", "l1")
"""What `focal_weights` divides logits by; here, since a command line checks it."""

ADAPTIVE = "adaptive"
"""The `top_k` that every sample has a K of its own with; see `adaptive_top_k`."""

TOP_K_SHARE = 0.01
"""The usual `top_k_share` of `adaptive_top_k`."""


def usual_top_k(classes: int | None) -> int:
    """Returns how many scores are compared where nothing else is said: 5, if there are so many."""
    return TOP_K if classes is None else min(TOP_K, classes)


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
    check_primary_score(primary_score, top_k)
    return eta_at(primary_score, top_k)


def eta_at(primary_score: Any, top_k: Any) -> Any:
    """`eta_from_primary_score` without its checks, of numbers or of tensors."""
    return (top_k - 1) / (top_k - 1 + top_k * primary_score)


def check_tolerance(
    primary_score: float,
    top_k: int | str,
    top_k_share: float = TOP_K_SHARE,
    classes: int | None = None,
) -> None:
    """Checks how a tolerant patriarch is softened.

    An adaptive K may be 2, whose two scores cannot both be below 1/2.

    Args:
        primary_score: of `eta_from_primary_score`; in (1/2, 1] where K is adaptive.
        top_k: K, from 2 to the number of classes, or `"adaptive"`.
        top_k_share: of `adaptive_top_k`, in (0, 1).
        classes: their number, if it is known.

    Raises:
        ValueError: an argument is outside its range.
    """
    if top_k == ADAPTIVE:
        check("top_k_share", top_k_share, INSIDE_0_1)
        check_primary_score(primary_score, 2)
        return
    if top_k not in Integers(2):
        raise ArgumentError("top_k", f"{Integers(2)}, or {ADAPTIVE!r}", top_k)
    check_primary_score(primary_score, int(top_k))
    if classes is not None and int(top_k) > classes:
        raise ArgumentError("top_k", f"at most the number of classes, {classes}", top_k)


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
    check_primary_score(primary_score, classes)
    return (1 - primary_score) * classes / (classes - 1)


def beta_from_primary_score(primary_score: float, classes: int) -> float:
    """Returns the confidence penalty `beta = 1 / (f ln(f (C - 1) / (1 - f)))` whose optimum is `f`.

    Raises:
        ValueError: `primary_score` is outside `(1 / classes, 1]`.
    """
    check_primary_score(primary_score, classes)
    if primary_score == 1:
        return 0.0
    odds = primary_score * (classes - 1) / (1 - primary_score)
    return 1 / (primary_score * math.log(odds))


def _check_top_k(top_k):
    if top_k < 2:
        raise ArgumentError("top_k", "at least 2", top_k)


def check_primary_score(primary_score: float, scores: int) -> None:
    """Raises an `ArgumentError` unless a primary score is above that of so many equal scores."""
    if not 1 / scores < primary_score <= 1:
        raise ArgumentError("primary_score", f"in (1/{scores}, 1]", primary_score)
