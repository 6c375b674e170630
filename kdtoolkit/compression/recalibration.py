"""Statistics of batch normalisation, made again where channels before them are gone."""

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
    normalisation with its batch's own, as in training; no weight changes.

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
    momenta = [norm.momentum for norm in norms]
    try:
        for number in range(batches):
            for norm in norms:  # the mean of the first, of the first two, and so on
                norm.momentum = number / (number + 1)
            batch = images[number * batch_size : (number + 1) * batch_size]
            network(tf.convert_to_tensor(batch), training=True)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
