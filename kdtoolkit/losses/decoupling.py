"""What a teacher teaches of the true class, and of the other classes among themselves."""

from keras import ops

from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import label_probabilities, log_probabilities

_NEXT_TO_NOTHING = -1e30  # The logarithm of a probability; infinity has no gradient.


def decoupled_divergence(
    labels: TensorLike,
    teacher_logits: TensorLike,
    student_logits: TensorLike,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: TensorLike | float = 4.0,
) -> Tensor:
    """`T^2 (alpha KL(b_t || b_s) + beta KL(p^ || q^))` (DKD, Zhao et al., CVPR 2022).

    `b` are the probabilities of the true class and of all others together, `p^` and `q^` those of
    the others among themselves, all at temperature `T`. In `T^2 KL(p || q)` the second part is
    weighted by what the teacher leaves to the others: next to nothing where it is sure.

    Args:
        labels: class indices, or rows of probabilities whose largest entry is the true class.
        teacher_logits: `(batch, classes)`.
        student_logits: `(batch, classes)`.
        alpha, beta: weights of the two parts.
        temperature: positive scalar, or one value per sample, `(batch,)`.

    Returns:
        float32 `(batch,)`, at least 0.
    """
    is_true = _is_true(labels, student_logits)
    binary = _binary_divergence(
        *(
            _binary(log_probabilities(logits, temperature), is_true)
            for logits in (teacher_logits, student_logits)
        )
    )
    among = _divergence_among(teacher_logits, student_logits, temperature, is_true)
    return ops.square(ops.cast(temperature, "float32")) * (alpha * binary + beta * among)


def refined_divergence(
    labels: TensorLike,
    teacher_logits: TensorLike,
    student_logits: TensorLike,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: TensorLike | float = 4.0,
) -> Tensor:
    """`alpha KL(b_t || b_s) + beta T^2 KL(p' || q')` (RLD, Sun et al. 2024).

    `b_t` is the teacher's largest probability against the rest, `b_s` the student's of the true
    class against the rest, at temperature 1: how sure to be. `p'` and `q'` are the probabilities at
    temperature `T` among the classes that the teacher thinks less likely than the true one: where
    it is wrong, its mistake is left out, and the order of the others is not touched.

    Args:
        labels: class indices, or rows of probabilities whose largest entry is the true class.
        teacher_logits: `(batch, classes)`.
        student_logits: `(batch, classes)`.
        alpha, beta: weights of the two parts.
        temperature: of the second part, positive scalar, or one value per sample, `(batch,)`.

    Returns:
        float32 `(batch,)`, at least 0.
    """
    is_true = _is_true(labels, student_logits)
    teacher_logits = ops.cast(teacher_logits, "float32")
    classes = ops.arange(teacher_logits.shape[-1], dtype="int32")[None, :]
    largest = ops.cast(ops.argmax(teacher_logits, axis=-1, keepdims=True), "int32")
    sure = _binary(log_probabilities(teacher_logits), classes == largest)
    binary = _binary_divergence(sure, _binary(log_probabilities(student_logits), is_true))
    at_true = ops.sum(ops.where(is_true, teacher_logits, 0.0), axis=-1, keepdims=True)
    among = _divergence_among(
        teacher_logits, student_logits, temperature, teacher_logits >= at_true
    )
    return alpha * binary + beta * ops.square(ops.cast(temperature, "float32")) * among


def normalized_divergence(
    labels: TensorLike,
    teacher_logits: TensorLike,
    student_logits: TensorLike,
    gamma: float = 3.5,
    temperature: TensorLike | float = 3.0,
) -> Tensor:
    """`-p_y ln q_y - gamma T^2 sum_{i != y} p^_i ln q^_i` (NKD, Yang et al., ICCV 2023).

    `p_y` and `q_y` are the probabilities of the true class at temperature 1, `p^` and `q^` those of
    the others among themselves at temperature `T`. These are cross-entropies: where the student is
    as the teacher, the teacher's entropy is left.

    Args:
        labels: class indices, or rows of probabilities whose largest entry is the true class.
        teacher_logits: `(batch, classes)`.
        student_logits: `(batch, classes)`.
        gamma: weight of the second part.
        temperature: of the second part, positive scalar, or one value per sample, `(batch,)`.

    Returns:
        float32 `(batch,)`, at least 0.
    """
    is_true = _is_true(labels, student_logits)
    p, log_q = ops.exp(log_probabilities(teacher_logits)), log_probabilities(student_logits)
    target = -ops.sum(ops.where(is_true, p * log_q, 0.0), axis=-1)
    teacher, student = (
        _among(logits, temperature, is_true) for logits in (teacher_logits, student_logits)
    )
    others = -ops.sum(ops.where(is_true, 0.0, ops.exp(teacher)) * student, axis=-1)
    return target + gamma * ops.square(ops.cast(temperature, "float32")) * others


def _is_true(labels, logits):
    """Which class is the true one, bool `(batch, classes)`."""
    true = ops.argmax(label_probabilities(labels, logits), axis=-1, keepdims=True)
    classes = ops.arange(logits.shape[-1], dtype="int32")[None, :]
    return ops.cast(true, "int32") == classes


def _binary(log_probabilities, chosen):
    """Logarithms of the chosen class' probability, and of all others' together."""
    at_chosen = ops.sum(ops.where(chosen, log_probabilities, 0.0), axis=-1)
    others = ops.logsumexp(ops.where(chosen, _NEXT_TO_NOTHING, log_probabilities), axis=-1)
    return at_chosen, others


def _binary_divergence(teacher, student):
    parts = zip(teacher, student, strict=True)
    return sum(ops.exp(t) * (t - s) for t, s in parts)


def _among(logits, temperature, left_out):
    """Logarithms of the classes' probabilities without those left out, whose place is 0."""
    # Of logits, not of probabilities among all: where those are tiny, little is left of them.
    kept = ops.where(left_out, _NEXT_TO_NOTHING, ops.cast(logits, "float32"))
    return ops.where(left_out, 0.0, log_probabilities(kept, temperature))


def _divergence_among(teacher_logits, student_logits, temperature, left_out):
    """KL divergence of the classes that are not left out; 0 where all are."""
    teacher, student = (
        _among(logits, temperature, left_out) for logits in (teacher_logits, student_logits)
    )
    weights = ops.where(left_out, 0.0, ops.exp(teacher))
    return ops.sum(weights * (teacher - student), axis=-1)
