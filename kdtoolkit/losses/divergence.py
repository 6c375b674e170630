"""What a teacher's logits teach."""

import math
from collections.abc import Sequence

import tensorflow as tf
from keras import ops

from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import label_probabilities, log_probabilities

_NEXT_TO_NOTHING = -1e30  # The logarithm of a probability; infinity has no gradient.


def distillation_divergence(
    teacher_logits: TensorLike, student_logits: TensorLike, temperature: TensorLike | float = 1.0
) -> Tensor:
    """`T^2 KL(teacher || student)` of the distributions at temperature `T` (Hinton et al. 2015).

    The factor `T^2` keeps the gradient's size while `T` changes. At temperature 1 this is the
    teacher's term in Eqn 4 of Yang et al. 2019. The gradient flows into both arguments; stop the
    teacher's where it must not.

    Args:
        teacher_logits: `(batch, classes)`.
        student_logits: `(batch, classes)`.
        temperature: positive scalar, or one value per sample, `(batch,)`.

    Returns:
        float32 `(batch,)`, at least 0.

    Raises:
        ValueError: teacher and student differ in the number of classes.
    """
    if teacher_logits.shape[-1] != student_logits.shape[-1]:
        raise ValueError(
            "Arguments `teacher_logits` and `student_logits` must have the same number of classes. "
            f"Received: {teacher_logits.shape[-1]} and {student_logits.shape[-1]}"
        )
    temperature = ops.cast(temperature, "float32")
    log_teacher = log_probabilities(teacher_logits, temperature)
    log_student = log_probabilities(student_logits, temperature)
    divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return ops.square(temperature) * divergence


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
    classes = student_logits.shape[-1]
    true = ops.argmax(label_probabilities(labels, student_logits), axis=-1, keepdims=True)
    is_true = ops.cast(true, "int32") == ops.arange(classes, dtype="int32")[None, :]

    def parts(logits):
        """Logarithms of the true class, of all others together, and of each among them."""
        all_classes = log_probabilities(logits, temperature)
        at_true = ops.sum(ops.where(is_true, all_classes, 0.0), axis=-1)
        others = ops.logsumexp(ops.where(is_true, _NEXT_TO_NOTHING, all_classes), axis=-1)
        among = ops.where(is_true, 0.0, all_classes - ops.expand_dims(others, -1))
        return at_true, others, among

    (t_true, t_others, t_among), (s_true, s_others, s_among) = map(
        parts, (teacher_logits, student_logits)
    )
    binary = ops.exp(t_true) * (t_true - s_true) + ops.exp(t_others) * (t_others - s_others)
    among = ops.sum(ops.where(is_true, 0.0, ops.exp(t_among)) * (t_among - s_among), axis=-1)
    return ops.square(ops.cast(temperature, "float32")) * (alpha * binary + beta * among)


def permute_secondary(logits: TensorLike, seed: Sequence[int]) -> Tensor:
    """Permutes every entry but the largest at random (DKPP, Furlanello et al. 2018).

    Softmax commutes with a permutation, so permuting logits permutes the probabilities at every
    temperature.

    Args:
        logits: `(batch, classes)`.
        seed: two integers, the stateless random seed: equal seeds give equal permutations.

    Returns:
        `(batch, classes)`, the dtype of `logits`.
    """
    logits = ops.convert_to_tensor(logits)
    return permute_secondary_by(logits, tf.random.stateless_uniform(tf.shape(logits), seed))


def permute_secondary_by(logits: TensorLike, keys: TensorLike) -> Tensor:
    """`permute_secondary`, the permutation being the order of `keys`, float `(batch, classes)`."""
    logits = ops.convert_to_tensor(logits)
    largest = ops.argmax(logits, axis=-1, keepdims=True)
    positions = ops.arange(logits.shape[-1], dtype=largest.dtype)[None, :]
    # A key above all others sorts the largest entry to the end; each position then takes its turn
    # in the shuffled order, the largest entry's own position the end of it.
    order = ops.argsort(ops.where(positions == largest, math.inf, keys), axis=-1)
    turn = ops.where(positions == largest, logits.shape[-1] - 1, positions)
    turn = ops.where(positions > largest, positions - 1, turn)
    return ops.take_along_axis(logits, ops.take_along_axis(order, turn, axis=-1), axis=-1)
