"""Logits, or a teacher's probabilities, changed before they are compared."""

from keras import ops

from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import log_probabilities

_EPSILON = 1e-7  # of the authors' code
_NO_VARIANCE = 1e-30  # Below it the root has no slope that is of use.


def standardize_logits(logits: TensorLike) -> Tensor:
    """`(z - mean) / (std + 1e-7)` of each sample's logits (Sun et al., CVPR 2024).

    The deviation is the unbiased one. A student then need not have the teacher's range of logits,
    but the relations among them.

    Args:
        logits: `(batch, classes)`, at least two classes.

    Returns:
        float32 `(batch, classes)`; zeros where all logits of a sample are the same.
    """
    logits = ops.cast(logits, "float32")
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return centred / (ops.sqrt(ops.maximum(variance, _NO_VARIANCE)) + _EPSILON)


def transformed_divergence(
    teacher_logits: TensorLike,
    student_logits: TensorLike,
    exponent: float = 0.1,
    weighted: bool = False,
) -> Tensor:
    """`KL(p^gamma / S || q)` with `S = sum p^gamma` (TTM, Zheng and Yang, ICLR 2024).

    The teacher alone is softened: `p^gamma / S` is its softmax at temperature `1 / gamma`, while
    the student stays at temperature 1. Weighted by `S` (WTTM), a sample of which the teacher is
    less sure counts more.

    Args:
        teacher_logits: `(batch, classes)`.
        student_logits: `(batch, classes)`.
        exponent: gamma, positive.
        weighted: multiply by `S`.

    Returns:
        float32 `(batch,)`, at least 0.
    """
    powers = exponent * log_probabilities(teacher_logits)
    log_sum = ops.logsumexp(powers, axis=-1, keepdims=True)
    teacher, student = powers - log_sum, log_probabilities(student_logits)
    divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
    return ops.exp(ops.squeeze(log_sum, -1)) * divergence if weighted else divergence
