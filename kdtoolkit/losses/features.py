"""What a teacher's features teach."""

import numpy as np
from keras import ops

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Tensor, TensorLike

_CONTEXTS = (4, 2, 1)  # heights and widths
_WEAKEST_MAP = 1e-12  # Squared norm of an attention map below which it counts as none.


def feature_distance(teacher_features: TensorLike, student_features: TensorLike) -> Tensor:
    """Squared Euclidean distance `||F_student - F_teacher||^2` (Zhang et al., ICCV 2019).

    Args:
        teacher_features: `(batch, ...)`.
        student_features: the same shape.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: the shapes differ.
    """
    squares = _squared_difference(teacher_features, student_features)
    return ops.sum(squares, axis=tuple(range(1, len(squares.shape))))


def hint(teacher_features: TensorLike, student_features: TensorLike) -> Tensor:
    """Mean squared difference of two feature tensors (FitNets, Romero et al. 2015).

    Args:
        teacher_features: `(batch, ...)`.
        student_features: the same shape; see `kdtoolkit.methods.FitNet` for a projector.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: the shapes differ.
    """
    squares = _squared_difference(teacher_features, student_features)
    return ops.mean(squares, axis=tuple(range(1, len(squares.shape))))


def attention_map(features: TensorLike) -> Tensor:
    """Where a layer looks: the mean over the channels of `f^2`, of L2 norm 1 per sample.

    Args:
        features: `(batch, height, width, channels)`.

    Returns:
        float32 `(batch, height, width)`; zeros where the features are zero.

    Raises:
        ValueError: the features have another rank.
    """
    if len(features.shape) != 4:
        accepted = "shape (batch, height, width, channels)"
        received = Words(f"features.shape={tuple(features.shape)}")
        raise ArgumentError("features", accepted, received, must="have")
    energy = ops.mean(ops.square(ops.cast(features, "float32")), axis=-1)
    # The bound is inside the root, whose slope at zero is infinite.
    square = ops.sum(ops.square(energy), axis=(1, 2), keepdims=True)
    return energy * ops.rsqrt(ops.maximum(square, _WEAKEST_MAP))


def attention_transfer(teacher_features: TensorLike, student_features: TensorLike) -> Tensor:
    """Mean squared difference of two attention maps (Zagoruyko and Komodakis 2017).

    Args:
        teacher_features: `(batch, height, width, channels)`.
        student_features: the same, in which the number of channels may differ.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: height or width differs, or the features have another rank.
    """
    teacher_map, student_map = attention_map(teacher_features), attention_map(student_features)
    _check_same_shape(teacher_features.shape[:-1], student_features.shape[:-1], "height and width")
    return ops.mean(ops.square(student_map - teacher_map), axis=(1, 2))


def hierarchical_context(teacher_features: TensorLike, student_features: TensorLike) -> Tensor:
    """Mean squared difference at full size and pooled to 4, 2, 1 (HCL of Chen et al., CVPR 2021).

    The parts have the weights 1, 1/2, 1/4, ..., over their sum; sizes that are not smaller than the
    features' height are left out.

    Args:
        teacher_features: `(batch, height, width, channels)`.
        student_features: the same shape.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: the shapes differ.
    """
    _check_same_shape(teacher_features.shape, student_features.shape, "shape")
    difference = ops.cast(student_features, "float32") - ops.cast(teacher_features, "float32")
    total, weight, weights = ops.mean(ops.square(difference), axis=(1, 2, 3)), 1.0, 1.0
    for size in [size for size in _CONTEXTS if size < difference.shape[1]]:
        # Pooling is linear: of the difference it is the difference of the pooled.
        height, width = difference.shape[1:3]
        if height % size or width % size:
            rows, columns = _bins(height, size), _bins(width, size)
            pooled = ops.einsum("ih,bhwc,jw->bijc", rows, difference, columns)
        else:  # Equal parts, whose own parts are those of a smaller size.
            parts = height // size, width // size
            difference = pooled = ops.average_pool(difference, parts, padding="valid")
        weight /= 2
        weights += weight
        total += weight * ops.mean(ops.square(pooled), axis=(1, 2, 3))
    return total / weights


def _bins(length, count):
    """Matrix `(count, length)` that averages over equal parts, which overlap where they must."""
    matrix = np.zeros((count, length), "float32")
    for index in range(count):
        start, end = index * length // count, -(-(index + 1) * length // count)
        matrix[index, start:end] = 1 / (end - start)
    return matrix


def _squared_difference(teacher_features, student_features):
    _check_same_shape(teacher_features.shape, student_features.shape, "shape")
    student_features = ops.cast(student_features, "float32")
    return ops.square(student_features - ops.cast(teacher_features, "float32"))


def _check_same_shape(teacher_shape, student_shape, what):
    if tuple(teacher_shape[1:]) != tuple(student_shape[1:]):
        accepted = f"the {what} of `student_features`, {tuple(student_shape)}"
        received = Words(tuple(teacher_shape))
        raise ArgumentError("teacher_features", accepted, received, must="have")
