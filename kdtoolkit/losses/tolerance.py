"""The tolerant teacher's loss (Yang et al., AAAI 2019, arXiv 1805.05551)."""

from keras import ops

from kdtoolkit._checks import ArgumentError
from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses.crossentropies import crossentropy


def score_difference(logits: TensorLike, top_k: int = 5) -> Tensor:
    """Primary score less the mean of the secondary ones: the second term of Eqn 3.

    `f_a1 - mean_{k=2..K} f_ak` with `a_k` the index of the k-th largest probability. Gradients flow
    through the values, not the indices; `a_1` need not be the true class.

    Args:
        logits: `(batch, classes)`.
        top_k: `K`, from 2 to the number of classes.

    Returns:
        float32 `(batch,)`, in [0, 1].

    Raises:
        ValueError: `top_k` is outside its range.
    """
    if not 2 <= top_k <= logits.shape[-1]:
        accepted = f"from 2 to the number of classes ({logits.shape[-1]})"
        raise ArgumentError("top_k", accepted, top_k)
    scores, _ = ops.top_k(ops.softmax(ops.cast(logits, "float32"), axis=-1), top_k)
    return scores[:, 0] - ops.mean(scores[:, 1:], axis=-1)


def tolerant_crossentropy(
    labels: TensorLike, logits: TensorLike, eta: float, top_k: int = 5
) -> Tensor:
    """The patriarch's loss, Eqn 3: `(1 - eta) CE(y, f) + eta (f_a1 - mean_{k=2..K} f_ak)`.

    Args:
        labels: class indices or rows of probabilities.
        logits: `(batch, classes)`.
        eta: weight of the score difference in [0, 1]; see `eta_from_primary_score`.
        top_k: `K`.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: `top_k` is outside [2, classes].
    """
    return (1 - eta) * crossentropy(labels, logits) + eta * score_difference(logits, top_k)
