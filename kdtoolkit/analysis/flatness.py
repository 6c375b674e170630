"""How flat the minimum is that a network was trained to: it is judged with noise on its weights."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit._checks import AT_LEAST_0, Integers, check
from kdtoolkit._types import Network
from kdtoolkit.analysis.numbers import Noisy
from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.precision import in_float32
from kdtoolkit.training.evaluation import figures
from kdtoolkit.training.fused import folded


def under_noise(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    sigmas: Sequence[float],
    *,
    draws: int = 3,
    seed: int = 0,
    normalized: bool = False,
    batch_size: int = 250,
) -> list[Noisy]:
    """Judges a network with Gaussian noise on its trainable weights (Zhang et al., ICCV 2019).

    The weights are the same afterwards, bit for bit. Noise is a function of seed and draw alone,
    `sigma` times the same directions, so that what is measured at one sigma does not depend on
    the others. Moving statistics of batch normalisation stay as they are.

    Args:
        network: functional Keras model that returns logits.
        images: float `(n, height, width, channels)`, normalised.
        labels: class indices `(n,)`.
        sigmas: at least 0 each.
        draws: directions.
        seed: of them, at least 0.
        normalized: filter-wise (Li et al., NeurIPS 2018): the noise of each filter, a kernel's
            weights at one index of its last axis, has a norm of `sigma` times the filter's own, and
            vectors (biases, scales and offsets) have none. Networks of other scales can then be
            compared.
        batch_size: of the forward passes.

    Returns:
        One for each sigma.

    Raises:
        ArgumentError: an argument is outside its range, or the network returns no logits.
    """
    check_logits(network)
    check("draws", draws, Integers(1))
    check("seed", seed, Integers(0))
    for sigma in sigmas:
        check("sigmas", sigma, AT_LEAST_0)
    found: dict[float, list] = {sigma: [] for sigma in sigmas}
    with in_float32(network), _restored(network.trainable_variables) as weights:
        logits = _runner(network, images, batch_size)
        for draw in range(draws):
            noise = directions(weights, seed, draw, normalized)
            for sigma in found:
                if not sigma and found[sigma]:
                    found[sigma].append(found[sigma][0])  # the network itself, in every draw
                    continue
                for variable, value, step in zip(
                    network.trainable_variables, weights, noise, strict=True
                ):
                    variable.assign((value + sigma * step).astype(value.dtype))
                found[sigma].append(figures(logits(), labels))
    return [
        Noisy(
            float(sigma),
            tuple(each.accuracy for each in found[sigma]),
            tuple(each.loss for each in found[sigma]),
        )
        for sigma in sigmas
    ]


def directions(
    weights: Sequence[np.ndarray], seed: int, draw: int, normalized: bool = False
) -> list[np.ndarray]:
    """Returns Gaussian noise of deviation 1 for each array, as `under_noise` scales it.

    Args:
        weights: arrays, of which the noise has the shapes.
        seed, draw, normalized: as of `under_noise`.
    """
    random = np.random.default_rng([seed, draw])
    noise = [random.standard_normal(weight.shape) for weight in weights]
    return list(map(_filter_wise, weights, noise)) if normalized else noise


def _filter_wise(weight, noise):
    if weight.ndim < 2:
        return np.zeros_like(noise)
    axes = tuple(range(weight.ndim - 1))
    own, drawn = (np.sqrt(np.square(x, dtype=np.float64).sum(axes)) for x in (weight, noise))
    return noise * (own / drawn)


@contextlib.contextmanager
def _restored(variables: Sequence[keras.Variable]) -> Iterator[list[np.ndarray]]:
    """Context with the values of variables, which they have again when it ends."""
    values = [np.array(variable) for variable in variables]
    try:
        yield values
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _runner(network, images, batch_size):
    """Function that returns the logits of all images, with the weights as they are by then."""
    forward = folded(network)
    step = tf.function(lambda x: forward(x, training=False), reduce_retracing=True)

    def logits():
        starts = range(0, len(images), batch_size)
        parts = [step(tf.constant(images[i : i + batch_size], tf.float32)) for i in starts]
        return np.concatenate([part.numpy() for part in parts])

    return logits
