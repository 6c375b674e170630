"""Masks of weights by magnitude: TFMOT's engine on Keras 3 variables, and 2:4 groups."""

import math

import keras
import tensorflow as tf

from kdtoolkit._checks import ArgumentError
from kdtoolkit.compression import _tfmot


class Masks:
    """The masks of one or more kernels that share a threshold.

    Under a strategy, made in its scope and used in its cross-replica context.

    Args:
        kernels: name -> Keras variable.
    """

    def __init__(self, kernels):
        self._kernels = kernels
        self._sizes = [math.prod(kernel.shape) for kernel in kernels.values()]
        self.mask = _variable(tf.ones(sum(self._sizes)), "mask")
        self.threshold = _variable(tf.zeros(()), "threshold")

    @property
    def variables(self):
        return [self.mask, self.threshold]

    def by_name(self):
        """Name -> mask in the kernel's shape, float32: 1 is kept, 0 is pruned."""
        parts = tf.split(self.mask.value, self._sizes)
        return {
            name: tf.reshape(part, kernel.shape)
            for (name, kernel), part in zip(self._kernels.items(), parts, strict=True)
        }

    def flat_weights(self):
        """All weights in one row, as the engine wants them: one tensor, one threshold."""
        return tf.concat(
            [tf.reshape(tf.cast(k.value, "float32"), [-1]) for k in self._kernels.values()], axis=0
        )

    def draw_groups(self, sparsity):
        """Masks the only kernel with `two_of_four`."""
        (kernel,) = self._kernels.values()
        mask, threshold = two_of_four(tf.cast(kernel.value, "float32"), sparsity)
        self.mask.assign(tf.reshape(mask, [-1]))
        self.threshold.assign(threshold)

    def apply(self):
        """Sets the weights that the mask prunes to zero."""
        for name, mask in self.by_name().items():
            kernel = self._kernels[name]
            # Not a product: a negative weight would become -0.0, which compresses badly.
            kernel.assign(tf.where(mask > 0, kernel.value, tf.zeros_like(kernel.value)))


def update_by_magnitude(masks, schedule, step):
    """Draws masks anew with TFMOT's engine, if the schedule says so at this step.

    Args:
        masks: list of `Masks`.
        schedule: step -> (whether it is time, fraction of the weights to prune).
        step: scalar integer tensor, counted from 1.
    """
    _tfmot.Pruning(
        lambda: step,
        [(m.flat_weights(), m.mask.value, m.threshold.value) for m in masks],
        schedule,
        block_size=(1, 1),
        block_pooling_type="AVG",
    ).conditional_mask_update()


def update_groups(masks, schedule, step):
    """Draws 2:4 masks anew, if the schedule says so at this step.

    TFMOT's engine knows 2:4 at step 1 only, and for all groups at once.

    Args:
        masks, schedule, step: as for `update_by_magnitude`; each of `masks` of one kernel.
    """
    due, sparsity = schedule(step)

    def draw():
        for m in masks:
            m.draw_groups(sparsity)

    tf.cond(due, draw, lambda: None)


def check_groups(layers):
    """Checks that layers have groups of four input channels.

    Args:
        layers: name -> layer.

    Raises:
        ValueError: one has not; all such layers are named.
    """
    unfit = [
        f"{name!r} {tuple(layer.kernel.shape)}"
        for name, layer in layers.items()
        if not isinstance(layer, keras.layers.Dense | keras.layers.Conv2D)
        or layer.kernel.shape[-2] % 4
    ]
    if unfit:
        raise ArgumentError(
            "structure",
            "None for others than dense layers and two-dimensional convolutions whose input "
            "channels divide by 4",
            "2:4",
            f"There are {', '.join(unfit)}",
        )


def two_of_four(kernel, sparsity):
    """Masks two weights in groups of four, beginning with the groups that lose least.

    A group is four consecutive input channels at one position of one output channel: the 2:4 of
    hardware and of LiteRT's layout. The two smallest magnitudes of a pruned group go (TFMOT's
    mask); `2 * sparsity` of the groups are pruned, those in which their sum is least.

    Args:
        kernel: float32 tensor `(inputs, outputs)` or `(height, width, inputs, outputs)`; the inputs
            divide by 4.
        sparsity: scalar in [0, 0.5].

    Returns:
        `(mask, threshold)`: float32 of the kernel's shape, and the largest sum that was pruned, 0
        where none was.
    """
    rows = _tfmot.utils.weights_rearrange(kernel)
    kept = tf.reshape(_tfmot.utils.generate_m_by_n_mask(rows, (2, 4)), [-1, 4])
    losses = tf.reduce_sum(tf.abs(tf.reshape(rows, [-1, 4])) * (1 - kept), axis=1)
    groups = losses.shape[0]
    count = tf.cast(tf.round(2 * sparsity * groups), "int32")
    order = tf.argsort(losses, stable=True)
    pruned = tf.scatter_nd(order[:, None], tf.cast(tf.range(groups) < count, "float32"), [groups])
    mask = tf.reshape(1 - pruned[:, None] * (1 - kept), rows.shape)
    return (
        _tfmot.utils.m_by_n_sparsity_mask_prepare(mask, kernel.shape),
        tf.reduce_max(losses * pruned),
    )


def _variable(value, name):
    return keras.Variable(value, trainable=False, aggregation="only_first_replica", name=name)
