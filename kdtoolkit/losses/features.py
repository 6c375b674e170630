"""What a teacher's features teach."""

from keras import ops


def feature_distance(teacher_features, student_features):
    """Squared Euclidean distance `||F_student - F_teacher||^2` (Zhang et al., ICCV 2019).

    Args:
        teacher_features: `(batch, ...)`.
        student_features: the same shape.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(teacher_features.shape[1:]) != tuple(student_features.shape[1:]):
        raise ValueError(
            "Arguments `teacher_features` and `student_features` must have the same shape. "
            f"Received: {tuple(teacher_features.shape)} and {tuple(student_features.shape)}"
        )
    difference = ops.cast(student_features, "float32") - ops.cast(teacher_features, "float32")
    return ops.sum(ops.square(difference), axis=tuple(range(1, len(difference.shape))))
