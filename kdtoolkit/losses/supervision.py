"""Corrected teachers, and how softly each sample is taught (Wen et al. 2021, arXiv 1911.07471).

Neurocomputing 454, "Preparing Lessons: Improve Knowledge Distillation with Better Supervision".
"""

from keras import ops

from kdtoolkit._checks import AT_LEAST_0, POSITIVE, ArgumentError, OneOf
from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import label_probabilities, log_probabilities
from kdtoolkit.losses.strengths import NORMALIZATIONS


def probability_shift(teacher_logits: TensorLike, labels: TensorLike) -> Tensor:
    """Swaps the teacher's value at the true class with its largest one, where it is wrong.

    Softmax commutes with the swap, so swapping logits swaps the probabilities at every temperature.
    A teacher that is right, or whose value at the true class equals the largest, stays as it is.

    Args:
        teacher_logits: `(batch, classes)`.
        labels: class indices, or rows of probabilities whose largest entry is the true class.

    Returns:
        Logits, float32 `(batch, classes)`.
    """
    logits = ops.cast(teacher_logits, "float32")
    true, at_true, highest = _true_and_highest(logits, labels)
    positions = _positions(logits)
    largest = ops.cast(ops.argmax(logits, axis=-1, keepdims=True), "int32")
    shifted = ops.where(positions == largest, at_true, logits)
    return ops.where(positions == true, highest, shifted)


def label_smooth_adjustment(
    teacher_logits: TensorLike, labels: TensorLike, p: float = 0.9
) -> Tensor:
    """Replaces a wrong teacher: probability `p` for the true class, `(1-p)/(C-1)` for each other.

    The replaced rows are logarithms of probabilities, and so logits of exactly those probabilities
    at temperature 1, which is the only temperature to use the result at: smoothed labels are
    probabilities already, a temperature would soften them a second time.

    Args:
        teacher_logits: `(batch, classes)`.
        labels: class indices, or rows of probabilities whose largest entry is the true class.
        p: in `(1 / classes, 1)`.

    Returns:
        Logits at temperature 1, float32 `(batch, classes)`: those of the teacher where its value at
        the true class is the largest, ties included.

    Raises:
        ValueError: `p` is outside its range.
    """
    classes = teacher_logits.shape[-1]
    if not 1 / classes < p < 1:
        raise ArgumentError("p", f"in (1/{classes}, 1)", p)
    logits = ops.cast(teacher_logits, "float32")
    true, at_true, highest = _true_and_highest(logits, labels)
    probabilities = ops.where(_positions(logits) == true, p, (1 - p) / (classes - 1))
    smoothed = ops.log(ops.cast(probabilities, "float32"))
    return ops.where(at_true < highest, smoothed, logits)


def focal_weights(
    teacher_logits: TensorLike, student_logits: TensorLike, gamma: float, normalization: str = "l2"
) -> Tensor:
    """How far a student is from its teacher on each sample (FLSW): `(1 - v . t)^gamma`.

    `v` and `t` are the logits divided by their L2 norms; with `normalization="l1"` they are the
    probabilities, and adding a constant to all logits of a sample changes nothing.

    Args:
        teacher_logits: `(batch, classes)`.
        student_logits: `(batch, classes)`.
        gamma: at least 0.
        normalization: `"l2"` or `"l1"`.

    Returns:
        float32 `(batch,)`, at least 0, without gradient.

    Raises:
        ValueError: an argument is outside its range.
    """
    if gamma < 0:
        raise ArgumentError("gamma", AT_LEAST_0, gamma)
    if normalization not in NORMALIZATIONS:
        raise ArgumentError("normalization", OneOf(NORMALIZATIONS), normalization)
    normalize = _unit if normalization == "l2" else _softmax
    agreement = ops.sum(normalize(teacher_logits) * normalize(student_logits), axis=-1)
    # Rounding takes the product of parallel vectors above 1, and a power of what is left to NaN.
    return ops.stop_gradient(ops.power(ops.maximum(1 - agreement, 0.0), gamma))


def student_max_weights(student_logits: TensorLike) -> Tensor:
    """How unsure a student is of each sample (CWSM): `1 / max softmax(z)`.

    Args:
        student_logits: `(batch, classes)`.

    Returns:
        float32 `(batch,)`, in `[1, classes]`, without gradient.
    """
    return ops.stop_gradient(ops.exp(-ops.max(log_probabilities(student_logits), axis=-1)))


def dynamic_temperature(
    weights: TensorLike,
    base: TensorLike | float,
    slope: float,
    minimum: float = 1.0,
    mean: TensorLike | None = None,
) -> Tensor:
    """A temperature per sample: `base + slope (mean(w) - w)`, and never below `minimum`.

    A sample that weighs more, a confusing one, gets a lower temperature and a sharper target. The
    bound is not in public code, where temperatures become negative.

    Args:
        weights: of `focal_weights` or `student_max_weights`, `(batch,)`.
        base: temperature of the average sample.
        slope: at least 0.
        minimum: positive lower bound.
        mean: of the weights, where these are only a part of the batch.

    Returns:
        float32 `(batch,)`, without gradient.

    Raises:
        ValueError: `slope` or `minimum` is outside its range.
    """
    if slope < 0:
        raise ArgumentError("slope", AT_LEAST_0, slope)
    if minimum <= 0:
        raise ArgumentError("minimum", POSITIVE, minimum)
    weights = ops.cast(weights, "float32")
    mean = ops.mean(weights) if mean is None else mean
    return ops.stop_gradient(ops.maximum(base + slope * (mean - weights), minimum))


def _true_and_highest(logits, labels):
    """The true class, the value there and the largest value, each `(batch, 1)`."""
    true = ops.argmax(label_probabilities(labels, logits), axis=-1, keepdims=True)
    true = ops.cast(true, "int32")
    return true, ops.take_along_axis(logits, true, axis=-1), ops.max(logits, axis=-1, keepdims=True)


def _positions(logits):
    return ops.arange(logits.shape[-1], dtype="int32")[None, :]


def _unit(logits):
    # Scaled first: the squares of large logits would overflow.
    logits = ops.cast(logits, "float32")
    logits = logits / ops.maximum(ops.max(ops.abs(logits), axis=-1, keepdims=True), 1e-30)
    square = ops.sum(ops.square(logits), axis=-1, keepdims=True)
    return logits * ops.rsqrt(ops.maximum(square, 1e-30))


def _softmax(logits):
    return ops.softmax(ops.cast(logits, "float32"), axis=-1)
