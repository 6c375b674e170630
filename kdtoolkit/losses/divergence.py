"""What a teacher's logits teach."""

import math
from collections.abc import Sequence

import tensorflow as tf
from keras import ops

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import log_probabilities


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
        accepted = f"{student_logits.shape[-1]} classes, as `student_logits` have"
        received = Words(teacher_logits.shape[-1])
        raise ArgumentError("teacher_logits", accepted, received, must="have")
    temperature = ops.cast(temperature, "float32")
    log_teacher = log_probabilities(teacher_logits, temperature)
    log_student = log_probabilities(student_logits, temperature)
    divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return ops.square(temperature) * divergence


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
