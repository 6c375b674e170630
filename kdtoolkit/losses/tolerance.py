"""The tolerant teacher's loss (Yang et al., AAAI 2019, arXiv 1805.05551)."""

import math
import numbers
from typing import Any

import tensorflow as tf
from keras import ops

from kdtoolkit._checks import INSIDE_0_1, ArgumentError, Words, check
from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import crossentropy
from kdtoolkit.losses.strengths import (
    ADAPTIVE,
    TOP_K_SHARE,
    check_tolerance,
    eta_at,
    eta_from_primary_score,
)


def adaptive_top_k(logits: TensorLike, top_k_share: float = TOP_K_SHARE) -> Tensor:
    """A K for each sample: how many scores are at least a share of its primary one, two at least.

    `K_x = max(#{k: f_k >= share f_a1}, 2)`, for Eqn 3 of Yang et al. 2019, whose K varying with the
    sample is future work there. With `eta_from_primary_score` of K_x the loss' optimum has the
    primary score `f` whatever K_x is: the optima are all distributions with `f_a1 = f` whose other
    scores are either 0 or at least `share f`, and there K_x stays put. They sum to `1 - f`, so

        2 <= K_x <= 1 + (1 - f) / (share f)

    which is 67 at `f = 0.6` and the usual share. What is not compared shrinks in training, so that
    K_x falls, from the number of classes on: a large share leaves two scores, and no more. See
    docs/methods.md for what is measured.

    Args:
        logits: `(batch, classes)`.
        top_k_share: the share, in (0, 1).

    Returns:
        int32 `(batch,)`, from 2 to the number of classes, without gradient.

    Raises:
        ValueError: the share is outside its range.
    """
    check("top_k_share", top_k_share, INSIDE_0_1)
    logits = ops.stop_gradient(ops.cast(logits, "float32"))
    least = ops.max(logits, axis=-1, keepdims=True) + math.log(top_k_share)
    count = ops.sum(ops.cast(logits >= least, "int32"), axis=-1)
    return ops.maximum(count, 2)


def score_difference(
    logits: TensorLike,
    top_k: int | str | TensorLike = 5,
    top_k_share: float = TOP_K_SHARE,
) -> Tensor:
    """Primary score less the mean of the secondary ones: the second term of Eqn 3.

    `f_a1 - mean_{k=2..K} f_ak` with `a_k` the index of the k-th largest probability. Gradients flow
    through the values, not the indices; `a_1` need not be the true class.

    Args:
        logits: `(batch, classes)`.
        top_k: `K`, from 2 to the number of classes; one of each sample, integers `(batch,)`; or
            `"adaptive"`, that of `adaptive_top_k`.
        top_k_share: of `adaptive_top_k`.

    Returns:
        float32 `(batch,)`, in [0, 1]; NaN where a sample's `K` is outside its range and could not
        be seen before.

    Raises:
        ValueError: `top_k` is outside its range.
    """
    classes = logits.shape[-1]
    scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)
    if isinstance(top_k, numbers.Integral):
        top_k = int(top_k)
        if not 2 <= top_k <= classes:
            raise ArgumentError("top_k", f"from 2 to the number of classes ({classes})", top_k)
        scores, _ = ops.top_k(scores, top_k)
        return scores[:, 0] - ops.mean(scores[:, 1:], axis=-1)
    count = _of_each_sample(logits, top_k, top_k_share)
    scores, _ = ops.top_k(scores, classes)
    compared = ops.arange(2, classes + 1, dtype="float32") <= ops.expand_dims(count, -1)
    return scores[:, 0] - ops.sum(ops.where(compared, scores[:, 1:], 0.0), axis=-1) / (count - 1)


def tolerant_crossentropy(
    labels: TensorLike,
    logits: TensorLike,
    eta: float | TensorLike | None = None,
    top_k: int | str | TensorLike = 5,
    *,
    primary_score: float | None = None,
    top_k_share: float = TOP_K_SHARE,
) -> Tensor:
    """The patriarch's loss, Eqn 3: `(1 - eta) CE(y, f) + eta (f_a1 - mean_{k=2..K} f_ak)`.

    Args:
        labels: class indices or rows of probabilities.
        logits: `(batch, classes)`.
        eta: weight of the score difference in [0, 1], a number or one of each sample, `(batch,)`;
            see `eta_from_primary_score`.
        top_k, top_k_share: of `score_difference`.
        primary_score: in the place of `eta`, which is then that of each sample's `K`.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: `top_k` is outside its range; or not one of `eta` and `primary_score` is given,
            or `eta` with an adaptive `K`, on which it depends.
    """
    adaptive = isinstance(top_k, str) and top_k == ADAPTIVE
    if adaptive and eta is not None:
        accepted = f"left out, and `primary_score` given, with top_k={ADAPTIVE!r}"
        raise ArgumentError("eta", accepted, eta)
    if (eta is None) == (primary_score is None):
        accepted = "given if, and only if, `eta` is not"
        raise ArgumentError("primary_score", accepted, primary_score)
    if adaptive:
        top_k = adaptive_top_k(logits, top_k_share)
    weight: Any = eta if primary_score is None else eta_of(logits, primary_score, top_k)
    return (1 - weight) * crossentropy(labels, logits) + weight * score_difference(logits, top_k)


def eta_of(
    logits: TensorLike,
    primary_score: float,
    top_k: int | str | TensorLike = 5,
    top_k_share: float = TOP_K_SHARE,
) -> float | Tensor:
    """`eta_from_primary_score` for any kind of `top_k`: a number, or float32 `(batch,)`.

    Args:
        logits, top_k, top_k_share: of `score_difference`.
        primary_score: of `eta_from_primary_score`; in (1/2, 1] where samples differ in `K`.

    Raises:
        ValueError: an argument is outside its range.
    """
    if isinstance(top_k, numbers.Integral):
        return eta_from_primary_score(primary_score, int(top_k))
    check_tolerance(primary_score, ADAPTIVE, top_k_share)
    return eta_at(primary_score, _of_each_sample(logits, top_k, top_k_share))


def _of_each_sample(logits, top_k, top_k_share):
    """`K` of each sample, float32 `(batch,)`; NaN where it is outside its range."""
    classes = logits.shape[-1]
    accepted = (
        f"an integer from 2 to the number of classes ({classes}), one of each sample, of shape "
        f"(batch,), or {ADAPTIVE!r}"
    )
    if isinstance(top_k, str):
        if top_k != ADAPTIVE:
            raise ArgumentError("top_k", accepted, top_k)
        return ops.cast(adaptive_top_k(logits, top_k_share), "float32")
    top_k = tf.convert_to_tensor(top_k)
    if not top_k.dtype.is_integer or top_k.shape.rank != 1:
        received = Words(f"{top_k.dtype.name} of shape {tuple(top_k.shape)}")
        raise ArgumentError("top_k", accepted, received)
    known = (top_k >= 2) & (top_k <= classes)
    seen = tf.get_static_value(known)
    if seen is not None and not seen.all():
        index = int(seen.argmin())
        received = Words(f"{tf.get_static_value(top_k)[index]} at index {index}")
        raise ArgumentError("top_k", accepted, received)
    return ops.where(known, ops.cast(top_k, "float32"), math.nan)
