"""Cross-entropy, and the two softened kinds that the tolerant teacher is compared with."""

from keras import ops

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Tensor, TensorLike


def label_probabilities(labels: TensorLike, logits: TensorLike) -> Tensor:
    """Returns labels of any accepted kind as float32 rows of probabilities.

    Args:
        labels: class indices `(batch,)` or `(batch, 1)`, any dtype, or rows `(batch, classes)`. A
            number that is no class, such as 2.7, gives a row of NaN.
        logits: `(batch, classes)`, at least two classes; only the shape is used.

    Raises:
        ValueError: there is one class, or the shapes do not fit each other.
    """
    labels = ops.convert_to_tensor(labels)
    classes = class_count(logits)
    if len(labels.shape) == 2 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    if len(labels.shape) == 1:
        labels, known = known_indices(labels, classes)
        rows = ops.one_hot(labels, classes, dtype="float32")
        # A class that does not exist makes the loss NaN, which stops a training: a row of zeros
        # would make it 0.
        return ops.where(ops.expand_dims(known, -1), rows, float("nan"))
    if len(labels.shape) != 2 or labels.shape[-1] != classes:
        accepted = f"class indices of shape (batch,) or rows of shape (batch, {classes})"
        raise ArgumentError("labels", accepted, Words(f"labels.shape={tuple(labels.shape)}"))
    return ops.cast(labels, "float32")


def class_count(logits: TensorLike) -> int:
    """Returns the number of classes of logits `(batch, classes)`.

    Raises:
        ValueError: there is one, whose softmax is 1 whatever the logit is.
    """
    classes = logits.shape[-1]
    if classes == 1:
        received = Words(f"logits.shape={tuple(logits.shape)}")
        raise ArgumentError("logits", "of at least two classes", received)
    return classes


def known_indices(labels: TensorLike, classes: int) -> tuple[Tensor, Tensor]:
    """Returns labels `(batch,)` of any dtype as int32, and which of them are indices of a class.

    Fractions are none, and neither are integers that an int32 would hold as others.
    """
    labels = ops.convert_to_tensor(labels)
    indices = ops.cast(labels, "int32")
    known = ops.logical_and(indices >= 0, indices < classes)
    return indices, ops.logical_and(known, ops.cast(indices, labels.dtype) == labels)


def log_probabilities(logits: TensorLike, temperature: TensorLike | float = 1.0) -> Tensor:
    """Log-softmax of `logits / temperature` in float32; the temperature may be per sample."""
    logits = ops.cast(logits, "float32")
    class_count(logits)  # of one every log-probability is 0
    temperature = ops.cast(temperature, "float32")
    if len(temperature.shape) == 1:
        temperature = ops.expand_dims(temperature, -1)
    return ops.log_softmax(logits / temperature, axis=-1)


def crossentropy(labels: TensorLike, logits: TensorLike) -> Tensor:
    """Cross-entropy `-sum_c y_c ln f_c`.

    Args:
        labels: class indices or rows of probabilities.
        logits: `(batch, classes)`.

    Returns:
        float32 `(batch,)`.
    """
    return -ops.sum(label_probabilities(labels, logits) * log_probabilities(logits), axis=-1)


def smoothed_crossentropy(labels: TensorLike, logits: TensorLike, epsilon: float) -> Tensor:
    """Cross-entropy with targets `(1 - epsilon) y + epsilon / C` (label smoothing, LSR).

    Args:
        labels: class indices or rows of probabilities.
        logits: `(batch, classes)`.
        epsilon: smoothing in [0, 1]; see `epsilon_from_primary_score`.

    Returns:
        float32 `(batch,)`.
    """
    targets = (1 - epsilon) * label_probabilities(labels, logits) + epsilon / logits.shape[-1]
    return -ops.sum(targets * log_probabilities(logits), axis=-1)


def confidence_penalty(logits: TensorLike) -> Tensor:
    """Negative entropy `sum_c f_c ln f_c`, largest for a confident prediction.

    Returns:
        float32 `(batch,)`, in `[-ln C, 0]`.
    """
    log_f = log_probabilities(logits)
    return ops.sum(ops.exp(log_f) * log_f, axis=-1)


def confidence_penalty_crossentropy(labels: TensorLike, logits: TensorLike, beta: float) -> Tensor:
    """Cross-entropy less `beta` times the prediction's entropy (confidence penalty, CP).

    Args:
        labels: class indices or rows of probabilities.
        logits: `(batch, classes)`.
        beta: strength, at least 0; see `beta_from_primary_score`.

    Returns:
        float32 `(batch,)`.
    """
    return crossentropy(labels, logits) + beta * confidence_penalty(logits)
