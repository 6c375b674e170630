"""What a teacher teaches of samples among each other, or of classes over samples.

Each function takes the rows of the whole batch, and returns one value: what belongs to no sample
alone. With several replicas that is the global batch.
"""

from keras import ops

from kdtoolkit._types import Tensor, TensorLike

_CONSTANT = 1e-16  # Squared norm below which rows count as constant: no correlation.
_SAME_PLACE = 1e-12  # Squared distance below which two samples are one.


def correlation_distance(teacher: TensorLike, student: TensorLike) -> Tensor:
    """`1 - rho(student, teacher)` of each row, rho being Pearson's correlation (DIST, 2022).

    Args:
        teacher: `(rows, values)`.
        student: the same shape.

    Returns:
        float32 `(rows,)`, from 0 to 2; 1 where a row is constant.
    """

    def normalized(values):
        values = ops.cast(values, "float32")
        values = values - ops.mean(values, axis=-1, keepdims=True)
        square = ops.sum(ops.square(values), axis=-1, keepdims=True)
        return values * ops.rsqrt(ops.maximum(square, _CONSTANT))

    return 1 - ops.sum(normalized(teacher) * normalized(student), axis=-1)


def distance_relation(teacher: TensorLike, student: TensorLike) -> Tensor:
    """Smooth L1 of the samples' distances, each over its network's mean (RKD-D, Park et al. 2019).

    Args:
        teacher: embeddings, `(batch, channels)`.
        student: likewise; the number of channels may differ.

    Returns:
        float32 scalar, the mean over all pairs of samples; 0 for one sample.
    """

    def relative(embeddings):
        _, distances = _differences(embeddings)
        count = ops.sum(ops.cast(distances > 0, "float32"))
        mean = ops.sum(distances) / ops.maximum(count, 1.0)
        return distances / ops.where(mean > 0, mean, 1.0)

    mean, _ = _smooth_l1(relative(student) - relative(teacher))
    return mean


def angle_relation(teacher: TensorLike, student: TensorLike) -> Tensor:
    """Smooth L1 of the cosines of all triplets' angles (RKD-A, Park et al. 2019).

    Args:
        teacher: embeddings, `(batch, channels)`.
        student: likewise; the number of channels may differ.

    Returns:
        float32 scalar, the mean over all triplets of samples; 0 for one sample.
    """

    def directions(embeddings):
        differences, distances = _differences(embeddings)
        apart = distances > 0
        scale = ops.where(apart, 1 / ops.where(apart, distances, 1.0), 0.0)
        return differences * ops.expand_dims(scale, -1)

    return _smooth_l1_of_products(directions(student), directions(teacher))


def similarity_distance(teacher: TensorLike, student: TensorLike) -> Tensor:
    """`||G_student - G_teacher||_F^2 / b^2`: how alike samples are (SP, Tung and Mori, ICCV 2019).

    `G = F F^T` with rows of norm 1, `F` being features of all `b` samples, flattened.

    Args:
        teacher: features, `(batch, ...)`.
        student: likewise; all but the batch may differ.

    Returns:
        float32 scalar.
    """

    def similarities(features):
        features = ops.cast(features, "float32")
        rows = ops.reshape(features, (ops.shape(features)[0], -1))
        products = ops.matmul(rows, ops.transpose(rows))
        square = ops.sum(ops.square(products), axis=-1, keepdims=True)
        return products * ops.rsqrt(ops.maximum(square, _CONSTANT))

    return ops.mean(ops.square(similarities(student) - similarities(teacher)))


def _differences(embeddings):
    """`embeddings[j] - embeddings[i]`, `(batch, batch, channels)`, and their norms."""
    embeddings = ops.cast(embeddings, "float32")
    differences = embeddings[None, :, :] - embeddings[:, None, :]
    square = ops.sum(ops.square(differences), axis=-1)
    apart = square > _SAME_PLACE
    # The root's slope at zero is infinite.
    return differences, ops.where(apart, ops.sqrt(ops.where(apart, square, 1.0)), 0.0)


def _smooth_l1(values):
    """The mean of `v^2 / 2` where that is at most 1/2, of `|v| - 1/2` elsewhere; each slope."""
    within = ops.clip(values, -1, 1)
    return ops.mean(within * (values - 0.5 * within)), within


@ops.custom_gradient
def _smooth_l1_of_products(rows, others):
    """The mean of `_smooth_l1(rows rows^T - others others^T)`, of batches of matrices.

    There are millions of products, of all triplets. The derivative of their sum is symmetric in the
    two rows of a product: it takes one pass over them and one product of matrices, where those of
    single operations take seven, and two.
    """

    def products(values):
        return ops.matmul(values, ops.transpose(values, (0, 2, 1)))

    values = products(rows) - products(others)
    mean, slopes = _smooth_l1(values)

    def gradient(upstream):
        scale = 2 * upstream / ops.cast(ops.size(values), values.dtype)
        return scale * ops.matmul(slopes, rows), -scale * ops.matmul(slopes, others)

    return mean, gradient
