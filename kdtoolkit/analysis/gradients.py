"""How hard a loss pulls on each convolution of a network."""

import re
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._keras import all_layers
from kdtoolkit._types import Network, Tensor
from kdtoolkit.losses import crossentropy
from kdtoolkit.methods import Methods
from kdtoolkit.models.copies import copier
from kdtoolkit.models.exits import exit_names, features
from kdtoolkit.training.self_distillation import METHODS, SelfDistillation

Batches = Iterable[tuple[np.ndarray, np.ndarray]]


def convolution_gradients(
    network: Network, batches: Batches, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """Returns the mean absolute gradient of each convolution's kernel.

    Gradients are those of a training step: batch normalisation takes the batch's own statistics.
    The network is not changed.

    Args:
        network: functional Keras model.
        batches: pairs of normalised images `(b, height, width, channels)` and class indices
            `(b,)`; at least one.
        loss: labels and what the network returns -> one value per sample, `(b,)`.

    Returns:
        Name of a convolution -> the mean over its weights and the batches of `|dL/dw|`, where L is
        the mean loss of a batch; in the order of the layers,
        heads of exits behind all others.

    Raises:
        ArgumentError: the network has no convolution, or there is no batch.
    """
    copy = copier(network)()
    return _gradients(
        copy, batches, lambda x, y: {"loss": loss(y, copy(x, training=True))}, {"loss": {"loss"}}
    )["loss"]


def distillation_gradients(
    network: Network, batches: Batches, methods: Methods = METHODS
) -> dict[str, dict[str, float]]:
    """Returns gradients with and without what the deepest exit teaches (Zhang et al., Figure 5).

    Args:
        network: a multi-exit network.
        batches: of `convolution_gradients`.
        methods: of `kdtoolkit.training.SelfDistillation`.

    Returns:
        `"deepest exit"`, of its cross-entropy alone, `"deep supervision"`, of that of all exits,
        `"self-distillation"`, of all terms, each as of `convolution_gradients`. A convolution that
        is not on the way to a loss has a gradient of 0.

    Raises:
        ValueError: the network has no exits, or a method is not one that exits can teach with.
    """
    trainer = SelfDistillation(copier(network)(), methods)
    trainer.compile("sgd")  # for methods that draw, by its steps
    probe = features(trainer.network)
    labels = {f"{name} alone": name for name in exit_names(trainer.network)}
    kinds = {
        "deepest exit": {f"{trainer.deepest} alone"},
        "deep supervision": set(labels),
        "self-distillation": set(trainer.term_names),
    }

    def terms(x, y):
        outputs = probe(x, training=True)
        alone = {key: crossentropy(y, outputs["logits"][name]) for key, name in labels.items()}
        return {**alone, **trainer.terms(y, outputs, {})}

    return _gradients(trainer.network, batches, terms, kinds)


def _gradients(network, batches, terms, kinds):
    """Mean absolute gradients of sums of terms: kind -> convolution -> number.

    Args:
        network: that has the convolutions.
        batches: of images and labels.
        terms: images, labels -> dict name -> per-sample loss.
        kinds: what to return -> names of its terms.
    """
    layers = sorted(filter(_is_convolution, all_layers(network)), key=_head)
    kernels = {layer.name: layer.kernel for layer in layers}
    if not kernels:
        received = Words(repr(network.name))
        raise ArgumentError("network", "a convolution with weights", received, must="have")

    @tf.function(reduce_retracing=True)
    def step(x, y):
        with tf.GradientTape(persistent=True) as tape:
            found = terms(x, y)
            sums = {
                kind: tf.add_n([tf.reduce_mean(found[name]) for name in names])
                for kind, names in ((kind, sorted(names)) for kind, names in kinds.items())
            }
        return {
            kind: [
                tf.reduce_mean(tf.abs(gradient))
                for gradient in tape.gradient(
                    total,
                    [kernel.value for kernel in kernels.values()],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            ]
            for kind, total in sums.items()
        }

    steps = [
        {kind: np.array(values) for kind, values in step(tf.constant(x), tf.constant(y)).items()}
        for x, y in batches
    ]
    if not steps:
        raise ArgumentError("batches", "at least one batch", Words("none"), must="have")
    return {
        kind: dict(
            zip(kernels, np.mean([each[kind] for each in steps], axis=0).tolist(), strict=True)
        )
        for kind in kinds
    }


def _head(layer):
    """What sorts heads behind the backbone, those of one exit side by side."""
    found = re.match(r"exit_\d+_", layer.name)
    return found[0] if found else ""


def _is_convolution(layer):
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return isinstance(layer, kinds) and layer.trainable
