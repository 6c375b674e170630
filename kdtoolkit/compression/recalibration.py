"""Statistics of batch normalisation, made again where channels before them are gone."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Integers, check
from kdtoolkit._keras import all_layers
from kdtoolkit._types import Network


def recalibrate(network: Network, images: np.ndarray, batch_size: int = 128) -> None:
    """Sets the moving statistics of batch normalisation to those of some images.

    A channel that is removed takes its mean with it, and what comes behind is normalised by
    statistics that are no longer true: most of what pruning costs before any training (Li et al.,
    EagleEye, ECCV 2020). The new ones are the mean over the batches of what each batch has, every
    normalisation with its batch's own, as in training, frozen ones too; no weight changes. Of one
    that is called several times they are the mean over all its calls.

    Args:
        network: a Keras model that takes images, changed in place.
        images: training images, normalised, float `(n, height, width, channels)`.
        batch_size: images in a batch, at most n; what is left over is not used.

    Raises:
        ArgumentError: an argument is not what is accepted.
    """
    check("batch_size", batch_size, Integers(1))
    batches = len(images) // batch_size
    if not batches:
        raise ArgumentError("images", f"at least a batch of {batch_size}", len(images))
    norms = [
        each for each in all_layers(network) if isinstance(each, keras.layers.BatchNormalization)
    ]
    before = [(norm, norm.momentum, norm.trainable) for norm in norms]
    try:
        for norm in norms:
            norm.trainable = True  # or it would go on normalising by what it has
            norm.call = _averaging(norm)
        for start in range(0, batches * batch_size, batch_size):
            network(tf.convert_to_tensor(images[start : start + batch_size]), training=True)
    finally:
        for norm, momentum, trainable in before:
            norm.momentum, norm.trainable = momentum, trainable
            vars(norm).pop("call", None)  # that of its class again


def _averaging(norm: keras.layers.BatchNormalization) -> Callable[..., tf.Tensor]:
    """The call of a normalisation after which its statistics are the means over all calls."""
    call, calls = norm.call, 0

    @functools.wraps(call)
    def averaging(*args, **kwargs):
        nonlocal calls
        norm.momentum = calls / (calls + 1)
        calls += 1
        return call(*args, **{**kwargs, "training": True})

    return averaging
