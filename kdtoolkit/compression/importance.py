"""What a channel is worth: scores by which channels are kept or removed."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import losses
from kdtoolkit._checks import ArgumentError, Integers, OneOf, check
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import filters
from kdtoolkit.compression.coupling import ChannelGroup
from kdtoolkit.compression.options import IMPORTANCES
from kdtoolkit.models.contract import check_logits

_NOT_MULTIPLIED = ("bias", "beta", "moving_mean", "moving_variance")

Scores = list[np.ndarray | None]
"""For each group float64 `(size,)`, at least 0; None for a group that it says nothing of."""


class Importance(abc.ABC):
    """Scores of channels; those with the smallest are removed first.

    Attributes:
        name: how command lines call it.
        comparable: whether scores of different groups compare as they are. Where they do not,
            their groups' means are taken as equal before they are compared.
    """

    name: ClassVar[str]
    comparable: ClassVar[bool] = False

    @abc.abstractmethod
    def scores(self, network: Network, groups: Sequence[ChannelGroup]) -> Scores:
        """Returns the scores of all groups of a network.

        Args:
            network: functional Keras model with the layers that the groups name.
            groups: of `channel_groups`.
        """


class _OfWeights(Importance):
    """What each filter is worth by itself, summed over those that are tied."""

    def scores(self, network, groups):
        return [self._summed(network, group) for group in groups]

    def _summed(self, network, group):
        total = np.zeros(group.size)
        for name, channels in group.channels.items():
            weights = _float64(filters(network.get_layer(name)))
            worth = self.of_filters(weights.reshape(-1, weights.shape[-1]))
            total += worth[channels].sum(axis=1)
        return total

    @abc.abstractmethod
    def of_filters(self, weights: np.ndarray) -> np.ndarray:
        """Scores `(filters,)` of the filters of a layer, float64 `(weights, filters)`."""


@dataclass(frozen=True)
class L1(_OfWeights):
    """The sum of the absolute weights of a filter (Li et al., ICLR 2017)."""

    name = "l1"

    def of_filters(self, weights):
        return np.abs(weights).sum(axis=0)


@dataclass(frozen=True)
class L2(_OfWeights):
    """The sum of the squared weights of a filter."""

    name = "l2"

    def of_filters(self, weights):
        return np.square(weights).sum(axis=0)


@dataclass(frozen=True)
class GroupNorm(Importance):
    """The sum of the squared weights that go with a channel (Fang et al., DepGraph, CVPR 2023).

    Those of what reads it are among them, and the scales that it passes; what is only added, such
    as a bias, is not.
    """

    name = "group_norm"

    def scores(self, network, groups):
        return [self._summed(network, group) for group in groups]

    def _summed(self, network, group):
        total = np.zeros(group.size)
        for (name, number, axis), places in group.slices.items():
            variable = network.get_layer(name).weights[number]
            if variable.name not in _NOT_MULTIPLIED:
                squares = np.moveaxis(np.square(_float64(variable)), axis, 0)
                total += squares.reshape(len(squares), -1).sum(axis=1)[places].sum(axis=1)
        return total


@dataclass(frozen=True)
class FPGM(_OfWeights):
    """The distances of a filter to all others of its layer (He et al., CVPR 2019).

    Filters near their geometric median can be replaced by the others.
    """

    name = "fpgm"

    def of_filters(self, weights):
        products = weights.T @ weights
        norms = np.diag(products)
        squares = norms[:, None] + norms - 2 * products
        return np.sqrt(np.maximum(squares, 0)).sum(axis=1)


@dataclass(frozen=True)
class LAMP(L2):
    """Squared weights over those of all channels that are worth as much (Lee et al., ICLR 2021).

    The best channel of every group has the score 1, so that none loses all of them.
    """

    name = "lamp"
    comparable = True

    def scores(self, network, groups):
        found = []
        for squares in super().scores(network, groups):
            order = np.argsort(squares, kind="stable")
            surviving = np.cumsum(squares[order][::-1])[::-1]
            shares = np.empty_like(squares)
            shares[order] = np.divide(
                *(squares[order], surviving), out=np.ones_like(squares), where=surviving > 0
            )
            found.append(shares)
        return found


@dataclass(frozen=True)
class BNScale(Importance):
    """The absolute scale of the batch normalisation behind a channel (Liu et al., ICCV 2017).

    It says nothing of groups without any.
    """

    name = "bn_scale"

    def scores(self, network, groups):
        return [self._summed(network, group) if group.scales else None for group in groups]

    def _summed(self, network, group):
        total = np.zeros(group.size)
        for name, channels in group.scales.items():
            total += np.abs(_float64(network.get_layer(name).gamma))[channels].sum(axis=1)
        return total


@dataclass(frozen=True)
class Random(Importance):
    """Uniform numbers: what every other way is to be better than."""

    name = "random"
    comparable = True

    seed: int = 0

    def scores(self, network, groups):
        rng = np.random.default_rng(self.seed)
        return [rng.random(group.size) for group in groups]


@dataclass(frozen=True)
class Taylor(Importance):
    """What the loss would change without a channel, to first order (Molchanov et al., CVPR 2019).

    The square of the sum of `weight * gradient` over the scales and offsets of the batch
    normalisations that a channel passes, the authors' gates; over its filters where it passes none.
    The mean over batches. They are changes of the loss, and compare over groups as they are. Of a
    network with several outputs the loss is the sum over them.

    Attributes:
        images: normalised, float `(n, height, width, channels)`.
        labels: classes, int `(n,)`.
        batch_size: images whose mean cross-entropy has one gradient.

    Raises:
        ArgumentError: an attribute is not what is accepted; in `scores`, an output of the network
            is not logits.
    """

    name = "taylor"
    comparable = True

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    batch_size: int = 32

    def __post_init__(self):
        check("batch_size", self.batch_size, Integers(1))
        if not len(self.images) or len(self.images) != len(self.labels):
            accepted = f"of the {len(self.images)} images, at least one"
            raise ArgumentError("labels", accepted, len(self.labels))

    def scores(self, network, groups):
        for output in network.outputs:  # there are several where there are exits
            check_logits(keras.Model(network.input, output, name=network.name))
        gates = [group.scales or group.channels for group in groups]
        names = dict.fromkeys(name for each in gates for name in each)
        variables = {name: _gate(network.get_layer(name)) for name in names}
        flat = [variable for each in variables.values() for variable in each]
        total = [np.zeros(group.size) for group in groups]
        count = math.ceil(len(self.images) / self.batch_size)
        for start in range(0, len(self.images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            gradients = iter(_gradients(network, flat, self.images[batch], self.labels[batch]))
            changes = {
                name: sum(_by_channel(variable, next(gradients)) for variable in each)
                for name, each in variables.items()
            }
            for scores, layers in zip(total, gates, strict=True):
                joint = sum(changes[name][places].sum(axis=1) for name, places in layers.items())
                scores += np.square(joint) / count
        return total


_BY_NAME: dict[str, type[Importance]] = dict(
    zip(IMPORTANCES, (L1, L2, GroupNorm, BNScale, FPGM, LAMP, Taylor, Random), strict=True)
)


def as_importance(importance: str | Importance) -> Importance:
    """Returns what a name stands for, or the object itself.

    Raises:
        ArgumentError: there is no such name, or it needs images: `Taylor(images, labels)`.
    """
    if isinstance(importance, Importance):
        return importance
    check("importance", importance, OneOf(IMPORTANCES))
    if importance == Taylor.name:
        accepted = "an object for what needs images: Taylor(images, labels)"
        raise ArgumentError("importance", accepted, importance)
    return _BY_NAME[importance]()


def _float64(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")


def _gate(layer):
    """The variables whose last axis lets a layer's channels through, or not."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return [filters(layer)]
    return [layer.gamma, *([layer.beta] if layer.center else [])]


def _by_channel(variable, gradient):
    """Sums of weight times gradient along the last axis: float64 `(channels,)`."""
    change = _float64(variable) * gradient
    return change.reshape(-1, change.shape[-1]).sum(axis=0)


def _gradients(network, variables, images, labels):
    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        for value in values:
            tape.watch(value)
        logits = network(tf.convert_to_tensor(images), training=False)
        outputs = keras.tree.flatten(logits)
        loss = tf.add_n([tf.reduce_mean(losses.crossentropy(labels, each)) for each in outputs])
    found = tape.gradient(loss, values, unconnected_gradients="zero")
    return [np.asarray(gradient, "float64") for gradient in found]
